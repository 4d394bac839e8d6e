package aggregator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// A damped is a core with one person, of whom a phone, a calendar and the person
// speak, and what it showed.
type damped struct {
	core  *aggregator.Core
	now   time.Time
	shown []presence.State
}

// newDamped begins with an idle phone at eight.
func newDamped(change func(*presence.Setting)) *damped {
	k := presence.DefaultSetting()
	k.HangupLinger = 0
	if change != nil {
		change(&k)
	}
	d := &damped{core: aggregator.NewCore(k.Policy()), now: eight}
	d.core.Enter("ann", eight)
	d.says("aes", presence.PhoneIdle)
	return d
}

// until moves time on.
func (d *damped) until(now time.Time) {
	for n := d.core.Next(); !n.IsZero() && !n.After(now); n = d.core.Next() {
		d.shown = d.core.Advance(n, d.shown)
	}
	d.now = now
}

// says has a source say facts now; from then on they hold.
func (d *damped) says(source string, facts ...presence.Fact) {
	d.saysUntil(time.Time{}, source, facts...)
}

// saysUntil has a source say facts that hold until a moment.
func (d *damped) saysUntil(until time.Time, source string, facts ...presence.Fact) {
	r := presence.Report{Source: source, Subject: presence.Subject{Scheme: "tel", Value: "4750"}, At: d.now, Grace: 30 * time.Second}
	for _, f := range facts {
		r.Spans = append(r.Spans, presence.Span{Fact: f, From: d.now, Until: until})
	}
	if s, changed := d.core.Accept("ann", r, d.now); changed {
		d.shown = append(d.shown, s)
	}
}

// decided is what the policy says now, without any damping.
func (d *damped) decided(p *presence.Policy) presence.State {
	s, _ := p.Decide("ann", d.core.Reports("ann"), d.now)
	return s
}

// lines gives what was shown.
func (d *damped) lines() []string {
	var out []string
	for _, s := range d.shown {
		out = append(out, fmt.Sprintf("%s %s phone=%s", s.Since.Format("15:04:05.9"), s.Availability, s.Channel(presence.Phone).State))
	}
	return out
}

