package das

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-ical"
)

// This file is the guard around go-ical, which panics on two inputs, takes
// quadratic time on long parameters, and loses a calendar for one bad event. A
// calendar is split into its events here; of each, only the lines with the
// properties below reach go-ical, which also keeps texts and people out.

// Limits of a calendar, of section 11.3 of the protocol notes; the whole is
// bounded by maxBody.
const (
	maxLine  = 64 << 10 // bytes, unfolded
	maxParam = 1 << 10  // bytes of the parameters of a line, all together
	maxDepth = 16       // components inside each other
	maxRules = 200      // recurrence rules that are worked out: the lists of Domino come without
	maxDates = 1000     // RDATEs, and EXDATEs, of an event
	maxSpan  = 10 * 366 * 24 * time.Hour
)

// keeps tells whether a property of a component matters here.
func keeps(component, property string) bool {
	switch component {
	case "VEVENT":
		switch property {
		case "UID", "DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID", "STATUS", "CLASS", "TRANSP", "X-LOTUS-APPTTYPE", "X-LOTUS-NOTICETYPE":
			return true
		}
	case "VTIMEZONE":
		return property == "TZID"
	case "STANDARD", "DAYLIGHT":
		switch property {
		case "DTSTART", "TZOFFSETFROM", "TZOFFSETTO", "RRULE", "RDATE":
			return true
		}
	}
	return false
}

// A block is a component cut out of a calendar, as text of its own.
type block struct {
	name string
	text strings.Builder
	bad  bool // a line of it exceeds a limit
}

// split cuts the events and the zones out of a calendar. It fails where the
// structure is not whole: a component that does not end means that the rest is
// missing.
func split(calendar []byte) ([]*block, error) {
	var blocks []*block
	var open []string
	var current *block
	seen := false
	for line := range unfold(bytes.TrimPrefix(calendar, []byte("\ufeff"))) {
		name, value := property(line)
		switch name {
		case "BEGIN":
			if len(open) == maxDepth {
				return nil, errors.New("components are inside each other too deep")
			}
			if len(open) == 0 && value != "VCALENDAR" {
				return nil, errors.New("it is no VCALENDAR")
			}
			seen = true
			if len(open) == 1 && (value == "VEVENT" || value == "VTIMEZONE") {
				if len(blocks) == maxPerPage {
					return nil, fmt.Errorf("it has more than %d components", maxPerPage)
				}
				current = &block{name: value}
				blocks = append(blocks, current)
			}
			open = append(open, value)
			if current.holds(value) {
				current.text.WriteString("BEGIN:" + value + "\r\n")
			}
		case "END":
			if len(open) == 0 || open[len(open)-1] != value {
				return nil, errors.New("a component ends that did not begin")
			}
			if current.holds(value) {
				current.text.WriteString("END:" + value + "\r\n")
			}
			open = open[:len(open)-1]
			if len(open) == 1 {
				current = nil
			}
		default:
			if current == nil || !keeps(open[len(open)-1], name) || !current.holds(open[len(open)-1]) {
				continue
			}
			if len(line) > maxLine || parameters(line) > maxParam {
				current.bad = true
				continue
			}
			current.text.Write(line)
			current.text.WriteString("\r\n")
		}
	}
	switch {
	case len(open) > 0:
		return nil, errors.New("it is cut off")
	case !seen:
		return nil, errors.New("it is no VCALENDAR")
	}
	return blocks, nil
}

// holds tells whether a component belongs into b: an event is taken without its
// alarms, a zone with its two kinds of times.
func (b *block) holds(component string) bool {
	return b != nil && (component == b.name || b.name == "VTIMEZONE" && (component == "STANDARD" || component == "DAYLIGHT"))
}

// unfold gives the lines of a calendar, those that were folded in one piece, RFC
// 5545 section 3.1. Empty lines are left out.
func unfold(text []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		var line []byte
		for physical := range bytes.SplitSeq(text, []byte("\n")) {
			physical = bytes.TrimSuffix(physical, []byte("\r"))
			if len(physical) > 0 && (physical[0] == ' ' || physical[0] == '\t') {
				line = append(line, physical[1:]...)
				continue
			}
			if len(line) > 0 && !yield(line) {
				return
			}
			line = append(line[:0:0], physical...)
		}
		if len(line) > 0 {
			yield(line)
		}
	}
}

// property gives the name of a line, and of BEGIN and END the component, all in
// upper case.
func property(line []byte) (name, component string) {
	i := bytes.IndexAny(line[:min(len(line), maxParam)], ";:")
	if i < 0 {
		return "", ""
	}
	name = strings.ToUpper(string(line[:i]))
	if name == "BEGIN" || name == "END" {
		component = strings.ToUpper(string(bytes.TrimSpace(line[i+1 : min(len(line), i+64)])))
	}
	return name, component
}

// parameters gives the length of a line up to the colon before its value.
func parameters(line []byte) int {
	quoted := false
	for i, c := range line {
		switch {
		case c == '"':
			quoted = !quoted
		case c == ':' && !quoted:
			return i
		}
	}
	return len(line)
}

