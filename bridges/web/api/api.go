// Package api is what presenced can be asked and told over HTTP by programs: people
// and their states as who asks may see them, a stream of changes, and everything that
// an administrator does. It describes itself in OpenAPI 3.1.
//
// The page serves it to browsers and to bearers of tokens, the control socket to
// whoever may open that; the command line speaks it over both.
package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/bridges/web"
	"presenced/bridges/web/signin"
	"presenced/internal/config"
)

// Deps is what an API needs of the rest. All of it may be called from any goroutine.
// A field that is nil leaves its operations out, but for People and Sight.
type Deps struct {
	Version  string
	People   People
	Sight    Sight
	Parts    Parts
	Manual   Manual
	Access   Access
	OptIn    bool // access.opt_in: nobody is shown before they opted in
	Services web.Services
	Policy   Policy
	Audit    Audit
	Accounts Accounts
	Webhooks Webhooks
	Log      *slog.Logger
}

// People are those of the directory, and their states before any view. The calls
// must not block, and what they give is not changed.
type People interface {
	// People gives everyone, sorted by identifier or name, the same at each call.
	People() []presence.Person
	Person(subject presence.Subject) (presence.Person, bool)
	State(id presence.ID) (presence.State, bool)
	States() []presence.State
}

// Sight is what somebody may see: a web.Site.
type Sight interface {
	// Access gives what who may see of a person.
	Access(who signin.Identity, of presence.ID) presence.Access
	// View gives what is seen of a state with that access. No state leaves otherwise.
	View(s presence.State, a presence.Access) presence.State
	// Filter gives whether somebody is among those that a query asks for: the words
	// q, and group, state and channel as the board has them.
	Filter(query url.Values) func(*presence.Person, *presence.State) bool
	// Enter takes the place of one more stream, until leave is called; nil: there is
	// none, and code is why.
	Enter(who signin.Identity) (leave func(), code int)
	// Still tells whether who began a request is who they were, and may what they might;
	// changed is closed when that may be over.
	Still(who signin.Identity) (same bool, changed <-chan struct{})
	// Explain gives the reasoning at a moment; the zero time is now. Its errors, and
	// those of History, are a web.Refusal.
	Explain(ctx context.Context, who signin.Identity, of presence.ID, at time.Time) (web.Reasoning, error)
	// History gives what held at since, then each change up to until, the earliest
	// first; of more than most, the newest.
	History(ctx context.Context, who signin.Identity, of presence.ID, since, until time.Time, most int) ([]web.Change, error)
}

// An API serves all operations. Make one with New.
type API struct {
	Deps

	mux      *http.ServeMux
	huma     huma.API
	feed     *feed
	streams  atomic.Int64
	patience time.Duration // how long one write to a stream may take
	needs    map[string]need
}

// New makes an API. /api/watch carries changes while Run runs.
func New(deps Deps) *API {
	a := &API{Deps: deps, mux: http.NewServeMux(), feed: newFeed(deps.Sight.View), patience: 10 * time.Second, needs: map[string]need{}}
	a.huma = humago.New(a.mux, a.config())
	a.people()
	a.past()
	a.watch()
	a.me()
	if a.Parts != nil {
		a.parts()
	}
	if a.Manual != nil {
		a.manual()
	}
	if a.Access != nil {
		a.access()
	}
	if a.Services != nil {
		a.services()
	}
	if a.Policy != nil {
		a.policy()
	}
	if a.Audit != nil {
		a.audit()
	}
	if a.Accounts != nil {
		a.accounts()
	}
	if a.Webhooks != nil {
		a.webhooks()
	}
	a.document()
	return a
}

