package mqtt

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/outbox"
)

// Scheme is the scheme of a broker as a watcher: mqtt:NAME.
const Scheme = "mqtt"

// What the broker does not take is tried again after these waits, for so long.
const (
	firstWait   = 5 * time.Second
	longestWait = 5 * time.Minute
	giveUp      = 24 * time.Hour
)

// settleTime is how long the hub is silent when everybody was given.
const settleTime = 250 * time.Millisecond

// A Publisher publishes to one broker. Its methods may be called from several
// goroutines, Run from one at a time.
type Publisher struct {
	cfg   Config
	gate  presence.Gate
	log   *slog.Logger
	again chan struct{} // everybody is to be looked at again

	patience time.Duration // for an answer of the broker

	mu       sync.Mutex
	box      *outbox.Box // nil: not connected
	heard    time.Time   // when the hub last spoke
	settled  bool        // everybody was published once
	problems map[string]int
	failed   string // the last error
	failedAt time.Time
}

// New makes a publisher; cfg must have passed Check. The gate is asked about the
// watcher mqtt:NAME.
func New(cfg Config, gate presence.Gate, log *slog.Logger) *Publisher {
	return &Publisher{cfg: cfg, gate: gate, log: log.With("bridge", cfg.Name), again: make(chan struct{}, 1), patience: packetTime, problems: map[string]int{}}
}

// Name implements aggregator.Bridge.
func (p *Publisher) Name() string { return p.cfg.Name }

// Run connects, publishes everybody, then what changes, until ctx ends or the
// connection does. A refused user and a certificate that cannot be read are
// permanent.
func (p *Publisher) Run(ctx context.Context, hub presence.Hub) error {
	err := p.run(ctx, hub)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.box = nil
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("mqtt %s: %w", p.cfg.Name, err)
		p.failed, p.failedAt = err.Error(), time.Now()
	}
	return err
}

// A result is what came of an attempt.
type result struct {
	attempt outbox.Attempt
	outcome outbox.Outcome
	why     string
	err     error // the connection is of no use any more
}

func (p *Publisher) run(parent context.Context, hub presence.Hub) error {
	ctx, cancel := context.WithCancel(parent) // as long as the connection
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	retained := make(chan presence.ID)
	l, err := connect(ctx, &p.cfg, p.patience, func(topic string, payload []byte) {
		if id, ok := p.cfg.theirs(topic, payload); ok {
			select {
			case retained <- id:
			case <-ctx.Done():
			}
		}
	})
	if err != nil {
		return err
	}
	defer func() {
		cancel() // who waits with a retained message lets go
		l.close()
	}()
	workers.Go(func() {
		select {
		case <-l.client.Done():
			cancel()
		case <-ctx.Done():
		}
	})
	if _, why, err := l.publish(ctx, p.cfg.availability(), []byte(online)); err != nil {
		return l.why(err)
	} else if why != "" {
		p.problem("messages refused", why)
	}

	p.mu.Lock()
	p.box = outbox.NewBox(outbox.Terms{InFlight: maxUnacked / 2, Rate: p.cfg.Rate, First: firstWait, Longest: longestWait, GiveUp: giveUp, Jitter: rand.Float64})
	p.heard, p.settled = time.Now(), false
	p.mu.Unlock()
	audience := outbox.NewAudience(p.cfg.People, p.gate, Scheme, p.cfg.Name)
	defer audience.Close()
	var feed outbox.Feed
	defer feed.Close()
	begin := func() {
		feed.Begin(ctx, hub)
		p.mu.Lock()
		defer p.mu.Unlock()
		audience.Withdraw(hub, p.box, time.Now())
	}
	begin()
	workers.Go(func() {
		if err := l.subscribe(ctx, p.cfg.Prefix+"/+"); err != nil && ctx.Err() == nil {
			p.problem("retained messages not seen", fmt.Sprintf("people who left while presenced was away stay at the broker: it does not let %s be subscribed to: %v", p.cfg.Prefix+"/+", err))
		}
	})

	results := make(chan result)
	announced := map[presence.ID]string{} // to Home Assistant, by what name
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due := p.send(time.Now(), func(a outbox.Attempt) {
			name := nameIn(a.Content)
			before, ok := announced[a.Person]
			tell := p.cfg.HomeAssistant && (!ok || name != before || a.Content == nil)
			announced[a.Person] = name
			workers.Go(func() {
				r := p.publish(ctx, l, a, name, tell)
				select {
				case results <- r:
				case <-ctx.Done():
				}
			})
		})
		timer.Stop()
		if !due.IsZero() {
			timer.Reset(max(0, time.Until(due)))
		}
		select {
		case <-parent.Done():
			return parent.Err()
		case err := <-l.lost:
			return err
		case s := <-feed.States:
			content := audience.Document(hub, s)
			p.mu.Lock()
			p.heard = time.Now()
			p.box.Set(s.Person, content, p.heard)
			p.mu.Unlock()
		case id := <-retained:
			p.mu.Lock()
			p.box.Know(id)
			if !audience.Has(hub, id) {
				p.box.Set(id, nil, time.Now())
			}
			p.mu.Unlock()
		case r := <-results:
			if r.err != nil {
				return l.why(r.err)
			}
			if r.outcome != outbox.Accepted || r.attempt.Content == nil {
				delete(announced, r.attempt.Person)
			}
			p.done(&r)
		case <-p.again:
			begin()
		case <-timer.C:
		}
	}
}

