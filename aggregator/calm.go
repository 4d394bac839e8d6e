package aggregator

import (
	"fmt"
	"slices"
	"time"

	"presenced/aggregator/presence"
)

// A returning is when somebody became easier to reach.
type returning struct {
	at     instant
	before uint32 // the one of the same person before; it may be forgotten
	who    uint32 // the number of the record
}

// Returns lists those of the policy's window, the latest last. They count on, and a
// record has the number of its last one: what is forgotten here needs no look at the
// record, which is one of millions.
type returns struct {
	list  []returning
	gone  int    // how many at the begin of list are forgotten
	first uint32 // the number of the first that is not
}

// of gives the return of r with a number, nil if it is forgotten.
func (l *returns) of(r *record, number uint32) *returning {
	if i := l.gone + int(number-l.first); number != 0 && i < len(l.list) && l.list[i].who == r.number {
		return &l.list[i]
	}
	return nil
}

// add counts a return of r.
func (l *returns) add(r *record, at instant) {
	if len(l.list) == l.gone {
		l.first = max(l.first, 1) // zero is none
	}
	l.list = append(l.list, returning{at, r.returned, r.number})
	r.returned = l.first + uint32(len(l.list)-l.gone-1) //nolint:gosec // there are not as many in a window
}

// forget drops the returns until a moment.
func (l *returns) forget(until instant) {
	for l.gone < len(l.list) && l.list[l.gone].at <= until {
		l.gone++
		l.first++
	}
	if l.gone <= len(l.list)/2 {
		return
	}
	kept := l.list[l.gone:]
	if cap(l.list) > 8*len(kept) {
		l.list = slices.Clone(kept)
	} else {
		l.list = l.list[:copy(l.list, kept)]
	}
	l.gone = 0
}

// Held is a return that is held back.
type held struct {
	shown presence.State // what shows instead
	since instant        // since when it would have shown
	until instant        // when it does, if it is still decided then
	often bool           // too often, not only too soon
}

// dampen makes s, which is decided about r, what shows of it. A change to an availability that is easier to reach
// waits; any other goes out at once, so that nobody is called because damping hid a
// busy line. What somebody sets by hand, or takes back, is what they want seen: it
// never waits, and the count begins anew. Nor does the first thing that is known.
//
// It gives when s is to be shown if nothing happens until then; zero: now. What shows
// until then is what was decided about r as it was.
func (c *Core) dampen(r, was *record, s *presence.State) instant {
	if r.seen&seenByHand != 0 || s.Why.ByHand() {
		c.settle(r)
		return 0
	}
	before := r.seen.availability()
	waits := s.Availability.EasierThan(before) && before != presence.Unknown
	until, often := instant(0), false
	if waits {
		until, often = c.heldUntil(r)
	}
	at, h := r.decided, c.held[r]
	if until <= at {
		if h != nil {
			delete(c.held, r)
		}
		if waits {
			c.count(r, at)
		}
		return 0
	}
	if h == nil {
		reports, _ := c.packing.unpack(was.packed, nil, nil)
		h = &held{since: at}
		h.shown, _ = c.decider.Decide(r.id(), reports, was.decided.time())
		c.held[r] = h
	}
	h.until, h.often = until, often
	h.over(s)
	return until
}

// heldUntil gives until when a return is held back, and whether that is because
// there were too many.
func (c *Core) heldUntil(r *record) (until instant, often bool) {
	until = r.since + instant(c.decider.Policy().MinDwell)
	first := c.returns.of(r, r.returned)
	for n := c.decider.Policy().FlapLimit; n > 1 && first != nil; n-- {
		first = c.returns.of(r, first.before)
	}
	if first != nil && c.decider.Policy().FlapLimit > 0 {
		if calm := first.at + instant(c.decider.Policy().FlapWindow); calm > until {
			return calm, true
		}
	}
	return until, false
}

// count counts a return that shows.
func (c *Core) count(r *record, at instant) {
	if c.decider.Policy().FlapLimit > 0 {
		c.calm(at)
		c.returns.add(r, at)
	}
}

// calm forgets the returns that do not count any more.
func (c *Core) calm(now instant) {
	c.returns.forget(now - instant(c.decider.Policy().FlapWindow))
}

// settle ends the damping of r: what is decided next shows at once, and nothing counts
// against it.
func (c *Core) settle(r *record) {
	r.returned = 0
	delete(c.held, r)
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
	h := c.held[r]
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
