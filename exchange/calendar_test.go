package exchange

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
	"presenced/internal/zones"
)

func clock(text string) time.Time {
	at, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return at
}

func event(from, to string, busy ews.Busy) ews.Event {
	return ews.Event{Start: clock(from), End: clock(to), Busy: busy}
}

// lines writes spans as a person would.
func lines(spans []presence.Span) []string {
	var out []string
	for _, s := range spans {
		line := fmt.Sprintf("%s - %s %s", s.From.Format("02 15:04"), s.Until.Format("02 15:04"), s.Fact)
		if s.Private {
			line += " private"
		}
		out = append(out, line)
	}
	return out
}

func europe() zones.Rules {
	return zones.Rules{
		Standard: zones.Transition{Offset: time.Hour, Month: time.October, Week: 5, TimeOfDay: 3 * time.Hour},
		Daylight: zones.Transition{Offset: 2 * time.Hour, Month: time.March, Week: 5, TimeOfDay: 2 * time.Hour},
	}
}

func sydney() zones.Rules {
	return zones.Rules{
		Standard: zones.Transition{Offset: 10 * time.Hour, Month: time.April, Week: 1, TimeOfDay: 3 * time.Hour},
		Daylight: zones.Transition{Offset: 11 * time.Hour, Month: time.October, Week: 1, TimeOfDay: 2 * time.Hour},
	}
}

func hours(zone zones.Rules, days ews.Weekdays, start, end time.Duration) *ews.WorkingHours {
	return &ews.WorkingHours{Zone: zone, Periods: []ews.WorkingPeriod{{Days: days, Start: start, End: end}}}
}

const (
	everyDay = ews.Weekdays(0b1111111)
	weekdays = ews.Weekdays(0b0111110)
)

func TestSpans(t *testing.T) {
	private := event("2026-11-20 13:00", "2026-11-20 14:00", ews.BusyBusy)
	private.Private, private.Meeting = true, true
	for name, c := range map[string]struct {
		now    string
		events []ews.Event
		hours  *ews.WorkingHours
		want   []string
	}{
		"nothing in it": {"2026-11-20 12:00", nil, nil, []string{"20 00:00 - 22 00:00 calendar-free"}},
		"each kind, out of order and twice": {
			"2026-11-20 00:30",
			[]ews.Event{
				event("2026-11-20 16:00", "2026-11-20 17:00", ews.BusyElsewhere), event("2026-11-20 10:00", "2026-11-20 11:00", ews.BusyBusy),
				event("2026-11-20 10:00", "2026-11-20 11:00", ews.BusyBusy), event("2026-11-20 14:00", "2026-11-20 15:00", ews.BusyTentative),
				event("2026-11-20 15:00", "2026-11-20 16:00", ews.BusyOutOfOffice), event("2026-11-20 11:00", "2026-11-20 12:00", ews.BusyFree), private,
				event("2026-11-20 19:00", "2026-11-20 18:00", ews.BusyBusy),
			},
			nil,
			[]string{
				"19 00:00 - 20 10:00 calendar-free", "20 10:00 - 20 11:00 calendar-busy", "20 11:00 - 20 13:00 calendar-free",
				"20 13:00 - 20 14:00 calendar-meeting private", "20 14:00 - 20 15:00 calendar-tentative", "20 15:00 - 20 16:00 calendar-out-of-office",
				"20 16:00 - 20 17:00 calendar-elsewhere", "20 17:00 - 22 00:00 calendar-free",
			},
		},
		"what the server does not know is not free": {
			"2026-11-20 12:00",
			[]ews.Event{event("2026-11-20 13:00", "2026-11-20 14:00", ews.BusyNoData)},
			nil,
			[]string{"20 00:00 - 20 13:00 calendar-free", "20 14:00 - 22 00:00 calendar-free"},
		},
		"what ended within the hour stays": {
			"2026-11-20 12:00",
			[]ews.Event{event("2026-11-20 09:00", "2026-11-20 10:59", ews.BusyBusy), event("2026-11-20 11:00", "2026-11-20 11:30", ews.BusyBusy)},
			nil,
			[]string{"20 10:59 - 20 11:00 calendar-free", "20 11:00 - 20 11:30 calendar-busy", "20 11:30 - 22 00:00 calendar-free"},
		},
		"longer than the window": {
			"2026-11-20 12:00",
			[]ews.Event{event("2025-01-01 00:00", "2027-01-01 00:00", ews.BusyOutOfOffice)},
			nil,
			[]string{"19 00:00 - 23 00:00 calendar-out-of-office"},
		},
		"all day where the person is": {
			"2026-11-20 12:00",
			[]ews.Event{event("2026-11-19 23:00", "2026-11-20 23:00", ews.BusyBusy), event("2026-11-21 00:00", "2026-11-22 00:00", ews.BusyBusy)},
			&ews.WorkingHours{Zone: europe()},
			[]string{"19 23:00 - 20 23:00 calendar-all-day", "20 23:00 - 21 00:00 calendar-free", "21 00:00 - 22 00:00 calendar-busy"},
		},
		"working hours, north, winter": {
			"2026-11-20 12:00", nil, hours(europe(), weekdays, 8*time.Hour, 17*time.Hour),
			[]string{"20 00:00 - 22 00:00 calendar-free", "20 16:00 - 22 00:00 off-hours"},
		},
		"working hours, south, summer": {
			"2026-11-20 12:00", nil, hours(sydney(), everyDay, 8*time.Hour, 17*time.Hour),
			[]string{"20 00:00 - 22 00:00 calendar-free", "20 06:00 - 20 21:00 off-hours", "21 06:00 - 21 21:00 off-hours"},
		},
		"working hours on the day of 23 hours": {
			"2026-03-29 00:30", nil, hours(europe(), everyDay, 8*time.Hour, 17*time.Hour),
			[]string{"28 00:00 - 31 00:00 calendar-free", "28 16:00 - 29 06:00 off-hours", "29 15:00 - 30 06:00 off-hours", "30 15:00 - 31 00:00 off-hours"},
		},
		"working hours on the day of 25 hours": {
			"2026-10-25 00:30", nil, hours(europe(), everyDay, 8*time.Hour, 17*time.Hour),
			[]string{"24 00:00 - 27 00:00 calendar-free", "24 15:00 - 25 07:00 off-hours", "25 16:00 - 26 07:00 off-hours", "26 16:00 - 27 00:00 off-hours"},
		},
		"working hours across midnight": {
			"2026-11-20 12:00", nil, hours(zones.Rules{}, everyDay, 22*time.Hour, 6*time.Hour),
			[]string{"20 00:00 - 22 00:00 calendar-free", "20 06:00 - 20 22:00 off-hours", "21 06:00 - 21 22:00 off-hours"},
		},
		"no day named": {"2026-11-20 12:00", nil, &ews.WorkingHours{Zone: europe()}, []string{"20 00:00 - 22 00:00 calendar-free"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &fakeWire{availability: func([]string, time.Time, time.Time) ([]ews.MailboxAvailability, error) {
				return []ews.MailboxAvailability{{Code: ews.CodeOK, View: "Detailed", Events: c.events, Hours: c.hours}}, nil
			}}
			calendar, _, _ := sourcesOver(t, w)
			reports, err := calendar.Poll(t.Context(), clock(c.now), mail("ann@example.com"))
			if err != nil || len(reports) != 1 {
				t.Fatal(reports, err)
			}
			r := reports[0]
			if err := r.Check(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(c.want, lines(r.Spans)); diff != "" {
				t.Error(diff)
			}
			if !r.At.Equal(clock(c.now)) || r.Source != "hq/calendar" || r.Doubted.Sub(r.At) < 10*time.Minute || r.Expires.Sub(r.At) != 24*time.Hour || r.Grace != 24*time.Hour {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestBusyIsMeeting(t *testing.T) {
	c := &Calendar{busyIsMeeting: true}
	e := event("2026-11-20 10:00", "2026-11-20 11:00", ews.BusyBusy)
	if f, ok := c.fact(&e, &zones.Rules{}); !ok || f != presence.CalendarMeeting {
		t.Error(f)
	}
}

// At no time is a calendar both free and taken, or neither; and the report is
// fit whatever the calendar holds.
func TestSpansProperty(t *testing.T) {
	now := clock("2026-11-20 12:00")
	window := windowAt(now, 48*time.Hour)
	rapid.Check(t, func(t *rapid.T) {
		moment := rapid.Custom(func(t *rapid.T) time.Time {
			return window.from.Add(time.Duration(rapid.IntRange(-3000, 6000).Draw(t, "minute")) * time.Minute)
		})
		answer := ews.MailboxAvailability{Events: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ews.Event {
			return ews.Event{Start: moment.Draw(t, "start"), End: moment.Draw(t, "end"), Busy: ews.Busy(rapid.IntRange(0, 4).Draw(t, "busy"))}
		}), 0, 30).Draw(t, "events")}
		spans, cut := new(Calendar).spans(&answer, window, now)
		if cut || !slices.IsSortedFunc(spans, func(a, b presence.Span) int { return a.From.Compare(b.From) }) {
			t.Fatal("cut or not sorted", cut)
		}
		for at := now.Add(-recent); at.Before(window.to); at = at.Add(17 * time.Minute) {
			free, taken := false, false
			for _, s := range spans {
				if !at.Before(s.From) && at.Before(s.Until) {
					free, taken = free || s.Fact == presence.CalendarFree, taken || s.Fact != presence.CalendarFree
				}
			}
			if free == taken {
				t.Fatalf("at %s: free %t, taken %t\n%s", at, free, taken, strings.Join(lines(spans), "\n"))
			}
		}
	})
}

func TestFullCalendarIsCut(t *testing.T) {
	var events []ews.Event
	for i := range 900 {
		at := clock("2026-11-20 12:00").Add(time.Duration(i) * 2 * time.Minute)
		events = append(events, ews.Event{Start: at, End: at.Add(time.Minute), Busy: ews.BusyBusy})
	}
	calendar, _, _ := sourcesOver(t, &fakeWire{availability: func([]string, time.Time, time.Time) ([]ews.MailboxAvailability, error) {
		return []ews.MailboxAvailability{{Code: ews.CodeOK, View: "FreeBusy", Events: events}}, nil
	}})
	reports, err := calendar.Poll(t.Context(), noon(), mail("ann@example.com"))
	if err != nil || len(reports[0].Spans) != presence.MaxSpans || calendar.Status().Problems["calendars cut"] != 1 {
		t.Errorf("%v, %d spans, %v", err, len(reports[0].Spans), calendar.Status().Problems)
	}
}

// Too many entries: the near half of the time is asked for again, alone.
func TestTooManyEntries(t *testing.T) {
	var windows []string
	calendar, _, _ := sourcesOver(t, &fakeWire{availability: func(mailboxes []string, from, to time.Time) ([]ews.MailboxAvailability, error) {
		windows = append(windows, fmt.Sprintf("%d: %s - %s", len(mailboxes), from.Format("02 15:04"), to.Format("02 15:04")))
		if len(windows) < 3 {
			return slices.Concat([]ews.MailboxAvailability{{Code: ews.CodeTooManyHits}}, allFree(mailboxes[1:])), nil
		}
		return allFree(mailboxes), nil
	}})
	reports, err := calendar.Poll(t.Context(), noon(), mail("a@example.com", "b@example.com"))
	if err != nil || len(reports) != 2 {
		t.Fatal(reports, err)
	}
	if diff := cmp.Diff([]string{"2: 20 00:00 - 22 00:00", "1: 20 11:00 - 21 11:00", "1: 20 11:00 - 20 23:00"}, windows); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"20 11:00 - 20 23:00 calendar-free"}, lines(reports[0].Spans)); diff != "" {
		t.Error(diff)
	}
}

// Nothing of an entry but its times and kind ever leaves: over the real decoder.
func TestPrivacy(t *testing.T) {
	const text = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
<GetUserAvailabilityResponse xmlns="http://schemas.microsoft.com/exchange/services/2006/messages"><FreeBusyResponseArray>
<FreeBusyResponse><ResponseMessage ResponseClass="Success"><ResponseCode>NoError</ResponseCode></ResponseMessage><FreeBusyView><FreeBusyViewType>Detailed</FreeBusyViewType>
<CalendarEventArray><CalendarEvent><StartTime>2026-11-20T13:00:00</StartTime><EndTime>2026-11-20T14:00:00</EndTime><BusyType>Busy</BusyType>
<CalendarEventDetails><ID>SECRET</ID><Subject>SECRET takeover</Subject><Location>SECRET room</Location><IsMeeting>true</IsMeeting><IsPrivate>true</IsPrivate></CalendarEventDetails></CalendarEvent>
<CalendarEvent><StartTime>SECRET</StartTime><EndTime>SECRET</EndTime><BusyType>SECRET</BusyType></CalendarEvent></CalendarEventArray></FreeBusyView></FreeBusyResponse>
<FreeBusyResponse><ResponseMessage ResponseClass="Error"><MessageText>SECRET</MessageText><ResponseCode>SECRET code!</ResponseCode></ResponseMessage></FreeBusyResponse>
</FreeBusyResponseArray></GetUserAvailabilityResponse></s:Body></s:Envelope>`
	const tips = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
<GetMailTipsResponse xmlns="http://schemas.microsoft.com/exchange/services/2006/messages"><ResponseCode>NoError</ResponseCode><ResponseMessages>
<MailTipsResponseMessageType><ResponseCode>NoError</ResponseCode><MailTips><RecipientAddress><EmailAddress>a@example.com</EmailAddress></RecipientAddress><OutOfOffice><ReplyBody><Message>SECRET illness</Message></ReplyBody></OutOfOffice></MailTips></MailTipsResponseMessageType>
<MailTipsResponseMessageType><ResponseCode>NoError</ResponseCode><MailTips><RecipientAddress><EmailAddress>b@example.com</EmailAddress></RecipientAddress></MailTips></MailTipsResponseMessageType>
</ResponseMessages></GetMailTipsResponse></s:Body></s:Envelope>`
	const limit = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><GetServiceConfigurationResponse xmlns="http://schemas.microsoft.com/exchange/services/2006/messages"><ResponseCode>ErrorOdd</ResponseCode></GetServiceConfigurationResponse></s:Body></s:Envelope>`
	calendar, replies, log := replayed(t, text, tips, limit)
	var out strings.Builder
	for _, poll := range []func() ([]presence.Report, error){
		func() ([]presence.Report, error) {
			return calendar.Poll(t.Context(), noon(), mail("a@example.com", "b@example.com"))
		},
		func() ([]presence.Report, error) {
			return replies.Poll(t.Context(), noon(), mail("a@example.com", "b@example.com"))
		},
		func() ([]presence.Report, error) { return calendar.Poll(t.Context(), noon(), mail("a@example.com")) }, // counts differ
		func() ([]presence.Report, error) { return replies.Poll(t.Context(), noon(), mail("z@example.com")) },
	} {
		reports, err := poll()
		text, _ := json.Marshal(reports)
		fmt.Fprintln(&out, string(text), err)
	}
	for _, s := range []presence.Status{calendar.Status(), replies.Status()} {
		text, _ := json.Marshal(s)
		out.Write(text)
	}
	out.WriteString(log.String())
	if !strings.Contains(out.String(), "calendar-meeting") || !strings.Contains(out.String(), "auto-reply") || !strings.Contains(out.String(), "malformed") {
		t.Errorf("the test does not reach what it is about:\n%s", out.String())
	}
	if strings.Contains(strings.ToUpper(out.String()), "SECRET") {
		t.Errorf("told:\n%s", out.String())
	}
}
