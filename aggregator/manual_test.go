package aggregator_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// slow is a Memory that waits before it does anything; a Put that waits in vain
// may arrive all the same, as one on the wire does.
type slow struct {
	memory

	wait   time.Duration
	arrive bool
}

func (m *slow) pause(ctx context.Context) error {
	m.mu.Lock()
	wait := m.wait
	m.mu.Unlock()
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *slow) Put(ctx context.Context, key string, value []byte) error {
	err := m.pause(ctx)
	if err == nil || m.arrive {
		err = errors.Join(err, m.memory.Put(ctx, key, value))
	}
	return err
}

func (m *slow) Delete(ctx context.Context, key string) error {
	if err := m.pause(ctx); err != nil {
		return err
	}
	return m.memory.Delete(ctx, key)
}

func (m *slow) be(wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wait = wait
}

func (m *memory) fail(fails bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = fails
}

func (m *memory) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.held)
}

// byHand is a hub with a Manual at work over a memory.
type byHand struct {
	*aggregator.Manual

	t    *testing.T
	hub  *aggregator.Hub
	stop func()
}

func newByHand(t *testing.T, kept aggregator.Memory, recorder *aggregator.Recorder, ids ...presence.ID) *byHand {
	t.Helper()
	h := aggregator.NewHub(presence.DefaultPolicy(), recorder, quiet)
	h.SetDirectory(office(ids...), time.Now())
	m := aggregator.NewManual(h, kept, quiet)
	if _, err := m.Restore(t.Context()); err != nil {
		t.Log(err)
	}
	if _, err := h.Restore(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	stop := run(t, h.Run)
	stopManual := run(t, m.Run)
	synctest.Wait()
	return &byHand{m, t, h, func() { stopManual(); stop() }}
}

func (b *byHand) set(id presence.ID, fact presence.Fact, until time.Time) {
	b.t.Helper()
	if _, err := b.Set(b.t.Context(), id, fact, until, "uid 0"); err != nil {
		b.t.Fatal(err)
	}
}

func (b *byHand) is(id presence.ID, want presence.Availability) {
	b.t.Helper()
	synctest.Wait()
	if s, _ := b.hub.State(id); s.Availability != want {
		b.t.Errorf("%s is %s by %s, want %s", id, s.Availability, s.Why.Rule, want)
	}
}

func TestManualEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &memory{}
		b := newByHand(t, kept, nil, "ann")
		r, err := b.Set(t.Context(), "ann", presence.ManualDND, time.Time{}, "uid 0")
		if err != nil || len(r.Spans) != 1 || r.Spans[0].Until.Sub(r.At) != 24*time.Hour || r.Grace != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		time.Sleep(24*time.Hour - time.Second)
		b.is("ann", presence.DoNotDisturb)
		time.Sleep(time.Second)
		b.is("ann", presence.Unknown)
		time.Sleep(2 * time.Hour)
		if kept.size() != 0 {
			t.Errorf("what has ended is still kept: %s", kept.held)
		}
		b.set("ann", presence.ManualAway, time.Time{}) // has no end
		time.Sleep(30 * 24 * time.Hour)
		b.is("ann", presence.Away)
		b.set("ann", presence.ManualBusy, time.Now().Add(time.Minute)) // the later one wins
		b.is("ann", presence.Busy)
		if err := b.Clear(t.Context(), "ann", "uid 0"); err != nil {
			t.Error(err)
		}
		b.is("ann", presence.Unknown)
		if kept.size() != 0 {
			t.Errorf("what was cleared is still kept: %s", kept.held)
		}
	})
}

// Available by hand in a meeting ends with the meeting.
func TestManualAvailableInAMeeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newByHand(t, &memory{}, nil, "ann")
		meeting := about(extension(0), presence.CalendarMeeting)
		meeting.Spans[0].Until = time.Now().Add(time.Hour)
		if err := b.hub.Report(t.Context(), meeting); err != nil {
			t.Fatal(err)
		}
		r, err := b.Set(t.Context(), "ann", presence.ManualAvailable, time.Time{}, "uid 0")
		if err != nil || !r.Spans[0].Until.Equal(meeting.Spans[0].Until) {
			t.Errorf("until %s, %v", r.Spans[0].Until, err)
		}
		b.is("ann", presence.Available)
	})
}

func TestManualRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newByHand(t, &memory{}, nil, "ann")
		now := time.Now()
		for _, c := range []struct {
			who   presence.ID
			fact  presence.Fact
			until time.Time
			want  error
		}{
			{"ben", presence.ManualDND, time.Time{}, aggregator.ErrNobody},
			{"ann", presence.PhoneIdle, time.Time{}, aggregator.ErrUnfit},
			{"ann", presence.Fact(200), time.Time{}, aggregator.ErrUnfit},
			{"ann", presence.ManualDND, now, aggregator.ErrUnfit},
			{"ann", presence.ManualDND, now.Add(-time.Hour), aggregator.ErrUnfit},
			{"ann", presence.ManualDND, now.Add(366*24*time.Hour + time.Second), aggregator.ErrUnfit},
		} {
			if _, err := b.Set(t.Context(), c.who, c.fact, c.until, "uid 0"); !errors.Is(err, c.want) {
				t.Errorf("%s %s %s: %v, want %v", c.who, c.fact, c.until, err, c.want)
			}
		}
		if err := b.Clear(t.Context(), "ben", "uid 0"); !errors.Is(err, aggregator.ErrNobody) {
			t.Error(err)
		}
		b.is("ann", presence.Unknown)
		if err := b.hub.Report(t.Context(), presence.Report{Source: aggregator.SourceManual, Subject: extension(0), At: now}); err == nil {
			t.Error("a report of the source manual went past the store")
		}
		if fact, err := aggregator.ParseManual("off-work"); err != nil || fact != presence.ManualOffWork {
			t.Errorf("%s, %v", fact, err)
		}
		for _, name := range []string{"", "idle", "manual-dnd", "unknown"} {
			if fact, err := aggregator.ParseManual(name); !errors.Is(err, aggregator.ErrUnfit) {
				t.Errorf("%q is %s, %v", name, fact, err)
			}
		}
	})
}

// What was acknowledged is back after a restart: at once, with its time since,
// neither doubted nor expired; what the recorder writes never brings it back.
func TestManualRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, reports, states := &memory{}, &memory{}, &memory{}
		recorder := aggregator.NewRecorder(reports, states, quiet)
		b := newByHand(t, kept, recorder, "ann", "ben", "eve")
		stop := run(t, recorder.Run)
		began := time.Now()
		b.set("ann", presence.ManualDND, time.Time{})
		b.set("ben", presence.ManualAway, time.Now().Add(time.Hour))
		b.set("eve", presence.ManualOffline, time.Time{})
		if err := b.Clear(t.Context(), "eve", "uid 0"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		b.stop()
		stop()
		if reports.size() != 0 {
			t.Errorf("the recorder keeps what is set by hand: %s", reports.held)
		}
		time.Sleep(2 * time.Hour)

		kept.held["nonsense"] = []byte("{") // one bad record does not keep the others from coming back
		b = newByHand(t, kept, aggregator.NewRecorder(reports, states, quiet), "ann", "ben", "eve")
		s, _ := b.hub.State("ann")
		if s.Availability != presence.DoNotDisturb || s.Overlays.Has(presence.OverlayStale) || !s.Since.Equal(began) || !s.Until.Equal(began.Add(24*time.Hour)) {
			t.Errorf("%+v", s)
		}
		b.is("ben", presence.Unknown) // ended while the service was down
		b.is("eve", presence.Unknown)
		b.hub.Lost("aes", time.Now())
		time.Sleep(10 * time.Hour)
		b.is("ann", presence.DoNotDisturb)
		if kept.size() != 2 {
			t.Errorf("kept: %s", kept.held)
		}
	})
}

// A store that fails, or is too slow, is told as such, and nothing changes: not
// now, and not after a restart either, although a write may have arrived.
func TestManualStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &slow{arrive: true}
		b := newByHand(t, kept, nil, "ann", "ben")
		b.set("ann", presence.ManualDND, time.Time{})

		kept.fail(true)
		if _, err := b.Set(t.Context(), "ann", presence.ManualBusy, time.Time{}, "uid 0"); !errors.Is(err, aggregator.ErrNotKept) {
			t.Errorf("on a full disk: %v", err)
		}
		b.is("ann", presence.DoNotDisturb)
		if s := b.Status(); s.Phase != presence.PhaseDegraded || s.LastError != "disk full" {
			t.Errorf("%+v", s)
		}
		kept.fail(false)
		time.Sleep(10 * time.Second)

		kept.be(time.Hour)
		began := time.Now()
		for _, id := range []presence.ID{"ann", "ben"} {
			if _, err := b.Set(t.Context(), id, presence.ManualAway, time.Time{}, "uid 0"); !errors.Is(err, aggregator.ErrNotKept) {
				t.Errorf("a slow store: %v", err)
			}
		}
		if err := b.Clear(t.Context(), "ann", "uid 0"); !errors.Is(err, aggregator.ErrNotKept) {
			t.Errorf("a slow store: %v", err)
		}
		if took := time.Since(began); took > 16*time.Second {
			t.Errorf("three refusals took %s", took)
		}
		b.is("ann", presence.DoNotDisturb)
		b.is("ben", presence.Unknown)
		kept.be(0)
		time.Sleep(time.Minute)
		if s := b.Status(); s.Phase != presence.PhaseLive {
			t.Errorf("%+v", s)
		}
		b.stop()
		b = newByHand(t, kept, nil, "ann", "ben")
		b.is("ann", presence.DoNotDisturb)
		b.is("ben", presence.Unknown)
	})
}

