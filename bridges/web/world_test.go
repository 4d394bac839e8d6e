package web

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is a small aggregator: a Desk and a Hub that decide with the default
// policy over the reports that a test states, a Gate that says what a test has it
// say, and a Past that remembers everything.
type world struct {
	mu       sync.Mutex
	policy   *presence.Policy
	people   []presence.Person
	reports  map[presence.ID][]presence.Report
	states   map[presence.ID]presence.State
	health   []aggregator.Health
	rules    map[presence.ID]presence.Access // of the gate; everything, where nothing is said
	then     map[presence.ID][]snapshot      // the earliest first
	pastErr  error
	heldBack map[presence.ID]*presence.HeldBack  // while the state that was set shows on
	watchers map[chan struct{}]*[]presence.State // what each has yet to see
	watches  []string                            // who was admitted
	trail    []string                            // of the audit
	gate     *access.Gate                        // of guardedFor
	refuses  error                               // what becomes of a change by hand
}

// A snapshot is what was said and shown at a moment.
type snapshot struct {
	at      time.Time
	reports []presence.Report
	state   presence.State
}

func newWorld(people ...presence.Person) *world {
	w := &world{
		policy: presence.DefaultPolicy(), people: people, reports: map[presence.ID][]presence.Report{},
		states: map[presence.ID]presence.State{}, rules: map[presence.ID]presence.Access{}, then: map[presence.ID][]snapshot{}, watchers: map[chan struct{}]*[]presence.State{},
	}
	slices.SortFunc(w.people, func(a, b presence.Person) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range people {
		w.states[p.ID] = presence.State{Person: p.ID, Class: presence.Unknown.Class()}
	}
	return w
}

func person(id presence.ID, name, tel string, groups ...string) presence.Person {
	return presence.Person{ID: id, Name: name, Groups: groups, Subjects: []presence.Subject{
		{Scheme: "tel", Value: tel}, {Scheme: "mail", Value: strings.ToLower(strings.ReplaceAll(name, " ", ".")) + "@example.com"},
	}}
}

// says states what a source knows of a person, instead of what it said before.
func (w *world) says(id presence.ID, source string, spans ...presence.Span) {
	now := time.Now()
	r := presence.Report{Source: source, Subject: presence.Subject{Scheme: "id", Value: string(id)}, At: now, Spans: spans}
	w.mu.Lock()
	w.reports[id] = append(slices.DeleteFunc(w.reports[id], func(o presence.Report) bool { return o.Source == source }), r)
	s, _ := w.policy.Decide(id, w.reports[id], now)
	old := w.states[id]
	s.Since, s.Revision = now, old.Revision+1
	if old.Availability == s.Availability && old.Activity == s.Activity && !old.Since.IsZero() {
		s.Since = old.Since
	}
	w.mu.Unlock()
	w.set(s)
}

// set gives a state to the desk and to every watcher.
func (w *world) set(s presence.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Why.Rule == presence.RuleRemoved {
		delete(w.states, s.Person)
		w.people = slices.DeleteFunc(slices.Clone(w.people), func(p presence.Person) bool { return p.ID == s.Person })
	} else {
		w.states[s.Person] = s
		w.then[s.Person] = append(w.then[s.Person], snapshot{time.Now(), slices.Clone(w.reports[s.Person]), s})
	}
	for wake, unseen := range w.watchers {
		*unseen = append(*unseen, s)
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// rule says what everybody may see of a person; the state comes again, as by the hub.
func (w *world) rule(id presence.ID, a presence.Access) {
	w.mu.Lock()
	w.rules[id] = a
	s := w.states[id]
	w.mu.Unlock()
	w.set(s)
}

func (w *world) Admit(v presence.Watcher, of presence.ID) presence.Access {
	w.mu.Lock()
	w.watches = append(w.watches, v.Subject.String()+" "+string(of))
	w.mu.Unlock()
	return w.Access(v, of)
}

func (w *world) Dismiss(v presence.Watcher, of presence.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := v.Subject.String() + " " + string(of)
	w.watches = slices.DeleteFunc(w.watches, func(s string) bool { return s == one })
}

// watched gives who watches whom, each once.
func (w *world) watched() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(w.watches))), ", ")
}

func (w *world) note(n signin.Note) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trail = append(w.trail, n.Who+" "+n.What+" "+n.Whom+" "+n.Detail)
	return nil
}

func (w *world) Access(v presence.Watcher, of presence.ID) presence.Access {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a, ok := w.rules[of]; ok || v.Via != "web" {
		return a
	}
	return presence.Everyone()
}

func (w *world) History(_ context.Context, id presence.ID, since, until time.Time, as presence.Access, most int) ([]Change, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Change
	for _, t := range w.then[id] {
		s := presence.View(t.state, as)
		if !t.at.Before(since) && !t.at.After(until) {
			out = append(out, Change{t.at, s.Availability, s.Activity, s.Overlays.Names(), s.Why.Rule, s.Why.Title, s.Why.Source})
		}
	}
	return out[max(0, len(out)-most):], w.pastErr
}

