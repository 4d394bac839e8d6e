package aggregator

import (
	"time"

	"presenced/aggregator/presence"
)

// Kind tells what a part of the system is.
type Kind string

// The kinds of parts.
const (
	KindSource Kind = "source"
	KindBridge Kind = "bridge"
	KindStore  Kind = "store"

	KindDirectory Kind = "directory" // where people are read from
)

// Health is how one part fares, as the supervisor sees it: what the part says of
// itself (Status), and what became of running it.
type Health struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
	presence.Status
	Since       time.Time `json:"since"`                 // when the phase began
	LastSuccess time.Time `json:"last_success,omitzero"` // last report accepted, or last time the part was live
	Restarts    int       `json:"restarts"`
	NextTry     time.Time `json:"next_try,omitzero"` // while waiting to try again
	Reports     uint64    `json:"reports,omitempty"` // accepted from this source
	Polls       bool      `json:"polls,omitempty"`   // it asks again when PollNow tells it to
}
