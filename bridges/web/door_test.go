package web

import (
	"context"
	"crypto/tls"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"presenced/bridges/web/certificate"
	"presenced/bridges/web/signin"
)

// patterns gives all that stands in the code of a package as a pattern of a mux with
// that method: "POST /me/rules". A constant is followed.
func patterns(t *testing.T, dir, method string) []string {
	t.Helper()
	set, found, constants := token.NewFileSet(), []string{}, map[string]string{}
	names, err := fs.Glob(os.DirFS(dir), "*.go")
	must(t, err)
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, dir+"/"+name, nil, 0)
		must(t, err)
		files = append(files, file)
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == len(spec.Names) {
				for i, v := range spec.Values {
					if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
						constants[spec.Names[i].Name], _ = strconv.Unquote(lit.Value)
					}
				}
			}
			return true
		})
	}
	var value func(e ast.Expr) string
	value = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BasicLit:
			text, _ := strconv.Unquote(e.Value)
			return text
		case *ast.Ident:
			return constants[e.Name]
		case *ast.BinaryExpr:
			return value(e.X) + value(e.Y)
		}
		return ""
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Handle" || sel.Sel.Name == "HandleFunc") {
				if p := value(call.Args[0]); strings.HasPrefix(p, method+" ") {
					found = append(found, strings.NewReplacer("{$}", "", "{id}", "21042", "{name}", "style.css").Replace(strings.TrimPrefix(p, method+" ")))
				}
			}
			return true
		})
	}
	return found
}

// No other site can have anything done, whatever the address; nor can who did not sign
// in, and what a person may not, a person cannot.
func TestEveryChange(t *testing.T) {
	w := office()
	s := guarded(t, w, func(_ *Config, p *Parts) { newEstate(t, w, nil).adds(p) })
	root, stranger := newGuest(t, s).signs("root"), newGuest(t, s)
	posts := slices.Concat(patterns(t, ".", http.MethodPost), patterns(t, "signin", http.MethodPost))
	if len(posts) < 9 || !slices.Contains(posts, "/me/tokens/revoke") || !slices.Contains(posts, "/people/21042/presence") {
		t.Fatalf("only %q are known to change something", posts)
	}
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	before := w.told()
	for _, path := range posts {
		for _, from := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
			if res, body := root.send(http.MethodPost, path, "clear=1", append(from, form...)...); res.StatusCode != http.StatusForbidden || !strings.Contains(body, "another site") {
				t.Errorf("%s of %s: %d %s", path, from, res.StatusCode, body)
			}
		}
		if strings.HasPrefix(path, "/signin") {
			continue
		}
		if code, body := stranger.post(path, url.Values{"clear": {"1"}}); code != http.StatusUnauthorized && code != http.StatusForbidden {
			t.Errorf("a stranger at %s: %d %.200s", path, code, body)
		}
		if res, _ := root.send(http.MethodGet, path, ""); res.StatusCode == http.StatusSeeOther && !strings.HasPrefix(path, "/signin") {
			t.Errorf("GET %s does something: %s", path, res.Header.Get("Location"))
		}
		if res, _ := root.send(http.MethodPost, path, "x="+strings.Repeat("y", 2<<20), append([]string{"Sec-Fetch-Site", "same-origin"}, form...)...); res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("2 MiB to %s: %d", path, res.StatusCode)
		}
	}
	if after := w.told(); after != before {
		t.Errorf("the audit trail has more than before:\n%s", strings.TrimPrefix(after, before))
	}
}

