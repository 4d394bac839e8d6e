package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/web/api"
	"presenced/bridges/web/signin"
)

// TestAccess sets rules through the command line; they show in a test of access and
// in the audit trail, and survive a kill.
func TestAccess(t *testing.T) {
	s := newSite(t, "")
	first := s.process()
	s.listening()
	run := func(want string, args ...string) string {
		t.Helper()
		code, out, errs := command(t, append(args, "--socket", s.socket())...)
		if code != exitOK || !strings.Contains(out, want) {
			t.Fatalf("%v: exit %d\n%s%s\nwant %q", args, code, out, errs, want)
		}
		return out
	}
	run("birch sees of alder: full, calendar open\n  because no rule is for this watcher", "access", "test", "birch", "alder")
	run("access set: done\n", "access", "set", "--everyone", "--default", "status")
	run("id:birch sees of alder: status", "access", "test", "birch", "alder")
	run("sees of alder: full, urgent, calendar open", "access", "set", "--of", "alder", "--watcher", "birch", "full", "--urgent")
	run("access privacy: done", "access", "privacy", "alder", "times")
	run("mail:omar.birch@example.com (birch) sees of alder: full, urgent, calendar times", "access", "test", "mail:Omar.Birch@example.com", "alder")
	run("not by default sees of everybody: status", "access", "test", "birch", "alder")
	run("jid:eve@x.org sees of alder: block", "access", "deny", "alder", "jid:eve@x.org")
	run("jid:mallory@x.org sees of alder: telephony", "access", "allow", "alder", "jid:mallory@x.org", "--level", "telephony")
	run("jid:mallory@x.org sees of alder: block", "access", "revoke", "alder", "jid:mallory@x.org")
	run("has no effect", "access", "opt-in", "alder")
	run("set to dnd", "set", "alder", "dnd", "--until", "2h")
	if err := first.Process.Kill(); err != nil { // right after the acknowledgement
		t.Fatal(err)
	}
	_ = first.Wait()

	second := s.process()
	defer func() {
		_ = second.Process.Signal(syscall.SIGTERM)
		if err := second.Wait(); err != nil {
			t.Errorf("the service did not stop orderly: %v", err)
		}
	}()
	s.listening()
	run("id:birch sees of alder: full, urgent, calendar times", "access", "test", "birch", "alder")
	run("id:ivy sees of alder: status", "access", "test", "ivy", "alder")
	list := run("", "access", "list")
	for _, want := range []string{"everybody  default", "alder      watcher id:birch", "calendar times", "opted in", fmt.Sprintf("uid %d", os.Getuid())} {
		if !strings.Contains(list, want) {
			t.Errorf("missing %q in\n%s", want, list)
		}
	}
	if one := run("watcher id:birch", "access", "list", "--of", "alder"); strings.Contains(one, "everybody  default") {
		t.Errorf("of alder only:\n%s", one)
	}
	run("WATCHER", "access", "watchers", "alder")
	run("PERSON", "access", "pending")
	run("access clear: done", "access", "clear", "--everyone", "--default")
	run("access forget: done", "access", "forget", "--of", "alder")
	run("id:birch sees of alder: full, calendar open", "access", "test", "birch", "alder")

	var lines []audit.Line
	if err := json.Unmarshal([]byte(run("", "audit", "--format", "json")), &lines); err != nil {
		t.Fatal(err)
	}
	var what []string
	for _, l := range lines {
		if l.Who != fmt.Sprintf("uid %d", os.Getuid()) || l.From != "control socket" || time.Since(l.At) > time.Hour {
			t.Errorf("%+v", l)
		}
		what = append(what, strings.TrimPrefix(l.What, "access ")+" "+l.Whom+": "+l.Detail)
	}
	until := lines[7].Detail
	want := []string{
		"set everybody: default: none -> status", "set alder: watcher id:birch: none -> full, urgent", "privacy alder: calendar: open (default) -> times",
		"deny alder: watcher jid:eve@x.org: none -> block", "allow alder: watcher jid:mallory@x.org: none -> telephony",
		"revoke alder: watcher jid:mallory@x.org: telephony -> block", "opt-in alder: opted out -> in", "presence set alder: " + until,
		"clear everybody: default: status -> none", "forget alder: 3 rules -> none",
	}
	if got := strings.Join(what, "\n"); got != strings.Join(want, "\n") || !strings.HasPrefix(until, "dnd until 20") {
		t.Errorf("- wanted, + written\n%s", lineDiff(strings.Join(want, "\n"), got))
	}
	if out := run("access clear", "audit", "--since", "1h"); strings.Count(out, "\n") != len(want) {
		t.Errorf("as text:\n%s", out)
	}
	rows, err := csv.NewReader(strings.NewReader(run("", "audit", "--person", "alder", "--format", "csv"))).ReadAll()
	if err != nil || len(rows) != 1+8 || rows[8][5] != "3 rules -> none" || rows[7][5] != until {
		t.Errorf("%v\n%v", rows, err)
	}
	if out := run("", "audit", "--since", "0s"); out != "" {
		t.Errorf("since now:\n%s", out)
	}
	for _, c := range []struct{ about, want string }{
		{"access set --of nobody --default full", `"nobody"`},
		{"access set --of= --default full", "--of names nobody"},
		{"access clear --of alder --group=", "want a name"},
		{"access set --of alder --domain a@b full", "cannot be taken as a domain"},
		{"access test nobody nobody", `"nobody"`},
		{"access test jid: alder", "cannot be taken as a watcher"},
		{"access allow nobody birch", `"nobody"`},
		{"access watchers nobody", `"nobody"`},
	} {
		code, out, errs := command(t, append(strings.Fields(c.about), "--socket", s.socket())...)
		if code != exitFailed || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d\n%s%s", c.about, code, out, errs)
		}
	}
	if code, out, _ := command(t, "status", "--url", s.url); code != exitOK || !strings.Contains(out, "0 rules, 0 requests wait") {
		t.Errorf("status: exit %d\n%s", code, out)
	}
}

