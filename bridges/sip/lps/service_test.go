package lps

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/icholy/digest"

	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/sip/documents"
	"presenced/bridges/sip/wire"
	"presenced/internal/htdigest"
)

// A gate lets everybody see everything, but for those who are named.
type gate struct {
	mu     sync.Mutex
	access map[string]presence.Access // "watcher person"
}

func (g *gate) set(watcher, person string, l presence.Level) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.access[watcher+"@example.test "+person] = presence.Access{Level: l, Calendar: presence.CalendarOpen}
}

func (g *gate) Access(w presence.Watcher, of presence.ID) presence.Access {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a, ok := g.access[w.Subject.Value+" "+string(of)]; ok {
		return a
	}
	return presence.Everyone()
}

func (g *gate) Admit(w presence.Watcher, of presence.ID) presence.Access { return g.Access(w, of) }

func (g *gate) Dismiss(presence.Watcher, presence.ID) {}

// A memory is a Memory in memory.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (m *memory) Load(context.Context) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.values), nil
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[key] = value
	return nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return nil
}

// A deafHub takes no reports while it is deaf.
type deafHub struct {
	presence.Hub
	deaf atomic.Bool
}

func (d *deafHub) Report(ctx context.Context, r presence.Report) error {
	if d.deaf.Load() {
		return errors.New("nobody has that subject any more")
	}
	return d.Hub.Report(ctx, r)
}

// A house is a service that runs on a hub of its own.
type house struct {
	t    testing.TB
	hub  *aggregator.Hub
	ear  *deafHub // as the service knows the hub
	gate *gate
	*Service
	udp, tcp string
	stop     func()
}

// people gives a directory of alice, bob, carol, each with an extension.
func people(t testing.TB) *directory.Directory {
	t.Helper()
	var all []presence.Person
	for i, name := range []string{"alice", "bob", "carol"} {
		all = append(all, presence.Person{
			ID: presence.ID(name), Name: strings.ToUpper(name), Groups: []string{"sales"},
			Subjects: []presence.Subject{
				{Scheme: "sip", Value: name + "@example.test"}, {Scheme: "sip", Value: name + "@example.org"}, {Scheme: "tel", Value: strconv.Itoa(4750 + i)},
			},
		})
	}
	d, wrong := directory.New(all)
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	return d
}

func loose() Config {
	c := DefaultConfig()
	c.Transport.Listen = []string{"udp:127.0.0.1:0", "tcp:127.0.0.1:0"}
	c.Transport.Rate = 0
	c.Domains = []string{"example.test"}
	c.Algorithms = []string{htdigest.MD5}
	c.NotifyInterval = 0
	return c
}

func newHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	c := loose()
	for _, f := range change {
		f(&c)
	}
	hub := aggregator.NewHub(presence.DefaultPolicy(), nil, slog.New(slog.DiscardHandler))
	hub.SetDirectory(people(t), time.Now())
	h := &house{t: t, hub: hub, gate: &gate{access: map[string]presence.Access{}}}
	h.run(c, &memory{values: map[string][]byte{}})
	return h
}

// run starts a service, after the one before was stopped.
func (h *house) run(c Config, kept Memory) {
	h.t.Helper()
	if ps := c.Check(); len(ps) > 0 {
		h.t.Fatalf("%+v", ps)
	}
	h.Service = New(c, h.hub, h.gate, kept, accounts{}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- h.hub.Run(ctx) }()
	h.ear = &deafHub{Hub: h.hub}
	go func() { ended <- h.Run(ctx, h.ear) }()
	var once sync.Once
	h.stop = func() {
		once.Do(func() {
			cancel()
			for range 2 {
				if err := <-ended; err != nil {
					h.t.Error(err)
				}
			}
		})
	}
	h.t.Cleanup(h.stop)
	ready, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	flows, err := h.Ready(ready)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range flows {
		if f.Network == wire.UDP {
			h.udp = f.Local.String()
		} else {
			h.tcp = f.Local.String()
		}
	}
}

// A message is one as a test reads it, by a parser of its own.
type message struct {
	start string
	head  textproto.MIMEHeader
	body  string
}

func (m message) code() int {
	n, _ := strconv.Atoi(strings.Fields(m.start + " 0 0")[1])
	return n
}

