package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"presenced/aggregator/store"
)

// A mirror is what a watch of a bucket has told.
type mirror struct {
	mu     sync.Mutex
	values map[string]string
	rounds int // how often all that is there came
}

// watch follows b until the test ends, or stop is called.
func watch(t *testing.T, b *store.Bucket) (m *mirror, stop func()) {
	t.Helper()
	m = &mirror{values: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Watch(ctx, m.take)
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return m, stop
}

func (m *mirror) take(key string, value []byte, _ uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case key == "":
		m.rounds++
	case value == nil:
		delete(m.values, key)
	default:
		m.values[key] = string(value)
	}
}

func (m *mirror) is(rounds int, want string) func() error {
	return func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if got := fmt.Sprint(m.values); m.rounds < rounds || got != want {
			return fmt.Errorf("%s after %d rounds", got, m.rounds)
		}
		return nil
	}
}

// contractWatch is the part of the contract by which several machines share a store.
func contractWatch(t *testing.T, s *store.Store) {
	t.Helper()
	ctx := t.Context()
	b, err := s.Bucket(ctx, "shared")
	if err != nil {
		t.Fatal(err)
	}
	part := b.Part("one")
	for _, err := range []error{b.Put(ctx, "outside", []byte("x")), part.Put(ctx, "a", []byte("1")), part.Put(ctx, "gone", []byte("2")), part.Delete(ctx, "gone")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	m, stop := watch(t, part)
	until(t, 5*time.Second, "what is there is told", m.is(1, "map[a:1]"))
	if err := errors.Join(part.Put(ctx, "b", []byte("3")), part.Delete(ctx, "a")); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "changes are told", m.is(1, "map[b:3]"))
	stop()

	// Two write one key at a time: no change is lost.
	var writers sync.WaitGroup
	for _, word := range []string{"x", "y", "z"} {
		writers.Go(func() {
			for range 5 {
				if _, err := b.Change(ctx, "log", func(held []byte) []byte { return append(held, word...) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	sees(t, func() error {
		value, _, err := b.Get(ctx, "log")
		if err != nil || len(value) != 15 || bytes.Count(value, []byte("y")) != 5 {
			return fmt.Errorf("%q, %w", value, err)
		}
		return nil
	})
	same, err := b.Change(ctx, "log", func(held []byte) []byte { return held })
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(ctx, "log", same-1); !errors.Is(err, store.ErrConflict) {
		t.Errorf("remove of an old revision: %v", err)
	}
	if err := b.Remove(ctx, "log", same); err != nil {
		t.Errorf("remove: %v", err)
	}
	if _, err := b.Change(ctx, "log", func([]byte) []byte { return nil }); err != nil {
		t.Errorf("a change of nothing to nothing: %v", err)
	}

	brief, err := s.Expiring(ctx, "brief", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	rev, err := brief.Create(ctx, "k", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "the value expires", func() error {
		_, err := brief.Create(ctx, "k", []byte("2"))
		return err
	})
	if _, err := brief.Update(ctx, "k", []byte("3"), rev); !errors.Is(err, store.ErrConflict) {
		t.Errorf("update of a value that expired: %v", err)
	}
}

// TestWatchSurvives takes the server away and gives another one with the same data,
// in the middle of a watch.
func TestWatchSurvives(t *testing.T) {
	t.Parallel()
	address, dir := freeAddress(t), t.TempDir()
	stop := serveNATSIn(t, address, dir)
	cfg := store.DefaultConfig()
	cfg.URL = "nats://" + address
	s := open(t, cfg)
	defer s.Close()
	b, err := s.Bucket(t.Context(), "reports")
	if err != nil {
		t.Fatal(err)
	}
	m, end := watch(t, b)
	defer end()
	until(t, 5*time.Second, "an empty bucket is told", m.is(1, "map[]"))
	if err := errors.Join(b.Put(t.Context(), "a", []byte("1")), b.Put(t.Context(), "b", []byte("2"))); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "the values are told", m.is(1, "map[a:1 b:2]"))
	stop()
	serveNATSIn(t, address, dir)
	other := open(t, cfg)
	defer other.Close()
	c, err := other.Bucket(t.Context(), "reports")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Put(t.Context(), "a", []byte("3")), c.Delete(t.Context(), "b")); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "what changed meanwhile is told", m.is(2, "map[a:3]"))
}
