package aggregator

import (
	"encoding"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"presenced/aggregator/presence"
)

// After a restart there may be millions of reports and states to decode, which
// takes encoding/json longer than all the rest. Nearly all of them stand exactly as
// it writes them, without an escape in a text: those are read here, by a scanner that
// expects each member in its place. Whatever else there is, is left to encoding/json;
// what both read is the same.

// unmarshalReport is json.Unmarshal for a report, which is empty before.
func unmarshalReport(data []byte, r *presence.Report) error {
	s := scanner{rest: string(data)}
	if s.report(r); !s.whole() {
		*r = presence.Report{}
		return json.Unmarshal(data, r)
	}
	return nil
}

// unmarshalState is json.Unmarshal for a state, which is empty before.
func unmarshalState(data []byte, state *presence.State) error {
	s := scanner{rest: string(data)}
	if s.state(state); !s.whole() {
		*state = presence.State{}
		return json.Unmarshal(data, state)
	}
	return nil
}

// A scanner takes values from the beginning of a text. After something that it does
// not expect it gives zeros.
type scanner struct {
	rest string
	lost bool
	buf  []byte
}

func (s *scanner) report(r *presence.Report) {
	s.expect(`{"source":`)
	r.Source = s.text()
	s.expect(`,"subject":{"scheme":`)
	r.Subject.Scheme = s.text()
	s.expect(`,"value":`)
	r.Subject.Value = s.text()
	s.expect(`},"at":`)
	s.decode(&r.At)
	if s.next(`,"doubted":`) {
		s.decode(&r.Doubted)
	}
	if s.next(`,"expires":`) {
		s.decode(&r.Expires)
	}
	if s.next(`,"grace":`) {
		r.Grace = time.Duration(s.number())
	}
	s.expect(`,"spans":`)
	if !s.next("null") {
		r.Spans = s.spans()
	}
	s.expect("}")
}

func (s *scanner) spans() []presence.Span {
	spans := []presence.Span{}
	s.expect("[")
	for more := !s.next("]"); more && !s.lost; more = !s.next("]") {
		if len(spans) > 0 {
			s.expect(",")
		}
		var span presence.Span
		s.expect(`{"fact":`)
		s.decode(&span.Fact)
		s.expect(`,"from":`)
		s.decode(&span.From)
		if s.next(`,"until":`) {
			s.decode(&span.Until)
		}
		if s.next(`,"contact":`) {
			span.Contact = s.text()
		}
		if s.next(`,"note":`) {
			span.Note = s.text()
		}
		span.Private = s.next(`,"private":true`)
		s.expect("}")
		spans = append(spans, span)
	}
	return spans
}

func (s *scanner) state(state *presence.State) {
	s.expect(`{"person":`)
	state.Person = presence.ID(s.text())
	s.expect(`,"availability":`)
	s.decode(&state.Availability)
	if s.next(`,"activity":`) {
		s.decode(&state.Activity)
	}
	s.expect(`,"class":`)
	state.Class = int(s.number())
	if s.next(`,"overlays":`) {
		s.decode(&state.Overlays)
	}
	s.expect(`,"channels":`)
	before := "[" // what stands before a channel
	for i := range state.Channels {
		c := &state.Channels[i]
		s.expect(before)
		before = ","
		s.expect(`{"state":`)
		s.decode(&c.State)
		if s.next(`,"contact":`) {
			c.Contact = s.text()
		}
		if s.next(`,"since":`) {
			s.decode(&c.Since)
		}
		if s.next(`,"until":`) {
			s.decode(&c.Until)
		}
		s.expect("}")
	}
	s.expect("]")
	if s.next(`,"since":`) {
		s.decode(&state.Since)
	}
	if s.next(`,"until":`) {
		s.decode(&state.Until)
	}
	s.expect(`,"why":{"rule":`)
	state.Why.Rule = s.text()
	s.expect(`,"title":`)
	state.Why.Title = s.text()
	if s.next(`,"source":`) {
		state.Why.Source = s.text()
	}
	if s.next(`,"fact":`) {
		state.Why.Fact = s.text()
	}
	if s.next(`,"from":`) {
		s.decode(&state.Why.From)
	}
	s.expect(`},"revision":`)
	state.Revision = uint64(s.number()) //nolint:gosec // a negative one is none that it reads
	s.expect("}")
}

// whole tells whether everything was read as expected.
func (s *scanner) whole() bool { return !s.lost && s.rest == "" }

// next takes text if it stands there.
func (s *scanner) next(text string) bool {
	rest, ok := strings.CutPrefix(s.rest, text)
	if ok {
		s.rest = rest
	}
	return ok
}

func (s *scanner) expect(text string) {
	if !s.next(text) {
		s.lost, s.rest = true, ""
	}
}

// text takes a text without escapes.
func (s *scanner) text() string {
	s.expect(`"`)
	text, rest, ok := strings.Cut(s.rest, `"`)
	for i := 0; ok && i < len(text); i++ {
		ok = text[i] >= ' ' && text[i] != '\\'
	}
	if s.lost || !ok || !utf8.ValidString(text) {
		s.lost, s.rest = true, ""
		return ""
	}
	s.rest = rest
	return text
}

func (s *scanner) decode(v encoding.TextUnmarshaler) {
	s.buf = append(s.buf[:0], s.text()...)
	if s.lost || v.UnmarshalText(s.buf) != nil {
		s.lost, s.rest = true, ""
	}
}

// number takes a whole number that is not negative.
func (s *scanner) number() int64 {
	end := 0
	for end < len(s.rest) && '0' <= s.rest[end] && s.rest[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(s.rest[:end], 10, 64)
	if err != nil || end > 1 && s.rest[0] == '0' {
		s.lost, s.rest = true, ""
		return 0
	}
	s.rest = s.rest[end:]
	return n
}
