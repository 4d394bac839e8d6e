package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/aggregator/store"
	"presenced/bridges/sip"
	"presenced/bridges/sip/lookup"
	"presenced/bridges/web"
	"presenced/internal/config"
)

// administration is the presence services at work: the catalog, a bridge for each
// service, and what the control socket does with them.
type administration struct {
	catalog      *services.Catalog
	audit        services.Audit
	supervisor   *aggregator.Supervisor
	without      func(source string) presence.Hub
	people       func() []presence.Person
	publications *store.Bucket
	gate         presence.Gate
	log          *slog.Logger

	mu      sync.Mutex
	outlets map[string]*outlet
	left    chan string // who has nothing published any more
}

// An outlet is the bridge of one service.
type outlet struct {
	*sip.Publisher
	memory   sip.Memory
	revision uint64
	network  string             // the source of what the server says of people
	without  presence.Hub       // the hub without that source
	asks     *subscribing       // nil: nobody asks
	heard    atomic.Bool        // somebody does
	leave    context.CancelFunc // ends the waiting for the removal of everybody; nil: the service is wanted
}

// newServices makes the bridges to the presence servers of the configuration, and
// the catalog of all of them. The stored ones follow when Run is called.
func newServices(ctx context.Context, cfg *Config, kept *store.Store, hub *aggregator.Hub, gate presence.Gate, trail *audit.Trail, supervisor *aggregator.Supervisor, log *slog.Logger) (*administration, error) {
	publications, err := kept.Bucket(ctx, "publications")
	if err != nil {
		return nil, err
	}
	forms, err := kept.Bucket(ctx, "services")
	if err != nil {
		return nil, err
	}
	log = log.With("part", "services")
	a := &administration{
		supervisor: supervisor, without: hub.Without, people: hub.People, publications: publications, gate: gate, audit: audited(trail), log: log,
		outlets: map[string]*outlet{}, left: make(chan string),
	}
	taken := map[string]string{}
	for _, h := range supervisor.Health() {
		taken[h.Name] = "a " + string(h.Kind)
	}
	for _, name := range []string{"access", "api", "control", "directory", "journal", "leases", "manual", "policy", "services", "store", "web"} {
		taken[name] = "a part of presenced"
	}
	fixed := make([]services.Service, 0, len(cfg.SIP))
	for _, c := range cfg.SIP {
		fixed = append(fixed, fixedService(&c))
		taken[c.Name] = "an entry of the configuration"
		a.add(a.outlet(c, nil, 0))
	}
	a.catalog = services.NewCatalog(services.Terms{
		Memory: forms, Audit: a.audit, People: hub.People, Fixed: fixed, File: cfg.file, Taken: taken, Fit: fits, Log: log,
	})
	supervisor.AddStatus("services", aggregator.KindStore, a.catalog.Status)
	return a, nil
}

// audited writes the deeds of the catalog into the audit trail.
func audited(trail *audit.Trail) services.Audit {
	return func(ctx context.Context, d services.Deed, do func() error) error {
		line := audit.Line{Who: d.Who, From: d.From, What: d.What, Whom: d.Service, Detail: d.Detail}
		return trail.Change(ctx, line, func(context.Context) error { return do() })
	}
}

// sipConfig gives what the bridge of a service is to do.
func sipConfig(s *services.Service) sip.Config {
	c := sip.DefaultConfig()
	c.Name, c.Address, c.Secondary = s.ID, s.Primary.Address(), s.Secondary.Address()
	c.Transport, c.TLS, c.Entity = s.Transport, s.TLS, s.Entity
	c.User, c.PasswordFile = s.User, s.PasswordFile
	c.Expires, c.Rate = s.PublishInterval, s.Rate
	c.Body, c.BusyBasic, c.OutOfOffice = s.Body, s.BusyBasic, s.OutOfOffice
	c.DisplayName, c.Microsoft, c.Cisco = s.DisplayName, s.Microsoft, s.Cisco
	return c
}

