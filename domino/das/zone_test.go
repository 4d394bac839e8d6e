package das

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// us are the rules that New York has had since 2007, and those before.
func us(t testing.TB) rules {
	t.Helper()
	var r rules
	for _, o := range []struct{ start, before, after, rule string }{
		{"19671029T020000", "-0400", "-0500", "FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10;UNTIL=20061029T060000Z"},
		{"20071104T020000", "-0400", "-0500", "FREQ=YEARLY;BYDAY=1SU;BYMONTH=11"},
		{"19870405T020000", "-0500", "-0400", "FREQ=YEARLY;BYDAY=1SU;BYMONTH=4;UNTIL=20060402T070000Z"},
		{"20070311T020000", "-0500", "-0400", "FREQ=YEARLY;BYDAY=2SU;BYMONTH=3"},
	} {
		start, err := parseStamp(o.start)
		if err != nil {
			t.Fatal(err)
		}
		one, err := newObservance(start.wall, o.before, o.after, o.rule)
		if err != nil {
			t.Fatal(err)
		}
		r = append(r, one)
	}
	return r
}

// The rules of a zone and the same zone of the system agree at every wall time.
func TestRulesAgreeWithSystem(t *testing.T) {
	r := us(t)
	loc, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		wall := time.Unix(rapid.Int64Range(at("1988-01-01 00:00").Unix(), at("2036-12-31 00:00").Unix()).Draw(t, "wall"), 0).UTC()
		if got, want := r.moment(wall), (place{loc}).moment(wall); !got.Equal(want) {
			t.Fatalf("%v: %v by the rules, %v by the system", wall, got, want)
		}
	})
}

func TestMoment(t *testing.T) {
	for _, test := range []struct{ wall, want string }{
		{"2026-03-08 01:59", "2026-03-08 06:59"},
		{"2026-03-08 02:30", "2026-03-08 07:30"}, // there is no 02:30 that day
		{"2026-03-08 03:00", "2026-03-08 07:00"},
		{"2026-11-01 00:59", "2026-11-01 04:59"},
		{"2026-11-01 01:30", "2026-11-01 05:30"}, // there are two: the first
		{"2026-11-01 02:00", "2026-11-01 07:00"},
		{"2006-10-29 12:00", "2006-10-29 17:00"}, // the last day of the older rules
		{"2006-03-20 12:00", "2006-03-20 17:00"}, // summer came later then
	} {
		loc, err := time.LoadLocation("America/New_York")
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]clock{"rules": us(t), "system": place{loc}} {
			if got := c.moment(at(test.wall)); !got.Equal(at(test.want)) {
				t.Errorf("%s: %s is %v, want %s", name, test.wall, got, test.want)
			}
		}
	}
}

func TestFindZone(t *testing.T) {
	z := newZones(berlin(t))
	noon := at("2026-07-20 12:00")
	for tzid, want := range map[string]string{
		"Europe/London":           "2026-07-20 11:00",
		`"Eastern"`:               "2026-07-20 16:00",
		"W. Europe Standard Time": "2026-07-20 10:00",
		"India Standard Time":     "2026-07-20 06:30",
		"ZE6":                     "2026-07-20 06:00",
		"ZW5":                     "2026-07-20 17:00",
		"GMT":                     "2026-07-20 12:00",
		"Local":                   "2026-07-20 10:00",
		"local":                   "2026-07-20 10:00",
		"":                        "2026-07-20 10:00",
		"ZE99":                    "2026-07-20 10:00",
		"../../etc/passwd":        "2026-07-20 10:00",
		"/etc/localtime":          "2026-07-20 10:00",
		"Somewhere":               "2026-07-20 10:00",
	} {
		if got := z.find(tzid).moment(noon); !got.Equal(at(want)) {
			t.Errorf("%q: noon is %v, want %s", tzid, got, want)
		}
	}
}

func TestZoneRulesRefused(t *testing.T) {
	for _, rule := range []string{
		"FREQ=DAILY", "BYMONTH=3", "FREQ=YEARLY;COUNT=3", "FREQ=YEARLY;INTERVAL=2", "FREQ=YEARLY;BYMONTH=13", "FREQ=YEARLY;BYDAY=6SU;BYMONTH=3",
		"FREQ=YEARLY;BYDAY=XX", "FREQ=YEARLY;BYDAY=S", "FREQ=YEARLY;BYMONTHDAY=0", "FREQ=YEARLY;BYHOUR=24", "FREQ=YEARLY;UNTIL=never", "FREQ=YEARLY;BYDAY=SU",
		"FREQ=YEARLY;BYDAY=1SU;BYMONTHDAY=3", "FREQ=YEARLY;BYSETPOS=1",
	} {
		if _, err := newObservance(at("2000-03-05 02:00"), "+0000", "+0100", rule); err == nil {
			t.Errorf("%s is taken", rule)
		}
	}
	for _, offset := range []string{"", "0100", "+01", "+1600", "+01:00", "+0160", "+-100", "+01000"} {
		if _, err := newObservance(at("2000-03-05 02:00"), offset, "+0100", ""); err == nil {
			t.Errorf("offset %q is taken", offset)
		}
	}
	if n, err := parseOffset("-013015"); n != -5415 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
