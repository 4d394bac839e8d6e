package lps

import (
	"container/heap"
	"time"
)

// An instant is a moment as nanoseconds of Unix time, a third of the size of a
// time.Time. Zero means none.
type instant int64

func instantOf(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	return instant(t.UnixNano())
}

func (i instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i))
}

func (i instant) add(d time.Duration) instant { return i + instant(d) }

// seconds gives the whole seconds from now until i, rounded up; at least zero.
func (i instant) seconds(now instant) int {
	left := time.Duration(i - now)
	if left <= 0 {
		return 0
	}
	return int((left + time.Second - 1) / time.Second)
}

// A timed is something that has its place in an agenda.
type timed interface {
	comparable
	place() *int32 // where it stands, or absent
}

// absent is the place of what is in no agenda.
const absent int32 = -1

// An agenda is a heap of what is due, the first one first.
type agenda[T timed] struct{ entries []appointment[T] }

type appointment[T timed] struct {
	at instant
	of T
}

// set has x be due at a moment; zero: it need not be. Who is due later than before
// keeps the place: due gives it too early, and who takes it there sets it again. So
// what is put off time and again, as by each refresh, costs nothing.
func (a *agenda[T]) set(x T, at instant) {
	switch i := *x.place(); {
	case at == 0:
	case i == absent:
		heap.Push(a, appointment[T]{at, x})
	case at < a.entries[i].at:
		a.entries[i].at = at
		heap.Fix(a, int(i))
	}
}

// drop takes x out.
func (a *agenda[T]) drop(x T) {
	if i := *x.place(); i != absent {
		heap.Remove(a, int(i))
	}
}

// next is when due may give something; zero: never.
func (a *agenda[T]) next() instant {
	if len(a.entries) == 0 {
		return 0
	}
	return a.entries[0].at
}

// due takes out the first one if its moment, or an earlier one, has come.
func (a *agenda[T]) due(now instant) (x T, ok bool) {
	if len(a.entries) == 0 || a.entries[0].at > now {
		return x, false
	}
	x = a.entries[0].of
	heap.Pop(a)
	return x, true
}

// Len implements heap.Interface, as do those below.
func (a *agenda[T]) Len() int           { return len(a.entries) }
func (a *agenda[T]) Less(i, j int) bool { return a.entries[i].at < a.entries[j].at }

// Swap changes the places of two.
func (a *agenda[T]) Swap(i, j int) {
	e := a.entries
	e[i], e[j] = e[j], e[i]
	*e[i].of.place(), *e[j].of.place() = int32(i), int32(j) //nolint:gosec // bounded by the limits of the service
}

// Push adds an appointment.
func (a *agenda[T]) Push(x any) {
	e := x.(appointment[T])               //nolint:forcetypeassert // only set pushes
	*e.of.place() = int32(len(a.entries)) //nolint:gosec // bounded by the limits of the service
	a.entries = append(a.entries, e)
}

// Pop takes out the last one.
func (a *agenda[T]) Pop() any {
	last := len(a.entries) - 1
	e := a.entries[last]
	*e.of.place() = absent
	a.entries[last] = appointment[T]{}
	a.entries = a.entries[:last]
	return e
}
