package journal_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
)

// What a source says again is one thing, what it takes back has an end, and what lies
// ahead is there.
func TestSayings(t *testing.T) {
	free := presence.Span{Fact: presence.CalendarFree, From: at(7, 0), Until: at(20, 0)}
	meeting := func(from, until int) presence.Span {
		return presence.Span{Fact: presence.CalendarMeeting, From: at(from, 0), Until: at(until, 0)}
	}
	subject := presence.Subject{Scheme: "tel", Value: "1"}
	entries := []journal.Entry{
		said(at(6, 0), "aes", presence.Span{Fact: presence.PhoneConnected, From: at(6, 0), Contact: "tel:1"}),
		said(at(6, 30), "aes", presence.Span{Fact: presence.PhoneIdle, From: at(6, 30)}),
		said(at(8, 0), "calendar", free, meeting(9, 11), meeting(15, 16)),
		said(at(8, 30), "calendar", free, meeting(9, 11), meeting(14, 16)),
		said(at(10, 0), "calendar", free, meeting(14, 16)), // it was cancelled while it lasted
		{At: at(10, 30), Kind: journal.Doubted, Person: "ann", Source: "aes", Subject: &subject},
		{At: at(11, 0), Kind: journal.Expired, Person: "ann", Source: "aes", Subject: &subject},
		{At: at(11, 30), Kind: journal.Shown, Person: "ann", State: &presence.State{}},
		said(at(12, 0), "aes", presence.Span{Fact: presence.PhoneConnected, From: at(12, 0), Contact: "tel:1"}),
		said(at(12, 1), "manual", presence.Span{Fact: presence.ManualDND, From: at(12, 1), Until: at(18, 0)}),
	}
	lines := func(all []journal.Saying) (out []string) {
		for _, s := range all {
			until := "on"
			if !s.Until.IsZero() {
				until = s.Until.Format("15:04")
			}
			out = append(out, fmt.Sprint(s.Source, " ", s.Fact, " ", s.From.Format("15:04"), " ", until))
		}
		return out
	}
	want := []string{
		"aes phone-idle 06:30 11:00", "aes phone-connected 12:00 on",
		"calendar calendar-free 07:00 20:00", "calendar calendar-meeting 09:00 10:00", "calendar calendar-meeting 14:00 16:00",
		"manual manual-dnd 12:01 18:00",
	}
	if d := cmp.Diff(want, lines(journal.Sayings(entries, at(7, 0), at(19, 0)))); d != "" {
		t.Error(d)
	}
	left := append(entries, journal.Entry{At: at(12, 30), Kind: journal.Left, Person: "ann"})
	for _, s := range journal.Sayings(left, at(7, 0), at(19, 0)) {
		if s.Until.IsZero() || s.Until.After(at(12, 30)) {
			t.Errorf("after the person left, %s said %s until %s", s.Source, s.Fact, s.Until)
		}
	}
}

// Ahead is what is known: a meeting comes and goes, and a call that lasts is not taken
// to last for ever.
func TestAhead(t *testing.T) {
	var past journal.Past
	for _, e := range []journal.Entry{
		said(at(9, 0), "aes", presence.Span{Fact: presence.PhoneConnected, From: at(9, 0)}),
		said(at(9, 1), "calendar", presence.Span{Fact: presence.CalendarFree, From: at(7, 0), Until: at(23, 0)}, presence.Span{Fact: presence.CalendarMeeting, From: at(14, 0), Until: at(15, 0)},
			presence.Span{Fact: presence.OffHours, From: at(17, 0), Until: at(23, 0)}),
	} {
		past.Apply(e)
	}
	var got []string
	last := ""
	for _, s := range past.Ahead("ann", presence.DefaultPolicy(), at(10, 0), at(19, 0)) {
		if now := s.Availability.String(); now != last {
			got = append(got, s.Since.Format("15:04 ")+now)
			last = now
		}
	}
	if d := cmp.Diff([]string{"10:00 available", "14:00 busy", "15:00 available", "17:00 off-work"}, got); d != "" {
		t.Error(d)
	}
	if past.Reports()[0].Spans[0].Fact != presence.PhoneConnected {
		t.Error("what was said is changed")
	}
	if all := past.Ahead("ann", presence.DefaultPolicy(), at(10, 0), at(10, 0)); len(all) != 0 {
		t.Errorf("of no time: %v", all)
	}
	var nobody journal.Past
	if all := nobody.Ahead("ann", presence.DefaultPolicy(), at(10, 0), at(10, 0).Add(time.Hour)); len(all) != 1 {
		t.Errorf("of who nothing is known: %v", all)
	}
}
