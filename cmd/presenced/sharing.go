package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"

	"presenced/aggregator"
	"presenced/aggregator/journal"
	"presenced/aggregator/lease"
	"presenced/aggregator/store"
)

// sharing is what one machine needs to share a cluster with others.
type sharing struct {
	*lease.Keeper
	reports, services *store.Bucket
	log               *slog.Logger
}

// newSharing joins the machines that share the cluster; nil: this is the only one.
func newSharing(ctx context.Context, cfg *Config, kept *store.Store, log *slog.Logger) (*sharing, error) {
	if cfg.Store.URL == "" || cfg.Store.Lease == 0 {
		return nil, nil //nolint:nilnil // there is nothing to share
	}
	host, err := os.Hostname()
	if err != nil && cfg.Store.Node == "" {
		return nil, fmt.Errorf("store.node: this machine has no name, give it one: %w", err)
	}
	leases, err := kept.Expiring(ctx, "leases", cfg.Store.Lease)
	if err != nil {
		return nil, err
	}
	s := &sharing{log: log.With("part", "leases")}
	if s.reports, err = kept.Bucket(ctx, "reports"); err != nil {
		return nil, err
	}
	if s.services, err = kept.Bucket(ctx, "services"); err != nil {
		return nil, err
	}
	s.Keeper = lease.New(cmp.Or(cfg.Store.Node, host), cfg.Store.Lease, leases, lease.Errors{NotFound: store.ErrNotFound, Conflict: store.ErrConflict}, s.log)
	return s, nil
}

// machine gives what tells the parts of this machine from those of others; empty: there
// are none.
func (s *sharing) machine() string {
	if s == nil {
		return ""
	}
	return s.Machine()
}

// follow has the hub know what sources say that run on other machines, until ctx ends.
func (s *sharing) follow(ctx context.Context, hub *aggregator.Hub) error {
	return aggregator.NewFollower(hub, s, s.reports, s.log).Run(ctx)
}

// remember has the journal written by one machine, until ctx ends: all know the same.
func (s *sharing) remember(ctx context.Context, j *journal.Journal) error {
	j.Silence(true)
	for ctx.Err() == nil {
		_ = s.Hold(ctx, "presenced/journal", func(ctx context.Context) error {
			j.Silence(false)
			defer j.Silence(true)
			<-ctx.Done()
			return ctx.Err()
		})
	}
	return nil
}
