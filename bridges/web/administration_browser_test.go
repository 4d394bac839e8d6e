package web

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
)

// TestBrowserAdministration goes through what administrators do, in a browser.
func TestBrowserAdministration(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds: run without -short")
	}
	e := newEstate(t, town(), nil)
	e.health = append(e.health, aggregator.Health{Name: "directory", Kind: aggregator.KindDirectory, Status: presence.Status{Phase: presence.PhaseLive, Detail: "20 people"}, Polls: true})
	bob, err := access.ParseWatcher("jid:bob@example.net")
	if err != nil {
		t.Fatal(err)
	}
	s := e.site(admin)
	runSite(t, s, e.world)
	b := startBrowser(t, s)
	shots := func(name string) {
		b.look(name+"-light", 1440, 900, "light")
		b.look(name+"-dark", 1440, 900, "dark")
		b.look(name+"-narrow", 390, 844, "light")
	}

	// Sources are live, and the page of one of them too.
	b.open("/sources")
	b.until(`document.querySelectorAll('.source').length === 7`)
	b.do(chromedp.Click(`#part-directory-poll`))
	b.until(`document.getElementById('done')?.textContent.trim().startsWith('directory is asked again')`)
	if asked := e.polls.take(); len(asked) != 1 || asked[0] != "directory" {
		t.Errorf("asked %q", asked)
	}
	e.set(presence.State{Person: renner}) // an event, which must not matter
	e.mu.Lock()
	e.health[len(e.health)-1].Detail = "21 people"
	e.mu.Unlock()
	b.until(`document.querySelector('#part-directory .facts-line').textContent.includes('21 people')`)
	b.open("/sources")
	shots("sources")
	b.open("/sources/aes-cm2")
	shots("source")

	// A table is tried: with a mistake, then without.
	now := time.Now()
	e.differences = []journal.Difference{
		{Person: renner, From: now.Add(-time.Hour), Until: now.Add(-time.Minute), Was: presence.State{Availability: presence.Available, Why: presence.Reason{Rule: "session-active"}}, Would: presence.State{Availability: presence.Busy, Activity: presence.ActivityTentative, Why: presence.Reason{Rule: "tentative"}}},
		{Person: doyle, From: now.Add(-2 * time.Hour), Was: presence.State{Availability: presence.Away, Why: presence.Reason{Rule: "session-away"}}, Would: presence.State{Availability: presence.Busy, Activity: presence.ActivityTentative, Why: presence.Reason{Rule: "tentative"}}},
	}
	b.open("/policy")
	shots("policy")
	b.do(chromedp.SetValue(`#table`, "rules:\n- {rule: a, title: A, any: [phone-conected], availability: busy}\n- {rule: unknown, title: Nothing, availability: unknown}\n"))
	b.do(chromedp.Click(`button[value=run]`))
	b.until(`document.getElementById('mistakes')?.textContent.includes('Line 2')`)
	shots("policy-wrong")
	b.do(chromedp.SetValue(`#table`, string(e.Table())))
	b.do(chromedp.Click(`button[value=run]`))
	b.until(`document.querySelector('#dry-run .tally')?.textContent.includes('1 Available → Busy')`)
	shots("policy-run")

	// A rule is set, changed and removed; somebody is let in; it is tested.
	if err := e.gate.Set(t.Context(), actorForTest(), access.Rule{Of: doyle, For: access.Audience{Kind: access.ForDefault}, Level: presence.LevelConfirm}); err != nil {
		t.Fatal(err)
	}
	e.gate.Admit(presence.Watcher{Subject: bob, Via: "xmpp"}, doyle)
	b.open("/access")
	b.until(`document.querySelectorAll('#waiting li').length === 1`)
	b.do(chromedp.SetValue(`#of`, "Tobias Renner"), chromedp.SetValue(`#kind`, "group"), chromedp.SetValue(`#name`, "Sales"), chromedp.SetValue(`#level`, "status"), chromedp.Click(`#rule button`))
	b.until(`document.getElementById('done')?.textContent.includes('Group sales sees status of Tobias Renner') || document.getElementById('done')?.textContent.includes('Group Sales sees status of Tobias Renner')`)
	b.open("/access")
	shots("access")
	b.do(chromedp.Click(`#waiting button[value=allow]`))
	b.until(`document.getElementById('done')?.textContent.includes('jid:bob@example.net is let in. They see now: full')`)
	b.do(chromedp.SetValue(`#watcher`, "jid:bob@example.net"), chromedp.SetValue(`#whom`, doyle), chromedp.Click(`#test button`))
	b.until(`document.querySelector('.answer')?.textContent.includes('sees of Declan Doyle: full')`)
	shots("access-test")

	// What was done stands in the trail, and can be looked for.
	b.open("/audit")
	b.until(`document.querySelectorAll('tbody tr').length === 3`)
	shots("audit")
	b.do(chromedp.SetValue(`input[name=what]`, "allow"), chromedp.Click(`#search button`))
	b.until(`document.querySelectorAll('tbody tr').length === 1 && document.querySelector('tbody td').textContent.startsWith('local:greta')`)
	b.until(`new URL(location.href).searchParams.get('since').endsWith('.000Z')`)

	b.open("/about")
	b.until(`document.querySelectorAll('.prose td').length > 20`)
	shots("about")
	b.open("/docs/operating")
	b.until(`document.querySelectorAll('.prose h2').length > 3`)
	shots("doc")
	b.mu.Lock() // a browser tells the console that a form was refused
	b.messages = slices.DeleteFunc(b.messages, func(m string) bool { return strings.Contains(m, "422") && strings.HasSuffix(m, "/policy") })
	b.mu.Unlock()
	b.clean()
}
