package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"presenced/aes"
	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/directory"
	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
	"presenced/aggregator/store"
	"presenced/bridges/sip/lps"
	"presenced/bridges/web"
	"presenced/bridges/web/api"
	"presenced/bridges/web/signin"
	"presenced/bridges/xmpp"
	"presenced/domino"
	"presenced/exchange"
)

// ServeCommand runs the service.
type ServeCommand struct {
	Config string `short:"c" required:"" help:"Configuration file." type:"path" placeholder:"FILE"`
}

// Run implements the command.
func (c *ServeCommand) Run(ctx context.Context, term *Terminal) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	log := cfg.Log.logger(term.Err)
	return serve(ctx, cfg, func(link string) {
		log.WarnContext(ctx, "the page has no administrator yet: this link makes the first one, once, within an hour", "link", link)
	}, log)
}

// serve runs the service until ctx ends, and more bridges than those of the
// configuration. tell gets the link for the first administrator while there is none. It
// stops in order: sources and bridges first, then what records, the store last.
func serve(ctx context.Context, cfg *Config, tell func(link string), log *slog.Logger, more ...aggregator.Bridge) error {
	kept, err := store.Start(ctx, cfg.Store, log.With("part", "store"))
	if err != nil {
		return err
	}
	defer kept.Close()
	others, err := newSharing(ctx, cfg, kept, log)
	if err != nil {
		return err
	}
	recorder, err := newRecorder(ctx, kept, log)
	if err != nil {
		return err
	}
	hub := aggregator.NewHub(cfg.policy(), recorder, log)
	past := &archive{hub: hub, log: log}
	var written *journal.Journal // nil: nothing is remembered
	if cfg.History.Keep > 0 {
		past.entries = kept.Log("journal", cfg.History.Keep, cfg.History.MaxBytes)
		written = journal.New(past.entries, log.With("part", "journal"))
		hub.KeepJournal(written)
	}
	people := directory.NewWatch(cfg.Directory, log)
	first, err := people.Read(ctx)
	if err != nil {
		if first.Len() == 0 {
			return fmt.Errorf("nobody can be read from the directory: %w", err)
		}
		log.Error("part of the directory cannot be read", "error", err)
	}
	hub.SetDirectory(first, time.Now())
	chosen, err := kept.Bucket(ctx, "manual")
	if err != nil {
		return err
	}
	manual := aggregator.NewManual(hub, chosen, log)
	if others != nil {
		manual.Share(chosen)
	}
	if _, err := manual.Restore(ctx); err != nil {
		log.Error("what was set by hand cannot be read now; changes are refused until it can", "error", err)
	}
	trail := audit.New(kept.Log("audit", cfg.Access.AuditKeep, cfg.Access.AuditMaxBytes), log.With("part", "audit"))
	rules, err := kept.Bucket(ctx, "access")
	if err != nil {
		return err
	}
	gate := access.New(cfg.Access, hub, rules, trail, hub.Again, log.With("part", "access"))
	if others != nil {
		gate.Share(rules)
	}
	if err := gate.Restore(ctx); err != nil {
		log.Error("the access rules cannot be read now; nobody is shown until they can", "error", err)
	}
	restored, unread := hub.Restore(ctx, time.Now())
	if unread != nil { // presence comes up without the past, and gets it when the store can be read
		log.Error("what the store kept cannot be read now; presence starts in memory", "error", unread)
	}
	log.Info("starting", "version", version, "people", first.Len(), "restored", restored)

	supervisor := aggregator.NewSupervisor(hub, log)
	if others != nil {
		supervisor.Share(others)
		supervisor.AddStatus("leases", aggregator.KindStore, others.Status)
	}
	sources, err := cfg.sources(log)
	if err != nil {
		return err
	}
	for _, s := range sources {
		supervisor.AddSource(s)
	}
	subscriptions, err := kept.Bucket(ctx, "subscriptions")
	if err != nil {
		return err
	}
	cfg.addBridges(supervisor, subscriptions, others.machine(), hub, people, gate, log)
	for _, b := range more {
		supervisor.AddBridge(b)
	}
	told, err := kept.Bucket(ctx, "webhooks")
	if err != nil {
		return err
	}
	receivers := addReceivers(supervisor, cfg, told, gate, trail, log)
	administered, err := newServices(ctx, cfg, kept, hub, gate, trail, supervisor, log)
	if err != nil {
		return err
	}
	supervisor.AddPolled("directory", aggregator.KindDirectory, people.Status, people.PollNow)
	supervisor.AddStatus(aggregator.SourceManual, aggregator.KindStore, manual.Status)
	supervisor.AddStatus("access", aggregator.KindStore, gate.Status)
	shown, door, err := newFrontDoor(ctx, cfg, kept, hub, trail, log)
	if err != nil {
		return err
	}
	hand := &byHand{manual, hub, trail}
	table := &policies{cfg, past}
	parts := web.Parts{
		SignIn: door, Certificate: shown, Past: past, Manual: hand, Access: gate, OptIn: cfg.Access.OptIn, Services: administered,
		Poller: supervisor, Policies: table, Audit: trail, Version: version,
	}
	site := web.New(cfg.Web, desk{hub, supervisor}, gate, parts, newMetrics(hub, supervisor), log)
	supervisor.AddBridge(site)
	served := api.New(api.Deps{ //nolint:contextcheck // each request has a context of its own
		Version: version, People: hub, Sight: site, Parts: supervisor, Manual: hand, Access: gate, OptIn: cfg.Access.OptIn, Accounts: accounts(door), Webhooks: receivers,
		Services: administered, Policy: table, Audit: trail, Log: log.With("part", "api"),
	})
	supervisor.AddBridge(served)
	site.Handle("/api/", served.Handler(fromNetwork(door)))
	if cfg.Control.Socket != "" {
		supervisor.AddBridge(newControl(cfg.Control.Socket, served, log.With("bridge", "control")))
	}

	// The recorder outlives the sources and bridges, to write what they said last.
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	var last errgroup.Group
	last.Go(func() error { return recorder.Run(recording) })
	if written != nil {
		supervisor.AddStatus("journal", aggregator.KindStore, written.Status)
		last.Go(func() error { return written.Run(recording) })
	}

	g, ctx := errgroup.WithContext(ctx)
	if others != nil { // the leases outlive what runs under them
		last.Go(func() error { return others.Run(recording) })
		g.Go(func() error { return others.follow(ctx, hub) })
		g.Go(func() error { return manual.Hear(ctx) })
		g.Go(func() error { return gate.Hear(ctx) })
		g.Go(func() error { return hearAccounts(ctx, kept, door) })
		g.Go(func() error { return administered.catalog.Hear(ctx, others.services) })
		if written != nil {
			g.Go(func() error { return others.remember(ctx, written) })
		}
	}
	if cfg.table != nil {
		own := newPolicyWatch(*cfg.table, log.With("part", "policy"))
		supervisor.AddStatus("policy", aggregator.KindPolicy, own.Status)
		again := make(chan os.Signal, 1)
		signal.Notify(again, syscall.SIGHUP)
		defer signal.Stop(again)
		g.Go(func() error {
			return own.Run(ctx, again, func(p *presence.Policy) {
				notePolicy(ctx, trail, cfg.PolicyFile, hub.Policy(), p, log)
				hub.SetPolicy(p, time.Now())
			})
		})
	}
	if unread != nil {
		g.Go(func() error { return recorder.Revive(ctx, hub) })
	}
	g.Go(func() error { return hub.Run(ctx) })
	g.Go(func() error { return manual.Run(ctx) })
	g.Go(func() error { return gate.Run(ctx) })
	g.Go(func() error { return supervisor.Run(ctx) })
	g.Go(func() error { return administered.Run(ctx) })
	g.Go(func() error { return runDesk(ctx, door, tell, log) })
	g.Go(func() error {
		return people.Run(ctx, func(d *directory.Directory) {
			hub.SetDirectory(d, time.Now())
			gate.Follow()
			administered.review()
			receivers.review()
		})
	})
	g.Go(func() error { return notifySystemd(ctx, supervisor) })
	err = g.Wait()
	stopRecording()
	if unwritten := last.Wait(); unwritten != nil { // the sources say it again; what was set by hand is durable
		log.Error("what changed last could not be written", "error", unwritten)
	}
	log.Info("stopped")
	return err
}

