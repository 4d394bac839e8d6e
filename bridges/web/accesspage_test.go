package web

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"presenced/aggregator/access"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// rulesOn gives the rows of the rules.
func rulesOn(page doc, t *testing.T) (rows []string) {
	t.Helper()
	for _, n := range page.id(t, "rules").find(func(n *html.Node) bool { return n.Data == "tr" && n.Parent.Data == "tbody" }) {
		cells := doc{n}.find(func(n *html.Node) bool {
			return n.Data == "th" || attr(n, "data-l") == "Watcher" || attr(n, "data-l") == "Sees"
		})
		var words []string
		for _, c := range cells {
			words = append(words, text(c))
		}
		rows = append(rows, strings.Join(words, "|"))
	}
	return rows
}

// A rule is set, replaced, found and removed; each leaves a line in the trail.
func TestAccessRules(t *testing.T) {
	e := newEstate(t, office(), nil)
	s := e.site(admin)
	door, err := signin.New(s.cfg.SignIn, signin.Deps{Origin: "http://localhost", Loopback: true, Accounts: &shelf{}, Sessions: &shelf{}, Tokens: &shelf{}, People: e.world, Log: quiet()})
	must(t, err)
	s.parts.SignIn = door // it says where a request comes from, and nothing else
	set := func(of, kind, name, level, urgent string) url.Values {
		return url.Values{"of": {of}, "kind": {kind}, "name": {name}, "level": {level}, "urgent": {urgent}}
	}
	for _, c := range []struct {
		form       url.Values
		to, told   string
		who, where string // in the trail
	}{
		{set("", "default", "", "status", ""), "/access", "Set: Everybody else sees status of everybody.", "local:greta", "192.0.2.7"},
		{set("Marta Lindqvist", "watcher", "jid:bob@example.com/phone", "full", "yes"), "/access?of=21042", "Set: jid:bob@example.com/phone sees full of Marta Lindqvist. They see now: full, calendar open, may interrupt.", "local:greta", "192.0.2.7"},
		{set("21042", "watcher", "JID:bob@example.com", "telephony", ""), "/access?of=21042", "Set: JID:bob@example.com sees telephony of Marta Lindqvist. They see now: telephony.", "", ""},
		{set("marta.lindqvist@example.com", "group", " Finance ", "block", ""), "/access?of=21042", "Set: Group Finance sees block of Marta Lindqvist.", "", ""},
		{set("tel:21017", "domain", "@example.net", "confirm", ""), "/access?of=21017", "Set: Domain @example.net sees confirm of Tobias Renner.", "", ""},
	} {
		to, said := told(t, s, post(t, s, "/access/rule", c.form))
		if to != c.to || said != c.told {
			t.Errorf("%v:\n%s %q, want\n%s %q", c.form, to, said, c.to, c.told)
		}
		if line := e.lines.last(); !strings.Contains(line, `"what":"access set"`) || !strings.Contains(line, c.who) || !strings.Contains(line, c.where) {
			t.Errorf("the trail says %s", line)
		}
	}
	want := []string{"Everybody|Everybody else|status", "Tobias Renner|Domain example.net|confirm", "Marta Lindqvist|jid:bob@example.com|telephony", "Marta Lindqvist|Group finance|block"}
	if diff := cmp.Diff(want, rulesOn(parse(t, get(t, s, "/access").Body.String()), t)); diff != "" {
		t.Errorf("rules (-want +got)\n%s", diff)
	}
	for query, want := range map[string][]string{
		"q=bob": {"Marta Lindqvist|jid:bob@example.com|telephony"}, "of=21017": {"Tobias Renner|Domain example.net|confirm"},
		"q=finance+BLOCK": {"Marta Lindqvist|Group finance|block"}, "q=nobody": nil, "of=99": nil, "everybody": {"Everybody|Everybody else|status"}, "everybody=&q=x": nil,
	} {
		if diff := cmp.Diff(want, rulesOn(parse(t, get(t, s, "/access?"+query).Body.String()), t)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", query, diff)
		}
	}

	// The link of a rule leads to the form with it.
	page := parse(t, get(t, s, "/access?q=bob").Body.String())
	change := page.find(func(n *html.Node) bool { return n.Data == "a" && text(n) == "Change" })
	path, _, _ := strings.Cut(attr(change[0], "href"), "#")
	form := parse(t, get(t, s, path).Body.String()).id(t, "rule")
	if of, name := attr(form.id(t, "of").Node, "value"), attr(form.id(t, "name").Node, "value"); of != "21042" || name != "jid:bob@example.com" {
		t.Errorf("the form is about %q and %q", of, name)
	}
	var chosen []string
	for _, n := range form.find(func(n *html.Node) bool { return n.Data == "option" && hasAttr(n, "selected") }) {
		chosen = append(chosen, attr(n, "value"))
	}
	if diff := cmp.Diff([]string{"watcher", "telephony"}, chosen); diff != "" {
		t.Errorf("chosen (-want +got)\n%s", diff)
	}

	to, said := told(t, s, post(t, s, "/access/rule/remove", url.Values{"of": {"21042"}, "kind": {"watcher"}, "name": {"jid:bob@example.com"}}))
	if to != "/access?of=21042" || said != "Removed the rule for jid:bob@example.com of Marta Lindqvist. They see now: status." {
		t.Errorf("removed: %s %q", to, said)
	}
	if rows := rulesOn(parse(t, get(t, s, "/access").Body.String()), t); len(rows) != 3 {
		t.Errorf("rules: %q", rows)
	}
}