func TestDamping(t *testing.T) {
	// Each line is a time, who speaks, and what: a fact, or - for nothing.
	for name, c := range map[string]struct {
		change func(*presence.Setting)
		events string
		until  string
		want   string
	}{
		"a call of half a second": {
			nil, "09:00:00 aes phone-connected, 09:00:00.5 aes phone-idle", "10:00:00",
			"09:00:00 busy phone=in-use, 09:00:00 busy phone=idle, 09:00:01 available phone=idle",
		},
		"no dwell": {
			func(k *presence.Setting) { k.MinDwell = 0 }, "09:00:00 aes phone-connected, 09:00:00.5 aes phone-idle", "10:00:00",
			"09:00:00 busy phone=in-use, 09:00:00.5 available phone=idle",
		},
		"the fourth return waits": {
			nil, `09:00:00 aes phone-connected, 09:00:10 aes phone-idle, 09:00:20 aes phone-connected, 09:00:30 aes phone-idle,
			09:00:40 aes phone-connected, 09:00:50 aes phone-idle, 09:01:00 aes phone-connected, 09:01:10 aes phone-idle`, "10:00:00",
			`09:00:00 busy phone=in-use, 09:00:10 available phone=idle, 09:00:20 busy phone=in-use, 09:00:30 available phone=idle,
			09:00:40 busy phone=in-use, 09:00:50 available phone=idle, 09:01:00 busy phone=in-use, 09:01:00 busy phone=idle, 09:03:10 available phone=idle`,
		},
		"a call while a return waits": {
			func(k *presence.Setting) { k.FlapLimit = 1 },
			"09:00:00 aes phone-connected, 09:00:10 aes phone-idle, 09:00:20 aes phone-connected, 09:00:30 aes phone-idle, 09:03:00 aes phone-connected, 09:03:20 aes phone-idle", "10:00:00",
			`09:00:00 busy phone=in-use, 09:00:10 available phone=idle, 09:00:20 busy phone=in-use, 09:00:20 busy phone=idle, 09:00:20 busy phone=in-use,
			09:03:20 available phone=idle`,
		},
		"no limit": {
			func(k *presence.Setting) { k.FlapLimit = 0 },
			"09:00:00 aes phone-connected, 09:00:02 aes phone-idle, 09:00:04 aes phone-connected, 09:00:06 aes phone-idle", "10:00:00",
			"09:00:00 busy phone=in-use, 09:00:02 available phone=idle, 09:00:04 busy phone=in-use, 09:00:06 available phone=idle",
		},
		"what is less reachable still goes out at once": {
			func(k *presence.Setting) { k.FlapLimit = 1 },
			"09:00:00 aes phone-connected, 09:00:10 aes phone-idle, 09:00:20 aes phone-connected, 09:00:30 aes phone-idle, 09:00:40 aes phone-out-of-service, 09:00:50 aes phone-connected", "10:00:00",
			`09:00:00 busy phone=in-use, 09:00:10 available phone=idle, 09:00:20 busy phone=in-use, 09:00:20 busy phone=idle, 09:00:40 offline phone=unavailable,
			09:00:40 offline phone=in-use, 09:03:10 busy phone=in-use`,
		},
		"what is set by hand does not wait, and counts anew": {
			func(k *presence.Setting) { k.FlapLimit = 1 },
			"09:00:00 aes phone-connected, 09:00:10 aes phone-idle, 09:00:20 aes phone-connected, 09:00:30 aes phone-idle, 09:00:40 manual manual-available, 09:00:50 manual manual-dnd, 09:00:50.1 manual -, 09:00:55 aes phone-connected, 09:00:57 aes phone-idle", "10:00:00",
			`09:00:00 busy phone=in-use, 09:00:10 available phone=idle, 09:00:20 busy phone=in-use, 09:00:20 busy phone=idle, 09:00:40 available phone=idle,
			09:00:50 dnd phone=idle, 09:00:50.1 available phone=idle, 09:00:55 busy phone=in-use, 09:00:57 available phone=idle`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDamped(c.change)
			d.shown = nil
			for line := range strings.SplitSeq(c.events, ",") {
				words := strings.Fields(line)
				d.until(moment(t, words[0]))
				if words[2] == "-" {
					d.says(words[1])
					continue
				}
				fact, err := presence.ParseFact(words[2])
				if err != nil {
					t.Fatal(err)
				}
				d.says(words[1], fact)
			}
			d.until(moment(t, c.until))
			var want []string
			for line := range strings.SplitSeq(c.want, ",") {
				want = append(want, strings.TrimSpace(line))
			}
			if diff := cmp.Diff(want, d.lines()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func moment(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse("15:04:05", text)
	if err != nil {
		t.Fatal(err)
	}
	return eight.Add(at.Sub(time.Date(0, 1, 1, 8, 0, 0, 0, time.UTC)))
}

// The laws of the damping, whatever happens:
//
//   - nobody is ever shown as easier to reach than the policy decides;
//   - within any window at most the limit of returns is shown, and each after what it
//     replaces was shown for the dwell, but for what the person sets by hand;
//   - what is set by hand is shown at once;
//   - after the window without anything new, what is decided is shown.
func TestDampingLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := presence.DefaultSetting()
		k.MinDwell = rapid.SampledFrom([]time.Duration{0, time.Second, 10 * time.Second}).Draw(t, "dwell")
		k.FlapLimit = rapid.IntRange(0, 3).Draw(t, "limit")
		k.FlapWindow = rapid.SampledFrom([]time.Duration{0, 20 * time.Second, 3 * time.Minute}).Draw(t, "window")
		policy := k.Policy()
		d := newDamped(func(s *presence.Setting) { *s = k })
		last, _ := d.core.State("ann")
		var returns []time.Time
		look := func() {
			s, _ := d.core.State("ann")
			decided := d.decided(policy)
			if s.Availability.EasierThan(decided.Availability) {
				t.Fatalf("at %s shown as %s, while %s is decided", d.now, s.Availability, decided.Availability)
			}
			byHand := decided.Why.ByHand() || last.Why.ByHand()
			if (byHand || !decided.Availability.EasierThan(last.Availability)) && !s.Same(&decided) {
				t.Fatalf("at %s held back: %s, shown %s", d.now, decided.Availability, s.Availability)
			}
			if s.Channels != decided.Channels {
				t.Fatalf("at %s the channels are those of another moment", d.now)
			}
			switch {
			case byHand:
				returns = nil
			case s.Availability.EasierThan(last.Availability):
				if last.Availability == presence.Unknown {
					break
				}
				if shown := d.now.Sub(last.Since); shown < k.MinDwell {
					t.Fatalf("at %s %s was shown for %s only", d.now, last.Availability, shown)
				}
				returns = slices.DeleteFunc(returns, func(at time.Time) bool { return !at.After(d.now.Add(-k.FlapWindow)) })
				if returns = append(returns, d.now); k.FlapLimit > 0 && len(returns) > k.FlapLimit {
					t.Fatalf("at %s %d returns within %s", d.now, len(returns), k.FlapWindow)
				}
			}
			last = s
		}
		until := func(now time.Time) {
			for n := d.core.Next(); !n.IsZero() && !n.After(now); n = d.core.Next() {
				d.until(n)
				look()
			}
			d.until(now)
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			until(d.now.Add(rapid.SampledFrom([]time.Duration{0, 300 * time.Millisecond, 2 * time.Second, 15 * time.Second, time.Minute, 4 * time.Minute}).Draw(t, "pause")))
			switch rapid.IntRange(0, 10).Draw(t, "what") {
			case 0:
				d.says(aggregator.SourceManual, rapid.SampledFrom([]presence.Fact{presence.ManualBusy, presence.ManualDND, presence.ManualAvailable}).Draw(t, "by hand"))
			case 1:
				d.says(aggregator.SourceManual)
			case 2:
				d.core.Lost("aes", d.now)
			case 3:
				d.says("client", rapid.SampledFrom([]presence.Fact{presence.SessionActive, presence.SessionAway, presence.Presenting}).Draw(t, "client"))
			case 4: // which ends without a word
				d.saysUntil(d.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds"))*time.Second), "exchange", presence.CalendarMeeting)
			default:
				d.says("aes", rapid.SampledFrom([]presence.Fact{presence.PhoneIdle, presence.PhoneConnected, presence.PhoneOutOfService, presence.PhoneHeld}).Draw(t, "phone"))
			}
			look()
		}
		until(d.now.Add(time.Hour))
		s, _ := d.core.State("ann")
		if decided := d.decided(policy); !s.Same(&decided) {
			t.Fatalf("in the end %s is shown, and %s decided", s.Availability, decided.Availability)
		}
		if !d.core.Next().IsZero() {
			t.Fatalf("something is still due at %s", d.core.Next())
		}
	})
}

// What shows is what is told of, wherever it is asked for; explain says the rest.
func TestHeldBackIsExplained(t *testing.T) {
	d := newDamped(func(k *presence.Setting) { k.FlapLimit = 1 })
	for i, f := range []presence.Fact{presence.PhoneConnected, presence.PhoneIdle, presence.PhoneConnected, presence.PhoneIdle} {
		d.until(clock(9, 0, 10*i))
		d.says("aes", f)
	}
	d.until(clock(9, 1, 0))
	s, _ := d.core.State("ann")
	e, _ := d.core.Explain("ann", d.now)
	if !e.State.Same(&s) || s.Availability != presence.Busy || !e.State.Since.Equal(clock(9, 0, 20)) {
		t.Errorf("explained is %+v, shown %+v", e.State, s)
	}
	want := "ann is busy, on-the-phone at 2026-11-20 09:01:00\n" +
		"  since 2026-11-20 09:00:20\n" +
		"  because of rule on-the-phone: In a call\n" +
		"  held back: would be available by rule phone-idle since 2026-11-20 09:00:30; shows from 2026-11-20 09:03:10, because the person became easier to reach 1 times within 3m0s\n"
	if text := e.Text(time.UTC); !strings.HasPrefix(text, want) {
		t.Errorf("%s", cmp.Diff(want, text))
	}
	if e, _ := d.core.Explain("ann", clock(9, 3, 10)); e.HeldBack != nil || e.State.Availability != presence.Available {
		t.Errorf("at the end of the wait: %+v", e)
	}
	d.until(clock(9, 3, 10))
	if e, _ := d.core.Explain("ann", d.now); e.HeldBack != nil || !e.State.Since.Equal(clock(9, 3, 10)) {
		t.Errorf("after the wait: %+v", e)
	}
}

// What is held back says at once that its source is lost, and that it is back.
func TestDoubtDoesNotWait(t *testing.T) {
	d := newDamped(func(k *presence.Setting) { k.FlapLimit = 1 })
	for i, f := range []presence.Fact{presence.PhoneConnected, presence.PhoneIdle, presence.PhoneConnected, presence.PhoneIdle} {
		d.until(clock(9, 0, 10*i))
		d.says("aes", f)
	}
	stale := func(at time.Time, availability presence.Availability, want bool) {
		t.Helper()
		d.until(at)
		if s, _ := d.core.State("ann"); s.Availability != availability || s.Overlays.Has(presence.OverlayStale) != want {
			t.Errorf("at %s: %s %s, stale should be %v", at.Format(time.TimeOnly), s.Availability, s.Overlays.Names(), want)
		}
	}
	stale(clock(9, 0, 40), presence.Busy, false)
	if told := d.core.Lost("aes", d.now); len(told) != 1 {
		t.Errorf("watchers are told of %d changes", len(told))
	}
	stale(clock(9, 0, 40), presence.Busy, true)
	stale(clock(9, 0, 50), presence.Busy, true)
	d.says("aes", presence.PhoneIdle)
	stale(clock(9, 0, 50), presence.Busy, false)
	d.core.Lost("aes", d.now)
	stale(clock(9, 1, 19), presence.Busy, true)
	stale(clock(9, 1, 20), presence.Unavailable, false) // harder to reach: at once, when the grace is over
}

// Another policy, another directory and a restart are no flapping: nothing waits.
func TestNothingWaitsForTheAdministrator(t *testing.T) {
	restless := func() *damped {
		d := newDamped(func(k *presence.Setting) { k.FlapLimit = 1 })
		for i, f := range []presence.Fact{presence.PhoneConnected, presence.PhoneIdle, presence.PhoneConnected, presence.PhoneIdle} {
			d.until(clock(9, 0, 10*i))
			d.says("aes", f)
		}
		return d
	}
	available := func(what string, s presence.State, changed bool) {
		t.Helper()
		if !changed || s.Availability != presence.Available {
			t.Errorf("%s: %s, changed %v", what, s.Availability, changed)
		}
	}
	d := restless()
	changes := d.core.SetPolicy(presence.DefaultPolicy(), d.now)
	available("another policy", changes[0], len(changes) == 1)

	d = restless()
	d.says("client", presence.Presenting)
	d.says("other", presence.PhoneIdle)
	s, changed := d.core.Keep("ann", func(presence.Subject) bool { return false }, d.now)
	if !changed || s.Availability != presence.Unknown {
		t.Errorf("nothing is left: %s", s.Availability)
	}

	d = restless()
	last, _ := d.core.State("ann")
	reports := d.core.Reports("ann")
	again := aggregator.NewCore(presence.DefaultPolicy())
	again.Enter("ann", d.now)
	s, changed = again.Restore("ann", reports, last, d.now)
	available("a restart", s, changed)
	if s, changed = d.core.Restore("ann", reports, last, d.now); d.core.Restless() != 0 {
		t.Error("what was put back is dampened by what was before")
	}
	available("put back later", s, changed)

	d = restless()
	if s, _ := d.core.Leave("ann", d.now); s.Why.Rule != presence.RuleRemoved || !d.core.Next().IsZero() {
		t.Errorf("who left: %+v, due %s", s, d.core.Next())
	}
}

// Who is calm costs nothing: they are forgotten when others become easier to reach.
func TestTheCalmAreForgotten(t *testing.T) {
	c := aggregator.NewCore(presence.DefaultPolicy())
	call := func(id presence.ID, at time.Time) {
		c.Enter(id, eight)
		c.Accept(id, phone(at, presence.Span{Fact: presence.PhoneConnected, From: at, Until: at.Add(10 * time.Second)}, idle(at)), at)
		c.Advance(at.Add(11*time.Second), nil)
	}
	for i := range 100 {
		call(presence.ID(fmt.Sprint("p", i)), clock(9, i/60, i%60))
	}
	if n := c.Restless(); n != 100 {
		t.Fatalf("%d of 100 came back lately", n)
	}
	call("last", clock(9, 10, 0))
	if n := c.Restless(); n != 1 {
		t.Errorf("%d are kept, though only one came back lately", n)
	}
}
