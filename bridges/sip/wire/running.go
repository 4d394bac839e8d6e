package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"presenced/aggregator/presence"
)

// The size from which a request goes by TCP where the peer has it (RFC 3261 section 18.1.1).
const safeDatagram = 1300

// running is an endpoint from the begin to the end of one Run.
type running struct {
	cfg     *Config
	app     *App
	log     *slog.Logger
	count   *counters
	ctx     context.Context //nolint:containedctx // ends with Run
	failed  context.CancelCauseFunc
	wg      sync.WaitGroup // all goroutines but the workers
	workers []*worker
	seed    maphash.Seed // spreads keys over workers
	keys    keys
	limiter *limiter
	pool    sync.Pool // of *Request
	idle    sync.Pool // of *asking

	udp                  []*udpSocket
	listeners            []net.Listener
	listening            []Flow
	serverTLS, clientTLS *tls.Config

	connMu sync.Mutex
	conns  map[Flow]*conn
	dialed map[Flow]*conn // by what FlowTo gave
	each   map[netip.Addr]int

	askMu    sync.Mutex
	asked    *asked
	closed   bool // nothing more is sent
	askWake  chan struct{}
	remember map[netip.AddrPort]time.Time // peers that take no TCP, since when
}

func newRunning(ctx context.Context, e *Endpoint) (*running, error) {
	r := &running{
		cfg: &e.cfg, app: &e.app, log: e.log, count: &e.count, seed: maphash.MakeSeed(), keys: newKeys(), limiter: newLimiter(e.cfg.Rate),
		conns: map[Flow]*conn{}, dialed: map[Flow]*conn{}, each: map[netip.Addr]int{},
		asked: newAsked(e.cfg.Outstanding, time.Now()), askWake: make(chan struct{}, 1), remember: map[netip.AddrPort]time.Time{},
	}
	r.pool.New = func() any { return new(Request) }
	r.idle.New = func() any { return new(asking) }
	r.ctx, r.failed = context.WithCancelCause(ctx)
	if err := r.listen(); err != nil {
		r.close()
		r.closeUDP()
		r.failed(nil)
		return nil, err
	}
	n := e.cfg.workers()
	for range n {
		r.workers = append(r.workers, &worker{running: r, served: newServed(max(e.cfg.Transactions/n, 1)), wake: make(chan struct{}, 1)})
	}
	return r, nil
}

func (r *running) listen() error {
	client, err := r.cfg.TLS.Client("")
	if err != nil {
		return presence.Permanent(err)
	}
	r.clientTLS = client
	r.serverTLS = &tls.Config{Certificates: client.Certificates, ClientCAs: client.RootCAs, MinVersion: client.MinVersion}
	switch r.cfg.ClientCertificates {
	case "optional":
		r.serverTLS.ClientAuth = tls.VerifyClientCertIfGiven
	case "required":
		r.serverTLS.ClientAuth = tls.RequireAndVerifyClientCert
	}
	for _, l := range r.cfg.Listen {
		n, at, ok := parseListen(l)
		if !ok {
			return presence.Permanent(fmt.Errorf("listen: %q is no address", l))
		}
		flow := Flow{Network: n}
		if n == UDP {
			s, err := listenUDP(r.ctx, at.String(), r.count)
			if err != nil {
				return listenError(l, err)
			}
			s.host = r.sentBy(s.local)
			r.udp = append(r.udp, s)
			flow.Local = s.local
		} else {
			network := "tcp4"
			if at.Addr().Is6() {
				network = "tcp6"
			}
			var lc net.ListenConfig
			s, err := lc.Listen(r.ctx, network, at.String())
			if err != nil {
				return listenError(l, err)
			}
			r.listeners = append(r.listeners, s)
			flow.Local = addrPort(s.Addr())
		}
		r.listening = append(r.listening, flow)
	}
	return nil
}

// sentBy gives what stands in Via for a socket.
func (r *running) sentBy(at netip.AddrPort) []byte {
	if r.cfg.Host != "" {
		return strconv.AppendUint(append([]byte(r.cfg.Host), ':'), uint64(at.Port()), 10)
	}
	return []byte(at.String())
}

// sentByOf gives what stands in Via on a connection: where the peer could connect to.
func (r *running) sentByOf(f Flow) []byte {
	best := r.listening[0].Local
	for _, l := range r.listening {
		if l.Network == f.Network && l.Local.Addr().Is4() == f.Remote.Addr().Is4() {
			best = l.Local
			break
		}
	}
	return r.sentBy(best)
}

