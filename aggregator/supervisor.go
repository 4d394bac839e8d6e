package aggregator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"presenced/aggregator/lease"
	"presenced/aggregator/presence"
)

// A Supervisor runs sources and bridges, each again when it ends: later each
// time, soon again after it fared well for a while, and at most once in five
// minutes where trying is useless. Parts are added before Run is called or while
// it runs. All methods may be called from any goroutine.
type Supervisor struct {
	hub  *Hub
	jobs Jobs // nil: there is no other machine
	log  *slog.Logger

	mu    sync.Mutex
	parts []*part
	other []*statusOnly
	start func(*part) // nil: Run is not called yet, or ends
}

// Jobs has one machine at a time run a job; a lease.Keeper is one.
type Jobs interface {
	// Hold waits until this machine may run the job, runs it, lets others have it
	// when run has returned, and gives its error. The context of run ends early
	// when this machine may not run it any more.
	Hold(ctx context.Context, job string, run func(context.Context) error) error
	// Join runs beside a job of this machine, while that may run, and before others
	// may.
	Join(ctx context.Context, job string, run func(context.Context) error) error
	// Machine gives the name of this machine in Holdings.
	Machine() string
	// Holdings tells who runs which job, which of them run here, whether that is
	// known yet, and gives a channel that is closed at the next change.
	Holdings() (all map[string]lease.Holding, mine map[string]bool, known bool, changed <-chan struct{})
}

// Share has the sources, and the bridges of AddJob, run on one machine at a time
// among those that share jobs. It is to be called before anything is added.
func (v *Supervisor) Share(jobs Jobs) { v.jobs = jobs }

// statusOnly is something that the supervisor shows, but does not run.
type statusOnly struct {
	name   string
	kind   Kind
	status func() presence.Status
	poll   func() // nil: it does not poll
	asked  time.Time
}

// A part is one supervised source or bridge.
type part struct {
	name string
	kind Kind
	run  func(context.Context) error
	self func() presence.Status // nil: the part says nothing of itself
	jobs Jobs                   // nil: it runs on every machine
	with string                 // the job of the machine on which it is to run; empty: any
	poll func()                 // nil: the part does not poll
	log  *slog.Logger
	now  chan struct{} // holds a token where the next try is not to wait

	stop context.CancelFunc // nil: not started; under the lock of the supervisor
	done chan struct{}      // closed when it was stopped for good

	mu       sync.Mutex
	waiting  bool // for its turn among the machines
	running  bool
	started  time.Time // of this run
	lost     time.Time // when it ended, if it was live before
	lastErr  error
	errAt    time.Time
	asked    time.Time // when PollNow had it look last
	success  time.Time
	restarts int
	next     time.Time
	reports  uint64
	grace    time.Duration // the longest of its reports
	phase    presence.Phase
	since    time.Time
}

// The times of the supervisor.
const (
	firstWait     = time.Second
	longestWait   = time.Minute
	permanentWait = 5 * time.Minute
	healthyRun    = time.Minute // a run of this length makes the next wait the first again
)

// NewSupervisor makes a supervisor without parts.
func NewSupervisor(hub *Hub, log *slog.Logger) *Supervisor {
	return &Supervisor{hub: hub, log: log}
}

// AddSource adds a source.
func (v *Supervisor) AddSource(s Source) { v.addSource(s, "") }

// AddSourceWith adds a source that is to run on the machine that runs the bridge of this
// name, which was given to AddJob or will be.
func (v *Supervisor) AddSourceWith(bridge string, s Source) { v.addSource(s, bridge) }

func (v *Supervisor) addSource(s Source, with string) {
	p := v.part(s.Name(), KindSource, s)
	p.jobs, p.with = v.jobs, with
	p.run = func(ctx context.Context) error {
		defer func() { v.hub.Lost(p.name, time.Now()) }()
		return s.Run(ctx, v.hub, func(r presence.Report) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.reported(r)
			if err := v.hub.Report(ctx, r); err != nil && !errors.Is(err, errStranger) {
				return err
			}
			return nil
		})
	}
	v.add(p)
}

