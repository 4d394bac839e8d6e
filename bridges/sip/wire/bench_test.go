package wire_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"presenced/bridges/sip/wire"
)

// cpu gives the processor time of the process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// load keeps window datagrams under way to an address, from the same process, in
// batches as the endpoint does it, until b.N answers came. The processor time
// reported is that of both sides.
func load(b *testing.B, to netip.AddrPort, window int, write func(n int, dst []byte) []byte) {
	b.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadBuffer(4 << 20)
	p := ipv4.NewPacketConn(c)
	messages := func() []ipv4.Message {
		ms := make([]ipv4.Message, window)
		for i := range ms {
			ms[i].Buffers = [][]byte{make([]byte, 2048)}
			ms[i].Addr = net.UDPAddrFromAddrPort(to)
		}
		return ms
	}
	in, out := messages(), messages()
	sent := 0
	push := func(n int) {
		for i := range n {
			out[i].Buffers[0] = write(sent, out[i].Buffers[0][:0])
			sent++
		}
		for ms := out[:n]; len(ms) > 0; {
			k, err := p.WriteBatch(ms, 0)
			if err != nil {
				b.Fatal(err)
			}
			ms = ms[k:]
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	push(min(window, b.N))
	for got := 0; got < b.N; {
		n, err := p.ReadBatch(in, 0)
		if err != nil {
			b.Fatal(err)
		}
		got += n
		push(min(n, b.N-sent))
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1000, "cpu-µs/op")
}

// BenchmarkEcho is what the kernel takes: two datagrams, each written and read, in batches.
func BenchmarkEcho(b *testing.B) {
	for _, window := range []int{1, 64} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				b.Fatal(err)
			}
			p := ipv4.NewPacketConn(c)
			var done sync.WaitGroup
			done.Go(func() {
				ms := make([]ipv4.Message, 32)
				for i := range ms {
					ms[i].Buffers = [][]byte{make([]byte, 2048)}
				}
				for {
					n, err := p.ReadBatch(ms, 0)
					if err != nil {
						return
					}
					for i := range ms[:n] {
						ms[i].Buffers[0] = ms[i].Buffers[0][:ms[i].N]
					}
					for out := ms[:n]; len(out) > 0; {
						k, err := p.WriteBatch(out, 0)
						if err != nil {
							return
						}
						out = out[k:]
					}
					for i := range ms {
						ms[i].Buffers[0] = ms[i].Buffers[0][:2048]
					}
				}
			})
			load(b, c.LocalAddr().(*net.UDPAddr).AddrPort(), window, func(_ int, dst []byte) []byte { return append(dst, strings.Repeat("x", 430)...) })
			_ = c.Close()
			done.Wait()
		})
	}
}

// BenchmarkPublish is a PUBLISH, its transaction and its 200, with both sides of the kernel's work.
func BenchmarkPublish(b *testing.B) {
	for _, window := range []int{1, 64} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			w := start(b, loose(), wire.App{Handle: func(r *wire.Request) {
				headers := wire.AppendSeconds(nil, "Expires", 600)
				r.Respond(200, "OK", wire.AppendHeader(headers, "SIP-ETag", "0123456789abcdef"), nil)
			}})
			head := "PUBLISH sip:4750@example.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:6555;rport;branch=z9hG4bK"
			tail := "\r\nMax-Forwards: 70\r\nFrom: <sip:4750@example.test>;tag=f1\r\nTo: <sip:4750@example.test>\r\nCall-ID: c1\r\nCSeq: 3 PUBLISH\r\nEvent: presence\r\nExpires: 600\r\nContent-Type: application/pidf+xml\r\nContent-Length: 185\r\n\r\n" + pidf
			load(b, w.udp, window, func(n int, dst []byte) []byte { return append(fmt.Appendf(append(dst, head...), "%d", n), tail...) })
			w.stop()
		})
	}
}

// BenchmarkNotify is a NOTIFY with a shared body to one of 100 watchers and its
// 200; who answers is a bare socket in the same process.
func BenchmarkNotify(b *testing.B) {
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	_ = peer.SetReadBuffer(4 << 20)
	var done sync.WaitGroup
	done.Go(func() {
		p := ipv4.NewPacketConn(peer)
		ms := make([]ipv4.Message, 64)
		for i := range ms {
			ms[i].Buffers = [][]byte{make([]byte, 2048)}
		}
		for {
			n, err := p.ReadBatch(ms, 0)
			if err != nil {
				return
			}
			for i := range ms[:n] {
				request := ms[i].Buffers[0][:ms[i].N]
				_, rest, _ := strings.Cut(string(request), "\r\n")
				head, _, _ := strings.Cut(rest, "Content-Length")
				ms[i].Buffers[0] = append(append(append(request[:0], "SIP/2.0 200 OK\r\n"...), head...), "Content-Length: 0\r\n\r\n"...)
			}
			for out := ms[:n]; len(out) > 0; {
				k, err := p.WriteBatch(out, 0)
				if err != nil {
					return
				}
				out = out[k:]
			}
			for i := range ms {
				ms[i].Buffers[0] = ms[i].Buffers[0][:2048]
			}
		}
	})
	w := start(b, loose(), wire.App{Handle: ok})
	to := wire.FlowTo(wire.UDP, peer.LocalAddr().(*net.UDPAddr).AddrPort(), "")
	var templates []*wire.Template
	for i := range 100 {
		lines := wire.AppendHeader(nil, "Contact", "<sip:127.0.0.1:5975>")
		lines = wire.AppendHeader(wire.AppendHeader(lines, "Event", "presence"), "Content-Type", "application/pidf+xml")
		x, err := wire.NewTemplate("NOTIFY", "sip:bob@127.0.0.1:6555", fmt.Sprintf("dialog-%d", i), "<sip:4750@example.test>;tag=ours", "<sip:bob@example.test>;tag=f1", lines)
		if err != nil {
			b.Fatal(err)
		}
		templates = append(templates, x)
	}
	body := []byte(pidf)
	state := wire.AppendHeader(nil, "Subscription-State", "active;expires=599")
	window := make(chan struct{}, 100)
	var failed atomic.Int64
	answered := func(a wire.Answer) {
		if a.Err != nil || a.Code() != 200 {
			failed.Add(1)
		}
		<-window
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	for i := range b.N {
		window <- struct{}{}
		o := wire.Outgoing{Template: templates[i%100], CSeq: uint32(i), Headers: state, Body: body}
		if err := w.Send(to, &o, answered); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(window) {
		window <- struct{}{}
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1000, "cpu-µs/op")
	if n := failed.Load(); n > 0 {
		b.Errorf("%d failed", n)
	}
	w.stop()
	_ = peer.Close()
	done.Wait()
}
