package aggregator_test

import (
	"context"
	"errors"
	"maps"
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

// Load implements aggregator.Memory.
func (a *away) Load(context.Context) (all map[string][]byte, err error) {
	err = a.do(func() { all = maps.Clone(a.values) })
	return all, err
}

// Put implements aggregator.Memory.
func (a *away) Put(_ context.Context, key string, value []byte) error {
	return a.do(func() { a.values[key] = value })
}

// Delete implements aggregator.Memory.
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
			if err := h.Report(t.Context(), about(extension(i), presence.PhoneConnected)); err != nil {
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
		if s, _ := h.State("ben"); s.Availability != presence.Busy {
			t.Errorf("ben is %s, the store said busy", s.Availability)
		}
	})
}
