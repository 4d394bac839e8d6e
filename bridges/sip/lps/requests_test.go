package lps

import (
	"bytes"
	"compress/zlib"
	"net"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/documents"
	"presenced/internal/htdigest"
)

// challenged gives the phone a challenge of that age to answer.
func (p *phone) challenged(h *house, age time.Duration) {
	p.t.Helper()
	from, ok := p.conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		p.t.Fatal("not by UDP")
	}
	p.auth, p.count = h.guard.Challenge(from.AddrPort().Addr(), false, time.Now().Add(-age))[0], 0
}

// TestStaleOnTheWire answers a challenge that is too old, and the same count twice:
// the next challenge says that only the nonce is at fault (RFC 7616 section 3.3).
func TestStaleOnTheWire(t *testing.T) {
	h := newHouse(t)
	p := h.phone("alice", "udp")
	p.challenged(h, nonceLife+time.Second)
	stale := func() {
		t.Helper()
		if a := p.ask(401, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF)); !strings.Contains(a.head.Get("WWW-Authenticate"), "stale=true") {
			t.Errorf("%v", a.head)
		}
	}
	stale()
	p.challenged(h, 0)
	p.ask(200, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF))
	p.count = 0
	stale()
	p.user, p.count = "zoe", 7 // whose password is right, but not for alice
	p.ask(403, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF))
	p.user = "mallory"
	if a := p.ask(401, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF)); strings.Contains(a.head.Get("WWW-Authenticate"), "stale") {
		t.Errorf("a wrong password: %v", a.head)
	}
}

// TestWhoMay has those of the configuration do what others may not, and somebody
// publish under another address of their own.
func TestWhoMay(t *testing.T) {
	h := newHouse(t, func(c *Config) {
		c.Publishers, c.Administrators = []string{"bob"}, []string{"carol", "dave@example.org"}
		c.Domains = append(c.Domains, "example.org")
	})
	h.phone("bob", "udp").ask(200, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF))
	h.phone("alice", "udp").ask(200, "PUBLISH", "sip:4750@example.test", presenceEvent, pidfBody(openPIDF))
	h.phone("alice", "udp").ask(403, "PUBLISH", "sip:4751@example.test", presenceEvent, pidfBody(openPIDF))
	p := h.phone("carol", "udp")
	p.ask(200, "SUBSCRIBE", alice, lines("Event: presence.winfo"))
	p.shows("watcherinfo")
	h.phone("bob", "udp").ask(403, "SUBSCRIBE", alice, lines("Event: presence.winfo"))
}

// TestTrustedAccounts knows the account of who stands in From where a proxy is
// believed: the user name alone in the first domain, the whole address elsewhere.
func TestTrustedAccounts(t *testing.T) {
	h := newHouse(t, func(c *Config) {
		c.Trusted, c.Publishers = []string{"127.0.0.1"}, []string{"bob"}
		c.Domains = append(c.Domains, "example.org")
	})
	h.phone("bob", "udp").ask(200, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF))
	if w := h.who("bob@example.org"); w.account != "bob@example.org" {
		t.Errorf("a namesake of another domain is %+v", w)
	}
}

// TestKnownByOwnAddress has the gate asked about the address that the directory gives,
// whichever one the watcher signed in with.
func TestKnownByOwnAddress(t *testing.T) {
	h := newHouse(t)
	h.gate.set("bob", "alice", presence.LevelConfirm)
	p := h.phone("4751", "udp") // is bob
	p.ask(200, "SUBSCRIBE", alice, presenceEvent)
	p.shows("pending")
}

// TestCondition refreshes with the entity-tag of the last NOTIFY (RFC 5839): there is
// no NOTIFY then; with another one there is.
func TestCondition(t *testing.T) {
	h := newHouse(t)
	p := h.phone("bob", "udp")
	sub := p.ask(200, "SUBSCRIBE", alice, presenceEvent)
	tag := p.shows("active").head.Get("SIP-ETag")
	a := p.ask(204, "SUBSCRIBE", alice, presenceEvent, within(sub), lines("Suppress-If-Match: "+tag))
	if tag == "" || a.head.Get("SIP-ETag") != tag || a.head.Get("Expires") == "" {
		t.Errorf("%q, %v", tag, a.head)
	}
	p.ask(200, "SUBSCRIBE", alice, presenceEvent, within(sub), lines("Suppress-If-Match: nonsense"))
	if m := p.shows("active"); !strings.HasPrefix(m.head.Get("CSeq"), "2 ") {
		t.Errorf("CSeq %s: a NOTIFY was not suppressed", m.head.Get("CSeq"))
	}
}

// TestEventID keeps apart what the id of Event tells apart (RFC 6665 section 8.2.1).
func TestEventID(t *testing.T) {
	h := newHouse(t)
	p := h.phone("bob", "udp")
	sub := p.ask(200, "SUBSCRIBE", alice, lines("Event: presence;id=7"))
	p.shows("active")
	p.ask(481, "SUBSCRIBE", alice, lines("Event: presence;id=8"), within(sub))
	p.ask(481, "SUBSCRIBE", alice, presenceEvent, within(sub))
	p.ask(200, "SUBSCRIBE", alice, lines("Event: presence;id=7"), within(sub))
}

