package outbox_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
	"presenced/bridges/outbox"
)

var start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// newBox makes a box whose waits are exactly 1, 2, 4, ... seconds, up to a minute.
func newBox() *outbox.Box {
	return outbox.NewBox(outbox.Terms{
		InFlight: 2, Rate: 1000, First: 2 * time.Second, Longest: 2 * time.Minute, GiveUp: time.Hour, Jitter: func() float64 { return 0 },
	})
}

// take wants an attempt for that person at that time.
func take(t *testing.T, b *outbox.Box, person string, now time.Time) outbox.Attempt {
	t.Helper()
	a, ok := b.Next(now)
	if !ok || string(a.Person) != person {
		t.Fatalf("%v, %q is sent, want %s", ok, a.Person, person)
	}
	return a
}

// TestReceiverFails looks at the pauses: everybody waits, one tries.
func TestReceiverFails(t *testing.T) {
	b, now := newBox(), start
	b.Set("ann", []byte("1"), now)
	b.Set("bob", []byte("1"), now)
	b.Set("cat", []byte("1"), now)
	one, two := take(t, b, "ann", now), take(t, b, "bob", now.Add(time.Millisecond))
	now = now.Add(time.Second)
	b.Done(one, outbox.Failed, 0, "refused connection", now)
	b.Done(two, outbox.Failed, 0, "refused connection", now) // at the same time: no second failure
	for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute} {
		if got := b.Due().Sub(now); got != want {
			t.Fatalf("the next attempt is due in %s, want %s", got, want)
		}
		now = now.Add(want)
		a, ok := b.Next(now)
		if !ok {
			t.Fatal("nothing is sent though it is due")
		}
		if _, more := b.Next(now.Add(100 * time.Millisecond)); more {
			t.Fatal("two try a receiver that fails")
		}
		b.Done(a, outbox.Failed, 0, "refused connection", now)
	}
	if s := b.Standing(); s.Failing != "refused connection" || s.Waiting != 3 {
		t.Errorf("%+v", s)
	}
	now = b.Due()
	a, _ := b.Next(now)
	b.Done(a, outbox.Failed, 10*time.Minute, "503", now)
	if got := b.Due().Sub(now); got != 10*time.Minute {
		t.Errorf("the receiver asked for ten minutes and gets %s", got)
	}
	now = b.Due()
	a, _ = b.Next(now)
	b.Done(a, outbox.Accepted, 0, "", now)
	for i := range 2 {
		if _, ok := b.Next(now.Add(time.Duration(i+1) * time.Millisecond)); !ok {
			t.Error("a receiver that accepts again does not get all at once")
		}
	}
	if s := b.Standing(); s.Failing != "" {
		t.Errorf("%+v", s)
	}
}

// TestLetters gives up what fails for too long, and looks at what comes of it.
func TestLetters(t *testing.T) {
	b, now := newBox(), start
	b.Set("ann", []byte("1"), now)
	b.Set("bob", []byte("1"), now)
	b.Done(take(t, b, "ann", now), outbox.Refused, 0, "422", now)
	b.Done(take(t, b, "bob", now.Add(time.Millisecond)), outbox.Accepted, 0, "", now)
	if got := b.Due().Sub(now); got != time.Second {
		t.Errorf("what was refused is due in %s", got)
	}
	now = now.Add(time.Hour)
	b.Done(take(t, b, "ann", now), outbox.Refused, 0, "422", now)
	want := []outbox.Letter{{Person: "ann", Since: start, At: now, Tries: 2, Why: "422"}}
	if d := cmp.Diff(want, b.Dead()); d != "" || !b.Due().IsZero() {
		t.Errorf("due %s\n%s", b.Due(), d)
	}
	b.Set("ann", []byte("1"), now)
	if !b.Due().IsZero() {
		t.Error("the same is sent though it was given up")
	}

	r, ok := b.Record("ann")
	b.Set("ann", []byte("3"), now)
	if a := take(t, b, "ann", now.Add(time.Millisecond)); string(a.Content) != "3" || len(b.Dead()) != 0 {
		t.Errorf("what is newer than a dead letter is %q, with %d dead", a.Content, len(b.Dead()))
	}

	b = newBox()
	b.Restore(r)
	if !ok || b.Retry("ann", now) != 0 {
		t.Error("a letter whose content is not known is tried again")
	}
	b.Set("ann", []byte("1"), now)
	if len(b.Dead()) != 1 || b.Retry("ann", now) != 1 || len(b.Dead()) != 0 {
		t.Error("a dead letter was not kept over a restart, or is not tried again")
	}
	a := take(t, b, "ann", now)
	b.Done(a, outbox.Refused, 0, "422", now)
	b.Set("ann", []byte("2"), now)
	if two := take(t, b, "ann", now.Add(time.Millisecond)); two.Message == a.Message || string(two.Content) != "2" || two.Try != 1 {
		t.Errorf("what is newer does not go at once: %+v after %+v", two, a)
	}

	b = newBox() // a receiver that is away for long: also what never was tried
	b.Set("ann", []byte("1"), start)
	b.Set("bob", []byte("1"), start)
	b.Done(take(t, b, "ann", now), outbox.Failed, 0, "away", now)
	if dead := b.Dead(); len(dead) != 2 || dead[1].Tries != 0 || dead[1].Why != "away" {
		t.Errorf("%+v", dead)
	}
}

