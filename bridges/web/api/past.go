package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"presenced/aggregator/presence"
	"presenced/bridges/web"
	"presenced/bridges/web/signin"
)

// History is what somebody's presence was.
type History struct {
	Person  presence.ID  `json:"person"`
	Since   time.Time    `json:"since"`
	Changes []web.Change `json:"changes" nullable:"false"`
}

func (a *API) past() {
	type explaining struct {
		OnePerson

		At     time.Time `query:"at" doc:"The moment; without it, now. A past one is explained from what was known then, one ahead from what is known now."`
		Accept string    `header:"Accept" hidden:"true"`
	}
	type explainAnswer struct {
		ContentType string `header:"Content-Type" hidden:"true"`
		Vary        string `header:"Vary" hidden:"true"`
		Body        any
	}
	reasoning := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[web.Reasoning](), true, "")
	add(a, canRead(), huma.Operation{
		OperationID: "explain", Method: http.MethodGet, Path: "/api/people/{id}/explain", Tags: []string{"people"},
		Summary: "Why the state of a person is, or was, what it is", Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"application/json": {Schema: reasoning}, "text/plain": {Schema: &huma.Schema{Type: huma.TypeString}},
		}}},
	}, func(ctx context.Context, in *explaining) (*explainAnswer, error) {
		if _, ok := a.known(in.ID); !ok {
			return nil, errNobody(in.ID)
		}
		e, err := a.Sight.Explain(ctx, signin.From(ctx), presence.ID(in.ID), in.At)
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		if wantsText(in.Accept) {
			return &explainAnswer{"text/plain; charset=utf-8", "Accept", []byte(e.Text(time.Local))}, nil
		}
		return &explainAnswer{"application/json", "Accept", e}, nil
	})
	type historyAnswer struct{ Body History }
	add(a, canRead(), huma.Operation{
		OperationID: "get-history", Method: http.MethodGet, Path: "/api/people/{id}/history", Tags: []string{"people"},
		Summary: "What the state of a person was", Description: "What held at since, then each change, the earliest first. Seven days back, but for who may read:all.",
		Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *struct {
		OnePerson

		Since string `query:"since" maxLength:"40" default:"24h" doc:"How far back, such as 24h, or from when, such as 2026-03-02T10:00:00Z."`
		Limit int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"How many at most; of more, the newest."`
	},
	) (*historyAnswer, error) {
		if _, ok := a.known(in.ID); !ok {
			return nil, errNobody(in.ID)
		}
		now := time.Now()
		since, err := moment(in.Since, now)
		if err != nil {
			return nil, unfit("query.since", err.Error())
		}
		if oldest := now.Add(-longestPast); since.Before(oldest) && !signin.From(ctx).May(signin.ReadAll) {
			since = oldest
		}
		changes, err := a.Sight.History(ctx, signin.From(ctx), presence.ID(in.ID), since, now, in.Limit)
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		return &historyAnswer{History{presence.ID(in.ID), since.UTC(), orNone(changes)}}, nil
	})
}

// longestPast is how far back history goes, but for who sees everything.
const longestPast = 7 * 24 * time.Hour

// moment reads a time, or a duration that ends now.
func moment(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%.40q is neither a duration such as 24h nor a time such as 2026-03-02T10:00:00Z; a plus sign is written %%2B", text)
	}
	return t, nil
}

// orNone makes an empty list of none at all.
func orNone[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// wantsText tells whether plain text is named before JSON.
func wantsText(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(kind) {
		case "text/plain":
			return true
		case "application/json":
			return false
		default:
		}
	}
	return false
}
