package signin_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "correct horse battery"

var by = signin.By{Who: "uid 0", From: "test"}

// memory is a Memory that can be made to fail.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	broken bool
}

var errBroken = errors.New("the store is down")

func (m *memory) do(f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken {
		return errBroken
	}
	if m.values == nil {
		m.values = map[string][]byte{}
	}
	f()
	return nil
}

func (m *memory) Load(context.Context) (all map[string][]byte, err error) {
	err = m.do(func() { all = maps.Clone(m.values) })
	return all, err
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	return m.do(func() { m.values[key] = value })
}

func (m *memory) Delete(_ context.Context, key string) error {
	return m.do(func() { delete(m.values, key) })
}

func (m *memory) becomes(broken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = broken
}

// all is everything the memory holds, as text.
func (m *memory) all() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for k, v := range m.values {
		b.WriteString(k + " " + string(v) + "\n")
	}
	return b.String()
}

// world is a Desk with what it needs.
type world struct {
	t                          *testing.T
	accounts, sessions, tokens memory
	people                     map[presence.Subject]presence.ID
	desk                       *signin.Desk
	stop                       func()

	mu     sync.Mutex
	notes  []signin.Note
	silent bool // the audit trail cannot be written
	logged strings.Builder
}

func (w *world) Person(s presence.Subject) (presence.Person, bool) {
	id, ok := w.people[s]
	return presence.Person{ID: id}, ok
}

func (w *world) audit(_ context.Context, n signin.Note) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silent {
		return errBroken
	}
	w.notes = append(w.notes, n)
	return nil
}

// Write implements io.Writer, for the log.
func (w *world) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logged.Write(b)
}

// told counts the notes that say what.
func (w *world) told(what string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, note := range w.notes {
		if note.What == what {
			n++
		}
	}
	return n
}

func settings() signin.Config {
	return signin.Config{Required: "true", Local: true, Idle: 8 * time.Hour, Absolute: 24 * time.Hour}
}

const origin = "http://127.0.0.1:8080"

// newWorld opens a Desk with an account of each role: ada administers, otto operates,
// anna is a person.
func newWorld(t *testing.T, cfg signin.Config) *world {
	t.Helper()
	w := &world{t: t, people: map[presence.Subject]presence.ID{{Scheme: "mail", Value: "anna@example.com"}: "7"}}
	w.open(cfg)
	if cfg.Local {
		for _, n := range []signin.NewAccount{
			{User: "ada", Role: signin.Administrator, Password: password},
			{User: "otto", Role: signin.Operator, Password: password},
			{User: "anna", Name: "Anna Berg", Role: signin.Person, Password: password, Subjects: []presence.Subject{{Scheme: "mail", Value: "anna@example.com"}}},
		} {
			if err := w.desk.Add(t.Context(), by, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

// open makes the Desk, again if there is one: as after a restart.
func (w *world) open(cfg signin.Config) {
	w.t.Helper()
	if w.stop != nil {
		w.stop()
	}
	desk, err := signin.New(cfg, signin.Deps{
		Title: "presenced", Origin: origin, Loopback: true, Accounts: &w.accounts, Sessions: &w.sessions, Tokens: &w.tokens,
		People: w, Audit: w.audit, Log: slog.New(slog.NewTextHandler(w, nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	desk.Cheapen()
	w.desk = desk
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = desk.Run(ctx) }()
	w.stop = sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(w.stop)
	for { // until Run has read the accounts
		if _, err := desk.List(); err == nil {
			return
		}
		select {
		case <-done:
			w.t.Fatal("Run ended")
		case <-time.After(time.Millisecond):
		}
	}
}

// site is a page as bridges/web may make one: everything behind Guard.
func (w *world) site() http.Handler {
	mux := http.NewServeMux()
	w.desk.Routes(mux)
	hello := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "hello "+signin.From(r.Context()).Account+" "+string(signin.From(r.Context()).Person))
	})
	mux.Handle("/", w.desk.Require(signin.ReadStates, hello))
	mux.Handle("/own", w.desk.Require(signin.WriteOwn, hello))
	mux.Handle("/presence", w.desk.Require(signin.WritePresence, hello))
	mux.Handle("/audit", w.desk.Require(signin.ReadAudit, hello))
	mux.Handle("/services", w.desk.Require(signin.AdminServices, hello))
	return w.desk.Guard(mux)
}

// A browser asks the site over HTTP, with a jar of cookies; it follows no redirect.
type browser struct {
	t    *testing.T
	base string
	*http.Client
}

func (w *world) browse() *browser {
	server := httptest.NewServer(w.site())
	w.t.Cleanup(server.Close)
	return newBrowser(w.t, server)
}

func newBrowser(t *testing.T, server *httptest.Server) *browser {
	jar, _ := cookiejar.New(nil)
	c := *server.Client()
	c.Jar = jar
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &browser{t, server.URL, &c}
}

// answer is what came back.
type answer struct {
	*http.Response
	body string
}

func (b *browser) do(method, path string, form url.Values, header ...string) answer {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("Accept", "text/html")
	for i := 0; i+1 < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i+1] == "" {
			r.Header.Del(header[i])
		}
	}
	res, err := b.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return answer{res, string(body)}
}

func (b *browser) get(path string, header ...string) answer {
	b.t.Helper()
	return b.do(http.MethodGet, path, nil, header...)
}

func (b *browser) post(path string, form url.Values, header ...string) answer {
	b.t.Helper()
	return b.do(http.MethodPost, path, form, append([]string{"Sec-Fetch-Site", "same-origin"}, header...)...)
}

// signIn gives the identifier of the new session.
func (b *browser) signIn(user string) string {
	b.t.Helper()
	a := b.post("/signin", url.Values{"user": {user}, "password": {password}})
	if a.StatusCode != http.StatusSeeOther {
		b.t.Fatalf("%s: %s %s", user, a.Status, a.body)
	}
	return b.session()
}

// session is the identifier in the jar.
func (b *browser) session() string {
	u, _ := url.Parse(b.base)
	for _, c := range b.Jar.Cookies(u) {
		if strings.HasSuffix(c.Name, "presenced") {
			return c.Value
		}
	}
	return ""
}

var (
	tokenField = regexp.MustCompile(`value="(pd_[a-z2-7]{52})"`)
	idField    = regexp.MustCompile(`name="id" value="([0-9a-f]{16})"`)
)

// token makes an API token with those scopes.
func (b *browser) token(scopes ...string) string {
	b.t.Helper()
	a := b.post("/me/tokens", url.Values{"name": {"test"}, "scope": scopes, "days": {"30"}})
	m := tokenField.FindStringSubmatch(a.body)
	if m == nil {
		b.t.Fatalf("no token: %s %s", a.Status, a.body)
	}
	return m[1]
}
