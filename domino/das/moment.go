package das

import (
	"errors"
	"strings"
	"time"
)

// A form is how a date and time is bound to the globe.
type form uint8

const (
	formDate   form = iota // a day, all of it
	formUTC                // a moment
	formZone               // a wall time in a zone
	formMissed             // nothing was given
)

// A stamp is a date or a time as it stands in a calendar. In formZone the wall
// time is that of the zone of the TZID beside it, or of the mailbox without one.
type stamp struct {
	wall time.Time
	form form
}

var errStamp = errors.New("a date or time cannot be read")

// parseStamp reads 20261120, 20261120T090000 or 20261120T090000Z.
func parseStamp(text string) (stamp, error) {
	layout, f := "20060102T150405", formZone
	switch {
	case len(text) == len("20060102"):
		layout, f = "20060102", formDate
	case strings.HasSuffix(text, "Z"):
		layout, f = "20060102T150405Z", formUTC
	}
	t, err := time.Parse(layout, text)
	if err != nil {
		return stamp{form: formMissed}, errStamp // an error of time quotes the text
	}
	return stamp{t, f}, nil
}

// clip keeps times where every format can write them: calendars hold years like 9999.
func clip(t time.Time) time.Time {
	first, last := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2999, 12, 31, 0, 0, 0, 0, time.UTC)
	switch {
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t
}

// moment gives the moment of s by the clock of its zone.
func (s stamp) moment(c clock) time.Time {
	if s.form == formUTC {
		return s.wall
	}
	return c.moment(s.wall)
}
