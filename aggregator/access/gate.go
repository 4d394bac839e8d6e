package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"presenced/aggregator/audit"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

// A Directory knows whom a subject belongs to. The call must not block.
type Directory interface {
	Person(subject presence.Subject) (presence.Person, bool)
}

// A Gate is the rules, who watches whom, and who waits to be let in. A change
// counts, and is acknowledged, only when its audit line and then the change itself
// are durable. Until what was set before the start could be read, nobody is shown
// to anybody but themselves. What was set of a person stays when they leave the
// directory, because a directory that failed must not open anything: Forget
// removes it. All methods may be called from any goroutine.
type Gate struct {
	config    Config
	terms     terms
	directory Directory
	memory    Memory
	shared    Shared            // nil: no other machine writes to the memory
	revisions map[string]uint64 // of the records that the store holds, as far as they are known
	trail     *audit.Trail
	changed   func(...presence.ID)
	log       *slog.Logger

	held     atomic.Pointer[folk]
	restored chan struct{} // closed when held is there
	turn     chan struct{} // holds a token while nobody changes held
	wake     chan struct{} // holds a token while the store is to be written

	mu       sync.Mutex
	watches  map[presence.ID]map[presence.Watcher]watch
	requests map[presence.ID]map[presence.Subject]Request
	waiting  int                  // requests in all
	refused  int                  // requests that had no room
	dirty    map[presence.ID]bool // whose requests the store does not hold as they are
	unsure   map[presence.ID]bool // whose record the store may hold otherwise
	failed   error                // why the store did not take or give something last
	failedAt time.Time
}

// What is wrong with a change, for callers that tell the kinds apart.
var (
	ErrNobody  = errors.New("nobody in the directory has this identifier")
	ErrUnfit   = errors.New("cannot be taken")
	ErrNotKept = errors.New("the store did not keep the change, so nothing has changed")
	ErrUnread  = errors.New("the access rules cannot be read from the store yet")
)

// The times of a Gate.
const (
	changeWait  = 5 * time.Second // how long a change waits for the store
	repairWait  = 2 * time.Second
	restoreWait = time.Minute
	repairPause = 5 * time.Second
)

// New makes a gate by c, which must have no problems. changed is called after a
// change with the people that it is about (none: everybody), and must not block.
// Restore is to be called before anybody asks.
func New(c Config, d Directory, memory Memory, trail *audit.Trail, changed func(...presence.ID), log *slog.Logger) *Gate {
	g := &Gate{
		config: c, terms: c.terms(), directory: d, memory: memory, trail: trail, changed: changed, log: log,
		turn: make(chan struct{}, 1), wake: make(chan struct{}, 1), restored: make(chan struct{}),
		watches: map[presence.ID]map[presence.Watcher]watch{}, requests: map[presence.ID]map[presence.Subject]Request{},
		dirty: map[presence.ID]bool{}, unsure: map[presence.ID]bool{},
	}
	g.turn <- struct{}{}
	return g
}

// Config gives what holds without any rule.
func (g *Gate) Config() Config { return g.config }

// Access implements presence.Gate. It takes no lock.
func (g *Gate) Access(w presence.Watcher, of presence.ID) presence.Access {
	return g.held.Load().resolve(&g.terms, g.directory.Person, w.Subject, of)
}

// Explain tells what a watcher may see of a person, and why.
func (g *Gate) Explain(watcher presence.Subject, of presence.ID) Explanation {
	return g.held.Load().explain(&g.terms, g.directory.Person, watcher, of)
}

