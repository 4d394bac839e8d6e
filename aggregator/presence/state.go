package presence

import (
	"fmt"
	"hash/maphash"
	"iter"
	"math"
	"time"
)

// Availability is the one answer to "can this person be reached".
type Availability uint8

// The availabilities. Unknown is the zero value: nothing was ever known.
const (
	Unknown     Availability = iota // never known, or not monitored
	Unavailable                     // something was known, and all of it expired
	OutOfOrder                      // the source reports a fault
	Offline
	OffWork
	OutOfOffice
	Away
	BeRightBack
	DoNotDisturb
	Busy
	Available

	availabilityCount
)

var availabilityNames = [availabilityCount]string{ //nolint:gochecknoglobals // a table, never changed
	Unknown: "unknown", Unavailable: "unavailable", OutOfOrder: "out-of-order", Offline: "offline", OffWork: "off-work",
	OutOfOffice: "out-of-office", Away: "away", BeRightBack: "brb", DoNotDisturb: "dnd", Busy: "busy", Available: "available",
}

// classes are the numeric classes for interworking: a smaller one is easier to reach.
var classes = [availabilityCount]int{ //nolint:gochecknoglobals // a table, never changed
	Available: 3500, Busy: 6500, DoNotDisturb: 9500, BeRightBack: 12500, Away: 15500, OutOfOffice: 15500, OffWork: 15500,
	Offline: 18500, OutOfOrder: 18500, Unavailable: 18500, Unknown: 18500,
}

// Finer classes, which decide what activity goes with an availability.
const (
	ClassIdle       = 4500 // available, but the client is not in use
	ClassUrgentOnly = 6900 // busy to those who may interrupt a do-not-disturb
	ClassConference = 7000 // busy in a conference
	ClassBusyIdle   = 7500 // busy, and the client is not in use
)

// Class gives the numeric class of a.
func (a Availability) Class() int { return classes[a] }

// EasierThan tells whether somebody is easier to reach at a than at b.
func (a Availability) EasierThan(b Availability) bool { return classes[a] < classes[b] }

// String gives the name used everywhere: available, busy, dnd, brb, away, ...
func (a Availability) String() string { return availabilityNames[a] }

// MarshalText gives the name.
func (a Availability) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText accepts a name.
func (a *Availability) UnmarshalText(text []byte) error {
	for i, n := range availabilityNames {
		if n == string(text) {
			*a = Availability(i) //nolint:gosec // bounded by the table
			return nil
		}
	}
	return fmt.Errorf("unknown availability %q", text)
}

// Availabilities gives all of them, the easiest to reach first.
func Availabilities() iter.Seq[Availability] {
	return func(yield func(Availability) bool) {
		for a := Available; ; a-- {
			if !yield(a) || a == Unknown {
				return
			}
		}
	}
}

// Activity says what a person does; it explains an availability.
type Activity uint8

// The activities, in the order in which one is preferred to another where
// several fit (presenting before conference before phone before meeting before
// appointment). NoActivity is the zero value.
const (
	NoActivity Activity = iota
	ActivityPresenting
	ActivityFocusing
	ActivityUrgentOnly
	ActivityConference
	ActivityPhone
	ActivityHold
	ActivityMeeting
	ActivityAppointment
	ActivityTentative
	ActivityOutOfOffice
	ActivityVacation
	ActivityBreak
	ActivityIdle
	ActivityElsewhere
	ActivityDialing
	ActivityRinging

	activityCount
)

var activityNames = [activityCount]string{ //nolint:gochecknoglobals // a table, never changed
	NoActivity: "", ActivityPresenting: "presenting", ActivityFocusing: "focusing", ActivityUrgentOnly: "urgent-only",
	ActivityConference: "in-a-conference", ActivityPhone: "on-the-phone", ActivityHold: "on-hold", ActivityMeeting: "in-a-meeting",
	ActivityAppointment: "appointment", ActivityTentative: "tentative", ActivityOutOfOffice: "out-of-office", ActivityVacation: "vacation",
	ActivityBreak: "break", ActivityIdle: "idle", ActivityElsewhere: "working-elsewhere", ActivityDialing: "dialing", ActivityRinging: "ringing",
}

// String gives the name; NoActivity is the empty string.
func (a Activity) String() string { return activityNames[a] }

// MarshalText gives the name.
func (a Activity) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText accepts a name.
func (a *Activity) UnmarshalText(text []byte) error {
	for i, n := range activityNames {
		if n == string(text) {
			*a = Activity(i) //nolint:gosec // bounded by the table
			return nil
		}
	}
	return fmt.Errorf("unknown activity %q", text)
}

// Overlays qualify a state without changing it.
type Overlays uint8

// The overlays.
const (
	OverlayOutOfOffice Overlays = 1 << iota // out of office, yet reachable
	OverlayStale                            // rests on a source that cannot be asked just now
	OverlayPrivate                          // rests on a private entry; never shown to watchers
	OverlayExpires                          // set by hand, and ends by itself at Until
)