func hasAttr(n *html.Node, key string) bool {
	for _, a := range n.Attr {
		if a.Key == key {
			return true
		}
	}
	return false
}

// What is wrong stands beside the field, what was typed stays, and nothing changes.
func TestAccessRulesRefused(t *testing.T) {
	e := newEstate(t, newWorld(person("1", "Ann One", "1001"), person("2", "Ann One", "1002")), nil)
	s := e.site(admin)
	evil := `"><script>alert(1)</script>`
	for name, c := range map[string]struct {
		form  url.Values
		field string
		wrong string
	}{
		"nobody":   {url.Values{"of": {evil}, "kind": {"default"}, "level": {"full"}}, "of", "Nobody in the directory is “" + evil + "”"},
		"two":      {url.Values{"of": {"ann one"}, "kind": {"default"}, "level": {"full"}}, "of", "2 people are called “ann one”"},
		"no kind":  {url.Values{"level": {"full"}}, "kind", "none of watcher, group, domain, default"},
		"no level": {url.Values{"kind": {"default"}, "level": {"all"}}, "level", "none of block"},
		"no name":  {url.Values{"kind": {"group"}, "level": {"full"}}, "name", "cannot be taken as a group"},
		"a tag":    {url.Values{"kind": {"domain"}, "name": {"a b"}, "level": {"full"}}, "name", "cannot be taken as a domain"},
		"control":  {url.Values{"kind": {"watcher"}, "name": {"jid:\x1b[31m"}, "level": {"full"}}, "name", "cannot be taken as a watcher"},
		"long":     {url.Values{"kind": {"group"}, "name": {strings.Repeat("ä", 300)}, "level": {"full"}}, "name", "It has more than 512 bytes."},
	} {
		rec := post(t, s, "/access/rule", c.form)
		page := parse(t, rec.Body.String())
		input := page.id(t, c.field)
		if got := text(input.Parent); rec.Code != http.StatusUnprocessableEntity || !strings.Contains(got, c.wrong) || attr(input.Node, "aria-invalid") != "true" {
			t.Errorf("%s: %d, %q", name, rec.Code, got)
		}
		if n := len(page.find(func(n *html.Node) bool { return n.Data == "script" })); n != 1 {
			t.Errorf("%s: %d scripts", name, n)
		}
		if v := attr(page.id(t, "of").Node, "value"); v != c.form.Get("of") {
			t.Errorf("%s: the field says %q", name, v)
		}
	}
	for target, form := range map[string]url.Values{
		"/access/rule/remove": {"kind": {"?"}},
		"/access/request":     {"of": {"1"}, "watcher": {"\x00"}, "answer": {"allow"}, "level": {"full"}},
		"/access/person":      {"of": {"1"}, "do": {"forget"}},
	} {
		if rec := post(t, s, target, form); rec.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", target, rec.Code)
		}
	}
	for _, form := range []url.Values{
		{"of": {"1"}, "watcher": {"jid:b@c"}, "answer": {"allow"}, "level": {"block"}},
		{"of": {"1"}, "watcher": {"jid:b@c"}, "answer": {"allow"}, "level": {"?"}},
		{"of": {"1"}, "watcher": {"jid:b@c"}},
		{"of": {"99"}, "watcher": {"jid:b@c"}, "answer": {"deny"}},
	} {
		if rec := post(t, s, "/access/request", form); rec.Code != http.StatusUnprocessableEntity {
			t.Errorf("%v: %d", form, rec.Code)
		}
	}
	for _, form := range []url.Values{{"of": {"1"}, "do": {"calendar"}, "calendar": {"?"}}, {"of": {"1"}, "do": {"?"}}, {"of": {"99"}, "do": {"opt-in"}}} {
		if rec := post(t, s, "/access/person", form); rec.Code != http.StatusUnprocessableEntity {
			t.Errorf("%v: %d", form, rec.Code)
		}
	}
	if settings, _ := e.gate.Settings(); len(settings) != 1 || len(settings[0].Rules) != 0 {
		t.Errorf("something was set: %+v", settings)
	}

	// Neither the store nor the trail takes a change: it says so, and nothing changes.
	rule := url.Values{"kind": {"default"}, "level": {"full"}}
	e.rules.fail(errGone)
	if rec := post(t, s, "/access/rule", rule); rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), "the disk is full") {
		t.Errorf("no store: %d", rec.Code)
	}
	e.rules.fail(nil)
	e.lines.fail(errGone)
	if rec := post(t, s, "/access/rule", rule); rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), "audit trail cannot be written, so nothing has changed") {
		t.Errorf("no trail: %d", rec.Code)
	}
	if settings, _ := e.gate.Settings(); len(settings[0].Rules) != 0 {
		t.Errorf("something was set: %+v", settings)
	}
}