// TestRefused waits as long as the receiver asks, or as it would by itself.
func TestRefused(t *testing.T) {
	b, now := newBox(), start
	b.Set("ann", []byte("1"), now)
	b.Done(take(t, b, "ann", now), outbox.Refused, time.Minute, "422", now)
	if got := b.Due().Sub(now); got != time.Minute {
		t.Errorf("the receiver asked for a minute and gets %s", got)
	}
	now = b.Due()
	b.Done(take(t, b, "ann", now), outbox.Refused, time.Second, "422", now)
	if got := b.Due().Sub(now); got != 2*time.Second {
		t.Errorf("the second wait is %s", got)
	}
}

// TestRetryOne tries the letter of one person again: it lives as long as a new one, and
// those of the others stay, also over a restart.
func TestRetryOne(t *testing.T) {
	b, now := newBox(), start
	b.Set("ann", []byte("1"), now)
	b.Set("bob", []byte("1"), now)
	now = now.Add(time.Hour)
	for _, person := range []string{"ann", "bob"} {
		b.Done(take(t, b, person, now), outbox.Refused, 0, "422", now)
		now = now.Add(time.Second)
	}
	if s := b.Standing(); s.Dead != 2 || s.Refused != 0 {
		t.Fatalf("%+v", s)
	}
	b.Touched()
	if n := b.Retry("ann", now); n != 1 || len(b.Dead()) != 1 || b.Dead()[0].Person != "bob" {
		t.Fatalf("%d tried again, dead: %+v", n, b.Dead())
	}
	a := take(t, b, "ann", now)
	if a.Try != 1 || !a.Since.Equal(now) {
		t.Errorf("%+v", a)
	}
	b.Done(a, outbox.Refused, 0, "422", now)
	if s := b.Standing(); s.Dead != 1 || s.Refused != 1 {
		t.Errorf("given up at the first attempt: %+v", s)
	}

	kept, _ := b.Record("bob")
	b = newBox()
	b.Restore(kept)
	if s := b.Standing(); s.Dead != 1 || s.Known != 1 {
		t.Errorf("after a restart: %+v", s)
	}
	b.Set("bob", nil, now) // left
	b.Done(take(t, b, "bob", now), outbox.Accepted, 0, "", now)
	if got := b.Touched(); !slices.Equal(got, []presence.ID{"bob"}) {
		t.Errorf("touched: %q", got)
	}
	if _, ok := b.Record("bob"); ok || b.Standing().Dead != 0 {
		t.Errorf("who left is kept: %+v", b.Standing())
	}
}

// TestForgottenIsTouched has what is kept of somebody go when the receiver has forgotten
// them.
func TestForgottenIsTouched(t *testing.T) {
	b, now := newBox(), start
	b.Know("ann")
	b.Set("ann", nil, now)
	a := take(t, b, "ann", now)
	b.Touched()
	b.Done(a, outbox.Accepted, 0, "", now)
	if got := b.Touched(); !slices.Equal(got, []presence.ID{"ann"}) {
		t.Errorf("touched: %q", got)
	}
}

// TestGone stops everything until it is tried again.
func TestGone(t *testing.T) {
	b := newBox()
	b.Set("ann", []byte("1"), start)
	b.Done(take(t, b, "ann", start), outbox.Gone, 0, "410 Gone", start)
	b.Set("bob", []byte("1"), start)
	if s := b.Standing(); !b.Due().IsZero() || s.Stopped != "410 Gone" || s.Waiting != 2 {
		t.Errorf("due %s, %+v", b.Due(), s)
	}
	b.Retry("", start)
	take(t, b, "ann", start.Add(time.Millisecond))
}

// TestNothingTwice sends nothing where the receiver has it, and again where that is
// not certain.
func TestNothingTwice(t *testing.T) {
	b, now := newBox(), start
	step := func() time.Time { now = now.Add(time.Second); return now }
	b.Set("ann", nil, now)
	b.Set("ann", []byte("1"), now)
	b.Set("ann", nil, now)
	if !b.Due().IsZero() || len(b.People()) != 0 {
		t.Error("a receiver is told that somebody left of whom it never knew")
	}
	b.Set("ann", []byte("1"), now)
	b.Done(take(t, b, "ann", now), outbox.Accepted, 0, "", now)
	b.Set("ann", []byte("1"), now)
	b.Set("ann", []byte("2"), now)
	b.Set("ann", []byte("1"), now)
	if !b.Due().IsZero() {
		t.Error("the receiver is told what it has")
	}
	b.Set("ann", []byte("2"), now)
	b.Done(take(t, b, "ann", step()), outbox.Failed, 0, "no answer in time", now)
	b.Set("ann", []byte("1"), now)
	if a := take(t, b, "ann", b.Due()); string(a.Content) != "1" {
		t.Errorf("%q is sent", a.Content)
	} else {
		b.Done(a, outbox.Accepted, 0, "", step())
	}
	b.Set("ann", nil, now)
	b.Done(take(t, b, "ann", step()), outbox.Accepted, 0, "", now)
	if len(b.People()) != 0 {
		t.Error("who left is held for ever")
	}
}
