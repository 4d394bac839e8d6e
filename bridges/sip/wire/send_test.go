package wire_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"presenced/bridges/sip/wire"
)

var requests atomic.Uint32

// request makes one that nobody made before.
func request(t testing.TB, method string, body []byte) *wire.Outgoing {
	t.Helper()
	n := requests.Add(1)
	x, err := wire.NewTemplate(method, "sip:bob@example.test", fmt.Sprintf("ours-%d", n), "<sip:4750@example.test>;tag=ours", "<sip:bob@example.test>;tag=f1", wire.AppendHeader(nil, "Event", "presence"))
	if err != nil {
		t.Fatal(err)
	}
	return &wire.Outgoing{Template: x, CSeq: n, Headers: wire.AppendHeader(nil, "Subscription-State", "active;expires=599"), Body: body}
}

// A result is what a test keeps of an answer.
type result struct {
	code int
	err  error
}

func ask(t testing.TB, w *world, to wire.Flow, o *wire.Outgoing) result {
	t.Helper()
	return <-asking(t, w, to, o)
}

func asking(t testing.TB, w *world, to wire.Flow, o *wire.Outgoing) chan result {
	t.Helper()
	answers := make(chan result, 2)
	if err := w.Send(to, o, func(a wire.Answer) {
		r := result{err: a.Err}
		if a.Message != nil {
			r.code = a.Code()
		}
		answers <- r
	}); err != nil {
		t.Fatal(err)
	}
	return answers
}

func TestBetween(t *testing.T) {
	t.Parallel()
	got := make(chan string, 10)
	server := start(t, loose(), wire.App{Handle: func(r *wire.Request) {
		got <- r.Flow().Network.String() + " " + string(r.Header(wire.Via)) + " " + string(r.Body())
		ok(r)
	}})
	client := start(t, loose(), wire.App{Handle: ok})
	for _, to := range []wire.Flow{wire.FlowTo(wire.UDP, server.udp, ""), wire.FlowTo(wire.TCP, server.tcp, ""), wire.FlowTo(wire.TCP, server.tcp, "")} {
		if a := ask(t, client, to, request(t, "NOTIFY", []byte("hello"))); a.err != nil || a.code != 200 {
			t.Errorf("%v: %+v", to, a)
		}
		want := fmt.Sprintf("%s SIP/2.0/%s %s;rport;branch=z9hG4bK", to.Network, strings.ToUpper(to.Network.String()), map[wire.Network]netip.AddrPort{wire.UDP: client.udp, wire.TCP: client.tcp}[to.Network])
		if s := <-got; !strings.HasPrefix(s, want) || !strings.HasSuffix(s, " hello") {
			t.Errorf("%s, want %s", s, want)
		}
	}
	if s := client.Status(); s.Connections != 1 || s.Sent != 3 || s.Outstanding != 0 {
		t.Errorf("%+v", s)
	}
}

// TestLostAnswer drops the first datagram of each direction: the request is sent
// again, and handled once.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	server := start(t, loose(), wire.App{Handle: func(r *wire.Request) { calls.Add(1); ok(r) }})
	client := start(t, loose(), wire.App{Handle: ok})
	lossy, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer lossy.Close()
	go func() {
		seen := map[netip.AddrPort]int{}
		buffer := make([]byte, 65535)
		for {
			n, from, err := lossy.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			to := server.udp
			if from == server.udp {
				to = client.udp
			}
			if seen[from]++; seen[from] > 1 {
				_, _ = lossy.WriteToUDPAddrPort(buffer[:n], to)
			}
		}
	}()
	at := lossy.LocalAddr().(*net.UDPAddr).AddrPort()
	begin := time.Now()
	a := ask(t, client, wire.FlowTo(wire.UDP, at, ""), request(t, "NOTIFY", nil))
	// 0: lost; 0.5 s: its answer lost; 1.5 s: answered.
	if took := time.Since(begin); a.code != 200 || calls.Load() != 1 || took < 1500*time.Millisecond || took > 3*time.Second {
		t.Errorf("%+v after %v, %d calls", a, took, calls.Load())
	}
	if s := client.Status(); s.Resent != 2 {
		t.Errorf("%+v", s)
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	to := wire.FlowTo(wire.UDP, silent.LocalAddr().(*net.UDPAddr).AddrPort(), "")
	cfg := loose()
	cfg.Outstanding = 2
	w := start(t, cfg, wire.App{Handle: ok})
	short, long := request(t, "NOTIFY", nil), request(t, "NOTIFY", nil)
	short.Timeout = 100 * time.Millisecond
	waiting := asking(t, w, to, long)
	if a := ask(t, w, to, short); !errors.Is(a.err, wire.ErrTimeout) {
		t.Errorf("%+v", a)
	}
	second := asking(t, w, to, request(t, "NOTIFY", nil))
	if err := w.Send(to, request(t, "NOTIFY", nil), nil); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("a third: %v", err)
	}
	if err := w.Send(to, request(t, "NOTIFY", make([]byte, 65536)), nil); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	w.stop()
	for _, answers := range []chan result{waiting, second} {
		if a := <-answers; !errors.Is(a.err, wire.ErrClosed) || len(answers) > 0 {
			t.Errorf("%+v", a)
		}
	}
	if err := w.Send(to, request(t, "NOTIFY", nil), nil); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// A stray answer, one of another method and a provisional one end nothing.
