package store

import (
	"bytes"
	"context"
	"maps"
	"sync"
)

// A Memory is the part of a bucket that one owner writes, with what it last held
// kept in the process: while the store is down its owner can still begin anew. Put
// and Delete are those of the bucket.
type Memory struct {
	*Bucket
	blank bool

	mu   sync.Mutex
	last map[string][]byte // nil: never read
}

// Memory makes one of b. With blank, a memory that was never read counts as empty
// while the store is down: for owners that can do without.
func (b *Bucket) Memory(blank bool) *Memory { return &Memory{Bucket: b, blank: blank} }

// Load gives all keys and values; while the store is down, those it last had.
func (m *Memory) Load(ctx context.Context) (map[string][]byte, error) {
	all, err := m.Bucket.Load(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		m.last = maps.Clone(all)
	case ctx.Err() != nil:
		return nil, err
	case m.last != nil:
		return maps.Clone(m.last), nil
	case m.blank:
		return map[string][]byte{}, nil
	}
	return all, err
}

// Put sets a value.
func (m *Memory) Put(ctx context.Context, key string, value []byte) error {
	err := m.Bucket.Put(ctx, key, value)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && m.last != nil {
		m.last[key] = bytes.Clone(value)
	}
	return err
}

// Delete removes a key.
func (m *Memory) Delete(ctx context.Context, key string) error {
	err := m.Bucket.Delete(ctx, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && m.last != nil {
		delete(m.last, key)
	}
	return err
}
