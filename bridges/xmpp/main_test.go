package xmpp

import (
	"context"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator/presence"
	"presenced/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeHub is a hub of people whose states the test sets.
type fakeHub struct {
	mu     sync.Mutex
	people map[presence.ID]presence.Person
	states map[presence.ID]presence.State
	feeds  map[int]chan presence.State
	next   int
}

func newHub(people ...presence.Person) *fakeHub {
	h := &fakeHub{people: map[presence.ID]presence.Person{}, states: map[presence.ID]presence.State{}, feeds: map[int]chan presence.State{}}
	for _, p := range people {
		h.people[p.ID] = p
		h.states[p.ID] = presence.State{Person: p.ID}
	}
	return h
}

func person(id, name string, subjects ...string) presence.Person {
	p := presence.Person{ID: presence.ID(id), Name: name}
	for _, text := range subjects {
		scheme, value, _ := strings.Cut(text, ":")
		p.Subjects = append(p.Subjects, presence.Subject{Scheme: scheme, Value: value})
	}
	return p
}

// state makes the state of carol.
func state(a presence.Availability, act presence.Activity) presence.State {
	return presence.State{Person: "carol", Availability: a, Activity: act, Class: a.Class(), Since: time.Date(2026, 11, 20, 10, 5, 0, 0, time.UTC)}
}

func (h *fakeHub) set(s presence.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states[s.Person] = s
	if s.Why.Rule == presence.RuleRemoved {
		delete(h.people, s.Person)
		delete(h.states, s.Person)
	}
	for _, feed := range h.feeds {
		feed <- s
	}
}

func (h *fakeHub) Watch(ctx context.Context, _ ...presence.ID) iter.Seq[presence.State] {
	return func(yield func(presence.State) bool) {
		feed := make(chan presence.State, 1024)
		h.mu.Lock()
		id := h.next
		h.next++
		h.feeds[id] = feed
		first := slices.Collect(maps.Values(h.states))
		h.mu.Unlock()
		defer func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.feeds, id)
		}()
		for _, s := range first {
			if !yield(s) {
				return
			}
		}
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-feed:
				if !yield(s) {
					return
				}
			}
		}
	}
}

func (h *fakeHub) Person(s presence.Subject) (presence.Person, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, ok := h.people[presence.ID(s.Value)]
	return p, ok && s.Scheme == "id"
}

func (h *fakeHub) Report(context.Context, presence.Report) error { return nil }

// fakeMemory keeps values in a map.
type fakeMemory struct {
	mu     sync.Mutex
	values map[string][]byte
	err    error // of Put, while set
}

func newMemory() *fakeMemory { return &fakeMemory{values: map[string][]byte{}} }

func (m *fakeMemory) Load(context.Context) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.values), nil
}

func (m *fakeMemory) Put(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.values[key] = slices.Clone(value)
	return nil
}

func (m *fakeMemory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return m.err
}

func (m *fakeMemory) copy() *fakeMemory {
	values, _ := m.Load(context.Background())
	return &fakeMemory{values: values}
}

// testConfig is for the component presence.xmpp.test.
func testConfig(t testing.TB, password string) Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Host, c.SecretFile = "presence.xmpp.test", secret.File(file)
	return c
}

// fakeGate gives everybody full access, but for those a test says otherwise of.
type fakeGate struct {
	mu       sync.Mutex
	says     map[string]presence.Access // by the value of the watcher's subject
	admitted map[string]bool            // "jid:bob@xmpp.test xmpp carol"
}

func newGate() *fakeGate {
	return &fakeGate{says: map[string]presence.Access{}, admitted: map[string]bool{}}
}

func (g *fakeGate) say(watcher string, a presence.Access) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.says[watcher] = a
}

func (g *fakeGate) watching() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.admitted))
}

func (g *fakeGate) Admit(w presence.Watcher, of presence.ID) presence.Access {
	g.mu.Lock()
	g.admitted[w.Subject.String()+" "+w.Via+" "+string(of)] = true
	g.mu.Unlock()
	return g.Access(w, of)
}

func (g *fakeGate) Dismiss(w presence.Watcher, of presence.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.admitted, w.Subject.String()+" "+w.Via+" "+string(of))
}

func (g *fakeGate) Access(w presence.Watcher, _ presence.ID) presence.Access {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a, ok := g.says[w.Subject.Value]; ok {
		return a
	}
	return presence.Everyone()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
