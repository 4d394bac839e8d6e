package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// A Person is somebody, and what of their state who asks may see.
type Person struct {
	presence.Person

	State presence.State `json:"state"`
}

// canRead is what it takes to see people at all.
func canRead() need { return need{signin.ReadStates} }

// OnePerson is the input of operations about one person.
type OnePerson struct {
	ID string `path:"id" maxLength:"512" doc:"Identifier of the person."`
}

// PeopleQuery is what lists of people can be asked for.
type PeopleQuery struct {
	Q       string `query:"q" maxLength:"200" doc:"Words that the name or an address must hold."`
	Group   string `query:"group" maxLength:"200" doc:"Only members of this group."`
	State   string `query:"state" enum:"available,busy,dnd,brb,away,out-of-office,off-work,offline,out-of-order,unavailable,unknown,uncertain" doc:"Only those who are so; uncertain is all that is not known for sure."`
	Channel string `query:"channel" enum:"phone-idle,phone-in-use,calendar-free" doc:"Only those of whom a channel is so."`
	Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"200" doc:"How many at most."`
	Cursor  string `query:"cursor" maxLength:"800" doc:"Where to go on: next of the answer before."`
}

type peopleAnswer struct {
	Body struct {
		People []Person `json:"people" nullable:"false"`
		Next   string   `json:"next,omitempty" doc:"The cursor of the next page; absent on the last one."`
	}
}

type statesAnswer struct {
	Body struct {
		States  []presence.State `json:"states" nullable:"false"`
		Unknown []string         `json:"unknown,omitempty" doc:"Identifiers that nobody has."`
		Next    string           `json:"next,omitempty" doc:"The cursor of the next page; absent on the last one."`
	}
}

func (a *API) people() {
	add(a, canRead(), huma.Operation{
		OperationID: "list-people", Method: http.MethodGet, Path: "/api/people", Tags: []string{"people"},
		Summary: "People and their states", Description: "Sorted by name, in pages.",
	}, func(ctx context.Context, in *PeopleQuery) (*peopleAnswer, error) {
		var out peopleAnswer
		var err error
		out.Body.People, out.Body.Next, err = a.page(ctx, in)
		return &out, err
	})
	type personAnswer struct{ Body Person }
	add(a, canRead(), huma.Operation{
		OperationID: "get-person", Method: http.MethodGet, Path: "/api/people/{id}", Tags: []string{"people"},
		Summary: "One person and their state", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *OnePerson) (*personAnswer, error) {
		p, ok := a.find(ctx, in.ID)
		if !ok {
			return nil, errNobody(in.ID)
		}
		return &personAnswer{p}, nil
	})
	type stateAnswer struct{ Body presence.State }
	add(a, canRead(), huma.Operation{
		OperationID: "get-state", Method: http.MethodGet, Path: "/api/states/{id}", Tags: []string{"people"},
		Summary: "The state of one person", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *OnePerson) (*stateAnswer, error) {
		p, ok := a.find(ctx, in.ID)
		if !ok {
			return nil, errNobody(in.ID)
		}
		return &stateAnswer{p.State}, nil
	})
	add(a, canRead(), huma.Operation{
		OperationID: "list-states", Method: http.MethodGet, Path: "/api/states", Tags: []string{"people"},
		Summary: "States, without what else is known of the people", Description: "Of the people who are named by id, or in pages of those that the filter asks for.",
	}, func(ctx context.Context, in *struct {
		PeopleQuery

		IDs []string `query:"id,explode" maxItems:"1000" doc:"Identifiers of people; may be repeated. Nothing else may be asked for beside them."`
	},
	) (*statesAnswer, error) {
		if len(in.IDs) > 0 {
			f := in.PeopleQuery
			if f.Q+f.Group+f.State+f.Channel+f.Cursor != "" {
				return nil, unfit("query.id", "people are either named or filtered")
			}
			return a.batch(ctx, in.IDs), nil
		}
		var out statesAnswer
		people, next, err := a.page(ctx, &in.PeopleQuery)
		out.Body.States, out.Body.Next = make([]presence.State, 0, len(people)), next
		for i := range people {
			out.Body.States = append(out.Body.States, people[i].State)
		}
		return &out, err
	})
	add(a, canRead(), huma.Operation{
		OperationID: "batch-states", Method: http.MethodPost, Path: "/api/states", Tags: []string{"people"},
		Summary: "The states of people who are named", Errors: bodyErrors(), MaxBodyBytes: largeBody,
	}, func(ctx context.Context, in *struct {
		Body struct {
			IDs []string `json:"ids" minItems:"1" maxItems:"1000" nullable:"false" doc:"Identifiers of people."`
		}
	},
	) (*statesAnswer, error) {
		return a.batch(ctx, in.Body.IDs), nil
	})
}

// find gives a person as who asks sees them.
func (a *API) find(ctx context.Context, id string) (Person, bool) {
	p, ok := a.known(id)
	if !ok {
		return Person{}, false
	}
	state, ok := a.People.State(p.ID)
	if !ok {
		state = unknown(p.ID)
	}
	return a.see(signin.From(ctx), p, state), true
}

// known gives the person with an identifier.
func (a *API) known(id string) (presence.Person, bool) {
	return a.People.Person(presence.Subject{Scheme: "id", Value: id})
}

// unknown is the state of somebody who has just come.
func unknown(id presence.ID) presence.State {
	return presence.State{Person: id, Class: presence.Unknown.Class()}
}

func (a *API) see(who signin.Identity, p presence.Person, s presence.State) Person {
	return Person{p, a.Sight.View(s, a.Sight.Access(who, p.ID))}
}

// batch gives the states of those who are named, each once.
func (a *API) batch(ctx context.Context, ids []string) *statesAnswer {
	var out statesAnswer
	out.Body.States = make([]presence.State, 0, len(ids))
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		if p, ok := a.find(ctx, id); ok {
			out.Body.States = append(out.Body.States, p.State)
		} else {
			out.Body.Unknown = append(out.Body.Unknown, id)
		}
	}
	return &out
}

// page gives one page of those that f asks for, and the cursor of the next one.
func (a *API) page(ctx context.Context, f *PeopleQuery) (page []Person, next string, err error) {
	people := a.People.People()
	if f.Cursor != "" {
		last, err := base64.RawURLEncoding.DecodeString(f.Cursor)
		i := slices.IndexFunc(people, func(p presence.Person) bool { return string(p.ID) == string(last) })
		if err != nil || i < 0 {
			return nil, "", unfit("query.cursor", "the cursor is none of this list, or who it names has left; begin anew without one")
		}
		people = people[i+1:]
	}
	states := a.People.States()
	at := make(map[presence.ID]int, len(states))
	for i := range states {
		at[states[i].Person] = i
	}
	who := signin.From(ctx)
	fits := a.Sight.Filter(url.Values{"q": {f.Q}, "group": {f.Group}, "state": {f.State}, "channel": {f.Channel}})
	page = make([]Person, 0, min(f.Limit, len(people)))
	for _, p := range people {
		state := unknown(p.ID)
		if i, ok := at[p.ID]; ok {
			state = states[i]
		}
		one := a.see(who, p, state)
		if !fits(&one.Person, &one.State) {
			continue
		}
		if len(page) == f.Limit {
			return page, base64.RawURLEncoding.EncodeToString([]byte(page[len(page)-1].ID)), nil
		}
		page = append(page, one)
	}
	return page, "", nil
}

// quoted is a number as an entity tag (RFC 9110 section 8.8.3).
func quoted(revision uint64) string { return strconv.Quote(strconv.FormatUint(revision, 10)) }
