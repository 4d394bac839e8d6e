package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator"
	"presenced/aggregator/policy"
	"presenced/aggregator/presence"
	"presenced/bridges/web"
)

// onThePhone is the default table, but for what a call means.
func onThePhone(means presence.Availability) *presence.Policy {
	p := presence.DefaultPolicy()
	i := slices.IndexFunc(p.Rules, func(r presence.Rule) bool { return r.Name == "on-the-phone" })
	p.Rules[i].Availability = means
	return p
}

// TestPolicyShow prints tables, and reads back what it printed.
func TestPolicyShow(t *testing.T) {
	own := write(t, "own.yaml", string(policy.Format(onThePhone(presence.Away))))
	head := fmt.Sprintf("directory: {files: [people.yaml]}\nstore: {directory: %s}\n", t.TempDir())
	knobs := presence.DefaultSetting()
	knobs.Ringing = "busy"
	for _, c := range []struct {
		config string // empty: none
		want   *presence.Policy
	}{
		{"", presence.DefaultPolicy()},
		{head + "policy: {ringing: busy}\n", knobs.Policy()},
		{head + "policy: {file: " + own + "}\n", onThePhone(presence.Away)},
	} {
		for _, format := range []string{"yaml", "json", "text"} {
			args := []string{"policy", "show", "--format", format}
			if c.config != "" {
				args = append(args, "-c", write(t, "presenced.yaml", c.config))
			}
			code, out, errs := command(t, args...)
			if code != exitOK {
				t.Fatalf("%v: exit %d\n%s", args, code, errs)
			}
			if format == "text" {
				for _, r := range c.want.Rules {
					if !strings.Contains(out, "\n"+r.Name+" ") {
						t.Errorf("%v: rule %s is missing in\n%s", args, r.Name, out)
					}
				}
				continue
			}
			if format == "json" && !json.Valid([]byte(out)) {
				t.Errorf("%v: no JSON:\n%s", args, out)
			}
			got, err := policy.Parse("shown", []byte(out))
			if err != nil {
				t.Fatalf("%v: %v", args, err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%v: - in force, + shown\n%s", args, d)
			}
		}
	}
}

func TestPolicyCheck(t *testing.T) {
	good := write(t, "good.yaml", string(policy.Format(presence.DefaultPolicy())))
	if code, out, _ := command(t, "policy", "check", good); code != exitOK || out != fmt.Sprintf("%s: %d rules, ok\n", good, len(presence.DefaultPolicy().Rules)) {
		t.Errorf("a good table: exit %d, %s", code, out)
	}
	bad := write(t, "bad.yaml", "rules:\n- {rule: a, title: A, any: [phone-ideal], availability: bussy}\n- {rule: b, availability: unknown}\n")
	code, _, errs := command(t, "policy", "check", bad)
	if code != exitInvalid || strings.Count(errs, "\n") != 3 {
		t.Errorf("a bad table: exit %d\n%s", code, errs)
	}
	for _, want := range []string{bad + ":2: rules[0].any[0]: ", bad + ":2: rules[0].availability: ", bad + ":3: rules[1].title: "} {
		if !strings.Contains(errs, want) {
			t.Errorf("missing %q in\n%s", want, errs)
		}
	}
	if code, _, errs := command(t, "policy", "check", bad+".not"); code != exitFailed || !strings.Contains(errs, "bad.yaml.not") {
		t.Errorf("a missing table: exit %d, %s", code, errs)
	}
	if code, _, errs := command(t, "policy", "check", write(t, "big.yaml", strings.Repeat("#", maxPolicyFile+1))); code != exitFailed || !strings.Contains(errs, "larger") {
		t.Errorf("a huge table: exit %d, %s", code, errs)
	}
}

// What is wrong with the table and with the configuration around it is told at
// once; a knob beside the file is an error even if it has its default.
func TestPolicyFileInConfiguration(t *testing.T) {
	table := write(t, "table.yaml", "rules: [{rule: a, title: A, availability: bussy}]\n")
	file := write(t, "presenced.yaml", "log: {level: loud}\ndirectory: {files: [p]}\npolicy:\n  file: "+table+"\n  recent: 15m\n  phone_dnd: never\n  knob: 3\n")
	code, _, errs := command(t, "check", "-c", file)
	if code != exitInvalid {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{
		file + ":1: log.level: ", file + ":5: policy.recent: has no effect beside file", file + ":6: policy.phone_dnd: has no effect beside file",
		file + ":7: policy.knob: unknown key; known here: phone_dnd, ", table + ":1: rules[0].availability: unknown availability \"bussy\"",
	} {
		if !strings.Contains(errs, want) {
			t.Errorf("missing %q in\n%s", want, errs)
		}
	}
	missing := write(t, "presenced.yaml", "directory: {files: [p]}\npolicy: {file: /nowhere/policy.yaml}\n")
	if code, _, errs := command(t, "serve", "-c", missing); code != exitFailed || !strings.Contains(errs, "/nowhere/policy.yaml") {
		t.Errorf("a missing table: exit %d, %s", code, errs)
	}
}

// TestPolicyWatch changes a file in virtual time.
func TestPolicyWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	var versions int64
	put := func(text string) { // each version has a time of its own, however fast the test is
		versions++
		at := time.Unix(1_700_000_000+versions, 0)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	good := func(means presence.Availability) string { return string(policy.Format(onThePhone(means))) }
	put(good(presence.Busy))
	first, err := readTable(path)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log screen
		w := newPolicyWatch(first, slog.New(slog.NewTextHandler(log.terminal().Err, nil)))
		logged := func() string { _, errs := log.read(); return errs }
		ctx, cancel := context.WithCancel(t.Context())
		again, done := make(chan os.Signal), make(chan struct{})
		var mu sync.Mutex
		var got []presence.Availability
		go func() {
			defer close(done)
			_ = w.Run(ctx, again, func(p *presence.Policy) {
				s, _ := p.Decide("ann", []presence.Report{{
					Source: "aes", Subject: presence.Subject{Scheme: "tel", Value: "1"}, At: time.Now(),
					Spans: []presence.Span{{Fact: presence.PhoneConnected, From: time.Now().Add(-time.Hour)}},
				}}, time.Now())
				mu.Lock()
				defer mu.Unlock()
				got = append(got, s.Availability)
			})
		}()
		expect := func(about string, phase presence.Phase, want ...presence.Availability) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if s := w.Status(); !slices.Equal(got, want) || s.Phase != phase {
				t.Errorf("%s: policies %v, want %v; %+v", about, got, want, s)
			}
			got = nil
		}
		look := func() { time.Sleep(policyInterval); synctest.Wait() }

		for range 5 {
			look()
		}
		expect("nothing changed", presence.PhaseLive)

		put(good(presence.Away)[:2000])
		look()
		put(good(presence.Away))
		look()
		expect("while the file is being written", presence.PhaseLive)
		look()
		expect("when it is written", presence.PhaseLive, presence.Away)

		put("rules:\n- {rule: a, title: A, any: [x], availability: y}\n- {rule: b, title: B, none: [z]}\n")
		for range 5 {
			look()
		}
		expect("a wrong table", presence.PhaseDegraded)
		if s := w.Status(); !strings.Contains(s.LastError, `policy.yaml:2: rules[0].any[0]: unknown fact "x" (and 3 more, see the log)`) || s.LastErrorAt.IsZero() {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(logged(), "the policy file is wrong"); n != 4 || !strings.Contains(logged(), "line=3 key=rules[1].availability") {
			t.Errorf("%d problems logged, want each of 4 once:\n%s", n, logged())
		}

		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			look()
		}
		expect("no table", presence.PhaseDegraded)
		if n := strings.Count(logged(), "cannot be read"); n != 1 {
			t.Errorf("said %d times that there is no table", n)
		}

		put(good(presence.BeRightBack))
		look()
		look()
		expect("a right one again", presence.PhaseLive, presence.BeRightBack)

		again <- syscall.SIGHUP
		expect("told to", presence.PhaseLive, presence.BeRightBack)
		cancel()
		<-done
	})
}

