package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/bridges/pidf"
	"presenced/bridges/sip"
	"presenced/bridges/web/api"
	"presenced/fixtures/peers"
)

// notified waits until a watcher is told that somebody is open, or closed.
func notified(t *testing.T, w *peers.Watcher, want pidf.Basic) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		body, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		d, err := pidf.Parse(body)
		if err != nil {
			t.Fatal(err)
		}
		if d.Basic() == want {
			return
		}
	}
}

// drained takes what a watcher was told already.
func drained(t *testing.T, w *peers.Watcher) (told int) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := w.Next(ctx)
		cancel()
		if err != nil {
			return told
		}
		told++
	}
}

// TestServices administers a presence service from the command line: it is added,
// edited, kept over a restart, and deleted, and watchers at a real server see it.
func TestServices(t *testing.T) {
	server := peers.Kamailio(t)
	s := newSite(t, "sip:\n- {name: lab, address: \"127.0.0.1:9\", transport: tcp, entity: \"sip:{tel}@lab.test\"}\n")
	people := mustRead(t, s.dir+"/people.yaml")
	s.write("presenced.yaml", strings.Replace(string(mustRead(t, s.file)), "people.yaml]}", "people.yaml], interval: 1s}", 1))
	_, stop := s.serve()
	s.await("alder", "available/")
	s.await("birch", "available/")
	s.listening()
	service := func(code int, want string, args ...string) string {
		t.Helper()
		got, out, errs := command(t, append(append([]string{"service"}, args...), "--socket", s.socket())...)
		if got != code || !strings.Contains(out+errs, want) {
			t.Fatalf("service %v: exit %d\n%s%s\nwant %d, %q", args, got, out, errs, code, want)
		}
		return out
	}
	hq := []string{
		"add", "--set", "id=hq", "--set", "primary.host=127.0.0.1", "--set", "primary.port=" + server.Address[strings.LastIndexByte(server.Address, ':')+1:],
		"--set", "entity=sip:{tel}@example.test", "--set", "users=alder,birch,stranger",
	}
	service(exitFailed, "Do it? [y/N] presenced: nothing has changed: it was not confirmed", hq...)
	service(exitInvalid, "--set: rate: -1 is not between", append(hq, "--set", "rate=-1")...)
	alder, birch := peers.SIPWatcher(t, server, "sip:4750@example.test"), peers.SIPWatcher(t, server, "sip:4751@example.test")
	service(exitOK, "hq: add; 0 people published before, 2 after: 2 added, 0 removed, 0 changed\n  added: alder birch\n  nobody in the directory is: stranger\nhq is kept, revision ", append(hq, "--yes")...)
	notified(t, alder, pidf.Open)
	notified(t, birch, pidf.Open)
	service(exitFailed, "hq was changed meanwhile: it is there already", append(hq, "--yes")...)
	eventually(t, "the list says how it fares", func() bool {
		_, out, _ := command(t, "service", "list", "--socket", s.socket())
		return strings.Contains(out, "hq ") && strings.Contains(out, server.Address+" (in use)") && strings.Contains(out, "127.0.0.1:9 (does not answer)") &&
			strings.Contains(out, " 2      2     live")
	})
	service(exitOK, "ok   "+server.Address+": answers, and takes publications", "test", "hq")
	service(exitFailed, "FAIL 127.0.0.1:9: cannot connect", "test", "lab")
	service(exitOK, "2 people are published again", "sync", "hq")
	notified(t, birch, pidf.Open)

	drained(t, birch)
	service(exitOK, "removed: alder", "edit", "hq", "--set", "users=birch", "--dry-run")
	service(exitFailed, "1 of 2 people would be removed, more than max_removed (20 percent) allows", "edit", "hq", "--set", "users=birch", "--yes")
	service(exitFailed, ", you had 99); show it again", "edit", "hq", "--set", "users=birch", "--force", "--revision", "99")
	service(exitOK, "hq is kept", "edit", "hq", "--set", "users=birch", "--force")
	notified(t, alder, pidf.Closed)
	if n := drained(t, birch); n > 0 {
		t.Errorf("a watcher of who stays was told %d times", n)
	}
	service(exitFailed, "lab stands in the configuration, in "+s.file+": edit it there", "edit", "lab", "--set", "rate=1", "--yes")
	service(exitFailed, "lab stands in the configuration", "delete", "lab", "--force")
	service(exitFailed, `"hp"; "presenced service list" names them`, "show", "hp")

	file := s.write("services.yaml", service(exitOK, "users:", "export"))
	service(exitOK, "hq: stays as it is", "apply", "-f", file)
	more := s.write("more.yaml", "services:\n- {id: branch, primary: {host: 127.0.0.1, port: 9}, entity: \"{sip}\", users: [everyone]}\n- {id: aes-hq, primary: {host: 127.0.0.1}, entity: \"{sip}\"}\n")
	service(exitFailed, `"aes-hq" is the name of a source`, "apply", "-f", more, "--yes")
	wrong := s.write("wrong.yaml", "services:\n- id: x\n  primary: {host: a..b}\n  entity: x\n")
	service(exitInvalid, wrong+":3: services[0].primary.host: ", "apply", "-f", wrong)

	stop() // withdraws
	notified(t, birch, pidf.Closed)
	_, stop = s.serve()
	s.listening()
	notified(t, birch, pidf.Open)
	var all []api.Service
	if err := json.Unmarshal([]byte(service(exitOK, "", "list", "--format", "json")), &all); err != nil || len(all) != 2 || all[0].ID != "hq" || all[1].Origin != "configuration" {
		t.Errorf("%+v %v", all, err)
	}
	service(exitFailed, "1 of 1 people would be removed", "delete", "hq", "--yes")
	service(exitOK, "hq is deleted", "delete", "hq", "--force")
	notified(t, birch, pidf.Closed)
	eventually(t, "the bridge is forgotten", func() bool { return !strings.Contains(string(s.get("/api/health")), `"hq"`) })
	service(exitOK, "branch is kept", "add", s.write("branch.yaml", strings.Split(string(mustRead(t, more)), "- {id: aes-hq")[0]), "--yes")
	if out := service(exitOK, "hq: add", "apply", "-f", file, "--dry-run"); strings.Contains(out, "branch") {
		t.Errorf("without --prune what is not in the file stays\n%s", out)
	}
	service(exitOK, "hq is kept", "apply", "-f", file, "--prune", "--force") // nobody was published at branch: they have no sip subject
	notified(t, birch, pidf.Open)
	if out := service(exitOK, "hq ", "list"); strings.Contains(out, "branch") {
		t.Errorf("branch was to be pruned\n%s", out)
	}
	drained(t, alder)
	service(exitOK, "0 added, 0 removed, 0 changed\n  nobody in the directory is: group:desk\nhq is kept", "edit", "hq", "--set", "users=birch,group:desk", "--yes")
	s.write("people.yaml", strings.Replace(string(people), "{id: alder,", "{id: alder, groups: [desk],", 1))
	notified(t, alder, pidf.Open) // who enters a group is published with the next reading
	stop()
}

