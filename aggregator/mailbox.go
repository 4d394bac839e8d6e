package aggregator

import (
	"context"
	"sync"
)

// A mailbox holds, for one watcher, the people whose newest state the watcher has
// not taken yet (R4). It never blocks the sender. What is taken is the state at
// that time, so that a watcher who takes nothing costs a few bytes for each person.
type mailbox struct {
	without string // the source whose reports do not count; empty: all do

	mu      sync.Mutex
	queue   queue             // in the order in which they became news
	waiting map[uint32]uint64 // who is in it: a bit for each number of a record, 64 for each key
	wake    chan struct{}     // holds a token while there may be news
}

// A queue is a list of blocks: when it grows nothing is copied, and what was taken
// out is given back at once, but for the last block.
type queue struct {
	head, tail *block
	from, to   int // the first in head, the end in tail
}

type block struct {
	people [63]*record
	next   *block
}

func (q *queue) add(r *record) {
	switch {
	case q.tail == nil:
		q.tail = &block{}
		q.head = q.tail
	case q.to == len(q.tail.people):
		q.tail.next = &block{}
		q.tail, q.to = q.tail.next, 0
	}
	q.tail.people[q.to] = r
	q.to++
}

// first gives nil where there is nobody.
func (q *queue) first() *record {
	if q.head == nil || q.from == len(q.head.people) {
		return nil
	}
	return q.head.people[q.from]
}

func (q *queue) drop() {
	q.head.people[q.from] = nil
	q.from++
	switch {
	case q.head == q.tail && q.from == q.to:
		q.from, q.to = 0, 0
	case q.from == len(q.head.people):
		q.head, q.from = q.head.next, 0
	}
}

func newMailbox() *mailbox {
	return &mailbox{waiting: map[uint32]uint64{}, wake: make(chan struct{}, 1)}
}

// bit is where waiting tells of r.
func bit(r *record) (key uint32, mask uint64) { return r.number / 64, 1 << (r.number % 64) }

// holds tells whether r waits.
func (m *mailbox) holds(r *record) bool {
	key, mask := bit(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting[key]&mask != 0
}

// put leaves word of a new state of r.
func (m *mailbox) put(r *record) {
	key, mask := bit(r)
	m.mu.Lock()
	if word := m.waiting[key]; word&mask == 0 {
		m.waiting[key] = word | mask
		m.queue.add(r)
	}
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// first gives who is first in the queue, and blocks until there is somebody; ok is
// false when ctx ended.
func (m *mailbox) first(ctx context.Context) (r *record, ok bool) {
	for ctx.Err() == nil {
		m.mu.Lock()
		r = m.queue.first()
		m.mu.Unlock()
		if r != nil {
			return r, true
		}
		select {
		case <-m.wake:
		case <-ctx.Done():
		}
	}
	return nil, false
}

// drop takes out who is first.
func (m *mailbox) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	key, mask := bit(m.queue.first())
	m.queue.drop()
	if word := m.waiting[key] &^ mask; word != 0 {
		m.waiting[key] = word
	} else {
		delete(m.waiting, key)
	}
}
