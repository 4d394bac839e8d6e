package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/bridges/sip/wire"
)

// ledger writes down in which order a handler got what.
type ledger struct {
	sync.Mutex
	calls map[string][]uint32
}

func (l *ledger) handle(r *wire.Request) {
	l.Lock()
	if l.calls == nil {
		l.calls = map[string][]uint32{}
	}
	l.calls[string(r.URI())] = append(l.calls[string(r.URI())], r.CSeq())
	l.Unlock()
	r.Respond(200, "OK", nil, nil)
}

// check wants each of keys to have had n numbers in ascending order.
func (l *ledger) check(t *testing.T, keys, n int) {
	t.Helper()
	l.Lock()
	defer l.Unlock()
	if len(l.calls) != keys {
		t.Errorf("%d keys, want %d", len(l.calls), keys)
	}
	for k, calls := range l.calls {
		inversions := 0
		for i := 1; i < len(calls); i++ {
			if calls[i] < calls[i-1] {
				inversions++
			}
		}
		if len(calls) != n || inversions > 0 {
			t.Errorf("%s: %d calls, want %d; %d inversions", k, len(calls), n, inversions)
		}
	}
}

func TestOrder(t *testing.T) {
	const messages, keys, window = 5000, 10, 50
	who := func(i int) string { return fmt.Sprintf("user%d", i%keys) }
	t.Run("tcp", func(t *testing.T) {
		var l ledger
		w := start(t, loose(), wire.App{Handle: l.handle})
		c := &stream{Conn: dial(t, "tcp", w.tcp)}
		var all strings.Builder
		for i := range messages {
			all.WriteString(publish(who(i), i+1, "TCP"))
		}
		go func() { _, _ = c.Write([]byte(all.String())) }()
		for range messages {
			if got := c.receive(t); got.code() != 200 {
				t.Fatal(got.start)
			}
		}
		l.check(t, keys, messages/keys)
	})
	t.Run("udp", func(t *testing.T) {
		var l ledger
		w := start(t, loose(), wire.App{Handle: l.handle})
		c := dial(t, "udp", w.udp)
		for i := range messages + window {
			if i < messages {
				send(t, c, publish(who(i), i+1, "UDP"))
			}
			if i >= window {
				if got := receive(t, c); got.code() != 200 {
					t.Fatal(got.start)
				}
			}
		}
		l.check(t, keys, messages/keys)
	})
}

// TestRetransmission is the law of server transactions: whatever comes how often in
// which order, the handler is called once for each transaction, and each gets the same answer always.
func TestRetransmission(t *testing.T) {
	var calls sync.Map
	var serial atomic.Uint32
	w := start(t, loose(), wire.App{Handle: func(r *wire.Request) {
		n, _ := calls.LoadOrStore(string(r.CallID()), new(atomic.Int32))
		n.(*atomic.Int32).Add(1)
		r.Respond(200, "OK", wire.AppendSeconds(nil, "X-Serial", serial.Add(1)), nil)
	}})
	c := dial(t, "udp", w.udp)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		answers := map[string]string{}
		for i, n := range rapid.SliceOfN(rapid.IntRange(0, 4), 1, 25).Draw(rt, "transactions") {
			message := publish(fmt.Sprintf("u%d", run), n, "UDP")
			if n == 0 { // of RFC 2543
				message = strings.Replace(message, fmt.Sprintf("branch=z9hG4bK-u%d-0;", run), "", 1)
			}
			send(t, c, message)
			got := receive(t, c)
			id := fmt.Sprintf("call-u%d-%d", run, n)
			if got.head.Get("Call-Id") != id {
				rt.Fatalf("step %d: answer to %s, want %s", i, got.head.Get("Call-Id"), id)
			}
			if was, again := answers[id]; again && was != got.raw {
				rt.Fatalf("step %d: another answer\n%s\n%s", i, was, got.raw)
			}
			answers[id] = got.raw
		}
		for id := range answers {
			n, _ := calls.Load(id)
			if got := n.(*atomic.Int32).Load(); got != 1 {
				rt.Fatalf("%s: %d calls of the handler", id, got)
			}
		}
	})
}

// What another host sends with the same branch is not answered with what was meant for the first.
func TestStolenBranch(t *testing.T) {
	var calls atomic.Int32
	w := start(t, loose(), wire.App{Handle: func(r *wire.Request) { calls.Add(1); ok(r) }})
	for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, net.UDPAddrFromAddrPort(w.udp))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		send(t, c, publish("a", 1, "UDP"))
		receive(t, c)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls", n)
	}
}

