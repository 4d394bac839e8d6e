package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/html"

	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// remembered is a world with a day behind it: the person 7 was on the phone at noon
// yesterday, and is available.
func remembered() (w *world, noon time.Time) {
	w = newWorld(person("7", "Greta Hoffmann", "21003"))
	w.says("7", "aes-cm1", span(presence.PhoneConnected, time.Now(), "tel:21003"))
	w.says("7", "aes-cm1", span(presence.PhoneIdle, time.Now(), "tel:21003"))
	y, m, d := time.Now().UTC().AddDate(0, 0, -1).Date()
	noon = time.Date(y, m, d, 12, 0, 0, 0, time.UTC)
	then := w.then["7"]
	then[0].at, then[1].at = noon, noon.Add(10*time.Minute)
	for i := range then {
		for j := range then[i].reports {
			then[i].reports[j].At = then[i].at
			then[i].reports[j].Spans = []presence.Span{{Fact: then[i].reports[j].Spans[0].Fact, From: then[i].at, Contact: "tel:21003"}}
		}
	}
	return w, noon
}

func TestThePastForTheAPI(t *testing.T) {
	w, noon := remembered()
	s := newSite(w)
	day := url.QueryEscape(noon.Add(-time.Hour).Format(time.RFC3339))
	for _, tt := range []struct {
		target string
		code   int
		want   string
	}{
		{"/api/people/7/history?since=" + day, 200, `"activity": "on-the-phone"`},
		{"/api/people/7/history?since=2999-01-01T00:00:00Z", 422, "lies ahead"},
		{"/api/people/7/explain?at=" + noon.Add(time.Minute).Format(time.RFC3339), 200, `"rule": "on-the-phone"`},
		{"/api/people/7/explain?at=" + noon.Add(time.Hour).Format(time.RFC3339), 200, `"rule": "phone-idle"`},
		{"/api/people/7/explain?at=" + noon.Add(-time.Hour).Format(time.RFC3339), 404, "nothing is remembered about 7"},
		{"/api/people/7/explain?at=2020-01-01T00:00:00Z", 422, "more than 7 days"},
	} {
		rec := get(t, s, tt.target)
		if rec.Code != tt.code || !strings.Contains(rec.Body.String(), tt.want) {
			t.Errorf("%s: %d, want %d with %s\n%.300s", tt.target, rec.Code, tt.code, tt.want, rec.Body.String())
		}
	}
	var changes []Change
	if err := json.Unmarshal(get(t, s, "/api/people/7/history").Body.Bytes(), &changes); err != nil || len(changes) != 2 || !changes[0].At.Equal(noon) {
		t.Errorf("changes: %v %+v", err, changes)
	}
	at := noon.Add(time.Minute)
	e, err := w.ExplainAt(t.Context(), "7", at)
	e.State = visible(e.State, presence.Everyone())
	if got := get(t, s, "/api/people/7/explain?at="+at.Format(time.RFC3339), "Accept", "text/plain").Body.String(); err != nil || got != e.Text(time.UTC) {
		t.Errorf("the text is not that of the command line: %v\n%s", err, got)
	}
}