// brokenForms is a bucket of services that cannot be read.
type brokenForms struct{ services.Memory }

// Load implements services.Memory.
func (brokenForms) Load(context.Context) (map[string][]byte, error) {
	return nil, errors.New("disk full")
}

// TestServicesWithoutStore lists those of the configuration, and refuses changes.
func TestServicesWithoutStore(t *testing.T) {
	hub := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet())
	lab := sip.DefaultConfig()
	lab.Name, lab.Address, lab.Entity = "lab", "127.0.0.1:9", "{sip}"
	a := &administration{people: hub.People, log: quiet(), catalog: services.NewCatalog(services.Terms{
		Memory: brokenForms{}, People: hub.People, Fixed: []services.Service{fixedService(&lab)}, Log: quiet(),
	})}
	if err := a.catalog.Load(t.Context()); err == nil {
		t.Fatal("it can be read")
	}
	socket := filepath.Join(t.TempDir(), "control.sock")
	c := newControl(socket, api.New(api.Deps{People: hub, Sight: everything{}, Services: a, Log: quiet()}), quiet())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, hub) }()
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	eventually(t, "the socket is there", func() bool { return c.Status().Phase == presence.PhaseLive })
	for _, c := range []struct{ about, out, errs string }{
		{"list", "lab", "could not be read yet"},
		{"show lab", "127.0.0.1", ""},
		{"show hq", "", "could not be read yet"},
		{"export", "", "could not be read yet"},
		{"add --set id=hq --set primary.host=a --set entity={sip} --yes", "", "could not be read yet"},
		{"sync lab", "", "not running yet"},
	} {
		code, out, errs := command(t, append(append([]string{"service"}, strings.Fields(c.about)...), "--socket", socket)...)
		if (code == 0) != (c.errs == "") || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) {
			t.Errorf("%s: exit %d\n%s%s", c.about, code, out, errs)
		}
	}
	for _, c := range []struct {
		method, path, body string
		code               int
	}{
		{"POST", "/api/services/orders", "{}{}", 400},
		{"POST", "/api/services/orders", `{"edits":[{"id":"hq","revission":1}]}`, 422},
		{"POST", "/api/services/orders", `{"edits":[{"id":"hq","form":{"id":["x"]}}]}`, 422},
		{"POST", "/api/services/orders", `{"edits":[{"id":"` + strings.Repeat("x", 8<<20) + `"}]}`, 413},
		{"DELETE", "/services/lab", "", 404},
		{"POST", "/api/services/hq/test", "", 503},
	} {
		if code, body, err := ask(socket, c.method, c.path, c.body); err != nil || code != c.code {
			t.Errorf("%s %s %.40s: %d %s %v, want %d", c.method, c.path, c.body, code, body, err, c.code)
		}
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(fmt.Errorf("read: %w", err))
	}
	return data
}

