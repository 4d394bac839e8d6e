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
	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
)

// A Hub is the aggregator at work: cores sharded by person, each with its timer,
// the people of the directory, and the mailboxes of the watchers. It implements
// presence.Hub for bridges and presence.Roster for sources. All methods may be
// called from any goroutine.
type Hub struct {
	log      *slog.Logger
	recorder *Recorder        // nil: nothing survives a restart
	journal  *journal.Journal // nil: the past is forgotten
	seed     maphash.Seed
	shards   []*shard

	changing sync.Mutex // serialises SetDirectory and SetPolicy
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
	gone []*record                  // of those who left, not released yet

	apart int           // how many watchers leave out the reports of a source
	wake  chan struct{} // the time of core.Next may have changed
}

// NewHub makes a hub without people. recorder may be nil.
func NewHub(policy *presence.Policy, recorder *Recorder, log *slog.Logger) *Hub {
	h := &Hub{log: log, recorder: recorder, seed: maphash.MakeSeed()}
	shards := runtime.GOMAXPROCS(0) * 2
	for i := range shards {
		s := &shard{core: NewCore(policy), some: map[presence.ID][]*mailbox{}, wake: make(chan struct{}, 1)}
		s.core.people.first, s.core.people.step = uint32(i), uint32(shards) //nolint:gosec // there are not as many processors
		h.shards = append(h.shards, s)
	}
	h.people.Store(&roll{directory.Empty(), make(chan struct{})})
	if recorder != nil {
		recorder.current = h.State
	}
	return h
}

// KeepJournal has the hub write down in j what becomes known. It is to be called
// before anything else.
func (h *Hub) KeepJournal(j *journal.Journal) {
	h.journal = j
	for _, s := range h.shards {
		s.core.Remember()
	}
}

// unlock ends a change of the shard: what became known by it is written down.
func (h *Hub) unlock(s *shard) {
	if h.journal != nil {
		h.journal.Note(s.core.Notes()...)
	}
	s.mu.Unlock()
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
		timer.Reset(h.advance(s))
	}
}

// stride is how many people are decided before others get at the shard.
const stride = 500

// advance decides for people of the shard whose time has come, and gives the time
// until there are more.
func (h *Hub) advance(s *shard) time.Duration {
	s.mu.Lock()
	defer h.unlock(s)
	now := time.Now()
	for range stride {
		if !s.core.isDue(now) {
			break
		}
		if r, state, changed := s.core.step(now); changed {
			h.announce(s, r, state)
		} else {
			s.remindApart(r)
		}
	}
	s.core.calm(instantOf(now))
	next := s.core.Next()
	if next.IsZero() {
		return sweep
	}
	return min(sweep, max(0, time.Until(next)))
}

func (h *Hub) shard(id presence.ID) *shard {
	return h.shards[maphash.String(h.seed, string(id))%uint64(len(h.shards))]
}

// deliver gives the state of somebody known to whoever watches; s.mu is held.
func (h *Hub) deliver(s *shard, state presence.State) {
	h.announce(s, s.core.people.of(state.Person), state)
}

// announce is deliver for r, who may have left.
func (h *Hub) announce(s *shard, r *record, state presence.State) {
	s.remind(r)
	if h.recorder != nil {
		h.recorder.state(state)
	}
	s.nudge()
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
		s.release()
		for r := range s.core.people.all() {
			id := r.id()
			if d.Has(id) {
				continue
			}
			reports := s.core.Reports(id)
			state, _ := s.core.Leave(id, now)
			h.announce(s, r, state)
			s.gone = append(s.gone, r)
			if h.recorder != nil {
				h.recorder.forget(id, reports)
			}
		}
		h.unlock(s)
	}
	for p := range d.All() {
		s := h.shard(p.ID)
		s.mu.Lock()
		if state, changed := s.core.Enter(p.ID, now); changed {
			h.deliver(s, state)
		}
		mine := func(subject presence.Subject) bool {
			owner, ok := d.Owner(subject)
			return ok && owner == p.ID
		}
		if state, changed := s.core.Keep(p.ID, mine, now); changed {
			h.deliver(s, state)
		} else {
			s.remindApart(s.core.people.of(p.ID))
		}
		h.unlock(s)
	}
	close(old.replaced)
}

// release gives back the records of those who left, but for those whose leaving some
// watcher has not seen yet; s.mu is held.
func (s *shard) release() {
	s.gone = slices.DeleteFunc(s.gone, func(r *record) bool {
		waits := func(m *mailbox) bool { return m.holds(r) }
		if slices.ContainsFunc(s.all, waits) || slices.ContainsFunc(s.some[r.id()], waits) {
			return false
		}
		s.core.people.release(r)
		return true
	})
}

