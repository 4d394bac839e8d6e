package lps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/bridges/sip/wire"
)

// People is what the service asks of the aggregator beside presence.Hub. The
// methods may be called from any goroutine and do not block.
type People interface {
	// State gives the state of a person.
	State(id presence.ID) (presence.State, bool)

	// People gives everybody; not to be changed.
	People() []presence.Person
}

// A Service is a Local Presence Service: an aggregator.Bridge.
type Service struct {
	cfg      Config
	log      *slog.Logger
	people   People
	endpoint *wire.Endpoint
	guard    *Guard
	accounts *passwords
	keeper   *keeper

	domains    map[string]bool
	trusted    []netip.Prefix
	publishers map[string]bool // accounts
	admins     map[string]bool
	lists      map[string][]string

	hub      presence.Hub // of this run
	restored bool

	pubMu        sync.Mutex // never held together with subMu
	publications *Publications

	subMu         sync.Mutex
	subscriptions *Subscriptions

	armed atomic.Int64 // when the clock goes off
	wake  chan struct{}
	room  sync.Pool // of *outbox

	problems  problems
	listening atomic.Bool
}

// New makes a service; cfg was checked. memory keeps subscriptions over a restart;
// accounts knows those that the file does not; both may be nil.
func New(cfg Config, people People, gate presence.Gate, memory Memory, accounts Accounts, log *slog.Logger) *Service {
	log = log.With("bridge", cfg.Name)
	s := &Service{
		cfg: cfg, log: log, people: people, accounts: &passwords{file: cfg.AccountsFile, other: accounts, log: log},
		keeper: newKeeper(memory, log), domains: map[string]bool{}, publishers: set(cfg.Publishers), admins: set(cfg.Administrators),
		lists: map[string][]string{}, wake: make(chan struct{}, 1),
	}
	s.room.New = func() any { return new(outbox) }
	for _, d := range cfg.Domains {
		s.domains[strings.ToLower(d)] = true
	}
	s.trusted, _ = networks(cfg.Trusted)
	for _, l := range cfg.Lists {
		name, _ := Address(l.Address)
		members := []string{}
		for _, m := range l.Members {
			address, _ := Address(m)
			members = append(members, address)
		}
		s.lists[name] = members
	}
	s.guard = NewGuard(cfg.realm(), cfg.Algorithms, s.accounts)
	s.publications = NewPublications(cfg.Name, cfg.publications(), cfg.MaxPublications, cfg.MaxPublicationsEach, readPresence)
	encoder := &xmlEncoder{options: pidf.Options{Busy: pidf.Basic(cfg.BusyBasic)}, host: s.domain()}
	s.subscriptions = NewSubscriptions(cfg.Name, cfg.limits(), gate, (*known)(s), encoder, s.keeper.keep)
	s.endpoint = wire.New(cfg.Transport, wire.App{
		Handle: s.handle, Methods: []string{"OPTIONS", "PUBLISH", "SUBSCRIBE"}, Supported: []string{"eventlist", "recipient-list-subscribe"},
	}, log)
	return s
}

func set(names []string) map[string]bool {
	all := map[string]bool{}
	for _, n := range names {
		all[n] = true
	}
	return all
}

// domain gives the first domain.
func (s *Service) domain() string { return strings.ToLower(s.cfg.Domains[0]) }

// Name implements aggregator.Bridge.
func (s *Service) Name() string { return s.cfg.Name }

// Ready waits until the service listens, and gives where.
func (s *Service) Ready(ctx context.Context) ([]wire.Flow, error) { return s.endpoint.Ready(ctx) }

// Run implements aggregator.Bridge: it serves until ctx ends or a socket fails.
func (s *Service) Run(ctx context.Context, hub presence.Hub) error {
	if err := s.accounts.read(); err != nil {
		return presence.Permanent(err)
	}
	s.hub = hub
	s.begin(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.endpoint.Run(ctx) })
	g.Go(func() error { return s.keeper.run(ctx) })
	g.Go(func() error { return s.accounts.follow(ctx) })
	g.Go(func() error {
		if _, err := s.endpoint.Ready(ctx); err != nil {
			return nil //nolint:nilerr // the endpoint itself says why
		}
		s.listening.Store(true)
		defer s.listening.Store(false)
		g.Go(func() error { return s.keepTime(ctx) })
		for state := range hub.Watch(ctx) {
			s.tell(state)
		}
		return nil
	})
	return g.Wait()
}

