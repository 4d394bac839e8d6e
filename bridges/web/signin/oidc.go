package signin

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"presenced/aggregator/presence"
	"presenced/internal/trust"
)

// A provider signs people in at an OpenID provider: the code flow of OpenID Connect
// Core section 3.1, with PKCE (RFC 7636), state and nonce.
type provider struct {
	OIDCConfig
	redirect string
	client   *http.Client
	mac      []byte // key of the flow cookies; a restart ends the flows under way

	mu    sync.Mutex
	known *oidc.Provider // nil: not discovered yet
}

const (
	oidcTime   = 10 * time.Second
	oidcAnswer = 1 << 20 // bytes
	flowLife   = 10 * time.Minute
)

func newProvider(c OIDCConfig, origin *url.URL) (*provider, error) {
	settings, err := (&trust.Config{CAFile: c.CAFile}).Client("")
	if err != nil {
		return nil, fmt.Errorf("web.signin.oidc: %w", err)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: settings, DisableKeepAlives: true}
	return &provider{
		OIDCConfig: c, redirect: origin.String() + pathCallback, mac: newSecret(),
		client: &http.Client{
			Timeout: oidcTime, Transport: bounded{transport},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the secret goes where the configuration says
		},
	}, nil
}

// bounded cuts off what a provider answers beyond oidcAnswer.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, oidcAnswer), res.Body}
	}
	return res, err
}

// A flow is a sign-in that is under way in a browser, which keeps it in a cookie.
type flow struct {
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"`
	Next     string    `json:"to"`
	Expires  time.Time `json:"exp"`
}

const maxFlow = 3000 // bytes of the cookie

// seal writes a flow so that nobody else can.
func (p *provider) seal(f flow) string {
	data, _ := json.Marshal(f) //nolint:errcheck // it is text and a time
	body := base64.RawURLEncoding.EncodeToString(data)
	return body + "." + base64.RawURLEncoding.EncodeToString(p.sum(body))
}

// open reads what seal wrote; ok is false for anything else, and when it is too old.
func (p *provider) open(text string, now time.Time) (f flow, ok bool) {
	body, sum, ok := strings.Cut(text, ".")
	if !ok || len(text) > maxFlow {
		return flow{}, false
	}
	mac, err := base64.RawURLEncoding.DecodeString(sum)
	if err != nil || !hmac.Equal(mac, p.sum(body)) {
		return flow{}, false
	}
	data, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil || json.Unmarshal(data, &f) != nil || !now.Before(f.Expires) {
		return flow{}, false
	}
	return f, true
}

func (p *provider) sum(body string) []byte {
	h := hmac.New(sha256.New, p.mac)
	h.Write([]byte(body))
	return h.Sum(nil)
}

// discover gives the provider and what to ask it with; it asks the provider where
// its addresses are, once.
func (p *provider) discover(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		known, err := oidc.NewProvider(ctx, p.Issuer)
		if err != nil {
			return nil, nil, fmt.Errorf("oidc %s: %w", p.Issuer, err)
		}
		p.known = known
	}
	c := &oauth2.Config{ClientID: p.ClientID, RedirectURL: p.redirect, Endpoint: p.known.Endpoint(), Scopes: p.Scopes}
	if p.ClientSecret != "" {
		secret, err := p.ClientSecret.Read()
		if err != nil {
			return nil, nil, err
		}
		c.ClientSecret = secret
	}
	return p.known, c, nil
}

// begin gives the address to send a browser to, and the cookie to give it.
func (p *provider) begin(ctx context.Context, next string) (address, cookie string, err error) {
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.client), oidcTime)
	defer cancel()
	_, c, err := p.discover(ctx)
	if err != nil {
		return "", "", err
	}
	f := flow{State: sessionID(newSecret()), Nonce: sessionID(newSecret()), Verifier: oauth2.GenerateVerifier(), Next: next, Expires: time.Now().Add(flowLife)}
	return c.AuthCodeURL(f.State, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), p.seal(f), nil
}

// finish gives who came back from the provider with query, in the browser that
// began f. The error is errRefused where this is no answer to f.
func (p *provider) finish(ctx context.Context, f flow, query url.Values) (found, error) {
	if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(f.State)) != 1 {
		return found{}, fmt.Errorf("oidc: the answer is to another request: %w", errRefused)
	}
	if code := query.Get("error"); code != "" {
		return found{}, fmt.Errorf("oidc: the provider says %.60q: %w", code, errRefused)
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.client), oidcTime)
	defer cancel()
	known, c, err := p.discover(ctx)
	if err != nil {
		return found{}, err
	}
	answer, err := c.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(f.Verifier))
	if err != nil {
		if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok { // its text quotes what came
			return found{}, fmt.Errorf("oidc %s: the code was refused: %.60q: %w", p.Issuer, refused.ErrorCode, errRefused)
		}
		return found{}, fmt.Errorf("oidc %s: %w", p.Issuer, err)
	}
	raw, _ := answer.Extra("id_token").(string) //nolint:errcheck // empty is refused
	token, err := known.VerifierContext(ctx, &oidc.Config{ClientID: p.ClientID}).Verify(ctx, raw)
	if err != nil {
		return found{}, fmt.Errorf("oidc %s: the ID token is not right: %w", p.Issuer, errors.Join(err, errRefused))
	}
	if subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(f.Nonce)) != 1 {
		return found{}, fmt.Errorf("oidc %s: the ID token is for another request: %w", p.Issuer, errRefused)
	}
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return found{}, fmt.Errorf("oidc %s: %w", p.Issuer, err)
	}
	return p.found(token.Subject, claims)
}

func (p *provider) found(subject string, claims map[string]any) (found, error) {
	if subject == "" || len(subject) > 255 { // OpenID Connect Core section 2
		return found{}, fmt.Errorf("oidc %s: the ID token names nobody: %w", p.Issuer, errRefused)
	}
	text := func(claim string) string {
		v, _ := claims[claim].(string) //nolint:errcheck // empty is nothing
		return v
	}
	var groups []string
	switch v := claims[p.Group].(type) {
	case string:
		groups = []string{v}
	case []any:
		for _, one := range v[:min(len(v), maxGroups)] {
			if g, ok := one.(string); ok {
				groups = append(groups, g)
			}
		}
	}
	f := found{user: p.Issuer + "#" + subject, name: text("name"), role: p.role(groups)}
	v := strings.TrimSpace(text(p.Claim))
	verified := claims["email_verified"]
	if p.Claim == "email" && (verified == false || verified == "false") {
		v = ""
	}
	if v != "" && len(v) <= presence.MaxText {
		f.subjects = []presence.Subject{{Scheme: p.Scheme, Value: v}}
	}
	return f, nil
}
