package aggregator

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

// A Hub is the aggregator at work: cores sharded by person, each with its timer,
// the people of the directory, and the mailboxes of the watchers. It implements
// presence.Hub for bridges and presence.Roster for sources. All methods may be
// called from any goroutine.
type Hub struct {
	log      *slog.Logger
	recorder *Recorder // nil: nothing survives a restart
	seed     maphash.Seed
	shards   []*shard

	changing sync.Mutex // serialises SetDirectory
	people   atomic.Pointer[roll]

	// Strangers counts reports about subjects that are nobody known.
	strangers atomic.Uint64
}

// A roll is the directory, and the channel that is closed when another one takes its place.
type roll struct {
	*directory.Directory
	replaced chan struct{}
}

// A shard owns the core of some people. Its lock is held for the length of one
// decision; mailboxes never block.
type shard struct {
	mu   sync.Mutex
	core *Core
	all  []*mailbox                 // watchers of everybody
	some map[presence.ID][]*mailbox // watchers of one person
	wake chan struct{}              // the time of core.Next may have changed
}

// NewHub makes a hub without people. recorder may be nil.
func NewHub(policy *presence.Policy, recorder *Recorder, log *slog.Logger) *Hub {
	h := &Hub{log: log, recorder: recorder, seed: maphash.MakeSeed()}
	for range runtime.GOMAXPROCS(0) * 2 {
		h.shards = append(h.shards, &shard{core: NewCore(policy), some: map[presence.ID][]*mailbox{}, wake: make(chan struct{}, 1)})
	}
	h.people.Store(&roll{directory.Empty(), make(chan struct{})})
	return h
}

// Run moves time on until ctx ends: it changes states when their spans say so.
func (h *Hub) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range h.shards {
		g.Go(func() error {
			h.keepTime(ctx, s)
			return nil
		})
	}
	return g.Wait()
}

// sweep bounds how long a missed timer can last, as after a jump of the wall clock.
const sweep = 30 * time.Second

func (h *Hub) keepTime(ctx context.Context, s *shard) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
		s.mu.Lock()
		now := time.Now()
		for _, state := range s.core.Advance(now, nil) {
			h.deliver(s, state)
		}
		wait := sweep
		if next := s.core.Next(); !next.IsZero() {
			wait = min(wait, max(0, time.Until(next)))
		}
		s.mu.Unlock()
		timer.Reset(wait)
	}
}

func (h *Hub) shard(id presence.ID) *shard {
	return h.shards[maphash.String(h.seed, string(id))%uint64(len(h.shards))]
}

