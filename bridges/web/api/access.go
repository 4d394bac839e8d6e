package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// Access is the access rules: an access.Gate.
type Access interface {
	Settings() ([]access.Setting, error)
	Watchers(of presence.ID) []access.Watching
	Pending(of presence.ID) []access.Pending
	Explain(watcher presence.Subject, of presence.ID) access.Explanation

	Set(ctx context.Context, by audit.Actor, r access.Rule) error
	Clear(ctx context.Context, by audit.Actor, of presence.ID, audience access.Audience) error
	Allow(ctx context.Context, by audit.Actor, of presence.ID, watcher presence.Subject, level presence.Level) error
	Deny(ctx context.Context, by audit.Actor, of presence.ID, watcher presence.Subject) error
	Revoke(ctx context.Context, by audit.Actor, of presence.ID, watcher presence.Subject) error
	SetCalendar(ctx context.Context, by audit.Actor, of presence.ID, p presence.CalendarPrivacy) error
	OptIn(ctx context.Context, by audit.Actor, of presence.ID, in bool) error
	Forget(ctx context.Context, by audit.Actor, of presence.ID) error
}

// AccessDone says what was done, and what comes of it.
type AccessDone struct {
	Done string              `json:"done"`
	Sees *access.Explanation `json:"sees,omitempty" doc:"What the watcher that it is about sees now."`
	Note string              `json:"note,omitempty"`
}

// AtLevel is what they see.
type AtLevel struct {
	Level presence.Level `json:"level" doc:"What they see."`
}

type accessAnswer struct{ Body AccessDone }

// The properties of changes.
type (
	// OfAnybody is whom a rule is about.
	OfAnybody struct {
		Of presence.ID `json:"of,omitempty" maxLength:"512" doc:"Identifier of the person whom it is about; empty: everybody."`
	}
	// OfPerson is the same, where it cannot be everybody.
	OfPerson struct {
		Of presence.ID `json:"of" minLength:"1" maxLength:"512" doc:"Identifier of the person whom it is about."`
	}
	// ForAudience is whom a rule is for.
	ForAudience struct {
		For access.Audience `json:"for" doc:"Whom the rule is for: a watcher (an address such as jid:bob@example.com, or the identifier of a person), a group, a domain, or by default."`
	}
	// ByWatcher is one watcher.
	ByWatcher struct {
		Watcher string `json:"watcher" minLength:"1" maxLength:"512" doc:"An address such as jid:bob@example.com, or the identifier of a person."`
	}
)

func (a *API) access() {
	a.accessQuestions()
	type setAccess struct {
		OfAnybody
		ForAudience
		AtLevel

		Urgent bool `json:"urgent,omitempty" doc:"They may interrupt a do-not-disturb."`
	}
	change(a, "set", "Set a rule", func(ctx context.Context, in *setAccess) (*AccessDone, error) {
		err := a.Access.Set(ctx, actor(ctx), access.Rule{Of: in.Of, For: in.For, Level: in.Level, Urgent: in.Urgent})
		return a.sees(in.Of, in.For, ""), err
	})
	type clearAccess struct {
		OfAnybody
		ForAudience
	}
	change(a, "clear", "Remove a rule", func(ctx context.Context, in *clearAccess) (*AccessDone, error) {
		err := a.Access.Clear(ctx, actor(ctx), in.Of, in.For)
		return a.sees(in.Of, in.For, ""), err
	})
	type allowWatcher struct {
		OfPerson
		ByWatcher
		AtLevel
	}
	change(a, "allow", "Let a watcher in", func(ctx context.Context, in *allowWatcher) (*AccessDone, error) {
		return a.watcher(in.Of, in.Watcher, func(w presence.Subject) error { return a.Access.Allow(ctx, actor(ctx), in.Of, w, in.Level) })
	})
	type denyWatcher struct {
		OfPerson
		ByWatcher
	}
	change(a, "deny", "Block a watcher", func(ctx context.Context, in *denyWatcher) (*AccessDone, error) {
		return a.watcher(in.Of, in.Watcher, func(w presence.Subject) error { return a.Access.Deny(ctx, actor(ctx), in.Of, w) })
	})
	change(a, "revoke", "Take away what a watcher sees", func(ctx context.Context, in *denyWatcher) (*AccessDone, error) {
		return a.watcher(in.Of, in.Watcher, func(w presence.Subject) error { return a.Access.Revoke(ctx, actor(ctx), in.Of, w) })
	})
	type setPrivacy struct {
		OfPerson

		Calendar presence.CalendarPrivacy `json:"calendar" doc:"How much of the calendar others see."`
	}
	change(a, "privacy", "Set how much of somebody's calendar others see", func(ctx context.Context, in *setPrivacy) (*AccessDone, error) {
		return &AccessDone{}, a.Access.SetCalendar(ctx, actor(ctx), in.Of, in.Calendar)
	})
	note := ""
	if !a.OptIn {
		note = "access.opt_in is not set in the configuration, so that this is kept and has no effect"
	}
	type opt struct{ OfPerson }
	change(a, "opt-in", "Have somebody shown, where nobody is before", func(ctx context.Context, in *opt) (*AccessDone, error) {
		return &AccessDone{Note: note}, a.Access.OptIn(ctx, actor(ctx), in.Of, true)
	})
	change(a, "opt-out", "The opposite of opt-in", func(ctx context.Context, in *opt) (*AccessDone, error) {
		return &AccessDone{Note: note}, a.Access.OptIn(ctx, actor(ctx), in.Of, false)
	})
	type forgetAccess struct {
		Of presence.ID `json:"of" maxLength:"512" doc:"Identifier of the person; empty: the rules for everybody."`
	}
	change(a, "forget", "Remove everything that was set of somebody, readable or not", func(ctx context.Context, in *forgetAccess) (*AccessDone, error) {
		return &AccessDone{}, a.Access.Forget(ctx, actor(ctx), in.Of)
	})
}

