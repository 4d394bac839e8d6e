package sip

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

// A zone is what a name server of ours knows: lines as in a zone file, each
// "NAME TTL TYPE DATA". It answers by UDP and TCP at the same port.
type zone struct {
	t       *testing.T
	address string

	mu     sync.Mutex
	lines  []string
	asked  []string // "TYPE NAME", in order
	cut    bool     // by UDP
	refuse bool
}

func newZone(t *testing.T, lines ...string) *zone {
	t.Helper()
	z := &zone{t: t, lines: lines}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z.address = l.Addr().String()
	conn, err := net.ListenPacket("udp", z.address)
	if err != nil {
		_ = l.Close()
		t.Skipf("the port %s is taken for UDP: %v", z.address, err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			a := z.answer(buf[:n], true)
			stray := slices.Clone(a)
			stray[0] ^= 0xff // of another query,
			stray[3] = 5     // and refused
			_, _ = conn.WriteTo(stray, from)
			_, _ = conn.WriteTo(a, from)
		}
	})
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var length [2]byte
			if _, err := io.ReadFull(c, length[:]); err == nil {
				query := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(c, query); err == nil {
					a := z.answer(query, false)
					_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...)) //nolint:gosec // short
				}
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		_ = l.Close()
		group.Wait()
	})
	return z
}

func (z *zone) set(lines ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.lines, z.asked = lines, nil
}

// fail changes how it answers.
func (z *zone) fail(change func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	change()
}

// queries gives what was asked of SRV and NAPTR since set.
func (z *zone) queries() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.asked)
}

// locator gives one that asks this zone only.
func (z *zone) locator() *locator {
	l := newLocator()
	l.names = names{servers: []string{z.address}, hosts: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, z.address)
	}}}
	return l
}

func (z *zone) answer(query []byte, udp bool) []byte {
	z.mu.Lock()
	defer z.mu.Unlock()
	var q dnsmessage.Message
	if err := q.Unpack(query); err != nil || len(q.Questions) != 1 {
		z.t.Errorf("a query that is none: %v", err)
		return make([]byte, 1)
	}
	asked := q.Questions[0]
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true}, Questions: q.Questions}
	kind := map[dnsmessage.Type]string{dnsmessage.TypeA: "A", dnsmessage.TypeAAAA: "AAAA", dnsmessage.TypeSRV: "SRV", typeNAPTR: "NAPTR"}[asked.Type]
	if kind == "SRV" || kind == "NAPTR" {
		z.asked = append(z.asked, kind+" "+strings.TrimSuffix(asked.Name.String(), "."))
	}
	if z.refuse {
		m.RCode = dnsmessage.RCodeServerFailure
	}
	known := false
	for _, line := range z.lines {
		f := strings.Fields(line)
		if f[0]+"." != strings.ToLower(asked.Name.String()) {
			continue
		}
		known = true
		if f[2] == kind {
			m.Answers = append(m.Answers, z.record(asked, f))
		}
	}
	if !known && !z.refuse {
		m.RCode = dnsmessage.RCodeNameError
	}
	if udp && z.cut && len(m.Answers) > 0 {
		m.Truncated, m.Answers = true, nil
	}
	packed, err := m.Pack()
	if err != nil {
		z.t.Error(err)
	}
	return packed
}

