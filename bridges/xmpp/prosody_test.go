package xmpp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
	"presenced/fixtures/peers"
)

// running is a component at work against Prosody.
type running struct {
	*Component
	stop func() error // ends Run and gives its error
	done chan struct{}
}

func launch(t *testing.T, server *peers.ProsodyServer, hub presence.Hub, memory Memory, change func(*Config)) *running {
	t.Helper()
	return launchGated(t, server, hub, memory, newGate(), change)
}

func launchGated(t *testing.T, server *peers.ProsodyServer, hub presence.Hub, memory Memory, gate presence.Gate, change func(*Config)) *running {
	t.Helper()
	cfg := testConfig(t, server.Secret)
	cfg.Address, cfg.Host = server.ComponentAddr, server.Component
	if change != nil {
		change(&cfg)
	}
	if ps := cfg.Check(); len(ps) > 0 {
		t.Fatal(ps)
	}
	return launchComponent(t, New(cfg, memory, gate, quiet()), hub)
}

func launchComponent(t *testing.T, c *Component, hub presence.Hub) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Component: c, done: make(chan struct{})}
	var err error
	go func() {
		defer close(r.done)
		err = c.Run(ctx, hub)
	}()
	r.stop = func() error {
		cancel()
		<-r.done
		return err
	}
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// awaitPhase waits until the component says so of itself.
func (r *running) awaitPhase(t *testing.T, want presence.Phase) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for r.Status().Phase != want {
		select {
		case <-tick.C:
		case <-r.done:
			t.Fatalf("Run ended: %v", r.stop())
		case <-late:
			t.Fatalf("phase %s does not come: %+v", want, r.Status())
		}
	}
}

func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// expect reads presences up to the first of that type, show and status from an address.
func expect(t *testing.T, c *peers.XMPPClient, from, typ, show, status string) peers.XMPPPresence {
	t.Helper()
	ctx := limit(t)
	var seen []string
	defer func() {
		if t.Failed() {
			t.Logf("wanted %s %q %q %q, saw %q", from, typ, show, status, seen)
		}
	}()
	for {
		p := c.NextPresence(ctx)
		if p.From == from && p.Type == typ && p.Show == show && p.Status == status {
			return p
		}
		seen = append(seen, fmt.Sprintf("%s %s %s %s", p.From, p.Type, p.Show, p.Status))
	}
}

const (
	carol  = "carol@presence.xmpp.test"
	carolP = carol + "/presence"
)

func carolHub() *fakeHub {
	hub := newHub(person("carol", "Carol\x01 <Jones>", "tel:4711", "mail:carol@example.com"))
	hub.set(state(presence.Available, presence.NoActivity))
	return hub
}

