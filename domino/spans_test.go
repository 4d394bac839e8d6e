package domino

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
	"presenced/domino/das"
)

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

// Each row of the mapping, and what decides where several fit.
func TestEntrySpan(t *testing.T) {
	for _, test := range []struct {
		entry das.Entry
		want  string
	}{
		{das.Entry{Type: "0"}, "calendar-busy"},
		{das.Entry{}, "calendar-busy"},
		{das.Entry{Type: "7"}, "calendar-busy"},
		{das.Entry{Type: "1"}, ""},
		{das.Entry{Type: "2"}, "calendar-all-day"},
		{das.Entry{Type: "2", AllDay: true}, "calendar-all-day"},
		{das.Entry{AllDay: true}, "calendar-all-day"},
		{das.Entry{Type: "3"}, "calendar-meeting"},
		{das.Entry{Type: "3", Notice: "A"}, "calendar-meeting"},
		{das.Entry{Type: "3", Notice: "N"}, "calendar-meeting"},
		{das.Entry{Type: "3", Notice: "I"}, ""},
		{das.Entry{Type: "3", Notice: "U"}, ""},
		{das.Entry{Type: "3", Notice: "C"}, ""},
		{das.Entry{Type: "3", Notice: "R"}, ""},
		{das.Entry{Type: "3", Notice: "T"}, ""},
		{das.Entry{Type: "3", Notice: "D"}, ""},
		{das.Entry{Type: "3", Notice: "L"}, ""},
		{das.Entry{Type: "3", Notice: "I", Status: "tentative"}, ""},
		{das.Entry{Type: "4"}, ""},
		{das.Entry{Type: "4", Transparency: "transparent"}, ""},
		{das.Entry{Type: "3", Status: "confirmed"}, "calendar-meeting"},
		{das.Entry{Type: "3", Status: "cancelled"}, ""},
		{das.Entry{Type: "3", Status: "tentative"}, "calendar-tentative"},
		{das.Entry{Type: "0", Transparency: "transparent"}, "calendar-tentative"},
		{das.Entry{Type: "2", Transparency: "transparent"}, "calendar-tentative"},
		{das.Entry{Type: "0", Transparency: "opaque"}, "calendar-busy"},
		{das.Entry{Type: "3", Class: "public"}, "calendar-meeting"},
		{das.Entry{Type: "3", Class: "private"}, "calendar-meeting private"},
		{das.Entry{Type: "2", Class: "confidential"}, "calendar-all-day private"},
	} {
		e := test.entry
		e.Start, e.End = at("2026-11-20 09:00"), at("2026-11-20 10:00")
		got := ""
		if s, ok := entrySpan(&e); ok {
			got = s.Fact.String()
			if s.Private {
				got += " private"
			}
			if s.Note != "" || s.Contact != "" {
				t.Errorf("%+v: has text", test.entry)
			}
		}
		if got != test.want {
			t.Errorf("%+v is %q, want %q", test.entry, got, test.want)
		}
		for _, end := range []string{"2026-11-20 09:00", "2026-11-20 08:55"} {
			e.End = at(end)
			if _, ok := entrySpan(&e); ok {
				t.Errorf("%+v without length is stated", test.entry)
			}
		}
	}
}

func entry(from, to, kind string) das.Entry {
	return das.Entry{Start: at(from), End: at(to), Type: kind}
}

func lines(spans []presence.Span) []string {
	var out []string
	for _, s := range spans {
		end := ""
		if !s.Until.IsZero() {
			end = s.Until.Format("02T1504")
		}
		out = append(out, fmt.Sprintf("%s-%s %s", s.From.Format("02T1504"), end, s.Fact))
	}
	return out
}

