package web

import (
	"fmt"
	"hash/fnv"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"presenced/aggregator/presence"
)

// A moment is a point in time as the templates write it: in the zone of the
// server, for the script to write anew in the zone of the viewer. The script
// follows the same rules.
type moment struct {
	ISO  string // for datetime, in UTC; empty: no time
	Text string // 13:56, Fri 08:30 within six days, else 17 Nov
	Full string // 13:56:12, or with the day before it
	Age  string // 51 min
}

func momentOf(t, now time.Time, zone *time.Location) moment {
	if t.IsZero() {
		return moment{}
	}
	t, now = t.In(zone), now.In(zone)
	m := moment{ISO: t.UTC().Format(time.RFC3339), Full: t.Format("15:04:05"), Age: ageText(now.Sub(t))}
	switch days := dayNumber(t) - dayNumber(now); {
	case days == 0:
		m.Text = t.Format("15:04")
	case -6 <= days && days <= 6:
		m.Text = t.Format("Mon 15:04")
		m.Full = t.Format("Mon 15:04:05")
	case t.Year() == now.Year():
		m.Text = t.Format("2 Jan")
		m.Full = t.Format("2 Jan 15:04:05")
	default:
		m.Text = t.Format("2 Jan 2006")
		m.Full = t.Format("2 Jan 2006 15:04:05")
	}
	return m
}

// dayNumber numbers the calendar days of t's zone.
func dayNumber(t time.Time) int64 {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400
}

// ageText writes a duration in its largest unit, rounded down.
func ageText(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 24*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	default:
		return strconv.Itoa(int(d/(24*time.Hour))) + " d"
	}
}

