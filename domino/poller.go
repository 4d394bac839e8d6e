package domino

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator/presence"
	"presenced/internal/secret"
)

const (
	concurrency = 4 // requests to one server at once
	life        = 24 * time.Hour
	parking     = time.Hour // for which a subject without access is not asked about again
)

// A connection is what package das gives to ask with.
type connection interface {
	SetPassword(password string) bool
	CloseIdleConnections()
}

// account is what was read about one subject.
type account struct {
	spans   []presence.Span
	skipped int // entries that could not be read
}

// A poller asks servers about subjects, all of them every interval. It knows
// nothing of calendars: that is in locate and read. Its methods are those of
// Calendar and OutOfOffice.
type poller struct {
	name, scheme string
	what         string // is covered, in words
	refused      string // what to do where a server refuses everything
	interval     time.Duration
	log          *slog.Logger
	passwordFile secret.File
	connection   connection

	// locate names the server that knows the subject. Its error says why none
	// does.
	locate func(presence.Subject) (server string, err error)
	// read asks that server, at the moment now.
	read func(ctx context.Context, now time.Time, s presence.Subject) (account, error)

	serial sync.Mutex    // one poll at a time
	again  chan struct{} // holds a token where the next poll is not to wait

	mu     sync.Mutex
	gates  map[string]*gate
	parked map[presence.Subject]parked
	status presence.Status // Unmonitored and part of Problems are made from parked
}

// parked is a subject that is not asked about for a while.
type parked struct {
	kind, why string
	until     time.Time
}

func newPoller(cfg Config, name, scheme string, log *slog.Logger, c connection) *poller {
	return &poller{
		name: name, scheme: scheme, interval: cfg.Interval, log: log.With("source", name), passwordFile: cfg.PasswordFile, connection: c,
		gates: make(map[string]*gate), parked: make(map[presence.Subject]parked),
		again: make(chan struct{}, 1), status: presence.Status{Phase: presence.PhaseConnecting},
	}
}

// Name gives the name of the source: that of the configuration, and /calendar or /ooo.
func (p *poller) Name() string { return p.name }

// Status tells how the source fares. It does not block.
func (p *poller) Status() presence.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Problems = maps.Clone(s.Problems)
	if len(p.parked) == 0 {
		return s
	}
	if s.Problems == nil {
		s.Problems = make(map[string]int)
	}
	whys := make(map[string]string, len(p.parked))
	for subject, k := range p.parked {
		s.Problems[k.kind]++
		whys[subject.String()] = k.why
	}
	s.Unmonitored = make(map[string]string)
	if len(whys) > presence.MaxUnmonitored {
		s.Uncovered = len(whys)
	}
	for _, subject := range slices.Sorted(maps.Keys(whys))[:min(len(whys), presence.MaxUnmonitored)] {
		s.Unmonitored[subject] = whys[subject]
	}
	return s
}

// PollNow has Run ask about everybody at once, also those who are not asked about
// for a while. A server that refused the password is left alone as long as before.
func (p *poller) PollNow() {
	p.mu.Lock()
	for s, k := range p.parked {
		k.until = time.Time{}
		p.parked[s] = k
	}
	p.mu.Unlock()
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// Run polls all subjects of the roster at once, then every interval, and new
// subjects when they come. It returns when ctx ends, when emit fails, or when no
// server can be asked; a server that does not accept the password is left alone
// for five minutes or more, whatever Run is told.
func (p *poller) Run(ctx context.Context, roster presence.Roster, emit func(presence.Report) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	rosters := make(chan []presence.Subject)
	var reader sync.WaitGroup
	reader.Go(func() {
		for subjects := range roster.Subjects(ctx, p.scheme) {
			select {
			case rosters <- subjects:
			case <-ctx.Done():
				return
			}
		}
	})
	defer func() {
		cancel()
		reader.Wait()
		p.connection.CloseIdleConnections()
		p.ended(err)
	}()

	p.phase(presence.PhaseConnecting, "waits for the directory")
	var all []presence.Subject
	select {
	case <-ctx.Done():
		return ctx.Err()
	case all = <-rosters:
	}
	var known map[presence.Subject]bool // empty until the first poll is done
	for {
		alive, err := p.poll(ctx, time.Now(), all, emit, known == nil)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errEmit), err != nil && !alive:
			return err
		case err != nil:
			p.phase(presence.PhaseDegraded, err.Error())
		default:
			p.phase(presence.PhaseLive, fmt.Sprintf("covers %d %s", len(all)-p.uncovered(), p.what))
		}
		known = make(map[presence.Subject]bool, len(all))
		for _, s := range all {
			known[s] = true
		}
		if all, err = p.rest(ctx, rosters, all, known, emit); err != nil {
			return err
		}
	}
}

// rest waits until the next poll is due. Meanwhile it asks about subjects that
// are new in the roster, the newest of which it gives.
func (p *poller) rest(ctx context.Context, rosters <-chan []presence.Subject, all []presence.Subject, known map[presence.Subject]bool, emit func(presence.Report) error) ([]presence.Subject, error) {
	due := time.NewTimer(time.Duration(float64(p.interval) * (0.9 + 0.2*rand.Float64()))) //nolint:gosec // spreads load, guards nothing
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-due.C:
			return all, nil
		case <-p.again:
			return all, nil
		case all = <-rosters:
		}
		fresh := slices.DeleteFunc(slices.Clone(all), func(s presence.Subject) bool { return known[s] })
		if len(fresh) == 0 {
			continue
		}
		for _, s := range fresh {
			known[s] = true
		}
		// What fails here is tried again with all others.
		_, err := p.poll(ctx, time.Now(), fresh, emit, false)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errEmit):
			return nil, err
		case err != nil:
			p.phase(presence.PhaseDegraded, err.Error())
		}
	}
}

