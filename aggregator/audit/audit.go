// Package audit remembers who changed what: a trail of lines, each written before
// the change that it tells of is made. What carries a change out writes it; cmd
// reads it.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"presenced/aggregator/presence"
)

// An Actor is who changes something, and from where.
type Actor struct {
	Who  string // "uid 1000"
	From string // "control socket"
}

// A Line says who changed what. It holds no secret, and nothing that a calendar
// says. Write takes out control characters and what exceeds the limits.
type Line struct {
	At     time.Time `json:"at"`
	Who    string    `json:"who"`              // at most MaxName bytes, like From and What
	From   string    `json:"from"`             // the way it came, such as "control socket"
	What   string    `json:"what"`             // a noun and a verb, such as "access set"
	Whom   string    `json:"whom"`             // the identifier of a person, Everybody, or an object; at most MaxText bytes
	Detail string    `json:"detail,omitempty"` // before -> after; at most MaxText bytes
}

// Limits of a line.
const (
	MaxName = 100
	MaxText = 700
)

// Everybody is the Whom of a line about all people.
const Everybody = "everybody"

// A Log keeps values in the order in which they came, for as long as it is
// configured to: a log of the store is one.
type Log interface {
	// Append adds a value under a key that is not empty; it is durable on return.
	Append(ctx context.Context, key string, value []byte) error
	// Read gives the values of a key (of all, if it is empty) that are there when
	// it is called, the oldest first.
	Read(ctx context.Context, key string) iter.Seq2[[]byte, error]
}

// ErrUnwritten is why a change is refused when its line cannot be written.
var ErrUnwritten = errors.New("the audit trail cannot be written, so nothing has changed")

// A Trail is the lines of a log. All methods may be called from any goroutine.
type Trail struct {
	lines Log
	log   *slog.Logger
}

// New makes a trail over a log. What cannot be written or read is logged.
func New(lines Log, log *slog.Logger) *Trail { return &Trail{lines, log} }

// writeTime is how long a line may take.
const writeTime = 5 * time.Second

// Write adds a line, made now if it has no time; it is durable on return, or the
// error says why not, within five seconds.
func (t *Trail) Write(ctx context.Context, l Line) error {
	if l.At.IsZero() {
		l.At = time.Now()
	}
	l.At = l.At.UTC().Round(0)
	for _, f := range []struct {
		text *string
		most int
	}{{&l.Who, MaxName}, {&l.From, MaxName}, {&l.What, MaxName}, {&l.Whom, MaxText}, {&l.Detail, MaxText}} {
		*f.text = plain(*f.text, f.most)
	}
	if l.Who == "" || l.What == "" || l.Whom == "" {
		return errors.New("audit: a line says who changed what of whom")
	}
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	if err := t.lines.Append(ctx, l.Whom, data); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// failTime is how long the line about a change that failed may take.
const failTime = 2 * time.Second

// Change makes a change: the line is durable before do is called; if do fails, a
// second line says so. The error is that of do, or ErrUnwritten, and then do was
// not called.
func (t *Trail) Change(ctx context.Context, l Line, do func(context.Context) error) error {
	if err := t.Write(ctx, l); err != nil {
		t.log.ErrorContext(ctx, "a change was refused, because its audit line cannot be written", "what", l.What, "whom", l.Whom, "who", l.Who, "error", err)
		return fmt.Errorf("%w: %w", ErrUnwritten, err)
	}
	failed := do(ctx)
	if failed == nil {
		return nil
	}
	l.At, l.Detail = time.Time{}, "failed: "+failed.Error()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), failTime)
	defer cancel()
	if err := t.Write(last, l); err != nil {
		t.log.ErrorContext(ctx, "the audit trail does not say that a change failed", "what", l.What, "whom", l.Whom, "who", l.Who, "failed", failed, "error", err)
	}
	return failed
}

// plain is text on one line, without control characters, of at most so many bytes.
func plain(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) { // no line ends, no direction marks
			return r
		}
		return ' '
	}, text)
	if len(text) <= most {
		return text
	}
	cut := most - len("…")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// A Query selects lines.
type Query struct {
	Since time.Time          // zero: from the first
	Until time.Time          // before it; zero: to the last
	Whom  string             // empty: whomever
	Fits  func(l *Line) bool // nil: all
	Most  int                // the newest so many; 0 or more than MaxLines: MaxLines
}

// MaxLines is the most lines that Lines gives.
const MaxLines = 5000

// Lines gives the lines that q selects, the oldest first. left is how many older
// ones were left out because there are more than q.Most. A line that cannot be
// read is logged and left out.
func (t *Trail) Lines(ctx context.Context, q Query) (lines []Line, left int, err error) {
	if q.Most <= 0 || q.Most > MaxLines {
		q.Most = MaxLines
	}
	lines = []Line{}
	whom := plain(q.Whom, MaxText) // as it was written
	for data, err := range t.lines.Read(ctx, whom) {
		if err != nil {
			return nil, 0, fmt.Errorf("audit: %w", err)
		}
		var l Line
		if err := json.Unmarshal(data, &l); err != nil || l.At.IsZero() || whom != "" && l.Whom != whom {
			t.log.WarnContext(ctx, "a line of the audit trail cannot be read and is left out", "error", err)
			continue
		}
		if l.At.Before(q.Since) || !q.Until.IsZero() && !l.At.Before(q.Until) || q.Fits != nil && !q.Fits(&l) {
			continue
		}
		if lines = append(lines, l); len(lines) >= 2*q.Most { // so that it is moved seldom
			over := len(lines) - q.Most
			lines, left = append(lines[:0], lines[over:]...), left+over
		}
	}
	if over := len(lines) - q.Most; over > 0 {
		lines, left = lines[over:], left+over
	}
	return lines, left, nil
}

// Person is the Whom of a line about a person: nobody is mistaken for everybody.
func Person(id presence.ID) string {
	if id == "" {
		return Everybody
	}
	return string(id)
}
