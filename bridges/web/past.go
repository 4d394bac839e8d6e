package web

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
)

// A Past answers what is asked about the past. It must be safe for concurrent
// use, and may read for as long as ctx lasts. Its errors are ErrNotRemembered, or
// what kept it from reading.
type Past interface {
	// History gives what a watcher with that access was shown of a person: what
	// held at since, then each change up to until, the earliest first. Where these
	// are more than most, the earliest are left out.
	History(ctx context.Context, id presence.ID, since, until time.Time, as presence.Access, most int) ([]Change, error)
	// Day gives what the picture of a day shows: the changes, as History does up to
	// now, and beside them, before any view, what each source said between since and
	// until, and what the policy will come to from now until then by what is known. Where
	// now is not before until, nothing lies ahead.
	Day(ctx context.Context, id presence.ID, since, now, until time.Time, as presence.Access, most int) (Day, error)
	// ExplainAt gives the reasoning at a past moment, before any view: by the
	// policy that is in force now, from what was known then.
	ExplainAt(ctx context.Context, id presence.ID, at time.Time) (presence.Explanation, error)
}

// ErrNotRemembered is wrapped by the errors of a Past where there is nothing to
// read: because nothing is written down, or was not yet then.
var ErrNotRemembered = errors.New("nothing is remembered")

// A Day is what is known of a person's day.
type Day struct {
	Changes []Change         // the earliest first
	Said    []journal.Saying // by source, the earliest first
	Ahead   []presence.State // each as of its Since, the earliest first
}

// A Change is one line of somebody's history.
type Change struct {
	At           time.Time             `json:"at"`
	Availability presence.Availability `json:"availability"`
	Activity     presence.Activity     `json:"activity,omitempty"`
	Overlays     []string              `json:"overlays,omitempty"`
	Rule         string                `json:"rule"`
	Title        string                `json:"title"`
	Source       string                `json:"source,omitempty"`
}

// The limits of questions about the past: each reads all that the journal has of a person.
const (
	pastReach   = 7 * 24 * time.Hour
	pastTime    = 10 * time.Second
	dayTime     = 2 * time.Second // of a page, which has more to say when the past cannot be read
	maxChanges  = 1000
	pastReaders = 4 // at once, others wait
)

var (
	errNotShown = errors.New("of this person, only what is now is shown")
	errTooOld   = errors.New("that is more than 7 days ago")
	errAhead    = errors.New("that moment lies ahead")
)

// tellsTimes tells whether who has that access may know since when a state holds,
// and so what was before.
func tellsTimes(a presence.Access) bool {
	return a.Level == presence.LevelTelephony || a.Level == presence.LevelFull
}

// tellsAhead tells whether who has that access may know when a state ends: what lies
// ahead is in the calendar.
func tellsAhead(a presence.Access) bool {
	return a.Level == presence.LevelFull && a.Calendar != presence.CalendarHidden
}

// lookBack gives the access with which the viewer may look back to a moment,
// and a reader's turn, to be given back by done.
func (s *Site) lookBack(ctx context.Context, v viewer, id presence.ID, to time.Time) (a presence.Access, done func(), err error) {
	a = s.access(v, id)
	switch age := time.Since(to); {
	case s.parts.Past == nil:
		return a, nil, ErrNotRemembered
	case !tellsTimes(a):
		return a, nil, errNotShown
	case age < 0:
		return a, nil, errAhead
	case age > pastReach+time.Minute && !v.all: // the minute is for who asks for all there is
		return a, nil, errTooOld
	}
	select {
	case s.readers <- struct{}{}:
		return a, func() { <-s.readers }, nil
	case <-ctx.Done():
		return a, nil, ctx.Err()
	}
}

