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
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/digest"
	"presenced/bridges/sip/entity"
	"presenced/bridges/sip/lookup"
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
	where  *lookup.Locator

	mu      sync.Mutex
	covers  func(*presence.Person) bool // nil: everybody
	changed bool                        // who is covered, or the directory
	status  presence.Status
}

// New makes a Subscriber. The configuration must be without problems (Check). people
// gives everybody in the directory; it must not block.
func New(cfg Config, people func() []presence.Person, log *slog.Logger) *Subscriber {
	s := &Subscriber{cfg: cfg, log: log.With("source", cfg.Name), people: people, wake: make(chan struct{}, 1), where: lookup.New()}
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
	local    netip.Addr                // where NOTIFY is to come; not valid: it is not known yet
	contacts map[string]netip.AddrPort // the same, by transport
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
	target   lookup.Target     // of that server
	others   int               // how many more it has; the other server is one more
	flow     wire.Flow         // that leads to it
	turned   time.Time         // when another one was taken last
	hops     int               // how often, without an answer that it serves us
	heard    time.Time         // when it last said anything
	fault    string            // why it does not answer; empty: it does
	switched bool              // another target is to be used
	back     lookup.Target     // of the first server, which answers again; zero: it does not
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
		contacts: map[string]netip.AddrPort{},
	}
	if s.cfg.User != "" {
		var err error
		if r.password, err = s.cfg.PasswordFile.Read(); err != nil {
			return presence.Permanent(err)
		}
	}
	listen, _ := netip.ParseAddrPort(s.cfg.Notify) // was checked; empty: not valid
	r.local = listen.Addr().Unmap()
	if err := r.connect(ctx); err != nil {
		return err
	}
	if !r.local.IsValid() {
		local, err := localAddress(ctx, r.flow.Remote)
		if err != nil {
			return err
		}
		r.local, listen = local, netip.AddrPortFrom(local, 0)
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
	for _, f := range flows {
		r.contacts[f.Network.String()] = f.Local
	}
	s.changed, r.heard = true, time.Now()
	s.status.Unmonitored = nil
	s.mu.Unlock()
	err = r.loop(ctx, life)
	end()
	return cmp.Or(<-listening, err) // why the socket failed, if it did
}

