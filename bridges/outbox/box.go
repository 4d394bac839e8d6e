package outbox

import (
	"container/heap"
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"presenced/aggregator/presence"
)

// Terms are the limits of a Box.
type Terms struct {
	InFlight int           // attempts at the same time, one a person
	Rate     int           // attempts a second
	First    time.Duration // wait after a failure, doubled after each further one
	Longest  time.Duration // of these waits
	GiveUp   time.Duration // after which what fails is a dead letter

	// Jitter gives a number within [0, 1). A wait lies between half of what was
	// doubled and all of it.
	Jitter func() float64
}

// A Box is the machine behind the sending to one receiver. It holds the newest
// content of each person until the receiver has accepted it: at least once, one
// attempt of a person at a time. It needs no clock and starts nothing; all methods
// take the time, which must not run backwards, and none may be called while another
// one is.
//
// What was accepted is not remembered over a restart: a new Box sends everybody
// again. It is told by Restore whom the receiver may know of, so that it can take
// back those who left meanwhile, and which letters are dead.
type Box struct {
	terms   Terms
	entries map[presence.ID]*entry
	waiting waiting
	turn    uint64 // of the next that waits
	message uint64 // of the newest content
	flying  int
	dead    int
	refused int // of those that wait

	next    time.Time // of the next attempt, by the rate
	pause   time.Time // until when the receiver is left alone
	streak  int       // failures of the receiver in a row
	why     string    // of the last one
	stopped string    // why nothing is sent any more; empty: it is
	touched map[presence.ID]bool
}

type standing uint8

const (
	quiet  standing = iota // nothing waits to be said
	queued                 // in the heap
	aloft                  // an attempt is under way
	dead
)

type entry struct {
	id       presence.ID
	standing standing
	told     bool   // the receiver may know of the person
	content  []byte // the newest; nil where nothing is to be there, and where it was accepted
	print    print  // of the newest
	has      print  // what the receiver has
	sure     bool   // it has just that
	message  uint64
	since    time.Time // when the newest became so
	tries    int       // of the newest
	refused  bool      // and waits for another attempt
	due      time.Time
	turn     uint64
	index    int // in the heap
	letter   Letter
}

type print [16]byte

func printOf(content []byte) print {
	sum := sha256.Sum256(content)
	return print(sum[:16])
}

// A Letter is what was given up.
type Letter struct {
	Person presence.ID `json:"person"`
	Since  time.Time   `json:"since"` // when what it says became so
	At     time.Time   `json:"at"`    // when it was given up
	Tries  int         `json:"tries"`
	Why    string      `json:"why"` // the last failure
}

// A Record is what is to be kept of a person over a restart: that the receiver may
// know of them, and what was given up.
type Record struct {
	Person presence.ID `json:"person"`
	Dead   *Letter     `json:"dead,omitempty"`
	Print  []byte      `json:"print,omitempty"` // tells what the letter said from what is newer
}

// An Attempt is one sending.
type Attempt struct {
	Person  presence.ID
	Content []byte    // nil: nothing is to be known of the person any more
	Message uint64    // the same for each attempt of one content, another one for each content
	Since   time.Time // when the content became so
	Try     int       // 1 for the first
	print   print
}

// An Outcome is what came of an attempt.
type Outcome uint8

// The outcomes. After all but Accepted the receiver may have it or not.
const (
	Accepted Outcome = iota
	Refused          // it is about this content: others go on
	Failed           // it is about the receiver: everything waits
	Gone             // the receiver wants nothing any more: everything stops
)

// NewBox makes an empty box.
func NewBox(terms Terms) *Box {
	return &Box{terms: terms, entries: map[presence.ID]*entry{}, touched: map[presence.ID]bool{}}
}

// Restore puts back what Record gave before a restart; before Set.
func (b *Box) Restore(r Record) {
	e := &entry{id: r.Person, told: true}
	if r.Dead != nil && len(r.Print) == len(print{}) {
		e.standing, e.letter, e.print = dead, *r.Dead, print(r.Print)
		b.dead++
	}
	b.entries[r.Person] = e
}

// Know says that the receiver may know of a person, as from before a restart.
func (b *Box) Know(id presence.ID) {
	if e := b.entries[id]; e != nil {
		e.told = true
		return
	}
	b.entries[id] = &entry{id: id, told: true}
}

