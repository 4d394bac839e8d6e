package aggregator

import (
	"container/heap"
	"slices"
	"time"

	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
)

// A Core holds the reports about some people and decides their states. It is
// sans-I/O: it has no clock, no goroutine and no lock. Whoever owns it passes the
// time in, which must not go back, and calls Advance when Next is due.
//
// It does not hold the states: deciding is pure and quick, so that the state of a
// person is decided again whenever it is asked for, from the same reports and for
// the same moment. Only of the few who change all the time it holds what shows
// until they are calm (see dampen).
type Core struct {
	decider *presence.Decider
	people  people
	due     dueList
	returns returns           // of those who became easier to reach lately
	held    map[*record]*held // of whom something is held back

	taken  bool // whether the last report was, see Taken
	noting bool // whether Notes are kept
	notes  []journal.Entry

	packing packing

	// What is unpacked at the moment, and packed; kept for their memory.
	reports []presence.Report
	spans   []presence.Span
	bytes   []byte
}

// A record is what the core knows of one person. There are millions of them, and each
// report is about another one: a record is one line of the processor's cache, of 64 bytes.
type record struct {
	packed           // who it is, and at most one report for each source and subject
	decided  instant // the moment for which the state was decided; lapses are noted until then
	seen     seen    // what was shown last
	since    instant
	due      instant // when Advance decides it; zero: not
	place    int32   // in the due list, if it is due; or gone
	revision uint32  // of what was shown last
	returned uint32  // the last one of its returns; zero: there is none that counts
	number   uint32  // that no other record of the hub has
}

// A seen is what a core remembers of the state that it showed last: its fingerprint,
// availability and activity, and whether it was set by hand. Zero: nothing was shown.
type seen uint64

const (
	seenByHand    = 1 << 61
	seenSomething = 1 << 62
)

func (s seen) availability() presence.Availability { return presence.Availability(s >> 48 & 0xFF) }
func (s seen) activity() presence.Activity         { return presence.Activity(s >> 56 & 0x1F) }

// see gives what is remembered of s.
func (c *Core) see(s *presence.State) seen {
	v := seen(s.Fingerprint(c.people.seed)) | seen(s.Availability)<<48 | seen(s.Activity)<<56 | seenSomething
	if s.Why.ByHand() {
		v |= seenByHand
	}
	return v
}

// gone is the place of who is not among the people any more.
const gone int32 = -1

// NewCore makes a core without people.
func NewCore(policy *presence.Policy) *Core {
	return &Core{decider: policy.Decider(), people: newPeople(), held: map[*record]*held{}, packing: packing{numbers: map[string]byte{}}}
}

// Enter makes a person known and gives the state; known people are left as they
// are, and changed is false.
func (c *Core) Enter(id presence.ID, now time.Time) (state presence.State, changed bool) {
	if r := c.people.of(id); r != nil {
		return c.shown(r), false
	}
	r := c.people.enter(id)
	was := *r
	return c.decide(r, &was, nil, now, now)
}

// Leave forgets a person and gives the last state that watchers get.
func (c *Core) Leave(id presence.ID, now time.Time) (state presence.State, known bool) {
	r := c.people.of(id)
	if r == nil {
		return presence.State{}, false
	}
	c.schedule(r, 0)
	c.settle(r)
	c.people.leave(r)
	r.packed = packedPerson(r.id())
	r.since = instantOf(now)
	r.revision++
	c.note(journal.Entry{At: now, Kind: journal.Left, Person: id})
	return c.shown(r), true
}

// Accept takes a report about a person. changed tells whether watchers see a
// difference. A report about somebody unknown, or older than the one held, is
// dropped. Notes keep the spans: the caller must not change them later.
func (c *Core) Accept(id presence.ID, report presence.Report, now time.Time) (state presence.State, changed bool) {
	r := c.people.of(id)
	if c.taken = r != nil; !c.taken {
		return presence.State{}, false
	}
	reports := c.unpack(r)
	i := slices.IndexFunc(reports, func(held presence.Report) bool {
		return held.Source == report.Source && held.Subject == report.Subject
	})
	was := *r
	switch {
	case i < 0:
		c.said(id, report, nil, now)
		c.bytes = c.packing.append(append(c.bytes[:0], r.packed...), reports, &report)
		reports = append(reports, report)
	case report.At.Before(reports[i].At):
		c.taken = false
		return c.stateOf(r, reports), false
	default:
		c.said(id, report, &reports[i], now)
		reports[i] = report
		head, tail := r.cut(i)
		c.bytes = append(appendSaid(append(c.bytes[:0], head...), &report), tail...)
	}
	r.packed = packed(c.bytes)
	return c.decide(r, &was, reports, now, now)
}

