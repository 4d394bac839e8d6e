package store_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/store"
)

// contents reads buckets whole.
func contents(t *testing.T, s *store.Store, buckets ...string) map[string]map[string][]byte {
	t.Helper()
	all := map[string]map[string][]byte{}
	for _, name := range buckets {
		b, err := s.Bucket(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if all[name], err = b.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// scatter writes random values of random sizes under random keys, and deletes some.
func scatter(t *testing.T, s *store.Store, seed uint64, buckets ...string) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	for _, name := range buckets {
		b, err := s.Bucket(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 40 {
			value := make([]byte, r.IntN(3000))
			for j := range value {
				value[j] = byte(r.UintN(256))
			}
			part := b.Part(fmt.Sprint("owner ", r.IntN(3)))
			if err := part.Put(t.Context(), fmt.Sprintf("K_=/-.%d", r.IntN(30)), value); err != nil {
				t.Fatal(err)
			}
			if i%7 == 0 {
				if err := part.Delete(t.Context(), fmt.Sprintf("K_=/-.%d", r.IntN(30))); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestBackup restores random content into an empty store, and refuses everything
// but the whole file.
func TestBackup(t *testing.T) {
	buckets := []string{"reports", "states", "manual", "never_heard_of"}
	s := open(t, embedded(t.TempDir()))
	defer s.Close()
	scatter(t, s, 1, buckets...)
	if _, err := s.Bucket(t.Context(), "empty"); err != nil {
		t.Fatal(err)
	}
	leases, err := s.Expiring(t.Context(), "leases", time.Minute) // of who runs what now: none of that is to come back
	if err != nil {
		t.Fatal(err)
	}
	if err := leases.Put(t.Context(), "job", []byte("machine")); err != nil {
		t.Fatal(err)
	}
	log := s.Log("journal", time.Hour, 1<<20)
	for i := range 20 {
		if err := log.Append(t.Context(), fmt.Sprint("person ", i%3), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	want := contents(t, s, buckets...)
	var file bytes.Buffer
	h, err := s.Backup(t.Context(), &file, "test")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range buckets {
		if h.Counts[name] != len(want[name]) {
			t.Errorf("the header counts %d in %s, there are %d", h.Counts[name], name, len(want[name]))
		}
	}
	if n, ok := h.Counts["empty"]; !ok || n != 0 || h.Counts["log:journal"] != 20 || h.Created.IsZero() || h.Program != "test" {
		t.Errorf("header: %+v", h)
	}
	if n, ok := h.Counts["leases"]; ok {
		t.Errorf("%d leases are in it", n)
	}

	fresh := open(t, embedded(t.TempDir()))
	defer fresh.Close()
	untouched := func(what string) {
		t.Helper()
		var now bytes.Buffer
		if h, err := fresh.Backup(t.Context(), &now, ""); err != nil || len(h.Counts) != 0 {
			t.Fatalf("%s: the store was touched: %v, %v", what, h.Counts, err)
		}
	}
	good := file.Bytes()
	bad := map[string][]byte{
		"nothing":         nil,
		"garbage":         []byte("PK\x03\x04"),
		"another version": bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1),
		"the header only": good[:bytes.IndexByte(good, '\n')+1],
		"more at its end": append(slices.Clone(good), good[bytes.IndexByte(good, '\n')+1:]...),
		"no last byte":    good[:len(good)-1],
		"no last line":    good[:bytes.LastIndexByte(good[:len(good)-1], '\n')+1],
	}
	r := rand.New(rand.NewPCG(2, 0))
	for range 30 {
		at := r.IntN(len(good))
		bad[fmt.Sprint("cut off at ", at)] = good[:at]
		at = bytes.IndexByte(good, '\n') + 1 + r.IntN(len(good)-bytes.IndexByte(good, '\n')-1)
		flipped := slices.Clone(good)
		flipped[at] ^= 1
		bad[fmt.Sprint("flipped at ", at)] = flipped
	}
	for what, data := range bad {
		if _, err := fresh.Restore(t.Context(), bytes.NewReader(data), false); !errors.Is(err, store.ErrBadBackup) {
			t.Errorf("%s: %v", what, err)
		}
	}
	untouched("bad files")

	if _, err := fresh.Restore(t.Context(), bytes.NewReader(good), false); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, contents(t, fresh, buckets...)); d != "" {
		t.Errorf("- backed up, + restored\n%s", d)
	}
	restored := fresh.Log("journal", time.Hour, 1<<20)
	for _, key := range []string{"", "person 1"} {
		if d := cmp.Diff(read(t, log, key), read(t, restored, key)); d != "" {
			t.Errorf("log, %q: - backed up, + restored\n%s", key, d)
		}
	}

	// A store that has something is replaced only by force, and then completely.
	scatter(t, fresh, 3, "reports", "more")
	if _, err := fresh.Restore(t.Context(), bytes.NewReader(good), false); !errors.Is(err, store.ErrNotEmpty) {
		t.Fatalf("restore over something: %v", err)
	}
	if _, err := fresh.Restore(t.Context(), bytes.NewReader(good), true); err != nil {
		t.Fatal(err)
	}
	want["more"] = map[string][]byte{}
	if d := cmp.Diff(want, contents(t, fresh, slices.Sorted(maps.Keys(want))...)); d != "" {
		t.Errorf("- backed up, + restored by force\n%s", d)
	}
}

func read(t *testing.T, l *store.Log, key string) (all []byte) {
	t.Helper()
	for v, err := range l.Read(t.Context(), key) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v...)
	}
	return all
}

// TestRestoreThatFails restores more than fits: the store is what it was.
func TestRestoreThatFails(t *testing.T) {
	large := open(t, embedded(t.TempDir()))
	defer large.Close()
	b, err := large.Bucket(t.Context(), "reports")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		if err := b.Put(t.Context(), fmt.Sprint("k", i), bytes.Repeat([]byte("x"), 100<<10)); err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	if _, err := large.Backup(t.Context(), &file, "test"); err != nil {
		t.Fatal(err)
	}
	c := embedded(t.TempDir())
	c.MaxBytes = 1 << 20
	small := open(t, c)
	defer small.Close()
	scatter(t, small, 4, "reports", "states")
	before := contents(t, small, "reports", "states")
	_, err = small.Restore(t.Context(), bytes.NewReader(file.Bytes()), true)
	if !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "the store is what it was before") {
		t.Errorf("restore of 3 MB into 1 MiB: %v", err)
	}
	if d := cmp.Diff(before, contents(t, small, "reports", "states")); d != "" {
		t.Errorf("- before, + after the restore that failed\n%s", d)
	}
}

// FuzzCheckBackup: no input makes the reader fail other than with ErrBadBackup, and
// what it takes it takes again.
func FuzzCheckBackup(f *testing.F) {
	const header = `{"format":"presenced backup","version":1,"program":"p","created":"2026-11-20T10:00:00Z","counts":{"reports":1,"log:journal":1},"sha256":"%s"}` + "\n"
	const body = `{"bucket":"reports","key":"a.b","value":"AQI="}` + "\n" + `{"log":"journal","key":"61","value":""}` + "\n"
	f.Add([]byte(fmt.Sprintf(header, sum(body)) + body))
	f.Add([]byte(fmt.Sprintf(header, sum(body)) + body[:len(body)-1]))
	f.Add([]byte(fmt.Sprintf(header, "") + body))
	f.Add([]byte(strings.Replace(header, "1", "-1", 2) + `{"bucket":"../x","key":"*","value":null}` + "\n"))
	f.Add([]byte("\n\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := store.CheckBackup(bytes.NewReader(data))
		if err != nil && !errors.Is(err, store.ErrBadBackup) {
			t.Errorf("%v", err)
		}
		if err == nil {
			if again, err := store.CheckBackup(bytes.NewReader(data)); err != nil || !cmp.Equal(h, again) {
				t.Errorf("%v, then %v: %v", h, again, err)
			}
		}
	})
}

func sum(body string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(body))) }
