package services_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/aggregator/store"
	"presenced/internal/config"
)

func TestMain(m *testing.M) {
	// As in cmd/presenced: nats-server may leave this behind at its end.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"))
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// trail remembers the deeds, and can be told to refuse.
type trail struct {
	deeds  []services.Deed
	refuse error
}

func (a *trail) audit(_ context.Context, d services.Deed, do func() error) error {
	if a.refuse != nil {
		return a.refuse
	}
	a.deeds = append(a.deeds, d)
	return do()
}

// bucket opens the embedded store in a folder; close ends it.
func bucket(t *testing.T, folder string) (*store.Bucket, func()) {
	t.Helper()
	s, err := store.Start(t.Context(), store.Config{Directory: folder, Replicas: 1, MaxBytes: 64 << 20}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Bucket(t.Context(), "services")
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() { s.Close() })
	t.Cleanup(end)
	return b, end
}

func catalog(t *testing.T, memory services.Memory, audit services.Audit) *services.Catalog {
	t.Helper()
	fixed, err := services.Set(nil, []string{"id=lab", "primary.host=lab.example.com", "entity={sip}"})
	if err != nil {
		t.Fatal(err)
	}
	return services.NewCatalog(services.Terms{
		Memory: memory, Audit: audit, People: func() []presence.Person { return town(12) }, Log: quiet(),
		Fixed: []services.Service{fixed}, File: "/etc/presenced.yaml", Taken: map[string]string{"aes-hq": "a source"},
		Fit: func(s services.Service) []config.Problem {
			if s.Entity == "{misfit}" {
				return []config.Problem{config.Wrong("entity", "does not fit")}
			}
			return nil
		},
	})
}

func order(edits ...services.Edit) services.Order {
	return services.Order{Edits: edits, Who: "uid 7", From: "test"}
}

// The life of a service in the embedded store, over a restart.
func TestCatalog(t *testing.T) {
	folder := t.TempDir()
	kept, end := bucket(t, folder)
	a := &trail{}
	c := catalog(t, kept, a.audit)
	s := parsed(t, hq)
	s.Users = []string{"group:g1", "p2"}
	add := services.Edit{ID: "hq", Service: &s}
	if _, err := c.Apply(t.Context(), order(add)); !errors.Is(err, services.ErrNotKept) {
		t.Errorf("before it is loaded: %v", err)
	}
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	dry := order(add)
	dry.DryRun = true
	if out, err := c.Apply(t.Context(), dry); err != nil || out[0].What != services.Add || len(out[0].Change.Added) != 4 || len(a.deeds) != 0 {
		t.Errorf("%+v %v", out, err)
	}
	out, err := c.Apply(t.Context(), order(add))
	if err != nil || out[0].Revision == 0 {
		t.Fatalf("%+v %v", out, err)
	}
	revision := out[0].Revision
	if _, err := c.Apply(t.Context(), order(add)); !errors.Is(err, services.ErrConflict) || !strings.Contains(err.Error(), "it is there already") {
		t.Errorf("a second time: %v", err)
	}

	fewer := s
	fewer.Users, fewer.MaxRemoved = []string{"p2"}, 100 // it is the share of before that counts
	edit := services.Edit{ID: "hq", Service: &fewer, Revision: revision}
	if _, err := c.Apply(t.Context(), order(edit)); !errors.Is(err, services.ErrExcess) || !strings.Contains(err.Error(), "3 of 4 people would be removed, more than max_removed (20 percent) allows; --force") {
		t.Errorf("too many removed: %v", err)
	}
	dry = order(edit)
	dry.DryRun = true
	would, err := c.Apply(t.Context(), dry)
	if err != nil || would[0].Plan == "" || would[0].Plan == out[0].Plan {
		t.Fatalf("%+v %v", would, err)
	}
	forced := order(edit)
	forced.Force = true
	forced.Edits[0].Plan = out[0].Plan
	if _, err := c.Apply(t.Context(), forced); !errors.Is(err, services.ErrConflict) || !strings.Contains(err.Error(), "look at it again") {
		t.Errorf("another plan was agreed to: %v", err)
	}
	forced.Edits[0].Plan = would[0].Plan
	if out, err = c.Apply(t.Context(), forced); err != nil || out[0].Revision <= revision {
		t.Fatalf("%+v %v", out, err)
	}
	if _, err := c.Apply(t.Context(), order(edit)); !errors.Is(err, services.ErrConflict) || !strings.Contains(err.Error(), ", you had ") {
		t.Errorf("an old revision: %v", err)
	}
	revision = out[0].Revision
	edit.Revision = revision
	if out, err := c.Apply(t.Context(), order(edit)); err != nil || out[0].What != services.None || out[0].Revision != revision {
		t.Errorf("the same again: %+v %v", out, err)
	}
	var deeds []string
	for _, d := range a.deeds {
		deeds = append(deeds, d.Who+" "+d.What+" "+d.Service+": "+d.Detail)
	}
	want := []string{
		"uid 7 service add hq: 0 people published before, 4 after: 4 added, 0 removed, 0 changed",
		`uid 7 service edit hq: max_removed "20" -> "100", users 2 -> 1 entries; 4 people published before, 1 after: 0 added, 3 removed, 0 changed`,
	}
	if d := cmp.Diff(want, deeds); d != "" {
		t.Error(d)
	}

	end()
	kept, _ = bucket(t, folder)
	c = catalog(t, kept, a.audit)
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := c.List()
	if err != nil || len(all) != 2 || all[0].Revision != revision || all[1].Revision != 0 {
		t.Fatalf("%+v %v", all, err)
	}
	if d := cmp.Diff(fewer, all[0].Service); d != "" {
		t.Error(d)
	}
	remove := services.Edit{ID: "hq", Revision: revision}
	if _, err := c.Apply(t.Context(), order(remove)); err != nil { // max_removed is 100
		t.Error(err)
	}
	if _, err := c.Apply(t.Context(), order(remove)); !errors.Is(err, services.ErrNone) {
		t.Errorf("deleted twice: %v", err)
	}
	if out, err := c.Apply(t.Context(), order(add)); err != nil || out[0].Revision <= revision {
		t.Errorf("added again: %+v %v", out, err)
	}
}

// What was agreed to is not done to other people than those who were shown.
func TestAgreedToOtherPeople(t *testing.T) {
	kept, _ := bucket(t, t.TempDir())
	people := town(12)
	c := services.NewCatalog(services.Terms{Memory: kept, Audit: (&trail{}).audit, People: func() []presence.Person { return people }, Log: quiet()})
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := parsed(t, hq)
	s.Users = []string{"group:g1"}
	dry := order(services.Edit{ID: "hq", Service: &s})
	dry.DryRun = true
	would, err := c.Apply(t.Context(), dry)
	if err != nil {
		t.Fatal(err)
	}
	agreed := order(services.Edit{ID: "hq", Service: &s, Plan: would[0].Plan})
	people = town(6) // the directory is another one now
	if _, err := c.Apply(t.Context(), agreed); !errors.Is(err, services.ErrConflict) || !strings.Contains(err.Error(), "look at it again") {
		t.Errorf("with another directory: %v", err)
	}
	people = town(12)
	if out, err := c.Apply(t.Context(), agreed); err != nil || out[0].Revision == 0 {
		t.Errorf("%+v %v", out, err)
	}
}

// One wrong edit, and none is made.
func TestAllOrNothing(t *testing.T) {
	kept, _ := bucket(t, t.TempDir())
	a := &trail{}
	c := catalog(t, kept, a.audit)
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	make := func(id string, changes ...string) services.Edit {
		s, _ := services.Set(nil, append([]string{"id=" + id, "primary.host=a.example.com", "entity={sip}"}, changes...))
		return services.Edit{ID: id, Service: &s}
	}
	good := make("good")
	var unfit *services.Unfit
	if _, err := c.Apply(t.Context(), order(make("bad", "rate=-1", "body=x"))); !errors.As(err, &unfit) || unfit.ID != "bad" || len(unfit.Problems) != 2 {
		t.Errorf("%v", err)
	}
	renamed := make("other")
	renamed.ID = "good2"
	for _, c2 := range []struct {
		name string
		edit services.Edit
		is   error
		want string
	}{
		{"fixed", make("lab"), services.ErrFixed, "lab stands in the configuration, in /etc/presenced.yaml: edit it there"},
		{"taken", make("aes-hq"), services.ErrUnfit, `"aes-hq" is the name of a source`},
		{"misfit", make("bad", "entity={misfit}"), services.ErrUnfit, "entity: does not fit"},
		{"wrong", make("bad", "rate=-1"), services.ErrUnfit, "rate: -1 is not between"},
		{"renamed", renamed, services.ErrUnfit, "cannot be changed"},
		{"twice", good, services.ErrUnfit, "edited twice"},
		{"unknown", services.Edit{ID: "x", Revision: 4}, services.ErrNone, "service list"},
		{"edit of none", services.Edit{ID: "x", Service: make("x").Service, Revision: 4}, services.ErrNone, "service list"},
	} {
		if _, err := c.Apply(t.Context(), order(good, c2.edit)); !errors.Is(err, c2.is) || !strings.Contains(err.Error(), c2.want) {
			t.Errorf("%s: %v", c2.name, err)
		}
	}
	a.refuse = errors.New("no trail")
	if _, err := c.Apply(t.Context(), order(good)); !errors.Is(err, a.refuse) {
		t.Errorf("without an audit trail: %v", err)
	}
	if all, err := c.List(); err != nil || len(all) != 1 || len(a.deeds) != 0 {
		t.Errorf("%d services, %d deeds, %v", len(all), len(a.deeds), err)
	}
}

// Of editors that had the same revision, exactly one wins; the others are told.
func TestOneEditorWins(t *testing.T) {
	kept, _ := bucket(t, t.TempDir())
	var log sync.Mutex
	c := catalog(t, kept, func(_ context.Context, _ services.Deed, do func() error) error {
		log.Lock()
		defer log.Unlock()
		return do()
	})
	other := catalog(t, kept, func(_ context.Context, _ services.Deed, do func() error) error { return do() }) // as of another process
	s, _ := services.Set(nil, []string{"id=hq", "primary.host=a.example.com", "entity={sip}"})
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := c.Apply(t.Context(), order(services.Edit{ID: "hq", Service: &s}))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for round := range 10 {
		revision := out[0].Revision
		results := make(chan error, 8)
		outs := make(chan []services.Outcome, 8)
		for i := range 8 {
			go func() {
				mine := s
				mine.Rate = 100 + 10*round + i
				at := c
				if i%2 > 0 {
					at = other
				}
				o, err := at.Apply(t.Context(), order(services.Edit{ID: "hq", Service: &mine, Revision: revision}))
				if err == nil {
					outs <- o
				}
				results <- err
			}()
		}
		won := 0
		for range 8 {
			if err := <-results; err == nil {
				won++
			} else if !errors.Is(err, services.ErrConflict) {
				t.Error(err)
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d editors won", round, won)
		}
		out = <-outs
		for _, at := range []*services.Catalog{c, other} {
			if err := at.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r, err := at.Find("hq"); err != nil || r.Revision != out[0].Revision {
				t.Fatalf("%+v %v", r, err)
			}
		}
	}
}

// lossy is a memory whose answers get lost.
type lossy struct {
	services.Memory
	write, answer, load bool // are lost
}

var errLost = errors.New("connection lost")

func (m *lossy) Load(ctx context.Context) (map[string][]byte, error) {
	if m.load {
		return nil, errLost
	}
	return m.Memory.Load(ctx)
}

func (m *lossy) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	if m.write {
		return 0, errLost
	}
	r, err := m.Memory.Create(ctx, key, value)
	if m.answer {
		return 0, errLost
	}
	return r, err
}

func (m *lossy) Delete(ctx context.Context, key string) error {
	if m.write {
		return errLost
	}
	err := m.Memory.Delete(ctx, key)
	if m.answer {
		return errLost
	}
	return err
}

// What a write came to is found out where the store gave no answer.
func TestLostAnswers(t *testing.T) {
	kept, _ := bucket(t, t.TempDir())
	m := &lossy{Memory: kept}
	a := &trail{}
	c := catalog(t, m, a.audit)
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, _ := services.Set(nil, []string{"id=hq", "primary.host=a.example.com", "entity={sip}"})
	add := order(services.Edit{ID: "hq", Service: &s})
	m.write = true
	if _, err := c.Apply(t.Context(), add); !errors.Is(err, services.ErrNotKept) || !strings.Contains(err.Error(), "nothing has changed: connection lost") {
		t.Errorf("nothing arrived: %v", err)
	}
	if got := c.Status(); got.Phase != presence.PhaseDegraded || got.LastError != "connection lost" {
		t.Errorf("%+v", got)
	}
	m.write, m.answer = false, true
	out, err := c.Apply(t.Context(), add)
	if err != nil || out[0].Revision == 0 {
		t.Errorf("only the answer was lost: %+v %v", out, err)
	}
	m.load = true
	remove := order(services.Edit{ID: "hq", Revision: out[0].Revision})
	if _, err := c.Apply(t.Context(), remove); !errors.Is(err, services.ErrNotKept) || !strings.Contains(err.Error(), "not certain") {
		t.Errorf("nobody knows: %v", err)
	}
	if _, err := c.Apply(t.Context(), remove); !errors.Is(err, services.ErrNotKept) {
		t.Errorf("while nobody knows: %v", err)
	}
	m.load, m.answer = false, false
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }() // reads again at once
	for all := range c.Watch(ctx) {
		if len(all) != 0 {
			t.Errorf("it was deleted: %+v", all)
		}
		break
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := c.Status(); got.Phase != presence.PhaseLive {
		t.Errorf("%+v", got)
	}
}

// What is stored and cannot be used is left aside, named, and can be deleted.
func TestUnusable(t *testing.T) {
	kept, _ := bucket(t, t.TempDir())
	good, _ := services.Set(nil, []string{"id=good", "primary.host=a.example.com", "entity={sip}"})
	for id, text := range map[string]string{"bad": "id: bad\ncolour: red\n", "lost": string(services.Format(good)), "good": string(services.Format(good))} {
		if _, err := kept.Create(t.Context(), id, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	a := &trail{}
	c := catalog(t, kept, a.audit)
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := c.Status(); s.Phase != presence.PhaseDegraded || !strings.Contains(s.Detail, "2 stored presence services cannot be used, such as bad: ") {
		t.Errorf("%+v", s)
	}
	for all := range c.Watch(t.Context()) {
		if len(all) != 1 || all[0].ID != "good" {
			t.Errorf("%+v", all)
		}
		break
	}
	bad := good
	bad.ID = "bad"
	if _, err := c.Apply(t.Context(), order(services.Edit{ID: "bad", Service: &bad})); !errors.Is(err, services.ErrUnfit) || !strings.Contains(err.Error(), "delete it first") {
		t.Errorf("added over it: %v", err)
	}
	if _, err := c.Apply(t.Context(), order(services.Edit{ID: "bad"}, services.Edit{ID: "lost"})); err != nil {
		t.Error(err)
	}
	if s := c.Status(); s.Phase != presence.PhaseLive {
		t.Errorf("%+v", s)
	}
}
