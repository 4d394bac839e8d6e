package presence_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

// drawState draws any state, not only those that a policy comes to.
func drawState(t *rapid.T) presence.State {
	s := presence.State{
		Person:       "x",
		Availability: presence.Availability(rapid.IntRange(0, int(presence.Available)).Draw(t, "availability")),
		Activity:     presence.Activity(rapid.IntRange(0, int(presence.ActivityRinging)).Draw(t, "activity")),
		Overlays:     presence.Overlays(rapid.IntRange(0, 15).Draw(t, "overlays")),
		Revision:     rapid.Uint64Range(0, 3).Draw(t, "revision"),
		Since:        moment(t, "since"),
		Until:        moment(t, "until"),
	}
	s.Class = s.Availability.Class()
	if s.Availability == presence.Busy && rapid.Bool().Draw(t, "conference") {
		s.Class = presence.ClassConference
	}
	for k := range s.Channels {
		s.Channels[k] = drawChannel(t)
	}
	s.Why = drawReason(t)
	return s
}

func drawChannel(t *rapid.T) presence.Channel {
	return presence.Channel{
		State: presence.ChannelState(rapid.IntRange(0, int(presence.ChannelOutOfOffice)).Draw(t, "channel")),
		Since: moment(t, "since"), Until: moment(t, "until"), Contact: rapid.SampledFrom([]string{"", "tel:1", "tel:2"}).Draw(t, "contact"),
	}
}

func drawReason(t *rapid.T) presence.Reason {
	facts := []string{"", "no-such-fact"}
	for f := range presence.Expired {
		facts = append(facts, f.String())
	}
	if rapid.IntRange(0, 9).Draw(t, "removed") == 9 {
		return presence.Reason{Rule: presence.RuleRemoved} // no fact goes with it
	}
	return presence.Reason{
		Rule: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "rule"), Fact: rapid.SampledFrom(facts).Draw(t, "fact"),
		Source: rapid.SampledFrom([]string{"", "aes", "exchange"}).Draw(t, "source"), From: moment(t, "from"),
	}
}

// changeOne draws another value for one field of s.
func changeOne(t *rapid.T, s presence.State) presence.State {
	other := drawState(t)
	switch rapid.IntRange(0, 12).Draw(t, "field") {
	case 0:
		s.Availability, s.Class = other.Availability, other.Class
	case 1:
		s.Activity = other.Activity
	case 2:
		s.Overlays = other.Overlays
	case 3:
		s.Since = other.Since
	case 4:
		s.Until = other.Until
	case 5:
		s.Revision = other.Revision
	case 6:
		s.Why = other.Why
	case 7:
		s.Overlays ^= presence.OverlayPrivate
	case 8:
		s.Channels[presence.Calendar].Contact += "x"
	default:
		k := rapid.IntRange(0, presence.ChannelCount-1).Draw(t, "which")
		s.Channels[k] = other.Channels[k]
	}
	return s
}

// steps are accesses of which the lower one must tell nothing that the higher one
// does not.
func steps() [][2]presence.Access {
	full := presence.Everyone()
	with := func(a presence.Access, edit func(*presence.Access)) presence.Access { edit(&a); return a }
	status, telephony := presence.Access{Level: presence.LevelStatus}, presence.Access{Level: presence.LevelTelephony}
	times := with(full, func(a *presence.Access) { a.Calendar = presence.CalendarTimes })
	hidden := with(full, func(a *presence.Access) { a.Calendar = presence.CalendarHidden })
	return [][2]presence.Access{
		{{}, {Level: presence.LevelConfirm}},
		{{Level: presence.LevelConfirm}, {}},
		{{}, telephony},
		{{}, status},
		{{Unknown: true}, status},
		{telephony, full},
		{status, full},
		{hidden, times},
		{times, full},
		{telephony, hidden}, // a calendar never reaches those two
		{status, hidden},
	}
}

