package das

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// In this package a wall time is what a clock on a wall shows: a time.Time in
// UTC of which only the digits count. A clock turns it into a moment.
type clock interface {
	moment(wall time.Time) time.Time
}

// place is the clock of a time zone of the system.
type place struct{ *time.Location }

func (p place) moment(wall time.Time) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, p.Location)
	if _, offset := t.Zone(); t.Unix()+int64(offset) != wall.Unix() {
		// The clock jumps over that time. RFC 5545 section 3.3.5: the offset before the jump counts.
		_, before := t.Add(-24 * time.Hour).Zone()
		t = wall.Add(-time.Duration(before) * time.Second)
	}
	return t.UTC()
}

// rules is the clock of a VTIMEZONE.
type rules []observance

// An observance is what holds from each of its onsets to the next onset of any:
// a STANDARD or a DAYLIGHT of a VTIMEZONE.
type observance struct {
	start    time.Time   // wall time of the first onset, by the offset before it
	before   int         // offset before an onset, seconds east of UTC
	after    int         // offset from an onset on
	yearly   yearly      // the zero value: no more onsets but these
	until    time.Time   // last moment of an onset; zero: for ever
	explicit []time.Time // further onsets, wall time
}

// Yearly is a rule such as the last Sunday in October.
type yearly struct {
	month time.Month // 0: no rule
	days  []int      // of the month, if not empty
	nth   int        // which such weekday of the month, from its end if negative; 0: any of days
	week  int        // weekday, -1: any
}

func (r rules) moment(wall time.Time) time.Time {
	var best *observance
	var onset time.Time
	for i := range r {
		if t, ok := r[i].last(wall); ok && (best == nil || t.After(onset)) {
			best, onset = &r[i], t
		}
	}
	var offset int
	switch {
	case best == nil: // before all of them
		first := slices.MinFunc(r, func(a, b observance) int { return a.start.Compare(b.start) })
		offset = first.before
	case wall.Sub(onset) < time.Duration(best.after-best.before)*time.Second:
		offset = best.before // in the gap, see place.moment
	default:
		offset = best.after
	}
	return wall.Add(-time.Duration(offset) * time.Second)
}

// last gives the last onset that is not after the wall time.
func (o *observance) last(wall time.Time) (time.Time, bool) {
	var last time.Time
	found := false
	keep := func(t time.Time) {
		if !t.After(wall) && (!found || t.After(last)) {
			last, found = t, true
		}
	}
	keep(o.start)
	for _, t := range o.explicit {
		keep(t)
	}
	if o.yearly.month == 0 {
		return last, found
	}
	year := wall.Year()
	if !o.until.IsZero() {
		year = min(year, o.until.Year()+1) // the wall may be a day ahead of UTC
	}
	for y := year; y >= max(o.start.Year(), year-2); y-- {
		t, ok := o.yearly.in(y, o.start)
		if !ok || t.Before(o.start) || !o.until.IsZero() && t.Add(-time.Duration(o.before)*time.Second).After(o.until) {
			continue
		}
		keep(t)
	}
	return last, found
}

// in gives the day of that year, with the time of day of at.
func (y *yearly) in(year int, at time.Time) (time.Time, bool) {
	day := func(d int) time.Time {
		return time.Date(year, y.month, d, at.Hour(), at.Minute(), at.Second(), 0, time.UTC)
	}
	var t time.Time
	switch {
	case y.nth > 0:
		t = day(1)
		t = t.AddDate(0, 0, (y.week-int(t.Weekday())+7)%7+7*(y.nth-1))
	case y.nth < 0:
		t = day(1).AddDate(0, 1, -1)
		t = t.AddDate(0, 0, -(int(t.Weekday())-y.week+7)%7+7*(y.nth+1))
	default:
		i := slices.IndexFunc(y.days, func(d int) bool { return y.week < 0 || int(day(d).Weekday()) == y.week })
		if i < 0 {
			return time.Time{}, false
		}
		t = day(y.days[i])
	}
	return t, t.Month() == y.month
}

