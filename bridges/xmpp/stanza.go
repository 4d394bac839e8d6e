package xmpp

import (
	"strings"
	"time"
	"unicode/utf8"
)

// A stanza is what the bridge needs of an inbound presence, iq or message; the
// rest is dropped while it is read. Addresses are as the server wrote them.
type stanza struct {
	kind string // presence, iq, message; another word, or none, for what is no stanza
	typ  string
	id   string
	from string
	to   string

	space, name string // of the first child, which is the payload of an iq
	node        string // its node attribute (XEP-0030)
	children    int
	body        bool // a message with a body
	deep        bool // nested deeper than maxDepth
}

// Namespaces of payloads and extensions.
const (
	nsStanzas   = "urn:ietf:params:xml:ns:xmpp-stanzas"
	nsStreams   = "urn:ietf:params:xml:ns:xmpp-streams"
	nsStream    = "http://etherx.jabber.org/streams"
	nsComponent = "jabber:component:accept"
	nsDiscoInfo = "http://jabber.org/protocol/disco#info"
	nsDiscoItem = "http://jabber.org/protocol/disco#items"
	nsPing      = "urn:xmpp:ping"
	nsVCard     = "vcard-temp"
	nsLast      = "jabber:iq:last"
	nsVersion   = "jabber:iq:version"
	nsDelay     = "urn:xmpp:delay"
	nsIdle      = "urn:xmpp:idle:1"
)

// appendText appends text for use between tags or in a quoted attribute.
// Characters that XML 1.0 has not are left out: one U+0001 closes the stream.
func appendText(dst []byte, text string) []byte {
	for _, r := range text {
		switch {
		case r == '&':
			dst = append(dst, "&amp;"...)
		case r == '<':
			dst = append(dst, "&lt;"...)
		case r == '>':
			dst = append(dst, "&gt;"...)
		case r == '\'':
			dst = append(dst, "&apos;"...)
		case r == '"':
			dst = append(dst, "&quot;"...)
		case r == '\t' || r == '\n' || r == '\r':
			dst = append(dst, ' ')
		case r < 0x20 || r == utf8.RuneError || r == 0xFFFE || r == 0xFFFF:
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}

func appendAttr(dst []byte, name, value string) []byte {
	dst = append(dst, ' ')
	dst = append(dst, name...)
	dst = append(dst, '=', '\'')
	dst = appendText(dst, value)
	return append(dst, '\'')
}

func appendElement(dst []byte, name, text string) []byte {
	dst = append(append(append(dst, '<'), name...), '>')
	dst = appendText(dst, text)
	return append(append(append(dst, '<', '/'), name...), '>')
}

// appendStart opens a stanza. It never writes an xmlns: some servers then no
// longer know the stanza. Every stanza has from and to, as XEP-0114 demands.
func appendStart(dst []byte, kind, typ, id, from, to string) []byte {
	dst = append(append(dst, '<'), kind...)
	if typ != "" {
		dst = appendAttr(dst, "type", typ)
	}
	if id != "" {
		dst = appendAttr(dst, "id", id)
	}
	dst = appendAttr(dst, "from", from)
	return appendAttr(dst, "to", to)
}

// appendSubscription appends a presence that only manages a subscription, or a
// plain unavailable.
func appendSubscription(dst []byte, typ, from, to string) []byte {
	return append(appendStart(dst, "presence", typ, "", from, to), "/>"...)
}

// appendFace appends the presence of one resource. Late copies, such as the
// answer to a probe, carry when the state was entered (XEP-0203), stated by host.
func appendFace(dst []byte, f *face, r resource, bare, to, host string, late bool) []byte {
	from := bare + "/" + r.String()
	if !f.available {
		dst = appendStart(dst, "presence", "unavailable", "", from, to)
		if f.status == "" {
			return append(dst, "/>"...)
		}
		dst = appendElement(append(dst, '>'), "status", f.status)
		return append(dst, "</presence>"...)
	}
	dst = append(appendStart(dst, "presence", "", "", from, to), '>')
	if f.show != "" {
		dst = appendElement(dst, "show", f.show)
	}
	if f.status != "" {
		dst = appendElement(dst, "status", f.status)
	}
	if r == aggregate {
		dst = append(dst, "<priority>0</priority>"...)
	} else {
		dst = append(dst, "<priority>-1</priority>"...)
	}
	if !f.idle.IsZero() {
		dst = append(dst, "<idle xmlns='"+nsIdle+"' since='"+stamp(f.idle)+"'/>"...)
	}
	if late && !f.since.IsZero() {
		dst = appendAttr(append(dst, "<delay xmlns='"+nsDelay+"'"...), "from", host)
		dst = append(dst, " stamp='"+stamp(f.since)+"'/>"...)
	}
	return append(dst, "</presence>"...)
}

// appendError appends the answer to st that refuses it, RFC 6120 section 8.3.
func appendError(dst []byte, st *stanza, class, condition string) []byte {
	dst = append(appendStart(dst, st.kind, "error", st.id, st.to, st.from), '>')
	dst = append(dst, "<error type='"+class+"'><"+condition+" xmlns='"+nsStanzas+"'/></error></"+st.kind+">"...)
	return dst
}

// seconds gives the whole seconds from t to now, never negative.
func seconds(t, now time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(0, int64(now.Sub(t)/time.Second))
}

// valid tells whether text is safe to be an address in an answer: bounded, and
// without characters that would be lost in writing.
func valid(address string) bool {
	return address != "" && len(address) <= 3*1023+2 && utf8.ValidString(address) &&
		!strings.ContainsFunc(address, func(r rune) bool { return r < 0x20 || r == 0xFFFE || r == 0xFFFF })
}
