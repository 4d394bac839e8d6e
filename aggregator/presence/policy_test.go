package presence_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
)

// hold makes a report that says each fact since eleven o'clock.
func hold(source string, facts ...presence.Fact) presence.Report {
	r := presence.Report{Source: source, Subject: presence.Subject{Scheme: "tel", Value: "1"}, At: noon}
	for _, f := range facts {
		r.Spans = append(r.Spans, presence.Span{Fact: f, From: noon.Add(-time.Hour)})
	}
	return r
}

// TestRules goes through the table of the policy: one line for each rule, each
// knob, and each neighbour that might be mistaken for it.
func TestRules(t *testing.T) {
	type facts []presence.Fact
	for _, c := range []struct {
		about string
		knob  func(*presence.Setting)
		facts facts
		want  string // availability/activity rule
	}{
		{"1", nil, facts{presence.ManualOffline, presence.PhoneConnected, presence.ManualDND}, "offline/ manual-offline"},
		{"2", nil, facts{presence.ManualDND, presence.PhoneConnected}, "dnd/ manual-dnd"},
		{"3", nil, facts{presence.Presenting, presence.CalendarMeeting}, "dnd/presenting presenting"},
		{"3 focus", nil, facts{presence.Focusing}, "dnd/focusing focusing"},
		{"3 knob", func(k *presence.Setting) { k.PresentingIsDND = false }, facts{presence.Presenting}, "busy/presenting presenting"},
		{"4", nil, facts{presence.PhoneDND, presence.PhoneIdle}, "dnd/ phone-dnd"},
		{"4 busy", func(k *presence.Setting) { k.PhoneDND = "busy" }, facts{presence.PhoneDND, presence.PhoneIdle}, "busy/ phone-dnd"},
		{"4 channel", func(k *presence.Setting) { k.PhoneDND = "channel" }, facts{presence.PhoneDND, presence.PhoneIdle}, "available/ phone-idle"},
		{"4 client", nil, facts{presence.SessionDND, presence.SessionActive, presence.PhoneConnected}, "dnd/ session-dnd"},
		{"4 client, in focus", nil, facts{presence.SessionDND, presence.Focusing}, "dnd/focusing focusing"},
		{"5 away", nil, facts{presence.ManualAway, presence.PhoneConnected}, "away/ manual-away"},
		{"5 brb", nil, facts{presence.ManualBeRightBack, presence.PhoneConnected}, "brb/ manual-brb"},
		{"5 off work", nil, facts{presence.ManualOffWork}, "off-work/ manual-off-work"},
		{"5 out of office", nil, facts{presence.ManualOutOfOffice}, "out-of-office/out-of-office manual-out-of-office"},
		{"5 knob", func(k *presence.Setting) { k.CallOverridesAway = true }, facts{presence.ManualAway, presence.PhoneConnected}, "busy/on-the-phone on-the-phone"},
		{"6 connected", nil, facts{presence.PhoneConnected, presence.CalendarMeeting}, "busy/on-the-phone on-the-phone"},
		{"6 conference", nil, facts{presence.PhoneConnected, presence.PhoneConference}, "busy/in-a-conference conference"},
		{"6 held", nil, facts{presence.PhoneHeld}, "busy/on-hold on-hold"},
		{"6 dialing", nil, facts{presence.PhoneDialing}, "busy/on-the-phone on-the-phone"},
		{"6b", nil, facts{presence.AgentAfterCall, presence.PhoneIdle}, "busy/ after-call"},
		{"6b knob", func(k *presence.Setting) { k.AfterCall = "channel" }, facts{presence.AgentAfterCall, presence.PhoneIdle}, "available/ phone-idle"},
		{"6b ready", nil, facts{presence.AgentReady, presence.PhoneIdle}, "available/ phone-idle"},
		{"7", nil, facts{presence.ManualBusy}, "busy/ manual-busy"},
		{"8", nil, facts{presence.ManualAvailable, presence.CalendarMeeting, presence.AutoReply}, "available/ manual-available"},
		{"9 calendar", nil, facts{presence.CalendarOutOfOffice, presence.CalendarMeeting}, "out-of-office/out-of-office out-of-office"},
		{"9 replies", nil, facts{presence.AutoReply, presence.PhoneIdle}, "out-of-office/out-of-office out-of-office"},
		{"9 knob", func(k *presence.Setting) { k.AutoReplyOutOfOffice = false }, facts{presence.AutoReply, presence.PhoneIdle}, "available/ phone-idle"},
		{"9b", nil, facts{presence.AutoReply, presence.SessionActive}, "available/ session-active"},
		{"10 meeting", nil, facts{presence.CalendarMeeting, presence.PhoneIdle}, "busy/in-a-meeting meeting"},
		{"10 appointment", nil, facts{presence.CalendarBusy, presence.SessionActive}, "busy/appointment appointment"},
		{"11", nil, facts{presence.CalendarAllDay, presence.PhoneIdle}, "available/ phone-idle"},
		{"11 knob", func(k *presence.Setting) { k.AllDayBusy = "busy" }, facts{presence.CalendarAllDay}, "busy/appointment all-day"},
		{"12", nil, facts{presence.CalendarTentative, presence.PhoneIdle}, "available/ phone-idle"},
		{"12 knob", func(k *presence.Setting) { k.Tentative = "busy" }, facts{presence.CalendarTentative}, "busy/tentative tentative"},
		{"12b", nil, facts{presence.SessionBusy, presence.SessionActive, presence.OffHours}, "busy/ session-busy"},
		{"12b in a meeting", nil, facts{presence.SessionBusy, presence.CalendarMeeting}, "busy/in-a-meeting meeting"},
		{"12b away elsewhere", nil, facts{presence.SessionBusy, presence.SessionAway}, "busy/ session-busy"},
		{"13", nil, facts{presence.CalendarElsewhere, presence.PhoneIdle}, "available/working-elsewhere phone-idle"},
		{"14", nil, facts{presence.OffHours, presence.PhoneIdle}, "off-work/ off-work"},
		{"14 active", nil, facts{presence.OffHours, presence.SessionActive}, "available/ session-active"},
		{"15", nil, facts{presence.SessionActive, presence.SessionAway}, "available/ session-active"},
		{"16", nil, facts{presence.SessionIdle, presence.PhoneIdle}, "available/idle session-idle"},
		{"16 in a meeting", nil, facts{presence.SessionIdle, presence.CalendarMeeting}, "busy/in-a-meeting meeting-idle"},
		{"17", nil, facts{presence.SessionAway, presence.PhoneIdle}, "away/ session-away"},
		{"18", nil, facts{presence.PhoneIdle}, "available/ phone-idle"},
		{"18 knob", func(k *presence.Setting) { k.PhoneOnly = "unknown" }, facts{presence.PhoneIdle}, "unknown/ unknown"},
		{"19", nil, facts{presence.PhoneRinging}, "available/ phone-idle"},
		{"19 knob", func(k *presence.Setting) { k.Ringing = "busy" }, facts{presence.PhoneRinging}, "busy/ringing ringing"},
		{"20 phone", nil, facts{presence.PhoneOutOfService}, "offline/ offline"},
		{"20 client", nil, facts{presence.SessionOffline, presence.CalendarFree}, "offline/ offline"},
		{"20 fault", nil, facts{presence.PhoneOutOfService, presence.Fault}, "out-of-order/ fault"},
		{"calendar only", nil, facts{presence.CalendarFree}, "available/ calendar-free"},
		{"calendar only, off hours", nil, facts{presence.CalendarFree, presence.OffHours}, "off-work/ off-work"},
		{"calendar only, knob", func(k *presence.Setting) { k.CalendarOnly = "unknown" }, facts{presence.CalendarFree}, "unknown/ unknown"},
		{"22 nothing said", nil, facts{}, "unknown/ unknown"},
	} {
		k := presence.DefaultSetting()
		if c.knob != nil {
			c.knob(&k)
		}
		s, _ := k.Policy().Decide("x", []presence.Report{hold("a", c.facts...)}, noon)
		got := s.Availability.String() + "/" + s.Activity.String() + " " + s.Why.Rule
		if got != c.want {
			t.Errorf("rule %s: %v: got %s, want %s", c.about, c.facts, got, c.want)
		}
	}
	if s, _ := presence.DefaultPolicy().Decide("x", nil, noon); s.Availability != presence.Unknown {
		t.Errorf("without reports: %s", s.Availability)
	}
}

func TestExpired(t *testing.T) {
	r := hold("aes", presence.PhoneConnected)
	r.Expires = noon
	s, _ := presence.DefaultPolicy().Decide("x", []presence.Report{r}, noon)
	if s.Availability != presence.Unavailable || s.Why.Rule != "expired" {
		t.Errorf("%s by %s", s.Availability, s.Why.Rule)
	}
	s, next := presence.DefaultPolicy().Decide("x", []presence.Report{r}, noon.Add(-time.Second))
	if s.Availability != presence.Busy || !next.Equal(noon) {
		t.Errorf("a second before: %s until %s", s.Availability, next)
	}
	r.Spans = nil // a source that knew nothing: then nothing was ever known
	if s, _ := presence.DefaultPolicy().Decide("x", []presence.Report{r}, noon); s.Availability != presence.Unknown {
		t.Errorf("a report that said nothing expired: %s by %s", s.Availability, s.Why.Rule)
	}
}

// A call counts after two seconds of dialing and a second after it ended; the
// phone is idle, not unknown, until then.
func TestDelayAndLinger(t *testing.T) {
	r := presence.Report{Source: "aes", Subject: presence.Subject{Scheme: "tel", Value: "1"}, At: noon, Spans: []presence.Span{
		{Fact: presence.PhoneIdle, From: noon.Add(-time.Hour), Until: noon},
		{Fact: presence.PhoneDialing, From: noon, Until: noon.Add(5 * time.Second)},
		{Fact: presence.PhoneIdle, From: noon.Add(5 * time.Second)},
	}}
	p := presence.DefaultPolicy()
	for offset, want := range map[time.Duration]presence.Availability{
		-time.Second: presence.Available, 0: presence.Available, 1999 * time.Millisecond: presence.Available,
		2 * time.Second: presence.Busy, 5999 * time.Millisecond: presence.Busy, 6 * time.Second: presence.Available,
	} {
		if s, _ := p.Decide("x", []presence.Report{r}, noon.Add(offset)); s.Availability != want {
			t.Errorf("%s after: %s, want %s", offset, s.Availability, want)
		}
	}
	r.Spans[1].Until = noon.Add(1500 * time.Millisecond) // hung up again before it counted
	r.Spans[2].From = r.Spans[1].Until
	for ms := range 4000 {
		if s, _ := p.Decide("x", []presence.Report{r}, noon.Add(time.Duration(ms)*time.Millisecond)); s.Availability != presence.Available {
			t.Fatalf("%d ms after: %s", ms, s.Availability)
		}
	}
}

