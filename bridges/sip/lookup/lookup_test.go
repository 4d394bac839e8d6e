package lookup

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"pgregory.net/rapid"

	"presenced/fixtures/nameserver"
)

func TestLocate(t *testing.T) {
	t.Parallel()
	addresses := []string{"p1.example.test 60 A 192.0.2.1", "p1.example.test 60 AAAA 2001:db8::1", "p2.example.test 60 A 192.0.2.2", "example.test 60 A 192.0.2.9"}
	srv := []string{
		"_sip._udp.example.test 60 SRV 20 0 5062 p2.example.test", "_sip._udp.example.test 60 SRV 10 0 5061 p1.example.test",
		"_sip._tcp.example.test 60 SRV 10 0 5070 p2.example.test",
	}
	naptr := []string{
		"example.test 60 NAPTR 50 50 s SIP+D2U _sip._udp.example.test", "example.test 60 NAPTR 50 20 S sip+d2t _sip._tcp.example.test",
		"example.test 60 NAPTR 10 10 s SIP+D2S _sip._sctp.example.test", "example.test 60 NAPTR 10 10 u E2U+sip x", "example.test 60 NAPTR 60 10 s SIPS+D2T tls.elsewhere.test",
	}
	elsewhere := "tls.elsewhere.test 60 SRV 10 0 5443 p1.example.test"
	for name, c := range map[string]struct {
		address, transport string
		zone               []string
		want               string // targets; or "error: " and words
		asked              []string
	}{
		"IPv4":                {"192.0.2.7", "udp", nil, "udp 192.0.2.7:5060", nil},
		"IPv4, TLS":           {"192.0.2.7", "tls", nil, "tls 192.0.2.7:5061", nil},
		"IPv6":                {"2001:db8::7", "tcp", nil, "tcp [2001:db8::7]:5060", nil},
		"IPv6, port":          {"[2001:db8::7]:9", "auto", nil, "udp [2001:db8::7]:9", nil},
		"a port means no SRV": {"p1.example.test:5099", "tcp", slices.Concat(addresses, srv, naptr), "tcp 192.0.2.1:5099 tcp [2001:db8::1]:5099", nil},
		"NAPTR for one transport": {
			"example.test", "udp", slices.Concat(addresses, srv, naptr),
			"udp 192.0.2.1:5061 udp [2001:db8::1]:5061 udp 192.0.2.2:5062",
			[]string{"NAPTR example.test", "SRV _sip._udp.example.test"},
		},
		"NAPTR chooses": {"example.test", "auto", slices.Concat(addresses, srv, naptr), "tcp 192.0.2.2:5070", []string{"NAPTR example.test", "SRV _sip._tcp.example.test"}},
		"NAPTR leads to another domain": {
			"example.test", "tls", slices.Concat(addresses, srv, naptr, []string{elsewhere}),
			"tls 192.0.2.1:5443 tls [2001:db8::1]:5443",
			[]string{"NAPTR example.test", "SRV tls.elsewhere.test"},
		},
		"SRV without NAPTR": {"example.test", "tcp", slices.Concat(addresses, srv), "tcp 192.0.2.2:5070", []string{"NAPTR example.test", "SRV _sip._tcp.example.test"}},
		"SRV without NAPTR, auto": {
			"example.test", "auto", slices.Concat(addresses, srv), "tcp 192.0.2.2:5070",
			[]string{"NAPTR example.test", "SRV _sips._tcp.example.test", "SRV _sip._tcp.example.test"},
		},
		"addresses alone": {
			"example.test", "auto", addresses, "udp 192.0.2.9:5060",
			[]string{"NAPTR example.test", "SRV _sips._tcp.example.test", "SRV _sip._tcp.example.test", "SRV _sip._udp.example.test"},
		},
		"the service is decidedly not there": {
			"example.test", "udp", slices.Concat(addresses, []string{"_sip._udp.example.test 60 SRV 0 0 0 ."}),
			"error: there is no such service",
			[]string{"NAPTR example.test", "SRV _sip._udp.example.test"},
		},
		"one host of SRV has no address": {
			"example.test", "udp", slices.Concat(addresses, srv[:1], []string{"_sip._udp.example.test 60 SRV 1 0 5 gone.example.test"}),
			"udp 192.0.2.2:5062",
			[]string{"NAPTR example.test", "SRV _sip._udp.example.test"},
		},
		"the same twice": {
			"example.test", "udp", slices.Concat(addresses, srv[:1], []string{"_sip._udp.example.test 60 SRV 30 0 5062 p2.example.test"}),
			"udp 192.0.2.2:5062",
			[]string{"NAPTR example.test", "SRV _sip._udp.example.test"},
		},
		"nothing": {"example.test", "udp", nil, "error: no such host", []string{"NAPTR example.test", "SRV _sip._udp.example.test"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			z := nameserver.New(t, c.zone...)
			targets, err := New(z.Address).Find(t.Context(), c.address, c.transport)
			words := make([]string, 0, len(targets))
			for _, to := range targets {
				words = append(words, to.Transport+" "+to.At.String())
			}
			got := strings.Join(words, " ")
			if want, fails := strings.CutPrefix(c.want, "error: "); fails && (err == nil || !strings.Contains(err.Error(), want)) || !fails && (err != nil || got != c.want) {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
			if asked := z.Queries(); !slices.Equal(asked, c.asked) {
				t.Errorf("asked %q, want %q", asked, c.asked)
			}
		})
	}
}

// What was found counts as long as its shortest time to live, and is asked for again
// when that is over or when it does not answer.
func TestLocateAgain(t *testing.T) {
	t.Parallel()
	z := nameserver.New(t, "p1.example.test 1 A 192.0.2.1", "_sip._udp.example.test 45 SRV 0 0 5060 p1.example.test", "_sip._udp.example.test 90 SRV 0 0 5060 p1.example.test")
	l := New(z.Address)
	find := func() {
		t.Helper()
		if _, err := l.Find(t.Context(), "example.test", "udp"); err != nil {
			t.Fatal(err)
		}
	}
	find()
	find()
	if n := len(z.Queries()); n != 2 || !l.Fresh("example.test", "udp") {
		t.Errorf("%d queries", n)
	}
	if left := time.Until(l.found["udp example.test"].until); left > 45*time.Second || left < 40*time.Second {
		t.Errorf("holds for %v", left)
	}
	l.Forget("example.test", "udp")
	find()
	if n := len(z.Queries()); n != 4 {
		t.Errorf("%d queries", n)
	}
	l.found["udp example.test"] = located{until: time.Now().Add(-time.Second)}
	find()
	if n := len(z.Queries()); n != 6 {
		t.Errorf("%d queries", n)
	}
}

// An answer that does not fit comes by TCP; a server that fails is passed over.
func TestQuery(t *testing.T) {
	t.Parallel()
	broken, z := nameserver.New(t), nameserver.New(t, "_sip._udp.example.test 60 SRV 0 0 5060 p1.example.test")
	broken.Refuse()
	z.Cut()
	n := names{servers: []string{broken.Address, z.Address}}
	records, ttl, err := n.srv(t.Context(), "_sip._udp.example.test")
	if err != nil || len(records) != 1 || records[0].host != "p1.example.test" || ttl != time.Minute {
		t.Errorf("%v, %v, %v", records, ttl, err)
	}
	if _, _, err := n.srv(t.Context(), strings.Repeat("x", 300)); err == nil {
		t.Error("a name that is too long")
	}
	n.servers = n.servers[:1]
	if _, _, err := n.srv(t.Context(), "_sip._udp.example.test"); err == nil || !strings.Contains(err.Error(), "ServerFailure") {
		t.Errorf("of a server that fails: %v", err)
	}
}

// The order of RFC 2782: every record once, by priority; among equals the heavy ones
// tend to come first, and none is left out.
func TestOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []srvRecord
		for i := range rapid.IntRange(0, 8).Draw(t, "records") {
			records = append(records, srvRecord{rapid.Uint16Range(0, 2).Draw(t, "priority"), rapid.Uint16Range(0, 5).Draw(t, "weight"), uint16(i), "h"}) //nolint:gosec // small
		}
		got := ordered(records, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") })
		if !slices.IsSortedFunc(got, func(a, b srvRecord) int { return int(a.priority) - int(b.priority) }) {
			t.Fatalf("not by priority: %v", got)
		}
		for _, r := range records {
			if !slices.Contains(got, r) {
				t.Fatalf("%v is not in %v", r, got)
			}
		}
		if len(got) != len(records) {
			t.Fatalf("%v of %v", got, records)
		}
	})
	records := []srvRecord{{0, 1, 1, "light"}, {0, 3, 2, "heavy"}}
	for pick, first := range []string{"light", "light", "heavy", "heavy", "heavy"} {
		if got := ordered(records, func(n int) int { return min(pick, n-1) }); got[0].host != first {
			t.Errorf("with %d of 4 the first one is %s", pick, got[0].host)
		}
	}
}

// Whatever a name server sends is read without a panic.
func FuzzReply(f *testing.F) {
	q := dnsmessage.Question{Name: dnsmessage.MustNewName("a.b."), Type: typeNAPTR, Class: dnsmessage.ClassINET}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true}, Questions: []dnsmessage.Question{q}, Answers: []dnsmessage.Resource{
		{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}, Body: &dnsmessage.UnknownResource{Type: typeNAPTR, Data: []byte("\x00\x01\x00\x01\x01s\x07SIP+D2U\x00\x04_sip\x01b\x00")}},
	}}
	packed, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add(packed[:len(packed)-3])
	f.Fuzz(func(t *testing.T, data []byte) {
		_, answers, _ := parseReply(data, 7, &q)
		for i := range answers {
			if body, ok := answers[i].Body.(*dnsmessage.UnknownResource); ok {
				if s, ok := parseNAPTR(body.Data); ok && (s.name == "" || s.transport == "") {
					t.Errorf("%+v", s)
				}
			}
		}
	})
}
