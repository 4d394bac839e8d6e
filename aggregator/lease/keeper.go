// Package lease has one machine at a time run a job: each machine that runs presenced
// on the same store takes leases of jobs, renews them, and ends a job before anybody
// else may begin it.
package lease

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"presenced/aggregator/presence"
)

// A Bucket keeps the leases. A value that was not written for the time that New is
// told vanishes; every write is made only where the key still is as the writer knows
// it, and is durable when it returns without an error.
type Bucket interface {
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	Update(ctx context.Context, key string, value []byte, last uint64) (revision uint64, err error)
	Remove(ctx context.Context, key string, last uint64) error
	// Watch calls f with all that is there, then an empty key, then every change,
	// until ctx ends; a nil value was removed. All may come again.
	Watch(ctx context.Context, f func(key string, value []byte, revision uint64))
}

// A Holding says who runs a job.
type Holding struct {
	Node  string    `json:"node"`
	ID    string    `json:"id"`    // of the process
	Since time.Time `json:"since"` // by the clock of that machine
}

// A Keeper takes leases for one process, and knows who holds the others. All methods
// may be called from any goroutine.
type Keeper struct {
	self   Holding // since this process runs
	ttl    time.Duration
	bucket Bucket
	errs   Errors
	log    *slog.Logger

	mu       sync.Mutex
	seen     map[string]sighting // by key
	mine     map[string]*stay    // by job, those that run here
	changed  chan struct{}       // closed at the next change of who holds what
	known    bool                // everything that is there was seen once
	failed   error               // why the store did not take or give something last; nil after a success
	failedAt time.Time
}

// A stay is a job that runs here, with what has joined it.
type stay struct {
	Holding
	over   <-chan struct{} // closed when all of it is to end
	joined sync.WaitGroup
}

// A sighting is a lease as it was seen in the bucket.
type sighting struct {
	Holding
	revision uint64
	at       time.Time
}

// Errors are those of the bucket that a Keeper tells apart from no answer.
type Errors struct{ NotFound, Conflict error }

// ErrLost ends the context of a job whose lease could not be kept.
var ErrLost = errors.New("the lease of this job could not be renewed: another machine may run it")

// Keys of the bucket.
const (
	jobPrefix  = "job."
	nodePrefix = "node."
)

// New makes the Keeper of a machine, whose name no other one may have. ttl is how long
// a value lives in b.
func New(node string, ttl time.Duration, b Bucket, errs Errors, log *slog.Logger) *Keeper {
	return &Keeper{
		self: Holding{Node: node, ID: strconv.FormatUint(rand.Uint64(), 36), Since: time.Now().UTC().Round(0)}, //nolint:gosec // no secret
		ttl:  ttl, bucket: b, errs: errs, log: log,
		seen: map[string]sighting{}, mine: map[string]*stay{}, changed: make(chan struct{}),
	}
}

// Run makes this machine known to the others and follows who holds what, until ctx
// ends; then it says that this machine is gone. It is to outlive the jobs.
func (k *Keeper) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { k.bucket.Watch(ctx, k.sight) })
	group.Go(func() {
		for ctx.Err() == nil {
			if t := k.acquire(ctx, k.own(), ""); t != nil {
				_ = t.keep(ctx, func(ctx context.Context) error { <-ctx.Done(); return nil })
			}
		}
	})
	tick := time.NewTicker(k.ttl / 12)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			k.expire(time.Now())
		}
	}
}

// Hold waits until this machine has the lease of a job, calls run, gives the lease
// back when run has returned, and gives its error. The context of run ends when ctx
// does, or when the lease is lost (the error is then ErrLost): run has a fifth of the
// life of a lease to return. A machine takes a free job that is meant for another one
// only a moment later; who has a job keeps it, whoever else appears.
func (k *Keeper) Hold(ctx context.Context, job string, run func(context.Context) error) error {
	t := k.acquire(ctx, jobPrefix+hex.EncodeToString([]byte(job)), job)
	if t == nil {
		return ctx.Err()
	}
	k.log.InfoContext(ctx, "this machine runs the job", "job", job)
	defer k.note(func() { delete(k.mine, job) })
	return t.keep(ctx, func(ctx context.Context) error {
		ctx, end := context.WithCancel(ctx)
		s := &stay{Holding: t.Holding, over: ctx.Done()}
		k.note(func() { k.mine[job] = s })
		defer s.joined.Wait()
		defer k.note(end) // nobody joins any more
		return run(ctx)
	})
}

