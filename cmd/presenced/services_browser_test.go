package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"presenced/bridges/pidf"
	"presenced/fixtures/peers"
)

// TestServicesInBrowser administers a presence service from the page of the whole
// service: the first administrator signs in by the link of the log, adds a service
// after a look at what it does, edits it and deletes it, and watchers at a real server
// see it.
func TestServicesInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds: run without -short")
	}
	server := peers.Kamailio(t)
	port := server.Address[strings.LastIndexByte(server.Address, ':')+1:]
	s := newSite(t, "")
	log, _ := s.serve()
	s.await("alder", "available/")
	s.listening()
	b := newTab(t)

	// Nobody signs in: the list is there, and nothing to change it with.
	b.open(s.url + "/services")
	b.until(`document.body.textContent.includes('Sign in to change this.') && document.querySelector('[href="/services/add"]') === null`)

	b.open(firstLink(t, log))
	b.fill("#user", "greta")
	b.fill("#password", "correct horse battery")
	b.fill("#again", "correct horse battery")
	b.click("form .primary")
	b.until(`location.pathname === '/' && document.body.textContent.includes('greta')`)

	b.open(s.url + "/services")
	b.click(`[href="/services/add"]`)
	b.until(`document.getElementById('service') !== null`)
	b.fill("#f-id", "hq")
	b.fill("#f-entity", "sip:{tel}@example.test")
	b.fill("#f-primary-host", "127.0.0.1")
	b.fill("#f-primary-port", port)
	b.fill("#f-users", "alder\nbirch\nstranger")
	b.click("#trials button")
	b.until(`document.getElementById('trials')?.textContent.includes('answers, and takes publications')`)
	b.click(".savebar .primary")
	b.until(`document.getElementById('h-over')?.textContent === 'Saving overwrites what ` + server.Address + ` shows of 2 people'`)
	b.until(`document.getElementById('preview').textContent.includes('Nobody in the directory is: stranger')`)
	if held := server.Publications(t.Context()); len(held) > 0 {
		t.Errorf("a preview published %v", held)
	}
	alder, birch := peers.SIPWatcher(t, server, "sip:4750@example.test"), peers.SIPWatcher(t, server, "sip:4751@example.test")
	b.click(".savebar .primary") // without the box nothing is saved
	b.until(`document.querySelector('#preview .note.bad')?.textContent.includes('tick the box')`)
	b.click("input[name=overwrite]")
	b.click(".savebar .primary")
	b.until(`document.getElementById('done')?.textContent.includes('hq is added')`)
	notified(t, alder, pidf.Open)
	notified(t, birch, pidf.Open)
	b.until(`document.getElementById('status').textContent.includes('Primary: In use') && document.getElementById('status').textContent.includes('2 held')`)
	b.open(s.url + "/services")
	b.until(`document.querySelector('#open-hq').closest('tr').textContent.includes('In use')`)

	b.open(s.url + "/services/presence/hq")
	b.click(`form[action$="/sync"] button`)
	b.until(`document.getElementById('done')?.textContent.includes('2 people are being published again')`)
	notified(t, birch, pidf.Open)

	// One is removed: half of them, which takes another box.
	b.fill("#f-users", "birch")
	b.click(".savebar .primary")
	b.until(`document.querySelector('input[name=force]') !== null`)
	b.click("input[name=overwrite]")
	b.click(".savebar .primary")
	b.until(`document.querySelector('#preview .note.bad')?.textContent.includes('More people would be removed')`)
	b.click("input[name=force]")
	b.click(".savebar .primary")
	b.until(`document.getElementById('done')?.textContent.includes('hq is saved')`)
	notified(t, alder, pidf.Closed)

	b.click(`[href="/services/presence/hq/delete"]`)
	b.until(`document.body.textContent.includes('1 person withdrawn now')`)
	b.fill("#confirm", "hg")
	b.click(".danger")
	b.until(`document.getElementById('confirm-e')?.textContent.includes('type hq')`)
	b.fill("#confirm", "hq")
	b.click(".danger")
	b.until(`document.getElementById('done')?.textContent.includes('hq is deleted')`)
	notified(t, birch, pidf.Closed)
	eventually(t, "the server holds nothing", func() bool { return len(server.Publications(t.Context())) == 0 })

	code, out, errs := command(t, "audit", "--socket", s.socket())
	for _, want := range []string{"service test", "service add", "service sync", "service edit", "service delete"} {
		if !strings.Contains(out, want) || !strings.Contains(out, "local:greta") || !strings.Contains(out, "page, 127.0.0.1") {
			t.Errorf("audit: exit %d, lacks %q\n%s%s", code, want, out, errs)
		}
	}
}

// firstLink gives the link for the first administrator that the service logged.
func firstLink(t *testing.T, log *screen) string {
	t.Helper()
	link := ""
	eventually(t, "the link for the first administrator is logged", func() bool {
		_, errs := log.read()
		for line := range strings.Lines(errs) {
			var entry struct{ Link string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Link != "" {
				link = entry.Link
			}
		}
		return link != ""
	})
	return link
}

// A tab is a page of a browser that belongs to one test.
type tab struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // chromedp keeps the browser in a context
}

func newTab(t *testing.T) *tab {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(peers.Find(t, "chromium")), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-background-networking", true), chromedp.NoFirstRun)
	alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, stop := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		stop()
		stopAlloc()
	})
	b := &tab{t, ctx}
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil { // starts it, and it lives as long as this context
		t.Fatalf("chromium: %v", err)
	}
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("chromium: %v", err)
	}
}

func (b *tab) open(address string) { b.t.Helper(); b.do(chromedp.Navigate(address)) }

// click does so once what is to be clicked is there, though a page may still be loaded.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.until(`(() => { const node = document.readyState === 'complete' && document.querySelector('` + selector + `'); if (node) node.click(); return Boolean(node); })()`)
}

// fill has a field say text, as if it was typed.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	quoted, _ := json.Marshal(text)
	b.eval(`(() => { const field = document.querySelector('` + selector + `'); field.value = ` + string(quoted) + `; field.dispatchEvent(new Event('input', { bubbles: true })); })()`)
}

func (b *tab) eval(expression string) string {
	b.t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return out
}

// until waits for an expression to be true; where it cannot be told yet, as while a
// page is loaded, it is not.
func (b *tab) until(expression string) {
	b.t.Helper()
	defer func() {
		if b.t.Failed() {
			body, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText"))
			b.t.Logf("waiting for %s, the page was\n%s", expression, body)
		}
	}()
	eventually(b.t, expression, func() bool {
		out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+expression+")"))
		return err == nil && out == "true"
	})
}
