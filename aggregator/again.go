package aggregator

import "presenced/aggregator/presence"

// Again gives whoever watches these people (everybody, if none is named) their
// state once more, though it is the same: what a watcher may see of it has
// changed. Who is not in the directory is passed over. It does not block.
func (h *Hub) Again(who ...presence.ID) {
	if len(who) == 0 {
		for _, s := range h.shards {
			s.mu.Lock()
			for r := range s.core.people.all() {
				s.remind(r)
			}
			s.mu.Unlock()
		}
		return
	}
	for _, id := range who {
		s := h.shard(id)
		s.mu.Lock()
		if r := s.core.people.of(id); r != nil {
			s.remind(r)
		}
		s.mu.Unlock()
	}
}

// remind leaves word of r with whoever watches; s.mu is held. Nothing is recorded.
func (s *shard) remind(r *record) {
	for _, m := range s.all {
		m.put(r)
	}
	for _, m := range s.some[r.id()] {
		m.put(r)
	}
}
