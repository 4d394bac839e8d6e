package xmltext

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxDepth is how many elements may stand within one another.
const MaxDepth = 32

// A Kind says what Next found.
type Kind uint8

// The kinds. An element without content is a Start and an End.
const (
	EOF Kind = iota
	Start
	Text
	End
)

// A Scanner gives the elements and texts of one document in their order.
// Comments and processing instructions are left out. What it gives are parts of
// the document wherever possible, so that a piece that is kept keeps all of it.
type Scanner struct {
	doc  string
	pos  int
	open [MaxDepth]string // names as they are written, with their prefixes

	depth      int
	empty      bool // the start just given has no content; its end is next
	rooted     bool
	name       string // the local name of the element just opened or closed
	attributes string // of the element just opened
	text       string
	literal    bool // the text is of a CDATA section
}

// New gives a scanner of doc, which the caller has bounded.
func New(doc string) Scanner { return Scanner{doc: doc} }

// Next goes on to the next piece. After EOF the document is known to be one
// element, well-formed but for the uniqueness of attributes. The errors quote
// nothing of the document.
func (s *Scanner) Next() (Kind, error) {
	if s.empty {
		s.empty = false
		s.depth--
		return End, nil
	}
	for s.pos < len(s.doc) {
		rest := s.doc[s.pos:]
		switch {
		case rest[0] != '<':
			n := strings.IndexByte(rest, '<')
			if n < 0 {
				n = len(rest)
			}
			s.text, s.literal = rest[:n], false
			if !valid(s.text, true) || strings.Contains(s.text, "]]>") {
				return EOF, s.malformed()
			}
			s.pos += n
			if s.depth > 0 {
				return Text, nil
			}
		case strings.HasPrefix(rest, "</"):
			return s.end(rest)
		case strings.HasPrefix(rest, "<?"):
			if err := s.instruction(rest); err != nil {
				return EOF, err
			}
		case strings.HasPrefix(rest, "<!--"):
			n := strings.Index(rest[4:], "--")
			if n < 0 || !strings.HasPrefix(rest[4+n:], "-->") {
				return EOF, s.malformed()
			}
			s.pos += 4 + n + len("-->")
		case strings.HasPrefix(rest, "<![CDATA["):
			n := strings.Index(rest, "]]>")
			if n < 0 {
				return EOF, s.malformed()
			}
			s.text, s.literal = rest[len("<![CDATA["):n], true
			if !valid(s.text, false) {
				return EOF, s.malformed()
			}
			s.pos += n + len("]]>")
			if s.depth > 0 {
				return Text, nil
			}
		case strings.HasPrefix(rest, "<!"):
			return EOF, errors.New("a document type is declared, which is never read")
		default:
			return s.start(rest)
		}
	}
	switch {
	case s.depth > 0:
		return EOF, s.malformed()
	case !s.rooted:
		return EOF, errors.New("no element")
	}
	return EOF, nil
}

// Name gives the local name of the element that was just opened or closed.
func (s *Scanner) Name() string { return s.name }

// Depth gives how many elements are open, with the one just opened, without the
// one just closed.
func (s *Scanner) Depth() int { return s.depth }

// Text gives the text just found, with its entities decoded.
func (s *Scanner) Text() string { return decode(s.text, !s.literal) }

// Attribute gives the value of an attribute of the element that was just opened,
// by its local name; the empty string if there is none.
func (s *Scanner) Attribute(local string) string {
	rest := s.attributes
	for {
		rest = rest[skip(rest, 0):]
		n := nameLen(rest)
		if n == 0 {
			return ""
		}
		name := rest[:n]
		rest = rest[skip(rest, n):]
		rest = rest[skip(rest, 1):] // after the equals sign
		end := 1 + strings.IndexByte(rest[1:], rest[0])
		if localOf(name) == local && !strings.HasPrefix(name, "xmlns:") {
			return decode(rest[1:end], true)
		}
		rest = rest[end+1:]
	}
}

