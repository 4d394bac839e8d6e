package sip

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"presenced/aggregator/presence"
)

// A slowMemory writes when a test lets it.
type slowMemory struct {
	*testMemory
	let   chan error // what becomes of a write
	saved atomic.Int64
}

func (m *slowMemory) Put(ctx context.Context, key string, value []byte) error {
	select {
	case err := <-m.let:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	pg, err := readPage(key, value)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.values[key] = value
	m.mu.Unlock()
	m.saved.Add(int64(len(pg.Records))) // none of them twice, where nobody changes
	return nil
}

// flood has many people come at once, at a server that counts whom it has answered.
func flood(t *testing.T, memory Memory, patience time.Duration, answered func()) (p *runner, people int) {
	t.Helper()
	good := accept()
	cfg := testConfig(t, packetServer(t, func(m *message) []string {
		answered()
		return good(m)
	}))
	cfg.Rate = maxRate
	publisher := newPublisher(t, cfg, memory)
	publisher.journal.patience = patience
	publisher.pauses.stop = time.Millisecond
	people = 3 * maxUnsaved
	return run(t, publisher, town{people}), people
}

// While the memory answers, there never are more answers whose tag is not written than
// allowed, however fast people change.
func TestUnsaved(t *testing.T) {
	t.Parallel()
	memory := &slowMemory{testMemory: newMemory(), let: make(chan error)}
	var answered, most atomic.Int64
	p, people := flood(t, memory, time.Hour, func() {
		most.Store(max(most.Load(), answered.Add(1)-memory.saved.Load()))
	})
	for memory.saved.Load() < int64(people) {
		fares(t, "as many answered as allowed", func() bool { return answered.Load() == min(int64(people), memory.saved.Load()+maxUnsaved) })
		before := memory.saved.Load()
		memory.let <- nil
		fares(t, "written", func() bool { return memory.saved.Load() > before })
	}
	if most.Load() != maxUnsaved {
		t.Errorf("%d answers were not written", most.Load())
	}
	if s := p.Status(); s.Phase == presence.PhaseDegraded || len(s.Problems) != 0 {
		t.Errorf("%+v", s)
	}
	p.cancel()
	_ = p.wait()
}

// A memory that is stalled, or fails, holds nobody up for long; the status says so, and
// all is written when it works again.
func TestStalled(t *testing.T) {
	t.Parallel()
	memory := &slowMemory{testMemory: newMemory(), let: make(chan error)}
	var answered atomic.Int64
	p, people := flood(t, memory, 50*time.Millisecond, func() { answered.Add(1) })
	fares(t, "published", func() bool { return answered.Load() == int64(people) })
	memory.let <- errors.New("disk full")
	p.Review()
	fares(t, "degraded", func() bool {
		s := p.Status()
		return s.Phase == presence.PhaseDegraded && strings.Contains(s.Detail, "publishing goes on") && s.Problems["entity-tags not kept"] == 1
	})
	close(memory.let)
	fares(t, "written", func() bool {
		values, err := memory.Load(t.Context())
		return err == nil && len(tags(t, values)) == people
	})
	fares(t, "live", func() bool { return p.Status().Phase == presence.PhaseLive })
	p.cancel()
	_ = p.wait()
}

// fares waits until it is so.
func fares(t *testing.T, what string, so func() bool) {
	t.Helper()
	for over := time.Now().Add(patience); !so(); {
		if time.Now().After(over) {
			t.Fatalf("not %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// A machine that gets the job back goes on with the tags of the one that had it meanwhile,
// not with its own of before.
func TestAnotherMachine(t *testing.T) {
	t.Parallel()
	e := newCompositor(t)
	memory := newMemory()
	var seen []string
	one, two := newPublisher(t, tcpConfig(t, e), memory), newPublisher(t, tcpConfig(t, e), memory)
	for _, c := range []struct {
		machine  *Publisher
		activity presence.Activity
		want     string
	}{
		{one, presence.ActivityPhone, "initial 1"},
		{two, presence.ActivityMeeting, "modify 1"},
		{one, presence.NoActivity, "modify 1"},
		{one, presence.ActivityPhone, "modify 1"}, // nobody had it in between
	} {
		hub := newHub()
		p := run(t, c.machine, hub)
		hub.tell("1", presence.Busy, c.activity)
		e.expect(c.want)
		seen = append(seen, memory.tag(t, seen...))
		close(hub.ended) // an end without removal, as when the job is taken away
		if err := p.wait(); err == nil || presence.IsPermanent(err) {
			t.Errorf("Run: %v", err)
		}
	}
}
