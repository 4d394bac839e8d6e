package aggregator

import (
	"context"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

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

// A Recorder writes reports and states to the store, off the path of an event:
// what changes again before it is written is written once. While the store is
// down it keeps the newest of each and tries again; presence goes on meanwhile.
type Recorder struct {
	reports, states Memory
	log             *slog.Logger

	mu      sync.Mutex
	dirty   map[item]any  // what to write: a presence.Report, a presence.State, or nil to delete
	written map[item]bool // what the store holds
	wake    chan struct{}
	failed  error // why the last write failed; nil after a success
	since   time.Time
}

// An item is one key in one of the two buckets.
type item struct {
	bucket Memory
	key    string
}

// NewRecorder makes a recorder that writes to these two buckets.
func NewRecorder(reports, states Memory, log *slog.Logger) *Recorder {
	return &Recorder{reports: reports, states: states, log: log, dirty: map[item]any{}, written: map[item]bool{}, wake: make(chan struct{}, 1)}
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
	if value == nil && !r.written[it] {
		delete(r.dirty, it)
	} else {
		r.dirty[it] = value
		r.written[it] = value != nil
	}
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

func (r *Recorder) state(s presence.State) {
	if s.Why.Rule == presence.RuleRemoved {
		return
	}
	r.set(item{r.states, stateKey(s.Person)}, s)
}

// forget deletes all that is kept about a person.
func (r *Recorder) forget(id presence.ID) {
	prefix := stateKey(id) + "."
	r.set(item{r.states, stateKey(id)}, nil)
	r.mu.Lock()
	var keys []item
	for it := range r.written {
		if it.bucket == r.reports && strings.HasPrefix(it.key, prefix) {
			keys = append(keys, it)
		}
	}
	r.mu.Unlock()
	for _, it := range keys {
		r.set(it, nil)
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
		found, err := r.load(ctx)
		if err == nil {
			n := 0
			for id, k := range found {
				n += h.revive(id, k.reports, time.Now())
			}
			r.log.Info("the store can be read again", "people", len(found), "reports", n)
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
// same source and subject, and says how many.
func (h *Hub) revive(id presence.ID, reports []presence.Report, now time.Time) (n int) {
	d := h.people.Load()
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
			s.nudge()
		}
		n++
	}
	return n
}

// kept is what the store held about one person.
type kept struct {
	reports []presence.Report
	state   presence.State
}

// load reads everything. A value that does not decode is logged and dropped: one
// bad record must not keep the others from coming back.
func (r *Recorder) load(ctx context.Context) (map[presence.ID]*kept, error) {
	states, err := r.states.Load(ctx)
	if err != nil {
		return nil, err
	}
	reports, err := r.reports.Load(ctx)
	if err != nil {
		return nil, err
	}
	decodedStates := decodeAll(states, decodeState)
	decodedReports := decodeAll(reports, decodeReport)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.written) == 0 {
		r.written = make(map[item]bool, len(states)+len(reports))
	}
	out := make(map[presence.ID]*kept, len(states))
	for _, d := range decodedStates {
		r.written[item{r.states, d.key}] = true
		if d.err != nil {
			r.log.Error("a kept state cannot be read and is dropped", "key", d.key, "error", d.err)
			continue
		}
		out[d.id] = &kept{state: d.value}
	}
	for _, d := range decodedReports {
		r.written[item{r.reports, d.key}] = true
		if d.err != nil {
			r.log.Error("a kept report cannot be read and is dropped", "key", d.key, "error", d.err)
			continue
		}
		if d.value.Source == SourceManual { // its home is the bucket of Manual, where it may be cleared by now
			continue
		}
		k := out[d.id]
		if k == nil {
			k = &kept{}
			out[d.id] = k
		}
		k.reports = append(k.reports, d.value)
	}
	return out, nil
}

// decoded is one value of a bucket.
type decoded[T any] struct {
	key   string
	id    presence.ID
	value T
	err   error
}

// decodeAll decodes with all processors: after a restart there may be millions.
func decodeAll[T any](values map[string][]byte, decode func(key string, data []byte) (presence.ID, T, error)) []decoded[T] {
	all := make([]decoded[T], 0, len(values))
	for key := range values {
		all = append(all, decoded[T]{key: key})
	}
	var g sync.WaitGroup
	for part := range slices.Chunk(all, max(1, len(all)/runtime.GOMAXPROCS(0)+1)) {
		g.Go(func() {
			for i := range part {
				d := &part[i]
				d.id, d.value, d.err = decode(d.key, values[d.key])
			}
		})
	}
	g.Wait()
	return all
}

func decodeState(key string, data []byte) (presence.ID, presence.State, error) {
	var s presence.State
	err := json.Unmarshal(data, &s)
	if err == nil && stateKey(s.Person) != key {
		err = errors.New("it is of somebody else")
	}
	return s.Person, s, err
}

func decodeReport(key string, data []byte) (presence.ID, presence.Report, error) {
	var rep presence.Report
	owner, _, _ := strings.Cut(key, ".")
	id, err := keyAlphabet.DecodeString(owner)
	if err == nil {
		err = json.Unmarshal(data, &rep)
	}
	if err == nil {
		err = rep.Check()
	}
	return presence.ID(id), rep, err
}

// Keys are in the alphabet that every key-value store takes.
var keyAlphabet = base32.HexEncoding.WithPadding(base32.NoPadding) //nolint:gochecknoglobals // immutable

func stateKey(id presence.ID) string { return keyAlphabet.EncodeToString([]byte(id)) }

func reportKey(id presence.ID, r presence.Report) string {
	return stateKey(id) + "." + keyAlphabet.EncodeToString([]byte(r.Source)) + "." + keyAlphabet.EncodeToString([]byte(r.Subject.String()))
}
