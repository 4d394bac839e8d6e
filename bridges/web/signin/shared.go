package signin

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"

	"golang.org/x/sync/errgroup"
)

// Watched tells what other machines write to a memory that they share; a bucket of the
// store is one.
type Watched interface {
	// Watch calls f with all that is there, then an empty key, then every change,
	// until ctx ends; a nil value was deleted. All may come again.
	Watch(ctx context.Context, f func(key string, value []byte, revision uint64))
}

// Hear takes what other machines change of accounts, sessions and tokens, until ctx
// ends: what ends there ends here. Of two changes of one account at the same time the
// later one counts. Limits of attempts, the first link and a sign-in by OpenID that is
// under way are those of each machine.
func (d *Desk) Hear(ctx context.Context, accounts, sessions, tokens Watched) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.loaded:
	}
	var g errgroup.Group
	hear := func(memory Watched, adopt func(key string, value []byte) error) {
		g.Go(func() error {
			memory.Watch(ctx, func(key string, value []byte, _ uint64) {
				if key == "" {
					return
				}
				if err := adopt(key, value); err != nil {
					d.deps.Log.WarnContext(ctx, "what another machine wrote about sign-in cannot be read and is left out", "error", err)
				}
			})
			return nil
		})
	}
	hear(accounts, d.accounts.adopt)
	hear(sessions, d.sessions.adopt)
	hear(tokens, d.tokens.adopt)
	return g.Wait()
}

var errNoKey = errors.New("a key that is none")

func (t *accounts) adopt(name string, value []byte) error {
	id, err := hex.DecodeString(name)
	if err != nil {
		return err
	}
	a := new(Account)
	if value != nil {
		if err := json.Unmarshal(value, a); err != nil {
			return err
		}
	}
	t.changing.Lock()
	defer t.changing.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if value == nil {
		delete(t.all, string(id))
	} else if a.ID() == string(id) {
		t.all[a.ID()] = a
	}
	t.bell.ring()
	return nil
}

func (t *sessions) adopt(name string, value []byte) error {
	k, ok := parseKey(name)
	if !ok {
		return errNoKey
	}
	s := &session{key: k}
	if value != nil {
		if err := json.Unmarshal(value, s); err != nil {
			return err
		}
	}
	s.noted = s.Seen
	t.mu.Lock()
	defer t.mu.Unlock()
	_, dirty := t.dirty[k]
	switch held := t.all[k]; {
	case value == nil && held != nil:
		delete(t.all, k)
		delete(t.dirty, k)
		t.bell.ring()
	case value == nil, held == nil && dirty: // it has ended here, and is yet to be deleted there
	case held == nil:
		t.all[k] = s
	case s.Seen.After(held.Seen):
		held.Seen, held.noted = s.Seen, s.Seen
	}
	return nil
}

func (t *tokens) adopt(name string, value []byte) error {
	k, ok := parseKey(name)
	if !ok {
		return errNoKey
	}
	one := &Token{key: k}
	if value != nil {
		if err := json.Unmarshal(value, one); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch held := t.all[k]; {
	case value == nil:
		delete(t.all, k)
		delete(t.dirty, k)
		t.bell.ring()
	case held == nil:
		t.all[k] = one
	case held.Expires.IsZero(): // revoked here, and yet to be deleted there
	case one.Used.After(held.Used):
		held.Used = one.Used
	}
	return nil
}
