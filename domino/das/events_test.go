package das

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const easternZone = `{"tzid": "Eastern",
	"standard": {"start": {"date": "1950-11-05", "time": "02:00:00"}, "offsetFrom": "-0400", "offsetTo": "-0500", "recurrenceRule": "FREQ=YEARLY;BYMONTH=11;BYDAY=1SU;BYHOUR=2;BYMINUTE=0"},
	"daylight": {"start": {"date": "1950-03-12", "time": "02:00:00"}, "offsetFrom": "-0500", "offsetTo": "-0400", "recurrenceRule": "FREQ=YEARLY;BYMONTH=3;BYDAY=2SU;BYHOUR=2;BYMINUTE=0"}}`

// The mailbox is in Berlin.
func TestDecodeEvents(t *testing.T) {
	for name, test := range map[string]struct {
		event   string
		want    Entry
		skipped bool
	}{
		"UTC": {
			`{"start":{"date":"2026-11-20","time":"09:00:00","utc":true},"end":{"date":"2026-11-20","time":"10:00:00","utc":true},"class":"Public","transparency":"OPAQUE","status":"confirmed","x-lotus-appttype":{"data":"3"},"x-lotus-noticetype":{"data":"a"}}`,
			Entry{Start: at("2026-11-20 09:00"), End: at("2026-11-20 10:00"), Type: "3", Notice: "A", Status: "confirmed", Class: "public", Transparency: "opaque"},
			false,
		},
		"a zone that came with it": {
			`{"start":{"date":"2026-07-20","time":"09:00:00","tzid":"Eastern"},"end":{"date":"2026-07-20","time":"10:00:00","tzid":"Eastern"}}`,
			Entry{Start: at("2026-07-20 13:00"), End: at("2026-07-20 14:00")},
			false,
		},
		"a zone by name": {
			`{"start":{"date":"2026-11-20","time":"09:00:00","tzid":"Asia/Tokyo"},"end":{"date":"2026-11-20","time":"10:00:00","tzid":"Pacific"}}`,
			Entry{Start: at("2026-11-20 00:00"), End: at("2026-11-20 18:00")},
			false,
		},
		"a zone nobody knows": {
			`{"start":{"date":"2026-11-20","time":"09:00:00","tzid":"Mars"},"end":{"date":"2026-11-20","time":"10:00:00","tzid":"Local"}}`,
			Entry{Start: at("2026-11-20 08:00"), End: at("2026-11-20 09:00")},
			false,
		},
		"floating": {
			`{"start":{"date":"2026-07-20","time":"09:00:00"},"end":{"date":"2026-07-20","time":"10:00:00"}}`,
			Entry{Start: at("2026-07-20 07:00"), End: at("2026-07-20 08:00")},
			false,
		},
		"all day, ends where it begins": {
			`{"start":{"date":"2026-11-20"},"end":{"date":"2026-11-20"},"x-lotus-appttype":{"data":2}}`,
			Entry{Start: at("2026-11-19 23:00"), End: at("2026-11-20 23:00"), AllDay: true, Type: "2"},
			false,
		},
		"all day, when the clocks change: 25 hours": {
			`{"start":{"date":"2026-10-25"},"end":{"date":"2026-10-25"}}`,
			Entry{Start: at("2026-10-24 22:00"), End: at("2026-10-25 23:00"), AllDay: true},
			false,
		},
		"three days": {
			`{"start":{"date":"2026-11-20"},"end":{"date":"2026-11-23"}}`,
			Entry{Start: at("2026-11-19 23:00"), End: at("2026-11-22 23:00"), AllDay: true},
			false,
		},
		"all day without an end": {
			`{"start":{"date":"2026-11-20"}}`,
			Entry{Start: at("2026-11-19 23:00"), End: at("2026-11-20 23:00"), AllDay: true},
			false,
		},
		"no end": {
			`{"start":{"date":"2026-11-20","time":"09:00:00","utc":true}}`,
			Entry{Start: at("2026-11-20 09:00"), End: at("2026-11-20 09:00")},
			false,
		},
		"ends before it begins": {
			`{"start":{"date":"2026-11-20","time":"09:00:00","utc":true},"end":{"date":"2026-11-20","time":"08:55:00","utc":true}}`,
			Entry{Start: at("2026-11-20 09:00"), End: at("2026-11-20 08:55")},
			false,
		},
		"for ever": {
			`{"start":{"date":"0001-01-01","time":"00:00:00","utc":true},"end":{"date":"9999-12-31","time":"23:59:59","utc":true}}`,
			Entry{Start: at("1900-01-01 00:00"), End: at("2999-12-31 00:00")},
			false,
		},
		"no start":     {`{"end":{"date":"2026-11-20"}}`, Entry{}, true},
		"bad date":     {`{"start":{"date":"2026-02-30","time":"09:00:00"}}`, Entry{}, true},
		"bad end":      {`{"start":{"date":"2026-11-20"},"end":{"date":"soon"}}`, Entry{}, true},
		"another type": {`{"start":"2026-11-20T09:00:00Z"}`, Entry{}, true},
		"no object":    {`17`, Entry{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			body := `{"timezones":[` + easternZone + `],"events":[` + test.event + `,{"start":{"date":"2026-01-01","time":"00:00:00","utc":true}}]}`
			got, err := decodeEvents([]byte(body), berlin(t))
			if err != nil {
				t.Fatal(err)
			}
			want := []Entry{test.want, {Start: at("2026-01-01 00:00"), End: at("2026-01-01 00:00")}}
			if test.skipped {
				want = want[1:] // the neighbour is not lost
			}
			if diff := cmp.Diff(want, got.Entries); diff != "" {
				t.Error(diff)
			}
			if (got.Skipped == 1) != test.skipped {
				t.Errorf("skipped %d", got.Skipped)
			}
		})
	}
}

func TestDecodeEventsBounds(t *testing.T) {
	for name, body := range map[string]string{
		"deep":        `{"events":` + strings.Repeat("[", 200_000),
		"many events": `{"events":[` + strings.Repeat("{},", maxPerPage) + `{}]}`,
		"no list":     `[]`,
		"nothing":     ``,
	} {
		if l, err := decodeEvents([]byte(body), berlin(t)); FailureOf(err) != Malformed {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}

func FuzzDecodeEvents(f *testing.F) {
	f.Add(page(event(9, "3")))
	f.Add(`{"timezones":[` + easternZone + `],"events":[{"start":{"date":"2026-03-08","time":"02:30:00","tzid":"Eastern"}}]}`)
	f.Add(`{"events":[{"start":{"date":"9999-12-31"}},{"start":{"date":"2026-11-20"},"x-lotus-appttype":{"data":[]}},7]}`)
	f.Add(`{"timezones":[{"tzid":"X","standard":{"start":{"date":"0000-01-01"},"offsetFrom":"+0000","offsetTo":"-1559","recurrenceRule":"FREQ=YEARLY;BYDAY=-5SA;UNTIL=00000101"}}],"events":[{"start":{"date":"0000-01-01","time":"00:00:00","tzid":"X"}}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		l, err := decodeEvents([]byte(body), berlin(t))
		if err != nil && len(l.Entries) > 0 {
			t.Error("entries and an error")
		}
		checkEntries(t, l.Entries)
	})
}

func checkEntries(t *testing.T, entries []Entry) {
	t.Helper()
	for _, e := range entries {
		if e.Start.Year() < 1900 || e.Start.Year() > 2999 || e.End.Year() < 1900 || e.End.Year() > 2999 {
			t.Errorf("not clipped: %v to %v", e.Start, e.End)
		}
	}
}
