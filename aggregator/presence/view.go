package presence

import "time"

// View gives what a watcher with that access sees of s. It is pure. No view has
// the private overlay.
func View(s State, a Access) State {
	s.Overlays &^= OverlayPrivate
	if s.Why.Fact == ManualOffline.String() && !a.Own { // who appears offline does so in every respect
		a.Level = min(a.Level, LevelBlock)
	}
	urgent := a.Urgent && s.Why.Fact == ManualDND.String()
	switch a.Level {
	case LevelFull:
		s = calendarView(s, a.Calendar)
	case LevelStatus:
		s = State{Person: s.Person, Availability: s.Availability, Class: s.Availability.Class(), Overlays: s.Overlays & OverlayStale}
	case LevelTelephony:
		return phoneView(s)
	default:
		hidden := Offline
		if a.Unknown {
			hidden = Unknown
		}
		return State{Person: s.Person, Availability: hidden, Class: hidden.Class()}
	}
	if urgent {
		s.Availability, s.Activity, s.Class = Busy, ActivityUrgentOnly, ClassUrgentOnly
	}
	return s
}

// calendarView takes out what s tells of the calendar beyond p.
func calendarView(s State, p CalendarPrivacy) State {
	if p == CalendarOpen {
		return s
	}
	c := &s.Channels[Calendar]
	c.Contact = ""
	switch c.State {
	case ChannelUnknown, ChannelFree:
	case ChannelElsewhere, ChannelTentative, ChannelAllDay: // which leave the person free
		c.State = ChannelFree
	default:
		c.State = ChannelBusy
	}
	switch s.Activity {
	case ActivityMeeting, ActivityAppointment, ActivityTentative, ActivityElsewhere, ActivityVacation, ActivityOutOfOffice:
		s.Activity = NoActivity
	default:
	}
	s.Why = Reason{} // rules may name the calendar in their titles, whatever fired them
	if p == CalendarHidden {
		*c = Channel{}
		s.Overlays &^= OverlayOutOfOffice | OverlayExpires
		s.Until = time.Time{} // it may be that of an entry, also where a person is available by hand for as long as one lasts
	}
	return s
}

// phoneView is all that the phone channel tells.
func phoneView(s State) State {
	phone := s.Channels[Phone]
	v := State{Person: s.Person, Availability: Available, Overlays: s.Overlays & OverlayStale, Since: phone.Since, Until: phone.Until}
	v.Channels[Phone] = phone
	switch phone.State {
	case ChannelUnknown:
		v.Availability = Unknown
	case ChannelUnavailable:
		v.Availability = Offline
	case ChannelDND:
		v.Availability = DoNotDisturb
	case ChannelHeld:
		v.Availability, v.Activity = Busy, ActivityHold
	case ChannelConference:
		v.Availability, v.Activity = Busy, ActivityConference
	case ChannelDialing, ChannelInUse, ChannelInUseRinging:
		v.Availability, v.Activity = Busy, ActivityPhone
	default: // idle, ringing, forwarded
	}
	v.Class = v.Availability.Class()
	return v
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
