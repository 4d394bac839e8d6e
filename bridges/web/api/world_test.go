package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/directory"
	"presenced/aggregator/journal"
	"presenced/aggregator/policy"
	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/bridges/web"
	"presenced/bridges/web/api"
	"presenced/bridges/web/signin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is an aggregator in memory with everything that the API is about, and the
// API before it.
type world struct {
	t      *testing.T
	hub    *aggregator.Hub
	gate   *access.Gate
	trail  *shelf
	stored *shelves
	rules  *shelves
	health []aggregator.Health

	sight  *sight
	synced []string
	api    *api.API
}

// everyone is who there is.
func everyone() []presence.Person {
	person := func(id presence.ID, name, tel string, groups ...string) presence.Person {
		return presence.Person{ID: id, Name: name, Groups: groups, Subjects: []presence.Subject{{Scheme: "mail", Value: string(id) + "@example.com"}, {Scheme: "tel", Value: tel}}}
	}
	return []presence.Person{
		person("alder", "Ruth Alder", "4750", "sales"), person("birch", "Omar Birch", "4751", "sales"), person("ivy", "Mona Ivy", "4752", "desk"), person("a b/c", "Odd Name", "4753"),
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return makeWorld(t, true)
}

// makeWorld makes a world with or without accounts, whose passwords take their time.
func makeWorld(t *testing.T, accounts bool) *world {
	t.Helper()
	w := &world{t: t, hub: aggregator.NewHub(presence.DefaultPolicy(), nil, quiet()), trail: &shelf{}, stored: &shelves{}, rules: &shelves{}}
	w.people(everyone()...)
	trail := audit.New(w.trail, quiet())
	w.gate = access.New(access.Config{Default: "full", Calendar: "open"}, w.hub, w.rules, trail, w.hub.Again, quiet())
	if err := w.gate.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	manual := aggregator.NewManual(w.hub, &shelves{}, quiet())
	if _, err := manual.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	catalog := services.NewCatalog(services.Terms{
		Memory: w.stored, People: w.hub.People, Log: quiet(), File: "presenced.yaml",
		Audit: func(ctx context.Context, d services.Deed, do func() error) error {
			return trail.Change(ctx, audit.Line{Who: d.Who, From: d.From, What: d.What, Whom: d.Service, Detail: d.Detail}, func(context.Context) error { return do() })
		},
		Fixed: []services.Service{{ID: "lab", Primary: services.Server{Host: "127.0.0.1", Port: 9}, Transport: "tcp", Entity: "sip:{tel}@lab.test", Users: []string{"everyone"}}},
	})
	if err := catalog.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sight = &sight{Site: web.New(web.DefaultConfig(), w, w.gate, web.Parts{Past: w}, nil, quiet()), over: make(chan struct{})}
	deps := api.Deps{
		Version: "test", People: w.hub, Sight: w.sight, Parts: w, Manual: byHand{manual, trail}, Access: w.gate, Services: &atWork{w, catalog}, Policy: w, Audit: trail, Webhooks: hooks{}, Log: quiet(),
	}
	if accounts {
		deps.Accounts = w.desk(trail)
	}
	w.api = api.New(deps)
	return w
}

// desk signs people in, until the test ends.
func (w *world) desk(trail *audit.Trail) *signin.Desk {
	w.t.Helper()
	d, err := signin.New(signin.DefaultConfig(), signin.Deps{
		Title: "test", Origin: "http://127.0.0.1:8080", Loopback: true, Accounts: &shelves{}, Sessions: &shelves{}, Tokens: &shelves{}, People: w.hub, Log: quiet(),
		Audit: func(ctx context.Context, n signin.Note) error {
			return trail.Write(ctx, audit.Line{Who: n.Who, From: n.From, What: n.What, Whom: n.Whom, Detail: n.Detail})
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			w.t.Error(err)
		}
	})
	<-d.Loaded()
	return d
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (w *world) people(all ...presence.Person) {
	w.t.Helper()
	d, problems := directory.New(all)
	if len(problems) > 0 {
		w.t.Fatal(problems)
	}
	w.hub.SetDirectory(d, time.Now())
}

// says states what a source knows of a person.
func (w *world) says(tel, source string, spans ...presence.Span) {
	w.t.Helper()
	err := w.hub.Report(context.Background(), presence.Report{Source: source, Subject: presence.Subject{Scheme: "tel", Value: tel}, At: time.Now(), Spans: spans})
	if err != nil {
		w.t.Fatal(err)
	}
}

func span(f presence.Fact) presence.Span {
	return presence.Span{Fact: f, From: time.Now().Add(-time.Minute)}
}

// The identities of tests.
func administrator() signin.Identity {
	return signin.Identity{Account: "local:root", Name: "Root", Role: signin.Administrator}
}

func anyone() signin.Identity { return signin.Identity{Role: signin.Anyone} }

// as gives the API as it answers somebody.
func (w *world) as(who signin.Identity) http.Handler {
	h := w.api.Handler(func(r *http.Request) audit.Actor {
		return audit.Actor{Who: signin.From(r.Context()).Account, From: "test"}
	})
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(rw, r.WithContext(signin.With(r.Context(), who)))
	})
}

