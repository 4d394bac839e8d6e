package sip

import (
	"context"
	"slices"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/fixtures/peers"
)

// expect waits for the NOTIFY that says it; those before may say otherwise.
func expect(t *testing.T, w *peers.Watcher, basic pidf.Basic, activities ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		body, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for %s %q: %v", basic, activities, err)
		}
		d, err := pidf.Parse(body)
		if err != nil {
			t.Fatalf("%v\n%s", err, body)
		}
		if d.Basic() == basic && slices.Equal(d.Activities(), activities) {
			return
		}
	}
}

// A person is published, changed and removed, and a watcher sees it.
func TestKamailio(t *testing.T) {
	for name, c := range map[string]struct {
		transport string
		options   []peers.Option
	}{
		"UDP":         {"udp", nil},
		"TCP":         {"tcp", nil},
		"MD5, UDP":    {"udp", []peers.Option{peers.WithAuth()}},
		"SHA-256 TCP": {"tcp", []peers.Option{peers.WithSHA256()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := peers.Kamailio(t, c.options...)
			w := peers.SIPWatcher(t, server, "sip:4750@example.test")
			hub, memory := newHub(), newMemory()
			cfg := testConfig(t, server.Address)
			cfg.Transport = c.transport
			if server.User != "" {
				cfg.User, cfg.PasswordFile = server.User, password(t, server.Password)
			}
			p := run(t, newPublisher(t, cfg, memory), hub)
			hub.tell("4750", presence.Busy, presence.ActivityPhone)
			expect(t, w, pidf.Open, "on-the-phone")
			hub.tell("4750", presence.Busy, presence.ActivityMeeting)
			expect(t, w, pidf.Open, "meeting")
			if s := p.Status(); len(s.Problems) != 0 || s.Total != 1 || s.Phase == presence.PhaseDegraded {
				t.Errorf("status %+v", s)
			}
			p.stop()
			expect(t, w, pidf.Closed)
			if memory.size() != 0 {
				t.Error("a tag is kept of what was removed")
			}
		})
	}
}

// The server keeps what is refreshed, longer than it was granted.
func TestKamailioRefresh(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t, peers.WithMinExpires(1), peers.WithDatabase())
	hub, memory := newHub(), newMemory()
	cfg := testConfig(t, server.Address)
	cfg.Expires = 3 * time.Second
	publisher := newPublisher(t, cfg, memory)
	publisher.servers[0].terms.turn = 0.25 // early, in case the machine is busy
	p := run(t, publisher, hub)
	began := time.Now()
	hub.tell("4750", presence.Busy, presence.ActivityPhone)
	seen := []string{memory.tag(t)}
	for time.Since(began) < cfg.Expires {
		seen = append(seen, memory.tag(t, seen...))
	}
	expect(t, peers.SIPWatcher(t, server, "sip:4750@example.test"), pidf.Open, "on-the-phone")
	if s := p.Status(); len(s.Problems) != 0 || s.Phase != presence.PhaseLive {
		t.Errorf("status %+v", s)
	}
	p.stop()
}

func TestKamailioTooBrief(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t) // 60 s and no less
	hub, memory := newHub(), newMemory()
	cfg := testConfig(t, server.Address)
	cfg.Expires = 5 * time.Second
	p := run(t, newPublisher(t, cfg, memory), hub)
	hub.tell("4750", presence.Available, presence.NoActivity)
	memory.tag(t)
	if got := p.servers[0].terms.expires; got != time.Minute {
		p.stop()
		t.Errorf("asks for %v", got)
	}
	p.stop()
}

// A server that was started anew knows no tag: 412, and all is published again.
func TestKamailioForgets(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t)
	hub, memory := newHub(), newMemory()
	cfg := testConfig(t, server.Address)
	p := run(t, newPublisher(t, cfg, memory), hub)
	hub.tell("4750", presence.Available, presence.NoActivity)
	old := memory.tag(t)
	server.Restart()
	hub.tell("4750", presence.Busy, presence.ActivityPhone)
	memory.tag(t, old)
	expect(t, peers.SIPWatcher(t, server, "sip:4750@example.test"), pidf.Open, "on-the-phone")
	if s := p.Status(); s.Problems["entity-tags lost"] != 1 {
		t.Errorf("status %+v", s)
	}
	p.stop()
}