// Restore puts back what the recorder kept before a restart; the directory must
// be set. It is to be called before any source runs.
func (h *Hub) Restore(ctx context.Context, now time.Time) (people int, err error) {
	if h.recorder == nil {
		return 0, nil
	}
	d := h.people.Load()
	people, err = h.recorder.restore(ctx, func(id presence.ID, reports []presence.Report, last presence.State) bool {
		if !d.Has(id) {
			return false
		}
		reports = slices.DeleteFunc(reports, func(r presence.Report) bool {
			owner, ok := d.Owner(r.Subject)
			return !ok || owner != id
		})
		s := h.shard(id)
		s.mu.Lock()
		defer h.unlock(s)
		if state, changed := s.core.Restore(id, reports, last, now); changed {
			h.deliver(s, state)
		}
		return true
	})
	if err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	return people, nil
}

// Report implements presence.Hub. It never blocks for long: a decision takes
// about a microsecond, and the store is not on the path.
func (h *Hub) Report(_ context.Context, r presence.Report) error {
	if err := r.Check(); err != nil {
		return err
	}
	if r.Source == SourceManual {
		return errors.New("what is set by hand is set through Manual, which makes it durable first")
	}
	id, ok := h.people.Load().Owner(r.Subject)
	if !ok {
		h.strangers.Add(1)
		return fmt.Errorf("report of %s: %w: %s", r.Source, errStranger, r.Subject)
	}
	h.accept(id, r)
	return nil
}

// accept takes a report about a person. Manual keeps its own reports: they are not recorded.
func (h *Hub) accept(id presence.ID, r presence.Report) {
	s := h.shard(id)
	s.mu.Lock()
	defer h.unlock(s)
	state, changed := s.core.Accept(id, r, time.Now())
	if h.recorder != nil && r.Source != SourceManual && s.core.Taken() {
		h.recorder.report(id, r)
	}
	if changed {
		h.deliver(s, state)
	} else {
		s.remindApart(s.core.people.of(id))
		s.nudge()
	}
}

var errStranger = errors.New("nobody in the directory has this subject")

// Strangers gives the number of reports that were about nobody known.
func (h *Hub) Strangers() uint64 { return h.strangers.Load() }

// Lost tells that a source has no link any more: what it said is doubted at once
// and expires after its grace.
func (h *Hub) Lost(source string, now time.Time) { h.lost(saidBy(source), now) }

// lost is Lost for the reports that by picks.
func (h *Hub) lost(by func(presence.Report) bool, now time.Time) {
	for _, s := range h.shards {
		s.mu.Lock()
		for r := range s.core.people.all() {
			if state, changed := s.core.lose(r, by, now); changed {
				h.announce(s, r, state)
			} else {
				s.remindApart(r)
			}
		}
		h.unlock(s)
		s.nudge()
	}
}

// Watch implements presence.Hub.
func (h *Hub) Watch(ctx context.Context, who ...presence.ID) iter.Seq[presence.State] {
	return h.watch(ctx, "", who)
}

// watch is Watch without the reports of a source.
func (h *Hub) watch(ctx context.Context, without string, who []presence.ID) iter.Seq[presence.State] {
	return func(yield func(presence.State) bool) {
		m := newMailbox()
		m.without = without
		defer h.enrol(m, who)()
		for {
			r, ok := m.first(ctx)
			if !ok || !yield(h.take(m, r)) {
				return
			}
		}
	}
}

// take gives the state of r, who is the first in m, and takes r out of it. Under the
// lock of the shard no newer state can come in between and be given twice.
func (h *Hub) take(m *mailbox, r *record) presence.State {
	s := h.shards[int(r.number)%len(h.shards)]
	s.mu.Lock()
	defer s.mu.Unlock()
	m.drop()
	return s.core.shownWithout(r, m.without)
}

// enrol puts the current states into m and sees that changes follow; the result undoes it.
func (h *Hub) enrol(m *mailbox, who []presence.ID) (leave func()) {
	without := func(list []*mailbox) []*mailbox {
		return slices.DeleteFunc(list, func(other *mailbox) bool { return other == m })
	}
	apart := 0
	if m.without != "" {
		apart = 1
	}
	if len(who) == 0 {
		for _, s := range h.shards {
			s.mu.Lock()
			s.all = append(s.all, m)
			s.apart += apart
			for r := range s.core.people.all() {
				m.put(r)
			}
			s.mu.Unlock()
		}
		return func() {
			for _, s := range h.shards {
				s.mu.Lock()
				s.all = without(s.all)
				s.apart -= apart
				s.mu.Unlock()
			}
		}
	}
	for _, id := range who {
		s := h.shard(id)
		s.mu.Lock()
		s.some[id] = append(s.some[id], m)
		s.apart += apart
		if r := s.core.people.of(id); r != nil {
			m.put(r)
		}
		s.mu.Unlock()
	}
	return func() {
		for _, id := range who {
			s := h.shard(id)
			s.mu.Lock()
			s.apart -= apart
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

// People gives everybody in the directory, sorted by name.
func (h *Hub) People() []presence.Person {
	d := h.people.Load()
	return slices.AppendSeq(make([]presence.Person, 0, d.Len()), d.All())
}

// State gives the state of a person.
func (h *Hub) State(id presence.ID) (presence.State, bool) {
	s := h.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.State(id)
}

// States gives the state of everybody, in no order.
func (h *Hub) States() []presence.State {
	all := make([]presence.State, 0, h.people.Load().Len())
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
