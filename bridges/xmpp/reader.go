package xmpp

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"presenced/aggregator/presence"
)

// Bounds of what is read. No server lets clients send more in one stanza.
const (
	maxStanza = 1 << 20 // bytes
	maxDepth  = 32      // elements within elements; what is deeper is skipped
)

// The ways in which a stream ends.
var (
	errClosed     = errors.New("the server closed the stream")
	errTooLarge   = errors.New("the server sent more than 1 MiB without the end of a stanza")
	errRestricted = errors.New("the server sent XML that XMPP forbids")
)

// A StreamError is what a server says before it closes (RFC 6120, 4.9.3).
type StreamError struct {
	Condition string // such as conflict
	Text      string // the server's words, at most 200 bytes
}

func (e *StreamError) Error() string {
	if e.Text == "" {
		return "the server closed the stream: " + e.Condition
	}
	return "the server closed the stream: " + e.Condition + ": " + e.Text
}

// A reader takes a component stream apart. It is used by one goroutine.
type reader struct {
	dec  *xml.Decoder
	meal *meal
}

// A meal lets at most maxStanza bytes through before the budget is renewed.
// It is a ByteReader, so that the decoder reads no further than it must.
type meal struct {
	src  *bufio.Reader
	left int
	err  error // that ended the reading; the decoder reports a syntax error instead
}

func (m *meal) ReadByte() (byte, error) {
	if m.left <= 0 {
		m.err = errTooLarge
		return 0, m.err
	}
	m.left--
	var b byte
	b, m.err = m.src.ReadByte()
	return b, m.err
}

func (m *meal) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := m.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}

func newReader(src io.Reader) *reader {
	m := &meal{src: bufio.NewReaderSize(src, 32<<10), left: maxStanza}
	return &reader{dec: xml.NewDecoder(m), meal: m}
}

// raw gives the next token, or why nothing more can be read.
func (r *reader) raw() (xml.Token, error) {
	t, err := r.dec.Token()
	if err != nil && r.meal.err != nil {
		err = r.meal.err
	}
	if bad, ok := errors.AsType[*xml.SyntaxError](err); ok { // it quotes what the peer sent, a name of any length
		err = fmt.Errorf("no XML: %s", strings.ToValidUTF8(clip(bad.Msg), ""))
	}
	return t, err
}

// token gives the next token that XMPP allows (RFC 6120, 11.1).
func (r *reader) token() (xml.Token, error) {
	t, err := r.raw()
	if err != nil {
		return nil, err
	}
	switch t.(type) {
	case xml.Comment, xml.Directive, xml.ProcInst:
		return nil, errRestricted
	}
	return t, nil
}

// header reads up to the stream's start tag and gives its id, which may be empty.
func (r *reader) header() (id string, err error) {
	for first := true; ; first = false {
		t, err := r.raw()
		if err != nil {
			return "", fmt.Errorf("no stream header: %w", err)
		}
		switch t := t.(type) {
		case xml.ProcInst:
			if !first || t.Target != "xml" {
				return "", errRestricted
			}
		case xml.CharData:
		case xml.StartElement:
			if t.Name != (xml.Name{Space: nsStream, Local: "stream"}) {
				return "", fmt.Errorf("this is no XMPP server: it begins with <%.40s>", t.Name.Local)
			}
			return attr(&t, "id"), nil
		default:
			return "", errRestricted
		}
	}
}

func attr(e *xml.StartElement, name string) string {
	i := slices.IndexFunc(e.Attr, func(a xml.Attr) bool { return a.Name.Space == "" && a.Name.Local == name })
	if i < 0 {
		return ""
	}
	return e.Attr[i].Value
}

// element gives the next element of the stream. One of another namespace has no
// kind. A *StreamError or errClosed ends the stream in order.
func (r *reader) element() (stanza, error) {
	for {
		r.meal.left = maxStanza
		t, err := r.token()
		if err != nil {
			return stanza{}, err
		}
		switch t := t.(type) {
		case xml.EndElement: // only the stream's own can come here
			return stanza{}, errClosed
		case xml.StartElement:
			if t.Name == (xml.Name{Space: nsStream, Local: "error"}) {
				return stanza{}, r.streamError()
			}
			return r.stanza(&t)
		}
	}
}

func (r *reader) stanza(start *xml.StartElement) (stanza, error) {
	kind := start.Name.Local
	if start.Name.Space != nsComponent && start.Name.Space != "jabber:client" {
		kind = ""
	}
	st := stanza{
		kind: kind, typ: attr(start, "type"), id: attr(start, "id"),
		from: attr(start, "from"), to: attr(start, "to"),
	}
	for depth := 1; depth > 0; {
		t, err := r.token()
		if err != nil {
			return stanza{}, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				st.deep = true
			}
			if depth != 2 {
				continue
			}
			if st.children++; st.children == 1 {
				st.space, st.name, st.node = t.Name.Space, t.Name.Local, attr(&t, "node")
			}
			st.body = st.body || t.Name.Local == "body"
		case xml.EndElement:
			depth--
		}
	}
	return st, nil
}

// streamError reads the rest of a stream:error.
func (r *reader) streamError() error {
	e := &StreamError{Condition: "undefined-condition"}
	inText := false
	for depth := 1; depth > 0; {
		t, err := r.token()
		if err != nil {
			break // what is known says more than the connection's end
		}
		switch t := t.(type) {
		case xml.StartElement:
			depth++
			inText = depth == 2 && t.Name == (xml.Name{Space: nsStreams, Local: "text"})
			if depth == 2 && !inText && t.Name.Space == nsStreams {
				e.Condition = strings.ToValidUTF8(clip(t.Name.Local), "")
			}
		case xml.EndElement:
			depth--
			inText = false
		case xml.CharData:
			if inText {
				e.Text += strings.ToValidUTF8(string(t[:min(len(t), max(0, 200-len(e.Text)))]), "")
			}
		}
	}
	if e.Condition == "not-authorized" || e.Condition == "host-unknown" {
		return presence.Permanent(e)
	}
	return e
}
