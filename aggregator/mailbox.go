package aggregator

import (
	"context"
	"sync"

	"presenced/aggregator/presence"
)

// A mailbox holds, for one watcher, the newest state of each person that the
// watcher has not taken yet (R4). It never blocks the sender, and never holds
// more than one state of a person.
type mailbox struct {
	mu    sync.Mutex
	held  map[presence.ID]presence.State
	queue []presence.ID // the people in held, in the order in which they became news
	wake  chan struct{} // holds a token while there may be news
}

func newMailbox() *mailbox {
	return &mailbox{held: map[presence.ID]presence.State{}, wake: make(chan struct{}, 1)}
}

// put leaves a state; an older one of the same person is replaced.
func (m *mailbox) put(s presence.State) {
	m.mu.Lock()
	if _, waiting := m.held[s.Person]; !waiting {
		m.queue = append(m.queue, s.Person)
	}
	m.held[s.Person] = s
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take gives the next state, and blocks until there is one; ok is false when ctx ended.
func (m *mailbox) take(ctx context.Context) (s presence.State, ok bool) {
	for {
		if ctx.Err() != nil {
			return presence.State{}, false
		}
		m.mu.Lock()
		if len(m.queue) > 0 {
			id := m.queue[0]
			m.queue = m.queue[1:]
			s = m.held[id]
			delete(m.held, id)
			m.mu.Unlock()
			return s, true
		}
		m.queue = nil
		m.mu.Unlock()
		select {
		case <-m.wake:
		case <-ctx.Done():
		}
	}
}
