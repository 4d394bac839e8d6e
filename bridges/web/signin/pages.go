package signin

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed templates
var templates embed.FS

// The addresses that Routes answers.
const (
	pathSignIn   = "/signin"
	pathFirst    = "/signin/first"
	pathOIDC     = "/signin/oidc"
	pathCallback = "/signin/oidc/callback"
	pathOut      = "/signout"
	pathMine     = "/me/access"
	pathSessions = "/me/sessions/end"
	pathTokens   = "/me/tokens" //nolint:gosec // an address
	pathRevoke   = "/me/tokens/revoke"
)

const maxForm = 16 << 10 // bytes

// Routes adds the forms to a mux that is behind Guard. All of them work without
// script. Static files are those of the page: /static/style.css, /static/icons.svg.
func (d *Desk) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+pathSignIn, d.signInPage)
	mux.HandleFunc("POST "+pathSignIn, d.form(d.signIn))
	mux.HandleFunc("GET "+pathFirst, d.firstPage)
	mux.HandleFunc("POST "+pathFirst, d.form(d.makeFirst))
	mux.HandleFunc("POST "+pathOut, d.own(d.signOut))
	mux.HandleFunc("GET "+pathMine, d.own(d.minePage))
	mux.HandleFunc("POST "+pathSessions, d.own(d.form(d.endSession)))
	mux.HandleFunc("POST "+pathTokens, d.own(d.form(d.addToken)))
	mux.HandleFunc("POST "+pathRevoke, d.own(d.form(d.revokeToken)))
	if d.oidc != nil {
		mux.HandleFunc("GET "+pathOIDC, d.toProvider)
		mux.HandleFunc("GET "+pathCallback, d.fromProvider)
	}
}

// newLooks parses the templates; a mistake in one is a mistake in the program, and panics.
func newLooks() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{"when": func(t time.Time) string { return t.Local().Format("2 Jan 2006 15:04") }}).ParseFS(templates, "templates/*.html"))
}

// A door is what the pages of this package show.
type door struct {
	Title, Site string
	Bad         string // what went wrong
	Text        string
	Next, User  string
	Passwords   bool   // there are accounts with a password
	Provider    string // what the button of OIDC says; empty: there is none
	Token       string // of the first link, or a new API token
	Account     Identity
	Mine        mine
	Back        string // where Mine stands
}

func (d *Desk) show(w http.ResponseWriter, r *http.Request, code int, name string, data door) {
	data.Site, data.Back = d.deps.Title, d.deps.Mine
	var b bytes.Buffer
	if err := d.looks.ExecuteTemplate(&b, name, data); err != nil {
		d.deps.Log.ErrorContext(r.Context(), "a page could not be written", "page", name, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // the browser has gone
}

// form reads the form of a request, which is small, before next.
func (d *Desk) form(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			code := http.StatusBadRequest
			if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
				code = http.StatusRequestEntityTooLarge
			}
			d.show(w, r, code, "refused", door{Title: "That was no form", Text: "The form could not be read, or has more than 16 KiB. Nothing was done."})
			return
		}
		next(w, r)
	}
}

// own lets those pass to next who signed in with a session: a token makes no tokens.
func (d *Desk) own(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch who := From(r.Context()); {
		case who.Token != "":
			fail(w, http.StatusForbidden, "sessions and tokens are changed by who signs in, not with an API token")
		case who.Account == "":
			d.Require(0, next).ServeHTTP(w, r)
		default:
			next(w, r)
		}
	}
}

// safeNext gives where to go after a sign-in: a path of this site, and whatever else
// is asked for becomes the start.
func safeNext(next string) string {
	if len(next) > 1024 || !strings.HasPrefix(next, "/") {
		return "/"
	}
	for _, b := range []byte(next) { // browsers read \ as /, and leave out tabs and line ends
		if b <= ' ' || b == '\\' || b >= 0x7f {
			return "/"
		}
	}
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || strings.HasPrefix(u.Path, "//") || strings.ContainsRune(u.Path, '\\') ||
		u.Path == pathSignIn || strings.HasPrefix(u.Path, pathSignIn+"/") || u.Path == pathOut {
		return "/"
	}
	return next
}

