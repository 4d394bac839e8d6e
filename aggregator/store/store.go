// Package store keeps keys and values durable on NATS JetStream: a server
// embedded in the process by default, without a listener, or a cluster by URL.
// It is the only package that imports NATS; cmd opens it and hands buckets to
// the aggregator and the bridges, which see them through small interfaces of
// their own.
package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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
	Directory string       `yaml:"directory" default:"/var/lib/presenced" doc:"Folder of the embedded store. Only one presenced may use it at a time."`
	URL       string       `yaml:"url" doc:"Address of a NATS cluster to use instead of the embedded store, such as nats://nats1:4222,nats://nats2:4222."`
	Replicas  int          `yaml:"replicas" default:"1" doc:"How many servers of the cluster keep each value: 1, 3 or 5. Without effect on the embedded store."`
	CredsFile string       `yaml:"creds_file" doc:"NATS credentials file for the cluster."`
	TLS       trust.Config `yaml:"tls" doc:"TLS towards the cluster; its keys count when url begins with tls://."`
	MaxBytes  int64        `yaml:"max_bytes" default:"1073741824" doc:"Largest size of the embedded store on disk, in bytes."`
}

// DefaultConfig is the embedded store in the folder of the packaged service.
func DefaultConfig() Config {
	return Config{Directory: "/var/lib/presenced", Replicas: 1, TLS: trust.Config{MinVersion: "1.2"}, MaxBytes: 1 << 30}
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
	if c.MaxBytes < 16<<20 {
		ps = append(ps, config.Wrong("max_bytes", "%d is less than 16 MiB", c.MaxBytes))
	}
	return append(ps, config.Under("tls", c.TLS.Check())...)
}

// A Store holds buckets. Close it last.
type Store struct {
	embedded *server.Server // nil: a cluster
	lock     *os.File       // held while the embedded server uses its folder
	conn     *nats.Conn
	js       jetstream.JetStream
	replicas int
}

const startTimeout = 20 * time.Second

// Open starts the embedded server, or connects to the cluster. It blocks until
// the store can be used, at most 20 seconds.
func Open(ctx context.Context, c Config, log *slog.Logger) (*Store, error) {
	s := &Store{replicas: c.Replicas}
	opts := []nats.Option{nats.Name("presenced"), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(false)}
	url := c.URL
	if url == "" {
		var err error
		if s.lock, err = lock(c.Directory); err != nil {
			return nil, err
		}
		if s.embedded, err = start(c, log); err != nil {
			s.Close()
			return nil, err
		}
		opts = append(opts, nats.InProcessServer(s.embedded))
		s.replicas = 1
	} else {
		if c.CredsFile != "" {
			opts = append(opts, nats.UserCredentials(c.CredsFile))
		}
		if strings.HasPrefix(url, "tls://") {
			settings, err := c.TLS.Client("")
			if err != nil {
				return nil, fmt.Errorf("store: %w", err)
			}
			opts = append(opts, nats.Secure(settings))
		}
	}
	var err error
	if s.conn, err = nats.Connect(url, opts...); err != nil {
		s.Close()
		return nil, fmt.Errorf("store: connect to %s: %w", url, err)
	}
	if s.js, err = jetstream.New(s.conn); err != nil {
		s.Close()
		return nil, fmt.Errorf("store: %w", err)
	}
	if _, err = s.js.AccountInfo(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("store: JetStream is not available: %w", err)
	}
	return s, nil
}

