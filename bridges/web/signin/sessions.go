package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// A key is the SHA-256 of a secret of 256 random bits, under which what the secret
// stands for is kept: who reads the memory or the store cannot use what is there.
type key [sha256.Size]byte

func (k key) String() string { return hex.EncodeToString(k[:]) }

// public names what the key stands for on pages and in the audit trail.
func (k key) public() string { return hex.EncodeToString(k[:8]) }

func parseKey(text string) (k key, ok bool) {
	data, err := hex.DecodeString(text)
	return key(append(data, make([]byte, sha256.Size)...)[:sha256.Size]), err == nil && len(data) == sha256.Size
}

// newSecret makes 256 random bits.
func newSecret() []byte {
	secret := make([]byte, 32)
	rand.Read(secret) //nolint:errcheck // never fails
	return secret
}

// sessionID is the form of a session's identifier in its cookie.
func sessionID(secret []byte) string { return base64.RawURLEncoding.EncodeToString(secret) }

// parseSessionID gives the key of an identifier; ok is false for what is none.
func parseSessionID(text string) (k key, ok bool) {
	if len(text) != 43 {
		return key{}, false
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(secret) != 32 {
		return key{}, false
	}
	return sha256.Sum256(secret), true
}

// A session is one sign-in of an account, in one browser.
type session struct {
	Account string    `json:"account"`
	Epoch   int       `json:"epoch"` // of the account when it began
	Began   time.Time `json:"began"`
	Seen    time.Time `json:"seen"` // the last request; in memory it may be seenStep older
	From    string    `json:"from"` // address
	Agent   string    `json:"agent,omitempty"`

	key   key
	noted time.Time // Seen, as it is in memory
}

// Bounds of the table.
const (
	maxSessions        = 50_000
	maxSessionsAccount = 20
	seenStep           = 5 * time.Minute
)

// sessions is the table of all sessions. It is written to memory behind its back:
// what could not be written is tried again by flush.
type sessions struct {
	idle, absolute time.Duration
	memory         Memory // nil: a restart ends all sessions
	bell           *bell  // rung when one ends

	writing sync.Mutex // so that of two writes of a key the newer one is last

	mu    sync.Mutex
	all   map[key]*session
	dirty map[key]struct{} // not in memory as they are in all
}

func newSessions(idle, absolute time.Duration, memory Memory, bell *bell) *sessions {
	return &sessions{idle: idle, absolute: absolute, memory: memory, bell: bell, all: map[key]*session{}, dirty: map[key]struct{}{}}
}

// load adds what memory has; what is over is removed from it by the next flush.
func (t *sessions) load(ctx context.Context, now time.Time, log *slog.Logger) error {
	if t.memory == nil {
		return nil
	}
	values, err := t.memory.Load(ctx)
	if err != nil {
		return fmt.Errorf("read the sessions: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, value := range values {
		k, ok := parseKey(name)
		s := &session{key: k}
		if err := json.Unmarshal(value, s); !ok || err != nil {
			log.WarnContext(ctx, "a session in the store cannot be read and is left out", "error", err)
			continue
		}
		s.noted = s.Seen
		if _, ended := t.dirty[k]; ended { // while the store could not be read
			continue
		}
		t.all[k] = s
	}
	t.sweep(now)
	return nil
}

// open begins a session of a and gives its identifier. Where a has too many, the
// one that was not used for longest ends.
func (t *sessions) open(a *Account, from, agent string, now time.Time) string {
	secret := newSecret()
	s := &session{Account: a.ID(), Epoch: a.Epoch, Began: now, Seen: now, From: from, Agent: agent, key: sha256.Sum256(secret)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if own := t.of(s.Account); len(own) >= maxSessionsAccount {
		t.drop(own[len(own)-1])
	}
	if len(t.all) >= maxSessions {
		var oldest *session
		for _, one := range t.all {
			if oldest == nil || one.Seen.Before(oldest.Seen) {
				oldest = one
			}
		}
		t.drop(oldest)
	}
	t.all[s.key] = s
	t.dirty[s.key] = struct{}{}
	return sessionID(secret)
}

// find gives the session and notes that it is used; ok is false for one that is over.
func (t *sessions) find(k key, now time.Time) (s session, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.all[k]
	if one == nil {
		return session{}, false
	}
	if t.over(one, now) {
		t.drop(one)
		return session{}, false
	}
	one.Seen = now
	if now.Sub(one.noted) >= seenStep {
		t.dirty[k] = struct{}{}
	}
	return *one, true
}

// peek is find without a use.
func (t *sessions) peek(k key, now time.Time) (s session, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.all[k]
	if one == nil || t.over(one, now) {
		return session{}, false
	}
	return *one, true
}

// over tells whether a limit has passed, or the session is of the future: the clock
// was turned back, and its limits mean nothing.
func (t *sessions) over(s *session, now time.Time) bool {
	return now.Sub(s.Seen) >= t.idle || now.Sub(s.Began) >= t.absolute || s.Began.Sub(now) > seenStep
}

// list gives the sessions of an account, the one used last first.
func (t *sessions) list(account string, now time.Time) []session {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []session
	for _, s := range t.of(account) {
		if !t.over(s, now) {
			all = append(all, *s)
		}
	}
	return all
}

// end ends those sessions of an account that which picks, and says how many.
func (t *sessions) end(account string, which func(session) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, s := range t.of(account) {
		if which(*s) {
			t.drop(s)
			n++
		}
	}
	return n
}

func (t *sessions) of(account string) []*session {
	var own []*session
	for _, s := range t.all {
		if s.Account == account {
			own = append(own, s)
		}
	}
	slices.SortFunc(own, func(a, b *session) int { return b.Seen.Compare(a.Seen) })
	return own
}

func (t *sessions) drop(s *session) {
	delete(t.all, s.key)
	t.dirty[s.key] = struct{}{}
	t.bell.ring()
}

// sweep drops what is over.
func (t *sessions) sweep(now time.Time) {
	for _, s := range t.all {
		if t.over(s, now) {
			t.drop(s)
		}
	}
}

// flush writes what is not in memory yet. What fails is written by a later one.
func (t *sessions) flush(ctx context.Context, now time.Time) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	t.sweep(now)
	var changed []key
	for k := range t.dirty {
		changed = append(changed, k)
	}
	if t.memory == nil {
		clear(t.dirty)
		changed = nil
	}
	t.mu.Unlock()
	var failed []error
	for _, k := range changed {
		if err := t.write(ctx, k); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (t *sessions) write(ctx context.Context, k key) error {
	t.mu.Lock()
	s, lives := t.all[k]
	var data []byte
	var err error
	if lives {
		s.noted = s.Seen
		data, err = json.Marshal(s)
	}
	delete(t.dirty, k)
	t.mu.Unlock()
	if err == nil && lives {
		err = t.memory.Put(ctx, k.String(), data)
	} else if err == nil {
		err = t.memory.Delete(ctx, k.String())
	}
	if err != nil {
		t.mu.Lock()
		t.dirty[k] = struct{}{}
		t.mu.Unlock()
		return fmt.Errorf("keep a session: %w", err)
	}
	return nil
}
