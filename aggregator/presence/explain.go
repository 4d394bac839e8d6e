package presence

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Explanation is the whole reasoning behind a state.
type Explanation struct {
	Person     ID               `json:"person"`
	At         time.Time        `json:"at"`
	State      State            `json:"state"`
	Facts      []Held           `json:"facts"`      // what held, the deciding fact first
	Passed     []PassedRule     `json:"passed"`     // the rules above the one that fired, and why they did not
	Suppressed []SuppressedText `json:"suppressed"` // activities that do not go with the state
	Sources    []Heard          `json:"sources"`    // every source that ever spoke of the person
	Next       time.Time        `json:"next,omitzero"`
	HeldBack   *HeldBack        `json:"held_back,omitempty"` // nil: State is what the rules decide
	WasShown   *State           `json:"was_shown,omitempty"` // of the past: what watchers saw, where State is something else
}

// HeldBack is what the rules decide where something else still shows, because the
// person becomes easier to reach too soon or too often. State is what shows; facts and
// passed rules are those of what is held back. Explain leaves it out: it knows no
// history, and the aggregator core sets it.
type HeldBack struct {
	Availability Availability `json:"availability"`
	Activity     Activity     `json:"activity,omitempty"`
	Rule         string       `json:"rule"`
	Since        time.Time    `json:"since"` // when it was decided first
	Until        time.Time    `json:"until"` // when it shows, if it still is what the rules decide
	Why          string       `json:"why"`
}

// Held is one fact that held.
type Held struct {
	Fact    Fact      `json:"fact"`
	Source  string    `json:"source"`
	From    time.Time `json:"from"`
	Until   time.Time `json:"until,omitzero"`
	Contact string    `json:"contact,omitempty"`
	Private bool      `json:"private,omitempty"`
	Decides bool      `json:"decides,omitempty"`
	By      string    `json:"by,omitempty"` // who set it by hand
}

// A PassedRule did not fire.
type PassedRule struct {
	Rule string `json:"rule"`
	Why  string `json:"why"`
}

// A SuppressedText is an activity that held, but does not fit the decided class.
type SuppressedText struct {
	Activity Activity `json:"activity"`
	Why      string   `json:"why"`
}

// Heard is a source, when it last spoke, and how long that counts.
type Heard struct {
	Source  string        `json:"source"`
	Subject Subject       `json:"subject"`
	At      time.Time     `json:"at"`
	Age     time.Duration `json:"age"`
	Stale   bool          `json:"stale,omitempty"`
	Expired bool          `json:"expired,omitempty"`
	Expires time.Time     `json:"expires,omitzero"`
	Spans   int           `json:"spans"`
}

// Explain gives the reasoning of Decide for the same arguments.
func (p *Policy) Explain(person ID, reports []Report, now time.Time) Explanation {
	d := p.Decider()
	f := &d.found
	d.weigh(reports, reports, now, f)
	e := Explanation{Person: person, At: now, State: State{Person: person}, Next: f.next}
	d.decide(&e.State, f)
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Name == e.State.Why.Rule {
			break
		}
		e.Passed = append(e.Passed, PassedRule{r.Name, r.reluctance(f.holds, f.recent)})
	}
	for _, row := range p.Shown {
		if f.holds.Has(row.Fact) && !row.fits(e.State.Class) {
			why := fmt.Sprintf("%s shows at class %s, the state has %d", row.Activity, windows(row.Windows), e.State.Class)
			e.Suppressed = append(e.Suppressed, SuppressedText{row.Activity, why})
		}
	}
	for i := range reports {
		r := &reports[i]
		e.Sources = append(e.Sources, Heard{r.Source, r.Subject, r.At, now.Sub(r.At), r.doubted(now), r.expired(now), r.Expires, len(r.Spans)})
		if r.expired(now) {
			continue
		}
		for j := range r.Spans { // each span by itself, so that every one that holds is listed
			s := &r.Spans[j]
			one := *r
			one.Spans = r.Spans[j : j+1]
			var held finding
			d.weigh([]Report{one}, reports, now, &held)
			for fact := range held.holds.All() {
				decides := r.Source == e.State.Why.Source && fact.String() == e.State.Why.Fact && s.From.Equal(e.State.Why.From)
				one := Held{fact, r.Source, s.From, held.spans[fact].until, s.Contact, s.Private, decides, ""}
				if ManualFacts.Has(fact) {
					one.By = s.Note
				}
				e.Facts = append(e.Facts, one)
			}
		}
	}
	slices.SortFunc(e.Sources, func(a, b Heard) int { return strings.Compare(a.Source+a.Subject.String(), b.Source+b.Subject.String()) })
	slices.SortFunc(e.Facts, func(a, b Held) int {
		switch {
		case a.Decides != b.Decides:
			if a.Decides {
				return -1
			}
			return 1
		case a.Fact != b.Fact:
			return int(a.Fact) - int(b.Fact)
		default:
			return strings.Compare(a.Source+a.Contact, b.Source+b.Contact)
		}
	})
	return e
}

