package signin_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/html"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

func TestRoles(t *testing.T) {
	w := newWorld(t, settings())
	for user, may := range map[string]map[string]int{
		"anna": {"/": 200, "/own": 200, "/presence": 403, "/audit": 403, "/services": 403},
		"otto": {"/": 200, "/own": 200, "/presence": 200, "/audit": 403, "/services": 403},
		"ada":  {"/": 200, "/own": 200, "/presence": 200, "/audit": 200, "/services": 200},
	} {
		b := w.browse()
		b.signIn(user)
		for path, want := range may {
			if a := b.get(path); a.StatusCode != want {
				t.Errorf("%s at %s: %s", user, path, a.Status)
			}
		}
	}
	b := w.browse()
	b.signIn("anna")
	if a := b.get("/"); a.body != "hello local:anna 7" {
		t.Errorf("%q: anna is person 7 by her mail", a.body)
	}
	b.signIn("otto")
	if a := b.get("/"); a.body != "hello local:otto " {
		t.Errorf("%q: otto is nobody in the directory", a.body)
	}
}

func TestIdentity(t *testing.T) {
	anna := signin.Identity{Account: "local:anna", Role: signin.Person, Person: "7"}
	if !anna.MaySet("7") || anna.MaySet("8") || anna.MaySet("") {
		t.Error("a person sets their own presence, and nothing else")
	}
	if stranger := (signin.Identity{Role: signin.Person}); stranger.MaySet("") {
		t.Error("who is nobody in the directory sets the presence of nobody")
	}
	if !(signin.Identity{Role: signin.Operator}).MaySet("8") || (signin.Identity{Role: signin.Anyone}).MaySet("8") {
		t.Error("an operator sets anybody's presence, anyone nobody's")
	}
	if (signin.Identity{Role: signin.Administrator}).May(0) {
		t.Error("no permission is none")
	}
	if (signin.Identity{Role: signin.Administrator, Token: "x"}).May(signin.ReadStates) {
		t.Error("a token without scopes may nothing")
	}
	for _, name := range signin.Permissions() {
		var p signin.Permission
		if err := p.UnmarshalText([]byte(name)); err != nil || p.String() != name || !(signin.Identity{Role: signin.Administrator}).May(p) {
			t.Errorf("%s: %v %v", name, p, err)
		}
	}
}

// Who did not sign in is sent to, if a browser asks, and comes back to where they were.
func TestRequired(t *testing.T) {
	w := newWorld(t, settings())
	b := w.browse()
	a := b.get("/people/7?at=now")
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/signin?next=%2Fpeople%2F7%3Fat%3Dnow" {
		t.Errorf("%s to %s", a.Status, a.Header.Get("Location"))
	}
	if a := b.get("/api/people", "Accept", "application/json"); a.StatusCode != http.StatusUnauthorized || a.Header.Get("WWW-Authenticate") != "Bearer" || !strings.Contains(a.body, `"detail"`) {
		t.Errorf("%s %s", a.Status, a.body)
	}
	a = b.post("/signin", url.Values{"user": {" Anna "}, "password": {password}, "next": {"/people/7?at=now"}})
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/people/7?at=now" {
		t.Errorf("%s to %s", a.Status, a.Header.Get("Location"))
	}

	open := settings()
	open.Required = "auto" // and the page is on loopback
	w = newWorld(t, open)
	b = w.browse()
	if a := b.get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("nobody has to sign in: %s", a.Status)
	}
	if a := b.get("/own"); a.StatusCode != http.StatusSeeOther {
		t.Errorf("but to change something: %s", a.Status)
	}
}