// nameIn gives the name that stands in a document.
func nameIn(content []byte) string {
	var d outbox.Document
	_ = json.Unmarshal(content, &d) // of our own making, or empty
	return d.Name
}

// publish makes one attempt. Home Assistant is told of a sensor before it has a state,
// and that there is none any more before the state goes.
func (p *Publisher) publish(ctx context.Context, l *link, a outbox.Attempt, name string, tell bool) result {
	r := result{attempt: a}
	if tell {
		var payload []byte
		if a.Content != nil {
			payload = p.cfg.announce(a.Person, name)
		}
		if r.outcome, r.why, r.err = l.publish(ctx, p.cfg.discovery(a.Person), payload); r.err != nil || r.outcome != outbox.Accepted {
			return r
		}
	}
	r.outcome, r.why, r.err = l.publish(ctx, p.cfg.topic(a.Person), a.Content)
	return r
}

// send starts what may be sent now, and says when there may be more.
func (p *Publisher) send(now time.Time, start func(outbox.Attempt)) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		a, ok := p.box.Next(now)
		if !ok {
			p.box.Touched() // the broker remembers
			return p.box.Due()
		}
		start(a)
	}
}

// done takes what came of an attempt.
func (p *Publisher) done(r *result) {
	p.mu.Lock()
	p.box.Done(r.attempt, r.outcome, 0, r.why, time.Now())
	p.mu.Unlock()
	if r.outcome != outbox.Accepted {
		p.problem("messages refused", r.why)
	}
}

// problem counts, and logs the first of a kind and then every hundredth.
func (p *Publisher) problem(kind, why string) {
	p.mu.Lock()
	p.problems[kind]++
	n := p.problems[kind]
	p.failed, p.failedAt = why, time.Now()
	p.mu.Unlock()
	if n <= 10 || n%100 == 0 {
		p.log.Warn(kind, "error", why, "count", n)
	}
}

// Status does not block.
func (p *Publisher) Status() presence.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	address, _, _ := p.cfg.broker()
	s := presence.Status{
		Phase: presence.PhaseConnecting, Detail: "not connected to " + address, Problems: maps.Clone(p.problems), LastError: p.failed, LastErrorAt: p.failedAt,
	}
	if p.box == nil {
		return s
	}
	b := p.box.Standing()
	p.settled = p.settled || b.Waiting == 0 && time.Since(p.heard) >= settleTime
	switch {
	case b.Refused+b.Dead > 0:
		s.Phase, s.Detail = presence.PhaseDegraded, fmt.Sprintf("%s refuses what is about %d of %d people", address, b.Refused+b.Dead, b.Known)
	case !p.settled:
		s.Phase, s.Detail, s.Done, s.Total = presence.PhaseSyncing, "publishing everybody to "+address, b.Known-b.Waiting, b.Known
	default:
		s.Phase, s.Detail = presence.PhaseLive, fmt.Sprintf("%s retains %d people", address, b.Known)
	}
	return s
}

// Review looks at everybody again, as after a change of the directory that changed
// no state. It does not block.
func (p *Publisher) Review() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}
