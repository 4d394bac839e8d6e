package sip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"golang.org/x/time/rate"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
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
// for it. Make it with New, run it as often as needed, one Run at a time.
type Publisher struct {
	cfg     Config
	log     *slog.Logger
	servers []*server // the first one is preferred
	journal *journal
	limiter *rate.Limiter
	board   board
	pauses  pauses

	inherited bool // the journal was read
	people    map[presence.ID]published
	owners    map[string]presence.ID // by entity
}

// published is what is to be said of a person.
type published struct {
	entity string
	doc    []byte
}

// New makes a Publisher. The configuration must be without problems (Check).
// Memory keeps the entity-tags; it may be shared with other bridges.
func New(cfg Config, memory Memory, log *slog.Logger) *Publisher {
	tameLibrary()
	p := &Publisher{
		cfg: cfg, log: log.With("bridge", cfg.Name), limiter: rate.NewLimiter(rate.Limit(cfg.Rate), cfg.Rate),
		pauses: pauses{probe: probePause, comeback: returnPause, silence: stopPause, stop: stopTime},
		people: map[presence.ID]published{}, owners: map[string]presence.ID{},
	}
	p.board.status.Phase = presence.PhaseConnecting
	p.journal = newJournal(memory, p.log, p.board.notice)
	for _, address := range []string{cfg.Address, cfg.Secondary} {
		if address != "" {
			p.servers = append(p.servers, &server{address: address, terms: usualTerms(cfg.Expires), pubs: map[string]*entry{}})
		}
	}
	return p
}

// Name gives the configured name.
func (p *Publisher) Name() string { return p.cfg.Name }

// Status tells how the bridge fares. Total counts the people that have an
// address, Done those whose newest document the server holds.
func (p *Publisher) Status() presence.Status { return p.board.get() }

// Run publishes everybody whom hub knows and who has an address, until ctx ends:
// then it removes what it published, as far as that goes in a few seconds, and
// gives the error of ctx. It fails when no server answers, and permanently when
// the server does not take the password. What is published then stays known to
// the Publisher, and the next Run goes on from there.
func (p *Publisher) Run(ctx context.Context, hub presence.Hub) error {
	err := p.run(ctx, hub)
	p.board.set(func(s *presence.Status) {
		s.Phase, s.Detail = presence.PhaseConnecting, "Not running."
		if err != nil && ctx.Err() == nil {
			s.Detail, s.LastError, s.LastErrorAt = "", err.Error(), time.Now()
		}
	})
	return err
}

func (p *Publisher) run(ctx context.Context, hub presence.Hub) error {
	password := ""
	if p.cfg.User != "" {
		var err error
		if password, err = p.cfg.PasswordFile.Read(); err != nil {
			return presence.Permanent(err)
		}
	}
	if err := p.inherit(ctx); err != nil {
		return fmt.Errorf("cannot read the entity-tags: %w", err)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx, for the removals
	s := &session{
		Publisher: p, hub: hub, password: password, life: life,
		answers: make(chan answer), probes: make(chan probe),
	}
	states := make(chan presence.State)
	watching, unwatch := context.WithCancel(ctx)
	s.group.Go(func() { p.journal.run(life) })
	defer func() {
		unwatch()
		end()
		for _, srv := range p.servers {
			srv.drop()
		}
		s.group.Wait()
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.pauses.stop)
		defer cancel()
		p.journal.flush(flush)
	}()
	if err := s.connect(ctx, p.servers[0]); err != nil {
		return err
	}
	s.group.Go(func() {
		defer close(states)
		for state := range hub.Watch(watching) {
			select {
			case states <- state:
			case <-watching.Done():
				return
			}
		}
	})
	return s.loop(ctx, states)
}