// Set makes content the newest of a person; nil: the receiver is to know nothing of
// them, which is said only where it may know something.
func (b *Box) Set(id presence.ID, content []byte, now time.Time) {
	e := b.entries[id]
	if e == nil {
		if content == nil {
			return
		}
		e = &entry{id: id}
		b.entries[id] = e
	}
	p := printOf(content)
	switch {
	case e.standing == dead && p == e.print: // still given up
		e.content = content
		return
	case e.standing == quiet && e.sure && p == e.has:
		return
	case (e.standing == queued || e.standing == aloft) && p == e.print:
		return
	}
	b.message++
	e.content, e.print, e.message, e.since, e.tries = content, p, b.message, now, 0
	switch e.standing {
	case aloft: // Done looks again
	case queued:
		if content == nil && !e.told || e.sure && p == e.has {
			b.settle(e)
		} else if e.due.After(now) { // what was refused said something else
			b.queue(e, now)
		}
	default:
		b.queue(e, now)
	}
}

// queue has e wait until due, behind those that are due no later.
func (b *Box) queue(e *entry, due time.Time) {
	b.unqueue(e)
	if e.standing == dead {
		b.dead--
		b.touched[e.id] = true
	}
	b.turn++
	e.standing, e.due, e.turn = queued, due, b.turn
	heap.Push(&b.waiting, e)
}

func (b *Box) unqueue(e *entry) {
	if e.standing == queued {
		heap.Remove(&b.waiting, e.index)
	}
	if e.refused {
		e.refused = false
		b.refused--
	}
}

// settle notes that the receiver has the newest of e.
func (b *Box) settle(e *entry) {
	if e.content == nil {
		b.forget(e)
		return
	}
	b.unqueue(e)
	e.standing, e.content = quiet, nil
}

func (b *Box) forget(e *entry) {
	b.unqueue(e)
	delete(b.entries, e.id)
	b.touched[e.id] = true
}

func (b *Box) bury(e *entry, why string, now time.Time) {
	b.unqueue(e)
	e.standing = dead
	b.dead++
	e.letter = Letter{Person: e.id, Since: e.since, At: now, Tries: e.tries, Why: why}
	b.touched[e.id] = true
}

// Due gives when Next may have something if nothing happens before; the zero time:
// never.
func (b *Box) Due() time.Time {
	if len(b.waiting) == 0 || b.stopped != "" || b.flying >= b.limit() {
		return time.Time{}
	}
	due := b.waiting[0].due
	for _, t := range []time.Time{b.next, b.pause} {
		if t.After(due) {
			due = t
		}
	}
	return due
}

// limit is how many attempts may be under way: of a receiver that fails, one, to see
// whether it still does.
func (b *Box) limit() int {
	if b.streak > 0 {
		return 1
	}
	return b.terms.InFlight
}

// Next gives what is to be sent now, and then expects its Done.
func (b *Box) Next(now time.Time) (Attempt, bool) {
	if due := b.Due(); due.IsZero() || due.After(now) {
		return Attempt{}, false
	}
	e := b.waiting[0]
	b.unqueue(e)
	b.flying++
	b.next = now.Add(time.Second / time.Duration(b.terms.Rate))
	e.standing, e.sure = aloft, false
	e.tries++
	if !e.told {
		e.told = true
		b.touched[e.id] = true
	}
	return Attempt{Person: e.id, Content: e.content, Message: e.message, Since: e.since, Try: e.tries, print: e.print}, true
}

// Done takes what came of an attempt. The next one is not before after, where the
// receiver said so; why stands in a dead letter.
func (b *Box) Done(a Attempt, o Outcome, after time.Duration, why string, now time.Time) {
	b.flying--
	e := b.entries[a.Person]
	e.standing = quiet
	same := e.print == a.print
	if o == Accepted || o == Refused {
		b.streak, b.pause = 0, time.Time{}
	}
	switch o {
	case Accepted:
		e.has, e.sure = a.print, true
		if same {
			b.settle(e)
		} else {
			b.queue(e, now)
		}
		return
	case Gone:
		b.stopped = why
	case Refused:
		switch {
		case !same:
			b.queue(e, now)
		case now.Sub(e.since) >= b.terms.GiveUp:
			b.bury(e, why, now)
		default:
			b.queue(e, now.Add(max(after, b.wait(e.tries))))
			e.refused = true
			b.refused++
		}
		return
	case Failed:
		b.why = why
		if !now.Before(b.pause) { // of several that fail together the first one counts
			b.streak++
			b.pause = now.Add(b.wait(b.streak))
		}
		if t := now.Add(after); t.After(b.pause) {
			b.pause = t
		}
	}
	b.queue(e, now)
	if o == Failed {
		for _, w := range slices.Clone(b.waiting) {
			if now.Sub(w.since) >= b.terms.GiveUp {
				b.bury(w, why, now)
			}
		}
	}
}