// A phone is a client of one user.
type phone struct {
	t       testing.TB
	user    string
	network string
	conn    net.Conn
	in      *bufio.Reader
	cseq    int
	auth    string // the challenge to answer; empty: none
	count   int
	waiting []message // NOTIFYs that came while an answer was waited for
}

func (h *house) phone(user, network string) *phone {
	h.t.Helper()
	to := h.udp
	if network == "tcp" {
		to = h.tcp
	}
	c, err := net.Dial(network, to)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return &phone{t: h.t, user: user, network: network, conn: c, in: bufio.NewReaderSize(c, 1<<16)}
}

// receive reads one message, within some seconds.
func (p *phone) receive() message {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	if p.network == "udp" {
		var datagram [1 << 16]byte
		n, err := p.conn.Read(datagram[:])
		if err != nil {
			p.t.Fatalf("%s: nothing came: %v", p.user, err)
		}
		return p.read(bufio.NewReader(strings.NewReader(string(datagram[:n]))))
	}
	return p.read(p.in)
}

func (p *phone) read(in *bufio.Reader) message {
	p.t.Helper()
	text := textproto.NewReader(in)
	start, err := text.ReadLine()
	if err != nil {
		p.t.Fatalf("%s: %v", p.user, err)
	}
	head, err := text.ReadMIMEHeader()
	if err != nil {
		p.t.Fatalf("%s: %s: %v", p.user, start, err)
	}
	n, _ := strconv.Atoi(head.Get("Content-Length"))
	body := make([]byte, n)
	if _, err := io.ReadFull(in, body); err != nil {
		p.t.Fatalf("%s: %s: %v", p.user, start, err)
	}
	return message{start, head, string(body)}
}

// A request is what the tests change of one.
type request struct {
	method, uri, to, call string
	contact               string // empty: the address of the phone
	untagged              bool   // From has no tag
	lines                 []string
	body                  string
}

func lines(l ...string) func(*request) {
	return func(r *request) { r.lines = append(r.lines, l...) }
}

// send sends a request once.
func (p *phone) send(r *request) {
	p.t.Helper()
	p.cseq++
	tag := ";tag=" + p.user
	if r.untagged {
		tag = ""
	}
	text := fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/%s %s;branch=z9hG4bK%s;rport\r\nMax-Forwards: 70\r\nFrom: <sip:%s@example.test>%s\r\nTo: <%s>%s\r\nCall-ID: %s\r\nCSeq: %d %s\r\n",
		r.method, r.uri, strings.ToUpper(p.network), p.conn.LocalAddr(), rand.Text(), p.user, tag, r.uri, r.to, r.call, p.cseq, r.method)
	if r.method == "SUBSCRIBE" {
		contact := r.contact
		if contact == "" {
			contact = fmt.Sprintf("sip:%s@%s", p.user, p.conn.LocalAddr())
		}
		text += "Contact: <" + contact + ">\r\n"
	}
	for _, l := range r.lines {
		text += l + "\r\n"
	}
	if p.auth != "" {
		p.count++
		c, err := digest.ParseChallenge(p.auth)
		if err != nil {
			p.t.Fatal(err)
		}
		a, err := digest.Digest(c, digest.Options{Method: r.method, URI: r.uri, Username: p.user, Password: password(p.user), Count: p.count})
		if err != nil {
			p.t.Fatal(err)
		}
		text += "Authorization: " + a.String() + "\r\n"
	}
	text += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(r.body), r.body)
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.t.Fatal(err)
	}
}

// answer gives the answer to what was sent last.
func (p *phone) answer() message {
	p.t.Helper()
	for {
		m := p.receive()
		if m.code() != 0 && strings.HasPrefix(m.head.Get("CSeq"), strconv.Itoa(p.cseq)+" ") {
			return m
		}
		p.waiting = append(p.waiting, m)
	}
}

// ask sends a request, answers a challenge, and wants a code.
func (p *phone) ask(code int, method, uri string, change ...func(*request)) message {
	p.t.Helper()
	r := &request{method: method, uri: uri, call: rand.Text()}
	for _, c := range change {
		c(r)
	}
	p.send(r)
	a := p.answer()
	if a.code() == 401 && code != 401 {
		p.auth, p.count = a.head.Get("WWW-Authenticate"), 0
		p.send(r)
		a = p.answer()
	}
	if a.code() != code {
		p.t.Fatalf("%s %s: %s, want %d", method, uri, a.start, code)
	}
	return a
}

