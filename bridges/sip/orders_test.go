package sip

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/fixtures/peers"
)

// An office is a real hub with people who have a number, by name.
type office struct {
	*aggregator.Hub
	t *testing.T
}

func newOffice(t *testing.T, people ...string) *office {
	t.Helper()
	o := &office{aggregator.NewHub(presence.DefaultPolicy(), nil, quiet(t)), t}
	o.staff(people...)
	return o
}

// staff makes those the people: NAME, or NAME=NUMBER.
func (o *office) staff(people ...string) {
	var all []presence.Person
	for _, p := range people {
		name, number, ok := strings.Cut(p, "=")
		if !ok {
			number = name
		}
		all = append(all, presence.Person{ID: presence.ID(name), Subjects: []presence.Subject{{Scheme: "tel", Value: number}, {Scheme: "mail", Value: name + "@example.test"}}})
	}
	d, problems := directory.New(all)
	if len(problems) > 0 {
		o.t.Fatal(problems)
	}
	o.SetDirectory(d, time.Now())
}

// named gives somebody a name; nobody else is left.
func (o *office) named(id, name string) {
	d, problems := directory.New([]presence.Person{{ID: presence.ID(id), Name: name, Subjects: []presence.Subject{{Scheme: "tel", Value: id}}}})
	if len(problems) > 0 {
		o.t.Fatal(problems)
	}
	o.SetDirectory(d, time.Now())
}

func (o *office) call(name string) {
	o.t.Helper()
	err := o.Report(o.t.Context(), presence.Report{
		Source: "aes", Subject: presence.Subject{Scheme: "id", Value: name}, At: time.Now(),
		Spans: []presence.Span{{Fact: presence.PhoneConnected, From: time.Now()}},
	})
	if err != nil {
		o.t.Fatal(err)
	}
}

func only(names ...presence.ID) func(*presence.Person) bool {
	return func(p *presence.Person) bool { return slices.Contains(names, p.ID) }
}

// A compositor is an event state compositor (RFC 3903) that tells of each request, as "modify ann".
type compositor struct {
	t       *testing.T
	address string
	events  chan string

	mu      sync.Mutex
	tags    map[string]string
	n       int
	trouble string // is answered instead
}

func newCompositor(t *testing.T) *compositor {
	t.Helper()
	e := &compositor{t: t, events: make(chan string, 1000), tags: map[string]string{}}
	e.address = listen(t, e.publish)
	return e
}

func (e *compositor) publish(m *message) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trouble != "" {
		return []string{m.reply(e.trouble)}
	}
	entity := strings.Fields(m.line)[1]
	who, _, _ := strings.Cut(strings.TrimPrefix(entity, "sip:"), "@")
	tag := m.header.Get("Sip-If-Match")
	if e.tags[entity] != tag {
		e.events <- "lost " + who
		return []string{m.reply("412 Conditional Request Failed")}
	}
	op := opInitial
	switch {
	case m.header.Get("Expires") == "0":
		op = opRemove
	case tag != "" && m.body == "":
		op = opRefresh
	case tag != "":
		op = opModify
	}
	e.n++
	e.tags[entity] = fmt.Sprintf("t%d", e.n)
	answer := m.reply("200 OK", "SIP-ETag: "+e.tags[entity], "Expires: "+m.header.Get("Expires"))
	if op == opRemove {
		delete(e.tags, entity)
	}
	e.events <- op.String() + " " + who
	return []string{answer}
}

// refuse has every PUBLISH answered with status; empty: it works again.
func (e *compositor) refuse(status string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trouble = status
}

// forget is what a server does that is started anew.
func (e *compositor) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.tags)
}

// expect waits for exactly these requests, in any order.
func (e *compositor) expect(want ...string) {
	e.t.Helper()
	var got []string
	for range want {
		select {
		case event := <-e.events:
			got = append(got, event)
		case <-time.After(patience):
			e.t.Fatalf("got %q, want %q", got, want)
		}
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		e.t.Fatalf("got %q, want %q", got, want)
	}
}

