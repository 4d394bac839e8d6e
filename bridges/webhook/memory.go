package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"presenced/aggregator/presence"
)

// A Memory keeps over a restart whom the receiver may know of, the dead letters, and
// whether it is gone. Keys hold letters, digits and hyphens. The calls may block;
// they are never made from the path of a state.
type Memory interface {
	Load(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// keyGone is the key of why nothing is sent any more.
const keyGone = "gone"

// personKey is the key of the record of a person.
func personKey(id presence.ID) string {
	sum := sha256.Sum256([]byte(id))
	return "person-" + hex.EncodeToString(sum[:16])
}

// A keeper writes to the memory behind the back of the hook: the newest of each key,
// and again each second what failed.
type keeper struct {
	memory Memory
	failed func(error)
	wake   chan struct{}

	mu      sync.Mutex
	waiting map[string][]byte // nil: to be deleted
}

const (
	keepAgain = time.Second
	keepTime  = 5 * time.Second // for one write, and for all that is left at the end
)

func newKeeper(m Memory, failed func(error)) *keeper {
	return &keeper{memory: m, failed: failed, wake: make(chan struct{}, 1), waiting: map[string][]byte{}}
}

// add has a value kept; nil: it is deleted. It does not block.
func (k *keeper) add(key string, value []byte) {
	k.mu.Lock()
	k.waiting[key] = value
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is left.
func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(keepAgain)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-k.wake:
			k.round(ctx)
		case <-tick.C:
			k.round(ctx)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime)
	defer cancel()
	k.round(last)
}

// round writes all that waits. What fails waits on, unless something newer does.
func (k *keeper) round(ctx context.Context) {
	k.mu.Lock()
	batch := k.waiting
	k.waiting = map[string][]byte{}
	k.mu.Unlock()
	for key, value := range batch {
		err := ctx.Err()
		if err == nil {
			err = k.write(ctx, key, value)
		}
		if err == nil {
			continue
		}
		k.mu.Lock()
		if _, newer := k.waiting[key]; !newer {
			k.waiting[key] = value
		}
		k.mu.Unlock()
		if ctx.Err() == nil {
			k.failed(err)
		}
	}
}

func (k *keeper) write(ctx context.Context, key string, value []byte) error {
	ctx, cancel := context.WithTimeout(ctx, keepTime)
	defer cancel()
	if value == nil {
		return k.memory.Delete(ctx, key)
	}
	return k.memory.Put(ctx, key, value)
}
