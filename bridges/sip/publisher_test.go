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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/lookup"
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
	var names sync.Map // that clients asked for
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequireAnyClientCert,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			names.Store(hello.ServerName, true)
			return nil, nil //nolint:nilnil // the same settings
		},
	})
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
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, "127.0.0.1:"+port)
	cfg.Transport, cfg.TLS.CAFile, cfg.TLS.ServerName = "tls", ca, "localhost"
	cfg.TLS.CertFile, cfg.TLS.KeyFile = ca, keyFile
	hub, memory := newHub(), newMemory()
	p := run(t, newPublisher(t, cfg, memory), hub)
	hub.tell("4750", presence.Available, presence.NoActivity)
	memory.tag(t)
	if via := <-vias; !strings.HasPrefix(via, "SIP/2.0/TLS 127.0.0.1:") {
		t.Errorf("Via: %s", via)
	}
	p.stop()
	if _, ok := names.Load("localhost"); !ok {
		t.Error("the name of the configuration is not asked for")
	}

	for change, wrong := range map[string]func(*Config){
		"no certificate":  func(c *Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" },
		"another name":    func(c *Config) { c.TLS.ServerName = "example.test" },
		"no name but one": func(c *Config) { c.TLS.ServerName = "" }, // the certificate is not for the address
	} {
		other := cfg
		wrong(&other)
		if err := run(t, newPublisher(t, other, memory), newHub()).wait(); err == nil {
			t.Errorf("%s: it connects", change)
		}
	}
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
				`WWW-Authenticate: Digest realm="r", nonce="int", algorithm=SHA-512-256, qop="auth-int"`,
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
		l, err := openLink(t.Context(), server, lookup.Target{Transport: "udp", At: netip.MustParseAddrPort(server)}, nil, p.log, p.board.notice)
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

// A link that is closed while requests begin leaves no socket behind (TestMain looks).
func TestLinkClosed(t *testing.T) {
	t.Parallel()
	server := packetServer(t, accept())
	for range 50 {
		l, err := openLink(t.Context(), server, lookup.Target{Transport: "udp", At: netip.MustParseAddrPort(server)}, nil, quiet(t), func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for range 10 {
			group.Go(func() { _ = l.options(t.Context()) })
		}
		l.close()
		group.Wait()
		if err := l.options(t.Context()); err == nil {
			t.Error("a closed link sends")
		}
	}
}

// A nonce that the server thinks too old is replaced, and counted from one.
func TestStaleNonce(t *testing.T) {
	t.Parallel()
	good := accept()
	seen := make(chan string, 10)
	var nonces atomic.Int64
	address := packetServer(t, func(m *message) []string {
		a, want := m.header.Get("Authorization"), fmt.Sprintf(`nonce="n%d"`, nonces.Load())
		_, count, _ := strings.Cut(a, "nc=")
		if a != "" {
			seen <- count[:8]
		}
		if nonces.Load() > 0 && strings.Contains(a, want) && count[:8] != "00000003" {
			return good(m)
		}
		return []string{m.reply("401 Unauthorized", fmt.Sprintf(`WWW-Authenticate: Digest realm="r", nonce="n%d", stale=true, qop="auth"`, nonces.Add(1)))}
	})
	hub, memory := newHub(), newMemory()
	cfg := testConfig(t, address)
	cfg.User, cfg.PasswordFile = "u", password(t, "p")
	p := run(t, newPublisher(t, cfg, memory), hub)
	var tags []string
	for _, a := range []presence.Availability{presence.Available, presence.Offline, presence.Available, presence.Offline} {
		hub.tell("4750", a, presence.NoActivity)
		tags = append(tags, memory.tag(t, tags...))
	}
	for i, want := range []string{"00000001", "00000002", "00000003", "00000001", "00000002"} {
		if got := <-seen; got != want {
			t.Errorf("request %d has nc=%s, want %s", i, got, want)
		}
	}
	p.stop()
	if s := p.Status(); len(s.Problems) != 0 {
		t.Errorf("problems %v", s.Problems)
	}
}

// What a server wants different from another, and a name that changes, are seen in
// the next document at once.
func TestDocuments(t *testing.T) {
	t.Parallel()
	good := accept()
	bodies := make(chan string, 10)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streamServer(t, l, func(m *message) []string {
		if m.body != "" {
			bodies <- m.body
		}
		return good(m)
	})
	hub := newOffice(t, "ann")
	hub.call("ann")
	cfg := testConfig(t, l.Addr().String())
	cfg.Transport = "tcp"
	p := run(t, newPublisher(t, cfg, newMemory()), hub)
	has := func(what string, with, without []string) {
		t.Helper()
		var body string
		select {
		case body = <-bodies:
		case <-time.After(patience):
			t.Fatalf("%s: nothing is published", what)
		}
		for _, part := range with {
			if !strings.Contains(body, part) {
				t.Errorf("%s: no %s in\n%s", what, part, body)
			}
		}
		for _, part := range without {
			if strings.Contains(body, part) {
				t.Errorf("%s: %s in\n%s", what, part, body)
			}
		}
	}
	old, cisco, name := "rpid-status", "urn:cisco", "display-name"
	has("as usual", []string{"<basic>open", "rpid:on-the-phone"}, []string{old, cisco, name})
	hub.named("ann", "Ann Example")
	p.Review()
	has("a name", []string{"Ann Example</ci:display-name>"}, nil)
	cfg.DisplayName, cfg.Microsoft, cfg.Cisco = false, true, true
	p.Reform(cfg, nil)
	has("Microsoft and Cisco", []string{old, cisco}, []string{name})
	cfg.Body, cfg.BusyBasic = "plain", "closed"
	p.Reform(cfg, nil)
	has("plain", []string{"<basic>closed", "On the phone"}, []string{old, cisco, name, "rpid"})
	p.stop()
}

// The pace follows the number of publications, unless it is configured; one that is
// too slow to keep them alive is told of.
func TestPaceFollows(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	srv := newServer("h:1", &cfg)
	for people, want := range map[int]float64{0: 50, 10000: 50, 100000: 418, 10000000: maxRate} {
		srv.pubs = make(map[string]*entry, people)
		for i := range min(people, 100000) {
			srv.pubs[fmt.Sprint(i)] = nil
		}
		srv.terms.granted = cfg.Expires
		if people > 100000 {
			srv.terms.granted = time.Second
		}
		srv.setPace(0)
		if got := float64(srv.limiter.Limit()); got != want {
			t.Errorf("%d people at %v a second, want %v", people, got, want)
		}
		srv.setPace(7)
		if got := float64(srv.limiter.Limit()); got != 7 || srv.limiter.Burst() != 7 {
			t.Errorf("at %v a second instead of 7", got)
		}
	}

	a := newCompositor(t)
	hub := newOffice(t, "1", "2", "3", "4")
	cfg = tcpConfig(t, a)
	cfg.Expires, cfg.Rate = 2*time.Second, 1
	publisher := newPublisher(t, cfg, newMemory())
	publisher.pauses.stop = time.Millisecond
	p := run(t, publisher, hub)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !strings.Contains(p.Status().Detail, "set rate to 3 or more"); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("status %+v", p.Status())
		}
	}
	p.stop()
}