// notify gives the next NOTIFY, and answers it with a code and header lines.
func (p *phone) notify(code int, lines ...string) message {
	p.t.Helper()
	var m message
	if len(p.waiting) > 0 {
		m, p.waiting = p.waiting[0], p.waiting[1:]
	} else {
		m = p.receive()
	}
	if !strings.HasPrefix(m.start, "NOTIFY ") {
		p.t.Fatalf("%s: %s, want a NOTIFY", p.user, m.start)
	}
	text := fmt.Sprintf("SIP/2.0 %d X\r\nVia: %s\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %s\r\n%sContent-Length: 0\r\n\r\n",
		code, m.head.Get("Via"), m.head.Get("From"), m.head.Get("To"), m.head.Get("Call-Id"), m.head.Get("CSeq"), strings.Join(append(lines, ""), "\r\n"))
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.t.Fatal(err)
	}
	return m
}

// shows wants the next NOTIFY to have all of these in its body or Subscription-State.
func (p *phone) shows(want ...string) message {
	p.t.Helper()
	m := p.notify(200)
	for _, w := range want {
		if !strings.Contains(m.body, w) && !strings.Contains(m.head.Get("Subscription-State"), w) {
			p.t.Fatalf("%s: %s\n%s\nwant %q", p.user, m.head.Get("Subscription-State"), m.body, w)
		}
	}
	return m
}

// report has a source state something of a person, by extension.
func (h *house) report(tel string, facts ...presence.Fact) {
	h.t.Helper()
	now := time.Now()
	r := presence.Report{Source: "test", Subject: presence.Subject{Scheme: "tel", Value: tel}, At: now}
	for _, f := range facts {
		r.Spans = append(r.Spans, presence.Span{Fact: f, From: now.Add(-time.Minute)})
	}
	if err := h.hub.Report(context.Background(), r); err != nil {
		h.t.Fatal(err)
	}
}

const (
	alice    = "sip:alice@example.test"
	openPIDF = `<?xml version="1.0"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:alice@example.test"><tuple id="a"><status><basic>open</basic></status></tuple></presence>`
)

func pidfBody(body string) func(*request) {
	return func(r *request) {
		r.body = body
		r.lines = append(r.lines, "Content-Type: application/pidf+xml")
	}
}

func listBody(body string) func(*request) {
	return func(r *request) {
		r.body = body
		r.lines = append(r.lines, "Supported: eventlist", "Content-Type: application/resource-lists+xml")
	}
}

func presenceEvent(r *request) { r.lines = append(r.lines, "Event: presence") }

// within makes it a request in the dialog that a made.
func within(a message) func(*request) {
	return func(r *request) {
		_, tag, _ := strings.Cut(a.head.Get("To"), ";tag=")
		r.to, r.call = ";tag="+tag, a.head.Get("Call-Id")
	}
}

