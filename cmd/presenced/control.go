package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/internal/config"
)

// ControlConfig is the control: section.
type ControlConfig struct {
	Socket string `yaml:"socket" default:"/run/presenced/control.sock" doc:"Unix socket through which the command line changes what the service knows, and reads its past; its mode is 0660. Empty: there is none."`
}

// maxSocketPath is what the kernel takes, without the final zero.
const maxSocketPath = 107

// Check tells what is wrong with c.
func (c *ControlConfig) Check() []config.Problem {
	switch {
	case c.Socket == "":
		return nil
	case !filepath.IsAbs(c.Socket):
		return []config.Problem{config.Wrong("socket", "%q is no absolute path", c.Socket)}
	case len(c.Socket) > maxSocketPath:
		return []config.Problem{config.Wrong("socket", "longer than %d bytes, which is all that a socket may have", maxSocketPath)}
	}
	return nil
}

// control lets whoever may open the socket set presence by hand. It is run by the
// supervisor as a bridge is, so that a socket that cannot be had costs nothing else.
//
//	PUT    /people/{id}/presence  {"state": "dnd", "until": "2026-11-20T15:00:00Z"}  until may be left out
//	DELETE /people/{id}/presence
//
// Both answer an answerJSON once the change is durable, or {"error": "..."}.
type control struct {
	socket string
	hand   *byHand
	past   *archive
	hub    *aggregator.Hub
	log    *slog.Logger

	sections []section

	mu        sync.Mutex
	listening bool
	lastError string
	errorAt   time.Time
}

// A section is more that the socket answers to.
type section interface{ routes(mux *http.ServeMux) }

func newControl(socket string, hand *byHand, past *archive, hub *aggregator.Hub, log *slog.Logger) *control {
	return &control{socket: socket, hand: hand, past: past, hub: hub, log: log}
}

// The limits of a connection and a request.
const (
	controlHeaderTime = 5 * time.Second
	controlReadTime   = 10 * time.Second
	controlWriteTime  = 20 * time.Second // more than a change may take
	controlIdleTime   = 30 * time.Second
	controlStopTime   = 10 * time.Second // for the changes that are under way
	maxControlHeader  = 8 << 10
	maxControlBody    = 4 << 10
)

// Name implements aggregator.Bridge.
func (*control) Name() string { return "control" }

// Run serves until ctx ends; changes under way are finished and answered.
func (c *control) Run(ctx context.Context, _ presence.Hub) error {
	listener, err := listenUnix(ctx, c.socket)
	if err != nil {
		err = fmt.Errorf("control.socket: %w", err)
		c.became(false, err)
		if errors.Is(err, fs.ErrPermission) {
			return presence.Permanent(err)
		}
		return err
	}
	c.became(true, nil)
	defer c.became(false, nil)
	server := &http.Server{
		Handler:           c.routes(),
		ReadHeaderTimeout: controlHeaderTime,
		ReadTimeout:       controlReadTime,
		WriteTimeout:      controlWriteTime,
		IdleTimeout:       controlIdleTime,
		MaxHeaderBytes:    maxControlHeader,
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnContext:       withPeer,
	}
	var g errgroup.Group
	stopped := make(chan struct{})
	g.Go(func() error {
		defer close(stopped)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("control.socket: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		select {
		case <-stopped:
			return nil
		case <-ctx.Done():
		}
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), controlStopTime)
		defer cancel()
		if server.Shutdown(last) != nil {
			return server.Close()
		}
		return nil
	})
	err = g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.became(false, err)
	return err
}

func (c *control) became(listening bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listening = listening
	if err != nil {
		c.lastError, c.errorAt = err.Error(), time.Now()
	}
}

// Status implements the status of a part.
func (c *control) Status() presence.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := presence.Status{Phase: presence.PhaseConnecting, Detail: "not listening on " + c.socket, LastError: c.lastError, LastErrorAt: c.errorAt}
	if c.listening {
		s.Phase, s.Detail = presence.PhaseLive, c.socket
	}
	return s
}

// listenUnix listens on a socket that the owner and the group may open. It takes
// the place of one that a dead process left behind, and of nothing else.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there already and is no socket; name another path, or remove it", path)
	default:
		dialer := net.Dialer{Timeout: time.Second}
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("another process listens on %s; stop it, or name another path", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("whether %s is in use cannot be told: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// The mode is that of the descriptor when it is bound: at no time may others open it.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), socketMode) }) //nolint:gosec // a descriptor fits
		return errors.Join(err, failed)
	}}
	listener, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil { // the mask of the process may have taken the group away
		_ = listener.Close()
		return nil, err
	}
	return listener, nil
}

