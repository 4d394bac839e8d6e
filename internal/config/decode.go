// Package config reads YAML strictly into structs whose tags say everything
// there is to know about a key: its name (yaml), its default (default) and what
// it is for (doc). A name "section.key" puts the key into a section whose struct
// cannot have it; a name that ends in ",inline" puts the keys of a struct beside
// those around it. The package finds every problem of a file, each with line and key, and
// it writes the configuration reference from the same tags. Any package may
// import it to check its own part (Problem).
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// The largest file that is read.
const maxSize = 4 << 20

// A Checker is a configuration that knows what is wrong with itself beyond its form.
type Checker interface{ Check() []Problem }

// A Reader is a Checker that needs to know more of its file than the values:
// Read is called before Check.
type Reader interface{ Read(Reading) }

// A Reading is how a file was read.
type Reading struct{ d *decoder }

// Has tells whether the key stands in the file.
func (r Reading) Has(path string) bool {
	_, has := r.d.lines[path]
	return has
}

// Sound tells whether the key, and everything below it, could be read; where it
// could not, Check sees defaults and may draw wrong conclusions.
func (r Reading) Sound(path string) bool {
	return !slices.ContainsFunc(r.d.problems, func(l Located) bool {
		rest, below := strings.CutPrefix(l.Path, path)
		return below && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// An Error is all that is wrong with a file.
type Error struct {
	File  string
	Wrong []Located
}

// Located is a problem with its line; line 0 where the file says nothing of the key.
type Located struct {
	Problem
	Line int
}

// Error gives one line for each problem: file:line: key: text.
func (e *Error) Error() string {
	var lines []string
	for _, w := range e.Wrong {
		place := e.File
		if w.Line > 0 {
			place += ":" + strconv.Itoa(w.Line)
		}
		if w.Path != "" {
			place += ": " + w.Path
		}
		lines = append(lines, place+": "+w.Text)
	}
	return strings.Join(lines, "\n")
}

// Load reads the file into the struct that into points to: defaults first, then
// the file, then Check. The error is an *Error with every problem, or says that
// the file cannot be read. A list in the file replaces a default list.
func Load(file string, into Checker) error {
	f, err := os.Open(file) //nolint:gosec // the file that the caller names
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if len(data) > maxSize {
		return fmt.Errorf("config: %s is larger than %d bytes", file, maxSize)
	}
	return Parse(file, data, into)
}

// Parse is Load for data that were read already; name stands in the errors.
func Parse(name string, data []byte, into Checker) error {
	d := &decoder{lines: map[string]int{}, guests: map[string][]guest{}}
	v := reflect.ValueOf(into).Elem()
	d.defaults(v, "")
	tree, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, text := 0, err.Error()
		if syntax := yaml.Error(nil); errors.As(err, &syntax) {
			line, text = syntax.GetToken().Position.Line, syntax.GetMessage()
		}
		return &Error{name, []Located{{Problem{"", text}, line}}}
	}
	switch {
	case len(tree.Docs) > 1:
		d.wrong(tree.Docs[1].Body, "", "a second document: one file holds one configuration")
	case len(tree.Docs) == 1 && tree.Docs[0].Body != nil:
		d.value(tree.Docs[0].Body, v, "")
	}
	if r, ok := into.(Reader); ok {
		r.Read(Reading{d})
	}
	for _, p := range into.Check() {
		// A key that could not be decoded has its default now; one complaint is enough.
		if !slices.ContainsFunc(d.problems, func(l Located) bool { return l.Path == p.Path }) {
			d.problems = append(d.problems, Located{p, d.line(p.Path)})
		}
	}
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b Located) int { return cmp.Compare(a.Line, b.Line) })
	return &Error{name, d.problems}
}

type decoder struct {
	lines    map[string]int     // where each key stands
	guests   map[string][]guest // by the section that they stand in
	problems []Located
}

// A guest is a field that stands in a section of another struct.
type guest struct {
	name  string
	field reflect.Value
}

func (d *decoder) wrong(n ast.Node, path, format string, args ...any) {
	d.problems = append(d.problems, Located{Wrong(path, format, args...), position(n)})
}

// line gives the line of a key, or of the nearest one around it that is there.
func (d *decoder) line(path string) int {
	for path != "" {
		if n, ok := d.lines[path]; ok {
			return n
		}
		cut := max(strings.LastIndexByte(path, '.'), strings.LastIndexByte(path, '['))
		path = path[:max(0, cut)]
	}
	return 0
}

func position(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0
	}
	return n.GetToken().Position.Line
}

// Keys gives the fields of a struct by their yaml names, in order.
func keys(t reflect.Type) []reflect.StructField {
	var out []reflect.StructField
	for f := range t.Fields() {
		if f.IsExported() && f.Tag.Get("yaml") != "" && f.Tag.Get("yaml") != "-" {
			out = append(out, f)
		}
	}
	return out
}