func TestProsodyWatch(t *testing.T) {
	t.Parallel()
	server := peers.Prosody(t)
	hub := carolHub()
	r := launch(t, server, hub, newMemory(), func(c *Config) { c.Channels = true })
	r.awaitPhase(t, presence.PhaseLive)

	bob := server.Login(t, "bob")
	bob.Subscribe(carol)
	expect(t, bob, carol, "subscribed", "", "")
	expect(t, bob, carolP, "", "", "")

	onPhone := state(presence.Busy, presence.ActivityPhone)
	onPhone.Channels[presence.Phone] = presence.Channel{State: presence.ChannelInUse}
	hub.set(onPhone)
	expect(t, bob, carolP, "", "dnd", "On the phone")
	expect(t, bob, carol+"/phone", "", "dnd", "On the phone")

	// A second client logs in: the server probes, the component answers with the time.
	second := server.Login(t, "bob")
	if p := expect(t, second, carolP, "", "dnd", "On the phone"); p.Delay == nil || p.Delay.Stamp != "2026-11-20T10:05:00Z" {
		t.Errorf("delay of the answer to a probe: %+v", p.Delay)
	}

	hub.set(state(presence.Available, presence.NoActivity))
	expect(t, bob, carolP, "", "", "")
	expect(t, bob, carol+"/phone", "unavailable", "", "")

	// What is in a name does not close the stream.
	ctx := limit(t)
	if a := bob.Ask(ctx, carol, "v1", "<vCard xmlns='vcard-temp'/>"); a.Type != "result" ||
		!strings.Contains(a.Inner, "Carol &lt;Jones&gt;") || !strings.Contains(a.Inner, "<NUMBER>4711</NUMBER>") {
		t.Errorf("vcard: %+v", a)
	}
	for _, q := range []struct{ to, payload, want string }{
		{server.Component, "<query xmlns='http://jabber.org/protocol/disco#info'/>", "result"},
		{carol, "<query xmlns='http://jabber.org/protocol/disco#info'/>", "result"},
		{carol, "<query xmlns='jabber:iq:last'/>", "result"},
		{server.Component, "<ping xmlns='urn:xmpp:ping'/>", "result"},
		{"nobody@" + server.Component, "<query xmlns='http://jabber.org/protocol/disco#info'/>", "error"},
		{carol, "<what xmlns='urn:example:unheard'/>", "error"},
	} {
		if a := bob.Ask(ctx, q.to, "q", q.payload); a.Type != q.want {
			t.Errorf("%s %s: %+v", q.to, q.payload, a)
		}
	}

	// Others may not ask for the last activity.
	alice := server.Login(t, "alice")
	if a := alice.Ask(ctx, carol, "l", "<query xmlns='jabber:iq:last'/>"); a.Type != "error" || !strings.Contains(a.Inner, "forbidden") {
		t.Errorf("last activity for a stranger: %+v", a)
	}

	// Removal from the roster ends a subscription, too.
	alice.Subscribe(carol)
	expect(t, alice, carol, "subscribed", "", "")
	if a := alice.Ask(ctx, carol, "l1", "<query xmlns='jabber:iq:last'/>"); a.Type != "result" {
		t.Errorf("last activity for a watcher: %+v", a)
	}
	alice.Send("<iq type='set' id='rm'><query xmlns='jabber:iq:roster'><item jid='" + carol + "' subscription='remove'/></query></iq>")
	if a := alice.Ask(ctx, carol, "l2", "<query xmlns='jabber:iq:last'/>"); !strings.Contains(a.Inner, "forbidden") {
		t.Errorf("last activity after the removal: %+v", a)
	}

	bob.Send("<presence type='unsubscribe' to='" + carol + "'/>")
	expect(t, bob, carolP, "unavailable", "", "") // the unsubscribed stays with the server, which knows already
	hub.set(state(presence.DoNotDisturb, presence.NoActivity))
	bob.Subscribe("nobody@" + server.Component) // refused, after which nothing of carol may have come
	for {
		p := bob.NextPresence(ctx)
		if strings.HasPrefix(p.From, carol) && p.Type == "" {
			t.Errorf("after the unsubscribe: %+v", p)
		}
		if p.Type == "unsubscribed" && strings.HasPrefix(p.From, "nobody@") {
			break
		}
	}
	if ps := r.Status().Problems; len(ps) > 0 {
		t.Errorf("problems: %v", ps)
	}
}

func TestProsodyRestart(t *testing.T) {
	t.Parallel()
	server := peers.Prosody(t)
	hub, memory := carolHub(), newMemory()
	r := launch(t, server, hub, memory, nil)
	r.awaitPhase(t, presence.PhaseLive)
	bob := server.Login(t, "bob")
	bob.Subscribe(carol)
	expect(t, bob, carol, "subscribed", "", "")
	expect(t, bob, carolP, "", "", "")

	// A clean stop leaves nobody online.
	crashed := memory.copy() // as a crash before the stop would leave it
	if err := r.stop(); !errors.Is(err, context.Canceled) {
		t.Fatalf("Run: %v", err)
	}
	expect(t, bob, carolP, "unavailable", "", "")

	// The next start shows the state as it is now, without being asked.
	hub.set(state(presence.Busy, presence.ActivityMeeting))
	r = launch(t, server, hub, memory, nil)
	expect(t, bob, carolP, "", "dnd", "In a meeting")

	// After a crash the watcher still sees what is no more.
	if err := r.stop(); !errors.Is(err, context.Canceled) {
		t.Fatalf("Run: %v", err)
	}
	expect(t, bob, carolP, "unavailable", "", "")
	hub.set(state(presence.Offline, presence.NoActivity))
	r = launch(t, server, hub, crashed, nil)
	expect(t, bob, carolP, "unavailable", "", "Offline")

	// The server restarts: the bridge ends, and is there again when run again.
	r.awaitPhase(t, presence.PhaseLive)
	server.Stop()
	<-r.done
	if err := r.stop(); err == nil || presence.IsPermanent(err) {
		t.Fatalf("Run when the server goes: %v", err)
	}
	server.Start()
	hub.set(state(presence.Away, presence.NoActivity))
	back := launchComponent(t, r.Component, hub)
	back.awaitPhase(t, presence.PhaseLive)
	bob = server.Login(t, "bob")
	expect(t, bob, carolP, "", "away", "Away")
}

