package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aes"
	"presenced/aggregator/presence"
	"presenced/domino"
	"presenced/exchange"
	"presenced/fixtures"
	"presenced/fixtures/sim/simdomino"
	"presenced/fixtures/sim/simexchange"
	"presenced/internal/config"
	"presenced/internal/secret"
)

// DemoCommand shows the whole product without any of the systems it serves: the
// simulators speak the real protocols over loopback, the real collectors read
// them, and the page shows what comes of it.
type DemoCommand struct {
	Speed    float64       `default:"120" help:"How many minutes of the office pass in a minute."`
	For      time.Duration `help:"End by itself after this time; without it, Ctrl-C ends."`
	Listen   string        `default:"127.0.0.1:8080" help:"Address of the page; if it is taken, a free port."`
	Scenario string        `help:"Another scenario file." type:"path" placeholder:"FILE"`
	Verbose  bool          `short:"v" help:"Also write the log."`
}

// Run implements the command.
func (c *DemoCommand) Run(ctx context.Context, term *Terminal) error {
	if c.Speed <= 0 {
		return errors.New("--speed must be more than 0")
	}
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	s, err := (&SimCommand{Scenario: c.Scenario}).scenario()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "presenced-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	listeners := map[string]net.Listener{}
	for _, system := range []string{"aes", "exchange", "domino"} {
		if listeners[system], err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return err
		}
	}
	const user, password = "svc", "demo"
	pace := fixtures.Pace{Begin: s.Begin(), Start: time.Now().Truncate(time.Second).Add(2 * time.Second), Speed: c.Speed}
	o, err := newOffice(s, pace, user, password)
	if err != nil {
		return err
	}
	cfg, err := c.config(o, listeners, user, password, dir)
	if err != nil {
		return err
	}
	log := quiet()
	if c.Verbose {
		log = cfg.Log.logger(term.Err)
	}
	fmt.Fprintf(term.Out, "A day in an office of %d, %g times as fast as the clock. The phones are on a simulated Communication Manager,\n"+
		"the calendars on a simulated Exchange and a simulated Domino; everything between them and this line is the product.\n\n"+
		"  The page: http://%s/\n\n", o.people.Len(), c.Speed, cfg.Web.Listen)
	introduced := make(chan struct{})
	tell := func(link string) {
		defer close(introduced)
		fmt.Fprintf(term.Out, "  To change something there, make yourself its administrator: %s\n\n"+
			"  From another terminal: %s board --socket %s\n\n", link, os.Args[0], cfg.Control.Socket)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, cfg, tell, log, &narrator{o, term.Out, introduced}) })
	g.Go(func() error { return o.run(ctx, listeners, func(fixtures.Event) {}) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	fmt.Fprintln(term.Out, "\nThe demonstration is over.")
	return nil
}

// A narrator is the bridge to the terminal: it tells each change in the time of the office.
type narrator struct {
	office *office
	out    io.Writer
	begin  <-chan struct{} // closed when it may
}

// Name gives "terminal".
func (*narrator) Name() string { return "terminal" }

// Run implements aggregator.Bridge.
func (n *narrator) Run(ctx context.Context, hub presence.Hub) error {
	select {
	case <-n.begin:
	case <-ctx.Done():
		return ctx.Err()
	}
	told := map[presence.ID]string{}
	for state := range hub.Watch(ctx) {
		if what := n.office.describe(state); what != "" && told[state.Person] != what {
			told[state.Person] = what
			fmt.Fprintf(n.out, "%s  %s\n", n.office.time(), what)
		}
	}
	return ctx.Err()
}

// describe says in words who is what, and why; nothing, while nobody has said anything.
func (o *office) describe(s presence.State) string {
	if s.Why.Rule == "unknown" {
		return ""
	}
	p, _ := o.people.Person(s.Person)
	what := s.Availability.Words()
	if words := s.Activity.Words(); words != "" && words != what {
		what += ", " + strings.ToLower(words[:1]) + words[1:]
	}
	for _, overlay := range presence.View(s, presence.Everyone()).Overlays.Names() {
		what += " (" + overlay + ")"
	}
	phone := ""
	if c := s.Channel(presence.Phone); c.State != presence.ChannelUnknown {
		phone = "phone " + c.State.String()
	}
	return fmt.Sprintf("%-14s %-32s %-20s %s", p.Name, what, phone, s.Why.Title)
}

// time is the time in the office.
func (o *office) time() string {
	now := o.pace.Office(time.Now())
	if now.Before(o.pace.Begin) {
		now = o.pace.Begin
	}
	return now.In(o.scenario.Zone()).Format("15:04")
}

// config is the configuration of the demonstration: everything on loopback, all
// that takes time as much faster as the office.
func (c *DemoCommand) config(o *office, listeners map[string]net.Listener, user, password, dir string) (*Config, error) {
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		return nil, err
	}
	faster := func(d time.Duration) time.Duration { return time.Duration(float64(d) / c.Speed) }
	people := filepath.Join(dir, "people.yaml")
	if err := os.WriteFile(people, o.scenario.People, 0o600); err != nil {
		return nil, err
	}
	cfg := &Config{}
	base := fmt.Sprintf("{directory: {files: [%q]}, store: {directory: %q}, control: {socket: %q}}", people, filepath.Join(dir, "store"), filepath.Join(dir, "control.sock"))
	if err := config.Parse("demonstration", []byte(base), cfg); err != nil {
		return nil, err
	}
	cfg.Policy = o.scenario.Settings.Policy
	cfg.Policy.DialDelay = faster(cfg.Policy.DialDelay)
	cfg.Policy.HangupLinger = faster(cfg.Policy.HangupLinger)
	cfg.Policy.MergeGap = faster(cfg.Policy.MergeGap)
	cfg.Policy.Recent = faster(cfg.Policy.Recent)
	cfg.Policy.MinDwell = faster(cfg.Policy.MinDwell)
	cfg.Policy.FlapWindow = faster(cfg.Policy.FlapWindow)
	cfg.Web.Listen = freeAddress(c.Listen)

	phones := aes.DefaultConfig()
	phones.Name, phones.Address, phones.Plain = "aes-demo", listeners["aes"].Addr().String(), true
	phones.User, phones.PasswordFile, phones.Switch = user, secret.File(file), simulatedSwitch
	cfg.AES = append(cfg.AES, phones)

	poll := max(time.Second, faster(5*time.Minute))
	mail := exchange.DefaultConfig()
	mail.Name, mail.URL = "exchange-demo", "http://"+listeners["exchange"].Addr().String()+simexchange.Path
	mail.User, mail.PasswordFile, mail.Mailbox, mail.Interval = user, secret.File(file), "svc@example.com", poll
	cfg.Exchange = append(cfg.Exchange, mail)

	notes := domino.DefaultConfig()
	notes.Name, notes.User, notes.PasswordFile, notes.Interval = "domino-demo", user, secret.File(file), poll
	url := "http://" + listeners["domino"].Addr().String()
	notes.Servers = []domino.Server{{Name: "Mail1/Acme", URL: url}}
	notes.OutOfOffice = domino.OutOfOfficeConfig{Driver: "helper", URL: url + simdomino.HelperPath + "?mail={mail}"}
	cfg.Domino = append(cfg.Domino, notes)
	return cfg, nil
}

// freeAddress gives the address, or one with a free port where it is taken.
func freeAddress(address string) string {
	for _, a := range []string{address, "127.0.0.1:0"} {
		if l, err := net.Listen("tcp", a); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	return address
}
