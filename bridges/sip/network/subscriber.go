package network

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/digest"
	"presenced/bridges/sip/entity"
	"presenced/bridges/sip/wire"
)

const (
	answerTime     = 5 * time.Second  // a server that takes longer is down (64*T1 of RFC 3261 would be 32 s)
	returnPause    = 60 * time.Second // between two looks whether the first server is back
	maxUnmonitored = 100
)

// A Subscriber is the source of what one presence server, or the one that stands in for
// it, says of people. Make it with New, run it as often as needed, one Run at a time.
// All other methods may be called from any goroutine, whether it runs or not.
//
// Its reports are about id:PERSON and expire with the subscription. They have no grace:
// where the Run ends, network presence does.
type Subscriber struct {
	cfg    Config
	log    *slog.Logger
	people func() []presence.Person
	wake   chan struct{} // holds a token while the loop has something to look at
	pause  struct{ comeback, back time.Duration }

	mu      sync.Mutex
	covers  func(*presence.Person) bool // nil: everybody
	changed bool                        // who is covered, or the directory
	status  presence.Status
}

// New makes a Subscriber. The configuration must be without problems (Check). people
// gives everybody in the directory; it must not block.
func New(cfg Config, people func() []presence.Person, log *slog.Logger) *Subscriber {
	s := &Subscriber{cfg: cfg, log: log.With("source", cfg.Name), people: people, wake: make(chan struct{}, 1)}
	s.pause.comeback, s.pause.back = returnPause, shortBackoff
	s.status.Phase = presence.PhaseConnecting
	return s
}

// Name gives the configured name.
func (s *Subscriber) Name() string { return s.cfg.Name }

// Cover has the Subscriber ask about those whom covers names from now on; nil:
// everybody. covers must not block.
func (s *Subscriber) Cover(covers func(*presence.Person) bool) {
	s.mu.Lock()
	s.covers = covers
	s.mu.Unlock()
	s.Review()
}

// Review looks at everybody again: who is covered, and under which address, may be
// other than it was, because the directory is.
func (s *Subscriber) Review() {
	s.mu.Lock()
	s.changed = true
	s.mu.Unlock()
	s.stir()
}

func (s *Subscriber) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Status tells how the source fares. Total counts the people that are covered and have
// an address, Done those of whom the server says what it knows.
func (s *Subscriber) Status() presence.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	status.Problems, status.Unmonitored = maps.Clone(status.Problems), maps.Clone(status.Unmonitored)
	return status
}

// A run is one Run. All of it is under the lock of the Subscriber.
type run struct {
	*Subscriber
	emit     func(presence.Report) error
	password string
	endpoint *wire.Endpoint
	contact  netip.AddrPort // where NOTIFY is to come
	limiter  *rate.Limiter
	terms    terms

	people   map[presence.ID]*person
	owners   map[string]*person // by address
	watches  map[*watch]bool
	calls    map[string]*watch // by Call-ID
	queue    queue             // those that have something to do, the first one first
	done     int               // people of whom the server says what it knows
	settled  int               // watches of which it is known how the server takes them
	synced   bool              // it was known of all of them
	out      int               // requests that wait for an answer
	list     *watch            // nil: each person is subscribed to
	nonce    *digest.Challenge // to answer before it is asked; nil: not known
	server   int               // which one is in use: 0, or 1 for the one that stands in
	flow     wire.Flow         // that leads to it
	heard    time.Time         // when it last said anything
	fault    string            // why it does not answer; empty: it does
	switched bool              // another server is to be used, or the same by another address
	back     bool              // the first server answers again
	stopping bool
	wrong    error // ends the Run
}

// A person is somebody who is asked about.
type person struct {
	id      presence.ID
	uri     string
	watch   *watch // of their own, or that of the list
	account account
	covered bool // the server says what it knows
}

// A watch is a subscription and whom it is about.
type watch struct {
	subscription
	uri   string
	one   *person // nil: it is to a list
	roll  roll
	index int    // in the queue, or -1
	call  string // under which it stands in calls

	active, settled bool
}

