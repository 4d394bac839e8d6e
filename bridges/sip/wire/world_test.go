package wire_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"presenced/bridges/sip/wire"
	"presenced/internal/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loose gives a configuration for tests, on free ports.
func loose() wire.Config {
	return wire.Config{
		Listen: []string{"udp:127.0.0.1:0", "tcp:127.0.0.1:0"}, ClientCertificates: "none", TLS: trust.Config{MinVersion: "1.2"}, Workers: 2,
		Queue: 10000, Transactions: 100000, Outstanding: 20000, Timeout: 32 * time.Second, Connections: 100, ConnectionsEach: 50, Idle: time.Minute, WriteQueue: 1 << 20,
	}
}

// A world is an endpoint that runs.
type world struct {
	*wire.Endpoint
	udp, tcp netip.AddrPort // where it listens first
	flows    []wire.Flow
	stop     func()
}

func start(t testing.TB, cfg wire.Config, app wire.App) *world {
	t.Helper()
	if ps := cfg.Check(); len(ps) > 0 {
		t.Fatalf("%+v", ps)
	}
	if app.Methods == nil {
		app.Methods = []string{"PUBLISH", "SUBSCRIBE", "NOTIFY", "OPTIONS"}
	}
	w := &world{Endpoint: wire.New(cfg, app, slog.New(slog.DiscardHandler))}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(w.stop)
	ready, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	flows, err := w.Ready(ready)
	if err != nil {
		cancel()
		t.Fatal(err, <-ended)
	}
	w.flows = flows
	for _, f := range flows {
		switch {
		case f.Network == wire.UDP && !w.udp.IsValid():
			w.udp = f.Local
		case f.Network == wire.TCP && !w.tcp.IsValid():
			w.tcp = f.Local
		}
	}
	return w
}

// ok answers 200.
func ok(r *wire.Request) { r.Respond(200, "OK", nil, nil) }

func dial(t testing.TB, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t testing.TB, c net.Conn, data string) {
	t.Helper()
	if _, err := io.WriteString(c, data); err != nil {
		t.Fatal(err)
	}
}

// A told is a message as a test reads it, with a parser of its own.
type told struct {
	start string
	head  textproto.MIMEHeader
	body  string
	raw   string
}

func (m told) code() int {
	n, _ := strconv.Atoi(strings.TrimPrefix(m.start, "SIP/2.0 ")[:3])
	return n
}

// receive reads one datagram.
func receive(t testing.TB, c net.Conn) told {
	t.Helper()
	buffer := make([]byte, 65535)
	n, err := c.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	m, rest := parse(t, string(buffer[:n]))
	if rest != "" {
		t.Errorf("bytes after the message: %q", rest)
	}
	return m
}

// parse reads the first message of s, which has a Content-Length, and gives the rest.
func parse(t testing.TB, s string) (told, string) {
	t.Helper()
	head, rest, found := strings.Cut(s, "\r\n\r\n")
	if !found {
		t.Fatalf("no end of headers in %q", s)
	}
	start, lines, _ := strings.Cut(head, "\r\n")
	m := told{start: start, head: textproto.MIMEHeader{}}
	for line := range strings.SplitSeq(lines, "\r\n") {
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			t.Fatalf("line %q in %q", line, s)
		}
		m.head.Add(name, value)
	}
	n, err := strconv.Atoi(m.head.Get("Content-Length"))
	if err != nil || n > len(rest) {
		t.Fatalf("Content-Length %q, %d bytes of body", m.head.Get("Content-Length"), len(rest))
	}
	m.body, m.raw = rest[:n], s[:len(s)-len(rest)+n]
	return m, rest[n:]
}

// A stream reads messages of a connection.
type stream struct {
	net.Conn
	held  string
	pongs int // answers to keep-alives before messages
}

func (s *stream) receive(t testing.TB) told {
	t.Helper()
	buffer := make([]byte, 65535)
	for {
		for strings.HasPrefix(s.held, "\r\n") {
			s.held = s.held[2:]
			s.pongs++
		}
		if head, rest, found := strings.Cut(s.held, "\r\n\r\n"); found {
			var length int
			for line := range strings.SplitSeq(head, "\r\n") {
				if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
					length, _ = strconv.Atoi(v)
				}
			}
			if len(rest) >= length {
				var m told
				m, s.held = parse(t, s.held)
				return m
			}
		}
		n, err := s.Read(buffer)
		if err != nil {
			t.Fatalf("%v; held %q", err, s.held)
		}
		s.held += string(buffer[:n])
	}
}

const pidf = `<?xml version='1.0' encoding='UTF-8'?><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:4750@example.test'><tuple id='a1'><status><basic>open</basic></status></tuple></presence>`

// publish makes a PUBLISH; n is branch and CSeq.
func publish(who string, n int, network string) string {
	return fmt.Sprintf("PUBLISH sip:%s@example.test SIP/2.0\r\nVia: SIP/2.0/%s 127.0.0.1:6555;branch=z9hG4bK-%s-%d;rport\r\nMax-Forwards: 70\r\nFrom: <sip:%s@example.test>;tag=f1\r\nTo: <sip:%s@example.test>\r\nCall-ID: call-%s-%d\r\nCSeq: %d PUBLISH\r\nEvent: presence\r\nExpires: 600\r\nContent-Type: application/pidf+xml\r\nContent-Length: %d\r\n\r\n%s",
		who, network, who, n, who, who, who, n, n, len(pidf), pidf)
}
