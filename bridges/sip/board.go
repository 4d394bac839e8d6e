package sip

import (
	"maps"
	"slices"
	"sync"
	"time"

	"presenced/aggregator/presence"
)

const maxUnmonitored = 100

// A board holds the status, for those who ask while the loop is busy.
type board struct {
	mu     sync.Mutex
	status presence.Status
	peers  []Peer
}

// A Peer is how one presence server fares.
type Peer struct {
	Address string    `json:"address"`
	Active  bool      `json:"active"`            // what is new is published here
	Held    int       `json:"held"`              // publications there
	Heard   time.Time `json:"heard,omitzero"`    // when it last answered
	Problem string    `json:"problem,omitempty"` // why it does not answer now
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

// Peers tells how the configured servers fare, the preferred one first, then those
// that hold something still and are not configured any more. It does not block.
func (p *Publisher) Peers() []Peer {
	p.board.mu.Lock()
	defer p.board.mu.Unlock()
	return slices.Clone(p.board.peers)
}

// publishPeers brings what Peers gives up to date.
func (s *session) publishPeers() {
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	s.board.peers = s.board.peers[:0]
	for _, srv := range s.reach() {
		s.board.peers = append(s.board.peers, Peer{srv.address, srv == s.active, srv.held, srv.heard, srv.fault})
	}
}
