package lps

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"presenced/aggregator/presence"
)

// heapInUse gives the bytes that are in use.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// town is a Directory of as many people as are asked for.
type town struct{ *office }

func (town) Find(address string) (presence.ID, bool) { return presence.ID(address), true }

func (town) State(id presence.ID) (presence.State, bool) {
	return stateOf(id, presence.Available, 1), true
}

// TestMemory wants a publication, and a subscription to somebody whom nobody else
// watches, to be small.
func TestMemory(t *testing.T) {
	const n = 10000
	before := heapInUse()
	ps := NewPublications("lps", Life{time.Minute, time.Hour, time.Hour}, n, 3, readNote)
	for i := range n {
		name := fmt.Sprintf("person%d@example.test", i)
		p := ps.Publish(put(func(r *Publish) { r.Entity, r.Subject.Value = name, name }), epoch())
		ps.Commit(&p)
	}
	between := heapInUse()
	l := limits()
	l.Most = n
	s := NewSubscriptions("lps", l, newOffice(), town{newOffice()}, &scribe{}, nil)
	for i := range n {
		r := ask(from(fmt.Sprint("watcher", i)), to(fmt.Sprint("person", i)))
		r.Call, r.Tag = fmt.Sprintf("0123456789abcdef0123456789abcdef%d", i), fmt.Sprint("0123456789", i)
		_, out := s.Subscribe(r, epoch(), nil)
		s.Answered(out[0].Dialog, 200, 0, epoch(), nil)
	}
	after := heapInUse()
	publication, subscription := (between-before)/n, (after-between)/n
	t.Logf("%d bytes of a publication, %d of a subscription without its way", publication, subscription)
	if publication > 1024 || subscription > 1536 {
		t.Errorf("more than 1024 and 1536 bytes")
	}
	runtime.KeepAlive(ps)
	runtime.KeepAlive(s)
}
