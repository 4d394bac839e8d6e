package web

import (
	"net/url"
	"testing"

	"github.com/chromedp/chromedp"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// The first administrator comes by the link, and makes an account; a person signs in,
// sets their presence, sees it on the board at once, and leaves.
func TestBrowserSignIn(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds: run without -short")
	}
	w := town()
	s := guardedFor(t, w, nil)
	runSite(t, s, w)
	b := startBrowser(t, s)
	link, err := s.parts.SignIn.FirstLink()
	must(t, err)
	at, err := url.Parse(link)
	must(t, err)

	b.open("/")
	b.until(`document.querySelectorAll('#side a').length === 4 && document.querySelector('#live')?.textContent.startsWith('live')`)
	b.look("board-anyone-narrow", 390, 844, "light")
	b.open("/me") // which leads to the door
	b.until(`location.pathname === '/signin' && document.querySelector('#user') !== null`)
	b.look("signin-light", 1440, 900, "light")
	b.open(at.RequestURI())
	b.do(chromedp.SendKeys(`#user`, "root"), chromedp.SendKeys(`#password`, secretWords), chromedp.SendKeys(`#again`, secretWords))
	b.look("first-light", 1440, 900, "light")
	b.do(chromedp.Click(`.btn.primary`))
	b.until(`location.pathname === '/' && document.querySelector('.whoami')?.textContent.includes('root')`)
	b.until(`document.querySelectorAll('#side a').length === 6`)
	b.look("board-root", 1440, 900, "light")
	b.look("board-root-narrow", 390, 844, "light")
	b.open(at.RequestURI()) // it works once
	b.until(`document.body.textContent.includes('This link does not work')`)

	// Somebody else, who is in the directory.
	must(t, s.parts.SignIn.Add(t.Context(), signin.By{Who: "local:root", From: "test"}, signin.NewAccount{
		User: "greta", Name: "Greta Hoffmann", Role: signin.Person, Password: secretWords, Subjects: []presence.Subject{{Scheme: "id", Value: greta}},
	}))
	w.gate.Admit(presence.Watcher{Subject: presence.Subject{Scheme: "mail", Value: "tobias.renner@example.com"}, Via: "web"}, greta)
	b.do(chromedp.EmulateViewport(1440, 900))
	b.open("/")
	b.do(chromedp.Click(`#side form .btn`))
	b.until(`location.pathname === '/signin'`)
	b.do(chromedp.SendKeys(`#user`, "greta"), chromedp.SendKeys(`#password`, "guess"), chromedp.Click(`.btn.primary`))
	b.until(`document.querySelector('#bad') !== null`)
	b.look("signin-bad-dark", 1440, 900, "dark")
	b.do(chromedp.SendKeys(`#password`, secretWords), chromedp.Click(`.btn.primary`))
	b.until(`location.pathname === '/' && document.querySelector('.whoami')?.textContent.includes('Greta Hoffmann')`)
	b.until(`document.querySelector('#side')?.textContent.includes('Sources') && !document.querySelector('#side')?.textContent.includes('Audit')`)

	// From another page of hers: the board follows, without being loaded anew.
	b.until(`document.querySelector('#live')?.textContent.startsWith('live')`)
	b.eval(`window.stayed = 'yes'`)
	other := newGuest(t, s).signs("greta")
	other.post("/people/"+greta+"/presence", url.Values{"clear": {"1"}})
	w.says(greta, "xmpp")
	other.post("/people/"+greta+"/presence", url.Values{"state": {"dnd"}, "for": {"2h"}})
	b.until(`document.querySelector('#p-` + greta + ` .state').textContent === 'Do not disturb' && window.stayed === 'yes'`)

	b.open("/me")
	b.until(`document.querySelector('input[name=zone]').value === 'Europe/Berlin'`)
	b.until(`document.querySelector('#by-hand')?.textContent.startsWith('Do not disturb until')`)
	other.post("/me/rules", url.Values{"kind": {"domain"}, "name": {"example.org"}, "level": {"confirm"}})
	other.post("/me/rules", url.Values{"kind": {"watcher"}, "name": {"jid:bot@chat.example.com"}, "level": {"block"}})
	w.gate.Admit(presence.Watcher{Subject: presence.Subject{Scheme: "jid", Value: "leila@example.org"}, Via: "xmpp-hq"}, greta)
	b.open("/me")
	b.until(`document.querySelector('#waiting') !== null`)
	b.look("me-light", 1440, 1700, "light")
	b.look("me-dark", 1440, 1700, "dark")
	b.look("me-narrow", 390, 3600, "light")
	b.look("me-wide", 2560, 1200, "light")
	b.do(chromedp.EmulateViewport(1440, 1700))
	b.do(chromedp.Click(`#waiting .btn.primary`))
	b.until(`document.querySelector('#done')?.textContent === 'jid:leila@example.org now sees: all that is not private.' && document.querySelector('#waiting') === null`)
	b.eval(`document.querySelector('input[name=state][value=away]').click()`)
	b.eval(`document.querySelector('input[name=for][value="30m"]').click()`)
	b.do(chromedp.Click(`form[action$="/presence"] .btn.primary`))
	b.until(`document.querySelector('#done')?.textContent.startsWith('Greta Hoffmann is set to away, until ')`)
	b.until(`document.querySelector('.say b')?.textContent.startsWith('Away')`)
	b.look("me-done", 1440, 900, "light")

	b.open("/people/" + greta)
	b.look("person-own-light", 1440, 1500, "light")
	b.look("person-own-dark", 1440, 1500, "dark")
	b.look("person-own-narrow", 390, 3000, "light")
	b.do(chromedp.EmulateViewport(1440, 1700))
	b.do(chromedp.Click(`button[name=clear]`))
	b.until(`document.querySelector('#by-hand')?.textContent === 'Automatic now'`)

	// Signing out elsewhere everywhere takes this page away, and leaves that of anyone.
	b.open("/me")
	b.until(`document.querySelector('#live')?.textContent.startsWith('live')`)
	other.post("/me/sessions/end", url.Values{"id": {"all"}})
	b.until(`location.pathname === '/signin'`)
	waitFor(t, "no stream to be left", func() bool { return s.streams.Load() == 0 })
}

const greta = "21013"