// Taken tells whether the last call of Accept took its report.
func (c *Core) Taken() bool { return c.taken }

// Restore puts back what was known before a restart. The reports count as those
// of lost sources, until the sources speak again; since is kept where the state
// still is what it was.
func (c *Core) Restore(id presence.ID, reports []presence.Report, last presence.State, now time.Time) (state presence.State, changed bool) {
	r := c.people.of(id)
	if r == nil {
		return presence.State{}, false
	}
	all := c.unpack(r)
	for _, report := range reports {
		c.lost(id, &report, now)
		all = append(all, report)
	}
	c.pack(r, all)
	last.Person = id
	c.settle(r)
	r.decided, r.since, r.revision, r.seen = instantOf(now), instantOf(last.Since), uint32(last.Revision), c.see(&last) //nolint:gosec // nobody changes so often
	state, _ = c.decideAtOnce(r, c.unpack(r), now)
	return state, true
}

// Lost tells that a source has no link any more: its reports are doubted at
// once and expire after their grace. It gives the states that changed.
func (c *Core) Lost(source string, now time.Time) []presence.State {
	var changes []presence.State
	for r := range c.people.all() {
		if s, changed := c.lose(r, saidBy(source), now); changed {
			changes = append(changes, s)
		}
	}
	return changes
}

// saidBy picks the reports of a source.
func saidBy(source string) func(presence.Report) bool {
	return func(held presence.Report) bool { return held.Source == source }
}

// lose is Lost for those reports about one person that by picks.
func (c *Core) lose(r *record, by func(presence.Report) bool, now time.Time) (state presence.State, changed bool) {
	reports := c.unpack(r)
	if !slices.ContainsFunc(reports, by) {
		return presence.State{}, false
	}
	was := *r
	c.lapses(r, reports, now) // what lapsed by itself until now
	for i := range reports {
		if by(reports[i]) {
			c.lost(r.id(), &reports[i], now)
		}
	}
	c.pack(r, reports)
	return c.decide(r, &was, reports, now, now)
}

// Keep drops the reports about a person whose subjects keep refuses, as when an
// extension was given to somebody else.
func (c *Core) Keep(id presence.ID, keep func(presence.Subject) bool, now time.Time) (state presence.State, changed bool) {
	r := c.people.of(id)
	if r == nil {
		return presence.State{}, false
	}
	reports := c.unpack(r)
	kept := slices.DeleteFunc(reports, func(held presence.Report) bool {
		if keep(held.Subject) {
			return false
		}
		c.lapsed(id, &held, journal.Expired, now)
		return true
	})
	if len(kept) == len(reports) {
		return c.stateOf(r, kept), false
	}
	c.pack(r, kept)
	return c.decideAtOnce(r, kept, now)
}

// Advance decides anew for everybody whose time has come, and appends the states
// that changed to changes.
func (c *Core) Advance(now time.Time, changes []presence.State) []presence.State {
	for c.isDue(now) {
		if _, s, changed := c.step(now); changed {
			changes = append(changes, s)
		}
	}
	return changes
}

// isDue tells whether somebody's time has come.
func (c *Core) isDue(now time.Time) bool { return len(c.due) > 0 && c.due[0].at <= instantOf(now) }

// step decides anew for the person whose time comes first.
func (c *Core) step(now time.Time) (r *record, state presence.State, changed bool) {
	first := c.due[0]
	reports := c.unpack(first.r)
	was := *first.r
	state, changed = c.decide(first.r, &was, reports, now, first.at.time())
	return first.r, state, changed
}

// Next is when Advance is due; zero: not before something is accepted.
func (c *Core) Next() time.Time {
	if len(c.due) == 0 {
		return time.Time{}
	}
	return c.due[0].at.time()
}

// State gives the state of a person.
func (c *Core) State(id presence.ID) (presence.State, bool) {
	if r := c.people.of(id); r != nil {
		return c.shown(r), true
	}
	return presence.State{}, false
}

// Each calls f for the state of every person, in no order.
func (c *Core) Each(f func(presence.State)) {
	for r := range c.people.all() {
		f(c.shown(r))
	}
}

// Reports gives what is held about a person.
func (c *Core) Reports(id presence.ID) []presence.Report {
	if r := c.people.of(id); r != nil {
		reports, _ := c.packing.unpack(r.packed, nil, nil)
		return reports
	}
	return nil
}

