package signin_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"presenced/bridges/web/signin"
	"presenced/internal/secret"
)

// An issuer is an OpenID provider that signs with a key of its own. It lets everybody
// in as whoever claims says.
type issuer struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu     sync.Mutex
	claims map[string]any // beside those that it makes
	codes  map[string]url.Values
	forged *rsa.PrivateKey // signs instead of key
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: k, codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.URL, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token", "jwks_uri": i.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": base64.RawURLEncoding.EncodeToString(k.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("POST /token", i.token)
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

// authorize is what a browser would do at the provider: it gives the query to come
// back with.
func (i *issuer) authorize(t *testing.T, location string) url.Values {
	t.Helper()
	u, err := url.Parse(location)
	if err != nil || !strings.HasPrefix(location, i.URL+"/authorize?") {
		t.Fatalf("sent to %q", location)
	}
	q := u.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("response_type") != "code" || q.Get("nonce") == "" || q.Get("redirect_uri") != origin+"/signin/oidc/callback" || q.Get("scope") != "openid email" {
		t.Fatalf("asked with %v", q)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	code := "code-" + q.Get("state")
	i.codes[code] = q
	return url.Values{"code": {code}, "state": {q.Get("state")}}
}

func (i *issuer) token(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	asked := i.codes[r.FormValue("code")]
	delete(i.codes, r.FormValue("code"))
	challenge := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	client, password, _ := r.BasicAuth()
	w.Header().Set("Content-Type", "application/json")
	if asked == nil || base64.RawURLEncoding.EncodeToString(challenge[:]) != asked.Get("code_challenge") || client != "presenced" || password != "hush" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant"}`))
		return
	}
	claims := map[string]any{"iss": i.URL, "aud": "presenced", "sub": "u1", "nonce": asked.Get("nonce"), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	maps.Copy(claims, i.claims)
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": i.sign(claims)})
}

func (i *issuer) sign(claims map[string]any) string {
	body, _ := json.Marshal(claims)
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"1"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	k := i.key
	if i.forged != nil {
		k = i.forged
	}
	sig, _ := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func oidcSettings(t *testing.T, i *issuer) signin.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := settings()
	cfg.URL = origin
	cfg.OIDC = signin.OIDCConfig{
		Issuer: i.URL, ClientID: "presenced", ClientSecret: secret.File(file), Scopes: []string{"openid", "email"}, Label: "Company sign-in", Claim: "email", Scheme: "mail", Group: "groups",
		Groups: signin.Groups{Administrators: []string{"presence-admins"}, People: []string{"staff"}},
	}
	if ps := cfg.Check(); len(ps) > 0 {
		t.Fatal(ps)
	}
	return cfg
}

func TestOIDC(t *testing.T) {
	i := newIssuer(t)
	w := newWorld(t, oidcSettings(t, i))
	b := w.browse()
	if a := b.get("/signin?next=/own"); !strings.Contains(a.body, `href="/signin/oidc?next=%2fown">Company sign-in`) {
		t.Errorf("no button: %s", a.body)
	}
	enter := func(b *browser, claims map[string]any) answer {
		i.mu.Lock()
		i.claims = claims
		i.mu.Unlock()
		back := i.authorize(t, b.get("/signin/oidc?next=/own").Header.Get("Location"))
		return b.get("/signin/oidc/callback?"+back.Encode(), "Sec-Fetch-Site", "cross-site")
	}
	staff := map[string]any{"name": "Anna Berg", "email": "anna@example.com", "groups": []string{"staff"}}
	if a := enter(b, staff); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/own" {
		t.Fatalf("%s to %s: %s\n%s", a.Status, a.Header.Get("Location"), a.body, w.logged.String())
	}
	if a := b.get("/own"); a.body != "hello oidc:"+i.URL+"#u1 7" {
		t.Errorf("%q", a.body)
	}
	token := b.token("read:states")
	if a := b.get("/services"); a.StatusCode != http.StatusForbidden {
		t.Errorf("staff: %s", a.Status)
	}
	// The groups of the next sign-in count, for the sessions that are there too.
	enter(w.browse(), map[string]any{"groups": []string{"staff", "Presence-Admins"}})
	if a := b.get("/services"); a.StatusCode != 200 {
		t.Errorf("administrator by now: %s", a.Status)
	}
	if a := enter(w.browse(), map[string]any{"groups": "guests"}); a.StatusCode != http.StatusForbidden || a.Header.Get("Location") != "" {
		t.Errorf("in no group: %s", a.Status)
	}
	if a, k := b.get("/"), b.get("/", "Authorization", "Bearer "+token); a.StatusCode == 200 || k.StatusCode == 200 {
		t.Errorf("who left the group is in still: %s, %s", a.Status, k.Status)
	}
	for name, claims := range map[string]map[string]any{
		"for somebody else": {"aud": "other"},
		"of somebody else":  {"iss": "https://evil.example"},
		"too old":           {"exp": time.Now().Add(-time.Hour).Unix()},
		"of another answer": {"nonce": "x"},
		"without a nonce":   {"nonce": ""},
		"of nobody":         {"sub": ""},
	} {
		claims["groups"] = []string{"staff"}
		fresh := w.browse()
		if a := enter(fresh, claims); a.StatusCode != http.StatusForbidden || fresh.session() != "" {
			t.Errorf("an ID token %s: %s", name, a.Status)
		}
	}
	unverified := w.browse()
	enter(unverified, map[string]any{"email": "anna@example.com", "email_verified": false, "groups": []string{"staff"}})
	if a := unverified.get("/own"); a.body != "hello oidc:"+i.URL+"#u1 " {
		t.Errorf("an address that is not verified: %q", a.body)
	}
	forged, _ := rsa.GenerateKey(rand.Reader, 2048)
	i.mu.Lock()
	i.forged = forged
	i.mu.Unlock()
	if a := enter(w.browse(), staff); a.StatusCode != http.StatusForbidden {
		t.Errorf("signed by another key: %s", a.Status)
	}
	for _, leak := range []string{"anna@example.com", "hush", "code-"} {
		if strings.Contains(w.logged.String(), leak) {
			t.Errorf("the log has %q:\n%s", leak, w.logged.String())
		}
	}
}

// An answer counts once, in the browser that asked for it, with its own state.
func TestOIDCFlow(t *testing.T) {
	i := newIssuer(t)
	i.claims = map[string]any{"groups": []string{"staff"}}
	w := newWorld(t, oidcSettings(t, i))
	victim, attacker := w.browse(), w.browse()
	back := i.authorize(t, attacker.get("/signin/oidc").Header.Get("Location"))
	if a := victim.get("/signin/oidc/callback?" + back.Encode()); a.StatusCode != http.StatusForbidden || victim.session() != "" {
		t.Errorf("the answer of another browser: %s", a.Status)
	}
	victim.get("/signin/oidc")
	if a := victim.get("/signin/oidc/callback?" + back.Encode()); a.StatusCode != http.StatusForbidden || victim.session() != "" {
		t.Errorf("the answer of another browser, within a flow: %s", a.Status)
	}
	if a := attacker.get("/signin/oidc/callback?" + back.Encode()); a.StatusCode != http.StatusSeeOther {
		t.Errorf("its own: %s", a.Status)
	}
	if a := attacker.get("/signin/oidc/callback?" + back.Encode()); a.StatusCode != http.StatusForbidden {
		t.Errorf("once more: %s", a.Status)
	}
	u, _ := url.Parse(victim.get("/signin/oidc").Header.Get("Location"))
	if a := victim.get("/signin/oidc/callback?error=access_denied&state=" + u.Query().Get("state")); a.StatusCode != http.StatusForbidden {
		t.Errorf("the provider refuses: %s", a.Status)
	}
	i.Close()
	fresh := newWorld(t, oidcSettings(t, i))
	if a := fresh.browse().get("/signin/oidc"); a.StatusCode != http.StatusBadGateway {
		t.Errorf("the provider is not there: %s", a.Status)
	}
}