// fixedService is the service that an entry of the configuration comes to.
func fixedService(c *sip.Config) services.Service {
	server := func(address string) services.Server {
		host, port, _ := lookup.SplitAddress(address) // was checked
		return services.Server{Host: host, Port: int(port)}
	}
	return services.Service{
		ID: c.Name, Primary: server(c.Address), Secondary: server(c.Secondary), Transport: c.Transport, TLS: c.TLS,
		SubscribeInterval: c.Expires, PublishInterval: c.Expires, Entity: c.Entity, User: c.User, PasswordFile: c.PasswordFile,
		Subscribe: services.SubscribeOff, Users: []string{services.Everyone}, Rate: c.Rate,
		Body: c.Body, BusyBasic: c.BusyBasic, OutOfOffice: c.OutOfOffice, DisplayName: c.DisplayName, Microsoft: c.Microsoft, Cisco: c.Cisco,
	}
}

// fits tells what the bridge has against a service, by the keys of the service.
func fits(s services.Service) []config.Problem {
	cfg := sipConfig(&s)
	problems := cfg.Check()
	if asks := networkConfig(&s); asks != nil {
		for _, p := range asks.Check() {
			if !slices.ContainsFunc(problems, func(other config.Problem) bool { return other.Path == p.Path }) {
				problems = append(problems, p)
			}
		}
	}
	for i := range problems {
		p := &problems[i]
		if key, ok := map[string]string{"address": "primary", "expires": "publish_interval", "name": "id"}[p.Path]; ok {
			p.Path = key
		}
	}
	return problems
}

// Run has the bridges follow the catalog until ctx ends.
func (a *administration) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { _ = a.catalog.Run(ctx) })
	lists := make(chan []services.Record)
	group.Go(func() {
		for all := range a.catalog.Watch(ctx) {
			select {
			case lists <- all:
			case <-ctx.Done():
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case all := <-lists:
			a.follow(ctx, all, &group)
		case id := <-a.left:
			a.remove(ctx, id)
		}
	}
}

// follow makes the bridges what the catalog says.
func (a *administration) follow(ctx context.Context, all []services.Record, group *sync.WaitGroup) {
	wanted := map[string]bool{}
	for i := range all {
		r := &all[i]
		wanted[r.ID] = true
		o := a.find(r.ID)
		switch {
		case o == nil:
			o = a.outlet(sipConfig(&r.Service), r.Covers(), r.Revision)
			a.subscribe(o, &r.Service)
			a.add(o)
		case o.revision != r.Revision || o.leave != nil:
			if o.leave != nil {
				o.leave()
			}
			o.revision, o.leave = r.Revision, nil
			a.subscribe(o, &r.Service) // before the publisher reads everybody again
			o.Reform(sipConfig(&r.Service), r.Covers())
			a.supervisor.TryNow(r.ID)
		}
	}
	var leaving []*outlet
	a.mu.Lock()
	for id, o := range a.outlets {
		if wanted[id] || o.revision == 0 || o.leave != nil {
			continue
		}
		leaving = append(leaving, o)
		// What cannot be removed ends by itself within the interval.
		waiting, leave := context.WithTimeout(ctx, longestLeave)
		o.leave = leave
		a.supervisor.TryNow(id)
		group.Go(func() {
			defer leave()
			if err := o.Withdraw(waiting); errors.Is(err, context.Canceled) {
				return // wanted again, or the service ends
			}
			select {
			case a.left <- id:
			case <-ctx.Done():
			}
		})
	}
	a.mu.Unlock()
	for _, o := range leaving {
		a.subscribe(o, nil)
	}
}

// longestLeave is how long a server that is away is tried for the removal of what a
// service published.
const longestLeave = 10 * time.Minute

// outlet makes a bridge; revision zero is of the configuration.
func (a *administration) outlet(cfg sip.Config, covers func(*presence.Person) bool, revision uint64) *outlet {
	memory := a.publications.Part(cfg.Name).Memory(true)
	network := networkName(cfg.Name)
	o := &outlet{Publisher: sip.New(cfg, memory, a.gate, a.log), memory: memory, revision: revision, network: network, without: a.without(network)}
	if covers != nil {
		o.Reform(cfg, covers)
	}
	return o
}

// add has a bridge run.
func (a *administration) add(o *outlet) {
	a.mu.Lock()
	a.outlets[o.Name()] = o
	a.mu.Unlock()
	a.supervisor.AddJob(o)
}

// remove ends the bridge of a service that is not wanted any more.
func (a *administration) remove(ctx context.Context, id string) {
	o := a.find(id)
	if o == nil || o.leave == nil {
		return // it is wanted again
	}
	a.supervisor.RemoveBridge(id)
	a.mu.Lock()
	delete(a.outlets, id)
	a.mu.Unlock()
	tags, err := o.memory.Load(ctx) // of what a server that is away did not remove
	for key := range tags {
		if err == nil {
			err = o.memory.Delete(ctx, key)
		}
	}
	if err != nil {
		a.log.WarnContext(ctx, "entity-tags of a deleted presence service stay in the store", "service", id, "error", err)
	}
}

func (a *administration) find(id string) *outlet {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.outlets[id]
}

// review tells every bridge that people have changed.
func (a *administration) review() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.outlets {
		o.Review()
		if o.asks != nil {
			o.asks.Review()
		}
	}
}