// number writes n with commas: 12,480.
func number(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// plural writes "1 page" and "2 pages".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

// sentence makes a name such as phone-connected into words: Phone connected.
func sentence(name string) string {
	words := strings.NewReplacer("-", " ", "dnd", "do not disturb", "brb", "be right back").Replace(name)
	if r, n := utf8.DecodeRuneInString(words); n > 0 {
		words = string(unicode.ToUpper(r)) + words[n:]
	}
	return words
}

// splitName parts a name where the family name begins: at the last word and
// the words in lower case before it, as in Anneke | de Vries.
func splitName(name string) (given, family string) {
	cut := strings.LastIndexByte(name, ' ') + 1
	for cut > 0 {
		before := strings.LastIndexByte(name[:cut-1], ' ') + 1
		if r, _ := utf8.DecodeRuneInString(name[before:]); before == 0 || !unicode.IsLower(r) {
			break
		}
		cut = before
	}
	return name[:cut], name[cut:]
}

// domID gives the id attribute of a person's row.
func domID(id presence.ID) string { return "p-" + url.PathEscape(string(id)) }

func personPath(id presence.ID) string { return "/people/" + url.PathEscape(string(id)) }

// A look is how a state appears: the mark and the word beside it.
type look struct {
	S     string // data-s: names the colour and the symbol
	Word  string
	Class string // is-stale, is-unsure or empty
}

func lookOf(s *presence.State) look {
	l := look{S: s.Availability.String(), Word: s.Availability.Words()}
	if s.Availability == presence.Available && s.Activity == presence.ActivityIdle {
		l.S = "idle"
	}
	switch {
	case s.Availability == presence.Unknown || s.Availability == presence.Unavailable:
		l.Class = "is-unsure"
	case s.Overlays.Has(presence.OverlayStale):
		l.Class = "is-stale"
		l.Word += ", stale"
	}
	return l
}

// doing gives what the person does in words, and whether that is worth the ink
// of a fact. It is empty where the availability says it all.
func doing(s *presence.State) (text string, fact bool) {
	busy := s.Availability == presence.Busy || s.Availability == presence.DoNotDisturb
	switch words := s.Activity.Words(); {
	case s.Why.Fact == presence.AutoReply.String() && s.Availability == presence.OutOfOffice:
		return "Automatic reply", false
	case words != "" && words != s.Availability.Words():
		return words, busy && s.Activity != presence.ActivityIdle
	case strings.HasPrefix(s.Why.Fact, "manual-"):
		return "Set by hand", busy
	case s.Why.Fact == presence.PhoneDND.String():
		return "Send all calls", busy
	default:
		return "", false
	}
}

// A channelLook is how a channel appears.
type channelLook struct {
	Icon, Word, Class string
}

func channelLookOf(k presence.ChannelKind, c presence.ChannelState) channelLook {
	switch c {
	case presence.ChannelIdle:
		return channelLook{"phone-idle", "Idle", ""}
	case presence.ChannelInUse:
		return channelLook{"phone-use", "In use", "on"}
	case presence.ChannelConference:
		return channelLook{"phone-conf", "Conference", "on"}
	case presence.ChannelHeld:
		return channelLook{"phone-held", "On hold", "on"}
	case presence.ChannelDialing:
		return channelLook{"phone-use", "Dialing", "on"}
	case presence.ChannelRinging:
		return channelLook{"phone-ringing", "Ringing", "ring on"}
	case presence.ChannelInUseRinging:
		return channelLook{"phone-ringing", "Second call", "on"}
	case presence.ChannelDND:
		if k == presence.Messaging {
			return channelLook{"im-active", "Not to disturb", "on"}
		}
		return channelLook{"phone-dnd", "No calls", "part"}
	case presence.ChannelForwarded:
		return channelLook{"phone-dnd", "Forwarded", "part"}
	case presence.ChannelFree:
		return channelLook{"cal-free", "Free", ""}
	case presence.ChannelBusy:
		if k == presence.Messaging {
			return channelLook{"im-active", "Busy", "on"}
		}
		return channelLook{"cal-busy", "Busy", "on"}
	case presence.ChannelMeeting:
		return channelLook{"cal-busy", "Meeting", "on"}
	case presence.ChannelAllDay:
		return channelLook{"cal-tentative", "All day", "part"}
	case presence.ChannelTentative:
		return channelLook{"cal-tentative", "Tentative", "part"}
	case presence.ChannelElsewhere:
		return channelLook{"cal-elsewhere", "Elsewhere", "part"}
	case presence.ChannelOutOfOffice:
		return channelLook{"cal-oof", "Away", "part"}
	case presence.ChannelActive:
		return channelLook{"im-active", "Active", "im on"}
	case presence.ChannelInactive:
		return channelLook{"im-idle", "Idle", ""}
	case presence.ChannelAway:
		return channelLook{"im-away", "Away", ""}
	case presence.ChannelOffline:
		return channelLook{"im-off", "Offline", ""}
	}
	prefix := map[presence.ChannelKind]string{presence.Phone: "phone", presence.Calendar: "cal", presence.Messaging: "im"}[k]
	if k == presence.Video {
		return channelLook{"video", "Unknown", "unsure"}
	}
	if c == presence.ChannelUnavailable {
		return channelLook{prefix + "-unknown", "No service", "unsure"}
	}
	return channelLook{prefix + "-unknown", "Unknown", "unsure"}
}

// A rowView is a person's row as the template writes it.
type rowView struct {
	DOM, Path, Key           string
	Given, Family, Extension string
	Look                     look
	Doing                    string
	Fact, Away, Quiet        bool
	Since, Until             moment
	Channels                 []channelLook // phone, calendar, messaging; one without an icon is not shown
	Why, Because, Source     string        // the rule, the rule in words, and who said what made it fire
	Group                    string
}

func rowOf(m member, now time.Time, zone *time.Location) *rowView {
	s := &m.state
	v := &rowView{
		DOM: domID(m.person.ID), Path: personPath(m.person.ID), Key: strings.ToLower(m.person.Name),
		Extension: m.person.Address("tel"), Look: lookOf(s), Away: s.Overlays.Has(presence.OverlayOutOfOffice),
		Since: momentOf(s.Since, now, zone), Until: momentOf(s.Until, now, zone), Why: sentence(s.Why.Rule), Because: s.Why.Title, Source: s.Why.Source, Group: firstGroup(&m.person),
	}
	v.Given, v.Family = splitName(m.person.Name)
	v.Doing, v.Fact = doing(s)
	switch s.Availability {
	case presence.OffWork, presence.OutOfOffice, presence.Offline:
		v.Quiet = true
	default:
	}
	for _, k := range []presence.ChannelKind{presence.Phone, presence.Calendar, presence.Messaging} {
		c := channelLookOf(k, s.Channel(k).State)
		if k == presence.Messaging && s.Channel(k).State == presence.ChannelUnknown {
			c = channelLook{} // most people have no client that is known of
		}
		if c.Class == "on" && k == presence.Phone && s.Overlays.Has(presence.OverlayStale) {
			c.Class = "unsure"
		}
		v.Channels = append(v.Channels, c)
	}
	return v
}

// Version tells rows that look the same from those that do not, whenever they
// were written.
func (v *rowView) Version() string {
	h := fnv.New64a()
	fmt.Fprint(h, v.Key, v.Given, v.Family, v.Extension, v.Look, v.Doing, v.Fact, v.Away, v.Since.ISO, v.Until.ISO, v.Channels, v.Why, v.Source, v.Group)
	return strconv.FormatUint(h.Sum64(), 36)
}

// clipped gives the beginning of a text of a request, as much as a filter takes.
func clipped(text string) string {
	if len(text) <= maxQuery {
		return text
	}
	return strings.ToValidUTF8(text[:maxQuery], "")
}
