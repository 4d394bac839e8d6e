package journal

import (
	"slices"
	"time"

	"presenced/aggregator/presence"
)

// A Past is what was known about one person at some time, built up from entries in
// their order.
type Past struct {
	reports []presence.Report
	Shown   presence.State // what watchers saw last
	At      time.Time      // of the last entry
}

// Apply takes the next entry; entries about another person are the caller's mistake.
func (p *Past) Apply(e Entry) {
	p.At = e.At
	switch e.Kind {
	case Said:
		if e.Report == nil {
			return
		}
		if i := p.index(e.Report.Source, &e.Report.Subject); i >= 0 {
			p.reports[i] = *e.Report
		} else {
			p.reports = append(p.reports, *e.Report)
		}
	case Doubted:
		if i := p.index(e.Source, e.Subject); i >= 0 {
			p.reports[i].Doubted = e.At
		}
	case Expired:
		if i := p.index(e.Source, e.Subject); i >= 0 {
			p.reports[i].Expires = e.At
		}
	case Shown:
		if e.State != nil {
			p.Shown = *e.State
		}
	case Left:
		*p = Past{At: e.At}
	}
}

func (p *Past) index(source string, subject *presence.Subject) int {
	if subject == nil {
		return -1
	}
	return slices.IndexFunc(p.reports, func(r presence.Report) bool { return r.Source == source && r.Subject == *subject })
}

// Reports gives what the sources had said; not to be changed.
func (p *Past) Reports() []presence.Report { return p.reports }

// A Difference is a stretch of time in which another policy would have decided
// otherwise about a person.
type Difference struct {
	Person     presence.ID    `json:"person"`
	From       time.Time      `json:"from"`
	Until      time.Time      `json:"until"` // zero: it lasts
	Was, Would presence.State `json:"-"`
	WasWords   string         `json:"was"`   // availability/activity by rule
	WouldWords string         `json:"would"` // the same, by the other policy
}

// Compare runs two policies over the entries about one person and gives where they
// differ in availability or activity between since and until. The entries are to
// begin well before since, so that what was known then is known here.
func Compare(id presence.ID, entries []Entry, was, would *presence.Policy, since, until time.Time) []Difference {
	var past Past
	var out []Difference
	var open *Difference
	look := func(at time.Time) (next time.Time) {
		a, nextA := was.Decide(id, past.reports, at)
		b, nextB := would.Decide(id, past.reports, at)
		same := a.Availability == b.Availability && a.Activity == b.Activity
		if open != nil && (same || open.Was.Availability != a.Availability || open.Was.Activity != a.Activity ||
			open.Would.Availability != b.Availability || open.Would.Activity != b.Activity) {
			open.Until = at
			out, open = append(out, *open), nil
		}
		if !same && open == nil {
			open = &Difference{Person: id, From: at, Was: a, Would: b, WasWords: words(&a), WouldWords: words(&b)}
		}
		return earliest(nextA, nextB)
	}
	// advance looks at every moment from one entry to the next at which either policy may decide otherwise.
	advance := func(from, to time.Time) {
		for at := from; !at.IsZero() && at.Before(to); {
			at = look(at)
		}
	}
	from := time.Time{}
	for _, e := range entries {
		if e.At.After(until) {
			break
		}
		if !from.IsZero() && e.At.After(from) {
			if e.At.After(since) {
				advance(later(from, since), e.At)
			}
		}
		past.Apply(e)
		from = e.At
	}
	if !from.IsZero() {
		advance(later(from, since), until)
	}
	if open != nil {
		out = append(out, *open)
	}
	return out
}

func words(s *presence.State) string {
	text := s.Availability.String()
	if s.Activity != presence.NoActivity {
		text += "/" + s.Activity.String()
	}
	return text + " by " + s.Why.Rule
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	switch {
	case a.IsZero():
		return b
	case b.IsZero() || a.Before(b):
		return a
	default:
		return b
	}
}
