package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"presenced/aggregator/journal"
	"presenced/aggregator/policy"
	"presenced/aggregator/presence"
	"presenced/bridges/web"
	"presenced/bridges/web/api"
)

// ExplainCommand asks a running service why somebody's presence is, or was, what it is.
type ExplainCommand struct {
	Person string `arg:"" help:"Identifier of the person."`
	At     string `help:"A past moment, as 2026-11-20T10:05:00Z: it is explained from what was known then."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *ExplainCommand) Run(ctx context.Context, term *Terminal) error {
	if c.At != "" {
		if _, err := time.Parse(time.RFC3339, c.At); err != nil {
			return fmt.Errorf("--at %s: want a moment such as 2026-11-20T10:05:00Z, or 2026-11-20T11:05:00+01:00", c.At)
		}
	}
	path := "/people/" + url.PathEscape(c.Person) + "/explain?" + given(url.Values{"at": {c.At}})
	var e web.Reasoning
	if err := c.askFor(ctx, pastTime, http.MethodGet, path, nil, &e); err != nil {
		return err
	}
	if c.Format == "json" {
		return printJSON(term.Out, e)
	}
	_, err := io.WriteString(term.Out, e.Text(time.Local))
	return err
}

// HistoryCommand asks a running service what somebody's presence was.
type HistoryCommand struct {
	Person string        `arg:"" help:"Identifier of the person."`
	Since  time.Duration `default:"24h" help:"How far back."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *HistoryCommand) Run(ctx context.Context, term *Terminal) error {
	var h api.History
	query := url.Values{"since": {c.Since.String()}, "limit": {strconv.Itoa(mostChanges)}}
	if err := c.askFor(ctx, pastTime, http.MethodGet, "/people/"+url.PathEscape(c.Person)+"/history?"+query.Encode(), nil, &h); err != nil {
		return err
	}
	if len(h.Changes) == mostChanges {
		fmt.Fprintf(term.Err, "older changes than these %d are left out\n", mostChanges)
	}
	return c.print(term, h.Changes, func(t io.Writer) {
		for _, one := range h.Changes {
			what := one.Availability.String()
			if one.Activity != presence.NoActivity {
				what += ", " + one.Activity.String()
			}
			if len(one.Overlays) > 0 {
				what += " (" + strings.Join(one.Overlays, ", ") + ")"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", stampText(one.At), what, one.Title, one.Source)
		}
	})
}

// mostChanges is how many lines of somebody's history are asked for.
const mostChanges = 10_000

// PolicyDryRunCommand tries a table on the past.
type PolicyDryRunCommand struct {
	File  string        `arg:"" help:"File with a table." type:"path"`
	Since time.Duration `default:"24h" help:"How far back."`
	Asked `embed:""`
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
	if err := c.askFor(ctx, pastTime, http.MethodPost, "/policy/dry-run?since="+c.Since.String(), table, &differences); err != nil {
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
