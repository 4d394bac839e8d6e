package api_test

import (
	"flag"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"pgregory.net/rapid"

	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/bridges/web"
	"presenced/bridges/web/api"
	"presenced/bridges/web/signin"
)

type peoplePage struct {
	People []api.Person
	Next   string
}

func TestPeople(t *testing.T) {
	w := makeWorld(t, false)
	w.says("4750", "aes-hq", span(presence.PhoneConnected))
	all := into[peoplePage](t, w.want("GET", "/api/people", "", 200, `"on-the-phone"`))
	if len(all.People) != 4 || all.Next != "" {
		t.Fatalf("%d people, next %q", len(all.People), all.Next)
	}
	// Pages make up the list.
	var ids []string
	for cursor := ""; ; {
		page := into[peoplePage](t, w.want("GET", "/api/people?limit=1&cursor="+cursor, "", 200, `"people"`))
		for _, p := range page.People {
			ids = append(ids, string(p.ID))
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if got := strings.Join(ids, " "); got != "ivy a b/c birch alder" {
		t.Errorf("pages give %q", got)
	}
	for query, want := range map[string]string{
		"q=ruth": "alder", "group=sales": "birch alder", "state=busy": "alder", "state=uncertain": "ivy a b/c birch", "q=alder&state=unknown": "", "channel=phone-in-use": "alder",
	} {
		page := into[peoplePage](t, w.want("GET", "/api/people?"+query, "", 200, ""))
		var got []string
		for _, p := range page.People {
			got = append(got, string(p.ID))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	w.want("GET", "/api/people?cursor=!", "", 422, `"location":"query.cursor"`)
	w.want("GET", "/api/people/a%20b%2Fc", "", 200, `"Odd Name"`)
	w.want("GET", "/api/people/none", "", 404, "nobody in the directory has the identifier")
	w.want("GET", "/api/states/alder", "", 200, `"busy"`)
	w.want("GET", "/api/states?id=alder&id=none&id=alder", "", 200, `"unknown":["none"]`)
	w.want("GET", "/api/states?id=alder&group=sales", "", 422, "either named or filtered")
	w.want("GET", "/api/states?state=busy", "", 200, `"states":[{"person":"alder"`)
	w.want("POST", "/api/states", `{"ids":["alder","none"]}`, 200, `"unknown":["none"]`)
}

func TestPast(t *testing.T) {
	w := makeWorld(t, false)
	w.says("4750", "aes-hq", span(presence.PhoneConnected))
	w.want("GET", "/api/people/alder/explain", "", 200, `"rule":"on-the-phone"`)
	if rec := w.want("GET", "/api/people/alder/explain", "", 200, "because of rule on-the-phone", "Accept", "text/plain"); rec.Header().Get("Content-Type") != "text/plain; charset=utf-8" || rec.Header().Get("Vary") != "Accept" {
		t.Errorf("%v", rec.Header())
	}
	w.want("GET", "/api/people/alder/explain", "", 200, `"person":"alder"`, "Accept", "application/json, text/plain")
	w.want("GET", "/api/people/alder/explain", "", 200, `"person":"alder"`, "Accept", "image/png")
	at := url.QueryEscape(time.Now().Add(-time.Hour).Format(time.RFC3339))
	w.want("GET", "/api/people/alder/explain?at="+at, "", 200, `"rule":"on-the-phone"`)
	w.want("GET", "/api/people/ivy/explain?at="+at, "", 404, "nothing is remembered about ivy")
	w.want("GET", "/api/people/none/explain?at="+at, "", 404, "nobody in the directory has the identifier")
	if rec := w.ask(anyone(), "GET", "/api/people/alder/explain?at=2020-01-01T00:00:00Z", ""); rec.Code != 422 || !strings.Contains(rec.Body.String(), "more than 7 days ago") {
		t.Errorf("long ago: %d %s", rec.Code, rec.Body)
	}
	w.want("GET", "/api/people/alder/explain?at=yesterday", "", 422, `"location":"query.at"`, "Accept", "text/plain")
	w.want("GET", "/api/people/alder/history", "", 200, `"changes":[{"at"`)
	w.want("GET", "/api/people/alder/history?since=9000h", "", 200, `"changes":[{"at"`)
	for _, since := range []string{"yesterday", "-1h", "2999-01-01T00:00:00Z"} {
		w.want("GET", "/api/people/alder/history?since="+since, "", 422, `"title":"Unprocessable Entity"`)
	}
	by := audit.Actor{Who: "root", From: "test"}
	if err := w.gate.Set(t.Context(), by, access.Rule{Of: "alder", For: access.Audience{Kind: access.ForDefault}, Level: presence.LevelStatus}); err != nil {
		t.Fatal(err)
	}
	if rec := w.ask(anyone(), "GET", "/api/people/alder/history", ""); rec.Code != 404 || !strings.Contains(rec.Body.String(), "only what is now is shown") {
		t.Errorf("the history for who may not see it: %d %s", rec.Code, rec.Body)
	}
}

func TestManual(t *testing.T) {
	w := makeWorld(t, false)
	alder := signin.Identity{Account: "local:ruth", Role: signin.Person, Person: "alder"}
	rec := w.ask(alder, "PUT", "/api/people/alder/presence", `{"state":"dnd"}`)
	set := into[api.ByHand](t, rec)
	if rec.Code != 200 || set.State != "dnd" || set.Presence.Availability != presence.DoNotDisturb || time.Until(set.Until) < 23*time.Hour {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if s, _ := w.hub.State("alder"); s.Availability != presence.DoNotDisturb {
		t.Errorf("alder is %s", s.Availability)
	}
	for _, method := range []string{"PUT", "DELETE"} {
		if rec := w.ask(alder, method, "/api/people/birch/presence", `{"state":"dnd"}`); rec.Code != 403 || !strings.Contains(rec.Body.String(), "write:presence") {
			t.Errorf("%s of somebody else: %d %s", method, rec.Code, rec.Body)
		}
	}
	if rec := w.ask(alder, "DELETE", "/api/people/alder/presence", ""); rec.Code != 200 || strings.Contains(rec.Body.String(), `"state":"dnd"`) {
		t.Errorf("cleared: %d %s", rec.Code, rec.Body)
	}
	w.want("PUT", "/api/people/birch/presence", `{"state":"dnd","until":"2020-01-01T00:00:00Z"}`, 422, "has passed")
	w.want("PUT", "/api/people/none/presence", `{"state":"dnd"}`, 404, "nobody in the directory")
	w.want("PUT", "/api/people/birch/presence", `{"state":"ringing"}`, 422, `"location":"body.state"`)
	w.trail.full = true
	w.want("PUT", "/api/people/birch/presence", `{"state":"dnd"}`, 503, "the audit trail cannot be written")
}

func TestAccess(t *testing.T) {
	w := makeWorld(t, false)
	w.gate.Admit(presence.Watcher{Subject: presence.Subject{Scheme: "jid", Value: "eve@x.org"}, Via: "xmpp"}, "alder")
	w.want("GET", "/api/people/alder/watchers", "", 200, `"watcher":"jid:eve@x.org"`)
	w.want("POST", "/api/access/set", `{"of":"alder","for":{"kind":"watcher","name":"birch"},"level":"full","urgent":true}`, 200, `"done":"access set","sees":{"watcher":"id:birch"`)
	w.want("POST", "/api/access/set", `{"for":{"kind":"default"},"level":"status"}`, 200, `"done":"access set"}`)
	w.want("POST", "/api/access/set", `{"of":"alder","for":{"kind":"domain","name":"a@b"},"level":"full"}`, 422, "cannot be taken as a domain")
	w.want("POST", "/api/access/set", `{"of":"none","for":{"kind":"default"},"level":"full"}`, 404, "nobody in the directory")
	w.want("POST", "/api/access/deny", `{"of":"alder","watcher":"jid:eve@x.org"}`, 200, `"level":"block"`)
	w.want("POST", "/api/access/allow", `{"of":"alder","watcher":"jid:eve@x.org","level":"block"}`, 422, "shows nothing")
	w.want("POST", "/api/access/opt-in", `{"of":"alder"}`, 200, "has no effect")
	w.want("GET", "/api/access?of=alder", "", 200, `"name":"id:birch"`)
	w.want("GET", "/api/access/test?watcher=birch&of=alder", "", 200, `"level":"full"`)
	w.want("GET", "/api/access/test?watcher=jid:&of=alder", "", 422, "cannot be taken as a watcher")
	w.want("GET", "/api/access/pending?of=none", "", 404, "nobody in the directory has the identifier")
	lines := into[api.AuditLines](t, w.want("GET", "/api/audit?limit=2", "", 200, `"what":"access opt-in"`))
	if len(lines.Lines) != 2 || lines.LeftOut != 2 || lines.Lines[1].Who != "local:root" || lines.Lines[1].From != "test" {
		t.Errorf("%+v", lines)
	}
	older := into[api.AuditLines](t, w.want("GET", "/api/audit?limit=2&until="+url.QueryEscape(lines.Before.Format(time.RFC3339Nano)), "", 200, ""))
	if len(older.Lines) != 2 || older.LeftOut != 0 || older.Lines[0].Whom != "alder" || older.Lines[1].Whom != audit.Everybody {
		t.Errorf("%+v", older)
	}
	w.rules.fill(true)
	w.want("POST", "/api/access/forget", `{"of":"alder"}`, 503, "disk full")
}

func TestServices(t *testing.T) {
	w := makeWorld(t, false)
	const hq = `{"id":"hq","primary":{"host":"127.0.0.1"},"entity":"sip:{tel}@example.com","users":["everyone"]}`
	w.want("POST", "/api/services?dry_run=true", hq, 200, `"added":["a b/c","alder","birch","ivy"]`)
	rec := w.want("POST", "/api/services", hq, 201, `"what":"add"`)
	tag := rec.Header().Get("ETag")
	w.want("POST", "/api/services", hq, 409, "it is there already")
	if got := w.want("GET", "/api/services/hq", "", 200, `"publish_interval":"10m0s"`).Header().Get("ETag"); got != tag || tag == "" {
		t.Errorf("ETag %q, when it was added %q", got, tag)
	}
	w.want("GET", "/api/services", "", 200, `"id":"lab","origin":"configuration"`)
	w.want("PUT", "/api/services/hq", hq, 428, "If-Match")
	w.want("PUT", "/api/services/hq", hq, 422, `"location":"header.If-Match"`, "If-Match", "hq")
	w.want("PUT", "/api/services/hq", hq, 409, "you had 99", "If-Match", `"99"`)
	w.want("PUT", "/api/services/hq", `{"id":"hq","primary":{"host":"a..b"},"entity":"x","rate":-1}`, 422, `"location":"body.primary.host"`, "If-Match", tag)
	w.want("PUT", "/api/services/hq", `{"id":"hq","primary":{"hots":"a"}}`, 422, `"location":"body.primary.hots"`, "If-Match", tag)
	w.want("PUT", "/api/services/hq", strings.Replace(hq, "everyone", "alder", 1), 409, "3 of 4 people would be removed", "If-Match", tag)
	edited := w.want("PUT", "/api/services/hq?force=true", strings.Replace(hq, "everyone", "alder", 1), 200, `"what":"edit"`, "If-Match", tag).Header().Get("ETag")
	if edited == tag {
		t.Error("the revision stays")
	}
	w.want("PUT", "/api/services/lab", strings.Replace(hq, "hq", "lab", 1), 409, "stands in the configuration", "If-Match", `"1"`)
	w.want("POST", "/api/services/orders", `{"edits":[{"id":"b","form":{"id":"b","primary":{"host":"b"}}}],"dry_run":true}`, 422, `"location":"body.edits[0].form.entity"`)
	w.want("POST", "/api/services/hq/sync", "", 200, `"id":"hq"`)
	if len(w.synced) != 1 || w.synced[0] != "hq by local:root" {
		t.Errorf("%q", w.synced)
	}
	w.want("POST", "/api/services/lab/test", "", 200, `[{"address":"127.0.0.1:9","works":false`)
	w.want("POST", "/api/services/none/test", "", 404, `there is no such presence service: \"none\"`)
	w.stored.fill(true)
	w.want("DELETE", "/api/services/hq?force=true", "", 503, "disk full", "If-Match", edited)
	w.stored.fill(false)
	w.want("DELETE", "/api/services/hq?force=true", "", 200, `"what":"delete"`, "If-Match", edited)
	w.want("DELETE", "/api/services/hq", "", 404, "there is no such presence service", "If-Match", edited)
}

func TestAccounts(t *testing.T) {
	w := newWorld(t)
	w.want("POST", "/api/accounts/first-link", "", 200, "http://127.0.0.1:8080/")
	const anna = `{"user":"anna","role":"administrator","person":"alder","password":"correct horse battery"}`
	w.want("POST", "/api/accounts", anna, 200, "account anna added: administrator")
	w.want("POST", "/api/accounts", anna, 409, "there is an account of that name already")
	w.want("POST", "/api/accounts/first-link", "", 409, "there is an administrator already")
	w.want("GET", "/api/accounts", "", 200, `[{"account":"local:anna","name":"Ruth Alder","role":"administrator","person":"alder"}]`)
	w.want("PUT", "/api/accounts/anna/role", `{"role":"person"}`, 409, "the last administrator")
	w.want("PUT", "/api/accounts/bert/role", `{"role":"person"}`, 404, "there is no such account")
	short := w.want("PUT", "/api/accounts/anna/password", `{"password":"short"}`, 422, "at least")
	if strings.Contains(short.Body.String(), `"short"`) {
		t.Errorf("the password is sent back: %s", short.Body)
	}
	w.want("POST", "/api/accounts", `{"user":"anna b","role":"person","password":"correct horse battery"}`, 422, "a name has")
	w.want("POST", "/api/accounts", `{"user":"bert","role":"person","person":"none","password":"correct horse battery"}`, 422, `"location":"body.person"`)
	w.want("DELETE", "/api/tokens/none", "", 404, "there is no such token")
	w.trail.full = true
	w.want("PUT", "/api/accounts/anna/password", `{"password":"correct horse battery 2"}`, 503, "disk full")
}

func TestPolicy(t *testing.T) {
	w := makeWorld(t, false)
	w.want("GET", "/api/policy", "", 200, `"rules"`)
	w.want("POST", "/api/policy/check", table, 200, `{"rules":1}`)
	w.want("POST", "/api/policy/check", "rules:\n- {rule: x}\n", 422, `"message":"line 2: `)
	w.want("POST", "/api/policy/dry-run?since=2h", table, 200, `"would":"dnd"`)
	w.want("POST", "/api/policy/dry-run?since=soon", table, 422, `"location":"query.since"`)
}

func TestWebhooks(t *testing.T) {
	w := makeWorld(t, false)
	w.want("GET", "/api/webhooks/crm/dead", "", 200, `"why":"410 Gone"`)
	w.want("POST", "/api/webhooks/crm/retry?person=alder", "", 200, `{"letters":1}`)
	w.want("GET", "/api/webhooks/none/dead", "", 404, "no webhook")
}

// Where there is no operation, that is a problem too.
func TestMissed(t *testing.T) {
	w := makeWorld(t, false)
	for _, c := range []struct {
		method, target string
		code           int
		allow          string
	}{
		{"GET", "/api/rubbish", 404, ""},
		{"POST", "/api/", 404, ""},
		{"POST", "/api/people", 405, "GET, HEAD"},
		{"PATCH", "/api/people/alder/presence", 405, "DELETE, PUT"},
		{"DELETE", "/api/docs", 405, "GET, HEAD"},
	} {
		rec := w.want(c.method, c.target, "", c.code, `"detail"`)
		if rec.Header().Get("Allow") != c.allow || rec.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %v", c.method, c.target, rec.Header())
		}
	}
	if rec := w.want("HEAD", "/api/people", "", 200, ""); rec.Header().Get("Content-Type") != "application/json" {
		t.Errorf("HEAD: %v", rec.Header())
	}
	broken := w.want("PUT", "/api/people/alder/presence", "{", 400, `"location":"body"`)
	if strings.Contains(broken.Body.String(), `"value"`) {
		t.Errorf("what was sent is sent back: %s", broken.Body)
	}
	w.want("PUT", "/api/people/alder/presence", `<state/>`, 415, "", "Content-Type", "application/xml")
}

func TestMe(t *testing.T) {
	w := makeWorld(t, false)
	w.want("GET", "/api/me", "", 200, `"role":"administrator","permissions":["read:states"`)
	if rec := w.ask(signin.Identity{}, "GET", "/api/me", ""); rec.Code != 200 || !strings.Contains(rec.Body.String(), `"role":"nobody","permissions":[]`) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

var update = flag.Bool("update", false, "write the document anew") //nolint:gochecknoglobals // a flag

// TestDocument compares the OpenAPI document with the one that was read by people:
// every change of the API is to be seen.
func TestDocument(t *testing.T) {
	rec := newWorld(t).want("GET", "/api/openapi.json", "", 200, `"openapi": "3.1.0"`)
	const file = "testdata/openapi.json"
	if *update {
		if err := os.WriteFile(file, rec.Body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != rec.Body.String() {
		t.Errorf("the document is not as in %s; if that is meant, go test -run TestDocument -update (%v)", file, err)
	}
}

// TestDocs looks at the page: it tells of every operation, each of its links leads
// somewhere, and nothing is fetched from elsewhere or stands inline.
func TestDocs(t *testing.T) {
	w := newWorld(t)
	body := w.want("GET", "/api/docs", "", 200, "<h1>").Body.String()
	for id := range w.operations() {
		if !strings.Contains(body, `id="`+id+`"`) {
			t.Errorf("the page does not tell of %s", id)
		}
	}
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		if n.Data == "script" || n.Data == "style" {
			t.Errorf("there is a %s", n.Data)
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "style" || strings.HasPrefix(a.Key, "on"):
				t.Errorf("%s has %s", n.Data, a.Key)
			case (a.Key == "href" || a.Key == "src") && strings.HasPrefix(a.Val, "#"):
				if !strings.Contains(body, `id="`+a.Val[1:]+`"`) {
					t.Errorf("%s leads nowhere", a.Val)
				}
			case (a.Key == "href" || a.Key == "src") && !strings.HasPrefix(a.Val, "/"):
				t.Errorf("%s is elsewhere", a.Val)
			}
		}
	}
}

// Whatever is in a calendar that is not open, none of it leaves through any operation
// about people.
func TestCalendarLaw(t *testing.T) {
	entries := []presence.Fact{
		presence.CalendarTentative, presence.CalendarBusy, presence.CalendarAllDay, presence.CalendarMeeting, presence.CalendarElsewhere, presence.CalendarOutOfOffice,
	}
	others := []presence.Fact{presence.PhoneIdle, presence.PhoneConnected, presence.SessionActive, presence.SessionIdle}
	w := makeWorld(t, false)
	rapid.Check(t, func(r *rapid.T) {
		by := audit.Actor{Who: "root", From: "test"}
		level := rapid.SampledFrom([]presence.Level{presence.LevelBlock, presence.LevelConfirm, presence.LevelTelephony, presence.LevelStatus, presence.LevelFull}).Draw(r, "level")
		privacy := rapid.SampledFrom([]presence.CalendarPrivacy{presence.CalendarHidden, presence.CalendarTimes}).Draw(r, "privacy")
		if err := w.gate.Set(t.Context(), by, access.Rule{Of: "alder", For: access.Audience{Kind: access.ForDefault}, Level: level}); err != nil {
			t.Fatal(err)
		}
		if err := w.gate.SetCalendar(t.Context(), by, "alder", privacy); err != nil {
			t.Fatal(err)
		}
		entry := presence.Span{Fact: rapid.SampledFrom(entries).Draw(r, "entry"), From: time.Now().Add(-time.Hour), Until: time.Now().Add(30 * time.Hour), Contact: "im:clinic-secret", Note: "note-secret", Private: rapid.Bool().Draw(r, "private")}
		w.says("4750", "exchange-secret", entry)
		w.says("4750", "aes-cm1", span(rapid.SampledFrom(others).Draw(r, "other")))
		ended := entry.Until.UTC().Format("2006-01-02T15:04")
		for _, target := range []string{
			"/api/people", "/api/people/alder", "/api/states", "/api/states/alder", "/api/states?id=alder", "/api/people/alder/explain", "/api/people/alder/history",
			"/api/people/alder/explain?at=" + url.QueryEscape(time.Now().Add(-time.Minute).Format(time.RFC3339)), "/api/people/alder/explain?at=" + url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339)),
		} {
			for _, accept := range []string{"application/json", "text/plain"} {
				body := strings.ToLower(w.ask(anyone(), http.MethodGet, target, "", "Accept", accept).Body.String())
				for _, word := range []string{"secret", "meeting", "appointment", "tentative", "working-elsewhere", `"private"`} {
					if strings.Contains(body, word) {
						r.Fatalf("%s at %s, calendar %s tells %q:\n%s", target, level, privacy, word, body)
					}
				}
				if (level != presence.LevelFull || privacy == presence.CalendarHidden) && strings.Contains(body, strings.ToLower(ended)) {
					r.Fatalf("%s at %s, calendar %s tells when it ends:\n%s", target, level, privacy, body)
				}
			}
		}
	})
}

var _ api.Sight = (*web.Site)(nil)
