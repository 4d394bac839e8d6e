package das

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// calendar puts lines into a VCALENDAR as Notes writes it.
func calendar(lines ...string) string {
	return "BEGIN:VCALENDAR\r\nX-LOTUS-CHARSET:UTF-8\r\nVERSION:2.0\r\nPRODID:-//Lotus Development Corporation//NONSGML Notes 12.0//EN_API_S\r\n" +
		strings.Join(lines, "\r\n") + "\r\nEND:VCALENDAR\r\n\r\n"
}

func vEvent(lines ...string) string {
	return "BEGIN:VEVENT\r\nSUMMARY:Secret\\, talk \\q\r\n" + strings.Join(lines, "\r\n") + "\r\nEND:VEVENT"
}

// unitedKingdom is what Notes calls GMT: it has a summer time.
const unitedKingdom = "BEGIN:VTIMEZONE\r\nTZID:GMT\r\nBEGIN:STANDARD\r\nDTSTART:19501029T020000\r\nTZOFFSETFROM:+0100\r\nTZOFFSETTO:+0000\r\n" +
	"RRULE:FREQ=YEARLY;BYMINUTE=0;BYHOUR=2;BYDAY=-1SU;BYMONTH=10\r\nEND:STANDARD\r\nBEGIN:DAYLIGHT\r\nDTSTART:19500326T020000\r\nTZOFFSETFROM:+0000\r\n" +
	"TZOFFSETTO:+0100\r\nRRULE:FREQ=YEARLY;BYMINUTE=0;BYHOUR=2;BYDAY=-1SU;BYMONTH=3\r\nEND:DAYLIGHT\r\nEND:VTIMEZONE"

// times gives the entries as "start/end".
func times(entries []Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Start.Format("0102T1504")+"/"+e.End.Format("0102T1504"))
	}
	return out
}

// The mailbox is in Berlin, the window all of 2026.
func TestCalendar(t *testing.T) {
	for _, test := range []struct {
		name    string
		lines   []string
		want    string
		skipped int
	}{
		{"UTC", []string{vEvent("DTSTART:20261120T090000Z", "DTEND:20261120T100000Z")}, "1120T0900/1120T1000", 0},
		{"DURATION", []string{vEvent("DTSTART:20261120T090000Z", "DURATION:PT1H30M")}, "1120T0900/1120T1030", 0},
		{"no end", []string{vEvent("DTSTART:20261120T090000Z")}, "1120T0900/1120T0900", 0},
		{"floating", []string{vEvent("DTSTART:20261120T090000", "DTEND:20261120T100000")}, "1120T0800/1120T0900", 0},
		{"a date", []string{vEvent("DTSTART;VALUE=DATE:20261120")}, "1119T2300/1120T2300", 0},
		{"a date without VALUE", []string{vEvent("DTSTART:20260630", "DTEND:20260702")}, "0629T2200/0701T2200", 0},
		{"a date and a duration, clocks change", []string{vEvent("DTSTART;VALUE=DATE:20261024", "DURATION:P2D")}, "1023T2200/1025T2300", 0},
		{"quoted Eastern", []string{vEvent(`DTSTART;TZID="Eastern":20261120T090000`, `DTEND;TZID="Eastern":20261120T100000`)}, "1120T1400/1120T1500", 0},
		{"ZE6", []string{vEvent("DTSTART;TZID=ZE6:20261120T090000")}, "1120T0300/1120T0300", 0},
		{"Windows name", []string{vEvent("DTSTART;TZID=Tokyo Standard Time:20261120T090000")}, "1120T0000/1120T0000", 0},
		{"GMT with a summer time", []string{unitedKingdom, vEvent(`DTSTART;TZID="GMT":20260721T140000`, `DTEND;TZID="GMT":20260721T150000`)}, "0721T1300/0721T1400", 0},
		{"GMT without", []string{vEvent("DTSTART;TZID=GMT:20260721T140000")}, "0721T1400/0721T1400", 0},
		{"the zone comes last", []string{vEvent("DTSTART;TZID=GMT:20260721T140000"), unitedKingdom}, "0721T1300/0721T1300", 0},
		{"Local is not this machine", []string{vEvent("DTSTART;TZID=Local:20260721T140000")}, "0721T1200/0721T1200", 0},
		{
			"RDATE periods without a rule",
			[]string{vEvent("DTSTART:20260630T100000Z", "DTEND:20260630T110000Z",
				"RDATE;VALUE=PERIOD:20260630T100000Z/20260630T110000Z", " ,20260825T100000Z/20260825T113000Z,20261027T100000Z/PT2H")},
			"0630T1000/0630T1100 0825T1000/0825T1130 1027T1000/1027T1200", 0,
		},
		{
			"RDATE lists and dates",
			[]string{vEvent("DTSTART;TZID=Asia/Tokyo:20261120T090000", "DTEND;TZID=Asia/Tokyo:20261120T100000", "RDATE;TZID=Asia/Tokyo:20261121T090000,20261122T100000")},
			"1120T0000/1120T0100 1121T0000/1121T0100 1122T0100/1122T0200", 0,
		},
		{
			"a rule over the end of summer time",
			[]string{vEvent("DTSTART;TZID=Europe/Berlin:20261023T090000", "DTEND;TZID=Europe/Berlin:20261023T100000", "RRULE:FREQ=DAILY;COUNT=4;")},
			"1023T0700/1023T0800 1024T0700/1024T0800 1025T0800/1025T0900 1026T0800/1026T0900", 0,
		},
		{
			"EXDATE list",
			[]string{vEvent("DTSTART:20261120T090000Z", "DTEND:20261120T100000Z", "RRULE:FREQ=DAILY;COUNT=4", "EXDATE:20261121T090000Z,20261123T090000Z")},
			"1120T0900/1120T1000 1122T0900/1122T1000", 0,
		},
		{
			"EXDATE date on a timed series",
			[]string{vEvent("DTSTART:20261120T090000Z", "DTEND:20261120T100000Z", "RRULE:FREQ=DAILY;COUNT=3", "EXDATE;VALUE=DATE:20261121")},
			"1120T0900/1120T1000 1122T0900/1122T1000", 0,
		},
		{
			"EXDATE in another zone",
			[]string{vEvent("DTSTART:20261120T090000Z", "DTEND:20261120T100000Z", "RRULE:FREQ=DAILY;COUNT=2", "EXDATE;TZID=Europe/Berlin:20261121T100000")},
			"1120T0900/1120T1000", 0,
		},
		{
			"UNTIL as a date",
			[]string{vEvent("DTSTART;TZID=Europe/Berlin:20261120T090000", "DURATION:PT1H", "RRULE:FREQ=DAILY;UNTIL=20261121")},
			"1120T0800/1120T0900 1121T0800/1121T0900", 0,
		},
		{
			"an instance that differs, and one that is cancelled",
			[]string{
				vEvent("UID:1", "DTSTART:20261120T090000Z", "DTEND:20261120T100000Z", "RRULE:FREQ=DAILY;COUNT=3"),
				vEvent("UID:1", "RECURRENCE-ID;TZID=Europe/Berlin:20261121T100000", "DTSTART:20261121T150000Z", "DTEND:20261121T160000Z"),
				vEvent("UID:2", "RECURRENCE-ID:20261122T090000Z", "DTSTART:20261122T180000Z", "DTEND:20261122T190000Z"),
			},
			"1120T0900/1120T1000 1122T0900/1122T1000 1121T1500/1121T1600 1122T1800/1122T1900", 0,
		},
		{
			"all-day series",
			[]string{vEvent("DTSTART;VALUE=DATE:20261024", "RRULE:FREQ=DAILY;COUNT=2")},
			"1023T2200/1024T2200 1024T2200/1025T2300", 0,
		},
		{"a series from long ago", []string{vEvent("DTSTART:19990101T090000Z", "DURATION:PT1H", "RRULE:FREQ=YEARLY")}, "0101T0900/0101T1000", 0},

		{"parameter without a colon", []string{vEvent("ATTENDEE;CN=foo", "DTSTART:20261120T090000Z")}, "1120T0900/1120T0900", 0},
		{"the same where it counts", []string{vEvent("DTSTART;TZID=foo"), vEvent("DTSTART:20261120T090000Z")}, "1120T0900/1120T0900", 1},
		{"text behind a quote", []string{vEvent(`DTSTART;TZID="A"B:20261120T090000`), vEvent("DTSTART:20261120T090000Z")}, "1120T0900/1120T0900", 1},
		{"junk line", []string{vEvent("junk", "DTSTART:20261120T090000Z"), "junk"}, "1120T0900/1120T0900", 0},
		{"an alarm has times of its own", []string{vEvent("DTSTART:20261120T090000Z", "BEGIN:VALARM", "DURATION:PT5H", "TRIGGER:-PT1H", "END:VALARM")}, "1120T0900/1120T0900", 0},
		{"a journal is no event", []string{"BEGIN:VJOURNAL", "DTSTART:20261120T090000Z", "END:VJOURNAL"}, "", 0},
		{"no start", []string{vEvent("UID:1"), vEvent("DTSTART:20261120T090000Z")}, "1120T0900/1120T0900", 1},
		{"hourly", []string{vEvent("DTSTART:20261120T090000Z", "RRULE:FREQ=HOURLY")}, "", 1},
		{"bad EXDATE", []string{vEvent("DTSTART:20261120T090000Z", "RRULE:FREQ=DAILY", "EXDATE:x")}, "", 1},
		{"bad duration", []string{vEvent("DTSTART:20261120T090000Z", "DURATION:P99999999999999999999W")}, "", 1},
		{"huge duration", []string{vEvent("DTSTART:20261120T090000Z", "DURATION:P999999W")}, "", 1},
		{"a long parameter", []string{vEvent("DTSTART;X=" + strings.Repeat("x", 400_000) + ":20261120T090000Z"), vEvent("DTSTART:20261120T090000Z")}, "1120T0900/1120T0900", 1},
		{"a long parameter that is not read", []string{vEvent("ATTENDEE;CN="+strings.Repeat("x", 400_000)+":x", "DTSTART:20261120T090000Z")}, "1120T0900/1120T0900", 0},
		{"a long line", []string{vEvent("RDATE:"+strings.Repeat("20261120T090000Z,", 5000), "DTSTART:20261120T090000Z")}, "", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			began := time.Now()
			events, skipped, err := decodeCalendar([]byte("\ufeff"+calendar(test.lines...)), berlin(t))
			if err != nil {
				t.Fatal(err)
			}
			entries, bad := expand(events, at("2026-01-01 00:00"), at("2027-01-01 00:00"))
			if diff := cmp.Diff(strings.Fields(test.want), times(entries)); diff != "" && (test.want != "" || len(entries) > 0) {
				t.Error(diff)
			}
			if skipped+bad != test.skipped {
				t.Errorf("skipped %d, want %d", skipped+bad, test.skipped)
			}
			if took := time.Since(began); took > 500*time.Millisecond { // go-ical alone takes seconds for the long parameter
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestCalendarAttributes(t *testing.T) {
	events, _, err := decodeCalendar([]byte(calendar(vEvent("dtstart:20261120T090000Z", "STATUS:TENTATIVE", "CLASS:PRIVATE", "TRANSP:TRANSPARENT", "X-LOTUS-APPTTYPE:3", "X-LOTUS-NOTICETYPE:I"))), time.UTC)
	if err != nil || len(events) != 1 {
		t.Fatal(events, err)
	}
	want := Entry{
		Start: at("2026-11-20 09:00"), End: at("2026-11-20 09:00"), Type: "3", Notice: "I", Status: "tentative", Class: "private", Transparency: "transparent",
	}
	if diff := cmp.Diff(want, events[0].first()); diff != "" {
		t.Error(diff)
	}
}

func TestCalendarNotWhole(t *testing.T) {
	whole := calendar(vEvent("DTSTART:20261120T090000Z"))
	for name, text := range map[string]string{
		"cut off":       strings.TrimSuffix(strings.TrimSpace(whole), "END:VCALENDAR"),
		"cut in half":   whole[:len(whole)/2],
		"ends twice":    whole + "END:VCALENDAR\r\n",
		"crossed":       "BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VCALENDAR\nEND:VEVENT\n",
		"bare event":    vEvent("DTSTART:20261120T090000Z"),
		"nothing":       "\r\n",
		"something":     "hello",
		"deep":          strings.Repeat("BEGIN:VCALENDAR\n", 200_000),
		"many":          calendar(strings.Repeat("BEGIN:VEVENT\nEND:VEVENT\n", maxPerPage+1)),
		"folded begin":  "BEGIN:VCALEN\n DAR\nBEGIN:VEVENT\n",
		"binary":        "\x00\x01\x02",
		"no line ended": "BEGIN:VCALENDAR",
	} {
		if events, _, err := decodeCalendar([]byte(text), time.UTC); FailureOf(err) != Malformed {
			t.Errorf("%s: %d events, %v", name, len(events), err)
		}
	}
	for name, text := range map[string]string{"empty": calendar(), "two": whole + whole, "folded": "BEGIN:VCALEN\r\n DAR\r\nEND:VCALENDAR"} {
		if _, skipped, err := decodeCalendar([]byte(text), time.UTC); err != nil || skipped > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEventsICalendar(t *testing.T) {
	c, m := script(t, true,
		step{want: window + "0&format=icalendar" + narrow, contentType: "text/calendar; charset=UTF-8", rng: "items 0-99", body: calendar(vEvent("DTSTART:20261120T090000Z", "DTEND:20261120T100000Z", "X-LOTUS-APPTTYPE:3"))},
		step{want: window + "100&format=icalendar" + narrow, contentType: "text/calendar", rng: "items 100-100", body: calendar(vEvent("UID:1"), vEvent("DTSTART:20261121T090000Z", "X-LOTUS-APPTTYPE:0"))},
		step{want: window + "101&format=icalendar" + narrow})
	got, err := c.Events(t.Context(), m, since, before)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1120T0900/1120T1000", "1121T0900/1121T0900"}, times(got.Entries)); diff != "" || got.Skipped != 1 {
		t.Error(diff, got.Skipped)
	}
}

func FuzzCalendar(f *testing.F) {
	f.Add(calendar(unitedKingdom, vEvent(`DTSTART;TZID="GMT":20260721T140000`, "RRULE:FREQ=WEEKLY;BYDAY=MO;UNTIL=20270101", "EXDATE;VALUE=DATE:20260727")))
	f.Add(calendar(vEvent("DTSTART;VALUE=DATE:20261120", "DURATION:P1W", "RDATE;VALUE=PERIOD:20261120T090000Z/PT1H,20261121T090000/20261121T100000")))
	f.Add(calendar(vEvent("UID:1", "DTSTART:99991231T235959Z", "RRULE:FREQ=YEARLY;BYWEEKNO=53;BYSETPOS=-1"), vEvent("UID:1", "RECURRENCE-ID:20261120", "DTSTART:00000101")))
	f.Add(calendar(vEvent("DTSTART;TZID=foo"), vEvent(`DTSTART;TZID="A"B:1`)))
	f.Add("BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTST\n ART:20261120T090000Z\nBEGIN:VEVENT\nEND:VEVENT\nEND:VEVENT\nEND:VCALENDAR")
	f.Fuzz(func(t *testing.T, text string) {
		events, skipped, err := decodeCalendar([]byte(text), berlin(t))
		if err != nil && (len(events) > 0 || skipped > 0) {
			t.Error("events and an error")
		}
		entries, _ := expand(events, at("2026-11-19 00:00"), at("2026-11-26 00:00"))
		checkEntries(t, entries)
	})
}
