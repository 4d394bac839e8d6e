package main

import (
	"context"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
)

// A byHand sets presence by hand, for the control socket and the page: each change
// leaves a line in the audit trail before it is made.
type byHand struct {
	manual *aggregator.Manual
	hub    *aggregator.Hub
	trail  *audit.Trail // nil: no line is left
}

// Set is that of aggregator.Manual.
func (h *byHand) Set(ctx context.Context, by audit.Actor, id presence.ID, fact presence.Fact, until time.Time) (presence.Report, error) {
	detail := aggregator.ManualName(fact)
	if !until.IsZero() {
		detail += " until " + until.UTC().Format(time.RFC3339)
	}
	var report presence.Report
	err := h.change(ctx, by, "presence set", id, detail, func(ctx context.Context) error {
		var err error
		report, err = h.manual.Set(ctx, id, fact, until, by.Who)
		return err
	})
	return report, err
}

// Clear is that of aggregator.Manual.
func (h *byHand) Clear(ctx context.Context, by audit.Actor, id presence.ID) error {
	return h.change(ctx, by, "presence clear", id, "automatic", func(ctx context.Context) error { return h.manual.Clear(ctx, id, by.Who) })
}

// change leaves no line about nobody known, for whom the change fails.
func (h *byHand) change(ctx context.Context, by audit.Actor, what string, id presence.ID, detail string, do func(context.Context) error) error {
	if _, known := h.hub.State(id); h.trail == nil || !known {
		return do(ctx)
	}
	return h.trail.Change(ctx, audit.Line{Who: by.Who, From: by.From, What: what, Whom: audit.Person(id), Detail: detail}, do)
}