func (d *Desk) signInDoor(next string) door {
	p := door{Title: "Sign in", Next: safeNext(next), Passwords: d.cfg.Local || d.ldap != nil}
	if d.oidc != nil {
		p.Provider = d.oidc.Label
	}
	return p
}

func (d *Desk) signInPage(w http.ResponseWriter, r *http.Request) {
	next := r.URL.Query().Get("next")
	if From(r.Context()).Account != "" {
		http.Redirect(w, r, safeNext(next), http.StatusSeeOther) //nolint:gosec // a path of this site
		return
	}
	d.show(w, r, http.StatusOK, "signin", d.signInDoor(next))
}

func (d *Desk) signIn(w http.ResponseWriter, r *http.Request) {
	next := r.PostForm.Get("next")
	a, err := d.attempt(r.Context(), r.PostForm.Get("user"), r.PostForm.Get("password"), d.source(r))
	if err == nil {
		d.begin(w, r, a, next)
		return
	}
	p := d.signInDoor(next)
	p.User = shown(r.PostForm.Get("user"), "")
	code := http.StatusForbidden
	var tooMany *tooManyError
	switch {
	case errors.As(err, &tooMany):
		code = http.StatusTooManyRequests
		w.Header().Set("Retry-After", strconv.Itoa(int(max(tooMany.wait, time.Second)/time.Second)))
		p.Bad = "There were too many attempts. Try again in " + max(tooMany.wait.Round(time.Second), time.Second).String() + "."
	case errors.Is(err, ErrUnread):
		code = http.StatusServiceUnavailable
		p.Bad = "The accounts could not be read yet. Try again in a minute; if it stays so, the store is down."
	case d.ldap != nil:
		p.Bad = "User name or password is wrong, or the directory cannot be reached."
	default:
		p.Bad = "User name or password is wrong."
	}
	d.show(w, r, code, "signin", p)
}

// begin gives the browser a session of a, never one that it had before, and sends it on.
func (d *Desk) begin(w http.ResponseWriter, r *http.Request, a *Account, next string) {
	from := d.source(r).String()
	d.endOwn(From(r.Context()))
	d.setCookie(w, cookieSession, d.sessions.open(a, from, shown(r.UserAgent(), ""), time.Now()))
	d.keep(r.Context())
	d.note(r.Context(), Note{a.ID(), "page, " + from, "signed in", a.ID(), a.Role.String()})
	http.Redirect(w, r, safeNext(next), http.StatusSeeOther) //nolint:gosec // a path of this site
}

// endOwn ends the session that a request came with.
func (d *Desk) endOwn(who Identity) {
	d.sessions.end(who.Account, func(s session) bool { return s.key == who.session })
}

func (d *Desk) signOut(w http.ResponseWriter, r *http.Request) {
	d.leave(w, r, From(r.Context()))
}

func (d *Desk) leave(w http.ResponseWriter, r *http.Request, who Identity) {
	d.endOwn(who)
	d.keep(r.Context())
	d.setCookie(w, cookieSession, "")
	d.note(r.Context(), Note{who.Account, d.place(r), "signed out", who.Account, ""})
	http.Redirect(w, r, pathSignIn, http.StatusSeeOther)
}

// place is the From of a note about a request.
func (d *Desk) place(r *http.Request) string { return "page, " + d.source(r).String() }

func (d *Desk) firstPage(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	if !d.opens(token) {
		d.badLink(w, r)
		return
	}
	d.show(w, r, http.StatusOK, "first", door{Title: "First administrator", Token: token})
}

func (d *Desk) badLink(w http.ResponseWriter, r *http.Request) {
	d.show(w, r, http.StatusForbidden, "refused", door{Title: "This link does not work", Text: sentence(errLink)})
}

func (d *Desk) makeFirst(w http.ResponseWriter, r *http.Request) {
	token, user, password := r.PostForm.Get("token"), r.PostForm.Get("user"), r.PostForm.Get("password")
	err := errors.New("the two passwords are not the same")
	var a *Account
	if password == r.PostForm.Get("again") || !d.opens(token) {
		a, err = d.addFirst(r.Context(), token, user, password, d.place(r))
	}
	switch {
	case err == nil:
		d.begin(w, r, a, "/")
	case errors.Is(err, errLink), errors.Is(err, ErrAdministrator):
		d.badLink(w, r)
	default:
		d.show(w, r, http.StatusUnprocessableEntity, "first", door{Title: "First administrator", Token: token, User: shown(user, ""), Bad: sentence(err)})
	}
}

