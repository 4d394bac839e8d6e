package web

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/fixtures/peers"
)

// A browser is a chromium that belongs to one test.
type browser struct {
	t    *testing.T
	ctx  context.Context //nolint:containedctx // chromedp keeps the browser in a context
	base string

	mu       sync.Mutex
	messages []string // of the console: errors, exceptions, violations of the content policy
}

func startBrowser(t *testing.T, s *Site) *browser {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(peers.Find(t, "chromium")), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-background-networking", true), chromedp.NoFirstRun,
		chromedp.Env("TZ=Europe/Berlin"))
	alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, stopTab := chromedp.NewContext(alloc)
	b := &browser{t: t, ctx: ctx, base: "http://" + s.Addr().String()}
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil { // starts it, and it lives as long as this context
		t.Fatalf("chromium: %v", err)
	}
	heard := make(chan struct{})
	console := chromedp.Console(ctx)
	go func() {
		defer close(heard)
		for m, err := range console {
			if err != nil {
				return
			}
			b.mu.Lock()
			b.messages = append(b.messages, m.String()+" "+m.URL)
			b.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("close chromium: %v", err)
		}
		stopTab()
		stopAlloc()
		<-heard
	})
	return b
}

// do fails the test if an action fails, or takes long.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("chromium: %v", err)
	}
}

func (b *browser) open(path string) { b.t.Helper(); b.do(chromedp.Navigate(b.base + path)) }

func (b *browser) eval(expression string) string {
	b.t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return out
}

// until waits for an expression of the page to be true; where it cannot be told, as
// while a page is on its way, it is not. It asks again and again, for chromedp.Poll
// needs the eval that the page forbids.
func (b *browser) until(expression string) {
	b.t.Helper()
	waitFor(b.t, expression, func() bool {
		out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+expression+")"))
		return err == nil && out == "true"
	})
}

// look sets a screen, which is to be as wide as the page, and keeps a picture.
func (b *browser) look(name string, width, height int64, scheme string) {
	b.t.Helper()
	b.screen(width, height, scheme)
	b.fits(name)
	b.picture(name)
}

func (b *browser) screen(width, height int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, height))
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	}); err != nil {
		b.t.Fatal(err)
	}
}

// fits fails the test for a page that is wider than its screen, or a panel than there is room.
func (b *browser) fits(name string) {
	b.t.Helper()
	if wide := b.eval(`document.documentElement.scrollWidth - innerWidth`); wide != "0" {
		b.t.Errorf("%s: the page is %s px wider than the screen", name, wide)
	}
	if clipped := b.eval(`[...document.querySelectorAll('.panel')].filter((p) => p.scrollWidth > p.clientWidth).flatMap((p) => [...p.querySelectorAll(':not(svg *)')].filter((e) =>
		e.getBoundingClientRect().right > p.getBoundingClientRect().right + 1 && e.closest('.scroll, pre') === null).slice(0, 3).map((e) => e.outerHTML.slice(0, 120))).join('\n')`); clipped != "" {
		b.t.Errorf("%s: cut off at the edge of a panel is\n%s", name, clipped)
	}
}

// picture keeps a picture of the page if somebody wants to see it.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("PRESENCED_SCREENSHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// clean fails the test for anything that the console was told.
func (b *browser) clean() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.messages {
		b.t.Error(m)
	}
}

