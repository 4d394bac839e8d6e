package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator/directory"
	"presenced/fixtures"
	"presenced/fixtures/sim/simaes"
	"presenced/fixtures/sim/simdomino"
	"presenced/fixtures/sim/simexchange"
	"presenced/internal/secret"
)

// SimCommand runs a simulated system.
type SimCommand struct {
	System       string      `arg:"" enum:"aes,exchange,domino" help:"What to simulate: aes, exchange or domino."`
	Listen       string      `help:"Address to listen on; without it 127.0.0.1 and a usual port."`
	Scenario     string      `help:"Scenario file to live through; without it the office day." type:"path" placeholder:"FILE"`
	Speed        float64     `default:"1" help:"How much faster than the clock."`
	Extensions   int         `help:"aes: so many extensions from 20000 on, with random calls, instead of a scenario."`
	BusyHour     float64     `default:"6" help:"aes: calls that each of the extensions begins in an hour."`
	Seed         uint64      `default:"1" help:"aes: the same seed makes the same calls."`
	User         string      `default:"svc" help:"The account that is let in."`
	PasswordFile secret.File `help:"File with the account's password; without it the password is secret."`
	Cert         string      `help:"PEM file with a certificate: speak TLS." type:"path" placeholder:"FILE"`
	Key          string      `help:"PEM file with the key of the certificate." type:"path" placeholder:"FILE"`
}

// Run implements the command.
func (c *SimCommand) Run(ctx context.Context, term *Terminal) error {
	if c.Speed <= 0 {
		return errors.New("--speed must be more than 0")
	}
	password := "secret"
	if c.PasswordFile != "" {
		var err error
		if password, err = c.PasswordFile.Read(); err != nil {
			return err
		}
	}
	if c.Extensions > 0 {
		return c.busyHour(ctx, term, password)
	}
	s, err := c.scenario()
	if err != nil {
		return err
	}
	l, err := c.listen(ctx)
	if err != nil {
		return err
	}
	o, err := newOffice(s, fixtures.Pace{Begin: s.Begin(), Start: time.Now(), Speed: c.Speed}, c.User, password)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	fmt.Fprintf(term.Err, "simulated %s at %s, account %s; scenario %s, %g times as fast as the clock\n", c.System, l.Addr(), c.User, s.Name, c.Speed)
	return o.run(ctx, map[string]net.Listener{c.System: l}, func(e fixtures.Event) {
		if e.Target == c.System {
			fmt.Fprintf(term.Err, "%s %s\n", o.pace.Office(e.At).In(s.Zone()).Format("15:04:05"), e)
		}
	})
}

// busyHour runs a switch on which people telephone at random, until ctx ends.
func (c *SimCommand) busyHour(ctx context.Context, term *Terminal, password string) error {
	switch {
	case c.System != "aes" || c.Scenario != "":
		return errors.New("--extensions is for aes, and instead of --scenario")
	case c.Extensions > mostExtensions:
		return fmt.Errorf("--extensions must be %d at most", mostExtensions)
	}
	extensions := numbered(c.Extensions)
	sw := simaes.New(simaes.Config{User: c.User, Password: password, Switch: simulatedSwitch, Stations: extensions})
	pace := fixtures.Pace{Begin: time.Now(), Start: time.Now(), Speed: c.Speed}
	traffic, err := simaes.NewTraffic(sw, simaes.Load{Extensions: extensions, BusyHour: c.BusyHour, Seed: c.Seed}, pace.Begin)
	if err != nil {
		return err
	}
	l, err := c.listen(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(term.Err, "simulated aes at %s, account %s; extensions %s to %s, %g calls of each in an hour, %g times as fast as the clock\n",
		l.Addr(), c.User, extensions[0], extensions[len(extensions)-1], c.BusyHour, c.Speed)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return sw.Serve(ctx, l) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Until(pace.World(traffic.Next()))):
				now := time.Now()
				traffic.Step(pace.Office(now), now)
			}
		}
	})
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// A switch has five digits for them.
const mostExtensions = 80_000

// numbered gives extensions of five digits from 20000 on.
func numbered(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strconv.Itoa(20_000 + i)
	}
	return out
}

func (c *SimCommand) scenario() (*fixtures.Scenario, error) {
	if c.Scenario == "" {
		return fixtures.OfficeDay()
	}
	return fixtures.Load(c.Scenario)
}

func (c *SimCommand) listen(ctx context.Context) (net.Listener, error) {
	address := c.Listen
	if address == "" {
		address = map[string]string{"aes": "127.0.0.1:4721", "exchange": "127.0.0.1:8443", "domino": "127.0.0.1:8444"}[c.System]
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil || c.Cert == "" {
		return l, err
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}), nil
}

// An office is a scenario over real sockets, at some pace: the three simulated
// systems, driven by the timeline.
type office struct {
	scenario *fixtures.Scenario
	people   *directory.Directory
	pace     fixtures.Pace
	aes      *simaes.Switch
	exchange *simexchange.Server
	domino   *simdomino.Server
}

// simulatedSwitch is the name of the switch that the simulated AES serves.
const simulatedSwitch = "CMSIM"

func newOffice(s *fixtures.Scenario, pace fixtures.Pace, user, password string) (*office, error) {
	list, err := directory.ParseFile(s.Name+".txtar: people.yaml", s.People)
	if err != nil {
		return nil, err
	}
	people, problems := directory.New(list)
	if len(problems) > 0 {
		return nil, fmt.Errorf("scenario %s: %s", s.Name, strings.Join(problems, "; "))
	}
	var files []string
	for _, n := range people.Subjects("notes") {
		_, file, _ := strings.Cut(n.Value, "!!")
		files = append(files, file)
	}
	return &office{
		scenario: s, people: people, pace: pace,
		aes:      simaes.New(simaes.Config{User: user, Password: password, Switch: simulatedSwitch, Stations: values(people.Subjects("tel"))}),
		exchange: simexchange.New(simexchange.Config{User: user, Password: password, Auth: "both", Mailboxes: values(people.Subjects("mail"))}),
		domino:   simdomino.New(simdomino.Config{User: user, Password: password, MailFiles: files}),
	}, nil
}

// run serves the systems on their listeners, and lives through the timeline; what
// happens is told to happened. It goes on until ctx ends.
func (o *office) run(ctx context.Context, listeners map[string]net.Listener, happened func(fixtures.Event)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{}, len(listeners))
	for system, l := range listeners {
		serve := map[string]func(context.Context, net.Listener) error{"aes": o.aes.Serve, "exchange": o.exchange.Serve, "domino": o.domino.Serve}[system]
		go func() {
			if err := serve(ctx, l); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("simulated %s: %w", system, err))
			}
			ended <- struct{}{}
		}()
	}
	err := o.live(ctx, happened)
	if err == nil {
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	cancel(err)
	for range listeners {
		<-ended
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// live carries out the timeline in its time.
func (o *office) live(ctx context.Context, happened func(fixtures.Event)) error {
	do := map[string]func(time.Time, []string) error{"aes": o.aes.Do, "exchange": o.exchange.Do, "domino": o.domino.Do}
	for _, e := range o.scenario.At(o.pace) {
		act := do[e.Target]
		if act == nil {
			continue // for replay only
		}
		if wait := time.Until(e.At); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return context.Cause(ctx)
			case <-timer.C:
			}
		}
		if err := act(time.Now(), e.Words); err != nil {
			return fmt.Errorf("scenario %s: timeline line %d: %w", o.scenario.Name, e.Line, err)
		}
		happened(e)
	}
	return nil
}
