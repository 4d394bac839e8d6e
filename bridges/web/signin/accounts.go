package signin

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"presenced/aggregator/presence"
)

// Memory keeps values over a restart. Put and Delete are durable on return. A
// memory of a bucket of the store is one.
type Memory interface {
	Load(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// The ways to sign in, Account.Via.
const (
	ViaLocal = "local"
	ViaLDAP  = "ldap"
	ViaOIDC  = "oidc"
)

// ViaSocket is the Identity.Via of who opened the control socket, as the kernel says:
// they have no account, and nothing of theirs can end.
const ViaSocket = "socket"

// An Account is somebody who may sign in, or did.
type Account struct {
	Via  string `json:"via"`
	User string `json:"user"` // local: the name to sign in with; LDAP: the DN; OIDC: issuer#sub
	Name string `json:"name"` // to show
	Role Role   `json:"role"` // LDAP, OIDC: as of the last sign-in

	Login string `json:"login,omitempty"` // LDAP: the name that was typed last

	// Subjects are what the directory may know the person by, the best first.
	Subjects []presence.Subject `json:"subjects,omitempty"`
	Seen     time.Time          `json:"seen,omitzero"` // the last sign-in; local: not kept

	Hash  *hash `json:"hash,omitempty"`  // of the password; local only
	Epoch int   `json:"epoch,omitempty"` // rises with a new password: sessions of another epoch are over
}

// ID names the account, such as "local:anna".
func (a *Account) ID() string { return a.Via + ":" + a.User }

// Bounds of the table.
const (
	maxUser     = 256 // bytes of a name to sign in with, or to show
	maxID       = 700 // bytes of an ID: what a key of the store takes in hexadecimal
	maxAccounts = 100_000
	// outsideLife is for how long the last sign-in by LDAP or OIDC vouches for an
	// account: its tokens end then, and it is forgotten. presenced does not learn
	// otherwise that somebody left.
	outsideLife = 30 * 24 * time.Hour
)

// Errors of accounts.
var (
	ErrUnread    = errors.New("the accounts could not be read yet; the store has to be there first")
	ErrNoAccount = errors.New("there is no such account")
	ErrAccount   = errors.New("there is an account of that name already")
	ErrLast      = errors.New("it is the last administrator with a password; make another one first")
)

// An Unfit error says what is wrong with an account that is asked for.
type Unfit string

func (u Unfit) Error() string { return string(u) }

func unfit(format string, args ...any) error { return Unfit(fmt.Sprintf(format, args...)) }

// accounts is the table of all accounts. A record never changes once it is in.
type accounts struct {
	memory Memory
	bell   *bell // rung when one changes

	changing sync.Mutex // held from a look at the table until the change is durable

	mu  sync.Mutex
	all map[string]*Account // by ID; nil: not read yet
}

func (t *accounts) load(ctx context.Context, log *slog.Logger) error {
	values, err := t.memory.Load(ctx)
	if err != nil {
		return fmt.Errorf("read the accounts: %w", err)
	}
	all := make(map[string]*Account, len(values))
	for key, value := range values {
		a := new(Account)
		if err := json.Unmarshal(value, a); err != nil || key != hex.EncodeToString([]byte(a.ID())) {
			log.WarnContext(ctx, "an account in the store cannot be read and is left out", "error", err)
			continue
		}
		all[a.ID()] = a
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = all
	return nil
}

// find gives the account; nil where there is none, or none was read yet.
func (t *accounts) find(id string) *Account {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[id]
}

// named gives the account that signs in with that name; nil where none did yet.
func (t *accounts) named(user string) *Account {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.all[ViaLocal+":"+user]; a != nil {
		return a
	}
	for _, a := range t.all {
		if a.Login != "" && a.Login == user {
			return a
		}
	}
	return nil
}

// check tells whether the table was read.
func (t *accounts) check() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		return ErrUnread
	}
	return nil
}

// room tells whether a may be put.
func (t *accounts) room(a *Account) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.all == nil:
		return ErrUnread
	case len(a.ID()) > maxID:
		return unfit("the account %.80q… is named in more than %d bytes", a.ID(), maxID)
	case len(t.all) >= maxAccounts && t.all[a.ID()] == nil:
		return unfit("there are %d accounts, which is all there may be", maxAccounts)
	}
	return nil
}

// list gives all, sorted by ID.
func (t *accounts) list() []*Account {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.all), func(a, b *Account) int { return cmp.Compare(a.ID(), b.ID()) })
}

// administrators counts those who satisfy which.
func (t *accounts) administrators(which func(*Account) bool) int {
	n := 0
	for _, a := range t.list() {
		if a.Role == Administrator && which(a) {
			n++
		}
	}
	return n
}

// put makes a durable, in place of what was there. The caller holds changing.
func (t *accounts) put(ctx context.Context, a *Account) error {
	if err := t.room(a); err != nil {
		return err
	}
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("keep the account %s: %w", a.ID(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	if err := t.memory.Put(ctx, hex.EncodeToString([]byte(a.ID())), data); err != nil {
		return fmt.Errorf("keep the account %s: %w", a.ID(), err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[a.ID()] = a
	t.bell.ring()
	return nil
}

// remove forgets a; it counts when it is durable. The caller holds changing.
func (t *accounts) remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	if err := t.memory.Delete(ctx, hex.EncodeToString([]byte(id))); err != nil {
		return fmt.Errorf("remove the account %s: %w", id, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, id)
	t.bell.ring()
	return nil
}

// forget removes the accounts from outside that nobody vouches for any more.
func (t *accounts) forget(ctx context.Context, now time.Time) error {
	t.changing.Lock()
	defer t.changing.Unlock()
	for _, a := range t.list() {
		if a.lapsed(now) {
			if err := t.remove(ctx, a.ID()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Account) lapsed(now time.Time) bool {
	return a.Via != ViaLocal && now.Sub(a.Seen) > outsideLife
}

// userName gives the one spelling of a name to sign in with; ok is false for what
// is none.
func userName(text string) (name string, ok bool) {
	text = strings.ToLower(strings.TrimSpace(text))
	return text, text != "" && len(text) <= maxUser && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// localName checks the name of a new local account.
func localName(text string) (string, error) {
	name, ok := userName(text)
	if !ok || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("._-@", r)
	}) {
		return "", unfit("a name has 1 to 64 letters a to z, digits, and . _ - @")
	}
	return name, nil
}