// What cannot be told of the past says why: nothing kept, not for this viewer, not now.
func TestPastRefused(t *testing.T) {
	w, noon := remembered()
	at := noon.Add(time.Minute).Format(time.RFC3339)
	refused := func(s *Site, what string, code int, want string) {
		t.Helper()
		for _, target := range []string{"/api/people/7/history", "/api/people/7/explain?at=" + at} {
			if rec := get(t, s, target); rec.Code != code || !strings.Contains(rec.Body.String(), want) {
				t.Errorf("%s, %s: %d %s", what, target, rec.Code, rec.Body.String())
			}
		}
		rec := get(t, s, "/people/7?at="+at)
		if !strings.Contains(strings.ToLower(rec.Body.String()), want) || rec.Code != code || strings.Contains(rec.Body.String(), `id="then"`) {
			t.Errorf("%s, the page: %d\n%s", what, rec.Code, rec.Body.String())
		}
		if rec := get(t, s, "/people/7"); rec.Code != http.StatusOK {
			t.Errorf("%s, the page of now: %d", what, rec.Code)
		}
	}
	refused(answering(New(DefaultConfig(), w, w, Parts{}, prometheus.NewRegistry(), quiet())), "no history", 404, "nothing is remembered")
	for _, level := range []presence.Level{presence.LevelBlock, presence.LevelConfirm, presence.LevelStatus} {
		w.rules["7"] = presence.Access{Level: level}
		refused(newSite(w), level.String(), 404, "only what is now")
	}
	delete(w.rules, "7")
	w.pastErr = errors.New("disk-secret")
	refused(newSite(w), "a broken log", 503, "cannot be read just now")
	if body := get(t, newSite(w), "/people/7").Body.String(); strings.Contains(body, "disk-secret") {
		t.Error("the page tells what is wrong inside")
	}
}

// What lies ahead is in the calendar: it is told to those who may see its times.
func TestAhead(t *testing.T) {
	w := newWorld(person("7", "Greta Hoffmann", "21003"))
	w.says("7", "exchange-hq", presence.Span{Fact: presence.CalendarMeeting, From: time.Now().Add(time.Hour), Until: time.Now().Add(3 * time.Hour)})
	target := "/api/people/7/explain?at=" + time.Now().Add(2*time.Hour).UTC().Format(time.RFC3339)
	for _, tt := range []struct {
		access presence.Access
		code   int
	}{
		{presence.Everyone(), 200},
		{presence.Access{Level: presence.LevelFull, Calendar: presence.CalendarTimes}, 200},
		{presence.Access{Level: presence.LevelFull}, 404},
		{presence.Access{Level: presence.LevelStatus, Calendar: presence.CalendarOpen}, 404},
		{presence.Access{Level: presence.LevelTelephony}, 404},
		{presence.Access{}, 404},
	} {
		w.rules["7"] = tt.access
		if rec := get(t, newSite(w), target); rec.Code != tt.code || strings.Contains(rec.Body.String(), "busy") != (tt.code == 200) {
			t.Errorf("%+v: %d %s", tt.access, rec.Code, rec.Body.String())
		}
	}
}

// Who may see the phone only sees the past of the phone only.
func TestPastAtTelephony(t *testing.T) {
	w := newWorld(person("7", "Greta Hoffmann", "21003"))
	w.rules["7"] = presence.Access{Level: presence.LevelTelephony}
	w.says("7", "exchange-hq", presence.Span{Fact: presence.CalendarMeeting, From: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)})
	w.says("7", "aes-cm1", span(presence.PhoneConnected, time.Now(), "tel:21003"))
	body := get(t, newSite(w), "/api/people/7/history").Body.String()
	if !strings.Contains(body, "on-the-phone") || strings.Contains(body, "meeting") || strings.Contains(body, "exchange") {
		t.Error(body)
	}
}