// What two states have in common for who sees more, they have in common for who sees
// less: a lower level tells nothing that a higher one does not. The states differ in
// one field, so that the views are often the same.
func TestLowerTellsNoMore(t *testing.T) {
	same := make([]int, len(steps()))
	rapid.Check(t, func(t *rapid.T) {
		a := drawState(t)
		b := changeOne(t, a)
		for i, step := range steps() {
			if presence.View(a, step[1]) != presence.View(b, step[1]) {
				continue
			}
			if a != b {
				same[i]++
			}
			if low, other := presence.View(a, step[0]), presence.View(b, step[0]); low != other {
				t.Fatalf("%+v tells apart what %+v does not\n%+v\n%+v\nof\n%+v\n%+v", step[0], step[1], low, other, a, b)
			}
		}
	})
	for i, n := range same {
		if n == 0 && steps()[i][1] != presence.Everyone() { // which shows all of most states
			t.Errorf("%+v: no two states were the same", steps()[i])
		}
	}
}

// accesses gives every access there is.
func accesses() (all []presence.Access) {
	for level := range presence.LevelFull + 1 {
		for calendar := range presence.CalendarOpen + 1 {
			for bits := range 4 {
				all = append(all, presence.Access{Level: level, Calendar: calendar, Urgent: bits&1 != 0, Unknown: bits&2 != 0})
			}
		}
	}
	return all
}

// Whatever the access, no view has the private overlay; who may see nothing sees no
// time; status tells no time and no reason; telephony no other channel.
func TestWhatNoViewShows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		for _, a := range accesses() {
			v := presence.View(s, a)
			if v.Overlays.Has(presence.OverlayPrivate) {
				t.Fatalf("%+v shows that an entry is private", a)
			}
			none := [presence.ChannelCount]presence.Channel{}
			switch {
			case !a.Shows():
				want := presence.State{Person: "x", Availability: presence.Offline, Class: presence.Offline.Class()}
				if a.Unknown {
					want.Availability = presence.Unknown
				}
				if v != want {
					t.Fatalf("%+v sees %+v", a, v)
				}
			case a.Level == presence.LevelStatus:
				if v.Channels != none || !v.Since.IsZero() || !v.Until.IsZero() || v.Why != (presence.Reason{}) || v.Overlays&^presence.OverlayStale != 0 || v.Revision != 0 {
					t.Fatalf("%+v sees %+v", a, v)
				}
				if v.Activity == presence.NoActivity && v.Class != v.Availability.Class() {
					t.Fatalf("%+v tells more than the state by its class: %+v", a, v)
				}
				if v.Activity != presence.NoActivity && v.Activity != presence.ActivityUrgentOnly {
					t.Fatalf("%+v sees %s", a, v.Activity)
				}
			case a.Level == presence.LevelTelephony:
				v.Channels[presence.Phone] = presence.Channel{}
				if v.Channels != none || v.Why != (presence.Reason{}) {
					t.Fatalf("%+v sees %+v", a, v)
				}
			case a.Calendar == presence.CalendarHidden:
				if v.Channels[presence.Calendar] != (presence.Channel{}) || v.Overlays.Has(presence.OverlayOutOfOffice) {
					t.Fatalf("%+v sees %+v", a, v)
				}
				if s.Why.Fact == presence.CalendarMeeting.String() && (!v.Until.IsZero() || v.Why != (presence.Reason{})) {
					t.Fatalf("%+v sees until when the meeting is: %+v", a, v)
				}
			case a.Calendar == presence.CalendarTimes:
				c := v.Channels[presence.Calendar]
				if !slices.Contains([]presence.ChannelState{presence.ChannelUnknown, presence.ChannelFree, presence.ChannelBusy}, c.State) || c.Contact != "" {
					t.Fatalf("%+v sees %+v", a, c)
				}
			}
		}
	})
}

// A private entry looks to everybody as one that is not private and an appointment
// would: nobody can tell them apart.
func TestPrivateLooksLikeAppointment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, now := drawPolicy(t), moment(t, "now")
		entry := presence.Span{Fact: presence.CalendarMeeting, From: moment(t, "from"), Private: true}
		entry.Until = entry.From.Add(time.Hour)
		appointment := entry
		appointment.Fact, appointment.Private = presence.CalendarBusy, false
		others := drawReports(t)
		see := func(s presence.Span, a presence.Access) presence.State {
			r := presence.Report{Source: "calendar", Subject: presence.Subject{Scheme: "mail", Value: "x"}, At: noon, Spans: []presence.Span{s}}
			state, _ := p.Decide("x", append(slices.Clone(others), r), now)
			return presence.View(state, a)
		}
		for _, step := range steps() {
			for _, a := range step {
				if one, other := see(entry, a), see(appointment, a); one != other {
					t.Fatalf("%+v tells that it is private\n%+v\n%+v", a, one, other)
				}
			}
		}
	})
}

