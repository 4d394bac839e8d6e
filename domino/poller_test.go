package domino

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
	"presenced/internal/secret"
)

// A web answers as the web servers of Domino do. Its keys are URLs up to the mail
// file or the person: http://mail1/mail/ann.nsf.
type web struct {
	mu       sync.Mutex
	answers  map[string]reply
	fallback reply
	asked    []string // the keys, in order
	password string   // the right one; empty: any
	before   func(key string)
	now, top int // requests under way
}

type reply struct {
	status int
	kind   string
	body   string
	rng    string // of the first page; then empty pages follow
	err    error
}

const jsonType = "application/json"

var (
	nothing   = reply{status: 200}
	loginForm = reply{status: 200, kind: "text/html", body: "<html><form>"}
	forbidden = reply{status: 403, kind: jsonType, body: `{"code":403,"text":"Forbidden"}`}
)

// meetingAt answers with a meeting that has a text nobody may see.
func meetingAt(from, to, class string) reply {
	return reply{status: 200, kind: jsonType, rng: "items 0-0", body: fmt.Sprintf(
		`{"events":[{"href":"\/x","id":"1","summary":"Secret talk","location":"Secret place","start":{"date":"2026-11-20","time":"%s:00","utc":true},
		"end":{"date":"2026-11-20","time":"%s:00","utc":true},"class":"%s","x-lotus-appttype":{"data":"3"}}]}`, from, to, class)}
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	key, _, _ := strings.Cut(r.URL.Scheme+"://"+r.URL.Host+r.URL.EscapedPath(), "/api/calendar")
	w.mu.Lock()
	w.asked = append(w.asked, key)
	w.now++
	w.top = max(w.top, w.now)
	before := w.before
	w.mu.Unlock()
	if before != nil {
		before(key)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now--
	if r.Context().Err() != nil {
		return nil, r.Context().Err()
	}
	a, ok := w.answers[key]
	if !ok {
		a = w.fallback
	}
	if _, password, _ := r.BasicAuth(); w.password != "" && password != w.password {
		a = reply{status: 401}
	}
	if a.err != nil {
		return nil, a.err
	}
	header := http.Header{}
	if a.rng != "" && r.URL.Query().Get("start") != "0" {
		a = nothing
	}
	if a.kind != "" {
		header.Set("Content-Type", a.kind)
	}
	if a.rng != "" {
		header.Set("Content-Range", a.rng)
	}
	return &http.Response{StatusCode: a.status, Header: header, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

// requests gives how many there were since the last call.
func (w *web) requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.asked)
	w.asked = nil
	return n
}

func (w *web) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// collect makes the sources over w, with two servers and a helper. The log is
// what they wrote.
func collect(t *testing.T, w *web, change ...func(*Config)) (*Calendar, *OutOfOffice, *bytes.Buffer) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Servers = []Server{{"CN=Mail1/O=Acme", "http://mail1"}, {"Mail2/Acme", "http://mail2"}}
	c.User, c.PasswordFile = "presence", secret.File(file)
	c.OutOfOffice = OutOfOfficeConfig{DriverHelper, "http://helper/ooo/{mail}"}
	for _, f := range change {
		f(&c)
	}
	if ps := c.Check(); len(ps) > 0 {
		t.Fatal(ps)
	}
	var log bytes.Buffer
	calendar, replies, err := NewWithTransport(c, slog.New(slog.NewTextHandler(&log, nil)), w)
	if err != nil {
		t.Fatal(err)
	}
	return calendar, replies, &log
}

func mailfile(server, name string) presence.Subject {
	return presence.Subject{Scheme: "notes", Value: server + "!!mail/" + name + ".nsf"}
}

var (
	noon = at("2026-11-20 12:00")
	ann  = mailfile("Mail1/Acme", "ann")
	bob  = mailfile("Mail1/Acme", "bob")
	cat  = mailfile("Mail1/Acme", "cat")
	dan  = mailfile("Mail2/Acme", "dan")
)

