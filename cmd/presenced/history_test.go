package main

import (
	"encoding/json"
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/policy"
	"presenced/aggregator/presence"
	"presenced/bridges/web"
)

// TestPast lives through a call and asks afterwards: what was, why it was, and what
// would have been by another table.
func TestPast(t *testing.T) {
	s := newSite(t, "")
	socket := filepath.Join(s.dir, "control.sock")
	_, stop := s.serve()
	s.await("alder", "available/")
	s.do("aes", "call", "247", "4711", "4750")
	s.do("aes", "answer", "247", "4750")
	s.await("alder", "busy/on-the-phone")
	_, state := s.state("alder")
	s.do("aes", "dnd", "4751", "on")
	s.await("birch", "dnd/")
	s.do("aes", "hangup", "247", "4750")
	s.await("alder", "available/")

	stop() // the past outlives the process
	_, stop = s.serve()
	defer stop()
	s.await("alder", "available/")

	var out string
	eventually(t, "the history has the call", func() bool {
		_, out, _ = command(t, "history", "alder", "--since", "1h", "--socket", socket)
		return strings.Contains(out, "busy, on-the-phone")
	})
	for _, want := range []string{"unknown", "available", "In a call", "aes-hq"} {
		if !strings.Contains(out, want) {
			t.Errorf("history does not say %q:\n%s", want, out)
		}
	}
	code, out, errs := command(t, "explain", "alder", "--at", state.Since.Add(time.Millisecond).Format(time.RFC3339Nano), "--socket", socket)
	if code != 0 || !strings.Contains(out, "because of rule on-the-phone") {
		t.Errorf("explain: exit %d\n%s%s", code, out, errs)
	}
	at := state.Since.Add(time.Millisecond).Format(time.RFC3339Nano)
	var then presence.Explanation
	if body := s.get("/api/people/alder/explain?at=" + url.QueryEscape(at)); json.Unmarshal(body, &then) != nil || then.Text(time.Local) != out {
		t.Errorf("the page explains it otherwise:\n%s\nthe command line:\n%s", then.Text(time.Local), out)
	}
	var history struct{ Changes []web.Change }
	if body := s.get("/api/people/alder/history?since=1h"); json.Unmarshal(body, &history) != nil || !slices.ContainsFunc(history.Changes, func(c web.Change) bool { return c.Title == "In a call" }) {
		t.Errorf("the history of the page: %s", body)
	}
	if body := s.get("/people/alder?at=" + url.QueryEscape(at)); !strings.Contains(string(body), "As it was at") || !strings.Contains(string(body), "Busy, on the phone") {
		t.Errorf("the page of then: %s", body)
	}
	knobs := presence.DefaultSetting()
	knobs.PhoneDND = "channel"
	table := write(t, "table.yaml", string(policy.Format(knobs.Policy())))
	code, out, errs = command(t, "policy", "dry-run", table, "--since", "1h", "--socket", socket)
	if code != 0 || !strings.Contains(out, "birch") || strings.Contains(out, "alder") || !strings.Contains(out, "was dnd by phone-dnd") || !strings.Contains(out, "1 people would have been different") {
		t.Errorf("dry run: exit %d\n%s%s", code, out, errs)
	}
	if code, _, errs := command(t, "policy", "dry-run", write(t, "bad.yaml", "rules: 3\n"), "--socket", socket); code != exitInvalid || !strings.Contains(errs, "bad.yaml:1") {
		t.Errorf("a bad table: exit %d\n%s", code, errs)
	}
	if code, _, errs := command(t, "history", "nobody", "--socket", socket); code != 1 || !strings.Contains(errs, "nobody in the directory") {
		t.Errorf("a stranger: exit %d\n%s", code, errs)
	}
}

// Where nothing is remembered, that is what is said.
func TestNoHistory(t *testing.T) {
	a := &archive{log: quiet()}
	if _, err := a.History(t.Context(), "alder", time.Now(), time.Now(), presence.Everyone(), 1); !errors.Is(err, web.ErrNotRemembered) || !strings.Contains(err.Error(), "history.keep") {
		t.Errorf("history: %v", err)
	}
	if _, err := a.ExplainAt(t.Context(), "alder", time.Now()); !errors.Is(err, web.ErrNotRemembered) {
		t.Errorf("explain: %v", err)
	}
}