func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	w := start(t, loose(), wire.App{Handle: ok})
	answers := asking(t, w, wire.FlowTo(wire.UDP, peer.LocalAddr().(*net.UDPAddr).AddrPort(), ""), request(t, "NOTIFY", nil))
	buffer := make([]byte, 65535)
	n, from, err := peer.ReadFromUDPAddrPort(buffer)
	if err != nil {
		t.Fatal(err)
	}
	m, _ := parse(t, string(buffer[:n]))
	for _, c := range []struct{ code, via, cseq string }{
		{"200 OK", m.head.Get("Via"), m.head.Get("Cseq") + "X"},
		{"200 OK", strings.TrimRight(m.head.Get("Via"), "0123456789abcdef") + "0000000000000000", m.head.Get("Cseq")},
		{"100 Trying", m.head.Get("Via"), m.head.Get("Cseq")},
		{"481 No", m.head.Get("Via"), m.head.Get("Cseq")},
		{"200 OK", m.head.Get("Via"), m.head.Get("Cseq")}, // a second one
	} {
		_, err := peer.WriteToUDPAddrPort([]byte("SIP/2.0 "+c.code+"\r\nVia: "+c.via+"\r\nFrom: "+m.head.Get("From")+"\r\nTo: "+m.head.Get("To")+"\r\nCall-ID: "+m.head.Get("Call-Id")+"\r\nCSeq: "+c.cseq+"\r\n\r\n"), from)
		if err != nil {
			t.Fatal(err)
		}
	}
	if a := <-answers; a.code != 481 {
		t.Errorf("%+v", a)
	}
	for w.Status().Problems["answers that belong to no request"] < 3 {
		runtime.Gosched()
	}
	if len(answers) > 0 {
		t.Error("a second answer was given")
	}
}

// What is too large for a datagram goes by TCP where the peer has it, else by UDP all the same.
func TestLargeRequest(t *testing.T) {
	t.Parallel()
	body := make([]byte, 5000)
	network := make(chan wire.Network, 1)
	handle := wire.App{Handle: func(r *wire.Request) {
		network <- r.Flow().Network
		if len(r.Body()) != len(body) || !strings.HasPrefix(string(r.Header(wire.Via)), "SIP/2.0/"+strings.ToUpper(r.Flow().Network.String())) {
			r.Respond(400, "Bad Request", nil, nil)
			return
		}
		ok(r)
	}}
	client := start(t, loose(), wire.App{Handle: ok})
	// A server that has both on one port.
	cfg := loose()
	for free := false; !free; {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at := l.Addr().String()
		if p, err := net.ListenPacket("udp4", at); err == nil {
			_ = p.Close()
			free = true
		}
		_ = l.Close()
		cfg.Listen = []string{"udp:" + at, "tcp:" + at}
	}
	both := start(t, cfg, handle)
	if a := ask(t, client, wire.FlowTo(wire.UDP, both.udp, ""), request(t, "NOTIFY", body)); a.code != 200 || <-network != wire.TCP {
		t.Errorf("%+v", a)
	}
	// One that has UDP only; the second request does not try.
	cfg = loose()
	cfg.Listen = cfg.Listen[:1]
	only := start(t, cfg, handle)
	for range 2 {
		if a := ask(t, client, wire.FlowTo(wire.UDP, only.udp, ""), request(t, "NOTIFY", body)); a.code != 200 || <-network != wire.UDP {
			t.Errorf("%+v", a)
		}
	}
	if n := client.Status().Problems["connections not to be had"]; n != 1 {
		t.Errorf("%d connections failed, want 1", n)
	}
}

// Requests go over the flow of the subscriber, and fail with it.
func TestFlow(t *testing.T) {
	t.Parallel()
	flows := make(chan wire.Flow, 1)
	answers := make(chan result, 1)
	notify := request(t, "NOTIFY", []byte("first"))
	w := start(t, loose(), wire.App{Handle: func(r *wire.Request) {
		ok(r)
		if err := r.Send(r.Flow(), notify, func(a wire.Answer) {
			if a.Err == nil {
				answers <- result{code: a.Code()}
			}
		}); err != nil {
			t.Error(err)
		}
		flows <- r.Flow()
	}})
	c := &stream{Conn: dial(t, "tcp", w.tcp)}
	send(t, c, strings.ReplaceAll(publish("a", 1, "TCP"), "PUBLISH", "SUBSCRIBE"))
	if got := c.receive(t); got.code() != 200 {
		t.Errorf("%+v", got)
	}
	got := c.receive(t)
	if got.start != "NOTIFY sip:bob@example.test SIP/2.0" || got.body != "first" {
		t.Errorf("%+v", got)
	}
	send(t, c, "SIP/2.0 200 OK\r\nVia: "+got.head.Get("Via")+"\r\nFrom: "+got.head.Get("From")+"\r\nTo: "+got.head.Get("To")+"\r\nCall-ID: "+got.head.Get("Call-Id")+"\r\nCSeq: "+got.head.Get("Cseq")+"\r\nContent-Length: 0\r\n\r\n")
	if a := <-answers; a.code != 200 {
		t.Errorf("%+v", a)
	}
	flow := <-flows
	second := asking(t, w, flow, request(t, "NOTIFY", nil))
	c.receive(t)
	_ = c.Close()
	if a := <-second; !errors.Is(a.err, wire.ErrFlow) {
		t.Errorf("%+v", a)
	}
	for w.Status().Connections > 0 {
		runtime.Gosched()
	}
	if err := w.Send(flow, request(t, "NOTIFY", nil), nil); !errors.Is(err, wire.ErrFlow) {
		t.Errorf("over a flow that is gone: %v", err)
	}
}

func TestTemplate(t *testing.T) {
	for _, bad := range [][5]string{{"NOTIFY", "sip:a\r\nX: y", "c", "f", "t"}, {"NOTIFY", "sip:a b", "c", "f", "t"}, {"", "u", "c", "f", "t"}, {"NOTIFY", "u", "c", "f\nX: y", "t"}} {
		if _, err := wire.NewTemplate(bad[0], bad[1], bad[2], bad[3], bad[4], nil); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
