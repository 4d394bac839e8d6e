package sip

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"presenced/aggregator/presence"
)

// orders is what is wanted of a Publisher, until its goroutine gets to it.
type orders struct {
	wake chan struct{} // holds a token while there are any

	mu     sync.Mutex
	form   *form
	resend bool
	leave  chan struct{}
}

// A form is what a Publisher is made of, but for its name.
type form struct {
	cfg    Config
	covers func(*presence.Person) bool
}

// errReformed ends a run that has to connect anew; the next one begins at once.
var errReformed = errors.New("the servers are others now")

func (o *orders) give(change func()) {
	o.mu.Lock()
	change()
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Reform has the Publisher do from now on what cfg says, for those people whom
// covers names (nil: everybody). cfg must be without problems, and keep the name.
// What is published and still wanted stays as it is: it is neither removed nor sent
// again, unless its document or the credentials are others. Servers that are not
// in cfg any more are asked to forget what they hold. covers must not block.
func (p *Publisher) Reform(cfg Config, covers func(*presence.Person) bool) {
	p.orders.give(func() { p.orders.form, p.orders.leave = &form{cfg, covers}, nil })
}

// Review looks at everybody again: who is covered, and under which address, may be
// other than it was, because the directory is.
func (p *Publisher) Review() { p.orders.give(func() {}) }

// Resend publishes everybody again with full documents, at the usual pace, whatever
// the server holds.
func (p *Publisher) Resend() { p.orders.give(func() { p.orders.resend = true }) }

// Withdraw removes all that is published, and returns when the servers hold nothing
// any more, with nil, or with the error of ctx. Nothing is published from then on,
// until Reform says so. It needs a Run beside it.
func (p *Publisher) Withdraw(ctx context.Context) error {
	done := make(chan struct{})
	p.orders.give(func() { p.orders.leave = done })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// obey does what was ordered, and tells whether that needs another connection.
func (p *Publisher) obey() (reconnect bool) {
	now := time.Now()
	p.orders.mu.Lock()
	f, resend, leave := p.orders.form, p.orders.resend, p.orders.leave
	p.orders.form, p.orders.resend, p.orders.leave = nil, false, nil
	p.orders.mu.Unlock()
	if f != nil {
		before := p.cfg
		p.cfg, p.covers, p.leaving = f.cfg, f.covers, nil
		if before.Expires != f.cfg.Expires {
			for _, srv := range p.servers {
				srv.terms.expires = f.cfg.Expires
			}
		}
		credentials := before.User != f.cfg.User || before.PasswordFile != f.cfg.PasswordFile
		reconnect = credentials || before.Address != f.cfg.Address || before.Secondary != f.cfg.Secondary ||
			before.Transport != f.cfg.Transport || before.TLS != f.cfg.TLS
		if reconnect {
			p.arrange()
		}
		resend = resend || credentials
	}
	if leave != nil {
		p.covers, p.leaving = func(*presence.Person) bool { return false }, leave
		p.release(p.reach(), now)
	}
	if resend {
		for _, srv := range p.servers {
			for _, e := range srv.pubs {
				e.Resend(now)
				p.place(srv, e)
			}
		}
	}
	return reconnect
}

// arrange makes the configured servers those in use. One that holds something and
// is not configured any more is kept until it is forgotten there.
func (p *Publisher) arrange() {
	before := slices.Clone(p.reach())
	p.servers, p.former = nil, nil
	for _, address := range []string{p.cfg.Address, p.cfg.Secondary} {
		if address == "" {
			continue
		}
		srv := newServer(address, &p.cfg)
		if i := slices.IndexFunc(before, func(s *server) bool { return s.address == address }); i >= 0 {
			srv = before[i]
			before = slices.Delete(before, i, i+1)
		}
		srv.way = way{transport: p.cfg.Transport, tls: p.cfg.TLS, user: p.cfg.User}
		p.servers = append(p.servers, srv)
	}
	for _, srv := range before {
		if len(srv.pubs) == 0 {
			srv.drop()
			continue
		}
		p.former = append(p.former, srv)
	}
}

// reach gives all servers: those in use, then those that only have to forget.
// It is not to be changed.
func (p *Publisher) reach() []*server {
	if len(p.former) == 0 {
		return p.servers
	}
	return slices.Concat(p.servers, p.former)
}

// left tells who waits in Withdraw when nothing is published any more.
func (s *session) left() {
	if s.leaving == nil {
		return
	}
	for _, srv := range s.reach() {
		if len(srv.pubs) > 0 {
			return
		}
	}
	select {
	case <-s.leaving:
	default:
		close(s.leaving)
	}
}

// A watch is a goroutine that carries states from the hub to the loop.
type watch struct {
	end  context.CancelFunc
	done chan struct{}
}

// watch has the states of everybody come to the loop, each once more at first. The
// watch before ends when this one is known to miss nothing; then a state of nobody
// has the loop sweep, because what the other one had still to say is lost.
func (s *session) watch(ctx context.Context) {
	ctx, end := context.WithCancel(ctx)
	before, w := s.watched, &watch{end, make(chan struct{})}
	s.watched = w
	retire := func() (retired bool) {
		if retired = before != nil; retired {
			before.end()
			<-before.done // what it was about to say is older
			before = nil
		}
		return retired
	}
	say := func(state presence.State) bool {
		select {
		case s.states <- state:
			return true
		case <-ctx.Done():
			return false
		}
	}
	s.group.Go(func() {
		defer close(w.done)
		defer end()
		defer retire()
		for state := range s.hub.Watch(ctx) {
			if retire() && !say(presence.State{}) || !say(state) {
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case s.ended <- struct{}{}:
		case <-ctx.Done():
		}
	})
}

// sweep removes who left the directory.
func (s *session) sweep() {
	for id := range s.people {
		if _, known := s.hub.Person(presence.Subject{Scheme: "id", Value: string(id)}); !known {
			s.state(&presence.State{Person: id, Why: presence.Reason{Rule: presence.RuleRemoved}})
		}
	}
}

// settle waits for the answers to what is out, which takes a few seconds at most:
// a publication whose tag is not known would stay until it expires.
func (s *session) settle(ctx context.Context) {
	waiting := func(srv *server) bool { return srv.out > 0 }
	for slices.ContainsFunc(s.reach(), waiting) && ctx.Err() == nil {
		select {
		case a := <-s.answers:
			s.take(&a)
		case <-ctx.Done():
		}
	}
}
