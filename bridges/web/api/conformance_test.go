package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"presenced/bridges/web/signin"
)

// good are values with which operations succeed, by "operation name" or by name.
func good() map[string]any {
	return map[string]any{
		"id": "alder", "ids": []any{"alder", "nobody"}, "state": "dnd", "cursor": "YWxkZXI", "until": "2027-01-01T10:00:00Z", "since": "1h",
		"of": "alder", "watcher": "birch", "at": "2026-01-01T10:00:00Z", "Last-Event-ID": "x-1",
		"list-states id": nil, "list-people state": "unknown", "list-states state": "unknown", "kind": "source",
		"get-service id": "hq", "sync-service id": "hq", "test-service id": "hq", "edit-service id": "hq", "delete-service id": "hq",
		"for": map[string]any{"kind": "group", "name": "sales"}, "level": "full", "calendar": "times",
		"set-presence until": nil, "dry_run": true, "list-audit until": "2027-01-01T10:00:00Z", "explain at": nil,
		"role": "operator", "password": "correct horse battery", "add-account user": "anna", "user": "bert", "token": "none", "name": "crm", "person": "alder",
		"edits": []any{map[string]any{"id": "hq2", "form": form("hq2")}},
	}
}

func form(id string) map[string]any {
	return map[string]any{"id": id, "primary": map[string]any{"host": "p1.example.com", "port": 5060}, "entity": "sip:{tel}@example.com", "users": []any{"alder"}}
}

const table = "rules:\n- {rule: rest, title: Nothing is known, availability: unknown}\n"

// A probe is one request that is made of the document.
type probe struct {
	op     *huma.Operation
	params map[string]any // by in and name
	body   any
	raw    []byte // instead of body
}

func (p *probe) clone() *probe {
	c := *p
	c.params = maps.Clone(p.params)
	if b, ok := p.body.(map[string]any); ok {
		c.body = deep(b)
	}
	return &c
}

func deep(v any) any {
	data, _ := json.Marshal(v)
	var out any
	_ = json.Unmarshal(data, &out)
	return out
}

