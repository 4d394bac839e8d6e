package aes

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"presenced/aes/csta"
	"presenced/aggregator/presence"
)

const (
	dialWithin  = 15 * time.Second
	writeWithin = 10 * time.Second
	stopWithin  = 2 * time.Second
)

// A Source is one AES and one switch, ready to be run by the supervisor. The
// session and what is known of the calls outlive one Run, so that the next can
// take them up.
type Source struct {
	cfg  Config
	log  *slog.Logger
	dial func(ctx context.Context) (net.Conn, error)

	fleet  *fleet // all sources of the switch
	member *member

	mu   sync.Mutex // guards link; held for computing only
	link *Link
}

// New makes a source of a Config that was checked: the only one of its switch.
func New(cfg Config, log *slog.Logger) *Source { return NewAll([]Config{cfg}, log)[0] }

// NewAll makes a source of each Config; all were checked. Those of one switch
// share the extensions, and cover for each other: what a source cannot watch for
// half of its grace, the others monitor as well, as far as their capacity goes.
func NewAll(configs []Config, log *slog.Logger) []*Source {
	fleets, members := newFleets(configs, time.Now())
	out := make([]*Source, len(configs))
	for i, cfg := range configs {
		s := &Source{cfg: cfg, log: log.With("source", cfg.Name), link: NewLink(cfg, cfg.Name), fleet: fleets[i], member: members[i]}
		s.dial = s.connect
		out[i] = s
	}
	return out
}

// Name is the configured name.
func (s *Source) Name() string { return s.cfg.Name }

// Status tells how the session fares. It does not block.
func (s *Source) Status() presence.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link.Status()
}

// Run connects, logs in, and emits what the phones of the roster's tel subjects
// do, until the connection is lost or ctx ends. Then it logs out, which takes
// two seconds at most.
func (s *Source) Run(ctx context.Context, roster presence.Roster, emit func(presence.Report) error) error {
	password, err := s.cfg.PasswordFile.Read()
	if err != nil {
		return err
	}
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	s.log.Info("connected", "peer", conn.RemoteAddr().String())

	who, _ := roster.(people)
	running, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	p := &pump{
		Source: s, conn: conn, people: who, frames: make(chan csta.Frame), broken: make(chan error, 1), rosters: make(chan []presence.Subject),
		box: newOutbox(), refused: make(chan error, 1), done: ended,
	}
	var all sync.WaitGroup
	all.Go(p.read)
	all.Go(func() {
		for subjects := range roster.Subjects(running, "tel") {
			select {
			case p.rosters <- subjects:
			case <-running.Done():
				return
			}
		}
	})
	var emitting sync.WaitGroup
	emitting.Go(func() {
		if err := p.box.drain(emit); err != nil {
			p.refused <- err
		}
	})

	s.with(func(l *Link) {
		l.SetPassword(password)
		l.Connected(time.Now())
	})
	err = p.run(ctx)
	close(ended)
	_ = conn.Close() // nothing can be saved if this fails
	s.with(func(l *Link) { l.Disconnected(time.Now()) })
	s.fleet.tell(s.member, false, false, time.Now())
	cancel()
	all.Wait()
	p.box.close()
	emitting.Wait()
	return err
}

func (s *Source) with(f func(*Link)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.link)
}

// connect dials the server, or the second one where that fails.
func (s *Source) connect(ctx context.Context) (net.Conn, error) {
	conn, err := s.dialOne(ctx, s.cfg.Address)
	if err == nil || s.cfg.Secondary == "" || ctx.Err() != nil {
		return conn, err
	}
	conn, second := s.dialOne(ctx, s.cfg.Secondary)
	if second != nil {
		return nil, errors.Join(err, second)
	}
	s.log.Warn("the first server cannot be reached, using the second", "error", err)
	return conn, nil
}

