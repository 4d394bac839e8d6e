package xmpp

import (
	"hash/fnv"
	"time"

	"presenced/aggregator/presence"
)

// A resource is what a presentity shows one presence of.
type resource int

// The resources. The aggregate has priority 0, because clients render a contact
// that has only negative ones poorly; the others -1, so that no message goes there.
const (
	aggregate resource = iota
	phone
	calendar

	resourceCount
)

// String gives the resource part of the address.
func (r resource) String() string {
	return [resourceCount]string{"presence", "phone", "calendar"}[r]
}

// A face is what one resource shows. The zero face is unavailable.
type face struct {
	available bool
	show      string    // away, dnd, xa or empty
	status    string    // for people; empty: none
	idle      time.Time // since when nobody is at the client; zero: not known, or in use

	since time.Time // when this was entered; goes into the delay of late copies, and does not make a difference
}

// faces is what all resources of a presentity show.
type faces [resourceCount]face

// hash tells faces of one resource apart; zero is unavailable. It is stable over restarts.
func (f *face) hash() uint64 {
	if !f.available {
		return 0
	}
	h := fnv.New64a()
	for _, text := range []string{f.show, f.status, stamp(f.idle)} {
		_, _ = h.Write([]byte(text)) // never fails
		_, _ = h.Write([]byte{0})
	}
	return max(h.Sum64(), 1)
}

// stamp writes t as XEP-0082 has it, in UTC and to the second; empty for the zero time.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// A mapping turns states into faces.
type mapping struct {
	busy     string // the show of busy: dnd or away
	channels bool   // phone and calendar are resources of their own
}

// facesOf gives what the view s shows.
func (m *mapping) facesOf(s presence.State) faces {
	var out faces
	out[aggregate] = m.whole(&s)
	// Somebody who is offline, or appears so, must not be betrayed by the phone.
	if m.channels && out[aggregate].available {
		c := s.Channel(presence.Phone)
		out[phone] = m.channel(c)
		c = s.Channel(presence.Calendar)
		out[calendar] = m.channel(c)
	}
	return out
}

func (m *mapping) whole(s *presence.State) face {
	f := face{available: true, status: s.Text(), since: s.Since}
	switch s.Availability {
	case presence.Available:
		if s.Activity == presence.NoActivity || s.Activity == presence.ActivityIdle {
			f.status = ""
		}
	case presence.Busy:
		f.show = m.busy
	case presence.DoNotDisturb:
		f.show = "dnd"
	case presence.BeRightBack, presence.Away:
		f.show = "away"
	case presence.OutOfOffice, presence.OffWork:
		f.show = "xa"
	default:
		return face{status: s.Text(), since: s.Since}
	}
	if im := s.Channel(presence.Messaging); im.State == presence.ChannelInactive || im.State == presence.ChannelAway {
		f.idle = im.Since
	}
	return f
}

// channel gives the face of a phone or a calendar.
func (m *mapping) channel(c presence.Channel) face {
	f := face{available: true, since: c.Since}
	switch c.State {
	case presence.ChannelIdle, presence.ChannelFree:
	case presence.ChannelRinging:
		f.status = "Ringing"
	case presence.ChannelTentative:
		f.status = "Tentative"
	case presence.ChannelElsewhere:
		f.status = "Working elsewhere"
	case presence.ChannelAllDay:
		f.status = "Busy all day"
	case presence.ChannelForwarded:
		f.show, f.status = "away", "Calls are forwarded"
	case presence.ChannelDND:
		f.show, f.status = "dnd", "Do not disturb"
	case presence.ChannelDialing, presence.ChannelInUse, presence.ChannelInUseRinging:
		f.show, f.status = m.busy, "On the phone"
	case presence.ChannelHeld:
		f.show, f.status = m.busy, "On hold"
	case presence.ChannelConference:
		f.show, f.status = m.busy, "In a conference"
	case presence.ChannelBusy:
		f.show, f.status = m.busy, "Busy" // with what may be withheld
	case presence.ChannelMeeting:
		f.show, f.status = m.busy, "In a meeting"
	case presence.ChannelOutOfOffice:
		f.show, f.status = "xa", "Out of office"
	default:
		return face{}
	}
	return f
}
