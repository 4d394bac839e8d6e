package aes

import (
	"errors"
	"fmt"
	"time"

	"presenced/aes/csta"
)

// An op is a kind of request.
type op uint8

const (
	opNone op = iota
	// About the session.
	opLogin
	opExtend
	opStop
	opRegister
	opSystem
	opAudit // a monitor of the session itself
	opList
	// About a station. Their order is that in which they are sent.
	opDevice
	opMonitor
	opSnapshot
	opDND
	opForward
	opAgent
	// About a station that is no longer covered.
	opUnmonitor
	opRelease
)

type ops uint16

func (s ops) has(o op) bool { return s&(1<<o) != 0 }
func (s *ops) add(o op)     { *s |= 1 << o }
func (s *ops) remove(o op)  { *s &^= 1 << o }

// feature tells whether o asks for a feature of a station, of which there are
// other news, so that an answer can be missed.
func (o op) feature() bool { return o >= opDND && o <= opAgent }

// A request waits for its answer.
type request struct {
	op   op
	st   *station // of the ops about a station
	name string   // of those about a station that is no longer covered
	id   uint16
	sent time.Time
}

// Work is a request that may be sent when the pace allows.
type work struct {
	op   op
	st   *station
	name string // the monitor or device of opUnmonitor and opRelease
}

// The queues of work: what is next for one station, then the sweep over all, then the polls.
const (
	first = iota
	sweep
	last
	queues
)

var errUnanswered = errors.New("no answer within " + answerWithin.String()) //nolint:gochecknoglobals // never changed

// requests is what is outstanding and what waits to be sent.
type requests struct {
	pending map[uint16]*request
	order   []*request // the pending ones by age, and some that are answered
	lastID  uint16
	busy    int // pending requests that the limit counts

	queue  [queues][]work
	pace   time.Time // no request of a queue before
	slow   int       // divides rate and outstanding
	easeAt time.Time // when to be faster again

	overloaded bool
	segments   map[string]*segments
}

func (q *requests) clearRequests(now time.Time) {
	clear(q.pending)
	clear(q.segments)
	q.order, q.busy = nil, 0
	q.queue = [queues][]work{}
	q.pace, q.slow, q.easeAt, q.overloaded = now, 1, time.Time{}, false
}

// send puts one frame out. The documents of this package are far below the
// limit; one that is not (an absurd configuration) is a reason to close.
func (l *Link) send(id uint16, r csta.Request) {
	f := csta.Frame{InvokeID: id, XML: r.XML()}
	if len(f.XML) > csta.MaxXML {
		l.close(fmt.Errorf("a request of %d bytes is too large", len(f.XML)))
		return
	}
	l.frames = append(l.frames, f)
}

// request sends r and waits for its answer. Invoke IDs go round, and skip those
// that are outstanding.
func (l *Link) request(o op, st *station, name string, r csta.Request, now time.Time) {
	if l.phase == stopping && o != opStop {
		return
	}
	id := l.lastID
	for {
		id++
		if id > csta.LastID {
			id = csta.FirstID
		}
		if l.pending[id] == nil {
			break
		}
	}
	l.lastID = id
	q := &request{op: o, st: st, name: name, id: id, sent: now}
	l.pending[id] = q
	l.order = append(l.order, q)
	if o >= opDevice {
		l.busy++
	}
	l.send(id, r)
}

// settled takes a request off the list.
func (l *Link) settled(id uint16) *request {
	r := l.pending[id]
	if r == nil {
		return nil
	}
	delete(l.pending, id)
	if r.op >= opDevice {
		l.busy--
	}
	if r.st != nil {
		r.st.inflight.remove(r.op)
	}
	return r
}

// oldest gives the request that waits longest.
func (l *Link) oldest() *request {
	for len(l.order) > 0 {
		if r := l.order[0]; l.pending[r.id] == r {
			return r
		}
		l.order = l.order[1:]
	}
	return nil
}

// deadline is when the oldest request, or a snapshot in parts, has waited too long.
func (l *Link) deadline() time.Time {
	var next time.Time
	if r := l.oldest(); r != nil {
		next = r.sent.Add(answerWithin)
	}
	for _, s := range l.segments {
		if t := s.began.Add(answerWithin); next.IsZero() || t.Before(next) {
			next = t
		}
	}
	return next
}