func TestPastPage(t *testing.T) {
	w, noon := remembered()
	s := newSite(w)
	for _, at := range []string{noon.Add(time.Minute).Format(time.RFC3339), noon.Add(time.Minute).Format("2006-01-02T15:04:05"), noon.Add(time.Minute).Format("2006-01-02T15:04")} {
		rec := get(t, s, "/people/7?at="+at)
		page := parse(t, rec.Body.String())
		if rec.Code != http.StatusOK || !strings.HasPrefix(text(page.id(t, "then").Node), "As it was at") {
			t.Fatalf("at %s: %d", at, rec.Code)
		}
		if got := text(page.class("say")[0]); !strings.HasPrefix(got, "Busy, on the phone") {
			t.Errorf("at %s: %q", at, got)
		}
		if got := attr(page.id(t, "main").Node, "data-watch"); got != "rows=none" {
			t.Errorf("a page of the past watches %q", got)
		}
		if got := attr(page.id(t, "at").Node, "value"); got != noon.Add(time.Minute).Format("2006-01-02T15:04:05") {
			t.Errorf("the form has %q", got)
		}
		links := page.id(t, "past").find(func(n *html.Node) bool { return n.Data == "a" })
		if len(links) != 2 || text(page.id(t, "h-past").Node) != noon.Format("Monday 2 January") {
			t.Fatalf("%d changes of %q", len(links), text(page.id(t, "h-past").Node))
		}
		back := parse(t, get(t, s, attr(links[1], "href")).Body.String()) // the earliest
		if got := text(back.class("say")[0]); !strings.HasPrefix(got, "Busy, on the phone") {
			t.Errorf("%s leads to %q", attr(links[1], "href"), got)
		}
	}
	for at, want := range map[string]string{"rubbish": "no moment such as", "2999-01-01T00:00": "lies ahead", "2020-01-01T00:00": "more than 7 days"} {
		rec := get(t, s, "/people/7?at="+at)
		page := parse(t, rec.Body.String())
		if got := text(page.id(t, "wrong").Node); rec.Code != http.StatusUnprocessableEntity || !strings.Contains(got, want) {
			t.Errorf("at %s: %d %q", at, rec.Code, got)
		}
		if len(page.find(func(n *html.Node) bool { return attr(n, "id") == "then" })) > 0 {
			t.Errorf("at %s: the page of now says that it is of then", at)
		}
	}
	w.says("7", "aes-cm1", span(presence.PhoneConnected, time.Now(), "tel:21003"))
	if got := text(parse(t, get(t, s, "/people/7").Body.String()).id(t, "past").Node); !strings.Contains(got, "Busy On the phone In a call aes-cm1") {
		t.Errorf("today: %q", got)
	}
}

// A stuckPast answers nothing, and counts who waits at once.
type stuckPast struct {
	mu            sync.Mutex
	waiting, most int
}

func (p *stuckPast) wait(ctx context.Context) error {
	p.mu.Lock()
	p.waiting++
	p.most = max(p.most, p.waiting)
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.waiting--
	p.mu.Unlock()
	return ctx.Err()
}

func (p *stuckPast) History(ctx context.Context, _ presence.ID, _, _ time.Time, _ presence.Access, _ int) ([]Change, error) {
	return nil, p.wait(ctx)
}

func (p *stuckPast) Day(ctx context.Context, _ presence.ID, _, _, _ time.Time, _ presence.Access, _ int) (Day, error) {
	return Day{}, p.wait(ctx)
}

func (p *stuckPast) ExplainAt(ctx context.Context, _ presence.ID, _ time.Time) (presence.Explanation, error) {
	return presence.Explanation{}, p.wait(ctx)
}

// A journal that hangs holds few readers, each for a while, and the page of now
// hardly at all.
func TestPastIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, past := newWorld(person("7", "Greta Hoffmann", "21003")), &stuckPast{}
		s := answering(New(DefaultConfig(), w, w, Parts{Past: past}, prometheus.NewRegistry(), quiet()))
		began := time.Now()
		if rec := get(t, s, "/people/7"); rec.Code != http.StatusOK || time.Since(began) > dayTime || !strings.Contains(rec.Body.String(), "cannot be read just now") {
			t.Errorf("the page: %d after %s", rec.Code, time.Since(began))
		}
		began = time.Now()
		var all sync.WaitGroup
		for range 3 * pastReaders {
			all.Go(func() {
				if rec := get(t, s, "/api/people/7/history"); rec.Code != http.StatusServiceUnavailable {
					t.Errorf("history: %d", rec.Code)
				}
			})
		}
		all.Wait()
		if past.most != pastReaders || time.Since(began) > pastTime {
			t.Errorf("%d readers at once, for %s", past.most, time.Since(began))
		}
	})
}

