package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// An accountJSON is an account as the socket tells it.
type accountJSON struct {
	Account string      `json:"account"`
	Name    string      `json:"name"`
	Role    signin.Role `json:"role"`
	Person  presence.ID `json:"person,omitempty"`
	Seen    time.Time   `json:"seen,omitzero"` // the last sign-in; of an account of presenced's own it is not kept
}

// A tokenJSON is a token as the socket tells it, without its secret, which nobody has.
type tokenJSON struct {
	ID string `json:"id"`
	signin.Token
}

// An accountChange is the body of a change; what a verb does not need stays empty.
type accountChange struct {
	User     string      `json:"user,omitempty"`
	Name     string      `json:"name,omitempty"`
	Role     string      `json:"role,omitempty"`
	Person   presence.ID `json:"person,omitempty"`
	Password string      `json:"password,omitempty"`
	Token    string      `json:"token,omitempty"`
}

// accountDone says what was done.
type accountDone struct {
	Done string `json:"done"`
}

// A doorkeeper administers accounts and tokens over the control socket.
//
//	GET  /accounts
//	POST /accounts/VERB   an accountChange; add, role, person, password, remove, link
//	GET  /tokens
//	POST /tokens/revoke   an accountChange
//
// What changes something answers an accountDone once it is durable.
type doorkeeper struct {
	desk    *signin.Desk // nil: nobody signs in
	control *control
}

var errNoDoor = errors.New("web.signin offers no way to sign in; turn on local, ldap or oidc")

func (d *doorkeeper) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /accounts", d.accounts)
	mux.HandleFunc("GET /tokens", d.tokens)
	mux.HandleFunc("POST /accounts/{verb}", d.change)
	mux.HandleFunc("POST /tokens/{verb}", func(w http.ResponseWriter, r *http.Request) {
		r.SetPathValue("verb", "token "+r.PathValue("verb"))
		d.change(w, r)
	})
}

func (d *doorkeeper) accounts(w http.ResponseWriter, r *http.Request) {
	if d.desk == nil {
		d.refuse(w, r, errNoDoor)
		return
	}
	list, err := d.desk.List()
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	all := []accountJSON{}
	for _, a := range list {
		one := accountJSON{Account: a.ID(), Name: a.Name, Role: a.Role, Seen: a.Seen}
		for _, s := range a.Subjects {
			if p, ok := d.control.hub.Person(s); ok {
				one.Person = p.ID
				break
			}
		}
		all = append(all, one)
	}
	d.control.answer(w, r, http.StatusOK, all)
}

func (d *doorkeeper) tokens(w http.ResponseWriter, r *http.Request) {
	if d.desk == nil {
		d.refuse(w, r, errNoDoor)
		return
	}
	all := []tokenJSON{}
	for _, t := range d.desk.Tokens() {
		all = append(all, tokenJSON{t.ID(), t})
	}
	d.control.answer(w, r, http.StatusOK, all)
}

func (d *doorkeeper) change(w http.ResponseWriter, r *http.Request) {
	who, ok := d.control.by(w, r)
	if !ok {
		return
	}
	var body accountChange
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil || dec.More() {
		d.control.answer(w, r, http.StatusBadRequest, map[string]string{"error": `the body is not as {"user": "anna", "role": "operator"}`})
		return
	}
	if d.desk == nil {
		d.refuse(w, r, errNoDoor)
		return
	}
	done, err := d.do(r.Context(), r.PathValue("verb"), signin.By{Who: who.Who, From: who.From}, &body)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	d.control.answer(w, r, http.StatusOK, accountDone{done})
}

// do makes a change and says what was done.
func (d *doorkeeper) do(ctx context.Context, verb string, by signin.By, body *accountChange) (string, error) {
	var subjects []presence.Subject
	person := presence.Person{ID: "nobody in the directory"}
	if body.Person != "" {
		subjects = []presence.Subject{{Scheme: "id", Value: string(body.Person)}}
		var known bool
		if person, known = d.control.hub.Person(subjects[0]); !known {
			return "", fmt.Errorf("%w: nobody in the directory has the identifier %.100q", errIncomplete, body.Person)
		}
	}
	var role signin.Role
	if verb == "add" || verb == "role" {
		if err := role.UnmarshalText([]byte(body.Role)); err != nil {
			return "", fmt.Errorf("%w: %w", errIncomplete, err)
		}
	}
	switch verb {
	case "add":
		account := signin.NewAccount{User: body.User, Name: cmp.Or(body.Name, person.Name), Role: role, Password: body.Password, Subjects: subjects}
		return "account " + body.User + " added: " + role.String(), d.desk.Add(ctx, by, account)
	case "person":
		return "account " + body.User + " is " + string(person.ID) + " now", d.desk.SetSubjects(ctx, by, body.User, subjects...)
	case "role":
		return "account " + body.User + " is " + role.String() + " now", d.desk.SetRole(ctx, by, body.User, role)
	case "password":
		return "account " + body.User + " has a new password, and its sessions are over", d.desk.SetPassword(ctx, by, body.User, body.Password)
	case "remove":
		return "account " + body.User + " removed, with its sessions and tokens", d.desk.Remove(ctx, by, body.User)
	case "link":
		link, err := d.desk.FirstLink()
		return link, err
	case "token revoke":
		for _, t := range d.desk.Tokens() {
			if t.ID() == body.Token {
				return "token " + t.Name + " of " + t.Account + " revoked", d.desk.Revoke(ctx, by, t.Account, t.ID())
			}
		}
		return "", signin.ErrNoToken
	default:
		return "", errIncomplete
	}
}

func (d *doorkeeper) refuse(w http.ResponseWriter, r *http.Request, err error) {
	code := http.StatusBadRequest
	switch {
	case errors.Is(err, signin.ErrNoAccount), errors.Is(err, signin.ErrNoToken):
		code = http.StatusNotFound
	case errors.Is(err, signin.ErrUnread):
		code = http.StatusServiceUnavailable
	}
	d.control.answer(w, r, code, map[string]string{"error": err.Error()})
}