// Who waits is let in, or not.
func TestAccessRequests(t *testing.T) {
	e := newEstate(t, office(), func(c *access.Config) { c.Default = "confirm" })
	s := e.site(admin)
	asks := func(text string) {
		t.Helper()
		subject, err := access.ParseWatcher(text)
		if err != nil {
			t.Fatal(err)
		}
		e.gate.Admit(presence.Watcher{Subject: subject, Via: "xmpp"}, "21042")
	}
	asks("jid:bob@example.com")
	asks("tel:21017")
	page := parse(t, get(t, s, "/access").Body.String())
	waiting := text(page.id(t, "waiting").Node)
	if !strings.Contains(waiting, "jid:bob@example.com wants to see Marta Lindqvist by xmpp, since") || !strings.Contains(waiting, "Tobias Renner tel:21017 wants to see") {
		t.Errorf("waiting: %q", waiting)
	}
	if n := page.find(func(n *html.Node) bool {
		return n.Data == "a" && attr(n, "href") == "/access" && strings.HasSuffix(text(n), "2")
	}); len(n) != 1 {
		t.Error("the navigation does not say how many wait")
	}
	answer := func(watcher, answer string) string {
		t.Helper()
		_, said := told(t, s, post(t, s, "/access/request", url.Values{"of": {"21042"}, "watcher": {watcher}, "answer": {answer}, "level": {"status"}}))
		return said
	}
	if said := answer("jid:bob@example.com", "allow"); said != "jid:bob@example.com is let in. They see now: status." {
		t.Errorf("allow: %q", said)
	}
	if said := answer("tel:21017", "deny"); said != "tel:21017 is denied. They see now: block." {
		t.Errorf("deny: %q", said)
	}
	if page := get(t, s, "/access").Body.String(); strings.Contains(page, `id="waiting"`) || len(e.gate.Pending("")) != 0 {
		t.Error("somebody waits")
	}
}