// TestPolicyIsReadAgain changes the policy of a running service in a call: by
// the file alone, by a wrong file, and by SIGHUP. An open page sees the changes
// and is not cut off.
func TestPolicyIsReadAgain(t *testing.T) {
	s := newSite(t, "")
	file := s.write("policy.yaml", string(policy.Format(onThePhone(presence.Busy))))
	config, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	s.write("presenced.yaml", string(config)+"policy: {file: "+file+"}\n")
	s.do("aes", "call", "247", "4711", "4750")
	s.do("aes", "answer", "247", "4750")

	var log, page screen
	cmd := exec.Command(os.Args[0], "serve", "-c", s.file) //nolint:gosec // this very test
	cmd.Env = append(os.Environ(), "PRESENCED_TEST_MAIN=1")
	cmd.Stderr = log.terminal().Err
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the service did not stop orderly: %v", err)
		}
	}
	defer stop()
	s.await("alder", "busy/on-the-phone")
	var birch presence.State
	eventually(t, "every source has spoken of birch", func() bool {
		_, birch = s.state("birch")
		return birch.Channel(presence.Phone).State == presence.ChannelIdle && birch.Channel(presence.Calendar).State == presence.ChannelFree
	})
	healthy := func() (own aggregator.Health) {
		var health struct{ Parts []aggregator.Health }
		if err := json.Unmarshal(s.get("/api/health"), &health); err != nil {
			return own
		}
		for _, h := range health.Parts {
			if h.Name == "policy" {
				own = h
			}
		}
		return own
	}
	if h := healthy(); h.Kind != aggregator.KindPolicy || h.Phase != presence.PhaseLive || !strings.Contains(h.Detail, file) {
		t.Errorf("health at first: %+v", h)
	}

	res, err := http.Get(s.url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cut := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(res.Body)
		for lines.Scan() {
			_, _ = io.WriteString(page.terminal().Out, lines.Text()+"\n")
		}
		cut <- lines.Err()
	}()
	sees := func(what string) {
		t.Helper()
		eventually(t, "the page sees "+what, func() bool { out, _ := page.read(); return strings.Contains(out, what) })
	}
	s.write("policy.yaml", string(policy.Format(onThePhone(presence.Away))))
	s.await("alder", "away/")
	sees("Away")

	s.write("policy.yaml", "rules:\n- {rule: a, title: A, any: [phone-ideal], availability: busy}\n- {rule: b, availability: unknown}\n")
	eventually(t, "health shows the wrong table", func() bool { return healthy().Phase == presence.PhaseDegraded })
	if h := healthy(); !strings.Contains(h.LastError, `policy.yaml:2: rules[0].any[0]: unknown fact "phone-ideal" (and 1 more, see the log)`) {
		t.Errorf("health: %+v", h)
	}
	_, logged := log.read()
	if !strings.Contains(logged, `"key":"rules[0].any[0]"`) || !strings.Contains(logged, `"key":"rules[1].title"`) {
		t.Errorf("the log does not name every problem:\n%s", logged)
	}
	if got, _ := s.state("alder"); got != "away/" {
		t.Errorf("with a wrong table: %s", got)
	}

	// A version that looks like the one before is found only when asked for.
	s.write("policy.yaml", string(policy.Format(onThePhone(presence.Busy))))
	s.await("alder", "busy/on-the-phone")
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	s.write("policy.yaml", string(policy.Format(onThePhone(presence.Away))))
	if err := os.Chtimes(file, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(file); err != nil || stampOf(file) != (stamp{before.ModTime().UnixNano(), after.Size()}) || after.Size() != before.Size() {
		t.Fatalf("the versions do not look alike: %v, %v, %v", before, after, err)
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.await("alder", "away/")

	code, lines, errs := command(t, "audit", "--person", "policy", "--socket", s.socket())
	if code != exitOK || strings.Count(lines, "policy set") != 3 || !strings.Contains(lines, file) {
		t.Errorf("the audit trail, exit %d:\n%s%s", code, lines, errs)
	}
	if _, now := s.state("birch"); now.Revision != birch.Revision {
		t.Errorf("somebody whom no change concerned was changed: %+v", now)
	}
	if h := healthy(); h.Phase != presence.PhaseLive || h.LastError != "" {
		t.Errorf("health in the end: %+v", h)
	}
	select {
	case err := <-cut:
		t.Errorf("the page was cut off: %v", err)
	default:
	}
	stop()
	if err := <-cut; err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the page ended with %v", err)
	}
}