// Join waits until a job runs on this machine, and calls run once beside it. The context
// of run ends when ctx does, or when the job ends or is to; its lease is given back only
// when run has returned. Join gives the error of run, which is nothing to the job.
func (k *Keeper) Join(ctx context.Context, job string, run func(context.Context) error) error {
	for {
		s, changed := k.enter(job)
		if s != nil {
			defer s.joined.Done()
			ctx, end := context.WithCancel(ctx)
			defer end()
			go func() {
				select {
				case <-ctx.Done():
				case <-s.over:
					end()
				}
			}()
			return run(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// enter joins a job; nil: it does not run here, or ends.
func (k *Keeper) enter(job string) (s *stay, changed <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s = k.mine[job]; s != nil {
		select {
		case <-s.over:
			s = nil
		default:
			s.joined.Add(1)
		}
	}
	return s, k.changed
}

// A tenure is a lease that this machine holds, or tries to get.
type tenure struct {
	*Keeper
	claim
	Holding
	key string
}

// acquire waits for the lease of key; nil: ctx ended first. The caller has to keep it.
func (k *Keeper) acquire(ctx context.Context, key, job string) *tenure {
	t := &tenure{Keeper: k, claim: claim{ttl: k.ttl}, Holding: k.self, key: key}
	for {
		now := time.Now()
		free, preferred, changed := k.look(key, job, now)
		o, at := t.next(now, free, preferred)
		if key != k.own() && (o == opCreate || o == opRenew) {
			t.Since = now.UTC().Round(0)
		}
		t.do(ctx, o)
		switch {
		case ctx.Err() != nil:
			t.release(ctx)
			return nil
		case t.held:
			return t
		case o != opNone:
			continue
		}
		timer := time.NewTimer(time.Until(at))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// keep runs a job whose lease is held, renews it until the job has returned, and
// gives it back.
func (t *tenure) keep(ctx context.Context, run func(context.Context) error) error {
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	guard := time.AfterFunc(time.Until(t.until), func() { cancel(ErrLost) }) // whatever the store does meanwhile
	defer guard.Stop()
	ended := make(chan error, 1)
	go func() { ended <- run(own) }()
	due := time.NewTimer(time.Until(t.due))
	defer due.Stop()
	for {
		select {
		case err := <-ended:
			t.release(ctx)
			if errors.Is(context.Cause(own), ErrLost) {
				return ErrLost
			}
			return err
		case <-due.C:
		}
		o, _ := t.next(time.Now(), false, false)
		t.do(ctx, o)
		if !t.held { // the job is waited for, and nothing is written any more
			cancel(ErrLost)
			continue
		}
		guard.Reset(time.Until(t.until))
		due.Reset(time.Until(t.due))
	}
}

// do does o in the store; ctx only gives values, so that it is not cut off.
func (t *tenure) do(ctx context.Context, o op) {
	if o == opNone {
		return
	}
	sent := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.claim.ttl/6)
	defer cancel()
	value, err := json.Marshal(t.Holding)
	revision := t.revision
	switch {
	case err != nil: // never: it is two texts and a time
	case o == opCreate:
		revision, err = t.bucket.Create(ctx, t.key, value)
	case o == opRenew:
		revision, err = t.bucket.Update(ctx, t.key, value, t.revision)
	default:
		value, revision, err = t.bucket.Get(ctx, t.key)
		var there Holding
		if err == nil && (json.Unmarshal(value, &there) != nil || there.ID != t.ID) {
			err = t.errs.Conflict
		}
	}
	out := done
	switch {
	case err == nil:
	case errors.Is(err, t.errs.Conflict), errors.Is(err, t.errs.NotFound):
		out, err = conflict, nil
	default:
		out = failed
	}
	t.outcome(err)
	t.answer(o, sent, time.Now(), out, revision)
}

// release gives the lease back, if it is still there; it would expire otherwise.
func (t *tenure) release(ctx context.Context) {
	if t.revision == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.claim.ttl/6)
	defer cancel()
	if err := t.bucket.Remove(ctx, t.key, t.revision); err != nil {
		t.log.DebugContext(ctx, "a lease was not given back; it expires", "error", err)
	}
}

func (k *Keeper) outcome(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed = err; err != nil {
		k.failedAt = time.Now()
	}
}

// look tells whether nobody is seen to have key, and whether this machine is the one
// that job is meant for (none: it is meant for nobody else); changed is closed when that may be otherwise.
func (k *Keeper) look(key, job string, now time.Time) (free, preferred bool, changed <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, there := k.seen[key]
	free = k.known && (!there || now.Sub(s.at) >= k.ttl)
	best, preferred := weight(k.self.ID, job), true
	for key := range k.seen {
		if id, ok := strings.CutPrefix(key, nodePrefix); ok && job != "" && weight(id, job) > best {
			preferred = false
		}
	}
	return free, preferred, k.changed
}

// weight orders machines for a job: the one with the greatest is to have it. Jobs so
// spread evenly, and those of a machine that is gone over all others.
func weight(node, job string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node + "/" + job))
	x := h.Sum64() // its upper bits hardly depend on the last letters
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	return x ^ x>>33
}

// sight takes what the bucket says of one key.
func (k *Keeper) sight(key string, value []byte, revision uint64) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	before, there := k.seen[key]
	switch {
	case key == "":
		if !k.known {
			k.known = true
			k.announce()
		}
		return
	case value == nil:
		delete(k.seen, key)
	default:
		var h Holding
		if json.Unmarshal(value, &h) != nil || h.ID == "" {
			return // it expires like any other
		}
		at := now
		if there && before.revision == revision { // told once more
			at = before.at
		}
		k.seen[key] = sighting{h, revision, at}
	}
	if after, still := k.seen[key]; there != still || before.Holding != after.Holding {
		k.announce()
	}
}

// expire forgets what was not renewed for as long as the store keeps it.
func (k *Keeper) expire(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, s := range k.seen {
		if now.Sub(s.at) >= k.ttl {
			delete(k.seen, key)
			k.announce()
		}
	}
}

// note makes a change of what runs here.
func (k *Keeper) note(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	k.announce()
}

// announce tells who waits; k.mu is held.
func (k *Keeper) announce() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// Machine gives the name under which Holdings has what runs on a machine with no lease
// of its own.
func Machine(node string) string { return "@" + node }

// Machine gives the name of this machine in Holdings.
func (k *Keeper) Machine() string { return Machine(k.self.Node) }

// own is the key by which the others know of this process.
func (k *Keeper) own() string { return nodePrefix + k.self.ID }

// Holdings tells who holds which job, as far as it is known here, and which machines
// are there, since when; mine are those that run here, known tells whether the store was
// read, and changed is closed when something of it is otherwise.
func (k *Keeper) Holdings() (all map[string]Holding, mine map[string]bool, known bool, changed <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all, mine = map[string]Holding{}, map[string]bool{}
	for key, s := range k.seen {
		if name, ok := jobOf(key); ok {
			all[name] = s.Holding
		} else if name := Machine(s.Node); s.Since.After(all[name].Since) { // of an earlier process something may be left
			all[name] = s.Holding
		}
	}
	for name, s := range k.mine {
		all[name], mine[name] = s.Holding, true
	}
	all[k.Machine()], mine[k.Machine()] = k.self, true
	return all, mine, k.known, k.changed
}

func jobOf(key string) (name string, ok bool) {
	text, ok := strings.CutPrefix(key, jobPrefix)
	raw, err := hex.DecodeString(text)
	return string(raw), ok && err == nil
}

// Status tells which machines are there, and what this one runs.
func (k *Keeper) Status() presence.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	var nodes []string
	for key, s := range k.seen {
		if strings.HasPrefix(key, nodePrefix) {
			nodes = append(nodes, s.Node)
		}
	}
	slices.Sort(nodes)
	s := presence.Status{Phase: presence.PhaseLive, Detail: fmt.Sprintf("%d machines (%s), %d jobs run here", len(nodes), strings.Join(nodes, ", "), len(k.mine))}
	for i := range nodes[:max(0, len(nodes)-1)] {
		if nodes[i] == nodes[i+1] {
			s.Phase = presence.PhaseDegraded
			s.Detail = fmt.Sprintf("two machines are called %s: give each a name of its own (store.node); after a crash this passes by itself", nodes[i])
		}
	}
	if k.failed != nil {
		s.Phase, s.LastError, s.LastErrorAt = presence.PhaseDegraded, k.failed.Error(), k.failedAt
		s.Detail = "the store does not renew leases: jobs end here before another machine may run them"
	}
	return s
}
