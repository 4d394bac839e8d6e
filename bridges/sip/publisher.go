package sip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/bridges/sip/digest"
	"presenced/bridges/sip/entity"
	"presenced/bridges/sip/lookup"
)

const (
	probePause  = 15 * time.Second // between two looks at a server
	returnPause = 60 * time.Second // how long the first server answers before it is used again
	stopPause   = 2 * time.Second  // without an answer, and removal ends
	stopTime    = 5 * time.Second  // removal ends, whatever is left
)

// pauses are the times of a publisher; tests have others.
type pauses struct{ probe, comeback, silence, stop time.Duration }

// A Publisher is the bridge to one presence server and the one that stands in
// for it. Make it with New, run it as often as needed, one Run at a time. All other
// methods may be called from any goroutine, whether it runs or not.
type Publisher struct {
	name    string
	log     *slog.Logger
	gate    presence.Gate
	watcher presence.Watcher // the presence server, as the gate knows it
	journal *journal
	locator *lookup.Locator
	board   board
	pauses  pauses
	orders  orders

	// What follows belongs to the goroutine of Run.

	cfg     Config
	covers  func(*presence.Person) bool // nil: everybody
	leaving chan struct{}               // closed when nothing is published any more; nil: that is not wanted
	servers []*server                   // the first one is preferred
	former  []*server                   // not configured any more; what they hold is to be removed
	people  map[presence.ID]published
	owners  map[string]presence.ID // by entity
}

// published is what is to be said of a person; without an entity, nothing is.
type published struct {
	entity string
	doc    []byte
}

// SchemeService is the scheme of a presence server as a watcher: service:NAME.
const SchemeService = "service"

// New makes a Publisher. The configuration must be without problems (Check).
// Memory keeps the entity-tags, and belongs to this bridge. The gate
// decides what the server may see: it is asked about the watcher service:NAME.
func New(cfg Config, memory Memory, gate presence.Gate, log *slog.Logger) *Publisher {
	tameLibrary()
	p := &Publisher{
		name: cfg.Name, log: log.With("bridge", cfg.Name), gate: gate,
		watcher: presence.Watcher{Subject: presence.Subject{Scheme: SchemeService, Value: cfg.Name}, Via: cfg.Name},
		locator: lookup.New(), orders: orders{wake: make(chan struct{}, 1)},
		pauses: pauses{probe: probePause, comeback: returnPause, silence: stopPause, stop: stopTime},
		people: map[presence.ID]published{}, owners: map[string]presence.ID{},
	}
	p.board.status.Phase = presence.PhaseConnecting
	p.journal = newJournal(memory, p.log, p.board.notice)
	p.cfg = cfg
	p.arrange()
	return p
}

// Name gives the configured name.
func (p *Publisher) Name() string { return p.name }

// Status tells how the bridge fares. Total counts the people that have an
// address, Done those whose newest document the server holds.
func (p *Publisher) Status() presence.Status { return p.board.get() }

// Run publishes everybody whom hub knows, who is covered and has an address, and of
// whom the gate shows something, until ctx ends: then it removes what it published,
// as far as that goes in a few seconds, and gives the error of ctx. It fails when no
// server answers, and permanently when the server does not take the password. What
// is published then stays known to the Publisher, and the next Run goes on from there.
func (p *Publisher) Run(ctx context.Context, hub presence.Hub) error {
	err := p.run(ctx, hub)
	for errors.Is(err, errReformed) {
		err = p.run(ctx, hub)
	}
	for id := range p.people {
		p.gate.Dismiss(p.watcher, id)
	}
	clear(p.people)
	p.board.set(func(s *presence.Status) {
		s.Phase, s.Detail = presence.PhaseConnecting, "Not running."
		if err != nil && ctx.Err() == nil {
			s.Detail, s.LastError, s.LastErrorAt = "", err.Error(), time.Now()
		}
	})
	return err
}

