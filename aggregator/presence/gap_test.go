package presence_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

// entries makes a calendar of entries; each is a fact, and its begin and end in seconds from noon.
func entries(source string, list ...[3]int) presence.Report {
	r := presence.Report{Source: source, Subject: presence.Subject{Scheme: "mail", Value: source}, At: noon.Add(-time.Hour), Spans: []presence.Span{
		{Fact: presence.CalendarFree, From: noon.Add(-time.Hour)},
	}}
	for _, e := range list {
		r.Spans = append(r.Spans, presence.Span{Fact: presence.Fact(e[0]), From: after(e[1]), Until: after(e[2])})
	}
	return r
}

func after(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }

// TestBackToBack looks at the moment between two entries, 30 seconds after the first one's end.
func TestBackToBack(t *testing.T) {
	const meeting, busy, away, tentative = int(presence.CalendarMeeting), int(presence.CalendarBusy), int(presence.CalendarOutOfOffice), int(presence.CalendarTentative)
	first := [3]int{meeting, -3600, 0}
	expiring := entries("domino", [3]int{meeting, 45, 3600})
	expiring.Expires = after(40)
	for _, c := range []struct {
		about   string
		knob    func(*presence.Setting)
		reports []presence.Report
		want    string
		until   int // of the state; zero: none
	}{
		{"nothing follows", nil, []presence.Report{entries("a", first)}, "available/ calendar-free", 0},
		{"45 s", nil, []presence.Report{entries("a", first, [3]int{meeting, 45, 3600})}, "busy/in-a-meeting meeting", 45},
		{"60 s", nil, []presence.Report{entries("a", first, [3]int{busy, 60, 3600})}, "busy/in-a-meeting meeting", 60},
		{"61 s", nil, []presence.Report{entries("a", first, [3]int{meeting, 61, 3600})}, "available/ calendar-free", 0},
		{"in another calendar", nil, []presence.Report{entries("a", first), entries("b", [3]int{meeting, 45, 3600})}, "busy/in-a-meeting meeting", 45},
		{"out of office follows", nil, []presence.Report{entries("a", first, [3]int{away, 45, 3600})}, "busy/in-a-meeting meeting", 45},
		{"a meeting follows out of office", nil, []presence.Report{entries("a", [3]int{away, -3600, 0}, [3]int{meeting, 45, 3600})}, "out-of-office/out-of-office out-of-office", 45},
		{"the first of two that follow", nil, []presence.Report{entries("a", first, [3]int{meeting, 55, 3600}, [3]int{busy, 35, 40})}, "busy/in-a-meeting meeting", 35},
		{"three in a row", nil, []presence.Report{entries("a", [3]int{meeting, -3600, -20}, [3]int{busy, -10, 0}, [3]int{busy, 45, 3600})}, "busy/appointment appointment", 45},
		{"tentative follows", nil, []presence.Report{entries("a", first, [3]int{tentative, 45, 3600})}, "available/ calendar-free", 0},
		{"tentative follows and counts", func(k *presence.Setting) { k.Tentative = "busy" }, []presence.Report{entries("a", first, [3]int{tentative, 45, 3600})}, "busy/in-a-meeting meeting", 45},
		{"what follows has no length", nil, []presence.Report{entries("a", first, [3]int{meeting, 45, 45})}, "available/ calendar-free", 0},
		{"what follows has expired by then", nil, []presence.Report{entries("a", first), expiring}, "available/ calendar-free", 0},
		{"not merged", func(k *presence.Setting) { k.MergeGap = 0 }, []presence.Report{entries("a", first, [3]int{meeting, 45, 3600})}, "available/ calendar-free", 0},
		{"a smaller gap", func(k *presence.Setting) { k.MergeGap = 40 * time.Second }, []presence.Report{entries("a", first, [3]int{meeting, 45, 3600})}, "available/ calendar-free", 0},
	} {
		k := presence.DefaultSetting()
		if c.knob != nil {
			c.knob(&k)
		}
		p := k.Policy()
		s, _ := p.Decide("x", c.reports, after(30))
		if got := s.Availability.String() + "/" + s.Activity.String() + " " + s.Why.Rule; got != c.want {
			t.Errorf("%s: %s, want %s", c.about, got, c.want)
		}
		if c.until != 0 && !s.Until.Equal(after(c.until)) {
			t.Errorf("%s: until %s, want %s", c.about, s.Until, after(c.until))
		}
		if e := p.Explain("x", c.reports, after(30)); s.Availability != presence.Available && (len(e.Facts) == 0 || !e.Facts[0].Decides) {
			t.Errorf("%s: what decides is not among the facts: %+v", c.about, e.Facts)
		}
	}
}

// However entries lie, there is no moment between two that are back to back at
// which neither holds, and no other moment becomes busy.
func TestNoBlip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := []presence.Fact{presence.CalendarMeeting, presence.CalendarBusy, presence.CalendarOutOfOffice}
		type entry struct{ from, until int }
		var list []entry
		a, b := entries("a"), entries("b")
		for range rapid.IntRange(1, 6).Draw(t, "entries") {
			e := entry{from: rapid.IntRange(0, 600).Draw(t, "from")}
			e.until = e.from + rapid.IntRange(1, 200).Draw(t, "length")
			r := rapid.SampledFrom([]*presence.Report{&a, &b}).Draw(t, "calendar")
			r.Spans = append(r.Spans, presence.Span{Fact: rapid.SampledFrom(facts).Draw(t, "fact"), From: after(e.from), Until: after(e.until)})
			list = append(list, e)
		}
		at := rapid.IntRange(-10, 900).Draw(t, "at")
		ended, began, inside := -1000, 2000, false // around the moment
		for _, e := range list {
			inside = inside || e.from <= at && at < e.until
			if e.until <= at {
				ended = max(ended, e.until)
			}
			if e.from > at {
				began = min(began, e.from)
			}
		}
		s, _ := presence.DefaultPolicy().Decide("x", []presence.Report{a, b}, after(at))
		if want := inside || began-ended <= 60; (s.Availability != presence.Available) != want {
			t.Fatalf("%s at %d, entries %v", s.Availability, at, list)
		}
	})
}
