package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/journal"
	"presenced/aggregator/policy"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// An estate is a world with everything that administrators see and change: the real
// gate and the real trail over memories of the test, and what a dry run is told to give.
type estate struct {
	*world
	gate  *access.Gate
	trail *audit.Trail
	lines *book
	rules *cabinet
	polls *polls

	differences []journal.Difference
	tryErr      error
	began, end  chan struct{} // of a dry run; nil: it does not wait
	origin      PolicyOrigin
}

func newEstate(t testing.TB, w *world, edit func(*access.Config)) *estate {
	t.Helper()
	e := &estate{world: w, lines: &book{}, rules: &cabinet{kept: map[string][]byte{}}, polls: &polls{}}
	cfg := access.Config{Default: "full", Calendar: "open", BlockView: "offline", Unread: "hide", AuditKeep: 24 * time.Hour, AuditMaxBytes: 1 << 20}
	if edit != nil {
		edit(&cfg)
	}
	e.trail = audit.New(e.lines, quiet())
	e.gate = access.New(cfg, w, e.rules, e.trail, func(...presence.ID) {}, quiet())
	if err := e.gate.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.origin = PolicyOrigin{Knobs: []Knob{
		{Key: "tentative", Value: "busy", Default: "ignore", Meaning: "What a tentative entry means: ignore, or busy.", Set: true},
		{Key: "recent", Value: "15m", Default: "15m", Meaning: "How long use of a phone or a client speaks against being out of office or off work."},
	}}
	return e
}

// adds has the pages of an administrator among those of a site.
func (e *estate) adds(p *Parts) { p.Poller, p.Policies, p.Audit = e.polls, e, e.trail }

// site gives the pages as somebody sees them.
func (e *estate) site(who signin.Identity) *Site {
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	parts := Parts{Past: e.world, Access: e.gate, Version: "1.2.3"}
	e.adds(&parts)
	s := New(cfg, e.world, e.world, parts, nil, quiet())
	s.zone = time.UTC
	s.places = nil
	routes := s.routes(nil)
	s.handler = s.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		routes.ServeHTTP(w, r.WithContext(signin.With(r.Context(), who)))
	}))
	return s
}

func (e *estate) Policy() *presence.Policy { return e.policy }
func (e *estate) Origin() PolicyOrigin     { return e.origin }
func (e *estate) Table() []byte            { return policy.Format(e.policy) }

func (*estate) Parse(table []byte) (*presence.Policy, error) { return policy.Parse("table", table) }

func (e *estate) DryRun(ctx context.Context, _ *presence.Policy, _, _ time.Time) ([]journal.Difference, error) {
	if e.began != nil {
		e.began <- struct{}{}
		select {
		case <-e.end:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return slices.Clone(e.differences), e.tryErr
}

// polls notes who was asked.
type polls struct {
	mu    sync.Mutex
	asked []string
	err   error
}

func (p *polls) PollNow(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, name)
	return p.err
}

func (p *polls) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

// A book is the log of an audit trail.
type book struct {
	mu    sync.Mutex
	lines [][]byte
	err   error
}

func (b *book) Append(_ context.Context, _ string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.lines = append(b.lines, value)
	}
	return b.err
}

func (b *book) Read(context.Context, string) iter.Seq2[[]byte, error] {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines, err := slices.Clone(b.lines), b.err
	return func(yield func([]byte, error) bool) {
		if err != nil {
			yield(nil, err)
			return
		}
		for _, l := range lines {
			if !yield(l, nil) {
				return
			}
		}
	}
}

func (b *book) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// last gives the newest line.
func (b *book) last() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines) == 0 {
		return ""
	}
	return string(b.lines[len(b.lines)-1])
}

// A cabinet is the bucket of the access rules.
type cabinet struct {
	mu   sync.Mutex
	kept map[string][]byte
	err  error
}

func (s *cabinet) Load(context.Context) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.kept), s.err
}

func (s *cabinet) Put(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.kept[key] = value
	}
	return s.err
}

func (s *cabinet) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		delete(s.kept, key)
	}
	return s.err
}

func (s *cabinet) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// post sends a form to a Site that does not run.
func post(t *testing.T, s *Site, target string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Host, r.RemoteAddr = "localhost:8080", "192.0.2.7:4711"
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, r)
	return rec
}

// postTable sends the form of the policy, with a file if there is one.
func postTable(t *testing.T, s *Site, table, file, do string) *httptest.ResponseRecorder {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for key, value := range map[string]string{"table": table, "since": "1h", "do": do} {
		if err := m.WriteField(key, value); err != nil {
			t.Fatal(err)
		}
	}
	if part, err := m.CreateFormFile("file", "policy.yaml"); err != nil {
		t.Fatal(err)
	} else if _, err := part.Write([]byte(file)); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/policy", &b)
	r.Header.Set("Content-Type", m.FormDataContentType())
	r.Host = "localhost:8080"
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, r)
	return rec
}

