package config_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"presenced/internal/config"
	"presenced/internal/secret"
)

type server struct {
	Name     string        `yaml:"name" doc:"What it is called."`
	Interval time.Duration `yaml:"interval" default:"5m" doc:"How often."`
	Password secret.File   `yaml:"password_file" doc:"Its password."`
}

type house struct {
	Listen  string            `yaml:"listen" default:"127.0.0.1:8080" doc:"Where it listens."`
	Debug   bool              `yaml:"debug" default:"false" doc:"More words."`
	Levels  []string          `yaml:"levels" default:"a,b" doc:"Some levels."`
	Rate    float64           `yaml:"rate" default:"50" doc:"A rate."`
	Servers []server          `yaml:"servers" doc:"The servers."`
	Names   map[string]string `yaml:"names" doc:"Some names."`
	Nested  struct {
		Limit int `yaml:"limit" default:"20" doc:"A limit."`
	} `yaml:"nested" doc:"Something below."`
	Guest string `yaml:"nested.guest" default:"nobody" doc:"A key of nested that its struct does not have."`

	reading config.Reading
}

// Read implements config.Reader.
func (h *house) Read(r config.Reading) { h.reading = r }

func (h *house) Check() []config.Problem {
	var ps []config.Problem
	for i, s := range h.Servers {
		if s.Name == "" {
			ps = append(ps, config.Under("servers["+string(rune('0'+i))+"]", []config.Problem{config.Wrong("name", "is missing")})...)
		}
	}
	if h.Nested.Limit > 100 {
		ps = append(ps, config.Wrong("nested.limit", "%d is more than 100", h.Nested.Limit))
	}
	return ps
}

func TestDecode(t *testing.T) {
	var h house
	err := config.Parse("x.yaml", []byte("listen: :1\nlevels: [c]\nnames: {a: b}\nservers:\n- name: one\n  password_file: /p\n- name: two\n  interval: 10s\nnested:\n  limit: 7\n"), &h)
	if err != nil {
		t.Fatal(err)
	}
	want := house{Listen: ":1", Levels: []string{"c"}, Rate: 50, Names: map[string]string{"a": "b"}, Servers: []server{
		{"one", 5 * time.Minute, "/p"}, {"two", 10 * time.Second, ""},
	}}
	want.Nested.Limit = 7
	want.Guest = "nobody"
	if d := cmp.Diff(want, h, cmpopts.IgnoreUnexported(house{})); d != "" {
		t.Error(d)
	}
}