// silent says that nothing came beyond what was expected.
func (e *compositor) silent() {
	e.t.Helper()
	select {
	case event := <-e.events:
		e.t.Errorf("%q was not to come", event)
	default:
	}
}

func tcpConfig(t *testing.T, e *compositor) Config {
	t.Helper()
	cfg := testConfig(t, e.address)
	cfg.Transport = "tcp"
	return cfg
}

// Who is covered changes while it runs: nothing is said of those who stay. A new
// template, or body, sends documents; other servers get them, and the former ones forget.
func TestReform(t *testing.T) {
	t.Parallel()
	a, b := newCompositor(t), newCompositor(t)
	hub := newOffice(t, "ann", "bob", "eve")
	cfg := tcpConfig(t, a)
	publisher := newPublisher(t, cfg, newMemory())
	publisher.Reform(cfg, only("ann", "bob")) // before the first Run
	p := run(t, publisher, hub)
	a.expect("initial ann", "initial bob")

	p.Reform(cfg, only("bob", "eve"))
	a.expect("remove ann", "initial eve")
	hub.call("bob")
	a.expect("modify bob") // by its tag: there was no other request about bob

	cfg.BusyBasic = "closed"
	p.Reform(cfg, only("bob", "eve"))
	a.expect("modify bob") // eve is not busy
	cfg.Entity, cfg.Expires, cfg.Rate = "sip:x{tel}@example.test", 20*time.Minute, 60
	p.Reform(cfg, only("bob"))
	a.expect("remove bob", "remove eve", "initial xbob")

	cfg.Address, cfg.Secondary = b.address, ""
	p.Reform(cfg, only("bob", "ann"))
	b.expect("initial xann", "initial xbob")
	a.expect("remove xbob")

	cfg.Secondary = a.address // another connection; what is published stays
	p.Reform(cfg, only("bob", "ann"))
	p.Resend()
	b.expect("modify xann", "modify xbob")
	hub.call("ann")
	b.expect("modify xann")
	cfg.User, cfg.PasswordFile = "presenced", password(t, "open sesame")
	p.Reform(cfg, only("bob", "ann"))
	b.expect("modify xann", "modify xbob")
	p.stop()
	b.expect("remove xann", "remove xbob")
	a.silent()
	b.silent()
	if s := p.Status(); len(s.Problems) != 0 || len(s.Unmonitored) != 0 {
		t.Errorf("%+v", s)
	}
}

// A publisher that waits takes what was ordered when it is run again; tags of who is
// not covered any more are removed.
func TestReformBetweenRuns(t *testing.T) {
	t.Parallel()
	a := newCompositor(t)
	hub := newOffice(t, "ann", "bob")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := tcpConfig(t, a)
	cfg.Address = closed.Addr().String()
	_ = closed.Close()
	publisher := newPublisher(t, cfg, newMemory())
	if err := run(t, publisher, hub).wait(); err == nil {
		t.Fatal("there is no server, and no error")
	}
	if got := publisher.Peers(); len(got) != 1 || got[0].Problem == "" || got[0].Active {
		t.Errorf("%+v", got)
	}
	cfg.Address = a.address
	publisher.Reform(cfg, only("ann"))
	p := run(t, publisher, hub)
	a.expect("initial ann")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Withdraw(ctx); err != nil {
		t.Error(err)
	}
	a.expect("remove ann")
	if got := p.Peers(); len(got) != 1 || !got[0].Active || got[0].Held != 0 || got[0].Problem != "" {
		t.Errorf("%+v", got)
	}
	p.Reform(cfg, nil) // wanted again
	a.expect("initial ann", "initial bob")
	p.stop()
	a.expect("remove ann", "remove bob")
	a.silent()
}

