package aggregator

import (
	"cmp"
	"encoding/binary"
	"math"
	"strings"
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
	packedOwn     = 1 << 7  // the contact is the subject of the report
	packedContact = 1 << 8  // the contact follows
	packedNote    = 1 << 9  // the note follows
	packedAt      = 1 << 10 // it is from the time of the report on
)

// packedPerson is that of a person of whom nothing was said.
func packedPerson(id presence.ID) packed { return packed(appendText(nil, string(id))) }

// id gives who it is about.
func (p packed) id() presence.ID {
	u := unpacker{text: string(p)}
	return presence.ID(u.string())
}

// A packing packs and unpacks reports. The first sources that it hears of have a number
// in it, which stands for the name; there are few, as each is a part of the configuration.
type packing struct {
	sources []string
	numbers map[string]byte
}

// mostSources are as many as have a number.
const mostSources = 255

// append packs one more report; before are those that stand before it.
func (k *packing) append(b []byte, before []presence.Report, r *presence.Report) []byte {
	b = k.appendSource(b, r.Source)
	if n := len(before); n > 0 && r.Subject == before[n-1].Subject {
		b = append(b, 0)
	} else {
		b = binary.AppendUvarint(b, uint64(len(":")+len(r.Subject.Scheme)))
		b = binary.AppendUvarint(b, uint64(len(r.Subject.Scheme)+len(":")+len(r.Subject.Value)))
		b = append(append(append(b, r.Subject.Scheme...), ':'), r.Subject.Value...)
	}
	return appendSaid(b, r)
}

// appendSource packs the number of a source, or zero and its name.
func (k *packing) appendSource(b []byte, source string) []byte {
	n := k.numbers[source]
	if n == 0 && len(k.sources) < mostSources {
		source = strings.Clone(source)
		k.sources = append(k.sources, source)
		n = byte(len(k.sources)) //nolint:gosec // at most mostSources
		k.numbers[source] = n
	}
	if n == 0 {
		return appendText(append(b, 0), source)
	}
	return binary.AppendUvarint(b, uint64(n))
}

// appendSaid packs what a report says: all but its source and subject.
func appendSaid(b []byte, r *presence.Report) []byte {
	var buf [512]byte
	body := appendTime(buf[:0], r.At, 0)
	base := secondsOf(r.At)
	body = appendTime(body, r.Doubted, base)
	body = appendTime(body, r.Expires, base)
	body = appendDuration(body, r.Grace)
	body = binary.AppendUvarint(body, uint64(len(r.Spans)))
	for i := range r.Spans {
		s := &r.Spans[i]
		head := uint64(s.Fact)
		if s.Private {
			head |= packedPrivate
		}
		switch {
		case s.Contact == "":
		case isOf(s.Contact, &r.Subject):
			head |= packedOwn
		default:
			head |= packedContact
		}
		if s.Note != "" {
			head |= packedNote
		}
		if s.From.Equal(r.At) {
			head |= packedAt
		}
		body = binary.AppendUvarint(body, head)
		if head&packedAt == 0 {
			body = appendTime(body, s.From, base)
		}
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

// isOf tells whether a contact is the subject.
func isOf(contact string, s *presence.Subject) bool {
	n := len(s.Scheme)
	return len(contact) == n+len(":")+len(s.Value) && contact[:n] == s.Scheme && contact[n] == ':' && contact[n+1:] == s.Value
}

// appendDuration packs d: twice the seconds, or twice the nanoseconds and one more.
func appendDuration(b []byte, d time.Duration) []byte {
	if d%time.Second == 0 {
		return binary.AppendUvarint(b, zigzag(int64(d/time.Second))<<1)
	}
	return binary.AppendUvarint(append(b, 1), zigzag(int64(d)))
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
	v := zigzag(since) << 1
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

// cut gives what is before and after what the report with number i says.
func (p packed) cut(i int) (before, after packed) {
	u := unpacker{text: string(p)}
	u.skip() // the ID
	for range i {
		u.head()
		u.skip()
	}
	u.head()
	start := u.at
	u.skip()
	return p[:start], p[u.at:]
}

// unpack appends the reports to reports, and their spans to spans.
func (k *packing) unpack(p packed, reports []presence.Report, spans []presence.Span) ([]presence.Report, []presence.Span) {
	u := unpacker{text: string(p)}
	u.skip() // the ID
	scheme, subject := 0, ""
	for u.at < len(p) {
		var r presence.Report
		if n := u.number(); n > 0 {
			r.Source = k.sources[n-1]
		} else {
			r.Source = u.string()
		}
		if n := u.number(); n > 0 {
			scheme, subject = int(n)-1, u.string() //nolint:gosec // written by append
		}
		r.Subject = presence.Subject{Scheme: subject[:scheme], Value: subject[scheme+1:]}
		u.number() // the length
		u.base = 0
		r.At = u.time()
		u.base = secondsOf(r.At)
		r.Doubted = u.time()
		r.Expires = u.time()
		r.Grace = u.duration()
		first := len(spans)
		for range u.number() {
			head := u.number()
			s := presence.Span{Fact: presence.Fact(head & packedFact), Private: head&packedPrivate != 0, From: r.At}
			if head&packedAt == 0 {
				s.From = u.time()
			}
			s.Until = u.time()
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

func zigzag(v int64) uint64 { return uint64(v<<1 ^ v>>63) } //nolint:gosec // not to lose the sign

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

// head goes on to what a report says.
func (u *unpacker) head() {
	if u.number() == 0 { // a source without a number
		u.skip()
	}
	if u.number() > 0 { // not the subject of the report before
		u.skip()
	}
}

func (u *unpacker) duration() time.Duration {
	v := u.number()
	if v&1 == 0 {
		return time.Duration(unzigzag(v>>1)) * time.Second
	}
	return time.Duration(unzigzag(u.number()))
}

// skip goes on behind a text, or behind what a report says.
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
