package aggregator

import (
	"cmp"
	"encoding/binary"
	"math"
	"time"

	"presenced/aggregator/presence"
)

// Packed is the ID of a person and the reports about them, one after the other, in
// few bytes: a core holds millions of them, and looks at each rarely. It is never
// written to a disk. As a string it does not change, so that the texts in it can be
// handed out as they are.
//
// Numbers have as many bytes as they need, and times count from that of the
// report. What is unpacked equals what was packed, with all times in UTC.
type packed string

// Bits beside the fact of a span.
const (
	packedFact    = 1<<6 - 1
	packedPrivate = 1 << 6
	packedOwn     = 1 << 7 // the contact is the subject of the report
	packedContact = 1 << 8 // the contact follows
	packedNote    = 1 << 9 // the note follows
)

// packedPerson is that of a person of whom nothing was said.
func packedPerson(id presence.ID) packed { return packed(appendText(nil, string(id))) }

// id gives who it is about.
func (p packed) id() presence.ID {
	u := unpacker{text: string(p)}
	return presence.ID(u.string())
}

// appendReport packs one more report.
func appendReport(b []byte, r *presence.Report) []byte {
	var buf [512]byte
	body := appendText(buf[:0], r.Source)
	body = binary.AppendUvarint(body, uint64(len(r.Subject.Scheme)))
	body = binary.AppendUvarint(body, uint64(len(r.Subject.Scheme)+len(":")+len(r.Subject.Value)))
	subject := len(body)
	body = append(append(append(body, r.Subject.Scheme...), ':'), r.Subject.Value...)
	end := len(body)
	body = appendTime(body, r.At, 0)
	base := secondsOf(r.At)
	body = appendTime(body, r.Doubted, base)
	body = appendTime(body, r.Expires, base)
	body = binary.AppendVarint(body, int64(r.Grace))
	body = binary.AppendUvarint(body, uint64(len(r.Spans)))
	for i := range r.Spans {
		s := &r.Spans[i]
		head := uint64(s.Fact)
		if s.Private {
			head |= packedPrivate
		}
		switch s.Contact {
		case "":
		case string(body[subject:end]):
			head |= packedOwn
		default:
			head |= packedContact
		}
		if s.Note != "" {
			head |= packedNote
		}
		body = binary.AppendUvarint(body, head)
		body = appendTime(body, s.From, base)
		body = appendTime(body, s.Until, base)
		if head&packedContact != 0 {
			body = appendText(body, s.Contact)
		}
		if head&packedNote != 0 {
			body = appendText(body, s.Note)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// appendTime packs t: zero for the zero time, else one more than the seconds since
// base, with a last bit that tells whether nanoseconds follow.
func appendTime(b []byte, t time.Time, base int64) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	since := t.Unix() - base
	v := uint64(since<<1^since>>63) << 1 //nolint:gosec // zigzag
	n := t.Nanosecond()
	if n == 0 {
		return binary.AppendUvarint(b, v+1)
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, (v|1)+1), uint64(n)) //nolint:gosec // not negative
}

func secondsOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// cut gives what is before and after the report with number i.
func (p packed) cut(i int) (before, after packed) {
	u := unpacker{text: string(p)}
	u.skip() // the ID
	for range i {
		u.skip()
	}
	start := u.at
	u.skip()
	return p[:start], p[u.at:]
}

// unpack appends the reports to reports, and their spans to spans.
func (p packed) unpack(reports []presence.Report, spans []presence.Span) ([]presence.Report, []presence.Span) {
	u := unpacker{text: string(p)}
	u.skip() // the ID
	for u.at < len(p) {
		var r presence.Report
		u.number() // the length
		r.Source = u.string()
		scheme := int(u.number()) //nolint:gosec // written by appendReport
		subject := u.string()
		r.Subject = presence.Subject{Scheme: subject[:scheme], Value: subject[scheme+1:]}
		u.base = 0
		r.At = u.time()
		u.base = secondsOf(r.At)
		r.Doubted = u.time()
		r.Expires = u.time()
		r.Grace = time.Duration(unzigzag(u.number()))
		first := len(spans)
		for range u.number() {
			head := u.number()
			s := presence.Span{Fact: presence.Fact(head & packedFact), Private: head&packedPrivate != 0, From: u.time(), Until: u.time()}
			if head&packedOwn != 0 {
				s.Contact = subject
			}
			if head&packedContact != 0 {
				s.Contact = u.string()
			}
			if head&packedNote != 0 {
				s.Note = u.string()
			}
			spans = append(spans, s)
		}
		r.Spans = spans[first:len(spans):len(spans)]
		reports = append(reports, r)
	}
	return reports, spans
}

// An unpacker reads what appendReport wrote.
type unpacker struct {
	text string
	at   int
	base int64 // the second from which times count
}

func (u *unpacker) number() uint64 {
	if b := u.text[u.at]; b < 0x80 { // as most are
		u.at++
		return uint64(b)
	}
	return u.long()
}

func (u *unpacker) long() uint64 {
	var v uint64
	for shift := 0; ; shift += 7 {
		b := u.text[u.at]
		u.at++
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) } //nolint:gosec // the inverse of zigzag

func (u *unpacker) string() string {
	n := int(u.number()) //nolint:gosec // written by appendText
	u.at += n
	return u.text[u.at-n : u.at]
}

func (u *unpacker) time() time.Time {
	v := u.number()
	if v == 0 {
		return time.Time{}
	}
	v--
	var n uint64
	if v&1 != 0 {
		n = u.number()
	}
	return time.Unix(u.base+unzigzag(v>>1), int64(n)).UTC() //nolint:gosec // less than a second
}

// skip goes on behind a report or a text.
func (u *unpacker) skip() {
	n := int(u.number()) //nolint:gosec // written by appendReport
	u.at += n
}

// An instant is a time in nanoseconds since 1970; zero is the zero time. It reaches
// from 1678 to 2262: what is beyond is taken for the end of that.
type instant int64

func instantOf(t time.Time) instant {
	const last = math.MaxInt64/int64(time.Second) - 1
	switch s := t.Unix(); {
	case t.IsZero():
		return 0
	case s < -last:
		return math.MinInt64
	case s > last:
		return math.MaxInt64
	default:
		return cmp.Or(instant(t.UnixNano()), 1) // zero is taken; the next one does as well
	}
}

func (i instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i)).UTC()
}
