package sip

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/lookup"
)

// TestPauses has servers ask for long pauses: none is longer than an hour, and what
// failed together is not tried again together.
func TestPauses(t *testing.T) {
	for _, c := range []struct {
		asked  time.Duration
		spread float64
		want   time.Duration
	}{
		{10 * time.Minute, 0, 10 * time.Minute},
		{5 * time.Hour, 0, time.Hour},
		{10 * time.Minute, 0.8, 12 * time.Minute},
		{5 * time.Hour, 0.8, time.Hour + 12*time.Minute},
	} {
		terms := usualTerms(10 * time.Minute)
		p := &publication{entity: "sip:a@example.test", terms: &terms, spread: c.spread}
		p.Want([]byte("A"), epoch)
		if _, ok := p.Send(epoch); !ok {
			t.Fatal("nothing is sent")
		}
		p.Response(response{code: 503, expires: -1, retryAfter: c.asked}, epoch)
		if got := p.Due().Sub(epoch); got != c.want {
			t.Errorf("asked for %v, at %.1f: tried again after %v, want %v", c.asked, c.spread, got, c.want)
		}
	}
}

// TestProbes has a server miss one look, which is no reason to leave it, and has the first
// server answer again that asked to be left alone for an hour, which counts beside the
// usual wait.
func TestProbes(t *testing.T) {
	t.Parallel()
	address := packetServer(t, accept())
	to := lookup.Target{Transport: "udp", At: netip.MustParseAddrPort(address)}
	cfg := testConfig(t, address)
	cfg.Secondary = "127.0.0.1:1"
	p := newPublisher(t, cfg, newMemory())
	link := func() *link {
		l, err := openLink(t.Context(), address, to, nil, p.log, p.board.notice)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := p.servers[0]
	s := &session{Publisher: p, life: t.Context(), active: first}
	first.link = link()
	defer first.drop()
	held := first.link
	missed := &probe{server: first, link: held, err: errors.New("no answer")}
	for range 3 { // one answer between two of them
		if err := s.probed(t.Context(), missed); err != nil || first.link != held {
			t.Fatalf("one look was missed, and the server is left: %v", err)
		}
		if err := s.probed(t.Context(), &probe{server: first, link: held}); err != nil {
			t.Fatal(err)
		}
	}

	first.drop()
	s.active = p.servers[1]
	first.rest[to.At] = time.Now().Add(time.Hour)
	if err := s.probed(t.Context(), &probe{server: first, link: link(), fresh: true}); err != nil {
		t.Fatal(err)
	}
	if wait := time.Until(first.back); wait < time.Hour-time.Minute {
		t.Errorf("back in %v", wait)
	}
}

// TestOutstanding has a server answer nothing while anything comes: no more than the
// configured number of requests wait at the same time.
func TestOutstanding(t *testing.T) {
	t.Parallel()
	const people = 8
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cfg := testConfig(t, conn.LocalAddr().String())
	cfg.Transport, cfg.Outstanding = "udp", 3
	hub, memory := newHub(), newMemory()
	for i := range people {
		hub.tell(presence.ID(fmt.Sprint(4000+i)), presence.Available, presence.NoActivity)
	}
	publisher := newPublisher(t, cfg, memory)
	publisher.pauses.silence = 10 * time.Millisecond // nobody answers at the end
	p := run(t, publisher, hub)
	good := accept()
	type held struct {
		*message
		from net.Addr
	}
	var waiting []held
	buffer := make([]byte, 1<<16)
	for published := 0; published < people; {
		wait := 100 * time.Millisecond // for one more than may be
		if len(waiting) == 0 {
			wait = patience
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		n, from, err := conn.ReadFrom(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && len(waiting) > 0:
			if len(waiting) > cfg.Outstanding {
				t.Errorf("%d requests wait at the same time", len(waiting))
			}
			for _, h := range waiting {
				for _, answer := range good(h.message) {
					_, _ = conn.WriteTo([]byte(answer), h.from)
				}
			}
			published += len(waiting)
			waiting = nil
			continue
		case err != nil:
			t.Fatal(err)
		}
		m, err := readMessage(bufio.NewReader(bytes.NewReader(buffer[:n])))
		if err != nil {
			t.Fatal(err)
		}
		if m.method() == "OPTIONS" {
			_, _ = conn.WriteTo([]byte(m.reply("200 OK")), from)
			continue
		}
		waiting = append(waiting, held{m, from})
	}
	p.stop()
}
