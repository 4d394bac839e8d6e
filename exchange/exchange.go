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
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
)

// New makes the sources of a server. It reads the password and certificate files
// and connects to nothing. Where cfg.Replies is off, the Replies are nil.
//
// Each Run and each Poll reads the password file again, so that a password that
// was changed needs no restart: what was let in with the old one is disconnected,
// and the next try does not wait because that one was refused.
func New(cfg Config, log *slog.Logger) (*Calendar, *Replies, error) {
	return NewWithTransport(cfg, nil, log)
}

// NewWithTransport is New with the network replaced, for replay and tests. The
// password file may be left out then.
func NewWithTransport(cfg Config, transport http.RoundTripper, log *slog.Logger) (*Calendar, *Replies, error) {
	a := &account{file: cfg.PasswordFile, password: "replayed"} // by the latter where there is no file
	a.dial = func(password string) (wire, error) {
		return ews.New(ews.Options{
			URL: cfg.URL, Account: ews.Account{User: cfg.User, Password: password}, Auth: ews.Auth(cfg.Auth), Lanes: cfg.Lanes,
			TLS: cfg.TLS, Timeout: cfg.Timeout, Transport: transport,
		})
	}
	var err error
	if a.file != "" {
		if a.password, err = a.file.Read(); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", cfg.Name, err)
		}
	}
	if a.wire, err = a.dial(a.password); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	calendar, replies := sources(cfg, a, log)
	return calendar, replies, nil
}

// sources makes the two sources of an account.
func sources(cfg Config, a *account, log *slog.Logger) (*Calendar, *Replies) {
	calendar := &Calendar{source: newSource(cfg, "calendar", a, log), horizon: cfg.Horizon, busyIsMeeting: cfg.BusyIsMeeting}
	calendar.sweep = calendar.round
	if !cfg.Replies {
		return calendar, nil
	}
	replies := &Replies{source: newSource(cfg, "replies", a, log), sendingAs: cfg.Mailbox, since: map[presence.Subject]time.Time{}}
	replies.sweep, replies.dropped = replies.round, replies.drop
	return calendar, replies
}
