package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// Accounts is who may sign in: a signin.Desk.
type Accounts interface {
	List() ([]signin.Account, error)
	Add(ctx context.Context, by signin.By, n signin.NewAccount) error
	SetPassword(ctx context.Context, by signin.By, user, password string) error
	SetRole(ctx context.Context, by signin.By, user string, role signin.Role) error
	SetSubjects(ctx context.Context, by signin.By, user string, subjects ...presence.Subject) error
	Remove(ctx context.Context, by signin.By, user string) error
	FirstLink() (string, error)

	Tokens() []signin.Token
	Revoke(ctx context.Context, by signin.By, account, id string) error
}

// An Account is who may sign in, or did.
type Account struct {
	ID     string      `json:"account" doc:"Such as local:anna or ldap:anna."`
	Name   string      `json:"name"`
	Role   signin.Role `json:"role"`
	Person presence.ID `json:"person,omitempty" doc:"Who that is in the directory."`
	Seen   time.Time   `json:"seen,omitzero" doc:"The last sign-in; of an account of presenced's own it is not kept."`
}

// A Token is an API token, without its secret, which nobody has but its owner.
type Token struct {
	ID string `json:"id"`
	signin.Token
}

// AccountDone says what was done.
type AccountDone struct {
	Done string `json:"done"`
	Link string `json:"link,omitempty" doc:"The address with which its bearer makes the first administrator."`
}

// OneAccount is the input of operations about an account with a password.
type OneAccount struct {
	User string `path:"user" maxLength:"200" doc:"The name to sign in with."`
}

type accountAnswer struct{ Body AccountDone }

