package aggregator_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// There are millions of records.
func TestRecordIsSmall(t *testing.T) {
	if aggregator.RecordSize > 64 {
		t.Errorf("a record has %d bytes", aggregator.RecordSize)
	}
}

// However a core holds reports, it gives back the newest of each source and
// subject, to the nanosecond and the byte.
func TestReportsComeBack(t *testing.T) {
	text := rapid.OneOf(rapid.Just(""), rapid.Just("tel:4750"), rapid.String())
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			return time.Time{}
		case 1:
			return time.Date(rapid.IntRange(1, 9999).Draw(t, "year"), 12, 31, 23, 59, 59, 999_999_999, time.UTC)
		default:
			return eight.Add(time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(t, "offset")))
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		c := aggregator.NewCore(presence.DefaultPolicy())
		c.Enter("ann", eight)
		var want []presence.Report
		for range rapid.IntRange(1, 8).Draw(t, "reports") {
			r := presence.Report{
				Source:  rapid.SampledFrom([]string{"aes", "exchange/calendar", ""}).Draw(t, "source"),
				Subject: presence.Subject{Scheme: rapid.SampledFrom([]string{"tel", "mail", ""}).Draw(t, "scheme"), Value: rapid.SampledFrom([]string{"4750", "a:b", ""}).Draw(t, "value")},
				At:      moment.Draw(t, "at"), Doubted: moment.Draw(t, "doubted"), Expires: moment.Draw(t, "expires"),
				Grace: time.Duration(rapid.Int64().Draw(t, "grace")),
			}
			for range rapid.IntRange(0, 4).Draw(t, "spans") {
				r.Spans = append(r.Spans, presence.Span{
					Fact: presence.Fact(rapid.IntRange(0, int(presence.Fault)).Draw(t, "fact")),
					From: moment.Draw(t, "from"), Until: moment.Draw(t, "until"),
					Contact: text.Draw(t, "contact"), Note: text.Draw(t, "note"), Private: rapid.Bool().Draw(t, "private"),
				})
			}
			c.Accept("ann", r, eight)
			held := false
			for i := range want {
				if want[i].Source == r.Source && want[i].Subject == r.Subject {
					held = true
					if !r.At.Before(want[i].At) {
						want[i] = r
					}
				}
			}
			if !held {
				want = append(want, r)
			}
			if diff := cmp.Diff(want, c.Reports("ann"), cmpopts.EquateEmpty()); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// Sources without end are held as the few are.
func TestManySources(t *testing.T) {
	c := aggregator.NewCore(presence.DefaultPolicy())
	c.Enter("ann", eight)
	for round := range 2 { // the second time each takes the place of the first
		for i := range 300 {
			r := phone(eight.Add(time.Duration(round)*time.Second), idle(eight))
			r.Source = fmt.Sprint("endpoints/", i)
			c.Accept("ann", r, eight)
		}
	}
	all := c.Reports("ann")
	for i, r := range all {
		if want := fmt.Sprint("endpoints/", i); len(all) != 300 || r.Source != want || !r.At.Equal(eight.Add(time.Second)) {
			t.Fatalf("%d of %d reports is that of %s at %s, not of %s", i, len(all), r.Source, r.At, want)
		}
	}
}