func (p *probe) send(w *world, who signin.Identity) *httptest.ResponseRecorder {
	path, query := p.op.Path, url.Values{}
	var header []string
	for key, value := range p.params {
		in, name, _ := strings.Cut(key, " ")
		text := fmt.Sprint(value)
		switch in {
		case "path":
			path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(text))
		case "query":
			query.Set(name, text)
		case "header":
			header = append(header, name, text)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	body := string(p.raw)
	if p.raw == nil && p.body != nil {
		data, err := json.Marshal(p.body)
		if err != nil {
			w.t.Fatal(err)
		}
		body = string(data)
		header = append(header, "Content-Type", "application/json")
	}
	return w.ask(who, p.op.Method, path, body, header...)
}

// probeOf makes a request that succeeds.
func probeOf(w *world, op *huma.Operation) *probe {
	values, registry := good(), w.api.OpenAPI().Components.Schemas
	p := &probe{op: op, params: map[string]any{}}
	value := func(name string, s *huma.Schema) any {
		if v, ok := values[op.OperationID+" "+name]; ok {
			return v
		}
		if v, ok := values[name]; ok {
			return v
		}
		if s = resolve(registry, s); s.Default != nil {
			return s.Default
		}
		switch {
		case len(s.Enum) > 0:
			return s.Enum[0]
		case s.Type == huma.TypeBoolean:
			return true
		default:
			return nil
		}
	}
	for _, param := range op.Parameters {
		if v := value(param.Name, param.Schema); v != nil {
			p.params[param.In+" "+param.Name] = v
		}
	}
	if rev, ok := map[string]bool{"edit-service": true, "delete-service": true}[op.OperationID]; ok && rev {
		p.params["header If-Match"] = w.ask(administrator(), "GET", "/api/services/hq", "").Header().Get("ETag")
	}
	if op.RequestBody == nil {
		return p
	}
	if op.RequestBody.Content["application/json"] == nil {
		p.raw = []byte(table)
		return p
	}
	switch s := resolve(registry, op.RequestBody.Content["application/json"].Schema); op.OperationID {
	case "add-service":
		p.body = form("hq2")
	case "edit-service":
		p.body = form("hq")
	default:
		body := map[string]any{}
		for name, property := range s.Properties {
			if v := value(name, property); v != nil {
				body[name] = v
			}
		}
		p.body = body
	}
	return p
}

func resolve(r huma.Registry, s *huma.Schema) *huma.Schema {
	for s != nil && s.Ref != "" {
		s = r.SchemaFromRef(s.Ref)
	}
	return s
}

// worse gives requests with one thing wrong with each, by what is wrong; sure tells
// those that no operation may take.
func (p *probe) worse(r huma.Registry) (all map[string]*probe, sure map[string]bool) {
	all, sure = map[string]*probe{}, map[string]bool{}
	put := func(what string, refused bool, change func(*probe)) {
		c := p.clone()
		change(c)
		all[what], sure[what] = c, refused
	}
	for _, param := range p.op.Parameters {
		key, s := param.In+" "+param.Name, resolve(r, param.Schema)
		if param.Required && param.In != "path" {
			put(key+" missing", true, func(c *probe) { delete(c.params, key) })
		}
		if s.MaxLength != nil {
			put(key+" too long", true, func(c *probe) { c.params[key] = strings.Repeat("x", *s.MaxLength+1) })
		}
		if s.Minimum != nil {
			put(key+" too small", true, func(c *probe) { c.params[key] = *s.Minimum - 1 })
		}
		if s.Maximum != nil {
			put(key+" too large", true, func(c *probe) { c.params[key] = *s.Maximum + 1 })
		}
		text := s.Type == huma.TypeString && s.Format == "" && len(s.Enum) == 0 || s.Type == huma.TypeArray
		for what, v := range map[string]string{"odd": "\x00\"<>'", "not UTF-8": "\xff\xfe", "a word": "rubbish", "huge": "99999999999999999999999"} {
			put(key+" "+what, !text, func(c *probe) { c.params[key] = v })
		}
		if s.Type == huma.TypeArray && s.MaxItems != nil {
			put(key+" too many", true, func(c *probe) {
				// Encoded by hand: one key many times.
				op := *c.op
				op.Path += "?" + strings.Repeat(param.Name+"=x&", *s.MaxItems+1)
				c.op, c.params = &op, map[string]any{}
			})
		}
	}
	put("query unknown", true, func(c *probe) { c.params["query rubbish"] = "x" })
	if p.op.RequestBody == nil {
		return all, sure
	}
	raw := func(text string) func(*probe) { return func(c *probe) { c.raw = []byte(text) } }
	put("body too large", true, raw(`{"x":"`+strings.Repeat("x", int(p.op.MaxBodyBytes))+`"}`))
	if p.op.RequestBody.Content["application/json"] == nil {
		put("body no table", true, raw("rules: 3"))
		put("body no YAML", true, raw("\x00{["))
		return all, sure
	}
	put("body missing", true, raw(""))
	for what, text := range map[string]string{"no JSON": "{", "twice": "{}{}", "null": "null", "list": "[]", "number": "1", "deep": strings.Repeat("[", 3000)} {
		put("body "+what, true, raw(text))
	}
	p.worseProperties(r, resolve(r, p.op.RequestBody.Content["application/json"].Schema), nil, put)
	return all, sure
}

func (p *probe) worseProperties(r huma.Registry, s *huma.Schema, path []string, put func(string, bool, func(*probe))) {
	in := func(c *probe) map[string]any {
		m, _ := c.body.(map[string]any)
		for _, name := range path {
			next, _ := m[name].(map[string]any)
			if next == nil {
				next = map[string]any{}
				m[name] = next
			}
			m = next
		}
		return m
	}
	at := strings.Join(append([]string{"body"}, path...), ".") + "."
	put(at+"unknown", true, func(c *probe) { in(c)["rubbish"] = 1 })
	for name, property := range s.Properties {
		property = resolve(r, property)
		if slices.Contains(s.Required, name) {
			put(at+name+" missing", true, func(c *probe) { delete(in(c), name) })
		}
		for what, v := range map[string]any{"text": "rubbish\x00", "number": 1e9, "list": []any{1}, "object": map[string]any{"x": 1}, "true": true} {
			fits := what == "text" && property.Type == huma.TypeString && len(property.Enum) == 0 && property.Format == "" ||
				what == "true" && property.Type == huma.TypeBoolean || what == "number" && property.Type == huma.TypeInteger
			put(at+name+" as "+what, !fits, func(c *probe) { in(c)[name] = v })
		}
		if property.MaxLength != nil {
			put(at+name+" too long", true, func(c *probe) { in(c)[name] = strings.Repeat("x", *property.MaxLength+1) })
		}
		if property.MaxItems != nil {
			put(at+name+" too many", true, func(c *probe) { in(c)[name] = slices.Repeat([]any{"x"}, *property.MaxItems+1) })
		}
		if property.MinItems != nil {
			put(at+name+" too few", true, func(c *probe) { in(c)[name] = []any{} })
		}
		if len(property.Properties) > 0 {
			p.worseProperties(r, property, append(slices.Clone(path), name), put)
		}
	}
}

// conforms checks an answer against the document.
func (w *world) conforms(op *huma.Operation, rec *httptest.ResponseRecorder) error {
	response := op.Responses[strconv.Itoa(rec.Code)]
	if response == nil || rec.Code >= 500 && rec.Code != http.StatusServiceUnavailable {
		return fmt.Errorf("status %d is not documented: %.300s", rec.Code, rec.Body)
	}
	kind, _, err := mime.ParseMediaType(rec.Header().Get("Content-Type"))
	content := response.Content[kind]
	if err != nil || content == nil || rec.Code >= 400 && kind != "application/problem+json" {
		return fmt.Errorf("%d with %q is not documented: %.300s", rec.Code, kind, rec.Body)
	}
	if kind == "text/plain" || kind == "text/event-stream" {
		return nil
	}
	var body any
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
		return fmt.Errorf("%w in %.300s", err, rec.Body)
	}
	var res huma.ValidateResult
	path := huma.NewPathBuffer(nil, 0)
	huma.Validate(w.api.OpenAPI().Components.Schemas, content.Schema, path, huma.ModeReadFromServer, body, &res)
	if len(res.Errors) > 0 {
		return fmt.Errorf("the body is not as documented: %w in %.300s", res.Errors[0], rec.Body)
	}
	if p, ok := body.(map[string]any); rec.Code >= 400 && (!ok || p["status"] != float64(rec.Code) || p["title"] == nil || p["detail"] == nil) {
		return fmt.Errorf("the problem lacks something: %s", rec.Body)
	}
	return nil
}

