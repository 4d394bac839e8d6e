package sip

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"presenced/aggregator/presence"
)

// accept answers every PUBLISH with 200 and a new tag.
func accept() handler {
	var n atomic.Int64
	return func(m *message) []string {
		return []string{m.reply("200 OK", fmt.Sprintf("SIP-ETag: t%d", n.Add(1)), "Expires: 600")}
	}
}

// What cannot be read or makes no sense is counted, and nothing else happens.
func TestMalformedAnswers(t *testing.T) {
	t.Parallel()
	good := accept()
	for name, c := range map[string]struct {
		first   func(m *message) []string
		problem string
		works   bool // the publication is in order at once
	}{
		"garbage": {func(m *message) []string {
			return append([]string{"SIP/2.0 two hundred\r\n\r\n", "\x00\xff"}, good(m)...)
		}, "messages malformed", true},
		"empty lines before": {func(m *message) []string { return []string{"\r\n\r\n" + good(m)[0]} }, "", true},
		"twice":              {func(m *message) []string { a := good(m)[0]; return []string{a, a} }, "", true},
		"provisional first":  {func(m *message) []string { return append([]string{m.reply("100 Trying")}, good(m)...) }, "", true},
		"an unknown success": {func(m *message) []string { return []string{m.reply("299 Fine", "SIP-ETag: x", "Expires: soon")} }, "", true},
		"no tag":             {func(m *message) []string { return []string{m.reply("200 OK", "Expires: 600")} }, "answers malformed", false},
		"two tags":           {func(m *message) []string { return []string{m.reply("200 OK", "SIP-ETag: a", "SIP-ETag: b")} }, "answers malformed", false},
		"a tag that is none": {func(m *message) []string { return []string{m.reply("200 OK", "SIP-ETag: a b;c")} }, "answers malformed", false},
		"423 without a time": {func(m *message) []string { return []string{m.reply("423 Interval Too Brief")} }, "answers malformed", false},
		"a huge Min-Expires": {func(m *message) []string { return []string{m.reply("423 Too Brief", "Min-Expires: 4294967295")} }, "answers malformed", false},
		"a huge Retry-After": {func(m *message) []string { return []string{m.reply("500 No", "Retry-After: 99999999999999999999")} }, "answers 5xx and 6xx", false},
		"an unknown refusal": {func(m *message) []string { return []string{m.reply("499 Go Away")} }, "publications refused", false},
		"a redirection":      {func(m *message) []string { return []string{m.reply("302 Moved", "Contact: <sip:x@y>")} }, "publications refused", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan struct{}, 100)
			address := packetServer(t, func(m *message) []string {
				asked <- struct{}{}
				if strings.Contains(m.header.Get("Expires"), "600") {
					return c.first(m)
				}
				return good(m) // the removal
			})
			hub, memory := newHub(), newMemory()
			cfg := testConfig(t, address)
			cfg.Entity = "sip:{tel}@e" // small enough for one packet
			p := run(t, newPublisher(t, cfg, memory), hub)
			hub.tell("4750", presence.Available, presence.NoActivity)
			<-asked
			if c.works {
				memory.tag(t)
			}
			if c.problem != "" {
				awaitProblem(t, p.Publisher, c.problem)
			}
			p.stop()
			if c.problem == "" && len(p.Status().Problems) != 0 && p.Status().Problems["answers too late"] == 0 {
				t.Errorf("problems %v", p.Status().Problems)
			}
		})
	}
}

func awaitProblem(t *testing.T, p *Publisher, kind string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); p.Status().Problems[kind] == 0; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("no %q among the problems %v", kind, p.Status().Problems)
		}
	}
}

