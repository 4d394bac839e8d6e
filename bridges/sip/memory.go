package sip

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"sync"
	"time"
)

// A Memory keeps the entity-tags over a restart, so that a publication is changed
// instead of made twice. Keys hold hexadecimal digits only. The calls may block;
// they are never made from the path of a state.
type Memory interface {
	Load(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// A record is what Memory keeps of a publication.
type record struct {
	Bridge string    `json:"bridge"`
	Server string    `json:"server"`
	Entity string    `json:"entity"`
	Tag    string    `json:"tag"`
	Dies   time.Time `json:"dies"`
}

func (r *record) key() string {
	sum := sha256.Sum256([]byte(r.Bridge + "\n" + r.Server + "\n" + r.Entity))
	return hex.EncodeToString(sum[:16])
}

// A journal writes records behind the back of the publisher: the newest of each
// key, so that a slow memory costs neither time nor space.
type journal struct {
	memory  Memory
	log     *slog.Logger
	noticed func(kind string)

	mu      sync.Mutex
	pending map[string][]byte // nil: to be deleted
	wake    chan struct{}
}

func newJournal(memory Memory, log *slog.Logger, noticed func(kind string)) *journal {
	return &journal{memory: memory, log: log, noticed: noticed, pending: map[string][]byte{}, wake: make(chan struct{}, 1)}
}

// note keeps r for writing; an empty tag means that the record is to go.
func (j *journal) note(r *record) {
	var value []byte
	if r.Tag != "" {
		value, _ = json.Marshal(r) // strings and a time: cannot fail
	}
	j.mu.Lock()
	j.pending[r.key()] = value
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends.
func (j *journal) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
			j.flush(ctx)
		}
	}
}

// flush writes what is pending. What cannot be written is given up: the next
// refresh writes the tag that counts then.
func (j *journal) flush(ctx context.Context) {
	j.mu.Lock()
	batch := j.pending
	j.pending = map[string][]byte{}
	j.mu.Unlock()
	failed := 0
	for key, value := range batch {
		var err error
		if value == nil {
			err = j.memory.Delete(ctx, key)
		} else {
			err = j.memory.Put(ctx, key, value)
		}
		if err != nil {
			if failed++; failed == 1 {
				j.log.Warn("Entity-tags cannot be kept", "error", err)
			}
			j.noticed("entity-tags not kept")
		}
	}
}

// load gives the records of one bridge that are still good.
func (j *journal) load(ctx context.Context, bridge string, now time.Time) ([]record, error) {
	stored, err := j.memory.Load(ctx)
	if err != nil {
		return nil, err
	}
	var good []record
	for key, value := range stored {
		var r record
		if err := json.Unmarshal(value, &r); err != nil {
			j.noticed("stored entity-tags malformed")
			continue
		}
		if r.Bridge != bridge || r.key() != key {
			continue
		}
		if !isTag(r.Tag) || !r.Dies.After(now) || r.Dies.After(now.Add(longestLife)) {
			r.Tag = ""
			j.note(&r)
			continue
		}
		good = append(good, r)
	}
	return good, nil
}
