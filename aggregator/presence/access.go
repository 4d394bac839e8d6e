package presence

import "fmt"

// A Level is how much of a person's presence a watcher may see. The zero value
// shows nothing.
type Level uint8

// The levels, from least to most.
const (
	LevelBlock     Level = iota // politely ignored: sees offline, frozen, without times
	LevelConfirm                // the same, until the person or an administrator decides
	LevelTelephony              // the phone channel and nothing else
	LevelStatus                 // whether the person can be reached; not why, how or since when
	LevelFull                   // all that is not private
	levelCount
)

var levelNames = [levelCount]string{"block", "confirm", "telephony", "status", "full"} //nolint:gochecknoglobals // a table, never changed

// String gives block, confirm, telephony, status or full.
func (l Level) String() string { return levelNames[l] }

// MarshalText gives the name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText accepts what String gives.
func (l *Level) UnmarshalText(text []byte) error {
	for i, n := range levelNames {
		if n == string(text) {
			*l = Level(i) //nolint:gosec // bounded by the table
			return nil
		}
	}
	return fmt.Errorf("%.40q is none of block, confirm, telephony, status, full", text)
}

// A CalendarPrivacy is how much of a person's calendar others see in their
// presence. The zero value shows nothing. An entry that is marked private counts,
// and shows its times, but never more, whatever the level.
type CalendarPrivacy uint8

// The levels of calendar privacy, from least to most.
const (
	CalendarHidden CalendarPrivacy = iota // no calendar channel; busy in a meeting, but not why or until when
	CalendarTimes                         // free or busy, since and until when; not with what
	CalendarOpen                          // in a meeting, working elsewhere, out of office
	privacyCount
)

var privacyNames = [privacyCount]string{"hidden", "times", "open"} //nolint:gochecknoglobals // a table, never changed

// String gives hidden, times or open.
func (p CalendarPrivacy) String() string { return privacyNames[p] }

// MarshalText gives the name.
func (p CalendarPrivacy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText accepts what String gives.
func (p *CalendarPrivacy) UnmarshalText(text []byte) error {
	for i, n := range privacyNames {
		if n == string(text) {
			*p = CalendarPrivacy(i) //nolint:gosec // bounded by the table
			return nil
		}
	}
	return fmt.Errorf("%.40q is none of hidden, times, open", text)
}

// An Access is what one watcher may see of one person. The zero value shows
// nothing. It is comparable: watchers with the same access see the same.
type Access struct {
	Level    Level
	Calendar CalendarPrivacy // counts at LevelFull
	Urgent   bool            // may interrupt: sees busy and urgent-only for a do-not-disturb set by hand

	// Own is the person's own, or an administrator's: it shows also that the person
	// appears offline by hand, and what they do meanwhile.
	Own bool

	// Unknown has who may see nothing see the person as unknown instead of offline.
	Unknown bool
}

// Everyone is the access without restrictions: all that is not private.
func Everyone() Access { return Access{Level: LevelFull, Calendar: CalendarOpen} }

// Shows tells whether a sees anything at all.
func (a Access) Shows() bool { return a.Level > LevelConfirm }

// A Watcher is somebody who watches, as the bridge knows them.
type Watcher struct {
	// Subject names who it is: jid:bob@example.com, sip:bob@example.com, an id, or
	// service:hq for a presence server that gives it to its own watchers.
	Subject Subject
	Via     string // the name of the bridge
}

// A Gate decides what watchers see. It is what a bridge knows of the access
// rules. Where a rule changes, the state of the person comes once more through
// Hub.Watch, though it is the same: the bridge then asks again. All methods may be
// called from any goroutine and do not block.
type Gate interface {
	// Admit says that w watches a person, or asks to, until Dismiss, and gives what
	// w may see. A watcher at LevelConfirm is among the person's pending requests
	// from then on. Doing it again changes nothing.
	Admit(w Watcher, of ID) Access

	// Dismiss says that w watches no more.
	Dismiss(w Watcher, of ID)

	// Access gives what w may see, as for one look that nobody is told of.
	Access(w Watcher, of ID) Access
}