// A guest is read into, reported and documented as a key of the section.
func TestValues(t *testing.T) {
	var h house
	if err := config.Parse("x.yaml", []byte("servers: [{name: one, password_file: /p}, {name: two}, {name: three, password_file: /q}]"), &h); err != nil {
		t.Fatal(err)
	}
	var got []string
	for path, file := range config.Values[secret.File](&h) {
		if got = append(got, path+"="+string(file)); file == "/q" {
			break
		}
	}
	if diff := cmp.Diff([]string{"servers[0].password_file=/p", "servers[1].password_file=", "servers[2].password_file=/q"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for path, limit := range config.Values[int](h) {
		if path != "nested.limit" || limit != 20 {
			t.Errorf("%s is %d", path, limit)
		}
	}
}

func TestGuest(t *testing.T) {
	var h house
	if err := config.Parse("x.yaml", []byte("nested: {guest: ann, limit: 3}"), &h); err != nil || h.Guest != "ann" || h.Nested.Limit != 3 {
		t.Errorf("%q, %d, %v", h.Guest, h.Nested.Limit, err)
	}
	for text, want := range map[string]string{
		"nested: {guest: [ann]}":    "x.yaml:1: nested.guest: want text",
		"nested: {gast: ann}":       "x.yaml:1: nested.gast: unknown key; known here: limit, guest",
		"nested.guest: ann":         "x.yaml:1: nested.guest: unknown key; known here: listen, debug, levels, rate, servers, names, nested",
		"names: {a: b, c: d, a: e}": "x.yaml:1: names.a: stands twice, first on line 1",
	} {
		if err := config.Parse("x.yaml", []byte(text), new(house)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	if got := config.Reference(house{}); !strings.Contains(got, "Something below.\n\n| Key | Value | Default | Meaning |\n| --- | --- | --- | --- |\n| `limit` | a whole number | `20` | A limit. |\n| `guest` | text | `nobody` |") || strings.Contains(got, "nested.guest") {
		t.Errorf("the guest is not in its section:\n%s", got)
	}
}

// TestReading asks what stood in the file, and what of it could be read.
func TestReading(t *testing.T) {
	var h house
	_ = config.Parse("x.yaml", []byte("listen: :1\nservers:\n- name: one\n- name: two\n  interval: soon\nnested: {limit: 20}\n"), &h)
	for path, want := range map[string][2]bool{
		"listen": {true, true}, "debug": {false, true}, "nested.limit": {true, true}, "nested.guest": {false, true},
		"servers": {true, false}, "servers[0]": {true, true}, "servers[1]": {true, false}, "servers[1].name": {true, true}, "servers[1].interval": {true, false},
	} {
		if got := [2]bool{h.reading.Has(path), h.reading.Sound(path)}; got != want {
			t.Errorf("%s: has, sound: %v, want %v", path, got, want)
		}
	}
}

func TestDefaultsOfNothing(t *testing.T) {
	var h house
	if err := config.Parse("x.yaml", nil, &h); err != nil {
		t.Fatal(err)
	}
	if h.Listen != "127.0.0.1:8080" || h.Nested.Limit != 20 || len(h.Levels) != 2 || h.Levels[1] != "b" {
		t.Errorf("%+v", h)
	}
}

// TestEveryProblem has one file with many mistakes, and wants all of them, each
// with its line.
func TestEveryProblem(t *testing.T) {
	var h house
	err := config.Parse("x.yaml", []byte(`lisen: :1
debug: maybe
rate: fast
servers:
- name: one
  interval: soon
- interval: 10s
  colour: red
nested:
  limit: 400
debug: true
names: 3
`), &h)
	want := []string{
		"x.yaml:1: lisen: unknown key; known here: listen, debug, levels, rate, servers, names, nested",
		`x.yaml:2: debug: "maybe" is neither true nor false`,
		`x.yaml:3: rate: "fast" is no number`,
		`x.yaml:6: servers[0].interval: "soon" is no duration such as 30s, 5m or 1h30m`,
		"x.yaml:7: servers[1].name: is missing",
		"x.yaml:8: servers[1].colour: unknown key; known here: name, interval, password_file",
		"x.yaml:10: nested.limit: 400 is more than 100",
		"x.yaml:11: debug: stands twice, first on line 2",
		"x.yaml:12: names: want keys and values",
	}
	if err == nil {
		t.Fatal("no error")
	}
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Error(d)
	}
}

func TestSyntax(t *testing.T) {
	for _, text := range []string{"a: [", "\ta: b", "a: b: c", "- x\n  y: {", "%%%"} {
		var h house
		var e *config.Error
		if err := config.Parse("x.yaml", []byte(text), &h); !errors.As(err, &e) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("listen: :1\nservers: [{name: a}]"))
	f.Add([]byte("a: &x [*x]\n<<: *x"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		var h house
		_ = config.Parse("x.yaml", data, &h)
	})
}

func TestReference(t *testing.T) {
	got := config.Reference(house{})
	for _, want := range []string{"| `listen` | text | `127.0.0.1:8080` | Where it listens. |", "## `servers[]`\n\nThe servers.", "| `interval` | a duration such as 30s, 5m or 1h30m | `5m` | How often. |", "## `nested`"} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %q in\n%s", want, got)
		}
	}
}
