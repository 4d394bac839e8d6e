package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/fixtures/peers"
)

// A node is one of the machines that share a store: a process of its own.
type node struct {
	*site
	lps     string // address of the Local Presence Service
	process *exec.Cmd
}

// newNode starts a process with the configuration of s, but a page, a socket, a name and
// an address for SIP of its own, on the NATS server at an address.
func newNode(t *testing.T, s *site, name, address string) *node {
	t.Helper()
	n := &node{site: &site{t: t, office: s.office, dir: s.dir, url: "http://" + freeAddress("127.0.0.1:0")}, lps: freeUDP(t)}
	config, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(config)
	for from, to := range map[string]string{
		fmt.Sprintf("store: {directory: %s/store}", s.dir): fmt.Sprintf("store: {url: 'nats://%s', node: %s, lease: 3s}", address, name),
		strings.TrimPrefix(s.url, "http://"):               strings.TrimPrefix(n.url, "http://"),
		"control.sock":                                     name + ".sock",
	} {
		if strings.Count(text, from) != 1 {
			t.Fatalf("the configuration is not as this test knows it: %s", from)
		}
		text = strings.Replace(text, from, to, 1)
	}
	text = strings.Replace(text, "udp:HERE", "udp:"+n.lps, 1)
	n.file = s.write(name+".yaml", text)
	n.process = exec.Command(os.Args[0], "serve", "-c", n.file) //nolint:gosec // this very test
	n.process.Env = append(os.Environ(), "PRESENCED_TEST_MAIN=1")
	var log bytes.Buffer
	n.process.Stderr = &log
	if err := n.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("%s:\n%s", name, log.String())
		}
	})
	return n
}

// end stops the process with a signal.
func (n *node) end(signal syscall.Signal) {
	if n.process.ProcessState == nil {
		_ = n.process.Process.Signal(signal)
		_ = n.process.Wait()
	}
}

func (n *node) phase(part, want string) {
	n.t.Helper()
	got := ""
	eventually(n.t, fmt.Sprintf("%s is %s on %s", part, want, filepath.Base(n.file)), func() bool {
		got, _ = n.health(part)
		return got == want
	})
}

// by runs the command line against the socket of this machine.
func (n *node) by(args ...string) {
	n.t.Helper()
	socket := filepath.Join(n.dir, strings.TrimSuffix(filepath.Base(n.file), ".yaml")+".sock")
	if code, out, errs := command(n.t, append(args, "--socket", socket)...); code != 0 {
		n.t.Fatalf("%v: exit %d\n%s%s", args, code, out, errs)
	}
}

