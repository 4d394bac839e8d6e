package wire

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Request is a valid request, new in its transaction. It ends when the handler
// returns, and must be answered by then (Respond), or is answered 500.
type Request struct {
	Message
	flow     Flow
	conn     *conn
	udp      *udpSocket
	worker   *worker
	buffer   []byte
	broken   error // why nothing can follow it on its connection
	key      key
	tag      [16]byte
	now      time.Time
	answered bool
}

// Flow gives the way back to the sender, for requests in the dialog that this one begins.
func (r *Request) Flow() Flow { return r.flow }

// Peer gives whom the verified TLS certificate of the sender names, nothing if there is none.
func (r *Request) Peer() []string {
	if r.conn == nil {
		return nil
	}
	return r.conn.peer
}

// LocalTag gives the tag of To in the answer: that of the request, or the one that
// Respond adds. It is valid as long as the request.
func (r *Request) LocalTag() []byte {
	if tag := r.To().Tag(); len(tag) > 0 {
		return tag
	}
	return r.tag[:]
}

// Respond answers with a final status, header lines (AppendHeader) and a body; both
// may be nil and are read before Respond returns. Via, From, To with its tag,
// Call-ID, CSeq, Record-Route and Content-Length are there already. The first call
// counts; there is no provisional answer.
func (r *Request) Respond(code int, reason string, headers, body []byte) {
	if r.answered {
		return
	}
	r.answered = true
	w := r.worker
	w.scratch = appendAnswer(w.scratch[:0], &r.Message, r.flow.Remote, r.tag[:], code, reason, headers, body)
	if r.udp != nil {
		w.served.keep(r.key, w.scratch, r.now)
	}
	r.reply(w.scratch)
}

// Send does what Endpoint.Send does, at less cost, within the handler that got r;
// what is sent leaves after the answer given before it.
func (r *Request) Send(to Flow, o *Outgoing, done func(Answer)) error {
	_, err := r.worker.running.send(to, o, done)
	return err
}

// reply sends an encoded answer to where r came from.
func (r *Request) reply(answer []byte) {
	if r.udp != nil {
		r.udp.put(r.back(r.flow.Remote), answer, nil)
	} else {
		r.conn.put(answer)
	}
}

// refuse answers what is not worth a transaction: the same again for the same request.
func (r *running) refuse(in *Request, scratch []byte, code int, reason string, headers []byte) []byte {
	if in.method == "" || in.method == "ACK" || !in.Has(Via) {
		return scratch
	}
	r.count.refused.Add(1)
	k, b := r.keys.of(&in.Message, in.flow.Remote.Addr(), scratch)
	tag := r.keys.appendTag(in.tag[:0], k, in.CallID())
	b = appendAnswer(b[:0], &in.Message, in.flow.Remote, tag, code, reason, headers, nil)
	in.reply(b)
	return b
}

// A job is a request, or what became of one of ours.
type job struct {
	in  *Request // the request or the answer; nil: there is none
	of  *asking  // nil: in is a request
	err error
}

// A worker handles what has a key of its own, one after the other.
type worker struct {
	running *running
	served  *served
	scratch []byte
	wake    chan struct{}

	mu     sync.Mutex
	jobs   []job
	closed bool
}

// push adds a job; a request is refused where too many wait. What became of a
// request of ours is always taken: its number is bounded by Outstanding.
func (w *worker) push(j job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.of == nil && len(w.jobs) >= w.running.cfg.Queue {
		return false
	}
	w.jobs = append(w.jobs, j)
	return true
}

// stir makes the worker look.
func (w *worker) stir() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run works until it is told that nothing can come any more, and nothing waits.
func (w *worker) run() {
	var jobs []job
	for {
		w.mu.Lock()
		jobs, w.jobs = w.jobs, jobs[:0]
		closed := w.closed
		w.mu.Unlock()
		if len(jobs) == 0 {
			if closed {
				return
			}
			<-w.wake
			continue
		}
		now := time.Now()
		for i, j := range jobs {
			w.work(j, now)
			jobs[i] = job{}
			if i%batchSize == batchSize-1 {
				w.running.flush()
			}
		}
		w.running.flush()
	}
}

