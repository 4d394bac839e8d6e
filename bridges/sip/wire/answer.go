package wire

import (
	"bytes"
	"hash/maphash"
	"net/netip"
	"strconv"
)

// appendAnswer adds an answer to m, which came from there, built from the header
// bytes of m itself: every Via, From, To (with tag, if it has none), Call-ID and
// CSeq (RFC 3261 section 8.2.6), and Record-Route where the answer makes a dialog.
// What m lacks is left out. headers are whole lines.
func appendAnswer(dst []byte, m *Message, from netip.AddrPort, tag []byte, code int, reason string, headers, body []byte) []byte {
	dst = append(dst, "SIP/2.0 "...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(append(append(dst, ' '), reason...), '\r', '\n')
	first := true
	for v := range m.Headers(Via) {
		dst = append(dst, "Via: "...)
		if first {
			dst = m.appendReceived(dst, from)
			v = v[int(m.via.whole.end)-int(m.fields[m.first[Via]-1].value.at):]
			first = false
		}
		dst = append(append(dst, v...), '\r', '\n')
	}
	dst = m.appendSame(dst, "From: ", From)
	if m.Has(To) {
		dst = append(append(dst, "To: "...), m.Header(To)...)
		if to, ok := ParseAddress(m.Header(To)); ok && len(to.Tag()) == 0 && len(tag) > 0 {
			dst = append(append(dst, ";tag="...), tag...)
		}
		dst = append(dst, '\r', '\n')
	}
	dst = m.appendSame(dst, "Call-ID: ", CallID)
	dst = m.appendSame(dst, "CSeq: ", CSeq)
	if m.method == "SUBSCRIBE" && code < 300 {
		for v := range m.Headers(RecordRoute) {
			dst = append(append(append(dst, "Record-Route: "...), v...), '\r', '\n')
		}
	}
	dst = append(dst, headers...)
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, body...)
}

func (m *Message) appendSame(dst []byte, label string, n Name) []byte {
	if !m.Has(n) {
		return dst
	}
	return append(append(append(dst, label...), m.Header(n)...), '\r', '\n')
}

// appendReceived writes the topmost Via with the address that the request came
// from (RFC 3261 section 18.2.1, RFC 3581 section 4), whatever it said of that itself.
func (m *Message) appendReceived(dst []byte, from netip.AddrPort) []byte {
	if m.via.whole == (span{}) { // malformed; it is given back as it stands
		whole, _ := cut(m.Header(Via), ',')
		m.via.whole = m.within(trim(whole))
		return append(dst, m.part(m.via.whole)...)
	}
	head, params := cut(m.part(m.via.whole), ';')
	dst = append(dst, trim(head)...)
	for len(params) > 0 {
		var p []byte
		p, params = cut(params, ';')
		if key, _ := pair(p); !equalFold(key, "rport") && !equalFold(key, "received") {
			dst = append(append(dst, ';'), trim(p)...)
		}
	}
	if m.via.rport {
		dst = append(dst, ";rport="...)
		dst = strconv.AppendUint(dst, uint64(from.Port()), 10)
	}
	dst = append(dst, ";received="...)
	return from.Addr().AppendTo(dst)
}

// back gives where the answer by UDP to m goes: where it came from, by rport, or
// to the same host at the port of Via. No header names another host.
func (m *Message) back(from netip.AddrPort) netip.AddrPort {
	if m.via.rport || m.via.port == 0 {
		return from
	}
	return netip.AddrPortFrom(from.Addr(), m.via.port)
}

// keys tells transactions apart without keeping what they are told apart by.
type keys struct {
	low, high, tag maphash.Seed
}

func newKeys() keys { return keys{maphash.MakeSeed(), maphash.MakeSeed(), maphash.MakeSeed()} }

// A key identifies a server transaction (RFC 3261 section 17.2.3). The host that
// the request came from is part of it: nobody gets the answer of another.
type key [2]uint64

// of gives the key of m; scratch is room to work in.
func (k *keys) of(m *Message, from netip.Addr, scratch []byte) (key, []byte) {
	ip := from.As16()
	b := append(scratch[:0], ip[:]...)
	b = append(append(b, m.method...), 0)
	if branch := m.part(m.via.branch); len(branch) > len(cookie) && equalFold(branch[:len(cookie)], cookie) {
		b = append(append(b, branch...), 0)
		b = append(b, m.part(m.via.sentBy)...)
	} else { // RFC 2543
		for _, part := range [...][]byte{m.URI(), m.To().Tag(), m.From().Tag(), m.CallID(), m.Header(CSeq), m.Header(Via)} {
			b = append(append(b, part...), 0)
		}
	}
	return key{maphash.Bytes(k.low, b), maphash.Bytes(k.high, b)}, b
}

// appendTag adds the tag for answers in this transaction: the same for each
// retransmission, another for each dialog, and not to be guessed.
func (k *keys) appendTag(dst []byte, of key, callID []byte) []byte {
	n := of[0] ^ maphash.Bytes(k.tag, callID)
	return appendHex(dst, n)
}

// appendHex adds 16 digits.
func appendHex(dst []byte, n uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[n>>shift&15])
	}
	return dst
}

// fromHex reads them.
func fromHex(b []byte) (uint64, bool) {
	if len(b) != 16 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		digit := bytes.IndexByte([]byte("0123456789abcdef"), c)
		if digit < 0 {
			return 0, false
		}
		n = n<<4 | uint64(digit) //nolint:gosec // below 16
	}
	return n, true
}
