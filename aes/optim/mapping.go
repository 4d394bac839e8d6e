package optim

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is read.
const (
	MaxBytes    = 32 << 20
	MaxMappings = 200_000
	maxLine     = 4096
	maxNumber   = 30 // digits of an extension or a number
	maxProblems = 100
)

// A Mapping is one line of the station mapping: a telephone that rings together with a
// station, or in its place.
type Mapping struct {
	Line        int    // of the input, from 1
	Extension   string // of the station: 0-9 * #
	Application string // in upper case, such as OPS (a SIP telephone) or EC500 (a mobile one)
	CountryCode string // digits; empty: none
	Number      string // digits, * and #; empty: none
	ConfigSet   string
	TrunkSelect string
	Mode        string // origination, termination, both, none
	Allowed     string // internal, external, all, none
}

// A column is a field of a Mapping.
type column uint8

const (
	noColumn column = iota
	colExtension
	colApplication
	colCountryCode
	colNumber
	colConfigSet
	colTrunkSelect
	colMode
	colAllowed
)

func (m *Mapping) field(c column) *string {
	switch c {
	case colExtension:
		return &m.Extension
	case colApplication:
		return &m.Application
	case colCountryCode:
		return &m.CountryCode
	case colNumber:
		return &m.Number
	case colConfigSet:
		return &m.ConfigSet
	case colTrunkSelect:
		return &m.TrunkSelect
	case colMode:
		return &m.Mode
	case colAllowed:
		return &m.Allowed
	}
	return nil
}

// columnOf knows a column by the words of its heading.
func columnOf(heading string) column {
	words := strings.FieldsFunc(strings.ToLower(heading), func(r rune) bool { return !unicode.IsLetter(r) })
	has := func(word string) bool { return slices.Contains(words, word) }
	switch {
	case has("cc"), has("country"), has("dial") && has("prefix"):
		return colCountryCode
	case has("phone"), has("telephone") && !has("station"), has("mobile"):
		return colNumber
	case has("appl"), has("application"):
		return colApplication
	case has("config"), has("configuration"), has("set"):
		return colConfigSet
	case has("trunk"):
		return colTrunkSelect
	case has("mapping"), has("mode"):
		return colMode
	case has("calls"), has("allowed"):
		return colAllowed
	case has("station"), has("extension"), has("ext"):
		return colExtension
	}
	return noColumn
}

// Read reads a whole mapping: the report of "list off-pbx-telephone station-mapping",
// or CSV with a heading, whose fields end at commas, semicolons or tabs. It reads MaxBytes
// and gives MaxMappings at most. What cannot be a mapping is told in problems, each with
// its line, the first hundred of them; err says why nothing can be read at all.
func Read(r io.Reader) (all []Mapping, problems []string, err error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	switch {
	case err != nil:
		return nil, nil, err
	case len(data) > MaxBytes:
		return nil, nil, fmt.Errorf("more than %d bytes is no station mapping", MaxBytes)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return nil, nil, errors.New("the file is no text in UTF-8 or ASCII: save the report as plain text")
	}
	in := &reading{}
	if separator, ok := csvSeparator(data); ok {
		err = in.csv(data, separator)
	} else {
		err = in.report(data)
	}
	if err != nil {
		return nil, nil, err
	}
	if in.unsaid > 0 {
		in.problems = append(in.problems, fmt.Sprintf("and %d more", in.unsaid))
	}
	return in.all, in.problems, nil
}

type reading struct {
	all      []Mapping
	problems []string
	unsaid   int
}

func (in *reading) problem(line int, format string, args ...any) {
	if len(in.problems) == maxProblems {
		in.unsaid++
		return
	}
	in.problems = append(in.problems, fmt.Sprintf("line %d: ", line)+fmt.Sprintf(format, args...))
}

// add checks a mapping, and brings it into the one form.
func (in *reading) add(m Mapping) error {
	if len(in.all) == MaxMappings {
		return fmt.Errorf("line %d: more than %d mappings", m.Line, MaxMappings)
	}
	// Extensions and numbers are shown with dashes, dots and blanks by some releases.
	plain := strings.NewReplacer("-", "", ".", "", " ", "", "(", "", ")", "")
	m.Extension, m.Number = plain.Replace(m.Extension), plain.Replace(m.Number)
	m.CountryCode = strings.TrimPrefix(plain.Replace(m.CountryCode), "+")
	m.Application = strings.ToUpper(m.Application)
	switch {
	case !dialable(m.Extension) || m.Extension == "":
		in.problem(m.Line, "%.40q is no extension", m.Extension)
	case m.Application == "":
		in.problem(m.Line, "extension %s has no application", m.Extension)
	case !word(m.Application):
		in.problem(m.Line, "%.40q is no application", m.Application)
	case !dialable(strings.TrimPrefix(m.Number, "+")):
		in.problem(m.Line, "%.40q is no number", m.Number)
	case !dialable(m.CountryCode) || len(m.CountryCode) > 4:
		in.problem(m.Line, "%.40q is no country code", m.CountryCode)
	default:
		if number, ok := strings.CutPrefix(m.Number, "+"); ok { // the country code stands in front already
			m.Number, m.CountryCode = number, ""
			if number != "" {
				m.Number = "+" + number
			}
		}
		in.all = append(in.all, m)
	}
	return nil
}