// What each route takes: a token with that scope opens it, and no other scope does.
func TestScopesOfRoutes(t *testing.T) {
	w := office()
	s := guarded(t, w, func(c *Config, p *Parts) {
		c.SignIn.Required = "true"
		newEstate(t, w, nil).adds(p)
	})
	root := newGuest(t, s).signs("root")
	tokens := map[string]string{}
	for _, scope := range signin.Permissions() {
		_, body := root.post("/me/tokens", url.Values{"name": {scope}, "scope": {scope}, "days": {"1"}})
		_, rest, _ := strings.Cut(body, `value="pd_`)
		secret, _, _ := strings.Cut(rest, `"`)
		tokens[scope] = "pd_" + secret
	}
	open := []string{"/static/style.css", "/healthz", "/signin", "/signin/first"}
	sessions := []string{"/me/access"} // of who signs in, whatever a token may
	needs := map[string]string{
		"/": "read:states", "/people/21042": "read:states", "/events": "read:states",
		"/sources": "read:health", "/metrics": "read:health", "/me": "write:own",
		"/services": "read:health", "/services/presence/21042": "read:health", "/services/add": "admin:services", "/services/presence/21042/delete": "admin:services",
		"/sources/style.css": "read:health", "/policy": "read:health", "/policy.yaml": "read:health", "/access": "admin:access",
		"/audit": "read:audit", "/audit.csv": "read:audit", "/audit.json": "read:audit", "/about": "read:states", "/docs/style.css": "read:states",
	}
	for _, path := range slices.Concat(patterns(t, ".", http.MethodGet), patterns(t, "signin", http.MethodGet)) {
		if slices.Contains(open, path) || strings.HasPrefix(path, "/signin/oidc") {
			continue
		}
		if res, _ := newGuest(t, s).send(http.MethodGet, path, "", "Accept", "application/json"); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("a stranger at %s: %d", path, res.StatusCode)
		}
		need := needs[path]
		if need == "" && !slices.Contains(sessions, path) {
			t.Errorf("%s is in no list here: what does it take?", path)
		}
		for scope, secret := range tokens {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr().String()+path, http.NoBody)
			must(t, err)
			req.Header.Set("Authorization", "Bearer "+secret)
			res, err := root.Do(req)
			must(t, err)
			cancel() // a stream is not read to its end
			res.Body.Close()
			if allowed := res.StatusCode != http.StatusForbidden; allowed != (scope == need) {
				t.Errorf("%s with %s: %d", path, scope, res.StatusCode)
			}
		}
	}
}

// A cookie from before the sign-in is worth nothing after it.
func TestSessionFixation(t *testing.T) {
	s := guarded(t, office(), nil)
	g := newGuest(t, s)
	u, err := url.Parse(g.base)
	must(t, err)
	planted := strings.Repeat("A", 43)
	g.Jar.SetCookies(u, []*http.Cookie{{Name: "presenced", Value: planted}})
	g.signs("marta")
	for _, c := range g.Jar.Cookies(u) {
		if c.Value == planted {
			t.Errorf("the cookie %s is still what was planted", c.Name)
		}
	}
	if res, _ := newGuest(t, s).send(http.MethodGet, "/me", "", "Cookie", "presenced="+planted); res.StatusCode != http.StatusSeeOther {
		t.Errorf("the planted session opens the page: %d", res.StatusCode)
	}
}

// Nothing but what is meant is served, however the path is written.
func TestPaths(t *testing.T) {
	s := guarded(t, office(), nil)
	root := newGuest(t, s).signs("root")
	for _, path := range []string{
		"/static/..%2fsite.go", "/static/..%2f..%2f..%2f..%2fetc%2fpasswd", "/static/%2e%2e/site.go", "/static/....//site.go", "/static/", "/static/style.css%00.js",
		"/static/..%5csite.go", "/people/..%2f..%2fapi%2fhealth", "/people/%00", "/people/21042%2f..%2f21017", "/people/%0d%0aSet-Cookie:x=y", "/people/..",
	} {
		res, body := root.send(http.MethodGet, path, "")
		if res.StatusCode == http.StatusOK && strings.Contains(body, "package web") || res.StatusCode == http.StatusOK || res.StatusCode >= 500 {
			t.Errorf("%s: %d %.100s", path, res.StatusCode, body)
		}
		if res.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s sets a cookie: %q", path, res.Header.Get("Set-Cookie"))
		}
	}
	for _, next := range []string{"//evil.example", "https://evil.example/", "/\\evil.example", "/x\r\nSet-Cookie: a=b", "javascript:alert(1)"} {
		res, _ := newGuest(t, s).send(http.MethodPost, "/signin", url.Values{"user": {"root"}, "password": {secretWords}, "next": {next}}.Encode(),
			"Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
		if to := res.Header.Get("Location"); res.StatusCode != http.StatusSeeOther || to != "/" {
			t.Errorf("after %q one is sent to %q (%d)", next, to, res.StatusCode)
		}
	}
	// What is told once cannot carry a header, nor markup.
	res, body := root.send(http.MethodGet, "/", "", "Cookie", cookieTold+"=PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg0KWDogeQ")
	if strings.Contains(body, "<script>alert") || res.Header.Get("X") != "" {
		t.Error("what a cookie says becomes markup, or a header")
	}
}

