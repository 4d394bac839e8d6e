package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"presenced/fixtures/peers"
)

// TestByHandInBrowser sets do not disturb on a person's page of the whole service: a
// client of a real Prosody gets it, and the page says who set it.
func TestByHandInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds: run without -short")
	}
	prosody := peers.Prosody(t)
	s := newSite(t, "")
	s.write("secret", prosody.Secret)
	config, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	s.write("presenced.yaml", string(config)+fmt.Sprintf(`
xmpp:
- {name: xmpp-hq, address: "%s", host: %s, secret_file: %s/secret}
`, prosody.ComponentAddr, prosody.Component, s.dir))
	log, _ := s.serve()
	s.await("alder", "available/")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	client := prosody.Login(t, "bob")
	client.Subscribe("alder@" + prosody.Component)
	seen := func(show, status string) {
		t.Helper()
		for {
			if p := client.NextPresence(ctx); strings.HasPrefix(p.From, "alder@") && p.Type == "" && p.Show == show && strings.HasPrefix(p.Status, status) {
				return
			}
		}
	}
	seen("", "")

	b := newTab(t)
	b.open(firstLink(t, log))
	b.fill("#user", "greta")
	b.fill("#password", "correct horse battery")
	b.fill("#again", "correct horse battery")
	b.click("form .primary")
	b.until(`location.pathname === '/' && document.body.textContent.includes('greta')`)
	b.click(`#p-alder a`)
	b.until(`document.querySelector('.say b')?.textContent === 'Available'`)
	b.click(`input[name=state][value=dnd]`)
	b.click(`input[name=for][value="2h"]`)
	b.click(`form[action$="/presence"] .primary`)
	b.until(`document.querySelector('#done')?.textContent.startsWith('Ruth Alder is set to do not disturb, until ')`)
	seen("dnd", "Do not disturb")

	// Why, and who watches.
	b.until(`document.querySelector('.say b').textContent === 'Do not disturb, set by hand'`)
	b.until(`document.querySelector('#why .because').textContent.includes('set by local:greta')`)
	b.until(`document.querySelector('#why .fired th').textContent === 'Manual do not disturb'`)
	b.until(`document.querySelector('#past .tl-names').textContent.includes('manual') && document.querySelector('#past .hatch') !== null`)
	if code, out, errs := command(t, "audit", "--socket", s.socket()); code != 0 || !strings.Contains(out, "local:greta") || !strings.Contains(out, "alder") {
		t.Errorf("audit: exit %d\n%s%s", code, out, errs)
	}

	b.click(`button[name=clear]`)
	seen("", "")
	b.until(`document.querySelector('.say b').textContent === 'Available'`)
}
