package wire

import (
	"bytes"
	"iter"
	"math"
)

// What a message may be at most.
const (
	maxMessage = 65535 // bytes, RFC 3261 section 18.1.1
	maxFields  = 128   // header fields
	maxField   = 8192  // bytes of one header field, unfolded
)

// A Name is a header field that the package knows, in its long and its compact form.
type Name uint8

// The header fields that matter to presence.
const (
	Unknown Name = iota // any other; ask Message.Named
	Accept
	AllowEvents
	Authorization
	CallID
	Contact
	ContentEncoding
	ContentLength
	ContentType
	CSeq
	Event
	Expires
	From
	MaxForwards
	MinExpires
	ProxyAuthenticate
	ProxyAuthorization
	RecordRoute
	Require
	RetryAfter
	Route
	SIPETag
	SIPIfMatch
	SubscriptionState
	Supported
	SuppressIfMatch
	To
	UserAgent
	Via
	WWWAuthenticate
	names // how many there are
)

// single has the fields that may stand in a message once only.
const single = 1<<CallID | 1<<ContentLength | 1<<ContentType | 1<<CSeq | 1<<Event | 1<<Expires | 1<<From | 1<<MaxForwards | 1<<SubscriptionState | 1<<To

// nameOf knows a name in any case.
func nameOf(b []byte) Name {
	var lower [20]byte
	if len(b) > len(lower) {
		return Unknown
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	switch string(lower[:len(b)]) {
	case "accept":
		return Accept
	case "allow-events", "u":
		return AllowEvents
	case "authorization":
		return Authorization
	case "call-id", "i":
		return CallID
	case "contact", "m":
		return Contact
	case "content-encoding", "e":
		return ContentEncoding
	case "content-length", "l":
		return ContentLength
	case "content-type", "c":
		return ContentType
	case "cseq":
		return CSeq
	case "event", "o":
		return Event
	case "expires":
		return Expires
	case "from", "f":
		return From
	case "max-forwards":
		return MaxForwards
	case "min-expires":
		return MinExpires
	case "proxy-authenticate":
		return ProxyAuthenticate
	case "proxy-authorization":
		return ProxyAuthorization
	case "record-route":
		return RecordRoute
	case "require":
		return Require
	case "retry-after":
		return RetryAfter
	case "route":
		return Route
	case "sip-etag":
		return SIPETag
	case "sip-if-match":
		return SIPIfMatch
	case "subscription-state":
		return SubscriptionState
	case "supported", "k":
		return Supported
	case "suppress-if-match":
		return SuppressIfMatch
	case "to", "t":
		return To
	case "user-agent":
		return UserAgent
	case "via", "v":
		return Via
	case "www-authenticate":
		return WWWAuthenticate
	}
	return Unknown
}

// A span is a part of the message: raw[at:end].
type span struct{ at, end uint16 }

type field struct {
	label, value span
	name         Name
}

// A fault is why a request is refused; the zero value says that it is not.
type fault struct {
	code   int
	reason string
}

// A Message is a request or an answer. What its methods give are parts of the
// received bytes: they must not be changed, they end with the handler or callback
// that got the message, and must be copied if they are to be kept.
type Message struct {
	raw    []byte
	fields []field
	first  [names]uint8 // index in fields, plus 1

	method       string // empty for an answer
	uri, reason  span
	code         int
	body         span
	number       uint32 // of CSeq
	numberMethod span
	via          via
	from, to     Address // as worker.request found them
	fault        fault
}

// via is the topmost Via.
type via struct {
	whole, protocol, sentBy, branch span
	port                            uint16 // 5060 where sent-by has none
	rport                           bool
}

// Method gives the method of a request, and the empty string for an answer.
func (m *Message) Method() string { return m.method }

// URI gives the Request-URI.
func (m *Message) URI() []byte { return m.part(m.uri) }

// Code gives the status code of an answer, 0 for a request.
func (m *Message) Code() int { return m.code }

// Reason gives the reason phrase of an answer.
func (m *Message) Reason() []byte { return m.part(m.reason) }

// Body gives the body, empty if there is none.
func (m *Message) Body() []byte { return m.part(m.body) }

// CSeq gives the number of CSeq.
func (m *Message) CSeq() uint32 { return m.number }

// CallID gives the Call-ID.
func (m *Message) CallID() []byte { return m.Header(CallID) }

// Has tells whether the field stands in the message.
func (m *Message) Has(n Name) bool { return m.first[n] != 0 }

// Header gives the value of the first field of that name, without the white space
// around it; nil if there is none.
func (m *Message) Header(n Name) []byte {
	i := m.first[n]
	if i == 0 {
		return nil
	}
	return m.part(m.fields[i-1].value)
}

// Headers gives the value of each field of that name as it stands. It is for
// fields whose values hold commas of their own, such as Authorization.
func (m *Message) Headers(n Name) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if m.first[n] == 0 {
			return
		}
		for _, f := range m.fields[m.first[n]-1:] {
			if f.name == n && !yield(m.part(f.value)) {
				return
			}
		}
	}
}

