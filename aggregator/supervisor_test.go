package aggregator_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// A bridge runs until its context ends and a while longer, or fails while it is told to.
type bridge struct {
	name         string
	fails        atomic.Bool
	begun, ended atomic.Int32
}

func (b *bridge) Name() string { return b.name }

func (b *bridge) Run(ctx context.Context, _ presence.Hub) error {
	b.begun.Add(1)
	if b.fails.Load() {
		return presence.Permanent(errors.New("wrong password"))
	}
	<-ctx.Done()
	time.Sleep(time.Second) // what it published is being removed
	b.ended.Add(1)
	return ctx.Err()
}

// Bridges come and go while the supervisor runs, and one of them can be told not to
// wait until a permanent error is tried again.
func TestBridgesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := aggregator.NewSupervisor(aggregator.NewHub(presence.DefaultPolicy(), nil, quiet), quiet)
		early := &bridge{name: "early"}
		v.AddBridge(early)
		v.RemoveBridge("early") // never ran
		stop := run(t, v.Run)
		synctest.Wait()

		a := &bridge{name: "a"}
		a.fails.Store(true)
		v.AddBridge(a)
		synctest.Wait()
		if h := v.Health(); len(h) != 1 || h[0].LastError != "wrong password" || early.begun.Load() != 0 {
			t.Fatalf("%+v", h)
		}
		a.fails.Store(false)
		v.TryNow("b") // nobody
		synctest.Wait()
		if a.begun.Load() != 1 {
			t.Error("tried for another one")
		}
		v.TryNow("a")
		synctest.Wait()
		if h := v.Health(); a.begun.Load() != 2 || h[0].Phase != presence.PhaseLive {
			t.Errorf("%d runs, %+v", a.begun.Load(), h)
		}

		b := &bridge{name: "b"}
		v.AddBridge(b)
		synctest.Wait()
		v.RemoveBridge("a")
		if a.ended.Load() != 1 {
			t.Error("removed before it has ended")
		}
		v.RemoveBridge("a") // again
		if h := v.Health(); len(h) != 1 || h[0].Name != "b" {
			t.Errorf("%+v", h)
		}
		again := &bridge{name: "a"}
		v.AddBridge(again)
		synctest.Wait()
		if again.begun.Load() != 1 || b.begun.Load() != 1 || b.ended.Load() != 0 {
			t.Error("the others are not as they were")
		}
		stop()
		v.AddBridge(&bridge{name: "late"}) // nobody runs it
		if again.ended.Load() != 1 || b.ended.Load() != 1 {
			t.Error("not all have ended")
		}
		v.RemoveBridge("late")
		v.RemoveBridge("b")
	})
}

// A quiet source says nothing until its context ends.
type quietSource string

func (s quietSource) Name() string { return string(s) }

func (quietSource) Run(ctx context.Context, _ presence.Roster, _ func(presence.Report) error) error {
	<-ctx.Done()
	return ctx.Err()
}

// Of several machines each has every bridge, and one has a job, with the source that
// belongs to it.
func TestTurns(t *testing.T) {
	for want, add := range map[string]func(*aggregator.Supervisor){
		"[]":                        func(v *aggregator.Supervisor) { v.AddBridge(&bridge{name: "web"}) },
		"[hold hq]":                 func(v *aggregator.Supervisor) { v.AddJob(&bridge{name: "hq"}) },
		"[hold aes]":                func(v *aggregator.Supervisor) { v.AddSource(quietSource("aes")) },
		"[join hq hold hq/network]": func(v *aggregator.Supervisor) { v.AddSourceWith("hq", quietSource("hq/network")) },
	} {
		synctest.Test(t, func(t *testing.T) {
			v := aggregator.NewSupervisor(aggregator.NewHub(presence.DefaultPolicy(), nil, quiet), quiet)
			jobs := &turns{machine: "@one", changed: make(chan struct{})}
			v.Share(jobs)
			add(v)
			run(t, v.Run)
			synctest.Wait()
			jobs.mu.Lock()
			defer jobs.mu.Unlock()
			if got := fmt.Sprint(jobs.asked); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			if h := v.Health(); len(h) != 1 || h[0].Phase == presence.PhaseStandby {
				t.Errorf("%+v", h)
			}
		})
	}
}

