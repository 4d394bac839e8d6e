package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
)

func failing() []aggregator.Health {
	return []aggregator.Health{{Name: "aes-hq", Kind: aggregator.KindSource, Status: presence.Status{Phase: presence.PhaseDegraded}}}
}

// Who may set whose presence, and what becomes of it.
func TestByHand(t *testing.T) {
	w := office()
	s := guarded(t, w, nil)
	guests := map[string]*guest{"": newGuest(t, s)}
	for _, user := range []string{"marta", "ops", "root"} {
		guests[user] = newGuest(t, s).signs(user)
	}
	dnd := url.Values{"state": {"dnd"}, "for": {"1h"}}
	for _, tt := range []struct {
		who, whom string
		form      url.Values
		code      int
		want      string // on the page that it leads to
	}{
		{"", "21042", dnd, 403, "own presence only"},
		{"marta", "21017", dnd, 403, "own presence only"},
		{"marta", "21042", dnd, 303, "Marta Lindqvist is set to do not disturb, until "},
		{"marta", "21042", url.Values{"clear": {"1"}}, 303, "Marta Lindqvist is automatic again."},
		{"marta", "21042", url.Values{"state": {"away"}, "for": {"open"}, "back": {"me"}}, 303, "Marta Lindqvist is set to away."},
		{"ops", "21017", dnd, 303, "Tobias Renner is set to do not disturb"},
		{"root", "21017", url.Values{"state": {"busy"}, "for": {"today"}, "zone": {"Pacific/Auckland"}}, 303, "Tobias Renner is set to busy, until "},
		{"root", "nobody", dnd, 404, "Not found"},
		{"root", "21017", url.Values{"state": {"asleep"}, "for": {"1h"}}, 422, "cannot be set by hand"},
		{"root", "21017", url.Values{"state": {"dnd"}, "for": {"17 years"}}, 422, "choose for how long"},
		{"root", "21017", url.Values{"state": {"dnd"}}, 422, "choose for how long"},
	} {
		g := guests[tt.who]
		res, body := g.send(http.MethodPost, "/people/"+tt.whom+"/presence", tt.form.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
		if res.StatusCode == http.StatusSeeOther {
			to := "/people/" + tt.whom
			if tt.form.Get("back") == "me" {
				to = "/me"
			}
			if got := res.Header.Get("Location"); got != to {
				t.Errorf("%q of %s leads to %s", tt.who, tt.whom, got)
			}
			_, body = g.get(to)
			if _, again := g.get(to); strings.Contains(again, `id="done"`) {
				t.Errorf("%q of %s: it is told twice", tt.who, tt.whom)
			}
		}
		if !strings.Contains(body, tt.want) || res.StatusCode != tt.code {
			t.Errorf("%q of %s (%s): %d, want %d and %q", tt.who, tt.whom, tt.form.Encode(), res.StatusCode, tt.code, tt.want)
		}
	}
	if told := w.told(); !strings.Contains(told, "local:ops presence set 21017 manual-dnd") || strings.Contains(told, "nobody") {
		t.Errorf("the trail says\n%s", told)
	}
	w.refuses = fmt.Errorf("%w: the disk is secret", aggregator.ErrNotKept)
	if code, body := guests["marta"].post("/people/21042/presence", dnd); code != http.StatusServiceUnavailable || !strings.Contains(body, "the store does not take changes just now") || strings.Contains(body, "secret") {
		t.Errorf("while the store is away: %d", code)
	}
}

// The page of a person offers to set presence to who may.
func TestHandOnPages(t *testing.T) {
	w := office()
	s := guarded(t, w, nil)
	for who, want := range map[string]string{"": "Sign in to change this.", "marta": "", "ops": "Set presence for Tobias"} {
		g := newGuest(t, s)
		if who != "" {
			g.signs(who)
		}
		_, body := g.get("/people/21017")
		got := ""
		for _, n := range parse(t, body).find(func(n *html.Node) bool { return attr(n, "aria-labelledby") == "h-set" }) {
			got = text(n)
		}
		if !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%q is offered %q, want %q", who, got, want)
		}
	}
	for life, want := range map[string]time.Duration{"30m": 30 * time.Minute, "2h": 2 * time.Hour, "open": 0, "today": 2 * time.Hour} {
		now := time.Date(2026, 3, 2, 22, 0, 0, 0, time.UTC)
		end, err := parseLife(life, now)
		if err != nil || want == 0 != end.IsZero() || want > 0 && end.Sub(now) != want {
			t.Errorf("%s ends at %s, %v", life, end, err)
		}
	}
	if end, err := parseLife("today", time.Date(2026, 3, 2, 22, 0, 0, 0, time.UTC).In(zoneOf("Asia/Kathmandu", nil))); err != nil || end.UTC().Format("02 15:04") != "03 18:15" {
		t.Errorf("today in Nepal ends at %s, %v", end, err)
	}
	for _, zone := range []string{"../../etc/passwd", strings.Repeat("x", 65), "nowhere"} {
		if zoneOf(zone, time.UTC) != time.UTC {
			t.Errorf("%s is a zone", zone)
		}
	}
}

