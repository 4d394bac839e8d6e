package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
)

// replayed makes sources over fixed answers, by kind of request.
func replayed(t *testing.T, availability, tips, limit string) (*Calendar, *Replies, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	calendar, replies, err := NewWithTransport(testConfig(), tape(func(request string) string {
		switch {
		case strings.Contains(request, "GetUserAvailability"):
			return availability
		case strings.Contains(request, "GetMailTips"):
			return tips
		default:
			return limit
		}
	}), slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	return calendar, replies, &log
}

type tape func(request string) string

func (f tape) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	_ = req.Body.Close()
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/xml"}}, Request: req,
		Body: io.NopCloser(strings.NewReader(f(string(body)))),
	}, nil
}

func sizes(asked [][]string) []int {
	var out []int
	for _, a := range asked {
		out = append(out, len(a))
	}
	slices.Sort(out)
	return out
}

func TestBatches(t *testing.T) {
	for n, want := range map[int][]int{0: nil, 1: {1}, 100: {100}, 101: {1, 100}, 250: {50, 100, 100}} {
		w := &fakeWire{}
		calendar, _, _ := sourcesOver(t, w)
		reports, err := calendar.Poll(t.Context(), noon(), people(n))
		if diff := cmp.Diff(want, sizes(w.take())); diff != "" || err != nil || len(reports) != n {
			t.Errorf("%d mailboxes: %d reports, %v, %s", n, len(reports), err, diff)
		}
	}
}

// A mailbox that spoils the answer about a hundred is found in few requests, and
// asked about alone from then on.
func TestPoisonousMailbox(t *testing.T) {
	for name, c := range map[string]struct {
		poison error
		most   int // requests
	}{
		"fault":       {&ews.Fault{Code: "ErrorInternalServerError"}, 1 + 14},
		"one missing": {&ews.Malformed{Reason: "99 results for 100 mailboxes"}, 1 + 14 + 8},
	} {
		t.Run(name, func(t *testing.T) {
			all := people(100)
			w := &fakeWire{}
			w.availability = func(mailboxes []string, _, _ time.Time) ([]ews.MailboxAvailability, error) {
				if slices.Contains(mailboxes, all[37].Value) {
					return nil, c.poison
				}
				return allFree(mailboxes), nil
			}
			calendar, _, _ := sourcesOver(t, w)
			reports, err := calendar.Poll(t.Context(), noon(), all)
			if n := len(w.take()); err != nil || len(reports) != 99 || n > c.most {
				t.Errorf("%d reports in %d requests, %v", len(reports), n, err)
			}
			if s := calendar.Status(); s.Unmonitored[all[37].Value] == "" || s.Phase != presence.PhaseLive {
				t.Errorf("%+v", s)
			}
			reports, err = calendar.Poll(t.Context(), noon().Add(time.Hour), all)
			alone := 1
			if errors.As(c.poison, new(*ews.Malformed)) {
				alone = 2 // the answer is given a second chance
			}
			if diff := cmp.Diff(slices.Concat(slices.Repeat([]int{1}, alone), []int{99}), sizes(w.take())); diff != "" || err != nil || len(reports) != 99 {
				t.Errorf("%d reports, %v, %s", len(reports), err, diff)
			}
			w.availability = nil
			if reports, err = calendar.Poll(t.Context(), noon().Add(3*time.Hour), all); err != nil || len(reports) != 100 || calendar.Status().Unmonitored != nil {
				t.Errorf("%d reports, %v, %+v", len(reports), err, calendar.Status())
			}
		})
	}
}

// A server that refuses everything does not get two requests for each mailbox.
func TestEverythingRefused(t *testing.T) {
	w := &fakeWire{availability: func([]string, time.Time, time.Time) ([]ews.MailboxAvailability, error) {
		return nil, &ews.Fault{Code: "ErrorTimeoutExpired"}
	}}
	calendar, _, _ := sourcesOver(t, w)
	if _, err := calendar.Poll(t.Context(), noon(), people(1000)); err == nil || presence.IsPermanent(err) || len(w.take()) > 80 {
		t.Error(err)
	}
	w.availability = func([]string, time.Time, time.Time) ([]ews.MailboxAvailability, error) {
		return nil, &ews.Fault{Code: "ErrorSchemaValidation"}
	}
	calendar, _, _ = sourcesOver(t, w)
	if _, err := calendar.Poll(t.Context(), noon(), people(100)); !presence.IsPermanent(err) || len(w.take()) != 1 {
		t.Error(err)
	}
}

