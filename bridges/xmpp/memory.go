package xmpp

import (
	"context"
	"sync"
	"time"
)

// A Memory keeps subscriptions and what was sent over a restart. Keys are words
// of hexadecimal digits. The methods may block and may be called from several
// goroutines.
type Memory interface {
	Load(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// A keeper writes saves to a Memory behind the stream's back, only the newest of
// each contact, and again each second what failed.
type keeper struct {
	memory Memory
	kept   chan save     // what is durable now and is to be welcomed
	wake   chan struct{} // there is something to write
	failed func(error)

	mu      sync.Mutex
	waiting map[string]save
}

const (
	keepEach = time.Second     // what was sent, and what failed
	keepTime = 5 * time.Second // for one write, and for the last round
)

func newKeeper(m Memory, failed func(error)) *keeper {
	return &keeper{memory: m, kept: make(chan save), wake: make(chan struct{}, 1), failed: failed, waiting: map[string]save{}}
}

// add takes what is to be kept; it does not block.
func (k *keeper) add(saves []save) {
	if len(saves) == 0 {
		return
	}
	k.mu.Lock()
	for _, s := range saves {
		s.welcome = append(k.waiting[s.local].welcome, s.welcome...)
		k.waiting[s.local] = s
	}
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is left.
func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(keepEach)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime)
			defer cancel()
			k.round(last, ctx.Done())
			return
		case <-k.wake:
		case <-tick.C:
		}
		k.round(ctx, ctx.Done())
	}
}

// round writes all that waits. What fails waits for the next round, unless
// something newer does.
func (k *keeper) round(ctx context.Context, over <-chan struct{}) {
	k.mu.Lock()
	batch := k.waiting
	k.waiting = map[string]save{}
	k.mu.Unlock()
	for local, s := range batch {
		if err := k.write(ctx, &s); err != nil {
			k.failed(err)
			k.mu.Lock()
			if newer, ok := k.waiting[local]; ok {
				newer.welcome = append(s.welcome, newer.welcome...)
				k.waiting[local] = newer
			} else {
				k.waiting[local] = s
			}
			k.mu.Unlock()
			continue
		}
		if len(s.welcome) == 0 {
			continue
		}
		select {
		case k.kept <- s:
		case <-over:
		}
	}
}

func (k *keeper) write(ctx context.Context, s *save) error {
	ctx, cancel := context.WithTimeout(ctx, keepTime)
	defer cancel()
	if s.value == nil {
		return k.memory.Delete(ctx, recordKey(s.local))
	}
	return k.memory.Put(ctx, recordKey(s.local), s.value)
}