func key(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

func inline(f reflect.StructField) bool { return strings.HasSuffix(f.Tag.Get("yaml"), ",inline") }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// defaults sets every field below v to what its default tag says.
func (d *decoder) defaults(v reflect.Value, path string) {
	if v.Kind() != reflect.Struct {
		return
	}
	for _, f := range keys(v.Type()) {
		field := v.FieldByIndex(f.Index)
		if field.Kind() == reflect.Struct {
			d.defaults(field, join(path, key(f)))
			continue
		}
		text, ok := f.Tag.Lookup("default")
		if !ok {
			continue
		}
		if err := setDefault(field, text); err != nil {
			panic(fmt.Sprintf("config: the default of %s: %v", join(path, key(f)), err)) // a mistake in the program, found by any test
		}
	}
}

func setDefault(v reflect.Value, text string) error {
	if v.Kind() == reflect.Slice {
		list := reflect.MakeSlice(v.Type(), 0, 4)
		for part := range strings.SplitSeq(text, ",") {
			e := reflect.New(v.Type().Elem()).Elem()
			if err := setScalar(e, strings.TrimSpace(part)); err != nil {
				return err
			}
			list = reflect.Append(list, e)
		}
		v.Set(list)
		return nil
	}
	return setScalar(v, text)
}

// value decodes n into v.
func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	d.lines[path] = position(n)
	if _, null := n.(*ast.NullNode); null {
		return // an empty key leaves the default
	}
	switch v.Kind() {
	case reflect.Struct:
		d.object(n, v, path)
	case reflect.Slice:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			d.wrong(n, path, "want a list (lines that begin with -)")
			return
		}
		list := reflect.MakeSlice(v.Type(), 0, len(seq.Values))
		for i, item := range seq.Values {
			e := reflect.New(v.Type().Elem()).Elem()
			at := fmt.Sprintf("%s[%d]", path, i)
			d.defaults(e, at)
			d.value(item, e, at)
			list = reflect.Append(list, e)
		}
		v.Set(list)
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		seen := map[string]int{}
		for _, entry := range d.entries(n, path) {
			e := reflect.New(v.Type().Elem()).Elem()
			name := entry.Key.GetToken().Value
			at := join(path, name)
			if line, twice := seen[name]; twice {
				d.wrong(entry, at, "stands twice, first on line %d", line)
				continue
			}
			seen[name] = position(entry.Key)
			d.value(entry.Value, e, at)
			d.lines[at] = position(entry.Key)
			m.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), e)
		}
		v.Set(m)
	default:
		text, ok := scalar(n)
		if !ok {
			d.wrong(n, path, "want %s", kindName(v))
			return
		}
		if err := setScalar(v, text); err != nil {
			d.wrong(n, path, "%v", err)
		}
	}
}

func (d *decoder) object(n ast.Node, v reflect.Value, path string) {
	fields := map[string]reflect.Value{}
	var names []string
	var collect func(reflect.Value)
	collect = func(v reflect.Value) {
		for _, f := range keys(v.Type()) {
			if inline(f) {
				collect(v.FieldByIndex(f.Index))
				continue
			}
			if section, name, ok := strings.Cut(key(f), "."); ok {
				at := join(path, section)
				d.guests[at] = append(d.guests[at], guest{name, v.FieldByIndex(f.Index)})
				continue
			}
			fields[key(f)] = v.FieldByIndex(f.Index)
			names = append(names, key(f))
		}
	}
	collect(v)
	for _, g := range d.guests[path] {
		fields[g.name] = g.field
		names = append(names, g.name)
	}
	seen := map[string]int{}
	for _, entry := range d.entries(n, path) {
		name := entry.Key.GetToken().Value
		at := join(path, name)
		if line, twice := seen[name]; twice {
			d.wrong(entry, at, "stands twice, first on line %d", line)
			continue
		}
		seen[name] = position(entry.Key)
		field, known := fields[name]
		if !known {
			d.wrong(entry.Key, at, "unknown key; known here: %s", strings.Join(names, ", "))
			continue
		}
		d.value(entry.Value, field, at)
		d.lines[at] = position(entry.Key)
	}
}

func (d *decoder) entries(n ast.Node, path string) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	default:
		d.wrong(n, path, "want keys and values")
		return nil
	}
}

// scalar gives the text of a plain, quoted or block scalar.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	default:
		return "", false
	}
}

func setScalar(v reflect.Value, text string) error {
	if v.Type() == reflect.TypeFor[time.Duration]() {
		t, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is no duration such as 30s, 5m or 1h30m", text)
		}
		if t < 0 {
			return fmt.Errorf("%q is negative", text)
		}
		v.SetInt(int64(t))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		switch text {
		case "true", "yes", "on":
			v.SetBool(true)
		case "false", "no", "off":
			v.SetBool(false)
		default:
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case reflect.Int, reflect.Int64, reflect.Int32:
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is no whole number", text)
		}
		v.SetInt(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is no number", text)
		}
		v.SetFloat(f)
	default:
		return fmt.Errorf("cannot be set from text (%s)", v.Type())
	}
	return nil
}

func kindName(v reflect.Value) string {
	if v.Type() == reflect.TypeFor[time.Duration]() {
		return "a duration such as 30s, 5m or 1h30m"
	}
	switch v.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "keys and values"
	default:
		return "a whole number"
	}
}
