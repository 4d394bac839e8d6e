package web

import (
	"net/url"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

// A page that does not show all that its filters let through is sent the rows that it
// has, whoever passes them by meanwhile, and counts everybody.
func TestEventsOfOnePage(t *testing.T) {
	var people []presence.Person
	for i := range pageRows + 10 {
		id := presence.ID(number(10000 + i))
		people = append(people, person(id, "P "+string(id), string(id)))
	}
	first, last := people[0].ID, people[len(people)-1].ID
	w := newWorld(people...)
	s := serve(t, w)
	since := "&since=" + cursorOf(t, s, w)
	watch := func(target string) string {
		return attr(parse(t, get(t, s, target).Body.String()).id(t, "main").Node, "data-watch") + since
	}
	if got := watch("/?q=P+" + string(first)); got != "q=P+"+url.QueryEscape(string(first))+since {
		t.Errorf("a page that shows everybody of its filters watches %s", got)
	}
	one, two := open(t, s, watch("/?sort=since"), ""), open(t, s, watch("/?sort=since&page=2"), "")
	one.want("ready")
	two.want("ready")

	w.says(last, "xmpp", span(presence.SessionActive, time.Now(), "")) // is first by since now, and keeps the place
	two.want("row " + domID(last) + " Available")
	w.says(first, "xmpp", span(presence.SessionActive, time.Now(), ""))
	one.want("row " + domID(first) + " Available")
	w.set(presence.State{Person: last, Why: presence.Reason{Rule: presence.RuleRemoved}})
	two.want("gone " + domID(last))
	waitFor(t, "the counts to be of everybody", func() bool {
		m, err := readMessage(one.r)
		return err == nil && m.name == "counts" && text(parse(t, m.data).class("chip")[0]) == "Everyone "+number(pageRows+9)
	})
}

// Whoever is among those that marks were made of is found again; of the others hardly anybody.
func TestMarks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.String(), 1, pageRows, rapid.ID).Draw(t, "ids")
		var members []*member
		for _, id := range ids {
			members = append(members, &member{person: presence.Person{ID: presence.ID(id)}})
		}
		m := parseMarks(marksOf(members).String())
		for _, id := range ids {
			if !m.has(markOf(presence.ID(id))) {
				t.Fatalf("%q is not found", id)
			}
		}
		if beyond := marks("\x00\x00\x00\x00"); m.has(beyond) != (m[:markSize] == beyond) {
			t.Fatal("one who is not among them is found")
		}
		parseMarks(rapid.String().Draw(t, "rubbish")).has(markOf("ann"))
	})
	for _, text := range []string{"", "AA", "====", marksOf(make([]*member, 0)).String(), marks(make([]byte, (pageRows+1)*markSize)).String()} {
		if m := parseMarks(text); m != "" || !m.has(markOf("ann")) {
			t.Errorf("%.10q makes %d bytes of marks", text, len(m))
		}
	}
}
