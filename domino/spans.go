package domino

import (
	"slices"
	"time"

	"presenced/aggregator/presence"
	"presenced/domino/das"
)

const (
	day = 24 * time.Hour
	// kept is how long a span stays in a report after its end.
	kept = time.Hour
)

// A window is what of a calendar was read.
type window struct{ from, to time.Time }

// calendarSpans gives what a calendar says, read at the moment now.
func calendarSpans(list das.Listing, w window, now time.Time) []presence.Span {
	var spans []presence.Span
	for i := range list.Entries {
		if s, ok := entrySpan(&list.Entries[i]); ok {
			spans = append(spans, s)
		}
	}
	if list.Skipped == 0 { // else a gap may be an entry that could not be read
		spans = append(spans, freeSpans(spans, w, now)...)
	}
	spans = slices.DeleteFunc(spans, func(s presence.Span) bool { return !s.Until.After(now.Add(-kept)) })
	presence.SortSpans(spans)
	spans = slices.Compact(spans) // pages may overlap
	if len(spans) > presence.MaxSpans {
		spans = spans[:presence.MaxSpans] // the rest begins last, and is read again before
	}
	return spans
}

// entrySpan maps one entry, by section 9 of the protocol notes.
func entrySpan(e *das.Entry) (presence.Span, bool) {
	fact, ok := entryFact(e)
	if !ok || !e.End.After(e.Start) {
		return presence.Span{}, false
	}
	return presence.Span{Fact: fact, From: e.Start, Until: e.End, Private: e.Class == "private" || e.Class == "confidential"}, true
}

// entryFact gives what an entry shows as; ok is false for one that says nothing
// about where its owner is. The first case that fits decides.
func entryFact(e *das.Entry) (fact presence.Fact, ok bool) {
	switch e.Notice {
	case "C", "R", "D": // cancelled, declined, delegated to another
		return 0, false
	case "I", "U", "T", "L": // an invitation, a change or a proposal that waits for an answer
		return 0, false
	}
	switch {
	case e.Status == "cancelled", e.Type == "1", e.Type == "4": // anniversaries, reminders
		return 0, false
	case e.Status == "tentative", e.Transparency == "transparent":
		return presence.CalendarTentative, true
	case e.Type == "3":
		return presence.CalendarMeeting, true
	case e.Type == "2", e.AllDay:
		return presence.CalendarAllDay, true
	default:
		return presence.CalendarBusy, true
	}
}

// freeSpans gives the parts of the window that no span covers. The window moves
// with every poll; where there is room, its edges are moved inward to whole days
// (UTC), so that an unchanged calendar gives an unchanged report all day long.
func freeSpans(busy []presence.Span, w window, now time.Time) []presence.Span {
	from, to := w.from, w.to
	if up := from.Add(day - time.Nanosecond).Truncate(day); !up.After(now) {
		from = up
	}
	if down := to.Truncate(day); !down.Before(now.Add(life)) {
		to = down
	}
	sorted := slices.Clone(busy)
	presence.SortSpans(sorted)
	var free []presence.Span
	for _, s := range sorted {
		if s.From.After(from) && from.Before(to) {
			free = append(free, presence.Span{Fact: presence.CalendarFree, From: from, Until: earlier(s.From, to)})
		}
		if s.Until.After(from) {
			from = s.Until
		}
	}
	if from.Before(to) {
		free = append(free, presence.Span{Fact: presence.CalendarFree, From: from, Until: to})
	}
	return free
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// replySpans gives what an out-of-office period says at the moment now. The flag
// may outlive the period; the times decide.
func replySpans(r das.AutoReply, now time.Time) []presence.Span {
	if !r.Enabled {
		return nil
	}
	s := presence.Span{Fact: presence.AutoReply, From: r.Start, Until: r.End}
	if s.From.IsZero() { // open: it holds since today at least
		s.From = now.UTC().Truncate(day)
	}
	if !s.Until.IsZero() && (!s.Until.After(now.Add(-kept)) || !s.Until.After(s.From)) {
		return nil
	}
	return []presence.Span{s}
}
