package xmpp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator/presence"
)

// A wire is the server's end of a component's connection, in a bubble.
type wire struct {
	t    *testing.T
	conn net.Conn

	mu      sync.Mutex
	stopped bool // reads nothing
	resume  chan struct{}
	got     []arrival
}

// An arrival is what came in one write.
type arrival struct {
	at   time.Time
	text string
}

// plug makes the component's next connection end at the result.
func plug(t *testing.T, c *Component) *wire {
	t.Helper()
	near, far := net.Pipe()
	w := &wire{t: t, conn: far, resume: make(chan struct{}, 1)}
	c.dial = func(context.Context) (net.Conn, error) { return near, nil }
	go func() {
		buf := make([]byte, 128<<10)
		for {
			w.mu.Lock()
			stopped := w.stopped
			w.mu.Unlock()
			if stopped {
				<-w.resume
				continue
			}
			n, err := far.Read(buf)
			w.mu.Lock()
			w.got = append(w.got, arrival{time.Now(), string(buf[:n])})
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		w.pause(false)
		_ = far.Close()
		_ = near.Close()
	})
	return w
}

// pause stops reading after the read under way, or goes on.
func (w *wire) pause(stop bool) {
	w.mu.Lock()
	w.stopped = stop
	w.mu.Unlock()
	if !stop {
		w.resume <- struct{}{}
	}
}

func (w *wire) say(text string) {
	w.t.Helper()
	if _, err := w.conn.Write([]byte(text)); err != nil {
		w.t.Errorf("say %.60s: %v", text, err)
	}
	synctest.Wait()
}

// take gives all that came since the last call.
func (w *wire) take() string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, a := range w.got {
		b.WriteString(a.text)
	}
	w.got = nil
	return b.String()
}

const serverHeader = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' from='presence.xmpp.test' xml:lang='en' id='38f86924'>"

// greet does the server's part of the handshake.
func (w *wire) greet() {
	w.t.Helper()
	w.take()
	w.say(serverHeader)
	w.take()
	w.say("<handshake/>")
}

// outcome is what Run gives, once it has.
type outcome struct {
	done chan struct{}
	err  error
}

func (o *outcome) ended() bool {
	synctest.Wait()
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

func start(t *testing.T, c *Component, hub presence.Hub) (*outcome, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	o := &outcome{done: make(chan struct{})}
	go func() {
		defer close(o.done)
		o.err = c.Run(ctx, hub)
	}()
	return o, cancel
}

// connected gives a component that is live, and its server.
func connected(t *testing.T, hub presence.Hub, memory Memory, change func(*Config)) (*Component, *wire, *outcome, context.CancelFunc) {
	t.Helper()
	cfg := testConfig(t, "component-secret")
	if change != nil {
		change(&cfg)
	}
	c := New(cfg, memory, newGate(), quiet())
	w := plug(t, c)
	o, cancel := start(t, c, hub)
	w.greet()
	time.Sleep(settleTime)
	synctest.Wait()
	return c, w, o, cancel
}

// finish stops a component whose server answers the end of the stream.
func finish(w *wire, o *outcome, cancel context.CancelFunc) {
	cancel()
	synctest.Wait()
	if !o.ended() {
		_, _ = w.conn.Write([]byte("</stream:stream>"))
	}
	<-o.done
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(testConfig(t, "component-secret"), newMemory(), newGate(), quiet())
		w := plug(t, c)
		o, cancel := start(t, c, newHub())
		if got, want := w.take(), "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='presence.xmpp.test'>"; got != want {
			t.Errorf("header %s", got)
		}
		w.say(strings.Replace(serverHeader, "38f86924", "3BF96D32", 1))
		// printf 3BF96D32component-secret | sha1sum
		if got, want := w.take(), "<handshake>d7e23ab310cc488b27b56f0adcc62516b8414e95</handshake>"; got != want {
			t.Errorf("handshake %s", got)
		}
		w.say("<handshake/>")
		time.Sleep(settleTime)
		synctest.Wait()
		if p := c.Status().Phase; p != presence.PhaseLive {
			t.Errorf("phase %s", p)
		}
		finish(w, o, cancel)
		if got := w.take(); got != "</stream:stream>" {
			t.Errorf("at the end: %s", got)
		}
	})
}