// A poller polls when it is told to, and fails while it is told to.
type poller struct {
	bridge
	polled atomic.Int32
}

func (s *poller) Run(ctx context.Context, _ presence.Roster, _ func(presence.Report) error) error {
	return s.bridge.Run(ctx, nil)
}

func (s *poller) PollNow() { s.polled.Add(1) }

// TestPollNow has parts look at once, and not more often than is good for them.
func TestPollNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := aggregator.NewSupervisor(aggregator.NewHub(presence.DefaultPolicy(), nil, quiet), quiet)
		polls, told := &poller{bridge: bridge{name: "polls"}}, &bridge{name: "told"}
		v.AddSource(polls)
		v.AddBridge(told)
		read := 0
		v.AddPolled("people", aggregator.KindDirectory, func() presence.Status { return presence.Status{} }, func() { read++ })
		v.AddStatus("kept", aggregator.KindStore, func() presence.Status { return presence.Status{} })
		run(t, v.Run)
		synctest.Wait()
		ask := func(name string, want error) {
			t.Helper()
			if err := v.PollNow(name); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
			synctest.Wait()
		}
		ask("nobody", aggregator.ErrNoPart)
		ask("kept", aggregator.ErrNotPolled)
		ask("told", aggregator.ErrNotPolled)
		ask("people", nil)
		ask("people", aggregator.ErrTooSoon)
		ask("polls", nil)
		ask("polls", aggregator.ErrTooSoon)
		time.Sleep(10 * time.Second)
		ask("polls", nil)
		ask("people", nil)
		if polls.polled.Load() != 2 || polls.begun.Load() != 1 || read != 2 {
			t.Errorf("polled %d times in %d runs, read %d times", polls.polled.Load(), polls.begun.Load(), read)
		}
		can := map[string]bool{}
		for _, h := range v.Health() {
			can[h.Name] = h.Polls
		}
		if !can["polls"] || !can["people"] || can["told"] || can["kept"] {
			t.Errorf("who polls: %v", can)
		}
	})
}

// TestPollNowOfWhoWaits runs a part again that waits, but none that was refused for
// good and does not see to that itself: accounts lock.
func TestPollNowOfWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := aggregator.NewSupervisor(aggregator.NewHub(presence.DefaultPolicy(), nil, quiet), quiet)
		polls, told := &poller{bridge: bridge{name: "polls"}}, &bridge{name: "told"}
		polls.fails.Store(true)
		told.fails.Store(true)
		v.AddSource(polls)
		v.AddBridge(told)
		run(t, v.Run)
		synctest.Wait()
		polls.fails.Store(false)
		if err := v.PollNow("told"); !errors.Is(err, aggregator.ErrTooSoon) {
			t.Errorf("told: %v", err)
		}
		if err := v.PollNow("polls"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if polls.begun.Load() != 2 || told.begun.Load() != 1 {
			t.Errorf("%d and %d runs", polls.begun.Load(), told.begun.Load())
		}
	})
}

// elsewhere are the turns of a machine that never has one.
type elsewhere struct{ turns }

func (*elsewhere) Hold(ctx context.Context, _ string, _ func(context.Context) error) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestPollNowElsewhere refuses what another machine runs.
func TestPollNowElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := aggregator.NewSupervisor(aggregator.NewHub(presence.DefaultPolicy(), nil, quiet), quiet)
		v.Share(&elsewhere{turns{machine: "@one", changed: make(chan struct{})}})
		polls := &poller{bridge: bridge{name: "polls"}}
		v.AddSource(polls)
		run(t, v.Run)
		synctest.Wait()
		if err := v.PollNow("polls"); !errors.Is(err, aggregator.ErrElsewhere) || polls.polled.Load() != 0 || v.Health()[0].Polls {
			t.Errorf("%v, %+v", err, v.Health())
		}
	})
}