func (w *world) Day(ctx context.Context, id presence.ID, since, now, until time.Time, as presence.Access, most int) (Day, error) {
	changes, err := w.History(ctx, id, since, now, as, most)
	w.mu.Lock()
	defer w.mu.Unlock()
	var past journal.Past
	var entries []journal.Entry
	for _, t := range w.then[id] {
		for _, r := range t.reports {
			if !r.At.After(now) {
				entries = append(entries, journal.Entry{At: r.At, Kind: journal.Said, Person: id, Report: &r})
			}
		}
	}
	slices.SortStableFunc(entries, func(a, b journal.Entry) int { return a.At.Compare(b.At) })
	for _, e := range entries {
		past.Apply(e)
	}
	return Day{changes, journal.Sayings(entries, since, until), past.Ahead(id, w.policy, now, until)}, err
}

func (w *world) ExplainAt(_ context.Context, id presence.ID, at time.Time) (presence.Explanation, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range slices.Backward(w.then[id]) {
		if !t.at.After(at) {
			e := w.policy.Explain(id, t.reports, at)
			if t.state.Availability != e.State.Availability {
				e.WasShown = &t.state
			}
			return e, w.pastErr
		}
	}
	return presence.Explanation{}, fmt.Errorf("%w about %s", ErrNotRemembered, id)
}

// again gives the states of those whose rules changed once more, as the hub does.
func (w *world) again(people ...presence.ID) {
	for _, s := range w.States() {
		if len(people) == 0 || slices.Contains(people, s.Person) {
			w.set(s)
		}
	}
}

// Append and Read make a world the log of an audit.Trail.
func (w *world) Append(_ context.Context, _ string, line []byte) error {
	var l audit.Line
	if err := json.Unmarshal(line, &l); err != nil {
		return err
	}
	return w.note(signin.Note{Who: l.Who, From: l.From, What: l.What, Whom: l.Whom, Detail: l.Detail})
}

func (w *world) Read(context.Context, string) iter.Seq2[[]byte, error] {
	return func(func([]byte, error) bool) {}
}

// told gives the audit trail.
func (w *world) told() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.trail, "\n")
}

// Set and Clear make a world a Manual.
func (w *world) Set(_ context.Context, by audit.Actor, id presence.ID, fact presence.Fact, until time.Time) (presence.Report, error) {
	if w.refuses != nil {
		return presence.Report{}, w.refuses
	}
	one := presence.Span{Fact: fact, From: time.Now(), Until: until}
	w.says(id, aggregator.SourceManual, one)
	return presence.Report{Spans: []presence.Span{one}}, w.note(signin.Note{Who: by.Who, From: by.From, What: "presence set", Whom: string(id), Detail: fact.String()})
}

func (w *world) Clear(_ context.Context, by audit.Actor, id presence.ID) error {
	if w.refuses != nil {
		return w.refuses
	}
	w.says(id, aggregator.SourceManual)
	return w.note(signin.Note{Who: by.Who, From: by.From, What: "presence clear", Whom: string(id)})
}

func (w *world) join(p presence.Person) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.people = append(slices.Clone(w.people), p)
	slices.SortFunc(w.people, func(a, b presence.Person) int { return strings.Compare(a.Name, b.Name) })
}

func (w *world) Person(subject presence.Subject) (presence.Person, bool) {
	for _, p := range w.People() {
		if subject == (presence.Subject{Scheme: "id", Value: string(p.ID)}) || slices.Contains(p.Subjects, subject) {
			return p, true
		}
	}
	return presence.Person{}, false
}

func (w *world) People() []presence.Person {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.people)
}

func (w *world) States() []presence.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []presence.State
	for _, s := range w.states {
		out = append(out, s)
	}
	return out
}

func (w *world) Explain(id presence.ID, at time.Time) (presence.Explanation, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.states[id]; !ok {
		return presence.Explanation{}, false
	}
	if at.IsZero() {
		at = time.Now()
	}
	e := w.policy.Explain(id, w.reports[id], at)
	if h := w.heldBack[id]; h != nil {
		e.State, e.HeldBack = w.states[id], h
	}
	return e, true
}

func (w *world) Health() []aggregator.Health {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.health)
}

func (w *world) Watch(ctx context.Context, _ ...presence.ID) iter.Seq[presence.State] {
	return func(yield func(presence.State) bool) {
		wake := make(chan struct{}, 1)
		unseen := new([]presence.State)
		w.mu.Lock()
		for _, s := range w.states {
			*unseen = append(*unseen, s)
		}
		w.watchers[wake] = unseen
		w.mu.Unlock()
		wake <- struct{}{}
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.watchers, wake)
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-wake:
			}
			w.mu.Lock()
			batch := *unseen
			*unseen = nil
			w.mu.Unlock()
			for _, s := range batch {
				if !yield(s) {
					return
				}
			}
		}
	}
}

func (w *world) Report(context.Context, presence.Report) error { return nil }
func span(f presence.Fact, from time.Time, contact string) presence.Span {
	return presence.Span{Fact: f, From: from, Contact: contact}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve runs a Site on a port of its own until the test ends.
func serve(t *testing.T, w *world) *Site {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	s := New(cfg, w, w, Parts{Past: w}, nil, quiet())
	s.zone = time.UTC
	runSite(t, s, w)
	return s
}

func runSite(t *testing.T, s *Site, w *world) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, w) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled { //nolint:errorlint // exactly this one
			t.Errorf("Run = %v, want context.Canceled", err)
		}
	})
	waitFor(t, "the site to listen", func() bool { return s.Addr() != nil })
}

// waitFor polls a condition that another goroutine is about to make true.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
