package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
)

// Set sets a rule, in place of one for the same audience of the same person. It
// returns when that is durable, within five seconds, or with an error and nothing
// changed: ErrNobody, ErrUnfit, ErrNotKept, audit.ErrUnwritten. By and At of the
// rule are set here. The same holds for all changes below.
func (g *Gate) Set(ctx context.Context, by audit.Actor, r Rule) error {
	return g.set(ctx, by, "access set", r)
}

func (g *Gate) set(ctx context.Context, by audit.Actor, what string, r Rule) error {
	audience, err := r.For.fit()
	if err != nil {
		return err
	}
	r.For, r.By = audience, by.Who
	if r.Level > presence.LevelFull {
		return fmt.Errorf("level %d %w", r.Level, ErrUnfit)
	}
	return g.change(ctx, by, what, r.Of, true, func(draft *record, now time.Time) (string, error) {
		r.At = now
		return replaced(audience, draft.put(audience, &r), &r), nil
	})
}

// replaced says what a change of one rule is; empty: nothing changes.
func replaced(audience Audience, was, is *Rule) string {
	before, after := "none", "none"
	if was != nil {
		before = was.what()
	}
	if is != nil {
		after = is.what()
	}
	if before == after {
		return ""
	}
	return fmt.Sprintf("%s: %s -> %s", audience, before, after)
}

// Clear removes the rule of a person (empty: of everybody) for an audience; it is
// no error if there is none.
func (g *Gate) Clear(ctx context.Context, by audit.Actor, of presence.ID, audience Audience) error {
	audience, err := audience.fit()
	if err != nil {
		return err
	}
	return g.change(ctx, by, "access clear", of, false, func(draft *record, _ time.Time) (string, error) {
		return replaced(audience, draft.put(audience, nil), nil), nil
	})
}

// Allow lets a watcher in at a level that shows something.
func (g *Gate) Allow(ctx context.Context, by audit.Actor, of presence.ID, watcher presence.Subject, level presence.Level) error {
	if !(presence.Access{Level: level}).Shows() {
		return fmt.Errorf("to allow at level %s %w, because it shows nothing", level, ErrUnfit)
	}
	return g.one(ctx, by, "access allow", of, watcher, level)
}

// Deny blocks a watcher.
func (g *Gate) Deny(ctx context.Context, by audit.Actor, of presence.ID, watcher presence.Subject) error {
	return g.one(ctx, by, "access deny", of, watcher, presence.LevelBlock)
}

func (g *Gate) one(ctx context.Context, by audit.Actor, what string, of presence.ID, watcher presence.Subject, level presence.Level) error {
	if of == "" {
		return fmt.Errorf("%w: name a person", ErrNobody)
	}
	return g.set(ctx, by, what, Rule{Of: of, For: Audience{ForWatcher, watcher.String()}, Level: level})
}

// Revoke takes away what a watcher sees: the person's own rule for just this
// watcher goes, and where they would still see something, a rule that blocks them
// takes its place.
func (g *Gate) Revoke(ctx context.Context, by audit.Actor, of presence.ID, watcher presence.Subject) error {
	if of == "" {
		return fmt.Errorf("%w: name a person", ErrNobody)
	}
	audience, err := Audience{ForWatcher, watcher.String()}.fit()
	if err != nil {
		return err
	}
	return g.change(ctx, by, "access revoke", of, false, func(draft *record, now time.Time) (string, error) {
		if was := draft.rule(audience); was != nil && !(presence.Access{Level: was.Level}).Shows() {
			return "", nil
		}
		was := draft.put(audience, nil)
		if err := draft.index(); err != nil {
			return "", err
		}
		left := g.held.Load().with(of, draft).resolve(&g.terms, g.directory.Person, watcher, of)
		if !left.Shows() {
			return replaced(audience, was, nil), nil
		}
		block := &Rule{Of: of, For: audience, Level: presence.LevelBlock, By: by.Who, At: now}
		draft.put(audience, block)
		return replaced(audience, was, block), nil
	})
}

// SetCalendar sets how much of a person's calendar others see at level full.
func (g *Gate) SetCalendar(ctx context.Context, by audit.Actor, of presence.ID, p presence.CalendarPrivacy) error {
	if of == "" {
		return fmt.Errorf("%w: name a person", ErrNobody)
	}
	if p > presence.CalendarOpen {
		return fmt.Errorf("calendar privacy %d %w", p, ErrUnfit)
	}
	return g.change(ctx, by, "access privacy", of, true, func(draft *record, _ time.Time) (string, error) {
		was := g.terms.calendar.String() + " (default)"
		if draft.Calendar != nil {
			was = draft.Calendar.String()
		}
		draft.Calendar = &p
		if was == p.String() {
			return "", nil
		}
		return fmt.Sprintf("calendar: %s -> %s", was, p), nil
	})
}