// TestCodes has every answer that refuses, on the wire.
func TestCodes(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.MaxBody = 2000; c.Administrators = []string{"carol"} })
	for name, c := range map[string]struct {
		code         int
		method, uri  string
		change       []func(*request)
		header, text string // that the answer has
	}{
		"options":              {200, "OPTIONS", "sip:example.test", nil, "Allow-Events", "presence"},
		"method":               {405, "REGISTER", "sip:example.test", nil, "Allow", "PUBLISH"},
		"challenge":            {401, "PUBLISH", alice, nil, "WWW-Authenticate", `qop="auth"`},
		"challenge, subscribe": {401, "SUBSCRIBE", alice, []func(*request){presenceEvent}, "WWW-Authenticate", "MD5"},
		"nobody":               {404, "PUBLISH", "sip:zoe@example.test", []func(*request){presenceEvent}, "", ""},
		"elsewhere":            {404, "SUBSCRIBE", "sip:alice@example.org", []func(*request){presenceEvent}, "", ""},
		"not the owner":        {403, "PUBLISH", "sip:bob@example.test", []func(*request){presenceEvent, pidfBody(openPIDF)}, "", ""},
		"no event":             {489, "PUBLISH", alice, []func(*request){pidfBody(openPIDF)}, "Allow-Events", "presence"},
		"other event":          {489, "SUBSCRIBE", alice, []func(*request){lines("Event: message-summary")}, "Allow-Events", "dialog"},
		"tag":                  {412, "PUBLISH", alice, []func(*request){presenceEvent, lines("SIP-If-Match: x")}, "", ""},
		"two tags":             {400, "PUBLISH", alice, []func(*request){presenceEvent, lines("SIP-If-Match: x", "SIP-If-Match: y")}, "", ""},
		"brief":                {423, "PUBLISH", alice, []func(*request){presenceEvent, pidfBody(openPIDF), lines("Expires: 1")}, "Min-Expires", "60"},
		"brief, subscribe":     {423, "SUBSCRIBE", alice, []func(*request){presenceEvent, lines("Expires: 1")}, "Min-Expires", "60"},
		"not in numbers":       {400, "SUBSCRIBE", alice, []func(*request){presenceEvent, lines("Expires: soon")}, "", ""},
		"type":                 {415, "PUBLISH", alice, []func(*request){presenceEvent, func(r *request) { r.body = "x"; r.lines = append(r.lines, "Content-Type: text/plain") }}, "Accept", "application/pidf+xml"},
		"encoding":             {415, "PUBLISH", alice, []func(*request){presenceEvent, pidfBody(openPIDF), lines("Content-Encoding: gzip")}, "Accept-Encoding", "identity"},
		"no XML":               {400, "PUBLISH", alice, []func(*request){presenceEvent, pidfBody("<presence")}, "", ""},
		"nothing":              {400, "PUBLISH", alice, []func(*request){presenceEvent}, "", ""},
		"too large":            {413, "PUBLISH", alice, []func(*request){presenceEvent, pidfBody(openPIDF + strings.Repeat(" ", 2000))}, "", ""},
		"extension":            {420, "PUBLISH", alice, []func(*request){presenceEvent, lines("Require: nonsense")}, "Unsupported", "nonsense"},
		"accept":               {406, "SUBSCRIBE", alice, []func(*request){presenceEvent, lines("Accept: text/plain")}, "", ""},
		"list":                 {421, "SUBSCRIBE", "sip:group-sales@example.test", []func(*request){presenceEvent}, "Require", "eventlist"},
		"unknown dialog":       {481, "SUBSCRIBE", alice, []func(*request){presenceEvent, func(r *request) { r.to = ";tag=x" }}, "", ""},
		"watchers of others":   {403, "SUBSCRIBE", "sip:bob@example.test", []func(*request){lines("Event: presence.winfo")}, "", ""},
		"filter": {415, "SUBSCRIBE", alice, []func(*request){presenceEvent, func(r *request) {
			r.body = "x"
			r.lines = append(r.lines, "Content-Type: application/simple-filter+xml")
		}}, "Accept", "resource-lists"},
		"no way back":      {400, "SUBSCRIBE", alice, []func(*request){presenceEvent, func(r *request) { r.contact = "tel:+4930" }}, "", ""},
		"no tag":           {400, "SUBSCRIBE", alice, []func(*request){presenceEvent, func(r *request) { r.untagged = true }}, "", ""},
		"no list":          {400, "SUBSCRIBE", "sip:rls@example.test", []func(*request){presenceEvent, listBody("<resource-lists")}, "", ""},
		"list, too large":  {413, "SUBSCRIBE", "sip:rls@example.test", []func(*request){presenceEvent, listBody(strings.Repeat(" ", 2001))}, "", ""},
		"list, encoding":   {415, "SUBSCRIBE", "sip:rls@example.test", []func(*request){presenceEvent, listBody("x"), lines("Content-Encoding: gzip")}, "Accept-Encoding", "deflate"},
		"list, no deflate": {400, "SUBSCRIBE", "sip:rls@example.test", []func(*request){presenceEvent, listBody("x"), lines("Content-Encoding: deflate")}, "", ""},
		"a long dialog":    {400, "SUBSCRIBE", alice, []func(*request){presenceEvent, lines("Record-Route: <sip:" + strings.Repeat("x", maxHead) + ";lr>")}, "", ""},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(name+", "+network, func(t *testing.T) {
				p := h.phone("alice", network)
				p.t = t
				a := p.ask(c.code, c.method, c.uri, c.change...)
				if c.header != "" && !strings.Contains(a.head.Get(c.header), c.text) {
					t.Errorf("%s: %q, want %q", c.header, a.head.Get(c.header), c.text)
				}
			})
		}
	}
	if s := h.Status(); s.Phase != presence.PhaseLive || !strings.Contains(s.Detail, "0 publications; subscriptions: 0 presence") {
		t.Errorf("what was refused left something: %+v", s)
	}
}

