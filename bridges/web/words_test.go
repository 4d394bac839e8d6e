package web

import (
	"strings"
	"testing"
	"time"

	"presenced/aggregator/presence"
)

func TestMoments(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	now := time.Date(2026, 3, 4, 14, 3, 21, 0, berlin) // a Wednesday
	for _, tt := range []struct {
		at              time.Time
		iso, text, full string
	}{
		{time.Date(2026, 3, 4, 13, 56, 12, 0, berlin), "2026-03-04T12:56:12Z", "13:56", "13:56:12"},
		{time.Date(2026, 3, 4, 0, 0, 0, 0, berlin), "2026-03-03T23:00:00Z", "00:00", "00:00:00"},
		{time.Date(2026, 3, 6, 8, 30, 0, 0, berlin), "2026-03-06T07:30:00Z", "Fri 08:30", "Fri 08:30:00"},
		{time.Date(2026, 2, 26, 8, 0, 0, 0, berlin), "2026-02-26T07:00:00Z", "Thu 08:00", "Thu 08:00:00"},
		{time.Date(2026, 2, 25, 8, 0, 0, 0, berlin), "2026-02-25T07:00:00Z", "25 Feb", "25 Feb 08:00:00"},
		{time.Date(2025, 11, 17, 8, 0, 0, 0, berlin), "2025-11-17T07:00:00Z", "17 Nov 2025", "17 Nov 2025 08:00:00"},
		{time.Time{}, "", "", ""},
	} {
		m := momentOf(tt.at, now, berlin)
		if m.ISO != tt.iso || m.Text != tt.text || m.Full != tt.full {
			t.Errorf("%s: %+v", tt.at, m)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 s", 59 * time.Second: "59 s", time.Minute: "1 min", 3599 * time.Second: "59 min",
		time.Hour: "1 h", 47 * time.Hour: "1 d", 1000 * time.Hour: "41 d",
	} {
		if got := ageText(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for name, want := range map[string][2]string{
		"Tobias Renner": {"Tobias ", "Renner"}, "Anneke de Vries": {"Anneke ", "de Vries"}, "Ana Maria van der Berg": {"Ana Maria ", "van der Berg"},
		"Madonna": {"", "Madonna"}, "de Vries": {"de ", "Vries"}, "": {"", ""}, "A  B": {"A  ", "B"}, "x ": {"x ", ""},
	} {
		if given, family := splitName(name); [2]string{given, family} != want {
			t.Errorf("%q: %q, %q", name, given, family)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 12480: "12,480", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := number(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
	for name, want := range map[string]string{"phone-connected": "Phone connected", "manual-dnd": "Manual do not disturb", "": ""} {
		if got := sentence(name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

// Every state of every channel, and every availability, has a mark that exists.
func TestMarksExist(t *testing.T) {
	icons, err := static.ReadFile("static/icons.svg")
	if err != nil {
		t.Fatal(err)
	}
	has := func(id string) bool { return id != "" && containsID(string(icons), id) }
	for a := range presence.Availabilities() {
		l := lookOf(&presence.State{Availability: a})
		if !has("s-"+l.S) || l.Word == "" {
			t.Errorf("%s: %+v", a, l)
		}
	}
	for k := range presence.ChannelCount {
		for c := presence.ChannelUnknown; c <= presence.ChannelOutOfOffice; c++ {
			l := channelLookOf(presence.ChannelKind(k), c)
			if !has(l.Icon) || l.Word == "" {
				t.Errorf("%s %s: %+v", presence.ChannelKind(k), c, l)
			}
		}
	}
	for _, id := range []string{"menu", "mark", "close", "people", "sources", "search", "chevron", "warning", "error", "sync", "sort", "mail", "phone-idle", "im-away"} {
		if !has(id) {
			t.Errorf("no icon %s", id)
		}
	}
}

func containsID(svg, id string) bool {
	return strings.Contains(svg, `id="`+id+`"`)
}