// Explain gives the reasoning about a person at a time, from the reports that are
// held now.
func (c *Core) Explain(id presence.ID, at time.Time) (presence.Explanation, bool) {
	r := c.people.of(id)
	if r == nil {
		return presence.Explanation{}, false
	}
	reports := c.unpack(r)
	now := c.stateOf(r, reports)
	e := c.decider.Policy().Explain(id, reports, at)
	c.heldBack(r, &e)
	if e.State.Availability == now.Availability && e.State.Activity == now.Activity {
		e.State.Since = now.Since
	}
	e.State.Revision = now.Revision
	return e, true
}

// unpack gives the reports of r, until it is called again.
func (c *Core) unpack(r *record) []presence.Report {
	c.reports, c.spans = c.packing.unpack(r.packed, c.reports[:0], c.spans[:0])
	return c.reports
}

// pack makes reports those of r.
func (c *Core) pack(r *record, reports []presence.Report) {
	c.bytes = appendText(c.bytes[:0], string(r.id()))
	for i := range reports {
		c.bytes = c.packing.append(c.bytes, reports[:i], &reports[i])
	}
	r.packed = packed(c.bytes)
}

// shown gives the state of r as watchers see it.
func (c *Core) shown(r *record) presence.State {
	return c.stateOf(r, c.unpack(r))
}

// stateOf is shown from the reports of r.
func (c *Core) stateOf(r *record, reports []presence.Report) (s presence.State) {
	if r.place == gone {
		s = presence.State{
			Person: r.id(), Class: presence.Unknown.Class(),
			Why: presence.Reason{Rule: presence.RuleRemoved, Title: "No longer in the directory"},
		}
	} else {
		s, _ = c.decider.Decide(r.id(), reports, r.decided.time())
		c.held[r].over(&s)
	}
	s.Since, s.Revision = r.since.time(), uint64(r.revision)
	return s
}

// decide brings r up to date, of which there are these reports, and which was as it
// was when it was decided last; began is when a new state begins.
func (c *Core) decide(r, was *record, reports []presence.Report, now, began time.Time) (s presence.State, changed bool) {
	c.lapses(r, reports, now)
	s, next := c.decider.Decide(r.id(), reports, r.decided.time())
	release := c.dampen(r, was, &s)
	c.schedule(r, earliest(next, release))
	changed = c.show(r, &s, began)
	return s, changed
}

// decideAtOnce is decide where it was not the facts that changed, but what is to be
// made of them: nothing is held back.
func (c *Core) decideAtOnce(r *record, reports []presence.Report, now time.Time) (s presence.State, changed bool) {
	c.settle(r)
	c.lapses(r, reports, now)
	s, next := c.decider.Decide(r.id(), reports, r.decided.time())
	c.schedule(r, instantOf(next))
	changed = c.show(r, &s, now)
	return s, changed
}

// show makes s what watchers see of r, and tells whether they see a difference; began
// is when it begins, if it is something new.
func (c *Core) show(r *record, s *presence.State, began time.Time) (changed bool) {
	before, after := r.seen, c.see(s)
	if changed = before != after; changed {
		if after.availability() != before.availability() || after.activity() != before.activity() || r.since == 0 {
			r.since = instantOf(began)
		}
		r.revision++
		r.seen = after
	}
	s.Since, s.Revision = r.since.time(), uint64(r.revision)
	if changed && c.noting {
		noted := *s
		c.note(journal.Entry{At: began, Kind: journal.Shown, Person: r.id(), State: &noted})
	}
	return changed
}

// schedule has Advance decide r at a time; zero: not.
func (c *Core) schedule(r *record, at instant) {
	switch {
	case at == r.due:
	case at == 0:
		heap.Remove(&c.due, int(r.place))
	case r.due == 0:
		heap.Push(&c.due, dueEntry{at, r})
	default:
		c.due[r.place].at = at
		heap.Fix(&c.due, int(r.place))
	}
	r.due = at
}

// A dueList is a heap of people by the time at which they may change.
type dueList []dueEntry

type dueEntry struct {
	at instant
	r  *record
}

func (d dueList) Len() int           { return len(d) }
func (d dueList) Less(i, j int) bool { return d[i].at < d[j].at }
func (d dueList) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].r.place, d[j].r.place = int32(i), int32(j) //nolint:gosec // there are not as many people
}

// Push implements heap.Interface.
func (d *dueList) Push(x any) {
	e := x.(dueEntry)          //nolint:forcetypeassert // only schedule pushes
	e.r.place = int32(len(*d)) //nolint:gosec // there are not as many people
	*d = append(*d, e)
}

// Pop implements heap.Interface.
func (d *dueList) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}
