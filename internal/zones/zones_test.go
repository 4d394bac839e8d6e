package zones

import (
	"fmt"
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"
)

func berlin() Rules {
	return Rules{
		Standard: Transition{Offset: time.Hour, Month: time.October, Week: 5, Weekday: time.Sunday, TimeOfDay: 3 * time.Hour},
		Daylight: Transition{Offset: 2 * time.Hour, Month: time.March, Week: 5, Weekday: time.Sunday, TimeOfDay: 2 * time.Hour},
	}
}

func newYork() Rules {
	return Rules{
		Standard: Transition{Offset: -5 * time.Hour, Month: time.November, Week: 1, Weekday: time.Sunday, TimeOfDay: 2 * time.Hour},
		Daylight: Transition{Offset: -4 * time.Hour, Month: time.March, Week: 2, Weekday: time.Sunday, TimeOfDay: 2 * time.Hour},
	}
}

func sydney() Rules {
	return Rules{
		Standard: Transition{Offset: 10 * time.Hour, Month: time.April, Week: 1, Weekday: time.Sunday, TimeOfDay: 3 * time.Hour},
		Daylight: Transition{Offset: 11 * time.Hour, Month: time.October, Week: 1, Weekday: time.Sunday, TimeOfDay: 2 * time.Hour},
	}
}

// Asuncion before 2024: daylight time began at midnight, so that day began at 01:00.
func asuncion() Rules {
	return Rules{
		Standard: Transition{Offset: -4 * time.Hour, Month: time.March, Week: 4, Weekday: time.Sunday},
		Daylight: Transition{Offset: -3 * time.Hour, Month: time.October, Week: 1, Weekday: time.Sunday},
	}
}

// The rules agree with the tz database in every hour of years in which both say the same.
func TestOffsetAgreesWithTheDatabase(t *testing.T) {
	for name, rules := range map[string]Rules{
		"Europe/Berlin": berlin(), "America/New_York": newYork(), "Australia/Sydney": sydney(), "Asia/Kolkata": fixed(5*time.Hour + 30*time.Minute), "UTC": {},
	} {
		t.Run(name, func(t *testing.T) {
			location, err := time.LoadLocation(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := rules.Check(); err != nil {
				t.Fatal(err)
			}
			for at := time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2029; at = at.Add(30 * time.Minute) {
				_, want := at.In(location).Zone()
				if got := rules.Offset(at); got != time.Duration(want)*time.Second {
					t.Fatalf("at %s: offset %s, want %ds", at, got, want)
				}
			}
		})
	}
}

func TestToUTC(t *testing.T) {
	utc := func(s string) time.Time {
		at, err := time.Parse("2006-01-02 15:04", s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		zone       string
		rules      Rules
		wall, want string
	}{
		{"north, winter", berlin(), "2026-01-15 09:00", "2026-01-15 08:00"},
		{"north, summer", berlin(), "2026-07-15 09:00", "2026-07-15 07:00"},
		{"north, before the gap", berlin(), "2026-03-29 01:59", "2026-03-29 00:59"},
		{"north, in the gap", berlin(), "2026-03-29 02:30", "2026-03-29 01:30"},
		{"north, after the gap", berlin(), "2026-03-29 03:00", "2026-03-29 01:00"},
		{"north, before the doubled hour", berlin(), "2026-10-25 01:59", "2026-10-24 23:59"},
		{"north, in the doubled hour", berlin(), "2026-10-25 02:30", "2026-10-25 00:30"},
		{"north, after the doubled hour", berlin(), "2026-10-25 03:00", "2026-10-25 02:00"},
		{"south, summer", sydney(), "2026-01-15 09:00", "2026-01-14 22:00"},
		{"south, winter", sydney(), "2026-07-15 09:00", "2026-07-14 23:00"},
		{"south, in the doubled hour", sydney(), "2026-04-05 02:30", "2026-04-04 15:30"},
		{"south, after the doubled hour", sydney(), "2026-04-05 03:00", "2026-04-04 17:00"},
		{"south, in the gap", sydney(), "2026-10-04 02:30", "2026-10-03 16:30"},
		{"south, after the gap", sydney(), "2026-10-04 03:00", "2026-10-03 16:00"},
		{"west", newYork(), "2026-11-01 12:00", "2026-11-01 17:00"},
		{"midnight that does not exist", asuncion(), "2023-10-01 00:00", "2023-10-01 04:00"},
		{"fixed", fixed(-330 * time.Minute), "2026-06-01 00:00", "2026-06-01 05:30"},
		{"zero value", Rules{}, "2026-06-01 00:00", "2026-06-01 00:00"},
	} {
		if got := c.rules.ToUTC(utc(c.wall)); !got.Equal(utc(c.want)) {
			t.Errorf("%s: wall %s is %s, want %s", c.zone, c.wall, got.Format("2006-01-02 15:04"), c.want)
		}
	}
}

// Days of 23 and 25 hours, and one that begins at one o'clock.
func TestStartOfDay(t *testing.T) {
	for _, c := range []struct {
		rules  Rules
		day    time.Time
		length time.Duration
		clock  int
	}{
		{berlin(), time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC), 23 * time.Hour, 0},
		{berlin(), time.Date(2026, 10, 25, 12, 0, 0, 0, time.UTC), 25 * time.Hour, 0},
		{sydney(), time.Date(2026, 10, 4, 1, 0, 0, 0, time.UTC), 23 * time.Hour, 0},
		{asuncion(), time.Date(2023, 10, 1, 12, 0, 0, 0, time.UTC), 23 * time.Hour, 1},
		{Rules{}, time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC), 24 * time.Hour, 0},
	} {
		start := c.rules.StartOfDay(c.day)
		next := c.rules.StartOfDay(start.Add(26 * time.Hour))
		if next.Sub(start) != c.length || c.rules.Wall(start).Hour() != c.clock || !c.rules.StartOfDay(start).Equal(start) {
			t.Errorf("day of %s: from %s to %s, want %s, first hour %d", c.day, start, next, c.length, c.clock)
		}
	}
}

