package exchange

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
)

// scheme is that of the subjects covered: primary SMTP addresses in lower case.
const scheme = "mail"

// A source is what Calendar and Replies have in common: being polled.
type source struct {
	name     string
	interval time.Duration
	account  *account
	log      *slog.Logger

	// sweep reports about mailboxes as they are at the moment now, each as soon
	// as it is known. It gives those that were not reached, with the error that
	// stopped it. emit may be called from several goroutines.
	sweep func(ctx context.Context, now time.Time, mailboxes []presence.Subject, emit emitter) (left []presence.Subject, err error)

	// dropped, if any, is told which mailboxes are still covered.
	dropped func(keep map[presence.Subject]bool)

	again chan struct{} // holds a token where the next poll is not to wait

	mu        sync.Mutex
	phase     presence.Phase
	detail    string
	done      int
	total     int
	counts    map[string]int
	fates     map[presence.Subject]fate
	lastError string
	lastAt    time.Time
}

type emitter func(presence.Report) error

func newSource(cfg Config, part string, a *account, log *slog.Logger) *source {
	name := cfg.Name + "/" + part
	return &source{
		name: name, interval: cfg.Interval, account: a, log: log.With("source", name), phase: presence.PhaseConnecting,
		again: make(chan struct{}, 1), counts: map[string]int{}, fates: map[presence.Subject]fate{},
	}
}

// Name implements aggregator.Source.
func (s *source) Name() string { return s.name }

// Poll gives one complete account of the mailboxes as they are at the moment
// now: nothing in the reports depends on any other clock. A mailbox that the
// server cannot tell about just now has no report, and what was said before
// stands. With an error come the reports that were made before it. Poll reads the
// password first.
func (s *source) Poll(ctx context.Context, now time.Time, mailboxes []presence.Subject) ([]presence.Report, error) {
	if err := s.account.refresh(); err != nil {
		return nil, s.verdict(err)
	}
	var (
		mu      sync.Mutex
		reports []presence.Report
	)
	_, err := s.sweep(ctx, now.UTC(), mailboxes, func(r presence.Report) error {
		mu.Lock()
		defer mu.Unlock()
		reports = append(reports, r)
		return nil
	})
	slices.SortFunc(reports, func(a, b presence.Report) int { return strings.Compare(a.Subject.Value, b.Subject.Value) })
	return reports, s.verdict(err)
}

// PollNow has Run ask about every mailbox at once, also those that are not asked
// about for a while. It does not shorten the rest of an account that was not let in, or
// that the server asked to wait.
func (s *source) PollNow() {
	s.mu.Lock()
	for m, f := range s.fates {
		f.next = time.Time{}
		s.fates[m] = f
	}
	s.mu.Unlock()
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// Run implements aggregator.Source. It reads the password, polls at once and then
// every interval, give or take a tenth; mailboxes that join the roster are polled
// at once. When the server asks to wait, Run waits and goes on where it was; any
// other failure of the whole ends it, and so does a password file that cannot be
// read.
func (s *source) Run(ctx context.Context, roster presence.Roster, emit func(presence.Report) error) error {
	if err := s.account.refresh(); err != nil {
		return s.verdict(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	changes, stopped := follow(ctx, roster)
	defer func() {
		cancel()
		<-stopped
		s.account.current().CloseIdle()
	}()
	s.set(presence.PhaseConnecting, "waiting for the directory")

	var (
		all, due []presence.Subject // those to cover, and those of them to be asked now
		next     time.Time          // when all are due again
		timer    = time.NewTimer(s.interval)
	)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case roster := <-changes:
			due, all = stillDue(roster, all, due), roster
			s.forget(all)
			if len(all) == 0 {
				s.set(presence.PhaseLive, "the directory names no mailbox")
			}
		case <-s.again:
			next = time.Time{}
		case <-timer.C:
		}
		if now := time.Now(); !now.Before(next) {
			due, next = all, now.Add(s.jittered())
		}
		var wait time.Duration
		if len(due) > 0 {
			var err error
			if due, wait, err = s.step(ctx, due, emit); err != nil {
				return err
			}
		}
		if pause := time.Until(next); wait <= 0 || pause < wait {
			wait = pause
		}
		timer.Reset(wait)
	}
}

// step asks about the mailboxes that are due, unless the account has to rest. It
// gives those that remain, and how long to wait before going on with them.
func (s *source) step(ctx context.Context, due []presence.Subject, emit emitter) (left []presence.Subject, wait time.Duration, err error) {
	if wait, why := s.account.held(time.Now()); wait > 0 {
		if isRefusal(why) && wait > refused/10 {
			return nil, 0, s.verdict(why)
		}
		s.set(presence.PhaseDegraded, why.Error())
		return due, wait, nil
	}
	left, err = s.sweep(ctx, time.Now().UTC(), due, emit)
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	if busy, ok := errors.AsType[*ews.Throttled](err); ok {
		return left, busy.Wait, nil
	}
	return left, 0, s.verdict(err)
}

// jittered gives the interval, give or take a tenth, so that sources started
// together do not stay together.
func (s *source) jittered() time.Duration {
	return time.Duration(float64(s.interval) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // no secret hangs on it
}

// follow gives the rosters, the newest one where they are not taken in time.
// stopped is closed when ctx has ended and nothing runs any more.
func follow(ctx context.Context, roster presence.Roster) (changes chan []presence.Subject, stopped chan struct{}) {
	changes, stopped = make(chan []presence.Subject, 1), make(chan struct{})
	go func() {
		defer close(stopped)
		for mailboxes := range roster.Subjects(ctx, scheme) {
			select {
			case <-changes: // not taken yet, and now too old
			default:
			}
			changes <- mailboxes
		}
	}()
	return changes, stopped
}

// stillDue gives those of the new roster that were due already, or are new.
func stillDue(roster, before, due []presence.Subject) []presence.Subject {
	skip := make(map[presence.Subject]bool, len(before))
	for _, m := range before {
		skip[m] = true
	}
	for _, m := range due {
		skip[m] = false
	}
	var out []presence.Subject
	for _, m := range roster {
		if !skip[m] {
			out = append(out, m)
		}
	}
	return out
}

// verdict says whether trying again soon is useless.
func (s *source) verdict(err error) error {
	if err == nil {
		return nil
	}
	named := fmt.Errorf("%s: %w", s.name, err)
	_, useless := errors.AsType[*ews.ConfigError](err)
	if fault, ok := errors.AsType[*ews.Fault](err); ok {
		useless = fault.Defect()
	}
	if useless || isRefusal(err) {
		return presence.Permanent(named)
	}
	return named
}
