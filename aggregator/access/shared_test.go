package access_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator/access"
	"presenced/aggregator/presence"
)

// A wire is a memory that several gates write to; they hear of a change a second
// later. What is in it is under the lock of the memory.
type wire struct {
	*memory

	revision uint64
	watchers []chan change
}

type change struct {
	key      string
	value    []byte
	revision uint64
}

func newWire() *wire {
	w := &wire{memory: &memory{held: map[string][]byte{}}}
	w.heard = func(key string, value []byte) {
		w.revision++
		for _, c := range w.watchers {
			c <- change{key, value, w.revision}
		}
	}
	return w
}

func (w *wire) Change(_ context.Context, key string, f func([]byte) []byte) (revision uint64, err error) {
	err = w.change(func() {
		value := f(w.held[key])
		switch {
		case bytes.Equal(value, w.held[key]):
			revision = w.revision
			return
		case value == nil:
			delete(w.held, key)
		default:
			w.held[key] = value
		}
		w.tell(key, value)
		revision = w.revision
	})
	return revision, err
}

func (w *wire) Watch(ctx context.Context, f func(string, []byte, uint64)) {
	changes := make(chan change, 100)
	w.set(func(*memory) { w.watchers = append(w.watchers, changes) })
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-changes:
			time.Sleep(time.Second)
			f(c.key, c.value, c.revision)
		}
	}
}

// Rules and requests of one machine count on the other; a change of what is not known
// yet is refused, and what is heard late undoes nothing.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		machine := func() *site {
			s := newSite(t, w.memory, nil)
			s.Share(w)
			if err := s.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.run(t)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = s.Hear(ctx) }()
			t.Cleanup(func() { cancel(); <-done })
			return s
		}
		one, two := machine(), machine()
		one.told()
		two.told()
		synctest.Wait()
		one.set(t, "ann/watcher id:ben/block")
		if got := two.level("id:ben"); got != "full" {
			t.Errorf("before it is heard: %s", got)
		}
		if err := two.Set(t.Context(), admin, rule(t, "ann/watcher id:cat/block")); !errors.Is(err, access.ErrNotKept) || !strings.Contains(err.Error(), "another machine") {
			t.Errorf("a change of what is not known yet: %v", err)
		}
		time.Sleep(2 * time.Second)
		if got := two.level("id:ben"); got != "block" || !strings.Contains(two.told(), "ann") {
			t.Errorf("on the other machine ben sees %s", got)
		}
		two.set(t, "ann/watcher id:cat/status")
		time.Sleep(2 * time.Second)
		if one.level("id:cat") != "status" || one.level("id:ben") != "block" {
			t.Errorf("%s %s", one.level("id:cat"), one.level("id:ben"))
		}

		// Two changes, and then the echo of the first.
		one.set(t, "ann/watcher id:ben/status", "ann/watcher id:ben/block")
		for range 30 {
			time.Sleep(100 * time.Millisecond)
			if got := one.level("id:ben"); got != "block" {
				t.Fatalf("what was heard late counts: %s", got)
			}
		}

		// Who waits at one machine is let in at the other.
		one.set(t, "ann/watcher jid:eve@x.org/confirm")
		one.Admit(by("jid:eve@x.org"), "ann")
		time.Sleep(3 * time.Second)
		if p := two.Pending("ann"); len(p) != 1 {
			t.Fatalf("%+v", p)
		}
		if err := two.Allow(t.Context(), admin, "ann", subject(t, "jid:eve@x.org"), presence.LevelFull); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if len(one.Pending("")) != 0 || len(two.Pending("")) != 0 || one.level("jid:eve@x.org") != "full" {
			t.Errorf("%v %v", one.Pending(""), two.Pending(""))
		}

		if err := two.Forget(t.Context(), admin, "ann"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if got := one.level("id:ben"); got != "full" {
			t.Errorf("forgotten, and yet %s", got)
		}
	})
}

// A change that had no answer counts where it arrived, once the store can be asked.
func TestSharedNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		s := newSite(t, w.memory, nil)
		s.Share(w)
		if err := s.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.set(func(m *memory) { m.deaf = true })
		if err := s.Set(t.Context(), admin, rule(t, "ann/watcher id:ben/block")); !errors.Is(err, access.ErrNotKept) {
			t.Fatal(err)
		}
		w.set(func(m *memory) { m.deaf = false })
		s.run(t)
		time.Sleep(time.Minute)
		if got := s.level("id:ben"); got != "block" {
			t.Errorf("ben sees %s, and the store says something else", got)
		}
	})
}