// List gives each element of all fields of that name, such as every media type of
// Accept or every address of Contact.
func (m *Message) List(n Name) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for v := range m.Headers(n) {
			for len(v) > 0 {
				var element []byte
				element, v = cut(v, ',')
				if element = trim(element); len(element) > 0 && !yield(element) {
					return
				}
			}
		}
	}
}

// Named gives the value of the first field of a name that has no constant here,
// in any case.
func (m *Message) Named(name string) []byte {
	for _, f := range m.fields {
		if f.name == Unknown && equalFold(m.part(f.label), name) {
			return m.part(f.value)
		}
	}
	return nil
}

// Seconds gives the number at the start of the field, such as that of Expires;
// what is larger than the type counts as the largest. It is false where there is no number.
func (m *Message) Seconds(n Name) (uint32, bool) {
	v := m.Header(n)
	digits := 0
	for digits < len(v) && '0' <= v[digits] && v[digits] <= '9' {
		digits++
	}
	if digits == 0 {
		return 0, false
	}
	seconds, ok := number(v[:digits])
	if !ok {
		seconds = math.MaxUint32
	}
	return seconds, true
}

// From gives who sends; valid requests have one.
func (m *Message) From() Address { return m.address(From, &m.from) }

// To gives whom it is sent to; valid requests have one.
func (m *Message) To() Address { return m.address(To, &m.to) }

// address gives what was read before, or reads it now.
func (m *Message) address(n Name, read *Address) Address {
	if read.URI != nil {
		return *read
	}
	a, _ := ParseAddress(m.Header(n))
	return a
}

// Event gives the event package and its parameters (RFC 6665).
func (m *Message) Event() ([]byte, Params) { return Value(m.Header(Event)) }

func (m *Message) part(s span) []byte { return m.raw[s.at:s.end] }

// within gives the span of b, which is nil or was cut from raw without limiting its capacity.
func (m *Message) within(b []byte) span {
	if b == nil {
		return span{}
	}
	at := cap(m.raw) - cap(b)
	return span{uint16(at), uint16(at + len(b))} //nolint:gosec // at most maxMessage
}

// refuse notes what is wrong first.
func (m *Message) refuse(code int, reason string) {
	if m.fault.code == 0 {
		m.fault = fault{code, reason}
	}
}

// parse reads raw, which it may change (folded lines become one). It is false
// where raw is no SIP at all; where it is, but is not right, fault says so, and
// what could be read can be asked for.
func (m *Message) parse(raw []byte) bool {
	fields := m.fields[:0]
	*m = Message{raw: raw, fields: fields}
	if len(raw) == 0 || len(raw) > maxMessage {
		return false
	}
	end := bytes.IndexByte(raw, '\n')
	if end < 0 || !m.startLine(chomp(raw[:end])) {
		return false
	}
	rest := m.headers(raw[end+1:])
	m.measure(rest)
	for _, n := range [...]Name{Via, From, To, CallID, CSeq} {
		if m.first[n] == 0 {
			m.refuse(400, "Missing Header Field")
		}
	}
	if m.Has(Via) && !m.parseVia() {
		m.refuse(400, "Malformed Via")
	}
	if m.Has(CSeq) && !m.parseCSeq() {
		m.refuse(400, "Malformed CSeq")
	}
	return true
}

func (m *Message) startLine(line []byte) bool {
	if rest, ok := bytes.CutPrefix(line, []byte("SIP/2.0 ")); ok {
		code, reason, _ := bytes.Cut(rest, []byte{' '})
		n, ok := number(code)
		if !ok || len(code) != 3 || n < 100 || n > 699 {
			return false
		}
		m.code, m.reason = int(n), m.within(reason)
		return true
	}
	method, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok || !isToken(method) {
		return false
	}
	m.method = methodOf(method)
	space := bytes.LastIndexByte(rest, ' ')
	if space < 0 {
		m.refuse(400, "Malformed Request Line")
		return true
	}
	uri, version := rest[:space], rest[space+1:]
	m.uri = m.within(uri)
	switch {
	case !equalFold(version, "SIP/2.0") && len(version) > 4 && equalFold(version[:4], "SIP/"):
		m.refuse(505, "Version Not Supported")
	case !equalFold(version, "SIP/2.0"):
		m.refuse(400, "Malformed Request Line")
	default:
		m.checkURI(uri)
	}
	return true
}

func methodOf(b []byte) string {
	for _, known := range [...]string{"PUBLISH", "SUBSCRIBE", "NOTIFY", "OPTIONS", "REGISTER", "MESSAGE", "INVITE", "ACK", "BYE", "CANCEL"} {
		if string(b) == known {
			return known
		}
	}
	return string(b)
}