// Run implements the Source of the aggregator. The roster has no addresses made by a
// template: whom to ask about is what the function that New got says. It returns
// when ctx ends, after it has taken leave of the server as far as that goes in two
// seconds; when the socket fails; and permanently where the server does not take the
// password. A server that does not answer does not end it: subscriptions stay until
// they expire, and are tried again, at the secondary server if there is one.
func (s *Subscriber) Run(ctx context.Context, _ presence.Roster, emit func(presence.Report) error) error {
	err := s.serve(ctx, emit)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = presence.Status{Phase: presence.PhaseConnecting, Problems: s.status.Problems, Unmonitored: s.status.Unmonitored}
	if err != nil && ctx.Err() == nil {
		s.status.LastError, s.status.LastErrorAt = err.Error(), time.Now()
	}
	return err
}

func (s *Subscriber) serve(ctx context.Context, emit func(presence.Report) error) error {
	r := &run{
		Subscriber: s, emit: emit, limiter: rate.NewLimiter(usualRate, usualRate),
		terms:  terms{expires: s.cfg.Expires, pause: s.pause.back, id: rand.Text},
		people: map[presence.ID]*person{}, owners: map[string]*person{}, watches: map[*watch]bool{}, calls: map[string]*watch{},
	}
	if s.cfg.User != "" {
		var err error
		if r.password, err = s.cfg.PasswordFile.Read(); err != nil {
			return presence.Permanent(err)
		}
	}
	if err := r.connect(ctx); err != nil {
		return err
	}
	listen := s.cfg.Notify
	if listen == "" {
		local, err := localAddress(ctx, r.flow.Remote)
		if err != nil {
			return err
		}
		listen = netip.AddrPortFrom(local, 0).String()
	}
	r.endpoint = wire.New(s.cfg.wire(listen), wire.App{
		Handle: r.handle, Methods: []string{"NOTIFY", "OPTIONS"}, Supported: []string{"eventlist"},
	}, s.log)
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx, for the leave
	listening := make(chan error, 1)
	go func() {
		defer end()
		listening <- r.endpoint.Run(life)
	}()
	flows, err := r.endpoint.Ready(life)
	if err != nil {
		return cmp.Or(<-listening, err)
	}
	s.mu.Lock()
	r.contact, s.changed, r.heard = flows[0].Local, true, time.Now()
	s.status.Unmonitored = nil
	s.mu.Unlock()
	err = r.loop(ctx, life)
	end()
	return cmp.Or(<-listening, err) // why the socket failed, if it did
}

