package aggregator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

// SourceManual is the source of what is set by hand. No other source may have this name.
const SourceManual = "manual"

// Manual is the presence that people set by hand: one state a person, the later
// one wins. It is acknowledged only when the store holds it, and comes back after
// a restart as it was, never doubted: it ends at its own end, or when it is
// cleared. All methods may be called from any goroutine.
type Manual struct {
	hub    *Hub
	memory Memory
	shared Shared // nil: no other machine writes to the memory
	log    *slog.Logger
	wake   chan struct{} // holds a token while a choice is unsure

	mu       sync.Mutex
	people   map[presence.ID]*choice
	restored bool
	failed   error // why the store did not take or give something last; nil after a success
	failedAt time.Time
}

// A choice is what one person has set. Who changes it holds its turn.
type choice struct {
	turn   chan struct{} // holds a token while nobody changes it
	set    *override     // nil: nothing
	last   time.Time     // the At of the newest report
	member bool          // the person was in the directory when last looked at
	unsure bool          // the store may hold something else than set

	cleared bool // the store holds that nothing is set since last
}

// An override is a state set by hand, as the store keeps it.
type override struct {
	Person presence.ID   `json:"person"`
	Fact   presence.Fact `json:"fact"`
	At     time.Time     `json:"at"` // rises with every change of this person, whatever the clock does
	From   time.Time     `json:"from"`
	Until  time.Time     `json:"until,omitzero"`
	By     string        `json:"by"`

	// Cleared says that nothing is set since At. Only machines that share a store keep
	// that, so that a change that another one made before cannot come after it.
	Cleared bool `json:"cleared,omitempty"`
}

// The times of Manual.
const (
	// LongestManual bounds how far ahead the end of a state set by hand may be.
	LongestManual = 366 * 24 * time.Hour

	manualWait  = 5 * time.Second // how long a change waits for the store
	repairWait  = 2 * time.Second // how long a repair does: shorter, so that a change can wait for it
	restoreWait = time.Minute     // how long a late Restore does
	repairPause = 5 * time.Second
	tidyPause   = time.Hour
)

// What is wrong with a change by hand, for callers that tell the kinds apart.
var (
	ErrNobody  = errors.New("nobody in the directory has this identifier")
	ErrUnfit   = errors.New("cannot be set by hand")
	ErrNotKept = errors.New("the store did not keep the change, so nothing has changed")
)

// NewManual makes a Manual that keeps what is set in memory.
func NewManual(hub *Hub, memory Memory, log *slog.Logger) *Manual {
	return &Manual{hub: hub, memory: memory, log: log, wake: make(chan struct{}, 1), people: map[presence.ID]*choice{}}
}

// ParseManual gives the fact for the name of a state that can be set by hand; the
// error, an ErrUnfit, names them all.
func ParseManual(name string) (presence.Fact, error) {
	if fact, err := presence.ParseFact(manualPrefix + name); err == nil && presence.ManualFacts.Has(fact) {
		return fact, nil
	}
	var names []string
	for fact := range presence.ManualFacts.All() {
		names = append(names, ManualName(fact))
	}
	return 0, fmt.Errorf("%.40q %w; these can: %s", name, ErrUnfit, strings.Join(names, " "))
}

// ManualName is the inverse of ParseManual.
func ManualName(fact presence.Fact) string { return strings.TrimPrefix(fact.String(), manualPrefix) }

const manualPrefix = "manual-"

// Set makes fact, one of presence.ManualFacts, the state of a person until the
// given end; the zero time leaves the end to presence.ManualLife. by says who did
// it. It returns once the store holds it and the state counts, within five
// seconds: with what was set, or with an error (ErrNobody, ErrUnfit, ErrNotKept)
// and nothing changed. Where the store gave no answer, it is made to hold again
// what was set before.
func (m *Manual) Set(ctx context.Context, person presence.ID, fact presence.Fact, until time.Time, by string) (presence.Report, error) {
	if !presence.ManualFacts.Has(fact) {
		return presence.Report{}, fmt.Errorf("%s %w", fact, ErrUnfit)
	}
	return m.change(ctx, person, func(now time.Time) (*override, error) {
		switch {
		case until.IsZero():
			until = presence.ManualLife(fact, m.hub.reports(person), now)
		case !until.After(now):
			return nil, fmt.Errorf("an end that has passed (%s) %w; name a later one", until.Format(time.RFC3339), ErrUnfit)
		case until.Sub(now) > LongestManual:
			return nil, fmt.Errorf("an end more than %d days ahead (%s) %w; name an earlier one", LongestManual/(24*time.Hour), until.Format(time.RFC3339), ErrUnfit)
		}
		return &override{Person: person, Fact: fact, From: now, Until: until.Round(0), By: by}, nil
	}, by)
}

