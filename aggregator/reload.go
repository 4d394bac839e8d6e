package aggregator

import (
	"time"

	"presenced/aggregator/presence"
)

// KindPolicy is the kind under which health shows a policy that is read from a file.
const KindPolicy Kind = "policy"

// SetPolicy decides everybody anew by another policy, and gives the states that
// changed, in no order. Nothing is held back.
func (c *Core) SetPolicy(p *presence.Policy, now time.Time) []presence.State {
	c.decider = p.Decider()
	var changes []presence.State
	for r := range c.people.all() {
		if s, changed := c.decideAtOnce(r, c.unpack(r), now); changed {
			changes = append(changes, s)
		}
	}
	return changes
}

// SetPolicy decides everybody anew by another policy. Watchers stay, and get what
// changed. For a moment some people are decided by the old policy and some by the
// new one, never one person by both.
func (h *Hub) SetPolicy(p *presence.Policy, now time.Time) {
	h.changing.Lock()
	defer h.changing.Unlock()
	for _, s := range h.shards {
		s.mu.Lock()
		for _, state := range s.core.SetPolicy(p, now) {
			h.deliver(s, state)
		}
		if s.apart > 0 {
			for r := range s.core.people.all() {
				s.remindApart(r)
			}
		}
		h.unlock(s)
		s.nudge() // the times at which states change are others, too
	}
}

// Policy gives the policy in force.
func (h *Hub) Policy() *presence.Policy {
	s := h.shards[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.decider.Policy()
}