// begin puts back what was kept, or what an earlier run left. While the store cannot
// be read the service does without: watchers subscribe again when they get 481.
func (s *Service) begin(ctx context.Context) {
	s.subMu.Lock()
	defer s.subMu.Unlock()
	if s.restored {
		s.subscriptions.Hold((*Route).lost)
		return
	}
	s.restored = true
	now := time.Now()
	all, malformed, err := s.keeper.load(ctx)
	if err != nil {
		s.log.Warn("The subscriptions that were kept cannot be read; watchers have to subscribe again", "error", err)
		s.problems.add("stored subscriptions not read", 1)
	}
	s.problems.add("stored subscriptions malformed", malformed)
	for _, one := range all {
		flow, held, err := one.Way.flowTo()
		if err == nil {
			one.Route, err = one.Way.route(one.Call, flow)
		}
		if err != nil || !s.subscriptions.Restore(&one.Record, held, now) {
			s.keeper.keep(one.Dialog, nil)
		}
	}
}

// tell takes a state that the hub gives.
func (s *Service) tell(state presence.State) {
	o := s.outbox()
	s.subMu.Lock()
	o.notifies = s.subscriptions.State(state, time.Now(), o.notifies)
	next := s.subscriptions.Next()
	s.subMu.Unlock()
	s.send(o, s.endpoint.Send)
	s.stir(next)
}

// most is how many NOTIFYs are sent before others have their turn.
const most = 500

// keepTime does what is due, until ctx ends.
func (s *Service) keepTime(ctx context.Context) error {
	clock := time.NewTimer(0)
	defer clock.Stop()
	var over []*presence.Report
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-clock.C:
		}
		s.armed.Store(math.MaxInt64) // who sets something earlier from here on wakes us
		now := time.Now()
		s.pubMu.Lock()
		over = s.publications.Expire(now, over[:0])
		for _, r := range over {
			if err := s.hub.Report(ctx, *r); err != nil {
				s.problems.add("publications of people who left the directory", 1)
			}
		}
		next := instantOf(s.publications.Next())
		s.pubMu.Unlock()

		o := s.outbox()
		s.subMu.Lock()
		o.notifies = s.subscriptions.Advance(now, most, o.notifies)
		other := instantOf(s.subscriptions.Next())
		s.subMu.Unlock()
		s.send(o, s.endpoint.Send)
		if other != 0 && (next == 0 || other < next) {
			next = other
		}
		if next == 0 {
			continue
		}
		s.armed.Store(int64(next))
		clock.Reset(time.Until(next.time()))
	}
}

