package webhook

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"sync"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/outbox"
)

// Scheme is the scheme of a receiver as a watcher: webhook:NAME.
const Scheme = "webhook"

// The waits after failures, doubled from the first to the longest.
const (
	firstWait   = 2 * time.Second
	longestWait = 5 * time.Minute
)

// ErrNotRunning says that a hook has not started, waits to be started again, or runs on
// another machine.
var ErrNotRunning = errors.New("the webhook is not running here; presenced status says why")

// A Hook tells one receiver. Its methods may be called from several goroutines, Run
// from one at a time.
type Hook struct {
	cfg    Config
	memory Memory
	gate   presence.Gate
	log    *slog.Logger
	wake   chan struct{} // there is something to look at
	again  chan struct{} // everybody is to be looked at again

	transport http.RoundTripper // nil: the network

	mu       sync.Mutex
	box      *outbox.Box // nil: not running
	kept     string      // why nothing is sent any more, as the memory has it
	heard    time.Time   // when the hub last spoke
	settled  bool        // everybody was told once
	problems map[string]int
	failed   string // the last error
	failedAt time.Time
}

// New makes a hook; cfg must have passed Check. The memory is to be for this hook
// alone; the gate is asked about the watcher webhook:NAME.
func New(cfg Config, memory Memory, gate presence.Gate, log *slog.Logger) *Hook {
	return &Hook{
		cfg: cfg, memory: memory, gate: gate, log: log.With("bridge", cfg.Name),
		wake: make(chan struct{}, 1), again: make(chan struct{}, 1), problems: map[string]int{},
	}
}

// Name implements aggregator.Bridge.
func (h *Hook) Name() string { return h.cfg.Name }

// Run tells the receiver everything, then what changes, until ctx ends. A key or a
// certificate that cannot be read is permanent. A receiver that does not answer
// ends nothing.
func (h *Hook) Run(ctx context.Context, hub presence.Hub) error {
	err := h.run(ctx, hub)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.box = nil
	if err != nil && ctx.Err() == nil {
		h.failed, h.failedAt = err.Error(), time.Now()
	}
	return err
}

