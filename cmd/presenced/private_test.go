package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/presence"
)

// TestPrivateEntriesAreNowhere runs the service with a private entry in each kind of
// calendar: their times show, and of their subjects not a word is said, logged at any
// level, or kept.
func TestPrivateEntriesAreNowhere(t *testing.T) {
	s := newSite(t, "")
	s.write("presenced.yaml", strings.Replace(string(mustRead(t, s.file)), "log: {format: json}", "log: {format: json, level: debug}", 1))
	from, until := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	s.do("exchange", "rights", "omar.birch@example.com", "detailed")
	s.do("exchange", "event", "omar.birch@example.com", "m1", from, until, "busy", "meeting", "private", "subject=Dermatologist")
	s.do("domino", "entry", "mail/mivy.nsf", "E1", from, until, "meeting", "private", "subject=Dermatologist")
	log, stop := s.serve()
	s.await("birch", "busy/appointment")
	s.await("ivy", "busy/appointment")
	s.listening()

	var said strings.Builder
	for _, id := range []string{"birch", "ivy"} {
		if _, state := s.state(id); state.Channel(presence.Calendar).State != presence.ChannelBusy {
			t.Errorf("the calendar channel of %s is %s", id, state.Channel(presence.Calendar).State)
		}
		for _, path := range []string{"/api/people/" + id, "/people/" + id, "/api/people/" + id + "/explain", "/api/people/" + id + "/history?since=1h"} {
			said.Write(s.get(path))
		}
		for _, args := range [][]string{{"explain", id}, {"history", id}, {"audit"}, {"status"}} {
			code, out, errs := command(t, append(args, "--socket", s.socket())...)
			if code != 0 {
				t.Errorf("%v: exit %d, %s", args, code, errs)
			}
			said.WriteString(out + errs)
		}
	}
	if n := strings.Count(said.String(), `"fact":"calendar-busy"`); n < 2 || strings.Contains(said.String(), `"fact":"calendar-meeting"`) {
		t.Errorf("a private meeting is not told as an appointment:\n%s", said.String())
	}
	stop()
	_, logged := log.read()
	if !strings.Contains(logged, `"level":"DEBUG"`) {
		t.Error("the log is not that of the lowest level")
	}
	said.WriteString(logged)
	for _, source := range []string{"exchange", "domino"} {
		code, out, errs := command(t, "sync", source, "-c", s.file)
		if code != 0 || !strings.Contains(out, "calendar-meeting") {
			t.Errorf("sync %s: exit %d\n%s%s", source, code, out, errs)
		}
		said.WriteString(out + errs)
	}
	if strings.Contains(said.String(), "Dermatologist") {
		t.Errorf("the subject is told:\n%s", said.String())
	}
	kept := 0
	err := filepath.WalkDir(filepath.Join(s.dir, "store"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		kept += strings.Count(string(data), "exchange-hq/calendar")
		if strings.Contains(string(data), "Dermatologist") {
			t.Errorf("the subject is kept in %s", path)
		}
		return err
	})
	if err != nil || kept == 0 {
		t.Errorf("what the calendar said was looked for in vain: %v", err)
	}
}
