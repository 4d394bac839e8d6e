package web

import (
	"encoding/json"
	"net/http"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// healthz tells that the process serves. A part that fails does not make it
// fail: nothing is gained by restarting presenced because Exchange is down. It is
// for load balancers, which do not sign in; which parts fail is for who may know.
func (s *Site) healthz(w http.ResponseWriter, r *http.Request) {
	status, troubled := "ok", []string{}
	names := signin.From(r.Context()).May(signin.ReadHealth)
	for _, h := range s.desk.Health() {
		if h.Phase != presence.PhaseLive && h.Phase != presence.PhaseDisabled && h.Phase != presence.PhaseStandby {
			status = "degraded"
			if names {
				troubled = append(troubled, h.Name)
			}
		}
	}
	s.json(w, r, http.StatusOK, map[string]any{"status": status, "degraded": troubled})
}

// refuse answers a module of the page.
func (s *Site) refuse(w http.ResponseWriter, r *http.Request, code int, text string) {
	s.json(w, r, code, map[string]string{"error": text})
}

func (s *Site) json(w http.ResponseWriter, r *http.Request, code int, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.log.ErrorContext(r.Context(), "an answer could not be written as JSON", "path", r.URL.Path, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	s.write(w, r, data)
}

func (s *Site) write(w http.ResponseWriter, r *http.Request, data []byte) {
	if _, err := w.Write(data); err != nil { //nolint:gosec // a page by html/template, else JSON or text that no browser sniffs
		s.log.DebugContext(r.Context(), "an answer was not taken", "peer", r.RemoteAddr, "error", err)
	}
}
