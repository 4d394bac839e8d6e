package aggregator

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

// Shared is a memory that several machines write to; a bucket of the store is one.
type Shared interface {
	// Change makes what f makes of a value the value; nil is none. f may be called
	// more than once, and nobody else changes the value in between. It is durable when
	// it returns without an error.
	Change(ctx context.Context, key string, f func(held []byte) []byte) (revision uint64, err error)
	Watched
}

// clearedLife is how long the store keeps that nothing is set any more: longer than
// any change takes to arrive.
const clearedLife = 24 * time.Hour

// errElsewhere is why a change is not kept that another machine forestalled.
var errElsewhere = errors.New("it was changed at another machine at the same time; look, and try again")

// Share has other machines write to the memory, too: of two changes of a person the
// later one counts, wherever it was made. It is to be called before anything else.
func (m *Manual) Share(s Shared) { m.shared = s }

// Hear takes what other machines set, until ctx ends.
func (m *Manual) Hear(ctx context.Context) error {
	m.shared.Watch(ctx, func(key string, value []byte, _ uint64) {
		if value == nil { // all is read; or it has ended, which is known here as well
			return
		}
		set, err := parseOverride(key, value)
		if err != nil {
			m.log.ErrorContext(ctx, "a state set by hand at another machine cannot be read and is left aside", "key", key, "error", err)
			return
		}
		if c, err := m.take(ctx, set.Person); err == nil {
			m.adopt(c, set)
			c.give()
		}
	})
	return nil
}

// adopt makes what another machine set what counts here, unless something later
// does; the turn is held.
func (m *Manual) adopt(c *choice, set *override) {
	if !set.At.After(c.last) {
		return
	}
	now, before := time.Now(), c.set
	c.set, c.last, c.cleared, c.unsure = set, set.At, set.Cleared, false
	if set.Cleared || set.ended(now) {
		c.set = nil
	}
	if c.member = m.hub.knows(set.Person); !c.member || c.set == nil && before == nil {
		return
	}
	report := presence.Report{Source: SourceManual, Subject: presence.Subject{Scheme: directory.SchemeID, Value: string(set.Person)}, At: set.At}
	if c.set != nil {
		report = set.report(now)
	}
	m.hub.accept(set.Person, report)
}

// writeShared is write where other machines write, too: what one of them set later stays.
func (m *Manual) writeShared(ctx context.Context, person presence.ID, set *override, at time.Time) error {
	key := stateKey(person)
	if set == nil {
		set = &override{Person: person, At: at, Cleared: true}
	}
	data, err := json.Marshal(set)
	if err != nil {
		return err
	}
	var late bool
	_, err = m.shared.Change(ctx, key, func(held []byte) []byte {
		theirs, err := parseOverride(key, held)
		if late = err == nil && theirs.At.After(at); late {
			return held
		}
		return data
	})
	if err == nil && late {
		err = errElsewhere
	}
	return err
}

// mend makes the store hold what counts; where other machines write, what they and
// changes that had no answer left there counts, if it is later.
func (m *Manual) mend(ctx context.Context, person presence.ID, c *choice) error {
	if m.shared == nil {
		return m.write(ctx, person, c.set, c.last)
	}
	key, now := stateKey(person), time.Now()
	var later *override
	_, err := m.shared.Change(ctx, key, func(held []byte) []byte {
		theirs, err := parseOverride(key, held)
		later = nil
		switch {
		case err != nil: // nothing, or nothing that could be read
			return held
		case theirs.At.After(c.last):
			later = theirs
		case c.set == nil && !theirs.Cleared, theirs.Cleared && now.Sub(theirs.At) > clearedLife:
			return nil
		}
		return held
	})
	m.outcome(err)
	if err == nil && later != nil {
		m.adopt(c, later)
	}
	return err
}