var overlayNames = []string{"oof", "stale", "private", "expires-at"} //nolint:gochecknoglobals // a table, never changed

// Names gives the names of the overlays that are set.
func (o Overlays) Names() []string {
	var names []string
	for i, n := range overlayNames {
		if o&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// Has tells whether all of other are set.
func (o Overlays) Has(other Overlays) bool { return o&other == other }

// MarshalText gives the names, joined by commas.
func (o Overlays) MarshalText() ([]byte, error) {
	var out []byte
	for i, n := range o.Names() {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, n...)
	}
	return out, nil
}

// UnmarshalText accepts what MarshalText gives.
func (o *Overlays) UnmarshalText(text []byte) error {
	*o = 0
	start := 0
	for i := 0; i <= len(text); i++ {
		if i < len(text) && text[i] != ',' {
			continue
		}
		if name := string(text[start:i]); name != "" {
			found := false
			for bit, n := range overlayNames {
				if n == name {
					*o |= 1 << bit
					found = true
				}
			}
			if !found {
				return fmt.Errorf("unknown overlay %q", name)
			}
		}
		start = i + 1
	}
	return nil
}

// ChannelKind names a communication channel of a person.
type ChannelKind uint8

// The channels.
const (
	Phone ChannelKind = iota
	Calendar
	Messaging
	Video

	ChannelCount = int(Video) + 1
)

// String gives phone, calendar, im or video.
func (k ChannelKind) String() string {
	return [ChannelCount]string{"phone", "calendar", "im", "video"}[k]
}

// ChannelState is what one channel is doing. The order is that of precedence:
// where several devices of a channel differ, the highest is shown.
type ChannelState uint8

// The channel states.
const (
	ChannelUnknown      ChannelState = iota // nothing is known
	ChannelUnavailable                      // out of service, signed out
	ChannelIdle                             // phone: no call
	ChannelFree                             // calendar: nothing in it
	ChannelForwarded                        // phone: no call, and all calls are forwarded
	ChannelDND                              // phone: no call, and do not disturb is set; messaging: do not disturb
	ChannelElsewhere                        // calendar: working elsewhere
	ChannelTentative                        // calendar
	ChannelAllDay                           // calendar: busy all day
	ChannelOffline                          // messaging
	ChannelAway                             // messaging
	ChannelInactive                         // messaging: idle
	ChannelActive                           // messaging
	ChannelRinging                          // phone
	ChannelHeld                             // phone: on hold
	ChannelDialing                          // phone
	ChannelInUse                            // phone: in a call
	ChannelConference                       // phone: in a conference
	ChannelInUseRinging                     // phone: in a call or on hold, and another call alerts
	ChannelBusy                             // calendar: an appointment; messaging: busy
	ChannelMeeting                          // calendar: a meeting
	ChannelOutOfOffice                      // calendar

	channelStateCount
)

var channelStateNames = [channelStateCount]string{ //nolint:gochecknoglobals // a table, never changed
	ChannelUnknown: "unknown", ChannelUnavailable: "unavailable", ChannelIdle: "idle", ChannelFree: "free", ChannelForwarded: "forwarded",
	ChannelDND: "dnd", ChannelElsewhere: "elsewhere", ChannelTentative: "tentative", ChannelAllDay: "all-day", ChannelOffline: "offline",
	ChannelAway: "away", ChannelInactive: "inactive", ChannelActive: "active", ChannelRinging: "ringing", ChannelDialing: "dialing",
	ChannelHeld: "held", ChannelInUse: "in-use", ChannelConference: "conference", ChannelInUseRinging: "in-use+ringing", ChannelBusy: "busy",
	ChannelMeeting: "meeting", ChannelOutOfOffice: "out-of-office",
}

// String gives the name.
func (c ChannelState) String() string { return channelStateNames[c] }

// MarshalText gives the name.
func (c ChannelState) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText accepts a name.
func (c *ChannelState) UnmarshalText(text []byte) error {
	for i, n := range channelStateNames {
		if n == string(text) {
			*c = ChannelState(i) //nolint:gosec // bounded by the table
			return nil
		}
	}
	return fmt.Errorf("unknown channel state %q", text)
}

// A Channel is one communication resource of a person.
type Channel struct {
	State   ChannelState `json:"state"`
	Contact string       `json:"contact,omitempty"`
	Since   time.Time    `json:"since,omitzero"`
	Until   time.Time    `json:"until,omitzero"`
}

// A Reason says why a state is what it is: the rule that fired, and the report
// and fact that made it fire. Source is empty where no single report did.
type Reason struct {
	Rule   string    `json:"rule"`
	Title  string    `json:"title"` // the rule in words, for people
	Source string    `json:"source,omitempty"`
	Fact   string    `json:"fact,omitempty"`
	From   time.Time `json:"from,omitzero"` // since when that fact holds
}

// ByHand tells whether what the person set by hand decided.
func (r *Reason) ByHand() bool {
	fact, err := ParseFact(r.Fact)
	return err == nil && ManualFacts.Has(fact)
}

// A State is what watchers see of one person, before access rules (View).
type State struct {
	Person       ID           `json:"person"`
	Availability Availability `json:"availability"`
	Activity     Activity     `json:"activity,omitempty"` // the one shown
	Class        int          `json:"class"`
	Overlays     Overlays     `json:"overlays,omitempty"`

	Channels [ChannelCount]Channel `json:"channels"` // indexed by ChannelKind

	// Since is when this availability and activity began; Decide leaves it
	// zero, because it knows no history: the aggregator core sets it. Until is
	// when the deciding fact ends, zero if that is not known.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`

	Why      Reason `json:"why"`
	Revision uint64 `json:"revision"` // rises with every change of this person; set by the core
}

// Channel gives one channel.
func (s *State) Channel(k ChannelKind) Channel { return s.Channels[k] }

// Same tells whether a watcher would see no difference between s and t: all but
// Since and Revision is equal.
func (s *State) Same(t *State) bool {
	for i := range s.Channels {
		a, b := &s.Channels[i], &t.Channels[i]
		if a.State != b.State || a.Contact != b.Contact || !a.Since.Equal(b.Since) || !a.Until.Equal(b.Until) {
			return false
		}
	}
	return s.Person == t.Person && s.Availability == t.Availability && s.Activity == t.Activity && s.Class == t.Class &&
		s.Overlays == t.Overlays && s.Until.Equal(t.Until) && s.Why.same(&t.Why)
}

func (r *Reason) same(o *Reason) bool {
	return r.Rule == o.Rule && r.Title == o.Title && r.Source == o.Source && r.Fact == o.Fact && r.From.Equal(o.From)
}

// Fingerprint gives a number that is equal for states of one person that are the same,
// and different for others, but for one pair in 2^48 (the upper sixteen bits are
// zero).
func (s *State) Fingerprint(seed maphash.Seed) uint64 {
	h := uint64(s.Availability)<<48 | uint64(s.Activity)<<40 | uint64(s.Overlays)<<32 | uint64(s.Class)&math.MaxUint32 //nolint:gosec // only bits
	add := func(v uint64) {
		h = (h ^ v) * 0x9E3779B97F4A7C15 // odd, with its bits all over the word
		h ^= h >> 32
	}
	text := func(t string) {
		if t == "" {
			add(0)
		} else {
			add(maphash.String(seed, t))
		}
	}
	moment := func(t time.Time) {
		add(uint64(t.Unix()))       //nolint:gosec // only bits
		add(uint64(t.Nanosecond())) //nolint:gosec // not negative
	}
	for i := range s.Channels {
		if c := &s.Channels[i]; c.State != ChannelUnknown || c.Contact != "" || !c.Since.IsZero() || !c.Until.IsZero() {
			add(uint64(i)<<8 | uint64(c.State))
			text(c.Contact)
			moment(c.Since)
			moment(c.Until)
		}
	}
	moment(s.Until)
	text(s.Why.Rule)
	text(s.Why.Title)
	text(s.Why.Source)
	text(s.Why.Fact)
	moment(s.Why.From)
	return h >> 16
}

// Text gives the state in words, such as "On the phone" or "Out of office".
func (s *State) Text() string {
	if t := activityTexts[s.Activity]; t != "" && s.Availability != DoNotDisturb {
		return t
	}
	return availabilityTexts[s.Availability]
}

var availabilityTexts = [availabilityCount]string{ //nolint:gochecknoglobals // a table, never changed
	Unknown: "Unknown", Unavailable: "Unavailable", OutOfOrder: "Out of order", Offline: "Offline", OffWork: "Off work",
	OutOfOffice: "Out of office", Away: "Away", BeRightBack: "Be right back", DoNotDisturb: "Do not disturb", Busy: "Busy", Available: "Available",
}

var activityTexts = [activityCount]string{ //nolint:gochecknoglobals // a table, never changed
	ActivityPresenting: "Presenting", ActivityFocusing: "Focusing", ActivityUrgentOnly: "Urgent interruptions only",
	ActivityConference: "In a conference", ActivityPhone: "On the phone", ActivityHold: "On hold", ActivityMeeting: "In a meeting",
	ActivityAppointment: "Appointment", ActivityTentative: "Tentative", ActivityOutOfOffice: "Out of office", ActivityVacation: "On vacation",
	ActivityBreak: "On a break", ActivityIdle: "Idle", ActivityElsewhere: "Working elsewhere", ActivityDialing: "Dialing", ActivityRinging: "Ringing",
}

// Words gives a in words; the empty string for NoActivity.
func (a Activity) Words() string { return activityTexts[a] }

// Words gives a in words.
func (a Availability) Words() string { return availabilityTexts[a] }