// A program that was started anew changes what its predecessor published.
func TestKamailioInherited(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t)
	w := peers.SIPWatcher(t, server, "sip:4750@example.test")
	hub, memory := newHub(), newMemory()
	first := run(t, newPublisher(t, testConfig(t, server.Address), memory), hub)
	hub.tell("4750", presence.Busy, presence.ActivityPhone)
	tag := memory.tag(t)
	expect(t, w, pidf.Open, "on-the-phone")
	close(hub.ended) // an end without removal, as in a crash
	if err := first.wait(); err == nil {
		t.Fatal("Run ended without an error")
	}
	hub = newHub()
	second := run(t, newPublisher(t, testConfig(t, server.Address), memory), hub)
	hub.tell("4750", presence.Busy, presence.ActivityMeeting)
	memory.tag(t, tag)
	expect(t, w, pidf.Open, "meeting")
	if s := second.Status(); len(s.Problems) != 0 {
		t.Errorf("status %+v", s)
	}
	second.stop()
	expect(t, w, pidf.Closed) // and no ghost of the first one is left
}

func TestKamailioWrongPassword(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t, peers.WithAuth())
	for name, user := range map[string]string{"wrong": "presenced", "none": ""} {
		hub := newHub()
		cfg := testConfig(t, server.Address)
		if cfg.User = user; user != "" {
			cfg.PasswordFile = password(t, "guess")
		}
		p := run(t, newPublisher(t, cfg, newMemory()), hub)
		hub.tell("4750", presence.Available, presence.NoActivity)
		if err := p.wait(); !presence.IsPermanent(err) {
			t.Errorf("%s password: %v", name, err)
		}
	}
}

// The second server takes over, and the first one is used again when it is back.
func TestKamailioFailover(t *testing.T) {
	t.Parallel()
	a, b := peers.Kamailio(t), peers.Kamailio(t)
	hub, memory := newHub(), newMemory()
	cfg := testConfig(t, a.Address)
	cfg.Secondary, cfg.Transport = b.Address, "tcp"
	p := run(t, watchful(newPublisher(t, cfg, memory)), hub)
	hub.tell("4750", presence.Available, presence.NoActivity)
	memory.tag(t)
	atB := peers.SIPWatcher(t, b, "sip:4750@example.test")
	a.Stop()
	hub.tell("4750", presence.Busy, presence.ActivityPhone)
	expect(t, atB, pidf.Open, "on-the-phone")
	if s := p.Status(); s.Phase != presence.PhaseDegraded {
		t.Errorf("at the second server the status is %+v", s)
	}
	a.Restart()
	atA := peers.SIPWatcher(t, a, "sip:4750@example.test")
	expect(t, atA, pidf.Open, "on-the-phone")
	expect(t, atB, pidf.Closed) // removed there
	p.stop()
	expect(t, atA, pidf.Closed)
}

// With one server that is gone, Run says so, and the next one goes on.
func TestKamailioLost(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t)
	hub, memory := newHub(), newMemory()
	cfg := testConfig(t, server.Address)
	cfg.Transport = "tcp"
	publisher := newPublisher(t, cfg, memory)
	p := run(t, publisher, hub)
	hub.tell("4750", presence.Available, presence.NoActivity)
	memory.tag(t)
	server.Stop()
	hub.tell("4750", presence.Busy, presence.ActivityPhone)
	if err := p.wait(); err == nil || presence.IsPermanent(err) {
		t.Errorf("Run: %v", err)
	}
	server.Restart()
	w := peers.SIPWatcher(t, server, "sip:4750@example.test")
	p = run(t, publisher, hub)
	hub.tell("4750", presence.Busy, presence.ActivityMeeting)
	expect(t, w, pidf.Open, "meeting")
	p.stop()
}

// 503 with Retry-After: waits, and publishes then.
func TestKamailioBusy(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t)
	hub, memory := newHub(), newMemory()
	server.Fault(t.Context(), "PUBLISH", 503) // Retry-After: 1
	p := run(t, newPublisher(t, testConfig(t, server.Address), memory), hub)
	began := time.Now()
	hub.tell("4750", presence.Available, presence.NoActivity)
	awaitProblem(t, p.Publisher, "answers 5xx and 6xx")
	server.Fault(t.Context(), "PUBLISH", 0)
	memory.tag(t)
	if took := time.Since(began); took < time.Second {
		t.Errorf("published after %v", took)
	}
	p.stop()
}