// history gives the changes of a person as the viewer may see them now.
func (s *Site) history(ctx context.Context, v viewer, id presence.ID, since, until time.Time, most int) ([]Change, error) {
	ctx, cancel := context.WithTimeout(ctx, pastTime)
	defer cancel()
	access, done, err := s.lookBack(ctx, v, id, since)
	if err != nil {
		return nil, err
	}
	defer done()
	return s.parts.Past.History(ctx, id, since, until, access, most)
}

// day gives a day as the viewer may see it now: what is over at now, and what is known
// to follow until the day is.
func (s *Site) day(ctx context.Context, v viewer, id presence.ID, since, now, until time.Time) (*Day, error) {
	ctx, cancel := context.WithTimeout(ctx, dayTime)
	defer cancel()
	access, done, err := s.lookBack(ctx, v, id, since)
	if err != nil {
		return nil, err
	}
	defer done()
	d, err := s.parts.Past.Day(ctx, id, since, now, until, access, maxChanges)
	if err != nil {
		return nil, err
	}
	return d.seen(access, now), nil
}

// explainAt gives the reasoning at a past moment as the viewer may see it now.
func (s *Site) explainAt(ctx context.Context, v viewer, id presence.ID, at time.Time) (Reasoning, error) {
	ctx, cancel := context.WithTimeout(ctx, pastTime)
	defer cancel()
	access, done, err := s.lookBack(ctx, v, id, at)
	if err != nil {
		return Reasoning{}, err
	}
	defer done()
	e, err := s.parts.Past.ExplainAt(ctx, id, at)
	if err != nil {
		return Reasoning{}, err
	}
	return reasoned(e, access), nil
}

// pastProblem says what is wrong to who asked; what is wrong inside is logged.
func (s *Site) pastProblem(ctx context.Context, err error) *Refusal {
	switch {
	case errors.Is(err, ErrNotRemembered), errors.Is(err, errNotShown):
		return &Refusal{http.StatusNotFound, err.Error()}
	case errors.Is(err, errTooOld), errors.Is(err, errAhead):
		return &Refusal{http.StatusUnprocessableEntity, err.Error()}
	default:
		if ctx.Err() == nil { // else it is who asked that is gone
			s.log.WarnContext(ctx, "the past cannot be read", "error", err)
		}
		return &Refusal{http.StatusServiceUnavailable, "the past cannot be read just now; try again"}
	}
}

// seen gives what of a day somebody with that access may see. What a source said is
// told as far as the reasoning tells it of any moment (reasoned).
func (d *Day) seen(a presence.Access, now time.Time) *Day {
	hides := slices.ContainsFunc(d.Said, func(s journal.Saying) bool { return s.Fact == presence.ManualOffline })
	v := &Day{Changes: d.Changes}
	if a.Level != presence.LevelFull || hides && !a.Own {
		return v
	}
	if tellsAhead(a) {
		for i := range d.Ahead {
			v.Ahead = append(v.Ahead, visible(d.Ahead[i], a))
		}
	}
	calendars := map[string]bool{}
	for i := range d.Said {
		s := &d.Said[i]
		calendars[s.Source] = calendars[s.Source] || !besidesCalendars().Has(s.Fact)
	}
	for _, s := range d.Said {
		if a.Calendar != presence.CalendarOpen && (calendars[s.Source] || s.Private) {
			continue
		}
		if s.Private {
			s.Contact = ""
		}
		if !tellsAhead(a) { // what is set by hand may end with an entry
			if s.From.After(now) {
				continue
			}
			if s.Until.After(now) {
				s.Until = time.Time{}
			}
		}
		v.Said = append(v.Said, s)
	}
	return v
}

// A pastView is what a person's page says of one day.
type pastView struct {
	Title, Date string
	Line        *timeline
	Changes     []changeView
	Ahead       []changeView // what is known, from the next change on
	Said        []sayingView // what the sources said, the latest first
	Problem     string       // instead of changes
	Earlier     int          // how many are left out
	Ask         bool         // another moment may be asked for

	Input, ISO string // the moment in the form, in the zone of the server and in UTC
	Wrong      string // what is wrong with the moment that was asked for
}

