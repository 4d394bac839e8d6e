package aggregator

import (
	"slices"
	"time"

	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
)

// Remember has the core note from now on what becomes known, for Notes.
func (c *Core) Remember() { c.noting = true }

// Notes gives what became known since the last call, in order.
func (c *Core) Notes() []journal.Entry {
	notes := c.notes
	c.notes = nil
	return notes
}

func (c *Core) note(e journal.Entry) {
	if c.noting {
		c.notes = append(c.notes, e)
	}
}

// said notes a report, unless it says what held said and that still counts: a poll
// that finds nothing new is no news.
func (c *Core) said(id presence.ID, report presence.Report, held *presence.Report, now time.Time) {
	if !c.noting {
		return
	}
	if held != nil && sameSpans(held.Spans, report.Spans) && !past(held.Doubted, now) && !past(held.Expires, now) {
		return
	}
	noted := report
	noted.Doubted, noted.Expires = time.Time{}, time.Time{} // these are noted when they come
	c.note(journal.Entry{At: now, Kind: journal.Said, Person: id, Report: &noted})
}

// lost makes held the report of a lost source, and notes what that means.
func (c *Core) lost(id presence.ID, held *presence.Report, now time.Time) {
	doubted, expired := past(held.Doubted, now), past(held.Expires, now)
	*held = held.Lost(now)
	if !doubted && past(held.Doubted, now) {
		c.lapsed(id, held, journal.Doubted, now)
	}
	if !expired && past(held.Expires, now) {
		c.lapsed(id, held, journal.Expired, now)
	}
}

// lapses notes which of the reports of r lapsed since r was decided last, and makes
// now the moment for which it is decided.
func (c *Core) lapses(r *record, reports []presence.Report, now time.Time) {
	if c.noting {
		seen := r.decided.time()
		for i := range reports {
			held := &reports[i]
			if past(held.Doubted, now) && held.Doubted.After(seen) {
				c.lapsed(r.id(), held, journal.Doubted, held.Doubted)
			}
			if past(held.Expires, now) && held.Expires.After(seen) {
				c.lapsed(r.id(), held, journal.Expired, held.Expires)
			}
		}
	}
	r.decided = instantOf(now)
}

func (c *Core) lapsed(id presence.ID, held *presence.Report, kind journal.Kind, at time.Time) {
	subject := held.Subject
	c.note(journal.Entry{At: at, Kind: kind, Person: id, Source: held.Source, Subject: &subject})
}

// past tells whether a time that may never come has come.
func past(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }

func sameSpans(a, b []presence.Span) bool {
	return slices.EqualFunc(a, b, func(x, y presence.Span) bool {
		return x.Fact == y.Fact && x.From.Equal(y.From) && x.Until.Equal(y.Until) && x.Contact == y.Contact && x.Note == y.Note && x.Private == y.Private
	})
}