func TestAnswer(t *testing.T) {
	w := start(t, loose(), wire.App{Handle: func(r *wire.Request) {
		tag := string(r.LocalTag())
		r.Respond(200, "OK", wire.AppendHeader(nil, "X-Tag", tag+"\r\nX-Evil: yes"), []byte("body"))
		r.Respond(500, "Second", nil, nil)
	}})
	c := dial(t, "udp", w.udp)
	send(t, c, "SUBSCRIBE sip:4750@example.test SIP/2.0\r\nv: SIP/2.0/UDP 10.9.9.9:6000;received=203.0.113.9;branch=z9hG4bK2;rport , SIP/2.0/TCP p.example.test;branch=z9hG4bKp\r\nv: SIP/2.0/TCP q.example.test;branch=z9hG4bKq\r\nf: \"Bob, B\" <sip:bob@example.test>;tag=f1\r\nt: <sip:4750@example.test>\r\ni: s1\r\nCSeq: 2 SUBSCRIBE\r\nm: <sip:bob@127.0.0.1>\r\no: presence;id=7\r\nRecord-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>,\r\n <sip:p3;lr>\r\n\r\n")
	got := receive(t, c)
	port := netip.MustParseAddrPort(c.LocalAddr().String()).Port()
	tag := strings.TrimSuffix(got.head.Get("X-Tag"), "  X-Evil: yes")
	want := fmt.Sprintf("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.9.9.9:6000;branch=z9hG4bK2;rport=%d;received=127.0.0.1 , SIP/2.0/TCP p.example.test;branch=z9hG4bKp\r\nVia: SIP/2.0/TCP q.example.test;branch=z9hG4bKq\r\nFrom: \"Bob, B\" <sip:bob@example.test>;tag=f1\r\nTo: <sip:4750@example.test>;tag=%s\r\nCall-ID: s1\r\nCSeq: 2 SUBSCRIBE\r\nRecord-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>,   <sip:p3;lr>\r\nX-Tag: %s  X-Evil: yes\r\nContent-Length: 4\r\n\r\nbody", port, tag, tag)
	if got.raw != want || len(tag) != 16 {
		t.Errorf("got\n%s\nwant\n%s", got.raw, want)
	}
}

