package services

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"presenced/internal/config"
)

// A file is what an administrator writes, and what Write gives.
type file struct {
	Services []Service `yaml:"services" doc:"The presence services."`
}

// Check implements config.Checker.
func (f *file) Check() []config.Problem {
	var ps []config.Problem
	seen := map[string]bool{}
	for i := range f.Services {
		s, at := &f.Services[i], "services["+strconv.Itoa(i)+"]"
		ps = append(ps, config.Under(at, s.Check())...)
		if s.ID != "" && seen[s.ID] {
			ps = append(ps, config.Wrong(at+".id", "%q stands there twice", s.ID))
		}
		seen[s.ID] = true
	}
	return ps
}

// Read gives the services of a YAML file with the key services; name stands in the
// error, a *config.Error with every problem, each with its line.
func Read(name string, data []byte) ([]Service, error) {
	var f file
	if err := config.Parse(name, data, &f); err != nil {
		return nil, err
	}
	return f.Services, nil
}

// Write is the inverse of Read. What has its default is written too, but for
// sections that have nothing else.
func Write(all []Service) []byte {
	list := make([]yaml.MapSlice, 0, len(all))
	for i := range all {
		list = append(list, tree(reflect.ValueOf(all[i])))
	}
	return encode(yaml.MapSlice{{Key: "services", Value: list}})
}

// Reference writes the keys of the file as Markdown.
func Reference() string { return config.Reference(file{}) }

// one is a Service alone in a text.
type one struct {
	Service `yaml:",inline"`
}

// Parse gives the service of a text that Format gave, or of one in the same form.
func Parse(name string, data []byte) (Service, error) {
	var o one
	err := config.Parse(name, data, &o)
	return o.Service, err
}

// Format gives the YAML of one service.
func Format(s Service) []byte { return encode(tree(reflect.ValueOf(s))) }

// Set gives s, or a new service where it is nil, with keys changed, each as
// key=value in the words of the file: secondary.host=p2.example.com,
// users=ann,group:sales. The error names every problem.
func Set(s *Service, changes []string) (Service, error) {
	t := yaml.MapSlice{}
	if s != nil {
		t = tree(reflect.ValueOf(*s))
	}
	for _, c := range changes {
		key, value, ok := strings.Cut(c, "=")
		if !ok || key == "" {
			return Service{}, fmt.Errorf("%.100q is not as key=value", c)
		}
		if key == "users" {
			put(&t, key, strings.FieldsFunc(value, func(r rune) bool { return r == ',' }))
			continue
		}
		put(&t, key, value)
	}
	changed, err := Parse("--set", encode(t))
	if wrong, ok := errors.AsType[*config.Error](err); ok {
		for i := range wrong.Wrong {
			wrong.Wrong[i].Line = 0 // the text is nobody's
		}
	}
	return changed, err
}

// A Field is a key of a service, for forms.
type Field struct {
	Key   string // in the words of the file, such as secondary.host
	Doc   string // what it is for, in a sentence
	Value string // a duration in seconds, a list with one entry a line
}

// Fields gives every key of s, in the order of the file.
func Fields(s *Service) []Field {
	var all []Field
	walk(reflect.ValueOf(s).Elem(), "", func(key string, f reflect.StructField, v reflect.Value) {
		text := fmt.Sprint(v.Interface())
		switch v.Interface().(type) {
		case time.Duration:
			text = strconv.FormatFloat(time.Duration(v.Int()).Seconds(), 'f', -1, 64)
		case []string:
			text = strings.Join(s.Users, "\n")
		}
		all = append(all, Field{key, f.Tag.Get("doc"), text})
	})
	return all
}

// walk calls do for every key below v.
func walk(v reflect.Value, path string, do func(key string, f reflect.StructField, v reflect.Value)) {
	for f, field := range v.Fields() {
		key := path + f.Tag.Get("yaml")
		if field.Kind() == reflect.Struct {
			walk(field, key+".", do)
			continue
		}
		do(key, f, field)
	}
}

