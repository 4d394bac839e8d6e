package journal_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func at(hour, minute int) time.Time { return time.Date(2026, 11, 20, hour, minute, 0, 0, time.UTC) }

func said(t time.Time, source string, spans ...presence.Span) journal.Entry {
	return journal.Entry{At: t, Kind: journal.Said, Person: "ann", Report: &presence.Report{
		Source: source, Subject: presence.Subject{Scheme: "tel", Value: "1"}, At: t, Spans: spans,
	}}
}

// A policy by which a ringing phone is busy differs from the default just while
// the phone rings, and by which an all-day entry is busy, for that day.
func TestCompare(t *testing.T) {
	entries := []journal.Entry{
		said(at(8, 0), "aes", presence.Span{Fact: presence.PhoneIdle, From: at(8, 0)}),
		said(at(9, 0), "aes", presence.Span{Fact: presence.PhoneRinging, From: at(9, 0)}),
		said(at(9, 2), "aes", presence.Span{Fact: presence.PhoneIdle, From: at(9, 2)}),
		said(at(10, 0), "calendar", presence.Span{Fact: presence.CalendarAllDay, From: at(11, 0), Until: at(12, 0)}),
		said(at(13, 0), "aes", presence.Span{Fact: presence.PhoneRinging, From: at(13, 0)}),
	}
	other := presence.DefaultSetting()
	other.Ringing, other.AllDayBusy = "busy", "busy"
	got := journal.Compare("ann", entries, presence.DefaultPolicy(), other.Policy(), at(8, 30), at(14, 0))
	type line struct{ From, Until, Was, Would string }
	var lines []line
	for _, d := range got {
		until := "on"
		if !d.Until.IsZero() {
			until = d.Until.Format("15:04")
		}
		lines = append(lines, line{d.From.Format("15:04"), until, d.WasWords, d.WouldWords})
	}
	want := []line{
		{"09:00", "09:02", "available by phone-idle", "busy/ringing by ringing"},
		{"11:00", "12:00", "available by phone-idle", "busy/appointment by all-day"},
		{"13:00", "on", "available by phone-idle", "busy/ringing by ringing"},
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
	if early := journal.Compare("ann", entries, presence.DefaultPolicy(), other.Policy(), at(9, 1), at(9, 30)); len(early) != 1 || !early[0].From.Equal(at(9, 1)) {
		t.Errorf("from the middle of a difference: %+v", early)
	}
}

// Another activity is a difference too; what was known of who left is none.
func TestCompareActivities(t *testing.T) {
	entries := []journal.Entry{
		said(at(9, 0), "aes", presence.Span{Fact: presence.PhoneConnected, From: at(9, 0)}),
		{At: at(9, 30), Kind: journal.Left, Person: "ann"},
	}
	plain := presence.DefaultPolicy()
	plain.Shown = nil
	got := journal.Compare("ann", entries, presence.DefaultPolicy(), plain, at(8, 0), at(12, 0))
	if len(got) != 1 || got[0].WasWords != "busy/on-the-phone by on-the-phone" || got[0].WouldWords != "busy by on-the-phone" || !got[0].Until.Equal(at(9, 30)) {
		t.Errorf("%+v", got)
	}
}

// memory is a Log in memory that can be told to fail.
type memory struct {
	mu    sync.Mutex
	held  [][]byte
	fails bool
}

func (m *memory) Append(_ context.Context, _ string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails {
		return errors.New("disk full")
	}
	m.held = append(m.held, value)
	return nil
}

func (m *memory) Read(context.Context, string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, v := range m.held {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// While the log does not take entries nothing blocks; afterwards all are there, in order.
func TestLogDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memory{fails: true}
		j := journal.New(log, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- j.Run(ctx) }()
		for i := range 10 {
			j.Note(said(at(8, i), "aes"))
			synctest.Wait()
		}
		if s := j.Status(); s.Phase != presence.PhaseDegraded || s.LastError == "" {
			t.Errorf("%+v", s)
		}
		log.mu.Lock()
		log.fails = false
		log.mu.Unlock()
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if s := j.Status(); s.Phase != presence.PhaseLive {
			t.Errorf("%+v", s)
		}
		j.Note(said(at(9, 0), "aes"))
		cancel() // what waits is written before the end
		if err := <-done; err != nil {
			t.Error(err)
		}
		log.held = append(log.held, []byte("{"))
		var minutes []int
		broken := 0
		for e, err := range journal.Entries(context.Background(), log, "ann") {
			if errors.Is(err, journal.ErrUnreadable) {
				broken++
				continue
			}
			minutes = append(minutes, e.At.Hour()*60+e.At.Minute()-480)
		}
		if d := cmp.Diff([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 60}, minutes); d != "" || broken != 1 {
			t.Errorf("%d broken\n%s", broken, d)
		}
	})
}

// What waits for a log is bounded, and an entry about somebody else is not given.
func TestEntriesAreBoundedAndApart(t *testing.T) {
	log := &memory{fails: true}
	j := journal.New(log, slog.New(slog.DiscardHandler))
	many := make([]journal.Entry, 100_001)
	for i := range many {
		many[i] = journal.Entry{At: at(8, 0), Kind: journal.Left, Person: "ann"}
	}
	many[0].Person = "first"
	j.Note(many...)
	if n := j.Status().Problems["journal entries dropped"]; n != 1 {
		t.Errorf("%d entries were dropped", n)
	}
	log.held = [][]byte{[]byte(`{"at":"2026-11-20T08:00:00Z","kind":"left","person":"ben"}`)}
	for e, err := range journal.Entries(t.Context(), log, "ann") {
		if !errors.Is(err, journal.ErrUnreadable) {
			t.Errorf("%+v, %v", e, err)
		}
	}
}
