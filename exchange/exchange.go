// Package exchange reads calendars and automatic replies from Microsoft Exchange
// and states them as presence facts. It is the Exchange collector: cmd makes its
// sources from a configuration and gives them to the supervisor; replay and the
// one-shot sync call Poll.
//
// One configuration makes two sources, because what is polled apart must not
// erase each other: Calendar and Replies. They share the account and its
// connections, so when the server asks one to wait, both wait.
package exchange

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
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

// New makes the sources of a server. It reads the password and certificate files
// and connects to nothing. Where cfg.Replies is off, the Replies are nil.
func New(cfg Config, log *slog.Logger) (*Calendar, *Replies, error) {
	password, err := cfg.PasswordFile.Read()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	return newSources(cfg, password, nil, log)
}

// NewWithTransport is New with the network replaced, for replay and tests. The
// password file may be left out then.
func NewWithTransport(cfg Config, transport http.RoundTripper, log *slog.Logger) (*Calendar, *Replies, error) {
	password := "replayed"
	if cfg.PasswordFile != "" {
		var err error
		if password, err = cfg.PasswordFile.Read(); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", cfg.Name, err)
		}
	}
	return newSources(cfg, password, transport, log)
}

func newSources(cfg Config, password string, transport http.RoundTripper, log *slog.Logger) (*Calendar, *Replies, error) {
	client, err := ews.New(ews.Options{
		URL: cfg.URL, Account: ews.Account{User: cfg.User, Password: password}, Auth: ews.Auth(cfg.Auth), Lanes: cfg.Lanes,
		TLS: cfg.TLS, Timeout: cfg.Timeout, Transport: transport,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	calendar, replies := sources(cfg, client, log)
	return calendar, replies, nil
}

// sources makes the two sources over any wire.
func sources(cfg Config, w wire, log *slog.Logger) (*Calendar, *Replies) {
	a := &account{wire: w}
	calendar := &Calendar{source: newSource(cfg, "calendar", a, log), horizon: cfg.Horizon, busyIsMeeting: cfg.BusyIsMeeting}
	calendar.sweep = calendar.round
	if !cfg.Replies {
		return calendar, nil
	}
	replies := &Replies{source: newSource(cfg, "replies", a, log), sendingAs: cfg.Mailbox, since: map[presence.Subject]time.Time{}}
	replies.sweep, replies.dropped = replies.round, replies.drop
	return calendar, replies
}

// An account is what the sources of one server share: the wire, and until when
// it must not be used.
type account struct {
	wire wire

	mu    sync.Mutex
	until time.Time
	why   error
}

// refused is how long an account rests that was not let in, lest it be locked.
const refused = 5 * time.Minute

// hold keeps everyone off the wire if err, seen at the moment at, says so.
func (a *account) hold(at time.Time, err error) {
	var wait time.Duration
	if t, ok := errors.AsType[*ews.Throttled](err); ok {
		wait = t.Wait
	} else if _, ok := errors.AsType[*ews.Unauthorized](err); ok {
		wait = refused
	} else if o, ok := errors.AsType[*ews.Outage](err); ok {
		wait = o.Wait
	}
	if wait <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if until := at.Add(wait); until.After(a.until) {
		a.until, a.why = until, err
	}
}

// held tells how much longer the wire must not be used, and why; zero: it may be.
func (a *account) held(at time.Time) (time.Duration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if wait := a.until.Sub(at); wait > 0 {
		return wait, a.why
	}
	return 0, nil
}
