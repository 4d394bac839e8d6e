package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"presenced/aggregator/journal"
	"presenced/aggregator/policy"
	"presenced/aggregator/presence"
	"presenced/bridges/web"
)

// HistoryCommand asks a running service what somebody's presence was.
type HistoryCommand struct {
	Person string        `arg:"" help:"Identifier of the person."`
	Since  time.Duration `default:"24h" help:"How far back."`
	Format string        `enum:"text,json" default:"text" help:"text or json."`
	Socket `embed:""`
}

// Run implements the command.
func (c *HistoryCommand) Run(ctx context.Context, term *Terminal) error {
	var changes []web.Change
	since := time.Now().Add(-c.Since).UTC().Format(time.RFC3339)
	if err := c.past(ctx, http.MethodGet, "/people/"+url.PathEscape(c.Person)+"/history?since="+url.QueryEscape(since), nil, &changes); err != nil {
		return err
	}
	if c.Format == "json" {
		return printJSON(term.Out, changes)
	}
	t := tabwriter.NewWriter(term.Out, 0, 0, 2, ' ', 0)
	for _, h := range changes {
		what := h.Availability.String()
		if h.Activity != presence.NoActivity {
			what += ", " + h.Activity.String()
		}
		if len(h.Overlays) > 0 {
			what += " (" + strings.Join(h.Overlays, ", ") + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", h.At.Local().Format("2006-01-02 15:04:05"), what, h.Title, h.Source)
	}
	return t.Flush()
}

// PolicyDryRunCommand tries a table on the past.
type PolicyDryRunCommand struct {
	File   string        `arg:"" help:"File with a table." type:"path"`
	Since  time.Duration `default:"24h" help:"How far back."`
	Format string        `enum:"text,json" default:"text" help:"text or json."`
	Socket `embed:""`
}

// Run implements the command.
func (c *PolicyDryRunCommand) Run(ctx context.Context, term *Terminal) error {
	table, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	if _, err := policy.Parse(c.File, table); err != nil { // every mistake, with its line, before anybody is asked
		return err
	}
	var differences []journal.Difference
	since := time.Now().Add(-c.Since).UTC().Format(time.RFC3339)
	if err := c.past(ctx, http.MethodPost, "/policy/dry-run?since="+url.QueryEscape(since), table, &differences); err != nil {
		return err
	}
	if c.Format == "json" {
		return printJSON(term.Out, differences)
	}
	people := map[presence.ID]bool{}
	t := tabwriter.NewWriter(term.Out, 0, 0, 2, ' ', 0)
	for _, d := range differences {
		people[d.Person] = true
		until := "on"
		if !d.Until.IsZero() {
			until = d.Until.Local().Format("15:04:05")
		}
		fmt.Fprintf(t, "%s\tto %s\t%s\twas %s\twould be %s\n", d.From.Local().Format("2006-01-02 15:04:05"), until, d.Person, d.WasWords, d.WouldWords)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(term.Out, "%d people would have been different, %d times in the last %s.\n", len(people), len(differences), c.Since)
	return err
}

// pastTime is how long a question about the past may take: a dry run reads all of it.
const pastTime = 5 * time.Minute

// past asks the service about the past.
func (s *Socket) past(ctx context.Context, method, path string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, pastTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://presenced"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	return s.do(req, into)
}

// The handlers of the control socket about the past.
//
//	GET  /people/{id}/history?since=TIME
//	GET  /people/{id}/explain?at=TIME
//	POST /policy/dry-run?since=TIME   with a table
func (a *archive) routes(mux *http.ServeMux) {
	person := func(w http.ResponseWriter, r *http.Request) (presence.ID, bool) {
		id := presence.ID(r.PathValue("id"))
		if _, known := a.hub.State(id); !known {
			a.answer(w, http.StatusNotFound, fmt.Errorf("nobody in the directory has the identifier %q", id), nil)
			return "", false
		}
		return id, true
	}
	moment := func(w http.ResponseWriter, r *http.Request, key string) (time.Time, bool) {
		t, err := time.Parse(time.RFC3339, r.URL.Query().Get(key))
		if err != nil {
			a.answer(w, http.StatusBadRequest, fmt.Errorf("%s is to be a time such as 2026-11-20T10:00:00Z", key), nil)
			return t, false
		}
		return t, true
	}
	mux.HandleFunc("GET /people/{id}/history", func(w http.ResponseWriter, r *http.Request) {
		if id, ok := person(w, r); ok {
			if since, ok := moment(w, r, "since"); ok {
				changes, err := a.History(r.Context(), id, since, time.Now(), presence.Everyone(), math.MaxInt)
				a.answer(w, http.StatusServiceUnavailable, err, changes)
			}
		}
	})
	mux.HandleFunc("GET /people/{id}/explain", func(w http.ResponseWriter, r *http.Request) {
		if id, ok := person(w, r); ok {
			if at, ok := moment(w, r, "at"); ok {
				e, err := a.ExplainAt(r.Context(), id, at)
				a.answer(w, http.StatusServiceUnavailable, err, e)
			}
		}
	})
	mux.HandleFunc("POST /policy/dry-run", func(w http.ResponseWriter, r *http.Request) {
		since, ok := moment(w, r, "since")
		if !ok {
			return
		}
		table, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTable))
		if err != nil {
			a.answer(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the table is larger than %d bytes", maxTable), nil)
			return
		}
		would, err := policy.Parse("table", table)
		if err != nil {
			a.answer(w, http.StatusBadRequest, err, nil)
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pastTime))
		differences, err := a.dryRun(r.Context(), a.hub.Policy(), would, since, time.Now())
		a.answer(w, http.StatusServiceUnavailable, err, differences)
	})
}

const maxTable = 1 << 20

// answer writes value, or the error with that status.
func (a *archive) answer(w http.ResponseWriter, failed int, err error, value any) {
	status := http.StatusOK
	if err != nil {
		if status = failed; errors.Is(err, web.ErrNotRemembered) {
			status = http.StatusNotFound
		}
		value = map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(value); err != nil {
		a.log.Warn("an answer about the past could not be written", "error", err)
	}
}
