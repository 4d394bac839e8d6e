package ews

import (
	"bufio"
	"io"
)

// A stripper takes out of an XML text what XML 1.0 does not allow and Exchange
// sends all the same: references to control characters, surrogates and
// non-characters (&#x1F; &#11; &#xFFFE;), and bare control characters. Otherwise
// one odd subject would spoil an answer about a hundred mailboxes. All else goes
// through as it is, except for zeros that lead a character reference.
type stripper struct {
	in      *bufio.Reader
	pending []byte // to be given out before more is read
	store   [16]byte
}

func newStripper(r io.Reader) *stripper { return &stripper{in: bufio.NewReaderSize(r, 16<<10)} }

func (s *stripper) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(s.pending) > 0 {
			c := copy(p[n:], s.pending)
			n, s.pending = n+c, s.pending[c:]
			continue
		}
		if n > 0 && s.in.Buffered() == 0 {
			return n, nil // rather give what there is than wait for more
		}
		b, err := s.in.ReadByte()
		if err != nil {
			if n > 0 {
				return n, nil // the error comes again
			}
			return 0, err
		}
		switch {
		case b == '&':
			s.pending = s.reference(s.store[:0])
		case b >= 0x20 || b == '\t' || b == '\n' || b == '\r':
			p[n] = b
			n++
		}
	}
	return n, nil
}

// reference reads on after an ampersand and appends to out what is to go through,
// fourteen bytes at most. It reads no further than the reference goes.
func (s *stripper) reference(out []byte) []byte {
	out = append(out, '&')
	if !s.accept('#') {
		return out
	}
	out = append(out, '#')
	base := rune(10)
	if s.accept('x') || s.accept('X') {
		out, base = append(out, 'x'), 16
	}
	digits := 0
	for s.accept('0') {
		digits = 1
	}
	if digits > 0 {
		out = append(out, '0')
	}
	var char rune
	for digits < 9 {
		d, ok := s.digit(base)
		if !ok {
			break
		}
		out = append(out, d)
		digits++
		char = min(char*base+value16(d), 0x110000)
	}
	if digits == 0 || !s.accept(';') {
		return out // no reference, or one that the decoder is to refuse
	}
	if !allowed(char) {
		return out[:0]
	}
	return append(out, ';')
}

// accept takes the next byte if it is b.
func (s *stripper) accept(b byte) bool {
	next, err := s.in.Peek(1)
	if err != nil || next[0] != b {
		return false
	}
	_, _ = s.in.Discard(1)
	return true
}

func (s *stripper) digit(base rune) (byte, bool) {
	next, err := s.in.Peek(1)
	if err != nil {
		return 0, false
	}
	d := next[0]
	if d >= '0' && d <= '9' || base == 16 && (d >= 'a' && d <= 'f' || d >= 'A' && d <= 'F') {
		_, _ = s.in.Discard(1)
		return d, true
	}
	return 0, false
}

func value16(d byte) rune {
	switch {
	case d >= 'a':
		return rune(d-'a') + 10
	case d >= 'A':
		return rune(d-'A') + 10
	default:
		return rune(d - '0')
	}
}

// allowed tells whether XML 1.0 (section 2.2) has the character.
func allowed(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}