// A wrong password and a name that is nobody's give the same answer.
func TestRefusal(t *testing.T) {
	w := newWorld(t, settings())
	b := w.browse()
	var first string
	for _, try := range [][2]string{{"anna", "wrong password"}, {"nobody", "wrong password"}, {"", ""}, {"anna", ""}, {"anna\x00", password}, {"anna", strings.Repeat("x", 2000)}} {
		a := b.post("/signin", url.Values{"user": {try[0]}, "password": {try[1]}})
		body := strings.ReplaceAll(a.body, `value="`+html.EscapeString(strings.Trim(try[0], "\x00"))+`"`, "")
		if first == "" {
			first = body
		}
		if a.StatusCode != http.StatusForbidden || body != first || b.session() != "" || strings.Contains(body, "wrong password") {
			t.Errorf("%q: %s %s", try, a.Status, a.body)
		}
	}
	for _, n := range w.notes {
		if n.What == "sign-in failed" && n.Whom != "local:anna" && n.Whom != "an unknown name" {
			t.Errorf("the trail quotes what was typed: %+v", n)
		}
	}
	if w.told("sign-in failed") == 0 || strings.Contains(w.logged.String(), "wrong password") {
		t.Errorf("%+v\n%s", w.notes, w.logged.String())
	}
}

// serve asks the site without a network, in a bubble.
func serve(w *world, site http.Handler, method, path, from, cookie string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(w.t.Context(), method, origin+path, strings.NewReader(form.Encode()))
	r.RemoteAddr = from + ":4711"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "text/html")
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: "presenced", Value: cookie})
	}
	rec := httptest.NewRecorder()
	site.ServeHTTP(rec, r)
	return rec
}

func TestTooManyAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settings())
		defer w.stop()
		site := w.site()
		try := func(from, user, with string) int {
			return serve(w, site, http.MethodPost, "/signin", from, "", url.Values{"user": {user}, "password": {with}}).Code
		}
		for range 5 {
			if code := try("10.0.0.1", "anna", "wrong password"); code != http.StatusForbidden {
				t.Fatal(code)
			}
		}
		if code := try("10.0.0.1", "ANNA", password); code != http.StatusTooManyRequests {
			t.Errorf("the sixth attempt: %d", code)
		}
		if h := serve(w, site, http.MethodPost, "/signin", "10.0.0.1", "", url.Values{"user": {"anna"}, "password": {password}}).Header(); h.Get("Retry-After") != "30" {
			t.Errorf("Retry-After: %q", h.Get("Retry-After"))
		}
		if code := try("10.0.0.2", "anna", password); code != http.StatusSeeOther {
			t.Errorf("anna herself, from elsewhere: %d", code)
		}
		if code := try("10.0.0.1", "otto", password); code != http.StatusSeeOther {
			t.Errorf("another name from there: %d", code)
		}
		// Who goes on waits longer each time.
		var waits []time.Duration
		for range 3 {
			began := time.Now()
			for try("10.0.0.1", "anna", "wrong password") == http.StatusTooManyRequests {
				time.Sleep(5 * time.Second)
			}
			waits = append(waits, time.Since(began))
			try("10.0.0.1", "anna", "wrong password")
			try("10.0.0.1", "anna", "wrong password")
			try("10.0.0.1", "anna", "wrong password")
		}
		if waits[2] <= waits[0] {
			t.Errorf("waits of %v", waits)
		}
		// One address with ever new names, then one name from ever new addresses.
		refused := 0
		for i := range 40 {
			if try("10.0.0.3", "guess"+string(rune('a'+i)), "wrong password") == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused != 10 {
			t.Errorf("%d of 40 names from one address were refused", refused)
		}
		refused = 0
		for i := range 40 {
			if try("10.0.1."+string(rune('0'+i%10))+string(rune('0'+i/10)), "otto", "wrong password") == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused == 0 {
			t.Error("forty addresses tried one name")
		}
		// Of IPv6 a network of 64 bits is one address: anybody has that many.
		refused = 0
		for i := range 40 {
			if try(fmt.Sprintf("[2001:db8::%x]", i+1), fmt.Sprint("six", i), "wrong password") == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused != 10 {
			t.Errorf("%d of 40 addresses of one network were refused", refused)
		}
	})
}