// A day in which the clock is put back has 25 hours, and all of it is on the bar.
func TestTimeline(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, 10, 25, 0, 0, 0, 0, berlin)
	hour := func(n float64) time.Time { return day.Add(time.Duration(n * float64(time.Hour))) }
	got := timelineOf(&Day{Changes: []Change{
		{At: hour(-5), Availability: presence.OffWork},
		{At: hour(1), Availability: presence.Available, Activity: presence.ActivityIdle},
		{At: hour(10), Availability: presence.Busy, Activity: presence.ActivityPhone},
		{At: hour(10), Availability: presence.Busy},
		{At: hour(10.0001), Availability: presence.Away},
		{At: hour(23.5), Availability: presence.Unknown},
	}}, day, hour(23.5), hour(12.5))
	want := []spanMark{
		{S: "off-work", X: "0.00%", Width: "4.00%", Words: "Off work"},
		{S: "idle", X: "4.00%", Width: "36.00%", Words: "Available, idle", Label: "Idle"},
		{S: "busy", X: "40.00%", Width: "0.10%", Words: "Busy"},
		{S: "away", X: "40.00%", Width: "54.00%", Words: "Away", Label: "Away"},
	}
	if diff := cmp.Diff(want, got.Bands[0].Spans); diff != "" || got.Now.X != "50.00%" || len(got.Bands) != 1 || got.Ahead {
		t.Errorf("%+v, now %+v, spans (-want +got)\n%s", got.Bands, got.Now, diff)
	}
	first, second, last := got.Hours[0], got.Hours[1], got.Hours[len(got.Hours)-1]
	if first.X != "0.00%" || first.Text != "00:00" || second.X != "12.00%" || last.X != "100.00%" || last.ISO != "2026-10-25T23:00:00Z" {
		t.Errorf("hours: %+v", got.Hours)
	}
}

// Where something else was shown than the rules decide, the page and the answer say
// what, to who may see it: no contact, nor that somebody hid.
func TestWasShown(t *testing.T) {
	for _, tt := range []struct {
		fact presence.Fact // because of which it was shown
		a    presence.Access
		told bool
	}{
		{presence.PhoneConnected, presence.Everyone(), true},
		{presence.PhoneConnected, presence.Access{Level: presence.LevelTelephony}, false},
		{presence.ManualOffline, presence.Everyone(), false},
	} {
		w, noon := remembered()
		w.rules["7"] = tt.a
		shown := &w.then["7"][1].state
		shown.Availability, shown.Activity, shown.Since = presence.Busy, presence.ActivityPhone, noon
		shown.Why = presence.Reason{Rule: "on-the-phone", Title: "In a call", Fact: tt.fact.String()}
		shown.Channels[presence.Phone].Contact = "tel:secret"
		s := newSite(w)
		at := "?at=" + url.QueryEscape(noon.Add(11*time.Minute).Format(time.RFC3339))
		page, answer := get(t, s, "/people/7"+at).Body.String(), get(t, s, "/api/people/7/explain"+at).Body.String()
		if told := strings.Contains(page, `id="was-shown"`); told != tt.told {
			t.Errorf("%s, %+v: the page tells: %v", tt.fact, tt.a, told)
		}
		if told := strings.Contains(answer, `"was_shown"`); told != tt.told {
			t.Errorf("%s, %+v: the answer tells: %v", tt.fact, tt.a, told)
		}
		if strings.Contains(page+answer, "secret") {
			t.Error("the contact of then is told")
		}
		if !tt.told {
			continue
		}
		if got := text(parse(t, page).id(t, "was-shown").Node); !strings.HasPrefix(got, "Shown then was busy, on the phone , by In a call , since ") {
			t.Errorf("the page says %q", got)
		}
	}
}

