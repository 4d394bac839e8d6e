package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Reference writes what can be configured as Markdown, from the tags of the
// struct that v is: one table for each section, defaults and meanings as the
// program has them.
func Reference(v any) string {
	var b strings.Builder
	t := reflect.TypeOf(v)
	section(&b, t, "", "")
	return b.String()
}

func section(b *strings.Builder, t reflect.Type, path, doc string) {
	type sub struct {
		t         reflect.Type
		path, doc string
	}
	var below []sub
	var rows []string
	for _, f := range flat(t) {
		at := join(path, key(f))
		ft := f.Type
		list := ""
		if ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct {
			ft, list = ft.Elem(), "[]"
		}
		if ft.Kind() == reflect.Struct {
			below = append(below, sub{ft, at + list, f.Tag.Get("doc")})
			continue
		}
		def := f.Tag.Get("default")
		if def != "" {
			def = "`" + def + "`"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |\n", key(f), kindName(reflect.New(f.Type).Elem()), def, f.Tag.Get("doc")))
	}
	if path != "" {
		fmt.Fprintf(b, "\n## `%s`\n", path)
		if doc != "" {
			fmt.Fprintf(b, "\n%s\n", doc)
		}
	}
	if len(rows) > 0 {
		b.WriteString("\n| Key | Value | Default | Meaning |\n| --- | --- | --- | --- |\n" + strings.Join(rows, ""))
	}
	for _, s := range below {
		section(b, s.t, s.path, s.doc)
	}
}

func flat(t reflect.Type) []reflect.StructField {
	var out []reflect.StructField
	for _, f := range keys(t) {
		if inline(f) {
			out = append(out, flat(f.Type)...)
			continue
		}
		out = append(out, f)
	}
	return out
}
