package outbox_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator/presence"
	"presenced/bridges/outbox"
)

// A world is a box, the receiver that it sends to, and what holds of each person.
type world struct {
	t      *rapid.T
	terms  outbox.Terms
	box    *outbox.Box
	now    time.Time
	newest map[presence.ID]string // what holds; nobody else is there
	has    map[presence.ID]string // what the receiver accepted last
	aloft  []outbox.Attempt
	kept   map[presence.ID][]byte // records, as JSON
	last   time.Time              // of the last attempt
}

var (
	ids   = []presence.ID{"ann", "bob"}
	texts = []string{"", "available", "busy"} // "": gone
)

func (w *world) keep() {
	for _, id := range w.box.Touched() {
		delete(w.kept, id)
		if r, ok := w.box.Record(id); ok {
			w.kept[id], _ = json.Marshal(r)
		}
	}
}

func (w *world) set(id presence.ID, text string) {
	delete(w.newest, id)
	var content []byte
	if text != "" {
		w.newest[id] = text
		content = []byte(text)
	}
	w.box.Set(id, content, w.now)
	w.keep()
}

func (w *world) send() {
	a, ok := w.box.Next(w.now)
	w.keep()
	if !ok {
		return
	}
	if _, known := w.kept[a.Person]; !known {
		w.t.Fatalf("%s is told of, and nothing is kept that says so", a.Person)
	}
	if slices.ContainsFunc(w.aloft, func(o outbox.Attempt) bool { return o.Person == a.Person }) {
		w.t.Fatalf("two attempts of %s at once", a.Person)
	}
	if gap := w.now.Sub(w.last); !w.last.IsZero() && gap < time.Second/time.Duration(w.terms.Rate) {
		w.t.Fatalf("an attempt %s after the one before", gap)
	}
	w.last = w.now
	if w.aloft = append(w.aloft, a); len(w.aloft) > w.terms.InFlight {
		w.t.Fatalf("%d attempts at once", len(w.aloft))
	}
}

func (w *world) accept(a outbox.Attempt) {
	if delete(w.has, a.Person); a.Content != nil {
		w.has[a.Person] = string(a.Content)
	}
}

func (w *world) done(i int, o outbox.Outcome, received bool, after time.Duration) {
	a := w.aloft[i]
	w.aloft = slices.Delete(w.aloft, i, i+1)
	if received {
		w.accept(a)
	}
	w.box.Done(a, o, after, "because", w.now)
	w.keep()
}

// restart begins with a new box, what was kept, and what holds now.
func (w *world) restart(received func() bool) {
	for _, a := range w.aloft { // a request that was written may have been taken
		if received() {
			w.accept(a)
		}
	}
	w.aloft, w.last = nil, time.Time{}
	w.box = outbox.NewBox(w.terms)
	for _, data := range w.kept {
		var r outbox.Record
		if err := json.Unmarshal(data, &r); err != nil {
			w.t.Fatal(err)
		}
		w.box.Restore(r)
	}
	for id, text := range w.newest {
		w.box.Set(id, []byte(text), w.now)
	}
	for _, id := range w.box.People() {
		if _, there := w.newest[id]; !there {
			w.box.Set(id, nil, w.now)
		}
	}
	w.keep()
}

// TestNewestArrives is the law of the box: after any sequence of changes, failures,
// and restarts, once the receiver accepts again, what it accepted last of each
// person is the newest, but for letters that are dead and say so; and what the box
// holds never exceeds the people that there were.
func TestNewestArrives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{
			t: t, now: time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC),
			terms: outbox.Terms{
				InFlight: rapid.IntRange(1, 3).Draw(t, "in flight"), Rate: rapid.IntRange(1, 20).Draw(t, "rate"),
				First: time.Second, Longest: 20 * time.Second, GiveUp: 2 * time.Minute, Jitter: func() float64 { return rapid.Float64Range(0, 0.999).Draw(t, "jitter") },
			},
			newest: map[presence.ID]string{}, has: map[presence.ID]string{}, kept: map[presence.ID][]byte{},
		}
		w.box = outbox.NewBox(w.terms)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				w.set(rapid.SampledFrom(ids).Draw(t, "id"), rapid.SampledFrom(texts).Draw(t, "text"))
			},
			"send": func(*rapid.T) {
				if due := w.box.Due(); due.After(w.now) && due.Sub(w.now) <= time.Second { // as the rate has it
					w.now = due
				}
				w.send()
			},
			"done": func(t *rapid.T) {
				if len(w.aloft) == 0 {
					return
				}
				o := outbox.Outcome(min(rapid.IntRange(0, 30).Draw(t, "outcome")/10, 3)) //nolint:gosec // Gone is rare
				received := o == outbox.Accepted || rapid.Bool().Draw(t, "received all the same")
				after := time.Duration(rapid.IntRange(0, 20).Draw(t, "after")) * time.Second
				w.done(rapid.IntRange(0, len(w.aloft)-1).Draw(t, "which"), o, received, after)
			},
			"wait": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 120_000).Draw(t, "ms")) * time.Millisecond)
			},
			"restart": func(t *rapid.T) { w.restart(func() bool { return rapid.Bool().Draw(t, "received") }) },
			"retry":   func(t *rapid.T) { w.box.Retry(rapid.SampledFrom(append(ids, "")).Draw(t, "id"), w.now) },
			"":        func(*rapid.T) { w.check() },
		})
		w.settle()
		given := map[presence.ID]bool{}
		for _, l := range w.box.Dead() {
			given[l.Person] = true
		}
		for _, id := range ids {
			if w.has[id] != w.newest[id] && !given[id] {
				t.Fatalf("the receiver has %q of %s; %q holds", w.has[id], id, w.newest[id])
			}
		}
		w.box.Retry("", w.now)
		w.settle()
		if !maps.Equal(w.has, w.newest) {
			t.Fatalf("after all was tried again the receiver has %q; %q holds", w.has, w.newest)
		}
		if s := w.box.Standing(); s.Refused+s.Dead+s.Waiting != 0 {
			t.Fatalf("everything was accepted: %+v", s)
		}
		if rest := w.box.People(); len(rest) != len(w.newest) {
			t.Fatalf("the box holds %q; only %q are there", rest, w.newest)
		}
	})
}

// settle has the receiver accept everything.
func (w *world) settle() {
	if w.box.Standing().Stopped != "" {
		w.box.Retry("nobody", w.now)
	}
	for range 10_000 {
		for len(w.aloft) > 0 {
			w.done(0, outbox.Accepted, true, 0)
		}
		due := w.box.Due()
		if due.IsZero() {
			return
		}
		if due.After(w.now) {
			w.now = due
		}
		w.send()
	}
	w.t.Fatal("the box does not come to rest")
}

func (w *world) check() {
	if s := w.box.Standing(); s.Dead != len(w.box.Dead()) || s.Refused > s.Waiting || s.Waiting+s.Dead > len(ids) || len(w.box.People()) > len(ids) || len(w.kept) > len(ids) {
		w.t.Fatalf("more is held than there are people: %+v, %d kept", s, len(w.kept))
	}
	if due := w.box.Due(); !due.IsZero() && len(w.aloft) >= w.terms.InFlight {
		w.t.Fatalf("something is due at %s though no more may be sent", due)
	}
}
