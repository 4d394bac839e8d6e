package access

import (
	"bytes"
	"context"
	"errors"

	"presenced/aggregator/presence"
)

// Shared is a memory that several machines write to; a bucket of the store is one.
type Shared interface {
	// Change makes what f makes of a value the value, and gives its revision; nil is
	// none. f may be called more than once, and nobody else changes the value in
	// between. It is durable when it returns without an error.
	Change(ctx context.Context, key string, f func(held []byte) []byte) (revision uint64, err error)
	// Watch calls f with all that is there, then an empty key, then every change,
	// until ctx ends; a nil value was deleted. All may come again.
	Watch(ctx context.Context, f func(key string, value []byte, revision uint64))
}

var errElsewhere = errors.New("it was changed at another machine at the same time; look, and try again")

// Share has other machines write to the memory, too. A change of a person of whom
// another machine changed something that is not known here yet is refused. It is to
// be called before anything else.
func (g *Gate) Share(s Shared) { g.shared, g.revisions = s, map[string]uint64{} }

// Hear takes what other machines change, until ctx ends.
func (g *Gate) Hear(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-g.restored:
	}
	g.shared.Watch(ctx, func(key string, value []byte, revision uint64) {
		select {
		case <-ctx.Done():
		case <-g.turn:
			g.adopt(ctx, key, value, revision)
			g.turn <- struct{}{}
		}
	})
	return nil
}

// adopt makes what the store holds what counts here; the turn is held.
func (g *Gate) adopt(ctx context.Context, key string, value []byte, revision uint64) {
	if of, ok := owner(key, askedPrefix); ok {
		g.adoptRequests(of, value)
		return
	}
	of, ok := owner(key, ofPrefix)
	if !ok && key != everybodyKey || revision != 0 && revision <= g.revisions[key] {
		return // nothing of ours, or something of our own, after which more may have come
	}
	g.revisions[key] = max(revision, g.revisions[key])
	var r *record
	if value != nil {
		var err error
		if r, err = readRecord(of, value); err != nil {
			g.log.ErrorContext(ctx, "access rules of another machine cannot be read; whom they are about is shown to nobody", "key", key, "error", err)
			r = &record{Of: of, broken: true}
		}
	}
	g.put(of, r)
}

// put makes r the record of a person; the turn is held.
func (g *Gate) put(of presence.ID, r *record) {
	g.mu.Lock()
	g.held.Store(g.held.Load().with(of, r))
	if of == "" {
		g.settleAll()
	} else {
		g.settle(of)
	}
	g.mu.Unlock()
	g.poke()
	if of == "" {
		g.changed()
	} else {
		g.changed(of)
	}
}

// adoptRequests takes who waits for a person at another machine. Requests that are
// not written yet stand: then the other machine takes those.
func (g *Gate) adoptRequests(of presence.ID, value []byte) {
	requests := map[presence.Subject]Request{}
	if value != nil {
		var err error
		if requests, err = readAsked(of, value); err != nil {
			return // they ask again
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dirty[of] {
		return
	}
	g.waiting += len(requests) - len(g.requests[of])
	if g.requests[of] = requests; len(requests) == 0 {
		delete(g.requests, of)
	}
}

// writeShared is write where other machines write, too: what one of them has changed
// unseen stays.
func (g *Gate) writeShared(ctx context.Context, of presence.ID, r *record) error {
	base := g.held.Load().of(of)
	was, err := stored(base)
	if err != nil {
		return err
	}
	value, err := stored(r)
	if err != nil {
		return err
	}
	unseen := false
	revision, err := g.shared.Change(ctx, recordKey(of), func(held []byte) []byte {
		unseen = (base == nil || !base.broken) && !bytes.Equal(held, was) && !bytes.Equal(held, value)
		if unseen {
			return held
		}
		return value
	})
	switch {
	case err != nil:
		return err
	case unseen:
		return errElsewhere
	}
	g.revisions[recordKey(of)] = max(revision, g.revisions[recordKey(of)])
	return nil
}

// stored gives the value that the store holds of r; nil: none.
func stored(r *record) ([]byte, error) {
	if r == nil || r.blank() {
		return nil, nil
	}
	return encode(r)
}

// look makes what the store holds of a person what counts, after a change that may
// have arrived or not; the turn is held.
func (g *Gate) look(ctx context.Context, of presence.ID) error {
	var value []byte
	revision, err := g.shared.Change(ctx, recordKey(of), func(held []byte) []byte { value = held; return held })
	g.outcome(err)
	if err != nil {
		return err
	}
	g.mu.Lock()
	delete(g.unsure, of)
	g.mu.Unlock()
	g.adopt(ctx, recordKey(of), value, revision)
	return nil
}
