package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/fixtures"
	"presenced/fixtures/peers"
)

// site is the simulated systems of a small company and a configuration for them.
type site struct {
	t      *testing.T
	office *office
	dir    string
	url    string // of the page
	file   string // the configuration
	stop   map[string]func()
}

const siteScenario = `A site for tests; they act by themselves.
-- people.yaml --
people:
- {id: alder, name: Ruth Alder, tel: ["4750"], mail: [ruth.alder@example.com]}
- {id: birch, name: Omar Birch, tel: ["4751"], mail: [omar.birch@example.com]}
- {id: ivy, name: Mona Ivy, mail: [mona.ivy@example.com], notes: ["Mail1/Acme!!mail/mivy.nsf"]}
`

// newSite starts the systems, AES over TLS and Exchange with NTLM, and writes the
// configuration; more is added to it.
func newSite(t *testing.T, more string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), stop: map[string]func(){}}
	scenario, err := fixtures.Parse("site", []byte(siteScenario))
	if err != nil {
		t.Fatal(err)
	}
	if s.office, err = newOffice(scenario, fixtures.Pace{Begin: scenario.Begin(), Start: time.Now(), Speed: 1}, "svc", "open sesame"); err != nil {
		t.Fatal(err)
	}
	certificate := s.certificate()
	listen := func(name string, secure bool, serve func(context.Context, net.Listener) error) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		if secure {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = serve(ctx, l)
		}()
		s.stop[name] = func() { cancel(); <-done }
		t.Cleanup(s.stop[name])
		return address
	}
	phones := listen("aes", true, s.office.aes.Serve)
	mail := listen("exchange", false, s.office.exchange.Serve)
	notes := listen("domino", false, s.office.domino.Serve)

	s.write("people.yaml", string(scenario.People))
	s.write("password", "open sesame\n")
	page := freeAddress("127.0.0.1:0")
	s.url = "http://" + page
	s.file = s.write("presenced.yaml", fmt.Sprintf(`log: {format: json}
directory: {files: [%[1]s/people.yaml]}
store: {directory: %[1]s/store}
web: {listen: "%[2]s"}
control: {socket: %[1]s/control.sock}
aes:
- {name: aes-hq, address: "%[3]s", user: svc, password_file: %[1]s/password, switch: %[6]s, tls: {ca_file: %[1]s/ca.pem, server_name: aes.example.test}}
exchange:
- {name: exchange-hq, url: "http://%[4]s/EWS/Exchange.asmx", user: 'EXAMPLE\svc', password_file: %[1]s/password, mailbox: svc@example.com}
domino:
- {name: domino-hq, servers: [{name: Mail1/Acme, url: "http://%[5]s"}], user: svc, password_file: %[1]s/password, out_of_office: {driver: helper, url: "http://%[5]s/presence/ooo?mail={mail}"}}
%[7]s`, s.dir, page, phones, mail, notes, simulatedSwitch, more))
	return s
}

func (s *site) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// certificate makes a certificate for aes.example.test, and ca.pem to believe it.
func (s *site) certificate() tls.Certificate {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "aes.example.test"}, DNSNames: []string{"aes.example.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serve runs the service until the test, or stop, ends it.
func (s *site) serve() (log *screen, stop func()) {
	s.t.Helper()
	log = &screen{}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"serve", "-c", s.file}, log.terminal()) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if got := <-code; got != 0 {
			_, errs := log.read()
			s.t.Errorf("serve: exit %d\n%s", got, errs)
		}
	}
	s.t.Cleanup(stop)
	return log, stop
}

func (s *site) do(system string, words ...string) {
	s.t.Helper()
	act := map[string]func(time.Time, []string) error{"aes": s.office.aes.Do, "exchange": s.office.exchange.Do, "domino": s.office.domino.Do}[system]
	if err := act(time.Now(), words); err != nil {
		s.t.Fatal(err)
	}
}

// get asks the page; nil if it does not answer.
func (s *site) get(path string) []byte {
	res, err := http.Get(s.url + path)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return nil
	}
	return body
}

// state asks the page for somebody's state, as availability/activity.
func (s *site) state(id string) (string, presence.State) {
	var p struct{ State presence.State }
	if body := s.get("/api/people/" + id); body == nil || json.Unmarshal(body, &p) != nil {
		return "", presence.State{}
	}
	return p.State.Availability.String() + "/" + p.State.Activity.String(), p.State
}

func (s *site) await(id, want string) {
	s.t.Helper()
	got := ""
	defer func() {
		if s.t.Failed() {
			s.t.Logf("%s was %s last", id, got)
		}
	}()
	eventually(s.t, id+" is "+want, func() bool {
		got, _ = s.state(id)
		return got == want
	})
}