func (s *Scanner) start(rest string) (Kind, error) {
	n := nameLen(rest[1:])
	switch {
	case n == 0:
		return EOF, s.malformed()
	case s.depth == MaxDepth:
		return EOF, fmt.Errorf("deeper than %d elements", MaxDepth)
	case s.depth == 0 && s.rooted:
		return EOF, errors.New("a second document follows the first")
	}
	name := rest[1 : 1+n]
	i := 1 + n
	first := i
	for {
		i = skip(rest, i)
		if i < len(rest) && rest[i] == '>' {
			s.attributes = rest[first:i]
			i++
			break
		}
		if strings.HasPrefix(rest[i:], "/>") {
			s.attributes = rest[first:i]
			s.empty = true
			i += 2
			break
		}
		n := attributeLen(rest[i:])
		if n == 0 {
			return EOF, s.malformed()
		}
		i += n
	}
	s.pos += i
	s.open[s.depth] = name
	s.depth++
	s.rooted = true
	s.name = localOf(name)
	return Start, nil
}

func (s *Scanner) end(rest string) (Kind, error) {
	n := nameLen(rest[2:])
	i := skip(rest, 2+n)
	if n == 0 || i == len(rest) || rest[i] != '>' || s.depth == 0 || s.open[s.depth-1] != rest[2:2+n] {
		return EOF, s.malformed()
	}
	s.name = localOf(rest[2 : 2+n])
	s.depth--
	s.pos += i + 1
	return End, nil
}

func (s *Scanner) instruction(rest string) error {
	n := 2 + nameLenWithColons(rest[2:])
	length := strings.Index(rest[n:], "?>")
	if n == 2 || length < 0 {
		return s.malformed()
	}
	content := rest[n : n+length]
	if rest[2:n] == "xml" {
		if v := declared(content, "version="); v != "" && v != "1.0" {
			return errors.New("not of version 1.0 of XML")
		}
		if e := declared(content, "encoding="); e != "" && !strings.EqualFold(e, "utf-8") {
			return errors.New("an encoding is declared that is not UTF-8")
		}
	}
	s.pos += n + length + len("?>")
	return nil
}

// declared gives what the XML declaration says of key, without its quotes.
func declared(content, key string) string {
	for {
		_, rest, found := strings.Cut(content, key)
		if !found || rest == "" {
			return ""
		}
		if rest[0] == '"' || rest[0] == '\'' {
			value, _, closed := strings.Cut(rest[1:], rest[:1])
			if !closed {
				return ""
			}
			return value
		}
		content = rest[1:]
	}
}

func (s *Scanner) malformed() error {
	return fmt.Errorf("not well-formed in line %d", 1+strings.Count(s.doc[:s.pos], "\n"))
}

// attributeLen gives the length of the attribute at the start of t; zero if there is none.
func attributeLen(t string) int {
	n := nameLen(t)
	i := skip(t, n)
	if n == 0 || i == len(t) || t[i] != '=' {
		return 0
	}
	i = skip(t, i+1)
	if i == len(t) || t[i] != '"' && t[i] != '\'' {
		return 0
	}
	length := strings.IndexByte(t[i+1:], t[i])
	if length < 0 {
		return 0
	}
	value := t[i+1 : i+1+length]
	if strings.IndexByte(value, '<') >= 0 || !valid(value, true) {
		return 0
	}
	return i + 1 + length + 1
}

// skip gives where the space at i ends.
func skip(t string, i int) int {
	for i < len(t) && (t[i] == ' ' || t[i] == '\n' || t[i] == '\t' || t[i] == '\r') {
		i++
	}
	return i
}

// nameLen gives the length of the name at the start of t, with at most one
// prefix; zero if there is none.
func nameLen(t string) int {
	n := nameLenWithColons(t)
	if i := strings.IndexByte(t[:n], ':'); i >= 0 && strings.IndexByte(t[i+1:n], ':') >= 0 {
		return 0
	}
	return n
}

