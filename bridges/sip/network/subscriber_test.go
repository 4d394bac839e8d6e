package network

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/bridges/sip/documents"
	"presenced/internal/secret"
)

const plain = pidf.ContentType

// One dialog through the wire: NOTIFY before the 200, forked, out of order, of an
// unknown type, without a body, and the end.
func TestDialog(t *testing.T) {
	n := newNotifier(t)
	r := start(t, testConfig(n.address()), crowd("4750"))
	e := n.next()
	if e.line != "SUBSCRIBE sip:4750@example.test SIP/2.0" || e.Get("Event") != "presence" || e.Get("Accept") != plain || e.Get("Expires") != "600" {
		t.Errorf("%s %v", e.line, e.MIMEHeader)
	}
	for _, c := range []struct {
		seq                    int
		tag, state, kind, body string
		code, facts            string
	}{
		{5, "n1", "active;expires=500", plain, document("open", "on-the-phone"), "200", "phone-connected session-active"},
		{6, "n2", "active;expires=500", plain, document("open"), "481", "phone-connected session-active"}, // another fork
		{5, "n1", "active;expires=500", plain, document("open"), "500", "phone-connected session-active"},
		{4, "n1", "terminated;reason=rejected", "", "", "500", "phone-connected session-active"},
		{7, "n1", "active;expires=500", plain, "<presence", "400", "phone-connected session-active"},
		{8, "n1", "active;expires=500", "text/plain", "busy", "415", "phone-connected session-active"},
		{9, "n1", "active;expires=500", plain, document("open"), "200", "session-active"},
		{10, "n1", "active;expires=500", plain, string(pidf.Append(nil, presence.State{Availability: presence.Busy}, "sip:4750@example.test", pidf.Options{})), "200", "expired"},
		{12, "n1", "active;expires=1", plain, document("closed"), "200", "session-offline"}, // a gap in CSeq is allowed
	} {
		if code := e.notify(c.seq, c.tag, c.state, c.kind, c.body); code != c.code || r.facts("4750") != c.facts {
			t.Errorf("%d %s: %s, %s; want %s, %s", c.seq, c.state, code, r.facts("4750"), c.code, c.facts)
		}
		if c.seq == 5 && c.code == "200" {
			e.respond("200 OK", "Expires: 600")
		}
	}
	n.next().respond("500 Server Internal Error", "Retry-After: 9") // the refresh
	r.await("4750", "expired")                                      // by itself, with the subscription
	again := n.next()                                               // another dialog
	if code := e.notify(13, "n1", "active", plain, document("open")); code != "481" {
		t.Errorf("after expiry: %s", code)
	}
	if again.Get("Call-Id") == e.Get("Call-Id") {
		t.Error("the dialog goes on after its end")
	}
	again.respond("200 OK", "Expires: 600")
	if code := again.notify(1, "n9", "active", "", ""); code != "200" {
		t.Error(code)
	}
	r.await("4750", "expired") // the server knows nothing, and says so
	if code := again.notify(2, "n9", "active", plain, document("open", "away")); code != "200" || r.facts("4750") != "session-away" {
		t.Errorf("%s %s", code, r.facts("4750"))
	}
	// A NOTIFY without a body that nobody asked for may mean nothing: it is asked what it means.
	if code := again.notify(3, "n9", "active", "", ""); code != "200" || r.facts("4750") != "session-away" {
		t.Errorf("%s %s", code, r.facts("4750"))
	}
	look := n.next()
	if look.Get("Call-Id") != again.Get("Call-Id") || !strings.HasSuffix(look.Get("To"), ";tag=n9") || look.line != "SUBSCRIBE sip:"+n.address()+" SIP/2.0" {
		t.Errorf("a look: %s %s", look.line, look.Get("To"))
	}
	look.respond("200 OK", "Expires: 600")
	if code := look.notify(4, "n9", "active", "", ""); code != "200" || r.facts("4750") != "expired" {
		t.Errorf("%s %s", code, r.facts("4750"))
	}
	if s := r.Status(); s.Phase != presence.PhaseLive || s.Done != 1 || s.Total != 1 {
		t.Errorf("%+v", s)
	}
	r.cancel()
	bye := n.next()
	if bye.Get("Expires") != "0" || bye.Get("Call-Id") != again.Get("Call-Id") {
		t.Errorf("%s %v", bye.line, bye.MIMEHeader)
	}
	bye.respond("200 OK", "Expires: 0")
	if code := bye.notify(5, "n9", "terminated;reason=timeout", "", ""); code != "200" {
		t.Error(code)
	}
	r.stop()
}

