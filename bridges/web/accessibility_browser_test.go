package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
	"presenced/fixtures/peers"
)

// A sight is a page as somebody may see it, for axe-core to judge.
type sight struct {
	path  string
	as    string // nothing: who did not sign in
	does  string // what is done there first, if anything
	until string // a selector of what shows then
}

// sights has every page, in each shape that differs from the others.
func sights() []sight {
	return []sight{
		{path: "/"},
		{path: "/?q=nobody+at+all"},
		{path: "/people/" + doyle},
		{path: "/sources"},
		{path: "/services"},
		{path: "/about"},
		{path: "/signin"},
		{path: "/signin", does: `(user.value = password.value = 'x', user.form.submit())`, until: `#bad`},
		{path: "/no-such-page"},
		{path: "/", as: "greta"},
		{path: "/people/" + greta, as: "greta"},
		{path: "/people/" + doyle, as: "greta"},
		{path: "/me", as: "greta"},
		{path: "/access", as: "greta"},
		{path: "/", as: "root"},
		{path: "/people/" + greta, as: "root"},
		{path: "/people/" + doyle + "?at=tomorrow", as: "root"},
		{path: "/people/" + doyle + "?at=" + time.Now().Add(-time.Minute).UTC().Format(time.RFC3339), as: "root"},
		{path: "/me", as: "root"},
		{path: "/services", as: "root"},
		{path: "/services/add", as: "root"},
		{path: "/services/add", as: "root", does: `document.querySelector('.savebar .primary').click()`, until: `#wrong`},
		{path: "/services/presence/hq-presence", as: "root"},
		{path: "/services/presence/hq-presence", as: "root", does: `(document.getElementById('f-users').value = 'group:Sales', document.querySelector('.savebar .primary').click())`, until: `input[name=overwrite]`},
		{path: "/services/presence/hq-presence/delete", as: "root"},
		{path: "/sources", as: "root"},
		{path: "/sources/aes-cm2", as: "root"},
		{path: "/policy", as: "root"},
		{path: "/policy", as: "root", does: `(table.value = 'rules: []', document.querySelector('button[value=run]').click())`, until: `#mistakes`},
		{path: "/policy", as: "root", does: `fetch('/policy.yaml').then((a) => a.text()).then((t) => { table.value = t; document.querySelector('button[value=run]').click(); })`, until: `#dry-run .tally`},
		{path: "/access", as: "root"},
		{path: "/access?watcher=jid%3Abob%40example.net&whom=" + doyle, as: "root"},
		{path: "/audit", as: "root"},
		{path: "/about", as: "root"},
		{path: "/docs/operating", as: "root"},
	}
}

// TestBrowserAccessibility has axe-core judge every page by WCAG 2.2 AA and by what
// is held to be good practice, and sees that none is wider than its screen.
func TestBrowserAccessibility(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds: run without -short")
	}
	axe := peers.Axe(t)
	s := populated(t)
	b := startBrowser(t, s)
	b.everyPage(sights())
	as := ""
	for i, at := range sights() {
		if at.as != as {
			b.signIn(at.as)
			as = at.as
		}
		name := at.path
		if as != "" {
			name += " as " + as
		}
		b.screen(1440, 900, "light")
		b.open(at.path)
		if at.does != "" {
			b.eval(at.does)
			b.until(`document.readyState === 'complete' && document.querySelector('` + at.until + `') !== null`)
			name += " with " + at.until
		}
		b.eval(`document.querySelectorAll('details').forEach((d) => { d.open = true; })`)
		b.do(chromedp.Evaluate[chromedp.Void](axe))
		b.judged(name+", light, 1440 px", everyRule)
		b.picture(fmt.Sprintf("%02d-light", i))
		b.screen(390, 844, "dark")
		b.judged(name+", dark, 390 px", everyRule)
		b.picture(fmt.Sprintf("%02d-dark-narrow", i))
		b.screen(820, 1180, "dark")
		b.judged(name+", dark, 820 px", rulesOfWidth)
		b.screen(2560, 1440, "light")
		b.judged(name+", light, 2560 px", rulesOfWidth)
		b.screen(320, 568, "light")
		b.fits(name + ", 320 px")
	}

	// The menu of a narrow page lies above it.
	b.screen(390, 844, "light")
	b.open("/")
	b.do(chromedp.Evaluate[chromedp.Void](axe), chromedp.Click(`.top-menu`))
	b.judged("/, the menu", everyRule)
}

