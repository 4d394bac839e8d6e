package ews

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"presenced/internal/zones"
)

// Bounds of an answer.
const (
	maxAnswer = 32 << 20 // bytes
	maxDepth  = 64       // nested elements
	maxEvents = 10_000   // of one mailbox
)

// readAnswer reads one SOAP envelope whose body holds an element with the local
// name want, and decodes that into answer. Prefixes and namespaces do not
// matter: they differ between versions of the server.
//
// A fault gives the error it means, an answer that is no such thing a
// *Malformed, and one that ends early io.ErrUnexpectedEOF.
func readAnswer(r io.Reader, want, request string, answer any) error {
	src := &bounded{r: r, left: maxAnswer}
	raw := xml.NewDecoder(newStripper(src))
	d := xml.NewTokenDecoder(&shallow{in: raw})
	err := readEnvelope(d, want, request, answer)
	var syntax *xml.SyntaxError
	switch {
	case src.err != nil: // what the reader says is nearer to the cause
		return src.err
	case errors.As(err, &syntax) && syntax.Msg == "unexpected EOF", errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case errors.As(err, &syntax):
		return &Malformed{Reason: fmt.Sprintf("no well-formed XML in line %d", syntax.Line)}
	case err == nil || isTyped(err):
		return err
	default: // a number that is none, and the like; the text might quote the answer
		return &Malformed{Reason: "a value is not of its type"}
	}
}

// isTyped tells whether err says already what it means.
func isTyped(err error) bool {
	switch err.(type) { //nolint:errorlint // they come as they were made
	case *Throttled, *Unauthorized, *ConfigError, *Outage, *Fault, *Malformed:
		return true
	}
	return false
}

func readEnvelope(d *xml.Decoder, want, request string, answer any) error {
	for _, name := range []string{"Envelope", "Body"} {
		if err := enter(d, name); err != nil {
			return err
		}
	}
	start, err := nextStart(d)
	if err != nil {
		return err
	}
	var outcome error
	switch start.Name.Local {
	case want:
		err = d.DecodeElement(answer, &start)
	case "Fault":
		var fault struct {
			Code   string  `xml:"faultcode"`
			Detail failure `xml:"detail"`
		}
		err = d.DecodeElement(&fault, &start)
		if fault.Detail.Code == "" { // some give it there only: a:ErrorServerBusy
			_, code, found := strings.Cut(fault.Code, ":")
			if !found {
				code = fault.Code
			}
			fault.Detail.Code = code
		}
		fault.Detail.Code = codeText(fault.Detail.Code)
		outcome = fault.Detail.err(request)
	default:
		return &Malformed{Reason: "the body is no " + want}
	}
	if err != nil {
		return err
	}
	for { // the envelope has to end, else the answer is cut off
		if _, err := d.Token(); err != nil {
			if errors.Is(err, io.EOF) {
				return outcome
			}
			return err
		}
	}
}

// enter skips to the child element of that name and steps into it.
func enter(d *xml.Decoder, name string) error {
	for {
		start, err := nextStart(d)
		if err != nil {
			return err
		}
		if start.Name.Local == name {
			return nil
		}
		if name == "Envelope" {
			return &Malformed{Reason: "no SOAP envelope"}
		}
		if err := d.Skip(); err != nil {
			return err
		}
	}
}

// nextStart gives the next element that starts, and an error where the one around it ends first.
func nextStart(d *xml.Decoder) (xml.StartElement, error) {
	for {
		t, err := d.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			return t, nil
		case xml.EndElement:
			return xml.StartElement{}, &Malformed{Reason: "an empty " + t.Name.Local}
		}
	}
}

// bounded ends in an error after so many bytes, and keeps any error but the end.
type bounded struct {
	r    io.Reader
	left int64
	err  error
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	switch {
	case b.left < 0:
		b.err = &Malformed{Reason: fmt.Sprintf("longer than %d bytes", maxAnswer)}
		return 0, b.err
	case err != nil && !errors.Is(err, io.EOF):
		b.err = err
	}
	return n, err
}

// shallow refuses deep nesting and document types.
type shallow struct {
	in    *xml.Decoder
	depth int
}

func (s *shallow) Token() (xml.Token, error) {
	t, err := s.in.RawToken()
	switch t.(type) {
	case xml.StartElement:
		if s.depth++; s.depth > maxDepth {
			return nil, &Malformed{Reason: fmt.Sprintf("nested deeper than %d", maxDepth)}
		}
	case xml.EndElement:
		s.depth--
	case xml.Directive:
		return nil, &Malformed{Reason: "it has a document type"}
	}
	return t, err
}

