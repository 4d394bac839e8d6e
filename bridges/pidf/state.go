package pidf

import (
	"strings"
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

	// Cisco repeats in the person what phones of Cisco show, in their namespaces.
	Cisco bool

	// Plain leaves out all that RFC 3863 does not have, and says the overall state
	// in one tuple, for phones that know no more. It goes before OldActivities,
	// Cisco and Name.
	Plain bool

	// Name is the name of the person (presence.Person), written as CIPID has it.
	// Empty: no name, as for watchers who may see nothing of the person.
	Name string
}

// The ids of what is written. They never change, and are not those of other
// publishers: a composer merges tuples of the same id.
const (
	ownID     = "presenced-" // what all of them begin with
	overallID = ownID + "overall"
	personID  = ownID + "person"
)

var channelIDs = [presence.ChannelCount]string{ //nolint:gochecknoglobals // a table, never changed
	presence.Phone: ownID + "phone", presence.Calendar: ownID + "calendar", presence.Messaging: ownID + "im", presence.Video: ownID + "video",
}

// Append appends the document that says s of entity to dst. The state is to be
// one that watchers may see (presence.View). Two states that differ only in what
// the document does not tell give equal bytes.
func Append(dst []byte, s presence.State, entity string, o Options) []byte {
	d := FromState(s, entity, o)
	return d.Append(dst)
}

// A frame is a document with room for all that a state can say, in one piece.
type frame struct {
	doc        Document
	tuples     [1 + presence.ChannelCount]Tuple
	notes      [1]string
	activities [2]string
	cisco      [2]string
}

// FromState gives the document that says s of entity. The first tuple and the
// person say the overall state; a tuple for each channel of which something is
// known follows. The interval of a calendar entry stands at the activity that it
// explains: RFC 4481 has intervals of tuples, but for the past and the future only.
func FromState(s presence.State, entity string, o Options) Document {
	f := new(frame)
	d := &f.doc
	d.Entity, d.Plain = entity, o.Plain
	basic := o.basic(&s)
	overall := Tuple{ID: overallID, Basic: basic, Timestamp: whole(s.Since)}
	if basic == Open {
		overall.Contact, overall.Priority = entity, "0.8"
	}
	if text := s.Text(); s.Availability != presence.Unknown && text != "" {
		overall.Notes = append(f.notes[:0], text)
	}
	d.Tuples = f.tuples[:1]
	if !o.Plain {
		f.person(&s, &o)
		if o.OldActivities {
			overall.Activities = d.Person.Activities
		}
		f.channels(&s, &o)
	}
	f.tuples[0] = overall
	return *d
}

func (f *frame) channels(s *presence.State, o *Options) {
	for i, c := range s.Channels {
		kind := presence.ChannelKind(i) //nolint:gosec // an index of the array of channels
		if c.State == presence.ChannelUnknown {
			continue
		}
		t := Tuple{ID: channelIDs[i], Basic: o.channel(c.State), Class: kind.String(), Timestamp: whole(c.Since)}
		if kind != presence.Calendar && isURI(c.Contact) {
			t.Contact, t.Priority = c.Contact, "0.2"
		}
		f.doc.Tuples = append(f.doc.Tuples, t)
	}
}

// person says what s says of the person: RPID activities by the table of the
// policy, with the time they began and the time they end.
func (f *frame) person(s *presence.State, o *Options) {
	p := &f.doc.Person
	p.ID, p.Name = personID, o.Name
	activities := f.activities[:0]
	switch s.Availability {
	case presence.Unknown:
		activities = append(activities, "unknown")
	case presence.Busy:
		activities = append(activities, busyActivity(s.Activity))
	case presence.DoNotDisturb: // RPID has no do not disturb; the note of the first tuple says it
		if s.Activity == presence.ActivityPresenting {
			activities = append(activities, "presentation")
		}
		activities = append(activities, "busy")
	case presence.Away, presence.BeRightBack:
		activities = append(activities, "away")
	case presence.OutOfOffice:
		if s.Activity == presence.ActivityVacation {
			activities = append(activities, "vacation")
		} else {
			activities = append(activities, "away")
		}
	case presence.Available, presence.OffWork, presence.Offline, presence.Unavailable, presence.OutOfOrder:
	}
	p.Activities = activities
	if o.Cisco {
		p.Cisco = f.ciscoOf(s)
	}
	switch s.Availability {
	case presence.Available, presence.Busy, presence.Away, presence.BeRightBack:
		im := &s.Channels[presence.Messaging]
		still := im.State == presence.ChannelInactive || im.State == presence.ChannelAway
		p.Idle = s.Activity == presence.ActivityIdle || still
		if still {
			p.LastInput = whole(im.Since) // a client is idle since its last input
		}
	default:
	}
	if p.said() {
		p.Timestamp = whole(s.Since)
		if len(p.Activities) > 0 {
			p.Since = p.Timestamp
			if until := whole(s.Until); until.After(p.Since) {
				p.Until = until
			}
		}
	}
}

// ciscoOf gives what a lamp of a Cisco phone knows of s.
func (f *frame) ciscoOf(s *presence.State) []string {
	phone := s.Channels[presence.Phone].State
	lamps := f.cisco[:0]
	switch s.Availability {
	case presence.Available:
		if phone != presence.ChannelRinging {
			lamps = append(lamps, "available")
		}
	case presence.Busy:
		lamp := busyActivity(s.Activity)
		if lamp != "on-the-phone" {
			lamp = "busy"
		}
		lamps = append(lamps, lamp)
	case presence.DoNotDisturb:
		lamps = append(lamps, "dnd")
	default:
	}
	if phone == presence.ChannelRinging || phone == presence.ChannelInUseRinging {
		lamps = append(lamps, "alerting")
	}
	return lamps
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

// isURI tells whether s may stand where a document wants a URI with a scheme: a
// scheme, a colon, and more of what can be seen in ASCII.
func isURI(s string) bool {
	colon := strings.IndexByte(s, ':')
	if colon < 1 || colon+1 == len(s) || s[0]|' ' < 'a' || 'z' < s[0]|' ' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c > '~' {
			return false
		}
		letter, digit := 'a' <= c|' ' && c|' ' <= 'z', '0' <= c && c <= '9'
		if i < colon && !letter && !digit && c != '+' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}
