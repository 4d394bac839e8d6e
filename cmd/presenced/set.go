package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/bridges/web/api"
)

// SetCommand sets somebody's presence by hand.
type SetCommand struct {
	Person string `arg:"" help:"Identifier of the person."`
	State  string `arg:"" help:"available, busy, dnd, brb, away, off-work, out-of-office or offline."`
	Until  string `help:"When it ends: 15:00 (the next one), 2026-11-20T15:00, or 2h from now. Without it: a day for busy and dnd, the end of the calendar entry or the working day for available, when it is cleared for all others."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *SetCommand) Run(ctx context.Context, term *Terminal) error {
	if _, err := aggregator.ParseManual(c.State); err != nil {
		return err
	}
	body := map[string]any{"state": c.State}
	if c.Until != "" {
		until, err := parseUntil(c.Until, time.Now())
		if err != nil {
			return err
		}
		body["until"] = until
	}
	var a byHandAnswer
	path, err := presencePath(c.Person)
	if err == nil {
		err = c.ask(ctx, http.MethodPut, path, body, &a)
	}
	if err != nil {
		return err
	}
	ends := "until it is cleared"
	if !a.Until.IsZero() {
		ends = "until " + a.Until.Local().Format("2006-01-02 15:04:05")
	}
	return c.print(term, &a.ByHand, func(w io.Writer) {
		fmt.Fprintf(w, "%s is set to %s %s%s\n", a.Person, a.State, ends, a.shows())
	})
}

// ClearCommand ends what was set by hand.
type ClearCommand struct {
	Person string `arg:"" help:"Identifier of the person."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *ClearCommand) Run(ctx context.Context, term *Terminal) error {
	var a byHandAnswer
	path, err := presencePath(c.Person)
	if err == nil {
		err = c.ask(ctx, http.MethodDelete, path, nil, &a)
	}
	if err != nil {
		return err
	}
	return c.print(term, &a.ByHand, func(w io.Writer) {
		fmt.Fprintf(w, "%s has nothing set by hand%s\n", a.Person, a.shows())
	})
}

// presencePath gives the address of what somebody set by hand.
func presencePath(person string) (string, error) {
	if person == "" {
		return "", errors.New("name a person by their identifier")
	}
	return "/people/" + url.PathEscape(person) + "/presence", nil
}

// A byHandAnswer says what is set by hand, and what the presence is with it.
type byHandAnswer struct{ api.ByHand }

// shows says what the presence is, where that is not simply what was set.
func (a *byHandAnswer) shows() string {
	s := &a.Presence
	if a.State == s.Availability.String() && s.Why.Rule == "manual-"+a.State {
		return ""
	}
	text := s.Availability.String()
	if s.Activity != presence.NoActivity {
		text += ", " + s.Activity.String()
	}
	return fmt.Sprintf("; the presence is %s, by rule %s: %s", text, s.Why.Rule, s.Why.Title)
}

// parseUntil reads 15:00 (the next one), 2026-11-20T15:00, both in local time,
// a time by RFC 3339, or 2h from now.
func parseUntil(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		if d <= 0 {
			return time.Time{}, fmt.Errorf("--until %s: must be later than now", text)
		}
		return now.Add(d), nil
	}
	if t, err := time.Parse("15:04", text); err == nil {
		end := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location())
		if !end.After(now) {
			end = time.Date(now.Year(), now.Month(), now.Day()+1, t.Hour(), t.Minute(), 0, 0, now.Location())
		}
		return end, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--until %s: want 15:00, 2026-11-20T15:00, or 2h", strings.TrimSpace(text))
}