// newObservance makes an observance of the texts of a STANDARD or DAYLIGHT;
// rule may be empty.
func newObservance(start time.Time, before, after, rule string) (observance, error) {
	o := observance{start: start}
	var err error
	if o.before, err = parseOffset(before); err != nil {
		return o, err
	}
	if o.after, err = parseOffset(after); err != nil {
		return o, err
	}
	if rule == "" {
		return o, nil
	}
	return o, o.parseRule(rule)
}

var errZoneRule = errors.New("a rule of a time zone is none that zones have")

// parseRule takes the yearly rules that zones have; every other rule is an
// error, and the zone is then found by its name.
func (o *observance) parseRule(rule string) error {
	y := yearly{month: o.start.Month(), week: -1}
	frequency := ""
	for part := range strings.SplitSeq(strings.TrimRight(rule, "; "), ";") {
		key, value, _ := strings.Cut(strings.ToUpper(part), "=")
		n, number := strconv.Atoi(value)
		switch key {
		case "FREQ":
			frequency = value
		case "INTERVAL":
			if value != "1" {
				return errZoneRule
			}
		case "WKST":
		case "BYMONTH":
			if number != nil || n < 1 || n > 12 {
				return errZoneRule
			}
			y.month = time.Month(n)
		case "BYMONTHDAY":
			for d := range strings.SplitSeq(value, ",") {
				day, err := strconv.Atoi(d)
				if err != nil || day < 1 || day > 31 || len(y.days) == 31 {
					return errZoneRule
				}
				y.days = append(y.days, day)
			}
			slices.Sort(y.days)
		case "BYDAY":
			if len(value) < 2 {
				return errZoneRule
			}
			y.week = slices.Index([]string{"SU", "MO", "TU", "WE", "TH", "FR", "SA"}, value[len(value)-2:])
			if y.week < 0 {
				return errZoneRule
			}
			if nth := value[:len(value)-2]; nth != "" {
				k, err := strconv.Atoi(nth)
				if err != nil || k == 0 || k < -5 || k > 5 {
					return errZoneRule
				}
				y.nth = k
			}
		case "BYHOUR", "BYMINUTE", "BYSECOND":
			if number != nil || n < 0 || n > 59 || key == "BYHOUR" && n > 23 {
				return errZoneRule
			}
			o.start = setClock(o.start, key, n)
		case "UNTIL":
			t, err := parseStamp(value)
			if err != nil {
				return errZoneRule
			}
			o.until = t.wall
			if t.form == formDate {
				o.until = t.wall.AddDate(0, 0, 1)
			}
		default:
			return errZoneRule
		}
	}
	switch {
	case frequency != "YEARLY" || y.nth != 0 && len(y.days) > 0:
		return errZoneRule
	case y.nth == 0 && len(y.days) == 0 && y.week >= 0:
		return errZoneRule
	case y.nth == 0 && len(y.days) == 0:
		y.days = []int{o.start.Day()}
	}
	o.yearly = y
	return nil
}

func setClock(t time.Time, unit string, n int) time.Time {
	h, m, s := t.Clock()
	switch unit {
	case "BYHOUR":
		h = n
	case "BYMINUTE":
		m = n
	default:
		s = n
	}
	return time.Date(t.Year(), t.Month(), t.Day(), h, m, s, 0, time.UTC)
}

// parseOffset reads +0100 or -043000 as seconds east of UTC.
func parseOffset(text string) (int, error) {
	bad := fmt.Errorf("an offset of a time zone is not of the form +hhmm")
	if len(text) != 5 && len(text) != 7 || text[0] != '+' && text[0] != '-' {
		return 0, bad
	}
	seconds := 0
	for i, unit := 1, 3600; i < len(text); i, unit = i+2, unit/60 {
		n, err := strconv.ParseUint(text[i:i+2], 10, 8)
		if err != nil || n > 59 || unit == 3600 && n > 15 {
			return 0, bad
		}
		seconds += int(n) * unit
	}
	if text[0] == '-' {
		seconds = -seconds
	}
	return seconds, nil
}

