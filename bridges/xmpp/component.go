package xmpp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"presenced/aggregator/presence"
)

// Times of a session.
const (
	settleTime = 250 * time.Millisecond // the hub is silent for so long: its first account is complete
	settleMax  = 5 * time.Second        // and at the latest then
	idleTime   = 30 * time.Second       // after which a space is written
	pingEach   = time.Minute
	pingTime   = 30 * time.Second // for the answer; two misses end the session
	longOutage = 5 * time.Minute  // after which watchers may have logged in unseen
	stopTime   = 2 * time.Second  // for the farewell
)

// maxUrgent is how many bytes of answers may wait before nothing more is read.
const maxUrgent = 256 << 10

// A Component republishes presence as an XMPP component. Its methods may be
// called from several goroutines, Run from one at a time.
type Component struct {
	cfg     Config
	memory  Memory
	gate    presence.Gate
	log     *slog.Logger
	dial    func(ctx context.Context) (net.Conn, error)
	started time.Time
	version string

	// Kept from one Run to the next, which the supervisor calls in turn.
	lost  time.Time // when the last stream ended; zero: there was none
	blank bool      // the server went away itself since then: nobody knows who logged in

	mu     sync.Mutex
	status presence.Status
}

// New makes a component; cfg must have passed Check. memory keeps subscriptions,
// and is to be for this bridge alone; gate says what each watcher may see.
func New(cfg Config, memory Memory, gate presence.Gate, log *slog.Logger) *Component {
	dialer := &net.Dialer{
		Timeout:         openTime,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3},
	}
	c := &Component{
		cfg: cfg, memory: memory, gate: gate, log: log.With("bridge", cfg.Name), started: time.Now(), version: "devel",
		dial:   func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", cfg.Address) },
		status: presence.Status{Phase: presence.PhaseConnecting},
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		c.version = info.Main.Version
	}
	return c
}

// Name implements aggregator.Bridge.
func (c *Component) Name() string { return c.cfg.Name }

// Status does not block.
func (c *Component) Status() presence.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Problems, s.Unmonitored = maps.Clone(s.Problems), maps.Clone(s.Unmonitored)
	return s
}