// Clear ends what a person has set by hand; it is no error if that is nothing.
// It returns once that is durable, as Set does.
func (m *Manual) Clear(ctx context.Context, person presence.ID, by string) error {
	_, err := m.change(ctx, person, func(time.Time) (*override, error) { return nil, nil }, by) //nolint:nilnil // nothing is what is to be set
	return err
}

// change makes what next gives the choice of a person: in the store first, then in the hub.
func (m *Manual) change(ctx context.Context, person presence.ID, next func(now time.Time) (*override, error), by string) (presence.Report, error) {
	if !m.hub.knows(person) {
		return presence.Report{}, nobody(person)
	}
	if !m.isRestored() {
		return presence.Report{}, fmt.Errorf("%w: what was set before the start could not be read yet; try again in some seconds", ErrNotKept)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, manualWait, fmt.Errorf("no answer within %s", manualWait))
	defer cancel()
	c, err := m.take(ctx, person)
	if err != nil {
		return presence.Report{}, fmt.Errorf("%w: an earlier change of %s is under way; try again", ErrNotKept, person)
	}
	defer c.give()

	now := time.Now().Round(0) // as it will be read from the store
	set, err := next(now)
	if err != nil {
		return presence.Report{}, err
	}
	at := now
	if !at.After(c.last) { // the clock was set back
		at = c.last.Add(time.Nanosecond)
	}
	if set != nil {
		set.At = at
	}
	if err := m.write(ctx, person, set, at); err != nil {
		c.unsure = true // it may have arrived all the same
		m.poke()
		return presence.Report{}, fmt.Errorf("%w: %w; \"presenced status\" says how the store fares", ErrNotKept, err)
	}
	before := c.set
	c.set, c.last, c.unsure, c.cleared = set, at, false, set == nil && m.shared != nil
	report := presence.Report{Source: SourceManual, Subject: presence.Subject{Scheme: directory.SchemeID, Value: string(person)}, At: at}
	if set != nil {
		report = set.report(now)
	}
	if set != nil || before != nil {
		m.hub.accept(person, report)
	}
	if !m.hub.knows(person) {
		m.poke()
		return presence.Report{}, nobody(person)
	}
	c.member = true
	if set == nil {
		m.log.InfoContext(ctx, "presence set by hand is cleared", "person", person, "by", by)
	} else {
		m.log.InfoContext(ctx, "presence is set by hand", "person", person, "state", ManualName(set.Fact), "until", set.Until, "by", by)
	}
	return report, nil
}

func nobody(person presence.ID) error {
	return fmt.Errorf("%w: %.100q; \"presenced sync directory -c FILE\" lists who is known", ErrNobody, person)
}

// take waits for the turn to change what a person has set; give ends it.
func (m *Manual) take(ctx context.Context, person presence.ID) (*choice, error) {
	m.mu.Lock()
	c := m.people[person]
	if c == nil {
		c = &choice{turn: make(chan struct{}, 1)}
		c.give()
		m.people[person] = c // for good: who waits for a turn must not wait for a choice that counts no more
	}
	m.mu.Unlock()
	select {
	case <-c.turn:
		return c, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *choice) give() { c.turn <- struct{}{} }

// write makes the store hold set, or nothing; at is when that was changed.
func (m *Manual) write(ctx context.Context, person presence.ID, set *override, at time.Time) error {
	err := func() error {
		if m.shared != nil {
			return m.writeShared(ctx, person, set, at)
		}
		if set == nil {
			return m.memory.Delete(ctx, stateKey(person))
		}
		data, err := json.Marshal(set)
		if err != nil {
			return err
		}
		return m.memory.Put(ctx, stateKey(person), data)
	}()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	m.outcome(err)
	return err
}

func (m *Manual) outcome(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed = err
	if err != nil {
		m.failedAt = time.Now()
	}
}

func (m *Manual) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (o *override) ended(now time.Time) bool { return !o.Until.IsZero() && !now.Before(o.Until) }

// report is what the hub is told. It has no grace and is never restored by the
// recorder, so that nothing but its end ends it.
func (o *override) report(now time.Time) presence.Report {
	from := o.From
	if from.After(now) { // the clock was set back
		from = now
	}
	return presence.Report{
		Source: SourceManual, Subject: presence.Subject{Scheme: directory.SchemeID, Value: string(o.Person)}, At: o.At,
		Spans: []presence.Span{{Fact: o.Fact, From: from, Until: o.Until, Note: o.By}},
	}
}

// Restore puts back what was set before a restart. It is to be called when the
// directory is set, and before Hub.Restore, which then leaves the time since as
// it was. If it fails, Run tries again; changes are refused until then, because
// what they would replace is not known.
func (m *Manual) Restore(ctx context.Context) (people int, err error) {
	all, err := m.memory.Load(ctx)
	m.outcome(err)
	if err != nil {
		return 0, fmt.Errorf("restore what was set by hand: %w", err)
	}
	now := time.Now()
	for key, data := range all {
		set, err := parseOverride(key, data)
		if err != nil {
			m.log.ErrorContext(ctx, "a state set by hand cannot be read and is left aside", "key", key, "error", err)
			continue
		}
		c, err := m.take(ctx, set.Person)
		if err != nil {
			return people, err
		}
		c.set, c.last = set, set.At
		if c.cleared = set.Cleared; c.cleared {
			c.set = nil
		} else if c.member = m.hub.knows(set.Person); c.member && !set.ended(now) {
			m.hub.accept(set.Person, set.report(now))
			people++
		}
		c.give()
	}
	m.mu.Lock()
	m.restored = true
	m.mu.Unlock()
	return people, nil
}

func parseOverride(key string, data []byte) (*override, error) {
	var o override
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, err
	}
	if stateKey(o.Person) != key || !o.Cleared && !presence.ManualFacts.Has(o.Fact) || o.At.IsZero() {
		return nil, fmt.Errorf("it says %s of %.40q", o.Fact, o.Person)
	}
	return &o, nil
}