// connect chooses the target to use: one of the first server that is back; else the one
// after that in use; after the last one those of the other server, if there is any, and
// the first one again. Where none can be found, all stays as it is.
func (r *run) connect(ctx context.Context) error {
	r.mu.Lock()
	server, to, back := r.server, r.target, r.back
	r.back = lookup.Target{}
	r.mu.Unlock()
	var targets []lookup.Target
	var err error
	if back.At.IsValid() {
		server, to = 0, back
		targets, _ = r.find(ctx, 0)
	} else {
		targets, err = r.find(ctx, server)
		rest := targets[slices.Index(targets, to)+1:]
		if len(rest) == 0 {
			r.where.Forget(r.address(server), r.cfg.Transport)
			if r.cfg.Secondary != "" {
				server = 1 - server
			}
			var wrong error
			if targets, wrong = r.find(ctx, server); wrong != nil {
				return errors.Join(err, wrong)
			}
			rest = targets
		}
		to = rest[0]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server, r.target, r.flow = server, to, r.flowTo(server, to)
	r.others = len(targets) - 1
	if r.cfg.Secondary != "" {
		r.others++
	}
	return nil
}

// find gives the targets of a server that can send NOTIFY to where they are to come, in
// the order in which they are to be tried: at least one, unless there is an error.
func (r *run) find(ctx context.Context, server int) ([]lookup.Target, error) {
	address := r.address(server)
	all, err := r.where.Find(ctx, address, r.cfg.Transport)
	if err != nil {
		return nil, fmt.Errorf("the presence server %s: %w", address, err)
	}
	var fit []lookup.Target
	for _, to := range all {
		if to.Transport == "tls" && r.cfg.TLS.CertFile == "" {
			return nil, presence.Permanent(fmt.Errorf("the DNS says that %s is to be asked by TLS: name tls.cert_file, or say by which transport", address))
		}
		if !r.local.IsValid() || to.At.Addr().Is4() == r.local.Is4() {
			fit = append(fit, to)
		}
	}
	if len(fit) == 0 {
		return nil, fmt.Errorf("the presence server %s has no address of the family of %s, where NOTIFY is to come", address, r.local)
	}
	return fit, nil
}

// address gives the address of a server as it is configured.
func (r *run) address(server int) string {
	if server == 1 {
		return r.cfg.Secondary
	}
	return r.cfg.Address
}

func (r *run) flowTo(server int, to lookup.Target) wire.Flow {
	switch to.Transport {
	case "tcp":
		return wire.FlowTo(wire.TCP, to.At, "")
	case "tls":
		host, _, _ := lookup.SplitAddress(r.address(server)) // the certificate is for this name, whatever the DNS says (RFC 5922 section 4)
		return wire.FlowTo(wire.TLS, to.At, host)
	default:
		return wire.FlowTo(wire.UDP, to.At, "")
	}
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
		r.review(ctx)
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

// review takes in what others asked for: other people, another target.
func (r *run) review(ctx context.Context) {
	r.mu.Lock()
	changed, switched, before := r.changed, r.switched, r.target
	r.changed, r.switched = false, false
	r.mu.Unlock()
	if changed {
		people := r.Subscriber.people()
		r.mu.Lock()
		r.plan(people, time.Now())
		r.mu.Unlock()
	}
	if !switched {
		return
	}
	if err := r.connect(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("The presence server cannot be found", "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.target == before {
		return // dialogs stay: the server may know them when it is back
	}
	r.log.Info("Subscribing elsewhere", "server", r.address(r.server), "network", r.target.Transport, "at", r.target.At)
	r.heard, r.fault, r.nonce = time.Now(), "", nil
	r.turned, r.hops = r.heard, r.hops+1
	for w := range r.watches {
		w.Abandon(r.heard)
		r.place(w)
	}
}

// look finds out whether the DNS names the target in use still, and, while another server
// is used, asks the first one whether it is back.
func (r *run) look(ctx context.Context) {
	r.mu.Lock()
	used, target := r.server, r.target
	r.mu.Unlock()
	if !r.where.Fresh(r.address(used), r.cfg.Transport) {
		if targets, err := r.find(ctx, used); err == nil && !slices.Contains(targets, target) {
			r.mu.Lock()
			r.switched = true
			r.mu.Unlock()
			return
		}
	}
	if used == 0 {
		return
	}
	targets, _ := r.find(ctx, 0) // what is wrong was told when it was left
	for _, to := range targets {
		uri := "sip:" + to.At.String()
		t, err := wire.NewTemplate("OPTIONS", uri, rand.Text(), "<sip:presenced@"+r.contacts[to.Transport].String()+">;tag="+rand.Text(), "<"+uri+">", nil)
		if err != nil {
			continue
		}
		ask := wire.Outgoing{Template: t, CSeq: 1}
		_ = r.endpoint.Send(r.flowTo(0, to), &ask, func(a wire.Answer) { //nolint:contextcheck // as above
			if a.Err != nil {
				return // it is looked at again
			}
			r.mu.Lock()
			if r.server != 0 && !r.back.At.IsValid() {
				r.back, r.switched = to, true
			}
			r.mu.Unlock()
			r.stir()
		})
	}
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
		b.Phase, b.Detail = presence.PhaseDegraded, r.address(r.server)+" does not answer: "+r.fault
	case r.server != 0:
		b.Phase, b.Detail = presence.PhaseDegraded, "Subscribed at "+r.address(r.server)+", because "+r.cfg.Address+" does not answer."
	case r.list != nil && r.list.refusal != 0:
		b.Phase, b.Detail = presence.PhaseDegraded, fmt.Sprintf("%s answers %d to the list.", r.address(r.server), r.list.refusal)
	case r.list != nil && r.list.over != "":
		b.Phase, b.Detail = presence.PhaseDegraded, r.address(r.server)+" has ended the list for good: "+r.list.over
	case !r.synced:
		b.Phase, b.Detail = presence.PhaseSyncing, "Subscribing at "+r.address(r.server)+"."
	default:
		b.Phase, b.Detail = presence.PhaseLive, fmt.Sprintf("%s tells of %d of %d people.", r.address(r.server), r.done, len(r.people))
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