func (a *API) accounts() {
	needs, tags := need{signin.AdminAccounts}, []string{"accounts"}
	errs := []int{http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable}
	op := func(id, method, path, summary string, errs []int) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Tags: tags, Summary: summary, Errors: errs, DefaultStatus: http.StatusOK}
	}
	done := func(ctx context.Context, err error, format string, args ...any) (*accountAnswer, error) {
		if err != nil {
			return nil, a.account(ctx, err)
		}
		return &accountAnswer{AccountDone{Done: fmt.Sprintf(format, args...)}}, nil
	}
	type listAnswer struct{ Body []Account }
	add(a, needs, op("list-accounts", http.MethodGet, "/api/accounts", "Who may sign in", errs[2:]), func(ctx context.Context, _ *struct{}) (*listAnswer, error) {
		all, err := a.Accounts.List()
		if err != nil {
			return nil, a.account(ctx, err)
		}
		out := listAnswer{[]Account{}}
		for i := range all {
			one := Account{ID: all[i].ID(), Name: all[i].Name, Role: all[i].Role, Seen: all[i].Seen}
			for _, s := range all[i].Subjects {
				if p, ok := a.People.Person(s); ok {
					one.Person = p.ID
					break
				}
			}
			out.Body = append(out.Body, one)
		}
		return &out, nil
	})
	type addAccount struct {
		User     string      `json:"user" minLength:"1" maxLength:"200" doc:"The name to sign in with."`
		Name     string      `json:"name,omitempty" maxLength:"200" doc:"The name to show; absent: the one to sign in with."`
		Role     signin.Role `json:"role"`
		Person   string      `json:"person,omitempty" maxLength:"512" doc:"Identifier of the person that it is; absent: nobody in the directory."`
		Password string      `json:"password" maxLength:"1000"`
	}
	add(a, needs, op("add-account", http.MethodPost, "/api/accounts", "Make an account with a password", bodyErrors(errs...)), func(ctx context.Context, in *struct{ Body addAccount }) (*accountAnswer, error) {
		b := &in.Body
		p, subjects, err := a.subjects(b.Person)
		if err != nil {
			return nil, err
		}
		n := signin.NewAccount{User: b.User, Name: cmp.Or(b.Name, p.Name), Role: b.Role, Password: b.Password, Subjects: subjects}
		return done(ctx, a.Accounts.Add(ctx, signin.By(actor(ctx)), n), "account %s added: %s", b.User, b.Role)
	})
	type setRole struct {
		Role signin.Role `json:"role"`
	}
	add(a, needs, op("set-role", http.MethodPut, "/api/accounts/{user}/role", "Give an account another role, at once", bodyErrors(errs...)), func(ctx context.Context, in *struct {
		OneAccount

		Body setRole
	},
	) (*accountAnswer, error) {
		return done(ctx, a.Accounts.SetRole(ctx, signin.By(actor(ctx)), in.User, in.Body.Role), "account %s is %s now", in.User, in.Body.Role)
	})
	type setPerson struct {
		Person string `json:"person" maxLength:"512" doc:"Identifier of the person; empty: nobody in the directory."`
	}
	add(a, needs, op("set-person", http.MethodPut, "/api/accounts/{user}/person", "Say who of the directory an account is, at once", bodyErrors(errs...)), func(ctx context.Context, in *struct {
		OneAccount

		Body setPerson
	},
	) (*accountAnswer, error) {
		p, subjects, err := a.subjects(in.Body.Person)
		if err != nil {
			return nil, err
		}
		return done(ctx, a.Accounts.SetSubjects(ctx, signin.By(actor(ctx)), in.User, subjects...), "account %s is %s now", in.User, cmp.Or(p.ID, "nobody in the directory"))
	})
	type setPassword struct {
		Password string `json:"password" maxLength:"1000"`
	}
	add(a, needs, op("set-password", http.MethodPut, "/api/accounts/{user}/password", "Give an account a new password; its sessions end", bodyErrors(errs...)), func(ctx context.Context, in *struct {
		OneAccount

		Body setPassword
	},
	) (*accountAnswer, error) {
		return done(ctx, a.Accounts.SetPassword(ctx, signin.By(actor(ctx)), in.User, in.Body.Password), "account %s has a new password, and its sessions are over", in.User)
	})
	add(a, needs, op("remove-account", http.MethodDelete, "/api/accounts/{user}", "Remove an account, with its sessions and tokens", errs), func(ctx context.Context, in *OneAccount) (*accountAnswer, error) {
		return done(ctx, a.Accounts.Remove(ctx, signin.By(actor(ctx)), in.User), "account %s removed, with its sessions and tokens", in.User)
	})
	add(a, needs, op("first-link", http.MethodPost, "/api/accounts/first-link", "A link with which its bearer makes the first administrator, while there is none", errs), func(ctx context.Context, _ *struct{}) (*accountAnswer, error) {
		link, err := a.Accounts.FirstLink()
		if err != nil {
			return nil, a.account(ctx, err)
		}
		return &accountAnswer{AccountDone{Done: "the link before is void", Link: link}}, nil
	})
	type tokensAnswer struct{ Body []Token }
	add(a, needs, op("list-tokens", http.MethodGet, "/api/tokens", "The API tokens of all accounts", nil), func(context.Context, *struct{}) (*tokensAnswer, error) {
		out := tokensAnswer{[]Token{}}
		for _, t := range a.Accounts.Tokens() {
			out.Body = append(out.Body, Token{t.ID(), t})
		}
		return &out, nil
	})
	add(a, needs, op("revoke-token", http.MethodDelete, "/api/tokens/{token}", "End an API token at once", errs), func(ctx context.Context, in *struct {
		Token string `path:"token" maxLength:"100" doc:"Its id."`
	},
	) (*accountAnswer, error) {
		for _, t := range a.Accounts.Tokens() {
			if t.ID() == in.Token {
				return done(ctx, a.Accounts.Revoke(ctx, signin.By(actor(ctx)), t.Account, t.ID()), "token %s of %s revoked", t.Name, t.Account)
			}
		}
		return nil, a.account(ctx, signin.ErrNoToken)
	})
}

// subjects gives a person, and what their account has of them; empty: nobody.
func (a *API) subjects(person string) (presence.Person, []presence.Subject, error) {
	if person == "" {
		return presence.Person{}, nil, nil
	}
	p, ok := a.known(person)
	if !ok {
		return p, nil, unfit("body.person", fmt.Sprintf("nobody in the directory has the identifier %.100q", person))
	}
	return p, []presence.Subject{{Scheme: "id", Value: person}}, nil
}

// account makes a problem of an error about accounts.
func (a *API) account(ctx context.Context, err error) error {
	var code int
	var unfit signin.Unfit
	switch {
	case errors.As(err, &unfit):
		code = http.StatusUnprocessableEntity
	case errors.Is(err, signin.ErrNoAccount), errors.Is(err, signin.ErrNoToken):
		code = http.StatusNotFound
	case errors.Is(err, signin.ErrAccount), errors.Is(err, signin.ErrLast), errors.Is(err, signin.ErrAdministrator), errors.Is(err, signin.ErrNoLocal):
		code = http.StatusConflict
	default: // the store, or the trail
		return a.refuse(ctx, err)
	}
	return huma.NewError(code, err.Error())
}