// ask sends a request; header is name and value, by turns.
func (w *world) ask(who signin.Identity, method, target, body string, header ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	var content io.Reader = http.NoBody
	if body != "" {
		content = strings.NewReader(body)
	}
	r := httptest.NewRequestWithContext(w.t.Context(), method, target, content)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.as(who).ServeHTTP(rec, r)
	return rec
}

// want sends a request of the administrator and looks at the answer.
func (w *world) want(method, target, body string, code int, want string, header ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	rec := w.ask(administrator(), method, target, body, header...)
	if rec.Code != code || !strings.Contains(rec.Body.String(), want) {
		w.t.Errorf("%s %s %.100s: %d %.400s\nwant %d %s", method, target, body, rec.Code, rec.Body, code, want)
	}
	return rec
}

func into[T any](t *testing.T, rec *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v in %.300s", err, rec.Body)
	}
	return v
}

// The world is the web.Desk, api.Parts, web.Past and api.Policy.

func (w *world) People() []presence.Person { return w.hub.People() }

func (w *world) Person(s presence.Subject) (presence.Person, bool) {
	return w.hub.Person(s)
}
func (w *world) States() []presence.State { return w.hub.States() }
func (w *world) Explain(id presence.ID, at time.Time) (presence.Explanation, bool) {
	return w.hub.Explain(id, at)
}
func (w *world) Health() []aggregator.Health { return w.health }
func (w *world) PollNow(name string) error {
	switch name {
	case "crm":
		return nil
	case "busy":
		return aggregator.ErrTooSoon
	default:
		return aggregator.ErrNoPart
	}
}

func (w *world) History(_ context.Context, id presence.ID, since, _ time.Time, as presence.Access, most int) ([]web.Change, error) {
	state, _ := w.hub.State(id)
	s := presence.View(state, as)
	all := []web.Change{{At: since.UTC(), Availability: s.Availability, Activity: s.Activity, Rule: s.Why.Rule, Title: s.Why.Title}}
	return all[:min(most, 1)], nil
}

func (*world) Day(context.Context, presence.ID, time.Time, time.Time, time.Time, presence.Access, int) (web.Day, error) {
	return web.Day{}, nil
}

func (w *world) ExplainAt(_ context.Context, id presence.ID, _ time.Time) (presence.Explanation, error) {
	if id == "ivy" {
		return presence.Explanation{}, fmt.Errorf("%w about ivy", web.ErrNotRemembered)
	}
	e, _ := w.hub.Explain(id, time.Time{})
	return e, nil
}

func (w *world) Table() []byte { return policy.Format(w.hub.Policy()) }

func (w *world) Parse(table []byte) (*presence.Policy, error) { return policy.Parse("table", table) }

func (w *world) DryRun(_ context.Context, _ *presence.Policy, since, _ time.Time) ([]journal.Difference, error) {
	return []journal.Difference{{Person: "alder", From: since.UTC(), WasWords: "busy", WouldWords: "dnd"}}, nil
}

// A sight is the api.Sight; closing over ends all sessions.
type sight struct {
	*web.Site

	over chan struct{}
}

func (s *sight) Enter(signin.Identity) (leave func(), code int) { return func() {}, 0 }