// While many wait to be published, those who are there are changed and kept in turn
// with them, and before them when they would end.
func TestLanes(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	srv := newServer("h:1", &cfg)
	now := epoch
	add := func(entity string, dies time.Duration) {
		e, err := srv.entry(entity)
		if err != nil {
			t.Fatal(err)
		}
		if dies > 0 {
			e.Inherit("t", now.Add(dies), now)
		}
		e.Want([]byte("x"), now)
		srv.place(e)
	}
	add("sip:a@kept", 10*time.Minute)
	add("sip:b@kept", 10*time.Minute)
	for i := range 4 {
		add(fmt.Sprintf("sip:%d@new", i), 0)
	}
	var got []string
	for e := srv.due(now); e != nil; e = srv.due(now) {
		srv.filled = e.lane == filling
		if _, ok := e.Send(now); !ok {
			t.Fatal("nothing to send")
		}
		srv.place(e)
		got = append(got, e.uri.Host)
	}
	if want := []string{"new", "kept", "new", "kept", "new", "new"}; !slices.Equal(got, want) {
		t.Errorf("in the order %q, want %q", got, want)
	}
	add("sip:c@kept", 30*time.Second)
	add("sip:d@kept", 40*time.Second)
	add("sip:9@new", 0)
	for _, want := range []string{"kept", "kept", "new"} {
		e := srv.due(now)
		srv.filled = false
		e.Send(now)
		srv.place(e)
		if e.uri.Host != want {
			t.Errorf("%s before its time", e.entity)
		}
	}
	if d := srv.idle(now, time.Hour); d != time.Hour {
		t.Errorf("something is due in %v", d)
	}
}