// The picture of a day shows what each source said, and what is known ahead, to who
// may see it.
func TestDayAtLevels(t *testing.T) {
	now := time.Now()
	ago := func(h float64) time.Time { return now.Add(-time.Duration(h * float64(time.Hour))) }
	meeting := journal.Saying{Source: "exchange-hq", Fact: presence.CalendarMeeting, From: ago(1), Until: ago(-1), Contact: "Merger", Private: true}
	d := Day{
		Changes: []Change{{At: ago(1), Availability: presence.Busy}},
		Said: []journal.Saying{
			{Source: "aes-cm1", Fact: presence.PhoneConnected, From: ago(1), Contact: "tel:21003"},
			meeting,
			{Source: "manual", Fact: presence.ManualBusy, From: ago(0.5), Until: ago(-1)},
		},
		Ahead: []presence.State{{Since: now, Availability: presence.Busy, Activity: presence.ActivityMeeting}, {Since: ago(-1), Availability: presence.Available}},
	}
	full := presence.Access{Level: presence.LevelFull, Calendar: presence.CalendarOpen}
	own := presence.Everyone()
	own.Own = true
	for _, tt := range []struct {
		name string
		a    presence.Access
		edit func(*Day)
		want string // the sources, and how often the state may change ahead
	}{
		{"open", full, nil, "aes-cm1 exchange-hq manual 2"},
		{"times", presence.Access{Level: presence.LevelFull, Calendar: presence.CalendarTimes}, nil, "aes-cm1 manual 2"},
		{"hidden", presence.Access{Level: presence.LevelFull}, nil, "aes-cm1 manual 0"},
		{"status", presence.Access{Level: presence.LevelStatus}, nil, "0"},
		{"telephony", presence.Access{Level: presence.LevelTelephony}, nil, "0"},
		{"block", presence.Access{}, nil, "0"},
		{"hides", full, func(d *Day) { d.Said[2].Fact = presence.ManualOffline }, "0"},
		{"hides, to themselves", own, func(d *Day) { d.Said[2].Fact = presence.ManualOffline }, "aes-cm1 exchange-hq manual 2"},
	} {
		day := Day{d.Changes, slices.Clone(d.Said), d.Ahead}
		if tt.edit != nil {
			tt.edit(&day)
		}
		v := day.seen(tt.a, now)
		got := ""
		for _, s := range v.Said {
			got += s.Source + " "
			if s.Private && (s.Contact != "" || sayingWords(&s) != "Calendar busy") {
				t.Errorf("%s: of what is private there is told %+v", tt.name, s)
			}
			if !tellsAhead(tt.a) && s.Until.After(now) {
				t.Errorf("%s: %s tells when it ends", tt.name, s.Source)
			}
		}
		if got += strconv.Itoa(len(v.Ahead)); got != tt.want || len(v.Changes) != 1 {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		for _, st := range v.Ahead {
			if tt.a.Calendar != presence.CalendarOpen && st.Activity != presence.NoActivity {
				t.Errorf("%s: ahead lies %s", tt.name, st.Activity)
			}
		}
	}
}

// The page has a band for the result, one for each source, and stripes where something
// is known ahead; the tables say the same.
func TestDayPage(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, berlin)
	at := func(h float64) time.Time { return day.Add(time.Duration(h * float64(time.Hour))) }
	said := []journal.Saying{
		{Source: "aes-cm1", Fact: presence.PhoneIdle, From: at(-20), Until: at(9)},
		{Source: "aes-cm1", Fact: presence.PhoneConnected, From: at(9), Until: at(9.5)},
		{Source: "exchange-hq", Fact: presence.CalendarMeeting, From: at(13), Until: at(15)},
		{Source: "exchange-hq", Fact: presence.CalendarFree, From: at(0), Until: at(24)},
		{Source: "manual", Fact: presence.ManualDND, From: at(13.5), Until: at(16)},
	}
	ahead := []presence.State{{Since: at(14), Availability: presence.DoNotDisturb}, {Since: at(15), Availability: presence.DoNotDisturb}, {Since: at(16), Availability: presence.Available}}
	v := timelineOf(&Day{[]Change{{At: at(9), Availability: presence.Busy, Activity: presence.ActivityPhone}, {At: at(9.5), Availability: presence.Available}, {At: at(13.5), Availability: presence.DoNotDisturb}}, said, ahead}, day, at(14), at(14))
	var got []string
	for _, b := range v.Bands {
		for _, m := range b.Spans {
			got = append(got, b.Name+" "+m.S+" "+m.X+" "+m.Width+" "+m.Hatch+" "+m.Label)
		}
	}
	want := []string{
		"Presence busy 16.67% 4.17%  ", "Presence available 20.83% 33.33%  Available", "Presence dnd 54.17% 4.17%  ", "Presence dnd 58.33% 16.67% 0.00% Do not disturb", "Presence available 75.00% 25.00% 0.00% Available",
		"manual dnd 54.17% 20.83% 20.00% Do not disturb", "aes-cm1 busy 16.67% 4.17%  ", "exchange-hq busy 50.00% 16.67% 50.00% Meeting",
	}
	if diff := cmp.Diff(want, got); diff != "" || !v.Ahead || v.Now.X != "58.33%" {
		t.Errorf("now %s (-want +got)\n%s", v.Now.X, diff)
	}
	if v.Bands[1].Y != bandsTop+resultHigh+bandGap || v.Height != v.Bands[3].Y+sourceHigh+4 {
		t.Errorf("the bands lie at %+v of %d", v.Bands, v.Height)
	}

	w := newWorld(person("7", "Greta Hoffmann", "21003"))
	s := newSite(w)
	now := time.Now().UTC()
	if now.Hour() > 20 { // the rest of the day is long enough
		s.zone = time.FixedZone("west", -6*3600)
	}
	w.says("7", "exchange-hq", presence.Span{Fact: presence.CalendarMeeting, From: now.Add(-time.Minute), Until: now.Add(time.Hour)}, presence.Span{Fact: presence.CalendarFree, From: now.Add(-time.Hour), Until: now.Add(9 * time.Hour)})
	page := parse(t, get(t, s, "/people/7").Body.String())
	if got := text(page.id(t, "ahead").Node); !strings.Contains(got, "Available") {
		t.Errorf("ahead: %s", got)
	}
	if got := text(page.id(t, "said").Node); !strings.Contains(got, "exchange-hq Calendar meeting") {
		t.Errorf("said: %s", got)
	}
	if n := len(page.class("hatch")); n == 0 {
		t.Error("nothing is striped")
	}
}

