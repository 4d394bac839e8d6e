package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestEveryCommandAsJSON runs each command that asks the service with --format json:
// what it prints is one JSON document, and nothing else. A command that is not in the
// table fails the test.
func TestEveryCommandAsJSON(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	s := newSite(t, fmt.Sprintf("webhooks:\n- {name: crm, url: %q, secret_file: %s, people: [alder]}\n", receiver.URL, write(t, "key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")))
	_, stop := s.serve()
	defer stop()
	s.await("alder", "available/")
	s.listening()
	eventually(t, "the accounts were read", func() bool {
		code, _, _ := command(t, "account", "list", "--socket", s.socket())
		return code == exitOK
	})
	const password = "correct horse battery\n"
	const forms = "services:\n- {id: branch, primary: {host: 127.0.0.1, port: 9}, entity: 'sip:{tel}@example.test'}\n"
	set := []string{"--set", "id=hq", "--set", "primary.host=127.0.0.1", "--set", "primary.port=9", "--set", "transport=tcp", "--set", "entity=sip:{tel}@example.test", "--yes"}
	ran := map[string]bool{}
	for _, c := range []struct {
		command, in string
		args        []string
	}{
		{"account link", "", nil},
		{"account add", password, []string{"root", "--role", "administrator"}},
		{"account list", "", nil},
		{"account role", "", []string{"root", "administrator"}},
		{"account person", "", []string{"root", "alder"}},
		{"account password", password, []string{"root"}},
		{"account add", password, []string{"anna"}},
		{"account remove", "", []string{"anna"}},
		{"token list", "", nil},
		{"status", "", nil},
		{"poll", "", []string{"exchange-hq/calendar"}},
		{"board", "", nil},
		{"set", "", []string{"alder", "dnd"}},
		{"explain", "", []string{"alder"}},
		{"history", "", []string{"alder", "--since", "1h"}},
		{"clear", "", []string{"alder"}},
		{"access set", "", []string{"--of", "alder", "--watcher", "birch", "status"}},
		{"access list", "", nil},
		{"access clear", "", []string{"--of", "alder", "--watcher", "birch"}},
		{"access watchers", "", []string{"alder"}},
		{"access pending", "", nil},
		{"access allow", "", []string{"alder", "birch"}},
		{"access deny", "", []string{"alder", "birch"}},
		{"access revoke", "", []string{"alder", "birch"}},
		{"access privacy", "", []string{"alder", "times"}},
		{"access opt-in", "", []string{"alder"}},
		{"access opt-out", "", []string{"alder"}},
		{"access test", "", []string{"birch", "alder"}},
		{"access forget", "", []string{"--of", "alder"}},
		{"audit", "", nil},
		{"policy dry-run", "", []string{s.write("policy.yaml", s.defaultTable())}},
		{"service add", "", set},
		{"service list", "", nil},
		{"service show", "", []string{"hq"}},
		{"service edit", "", []string{"hq", "--set", "primary.port=10", "--yes"}},
		{"service test", "", []string{"hq"}},
		{"service sync", "", []string{"hq"}},
		{"service apply", forms, []string{"-f", "-", "--yes"}},
		{"service delete", "", []string{"hq", "--yes"}},
		{"webhook dead", "", []string{"crm"}},
		{"webhook retry", "", []string{"crm"}},
	} {
		ran[c.command] = true
		args := append(append(strings.Fields(c.command), c.args...), "--format", "json")
		var out, errs string
		if c.in != "" {
			_, out, errs = s.run(c.in, args...)
		} else {
			_, out, errs = command(t, append(args, "--socket", s.socket())...)
		}
		if !json.Valid([]byte(out)) {
			t.Errorf("%s %q: %s%s", c.command, c.args, out, errs)
		}
	}
	ran["token revoke"] = true   // TestCommandsOverTheNetwork has a token
	ran["service export"] = true // prints a file, in the form that apply takes

	parser, err := kong.New(new(commands))
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range parser.Model.Leaves(false) {
		asks := false
		for _, flags := range leaf.AllFlags(true) {
			for _, f := range flags {
				asks = asks || f.Name == "url"
			}
		}
		if asks && !ran[leaf.Path()] {
			t.Errorf("%s is not tried with --format json", leaf.Path())
		}
	}
}

// defaultTable gives the default policy as a file has it.
func (s *site) defaultTable() string {
	s.t.Helper()
	code, out, errs := command(s.t, "policy", "show")
	if code != exitOK {
		s.t.Fatal(errs)
	}
	return out
}
