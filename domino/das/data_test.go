package das

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testData gives a folder of the extra data that is not part of the repository.
func testData(t *testing.T, folder string) string {
	t.Helper()
	root := os.Getenv("PRESENCED_TESTDATA")
	if root == "" {
		t.Skip("PRESENCED_TESTDATA is not set: no extra data to test with")
	}
	return filepath.Join(root, "domino", folder)
}

// Calendars of other programs, crash inputs of their parsers among them.
func TestDataCalendars(t *testing.T) {
	for _, folder := range []string{"ics-icaljs", "ics-libical", "ics-notes"} {
		files, err := filepath.Glob(filepath.Join(testData(t, folder), "*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", folder, err)
		}
		refused, events, skipped, entries := 0, 0, 0, 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			found, bad, err := decodeCalendar(text, berlin(t))
			if err != nil {
				refused++
				t.Logf("%s: %v", filepath.Base(file), err)
				continue
			}
			list, worse := expand(found, at("2010-01-01 00:00"), at("2030-01-01 00:00"))
			checkEntries(t, list)
			events, skipped, entries = events+len(found)+bad, skipped+bad+worse, entries+len(list)
			if bad+worse > 0 {
				t.Logf("%s: skipped %d", filepath.Base(file), bad+worse)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s takes %v", filepath.Base(file), took)
			}
		}
		t.Logf("%s: %d files, %d refused; %d events, %d skipped; %d entries", folder, len(files), refused, events, skipped, entries)
		if folder == "ics-notes" && (refused > 0 || skipped > 0) {
			t.Error("what Notes writes cannot be read")
		}
	}
}

func TestDataSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testData(t, "das-samples"), "event-*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("no samples", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := decodeEvents(text, berlin(t)); err != nil || l.Skipped > 0 || len(l.Entries) != 1 {
			t.Errorf("%s: %v, %v", filepath.Base(file), l, err)
		}
	}
}

// The oracle gives the instances of rules. A rule refused here is no wrong one:
// presence has no use for what repeats more often than daily.
func TestDataRules(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testData(t, "recur"), "icalrecur_test.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var rule, first string
	right, refused := 0, 0
	var wrong []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "RRULE":
			rule, first = value, ""
		case "DTSTART":
			first = value
		case "INSTANCES":
			start, err := parseStamp(first)
			if err != nil {
				t.Fatalf("%s: %v", first, err)
			}
			want := strings.Split(value, ",")
			if value == "" {
				want = nil
			}
			last := start.wall.AddDate(1, 0, 0)
			if len(want) > 0 {
				if end, err := parseStamp(want[len(want)-1]); err == nil {
					last = end.wall
				}
			}
			got, err := occurrences(rule, start.wall, last.Add(24*time.Hour), place{time.UTC})
			if err != nil {
				refused++
				continue
			}
			shown := make([]string, 0, len(got))
			for _, w := range got {
				shown = append(shown, w.Format("20060102T150405Z")[:len(first)])
			}
			if len(shown) > len(want) { // the oracle stops somewhere
				shown = shown[:len(want)]
			}
			if !slices.Equal(want, shown) {
				wrong = append(wrong, rule)
				t.Logf("%s from %s: %s", rule, first, cmp.Diff(want, shown))
				continue
			}
			right++
		}
	}
	t.Logf("%d right, %d refused, %d wrong", right, refused, len(wrong))
	if diff := cmp.Diff(knownDeviations(), wrong); diff != "" {
		t.Error(diff)
	}
}

// knownDeviations are rules that rrule-go works out in another way.
func knownDeviations() []string {
	return []string{
		// Without BYMONTH, the oracle stays in the month of DTSTART; RFC 5545 expands to all months.
		"FREQ=YEARLY;BYMONTHDAY=29;COUNT=3", "FREQ=YEARLY;BYMONTHDAY=-29,-1;COUNT=4",
		// A time of day in a rule of dates is to be ignored; nobody writes it.
		"FREQ=DAILY;BYMINUTE=1,2,3,4;INTERVAL=2;COUNT=3",
	}
}
