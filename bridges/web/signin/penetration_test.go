package signin_test

import (
	"encoding/base32"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"presenced/bridges/web/signin"
)

// Another site can make a browser send its cookies, but not have anything done.
func TestCrossSiteRequests(t *testing.T) {
	w := newWorld(t, settings())
	b := w.browse()
	b.signIn("ada")
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "", "Origin", "https://evil.example"},
		{"Sec-Fetch-Site", "", "Origin", "null"},
	} {
		for _, path := range []string{"/services", "/me/tokens", "/signout", "/signin", "/signin/first"} {
			if a := b.post(path, url.Values{"name": {"x"}, "scope": {"read:states"}, "days": {"30"}}, header...); a.StatusCode != http.StatusForbidden || a.Header.Get("Set-Cookie") != "" {
				t.Errorf("%v at %s: %s", header, path, a.Status)
			}
		}
	}
	if a := b.get("/signout"); a.StatusCode == http.StatusSeeOther && a.Header.Get("Location") == "/signin" || b.get("/").StatusCode != 200 {
		t.Errorf("an image of another site signs out: %s", a.Status)
	}
	if a := b.post("/services", nil, "Sec-Fetch-Site", "", "Origin", origin); a.StatusCode != 200 {
		t.Errorf("the page itself, behind a proxy that changes the Host: %s", a.Status)
	}
}

// The identifier of a session is never one that was there before the sign-in, and the
// one before is over.
func TestFixation(t *testing.T) {
	w := newWorld(t, settings())
	b := w.browse()
	u, _ := url.Parse(b.base)
	planted := strings.Repeat("A", 43)
	b.Jar.SetCookies(u, []*http.Cookie{{Name: "presenced", Value: planted, Path: "/"}})
	first := b.signIn("anna")
	if first == planted || len(first) != 43 {
		t.Fatalf("the session is %q", first)
	}
	second := b.signIn("ada")
	if second == first {
		t.Error("another account has the same session")
	}
	site := w.site()
	for id, want := range map[string]int{planted: 303, first: 303, second: 200} {
		if code := serve(w, site, http.MethodGet, "/", "10.0.0.1", id, nil).Code; code != want {
			t.Errorf("%s: %d", id, code)
		}
	}
	// A cookie of the same name that somebody put beside it: neither counts.
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, origin+"/", nil)
	r.Header.Set("Cookie", "presenced="+second+"; presenced="+first)
	rec := httptest.NewRecorder()
	if site.ServeHTTP(rec, r); rec.Code == 200 {
		t.Error("one of two cookies was chosen")
	}
}

func TestCookie(t *testing.T) {
	for _, secure := range []bool{false, true} {
		cfg, name := settings(), "presenced"
		if secure {
			cfg.URL, name = "https://presence.test", "__Host-presenced"
		}
		w := newWorld(t, cfg)
		rec := serve(w, w.site(), http.MethodPost, "/signin", "10.0.0.1", "", url.Values{"user": {"anna"}, "password": {password}})
		got := rec.Result().Cookies()
		if len(got) != 1 {
			t.Fatal(got)
		}
		c := got[0]
		if c.Name != name || c.Secure != secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
			t.Errorf("%s", c)
		}
	}
	cfg := settings()
	if _, err := signin.New(cfg, signin.Deps{Origin: "http://presence.example.com:8080"}); err == nil || !strings.Contains(err.Error(), "in clear") {
		t.Errorf("passwords in clear over the network: %v", err)
	}
}

