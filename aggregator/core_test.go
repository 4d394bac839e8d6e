package aggregator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

var eight = time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)

func clock(hour, minute, second int) time.Time {
	return time.Date(2026, 11, 20, hour, minute, second, 0, time.UTC)
}

func phone(at time.Time, spans ...presence.Span) presence.Report {
	return presence.Report{Source: "aes", Subject: presence.Subject{Scheme: "tel", Value: "4750"}, At: at, Grace: 30 * time.Second, Spans: spans}
}

func idle(from time.Time) presence.Span { return presence.Span{Fact: presence.PhoneIdle, From: from} }

// A meeting known at eight changes the state at ten, to the moment, without
// another report; the time since stands through what is not seen.
func TestSpansChangeByThemselves(t *testing.T) {
	c := aggregator.NewCore(presence.DefaultPolicy())
	c.Enter("ann", eight)
	c.Accept("ann", phone(eight, idle(eight)), eight)
	c.Accept("ann", presence.Report{Source: "exchange/calendar", Subject: presence.Subject{Scheme: "mail", Value: "a"}, At: eight, Spans: []presence.Span{
		{Fact: presence.CalendarMeeting, From: clock(10, 0, 0), Until: clock(11, 0, 0)},
	}}, eight)
	if next := c.Next(); !next.Equal(clock(10, 0, 0)) {
		t.Fatalf("next %s", next)
	}
	late := clock(10, 0, 0).Add(700 * time.Millisecond) // the timer is late, the state is not
	changes := c.Advance(late, nil)
	if len(changes) != 1 || changes[0].Activity != presence.ActivityMeeting || !changes[0].Since.Equal(clock(10, 0, 0)) || !changes[0].Until.Equal(clock(11, 0, 0)) {
		t.Fatalf("%+v", changes)
	}
	changes = c.Advance(clock(11, 0, 0), nil)
	if len(changes) != 1 || changes[0].Availability != presence.Available || !changes[0].Since.Equal(clock(11, 0, 0)) {
		t.Fatalf("%+v", changes)
	}
}

func TestOldReportNeverWins(t *testing.T) {
	c := aggregator.NewCore(presence.DefaultPolicy())
	c.Enter("ann", eight)
	call := presence.Span{Fact: presence.PhoneConnected, From: clock(9, 0, 0)}
	c.Accept("ann", phone(clock(9, 0, 0), call), clock(9, 0, 0))
	if !c.Taken() {
		t.Error("the report was not taken")
	}
	if s, changed := c.Accept("ann", phone(eight, idle(eight)), clock(9, 0, 1)); changed || c.Taken() || s.Availability != presence.Busy {
		t.Errorf("%s, changed %v", s.Availability, changed)
	}
}

// Whatever was accepted, accepting it again changes nothing.
func TestReplayChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := aggregator.NewCore(presence.DefaultPolicy())
		c.Enter("ann", eight)
		now := eight
		newest := map[string]presence.Report{}
		for i := range rapid.IntRange(1, 6).Draw(t, "reports") {
			now = now.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, "pause")) * time.Second)
			r := phone(now)
			r.Source = fmt.Sprint("s", i%2)
			for range rapid.IntRange(0, 3).Draw(t, "spans") {
				from := now.Add(time.Duration(rapid.IntRange(-600, 600).Draw(t, "from")) * time.Second)
				r.Spans = append(r.Spans, presence.Span{Fact: presence.Fact(rapid.IntRange(0, int(presence.Fault)).Draw(t, "fact")), From: from, Until: from.Add(5 * time.Minute)})
			}
			c.Advance(now, nil)
			c.Accept("ann", r, now)
			newest[r.Source] = r
		}
		before, _ := c.State("ann")
		for _, r := range newest {
			if s, changed := c.Accept("ann", r, now); changed || s.Revision != before.Revision {
				t.Fatalf("replaying changed\n%+v\nto\n%+v", before, s)
			}
		}
	})
}

// Advancing from moment to moment, or in one leap, ends in the same state.
func TestNoMomentIsMissed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		step, leap := aggregator.NewCore(presence.DefaultPolicy()), aggregator.NewCore(presence.DefaultPolicy())
		r := phone(eight)
		for range rapid.IntRange(1, 5).Draw(t, "spans") {
			from := eight.Add(time.Duration(rapid.IntRange(0, 3600).Draw(t, "from")) * time.Second)
			r.Spans = append(r.Spans, presence.Span{
				Fact: presence.Fact(rapid.IntRange(0, int(presence.Fault)).Draw(t, "fact")),
				From: from, Until: from.Add(time.Duration(rapid.IntRange(0, 1800).Draw(t, "length")) * time.Second),
			})
		}
		r.Expires = eight.Add(time.Duration(rapid.IntRange(1, 7200).Draw(t, "life")) * time.Second)
		end := eight.Add(3 * time.Hour) // an hour after the last change: what was held back shows
		for _, c := range []*aggregator.Core{step, leap} {
			c.Enter("ann", eight)
			c.Accept("ann", r, eight)
		}
		for n := step.Next(); !n.IsZero() && !n.After(end); n = step.Next() {
			step.Advance(n, nil)
		}
		leap.Advance(end, nil)
		a, _ := step.State("ann")
		b, _ := leap.State("ann")
		if !a.Same(&b) {
			t.Fatalf("%+v\n%+v", a, b)
		}
	})
}

