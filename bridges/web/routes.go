package web

import (
	"bytes"
	"embed"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"presenced/bridges/web/signin"
)

//go:embed static
var static embed.FS

// policyCSP lets a page use what this server serves and nothing else; no inline script or style.
const policyCSP = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// routes is the table of addresses. A path that is known with another method gives
// 405. All but what stands first takes a permission.
func (s *Site) routes(gather prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /static/{name}", s.asset)
	mux.HandleFunc("GET /healthz", s.healthz)
	if s.parts.SignIn != nil {
		s.parts.SignIn.Routes(mux)
	}

	// The order is that of the navigation.
	s.boardRoutes(mux)
	s.personRoutes(mux)
	s.meRoutes(mux)
	s.servicesRoutes(mux)
	s.sourcesRoutes(mux)
	s.policyRoutes(mux)
	s.accessRoutes(mux)
	s.auditRoutes(mux)
	s.aboutRoutes(mux)

	if gather != nil {
		metrics := promhttp.HandlerFor(gather, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
		mux.Handle("GET /metrics", s.require(signin.ReadHealth, metrics.ServeHTTP))
	}
	mux.Handle("GET /", s.require(signin.ReadStates, s.missingPage))
	return mux
}

// Handle has the page answer addresses by h, which finds in the context of a request
// who asks (signin.From) and has to look what they may. It is to be called before Run.
func (s *Site) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

func (s *Site) boardRoutes(mux *http.ServeMux) {
	s.offer(place{Section: everyone, Href: "/", Icon: "people", Text: "Board", Page: "board", Needs: signin.ReadStates})
	mux.Handle("GET /{$}", s.require(signin.ReadStates, s.boardPage))
	mux.Handle("GET /events", s.require(signin.ReadStates, s.events))
}

func (s *Site) personRoutes(mux *http.ServeMux) {
	mux.Handle("GET /people/{id}", s.require(signin.ReadStates, s.personPage))
	if s.parts.Manual != nil {
		mux.Handle("POST /people/{id}/presence", s.require(signin.ReadStates, s.byHand))
	}
}

// require lets those pass to next who may do all of p; the others are told how they could.
func (s *Site) require(p signin.Permission, next http.HandlerFunc) http.Handler {
	if s.parts.SignIn != nil {
		return s.parts.SignIn.Require(p, next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !signin.From(r.Context()).May(p) {
			http.Error(w, "nobody can sign in to this page (web.signin), so nobody may do that", http.StatusForbidden)
			return
		}
		next(w, r)
	})
}

// refused answers somebody who may not, in words.
func (s *Site) refused(w http.ResponseWriter, r *http.Request, why string) {
	p := s.newPage(r, "missing", "Not for you", url.Values{"rows": {"none"}})
	p.Bad = why
	s.show(w, r, http.StatusForbidden, &p)
}

// signInPath gives the address to sign in at, and to come back from to here.
func signInPath(r *http.Request) string {
	return address("/signin", url.Values{"next": {r.URL.RequestURI()}})
}

// identify finds out who asks: signin.From gives it from then on.
func (s *Site) identify(next http.Handler) http.Handler {
	if s.parts.SignIn != nil {
		return s.parts.SignIn.Guard(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(signin.With(r.Context(), signin.Identity{Role: signin.Anyone})))
	})
}

// guard sets what holds for every answer, and refuses requests that are not
// meant for this server: a site that is served on loopback answers to no other
// name than that of its own address, or any page on the web could read it through a
// name of its own that resolves to 127.0.0.1.
func (s *Site) guard(next http.Handler) http.Handler {
	local, address := loopback(s.cfg.Listen), s.cfg.host()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policyCSP)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if local && !loopback(r.Host) && (address == "" || !strings.EqualFold(r.Host, address)) {
			s.count("requests for another host")
			http.Error(w, "This server answers as "+net.JoinHostPort("localhost", portOf(s.cfg.Listen))+
				" and as web.signin.url only. A proxy before it has to pass one of them on as the Host.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func portOf(hostport string) string {
	_, port, _ := net.SplitHostPort(hostport) //nolint:errcheck // checked by Config.Check
	return port
}

// asset serves a file of the page. Browsers keep it and ask whether it is still right.
func (s *Site) asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	file, ok := s.looks.assets[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	data, tag := file.plain, s.looks.version
	if takesGzip(r) {
		h.Set("Content-Encoding", "gzip")
		data, tag = file.gzip, tag+"-gzip"
	}
	h.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
}
