// Package domino collects calendars and out-of-office periods from HCL Domino.
//
// It has two sources, because what is polled apart must not erase each other:
// Calendar reads mail files by Domino Access Services, OutOfOffice asks a helper
// that the customer puts beside Domino. Both state facts and times only; what an
// entry is about never leaves package das. Nothing here was tried against a live
// Domino server.
//
// Package cmd makes the sources; the aggregator runs them.
package domino

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"presenced/aggregator/presence"
	"presenced/domino/das"
)

// New makes the sources of one Domino configuration; the second is nil unless an
// out-of-office driver is configured. It reads the TLS files and connects to
// nothing. The configuration is expected to have passed Check.
func New(cfg Config, log *slog.Logger) (*Calendar, *OutOfOffice, error) {
	settings, err := cfg.TLS.Client("") // the name to expect is the host of each URL
	if err != nil {
		return nil, nil, err
	}
	return NewWithTransport(cfg, log, &http.Transport{
		TLSClientConfig:     settings,
		ForceAttemptHTTP2:   true,
		MaxConnsPerHost:     2 * concurrency, // a calendar and a helper may share a host
		MaxIdleConnsPerHost: concurrency,
		IdleConnTimeout:     time.Minute,
	})
}

// NewWithTransport is New over a transport of the caller, such as a recording
// to replay. Without a password file the password is empty.
func NewWithTransport(cfg Config, log *slog.Logger, transport http.RoundTripper) (*Calendar, *OutOfOffice, error) {
	zone, err := time.LoadLocation(cfg.Timezone)
	if err != nil {
		return nil, nil, fmt.Errorf("timezone: %w", err)
	}
	calendar, err := newCalendar(cfg, zone, log, transport)
	if err != nil {
		return nil, nil, err
	}
	if cfg.OutOfOffice.Driver != DriverHelper {
		return calendar, nil, nil
	}
	replies, err := newOutOfOffice(cfg, log, transport)
	if err != nil {
		return nil, nil, err
	}
	return calendar, replies, nil
}

// Calendar is the source of calendar facts. It covers subjects of the scheme
// notes, such as Mail1/Acme!!mail/jdoe.nsf.
type Calendar struct{ *poller }

func newCalendar(cfg Config, zone *time.Location, log *slog.Logger, transport http.RoundTripper) (*Calendar, error) {
	options := das.Options{User: cfg.User, Zone: zone, ICalendar: cfg.Format == FormatICalendar, Timeout: cfg.Timeout, Transport: transport}
	for _, s := range cfg.Servers {
		options.Servers = append(options.Servers, das.Server{Name: s.Name, URL: s.URL})
	}
	client, err := das.NewClient(options)
	if err != nil {
		return nil, err
	}
	p := newPoller(cfg, cfg.Name+"/calendar", "notes", log, client)
	p.what = "mail files"
	p.refused = "every mail file answers 403: enable Calendar in the Domino Access Services of the Internet Site document, or give the user the right to read"
	p.locate = func(s presence.Subject) (string, error) {
		m, err := client.Locate(s.Value)
		return m.Server, err
	}
	p.read = func(ctx context.Context, now time.Time, s presence.Subject) (account, error) {
		m, err := client.Locate(s.Value)
		if err != nil {
			return account{}, err
		}
		w := window{from: now.Add(-cfg.Lookback), to: now.Add(cfg.Horizon)}
		list, err := client.Events(ctx, m, w.from, w.to)
		if err != nil {
			return account{}, err
		}
		return account{spans: calendarSpans(list, w, now), skipped: list.Skipped}, nil
	}
	return &Calendar{p}, nil
}

// OutOfOffice is the source of out-of-office periods. It covers subjects of the
// scheme mail.
type OutOfOffice struct{ *poller }

func newOutOfOffice(cfg Config, log *slog.Logger, transport http.RoundTripper) (*OutOfOffice, error) {
	helper, err := das.NewHelper(cfg.OutOfOffice.URL, cfg.User, cfg.Timeout, transport)
	if err != nil {
		return nil, fmt.Errorf("out_of_office: %w", err)
	}
	p := newPoller(cfg, cfg.Name+"/ooo", "mail", log, helper)
	p.what = "people"
	p.refused = "the helper answers 403 for everybody: give the user the right to ask it"
	p.locate = func(presence.Subject) (string, error) { return helper.Host(), nil }
	p.read = func(ctx context.Context, now time.Time, s presence.Subject) (account, error) {
		reply, err := helper.AutoReply(ctx, s.Value)
		if err != nil {
			return account{}, err
		}
		return account{spans: replySpans(reply, now)}, nil
	}
	return &OutOfOffice{p}, nil
}