// connect makes the flow to the server in use.
func (r *run) connect(ctx context.Context) error {
	address := r.address()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	remote, err := wire.Resolve(ctx, address)
	if err != nil {
		return fmt.Errorf("the presence server %s: %w", address, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flow = r.flowTo(address, remote)
	return nil
}

func (r *run) address() string {
	address := r.cfg.Address
	if r.server == 1 {
		address = r.cfg.Secondary
	}
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	if r.cfg.Transport == "tls" { // RFC 3261 section 19.1.2
		return net.JoinHostPort(address, "5061")
	}
	return net.JoinHostPort(address, "5060")
}

func (r *run) flowTo(address string, remote netip.AddrPort) wire.Flow {
	network, name := wire.UDP, ""
	switch r.cfg.Transport {
	case "tcp":
		network = wire.TCP
	case "tls":
		network = wire.TLS
		name, _, _ = net.SplitHostPort(address)
	}
	return wire.FlowTo(network, remote, name)
}

// localAddress gives which of our addresses a server sees. Nothing is sent.
func localAddress(ctx context.Context, remote netip.AddrPort) (netip.Addr, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", remote.String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	return local.Addr().Unmap().WithZone(""), err
}

func (r *run) loop(ctx, life context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	look := time.NewTicker(r.pause.comeback)
	defer look.Stop()
	for {
		if err := r.review(ctx); err != nil {
			return err
		}
		r.mu.Lock()
		wait := r.dispatch(time.Now()) //nolint:contextcheck // a connection outlives who asked for it
		r.publishStatus()
		wrong := r.wrong
		r.mu.Unlock()
		if wrong != nil {
			return wrong
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			r.leave(life)
			return ctx.Err()
		case <-life.Done():
			return errors.New("the socket for NOTIFY has failed")
		case <-look.C:
			r.look(ctx)
		case <-r.wake:
		case <-timer.C:
		}
	}
}

// review takes in what others asked for: other people, another server.
func (r *run) review(ctx context.Context) error {
	r.mu.Lock()
	changed, switched := r.changed, r.switched
	r.changed, r.switched = false, false
	if switched && r.back {
		r.server, r.back = 0, false
	} else if switched && r.cfg.Secondary != "" {
		r.server = 1 - r.server
	}
	r.mu.Unlock()
	if changed {
		people := r.Subscriber.people()
		r.mu.Lock()
		r.plan(people, time.Now())
		r.mu.Unlock()
	}
	if !switched {
		return nil
	}
	if err := r.connect(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("The presence server cannot be found", "error", err)
	}
	if r.cfg.Secondary == "" {
		return nil // dialogs stay: the server may know them when it is back
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.Info("Subscribing at another presence server", "server", r.address())
	r.heard, r.fault, r.nonce = time.Now(), "", nil
	for w := range r.watches {
		w.Abandon(r.heard)
		r.place(w)
	}
	return nil
}

// look asks the first server, while another one is used, whether it is back.
func (r *run) look(ctx context.Context) {
	r.mu.Lock()
	used := r.server
	r.mu.Unlock()
	if used == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	remote, err := wire.Resolve(ctx, r.cfg.Address)
	if err != nil {
		return
	}
	uri := "sip:" + r.cfg.Address
	t, err := wire.NewTemplate("OPTIONS", uri, rand.Text(), "<sip:presenced@"+r.contact.Addr().String()+">;tag="+rand.Text(), "<"+uri+">", nil)
	if err != nil {
		return
	}
	ask := wire.Outgoing{Template: t, CSeq: 1}
	_ = r.endpoint.Send(r.flowTo(r.cfg.Address, remote), &ask, func(a wire.Answer) { //nolint:contextcheck // as above
		if a.Err != nil {
			return // it is looked at again
		}
		r.mu.Lock()
		if r.server != 0 {
			r.back, r.switched = true, true
		}
		r.mu.Unlock()
		r.stir()
	})
}

// plan makes the watches those of the people who are covered.
func (r *run) plan(people []presence.Person, now time.Time) {
	if r.cfg.ListURI != "" && r.list == nil {
		r.list = r.watch(r.cfg.ListURI, nil, now)
	}
	wanted := map[presence.ID]string{}
	taken := map[string]presence.ID{}
	for i := range people {
		p := &people[i]
		if r.covers != nil && !r.covers(p) {
			continue
		}
		uri, err := entity.Of(r.cfg.Entity, p)
		switch {
		case err != nil:
			r.unmonitored(p.ID, "the subjects do not make a SIP address")
		case uri == "":
		case taken[canonical(uri)] != "":
			r.unmonitored(p.ID, "another person has the same SIP address")
		default:
			wanted[p.ID], taken[canonical(uri)] = uri, p.ID
		}
	}
	for id, p := range r.people {
		if wanted[id] == p.uri {
			continue
		}
		r.report(p, p.account.retract(), now)
		r.cover(p, false)
		r.monitored(id)
		if p.watch.one != nil {
			p.watch.Stop(now)
			r.place(p.watch)
		}
		delete(r.people, id)
		delete(r.owners, canonical(p.uri))
	}
	added := false
	for id, uri := range wanted {
		if r.people[id] != nil {
			continue
		}
		p := &person{id: id, uri: uri, watch: r.list}
		r.people[id], r.owners[canonical(uri)] = p, p
		added = true
		if r.list == nil {
			p.watch = r.watch(uri, p, now)
		}
	}
	if added && r.list != nil {
		r.list.Look(now, now) // it may have said already what it knows of them
		r.place(r.list)
	}
}

// watch begins to watch an address.
func (r *run) watch(uri string, one *person, now time.Time) *watch {
	w := &watch{uri: uri, one: one, index: -1}
	w.terms, w.spread = &r.terms, spread(uri)
	w.Start(now)
	r.watches[w] = true
	r.place(w)
	return w
}

// spread gives a number in [0, 1) that differs from address to address, so that what
// began together does not go on together.
func spread(uri string) float64 {
	h := uint32(2166136261) // FNV-1a
	for _, c := range []byte(uri) {
		h = (h ^ uint32(c)) * 16777619
	}
	return float64(h) / (1 << 32)
}

// place puts w where it belongs after an input, and forgets it when it is done.
func (r *run) place(w *watch) {
	if w.call != w.callID {
		delete(r.calls, w.call)
		if w.call = w.callID; w.call != "" {
			r.calls[w.call] = w
		}
	}
	active, settled := w.Active(time.Now()) && !w.stopping, w.Settled() && !w.Done()
	r.settled += count(settled) - count(w.settled)
	switch {
	case w.one != nil && (active || w.active):
		r.cover(w.one, active)
	case w.active && !active: // of a list it says who is covered when it is there again
		for _, p := range r.people {
			r.cover(p, false)
		}
	}
	w.active, w.settled = active, settled
	switch due := !w.Due().IsZero(); {
	case due && w.index < 0:
		heap.Push(&r.queue, w)
	case due:
		heap.Fix(&r.queue, w.index)
	case w.index >= 0:
		heap.Remove(&r.queue, w.index)
	}
	if w.Done() {
		delete(r.watches, w)
	}
}

func (r *run) cover(p *person, covered bool) {
	r.done += count(covered) - count(p.covered)
	p.covered = covered
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// report says what has changed about a person. An error of emit means that the Run
// ends.
func (r *run) report(p *person, c change, now time.Time) {
	if !c.report {
		return
	}
	_ = r.emit(presence.Report{
		Source: r.cfg.Name, Subject: presence.Subject{Scheme: "id", Value: string(p.id)}, At: now, Expires: c.until, Spans: c.spans,
	})
}

// leave ends every subscription, at the usual pace, until the server has answered or
// the time is over.
func (r *run) leave(life context.Context) {
	over, end := context.WithTimeout(life, goodbyeTime)
	defer end()
	r.mu.Lock()
	r.stopping = true
	for w := range r.watches {
		w.Stop(time.Now())
		r.place(w)
	}
	r.mu.Unlock()
	for {
		r.mu.Lock()
		wait, left := r.dispatch(time.Now()), len(r.watches) //nolint:contextcheck // as above
		r.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-over.Done():
			return
		case <-r.wake:
		case <-time.After(wait):
		}
	}
}

// notice counts a problem.
func (r *run) notice(kind string) {
	if r.status.Problems == nil {
		r.status.Problems = map[string]int{}
	}
	r.status.Problems[kind]++
}

// unmonitored says that nothing can be known of a person, and why.
func (r *run) unmonitored(id presence.ID, why string) {
	if r.status.Unmonitored == nil {
		r.status.Unmonitored = map[string]string{}
	}
	if _, known := r.status.Unmonitored[string(id)]; known || len(r.status.Unmonitored) < maxUnmonitored {
		r.status.Unmonitored[string(id)] = why
	}
}

// monitored takes that back.
func (r *run) monitored(id presence.ID) { delete(r.status.Unmonitored, string(id)) }

// publishStatus brings the status up to date.
func (r *run) publishStatus() {
	b := &r.status
	b.Done, b.Total = r.done, len(r.people)
	r.synced = r.synced || r.settled >= len(r.watches)
	switch {
	case r.fault != "":
		b.Phase, b.Detail = presence.PhaseDegraded, r.address()+" does not answer: "+r.fault
	case r.server != 0:
		b.Phase, b.Detail = presence.PhaseDegraded, "Subscribed at "+r.address()+", because "+r.cfg.Address+" does not answer."
	case r.list != nil && r.list.refusal != 0:
		b.Phase, b.Detail = presence.PhaseDegraded, fmt.Sprintf("%s answers %d to the list.", r.address(), r.list.refusal)
	case r.list != nil && r.list.over != "":
		b.Phase, b.Detail = presence.PhaseDegraded, r.address()+" has ended the list for good: "+r.list.over
	case !r.synced:
		b.Phase, b.Detail = presence.PhaseSyncing, "Subscribing at "+r.address()+"."
	default:
		b.Phase, b.Detail = presence.PhaseLive, fmt.Sprintf("%s tells of %d of %d people.", r.address(), r.done, len(r.people))
	}
}

// A queue is a heap.Interface of what is due, by time.
type queue []*watch

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	w := x.(*watch) //nolint:errcheck // only watches are pushed
	w.index = len(*q)
	*q = append(*q, w)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	w.index = -1
	return w
}