func (h *Hook) run(ctx context.Context, hub presence.Hub) error {
	var nonce [8]byte
	_, _ = rand.Read(nonce[:])
	s, err := newSender(&h.cfg, hex.EncodeToString(nonce[:]))
	if err != nil {
		return presence.Permanent(fmt.Errorf("webhook %s: %w", h.cfg.Name, err))
	}
	defer s.close()
	if h.transport != nil {
		s.client.Transport = h.transport
	}
	kept, err := h.memory.Load(ctx)
	if err != nil {
		return fmt.Errorf("webhook %s: whom the receiver knows cannot be read: %w", h.cfg.Name, err)
	}
	audience := outbox.NewAudience(h.cfg.People, h.gate, Scheme, h.cfg.Name)
	defer audience.Close()
	h.restore(kept)

	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	k := newKeeper(h.memory, func(err error) { h.problem("records not kept", err.Error()) })
	workers.Go(func() { k.run(ctx) })
	var feed outbox.Feed
	defer feed.Close()
	begin := func() {
		feed.Begin(ctx, hub)
		h.mu.Lock()
		defer h.mu.Unlock()
		audience.Withdraw(hub, h.box, time.Now())
	}
	results := make(chan verdict)
	timer := time.NewTimer(0)
	defer timer.Stop()
	begin()
	for {
		due := h.send(k, time.Now(), func(a outbox.Attempt) {
			workers.Go(func() {
				v := s.post(ctx, a)
				select {
				case results <- v:
				case <-ctx.Done():
				}
			})
		})
		timer.Stop()
		if !due.IsZero() {
			timer.Reset(max(0, time.Until(due)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case st := <-feed.States:
			content := audience.Document(hub, st)
			h.mu.Lock()
			h.heard = time.Now()
			h.box.Set(st.Person, content, h.heard)
			h.mu.Unlock()
		case v := <-results:
			h.done(&v)
		case <-h.again:
			begin()
		case <-h.wake:
		case <-timer.C:
		}
	}
}

// restore makes the box of what was kept.
func (h *Hook) restore(kept map[string][]byte) {
	box := outbox.NewBox(outbox.Terms{
		InFlight: h.cfg.InFlight, Rate: h.cfg.Rate, First: firstWait, Longest: longestWait, GiveUp: h.cfg.GiveUp, Jitter: mathrand.Float64,
	})
	gone := ""
	for key, value := range kept {
		var r outbox.Record
		if key == keyGone {
			box.Stop(string(value))
			gone = string(value)
		} else if json.Unmarshal(value, &r) == nil && key == personKey(r.Person) {
			box.Restore(r)
		} else {
			h.problem("records unreadable", key)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.box, h.kept, h.heard, h.settled = box, gone, time.Now(), false
}

// send starts what may be sent now, has kept what changed, and says when there may
// be more.
func (h *Hook) send(k *keeper, now time.Time, start func(outbox.Attempt)) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		a, ok := h.box.Next(now)
		if !ok {
			break
		}
		start(a)
	}
	for _, id := range h.box.Touched() {
		var value []byte
		if r, ok := h.box.Record(id); ok {
			value, _ = json.Marshal(r) // texts, numbers and times: cannot fail
		}
		k.add(personKey(id), value)
	}
	if why := h.box.Standing().Stopped; why != h.kept {
		h.kept = why
		var value []byte
		if why != "" {
			value = []byte(why)
		}
		k.add(keyGone, value)
	}
	return h.box.Due()
}

// done takes what came of a request.
func (h *Hook) done(v *verdict) {
	h.mu.Lock()
	now, dead := time.Now(), h.box.Standing().Dead
	h.box.Done(v.attempt, v.outcome, v.after, v.why, now)
	dead = h.box.Standing().Dead - dead
	if v.outcome != outbox.Accepted {
		h.failed, h.failedAt = v.why, now
	}
	if dead > 0 {
		h.problems["letters given up"] += dead
	}
	h.mu.Unlock()
	switch v.outcome {
	case outbox.Accepted:
	case outbox.Refused:
		h.problem("requests refused", v.why)
	case outbox.Gone:
		h.log.Error("the receiver wants nothing any more; it is not told of anything until presenced webhook retry", "error", v.why)
	default:
		h.problem("requests failed", v.why)
	}
}

// problem counts, and logs the first of a kind and then every hundredth.
func (h *Hook) problem(kind, why string) {
	h.mu.Lock()
	h.problems[kind]++
	n := h.problems[kind]
	h.mu.Unlock()
	if n <= 10 || n%100 == 0 {
		h.log.Warn(kind, "error", why, "count", n)
	}
}

// settleTime is how long the hub is silent when everybody was given.
const settleTime = 250 * time.Millisecond

// Status does not block.
func (h *Hook) Status() presence.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := presence.Status{Phase: presence.PhaseConnecting, Problems: maps.Clone(h.problems), LastError: h.failed, LastErrorAt: h.failedAt}
	if h.box == nil {
		s.Detail = "not running"
		return s
	}
	host, _ := h.cfg.host()
	b := h.box.Standing()
	h.settled = h.settled || b.Waiting == 0 && time.Since(h.heard) >= settleTime
	switch {
	case b.Stopped != "":
		s.Phase, s.Detail = presence.PhaseDisabled, fmt.Sprintf("%s; presenced webhook retry %s tries again", b.Stopped, h.cfg.Name)
	case b.Failing != "":
		s.Phase, s.Detail = presence.PhaseDegraded, fmt.Sprintf("%s: %s; %d people wait, next attempt at %s", host, b.Failing, b.Waiting, b.Pause.UTC().Format("15:04:05 MST"))
	case b.Refused+b.Dead > 0:
		s.Phase = presence.PhaseDegraded
		s.Detail = fmt.Sprintf("%s refuses what is about %d of %d people; %d given up, presenced webhook dead %s names them", host, b.Refused+b.Dead, b.Known, b.Dead, h.cfg.Name)
	case !h.settled:
		s.Phase, s.Detail = presence.PhaseSyncing, "telling "+host+" of everybody"
		s.Total = b.Known
		s.Done = b.Known - b.Waiting
	default:
		s.Phase, s.Detail = presence.PhaseLive, fmt.Sprintf("%s was told of %d people", host, b.Known)
	}
	return s
}

// Dead gives the dead letters, by person; ErrNotRunning.
func (h *Hook) Dead() ([]outbox.Letter, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.box == nil {
		return nil, ErrNotRunning
	}
	return h.box.Dead(), nil
}

// Retry tries dead letters again, of one person or all where id is empty, and a
// receiver that was gone or is left alone at once. It gives how many letters those
// are; ErrNotRunning.
func (h *Hook) Retry(id presence.ID) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.box == nil {
		return 0, ErrNotRunning
	}
	n := h.box.Retry(id, time.Now())
	signal(h.wake)
	return n, nil
}

// Review looks at everybody again, as after a change of the directory that changed
// no state. It does not block.
func (h *Hook) Review() { signal(h.again) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
