package aggregator

import "unsafe"

// RecordSize is what the core keeps of a person, the reports aside.
const RecordSize = unsafe.Sizeof(record{})

// Restless gives how many people the core keeps something of for the damping.
func (c *Core) Restless() (n int) {
	for r := range c.people.all() {
		if c.held[r] != nil || c.returns.of(r, r.returned) != nil {
			n++
		}
	}
	return n
}

// Records gives how many records the hub has, used or not.
func (h *Hub) Records() (n int) {
	for _, s := range h.shards {
		n += s.core.people.made
	}
	return n
}