func (z *zone) record(q dnsmessage.Question, f []string) dnsmessage.Resource {
	var ttl uint32
	_, _ = fmt.Sscan(f[1], &ttl)
	r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: ttl}}
	switch f[2] {
	case "A":
		r.Body = &dnsmessage.AResource{A: netip.MustParseAddr(f[3]).As4()}
	case "AAAA":
		r.Body = &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(f[3]).As16()}
	case "SRV":
		var s dnsmessage.SRVResource
		_, _ = fmt.Sscan(strings.Join(f[3:6], " "), &s.Priority, &s.Weight, &s.Port)
		s.Target = dnsmessage.MustNewName(strings.TrimSuffix(f[6], ".") + ".")
		r.Body = &s
	case "NAPTR": // ORDER PREFERENCE FLAGS SERVICES REPLACEMENT
		var order, preference uint16
		_, _ = fmt.Sscan(f[3]+" "+f[4], &order, &preference)
		data := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, order), preference)
		for _, text := range []string{f[5], f[6], ""} {
			data = append(append(data, byte(len(text))), text...) //nolint:gosec // short
		}
		for label := range strings.SplitSeq(f[7], ".") {
			data = append(append(data, byte(len(label))), label...) //nolint:gosec // short
		}
		r.Body = &dnsmessage.UnknownResource{Type: typeNAPTR, Data: append(data, 0)}
	}
	return r
}

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
		"nothing": {"example.test", "udp", nil, "error: no such host", []string{"NAPTR example.test", "SRV _sip._udp.example.test"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			z := newZone(t, c.zone...)
			targets, err := z.locator().find(t.Context(), c.address, c.transport)
			words := make([]string, 0, len(targets))
			for _, to := range targets {
				words = append(words, to.transport+" "+to.at.String())
			}
			got := strings.Join(words, " ")
			if want, fails := strings.CutPrefix(c.want, "error: "); fails && (err == nil || !strings.Contains(err.Error(), want)) || !fails && (err != nil || got != c.want) {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
			if asked := z.queries(); !slices.Equal(asked, c.asked) {
				t.Errorf("asked %q, want %q", asked, c.asked)
			}
		})
	}
}

// What was found counts as long as its shortest time to live, and is asked for again
// when that is over or when it does not answer.
func TestLocateAgain(t *testing.T) {
	t.Parallel()
	z := newZone(t, "p1.example.test 1 A 192.0.2.1", "_sip._udp.example.test 45 SRV 0 0 5060 p1.example.test", "_sip._udp.example.test 90 SRV 0 0 5060 p1.example.test")
	l := z.locator()
	find := func() {
		t.Helper()
		if _, err := l.find(t.Context(), "example.test", "udp"); err != nil {
			t.Fatal(err)
		}
	}
	find()
	find()
	if n := len(z.queries()); n != 2 || !l.fresh("example.test", "udp") {
		t.Errorf("%d queries", n)
	}
	if left := time.Until(l.found["udp example.test"].until); left > 45*time.Second || left < 40*time.Second {
		t.Errorf("holds for %v", left)
	}
	l.forget("example.test", "udp")
	find()
	if n := len(z.queries()); n != 4 {
		t.Errorf("%d queries", n)
	}
	l.found["udp example.test"] = located{until: time.Now().Add(-time.Second)}
	find()
	if n := len(z.queries()); n != 6 {
		t.Errorf("%d queries", n)
	}
}

// An answer that does not fit comes by TCP; a server that fails is passed over.
func TestQuery(t *testing.T) {
	t.Parallel()
	broken, z := newZone(t), newZone(t, "_sip._udp.example.test 60 SRV 0 0 5060 p1.example.test")
	broken.fail(func() { broken.refuse = true })
	z.fail(func() { z.cut = true })
	n := names{servers: []string{broken.address, z.address}}
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

// The next target of a name takes over where the first one says 503 or does not
// answer any more, without the server that stands in; and where the DNS names others.
func TestTargets(t *testing.T) {
	t.Parallel()
	a, b, c, spare := newCompositor(t), newCompositor(t), newCompositor(t), newCompositor(t)
	srv := func(priority int, e *compositor) string {
		_, port, _ := net.SplitHostPort(e.address)
		return fmt.Sprintf("_sip._tcp.example.test 30 SRV %d 0 %s h.example.test", priority, port)
	}
	const host = "h.example.test 30 A 127.0.0.1"
	z := newZone(t, host, srv(1, a), srv(2, b))
	cfg := tcpConfig(t, spare)
	cfg.Address, cfg.Secondary = "example.test", spare.address
	publisher := watchful(newPublisher(t, cfg, newMemory()))
	publisher.locator = z.locator()
	hub := newHub()
	p := run(t, publisher, hub)
	hub.tell("1", presence.Available, presence.NoActivity)
	a.expect("initial 1")
	a.refuse("503 Service Unavailable")
	hub.tell("1", presence.Busy, presence.NoActivity)
	b.expect("lost 1", "initial 1") // the tag is of the first one
	if s := p.Status(); s.Phase == presence.PhaseDegraded {
		t.Errorf("status %+v", s)
	}
	z.set(host, srv(1, c))
	p.locator.forget("example.test", "tcp") // its time is over
	c.expect("lost 1", "initial 1")
	p.stop()
	c.expect("remove 1")
	spare.silent()
}