func (p *Publisher) run(ctx context.Context, hub presence.Hub) error {
	p.obey()
	password := ""
	if p.cfg.User != "" {
		var err error
		if password, err = p.cfg.PasswordFile.Read(); err != nil {
			return presence.Permanent(err)
		}
	}
	for _, srv := range p.servers {
		srv.way.password = password
	}
	if err := p.inherit(ctx); err != nil {
		return fmt.Errorf("cannot read the entity-tags: %w", err)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx, for the removals
	s := &session{
		Publisher: p, hub: hub, life: life,
		answers: make(chan answer), probes: make(chan probe), states: make(chan presence.State), ended: make(chan struct{}),
	}
	s.group.Go(func() { p.journal.run(life) })
	defer func() {
		if s.watched != nil {
			s.watched.end()
		}
		end()
		for _, srv := range p.reach() {
			srv.drop()
		}
		s.group.Wait()
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.pauses.stop)
		defer cancel()
		_ = p.journal.flush(flush) // what is lost by it ends by itself
	}()
	attempts := make([]attempt, 0, len(p.servers))
	for _, srv := range p.servers {
		attempts = append(attempts, attempt{srv, anyTarget})
	}
	if err := s.connect(ctx, attempts); err != nil {
		return err
	}
	s.watch(ctx)
	return s.loop(ctx)
}

// inherit makes ready for a Run: it takes over what an earlier process, or another
// machine, published; what nobody wants any more is removed after a while.
func (p *Publisher) inherit(ctx context.Context) error {
	now := time.Now()
	clear(p.owners) // people stay, for the gate
	for id := range p.people {
		p.people[id] = published{}
	}
	for _, srv := range p.reach() {
		srv.nonce, srv.missed, srv.back, srv.probing, srv.out = nil, 0, time.Time{}, false, 0
		for _, e := range srv.pubs {
			e.Fail(now) // what was out when the last Run ended
			e.Orphan(now)
			srv.place(e)
		}
	}
	if err := p.recall(ctx, now); err != nil {
		return err
	}
	if p.leaving != nil {
		p.release(p.reach(), now)
	}
	p.release(p.former, now)
	return nil
}

// recall takes over what another process published.
func (p *Publisher) recall(ctx context.Context, now time.Time) error {
	records, err := p.journal.load(ctx, now)
	if err != nil {
		return err
	}
	for i := range records {
		r := &records[i]
		for _, srv := range p.servers {
			if srv.address != r.Server {
				continue
			}
			if e, err := srv.entry(r.Entity); err == nil && e.tag != r.Tag {
				e.Inherit(r.Tag, r.Dies, now)
				e.stored = r.Tag
				srv.place(e)
			}
		}
	}
	return nil
}

func (s *server) drop() {
	if s.link != nil {
		s.link.close()
		s.link = nil
	}
}

// A session is one Run. Its loop alone touches the servers and publications.
type session struct {
	*Publisher
	hub     presence.Hub
	life    context.Context
	group   sync.WaitGroup
	answers chan answer
	probes  chan probe
	states  chan presence.State
	ended   chan struct{} // the hub gives no more states
	watched *watch        // the newest one

	active *server
	synced bool // everybody was published once
	shared bool // somebody is not published because another person has the same address
	freed  bool // an address was given up since
}

// An answer is what became of a request.
type answer struct {
	server   *server
	link     *link
	entry    *entry
	response response
	err      error
}

// A probe is what became of a look at a server. The link is the one that the
// server has, or had when the look began; or a fresh one, which belongs to the
// probe, and is nil if there is an error.
type probe struct {
	server *server
	link   *link
	fresh  bool
	moved  bool // the DNS leads elsewhere
	err    error
}

func (s *session) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	look := time.NewTicker(s.pauses.probe)
	defer look.Stop()
	if len(s.former) > 0 {
		s.look(ctx)
	}
	for {
		timer.Reset(s.dispatch(time.Now()))
		s.publishStatus()
		s.left()
		select {
		case <-ctx.Done():
			s.withdraw()
			return ctx.Err()
		case state := <-s.states:
			if state.Person == "" {
				s.sweep()
				continue
			}
			s.state(&state)
		case <-s.ended:
			return errors.New("the aggregator gives no more states")
		case <-s.orders.wake:
			if s.obey() {
				s.settle(ctx)
				return errReformed
			}
			s.watch(ctx)
		case a := <-s.answers:
			if err := s.answered(ctx, &a); err != nil {
				return err
			}
		case pr := <-s.probes:
			if err := s.probed(ctx, &pr); err != nil {
				return err
			}
		case <-look.C:
			s.look(ctx)
		case <-s.journal.saved:
		case <-timer.C:
		}
	}
}

