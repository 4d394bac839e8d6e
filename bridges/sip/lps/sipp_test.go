package lps

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"presenced/aggregator/presence"
	"presenced/fixtures/peers"
)

// TestSIPp has an independent client publish, and watch at each level of access.
func TestSIPp(t *testing.T) {
	t.Parallel()
	program := peers.Find(t, "sipp")
	h := newHouse(t)
	h.report("4750", presence.PhoneConnected, presence.CalendarMeeting)
	run := func(scenario, user, person string, words *strings.Replacer, keys ...string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "fixtures", "peers", "sipp", scenario))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, scenario), []byte(words.Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		for transport, to := range map[string]string{"u1": h.udp, "t1": h.tcp} {
			args := append([]string{
				"-sf", scenario, "-m", "2", "-r", "20", "-i", "127.0.0.1", "-t", transport, "-s", person, "-au", user, "-ap", password(user),
				"-timeout", "20s", "-timeout_error", "-nostdin",
			}, keys...)
			cmd := exec.CommandContext(t.Context(), program, append(args, to)...)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "TERM=dumb")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s by %s of %s over %s: %v\n%.3000s", scenario, user, person, transport, err, out)
			}
		}
	}
	run("publish.xml", "bob", "bob", strings.NewReplacer())
	for level, want := range map[presence.Level][4]string{ // Subscription-State, basic status, shown, hidden
		presence.LevelBlock:     {"active", "closed", "presenced-overall", "presenced-phone"},
		presence.LevelConfirm:   {"pending", "closed", "presenced-overall", "presenced-phone"},
		presence.LevelTelephony: {"active", "open", "on-the-phone", "presenced-calendar"},
		presence.LevelStatus:    {"active", "open", "rpid:busy", "presenced-phone"},
		presence.LevelFull:      {"active", "open", "presenced-calendar", "rpid:busy"},
	} {
		h.gate.set("carol", "alice", level)
		run("subscribe.xml", "carol", "alice", strings.NewReplacer("STATE", want[0], "BASIC", want[1], "SHOWN", want[2], "HIDDEN", want[3]), "-key", "watcher", "carol")
	}
}
