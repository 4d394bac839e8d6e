package signin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Token is what is kept of an API token: not the token.
type Token struct {
	Account string     `json:"account"`
	Name    string     `json:"name"`
	Scopes  Permission `json:"scopes"`
	Created time.Time  `json:"created"`
	Expires time.Time  `json:"expires"`
	Used    time.Time  `json:"used,omitzero"` // to the hour

	key key
}

// ID names the token on pages and in the audit trail.
func (t *Token) ID() string { return t.key.public() }

// Bounds of tokens.
const (
	tokenPrefix      = "pd_"
	maxTokens        = 10_000
	maxTokensAccount = 20
	maxTokenName     = 60
	maxTokenDays     = 366
	usedStep         = time.Hour
)

// ErrNoToken says that the account has no such token.
var ErrNoToken = errors.New("there is no such token")

// tokenText is the form of a token, which its owner sees once.
func tokenText(secret []byte) string {
	return tokenPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret))
}

// parseToken gives the key of a token; ok is false for what is none.
func parseToken(text string) (k key, ok bool) {
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(rest) != 52 {
		return key{}, false
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(rest))
	if err != nil || tokenText(secret) != text {
		return key{}, false
	}
	return sha256.Sum256(secret), true
}

// tokens is the table of all tokens.
type tokens struct {
	memory Memory
	bell   *bell // rung when one ends

	changing sync.Mutex // held while memory is written, so that nothing revoked is written again

	mu    sync.Mutex
	all   map[key]*Token
	dirty map[key]struct{} // used since they were written
}

func newTokens(memory Memory, bell *bell) *tokens {
	return &tokens{memory: memory, bell: bell, dirty: map[key]struct{}{}}
}

func (t *tokens) load(ctx context.Context, log *slog.Logger) error {
	values, err := t.memory.Load(ctx)
	if err != nil {
		return fmt.Errorf("read the tokens: %w", err)
	}
	all := make(map[key]*Token, len(values))
	for name, value := range values {
		k, ok := parseKey(name)
		one := &Token{key: k}
		if err := json.Unmarshal(value, one); !ok || err != nil {
			log.WarnContext(ctx, "a token in the store cannot be read and is left out", "error", err)
			continue
		}
		all[k] = one
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = all
	return nil
}

// add makes a token durable and gives it in the form that is shown once.
func (t *tokens) add(ctx context.Context, one Token) (text string, err error) {
	t.changing.Lock()
	defer t.changing.Unlock()
	secret := newSecret()
	one.key = sha256.Sum256(secret)
	if err := t.room(one.Account); err != nil {
		return "", err
	}
	if err := t.put(ctx, &one); err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[one.key] = &one
	return tokenText(secret), nil
}

func (t *tokens) room(account string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := 0
	for _, one := range t.all {
		if one.Account == account {
			own++
		}
	}
	switch {
	case t.all == nil:
		return ErrUnread
	case own >= maxTokensAccount:
		return fmt.Errorf("the account has %d tokens, which is all it may have; revoke one first", own)
	case len(t.all) >= maxTokens:
		return fmt.Errorf("there are %d tokens, which is all there may be; some have to be revoked first", len(t.all))
	}
	return nil
}

func (t *tokens) put(ctx context.Context, one *Token) error {
	data, err := json.Marshal(one)
	if err != nil {
		return fmt.Errorf("keep the token %s: %w", one.ID(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	if err := t.memory.Put(ctx, one.key.String(), data); err != nil {
		return fmt.Errorf("keep the token %s: %w", one.ID(), err)
	}
	return nil
}

// revoke ends a token of an account. It ends at once; an error says that it may
// come back with a restart.
func (t *tokens) revoke(ctx context.Context, account, id string) error {
	t.changing.Lock()
	defer t.changing.Unlock()
	for _, one := range t.list(account) {
		if one.ID() == id {
			return t.remove(ctx, one.key)
		}
	}
	return ErrNoToken
}

func (t *tokens) remove(ctx context.Context, k key) error {
	t.mu.Lock()
	was := t.all[k]
	if was != nil {
		was.Expires = time.Time{} // over, and tried again by the next flush
	}
	t.mu.Unlock()
	t.bell.ring()
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	if err := t.memory.Delete(ctx, k.String()); err != nil {
		return fmt.Errorf("revoke the token %s: it is refused from now on, but may come back if the service restarts before the store is there again: %w", k.public(), err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, k)
	delete(t.dirty, k)
	return nil
}

// find gives the token and notes that it is used; ok is false for one that is over.
func (t *tokens) find(k key, now time.Time) (one Token, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	got := t.all[k]
	if got == nil || !now.Before(got.Expires) {
		return Token{}, false
	}
	if hour := now.Truncate(usedStep); !hour.Equal(got.Used) {
		got.Used = hour
		t.dirty[k] = struct{}{}
	}
	return *got, true
}

// list gives the tokens of an account, or of all if that is empty, the newest first.
func (t *tokens) list(account string) []Token {
	t.mu.Lock()
	defer t.mu.Unlock()
	var own []Token
	for _, one := range t.all {
		if (account == "" || one.Account == account) && !one.Expires.IsZero() {
			own = append(own, *one)
		}
	}
	slices.SortFunc(own, func(a, b Token) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID(), b.ID()))
	})
	return own
}

// flush removes the tokens that are over, and those whose account is gone, and
// writes when the others were used.
func (t *tokens) flush(ctx context.Context, now time.Time, has func(account string) bool) error {
	t.changing.Lock()
	defer t.changing.Unlock()
	t.mu.Lock()
	var over []key
	var used []Token
	for k, one := range t.all {
		if _, dirty := t.dirty[k]; !now.Before(one.Expires) || !has(one.Account) {
			over = append(over, k)
		} else if dirty {
			used = append(used, *one)
		}
	}
	t.mu.Unlock()
	var failed []error
	for _, k := range over {
		if err := t.remove(ctx, k); err != nil {
			failed = append(failed, err)
		}
	}
	for _, one := range used {
		if err := t.put(ctx, &one); err != nil {
			failed = append(failed, err)
			continue
		}
		t.mu.Lock()
		delete(t.dirty, one.key)
		t.mu.Unlock()
	}
	return errors.Join(failed...)
}
