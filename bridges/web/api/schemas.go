package api

import (
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// newSchemas makes the register of schemas. Types of presence that are texts on the
// wire are described by the texts that there are.
func newSchemas() huma.Registry {
	r := huma.NewMapRegistry("#/components/schemas/", schemaName)
	r.RegisterTypeAlias(reflect.TypeFor[presence.Availability](), reflect.TypeFor[availability]())
	r.RegisterTypeAlias(reflect.TypeFor[presence.Level](), reflect.TypeFor[level]())
	r.RegisterTypeAlias(reflect.TypeFor[presence.CalendarPrivacy](), reflect.TypeFor[privacy]())
	r.RegisterTypeAlias(reflect.TypeFor[access.Kind](), reflect.TypeFor[kind]())
	r.RegisterTypeAlias(reflect.TypeFor[signin.Role](), reflect.TypeFor[role]())
	return r
}

// schemaName tells types of the same name apart by their package.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch path := t.PkgPath(); {
	case t.Name() == "":
		return name
	case strings.HasSuffix(path, "/services"):
		return "Service" + name
	case strings.HasSuffix(path, "/access"):
		return "Access" + name
	case name == "ErrorModel":
		return "Problem"
	default:
		return name
	}
}

// texts is the schema of a text that is one of these.
func texts(all ...string) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, t := range all {
		s.Enum = append(s.Enum, t)
	}
	return s
}

type availability string

func (availability) Schema(huma.Registry) *huma.Schema {
	var all []string
	for a := range presence.Availabilities() {
		all = append(all, a.String())
	}
	return texts(all...)
}

type level string

func (level) Schema(huma.Registry) *huma.Schema {
	return texts("block", "confirm", "telephony", "status", "full")
}

type privacy string

func (privacy) Schema(huma.Registry) *huma.Schema { return texts("hidden", "times", "open") }

type kind string

func (kind) Schema(huma.Registry) *huma.Schema {
	return texts("watcher", "group", "domain", "default")
}

type role string

func (role) Schema(huma.Registry) *huma.Schema { return texts("person", "operator", "administrator") }

// byHand is the name of a state that can be set by hand.
type byHand string

func (byHand) Schema(huma.Registry) *huma.Schema {
	var all []string
	for fact := range presence.ManualFacts.All() {
		all = append(all, aggregator.ManualName(fact))
	}
	return texts(all...)
}