// TestEndToEnd takes the whole road: a call on a simulated switch, a meeting in a
// simulated Exchange and an absence in a simulated Domino arrive at a SIP watcher
// of a real Kamailio, at a client of a real Prosody, and on the page.
func TestEndToEnd(t *testing.T) {
	kamailio, prosody := peers.Kamailio(t), peers.Prosody(t)
	s := newSite(t, "")
	s.write("secret", prosody.Secret)
	config, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	s.write("presenced.yaml", string(config)+fmt.Sprintf(`
sip:
- {name: sip-hq, address: "%s", transport: tcp, entity: "sip:{tel}@example.test"}
xmpp:
- {name: xmpp-hq, address: "%s", host: %s, secret_file: %s/secret}
`, kamailio.Address, prosody.ComponentAddr, prosody.Component, s.dir))

	code, out, errs := command(t, "check", "-c", s.file, "--online")
	if code != 0 {
		t.Fatalf("check: exit %d\n%s%s", code, out, errs)
	}
	for _, want := range []string{"directory: 3 people", "source aes-hq: answered for 2", "source exchange-hq/calendar: answered for 3", "bridge sip-hq", "bridge xmpp-hq"} {
		if !strings.Contains(out, want) {
			t.Errorf("check does not say %q:\n%s", want, out)
		}
	}

	now := time.Now()
	s.do("exchange", "event", "omar.birch@example.com", "m1", now.Add(-time.Hour).UTC().Format(time.RFC3339), now.Add(time.Hour).UTC().Format(time.RFC3339), "busy", "meeting", "subject=Merger")
	s.do("domino", "ooo", "mona.ivy@example.com", "on")
	log, stop := s.serve()
	s.await("alder", "available/")
	s.await("birch", "busy/in-a-meeting")
	s.await("ivy", "out-of-office/out-of-office")

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	watcher := peers.SIPWatcher(t, kamailio, "sip:4750@example.test")
	notified := func(want string) {
		t.Helper()
		for {
			body, err := watcher.Next(ctx)
			if err != nil {
				t.Fatalf("no NOTIFY with %s: %v", want, err)
			}
			if bytes.Contains(body, []byte(want)) {
				return
			}
		}
	}
	client := prosody.Login(t, "bob")
	client.Subscribe("alder@" + prosody.Component)
	seen := func(show, status string) {
		t.Helper()
		for {
			if p := client.NextPresence(ctx); strings.HasPrefix(p.From, "alder@") && p.Type == "" && p.Show == show && p.Status == status {
				return
			}
		}
	}
	seen("", "")

	s.do("aes", "call", "247", "4711", "4750")
	s.do("aes", "answer", "247", "4750")
	s.await("alder", "busy/on-the-phone")
	notified("on-the-phone")
	seen("dnd", "On the phone")
	if code, out, _ := command(t, "explain", "alder", "--url", s.url); code != 0 || !strings.Contains(out, "because of rule on-the-phone") || !strings.Contains(out, "aes-hq") {
		t.Errorf("explain: exit %d\n%s", code, out)
	}
	s.do("aes", "hangup", "247", "4750")
	s.await("alder", "available/")
	seen("", "")
	notified("<basic>open</basic>")

	if body := string(s.get("/healthz")); !strings.Contains(body, `"ok"`) {
		t.Errorf("healthz: %s", body)
	}
	if body := string(s.get("/metrics")); !strings.Contains(body, `presenced_part_live{kind="source",part="aes-hq"} 1`) {
		t.Error("metrics do not show the source")
	}
	if code, out, _ := command(t, "status", "--url", s.url); code != 0 || !strings.Contains(out, "aes-hq") || strings.Contains(out, "degraded") {
		t.Errorf("status: exit %d\n%s", code, out)
	}
	stop()
	if p := client.NextPresence(ctx); p.Type != "unavailable" {
		t.Errorf("after the service stopped the client got %+v", p)
	}
	text, errsText := log.read()
	for _, secret := range []string{"Merger", "open sesame", prosody.Secret} {
		if strings.Contains(text+errsText, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// stored tells whether a text stands in the files of a stream of the store.
func (s *site) stored(stream, text string) bool {
	found := false
	_ = filepath.WalkDir(filepath.Join(s.dir, "store"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, stream) && strings.HasSuffix(path, ".blk") {
			data, _ := os.ReadFile(path) //nolint:gosec // the store of this test
			found = found || bytes.Contains(data, []byte(text))
		}
		return nil
	})
	return found
}

// TestKilled kills the service in a call and takes AES away: after a restart the
// state is back, doubted, before any source has answered; and it does not stay.
func TestKilled(t *testing.T) {
	s := newSite(t, "")
	s.do("aes", "call", "247", "4711", "4750")
	s.do("aes", "answer", "247", "4750")
	process := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "serve", "-c", s.file) //nolint:gosec // this very test
		cmd.Env = append(os.Environ(), "PRESENCED_TEST_MAIN=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	first := process()
	s.await("alder", "busy/on-the-phone")
	_, before := s.state("alder")
	// The recorder writes behind the event; a reader of the same store cannot
	// look while it is open, so give it the time of a write.
	eventually(t, "the store has the report and the state", func() bool {
		return s.stored("KV_reports", `"fact":"phone-connected"`) && s.stored("KV_states", `"activity":"on-the-phone"`)
	})
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	s.stop["aes"]()

	second := process()
	defer func() {
		_ = second.Process.Signal(syscall.SIGTERM)
		if err := second.Wait(); err != nil {
			t.Errorf("the service did not stop orderly: %v", err)
		}
	}()
	s.await("alder", "busy/on-the-phone")
	_, after := s.state("alder")
	if !after.Overlays.Has(presence.OverlayStale) || !after.Since.Equal(before.Since) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

// TestDirectoryIsFollowed adds and removes people while the service runs: their phones
// are monitored, and released, within seconds.
func TestDirectoryIsFollowed(t *testing.T) {
	s := newSite(t, "")
	s.write("presenced.yaml", strings.Replace(string(mustRead(t, s.file)), "people.yaml]}", "people.yaml], interval: 1s, keep: 0.5}", 1))
	all := string(mustRead(t, s.dir+"/people.yaml"))
	birch := "- {id: birch, name: Omar Birch, tel: [\"4751\"], mail: [omar.birch@example.com]}\n"
	s.write("people.yaml", strings.Replace(all, birch, "", 1))
	_, _ = s.serve()
	s.await("alder", "available/")
	s.listening()
	monitored := func(want string) {
		t.Helper()
		eventually(t, want, func() bool {
			_, out, _ := command(t, "status", "--socket", s.socket())
			return strings.Contains(out, want)
		})
	}
	monitored("1 of 1 monitored")
	if s.get("/api/people/birch") != nil {
		t.Error("birch is known before the directory says so")
	}
	s.write("people.yaml", all)
	s.await("birch", "available/")
	monitored("2 of 2 monitored")
	s.do("aes", "dnd", "4751", "on")
	s.await("birch", "dnd/")
	s.write("people.yaml", strings.Replace(all, birch, "", 1))
	monitored("1 of 1 monitored")
	if s.get("/api/people/birch") != nil {
		t.Error("birch is known though the directory says otherwise")
	}
}

// TestSync prints one complete account of each source.
func TestSync(t *testing.T) {
	s := newSite(t, "")
	now := time.Now()
	s.do("aes", "call", "247", "4711", "4750")
	s.do("aes", "answer", "247", "4750")
	s.do("exchange", "event", "omar.birch@example.com", "m1", now.UTC().Format(time.RFC3339), now.Add(time.Hour).UTC().Format(time.RFC3339), "busy", "meeting", "private")
	s.do("domino", "entry", "mail/mivy.nsf", "E1", now.UTC().Format(time.RFC3339), now.Add(time.Hour).UTC().Format(time.RFC3339), "meeting")
	for _, c := range []struct{ source, want string }{
		{"aes", "phone-connected"}, {"exchange", "calendar-meeting"}, {"domino", "calendar-meeting"}, {"directory", "Omar Birch"},
	} {
		code, out, errs := command(t, "sync", c.source, "-c", s.file)
		if code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("sync %s: exit %d\n%s%s", c.source, code, out, errs)
		}
		code, out, _ = command(t, "sync", c.source, "-c", s.file, "--person", "birch", "--format", "json")
		if code != 0 || !json.Valid([]byte(out)) || strings.Contains(out, "4750") {
			t.Errorf("sync %s for one person: exit %d\n%s", c.source, code, out)
		}
	}
	if code, _, errs := command(t, "sync", "aes", "-c", s.file, "--person", "nobody"); code != 1 || !strings.Contains(errs, "nobody in the directory") {
		t.Errorf("exit %d, %s", code, errs)
	}
	s.write("password", "wrong\n")
	for source, want := range map[string]string{"aes": "refused", "exchange": "not let in", "domino": "does not accept"} {
		if code, _, errs := command(t, "sync", source, "-c", s.file); code != 1 || !strings.Contains(errs, want) || strings.Contains(errs, "wrong\n") {
			t.Errorf("sync %s with a wrong password: exit %d, %s", source, code, errs)
		}
	}
}

// TestSim runs a simulated system as a command, and reads from it.
func TestSim(t *testing.T) {
	address := freeAddress("127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	var s screen
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"sim", "exchange", "--listen", address, "--speed", "100"}, s.terminal())
	}()
	peers.AwaitTCP(t, address)
	password, people := write(t, "password", "secret"), write(t, "people.yaml", "people: [{id: fir, name: Tom Fir, mail: [tom.fir@example.com]}]")
	file := write(t, "c.yaml", fmt.Sprintf("directory: {files: [%s]}\nexchange: [{name: x, url: 'http://%s/EWS/Exchange.asmx', user: svc, password_file: %s, mailbox: svc@example.com}]\n", people, address, password))
	if code, out, errs := command(t, "sync", "exchange", "-c", file); code != 0 || !strings.Contains(out, "auto-reply") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	cancel()
	if code := <-ended; code != 0 {
		_, errs := s.read()
		t.Errorf("exit %d: %s", code, errs)
	}
}
