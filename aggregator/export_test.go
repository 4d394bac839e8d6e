package aggregator

import "unsafe"

// RecordSize is what the core keeps of a person, the reports aside.
const RecordSize = unsafe.Sizeof(record{})

// Restless gives how many people the core keeps something of for the damping.
func (c *Core) Restless() int { return len(c.restless) }
