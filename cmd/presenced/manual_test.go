package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/web/api"
)

// process runs the service as a process of its own.
func (s *site) process() *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(os.Args[0], "serve", "-c", s.file) //nolint:gosec // this very test
	cmd.Env = append(os.Environ(), "PRESENCED_TEST_MAIN=1")
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd
}

func (s *site) socket() string { return filepath.Join(s.dir, "control.sock") }

// listening waits for the control socket and the page: what was restored counts by then.
func (s *site) listening() {
	s.t.Helper()
	eventually(s.t, "the service listens", func() bool {
		conn, err := net.Dial("unix", s.socket())
		if err != nil {
			return false
		}
		_ = conn.Close()
		return s.get("/api/people") != nil
	})
}

// TestManual sets presence by hand through the command line; it survives a stop and a kill.
func TestManual(t *testing.T) {
	s := newSite(t, "")
	first := s.process()
	s.await("alder", "available/")
	s.listening()
	set := func(want string, args ...string) {
		t.Helper()
		code, out, errs := command(t, append(args, "--socket", s.socket())...)
		if code != 0 || !strings.HasPrefix(out, want) {
			t.Fatalf("%v: exit %d\n%s%s\nwant %q", args, code, out, errs, want)
		}
	}
	set("alder is set to dnd until ", "set", "alder", "dnd", "--until", "2h")
	if got, _ := s.state("alder"); got != "dnd/" { // at once: it is acknowledged
		t.Errorf("alder is %s", got)
	}
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("the service did not stop orderly: %v", err)
	}
	if _, err := os.Lstat(s.socket()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}

	second := s.process()
	s.listening()
	got, state := s.state("alder")
	if got != "dnd/" || time.Until(state.Until) < time.Hour {
		t.Errorf("after a restart: %s %+v", got, state)
	}
	eventually(t, "nothing is doubted when the sources are back", func() bool { // what is set by hand has none that could come back
		_, state := s.state("alder")
		return !state.Overlays.Has(presence.OverlayStale)
	})
	set("birch is set to away until it is cleared\n", "set", "birch", "away")
	set("alder has nothing set by hand; the presence is ", "clear", "alder")
	if err := second.Process.Kill(); err != nil { // right after the acknowledgement
		t.Fatal(err)
	}
	_ = second.Wait()

	third := s.process() // takes the place of the socket that was left behind
	defer func() {
		_ = third.Process.Signal(syscall.SIGTERM)
		if err := third.Wait(); err != nil {
			t.Errorf("the service did not stop orderly: %v", err)
		}
	}()
	s.listening()
	if got, _ := s.state("birch"); got != "away/" {
		t.Errorf("after a kill birch is %s", got)
	}
	if got, _ := s.state("alder"); got == "dnd/" {
		t.Error("after a kill what was cleared is back")
	}
	for _, c := range []struct{ about, want string }{
		{"set nobody dnd", `"nobody"`},
		{"set alder sleeping", "these can: available busy dnd"},
		{"set alder dnd --until yesterday", "want 15:00"},
		{"set alder dnd --until 2020-01-01T00:00", "has passed"},
		{"set alder dnd --until 9000h", "more than 366 days ahead"},
		{"clear nobody", `"nobody"`},
	} {
		code, out, errs := command(t, append(strings.Fields(c.about), "--socket", s.socket())...)
		if code != exitFailed || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d\n%s%s", c.about, code, out, errs)
		}
	}
	_, lines, _ := command(t, "audit", "--socket", s.socket())
	for _, want := range []string{`presence set +alder +dnd until `, `presence set +birch +away`, `presence clear +alder +automatic`} {
		if !regexp.MustCompile(`uid \d+ +control socket +` + want).MatchString(lines) {
			t.Errorf("the audit trail does not say %q:\n%s", want, lines)
		}
	}
	if code, _, errs := command(t, "clear", "alder", "--socket", filepath.Join(s.dir, "nowhere")); code != exitFailed || !strings.Contains(errs, "is presenced running") {
		t.Errorf("without a service: exit %d, %s", code, errs)
	}
	if code, out, _ := command(t, "status", "--url", s.url); code != 0 || !strings.Contains(out, "control.sock") || !strings.Contains(out, "manual") {
		t.Errorf("status: exit %d\n%s", code, out)
	}
}