// Somebody lets in, blocks and hides what is theirs, and it counts at once.
func TestMe(t *testing.T) {
	w := office()
	s := guarded(t, w, nil)
	cursorOf(t, s, w)
	marta, stranger := newGuest(t, s).signs("marta"), newGuest(t, s)
	row := func() string {
		_, body := stranger.get("/")
		return text(parse(t, body).id(t, "p-21042").class("state")[0])
	}
	do := func(path string, form url.Values, code int, want string) {
		t.Helper()
		got, body := marta.post(path, form)
		if got == http.StatusSeeOther {
			_, body = marta.get("/me")
		}
		if got != code || !strings.Contains(body, want) {
			t.Errorf("%s %s: %d, want %d and %q", path, form.Encode(), got, code, want)
		}
	}
	do("/me/rules", url.Values{"kind": {"watcher"}, "name": {"web:anyone"}, "level": {"block"}}, 303, "web:anyone now sees: nothing, and you as offline.")
	if got := row(); got != "Offline" {
		t.Errorf("who is blocked sees %q", got)
	}
	do("/me/rules", url.Values{"kind": {"watcher"}, "name": {"web:anyone"}, "level": {"clear"}}, 303, "The rule is gone: web:anyone.")
	do("/me/rules", url.Values{"kind": {"default"}, "name": {"ignored"}, "level": {"status"}}, 303, "Everybody else now sees: the state only.")
	if got := row(); got != "Busy" {
		t.Errorf("at level status one sees %q", got)
	}
	do("/me/rules", url.Values{"kind": {"group"}, "name": {"Finance"}, "level": {"full"}}, 303, "The group Finance now sees: all that is not private.")
	do("/me/rules", url.Values{"kind": {"domain"}, "name": {"a b"}, "level": {"full"}}, 422, "cannot be taken as a domain")
	do("/me/rules", url.Values{"kind": {"planet"}, "level": {"full"}}, 422, "choose whom the rule is for")
	do("/me/rules", url.Values{"kind": {"default"}, "level": {"everything"}}, 422, "choose what they see")
	do("/me/privacy", url.Values{"calendar": {"hidden"}}, 303, "Your calendar, to others: do not show it.")
	do("/me/privacy", url.Values{"calendar": {"open air"}}, 422, "choose what others see")
	set, err := w.gate.Setting("21042")
	must(t, err)
	if len(set.Rules) != 2 || set.Rules[0].By != "local:marta" || set.Calendar == nil || *set.Calendar != presence.CalendarHidden {
		t.Errorf("set: %+v", set)
	}
	if told := w.told(); !strings.Contains(told, "local:marta access deny 21042 watcher web:anyone: none -> block") {
		t.Errorf("the trail says\n%s", told)
	}
	for who, code := range map[string]int{"ops": 403, "": 401} { // who is nobody in the directory, and who nobody is
		g := newGuest(t, s)
		if who != "" {
			g.signs(who)
		}
		if got, _ := g.post("/me/rules", url.Values{"kind": {"default"}, "level": {"full"}}); got != code {
			t.Errorf("%q: %d, want %d", who, got, code)
		}
	}
	if _, body := newGuest(t, s).signs("ops").get("/me"); !strings.Contains(body, "nobody in the directory") || !strings.Contains(body, "My API tokens") {
		t.Error("the page of who is nobody in the directory")
	}
}

// Who asks to watch is let in, on the page.
func TestMePending(t *testing.T) {
	w := office()
	s := guarded(t, w, nil)
	marta := newGuest(t, s).signs("marta")
	marta.post("/me/rules", url.Values{"kind": {"domain"}, "name": {"example.com"}, "level": {"confirm"}})
	bob := presence.Watcher{Subject: presence.Subject{Scheme: "jid", Value: "bob@example.com"}, Via: "xmpp-hq"}
	if a := w.gate.Admit(bob, "21042"); a.Shows() {
		t.Fatalf("he sees %+v", a)
	}
	_, body := marta.get("/me")
	if got := text(parse(t, body).id(t, "waiting").Node); !strings.Contains(got, "1 waiting") || !strings.Contains(got, "jid:bob@example.com xmpp-hq") {
		t.Errorf("waiting: %q", got)
	}
	if code, _ := marta.post("/me/rules", url.Values{"kind": {"watcher"}, "name": {"jid:bob@example.com"}, "level": {"status"}}); code != http.StatusSeeOther {
		t.Errorf("allow: %d", code)
	}
	if a := w.gate.Access(bob, "21042"); a.Level != presence.LevelStatus {
		t.Errorf("he sees %+v", a)
	}
	_, body = marta.get("/me")
	if strings.Contains(body, `id="waiting"`) || !strings.Contains(text(parse(t, body).id(t, "watchers").Node), "State only") {
		t.Error("he still waits, or does not watch")
	}
	_, body = newGuest(t, s).signs("ops").get("/people/21042")
	if got := text(parse(t, body).id(t, "watchers").Node); !strings.Contains(got, "jid:bob@example.com") || strings.Contains(got, "Block") {
		t.Errorf("an operator sees %q", got)
	}
	if _, body := newGuest(t, s).get("/people/21042"); strings.Contains(body, `id="watchers"`) {
		t.Error("anyone sees who watches")
	}
}

// While the rules cannot be read, or written, the page says so.
func TestMeWithoutTheStore(t *testing.T) {
	w := office()
	s := guarded(t, w, func(_ *Config, p *Parts) { p.Access = broken{p.Access} })
	marta := newGuest(t, s).signs("marta")
	if _, body := marta.get("/me"); !strings.Contains(body, "The rules cannot be read yet") {
		t.Error("the page does not say that the rules cannot be read")
	}
	if code, body := marta.post("/me/privacy", url.Values{"calendar": {"open"}}); code != http.StatusServiceUnavailable || !strings.Contains(body, "the store does not take changes") {
		t.Errorf("a change: %d", code)
	}
}

var errAway = errors.New("the store is away")

// broken is an Access whose store is away.
type broken struct{ Access }

func (broken) Setting(of presence.ID) (access.Setting, error) {
	return access.Setting{Of: of}, access.ErrUnread
}

func (broken) SetCalendar(context.Context, audit.Actor, presence.ID, presence.CalendarPrivacy) error {
	return errAway
}
