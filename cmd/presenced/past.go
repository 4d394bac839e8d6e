package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
	"presenced/bridges/web"
	"presenced/internal/config"
)

// HistoryConfig is the history: section.
type HistoryConfig struct {
	Keep     time.Duration `yaml:"keep" default:"168h" doc:"How long is remembered what was known about people, for history, explanations of the past and dry runs of a policy. 0s: nothing is."`
	MaxBytes int64         `yaml:"max_bytes" default:"268435456" doc:"Largest size of that memory in the store, in bytes; beyond it the oldest goes."`
}

// Check tells what is wrong with c.
func (c *HistoryConfig) Check() []config.Problem {
	var ps []config.Problem
	if c.Keep != 0 && (c.Keep < time.Hour || c.Keep > 366*24*time.Hour) {
		ps = append(ps, config.Wrong("keep", "%s is neither 0s nor within an hour and a year", c.Keep))
	}
	if c.MaxBytes < 1<<20 {
		ps = append(ps, config.Wrong("max_bytes", "%d is less than 1 MiB", c.MaxBytes))
	}
	return ps
}

// An archive answers questions about the past from the journal. It is the web.Past
// of the page.
type archive struct {
	entries journal.Log // nil: nothing is remembered
	hub     *aggregator.Hub
	log     *slog.Logger
}

var errNoHistory = fmt.Errorf("%w: history.keep is 0s in the configuration", web.ErrNotRemembered)

// History implements web.Past.
func (a *archive) History(ctx context.Context, id presence.ID, since, until time.Time, as presence.Access, most int) ([]web.Change, error) {
	entries, err := a.all(ctx, id, until)
	if err != nil {
		return nil, err
	}
	return changesOf(entries, since, as, most), nil
}

// Day implements web.Past.
func (a *archive) Day(ctx context.Context, id presence.ID, since, now, until time.Time, as presence.Access, most int) (web.Day, error) {
	entries, err := a.all(ctx, id, now)
	if err != nil {
		return web.Day{}, err
	}
	var past journal.Past
	for _, e := range entries {
		past.Apply(e)
	}
	return web.Day{
		Changes: changesOf(entries, since, as, most),
		Said:    journal.Sayings(entries, since, until), Ahead: past.Ahead(id, a.hub.Policy(), now, until),
	}, nil
}

// all gives what was written down of a person up to a time.
func (a *archive) all(ctx context.Context, id presence.ID, until time.Time) ([]journal.Entry, error) {
	if a.entries == nil {
		return nil, errNoHistory
	}
	var out []journal.Entry
	for e, err := range a.read(ctx, id) {
		if err != nil {
			return nil, err
		}
		if e.At.After(until) {
			break
		}
		out = append(out, e)
	}
	return out, nil
}

// changesOf gives what held at since, and the changes after it, as a watcher saw them.
func changesOf(entries []journal.Entry, since time.Time, as presence.Access, most int) []web.Change {
	out := []web.Change{}
	for _, e := range entries {
		if e.Kind != journal.Shown || e.State == nil {
			continue
		}
		s := presence.View(*e.State, as)
		c := web.Change{
			At: e.At, Availability: s.Availability, Activity: s.Activity, Overlays: s.Overlays.Names(),
			Rule: s.Why.Rule, Title: s.Why.Title, Source: s.Why.Source,
		}
		if n := len(out); n > 0 {
			last := &out[n-1]
			if last.Availability == c.Availability && last.Activity == c.Activity && slices.Equal(last.Overlays, c.Overlays) {
				continue // only a channel or the reason changed
			}
			if !c.At.After(since) { // what held before the time asked for, only the last of it counts
				out = out[:0]
			}
		}
		if out = append(out, c); len(out) > most {
			out = out[1:]
		}
	}
	return out
}

// ExplainAt implements web.Past.
func (a *archive) ExplainAt(ctx context.Context, id presence.ID, at time.Time) (presence.Explanation, error) {
	if a.entries == nil {
		return presence.Explanation{}, errNoHistory
	}
	var past journal.Past
	for e, err := range a.read(ctx, id) {
		if err != nil {
			return presence.Explanation{}, err
		}
		if e.At.After(at) {
			break
		}
		past.Apply(e)
	}
	if past.At.IsZero() {
		return presence.Explanation{}, fmt.Errorf("%w about %s before %s", web.ErrNotRemembered, id, at.Format(time.RFC3339))
	}
	e := a.hub.Policy().Explain(id, past.Reports(), at)
	switch {
	case e.State.Availability == past.Shown.Availability && e.State.Activity == past.Shown.Activity:
		e.State.Since, e.State.Revision = past.Shown.Since, past.Shown.Revision
	case past.Shown.Person != "":
		e.WasShown = &past.Shown
	}
	return e, nil
}

// dryRun tells who would have been somebody else by another policy since a time.
func (a *archive) dryRun(ctx context.Context, was, would *presence.Policy, since, until time.Time) ([]journal.Difference, error) {
	if a.entries == nil {
		return nil, errNoHistory
	}
	people := map[presence.ID][]journal.Entry{}
	for e, err := range a.read(ctx, "") {
		if err != nil {
			return nil, err
		}
		if e.Kind == journal.Shown {
			continue // what was shown follows from what was said
		}
		people[e.Person] = append(people[e.Person], e)
	}
	out := []journal.Difference{}
	for id, entries := range people {
		out = append(out, journal.Compare(id, entries, was, would, since, until)...)
	}
	slices.SortFunc(out, func(a, b journal.Difference) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Person, b.Person))
	})
	return out, nil
}

// read gives the entries that can be read; the others are logged, and left out.
func (a *archive) read(ctx context.Context, id presence.ID) func(func(journal.Entry, error) bool) {
	return func(yield func(journal.Entry, error) bool) {
		for e, err := range journal.Entries(ctx, a.entries, id) {
			if errors.Is(err, journal.ErrUnreadable) {
				a.log.WarnContext(ctx, "an entry of the journal is left out", "error", err)
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}
