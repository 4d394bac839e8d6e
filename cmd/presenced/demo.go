package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aes"
	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/bridges/web"
	"presenced/bridges/web/api"
	"presenced/bridges/web/signin"
	"presenced/domino"
	"presenced/exchange"
	"presenced/fixtures"
	"presenced/fixtures/sim/simdomino"
	"presenced/fixtures/sim/simexchange"
	"presenced/internal/secret"
)

// DemoCommand shows the whole product without any of the systems it serves: the
// simulators speak the real protocols over loopback, the real collectors read
// them, and the page shows what comes of it.
type DemoCommand struct {
	Speed    float64       `default:"120" help:"How many minutes of the office pass in a minute."`
	For      time.Duration `help:"End by itself after this time; without it, Ctrl-C ends."`
	Listen   string        `default:"127.0.0.1:8080" help:"Address of the page; if it is taken, a free port."`
	Scenario string        `help:"Another scenario file." type:"path"`
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

	hub := aggregator.NewHub(cfg.Policy.Policy(), nil, log)
	hub.SetDirectory(o.people, time.Now())
	supervisor := aggregator.NewSupervisor(hub, log)
	sources, err := cfg.sources(log)
	if err != nil {
		return err
	}
	for _, src := range sources {
		supervisor.AddSource(src)
	}
	manual := aggregator.NewManual(hub, &volatile{}, log)
	if _, err := manual.Restore(ctx); err != nil {
		return err
	}
	_, door, err := cfg.frontDoor(signin.Deps{
		Accounts: &volatile{}, Sessions: &volatile{}, Tokens: &volatile{}, People: hub, Audit: func(context.Context, signin.Note) error { return nil }, Log: log,
	})
	if err != nil {
		return err
	}
	hand, rules := &byHand{manual: manual, hub: hub}, &policies{cfg, &archive{hub: hub, log: log}}
	parts := web.Parts{SignIn: door, Manual: hand, Poller: supervisor, Policies: rules, Version: version}
	site := web.New(cfg.Web, desk{hub, supervisor}, openGate{}, parts, newMetrics(hub, supervisor), log)
	supervisor.AddBridge(site)
	served := api.New(api.Deps{Version: version, People: hub, Sight: site, Parts: supervisor, Manual: hand, Log: log}) //nolint:contextcheck // each request has a context of its own
	supervisor.AddBridge(served)
	site.Handle("/api/", served.Handler(fromNetwork(door)))

	fmt.Fprintf(term.Out, "A day in an office of %d, %g times as fast as the clock. The phones are on a simulated Communication Manager,\n"+
		"the calendars on a simulated Exchange and a simulated Domino; everything between them and this line is the product.\n\n"+
		"  The page: http://%s/\n\n", o.people.Len(), c.Speed, cfg.Web.Listen)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return hub.Run(ctx) })
	g.Go(func() error { return supervisor.Run(ctx) })
	g.Go(func() error { return manual.Run(ctx) })
	g.Go(func() error {
		return runDesk(ctx, door, func(link string) {
			fmt.Fprintf(term.Out, "  To change something there, make yourself its administrator: %s\n\n", link)
		}, log)
	})
	g.Go(func() error { return o.run(ctx, listeners, func(fixtures.Event) {}) })
	g.Go(func() error {
		told := map[presence.ID]string{}
		for state := range hub.Watch(ctx) {
			if what := o.describe(state); what != "" && told[state.Person] != what {
				told[state.Person] = what
				fmt.Fprintf(term.Out, "%s  %s\n", o.time(), what)
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	fmt.Fprintln(term.Out, "\nThe demonstration is over.")
	return nil
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
	cfg := &Config{Log: LogConfig{Level: "info", Format: "text"}, Policy: o.scenario.Settings.Policy, Web: web.DefaultConfig()}
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
	base := "http://" + listeners["domino"].Addr().String()
	notes.Servers = []domino.Server{{Name: "Mail1/Acme", URL: base}}
	notes.OutOfOffice = domino.OutOfOfficeConfig{Driver: "helper", URL: base + simdomino.HelperPath + "?mail={mail}"}
	cfg.Domino = append(cfg.Domino, notes)
	return cfg, nil
}

// volatile is a memory that ends with the process.
type volatile struct{ values sync.Map }

// Load implements aggregator.Memory.
func (m *volatile) Load(context.Context) (map[string][]byte, error) {
	all := map[string][]byte{}
	m.values.Range(func(key, value any) bool {
		all[key.(string)] = value.([]byte) //nolint:forcetypeassert // Put stores nothing else
		return true
	})
	return all, nil
}

// Put implements aggregator.Memory.
func (m *volatile) Put(_ context.Context, key string, value []byte) error {
	m.values.Store(key, value)
	return nil
}

// Delete implements aggregator.Memory.
func (m *volatile) Delete(_ context.Context, key string) error {
	m.values.Delete(key)
	return nil
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