// notePolicy leaves a line in the audit trail that a file makes another policy. It
// does not stand in the way: the file is what the administrator wants, and presence
// does not wait for the store.
func notePolicy(ctx context.Context, trail *audit.Trail, file string, was, is *presence.Policy, log *slog.Logger) {
	err := trail.Write(ctx, audit.Line{
		Who: "policy.file", From: file, What: "policy set", Whom: "policy", Detail: fmt.Sprintf("%d rules -> %d rules", len(was.Rules), len(is.Rules)),
	})
	if err != nil {
		log.Error("the audit trail does not say that the policy was read again", "error", err)
	}
}

// fromNetwork names who asks the API at the page for the audit trail, as the page does.
func fromNetwork(desk *signin.Desk) func(*http.Request) audit.Actor {
	return func(r *http.Request) audit.Actor {
		if desk == nil { // then nobody may change anything
			return audit.Actor{}
		}
		return audit.Actor(desk.By(r))
	}
}

// desk is what the page needs of the aggregator.
type desk struct {
	*aggregator.Hub
	*aggregator.Supervisor
}

func newRecorder(ctx context.Context, kept *store.Store, log *slog.Logger) (*aggregator.Recorder, error) {
	reports, err := kept.Bucket(ctx, "reports")
	if err != nil {
		return nil, err
	}
	states, err := kept.Bucket(ctx, "states")
	if err != nil {
		return nil, err
	}
	return aggregator.NewRecorder(reports, states, log), nil
}

