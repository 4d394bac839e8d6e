// Package aggregator makes one presence per person out of what the sources
// report, and gives it to the bridges. It holds the core (sans-I/O), the hub
// that shards it by person, the mailboxes of the watchers, the supervisor that
// runs sources and bridges, and the recorder that keeps reports across a
// restart.
//
// It is imported by cmd and by bridges/web, which administers it. It imports
// neither a collector nor a bridge, and reaches the store through small
// interfaces of its own.
package aggregator

import (
	"context"

	"presenced/aggregator/presence"
)

// A Source states facts about people. Types satisfy it without importing this package.
type Source interface {
	// Name is unique among the sources, stable over restarts, and the Source of
	// every report it emits.
	Name() string

	// Run blocks until ctx ends or the link is lost, and says why; the
	// supervisor runs it again, later each time, and at most once in five
	// minutes if the error is marked permanent. Every Run starts with a complete
	// account, then changes. It covers the subjects that roster gives. emit
	// blocks while the aggregator is behind, may be called from several
	// goroutines, and not after Run returned; its error ends Run. A report
	// about a subject that is nobody known is dropped without an error.
	Run(ctx context.Context, roster presence.Roster, emit func(presence.Report) error) error
}

// A Bridge carries states out, and reports of its endpoints in.
type Bridge interface {
	// Name is unique among the bridges and stable over restarts.
	Name() string

	// Run blocks until ctx ends or the peer is lost, and says why; the
	// supervisor runs it again as it does a Source.
	Run(ctx context.Context, hub presence.Hub) error
}
