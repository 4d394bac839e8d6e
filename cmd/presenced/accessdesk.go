package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"presenced/aggregator/access"
	"presenced/aggregator/presence"
)

// An accessDesk administers the access rules over the control socket.
//
//	GET  /access?of=P            what was set, of everybody and of each person, or of one
//	GET  /access/watchers?of=P   who watches
//	GET  /access/pending?of=P    who waits to be let in, by anybody or by one person
//	GET  /access/test?of=P&watcher=W
//	POST /access/VERB            an accessJSON; set, clear, allow, deny, revoke, privacy, opt-in, opt-out, forget
//
// What changes something answers an accessDone once it is durable.
type accessDesk struct {
	gate    *access.Gate
	optIn   bool // access.opt_in
	control *control
}

// accessJSON is the body of a change; what a verb does not need stays empty.
type accessJSON struct {
	Of       presence.ID               `json:"of,omitempty"` // empty: everybody
	For      *access.Audience          `json:"for,omitempty"`
	Watcher  string                    `json:"watcher,omitempty"`
	Level    *presence.Level           `json:"level,omitempty"`
	Urgent   bool                      `json:"urgent,omitempty"`
	Calendar *presence.CalendarPrivacy `json:"calendar,omitempty"`
}

// accessDone says what was done, and what comes of it.
type accessDone struct {
	Done string              `json:"done"`
	Sees *access.Explanation `json:"sees,omitempty"` // what the watcher that it is about sees now
	Note string              `json:"note,omitempty"`
}

var errIncomplete = errors.New("the body lacks what this needs")

func (d *accessDesk) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /access", d.settings)
	mux.HandleFunc("GET /access/watchers", func(w http.ResponseWriter, r *http.Request) {
		if of, ok := d.person(w, r); ok {
			d.control.answer(w, r, http.StatusOK, d.gate.Watchers(of))
		}
	})
	mux.HandleFunc("GET /access/pending", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("of") == "" {
			d.control.answer(w, r, http.StatusOK, d.gate.Pending(""))
		} else if of, ok := d.person(w, r); ok {
			d.control.answer(w, r, http.StatusOK, d.gate.Pending(of))
		}
	})
	mux.HandleFunc("GET /access/test", func(w http.ResponseWriter, r *http.Request) {
		watcher, err := access.ParseWatcher(r.URL.Query().Get("watcher"))
		if err != nil {
			d.refuse(w, r, err)
		} else if of, ok := d.person(w, r); ok {
			d.control.answer(w, r, http.StatusOK, d.gate.Explain(watcher, of))
		}
	})
	mux.HandleFunc("POST /access/{verb}", d.change)
}

// person reads whom a question is about.
func (d *accessDesk) person(w http.ResponseWriter, r *http.Request) (presence.ID, bool) {
	of := presence.ID(r.URL.Query().Get("of"))
	if _, known := d.control.hub.State(of); !known {
		d.refuse(w, r, fmt.Errorf("%w: %.100q", access.ErrNobody, of))
		return "", false
	}
	return of, true
}

func (d *accessDesk) settings(w http.ResponseWriter, r *http.Request) {
	all, err := d.gate.Settings()
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	if of := r.URL.Query().Get("of"); of != "" { // who left the directory has rules, too
		one := []access.Setting{}
		for _, s := range all {
			if string(s.Of) == of {
				one = append(one, s)
			}
		}
		all = one
	}
	d.control.answer(w, r, http.StatusOK, all)
}

func (d *accessDesk) change(w http.ResponseWriter, r *http.Request) {
	by, ok := d.control.by(w, r)
	if !ok {
		return
	}
	var body accessJSON
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil || dec.More() {
		d.control.answer(w, r, http.StatusBadRequest, map[string]string{
			"error": fmt.Sprintf(`the body is not as {"of": "ann", "for": {"kind": "group", "name": "sales"}, "level": "status"}: %v`, err),
		})
		return
	}
	watcher, err := body.subject()
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	ctx, verb := r.Context(), r.PathValue("verb")
	done := accessDone{Done: "access " + verb}
	switch {
	case verb == "set" && body.For != nil && body.Level != nil:
		err = d.gate.Set(ctx, by, access.Rule{Of: body.Of, For: *body.For, Level: *body.Level, Urgent: body.Urgent})
	case verb == "clear" && body.For != nil:
		err = d.gate.Clear(ctx, by, body.Of, *body.For)
	case verb == "allow" && body.Watcher != "" && body.Level != nil:
		err = d.gate.Allow(ctx, by, body.Of, watcher, *body.Level)
	case verb == "deny" && body.Watcher != "":
		err = d.gate.Deny(ctx, by, body.Of, watcher)
	case verb == "revoke" && body.Watcher != "":
		err = d.gate.Revoke(ctx, by, body.Of, watcher)
	case verb == "privacy" && body.Calendar != nil:
		err = d.gate.SetCalendar(ctx, by, body.Of, *body.Calendar)
	case verb == "opt-in" || verb == "opt-out":
		if err = d.gate.OptIn(ctx, by, body.Of, verb == "opt-in"); !d.optIn {
			done.Note = "access.opt_in is not set in the configuration, so that this is kept and has no effect"
		}
	case verb == "forget":
		err = d.gate.Forget(ctx, by, body.Of)
	default:
		err = errIncomplete
	}
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	if body.Of != "" && watcher.Value != "" {
		e := d.gate.Explain(watcher, body.Of)
		done.Sees = &e
	}
	d.control.answer(w, r, http.StatusOK, done)
}

// subject gives the one watcher that a change is about, if it is about one.
func (b *accessJSON) subject() (presence.Subject, error) {
	text := b.Watcher
	if b.For != nil && b.For.Kind == access.ForWatcher {
		text = b.For.Name
	}
	if text == "" {
		return presence.Subject{}, nil
	}
	return access.ParseWatcher(text)
}

func (d *accessDesk) refuse(w http.ResponseWriter, r *http.Request, err error) {
	code := http.StatusServiceUnavailable // the store, or the trail
	switch {
	case errors.Is(err, access.ErrNobody):
		code = http.StatusNotFound
	case errors.Is(err, access.ErrUnfit), errors.Is(err, errIncomplete):
		code = http.StatusBadRequest
	default:
		d.control.log.WarnContext(r.Context(), "a request about the access rules was refused", "error", err)
	}
	d.control.answer(w, r, code, map[string]string{"error": err.Error()})
}