// component lets go-ical read the block.
func (b *block) component() (c *ical.Component, err error) {
	defer func() {
		if recover() != nil { // the known panics, and those not known yet
			c, err = nil, errors.New("the component breaks its parser")
		}
	}()
	if b.bad {
		return nil, errors.New("a line of the component is too long")
	}
	calendar, err := ical.NewDecoder(strings.NewReader("BEGIN:VCALENDAR\r\n" + b.text.String() + "END:VCALENDAR\r\n")).Decode()
	if err != nil || len(calendar.Children) != 1 {
		return nil, errors.New("the component cannot be read")
	}
	return calendar.Children[0], nil
}

// A vevent is a VEVENT: one entry, a series, or the instance of a series that
// differs.
type vevent struct {
	Entry
	uid        string
	start, end stamp // end is formMissed if length counts
	startClock clock
	endClock   clock
	length     time.Duration
	rule       string
	added      []instance // RDATE
	removed    []dated    // EXDATE
	replaces   dated      // RECURRENCE-ID; formMissed if it is none
}

// dated is a stamp and the clock of its zone.
type dated struct {
	stamp
	at clock
}

// instance is one more time of a series, with a length of its own if end is set.
type instance struct {
	start  dated
	end    dated // formMissed: as long as the first
	length time.Duration
}

// decodeCalendar reads one page; skipped counts the events that cannot be read.
// The error is an *Error.
func decodeCalendar(body []byte, mailbox *time.Location) (events []vevent, skipped int, err error) {
	blocks, err := split(body)
	if err != nil {
		return nil, 0, malformed("the calendar cannot be read: %v", err)
	}
	z := newZones(mailbox)
	for _, b := range blocks {
		if b.name != "VTIMEZONE" {
			continue
		}
		if c, err := b.component(); err == nil {
			if r, err := zoneRules(c); err == nil { // else it is found by its name
				z.own[strings.Trim(value(c, "TZID"), `"`)] = r
			}
		}
	}
	for _, b := range blocks {
		if b.name != "VEVENT" {
			continue
		}
		c, err := b.component()
		if err != nil {
			skipped++
			continue
		}
		e, err := newEvent(c, z)
		if err != nil {
			skipped++
			continue
		}
		events = append(events, e)
	}
	return events, skipped, nil
}

// value gives the value of a property as it stands: Props.Text would end it at a comma.
func value(c *ical.Component, name string) string {
	if p := c.Props.Get(name); p != nil {
		return strings.TrimSpace(p.Value)
	}
	return ""
}

func zoneRules(c *ical.Component) (rules, error) {
	var out rules
	for _, child := range c.Children {
		start, err := parseStamp(value(child, "DTSTART"))
		if err != nil {
			return nil, err
		}
		o, err := newObservance(start.wall, value(child, "TZOFFSETFROM"), value(child, "TZOFFSETTO"), value(child, "RRULE"))
		if err != nil {
			return nil, err
		}
		for _, p := range child.Props.Values("RDATE") {
			for text := range strings.SplitSeq(p.Value, ",") {
				t, err := parseStamp(text)
				if err != nil || len(o.explicit) == maxDates {
					return nil, errZoneRule
				}
				o.explicit = append(o.explicit, t.wall)
			}
		}
		out = append(out, o)
	}
	if len(out) == 0 || len(out) > maxDepth {
		return nil, errZoneRule
	}
	return out, nil
}

func newEvent(c *ical.Component, z *zones) (vevent, error) {
	e := vevent{uid: value(c, "UID"), rule: value(c, "RRULE"), end: stamp{form: formMissed}, replaces: dated{stamp: stamp{form: formMissed}}}
	e.Status, e.Class, e.Transparency = lower(value(c, "STATUS")), lower(value(c, "CLASS")), lower(value(c, "TRANSP"))
	e.Type, e.Notice = value(c, "X-LOTUS-APPTTYPE"), strings.ToUpper(value(c, "X-LOTUS-NOTICETYPE"))
	start, err := read(c, "DTSTART", z)
	if err != nil {
		return e, err
	}
	e.start, e.startClock = start.stamp, start.at
	switch {
	case c.Props.Get("DTEND") != nil:
		end, err := read(c, "DTEND", z)
		if err != nil {
			return e, err
		}
		e.end, e.endClock = end.stamp, end.at
	case c.Props.Get("DURATION") != nil:
		if e.length, err = parseLength(value(c, "DURATION")); err != nil {
			return e, err
		}
	}
	if c.Props.Get("RECURRENCE-ID") != nil {
		if e.replaces, err = read(c, "RECURRENCE-ID", z); err != nil {
			return e, err
		}
	}
	for _, p := range c.Props.Values("EXDATE") {
		for text := range strings.SplitSeq(p.Value, ",") {
			s, err := parseStamp(strings.TrimSpace(text))
			if err != nil || len(e.removed) == maxDates {
				return e, errStamp
			}
			e.removed = append(e.removed, dated{s, z.clockOf(s, p.Params.Get("TZID"))})
		}
	}
	for _, p := range c.Props.Values("RDATE") {
		for text := range strings.SplitSeq(p.Value, ",") {
			i, err := parseInstance(strings.TrimSpace(text), p.Params.Get("TZID"), z)
			if err != nil || len(e.added) == maxDates {
				return e, errStamp
			}
			e.added = append(e.added, i)
		}
	}
	return e, nil
}