// Restore reads what was set before the start. If it fails, Run tries again;
// nobody is shown and changes are refused until then.
func (g *Gate) Restore(ctx context.Context) error {
	select {
	case <-g.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { g.turn <- struct{}{} }()
	all, err := g.memory.Load(ctx)
	g.outcome(err)
	if err != nil {
		return fmt.Errorf("restore the access rules: %w", err)
	}
	f, requests := read(all, func(key string, err error) {
		g.log.ErrorContext(ctx, "what is kept of the access rules cannot be read; whom rules are about is shown to nobody", "key", key, "error", err)
	})
	g.mu.Lock()
	g.requests, g.waiting = requests, 0
	for _, of := range requests {
		g.waiting += len(of)
	}
	if g.held.Swap(f) == nil {
		close(g.restored)
	}
	g.settleAll()
	g.mu.Unlock()
	g.changed()
	return nil
}

// A Setting is everything that was set of a person, or of everybody.
type Setting struct {
	Of       presence.ID               `json:"of,omitempty"` // empty: everybody
	Rules    []Rule                    `json:"rules,omitempty"`
	Calendar *presence.CalendarPrivacy `json:"calendar,omitempty"`
	OptedIn  bool                      `json:"opted_in,omitempty"`
	Broken   bool                      `json:"broken,omitempty"` // it cannot be read: nobody is shown anything
	Left     bool                      `json:"left,omitempty"`   // the person is not in the directory
}

// Settings gives what was set: of everybody first, then by person. ErrUnread.
func (g *Gate) Settings() ([]Setting, error) {
	f := g.held.Load()
	if f == nil {
		return nil, ErrUnread
	}
	all := []Setting{g.setting(f.everybody)}
	for _, r := range f.people {
		all = append(all, g.setting(r))
	}
	slices.SortFunc(all, func(a, b Setting) int { return strings.Compare(string(a.Of), string(b.Of)) })
	return all, nil
}

// Setting gives what was set of a person. ErrUnread.
func (g *Gate) Setting(of presence.ID) (Setting, error) {
	f := g.held.Load()
	if f == nil {
		return Setting{Of: of}, ErrUnread
	}
	r := f.people[of]
	if r == nil {
		r = &record{Of: of}
	}
	return g.setting(r), nil
}

func (g *Gate) setting(r *record) Setting {
	s := Setting{Of: r.Of, Calendar: r.Calendar, OptedIn: r.OptedIn, Broken: r.broken, Left: r.Of != "" && !g.known(r.Of)}
	for _, rule := range r.Rules {
		s.Rules = append(s.Rules, *rule)
	}
	slices.SortFunc(s.Rules, func(a, b Rule) int {
		if a.For.Kind != b.For.Kind {
			return int(a.For.Kind) - int(b.For.Kind)
		}
		return strings.Compare(a.For.Name, b.For.Name)
	})
	return s
}

func (g *Gate) known(id presence.ID) bool {
	_, ok := g.directory.Person(presence.Subject{Scheme: directory.SchemeID, Value: string(id)})
	return ok
}

// Run keeps the store up to date until ctx ends: it writes requests, reads what
// Restore could not, and repairs what a failed change may have left.
func (g *Gate) Run(ctx context.Context) error {
	for {
		var again <-chan time.Time
		var timer *time.Timer
		if !g.tidy(ctx) {
			timer = time.NewTimer(repairPause)
			again = timer.C
		}
		select {
		case <-ctx.Done():
			if g.held.Load() != nil {
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), repairWait)
				defer cancel()
				g.tidy(last)
			}
			return nil
		case <-g.wake:
		case <-again:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// tidy tells whether nothing is left to do.
func (g *Gate) tidy(ctx context.Context) (done bool) {
	if g.held.Load() == nil {
		one, cancel := context.WithTimeout(ctx, restoreWait)
		defer cancel()
		if err := g.Restore(one); err != nil {
			if ctx.Err() == nil {
				g.log.ErrorContext(ctx, "the access rules are not back yet; nobody is shown", "error", err)
			}
			return false
		}
	}
	g.mu.Lock()
	var requests, records []presence.ID
	for of := range g.dirty {
		requests = append(requests, of)
	}
	for of := range g.unsure {
		records = append(records, of)
	}
	g.mu.Unlock()
	for _, of := range requests {
		if !g.keepRequests(ctx, of) {
			return false
		}
	}
	for _, of := range records {
		if !g.repair(ctx, of) {
			return false
		}
	}
	return true
}

// repair makes the store hold what counts.
func (g *Gate) repair(ctx context.Context, of presence.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, repairWait)
	defer cancel()
	select {
	case <-g.turn:
	case <-ctx.Done():
		return false
	}
	defer func() { g.turn <- struct{}{} }()
	if g.shared != nil {
		return g.look(ctx, of) == nil
	}
	return g.write(ctx, of, g.held.Load().of(of)) == nil
}

// write makes the store hold a record, and notes whether it does. The turn is held.
func (g *Gate) write(ctx context.Context, of presence.ID, r *record) error {
	err := func() error {
		switch {
		case r != nil && r.broken: // it is left as it is, until it is forgotten
			return nil
		case g.shared != nil:
			return g.writeShared(ctx, of, r)
		case r == nil || r.blank():
			return g.memory.Delete(ctx, recordKey(of))
		}
		data, err := encode(r)
		if err != nil {
			return err
		}
		return g.memory.Put(ctx, recordKey(of), data)
	}()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	g.outcome(err)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		delete(g.unsure, of)
	} else {
		g.unsure[of] = true
	}
	return err
}

func (g *Gate) outcome(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed = err
	if err != nil {
		g.failedAt = time.Now()
	}
}

func (g *Gate) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Status tells whether the rules are in force, and how the store takes them.
func (g *Gate) Status() presence.Status {
	f := g.held.Load()
	g.mu.Lock()
	defer g.mu.Unlock()
	s := presence.Status{Phase: presence.PhaseLive, Problems: map[string]int{}}
	if g.failed != nil {
		s.Phase, s.LastError, s.LastErrorAt = presence.PhaseDegraded, g.failed.Error(), g.failedAt
	}
	if g.refused > 0 {
		s.Problems["requests without room"] = g.refused
	}
	switch {
	case f == nil:
		s.Phase, s.Detail = presence.PhaseDegraded, "the access rules cannot be read yet: nobody is shown"
		return s
	case f.everybody.broken:
		s.Problems["rules that cannot be read"]++
	}
	rules := len(f.everybody.Rules)
	for _, r := range f.people {
		rules += len(r.Rules)
		if r.broken {
			s.Problems["rules that cannot be read"]++
		}
	}
	s.Detail = fmt.Sprintf("%d rules, %d requests wait", rules, g.waiting)
	switch {
	case f.everybody.broken:
		s.Phase, s.Detail = presence.PhaseDegraded, "the rules for everybody cannot be read: nobody is shown; \"presenced access forget --everyone\" removes them"
	case s.Problems["rules that cannot be read"] > 0:
		s.Phase = presence.PhaseDegraded
		s.Detail += "; people whose rules cannot be read are shown to nobody, \"presenced access list\" names them"
	case g.failed != nil:
		s.Detail += "; the store takes no changes"
	}
	return s
}
