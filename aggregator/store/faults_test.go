package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/store"
)

// fill makes an embedded store of values that are their keys, and stops it.
func fill(t *testing.T, dir string, n int, buckets ...string) {
	t.Helper()
	s := open(t, embedded(dir))
	defer s.Close()
	for _, name := range buckets {
		b, err := s.Bucket(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			key := fmt.Sprintf("key%d.of.%s", i, name)
			if err := b.Put(t.Context(), key, []byte(key)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDamage damages the files of one bucket in many ways. The store opens, the
// other bucket is whole, what is read is right, new values are kept, and Err says
// what was lost.
func TestDamage(t *testing.T) {
	const values = 200
	flip := func(t *testing.T, file string) {
		t.Helper()
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 0xff
		write(t, file, data)
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
		least  int    // values that survive
		says   string // Err afterwards
	}{
		{"a flipped bit in a value", func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "msgs", "1.blk")) }, values - 1, "1 values of bucket reports could not be read"},
		{"a block cut off", func(t *testing.T, dir string) {
			file := filepath.Join(dir, "msgs", "1.blk")
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			write(t, file, data[:len(data)/2])
		}, values / 3, "part of bucket reports was lost"},
		{"an empty block", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "msgs", "1.blk"), nil) }, 0, "part of bucket reports was lost"},
		{"a block that is gone", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "msgs", "1.blk")); err != nil {
				t.Fatal(err)
			}
		}, 0, "part of bucket reports was lost"},
		{"zeros", func(t *testing.T, dir string) {
			file := filepath.Join(dir, "msgs", "1.blk")
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			write(t, file, make([]byte, len(data)))
		}, 0, "part of bucket reports was lost"},
		{"a flipped bit in the index", func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "msgs", "index.db")) }, values, ""},
		{"a flipped bit in the description", func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "meta.inf")) }, values, ""},
		{"an empty description", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "meta.inf"), nil) }, values, ""},
		{"a file instead of the folder", func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			write(t, dir, []byte("?"))
		}, 0, "the bucket is empty"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fill(t, dir, values, "reports", "states")
			test.damage(t, filepath.Join(dir, "jetstream", "$G", "streams", "KV_reports"))
			for round := range 2 { // damaged, and after another restart
				s := open(t, embedded(dir))
				b, err := s.Bucket(t.Context(), "reports")
				if err != nil {
					t.Fatal(err)
				}
				all, err := b.Load(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(all) < test.least+round {
					t.Errorf("round %d: %d values, want at least %d", round, len(all), test.least+round)
				}
				for key, value := range all {
					if key != string(value) {
						t.Errorf("%s has the value %q", key, value)
					}
				}
				if err := b.Put(t.Context(), "new", []byte("new")); err != nil {
					t.Errorf("the bucket takes no values: %v", err)
				}
				if round == 0 {
					if err := s.Err(); test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
						t.Errorf("Err is %v, want %q in it", err, test.says)
					}
				} else if err := s.Err(); err != nil {
					t.Errorf("the next start still complains: %v", err)
				}
				other, err := s.Bucket(t.Context(), "states")
				if err != nil {
					t.Fatal(err)
				}
				if all, err := other.Load(t.Context()); err != nil || len(all) != values {
					t.Errorf("the other bucket: %d values, %v", len(all), err)
				}
				s.Close()
			}
		})
	}
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFull fills the store. It refuses what does not fit, says why, keeps what it
// has, and takes more with a higher limit.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	c := embedded(dir)
	c.MaxBytes = 1 << 20
	s := open(t, c)
	b, err := s.Bucket(t.Context(), "reports")
	if err != nil {
		t.Fatal(err)
	}
	value := bytes.Repeat([]byte("x"), 100<<10)
	n := 0
	for ; err == nil && n < 100; n++ {
		err = b.Put(t.Context(), fmt.Sprintf("k%d", n), value)
	}
	n--
	if !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "max_bytes") || n < 5 {
		t.Fatalf("after %d values of 100 KiB in 1 MiB: %v", n, err)
	}
	if all, err := b.Load(t.Context()); err != nil || len(all) != n {
		t.Errorf("%d of %d values are there: %v", len(all), n, err)
	}
	s.Close()
	c.MaxBytes = 16 << 20
	s = open(t, c)
	defer s.Close()
	if b, err = s.Bucket(t.Context(), "reports"); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "more", value); err != nil {
		t.Error(err)
	}
	if all, err := b.Load(t.Context()); err != nil || len(all) != n+1 {
		t.Errorf("%d of %d values are there: %v", len(all), n+1, err)
	}
}

// TestFolderUnusable starts with a folder that cannot be used, and uses it as soon
// as it can be.
func TestFolderUnusable(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	write(t, dir, []byte("a file where the folder should be"))
	if _, err := store.Open(t.Context(), embedded(dir), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), dir) {
		t.Fatalf("open: %v", err)
	}
	s, err := store.Start(t.Context(), embedded(dir), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Err(); !errors.Is(err, store.ErrDown) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Err: %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "the store is up", s.Err)
}

// TestCloseWhileMaking gives up on making buckets and closes the store at once. Nothing
// may go on writing to the folder then; TestMain finds what does.
func TestCloseWhileMaking(t *testing.T) {
	for i := range 60 {
		s := open(t, embedded(t.TempDir()))
		for k := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
			_, _ = s.Bucket(ctx, fmt.Sprint("b", k))
			cancel()
		}
		s.Close()
	}
}
