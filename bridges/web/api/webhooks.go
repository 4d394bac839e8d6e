package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// Webhooks are the receivers that are told by webhook. The error of a name that none
// has is a web.Refusal.
type Webhooks interface {
	// Dead gives what was given up.
	Dead(name string) ([]Letter, error)
	// Retry tries that again, of one person or (empty) of all, after it has left a line
	// in the audit trail; it gives how many letters that were.
	Retry(ctx context.Context, by audit.Actor, name string, person presence.ID) (int, error)
}

// A Letter is what a receiver does not know of a person, because it was given up.
type Letter struct {
	Person presence.ID `json:"person"`
	Since  time.Time   `json:"since" doc:"When what it says became so."`
	At     time.Time   `json:"at" doc:"When it was given up."`
	Tries  int         `json:"tries"`
	Why    string      `json:"why" doc:"The last failure."`
}

// Retried says how many letters are tried again.
type Retried struct {
	Letters int `json:"letters"`
}

// OneWebhook is the input of operations about one receiver.
type OneWebhook struct {
	Name string `path:"name" maxLength:"100" doc:"Name of the webhook in the configuration."`
}

func (a *API) webhooks() {
	needs, tags, errs := need{signin.AdminServices}, []string{"services"}, []int{http.StatusNotFound, http.StatusServiceUnavailable}
	type deadAnswer struct{ Body []Letter }
	add(a, needs, huma.Operation{
		OperationID: "list-dead-letters", Method: http.MethodGet, Path: "/api/webhooks/{name}/dead", Tags: tags, Summary: "What was given up: of whom the receiver does not know the newest", Errors: errs,
	}, func(ctx context.Context, in *OneWebhook) (*deadAnswer, error) {
		dead, err := a.Webhooks.Dead(in.Name)
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		return &deadAnswer{orNone(dead)}, nil
	})
	type retryAnswer struct{ Body Retried }
	add(a, needs, huma.Operation{
		OperationID: "retry-webhook", Method: http.MethodPost, Path: "/api/webhooks/{name}/retry", Tags: tags,
		Summary: "Try that again, and a receiver that is left alone, or wanted nothing any more, at once", Errors: errs,
	}, func(ctx context.Context, in *struct {
		OneWebhook

		Person string `query:"person" maxLength:"512" doc:"Only what is about this person."`
	},
	) (*retryAnswer, error) {
		n, err := a.Webhooks.Retry(ctx, actor(ctx), in.Name, presence.ID(in.Person))
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		return &retryAnswer{Retried{n}}, nil
	})
}
