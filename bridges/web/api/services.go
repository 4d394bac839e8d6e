package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/goccy/go-yaml"

	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/bridges/web"
	"presenced/bridges/web/signin"
	"presenced/internal/config"
)

// A Form is a presence service by the keys of its file, as presenced service export
// writes it.
type Form map[string]any

// Schema implements huma.SchemaProvider, by the tags of services.Service.
func (Form) Schema(huma.Registry) *huma.Schema {
	s := formSchema(reflect.TypeFor[services.Service]())
	s.Description = "A presence service; what is left out has its default."
	return s
}

func formSchema(t reflect.Type) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}, AdditionalProperties: false}
	for f := range t.Fields() {
		var p *huma.Schema
		usual, has := f.Tag.Lookup("default")
		switch {
		case f.Type.Kind() == reflect.Struct:
			p, has = formSchema(f.Type), false
		case f.Type.Kind() == reflect.Slice:
			p = &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}
		case f.Type.Kind() == reflect.Bool:
			p = &huma.Schema{Type: huma.TypeBoolean}
			p.Default = usual == "true"
		case f.Type.Kind() == reflect.Int:
			p = &huma.Schema{Type: huma.TypeInteger}
			if n, err := strconv.Atoi(usual); err == nil {
				p.Default = n
			}
		default: // texts and durations
			p = &huma.Schema{Type: huma.TypeString}
			p.Default = usual
		}
		if !has {
			p.Default = nil
		}
		p.Description = f.Tag.Get("doc")
		s.Properties[f.Tag.Get("yaml")] = p
	}
	return s
}

// FormOf gives the form of a service.
func FormOf(s *services.Service) Form {
	var f Form
	_ = yaml.Unmarshal(services.Format(*s), &f) // of our own making
	return f
}

// Service gives the service of f; the error is a *config.Error with every problem.
func (f Form) Service() (services.Service, error) {
	id, _ := f["id"].(string) //nolint:errcheck // what is none is told as a problem
	text, err := yaml.Marshal(whole(map[string]any(f)))
	if err != nil {
		return services.Service{}, &config.Error{File: id, Wrong: []config.Located{{Problem: config.Wrong("", "%v", err)}}}
	}
	s, err := services.Parse(id, text)
	if wrong, ok := errors.AsType[*config.Error](err); ok {
		for i := range wrong.Wrong {
			wrong.Wrong[i].Line = 0 // of a text that nobody wrote
		}
	}
	return s, err
}

// whole makes the numbers of JSON those of YAML.
func whole(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[key] = whole(value)
		}
		return out
	case float64:
		if n := int64(v); float64(n) == v {
			return n
		}
	case []any:
		out := make([]any, 0, len(v))
		for _, one := range v {
			out = append(out, whole(one))
		}
		return out
	}
	return v
}

// A Service is a presence service, and how it fares.
type Service struct {
	ID       string           `json:"id"`
	Origin   string           `json:"origin" enum:"store,configuration" doc:"Where it stands; one of the configuration is changed there."`
	Revision uint64           `json:"revision,omitempty"`
	Form     Form             `json:"form"`
	Text     string           `json:"text" doc:"The same as a file has it."`
	People   int              `json:"people" doc:"How many are to be published."`
	Status   presence.Status  `json:"status"`
	Network  *presence.Status `json:"network,omitempty" doc:"Of the subscriptions at its server, where there are any."`
	Servers  []Server         `json:"servers,omitempty"`
}

// A Server is how a presence server fares.
type Server struct {
	Address string    `json:"address"`
	Active  bool      `json:"active" doc:"What is new is published here."`
	Held    int       `json:"held" doc:"Publications there."`
	Heard   time.Time `json:"heard,omitzero" doc:"When it last answered."`
	Problem string    `json:"problem,omitempty" doc:"Why it does not answer now."`
}

