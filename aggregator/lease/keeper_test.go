package lease_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator/lease"
	"presenced/aggregator/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ttl = 15 * time.Second

var (
	errNotFound = errors.New("no such key")
	errConflict = errors.New("changed meanwhile")
	errDown     = errors.New("no answer")
)

// A bucket forgets what was not written for ttl.
type bucket struct {
	mu       sync.Mutex
	last     uint64
	values   map[string]value
	watchers []func(string, []byte, uint64)
}

type value struct {
	data     []byte
	revision uint64
	at       time.Time
}

// A line is the connection of one machine to the bucket; it can be cut.
type line struct {
	*bucket
	cut bool
}

func (l *line) at(key string) (value, bool, error) {
	if l.cut {
		return value{}, false, errDown
	}
	v, ok := l.values[key]
	return v, ok && time.Since(v.at) < ttl, nil
}

func (l *line) Get(_ context.Context, key string) ([]byte, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok, err := l.at(key)
	if err == nil && !ok {
		err = errNotFound
	}
	return v.data, v.revision, err
}

func (l *line) write(key string, data []byte, last uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok, err := l.at(key)
	if err != nil {
		return 0, err
	}
	if ok != (last != 0) || ok && v.revision != last {
		return 0, errConflict
	}
	l.last++
	l.values[key] = value{data, l.last, time.Now()}
	for _, f := range l.watchers {
		f(key, data, l.last)
	}
	return l.last, nil
}

func (l *line) Create(_ context.Context, key string, data []byte) (uint64, error) {
	return l.write(key, data, 0)
}

func (l *line) Update(_ context.Context, key string, data []byte, last uint64) (uint64, error) {
	return l.write(key, data, last)
}

func (l *line) Remove(_ context.Context, key string, last uint64) error {
	_, err := l.write(key, nil, last)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.values, key)
	}
	return err
}

func (l *line) Watch(ctx context.Context, f func(string, []byte, uint64)) {
	l.mu.Lock()
	for key, v := range l.values {
		f(key, v.data, v.revision)
	}
	f("", nil, 0)
	l.watchers = append(l.watchers, func(key string, data []byte, revision uint64) {
		if !l.cut && ctx.Err() == nil {
			f(key, data, revision)
		}
	})
	l.mu.Unlock()
	<-ctx.Done()
}

// A machine runs jobs; which, stands in runs.
type machine struct {
	*lease.Keeper
	line *line
	work func(do func(ctx context.Context)) // again and again, until stop
	stop func()
	die  func() // without giving anything back

	mu   sync.Mutex
	runs map[string]bool
	errs []error
}

func newMachine(b *bucket, name string, jobs ...string) *machine {
	m := &machine{line: &line{bucket: b}, runs: map[string]bool{}}
	m.Keeper = lease.New(name, ttl, m.line, lease.Errors{NotFound: errNotFound, Conflict: errConflict}, slog.New(slog.DiscardHandler))
	working, rest := context.WithCancel(context.Background())
	keeping, end := context.WithCancel(context.Background())
	var work, keep sync.WaitGroup
	keep.Go(func() { _ = m.Run(keeping) })
	m.work = func(do func(context.Context)) {
		work.Go(func() {
			for working.Err() == nil {
				do(working)
			}
		})
	}
	for _, job := range jobs {
		m.work(func(ctx context.Context) { m.hold(ctx, job, ttl/100) })
	}
	m.stop = sync.OnceFunc(func() { rest(); work.Wait(); end(); keep.Wait() })
	m.die = func() { m.line.mu.Lock(); m.line.cut = true; m.line.mu.Unlock(); m.stop() }
	return m
}

// hold runs a job once, which lasts a while longer than it is to.
func (m *machine) hold(ctx context.Context, job string, lasts time.Duration) {
	err := m.Hold(ctx, job, func(ctx context.Context) error {
		m.set(job, true)
		defer m.set(job, false)
		<-ctx.Done()
		time.Sleep(lasts) // what it published is being removed
		return ctx.Err()
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errs = append(m.errs, err)
}

func (m *machine) set(job string, runs bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs[job] = runs
}

func (m *machine) jobs() (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for job, runs := range m.runs {
		if runs {
			all = append(all, job)
		}
	}
	slices.Sort(all)
	return all
}

func names(n int) (jobs []string) {
	for i := range n {
		jobs = append(jobs, fmt.Sprintf("job%02d", i))
	}
	return jobs
}

// Jobs spread over the machines that are there; those of one that dies go to others
// within the life of a lease and a renewal, those of one that stops at once.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{values: map[string]value{}}
		jobs := names(30)
		// All are there before any job may be taken: none was free before.
		blocker := newMachine(b, "blocker", jobs...)
		time.Sleep(time.Second)
		var all []*machine
		for _, name := range []string{"a", "b", "c"} {
			all = append(all, newMachine(b, name, jobs...))
		}
		time.Sleep(20 * time.Second)
		if got := blocker.jobs(); len(got) != 30 {
			t.Fatalf("who has a job keeps it, but the first has %v", got)
		}
		blocker.stop()
		time.Sleep(4 * time.Second)
		running := func(want int, of ...*machine) {
			t.Helper()
			var sum []string
			for _, m := range of {
				mine := m.jobs()
				if len(mine) == 0 {
					t.Errorf("a machine has no job")
				}
				sum = append(sum, mine...)
			}
			slices.Sort(sum)
			if len(sum) != want || len(slices.Compact(sum)) != want {
				t.Errorf("running: %v", sum)
			}
		}
		running(30, all...)
		if s := all[0].Status(); !strings.HasPrefix(s.Detail, "3 machines (a, b, c), ") {
			t.Errorf("%+v", s)
		}
		holdings, mine, known, _ := all[0].Holdings()
		if !known || len(holdings) != 30+3 || len(mine) != len(all[0].jobs())+1 || !mine["@a"] || holdings["@b"].Node != "b" { // jobs and machines
			t.Errorf("%v %v %v", holdings, mine, known)
		}

		all[0].die()
		time.Sleep(ttl + ttl/3)
		running(30, all[1:]...)
		for _, m := range all[1:] {
			m.stop()
		}
		if len(b.values) > 31 { // those of the one that died stay until they expire, in this bucket for good
			t.Errorf("%d values are left", len(b.values))
		}
	})
}