func TestStreamEnds(t *testing.T) {
	t.Parallel()
	const empty = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id=''>"
	streamError := func(condition string) string {
		return "<stream:error><" + condition + " xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>Given token does not match</text></stream:error></stream:stream>"
	}
	for _, c := range []struct {
		name      string
		say       []string // "-": the connection ends
		want      string   // part of the error
		permanent bool
	}{
		{"wrong secret", []string{serverHeader, streamError("not-authorized")}, "not-authorized: Given token", true},
		{"unknown host", []string{empty + streamError("host-unknown")}, "host-unknown", true},
		{"conflict", []string{serverHeader, streamError("conflict")}, "conflict", false},
		{"conflict later", []string{serverHeader, "<handshake/>", streamError("conflict")}, "conflict", false},
		{"end later", []string{serverHeader, "<handshake/>", "</stream:stream>"}, "closed the stream", false},
		{"lost", []string{serverHeader, "<handshake/>", "-"}, "connection was lost", false},
		{"lost in a stanza", []string{serverHeader, "<handshake/>", "<presence from='a'", "-"}, "EOF", false},
		{"no XMPP", []string{"HTTP/1.1 400 Bad Request\r\n\r\n<html>"}, "no XMPP server", false},
		{"document type", []string{"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]>"}, "forbids", false},
		{"comment", []string{serverHeader, "<handshake/>", "<!-- x -->"}, "forbids", false},
		{"entity", []string{serverHeader, "<handshake/>", "<message>&x;</message>"}, "entity", false},
		{"not well-formed", []string{serverHeader, "<handshake/>", "<a></b>"}, "element", false},
		{"silence", []string{serverHeader}, "timeout", false},
		{"too much", []string{serverHeader, "<handshake/>", "<message>" + strings.Repeat("x", maxStanza)}, "1 MiB", false},
		{"too much header", []string{"<?xml version='1.0'?><stream:stream x='" + strings.Repeat("x", maxStanza)}, "1 MiB", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				comp := New(testConfig(t, "wrong"), newMemory(), newGate(), quiet())
				w := plug(t, comp)
				o, cancel := start(t, comp, newHub())
				defer cancel()
				for _, text := range c.say {
					w.take()
					if text == "-" {
						_ = w.conn.Close()
						continue
					}
					_, _ = w.conn.Write([]byte(text)) // the component may close half way
				}
				<-o.done
				if o.err == nil || !strings.Contains(o.err.Error(), c.want) || presence.IsPermanent(o.err) != c.permanent {
					t.Errorf("got %v, permanent %v", o.err, presence.IsPermanent(o.err))
				}
				if s := comp.Status(); s.LastError == "" || s.LastErrorAt.IsZero() {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	t.Run("answered", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			_, w, o, cancel := connected(t, newHub(), newMemory(), nil)
			time.Sleep(31 * time.Second)
			if got := w.take(); got != " " {
				t.Errorf("after 31 s: %q", got)
			}
			time.Sleep(30 * time.Second)
			for i := range 5 {
				got := strings.TrimSpace(w.take())
				want := fmt.Sprintf("<iq type='get' id='ping-%d' from='presence.xmpp.test' to='xmpp.test'><ping xmlns='urn:xmpp:ping'/></iq>", i+1)
				if got != want {
					t.Fatalf("ping %d: %q", i, got)
				}
				w.say(fmt.Sprintf("<iq type='result' id='ping-%d' from='xmpp.test' to='presence.xmpp.test'/>", i+1))
				time.Sleep(61 * time.Second)
			}
			finish(w, o, cancel)
		})
	})
	t.Run("unanswered", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			_, w, o, cancel := connected(t, newHub(), newMemory(), nil)
			defer cancel()
			began := time.Now()
			time.Sleep(100 * time.Second)
			if got := w.take(); strings.Count(got, "<ping") != 2 || o.ended() {
				t.Errorf("after 100 s: %q", got)
			}
			<-o.done
			if took := time.Since(began); took > 2*time.Minute || !strings.Contains(o.err.Error(), "does not answer") {
				t.Errorf("after %s: %v", took, o.err)
			}
		})
	})
}

