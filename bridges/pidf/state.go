package pidf

import (
	"regexp"
	"time"

	"presenced/aggregator/presence"
)

// Options are what one reader of documents wants different from another.
type Options struct {
	// Busy is the basic status of a person who is busy, and of a phone that is
	// in use or set to do not disturb: Open (the zero value counts as Open) or,
	// as Cisco has it, Closed.
	Busy Basic

	// OutOfOffice is the basic status of a person who is out of office.
	OutOfOffice Basic

	// OldActivities repeats the activities in the status of the first tuple, in
	// the form that Microsoft's servers and their clients read.
	OldActivities bool
}

// The ids of what is written. They never change, and are not those of other
// publishers: a composer merges tuples of the same id.
const (
	overallID = "presenced-overall"
	personID  = "presenced-person"
	channelID = "presenced-" // and the name of the channel
)

// Append appends the document that says s of entity to dst. The state is to be
// one that watchers may see (presence.View). Two states that differ only in what
// the document does not tell give equal bytes.
func Append(dst []byte, s presence.State, entity string, o Options) []byte {
	d := FromState(s, entity, o)
	return d.Append(dst)
}

// FromState gives the document that says s of entity. The first tuple and the
// person say the overall state; a tuple for each channel of which something is
// known follows.
func FromState(s presence.State, entity string, o Options) Document {
	basic := o.basic(&s)
	overall := Tuple{ID: overallID, Basic: basic, Timestamp: whole(s.Since)}
	if basic == Open {
		overall.Contact, overall.Priority = entity, "0.8"
	}
	if text := s.Text(); s.Availability != presence.Unknown && text != "" {
		overall.Notes = []string{text}
	}
	d := Document{Entity: entity, Person: person(&s)}
	if o.OldActivities {
		overall.Activities = d.Person.Activities
	}
	d.Tuples = append(d.Tuples, overall)
	for i, c := range s.Channels {
		kind := presence.ChannelKind(i) //nolint:gosec // an index of the array of channels
		if c.State == presence.ChannelUnknown {
			continue
		}
		t := Tuple{ID: channelID + kind.String(), Basic: o.channel(c.State), Class: kind.String(), Timestamp: whole(c.Since)}
		if kind != presence.Calendar && isURI(c.Contact) {
			t.Contact, t.Priority = c.Contact, "0.2"
		}
		d.Tuples = append(d.Tuples, t)
	}
	return d
}

// person gives what s says of the person: RPID activities by the table of the
// policy, with the time they began.
func person(s *presence.State) Person {
	p := Person{ID: personID}
	switch s.Availability {
	case presence.Unknown:
		p.Activities = []string{"unknown"}
	case presence.Busy:
		p.Activities = []string{busyActivity(s.Activity)}
	case presence.DoNotDisturb: // RPID has no do not disturb; the note of the first tuple says it
		if s.Activity == presence.ActivityPresenting {
			p.Activities = []string{"presentation"}
		}
		p.Activities = append(p.Activities, "busy")
	case presence.Away, presence.BeRightBack:
		p.Activities = []string{"away"}
	case presence.OutOfOffice:
		p.Activities = []string{"away"}
		if s.Activity == presence.ActivityVacation {
			p.Activities = []string{"vacation"}
		}
	case presence.Available, presence.OffWork, presence.Offline, presence.Unavailable, presence.OutOfOrder:
	}
	switch s.Availability {
	case presence.Available, presence.Busy, presence.Away, presence.BeRightBack:
		state := s.Channels[presence.Messaging].State
		p.Idle = s.Activity == presence.ActivityIdle || state == presence.ChannelInactive || state == presence.ChannelAway
	default:
	}
	if p.said() {
		p.Timestamp = whole(s.Since)
		if len(p.Activities) > 0 {
			p.Since = p.Timestamp
		}
	}
	return p
}

func busyActivity(a presence.Activity) string {
	switch a {
	case presence.ActivityPhone, presence.ActivityConference, presence.ActivityHold, presence.ActivityDialing:
		return "on-the-phone"
	case presence.ActivityMeeting:
		return "meeting"
	case presence.ActivityAppointment, presence.ActivityTentative:
		return "appointment"
	case presence.ActivityPresenting:
		return "presentation"
	default:
		return "busy"
	}
}

func (o *Options) basic(s *presence.State) Basic {
	switch s.Availability {
	case presence.Available, presence.DoNotDisturb, presence.BeRightBack, presence.Away:
		return Open
	case presence.Busy:
		return open(o.Busy)
	case presence.OutOfOffice:
		return open(o.OutOfOffice)
	default:
		return Closed
	}
}

// channel gives the basic status of a channel: closed where it cannot be used.
func (o *Options) channel(c presence.ChannelState) Basic {
	switch c {
	case presence.ChannelUnavailable, presence.ChannelOffline:
		return Closed
	case presence.ChannelDND, presence.ChannelDialing, presence.ChannelHeld, presence.ChannelInUse,
		presence.ChannelConference, presence.ChannelInUseRinging:
		return open(o.Busy)
	default:
		return Open
	}
}

// open gives b, Open where it is empty.
func open(b Basic) Basic {
	if b == Closed {
		return Closed
	}
	return Open
}

// whole brings t into the form in which documents carry it.
func whole(t time.Time) time.Time {
	if y := t.UTC().Year(); t.IsZero() || y < 1 || y > 9999 {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}

// isURI tells whether s may stand where a document wants a URI with a scheme.
func isURI(s string) bool { return uri.MatchString(s) }

var uri = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$`) //nolint:gochecknoglobals // compiled once, never changed