func TestFates(t *testing.T) {
	const bad = "b@example.com"
	who := mail("a@example.com", bad)
	for name, c := range map[string]struct {
		code    string
		reports int // with the one that is bad
		counter string
		after   map[time.Duration][]int // sizes of the batches of polls at that time after the first
	}{
		"not found": {"ErrorMailRecipientNotFound", 2, "mailboxes not found", map[time.Duration][]int{time.Hour: {1}, 23 * time.Hour: {1}, 25 * time.Hour: {2}}},
		"no access": {"ErrorNoFreeBusyAccess", 2, "mailboxes without access", map[time.Duration][]int{time.Hour: {1}, 25 * time.Hour: {2}}},
		"elsewhere": {"ErrorProxyRequestProcessingFailed", 1, "mailboxes elsewhere", map[time.Duration][]int{time.Minute: {1}, 11 * time.Minute: {2}}},
		"transient": {"ErrorMailboxLogonFailed", 1, "mailboxes failing", map[time.Duration][]int{5 * time.Minute: {2}, 10 * time.Minute: {2}, 16 * time.Minute: {1, 1}, 18 * time.Minute: {1}}},
		"unknown":   {"ErrorOfTomorrow", 1, "mailboxes failing", map[time.Duration][]int{5 * time.Minute: {2}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &fakeWire{availability: coded(bad, c.code)}
			calendar, _, _ := sourcesOver(t, w)
			reports, err := calendar.Poll(t.Context(), noon(), who)
			if err != nil || len(reports) != c.reports || len(reports) == 2 && (len(reports[1].Spans) != 0 || reports[1].Spans == nil) {
				t.Fatalf("%+v, %v", reports, err)
			}
			if calendar.Status().Problems[c.counter] != 1 {
				t.Errorf("%+v", calendar.Status())
			}
			w.take()
			for _, after := range slices.Sorted(func(yield func(time.Duration) bool) {
				for d := range c.after {
					if !yield(d) {
						return
					}
				}
			}) {
				reports, err := calendar.Poll(t.Context(), noon().Add(after), who)
				if diff := cmp.Diff(c.after[after], sizes(w.take())); diff != "" || err != nil || len(reports) != c.reports {
					t.Errorf("after %s: %d reports, %v, %s", after, len(reports), err, diff)
				}
			}
		})
	}
}

// running is a source that runs in a bubble.
type running struct {
	mu      sync.Mutex
	reports map[string][]time.Time // when it was reported on a mailbox
	err     error
	ended   bool
}

func start(ctx context.Context, t *testing.T, run func(context.Context, presence.Roster, func(presence.Report) error) error, roster fakeRoster) *running {
	t.Helper()
	r := &running{reports: map[string][]time.Time{}}
	go func() {
		err := run(ctx, roster, func(report presence.Report) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if err := report.Check(); err != nil {
				t.Error(err)
			}
			r.reports[report.Subject.Value] = append(r.reports[report.Subject.Value], time.Now())
			return nil
		})
		r.mu.Lock()
		defer r.mu.Unlock()
		r.err, r.ended = err, true
	}()
	return r
}

func (r *running) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]int{}
	for m, times := range r.reports {
		out[m] = len(times)
	}
	return out
}

func (r *running) end() (error, bool) { //nolint:revive // the flag belongs to the error
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err, r.ended
}

// pass lets so much time go by in the bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakeWire{}
		calendar, _, _ := sourcesOver(t, w)
		ctx, cancel := context.WithCancel(t.Context())
		roster := make(fakeRoster)
		r := start(ctx, t, calendar.Run, roster)
		synctest.Wait()
		if w.take() != nil || calendar.Status().Phase != presence.PhaseConnecting {
			t.Errorf("asks before there is a roster: %+v", calendar.Status())
		}
		roster <- mail("a@example.com", "b@example.com")
		synctest.Wait()
		if diff := cmp.Diff(map[string]int{"a@example.com": 1, "b@example.com": 1}, r.counts()); diff != "" || calendar.Status().Phase != presence.PhaseLive {
			t.Errorf("%s %+v", diff, calendar.Status())
		}
		pass(time.Minute)
		roster <- mail("b@example.com", "c@example.com")
		synctest.Wait()
		w.take()
		if diff := cmp.Diff(map[string]int{"a@example.com": 1, "b@example.com": 1, "c@example.com": 1}, r.counts()); diff != "" {
			t.Error("the one who is new is polled at once, and nobody else: ", diff)
		}
		pass(5 * time.Minute)
		if diff := cmp.Diff([][]string{{"b@example.com", "c@example.com"}}, w.take()); diff != "" {
			t.Error("after the interval, all who are covered: ", diff)
		}
		pass(50 * time.Minute)
		if n := len(w.take()); n < 9 || n > 11 {
			t.Errorf("%d polls in ten intervals", n)
		}
		cancel()
		synctest.Wait()
		if err, ended := r.end(); !ended || !errors.Is(err, context.Canceled) {
			t.Error(err, ended)
		}
	})
}

