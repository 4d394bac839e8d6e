// Package store keeps keys and values durable on NATS JetStream: a server
// embedded in the process by default, without a listener, or a cluster by URL.
// It is the only package that imports NATS; cmd opens it and hands buckets to
// the aggregator and the bridges, which see them through small interfaces of
// their own.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"presenced/internal/config"
	"presenced/internal/trust"
)

// Config is the store: section.
type Config struct {
	Directory string        `yaml:"directory" default:"/var/lib/presenced" doc:"Folder of the embedded store. Only one presenced may use it at a time."`
	URL       string        `yaml:"url" doc:"Address of a NATS cluster to use instead of the embedded store, such as nats://nats1:4222,nats://nats2:4222."`
	Replicas  int           `yaml:"replicas" default:"1" doc:"How many servers of the cluster keep each value: 1, 3 or 5. Without effect on the embedded store."`
	CredsFile string        `yaml:"creds_file" doc:"NATS credentials file for the cluster."`
	TLS       trust.Config  `yaml:"tls" doc:"TLS towards the cluster; its keys count when url begins with tls://."`
	Node      string        `yaml:"node" doc:"Name of this machine, which no other one that shares the cluster has; empty: its host name."`
	Lease     time.Duration `yaml:"lease" default:"15s" doc:"How soon the sources and bridges of a machine that died run on another one that shares the cluster, at least 3s; without effect on the embedded store. 0s: this is the only machine on the cluster, and goes on while the cluster is away."`
	MaxBytes  int64         `yaml:"max_bytes" default:"1073741824" doc:"Largest size of the embedded store on disk, in bytes."`
}

// DefaultConfig is the embedded store in the folder of the packaged service.
func DefaultConfig() Config {
	return Config{Directory: "/var/lib/presenced", Replicas: 1, TLS: trust.Config{MinVersion: "1.2"}, Lease: 15 * time.Second, MaxBytes: 1 << 30}
}

// Check tells what is wrong with c.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	if c.URL == "" && c.Directory == "" {
		ps = append(ps, config.Wrong("directory", "name a folder, or the url of a cluster"))
	}
	if c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		ps = append(ps, config.Wrong("replicas", "%d is none of 1, 3, 5", c.Replicas))
	}
	if c.Lease != 0 && (c.Lease < shortestLease || c.Lease > longestLease) {
		ps = append(ps, config.Wrong("lease", "%s is neither 0s nor from %s to %s", c.Lease, shortestLease, longestLease))
	}
	if strings.ContainsAny(c.Node, "/@") {
		ps = append(ps, config.Wrong("node", "%q: want a name without / and @", c.Node))
	}
	if c.MaxBytes < 16<<20 {
		ps = append(ps, config.Wrong("max_bytes", "%d is less than 16 MiB", c.MaxBytes))
	}
	return append(ps, config.Under("tls", c.TLS.Check())...)
}

// A lease that is shorter ends with every pause of a network.
const (
	shortestLease = 3 * time.Second
	longestLease  = 10 * time.Minute
)

// A Store holds buckets. Close it last.
type Store struct {
	config Config
	log    *slog.Logger
	lock   *os.File // held while the embedded server uses its folder
	stop   context.CancelFunc
	kept   chan struct{} // closed when keep has ended; nil: it was never started

	mu       sync.Mutex
	embedded *server.Server // nil: a cluster, or down
	conn     *nats.Conn
	js       jetstream.JetStream // nil: down
	down     error               // why js is nil
	bound    map[string]jetstream.KeyValue
	damage   map[string]string // by bucket: what of it could not be read
	repair   sync.Mutex        // one bucket is repaired at a time
	making   sync.RWMutex      // held for reading while a bucket or log is made, for writing while the server ends

	// The embedded server never takes a write again after one failed, as on a full
	// disk, and tells only its log: this is what it wrote there.
	writeError atomic.Pointer[string]
}

const (
	startTimeout = 20 * time.Second
	// retryEvery is how often a store that is down is tried again.
	retryEvery = 2 * time.Second
	probeSize  = 4 << 20 // that must fit before a store is started again
)