// TestNothingBeforeTheChallenge has a stranger ask: nothing is kept, and nothing
// sent but the challenge.
func TestNothingBeforeTheChallenge(t *testing.T) {
	h := newHouse(t)
	p := h.phone("mallory", "udp")
	for range 10 {
		p.ask(401, "SUBSCRIBE", alice, presenceEvent)
		p.ask(401, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF))
	}
	p.auth = h.guard.Challenge(p.conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr(), false, time.Now())[0]
	p.ask(401, "SUBSCRIBE", alice, presenceEvent) // a password of nobody
	h.stop()
	if len(p.waiting) > 0 || len(h.guard.young) > 0 || h.publications.Len() > 0 || len(h.subscriptions.dialogs)+len(h.subscriptions.watchers) > 0 {
		t.Error("something is left, or was sent")
	}
}

// TestPublishToNotify carries a publication to a watcher: initial, refresh, modify
// and remove, over both networks.
func TestPublishToNotify(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			h := newHouse(t)
			w := h.phone("bob", network)
			sub := w.ask(200, "SUBSCRIBE", alice, presenceEvent, lines("Expires: 600"))
			if sub.head.Get("Expires") != "600" || !strings.Contains(sub.head.Get("Contact"), "127.0.0.1") {
				t.Errorf("%v", sub.head)
			}
			first := w.shows("active;expires=600", "closed", "unknown")
			if first.head.Get("Event") != "presence" || first.head.Get("Content-Type") != "application/pidf+xml" || !strings.HasPrefix(first.start, "NOTIFY sip:bob@127.0.0.1:") {
				t.Errorf("%s\n%v", first.start, first.head)
			}
			p := h.phone("alice", network)
			a := p.ask(200, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF))
			if a.head.Get("Expires") != "600" {
				t.Errorf("granted %s", a.head.Get("Expires"))
			}
			w.shows("open")
			tag := a.head.Get("SIP-ETag")
			a = p.ask(200, "PUBLISH", alice, presenceEvent, lines("SIP-If-Match: "+tag))
			p.ask(412, "PUBLISH", alice, presenceEvent, lines("SIP-If-Match: "+tag))
			busy := strings.Replace(openPIDF, "</tuple>", `</tuple><dm:person xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" id="p"><rpid:activities xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid"><rpid:on-the-phone/></rpid:activities></dm:person>`, 1)
			a = p.ask(200, "PUBLISH", alice, presenceEvent, pidfBody(busy), lines("SIP-If-Match: "+a.head.Get("SIP-ETag")))
			w.shows("on-the-phone")
			p.ask(200, "PUBLISH", alice, presenceEvent, lines("SIP-If-Match: "+a.head.Get("SIP-ETag"), "Expires: 0"))
			w.shows("closed")
			w.ask(200, "SUBSCRIBE", alice, presenceEvent, within(sub), lines("Expires: 0"))
			w.shows("terminated;reason=timeout")
			w.ask(481, "SUBSCRIBE", alice, presenceEvent, within(sub))
			if len(w.waiting) > 0 {
				t.Errorf("more NOTIFYs than changes: %v", w.waiting)
			}
		})
	}
}

// TestLevels has a watcher at each level see a person go on the phone.
func TestLevels(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.report("4750", presence.PhoneIdle)
	phones := map[presence.Level]*phone{}
	for l, first := range map[presence.Level][]string{
		presence.LevelBlock: {"active", "closed"}, presence.LevelConfirm: {"pending", "closed"}, presence.LevelTelephony: {"active", "open", "presenced-phone"},
		presence.LevelStatus: {"active", "open"}, presence.LevelFull: {"active", "open", "presenced-phone"},
	} {
		user := "w" + l.String()
		h.gate.set(user, "alice", l)
		p := h.phone(user, "udp")
		p.ask(200, "SUBSCRIBE", alice, presenceEvent)
		p.shows(first...)
		phones[l] = p
	}
	h.report("4750", presence.PhoneConnected)
	phones[presence.LevelTelephony].shows("on-the-phone")
	phones[presence.LevelFull].shows("on-the-phone")
	if m := phones[presence.LevelStatus].shows("busy"); strings.Contains(m.body, "phone") {
		t.Errorf("a watcher of the status sees why:\n%s", m.body)
	}
	h.gate.set("wconfirm", "alice", presence.LevelFull) // the person agrees
	h.gate.set("wfull", "alice", presence.LevelBlock)   // and forbids
	state, _ := h.hub.State("alice")
	h.tell(state)
	phones[presence.LevelConfirm].shows("active", "on-the-phone")
	phones[presence.LevelFull].shows("active", "closed")
	h.report("4750", presence.PhoneIdle)
	phones[presence.LevelStatus].shows("open")
	for _, l := range []presence.Level{presence.LevelBlock, presence.LevelFull} { // frozen
		p := phones[l]
		p.ask(481, "SUBSCRIBE", alice, presenceEvent, func(r *request) { r.to = ";tag=x" })
		if len(p.waiting) > 0 {
			t.Errorf("%s: a NOTIFY for nothing: %s", p.user, p.waiting[0].body)
		}
	}
}

