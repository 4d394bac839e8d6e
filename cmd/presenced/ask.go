package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// A Server is the running service that a command asks.
type Server struct {
	URL   string `default:"http://127.0.0.1:8080" help:"Address of the running service."`
	Token string `env:"PRESENCED_TOKEN" help:"API token, where one has to sign in. Take the environment: other users see a command line."`
}

// The longest answer that is read.
const maxAnswer = 16 << 20

// get asks for a path; accept is a media type.
func (s *Server) get(ctx context.Context, path, accept string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(s.URL, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if s.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.Token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("is presenced running at %s? %w", s.URL, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: %s", s.URL, res.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// ExplainCommand asks a running service why somebody's presence is, or was, what it is.
type ExplainCommand struct {
	Person string `arg:"" help:"Identifier of the person."`
	At     string `help:"A past moment, as 2026-11-20T10:05:00Z: it is explained from what was known then, over the control socket."`
	Format string `enum:"text,json" default:"text" help:"text or json."`
	Server `embed:""`
	Socket `embed:""`
}

// Run implements the command.
func (c *ExplainCommand) Run(ctx context.Context, term *Terminal) error {
	path := "/people/" + url.PathEscape(c.Person) + "/explain"
	if c.At != "" {
		var e presence.Explanation
		if err := c.past(ctx, http.MethodGet, path+"?at="+url.QueryEscape(c.At), nil, &e); err != nil {
			return err
		}
		if c.Format == "json" {
			return printJSON(term.Out, e)
		}
		_, err := io.WriteString(term.Out, e.Text(time.Local))
		return err
	}
	accept := "text/plain"
	if c.Format == "json" {
		accept = "application/json"
	}
	body, err := c.get(ctx, "/api"+path, accept)
	if err != nil {
		return err
	}
	_, err = term.Out.Write(body)
	return err
}

// StatusCommand asks a running service how its parts fare.
type StatusCommand struct {
	Format string `enum:"text,json" default:"text" help:"text or json."`
	Server `embed:""`
}

// Run implements the command.
func (c *StatusCommand) Run(ctx context.Context, term *Terminal) error {
	body, err := c.get(ctx, "/api/health", "application/json")
	if err != nil {
		return err
	}
	if c.Format == "json" {
		_, err = term.Out.Write(body)
		return err
	}
	var health struct {
		Parts []aggregator.Health `json:"parts"`
	}
	if err := json.Unmarshal(body, &health); err != nil {
		return fmt.Errorf("%s gives something else than health: %w", c.URL, err)
	}
	t := tabwriter.NewWriter(term.Out, 0, 0, 2, ' ', 0)
	for _, h := range health.Parts {
		since := ""
		if !h.Since.IsZero() {
			since = "since " + h.Since.Local().Format("2006-01-02 15:04:05")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", h.Kind, h.Name, h.Phase, since, h.Detail, h.LastError)
	}
	return t.Flush()
}
