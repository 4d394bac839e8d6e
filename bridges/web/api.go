package web

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// A personJSON is a person and their state, as the API gives them.
type personJSON struct {
	presence.Person

	State presence.State `json:"state"`
}

func (s *Site) apiPeople(w http.ResponseWriter, r *http.Request) {
	f := parseFilter(r.URL.Query())
	people := []personJSON{}
	for _, m := range s.members(s.viewer(r)) {
		if f.shows(&m, searchText(&m.person)) {
			people = append(people, personJSON{m.person, m.state})
		}
	}
	s.json(w, r, http.StatusOK, map[string]any{"people": people})
}

func (s *Site) apiPerson(w http.ResponseWriter, r *http.Request) {
	id := presence.ID(r.PathValue("id"))
	for _, m := range s.members(s.viewer(r)) {
		if m.person.ID == id {
			s.json(w, r, http.StatusOK, personJSON{m.person, m.state})
			return
		}
	}
	s.refuse(w, r, http.StatusNotFound, "nobody has that id")
}

// apiExplain gives an explanation, as text where that is preferred: of a past
// moment from what was known then, else from what is known now.
func (s *Site) apiExplain(w http.ResponseWriter, r *http.Request) {
	id := presence.ID(r.PathValue("id"))
	var at time.Time
	if text := r.URL.Query().Get("at"); text != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, text); err != nil {
			s.refuse(w, r, http.StatusBadRequest, "at is not a time such as 2026-03-02T10:00:00Z; a plus sign is written %2B")
			return
		}
	}
	v := s.viewer(r)
	e, ok := s.explain(v, id, at)
	if !ok {
		s.refuse(w, r, http.StatusNotFound, "nobody has that id")
		return
	}
	switch past := at.Before(time.Now()); {
	case at.IsZero():
	case !past && !tellsAhead(s.access(v, id)):
		s.refuse(w, r, http.StatusNotFound, errNotShown.Error())
		return
	case past:
		var err error
		if e, err = s.explainAt(r.Context(), v, id, at); err != nil {
			code, text := s.pastProblem(r, err)
			s.refuse(w, r, code, text)
			return
		}
	}
	w.Header().Set("Vary", "Accept")
	if wantsText(r.Header.Get("Accept")) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		s.write(w, r, []byte(e.text(s.zone)))
		return
	}
	s.json(w, r, http.StatusOK, e)
}

// wantsText tells whether plain text is named before JSON.
func wantsText(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(kind) {
		case "text/plain":
			return true
		case "application/json":
			return false
		default:
		}
	}
	return false
}

func (s *Site) apiHealth(w http.ResponseWriter, r *http.Request) {
	parts := s.desk.Health()
	if parts == nil {
		parts = []aggregator.Health{}
	}
	s.json(w, r, http.StatusOK, map[string]any{"parts": parts})
}

func (s *Site) apiMissing(w http.ResponseWriter, r *http.Request) {
	s.refuse(w, r, http.StatusNotFound, "there is no such address")
}

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

func (s *Site) refuse(w http.ResponseWriter, r *http.Request, code int, text string) {
	s.json(w, r, code, map[string]string{"error": text})
}

func (s *Site) json(w http.ResponseWriter, r *http.Request, code int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		s.log.ErrorContext(r.Context(), "an answer could not be written as JSON", "path", r.URL.Path, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	s.write(w, r, b.Bytes())
}

func (s *Site) write(w http.ResponseWriter, r *http.Request, data []byte) {
	if _, err := w.Write(data); err != nil { //nolint:gosec // a page by html/template, else JSON or text that no browser sniffs
		s.log.DebugContext(r.Context(), "an answer was not taken", "peer", r.RemoteAddr, "error", err)
	}
}