// TestPackages watches a lamp, the watchers, a group and a list of the request's own.
func TestPackages(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) {
		c.Lists = []ListConfig{{Address: "sip:friends@example.test", Members: []string{"sip:alice@example.test", "sip:4752@example.test"}}}
	})
	lamp := h.phone("bob", "tcp")
	lamp.ask(200, "SUBSCRIBE", "sip:4750@example.test", lines("Event: dialog;id=7", "Accept: application/dialog-info+xml"))
	if m := lamp.shows(`version="0"`, `state="full"`); m.head.Get("Event") != "dialog;id=7" {
		t.Errorf("Event: %s", m.head.Get("Event"))
	}
	h.report("4750", presence.PhoneRinging)
	lamp.shows(`version="1"`, "early")

	winfo := h.phone("alice", "tcp")
	winfo.ask(200, "SUBSCRIBE", alice, lines("Event: presence.winfo"))
	winfo.shows(`version="0"`, "watcherinfo")

	group := h.phone("bob", "tcp")
	a := group.ask(200, "SUBSCRIBE", "sip:group-Sales@example.test", presenceEvent, lines("Supported: eventlist"))
	if a.head.Get("Require") != "eventlist" {
		t.Errorf("%v", a.head)
	}
	m := group.shows(`fullState="true"`, "sip:alice@example.test", "sip:bob@example.test", "sip:carol@example.test")
	if m.head.Get("Require") != "eventlist" {
		t.Errorf("%v", m.head)
	}
	if l, err := documents.ParseList(m.head.Get("Content-Type"), []byte(m.body)); err != nil || len(l.Resources) != 3 || !l.Full {
		t.Errorf("%+v, %v", l, err)
	}
	h.report("4750", presence.PhoneConnected)
	m = group.shows(`fullState="false"`, "on-the-phone")
	if l, err := documents.ParseList(m.head.Get("Content-Type"), []byte(m.body)); err != nil || len(l.Resources) != 1 || l.Version != 1 {
		t.Errorf("%+v, %v", l, err)
	}

	partial := h.phone("bob", "tcp")
	partial.ask(200, "SUBSCRIBE", alice, presenceEvent, lines("Accept: application/pidf-diff+xml, application/pidf+xml"))
	if m := partial.shows("pidf-full", `version="1"`, "on-the-phone"); m.head.Get("Content-Type") != "application/pidf-diff+xml" {
		t.Errorf("%v", m.head)
	}
	h.report("4750", presence.PhoneDND)
	partial.shows(`version="2"`, "Do not disturb")
	h.report("4750", presence.PhoneConnected)
	group.shows(`fullState="false"`) // both changes, gathered
	partial.shows(`version="3"`, "on-the-phone")

	friends := h.phone("carol", "tcp")
	friends.ask(200, "SUBSCRIBE", "sip:friends@example.test", presenceEvent, lines("Supported: eventlist"))
	friends.shows(`fullState="true"`, "sip:4752@example.test")
	friends.ask(200, "SUBSCRIBE", "sip:rls@example.test", presenceEvent,
		lines("Supported: eventlist", "Require: recipient-list-subscribe", "Content-Disposition: recipient-list", "Content-Type: application/resource-lists+xml"),
		func(r *request) {
			r.body = string(documents.AppendEntries(nil, []documents.Entry{{URI: alice}, {URI: "sip:nobody@example.test"}}))
		})
	friends.shows(`fullState="true"`, "on-the-phone")
}

