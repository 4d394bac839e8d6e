package signin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxBody bounds the body of any request behind Guard; a handler may bound its own
// further.
const maxBody = 1 << 20

// Guard finds out who makes a request and puts them into its context (From), then
// calls next. It refuses requests of other sites that could change something, bodies
// of more than 1 MiB, and API tokens that are not good. It does not ask anybody to sign
// in: Require does.
//
// A token is taken from the header Authorization only (RFC 6750 section 2.1), and then
// cookies say nothing. Another scheme there is for a proxy before the page.
func (d *Desk) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > maxBody {
			w.Header().Set("Connection", "close")
			fail(w, http.StatusRequestEntityTooLarge, "the body is larger than 1 MiB")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		var who Identity
		if bearing(r) {
			var ok bool
			if who, ok = d.bearer(r); !ok {
				w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
				fail(w, http.StatusUnauthorized, "the API token is wrong, over or revoked; it belongs into the header Authorization: Bearer")
				return
			}
		} else {
			if err := d.crossing.Check(r); err != nil {
				fail(w, http.StatusForbidden, "another site sent this request; nothing was done")
				return
			}
			who = d.visitor(r)
		}
		next.ServeHTTP(w, r.WithContext(With(r.Context(), who)))
	})
}

// Require lets those pass to next who may do all of p. Who did not sign in is sent to
// do so, if it is a browser that asks for a page.
func (d *Desk) Require(p Permission, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch who := From(r.Context()); {
		case who.May(p):
			next.ServeHTTP(w, r)
		case who.Account != "" && page(r):
			d.show(w, r, http.StatusForbidden, "refused", door{Title: "Not for you", Account: who, Text: fmt.Sprintf("That takes the permission %s, which the role %s does not have. An administrator can give you another role.", p, who.Role)})
		case who.Account != "":
			fail(w, http.StatusForbidden, fmt.Sprintf("that takes the permission %s", p))
		case page(r) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			http.Redirect(w, r, pathSignIn+"?"+url.Values{"next": {safeNext(r.URL.RequestURI())}}.Encode(), http.StatusSeeOther)
		default:
			w.Header().Set("WWW-Authenticate", "Bearer")
			fail(w, http.StatusUnauthorized, "sign in first, or send an API token in the header Authorization: Bearer")
		}
	})
}

// page tells whether a browser asks for something to show.
func page(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html") && !bearing(r)
}

// bearing tells whether a request comes with an API token, good or not.
func bearing(r *http.Request) bool {
	return slices.ContainsFunc(r.Header.Values("Authorization"), func(value string) bool {
		scheme, _, _ := strings.Cut(value, " ")
		return strings.EqualFold(scheme, "Bearer")
	})
}

// fail answers with a problem (RFC 9457), as the API does.
func fail(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(code), "status": code, "detail": text})
}

// bearer gives who the API token of a request that is bearing belongs to; ok is
// false where the header holds anything but one good token.
func (d *Desk) bearer(r *http.Request) (who Identity, ok bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return Identity{}, false
	}
	_, text, _ := strings.Cut(values[0], " ")
	k, ok := parseToken(text)
	if !ok {
		return Identity{}, false
	}
	token, ok := d.tokens.find(k, time.Now())
	if !ok {
		return Identity{}, false
	}
	who = d.identity(d.accounts.find(token.Account))
	if who.Account == "" {
		return Identity{}, false
	}
	who.Token, who.Scopes = token.ID(), token.Scopes
	return who, true
}

// visitor gives who the cookie of a request belongs to; without a good one it is
// anyone, or nobody where one has to sign in.
func (d *Desk) visitor(r *http.Request) Identity {
	if k, ok := d.sessionKey(r); ok {
		if who := d.bearerOf(k, time.Now(), d.sessions.find); who.Account != "" {
			return who
		}
	}
	return d.stranger()
}

// The cookies. With the prefix __Host- a browser takes them over TLS and from this
// very host only (RFC 6265bis section 4.1.3.2).
const (
	cookieSession = "presenced"
	cookieFlow    = "presenced-flow"
)

func (d *Desk) secure() bool { return d.origin.Scheme == "https" }

func (d *Desk) cookieName(name string) string {
	if d.secure() {
		return "__Host-" + name
	}
	return name
}

// setCookie gives a browser a cookie for as long as it runs; an empty value takes
// the cookie away.
func (d *Desk) setCookie(w http.ResponseWriter, name, value string) {
	c := &http.Cookie{Name: d.cookieName(name), Value: value, Path: "/", Secure: d.secure(), HttpOnly: true, SameSite: http.SameSiteLaxMode} //nolint:gosec // not secure over loopback only, which New checks
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// cookie gives the value of a cookie that came once. One that came twice was put
// beside ours by somebody else.
func (d *Desk) cookie(r *http.Request, name string) string {
	all := r.CookiesNamed(d.cookieName(name))
	if len(all) != 1 {
		return ""
	}
	return all[0].Value
}

func (d *Desk) sessionKey(r *http.Request) (key, bool) {
	return parseSessionID(d.cookie(r, cookieSession))
}

const maxHops = 20 // of X-Forwarded-For that are looked at

// source is where a request came from: who connects, or who the proxies of the
// configuration say.
func (d *Desk) source(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr) //nolint:errcheck // the zero address is one source
	from := peer.Addr().Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for range maxHops {
		if !d.proxy(from) || len(hops) == 0 {
			break
		}
		before, err := netip.ParseAddr(strings.TrimSpace(hops[len(hops)-1]))
		if err != nil {
			break
		}
		from, hops = before.Unmap(), hops[:len(hops)-1]
	}
	return from
}

func (d *Desk) proxy(a netip.Addr) bool {
	for _, p := range d.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