// start runs the embedded server: no listener, no signals, and every write on
// disk before it is acknowledged (the default is every two minutes, which loses
// acknowledged writes in a power cut).
func start(c Config, log *slog.Logger) (*server.Server, error) {
	srv, err := server.NewServer(&server.Options{
		ServerName: "presenced", DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: c.Directory, SyncAlways: true,
		JetStreamMaxMemory: 16 << 20, JetStreamMaxStore: c.MaxBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	srv.SetLoggerV2(&bridge{log}, false, false, false)
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
		return nil, fmt.Errorf("store: %s is in use by another presenced", dir)
	}
	return f, nil
}

// Close stops the store and waits until all is on disk.
func (s *Store) Close() {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.embedded != nil {
		s.embedded.Shutdown()
		s.embedded.WaitForShutdown()
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

// Bucket opens a bucket, and makes it if it does not exist.
func (s *Store) Bucket(ctx context.Context, name string) (*Bucket, error) {
	kv, err := s.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, History: 1, Replicas: s.replicas, Storage: jetstream.FileStorage})
	if err != nil {
		return nil, fmt.Errorf("store: bucket %s: %w", name, err)
	}
	return &Bucket{kv: kv, name: name}, nil
}

// A Bucket maps keys to values. Keys are of letters, digits and -/_=. only, and
// neither begin nor end with a dot. Every write is durable when it returns.
type Bucket struct {
	kv     jetstream.KeyValue
	name   string
	prefix string // of the keys of a part
}

// Part gives the keys of one owner, such as a bridge: a bucket of its own as far
// as its owner sees. The owner may have any name.
func (b *Bucket) Part(owner string) *Bucket {
	return &Bucket{kv: b.kv, name: b.name, prefix: b.prefix + hex.EncodeToString([]byte(owner)) + "."}
}

// The errors that callers tell apart.
var (
	ErrNotFound = errors.New("no such key")
	ErrConflict = errors.New("the value was changed meanwhile")
)

func (b *Bucket) wrap(verb, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound):
		err = ErrNotFound
	case errors.Is(err, jetstream.ErrKeyExists):
		err = ErrConflict
	default:
		var api *jetstream.APIError
		if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
			err = ErrConflict
		}
	}
	return fmt.Errorf("store: %s %s/%s: %w", verb, b.name, key, err)
}

// Load gives all keys and values.
func (b *Bucket) Load(ctx context.Context) (map[string][]byte, error) {
	w, err := b.kv.Watch(ctx, b.prefix+">", jetstream.IgnoreDeletes())
	if err != nil {
		return nil, b.wrap("load", "", err)
	}
	defer func() { _ = w.Stop() }()
	all := map[string][]byte{}
	for {
		select {
		case <-ctx.Done():
			return nil, b.wrap("load", "", ctx.Err())
		case e, open := <-w.Updates():
			if !open {
				return nil, b.wrap("load", "", errors.New("the store closed the list"))
			}
			if e == nil { // the end of what there was
				return all, nil
			}
			all[strings.TrimPrefix(e.Key(), b.prefix)] = e.Value()
		}
	}
}

// Get gives a value and its revision; ErrNotFound.
func (b *Bucket) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	e, err := b.kv.Get(ctx, b.prefix+key)
	if err != nil {
		return nil, 0, b.wrap("get", key, err)
	}
	return e.Value(), e.Revision(), nil
}

// Put sets a value whatever was there.
func (b *Bucket) Put(ctx context.Context, key string, value []byte) error {
	_, err := b.kv.Put(ctx, b.prefix+key, value)
	return b.wrap("put", key, err)
}

// Create sets a value where there is none; ErrConflict.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	revision, err = b.kv.Create(ctx, b.prefix+key, value)
	return revision, b.wrap("create", key, err)
}

// Update replaces the value of this revision; ErrConflict.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, last uint64) (revision uint64, err error) {
	revision, err = b.kv.Update(ctx, b.prefix+key, value, last)
	return revision, b.wrap("update", key, err)
}

// Delete removes a key; one that does not exist is no error.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	return b.wrap("delete", key, b.kv.Purge(ctx, b.prefix+key))
}

// bridge writes the embedded server's log through ours.
type bridge struct{ log *slog.Logger }

func (b *bridge) Noticef(format string, v ...any) { b.log.Debug(fmt.Sprintf(format, v...)) }
func (b *bridge) Warnf(format string, v ...any)   { b.log.Warn(fmt.Sprintf(format, v...)) }
func (b *bridge) Fatalf(format string, v ...any)  { b.log.Error(fmt.Sprintf(format, v...)) }
func (b *bridge) Errorf(format string, v ...any)  { b.log.Error(fmt.Sprintf(format, v...)) }
func (b *bridge) Debugf(format string, v ...any)  { b.log.Debug(fmt.Sprintf(format, v...)) }
func (b *bridge) Tracef(format string, v ...any)  { b.log.Debug(fmt.Sprintf(format, v...)) }
