package aggregator

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
)

func written(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// samples are reports and states with every member, and with as few as there can be.
func samples() ([]presence.Report, []presence.State) {
	at := time.Date(2026, 11, 20, 10, 0, 0, 123456789, time.FixedZone("", 3600))
	reports := []presence.Report{
		{Source: "aes/hq", Subject: presence.Subject{Scheme: "tel", Value: "4711"}, At: at},
		{Source: "aes/hq", Subject: presence.Subject{Scheme: "tel", Value: "4711"}, At: at, Spans: []presence.Span{}},
		{Source: "ex", Subject: presence.Subject{Scheme: "mail", Value: "jürgen@example.com"}, At: at, Doubted: at, Expires: at, Grace: time.Hour, Spans: []presence.Span{
			{Fact: presence.PhoneConnected, From: at},
			{Fact: presence.CalendarMeeting, From: at.UTC(), Until: at, Contact: "tel:1", Note: "Übergabe", Private: true},
		}},
	}
	channel := presence.Channel{State: presence.ChannelInUse, Contact: "tel:4711", Since: at, Until: at}
	states := []presence.State{{Person: "ann"}, {
		Person: "ann", Availability: presence.Busy, Activity: presence.ActivityPhone, Class: presence.Busy.Class(), Overlays: presence.OverlayStale | presence.OverlayPrivate,
		Channels: [presence.ChannelCount]presence.Channel{channel, {}, {}, channel}, Since: at, Until: at,
		Why: presence.Reason{Rule: "phone", Title: "On the phone", Source: "aes/hq", Fact: "phone-connected", From: at}, Revision: 7,
	}}
	return reports, states
}

// What encoding/json writes is scanned to the end: it does not have to read it.
func TestScan(t *testing.T) {
	reports, states := samples()
	for _, want := range reports {
		data := written(t, want)
		s := scanner{rest: string(data)}
		var got presence.Report
		s.report(&got)
		if d := cmp.Diff(want, got); d != "" || !s.whole() {
			t.Errorf("%s\n%s", data, d)
		}
	}
	for _, want := range states {
		data := written(t, want)
		s := scanner{rest: string(data)}
		var got presence.State
		s.state(&got)
		if d := cmp.Diff(want, got); d != "" || !s.whole() {
			t.Errorf("%s\n%s", data, d)
		}
	}
}

// FuzzScan checks that nobody can tell who read it.
func FuzzScan(f *testing.F) {
	reports, states := samples()
	for _, r := range reports {
		f.Add(written(f, r))
	}
	for _, s := range states {
		f.Add(written(f, s))
	}
	for _, odd := range []string{
		`{"source":"a\u00e4","subject":{"scheme":"tel","value":"1"},"at":"2026-11-20T10:00:00Z","spans":[]}`,
		`{"source":"a` + "\xff" + `","subject":{"scheme":"tel","value":"1"},"at":"2026-11-20T10:00:00Z","spans":[]}`,
		`{"source":"a` + "\n" + `","subject":{"scheme":"tel","value":"1"},"at":"2026-11-20T10:00:00Z","spans":[]}`,
		`{"source":"a","subject":{"scheme":"tel","value":"1"},"at":"2026-11-20T10:00:00Z","grace":07,"spans":[]}`,
		`{"source":"a","subject":{"scheme":"tel","value":"1"},"at":"2026-11-20T10:00:00Z","grace":-7,"spans":[{}]}`,
		`{"source":"a","subject":{"scheme":"tel","value":"1"},"at":"2026-11-20 10:00:00Z","spans":null}`,
		`{"source":"a","subject":{"scheme":"tel","value":"1"},"at":"2026-11-20T10:00:00Z","spans":null}x`,
	} {
		f.Add([]byte(odd))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		same(t, data, unmarshalReport)
		same(t, data, unmarshalState)
	})
}

func same[T any](t *testing.T, data []byte, unmarshal func([]byte, *T) error) {
	t.Helper()
	var got, want T
	err, wanted := unmarshal(data, &got), json.Unmarshal(data, &want)
	if (err == nil) != (wanted == nil) {
		t.Fatalf("%v, want %v", err, wanted)
	}
	if d := cmp.Diff(want, got); d != "" && err == nil {
		t.Error(d)
	}
}

func BenchmarkScan(b *testing.B) {
	reports, states := samples()
	report, state := written(b, reports[2]), written(b, states[1])
	b.ReportAllocs()
	for b.Loop() {
		var r presence.Report
		var s presence.State
		if err := unmarshalReport(report, &r); err != nil {
			b.Fatal(err)
		}
		if err := unmarshalState(state, &s); err != nil {
			b.Fatal(err)
		}
	}
}