// AddBridge adds a bridge, which runs on every machine: where there are others, the
// sources that its endpoints are have the name of this one after them. No other one may
// have its name until RemoveBridge returned.
func (v *Supervisor) AddBridge(b Bridge) {
	var hub presence.Hub = v.hub
	if v.jobs != nil {
		hub = &endpoints{v.hub, v.jobs.Machine()}
	}
	v.addBridge(b, nil, hub)
}

// AddJob is AddBridge for a bridge that one machine is to run.
func (v *Supervisor) AddJob(b Bridge) { v.addBridge(b, v.jobs, v.hub) }

func (v *Supervisor) addBridge(b Bridge, jobs Jobs, hub presence.Hub) {
	p := v.part(b.Name(), KindBridge, b)
	p.jobs = jobs
	p.run = func(ctx context.Context) error { return b.Run(ctx, hub) }
	v.add(p)
}

// RemoveBridge stops the bridge of this name, waits until its Run has returned, and
// forgets it. One that is not there is no error.
func (v *Supervisor) RemoveBridge(name string) { v.remove(KindBridge, name) }

// RemoveSource does the same to a source, whose reports then count as those of a lost
// one.
func (v *Supervisor) RemoveSource(name string) { v.remove(KindSource, name) }

func (v *Supervisor) remove(kind Kind, name string) {
	v.mu.Lock()
	i := slices.IndexFunc(v.parts, func(p *part) bool { return p.kind == kind && p.name == name })
	if i < 0 {
		v.mu.Unlock()
		return
	}
	p := v.parts[i]
	v.parts = slices.Delete(v.parts, i, i+1)
	stop := p.stop
	v.mu.Unlock()
	if stop != nil {
		stop()
		<-p.done
	}
}

// TryNow ends the wait of the source or bridge of this name, if it waits to be run
// again: something has changed.
func (v *Supervisor) TryNow(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range v.parts {
		if p.name == name {
			p.wake()
		}
	}
}

// What is wrong with a request to look at once.
var (
	ErrNoPart    = errors.New("there is no part of this name")
	ErrNotPolled = errors.New("there is nothing to poll: it says by itself what changes")
	ErrTooSoon   = errors.New("it is not asked that often")
	ErrElsewhere = errors.New("it runs on another machine; ask there")
)

// pollPause is how long a part is left alone that PollNow had look.
const pollPause = 10 * time.Second

// PollNow has a part look at once. One that polls (it implements interface{ PollNow() },
// which must not block) asks about everybody again; one that waits to be run again is
// run. It fails with ErrNoPart, ErrNotPolled, ErrElsewhere, or ErrTooSoon: a part is
// asked to at most once in ten seconds, and one that a server has refused for good is
// left waiting, lest an account be locked, unless it polls and so sees to that itself.
func (v *Supervisor) PollNow(name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	for _, p := range v.parts {
		if p.name == name {
			return p.pollNow(now)
		}
	}
	for _, o := range v.other {
		switch {
		case o.name != name:
		case o.poll == nil:
			return ErrNotPolled
		default:
			if err := pause(&o.asked, now); err != nil {
				return err
			}
			o.poll()
			return nil
		}
	}
	return ErrNoPart
}

func (p *part) pollNow(now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch waits := !p.next.IsZero(); {
	case p.waiting:
		return ErrElsewhere
	case p.poll == nil && !waits:
		return ErrNotPolled
	case p.poll == nil && presence.IsPermanent(p.lastErr):
		return fmt.Errorf("%w: it was refused, and is tried again in %s by itself", ErrTooSoon, p.next.Sub(now).Round(time.Second))
	}
	if err := pause(&p.asked, now); err != nil {
		return err
	}
	if p.poll != nil {
		p.poll()
	}
	if !p.next.IsZero() {
		p.wake()
	}
	return nil
}

