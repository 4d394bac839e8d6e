package exchange

import (
	"context"
	"slices"
	"time"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
	"presenced/internal/zones"
)

// Calendar is the source name/calendar: free/busy times and working hours.
type Calendar struct {
	*source
	horizon       time.Duration
	busyIsMeeting bool
}

const (
	recent = time.Hour // how long a span that is over stays in a report
	day    = 24 * time.Hour
)

// round is a sweep of calendars.
func (c *Calendar) round(ctx context.Context, now time.Time, mailboxes []presence.Subject, emit emitter) ([]presence.Subject, error) {
	w := c.newSweep(now, emit)
	span := windowAt(now, c.horizon)
	w.ask = func(ctx context.Context, batch []presence.Subject) error { return c.ask(ctx, w, batch, span) }
	return w.run(ctx, mailboxes, ews.MaxMailboxes)
}

// ask asks about one batch and reports what the server tells. Mailboxes that a
// throttling server left out stay undone.
func (c *Calendar) ask(ctx context.Context, w *sweep, batch []presence.Subject, span interval) error {
	answers, err := over(w, func(via wire) ([]ews.MailboxAvailability, error) {
		return via.Availability(ctx, addresses(batch), span.from, span.to)
	})
	for i, mailbox := range batch[:min(len(batch), len(answers))] {
		if err := c.take(ctx, w, mailbox, span, &answers[i]); err != nil {
			return err
		}
	}
	return err
}

func (c *Calendar) take(ctx context.Context, w *sweep, mailbox presence.Subject, span interval, answer *ews.MailboxAvailability) error {
	k := kindOf(answer.Code)
	switch {
	case k == busy:
		return nil
	case k == told && (answer.View == "None" || answer.View == "MergedOnly"): // a success that tells nothing
		return w.unheard(mailbox, c.missed(mailbox, w.now, "ErrorNoFreeBusyAccess"))
	case k == told:
		c.reached(mailbox)
		if answer.Odd > 0 {
			c.count("values not understood", answer.Odd)
		}
		spans, cut := c.spans(answer, span, w.now)
		if cut {
			c.count("calendars cut", 1)
		}
		return w.report(mailbox, spans)
	case k == tooMuch:
		// Half the time, from now on, and alone; less than an hour is not worth asking.
		near := interval{w.now.Add(-recent).Truncate(time.Minute), span.to}
		if near.from.Before(span.from) {
			near.from = span.from
		}
		near.to = near.from.Add(span.to.Sub(span.from) / 2)
		if near.to.Sub(near.from) > 2*recent {
			return c.ask(ctx, w, []presence.Subject{mailbox}, near)
		}
	}
	return w.unheard(mailbox, c.missed(mailbox, w.now, answer.Code))
}

// An interval is a time [from, to).
type interval struct{ from, to time.Time }

// windowAt gives the time to ask for: from midnight UTC to the horizon. In the
// first hour of a day it begins a day earlier, for the spans that are over but recent.
func windowAt(now time.Time, horizon time.Duration) interval {
	return interval{now.Add(-recent).Truncate(day), now.Truncate(day).Add(horizon)}
}

// spans states what an answer says about the window. cut tells that there was
// more than a report may hold; the earliest spans are kept.
func (c *Calendar) spans(answer *ews.MailboxAvailability, window interval, now time.Time) (spans []presence.Span, cut bool) {
	var zone zones.Rules
	if answer.Hours != nil {
		zone = answer.Hours.Zone
	}
	var taken []interval
	for i := range answer.Events {
		e := &answer.Events[i]
		from, to := latest(e.Start, window.from.Add(-day)), earliest(e.End, window.to.Add(day))
		if e.Busy == ews.BusyFree || !to.After(from) {
			continue
		}
		taken = append(taken, interval{from, to})
		if fact, ok := c.fact(e, &zone); ok {
			spans = append(spans, presence.Span{Fact: fact, From: from, Until: to, Private: e.Private})
		}
	}
	for _, free := range without(window, taken) {
		spans = append(spans, presence.Span{Fact: presence.CalendarFree, From: free.from, Until: free.to})
	}
	if work := working(answer.Hours, window); len(work) > 0 {
		for _, off := range without(window, work) {
			spans = append(spans, presence.Span{Fact: presence.OffHours, From: off.from, Until: off.to})
		}
	}
	spans = slices.DeleteFunc(spans, func(s presence.Span) bool { return s.Until.Before(now.Add(-recent)) })
	presence.SortSpans(spans)
	spans = slices.Compact(spans)
	if len(spans) > presence.MaxSpans {
		return spans[:presence.MaxSpans], true
	}
	return spans, false
}

// fact gives what an event states; not ok where that is nothing.
func (c *Calendar) fact(e *ews.Event, zone *zones.Rules) (presence.Fact, bool) {
	switch e.Busy {
	case ews.BusyTentative:
		return presence.CalendarTentative, true
	case ews.BusyOutOfOffice:
		return presence.CalendarOutOfOffice, true
	case ews.BusyElsewhere:
		return presence.CalendarElsewhere, true
	case ews.BusyBusy:
		switch {
		case zone.StartOfDay(e.Start).Equal(e.Start) && zone.StartOfDay(e.End).Equal(e.End):
			return presence.CalendarAllDay, true
		case e.Meeting || c.busyIsMeeting:
			return presence.CalendarMeeting, true
		default:
			return presence.CalendarBusy, true
		}
	}
	return 0, false // free, or the server does not know
}

// working gives the working hours that touch the window; none where the server
// names no day.
func working(hours *ews.WorkingHours, window interval) []interval {
	if hours == nil {
		return nil
	}
	var out []interval
	first := hours.Zone.Wall(window.from).Truncate(day).Add(-day) // hours across midnight begin the day before
	last := hours.Zone.Wall(window.to)
	for date := first; !date.After(last); date = date.Add(day) {
		for _, p := range hours.Periods {
			if !p.Days.Has(date.Weekday()) {
				continue
			}
			end := date.Add(p.End)
			if p.End <= p.Start {
				end = end.Add(day)
			}
			out = append(out, interval{hours.Zone.ToUTC(date.Add(p.Start)), hours.Zone.ToUTC(end)})
		}
	}
	return out
}

// without gives the parts of the window that none of the others covers, in order.
func without(window interval, others []interval) []interval {
	others = slices.Clone(others)
	slices.SortFunc(others, func(a, b interval) int { return a.from.Compare(b.from) })
	var out []interval
	at := window.from
	for _, o := range others {
		if end := earliest(o.from, window.to); end.After(at) {
			out = append(out, interval{at, end})
		}
		at = latest(at, o.to)
	}
	if window.to.After(at) {
		out = append(out, interval{at, window.to})
	}
	return out
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
