package das

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOccurrences(t *testing.T) {
	for _, test := range []struct{ rule, first, want string }{
		{"FREQ=DAILY;COUNT=3", "20261120T090000", "20261120T090000 20261121T090000 20261122T090000"},
		{"FREQ=DAILY;UNTIL=20261121T090000", "20261120T090000", "20261120T090000 20261121T090000"},
		{"FREQ=DAILY;UNTIL=20261121", "20261120T090000", "20261120T090000 20261121T090000"}, // that day is the last
		{"FREQ=DAILY;UNTIL=20261121T080000Z", "20261120T090000", "20261120T090000 20261121T090000"},
		{"FREQ=DAILY;UNTIL=20261121T075959Z", "20261120T090000", "20261120T090000"},
		{"COUNT=2;FREQ=WEEKLY;BYDAY=MO,FR;", "20261120T090000", "20261120T090000 20261123T090000"},
		{"freq=monthly;byday=-1fr;count=2", "20261127T090000", "20261127T090000 20261225T090000"},
		{"FREQ=MONTHLY;BYMONTHDAY=-1;COUNT=4", "20261231T090000", "20261231T090000 20270131T090000 20270228T090000 20270331T090000"},
		{"FREQ=MONTHLY;BYMONTHDAY=31;COUNT=3", "20261231T090000", "20261231T090000 20270131T090000 20270331T090000"},
		{"FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;COUNT=2", "20261130T090000", "20261130T090000 20261231T090000"},
		{"FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", "20240229T090000", "20240229T090000 20280229T090000"},
		{"FREQ=WEEKLY;INTERVAL=2;WKST=SU;BYDAY=TU,SU;COUNT=4", "19970805T090000", "19970805T090000 19970817T090000 19970819T090000 19970831T090000"},
		{"FREQ=WEEKLY;INTERVAL=2;WKST=MO;BYDAY=TU,SU;COUNT=4", "19970805T090000", "19970805T090000 19970810T090000 19970819T090000 19970824T090000"},
		{"FREQ=DAILY;INTERVAL=0;COUNT=2", "20261120T090000", "20261120T090000 20261121T090000"},
		{"FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "20261120T090000", ""}, // never
	} {
		first, err := parseStamp(test.first)
		if err != nil {
			t.Fatal(err)
		}
		got, err := occurrences(test.rule, first.wall, at("2030-01-01 00:00"), place{berlin(t)})
		if err != nil {
			t.Errorf("%s: %v", test.rule, err)
			continue
		}
		if diff := cmp.Diff(strings.Fields(test.want), texts(got)); diff != "" && (len(got) > 0 || test.want != "") {
			t.Errorf("%s: %s", test.rule, diff)
		}
	}
}

func texts(walls []time.Time) []string {
	var out []string
	for _, w := range walls {
		out = append(out, w.Format("20060102T150405"))
	}
	return out
}

// No rule is worth more than a moment's work, whatever it says.
func TestOccurrencesRefused(t *testing.T) {
	for _, rule := range []string{
		"", "FREQ=HOURLY", "FREQ=MINUTELY;COUNT=3", "FREQ=SECONDLY", "FREQ=DAILY;INTERVAL=1001", "FREQ=DAILY;COUNT=10001", "FREQ=DAILY;INTERVAL=-1",
		"FREQ=WEEKLY;INTERVAL=4611686018427387904", "FREQ=DAILY;COUNT=x", "FREQ=YEARLY;BYEASTER=400", "FREQ=YEARLY;RSCALE=CHINESE", "FREQ=DAILY;UNTIL=x", "FREQ=YEARLY;BYWEEKNO=20", "FREQ=WEEKLY;BYDAY=MO,FR;BYSETPOS=-1",
		"FREQ=MONTHLY;BYDAY=53MO", "FREQ=MONTHLY;BYDAY=-53MO", "FREQ=YEARLY;BYMONTH=0", "FREQ=YEARLY;BYMONTH=13", "FREQ=DAILY\nFREQ=DAILY", "FREQ=DAILY;=;",
		"FREQ=YEARLY;BYHOUR=0,1,2,3,4,5,6,7,8,9,10,11,12;BYMINUTE=0,1,2,3,4,5,6,7,8,9;BYSECOND=0,1,2,3,4,5",
		"FREQ=DAILY;BYHOUR=1,2,3,4,5,6,7,8,9,10,11,12;BYMINUTE=0,30", // twenty years of them
		"FREQ=DAILY;BYMONTH=" + strings.Repeat("1,", 300) + "1",
	} {
		began := time.Now()
		got, err := occurrences(rule, at("2006-11-20 09:00"), at("2026-11-20 00:00"), place{time.UTC})
		if err == nil {
			t.Errorf("%q is taken: %d", rule, len(got))
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%q takes %v", rule, took)
		}
	}
}

// A rule that never fits is what rrule-go looks for longest.
func TestOccurrencesBounded(t *testing.T) {
	for _, rule := range []string{
		"FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "FREQ=WEEKLY;BYMONTH=2;BYMONTHDAY=30", "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
		"FREQ=DAILY;INTERVAL=7;BYDAY=MO", "FREQ=YEARLY;BYDAY=MO;BYSETPOS=200",
	} {
		best := time.Hour
		for range 3 { // the machine may be busy
			began := time.Now()
			got, err := occurrences(rule, at("2026-11-20 09:00"), at("2027-01-01 00:00"), place{time.UTC})
			if err != nil || len(got) > 0 {
				t.Errorf("%s: %v, %v", rule, got, err)
			}
			best = min(best, time.Since(began))
		}
		if best > 50*time.Millisecond {
			t.Errorf("%s takes %v", rule, best)
		}
	}
}