// nameLenWithColons goes by fewer tables than XML has: beyond ASCII every
// character may be in a name.
func nameLenWithColons(t string) int {
	i := 0
	for i < len(t) {
		switch c := t[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', c == ':':
			i++
		case '0' <= c && c <= '9', c == '-', c == '.':
			if i == 0 {
				return 0
			}
			i++
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(t[i:])
			if !character(r, size) {
				return 0
			}
			i += size
		default:
			return i
		}
	}
	return i
}

// localOf gives a name without its prefix.
func localOf(name string) string {
	if i := strings.IndexByte(name, ':'); i > 0 && i+1 < len(name) {
		return name[i+1:]
	}
	return name
}

// valid tells whether t has no character that XML forbids, and no ampersand that
// begins nothing where entities count.
func valid(t string, entities bool) bool {
	for i := 0; i < len(t); {
		switch c := t[i]; {
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(t[i:])
			if !character(r, size) {
				return false
			}
			i += size
		case c == '&' && entities:
			r, n := entity(t[i:])
			if n == 0 || !character(r, utf8.RuneLen(r)) {
				return false
			}
			i += n
		case c < ' ' && c != '\n' && c != '\t' && c != '\r':
			return false
		default:
			i++
		}
	}
	return true
}

// character tells whether XML may carry r, which took size bytes.
func character(r rune, size int) bool {
	return (r != utf8.RuneError || size > 1) && (r >= ' ' || r == '\n' || r == '\t' || r == '\r') && r != 0xFFFE && r != 0xFFFF
}

// entity gives the character that the reference at the start of t stands for, and
// its length; zero if it stands for none.
func entity(t string) (rune, int) {
	if strings.HasPrefix(t, "&#") {
		return number(t)
	}
	switch {
	case strings.HasPrefix(t, "&amp;"):
		return '&', len("&amp;")
	case strings.HasPrefix(t, "&lt;"):
		return '<', len("&lt;")
	case strings.HasPrefix(t, "&gt;"):
		return '>', len("&gt;")
	case strings.HasPrefix(t, "&quot;"):
		return '"', len("&quot;")
	case strings.HasPrefix(t, "&apos;"):
		return '\'', len("&apos;")
	}
	return 0, 0
}

// number is entity for "&#65;" and "&#x41;". A surrogate is U+FFFD.
func number(t string) (rune, int) {
	i, base := len("&#"), rune(10)
	if strings.HasPrefix(t[i:], "x") {
		i, base = i+1, 16
	}
	first := i
	var r rune
	for ; i < len(t); i++ {
		c := t[i]
		var digit rune
		switch {
		case '0' <= c && c <= '9':
			digit = rune(c - '0')
		case base == 16 && 'a' <= c|' ' && c|' ' <= 'f':
			digit = rune(c|' '-'a') + 10
		case c == ';' && i > first:
			if !utf8.ValidRune(r) {
				r = utf8.RuneError
			}
			return r, i + 1
		default:
			return 0, 0
		}
		if r = r*base + digit; r > unicode.MaxRune {
			return 0, 0
		}
	}
	return 0, 0
}

// decode gives t with lines ended as XML has them, and its references, if they
// count, replaced. The text is valid.
func decode(t string, entities bool) string {
	if strings.IndexByte(t, '\r') < 0 && (!entities || strings.IndexByte(t, '&') < 0) {
		return t
	}
	out := make([]byte, 0, len(t))
	for i := 0; i < len(t); {
		switch c := t[i]; {
		case c == '&' && entities:
			r, n := entity(t[i:])
			out = utf8.AppendRune(out, r)
			i += n
		case c == '\r':
			out = append(out, '\n')
			i++
			if i < len(t) && t[i] == '\n' {
				i++
			}
		default:
			out = append(out, c)
			i++
		}
	}
	return string(out)
}
