package web

import (
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// The pages of services in a browser, as an administrator: what is wrong shows while
// it is typed, the state of the servers follows, and a connection is tried in place.
// That people are published then is tested in cmd/presenced.
func TestBrowserServices(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds: run without -short")
	}
	w := town()
	rack := newRack(t, w)
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	s := New(cfg, w, w, Parts{Past: w, Services: rack}, nil, quiet())
	runSite(t, s, w)
	mux := http.NewServeMux()
	s.places = nil
	s.boardRoutes(mux)
	s.servicesRoutes(mux)
	s.sourcesRoutes(mux)
	mux.HandleFunc("GET /static/{name}", s.asset)
	server := httptest.NewServer(s.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r.WithContext(signin.With(r.Context(), admin)))
	})))
	defer server.Close()
	defer server.CloseClientConnections() // the streams
	b := startBrowser(t, s)
	b.base = server.URL

	now := time.Now()
	rack.put(t, "id=hq-presence", "primary.name=Headquarters", "primary.host=ps1.hq.example.com", "primary.port=5061", "secondary.host=ps2.hq.example.com", "secondary.port=5061", "transport=tls", "entity=sip:{tel}@example.com", "users=everyone", "publish_interval=1h")
	rack.put(t, "id=lab-kamailio", "primary.host=kamailio.lab.example.com", "entity=sip:{tel}@lab.example.com", "users=group:Sales,21001")
	rack.put(t, "id=plant-south", "primary.host=ps1.south.example.com", "secondary.host=ps2.south.example.com", "transport=tcp", "entity=sip:{tel}@example.com", "users=group:Engineering")
	rack.fares("hq-presence", Server{"ps1.hq.example.com:5061", true, 20, now, ""}, Server{"ps2.hq.example.com:5061", false, 0, now, ""})
	rack.fares("plant-south", Server{"ps1.south.example.com:5060", false, 0, now, "no answer to OPTIONS in 32 s"}, Server{"ps2.south.example.com:5060", true, 5, now, ""})
	rack.fares("lab-kamailio", Server{"kamailio.lab.example.com:5060", true, 0, now, ""})
	health := func(name string, st presence.Status) aggregator.Health {
		return aggregator.Health{Name: name, Kind: aggregator.KindBridge, Status: st}
	}
	fares := func(all ...aggregator.Health) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.health = all
	}
	south := health("plant-south", presence.Status{Phase: presence.PhaseDegraded, Detail: "Publishing at ps2.south.example.com:5060, because ps1.south.example.com:5060 does not answer.", Done: 5, Total: 5, LastError: "no answer to OPTIONS in 32 s", LastErrorAt: now.Add(-40 * time.Minute)})
	lab := health("lab-kamailio", presence.Status{Phase: presence.PhaseStale, Detail: "The server refuses our password. Check user and password_file.", Total: 6, LastError: "403 Forbidden", LastErrorAt: now.Add(-3 * time.Hour)})
	hq := presence.Status{Phase: presence.PhaseLive, Detail: "20 people published at ps1.hq.example.com:5061.", Done: 20, Total: 20}
	fares(health("hq-presence", hq), south, lab)

	shots := func(name string) {
		t.Helper()
		b.eval(`scrollTo(0, 0)`)
		if os.Getenv("PRESENCED_SCREENSHOTS") != "" {
			b.look(name+"-light", 1440, 900, "light")
			b.look(name+"-dark", 1440, 900, "dark")
		}
		b.look(name+"-narrow", 390, 844, "light")
		b.do(chromedp.EmulateViewport(1440, 900))
	}
	news := func() { // not before the page asks by itself
		t.Helper()
		b.eval(`document.dispatchEvent(new Event('visibilitychange'))`)
	}
	until := b.until
	click := func(selector string) {
		t.Helper()
		until(`(() => { const node = document.readyState === 'complete' && document.querySelector('` + selector + `'); if (node) node.click(); return Boolean(node); })()`)
	}
	write := func(id, text string) {
		t.Helper()
		b.eval(`(() => { const field = document.getElementById('` + id + `'); field.value = '` + text + `'; field.dispatchEvent(new Event('input', { bubbles: true })); })()`)
	}
	b.open("/services")
	until(`document.querySelectorAll('#list tbody tr').length === 3 && document.querySelectorAll('#notes .note').length === 2`)
	shots("services")

	// The list follows.
	b.eval(`window.stayed = 'yes'`)
	b.do(chromedp.Focus(`#edit-plant-south`))
	fares(health("hq-presence", hq), health("plant-south", presence.Status{Phase: presence.PhaseLive, Done: 5, Total: 5}), lab)
	news()
	until(`document.querySelectorAll('#notes .note').length === 1`)
	if got := b.eval(`document.activeElement.id + ' ' + window.stayed`); got != "edit-plant-south yes" {
		t.Errorf("after the news: %s", got)
	}

	// What is wrong shows while it is typed, where somebody typed.
	b.open("/services/add")
	shots("service-add")
	b.do(chromedp.SendKeys(`#f-id`, "Branch"))
	until(`document.getElementById('f-id-e').textContent.includes('lower-case letters')`)
	if got := b.eval(`document.getElementById('f-primary-host-e').hidden`); got != "true" {
		t.Error("a field where nobody was yet is called wrong")
	}
	write("f-id", "")
	b.do(chromedp.SendKeys(`#f-id`, "branch"))
	until(`document.getElementById('f-id-e').hidden && !document.getElementById('f-id').hasAttribute('aria-invalid')`)
	b.do(chromedp.SendKeys(`#f-primary-host`, "ps.branch..example"), chromedp.SendKeys(`#f-users`, "group:Sales"))
	until(`document.getElementById('f-primary-host-e').textContent.includes('neither a fully qualified name')`)
	b.eval(`document.getElementById('f-primary-host').scrollIntoView({block: 'center'})`)
	b.look("service-typed", 1440, 900, "light")
	click(`.savebar .primary`)
	until(`document.querySelector('#wrong') !== null && document.activeElement.id === 'wrong'`)
	shots("service-wrong")
	write("f-primary-host", "ps.branch.example.com")
	b.do(chromedp.SendKeys(`#f-entity`, "sip:{tel}@example.com"))
	until(`document.getElementById('says').textContent.startsWith('6 added, 0 removed')`)

	until(`document.getElementById('wrong').hidden`)
	b.look("service-tall", 1440, 2300, "light")
	b.do(chromedp.EmulateViewport(1440, 900))

	// A connection is tried in place.
	rack.mu.Lock()
	rack.trials = []Trial{{"ps.branch.example.com:5060", false, "nothing answers OPTIONS by udp: is a SIP server there, and does it take requests from this machine?"}}
	rack.mu.Unlock()
	b.eval(`window.stayed = 'yes'`)
	click(`#trials button`)
	until(`document.getElementById('trials').textContent.includes('Does not work') && window.stayed === 'yes'`)
	shots("service-test")

	// Enter previews; the boxes; saving.
	b.do(chromedp.SendKeys(`#f-primary-name`, "Branch\r"))
	until(`document.getElementById('preview')?.textContent.includes('shows of 6 people')`)
	shots("service-preview")
	click(`.savebar .primary`)
	until(`document.querySelector('#preview .note.bad')?.textContent.includes('tick the box')`)
	click(`input[name=overwrite]`)
	click(`.savebar .primary`)
	until(`location.pathname === '/services/presence/branch' && document.getElementById('done')?.textContent.includes('branch is added')`)

	// The status of one follows, and what is typed stays.
	b.open("/services/presence/hq-presence")
	write("f-primary-name", "HQ")
	fares(health("hq-presence", presence.Status{Phase: presence.PhaseSyncing, Detail: "Publishing at ps1.hq.example.com:5061.", Done: 11, Total: 20}), lab)
	news()
	until(`document.getElementById('status').textContent.includes('11 of 20')`)
	if got := b.eval(`document.getElementById('f-primary-name').value`); got != "HQ" {
		t.Errorf("what was typed became %q", got)
	}
	shots("service-edit")
	write("f-users", "group:Sales")
	click(`.savebar .primary`)
	until(`document.querySelector('input[name=force]') !== null`)
	shots("service-excess")
	b.eval(`document.querySelector('.savebar').scrollIntoView()`)
	b.look("service-excess-below", 1440, 900, "light")
	b.look("service-excess-below-narrow", 390, 844, "light")

	b.open("/services/presence/hq-presence/delete")
	shots("service-delete")
	b.do(chromedp.SendKeys(`#confirm`, "hq\r"))
	until(`document.getElementById('confirm-e')?.textContent.includes('type hq-presence')`)
	b.do(chromedp.SendKeys(`#confirm`, "hq-presence\r"))
	until(`location.pathname === '/services' && document.getElementById('done')?.textContent.includes('hq-presence is deleted')`)
	b.mu.Lock()
	b.messages = slices.DeleteFunc(b.messages, func(m string) bool { return strings.Contains(m, "status of 422") }) // forms that were not right
	b.mu.Unlock()
	b.clean()
}
