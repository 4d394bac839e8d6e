package presence

import (
	"fmt"
	"iter"
	"math/bits"
	"strings"
)

// A Fact is one thing that a source may state about a person. The list is
// closed; there are at most 64, so that a set of facts is one machine word.
type Fact uint8

// The facts, grouped by the kind of source that knows them.
const (
	PhoneIdle         Fact = iota // in service, and no call at the device
	PhoneRinging                  // a call alerts at the device
	PhoneDialing                  // off hook, or an outgoing call that nobody answered yet
	PhoneConnected                // in a call
	PhoneHeld                     // a call on hold at the device
	PhoneConference               // connected with two or more other parties
	PhoneDND                      // do not disturb; on Communication Manager this is Send All Calls
	PhoneForwarded                // all calls are forwarded
	PhoneOutOfService             // not registered, or out of service

	AgentReady     // a contact-centre agent waits for calls
	AgentNotReady  // logged on, takes no calls
	AgentAfterCall // wraps up after a call

	CalendarFree        // the calendar was read, and nothing is in it
	CalendarTentative   // a tentative entry
	CalendarBusy        // an entry shown as busy that is no meeting, or not known to be one
	CalendarAllDay      // an entry shown as busy that lasts all day
	CalendarMeeting     // a meeting shown as busy
	CalendarElsewhere   // working elsewhere
	CalendarOutOfOffice // an entry shown as out of office
	AutoReply           // automatic replies are in effect
	OffHours            // outside the person's working hours

	SessionActive  // a client is in use
	SessionIdle    // a client is open, not used for a while
	SessionAway    // a client is open, not used for a long while, or set to away
	SessionOffline // a client is known to be signed out
	SessionBusy    // a client says busy
	SessionDND     // a client says do not disturb
	Presenting     // sharing a screen with others
	Focusing       // asked not to be interrupted for a task

	ManualAvailable // set by the person, like all below
	ManualBusy
	ManualDND
	ManualBeRightBack
	ManualAway
	ManualOffWork
	ManualOutOfOffice
	ManualOffline

	Fault // the source reports that it, or the device, is broken

	// Expired is derived by Decide, never stated by a source: something was
	// known of the person, and its time is over.
	Expired

	factCount
)

var factNames = [factCount]string{ //nolint:gochecknoglobals // a table, never changed
	PhoneIdle: "phone-idle", PhoneRinging: "phone-ringing", PhoneDialing: "phone-dialing",
	PhoneConnected: "phone-connected", PhoneHeld: "phone-held", PhoneConference: "phone-conference",
	PhoneDND: "phone-dnd", PhoneForwarded: "phone-forwarded", PhoneOutOfService: "phone-out-of-service",
	AgentReady: "agent-ready", AgentNotReady: "agent-not-ready", AgentAfterCall: "agent-after-call",
	CalendarFree: "calendar-free", CalendarTentative: "calendar-tentative", CalendarBusy: "calendar-busy",
	CalendarAllDay: "calendar-all-day", CalendarMeeting: "calendar-meeting", CalendarElsewhere: "calendar-elsewhere",
	CalendarOutOfOffice: "calendar-out-of-office", AutoReply: "auto-reply", OffHours: "off-hours",
	SessionActive: "session-active", SessionIdle: "session-idle", SessionAway: "session-away",
	SessionOffline: "session-offline", SessionBusy: "session-busy", SessionDND: "session-dnd", Presenting: "presenting", Focusing: "focusing",
	ManualAvailable: "manual-available", ManualBusy: "manual-busy", ManualDND: "manual-dnd",
	ManualBeRightBack: "manual-brb", ManualAway: "manual-away", ManualOffWork: "manual-off-work",
	ManualOutOfOffice: "manual-out-of-office", ManualOffline: "manual-offline",
	Fault: "fault", Expired: "expired",
}

// String gives the name used in policy tables, logs and the API.
func (f Fact) String() string {
	if f < factCount {
		return factNames[f]
	}
	return fmt.Sprintf("fact-%d", uint8(f))
}

// MarshalText gives the name, never the number: numbers may change between versions.
func (f Fact) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText accepts what MarshalText gives.
func (f *Fact) UnmarshalText(text []byte) error {
	v, err := ParseFact(string(text))
	*f = v
	return err
}

// ParseFact is the inverse of String.
func ParseFact(name string) (Fact, error) {
	for i, n := range factNames {
		if n == name {
			return Fact(i), nil
		}
	}
	return 0, fmt.Errorf("unknown fact %q", name)
}

// A FactSet is a set of facts.
type FactSet uint64

// Facts makes a set.
func Facts(facts ...Fact) FactSet {
	var s FactSet
	for _, f := range facts {
		s |= 1 << f
	}
	return s
}

// Has tells whether f is in s.
func (s FactSet) Has(f Fact) bool { return s&(1<<f) != 0 }

// All gives the members in the order of their declaration.
func (s FactSet) All() iter.Seq[Fact] {
	return func(yield func(Fact) bool) {
		for rest := uint64(s); rest != 0; rest &= rest - 1 {
			if !yield(Fact(bits.TrailingZeros64(rest))) { //nolint:gosec // at most 63
				return
			}
		}
	}
}

func (s FactSet) String() string {
	var names []string
	for f := range s.All() {
		names = append(names, f.String())
	}
	return strings.Join(names, " ")
}

// ManualFacts are those that only the person states, by hand.
const ManualFacts = FactSet(1<<ManualAvailable | 1<<ManualBusy | 1<<ManualDND | 1<<ManualBeRightBack |
	1<<ManualAway | 1<<ManualOffWork | 1<<ManualOutOfOffice | 1<<ManualOffline)