// TestViewsOf has the cases that people ask about.
func TestViewsOf(t *testing.T) {
	until := noon.Add(time.Hour)
	meeting := presence.State{
		Person: "x", Availability: presence.Busy, Activity: presence.ActivityMeeting, Class: 6500, Since: noon, Until: until,
		Overlays: presence.OverlayPrivate | presence.OverlayStale, Why: presence.Reason{Rule: "meeting", Fact: "calendar-meeting"},
	}
	meeting.Channels[presence.Phone] = presence.Channel{State: presence.ChannelIdle, Since: noon.Add(-time.Hour), Contact: "tel:1"}
	meeting.Channels[presence.Calendar] = presence.Channel{State: presence.ChannelMeeting, Since: noon, Until: until}
	dnd := presence.State{Person: "x", Availability: presence.DoNotDisturb, Class: 9500, Why: presence.Reason{Rule: "manual-dnd", Fact: "manual-dnd"}}
	dnd.Channels[presence.Phone] = presence.Channel{State: presence.ChannelInUse, Since: noon}
	invisible := presence.State{Person: "x", Availability: presence.Offline, Class: 18500, Why: presence.Reason{Rule: "manual-offline", Fact: "manual-offline"}}
	invisible.Channels[presence.Phone] = presence.Channel{State: presence.ChannelInUse, Since: noon}
	for _, c := range []struct {
		name   string
		s      presence.State
		access presence.Access
		want   string
	}{
		{"a meeting, open", meeting, presence.Everyone(), "busy/in-a-meeting [stale] phone=idle calendar=meeting until 13:00 by meeting"},
		{"a meeting, times", meeting, presence.Access{Level: presence.LevelFull, Calendar: presence.CalendarTimes}, "busy/ [stale] phone=idle calendar=busy until 13:00 by "},
		{"a meeting, hidden", meeting, presence.Access{Level: presence.LevelFull}, "busy/ [stale] phone=idle calendar=unknown until - by "},
		{"a meeting, status", meeting, presence.Access{Level: presence.LevelStatus}, "busy/ [stale] phone=unknown calendar=unknown until - by "},
		{"a meeting, telephony", meeting, presence.Access{Level: presence.LevelTelephony}, "available/ [stale] phone=idle calendar=unknown until - by "},
		{"a meeting, blocked", meeting, presence.Access{}, "offline/ [] phone=unknown calendar=unknown until - by "},
		{"do not disturb, urgent", dnd, presence.Access{Level: presence.LevelFull, Urgent: true}, "busy/urgent-only [] phone=in-use calendar=unknown until - by "},
		{"do not disturb, status, urgent", dnd, presence.Access{Level: presence.LevelStatus, Urgent: true}, "busy/urgent-only [] phone=unknown calendar=unknown until - by "},
		{"do not disturb, telephony", dnd, presence.Access{Level: presence.LevelTelephony}, "busy/on-the-phone [] phone=in-use calendar=unknown until - by "},
		{"invisible, own", invisible, presence.Access{Level: presence.LevelFull, Own: true}, "offline/ [] phone=in-use calendar=unknown until - by "},
		{"invisible", invisible, presence.Everyone(), "offline/ [] phone=unknown calendar=unknown until - by "},
		{"invisible, telephony", invisible, presence.Access{Level: presence.LevelTelephony}, "offline/ [] phone=unknown calendar=unknown until - by "},
	} {
		v := presence.View(c.s, c.access)
		until := "-"
		if !v.Until.IsZero() {
			until = v.Until.Format("15:04")
		}
		phone, calendar := v.Channel(presence.Phone), v.Channel(presence.Calendar)
		got := fmt.Sprintf("%s/%s %v phone=%s calendar=%s until %s by %s", v.Availability, v.Activity, v.Overlays.Names(), phone.State, calendar.State, until, v.Why.Rule)
		if got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.name, got, c.want)
		}
	}
}
