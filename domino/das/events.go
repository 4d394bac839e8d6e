package das

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// An Entry is one entry of a calendar, or one instance of a recurring one: when
// it is, and how it shows. Texts are as the server writes them, in lower case
// but for Notice.
type Entry struct {
	// Start and End are moments in UTC. End is not part of the entry; it is not
	// after Start where the entry has no length.
	Start, End time.Time
	AllDay     bool // dates without times, whole days of the mailbox's zone

	Type         string // x-lotus-appttype: 0 appointment, 1 anniversary, 2 all-day event, 3 meeting, 4 reminder; may be empty
	Notice       string // x-lotus-noticetype: I, U, C, N, A, R, T, D or L; may be empty
	Status       string // confirmed, tentative or cancelled; may be empty
	Class        string // public, private or confidential; may be empty
	Transparency string // opaque or transparent; may be empty
}

// A Listing is what a calendar holds in a window.
type Listing struct {
	Entries []Entry
	Skipped int // entries that could not be read: the listing has gaps
}

// Limits of a calendar's list, of section 3.1 of the protocol notes.
const (
	pageCount  = 100 // view entries to ask for
	maxPages   = 50
	maxPerPage = 10 * pageCount // entries: a view entry may come as several
)

// filter is which fields to ask for. An older server may not know the names; see
// Events.
type filter uint8

const (
	filterNarrow filter = iota // the names the server has, misspelt
	filterWide                 // those, and the same names spelt right
	filterNone                 // everything
)

func (f filter) query() string {
	const narrow = "&fields=start,end,transparency,status,class,reccurenceid,x-lotus-apptype,x-lotus-noticetype"
	switch f {
	case filterNarrow:
		return narrow
	case filterWide:
		return narrow + ",recurrenceid,x-lotus-appttype"
	default:
		return ""
	}
}

// Events reads the entries that start in [from, to); whole seconds count. It
// gives all of them or an error, which is an *Error or that of the context.
// Entries that began before from are not among them, even if they last: start
// early.
//
// The first calendar of a server that is not empty settles which fields are
// asked for from then on: those needed, unless the server then leaves out the
// type of an entry.
func (c *Client) Events(ctx context.Context, m MailFile, from, to time.Time) (Listing, error) {
	s := c.servers[ServerKey(m.Server)]
	if s == nil {
		return Listing{}, &Error{Failure: NotFound, Detail: "its server is not among the configured servers"}
	}
	f, settled := s.asks()
	first, err := c.read(ctx, m, from, to, f)
	switch {
	case settled || err != nil && FailureOf(err) != NotSupported || err == nil && len(first.Entries) == 0:
		return first, err
	case err != nil: // a server that knows no fields
		all, err := c.read(ctx, m, from, to, filterNone)
		if err == nil {
			s.settle(filterNone)
		}
		return all, err
	case first.typed():
		s.settle(f)
		return first, nil
	}
	for f := filterWide; f <= filterNone; f++ {
		more, err := c.read(ctx, m, from, to, f)
		if err != nil {
			return first, nil //nolint:nilerr // the first answer stands; the next calendar settles it
		}
		if more.typed() {
			s.settle(f)
			return more, nil
		}
	}
	s.settle(filterNarrow) // it knows no types at all
	return first, nil
}

func (s *server) asks() (filter, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filter, s.settled
}

func (s *server) settle(f filter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filter, s.settled = f, true
}

// typed tells whether any entry has a type.
func (l *Listing) typed() bool {
	for _, e := range l.Entries {
		if e.Type != "" {
			return true
		}
	}
	return false
}