// config takes nothing of huma's defaults that fetches from elsewhere or changes answers.
func (a *API) config() huma.Config {
	c := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "presenced", Version: a.Version,
				Description: "Presence of people whose phones are on Avaya Communication Manager. Times are UTC, as RFC 3339 has them. Errors are problems of RFC 9457.",
			},
			Components: &huma.Components{
				Schemas: newSchemas(),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					bearer: {Type: "http", Scheme: "bearer", BearerFormat: "API token", Description: "An API token, made on the page under Me. Its scopes bound what it may do."},
					cookie: {Type: "apiKey", In: "cookie", Name: "__Host-presenced", Description: "The session of a browser that signed in on the page; its role bounds what it may do."},
				},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		NoFormatFallback:             false, // who cannot take JSON gets it all the same (RFC 9110 section 12.5.1)
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{withoutValues},
	}
	for _, tag := range [][2]string{
		{"people", "Who there is, and what they are doing"},
		{"presence", "What is set by hand"},
		{"access", "Who may see what of whom"},
		{"services", "Presence servers that presence is published to"},
		{"policy", "How facts become presence"},
		{"accounts", "Who may sign in"},
		{"service", "How presenced fares"},
	} {
		c.Tags = append(c.Tags, &huma.Tag{Name: tag[0], Description: tag[1]})
	}
	return c
}

// The names of the ways to say who asks.
const (
	bearer = "token"
	cookie = "session"
)

// withoutValues takes out of problems what was sent: who sent it knows it, and logs
// of proxies need not.
func withoutValues(_ huma.Context, _ string, v any) (any, error) {
	if p, ok := v.(*huma.ErrorModel); ok {
		for _, e := range p.Errors {
			e.Value = nil
		}
	}
	return v, nil
}

// Handler answers every request below /api/; who asks is signin.From of its context,
// and by names them for the audit trail.
func (a *API) Handler(by func(*http.Request) audit.Actor) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := a.mux.Handler(r); pattern == "" {
			a.missed(w, r)
			return
		}
		a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, by(r))))
	})
}

type actorKey struct{}

// actor is who changes something, for the audit trail.
func actor(ctx context.Context) audit.Actor {
	by, _ := ctx.Value(actorKey{}).(audit.Actor) //nolint:errcheck // Handler put it there
	return by
}

// missed answers where there is no operation: what the mux says, as a problem.
func (a *API) missed(w http.ResponseWriter, r *http.Request) {
	m := missed{header: http.Header{}}
	a.mux.ServeHTTP(&m, r)
	text := "there is no such address; /api/docs lists them"
	if m.code == http.StatusMethodNotAllowed {
		w.Header()["Allow"] = m.header["Allow"]
		text = "here one may only " + m.header.Get("Allow")
	}
	writeProblem(w, huma.NewError(m.code, text))
}

// missed keeps what a mux answers without a pattern.
type missed struct {
	header http.Header
	code   int
}

func (m *missed) Header() http.Header         { return m.header }
func (m *missed) WriteHeader(code int)        { m.code = code }
func (m *missed) Write(b []byte) (int, error) { return len(b), nil }

// writeProblem answers outside of an operation.
func writeProblem(w http.ResponseWriter, p huma.StatusError) {
	var b bytes.Buffer
	_ = huma.DefaultJSONFormat.Marshal(&b, p) // of texts and numbers
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.GetStatus())
	_, _ = w.Write(b.Bytes())
}

// A need is what an operation takes: any one of these permissions. An empty one asks
// for nothing.
type need []signin.Permission

func (n need) met(who signin.Identity) bool {
	return len(n) == 0 || slices.ContainsFunc(n, who.May)
}

func (n need) String() string {
	var names []string
	for _, p := range n {
		names = append(names, p.String())
	}
	return strings.Join(names, " or ")
}

// security gives n as OpenAPI 3.1 has it: each element is one way to be let in.
func (n need) security() []map[string][]string {
	all := []map[string][]string{}
	for _, p := range n {
		all = append(all, map[string][]string{bearer: strings.Fields(p.String())}, map[string][]string{cookie: strings.Fields(p.String())})
	}
	return all
}

// The largest bodies.
const (
	smallBody = 4 << 10
	largeBody = 1 << 20 // Guard takes no more from a network
	orderBody = 8 << 20
)

// add registers an operation that takes n. Its errors beside those that every
// operation has are in op.Errors.
func add[I, O any](a *API, n need, op huma.Operation, do func(context.Context, *I) (*O, error)) {
	op.Security = n.security()
	if len(n) > 0 {
		op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden)
		op.Description = strings.TrimSpace(op.Description + " Takes the permission " + n.String() + ".")
	}
	op.Errors = append(op.Errors, http.StatusUnprocessableEntity)
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = smallBody
	}
	a.needs[op.OperationID] = n
	op.Middlewares = append(huma.Middlewares{a.permit(n), a.readBody}, op.Middlewares...)
	huma.Register(a.huma, op, do)
}