func read(c *ical.Component, name string, z *zones) (dated, error) {
	p := c.Props.Get(name)
	if p == nil {
		return dated{}, errStamp
	}
	s, err := parseStamp(strings.TrimSpace(p.Value))
	return dated{s, z.clockOf(s, p.Params.Get("TZID"))}, err
}

// parseInstance reads a value of an RDATE: a date, a time, or a period.
func parseInstance(text, tzid string, z *zones) (instance, error) {
	first, second, period := strings.Cut(text, "/")
	s, err := parseStamp(first)
	i := instance{start: dated{s, z.clockOf(s, tzid)}, end: dated{stamp: stamp{form: formMissed}}}
	if err != nil || !period {
		return i, err
	}
	if strings.HasPrefix(second, "P") || strings.HasPrefix(second, "+P") {
		i.length, err = parseLength(second)
		return i, err
	}
	s, err = parseStamp(second)
	i.end = dated{s, z.clockOf(s, tzid)}
	return i, err
}

// parseLength reads a DURATION.
func parseLength(text string) (time.Duration, error) {
	p := ical.NewProp(ical.PropDuration)
	p.Value = text
	d, err := p.Duration()
	if err != nil || len(text) > len("P3660DT24H60M60S") || d < 0 || d > maxSpan {
		return 0, errors.New("a duration cannot be read")
	}
	return d, nil
}

// expand gives the entries of all events, of a series those instances that touch
// [from, to). Skipped counts the series that cannot be worked out.
func expand(events []vevent, from, to time.Time) (entries []Entry, skipped int) {
	replaced := make(map[string][]dated)
	for _, e := range events {
		if e.replaces.form != formMissed {
			replaced[e.uid] = append(replaced[e.uid], e.replaces)
		}
	}
	ruled := 0
	for _, e := range events {
		first := e.first()
		if e.replaces.form != formMissed || e.rule == "" && len(e.added) == 0 {
			entries = append(entries, first)
			continue
		}
		if e.rule != "" {
			ruled++
		}
		if ruled > maxRules {
			skipped++
			continue
		}
		instances, err := e.instances(first, to)
		if err != nil {
			skipped++
			continue
		}
		gone := slices.Concat(e.removed, replaced[e.uid])
		for _, i := range instances {
			if i.End.After(from) && i.Start.Before(to) && !slices.ContainsFunc(gone, func(d dated) bool { return d.names(i.Start, e.startClock) }) {
				entries = append(entries, i)
			}
		}
	}
	return entries, skipped
}

// names tells whether an EXDATE or RECURRENCE-ID means the instance that starts
// at that moment: a date means what starts on that date where the series is.
func (d dated) names(start time.Time, series clock) bool {
	if d.form != formDate {
		return d.moment(d.at).Equal(start)
	}
	day := series.moment(d.wall)
	return !start.Before(day) && start.Before(series.moment(d.wall.AddDate(0, 0, 1)))
}

// first gives the entry that DTSTART begins.
func (e *vevent) first() Entry {
	out := e.Entry
	end := e.end
	if end.form == formMissed && e.length > 0 && e.start.form == formDate {
		// Days of a date are days of the calendar, of 23 to 25 hours.
		end = stamp{e.start.wall.Add(e.length).Truncate(24 * time.Hour), formDate}
		out.set(e.start, end, e.startClock, e.startClock)
		return out
	}
	out.set(e.start, end, e.startClock, e.endClock)
	if end.form == formMissed && e.length > 0 {
		out.End = clip(out.Start.Add(e.length))
	}
	return out
}

// instances gives all instances of a series up to a moment, each once, by start.
func (e *vevent) instances(first Entry, to time.Time) ([]Entry, error) {
	out := []Entry{first}
	length := first.End.Sub(first.Start)
	days := int((length + 12*time.Hour) / (24 * time.Hour))
	add := func(wall time.Time) {
		i := first
		i.Start = clip(e.startClock.moment(wall))
		i.End = clip(i.Start.Add(length))
		if first.AllDay {
			i.End = clip(e.startClock.moment(wall.AddDate(0, 0, days)))
		}
		out = append(out, i)
	}
	if e.rule != "" {
		walls, err := occurrences(e.rule, e.start.wall, to.Add(24*time.Hour), e.startClock)
		if err != nil {
			return nil, err
		}
		for _, w := range walls {
			add(w)
		}
	}
	for _, a := range e.added {
		i := first
		i.Start = clip(a.start.moment(a.start.at))
		switch {
		case a.end.form != formMissed:
			i.End = clip(a.end.moment(a.end.at))
		case a.length > 0:
			i.End = clip(i.Start.Add(a.length))
		default:
			i.End = clip(i.Start.Add(length))
		}
		out = append(out, i)
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return a.Start.Compare(b.Start) })
	return slices.CompactFunc(out, func(a, b Entry) bool { return a.Start.Equal(b.Start) }), nil
}
