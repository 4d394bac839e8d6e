package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A lamp is a SIP watcher on a UDP socket.
type lamp struct {
	t    *testing.T
	conn net.Conn
	to   string // tag of the dialog
	cseq int
}

// subscribe asks for the presence of extension 4750, as extension 4751.
func (l *lamp) subscribe() {
	l.t.Helper()
	l.cseq++
	_, err := fmt.Fprintf(l.conn, "SUBSCRIBE sip:4750@example.com SIP/2.0\r\nVia: SIP/2.0/UDP %[1]s;branch=z9hG4bK%[2]d;rport\r\nMax-Forwards: 70\r\nFrom: <sip:4751@example.com>;tag=1\r\nTo: <sip:4750@example.com>%[3]s\r\n"+
		"Call-ID: lamp\r\nCSeq: %[2]d SUBSCRIBE\r\nContact: <sip:4751@%[1]s>\r\nEvent: presence\r\nContent-Length: 0\r\n\r\n", l.conn.LocalAddr(), l.cseq, l.to)
	if err != nil {
		l.t.Fatal(err)
	}
}

// awaits reads messages, answers NOTIFYs, and gives the first one that holds text.
func (l *lamp) awaits(text string) string {
	l.t.Helper()
	if err := l.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		l.t.Fatal(err)
	}
	var room [1 << 16]byte
	for {
		n, err := l.conn.Read(room[:])
		if err != nil {
			l.t.Fatalf("nothing with %q came: %v", text, err)
		}
		m := string(room[:n])
		if strings.HasPrefix(m, "NOTIFY ") {
			answer := "SIP/2.0 200 OK\r\n"
			for line := range strings.Lines(m) {
				if name, _, _ := strings.Cut(line, ":"); strings.Contains(" Via From To Call-ID CSeq ", " "+name+" ") {
					answer += line
				}
			}
			if _, err := l.conn.Write([]byte(answer + "Content-Length: 0\r\n\r\n")); err != nil {
				l.t.Fatal(err)
			}
		}
		if strings.Contains(m, text) {
			return m
		}
	}
}

// TestLocalPresenceService has a phone watch a colleague: calls arrive, access rules
// hold, and the subscription is there still after kill -9.
func TestLocalPresenceService(t *testing.T) {
	address := freeUDP(t)
	s := newSite(t, fmt.Sprintf("lps:\n- {domains: [example.com], trusted: [127.0.0.1], transport: {listen: [\"udp:%s\"]}}\n", address))
	first := s.process()
	s.await("alder", "available/")
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l := &lamp{t: t, conn: conn}
	l.subscribe()
	_, tag, _ := strings.Cut(l.awaits("SIP/2.0 200"), "To: <sip:4750@example.com>")
	l.to, _, _ = strings.Cut(tag, "\r\n")
	l.awaits("<basic>open")
	s.do("aes", "call", "247", "4711", "4750")
	s.do("aes", "answer", "247", "4750")
	l.awaits("rpid:on-the-phone")
	if code, out, errs := command(t, "access", "set", "--of", "alder", "--watcher", "birch", "block", "--socket", s.socket()); code != exitOK {
		t.Fatalf("access set: exit %d\n%s%s", code, out, errs)
	}
	l.awaits("<basic>closed")
	eventually(t, "the store has the subscription", func() bool { return s.stored("KV_subscriptions", `"dialog":"`) })
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()

	second := s.process()
	defer func() {
		_ = second.Process.Signal(syscall.SIGTERM)
		if err := second.Wait(); err != nil {
			t.Errorf("the service did not stop orderly: %v", err)
		}
	}()
	s.listening()
	l.awaits("NOTIFY") // what holds after the restart
	if code, out, errs := command(t, "access", "clear", "--of", "alder", "--watcher", "birch", "--socket", s.socket()); code != exitOK {
		t.Fatalf("access clear: exit %d\n%s%s", code, out, errs)
	}
	l.awaits("rpid:on-the-phone")
}

// freeUDP gives an address that nobody listens on.
func freeUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", fmt.Sprintf("127.0.%d.%d:0", os.Getpid()>>8&0xff, os.Getpid()&0xff|1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}
