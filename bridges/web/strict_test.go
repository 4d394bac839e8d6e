package web

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// TestStrictHeaders looks at the headers of answers of all kinds: what they allow a page
// is what this server serves, and nothing inline, whatever the constant says.
func TestStrictHeaders(t *testing.T) {
	s := newEstate(t, office(), nil).site(admin)
	for _, c := range []struct{ method, target, host string }{
		{"GET", "/", "localhost"},
		{"GET", "/people/21042", "localhost"},
		{"GET", "/policy.yaml", "localhost"},
		{"GET", "/static/style.css", "localhost"},
		{"GET", "/healthz", "localhost"},
		{"GET", "/nowhere", "localhost"},
		{"POST", "/", "localhost"},
		{"POST", "/access/rule", "localhost"},
		{"GET", "/", "evil.example"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.target, nil)
		r.Host = c.host
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, r)
		h := rec.Header()
		got := map[string]string{}
		for directive := range strings.SplitSeq(h.Get("Content-Security-Policy"), ";") {
			name, sources, _ := strings.Cut(strings.TrimSpace(directive), " ")
			got[name] = sources
			for source := range strings.FieldsSeq(sources) {
				if source != "'self'" && source != "'none'" {
					t.Errorf("%v: %s allows %s", c, name, source)
				}
			}
		}
		for name, want := range map[string]string{"default-src": "'none'", "frame-ancestors": "'none'", "base-uri": "'none'", "form-action": "'self'"} {
			if got[name] != want {
				t.Errorf("%v: %s is %q, want %q", c, name, got[name], want)
			}
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
		} {
			if h.Get(name) != want {
				t.Errorf("%v: %s is %q, want %q", c, name, h.Get(name), want)
			}
		}
		if cache := h.Get("Cache-Control"); cache != "no-store" && (cache != "no-cache" || !strings.HasPrefix(c.target, "/static/")) {
			t.Errorf("%v: Cache-Control is %q", c, cache)
		}
	}
}

// TestNothingInline reads the pages: no script or style stands in them, nothing is
// fetched from elsewhere, and each form can be sent without script.
func TestNothingInline(t *testing.T) {
	s := newEstate(t, office(), nil).site(admin)
	for _, target := range []string{
		"/", "/?q=nobody", "/people/21042", "/me", "/sources", "/sources/aes-cm1", "/policy", "/access", "/audit", "/about", "/docs/operating", "/nowhere",
	} {
		rec := get(t, s, target, "Accept", "text/html")
		if rec.Code != http.StatusOK && rec.Code != http.StatusNotFound {
			t.Errorf("%s: %d", target, rec.Code)
		}
		page, err := html.ParseWithOptions(rec.Body, html.ParseOptionEnableScripting(false))
		if err != nil {
			t.Fatal(err)
		}
		for n := range page.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			at := map[string]string{}
			for _, a := range n.Attr {
				at[a.Key] = a.Val
				if strings.HasPrefix(a.Key, "on") || a.Key == "style" || strings.HasPrefix(strings.ToLower(strings.TrimSpace(a.Val)), "javascript:") {
					t.Errorf("%s: <%s %s=%q>", target, n.Data, a.Key, a.Val)
				}
			}
			switch n.Data {
			case "style", "iframe", "object", "embed", "base":
				t.Errorf("%s: <%s>", target, n.Data)
			case "script":
				if n.FirstChild != nil || at["src"] == "" {
					t.Errorf("%s: a script in the page", target)
				}
			case "form":
				if !sendable(n) {
					t.Errorf("%s: the form %q cannot be sent without script", target, at["action"])
				}
			}
			for _, key := range []string{"src", "action", "formaction"} {
				if u, err := url.Parse(at[key]); err != nil || u.Host != "" {
					t.Errorf("%s: <%s %s=%q>", target, n.Data, key, at[key])
				}
			}
			if u, err := url.Parse(at["href"]); n.Data == "link" && (err != nil || u.Host != "") {
				t.Errorf("%s: <link href=%q>", target, at["href"])
			}
		}
	}
}

// sendable tells whether a form has a button that sends it.
func sendable(form *html.Node) bool {
	for n := range form.Descendants() {
		kind, set := "", false
		for _, a := range n.Attr {
			if a.Key == "type" {
				kind, set = a.Val, true
			}
		}
		if n.Data == "button" && (!set || kind == "submit") || n.Data == "input" && slices.Contains([]string{"submit", "image"}, kind) {
			return true
		}
	}
	return false
}