// Who came by LDAP is vouched for by their last sign-in, for a month: what they have
// here ends then, because nobody tells presenced that somebody left.
func TestVouchedForAMonth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := settings()
		cfg.Idle, cfg.Absolute = 1000*time.Hour, 1000*time.Hour
		cfg.LDAP.URL = "ldaps://127.0.0.1:1"
		w := &world{t: t}
		secret := make([]byte, 32)
		account := signin.Account{Via: signin.ViaLDAP, User: "cn=anna", Name: "Anna", Role: signin.Person, Seen: time.Now()}
		for m, value := range map[*memory]any{
			&w.accounts: account,
			&w.sessions: map[string]any{"account": account.ID(), "began": time.Now(), "seen": time.Now()},
		} {
			data, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			key := sha256.Sum256(secret)
			name := hex.EncodeToString(key[:])
			if m == &w.accounts {
				name = hex.EncodeToString([]byte(account.ID()))
			}
			m.values = map[string][]byte{name: data}
		}
		w.open(cfg)
		defer w.stop()
		site := w.site()
		cookie := base64.RawURLEncoding.EncodeToString(secret)
		time.Sleep(30*24*time.Hour - time.Minute)
		if code := serve(w, site, http.MethodGet, "/", "10.0.0.1", cookie, nil).Code; code != 200 {
			t.Errorf("within the month: %d", code)
		}
		time.Sleep(time.Minute + time.Second)
		if code := serve(w, site, http.MethodGet, "/", "10.0.0.1", cookie, nil).Code; code == 200 {
			t.Error("after the month")
		}
		time.Sleep(time.Minute)
		if all := w.accounts.all(); all != "" {
			t.Errorf("it is kept: %s", all)
		}
	})
}

// However many fail, the audit trail gets a bounded number of lines, and the next one
// says how many it did not get.
func TestFailuresInTheAuditTrail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settings())
		defer w.stop()
		site := w.site()
		fail := func(i int) {
			serve(w, site, http.MethodPost, "/signin", fmt.Sprintf("10.0.%d.%d", i/250, i%250), "", url.Values{"user": {fmt.Sprint("guess", i)}, "password": {"wrong password"}})
		}
		for i := range 200 {
			fail(i)
		}
		if n := w.told("sign-in failed"); n != 60 {
			t.Errorf("%d lines", n)
		}
		time.Sleep(time.Second)
		fail(200)
		if last := w.notes[len(w.notes)-1]; !strings.Contains(last.Detail, "140 more were not written") || last.Whom != "an unknown name" {
			t.Errorf("%+v", last)
		}
	})
}

func TestIdleAndAbsolute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settings())
		defer w.stop()
		site := w.site()
		enter := func() string {
			res := serve(w, site, http.MethodPost, "/signin", "10.0.0.1", "", url.Values{"user": {"anna"}, "password": {password}}).Result()
			return res.Cookies()[0].Value
		}
		in := func(id string) bool { return serve(w, site, http.MethodGet, "/", "10.0.0.1", id, nil).Code == 200 }
		id := enter()
		time.Sleep(8*time.Hour - time.Second)
		if !in(id) {
			t.Error("ended before it was idle for 8 hours")
		}
		time.Sleep(8 * time.Hour)
		if in(id) {
			t.Error("was idle for 8 hours")
		}
		id = enter()
		for range 5 {
			time.Sleep(24 * time.Hour / 6)
			if !in(id) {
				t.Error("ended while it was used")
			}
		}
		time.Sleep(24 * time.Hour / 6)
		if in(id) {
			t.Error("was used for 24 hours")
		}
		time.Sleep(time.Minute)
		if w.sessions.all() != "" {
			t.Errorf("the store keeps what is over: %s", w.sessions.all())
		}
	})
}

