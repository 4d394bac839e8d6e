package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/html"

	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// get asks a Site that does not run; the Host is a local one unless told.
func get(t *testing.T, s *Site, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	r.Host = "localhost:8080"
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if h := r.Header.Get("Host"); h != "" {
		r.Host = h
	}
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, r)
	return rec
}

func newSite(w *world) *Site {
	s := New(DefaultConfig(), w, w, Parts{Past: w}, prometheus.NewRegistry(), quiet())
	s.zone = time.UTC
	return answering(s)
}

// A doc is a parsed page.
type doc struct{ *html.Node }

func parse(t *testing.T, page string) doc {
	t.Helper()
	n, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	return doc{n}
}

func (d doc) find(match func(*html.Node) bool) []*html.Node {
	var out []*html.Node
	for n := range d.Descendants() {
		if n.Type == html.ElementNode && match(n) {
			out = append(out, n)
		}
	}
	return out
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func (d doc) id(t *testing.T, id string) doc {
	t.Helper()
	found := d.find(func(n *html.Node) bool { return attr(n, "id") == id })
	if len(found) != 1 {
		t.Fatalf("%d elements have the id %s, want one", len(found), id)
	}
	return doc{found[0]}
}

func (d doc) class(class string) []*html.Node {
	return d.find(func(n *html.Node) bool {
		for c := range strings.FieldsSeq(attr(n, "class")) {
			if c == class {
				return true
			}
		}
		return false
	})
}

func (d doc) rows() []string {
	var ids []string
	for _, n := range d.find(func(n *html.Node) bool { return n.Data == "tr" && strings.HasPrefix(attr(n, "id"), "p-") }) {
		ids = append(ids, attr(n, "id"))
	}
	return ids
}

// text gives the words of a node with single spaces.
func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// office is a world of five, each in another state.
func office() *world {
	w := newWorld(
		person("21042", "Marta Lindqvist", "21042", "Service desk", "Northgate office"),
		person("21017", "Tobias Renner", "21017", "Finance"),
		person("21035", "Anneke de Vries", "21035", "Finance"),
		person("21009", "Hanna Bergström", "21009", "Legal"),
		person("21099", "Ravi Anand", "21099", "Legal"),
	)
	now := time.Now()
	w.says("21042", "aes-cm1", span(presence.PhoneConnected, now.Add(-7*time.Minute), "tel:21042"))
	w.says("21042", "exchange-hq", presence.Span{Fact: presence.CalendarMeeting, From: now.Add(-30 * time.Minute), Until: now.Add(time.Hour)})
	w.says("21017", "aes-cm1", span(presence.PhoneIdle, now.Add(-time.Hour), "tel:21017"))
	w.says("21035", "xmpp", span(presence.ManualDND, now.Add(-time.Minute), ""))
	w.says("21009", "exchange-hq", span(presence.AutoReply, now.Add(-24*time.Hour), ""))
	return w
}

func TestBoard(t *testing.T) {
	s := newSite(office())
	rec := get(t, s, "/")
	if rec.Code != http.StatusOK || rec.Header().Get("Content-Security-Policy") != policyCSP {
		t.Fatalf("code %d, policy %q", rec.Code, rec.Header().Get("Content-Security-Policy"))
	}
	page := parse(t, rec.Body.String())
	if diff := cmp.Diff([]string{"p-21035", "p-21009", "p-21042", "p-21099", "p-21017"}, page.rows()); diff != "" {
		t.Errorf("rows by name (-want +got)\n%s", diff)
	}
	cells := map[string]string{}
	for _, n := range page.id(t, "p-21042").find(func(n *html.Node) bool { return n.Data == "td" || n.Data == "th" }) {
		cells[strings.Fields(attr(n, "class"))[0]] += "|" + text(n)
	}
	delete(cells, "c-since")
	want := map[string]string{
		"c-state": "|Busy", "c-name": "|Marta Lindqvist 21042", "c-act": "|On the phone", "c-until": "|",
		"c-ch": "|In use|Meeting|", "c-why": "|On the phone aes-cm1", "c-group": "|Service desk",
	}
	if diff := cmp.Diff(want, cells); diff != "" {
		t.Errorf("cells (-want +got)\n%s", diff)
	}
	w := office()
	w.says("21042", "xmpp-hq", span(presence.SessionIdle, time.Now(), ""))
	if got := text(parse(t, get(t, newSite(w), "/").Body.String()).id(t, "p-21042").class("c-ch")[2]); got != "Idle" {
		t.Errorf("the client that is known is %q", got)
	}
	for id, state := range map[string]string{"p-21035": "Do not disturb", "p-21009": "Out of office", "p-21099": "Unknown", "p-21017": "Available"} {
		if got := text(page.id(t, id).class("state")[0]); got != state {
			t.Errorf("%s is %q, want %q", id, got, state)
		}
	}
	chips := map[string]string{}
	for _, n := range page.class("chip") {
		chips[attr(n, "data-state")] = text(n)
	}
	wantChips := map[string]string{
		"": "Everyone 5", "available": "Available 1", "busy": "Busy 1", "dnd": "Do not disturb 1", "brb": "Be right back 0", "away": "Away 0",
		"out-of-office": "Out of office 1", "off-work": "Off work 0", "offline": "Offline 0", "uncertain": "Not certain 1",
	}
	if diff := cmp.Diff(wantChips, chips); diff != "" {
		t.Errorf("chips (-want +got)\n%s", diff)
	}
	if got := attr(page.class("mix")[0], "aria-label"); got != "1 available, 1 busy, 1 do not disturb, 1 out of office, 1 unknown" {
		t.Errorf("the bar says %q", got)
	}
	for _, n := range page.find(func(n *html.Node) bool { return n.Data == "a" }) {
		if href := attr(n, "href"); strings.HasPrefix(href, "/") && get(t, s, href).Code != http.StatusOK {
			t.Errorf("%s leads nowhere", href)
		}
	}
}

func TestBoardFilters(t *testing.T) {
	s := newSite(office())
	for query, want := range map[string][]string{
		"":                           {"p-21035", "p-21009", "p-21042", "p-21099", "p-21017"},
		"q=LIND":                     {"p-21042"},
		"q=marta+21042":              {"p-21042"},
		"q=hanna.bergstr":            {"p-21009"},
		"q=nobody":                   nil,
		"group=Finance":              {"p-21035", "p-21017"},
		"group=Northgate+office":     {"p-21042"},
		"state=busy":                 {"p-21042"},
		"state=uncertain":            {"p-21099"},
		"state=rubbish":              {"p-21035", "p-21009", "p-21042", "p-21099", "p-21017"},
		"group=Finance&state=dnd":    {"p-21035"},
		"channel=phone-in-use":       {"p-21042"},
		"channel=phone-idle":         {"p-21017"},
		"sort=-name":                 {"p-21017", "p-21099", "p-21042", "p-21009", "p-21035"},
		"sort=state":                 {"p-21017", "p-21042", "p-21035", "p-21009", "p-21099"},
		"sort=group":                 {"p-21035", "p-21017", "p-21009", "p-21099", "p-21042"},
		"page=9":                     {"p-21035", "p-21009", "p-21042", "p-21099", "p-21017"},
		"q=%22%3E%3Cscript%3E&page=": nil,
	} {
		rec := get(t, s, "/?"+query)
		page := parse(t, rec.Body.String())
		if diff := cmp.Diff(want, page.rows()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", query, diff)
		}
		if n := len(page.find(func(n *html.Node) bool { return n.Data == "script" })); n != 1 {
			t.Errorf("%s: %d scripts", query, n)
		}
	}
	page := parse(t, get(t, s, "/?group=Finance&state=dnd&q=anne").Body.String())
	busy := page.find(func(n *html.Node) bool { return attr(n, "data-state") == "busy" })
	if got := attr(busy[0], "href"); got != "/?group=Finance&q=anne&state=busy" {
		t.Errorf("the chip Busy leads to %s and forgets the filter", got)
	}
	if got := attr(page.find(func(n *html.Node) bool { return n.Data == "input" && attr(n, "name") == "state" })[0], "value"); got != "dnd" {
		t.Errorf("the form forgets the state: %q", got)
	}
}

func TestBoardPages(t *testing.T) {
	var people []presence.Person
	for i := range 450 {
		id := presence.ID(number(10000 + i))
		people = append(people, person(id, "P "+string(id), string(id)))
	}
	s := newSite(newWorld(people...))
	for target, want := range map[string][2]int{"/": {200, 1}, "/?page=2": {200, 2}, "/?page=3": {50, 1}, "/?page=99": {50, 1}, "/?page=-1": {200, 1}} {
		page := parse(t, get(t, s, target).Body.String())
		links := page.id(t, "people").find(func(n *html.Node) bool { return n.Data == "a" && strings.Contains(attr(n, "class"), "btn") })
		if got := [2]int{len(page.rows()), len(links)}; got != want {
			t.Errorf("%s: rows and links %v, want %v", target, got, want)
		}
	}
}

func TestEmptyBoard(t *testing.T) {
	page := parse(t, get(t, newSite(newWorld()), "/").Body.String())
	if got := text(page.class("empty")[0]); !strings.HasPrefix(got, "No people yet") {
		t.Errorf("an empty board says %q", got)
	}
}

func TestPerson(t *testing.T) {
	w := office()
	rec := get(t, newSite(w), "/people/21042")
	if rec.Code != http.StatusOK {
		t.Fatalf("code %d", rec.Code)
	}
	page := parse(t, rec.Body.String())
	if got := text(page.class("say")[0]); !strings.HasPrefix(got, "Busy, on the phone since ") {
		t.Errorf("now: %q", got)
	}
	if got := text(page.class("because")[0]); !strings.HasPrefix(got, "In a call decided, because Phone connected holds at 21042 since ") || !strings.HasSuffix(got, ", as aes-cm1 says.") {
		t.Errorf("why: %q", got)
	}
	fired := page.class("fired")
	if len(fired) != 2 || !strings.HasPrefix(text(fired[0]), "Phone connected 21042 aes-cm1") || !strings.Contains(text(fired[1]), "On the phone In a call. Decided: busy, on the phone") {
		t.Errorf("what decided is not marked: %d", len(fired))
	}
	links := map[string]bool{}
	for _, n := range page.id(t, "now").find(func(n *html.Node) bool { return n.Data == "a" }) {
		links[attr(n, "href")] = true
	}
	if diff := cmp.Diff(map[string]bool{"tel:21042": true, "mailto:marta.lindqvist@example.com": true}, links); diff != "" {
		t.Errorf("links (-want +got)\n%s", diff)
	}
	if rec := get(t, newSite(w), "/people/nobody"); rec.Code != http.StatusNotFound || !strings.Contains(rec.Body.String(), "Not found") {
		t.Errorf("nobody: code %d", rec.Code)
	}
}

// A private entry counts, and no page, event or answer tells more than that.
func TestPrivate(t *testing.T) {
	w := newWorld(person("7", "Greta Hoffmann", "21003"))
	w.says("7", "exchange-hq", presence.Span{
		Fact: presence.CalendarMeeting, From: time.Now().Add(-time.Minute), Until: time.Now().Add(time.Hour),
		Contact: "im:clinic-secret", Note: "note-secret", Private: true,
	})
	if st := w.States()[0]; !st.Overlays.Has(presence.OverlayPrivate) || st.Channel(presence.Calendar).Contact == "" {
		t.Fatalf("the state is not one that would tell: %+v", st)
	}
	s := newSite(w)
	for _, target := range []string{"/", "/people/7", "/api/people", "/api/people/7", "/api/people/7/explain"} {
		for _, accept := range []string{"", "text/plain"} {
			body := strings.ToLower(get(t, s, target, "Accept", accept).Body.String())
			if strings.Contains(body, "secret") || strings.Contains(body, `"private"`) || strings.Contains(body, "(private") {
				t.Errorf("%s (%s) tells of a private entry:\n%s", target, accept, body)
			}
		}
	}
	if row := s.rowHTML(s.members(s.viewerOf(signin.Identity{}))[0]); strings.Contains(row, "secret") || !strings.Contains(row, "Appointment") {
		t.Errorf("row: %s", row)
	}
}

func TestHostileNames(t *testing.T) {
	p := person(`a/b"<i>?x`, `<script>alert(1)</script> "O'Neil" `, `"><img src=x>`, `</select><script>`)
	p.Subjects = append(p.Subjects, presence.Subject{Scheme: "jid", Value: "javascript:alert(1)"})
	w := newWorld(p)
	s := newSite(w)
	board := parse(t, get(t, s, "/").Body.String())
	links := board.id(t, "rows").find(func(n *html.Node) bool { return n.Data == "a" })
	if len(links) != 1 {
		t.Fatalf("%d links in the row", len(links))
	}
	rec := get(t, s, attr(links[0], "href"))
	if rec.Code != http.StatusOK {
		t.Errorf("%s: code %d", attr(links[0], "href"), rec.Code)
	}
	for _, page := range []doc{board, parse(t, rec.Body.String())} {
		for _, n := range page.find(func(n *html.Node) bool { return n.Data == "script" || n.Data == "img" || n.Data == "i" }) {
			if attr(n, "src") != "/static/board.js" {
				t.Errorf("an element came from the directory: %s", n.Data)
			}
		}
		for _, n := range page.find(func(n *html.Node) bool { return n.Data == "a" }) {
			if strings.HasPrefix(attr(n, "href"), "javascript:") {
				t.Errorf("link %s", attr(n, "href"))
			}
		}
	}
}

func TestSources(t *testing.T) {
	w := office()
	w.health = []aggregator.Health{
		{Name: "aes-cm1", Kind: aggregator.KindSource, Status: presence.Status{Phase: presence.PhaseLive, Detail: "4,120 of 4,120 monitored", Problems: map[string]int{"frames malformed": 2, "none": 0}}, Reports: 1204},
		{Name: "aes-cm2", Kind: aggregator.KindSource, Status: presence.Status{Phase: presence.PhaseSyncing, Done: 3210, Total: 9000, Unmonitored: map[string]string{"tel:1": "no licence"}}},
		{Name: "domino-apps", Kind: aggregator.KindSource, Status: presence.Status{Phase: presence.PhaseStale, LastError: "401 Unauthorized"}, NextTry: time.Now().Add(time.Minute)},
		{Name: "store", Kind: aggregator.KindStore, Status: presence.Status{Phase: presence.PhaseDegraded, Detail: "The disk is full.", LastError: "no space left"}},
		{Name: "crm", Kind: aggregator.KindBridge, Status: presence.Status{Phase: presence.PhaseDegraded, Detail: "crm: no route; 3 people wait", LastError: "no route"}},
		{Name: "journal", Kind: aggregator.KindStore, Status: presence.Status{Phase: presence.PhaseLive}},
		{Name: "sip-lab", Kind: aggregator.KindBridge, Status: presence.Status{Phase: presence.PhaseDisabled}},
	}
	s := newSite(w)
	page := parse(t, get(t, s, "/sources").Body.String())
	var order []string
	for _, n := range page.class("source") {
		order = append(order, attr(n, "id"))
	}
	if diff := cmp.Diff([]string{"part-domino-apps", "part-crm", "part-store", "part-aes-cm2", "part-aes-cm1", "part-journal", "part-sip-lab"}, order); diff != "" {
		t.Errorf("order (-want +got)\n%s", diff)
	}
	for id, want := range map[string]string{
		"part-domino-apps": "401 Unauthorized The next attempt is at",
		"part-store":       "The disk is full. no space left.",
		"part-crm":         "crm: no route; 3 people wait Details",
		"part-aes-cm2":     "3,210 of 9,000 1 cannot be covered",
		"part-aes-cm1":     "4,120 of 4,120 monitored 1,204 reports frames malformed: 2",
	} {
		if got := text(page.id(t, id).Node); !strings.Contains(got, want) {
			t.Errorf("%s says %q, want %q in it", id, got, want)
		}
	}
	only := parse(t, get(t, s, "/sources?phase=stale").Body.String())
	if n := len(only.class("source")); n != 1 {
		t.Errorf("%d stale parts, want 1", n)
	}

	rec := get(t, s, "/healthz")
	want := `{"degraded":["aes-cm2","domino-apps","store","crm"],"status":"degraded"}`
	if got := strings.Join(strings.Fields(rec.Body.String()), ""); rec.Code != http.StatusOK || got != want {
		t.Errorf("healthz %d %s, want %s", rec.Code, got, want)
	}
}

// While a change is held back the page says what shows on, what would, and until when;
// the rule that decided is the one that is held back.
func TestHeldBack(t *testing.T) {
	w := newWorld(person("21042", "Marta Lindqvist", "21042"))
	w.says("21042", "aes-cm1", span(presence.PhoneIdle, time.Now(), "tel:21042"))
	e, _ := w.Explain("21042", time.Time{})
	shown := presence.State{
		Person: "21042", Availability: presence.Busy, Activity: presence.ActivityPhone, Class: presence.Busy.Class(),
		Why: presence.Reason{Rule: "on-the-phone", Title: "In a call"},
	}
	w.set(shown)
	w.heldBack = map[presence.ID]*presence.HeldBack{"21042": {
		Availability: e.State.Availability, Activity: e.State.Activity, Rule: e.State.Why.Rule,
		Since: time.Now().Add(-time.Second), Until: time.Now().Add(time.Minute), Why: "what is shown stays for 2m0s at least",
	}}
	s := newSite(w)
	page := parse(t, get(t, s, "/people/21042").Body.String())
	if got := text(page.class("because")[0]); got != "In a call still shows." {
		t.Errorf("why: %q", got)
	}
	got := text(page.id(t, "held-back").Node)
	if !strings.HasPrefix(got, "Phone idle decided available at ") || !strings.Contains(got, "which is held back: what is shown stays for 2m0s at least. It shows from ") {
		t.Errorf("held back: %q", got)
	}
	fired := page.class("fired")
	if got, want := text(fired[len(fired)-1]), number(len(e.Passed)+1)+" Phone idle Decided: available; it is held back"; got != want {
		t.Errorf("the rule is %q, not %q", got, want)
	}
	if body := get(t, s, "/api/people/21042/explain").Body.String(); !strings.Contains(body, `"held_back": {`) {
		t.Errorf("as JSON: %s", body)
	}
	w.rule("21042", presence.Access{Level: presence.LevelTelephony})
	for _, target := range []string{"/people/21042", "/api/people/21042/explain"} {
		if body := get(t, s, target).Body.String(); strings.Contains(body, "held-back") || strings.Contains(body, "held_back") {
			t.Errorf("%s tells who may not know: %s", target, body)
		}
	}
}