func many(n int) []presence.Subject {
	var all []presence.Subject
	for i := range n {
		all = append(all, mailfile("Mail1/Acme", fmt.Sprintf("u%04d", i)))
	}
	return all
}

// said gives the reports as "mailfile: facts".
func said(reports []presence.Report) []string {
	out := []string{}
	for _, r := range reports {
		_, name, _ := strings.Cut(r.Subject.Value, "!!")
		if name == "" {
			name = r.Subject.Value
		}
		var facts []string
		for _, s := range r.Spans {
			facts = append(facts, s.Fact.String())
		}
		out = append(out, strings.TrimSuffix(strings.TrimPrefix(name, "mail/"), ".nsf")+": "+strings.Join(facts, " "))
	}
	return out
}

func TestPoll(t *testing.T) {
	w := &web{answers: map[string]reply{
		"http://mail1/mail/ann.nsf": meetingAt("12:00", "13:00", "public"),
		"http://mail1/mail/bob.nsf": meetingAt("11:30", "11:45", "private"),
	}, fallback: nothing}
	c, _, log := collect(t, w)
	reports, err := c.Poll(t.Context(), noon, []presence.Subject{ann, bob, dan})
	if err != nil {
		t.Fatal(err)
	}
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC) }
	report := func(s presence.Subject, spans ...presence.Span) presence.Report {
		return presence.Report{
			Source: "domino/calendar", Subject: s, At: noon, Doubted: noon.Add(22*time.Minute + 30*time.Second), Expires: noon.Add(24 * time.Hour), Grace: 24 * time.Hour, Spans: spans,
		}
	}
	free := presence.CalendarFree
	want := []presence.Report{
		report(ann, presence.Span{Fact: free, From: at(20, 0, 0), Until: at(20, 12, 0)}, presence.Span{Fact: presence.CalendarMeeting, From: at(20, 12, 0), Until: at(20, 13, 0)},
			presence.Span{Fact: free, From: at(20, 13, 0), Until: at(22, 0, 0)}),
		report(bob, presence.Span{Fact: free, From: at(20, 0, 0), Until: at(20, 11, 30)}, presence.Span{Fact: presence.CalendarMeeting, From: at(20, 11, 30), Until: at(20, 11, 45), Private: true},
			presence.Span{Fact: free, From: at(20, 11, 45), Until: at(22, 0, 0)}),
		report(dan, presence.Span{Fact: free, From: at(20, 0, 0), Until: at(22, 0, 0)}),
	}
	if diff := cmp.Diff(want, reports); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(reports)
	if err != nil || strings.Contains(string(text), "Secret") || strings.Contains(log.String(), "Secret") {
		t.Errorf("a text got out: %s %s", text, log)
	}
	for _, r := range reports {
		if err := r.Check(); err != nil {
			t.Error(err)
		}
	}
	// An unchanged calendar is an unchanged report, but for its life.
	again, err := c.Poll(t.Context(), noon.Add(11*time.Minute), []presence.Subject{ann, bob, dan})
	if err != nil {
		t.Fatal(err)
	}
	for i := range again {
		if diff := cmp.Diff(reports[i].Spans, again[i].Spans); diff != "" {
			t.Error(diff)
		}
	}
}

