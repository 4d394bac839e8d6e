package xmpp

import (
	"context"
	"crypto/sha1" //nolint:gosec // XEP-0114 prescribes it
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Times of a stream.
const (
	openTime  = 30 * time.Second // from dialling to the end of the handshake
	writeTime = 30 * time.Second // for one batch
	batchSize = 64 << 10         // bytes after which a batch is sent
)

// A link is a component stream after its handshake, with a goroutine that reads
// and one that writes. in gives stanzas; ready says that a batch can go to out,
// which has room for one and then never blocks. When done is closed, err says why.
type link struct {
	conn  net.Conn
	in    chan stanza
	ready chan struct{}
	out   chan []byte
	done  chan struct{}

	once    sync.Once
	err     error // valid once done is closed
	workers sync.WaitGroup
}

// open does the handshake on conn, which it closes if that fails. A wrong secret
// and an unknown host are permanent.
func open(ctx context.Context, conn net.Conn, host, secret string) (*link, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	r, err := shake(conn, host, secret)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("xmpp: %w", err)
	}
	l := &link{
		conn: conn, in: make(chan stanza), ready: make(chan struct{}),
		out: make(chan []byte, 1), done: make(chan struct{}),
	}
	l.workers.Go(func() { l.fail(l.read(r)) })
	l.workers.Go(func() { l.fail(l.write()) })
	return l, nil
}

func shake(conn net.Conn, host, secret string) (*reader, error) {
	if err := conn.SetDeadline(time.Now().Add(openTime)); err != nil {
		return nil, err
	}
	hello := append([]byte("<?xml version='1.0'?><stream:stream xmlns='"+nsComponent+"' xmlns:stream='"+nsStream+"'"), appendAttr(nil, "to", host)...)
	if _, err := conn.Write(append(hello, '>')); err != nil {
		return nil, err
	}
	r := newReader(conn)
	id, err := r.header()
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum([]byte(id + secret)) //nolint:gosec // XEP-0114 prescribes it
	// A server that does not know the host has closed already: its words, still to
	// be read, say more than the failed write.
	_, wrote := conn.Write([]byte("<handshake>" + hex.EncodeToString(sum[:]) + "</handshake>"))
	st, err := r.element()
	switch {
	case err != nil && wrote != nil && !isStreamError(err):
		return nil, wrote
	case err != nil:
		return nil, err
	case st.kind != "handshake":
		return nil, errors.New("the server did not answer the handshake")
	}
	return r, conn.SetDeadline(time.Time{})
}

func isStreamError(err error) bool {
	_, ok := errors.AsType[*StreamError](err)
	return ok
}

func (l *link) fail(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.done)
	})
}

func (l *link) read(r *reader) error {
	for {
		st, err := r.element()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("the connection was lost: %w", err)
			}
			return err
		}
		select {
		case l.in <- st:
		case <-l.done:
			return nil
		}
	}
}

func (l *link) write() error {
	for {
		select {
		case l.ready <- struct{}{}:
		case <-l.done:
			return nil
		}
		select {
		case b := <-l.out:
			if err := l.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
				return err
			}
			if _, err := l.conn.Write(b); err != nil {
				return fmt.Errorf("writing: %w", err)
			}
		case <-l.done:
			return nil
		}
	}
}

// close ends the link at once and waits for its goroutines.
func (l *link) close() {
	l.fail(net.ErrClosed)
	_ = l.conn.Close()
	l.workers.Wait()
}