func (w *worker) work(j job, now time.Time) {
	r := w.running
	if j.of == nil {
		j.in.worker, j.in.now = w, now
		w.request(j.in)
		r.release(j.in)
		return
	}
	a := Answer{Err: j.err, worker: w}
	if j.in != nil {
		a.Message = &j.in.Message
	}
	w.guarded(func() { j.of.done(a) })
	if j.in != nil {
		r.release(j.in)
	}
	r.retire(j.of)
}

// request validates a request and calls the handler.
func (w *worker) request(in *Request) {
	r := w.running
	in.key, w.scratch = r.keys.of(&in.Message, in.flow.Remote.Addr(), w.scratch)
	if in.udp != nil {
		if answer, ok := w.served.find(in.key, in.now); ok {
			r.count.repeated.Add(1)
			in.reply(answer)
			return
		}
	}
	if f, headers := r.check(in); f.code != 0 {
		if f.code == 400 {
			r.count.malformed.Add(1)
			r.complain(in.flow.Remote.Addr(), in.now, f.reason)
		}
		w.scratch = r.refuse(in, w.scratch, f.code, f.reason, headers)
		return
	}
	if in.method == "ACK" {
		return
	}
	r.keys.appendTag(in.tag[:0], in.key, in.CallID())
	r.count.requests.Add(1)
	w.guarded(func() { r.app.Handle(in) })
	if !in.answered {
		r.count.unanswered.Add(1)
		in.Respond(500, "Server Internal Error", nil, nil)
	}
}

// guarded bears a panic of f. What it panicked with may quote a message and is not logged.
func (w *worker) guarded(f func()) {
	defer func() {
		if p := recover(); p != nil {
			w.running.count.panics.Add(1)
			w.running.log.Error("A SIP message could not be handled: there is a mistake in the program; please report it", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
		}
	}()
	f()
}

// check tells why a request is refused, if it is (RFC 3261 section 8.2), and with
// which headers.
func (r *running) check(in *Request) (fault, []byte) {
	m := &in.Message
	switch {
	case errors.Is(in.broken, errLarge):
		return fault{513, "Message Too Large"}, nil
	case m.fault.code != 0:
		return m.fault, nil
	case in.broken != nil:
		return fault{400, "Content-Length Missing Or Malformed"}, nil
	case string(m.part(m.numberMethod)) != m.method:
		return fault{400, "CSeq Of Another Method"}, nil
	}
	from, fromOK := ParseAddress(m.Header(From))
	to, toOK := ParseAddress(m.Header(To))
	if !fromOK || !toOK {
		return fault{400, "Malformed From Or To"}, nil
	}
	m.from, m.to = from, to
	if m.Has(Contact) && string(m.Header(Contact)) != "*" {
		for c := range m.List(Contact) {
			if _, ok := ParseAddress(c); !ok {
				return fault{400, "Malformed Contact"}, nil
			}
		}
	}
	if m.Has(MaxForwards) {
		n, ok := number(m.Header(MaxForwards))
		if !ok || n > 255 {
			return fault{400, "Malformed Max-Forwards"}, nil
		}
		if n == 0 {
			return fault{483, "Too Many Hops"}, nil
		}
	}
	switch m.method {
	case "ACK":
		return fault{}, nil
	case "CANCEL": // only an INVITE can be cancelled
		return fault{481, "Call/Transaction Does Not Exist"}, nil
	}
	if !slices.Contains(r.app.Methods, m.method) {
		return fault{405, "Method Not Allowed"}, AppendHeader(nil, "Allow", strings.Join(r.app.Methods, ", "))
	}
	var missing []string
	for tag := range m.List(Require) {
		if !hasFold(r.app.Supported, tag) {
			missing = append(missing, string(tag))
		}
	}
	if missing != nil {
		return fault{420, "Bad Extension"}, AppendHeader(nil, "Unsupported", strings.Join(missing, ", "))
	}
	return fault{}, nil
}

func hasFold(all []string, b []byte) bool {
	for _, a := range all {
		if equalFold(b, a) {
			return true
		}
	}
	return false
}

// complain logs the first message of a source that cannot be read.
func (r *running) complain(from netip.Addr, now time.Time, why string) {
	if r.limiter.first(from, now) {
		r.log.Warn("A SIP message cannot be read; further ones of this peer are only counted", slog.String("peer", from.String()), slog.String("why", why))
	}
}