// Sessions and tokens live over a restart; what was ended does not, even where the
// store was down when it was. Neither can be used by who reads the store.
func TestRestart(t *testing.T) {
	w := newWorld(t, settings())
	b, c := w.browse(), w.browse()
	stays := b.signIn("anna")
	token := b.token("read:states")
	left := c.signIn("anna")
	for _, secret := range []string{stays, left, token, token[3:], password} {
		if all := w.sessions.all() + w.tokens.all() + w.accounts.all() + w.logged.String(); strings.Contains(all, secret) {
			t.Errorf("%q is kept: %s", secret, all)
		}
	}
	w.sessions.becomes(true)
	if a := c.post("/signout", url.Values{}); a.StatusCode != http.StatusSeeOther || c.session() != "" {
		t.Errorf("%s", a.Status)
	}
	w.sessions.becomes(false)
	w.open(settings())
	site := w.site()
	if code := serve(w, site, http.MethodGet, "/", "10.0.0.1", stays, nil).Code; code != 200 {
		t.Errorf("the session after a restart: %d", code)
	}
	if code := serve(w, site, http.MethodGet, "/", "10.0.0.1", left, nil).Code; code == 200 {
		t.Error("a session that was ended came back")
	}
	if a := w.browse().get("/", "Authorization", "Bearer "+token); a.StatusCode != 200 {
		t.Errorf("the token after a restart: %s", a.Status)
	}
	// The clock was turned back by an hour: the limits of what began later mean nothing.
	w.stop()
	for name, value := range w.sessions.values {
		s := map[string]any{}
		if err := json.Unmarshal(value, &s); err != nil {
			t.Fatal(err)
		}
		s["began"], s["seen"] = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
		value, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		w.sessions.values[name] = value
	}
	w.open(settings())
	if code := serve(w, w.site(), http.MethodGet, "/", "10.0.0.1", stays, nil).Code; code == 200 {
		t.Error("a session of the future counts")
	}
}

// Before the accounts could be read nobody is let in.
func TestUnread(t *testing.T) {
	w := newWorld(t, settings())
	session := w.browse().signIn("anna")
	w.stop()
	w.accounts.becomes(true)
	desk, err := signin.New(settings(), signin.Deps{Origin: origin, Accounts: &w.accounts, Sessions: &w.sessions, Tokens: &w.tokens, People: w, Audit: w.audit, Log: nil})
	if err != nil {
		t.Fatal(err)
	}
	w.desk = desk
	site := w.site()
	if code := serve(w, site, http.MethodPost, "/signin", "10.0.0.1", "", url.Values{"user": {"anna"}, "password": {password}}).Code; code != http.StatusServiceUnavailable {
		t.Errorf("sign-in: %d", code)
	}
	if code := serve(w, site, http.MethodGet, "/", "10.0.0.1", session, nil).Code; code == 200 {
		t.Error("a session counts though its account is not known")
	}
	if _, err := desk.FirstLink(); !errors.Is(err, signin.ErrUnread) {
		t.Errorf("a first link, though there may be administrators: %v", err)
	}
}

