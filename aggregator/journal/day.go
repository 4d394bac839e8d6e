package journal

import (
	"cmp"
	"slices"
	"time"

	"presenced/aggregator/presence"
)

// A Saying is one thing that a source said, for as long as it said so and the thing held.
type Saying struct {
	Source  string
	Fact    presence.Fact
	From    time.Time
	Until   time.Time // zero: it is not known until when
	Contact string
	Private bool
}

// Sayings gives what the sources said of a person between since and until, by source
// and then the earliest first: what is over, and of what they say now also what lies
// ahead. Where a source says the same again, that is one Saying. The entries are those
// about one person; they begin well before since and end now.
func Sayings(entries []Entry, since, until time.Time) []Saying {
	var past Past
	var out []Saying
	// over takes what one report says, which counts no longer from at on; zero: it counts.
	over := func(r *presence.Report, at time.Time) {
		for _, s := range r.Spans {
			if !at.IsZero() && (s.Until.IsZero() || s.Until.After(at)) {
				s.Until = at
			}
			if s.From.Before(until) && (s.Until.IsZero() || s.Until.After(since) && s.Until.After(s.From)) {
				out = append(out, Saying{r.Source, s.Fact, s.From, s.Until, s.Contact, s.Private})
			}
		}
	}
	for _, e := range entries {
		switch e.Kind {
		case Said:
			if e.Report == nil {
				continue
			}
			if i := past.index(e.Report.Source, &e.Report.Subject); i >= 0 {
				over(&past.reports[i], e.At)
			}
		case Expired:
			if i := past.index(e.Source, e.Subject); i >= 0 {
				over(&past.reports[i], e.At)
				past.reports[i].Spans = nil
			}
		case Left:
			for i := range past.reports {
				over(&past.reports[i], e.At)
			}
		default:
		}
		past.Apply(e)
	}
	for i := range past.reports {
		over(&past.reports[i], time.Time{})
	}
	return merged(out)
}

// merged makes one of those that say the same and meet.
func merged(all []Saying) []Saying {
	slices.SortFunc(all, func(a, b Saying) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Fact, b.Fact), cmp.Compare(a.Contact, b.Contact), a.From.Compare(b.From))
	})
	var out []Saying
	for _, s := range all {
		if n := len(out); n > 0 {
			last := &out[n-1]
			same := last.Source == s.Source && last.Fact == s.Fact && last.Contact == s.Contact && last.Private == s.Private
			if same && (last.Until.IsZero() || !s.From.After(last.Until)) {
				if s.Until.IsZero() || !last.Until.IsZero() && s.Until.After(last.Until) {
					last.Until = s.Until
				}
				continue
			}
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b Saying) int { return cmp.Or(cmp.Compare(a.Source, b.Source), a.From.Compare(b.From)) })
	return out
}

// inCall are the facts of calls, of which nobody knows when they end.
func inCall() presence.FactSet {
	return presence.Facts(presence.PhoneRinging, presence.PhoneDialing, presence.PhoneConnected, presence.PhoneHeld, presence.PhoneConference)
}

// maxAhead bounds how often somebody may change by what is known ahead.
const maxAhead = 200

// Ahead gives what a policy will come to about the person after now and until a time,
// the earliest first and each as of its Since, if nothing new is said but that the
// calls of now are over. The first is that of now.
func (p *Past) Ahead(id presence.ID, policy *presence.Policy, now, until time.Time) []presence.State {
	reports := slices.Clone(p.reports)
	for i := range reports {
		r := &reports[i]
		r.Spans = slices.Clone(r.Spans)
		for j := range r.Spans {
			if s := &r.Spans[j]; s.Until.IsZero() && inCall().Has(s.Fact) {
				s.Fact = presence.PhoneIdle
			}
		}
	}
	var out []presence.State
	for at := now; !at.IsZero() && at.Before(until) && len(out) < maxAhead; {
		s, next := policy.Decide(id, reports, at)
		s.Since = at
		out = append(out, s)
		at = next
	}
	return out
}