// read reads all pages.
func (c *Client) read(ctx context.Context, m MailFile, from, to time.Time, f filter) (Listing, error) {
	const stamp = "2006-01-02T15:04:05Z" // the only form there is
	base := m.URL + "/api/calendar/events?since=" + from.UTC().Format(stamp) + "&before=" + to.UTC().Format(stamp) +
		"&count=" + strconv.Itoa(pageCount) + "&start="
	tail, mediaType := f.query(), "application/json"
	if c.icalendar {
		tail, mediaType = "&format=icalendar"+tail, "text/calendar"
	}
	var jsonEntries Listing
	var events []vevent
	skipped := 0
	last := -1
	for range maxPages {
		a, err := c.get(ctx, base+strconv.Itoa(last+1)+tail, mediaType)
		if err != nil {
			return Listing{}, err
		}
		if len(a.body) == 0 {
			return c.listing(jsonEntries, events, skipped, from, to), nil
		}
		var n int
		if c.icalendar {
			page, bad, err := decodeCalendar(a.body, c.zone)
			if err != nil {
				return Listing{}, err
			}
			events, skipped, n = append(events, page...), skipped+bad, len(page)+bad
		} else {
			page, err := decodeEvents(a.body, c.zone)
			if err != nil {
				return Listing{}, err
			}
			n = len(page.Entries) + page.Skipped
			jsonEntries.Entries = append(jsonEntries.Entries, page.Entries...)
			skipped += page.Skipped
		}
		next, err := advance(a.header.Get("Content-Range"), last, n)
		if err != nil {
			return Listing{}, err
		}
		if next < 0 {
			return c.listing(jsonEntries, events, skipped, from, to), nil
		}
		last = next
	}
	return Listing{}, &Error{Failure: Incomplete, Detail: fmt.Sprintf("the calendar has more than %d pages", maxPages)}
}

func (c *Client) listing(l Listing, events []vevent, skipped int, from, to time.Time) Listing {
	if c.icalendar {
		var bad int
		l.Entries, bad = expand(events, from, to)
		skipped += bad
	}
	l.Skipped = skipped
	return l
}

// advance reads the Content-Range of a page that came after view entry last and
// holds n entries. It gives the last view entry of the page, or -1 if there is
// no further page. Entries and view entries do not match one to one.
func advance(header string, last, n int) (int, error) {
	incomplete := func(detail string) (int, error) {
		return 0, &Error{Failure: Incomplete, Detail: detail}
	}
	if header == "" {
		if n >= pageCount {
			return incomplete("a full page without a Content-Range")
		}
		return -1, nil
	}
	unit, span, _ := strings.Cut(strings.TrimSpace(header), " ")
	span, _, _ = strings.Cut(span, "/")
	low, high, ok := strings.Cut(span, "-")
	from, err1 := strconv.Atoi(strings.TrimSpace(low))
	to, err2 := strconv.Atoi(strings.TrimSpace(high))
	switch {
	case !strings.EqualFold(unit, "items") || !ok || err1 != nil || err2 != nil || from < 0 || to < from || to > maxPages*maxPerPage:
		return incomplete("a Content-Range that cannot be read")
	case from > last+1:
		return incomplete("a page is missing")
	case to <= last:
		return incomplete("the pages make no progress")
	}
	return to, nil
}

// The JSON of a list, of section 3.2 of the protocol notes. What is not named
// here is never decoded: summaries, places, people.
type (
	jsonList struct {
		Timezones []jsonZone        `json:"timezones"`
		Events    []json.RawMessage `json:"events"`
	}
	jsonZone struct {
		ID       string          `json:"tzid"`
		Standard *jsonObservance `json:"standard"`
		Daylight *jsonObservance `json:"daylight"`
	}
	jsonObservance struct {
		Start      jsonDate `json:"start"`
		OffsetFrom string   `json:"offsetFrom"`
		OffsetTo   string   `json:"offsetTo"`
		Rule       string   `json:"recurrenceRule"`
	}
	jsonDate struct {
		Date string `json:"date"`
		Time string `json:"time"`
		UTC  bool   `json:"utc"`
		Zone string `json:"tzid"`
	}
	jsonEvent struct {
		Start        jsonDate `json:"start"`
		End          jsonDate `json:"end"`
		Status       string   `json:"status"`
		Class        string   `json:"class"`
		Transparency string   `json:"transparency"`
		Type         jsonX    `json:"x-lotus-appttype"`
		Notice       jsonX    `json:"x-lotus-noticetype"`
	}
	// jsonX is an X property.
	jsonX struct {
		Data any `json:"data"`
	}
)