// OptIn says that a person may be shown, or with in false, that they may not be
// where access.opt_in is set.
func (g *Gate) OptIn(ctx context.Context, by audit.Actor, of presence.ID, in bool) error {
	if of == "" {
		return fmt.Errorf("%w: name a person", ErrNobody)
	}
	words := map[bool]string{false: "out", true: "in"}
	return g.change(ctx, by, "access opt-"+words[in], of, in, func(draft *record, _ time.Time) (string, error) {
		was := draft.OptedIn
		if draft.OptedIn = in; was == in {
			return "", nil
		}
		return fmt.Sprintf("opted %s -> %s", words[was], words[in]), nil
	})
}

// Forget removes everything that was set of a person (empty: the rules for
// everybody), readable or not, and the requests of those who wait for them.
func (g *Gate) Forget(ctx context.Context, by audit.Actor, of presence.ID) error {
	ctx, done, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	f := g.held.Load()
	r := f.of(of)
	if r == nil {
		r = &record{}
	}
	detail := fmt.Sprintf("%d rules -> none", len(r.Rules))
	if r.broken {
		detail = "what cannot be read -> none"
	}
	return g.commit(ctx, by, "access forget", of, detail, nil)
}

func (r *record) rule(audience Audience) *Rule {
	for _, rule := range r.Rules {
		if rule.For == audience {
			return rule
		}
	}
	return nil
}

// begin waits for the turn to change. done gives it back. What was begun is ended
// though the caller goes away.
func (g *Gate) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	if g.held.Load() == nil {
		return ctx, nil, fmt.Errorf("%w: %w; try again in some seconds", ErrNotKept, ErrUnread)
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), changeWait, fmt.Errorf("no answer within %s", changeWait))
	select {
	case <-g.turn:
	case <-ctx.Done():
		cancel()
		return ctx, nil, fmt.Errorf("%w: an earlier change is under way; try again", ErrNotKept)
	}
	return ctx, func() { g.turn <- struct{}{}; cancel() }, nil
}

// change makes what edit makes of a draft of what was set, and of which it says in
// words what it is (empty: nothing changes).
func (g *Gate) change(ctx context.Context, by audit.Actor, what string, of presence.ID, member bool, edit func(draft *record, now time.Time) (string, error)) error {
	if member && of != "" && !g.known(of) {
		return fmt.Errorf("%w: %.100q; \"presenced sync directory -c FILE\" lists who is known", ErrNobody, of)
	}
	ctx, done, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	held := g.held.Load().of(of)
	if held != nil && held.broken {
		return fmt.Errorf("what was set of %s cannot be read, so a change %w; \"presenced access forget\" removes all of it", audit.Person(of), ErrUnfit)
	}
	draft := held.copy(of)
	detail, err := edit(draft, time.Now().UTC())
	if err != nil {
		return err
	}
	if detail == "" {
		if !g.isUnsure(of) {
			return nil
		}
		draft, detail = held.copy(of), "the same again"
	}
	if err := draft.index(); err != nil {
		return err
	}
	if _, err := encode(draft); errors.Is(err, ErrUnfit) {
		return err
	}
	return g.commit(ctx, by, what, of, detail, draft)
}

func (g *Gate) isUnsure(of presence.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.unsure[of]
}

// commit makes r what was set of a person; nil: nothing, and nobody waits for them.
// The turn is held.
func (g *Gate) commit(ctx context.Context, by audit.Actor, what string, of presence.ID, detail string, r *record) error {
	line := audit.Line{Who: by.Who, From: by.From, What: what, Whom: audit.Person(of), Detail: detail}
	if err := g.trail.Change(ctx, line, func(ctx context.Context) error { return g.write(ctx, of, r) }); err != nil {
		g.poke() // a write that failed may have arrived all the same
		if errors.Is(err, audit.ErrUnwritten) {
			return err
		}
		return fmt.Errorf("%w: %w; \"presenced status\" says how the store fares", ErrNotKept, err)
	}
	g.mu.Lock()
	if r == nil {
		g.waiting -= len(g.requests[of])
		delete(g.requests, of)
		if of != "" {
			g.dirty[of] = true
		}
	} else if r.blank() {
		r = nil
	}
	g.mu.Unlock()
	g.put(of, r)
	g.log.InfoContext(ctx, "the access rules changed", "what", what, "whom", line.Whom, "detail", detail, "by", by.Who)
	return nil
}
