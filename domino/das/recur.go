package das

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-ical"
	"github.com/teambition/rrule-go"
)

// Limits of a recurrence rule.
const (
	maxRule        = 512    // bytes
	maxInterval    = 1000   // of FREQ
	maxTimes       = 24     // times a day
	maxOccurrences = 10_000 // from DTSTART to the end of the window
)

// Occurrences gives the wall times, of the clock at, at which a rule starts
// something: from first on, which is DTSTART, up to limit. The text is not trusted: rules below a day are
// refused, and the work is bounded.
//
// rrule-go has no bound of its own but the year 9999, and looks at its UNTIL only
// where a day fits. The calendar repeats after 400 years, weekdays included, so
// the rule is worked out as many times 400 years later as there is room for: one
// that never fits ends after 400 years instead of 8000, within milliseconds.
func occurrences(rule string, first, limit time.Time, at clock) (out []time.Time, err error) {
	defer func() {
		if recover() != nil { // rrule-go indexes its tables by what the rule says
			out, err = nil, errors.New("the recurrence rule breaks its parser")
		}
	}()
	option, until, err := parseRule(rule)
	if err != nil {
		return nil, err
	}
	shift := (9999 - max(first.Year(), limit.Year())) / 400 * 400
	if first.Year() < 1600 || shift < 0 {
		return nil, errors.New("the recurrence rule begins too early or ends too late")
	}
	option.Dtstart = first.AddDate(shift, 0, 0)
	option.Until = limit.AddDate(shift, 0, 0)
	r, err := rrule.NewRRule(*option)
	if err != nil {
		return nil, errors.New("the recurrence rule is out of bounds")
	}
	next := r.Iterator()
	for range maxOccurrences {
		t, ok := next()
		if !ok {
			return out, nil
		}
		t = t.AddDate(-shift, 0, 0)
		if until.before(t, at) {
			return out, nil
		}
		out = append(out, t)
	}
	if option.Count == maxOccurrences {
		return out, nil
	}
	return nil, fmt.Errorf("the recurrence rule has more than %d occurrences", maxOccurrences)
}

// before tells whether the UNTIL u is over at a wall time.
func (u stamp) before(wall time.Time, at clock) bool {
	switch u.form {
	case formDate: // that day is the last
		return !wall.Before(u.wall.AddDate(0, 0, 1))
	case formUTC:
		return at.moment(wall).After(u.wall)
	case formZone:
		return wall.After(u.wall)
	default:
		return false
	}
}

// parseRule gives the rule, and its UNTIL apart.
func parseRule(rule string) (*rrule.ROption, stamp, error) {
	until := stamp{form: formMissed}
	if len(rule) > maxRule {
		return nil, until, fmt.Errorf("the recurrence rule is longer than %d bytes", maxRule)
	}
	var parts []string
	for part := range strings.SplitSeq(strings.ToUpper(rule), ";") {
		if part == "" { // Notes ends a rule with a semicolon
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "UNTIL":
			var err error
			if until, err = parseStamp(value); err != nil {
				return nil, until, err
			}
		case "FREQ", "INTERVAL", "COUNT", "WKST", "BYSETPOS", "BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYDAY", "BYHOUR", "BYMINUTE", "BYSECOND":
			parts = append(parts, part)
		default: // such as BYWEEKNO, which rrule-go gets wrong
			return nil, until, errors.New("the recurrence rule has a part that is not supported")
		}
	}
	props := make(ical.Props)
	prop := ical.NewProp(ical.PropRecurrenceRule)
	prop.Value = strings.Join(parts, ";")
	props.Set(prop)
	o, err := props.RecurrenceRule()
	switch {
	case err != nil:
		return nil, until, errors.New("the recurrence rule cannot be read")
	case o.Freq > rrule.DAILY:
		return nil, until, errors.New("the recurrence rule repeats more often than daily")
	case o.Freq == rrule.WEEKLY && len(o.Bysetpos) > 0: // rrule-go counts in the first week from DTSTART
		return nil, until, errors.New("the recurrence rule numbers the days of a week")
	case o.Interval > maxInterval:
		return nil, until, fmt.Errorf("the interval of the recurrence rule is above %d", maxInterval)
	case o.Count > maxOccurrences:
		return nil, until, fmt.Errorf("the recurrence rule has more than %d occurrences", maxOccurrences)
	case max(1, len(o.Byhour))*max(1, len(o.Byminute))*max(1, len(o.Bysecond)) > maxTimes:
		return nil, until, fmt.Errorf("the recurrence rule has more than %d times a day", maxTimes)
	}
	return o, until, nil
}