// Poll asks about the subjects once and gives a complete account of them at the
// moment now. Where a server fails, there is no report about its subjects: what
// was said of them before still counts. The error tells of all servers that
// failed, and is permanent if one does not accept the password; the reports
// that come with it are good.
func (p *poller) Poll(ctx context.Context, now time.Time, subjects []presence.Subject) ([]presence.Report, error) {
	var mu sync.Mutex
	var reports []presence.Report
	_, err := p.poll(ctx, now, subjects, func(r presence.Report) error {
		mu.Lock()
		defer mu.Unlock()
		reports = append(reports, r)
		return nil
	}, false)
	order := make(map[presence.Subject]int, len(subjects))
	for i, s := range subjects {
		order[s] = i
	}
	slices.SortFunc(reports, func(a, b presence.Report) int { return order[a.Subject] - order[b.Subject] })
	return reports, err
}

var errEmit = errors.New("a report was not taken")

// poll is Poll for Run. Alive tells whether any server could be asked.
func (p *poller) poll(ctx context.Context, now time.Time, subjects []presence.Subject, emit func(presence.Report) error, first bool) (alive bool, err error) {
	p.serial.Lock()
	defer p.serial.Unlock()
	now = now.UTC()
	if p.passwordFile != "" {
		password, err := p.passwordFile.Read()
		if err != nil {
			return false, presence.Permanent(err)
		}
		if p.connection.SetPassword(password) {
			p.reopen()
		}
	}
	p.release(now)

	tell := func(s presence.Subject, spans []presence.Span) error {
		if first {
			p.progress()
		}
		err := emit(presence.Report{
			Source: p.name, Subject: s, At: now, Doubted: now.Add(2*p.interval + p.interval/4), Expires: now.Add(life), Grace: life, Spans: spans,
		})
		if err != nil {
			return fmt.Errorf("%w: %w", errEmit, err)
		}
		return nil
	}
	if first {
		p.syncing(len(subjects))
	}
	visits := make(map[string]*visit)
	for _, s := range subjects {
		server, err := p.locate(s)
		if err != nil {
			p.park(s, "without a server", err.Error(), now)
			if err := tell(s, nil); err != nil {
				return true, err
			}
			continue
		}
		if visits[server] == nil {
			visits[server] = &visit{poller: p, gate: p.gate(server), now: now, tell: tell}
		}
		visits[server].subjects = append(visits[server].subjects, s)
	}
	names := slices.Sorted(maps.Keys(visits))
	errs := make([]error, len(names))
	var group errgroup.Group
	for i, name := range names {
		group.Go(func() error {
			errs[i] = visits[name].run(ctx)
			return nil
		})
	}
	_ = group.Wait()
	return len(names) == 0 || slices.Contains(errs, nil), errors.Join(errs...)
}

// gate gives what is known of a server.
func (p *poller) gate(server string) *gate {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.gates[server]
	if g == nil {
		g = &gate{server: server}
		p.gates[server] = g
	}
	return g
}

// reopen lets all servers be asked again: the password is another one.
func (p *poller) reopen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for server := range p.gates {
		p.gates[server] = &gate{server: server}
	}
}

// release lets subjects be asked about again whose time is over.
func (p *poller) release(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.parked, func(_ presence.Subject, k parked) bool { return !now.Before(k.until) })
}

// park leaves a subject alone for a while. It is logged once.
func (p *poller) park(s presence.Subject, kind, why string, now time.Time) {
	if !p.isParked(s) {
		p.log.Warn("not covered", "subject", s.String(), "why", why)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parked[s] = parked{kind: p.what + " " + kind, why: why, until: now.Add(parking)}
}

func (p *poller) isParked(s presence.Subject) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.parked[s]
	return ok
}

func (p *poller) uncovered() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.parked)
}

// problem counts what went wrong with one subject, without an end to its coverage.
func (p *poller) problem(s presence.Subject, kind string, err error) {
	p.log.Warn(kind, "subject", s.String(), "err", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(kind, 1)
	p.status.LastError, p.status.LastErrorAt = kind+": "+err.Error(), time.Now()
}

// skipped counts entries that could not be read.
func (p *poller) skipped(s presence.Subject, n int) {
	if n == 0 {
		return
	}
	p.log.Warn("entries malformed", "subject", s.String(), "count", n)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count("entries malformed", n)
}

func (p *poller) count(kind string, n int) {
	if p.status.Problems == nil {
		p.status.Problems = make(map[string]int)
	}
	p.status.Problems[kind] += n
}

func (p *poller) phase(phase presence.Phase, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Phase, p.status.Detail, p.status.Done, p.status.Total = phase, detail, 0, 0
}

func (p *poller) syncing(total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Phase, p.status.Detail, p.status.Done, p.status.Total = presence.PhaseSyncing, "reads "+p.what, 0, total
}

func (p *poller) progress() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Done++
}

// ended says why Run is over.
func (p *poller) ended(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Phase, p.status.Done, p.status.Total = presence.PhaseDegraded, 0, 0
	if err != nil && !errors.Is(err, context.Canceled) {
		p.status.Detail, p.status.LastError, p.status.LastErrorAt = err.Error(), err.Error(), time.Now()
	}
}