// reluctance says why r does not fire.
func (r *Rule) reluctance(now, recent FactSet) string {
	switch {
	case r.Any != 0 && now&r.Any == 0:
		return "none of " + r.Any.String() + " holds"
	case now&r.All != r.All:
		return "not all of " + r.All.String() + " hold"
	case now&r.None != 0:
		return (now & r.None).String() + " holds"
	case recent&r.NotRecent != 0:
		return (recent & r.NotRecent).String() + " held lately"
	default:
		return "it would have fired"
	}
}

func windows(ws []Window) string {
	var parts []string
	for _, w := range ws {
		parts = append(parts, fmt.Sprintf("%d to %d", w.Min, w.Max))
	}
	return strings.Join(parts, " or ")
}

func words(a Availability, doing Activity) string {
	if doing == NoActivity {
		return a.String()
	}
	return a.String() + ", " + doing.String()
}

// Text writes the explanation for people, times in the given zone.
func (e *Explanation) Text(zone *time.Location) string {
	var b strings.Builder
	clock := func(t time.Time) string { return t.In(zone).Format("2006-01-02 15:04:05") }
	s := &e.State
	fmt.Fprintf(&b, "%s is %s", e.Person, words(s.Availability, s.Activity))
	if names := s.Overlays.Names(); len(names) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(names, ", "))
	}
	fmt.Fprintf(&b, " at %s\n", clock(e.At))
	if !s.Since.IsZero() {
		fmt.Fprintf(&b, "  since %s\n", clock(s.Since))
	}
	fmt.Fprintf(&b, "  because of rule %s: %s\n", s.Why.Rule, s.Why.Title)
	if h := e.HeldBack; h != nil {
		fmt.Fprintf(&b, "  held back: would be %s by rule %s since %s; shows from %s, because %s\n", words(h.Availability, h.Activity), h.Rule, clock(h.Since), clock(h.Until), h.Why)
	}
	if was := e.WasShown; was != nil {
		fmt.Fprintf(&b, "  shown then: %s by rule %s since %s; a change was held back, or the rules were others\n", words(was.Availability, was.Activity), was.Why.Rule, clock(was.Since))
	}
	if !e.Next.IsZero() {
		fmt.Fprintf(&b, "  may change at %s\n", clock(e.Next))
	}
	b.WriteString("Facts that hold:\n")
	for _, h := range e.Facts {
		mark := " "
		if h.Decides {
			mark = "*"
		}
		fmt.Fprintf(&b, "  %s %-22s %-24s since %s", mark, h.Fact, h.Source, clock(h.From))
		if !h.Until.IsZero() {
			fmt.Fprintf(&b, " until %s", clock(h.Until))
		}
		if h.Contact != "" {
			fmt.Fprintf(&b, " at %s", h.Contact)
		}
		if h.By != "" {
			fmt.Fprintf(&b, " by %s", h.By)
		}
		b.WriteString("\n")
	}
	if len(e.Facts) == 0 {
		b.WriteString("    none\n")
	}
	b.WriteString("Sources:\n")
	for _, h := range e.Sources {
		fmt.Fprintf(&b, "    %-24s %-32s said so %s ago", h.Source, h.Subject, h.Age.Round(time.Second))
		switch {
		case h.Expired:
			fmt.Fprintf(&b, ", expired at %s", clock(h.Expires))
		case h.Stale:
			fmt.Fprintf(&b, ", stale, expires at %s", clock(h.Expires))
		}
		b.WriteString("\n")
	}
	if len(e.Sources) == 0 {
		b.WriteString("    none ever spoke of this person\n")
	}
	for i, r := range e.Passed {
		if i == 0 {
			b.WriteString("Rules above it that did not fire:\n")
		}
		fmt.Fprintf(&b, "    %-22s %s\n", r.Rule, r.Why)
	}
	for i, a := range e.Suppressed {
		if i == 0 {
			b.WriteString("Activities not shown:\n")
		}
		fmt.Fprintf(&b, "    %s\n", a.Why)
	}
	return b.String()
}
