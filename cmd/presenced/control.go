package main

import (
	"context"
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

	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/bridges/web/api"
	"presenced/bridges/web/signin"
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

// control serves the API to whoever may open the socket, who is an administrator. It
// is run by the supervisor as a bridge is, so that a socket that cannot be had costs
// nothing else.
type control struct {
	socket string
	api    *api.API
	log    *slog.Logger

	mu        sync.Mutex
	listening bool
	lastError string
	errorAt   time.Time
}

func newControl(socket string, served *api.API, log *slog.Logger) *control {
	return &control{socket: socket, api: served, log: log}
}

// The limits of a connection and a request.
const (
	controlHeaderTime = 5 * time.Second
	controlReadTime   = 10 * time.Second
	controlWriteTime  = 20 * time.Second // more than a change may take
	controlIdleTime   = 30 * time.Second
	controlStopTime   = 10 * time.Second // for the changes that are under way
	maxControlHeader  = 8 << 10
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

// routes is the API, for who the kernel says asks. Nobody asks anything unnamed.
func (c *control) routes() http.Handler {
	served := c.api.Handler(func(r *http.Request) audit.Actor {
		return audit.Actor{Who: signin.From(r.Context()).Account, From: "control socket"}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, ok := r.Context().Value(peerKey{}).(*syscall.Ucred)
		if !ok {
			http.Error(w, "who asks cannot be told", http.StatusForbidden)
			return
		}
		who := signin.Identity{Account: fmt.Sprintf("uid %d", peer.Uid), Role: signin.Administrator, Via: signin.ViaSocket}
		served.ServeHTTP(w, r.WithContext(signin.With(r.Context(), who)))
	})
}