// TestTwoMachines has two processes share one store: each source and each bridge runs
// on one of them, both know the same, and when one is killed the other goes on.
func TestTwoMachines(t *testing.T) {
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
	address := freeAddress("127.0.0.1:0")
	serveNATS(t, address)
	parts := []string{"aes-hq", "exchange-hq/calendar", "domino-hq/calendar", "sip-hq", "xmpp-hq"}

	one := newNode(t, s, "one", address)
	for _, part := range parts {
		one.phase(part, "live")
	}
	two := newNode(t, s, "two", address)
	for _, part := range parts {
		two.phase(part, "standby")
	}
	one.await("alder", "available/")
	two.await("alder", "available/")
	eventually(t, "nothing that a source on another machine says is doubted", func() bool {
		_, state := two.state("alder")
		return !state.Overlays.Has(presence.OverlayStale)
	})

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	watcher := peers.SIPWatcher(t, kamailio, "sip:4750@example.test")
	notified := func(onThePhone bool) {
		t.Helper()
		for {
			body, err := watcher.Next(ctx)
			if err != nil {
				t.Fatalf("no NOTIFY that says whether alder is on the phone (%v): %v", onThePhone, err)
			}
			if n := bytes.Count(body, []byte(`id="presenced-overall"`)); n > 1 { // what two machines publish would stand side by side
				t.Errorf("%d publications in one NOTIFY:\n%s", n, body)
			}
			if bytes.Contains(body, []byte("rpid:on-the-phone")) == onThePhone {
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
	one.await("alder", "busy/on-the-phone")
	two.await("alder", "busy/on-the-phone")
	notified(true)
	seen("dnd", "On the phone")

	one.by("set", "birch", "dnd")
	two.await("birch", "dnd/")
	two.by("clear", "birch")
	one.await("birch", "available/")
	two.by("set", "birch", "away")
	one.await("birch", "away/")
	two.by("access", "deny", "birch", "jid:eve@example.org")
	eventually(t, "the rule counts on the other machine", func() bool {
		socket := filepath.Join(s.dir, "one.sock")
		_, out, _ := command(t, "access", "test", "jid:eve@example.org", "birch", "--socket", socket)
		return strings.Contains(out, "block")
	})

	one.end(syscall.SIGKILL)
	began := time.Now()
	for _, part := range parts {
		two.phase(part, "live")
	}
	t.Logf("the other machine runs everything %s after kill -9", time.Since(began).Round(time.Millisecond))
	eventually(t, "the call is known and not doubted", func() bool {
		got, state := two.state("alder")
		return got == "busy/on-the-phone" && !state.Overlays.Has(presence.OverlayStale)
	})
	s.do("aes", "hangup", "247", "4750")
	two.await("alder", "available/")
	notified(false)
	seen("", "")
	two.await("birch", "away/")

	// It comes back, and takes nothing from the one that runs everything, until that stops.
	one = newNode(t, s, "one", address)
	for _, part := range parts {
		one.phase(part, "standby")
	}
	one.await("birch", "away/")
	two.end(syscall.SIGTERM)
	for _, part := range parts {
		one.phase(part, "live")
	}
	one.await("alder", "available/")
}

// TestEndpointsOfTwoMachines has SIP endpoints at either of two machines, and a presence
// service that one of them serves: that publishes there, and asks what others publish.
func TestEndpointsOfTwoMachines(t *testing.T) {
	server := peers.Kamailio(t, peers.WithDatabase())
	s := newSite(t, "lps:\n- {domains: [example.com], trusted: [127.0.0.1], min_publish: 1s, transport: {listen: [\"udp:HERE\"]}}\n")
	address := freeAddress("127.0.0.1:0")
	serveNATS(t, address)
	one := newNode(t, s, "one", address)
	one.phase("lps", "live")
	one.by("service", "add", "--yes", "--set", "id=hq", "--set", "primary.host=127.0.0.1", "--set", "primary.port="+server.Address[strings.LastIndexByte(server.Address, ':')+1:],
		"--set", "entity=sip:{tel}@example.test", "--set", "users=birch", "--set", "subscribe=single")
	both := func(n *node, phase string) {
		t.Helper()
		n.phase("hq", phase)
		n.phase("hq/network", phase)
	}
	both(one, "live")
	watch := func(n *node) *lamp {
		conn, err := net.Dial("udp", n.lps)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		l := &lamp{t: t, conn: conn}
		l.subscribe()
		l.awaits("<basic>open")
		return l
	}
	first := watch(one)
	two := newNode(t, s, "two", address)
	both(two, "standby")
	two.phase("lps", "live")
	second := watch(two)
	s.do("aes", "call", "247", "4711", "4750")
	s.do("aes", "answer", "247", "4750")
	first.awaits("rpid:on-the-phone")
	second.awaits("rpid:on-the-phone")

	// Who publishes at either of them counts at both, and is not mistaken for another one.
	at := func(address, presentity string) *peers.Phone {
		return peers.SIPPhone(t, &peers.Server{Address: address}, presentity)
	}
	const ivy = "sip:mona.ivy@example.com"
	at(one.lps, ivy).Publish(5, "open", "busy")
	one.await("ivy", "busy/")
	two.await("ivy", "busy/")
	desk := at(two.lps, ivy)
	desk.Publish(600, "open")
	at(one.lps, ivy).Publish(5, "open", "busy")
	network := peers.SIPPhone(t, server, "sip:4751@example.test")
	network.Publish(600, "open", "busy")
	one.await("birch", "busy/")
	two.await("birch", "busy/")
	both(two, "standby")

	one.end(syscall.SIGKILL)
	both(two, "live")
	two.await("ivy", "available/") // what was said there ended after its grace
	eventually(t, "what was said here is not doubted", func() bool {
		_, state := two.state("ivy")
		return !state.Overlays.Has(presence.OverlayStale)
	})
	network.Publish(600, "open")
	two.await("birch", "available/")

	// A service is deleted on the machine that does not serve it.
	one = newNode(t, s, "one", address)
	both(one, "standby")
	one.await("birch", "available/")
	eventually(t, "it has its own subscriptions again", func() bool { return bytes.Contains(one.get("/api/health"), []byte("subscriptions: 1 presence")) })
	desk.Publish(600, "open", "busy")
	one.await("ivy", "busy/")
	one.by("service", "delete", "hq", "--yes", "--force")
	for _, n := range []*node{one, two} {
		eventually(t, "the service is gone", func() bool { return !bytes.Contains(n.get("/api/health"), []byte(`"hq`)) })
	}
}