// wait is how long to wait after n failures.
func (b *Box) wait(n int) time.Duration {
	d := b.terms.First
	for ; n > 1 && d < b.terms.Longest; n-- {
		d *= 2
	}
	d = min(d, b.terms.Longest)
	return d/2 + time.Duration(b.terms.Jitter()*float64(d/2))
}

// Retry tries dead letters again, of one person, or all where id is empty, and a
// receiver that was gone or is left alone at once. It gives how many letters that
// were; those of before a restart count once Set said what holds.
func (b *Box) Retry(id presence.ID, now time.Time) int {
	n := 0
	for _, l := range b.Dead() {
		e := b.entries[l.Person]
		if id != "" && id != l.Person || printOf(e.content) != e.print { // its content comes yet
			continue
		}
		e.since, e.tries = now, 0
		b.queue(e, now)
		n++
	}
	b.stopped, b.pause = "", time.Time{}
	return n
}

// Stop has nothing sent any more, until Retry; why is not empty.
func (b *Box) Stop(why string) { b.stopped = why }

// Dead gives the dead letters, by person.
func (b *Box) Dead() []Letter {
	out := []Letter{}
	for _, e := range b.entries {
		if e.standing == dead {
			out = append(out, e.letter)
		}
	}
	slices.SortFunc(out, func(x, y Letter) int { return strings.Compare(string(x.Person), string(y.Person)) })
	return out
}

// People gives everybody whom the receiver knows, or is to know.
func (b *Box) People() []presence.ID {
	out := make([]presence.ID, 0, len(b.entries))
	for id := range b.entries {
		out = append(out, id)
	}
	return out
}

// Touched gives whose Record has changed since it was asked for last.
func (b *Box) Touched() []presence.ID {
	if len(b.touched) == 0 {
		return nil
	}
	out := make([]presence.ID, 0, len(b.touched))
	for id := range b.touched {
		out = append(out, id)
	}
	clear(b.touched)
	return out
}

// Record gives what is to be kept of a person; false: nothing is.
func (b *Box) Record(id presence.ID) (Record, bool) {
	e := b.entries[id]
	if e == nil || !e.told {
		return Record{}, false
	}
	r := Record{Person: id}
	if e.standing == dead {
		letter := e.letter
		r.Dead, r.Print = &letter, slices.Clone(e.print[:])
	}
	return r, true
}

// A Standing is how the sending fares.
type Standing struct {
	Known   int       // people whom the receiver knows, or is to know
	Waiting int       // people about whom there is something to say
	Refused int       // people who wait because the receiver does not take what is about them
	Dead    int       // people who were given up
	Failing string    // why the receiver is left alone; empty: it is not
	Pause   time.Time // until when
	Stopped string    // why nothing is sent any more
}

// Standing gives how the sending fares.
func (b *Box) Standing() Standing {
	s := Standing{Known: len(b.entries), Waiting: len(b.waiting) + b.flying, Refused: b.refused, Dead: b.dead, Stopped: b.stopped}
	if b.streak > 0 {
		s.Failing, s.Pause = b.why, b.pause
	}
	return s
}

// waiting is a heap of entries, the first due on top.
type waiting []*entry

func (w waiting) Len() int { return len(w) }

func (w waiting) Less(i, j int) bool {
	if w[i].due.Equal(w[j].due) {
		return w[i].turn < w[j].turn
	}
	return w[i].due.Before(w[j].due)
}

func (w waiting) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}

// Push implements heap.Interface.
func (w *waiting) Push(x any) {
	e := x.(*entry)
	e.index = len(*w)
	*w = append(*w, e)
}

// Pop implements heap.Interface.
func (w *waiting) Pop() any {
	old := *w
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	return e
}