func TestReading(t *testing.T) {
	type seen struct {
		event, id, expires, accept, ifMatch, from, fromTag, contact, auth, other, body string
	}
	got := make(chan seen, 1)
	w := start(t, loose(), wire.App{Supported: []string{"eventlist"}, Handle: func(r *wire.Request) {
		var s seen
		event, params := r.Event()
		id, _ := params.Get("ID")
		s.event, s.id = string(event), string(id)
		n, _ := r.Seconds(wire.Expires)
		s.expires = fmt.Sprint(n)
		for v := range r.List(wire.Accept) {
			s.accept += string(v) + "|"
		}
		for v := range r.Headers(wire.Authorization) {
			s.auth += string(v) + "|"
		}
		for v := range r.List(wire.Contact) {
			a, _ := wire.ParseAddress(v)
			s.contact += string(a.URI) + "|"
		}
		s.ifMatch, s.from, s.fromTag = string(r.Header(wire.SIPIfMatch)), string(r.From().URI), string(r.From().Tag())
		s.other, s.body = string(r.Named("x-other")), string(r.Body())
		got <- s
		ok(r)
	}})
	c := dial(t, "udp", w.udp)
	send(t, c, "\r\n\r\nPUBLISH sip:a@b SIP/2.0\r\nv: SIP/2.0/UDP 10.9.9.9;branch=z9hG4bK2;rport\r\nf: B <sip:bob@x;user=phone>;tag=f1\r\nt: sip:a@b\r\ni: s1\r\nCSeq: 2 PUBLISH\r\nm: \"a, b\" <sip:b@c,d>, <sip:e@f>\r\no: presence;id=7\r\nExpires: 99999999999999\r\nAccept: a/b,\r\n  c/d\r\nAccept: e/f\r\nAuthorization: Digest a=\"b\", c=d\r\nauthorization: Other\r\nSIP-If-Match: tag\r\nRequire: EventList\r\nX-OTHER: yes\r\n\r\nno length")
	receive(t, c)
	want := seen{"presence", "7", "4294967295", "a/b|c/d|e/f|", "tag", "sip:bob@x;user=phone", "f1", "sip:b@c,d|sip:e@f|", `Digest a="b", c=d|Other|`, "yes", "no length"}
	if s := <-got; s != want {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
}

func TestRefusals(t *testing.T) {
	release := make(chan struct{})
	cfg := loose()
	cfg.Workers, cfg.Queue = 1, 1
	w := start(t, cfg, wire.App{Handle: func(r *wire.Request) {
		switch string(r.URI()) {
		case "sip:panic@example.test":
			panic("private")
		case "sip:nothing@example.test":
			return
		case "sip:slow@example.test":
			<-release
		}
		ok(r)
	}})
	c := dial(t, "udp", w.udp)
	for who, code := range map[string]int{"panic": 500, "nothing": 500, "fine": 200} {
		send(t, c, publish(who, 1, "UDP"))
		if got := receive(t, c); got.code() != code {
			t.Errorf("%s: %s, want %d", who, got.start, code)
		}
	}
	send(t, c, strings.ReplaceAll(publish("a", 2, "UDP"), "PUBLISH", "REGISTER"))
	if got := receive(t, c); got.code() != 405 || got.head.Get("Allow") != "PUBLISH, SUBSCRIBE, NOTIFY, OPTIONS" {
		t.Errorf("%+v", got)
	}
	send(t, c, strings.Replace(publish("a", 3, "UDP"), "Expires: 600", "Require: a, b\r\nProxy-Require: c", 1))
	if got := receive(t, c); got.code() != 420 || got.head.Get("Unsupported") != "a, b" {
		t.Errorf("%+v", got)
	}
	for i := range 3 { // one is worked on, one waits, one is too many; the answers come last to first
		send(t, c, publish("slow", i, "UDP"))
		if i == 0 {
			for w.Status().Requests < 4 {
				runtime.Gosched() // until the worker has it
			}
		}
	}
	if got := receive(t, c); got.code() != 503 || got.head.Get("Retry-After") != "2" || got.head.Get("Cseq") != "2 PUBLISH" {
		t.Errorf("%+v", got)
	}
	close(release)
	for range 2 {
		if got := receive(t, c); got.code() != 200 {
			t.Errorf("%+v", got)
		}
	}
	problems := w.Status().Problems
	for kind, n := range map[string]int{"panics": 1, "requests without an answer by the handler": 2, "requests refused for overload": 1} {
		if problems[kind] != n {
			t.Errorf("%s: %d, want %d", kind, problems[kind], n)
		}
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	w := start(t, loose(), wire.App{Handle: ok})
	c := &stream{Conn: dial(t, "tcp", w.tcp)}
	for _, b := range []byte("\r\n\r\n\r\n" + publish("a", 1, "TCP")) { // a byte at a time
		send(t, c, string(b))
	}
	if got := c.receive(t); got.code() != 200 || c.pongs != 1 {
		t.Errorf("%s, %d keep-alives answered", got.start, c.pongs)
	}
	// Two and a half in one piece, a keep-alive between them.
	third := publish("a", 4, "TCP")
	send(t, c, publish("a", 2, "TCP")+"\r\n\r\n"+publish("a", 3, "TCP")+third[:100])
	for _, n := range []string{"2 PUBLISH", "3 PUBLISH"} {
		if got := c.receive(t); got.head.Get("Cseq") != n {
			t.Errorf("%+v, want CSeq %s", got, n)
		}
	}
	send(t, c, third[100:])
	if got := c.receive(t); got.head.Get("Cseq") != "4 PUBLISH" || c.pongs != 2 {
		t.Errorf("%+v, %d keep-alives answered", got, c.pongs)
	}
	// What is too large is answered, and ends the connection, as does a lost frame.
	for code, length := range map[int]string{513: "65530", 400: "none"} {
		c := &stream{Conn: dial(t, "tcp", w.tcp)}
		send(t, c, strings.Replace(publish("a", 5, "TCP"), fmt.Sprintf("Content-Length: %d", len(pidf)), "Content-Length: "+length, 1))
		if got := c.receive(t); got.code() != code {
			t.Errorf("%s, want %d", got.start, code)
		}
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("the connection goes on: %d", n)
		}
	}
}

func TestLargeBody(t *testing.T) {
	body := strings.Repeat("x", 20000)
	w := start(t, loose(), wire.App{Handle: func(r *wire.Request) {
		r.Respond(200, "OK", nil, bytes.ToUpper(r.Body()))
	}})
	message := strings.Replace(publish("a", 1, "UDP"), fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(pidf), pidf), "Content-Length: 20000\r\n\r\n"+body, 1)
	u := dial(t, "udp", w.udp)
	send(t, u, message)
	if got := receive(t, u); got.body != strings.ToUpper(body) {
		t.Errorf("by UDP: %s, %d bytes", got.start, len(got.body))
	}
	c := &stream{Conn: dial(t, "tcp", w.tcp)}
	send(t, c, message)
	if got := c.receive(t); got.body != strings.ToUpper(body) {
		t.Errorf("by TCP: %s, %d bytes", got.start, len(got.body))
	}
}

