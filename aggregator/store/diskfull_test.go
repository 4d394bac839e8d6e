package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"presenced/aggregator/store"
)

// TestDiskFull fills a real file system. It needs the right to mount one.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	ballast := filepath.Join(dir, "ballast")
	write(t, ballast, make([]byte, 14<<20))
	s := open(t, embedded(filepath.Join(dir, "store")))
	defer s.Close()
	b, err := s.Bucket(t.Context(), "reports")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	began := time.Now()
	for value := bytes.Repeat([]byte("x"), 50<<10); n < 1000; n++ {
		began = time.Now()
		if err = b.Put(t.Context(), fmt.Sprintf("k%d", n), value); err != nil {
			break
		}
	}
	if !errors.Is(err, store.ErrDown) || time.Since(began) > 10*time.Second {
		t.Fatalf("after %d values: %v, in %s", n, err, time.Since(began))
	}
	if err := s.Err(); !errors.Is(err, store.ErrDown) {
		t.Errorf("Err: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	until(t, 15*time.Second, "the store is up", s.Err)
	if err := b.Put(t.Context(), "after", []byte("x")); err != nil {
		t.Error(err)
	}
	all, err := b.Load(t.Context())
	if err != nil || len(all) < n+1 {
		t.Errorf("%d values of %d that were acknowledged: %v", len(all), n+1, err)
	}
}