// pause notes that a part is asked now, unless it was asked a moment ago.
func pause(asked *time.Time, now time.Time) error {
	if wait := asked.Add(pollPause).Sub(now); wait > 0 {
		return fmt.Errorf("%w: it was asked just now; wait %s", ErrTooSoon, wait.Round(time.Second))
	}
	*asked = now
	return nil
}

// wake ends the wait of a part, or the one that begins next.
func (p *part) wake() {
	select {
	case p.now <- struct{}{}:
	default:
	}
}

// AddStatus has Health show something that the supervisor does not run. status
// must not block.
func (v *Supervisor) AddStatus(name string, kind Kind, status func() presence.Status) {
	v.addStatus(statusOnly{name: name, kind: kind, status: status})
}

// AddPolled is AddStatus for something that looks at once when poll is called, as
// PollNow does; poll must not block.
func (v *Supervisor) AddPolled(name string, kind Kind, status func() presence.Status, poll func()) {
	v.addStatus(statusOnly{name: name, kind: kind, status: status, poll: poll})
}

func (v *Supervisor) addStatus(o statusOnly) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.other = append(v.other, &o)
}

func (v *Supervisor) part(name string, kind Kind, self any) *part {
	p := &part{
		name: name, kind: kind, log: v.log.With(string(kind), name), phase: presence.PhaseConnecting, since: time.Now(),
		now: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if s, ok := self.(interface{ Status() presence.Status }); ok {
		p.self = s.Status
	}
	if s, ok := self.(interface{ PollNow() }); ok {
		p.poll = s.PollNow
	}
	return p
}

// add adds p, and starts it if the supervisor runs.
func (v *Supervisor) add(p *part) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.parts = append(v.parts, p)
	if v.start != nil {
		v.start(p)
	}
}

// Run runs all parts until ctx ends and all of them have stopped.
func (v *Supervisor) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	v.mu.Lock()
	v.start = func(p *part) {
		var own context.Context
		own, p.stop = context.WithCancel(ctx)
		g.Go(func() error {
			defer close(p.done)
			p.supervise(own)
			return nil
		})
	}
	for _, p := range v.parts {
		v.start(p)
	}
	v.mu.Unlock()
	g.Go(func() error {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				v.mu.Lock()
				defer v.mu.Unlock()
				v.start = nil // no part is added to a group that may be waited for already
				return nil
			case <-tick.C:
				v.Health() // notices when a phase begins
			}
		}
	})
	return g.Wait()
}

func (p *part) supervise(ctx context.Context) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = firstWait, longestWait
	for ctx.Err() == nil {
		var wait time.Duration
		try := func(ctx context.Context) error {
			p.begin(time.Now())
			err := p.once(ctx)
			now := time.Now()
			switch {
			case errors.Is(context.Cause(ctx), lease.ErrLost):
				err = lease.ErrLost
			case err == nil:
				err = errors.New("ended without saying why")
			}
			wait = pause.NextBackOff()
			switch {
			case presence.IsPermanent(err):
				wait = permanentWait + rand.N(permanentWait/10) //nolint:gosec // jitter
			case now.Sub(p.started) > healthyRun:
				pause.Reset()
				wait = pause.NextBackOff()
			}
			p.end(ctx, err, now, wait)
			if p.jobs != nil && presence.IsPermanent(err) { // the other machines are not to try that, too
				p.sleep(ctx, wait)
				wait = 0
			}
			return err
		}
		if p.jobs == nil {
			_ = try(ctx)
		} else {
			p.await()
			_ = p.turn(ctx, try)
		}
		p.sleep(ctx, wait)
	}
}

func (p *part) sleep(ctx context.Context, wait time.Duration) {
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-p.now:
	case <-timer.C:
	}
}

// turn waits for the turn of the part among the machines, and tries.
func (p *part) turn(ctx context.Context, try func(context.Context) error) error {
	if p.with == "" {
		return p.jobs.Hold(ctx, p.name, try)
	}
	return p.jobs.Join(ctx, p.with, func(ctx context.Context) error { return p.jobs.Hold(ctx, p.name, try) })
}