// Zones finds the clock of a TZID: by the zones that came with it, by the
// system's, by what Notes and Windows call them, else the mailbox's.
type zones struct {
	own     map[string]rules
	mailbox *time.Location
	found   map[string]clock
}

func newZones(mailbox *time.Location) *zones {
	return &zones{own: make(map[string]rules), mailbox: mailbox, found: make(map[string]clock)}
}

// maxZoneName bounds what is looked up in the file system.
const maxZoneName = 64

// find gives the clock, which is the mailbox's for want of a better one.
func (z *zones) find(tzid string) clock {
	if c, ok := z.found[tzid]; ok {
		return c
	}
	c := z.look(tzid)
	z.found[tzid] = c
	return c
}

func (z *zones) look(tzid string) clock {
	if r := z.own[tzid]; len(r) > 0 {
		return r
	}
	name := strings.Trim(tzid, `" `)
	if len(name) > maxZoneName {
		return place{z.mailbox}
	}
	// "Local" would be the zone of this machine, and "" UTC.
	if name != "" && !strings.EqualFold(name, "Local") {
		if loc, err := time.LoadLocation(name); err == nil {
			return place{loc}
		}
		if loc, err := time.LoadLocation(alias(name)); err == nil && alias(name) != "" {
			return place{loc}
		}
		if m := notesOffset().FindStringSubmatch(name); m != nil {
			hours, _ := strconv.Atoi(m[2])
			if m[1] == "W" {
				hours = -hours
			}
			if hours >= -12 && hours <= 14 {
				return place{time.FixedZone(name, hours*3600)}
			}
		}
	}
	return place{z.mailbox}
}

// notesOffset matches ZE6 and ZW5: hours east and west. That meaning is inferred.
func notesOffset() *regexp.Regexp { return regexp.MustCompile(`^Z([EW])(\d{1,2})$`) }

