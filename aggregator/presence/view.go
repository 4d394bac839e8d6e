package presence

import "time"

// An Audience is how much of a state a watcher may see.
type Audience uint8

// The audiences.
const (
	Everyone Audience = iota // the state as decided, without private overlays
	Urgent                   // may interrupt: sees busy and urgent-only for a do-not-disturb set by hand
	Blocked                  // politely ignored: sees offline, frozen, without times
)

// View gives what the audience sees of s. It is pure.
func View(s State, who Audience) State {
	switch who {
	case Blocked:
		return State{Person: s.Person, Availability: Offline, Class: Offline.Class()}
	case Urgent:
		if s.Why.Rule == "manual-dnd" {
			s.Availability, s.Activity, s.Class = Busy, ActivityUrgentOnly, ClassUrgentOnly
		}
	case Everyone:
	}
	s.Overlays &^= OverlayPrivate
	return s
}

// ManualLife is how long a state set by hand lasts where the person names no
// end: busy and do not disturb a day; available until the calendar entry that
// holds now is over, else eight hours, and never past the end of the working
// hours. All others last until they are cleared, and the zero time is given.
func ManualLife(fact Fact, reports []Report, now time.Time) time.Time {
	switch fact {
	case ManualBusy, ManualDND:
		return now.Add(24 * time.Hour)
	case ManualAvailable:
	default:
		return time.Time{}
	}
	var event, closing time.Time // latest end of the entries that hold now; earliest start of the off hours
	for _, r := range reports {
		if r.expired(now) {
			continue
		}
		for _, s := range r.Spans {
			switch s.Fact {
			case CalendarBusy, CalendarMeeting, CalendarOutOfOffice, CalendarTentative:
				if !now.Before(s.From) && now.Before(s.Until) && s.Until.After(event) {
					event = s.Until
				}
			case OffHours:
				if s.From.After(now) && (closing.IsZero() || s.From.Before(closing)) {
					closing = s.From
				}
			default:
			}
		}
	}
	end := event
	if end.IsZero() {
		end = now.Add(8 * time.Hour)
	}
	if !closing.IsZero() && closing.Before(end) {
		end = closing
	}
	return end
}