// An attempt is a look for a server to use: at all its targets, at those other than
// the one that failed, or at that one again.
type attempt struct {
	*server
	takes func(lookup.Target) bool
}

func anyTarget(lookup.Target) bool { return true }

// connect makes the first server that answers the active one.
func (s *session) connect(ctx context.Context, attempts []attempt) error {
	s.board.set(func(b *presence.Status) {
		b.Phase, b.Detail = presence.PhaseConnecting, "Waiting for "+attempts[0].address+"."
	})
	var errs []error
	for _, a := range attempts {
		l, err := s.open(ctx, a)
		if err == nil {
			s.activate(a.server, l)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errNoTarget) {
			continue
		}
		a.fault = err.Error()
		s.publishPeers()
		errs = append(errs, fmt.Errorf("%s: %w", a.address, err))
	}
	return fmt.Errorf("no presence server answers: %w", errors.Join(errs...))
}

// errNoTarget says that a server has no target that an attempt takes.
var errNoTarget = errors.New("there is no other target")

// open gives a link to the first target that answers. It may be called from any goroutine.
func (s *session) open(ctx context.Context, a attempt) (*link, error) {
	targets, err := s.locator.Find(ctx, a.address, a.way.transport)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, to := range targets {
		if !a.takes(to) {
			continue
		}
		l, err := s.openTarget(ctx, a.server, to)
		if err == nil {
			l.others = len(targets) > 1
			return l, nil
		}
		if len(targets) > 1 {
			err = fmt.Errorf("%s: %w", to.At, err)
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, errNoTarget
	}
	s.locator.Forget(a.address, a.way.transport)
	return nil, errors.Join(errs...)
}

func (s *session) openTarget(ctx context.Context, srv *server, to lookup.Target) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	l, err := srv.way.open(ctx, srv.address, to, s.log, s.board.notice)
	if err != nil {
		return nil, err
	}
	if err := l.options(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// activate publishes at srv from now on. What a server holds that only stands in
// is removed there, at once or when it is in reach; the first server is used again,
// and what it holds is changed then.
func (s *session) activate(srv *server, l *link) {
	now := time.Now()
	old := s.active
	srv.drop()
	srv.link, srv.missed, srv.back, s.active = l, 0, time.Time{}, srv
	srv.answers(now)
	if old != srv {
		s.log.Info("Publishing presence", "server", srv.address, "network", l.network, "at", l.target)
	}
	for _, e := range srv.pubs {
		if _, wanted := s.owners[e.entity]; !wanted && e.want != nil {
			e.Stop(now, removalTries)
			s.place(srv, e)
		}
	}
	if srv.doubtful {
		srv.doubt(now)
	}
	for _, person := range s.people {
		s.want(person, now)
	}
	s.release(slices.DeleteFunc(slices.Clone(s.servers[1:]), func(other *server) bool { return other == srv }), now)
}

// lost says that srv does not answer where it was asked. Another target of it takes
// over, another server, or the same target if it answers again; else the error ends
// the Run.
func (s *session) lost(ctx context.Context, srv *server, why error) error {
	failed, worked := srv.link.target, srv.link.worked
	srv.drop()
	srv.doubtful = true
	s.locator.Forget(srv.address, srv.way.transport)
	srv.fault = why.Error()
	s.board.notice("servers lost")
	if srv != s.active {
		s.log.Warn("What a presence server holds cannot be removed yet", "server", srv.address, "error", why)
		return nil
	}
	if worked { // else pauses grow while nothing but OPTIONS is answered
		srv.revive(time.Now())
	}
	s.log.Warn("The presence server does not answer", "server", srv.address, "error", why)
	s.board.set(func(b *presence.Status) { b.LastError, b.LastErrorAt = srv.address+": "+why.Error(), time.Now() })
	attempts := []attempt{{srv, func(to lookup.Target) bool { return to.At != failed }}}
	for _, other := range s.servers {
		if other != srv {
			attempts = append(attempts, attempt{other, anyTarget})
		}
	}
	return s.connect(ctx, append(attempts, attempt{srv, func(to lookup.Target) bool { return to.At == failed }}))
}

// state takes a state of a person.
func (s *session) state(state *presence.State) {
	now, id := time.Now(), state.Person
	entity, name := s.entity(state)
	admitted := entity != ""
	var access presence.Access
	if admitted {
		if access = s.gate.Admit(s.watcher, id); !access.Shows() {
			entity = ""
		}
	}
	old, known := s.people[id]
	if old.entity != "" && old.entity != entity {
		delete(s.owners, old.entity)
		s.freed = true
		if e := s.active.pubs[old.entity]; e != nil {
			e.Stop(now, removalTries)
			s.place(s.active, e)
		}
		s.board.monitored(old.entity)
	}
	switch {
	case entity != "":
		doc := pidf.Append(nil, presence.View(*state, access), entity, s.cfg.document(name))
		s.people[id], s.owners[entity] = published{entity, doc}, id
		s.board.monitored(string(id))
		s.want(s.people[id], now)
	case admitted:
		s.people[id] = published{}
	case known:
		delete(s.people, id)
		s.gate.Dismiss(s.watcher, id)
	}
}

// entity gives the address under which a person is to be published, and their name;
// empty: they are not.
func (s *session) entity(state *presence.State) (address, name string) {
	id := state.Person
	person, ok := s.hub.Person(presence.Subject{Scheme: "id", Value: string(id)})
	if !ok || state.Why.Rule == presence.RuleRemoved || s.covers != nil && !s.covers(&person) {
		s.board.monitored(string(id))
		return "", ""
	}
	address, err := entity.Of(s.cfg.Entity, &person)
	if err != nil {
		s.board.notice("addresses malformed")
		s.board.unmonitored(string(id), "the subjects do not make a SIP address")
		return "", ""
	}
	if owner := s.owners[address]; address != "" && owner != "" && owner != id {
		s.shared = true
		s.board.notice("addresses shared")
		s.board.unmonitored(string(id), "another person has the same SIP address")
		return "", ""
	}
	return address, person.Name
}

// want brings what is to be said of a person to the active server.
func (s *session) want(person published, now time.Time) {
	if person.entity == "" {
		return
	}
	e, err := s.active.entry(person.entity)
	if err != nil {
		return // cannot be: the address was checked when it was made
	}
	e.Want(person.doc, now)
	s.place(s.active, e)
}

// place is to be called after each input of a publication.
func (p *Publisher) place(srv *server, e *entry) {
	srv.place(e)
	if e.tag != e.stored {
		e.stored = e.tag
		p.journal.note(&record{srv.address, e.entity, e.tag, e.dies}, time.Now())
	}
}

// release has servers forget what they hold.
func (p *Publisher) release(servers []*server, now time.Time) {
	for _, srv := range servers {
		for _, e := range srv.pubs {
			e.Stop(now, removalTries)
			p.place(srv, e)
		}
	}
}

// dispatch sends what is due, as far as pace, outstanding requests and the entity-tags
// that wait for the memory allow, and gives the time until it is to be called again.
func (s *session) dispatch(now time.Time) time.Duration {
	wait, underway := time.Hour, 0
	for _, srv := range s.reach() {
		underway += srv.out
	}
	for _, srv := range s.reach() {
		if srv.link == nil {
			continue
		}
		if rest := srv.rest[srv.link.target].Sub(now); rest > 0 {
			wait = min(wait, rest)
			continue
		}
		srv.setPace(s.cfg.Rate)
		for srv.out < s.cfg.Outstanding { // else an answer comes first
			e := srv.due(now)
			if e == nil {
				wait = srv.idle(now, wait)
				break
			}
			if tokens := srv.limiter.TokensAt(now); tokens < 1 {
				wait = min(wait, time.Duration((1-tokens)/float64(srv.limiter.Limit())*float64(time.Second))+time.Millisecond)
				break
			}
			if d := s.journal.hold(underway, max(maxUnsaved, 2*s.cfg.Outstanding), now); d > 0 {
				wait = min(wait, d)
				break
			}
			srv.filled = e.lane == filling
			if r, ok := e.Send(now); ok {
				srv.limiter.AllowN(now, 1)
				underway++
				s.send(srv, e, r, now)
			}
			s.place(srv, e)
		}
	}
	return wait
}

// send sends r in the background; the answer comes to the loop.
func (s *session) send(srv *server, e *entry, r request, now time.Time) {
	var header sip.Header
	c := r.answer
	if c == nil {
		c = srv.nonce
	}
	if c != nil {
		name, value, err := c.Respond(srv.way.user, srv.way.password, "PUBLISH", e.uri.String())
		if err != nil {
			s.board.notice("challenges not answered")
			e.Fail(now)
			return
		}
		header = sip.NewHeader(name, value)
	}
	srv.out++
	l := srv.link
	s.group.Go(func() {
		a := answer{server: srv, link: l, entry: e}
		a.response, a.err = l.publish(s.life, e.uri, r, header)
		select {
		case s.answers <- a:
		case <-s.life.Done():
		}
	})
}

// answered takes what became of a request; its error ends the Run.
func (s *session) answered(ctx context.Context, a *answer) error {
	v := s.take(a)
	switch {
	case a.err != nil && a.link == a.server.link:
		return s.lost(ctx, a.server, a.err)
	case v == denied && slices.Contains(s.servers, a.server):
		return presence.Permanent(fmt.Errorf("%s: %s", a.server.address, digest.Denial(a.server.way.user, a.response.challenge)))
	case v == failing && a.server == s.active && a.link == s.active.link && (len(s.servers) > 1 || a.link.others):
		return s.lost(ctx, a.server, errors.New("503 Service Unavailable"))
	}
	return nil
}

// take gives an answer to its publication.
func (s *session) take(a *answer) verdict {
	now := time.Now()
	a.server.out--
	defer s.place(a.server, a.entry)
	if a.err != nil {
		s.board.notice("requests without an answer")
		a.entry.Fail(now)
		return fine
	}
	a.server.answers(now)
	a.server.missed = 0
	if a.server.way.user == "" {
		a.response.challenge = nil
	}
	if a.response.challenge != nil {
		a.server.nonce = a.response.challenge
	}
	v := a.entry.Response(a.response, now)
	switch code := a.response.code; {
	case v == refused || v == malformed:
		kind := map[verdict]string{refused: "publications refused", malformed: "answers malformed"}[v]
		s.board.notice(kind)
		s.board.unmonitored(a.entry.entity, fmt.Sprintf("the server answers %d", code))
		s.log.Warn("The presence server does not take a publication", "server", a.server.address, "code", code, "problem", kind)
	case code >= 500:
		if r := a.response.retryAfter; code == 503 && r > 0 { // RFC 3261 section 21.5.4: of all requests
			a.server.rest[a.link.target] = now.Add(min(r, longestPause))
		}
		s.board.notice("answers 5xx and 6xx")
	case code == 412:
		s.board.notice("entity-tags lost")
		if now.Sub(a.server.doubted) > a.server.terms.expires { // it was started anew, perhaps
			a.server.doubt(now)
		}
	case code >= 200 && code < 300:
		a.link.worked = true
		s.board.monitored(a.entry.entity)
	}
	return v
}

// look probes the active server if it was silent, and the others: the first one is
// used again when it is back, who may have to stand in is known to work, and what is
// to be removed can be. What was held back by an address that is free now is read again.
func (s *session) look(ctx context.Context) {
	srv, l := s.active, s.active.link
	known := s.locator.Fresh(srv.address, srv.way.transport)
	if !srv.probing && (!known || time.Since(srv.heard) >= s.pauses.probe) {
		srv.probing = true
		s.group.Go(func() {
			moved := !known && s.moved(srv, l)
			s.report(probe{server: srv, link: l, moved: moved, err: l.options(s.life)})
		})
	}
	now := time.Now()
	s.former = slices.DeleteFunc(s.former, func(srv *server) bool {
		gone := srv.dead(now)
		if gone {
			srv.drop()
		}
		return gone
	})
	for i, srv := range s.reach() {
		if srv == s.active || srv.probing || i > 0 && srv.link != nil {
			continue
		}
		srv.probing = true
		s.group.Go(func() {
			l, err := s.open(s.life, attempt{srv, anyTarget})
			s.report(probe{server: srv, link: l, fresh: true, err: err})
		})
	}
	if s.shared && s.freed {
		s.shared, s.freed = false, false
		s.watch(ctx)
	}
}

// moved tells whether the DNS names the target of l no more.
func (s *session) moved(srv *server, l *link) bool {
	targets, err := s.locator.Find(s.life, srv.address, srv.way.transport)
	return err == nil && !slices.ContainsFunc(targets, func(to lookup.Target) bool { return to.At == l.target })
}

func (s *session) report(pr probe) {
	select {
	case s.probes <- pr:
	case <-s.life.Done():
		if pr.fresh && pr.link != nil {
			pr.link.close()
		}
	}
}

// probed takes what became of a probe; its error ends the Run.
func (s *session) probed(ctx context.Context, pr *probe) error {
	srv, now := pr.server, time.Now()
	srv.probing = false
	if !pr.fresh {
		switch {
		case srv != s.active || srv.link != pr.link: // it does not matter any more; removals may be under way by the link
		case pr.moved:
			return s.lost(ctx, srv, errors.New("the DNS names it no more"))
		case pr.err == nil:
			srv.answers(now)
			srv.missed = 0
		default:
			if srv.missed++; srv.missed >= 2 {
				return s.lost(ctx, srv, pr.err)
			}
		}
		return nil
	}
	if pr.err == nil {
		srv.answers(now)
	}
	switch {
	case pr.err != nil:
		srv.back, srv.fault = time.Time{}, pr.err.Error()
	case srv == s.active, // since the look began
		srv != s.servers[0] && len(srv.pubs) == 0: // there is nothing to remove
		pr.link.close()
	case srv != s.servers[0]:
		srv.drop()
		srv.link = pr.link
	case srv.back.IsZero():
		jitter := rand.N(s.pauses.comeback/4 + 1) //nolint:gosec // others wait for the same server, and are not to come all at once
		srv.back = now.Add(s.pauses.comeback + jitter)
		if rest := srv.rest[pr.link.target]; rest.After(srv.back) {
			srv.back = rest
		}
		pr.link.close()
	case now.Before(srv.back):
		pr.link.close()
	default:
		s.activate(srv, pr.link)
	}
	return nil
}

// withdraw removes what is published, at the usual pace, until it is done, the
// servers fall silent, or the time is over.
func (s *session) withdraw() {
	for _, srv := range s.reach() {
		if srv.link == nil {
			continue
		}
		for _, e := range srv.pubs {
			e.Stop(time.Now(), 1)
			s.place(srv, e)
		}
	}
	over := time.After(s.pauses.stop)
	silence := time.NewTimer(s.pauses.silence)
	defer silence.Stop()
	for {
		wait := s.dispatch(time.Now())
		left := 0
		for _, srv := range s.reach() {
			if srv.link != nil {
				left += len(srv.pubs)
			}
		}
		if left == 0 {
			return
		}
		select {
		case a := <-s.answers:
			if s.take(&a); a.err == nil {
				silence.Reset(s.pauses.silence)
			}
		case <-s.journal.saved:
		case <-time.After(wait):
		case <-silence.C:
			return
		case <-over:
			return
		}
	}
}

// publishStatus brings the board up to date.
func (s *session) publishStatus() {
	s.publishPeers()
	total, done, troubled := len(s.owners), s.active.settled, s.active.troubled
	need, unsaved := s.active.load(total), s.journal.stall(time.Now())
	s.synced = s.synced || total > 0 && done >= total
	s.board.set(func(b *presence.Status) {
		b.Done, b.Total = done, total
		switch {
		case s.active != s.servers[0]:
			b.Phase, b.Detail = presence.PhaseDegraded, "Publishing at "+s.active.address+", because "+s.servers[0].address+" does not answer."
		case s.cfg.Rate > 0 && need > s.cfg.Rate:
			b.Phase, b.Detail = presence.PhaseDegraded, fmt.Sprintf("A rate of %d requests per second does not keep %d publications alive: set rate to %d or more, or to 0.",
				s.cfg.Rate, total, need)
		case troubled > 0:
			b.Phase, b.Detail = presence.PhaseDegraded, fmt.Sprintf("%s does not serve %d of %d publications.", s.active.address, troubled, total)
		case unsaved > 0:
			b.Phase, b.Detail = presence.PhaseDegraded, fmt.Sprintf("The store does not take %d entity-tags; publishing goes on.", unsaved)
		case !s.synced && done < total:
			b.Phase, b.Detail = presence.PhaseSyncing, "Publishing at "+s.active.address+"."
		default:
			b.Phase, b.Detail = presence.PhaseLive, fmt.Sprintf("%d people published at %s.", done, s.active.address)
		}
	})
}
