package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The errors that callers tell apart.
var (
	ErrNotFound = errors.New("no such key")
	ErrConflict = errors.New("the value was changed meanwhile")
	ErrDown     = errors.New("the store cannot be used")                               // for now; it is tried again
	ErrFull     = errors.New("the store is full: raise store.max_bytes, or make room") // nothing was written
	ErrInUse    = errors.New("is in use by another presenced")
)

// A downError is ErrDown and why.
type downError struct{ why error }

func (e downError) Error() string   { return fmt.Sprintf("%v: %v", ErrDown, e.why) }
func (e downError) Unwrap() []error { return []error{ErrDown, e.why} }

// A Bucket maps keys to values. Keys are of letters, digits and -/_=. only, and
// neither begin nor end with a dot. Every write is durable when it returns
// without an error; after an error other than ErrConflict and ErrFull it may have
// been made or not.
//
// Get, Put and Delete can be repeated without harm, so they try again by
// themselves while a cluster elects a leader or the connection is being made anew,
// for 15 seconds or as long as ctx lasts. Create, Update and Remove are tried once: whoever
// gets an error other than ErrConflict must read before trying again.
//
// On a cluster a server that follows may answer Get and Load, and lag behind the
// last write by moments.
type Bucket struct {
	store  *Store
	name   string
	prefix string        // of the keys of a part
	ttl    time.Duration // how long a value lives; zero: for good
}

// The times of one operation. A cluster that lost a leader takes up to six seconds
// to elect another.
const (
	patience  = 15 * time.Second
	attempt   = 2 * time.Second
	firstWait = 50 * time.Millisecond
	longWait  = 500 * time.Millisecond
)

