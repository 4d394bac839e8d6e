package wire

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	batchSize   = 64      // datagrams of one system call
	maxDatagram = 65000   // that we send
	socketRoom  = 4 << 20 // of the kernel, and of what waits to be written
)

// A batcher reads and writes many datagrams at a time; ipv4.PacketConn and
// ipv6.PacketConn are batchers.
type batcher interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// A udpSocket is one socket. Whoever has something to send puts it into the
// outbox (put), and then either flushes it or wakes the goroutine that does. Who
// flushes sends what others have put meanwhile.
type udpSocket struct {
	conn  *net.UDPConn
	batch batcher
	local netip.AddrPort
	host  []byte // sent-by for Via
	count *counters
	wake  chan struct{}

	mu       sync.Mutex
	pending  outbox
	spare    outbox
	flushing bool

	messages []ipv4.Message // of the one who flushes
}

// An outbox holds datagrams one behind the other.
type outbox struct {
	data []byte
	outs []datagram
}

type datagram struct {
	end int // in data
	to  netip.AddrPort
}

func listenUDP(ctx context.Context, address string, count *counters) (*udpSocket, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	network := "udp4"
	if at.Addr().Is6() {
		network = "udp6"
	}
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := pc.(*net.UDPConn) //nolint:errcheck // what ListenPacket gives for udp
	_ = c.SetReadBuffer(socketRoom)
	_ = c.SetWriteBuffer(socketRoom) // the kernel gives what it allows
	local := c.LocalAddr().(*net.UDPAddr).AddrPort()
	s := &udpSocket{conn: c, local: plain(local), count: count, wake: make(chan struct{}, 1), messages: make([]ipv4.Message, batchSize)}
	if network == "udp4" {
		s.batch = ipv4.NewPacketConn(c)
	} else {
		s.batch = ipv6.NewPacketConn(c)
	}
	for i := range s.messages {
		s.messages[i].Buffers = make([][]byte, 1)
		s.messages[i].Addr = &net.UDPAddr{IP: make(net.IP, 0, net.IPv6len)}
	}
	return s, nil
}

// read calls take for each datagram, which may keep nothing of it, and done after
// each batch, until the deadline of the socket.
func (s *udpSocket) read(take func(from netip.AddrPort, data []byte), done func()) error {
	in := make([]ipv4.Message, batchSize/2)
	for i := range in {
		in[i].Buffers = [][]byte{make([]byte, maxMessage)}
	}
	for {
		n, err := s.batch.ReadBatch(in, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range in[:n] {
			if a, ok := in[i].Addr.(*net.UDPAddr); ok {
				take(plain(a.AddrPort()), in[i].Buffers[0][:in[i].N])
			}
		}
		done()
	}
}

// put takes head and body to be sent as one datagram.
func (s *udpSocket) put(to netip.AddrPort, head, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pending
	if len(p.data)+len(head)+len(body) > socketRoom {
		s.count.unsent.Add(1)
		return
	}
	p.data = append(append(p.data, head...), body...)
	p.outs = append(p.outs, datagram{len(p.data), to})
}

// stir makes the goroutine of the socket flush.
func (s *udpSocket) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write flushes whenever it is asked to.
func (s *udpSocket) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			s.flush()
		}
	}
}

// flush sends all that was put, unless somebody does already.
func (s *udpSocket) flush() {
	s.mu.Lock()
	if s.flushing {
		s.mu.Unlock()
		return
	}
	s.flushing = true
	for len(s.pending.outs) > 0 {
		out := s.pending
		s.pending = s.spare
		s.spare = outbox{}
		s.mu.Unlock()
		s.send(&out)
		out.data, out.outs = out.data[:0], out.outs[:0]
		s.mu.Lock()
		if cap(out.data) <= socketRoom/4 { // a rush keeps no room for ever
			s.spare = out
		}
	}
	s.flushing = false
	s.mu.Unlock()
}

func (s *udpSocket) send(out *outbox) {
	at := 0
	for rest := out.outs; len(rest) > 0; {
		n := min(len(rest), batchSize)
		for i, d := range rest[:n] {
			m := &s.messages[i]
			m.Buffers[0] = out.data[at:d.end]
			at = d.end
			a := m.Addr.(*net.UDPAddr) //nolint:errcheck // made so
			if d.to.Addr().Is4() {
				ip := d.to.Addr().As4()
				a.IP = append(a.IP[:0], ip[:]...)
			} else {
				ip := d.to.Addr().As16()
				a.IP = append(a.IP[:0], ip[:]...)
			}
			a.Port, a.Zone = int(d.to.Port()), d.to.Addr().Zone()
		}
		rest = rest[n:]
		for ms := s.messages[:n]; len(ms) > 0; {
			sent, err := s.batch.WriteBatch(ms, 0)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // about the first that was not sent
				s.count.unsent.Add(1)
				sent = max(sent, 0) + 1
			}
			ms = ms[min(sent, len(ms)):]
		}
	}
}