func TestPhoneChannel(t *testing.T) {
	for want, facts := range map[string][]presence.Fact{
		"idle": {presence.PhoneIdle}, "ringing": {presence.PhoneRinging}, "in-use": {presence.PhoneConnected}, "held": {presence.PhoneHeld},
		"in-use+ringing": {presence.PhoneHeld, presence.PhoneRinging}, "conference": {presence.PhoneConference, presence.PhoneConnected},
		"unavailable": {presence.PhoneOutOfService}, "dnd": {presence.PhoneDND, presence.PhoneIdle}, "forwarded": {presence.PhoneIdle, presence.PhoneForwarded},
		"unknown": {presence.CalendarFree},
	} {
		s, _ := presence.DefaultPolicy().Decide("x", []presence.Report{hold("a", facts...)}, noon)
		if got := s.Channel(presence.Phone).State.String(); got != want {
			t.Errorf("%v: %s, want %s", facts, got, want)
		}
	}
}

func TestMessagingChannel(t *testing.T) {
	all := []presence.Fact{presence.SessionDND, presence.SessionBusy, presence.SessionActive, presence.SessionIdle, presence.SessionAway, presence.SessionOffline}
	for i, want := range []string{"dnd", "busy", "active", "inactive", "away", "offline"} {
		s, _ := presence.DefaultPolicy().Decide("x", []presence.Report{hold("a", all[i:]...)}, noon)
		if got := s.Channel(presence.Messaging).State.String(); got != want {
			t.Errorf("%v: %s, want %s", all[i:], got, want)
		}
	}
}

// A private meeting is an appointment, and nobody is told more.
func TestPrivate(t *testing.T) {
	r := hold("exchange", presence.CalendarMeeting)
	r.Spans[0].Private = true
	s, _ := presence.DefaultPolicy().Decide("x", []presence.Report{r}, noon)
	if s.Activity != presence.ActivityAppointment || !s.Overlays.Has(presence.OverlayPrivate) {
		t.Errorf("%s, overlays %v", s.Activity, s.Overlays.Names())
	}
	if v := presence.View(s, presence.Everyone()); v.Overlays.Has(presence.OverlayPrivate) {
		t.Error("watchers see that it is private")
	}
}

