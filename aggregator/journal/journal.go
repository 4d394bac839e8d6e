// Package journal remembers what was known about people, and when: what each
// source said, when that was doubted or expired, and what watchers saw. From it
// a past state can be explained, and another policy be tried on days that have
// passed. The aggregator writes it; cmd reads it.
package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"presenced/aggregator/presence"
)

// A Kind says what an entry is about.
type Kind string

// The kinds of entries.
const (
	Said    Kind = "said"    // a source said something new
	Doubted Kind = "doubted" // what a source said is doubted from now on
	Expired Kind = "expired" // what a source said counts no longer
	Shown   Kind = "shown"   // watchers see another state
	Left    Kind = "left"    // the person left the directory
)

// An Entry is one thing that changed about one person.
type Entry struct {
	At     time.Time   `json:"at"`
	Kind   Kind        `json:"kind"`
	Person presence.ID `json:"person"`

	Report  *presence.Report  `json:"report,omitempty"`  // of Said, without the times of its life
	Source  string            `json:"source,omitempty"`  // of Doubted and Expired
	Subject *presence.Subject `json:"subject,omitempty"` // of Doubted and Expired
	State   *presence.State   `json:"state,omitempty"`   // of Shown
}

// A Log keeps entries in the order in which they came, for as long as it is
// configured to: a log of the store is one.
type Log interface {
	// Append adds an entry under a key; it may block until the entry is durable.
	Append(ctx context.Context, key string, value []byte) error
	// Read gives the entries of a key (of all, if it is empty) that are there
	// when it is called, the oldest first.
	Read(ctx context.Context, key string) iter.Seq2[[]byte, error]
}

// A Journal writes entries off the path of an event. What waits is bounded: if
// the log does not take entries, the oldest that wait are dropped and counted,
// because presence matters more than its history.
type Journal struct {
	log  Log
	slog *slog.Logger

	mu      sync.Mutex
	waiting []Entry
	silent  bool
	dropped int
	failed  error
	since   time.Time
	wake    chan struct{}
}

// The most entries that wait for the log.
const limit = 100_000

// New makes a journal over a log.
func New(log Log, logger *slog.Logger) *Journal {
	return &Journal{log: log, slog: logger, wake: make(chan struct{}, 1)}
}

// Silence has Note take nothing, or take entries again: of several machines that know
// the same one is to write it down.
func (j *Journal) Silence(silent bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.silent = silent
}

// Note takes entries; it does not block.
func (j *Journal) Note(entries ...Entry) {
	if len(entries) == 0 {
		return
	}
	j.mu.Lock()
	if j.silent {
		j.mu.Unlock()
		return
	}
	j.waiting = append(j.waiting, entries...)
	if over := len(j.waiting) - limit; over > 0 {
		j.waiting = j.waiting[over:]
		j.dropped += over
	}
	j.mu.Unlock()
	j.poke()
}

// poke has Run look whether something waits.
func (j *Journal) poke() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends; then it writes what is left, within two seconds.
func (j *Journal) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			return j.Flush(last)
		case <-j.wake:
		}
		if err := j.Flush(ctx); err != nil && ctx.Err() == nil {
			j.slog.Error("the journal cannot be written; it is tried again", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
			}
			j.poke()
		}
	}
}

// Flush writes what waits.
func (j *Journal) Flush(ctx context.Context) error {
	for {
		j.mu.Lock()
		batch := j.waiting
		j.waiting = nil
		j.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		for i := range batch {
			err := j.write(ctx, &batch[i])
			j.mu.Lock()
			if err == nil {
				j.failed = nil
				j.mu.Unlock()
				continue
			}
			if j.failed == nil {
				j.since = time.Now()
			}
			j.failed = err
			j.waiting = append(batch[i:len(batch):len(batch)], j.waiting...)
			j.mu.Unlock()
			return err
		}
	}
}

func (j *Journal) write(ctx context.Context, e *Entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return j.log.Append(ctx, string(e.Person), data)
}

// Status tells how the log takes what is written.
func (j *Journal) Status() presence.Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := presence.Status{Phase: presence.PhaseLive, Detail: "what becomes known is written down"}
	if j.silent {
		s = presence.Status{Phase: presence.PhaseStandby, Detail: "another machine writes down what becomes known"}
	}
	if j.failed != nil {
		s = presence.Status{
			Phase: presence.PhaseDegraded, LastError: j.failed.Error(), LastErrorAt: j.since,
			Detail: fmt.Sprintf("%d entries wait for the store; presence goes on", len(j.waiting)),
		}
	}
	if j.dropped > 0 {
		s.Problems = map[string]int{"journal entries dropped": j.dropped}
	}
	return s
}

// ErrUnreadable wraps what is wrong with an entry that cannot be read.
var ErrUnreadable = errors.New("journal: an entry cannot be read")

// Entries gives what was written about a person (about everybody, if id is
// empty), the oldest first. An error of the log ends it; an entry that cannot
// be read is given as ErrUnreadable, and the others follow.
func Entries(ctx context.Context, log Log, id presence.ID) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for data, err := range log.Read(ctx, string(id)) {
			var e Entry
			if err != nil {
				yield(e, err)
				return
			}
			err := json.Unmarshal(data, &e)
			if err == nil && (e.Person == "" || id != "" && e.Person != id) {
				err = errors.New("it is about somebody else")
			}
			if err != nil {
				if !yield(Entry{}, errors.Join(ErrUnreadable, err)) {
					return
				}
				continue
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}