// timeouts fails what has waited too long. Two requests in a row without any
// sign of life from the server mean that it is gone.
func (l *Link) timeouts(now time.Time) {
	for l.err == nil {
		r := l.oldest()
		if r == nil || now.Before(r.sent.Add(answerWithin)) {
			break
		}
		l.settled(r.id)
		if l.heard.After(r.sent) {
			l.missed = 0
		} else {
			l.missed++
		}
		l.unanswered(r, errUnanswered, now)
		if l.missed >= 2 {
			l.close(errors.New("the server stopped answering"))
		}
	}
	for ref, s := range l.segments {
		if !now.Before(s.began.Add(answerWithin)) {
			delete(l.segments, ref)
			l.failed(s.st, opSnapshot, now)
		}
	}
}

// held tells whether requests about stations must wait.
func (l *Link) held() bool { return !l.linkDown.IsZero() || l.waiting }

// canSend tells whether one more request about a station may be outstanding.
// One place is left for the sign of life.
func (l *Link) canSend() bool {
	return l.phase == inSession && l.err == nil && !l.held() && l.busy < max(1, (l.cfg.Outstanding-1)/l.slow)
}

// work tells whether anything waits to be sent.
func (l *Link) work() bool {
	for i := range l.queue {
		if len(l.queue[i]) > 0 {
			return true
		}
	}
	return false
}

// take gives the next work that still is to be done.
func (l *Link) take() (work, bool) {
	for i := range l.queue {
		for len(l.queue[i]) > 0 {
			w := l.queue[i][0]
			l.queue[i][0] = work{}
			l.queue[i] = l.queue[i][1:]
			if w.st == nil {
				return w, true
			}
			if w.st.gone || w.st.over || !w.st.queued.has(w.op) {
				continue // overtaken
			}
			w.st.queued.remove(w.op)
			return w, true
		}
	}
	return work{}, false
}

// want queues a request about a station. One that waits already is not doubled,
// but may move to an earlier queue.
func (l *Link) want(st *station, o op, queue int) {
	if l.phase != inSession || st.gone || st.over || l.unknown.has(o) {
		return
	}
	if st.queued.has(o) && queue != first {
		return
	}
	st.queued.add(o)
	l.queue[queue] = append(l.queue[queue], work{op: o, st: st})
}

// pump sends what waits, within the limits: not more than outstanding, and
// spread evenly over each second.
func (l *Link) pump(now time.Time) {
	for l.canSend() && !now.Before(l.pace) {
		w, ok := l.take()
		if !ok {
			return
		}
		if !l.perform(w, now) {
			continue
		}
		if l.cfg.Rate == 0 {
			continue // the outstanding ones are limit enough
		}
		gap := time.Second * time.Duration(l.slow) / time.Duration(l.cfg.Rate)
		l.pace = l.pace.Add(gap)
		if l.pace.Before(now) {
			l.pace = now.Add(gap)
		}
	}
}

// perform sends one request of a queue, and tells whether it did.
func (l *Link) perform(w work, now time.Time) bool {
	st := w.st
	if st != nil && st.inflight.has(w.op) {
		st.again.add(w.op)
		return false
	}
	var r csta.Request
	switch w.op {
	case opDevice:
		r = csta.FindDevice{Switch: l.cfg.Switch, Extension: st.extension}
	case opMonitor:
		r = csta.StartMonitor{Device: st.device, Agents: l.cfg.Agents}
	case opSnapshot:
		st.ask()
		r = csta.SnapshotDevice{Device: st.device}
	case opDND:
		st.askDND()
		r = csta.GetDoNotDisturb{Device: st.device}
	case opForward:
		st.askForward()
		r = csta.GetForwarding{Device: st.device}
	case opAgent:
		st.askAgent()
		r = csta.GetAgentState{Device: st.device}
	case opUnmonitor:
		r = csta.StopMonitor{CrossRef: w.name}
	case opRelease:
		r = csta.ReleaseDevice{Device: w.name}
	default:
		return false
	}
	if st != nil {
		st.inflight.add(w.op)
	}
	l.request(w.op, st, w.name, r, now)
	return true
}

// slower answers a server that is busy.
func (l *Link) slower(now time.Time) {
	l.slow = min(l.slow*2, slowest)
	l.easeAt = now.Add(easeAfter)
}

// ease makes requests faster again, step by step.
func (l *Link) ease(now time.Time) {
	l.easeAt = time.Time{}
	if l.overloaded {
		return
	}
	l.slow = max(1, l.slow/2)
	if l.slow > 1 {
		l.easeAt = now.Add(easeAfter)
	}
}