// Who is not seen, and why; who is not covered any more.
func TestUnmonitored(t *testing.T) {
	n := newNotifier(t)
	r := start(t, testConfig(n.address()), crowd("1", "2", "3"))
	for range 3 {
		e := n.next()
		switch {
		case strings.Contains(e.line, ":1@"):
			e.respond("404 Not Found")
		case strings.Contains(e.line, ":2@"):
			e.respond("200 OK", "Expires: 600")
			e.notify(1, "n1", "active", plain, document("open"))
			e.notify(2, "n1", "terminated;reason=rejected", "", "")
		default:
			e.respond("200 OK", "Expires: 600")
			e.notify(1, "n1", "pending", "", "")
			e.notify(2, "n1", "active", plain, document("open"))
		}
	}
	r.fares("live", func(s presence.Status) bool { return s.Phase == presence.PhaseLive })
	s := r.Status()
	if s.Done != 1 || s.Total != 3 || s.Unmonitored["1"] != "the server answers 404" || s.Unmonitored["2"] != "the server says rejected" || len(s.Unmonitored) != 2 {
		t.Errorf("%+v", s)
	}
	if r.facts("2") != "nothing" || r.facts("3") != "session-active" {
		t.Errorf("%s, %s", r.facts("2"), r.facts("3"))
	}
	r.Cover(func(p *presence.Person) bool { return p.ID != "3" })
	r.await("3", "nothing")
	n.next().respond("481 Subscription Does Not Exist")
	r.fares("without 3", func(s presence.Status) bool { return s.Total == 2 && s.Done == 0 })
	r.stop()
}

// A list server: the full state, changes, a gap, who is missing, the end of a member.
func TestList(t *testing.T) {
	n := newNotifier(t)
	cfg := testConfig(n.address())
	cfg.ListURI = "sip:friends@example.test"
	r := start(t, cfg, crowd("1", "2", "3"))
	e := n.next()
	if e.line != "SUBSCRIBE sip:friends@example.test SIP/2.0" || e.Get("Supported") != "eventlist" || !strings.Contains(e.Get("Accept"), "multipart/related") {
		t.Errorf("%s %v", e.line, e.MIMEHeader)
	}
	seq := 0
	tell := func(e *exchange, version uint32, full bool, resources ...documents.Resource) {
		t.Helper()
		seq++
		l := documents.List{URI: cfg.ListURI, Version: version, Full: full, Resources: resources}
		body, kind := l.Append(nil, "rls.test")
		if code := e.notify(seq, "n1", "active;expires=600", kind, string(body)); code != "200" {
			t.Errorf("version %d: %s", version, code)
		}
	}
	one := func(uri, state string, body string) documents.Resource {
		i := documents.Instance{ID: "i", State: state}
		if body != "" {
			i.ContentType, i.Body = plain, []byte(body)
		}
		return documents.Resource{URI: uri, Instances: []documents.Instance{i}}
	}
	known := func(want ...string) {
		t.Helper()
		for i, id := range []string{"1", "2", "3"} {
			if got := r.facts(id); got != want[i] {
				t.Errorf("of %s is known %s, want %s", id, got, want[i])
			}
		}
	}
	tell(e, 0, true, one("sip:1@EXAMPLE.test;transport=udp", "active", document("open")), one("sip:2@example.test", "pending", ""))
	e.respond("200 OK", "Expires: 600", "Require: eventlist")
	known("session-active", "nothing", "silence")
	if s := r.Status(); s.Done != 1 || s.Total != 3 || s.Unmonitored["3"] == "" || s.Unmonitored["2"] == "" {
		t.Errorf("%+v", s)
	}
	tell(e, 1, false, one("sip:2@example.test", "active", document("closed")))
	known("session-active", "session-offline", "silence")
	tell(e, 2, false, one("sip:1@example.test", "active", "")) // no document: as it was
	known("session-active", "session-offline", "silence")
	tell(e, 4, false, one("sip:1@example.test", "active", document("open", "away"))) // a gap
	known("session-active", "session-offline", "silence")
	look := n.next()
	if look.Get("Call-Id") != e.Get("Call-Id") {
		t.Error("a gap is asked about in the dialog")
	}
	look.respond("200 OK", "Expires: 600", "Require: eventlist")
	nested := documents.Resource{URI: "sip:team@example.test", Instances: []documents.Instance{{ID: "t", State: "active", List: &documents.List{
		URI: "sip:team@example.test", Full: true, Resources: []documents.Resource{one("sip:3@example.test", "active", document("open", "busy"))},
	}}}}
	tell(look, 5, true, one("sip:1@example.test", "active", document("open", "away")), nested)
	known("session-away", "nothing", "session-active session-busy")
	tell(look, 6, false, one("sip:1@example.test", "terminated", ""))
	known("expired", "nothing", "session-active session-busy")
	if s := r.Status(); s.Done != 1 || s.Problems["lists with a gap"] != 1 {
		t.Errorf("%+v", s)
	}
	r.cancel()
	n.next().respond("481 Subscription Does Not Exist")
	r.stop()
}

