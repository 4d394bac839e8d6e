package web

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// everythingOf gives all that leaves about the person 7: pages, answers, and the
// frames of the stream.
func everythingOf(t *testing.T, s *Site, w *world, past time.Time) map[string]string {
	t.Helper()
	all := map[string]string{}
	at := "?at=" + past.UTC().Format(time.RFC3339Nano)
	for _, target := range []string{
		"/people/7", "/people/7" + at, "/api/people", "/api/people/7", "/api/people/7/explain", "/api/people/7/explain" + at,
		"/api/people/7/explain?at=" + time.Now().Add(25*time.Hour).UTC().Format(time.RFC3339), "/api/people/7/history",
	} {
		all[target] = get(t, s, target).Body.String()
		if strings.Contains(target, "explain") {
			all[target+" as text"] = get(t, s, target, "Accept", "text/plain").Body.String()
		}
	}
	for _, st := range w.States() {
		s.feed.put(w.People()[0], st)
	}
	rows, _, _ := s.feed.since(0)
	all["event"] = string(rows[0].view(w.Access(s.viewerOf(signin.Identity{}).watcher, "7")).shown())
	return all
}

// Whatever is in a calendar that is not open, none of it leaves: not what it is,
// not who says so, not with whom, and where it is hidden not when.
func TestCalendarLaw(t *testing.T) {
	calendar := []presence.Fact{
		presence.CalendarFree, presence.CalendarTentative, presence.CalendarBusy, presence.CalendarAllDay, presence.CalendarMeeting,
		presence.CalendarElsewhere, presence.CalendarOutOfOffice, presence.OffHours,
	}
	others := []presence.Fact{presence.PhoneIdle, presence.PhoneConnected, presence.PhoneRinging, presence.SessionActive, presence.SessionIdle, presence.ManualDND, presence.ManualOffline}
	rapid.Check(t, func(r *rapid.T) {
		a := presence.Access{
			Level:    presence.Level(rapid.IntRange(0, int(presence.LevelFull)).Draw(r, "level")),                 //nolint:gosec // small
			Calendar: presence.CalendarPrivacy(rapid.IntRange(0, int(presence.CalendarTimes)).Draw(r, "privacy")), //nolint:gosec // small
			Urgent:   rapid.Bool().Draw(r, "urgent"), Unknown: rapid.Bool().Draw(r, "unknown"),
		}
		w := newWorld(person("7", "Greta Hoffmann", "21003"))
		w.rules["7"] = a
		var spans []presence.Span
		var times []time.Time
		for range rapid.IntRange(1, 3).Draw(r, "entries") {
			from := time.Now().Add(-time.Duration(rapid.IntRange(26*60, 40*60).Draw(r, "from")) * time.Minute)
			until := time.Now().Add(time.Duration(rapid.IntRange(26*60, 40*60).Draw(r, "until")) * time.Minute)
			times = append(times, from, until)
			spans = append(spans, presence.Span{
				Fact: rapid.SampledFrom(calendar).Draw(r, "entry"), From: from, Until: until,
				Contact: "im:clinic-secret", Note: "note-secret", Private: rapid.Bool().Draw(r, "private"),
			})
		}
		w.says("7", "exchange-secret", spans...)
		for _, f := range rapid.SliceOfNDistinct(rapid.SampledFrom(others), 0, 3, rapid.ID).Draw(r, "others") {
			w.says("7", "aes-cm1-"+f.String(), span(f, time.Now().Add(-time.Minute), "tel:21003"))
		}
		for what, body := range everythingOf(t, newSite(w), w, time.Now()) {
			low := strings.ToLower(body)
			if strings.Contains(what, "/people/7") && !strings.HasPrefix(what, "/api") {
				_, low, _ = strings.Cut(low, `id="main"`)
				low = strings.ReplaceAll(low, "cal-", "") // names of icons
			}
			words := []string{"secret", "meeting", "appointment", "tentative", "elsewhere", "off-hours", "off hours", `"private"`}
			if a.Level != presence.LevelFull {
				words = append(words, "calendar-", "cal-free", "cal-busy")
			}
			if !a.Shows() {
				words = append(words, "aes-cm1", "busy", "in use")
			}
			for _, word := range words {
				if strings.Contains(low, word) {
					r.Fatalf("%s at %+v tells %q:\n%s", what, a, word, body)
				}
			}
			if a.Level == presence.LevelFull && a.Calendar == presence.CalendarTimes {
				continue
			}
			for _, m := range times {
				if m = m.UTC(); strings.Contains(body, m.Format("2006-01-02T15:04")) || strings.Contains(body, m.Format("2006-01-02 15:04")) || strings.Contains(body, m.Format("Mon 15:04")) {
					r.Fatalf("%s at %+v tells the time %s:\n%s", what, a, m, body)
				}
			}
		}
	})
}