// town is a world in which every kind of state occurs.
func town() *world {
	names := []string{
		"Tobias Renner", "Marta Lindqvist", "Imani Okafor", "Kola Adeyemi", "Inês Almeida", "Rúben Baptista", "Hanna Bergström", "Petra Čížková",
		"Anneke de Vries", "Declan Doyle", "Sofia Esposito", "Farid Ghanem", "Greta Hoffmann", "Yuki Inoue", "Aleksander Jansen", "Nadia Karim",
		"Leila Wahid", "Oskar Nyman", "Paul Quist", "Sara Torvald",
	}
	groups := []string{"Finance", "Service desk", "Sales", "Sales", "Finance", "Engineering", "Legal", "Engineering"}
	var people []presence.Person
	for i, name := range names {
		id := presence.ID(strconv.Itoa(21001 + i))
		people = append(people, person(id, name, string(id), groups[i%len(groups)]))
	}
	w := newWorld(append([]presence.Person(nil), people...)...)
	now := time.Now()
	ago := func(m int) time.Time { return now.Add(-time.Duration(m) * time.Minute) }
	in := func(m int) time.Time { return now.Add(time.Duration(m) * time.Minute) }
	for i, p := range people {
		phone, session, cal := presence.PhoneIdle, presence.SessionActive, presence.Span{Fact: presence.CalendarFree, From: ago(90), Until: in(57)}
		var more []presence.Span
		switch i {
		case 1, 9:
			phone = presence.PhoneConnected
			cal = presence.Span{Fact: presence.CalendarMeeting, From: ago(33), Until: in(27)}
		case 2:
			more = append(more, presence.Span{Fact: presence.Presenting, From: ago(33), Until: in(12)})
		case 4:
			cal = presence.Span{Fact: presence.CalendarMeeting, From: ago(20), Until: in(30)}
			session = presence.SessionIdle
		case 5:
			session = presence.SessionIdle
		case 6:
			session = presence.SessionOffline
			cal = presence.Span{Fact: presence.AutoReply, From: ago(60 * 24 * 3), Until: in(60 * 24 * 4)}
		case 7:
			phone = presence.PhoneConference
		case 8:
			session = presence.SessionOffline
			more = append(more, presence.Span{Fact: presence.OffHours, From: ago(120), Until: in(60 * 20)})
		case 10:
			session = presence.SessionAway
			phone = presence.PhoneOutOfService
		case 12:
			more = append(more, presence.Span{Fact: presence.ManualDND, From: ago(60), Until: in(60)})
			phone = presence.PhoneRinging
		case 13:
			cal = presence.Span{Fact: presence.CalendarElsewhere, From: ago(200), Until: in(200)}
		case 15:
			phone = presence.PhoneHeld
		case 16:
			session, cal = presence.SessionActive, presence.Span{Fact: presence.CalendarOutOfOffice, From: ago(600), Until: in(600)}
		case 17:
			continue // unknown
		}
		w.says(p.ID, "aes-cm1", span(phone, ago(7+11*i), "tel:"+string(p.ID)))
		w.says(p.ID, "exchange-hq", cal)
		w.says(p.ID, "xmpp", append(more, span(session, ago(18+7*i), ""))...)
		s := w.states[p.ID]
		s.Since = ago(7 + 11*i)
		if i == 1 {
			s.Overlays |= presence.OverlayStale
		}
		w.set(s)
	}
	w.health = []aggregator.Health{
		{Name: "aes-cm1", Kind: aggregator.KindSource, Status: presence.Status{Phase: presence.PhaseLive, Detail: "4,120 of 4,120 monitored"}, Since: ago(9000), Reports: 18204},
		{Name: "aes-cm2", Kind: aggregator.KindSource, Status: presence.Status{Phase: presence.PhaseSyncing, Done: 3210, Total: 9000, Unmonitored: map[string]string{"tel:21900": "no licence", "tel:21901": "not a station"}}, Since: ago(2)},
		{Name: "domino-apps", Kind: aggregator.KindSource, Status: presence.Status{Phase: presence.PhaseStale, Detail: "domino1.example.com does not accept our password. Renew it, then wait for the next attempt.", LastError: "401 Unauthorized", LastErrorAt: ago(3)}, NextTry: in(2), LastSuccess: ago(62), Restarts: 12, Since: ago(32)},
		{Name: "hq-presence", Kind: aggregator.KindBridge, Status: presence.Status{Phase: presence.PhaseDegraded, Detail: "The primary peer does not answer; publishing to the secondary."}, Since: ago(11)},
		{Name: "lab", Kind: aggregator.KindBridge, Status: presence.Status{Phase: presence.PhaseDisabled}, Since: ago(9000)},
		{Name: "store", Kind: aggregator.KindStore, Status: presence.Status{Phase: presence.PhaseLive, Detail: "embedded, 4.2 MB"}, Since: ago(9000)},
	}
	return w
}

const (
	doyle  = "21010"
	renner = "21001"
)

