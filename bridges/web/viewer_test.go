package web

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/html"
	"pgregory.net/rapid"

	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// A shelf is a signin.Memory.
type shelf struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (m *shelf) Load(context.Context) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.values), nil
}

func (m *shelf) Put(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = map[string][]byte{}
	}
	m.values[key] = value
	return nil
}

func (m *shelf) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return nil
}

const secretWords = "correct horse battery"

// staff gives an account of each role: root and ops, who are nobody in the directory,
// and marta, who is Marta Lindqvist of the office.
func staff() []signin.NewAccount {
	return []signin.NewAccount{
		{User: "root", Role: signin.Administrator},
		{User: "ops", Role: signin.Operator},
		{User: "marta", Name: "Marta Lindqvist", Role: signin.Person, Subjects: []presence.Subject{{Scheme: "id", Value: "21042"}}},
	}
}

// newDoor runs a signin.Desk for a site of cfg until the test ends.
func newDoor(t *testing.T, cfg Config, w *world, accounts ...signin.NewAccount) *signin.Desk {
	t.Helper()
	d, err := signin.New(cfg.SignIn, signin.Deps{
		Title: cfg.Title, Origin: cfg.Origin("localhost"), Loopback: cfg.Local(), Mine: "/me", Accounts: &shelf{}, Sessions: &shelf{}, Tokens: &shelf{},
		People: w, Audit: func(_ context.Context, n signin.Note) error { return w.note(n) }, Log: quiet(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done //nolint:errcheck // that it was told to end
	})
	<-d.Loaded()
	for _, a := range accounts {
		a.Password = secretWords
		if err := d.Add(t.Context(), signin.By{Who: "test", From: "test"}, a); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// guarded runs a Site with sign-in for the staff on a port of its own; change may alter
// the configuration and the parts before.
func guarded(t *testing.T, w *world, change func(*Config, *Parts)) *Site {
	t.Helper()
	s := guardedFor(t, w, change, staff()...)
	runSite(t, s, w)
	return s
}

// guardedFor makes the Site, with those accounts, and does not run it.
func guardedFor(t *testing.T, w *world, change func(*Config, *Parts), accounts ...signin.NewAccount) *Site {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Listen = freePort(t)
	w.gate = access.New(access.Config{Default: "full", Calendar: "open"}, w, &shelf{}, audit.New(w, quiet()), w.again, quiet())
	must(t, w.gate.Restore(t.Context()))
	parts := Parts{Past: w, Manual: w, Access: w.gate, Services: newRack(t, w), Version: "1.2.3"}
	if change != nil {
		change(&cfg, &parts)
	}
	parts.SignIn = newDoor(t, cfg, w, accounts...)
	s := New(cfg, w, gates{w}, parts, prometheus.NewRegistry(), quiet())
	s.zone = time.UTC
	return s
}

// gates is the gate of a world: what a test says counts before what was set.
type gates struct{ *world }

func (g gates) Access(v presence.Watcher, of presence.ID) presence.Access {
	g.mu.Lock()
	a, ok := g.rules[of]
	g.mu.Unlock()
	if ok {
		return a
	}
	return g.gate.Access(v, of)
}

func (g gates) Admit(v presence.Watcher, of presence.ID) presence.Access {
	g.world.Admit(v, of)
	return g.gate.Admit(v, of)
}

func (g gates) Dismiss(v presence.Watcher, of presence.ID) {
	g.world.Dismiss(v, of)
	g.gate.Dismiss(v, of)
}

// freePort gives an address that is free now: who signs in has to come back to it.
func freePort(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	return strings.TrimPrefix(s.URL, "http://")
}

// A guest is a browser without a screen.
type guest struct {
	t    *testing.T
	base string
	*http.Client
}

func newGuest(t *testing.T, s *Site) *guest {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &guest{t, "http://" + s.Addr().String(), &http.Client{
		Jar: jar, Transport: transport, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// signs in as one of the accounts of newDoor.
func (g *guest) signs(user string) *guest {
	g.t.Helper()
	if code, _ := g.post("/signin", url.Values{"user": {user}, "password": {secretWords}}); code != http.StatusSeeOther {
		g.t.Fatalf("%s cannot sign in: %d", user, code)
	}
	return g
}

func (g *guest) send(method, path, body string, header ...string) (*http.Response, string) {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.base+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := g.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res, string(data)
}

func (g *guest) get(path string) (code int, body string) {
	g.t.Helper()
	res, body := g.send(http.MethodGet, path, "")
	return res.StatusCode, body
}

func (g *guest) post(path string, form url.Values) (code int, body string) {
	g.t.Helper()
	res, body := g.send(http.MethodPost, path, form.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
	return res.StatusCode, body
}

// live opens a stream with the session of g.
func (g *guest) live(s *Site, query string) *client {
	g.t.Helper()
	u, err := url.Parse(g.base)
	if err != nil {
		g.t.Fatal(err)
	}
	var cookies []string
	for _, c := range g.Jar.Cookies(u) {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	return openAs(g.t, s, query, "Cookie", strings.Join(cookies, "; "))
}

// Whatever happens to a state, who has an access is sent it if what they see changed,
// or the rules may have; and of all else nothing.
func TestViewersLaw(t *testing.T) {
	accesses := []presence.Access{
		{},
		{Level: presence.LevelConfirm},
		{Level: presence.LevelTelephony},
		{Level: presence.LevelStatus},
		{Level: presence.LevelFull},
		{Level: presence.LevelFull, Calendar: presence.CalendarTimes},
		presence.Everyone(),
	}
	rapid.Check(t, func(t *rapid.T) {
		f := newFeed(func(member) string { return "" })
		p := presence.Person{ID: "a"}
		var raw presence.State
		var at uint64
		a := rapid.SampledFrom(accesses).Draw(t, "access")
		seen := visible(presence.State{}, presence.Access{Level: presence.LevelConfirm}) // nothing, yet
		first := true
		for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
			again := !first && rapid.IntRange(0, 5).Draw(t, "again") == 0
			if !again {
				raw = presence.State{
					Person: "a", Availability: rapid.SampledFrom([]presence.Availability{presence.Busy, presence.Available}).Draw(t, "availability"),
					Activity: rapid.SampledFrom([]presence.Activity{presence.NoActivity, presence.ActivityMeeting}).Draw(t, "activity"), Revision: uint64(i + 1),
				}
				raw.Channels[presence.Phone].State = rapid.SampledFrom([]presence.ChannelState{presence.ChannelIdle, presence.ChannelInUse}).Draw(t, "phone")
			}
			f.put(p, raw)
			for _, other := range accesses { // others look, or not
				if rapid.Bool().Draw(t, "looks") {
					rows, _, _ := f.since(0)
					rows[0].view(other)
				}
			}
			if !first && rapid.IntRange(0, 3).Draw(t, "slow") == 0 && !again {
				continue // it reads later, and skips this state
			}
			rows, next, _ := f.since(at)
			if len(rows) != 1 {
				t.Fatalf("%d rows", len(rows))
			}
			v := rows[0].view(a)
			sent, differs := v.changed > at, first || visible(raw, a) != seen
			if sent != (differs || again) && (differs || at+1 == next) { // who skipped states may be sent the same once more
				t.Fatalf("step %d: sent %v, differs %v, again %v, for %+v", i, sent, differs, again, a)
			}
			if v.state != visible(raw, a) {
				t.Fatalf("sees %+v", v.state)
			}
			seen, at, first = visible(raw, a), next, false
		}
	})
}

// Each sees of Marta what they may: herself all, also that she appears offline.
func TestViewers(t *testing.T) {
	w := office()
	w.rules["21042"] = presence.Access{Level: presence.LevelStatus} // for web:anyone and all the others
	s := guarded(t, w, nil)
	w.says("21042", "xmpp", span(presence.ManualOffline, time.Now(), ""))
	for who, want := range map[string]string{"": "Offline", "marta": "Offline Set by hand", "ops": "Offline Set by hand", "root": "Offline Set by hand"} {
		g := newGuest(t, s)
		if who != "" {
			g.signs(who)
		}
		_, body := g.get("/")
		row := parse(t, body).id(t, "p-21042")
		got := text(row.class("state")[0]) + " " + text(row.find(func(n *html.Node) bool { return strings.HasPrefix(attr(n, "class"), "c-act") })[0])
		if strings.TrimSpace(got) != want {
			t.Errorf("%q sees %q, want %q", who, got, want)
		}
	}
}

// A stream says no word more when what let its viewer in is over.
func TestStreamsEndWithTheSession(t *testing.T) {
	w := office()
	s := guarded(t, w, func(c *Config, _ *Parts) { c.SignIn.Required = "true" })
	cursorOf(t, s, w)
	by := signin.By{Who: "test", From: "test"}
	for what, end := range map[string]func(*guest){
		"signing out":    func(g *guest) { g.post("/signout", nil) },
		"another role":   func(*guest) { must(t, s.parts.SignIn.SetRole(t.Context(), by, "ops", signin.Person)) },
		"a new password": func(*guest) { must(t, s.parts.SignIn.SetPassword(t.Context(), by, "ops", secretWords+"!")) },
	} {
		t.Run(what, func(t *testing.T) {
			must(t, s.parts.SignIn.SetPassword(t.Context(), by, "ops", secretWords))
			must(t, s.parts.SignIn.SetRole(t.Context(), by, "ops", signin.Operator))
			g := newGuest(t, s).signs("ops")
			c := g.live(s, "since="+s.feed.cursor())
			for c.line() != "ready" { // it may be that the case before is still to be heard
			}
			end(g)
			w.says("21017", "aes-cm1", span(presence.PhoneConnected, time.Now(), "tel:21017"))
			for {
				m, err := readMessage(c.r)
				if err != nil {
					break
				}
				if m.name != "counts" {
					t.Fatalf("it still says %+v", m)
				}
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Who opens a person's page watches them, as long as a page is open.
func TestGazes(t *testing.T) {
	w := office()
	s := guarded(t, w, nil)
	g := newGuest(t, s).signs("marta")
	one := g.live(s, "id=21017&since="+cursorOf(t, s, w))
	one.want("ready")
	two := g.live(s, "id=21017&since="+s.feed.cursor())
	two.want("ready")
	self := g.live(s, "id=21042&since="+s.feed.cursor())
	self.want("ready")
	if got := w.watched(); got != "mail:marta.lindqvist@example.com 21017" {
		t.Errorf("watched: %q", got)
	}
	one.end()
	waitFor(t, "the first to leave", func() bool { return s.streams.Load() == 2 })
	if got := w.watched(); got == "" {
		t.Error("nobody watches, though a page is open")
	}
	two.end()
	waitFor(t, "nobody to watch", func() bool { return w.watched() == "" })
}