func TestLostAndBack(t *testing.T) {
	c := aggregator.NewCore(presence.DefaultPolicy())
	c.Enter("ann", eight)
	call := presence.Span{Fact: presence.PhoneConnected, From: clock(9, 0, 0)}
	c.Accept("ann", phone(clock(9, 0, 0), call), clock(9, 0, 0))
	changes := c.Lost("aes", clock(9, 1, 0))
	if len(changes) != 1 || !changes[0].Overlays.Has(presence.OverlayStale) || changes[0].Availability != presence.Busy {
		t.Fatalf("%+v", changes)
	}
	if len(c.Lost("exchange", clock(9, 1, 1))) != 0 {
		t.Error("losing another source changed something")
	}
	changes = c.Advance(clock(9, 1, 30), nil)
	if len(changes) != 1 || changes[0].Availability != presence.Unavailable {
		t.Fatalf("after the grace: %+v", changes)
	}
	s, changed := c.Accept("ann", phone(clock(9, 2, 0), idle(clock(9, 2, 0))), clock(9, 2, 0))
	if !changed || s.Availability != presence.Available || s.Overlays != 0 {
		t.Errorf("back: %+v", s)
	}
}

func TestRestore(t *testing.T) {
	before := aggregator.NewCore(presence.DefaultPolicy())
	before.Enter("ann", eight)
	call := presence.Span{Fact: presence.PhoneConnected, From: clock(9, 0, 0)}
	last, _ := before.Accept("ann", phone(clock(9, 0, 0), call), clock(9, 0, 0))

	after := aggregator.NewCore(presence.DefaultPolicy())
	after.Enter("ann", clock(9, 5, 0))
	s, _ := after.Restore("ann", before.Reports("ann"), last, clock(9, 5, 0))
	if s.Availability != presence.Busy || !s.Since.Equal(clock(9, 0, 0)) || !s.Overlays.Has(presence.OverlayStale) {
		t.Errorf("%+v", s)
	}
	changes := after.Advance(clock(9, 5, 30), nil)
	if len(changes) != 1 || changes[0].Availability != presence.Unavailable {
		t.Errorf("nobody confirmed the call: %+v", changes)
	}
}

func TestLeave(t *testing.T) {
	c := aggregator.NewCore(presence.DefaultPolicy())
	c.Enter("ann", eight)
	c.Accept("ann", phone(eight, presence.Span{Fact: presence.PhoneConnected, From: eight, Until: clock(9, 0, 0)}), eight)
	s, known := c.Leave("ann", eight)
	if !known || s.Availability != presence.Unknown || s.Why.Rule != presence.RuleRemoved {
		t.Errorf("%+v", s)
	}
	if !c.Next().IsZero() {
		t.Error("somebody who left is still due")
	}
	if _, changed := c.Accept("ann", phone(clock(9, 0, 0)), clock(9, 0, 0)); changed {
		t.Error("a report about somebody who left was accepted")
	}
}

// Reports about people in no order, of whom three sources speak. Each picks up or hangs
// up by turns every four minutes, which no damping holds back; half of them are in a call.
// Their IDs stand in one text: what it takes to look up somebody's ID is not to be measured.
// Everybody spoke twice before, so that a core with many people is measured as it works
// for long: its memory is not new to the process.
func BenchmarkAccept(b *testing.B) {
	for _, people := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(people), func(b *testing.B) {
			c := aggregator.NewCore(presence.DefaultPolicy())
			const width = len("p0000000")
			var text strings.Builder
			const stride = 7919 // people speak in no order; their names come in with their reports, one after the other
			for n := range people {
				fmt.Fprintf(&text, "p%07d", n*stride%people)
			}
			said := text.String()
			tomorrow, later := eight.AddDate(0, 0, 1), eight.AddDate(1, 0, 0)
			calendar := presence.Report{Source: "exchange/calendar", At: eight, Doubted: later, Expires: later, Grace: time.Hour, Spans: []presence.Span{
				{Fact: presence.CalendarMeeting, From: tomorrow, Until: tomorrow.Add(time.Hour)},
				{Fact: presence.CalendarBusy, From: tomorrow.Add(2 * time.Hour), Until: tomorrow.Add(3 * time.Hour), Private: true},
			}}
			replies := presence.Report{Source: "exchange/replies", At: eight, Doubted: later, Expires: later, Grace: time.Hour}
			for i := range people {
				id := presence.ID(fmt.Sprintf("p%07d", i))
				c.Enter(id, eight)
				subject := presence.Subject{Scheme: "mail", Value: fmt.Sprintf("p%d@example.com", i)}
				calendar.Subject, replies.Subject = subject, subject
				c.Accept(id, calendar, eight)
				c.Accept(id, replies, eight)
				begun := phone(eight, idle(eight))
				if i%2 == 1 {
					begun.Spans[0].Fact = presence.PhoneConnected
				}
				c.Accept(id, begun, eight)
			}
			spans := []presence.Span{{}}
			pause := 4 * time.Minute / time.Duration(people)
			now := eight.Add(time.Minute)
			n := 0
			speak := func() {
				n++
				now = now.Add(pause)
				i := n * stride % people
				spans[0] = presence.Span{Fact: presence.PhoneConnected, From: now}
				if (n/people+i)%2 == 1 {
					spans[0].Fact = presence.PhoneIdle
				}
				c.Accept(presence.ID(said[width*(n%people):width*(n%people+1)]), phone(now, spans...), now)
			}
			for range 2 * people {
				speak()
			}
			b.ReportAllocs()
			for b.Loop() {
				speak()
			}
		})
	}
}
