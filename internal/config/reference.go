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
	section(&b, entries(reflect.TypeOf(v)), "", "")
	return b.String()
}

// An entry is a key of a section.
type entry struct {
	name string
	reflect.StructField
}

func section(b *strings.Builder, all []entry, path, doc string) {
	type sub struct {
		entries   []entry
		path, doc string
	}
	var below []sub
	var rows []string
	for _, f := range all {
		if strings.Contains(f.name, ".") {
			continue // it stands in a section below
		}
		at := join(path, f.name)
		ft := f.Type
		list := ""
		if ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct {
			ft, list = ft.Elem(), "[]"
		}
		if ft.Kind() == reflect.Struct {
			inside := entries(ft)
			for _, guest := range all {
				if name, ok := strings.CutPrefix(guest.name, f.name+"."); ok {
					inside = append(inside, entry{name, guest.StructField})
				}
			}
			below = append(below, sub{inside, at + list, f.Tag.Get("doc")})
			continue
		}
		def := f.Tag.Get("default")
		if def != "" {
			def = "`" + def + "`"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |\n", f.name, kindName(reflect.New(f.Type).Elem()), def, f.Tag.Get("doc")))
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
		section(b, s.entries, s.path, s.doc)
	}
}

// entries gives the keys of a struct, those of inline structs in their place.
func entries(t reflect.Type) []entry {
	var out []entry
	for _, f := range keys(t) {
		if inline(f) {
			out = append(out, entries(f.Type)...)
			continue
		}
		out = append(out, entry{key(f), f})
	}
	return out
}