// TestPendingInDocuments has somebody wait to be let in: the person sees who, and a list
// says which of its resources that are, and which are nobody.
func TestPendingInDocuments(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.gate.set("bob", "alice", presence.LevelConfirm)
	list := h.phone("bob", "tcp")
	list.ask(200, "SUBSCRIBE", "sip:rls@example.test", presenceEvent,
		listBody(string(documents.AppendEntries(nil, []documents.Entry{{URI: alice}, {URI: "sip:carol@example.test"}, {URI: "sip:nobody@example.test"}}))))
	m := list.shows("rlmi")
	l, err := documents.ParseList(m.head.Get("Content-Type"), []byte(m.body))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range l.Resources {
		for _, i := range r.Instances {
			got[r.URI] = i.State + " " + i.Reason
		}
	}
	if want := map[string]string{alice: "pending ", "sip:carol@example.test": "active ", "sip:nobody@example.test": "terminated noresource"}; !maps.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	h.phone("carol", "udp").ask(200, "SUBSCRIBE", alice, presenceEvent)
	winfo := h.phone("alice", "tcp")
	winfo.ask(200, "SUBSCRIBE", alice, lines("Event: presence.winfo"))
	winfo.shows(`status="pending" event="subscribe"`, "sip:bob@example.test", `status="active" event="approved"`, "sip:carol@example.test")
}

// TestRestartByTCP stops the service, and with it the connection of two watchers, and
// starts another. Who listens where its Contact says is told there; the other one when
// it subscribes again.
func TestRestartByTCP(t *testing.T) {
	h := newHouse(t)
	h.report("4750", presence.PhoneIdle)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there := h.phone("bob", "tcp")
	there.ask(200, "SUBSCRIBE", alice, presenceEvent, func(r *request) { r.contact = "sip:bob@" + l.Addr().String() + ";transport=tcp" })
	there.shows("open")
	gone := h.phone("carol", "tcp")
	sub := gone.ask(200, "SUBSCRIBE", alice, presenceEvent, func(r *request) { r.contact = "sip:carol@192.0.2.1:5060;transport=tcp" })
	gone.shows("open")
	kept, c := h.keeper.memory, h.cfg
	h.stop()
	h.report("4750", presence.PhoneConnected)
	h.run(c, kept)
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(&phone{t: t, user: "bob", network: "tcp", conn: conn, in: bufio.NewReader(conn)}).shows("on-the-phone")
	again := h.phone("carol", "tcp")
	again.cseq = gone.cseq
	again.ask(200, "SUBSCRIBE", alice, presenceEvent, within(sub))
	again.shows("active", "on-the-phone")
	if n := h.Status().Problems["connections not to be had"]; n > 0 {
		t.Errorf("%d connections to where nobody listens", n)
	}
}

// TestRestartOnTheWire stops the service and starts another on the same port: the
// dialog goes on, its CSeq rises, and the new state comes.
func TestRestartOnTheWire(t *testing.T) {
	h := newHouse(t)
	h.report("4750", presence.PhoneIdle)
	kept := h.keeper.memory
	w := h.phone("bob", "udp")
	sub := w.ask(200, "SUBSCRIBE", alice, presenceEvent)
	cseq := func(m message) int { n, _ := strconv.Atoi(strings.Fields(m.head.Get("CSeq"))[0]); return n }
	before := w.shows("open")
	c := h.cfg
	c.Transport.Listen = []string{"udp:" + h.udp, "tcp:" + h.tcp}
	h.stop()
	h.report("4750", presence.PhoneConnected)
	h.run(c, kept)
	w.auth = "" // the new service has another key
	if _, err := io.WriteString(w.conn, "\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	after := w.ask(200, "SUBSCRIBE", alice, presenceEvent, within(sub))
	if after.head.Get("To") != sub.head.Get("To") {
		t.Errorf("another dialog: %s", after.head.Get("To"))
	}
	if m := w.shows("on-the-phone"); cseq(m) <= cseq(before) {
		t.Errorf("CSeq %d after %d", cseq(m), cseq(before))
	}
}

// TestPaceOnTheWire has a change while a NOTIFY is out, and wants it told by itself
// when the pace allows.
func TestPaceOnTheWire(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.NotifyInterval = 300 * time.Millisecond })
	h.report("4750", presence.PhoneIdle)
	w := h.phone("bob", "tcp")
	w.ask(200, "SUBSCRIBE", alice, presenceEvent)
	first := w.receive() // is out
	begun := time.Now()
	h.report("4750", presence.PhoneDND)
	w.waiting = append(w.waiting, first)
	w.shows("open")
	w.shows("Do not disturb")
	if waited := time.Since(begun); waited < 200*time.Millisecond {
		t.Errorf("told after %v", waited)
	}
}