// At each level the person's page says how little it shows, and shows no more.
func TestPersonAtLevels(t *testing.T) {
	for _, tt := range []struct {
		name         string
		access       presence.Access
		say, shown   string
		facts, rules int
		sources      bool
	}{
		{"full", presence.Everyone(), "Busy, in a meeting since", "", 2, 24, true},
		{"times", presence.Access{Level: presence.LevelFull, Calendar: presence.CalendarTimes}, "Busy since", "only free and busy", 2, 0, false},
		{"hidden", presence.Access{Level: presence.LevelFull}, "Busy since", "The calendar is not shown", 1, 0, false},
		{"status", presence.Access{Level: presence.LevelStatus}, "Busy.", "level status", 0, 0, false},
		{"telephony", presence.Access{Level: presence.LevelTelephony}, "Available since", "level telephony", 0, 0, false},
		{"confirm", presence.Access{Level: presence.LevelConfirm}, "Offline.", "no more to show", 0, 0, false},
		{"block", presence.Access{}, "Offline.", "no more to show", 0, 0, false},
		{"block as unknown", presence.Access{Unknown: true}, "Unknown.", "no more to show", 0, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(person("7", "Greta Hoffmann", "21003"))
			w.rules["7"] = tt.access
			w.says("7", "aes-cm1", span(presence.PhoneIdle, time.Now().Add(-time.Hour), "tel:21003"))
			w.says("7", "exchange-hq", presence.Span{Fact: presence.CalendarMeeting, From: time.Now().Add(-time.Minute), Until: time.Now().Add(time.Hour)})
			rec := get(t, newSite(w), "/people/7")
			page := parse(t, rec.Body.String())
			if got := text(page.class("say")[0]); rec.Code != http.StatusOK || !strings.HasPrefix(strings.ReplaceAll(got, " .", "."), tt.say) {
				t.Errorf("says %q, want %q", got, tt.say)
			}
			shown := ""
			for _, n := range page.find(func(n *html.Node) bool { return attr(n, "id") == "shown" }) {
				shown = text(n)
			}
			if (shown == "") != (tt.shown == "") || !strings.Contains(shown, tt.shown) {
				t.Errorf("is shown %q, want %q", shown, tt.shown)
			}
			facts := page.id(t, "why").find(func(n *html.Node) bool { return n.Data == "td" && attr(n, "class") == "about" })
			rules := page.find(func(n *html.Node) bool { return n.Data == "span" && attr(n, "class") == "no" })
			sources := page.find(func(n *html.Node) bool { return attr(n, "id") == "h-src" })
			if len(facts) != tt.facts || (len(rules) > 0) != (tt.rules > 0) || (len(sources) > 0) != tt.sources {
				t.Errorf("%d facts, %d rules, sources %v", len(facts), len(rules), len(sources) > 0)
			}
		})
	}
}

// A change of a rule reaches the pages that are open.
func TestRuleReachesStreams(t *testing.T) {
	w := office()
	s := serve(t, w)
	c := open(t, s, "since="+cursorOf(t, s, w)+"&id=21042", "")
	c.want("ready")
	w.rule("21042", presence.Access{})
	c.want("row p-21042 Offline")
	w.rule("21042", presence.Access{Level: presence.LevelStatus})
	c.want("row p-21042 Busy")
}
