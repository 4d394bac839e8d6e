package outbox

import (
	"context"
	"sync"

	"presenced/aggregator/presence"
)

// A Feed passes the states of everybody on, and then changes. The zero value is
// ready. Its methods belong to one goroutine.
type Feed struct {
	States <-chan presence.State // nil before Begin

	stop    context.CancelFunc
	workers sync.WaitGroup
}

// Begin begins anew with everybody, until ctx ends or Close. States is another
// channel then, so that nothing which is older comes after.
func (f *Feed) Begin(ctx context.Context, hub presence.Hub) {
	f.halt()
	ctx, f.stop = context.WithCancel(ctx)
	states := make(chan presence.State)
	f.States = states
	f.workers.Go(func() {
		for s := range hub.Watch(ctx) {
			select {
			case states <- s:
			case <-ctx.Done():
				return
			}
		}
	})
}

// Close ends it, and waits until it has ended.
func (f *Feed) Close() {
	f.halt()
	f.workers.Wait()
}

func (f *Feed) halt() {
	if f.stop != nil {
		f.stop()
	}
}