func (s *Source) dialOne(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := s.cfg.server(address)
	if err != nil {
		return nil, presence.Permanent(err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	plain := &net.Dialer{}
	if s.cfg.Plain {
		return plain.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	}
	settings, err := s.cfg.TLS.Client(host)
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{NetDialer: plain, Config: settings}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
}

// A pump moves what goes between one connection and the link.
type pump struct {
	*Source
	conn    net.Conn
	frames  chan csta.Frame
	broken  chan error // the end of the input
	rosters chan []presence.Subject
	roster  []presence.Subject // the last one
	people  people             // may be nil
	box     *outbox
	refused chan error      // the aggregator takes no more
	done    <-chan struct{} // closed when nobody takes frames any more
	buffer  []byte
}

func (p *pump) read() {
	r := csta.NewReader(bufio.NewReader(p.conn))
	for {
		f, err := r.Read()
		if err != nil {
			p.broken <- err
			return
		}
		select {
		case p.frames <- f:
		case <-p.done:
			return
		}
	}
}

// run is the loop: an input, then all outputs.
func (p *pump) run(ctx context.Context) error {
	// A server that takes nothing must not hold up the end.
	hurry := context.AfterFunc(ctx, func() { _ = p.conn.SetWriteDeadline(time.Now().Add(stopWithin)) })
	defer hurry()
	end := ctx.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var limit <-chan time.Time // set while logging out
	for {
		next, err := p.flush(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(0, time.Until(next)))
		}
		select {
		case f := <-p.frames:
			p.with(func(l *Link) { l.Receive(f, time.Now()) })
		case subjects := <-p.rosters:
			p.roster = byPriority(subjects, p.people, p.cfg.Priority)
			p.cover()
		case <-p.member.moved:
			if p.roster != nil {
				p.cover()
			}
		case <-timer.C:
			p.with(func(l *Link) { l.Tick(time.Now()) })
		case err := <-p.broken:
			if errors.Is(err, csta.ErrFraming) {
				p.with(func(l *Link) { l.Broken(err, time.Now()) })
				_, err = p.flush(ctx)
			} else {
				err = fmt.Errorf("connection lost: %w", err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		case err := <-p.refused:
			if ctx.Err() == nil {
				return err
			} // else it ends as this loop does, which still logs out
		case <-end:
			end = nil
			limit = time.After(stopWithin)
			p.with(func(l *Link) { l.Stop(time.Now()) })
		case <-limit:
			return ctx.Err()
		}
	}
}

// cover hands on what of the roster falls to this source.
func (p *pump) cover() {
	share := p.fleet.share(p.member, p.roster)
	p.with(func(l *Link) { l.Cover(share, time.Now()) })
}

// flush carries out what the link asks for, and gives the time of the next tick.
func (p *pump) flush(ctx context.Context) (time.Time, error) {
	p.mu.Lock()
	frames, reports, notes, next, err := p.link.Frames(), p.link.Reports(), p.link.Notes(), p.link.Next(), p.link.Err()
	working, complete := p.link.Working()
	p.mu.Unlock()
	if due := p.fleet.tell(p.member, working, complete, time.Now()); !due.IsZero() && (next.IsZero() || due.Before(next)) {
		next = due
	}
	for _, n := range notes {
		p.log.Warn("problem with the server", "peer", p.conn.RemoteAddr().String(), "problem", n)
	}
	p.box.put(reports)
	p.buffer = p.buffer[:0]
	for _, f := range frames {
		out, bad := f.Append(p.buffer)
		if bad != nil {
			return time.Time{}, bad
		}
		p.buffer = out
	}
	if len(p.buffer) > 0 {
		within := writeWithin
		if ctx.Err() != nil {
			within = stopWithin
		}
		if bad := p.conn.SetWriteDeadline(time.Now().Add(within)); bad != nil {
			return time.Time{}, fmt.Errorf("connection lost: %w", bad)
		}
		_, bad := p.conn.Write(p.buffer)
		clear(p.buffer) // it may hold the password
		if bad != nil && err == nil {
			err = fmt.Errorf("connection lost: %w", bad)
		}
	}
	return next, err
}

// An outbox holds the newest report of each subject until the aggregator takes
// it, so that a slow aggregator neither stops the sign of life nor makes a queue grow.
type outbox struct {
	mu     sync.Mutex
	newest map[presence.Subject]presence.Report
	order  []presence.Subject
	closed bool
	wake   chan struct{}
}

func newOutbox() *outbox {
	return &outbox{newest: map[presence.Subject]presence.Report{}, wake: make(chan struct{}, 1)}
}

func (b *outbox) put(reports []presence.Report) {
	b.mu.Lock()
	for _, r := range reports {
		if _, waits := b.newest[r.Subject]; !waits {
			b.order = append(b.order, r.Subject)
		}
		b.newest[r.Subject] = r
	}
	b.mu.Unlock()
	b.signal()
}

func (b *outbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.signal()
}

func (b *outbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// drain emits until the box is closed and empty, or emit fails.
func (b *outbox) drain(emit func(presence.Report) error) error {
	for range b.wake {
		for {
			b.mu.Lock()
			if len(b.order) == 0 {
				closed := b.closed
				b.mu.Unlock()
				if closed {
					return nil
				}
				break
			}
			subject := b.order[0]
			b.order = b.order[1:]
			r := b.newest[subject]
			delete(b.newest, subject)
			b.mu.Unlock()
			if err := emit(r); err != nil {
				return err
			}
		}
	}
	return nil
}
