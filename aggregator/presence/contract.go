package presence

import (
	"context"
	"errors"
	"iter"
	"time"
)

// A Roster gives the subjects of one scheme that a source is to cover: all of
// them, and all again after each change of the directory. The sequence ends
// when ctx ends; between two values it blocks. A slow reader skips rosters,
// never the newest. The slice is sorted, has no doubles, and must not be
// changed.
type Roster interface {
	Subjects(ctx context.Context, scheme string) iter.Seq[[]Subject]
}

// A Hub is the aggregator as a bridge sees it.
type Hub interface {
	// Watch gives the current state of each person asked for (all, if none is
	// named), then every change, until ctx ends. A slow reader skips states of
	// a person, never the newest one (R4). A person who left the directory
	// comes once more as Unknown with Why.Rule "removed".
	Watch(ctx context.Context, who ...ID) iter.Seq[State]

	// Person gives who is known by that subject, and how others address them.
	Person(subject Subject) (Person, bool)

	// Report takes what an endpoint of the bridge publishes: such an endpoint
	// is a source. It fails where the report is not fit (Report.Check) or its
	// subject is nobody known.
	Report(ctx context.Context, r Report) error
}

// A Person is who a state is about, as far as bridges need to know.
type Person struct {
	ID       ID        `json:"id"`
	Name     string    `json:"name"`
	Groups   []string  `json:"groups,omitempty"`
	Subjects []Subject `json:"subjects"`
}

// Address gives the person's first subject of that scheme, or the empty string.
func (p *Person) Address(scheme string) string {
	for _, s := range p.Subjects {
		if s.Scheme == scheme {
			return s.Value
		}
	}
	return ""
}

// RuleRemoved is the Why.Rule of the last state of a person who left the directory.
const RuleRemoved = "removed"

// Phase is how a source or a bridge fares.
type Phase string

// The phases, from the source state machine of the policy.
const (
	PhaseDisabled   Phase = "disabled"
	PhaseStandby    Phase = "standby"    // another machine runs it, or is about to
	PhaseConnecting Phase = "connecting" // not there yet, or waiting to try again
	PhaseSyncing    Phase = "syncing"    // connected, the first complete account is under way
	PhaseLive       Phase = "live"
	PhaseDegraded   Phase = "degraded" // lost, or partly not working; what it said still counts
	PhaseStale      Phase = "stale"    // lost for longer than its grace
)

// MaxUnmonitored bounds whom a Status names.
const MaxUnmonitored = 1000

// A Status is what a source or a bridge says of itself. A part that wants its
// progress and partial failures shown implements interface{ Status() Status };
// the call must not block.
type Status struct {
	Phase  Phase  `json:"phase"`
	Detail string `json:"detail,omitempty"` // in plain words: what is covered, or what is wrong and what to do
	Done   int    `json:"done,omitempty"`   // of Total, while syncing
	Total  int    `json:"total,omitempty"`

	// Problems counts what went wrong without ending the part, by kind, such as
	// "frames malformed" or "mailboxes without access".
	Problems map[string]int `json:"problems,omitempty"`
	// Unmonitored names subjects that cannot be covered, and why; at most
	// MaxUnmonitored. Uncovered is how many there are, where not all are named.
	Unmonitored map[string]string `json:"unmonitored,omitempty"`
	Uncovered   int               `json:"uncovered,omitempty"`
	LastError   string            `json:"last_error,omitempty"`
	LastErrorAt time.Time         `json:"last_error_at,omitzero"`
}

// A PermanentError tells the supervisor that trying again soon is useless or
// harmful, as with a wrong password: it then tries once in five minutes.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }

func (e *PermanentError) Unwrap() error { return e.Err }

// Permanent marks err, which may be nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &PermanentError{err}
}

// IsPermanent tells whether err is marked.
func IsPermanent(err error) bool {
	var p *PermanentError
	return errors.As(err, &p)
}