// Where the first server is silent the second one is asked, and the first one again when
// it is back.
func TestFailover(t *testing.T) {
	a, b := newNotifier(t), newNotifier(t)
	cfg := testConfig(a.address())
	cfg.Secondary = b.address()
	r := start(t, cfg, crowd("4750"))
	a.next().respond("503 Service Unavailable")
	e := b.next()
	e.respond("200 OK", "Expires: 600")
	e.notify(1, "n1", "active", plain, document("open"))
	r.await("4750", "session-active")
	r.fares("degraded", func(s presence.Status) bool { return s.Phase == presence.PhaseDegraded && s.Done == 1 })
	probe := a.next()
	if !strings.HasPrefix(probe.line, "OPTIONS ") {
		t.Error(probe.line)
	}
	probe.respond("200 OK")
	back := a.next()
	for strings.HasPrefix(back.line, "OPTIONS ") {
		back.respond("200 OK")
		back = a.next()
	}
	back.respond("200 OK", "Expires: 600")
	back.notify(1, "n1", "active", plain, document("open", "away"))
	r.await("4750", "session-away")
	if code := e.notify(2, "n1", "active", plain, document("open")); code != "481" {
		t.Errorf("the dialog at the other server: %s", code)
	}
	r.cancel()
	a.next().respond("481 Subscription Does Not Exist")
	r.stop()
}

// The password is asked for once, and a wrong one ends the Run for a while.
func TestCredentials(t *testing.T) {
	n := newNotifier(t)
	cfg := testConfig(n.address())
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.PasswordFile = "presenced", secret.File(file)
	r := start(t, cfg, crowd("1"))
	const challenge = `WWW-Authenticate: Digest realm="example.test", nonce="n1", qop="auth"`
	n.next().respond("401 Unauthorized", challenge)
	e := n.next()
	if got := e.Get("Authorization"); !strings.Contains(got, `uri="sip:1@example.test"`) || strings.Contains(got, "secret") {
		t.Errorf("Authorization: %s", got)
	}
	e.respond("401 Unauthorized", challenge)
	if err := r.wait(); !presence.IsPermanent(err) || !strings.Contains(err.Error(), "does not take the user name and password") {
		t.Error(err)
	}
	if s := r.Status(); s.LastError == "" || s.LastErrorAt.After(time.Now()) {
		t.Errorf("%+v", s)
	}
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"entity":         func(c *Config) { c.Entity = "sip:a@b" },
		"list_uri":       func(c *Config) { c.ListURI = "friends\r\n" },
		"notify_address": func(c *Config) { c.Notify = "0.0.0.0:5070" },
		"tls.cert_file":  func(c *Config) { c.Transport = "tls" },
	} {
		cfg := testConfig("127.0.0.1:5060")
		change(&cfg)
		if ps := cfg.Check(); len(ps) != 1 || ps[0].Path != name {
			t.Errorf("%s: %+v", name, ps)
		}
	}
}