// TestDefaultTableIsCurrent fails when the default policy was changed without "make docs".
func TestDefaultTableIsCurrent(t *testing.T) {
	data, err := os.ReadFile("../../docs/policy.default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(data), string(policy.Format(presence.DefaultPolicy()))); d != "" {
		t.Errorf("run make docs:\n%s", d)
	}
}

// TestOwnTableIsDocumented reads the example of docs/policy.md, and wants every
// fact, availability and activity that a table may name.
func TestOwnTableIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(data), "\n## Your own table\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, example, _ := strings.Cut(section, "```yaml\n")
	example, _, ok := strings.Cut(example, "```")
	if !ok {
		t.Fatal("there is no example")
	}
	if _, err := policy.Parse("the example", []byte(example)); err != nil {
		t.Error(err)
	}
	for f := range presence.Expired + 1 {
		if !strings.Contains(section, "`"+f.String()+"`") {
			t.Errorf("fact %s is missing", f)
		}
	}
	for a := range presence.Availabilities() {
		if !strings.Contains(string(data), "`"+a.String()+"`") {
			t.Errorf("availability %s is missing", a)
		}
	}
	for a := presence.ActivityPresenting; a <= presence.ActivityRinging; a++ {
		if !strings.Contains(string(data), "`"+a.String()+"`") {
			t.Errorf("activity %s is missing", a)
		}
	}
}