// A session that was ended while the store was down is over when Run begins again,
// whatever the store has.
func TestEndedWhileTheStoreWasDown(t *testing.T) {
	w := newWorld(t, settings())
	b := w.browse()
	left := b.signIn("anna")
	w.sessions.becomes(true)
	if a := b.post("/signout", url.Values{}); a.StatusCode != http.StatusSeeOther {
		t.Fatal(a.Status)
	}
	w.stop()
	w.sessions.becomes(false)
	if all := w.sessions.all(); all == "" {
		t.Fatal("the store has forgotten it")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.desk.Run(ctx); !errors.Is(err, context.Canceled) { // reads, and writes what is left
		t.Fatal(err)
	}
	if code := serve(w, w.site(), http.MethodGet, "/", "10.0.0.1", left, nil).Code; code == 200 {
		t.Error("it came back")
	}
	if all := w.sessions.all(); all != "" {
		t.Errorf("the store has it still: %s", all)
	}
}

// The first link is used once, by however many at the same time, and not at all when
// there is an administrator otherwise.
func TestFirstLinkIsUsedOnce(t *testing.T) {
	use := func(w *world, site http.Handler, link, user string) int {
		_, token, _ := strings.Cut(link, "token=")
		return serve(w, site, http.MethodPost, "/signin/first", "10.0.0.1", "", url.Values{"token": {token}, "user": {user}, "password": {password}, "again": {password}}).Code
	}
	w := &world{t: t}
	w.open(settings())
	site := w.site()
	link, err := w.desk.FirstLink()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var let atomic.Int64
	for i := range 8 {
		all.Go(func() {
			if use(w, site, link, fmt.Sprint("root", i)) == http.StatusSeeOther {
				let.Add(1)
			}
		})
	}
	all.Wait()
	if accounts, err := w.desk.List(); err != nil || len(accounts) != 1 || let.Load() != 1 {
		t.Errorf("%d were let in, %v, %v", let.Load(), accounts, err)
	}

	w = &world{t: t}
	w.open(settings())
	if link, err = w.desk.FirstLink(); err != nil {
		t.Fatal(err)
	}
	if err := w.desk.Add(t.Context(), by, signin.NewAccount{User: "ada", Role: signin.Administrator, Password: password}); err != nil {
		t.Fatal(err)
	}
	if code := use(w, w.site(), link, "mallory"); code != http.StatusForbidden {
		t.Errorf("a link from before there was an administrator: %d", code)
	}
}

func TestFirstLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		w.open(settings())
		defer w.stop()
		link := func() string {
			text, err := w.desk.FirstLink()
			if err != nil {
				t.Fatal(err)
			}
			token, ok := strings.CutPrefix(text, origin+"/signin/first?token=")
			if !ok || len(token) != 43 {
				t.Fatal(text)
			}
			return token
		}
		site := w.site()
		use := func(token, with string) *httptest.ResponseRecorder {
			return serve(w, site, http.MethodPost, "/signin/first", "10.0.0.1", "", url.Values{"token": {token}, "user": {"Root"}, "password": {with}, "again": {with}})
		}
		old := link()
		token := link()
		if code := serve(w, site, http.MethodGet, "/signin/first?token="+token, "10.0.0.1", "", nil).Code; code != 200 {
			t.Errorf("the form: %d", code)
		}
		if code := use(old, password).Code; code != http.StatusForbidden {
			t.Errorf("a link that another took the place of: %d", code)
		}
		if code := use("", password).Code; code != http.StatusForbidden {
			t.Errorf("no token: %d", code)
		}
		if rec := use(token, "root"); rec.Code != http.StatusUnprocessableEntity || !strings.Contains(rec.Body.String(), "at least 10 characters") {
			t.Errorf("a short password: %d %s", rec.Code, rec.Body)
		}
		w.accounts.becomes(true)
		if code := use(token, password).Code; code != http.StatusUnprocessableEntity {
			t.Errorf("the store is down: %d", code)
		}
		w.accounts.becomes(false)
		rec := use(token, password)
		if rec.Code != http.StatusSeeOther || len(rec.Result().Cookies()) != 1 {
			t.Fatalf("the link: %d %s", rec.Code, rec.Body)
		}
		if code := serve(w, site, http.MethodGet, "/services", "10.0.0.1", rec.Result().Cookies()[0].Value, nil).Code; code != 200 {
			t.Errorf("the administrator is signed in: %d", code)
		}
		if code := use(token, password).Code; code != http.StatusForbidden {
			t.Errorf("the link a second time: %d", code)
		}
		if code := serve(w, site, http.MethodGet, "/signin/first?token="+token, "10.0.0.1", "", nil).Code; code != http.StatusForbidden {
			t.Errorf("the form a second time: %d", code)
		}
		if _, err := w.desk.FirstLink(); !errors.Is(err, signin.ErrAdministrator) {
			t.Errorf("a link though there is an administrator: %v", err)
		}
		if err := w.desk.Remove(t.Context(), by, "root"); !errors.Is(err, signin.ErrLast) {
			t.Errorf("the last administrator: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		w.open(settings())
		defer w.stop()
		text, _ := w.desk.FirstLink()
		time.Sleep(time.Hour)
		if code := serve(w, w.site(), http.MethodGet, strings.TrimPrefix(text, origin), "10.0.0.1", "", nil).Code; code != http.StatusForbidden {
			t.Errorf("after an hour: %d", code)
		}
	})
}

