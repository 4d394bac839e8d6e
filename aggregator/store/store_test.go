package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"presenced/aggregator/store"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_TEST_WRITER"); dir != "" {
		writeUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, c store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func embedded(dir string) store.Config {
	c := store.DefaultConfig()
	c.Directory = dir
	return c
}

// TestContract is what callers rely on, for the embedded store and for a server
// reached by URL alike; TestCluster has it for three servers.
func TestContract(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		s := open(t, embedded(t.TempDir()))
		defer s.Close()
		contract(t, s)
	})
	t.Run("by url", func(t *testing.T) {
		address := freeAddress(t)
		serveNATS(t, address)
		c := store.DefaultConfig()
		c.URL = "nats://" + address
		s := open(t, c)
		defer s.Close()
		contract(t, s)
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serveNATS runs one server with JetStream until the test, or stop, ends it.
func serveNATS(t *testing.T, address string) (stop func()) {
	t.Helper()
	return serveNATSIn(t, address, t.TempDir())
}

// serveNATSIn is serveNATS for a server that keeps its data in a folder.
func serveNATSIn(t *testing.T, address, dir string) (stop func()) {
	t.Helper()
	_, port, _ := net.SplitHostPort(address)
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: n, NoSigs: true, JetStream: true, StoreDir: dir, SyncAlways: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	stop = sync.OnceFunc(func() { srv.Shutdown(); srv.WaitForShutdown() })
	t.Cleanup(stop)
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	return stop
}

// sees reads until it sees what was written: on a cluster a server that follows
// may answer, and lag by moments.
func sees(t *testing.T, try func() error) {
	t.Helper()
	until(t, 5*time.Second, "what was written can be read", try)
}

// contract is what callers rely on; s is empty.
func contract(t *testing.T, s *store.Store) {
	t.Helper()
	ctx := t.Context()
	b, err := s.Bucket(ctx, "reports")
	if err != nil {
		t.Fatal(err)
	}
	if all, err := b.Load(ctx); err != nil || len(all) != 0 {
		t.Fatalf("new bucket: %v, %v", all, err)
	}
	if _, _, err := b.Get(ctx, "a.b"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("get of nothing: %v", err)
	}
	if err := b.Put(ctx, "a.b", []byte("1")); err != nil {
		t.Fatal(err)
	}
	var rev uint64
	sees(t, func() (err error) {
		value, at, err := b.Get(ctx, "a.b")
		if rev = at; err != nil || string(value) != "1" {
			return fmt.Errorf("get: %q, %w", value, err)
		}
		return nil
	})
	if _, err := b.Create(ctx, "a.b", []byte("2")); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("create over a value: %v", err)
	}
	if _, err := b.Update(ctx, "a.b", []byte("2"), rev); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Update(ctx, "a.b", []byte("3"), rev); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("update of an old revision: %v", err)
	}
	for _, key := range []string{"c", "again"} {
		if err := b.Put(ctx, key, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Delete(ctx, "never"); err != nil {
		t.Fatalf("delete of nothing: %v", err)
	}
	if _, err := b.Create(ctx, "again", []byte{}); err != nil {
		t.Fatalf("create where a value was deleted: %v", err)
	}
	sees(t, func() error {
		all, err := b.Load(ctx)
		if empty, ok := all["again"]; err != nil || len(all) != 2 || string(all["a.b"]) != "2" || !ok || len(empty) != 0 {
			return fmt.Errorf("load: %v, %w", all, err)
		}
		return nil
	})
	one, two := b.Part("one/1"), b.Part("two")
	if err := one.Put(ctx, "k", []byte("mine")); err != nil {
		t.Fatal(err)
	}
	if all, err := two.Load(ctx); err != nil || len(all) != 0 {
		t.Fatalf("parts are not apart: %v, %v", all, err)
	}
	sees(t, func() error {
		all, err := one.Load(ctx)
		if err != nil || string(all["k"]) != "mine" {
			return fmt.Errorf("part: %v, %w", all, err)
		}
		return nil
	})
	other, err := s.Bucket(ctx, "states")
	if err != nil {
		t.Fatal(err)
	}
	if all, _ := other.Load(ctx); len(all) != 0 {
		t.Fatalf("buckets are not apart: %v", all)
	}
	contractWatch(t, s)
	if _, err := s.Bucket(ctx, "no name"); err == nil {
		t.Error("a bucket with a blank in its name")
	}
	if err := s.Err(); err != nil {
		t.Errorf("a healthy store says %v", err)
	}
}

func TestFolderInUse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, embedded(dir))
	if _, err := store.Open(t.Context(), embedded(dir), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second open: %v", err)
	}
	s.Close()
	open(t, embedded(dir)).Close()
}

// TestKilled kills a process that writes, and finds every value that it was told
// is durable.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^$") //nolint:gosec // this very test
	cmd.Env = append(os.Environ(), "STORE_TEST_WRITER="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acknowledged []string
	buf := make([]byte, 4096)
	for len(strings.Fields(strings.Join(acknowledged, ""))) < 50 {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		acknowledged = append(acknowledged, string(buf[:n]))
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()

	s := open(t, embedded(dir))
	defer s.Close()
	b, err := s.Bucket(t.Context(), "reports")
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(acknowledged, "")
	text = text[:strings.LastIndexByte(text, '\n')+1]
	for key := range strings.FieldsSeq(text) {
		if string(all[key]) != key {
			t.Errorf("%s was acknowledged and is lost", key)
		}
	}
}

func writeUntilKilled(dir string) {
	s, err := store.Open(context.Background(), embedded(filepath.Clean(dir)), slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	b, err := s.Bucket(context.Background(), "reports")
	if err != nil {
		panic(err)
	}
	for i := range 100_000 {
		key := "k" + strings.Repeat("i", i%7) + time.Now().Format("150405.000000000")
		key = strings.ReplaceAll(key, ".", "-")
		if err := b.Put(context.Background(), key, []byte(key)); err != nil {
			panic(err)
		}
		_, _ = os.Stdout.WriteString(key + "\n")
	}
}
