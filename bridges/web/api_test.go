package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestAddresses(t *testing.T) {
	w := office()
	s := newSite(w)
	for _, tt := range []struct {
		target, accept string
		code           int
		kind, want     string
	}{
		{"/healthz", "", 200, "application/json", `"status": "ok"`},
		{"/metrics", "", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", ""},
		{"/static/board.js", "", 200, "text/javascript; charset=utf-8", "EventSource"},
		{"/static/icons.svg", "", 200, "image/svg+xml", "s-busy"},
		{"/static/none.js", "", 404, "text/plain; charset=utf-8", "not found"},
		{"/static/..%2fsite.go", "", 404, "text/plain; charset=utf-8", "not found"},
		{"/static/.", "", 307, "", ""},
		{"/static/%2e", "", 404, "text/plain; charset=utf-8", "not found"},
		{"/rubbish", "", 404, "text/html; charset=utf-8", "Not found"},
	} {
		rec := get(t, s, tt.target, "Accept", tt.accept)
		if rec.Code != tt.code || !strings.Contains(rec.Body.String(), tt.want) || tt.kind != "" && rec.Header().Get("Content-Type") != tt.kind {
			t.Errorf("%s (%s): %d %s\n%.300s", tt.target, tt.accept, rec.Code, rec.Header().Get("Content-Type"), rec.Body.String())
		}
		if rec.Header().Get("X-Content-Type-Options") != "nosniff" || rec.Header().Get("Referrer-Policy") == "" {
			t.Errorf("%s lacks the headers that all have", tt.target)
		}
	}
}

func TestRequestsRefused(t *testing.T) {
	w := office()
	s := New(DefaultConfig(), w, w, Parts{Past: w}, prometheus.NewRegistry(), quiet())
	for _, host := range []string{"evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", ""} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/people", nil)
		r.Host = host
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, r)
		if rec.Code != http.StatusMisdirectedRequest || strings.Contains(rec.Body.String(), "Marta") {
			t.Errorf("host %q: code %d", host, rec.Code)
		}
	}
	for _, host := range []string{"127.0.0.1", "localhost", "localhost:1", "[::1]:8080", "[::1]", "127.9.9.9:8080"} {
		if rec := get(t, s, "/", "Host", host); rec.Code != http.StatusOK {
			t.Errorf("host %q: code %d", host, rec.Code)
		}
	}
	if got := s.Status().Problems["requests for another host"]; got != 5 {
		t.Errorf("%d requests counted, want 5", got)
	}
	proxied := DefaultConfig()
	proxied.SignIn.URL = "https://presence.example.com"
	behind := New(proxied, w, w, Parts{Past: w}, nil, quiet())
	for host, code := range map[string]int{"presence.example.com": 200, "127.0.0.1:8080": 200, "evil.example": http.StatusMisdirectedRequest} {
		if rec := get(t, behind, "/", "Host", host); rec.Code != code {
			t.Errorf("behind a proxy, host %q: code %d, want %d", host, rec.Code, code)
		}
	}
	wide := New(Config{Listen: "0.0.0.0:8080", Title: "x"}, w, w, Parts{Past: w}, nil, quiet())
	if rec := get(t, wide, "/", "Host", "presence.example.com"); rec.Code != http.StatusOK {
		t.Errorf("a site that is not on loopback refuses its name: %d", rec.Code)
	}
	for _, target := range []string{"/", "/api/people", "/events", "/healthz", "/people/21042", "/rubbish"} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader("state=busy"))
		r.Host = "localhost"
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, r)
		if rec.Code != http.StatusMethodNotAllowed || rec.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: code %d, Allow %q", target, rec.Code, rec.Header().Get("Allow"))
		}
	}
}

func TestStaticIsKept(t *testing.T) {
	s := newSite(office())
	etag := get(t, s, "/static/style.css").Header().Get("ETag")
	if rec := get(t, s, "/static/style.css", "If-None-Match", etag); rec.Code != http.StatusNotModified || rec.Body.Len() != 0 {
		t.Errorf("code %d for a file that is still right", rec.Code)
	}
}

func TestConfig(t *testing.T) {
	def := DefaultConfig()
	if ps := def.Check(); len(ps) != 0 {
		t.Errorf("the default is wrong: %v", ps)
	}
	for path, wrong := range map[string][]func(*Config){
		"listen": {
			func(c *Config) { c.Listen = "8080" },
			func(c *Config) { c.Listen = "localhost:http" },
			func(c *Config) { c.Listen = "localhost:70000" },
			func(c *Config) { c.Listen = ":8080" }, // passwords in clear
		},
		"title": {
			func(c *Config) { c.Title = "" },
			func(c *Config) { c.Title = strings.Repeat("x", 61) },
		},
		"tls.self_signed": {func(c *Config) { c.TLS.CertFile, c.TLS.KeyFile, c.TLS.SelfSigned = "c", "k", true }},
		"signin.idle":     {func(c *Config) { c.SignIn.Idle = 0 }},
		"signin.required": {func(c *Config) { c.Listen, c.SignIn.Local = ":8080", false }},
		"signin.url":      {func(c *Config) { c.TLS.SelfSigned, c.SignIn.URL = true, "http://localhost" }},
	} {
		for _, change := range wrong {
			c := DefaultConfig()
			change(&c)
			if ps := c.Check(); len(ps) != 1 || ps[0].Path != path {
				t.Errorf("%+v: %v, want one about %s", c, ps, path)
			}
		}
	}
	for origin, right := range map[string]func(*Config){
		"http://127.0.0.1:8080":        func(*Config) {},
		"https://ps.example.com:8443":  func(c *Config) { c.Listen, c.TLS.SelfSigned = ":8443", true },
		"https://10.0.0.1:8443":        func(c *Config) { c.Listen, c.TLS.SelfSigned = "10.0.0.1:8443", true },
		"https://presence.example.com": func(c *Config) { c.Listen, c.SignIn.URL = "0.0.0.0:8080", "https://presence.example.com" },
		"http://0.0.0.0:8080":          func(c *Config) { c.Listen, c.SignIn.Local, c.SignIn.Required = "0.0.0.0:8080", false, "false" },
	} {
		c := DefaultConfig()
		right(&c)
		if ps := c.Check(); len(ps) != 0 {
			t.Errorf("%s: %v", origin, ps)
		}
		if got := c.Origin("ps.example.com"); got != strings.Replace(origin, "0.0.0.0", "ps.example.com", 1) {
			t.Errorf("browsers reach it at %s, want %s", got, origin)
		}
		if c.Local() != strings.HasPrefix(origin, "http://127") {
			t.Errorf("%s: local is %v", origin, c.Local())
		}
	}
}