// Run tidies until ctx ends: it makes the store hold again what counts where a
// write failed, removes what has ended, and follows the directory: who enters has
// what was set for them, of who leaves nothing is kept.
func (m *Manual) Run(ctx context.Context) error {
	for {
		m.hub.changing.Lock() // not in the middle of a change of the directory
		people := m.hub.people.Load()
		m.hub.changing.Unlock()
		pause := tidyPause
		if !m.tidy(ctx) {
			pause = repairPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-people.replaced:
		case <-m.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// tidy looks at every choice once, and tells whether the store took everything.
func (m *Manual) tidy(ctx context.Context) (done bool) {
	if !m.isRestored() {
		one, cancel := context.WithTimeout(ctx, restoreWait)
		defer cancel()
		if _, err := m.Restore(one); err != nil {
			if ctx.Err() == nil {
				m.log.ErrorContext(ctx, "what was set by hand is not back yet", "error", err)
			}
			return false
		}
	}
	done = true
	m.mu.Lock()
	people := maps.Clone(m.people)
	m.mu.Unlock()
	for person, c := range people {
		select {
		case <-c.turn:
		case <-ctx.Done():
			return false
		}
		done = m.tidyOne(ctx, person, c) && done
		c.give()
	}
	return done
}

func (m *Manual) isRestored() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.restored
}

func (m *Manual) tidyOne(ctx context.Context, person presence.ID, c *choice) (done bool) {
	now := time.Now()
	member := m.hub.knows(person)
	left := c.member && !member
	c.member = member
	// Who was not there yet may come: part of the directory could not be read.
	if c.set != nil && (left || c.set.ended(now) || !member && now.Sub(c.set.At) > LongestManual) {
		c.set, c.unsure = nil, true
	}
	if c.set != nil && member {
		m.hub.accept(person, c.set.report(now)) // changes nothing, unless the person has just entered
	}
	if c.cleared && now.Sub(c.last) > clearedLife {
		c.cleared, c.unsure = false, true
	}
	if !c.unsure {
		return true
	}
	one, cancel := context.WithTimeoutCause(ctx, repairWait, fmt.Errorf("no answer within %s", repairWait))
	defer cancel()
	if err := m.mend(one, person, c); err != nil {
		return false
	}
	c.unsure = false
	return true
}

// Status tells how many have set their presence by hand, and how the store takes it.
func (m *Manual) Status() presence.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := presence.Status{Phase: presence.PhaseLive, Detail: "what is set by hand is kept"}
	if m.failed != nil {
		s.Phase, s.LastError, s.LastErrorAt = presence.PhaseDegraded, m.failed.Error(), m.failedAt
		s.Detail = "the store does not take what is set by hand; changes are refused"
	}
	if !m.restored {
		s.Phase = presence.PhaseDegraded
		s.Detail = "what was set by hand before the start is not back yet"
	}
	return s
}

// knows tells whether somebody is in the directory.
func (h *Hub) knows(id presence.ID) bool { return h.people.Load().Has(id) }

// reports gives what is held about a person; not to be changed.
func (h *Hub) reports(id presence.ID) []presence.Report {
	s := h.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Reports(id)
}