// change registers a change of the access rules.
func change[I any](a *API, verb, summary string, do func(context.Context, *I) (*AccessDone, error)) {
	type input struct{ Body I }
	add(a, need{signin.AdminAccess}, huma.Operation{
		OperationID: "access-" + verb, Method: http.MethodPost, Path: "/api/access/" + verb, Tags: []string{"access"},
		Summary: summary, Description: "Answers when it is durable.", Errors: bodyErrors(http.StatusNotFound, http.StatusServiceUnavailable),
	}, func(ctx context.Context, in *input) (*accessAnswer, error) {
		done, err := do(ctx, &in.Body)
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		done.Done = "access " + verb
		return &accessAnswer{*done}, nil
	})
}

// watcher changes what one watcher sees.
func (a *API) watcher(of presence.ID, text string, do func(presence.Subject) error) (*AccessDone, error) {
	w, err := access.ParseWatcher(text)
	if err != nil {
		return nil, err
	}
	if err := do(w); err != nil {
		return nil, err
	}
	return a.sees(of, access.Only(w), ""), nil
}

// sees says what a rule comes to, if it is of one person for one watcher.
func (a *API) sees(of presence.ID, audience access.Audience, note string) *AccessDone {
	done := AccessDone{Note: note}
	if w, err := access.ParseWatcher(audience.Name); of != "" && audience.Kind == access.ForWatcher && err == nil {
		e := a.Access.Explain(w, of)
		done.Sees = &e
	}
	return &done
}

// accessQuestions are about the rules in force. They tell of everybody, as they are
// for those who administer.
func (a *API) accessQuestions() {
	needs := need{signin.AdminAccess}
	type maybeOf struct {
		Of string `query:"of" maxLength:"512" doc:"Only of this person."`
	}
	type settingsAnswer struct{ Body []access.Setting }
	add(a, needs, huma.Operation{
		OperationID: "list-access", Method: http.MethodGet, Path: "/api/access", Tags: []string{"access"},
		Summary: "What was set: of everybody, and of each person", Errors: []int{http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *maybeOf) (*settingsAnswer, error) {
		all, err := a.Access.Settings()
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		if in.Of == "" {
			return &settingsAnswer{orNone(all)}, nil
		}
		one := []access.Setting{} // who left the directory has rules, too
		for _, s := range all {
			if string(s.Of) == in.Of {
				one = append(one, s)
			}
		}
		return &settingsAnswer{one}, nil
	})
	type watchersAnswer struct{ Body []access.Watching }
	add(a, needs, huma.Operation{
		OperationID: "list-watchers", Method: http.MethodGet, Path: "/api/people/{id}/watchers", Tags: []string{"access"},
		Summary: "Who watches a person now", Errors: []int{http.StatusNotFound},
	}, func(_ context.Context, in *OnePerson) (*watchersAnswer, error) {
		p, ok := a.known(in.ID)
		if !ok {
			return nil, errNobody(in.ID)
		}
		return &watchersAnswer{orNone(a.Access.Watchers(p.ID))}, nil
	})
	type pendingAnswer struct{ Body []access.Pending }
	add(a, needs, huma.Operation{
		OperationID: "list-pending", Method: http.MethodGet, Path: "/api/access/pending", Tags: []string{"access"},
		Summary: "Who waits to be let in", Errors: []int{http.StatusNotFound},
	}, func(_ context.Context, in *maybeOf) (*pendingAnswer, error) {
		if _, ok := a.known(in.Of); in.Of != "" && !ok {
			return nil, errNobody(in.Of)
		}
		return &pendingAnswer{orNone(a.Access.Pending(presence.ID(in.Of)))}, nil
	})
	type testAnswer struct{ Body access.Explanation }
	add(a, needs, huma.Operation{
		OperationID: "test-access", Method: http.MethodGet, Path: "/api/access/test", Tags: []string{"access"},
		Summary: "What a watcher sees of somebody, by which rule, and which rules it beats", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *struct {
		Watcher string `query:"watcher" required:"true" maxLength:"512" doc:"An address such as jid:bob@example.com, or the identifier of a person."`
		Of      string `query:"of" required:"true" maxLength:"512" doc:"Identifier of the person who is watched."`
	},
	) (*testAnswer, error) {
		w, err := access.ParseWatcher(in.Watcher)
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		p, ok := a.known(in.Of)
		if !ok {
			return nil, errNobody(in.Of)
		}
		return &testAnswer{a.Access.Explain(w, p.ID)}, nil
	})
}