// A change of an account reaches its sessions and tokens at once, and is not made
// where the trail cannot be written.
func TestAccountChanges(t *testing.T) {
	w := newWorld(t, settings())
	b := w.browse()
	b.signIn("otto")
	token := b.token("write:presence")
	bearer := []string{"Authorization", "Bearer " + token}
	if err := w.desk.SetRole(t.Context(), by, "otto", signin.Person); err != nil {
		t.Fatal(err)
	}
	if a, k := b.get("/presence"), w.browse().get("/presence", bearer...); a.StatusCode != 403 || k.StatusCode != 403 {
		t.Errorf("otto is no operator any more: %s, token %s", a.Status, k.Status)
	}
	w.silent = true
	if err := w.desk.SetRole(t.Context(), by, "otto", signin.Administrator); err == nil {
		t.Error("changed without a line")
	}
	w.silent = false
	if err := w.desk.SetPassword(t.Context(), by, "otto", "another password"); err != nil {
		t.Fatal(err)
	}
	if a := b.get("/"); a.StatusCode != http.StatusSeeOther {
		t.Errorf("a session outlived its password: %s", a.Status)
	}
	if err := w.desk.Remove(t.Context(), by, "otto"); err != nil {
		t.Fatal(err)
	}
	if a := w.browse().get("/", bearer...); a.StatusCode != 401 {
		t.Errorf("a token outlived its account: %s", a.Status)
	}
	if err := w.desk.Add(t.Context(), by, signin.NewAccount{User: "otto", Role: signin.Operator, Password: password}); err != nil {
		t.Fatal(err)
	}
	if a := w.browse().get("/", bearer...); a.StatusCode != 401 {
		t.Errorf("a new account has the token of one before: %s", a.Status)
	}
	c := w.browse()
	before := c.signIn("anna")
	if err := w.desk.Remove(t.Context(), by, "anna"); err != nil {
		t.Fatal(err)
	}
	if err := w.desk.Add(t.Context(), by, signin.NewAccount{User: "anna", Role: signin.Person, Password: password}); err != nil {
		t.Fatal(err)
	}
	if code := serve(w, w.site(), http.MethodGet, "/", "10.0.0.1", before, nil).Code; code == 200 {
		t.Error("a new account has the session of one before")
	}
	for err, n := range map[string]signin.NewAccount{
		"already":     {User: "Anna", Role: signin.Person, Password: password},
		"letters":     {User: "an na", Role: signin.Person, Password: password},
		"at least":    {User: "x", Role: signin.Person, Password: "short"},
		"not be the":  {User: "long-enough", Role: signin.Person, Password: "Long-Enough"},
		"a role is":   {User: "x", Role: signin.Anyone, Password: password},
		"text of at ": {User: "x", Role: signin.Person, Password: strings.Repeat("x", 1025)},
	} {
		if got := w.desk.Add(t.Context(), by, n); got == nil || !strings.Contains(got.Error(), err) {
			t.Errorf("%+v: %v, want %q", n, got, err)
		}
	}
	all, err := w.desk.List()
	if err != nil || len(all) != 3 || all[0].ID() != "local:ada" || all[0].Hash != nil {
		t.Errorf("%+v, %v", all, err)
	}
	if len(w.notes) < 6 || w.told("account role set to administrator") != 0 {
		t.Errorf("%+v", w.notes)
	}
}

