package exchange

import (
	"context"
	"errors"
	"sync"
	"time"

	"presenced/exchange/ews"
	"presenced/internal/secret"
)

// A wire is a way to ask for free/busy times and automatic replies. The methods
// are those of ews.Client, with its typed errors and limits.
type wire interface {
	Availability(ctx context.Context, mailboxes []string, from, to time.Time) ([]ews.MailboxAvailability, error)
	MailTips(ctx context.Context, sendingAs string, mailboxes []string) ([]ews.Tip, error)
	TipLimit(ctx context.Context) (int, error)
	Lanes() int
	CloseIdle()
}

// An account is what the sources of one server share: the wire that goes with
// its password, and until when no wire may be used.
type account struct {
	file secret.File // of the password; empty: it stays as it is
	dial func(password string) (wire, error)

	mu       sync.Mutex
	password string
	wire     wire
	until    time.Time
	why      error
}

// refresh reads the password. Where it is not the one in use, there is a new
// wire from now on, and that the old password was refused counts no more.
func (a *account) refresh() error {
	if a.file == "" {
		return nil
	}
	a.mu.Lock() // before reading, lest an older password come after a newer one
	defer a.mu.Unlock()
	password, err := a.file.Read()
	if err != nil || password == a.password {
		return err
	}
	w, err := a.dial(password)
	if err != nil {
		return err
	}
	a.wire.CloseIdle() // what is in use now is closed by settle
	a.wire, a.password = w, password
	if isRefusal(a.why) {
		a.until, a.why = time.Time{}, nil
	}
	return nil
}

func (a *account) current() wire {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wire
}

// refused is how long an account rests that was not let in, lest it be locked.
const refused = 5 * time.Minute

func isRefusal(err error) bool {
	_, ok := errors.AsType[*ews.Unauthorized](err)
	return ok
}

// held tells how much longer no wire may be used, and why; zero: it may be.
func (a *account) held(at time.Time) (time.Duration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if wait := a.until.Sub(at); wait > 0 {
		return wait, a.why
	}
	return 0, nil
}

// settle keeps everyone off the wire if err, which came over w at the moment at,
// says so. It is not valid if it only says that a password was refused that has
// been replaced meanwhile.
func (a *account) settle(at time.Time, w wire, err error) (valid bool) {
	var wait time.Duration
	if t, ok := errors.AsType[*ews.Throttled](err); ok {
		wait = t.Wait
	} else if isRefusal(err) {
		wait = refused
	} else if o, ok := errors.AsType[*ews.Outage](err); ok {
		wait = o.Wait
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if w != a.wire {
		w.CloseIdle()
		if isRefusal(err) {
			return false
		}
	}
	if until := at.Add(wait); wait > 0 && until.After(a.until) {
		a.until, a.why = until, err
	}
	return true
}

// over makes one call for a sweep, over the wire of the moment.
func over[T any](s *sweep, call func(wire) (T, error)) (T, error) {
	for {
		w := s.account.current()
		answer, err := call(w)
		if s.account.settle(s.at(), w, err) {
			return answer, err
		}
	}
}
