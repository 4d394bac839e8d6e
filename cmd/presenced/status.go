package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/bridges/web/api"
)

// StatusCommand asks a running service how its parts fare.
type StatusCommand struct {
	Asked `embed:""`
}

// Run implements the command.
func (c *StatusCommand) Run(ctx context.Context, term *Terminal) error {
	var health struct {
		Parts []aggregator.Health `json:"parts"`
	}
	if err := c.ask(ctx, http.MethodGet, "/health", nil, &health); err != nil {
		return err
	}
	return c.print(term, health, func(t io.Writer) {
		for _, h := range health.Parts {
			since := ""
			if !h.Since.IsZero() {
				since = "since " + stampText(h.Since)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", h.Kind, h.Name, h.Phase, since, h.Detail, h.LastError)
		}
	})
}

// PollCommand has a part look at once.
type PollCommand struct {
	Part  string `arg:"" help:"Name of the source, bridge or store, as status gives it."`
	Asked `embed:""`
}

// Run implements the command.
func (c *PollCommand) Run(ctx context.Context, term *Terminal) error {
	var polled api.Polled
	if err := c.ask(ctx, http.MethodPost, "/health/"+url.PathEscape(c.Part)+"/poll", nil, &polled); err != nil {
		return err
	}
	return c.print(term, polled, func(t io.Writer) {
		fmt.Fprintf(t, "%s looks at once; \"presenced status\" says how it fares\n", polled.Part)
	})
}

// BoardCommand says what people are doing.
type BoardCommand struct {
	Query string `arg:"" optional:"" help:"Words that the name or an address must hold."`
	Group string `help:"Only members of this group."`
	State string `help:"Only those who are available, busy, dnd, ..., or uncertain."`
	Asked `embed:""`
}

// Run implements the command.
func (c *BoardCommand) Run(ctx context.Context, term *Terminal) error {
	people := []api.Person{}
	query := url.Values{"q": {c.Query}, "group": {c.Group}, "state": {c.State}, "limit": {strconv.Itoa(pageSize)}}
	for {
		var page struct {
			People []api.Person `json:"people"`
			Next   string       `json:"next"`
		}
		if err := c.ask(ctx, http.MethodGet, "/people?"+given(query), nil, &page); err != nil {
			return err
		}
		if people = append(people, page.People...); page.Next == "" {
			break
		}
		query.Set("cursor", page.Next)
	}
	return c.print(term, people, func(t io.Writer) {
		fmt.Fprintln(t, "PERSON\tNAME\tSTATE\tSINCE\tUNTIL\tPHONE\tGROUPS")
		for i := range people {
			p := &people[i]
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, p.Name, stateText(&p.State), stampText(p.State.Since), stampText(p.State.Until),
				p.State.Channel(presence.Phone).State, strings.Join(p.Groups, ", "))
		}
	})
}

// pageSize is how many people are asked for at once.
const pageSize = 1000

// given encodes what of a query is not empty.
func given(query url.Values) string {
	for key := range query {
		if query.Get(key) == "" {
			query.Del(key)
		}
	}
	return query.Encode()
}

// stateText is a state in words, such as "busy, on-the-phone (stale)".
func stateText(s *presence.State) string {
	text := s.Availability.String()
	if s.Activity != presence.NoActivity && s.Activity.String() != text {
		text += ", " + s.Activity.String()
	}
	if names := s.Overlays.Names(); len(names) > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	return text
}

// stampText is a moment for people; empty: none.
func stampText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
