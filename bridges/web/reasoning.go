package web

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"presenced/aggregator/presence"
)

// A Reasoning is an explanation as a viewer may see it. Who may not see all of the
// state sees none of the rules and sources: which rule was passed, and who was
// asked, would tell what the view leaves out.
type Reasoning struct {
	presence.Explanation

	Shown string `json:"shown,omitempty"` // how little of it is shown, in words; empty: all that is not private
}

// reasoned gives what a viewer with that access sees of e.
func reasoned(e presence.Explanation, a presence.Access) Reasoning {
	view := visible(e.State, a)
	if e.State.Why.Fact == presence.ManualOffline.String() && !a.Own {
		a = presence.Access{}
	}
	if a.Level == presence.LevelFull && a.Calendar == presence.CalendarOpen {
		e.State = view
		if was := e.WasShown; was != nil {
			e.WasShown = nil
			if was.Why.Fact != presence.ManualOffline.String() || a.Own {
				v := visible(*was, a)
				v.Channels = presence.State{}.Channels // whose contacts may be of a private entry of then
				e.WasShown = &v
			}
		}
		e.Facts = slices.Clone(e.Facts)
		for i := range e.Facts {
			if !a.Own {
				e.Facts[i].By = ""
			}
			if h := &e.Facts[i]; h.Private {
				for k := range e.State.Channels {
					if e.State.Channels[k].Contact == h.Contact {
						e.State.Channels[k].Contact = ""
					}
				}
				h.Private, h.Contact = false, ""
			}
		}
		return Reasoning{Explanation: e}
	}
	r := Reasoning{Explanation: presence.Explanation{Person: e.Person, At: e.At, State: view}, Shown: shownWords(a)}
	if a.Level != presence.LevelFull {
		return r
	}
	calendars := map[string]bool{}
	for _, h := range e.Facts {
		calendars[h.Source] = calendars[h.Source] || !besidesCalendars().Has(h.Fact)
	}
	for _, h := range e.Facts {
		if !calendars[h.Source] && !h.Private {
			h.By = ""
			r.Facts = append(r.Facts, h)
		}
	}
	if c := view.Channel(presence.Calendar); c.State != presence.ChannelUnknown { // as the view has it, not entry by entry
		h := presence.Held{Fact: presence.CalendarFree, Source: "calendar", From: c.Since, Until: c.Until}
		if c.State != presence.ChannelFree {
			h.Fact = presence.CalendarBusy
		}
		r.Facts = append(r.Facts, h)
	}
	return r
}

// besidesCalendars are the facts that no calendar and no mailbox states.
func besidesCalendars() presence.FactSet {
	return presence.Facts(
		presence.PhoneIdle, presence.PhoneRinging, presence.PhoneDialing, presence.PhoneConnected, presence.PhoneHeld, presence.PhoneConference,
		presence.PhoneDND, presence.PhoneForwarded, presence.PhoneOutOfService,
		presence.AgentReady, presence.AgentNotReady, presence.AgentAfterCall,
		presence.SessionActive, presence.SessionIdle, presence.SessionAway, presence.SessionOffline, presence.Presenting, presence.Focusing,
		presence.ManualAvailable, presence.ManualBusy, presence.ManualDND, presence.ManualBeRightBack, presence.ManualAway,
		presence.ManualOffWork, presence.ManualOutOfOffice, presence.ManualOffline,
	)
}

// shownWords says how little is shown. It does not tell who is blocked so: they
// are to look like somebody of whom there is no more to show.
func shownWords(a presence.Access) string {
	switch {
	case a.Level == presence.LevelFull && a.Calendar == presence.CalendarTimes:
		return "Of the calendar, only free and busy are shown (level full, calendar times)."
	case a.Level == presence.LevelFull:
		return "The calendar is not shown, nor what rests on it (level full, calendar hidden)."
	case a.Level == presence.LevelStatus:
		return "Only whether the person can be reached is shown (level status)."
	case a.Level == presence.LevelTelephony:
		return "Only the phone is shown (level telephony)."
	default:
		return "There is no more to show."
	}
}

// Text writes r for people, times in the given zone.
func (r *Reasoning) Text(zone *time.Location) string {
	if r.Shown == "" {
		return r.Explanation.Text(zone)
	}
	var b strings.Builder
	clock := func(t time.Time) string { return t.In(zone).Format("2006-01-02 15:04:05") }
	st := &r.State
	fmt.Fprintf(&b, "%s is %s", r.Person, st.Availability)
	if st.Activity != presence.NoActivity {
		fmt.Fprintf(&b, ", %s", st.Activity)
	}
	if names := st.Overlays.Names(); len(names) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(names, ", "))
	}
	fmt.Fprintf(&b, " at %s\n", clock(r.At))
	if !st.Since.IsZero() {
		fmt.Fprintf(&b, "  since %s\n", clock(st.Since))
	}
	if st.Why.Rule != "" {
		fmt.Fprintf(&b, "  because of rule %s: %s\n", st.Why.Rule, st.Why.Title)
	}
	fmt.Fprintf(&b, "  %s\n", r.Shown)
	for _, h := range r.Facts {
		fmt.Fprintf(&b, "    %-22s %-24s since %s", h.Fact, h.Source, clock(h.From))
		if !h.Until.IsZero() {
			fmt.Fprintf(&b, " until %s", clock(h.Until))
		}
		b.WriteString("\n")
	}
	return b.String()
}