// inherit makes ready for a Run: on the first one it takes over what an earlier
// process published; what nobody wants any more is removed after a while.
func (p *Publisher) inherit(ctx context.Context) error {
	now := time.Now()
	clear(p.people)
	clear(p.owners)
	for _, srv := range p.servers {
		srv.nonce, srv.missed, srv.back, srv.probing = nil, 0, time.Time{}, false
		for _, e := range srv.pubs {
			e.Fail(now) // what was out when the last Run ended
			e.Orphan(now)
			srv.place(e)
		}
	}
	if p.inherited {
		return nil
	}
	records, err := p.journal.load(ctx, p.cfg.Name, now)
	if err != nil {
		return err
	}
	p.inherited = true
	for i := range records {
		r := &records[i]
		for _, srv := range p.servers {
			if srv.address != r.Server {
				continue
			}
			if e, err := srv.entry(r.Entity); err == nil {
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
	hub      presence.Hub
	password string
	life     context.Context
	group    sync.WaitGroup
	answers  chan answer
	probes   chan probe

	active *server
	out    int  // requests that wait for an answer
	synced bool // everybody was published once
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
	err    error
}

func (s *session) loop(ctx context.Context, states <-chan presence.State) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	look := time.NewTicker(s.pauses.probe)
	defer look.Stop()
	for {
		timer.Reset(s.dispatch(time.Now()))
		s.publishStatus()
		select {
		case <-ctx.Done():
			s.withdraw()
			return ctx.Err()
		case state, ok := <-states:
			if !ok {
				if ctx.Err() != nil {
					continue
				}
				return errors.New("the aggregator gives no more states")
			}
			s.state(&state)
		case a := <-s.answers:
			if err := s.answered(ctx, &a); err != nil {
				return err
			}
		case pr := <-s.probes:
			if err := s.probed(ctx, &pr); err != nil {
				return err
			}
		case <-look.C:
			s.look()
		case <-timer.C:
		}
	}
}

// connect makes the first server that answers the active one, beginning with
// first.
func (s *session) connect(ctx context.Context, first *server) error {
	s.board.set(func(b *presence.Status) {
		b.Phase, b.Detail = presence.PhaseConnecting, "Waiting for "+first.address+"."
	})
	var errs []error
	for i := range s.servers {
		srv := s.servers[i]
		if first != s.servers[0] {
			srv = s.servers[len(s.servers)-1-i]
		}
		l, err := s.open(ctx, srv)
		if err == nil {
			s.activate(srv, l)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, fmt.Errorf("%s: %w", srv.address, err))
	}
	return fmt.Errorf("no presence server answers: %w", errors.Join(errs...))
}

// open gives a link to a server that answers.
func (s *session) open(ctx context.Context, srv *server) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	host, _, err := net.SplitHostPort(srv.address)
	if err != nil {
		return nil, err
	}
	var trusted *tls.Config
	if s.cfg.Transport == "tls" {
		if trusted, err = s.cfg.TLS.Client(host); err != nil {
			return nil, err
		}
	}
	l, err := openLink(ctx, s.cfg.Transport, srv.address, trusted, s.log, s.board.notice)
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
	srv.link, srv.heard, srv.missed, srv.back, s.active = l, now, 0, time.Time{}, srv
	if old != srv {
		s.log.Info("Publishing presence", "server", srv.address, "transport", s.cfg.Transport)
	}
	for _, e := range srv.pubs {
		if _, wanted := s.owners[e.entity]; !wanted && e.want != nil {
			e.Stop(now, removalTries)
			s.place(srv, e)
		}
	}
	for _, person := range s.people {
		s.want(person, now)
	}
	for _, other := range s.servers[1:] {
		if other == srv {
			continue
		}
		for _, e := range other.pubs {
			e.Stop(now, removalTries)
			s.place(other, e)
		}
	}
}

// lost says that srv does not answer. Another server takes over, or the same
// one if it answers again; else the error ends the Run.
func (s *session) lost(ctx context.Context, srv *server, why error) error {
	srv.drop()
	s.board.notice("servers lost")
	if srv != s.active {
		s.log.Warn("What a presence server holds cannot be removed yet", "server", srv.address, "error", why)
		return nil
	}
	s.log.Warn("The presence server does not answer", "server", srv.address, "error", why)
	s.board.set(func(b *presence.Status) { b.LastError, b.LastErrorAt = srv.address+": "+why.Error(), time.Now() })
	next := srv
	for _, other := range s.servers {
		if other != srv {
			next = other
		}
	}
	return s.connect(ctx, next)
}

// state takes a state of a person.
func (s *session) state(state *presence.State) {
	now := time.Now()
	entity := ""
	if state.Why.Rule != presence.RuleRemoved {
		if person, ok := s.hub.Person(presence.Subject{Scheme: "id", Value: string(state.Person)}); ok {
			var err error
			if entity, err = entityOf(s.cfg.Entity, &person); err != nil {
				s.board.notice("addresses malformed")
				s.board.unmonitored(string(state.Person), "the subjects do not make a SIP address")
			}
		}
	}
	if entity != "" && s.owners[entity] != "" && s.owners[entity] != state.Person {
		s.board.notice("addresses shared")
		s.board.unmonitored(string(state.Person), "another person has the same SIP address")
		entity = ""
	}
	if old, ok := s.people[state.Person]; ok && old.entity != entity {
		delete(s.people, state.Person)
		delete(s.owners, old.entity)
		if e := s.active.pubs[old.entity]; e != nil {
			e.Stop(now, removalTries)
			s.place(s.active, e)
		}
		s.board.monitored(old.entity)
	}
	if entity == "" {
		return
	}
	doc := pidf.Append(nil, presence.View(*state, presence.Everyone()), entity, pidf.Options{Busy: pidf.Basic(s.cfg.BusyBasic)})
	s.people[state.Person], s.owners[entity] = published{entity, doc}, state.Person
	s.board.monitored(string(state.Person))
	s.want(s.people[state.Person], now)
}

// want brings what is to be said of a person to the active server.
func (s *session) want(person published, now time.Time) {
	e, err := s.active.entry(person.entity)
	if err != nil {
		return // cannot be: the address was checked when it was made
	}
	e.Want(person.doc, now)
	s.place(s.active, e)
}

// place is to be called after each input of a publication.
func (s *session) place(srv *server, e *entry) {
	srv.place(e)
	if e.tag != e.stored {
		e.stored = e.tag
		s.journal.note(&record{s.cfg.Name, srv.address, e.entity, e.tag, e.dies})
	}
}

// dispatch sends what is due, as far as pace and outstanding requests allow, and
// gives the time until it is to be called again.
func (s *session) dispatch(now time.Time) time.Duration {
	wait := time.Hour
	for _, srv := range s.servers {
		for srv.link != nil && len(srv.queue) > 0 {
			e := srv.queue[0]
			if d := e.Due().Sub(now); d > 0 {
				wait = min(wait, d)
				break
			}
			if s.out >= s.cfg.Outstanding {
				return wait // an answer comes first
			}
			if tokens := s.limiter.TokensAt(now); tokens < 1 {
				return min(wait, time.Duration((1-tokens)/float64(s.cfg.Rate)*float64(time.Second))+time.Millisecond)
			}
			if r, ok := e.Send(now); ok {
				s.limiter.AllowN(now, 1)
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
		name, value, err := c.respond(s.cfg.User, s.password, "PUBLISH", e.uri.String(), r.body)
		if err != nil {
			s.board.notice("challenges not answered")
			e.Fail(now)
			return
		}
		header = sip.NewHeader(name, value)
	}
	s.out++
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
	case v == denied:
		text := "the server does not take the user name and password"
		if s.cfg.User == "" {
			text = "the server asks for a user name and password, and none is configured"
		} else if a.response.challenge == nil {
			text = "the server asks for a kind of authentication that is not supported"
		}
		return presence.Permanent(fmt.Errorf("%s: %s", a.server.address, text))
	case v == failing && len(s.servers) > 1 && a.server == s.active:
		return s.lost(ctx, a.server, errors.New("503 Service Unavailable"))
	}
	return nil
}

// take gives an answer to its publication.
func (s *session) take(a *answer) verdict {
	now := time.Now()
	s.out--
	defer s.place(a.server, a.entry)
	if a.err != nil {
		s.board.notice("requests without an answer")
		a.entry.Fail(now)
		return fine
	}
	a.server.heard, a.server.missed = now, 0
	if s.cfg.User == "" {
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
		s.board.notice("answers 5xx and 6xx")
	case code == 412:
		s.board.notice("entity-tags lost")
	case code >= 200 && code < 300:
		s.board.monitored(a.entry.entity)
	}
	return v
}

// look probes the active server if it was silent, the first one while another
// stands in, and one that stood in while it holds something that is to be removed.
func (s *session) look() {
	if srv, l := s.active, s.active.link; !srv.probing && time.Since(srv.heard) >= s.pauses.probe {
		srv.probing = true
		s.group.Go(func() { s.report(probe{server: srv, link: l, err: l.options(s.life)}) })
	}
	for i, srv := range s.servers {
		if srv == s.active || srv.probing || i > 0 && (srv.link != nil || len(srv.pubs) == 0) {
			continue
		}
		srv.probing = true
		s.group.Go(func() {
			l, err := s.open(s.life, srv)
			s.report(probe{server: srv, link: l, fresh: true, err: err})
		})
	}
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
		case pr.err == nil:
			srv.heard, srv.missed = now, 0
		default:
			if srv.missed++; srv.missed >= 2 {
				return s.lost(ctx, srv, pr.err)
			}
		}
		return nil
	}
	switch {
	case pr.err != nil:
		srv.back = time.Time{}
	case srv == s.active: // since the look began
		pr.link.close()
	case srv != s.servers[0]:
		srv.drop()
		srv.link = pr.link
	case srv.back.IsZero():
		srv.back = now
		pr.link.close()
	case now.Sub(srv.back) < s.pauses.comeback:
		pr.link.close()
	default:
		s.activate(srv, pr.link)
	}
	return nil
}

// withdraw removes what is published, at the usual pace, until it is done, the
// servers fall silent, or the time is over.
func (s *session) withdraw() {
	for _, srv := range s.servers {
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
		for _, srv := range s.servers {
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
	total, done, troubled := len(s.people), s.active.settled, s.active.troubled
	s.synced = s.synced || total > 0 && done >= total
	s.board.set(func(b *presence.Status) {
		b.Done, b.Total = done, total
		switch {
		case s.active != s.servers[0]:
			b.Phase, b.Detail = presence.PhaseDegraded, "Publishing at "+s.active.address+", because "+s.servers[0].address+" does not answer."
		case troubled > 0:
			b.Phase, b.Detail = presence.PhaseDegraded, fmt.Sprintf("%s does not serve %d of %d publications.", s.active.address, troubled, total)
		case !s.synced && done < total:
			b.Phase, b.Detail = presence.PhaseSyncing, "Publishing at "+s.active.address+"."
		default:
			b.Phase, b.Detail = presence.PhaseLive, fmt.Sprintf("%d people published at %s.", done, s.active.address)
		}
	})
}
