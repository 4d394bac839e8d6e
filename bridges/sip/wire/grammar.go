package wire

import (
	"bytes"
	"strconv"
)

// An Address is the value of From, To, Contact, Route and the like: a URI with
// parameters of the field.
type Address struct {
	Display []byte // as it stands, quotes included
	URI     []byte
	Params  Params
}

// Tag gives the tag parameter, empty if there is none.
func (a Address) Tag() []byte { v, _ := a.Params.Get("tag"); return v }

// ParseAddress reads one name-addr or addr-spec (RFC 3261 section 20.10). It is
// false where v is neither.
func ParseAddress(v []byte) (Address, bool) {
	v = trim(v)
	open := bytes.IndexByte(v, '<')
	if len(v) > 0 && v[0] == '"' {
		end := closing(v)
		if end < 0 {
			return Address{}, false
		}
		after := bytes.TrimLeft(v[end+1:], " \t")
		if len(after) == 0 || after[0] != '<' {
			return Address{}, false
		}
		open = len(v) - len(after)
	} else if open >= 0 && !isWords(v[:open]) {
		return Address{}, false
	}
	var a Address
	var rest []byte
	if open >= 0 {
		end := bytes.IndexByte(v[open:], '>')
		if end < 0 {
			return Address{}, false
		}
		a.Display, a.URI, rest = trim(v[:open]), v[open+1:open+end], trim(v[open+end+1:])
		if len(rest) > 0 {
			if rest[0] != ';' {
				return Address{}, false
			}
			rest = rest[1:]
		}
	} else {
		a.URI, rest = cut(v, ';')
		a.URI = trim(a.URI)
		if bytes.ContainsAny(a.URI, "?,>\"") { // such a URI stands in angle brackets
			return Address{}, false
		}
	}
	a.Params = Params(rest)
	scheme, opaque, ok := bytes.Cut(a.URI, []byte{':'})
	return a, ok && isScheme(scheme) && len(opaque) > 0 && !bytes.ContainsAny(a.URI, " \t") && a.Params.sound()
}

// Params are the parameters after a value, without the first semicolon.
type Params []byte

// Get gives the value of a parameter without quotes around it, and whether it is there.
func (p Params) Get(name string) ([]byte, bool) {
	for len(p) > 0 {
		var one []byte
		one, p = cut(p, ';')
		if key, value := pair(one); equalFold(key, name) {
			if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1]
			}
			return value, true
		}
	}
	return nil, false
}

// sound tells whether each parameter has a name, and quotes come in pairs.
func (p Params) sound() bool {
	for len(p) > 0 {
		var one []byte
		one, p = cut(p, ';')
		if key, value := pair(one); !isToken(key) || !isBalanced(value) {
			return false
		}
	}
	return true
}

// isBalanced tells whether the value of a parameter is one quoted string, or has no quote.
func isBalanced(value []byte) bool {
	quote := bytes.IndexByte(value, '"')
	return quote < 0 || quote == 0 && closing(value) == len(value)-1
}

// Value parts a value such as "presence;id=1" from its parameters.
func Value(v []byte) ([]byte, Params) {
	head, params := cut(v, ';')
	return trim(head), Params(params)
}

// cut parts b at the first sep that stands neither in quotes nor, for a comma, in
// angle brackets.
func cut(b []byte, sep byte) (before, after []byte) {
	at := bytes.IndexByte(b, sep)
	if at < 0 {
		return b, nil
	}
	if bytes.IndexByte(b[:at], '"') < 0 && (sep != ',' || bytes.IndexByte(b[:at], '<') < 0) {
		return b[:at], b[at+1:]
	}
	bracket := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"' && !bracket:
			end := closing(b[i:])
			if end < 0 {
				return b, nil
			}
			i += end
		case c == '<' && sep == ',':
			bracket = true
		case c == '>':
			bracket = false
		case c == sep && !bracket:
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

// closing gives where the quoted string at the start of b ends, or -1.
func closing(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// pair parts "name = value".
func pair(b []byte) (key, value []byte) {
	key, value, _ = bytes.Cut(b, []byte{'='})
	return trim(key), trim(value)
}

// portOf checks "host", "host:port" or "[v6]:port"; where there is no port it is
// that of UDP.
func portOf(sentBy []byte) (uint16, bool) {
	colon := bytes.LastIndexByte(sentBy, ':')
	if len(sentBy) > 0 && sentBy[0] == '[' {
		end := bytes.IndexByte(sentBy, ']')
		if end < 0 {
			return 0, false
		}
		if colon < end {
			colon = -1
		}
	}
	if colon < 0 {
		return 5060, isHost(sentBy)
	}
	n, ok := number(trim(sentBy[colon+1:]))
	return uint16(n), ok && n > 0 && n < 1<<16 && isHost(trim(sentBy[:colon])) //nolint:gosec // checked beside it
}

func isHost(b []byte) bool {
	for _, c := range b {
		if !isTokenByte(c) && c != '[' && c != ']' && c != ':' {
			return false
		}
	}
	return len(b) > 0
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !isTokenByte(c) {
			return false
		}
	}
	return len(b) > 0
}

// isWords tells whether b is a display name without quotes.
func isWords(b []byte) bool {
	for _, c := range b {
		if !isTokenByte(c) && c != ' ' && c != '\t' {
			return false
		}
	}
	return true
}

func isTokenByte(c byte) bool { return tokenBytes[c] }

// tokenBytes has the characters of a token (RFC 3261 section 25.1).
var tokenBytes = func() (table [256]bool) { //nolint:gochecknoglobals // a table, never changed
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~") {
		table[c] = true
	}
	return table
}()

func isScheme(b []byte) bool {
	for i, c := range b {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return len(b) > 0
}

// number reads digits only, up to 2^32 - 1.
func number(b []byte) (uint32, bool) {
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + uint64(c-'0'); n >= 1<<32 {
			return 0, false
		}
	}
	return uint32(n), len(b) > 0 //nolint:gosec // checked above
}

// trim takes off spaces and tabs.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold compares ASCII letters in any case.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		d := s[i]
		if c != d && (c|0x20 != d|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// AppendHeader adds the line "name: value" to lines for Request.Respond and
// Outgoing.Headers. Line breaks in the value become spaces, so that no value can add a line.
func AppendHeader(lines []byte, name, value string) []byte {
	lines = append(append(lines, name...), ": "...)
	for _, c := range []byte(value) {
		if c == '\r' || c == '\n' {
			c = ' '
		}
		lines = append(lines, c)
	}
	return append(lines, '\r', '\n')
}

// AppendSeconds adds the line "name: n".
func AppendSeconds(lines []byte, name string, n uint32) []byte {
	lines = append(append(lines, name...), ": "...)
	return append(strconv.AppendUint(lines, uint64(n), 10), '\r', '\n')
}