func urgent() presence.Access {
	a := presence.Everyone()
	a.Urgent = true
	return a
}

func TestView(t *testing.T) {
	s, _ := presence.DefaultPolicy().Decide("x", []presence.Report{hold("m", presence.ManualDND, presence.PhoneConnected)}, noon)
	if v := presence.View(s, urgent()); v.Availability != presence.Busy || v.Activity != presence.ActivityUrgentOnly {
		t.Errorf("urgent: %s/%s", v.Availability, v.Activity)
	}
	if s.Channel(presence.Phone).State != presence.ChannelInUse {
		t.Errorf("the call does not show on the phone channel: %s", s.Channel(presence.Phone).State)
	}
	want := presence.State{Person: "x", Availability: presence.Offline, Class: 18500}
	if v := presence.View(s, presence.Access{}); v != want {
		t.Errorf("blocked: %+v", v)
	}
}

func TestManualLife(t *testing.T) {
	event := presence.Report{Source: "c", Subject: presence.Subject{Scheme: "mail", Value: "x"}, At: noon, Spans: []presence.Span{
		{Fact: presence.CalendarMeeting, From: noon.Add(-time.Hour), Until: noon.Add(time.Hour)},
		{Fact: presence.OffHours, From: noon.Add(5 * time.Hour), Until: noon.Add(20 * time.Hour)},
	}}
	over := event // as of a calendar that was read too long ago
	over.Expires = noon
	for _, c := range []struct {
		fact    presence.Fact
		reports []presence.Report
		want    time.Duration
	}{
		{presence.ManualDND, nil, 24 * time.Hour},
		{presence.ManualBusy, []presence.Report{event}, 24 * time.Hour},
		{presence.ManualAvailable, nil, 8 * time.Hour},
		{presence.ManualAvailable, []presence.Report{event}, time.Hour},
		{presence.ManualAvailable, []presence.Report{{Spans: event.Spans[1:]}}, 5 * time.Hour},
		{presence.ManualAvailable, []presence.Report{over}, 8 * time.Hour},
	} {
		if got := presence.ManualLife(c.fact, c.reports, noon).Sub(noon); got != c.want {
			t.Errorf("%s: %s, want %s", c.fact, got, c.want)
		}
	}
	if !presence.ManualLife(presence.ManualAway, nil, noon).IsZero() {
		t.Error("away ends by itself")
	}
}

func TestJSONRoundTrip(t *testing.T) {
	r := hold("exchange", presence.CalendarMeeting, presence.AutoReply, presence.PhoneConnected)
	r.Doubted, r.Grace = noon, time.Minute
	s, _ := presence.DefaultPolicy().Decide("x", []presence.Report{r}, noon)
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back presence.State
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, back); d != "" {
		t.Error(d)
	}
	data, err = json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var report presence.Report
	if err := json.Unmarshal(data, &report); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, report); d != "" {
		t.Error(d)
	}
}

func TestCheckReport(t *testing.T) {
	good := hold("a", presence.PhoneIdle)
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*presence.Report){
		"source": func(r *presence.Report) { r.Source = "" }, "subject": func(r *presence.Report) { r.Subject.Value = "" },
		"time": func(r *presence.Report) { r.At = time.Time{} }, "fact": func(r *presence.Report) { r.Spans[0].Fact = presence.Expired },
		"spans":        func(r *presence.Report) { r.Spans = make([]presence.Span, presence.MaxSpans+1) },
		"long subject": func(r *presence.Report) { r.Subject.Value = strings.Repeat("x", presence.MaxText+1) },
		"long note":    func(r *presence.Report) { r.Spans[0].Note = strings.Repeat("x", presence.MaxText+1) },
		"long contact": func(r *presence.Report) { r.Spans[0].Contact = strings.Repeat("x", presence.MaxText+1) },
	} {
		r := hold("a", presence.PhoneIdle)
		spoil(&r)
		if r.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	p := presence.DefaultPolicy().Decider()
	reports := []presence.Report{hold("aes", presence.PhoneIdle), hold("exchange", presence.CalendarMeeting, presence.CalendarFree), hold("replies")}
	b.ReportAllocs()
	for b.Loop() {
		p.Decide("x", reports, noon)
	}
}