// TestRates reads the rates of RFC 6446: max-rate spaces NOTIFYs, min-rate repeats
// them.
func TestRates(t *testing.T) {
	h := newHouse(t)
	for event, want := range map[string]pace{
		"presence":                             {0, 0},
		"presence;max-rate=0.1":                {10 * time.Second, 0},
		"presence;min-rate=0.02":               {0, 50 * time.Second},
		"presence;max-rate=0.5;min-rate=0.1":   {2 * time.Second, 10 * time.Second},
		"presence;max-rate=1000;min-rate=1000": {leastGap, oftenGap},
		"presence;max-rate=0.0001":             {longGap, 0},
		"presence;max-rate=0;min-rate=-1":      {0, 0},
		"presence;max-rate=NaN;min-rate=x":     {0, 0},
	} {
		p := h.phone("bob", "udp")
		a := p.ask(200, "SUBSCRIBE", alice, lines("Event: "+event))
		p.shows("active")
		_, tag, _ := strings.Cut(a.head.Get("To"), ";tag=")
		h.subMu.Lock()
		got := h.subscriptions.dialogs[tag].pace
		h.subMu.Unlock()
		if got != want {
			t.Errorf("%s: %+v, want %+v", event, got, want)
		}
	}
}

// TestDeflatedList sends a list as RFC 5367 has phones do that must keep to a datagram.
func TestDeflatedList(t *testing.T) {
	h := newHouse(t)
	var body bytes.Buffer
	z := zlib.NewWriter(&body)
	if _, err := z.Write(documents.AppendEntries(nil, []documents.Entry{{URI: alice}})); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	p := h.phone("bob", "tcp")
	p.ask(200, "SUBSCRIBE", "sip:rls@example.test", presenceEvent, listBody(body.String()), lines("Content-Encoding: deflate", "Require: recipient-list-subscribe"))
	p.shows(`fullState="true"`, alice)
}

// TestThroughAProxy subscribes by a proxy that stays in the way: the answer gives its
// Record-Route back, and NOTIFYs have it as their Route.
func TestThroughAProxy(t *testing.T) {
	h := newHouse(t)
	p := h.phone("bob", "udp")
	a := p.ask(200, "SUBSCRIBE", alice, presenceEvent, lines("Record-Route: <sip:192.0.2.7;lr>", "Record-Route: <sip:192.0.2.8;lr>"))
	route := []string{"<sip:192.0.2.7;lr>", "<sip:192.0.2.8;lr>"}
	if got := a.head.Values("Record-Route"); strings.Join(got, ",") != strings.Join(route, ",") {
		t.Errorf("Record-Route: %q", got)
	}
	m := p.shows("active")
	if got := m.head.Values("Route"); strings.Join(got, ",") != strings.Join(route, ",") {
		t.Errorf("Route: %q", got)
	}
	if m.head.Get("From") != a.head.Get("To") || m.head.Get("To") != a.head.Get("From") {
		t.Errorf("the NOTIFY is of another dialog: %v", m.head)
	}
}

// TestContactOfTheService is reached where the configuration says, by what the request
// came over.
func TestContactOfTheService(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Transport.Host = "sip.example.test" })
	for network, end := range map[string]string{"udp": ">", "tcp": ";transport=tcp>"} {
		p := h.phone("bob", network)
		a := p.ask(200, "SUBSCRIBE", alice, presenceEvent)
		if c := a.head.Get("Contact"); !strings.HasPrefix(c, "<sip:sip.example.test:") || !strings.HasSuffix(strings.ToLower(c), end) {
			t.Errorf("Contact by %s: %s", network, c)
		}
	}
}

// TestNothingMoreComes ends a publication and a subscription that nobody refreshes, by
// the clock alone.
func TestNothingMoreComes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.MinExpires, c.MinPublish = time.Second, time.Second })
	p, w := h.phone("alice", "udp"), h.phone("bob", "udp")
	w.ask(200, "SUBSCRIBE", alice, presenceEvent, lines("Expires: 2"))
	w.shows("active;expires=2", "closed")
	p.ask(200, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF), lines("Expires: 1"))
	w.shows("active", "open")
	w.shows("active", "closed")
	w.shows("terminated;reason=timeout")
}

// TestHubRefuses publishes what the hub does not take: it is answered 500, and neither
// a new entity-tag nor the loss of the old one comes of it.
func TestHubRefuses(t *testing.T) {
	h := newHouse(t)
	p := h.phone("alice", "udp")
	tag := p.ask(200, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF)).head.Get("SIP-ETag")
	h.ear.deaf.Store(true)
	if a := p.ask(500, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF)); a.head.Get("SIP-ETag") != "" {
		t.Errorf("%v", a.head)
	}
	p.ask(500, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF), lines("SIP-If-Match: "+tag))
	h.ear.deaf.Store(false)
	p.ask(200, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF), lines("SIP-If-Match: "+tag))
	h.pubMu.Lock()
	defer h.pubMu.Unlock()
	if n := h.publications.Len(); n != 1 {
		t.Errorf("%d publications", n)
	}
}

// TestBestFirst offers the algorithms in their order, and takes each.
func TestBestFirst(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Algorithms = []string{htdigest.SHA256, htdigest.MD5} })
	p := h.phone("alice", "udp")
	offers := p.ask(401, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF)).head.Values("WWW-Authenticate")
	if len(offers) != 2 || !strings.Contains(offers[0], "SHA-256") || !strings.Contains(offers[1], "MD5") {
		t.Fatalf("%q", offers)
	}
	for _, offer := range offers {
		p.auth, p.count = offer, 0
		p.ask(200, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF))
	}
}