// The directory changes: who has another number is published under it; one number
// goes from one to the other; who leaves is removed.
func TestReview(t *testing.T) {
	t.Parallel()
	a := newCompositor(t)
	hub := newOffice(t, "ann=1", "bob=2", "eve=3")
	publisher := watchful(newPublisher(t, tcpConfig(t, a), newMemory()))
	p := run(t, publisher, hub)
	a.expect("initial 1", "initial 2", "initial 3")
	hub.staff("ann=2", "bob=4")
	p.Review()
	// ann waits until bob has given the number up, which may be before or after.
	deadline := time.After(patience)
	for held := ""; held != "2 4"; {
		select {
		case <-a.events:
		case <-deadline:
			t.Fatalf("held are %s", held)
		}
		a.mu.Lock()
		var numbers []string
		for entity := range a.tags {
			numbers = append(numbers, strings.TrimSuffix(strings.TrimPrefix(entity, "sip:"), "@example.test"))
		}
		a.mu.Unlock()
		slices.Sort(numbers)
		held = strings.Join(numbers, " ")
	}
	p.stop()
}

// A gateKeeper shows what it is told to, and counts who watches.
type gateKeeper struct {
	mu      sync.Mutex
	access  map[presence.ID]presence.Access
	watched map[presence.ID]presence.Watcher
}

func (g *gateKeeper) Admit(w presence.Watcher, of presence.ID) presence.Access {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watched[of] = w
	return g.access[of]
}

func (g *gateKeeper) Dismiss(_ presence.Watcher, of presence.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.watched, of)
}

func (g *gateKeeper) Access(presence.Watcher, presence.ID) presence.Access { return presence.Access{} }

func (g *gateKeeper) set(of presence.ID, a presence.Access) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.access[of] = a
}

// Of whom the gate shows nothing, nothing is published; a rule that changes counts
// when the state comes again. Who is covered watches, whatever they see.
func TestGate(t *testing.T) {
	t.Parallel()
	a := newCompositor(t)
	hub := newOffice(t, "ann", "bob", "eve")
	hub.call("ann")
	gate := &gateKeeper{access: map[presence.ID]presence.Access{"ann": presence.Everyone()}, watched: map[presence.ID]presence.Watcher{}}
	publisher := newPublisher(t, tcpConfig(t, a), newMemory())
	publisher.gate = gate
	publisher.Reform(publisher.cfg, only("ann", "bob"))
	p := run(t, publisher, hub)
	a.expect("initial ann")
	gate.set("ann", presence.Access{})
	gate.set("bob", presence.Access{Level: presence.LevelStatus})
	p.Review()
	a.expect("remove ann", "initial bob")
	gate.mu.Lock()
	if want := (presence.Watcher{Subject: presence.Subject{Scheme: "service", Value: "sip"}, Via: "sip"}); len(gate.watched) != 2 || gate.watched["ann"] != want {
		t.Errorf("%v", gate.watched)
	}
	gate.mu.Unlock()
	gate.set("ann", presence.Access{Level: presence.LevelTelephony})
	p.Reform(p.cfg, only("ann"))
	a.expect("initial ann", "remove bob")
	p.stop()
	a.expect("remove ann")
	a.silent()
	if len(gate.watched) != 0 {
		t.Errorf("still watches %v", gate.watched)
	}
}

