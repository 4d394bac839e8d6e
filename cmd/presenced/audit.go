package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"presenced/aggregator/audit"
	"presenced/bridges/web/api"
)

// AuditCommand tells who changed what, in a running service.
type AuditCommand struct {
	Since  time.Duration `default:"24h" help:"How far back."`
	Person string        `help:"Only changes of this person."`
	Format string        `enum:"text,json,csv" default:"text" help:"text, json, or csv for a spreadsheet."`
	Server `embed:""`
}

// Run implements the command.
func (c *AuditCommand) Run(ctx context.Context, term *Terminal) error {
	var a api.AuditLines
	if err := c.askFor(ctx, pastTime, http.MethodGet, "/audit?"+given(url.Values{"since": {c.Since.String()}, "whom": {c.Person}}), nil, &a); err != nil {
		return err
	}
	if a.LeftOut > 0 {
		fmt.Fprintf(term.Err, "%d older lines are left out; name a person, or a shorter time\n", a.LeftOut)
	}
	switch c.Format {
	case "json":
		return printJSON(term.Out, a.Lines)
	case "csv":
		return audit.WriteCSV(term.Out, a.Lines)
	}
	text := Asked{Format: c.Format}
	return text.print(term, a.Lines, func(t io.Writer) {
		for _, l := range a.Lines {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", l.At.Local().Format("2006-01-02 15:04:05"), l.Who, l.From, l.What, l.Whom, l.Detail)
		}
	})
}