func TestPollICalendar(t *testing.T) {
	w := &web{answers: map[string]reply{"http://mail1/mail/ann.nsf": {status: 200, kind: "text/calendar", rng: "items 0-0", body: "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:Secret\r\n" +
		"DTSTART:20261120T120000Z\r\nDTEND:20261120T130000Z\r\nX-LOTUS-APPTTYPE:3\r\nEND:VEVENT\r\nBEGIN:VEVENT\r\nDTSTART;TZID=x\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"}}, fallback: nothing}
	c, _, _ := collect(t, w, func(c *Config) { c.Format = FormatICalendar })
	reports, err := c.Poll(t.Context(), noon, []presence.Subject{ann, bob})
	if diff := cmp.Diff([]string{"ann: calendar-meeting", "bob: calendar-free"}, said(reports)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if n := c.Status().Problems["entries malformed"]; n != 1 {
		t.Errorf("%d problems", n)
	}
}

// A wrong password must not lock the account: not once for each mail file.
func TestWrongPassword(t *testing.T) {
	for name, answer := range map[string]reply{"401": {status: 401}, "login form": loginForm} {
		t.Run(name, func(t *testing.T) {
			w := &web{fallback: answer}
			c, _, _ := collect(t, w)
			all := many(1000)
			now := noon
			for _, wait := range []time.Duration{5, 10, 20, 40, 60, 60} {
				reports, err := c.Poll(t.Context(), now, all)
				if !presence.IsPermanent(err) || !strings.Contains(err.Error(), "Mail1/O=Acme") || !strings.Contains(err.Error(), "password_file") {
					t.Fatalf("error %v", err)
				}
				if len(reports) > 0 {
					t.Errorf("%d reports: what was said does not stand", len(reports))
				}
				if n := w.requests(); n < 1 || n > 2 {
					t.Errorf("%d requests", n)
				}
				now = now.Add(wait*time.Minute - time.Second)
				if _, err := c.Poll(t.Context(), now, all); !presence.IsPermanent(err) {
					t.Errorf("error %v", err)
				}
				if n := w.requests(); n > 0 {
					t.Errorf("%d requests before %d minutes are over", n, wait)
				}
				now = now.Add(time.Second)
			}
			w.set(func() { w.fallback = nothing })
			if reports, err := c.Poll(t.Context(), now, all); err != nil || len(reports) != 1000 {
				t.Errorf("%d reports, %v", len(reports), err)
			}
		})
	}
}

func TestNewPassword(t *testing.T) {
	w := &web{fallback: nothing, password: "neu"}
	c, _, _ := collect(t, w)
	if _, err := c.Poll(t.Context(), noon, []presence.Subject{ann, bob}); !presence.IsPermanent(err) {
		t.Fatalf("error %v", err)
	}
	if err := os.WriteFile(string(c.passwordFile), []byte("neu"), 0o600); err != nil {
		t.Fatal(err)
	}
	if reports, err := c.Poll(t.Context(), noon, []presence.Subject{ann, bob}); err != nil || len(reports) != 2 {
		t.Errorf("%d reports, %v", len(reports), err)
	}
	if err := os.Remove(string(c.passwordFile)); err != nil {
		t.Fatal(err)
	}
	w.requests()
	if _, err := c.Poll(t.Context(), noon, []presence.Subject{ann}); !presence.IsPermanent(err) || w.requests() > 0 {
		t.Errorf("without a password: %v", err)
	}
}

// The password is changed at the server while a thousand calendars are read.
func TestPasswordEndsWithin(t *testing.T) {
	w := &web{fallback: nothing}
	var n atomic.Int32
	w.before = func(string) {
		if n.Add(1) == 100 {
			w.set(func() { w.password = "other" })
		}
	}
	c, _, _ := collect(t, w)
	reports, err := c.Poll(t.Context(), noon, many(1000))
	if !presence.IsPermanent(err) {
		t.Errorf("error %v", err)
	}
	if asked := w.requests(); asked > 100+2*concurrency {
		t.Errorf("%d requests, the password was good for about 100", asked)
	}
	for _, r := range reports {
		if len(r.Spans) == 0 {
			t.Errorf("%s is said to be unknown", r.Subject)
		}
	}
}

// Some mail files may not be read: nobody else is touched.
func TestNoAccess(t *testing.T) {
	for name, answer := range map[string]reply{"401": {status: 401}, "403": forbidden, "404": {status: 404, kind: jsonType, body: `{"code":404,"message":"No database context."}`}} {
		for _, denied := range []string{"ann", "bob", "cat"} { // it may come first, or late
			t.Run(name+" "+denied, func(t *testing.T) {
				key := "http://mail1/mail/" + denied + ".nsf"
				w := &web{answers: map[string]reply{key: answer}, fallback: nothing}
				c, _, _ := collect(t, w)
				poll := func(after time.Duration) {
					t.Helper()
					reports, err := c.Poll(t.Context(), noon.Add(after), []presence.Subject{ann, bob, cat})
					if err != nil {
						t.Fatal(err)
					}
					want := []string{"ann: calendar-free", "bob: calendar-free", "cat: calendar-free"}
					for i := range want {
						if strings.HasPrefix(want[i], denied) {
							want[i] = denied + ": "
						}
					}
					if diff := cmp.Diff(want, said(reports)); diff != "" {
						t.Error(diff)
					}
				}
				poll(0)
				if s := c.Status(); len(s.Unmonitored) != 1 || s.Unmonitored["notes:Mail1/Acme!!mail/"+denied+".nsf"] == "" || len(s.Problems) != 1 {
					t.Errorf("status %+v", s)
				}
				w.requests()
				poll(10 * time.Minute)
				if n := w.requests(); n != 2 {
					t.Errorf("%d requests: the one denied is asked about again", n)
				}
				poll(time.Hour)
				w.set(func() { delete(w.answers, key) })
				reports, err := c.Poll(t.Context(), noon.Add(2*time.Hour), []presence.Subject{ann, bob, cat})
				if diff := cmp.Diff([]string{"ann: calendar-free", "bob: calendar-free", "cat: calendar-free"}, said(reports)); diff != "" || err != nil {
					t.Error(diff, err)
				}
				if s := c.Status(); len(s.Unmonitored) != 0 {
					t.Errorf("status %+v", s)
				}
			})
		}
	}
}

// Two mail files that may not be read, asked about first, look like a wrong
// password. The next try begins with others.
func TestUnluckyStart(t *testing.T) {
	w := &web{answers: map[string]reply{"http://mail1/mail/ann.nsf": {status: 401}, "http://mail1/mail/bob.nsf": {status: 401}}, fallback: nothing}
	c, _, _ := collect(t, w)
	all := []presence.Subject{ann, bob, cat}
	if _, err := c.Poll(t.Context(), noon, all); !presence.IsPermanent(err) {
		t.Errorf("error %v", err)
	}
	reports, err := c.Poll(t.Context(), noon.Add(firstWait), all)
	if diff := cmp.Diff([]string{"ann: ", "bob: ", "cat: calendar-free"}, said(reports)); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestServiceNotEnabled(t *testing.T) {
	w := &web{fallback: forbidden}
	c, _, _ := collect(t, w)
	all := many(20)
	if _, err := c.Poll(t.Context(), noon, all); !presence.IsPermanent(err) || !strings.Contains(err.Error(), "Domino Access Services") {
		t.Fatalf("error %v", err)
	}
	if n := w.requests(); n != 20 {
		t.Errorf("%d requests", n)
	}
	if _, err := c.Poll(t.Context(), noon.Add(59*time.Minute), all); !presence.IsPermanent(err) || w.requests() != 0 {
		t.Errorf("error %v", err)
	}
	if _, err := c.Poll(t.Context(), noon.Add(time.Hour), all); !presence.IsPermanent(err) || w.requests() != 1 {
		t.Errorf("error %v", err)
	}
	w.set(func() { w.fallback = nothing })
	if reports, err := c.Poll(t.Context(), noon.Add(2*time.Hour), all); err != nil || len(reports) != 20 || len(reports[0].Spans) == 0 {
		t.Errorf("%d reports, %v", len(reports), err)
	}
}

// One new subject that is refused does not close a server that answers others.
func TestOneNewIsRefused(t *testing.T) {
	for _, status := range []int{401, 403} {
		w := &web{answers: map[string]reply{"http://mail1/mail/bob.nsf": {status: status}}, fallback: nothing}
		c, _, _ := collect(t, w)
		if _, err := c.Poll(t.Context(), noon, []presence.Subject{ann}); err != nil {
			t.Fatal(err)
		}
		reports, err := c.Poll(t.Context(), noon, []presence.Subject{bob})
		if diff := cmp.Diff([]string{"bob: "}, said(reports)); diff != "" || err != nil {
			t.Error(status, diff, err)
		}
	}
}

func TestNotOurs(t *testing.T) {
	w := &web{fallback: nothing}
	c, _, _ := collect(t, w)
	reports, err := c.Poll(t.Context(), noon, []presence.Subject{
		mailfile("Mail9/Acme", "eve"), {Scheme: "notes", Value: `Mail1/Acme!!..\names.nsf`}, {Scheme: "notes", Value: "nonsense"}, {Scheme: "notes", Value: `CN=MAIL1/O=ACME!!mail\ann`},
	})
	if err != nil || len(reports) != 4 || len(reports[2].Spans) != 0 || len(reports[3].Spans) != 1 {
		t.Errorf("%v, %v", said(reports), err)
	}
	if diff := cmp.Diff([]string{"http://mail1/mail/ann.nsf"}, w.asked); diff != "" {
		t.Error(diff)
	}
	if s := c.Status(); len(s.Unmonitored) != 3 || s.Problems["mail files without a server"] != 3 {
		t.Errorf("status %+v", s)
	}
}

// What cannot be read completely is no report: what was said before stands.
func TestIncomplete(t *testing.T) {
	lost := meetingAt("12:00", "13:00", "public")
	lost.rng = "items 7-9"
	w := &web{answers: map[string]reply{
		"http://mail1/mail/ann.nsf": lost,
		"http://mail1/mail/bob.nsf": {status: 500},
		"http://mail1/mail/cat.nsf": {status: 200, kind: jsonType, body: `{"events":[`},
	}, fallback: nothing}
	c, _, _ := collect(t, w)
	reports, err := c.Poll(t.Context(), noon, append([]presence.Subject{ann, bob, cat}, many(2)...))
	if diff := cmp.Diff([]string{"u0000: calendar-free", "u0001: calendar-free"}, said(reports)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if diff := cmp.Diff(map[string]int{"answers incomplete": 1, "requests failed": 1, "answers malformed": 1}, c.Status().Problems); diff != "" {
		t.Error(diff)
	}
	if _, err := c.Poll(t.Context(), noon, []presence.Subject{ann}); err == nil {
		t.Error("nothing could be read, and that is no error")
	}
}

func TestServerDown(t *testing.T) {
	w := &web{fallback: reply{err: errors.New("connection refused")}, answers: map[string]reply{"http://mail2/mail/dan.nsf": nothing}}
	c, _, _ := collect(t, w)
	reports, err := c.Poll(t.Context(), noon, append(many(1000), dan))
	if err == nil || presence.IsPermanent(err) || !strings.Contains(err.Error(), "Mail1/O=Acme") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]string{"dan: calendar-free"}, said(reports)); diff != "" {
		t.Error(diff)
	}
	if n := w.requests(); n != patience+1 {
		t.Errorf("%d requests to a server that is down", n)
	}
}

func TestConcurrency(t *testing.T) {
	w := &web{fallback: nothing, before: func(string) { time.Sleep(time.Millisecond) }}
	synctest.Test(t, func(t *testing.T) { // where sleeping costs nothing
		c, _, _ := collect(t, w)
		if reports, err := c.Poll(t.Context(), noon, many(100)); err != nil || len(reports) != 100 {
			t.Errorf("%d reports, %v", len(reports), err)
		}
		if w.top != concurrency {
			t.Errorf("%d requests at once", w.top)
		}
	})
}

func TestOutOfOffice(t *testing.T) {
	w := &web{answers: map[string]reply{
		"http://helper/ooo/ann%40example.com": {status: 200, kind: jsonType, body: `{"enabled":true,"subject":"Secret","message":"Secret","start":"2026-11-20T00:00:00Z","end":"2026-11-27T00:00:00Z"}`},
		"http://helper/ooo/bob%40example.com": {status: 200, kind: jsonType, body: `{"enabled":true,"start":"2026-11-10T00:00:00Z","end":"2026-11-12T00:00:00Z"}`},
		"http://helper/ooo/cat%40example.com": {status: 404},
		"http://helper/ooo/dan%40example.com": {status: 500},
	}, fallback: reply{status: 200, kind: jsonType, body: `{"enabled":false}`}}
	_, o, _ := collect(t, w)
	var all []presence.Subject
	for _, name := range []string{"ann", "bob", "cat", "dan", "eve"} {
		all = append(all, presence.Subject{Scheme: "mail", Value: name + "@example.com"})
	}
	reports, err := o.Poll(t.Context(), noon, all)
	if diff := cmp.Diff([]string{"ann@example.com: auto-reply", "bob@example.com: ", "cat@example.com: ", "eve@example.com: "}, said(reports)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if o.Name() != "domino/ooo" || reports[0].Source != "domino/ooo" {
		t.Errorf("name %s", o.Name())
	}
	w.set(func() { w.answers, w.fallback = nil, loginForm })
	w.requests()
	if _, err := o.Poll(t.Context(), noon, all); !presence.IsPermanent(err) || w.requests() != 1 {
		t.Errorf("error %v", err)
	}
	for _, status := range []int{501, 400} {
		_, o, _ = collect(t, &web{fallback: reply{status: status}})
		if reports, err := o.Poll(t.Context(), noon, all); err == nil || len(reports) > 0 || presence.IsPermanent(err) {
			t.Errorf("%d: %d reports, %v", status, len(reports), err)
		}
	}
	if _, o, err := NewWithTransport(valid(), slog.New(slog.DiscardHandler), w); o != nil || err != nil {
		t.Errorf("without a driver: %v, %v", o, err)
	}
}

// A roster gives what is sent to it.
type roster chan []presence.Subject

func (r roster) Subjects(ctx context.Context, _ string) iter.Seq[[]presence.Subject] {
	return func(yield func([]presence.Subject) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case all := <-r:
				if !yield(all) {
					return
				}
			}
		}
	}
}

