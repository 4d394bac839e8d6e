package main

import (
	"bytes"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestAccounts takes the way of an administrator: the link of the first start, the
// page, and the command line; what was made outlives the process.
func TestAccounts(t *testing.T) {
	s := newSite(t, "")
	log, stop := s.serve()
	s.await("alder", "available/")
	s.listening()

	var link string
	eventually(t, "the log has the link", func() bool {
		_, errs := log.read()
		link = regexp.MustCompile(`http://\S+/signin/first\?token=[\w-]+`).FindString(errs)
		return link != ""
	})
	code, out, errs := s.run("", "account", "link")
	if code != 0 || !strings.HasPrefix(out, "http://") || strings.TrimSpace(out) == link {
		t.Fatalf("account link: %d %s%s", code, out, errs)
	}
	link = strings.TrimSpace(out) // the one before is over

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	defer browser.CloseIdleConnections()
	page := func(method, address string, form url.Values) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var body bytes.Buffer
		if _, err := body.ReadFrom(res.Body); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, body.String()
	}
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	const password = "correct horse battery"
	if code, body := page(http.MethodPost, "http://"+u.Host+"/signin/first", url.Values{"token": {u.Query().Get("token")}, "user": {"root"}, "password": {password}, "again": {password}}); code != http.StatusOK || !strings.Contains(body, "root") {
		t.Fatalf("the first administrator: %d\n%s", code, body)
	}
	if code, body := page(http.MethodPost, "http://"+u.Host+"/people/alder/presence", url.Values{"state": {"dnd"}, "for": {"2h"}}); code != http.StatusOK || !strings.Contains(body, "is set to do not disturb, until ") {
		t.Errorf("set: %d\n%s", code, body)
	}
	if got, _ := s.state("alder"); got != "dnd/" { // at once: it is acknowledged
		t.Errorf("alder is %s", got)
	}

	for _, tt := range []struct {
		in, want string // of the output, or the error
		args     []string
	}{
		{password + "\n", "account anna added: operator", []string{"account", "add", "anna", "--role", "operator", "--person", "alder"}},
		{"short\n", "at least 10", []string{"account", "add", "bob"}},
		{"", "standard input", []string{"account", "add", "bob"}},
		{password, "nobody in the directory has the identifier", []string{"account", "add", "bob", "--person", "zebra"}},
		{password, "an account of that name already", []string{"account", "add", "anna"}},
		{"", "local:anna", []string{"account", "list"}},
		{"", `"person":"alder"`, []string{"account", "list", "--format", "json"}},
		{"", "account root is birch now", []string{"account", "person", "root", "birch"}},
		{"", "nobody in the directory has", []string{"account", "person", "root", "zebra"}},
		{"", "account anna is person now", []string{"account", "role", "anna", "person"}},
		{"", "last administrator", []string{"account", "role", "root", "person"}},
		{password + "!\n", "has a new password", []string{"account", "password", "anna"}},
		{"", "an administrator already", []string{"account", "link"}},
		{"", "TOKEN", []string{"token", "list"}},
		{"", "no such token", []string{"token", "revoke", "0123456789abcdef"}},
		{"", "there is no such account", []string{"account", "remove", "zebra"}},
		{"", "last administrator", []string{"account", "remove", "root"}},
	} {
		_, out, errs := s.run(tt.in, tt.args...)
		if !strings.Contains(strings.ReplaceAll(out, " \"", "\"")+errs, tt.want) || strings.Contains(out+errs, password) {
			t.Errorf("%v: %s%s, want %q", tt.args, out, errs, tt.want)
		}
	}
	_, trail, _ := s.run("", "audit")
	for _, want := range []string{"the first link", "local:root", "presence set", "account added", "local:anna", "uid "} {
		if !strings.Contains(trail, want) {
			t.Errorf("the audit trail does not say %q:\n%s", want, trail)
		}
	}

	stop() // and the session is still good
	log, stop = s.serve()
	defer stop()
	s.listening()
	eventually(t, "the session is there after a restart", func() bool { // once the accounts were read
		code, body := page(http.MethodGet, "http://"+u.Host+"/me", nil)
		return code == http.StatusOK && strings.Contains(body, "My API tokens")
	})
	if _, errs := log.read(); strings.Contains(errs, "/signin/first") {
		t.Error("there is a link, though there is an administrator")
	}
	if _, out, errs := s.run("", "account", "remove", "anna"); !strings.Contains(out, "account anna removed") {
		t.Errorf("remove: %s%s", out, errs)
	}
}

// run runs a command of its own against the service, with that standard input.
func (s *site) run(in string, args ...string) (code int, out, errs string) {
	s.t.Helper()
	cmd := exec.Command(os.Args[0], append(args, "--socket", s.socket())...) //nolint:gosec // this very test
	cmd.Env = append(os.Environ(), "PRESENCED_TEST_MAIN=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}