func (m *Message) checkURI(uri []byte) {
	scheme, rest, ok := bytes.Cut(uri, []byte{':'})
	if !ok || !isScheme(scheme) || bytes.ContainsAny(uri, " \t<>\"") || len(rest) == 0 {
		m.refuse(400, "Malformed Request-URI")
		return
	}
	if !equalFold(scheme, "sip") && !equalFold(scheme, "sips") {
		m.refuse(416, "Unsupported URI Scheme")
		return
	}
	host := rest[bytes.LastIndexByte(rest, '@')+1:]
	if len(host) == 0 || host[0] == ';' || bytes.IndexByte(host, '?') >= 0 { // headers have no place in a Request-URI
		m.refuse(400, "Malformed Request-URI")
	}
}

// headers reads the fields and gives what follows the empty line.
func (m *Message) headers(rest []byte) []byte {
	for {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			m.refuse(400, "Headers Without End")
			return rest[len(rest):]
		}
		line := chomp(rest[:end])
		next := rest[end+1:]
		switch {
		case len(line) == 0:
			return next
		case bytes.IndexByte(line, '\r') >= 0:
			m.refuse(400, "Malformed Header Field")
		case line[0] == ' ' || line[0] == '\t':
			m.unfold(line)
		default:
			m.field(line)
		}
		rest = next
	}
}

// unfold joins line, which begins with white space, to the field before it.
func (m *Message) unfold(line []byte) {
	if len(m.fields) == 0 {
		m.refuse(400, "Malformed Header Field")
		return
	}
	f := &m.fields[len(m.fields)-1]
	here := m.within(line)
	end := here.at + uint16(len(bytes.TrimRight(line, " \t"))) //nolint:gosec // at most maxMessage
	if end == here.at {                                        // only white space
		return
	}
	if int(end-f.label.at) > maxField {
		m.refuse(513, "Message Too Large")
		return
	}
	if f.value.at == f.value.end { // nothing was on the line of the name
		f.value.at = here.at + uint16(len(line)-len(bytes.TrimLeft(line, " \t"))) //nolint:gosec // at most maxMessage
	} else {
		gap := m.raw[f.value.end:here.at]
		for i := range gap {
			gap[i] = ' '
		}
	}
	f.value.end = end
}

func (m *Message) field(line []byte) {
	label, value, ok := bytes.Cut(line, []byte{':'})
	label = trim(label) // no white space is before it
	if !ok || !isToken(label) {
		m.refuse(400, "Malformed Header Field")
		return
	}
	if len(m.fields) == maxFields || len(line) > maxField {
		m.refuse(513, "Message Too Large")
		return
	}
	name := nameOf(label)
	m.fields = append(m.fields, field{m.within(label), m.within(trim(value)), name})
	switch {
	case name == Unknown:
	case m.first[name] == 0:
		m.first[name] = uint8(len(m.fields)) //nolint:gosec // at most maxFields
	case single>>name&1 != 0:
		m.refuse(400, "Repeated Header Field")
	}
}

// measure finds the body in what follows the headers.
func (m *Message) measure(rest []byte) {
	if m.Has(ContentLength) {
		n, ok := number(m.Header(ContentLength))
		if !ok || int(n) > len(rest) {
			m.refuse(400, "Content-Length Does Not Fit")
			return
		}
		rest = rest[:n]
	}
	if len(rest) > 0 {
		m.body = m.within(rest)
	}
}

func (m *Message) parseCSeq() bool {
	digits, method, _ := bytes.Cut(m.Header(CSeq), []byte{' '})
	n, ok := number(digits)
	method = trim(method)
	if !ok || n > math.MaxInt32 || !isToken(method) {
		return false
	}
	m.number, m.numberMethod = n, m.within(method)
	return true
}

// parseVia reads the topmost Via: "SIP / 2.0 / UDP host:port ; parameters".
func (m *Message) parseVia() bool {
	whole, _ := cut(m.Header(Via), ',')
	whole = trim(whole)
	head, params := cut(whole, ';')
	name, rest, ok := bytes.Cut(head, []byte{'/'})
	if !ok || !equalFold(trim(name), "SIP") {
		return false
	}
	version, rest, ok := bytes.Cut(rest, []byte{'/'})
	if !ok || string(trim(version)) != "2.0" {
		return false
	}
	rest = trim(rest)
	space := bytes.IndexAny(rest, " \t")
	if space < 0 {
		return false
	}
	transport, sentBy := rest[:space], trim(rest[space:])
	port, ok := portOf(sentBy)
	if !ok || !isToken(transport) {
		return false
	}
	protocol := head[:len(head)-len(rest)+space]
	m.via = via{whole: m.within(whole), protocol: m.within(protocol), sentBy: m.within(sentBy), port: port}
	for len(params) > 0 {
		var p []byte
		p, params = cut(params, ';')
		key, value := pair(p)
		switch {
		case !isToken(key) || !isBalanced(value):
			return false
		case equalFold(key, "branch"):
			if len(value) == 0 {
				return false
			}
			m.via.branch = m.within(value)
		case equalFold(key, "rport"):
			m.via.rport = true
		}
	}
	branch := m.part(m.via.branch)
	return len(branch) != len(cookie) || !equalFold(branch, cookie)
}

// The start of each branch that is unique (RFC 3261 section 8.1.1.7).
const cookie = "z9hG4bK"

// chomp takes off the CR before the LF that ended the line.
func chomp(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}