// TestAccessDesk sends requests that are wrong, decides who waits, and refuses what
// neither store nor trail takes.
func TestAccessDesk(t *testing.T) {
	people, _ := directory.New([]presence.Person{{ID: "ann/lee", Name: "Ann Lee"}})
	hub := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet())
	hub.SetDirectory(people, time.Now())
	kept, lines := &refusing{}, &shelf{}
	trail := audit.New(lines, quiet())
	manual := aggregator.NewManual(hub, &refusing{}, quiet())
	if _, err := manual.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	gate := access.New(access.Config{Default: "confirm", Calendar: "open", OptIn: false}, hub, kept, trail, hub.Again, quiet())
	c := newControl(filepath.Join(t.TempDir(), "control.sock"), api.New(api.Deps{
		People: hub, Sight: everything{}, Manual: &byHand{manual, hub, trail}, Access: gate, OptIn: true, Audit: trail, Log: quiet(),
	}), quiet())
	runUntilEnd(t, c, hub)
	check := func(method, path, body string, code int, want string) {
		t.Helper()
		got, answer, err := ask(c.socket, method, path, body)
		if err != nil || got != code || !strings.Contains(answer, want) || !json.Valid([]byte(answer)) {
			t.Errorf("%s %s %.60s: %d %s %v, want %d %s", method, path, body, got, answer, err, code, want)
		}
	}
	const set = `{"of":"ann/lee","for":{"kind":"default"},"level":"full"}`
	check("GET", "/api/access", "", 503, "cannot be read from the store yet")
	check("POST", "/api/access/set", set, 503, "cannot be read from the store yet")
	if err := gate.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	gate.Admit(presence.Watcher{Subject: presence.Subject{Scheme: "jid", Value: "eve@x.org"}, Via: "xmpp"}, "ann/lee")
	check("GET", "/api/access/pending", "", 200, `"watcher":{"scheme":"jid","value":"eve@x.org"},"via":"xmpp"`)
	check("GET", "/api/access/pending?of=ann/lee", "", 200, `"of":"ann/lee"`)
	check("GET", "/api/people/ann%2Flee/watchers", "", 200, `"level":"confirm"`)
	var seen atomic.Int32 // states of ann that a bridge has seen
	watching := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(watching)
		for range hub.Watch(ctx) {
			seen.Add(1)
		}
	}()
	defer func() { cancel(); <-watching }()
	eventually(t, "the bridge watches", func() bool { return seen.Load() == 1 })
	check("POST", "/api/access/allow", `{"of":"ann/lee","watcher":"jid:eve@x.org","level":"status"}`, 200, `"level":"status"`)
	eventually(t, "the bridge is to ask again", func() bool { return seen.Load() == 2 })
	check("GET", "/api/access/pending", "", 200, "[]")
	check("GET", "/api/people/ann%2Flee/watchers", "", 200, `"level":"status"`)
	for _, bad := range []struct {
		path, body string
		code       int
		want       string
	}{
		{"/api/access/set", "", 400, "body is required"},
		{"/api/access/set", `{"of":"ann/lee","leve":"full"}`, 422, "unexpected property"},
		{"/api/access/set", `{"of":"ann/lee","for":{"kind":"default"},"level":"all"}`, 422, "body.level"},
		{"/api/access/set", `{"of":"` + strings.Repeat("x", 4<<10) + `"}`, 413, "too large"},
		{"/api/access/open", `{}`, 404, "no such address"},
		{"/api/access/set", strings.Replace(set, "ann/lee", "bob", 1), 404, "nobody in the directory"},
	} {
		check("POST", bad.path, bad.body, bad.code, bad.want)
	}
	check("GET", "/api/audit?since=2020-01-01T00:00:00Z&whom=ann/lee", "", 200, `"detail":"watcher jid:eve@x.org: none -> status"`)

	check("PUT", "/api/people/ann%2Flee/presence", `{"state":"dnd","until":"2020-01-01T00:00:00Z"}`, 422, "has passed")
	check("GET", "/api/audit?since=2020-01-01T00:00:00Z", "", 200, `"detail":"failed: an end that has passed`)
	check("PUT", "/api/people/bob/presence", `{"state":"dnd"}`, 404, "nobody in the directory")
	kept.full.Store(true)
	check("POST", "/api/access/set", set, 503, "disk full")
	kept.full.Store(false)
	lines.fail(errors.New("trail full"))
	check("POST", "/api/access/set", set, 503, "trail full")
	check("PUT", "/api/people/ann%2Flee/presence", `{"state":"dnd"}`, 503, "trail full")
	check("DELETE", "/api/people/ann%2Flee/presence", "", 503, "trail full")
	check("GET", "/api/audit?since=2020-01-01T00:00:00Z", "", 503, "trail full")
	if got := gate.Access(presence.Watcher{Subject: presence.Subject{Scheme: "jid", Value: "bob@x.org"}}, "ann/lee"); got.Shows() {
		t.Errorf("refused, and yet %+v", got)
	}
	if s, _ := hub.State("ann/lee"); s.Availability != presence.Unknown {
		t.Errorf("refused, and yet %s", s.Availability)
	}
}

// everything is the api.Sight of who sees all there is.
type everything struct{ api.Sight }

func (everything) Access(signin.Identity, presence.ID) presence.Access { return presence.Everyone() }

func (everything) View(s presence.State, a presence.Access) presence.State {
	return presence.View(s, a)
}

// runUntilEnd runs the socket until the test ends.
func runUntilEnd(t *testing.T, c *control, hub *aggregator.Hub) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, hub) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	eventually(t, "the socket is there", func() bool { return c.Status().Phase == presence.PhaseLive })
}

// shelf is a log in memory that can be told to fail.
type shelf struct {
	mu     sync.Mutex
	values [][]byte
	full   error
}

func (s *shelf) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = err
}

// Append implements audit.Log.
func (s *shelf) Append(_ context.Context, _ string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full == nil {
		s.values = append(s.values, value)
	}
	return s.full
}

// Read implements audit.Log.
func (s *shelf) Read(context.Context, string) iter.Seq2[[]byte, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full != nil {
		return func(yield func([]byte, error) bool) { yield(nil, s.full) }
	}
	return func(yield func([]byte, error) bool) {
		for _, v := range slices.Clone(s.values) {
			if !yield(v, nil) {
				return
			}
		}
	}
}