type changeView struct {
	At     moment
	Href   string
	Look   look
	Doing  string
	Why    string
	Source string
}

type sayingView struct {
	From, Until moment
	Source      string
	What, About string
}

const (
	maxChangesShown = 50
	maxSaidShown    = 200
)

// fullStop makes an error a sentence.
func fullStop(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

// pastOf reads the day of a moment.
func (s *Site) pastOf(r *http.Request, id presence.ID, at, now time.Time) *pastView {
	at = at.In(s.zone)
	day := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, s.zone)
	v := &pastView{Title: "Today", Date: day.Format("Monday 2 January"), Input: at.Format("2006-01-02T15:04:05"), ISO: at.UTC().Format(time.RFC3339)}
	if dayNumber(at) != dayNumber(now.In(s.zone)) {
		v.Title, v.Date = v.Date, ""
	}
	since, until := day, day.AddDate(0, 0, 1)
	if until.After(now) {
		until = now
	}
	if oldest := now.Add(-pastReach); since.Before(oldest) {
		since = oldest
	}
	d, err := s.day(r.Context(), s.viewer(r), id, since, until, day.AddDate(0, 0, 1))
	if err != nil {
		wrong := s.pastProblem(r.Context(), err)
		v.Problem, v.Ask = fullStop(wrong.Text), wrong.Code != http.StatusNotFound
		return v
	}
	v.Ask = true
	changes := d.Changes
	if len(changes) > 0 {
		v.Line = timelineOf(d, day, until, at)
	}
	v.tell(d, now, s.zone)
	v.Earlier = max(0, len(changes)-maxChangesShown)
	for i := len(changes) - 1; i >= v.Earlier; i-- { // the latest first
		v.Changes = append(v.Changes, changeOf(id, &changes[i], now, s.zone))
	}
	return v
}

// tell writes down what the picture shows beside what was shown.
func (v *pastView) tell(d *Day, now time.Time, zone *time.Location) {
	for i := 1; i < len(d.Ahead); i++ {
		st, before := &d.Ahead[i], &d.Ahead[i-1]
		l, does := wordsOf(*st)
		if was, did := wordsOf(*before); was == l && did == does {
			continue
		}
		v.Ahead = append(v.Ahead, changeView{At: momentOf(st.Since, now, zone), Look: l, Doing: does, Why: st.Why.Title, Source: st.Why.Source})
	}
	said := slices.Clone(d.Said)
	slices.SortStableFunc(said, func(a, b journal.Saying) int { return b.From.Compare(a.From) })
	for i := range said[:min(len(said), maxSaidShown)] {
		one := &said[i]
		v.Said = append(v.Said, sayingView{momentOf(one.From, now, zone), momentOf(one.Until, now, zone), one.Source, sayingWords(one), bare(one.Contact)})
	}
}

func changeOf(id presence.ID, c *Change, now time.Time, zone *time.Location) changeView {
	st := presence.State{Availability: c.Availability, Activity: c.Activity}
	for _, name := range c.Overlays {
		var o presence.Overlays
		if o.UnmarshalText([]byte(name)) == nil {
			st.Overlays |= o
		}
	}
	v := changeView{At: momentOf(c.At, now, zone), Href: momentPath(id, c.At), Look: lookOf(&st), Why: c.Title, Source: c.Source}
	v.Doing, _ = doing(&st)
	return v
}

// momentPath gives the address of a person's page at a past moment.
func momentPath(id presence.ID, at time.Time) string {
	return personPath(id) + "?at=" + at.UTC().Format("2006-01-02T15:04:05.999999999Z")
}

// parseMoment reads the moment of a page: as the API has it, or as the form sends
// it without script, in the zone of the server.
func parseMoment(text string, zone *time.Location) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("that is no moment such as 2026-03-02T10:00:00Z")
}