// text gives the value of an X property; numbers are taken too.
func (x jsonX) text() string {
	switch v := x.Data.(type) {
	case string:
		return strings.TrimSpace(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return ""
	}
}

// decodeEvents decodes one page. An entry that cannot be read is skipped; a page
// that cannot be read is an error.
func decodeEvents(body []byte, mailbox *time.Location) (Listing, error) {
	var in jsonList
	if err := json.Unmarshal(body, &in); err != nil {
		return Listing{}, malformed("the list of entries is no JSON of the calendar service")
	}
	if len(in.Events) > maxPerPage || len(in.Timezones) > maxPerPage {
		return Listing{}, malformed("the list has more than %d entries or zones", maxPerPage)
	}
	z := newZones(mailbox)
	for _, zone := range in.Timezones {
		if r, err := zone.rules(); err == nil { // else it is found by its name
			z.own[zone.ID] = r
		}
	}
	var out Listing
	for _, raw := range in.Events {
		var e jsonEvent
		if json.Unmarshal(raw, &e) != nil {
			out.Skipped++
			continue
		}
		entry, err := e.entry(z)
		if err != nil {
			out.Skipped++
			continue
		}
		out.Entries = append(out.Entries, entry)
	}
	return out, nil
}

func (z *jsonZone) rules() (rules, error) {
	var r rules
	for _, o := range []*jsonObservance{z.Standard, z.Daylight} {
		if o == nil {
			continue
		}
		start, err := o.Start.stamp()
		if err != nil {
			return nil, err
		}
		one, err := newObservance(start.wall, o.OffsetFrom, o.OffsetTo, o.Rule)
		if err != nil {
			return nil, err
		}
		r = append(r, one)
	}
	return r, nil
}

func (d *jsonDate) stamp() (stamp, error) {
	f, text, layout := formZone, d.Date+" "+d.Time, "2006-01-02 15:04:05"
	switch {
	case d.Date == "":
		return stamp{form: formMissed}, errStamp
	case d.Time == "":
		f, text, layout = formDate, d.Date, "2006-01-02"
	case d.UTC:
		f = formUTC
	}
	t, err := time.Parse(layout, text)
	if err != nil {
		return stamp{form: formMissed}, errStamp
	}
	return stamp{t, f}, nil
}

func (e *jsonEvent) entry(z *zones) (Entry, error) {
	start, err := e.Start.stamp()
	if err != nil {
		return Entry{}, err
	}
	end := stamp{form: formMissed}
	if e.End != (jsonDate{}) {
		if end, err = e.End.stamp(); err != nil {
			return Entry{}, err
		}
	}
	out := Entry{
		Type: e.Type.text(), Notice: strings.ToUpper(e.Notice.text()),
		Status: lower(e.Status), Class: lower(e.Class), Transparency: lower(e.Transparency),
	}
	out.set(start, end, z.clockOf(start, e.Start.Zone), z.clockOf(end, e.End.Zone))
	return out, nil
}

func lower(text string) string { return strings.ToLower(strings.TrimSpace(text)) }

// set gives the entry its times. An all-day entry whose end is missing or not
// after its start lasts a day; a timed one has then no length.
func (e *Entry) set(start, end stamp, startClock, endClock clock) {
	e.AllDay = start.form == formDate
	e.Start = clip(start.moment(startClock))
	switch {
	case e.AllDay && (end.form == formMissed || !end.wall.After(start.wall)):
		e.End = clip(startClock.moment(start.wall.AddDate(0, 0, 1)))
	case end.form == formMissed:
		e.End = e.Start
	default:
		e.End = clip(end.moment(endClock))
	}
}