// The errors of operations with a body.
func bodyErrors(more ...int) []int {
	return append([]int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}, more...)
}

// permit lets those pass who may do one of n.
func (a *API) permit(n need) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		switch who := signin.From(ctx.Context()); {
		case n.met(who):
			next(ctx)
		case who.Account != "":
			_ = huma.WriteErr(a.huma, ctx, http.StatusForbidden, "that takes the permission "+n.String())
		default:
			ctx.SetHeader("WWW-Authenticate", "Bearer")
			_ = huma.WriteErr(a.huma, ctx, http.StatusUnauthorized, "sign in first, or send an API token in the header Authorization: Bearer")
		}
	}
}

// readBody reads the body of a request, so that one that breaks off is the fault of
// who sent it. It is bounded as the operation says, plus the byte that tells that
// there is more.
func (a *API) readBody(ctx huma.Context, next func(huma.Context)) {
	if ctx.Operation().RequestBody == nil {
		next(ctx)
		return
	}
	r, _ := humago.Unwrap(ctx)
	body, err := io.ReadAll(io.LimitReader(r.Body, ctx.Operation().MaxBodyBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		_ = huma.WriteErr(a.huma, ctx, http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes")
		return
	} else if err != nil {
		_ = huma.WriteErr(a.huma, ctx, http.StatusBadRequest, "the body breaks off")
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	next(ctx)
}

// refuse makes a problem of an error: whose fault it is decides the status. What is
// the fault of presenced is logged.
func (a *API) refuse(ctx context.Context, err error) error {
	var refusal *web.Refusal
	var wrong *config.Error
	var unfit *services.Unfit
	code := http.StatusServiceUnavailable
	switch {
	case errors.As(err, &refusal):
		code = refusal.Code
	case errors.As(err, &wrong):
		return misfit("body", wrong)
	case errors.As(err, &unfit):
		return misfit("body", located(unfit))
	case errors.Is(err, aggregator.ErrNobody), errors.Is(err, access.ErrNobody), errors.Is(err, services.ErrNone), errors.Is(err, web.ErrNotRemembered), errors.Is(err, aggregator.ErrNoPart):
		code = http.StatusNotFound
	case errors.Is(err, services.ErrConflict), errors.Is(err, services.ErrExcess), errors.Is(err, services.ErrFixed), errors.Is(err, aggregator.ErrNotPolled), errors.Is(err, aggregator.ErrElsewhere):
		code = http.StatusConflict
	case errors.Is(err, aggregator.ErrTooSoon):
		code = http.StatusTooManyRequests
	case errors.Is(err, aggregator.ErrUnfit), errors.Is(err, access.ErrUnfit), errors.Is(err, services.ErrUnfit):
		code = http.StatusUnprocessableEntity
	default:
		if ctx.Err() == nil { // else it is who asked that is gone
			a.Log.WarnContext(ctx, "a request was refused", "error", err)
		}
	}
	return huma.NewError(code, err.Error())
}

// misfit is a problem with a location for each mistake in a text.
func misfit(at string, wrong *config.Error) error {
	details := make([]error, 0, len(wrong.Wrong))
	for _, p := range wrong.Wrong {
		d := huma.ErrorDetail{Location: at, Message: p.Text}
		if p.Path != "" {
			d.Location += "." + p.Path
		}
		if p.Line > 0 {
			d.Message = "line " + strconv.Itoa(p.Line) + ": " + p.Text
		}
		details = append(details, &d)
	}
	return huma.NewError(http.StatusUnprocessableEntity, wrong.Error(), details...)
}

// located gives the problems of a service as those of a text.
func located(u *services.Unfit) *config.Error {
	wrong := config.Error{File: u.ID}
	for _, p := range u.Problems {
		wrong.Wrong = append(wrong.Wrong, config.Located{Problem: p})
	}
	return &wrong
}

// unfit is the problem of one parameter or property.
func unfit(at, text string) error {
	return huma.NewError(http.StatusUnprocessableEntity, text, &huma.ErrorDetail{Location: at, Message: text})
}

func errNobody(id string) error {
	return huma.NewError(http.StatusNotFound, fmt.Sprintf("nobody in the directory has the identifier %.100q", id))
}
