package main

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"presenced/aggregator/audit"
	"presenced/bridges/web/api"
)

// token makes an API token as its owner does on the page.
func (s *site) token(user, password string, scopes ...string) string {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	defer client.CloseIdleConnections()
	send := func(method, path, from string, form url.Values) (int, string) {
		req, err := http.NewRequest(method, s.url+path, strings.NewReader(form.Encode()))
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", from)
		res, err := client.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			s.t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	send(http.MethodPost, "/signin", "same-origin", url.Values{"user": {user}, "password": {password}})
	if code, body := send(http.MethodDelete, "/api/people/alder/presence", "cross-site", nil); code != http.StatusForbidden || !strings.Contains(body, `"detail":"another site sent this`) {
		s.t.Errorf("another site changes something: %d %s", code, body)
	}
	_, made := send(http.MethodPost, "/me/tokens", "same-origin", url.Values{"name": {"test"}, "scope": scopes, "days": {"1"}})
	_, rest, ok := strings.Cut(made, `"pd_`)
	if !ok {
		s.t.Fatalf("no token for %s\n%s", user, rest)
	}
	secret, _, _ := strings.Cut(rest, `"`)
	return s.write("token-"+strings.Join(scopes, "-"), "pd_"+secret+"\n")
}

// TestCommandsOverTheNetwork runs commands against the API with a token: they do what
// they do over the socket, as far as the token goes.
func TestCommandsOverTheNetwork(t *testing.T) {
	s := newSite(t, "")
	process := s.process()
	defer func() {
		_ = process.Process.Signal(syscall.SIGTERM)
		if err := process.Wait(); err != nil {
			t.Errorf("the service did not stop orderly: %v", err)
		}
	}()
	s.await("alder", "available/")
	s.listening()
	if code, body, err := ask(s.socket(), "POST", "/api/accounts", `{"user":"root","role":"administrator","password":"correct horse battery"}`); code != 200 {
		t.Fatalf("%d %s %v", code, body, err)
	}
	all := s.token("root", "correct horse battery", "read:states", "read:all", "read:health", "read:audit", "write:presence", "admin:access", "admin:services", "admin:accounts")
	run := func(want string, args ...string) string {
		t.Helper()
		code, out, errs := command(t, append(args, "--url", s.url, "--token-file", all)...)
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%v: exit %d\n%s%s\nwant %q", args, code, out, errs, want)
		}
		return out
	}
	run("aes-hq", "status")
	run("alder is set to dnd until ", "set", "alder", "dnd", "--until", "2h")
	run("alder   Ruth Alder  dnd", "board", "ruth")
	if out := run("birch", "board", "--state", "available"); strings.Contains(out, "alder") {
		t.Errorf("only who is available:\n%s", out)
	}
	run("because of rule manual-dnd", "explain", "alder")
	run("dnd", "history", "alder", "--since", "1h")
	run("id:birch sees of alder: status", "access", "set", "--of", "alder", "--watcher", "birch", "status")
	run("alder", "access", "list")
	run("alder has nothing set by hand", "clear", "alder")
	run("hq: add; 0 people published before, 0 after", "service", "add", "--set", "id=hq", "--set", "primary.host=127.0.0.1", "--set", "entity=sip:{tel}@example.test", "--dry-run")
	run("local:root", "account", "list")
	run("read:states", "token", "list")
	var lines []audit.Line
	if err := json.Unmarshal([]byte(run("", "audit", "--person", "alder", "--format", "json")), &lines); err != nil || len(lines) != 3 || lines[0].Who != "local:root" || lines[0].From != "page, 127.0.0.1" {
		t.Errorf("%v %+v", err, lines)
	}
	var people []api.Person
	if err := json.Unmarshal([]byte(run("", "board", "--format", "json")), &people); err != nil || len(people) != 3 {
		t.Errorf("%v %+v", err, people)
	}

	few := s.token("root", "correct horse battery", "read:states")
	for _, c := range []struct{ args, token, want string }{
		{"set alder dnd", few, "that takes the permission write:own or write:presence"},
		{"audit", few, "that takes the permission read:audit"},
		{"board --state asleep", few, "presenced: query.state expected value to be one of"},
		{"explain alder --at yesterday", few, "presenced: --at yesterday: want a moment such as"},
		{"set alder dnd", "", "sign in first, or send an API token"},
		{"set alder dnd", s.write("wrong", "pd_nothing"), "the API token is wrong, over or revoked"},
		{"set alder dnd", filepath.Join(s.dir, "none"), "--token-file"},
	} {
		args := append(strings.Fields(c.args), "--url", s.url)
		if c.token != "" {
			args = append(args, "--token-file", c.token)
		}
		code, out, errs := command(t, args...)
		if code != exitFailed || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d\n%s%s\nwant %s", c.args, code, out, errs, c.want)
		}
	}
	run("revoked", "token", "revoke", tokenIDs(t, s, all)[0])
}

// tokenIDs gives the identifiers of all tokens, the newest first.
func tokenIDs(t *testing.T, s *site, file string) []string {
	t.Helper()
	var all []api.Token
	if _, out, _ := command(t, "token", "list", "--format", "json", "--url", s.url, "--token-file", file); json.Unmarshal([]byte(out), &all) != nil || len(all) != 2 {
		t.Fatalf("%+v", all)
	}
	return []string{all[0].ID, all[1].ID}
}

// A token goes to the server that is named, over TLS or within this machine.
func TestTokensStayAtHome(t *testing.T) {
	asked := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer other.Close()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer pd_x" {
			t.Errorf("%v", r.Header)
		}
		if r.URL.Path == "/away/api/health" {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
			return
		}
		_, _ = w.Write([]byte(`{"parts": []}`))
	}))
	defer server.Close()
	token := write(t, "token", "pd_x\n")
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	for _, c := range []struct {
		url, ca string
		code    int
		want    string
	}{
		{server.URL, ca, exitOK, ""},
		{server.URL + "/", ca, exitOK, ""},
		{server.URL, "", exitFailed, "certificate"},
		{server.URL + "/away", ca, exitFailed, "answers 307"},
		{"http://presence.example.com", "", exitFailed, "would cross the network in clear"},
		{"presence.example.com", "", exitFailed, "want something like https://"},
		{"https://user@presence.example.com", "", exitFailed, "want something like https://"},
		{server.URL, token, exitFailed, "--ca-file"},
	} {
		args := []string{"status", "--url", c.url, "--token-file", token}
		if c.ca != "" {
			args = append(args, "--ca-file", c.ca)
		}
		if code, out, errs := command(t, args...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d\n%s%s\nwant %s", c.url, code, out, errs, c.want)
		}
	}
	if asked > 0 {
		t.Error("a redirect was followed")
	}
	t.Setenv("PRESENCED_URL", server.URL)
	t.Setenv("PRESENCED_TOKEN_FILE", token)
	t.Setenv("PRESENCED_CA_FILE", ca)
	if code, _, errs := command(t, "status"); code != exitOK {
		t.Errorf("by the environment: %s", errs)
	}
}
