package web

import (
	"embed"
	"io/fs"
	"net"
	"net/http"
	"path"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

//go:embed static
var static embed.FS

// policyCSP lets a page use what this server serves and nothing else; no inline script or style.
const policyCSP = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// routes is the table of addresses. A path that is known with another method gives 405.
func (s *Site) routes(gather prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.boardPage)
	mux.HandleFunc("GET /people/{id}", s.personPage)
	mux.HandleFunc("GET /sources", s.sourcesPage)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /static/{name}", s.asset)
	mux.HandleFunc("GET /api/people", s.apiPeople)
	mux.HandleFunc("GET /api/people/{id}", s.apiPerson)
	mux.HandleFunc("GET /api/people/{id}/explain", s.apiExplain)
	mux.HandleFunc("GET /api/people/{id}/history", s.apiHistory)
	mux.HandleFunc("GET /api/health", s.apiHealth)
	mux.HandleFunc("GET /api/", s.apiMissing)
	mux.HandleFunc("GET /healthz", s.healthz)
	if gather != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(gather, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	}
	mux.HandleFunc("GET /", s.missingPage)
	return mux
}

// guard sets what holds for every answer, and refuses requests that are not
// meant for this server: a site that is served on loopback answers to no other
// name, or any page on the web could read it through a name of its own that
// resolves to 127.0.0.1.
func (s *Site) guard(next http.Handler) http.Handler {
	local := loopback(s.cfg.Listen)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policyCSP)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if local && !loopback(r.Host) {
			s.count("requests for another host")
			http.Error(w, "This server answers as "+net.JoinHostPort("localhost", portOf(s.cfg.Listen))+
				" only. A proxy before it has to pass that on as the Host.", http.StatusMisdirectedRequest)
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
	name := path.Join("static", r.PathValue("name"))
	if info, err := fs.Stat(static, name); err != nil || info.IsDir() {
		s.missingPage(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", `"`+s.looks.version+`"`)
	http.ServeFileFS(w, r, static, name) //nolint:gosec // one of the embedded files, or nothing
}