// A machine that does not reach the store ends its jobs before another one may begin
// them, and takes part again when it does.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{values: map[string]value{}}
		one := newMachine(b, "one", "x")
		time.Sleep(time.Second)
		two := newMachine(b, "two", "x")
		time.Sleep(10 * time.Second)
		set := func(cut bool) { b.mu.Lock(); one.line.cut = cut; b.mu.Unlock() }
		set(true)
		began, ended := time.Now(), time.Duration(0)
		for len(two.jobs()) == 0 {
			if time.Sleep(50 * time.Millisecond); len(one.jobs()) == 0 && ended == 0 {
				ended = time.Since(began)
			}
			if len(one.jobs())+len(two.jobs()) > 1 || time.Since(began) > ttl+ttl/3 {
				t.Fatalf("after %s: %v and %v", time.Since(began), one.jobs(), two.jobs())
			}
		}
		if ended == 0 || !errors.Is(one.errs[0], lease.ErrLost) {
			t.Errorf("it ended after %s with %v", ended, one.errs)
		}
		if s := one.Status(); s.Phase != presence.PhaseDegraded || s.LastError != errDown.Error() {
			t.Errorf("%+v", s)
		}
		set(false)
		time.Sleep(10 * time.Second)
		if len(one.jobs()) != 0 {
			t.Error("it took the job back")
		}
		two.stop()
		time.Sleep(ttl)
		if len(one.jobs()) != 1 {
			t.Error("it did not take the job that is free")
		}
		one.stop()
	})
}

// What joins a job runs where that does, and has ended before the job may begin on
// another machine; that it fails ends nothing but itself.
func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{values: map[string]value{}}
		join := func(m *machine) *machine {
			m.work(func(ctx context.Context) {
				_ = m.Join(ctx, "x", func(ctx context.Context) error {
					m.hold(ctx, "x/beside", ttl/5-ttl/100)
					return nil
				})
			})
			return m
		}
		one := join(newMachine(b, "one", "x"))
		time.Sleep(time.Second)
		two := join(newMachine(b, "two", "x"))
		settled := func(where, other *machine) {
			t.Helper()
			for began := time.Now(); len(where.jobs()) < 2; time.Sleep(50 * time.Millisecond) {
				if time.Since(began) > 2*ttl {
					t.Fatalf("%v and %v", where.jobs(), other.jobs())
				}
				if x := other.jobs(); slices.Contains(where.jobs(), "x") && len(x) > 0 {
					t.Fatalf("x runs, and on the other machine does %v", x)
				}
			}
			if len(other.jobs()) != 0 {
				t.Errorf("%v and %v", where.jobs(), other.jobs())
			}
		}
		cut := func(cut bool) { b.mu.Lock(); one.line.cut = cut; b.mu.Unlock() }
		settled(one, two)

		failed := errors.New("failed")
		if err := one.Join(t.Context(), "x", func(context.Context) error { return failed }); !errors.Is(err, failed) {
			t.Errorf("%v", err)
		}
		settled(one, two)

		cut(true)
		settled(two, one)
		cut(false)
		time.Sleep(ttl)
		settled(two, one)
		go two.stop()
		time.Sleep(50 * time.Millisecond)
		settled(one, two)
		two.stop()
		one.stop()
	})
}

// A machine that did not reach the store for a while comes back as the one that it was;
// one that was started again does not, though both have one name.
func TestMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{values: map[string]value{}}
		one, two := newMachine(b, "one"), newMachine(b, "two")
		seen := func() lease.Holding {
			time.Sleep(2 * ttl)
			all, mine, _, _ := two.Holdings()
			if mine["@one"] || !mine["@two"] || two.Machine() != "@two" {
				t.Errorf("%v", mine)
			}
			return all["@one"]
		}
		cut := func(cut bool) { b.mu.Lock(); one.line.cut = cut; b.mu.Unlock() }
		before := seen()
		cut(true)
		if h := seen(); h != (lease.Holding{}) {
			t.Errorf("it is not there: %+v", h)
		}
		if all, mine, _, _ := one.Holdings(); all["@one"] != before || !mine["@one"] {
			t.Errorf("it is there to itself: %+v", all)
		}
		cut(false)
		if h := seen(); h != before || h.Node != "one" {
			t.Errorf("%+v, was %+v", h, before)
		}
		one.die()
		one = newMachine(b, "one")
		time.Sleep(time.Second)
		if s := two.Status(); s.Phase != presence.PhaseDegraded || !strings.Contains(s.Detail, "two machines are called one") {
			t.Errorf("%+v", s)
		}
		if h := seen(); !h.Since.After(before.Since) {
			t.Errorf("%+v, was %+v", h, before)
		}
		if s := two.Status(); s.Phase != presence.PhaseLive {
			t.Errorf("%+v", s)
		}
		one.stop()
		two.stop()
	})
}
