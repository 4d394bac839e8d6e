package aggregator

import (
	"context"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"presenced/aggregator/presence"
)

// A Memory keeps values by key; a bucket of the store is one. Put and Delete may
// block until the value is durable.
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
	}
	return s
}

// kept is what the store held about one person.
type kept struct {
	reports []presence.Report
	state   presence.State
}

// load reads everything. A value that does not decode is logged and dropped: one
// bad record must not keep the others from coming back.
func (r *Recorder) load(ctx context.Context) (map[presence.ID]kept, error) {
	states, err := r.states.Load(ctx)
	if err != nil {
		return nil, err
	}
	reports, err := r.reports.Load(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[presence.ID]kept{}
	for key, data := range states {
		r.written[item{r.states, key}] = true
		var s presence.State
		if err := json.Unmarshal(data, &s); err != nil || stateKey(s.Person) != key {
			r.log.Error("a kept state cannot be read and is dropped", "key", key, "error", err)
			continue
		}
		out[s.Person] = kept{state: s}
	}
	for key, data := range reports {
		r.written[item{r.reports, key}] = true
		var rep presence.Report
		owner, _, _ := strings.Cut(key, ".")
		id, err := base32.HexEncoding.WithPadding(base32.NoPadding).DecodeString(owner)
		if err == nil {
			err = json.Unmarshal(data, &rep)
		}
		if err == nil {
			err = rep.Check()
		}
		if err != nil {
			r.log.Error("a kept report cannot be read and is dropped", "key", key, "error", err)
			continue
		}
		k := out[presence.ID(id)]
		k.reports = append(k.reports, rep)
		out[presence.ID(id)] = k
	}
	return out, nil
}

// Keys are in the alphabet that every key-value store takes.
func stateKey(id presence.ID) string {
	return base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(id))
}

func reportKey(id presence.ID, r presence.Report) string {
	enc := base32.HexEncoding.WithPadding(base32.NoPadding)
	return stateKey(id) + "." + enc.EncodeToString([]byte(r.Source)) + "." + enc.EncodeToString([]byte(r.Subject.String()))
}
