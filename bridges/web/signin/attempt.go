package signin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"presenced/aggregator/presence"
)

// errRefused is all that who tries to sign in is told: not whether there is such an
// account.
var errRefused = errors.New("user name or password is wrong")

// A tooManyError says that an allowance is used up.
type tooManyError struct{ wait time.Duration }

func (e *tooManyError) Error() string {
	return fmt.Sprintf("too many attempts: try again in %s", max(e.wait.Round(time.Second), time.Second))
}

// attempt finds the account of a name and a password. The error is errRefused, a
// *tooManyError, ErrUnread, or says that something else does not work.
func (d *Desk) attempt(ctx context.Context, typed, password string, from netip.Addr) (*Account, error) {
	if err := d.accounts.check(); err != nil {
		return nil, err
	}
	user, ok := userName(typed)
	if !ok {
		user = "" // nobody; counted and compared like everybody
	}
	source := network(from)
	pair := "pair " + source + " " + user
	wait, first := d.limits.take(time.Now(), claim{"source " + source, perSource()}, claim{pair, perPair()}, claim{"name " + user, perName()})
	if wait > 0 {
		if first {
			d.failed(ctx, user, from, "held back for "+wait.Round(time.Second).String())
		}
		return nil, &tooManyError{wait}
	}
	began := time.Now()
	a, err := d.match(ctx, user, password)
	if err == nil {
		d.limits.forget(pair)
		return a, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	level := slog.LevelWarn
	if errors.Is(err, errRefused) {
		level = slog.LevelInfo
	}
	d.deps.Log.Log(ctx, level, "somebody could not sign in", "error", err)
	d.failed(ctx, user, from, "")
	if d.ldap != nil { // a server takes another time than a hash: both look the same from outside
		hold := time.NewTimer(d.patience - time.Since(began))
		defer hold.Stop()
		select {
		case <-hold.C:
		case <-ctx.Done():
		}
	}
	return nil, errRefused
}

// match compares the password with that of the local account; where there is none
// with a decoy, and then LDAP is asked. The password of a local account is never
// shown to a server.
func (d *Desk) match(ctx context.Context, user, password string) (*Account, error) {
	if password == "" || len(password) > maxPassword || !utf8.ValidString(password) {
		password = "" // of which no hash is made, and which ldapBind refuses
	}
	leave, err := d.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if d.cfg.Local {
		a := d.accounts.find(ViaLocal + ":" + user)
		h := &d.decoy
		if a != nil && a.Hash != nil {
			h = a.Hash
		}
		fits := h.fits(password) && h != &d.decoy && password != ""
		switch {
		case fits:
			return d.renew(ctx, a, password), nil
		case a != nil:
			return nil, errRefused
		}
	}
	if d.ldap == nil || user == "" {
		return nil, errRefused
	}
	f, err := d.ldap.find(ctx, user, password)
	if err != nil {
		return nil, err
	}
	a := f.account(ViaLDAP, user)
	a.Login = user
	return d.vouch(ctx, a)
}

// renew makes the hash of a password anew, if one costs more by now.
func (d *Desk) renew(ctx context.Context, a *Account, password string) *Account {
	if !a.Hash.weaker(d.cost) {
		return a
	}
	d.accounts.changing.Lock()
	defer d.accounts.changing.Unlock()
	if d.accounts.find(a.ID()) != a { // changed meanwhile
		return a
	}
	b := *a
	b.Hash = d.hash(password)
	if err := d.accounts.put(ctx, &b); err != nil {
		d.deps.Log.WarnContext(ctx, "a stronger hash of a password could not be kept; the next sign-in tries again", "account", a.ID(), "error", err)
		return a
	}
	return &b
}

// found is what LDAP or OIDC says of somebody.
type found struct {
	user     string // by which the server knows them, whatever they typed
	name     string
	subjects []presence.Subject
	role     Role
}

func (f *found) account(via, otherwise string) *Account {
	return &Account{Via: via, User: f.user, Name: shown(f.name, otherwise), Role: f.role, Subjects: f.subjects, Seen: time.Now()}
}

// vouch keeps what a server says of an account that signed in just now.
func (d *Desk) vouch(ctx context.Context, a *Account) (*Account, error) {
	d.accounts.changing.Lock()
	defer d.accounts.changing.Unlock()
	was := d.accounts.find(a.ID())
	if a.Role == Nobody {
		if was != nil { // who was in a group, and is not any more
			if err := d.accounts.remove(ctx, a.ID()); err != nil {
				return nil, err
			}
		}
		return nil, fmt.Errorf("%s is in none of the groups that may sign in: %w", a.ID(), errRefused)
	}
	if was != nil && was.Role == a.Role && was.Name == a.Name && was.Login == a.Login && slices.Equal(was.Subjects, a.Subjects) && a.Seen.Sub(was.Seen) < time.Hour {
		return was, nil
	}
	if err := d.accounts.put(ctx, a); err != nil {
		return nil, err
	}
	return a, nil
}

// failed writes a line about a sign-in that failed, a bounded number of them. A
// name that is of no account is not written: it may be a password in the wrong field.
func (d *Desk) failed(ctx context.Context, user string, from netip.Addr, detail string) {
	whom := "an unknown name"
	if a := d.accounts.named(user); a != nil {
		whom = a.ID()
	}
	d.mu.Lock()
	if !d.failing.Allow() {
		d.unsaid++
		d.mu.Unlock()
		return
	}
	if d.unsaid > 0 {
		detail = strings.TrimSpace(fmt.Sprintf("%s (%d more were not written)", detail, d.unsaid))
		d.unsaid = 0
	}
	d.mu.Unlock()
	d.note(ctx, Note{"somebody", "page, " + from.String(), "sign-in failed", whom, detail})
}

// note writes a line about what happened anyway.
func (d *Desk) note(ctx context.Context, n Note) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	if err := d.deps.Audit(ctx, n); err != nil {
		d.deps.Log.ErrorContext(ctx, "the audit trail does not say who signed in or out", "what", n.What, "whom", n.Whom, "error", err)
	}
}

// shown makes a name fit to be shown: printable, of at most maxUser bytes.
func shown(name, otherwise string) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(name, "")))
	for len(name) > maxUser {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	return cmp.Or(name, otherwise)
}
