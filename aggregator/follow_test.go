package aggregator_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/lease"
	"presenced/aggregator/presence"
)

// A common is a bucket that several machines write to and watch.
type common struct {
	memory

	revision uint64
	watchers []func(key string, value []byte, revision uint64)
	writing  sync.Mutex
}

func newCommon() *common { return &common{memory: memory{held: map[string][]byte{}}} }

func (c *common) Put(ctx context.Context, key string, value []byte) error {
	_, err := c.Change(ctx, key, func([]byte) []byte { return value })
	return err
}

func (c *common) Delete(ctx context.Context, key string) error {
	_, err := c.Change(ctx, key, func([]byte) []byte { return nil })
	return err
}

func (c *common) Change(ctx context.Context, key string, f func([]byte) []byte) (uint64, error) {
	c.writing.Lock()
	all, err := c.Load(ctx)
	if err != nil {
		c.writing.Unlock()
		return 0, err
	}
	value := f(all[key])
	switch {
	case bytes.Equal(value, all[key]):
	case value == nil:
		err = c.memory.Delete(ctx, key)
		c.revision++
	default:
		err = c.memory.Put(ctx, key, value)
		c.revision++
	}
	revision, watchers := c.revision, c.watchers
	c.writing.Unlock()
	if err == nil {
		for _, f := range watchers {
			go f(key, value, revision) // later than the writer goes on
		}
	}
	return revision, err
}

func (c *common) Watch(ctx context.Context, f func(string, []byte, uint64)) {
	type change struct {
		key      string
		value    []byte
		revision uint64
	}
	changes := make(chan change, 100)
	c.writing.Lock()
	all, _ := c.Load(ctx)
	c.watchers = append(c.watchers, func(key string, value []byte, revision uint64) {
		if ctx.Err() == nil {
			changes <- change{key, value, revision}
		}
	})
	c.writing.Unlock()
	for key, value := range all {
		f(key, value, 1)
	}
	f("", nil, 0)
	for {
		select {
		case <-ctx.Done():
			return
		case it := <-changes:
			f(it.key, it.value, it.revision)
		}
	}
}

// turns is who runs what, as a test says.
type turns struct {
	machine string

	mu      sync.Mutex
	asked   []string
	all     map[string]lease.Holding
	mine    map[string]bool
	changed chan struct{}
}

func (j *turns) Hold(ctx context.Context, job string, run func(context.Context) error) error {
	j.note("hold " + job)
	return run(ctx)
}

func (j *turns) note(what string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.asked = append(j.asked, what)
}

func (j *turns) Join(ctx context.Context, job string, run func(context.Context) error) error {
	j.note("join " + job)
	return run(ctx)
}

func (j *turns) Machine() string { return j.machine }

func (j *turns) Holdings() (map[string]lease.Holding, map[string]bool, bool, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all, j.mine, true, j.changed
}