// remembered is a memory in which so many people watch carol, who saw her free an
// hour ago.
func remembered(n int) *fakeMemory {
	b := newBook("presence.xmpp.test", "xmpp", mapping{}, newGate())
	free := (&mapping{busy: "dnd"}).facesOf(state(presence.Available, presence.NoActivity))
	c := b.contact("carol")
	for i := range n {
		w := &watch{contact: c, jid: fmt.Sprintf("u%d@xmpp.test", i), joined: true, at: time.Now().Add(-time.Hour)}
		w.sent[aggregate] = free[aggregate].hash()
		c.watchers[w.jid] = w
	}
	m := newMemory()
	m.values[recordKey("carol")] = c.record()
	return m
}

func TestResyncPaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hub := carolHub()
		hub.set(state(presence.Busy, presence.ActivityPhone))
		c, w, o, cancel := connected(t, hub, remembered(1900), func(c *Config) { c.Rate = 100 })
		began := time.Now()
		time.Sleep(2 * time.Second)
		if s := c.Status(); s.Phase != presence.PhaseSyncing || s.Total != 1900 || s.Done < 150 || s.Done > 300 {
			t.Errorf("status %+v", s)
		}
		n := strings.Count(w.take(), "<presence")
		if n < 190 || n > 215 {
			t.Errorf("%d stanzas in two seconds at 100/s", n)
		}
		// The answer to a probe does not wait.
		w.say("<presence type='probe' from='u1500@xmpp.test/r' to='carol@presence.xmpp.test'/>")
		if got := w.take(); !strings.Contains(got, "to='u1500@xmpp.test/r'><show>dnd</show><status>On the phone</status>") {
			t.Errorf("probe: %s", got)
		} else {
			n += strings.Count(got, "<presence") - 1
		}
		for range 16 {
			time.Sleep(time.Second)
			if got := strings.Count(w.take(), "<presence"); got > 110 {
				t.Errorf("%d stanzas in a second", got)
			} else {
				n += got
			}
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		n += strings.Count(w.take(), "<presence")
		if n != 1900 || c.Status().Phase != presence.PhaseLive {
			t.Errorf("%d stanzas after %s, %+v", n, time.Since(began), c.Status())
		}
		finish(w, o, cancel)
	})
}

// A change overtakes the resynchronisation, and who got it is not told again.
func TestChangeOvertakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hub := carolHub()
		_, w, o, cancel := connected(t, hub, remembered(1000), func(c *Config) { c.Rate = 10 })
		time.Sleep(time.Second)
		w.take()
		hub.set(state(presence.Away, presence.NoActivity))
		time.Sleep(time.Second)
		if got := strings.Count(w.take(), "<show>away</show>"); got != 1000 {
			t.Errorf("%d of 1000 watchers got the change", got)
		}
		time.Sleep(20 * time.Second)
		if got := w.take(); got != "" {
			t.Errorf("told again: %.300s", got)
		}
		finish(w, o, cancel)
	})
}

// A short loss sends differences only; a long one everything.
func TestReconnect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		outage time.Duration
		refuse bool // the server is not there meanwhile
		want   int
	}{
		{"short", 2 * time.Second, false, 0},
		{"long", 6 * time.Minute, false, 10},
		{"the server restarted", 2 * time.Second, true, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				hub := carolHub()
				comp, w, o, cancel := connected(t, hub, remembered(10), nil)
				defer cancel()
				time.Sleep(61 * time.Second) // what was sent is confirmed then
				if got := strings.Count(w.take(), "<presence"); got != 10 {
					t.Errorf("first start: %d stanzas", got)
				}
				_ = w.conn.Close()
				<-o.done
				time.Sleep(c.outage)
				if c.refuse {
					comp.dial = func(context.Context) (net.Conn, error) { return nil, errors.New("connection refused") }
					o, _ := start(t, comp, hub)
					<-o.done
				}
				w = plug(t, comp)
				o, cancel = start(t, comp, hub)
				w.greet()
				time.Sleep(5 * time.Second)
				if got := strings.Count(w.take(), "<presence"); got != c.want {
					t.Errorf("second start: %d stanzas", got)
				}
				finish(w, o, cancel)
			})
		})
	}
}

