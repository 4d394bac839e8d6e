package aggregator

import (
	"fmt"
	"time"

	"presenced/aggregator/presence"
)

// A restless is what a core keeps of a person who became easier to reach lately
// (a return), or whose return is held back. Few are: it is forgotten when it means
// nothing any more.
type restless struct {
	r       *record
	returns []instant // the last ones, at most FlapLimit of the policy
	held    *held     // nil: what is decided is shown

	before, after *restless // in the list of the core
}

// Held is a return that is held back.
type held struct {
	shown presence.State // what shows instead
	since instant        // since when it would have shown
	until instant        // when it does, if it is still decided then
	often bool           // too often, not only too soon
}

// returned lists those who have returns, by the time of the last one.
type returned struct {
	first, last *restless
}

// add puts q at the end.
func (l *returned) add(q *restless) {
	if q.before = l.last; q.before != nil {
		q.before.after = q
	} else {
		l.first = q
	}
	l.last = q
}

// remove takes q out, where it is in.
func (l *returned) remove(q *restless) {
	if q.before != nil {
		q.before.after = q.after
	} else if l.first == q {
		l.first = q.after
	}
	if q.after != nil {
		q.after.before = q.before
	} else if l.last == q {
		l.last = q.before
	}
	q.before, q.after = nil, nil
}

// dampen makes s, which is decided about r, what shows of it. A change to an availability that is easier to reach
// waits; any other goes out at once, so that nobody is called because damping hid a
// busy line. What somebody sets by hand, or takes back, is what they want seen: it
// never waits, and the count begins anew. Nor does the first thing that is known.
//
// It gives when s is to be shown if nothing happens until then; zero: now. What shows
// until then is what was decided about r as it was.
func (c *Core) dampen(r, was *record, s *presence.State) instant {
	before := r.seen.availability()
	waits := s.Availability.EasierThan(before) && before != presence.Unknown
	if !waits && r.restless == nil {
		return 0
	}
	if r.seen&seenByHand != 0 || s.Why.ByHand() {
		c.settle(r)
		return 0
	}
	at := r.decided
	if r.restless == nil {
		r.restless = &restless{r: r}
	}
	q := r.restless
	c.forget(q, at-instant(c.decider.Policy().FlapWindow))
	until, often := c.heldUntil(q)
	if !waits || until <= at {
		q.held = nil
		if waits {
			c.count(q, at)
		}
		c.calm(at)
		if len(q.returns) == 0 {
			c.settle(r)
		}
		return 0
	}
	if q.held == nil {
		reports, _ := was.reports.unpack(nil, nil)
		q.held = &held{since: at}
		q.held.shown, _ = c.decider.Decide(r.id, reports, was.decided.time())
	}
	q.held.until, q.held.often = until, often
	q.held.over(s)
	return until
}

// heldUntil gives until when a return is held back, and whether that is because
// there were too many.
func (c *Core) heldUntil(q *restless) (until instant, often bool) {
	until = q.r.since + instant(c.decider.Policy().MinDwell)
	if n := c.decider.Policy().FlapLimit; n > 0 && len(q.returns) == n {
		if calm := q.returns[0] + instant(c.decider.Policy().FlapWindow); calm > until {
			return calm, true
		}
	}
	return until, false
}

// count counts a return that shows.
func (c *Core) count(q *restless, at instant) {
	if n := c.decider.Policy().FlapLimit; n > 0 {
		if len(q.returns) == n {
			q.returns = q.returns[1:]
		}
		q.returns = append(q.returns, at)
		c.returned.remove(q)
		c.returned.add(q)
	}
}

// calm forgets those whose last return is over, at most stride of them, and tells
// whether there are more.
func (c *Core) calm(now instant) (more bool) {
	begin := now - instant(c.decider.Policy().FlapWindow)
	for range stride {
		q := c.returned.first
		if q == nil || q.returns[len(q.returns)-1] > begin {
			return false
		}
		if c.forget(q, begin); q.held == nil {
			c.settle(q.r)
		}
	}
	return true
}

// forget drops the returns until a moment.
func (c *Core) forget(q *restless, until instant) {
	for len(q.returns) > 0 && q.returns[0] <= until {
		q.returns = q.returns[1:]
	}
	if len(q.returns) == 0 {
		c.returned.remove(q)
	}
}

// settle ends the damping of r: what is decided next shows at once, and nothing counts
// against it.
func (c *Core) settle(r *record) {
	if r.restless != nil {
		c.returned.remove(r.restless)
		r.restless = nil
	}
}

// over makes s what shows while it is held back: what was shown goes on, but for the
// channels and the doubt, which are always those of the moment. Nil changes nothing.
func (h *held) over(s *presence.State) {
	if h == nil {
		return
	}
	live := *s
	*s = h.shown
	s.Channels = live.Channels
	s.Overlays = s.Overlays&^presence.OverlayStale | live.Overlays&presence.OverlayStale
}

// heldBack puts into e, which is about r, what is held back, and makes its state the one that shows.
func (c *Core) heldBack(r *record, e *presence.Explanation) {
	if r.restless == nil || r.restless.held == nil {
		return
	}
	h := r.restless.held
	if !e.State.Availability.EasierThan(h.shown.Availability) ||
		e.At.Before(h.since.time()) || !e.At.Before(h.until.time()) {
		return
	}
	why := fmt.Sprintf("what is shown stays for %s at least", c.decider.Policy().MinDwell)
	if h.often {
		why = fmt.Sprintf("the person became easier to reach %d times within %s", c.decider.Policy().FlapLimit, c.decider.Policy().FlapWindow)
	}
	e.HeldBack = &presence.HeldBack{
		Availability: e.State.Availability, Activity: e.State.Activity, Rule: e.State.Why.Rule,
		Since: h.since.time(), Until: h.until.time(), Why: why,
	}
	h.over(&e.State)
}

// earliest gives the earlier of a time that may be zero and an instant that may be zero, for never.
func earliest(t time.Time, i instant) instant {
	if other := instantOf(t); i == 0 || other != 0 && other < i {
		return other
	}
	return i
}