// What is set of a person beside rules, and what became of who left.
func TestAccessOfPerson(t *testing.T) {
	e := newEstate(t, office(), func(c *access.Config) { c.OptIn = true })
	s := e.site(admin)
	do := func(form url.Values) string {
		t.Helper()
		form.Set("of", "21042")
		_, said := told(t, s, post(t, s, "/access/person", form))
		return said
	}
	if said := do(url.Values{"do": {"opt-in"}}); said != "Marta Lindqvist opted in." {
		t.Error(said)
	}
	if said := do(url.Values{"do": {"calendar"}, "calendar": {"times"}}); said != "The calendar of Marta Lindqvist is times." {
		t.Error(said)
	}
	page := parse(t, get(t, s, "/access?of=21042").Body.String())
	if got := text(page.id(t, "main").Node); !strings.Contains(got, "1 of 5 people opted in; the others are shown to nobody (access.opt_in).") || !strings.Contains(got, "opted in calendar times no rule") {
		t.Errorf("the page: %q", got)
	}
	w := e.world
	w.set(presence.State{Person: "21042", Why: presence.Reason{Rule: presence.RuleRemoved}})
	if rows := rulesOn(parse(t, get(t, s, "/access").Body.String()), t); !cmp.Equal(rows, []string{"21042 not in the directory opted in calendar times"}) {
		t.Errorf("rules: %q", rows)
	}
	if said := do(url.Values{"do": {"forget"}, "sure": {"yes"}}); said != "All that was set of 21042 is forgotten." {
		t.Error(said)
	}
	if got := text(parse(t, get(t, s, "/access").Body.String()).id(t, "rules").Node); !strings.Contains(got, "There is no rule") {
		t.Errorf("rules: %q", got)
	}
}

func TestAccessTest(t *testing.T) {
	e := newEstate(t, office(), nil)
	for _, r := range []access.Rule{
		{For: access.Audience{Kind: access.ForDomain, Name: "example.com"}, Level: presence.LevelBlock},
		{Of: "21042", For: access.Audience{Kind: access.ForGroup, Name: "finance"}, Level: presence.LevelStatus},
	} {
		if err := e.gate.Set(t.Context(), actorForTest(), r); err != nil {
			t.Fatal(err)
		}
	}
	s := e.site(admin)
	for query, want := range map[string][]string{
		"watcher=mail:tobias.renner@example.com&person=Marta+Lindqvist": {"Tobias Renner sees of Marta Lindqvist: status.", "Because: group finance sees of 21042: status", "Not by: domain example.com sees of everybody: block"},
		"watcher=21042&person=21042":                                    {"Marta Lindqvist sees of Marta Lindqvist: full, calendar open."},
		"watcher=jid:x@example.org&person=tel:21042":                    {"jid:x@example.org sees of Marta Lindqvist: full", "no rule is for this watcher"},
		"watcher=%00&person=21042":                                      {"cannot be taken as a watcher"},
		"watcher=21042":                                                 {"Say whom"},
		"watcher=%3Cscript%3E&person=%3Cscript%3E":                      {"Nobody in the directory is “<script>”"},
	} {
		rec := get(t, s, "/access?"+query)
		page := parse(t, rec.Body.String())
		got := text(page.id(t, "test").Node)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %q", query, got)
			}
		}
		if n := len(page.find(func(n *html.Node) bool { return n.Data == "script" })); n != 1 {
			t.Errorf("%s: %d scripts", query, n)
		}
	}
}

// While the rules cannot be read the page says so.
func TestAccessUnread(t *testing.T) {
	e := newEstate(t, office(), nil)
	gate := access.New(e.gate.Config(), e.world, &cabinet{err: errGone}, e.trail, func(...presence.ID) {}, quiet())
	_ = gate.Restore(t.Context())
	e.gate = gate
	rec := get(t, e.site(admin), "/access")
	if rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), "nobody is shown to anybody") {
		t.Errorf("%d", rec.Code)
	}
}