// PollNow asks about every mailbox, also about those that were refused a moment ago.
func TestPollNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakeWire{availability: coded("b@example.com", "ErrorNoFreeBusyAccess")}
		calendar, _, _ := sourcesOver(t, w)
		ctx, cancel := context.WithCancel(t.Context())
		roster := make(fakeRoster)
		start(ctx, t, calendar.Run, roster)
		roster <- mail("a@example.com", "b@example.com")
		pass(time.Minute)
		if n := len(calendar.Status().Unmonitored); n != 1 {
			t.Errorf("%d are not covered", n)
		}
		w.take()
		w.availability = nil
		calendar.PollNow()
		synctest.Wait()
		if diff := cmp.Diff([][]string{{"a@example.com", "b@example.com"}}, w.take()); diff != "" || calendar.Status().Unmonitored != nil {
			t.Errorf("%s %+v", diff, calendar.Status())
		}
		cancel()
		synctest.Wait()
	})
}

// While the server wants to be left alone, neither source asks; then both go on
// with what is left. Another account is not concerned.
func TestThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakeWire{delay: 100 * time.Millisecond}
		n := 0
		w.availability = func(mailboxes []string, _, _ time.Time) ([]ews.MailboxAvailability, error) {
			if n++; n == 3 {
				return nil, &ews.Throttled{Code: ews.CodeServerBusy, Wait: 90 * time.Second}
			}
			return allFree(mailboxes), nil
		}
		calendar, replies, _ := sourcesOver(t, w)
		otherWire := &fakeWire{}
		other, _, _ := sourcesOver(t, otherWire)
		ctx, cancel := context.WithCancel(t.Context())
		roster, roster2, roster3 := make(fakeRoster), make(fakeRoster), make(fakeRoster)
		c := start(ctx, t, calendar.Run, roster)
		start(ctx, t, replies.Run, roster2)
		start(ctx, t, other.Run, roster3)
		all := people(1000)
		roster <- all
		pass(time.Second)
		if done, asked := len(c.counts()), len(w.take()); done < 200 || done > 700 || asked > 8 {
			t.Errorf("%d reports, %d requests before the sources rest", done, asked)
		}
		if s := calendar.Status(); s.Phase != presence.PhaseDegraded || s.Problems["requests throttled"] != 1 {
			t.Errorf("%+v", s)
		}
		roster2 <- all[:10]
		roster3 <- all[:10]
		pass(85 * time.Second)
		if asked := w.take(); asked != nil || len(otherWire.take()) != 1 {
			t.Errorf("%d requests while the server is to be left alone", len(asked))
		}
		pass(30 * time.Second)
		counts := c.counts()
		for m, n := range counts {
			if n != 1 {
				t.Errorf("%s reported %d times", m, n)
			}
		}
		if len(counts) != 1000 || calendar.Status().Phase != presence.PhaseLive || replies.Status().Phase != presence.PhaseLive {
			t.Errorf("%d reports, %+v", len(counts), calendar.Status())
		}
		cancel()
		synctest.Wait()
	})
}

// A throttling server that answers for some: those are reported, the others come later.
func TestThrottledForSome(t *testing.T) {
	w := &fakeWire{availability: func(mailboxes []string, _, _ time.Time) ([]ews.MailboxAvailability, error) {
		out := allFree(mailboxes)
		out[1].Code = ews.CodeServerBusy
		return out, &ews.Throttled{Code: ews.CodeServerBusy, Wait: time.Minute}
	}}
	calendar, _, _ := sourcesOver(t, w)
	reports, err := calendar.Poll(t.Context(), noon(), people(3))
	if _, ok := errors.AsType[*ews.Throttled](err); !ok || len(reports) != 2 {
		t.Errorf("%d reports, %v", len(reports), err)
	}
	w.availability = nil
	w.take()
	reports, err = calendar.Poll(t.Context(), noon().Add(50*time.Second), people(3))
	if left, ok := errors.AsType[*ews.Throttled](err); !ok || left.Wait > 11*time.Second || len(reports) != 0 || w.take() != nil {
		t.Errorf("the rest is not kept: %v", err)
	}
	if reports, err = calendar.Poll(t.Context(), noon().Add(61*time.Second), people(3)); err != nil || len(reports) != 3 {
		t.Errorf("%d reports, %v", len(reports), err)
	}
}

