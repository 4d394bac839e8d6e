package services_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"presenced/aggregator/services"
)

// What one catalog is told the other one serves.
func TestHear(t *testing.T) {
	kept, _ := bucket(t, t.TempDir())
	one, two := catalog(t, kept, (&trail{}).audit), catalog(t, kept, (&trail{}).audit)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, c := range []*services.Catalog{one, two} {
		if err := c.Load(ctx); err != nil {
			t.Fatal(err)
		}
	}
	hearing, deaf := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = two.Hear(hearing, kept) }()
	defer func() { deaf(); <-done }()

	served := func(what string, holds func(all []services.Record) bool) {
		t.Helper()
		for all := range two.Watch(ctx) {
			if holds(all) {
				return
			}
		}
		t.Fatal("the other catalog does not have it: ", what)
	}
	s := parsed(t, hq)
	out, err := one.Apply(ctx, order(services.Edit{ID: "hq", Service: &s}))
	if err != nil {
		t.Fatal(err)
	}
	served("added", func(all []services.Record) bool { return len(all) == 1 && all[0].Revision == out[0].Revision })
	s.Users = []string{"p2"}
	if out, err = two.Apply(ctx, order(services.Edit{ID: "hq", Service: &s, Revision: out[0].Revision})); err != nil {
		t.Fatal(err) // the revision is the one that was heard
	}
	s.Users = []string{"p3"}
	if _, err := one.Apply(ctx, order(services.Edit{ID: "hq", Service: &s, Revision: out[0].Revision - 1})); !errors.Is(err, services.ErrConflict) {
		t.Errorf("an edit of what the other catalog has changed: %v", err)
	}
	gone := order(services.Edit{ID: "hq", Revision: out[0].Revision})
	gone.Force = true
	if _, err := one.Apply(ctx, gone); err != nil { // it has read what is there
		t.Fatal(err)
	}
	served("deleted", func(all []services.Record) bool { return len(all) == 0 })
}
