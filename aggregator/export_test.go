package aggregator

// Restless gives how many people the core keeps something of for the damping.
func (c *Core) Restless() int { return len(c.restless) }