// operations gives all of the document, but the stream, which does not end.
func (w *world) operations() map[string]*huma.Operation {
	all := map[string]*huma.Operation{}
	for _, item := range w.api.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete} {
			if op != nil && op.OperationID != "watch" {
				all[op.OperationID] = op
			}
		}
	}
	return all
}

// prepare makes what good requests are about.
func (w *world) prepare(account bool) {
	w.t.Helper()
	w.want("POST", "/api/services", `{"id": "hq", "primary": {"host": "127.0.0.1"}, "entity": "sip:{tel}@example.com"}`, 201, `"add"`)
	if !account { // its password takes its time
		return
	}
	w.want("POST", "/api/accounts", `{"user": "bert", "role": "person", "password": "correct horse battery"}`, 200, "account bert added")
}

// TestConformance sends each operation what the document says it takes, and
// everything that it says it does not: the answers are as the document says, and none
// is the fault of presenced.
func TestConformance(t *testing.T) {
	for id, op := range newWorld(t).operations() {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			w := makeWorld(t, slices.Contains(op.Tags, "accounts"))
			registry := w.api.OpenAPI().Components.Schemas
			op := w.operations()[id]
			w.prepare(slices.Contains(op.Tags, "accounts"))
			p := probeOf(w, op)
			rec := p.send(w, administrator())
			if err := w.conforms(op, rec); err != nil || rec.Code >= 300 && id != "revoke-token" { // there is none
				t.Errorf("a good request %v %v: %d %v %.500s", p.params, p.body, rec.Code, err, rec.Body)
			}
			all, sure := p.worse(registry)
			for _, what := range slices.Sorted(maps.Keys(all)) {
				rec := all[what].send(w, administrator())
				if err := w.conforms(op, rec); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if sure[what] && rec.Code < 400 {
					t.Errorf("%s was taken: %d %.300s", what, rec.Code, rec.Body)
				}
			}
		})
	}
}

// TestScopes sends each operation without what it takes.
func TestScopes(t *testing.T) {
	w := newWorld(t)
	w.prepare(false)
	all := signin.Permission(0)
	if err := all.UnmarshalText([]byte(strings.Join(signin.Permissions(), " "))); err != nil {
		t.Fatal(err)
	}
	ops := w.operations()
	watch := w.api.OpenAPI().Paths["/api/watch"].Get
	ops[watch.OperationID] = watch
	for id, op := range ops {
		need := w.api.Needs()[id]
		if len(need) == 0 {
			continue
		}
		without := all
		for _, p := range need {
			without &^= p
		}
		p := probeOf(w, op)
		token := administrator()
		token.Token, token.Scopes = "pd", without
		rec := p.send(w, token)
		if err := w.conforms(op, rec); err != nil || rec.Code != http.StatusForbidden || !strings.Contains(rec.Body.String(), need[0].String()) {
			t.Errorf("%s with a token for all else: %d %v %s", id, rec.Code, err, rec.Body)
		}
		rec = p.send(w, signin.Identity{})
		if err := w.conforms(op, rec); err != nil || rec.Code != http.StatusUnauthorized || rec.Header().Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s without a token: %d %v %s", id, rec.Code, err, rec.Body)
		}
		if id == watch.OperationID {
			continue
		}
		token.Scopes = need[0]
		if rec := p.send(w, token); rec.Code >= 400 && !slices.Contains([]string{"set-presence", "clear-presence", "revoke-token", "set-role", "set-person", "set-password", "remove-account"}, id) {
			t.Errorf("%s with a token for just that: %d %s", id, rec.Code, rec.Body)
		}
		for _, way := range op.Security {
			for name := range way {
				if w.api.OpenAPI().Components.SecuritySchemes[name] == nil {
					t.Errorf("%s: %s is no way to say who asks", id, name)
				}
			}
		}
	}
}