// set has a machine run the source aes from now on; empty: none does.
func (j *turns) set(node string, mine bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all, j.mine = map[string]lease.Holding{}, map[string]bool{}
	if node != "" {
		j.all["aes"] = lease.Holding{Node: node, ID: node, Since: time.Now()}
		j.mine["aes"] = mine
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

// give is set for what another machine has run for a while already.
func (j *turns) give(to lease.Holding) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all, j.mine = map[string]lease.Holding{"aes": to}, map[string]bool{}
	close(j.changed)
	j.changed = make(chan struct{})
}

// sees has this machine see these others, and no more.
func (j *turns) sees(others ...lease.Holding) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all, j.mine = map[string]lease.Holding{j.machine: {}}, map[string]bool{j.machine: true}
	for _, o := range others {
		j.all[lease.Machine(o.Node)] = o
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

// A machine that runs no source knows what those of another machine say, from the
// reports that its recorder keeps; it doubts them when the source ends there, and
// writes nothing of it itself.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := newCommon()
		machine := func() (*aggregator.Hub, *aggregator.Recorder) {
			r := aggregator.NewRecorder(reports, &memory{held: map[string][]byte{}}, quiet)
			h := aggregator.NewHub(presence.DefaultPolicy(), r, quiet)
			h.SetDirectory(office("ann", "ben"), time.Now())
			run(t, h.Run)
			run(t, r.Run)
			return h, r
		}
		one, _ := machine()
		two, _ := machine()
		jobs := &turns{changed: make(chan struct{})}
		jobs.set("one", false)
		follow := func(h *aggregator.Hub) (stop func()) {
			return run(t, aggregator.NewFollower(h, jobs, reports, quiet).Run)
		}
		follow(two)
		synctest.Wait()
		is := func(h *aggregator.Hub, id presence.ID, want presence.Availability, doubted bool) {
			t.Helper()
			synctest.Wait()
			if s, _ := h.State(id); s.Availability != want || s.Overlays.Has(presence.OverlayStale) != doubted {
				t.Errorf("%s is %s, %s; want %s, doubted %v", id, s.Availability, s.Overlays.Names(), want, doubted)
			}
		}
		said := func(r presence.Report) {
			t.Helper()
			if err := one.Report(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		said(about(extension(0), presence.PhoneConnected))
		is(two, "ann", presence.Busy, false)
		written := reports.revision
		synctest.Wait()
		if reports.revision != written || written != 1 {
			t.Errorf("%d writes of one report", reports.revision)
		}

		// Who comes up meanwhile has kept it, and learns that it still counts.
		three, r := machine()
		if _, err := three.Restore(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		_ = r
		is(three, "ann", presence.Busy, true)
		follow(three)
		is(three, "ann", presence.Busy, false)

		// The source ends there: it is doubted, and ends after its grace.
		time.Sleep(time.Second)
		jobs.set("", false)
		is(two, "ann", presence.Busy, true)
		time.Sleep(time.Minute)
		is(two, "ann", presence.Unavailable, false)

		// Another machine begins. What it says counts, even if that arrives before it is known who runs it.
		said(about(extension(1), presence.PhoneConnected))
		is(two, "ben", presence.Busy, true)
		jobs.set("one", false)
		said(about(extension(0), presence.PhoneIdle))
		is(two, "ann", presence.Available, false)
		time.Sleep(time.Second)
		jobs.set("three", false)
		is(two, "ann", presence.Available, true)
		said(about(extension(0), presence.PhoneConnected))
		is(two, "ann", presence.Busy, false)

		// What this machine says itself is not lost with the other one.
		time.Sleep(time.Second)
		jobs.set("two", true)
		if err := two.Report(t.Context(), about(extension(0), presence.PhoneConnected)); err != nil {
			t.Fatal(err)
		}
		is(two, "ann", presence.Busy, false)
		time.Sleep(time.Second)
		jobs.set("one", false)
		synctest.Wait()

		// What the next one says counts, even if that arrives before it is known that this one has ended.
		four, _ := machine()
		late := &turns{changed: make(chan struct{})}
		late.set("four", true)
		run(t, aggregator.NewFollower(four, late, reports, quiet).Run)
		synctest.Wait()
		since := time.Now()
		said(about(extension(0), presence.PhoneConnected))
		is(four, "ann", presence.Unknown, false)
		late.give(lease.Holding{Node: "one", ID: "one", Since: since})
		is(four, "ann", presence.Busy, false)

		// Who leaves the directory of the machine that keeps the reports is forgotten.
		said(about(extension(1), presence.PhoneConnected))
		is(two, "ben", presence.Busy, false)
		one.SetDirectory(office("ann"), time.Now())
		is(two, "ben", presence.Unknown, false)
	})
}

// What is set by hand at one machine counts at all; of two changes the later one does.
func TestManualElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := newCommon()
		machine := func(hears bool) (*aggregator.Hub, *aggregator.Manual) {
			h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
			h.SetDirectory(office("ann"), time.Now())
			m := aggregator.NewManual(h, kept, quiet)
			m.Share(kept)
			if _, err := m.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			run(t, h.Run)
			run(t, m.Run)
			if hears {
				run(t, m.Hear)
			}
			synctest.Wait()
			return h, m
		}
		h1, one := machine(true)
		h2, two := machine(true)
		set := func(m *aggregator.Manual, f presence.Fact) {
			t.Helper()
			if _, err := m.Set(t.Context(), "ann", f, time.Time{}, "test"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		is := func(want presence.Availability, hubs ...*aggregator.Hub) {
			t.Helper()
			for i, h := range hubs {
				if s, _ := h.State("ann"); s.Availability != want {
					t.Errorf("machine %d: %s, want %s", i+1, s.Availability, want)
				}
			}
		}
		set(one, presence.ManualDND)
		is(presence.DoNotDisturb, h1, h2)
		set(two, presence.ManualAway)
		is(presence.Away, h1, h2)
		if err := one.Clear(t.Context(), "ann", "test"); err != nil {
			t.Fatal(err)
		}
		set(one, presence.ManualBusy) // what is heard of the change before must not undo this one
		is(presence.Busy, h1, h2)
		if err := two.Clear(t.Context(), "ann", "test"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		is(presence.Unknown, h1, h2)
		h3, deaf := machine(false)
		is(presence.Unknown, h3)

		// A machine whose clock is behind, and that has not heard of a later change, does not undo it.
		time.Sleep(time.Hour)
		set(one, presence.ManualDND)
		for range 3 { // each is a nanosecond later than the one before
			set(one, presence.ManualDND)
		}
		if _, err := deaf.Set(t.Context(), "ann", presence.ManualAway, time.Time{}, "test"); !errors.Is(err, aggregator.ErrNotKept) {
			t.Errorf("a change of the past: %v", err)
		}
		is(presence.DoNotDisturb, h1, h2)
		time.Sleep(time.Minute) // it is repaired
		is(presence.DoNotDisturb, h3)

		// The mark of what was cleared goes, too.
		if err := one.Clear(t.Context(), "ann", "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(27 * time.Hour)
		if kept.size() != 0 {
			t.Error("the mark stays")
		}
		is(presence.Unknown, h1, h2)
	})
}

// A listener is a bridge whose endpoints publish what the test says.
type listener chan presence.Report

func (listener) Name() string { return "lps" }

func (l listener) Run(ctx context.Context, hub presence.Hub) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-l:
			if err := hub.Report(ctx, r); err != nil {
				return err
			}
		}
	}
}

