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
	returns []instant // the last ones, at most FlapLimit of the policy
	held    *held     // nil: what is decided is shown
}

// Held is a return that is held back.
type held struct {
	shown presence.State // what shows instead
	since instant        // since when it would have shown
	until instant        // when it does, if it is still decided then
	often bool           // too often, not only too soon
}

// A turn is a return of somebody, in the order of time.
type turn struct {
	at instant
	r  *record
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
	if !waits && r.seen&seenRestless == 0 {
		return 0
	}
	if r.seen&seenByHand != 0 || s.Why.ByHand() {
		c.settle(r)
		return 0
	}
	at := r.decided
	q := c.restless[r].since(at - instant(c.decider.Policy().FlapWindow))
	if !waits {
		q.held = nil
		c.keep(r, q)
		return 0
	}
	until, often := c.heldUntil(r, q)
	if until <= at {
		q.held = nil
		c.returned(r, q, at)
		return 0
	}
	if q.held == nil {
		reports, _ := was.reports.unpack(nil, nil)
		q.held = &held{since: at}
		q.held.shown, _ = c.decider.Decide(r.id, reports, was.decided.time())
	}
	q.held.until, q.held.often = until, often
	q.held.over(s)
	c.keep(r, q)
	return until
}

// heldUntil gives until when a return of r is held back, and whether that is because
// there were too many.
func (c *Core) heldUntil(r *record, q restless) (until instant, often bool) {
	until = r.since + instant(c.decider.Policy().MinDwell)
	if n := c.decider.Policy().FlapLimit; n > 0 && len(q.returns) == n {
		if calm := q.returns[0] + instant(c.decider.Policy().FlapWindow); calm > until {
			return calm, true
		}
	}
	return until, false
}

// returned counts a return of r that shows, and forgets those whose time is over.
func (c *Core) returned(r *record, q restless, at instant) {
	if n := c.decider.Policy().FlapLimit; n > 0 {
		if len(q.returns) == n {
			q.returns = q.returns[1:]
		}
		q.returns = append(q.returns, at)
		c.turns = append(c.turns, turn{at, r})
	}
	c.keep(r, q)
	for begin := at - instant(c.decider.Policy().FlapWindow); len(c.turns) > 0 && c.turns[0].at <= begin; c.turns = c.turns[1:] {
		if other := c.turns[0].r; other.seen&seenRestless != 0 {
			c.keep(other, c.restless[other].since(begin))
		}
	}
}

// since gives q without the returns until a moment.
func (q restless) since(at instant) restless {
	for len(q.returns) > 0 && q.returns[0] <= at {
		q.returns = q.returns[1:]
	}
	return q
}

// keep makes q what is kept of r; if it says nothing, nothing is.
func (c *Core) keep(r *record, q restless) {
	if len(q.returns) == 0 && q.held == nil {
		c.settle(r)
		return
	}
	r.seen |= seenRestless
	c.restless[r] = q
}

// settle ends the damping of r: what is decided next shows at once, and nothing counts
// against it.
func (c *Core) settle(r *record) {
	if r.seen&seenRestless != 0 {
		r.seen &^= seenRestless
		delete(c.restless, r)
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
	h := c.restless[r].held
	if h == nil || !e.State.Availability.EasierThan(h.shown.Availability) ||
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
