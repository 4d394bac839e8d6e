package services

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
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
		put(&t, strings.Split(key, "."), value)
	}
	changed, err := Parse("--set", encode(t))
	if wrong, ok := errors.AsType[*config.Error](err); ok {
		for i := range wrong.Wrong {
			wrong.Wrong[i].Line = 0 // the text is nobody's
		}
	}
	return changed, err
}

func put(t *yaml.MapSlice, path []string, value string) {
	at := -1
	for i := range *t {
		if (*t)[i].Key == path[0] {
			at = i
		}
	}
	if at < 0 {
		at = len(*t)
		*t = append(*t, yaml.MapItem{Key: path[0]})
	}
	if len(path) > 1 {
		below, _ := (*t)[at].Value.(yaml.MapSlice)
		put(&below, path[1:], value)
		(*t)[at].Value = below
		return
	}
	(*t)[at].Value = value
	if path[0] == "users" {
		(*t)[at].Value = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
	}
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