// A Trial is what came of connecting to a presence server.
type Trial struct {
	Address string `json:"address"`
	Works   bool   `json:"works"`
	Words   string `json:"words" doc:"What is wrong, and what to do; or how far it was tried."`
}

// ServiceList is all services, or those that are known.
type ServiceList struct {
	Services []Service `json:"services" nullable:"false"`
	Problem  string    `json:"problem,omitempty" doc:"Why these are not all."`
}

// An Order is edits that are made together, or not at all.
type Order struct {
	Edits  []Edit `json:"edits" minItems:"1" maxItems:"1000" nullable:"false"`
	Force  bool   `json:"force,omitempty" doc:"Also if it removes more people than max_removed allows."`
	DryRun bool   `json:"dry_run,omitempty" doc:"Only tell what it would do."`
}

// An Edit is one change of an Order.
type Edit struct {
	ID       string `json:"id" maxLength:"100" doc:"Identifier of the service."`
	Form     Form   `json:"form,omitempty" doc:"The service as it is to be; absent: it is deleted."`
	Revision uint64 `json:"revision,omitempty" doc:"That of the form which was edited; absent or 0: there was none."`
	Plan     string `json:"plan,omitempty" maxLength:"100" doc:"plan of the outcome that was agreed to: refused if the edit would do something else by now."`
}

type (
	outcomesAnswer struct {
		Body []services.Outcome
	}
	outcomeAnswer struct {
		Status int
		ETag   string `header:"ETag" doc:"The revision."`
		Body   services.Outcome
	}
	// OneService is the input of operations about one service.
	OneService struct {
		ID string `path:"id" maxLength:"100" doc:"Identifier of the service."`
	}
	// A ChangeQuery is how a change is made.
	ChangeQuery struct {
		Force  bool `query:"force" doc:"Also if it removes more people than max_removed allows."`
		DryRun bool `query:"dry_run" doc:"Only tell what it would do."`
	}
	// An IfMatch says which form was edited.
	IfMatch struct {
		Tag string `header:"If-Match" maxLength:"40" doc:"The ETag of the form that was edited. One cannot do without."`
	}
)

func (a *API) services() {
	a.serviceQuestions()
	tags := []string{"services"}
	errs := []int{http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable}
	add(a, need{signin.AdminServices}, huma.Operation{
		OperationID: "change-services", Method: http.MethodPost, Path: "/api/services/orders", Tags: tags,
		Summary: "Add, edit and delete services together, or preview that", Errors: bodyErrors(errs...), MaxBodyBytes: orderBody,
	}, func(ctx context.Context, in *struct{ Body Order }) (*outcomesAnswer, error) {
		o := services.Order{Force: in.Body.Force, DryRun: in.Body.DryRun}
		for i, e := range in.Body.Edits {
			edit, err := e.edit()
			if wrong := (*config.Error)(nil); errors.As(err, &wrong) {
				return nil, misfit("body.edits["+strconv.Itoa(i)+"].form", wrong)
			} else if err != nil {
				return nil, err
			}
			o.Edits = append(o.Edits, edit)
		}
		outcomes, err := a.order(ctx, o)
		return &outcomesAnswer{orNone(outcomes)}, err
	})
	add(a, need{signin.AdminServices}, huma.Operation{
		OperationID: "add-service", Method: http.MethodPost, Path: "/api/services", Tags: tags, Summary: "Add a service",
		Description: "Answers 200 instead of 201 where it is only told what it would do.",
		Errors:      bodyErrors(errs...), MaxBodyBytes: largeBody, DefaultStatus: http.StatusCreated, Responses: outcomeToo(),
	}, func(ctx context.Context, in *struct {
		ChangeQuery

		Body Form
	},
	) (*outcomeAnswer, error) {
		id, _ := in.Body["id"].(string) //nolint:errcheck // what is none is told as a problem
		out, err := a.edit(ctx, in.ChangeQuery, Edit{ID: id, Form: in.Body})
		if err == nil && !in.DryRun {
			out.Status = http.StatusCreated
		}
		return out, err
	})
	editing := append(bodyErrors(errs...), http.StatusPreconditionFailed, http.StatusPreconditionRequired)
	add(a, need{signin.AdminServices}, huma.Operation{
		OperationID: "edit-service", Method: http.MethodPut, Path: "/api/services/{id}", Tags: tags, Summary: "Change a service",
		Errors: editing, MaxBodyBytes: largeBody,
	}, func(ctx context.Context, in *struct {
		OneService
		ChangeQuery
		IfMatch

		Body Form
	},
	) (*outcomeAnswer, error) {
		revision, err := in.revision()
		if err != nil {
			return nil, err
		}
		return a.edit(ctx, in.ChangeQuery, Edit{ID: in.ID, Form: in.Body, Revision: revision})
	})
	add(a, need{signin.AdminServices}, huma.Operation{
		OperationID: "delete-service", Method: http.MethodDelete, Path: "/api/services/{id}", Tags: tags, Summary: "Delete a service; everybody is removed from its server",
		Errors: append(errs, http.StatusPreconditionFailed, http.StatusPreconditionRequired), DefaultStatus: http.StatusOK,
	}, func(ctx context.Context, in *struct {
		OneService
		ChangeQuery
		IfMatch
	},
	) (*outcomeAnswer, error) {
		revision, err := in.revision()
		if err != nil {
			return nil, err
		}
		return a.edit(ctx, in.ChangeQuery, Edit{ID: in.ID, Revision: revision})
	})
}