func TestYear(t *testing.T) {
	r := berlin()
	r.Standard.Year, r.Standard.Week = 2026, 25
	r.Daylight.Year, r.Daylight.Week = 2026, 29
	for at, want := range map[time.Time]time.Duration{
		time.Date(2025, 7, 1, 0, 0, 0, 0, time.UTC): time.Hour,
		time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC): 2 * time.Hour,
		time.Date(2027, 7, 1, 0, 0, 0, 0, time.UTC): time.Hour,
		time.Date(2035, 7, 1, 0, 0, 0, 0, time.UTC): time.Hour,
	} {
		if got := r.Offset(at); got != want {
			t.Errorf("at %s: %s, want %s", at, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, spoil := range map[string]func(*Rules){
		"offset":  func(r *Rules) { r.Daylight.Offset = 25 * time.Hour },
		"month":   func(r *Rules) { r.Standard.Month = 13 },
		"week":    func(r *Rules) { r.Standard.Week = 6 },
		"weekday": func(r *Rules) { r.Standard.Weekday = 7 },
		"time":    func(r *Rules) { r.Standard.TimeOfDay = -1 },
		"day":     func(r *Rules) { r.Daylight.Year, r.Daylight.Week = 2026, 32 },
	} {
		r := berlin()
		if spoil(&r); r.Check() == nil {
			t.Errorf("%s: a wrong rule passes", name)
		}
	}
}

// Whatever the rules are, reading the wall and going back gives the instant, or
// the other one of a doubled hour.
func TestRoundTrip(t *testing.T) {
	transition := rapid.Custom(func(t *rapid.T) Transition {
		return Transition{
			Offset:    time.Duration(rapid.IntRange(-14*4, 14*4).Draw(t, "quarters")) * 15 * time.Minute,
			Month:     time.Month(rapid.IntRange(0, 12).Draw(t, "month")),
			Week:      rapid.IntRange(1, 5).Draw(t, "week"),
			Weekday:   time.Weekday(rapid.IntRange(0, 6).Draw(t, "weekday")),
			TimeOfDay: time.Duration(rapid.IntRange(0, 24).Draw(t, "hour")) * time.Hour,
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		r := Rules{Standard: transition.Draw(t, "standard"), Daylight: transition.Draw(t, "daylight")}
		at := time.Unix(rapid.Int64Range(1.5e9, 2e9).Draw(t, "at"), 0).UTC()
		if err := roundTrip(&r, at); err != nil {
			t.Fatal(err)
		}
	})
}

func roundTrip(r *Rules, at time.Time) error {
	offset := r.Offset(at)
	if offset != r.Standard.Offset && (!r.Saves() || offset != r.Daylight.Offset) {
		return fmt.Errorf("offset %s is none of the zone's", offset)
	}
	back := r.ToUTC(r.Wall(at))
	if back.Equal(at) {
		return nil
	}
	if !back.Before(at) || !r.Wall(back).Equal(r.Wall(at)) {
		return fmt.Errorf("%s reads %s on the wall, which is %s", at, r.Wall(at), back)
	}
	return nil
}

func FuzzRules(f *testing.F) {
	f.Add(int64(1_790_000_000), int16(60), int16(120), uint8(10), uint8(3), uint8(5), uint8(0), uint8(3), uint16(0))
	f.Add(int64(1_790_000_000), int16(600), int16(660), uint8(4), uint8(10), uint8(1), uint8(0), uint8(2), uint16(0))
	f.Add(int64(-62_135_596_800), int16(-720), int16(840), uint8(12), uint8(1), uint8(31), uint8(6), uint8(24), uint16(1))
	f.Fuzz(func(t *testing.T, at int64, standard, daylight int16, m1, m2, week, weekday, hour uint8, year uint16) {
		r := Rules{
			Standard: Transition{time.Duration(standard) * time.Minute, time.Month(m1), int(week), time.Weekday(weekday), time.Duration(hour) * time.Hour, int(year)},
			Daylight: Transition{time.Duration(daylight) * time.Minute, time.Month(m2), int(week), time.Weekday(weekday), time.Duration(hour) * time.Hour, int(year)},
		}
		if r.Check() != nil {
			return
		}
		if err := roundTrip(&r, time.Unix(at%4_000_000_000, 0).UTC()); err != nil {
			t.Fatal(err)
		}
	})
}

func fixed(offset time.Duration) Rules { return Rules{Standard: Transition{Offset: offset}} }
