package store

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// lookAgain is how often a watch looks whether the connection was made anew.
const lookAgain = time.Second

// Watch calls f with every key and value there is, then once with an empty key: that
// was all; then with every change, until ctx ends. A nil value is a key that was
// deleted; what a bucket lets expire (Expiring) is not told. Revisions rise with every
// write to the bucket. After the connection was lost, all that is there comes again,
// and the empty key, though f has seen it. Of a key that changes faster than f takes
// it, the newest value always comes, those before may not. f is called by one
// goroutine and may keep the value. While the store is down nothing comes: Err says
// why.
func (b *Bucket) Watch(ctx context.Context, f func(key string, value []byte, revision uint64)) {
	for ctx.Err() == nil {
		if err := b.watch(ctx, f); err != nil && ctx.Err() == nil && !transient(err) {
			b.store.log.ErrorContext(ctx, "a bucket cannot be watched, it is tried again", "bucket", b.name, "error", err)
		}
		timer := time.NewTimer(lookAgain)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// watch is Watch until the connection is lost.
func (b *Bucket) watch(ctx context.Context, f func(key string, value []byte, revision uint64)) error {
	if err := b.store.unreachable(); err != nil {
		return err
	}
	kv, err := b.bind(ctx)
	if err != nil {
		return err
	}
	came := b.store.connection()
	w, err := kv.Watch(ctx, b.prefix+">")
	if err != nil {
		b.unbind()
		return err
	}
	defer drop(w)
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if b.store.connection() != came {
				return nil
			}
		case e, open := <-w.Updates():
			switch {
			case !open:
				return nil
			case e == nil:
				f("", nil, 0)
			case e.Operation() != jetstream.KeyValuePut:
				f(e.Key()[len(b.prefix):], nil, e.Revision())
			default:
				f(e.Key()[len(b.prefix):], append([]byte{}, e.Value()...), e.Revision())
			}
		}
	}
}

// drop ends a watcher, and takes what it still has: it waits for that.
func drop(w jetstream.KeyWatcher) {
	_ = w.Stop()
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	for {
		select {
		case _, open := <-w.Updates():
			if !open {
				return
			}
		case <-timer.C:
			return
		}
	}
}

// A connected names one connection: which one, and how often it was made anew.
type connected struct {
	js    jetstream.JetStream
	times uint64
}

func (s *Store) connection() connected {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.js == nil {
		return connected{}
	}
	return connected{s.js, s.conn.Stats().Reconnects}
}
