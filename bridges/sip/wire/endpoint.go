package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"presenced/aggregator/presence"
)

// An App is what takes the requests.
type App struct {
	// Handle is called with each request that is new and valid, at one time once
	// for each key: the Request-URI of a PUBLISH, the Call-ID otherwise. It must not
	// wait for long: others wait behind it. A panic costs its request only.
	Handle func(*Request)
	// Methods are those that Handle takes; others are answered 405.
	Methods []string
	// Supported are the option tags that a request may require; others are answered 420.
	Supported []string
}

// An Endpoint listens, and sends requests while it does. Its methods are safe for
// concurrent use.
type Endpoint struct {
	cfg   Config
	app   App
	log   *slog.Logger
	count counters

	mu    sync.Mutex
	ready chan struct{} // closed while it runs
	now   atomic.Pointer[running]
}

// New makes an endpoint; cfg was checked.
func New(cfg Config, app App, log *slog.Logger) *Endpoint {
	return &Endpoint{cfg: cfg, app: app, log: log, ready: make(chan struct{})}
}

// Run listens until ctx ends or a socket fails. Requests that wait for an answer
// at its end get ErrClosed before it returns, and what a handler answers by UDP until
// then is sent. It may be called again.
func (e *Endpoint) Run(ctx context.Context) error {
	r, err := newRunning(ctx, e)
	if err != nil {
		return err
	}
	e.now.Store(r)
	e.mu.Lock()
	close(e.ready)
	e.mu.Unlock()
	err = r.run() //nolint:contextcheck // newRunning derived its context from ctx
	e.mu.Lock()
	e.ready = make(chan struct{})
	e.mu.Unlock()
	return err
}

// Ready waits until the endpoint listens, and gives where, in the order of the
// configuration; Remote is zero.
func (e *Endpoint) Ready(ctx context.Context) ([]Flow, error) {
	for {
		e.mu.Lock()
		ready := e.ready
		e.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ready:
			if r := e.now.Load(); r != nil {
				return r.listening, nil
			}
		}
	}
}

// Send sends a request and calls done with the final answer or an error, exactly
// once, in order with the other messages of the Call-ID. Where Send itself gives an
// error (ErrClosed, ErrBusy, ErrTooLarge, ErrFlow), done is not called. Send does
// not wait. Within a handler or a callback use Request.Send or Answer.Send.
func (e *Endpoint) Send(to Flow, o *Outgoing, done func(Answer)) error {
	r := e.now.Load()
	if r == nil {
		return ErrClosed
	}
	over, err := r.send(to, o, done)
	if over != nil {
		over.stir()
	}
	return err
}

// listenError says what to do about an address that cannot be listened on.
func listenError(address string, err error) error {
	err = fmt.Errorf("cannot listen on %s: %w", address, err)
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		return presence.Permanent(err)
	}
	return err
}

// counters are those of a Status.
type counters struct {
	requests, repeated, refused, malformed, overload, limited, panics, unanswered, strays, unsent atomic.Uint64
	sent, resent, timeouts                                                                        atomic.Uint64
	connectionsRefused, connectsFailed, handshakes, slow, halfOpen                                atomic.Uint64
}

// A Status is what was done since the endpoint was made.
type Status struct {
	Requests    uint64 // that the handler got
	Sent        uint64 // requests of ours
	Resent      uint64 // the same once more, for want of an answer
	Outstanding int    // requests of ours that wait for an answer now
	Connections int    // now

	// Problems counts what went wrong without ending the endpoint, by kind, in the
	// form of presence.Status.Problems; kinds that did not occur are left out.
	Problems map[string]int
}

// Status tells what was done; it does not block on the network.
func (e *Endpoint) Status() Status {
	c := &e.count
	s := Status{Requests: c.requests.Load(), Sent: c.sent.Load(), Resent: c.resent.Load(), Problems: map[string]int{}}
	for kind, n := range map[string]*atomic.Uint64{
		"messages malformed": &c.malformed, "requests repeated": &c.repeated, "requests refused": &c.refused, "requests refused for overload": &c.overload,
		"messages over the rate of their source": &c.limited, "panics": &c.panics, "requests without an answer by the handler": &c.unanswered,
		"answers that belong to no request": &c.strays, "datagrams not sent": &c.unsent, "requests not answered in time": &c.timeouts,
		"connections refused": &c.connectionsRefused, "connections not to be had": &c.connectsFailed, "TLS handshakes failed": &c.handshakes,
		"connections closed because the peer does not read": &c.slow, "messages not completed in time": &c.halfOpen,
	} {
		if v := n.Load(); v > 0 {
			s.Problems[kind] = int(v) //nolint:gosec // a count
		}
	}
	if r := e.now.Load(); r != nil {
		r.askMu.Lock()
		s.Outstanding = len(r.asked.by)
		r.askMu.Unlock()
		r.connMu.Lock()
		s.Connections = len(r.conns)
		r.connMu.Unlock()
	}
	return s
}