// running runs a source within a bubble and gives what it emits.
type running struct {
	roster roster
	mu     sync.Mutex
	got    []presence.Report
	refuse error
	cancel context.CancelFunc
	done   chan error
}

func run(t *testing.T, c *Calendar) *running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{roster: make(roster), cancel: cancel, done: make(chan error, 1)}
	go func() {
		r.done <- c.Run(ctx, r.roster, func(report presence.Report) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got = append(r.got, report)
			return r.refuse
		})
	}()
	return r
}

// reported gives what came since the last call, once nothing moves any more.
func (r *running) reported() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return said(got)
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{fallback: nothing}
		c, _, _ := collect(t, w)
		r := run(t, c)
		if got := r.reported(); len(got) != 0 || c.Status().Phase != presence.PhaseConnecting {
			t.Errorf("%v, %+v", got, c.Status())
		}
		r.roster <- []presence.Subject{ann}
		if diff := cmp.Diff([]string{"ann: calendar-free"}, r.reported()); diff != "" {
			t.Error(diff)
		}
		if s := c.Status(); s.Phase != presence.PhaseLive || s.Detail != "covers 1 mail files" {
			t.Errorf("status %+v", s)
		}
		time.Sleep(time.Minute)
		r.roster <- []presence.Subject{ann, bob} // the new one at once, and alone
		if diff := cmp.Diff([]string{"bob: calendar-free"}, r.reported()); diff != "" {
			t.Error(diff)
		}
		r.roster <- []presence.Subject{bob}
		if got := r.reported(); len(got) != 0 {
			t.Error(got)
		}
		time.Sleep(7 * time.Minute)
		if got := r.reported(); len(got) != 0 {
			t.Error(got)
		}
		time.Sleep(3 * time.Minute)
		if diff := cmp.Diff([]string{"bob: calendar-free"}, r.reported()); diff != "" {
			t.Error(diff)
		}
		r.cancel()
		if err := <-r.done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// PollNow asks about everybody, also about those who were refused a moment ago.
func TestPollNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := "http://mail1/mail/bob.nsf"
		w := &web{answers: map[string]reply{key: forbidden}, fallback: nothing}
		c, _, _ := collect(t, w)
		r := run(t, c)
		r.roster <- []presence.Subject{ann, bob}
		if diff := cmp.Diff([]string{"ann: calendar-free", "bob: "}, r.reported()); diff != "" {
			t.Error(diff)
		}
		w.set(func() { delete(w.answers, key) })
		time.Sleep(time.Minute)
		c.PollNow()
		if diff := cmp.Diff([]string{"ann: calendar-free", "bob: calendar-free"}, r.reported()); diff != "" {
			t.Error(diff)
		}
		if s := c.Status(); s.Phase != presence.PhaseLive || len(s.Unmonitored) != 0 {
			t.Errorf("status %+v", s)
		}
		r.cancel()
		if err := <-r.done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

func TestRunEnds(t *testing.T) {
	t.Run("wrong password", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _, _ := collect(t, &web{password: "other"})
			r := run(t, c)
			r.roster <- []presence.Subject{ann, bob, dan}
			if err := <-r.done; !presence.IsPermanent(err) {
				t.Errorf("error %v", err)
			}
			if s := c.Status(); s.Phase != presence.PhaseDegraded || s.LastError == "" {
				t.Errorf("status %+v", s)
			}
		})
	})
	t.Run("not for one server of two", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &web{fallback: nothing, answers: map[string]reply{"http://mail2/mail/dan.nsf": loginForm}}
			c, _, _ := collect(t, w)
			r := run(t, c)
			r.roster <- []presence.Subject{ann, dan}
			if diff := cmp.Diff([]string{"ann: calendar-free"}, r.reported()); diff != "" {
				t.Error(diff)
			}
			if s := c.Status(); s.Phase != presence.PhaseDegraded || !strings.Contains(s.Detail, "Mail2/Acme") {
				t.Errorf("status %+v", s)
			}
			w.set(func() { w.answers = nil })
			time.Sleep(12 * time.Minute)
			if got := r.reported(); len(got) != 2 || c.Status().Phase != presence.PhaseLive {
				t.Errorf("%v, %+v", got, c.Status())
			}
			r.cancel()
			if err := <-r.done; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("emit fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _, _ := collect(t, &web{fallback: nothing})
			r := run(t, c)
			r.refuse = errors.New("stop")
			r.roster <- many(50)
			if err := <-r.done; !errors.Is(err, r.refuse) {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("cancelled amid a poll", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _, _ := collect(t, &web{fallback: nothing, before: func(string) { time.Sleep(time.Second) }})
			r := run(t, c)
			r.roster <- many(50)
			time.Sleep(5 * time.Second)
			r.cancel()
			if err := <-r.done; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if s := c.Status(); s.LastError != "" {
				t.Errorf("status %+v", s)
			}
		})
	})
}

// New builds a transport that works with a real server.
func TestNew(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "geheim" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("geheim"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := valid()
	cfg.Servers[0].URL, cfg.PasswordFile = s.URL, secret.File(file)
	c, _, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	reports, err := c.Poll(t.Context(), noon, []presence.Subject{ann, bob})
	c.connection.CloseIdleConnections()
	if diff := cmp.Diff([]string{"ann: calendar-free", "bob: calendar-free"}, said(reports)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	cfg.TLS.CAFile = filepath.Join(t.TempDir(), "none")
	if _, _, err := New(cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a CA file that is not there is no error")
	}
}