var bucketName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`) //nolint:gochecknoglobals // immutable

// Bucket opens a bucket, and makes it if it does not exist. While the store is
// down, that is left to the first use.
func (s *Store) Bucket(ctx context.Context, name string) (*Bucket, error) {
	return s.Expiring(ctx, name, 0)
}

// Expiring opens a bucket whose values vanish when nothing has written them for
// ttl, by the clock of the server that leads it; at least 100 ms. A backup leaves it
// out.
func (s *Store) Expiring(ctx context.Context, name string, ttl time.Duration) (*Bucket, error) {
	if !bucketName.MatchString(name) {
		return nil, fmt.Errorf("store: %q is no name for a bucket", name)
	}
	b := &Bucket{store: s, name: name, ttl: ttl}
	if _, err := b.bind(ctx); err != nil && !transient(err) {
		return nil, b.wrap("open", "", err)
	}
	return b, nil
}

// Part gives the keys of one owner, such as a bridge: a bucket of its own as far
// as its owner sees. The owner may have any name.
func (b *Bucket) Part(owner string) *Bucket {
	return &Bucket{store: b.store, name: b.name, ttl: b.ttl, prefix: b.prefix + hex.EncodeToString([]byte(owner)) + "."}
}

// Err is the Err of the store.
func (b *Bucket) Err() error { return b.store.Err() }

// bind gives the bucket in JetStream, and makes it at the first use.
func (b *Bucket) bind(ctx context.Context) (jetstream.KeyValue, error) {
	s := b.store
	s.mu.Lock()
	kv := s.bound[b.name]
	s.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	js, err := s.stream()
	if err != nil {
		return nil, err
	}
	if kv, err = s.make(ctx, js, b.name, b.ttl); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.js == js {
		s.bound[b.name] = kv
	}
	return kv, nil
}

// unbind has the bucket looked up again: the cluster may have lost it.
func (b *Bucket) unbind() {
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	delete(b.store.bound, b.name)
}

// once does f, one time.
func (b *Bucket) once(ctx context.Context, f func(context.Context, jetstream.KeyValue) error) error {
	kv, err := b.bind(ctx)
	if err == nil {
		err = f(ctx, kv)
	}
	if err != nil && transient(err) {
		b.unbind()
	}
	return err
}

// repeat does f until it succeeds or fails for good. A store that is known to be
// down is not waited for.
func (b *Bucket) repeat(ctx context.Context, f func(context.Context, jetstream.KeyValue) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		one, stop := context.WithTimeout(ctx, attempt)
		err := b.once(one, f)
		stop()
		if err == nil || !transient(err) || errors.Is(err, ErrDown) {
			return err
		}
		if why := b.store.gaveUp(); why != nil {
			return downError{why}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// Get gives a value and its revision; ErrNotFound.
func (b *Bucket) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	err = b.repeat(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		e, err := kv.Get(ctx, b.prefix+key)
		if err == nil {
			value, revision = e.Value(), e.Revision()
		}
		return err
	})
	return value, revision, b.wrap("get", key, err)
}

// Put sets a value whatever was there.
func (b *Bucket) Put(ctx context.Context, key string, value []byte) error {
	return b.wrap("put", key, b.repeat(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		_, err := kv.Put(ctx, b.prefix+key, value)
		return err
	}))
}

// Create sets a value where there is none; ErrConflict.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	err = b.once(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		revision, err = kv.Create(ctx, b.prefix+key, value)
		return err
	})
	return revision, b.wrap("create", key, err)
}

// Update replaces the value of this revision; ErrConflict.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, last uint64) (revision uint64, err error) {
	err = b.once(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		revision, err = kv.Update(ctx, b.prefix+key, value, last)
		return err
	})
	return revision, b.wrap("update", key, err)
}

// Delete removes a key; one that does not exist is no error.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	return b.wrap("delete", key, b.repeat(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		return kv.Purge(ctx, b.prefix+key)
	}))
}

// Remove deletes the value of this revision; ErrConflict. It is tried once, as Update
// is.
func (b *Bucket) Remove(ctx context.Context, key string, last uint64) error {
	return b.wrap("remove", key, b.once(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		return kv.Purge(ctx, b.prefix+key, jetstream.LastRevision(last))
	}))
}

// Change makes what f makes of a value the value, and gives its revision: nil is no
// value, before and after, and then the revision is zero. Nobody else changes it in
// between: f is called again with what is there then. Where f gives back what it was
// given, nothing is written. It tries as long as Put.
func (b *Bucket) Change(ctx context.Context, key string, f func(held []byte) []byte) (revision uint64, err error) {
	err = b.repeat(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		for wait := firstWait; ; wait = min(2*wait, longWait) {
			revision, err = b.change(ctx, kv, b.prefix+key, f)
			if !conflict(err) {
				return err
			}
			timer := time.NewTimer(wait) // a server that follows may not know the newest value yet
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
		}
	})
	return revision, b.wrap("change", key, err)
}

func (b *Bucket) change(ctx context.Context, kv jetstream.KeyValue, key string, f func(held []byte) []byte) (revision uint64, err error) {
	var held []byte
	e, err := kv.Get(ctx, key)
	switch {
	case err == nil:
		held, revision = append([]byte{}, e.Value()...), e.Revision()
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return 0, err
	}
	value := f(held)
	switch {
	case (value == nil) == (held == nil) && bytes.Equal(value, held):
		return revision, nil
	case value == nil:
		return 0, kv.Purge(ctx, key, jetstream.LastRevision(revision))
	case held == nil:
		return kv.Create(ctx, key, value)
	default:
		return kv.Update(ctx, key, value, revision)
	}
}

// conflict tells whether somebody else has changed the value.
func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) ||
		errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

func (b *Bucket) wrap(verb, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound):
		err = ErrNotFound
	case conflict(err):
		err = ErrConflict
	case full(err):
		err = fmt.Errorf("%w (%w)", ErrFull, err)
	}
	return fmt.Errorf("store: %s %s: %w", verb, strings.TrimSuffix(b.name+"/"+key, "/"), err)
}

// Codes of JetStream for a store that takes no more.
const (
	codeInsufficient  = 10023 // insufficient resources
	codeStorage       = 10047 // insufficient storage resources available
	codeStoreFailed   = 10077 // the stream failed to store, such as "maximum bytes exceeded"
	codeNotEnabled    = 10076 // JetStream not enabled, as after a full disk
	statusUnavailable = 503
)

func full(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeInsufficient || api.ErrorCode == codeStorage || api.ErrorCode == codeStoreFailed)
}

// transient tells whether the same may succeed soon.
func transient(err error) bool {
	if full(err) {
		return false
	}
	for _, passing := range []error{
		ErrDown, context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionClosed,
		nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded, jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound,
		jetstream.ErrBucketNotFound, jetstream.ErrJetStreamNotEnabled,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.Code == statusUnavailable || api.ErrorCode == codeNotEnabled)
}
