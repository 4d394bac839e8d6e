package signin

import (
	"sync"
	"time"
)

// A bell tells many that something has changed.
type bell struct {
	mu   sync.Mutex
	rung chan struct{} // closed at the next ring; nil: nobody waits
}

func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}

// Still tells whether somebody whom Guard found is who they were, and may what they
// might: for requests that last. It is no use of a session or token. changed is closed
// when accounts, sessions or tokens have changed, so that it may be over; a limit of
// time, or another directory, is told by asking again only.
func (d *Desk) Still(who Identity) (same bool, changed <-chan struct{}) {
	changed = d.bell.wait() // before anything is looked at
	return d.now(who) == who, changed
}

// now gives who somebody whom Guard found is now; nobody, if what they showed is over.
func (d *Desk) now(who Identity) Identity {
	now := time.Now()
	switch {
	case who.Token != "":
		for _, t := range d.tokens.list(who.Account) {
			if t.ID() == who.Token && now.Before(t.Expires) {
				is := d.identity(d.accounts.find(who.Account))
				is.Token, is.Scopes = who.Token, t.Scopes
				return is
			}
		}
		return Identity{}
	case who.Account != "":
		return d.bearerOf(who.session, now, d.sessions.peek)
	default:
		return d.stranger()
	}
}

// bearerOf gives who the session is of, as look finds it; nobody if it is over.
func (d *Desk) bearerOf(k key, now time.Time, look func(key, time.Time) (session, bool)) Identity {
	s, ok := look(k, now)
	if !ok {
		return Identity{}
	}
	a := d.accounts.find(s.Account)
	who := d.identity(a)
	if who.Account == "" || a.Epoch != s.Epoch {
		return Identity{}
	}
	who.session = k
	return who
}

// stranger is who did not sign in: anyone, or nobody where one has to.
func (d *Desk) stranger() Identity {
	if d.demanded {
		return Identity{}
	}
	return Identity{Role: Anyone}
}