func TestCalendarSpans(t *testing.T) {
	now := at("2026-11-20 10:30")
	usual := window{now.Add(-24 * time.Hour), now.Add(48 * time.Hour)}
	for _, test := range []struct {
		name string
		list das.Listing
		w    window
		want []string
	}{
		{"empty", das.Listing{}, usual, []string{"20T0000-22T0000 calendar-free"}},
		{"empty, other window", das.Listing{}, window{now, now.Add(12 * time.Hour)}, []string{"20T1030-20T2230 calendar-free"}},
		{
			"ended long ago, within the hour, now, later",
			das.Listing{Entries: []das.Entry{
				entry("2026-11-20 08:00", "2026-11-20 09:00", "3"), entry("2026-11-20 09:15", "2026-11-20 09:45", "3"),
				entry("2026-11-20 10:00", "2026-11-20 11:00", "0"), entry("2026-11-21 08:00", "2026-11-21 09:00", "3"),
			}},
			usual,
			[]string{
				"20T0915-20T0945 calendar-meeting", "20T0945-20T1000 calendar-free", "20T1000-20T1100 calendar-busy", "20T1100-21T0800 calendar-free",
				"21T0800-21T0900 calendar-meeting", "21T0900-22T0000 calendar-free",
			},
		},
		{
			"overlaps, doubles, and one beyond the window",
			das.Listing{Entries: []das.Entry{
				entry("2026-11-20 10:00", "2026-11-20 12:00", "3"), entry("2026-11-20 11:00", "2026-11-20 11:30", "0"), entry("2026-11-20 10:00", "2026-11-20 12:00", "3"),
				entry("2026-11-20 12:00", "2026-11-30 00:00", "2"),
			}},
			usual,
			[]string{"20T0000-20T1000 calendar-free", "20T1000-20T1200 calendar-meeting", "20T1100-20T1130 calendar-busy", "20T1200-30T0000 calendar-all-day"},
		},
		{
			"not all entries are known: nothing is said of the rest",
			das.Listing{Entries: []das.Entry{entry("2026-11-20 10:00", "2026-11-20 12:00", "3")}, Skipped: 1},
			usual,
			[]string{"20T1000-20T1200 calendar-meeting"},
		},
		{
			"what says nothing leaves its time free",
			das.Listing{Entries: []das.Entry{{Start: at("2026-11-20 10:00"), End: at("2026-11-20 12:00"), Notice: "I"}}},
			usual,
			[]string{"20T0000-22T0000 calendar-free"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, lines(calendarSpans(test.list, test.w, now))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCalendarSpansLimit(t *testing.T) {
	var list das.Listing
	now := at("2026-11-20 10:30")
	for i := range 3000 {
		start := now.Add(time.Duration(i) * time.Minute)
		list.Entries = append(list.Entries, das.Entry{Start: start, End: start.Add(30 * time.Second)})
	}
	spans := calendarSpans(list, window{now.Add(-day), now.Add(2 * day)}, now)
	if len(spans) != presence.MaxSpans || !spans[1].From.Equal(now) {
		t.Errorf("%d spans, the second begins %v", len(spans), spans[1].From)
	}
}

// Over the part of the window that counts, somebody is either free or something
// else, at every moment, and never both.
func TestFreeIsTheRest(t *testing.T) {
	now := at("2026-11-20 10:30")
	w := window{now.Add(-24 * time.Hour), now.Add(48 * time.Hour)}
	rapid.Check(t, func(t *rapid.T) {
		var list das.Listing
		for range rapid.IntRange(0, 12).Draw(t, "entries") {
			start := now.Add(time.Duration(rapid.IntRange(-3000, 3000).Draw(t, "start")) * time.Minute)
			list.Entries = append(list.Entries, das.Entry{Start: start, End: start.Add(time.Duration(rapid.IntRange(-10, 2000).Draw(t, "minutes")) * time.Minute)})
		}
		moment := now.Add(time.Duration(rapid.IntRange(0, 24*60).Draw(t, "moment")) * time.Minute)
		free, busy := false, false
		for _, s := range calendarSpans(list, w, now) {
			if !moment.Before(s.From) && moment.Before(s.Until) {
				free, busy = free || s.Fact == presence.CalendarFree, busy || s.Fact != presence.CalendarFree
			}
		}
		if free == busy {
			t.Fatalf("at %v: free %v, busy %v", moment, free, busy)
		}
	})
}

func TestReplySpans(t *testing.T) {
	now := at("2026-11-20 10:30")
	for _, test := range []struct {
		name  string
		reply das.AutoReply
		want  []string
	}{
		{"off", das.AutoReply{Start: now, End: now.Add(day)}, nil},
		{"on", das.AutoReply{Enabled: true, Start: at("2026-11-18 00:00"), End: at("2026-11-27 00:00")}, []string{"18T0000-27T0000 auto-reply"}},
		{"to come", das.AutoReply{Enabled: true, Start: at("2026-11-21 00:00"), End: at("2026-11-27 00:00")}, []string{"21T0000-27T0000 auto-reply"}},
		{"the flag outlives the period", das.AutoReply{Enabled: true, Start: at("2026-11-10 00:00"), End: at("2026-11-19 00:00")}, nil},
		{"just over", das.AutoReply{Enabled: true, Start: at("2026-11-10 00:00"), End: at("2026-11-20 10:00")}, []string{"10T0000-20T1000 auto-reply"}},
		{"no bounds", das.AutoReply{Enabled: true}, []string{"20T0000- auto-reply"}},
		{"no start", das.AutoReply{Enabled: true, End: at("2026-11-27 00:00")}, []string{"20T0000-27T0000 auto-reply"}},
		{"no end", das.AutoReply{Enabled: true, Start: at("2026-11-18 00:00")}, []string{"18T0000- auto-reply"}},
	} {
		if diff := cmp.Diff(test.want, lines(replySpans(test.reply, now))); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}
