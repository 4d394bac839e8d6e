// Package web is the page of presenced: a live board of everyone, a page for
// each person with the reasoning behind their state and what it was before, the
// health of every part, and the same as JSON. Who signed in is a watcher of their
// own, everybody else is web:anyone; both see what the gate gives them.
//
// It is a bridge that cmd runs. It also asks the aggregator through Desk, and what
// Parts names, which cmd implements.
package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/bridges/web/certificate"
	"presenced/bridges/web/signin"
)

// A Desk answers what the pages ask of the aggregator. It must be safe for
// concurrent use and must not block for long. What it gives is not changed.
type Desk interface {
	// People gives everyone in the directory, sorted by name.
	People() []presence.Person
	// Person gives who is known by that subject; one of the scheme id is the
	// identifier.
	Person(subject presence.Subject) (presence.Person, bool)
	// States gives the current state of everyone, in any order.
	States() []presence.State
	// Explain gives the reasoning for one person at a moment; the zero time is
	// now. It is false if nobody has that ID.
	Explain(id presence.ID, at time.Time) (presence.Explanation, bool)
	// Health gives every source, every bridge and the store.
	Health() []aggregator.Health
}

// Limits of the server.
const (
	headerTime   = 5 * time.Second
	readTime     = 10 * time.Second
	writeTime    = 30 * time.Second // of a page; a stream has a deadline for each write
	idleTime     = 2 * time.Minute
	maxHeader    = 16 << 10
	shutdownTime = 5 * time.Second
)

// Parts is what the page can do beyond telling the present. What is nil, or empty, is
// left out, with the pages that need it.
type Parts struct {
	SignIn      *signin.Desk        // nil: nobody signs in, and everybody is signin.Anyone
	Certificate *certificate.Source // nil: plain HTTP
	Past        Past                // nil: nothing is remembered
	Manual      Manual              // nil: nothing is set by hand
	Access      Access              // nil: nobody administers who sees what
	OptIn       bool                // nobody is shown before they opted in (access.opt_in)
	Services    Services            // nil: there are no presence services
	Poller      Poller              // nil: nothing can be asked to look at once
	Policies    Policies            // nil: nobody is told by which rules
	Audit       Audit               // nil: nobody is told who changed what
	Version     string              // of presenced
}

// A Site is the bridge. Make one with New.
type Site struct {
	cfg     Config
	desk    Desk
	gate    presence.Gate
	parts   Parts
	readers chan struct{} // the turns of those who read the past
	trying  chan struct{} // the turn of who tries a policy on the past
	started time.Time
	log     *slog.Logger
	zone    *time.Location // of times written without script
	looks   *looks
	feed    *feed
	places  []place        // the navigation
	mux     *http.ServeMux // of everything
	handler http.Handler

	streams  atomic.Int64
	gazing   sync.Mutex
	gazes    map[gaze]int  // how many pages each has open
	patience time.Duration // how long one write to a stream may take
	chunks   sync.Pool     // of *bytes.Buffer, for what is written to streams
	gzips    sync.Pool     // of *gzip.Writer

	mu          sync.Mutex
	addr        net.Addr // while serving
	problems    map[string]int
	lastError   string
	lastErrorAt time.Time
	open        map[string]int // streams by account; of anyone under the empty one
}

// New makes a Site for a configuration that has passed Check. It shows what gate
// gives the viewer, does what parts can, and gives the metrics of gather; none if
// that is nil. Nothing is opened before Run.
func New(cfg Config, desk Desk, gate presence.Gate, parts Parts, gather prometheus.Gatherer, log *slog.Logger) *Site {
	s := &Site{
		cfg: cfg, desk: desk, gate: gate, parts: parts, log: log, zone: time.Local, looks: newLooks(), started: time.Now(),
		readers: make(chan struct{}, pastReaders), trying: make(chan struct{}, 1),
		patience: 10 * time.Second, mux: http.NewServeMux(), problems: map[string]int{}, open: map[string]int{}, gazes: map[gaze]int{},
	}
	s.chunks.New, s.gzips.New = func() any { return new(bytes.Buffer) }, newGzip
	s.feed = newFeed(s.rowHTML)
	s.mux.Handle("/", s.routes(gather))
	s.handler = s.guard(s.identify(s.mux))
	return s
}

// Name gives "web".
func (s *Site) Name() string { return "web" }

// Handler gives the pages without a listener, for a server of the caller's own.
// The streams of /events carry changes only while Run runs.
func (s *Site) Handler() http.Handler { return s.handler }

// Addr gives the address that Run listens on, nil while it does not.
func (s *Site) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Run serves until ctx ends, then lets pages under way finish and ends every
// stream. It fails if it cannot listen, permanently if that is not permitted.
func (s *Site) Run(ctx context.Context, hub presence.Hub) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		err = fmt.Errorf("serve the pages: %w", err)
		s.failed(err)
		if errors.Is(err, fs.ErrPermission) {
			return presence.Permanent(err)
		}
		return err
	}
	s.serving(listener.Addr())
	defer s.serving(nil)
	s.log.InfoContext(ctx, "serving the pages", "address", listener.Addr().String())

	group, running := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return running }, // its end ends the streams
	}
	serve := server.Serve
	if s.parts.Certificate != nil {
		server.TLSConfig = s.parts.Certificate.TLS() //nolint:contextcheck // a handshake has a context of its own
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	group.Go(func() error { return s.follow(running, hub) })
	group.Go(func() error {
		if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the pages: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-running.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(running), shutdownTime)
		defer cancel()
		if server.Shutdown(last) != nil {
			return server.Close()
		}
		return nil
	})
	err = group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.failed(err)
	return err
}

// follow feeds what the hub says to the streams.
func (s *Site) follow(ctx context.Context, hub presence.Hub) error {
	for state := range hub.Watch(ctx) {
		if state.Why.Rule == presence.RuleRemoved {
			s.feed.remove(state.Person)
			continue
		}
		if p, ok := s.person(state.Person); ok {
			s.feed.put(p, state)
		}
	}
	if ctx.Err() == nil {
		return errors.New("the aggregator ended the watch of the pages")
	}
	return ctx.Err()
}

// Status tells where the pages are served, to how many viewers.
func (s *Site) Status() presence.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := presence.Status{
		Phase: presence.PhaseConnecting, Detail: "not listening on " + s.cfg.Listen,
		Problems: maps.Clone(s.problems), LastError: s.lastError, LastErrorAt: s.lastErrorAt,
	}
	if s.addr != nil {
		st.Phase = presence.PhaseLive
		st.Detail = fmt.Sprintf("%s://%s, %s live", s.cfg.scheme(), s.addr, plural(int(s.streams.Load()), "page", "pages"))
	}
	return st
}

func (s *Site) serving(addr net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = addr
}

func (s *Site) failed(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastError, s.lastErrorAt = err.Error(), time.Now()
}

// count counts a problem that ended nothing but one request.
func (s *Site) count(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems[kind]++
}