// Fill gives s, or a new service where it is nil, with the values of a form, by the
// keys of Fields and in the same words; a duration may also be as in the file. A key
// that the form does not have stays as it is, one that is no key is not looked at.
// Every problem is given, by its key; what the problem is about may not be filled in.
func Fill(s *Service, form map[string][]string) (Service, []config.Problem) {
	t := yaml.MapSlice{}
	if s != nil {
		t = tree(reflect.ValueOf(*s))
	}
	var ps []config.Problem
	walk(reflect.ValueOf(Service{}), "", func(key string, f reflect.StructField, _ reflect.Value) {
		values, there := form[key]
		if !there || len(values) == 0 {
			return
		}
		text, list := strings.TrimSpace(values[0]), []string{}
		if f.Type == reflect.TypeFor[[]string]() {
			for line := range strings.Lines(text) {
				if line = strings.TrimSpace(line); line != "" {
					list = append(list, line)
				}
			}
			text = strings.Join(list, " ")
		}
		if !plain(text, maxForm) {
			ps = append(ps, config.Wrong(key, "has control characters, or more than %d bytes", maxForm))
			return
		}
		switch {
		case f.Type == reflect.TypeFor[[]string]():
			put(&t, key, list)
		case f.Type == reflect.TypeFor[time.Duration]() && text != "" && strings.Trim(text, "0123456789") == "":
			put(&t, key, text+"s")
		default:
			put(&t, key, text)
		}
	})
	filled, err := Parse("form", encode(t))
	if wrong, ok := errors.AsType[*config.Error](err); ok {
		for _, w := range wrong.Wrong {
			if !slices.ContainsFunc(ps, func(p config.Problem) bool { return p.Path == w.Path }) {
				ps = append(ps, w.Problem)
			}
		}
	}
	return filled, ps
}

// put sets a key, as tls.server_name, to a value.
func put(t *yaml.MapSlice, key string, value any) {
	key, rest, deeper := strings.Cut(key, ".")
	at := slices.IndexFunc(*t, func(item yaml.MapItem) bool { return item.Key == key })
	if at < 0 {
		at = len(*t)
		*t = append(*t, yaml.MapItem{Key: key})
	}
	if deeper {
		below, _ := (*t)[at].Value.(yaml.MapSlice)
		put(&below, rest, value)
		value = below
	}
	(*t)[at].Value = value
}

// tree gives the keys of a struct in their order: those that are set or have a default.
func tree(v reflect.Value) yaml.MapSlice {
	t := yaml.MapSlice{}
	for f, field := range v.Fields() {
		key := f.Tag.Get("yaml")
		_, usual := f.Tag.Lookup("default")
		switch {
		case field.Kind() == reflect.Struct:
			if !blank(field) {
				t = append(t, yaml.MapItem{Key: key, Value: tree(field)})
			}
		case field.Type() == reflect.TypeFor[time.Duration]():
			t = append(t, yaml.MapItem{Key: key, Value: time.Duration(field.Int()).String()})
		case usual || !field.IsZero():
			t = append(t, yaml.MapItem{Key: key, Value: field.Interface()})
		}
	}
	return t
}

// blank tells whether all fields of a section are zero or have their default.
func blank(v reflect.Value) bool {
	for f, field := range v.Fields() {
		if !field.IsZero() && fmt.Sprint(field.Interface()) != f.Tag.Get("default") {
			return false
		}
	}
	return true
}

func encode(t yaml.MapSlice) []byte {
	var b bytes.Buffer
	if err := yaml.NewEncoder(&b).Encode(t); err != nil {
		panic("services: texts, numbers and lists cannot be written: " + err.Error())
	}
	return b.Bytes()
}

// keys gives the value of every key of a service, as text.
func keys(s *Service) map[string]string {
	out := map[string]string{}
	var walk func(path string, t yaml.MapSlice)
	walk = func(path string, t yaml.MapSlice) {
		for _, item := range t {
			at := path + fmt.Sprint(item.Key)
			if below, ok := item.Value.(yaml.MapSlice); ok {
				walk(at+".", below)
				continue
			}
			out[at] = fmt.Sprint(item.Value)
		}
	}
	walk("", tree(reflect.ValueOf(*s)))
	return out
}