// outcomeToo has the answer of a change also where nothing was made.
func outcomeToo() map[string]*huma.Response {
	ref := &huma.Schema{Ref: "#/components/schemas/ServiceOutcome"}
	return map[string]*huma.Response{"200": {Description: "What it would do", Content: map[string]*huma.MediaType{"application/json": {Schema: ref}}}}
}

func (a *API) serviceQuestions() {
	type listAnswer struct{ Body ServiceList }
	add(a, need{signin.ReadHealth}, huma.Operation{
		OperationID: "list-services", Method: http.MethodGet, Path: "/api/services", Tags: []string{"services"}, Summary: "All services, and how they fare",
	}, func(context.Context, *struct{}) (*listAnswer, error) {
		out := listAnswer{ServiceList{Services: []Service{}}}
		all, err := a.Services.Services()
		if err != nil {
			out.Body.Problem = err.Error()
		}
		for i := range all {
			out.Body.Services = append(out.Body.Services, a.describe(&all[i]))
		}
		return &out, nil
	})
	type serviceAnswer struct {
		ETag string `header:"ETag" doc:"The revision; absent where the service stands in the configuration."`
		Body Service
	}
	answer := func(s *web.Service) *serviceAnswer {
		out := serviceAnswer{Body: a.describe(s)}
		if s.Revision > 0 {
			out.ETag = quoted(s.Revision)
		}
		return &out
	}
	errs := []int{http.StatusNotFound, http.StatusServiceUnavailable}
	add(a, need{signin.ReadHealth}, huma.Operation{
		OperationID: "get-service", Method: http.MethodGet, Path: "/api/services/{id}", Tags: []string{"services"}, Summary: "One service, and how it fares", Errors: errs,
	}, func(ctx context.Context, in *OneService) (*serviceAnswer, error) {
		s, err := a.service(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return answer(s), nil
	})
	add(a, need{signin.AdminServices}, huma.Operation{
		OperationID: "sync-service", Method: http.MethodPost, Path: "/api/services/{id}/sync", Tags: []string{"services"},
		Summary: "Publish everybody of a service again, whatever its server holds", Errors: errs,
	}, func(ctx context.Context, in *OneService) (*serviceAnswer, error) {
		s, err := a.service(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		if err := a.Services.Sync(ctx, in.ID, actor(ctx)); err != nil {
			return nil, a.refuse(ctx, err)
		}
		return answer(s), nil
	})
	type trialAnswer struct{ Body []Trial }
	add(a, need{signin.AdminServices}, huma.Operation{
		OperationID: "test-service", Method: http.MethodPost, Path: "/api/services/{id}/test", Tags: []string{"services"},
		Summary: "Connect to the servers of a service, and say what is wrong", Description: "May take twelve seconds.", Errors: errs,
	}, func(ctx context.Context, in *OneService) (*trialAnswer, error) {
		s, err := a.service(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		found, err := a.Services.Try(ctx, s.Service, actor(ctx))
		if err != nil {
			return nil, a.refuse(ctx, err)
		}
		out := trialAnswer{[]Trial{}}
		for _, f := range found {
			out.Body = append(out.Body, Trial(f))
		}
		return &out, nil
	})
}

// service gives one service.
func (a *API) service(ctx context.Context, id string) (*web.Service, error) {
	all, err := a.Services.Services()
	for i := range all {
		if all[i].ID == id {
			return &all[i], nil
		}
	}
	if err != nil { // it may be among those that are not known
		return nil, a.refuse(ctx, err)
	}
	return nil, huma.NewError(http.StatusNotFound, services.ErrNone.Error()+": "+strconv.Quote(id)+`; "presenced service list" names them`)
}

func (a *API) describe(s *web.Service) Service {
	out := Service{
		ID: s.ID, Origin: "store", Revision: s.Revision, Form: FormOf(&s.Service), Text: string(services.Format(s.Service)),
		People: s.Count(a.People.People()), Network: s.Network,
	}
	if s.Revision == 0 {
		out.Origin = "configuration"
	}
	for _, server := range s.Servers {
		out.Servers = append(out.Servers, Server(server))
	}
	if a.Parts == nil {
		return out
	}
	for _, h := range a.Parts.Health() {
		if h.Name == s.ID {
			out.Status = h.Status
		}
	}
	return out
}

// edit makes one edit, or tells what it would do.
func (a *API) edit(ctx context.Context, by ChangeQuery, e Edit) (*outcomeAnswer, error) {
	edit, err := e.edit()
	if err != nil {
		return nil, a.refuse(ctx, err)
	}
	outcomes, err := a.order(ctx, services.Order{Edits: []services.Edit{edit}, Force: by.Force, DryRun: by.DryRun})
	if err != nil {
		return nil, err
	}
	out := outcomeAnswer{Status: http.StatusOK, Body: outcomes[0]}
	if out.Body.Revision > 0 && edit.Service != nil {
		out.ETag = quoted(out.Body.Revision)
	}
	return &out, nil
}

// order makes an order, or tells what it would do.
func (a *API) order(ctx context.Context, o services.Order) ([]services.Outcome, error) {
	by := actor(ctx)
	o.Who, o.From = by.Who, by.From
	outcomes, err := a.Services.Apply(ctx, o)
	if err != nil {
		return nil, a.refuse(ctx, err)
	}
	return outcomes, nil
}

// edit gives e for the catalog; the error is a *config.Error.
func (e *Edit) edit() (services.Edit, error) {
	out := services.Edit{ID: e.ID, Revision: e.Revision, Plan: e.Plan}
	if e.Form == nil {
		return out, nil
	}
	s, err := e.Form.Service()
	out.Service = &s
	return out, err
}

// revision reads If-Match: one entity tag that is a revision.
func (u *IfMatch) revision() (uint64, error) {
	if u.Tag == "" {
		return 0, huma.NewError(http.StatusPreconditionRequired, "say with If-Match which revision was edited: its ETag")
	}
	text, ok := strings.CutPrefix(u.Tag, `"`)
	text, closed := strings.CutSuffix(text, `"`)
	n, err := strconv.ParseUint(text, 10, 64)
	if !ok || !closed || err != nil || n == 0 {
		return 0, unfit("header.If-Match", `want one ETag of a service, such as "5"`)
	}
	return n, nil
}