// A way to sign in that is turned off ends what came of it.
func TestTurnedOff(t *testing.T) {
	w := newWorld(t, settings())
	b := w.browse()
	session := b.signIn("anna")
	token := b.token("read:states")
	off := settings()
	off.Local = false
	w.open(off)
	if code := serve(w, w.site(), http.MethodGet, "/", "10.0.0.1", session, nil).Code; code == 200 {
		t.Error("a session of a local account")
	}
	if a := w.browse().get("/", "Authorization", "Bearer "+token); a.StatusCode != 401 {
		t.Errorf("a token of a local account: %s", a.Status)
	}
	if a := w.browse().post("/signin", url.Values{"user": {"anna"}, "password": {password}}); a.StatusCode != 403 {
		t.Errorf("a sign-in: %s", a.Status)
	}
	if _, err := w.desk.FirstLink(); err == nil {
		t.Error("a link to make a local account")
	}
}

// A hash that costs too little by now is made anew with the next sign-in, which
// does not wait for the store to be there.
func TestStrongerHash(t *testing.T) {
	w := newWorld(t, settings())
	w.desk.Harden()
	w.accounts.becomes(true)
	w.browse().signIn("anna")
	w.accounts.becomes(false)
	if strings.Contains(w.accounts.all(), "m=19456") {
		t.Fatal("it costs that already")
	}
	w.browse().signIn("anna")
	if all := w.accounts.all(); strings.Count(all, "m=19456,t=2,p=1") != 1 {
		t.Error(all)
	}
	w.browse().signIn("anna")
}

func TestNoMoreThanTwentySessions(t *testing.T) {
	w := newWorld(t, settings())
	first := w.browse()
	first.signIn("anna")
	for range 20 {
		w.browse().signIn("anna")
	}
	if a := first.get("/"); a.StatusCode == 200 {
		t.Error("the session that was used first is still there")
	}
}

func TestMine(t *testing.T) {
	w := newWorld(t, settings())
	b, c := w.browse(), w.browse()
	b.signIn("anna")
	c.signIn("anna")
	token := b.token("read:states")
	page := b.get("/me/access")
	ids := idField.FindAllStringSubmatch(page.body, -1)
	if len(ids) != 3 || strings.Contains(page.body, token) || strings.Contains(page.body, "write:presence") || !strings.Contains(page.body, "read:states") {
		t.Fatalf("%d: %s", len(ids), page.body)
	}
	if a := b.get("/me/access", "Authorization", "Bearer "+token); a.StatusCode != 403 {
		t.Errorf("a token sees tokens: %s", a.Status)
	}
	other := w.browse()
	other.signIn("otto")
	for _, path := range []string{"/me/tokens/revoke", "/me/sessions/end"} {
		for _, id := range ids {
			if a := other.post(path, url.Values{"id": {id[1]}}); a.StatusCode != http.StatusNotFound {
				t.Errorf("otto at %s of anna: %s", path, a.Status)
			}
		}
	}
	if w.told("token revoked") > 0 {
		t.Error("the trail says what was not done")
	}
	if a := b.post("/me/tokens/revoke", url.Values{"id": {ids[2][1]}}); a.StatusCode != http.StatusSeeOther {
		t.Errorf("revoke: %s", a.Status)
	}
	if a := b.get("/", "Authorization", "Bearer "+token); a.StatusCode != 401 || w.tokens.all() != "" {
		t.Errorf("revoked: %s, %s", a.Status, w.tokens.all())
	}
	if a := b.post("/me/sessions/end", url.Values{"id": {"all"}}); a.StatusCode != http.StatusSeeOther {
		t.Errorf("everywhere: %s", a.Status)
	}
	if b.get("/").StatusCode == 200 || c.get("/").StatusCode == 200 || other.get("/").StatusCode != 200 {
		t.Error("signed out everywhere means all of one's own sessions")
	}
	if html, err := w.desk.Fragment(t.Context()); html != "" || err != nil {
		t.Errorf("nobody has sessions: %q %v", html, err)
	}
	html, err := w.desk.Fragment(signin.With(t.Context(), signin.Identity{Account: "local:otto", Role: signin.Operator}))
	if err != nil || !strings.Contains(string(html), "write:presence") || strings.Contains(string(html), "<html") {
		t.Errorf("%s, %v", html, err)
	}
}

