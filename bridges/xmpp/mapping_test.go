package xmpp

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
)

func TestFaces(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 11, 20, 10, 5, 0, 0, time.UTC)
	idle := since.Add(-25 * time.Minute)
	gone := face{since: since}
	for _, c := range []struct {
		name     string
		state    presence.State
		want     face
		channels [2]face // phone, calendar
	}{
		{name: "available", state: state(presence.Available, presence.NoActivity), want: face{available: true, since: since}},
		{name: "elsewhere", state: state(presence.Available, presence.ActivityElsewhere), want: face{available: true, status: "Working elsewhere", since: since}},
		{name: "on the phone", state: state(presence.Busy, presence.ActivityPhone), want: face{available: true, show: "dnd", status: "On the phone", since: since}},
		{name: "meeting", state: state(presence.Busy, presence.ActivityMeeting), want: face{available: true, show: "dnd", status: "In a meeting", since: since}},
		{name: "busy by hand", state: state(presence.Busy, presence.NoActivity), want: face{available: true, show: "dnd", status: "Busy", since: since}},
		{name: "dnd", state: state(presence.DoNotDisturb, presence.ActivityPresenting), want: face{available: true, show: "dnd", status: "Do not disturb", since: since}},
		{name: "brb", state: state(presence.BeRightBack, presence.NoActivity), want: face{available: true, show: "away", status: "Be right back", since: since}},
		{name: "away", state: state(presence.Away, presence.NoActivity), want: face{available: true, show: "away", status: "Away", since: since}},
		{name: "out of office", state: state(presence.OutOfOffice, presence.ActivityOutOfOffice), want: face{available: true, show: "xa", status: "Out of office", since: since}},
		{name: "off work", state: state(presence.OffWork, presence.NoActivity), want: face{available: true, show: "xa", status: "Off work", since: since}},
		{name: "offline", state: state(presence.Offline, presence.NoActivity), want: face{status: "Offline", since: since}},
		{name: "unknown", state: state(presence.Unknown, presence.NoActivity), want: face{status: "Unknown", since: since}},
		{
			name: "idle", state: with(state(presence.Available, presence.ActivityIdle), presence.Messaging, presence.ChannelInactive, idle),
			want: face{available: true, idle: idle, since: since},
		},
		{
			name: "ringing shows at the phone only", state: with(state(presence.Available, presence.NoActivity), presence.Phone, presence.ChannelRinging, since),
			want: face{available: true, since: since}, channels: [2]face{{available: true, status: "Ringing", since: since}},
		},
		{
			name: "in a meeting at the calendar", state: with(state(presence.Available, presence.NoActivity), presence.Calendar, presence.ChannelMeeting, idle),
			want: face{available: true, since: since}, channels: [2]face{1: {available: true, show: "dnd", status: "In a meeting", since: idle}},
		},
		{
			name: "the phone does not betray who appears offline", state: with(state(presence.Offline, presence.NoActivity), presence.Phone, presence.ChannelInUse, since),
			want: face{status: "Offline", since: since},
		},
		{
			name: "phone out of service", state: with(state(presence.Available, presence.NoActivity), presence.Phone, presence.ChannelUnavailable, since),
			want: face{available: true, since: since},
		},
	} {
		got := (&mapping{busy: "dnd", channels: true}).facesOf(c.state)
		want := faces{c.want, c.channels[0], c.channels[1]}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(face{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if plain := (&mapping{busy: "dnd"}).facesOf(c.state); plain[phone] != (face{}) || plain[calendar] != (face{}) {
			t.Errorf("%s: channels though none are wanted", c.name)
		}
	}
	s := state(presence.Busy, presence.ActivityPhone)
	if got := (&mapping{busy: "away"}).facesOf(s); got[aggregate].show != "away" {
		t.Errorf("busy_show away: %+v", got[aggregate])
	}
	if gone.hash() != 0 || (&face{available: true}).hash() == 0 {
		t.Error("zero is the hash of unavailable, and of nothing else")
	}
}

func with(s presence.State, k presence.ChannelKind, c presence.ChannelState, since time.Time) presence.State {
	s.Channels[k] = presence.Channel{State: c, Since: since}
	return s
}

// Every state and channel has a show that servers accept.
func TestFacesAll(t *testing.T) {
	t.Parallel()
	for a := range presence.Availabilities() {
		for act := presence.NoActivity; act <= presence.ActivityRinging; act++ {
			for c := presence.ChannelUnknown; c <= presence.ChannelOutOfOffice; c++ {
				s := with(with(state(a, act), presence.Phone, c, time.Time{}), presence.Calendar, c, time.Time{})
				for i, f := range (&mapping{"dnd", true}).facesOf(s) {
					if f.show != "" && f.show != "away" && f.show != "dnd" && f.show != "xa" {
						t.Fatalf("%s %s %s %s: show %q", a, act, c, resource(i), f.show)
					}
					if f.available == (f.hash() == 0) {
						t.Fatalf("%s %s %s %s: hash %d", a, act, c, resource(i), f.hash())
					}
				}
			}
		}
	}
}

func TestAppendFace(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 11, 20, 11, 5, 0, 999, time.FixedZone("CET", 3600))
	for _, c := range []struct {
		f    face
		r    resource
		late bool
		want string
	}{
		{face{available: true, since: since}, aggregate, false, "<presence from='carol@presence.xmpp.test/presence' to='bob@xmpp.test'><priority>0</priority></presence>"},
		{
			face{available: true, show: "away", status: "a<b>&'\"\x01\u0085\uFFFE\xff\U0001F600", idle: since, since: since},
			phone, true,
			"<presence from='carol@presence.xmpp.test/phone' to='bob@xmpp.test'><show>away</show><status>a&lt;b&gt;&amp;&apos;&quot;\u0085\U0001F600</status><priority>-1</priority>" +
				"<idle xmlns='urn:xmpp:idle:1' since='2026-11-20T10:05:00Z'/><delay xmlns='urn:xmpp:delay' from='presence.xmpp.test' stamp='2026-11-20T10:05:00Z'/></presence>",
		},
		{face{status: "Offline", since: since}, aggregate, true, "<presence type='unavailable' from='carol@presence.xmpp.test/presence' to='bob@xmpp.test'><status>Offline</status></presence>"},
		{face{}, calendar, true, "<presence type='unavailable' from='carol@presence.xmpp.test/calendar' to='bob@xmpp.test'/>"},
	} {
		got := string(appendFace(nil, &c.f, c.r, "carol@presence.xmpp.test", "bob@xmpp.test", "presence.xmpp.test", c.late))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
