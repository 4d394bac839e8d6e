package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// Parts are the sources, the bridges and the store.
type Parts interface {
	// Health gives all of them. It must not block.
	Health() []aggregator.Health
	// PollNow has a part look at once. It fails with aggregator.ErrNoPart,
	// ErrNotPolled, ErrElsewhere or ErrTooSoon, and does not block.
	PollNow(name string) error
}

// me says who asks, and the health of parts.
func (a *API) me() {
	type me struct {
		Account     string      `json:"account,omitempty" doc:"Absent: did not sign in."`
		Name        string      `json:"name,omitempty"`
		Role        string      `json:"role"`
		Person      presence.ID `json:"person,omitempty" doc:"Who that is in the directory."`
		Permissions []string    `json:"permissions" nullable:"false" doc:"What they may do; with a token, no more than its scopes."`
	}
	type meAnswer struct{ Body me }
	add(a, nil, huma.Operation{
		OperationID: "get-me", Method: http.MethodGet, Path: "/api/me", Tags: []string{"service"}, Summary: "Who asks, and what they may do",
	}, func(ctx context.Context, _ *struct{}) (*meAnswer, error) {
		who := signin.From(ctx)
		m := me{Account: who.Account, Name: who.Name, Role: who.Role.String(), Person: who.Person, Permissions: []string{}}
		for _, name := range signin.Permissions() {
			var p signin.Permission
			if p.UnmarshalText([]byte(name)) == nil && who.May(p) {
				m.Permissions = append(m.Permissions, name)
			}
		}
		return &meAnswer{m}, nil
	})
}

func (a *API) parts() {
	type healthAnswer struct {
		Body struct {
			Parts []aggregator.Health `json:"parts" nullable:"false"`
		}
	}
	add(a, need{signin.ReadHealth}, huma.Operation{
		OperationID: "get-health", Method: http.MethodGet, Path: "/api/health", Tags: []string{"service"},
		Summary: "How sources, bridges and the store fare",
	}, func(_ context.Context, in *struct {
		Kind string `query:"kind" enum:"source,bridge,store,policy" doc:"Only parts of this kind."`
	},
	) (*healthAnswer, error) {
		var out healthAnswer
		out.Body.Parts = []aggregator.Health{}
		for _, h := range a.Parts.Health() {
			if in.Kind == "" || in.Kind == string(h.Kind) {
				out.Body.Parts = append(out.Body.Parts, h)
			}
		}
		return &out, nil
	})
	type polledAnswer struct{ Body Polled }
	add(a, need{signin.WritePresence}, huma.Operation{
		OperationID: "poll-part", Method: http.MethodPost, Path: "/api/health/{name}/poll", Tags: []string{"service"},
		Summary: "Have a source look at once, or run a part again that waits",
		Errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests},
	}, func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"100" doc:"Name of the part, as health gives it."`
	},
	) (*polledAnswer, error) {
		if err := a.Parts.PollNow(in.Name); err != nil {
			return nil, a.refuse(ctx, err)
		}
		return &polledAnswer{Polled{in.Name}}, nil
	})
}

// Polled says which part looks at once.
type Polled struct {
	Part string `json:"part"`
}