// A server that does not read for a while gets the newest state only; one that
// does not read at all is given up.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hub := carolHub()
		_, w, o, cancel := connected(t, hub, remembered(1), nil)
		defer cancel()
		w.take()
		w.pause(true)
		hub.set(state(presence.Busy, presence.ActivityPhone)) // ends the read under way
		synctest.Wait()
		for i := range 100 {
			hub.set(state(presence.Away, presence.NoActivity))
			hub.set(state(presence.DoNotDisturb, presence.NoActivity))
			if i == 50 {
				time.Sleep(10 * time.Second)
			}
		}
		hub.set(state(presence.BeRightBack, presence.NoActivity))
		synctest.Wait()
		w.pause(false)
		got := w.take()
		if n := strings.Count(got, "<presence"); n < 2 || n > 3 || !strings.Contains(got[strings.LastIndex(got, "<presence"):], "Be right back") {
			t.Errorf("%d stanzas: %s", n, got)
		}
		w.pause(true)
		hub.set(state(presence.Available, presence.NoActivity))
		synctest.Wait()
		hub.set(state(presence.Away, presence.NoActivity))
		<-o.done
		if !errors.Is(o.err, os.ErrDeadlineExceeded) {
			t.Errorf("Run: %v", o.err)
		}
	})
}

// More probes than the server takes answers to stop the reading, not the bridge.
func TestProbeFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, w, o, cancel := connected(t, carolHub(), remembered(1), nil)
		w.take()
		w.pause(true)
		const probes = 10000
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			flood := strings.Repeat("<presence type='probe' from='u0@xmpp.test/r' to='carol@presence.xmpp.test'/>", probes)
			_, _ = w.conn.Write([]byte(flood))
		}()
		synctest.Wait()
		select {
		case <-sent:
			t.Error("all was read, though no answer was taken")
		default:
		}
		w.pause(false)
		<-sent
		time.Sleep(time.Second)
		if got := strings.Count(w.take(), "to='u0@xmpp.test/r'"); got != probes {
			t.Errorf("%d answers to %d probes", got, probes)
		}
		finish(w, o, cancel)
	})
}

func TestMalformedStanzas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, w, o, cancel := connected(t, carolHub(), newMemory(), nil)
		deep := strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100)
		for _, in := range []struct{ say, want string }{
			{"<presence/>", ""},
			{"<presence type='subscribe' to='carol@presence.xmpp.test'/>", ""},
			{"<presence type='subscribe' from='bob@xmpp.test' to='carol@elsewhere.test'/>", ""},
			{"<presence type='subscribe' from='&#x9;@xmpp.test' to='carol@presence.xmpp.test'/>", ""},
			{"<presence type='subscribe' from='" + strings.Repeat("x", 4000) + "@xmpp.test' to='carol@presence.xmpp.test'/>", ""},
			{"<iq type='get' id='1' from='bob@xmpp.test/r' to='presence.xmpp.test'/>", "bad-request"},
			{"<iq type='get' from='bob@xmpp.test/r' to='presence.xmpp.test'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request"},
			{"<iq type='what' id='2' from='bob@xmpp.test/r' to='presence.xmpp.test'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request"},
			{"<iq type='get' id='3' from='bob@xmpp.test/r' to='presence.xmpp.test'>" + deep + "</iq>", "bad-request"},
			{"<iq type='error' id='4' from='bob@xmpp.test/r' to='presence.xmpp.test'/>", ""},
			{"<iq type='result' id='5' from='bob@xmpp.test/r' to='presence.xmpp.test'/>", ""},
			{"<features xmlns='http://etherx.jabber.org/streams'/>", ""},
			{"<whatever/>", ""},
			{"<message from='bob@xmpp.test/r' to='carol@presence.xmpp.test'><composing/></message>", ""},
			{"<message type='error' from='bob@xmpp.test/r' to='carol@presence.xmpp.test'><body>x</body></message>", ""},
			{"<message type='chat' id='6' from='bob@xmpp.test/r' to='carol@presence.xmpp.test'><body>x</body></message>", "<message type='error' id='6' from='carol@presence.xmpp.test' to='bob@xmpp.test/r'><error type='cancel'><service-unavailable"},
			{"<presence type='probe' from='odd\"&lt;&apos;@xmpp.test/\\\\x' to='carol@presence.xmpp.test'/>", "to='odd&quot;&lt;&apos;@xmpp.test'"},
			{"<iq type='get' id='&#x9;&apos;' from='bob@xmpp.test/r' to='presence.xmpp.test'><ping xmlns='urn:xmpp:ping'/></iq>", "type='result'"},
		} {
			w.say(in.say)
			if got := w.take(); in.want == "" && got != "" || !strings.Contains(got, in.want) {
				t.Errorf("%.200s\nanswered %q, want %q", in.say, got, in.want)
			}
		}
		s := c.Status()
		if s.Problems["stanzas malformed"] != 8 || s.Problems["elements unknown"] != 2 || o.ended() {
			t.Errorf("%+v", s)
		}
		finish(w, o, cancel)
	})
}