// TestPolicyOrigin tells every knob, and which of them stand in the configuration;
// beside a table of one's own none counts.
func TestPolicyOrigin(t *testing.T) {
	cfg := &Config{Policy: presence.DefaultSetting(), knobs: []string{"tentative"}}
	cfg.Policy.Tentative = "busy"
	p := &policies{cfg, &archive{hub: aggregator.NewHub(cfg.policy(), nil, quiet())}}
	knobs := p.Origin().Knobs
	if len(knobs) != reflect.TypeFor[presence.Setting]().NumField() {
		t.Fatalf("%d knobs", len(knobs))
	}
	for _, k := range knobs {
		if changed := k.Key == "tentative"; k.Key == "" || k.Meaning == "" || (k.Value != k.Default) != changed || k.Set != changed {
			t.Errorf("%+v", k)
		}
	}
	if again, err := p.Parse(p.Table()); err != nil || len(again.Rules) != len(p.Policy().Rules) {
		t.Errorf("its own table: %v", err)
	}
	if _, err := p.Parse(make([]byte, maxPolicyFile+1)); err == nil {
		t.Error("a table beyond the limit was read")
	}
	if _, err := p.DryRun(t.Context(), p.Policy(), time.Now(), time.Now()); !errors.Is(err, web.ErrNotRemembered) {
		t.Errorf("without history: %v", err)
	}
	cfg.PolicyFile = "policy.yaml"
	if o := p.Origin(); o.File != "policy.yaml" || len(o.Knobs) != 0 {
		t.Errorf("%+v", o)
	}
}
