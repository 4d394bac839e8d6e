package presence_test

import (
	"fmt"
	"hash/maphash"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// moment draws a time on a coarse grid around noon, so that coincidences are likely.
func moment(t *rapid.T, label string) time.Time {
	return noon.Add(time.Duration(rapid.IntRange(-40, 40).Draw(t, label)) * 30 * time.Second)
}

func drawSpan(t *rapid.T) presence.Span {
	s := presence.Span{Fact: presence.Fact(rapid.IntRange(0, int(presence.Fault)).Draw(t, "fact")), From: moment(t, "from")}
	if rapid.Bool().Draw(t, "ends") {
		s.Until = s.From.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "length")) * 30 * time.Second)
	}
	s.Private = rapid.Bool().Draw(t, "private")
	s.Contact = rapid.SampledFrom([]string{"", "tel:1", "tel:2"}).Draw(t, "contact")
	return s
}

func drawReport(t *rapid.T, source string) presence.Report {
	r := presence.Report{Source: source, Subject: presence.Subject{Scheme: "tel", Value: "1"}, At: moment(t, "at")}
	if rapid.Bool().Draw(t, "doubted") {
		r.Doubted = moment(t, "doubted at")
	}
	if rapid.Bool().Draw(t, "expires") {
		r.Expires = moment(t, "expires at")
	}
	r.Spans = rapid.SliceOfN(rapid.Custom(drawSpan), 0, 5).Draw(t, "spans")
	return r
}

func drawReports(t *rapid.T) []presence.Report {
	n := rapid.IntRange(0, 4).Draw(t, "reports")
	var out []presence.Report
	for i := range n {
		out = append(out, drawReport(t, fmt.Sprintf("source%d", i)))
	}
	return out
}

func drawPolicy(t *rapid.T) *presence.Policy {
	k := presence.DefaultSetting()
	k.PhoneDND = rapid.SampledFrom([]string{"dnd", "busy", "channel"}).Draw(t, "phone_dnd")
	k.Ringing = rapid.SampledFrom([]string{"channel", "busy"}).Draw(t, "ringing")
	k.Tentative = rapid.SampledFrom([]string{"ignore", "busy"}).Draw(t, "tentative")
	k.MergeGap = rapid.SampledFrom([]time.Duration{0, 30 * time.Second, time.Minute, 5 * time.Minute}).Draw(t, "merge_gap")
	k.CallOverridesAway = rapid.Bool().Draw(t, "call over away")
	return k.Policy()
}

// The order in which reports are given does not matter.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, reports, now := drawPolicy(t), drawReports(t), moment(t, "now")
		a, nextA := p.Decide("x", reports, now)
		b, nextB := p.Decide("x", rapid.Permutation(reports).Draw(t, "order"), now)
		if a != b || !nextA.Equal(nextB) {
			t.Fatalf("%+v (%s)\n%+v (%s)", a, nextA, b, nextB)
		}
	})
}

// Whatever a Decider decided before, it gives what the policy does.
func TestDeciderForgets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		p.Meanwhile[presence.PhoneDialing] |= presence.Facts(presence.Expired) // which else holds without a span
		d := p.Decider()
		for range rapid.IntRange(1, 4).Draw(t, "decisions") {
			reports, now := drawReports(t), moment(t, "now")
			want, next := p.Decide("x", reports, now)
			if got, gotNext := d.Decide("x", reports, now); got != want || !gotNext.Equal(next) {
				t.Fatalf("%+v (%s), want %+v (%s)", got, gotNext, want, next)
			}
		}
	})
}

// States have the same fingerprint if, and only if, a watcher sees no difference.
func TestFingerprintIsSame(t *testing.T) {
	seed := maphash.MakeSeed()
	near := func(t *rapid.T) presence.State { // few values, so that states are often the same, or nearly
		s, _ := drawPolicy(t).Decide("x", drawReports(t), noon)
		return s
	}
	rapid.Check(t, func(t *rapid.T) {
		a := near(t)
		b := a
		b.Since, b.Revision = noon, 7
		for i := range b.Channels { // the same moments in another zone
			b.Channels[i].Since = b.Channels[i].Since.In(time.FixedZone("", 3600))
		}
		if a.Fingerprint(seed) != b.Fingerprint(seed) {
			t.Fatalf("the same state\n%+v", a)
		}
		c := &b.Channels[rapid.IntRange(0, presence.ChannelCount-1).Draw(t, "channel")]
		[]func(){
			func() { b.Availability++ }, func() { b.Activity++ }, func() { b.Class++ }, func() { b.Overlays ^= 1 << rapid.IntRange(0, 3).Draw(t, "overlay") },
			func() { c.State++ }, func() { c.Contact += "x" }, func() { c.Since = c.Since.Add(1) }, func() { c.Until = c.Until.Add(time.Second) },
			func() { b.Until = b.Until.Add(1) }, func() { b.Why.Rule += "x" }, func() { b.Why.Title += "x" }, func() { b.Why.Source += "x" },
			func() { b.Why.Fact += "x" }, func() { b.Why.From = b.Why.From.Add(time.Second) }, func() { b = near(t) },
		}[rapid.IntRange(0, 14).Draw(t, "change")]()
		if same := a.Same(&b); same != (a.Fingerprint(seed) == b.Fingerprint(seed)) {
			t.Fatalf("same is %v, not so the fingerprints\n%+v\n%+v", same, a, b)
		}
	})
}

// Between now and next nothing changes: no moment at which a state changes is
// ever missed.
func TestNextIsNeverMissed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, reports, now := drawPolicy(t), drawReports(t), moment(t, "now")
		s, next := p.Decide("x", reports, now)
		later := now.Add(time.Duration(rapid.IntRange(1, 3_600_000).Draw(t, "ms")) * time.Millisecond)
		if !next.IsZero() {
			if !next.After(now) {
				t.Fatalf("next %s is not after now %s", next, now)
			}
			if !later.Before(next) {
				later = next.Add(-time.Nanosecond)
			}
		}
		if s2, _ := p.Decide("x", reports, later); !s.Same(&s2) {
			t.Fatalf("next is %s, but at %s\n%+v became\n%+v", next, later, s, s2)
		}
	})
}

// Explain and Decide are one reasoning.
func TestExplainAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, reports, now := drawPolicy(t), drawReports(t), moment(t, "now")
		s, next := p.Decide("x", reports, now)
		e := p.Explain("x", reports, now)
		if e.State != s || !e.Next.Equal(next) {
			t.Fatalf("%+v\n%+v", e.State, s)
		}
		for _, r := range e.Passed {
			if r.Why == "it would have fired" {
				t.Fatalf("rule %s would have fired before %s", r.Rule, s.Why.Rule)
			}
		}
		_ = e.Text(time.UTC)
	})
}

// A lost source is doubted at once and counts no longer than its grace.
func TestLostSourceExpires(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawReport(t, "aes")
		r.Grace = 30 * time.Second
		at := moment(t, "lost at")
		lost := r.Lost(at)
		s, _ := presence.DefaultPolicy().Decide("x", []presence.Report{lost}, at.Add(30*time.Second))
		if s.Availability != presence.Unavailable && s.Availability != presence.Unknown {
			t.Fatalf("%s after the grace", s.Availability)
		}
	})
}