// ask sends a request to a control socket and gives the status and the body.
func ask(socket, method, path, body string) (int, string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequest(method, "http://presenced"+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return res.StatusCode, string(data), err
}

// TestManualUnderKill9 kills the service again and again under a load of changes
// by hand: none that was acknowledged is lost. PRESENCED_LONG=1 has it done 200 times.
func TestManualUnderKill9(t *testing.T) {
	restarts := 15
	if os.Getenv("PRESENCED_LONG") != "" {
		restarts = 200
	}
	if testing.Short() {
		restarts = 2
	}
	const people = 6
	s := newSite(t, "")
	list := "people:\n"
	for i := range people {
		list += fmt.Sprintf("- {id: p%d, name: Person %d}\n", i, i)
	}
	s.write("people.yaml", list)
	s.write("presenced.yaml", fmt.Sprintf("directory: {files: [%[1]s/people.yaml]}\nstore: {directory: %[1]s/store}\nweb: {listen: %[2]q}\ncontrol: {socket: %[1]s/control.sock}\n",
		s.dir, strings.TrimPrefix(s.url, "http://")))

	base := time.Now().Add(24 * time.Hour).Truncate(time.Second).UTC()
	// Change n of a person is do not disturb until base + n seconds; every fifth one clears.
	cleared := func(n int) bool { return n%5 == 0 }
	var acked, tried [people]int
	changes := 0
	for round := range restarts + 1 {
		service := s.process()
		s.listening()
		for i := range people {
			_, state := s.state(fmt.Sprintf("p%d", i))
			fits := func(n int) bool {
				if cleared(n) {
					return state.Availability != presence.DoNotDisturb
				}
				return state.Availability == presence.DoNotDisturb && state.Until.Equal(base.Add(time.Duration(n)*time.Second))
			}
			if !fits(acked[i]) && !fits(tried[i]) {
				t.Fatalf("restart %d: p%d is %s until %s; acknowledged was change %d, tried %d", round, i, state.Availability, state.Until, acked[i], tried[i])
			}
			if state.Overlays.Has(presence.OverlayStale) {
				t.Errorf("restart %d: p%d is doubted", round, i)
			}
		}
		if round == restarts {
			_ = service.Process.Signal(syscall.SIGTERM)
			if err := service.Wait(); err != nil {
				t.Error(err)
			}
			break
		}
		var load sync.WaitGroup
		begun := make(chan struct{}, people)
		for i := range people {
			load.Go(func() {
				for {
					n := tried[i] + 1
					method, body := http.MethodPut, fmt.Sprintf(`{"state":"dnd","until":%q}`, base.Add(time.Duration(n)*time.Second).Format(time.RFC3339))
					if cleared(n) {
						method, body = http.MethodDelete, ""
					}
					tried[i] = n
					code, answer, err := ask(s.socket(), method, fmt.Sprintf("/api/people/p%d/presence", i), body)
					if err != nil { // killed
						return
					}
					if code != http.StatusOK {
						t.Errorf("change %d of p%d: %d %s", n, i, code, answer)
						return
					}
					acked[i] = n
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		for range people {
			select {
			case <-begun:
			case <-time.After(10 * time.Second):
				t.Error("no change is acknowledged")
			}
		}
		<-time.After(rand.N(100 * time.Millisecond))
		if err := service.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = service.Wait()
		load.Wait()
	}
	for _, n := range acked {
		changes += n
	}
	t.Logf("%d restarts, %d changes acknowledged, none lost", restarts, changes)
	if changes < restarts*people {
		t.Errorf("only %d changes were acknowledged in %d restarts", changes, restarts)
	}
}

// TestControl sends requests that are wrong, and ones when the store is.
func TestControl(t *testing.T) {
	people, _ := directory.New([]presence.Person{{ID: "ann/lee", Name: "Ann Lee"}})
	hub := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet())
	hub.SetDirectory(people, time.Now())
	kept := &refusing{}
	manual := aggregator.NewManual(hub, kept, quiet())
	if _, err := manual.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "run", "control.sock")
	served := api.New(api.Deps{People: hub, Sight: everything{}, Manual: &byHand{manual: manual, hub: hub}, Log: quiet()})
	c := newControl(socket, served, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, hub) }()
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	eventually(t, "the socket is there", func() bool { return c.Status().Phase == presence.PhaseLive })

	const path = "/api/people/ann%2Flee/presence"
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", path, "", 405, "DELETE, PUT"},
		{"PUT", "/people", "{}", 404, "there is no such address"},
		{"PUT", path, "", 400, "body is required"},
		{"PUT", path, "dnd", 400, "invalid character"},
		{"PUT", path, `{"state":"dnd","untill":"2026-11-20T15:00:00Z"}`, 422, "unexpected property"},
		{"PUT", path, `{"state":"dnd"} {"state":"away"}`, 400, "invalid character"},
		{"PUT", path, `{"state":"` + strings.Repeat("x", 1<<16) + `"}`, 413, "too large"},
		{"PUT", path, `{"state":"ringing"}`, 422, "body.state"},
		{"PUT", path, `{"state":"dnd","until":"2020-01-01T00:00:00Z"}`, 422, "has passed"},
		{"PUT", "/api/people/bob/presence", `{"state":"dnd"}`, 404, "nobody in the directory"},
		{"DELETE", "/api/people/bob/presence", "", 404, "nobody in the directory"},
		{"PUT", path, `{"state":"dnd"}`, 200, `"state":"dnd"`},
		{"DELETE", path, "", 200, `"availability":"unknown"`},
	} {
		code, body, err := ask(socket, c.method, c.path, c.body)
		if err != nil || code != c.code || !strings.Contains(body, c.want) || !json.Valid([]byte(body)) {
			t.Errorf("%s %s %.60s: %d %s %v, want %d %s", c.method, c.path, c.body, code, body, err, c.code, c.want)
		}
	}
	if want := fmt.Sprintf(`"by":"uid %d"`, os.Getuid()); !strings.Contains(kept.last, want) {
		t.Errorf("kept %s, want %s in it", kept.last, want)
	}
	kept.full.Store(true)
	if code, body, err := ask(socket, "PUT", path, `{"state":"dnd"}`); err != nil || code != 503 || !strings.Contains(body, "disk full") {
		t.Errorf("with a full store: %d %s %v", code, body, err)
	}
	if s, _ := hub.State("ann/lee"); s.Availability != presence.Unknown {
		t.Errorf("refused, and yet %s", s.Availability)
	}

	info, err := os.Lstat(socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := newControl(socket, served, quiet()).Run(ctx, hub); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("on the socket of a living process: %v", err)
	}
	file := write(t, "file", "precious")
	if err := newControl(file, served, quiet()).Run(ctx, hub); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("on a file: %v", err)
	}
	if data, _ := os.ReadFile(file); string(data) != "precious" {
		t.Error("a file was destroyed")
	}
}