// A token may what its scopes and its owner both may, until it ends, in the header only.
func TestTokenScopes(t *testing.T) {
	w := newWorld(t, settings())
	b := w.browse()
	b.signIn("ada")
	token := b.token("read:states", "read:audit")
	bearer := []string{"Authorization", "Bearer " + token, "Accept", "application/json"}
	api := w.browse()
	for path, want := range map[string]int{"/": 200, "/audit": 200, "/own": 403, "/presence": 403, "/services": 403, "/me/access": 403} {
		if a := api.get(path, bearer...); a.StatusCode != want {
			t.Errorf("%s: %s", path, a.Status)
		}
	}
	for _, path := range []string{"/me/tokens", "/me/tokens/revoke", "/me/sessions/end", "/signout"} {
		if a := api.post(path, url.Values{"name": {"more"}, "scope": {"admin:accounts"}, "days": {"30"}, "id": {"all"}}, bearer...); a.StatusCode != 403 {
			t.Errorf("a token changes what a session may: %s %s", path, a.Status)
		}
	}
	// A program sends no Origin, and another site cannot know the token.
	if a := api.do(http.MethodPost, "/audit", nil, append(bearer, "Sec-Fetch-Site", "cross-site")...); a.StatusCode != 200 {
		t.Errorf("a token across sites: %s", a.Status)
	}
	for _, path := range []string{"/audit?access_token=", "/audit?token=", "/audit?authorization=Bearer%20"} {
		if a := api.get(path + token); a.StatusCode == 200 {
			t.Errorf("a token in the address: %s", path)
		}
	}
	if a := api.post("/audit", url.Values{"access_token": {token}}); a.StatusCode == 200 {
		t.Error("a token in the body")
	}
	for _, header := range []string{"Bearer", "Bearer ", "Bearer " + token + "a", "Bearer " + strings.ToUpper(token), "Bearer pd_" + strings.Repeat("a", 52), "Bearer " + token + ", Bearer " + token, "Bearer " + strings.Repeat("x", 4000)} {
		// The browser of ada, whose session could do it: a token that is wrong is not made up for by it.
		if a := b.get("/audit", "Authorization", header); a.StatusCode != 401 || !strings.Contains(a.Header.Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("%.60q: %s", header, a.Status)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, origin+"/audit", nil)
	r.Header["Authorization"] = []string{"Bearer " + token, "Bearer " + token}
	rec := httptest.NewRecorder()
	if w.site().ServeHTTP(rec, r); rec.Code != http.StatusUnauthorized {
		t.Errorf("one of two tokens was chosen: %d", rec.Code)
	}
	for _, days := range []string{"0", "-1", "367", "150000", "213504", "999999999", "x", ""} {
		if a := b.post("/me/tokens", url.Values{"name": {"x"}, "scope": {"read:states"}, "days": {days}}); a.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("a token for %q days: %s", days, a.Status)
		}
	}
	if n := w.told("token made"); n != 1 {
		t.Errorf("the audit trail has %d lines about one token", n)
	}
	for _, header := range []string{"Basic " + token, token} {
		if a := api.get("/audit", "Authorization", header); a.StatusCode == 200 {
			t.Errorf("%q is taken for a token", header)
		}
		if a := b.get("/audit", "Authorization", header); a.StatusCode != 200 {
			t.Errorf("%q, which a proxy asked for, ends the session: %s", header, a.Status)
		}
		if a := b.post("/services", nil, "Authorization", header, "Sec-Fetch-Site", "cross-site"); a.StatusCode != 403 {
			t.Errorf("%q lets another site in: %s", header, a.Status)
		}
	}
	b.signIn("otto")
	for _, bad := range []url.Values{
		{"name": {"x"}, "scope": {"admin:services"}, "days": {"30"}},
		{"name": {"x"}, "scope": {"read:states", "admin:services"}, "days": {"30"}},
		{"name": {"x"}, "scope": {"everything"}, "days": {"30"}},
		{"name": {"x"}, "days": {"30"}},
		{"name": {"\n"}, "scope": {"read:states"}, "days": {"30"}},
		{"name": {"x"}, "scope": {"read:states"}, "days": {"0"}},
		{"name": {"x"}, "scope": {"read:states"}, "days": {"99999999999"}},
	} {
		if a := b.post("/me/tokens", bad); a.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%v: %s", bad, a.Status)
		}
	}
	for range 20 {
		b.token("read:states")
	}
	if a := b.post("/me/tokens", url.Values{"name": {"x"}, "scope": {"read:states"}, "days": {"30"}}); a.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("the 21st token: %s", a.Status)
	}
}

func TestTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settings())
		defer w.stop()
		site := w.site()
		time.Sleep(10 * time.Second) // so that nothing is tidied up in the moment it ends
		id := serve(w, site, http.MethodPost, "/signin", "10.0.0.1", "", url.Values{"user": {"ada"}, "password": {password}}).Result().Cookies()[0].Value
		page := serve(w, site, http.MethodPost, "/me/tokens", "10.0.0.1", id, url.Values{"name": {"x"}, "scope": {"read:audit"}, "days": {"30"}}).Body.String()
		token := tokenField.FindStringSubmatch(page)[1]
		use := func() int {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, origin+"/audit", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			rec := httptest.NewRecorder()
			site.ServeHTTP(rec, r)
			return rec.Code
		}
		time.Sleep(30*24*time.Hour - time.Minute)
		if code := use(); code != 200 {
			t.Errorf("on its last day: %d", code)
		}
		time.Sleep(30 * time.Second)
		if !strings.Contains(w.tokens.all(), `"used"`) {
			t.Errorf("not kept that it was used: %s", w.tokens.all())
		}
		time.Sleep(31 * time.Second)
		if code := use(); code != 401 {
			t.Errorf("after its last day: %d", code)
		}
		time.Sleep(time.Minute)
		if w.tokens.all() != "" {
			t.Errorf("the store keeps what is over: %s", w.tokens.all())
		}
	})
}

