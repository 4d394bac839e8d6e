package sip

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/entity"
)

// Whatever a server answers: it is read without a panic, and what is sent back of
// it cannot break a request.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"SIP/2.0 200 OK\r\nSIP-ETag: a.1795213761.18902.3.0\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n",
		"SIP/2.0 423 Interval Too Brief\r\nMin-Expires: 60\r\nRetry-After: 30 (lunch);duration=9\r\n\r\n",
		"SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=SHA-256, qop=\"auth-int,auth\"\r\n\r\n",
		"SIP/2.0 407 x\r\nProxy-Authenticate: Digest realm=\"\\\"\", nonce=\"n\", userhash=true, qop=\"\"\r\nProxy-Authenticate: Basic\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := sip.NewParser().ParseSIP(data)
		if err != nil {
			return
		}
		res, ok := m.(*sip.Response)
		if !ok {
			return
		}
		r := read(res)
		if strings.ContainsAny(r.tag, "\r\n ,;") || r.minExpires < 0 || r.retryAfter < 0 {
			t.Errorf("read %+v", r)
		}
		if r.challenge != nil {
			_, value, err := r.challenge.Respond("u", "p", "PUBLISH", "sip:a@b")
			if err == nil && strings.ContainsAny(value, "\r\n") {
				t.Errorf("the answer to the challenge has a line end: %q", value)
			}
		}
	})
}

// Whatever the directory holds: an address is one, on one line.
func FuzzEntity(f *testing.F) {
	for _, s := range []string{"4750", "+49 69 4750", "a@b", "x\r\nVia: y", "sip:x@y", "%41", "%", "ä"} {
		f.Add("sip:{tel}@example.test", s)
		f.Add("{tel}", s)
	}
	f.Fuzz(func(t *testing.T, template, value string) {
		person := presence.Person{Subjects: []presence.Subject{{Scheme: "tel", Value: value}}}
		address, err := entity.Of(template, &person)
		if err != nil || address == "" {
			return
		}
		if strings.ContainsAny(address, "\r\n \t<>\"") {
			t.Errorf("entity %q", address)
		}
		uri, err := parseURI(address)
		if err != nil {
			t.Errorf("entity %q: %v", address, err)
		}
		if strings.ContainsAny(uri.String(), "\r\n \t<>\"") {
			t.Errorf("Request-URI %q", uri.String())
		}
	})
}