func (c *Component) setStatus(change func(s *presence.Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
}

// problem counts, and logs the first of a kind and then every hundredth.
func (c *Component) problem(kind string, args ...any) {
	n := 0
	c.setStatus(func(s *presence.Status) {
		if s.Problems == nil {
			s.Problems = map[string]int{}
		}
		s.Problems[kind]++
		n = s.Problems[kind]
	})
	if n <= 10 || n%100 == 0 {
		c.log.Warn(kind, append(args, "count", n)...)
	}
}

// Run connects, brings every watcher up to date and republishes changes until
// ctx ends or the stream does. It closes its connection and says goodbye to the
// watchers before it returns, within two seconds and the last write to the
// memory. A wrong secret and an unknown host are permanent, a conflict with an
// older connection is not.
func (c *Component) Run(ctx context.Context, hub presence.Hub) error {
	err := c.run(ctx, hub)
	c.setStatus(func(s *presence.Status) {
		s.Phase, s.Done, s.Total = presence.PhaseConnecting, 0, 0
		if err != nil && ctx.Err() == nil {
			s.LastError, s.LastErrorAt = err.Error(), time.Now()
		}
	})
	return err
}

func (c *Component) run(ctx context.Context, hub presence.Hub) error {
	c.setStatus(func(s *presence.Status) {
		s.Phase, s.Detail = presence.PhaseConnecting, "connecting to "+c.cfg.Address
	})
	tmpl, err := parseTemplate(c.cfg.Local)
	if err != nil {
		return presence.Permanent(fmt.Errorf("xmpp: local: %w", err))
	}
	secret, err := c.cfg.SecretFile.Read()
	if err != nil {
		return presence.Permanent(fmt.Errorf("xmpp: %w", err))
	}
	host := fold(c.cfg.Host)
	b := newBook(host, c.cfg.Name, mapping{c.cfg.BusyShow, c.cfg.Channels}, c.gate)
	kept, err := c.memory.Load(ctx)
	if err != nil {
		return fmt.Errorf("xmpp: subscriptions: %w", err)
	}
	for range b.load(kept) {
		c.problem("records unreadable")
	}
	conn, err := c.dial(ctx)
	if err != nil {
		c.blank = true
		return fmt.Errorf("xmpp: %w", err)
	}
	l, err := open(ctx, conn, host, secret)
	if err != nil {
		return err
	}
	defer l.close()

	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	k := newKeeper(c.memory, func(err error) { c.problem("subscriptions not kept", "error", err) })
	states := make(chan presence.State)
	keeping, endKeeping := context.WithCancel(context.WithoutCancel(ctx)) // the farewell is to be kept, too
	defer endKeeping()
	workers.Go(func() { k.run(keeping) })
	workers.Go(func() {
		for s := range hub.Watch(ctx) {
			select {
			case states <- s:
			case <-ctx.Done():
				return
			}
		}
	})

	now := time.Now()
	s := &session{
		Component: c, host: host, hub: hub, link: l, book: b, keeper: k,
		people:  newPeople(host, tmpl),
		domains: map[string]bool{},
		pacing:  rate.NewLimiter(rate.Limit(c.cfg.Rate), max(int(resourceCount), c.cfg.Rate/50)),
		ceiling: rate.NewLimiter(maxRate, maxRate/10),
		began:   now, heard: now, wrote: now, pingAt: now.Add(pingEach),
	}
	for _, d := range c.cfg.domains() {
		s.domains[d] = true
	}
	c.log.Info("connected", "address", c.cfg.Address, "host", host)
	err = s.run(ctx, states)
	c.lost = time.Now()
	if _, said := errors.AsType[*StreamError](err); said || errors.Is(err, errClosed) {
		c.blank = true
	}
	return err
}

// A session is one stream at work. All of it belongs to the goroutine of run.
type session struct {
	*Component
	host    string
	hub     presence.Hub
	link    *link
	book    *book
	keeper  *keeper
	people  *people
	domains map[string]bool
	pacing  *rate.Limiter // of the resynchronisation
	ceiling *rate.Limiter // of all that is not asked for

	began    time.Time
	heard    time.Time // when the hub last spoke
	settled  bool
	total    int // watchers to be brought up to date
	live     bool
	writable bool
	buf      []byte
	wrote    time.Time
	saved    time.Time // when all that is to be kept was given to the keeper

	pingAt time.Time // when to ping next, or to give the answer up
	pingID string    // of the ping under way; empty: none
	pings  int
	misses int
}

func (s *session) run(ctx context.Context, states <-chan presence.State) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer func() { s.keeper.add(s.book.saves(true)) }()
	for {
		now := time.Now()
		if err := s.tend(now); err != nil {
			return err
		}
		s.flush(now)
		all := now.Sub(s.saved) >= keepEach
		if all {
			s.saved = now
		}
		s.keeper.add(s.book.saves(all))
		timer.Reset(max(0, s.due(now).Sub(now)))

		in := s.link.in
		if !s.settled || len(s.book.urgent) > maxUrgent {
			in = nil
		}
		select {
		case <-ctx.Done():
			s.goodbye()
			return ctx.Err()
		case <-s.link.done:
			return fmt.Errorf("xmpp: %w", s.link.err)
		case st := <-in:
			s.receive(&st)
		case state := <-states:
			s.heard = time.Now()
			s.state(state)
		case kept := <-s.keeper.kept:
			for _, watcher := range kept.welcome {
				s.book.welcome(kept.local, watcher, time.Now())
			}
		case <-s.link.ready:
			s.writable = true
		case <-timer.C:
		}
	}
}

