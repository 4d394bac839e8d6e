package sip

import (
	"maps"
	"sync"

	"presenced/aggregator/presence"
)

const maxUnmonitored = 100

// A board holds the status, for those who ask while the loop is busy.
type board struct {
	mu     sync.Mutex
	status presence.Status
}

func (b *board) set(change func(*presence.Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.status)
}

// notice counts a problem.
func (b *board) notice(kind string) {
	b.set(func(s *presence.Status) {
		if s.Problems == nil {
			s.Problems = map[string]int{}
		}
		s.Problems[kind]++
	})
}

// unmonitored says that a person or an address is not published, and why.
func (b *board) unmonitored(who, why string) {
	b.set(func(s *presence.Status) {
		if s.Unmonitored == nil {
			s.Unmonitored = map[string]string{}
		}
		if _, known := s.Unmonitored[who]; known || len(s.Unmonitored) < maxUnmonitored {
			s.Unmonitored[who] = why
		}
	})
}

// monitored takes that back.
func (b *board) monitored(who string) {
	b.set(func(s *presence.Status) { delete(s.Unmonitored, who) })
}

func (b *board) get() presence.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Problems, s.Unmonitored = maps.Clone(s.Problems), maps.Clone(s.Unmonitored)
	return s
}
