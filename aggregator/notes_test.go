package aggregator_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator"
	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
)

// trace writes notes as lines.
func trace(notes []journal.Entry) []string {
	var lines []string
	for _, e := range notes {
		line := e.At.Format("15:04:05") + " " + string(e.Kind)
		switch e.Kind {
		case journal.Said:
			line += " " + e.Report.Source
		case journal.Doubted, journal.Expired:
			line += " " + e.Source
		case journal.Shown:
			line += " " + e.State.Availability.String()
		case journal.Left:
		}
		lines = append(lines, line)
	}
	return lines
}

// What is noted: news, not repetitions; doubt and expiry when they come; states.
func TestNotes(t *testing.T) {
	c := aggregator.NewCore(presence.DefaultPolicy())
	c.Remember()
	c.Enter("ann", eight)
	calendar := func(at time.Time) presence.Report {
		return presence.Report{
			Source: "exchange", Subject: presence.Subject{Scheme: "mail", Value: "a"}, At: at, Doubted: at.Add(11 * time.Minute), Expires: at.Add(24 * time.Hour),
			Grace: 24 * time.Hour, Spans: []presence.Span{{Fact: presence.CalendarMeeting, From: clock(8, 30, 0), Until: clock(9, 0, 0)}},
		}
	}
	c.Accept("ann", calendar(eight), eight)
	c.Accept("ann", phone(clock(8, 1, 0), idle(eight)), clock(8, 1, 0))
	for m := 5; m <= 40; m += 5 { // polls that find nothing new
		c.Advance(clock(8, m, 0), nil)
		c.Accept("ann", calendar(clock(8, m, 0)), clock(8, m, 0))
	}
	c.Lost("aes", clock(8, 45, 0))
	c.Lost("aes", clock(8, 45, 0))
	for n := c.Next(); !n.IsZero() && n.Before(clock(10, 0, 0)); n = c.Next() {
		c.Advance(n, nil)
	}
	c.Leave("ann", clock(10, 0, 0))
	want := []string{
		"08:00:00 shown unknown", "08:00:00 said exchange", "08:01:00 said aes", "08:01:00 shown available",
		"08:30:00 shown busy", "08:45:00 doubted aes", "08:45:00 shown busy", "08:45:30 expired aes", "08:45:30 shown busy",
		"08:51:00 doubted exchange", "08:51:00 shown busy", "09:00:00 shown unavailable", "10:00:00 left",
	}
	if d := cmp.Diff(want, trace(c.Notes())); d != "" {
		t.Error(d)
	}
	if len(c.Notes()) != 0 {
		t.Error("notes are given twice")
	}
}

// From the notes alone, what was known at each moment comes out as it was: the
// same decision by the same policy, what watchers saw, which damping may have held
// back, and no difference between a policy and itself.
func TestNotesTellThePast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := presence.DefaultPolicy()
		c := aggregator.NewCore(policy)
		c.Remember()
		c.Enter("ann", eight)
		var past journal.Past
		var all []journal.Entry
		now := eight
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			until := now.Add(time.Duration(rapid.IntRange(1, 900).Draw(t, "pause")) * time.Second)
			for n := c.Next(); !n.IsZero() && !n.After(until); n = c.Next() {
				c.Advance(n, nil)
			}
			now = until
			source := fmt.Sprint("s", rapid.IntRange(0, 1).Draw(t, "source"))
			if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				c.Lost(source, now)
			} else {
				r := presence.Report{Source: source, Subject: presence.Subject{Scheme: "tel", Value: "1"}, At: now, Grace: 30 * time.Second}
				if rapid.Bool().Draw(t, "polled") {
					r.Doubted, r.Expires = now.Add(5*time.Minute), now.Add(10*time.Minute)
				}
				for range rapid.IntRange(0, 2).Draw(t, "spans") {
					from := now.Add(time.Duration(rapid.IntRange(-300, 300).Draw(t, "from")) * time.Second)
					r.Spans = append(r.Spans, presence.Span{Fact: presence.Fact(rapid.IntRange(0, int(presence.Fault)).Draw(t, "fact")), From: from, Until: from.Add(4 * time.Minute)})
				}
				c.Accept("ann", r, now)
			}
			for _, e := range c.Notes() {
				past.Apply(e)
				all = append(all, e)
			}
			want, _ := policy.Decide("ann", c.Reports("ann"), now)
			got, _ := policy.Decide("ann", past.Reports(), now)
			if !got.Same(&want) {
				t.Fatalf("at %s\nfrom the notes %+v\nin truth %+v", now, got, want)
			}
			seen, _ := c.State("ann")
			if !past.Shown.Same(&seen) || past.Shown.Revision != seen.Revision || !past.Shown.Since.Equal(seen.Since) {
				t.Fatalf("at %s\nthe notes show %+v\nwatchers see %+v", now, past.Shown, seen)
			}
		}
		if d := journal.Compare("ann", all, policy, policy, eight, now); len(d) != 0 {
			t.Fatalf("a policy differs from itself: %+v", d)
		}
	})
}