// One account cannot take the streams of all.
func TestStreamsOfAnAccount(t *testing.T) {
	w := office()
	s := guarded(t, w, nil)
	ops := newGuest(t, s).signs("ops")
	var open []*client
	for range maxOwn {
		open = append(open, ops.live(s, "rows=none"))
	}
	res, _ := ops.send(http.MethodGet, "/events?rows=none", "")
	if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %d", res.StatusCode)
	}
	newGuest(t, s).signs("marta").live(s, "rows=none").want("ready")
	open[0].end()
	waitFor(t, "a place", func() bool { return s.streams.Load() <= maxOwn })
	ops.live(s, "rows=none").want("ready")
}

// The page is served over TLS with a certificate of its own, and its cookies are for
// TLS only.
func TestTLS(t *testing.T) {
	w := office()
	s := guarded(t, w, func(c *Config, p *Parts) {
		c.TLS.SelfSigned = true
		c.TLS.Names = []string{"localhost", "127.0.0.1"}
		source, err := certificate.New(c.TLS, t.TempDir(), quiet())
		must(t, err)
		p.Certificate = source
	})
	if !strings.HasPrefix(s.Status().Detail, "https://") {
		t.Errorf("status %q", s.Status().Detail)
	}
	pool := s.parts.Certificate.TLS()
	leaf, err := pool.GetCertificate(&tls.ClientHelloInfo{})
	must(t, err)
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		ServerName: "localhost", InsecureSkipVerify: true, //nolint:gosec // it is compared below
		VerifyConnection: func(c tls.ConnectionState) error {
			if !c.PeerCertificates[0].Equal(leaf.Leaf) || c.Version < tls.VersionTLS12 {
				t.Errorf("another certificate, or TLS %x", c.Version)
			}
			return c.PeerCertificates[0].VerifyHostname("localhost")
		},
	}}
	defer transport.CloseIdleConnections()
	g := newGuest(t, s)
	g.base, g.Transport = "https://"+s.Addr().String(), transport
	res, _ := g.send(http.MethodPost, "/signin", url.Values{"user": {"marta"}, "password": {secretWords}}.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
	if c := res.Cookies(); res.StatusCode != http.StatusSeeOther || res.ProtoMajor != 2 || len(c) != 1 || !c[0].Secure || !c[0].HttpOnly || !strings.HasPrefix(c[0].Name, "__Host-") {
		t.Errorf("%s by HTTP/%d: %+v", res.Status, res.ProtoMajor, c)
	}
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", s.Addr().String())
	must(t, err)
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 12)
	if _, err := conn.Read(answer); err != nil || string(answer) != "HTTP/1.0 400" {
		t.Errorf("in clear: %q %v", answer, err)
	}
}

// Load balancers learn whether it serves, and not what fails.
func TestHealthIsOpen(t *testing.T) {
	w := office()
	w.health = failing()
	s := guarded(t, w, func(c *Config, _ *Parts) { c.SignIn.Required = "true" })
	if code, body := newGuest(t, s).get("/healthz"); code != http.StatusOK || !strings.Contains(body, `"degraded"`) || strings.Contains(body, "aes-hq") {
		t.Errorf("a stranger: %d %s", code, body)
	}
	if _, body := newGuest(t, s).signs("ops").get("/healthz"); !strings.Contains(body, "aes-hq") {
		t.Errorf("an operator: %s", body)
	}
}