// await notes that the part waits for its turn among the machines.
func (p *part) await() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = true
}

// once runs the part; a panic of one part must not end the others.
func (p *part) once(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			p.log.Error("panic", "value", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v", r)
		}
	}()
	return p.run(ctx)
}

func (p *part) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting, p.running, p.started, p.next = false, true, now, time.Time{}
	select {
	case <-p.now: // it is tried
	default:
	}
}

func (p *part) end(ctx context.Context, err error, now time.Time, wait time.Duration) {
	if ctx.Err() != nil && !errors.Is(err, lease.ErrLost) { // it was told to
		return
	}
	p.log.WarnContext(ctx, "stopped, will be tried again", "error", err, "wait", wait.Round(time.Millisecond))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost.IsZero() && !p.success.IsZero() {
		p.lost = now
	}
	p.running, p.lastErr, p.errAt, p.next = false, err, now, now.Add(wait)
	p.restarts++
}

func (p *part) reported(r presence.Report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reports++
	p.success = time.Now()
	p.grace = max(p.grace, r.Grace)
}

// health gives the part's own words while it runs, and the supervisor's while it waits.
func (p *part) health(now time.Time) Health {
	var own presence.Status
	p.mu.Lock()
	running := p.running
	p.mu.Unlock()
	if p.self != nil { // outside the lock: it is the part's code
		own = p.self()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.waiting:
		own = presence.Status{Phase: presence.PhaseStandby, Detail: p.elsewhere()}
	case running && p.self == nil:
		own.Phase = presence.PhaseLive
	case !running && p.lost.IsZero():
		own.Phase = presence.PhaseConnecting
	case !running && now.Before(p.lost.Add(p.grace)):
		own.Phase = presence.PhaseDegraded
	case !running:
		own.Phase = presence.PhaseStale
	}
	if own.Phase == presence.PhaseLive {
		p.success, p.lost = now, time.Time{}
	}
	if own.Phase != p.phase {
		p.phase, p.since = own.Phase, now
	}
	if p.lastErr != nil && (own.LastError == "" || p.errAt.After(own.LastErrorAt)) {
		own.LastError, own.LastErrorAt = p.lastErr.Error(), p.errAt
	}
	return Health{
		Name: p.name, Kind: p.kind, Status: own, Since: p.since, LastSuccess: p.success,
		Restarts: p.restarts, NextTry: p.next, Reports: p.reports, Polls: p.poll != nil && !p.waiting,
	}
}

// elsewhere says where the part runs.
func (p *part) elsewhere() string {
	all, mine, known, _ := p.jobs.Holdings()
	switch h, held := all[p.name]; {
	case !known:
		return "waits for the store, which says who runs it"
	case held && !mine[p.name]:
		return fmt.Sprintf("held by %s since %s", h.Node, h.Since.Local().Format("2006-01-02 15:04:05"))
	default:
		return "no machine runs it at the moment"
	}
}

// Health tells how every part fares, sources first, then by name; it also shows
// what AddStatus was told of, and the recorder as the store.
func (v *Supervisor) Health() []Health {
	now := time.Now()
	v.mu.Lock()
	parts, other := slices.Clone(v.parts), slices.Clone(v.other)
	v.mu.Unlock()
	var all []Health
	for _, p := range parts {
		all = append(all, p.health(now))
	}
	for _, o := range other {
		all = append(all, Health{Name: o.name, Kind: o.kind, Status: o.status(), Polls: o.poll != nil})
	}
	if r := v.hub.recorder; r != nil {
		all = append(all, Health{Name: "store", Kind: KindStore, Status: r.Status()})
	}
	slices.SortStableFunc(all, func(a, b Health) int {
		if a.Kind != b.Kind {
			return strings.Compare(kindOrder(a.Kind), kindOrder(b.Kind))
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all
}

func kindOrder(k Kind) string {
	if k == KindSource {
		return ""
	}
	return string(k)
}