// Open starts the embedded server, or connects to the cluster. It blocks until
// the store can be used, at most 20 seconds, and fails if it cannot.
func Open(ctx context.Context, c Config, log *slog.Logger) (*Store, error) {
	s, err := Start(ctx, c, log)
	if err != nil {
		return nil, err
	}
	if _, err := s.stream(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Start is Open for a service that must come up without its store: a store that
// cannot be used now is no error, but is tried again until Close. Meanwhile its
// buckets answer ErrDown, and Err says why. It fails where waiting is useless: the
// folder belongs to another process (ErrInUse), or the TLS files cannot be read.
func Start(ctx context.Context, c Config, log *slog.Logger) (*Store, error) {
	s := &Store{config: c, log: log, bound: map[string]jetstream.KeyValue{}, damage: map[string]string{}}
	if strings.HasPrefix(c.URL, "tls://") {
		if _, err := c.TLS.Client(""); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	if err := s.connect(ctx); errors.Is(err, ErrInUse) {
		return nil, err
	} else if err != nil {
		log.Error("the store cannot be used, it is tried again", "error", err)
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop, s.kept = stop, make(chan struct{})
	go s.keep(life)
	return s, nil
}

// keep tries again while the store is down, and starts an embedded server anew
// that gave up its store, as it does when the disk is full.
func (s *Store) keep(ctx context.Context) {
	defer close(s.kept)
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		up, last := s.js != nil, s.down
		s.mu.Unlock()
		if up {
			why := s.gaveUp()
			if why == nil {
				continue
			}
			s.log.Error("the embedded store takes no writes; it is started again when it can", "error", why)
			s.disconnect(why)
			last = why
		}
		err := s.room()
		if err == nil {
			err = s.connect(ctx)
		}
		switch {
		case err == nil:
			s.log.Info("the store can be used again")
		case last == nil || last.Error() != err.Error():
			s.log.Error("the store cannot be used, it is tried again", "error", err)
		}
	}
}

// gaveUp tells why the embedded server takes no writes; nil: it does.
func (s *Store) gaveUp() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch text := s.writeError.Load(); {
	case s.embedded == nil:
		return nil
	case text != nil:
		return fmt.Errorf("writing to %s failed: %s", s.config.Directory, *text)
	case !s.embedded.JetStreamEnabled():
		return fmt.Errorf("the embedded store in %s gave up; is the disk full?", s.config.Directory)
	}
	return nil
}

// room tells whether the folder of the embedded store takes writes: a server that
// is started on a full disk comes up, and loses the next value.
func (s *Store) room() error {
	if s.config.URL != "" {
		return nil
	}
	file := filepath.Join(s.config.Directory, "probe")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // the configured folder
	if errors.Is(err, fs.ErrNotExist) {                                    // open makes the folder
		return nil
	}
	if err == nil {
		_, err = f.Write(make([]byte, probeSize))
		err = errors.Join(err, f.Sync(), f.Close(), os.Remove(file))
	}
	if err != nil {
		return fmt.Errorf("no room in %s: %w", s.config.Directory, err)
	}
	return nil
}

// connect makes the store usable, from whatever state it is in. Only Start and keep
// call it; the lock is not held meanwhile, so that nobody waits for a server.
func (s *Store) connect(ctx context.Context) error {
	s.disconnect(errors.New("it is being started"))
	s.writeError.Store(nil)
	conn, srv, js, err := s.open(ctx)
	s.mu.Lock()
	s.conn, s.embedded, s.js, s.down = conn, srv, js, err
	s.mu.Unlock()
	if err != nil {
		s.disconnect(err)
	}
	return err
}

// disconnect ends what connect began.
func (s *Store) disconnect(why error) {
	s.making.Lock()
	defer s.making.Unlock()
	s.mu.Lock()
	conn, srv := s.conn, s.embedded
	s.conn, s.embedded, s.js = nil, nil, nil
	if s.down == nil {
		s.down = why
	}
	clear(s.bound)
	s.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	if srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

func (s *Store) open(ctx context.Context) (conn *nats.Conn, srv *server.Server, js jetstream.JetStream, err error) {
	c := s.config
	opts := []nats.Option{nats.Name("presenced"), nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond), nats.Timeout(5 * time.Second)}
	if c.URL == "" {
		if s.lock == nil {
			if s.lock, err = lock(c.Directory); err != nil {
				return nil, nil, nil, err
			}
		}
		if srv, err = start(c, &bridge{s.log, func(text string) { s.writeError.CompareAndSwap(nil, &text) }}); err != nil {
			return nil, nil, nil, err
		}
		opts = append(opts, nats.InProcessServer(srv))
	} else {
		if c.CredsFile != "" {
			opts = append(opts, nats.UserCredentials(c.CredsFile))
		}
		if strings.HasPrefix(c.URL, "tls://") {
			settings, err := c.TLS.Client("")
			if err != nil {
				return nil, nil, nil, fmt.Errorf("store: %w", err)
			}
			opts = append(opts, nats.Secure(settings))
		}
	}
	if conn, err = nats.Connect(c.URL, opts...); err != nil {
		return nil, srv, nil, fmt.Errorf("store: connect to %s: %w", c.URL, err)
	}
	if js, err = jetstream.New(conn); err != nil {
		return conn, srv, nil, fmt.Errorf("store: %w", err)
	}
	if _, err = js.AccountInfo(ctx); err != nil {
		return conn, srv, nil, fmt.Errorf("store: JetStream is not available: %w", err)
	}
	return conn, srv, js, nil
}

// replicas is how many servers keep each value; the embedded one is alone.
func (s *Store) replicas() int {
	if s.config.URL == "" {
		return 1
	}
	return s.config.Replicas
}

// stream gives JetStream, or ErrDown and why.
func (s *Store) stream() (jetstream.JetStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.js == nil {
		return nil, downError{s.down}
	}
	return s.js, nil
}

// Err tells what is wrong with the store now, in words for an administrator; nil:
// nothing. It does not block for long.
func (s *Store) Err() error {
	if err := s.unreachable(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []error
	for _, name := range slices.Sorted(maps.Keys(s.damage)) {
		all = append(all, errors.New(s.damage[name]))
	}
	return errors.Join(all...)
}

// unreachable is the ErrDown of a store that would not answer; nil: it is there.
func (s *Store) unreachable() error {
	if why := s.gaveUp(); why != nil {
		return downError{why}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.js == nil:
		return downError{s.down}
	case !s.conn.IsConnected():
		return downError{fmt.Errorf("no connection to %s", s.config.URL)}
	}
	return nil
}

// start runs the embedded server: no listener, no signals, and every write on
// disk before it is acknowledged (the default is every two minutes, which loses
// acknowledged writes in a power cut).
func start(c Config, log *bridge) (*server.Server, error) {
	srv, err := server.NewServer(&server.Options{
		ServerName: "presenced", DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: c.Directory, SyncAlways: true,
		JetStreamMaxMemory: 16 << 20, JetStreamMaxStore: c.MaxBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	srv.SetLoggerV2(log, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fmt.Errorf("store: the embedded server in %s did not start within %s", c.Directory, startTimeout)
	}
	return srv, nil
}

// lock refuses a folder that a running presenced uses already: two servers on
// one folder destroy it. The lock ends with the process, however it ends.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the configured folder
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil { //nolint:gosec // a descriptor fits
		_ = f.Close()
		return nil, fmt.Errorf("store: %s %w", dir, ErrInUse)
	}
	return f, nil
}

// Close stops the store and waits until all is on disk.
func (s *Store) Close() {
	if s.stop != nil {
		s.stop()
		<-s.kept
	}
	s.disconnect(errors.New("it is closed"))
	if s.lock != nil {
		_ = s.lock.Close()
		s.lock = nil
	}
}

// bridge writes the embedded server's log through ours, and picks out what it says
// nowhere else.
type bridge struct {
	log    *slog.Logger
	failed func(text string) // a write failed
}

func (b *bridge) Noticef(format string, v ...any) { b.log.Debug(fmt.Sprintf(format, v...)) }
func (b *bridge) Warnf(format string, v ...any)   { b.log.Warn(fmt.Sprintf(format, v...)) }
func (b *bridge) Fatalf(format string, v ...any)  { b.log.Error(fmt.Sprintf(format, v...)) }
func (b *bridge) Debugf(format string, v ...any)  { b.log.Debug(fmt.Sprintf(format, v...)) }
func (b *bridge) Tracef(format string, v ...any)  { b.log.Debug(fmt.Sprintf(format, v...)) }

func (b *bridge) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	b.log.Error(text)
	if strings.Contains(strings.ToLower(text), "critical write error") {
		b.failed(text)
	}
}
