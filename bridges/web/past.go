package web

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

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
	// ExplainAt gives the reasoning at a past moment, before any view: by the
	// policy that is in force now, from what was known then.
	ExplainAt(ctx context.Context, id presence.ID, at time.Time) (presence.Explanation, error)
}

// ErrNotRemembered is wrapped by the errors of a Past where there is nothing to
// read: because nothing is written down, or was not yet then.
var ErrNotRemembered = errors.New("nothing is remembered")

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

// A pastView is what a person's page says of one day.
type pastView struct {
	Title, Date string
	Line        *timeline
	Changes     []changeView
	Problem     string // instead of changes
	Earlier     int    // how many are left out
	Ask         bool   // another moment may be asked for

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

const maxChangesShown = 50

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
	ctx, cancel := context.WithTimeout(r.Context(), dayTime)
	defer cancel()
	changes, err := s.history(ctx, s.viewer(r), id, since, until, maxChanges)
	if err != nil {
		wrong := s.pastProblem(r.Context(), err)
		v.Problem, v.Ask = fullStop(wrong.Text), wrong.Code != http.StatusNotFound
		return v
	}
	v.Ask = true
	if len(changes) > 0 {
		v.Line = timelineOf(changes, day, until, at)
	}
	v.Earlier = max(0, len(changes)-maxChangesShown)
	for i := len(changes) - 1; i >= v.Earlier; i-- { // the latest first
		v.Changes = append(v.Changes, changeOf(id, &changes[i], now, s.zone))
	}
	return v
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