const socketMode = 0o660

// peerKey is the key of the peer of a connection in the context of its requests.
type peerKey struct{}

// withPeer notes who is at the other end, as the kernel says.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return ctx
	}
	var peer *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) //nolint:gosec // a descriptor fits
	if err != nil || failed != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer)
}

// requestJSON is the body of a PUT.
type requestJSON struct {
	State string    `json:"state"`
	Until time.Time `json:"until,omitzero"`
}

// answerJSON says what is set by hand, and what the presence is with it.
type answerJSON struct {
	Person   presence.ID    `json:"person"`
	State    string         `json:"state,omitempty"` // set by hand; empty: nothing
	Until    time.Time      `json:"until,omitzero"`  // when it ends; zero: when it is cleared
	Presence presence.State `json:"presence"`        // as everyone sees it
}

func (c *control) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /people/{id}/presence", c.set)
	mux.HandleFunc("DELETE /people/{id}/presence", c.clear)
	c.past.routes(mux)
	for _, s := range c.sections {
		s.routes(mux)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.answer(w, r, http.StatusNotFound, map[string]string{"error": "there is no such address"})
	})
	return mux
}

func (c *control) set(w http.ResponseWriter, r *http.Request) {
	by, ok := c.by(w, r)
	if !ok {
		return
	}
	var body requestJSON
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil || dec.More() {
		c.answer(w, r, http.StatusBadRequest, map[string]string{"error": `the body is not as {"state": "dnd", "until": "2026-11-20T15:00:00Z"}, until may be left out`})
		return
	}
	fact, err := aggregator.ParseManual(body.State)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	id := presence.ID(r.PathValue("id"))
	report, err := c.hand.Set(r.Context(), by, id, fact, body.Until)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	c.done(w, r, answerJSON{Person: id, State: aggregator.ManualName(fact), Until: report.Spans[0].Until})
}

func (c *control) clear(w http.ResponseWriter, r *http.Request) {
	by, ok := c.by(w, r)
	if !ok {
		return
	}
	id := presence.ID(r.PathValue("id"))
	if err := c.hand.Clear(r.Context(), by, id); err != nil {
		c.refuse(w, r, err)
		return
	}
	c.done(w, r, answerJSON{Person: id})
}

// by says who asks; nobody changes anything unnamed.
func (c *control) by(w http.ResponseWriter, r *http.Request) (audit.Actor, bool) {
	who, ok := whoAsks(r)
	if !ok {
		c.answer(w, r, http.StatusForbidden, map[string]string{"error": errNameless.Error()})
	}
	return who, ok
}

var errNameless = errors.New("who asks cannot be told")

// whoAsks names the user at the other end of the control socket.
func whoAsks(r *http.Request) (audit.Actor, bool) {
	peer, ok := r.Context().Value(peerKey{}).(*syscall.Ucred)
	if !ok {
		return audit.Actor{}, false
	}
	return audit.Actor{Who: fmt.Sprintf("uid %d", peer.Uid), From: "control socket"}, true
}

func (c *control) done(w http.ResponseWriter, r *http.Request, a answerJSON) {
	state, _ := c.hub.State(a.Person)
	a.Presence = presence.View(state, presence.Everyone())
	c.answer(w, r, http.StatusOK, a)
}

func (c *control) refuse(w http.ResponseWriter, r *http.Request, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, aggregator.ErrNobody):
		code = http.StatusNotFound
	case errors.Is(err, aggregator.ErrUnfit):
		code = http.StatusBadRequest
	case errors.Is(err, aggregator.ErrNotKept), errors.Is(err, audit.ErrUnwritten):
		code = http.StatusServiceUnavailable
		c.log.WarnContext(r.Context(), "a change by hand was refused", "error", err)
	}
	c.answer(w, r, code, map[string]string{"error": err.Error()})
}

func (c *control) answer(w http.ResponseWriter, r *http.Request, code int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		code, data = http.StatusInternalServerError, []byte(`{"error": "internal error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if _, err := w.Write(append(data, '\n')); err != nil {
		c.log.DebugContext(r.Context(), "an answer was not taken", "error", err)
	}
}