// tend does what is due at now.
func (s *session) tend(now time.Time) error {
	if !s.settled && (now.Sub(s.heard) >= settleTime || now.Sub(s.began) >= settleMax) {
		s.settled = true
		full := s.lost.IsZero() || s.blank || s.began.Sub(s.lost) >= longOutage
		s.book.plan(s.lost, full, rand.Shuffle)
		s.total = len(s.book.resync)
		s.blank = false
	}
	s.report()
	if now.Before(s.pingAt) {
		return nil
	}
	if s.pingID != "" {
		if s.misses++; s.misses == 2 {
			return errors.New("xmpp: the server does not answer any more")
		}
	}
	s.pings++
	s.pingID = "ping-" + strconv.Itoa(s.pings)
	s.pingAt = now.Add(pingTime)
	b := appendStart(s.book.urgent, "iq", "get", s.pingID, s.host, s.cfg.pingDomain())
	s.book.urgent = append(b, "><ping xmlns='"+nsPing+"'/></iq>"...)
	return nil
}

// report brings the status up to date.
func (s *session) report() {
	if s.live {
		return
	}
	rest := len(s.book.resync)
	s.live = s.settled && rest == 0
	s.setStatus(func(st *presence.Status) {
		st.Phase, st.Done, st.Total = presence.PhaseSyncing, s.total-rest, s.total
		st.Detail = "bringing the watchers up to date"
		if s.live {
			st.Phase, st.Detail, st.Done, st.Total = presence.PhaseLive, "connected as "+s.host, 0, 0
		}
	})
}

// due gives when something is to be done even if nothing comes in.
func (s *session) due(now time.Time) time.Time {
	at := s.pingAt
	sooner := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if len(s.book.dirty) > 0 {
		sooner(s.saved.Add(keepEach))
	}
	if !s.settled {
		sooner(s.heard.Add(settleTime))
		sooner(s.began.Add(settleMax))
	}
	if s.writable {
		sooner(s.wrote.Add(idleTime))
		if len(s.book.live) > 0 || len(s.book.resync) > 0 {
			wait := waitFor(s.ceiling, now)
			if len(s.book.live) == 0 {
				wait = max(wait, waitFor(s.pacing, now))
			}
			sooner(now.Add(wait))
		}
	}
	return at
}

// waitFor gives the time until l has a token.
func waitFor(l *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - l.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing/float64(l.Limit())*float64(time.Second)) + time.Microsecond
}

// flush gives the writer, if it waits, what is to be sent: answers before live
// changes, these before the resynchronisation. What is sent is decided only now,
// so that it is the newest.
func (s *session) flush(now time.Time) {
	if !s.writable {
		return
	}
	s.buf = append(s.buf[:0], s.book.urgent...)
	s.book.urgent = s.book.urgent[:0]
	if s.settled {
		for len(s.buf) < batchSize && waitFor(s.ceiling, now) == 0 {
			var n int
			if s.buf, n = s.book.nextLive(s.buf, now); n == 0 {
				break
			}
			s.ceiling.ReserveN(now, n)
		}
		for len(s.buf) < batchSize && waitFor(s.ceiling, now) == 0 && waitFor(s.pacing, now) == 0 {
			var n int
			if s.buf, n = s.book.nextResync(s.buf, now); n == 0 {
				break
			}
			s.ceiling.ReserveN(now, n)
			s.pacing.ReserveN(now, n)
		}
		s.report()
	}
	if len(s.buf) == 0 && now.Sub(s.wrote) >= idleTime {
		s.buf = append(s.buf, ' ')
	}
	s.send(now)
}

func (s *session) send(now time.Time) {
	if len(s.buf) == 0 {
		return
	}
	s.link.out <- s.buf
	s.writable, s.wrote = false, now
}

