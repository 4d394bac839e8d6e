package lease

import "time"

// A claim is what one machine knows of its lease of one job: a state machine without
// clock and I/O. Who drives it asks next what to do, does that in the store, and
// tells answer what came of it, with the time at which it was sent.
//
// The store lets a lease expire ttl after the last write, which arrived after it was
// sent. So nobody else can have it before sent+ttl, whatever their clocks say; the
// job is told to end at sent+ttl-margin.
type claim struct {
	ttl time.Duration

	held     bool
	revision uint64    // of the lease in the store, as far as it is known to be ours; zero: it is not
	until    time.Time // while held: when the job must be told to end
	due      time.Time // the next write, not before
	free     time.Time // since when the job is seen to be free; zero: it is not
	unclear  bool      // what is in the store has to be looked at
}

// The times of a lease, as parts of ttl.
func (c *claim) renewal() time.Duration { return c.ttl / 3 }
func (c *claim) margin() time.Duration  { return c.ttl / 5 }  // for the job to end, and for clocks of servers that differ
func (c *claim) pause() time.Duration   { return c.ttl / 12 } // before something is tried again
func (c *claim) yield() time.Duration   { return c.ttl / 6 }  // how long a machine leaves a free job to the one that is to have it

// An op is what is to be done in the store.
type op uint8

const (
	opNone   op = iota
	opCreate    // write the lease where there is none
	opRenew     // write it over our revision
	opLook      // read it: a write had no answer
)

// An outcome is what came of an op.
type outcome uint8

const (
	done     outcome = iota
	conflict         // something else was there than was expected; of a look: nothing of ours
	failed           // no answer: it was made, will be, or not
)

// next says what to do at now; for opNone, at is when to ask again at the latest.
// free tells whether nobody else is seen to have the job, and preferred whether it is
// this machine's turn to take it.
func (c *claim) next(now time.Time, free, preferred bool) (o op, at time.Time) {
	switch {
	case c.held || c.revision != 0:
		o = opRenew
	case !free && !c.unclear:
		c.free = time.Time{}
		return opNone, now.Add(c.pause())
	case c.unclear:
		o = opLook
	default:
		o = opCreate
		if c.free.IsZero() {
			c.free = now
			if !preferred {
				c.due = later(c.due, now.Add(c.yield()))
			}
		}
	}
	if now.Before(c.due) {
		return opNone, c.due
	}
	if c.unclear && o == opRenew {
		o = opLook
	}
	return o, now
}

// answer takes what came of o, which was sent at that time; revision is that of the
// lease where the outcome is done.
func (c *claim) answer(o op, sent, now time.Time, out outcome, revision uint64) {
	c.expire(now)
	switch {
	case out == failed:
		c.unclear = c.unclear || o != opLook
		c.due = now.Add(c.pause())
	case o == opLook && out == done: // the write had arrived, but when is not known: it is renewed before it counts
		c.unclear, c.revision, c.due = false, revision, now
	case out == done:
		c.unclear, c.revision = false, revision
		c.held, c.until, c.due = true, sent.Add(c.ttl-c.margin()), sent.Add(c.renewal())
		c.expire(now)
	case o != opLook: // it may be a late write of our own that is in the way
		c.unclear, c.due = true, now
	default: // it is somebody else's, or expired
		c.held, c.revision, c.unclear = false, 0, false
		c.free, c.due = time.Time{}, now.Add(c.pause())
	}
}

// expire notices that the lease could not be renewed in time.
func (c *claim) expire(now time.Time) {
	if c.held && !now.Before(c.until) {
		c.held = false
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
