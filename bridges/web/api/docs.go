package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsHTML string

// document serves the OpenAPI document, and a page made of it. Neither takes a
// permission: they say nothing of the installation.
func (a *API) document() {
	doc := a.huma.OpenAPI()
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete} {
			if op != nil {
				delete(op.Responses, "500") // which huma promises and presenced does not
			}
		}
	}
	spec, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		panic("api: the OpenAPI document cannot be written: " + err.Error())
	}
	var page bytes.Buffer
	if err := template.Must(template.New("docs").Parse(docsHTML)).Execute(&page, viewOf(doc)); err != nil {
		panic("api: the page of the API cannot be written: " + err.Error())
	}
	serve := func(path, kind string, data []byte) {
		a.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(data)
		})
	}
	serve("/api/openapi.json", "application/openapi+json", spec)
	serve("/api/docs", "text/html; charset=utf-8", page.Bytes())
}

// A docsView is the OpenAPI document as the page shows it.
type docsView struct {
	Title, Version, Text string
	Tags                 []tagView
	Schemas              []schemaView
}

type tagView struct {
	Name, Text string
	Operations []operationView
}

type operationView struct {
	ID, Method, Path, Summary string
	Paragraphs                []string
	Parameters                []fieldView
	Bodies                    []bodyView
	Responses                 []bodyView
}

type bodyView struct {
	Kind string // the media type; of responses the status
	Text string
	Type typeView
}

type fieldView struct {
	Name, In, Text string
	Required       bool
	Type           typeView
}

// A typeView is a type in words; Ref is the schema that the words end with.
type typeView struct{ Words, Ref string }

type schemaView struct {
	Name, Text string
	Fields     []fieldView
}

func viewOf(doc *huma.OpenAPI) *docsView {
	v := docsView{Title: doc.Info.Title, Version: doc.Info.Version, Text: doc.Info.Description}
	at := map[string]int{}
	for i, t := range doc.Tags {
		v.Tags, at[t.Name] = append(v.Tags, tagView{Name: t.Name, Text: t.Description}), i
	}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete} {
			if op != nil {
				t := &v.Tags[at[op.Tags[0]]]
				t.Operations = append(t.Operations, operationOf(op))
			}
		}
	}
	schemas := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		s := schemas[name]
		v.Schemas = append(v.Schemas, schemaView{Name: name, Text: s.Description, Fields: fieldsOf(s, "")})
	}
	return &v
}

func operationOf(op *huma.Operation) operationView {
	v := operationView{ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary}
	for p := range strings.SplitSeq(op.Description, "\n\n") {
		if p != "" {
			v.Paragraphs = append(v.Paragraphs, p)
		}
	}
	for _, p := range op.Parameters {
		v.Parameters = append(v.Parameters, fieldView{Name: p.Name, In: p.In, Text: p.Description, Required: p.Required, Type: typeOf(p.Schema)})
	}
	if op.RequestBody != nil {
		for _, kind := range slices.Sorted(maps.Keys(op.RequestBody.Content)) {
			v.Bodies = append(v.Bodies, bodyView{Kind: kind, Type: typeOf(op.RequestBody.Content[kind].Schema)})
		}
	}
	var problems []string
	for _, code := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[code]
		if code >= "400" {
			problems = append(problems, code+" "+r.Description)
			continue
		}
		b := bodyView{Kind: code, Text: r.Description}
		for _, kind := range slices.Sorted(maps.Keys(r.Content)) {
			if s := r.Content[kind].Schema; b.Type == (typeView{}) && s != nil {
				b.Type = typeOf(s)
			}
		}
		v.Responses = append(v.Responses, b)
	}
	if len(problems) > 0 {
		v.Responses = append(v.Responses, bodyView{Kind: strings.Join(problems, ", "), Type: typeView{Ref: "Problem"}})
	}
	return v
}

// fieldsOf gives the properties of an object, those of objects in it as a.b.
func fieldsOf(s *huma.Schema, under string) []fieldView {
	var all []fieldView
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		all = append(all, fieldView{Name: under + name, Text: p.Description, Required: slices.Contains(s.Required, name), Type: typeOf(p)})
		all = append(all, fieldsOf(p, under+name+".")...)
	}
	return all
}

func typeOf(s *huma.Schema) typeView {
	switch {
	case s == nil:
		return typeView{}
	case s.Ref != "":
		return typeView{Ref: s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]}
	case s.Type == huma.TypeArray && s.Items != nil:
		of := typeOf(s.Items)
		of.Words = "list of " + of.Words
		return of
	case len(s.Enum) > 0:
		words := make([]string, 0, len(s.Enum))
		for _, e := range s.Enum {
			words = append(words, fmt.Sprint(e))
		}
		return typeView{Words: "one of " + strings.Join(words, ", ")}
	case s.Type == huma.TypeString:
		return typeView{Words: bounded(map[string]string{"": "text", "date-time": "time"}[s.Format], s)}
	case s.Type == huma.TypeInteger:
		return typeView{Words: bounded("number", s)}
	case s.Type == huma.TypeBoolean:
		return typeView{Words: bounded("true or false", s)}
	case s.Type == huma.TypeObject:
		if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
			t := typeOf(of)
			t.Words = "by name: " + t.Words
			return t
		}
		return typeView{Words: "object"}
	default:
		return typeView{Words: "anything"}
	}
}

// bounded adds the limits and the default to the name of a type.
func bounded(words string, s *huma.Schema) string {
	if s.MaxLength != nil {
		words += ", at most " + strconv.Itoa(*s.MaxLength) + " characters"
	}
	if s.Minimum != nil && s.Maximum != nil {
		words += fmt.Sprintf(", %g to %g", *s.Minimum, *s.Maximum)
	}
	if s.Default != nil && s.Default != "" {
		words += fmt.Sprintf("; %v, where nothing is said", s.Default)
	}
	return words
}