func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds: run without -short")
	}
	w := town()
	s := serve(t, w)
	b := startBrowser(t, s)

	b.open("/")
	b.until(`!document.getElementById('live').hidden && document.querySelector('#live').textContent.startsWith('live')`)
	b.until(`document.querySelectorAll('#rows tr').length === 20`)
	b.eval(`window.stayed = 'yes'`)

	// A row changes in place, flashes, and the counts follow.
	if got := b.eval(`document.querySelector('#p-` + renner + ` .state').textContent`); got != "Available" {
		t.Fatalf("at first: %s", got)
	}
	b.do(chromedp.Focus(`#p-` + renner + ` a`))
	w.says(renner, "aes-cm1", span(presence.PhoneConnected, time.Now(), "tel:"+renner))
	b.until(`document.querySelector('#p-` + renner + ` .state').textContent === 'Busy'`)
	b.until(`document.querySelector('#p-` + renner + `').classList.contains('changed')`)
	if got := b.eval(`document.activeElement.textContent`); got != "Tobias Renner" {
		t.Errorf("the focus went to %q", got)
	}
	b.until(`document.querySelector('.chip[data-state=busy] b').textContent === '6'`)
	b.until(`!document.querySelector('#p-` + renner + `').classList.contains('changed')`)
	b.eval(`scrollTo(0, 0)`)
	b.look("board-light", 1440, 900, "light")
	b.look("board-dark", 1440, 900, "dark")
	b.look("board-narrow", 390, 844, "light")

	// Times are the viewer's.
	b.until(`document.getElementById('zone').textContent === 'yours, Europe/Berlin'`)

	// Somebody joins where the name belongs; somebody leaves.
	w.join(person("30000", "Adam Able", "30000"))
	w.says("30000", "xmpp", span(presence.SessionActive, time.Now(), ""))
	b.until(`document.querySelector('#rows tr').id === 'p-30000'`)
	w.set(presence.State{Person: "30000", Why: presence.Reason{Rule: presence.RuleRemoved}})
	b.until(`!document.getElementById('p-30000')`)

	// A filter without loading the page; the stream follows the filter.
	b.do(chromedp.SendKeys(`input[name=q]`, "doyle"))
	b.until(`document.querySelectorAll('#rows tr').length === 1 && location.search === '?q=doyle'`)
	w.says(renner, "aes-cm1", span(presence.PhoneIdle, time.Now(), "tel:"+renner))
	w.says(doyle, "aes-cm1", span(presence.PhoneHeld, time.Now(), "tel:"+doyle))
	b.until(`document.querySelector('#p-` + doyle + ` .c-act').textContent.trim() === 'On hold'`)
	b.until(`document.querySelectorAll('#rows tr').length === 1`)
	if got := b.eval(`document.activeElement.value + ' ' + window.stayed`); got != "doyle yes" {
		t.Errorf("after the filter: %q", got)
	}
	b.do(chromedp.SendKeys(`input[name=q]`, "xyz"))
	b.until(`document.querySelector('.empty h2')?.textContent === 'Nobody matches “doylexyz”'`)
	b.look("board-empty", 1440, 900, "light")

	// Sorted by state, rows keep their place until asked.
	b.open("/?sort=state")
	b.until(`document.querySelector('#live').textContent.startsWith('live')`)
	place := `[...document.querySelectorAll('#rows tr')].findIndex((row) => row.id === 'p-` + renner + `')`
	before := b.eval(place)
	w.says(renner, "xmpp", span(presence.ManualAway, time.Now(), ""))
	b.until(`document.querySelector('#p-` + renner + ` .state').textContent === 'Away'`)
	b.until(`document.getElementById('held').textContent === '1 change since it was sorted. Sort now'`)
	if after := b.eval(place); after != before {
		t.Errorf("the row jumped from %s to %s", before, after)
	}
	b.look("board-held", 1440, 900, "light")
	b.do(chromedp.Click(`#held`))
	b.until(place + ` > ` + before + ` && document.getElementById('held').hidden`)
	w.says(renner, "xmpp", span(presence.SessionActive, time.Now(), ""))

	// A person's page follows too.
	b.open("/people/" + doyle)
	b.until(`document.querySelector('.say b').textContent === 'Busy, on hold'`)
	b.until(`!document.getElementById('live').hidden`)
	b.eval(`window.stayed = 'yes'`)
	w.says(doyle, "aes-cm1", span(presence.PhoneConnected, time.Now(), "tel:"+doyle))
	b.until(`document.querySelector('.say b').textContent === 'Busy, on the phone'`)
	if got := b.eval(`window.stayed`); got != "yes" {
		t.Errorf("the page was loaded anew")
	}
	b.look("person-light", 1440, 900, "light")
	b.look("person-dark", 1440, 900, "dark")
	b.look("person-narrow", 390, 844, "light")

	b.open("/sources")
	b.until(`document.querySelectorAll('.source').length === 6 && !document.getElementById('live').hidden`)
	b.look("sources-light", 1440, 900, "light")
	b.look("sources-dark", 1440, 900, "dark")
	b.look("sources-narrow", 390, 844, "light")
	b.clean()
}

