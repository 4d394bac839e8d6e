package aggregator_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// away is a memory that can be lost.
type away struct {
	mu     sync.Mutex
	lost   bool
	values map[string][]byte
}

func (a *away) do(f func()) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost {
		return errors.New("away")
	}
	f()
	return nil
}

func (a *away) set(lost bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost = lost
}

// Each implements aggregator.Archive.
func (a *away) Each(_ context.Context, f func(string, []byte) error) error {
	var all map[string][]byte
	if err := a.do(func() { all = maps.Clone(a.values) }); err != nil {
		return err
	}
	return each(all, f)
}

func each(all map[string][]byte, f func(string, []byte) error) error {
	for key, value := range all {
		if err := f(key, value); err != nil {
			return err
		}
	}
	return nil
}

// Put implements aggregator.Archive.
func (a *away) Put(_ context.Context, key string, value []byte) error {
	return a.do(func() { a.values[key] = value })
}

// Delete implements aggregator.Archive.
func (a *away) Delete(_ context.Context, key string) error {
	return a.do(func() { delete(a.values, key) })
}

// Err tells health what is wrong.
func (a *away) Err() error { return a.do(func() {}) }

// A store that is away at the start is read later: what it kept counts where no
// source has spoken since, and never against what one said.
func TestReviveLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports, states := &away{values: map[string][]byte{}}, &away{values: map[string][]byte{}}
		before := aggregator.NewRecorder(reports, states, quiet)
		h := aggregator.NewHub(presence.DefaultPolicy(), before, quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		for i := range 2 {
			r := about(extension(i), presence.PhoneConnected)
			r.At = r.At.Add(time.Hour) // by a clock that is set back before the restart
			if err := h.Report(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if err := before.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}

		reports.set(true)
		states.set(true)
		time.Sleep(time.Second) // virtual
		after := aggregator.NewRecorder(reports, states, quiet)
		h = aggregator.NewHub(presence.DefaultPolicy(), after, quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		if _, err := h.Restore(t.Context(), time.Now()); err == nil {
			t.Fatal("a store that is away was read")
		}
		if s := after.Status(); s.Phase != presence.PhaseDegraded || s.LastError == "" {
			t.Errorf("health is %+v while the store is away", s)
		}
		run(t, func(ctx context.Context) error { return after.Revive(ctx, h) })
		if err := h.Report(t.Context(), about(extension(0), presence.PhoneIdle)); err != nil { // ann hung up meanwhile
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if s, _ := h.State("ben"); s.Availability == presence.Busy {
			t.Error("ben is busy by a store that is away")
		}
		reports.set(false)
		states.set(false)
		time.Sleep(10 * time.Second)
		if s, _ := h.State("ann"); s.Availability != presence.Available {
			t.Errorf("ann is %s by an old report", s.Availability)
		}
		if s, _ := h.State("ben"); s.Availability != presence.Busy || !s.Overlays.Has(presence.OverlayStale) {
			t.Errorf("ben is %s %s, the store said busy, which is in doubt", s.Availability, s.Overlays.Names())
		}
	})
}

// Whoever leaves the directory is deleted from the store, at once or, who left while
// the service was down, at the next start; nobody else loses anything.
func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports, states := &memory{}, &memory{}
		begin := func(who ...presence.ID) (*aggregator.Hub, *aggregator.Recorder) {
			r := aggregator.NewRecorder(reports, states, quiet)
			h := aggregator.NewHub(presence.DefaultPolicy(), r, quiet)
			h.SetDirectory(office(who...), time.Now())
			return h, r
		}
		holds := func(r *aggregator.Recorder, n int) {
			t.Helper()
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(reports.held) != n || len(states.held) != n {
				t.Errorf("%d reports and %d states are kept, not %d", len(reports.held), len(states.held), n)
			}
		}
		h, r := begin("ann", "ben", "cat")
		for i := range 3 {
			if err := h.Report(t.Context(), about(extension(i), presence.PhoneConnected)); err != nil {
				t.Fatal(err)
			}
		}
		holds(r, 3)
		h.SetDirectory(office("ann", "ben"), time.Now())
		holds(r, 2)
		h, r = begin("ann")
		if n, err := h.Restore(t.Context(), time.Now()); n != 1 || err != nil {
			t.Errorf("%d people came back: %v", n, err)
		}
		holds(r, 1)
		if s, _ := h.State("ann"); s.Availability != presence.Busy {
			t.Errorf("ann is %s", s.Availability)
		}
	})
}

// A told memory is read as it was written: every value, one after the other.
type told struct {
	memory
	all []entry
}

type entry struct {
	key   string
	value []byte
}

func (m *told) Put(ctx context.Context, key string, value []byte) error {
	m.all = append(m.all, entry{key, value})
	return m.memory.Put(ctx, key, value)
}

func (m *told) Delete(ctx context.Context, key string) error {
	m.all = append(m.all, entry{key, nil})
	return m.memory.Delete(ctx, key)
}

