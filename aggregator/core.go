package aggregator

import (
	"container/heap"
	"slices"
	"time"

	"presenced/aggregator/presence"
)

// A Core holds the reports about some people and the states they come to. It is
// sans-I/O: it has no clock, no goroutine and no lock. Whoever owns it passes the
// time in, which must not go back, and calls Advance when Next is due.
type Core struct {
	policy *presence.Policy
	people map[presence.ID]*record
	due    dueList
}

// A record is what the core knows of one person.
type record struct {
	reports []presence.Report // at most one for each source and subject
	state   presence.State
	next    time.Time // when the state may change by itself; zero: never
	place   int       // in the due list; -1: not in it
}

// NewCore makes a core without people.
func NewCore(policy *presence.Policy) *Core {
	return &Core{policy: policy, people: map[presence.ID]*record{}}
}

// Enter makes a person known and gives the state; known people are left as they
// are, and changed is false.
func (c *Core) Enter(id presence.ID, now time.Time) (state presence.State, changed bool) {
	if r := c.people[id]; r != nil {
		return r.state, false
	}
	r := &record{place: -1}
	c.people[id] = r
	return c.decide(id, r, now, now)
}

// Leave forgets a person and gives the last state that watchers get.
func (c *Core) Leave(id presence.ID, now time.Time) (state presence.State, known bool) {
	r := c.people[id]
	if r == nil {
		return presence.State{}, false
	}
	c.schedule(id, r, time.Time{})
	delete(c.people, id)
	return presence.State{
		Person: id, Class: presence.Unknown.Class(), Since: now, Revision: r.state.Revision + 1,
		Why: presence.Reason{Rule: presence.RuleRemoved, Title: "No longer in the directory"},
	}, true
}

// Accept takes a report about a person. changed tells whether watchers see a
// difference. A report about somebody unknown, or older than the one held, is
// dropped. The core keeps the spans: the caller must not change them later.
func (c *Core) Accept(id presence.ID, report presence.Report, now time.Time) (state presence.State, changed bool) {
	r := c.people[id]
	if r == nil {
		return presence.State{}, false
	}
	i := slices.IndexFunc(r.reports, func(held presence.Report) bool {
		return held.Source == report.Source && held.Subject == report.Subject
	})
	switch {
	case i < 0:
		r.reports = append(r.reports, report)
	case report.At.Before(r.reports[i].At):
		return r.state, false
	default:
		r.reports[i] = report
	}
	return c.decide(id, r, now, now)
}

// Restore puts back what was known before a restart. The reports count as those
// of lost sources, until the sources speak again; since is kept where the state
// still is what it was.
func (c *Core) Restore(id presence.ID, reports []presence.Report, last presence.State, now time.Time) (state presence.State, changed bool) {
	r := c.people[id]
	if r == nil {
		return presence.State{}, false
	}
	for _, report := range reports {
		r.reports = append(r.reports, report.Lost(now))
	}
	r.state = last
	r.state.Person = id
	state, _ = c.decide(id, r, now, now)
	return state, true
}

// Lost tells that a source has no link any more: its reports are doubted at
// once and expire after their grace. It gives the states that changed.
func (c *Core) Lost(source string, now time.Time) []presence.State {
	var changes []presence.State
	for id, r := range c.people {
		hit := false
		for i := range r.reports {
			if r.reports[i].Source == source {
				r.reports[i] = r.reports[i].Lost(now)
				hit = true
			}
		}
		if hit {
			if s, changed := c.decide(id, r, now, now); changed {
				changes = append(changes, s)
			}
		}
	}
	return changes
}

// Keep drops the reports about a person whose subjects keep refuses, as when an
// extension was given to somebody else.
func (c *Core) Keep(id presence.ID, keep func(presence.Subject) bool, now time.Time) (state presence.State, changed bool) {
	r := c.people[id]
	if r == nil {
		return presence.State{}, false
	}
	before := len(r.reports)
	r.reports = slices.DeleteFunc(r.reports, func(held presence.Report) bool { return !keep(held.Subject) })
	if len(r.reports) == before {
		return r.state, false
	}
	return c.decide(id, r, now, now)
}

// Advance decides anew for everybody whose time has come, and appends the states
// that changed to changes.
func (c *Core) Advance(now time.Time, changes []presence.State) []presence.State {
	for len(c.due) > 0 && !c.due[0].r.next.After(now) {
		d := c.due[0]
		if s, changed := c.decide(d.id, d.r, now, d.r.next); changed {
			changes = append(changes, s)
		}
	}
	return changes
}

// Next is when Advance is due; zero: not before something is accepted.
func (c *Core) Next() time.Time {
	if len(c.due) == 0 {
		return time.Time{}
	}
	return c.due[0].r.next
}

// State gives the state of a person.
func (c *Core) State(id presence.ID) (presence.State, bool) {
	if r := c.people[id]; r != nil {
		return r.state, true
	}
	return presence.State{}, false
}

// Each calls f for the state of every person, in no order.
func (c *Core) Each(f func(presence.State)) {
	for _, r := range c.people {
		f(r.state)
	}
}

// Reports gives what is held about a person; the caller must not change it.
func (c *Core) Reports(id presence.ID) []presence.Report {
	if r := c.people[id]; r != nil {
		return slices.Clone(r.reports)
	}
	return nil
}

// Explain gives the reasoning about a person at a time, from the reports that are
// held now.
func (c *Core) Explain(id presence.ID, at time.Time) (presence.Explanation, bool) {
	r := c.people[id]
	if r == nil {
		return presence.Explanation{}, false
	}
	e := c.policy.Explain(id, r.reports, at)
	if e.State.Availability == r.state.Availability && e.State.Activity == r.state.Activity {
		e.State.Since = r.state.Since
	}
	e.State.Revision = r.state.Revision
	return e, true
}

// decide brings the state of r up to date; began is when a new one begins.
func (c *Core) decide(id presence.ID, r *record, now, began time.Time) (presence.State, bool) {
	s, next := c.policy.Decide(id, r.reports, now)
	c.schedule(id, r, next)
	if s.Same(&r.state) {
		return r.state, false
	}
	s.Since = began
	if s.Availability == r.state.Availability && s.Activity == r.state.Activity && !r.state.Since.IsZero() {
		s.Since = r.state.Since
	}
	s.Revision = r.state.Revision + 1
	r.state = s
	return s, true
}

func (c *Core) schedule(id presence.ID, r *record, next time.Time) {
	r.next = next
	switch {
	case next.IsZero() && r.place >= 0:
		heap.Remove(&c.due, r.place)
	case next.IsZero():
	case r.place >= 0:
		heap.Fix(&c.due, r.place)
	default:
		heap.Push(&c.due, dueEntry{id, r})
	}
}

// A dueList is a heap of people by the time at which they may change.
type dueList []dueEntry

type dueEntry struct {
	id presence.ID
	r  *record
}

func (d dueList) Len() int           { return len(d) }
func (d dueList) Less(i, j int) bool { return d[i].r.next.Before(d[j].r.next) }
func (d dueList) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].r.place, d[j].r.place = i, j
}

// Push implements heap.Interface.
func (d *dueList) Push(x any) {
	e := x.(dueEntry) //nolint:forcetypeassert // only schedule pushes
	e.r.place = len(*d)
	*d = append(*d, e)
}

// Pop implements heap.Interface.
func (d *dueList) Pop() any {
	last := (*d)[len(*d)-1]
	last.r.place = -1
	*d = (*d)[:len(*d)-1]
	return last
}