func TestProsodyRefusals(t *testing.T) {
	t.Parallel()
	server := peers.Prosody(t)
	hub := carolHub()
	run := func(change func(*Config), password string) error {
		cfg := testConfig(t, password)
		cfg.Address = server.ComponentAddr
		if change != nil {
			change(&cfg)
		}
		return New(cfg, newMemory(), newGate(), quiet()).Run(limit(t), hub)
	}
	first := launch(t, server, hub, newMemory(), nil)
	first.awaitPhase(t, presence.PhaseLive)

	for _, c := range []struct {
		name      string
		change    func(*Config)
		password  string
		condition string
		permanent bool
	}{
		{"wrong secret", nil, "wrong", "not-authorized", true},
		{"unknown host", func(c *Config) { c.Host = "other.xmpp.test" }, server.Secret, "host-unknown", true},
		{"second connection", nil, server.Secret, "conflict", false},
	} {
		err := run(c.change, c.password)
		refusal, ok := errors.AsType[*StreamError](err)
		if !ok || refusal.Condition != c.condition || presence.IsPermanent(err) != c.permanent {
			t.Errorf("%s: %v (permanent %v)", c.name, err, presence.IsPermanent(err))
		}
	}
	if diff := cmp.Diff(presence.PhaseLive, first.Status().Phase); diff != "" {
		t.Errorf("the first connection (-want +got):\n%s", diff)
	}
}

// Two users of a real server watch carol; one of them is blocked for a while.
func TestProsodyGate(t *testing.T) {
	t.Parallel()
	server := peers.Prosody(t)
	hub, gate := carolHub(), newGate()
	gate.say("alice@xmpp.test", presence.Access{})
	r := launchGated(t, server, hub, newMemory(), gate, nil)
	r.awaitPhase(t, presence.PhaseLive)
	bob, alice := server.Login(t, "bob"), server.Login(t, "alice")
	for _, user := range []*peers.XMPPClient{bob, alice} {
		user.Subscribe(carol)
		expect(t, user, carol, "subscribed", "", "")
	}
	expect(t, bob, carolP, "", "", "")
	hub.set(state(presence.Busy, presence.ActivityPhone))
	expect(t, bob, carolP, "", "dnd", "On the phone")

	// The answer to a probe is the last that alice got: nothing came before it.
	second := server.Login(t, "alice")
	ctx := limit(t)
	for {
		p := second.NextPresence(ctx)
		if p.Type == "" && strings.HasPrefix(p.From, carol) {
			t.Fatalf("alice is blocked, and sees %+v", p)
		}
		if p.Type == "unavailable" && p.From == carol {
			break
		}
	}
	gate.say("alice@xmpp.test", presence.Everyone())
	hub.set(state(presence.Busy, presence.ActivityPhone))
	if p := expect(t, alice, carolP, "", "dnd", "On the phone"); p.Type != "" {
		t.Errorf("%+v", p)
	}
	gate.say("alice@xmpp.test", presence.Access{})
	hub.set(state(presence.Busy, presence.ActivityPhone))
	expect(t, alice, carolP, "unavailable", "", "Offline")
}