// Who set somebody's presence is told to that person and to who sees everybody, and to
// nobody else.
func TestWhoSetIt(t *testing.T) {
	w := office()
	w.says("21042", "manual", presence.Span{Fact: presence.ManualDND, From: time.Now().Add(-time.Minute), Until: time.Now().Add(time.Hour), Note: "local:ops"})
	marta := signin.Identity{Account: "local:marta", Role: signin.Person, Person: "21042"}
	other := signin.Identity{Account: "local:jo", Role: signin.Person, Person: "21017"}
	for _, tt := range []struct {
		name string
		who  signin.Identity
		a    presence.Access
		told bool
	}{
		{"themselves", marta, presence.Everyone(), true},
		{"an operator", operator, presence.Everyone(), true},
		{"somebody else", other, presence.Everyone(), false},
		{"who sees times", other, presence.Access{Level: presence.LevelFull, Calendar: presence.CalendarTimes}, false},
	} {
		w.rules["21042"] = tt.a
		s := newEstate(t, w, nil).site(tt.who)
		page := get(t, s, "/people/21042").Body.String()
		e, err := s.Explain(t.Context(), tt.who, "21042", time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(page, "local:ops") != tt.told || strings.Contains(string(answer), "local:ops") != tt.told || strings.Contains(e.Text(time.UTC), "local:ops") != tt.told {
			t.Errorf("%s: the page tells %v, the explanation %v, in words %v", tt.name, strings.Contains(page, "local:ops"), strings.Contains(string(answer), "local:ops"), strings.Contains(e.Text(time.UTC), "local:ops"))
		}
		if because := text(parse(t, page).id(t, "why").Node); tt.told && !strings.Contains(because, "set by local:ops") {
			t.Errorf("%s: %s", tt.name, because)
		}
	}
}