// populated serves a town in which everything can be seen and administered.
func populated(t *testing.T) *Site {
	t.Helper()
	w := town()
	w.join(person("21599", "Maria-Magdalena Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtin", "21599", "Strategic Partnerships, Business Development and Alliances"))
	now := time.Now()
	w.says("21599", "aes-cm1", span(presence.PhoneIdle, now, "tel:21599"))
	var rack *rack
	s := guardedFor(t, w, func(_ *Config, p *Parts) {
		e := newEstate(t, w, nil)
		must(t, e.gate.Set(t.Context(), actorForTest(), access.Rule{Of: doyle, For: access.Audience{Kind: access.ForDefault}, Level: presence.LevelStatus})) // which the trail tells
		e.differences = []journal.Difference{{
			Person: renner, From: now.Add(-time.Hour), Until: now.Add(-time.Minute),
			Was: presence.State{Availability: presence.Available, Why: presence.Reason{Rule: "session-active"}}, Would: presence.State{Availability: presence.Busy, Activity: presence.ActivityTentative, Why: presence.Reason{Rule: "tentative"}},
		}}
		e.adds(p)
		p.OptIn = true
		rack = newRack(t, w)
		p.Services = rack
	},
		signin.NewAccount{User: "root", Role: signin.Administrator},
		signin.NewAccount{User: "greta", Name: "Greta Hoffmann", Role: signin.Person, Subjects: []presence.Subject{{Scheme: "id", Value: greta}}},
	)
	rack.put(t, "id=hq-presence", "primary.name=Headquarters", "primary.host=ps1.hq.example.com", "secondary.host=ps2.hq.example.com", "transport=tcp", "entity=sip:{tel}@example.com", "users=everyone")
	rack.put(t, "id=lab", "primary.host=kamailio.lab.example.com", "entity=sip:{tel}@lab.example.com", "users=group:Sales")
	rack.fares("hq-presence", Server{"ps1.hq.example.com:5060", false, 0, now, "no answer to OPTIONS in 32 s"}, Server{"ps2.hq.example.com:5060", true, 20, now, ""})
	runSite(t, s, w)
	for _, jid := range []string{"leila@example.org", "bob@example.net"} {
		w.gate.Admit(presence.Watcher{Subject: presence.Subject{Scheme: "jid", Value: jid}, Via: "xmpp-hq"}, greta)
	}
	w.health = append(w.health, aggregator.Health{Name: "exchange-hq/calendar", Kind: aggregator.KindSource, Polls: true, Status: presence.Status{Phase: presence.PhaseLive, Detail: "covers 7 mailboxes"}, Since: now.Add(-time.Hour)})
	g := newGuest(t, s).signs("greta")
	g.post("/people/"+greta+"/presence", url.Values{"state": {"dnd"}, "for": {"2h"}})
	g.post("/me/rules", url.Values{"kind": {"domain"}, "name": {"example.org"}, "level": {"confirm"}})
	g.post("/me/rules", url.Values{"kind": {"watcher"}, "name": {"jid:bot@chat.example.com"}, "level": {"block"}})
	return s
}

// everyPage fails the test where an address that gives a page is among no sight.
func (b *browser) everyPage(all []sight) {
	b.t.Helper()
	others := []string{"/static/", "/events", "/api/", "/healthz", "/metrics", "/policy.yaml", "/audit.csv", "/audit.json", "/signin/", "/me/access"}
	for _, path := range slices.Concat(patterns(b.t, ".", http.MethodGet), patterns(b.t, "signin", http.MethodGet)) {
		path = strings.NewReplacer("21042", "*", "style.css", "*").Replace(path)
		if slices.ContainsFunc(others, func(o string) bool { return strings.HasPrefix(path, o) }) {
			continue
		}
		if !slices.ContainsFunc(all, func(at sight) bool {
			only, _, _ := strings.Cut(at.path, "?")
			fits, err := filepath.Match(path, only)
			must(b.t, err)
			return fits
		}) {
			b.t.Errorf("nobody looks at %s", path)
		}
	}
}

// signIn has the browser be an account of the test.
func (b *browser) signIn(user string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, network.ClearBrowserCookies, cdp.Empty{}); err != nil {
		b.t.Fatal(err)
	}
	b.open("/signin")
	b.do(chromedp.SetValue(`#user`, user), chromedp.SetValue(`#password`, secretWords), chromedp.Click(`form .btn.primary`))
	b.until(`location.pathname === '/' && document.querySelector('.whoami')?.getAttribute('href') === '/me'`)
}

// What axe-core is asked: everything, and what only the width of a page changes.
const (
	everyRule    = `{ type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }`
	rulesOfWidth = `{ type: 'rule', values: ['target-size', 'scrollable-region-focusable'] }`
)

// judged fails the test for everything that axe-core has against the page, and for one
// that is wider than its screen.
func (b *browser) judged(name, rules string) {
	b.t.Helper()
	b.fits(name)
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`axe.run(document, { runOnly: `+rules+`, resultTypes: ['violations'] }).then(({ violations }) => JSON.stringify(
		violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map(({ target, any, all, none }) => target.join(' ') + ': ' + [...any, ...all, ...none].map((c) => c.message).join('; ')) }))))`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: axe-core: %v", name, err)
	}
	var violations []struct {
		ID, Help string
		Nodes    []string
	}
	must(b.t, json.Unmarshal([]byte(out), &violations))
	for _, v := range violations {
		b.t.Errorf("%s: %s (%s) at\n\t%.1000s", name, v.ID, v.Help, strings.Join(v.Nodes, "\n\t"))
	}
}
