package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// answering has a site answer what the API asks it for, as plain as can be, so that the
// laws of the pages hold for it too.
func answering(s *Site) *Site {
	answer := func(w http.ResponseWriter, v any, err error) {
		if wrong, ok := errors.AsType[*Refusal](err); ok {
			http.Error(w, wrong.Text, wrong.Code)
			return
		}
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(data)
	}
	state := func(who signin.Identity, id presence.ID) presence.State {
		for _, st := range s.desk.States() {
			if st.Person == id {
				return s.View(st, s.Access(who, id))
			}
		}
		return presence.State{}
	}
	s.Handle("GET /api/people", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var all []presence.State
		for _, p := range s.desk.People() {
			st := state(signin.From(r.Context()), p.ID)
			if s.Filter(r.URL.Query())(&p, &st) {
				all = append(all, st)
			}
		}
		answer(w, all, nil)
	}))
	s.Handle("GET /api/people/{id}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, state(signin.From(r.Context()), presence.ID(r.PathValue("id"))), nil)
	}))
	s.Handle("GET /api/people/{id}/explain", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _ := time.Parse(time.RFC3339, r.URL.Query().Get("at"))
		e, err := s.Explain(r.Context(), signin.From(r.Context()), presence.ID(r.PathValue("id")), at)
		if err == nil && r.Header.Get("Accept") == "text/plain" {
			_, _ = w.Write([]byte(e.Text(s.zone)))
			return
		}
		answer(w, e, err)
	}))
	s.Handle("GET /api/people/{id}/history", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now, since := time.Now(), time.Now().Add(-48*time.Hour)
		if text := r.URL.Query().Get("since"); text != "" {
			since, _ = time.Parse(time.RFC3339, text)
		}
		changes, err := s.History(r.Context(), signin.From(r.Context()), presence.ID(r.PathValue("id")), since, now, 1000)
		answer(w, changes, err)
	}))
	return s
}