func dialable(s string) bool { return len(s) <= maxNumber && strings.Trim(s, "0123456789*#") == "" }

func word(s string) bool {
	return len(s) <= maxNumber && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_/&", r)
	})
}

// csvSeparator tells whether the first line that says anything is the heading of CSV.
func csvSeparator(data []byte) (rune, bool) {
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		for _, separator := range ",;\t" {
			if fields := strings.Split(string(line), string(separator)); len(fields) > 2 && slices.ContainsFunc(fields, func(f string) bool { return columnOf(f) == colExtension }) {
				return separator, true
			}
		}
		return 0, false
	}
	return 0, false
}

func (in *reading) csv(data []byte, separator rune) error {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comma, r.FieldsPerRecord, r.LazyQuotes, r.TrimLeadingSpace, r.ReuseRecord = separator, -1, true, separator != '\t', true
	var columns []column
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		line, _ := r.FieldPos(0)
		if columns == nil {
			for _, heading := range record {
				c := columnOf(heading)
				if slices.Contains(columns, c) {
					c = noColumn // the first one counts
				}
				columns = append(columns, c)
			}
			if !slices.Contains(columns, colExtension) || !slices.Contains(columns, colApplication) {
				return fmt.Errorf("line %d: the heading should name the columns Station Extension and Appl", line)
			}
			continue
		}
		m := Mapping{Line: line}
		for i, value := range record {
			if i < len(columns) && columns[i] != noColumn {
				*m.field(columns[i]) = strings.TrimSpace(value)
			}
		}
		if m == (Mapping{Line: line}) {
			continue
		}
		if err := in.add(m); err != nil {
			return err
		}
	}
	return nil
}

// A heading is where the columns of a report begin.
type heading struct {
	at  []int
	col []column
}

// report reads what the system access terminal shows: pages, each with a heading of two
// lines. A value belongs to the column whose heading begins nearest to it, because an
// empty column leaves only blanks.
func (in *reading) report(data []byte) error {
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(make([]byte, maxLine), maxLine)
	var head *heading
	last := "" // the extension of the line before
	for n := 1; s.Scan(); n++ {
		line := strings.ReplaceAll(strings.TrimRight(s.Text(), " \r\f"), "\t", " ")
		if h := headingOf(line); h != nil {
			head, last = h, ""
			continue
		}
		if head == nil || strings.TrimSpace(line) == "" || furniture(line) {
			continue
		}
		m := head.read(line)
		m.Line = n
		if m.Extension == "" && m.Application != "" {
			m.Extension = last // a further telephone of the same station
		}
		if err := in.add(m); err != nil {
			return err
		}
		last = m.Extension
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a line of more than %d bytes is none of a report", maxLine)
	}
	if head == nil {
		return errors.New("no station mapping is in the file: it should have the columns Station Extension, Appl, CC and Phone Number, as \"list off-pbx-telephone station-mapping\" shows them, or CSV with these in its first line")
	}
	return s.Err()
}

// headingOf reads the first line of a heading: Station Appl CC Phone Number Config ...
func headingOf(line string) *heading {
	h := &heading{}
	for _, w := range wordsOf(line) {
		c := columnOf(w.text)
		if c == noColumn || len(h.col) > 0 && h.col[len(h.col)-1] == c {
			continue // Number of Phone Number
		}
		h.at, h.col = append(h.at, w.at), append(h.col, c)
	}
	if !slices.Contains(h.col, colExtension) || !slices.Contains(h.col, colApplication) || !slices.Contains(h.col, colNumber) {
		return nil
	}
	return h
}

// furniture tells whether a line is part of the page around the mappings.
func furniture(line string) bool {
	lower := strings.ToLower(line)
	if c := columnOf(line); c != noColumn && !strings.ContainsAny(line, "0123456789") {
		return true // the second line of a heading, the title
	}
	for _, part := range []string{"page ", "off-pbx", "command", "press ", "---", "esc-x", "===="} {
		if strings.Contains(lower, part) {
			return true
		}
	}
	return false
}

type placed struct {
	at   int
	text string
}

// wordsOf gives the words of a line and where they begin.
func wordsOf(line string) []placed {
	var out []placed
	at := -1
	for i, r := range line + " " {
		switch {
		case r == ' ' && at >= 0:
			out = append(out, placed{at, line[at:i]})
			at = -1
		case r != ' ' && at < 0:
			at = i
		}
	}
	return out
}

func (h *heading) read(line string) Mapping {
	var m Mapping
	for _, w := range wordsOf(line) {
		best := 0
		for i := range h.at {
			if distance(h.at[i], w.at) < distance(h.at[best], w.at) {
				best = i
			}
		}
		f := m.field(h.col[best])
		*f = strings.TrimSpace(*f + " " + w.text)
	}
	m.ConfigSet = strings.TrimRight(m.ConfigSet, " /")
	return m
}

func distance(a, b int) int { return max(a-b, b-a) }