// sources makes all collectors that the configuration names.
func (c *Config) sources(log *slog.Logger) ([]aggregator.Source, error) {
	var all []aggregator.Source
	for _, s := range aes.NewAll(c.AES, log) {
		all = append(all, s)
	}
	for _, cfg := range c.Exchange {
		calendar, replies, err := exchange.New(cfg, log)
		if err != nil {
			return nil, err
		}
		all = append(all, calendar)
		if replies != nil {
			all = append(all, replies)
		}
	}
	for _, cfg := range c.Domino {
		calendar, ooo, err := domino.New(cfg, log)
		if err != nil {
			return nil, err
		}
		all = append(all, calendar)
		if ooo != nil {
			all = append(all, ooo)
		}
	}
	return all, nil
}

// addBridges adds all bridges that the configuration names, but the page and those to
// presence servers. What listens runs on every machine, and keeps apart what it keeps.
func (c *Config) addBridges(v *aggregator.Supervisor, subscriptions *store.Bucket, machine string, people lps.People, accounts lps.Accounts, gate presence.Gate, log *slog.Logger) {
	for _, cfg := range c.LPS {
		v.AddBridge(lps.New(cfg, people, gate, subscriptions.Part(cfg.Name+machine), accounts, log))
	}
	for _, cfg := range c.XMPP {
		v.AddJob(xmpp.New(cfg, subscriptions.Part(cfg.Name).Memory(false), gate, log))
	}
}

// notifySystemd tells the service manager that the service runs, and feeds its
// watchdog while the supervisor answers. Outside systemd it does nothing.
func notifySystemd(ctx context.Context, v *aggregator.Supervisor) error {
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	defer func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) }()
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			v.Health() // blocks if the supervisor does
			_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
	}
}

// newMetrics makes the registry behind /metrics. No metric has a person as a label.
func newMetrics(hub *aggregator.Hub, v *aggregator.Supervisor) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &partMetrics{hub, v})
	return r
}

// partMetrics turns health and states into metrics when they are asked for.
type partMetrics struct {
	hub        *aggregator.Hub
	supervisor *aggregator.Supervisor
}

// Describe implements prometheus.Collector; the metrics depend on the configuration.
func (*partMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *partMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(name, help string, value float64, labels prometheus.Labels) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("presenced_"+name, help, nil, labels), prometheus.GaugeValue, value)
	}
	counter := func(name, help string, value float64, labels prometheus.Labels) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("presenced_"+name, help, nil, labels), prometheus.CounterValue, value)
	}
	people := map[presence.Availability]int{}
	for _, s := range m.hub.States() {
		people[s.Availability]++
	}
	for a := range presence.Availabilities() {
		gauge("people", "People by availability.", float64(people[a]), prometheus.Labels{"availability": a.String()})
	}
	counter("reports_about_strangers_total", "Reports about subjects that are nobody in the directory.", float64(m.hub.Strangers()), nil)
	for _, h := range m.supervisor.Health() {
		part := prometheus.Labels{"part": h.Name, "kind": string(h.Kind)}
		live := 0.0
		if h.Phase == presence.PhaseLive {
			live = 1
		}
		gauge("part_live", "Whether the source or bridge is live.", live, part)
		counter("part_restarts_total", "How often the part was started again.", float64(h.Restarts), part)
		counter("part_reports_total", "Reports that the source gave.", float64(h.Reports), part)
		for kind, n := range h.Problems {
			counter("part_problems_total", "What went wrong without ending the part.", float64(n), prometheus.Labels{"part": h.Name, "kind": string(h.Kind), "problem": kind})
		}
	}
}
