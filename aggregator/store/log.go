package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A Log keeps values in the order in which they came, each under a key, for a
// time and up to a size.
type Log struct {
	store  *Store
	name   string
	config jetstream.StreamConfig
}

// Log gives a log; it is made when it is used first. Values older than keep are
// dropped, and the oldest ones when the log is larger than maxBytes.
func (s *Store) Log(name string, keep time.Duration, maxBytes int64) *Log {
	return &Log{s, name, jetstream.StreamConfig{
		Name: "LOG_" + name, Subjects: []string{"log." + name + ".>"}, MaxAge: keep, MaxBytes: maxBytes, Discard: jetstream.DiscardOld,
		Storage: jetstream.FileStorage, Replicas: s.replicas(),
	}}
}

// stream opens the log, and makes it if it does not exist.
func (l *Log) stream(ctx context.Context) (jetstream.JetStream, jetstream.Stream, error) {
	ctx, done := l.store.whole(ctx)
	defer done()
	js, err := l.store.stream()
	if err != nil {
		return nil, nil, err
	}
	stream, err := js.Stream(ctx, l.config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateOrUpdateStream(ctx, l.config)
	} else if err == nil && (stream.CachedInfo().Config.MaxAge != l.config.MaxAge || stream.CachedInfo().Config.MaxBytes != l.config.MaxBytes) {
		stream, err = js.UpdateStream(ctx, l.config)
	}
	return js, stream, err
}

// subject is where the values of a key are; a key may be any text.
func (l *Log) subject(key string) string {
	if key == "" {
		return "log." + l.name + ".>"
	}
	return "log." + l.name + "." + hex.EncodeToString([]byte(key))
}

// Append adds a value; it is durable when Append returns.
func (l *Log) Append(ctx context.Context, key string, value []byte) error {
	if key == "" {
		return fmt.Errorf("store: log %s: a value without a key", l.name)
	}
	js, err := l.store.stream()
	if err == nil {
		_, err = js.Publish(ctx, l.subject(key), value)
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) { // nobody has made it yet
		if js, _, err = l.stream(ctx); err == nil {
			_, err = js.Publish(ctx, l.subject(key), value)
		}
	}
	if err != nil {
		return fmt.Errorf("store: log %s: %w", l.name, err)
	}
	return nil
}

const batch = 1000

// Read gives the values of a key (of all keys, if it is empty) that are there when
// it begins, the oldest first.
func (l *Log) Read(ctx context.Context, key string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		fail := func(err error) { yield(nil, fmt.Errorf("store: log %s: %w", l.name, err)) }
		_, stream, err := l.stream(ctx)
		if err != nil {
			fail(err)
			return
		}
		c, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
			DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckNonePolicy, FilterSubject: l.subject(key),
			MemoryStorage: true, InactiveThreshold: time.Minute,
		})
		if err != nil {
			fail(err)
			return
		}
		defer func() { _ = stream.DeleteConsumer(context.WithoutCancel(ctx), c.CachedInfo().Name) }()
		for left := c.CachedInfo().NumPending; left > 0; {
			got, err := c.Fetch(int(min(left, batch)), jetstream.FetchMaxWait(2*time.Second)) //nolint:gosec // at most batch
			if err != nil {
				fail(err)
				return
			}
			values, err := drain(ctx, got)
			switch {
			case err != nil:
				fail(err)
				return
			case len(values) == 0: // what was left grew too old meanwhile
				return
			}
			left -= uint64(len(values))
			for _, v := range values {
				if !yield(v, nil) {
					return
				}
			}
		}
	}
}

func drain(ctx context.Context, batch jetstream.MessageBatch) (values [][]byte, err error) {
	for m := range batch.Messages() {
		values = append(values, m.Data())
	}
	return values, errors.Join(batch.Error(), ctx.Err())
}