func (s *sight) Still(signin.Identity) (same bool, changed <-chan struct{}) {
	select {
	case <-s.over:
		return false, nil
	default:
		return true, s.over
	}
}

// byHand is the api.Manual.
type byHand struct {
	manual *aggregator.Manual
	trail  *audit.Trail
}

func (b byHand) Set(ctx context.Context, by audit.Actor, of presence.ID, fact presence.Fact, until time.Time) (r presence.Report, err error) {
	err = b.trail.Change(ctx, audit.Line{Who: by.Who, From: by.From, What: "presence set", Whom: string(of)}, func(ctx context.Context) error {
		r, err = b.manual.Set(ctx, of, fact, until, by.Who)
		return err
	})
	return r, err
}

func (b byHand) Clear(ctx context.Context, by audit.Actor, of presence.ID) error {
	return b.manual.Clear(ctx, of, by.Who)
}

// atWork is the api.Services.
type atWork struct {
	*world

	catalog *services.Catalog
}

func (a *atWork) Services() ([]web.Service, error) {
	all, err := a.catalog.List()
	var out []web.Service
	for _, r := range all {
		out = append(out, web.Service{Record: r, Servers: []web.Server{{Address: r.Primary.Address(), Active: true}}})
	}
	return out, err
}

func (a *atWork) Apply(ctx context.Context, o services.Order) ([]services.Outcome, error) {
	return a.catalog.Apply(ctx, o)
}

func (a *atWork) Try(_ context.Context, s services.Service, _ audit.Actor) ([]web.Trial, error) {
	return []web.Trial{{Address: s.Primary.Address(), Words: "cannot connect"}}, nil
}

func (a *atWork) Sync(_ context.Context, id string, by audit.Actor) error {
	a.synced = append(a.synced, id+" by "+by.Who)
	return nil
}

// hooks is the api.Webhooks, with one receiver.
type hooks struct{}

func (hooks) Dead(name string) ([]api.Letter, error) {
	_, err := hooks{}.Retry(context.Background(), audit.Actor{}, name, "")
	return []api.Letter{{Person: "alder", Tries: 9, Why: "410 Gone"}}, err
}

func (hooks) Retry(_ context.Context, _ audit.Actor, name string, _ presence.ID) (int, error) {
	if name != "crm" {
		return 0, &web.Refusal{Code: http.StatusNotFound, Text: "no webhook of the configuration has the name " + name}
	}
	return 1, nil
}

// shelves is a bucket in memory.
type shelves struct {
	mu       sync.Mutex
	values   map[string][]byte
	revision map[string]uint64
	last     uint64
	full     bool
}

var errFull = errors.New("disk full")

func (s *shelves) Load(context.Context) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]byte{}
	for k, v := range s.values {
		all[k] = slices.Clone(v)
	}
	return all, nil
}

func (s *shelves) Get(_ context.Context, key string) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values[key], s.revision[key], nil
}

func (s *shelves) put(key string, value []byte) (uint64, error) {
	if s.full {
		return 0, errFull
	}
	if s.values == nil {
		s.values, s.revision = map[string][]byte{}, map[string]uint64{}
	}
	s.last++
	s.values[key], s.revision[key] = slices.Clone(value), s.last
	return s.last, nil
}

func (s *shelves) Put(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.put(key, value)
	return err
}

func (s *shelves) Create(_ context.Context, key string, value []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(key, value)
}

func (s *shelves) Update(_ context.Context, key string, value []byte, last uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revision[key] != last {
		return 0, errors.New("wrong revision")
	}
	return s.put(key, value)
}

func (s *shelves) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return errFull
	}
	delete(s.values, key)
	delete(s.revision, key)
	return nil
}

func (s *shelves) fill(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

// A shelf is a log in memory.
type shelf struct {
	mu     sync.Mutex
	values [][]byte
	full   bool
}

func (s *shelf) Append(_ context.Context, _ string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return errFull
	}
	s.values = append(s.values, bytes.Clone(value))
	return nil
}

func (s *shelf) Read(context.Context, string) iter.Seq2[[]byte, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.values)
	return func(yield func([]byte, error) bool) {
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
	}
}