func (m *told) Each(_ context.Context, f func(string, []byte) error) error {
	for _, e := range m.all {
		if err := f(e.key, e.value); err != nil {
			return err
		}
	}
	return nil
}

// What was replaced or deleted in an archive does not come back with the rest.
func TestRestoreHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports, states := &told{}, &told{}
		r := aggregator.NewRecorder(reports, states, quiet)
		h := aggregator.NewHub(presence.DefaultPolicy(), r, quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		for _, fact := range []presence.Fact{presence.PhoneIdle, presence.PhoneConnected} {
			for i := range 2 {
				if err := h.Report(t.Context(), about(extension(i), fact)); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // virtual
		}
		h.SetDirectory(office("ann"), time.Now())
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		r = aggregator.NewRecorder(reports, states, quiet)
		h = aggregator.NewHub(presence.DefaultPolicy(), r, quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		if n, err := h.Restore(t.Context(), time.Now()); n != 1 || err != nil {
			t.Errorf("%d people came back: %v", n, err)
		}
		ann, _ := h.Explain("ann", time.Time{})
		if ben, _ := h.State("ben"); ann.State.Availability != presence.Busy || len(ann.Sources) != 1 || ben.Availability != presence.Unknown {
			t.Errorf("ann is %s by %d reports, ben is %s", ann.State.Availability, len(ann.Sources), ben.Availability)
		}
	})
}

// What is set by hand has a bucket of its own, where it may be cleared by now: among the
// reports it does not count.
func TestRestoreLeavesManualAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports, states := &memory{}, &memory{}
		r := aggregator.NewRecorder(reports, states, quiet)
		h := aggregator.NewHub(presence.DefaultPolicy(), r, quiet)
		h.SetDirectory(office("ann"), time.Now())
		if err := h.Report(t.Context(), about(extension(0), presence.PhoneIdle)); err != nil {
			t.Fatal(err)
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for key, value := range maps.Clone(reports.held) {
			owner, _, _ := strings.Cut(key, ".")
			if err := reports.Put(t.Context(), owner+".X", []byte(strings.NewReplacer(`"aes"`, `"manual"`, `"phone-idle"`, `"manual-dnd"`).Replace(string(value)))); err != nil {
				t.Fatal(err)
			}
		}
		h = aggregator.NewHub(presence.DefaultPolicy(), aggregator.NewRecorder(reports, states, quiet), quiet)
		h.SetDirectory(office("ann"), time.Now())
		if _, err := h.Restore(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if e, _ := h.Explain("ann", time.Time{}); len(reports.held) != 2 || len(e.Sources) != 1 || e.State.Availability != presence.Available {
			t.Errorf("of %d reports came back %+v, ann is %s", len(reports.held), e.Sources, e.State.Availability)
		}
	})
}

// A prompt memory takes nothing of who has gone.
type prompt struct{ *memory }

// Put implements aggregator.Archive.
func (m prompt) Put(ctx context.Context, key string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.memory.Put(ctx, key, value)
}

// What was said last is written when the service stops.
func TestRecorderWritesTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := prompt{&memory{}}
		r := aggregator.NewRecorder(reports, prompt{&memory{}}, quiet)
		h := aggregator.NewHub(presence.DefaultPolicy(), r, quiet)
		h.SetDirectory(office("ann"), time.Now())
		stopped, cancel := context.WithCancel(t.Context())
		cancel()
		if err := h.Report(t.Context(), about(extension(0), presence.PhoneConnected)); err != nil {
			t.Fatal(err)
		}
		if err := r.Run(stopped); err != nil || len(reports.held) != 1 {
			t.Errorf("%d reports are kept, %v", len(reports.held), err)
		}
	})
}

// A report that cannot be read is left out; what else is kept of the person comes back.
func TestRestoreAroundDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports, states := &memory{}, &memory{}
		r := aggregator.NewRecorder(reports, states, quiet)
		h := aggregator.NewHub(presence.DefaultPolicy(), r, quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		for i := range 2 {
			if err := h.Report(t.Context(), about(extension(i), presence.PhoneConnected)); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for key := range maps.Clone(reports.held) {
			owner, _, _ := strings.Cut(key, ".")
			if err := errors.Join(reports.Put(t.Context(), owner+".0", []byte(`{"source":`)), states.Put(t.Context(), owner, []byte("]"))); err != nil {
				t.Fatal(err)
			}
		}
		h = aggregator.NewHub(presence.DefaultPolicy(), aggregator.NewRecorder(reports, states, quiet), quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		if n, err := h.Restore(t.Context(), time.Now()); n != 2 || err != nil {
			t.Errorf("%d people came back: %v", n, err)
		}
		for _, id := range []presence.ID{"ann", "ben"} {
			if s, _ := h.State(id); s.Availability != presence.Busy {
				t.Errorf("%s is %s", id, s.Availability)
			}
		}
	})
}
