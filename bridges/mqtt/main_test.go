package mqtt

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

	"go.uber.org/goleak"

	"presenced/aggregator/presence"
	"presenced/fixtures/peers"
	"presenced/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// An office is a hub and a gate that the test changes.
type office struct {
	mu     sync.Mutex
	people map[presence.ID]presence.Person
	states map[presence.ID]presence.State
	hidden map[presence.ID]bool
	feeds  map[chan presence.State]bool
}

func newOffice(ids ...presence.ID) *office {
	o := &office{people: map[presence.ID]presence.Person{}, states: map[presence.ID]presence.State{}, hidden: map[presence.ID]bool{}, feeds: map[chan presence.State]bool{}}
	for _, id := range ids {
		o.people[id] = presence.Person{ID: id, Name: strings.ToUpper(string(id[:1])) + string(id[1:])}
		o.set(id, presence.Available)
	}
	return o
}

func (o *office) tell(s presence.State) {
	for feed := range o.feeds {
		feed <- s
	}
}

func (o *office) set(id presence.ID, a presence.Availability) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := presence.State{Person: id, Availability: a, Class: a.Class()}
	o.states[id] = s
	o.tell(s)
}

func (o *office) hide(id presence.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hidden[id] = true
	o.tell(o.states[id])
}

func (o *office) remove(id presence.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.people, id)
	delete(o.states, id)
	o.tell(presence.State{Person: id, Why: presence.Reason{Rule: presence.RuleRemoved}})
}

func (o *office) Watch(ctx context.Context, _ ...presence.ID) iter.Seq[presence.State] {
	return func(yield func(presence.State) bool) {
		feed := make(chan presence.State, 1024)
		o.mu.Lock()
		o.feeds[feed] = true
		first := slices.Collect(maps.Values(o.states))
		o.mu.Unlock()
		defer func() {
			o.mu.Lock()
			delete(o.feeds, feed)
			o.mu.Unlock()
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

func (o *office) Person(s presence.Subject) (presence.Person, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, ok := o.people[presence.ID(s.Value)]
	return p, ok && s.Scheme == "id"
}

func (*office) Report(context.Context, presence.Report) error { return nil }

func (o *office) Admit(w presence.Watcher, of presence.ID) presence.Access { return o.Access(w, of) }

func (*office) Dismiss(presence.Watcher, presence.ID) {}

func (o *office) Access(w presence.Watcher, of presence.ID) presence.Access {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hidden[of] || w.Subject.String() != "mqtt:broker" {
		return presence.Access{}
	}
	return presence.Everyone()
}

// testConfig is for a broker that a test runs.
func testConfig(t testing.TB, s *peers.MosquittoServer) Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(s.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Name, c.URL, c.User, c.PasswordFile = "broker", "mqtt://"+s.Addr, s.User, secret.File(file)
	if s.TLS {
		c.URL, c.TLS.CAFile = "mqtts://"+s.Addr, s.CAFile
	}
	if ps := c.Check(); len(ps) != 0 {
		t.Fatal(ps)
	}
	return c
}

// run runs a publisher until stop is called, which gives its error.
func run(t *testing.T, p *Publisher, hub presence.Hub) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, hub) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			err = <-ended
		})
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}