// Until the store could be read, nothing is accepted: it would replace what is
// not known. Then all is back without a restart.
func TestManualStoreAwayAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &unreadable{}
		b := newByHand(t, kept, nil, "ann")
		b.set("ann", presence.ManualDND, time.Time{})
		b.stop()
		kept.away(true)
		b = newByHand(t, kept, nil, "ann")
		if _, err := b.Set(t.Context(), "ann", presence.ManualAway, time.Time{}, "uid 0"); !errors.Is(err, aggregator.ErrNotKept) {
			t.Error(err)
		}
		if s := b.Status(); s.Phase != presence.PhaseDegraded {
			t.Errorf("%+v", s)
		}
		b.is("ann", presence.Unknown)
		kept.away(false)
		time.Sleep(10 * time.Second)
		b.is("ann", presence.DoNotDisturb)
		b.set("ann", presence.ManualAway, time.Time{})
	})
}

// unreadable is a Memory that can be told not to load.
type unreadable struct {
	memory

	gone bool
}

func (m *unreadable) away(gone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = gone
}

func (m *unreadable) Load(ctx context.Context) (map[string][]byte, error) {
	m.mu.Lock()
	gone := m.gone
	m.mu.Unlock()
	if gone {
		return nil, errors.New("no servers available")
	}
	return m.memory.Load(ctx)
}

// Changes of one person happen one after the other, each whole: what the store
// holds at the end is what the hub shows. Others do not wait for them.
func TestManualInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &slow{wait: 10 * time.Millisecond}
		b := newByHand(t, kept, nil, "ann", "ben")
		facts := slices.Collect(presence.ManualFacts.All())
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if _, err := b.Set(t.Context(), "ann", facts[i%len(facts)], time.Now().Add(time.Duration(i+1)*time.Hour), fmt.Sprint("uid ", i)); err != nil {
					t.Error(err)
				}
			})
		}
		began := time.Now()
		wg.Go(func() {
			b.set("ben", presence.ManualDND, time.Time{})
			if took := time.Since(began); took > 10*time.Millisecond {
				t.Errorf("ben waited %s", took)
			}
		})
		wg.Wait()
		if took := time.Since(began); took != 500*time.Millisecond {
			t.Errorf("50 changes of 10 ms took %s", took)
		}
		want, _ := b.hub.State("ann")
		b.stop()
		b = newByHand(t, kept, nil, "ann", "ben")
		if got, _ := b.hub.State("ann"); got.Availability != want.Availability || !got.Until.Equal(want.Until) {
			t.Errorf("%s until %s before, %s until %s after a restart", want.Availability, want.Until, got.Availability, got.Until)
		}
	})
}

// A directory that could be read only in part at the start costs nobody what they
// set; of who leaves, nothing is kept.
func TestManualFollowsTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &memory{}
		b := newByHand(t, kept, nil, "ann", "ben")
		b.set("ann", presence.ManualDND, time.Time{})
		b.set("ben", presence.ManualAway, time.Time{})
		b.stop()
		b = newByHand(t, kept, nil, "ann")
		time.Sleep(3 * time.Hour)
		b.hub.SetDirectory(office("ann", "ben"), time.Now())
		b.is("ben", presence.Away)
		b.hub.SetDirectory(office("ben"), time.Now())
		synctest.Wait()
		if kept.size() != 1 {
			t.Errorf("kept: %s", kept.held)
		}
		b.hub.SetDirectory(office("ann", "ben"), time.Now())
		b.is("ann", presence.Unknown)
		b.is("ben", presence.Away)
	})
}
