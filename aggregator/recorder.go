package aggregator

import (
	"context"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator/presence"
)

// A Memory keeps values by key; a bucket of the store is one. Put and Delete may
// block until the value is durable. One that implements interface{ Err() error }
// says what is wrong with the store now; the call must not block.
type Memory interface {
	Load(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// An Archive is a Memory of so many values that they are read one by one; a bucket
// of the store is one too.
type Archive interface {
	// Each calls f with every key and value, in the order of writing. Of a key
	// that comes more than once the last value counts; nil means that it was
	// deleted. f may keep the value. An error of f ends the call and is given back.
	Each(ctx context.Context, f func(key string, value []byte) error) error
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// A Recorder writes reports and states to the store, off the path of an event:
// what changes again before it is written is written once. While the store is
// down it keeps the newest of each and tries again; presence goes on meanwhile.
type Recorder struct {
	reports, states Archive
	log             *slog.Logger
	current         func(presence.ID) (presence.State, bool) // of the hub

	mu     sync.Mutex
	dirty  map[item]any // what to write: a presence.Report, the presence.ID of who has a new state, or nil to delete
	wake   chan struct{}
	failed error // why the last write failed; nil after a success
	since  time.Time
}

// An item is one key in one of the two buckets.
type item struct {
	bucket Archive
	key    string
}

// NewRecorder makes a recorder that writes to these two buckets. It belongs to the
// hub that is made with it.
func NewRecorder(reports, states Archive, log *slog.Logger) *Recorder {
	return &Recorder{reports: reports, states: states, log: log, dirty: map[item]any{}, wake: make(chan struct{}, 1)}
}

// Run writes until ctx ends; then it writes what is left, within two seconds.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			return r.Flush(last)
		case <-r.wake:
		}
		if err := r.Flush(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("the store does not take reports; presence goes on in memory", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
			}
			r.poke()
		}
	}
}

// Flush writes what is waiting.
func (r *Recorder) Flush(ctx context.Context) error {
	for {
		r.mu.Lock()
		batch := r.dirty
		r.dirty = map[item]any{}
		r.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		for it, value := range batch {
			err := r.write(ctx, it, value)
			r.mu.Lock()
			if err == nil {
				delete(batch, it)
				r.failed = nil
				r.mu.Unlock()
				continue
			}
			if r.failed == nil {
				r.since = time.Now()
			}
			r.failed = err
			for it, value := range batch { // put back what nothing newer replaced
				if _, newer := r.dirty[it]; !newer {
					r.dirty[it] = value
				}
			}
			r.mu.Unlock()
			return err
		}
	}
}

func (r *Recorder) write(ctx context.Context, it item, value any) error {
	if id, ok := value.(presence.ID); ok {
		state, known := r.current(id)
		if !known { // who left meanwhile is forgotten by another item
			return nil
		}
		value = state
	}
	if value == nil {
		return it.bucket.Delete(ctx, it.key)
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("record %s: %w", it.key, err)
	}
	return it.bucket.Put(ctx, it.key, data)
}

func (r *Recorder) set(it item, value any) {
	r.mu.Lock()
	r.dirty[it] = value
	r.mu.Unlock()
	r.poke()
}

func (r *Recorder) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Recorder) report(id presence.ID, rep presence.Report) {
	r.set(item{r.reports, reportKey(id, rep)}, rep)
}

// state notes that a person has a new state. Which one, is asked for when it is
// written: there may be millions that wait.
func (r *Recorder) state(s presence.State) {
	if s.Why.Rule == presence.RuleRemoved {
		return
	}
	r.set(item{r.states, stateKey(s.Person)}, s.Person)
}

// forget deletes what is kept about a person: the state, and these reports.
func (r *Recorder) forget(id presence.ID, reports []presence.Report) {
	r.set(item{r.states, stateKey(id)}, nil)
	for _, rep := range reports {
		if rep.Source != SourceManual {
			r.set(item{r.reports, reportKey(id, rep)}, nil)
		}
	}
}

// Status tells how the store takes what is written.
func (r *Recorder) Status() presence.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := presence.Status{Phase: presence.PhaseLive, Detail: "reports and states are kept"}
	if r.failed != nil {
		s = presence.Status{
			Phase: presence.PhaseDegraded, LastError: r.failed.Error(), LastErrorAt: r.since,
			Detail: fmt.Sprintf("%d changes wait for the store; presence goes on in memory", len(r.dirty)),
		}
	} else if own, ok := r.reports.(interface{ Err() error }); ok {
		if err := own.Err(); err != nil {
			s.Phase, s.LastError, s.Detail = presence.PhaseDegraded, err.Error(), "the store needs attention; presence goes on"
		}
	}
	return s
}

