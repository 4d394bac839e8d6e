package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/goccy/go-yaml"

	"presenced/aggregator/audit"
	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// Policy is how facts become presence, and how else they could.
type Policy interface {
	// Table writes the policy in force as a policy file.
	Table() []byte
	// Parse reads a table. The error is a *config.Error with all that is wrong.
	Parse(table []byte) (*presence.Policy, error)
	// DryRun tells who would have been different by another policy. It reads all that
	// is remembered, and may take minutes; web.ErrNotRemembered where nothing is.
	DryRun(ctx context.Context, would *presence.Policy, since, until time.Time) ([]journal.Difference, error)
}

// A TableBody is a table, as a policy file has it.
type TableBody struct {
	RawBody []byte `contentType:"application/yaml"`
}

// dryRunTime is how long a dry run may take.
const dryRunTime = 5 * time.Minute

func (a *API) policy() {
	tags := []string{"policy"}
	type tableAnswer struct{ Body any }
	add(a, need{signin.ReadHealth}, huma.Operation{
		OperationID: "get-policy", Method: http.MethodGet, Path: "/api/policy", Tags: tags, Summary: "The table in force",
	}, func(context.Context, *struct{}) (*tableAnswer, error) {
		var out tableAnswer
		_ = yaml.Unmarshal(a.Policy.Table(), &out.Body) // of our own making
		return &out, nil
	})
	type checkAnswer struct {
		Body struct {
			Rules int `json:"rules" doc:"How many rules the table has."`
		}
	}
	add(a, need{signin.AdminAccess}, huma.Operation{
		OperationID: "check-policy", Method: http.MethodPost, Path: "/api/policy/check", Tags: tags,
		Summary: "Check a table, and name everything that is wrong with it", Errors: bodyErrors(), MaxBodyBytes: largeBody,
	}, func(ctx context.Context, in *TableBody) (*checkAnswer, error) {
		p, err := a.Policy.Parse(in.RawBody)
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		var out checkAnswer
		out.Body.Rules = len(p.Rules)
		return &out, nil
	})
	type differences struct{ Body []journal.Difference }
	add(a, need{signin.AdminAccess}, huma.Operation{
		OperationID: "dry-run-policy", Method: http.MethodPost, Path: "/api/policy/dry-run", Tags: tags,
		Summary: "Who would have been different by another table", Description: "From all that is remembered; may take minutes.",
		Errors: bodyErrors(http.StatusNotFound, http.StatusServiceUnavailable), MaxBodyBytes: largeBody, Middlewares: huma.Middlewares{slow},
	}, func(ctx context.Context, in *struct {
		TableBody

		Since string `query:"since" maxLength:"40" default:"24h" doc:"How far back, such as 24h, or from when, such as 2026-03-02T10:00:00Z."`
	},
	) (*differences, error) {
		now := time.Now()
		since, err := moment(in.Since, now)
		if err != nil {
			return nil, unfit("query.since", err.Error())
		}
		would, err := a.Policy.Parse(in.RawBody)
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		all, err := a.Policy.DryRun(ctx, would, since, now)
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		return &differences{orNone(all)}, nil
	})
}

// slow gives an operation the time to read all that is remembered.
func slow(ctx huma.Context, next func(huma.Context)) {
	_, w := humago.Unwrap(ctx)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(dryRunTime)) // where there is none, there is none to move
	bounded, cancel := context.WithTimeout(ctx.Context(), dryRunTime)
	defer cancel()
	next(huma.WithContext(ctx, bounded))
}

// Audit is who changed what: an audit.Trail.
type Audit interface {
	Lines(ctx context.Context, q audit.Query) (lines []audit.Line, left int, err error)
}

// AuditLines are lines of the audit trail, the oldest first.
type AuditLines struct {
	Lines   []audit.Line `json:"lines" nullable:"false"`
	LeftOut int          `json:"left_out,omitempty" doc:"How many older ones there are."`
	Before  time.Time    `json:"before,omitzero" doc:"The until with which those follow; absent: there are none."`
}

func (a *API) audit() {
	type linesAnswer struct{ Body AuditLines }
	add(a, need{signin.ReadAudit}, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/api/audit", Tags: []string{"access"},
		Summary: "Who changed what", Description: "The newest lines, the oldest of them first.", Errors: []int{http.StatusServiceUnavailable}, Middlewares: huma.Middlewares{slow},
	}, func(ctx context.Context, in *struct {
		Since string    `query:"since" maxLength:"40" default:"24h" doc:"How far back, such as 24h, or from when, such as 2026-03-02T10:00:00Z."`
		Until time.Time `query:"until" doc:"Only lines before this moment."`
		Whom  string    `query:"whom" maxLength:"700" doc:"Only changes of this person or thing."`
		Limit int       `query:"limit" minimum:"1" maximum:"5000" default:"5000" doc:"How many at most."`
	},
	) (*linesAnswer, error) {
		since, err := moment(in.Since, time.Now())
		if err != nil {
			return nil, unfit("query.since", err.Error())
		}
		lines, left, err := a.Audit.Lines(ctx, audit.Query{Since: since, Until: in.Until, Whom: in.Whom, Most: in.Limit})
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		out := linesAnswer{AuditLines{Lines: orNone(lines), LeftOut: left}}
		if left > 0 && len(lines) > 0 {
			out.Body.Before = lines[0].At
		}
		return &out, nil
	})
}