// When the server is away the page says so, and catches up when it is back.
func TestBrowserReconnects(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds: run without -short")
	}
	w := town()
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	s := New(cfg, w, w, Parts{Past: w}, nil, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, w) }()
	waitFor(t, "the site to listen", func() bool { return s.Addr() != nil })
	address := s.Addr().String()
	b := startBrowser(t, s)
	b.open("/")
	b.until(`document.querySelector('#live').textContent.startsWith('live')`)

	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("Run = %v", err)
	}
	w.says(renner, "aes-cm1", span(presence.PhoneConnected, time.Now(), "tel:"+renner)) // nobody sees it
	b.until(`!document.getElementById('lost').hidden && document.getElementById('live').classList.contains('is-waiting')`)
	b.look("board-lost", 1440, 900, "light")

	cfg.Listen = address
	again := New(cfg, w, w, Parts{Past: w}, nil, quiet())
	runSite(t, again, w)
	b.do(chromedp.Click(`#lost button`))
	b.until(`document.getElementById('lost').hidden && document.querySelector('#p-` + renner + ` .state').textContent === 'Busy'`)
	if got := b.eval(`document.querySelectorAll('.changed').length`); got != "0" {
		t.Errorf("%s rows flash for what is old news", got)
	}
}

// A person's page of a past moment, chosen in the zone of the viewer.
func TestBrowserPast(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds: run without -short")
	}
	w := town()
	for _, f := range []presence.Fact{presence.PhoneIdle, presence.PhoneConnected, presence.PhoneIdle, presence.PhoneDND, presence.PhoneIdle, presence.PhoneConnected} {
		w.says(doyle, "aes-cm1", span(f, time.Now(), "tel:"+doyle))
	}
	noon := time.Now().Truncate(time.Minute) // the meeting began half an hour ago
	for i := range w.then[doyle] {
		shot := &w.then[doyle][len(w.then[doyle])-1-i]
		shot.at = noon.Add(-time.Duration(i*7) * time.Minute)
		for j := range shot.reports {
			shot.reports[j].At = shot.at
		}
	}
	s := serve(t, w) // its zone is UTC, that of the browser Europe/Berlin
	b := startBrowser(t, s)
	b.open("/people/" + doyle)
	b.until(`document.getElementById('zone').textContent === 'yours, Europe/Berlin'`)
	b.until(`new Date(document.getElementById('at').value) - new Date(document.getElementById('at').dataset.at) === 0`)
	b.do(chromedp.Click(`#changes summary`))
	b.look("past-today", 1440, 1400, "light")
	b.look("past-today-narrow", 390, 1200, "light")

	then := noon.Add(-6 * time.Minute)
	b.do(chromedp.EmulateViewport(1440, 900))
	b.eval(`document.getElementById('at').value = new Intl.DateTimeFormat('sv', { dateStyle: 'short', timeStyle: 'medium' }).format(new Date('` + then.UTC().Format(time.RFC3339) + `')).replace(' ', 'T')`)
	b.do(chromedp.Click(`#moment button`))
	b.until(`document.getElementById('then') !== null`)
	if got := b.eval(`new Date(document.querySelector('#then time').dateTime).getTime()`); got != strconv.FormatInt(then.UnixMilli(), 10) {
		t.Errorf("the page is of %s, want %d", got, then.UnixMilli())
	}
	b.until(`document.querySelector('.now .say b').textContent === 'Busy, in a meeting'`)
	b.look("past-then", 1440, 1400, "light")
	b.look("past-then-dark", 1440, 1400, "dark")
	b.look("past-then-narrow", 390, 1200, "light")

	w.rule(doyle, presence.Access{Level: presence.LevelFull, Calendar: presence.CalendarTimes})
	b.open("/people/" + doyle)
	b.look("past-times", 1440, 1100, "light")
	w.rule(doyle, presence.Access{Level: presence.LevelStatus})
	b.until(`document.getElementById('shown').textContent.includes('level status')`)
	b.look("past-status", 1440, 900, "light")
	b.look("past-status-narrow", 390, 1200, "light")
	b.clean()
}