// What is too large for a packet goes by TCP; where the server does not take
// TCP, it goes by UDP after all.
func TestLargeRequests(t *testing.T) {
	t.Parallel()
	for _, withTCP := range []bool{true, false} {
		t.Run(fmt.Sprintf("TCP %v", withTCP), func(t *testing.T) {
			t.Parallel()
			good := accept()
			got := make(chan string, 10)
			address := packetServer(t, func(m *message) []string {
				got <- fmt.Sprintf("UDP %v", m.size > safePacket)
				return good(m)
			})
			if withTCP {
				l, err := net.Listen("tcp", address)
				if err != nil {
					t.Skipf("the port %s is taken for TCP: %v", address, err)
				}
				streamServer(t, l, func(m *message) []string {
					got <- "TCP"
					return good(m)
				})
			}
			hub, memory := newHub(), newMemory()
			p := run(t, newPublisher(t, testConfig(t, address), memory), hub)
			s := presence.State{Person: "4750", Availability: presence.Busy, Activity: presence.ActivityPhone, Since: epoch}
			for i := range s.Channels {
				s.Channels[i] = presence.Channel{State: presence.ChannelInUse, Contact: "tel:4750", Since: epoch}
			}
			hub.people["4750"] = presence.Person{ID: "4750", Subjects: []presence.Subject{{Scheme: "tel", Value: "4750"}}}
			hub.states <- s
			memory.tag(t)
			want := "UDP true"
			if withTCP {
				want = "TCP"
			}
			if how := <-got; how != want {
				t.Errorf("sent by %s, want %s", how, want)
			}
			p.stop()
			if how := <-got; how != "UDP false" {
				t.Errorf("the removal went by %s", how)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	vias := make(chan string, 10)
	good := accept()
	streamServer(t, l, func(m *message) []string {
		vias <- m.header.Get("Via")
		return good(m)
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	cfg := testConfig(t, "localhost:"+port)
	cfg.Transport, cfg.TLS.CAFile = "tls", ca
	hub, memory := newHub(), newMemory()
	p := run(t, newPublisher(t, cfg, memory), hub)
	hub.tell("4750", presence.Available, presence.NoActivity)
	memory.tag(t)
	if via := <-vias; !strings.HasPrefix(via, "SIP/2.0/TLS 127.0.0.1:") {
		t.Errorf("Via: %s", via)
	}
	p.stop()

	cfg.TLS.CAFile = ""
	if err := run(t, newPublisher(t, cfg, memory), newHub()).wait(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server that nobody vouches for: %v", err)
	}
}

// The nonce of the first challenge is used before the server asks, with a rising
// count, and the best challenge that can be answered is taken.
func TestDigest(t *testing.T) {
	t.Parallel()
	good := accept()
	type attempt struct{ authorization, line string }
	attempts := make(chan attempt, 10)
	address := packetServer(t, func(m *message) []string {
		a := m.header.Get("Authorization")
		attempts <- attempt{a, m.line}
		if a == "" {
			return []string{m.reply("401 Unauthorized", `WWW-Authenticate: Digest realm="r", nonce="aka", algorithm=AKAv1-MD5, qop="auth"`,
				`WWW-Authenticate: Digest realm="r", nonce="sha", algorithm=SHA-256, qop="auth-int, auth"`,
				`WWW-Authenticate: Digest realm="r", nonce="md5"`)}
		}
		return good(m)
	})
	hub, memory := newHub(), newMemory()
	cfg := testConfig(t, address)
	cfg.User, cfg.PasswordFile, cfg.Entity = "u", password(t, "p"), "sip:{tel}@e;x=1"
	p := run(t, newPublisher(t, cfg, memory), hub)
	hub.tell("4750", presence.Available, presence.NoActivity)
	tag := memory.tag(t)
	hub.tell("4750", presence.Offline, presence.NoActivity)
	memory.tag(t, tag)
	if a := <-attempts; a.authorization != "" {
		t.Errorf("Authorization before the challenge: %s", a.authorization)
	}
	for _, nc := range []string{"nc=00000001", "nc=00000002"} {
		a := <-attempts
		for _, part := range []string{`nonce="sha"`, "algorithm=SHA-256", "qop=auth,", nc, `uri="sip:4750@e;x=1"`} {
			if !strings.Contains(a.authorization, part) {
				t.Errorf("no %s in %s", part, a.authorization)
			}
		}
		if a.line != "PUBLISH sip:4750@e;x=1 SIP/2.0" {
			t.Errorf("sent %s", a.line)
		}
	}
	p.stop()
}

// Many people are published at the configured pace, with no more requests out than
// allowed, and each in its own right.
func TestPace(t *testing.T) {
	t.Parallel()
	const people = 40
	var out, most atomic.Int64
	good := accept()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streamServer(t, l, func(m *message) []string {
		most.Store(max(most.Load(), out.Add(1)))
		defer out.Add(-1)
		return good(m)
	})
	cfg := testConfig(t, l.Addr().String())
	cfg.Transport, cfg.Rate, cfg.Outstanding = "tcp", 100, 5
	hub, memory := newHub(), newMemory()
	publisher := newPublisher(t, cfg, memory)
	publisher.servers[0].limiter = rate.NewLimiter(100, 20)
	p := run(t, publisher, hub)
	began := time.Now()
	for i := range people {
		hub.tell(presence.ID(fmt.Sprint(4000+i)), presence.Available, presence.NoActivity)
	}
	for range people {
		memory.tag(t)
	}
	if took := time.Since(began); took < 150*time.Millisecond {
		t.Errorf("%d requests at 100 a second with a burst of 20 took %v", people, took)
	}
	p.stop()
	if s := p.Status(); s.Total != people || len(s.Problems) != 0 {
		t.Errorf("status %+v", s)
	}
	if most.Load() > int64(cfg.Outstanding) {
		t.Errorf("%d requests at a time", most.Load())
	}
	if memory.size() != 0 {
		t.Errorf("%d of %d people were not removed", memory.size(), people)
	}
}

// People who leave, move, share an address or have none.
func TestPeople(t *testing.T) {
	t.Parallel()
	good := accept()
	lines := make(chan string, 100)
	address := packetServer(t, func(m *message) []string {
		body := "without body"
		if m.body != "" {
			body = "with body"
		}
		lines <- strings.TrimSuffix(m.line, " SIP/2.0") + " " + m.header.Get("Expires") + " " + body
		return good(m)
	})
	hub, memory := newHub(), newMemory()
	person := func(id presence.ID, tel string) {
		hub.mu.Lock()
		defer hub.mu.Unlock()
		hub.people[id] = presence.Person{ID: id}
		if tel != "" {
			hub.people[id] = presence.Person{ID: id, Subjects: []presence.Subject{{Scheme: "mail", Value: "x@y"}, {Scheme: "tel", Value: tel}}}
		}
	}
	cfg := testConfig(t, address)
	cfg.Entity = "sip:{tel}@e"
	p := run(t, newPublisher(t, cfg, memory), hub)
	next := func(want ...string) {
		t.Helper()
		var got []string
		for range want {
			select {
			case line := <-lines:
				got = append(got, line)
			case <-time.After(patience):
				t.Fatalf("sent %q, want %q", got, want)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) { // requests about different people may overtake one another
			t.Errorf("sent %q, want %q", got, want)
		}
	}
	person("nobody", "")
	person("evil", "1\r\ny")
	person("worse", "1@x>\r\n\r\n")
	person("ann", "1")
	person("bob", "1")
	hub.tell("nobody", presence.Available, presence.NoActivity)
	hub.tell("ann", presence.Available, presence.NoActivity)
	next("PUBLISH sip:1@e 600 with body")
	hub.tell("bob", presence.Busy, presence.NoActivity) // has the address of ann
	hub.tell("evil", presence.Available, presence.NoActivity)
	next("PUBLISH sip:1%0D%0Ay@e 600 with body")
	hub.tell("worse", presence.Available, presence.NoActivity)
	person("ann", "2")
	hub.tell("ann", presence.Available, presence.NoActivity)
	next("PUBLISH sip:1@e 0 without body", "PUBLISH sip:2@e 600 with body")
	hub.states <- presence.State{Person: "ann", Why: presence.Reason{Rule: presence.RuleRemoved}}
	next("PUBLISH sip:2@e 0 without body")
	p.stop()
	s := p.Status()
	if s.Problems["addresses shared"] != 1 || s.Problems["addresses malformed"] != 1 || s.Total != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6 loopback: %v", err)
	}
	good := accept()
	vias := make(chan string, 10)
	streamServer(t, l, func(m *message) []string {
		vias <- m.header.Get("Via")
		return good(m)
	})
	cfg := testConfig(t, l.Addr().String())
	cfg.Transport = "tcp"
	hub, memory := newHub(), newMemory()
	p := run(t, newPublisher(t, cfg, memory), hub)
	hub.tell("4750", presence.Available, presence.NoActivity)
	memory.tag(t)
	if via := <-vias; !strings.HasPrefix(via, "SIP/2.0/TCP [::1]:") {
		t.Errorf("Via: %s", via)
	}
	p.stop()
}

// A look at the server that stood in may end after the first one is used again.
// What is removed there by the same link goes on, and nothing is published there.
func TestLateProbe(t *testing.T) {
	t.Parallel()
	server := packetServer(t, accept())
	cfg := testConfig(t, "127.0.0.1:1")
	cfg.Secondary = server
	p := newPublisher(t, cfg, newMemory())
	s := &session{Publisher: p, life: t.Context()}
	first, second := p.servers[0], p.servers[1]
	for _, srv := range p.servers {
		l, err := openLink(t.Context(), server, target{"udp", netip.MustParseAddrPort(server)}, nil, p.log, p.board.notice)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(srv.drop)
		srv.link = l
	}
	s.active = first
	second.back = time.Now().Add(-time.Hour)
	for _, why := range []error{nil, errors.New("no answer")} {
		for range 3 {
			if err := s.probed(t.Context(), &probe{server: second, link: second.link, err: why}); err != nil {
				t.Fatal(err)
			}
			if s.active != first {
				t.Fatal("the server that stood in is used")
			}
			if err := second.link.options(t.Context()); err != nil {
				t.Fatalf("the link: %v", err)
			}
		}
	}
}

// What the server that stood in holds is removed when the first one is back, even
// if the first attempt comes to nothing, and the connection is lost with it.
func TestRemovalRepeated(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(*message) string{
		"trouble":    func(m *message) string { return m.reply("503 Service Unavailable", "Retry-After: 1") },
		"connection": func(*message) string { return hangUp },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := accept()
			var works atomic.Bool
			a := listen(t, func(m *message) []string {
				if works.Load() {
					return good(m)
				}
				return []string{m.reply("503 Service Unavailable")}
			})
			removals := make(chan string, 10)
			var published, attempts atomic.Int64
			b := listen(t, func(m *message) []string {
				if m.header.Get("Expires") != "0" {
					published.Add(1)
					return good(m)
				}
				removals <- m.header.Get("Sip-If-Match")
				if attempts.Add(1) == 1 {
					return []string{first(m)}
				}
				return good(m)
			})
			cfg := testConfig(t, a)
			cfg.Secondary, cfg.Transport = b, "tcp"
			hub, memory := newHub(), newMemory()
			p := run(t, watchful(newPublisher(t, cfg, memory)), hub)
			hub.tell("4750", presence.Available, presence.NoActivity)
			tag := memory.tag(t)
			works.Store(true)
			for range 2 {
				select {
				case got := <-removals:
					if got != tag {
						t.Errorf("removes %s, published %s", got, tag)
					}
				case <-time.After(patience):
					t.Fatal("nothing is removed")
				}
			}
			p.stop()
			if published.Load() != 1 || len(removals) != 0 || memory.size() != 0 {
				t.Errorf("%d publications, %d more removals, %d tags kept", published.Load(), len(removals), memory.size())
			}
		})
	}
}
