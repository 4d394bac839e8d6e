package lps

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"sync"
	"time"
)

// A Memory keeps subscriptions over a restart. Keys hold hexadecimal digits only.
// The calls may block; they are never made from the path of a message.
type Memory interface {
	Load(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// A stored is what Memory keeps of a subscription.
type stored struct {
	Record
	Way way `json:"way"`
}

// A keeper writes records behind the back of the service: the newest of each
// subscription, again after a while what failed.
type keeper struct {
	memory Memory // nil: nothing is kept
	log    *slog.Logger

	mu      sync.Mutex
	waiting map[string]*stored // nil: to be deleted
	failed  int                // writes, since ever
	wake    chan struct{}
}

// Times of the keeper.
const (
	writeTime = 5 * time.Second // for one write, and for the last round
	writeWait = time.Second     // between two rounds: what is deleted soon is never written
)

func newKeeper(memory Memory, log *slog.Logger) *keeper {
	return &keeper{memory: memory, log: log, waiting: map[string]*stored{}, wake: make(chan struct{}, 1)}
}

// keep is a Keeper.
func (k *keeper) keep(dialog string, r *Record) {
	var value *stored
	if r != nil && r.Route != nil && r.Route.way != nil {
		value = &stored{Record: *r, Way: *r.Route.way}
		value.Route, r.Route.way = nil, nil
	}
	if k.memory == nil {
		return
	}
	k.mu.Lock()
	k.waiting[dialog] = value
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is left.
func (k *keeper) run(ctx context.Context) error {
	if k.memory == nil {
		return nil
	}
	pause := time.NewTimer(writeWait)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
			defer cancel()
			k.round(last)
			return nil
		case <-k.wake:
		}
		pause.Reset(writeWait)
		select {
		case <-ctx.Done():
			continue
		case <-pause.C:
		}
		k.round(ctx)
	}
}

// round writes all that waits. What fails waits for the next round, unless
// something newer does.
func (k *keeper) round(ctx context.Context) {
	k.mu.Lock()
	batch := k.waiting
	k.waiting = map[string]*stored{}
	k.mu.Unlock()
	first := error(nil)
	for dialog, s := range batch {
		err := k.write(ctx, dialog, s)
		if err == nil {
			continue
		}
		if first == nil {
			first = err
		}
		k.mu.Lock()
		k.failed++
		if _, newer := k.waiting[dialog]; !newer {
			k.waiting[dialog] = s
		}
		k.mu.Unlock()
	}
	if first != nil {
		k.log.Warn("Subscriptions cannot be kept; watchers would have to subscribe again after a restart", "error", first)
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

func (k *keeper) write(ctx context.Context, dialog string, s *stored) error {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	if s == nil {
		return k.memory.Delete(ctx, keyOf(dialog))
	}
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return k.memory.Put(ctx, keyOf(dialog), value)
}

// keyOf gives the key of a dialog, whose tag may hold anything that a tag can.
func keyOf(dialog string) string { return hex.EncodeToString([]byte(dialog)) }

// load gives what was kept. What cannot be read, and what drop is called for, goes.
func (k *keeper) load(ctx context.Context) (all []*stored, malformed int, err error) {
	if k.memory == nil {
		return nil, 0, nil
	}
	values, err := k.memory.Load(ctx)
	if err != nil {
		return nil, 0, err
	}
	for key, value := range values {
		s := &stored{}
		if json.Unmarshal(value, s) != nil || keyOf(s.Dialog) != key {
			malformed++
			if dialog, err := hex.DecodeString(key); err == nil {
				k.keep(string(dialog), nil)
			}
			continue
		}
		all = append(all, s)
	}
	return all, malformed, nil
}

// problems gives how many writes failed.
func (k *keeper) problems() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failed
}
