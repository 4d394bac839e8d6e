package exchange

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeWire answers as the test says and notes what was asked.
type fakeWire struct {
	mu           sync.Mutex
	availability func(mailboxes []string, from, to time.Time) ([]ews.MailboxAvailability, error)
	tips         func(mailboxes []string) ([]ews.Tip, error)
	limit        func() (int, error)
	delay        time.Duration
	asked        [][]string // of Availability and MailTips
	limits       int
	busy, peak   int // requests under way
	closed       int
}

func (w *fakeWire) begin(mailboxes []string) {
	w.mu.Lock()
	w.asked = append(w.asked, mailboxes)
	w.busy++
	w.peak = max(w.peak, w.busy)
	w.mu.Unlock()
	if w.delay > 0 {
		<-time.After(w.delay)
	}
	w.mu.Lock()
	w.busy--
}

func (w *fakeWire) Availability(_ context.Context, mailboxes []string, from, to time.Time) ([]ews.MailboxAvailability, error) {
	w.begin(mailboxes)
	defer w.mu.Unlock()
	if w.availability == nil {
		return allFree(mailboxes), nil
	}
	return w.availability(mailboxes, from, to)
}

func (w *fakeWire) MailTips(_ context.Context, _ string, mailboxes []string) ([]ews.Tip, error) {
	w.begin(mailboxes)
	defer w.mu.Unlock()
	if w.tips == nil {
		return slices.Repeat([]ews.Tip{{Code: ews.CodeOK}}, len(mailboxes)), nil
	}
	return w.tips(mailboxes)
}

func (w *fakeWire) TipLimit(context.Context) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limits++
	if w.limit == nil {
		return 50, nil
	}
	return w.limit()
}

func (w *fakeWire) Lanes() int { return 4 }

func (w *fakeWire) CloseIdle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed++
}

// take gives what was asked since the last time.
func (w *fakeWire) take() [][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

func allFree(mailboxes []string) []ews.MailboxAvailability {
	return slices.Repeat([]ews.MailboxAvailability{{Code: ews.CodeOK, View: "FreeBusy"}}, len(mailboxes))
}

// coded answers about one mailbox with a code, about the others with nothing in the calendar.
func coded(who, code string) func([]string, time.Time, time.Time) ([]ews.MailboxAvailability, error) {
	return func(mailboxes []string, _, _ time.Time) ([]ews.MailboxAvailability, error) {
		out := allFree(mailboxes)
		if i := slices.Index(mailboxes, who); i >= 0 {
			out[i] = ews.MailboxAvailability{Code: code}
		}
		return out, nil
	}
}

func testConfig() Config {
	c := DefaultConfig()
	c.Name, c.URL, c.User, c.Mailbox = "hq", "https://mail.example.com/EWS/Exchange.asmx", `EXAMPLE\svc`, "svc@example.com"
	return c
}

func sourcesOver(t *testing.T, w wire) (*Calendar, *Replies, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	calendar, replies := sources(testConfig(), &account{wire: w}, slog.New(slog.NewJSONHandler(&log, nil)))
	return calendar, replies, &log
}

func mail(names ...string) []presence.Subject {
	var out []presence.Subject
	for _, n := range names {
		out = append(out, presence.Subject{Scheme: "mail", Value: n})
	}
	return out
}

func people(n int) []presence.Subject {
	var out []presence.Subject
	for i := range n {
		out = append(out, presence.Subject{Scheme: "mail", Value: fmt.Sprintf("p%05d@example.com", i)})
	}
	return out
}

// A fakeRoster gives the rosters sent to it.
type fakeRoster chan []presence.Subject

func (r fakeRoster) Subjects(ctx context.Context, scheme string) iter.Seq[[]presence.Subject] {
	return func(yield func([]presence.Subject) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case mailboxes := <-r:
				if scheme != "mail" || !yield(mailboxes) {
					return
				}
			}
		}
	}
}

func noon() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }
