// Package zones evaluates time zones that are given by rules instead of by a
// name: Exchange's SerializableTimeZone and iCalendar's VTIMEZONE. The rules are
// evaluated as they stand; nobody guesses an IANA zone from them. Any package
// may import it.
package zones

import (
	"fmt"
	"time"
)

// Rules is a time zone with at most two offsets and the rules for changing
// between them. The zero value is UTC.
type Rules struct {
	Standard, Daylight Transition
}

// A Transition is a change of the offset that comes back every year.
type Transition struct {
	// Offset is what holds from the transition on: local time minus UTC, so east
	// is positive. (Exchange's Bias has the other sign.)
	Offset time.Duration

	// Month, Week, Weekday and TimeOfDay name the moment in the local wall time
	// that holds before it. Week is 1 to 4, or 5 for the last such weekday of
	// the month. A zero Month means never: the zone stays at standard time.
	Month     time.Month
	Week      int
	Weekday   time.Weekday
	TimeOfDay time.Duration

	// Year restricts the transition to one year, and Week is then the day of the
	// month. Zero: every year.
	Year int
}

// Check tells whether the rules can be evaluated. Rules that fail it must not be used.
func (r *Rules) Check() error {
	for _, t := range []*Transition{&r.Standard, &r.Daylight} {
		switch {
		case t.Offset < -24*time.Hour || t.Offset > 24*time.Hour:
			return fmt.Errorf("time zone: offset %s is more than a day", t.Offset)
		case t.Month == 0:
			continue
		case t.Month < 0 || t.Month > time.December:
			return fmt.Errorf("time zone: no month %d", int(t.Month))
		case t.Weekday < time.Sunday || t.Weekday > time.Saturday:
			return fmt.Errorf("time zone: no weekday %d", int(t.Weekday))
		case t.TimeOfDay < 0 || t.TimeOfDay > 24*time.Hour:
			return fmt.Errorf("time zone: no time of day %s", t.TimeOfDay)
		case t.Year == 0 && (t.Week < 1 || t.Week > 5):
			return fmt.Errorf("time zone: no week %d in a month", t.Week)
		case t.Year != 0 && (t.Week < 1 || t.Week > 31):
			return fmt.Errorf("time zone: no day %d in a month", t.Week)
		}
	}
	return nil
}

// Saves tells whether the zone has daylight saving.
func (r *Rules) Saves() bool {
	return r.Standard.Month != 0 && r.Daylight.Month != 0 && r.Standard.Offset != r.Daylight.Offset
}

// Offset gives local time minus UTC at an instant.
func (r *Rules) Offset(at time.Time) time.Duration {
	if !r.Saves() {
		return r.Standard.Offset
	}
	// The latest transition up to now decides; a yearly one is at most a year back.
	at = at.UTC()
	var latest time.Time
	offset := r.Standard.Offset
	for year := at.Year() - 1; year <= at.Year()+1; year++ {
		for _, change := range [...]struct{ to, from *Transition }{{&r.Standard, &r.Daylight}, {&r.Daylight, &r.Standard}} {
			when, ok := change.to.in(year, change.from.Offset)
			if ok && !when.After(at) && when.After(latest) {
				latest, offset = when, change.to.Offset
			}
		}
	}
	return offset
}

// in gives the instant of the transition in a year; before is the offset until then.
func (t *Transition) in(year int, before time.Duration) (when time.Time, ok bool) {
	if t.Year != 0 && t.Year != year {
		return time.Time{}, false
	}
	day := t.Week
	if t.Year == 0 {
		first := time.Date(year, t.Month, 1, 0, 0, 0, 0, time.UTC).Weekday()
		day = 1 + int(t.Weekday-first+7)%7 + 7*(t.Week-1)
		if days := time.Date(year, t.Month+1, 0, 0, 0, 0, 0, time.UTC).Day(); day > days {
			day -= 7
		}
	}
	return time.Date(year, t.Month, day, 0, 0, 0, 0, time.UTC).Add(t.TimeOfDay - before), true
}

// Wall gives the local wall time at an instant, written as a time in UTC: its
// date and clock are what a person in the zone sees.
func (r *Rules) Wall(at time.Time) time.Time { return at.UTC().Add(r.Offset(at)) }

// ToUTC gives the instant at which the zone's wall time is what wall shows; the
// location of wall does not matter. A wall time that comes twice means the first
// of the two. One that is skipped is read with the offset that holds before the
// gap, so it comes out as much after the gap as it was after its beginning.
func (r *Rules) ToUTC(wall time.Time) time.Time {
	year, month, day := wall.Date()
	hour, minute, second := wall.Clock()
	naive := time.Date(year, month, day, hour, minute, second, wall.Nanosecond(), time.UTC)
	low, high := min(r.Standard.Offset, r.Daylight.Offset), max(r.Standard.Offset, r.Daylight.Offset)
	if !r.Saves() {
		return naive.Add(-r.Standard.Offset)
	}
	if early := naive.Add(-high); r.Offset(early) == high {
		return early
	}
	return naive.Add(-low)
}

// StartOfDay gives the instant at which the local day of an instant begins. That
// is not always midnight on the wall: some zones skip midnight once a year.
func (r *Rules) StartOfDay(at time.Time) time.Time {
	year, month, day := r.Wall(at).Date()
	return r.ToUTC(time.Date(year, month, day, 0, 0, 0, 0, time.UTC))
}
