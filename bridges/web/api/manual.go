package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"presenced/aggregator"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// Manual is what is set by hand. A change is durable, and in the audit trail, when it
// returns without an error; both may take seconds. Its errors are those of
// aggregator.Manual and audit.Trail.
type Manual interface {
	// Set makes one of presence.ManualFacts the state of a person; the zero time leaves
	// the end to the policy.
	Set(ctx context.Context, by audit.Actor, of presence.ID, fact presence.Fact, until time.Time) (presence.Report, error)
	Clear(ctx context.Context, by audit.Actor, of presence.ID) error
}

// ByHand is what is set by hand, and what the presence is with it.
type ByHand struct {
	Person   presence.ID    `json:"person"`
	State    string         `json:"state,omitempty" doc:"What is set; absent: nothing."`
	Until    time.Time      `json:"until,omitzero" doc:"When it ends; absent: when it is cleared."`
	Presence presence.State `json:"presence" doc:"As who asks sees it."`
}

type byHandAnswer struct{ Body ByHand }

func (a *API) manual() {
	needs := need{signin.WriteOwn, signin.WritePresence}
	errs := []int{http.StatusNotFound, http.StatusServiceUnavailable}
	add(a, needs, huma.Operation{
		OperationID: "set-presence", Method: http.MethodPut, Path: "/api/people/{id}/presence", Tags: []string{"presence"},
		Summary: "Set somebody's presence by hand", Description: "Answers when it is durable. With write:own, only one's own.", Errors: bodyErrors(errs...),
	}, func(ctx context.Context, in *struct {
		OnePerson

		Body struct {
			State byHand    `json:"state" doc:"What is set."`
			Until time.Time `json:"until,omitzero" doc:"When it ends. Without it: a day for busy and dnd, the end of the calendar entry or the working day for available, when it is cleared for all others."`
		}
	},
	) (*byHandAnswer, error) {
		if err := a.maySet(ctx, in.ID); err != nil {
			return nil, err
		}
		fact, err := aggregator.ParseManual(string(in.Body.State))
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		report, err := a.Manual.Set(ctx, actor(ctx), presence.ID(in.ID), fact, in.Body.Until)
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		return a.setByHand(ctx, ByHand{Person: presence.ID(in.ID), State: string(in.Body.State), Until: report.Spans[0].Until}), nil
	})
	add(a, needs, huma.Operation{
		OperationID: "clear-presence", Method: http.MethodDelete, Path: "/api/people/{id}/presence", Tags: []string{"presence"},
		Summary: "End what was set by hand", Description: "Answers when that is durable; it is no error if there is nothing. With write:own, only one's own.", Errors: errs,
		DefaultStatus: http.StatusOK,
	}, func(ctx context.Context, in *OnePerson) (*byHandAnswer, error) {
		if err := a.maySet(ctx, in.ID); err != nil {
			return nil, err
		}
		if err := a.Manual.Clear(ctx, actor(ctx), presence.ID(in.ID)); err != nil {
			return nil, a.refuse(ctx, err)
		}
		return a.setByHand(ctx, ByHand{Person: presence.ID(in.ID)}), nil
	})
}

// maySet refuses who may set only their own presence, and asks for that of others.
func (a *API) maySet(ctx context.Context, id string) error {
	if !signin.From(ctx).MaySet(presence.ID(id)) {
		return huma.NewError(http.StatusForbidden, "to set the presence of others takes the permission "+signin.WritePresence.String())
	}
	return nil
}

func (a *API) setByHand(ctx context.Context, h ByHand) *byHandAnswer {
	if p, ok := a.find(ctx, string(h.Person)); ok {
		h.Presence = p.State
	}
	return &byHandAnswer{h}
}
