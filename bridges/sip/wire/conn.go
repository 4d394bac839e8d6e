package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	connectTime   = 4 * time.Second  // for a connection, with its TLS handshake
	messageTime   = 30 * time.Second // for a message, from its first byte to its last
	writeTime     = 10 * time.Second
	keptRoom      = 64 << 10 // of a buffer that is not in use
	readSize      = 8 << 10
	probeTime     = 2 * time.Second  // for a connection that only a large request wants
	withoutTCP    = 10 * time.Minute // how long it is remembered that there is none to be had
	maxRemembered = 4096
)

// A conn is one TCP or TLS connection. One goroutine reads and one writes;
// whoever has something to send leaves it in pending.
type conn struct {
	running *running
	flow    Flow // Local is zero until running.admit
	origin  Flow // as FlowTo gave it, if we connected; else zero
	peer    []string
	asks    atomic.Bool // a request was sent on it
	wake    chan struct{}
	gone    chan struct{} // closed when it ends

	mu      sync.Mutex
	socket  net.Conn // nil: not connected yet
	pending []byte
	closed  bool
}

func (r *running) newConn(flow Flow) *conn {
	return &conn{running: r, flow: flow, wake: make(chan struct{}, 1), gone: make(chan struct{})}
}

// put takes an answer to be sent. A connection whose peer does not read is closed.
func (c *conn) put(answer []byte) {
	if _, room := c.offer(answer, nil); !room {
		c.overflow()
	}
}

// offer takes head and body to be sent; sent is false where the connection has
// ended, room where too much waits to be sent.
func (c *conn) offer(head, body []byte) (sent, room bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, true
	}
	if len(c.pending)+len(head)+len(body) > c.running.cfg.WriteQueue {
		return false, false
	}
	c.pending = append(append(c.pending, head...), body...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return true, true
}

// overflow ends a connection whose peer does not read.
func (c *conn) overflow() {
	c.running.count.slow.Add(1)
	c.close()
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// close ends the connection; what waits for an answer on it fails.
func (c *conn) close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed, c.pending = true, nil
	if c.socket != nil {
		_ = c.socket.Close()
	}
	c.mu.Unlock()
	close(c.gone)
	c.running.forget(c)
}

// attach gives the connection its socket; it is false where it has ended meanwhile.
func (c *conn) attach(s net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = s.Close()
		return false
	}
	c.socket = s
	return true
}

// write sends what is pending until the connection ends.
func (c *conn) write() {
	defer c.close()
	var spare []byte
	for {
		select {
		case <-c.gone:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		out := c.pending
		c.pending = spare[:0]
		c.mu.Unlock()
		if len(out) > 0 {
			_ = c.socket.SetWriteDeadline(time.Now().Add(writeTime))
			if _, err := c.socket.Write(out); err != nil {
				return
			}
		}
		if spare = out; cap(spare) > keptRoom {
			spare = nil
		}
	}
}

// read hands on what comes until the connection ends.
func (c *conn) read() {
	defer c.close()
	var f framer
	r := c.running
	buffer := make([]byte, readSize)
	began := time.Time{} // when the message that is not complete began
	dirty := make([]bool, len(r.workers))
	for {
		until := time.Now().Add(r.cfg.Idle)
		if !began.IsZero() {
			until = began.Add(min(messageTime, r.cfg.Idle))
		}
		_ = c.socket.SetReadDeadline(until)
		n, err := c.socket.Read(buffer)
		if err != nil {
			if !began.IsZero() && errors.Is(err, os.ErrDeadlineExceeded) {
				r.count.halfOpen.Add(1)
			}
			return
		}
		f.write(buffer[:n])
		now := time.Now()
		for {
			data, err := f.next()
			if data != nil {
				r.take(arrival{flow: c.flow, conn: c, broken: err}, data, now, dirty)
				began = time.Time{}
			}
			if err != nil {
				if data == nil {
					r.count.malformed.Add(1)
				}
				r.wake(dirty)
				c.drain()
				return
			}
			if data == nil {
				break
			}
		}
		r.wake(dirty)
		for ; f.pings > 0; f.pings-- {
			c.put([]byte("\r\n"))
		}
		switch {
		case !f.partial():
			began = time.Time{}
			if cap(f.buffer) > keptRoom {
				f = framer{}
			}
		case began.IsZero():
			began = now
		}
	}
}

// drain reads on for a moment without looking, so that the peer gets the answer
// to its last message before it learns of the end.
func (c *conn) drain() {
	_ = c.socket.SetReadDeadline(time.Now().Add(time.Second))
	buffer := make([]byte, readSize)
	for range 64 {
		if _, err := c.socket.Read(buffer); err != nil {
			return
		}
	}
}

// accept serves what connects to l until l is closed.
func (r *running) accept(l net.Listener, n Network) error {
	for {
		s, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) { // those there are go on
			r.count.connectionsRefused.Add(1)
			select {
			case <-r.ctx.Done():
				return nil
			case <-time.After(tick):
			}
			continue
		}
		if err != nil {
			return err
		}
		c := r.newConn(Flow{Network: n, Remote: addrPort(s.RemoteAddr())})
		if !c.attach(s) || !r.admit(c, addrPort(s.LocalAddr())) {
			r.count.connectionsRefused.Add(1)
			_ = s.Close()
			continue
		}
		r.wg.Go(func() { c.serve(r.serverTLS) })
	}
}

// serve shakes hands, if it is TLS, and then reads; it returns when the connection has ended.
func (c *conn) serve(server *tls.Config) {
	defer c.close()
	if c.flow.Network == TLS {
		t := tls.Server(c.socket, server)
		if !c.shake(t) {
			return
		}
	}
	c.running.wg.Go(c.write)
	c.read()
}

// shake ends the handshake of TLS and notes who the peer is.
func (c *conn) shake(t *tls.Conn) bool {
	ctx, cancel := context.WithTimeout(c.running.ctx, connectTime)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		c.running.count.handshakes.Add(1)
		return false
	}
	if chains := t.ConnectionState().VerifiedChains; len(chains) > 0 {
		c.peer = identities(chains[0][0])
	}
	return c.attach(t)
}

// identities gives whom a certificate names (RFC 5922 section 7.1).
func identities(c *x509.Certificate) []string {
	var names []string
	for _, u := range c.URIs {
		if u.Scheme == "sip" {
			names = append(names, u.Opaque)
		}
	}
	names = append(names, c.DNSNames...)
	if len(names) == 0 && c.Subject.CommonName != "" {
		names = append(names, c.Subject.CommonName)
	}
	return names
}

// connect makes the connection that c stands for, and serves it.
func (c *conn) connect(limit time.Duration) {
	defer c.close()
	r := c.running
	ctx, cancel := context.WithTimeout(r.ctx, limit)
	defer cancel()
	var d net.Dialer
	s, err := d.DialContext(ctx, "tcp", c.flow.Remote.String())
	if err != nil {
		r.count.connectsFailed.Add(1)
		return
	}
	if !c.attach(s) {
		return
	}
	if c.flow.Network == TLS {
		settings := r.clientTLS.Clone()
		if settings.ServerName == "" {
			if settings.ServerName = c.flow.Name; settings.ServerName == "" {
				settings.ServerName = c.flow.Remote.Addr().String()
			}
		}
		if !c.shake(tls.Client(s, settings)) {
			return
		}
	}
	if !r.admit(c, addrPort(s.LocalAddr())) {
		return
	}
	r.wg.Go(c.write)
	c.read()
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return plain(t.AddrPort())
}
