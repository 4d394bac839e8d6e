package web

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"presenced/aggregator"
)

func TestPollNow(t *testing.T) {
	e := newEstate(t, office(), nil)
	e.unwell(2)
	s := e.site(operator)
	buttons := map[string]string{}
	page := parse(t, get(t, s, "/sources").Body.String())
	for _, n := range page.find(func(n *html.Node) bool { return n.Data == "form" && strings.HasPrefix(attr(n, "action"), "/sources") }) {
		buttons[attr(n, "action")] = text(n)
	}
	want := map[string]string{"/sources/poll": "Poll all", "/sources/exchange-hq%2Fcalendar/poll": "Poll now", "/sources/hq/poll": "Try now"}
	if diff := cmp.Diff(want, buttons); diff != "" {
		t.Errorf("buttons (-want +got)\n%s", diff)
	}
	to, said := told(t, s, post(t, s, "/sources/exchange-hq%2Fcalendar/poll", nil))
	if to != "/sources/exchange-hq%2Fcalendar" || !strings.HasPrefix(said, "exchange-hq/calendar is asked again.") {
		t.Errorf("%s: %q", to, said)
	}
	if _, said = told(t, s, post(t, s, "/sources/poll", nil)); !strings.HasPrefix(said, "1 part is asked again.") {
		t.Errorf("all: %q", said)
	}
	if diff := cmp.Diff([]string{"exchange-hq/calendar", "exchange-hq/calendar"}, e.polls.take()); diff != "" {
		t.Errorf("asked (-want +got)\n%s", diff)
	}
	e.polls.err = fmt.Errorf("%w: wait 4s", aggregator.ErrTooSoon)
	if _, said = told(t, s, post(t, s, "/sources/hq/poll", nil)); !strings.Contains(said, "not asked that often: wait 4s") {
		t.Errorf("too soon: %q", said)
	}
	if _, said = told(t, s, post(t, s, "/sources/poll", nil)); said != "0 parts are asked again. What they answer shows here as it comes. 1 was asked a moment ago." {
		t.Errorf("all, too soon: %q", said)
	}
	e.polls.err = aggregator.ErrNoPart
	if rec := post(t, s, "/sources/%3Cscript%3E/poll", nil); rec.Code != http.StatusNotFound || strings.Contains(rec.Body.String(), "<script>") {
		t.Errorf("nobody: %d", rec.Code)
	}
}

func TestSourcePage(t *testing.T) {
	e := newEstate(t, office(), nil)
	e.unwell(300)
	s := e.site(operator)
	page := parse(t, get(t, s, "/sources/aes-cm2").Body.String())
	if got := text(page.id(t, "known").Node); !strings.Contains(got, "Reports 4,711 Frames malformed 2 Last error the answer <b>\"busy\"</b>") {
		t.Errorf("known: %q", got)
	}
	if n := len(page.find(func(n *html.Node) bool { return n.Data == "progress" && attr(n, "value") == "3210" })); n != 1 {
		t.Errorf("%d bars", n)
	}
	rows := func(target string) (rows []string, foot string) {
		t.Helper()
		page := parse(t, get(t, s, target).Body.String())
		for _, n := range page.find(func(n *html.Node) bool { return n.Data == "tr" && n.Parent.Data == "tbody" }) {
			rows = append(rows, text(n))
		}
		for _, n := range page.find(func(n *html.Node) bool { return n.Data == "footer" }) {
			foot = text(n)
		}
		return rows, foot
	}
	all, foot := rows("/sources/aes-cm2")
	if len(all) != maxUncovered || foot != "The first 200 of 301; search for one." {
		t.Errorf("%d rows, %q", len(all), foot)
	}
	for query, want := range map[string]string{"q=lindqvist": "21042 Marta Lindqvist not a station", "q=STATION": "21042 Marta Lindqvist not a station", "q=30299+licence": "30299 nobody known no licence for another monitor"} {
		if got, _ := rows("/sources/aes-cm2?" + query); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q", query, got)
		}
	}
	if body := get(t, s, "/sources/aes-cm2?q=%3Cscript%3Ealert").Body.String(); strings.Contains(body, "<script>alert") || !strings.Contains(body, "None of them fits") {
		t.Error("a search that finds nobody")
	}
	if rec := get(t, s, "/sources/nobody"); rec.Code != http.StatusNotFound {
		t.Errorf("nobody: %d", rec.Code)
	}
}