// stir has keepTime look where something is due before it would.
func (s *Service) stir(next time.Time) {
	if next.IsZero() || int64(instantOf(next)) >= s.armed.Load() {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// An outbox is what is to be sent, with room for its headers.
type outbox struct {
	notifies []Notify
	headers  []byte
}

func (s *Service) outbox() *outbox { return s.room.Get().(*outbox) } //nolint:errcheck,forcetypeassert // the pool has nothing else

// A sender is Send of an endpoint, a request or an answer.
type sender func(to wire.Flow, o *wire.Outgoing, done func(wire.Answer)) error

// send sends what is in o, and takes o back.
func (s *Service) send(o *outbox, send sender) {
	for i := 0; i < len(o.notifies); i++ { // what cannot be sent may append others
		n := &o.notifies[i]
		dialog, route := n.Dialog, n.Route
		o.headers = n.appendHeaders(o.headers[:0])
		err := send(n.Route.flow, &wire.Outgoing{Template: n.Route.head, CSeq: n.CSeq, Headers: o.headers, Body: n.Document.Body}, func(a wire.Answer) {
			s.answered(dialog, route, a)
		})
		if err != nil {
			s.subMu.Lock()
			o.notifies = s.failed(dialog, route, err, o.notifies)
			next := s.subscriptions.Next()
			s.subMu.Unlock()
			s.stir(next)
		}
	}
	clear(o.notifies)
	o.notifies = o.notifies[:0]
	s.room.Put(o)
}

// appendHeaders appends the header lines that the NOTIFY has beside those of its dialog.
func (n *Notify) appendHeaders(h []byte) []byte {
	h = wire.AppendHeader(h, "Subscription-State", n.State)
	h = wire.AppendHeader(h, "SIP-ETag", EntityTag(n.Document.Tag))
	if n.List {
		h = wire.AppendHeader(h, "Require", "eventlist")
	}
	return wire.AppendHeader(h, "Content-Type", n.Document.Type)
}

// answered takes the answer to a NOTIFY that took that route.
func (s *Service) answered(dialog string, route *Route, a wire.Answer) {
	o := s.outbox()
	s.subMu.Lock()
	if a.Err != nil {
		o.notifies = s.failed(dialog, route, a.Err, o.notifies)
	} else {
		after := time.Duration(0)
		if n, ok := a.Seconds(wire.RetryAfter); ok {
			after = time.Duration(n) * time.Second
		}
		o.notifies = s.subscriptions.Answered(dialog, a.Code(), after, time.Now(), o.notifies)
	}
	next := s.subscriptions.Next()
	s.subMu.Unlock()
	s.send(o, a.Send)
	s.stir(next)
}

// failed takes that a NOTIFY was not answered. What is our own affair is tried again,
// and a connection that has ended is made again once. The caller holds subMu.
func (s *Service) failed(dialog string, route *Route, err error, out []Notify) []Notify {
	code, after := 408, time.Duration(0)
	switch {
	case errors.Is(err, wire.ErrClosed) || errors.Is(err, wire.ErrBusy):
		code, after = 503, time.Second
	case errors.Is(err, wire.ErrFlow):
		code = 0
		if other := route.other(); other != nil {
			s.subscriptions.Reroute(dialog, route, other)
			code, after = 503, leastGap
		}
	}
	return s.subscriptions.Answered(dialog, code, after, time.Now(), out)
}

// known is the service as the Directory of its subscriptions.
type known Service

// Find implements Directory.
func (k *known) Find(address string) (presence.ID, bool) {
	p, _, ok := (*Service)(k).find(address)
	return p.ID, ok
}

// State implements Directory.
func (k *known) State(id presence.ID) (presence.State, bool) { return k.people.State(id) }

// Members implements Directory: lists of the configuration, and groups.
func (k *known) Members(list string) ([]string, bool) {
	if members, ok := k.lists[list]; ok {
		return members, true
	}
	group, ok := strings.CutPrefix(list, "group-")
	if !ok {
		return nil, false
	}
	group, ok = strings.CutSuffix(group, "@"+(*Service)(k).domain())
	if !ok {
		return nil, false
	}
	members, found := []string{}, false
	for _, p := range k.people.People() {
		for _, g := range p.Groups {
			if strings.EqualFold(g, group) {
				found = true
				if address := (*Service)(k).addressOf(&p); address != "" {
					members = append(members, address)
				}
				break
			}
		}
	}
	return members, found
}

// find gives the person of an address, and the subject by which that is.
func (s *Service) find(address string) (presence.Person, presence.Subject, bool) {
	if domain := domainOf(address); domain != "" && !s.domains[domain] {
		return presence.Person{}, presence.Subject{}, false
	}
	for _, subject := range subjects(address) {
		if p, ok := s.hub.Person(subject); ok {
			return p, subject, true
		}
	}
	return presence.Person{}, presence.Subject{}, false
}

// addressOf gives an address that find finds the person by; empty: there is none.
func (s *Service) addressOf(p *presence.Person) string {
	for _, a := range []string{p.Address("sip"), p.Address("tel") + "@" + s.domain(), p.Address("mail")} {
		address, ok := Address("sip:" + a)
		if !ok {
			continue
		}
		if found, _, ok := s.find(address); ok && found.ID == p.ID {
			return address
		}
	}
	return ""
}

// problems counts what went wrong, by kind.
type problems struct {
	mu    sync.Mutex
	kinds map[string]int
}

func (p *problems) add(kind string, n int) {
	if n == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kinds == nil {
		p.kinds = map[string]int{}
	}
	p.kinds[kind] += n
}

// Status says how the service fares; it does not block for long.
func (s *Service) Status() presence.Status {
	w := s.endpoint.Status()
	st := presence.Status{Phase: presence.PhaseConnecting, Detail: "does not listen yet", Problems: w.Problems}
	s.problems.mu.Lock()
	for kind, n := range s.problems.kinds {
		st.Problems[kind] += n
	}
	s.problems.mu.Unlock()
	if n := s.keeper.problems(); n > 0 {
		st.Problems["subscriptions not kept"] = n
	}
	if !s.listening.Load() {
		return st
	}
	s.pubMu.Lock()
	publications := s.publications.Len()
	s.pubMu.Unlock()
	s.subMu.Lock()
	subscriptions := s.subscriptions.Len()
	s.subMu.Unlock()
	st.Phase = presence.PhaseLive
	st.Detail = fmt.Sprintf("listens on %s; %d publications; subscriptions: %d presence, %d dialog, %d presence.winfo",
		strings.Join(s.cfg.Transport.Listen, ", "), publications, subscriptions[aboutPresence.String()], subscriptions[aboutPhone.String()], subscriptions[aboutWatchers.String()])
	return st
}
