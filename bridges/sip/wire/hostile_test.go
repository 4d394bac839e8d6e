package wire_test

import (
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"presenced/bridges/sip/wire"
)

// TestFloodIsDropped counts what the handler gets of a source that sends too much: what
// is over its rate is neither handled nor answered, but for a word a second that says
// when to try again.
func TestFloodIsDropped(t *testing.T) {
	cfg := loose()
	cfg.Rate = 10
	var handled atomic.Int64
	w := start(t, cfg, wire.App{Handle: func(r *wire.Request) { handled.Add(1); ok(r) }})
	c := dial(t, "tcp", w.tcp)
	begun := time.Now()
	for i := range 1000 {
		send(t, c, publish("flood", i, "TCP"))
	}
	s := &stream{Conn: c}
	for {
		if m := s.receive(t); m.code() == 503 {
			if m.head.Get("Retry-After") != "1" {
				t.Errorf("Retry-After: %q", m.head.Get("Retry-After"))
			}
			break
		}
	}
	for w.Status().Problems["messages over the rate of their source"] == 0 || handled.Load()+int64(w.Status().Problems["messages over the rate of their source"]) < 1000 {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("%d handled, %v", handled.Load(), w.Status().Problems)
		}
		runtime.Gosched()
	}
	if most := 2*cfg.Rate + int(time.Since(begun).Seconds()*float64(cfg.Rate)) + 1; handled.Load() > int64(most) {
		t.Errorf("%d of 1000 were handled, want at most %d", handled.Load(), most)
	}
}

// TestTooManyConnections serves no connection more than are allowed, of one source and
// in all, and serves another one when one has ended.
func TestTooManyConnections(t *testing.T) {
	for name, limit := range map[string]func(*wire.Config){
		"each": func(c *wire.Config) { c.ConnectionsEach = 1 },
		"all":  func(c *wire.Config) { c.Connections = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := loose()
			limit(&cfg)
			w := start(t, cfg, wire.App{Handle: ok})
			served := func() (net.Conn, bool) {
				c := dial(t, "tcp", w.tcp)
				_, _ = io.WriteString(c, publish("a", 1, "TCP"))
				n, _ := c.Read(make([]byte, 1))
				return c, n == 1
			}
			first, ok := served()
			if !ok {
				t.Fatal("the first is not served")
			}
			if _, ok := served(); ok {
				t.Error("the second is served")
			}
			_ = first.Close()
			for begun := time.Now(); ; { // until the end of the first is noticed
				if _, ok := served(); ok {
					return
				}
				if time.Since(begun) > 10*time.Second {
					t.Fatal("none is served after the first has ended")
				}
			}
		})
	}
}

// TestCancelAndACK answers CANCEL, as there is nothing to be cancelled (RFC 3261 section
// 9.2), and an ACK never (section 17.1.1.3), however malformed it is.
func TestCancelAndACK(t *testing.T) {
	w := start(t, loose(), wire.App{Handle: ok})
	c := dial(t, "udp", w.udp)
	send(t, c, strings.ReplaceAll(publish("a", 1, "UDP"), "PUBLISH", "CANCEL"))
	if got := receive(t, c); got.code() != 481 {
		t.Errorf("CANCEL: %s", got.start)
	}
	ack := strings.ReplaceAll(publish("a", 2, "UDP"), "PUBLISH", "ACK")
	for _, broken := range []string{ack, strings.Replace(ack, "Max-Forwards: 70", "Max-Forwards: x", 1), strings.Replace(ack, "2 ACK", "2 PUBLISH", 1), strings.Replace(ack, "tag=f1", `"`, 1)} {
		send(t, c, broken)
	}
	send(t, c, publish("a", 3, "UDP"))
	if got := receive(t, c); got.code() != 200 {
		t.Errorf("an ACK was answered: %s", got.start)
	}
}

// TestAnswerWithoutRport sends the answer to the port of Via where there is no rport (RFC
// 3261 section 18.2.2), and to no other host, whatever Via names.
func TestAnswerWithoutRport(t *testing.T) {
	w := start(t, loose(), wire.App{Handle: ok})
	listening, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listening.Close()
	if err := listening.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listening.LocalAddr().String())
	c := dial(t, "udp", w.udp)
	for _, host := range []string{"127.0.0.1", "192.0.2.1", "phone.example.test"} {
		send(t, c, strings.Replace(publish(host, 1, "UDP"), "127.0.0.1:6555;branch=z9hG4bK-"+host+"-1;rport", host+":"+port+";branch=z9hG4bK-"+host, 1))
		buffer := make([]byte, 1<<16)
		n, _, err := listening.ReadFrom(buffer)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if m, _ := parse(t, string(buffer[:n])); m.code() != 200 || !strings.Contains(m.head.Get("Via"), ";received=127.0.0.1") {
			t.Errorf("%s: %s, Via %s", host, m.start, m.head.Get("Via"))
		}
	}
}

// TestDrip sends a message byte by byte, each in time and all of it not: the connection
// is closed, and nobody keeps one that way.
func TestDrip(t *testing.T) {
	t.Parallel()
	cfg := loose()
	cfg.Idle = time.Second
	w := start(t, cfg, wire.App{Handle: ok})
	c := dial(t, "tcp", w.tcp)
	drip := time.NewTicker(cfg.Idle / 4)
	defer drip.Stop()
	for i, b := range []byte(publish("a", 1, "TCP")) {
		if _, err := c.Write([]byte{b}); err != nil {
			break
		}
		if <-drip.C; i == 20 {
			t.Fatal("it goes on after five times as long as a message may take")
		}
	}
	if n := w.Status().Problems["messages not completed in time"]; n != 1 {
		t.Errorf("%v", w.Status().Problems)
	}
}