// state takes a state of the hub.
func (s *session) state(state presence.State) {
	person, known := s.hub.Person(presence.Subject{Scheme: "id", Value: string(state.Person)})
	for _, showing := range s.people.accept(state, person, known) {
		s.book.show(showing)
	}
	s.setStatus(func(st *presence.Status) {
		if len(s.people.without) == 0 && len(st.Unmonitored) == 0 {
			return
		}
		st.Unmonitored = map[string]string{}
		for id, why := range s.people.without {
			if len(st.Unmonitored) == 100 {
				break
			}
			st.Unmonitored[string(id)] = why
		}
	})
}

// receive takes a stanza of the server. Whatever it holds, the stream goes on.
func (s *session) receive(st *stanza) {
	now := time.Now()
	local, domain, _ := splitJID(st.to)
	switch {
	case st.kind == "":
		s.problem("elements unknown", "from", s.host)
		return
	case st.kind != "presence" && st.kind != "iq" && st.kind != "message":
		s.problem("elements unknown", "element", st.kind)
		return
	case !valid(st.from) || !valid(st.to) || domain != s.host || len(st.id) > 1024:
		s.problem("stanzas malformed", "kind", st.kind, "from", clip(st.from))
		return
	}
	if st.deep || st.kind == "iq" && (st.id == "" || st.children != 1 && (st.typ == "get" || st.typ == "set")) {
		s.problem("stanzas malformed", "kind", st.kind, "from", clip(st.from))
	}
	_, watcher, _ := splitJID(st.from)
	allowed := s.domains[watcher] && watcher != s.host
	switch st.kind {
	case "presence":
		before := s.book.refused
		s.book.receive(st, allowed, now)
		if s.book.refused > before {
			s.problem("subscriptions refused: too many watchers", "from", clip(st.from), "to", clip(st.to))
		}
	case "iq":
		if st.id != "" && st.id == s.pingID && (st.typ == "result" || st.typ == "error") {
			s.pingID, s.misses, s.pingAt = "", 0, now.Add(pingEach)
			return
		}
		q := inquiry{
			st: st, local: local, allowed: allowed, started: s.started, version: s.version,
			subscribed: s.book.subscribed(local, bareJID(st.from)),
		}
		if r := s.people.byLocal[local]; r != nil {
			q.state = presence.View(r.state, s.gate.Access(asWatcher(bareJID(st.from), s.cfg.Name), r.id))
			q.person, q.known = s.hub.Person(presence.Subject{Scheme: "id", Value: string(r.id)})
		}
		s.book.urgent = q.answer(s.book.urgent, now)
	case "message":
		if st.body && (st.typ == "" || st.typ == "normal" || st.typ == "chat") {
			s.book.urgent = appendError(s.book.urgent, st, "cancel", "service-unavailable")
		}
	}
}

// clip bounds what a log line takes over from a peer.
func clip(text string) string { return text[:min(len(text), 200)] }

// goodbye tells every watcher that nobody is available any more, and closes the
// stream in order. Who is not reached in time is told after the next start.
func (s *session) goodbye() {
	over := time.NewTimer(stopTime)
	defer over.Stop()
	pace := rate.NewLimiter(maxRate, maxRate/10)
	s.book.leave()
	closing := false
	for {
		now := time.Now()
		var wake <-chan time.Time
		if s.writable && !closing {
			s.buf = append(s.buf[:0], s.book.urgent...)
			s.book.urgent = s.book.urgent[:0]
			for waitFor(pace, now) == 0 {
				var n int
				if s.buf, n = s.book.nextFarewell(s.buf, now); n == 0 {
					break
				}
				pace.ReserveN(now, n)
			}
			if len(s.book.resync) == 0 {
				s.buf = append(s.buf, "</stream:stream>"...)
				closing = true
			}
			s.send(now)
			if s.writable {
				wake = time.After(waitFor(pace, now))
			}
		}
		select {
		case <-over.C:
			return
		case <-s.link.done:
			return
		case <-s.link.in:
		case <-s.keeper.kept:
		case <-s.link.ready:
			s.writable = true
		case <-wake:
		}
	}
}