// A trial tells what is wrong in words.
func TestTry(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	plain := newCompositor(t)
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"works":        {func(*Config) {}, "takes publications"},
		"no name":      {func(c *Config) { c.Address = "nobody.invalid:5060" }, "the name cannot be resolved: "},
		"refused":      {func(c *Config) { c.Address = closed.Addr().String() }, "cannot connect: "},
		"no TLS there": {func(c *Config) { c.Transport, c.TLS.MinVersion = "tls", "1.2" }, "there is no TLS at this port"},
		"no password":  {func(c *Config) { c.User, c.PasswordFile = "u", "/nowhere/password" }, "secret: "},
		"no presence server": {func(c *Config) {
			c.Address = listen(t, func(m *message) []string { return []string{m.reply("489 Bad Event")} })
		}, "489: it is no presence server"},
		"another domain": {func(c *Config) {
			c.Address = listen(t, func(m *message) []string { return []string{m.reply("404 Not Found")} })
		}, "takes publications"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := tcpConfig(t, plain)
			c.change(&cfg)
			got := Try(t.Context(), cfg, quiet(t))
			if len(got) != 1 || got[0].Works != (c.want == "takes publications") || !strings.Contains(got[0].Words, c.want) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestKamailioTry(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t, peers.WithAuth())
	cfg := testConfig(t, server.Address)
	cfg.Secondary = "nobody.invalid:5060"
	cfg.User, cfg.PasswordFile = server.User, password(t, server.Password)
	if got := Try(t.Context(), cfg, quiet(t)); len(got) != 2 || !got[0].Works || got[1].Works {
		t.Errorf("%+v", got)
	}
	cfg.Secondary, cfg.PasswordFile = "", password(t, "guess")
	if got := Try(t.Context(), cfg, quiet(t)); got[0].Works || got[0].Words != "the server does not take the user name and password" {
		t.Errorf("%+v", got)
	}
	cfg.User, cfg.PasswordFile = "", ""
	if got := Try(t.Context(), cfg, quiet(t)); got[0].Works || !strings.Contains(got[0].Words, "none is configured") {
		t.Errorf("%+v", got)
	}
}

// At a real server who is not covered any more is gone, and a watcher of who stays
// is told nothing; another server gets everybody, and the first one forgets them.
func TestKamailioReform(t *testing.T) {
	t.Parallel()
	first, second := peers.Kamailio(t), peers.Kamailio(t)
	ofAnn, ofBob := peers.SIPWatcher(t, first, "sip:ann@example.test"), peers.SIPWatcher(t, first, "sip:bob@example.test")
	hub := newOffice(t, "ann", "bob")
	hub.call("ann")
	hub.call("bob")
	cfg := testConfig(t, first.Address)
	p := run(t, watchful(newPublisher(t, cfg, newMemory())), hub)
	expect(t, ofAnn, pidf.Open, "on-the-phone")
	expect(t, ofBob, pidf.Open, "on-the-phone")
	p.Reform(cfg, only("bob"))
	expect(t, ofAnn, pidf.Closed)
	p.Reform(cfg, nil)
	expect(t, ofAnn, pidf.Open, "on-the-phone")
	moment, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if body, err := ofBob.Next(moment); err == nil {
		t.Errorf("a watcher of who stays is told\n%s", body)
	}
	there := peers.SIPWatcher(t, second, "sip:bob@example.test")
	cfg.Address = second.Address
	p.Reform(cfg, nil)
	expect(t, there, pidf.Open, "on-the-phone")
	expect(t, ofBob, pidf.Closed)
	expect(t, ofAnn, pidf.Closed)
	p.stop()
	expect(t, there, pidf.Closed)
}

// What a publisher that died published is unavailable at the server when the
// interval is over.
func TestKamailioExpiry(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t, peers.WithMinExpires(1))
	w := peers.SIPWatcher(t, server, "sip:4750@example.test")
	hub := newHub()
	cfg := testConfig(t, server.Address)
	cfg.Expires = 2 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.Blank(ctx); err != nil { // nothing is published yet
		t.Fatal(err)
	}
	p := run(t, newPublisher(t, cfg, newMemory()), hub)
	began := time.Now()
	hub.tell("4750", presence.Busy, presence.ActivityPhone)
	expect(t, w, pidf.Open, "on-the-phone")
	close(hub.ended) // an end without removal
	if err := p.wait(); err == nil {
		t.Fatal("Run ended without an error")
	}
	if err := w.Blank(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < cfg.Expires-time.Second { // the server counts whole seconds
		t.Errorf("unavailable after %v", took)
	}
}