// A stop tells every watcher, and takes two seconds at most if the server does not read.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		deaf      bool
		farewells int
	}{{"in order", false, 1000}, {"the server does not read", true, -1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				memory := remembered(1000)
				_, w, o, cancel := connected(t, carolHub(), memory, func(c *Config) { c.Rate = 2000 })
				time.Sleep(2 * time.Second)
				w.take()
				if c.deaf {
					w.pause(true)
				}
				began := time.Now()
				cancel()
				time.Sleep(1500 * time.Millisecond)
				if !c.deaf {
					got := w.take()
					if n := strings.Count(got, "type='unavailable'"); n != c.farewells || !strings.HasSuffix(got, "</stream:stream>") {
						t.Errorf("%d farewells, %.100s", n, got)
					}
					w.say("</stream:stream>")
				}
				<-o.done
				if took := time.Since(began); took > stopTime {
					t.Errorf("the stop took %s", took)
				}
				if !errors.Is(o.err, context.Canceled) {
					t.Errorf("Run: %v", o.err)
				}
				b := newBook("presence.xmpp.test", "xmpp", mapping{}, newGate())
				b.load(memory.values)
				left := 0
				for _, w := range b.contact("carol").watchers {
					if w.sent[aggregate] != 0 {
						left++
					}
				}
				if !c.deaf && left > 0 || len(b.contact("carol").watchers) != 1000 {
					t.Errorf("%d watchers are kept as seeing carol", left)
				}
			})
		})
	}
}

// A subscription is acknowledged when it is durable, not before.
func TestMemoryFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := newMemory()
		memory.err = errors.New("disk full")
		c, w, o, cancel := connected(t, carolHub(), memory, nil)
		w.say("<presence type='subscribe' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>")
		time.Sleep(3 * time.Second)
		if got := w.take(); got != "" || c.Status().Problems["subscriptions not kept"] == 0 {
			t.Errorf("%s %+v", got, c.Status())
		}
		memory.mu.Lock()
		memory.err = nil
		memory.mu.Unlock()
		time.Sleep(2 * time.Second)
		if got := w.take(); !strings.Contains(got, "type='subscribed'") {
			t.Errorf("after the repair: %s", got)
		}
		finish(w, o, cancel)
		if len(memory.values) != 1 {
			t.Errorf("kept: %v", memory.values)
		}
	})
}

