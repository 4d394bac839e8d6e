package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/lookup"
	"presenced/fixtures/nameserver"
)

const host = "h.example.test 60 A 127.0.0.1"

// srv gives the record of a service at an address.
func srv(service string, priority int, address string) string {
	_, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf("%s.example.test 60 SRV %d 0 %s h.example.test", service, priority, port)
}

// autoConfig leaves it to the DNS where the server is.
func autoConfig() Config {
	cfg := testConfig("example.test")
	cfg.Transport = lookup.Auto
	return cfg
}

// The targets of a name are tried in the order of the DNS: the next one where the first
// does not serve us, and another where the DNS has moved on.
func TestTargets(t *testing.T) {
	t.Parallel()
	a, b, c := newNotifier(t), newNotifier(t), newNotifier(t)
	z := nameserver.New(t, host, "example.test 60 NAPTR 1 1 s SIP+D2U _sip._udp.example.test", srv("_sip._udp", 2, b.address()), srv("_sip._udp", 1, a.address()))
	r := start(t, autoConfig(), crowd("4750"), z.Address)
	e := a.next()
	if !strings.HasSuffix(e.Get("Contact"), ";transport=udp>") {
		t.Errorf("Contact: %s", e.Get("Contact"))
	}
	e.respond("503 Service Unavailable")
	e = b.next()
	e.respond("200 OK", "Expires: 600")
	e.notify(1, "n1", "active", plain, document("open"))
	r.await("4750", "session-active")
	r.fares("live", func(s presence.Status) bool { return s.Phase == presence.PhaseLive && s.Done == 1 })
	z.Set(host, srv("_sip._udp", 1, c.address()))
	r.where.Forget("example.test", lookup.Auto) // its time is over
	moved := c.next()
	moved.respond("200 OK", "Expires: 600")
	moved.notify(1, "n1", "active", plain, document("open", "away"))
	r.await("4750", "session-away")
	if code := e.notify(2, "n1", "active", plain, document("open")); code != "481" {
		t.Errorf("the dialog at the target of before: %s", code)
	}
	r.cancel()
	c.next().respond("481 Subscription Does Not Exist")
	r.stop()
}

// Where no target of the name answers, the other server does, by another transport; and
// the first one again when it is back, at the target that answers.
func TestTargetsOfAnotherTransport(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // nobody is there
	nobody := l.Addr().String()
	first, second := newNotifier(t), newNotifier(t)
	z := nameserver.New(t, host, srv("_sip._tcp", 1, nobody), srv("_sip._tcp", 2, nobody))
	cfg := autoConfig()
	cfg.Secondary = second.address()
	r := start(t, cfg, crowd("4750"), z.Address)
	e := second.next()
	if !strings.HasSuffix(e.Get("Contact"), ";transport=udp>") {
		t.Errorf("Contact: %s", e.Get("Contact"))
	}
	e.respond("200 OK", "Expires: 600")
	e.notify(1, "n1", "active", plain, document("open"))
	r.fares("degraded", func(s presence.Status) bool {
		return s.Phase == presence.PhaseDegraded && s.Done == 1 && strings.Contains(s.Detail, "because example.test does not answer")
	})
	z.Set(host, srv("_sip._udp", 1, nobody), srv("_sip._udp", 2, first.address()))
	r.where.Forget("example.test", lookup.Auto)
	back := first.next()
	for strings.HasPrefix(back.line, "OPTIONS ") {
		back.respond("200 OK")
		back = first.next()
	}
	back.respond("200 OK", "Expires: 600")
	back.notify(1, "n1", "active", plain, document("open", "away"))
	r.await("4750", "session-away")
	r.cancel()
	first.next().respond("481 Subscription Does Not Exist")
	r.stop()
}

// What cannot be subscribed to says why.
func TestNoTarget(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		zone      []string
		notify    string
		permanent bool
		want      string
	}{
		"TLS without a certificate": {[]string{host, srv("_sips._tcp", 1, "127.0.0.1:5061")}, "", true, "name tls.cert_file"},
		"another family":            {[]string{"example.test 60 A 127.0.0.1"}, "[::1]:5070", false, "no address of the family of ::1"},
		"nothing":                   {nil, "", false, "no such host"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := autoConfig()
			cfg.Notify = c.notify
			err := start(t, cfg, crowd("1"), nameserver.New(t, c.zone...).Address).wait()
			if err == nil || !strings.Contains(err.Error(), c.want) || presence.IsPermanent(err) != c.permanent {
				t.Errorf("%v; want %s", err, c.want)
			}
		})
	}
}

// By each transport that the DNS may say, NOTIFY can come.
func TestListen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		transport, certificate, at string
		want                       []string
	}{
		{"udp", "", "127.0.0.1:0", []string{"udp:127.0.0.1:0"}},
		{"tls", "c.pem", "127.0.0.1:5071", []string{"tls:127.0.0.1:5071"}},
		{lookup.Auto, "", "[::1]:5070", []string{"udp:[::1]:5070", "tcp:[::1]:5070"}},
		{lookup.Auto, "c.pem", "127.0.0.1:5070", []string{"udp:127.0.0.1:5070", "tcp:127.0.0.1:5070", "tls:127.0.0.1:5071"}},
		{lookup.Auto, "c.pem", "127.0.0.1:0", []string{"udp:127.0.0.1:0", "tcp:127.0.0.1:0", "tls:127.0.0.1:0"}},
	} {
		cfg := Config{Transport: c.transport}
		cfg.TLS.CertFile = c.certificate
		if got := cfg.wire(netip.MustParseAddrPort(c.at)).Listen; !slices.Equal(got, c.want) {
			t.Errorf("%s at %s: %q, want %q", c.transport, c.at, got, c.want)
		}
	}
}