// What endpoints publish at a machine counts on the others as long as it is there, and
// for its grace when it is not; endpoints of two machines are two.
func TestEndpointsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := newCommon()
		machine := func(name string) (*aggregator.Hub, *turns, listener) {
			r := aggregator.NewRecorder(reports, &memory{held: map[string][]byte{}}, quiet)
			h := aggregator.NewHub(presence.DefaultPolicy(), r, quiet)
			h.SetDirectory(office("ann"), time.Now())
			jobs := &turns{machine: lease.Machine(name), changed: make(chan struct{})}
			jobs.sees()
			v, l := aggregator.NewSupervisor(h, quiet), make(listener)
			v.Share(jobs)
			v.AddBridge(l)
			for _, f := range []func(context.Context) error{h.Run, r.Run, v.Run, aggregator.NewFollower(h, jobs, reports, quiet).Run} {
				run(t, f)
			}
			return h, jobs, l
		}
		one, sees1, at1 := machine("one")
		two, sees2, at2 := machine("two")
		first, second := lease.Holding{Node: "one", ID: "1", Since: time.Now()}, lease.Holding{Node: "two", ID: "2", Since: time.Now()}
		sees1.sees(second)
		const grace = 10 * time.Minute
		publish := func(at listener, facts ...presence.Fact) {
			t.Helper()
			time.Sleep(time.Second)
			r := about(extension(0), facts...)
			r.Source, r.Grace = "lps/1", grace
			at <- r
			synctest.Wait()
		}
		is := func(h *aggregator.Hub, want presence.Availability, doubted bool) {
			t.Helper()
			synctest.Wait()
			if s, _ := h.State("ann"); s.Availability != want || s.Overlays.Has(presence.OverlayStale) != doubted {
				t.Errorf("%s, %s; want %s, doubted %v", s.Availability, s.Overlays.Names(), want, doubted)
			}
		}
		publish(at1, presence.SessionDND)
		is(one, presence.DoNotDisturb, false)
		is(two, presence.DoNotDisturb, true) // it does not see that machine yet
		sees2.sees(first)
		is(two, presence.DoNotDisturb, false)
		time.Sleep(3 * grace) // it is refreshed, which the hub is not told
		is(one, presence.DoNotDisturb, false)
		is(two, presence.DoNotDisturb, false)

		publish(at2, presence.SessionActive) // another endpoint, though that is the first there too
		is(one, presence.DoNotDisturb, false)
		is(two, presence.DoNotDisturb, false)
		publish(at1)
		is(one, presence.Available, false)
		is(two, presence.Available, false)
		publish(at1, presence.SessionDND)

		sees2.sees() // for a while it does not reach the store
		is(two, presence.DoNotDisturb, true)
		is(one, presence.DoNotDisturb, false)
		sees2.sees(first)
		is(two, presence.DoNotDisturb, false)

		// It is started again: what it knew before counts for the grace of that.
		time.Sleep(time.Second)
		sees2.sees(lease.Holding{Node: "one", ID: "3", Since: time.Now()})
		is(two, presence.DoNotDisturb, true)
		time.Sleep(grace)
		is(two, presence.Available, false)
		publish(at1, presence.SessionDND)
		is(two, presence.DoNotDisturb, false)
		sees2.sees() // and for good it is gone
		is(two, presence.DoNotDisturb, true)
		time.Sleep(grace)
		is(two, presence.Available, false)
	})
}