// told gives what a form was answered: where the browser goes, and what it shows there.
func told(t *testing.T, s *Site, rec *httptest.ResponseRecorder) (to, said string) {
	t.Helper()
	if rec.Code != http.StatusSeeOther {
		t.Fatalf("code %d: %s", rec.Code, rec.Body)
	}
	to = rec.Header().Get("Location")
	path, _, _ := strings.Cut(to, "#")
	page := get(t, s, path, "Cookie", rec.Header().Get("Set-Cookie"))
	return to, text(parse(t, page.Body.String()).id(t, "done").Node)
}

// Who may see and do what: a permission lets in, the one below it does not.
func TestAdministrationPermissions(t *testing.T) {
	e := newEstate(t, office(), nil)
	person := signin.Identity{Account: "local:marta", Name: "Marta", Role: signin.Person, Person: "21042"}
	anyone := signin.Identity{Role: signin.Anyone}
	nobody := signin.Identity{}
	narrow := admin
	narrow.Token, narrow.Scopes = "t", signin.AdminAccess // may administer access, and see nobody
	all := map[string]signin.Identity{"nobody": nobody, "anyone": anyone, "person": person, "operator": operator, "administrator": admin, "narrow": narrow}
	for _, c := range []struct{ request, may string }{
		{"GET /sources", "anyone person operator administrator"},
		{"GET /sources/aes-cm1", "anyone person operator administrator"},
		{"POST /sources/poll", "operator administrator"},
		{"POST /sources/aes-cm1/poll", "operator administrator"},
		{"GET /policy", "anyone person operator administrator"},
		{"GET /policy.yaml", "anyone person operator administrator"},
		{"POST /policy", "administrator"},
		{"GET /access", "administrator narrow"},
		{"POST /access/rule", "administrator narrow"},
		{"POST /access/rule/remove", "administrator narrow"},
		{"POST /access/request", "administrator narrow"},
		{"POST /access/person", "administrator narrow"},
		{"GET /audit", "administrator"},
		{"GET /audit.csv", "administrator"},
		{"GET /audit.json", "administrator"},
		{"GET /about", "anyone person operator administrator"},
		{"GET /docs/operating", "anyone person operator administrator"},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		for name, who := range all {
			s := e.site(who)
			var rec *httptest.ResponseRecorder
			if method == http.MethodPost {
				rec = post(t, s, target, nil)
			} else {
				rec = get(t, s, target)
			}
			if got, want := rec.Code != http.StatusForbidden, slices.Contains(strings.Fields(c.may), name); got != want {
				t.Errorf("%s by %s: %d", c.request, name, rec.Code)
			}
			if rec.Code >= 500 {
				t.Errorf("%s by %s: %d", c.request, name, rec.Code)
			}
		}
	}
	if last := e.lines.last(); last != "" {
		t.Errorf("something was changed: %s", last)
	}
}

// What cannot be done has no page, and no place in the navigation.
func TestAdministrationLeftOut(t *testing.T) {
	s := New(DefaultConfig(), office(), office(), Parts{}, nil, quiet())
	board := get(t, s, "/").Body.String()
	for _, path := range []string{"/policy", "/access", "/audit", "/policy.yaml", "/audit.csv"} {
		if rec := get(t, s, path); rec.Code != http.StatusNotFound || strings.Contains(board, `href="`+path+`"`) {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
	if rec := post(t, s, "/sources/poll", nil); rec.Code != http.StatusMethodNotAllowed && rec.Code != http.StatusNotFound {
		t.Errorf("poll: %d", rec.Code)
	}
}

func (e *estate) unwell(n int) {
	refused := map[string]string{}
	for i := range n {
		refused[fmt.Sprint(30000+i)] = "no licence for another monitor"
	}
	refused["21042"] = "not a station"
	e.health = []aggregator.Health{
		{Name: "aes-cm2", Kind: aggregator.KindSource, Status: presence.Status{
			Phase: presence.PhaseSyncing, Detail: "3,210 of 9,000 monitored", Done: 3210, Total: 9000, Unmonitored: refused, Uncovered: len(refused),
			LastError: `the answer <b>"busy"</b>`, LastErrorAt: time.Now(), Problems: map[string]int{"frames malformed": 2},
		}, Reports: 4711},
		{Name: "exchange-hq/calendar", Kind: aggregator.KindSource, Status: presence.Status{Phase: presence.PhaseLive, Detail: "covers 7 mailboxes"}, Polls: true},
		{Name: "hq", Kind: aggregator.KindBridge, Status: presence.Status{Phase: presence.PhaseStale, LastError: "refused"}, NextTry: time.Now().Add(time.Minute)},
		{Name: "store", Kind: aggregator.KindStore, Status: presence.Status{Phase: presence.PhaseLive, Detail: "every write is on disk"}},
	}
}

var errGone = errors.New("the disk is full")

func actorForTest() audit.Actor { return audit.Actor{Who: "the test", From: "nowhere"} }
