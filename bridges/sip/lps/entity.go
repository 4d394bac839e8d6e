package lps

import (
	"bytes"
	"strings"

	"presenced/aggregator/presence"
)

const maxAddress = 256 // bytes of an address in canonical form

// Address brings the URI of a presentity or of somebody who watches into the form
// by which they are compared: user@domain of a SIP URI, the number of a tel URI.
// Escapes are resolved, the domain is in lower case; port, parameters, headers and
// password are left out. ok is false where it is neither, or too long.
func Address(uri string) (address string, ok bool) {
	scheme, rest, found := strings.Cut(uri, ":")
	if !found || len(rest) > 4*maxAddress {
		return "", false
	}
	if strings.EqualFold(scheme, "tel") {
		number, _, _ := strings.Cut(rest, ";")
		return number, isUser(number)
	}
	if !strings.EqualFold(scheme, "sip") && !strings.EqualFold(scheme, "sips") {
		return "", false
	}
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return "", false
	}
	user, host := rest[:at], rest[at+1:]
	if i := strings.IndexAny(host, ";?"); i >= 0 {
		host = host[:i]
	}
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "", false
		}
		host = host[:end+1]
	} else {
		host, _, _ = strings.Cut(host, ":")
	}
	if i := strings.IndexAny(user, ":;"); i >= 0 { // a password, or parameters of a telephone number
		user = user[:i]
	}
	if user, ok = unescape(user); !ok || !isUser(user) || !isHost(host) {
		return "", false
	}
	if len(user)+1+len(host) > maxAddress {
		return "", false
	}
	host = strings.ToLower(host)
	if rest[:at] == user && rest[at+1:] == host {
		return rest, true // as it stands, like nearly every one: no copy
	}
	return user + "@" + host, true
}

// isPlainURI tells whether uri is sip: and the address, which is in canonical form, and
// has nothing that would be read otherwise: then it need not be read.
func isPlainURI(uri []byte, address string) bool {
	rest, ok := bytes.CutPrefix(uri, []byte("sip:"))
	return ok && string(rest) == address && !strings.ContainsAny(address, "%:;?") && strings.IndexByte(address, '@') > 0
}

// isUser tells whether user may stand before the @ of an address, which goes into
// headers and documents.
func isUser(user string) bool {
	for i := range len(user) {
		if c := user[i]; c <= ' ' || c >= 0x7F || strings.IndexByte("<>\"@", c) >= 0 {
			return false
		}
	}
	return user != "" && len(user) <= maxAddress
}

func isHost(host string) bool {
	for i := range len(host) {
		switch c := host[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return host != ""
}

func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return "", false
			}
			high, low := digit(s[i+1]), digit(s[i+2])
			if high < 0 || low < 0 {
				return "", false
			}
			c, i = byte(high<<4|low), i+2 //nolint:gosec // below 256
		}
		b = append(b, c)
	}
	return string(b), true
}

func digit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// escape gives user as it stands in a SIP URI (RFC 3261 section 25.1). A semicolon
// might stand as it is, but what follows one is left out by Address.
func escape(user string) string {
	const plain, hexadecimal = "-_.!~*'()&=+$,?/", "0123456789ABCDEF"
	b := make([]byte, 0, len(user))
	for i := range len(user) {
		c := user[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(plain, c) >= 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', hexadecimal[c>>4], hexadecimal[c&15])
		}
	}
	return string(b)
}

// URI gives the address in the form that stands in documents and headers.
func URI(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return "tel:" + address
	}
	return "sip:" + escape(address[:at]) + address[at:]
}

// domainOf gives what stands after the @; empty for a telephone number.
func domainOf(address string) string {
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		return address[at+1:]
	}
	return ""
}

// subjects gives, in order, by which subjects the person of that address may be
// known: the SIP address itself, the extension before the @, the mail address. Of
// a number the rest are empty.
func subjects(address string) [3]presence.Subject {
	user, _, sip := strings.Cut(address, "@")
	if !sip {
		return [3]presence.Subject{{Scheme: "tel", Value: address}}
	}
	return [3]presence.Subject{{Scheme: "sip", Value: address}, {Scheme: "tel", Value: user}, {Scheme: "mail", Value: address}}
}