// fares gives how the bridge of a service, its subscriptions and its servers fare;
// network is nil where it has no subscriptions, servers where it runs on another machine.
func (a *administration) fares(id string, o *outlet) (status presence.Status, network *presence.Status, servers []sip.Peer) {
	status, servers = o.Status(), o.Peers()
	if asks := a.asking(o); asks != nil {
		now := asks.Status()
		network = &now
	}
	for _, h := range a.supervisor.Health() {
		switch { // it runs on another machine
		case h.Phase != presence.PhaseStandby:
		case h.Name == id:
			status, servers = h.Status, nil
		case h.Name == o.network:
			network = &h.Status
		}
	}
	return status, network, servers
}

// Services implements web.Services.
func (a *administration) Services() ([]web.Service, error) {
	all, err := a.catalog.List()
	out := make([]web.Service, 0, len(all))
	for _, r := range all {
		one := web.Service{Record: r}
		if o := a.find(r.ID); o != nil {
			_, network, servers := a.fares(r.ID, o)
			one.Network = network
			for _, p := range servers {
				one.Servers = append(one.Servers, web.Server(p))
			}
		}
		out = append(out, one)
	}
	return out, err
}

// Apply implements web.Services.
func (a *administration) Apply(ctx context.Context, o services.Order) ([]services.Outcome, error) {
	return a.catalog.Apply(ctx, o)
}

// Sync implements web.Services. It fails where the service runs on another machine.
func (a *administration) Sync(ctx context.Context, id string, by audit.Actor) error {
	o := a.find(id)
	if o == nil {
		return fmt.Errorf("%w: %s is not running yet", services.ErrNone, id)
	}
	for _, h := range a.supervisor.Health() {
		if h.Name == id && h.Phase == presence.PhaseStandby {
			return fmt.Errorf("%s does not run on this machine (%s); synchronise it where it runs", id, h.Detail)
		}
	}
	deed := services.Deed{Who: by.Who, From: by.From, What: "service sync", Service: id}
	return a.audit(ctx, deed, func() error { o.Resend(); return nil })
}

// Try implements web.Services.
func (a *administration) Try(ctx context.Context, draft services.Service, by audit.Actor) ([]web.Trial, error) {
	if ps := fits(draft); len(ps) > 0 {
		return nil, &services.Unfit{ID: draft.ID, Problems: ps}
	}
	found, err := a.try(ctx, &draft, by)
	out := make([]web.Trial, 0, len(found))
	for _, f := range found {
		out = append(out, web.Trial(f))
	}
	return out, err
}

// try connects to the servers of s, with its password, which leaves a line.
func (a *administration) try(ctx context.Context, s *services.Service, by audit.Actor) (found []sip.Finding, err error) {
	deed := services.Deed{Who: by.Who, From: by.From, What: "service test", Service: s.ID, Detail: s.Primary.Address() + " " + s.Secondary.Address()}
	err = a.audit(ctx, deed, func() error {
		found = sip.Try(ctx, sipConfig(s), a.log)
		return nil
	})
	return found, err
}