// Revive is Restore for a store that could not be read when the service started: it
// tries until the store gives what it kept, and puts back what no source has said
// anew meanwhile. The hub must be the one of this recorder.
func (r *Recorder) Revive(ctx context.Context, h *Hub) error {
	tick := time.NewTicker(revivePause)
	defer tick.Stop()
	for {
		var n atomic.Int64
		people, err := r.restore(ctx, func(id presence.ID, reports []presence.Report, _ presence.State) bool {
			revived, known := h.revive(id, reports, time.Now())
			n.Add(int64(revived))
			return known
		})
		if err == nil {
			r.log.Info("the store can be read again", "people", people, "reports", n.Load())
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

const revivePause = 5 * time.Second

// revive puts back reports as those of lost sources, where the core has none of the
// same source and subject, and says how many; known is whether there is such a person.
func (h *Hub) revive(id presence.ID, reports []presence.Report, now time.Time) (n int, known bool) {
	d := h.people.Load()
	if !d.Has(id) {
		return 0, false
	}
	s := h.shard(id)
	s.mu.Lock()
	defer h.unlock(s)
	held := s.core.Reports(id)
	for _, old := range reports {
		owner, ok := d.Owner(old.Subject)
		if !ok || owner != id || slices.ContainsFunc(held, func(r presence.Report) bool { return r.Source == old.Source && r.Subject == old.Subject }) {
			continue
		}
		if state, changed := s.core.Accept(id, old.Lost(now), now); changed {
			h.deliver(s, state)
		} else {
			s.remindApart(s.core.people.of(id))
			s.nudge()
		}
		n++
	}
	return n, true
}

// kept is what the store holds about one person, not decoded yet.
type kept struct {
	state   []byte
	reports []keptReport // by key, each once
}

type keptReport struct {
	key  string
	data []byte
}

// restore calls put with everybody about whom something is kept, from several
// goroutines, and deletes what is kept of those whom put does not know. It says how
// many were known. A value that does not decode is logged and left out: one bad
// record must not keep the others from coming back.
func (r *Recorder) restore(ctx context.Context, put func(presence.ID, []presence.Report, presence.State) (known bool)) (people int, err error) {
	all, err := r.load(ctx)
	if err != nil {
		return 0, err
	}
	var g sync.WaitGroup
	var known atomic.Int64
	owners := slices.Collect(maps.Keys(all))
	for part := range slices.Chunk(owners, len(owners)/runtime.GOMAXPROCS(0)+1) {
		g.Go(func() {
			for _, owner := range part {
				k := all[owner]
				id, reports, state, ok := r.decode(owner, k)
				switch {
				case !ok:
				case put(id, reports, state):
					known.Add(1)
				default:
					r.drop(owner, k)
				}
			}
		})
	}
	g.Wait()
	return int(known.Load()), nil
}

// load reads everything, by the first part of the key: both buckets at once, for each
// is read by one goroutine after the other, from the disk to here.
func (r *Recorder) load(ctx context.Context) (map[string]*kept, error) {
	states, all := map[string][]byte{}, map[string]*kept{}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return r.states.Each(ctx, func(key string, data []byte) error {
			states[key] = data
			return nil
		})
	})
	g.Go(func() error {
		return r.reports.Each(ctx, func(key string, data []byte) error {
			owner, _, _ := strings.Cut(key, ".")
			k := all[owner]
			if k == nil {
				k = &kept{reports: make([]keptReport, 0, usual)}
				all[owner] = k
			}
			k.reports = slices.DeleteFunc(k.reports, func(older keptReport) bool { return older.key == key })
			if data != nil {
				k.reports = append(k.reports, keptReport{key, data})
			}
			return nil
		})
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for owner, data := range states {
		if k := all[owner]; k != nil {
			k.state = data
		} else {
			all[owner] = &kept{state: data}
		}
	}
	return all, nil
}

// usual is how many reports there are about a person, mostly: of a phone, a calendar,
// automatic replies and a client.
const usual = 4

// decode gives what is kept about one person; ok is false where nothing of it can be read.
func (r *Recorder) decode(owner string, k *kept) (id presence.ID, reports []presence.Report, state presence.State, ok bool) {
	bad := func(what, key string, err error) {
		r.log.Error("a kept "+what+" cannot be read and is dropped", "key", key, "error", err)
	}
	if k.state != nil {
		err := unmarshalState(k.state, &state)
		if err == nil && stateKey(state.Person) != owner {
			err = errors.New("it is of somebody else")
		}
		if ok = err == nil; !ok {
			bad("state", owner, err)
			state = presence.State{}
		}
	}
	name, err := keyAlphabet.DecodeString(owner)
	reports = make([]presence.Report, 0, len(k.reports))
	for _, old := range k.reports {
		var rep presence.Report
		err := err
		if err == nil {
			err = unmarshalReport(old.data, &rep)
		}
		if err == nil {
			err = rep.Check()
		}
		switch {
		case err != nil:
			bad("report", old.key, err)
		case rep.Source == SourceManual: // its home is the bucket of Manual, where it may be cleared by now
		default:
			reports = append(reports, rep)
			ok = true
		}
	}
	return presence.ID(name), reports, state, ok
}

// drop deletes all that was read about somebody, but for what is newer.
func (r *Recorder) drop(owner string, k *kept) {
	var old []item
	if k.state != nil {
		old = append(old, item{r.states, owner})
	}
	for _, rep := range k.reports {
		old = append(old, item{r.reports, rep.key})
	}
	r.mu.Lock()
	for _, it := range old {
		if _, newer := r.dirty[it]; !newer {
			r.dirty[it] = nil
		}
	}
	r.mu.Unlock()
	r.poke()
}

// Keys are in the alphabet that every key-value store takes.
var keyAlphabet = base32.HexEncoding.WithPadding(base32.NoPadding) //nolint:gochecknoglobals // immutable

func stateKey(id presence.ID) string { return keyAlphabet.EncodeToString([]byte(id)) }

func reportKey(id presence.ID, r presence.Report) string {
	return stateKey(id) + "." + keyAlphabet.EncodeToString([]byte(r.Source)) + "." + keyAlphabet.EncodeToString([]byte(r.Subject.String()))
}
