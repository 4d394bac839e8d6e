package main

import (
	"context"
	"iter"

	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/bridges/sip/network"
)

// A subscribing is the source that asks the server of a service about its users.
type subscribing struct {
	*network.Subscriber
	cfg network.Config
}

// networkName gives the source of what the server of a service says of people. No
// other part has such a name: identifiers have no slash.
func networkName(service string) string { return service + "/network" }

// networkConfig gives what the source of a service is to do; nil: it asks for nothing.
func networkConfig(s *services.Service) *network.Config {
	if s.Subscribe == services.SubscribeOff {
		return nil
	}
	return &network.Config{
		Name: networkName(s.ID), Address: s.Primary.Address(), Secondary: s.Secondary.Address(), Transport: s.Transport, TLS: s.TLS,
		Entity: s.Entity, ListURI: s.ListURI, Notify: s.NotifyAddress, User: s.User, PasswordFile: s.PasswordFile,
		Expires: s.SubscribeInterval, Rate: s.Rate, Outstanding: 20,
	}
}

// Run implements aggregator.Bridge: nothing that the server of a service said is given
// back to it.
func (o *outlet) Run(ctx context.Context, hub presence.Hub) error {
	return o.Publisher.Run(ctx, &echoless{hub, o})
}

// An echoless is the hub as the bridge of a service sees it. To leave out a source costs
// something, so it is done only where the service has one.
type echoless struct {
	presence.Hub
	outlet *outlet
}

// Watch implements presence.Hub.
func (e *echoless) Watch(ctx context.Context, who ...presence.ID) iter.Seq[presence.State] {
	if e.outlet.heard.Load() {
		return e.outlet.without.Watch(ctx, who...)
	}
	return e.Hub.Watch(ctx, who...)
}

// subscribe makes the source of a service what its form says; nil: the service is to go.
// Who stays on the user list is not asked about again, unless something else is other.
func (a *administration) subscribe(o *outlet, s *services.Service) {
	var cfg *network.Config
	if s != nil {
		cfg = networkConfig(s)
	}
	was := a.asking(o)
	if was != nil && cfg != nil && was.cfg == *cfg {
		was.Cover(s.Covers())
		a.supervisor.TryNow(o.network)
		return
	}
	if was != nil {
		a.supervisor.RemoveSource(o.network) // which takes two seconds at most
	}
	o.heard.Store(cfg != nil)
	var asks *subscribing
	if cfg != nil {
		asks = &subscribing{network.New(*cfg, a.people, a.log), *cfg}
		asks.Cover(s.Covers())
		a.supervisor.AddSourceWith(o.Name(), asks)
	}
	a.mu.Lock()
	o.asks = asks
	a.mu.Unlock()
}

// asking gives the source of a service; nil: there is none.
func (a *administration) asking(o *outlet) *subscribing {
	a.mu.Lock()
	defer a.mu.Unlock()
	return o.asks
}