// alias gives the IANA name of what Notes and Windows call a zone, the latter by
// the windowsZones table of CLDR; the empty string for a name not known.
func alias(name string) string {
	switch name {
	// Notes
	case "Eastern":
		return "America/New_York"
	case "Central":
		return "America/Chicago"
	case "Mountain":
		return "America/Denver"
	case "Pacific":
		return "America/Los_Angeles"
	// Windows
	case "Dateline Standard Time":
		return "Etc/GMT+12"
	case "Hawaiian Standard Time":
		return "Pacific/Honolulu"
	case "Alaskan Standard Time":
		return "America/Anchorage"
	case "Pacific Standard Time":
		return "America/Los_Angeles"
	case "US Mountain Standard Time":
		return "America/Phoenix"
	case "Mountain Standard Time":
		return "America/Denver"
	case "Central America Standard Time":
		return "America/Guatemala"
	case "Central Standard Time":
		return "America/Chicago"
	case "Central Standard Time (Mexico)":
		return "America/Mexico_City"
	case "Canada Central Standard Time":
		return "America/Regina"
	case "SA Pacific Standard Time":
		return "America/Bogota"
	case "Eastern Standard Time":
		return "America/New_York"
	case "US Eastern Standard Time":
		return "America/Indianapolis"
	case "Venezuela Standard Time":
		return "America/Caracas"
	case "Atlantic Standard Time":
		return "America/Halifax"
	case "SA Western Standard Time":
		return "America/La_Paz"
	case "Pacific SA Standard Time":
		return "America/Santiago"
	case "Newfoundland Standard Time":
		return "America/St_Johns"
	case "E. South America Standard Time":
		return "America/Sao_Paulo"
	case "Argentina Standard Time":
		return "America/Buenos_Aires"
	case "SA Eastern Standard Time":
		return "America/Cayenne"
	case "Greenland Standard Time":
		return "America/Godthab"
	case "Azores Standard Time":
		return "Atlantic/Azores"
	case "Cape Verde Standard Time":
		return "Atlantic/Cape_Verde"
	case "GMT Standard Time":
		return "Europe/London"
	case "Greenwich Standard Time":
		return "Atlantic/Reykjavik"
	case "Morocco Standard Time":
		return "Africa/Casablanca"
	case "W. Europe Standard Time":
		return "Europe/Berlin"
	case "Central Europe Standard Time":
		return "Europe/Budapest"
	case "Central European Standard Time":
		return "Europe/Warsaw"
	case "Romance Standard Time":
		return "Europe/Paris"
	case "W. Central Africa Standard Time":
		return "Africa/Lagos"
	case "GTB Standard Time":
		return "Europe/Bucharest"
	case "E. Europe Standard Time":
		return "Europe/Chisinau"
	case "FLE Standard Time":
		return "Europe/Kiev"
	case "Egypt Standard Time":
		return "Africa/Cairo"
	case "South Africa Standard Time":
		return "Africa/Johannesburg"
	case "Israel Standard Time":
		return "Asia/Jerusalem"
	case "Middle East Standard Time":
		return "Asia/Beirut"
	case "Jordan Standard Time":
		return "Asia/Amman"
	case "Turkey Standard Time":
		return "Europe/Istanbul"
	case "Arabic Standard Time":
		return "Asia/Baghdad"
	case "Arab Standard Time":
		return "Asia/Riyadh"
	case "Russian Standard Time":
		return "Europe/Moscow"
	case "E. Africa Standard Time":
		return "Africa/Nairobi"
	case "Iran Standard Time":
		return "Asia/Tehran"
	case "Arabian Standard Time":
		return "Asia/Dubai"
	case "Afghanistan Standard Time":
		return "Asia/Kabul"
	case "West Asia Standard Time":
		return "Asia/Tashkent"
	case "Pakistan Standard Time":
		return "Asia/Karachi"
	case "India Standard Time":
		return "Asia/Calcutta"
	case "Sri Lanka Standard Time":
		return "Asia/Colombo"
	case "Nepal Standard Time":
		return "Asia/Katmandu"
	case "Bangladesh Standard Time":
		return "Asia/Dhaka"
	case "Myanmar Standard Time":
		return "Asia/Rangoon"
	case "SE Asia Standard Time":
		return "Asia/Bangkok"
	case "China Standard Time":
		return "Asia/Shanghai"
	case "Singapore Standard Time":
		return "Asia/Singapore"
	case "W. Australia Standard Time":
		return "Australia/Perth"
	case "Taipei Standard Time":
		return "Asia/Taipei"
	case "Tokyo Standard Time":
		return "Asia/Tokyo"
	case "Korea Standard Time":
		return "Asia/Seoul"
	case "Cen. Australia Standard Time":
		return "Australia/Adelaide"
	case "AUS Central Standard Time":
		return "Australia/Darwin"
	case "E. Australia Standard Time":
		return "Australia/Brisbane"
	case "AUS Eastern Standard Time":
		return "Australia/Sydney"
	case "Tasmania Standard Time":
		return "Australia/Hobart"
	case "New Zealand Standard Time":
		return "Pacific/Auckland"
	case "Fiji Standard Time":
		return "Pacific/Fiji"
	default:
		return ""
	}
}

// clockOf gives the clock of a stamp with that TZID, which is empty if it has none.
func (z *zones) clockOf(s stamp, tzid string) clock {
	switch {
	case s.form == formUTC:
		return place{time.UTC}
	case s.form == formDate || tzid == "":
		return place{z.mailbox} // floating
	default:
		return z.find(tzid)
	}
}