// codeText makes sure that a response code is a word: codes stand in logs and on pages.
func codeText(code string) string {
	code = strings.TrimSpace(code)
	if code == "" || len(code) > 80 {
		return "ErrorUnnamed"
	}
	for _, c := range []byte(code) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return "ErrorUnnamed"
		}
	}
	return code
}

// parseTime reads a time as servers write it: naive, which is UTC because the
// request asked for that zone, or with an offset or Z; with or without a
// fraction. Years that no calendar of today has are not accepted.
func parseTime(text string) (time.Time, bool) {
	text = strings.TrimSpace(text)
	if len(text) > 40 {
		return time.Time{}, false
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z0700"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), at.Year() >= 1900 && at.Year() < 2200
		}
	}
	return time.Time{}, false
}

// A number is one that may be wrong without spoiling the answer it is in: it is
// then out of every range.
type number int

const noNumber = number(math.MinInt32)

// UnmarshalText never fails.
func (n *number) UnmarshalText(text []byte) error {
	v, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
	*n = number(v)
	if err != nil {
		*n = noNumber
	}
	return nil
}

// isTrue reads an xs:boolean; anything else is false.
func isTrue(text string) bool {
	text = strings.TrimSpace(text)
	return text == "true" || text == "1"
}

// serializableZone is t:SerializableTimeZone.
type serializableZone struct {
	Bias     number
	Standard serializableTransition `xml:"StandardTime"`
	Daylight serializableTransition `xml:"DaylightTime"`
}

type serializableTransition struct {
	Bias      number
	Time      string
	DayOrder  number
	Month     number
	DayOfWeek string
	Year      string
}

// rules turns the biases round: UTC = local + Bias + the Bias of the part of the year.
func (z *serializableZone) rules() (zones.Rules, bool) {
	const day = 24 * 60
	if z.Bias < -day || z.Bias > day {
		return zones.Rules{}, false
	}
	standard, ok1 := z.Standard.transition(z.Bias)
	daylight, ok2 := z.Daylight.transition(z.Bias)
	r := zones.Rules{Standard: standard, Daylight: daylight}
	return r, ok1 && ok2 && r.Check() == nil
}

func (t *serializableTransition) transition(bias number) (zones.Transition, bool) {
	const day = 24 * 60
	if t.Bias < -day || t.Bias > day || t.Month < 0 || t.Month > 12 {
		return zones.Transition{}, false
	}
	out := zones.Transition{Offset: -time.Duration(bias+t.Bias) * time.Minute}
	if t.Month == 0 {
		return out, true
	}
	weekday, ok := weekdays(t.DayOfWeek).only()
	if !ok {
		return out, false
	}
	clock, err := time.Parse("15:04:05", strings.TrimSpace(t.Time))
	if err != nil {
		return out, false
	}
	out.Month, out.Week, out.Weekday = time.Month(t.Month), int(t.DayOrder), weekday
	out.TimeOfDay = time.Duration(clock.Hour())*time.Hour + time.Duration(clock.Minute())*time.Minute +
		time.Duration(clock.Second())*time.Second + time.Duration(clock.Nanosecond())
	if year := strings.TrimSpace(t.Year); year != "" && year != "0" {
		at, err := time.Parse("2006", year)
		if err != nil {
			return out, false
		}
		out.Year = at.Year()
	}
	return out, true
}

// Weekdays is a set of days of the week; bit 0 is Sunday.
type Weekdays uint8

// Has tells whether d is in the set.
func (w Weekdays) Has(d time.Weekday) bool { return w&(1<<d) != 0 }

// only gives the one member.
func (w Weekdays) only() (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if w == 1<<d {
			return d, true
		}
	}
	return 0, false
}

// weekdays reads a list of t:DayOfWeekType; names that it does not have are passed over.
func weekdays(list string) Weekdays {
	const all, weekend = Weekdays(1<<7 - 1), Weekdays(1<<time.Sunday | 1<<time.Saturday)
	var days Weekdays
	for name := range strings.FieldsSeq(list) {
		switch name {
		case "Day":
			days |= all
		case "Weekday":
			days |= all &^ weekend
		case "WeekendDay":
			days |= weekend
		default:
			for d := time.Sunday; d <= time.Saturday; d++ {
				if d.String() == name {
					days |= 1 << d
				}
			}
		}
	}
	return days
}
