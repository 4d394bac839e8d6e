package sip

import (
	"fmt"
	"net"
	"testing"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/lookup"
	"presenced/fixtures/nameserver"
)

// The next target of a name takes over where the first one says 503 or does not
// answer any more, without the server that stands in; and where the DNS names others.
func TestTargets(t *testing.T) {
	t.Parallel()
	a, b, c, spare := newCompositor(t), newCompositor(t), newCompositor(t), newCompositor(t)
	srv := func(priority int, e *compositor) string {
		_, port, _ := net.SplitHostPort(e.address)
		return fmt.Sprintf("_sip._tcp.example.test 30 SRV %d 0 %s h.example.test", priority, port)
	}
	const host = "h.example.test 30 A 127.0.0.1"
	z := nameserver.New(t, host, srv(1, a), srv(2, b))
	cfg := tcpConfig(t, spare)
	cfg.Address, cfg.Secondary = "example.test", spare.address
	publisher := watchful(newPublisher(t, cfg, newMemory()))
	publisher.locator = lookup.New(z.Address)
	hub := newHub()
	p := run(t, publisher, hub)
	hub.tell("1", presence.Available, presence.NoActivity)
	a.expect("initial 1")
	a.refuse("503 Service Unavailable")
	hub.tell("1", presence.Busy, presence.NoActivity)
	b.expect("lost 1", "initial 1") // the tag is of the first one
	if s := p.Status(); s.Phase == presence.PhaseDegraded {
		t.Errorf("status %+v", s)
	}
	z.Set(host, srv(1, c))
	p.locator.Forget("example.test", "tcp") // its time is over
	c.expect("lost 1", "initial 1")
	p.stop()
	c.expect("remove 1")
	spare.silent()
}
