package wire

import (
	"time"
)

// Timers of RFC 3261, table 4.
const (
	t1 = 500 * time.Millisecond
	t2 = 4 * time.Second
)

// A tick is how exact the timers of client transactions are; the wheel turns once
// in slots ticks, more than t2.
const (
	tick  = 50 * time.Millisecond
	slots = 128
)

// An asking is a client transaction other than INVITE (RFC 3261 section 17.1.2).
type asking struct {
	id       uint64
	method   string
	head     []byte // up to the empty line
	body     []byte // shared; nobody changes it
	viaEnd   int    // head[viaAt:viaEnd] is Via with its line break
	viaAt    int
	over     *udpSocket // where to send it again; nil for a connection
	conn     *conn      // what it was sent on, if that is a connection
	fallback *udpSocket // where to send it if there is no connection to be had
	to       Flow
	worker   *worker
	done     func(Answer)

	interval time.Duration // until it is sent again
	again    int64         // tick at which it is sent again, 0 for never
	deadline int64         // tick at which it has failed

	slot           int
	previous, next *asking
}

// asked holds the client transactions that wait for an answer, and their timers: a
// wheel of lists, so that a request that is answered soon costs no more than two
// links. It has no clock and no lock.
type asked struct {
	most  int
	by    map[uint64]*asking
	wheel [slots]*asking
	now   int64 // the tick up to which the wheel has turned
	start time.Time
}

func newAsked(most int, start time.Time) *asked {
	return &asked{most: most, by: map[uint64]*asking{}, start: start}
}

// ticks gives the tick at which a moment has come.
func (s *asked) ticks(t time.Time) int64 { return int64((t.Sub(s.start) + tick - 1) / tick) }

// add begins a transaction; it is false where there are too many.
func (s *asked) add(a *asking, now time.Time, timeout time.Duration) bool {
	if len(s.by) >= s.most {
		return false
	}
	if len(s.by) == 0 { // nothing was due while nobody looked
		s.now = max(s.now, int64(now.Sub(s.start)/tick))
	}
	s.by[a.id] = a
	a.slot = -1
	a.deadline = s.ticks(now.Add(timeout))
	s.repeat(a, now)
	return true
}

// repeat sets Timer E anew: after T1 at first.
func (s *asked) repeat(a *asking, now time.Time) {
	a.again, a.interval = 0, 0
	if a.over != nil {
		a.interval = t1
		a.again = s.ticks(now.Add(t1))
	}
	s.place(a)
}

// take ends the transaction that an answer belongs to, if the answer is final;
// a provisional one makes it be sent again more slowly. It gives nil where the
// answer ends none, and whether there is such a transaction.
func (s *asked) take(id uint64, method []byte, code int, now time.Time) (*asking, bool) {
	a := s.by[id]
	if a == nil || a.method != string(method) {
		return nil, false
	}
	if code < 200 {
		if a.over != nil {
			a.interval = t2
			a.again = s.ticks(now.Add(t2))
			s.place(a)
		}
		return nil, true
	}
	s.remove(a)
	return a, true
}

// advance calls again for each request that is to be sent again, and late, once,
// for each that has failed.
func (s *asked) advance(now time.Time, again, late func(*asking)) {
	until := int64(now.Sub(s.start) / tick)
	if len(s.by) == 0 {
		s.now = max(s.now, until)
		return
	}
	if until-s.now > slots { // each slot once is enough
		s.now = until - slots
	}
	for s.now < until {
		s.now++
		slot := int(s.now % slots)
		a := s.wheel[slot]
		s.wheel[slot] = nil
		for a != nil {
			following := a.next
			a.slot, a.previous, a.next = -1, nil, nil
			switch {
			case a.deadline <= s.now:
				delete(s.by, a.id)
				late(a)
			case a.again != 0 && a.again <= s.now:
				again(a)
				a.interval = min(2*a.interval, t2)
				a.again = s.now + int64(a.interval/tick)
				s.place(a)
			default:
				s.place(a)
			}
			a = following
		}
	}
}

// fail ends all transactions that which names, and calls ended for each.
func (s *asked) fail(which func(*asking) bool, ended func(*asking)) {
	for _, a := range s.by {
		if which(a) {
			s.remove(a)
			ended(a)
		}
	}
}

// place puts a into the slot of what is next for it.
func (s *asked) place(a *asking) {
	s.unlink(a)
	due := a.deadline
	if a.again != 0 {
		due = min(due, a.again)
	}
	due = min(max(due, s.now+1), s.now+slots-1)
	a.slot = int(due % slots)
	if first := s.wheel[a.slot]; first != nil {
		first.previous, a.next = a, first
	}
	s.wheel[a.slot] = a
}

func (s *asked) remove(a *asking) {
	delete(s.by, a.id)
	s.unlink(a)
}

func (s *asked) unlink(a *asking) {
	switch {
	case a.slot < 0:
		return
	case a.previous != nil:
		a.previous.next = a.next
	default:
		s.wheel[a.slot] = a.next
	}
	if a.next != nil {
		a.next.previous = a.previous
	}
	a.slot, a.previous, a.next = -1, nil, nil
}