// Each form works without script and style of its own, and each input has a label.
func TestPages(t *testing.T) {
	w := &world{t: t, people: map[presence.Subject]presence.ID{}}
	w.open(settings())
	link, _ := w.desk.FirstLink()
	b := w.browse()
	pages := map[string]string{"signin": b.get("/signin?next=/people/7").body, "first": b.get(strings.TrimPrefix(link, origin)).body, "refused": b.get("/signin/first").body}
	if err := w.desk.Add(t.Context(), by, signin.NewAccount{User: "anna", Name: `<b>"Anna"`, Role: signin.Person, Password: password}); err != nil {
		t.Fatal(err)
	}
	pages["failed"] = b.post("/signin", url.Values{"user": {`"><script>`}, "password": {"x"}}).body
	b.signIn("anna")
	pages["token"] = b.post("/me/tokens", url.Values{"name": {"<script>"}, "scope": {"read:states"}, "days": {"30"}}).body
	pages["mine"] = b.get("/me/access", "User-Agent", "<script>").body
	for name, page := range pages {
		labels, inputs := map[string]bool{}, map[string]bool{}
		for z := html.NewTokenizer(strings.NewReader(page)); z.Next() != html.ErrorToken; {
			tag := z.Token()
			if tag.Type == html.EndTagToken {
				continue
			}
			attr := map[string]string{}
			for _, a := range tag.Attr {
				if attr[a.Key] = a.Val; a.Key == "style" || strings.HasPrefix(a.Key, "on") {
					t.Errorf("%s: %s", name, tag)
				}
			}
			switch {
			case tag.Data == "script" || tag.Data == "style":
				t.Errorf("%s: %s", name, tag)
			case tag.Data == "label" && attr["for"] != "":
				labels[attr["for"]] = true
			case tag.Data == "select", tag.Data == "input" && attr["type"] != "hidden" && attr["type"] != "checkbox":
				inputs[attr["id"]] = true
				if tag.Data == "input" && attr["autocomplete"] == "" {
					t.Errorf("%s: no autocomplete: %s", name, tag)
				}
			}
		}
		if !strings.Contains(page, "<h1") || !strings.Contains(page, `lang="en"`) {
			t.Errorf("%s: %s", name, page)
		}
		for id := range inputs {
			if !labels[id] {
				t.Errorf("%s: no label for %q", name, id)
			}
		}
	}
}

// Behind a proxy of the configuration, who tries is who the proxy says; nobody else
// is believed.
func TestProxies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := settings()
		cfg.Proxies = []string{"10.0.0.1", "192.168.0.0/16"}
		w := newWorld(t, cfg)
		defer w.stop()
		site := w.site()
		try := func(peer, forwarded string) int {
			r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, origin+"/signin", strings.NewReader("user=anna&password=wrong"))
			r.RemoteAddr = peer + ":1"
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("X-Forwarded-For", forwarded)
			rec := httptest.NewRecorder()
			site.ServeHTTP(rec, r)
			_, _ = io.Copy(io.Discard, rec.Body)
			return rec.Code
		}
		for range 6 {
			try("10.0.0.1", "6.6.6.6, 172.16.0.1, 192.168.3.4")
		}
		if code := try("10.0.0.1", "7.7.7.7, 172.16.0.1"); code != http.StatusTooManyRequests {
			t.Errorf("what the client wrote itself was believed: %d", code)
		}
		if code := try("10.0.0.1", "172.16.0.2"); code != http.StatusForbidden {
			t.Errorf("another client of the proxy: %d", code)
		}
		for range 6 {
			try("10.9.9.9", "172.16.0.3")
		}
		if code := try("10.9.9.9", "172.16.0.4"); code != http.StatusTooManyRequests {
			t.Errorf("a stranger was believed: %d", code)
		}
	})
}
