package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// A Socket is the control socket of the running service that a command asks.
type Socket struct {
	Socket string `default:"/run/presenced/control.sock" help:"Control socket of the running service." type:"path"`
}

// SetCommand sets somebody's presence by hand.
type SetCommand struct {
	Person string `arg:"" help:"Identifier of the person."`
	State  string `arg:"" help:"available, busy, dnd, brb, away, off-work, out-of-office or offline."`
	Until  string `help:"When it ends: 15:00 (the next one), 2026-11-20T15:00, or 2h from now. Without it: a day for busy and dnd, the end of the calendar entry or the working day for available, when it is cleared for all others."`
	Socket `embed:""`
}

// Run implements the command.
func (c *SetCommand) Run(ctx context.Context, term *Terminal) error {
	if _, err := aggregator.ParseManual(c.State); err != nil {
		return err
	}
	body := requestJSON{State: c.State}
	if c.Until != "" {
		var err error
		if body.Until, err = parseUntil(c.Until, time.Now()); err != nil {
			return err
		}
	}
	a, err := c.ask(ctx, http.MethodPut, c.Person, body)
	if err != nil {
		return err
	}
	ends := "until it is cleared"
	if !a.Until.IsZero() {
		ends = "until " + a.Until.Local().Format("2006-01-02 15:04:05")
	}
	_, err = fmt.Fprintf(term.Out, "%s is set to %s %s%s\n", a.Person, a.State, ends, a.shows())
	return err
}

// ClearCommand ends what was set by hand.
type ClearCommand struct {
	Person string `arg:"" help:"Identifier of the person."`
	Socket `embed:""`
}

// Run implements the command.
func (c *ClearCommand) Run(ctx context.Context, term *Terminal) error {
	a, err := c.ask(ctx, http.MethodDelete, c.Person, nil)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(term.Out, "%s has nothing set by hand%s\n", a.Person, a.shows())
	return err
}

// shows says what the presence is, where that is not simply what was set.
func (a *answerJSON) shows() string {
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

// ask sends one request about a person and gives the answer.
func (s *Socket) ask(ctx context.Context, method, person string, body any) (*answerJSON, error) {
	if person == "" {
		return nil, errors.New("name a person by their identifier")
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var content io.Reader = http.NoBody
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://presenced/people/"+url.PathEscape(person)+"/presence", content)
	if err != nil {
		return nil, err
	}
	var a answerJSON
	if err := s.do(req, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

// do sends a request over the socket and reads the answer into what into points to.
func (s *Socket) do(req *http.Request, into any) error {
	var dialer net.Dialer
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", s.Socket)
	}}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return s.unasked(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return s.unasked(err)
	}
	if res.StatusCode != http.StatusOK {
		var refusal struct{ Error string }
		if json.Unmarshal(data, &refusal) != nil || refusal.Error == "" {
			refusal.Error = fmt.Sprintf("%s answers %s", s.Socket, res.Status)
		}
		return errors.New(refusal.Error)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s gives something else than an answer: %w", s.Socket, err)
	}
	return nil
}

// askTime is how long a command waits for the service.
const askTime = 15 * time.Second

// unasked says what a failed request means: nothing, where there was no
// connection; else it may have been done.
func (s *Socket) unasked(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
			return fmt.Errorf("is presenced running, with control.socket %s? %w", s.Socket, err)
		case errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("only root and the group of %s may do this: %w", s.Socket, err)
		}
		return err
	}
	return fmt.Errorf("there was no answer, so it is not certain whether it was done; see \"presenced explain\": %w", err)
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
