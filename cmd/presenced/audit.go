package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"presenced/aggregator/audit"
)

// AuditCommand tells who changed what, in a running service.
type AuditCommand struct {
	Since  time.Duration `default:"24h" help:"How far back."`
	Person string        `help:"Only changes of this person."`
	Format string        `enum:"text,json,csv" default:"text" help:"text, json, or csv for a spreadsheet."`
	Socket `embed:""`
}

// Run implements the command.
func (c *AuditCommand) Run(ctx context.Context, term *Terminal) error {
	query := url.Values{"since": {time.Now().Add(-c.Since).UTC().Format(time.RFC3339Nano)}, "whom": {c.Person}}
	var a auditJSON
	if err := c.past(ctx, http.MethodGet, "/audit?"+query.Encode(), nil, &a); err != nil {
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

// auditJSON is lines of the audit trail, the oldest first.
type auditJSON struct {
	Lines   []audit.Line `json:"lines"`
	LeftOut int          `json:"left_out,omitempty"` // older ones
}

// An auditDesk shows the audit trail over the control socket.
//
//	GET /audit?since=TIME&whom=P   whom may be empty
type auditDesk struct {
	trail   *audit.Trail
	control *control
}

func (d *auditDesk) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /audit", func(w http.ResponseWriter, r *http.Request) {
		since, err := time.Parse(time.RFC3339, r.URL.Query().Get("since"))
		if err != nil {
			d.control.answer(w, r, http.StatusBadRequest, map[string]string{"error": "since is to be a time such as 2026-11-20T10:00:00Z"})
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pastTime)) // all of it is read
		lines, left, err := d.trail.Lines(r.Context(), audit.Query{Since: since, Whom: r.URL.Query().Get("whom")})
		if err != nil {
			d.control.answer(w, r, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
			return
		}
		d.control.answer(w, r, http.StatusOK, auditJSON{lines, left})
	})
}