// A slow reader is cut off and nobody else is kept waiting.
func TestSlowReader(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 60000)
	cfg := loose()
	cfg.WriteQueue = 1 << 17
	w := start(t, cfg, wire.App{Handle: func(r *wire.Request) {
		if string(r.URI()) == "sip:slow@example.test" {
			r.Respond(200, "OK", nil, large)
			return
		}
		ok(r)
	}})
	slow := dial(t, "tcp", w.tcp)
	_ = slow.(*net.TCPConn).SetReadBuffer(4096)
	var cut atomic.Bool
	var sending sync.WaitGroup
	sending.Go(func() {
		for i := range 10000 {
			if _, err := slow.Write([]byte(publish("slow", i, "TCP"))); err != nil {
				cut.Store(true)
				return
			}
		}
	})
	c := dial(t, "udp", w.udp)
	for i := range 200 {
		send(t, c, publish("quick", i, "UDP"))
		receive(t, c)
	}
	sending.Wait()
	if !cut.Load() || w.Status().Problems["connections closed because the peer does not read"] != 1 {
		t.Errorf("cut: %v, %v", cut.Load(), w.Status().Problems)
	}
}

func TestFlood(t *testing.T) {
	cfg := loose()
	cfg.Rate = 50
	w := start(t, cfg, wire.App{Handle: ok})
	flood, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 66)}, net.UDPAddrFromAddrPort(w.udp))
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	_ = flood.SetDeadline(time.Now().Add(10 * time.Second))
	c := dial(t, "udp", w.udp)
	for i := range 90 {
		for j := range 50 {
			send(t, flood, publish("flood", i*50+j, "UDP"))
		}
		send(t, c, publish("quick", i, "UDP"))
		if got := receive(t, c); got.code() != 200 {
			t.Fatalf("%+v", got)
		}
	}
	refused, served := 0, 0
	for refused == 0 || served < 90 { // the two overtake each other
		switch got := receive(t, flood); got.code() {
		case 503:
			refused++
		case 200:
			served++
		}
	}
	if n := w.Status().Problems["messages over the rate of their source"]; n < 4000 {
		t.Errorf("%d dropped of 4500", n)
	}
}

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	cfg := loose()
	cfg.ConnectionsEach, cfg.Idle = 2, time.Second
	w := start(t, cfg, wire.App{Handle: ok})
	var cs []net.Conn
	for range 2 {
		c := &stream{Conn: dial(t, "tcp", w.tcp)}
		send(t, c, publish("a", 1, "TCP"))
		c.receive(t)
		cs = append(cs, c)
	}
	third := dial(t, "tcp", w.tcp)
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection was served")
	}
	send(t, cs[0], publish("a", 2, "TCP")[:100]) // and no more of it
	for i, c := range cs {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

func TestIPv6(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here")
	} else {
		_ = l.Close()
	}
	cfg := loose()
	cfg.Listen = []string{"udp:[::1]:0", "tcp:[::1]:0"}
	w := start(t, cfg, wire.App{Handle: ok})
	u := dial(t, "udp", w.udp)
	send(t, u, publish("a", 1, "UDP"))
	if got := receive(t, u); !strings.Contains(got.head.Get("Via"), ";received=::1") {
		t.Errorf("%+v", got)
	}
	c := &stream{Conn: dial(t, "tcp", w.tcp)}
	send(t, c, publish("a", 2, "TCP"))
	c.receive(t)
	answered := make(chan wire.Answer, 1)
	if err := w.Send(wire.FlowTo(wire.UDP, w.udp, ""), request(t, "OPTIONS", nil), func(a wire.Answer) { answered <- a }); err != nil {
		t.Fatal(err)
	}
	if a := <-answered; a.Err != nil {
		t.Error(a.Err)
	}
}

// Who is asked at the end answers yet.
func TestAnswerAtTheEnd(t *testing.T) {
	for range 20 {
		asked := make(chan struct{})
		w := start(t, loose(), wire.App{Handle: func(r *wire.Request) {
			close(asked)
			runtime.Gosched()
			r.Respond(200, "OK", nil, nil)
		}})
		c := dial(t, "udp", w.udp)
		send(t, c, publish("ann", 1, "UDP"))
		<-asked
		w.stop()
		if got := receive(t, c); got.code() != 200 {
			t.Fatal(got.start)
		}
	}
}
