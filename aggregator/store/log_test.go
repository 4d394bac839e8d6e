package store_test

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"
)

func TestLog(t *testing.T) {
	dir := t.TempDir()
	s := open(t, embedded(dir))
	l := s.Log("journal", time.Hour, 1<<20)
	for i := range 30 {
		if err := l.Append(t.Context(), []string{"ann", "b.b", "*"}[i%3], []byte(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Append(t.Context(), "", nil); err == nil {
		t.Error("a value without a key was taken")
	}
	s.Close()
	s = open(t, embedded(dir))
	defer s.Close()
	l = s.Log("journal", time.Hour, 1<<20)
	for key, want := range map[string]int{"": 30, "ann": 10, "b.b": 10, "*": 10, "nobody": 0} {
		last, n := -1, 0
		for v, err := range l.Read(t.Context(), key) {
			if err != nil {
				t.Fatal(err)
			}
			i, _ := strconv.Atoi(string(v))
			if i <= last {
				t.Errorf("%q: %d after %d", key, i, last)
			}
			last = i
			n++
		}
		if n != want {
			t.Errorf("%q: %d values, want %d", key, n, want)
		}
	}
	n := 0
	for _, err := range l.Read(t.Context(), "") { // the reader may stop
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 {
			break
		}
	}
}

// A log that is full drops its oldest values, and takes new ones.
func TestLogIsBounded(t *testing.T) {
	s := open(t, embedded(t.TempDir()))
	defer s.Close()
	l := s.Log("small", time.Hour, 64<<10)
	value := make([]byte, 1000)
	for range 200 {
		if err := l.Append(t.Context(), "ann", value); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, err := range l.Read(t.Context(), "ann") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n == 0 || n > 64 {
		t.Errorf("%d values of a kilobyte in 64 KiB", n)
	}
}

// What is older than the log keeps goes, also where it kept more when it was written.
func TestLogForgets(t *testing.T) {
	s := open(t, embedded(t.TempDir()))
	defer s.Close()
	if err := s.Log("journal", time.Hour, 1<<20).Append(t.Context(), "ann", []byte("long ago")); err != nil {
		t.Fatal(err)
	}
	shorter := s.Log("journal", time.Second, 1<<20)
	until(t, 20*time.Second, "nothing is left", func() error {
		for value, err := range shorter.Read(t.Context(), "") {
			return errors.Join(err, fmt.Errorf("%s is still there", value))
		}
		return nil
	})
}