// deliver gives a state to whoever watches; s.mu is held.
func (h *Hub) deliver(s *shard, state presence.State) {
	for _, m := range s.all {
		m.put(state)
	}
	for _, m := range s.some[state.Person] {
		m.put(state)
	}
	if h.recorder != nil {
		h.recorder.state(state)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// nudge makes the shard's loop look at the time again.
func (s *shard) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// SetDirectory makes d the people that are known: new ones enter, others leave,
// and reports about subjects that changed hands are dropped.
func (h *Hub) SetDirectory(d *directory.Directory, now time.Time) {
	h.changing.Lock()
	defer h.changing.Unlock()
	old := h.people.Swap(&roll{d, make(chan struct{})})
	for _, s := range h.shards {
		s.mu.Lock()
		var gone []presence.ID
		s.core.Each(func(state presence.State) {
			if _, ok := d.Person(state.Person); !ok {
				gone = append(gone, state.Person)
			}
		})
		for _, id := range gone {
			if state, known := s.core.Leave(id, now); known {
				h.deliver(s, state)
			}
			if h.recorder != nil {
				h.recorder.forget(id)
			}
		}
		s.mu.Unlock()
	}
	for _, p := range d.People() {
		s := h.shard(p.ID)
		s.mu.Lock()
		if state, changed := s.core.Enter(p.ID, now); changed {
			h.deliver(s, state)
		}
		mine := func(subject presence.Subject) bool {
			owner, ok := d.Find(subject)
			return ok && owner.ID == p.ID
		}
		if state, changed := s.core.Keep(p.ID, mine, now); changed {
			h.deliver(s, state)
		}
		s.mu.Unlock()
	}
	close(old.replaced)
}

// Restore puts back what the recorder kept before a restart; the directory must
// be set. It is to be called before any source runs.
func (h *Hub) Restore(ctx context.Context, now time.Time) (people int, err error) {
	if h.recorder == nil {
		return 0, nil
	}
	kept, err := h.recorder.load(ctx)
	if err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	d := h.people.Load()
	for id, k := range kept {
		if _, known := d.Person(id); !known {
			h.recorder.forget(id)
			continue
		}
		k.reports = slices.DeleteFunc(k.reports, func(r presence.Report) bool {
			owner, ok := d.Find(r.Subject)
			return !ok || owner.ID != id
		})
		s := h.shard(id)
		s.mu.Lock()
		if state, changed := s.core.Restore(id, k.reports, k.state, now); changed {
			h.deliver(s, state)
		}
		s.mu.Unlock()
		people++
	}
	return people, nil
}

// Report implements presence.Hub. It never blocks for long: a decision takes
// about a microsecond, and the store is not on the path.
func (h *Hub) Report(_ context.Context, r presence.Report) error {
	if err := r.Check(); err != nil {
		return err
	}
	p, ok := h.people.Load().Find(r.Subject)
	if !ok {
		h.strangers.Add(1)
		return fmt.Errorf("report of %s: %w: %s", r.Source, errStranger, r.Subject)
	}
	s := h.shard(p.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	state, changed := s.core.Accept(p.ID, r, time.Now())
	if h.recorder != nil {
		h.recorder.report(p.ID, r)
	}
	if changed {
		h.deliver(s, state)
	} else {
		s.nudge()
	}
	return nil
}

var errStranger = errors.New("nobody in the directory has this subject")

// Strangers gives the number of reports that were about nobody known.
func (h *Hub) Strangers() uint64 { return h.strangers.Load() }

// Lost tells that a source has no link any more: what it said is doubted at once
// and expires after its grace.
func (h *Hub) Lost(source string, now time.Time) {
	for _, s := range h.shards {
		s.mu.Lock()
		for _, state := range s.core.Lost(source, now) {
			h.deliver(s, state)
		}
		s.mu.Unlock()
		s.nudge()
	}
}

// Watch implements presence.Hub.
func (h *Hub) Watch(ctx context.Context, who ...presence.ID) iter.Seq[presence.State] {
	return func(yield func(presence.State) bool) {
		m := newMailbox()
		defer h.enrol(m, who)()
		for {
			s, ok := m.take(ctx)
			if !ok || !yield(s) {
				return
			}
		}
	}
}

// enrol puts the current states into m and sees that changes follow; the result undoes it.
func (h *Hub) enrol(m *mailbox, who []presence.ID) (leave func()) {
	without := func(list []*mailbox) []*mailbox {
		return slices.DeleteFunc(list, func(other *mailbox) bool { return other == m })
	}
	if len(who) == 0 {
		for _, s := range h.shards {
			s.mu.Lock()
			s.all = append(s.all, m)
			s.core.Each(m.put)
			s.mu.Unlock()
		}
		return func() {
			for _, s := range h.shards {
				s.mu.Lock()
				s.all = without(s.all)
				s.mu.Unlock()
			}
		}
	}
	for _, id := range who {
		s := h.shard(id)
		s.mu.Lock()
		s.some[id] = append(s.some[id], m)
		if state, ok := s.core.State(id); ok {
			m.put(state)
		}
		s.mu.Unlock()
	}
	return func() {
		for _, id := range who {
			s := h.shard(id)
			s.mu.Lock()
			if s.some[id] = without(s.some[id]); len(s.some[id]) == 0 {
				delete(s.some, id)
			}
			s.mu.Unlock()
		}
	}
}

// Subjects implements presence.Roster.
func (h *Hub) Subjects(ctx context.Context, scheme string) iter.Seq[[]presence.Subject] {
	return func(yield func([]presence.Subject) bool) {
		var last []presence.Subject
		for first := true; ; first = false {
			r := h.people.Load()
			now := r.Subjects(scheme)
			if (first || !slices.Equal(now, last)) && !yield(now) {
				return
			}
			last = now
			select {
			case <-ctx.Done():
				return
			case <-r.replaced:
			}
		}
	}
}

// Person implements presence.Hub.
func (h *Hub) Person(subject presence.Subject) (presence.Person, bool) {
	return h.people.Load().Find(subject)
}

// People gives everybody in the directory, sorted by name; not to be changed.
func (h *Hub) People() []presence.Person { return h.people.Load().People() }

// State gives the state of a person.
func (h *Hub) State(id presence.ID) (presence.State, bool) {
	s := h.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.State(id)
}

// States gives the state of everybody, in no order.
func (h *Hub) States() []presence.State {
	var all []presence.State
	for _, s := range h.shards {
		s.mu.Lock()
		s.core.Each(func(state presence.State) { all = append(all, state) })
		s.mu.Unlock()
	}
	return all
}

// Explain gives the reasoning about a person at a time (zero: now), from the
// reports that are held now.
func (h *Hub) Explain(id presence.ID, at time.Time) (presence.Explanation, bool) {
	if at.IsZero() {
		at = time.Now()
	}
	s := h.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Explain(id, at)
}
