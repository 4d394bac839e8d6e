package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"presenced/aggregator/directory"
)

func TestSyncOPTIM(t *testing.T) {
	s := &site{t: t, dir: t.TempDir()}
	s.write("people.yaml", `people:
- {id: ann, name: "Ann: \"A\" # x", groups: [Hall 1], tel: ["4750"], mail: [ann@example.com], notes: ["Mail1/Acme!!mail/ann.nsf"], jid: [ann@example.com]}
- {id: bob, name: Bob, tel: ["21042"]}
`)
	s.write("password", "x")
	file := s.write("presenced.yaml", fmt.Sprintf("directory: {files: [%[1]s/new.yaml, %[1]s/people.yaml]}\nstore: {directory: %[1]s/store}\n", s.dir))
	first := s.write("new.yaml", "people: []\n")
	report := "../../aes/optim/testdata/report.txt"
	args := []string{"sync", "aes", "-c", file, "--optim", report, "--domain", "example.com", "--mobiles"}

	code, out, errs := command(t, append(args, "--dry-run")...)
	want := "ann  4750: OPS 4750\nann  4750: EC500 +1 7325550142\nann  add sip:4750@example.com\nann  add tel:+17325550142\nbob  21042: OPS 21042\nbob  add sip:21042@example.com\n"
	if code != 0 || out != want {
		t.Errorf("exit code %d\n%s", code, out)
	}
	for _, problem := range []string{`line 25: "47x1" is no extension`, "line 11: EC500 of extension 21043 is of nobody in the directory", "3 telephones of 2 people, 5 problems"} {
		if !strings.Contains(errs, problem) {
			t.Errorf("not told: %s\n%s", problem, errs)
		}
	}
	if data, _ := os.ReadFile(first); string(data) != "people: []\n" {
		t.Error("a dry run wrote something")
	}

	// What is written is found when the directory is read again; then nothing is left to add.
	if code, _, errs := command(t, append(args, "--out", first)...); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	_, out, _ = command(t, "sync", "directory", "-c", file)
	for _, line := range []string{
		`Hall 1  tel:4750 tel:+17325550142 mail:ann@example.com notes:Mail1/Acme!!mail/ann.nsf sip:4750@example.com jid:ann@example.com`,
		`tel:21042 sip:21042@example.com`,
	} {
		if !strings.Contains(out, line) {
			t.Errorf("not in the directory: %s\n%s", line, out)
		}
	}
	data, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if people, err := directory.ParseFile("new.yaml", data); err != nil || len(people) != 2 || people[0].Name != `Ann: "A" # x` {
		t.Errorf("%v: %s", err, data)
	}
	if _, out, _ := command(t, append(args, "--dry-run")...); strings.Contains(out, "add") {
		t.Errorf("again: %s", out)
	}
	if code, _, errs := command(t, append(args, "--out", first)...); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if again, _ := os.ReadFile(first); string(again) != string(data) {
		t.Errorf("written again: %s", again)
	}
	for _, wrong := range [][]string{args, {"sync", "domino", "-c", file, "--optim", report, "--dry-run"}} {
		if code, _, _ := command(t, wrong...); code == 0 {
			t.Errorf("%v is fine", wrong)
		}
	}
}