// sentence writes an error for people.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

func (d *Desk) toProvider(w http.ResponseWriter, r *http.Request) {
	address, cookie, err := d.oidc.begin(r.Context(), safeNext(r.URL.Query().Get("next")))
	if err != nil {
		d.noProvider(w, r, err)
		return
	}
	d.setCookie(w, cookieFlow, cookie)
	http.Redirect(w, r, address, http.StatusSeeOther) //nolint:gosec // where the provider of the configuration says
}

func (d *Desk) noProvider(w http.ResponseWriter, r *http.Request, err error) {
	d.deps.Log.WarnContext(r.Context(), "nobody can sign in at the OpenID provider", "error", err)
	p := d.signInDoor("")
	p.Bad = "The sign-in service could not be asked. Try again in a minute; the log of presenced says what is wrong."
	d.show(w, r, http.StatusBadGateway, "signin", p)
}

func (d *Desk) fromProvider(w http.ResponseWriter, r *http.Request) {
	from := d.source(r)
	f, ok := d.oidc.open(d.cookie(r, cookieFlow), time.Now())
	d.setCookie(w, cookieFlow, "")
	p := d.signInDoor(f.Next)
	if wait, _ := d.limits.take(time.Now(), claim{"source " + network(from), perSource()}); wait > 0 || !ok {
		p.Bad = "This sign-in took too long, or was begun in another browser. Begin again."
		d.show(w, r, http.StatusForbidden, "signin", p)
		return
	}
	found, err := d.oidc.finish(r.Context(), f, r.URL.Query())
	var a *Account
	if err == nil {
		a, err = d.vouch(r.Context(), found.account(ViaOIDC, "somebody"))
	}
	switch {
	case err == nil:
		d.begin(w, r, a, f.Next)
	case errors.Is(err, errRefused):
		d.deps.Log.InfoContext(r.Context(), "a sign-in by OpenID was refused", "error", err)
		d.failed(r.Context(), "", from, "oidc")
		p.Bad = "The sign-in was refused. Begin again; if it stays so, an administrator has to let you in."
		d.show(w, r, http.StatusForbidden, "signin", p)
	default:
		d.noProvider(w, r, err)
	}
}

// mine is what the fragment about one's own sessions and tokens shows.
type mine struct {
	Sessions []mySession
	Tokens   []Token
	Scopes   []scope
	Days     []int
	Now      time.Time
}

// A scope is a permission that a token may be made with.
type scope struct{ Name, Means string }

type mySession struct {
	ID, From, Agent string
	Began, Seen     time.Time
	This            bool
}

func (d *Desk) mine(who Identity) mine {
	m := mine{Tokens: d.tokens.list(who.Account), Days: []int{30, 90, 365}, Now: time.Now()}
	for i, name := range Permissions() {
		if who.Role.Permissions()&(1<<i) != 0 {
			m.Scopes = append(m.Scopes, scope{name, meanings()[i]})
		}
	}
	for _, s := range d.sessions.list(who.Account, m.Now) {
		m.Sessions = append(m.Sessions, mySession{s.key.public(), s.From, s.Agent, s.Began, s.Seen, s.key == who.session})
	}
	return m
}

// Fragment gives the panels about the sessions and the tokens of who signed in, as
// HTML for a page of the caller's; empty for who did not, or came with a token.
func (d *Desk) Fragment(ctx context.Context) (template.HTML, error) {
	who := From(ctx)
	if who.Account == "" || who.Token != "" {
		return "", nil
	}
	var b strings.Builder
	if err := d.looks.ExecuteTemplate(&b, "mine-panels", door{Account: who, Mine: d.mine(who)}); err != nil {
		return "", fmt.Errorf("sessions and tokens: %w", err)
	}
	return template.HTML(b.String()), nil //nolint:gosec // a template wrote it
}

func (d *Desk) minePage(w http.ResponseWriter, r *http.Request) { d.showMine(w, r, http.StatusOK, "") }

