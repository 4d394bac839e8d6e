package audit_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator/audit"
)

var quiet = slog.New(slog.DiscardHandler)

// A book is a Log in memory that can be told to be full.
type book struct {
	keys   []string
	values [][]byte
	full   bool
}

func (b *book) Append(_ context.Context, key string, value []byte) error {
	if b.full {
		return errors.New("disk full")
	}
	b.keys, b.values = append(b.keys, key), append(b.values, value)
	return nil
}

func (b *book) Read(_ context.Context, key string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for i, v := range b.values {
			if (key == "" || b.keys[i] == key) && !yield(v, nil) {
				return
			}
		}
	}
}

func line(minute int, whom, detail string) audit.Line {
	return audit.Line{
		At:  time.Date(2026, 11, 20, 10, minute, 0, 0, time.UTC),
		Who: "uid 1000", From: "control socket", What: "access set", Whom: whom, Detail: detail,
	}
}

// What is written is read: since a time, of a person, and the newest of too many.
func TestLines(t *testing.T) {
	b := &book{}
	trail := audit.New(b, quiet)
	for i := range 10 {
		whom := "ann"
		if i%2 == 1 {
			whom = "ben"
		}
		if err := trail.Write(t.Context(), line(i, whom, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	b.values[4] = []byte("{") // it takes no other line along
	for _, c := range []struct {
		name string
		q    audit.Query
		want string
		left int
	}{
		{"all", audit.Query{}, "012356789", 0},
		{"since", audit.Query{Since: line(6, "", "").At}, "6789", 0},
		{"of a person", audit.Query{Whom: "ann"}, "0268", 0},
		{"the newest", audit.Query{Most: 3}, "789", 6},
		{"the newest of a person", audit.Query{Whom: "ben", Most: 2}, "79", 3},
		{"of nobody", audit.Query{Whom: "eve"}, "", 0},
	} {
		lines, left, err := trail.Lines(t.Context(), c.q)
		var got strings.Builder
		for _, l := range lines {
			got.WriteString(l.Detail)
		}
		if err != nil || got.String() != c.want || left != c.left {
			t.Errorf("%s: %s and %d left out, %v; want %s and %d", c.name, &got, left, err, c.want, c.left)
		}
	}
	lines, _, _ := trail.Lines(t.Context(), audit.Query{Whom: "ann", Most: 1})
	if d := cmp.Diff([]audit.Line{line(8, "ann", "8")}, lines); d != "" {
		t.Errorf("- written, + read\n%s", d)
	}
}

// The line is there before the change is made; without it nothing is; a change that
// fails leaves a second one.
func TestChange(t *testing.T) {
	b := &book{}
	trail := audit.New(b, quiet)
	if err := trail.Change(t.Context(), line(0, "ann", "a -> b"), func(context.Context) error {
		if len(b.values) != 1 {
			t.Error("the change comes before its line")
		}
		return nil
	}); err != nil || len(b.values) != 1 {
		t.Errorf("%v, %d lines", err, len(b.values))
	}

	ctx, cancel := context.WithCancel(t.Context())
	refused := errors.New("the store is down")
	if err := trail.Change(ctx, line(1, "ann", "b -> c"), func(context.Context) error { cancel(); return refused }); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	lines, _, _ := trail.Lines(t.Context(), audit.Query{})
	if len(lines) != 3 || lines[1].Detail != "b -> c" || lines[2].Detail != "failed: the store is down" || lines[2].Whom != "ann" {
		t.Errorf("%+v", lines)
	}

	b.full = true
	err := trail.Change(t.Context(), line(2, "ann", "c -> d"), func(context.Context) error { t.Error("changed without a line"); return nil })
	if !errors.Is(err, audit.ErrUnwritten) || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("%v", err)
	}
	if err := trail.Write(t.Context(), audit.Line{Who: "uid 1"}); err == nil {
		t.Error("a line without what and whom was written")
	}
}

// Whatever is in a line, it is one line within the limits, and no cell of the table
// begins as a formula.
func TestHostileText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
			"=HYPERLINK(1)", " =1+1", "\t@SUM(A1)", "-2", "+49", "＝1", "'=1", "a\r\n=1", "\u202eevil", strings.Repeat("ä", audit.MaxText),
			"\xff\xfe", "\u00a0=1", "\u3000=1",
		}))
		b := &book{}
		trail := audit.New(b, quiet)
		in := line(0, "x"+text.Draw(t, "whom"), text.Draw(t, "detail"))
		in.Who = "x" + text.Draw(t, "who")
		if err := trail.Write(context.Background(), in); err != nil {
			t.Fatal(err)
		}
		lines, _, err := trail.Lines(context.Background(), audit.Query{Whom: in.Whom})
		if err != nil || len(lines) != 1 {
			t.Fatalf("%d lines, %v", len(lines), err)
		}
		l := lines[0]
		if len(l.Who) > audit.MaxName || len(l.Whom) > audit.MaxText || len(l.Detail) > audit.MaxText || !utf8.ValidString(l.Who+l.Whom+l.Detail) {
			t.Fatalf("beyond the limits: %+v", l)
		}
		var out bytes.Buffer
		if err := audit.WriteCSV(&out, lines); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(rows) != 2 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		for _, c := range rows[1] {
			if c = strings.TrimSpace(c); c != "" && strings.ContainsAny(c[:1], "=+-@") {
				t.Fatalf("%q is a formula", c)
			}
		}
	})
}