// The server that says 503 for long is left alone so long, by everybody, and the other
// one stands in; one that says it for a moment is waited for.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	a, b := newCompositor(t), newCompositor(t)
	cfg := tcpConfig(t, a)
	cfg.Secondary = b.address
	publisher := watchful(newPublisher(t, cfg, newMemory()))
	hub := newHub()
	p := run(t, publisher, hub)
	hub.tell("1", presence.Available, presence.NoActivity)
	hub.tell("2", presence.Available, presence.NoActivity)
	a.expect("initial 1", "initial 2")
	a.refuse("503 Service Unavailable\r\nRetry-After: 1")
	hub.tell("1", presence.Busy, presence.NoActivity)
	awaitProblem(t, p.Publisher, "answers 5xx and 6xx")
	began := time.Now()
	a.refuse("")
	hub.tell("2", presence.Busy, presence.NoActivity)
	first := <-a.events
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("%s after %v", first, took)
	}
	if second := <-a.events; first[:6] != "modify" || second[:6] != "modify" || first == second {
		t.Errorf("%s, %s", first, second)
	}
	a.refuse("503 Service Unavailable\r\nRetry-After: 3000")
	hub.tell("1", presence.Available, presence.NoActivity)
	b.expect("initial 1", "initial 2")
	a.refuse("")
	hub.tell("1", presence.Busy, presence.NoActivity)
	b.expect("modify 1")
	a.silent()
	p.stop()
	b.expect("remove 1", "remove 2")
}

// The first server is used again when it has answered for long enough, and not at the
// same moment by all.
func TestReturn(t *testing.T) {
	t.Parallel()
	server := packetServer(t, accept())
	to := lookup.Target{Transport: "udp", At: netip.MustParseAddrPort(server)}
	cfg := testConfig(t, server)
	cfg.Secondary = "127.0.0.1:1"
	moments := map[time.Duration]bool{}
	for range 20 {
		p := newPublisher(t, cfg, newMemory())
		s := &session{Publisher: p, life: t.Context(), active: p.servers[1]}
		first := p.servers[0]
		look := func() {
			l, err := openLink(t.Context(), server, to, nil, p.log, p.board.notice)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.probed(t.Context(), &probe{server: first, link: l, fresh: true}); err != nil {
				t.Fatal(err)
			}
		}
		look()
		wait := time.Until(first.back)
		if wait < returnPause-time.Second || wait > returnPause*5/4 {
			t.Errorf("back in %v", wait)
		}
		moments[wait.Round(time.Millisecond)] = true
		look()
		if s.active == first {
			t.Error("used at once")
		}
		first.back = time.Now().Add(-time.Millisecond)
		look()
		if s.active != first {
			t.Error("not used")
		}
		first.drop()
	}
	if len(moments) < 10 {
		t.Errorf("only %d moments", len(moments))
	}
}

// A server that was started anew, and does not show it but by a lost tag, gets
// everybody again, and not only whose turn it is.
func TestStartedAnew(t *testing.T) {
	t.Parallel()
	a := newCompositor(t)
	hub := newHub()
	p := run(t, newPublisher(t, tcpConfig(t, a), newMemory()), hub)
	for _, id := range []presence.ID{"1", "2", "3"} {
		hub.tell(id, presence.Available, presence.NoActivity)
	}
	a.expect("initial 1", "initial 2", "initial 3")
	a.forget()
	hub.tell("1", presence.Busy, presence.NoActivity)
	a.expect("lost 1", "lost 2", "lost 3", "initial 1", "initial 2", "initial 3")
	p.stop()
	a.expect("remove 1", "remove 2", "remove 3")
}
