package xmltext

import (
	"time"
	"unicode/utf8"
)

// A Writer is a document in the making.
type Writer []byte

// Raw writes s as it is.
func (w *Writer) Raw(s string) { *w = append(*w, s...) }

// Text writes s so that it reads as s in a text and in an attribute. Characters
// that XML cannot carry become U+FFFD.
func (w *Writer) Text(s string) {
	b := *w
	done := 0
	for i := 0; i < len(s); {
		size, escape := 1, ""
		switch c := s[i]; {
		case c == '&':
			escape = "&amp;"
		case c == '<':
			escape = "&lt;"
		case c == '>':
			escape = "&gt;"
		case c == '"':
			escape = "&#34;"
		case c == '\'':
			escape = "&#39;"
		case c == '\t':
			escape = "&#x9;"
		case c == '\n':
			escape = "&#xA;"
		case c == '\r':
			escape = "&#xD;"
		case c < ' ':
			escape = "\uFFFD"
		case c >= utf8.RuneSelf:
			var r rune
			if r, size = utf8.DecodeRuneInString(s[i:]); !character(r, size) {
				escape = "\uFFFD"
			}
		}
		if escape != "" {
			b = append(append(b, s[done:i]...), escape...)
			done = i + size
		}
		i += size
	}
	*w = append(b, s[done:]...)
}

// Attribute writes a space and an attribute.
func (w *Writer) Attribute(name, value string) {
	w.Raw(" ")
	w.Raw(name)
	w.Raw(`="`)
	w.Text(value)
	w.Raw(`"`)
}

// Element writes an element with a text, unless the text is empty.
func (w *Writer) Element(name, text string) {
	if text == "" {
		return
	}
	w.Raw("<")
	w.Raw(name)
	w.Raw(">")
	w.Text(text)
	w.Raw("</")
	w.Raw(name)
	w.Raw(">")
}

// Time writes t as RFC 3339 has it, in UTC.
func (w *Writer) Time(t time.Time) { *w = t.UTC().AppendFormat(*w, time.RFC3339) }