// networkFact finds a report with facts that a presence server gave, in an explanation.
var networkFact = regexp.MustCompile(`"source": ?"[a-z]+/network",[^}]*\},[^}]*"spans": ?[1-9]`)

// TestNetworkPresence asks a real server about people while it publishes them there:
// what a phone says comes in and is not given back, what is set by hand goes out, and
// what a server echoes never stays, though another server gets what this one said.
func TestNetworkPresence(t *testing.T) {
	server, other := peers.Kamailio(t, peers.WithDatabase()), peers.Kamailio(t, peers.WithDatabase())
	s := newSite(t, "")
	_, stop := s.serve()
	s.await("alder", "available/")
	s.listening()
	do := func(args ...string) string {
		t.Helper()
		code, out, errs := command(t, append(args, "--socket", s.socket())...)
		if code != exitOK {
			t.Fatalf("%v: exit %d\n%s%s", args, code, out, errs)
		}
		return out
	}
	watcher, phone := peers.SIPWatcher(t, server, "sip:4750@example.test"), peers.SIPPhone(t, server, "sip:4750@example.test")
	elsewhere := peers.SIPWatcher(t, other, "sip:4750@example.test")
	for id, at := range map[string]*peers.Server{"hq": server, "branch": other} {
		do("service", "add", "--yes", "--set", "id="+id, "--set", "primary.host=127.0.0.1", "--set", "primary.port="+at.Address[strings.LastIndexByte(at.Address, ':')+1:],
			"--set", "entity=sip:{tel}@example.test", "--set", "users=alder", "--set", "subscribe=single")
	}
	toldBy := func(watcher *peers.Watcher, want pidf.Basic, activities ...string) { // what we say of alder there, whatever the phone does
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for {
			body, err := watcher.Next(ctx)
			if err != nil {
				t.Fatalf("waiting for %s %v: %v", want, activities, err)
			}
			text := string(body)
			at := strings.Index(text, `<tuple id="presenced-overall">`)
			if at < 0 || !strings.Contains(text[at:at+100], string("<basic>"+want+"</basic>")) {
				continue
			}
			_, person, _ := strings.Cut(text, `<dm:person id="presenced-person">`)
			person, _, _ = strings.Cut(person, "</dm:person>")
			all := true
			for _, a := range activities {
				all = all && strings.Contains(person, "<rpid:"+a+"/>")
			}
			if all && (len(activities) > 0 || !strings.Contains(person, "<rpid:activities")) {
				return
			}
		}
	}
	ours := func(want pidf.Basic, activities ...string) { t.Helper(); toldBy(watcher, want, activities...) }
	ours(pidf.Open)

	do("set", "alder", "dnd") // own network presence
	ours(pidf.Open, "busy")
	s.await("alder", "dnd/")
	do("clear", "alder") // what the server echoes does not keep it
	ours(pidf.Open)
	s.await("alder", "available/")

	if why := string(s.get("/api/people/alder/explain")); networkFact.MatchString(why) {
		t.Errorf("what we published has come back:\n%s", why)
	}

	phone.Publish(600, "open", "busy") // the network's other publishers
	s.await("alder", "busy/")
	toldBy(elsewhere, pidf.Open, "busy")
	if why := string(s.get("/api/people/alder/explain")); !networkFact.MatchString(why) {
		t.Errorf("explain:\n%s", why)
	}
	do("set", "alder", "away") // published; what the phone says is not
	ours(pidf.Open, "away")
	do("clear", "alder")
	ours(pidf.Open)
	s.await("alder", "busy/")
	phone.Publish(600, "open")
	s.await("alder", "available/")
	toldBy(elsewhere, pidf.Open)
	phone.Publish(600, "open", "busy")
	s.await("alder", "busy/")

	var health struct{ Parts []aggregator.Health }
	if err := json.Unmarshal(s.get("/api/health"), &health); err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(health.Parts, func(h aggregator.Health) bool { return h.Name == "hq/network" }); i < 0 || health.Parts[i].Kind != aggregator.KindSource || health.Parts[i].Done != 1 {
		t.Errorf("%+v", health)
	}
	do("service", "edit", "hq", "--set", "subscribe=off", "--yes") // and with the source goes what it said
	s.await("alder", "available/")
	eventually(t, "the source is forgotten", func() bool { return !strings.Contains(string(s.get("/api/health")), `"hq/network"`) })
	stop()
}