func (r *running) run() error {
	var working sync.WaitGroup
	for _, w := range r.workers {
		working.Go(w.run)
	}
	for _, s := range r.udp {
		r.wg.Go(func() { r.end(r.readUDP(s)) })
		r.wg.Go(func() { s.write(r.ctx) })
	}
	i := 0
	for _, f := range r.listening {
		if f.Network != UDP {
			l := r.listeners[i]
			i++
			r.wg.Go(func() { r.end(r.accept(l, f.Network)) })
		}
	}
	r.wg.Go(r.keepTime)
	<-r.ctx.Done()
	r.askMu.Lock()
	r.closed = true
	r.askMu.Unlock()
	r.close()
	r.wg.Wait()
	r.askMu.Lock()
	r.asked.fail(func(*asking) bool { return true }, func(a *asking) { r.finish(a, ErrClosed) })
	r.askMu.Unlock()
	for _, w := range r.workers {
		w.mu.Lock()
		w.closed = true
		w.mu.Unlock()
		w.stir()
	}
	working.Wait()
	r.flush()
	r.closeUDP()
	if err := context.Cause(r.ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// end ends everything when a socket has failed.
func (r *running) end(err error) {
	if err != nil {
		r.failed(err)
	}
}

// close closes every socket, but for those of UDP, from which nothing more is read: what
// was read before is answered yet.
func (r *running) close() {
	for _, s := range r.udp {
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	}
	for _, l := range r.listeners {
		_ = l.Close()
	}
	r.connMu.Lock()
	var all []*conn
	for _, c := range r.conns {
		all = append(all, c)
	}
	for _, c := range r.dialed {
		all = append(all, c)
	}
	r.connMu.Unlock()
	for _, c := range all {
		c.close()
	}
}

func (r *running) closeUDP() {
	for _, s := range r.udp {
		_ = s.conn.Close()
	}
}

// flush sends what waits for the UDP sockets.
func (r *running) flush() {
	for _, s := range r.udp {
		s.flush()
	}
}

func (r *running) readUDP(s *udpSocket) error {
	dirty := make([]bool, len(r.workers))
	now := time.Now()
	fresh := false // whether now is that of this batch
	return s.read(func(from netip.AddrPort, data []byte) {
		if !fresh {
			now, fresh = time.Now(), true
		}
		for len(data) > 0 && (data[0] == '\r' || data[0] == '\n') {
			data = data[1:]
		}
		if len(data) > 0 {
			r.take(arrival{flow: Flow{Network: UDP, Local: s.local, Remote: from}, udp: s}, data, now, dirty)
		}
	}, func() {
		fresh = false
		r.wake(dirty)
		s.flush()
	})
}

// An arrival is how a message came.
type arrival struct {
	flow   Flow
	udp    *udpSocket
	conn   *conn
	broken error
}

// wake stirs the workers that have something new.
func (r *running) wake(dirty []bool) {
	for i, d := range dirty {
		if d {
			dirty[i] = false
			r.workers[i].stir()
		}
	}
}

// take copies and parses a message and gives it to its worker, whom it marks. It
// does not block.
func (r *running) take(how arrival, data []byte, now time.Time, dirty []bool) {
	answer := len(data) > 4 && string(data[:4]) == "SIP/"
	var v verdict
	if !answer {
		if v = r.limiter.judge(how.flow.Remote.Addr(), now); v != admit {
			r.count.limited.Add(1)
			if v == ignore {
				return
			}
		}
	}
	in := r.pool.Get().(*Request) //nolint:errcheck // the pool has nothing else
	in.flow, in.udp, in.conn, in.broken, in.answered = how.flow, how.udp, how.conn, how.broken, false
	in.buffer = append(in.buffer[:0], data...)
	switch ok := in.parse(in.buffer); {
	case !ok:
		r.count.malformed.Add(1)
		r.complain(how.flow.Remote.Addr(), now, "no start line of SIP")
	case answer:
		if r.takeAnswer(in, now, dirty) {
			return
		}
	case v == refuse:
		r.refuse(in, nil, 503, "Service Unavailable", AppendHeader(nil, "Retry-After", "1"))
	default:
		n := r.workerOf(&in.Message)
		if r.workers[n].push(job{in: in}) {
			dirty[n] = true
			return
		}
		r.count.overload.Add(1)
		r.refuse(in, nil, 503, "Service Unavailable", AppendHeader(nil, "Retry-After", "2"))
	}
	r.release(in)
}

// workerOf gives who handles what has the key of m.
func (r *running) workerOf(m *Message) int {
	key := m.CallID()
	if m.method == "PUBLISH" {
		key = m.URI()
	}
	return r.spread(maphash.Bytes(r.seed, key))
}

func (r *running) spread(hash uint64) int { return int(hash % uint64(len(r.workers))) } //nolint:gosec // small

// takeAnswer hands an answer to who waits for it; it is false where nobody does.
func (r *running) takeAnswer(in *Request, now time.Time, dirty []bool) bool {
	branch := in.part(in.via.branch)
	if in.fault.code != 0 || len(branch) < len(cookie) {
		r.count.malformed.Add(1)
		return false
	}
	id, ok := fromHex(branch[len(cookie):])
	var a *asking
	if ok {
		r.askMu.Lock()
		a, ok = r.asked.take(id, in.part(in.numberMethod), in.code, now)
		r.askMu.Unlock()
	}
	if !ok {
		r.count.strays.Add(1)
	}
	if a == nil {
		return false
	}
	of := a.worker // a is another's once it is pushed
	of.push(job{in: in, of: a})
	for i, w := range r.workers {
		dirty[i] = dirty[i] || w == of
	}
	return true
}

func (r *running) release(in *Request) {
	if cap(in.buffer) > keptRoom/4 {
		in.buffer = nil
	}
	in.raw, in.conn, in.udp, in.worker = nil, nil, nil, nil
	r.pool.Put(in)
}

// send begins a client transaction. It gives the UDP socket that is to be flushed, if any.
func (r *running) send(to Flow, o *Outgoing, done func(Answer)) (*udpSocket, error) {
	var over, fallback *udpSocket
	var c *conn
	size := len(o.Template.start) + len(o.Template.head) + len(o.Headers) + len(o.Body) + 200 // Via, CSeq, Content-Length
	if to.Network == UDP {
		if over = r.socketOf(to); over == nil {
			return nil, ErrFlow
		}
		if size > safeDatagram && r.mayTakeTCP(to.Remote) {
			byTCP := FlowTo(TCP, to.Remote, "")
			if c = r.connOf(byTCP, true); c != nil {
				over, fallback, to = nil, over, byTCP
			}
		}
	} else if c = r.connOf(to, false); c == nil {
		return nil, ErrFlow
	}
	if size > maxMessage || over != nil && size > maxDatagram {
		return nil, ErrTooLarge
	}
	var sentBy []byte
	if over != nil {
		sentBy = over.host
	} else {
		c.asks.Store(true)
		sentBy = r.sentByOf(to)
	}
	a := r.idle.Get().(*asking) //nolint:errcheck // the pool has nothing else
	a.id = rand.Uint64()        //nolint:gosec // ChaCha8, seeded by the system: not to be guessed
	a.method, a.body, a.to = o.Template.method, o.Body, to
	a.over, a.conn, a.fallback, a.done = over, c, fallback, done
	a.worker = r.workers[r.spread(maphash.String(r.seed, o.Template.callID))]
	a.head, a.viaAt, a.viaEnd = o.appendHead(a.head[:0], to.Network, sentBy, a.id)
	timeout := o.Timeout
	if timeout == 0 {
		timeout = r.cfg.Timeout
	}
	r.askMu.Lock()
	idle := len(r.asked.by) == 0
	ok, closed := false, r.closed
	if !closed {
		ok = r.asked.add(a, time.Now(), timeout)
	}
	if !ok {
		r.askMu.Unlock()
		r.retire(a)
		if closed {
			return nil, ErrClosed
		}
		return nil, ErrBusy
	}
	r.count.sent.Add(1)
	full := false
	if over != nil {
		over.put(to.Remote, a.head, a.body)
	} else if sent, room := c.offer(a.head, a.body); !room {
		full = true
	} else if !sent {
		r.asked.remove(a)
		if over = fallback; over == nil {
			r.askMu.Unlock()
			r.retire(a)
			return nil, ErrFlow
		}
		r.askByUDP(a)
	}
	r.askMu.Unlock()
	if full {
		c.overflow() // a fails with the others
	}
	if idle {
		select {
		case r.askWake <- struct{}{}:
		default:
		}
	}
	return over, nil
}

// socketOf gives the socket of a flow by UDP.
func (r *running) socketOf(f Flow) *udpSocket {
	for _, s := range r.udp {
		if s.local == f.Local || !f.Local.IsValid() && s.local.Addr().Is4() == f.Remote.Addr().Is4() {
			return s
		}
	}
	return nil
}

// mayTakeTCP tells whether it is not known that a peer of UDP takes no TCP.
func (r *running) mayTakeTCP(peer netip.AddrPort) bool {
	r.askMu.Lock()
	defer r.askMu.Unlock()
	since, known := r.remember[peer]
	return !known || time.Since(since) > withoutTCP
}

// askByUDP sends what was to go by TCP and did not. The caller holds askMu and has
// taken a from asked.
func (r *running) askByUDP(a *asking) {
	if len(r.remember) >= maxRemembered {
		clear(r.remember)
	}
	now := time.Now()
	r.remember[a.to.Remote] = now
	if len(a.head)+len(a.body) > maxDatagram {
		r.finish(a, ErrTooLarge)
		return
	}
	a.over, a.fallback, a.conn = a.fallback, nil, nil
	via := appendVia(nil, UDP, a.over.host, a.id)
	a.head = slices.Replace(a.head, a.viaAt, a.viaEnd, via...)
	r.asked.by[a.id] = a
	r.asked.repeat(a, now)
	a.over.put(a.to.Remote, a.head, a.body)
}

// finish gives what became of a to its worker. The caller has taken a from asked.
func (r *running) finish(a *asking, err error) {
	w := a.worker
	w.push(job{of: a, err: err})
	w.stir()
}

func (r *running) retire(a *asking) {
	head := a.head
	if cap(head) > keptRoom/16 {
		head = nil
	}
	*a = asking{head: head}
	r.idle.Put(a)
}

// keepTime sends requests again and ends those that are not answered.
func (r *running) keepTime() {
	turn := time.NewTicker(tick)
	defer turn.Stop()
	for {
		r.askMu.Lock()
		idle := len(r.asked.by) == 0
		r.askMu.Unlock()
		if idle {
			turn.Stop()
			select {
			case <-r.ctx.Done():
				return
			case <-r.askWake:
				turn.Reset(tick)
			}
		}
		select {
		case <-r.ctx.Done():
			return
		case <-turn.C:
		}
		r.askMu.Lock()
		r.asked.advance(time.Now(), func(a *asking) {
			r.count.resent.Add(1)
			a.over.put(a.to.Remote, a.head, a.body)
		}, func(a *asking) {
			r.count.timeouts.Add(1)
			r.finish(a, ErrTimeout)
		})
		r.askMu.Unlock()
		r.flush()
	}
}

// connOf gives the connection of a flow, a new one for a flow of FlowTo; nil if there
// is none to be had. probe: it is wanted only because a request is large.
func (r *running) connOf(f Flow, probe bool) *conn {
	r.connMu.Lock()
	defer r.connMu.Unlock()
	if f.Local.IsValid() {
		return r.conns[f]
	}
	if c := r.dialed[f]; c != nil {
		return c
	}
	if r.ctx.Err() != nil || len(r.dialed) >= r.cfg.Connections {
		return nil
	}
	c := r.newConn(f)
	c.origin = f
	r.dialed[f] = c
	limit := connectTime
	if probe {
		limit = probeTime
	}
	r.wg.Go(func() { c.connect(limit) })
	return c
}

// admit notes a connection that has its socket, whose address is local; it is
// false where there are too many.
func (r *running) admit(c *conn, local netip.AddrPort) bool {
	r.connMu.Lock()
	defer r.connMu.Unlock()
	if r.ctx.Err() != nil || len(r.conns) >= r.cfg.Connections || c.isClosed() {
		return false
	}
	from := c.flow.Remote.Addr()
	if c.origin == (Flow{}) {
		if r.each[from] >= r.cfg.ConnectionsEach {
			return false
		}
		r.each[from]++
	}
	c.flow.Local, c.flow.Name = local, ""
	r.conns[c.flow] = c
	return true
}

// forget is called once, when a connection has ended.
func (r *running) forget(c *conn) {
	r.connMu.Lock()
	if r.dialed[c.origin] == c {
		delete(r.dialed, c.origin)
	}
	if r.conns[c.flow] == c {
		delete(r.conns, c.flow)
		if from := c.flow.Remote.Addr(); c.origin == (Flow{}) {
			if r.each[from]--; r.each[from] == 0 {
				delete(r.each, from)
			}
		}
	}
	r.connMu.Unlock()
	if !c.asks.Load() {
		return
	}
	r.askMu.Lock()
	r.asked.fail(func(a *asking) bool { return a.conn == c }, func(a *asking) {
		if a.fallback != nil && !r.closed {
			r.askByUDP(a)
		} else {
			r.finish(a, ErrFlow)
		}
	})
	r.askMu.Unlock()
	r.flush()
}