// One subscription through all that the gate may say of it, over a restart.
func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const (
			bob       = "bob@xmpp.test"
			subscribe = "<presence type='subscribe' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>"
			probe     = "<presence type='probe' from='bob@xmpp.test/r' to='carol@presence.xmpp.test'/>"
			last      = "<iq type='get' id='l' from='bob@xmpp.test/r' to='carol@presence.xmpp.test'><query xmlns='jabber:iq:last'/></iq>"
		)
		hub, memory, gate := carolHub(), newMemory(), newGate()
		run := func() (*wire, func()) {
			c := New(testConfig(t, "component-secret"), memory, gate, quiet())
			w := plug(t, c)
			o, cancel := start(t, c, hub)
			w.greet()
			time.Sleep(settleTime)
			return w, func() { finish(w, o, cancel) }
		}
		w, stop := run()
		check := func(what, got string, want ...string) {
			t.Helper()
			if len(want) == 0 && got != "" {
				t.Errorf("%s: %s", what, got)
			}
			for _, part := range want {
				if !strings.Contains(got, part) {
					t.Errorf("%s: %s\nwithout %s", what, got, part)
				}
			}
		}
		ask := func(text string) string {
			w.say(text)
			time.Sleep(2 * keepEach)
			return w.take()
		}
		rule := func(a presence.Access) string {
			gate.say(bob, a)
			hub.set(state(presence.Away, presence.NoActivity)) // the same once more, as the hub gives it then
			time.Sleep(2 * keepEach)
			return w.take()
		}
		rule(presence.Access{Level: presence.LevelConfirm})

		check("a request to be confirmed", ask(subscribe))
		check("the same again", ask(subscribe))
		check("a probe meanwhile", ask(probe))
		check("a question meanwhile", ask(last), "forbidden")
		if got := gate.watching(); len(got) != 1 || got[0] != "jid:bob@xmpp.test xmpp carol" {
			t.Errorf("the gate knows of %q", got)
		}
		stop()
		clear(gate.admitted)
		w, stop = run()
		check("after a restart", w.take())
		if len(gate.watching()) != 1 {
			t.Errorf("not admitted again: %q", gate.watching())
		}

		const away = "<show>away</show><status>Away</status>"
		check("confirmed", rule(presence.Everyone()), "type='subscribed'", away)
		check("a question", ask(last), "seconds='0'")
		check("blocked", rule(presence.Access{}), "<presence type='unavailable' from='carol@presence.xmpp.test/presence' to='bob@xmpp.test'><status>Offline</status>")
		check("a question of one who is blocked", ask(last), "seconds='0'>Offline<")
		check("a probe of one who is blocked", ask(probe), "<presence type='unavailable' from='carol@presence.xmpp.test' to='bob@xmpp.test/r'/>")
		check("a change, to one who is blocked", rule(presence.Access{}))
		check("let in again", rule(presence.Access{Level: presence.LevelStatus}), away)
		check("the same by another rule", rule(presence.Everyone()))
		check("unsubscribed", ask("<presence type='unsubscribe' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>"), "type='unsubscribed'", "type='unavailable'")
		if len(gate.watching()) != 0 {
			t.Errorf("the gate still knows of %q", gate.watching())
		}

		// A new request of somebody who is blocked looks like that of anybody to
		// somebody who is offline.
		rule(presence.Access{})
		blocked := ask(subscribe)
		if want := "<presence type='subscribed' from='carol@presence.xmpp.test' to='bob@xmpp.test'/>"; strings.TrimSpace(blocked) != want {
			t.Errorf("a blocked request: %s", blocked)
		}
		rule(presence.Everyone())
		ask("<presence type='unsubscribe' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>")
		hub.set(state(presence.Offline, presence.NoActivity))
		w.take()
		if got := ask(subscribe); got != blocked {
			t.Errorf("offline: %s\nblocked: %s", got, blocked)
		}
		stop()
	})
}

// Watchers with different accesses share a contact, and each sees their own.
func TestViewsAreShared(t *testing.T) {
	t.Parallel()
	gate := newGate()
	b := testBook(gate)
	b.plan(time.Time{}, true, func(int, func(i, j int)) {})
	c := b.contact("carol")
	for i := range 300 {
		jid := fmt.Sprintf("u%d@xmpp.test", i)
		gate.say(jid, []presence.Access{presence.Everyone(), {Level: presence.LevelTelephony}, {}}[i%3])
		c.watchers[jid] = &watch{contact: c, jid: jid, durable: true, joined: true}
	}
	b.show(carolShows(func(s *presence.State) {
		s.Availability, s.Activity = presence.Busy, presence.ActivityMeeting
		s.Channels[presence.Phone].State = presence.ChannelIdle
	}))
	if len(c.views) != 3 {
		t.Errorf("%d views for three accesses", len(c.views))
	}
	var out []byte
	for n := 1; n > 0; {
		out, n = b.nextLive(out, at())
	}
	text := string(out)
	for part, want := range map[string]int{"In a meeting": 100, "<priority>0</priority>": 200, "<priority>-1</priority>": 200, "to='u2@xmpp.test'": 0} {
		if got := strings.Count(text, part); got != want {
			t.Errorf("%d times %s, want %d", got, part, want)
		}
	}
}