func (d *Desk) showMine(w http.ResponseWriter, r *http.Request, code int, bad string) {
	who := From(r.Context())
	d.show(w, r, code, "mine", door{Title: "Sessions and tokens", Account: who, Mine: d.mine(who), Bad: bad})
}

// endSession ends one session of one's own, or, of the identifier "all", every one.
func (d *Desk) endSession(w http.ResponseWriter, r *http.Request) {
	who, id := From(r.Context()), r.PostForm.Get("id")
	if id == "all" {
		d.sessions.end(who.Account, func(s session) bool { return s.key != who.session })
		d.leave(w, r, who)
		return
	}
	if d.sessions.end(who.Account, func(s session) bool { return s.key.public() == id }) == 0 {
		d.showMine(w, r, http.StatusNotFound, "That session is over already.")
		return
	}
	d.keep(r.Context())
	d.note(r.Context(), Note{who.Account, d.place(r), "session ended", who.Account, ""})
	http.Redirect(w, r, d.deps.Mine, http.StatusSeeOther)
}

func (d *Desk) addToken(w http.ResponseWriter, r *http.Request) {
	who := From(r.Context())
	text, err := d.newToken(r.Context(), who, r.PostForm, d.place(r))
	if err != nil {
		d.showMine(w, r, http.StatusUnprocessableEntity, sentence(err))
		return
	}
	d.show(w, r, http.StatusOK, "token", door{Title: "New API token", Account: who, Token: text})
}

func (d *Desk) newToken(ctx context.Context, who Identity, form url.Values, from string) (string, error) {
	name := shown(form.Get("name"), "")
	if name == "" || len(name) > maxTokenName {
		return "", fmt.Errorf("a token needs a name of at most %d bytes, that says what it is for", maxTokenName)
	}
	var scopes Permission
	if err := scopes.UnmarshalText([]byte(strings.Join(form["scope"], " "))); err != nil {
		return "", err
	}
	if !who.May(scopes) {
		return "", errors.New("choose what the token may do: something, and nothing that you may not")
	}
	days, err := strconv.Atoi(form.Get("days"))
	if err != nil || days < 1 || days > maxTokenDays {
		return "", errors.New("a token lasts for 1 to 366 days")
	}
	now := time.Now()
	one := Token{Account: who.Account, Name: name, Scopes: scopes, Created: now, Expires: now.AddDate(0, 0, days)}
	if err := d.tokens.room(who.Account); err != nil {
		return "", err
	}
	if err := d.deps.Audit(ctx, Note{who.Account, from, "token made", who.Account, name + ": " + scopes.String()}); err != nil {
		return "", err
	}
	return d.tokens.add(ctx, one)
}

func (d *Desk) revokeToken(w http.ResponseWriter, r *http.Request) {
	who := From(r.Context())
	err := d.Revoke(r.Context(), By{who.Account, d.place(r)}, who.Account, r.PostForm.Get("id"))
	switch {
	case errors.Is(err, ErrNoToken):
		d.showMine(w, r, http.StatusNotFound, "That token is revoked already.")
	case err != nil:
		d.showMine(w, r, http.StatusServiceUnavailable, sentence(err))
	default:
		http.Redirect(w, r, d.deps.Mine, http.StatusSeeOther)
	}
}

// Tokens gives the tokens of all accounts, the newest first.
func (d *Desk) Tokens() []Token { return d.tokens.list("") }

// Revoke ends a token of an account; ErrNoToken. It ends even where the audit trail
// cannot be written; any other error says that it may come back with a restart.
func (d *Desk) Revoke(ctx context.Context, by By, account, id string) error {
	if !slices.ContainsFunc(d.tokens.list(account), func(t Token) bool { return t.ID() == id }) {
		return ErrNoToken
	}
	d.note(ctx, Note{by.Who, by.From, "token revoked", account, id})
	return d.tokens.revoke(ctx, account, id)
}

// SignOut ends all sessions of an account, and says how many.
func (d *Desk) SignOut(ctx context.Context, by By, account string) int {
	n := d.sessions.end(account, func(session) bool { return true })
	d.keep(ctx)
	d.note(ctx, Note{by.Who, by.From, "sessions ended", account, strconv.Itoa(n)})
	return n
}