// TestWatcherBusy has a watcher ask to be left alone for a second: it is told then.
func TestWatcherBusy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	w := h.phone("bob", "udp")
	w.ask(200, "SUBSCRIBE", alice, presenceEvent)
	w.notify(503, "Retry-After: 1")
	w.shows("active")
}

// TestTooManyOut has more to say than may wait for answers at once: who has to wait
// for that is told a second later, and loses nothing.
func TestTooManyOut(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.Transport.Outstanding = 1 })
	first, second := h.phone("bob", "udp"), h.phone("carol", "udp")
	first.ask(200, "SUBSCRIBE", alice, presenceEvent)
	second.ask(200, "SUBSCRIBE", alice, presenceEvent)
	first.shows("active")
	second.shows("active")
}

// TestConnectionLost closes the connection of two watchers. One listens where its
// Contact says, and is told there; the other is told when it subscribes again.
func TestConnectionLost(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.report("4750", presence.PhoneIdle)
	lost := func(contact string) (message, *phone) {
		w := h.phone("bob", "tcp")
		a := w.ask(200, "SUBSCRIBE", alice, presenceEvent, func(r *request) { r.contact = contact })
		w.shows("open")
		_ = w.conn.Close()
		return a, w
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lost("sip:bob@" + l.Addr().String() + ";transport=tcp")
	sub, before := lost("sip:bob@192.0.2.1:5060;transport=tcp")
	h.report("4750", presence.PhoneConnected)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	(&phone{t: t, user: "bob", network: "tcp", conn: c, in: bufio.NewReader(c)}).shows("on-the-phone")
	w := h.phone("bob", "tcp")
	w.cseq = before.cseq
	w.ask(200, "SUBSCRIBE", alice, presenceEvent, within(sub))
	w.shows("on-the-phone")
}

// TestOwnAddressesOnly has a Contact that names a third address: the NOTIFY comes
// to the sender nevertheless.
func TestOwnAddressesOnly(t *testing.T) {
	h := newHouse(t)
	third, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	w := h.phone("bob", "udp")
	w.ask(200, "SUBSCRIBE", alice, presenceEvent, func(r *request) { r.contact = "sip:bob@" + third.LocalAddr().String() })
	if m := w.shows("active"); !strings.HasPrefix(m.start, "NOTIFY sip:bob@"+third.LocalAddr().String()) {
		t.Error(m.start)
	}
}

// TestTrustedAndAnonymous believes a proxy, and lets others watch as nobody.
func TestTrustedAndAnonymous(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Trusted = []string{"127.0.0.0/8"} })
	p := h.phone("alice", "udp")
	p.ask(200, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF))
	p.ask(403, "PUBLISH", "sip:bob@example.test", presenceEvent, pidfBody(openPIDF))
	if p.auth != "" {
		t.Error("who is behind the proxy was asked for a password")
	}

	h = newHouse(t, func(c *Config) { c.Anonymous = true })
	h.gate.mu.Lock()
	h.gate.access[anonymous+" alice"] = presence.Access{Level: presence.LevelConfirm}
	h.gate.mu.Unlock()
	p = h.phone("alice", "udp")
	p.ask(401, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF))
	p.auth = ""
	p.ask(401, "SUBSCRIBE", alice, presenceEvent) // whose source may be forged
	p = h.phone("alice", "tcp")
	p.ask(200, "SUBSCRIBE", alice, presenceEvent)
	p.shows("pending")
	p.ask(401, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF)) // nobody may watch, and no more
}

// TestAccountsFile reads the file of htdigest.
func TestAccountsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "accounts")
	if err := os.WriteFile(file, []byte("# ours\n\ndave:example.test:0123456789ABCDEF0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &passwords{file: file, other: accounts{}}
	if err := p.read(); err != nil {
		t.Fatal(err)
	}
	if got, ok := p.HA1("dave", "example.test", htdigest.MD5); !ok || got != "0123456789abcdef0123456789abcdef" {
		t.Error(got, ok)
	}
	if _, ok := p.HA1("bob", "example.test", htdigest.MD5); !ok {
		t.Error("the other source is not asked")
	}
}