// The account is not tried more than once in five minutes, by whichever source.
func TestNotLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakeWire{availability: func([]string, time.Time, time.Time) ([]ews.MailboxAvailability, error) {
			return nil, &ews.Unauthorized{Reason: "the password is wrong"}
		}}
		calendar, replies, _ := sourcesOver(t, w)
		try := func(run func(context.Context, presence.Roster, func(presence.Report) error) error) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			roster := make(fakeRoster)
			r := start(ctx, t, run, roster)
			roster <- people(1)
			pass(time.Second)
			err, _ := r.end()
			cancel()
			synctest.Wait()
			return err
		}
		for round := range 3 {
			if err := try(calendar.Run); !presence.IsPermanent(err) || !strings.Contains(err.Error(), "password is wrong") {
				t.Error(err)
			}
			if err := try(replies.Run); !presence.IsPermanent(err) {
				t.Error(err)
			}
			if err := try(calendar.Run); !presence.IsPermanent(err) || len(w.take()) != 1 || w.limits != 0 {
				t.Errorf("round %d: %v; tried again", round, err)
			}
			pass(5 * time.Minute)
		}
	})
}

// Any other failure of the whole ends Run, so that the supervisor decides.
func TestRunEnds(t *testing.T) {
	for name, c := range map[string]struct {
		err       error
		permanent bool
	}{
		"network":  {fmt.Errorf("ews: %w", io.ErrUnexpectedEOF), false},
		"outage":   {&ews.Outage{Status: 503, Wait: time.Minute}, false},
		"settings": {&ews.ConfigError{Status: 440, Reason: "forms login"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &fakeWire{availability: func([]string, time.Time, time.Time) ([]ews.MailboxAvailability, error) { return nil, c.err }}
				calendar, _, _ := sourcesOver(t, w)
				roster := make(fakeRoster)
				r := start(t.Context(), t, calendar.Run, roster)
				roster <- people(300)
				synctest.Wait()
				err, ended := r.end()
				if !ended || !errors.Is(err, c.err) || presence.IsPermanent(err) != c.permanent {
					t.Errorf("%v, ended: %t", err, ended)
				}
				if s := calendar.Status(); s.LastError == "" || s.Phase != presence.PhaseDegraded {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// Ten thousand mailboxes at half a second a request, over four lanes.
func TestLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakeWire{delay: 500 * time.Millisecond}
		calendar, _, _ := sourcesOver(t, w)
		began := time.Now()
		reports, err := calendar.Poll(t.Context(), noon(), people(10_000))
		if took := time.Since(began); err != nil || len(reports) != 10_000 || took > time.Minute || w.peak > 4 {
			t.Errorf("%d reports after %s, %d at a time, %v", len(reports), took, w.peak, err)
		}
		for _, r := range reports {
			if !r.At.Equal(noon()) {
				t.Fatal("a report knows another time than that of the poll")
			}
		}
	})
}

func TestReplies(t *testing.T) {
	until := noon().Add(60 * time.Hour)
	tips := map[string]ews.Tip{
		"off@example.com":     {Code: ews.CodeOK},
		"open@example.com":    {Code: ews.CodeOK, On: true},
		"over@example.com":    {Code: ews.CodeOK, On: true, From: noon().Add(-48 * time.Hour), Until: noon().Add(-2 * time.Hour)},
		"pending@example.com": {Code: ews.CodeOK, Pending: true},
		"period@example.com":  {Code: ews.CodeOK, On: true, From: noon().Add(-time.Hour), Until: until},
		"unknown@example.com": {Code: "ErrorMailRecipientNotFound"},
	}
	w := &fakeWire{tips: func(mailboxes []string) ([]ews.Tip, error) {
		var out []ews.Tip
		for _, m := range mailboxes {
			out = append(out, tips[m])
		}
		return out, nil
	}}
	_, replies, _ := sourcesOver(t, w)
	who := mail("off@example.com", "open@example.com", "over@example.com", "pending@example.com", "period@example.com", "unknown@example.com")
	for _, now := range []time.Time{noon(), noon().Add(5 * time.Minute)} { // the beginning of an open period does not move
		reports, err := replies.Poll(t.Context(), now, who)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]presence.Span{}
		for _, r := range reports {
			got[r.Subject.Value] = r.Spans
			if r.Source != "hq/replies" || r.Check() != nil {
				t.Errorf("%+v", r)
			}
		}
		if diff := cmp.Diff(map[string][]presence.Span{
			"off@example.com": {}, "over@example.com": {}, "unknown@example.com": {},
			"open@example.com":   {{Fact: presence.AutoReply, From: noon()}},
			"period@example.com": {{Fact: presence.AutoReply, From: noon().Add(-time.Hour), Until: until}},
		}, got); diff != "" {
			t.Error(diff)
		}
	}
	// Switched off and on again, they begin anew.
	tips["open@example.com"] = ews.Tip{Code: ews.CodeOK}
	if _, err := replies.Poll(t.Context(), noon().Add(10*time.Minute), who); err != nil {
		t.Fatal(err)
	}
	tips["open@example.com"] = ews.Tip{Code: ews.CodeOK, On: true}
	reports, err := replies.Poll(t.Context(), noon().Add(15*time.Minute), mail("open@example.com"))
	if err != nil || !reports[0].Spans[0].From.Equal(noon().Add(15*time.Minute)) {
		t.Errorf("%+v, %v", reports, err)
	}
}

func TestTipLimit(t *testing.T) {
	w := &fakeWire{limit: func() (int, error) { return 30, nil }}
	_, replies, _ := sourcesOver(t, w)
	for _, after := range []time.Duration{0, time.Hour, 25 * time.Hour} {
		if _, err := replies.Poll(t.Context(), noon().Add(after), people(70)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{10, 30, 30}, sizes(w.take())); diff != "" {
			t.Error(diff)
		}
	}
	if w.limits != 2 {
		t.Errorf("asked for the limit %d times in 25 hours", w.limits)
	}
	w.limit = func() (int, error) { return 0, &ews.Fault{Code: "ErrorInvalidOperation"} }
	_, replies, _ = sourcesOver(t, w)
	if _, err := replies.Poll(t.Context(), noon(), people(70)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{20, 50}, sizes(w.take())); diff != "" {
		t.Error(diff)
	}
}

func TestTipsSwitchedOff(t *testing.T) {
	off := func() (int, error) { return 0, ews.ErrTipsDisabled }
	for name, w := range map[string]*fakeWire{
		"as the configuration says": {limit: off},
		"as the answer says":        {tips: func([]string) ([]ews.Tip, error) { return nil, ews.ErrTipsDisabled }},
	} {
		_, replies, _ := sourcesOver(t, w)
		reports, err := replies.Poll(t.Context(), noon(), people(120))
		if s := replies.Status(); err != nil || len(reports) != 120 || s.Phase != presence.PhaseDegraded || !strings.Contains(s.Detail, "switched off") {
			t.Errorf("%s: %d reports, %v, %+v", name, len(reports), err, s)
		}
	}
}

func TestConfig(t *testing.T) {
	good := testConfig()
	good.PasswordFile = "password"
	if ps := good.Check(); ps != nil {
		t.Error(ps)
	}
	for path, spoil := range map[string]func(*Config){
		"name":            func(c *Config) { c.Name = "a/b" },
		"url":             func(c *Config) { c.URL = "http://mail.example.com/EWS/Exchange.asmx" },
		"user":            func(c *Config) { c.User = "" },
		"password_file":   func(c *Config) { c.PasswordFile = "" },
		"auth":            func(c *Config) { c.Auth = "kerberos" },
		"mailbox":         func(c *Config) { c.Mailbox = "" },
		"lanes":           func(c *Config) { c.Lanes = 9 },
		"interval":        func(c *Config) { c.Interval = time.Second },
		"horizon":         func(c *Config) { c.Horizon = 8 * 24 * time.Hour },
		"timeout":         func(c *Config) { c.Timeout = 0 },
		"tls.min_version": func(c *Config) { c.TLS.MinVersion = "2" },
	} {
		bad := good
		spoil(&bad)
		if ps := bad.Check(); len(ps) != 1 || ps[0].Path != path {
			t.Errorf("%s: %v", path, ps)
		}
	}
	local := good
	local.URL = "http://127.0.0.1:8080/EWS/Exchange.asmx"
	if ps := local.Check(); ps != nil {
		t.Error(ps)
	}
	if ps := (&Config{}).Check(); len(ps) < 8 {
		t.Errorf("not every problem is found: %v", ps)
	}
}