// TestUntil reads ends in the words of a person.
func TestUntil(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 20, 14, 30, 0, 0, berlin)
	for text, want := range map[string]string{
		"15:00": "2026-11-20T15:00:00+01:00", "14:30": "2026-11-21T14:30:00+01:00", "08:00": "2026-11-21T08:00:00+01:00",
		"2026-12-24T18:00": "2026-12-24T18:00:00+01:00", "2026-07-01T09:00:30": "2026-07-01T09:00:30+02:00",
		"2026-11-20T15:00:00Z": "2026-11-20T15:00:00Z", "2h": "2026-11-20T16:30:00+01:00", "1h30m": "2026-11-20T16:00:00+01:00",
	} {
		if got, err := parseUntil(text, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %s %v, want %s", text, got.Format(time.RFC3339), err, want)
		}
	}
	for _, text := range []string{"", "tomorrow", "25:00", "-2h", "0s", "2026-11-20"} {
		if got, err := parseUntil(text, now); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}

// refusing is a memory that can be told to be full.
type refusing struct {
	full atomic.Bool
	last string
}

// Load implements aggregator.Memory.
func (*refusing) Load(context.Context) (map[string][]byte, error) { return nil, nil }

// Put implements aggregator.Memory.
func (m *refusing) Put(_ context.Context, _ string, value []byte) error {
	if m.full.Load() {
		return errors.New("disk full")
	}
	m.last = string(value)
	return nil
}

// Delete implements aggregator.Memory.
func (*refusing) Delete(context.Context, string) error { return nil }