func TestOversizedBodies(t *testing.T) {
	w := newWorld(t, settings())
	b := w.browse()
	big := url.Values{"user": {"anna"}, "password": {strings.Repeat("x", 20_000)}}
	if a := b.post("/signin", big); a.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a form of 20 KB: %s", a.Status)
	}
	big.Set("password", strings.Repeat("x", 2<<20))
	if a := b.post("/services", big); a.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of 2 MiB: %s", a.Status)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, origin+"/signin", strings.NewReader("user=anna&password="+strings.Repeat("x", 2<<20)))
	r.ContentLength = -1 // chunked
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	if w.site().ServeHTTP(rec, r); rec.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("without a length: %d", rec.Code)
	}
	r = httptest.NewRequestWithContext(t.Context(), http.MethodPost, origin+"/", strings.NewReader(strings.Repeat("x", 2<<20)))
	r.ContentLength = -1
	w.desk.Guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil || len(body) != 1<<20 {
			t.Errorf("a handler of the page was given %d bytes, %v", len(body), err)
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
}

// nexts are addresses to go to after a sign-in that are not of this site.
var nexts = []string{
	"https://evil.example/", "//evil.example/", `/\evil.example`, `\\evil.example`, "/\t/evil.example", "\t//evil.example", "/\r\nSet-Cookie: presenced=x",
	"/x\nLocation: https://evil.example", "javascript:alert(1)", "evil.example", "", "/%zz", "/..//evil.example\\", "///evil.example", "/%5c/evil.example",
	"/signin?next=/signin", "/signin/oidc", "/signout", "/" + strings.Repeat("x", 2000), "/\u202eevil", "http:/evil.example", "?x", "@evil.example", `/x?\evil.example`, "/%2f/evil.example",
}

func TestOpenRedirect(t *testing.T) {
	w := newWorld(t, settings())
	b := w.browse()
	for _, next := range nexts {
		a := b.post("/signin", url.Values{"user": {"anna"}, "password": {password}, "next": {next}})
		if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/" || len(a.Header.Values("Set-Cookie")) != 1 {
			t.Errorf("%q: %s to %q", next, a.Status, a.Header.Get("Location"))
		}
		if a := b.get("/signin?next=" + url.QueryEscape(next)); a.Header.Get("Location") != "/" { // is signed in
			t.Errorf("%q: %s to %q", next, a.Status, a.Header.Get("Location"))
		}
	}
	for _, next := range []string{"/", "/people/7?at=2026-11-20T10:00:00Z", "/me/access", "/x?next=//evil.example"} {
		if a := b.post("/signin", url.Values{"user": {"anna"}, "password": {password}, "next": {next}}); a.Header.Get("Location") != next {
			t.Errorf("%q: %s to %q", next, a.Status, a.Header.Get("Location"))
		}
	}
}

// Whatever SafeNext gives, a browser resolves it to this very site.
func FuzzNext(f *testing.F) {
	for _, next := range append(nexts, "/people/7?at=now#x") {
		f.Add(next)
	}
	base, _ := url.Parse("https://presence.test/signin")
	f.Fuzz(func(t *testing.T, next string) {
		got := signin.SafeNext(next)
		// As the URL standard has it: blanks around are dropped, tabs and line ends
		// anywhere, and a backslash is a slash.
		seen := strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(strings.TrimFunc(got, func(r rune) bool { return r <= ' ' }))
		to, err := base.Parse(seen)
		if err != nil || to.Host != base.Host || to.Scheme != base.Scheme || to.User != nil || seen != got || strings.HasPrefix(seen, "//") {
			t.Errorf("%q: %q leads to %v, %v", next, got, to, err)
		}
		if again := signin.SafeNext(got); again != got {
			t.Errorf("%q, then %q", got, again)
		}
	})
}

// Any cookie and any header is nobody, and harms nothing.
func FuzzCredentials(f *testing.F) {
	f.Add("presenced="+strings.Repeat("A", 43), "")
	f.Add("presenced=x; presenced=y; presenced-flow=e30.AAAA", "Bearer pd_"+strings.ToLower(base32.StdEncoding.EncodeToString(make([]byte, 30))))
	f.Add("\x00=\"", "Bearer")
	desk, err := signin.New(settings(), signin.Deps{Origin: origin, Loopback: true})
	if err != nil {
		f.Fatal(err)
	}
	site := desk.Guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if signin.From(r.Context()) != (signin.Identity{}) {
			panic("somebody")
		}
	}))
	f.Fuzz(func(_ *testing.T, cookie, authorization string) {
		r := httptest.NewRequest(http.MethodGet, origin+"/", nil)
		r.Header["Cookie"] = []string{cookie}
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		site.ServeHTTP(httptest.NewRecorder(), r)
	})
}
