package aggregator

import (
	"context"
	"iter"
	"slices"

	"presenced/aggregator/presence"
)

// Without gives the hub to a bridge whose peer is a source too: Watch gives states
// that are decided as if that source had said nothing, so that nobody is told what
// they said themselves. Person and Report are those of h.
//
// Such a state is decided anew whenever it is asked for. Of people of whom the source
// says nothing it is the one that all others see; of the others it is never held back
// (calm states), and it has a Since only where it is the state that shows.
func (h *Hub) Without(source string) presence.Hub { return &apart{h, source} }

// An apart is a Hub without the reports of a source.
type apart struct {
	*Hub
	source string
}

// Watch implements presence.Hub.
func (a *apart) Watch(ctx context.Context, who ...presence.ID) iter.Seq[presence.State] {
	return a.watch(ctx, a.source, who)
}

// shownWithout is shown without the reports of a source; where that is empty, or says
// nothing of r, it is the same.
func (c *Core) shownWithout(r *record, source string) presence.State {
	reports := c.unpack(r)
	by := func(held presence.Report) bool { return held.Source == source }
	if source == "" || !slices.ContainsFunc(reports, by) {
		return c.stateOf(r, reports)
	}
	all := c.stateOf(r, reports)
	s, _ := c.decider.Decide(r.id(), slices.DeleteFunc(reports, by), r.decided.time())
	s.Revision = all.Revision
	if s.Availability == all.Availability && s.Activity == all.Activity {
		s.Since = all.Since
	}
	return s
}

// remindApart leaves word of r, of whom something was said that most do not see, with
// those who leave out the reports of a source that speaks of r: they may see it. r may
// be nil; s.mu is held.
func (s *shard) remindApart(r *record) {
	if r == nil || s.apart == 0 {
		return
	}
	reports := s.core.unpack(r)
	for _, list := range [...][]*mailbox{s.all, s.some[r.id()]} {
		for _, m := range list {
			if m.without != "" && slices.ContainsFunc(reports, func(held presence.Report) bool { return held.Source == m.without }) {
				m.put(r)
			}
		}
	}
}
