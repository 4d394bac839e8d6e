package store

import (
	"context"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A writer puts many values without waiting for each to be durable; flush waits for
// all. It is used by one goroutine.
type writer struct {
	store *Store
	js    jetstream.JetStream

	mu     sync.Mutex
	failed error // the first one
}

// pending is how many values may be under way.
const pending = 1000

func (s *Store) writer() (*writer, error) {
	w := &writer{store: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.js == nil {
		return nil, downError{s.down}
	}
	var err error
	w.js, err = jetstream.New(s.conn,
		jetstream.WithPublishAsyncMaxPending(2*pending),
		jetstream.WithPublishAsyncTimeout(patience),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *nats.Msg, err error) { w.fail(m.Subject, err) }))
	return w, err
}

func (w *writer) fail(subject string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		bucket, key, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(subject, "$KV."), "log."), ".")
		w.failed = (&Bucket{name: bucket}).wrap("put", key, err)
	}
}

// make makes a bucket, or a log ("log:journal"); the service sets the limits of a
// log when it opens it.
func (w *writer) make(ctx context.Context, place string) error {
	log, ok := strings.CutPrefix(place, logPart)
	if !ok {
		b := &Bucket{store: w.store, name: place}
		_, err := b.bind(ctx)
		return b.wrap("open", "", err)
	}
	ctx, done := w.store.whole(ctx)
	defer done()
	_, err := w.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "LOG_" + log, Subjects: []string{"log." + log + ".>"}, Storage: jetstream.FileStorage, Replicas: w.store.replicas(),
	})
	return (&Bucket{name: place}).wrap("open", "", err)
}

func (w *writer) put(ctx context.Context, e entry) error {
	if w.js.PublishAsyncPending() >= pending {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	subject := "$KV." + e.Bucket + "." + e.Key
	if e.Log != "" {
		subject = "log." + e.Log + "." + e.Key
	}
	_, err := w.js.PublishAsync(subject, e.Value)
	return (&Bucket{name: e.place()}).wrap("put", e.Key, err)
}

// flush waits until all is durable, and gives the first error.
func (w *writer) flush(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.js.PublishAsyncComplete():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}
