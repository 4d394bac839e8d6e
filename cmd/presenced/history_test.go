package main

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/journal"
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

// With history.keep at zero the service writes nothing down.
func TestNothingIsWrittenDown(t *testing.T) {
	s := newSite(t, "history: {keep: 0s}\n")
	_, stop := s.serve()
	s.await("alder", "available/")
	s.listening()
	if code, out, errs := command(t, "history", "alder", "--socket", s.socket()); code == 0 || !strings.Contains(errs, "history.keep is 0s") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	stop()
	if code, out, errs := command(t, "backup", "-", "-c", s.file); code != 0 || !strings.Contains(errs, "reports ") || strings.Contains(out+errs, "log:journal") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// A pastLog is what a journal wrote, about one person.
type pastLog [][]byte

func (l *pastLog) Append(_ context.Context, _ string, value []byte) error {
	*l = append(*l, value)
	return nil
}

func (l *pastLog) Read(context.Context, string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, value := range *l {
			if !yield(value, nil) {
				return
			}
		}
	}
}

// The past is shown as the present is: to each watcher what the access rules let see.
func TestHistoryAsSeen(t *testing.T) {
	at := func(hour, minute int) time.Time { return time.Date(2026, 11, 20, hour, minute, 0, 0, time.UTC) }
	core := aggregator.NewCore(presence.DefaultPolicy())
	core.Remember()
	core.Enter("alder", at(8, 0))
	say := func(now time.Time, source string, spans ...presence.Span) {
		core.Advance(now, nil)
		core.Accept("alder", presence.Report{Source: source, Subject: presence.Subject{Scheme: "tel", Value: "4750"}, At: now, Spans: spans}, now)
	}
	say(at(8, 0), "aes-hq", presence.Span{Fact: presence.PhoneIdle, From: at(8, 0)})
	say(at(8, 0), "exchange", presence.Span{Fact: presence.CalendarMeeting, From: at(9, 0), Until: at(10, 0)})
	say(at(9, 30), "aes-hq", presence.Span{Fact: presence.PhoneConnected, From: at(9, 30)})
	core.Advance(at(11, 0), nil)
	log := pastLog{[]byte("{")} // what cannot be read is left out
	j := journal.New(&log, quiet())
	j.Note(core.Notes()...)
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := &archive{entries: &log, hub: aggregator.NewHub(presence.DefaultPolicy(), nil, quiet()), log: quiet()}
	for _, c := range []struct {
		about string
		as    presence.Access
		since time.Time
		most  int
		want  string
	}{
		{"all", presence.Everyone(), at(7, 0), 9, "08:00 unknown/ by unknown, 08:00 available/ by phone-idle, 09:00 busy/in-a-meeting by meeting, 09:30 busy/on-the-phone by on-the-phone"},
		{"what held at nine", presence.Everyone(), at(9, 5), 9, "09:00 busy/in-a-meeting by meeting, 09:30 busy/on-the-phone by on-the-phone"},
		{"the last one", presence.Everyone(), at(7, 0), 1, "09:30 busy/on-the-phone by on-the-phone"},
		{"times of the calendar", presence.Access{Level: presence.LevelFull, Calendar: presence.CalendarTimes}, at(7, 0), 9, "08:00 unknown/ by, 08:00 available/ by, 09:00 busy/ by, 09:30 busy/on-the-phone by"},
		{"status", presence.Access{Level: presence.LevelStatus}, at(7, 0), 9, "08:00 unknown/ by, 08:00 available/ by, 09:00 busy/ by"},
		{"the phone", presence.Access{Level: presence.LevelTelephony}, at(7, 0), 9, "08:00 unknown/ by, 08:00 available/ by, 09:30 busy/on-the-phone by"},
		{"blocked", presence.Access{Level: presence.LevelBlock}, at(7, 0), 9, "08:00 offline/ by"},
	} {
		changes, err := a.History(t.Context(), "alder", c.since, at(12, 0), c.as, c.most)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, one := range changes {
			got = append(got, strings.TrimSpace(one.At.Format("15:04 ")+one.Availability.String()+"/"+one.Activity.String()+" by "+one.Rule))
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.about, text, c.want)
		}
	}
	if _, err := a.ExplainAt(t.Context(), "alder", at(7, 0)); !errors.Is(err, web.ErrNotRemembered) {
		t.Errorf("before anything was known: %v", err)
	}
	if e, err := a.ExplainAt(t.Context(), "alder", at(9, 10)); err != nil || e.State.Why.Rule != "meeting" {
		t.Errorf("at ten past nine: %+v, %v", e.State, err)
	}
}

// While a change was held back, what was shown is not what the rules decide: the
// explanation of that moment says so, and that of another one does not.
func TestThePastHeldBack(t *testing.T) {
	at := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	k := presence.DefaultSetting()
	k.HangupLinger, k.FlapLimit = 0, 1
	core := aggregator.NewCore(k.Policy())
	core.Remember()
	core.Enter("alder", at)
	for i, fact := range []presence.Fact{presence.PhoneIdle, presence.PhoneConnected, presence.PhoneIdle, presence.PhoneConnected, presence.PhoneIdle} {
		now := at.Add(time.Duration(10*i) * time.Second)
		core.Accept("alder", presence.Report{
			Source: "aes-hq", Subject: presence.Subject{Scheme: "tel", Value: "4750"}, At: now, Spans: []presence.Span{{Fact: fact, From: now}},
		}, now)
	}
	core.Advance(at.Add(time.Hour), nil)
	var log pastLog
	j := journal.New(&log, quiet())
	j.Note(core.Notes()...)
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := &archive{entries: &log, hub: aggregator.NewHub(k.Policy(), nil, quiet()), log: quiet()}
	for after, want := range map[time.Duration]string{
		35 * time.Second: "",
		45 * time.Second: "  shown then: busy, on-the-phone by rule on-the-phone since 2026-11-20 09:00:30; a change was held back, or the rules were others\n",
		30 * time.Minute: "",
	} {
		e, err := a.ExplainAt(t.Context(), "alder", at.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		text := e.Text(time.UTC)
		if (e.WasShown != nil) != (want != "") || !strings.Contains(text, want) {
			t.Errorf("after %s, want %q:\n%s", after, want, text)
		}
	}
}
