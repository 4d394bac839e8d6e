package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"presenced/fixtures/peers"
	"presenced/fixtures/sipload"
)

// A marathon is a service with a Local Presence Service, which publishes to a
// Kamailio, and people whose phones publish here. Each has a watcher here, and some
// have one at Kamailio.
type marathon struct {
	t        *testing.T
	site     *site
	address  string // of the Local Presence Service
	kamailio *peers.Server
	people   int
	process  *exec.Cmd

	here  *sipload.Load // publishes, and watches here
	there *sipload.Load // watches at Kamailio
}

// distant is how many of the people are watched at Kamailio.
const distant = 100

func newMarathon(t *testing.T, people int) *marathon {
	t.Helper()
	m := &marathon{t: t, people: people, address: freeUDP(t), kamailio: peers.Kamailio(t, peers.WithMemory(512))}
	dir := t.TempDir()
	m.site = &site{t: t, dir: dir}
	var list strings.Builder
	list.WriteString("people:\n")
	for i := range people {
		fmt.Fprintf(&list, "- {id: %[1]s, name: %[1]s, sip: [%[1]s@%[2]s]}\n", sipload.User(i), sipload.Domain)
	}
	m.site.write("people.yaml", list.String())
	// Nothing is held back, so that what was said last is what is to be seen soon.
	m.site.file = m.site.write("presenced.yaml", fmt.Sprintf(`log: {level: warn}
directory: {files: [%[1]s/people.yaml]}
policy: {min_dwell: 0s, flap_limit: 0}
store: {directory: %[1]s/store}
web: {listen: "%[2]s"}
control: {socket: %[1]s/control.sock}
lps:
- name: lps
  domains: [%[3]s]
  trusted: [127.0.0.1]
  max_publish: 2h
  notify_min_interval: 250ms
  transport: {listen: ["udp:%[4]s"], rate: 0}
sip:
- {name: kamailio, address: "%[5]s", entity: "sip:{sip}", expires: 1h, rate: 2000, outstanding: 200}
`, dir, freeAddress("127.0.0.1:0"), sipload.Domain, m.address, m.kamailio.Address))
	return m
}

// start starts the service, and waits until it takes orders.
func (m *marathon) start() {
	m.t.Helper()
	m.process = m.site.process()
	m.within(time.Minute, "the service listens", func() []string {
		conn, err := net.Dial("unix", m.site.socket())
		if err != nil {
			return []string{err.Error()}
		}
		_ = conn.Close()
		return nil
	})
}

// open makes a load.
func (m *marathon) open(address string) *sipload.Load {
	m.t.Helper()
	l, err := sipload.Open(address, m.people, 64)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(l.Close)
	return l
}

// say changes what somebody's phone says until the service has taken it.
func (m *marathon) say(who []int) {
	m.t.Helper()
	want := map[int]int{}
	for _, i := range who {
		want[i] = m.here.Said(i) + 1
	}
	m.within(time.Minute, "every phone is heard", func() []string {
		who = slices.DeleteFunc(who, func(i int) bool { return m.here.Said(i) == want[i] })
		if len(who) == 0 {
			return nil
		}
		r := m.here.Say(who, func(i int) int { return want[i] })
		return []string{fmt.Sprintf("%d phones: %v", len(who), r.Codes)}
	})
}

// some gives a part of the people, in no order.
func (m *marathon) some(part float64) []int {
	return rand.Perm(m.people)[:int(part*float64(m.people))]
}

// agree waits until every watcher has seen what its phone said last.
func (m *marathon) agree(when string, patience time.Duration) {
	m.t.Helper()
	m.within(patience, when+", every watcher sees what was said last", func() []string {
		return append(m.blind("here", m.here, m.people), m.blind("at Kamailio", m.there, distant)...)
	})
}

// blind names the watchers among the first n that have not seen what was said last.
func (m *marathon) blind(where string, watching *sipload.Load, n int) []string {
	var all []string
	for w := range n {
		want := m.here.Said(w) % sipload.Rounds
		if got, ok := watching.Saw(w); !ok || got != want {
			all = append(all, fmt.Sprintf("watcher %d %s saw document %d (any: %v), want %d", w, where, got, ok, want))
		}
	}
	return all
}

// within waits until nothing is missing, and names some of what is.
func (m *marathon) within(patience time.Duration, what string, missing func() []string) {
	m.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		rest := missing()
		if len(rest) == 0 {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("not within %v: %s; %d things are missing:\n%s", patience, what, len(rest), strings.Join(rest[:min(len(rest), 5)], "\n"))
		}
		<-tick.C
	}
}

// watchThere has the first people be watched at Kamailio.
func (m *marathon) watchThere() {
	m.t.Helper()
	m.there = m.open(m.kamailio.Address)
	r := m.there.Subscribe(distant, func(w int) int { return w })
	if err := r.Failed(); err != nil {
		m.t.Fatal("at Kamailio: ", err)
	}
}

// TestLocalPresenceServiceSoak changes the presence of many for a while, kills the
// service in between and has it come back, and later Kamailio, which forgets all. No
// watcher is left with something old. PRESENCED_LONG=1 has it be 10,000 people, for
// ten minutes.
func TestLocalPresenceServiceSoak(t *testing.T) {
	people, length, patience := 200, 8*time.Second, 30*time.Second
	if os.Getenv("PRESENCED_LONG") != "" {
		people, length, patience = 10_000, 9*time.Minute, 2*time.Minute
	}
	m := newMarathon(t, people)
	m.start()
	defer func() {
		_ = m.process.Process.Signal(syscall.SIGTERM)
		if err := m.process.Wait(); err != nil {
			t.Errorf("the service did not stop orderly: %v", err)
		}
	}()
	m.here = m.open(m.address)
	everybody := m.some(1)
	m.say(everybody)
	if r := m.here.Subscribe(people, func(w int) int { return w }); r.Failed() != nil {
		t.Fatal("here: ", r.Failed())
	}
	m.watchThere()
	m.agree("after the start", patience)

	began := time.Now()
	rounds := 0
	until := func(part int) { // of three
		for time.Since(began) < length*time.Duration(part)/3 {
			m.say(m.some(rand.Float64() / 2)) //nolint:gosec // no secret
			rounds++
		}
	}
	until(1)
	m.agree("before the kill", patience)
	m.settle()
	m.kill()
	until(2)
	m.agree("after the kill", patience)

	m.kamailio.Stop()
	m.say(m.some(0.5))
	m.kamailio.Restart()
	m.watchThere()
	until(3)
	m.agree("after the outage of Kamailio", patience)
	n, _ := m.here.Notified()
	t.Logf("%d people, %d rounds, %d NOTIFYs here, %v", people, rounds, n, time.Since(began).Round(time.Second))
}

// kill kills the service while phones talk to it, and starts it again.
func (m *marathon) kill() {
	m.t.Helper()
	who, said := m.some(0.5), make(chan struct{})
	go func() {
		defer close(said)
		m.here.Say(who, func(i int) int { return m.here.Said(i) + 1 })
	}()
	if err := m.process.Process.Kill(); err != nil {
		m.t.Fatal(err)
	}
	_ = m.process.Wait()
	m.start()
	<-said
}

// settle waits until the store has what it has to have: a subscription that is not
// written yet is lost by a kill, and Kamailio keeps a publication whose tag is lost
// until it expires, beside the one that takes its place.
func (m *marathon) settle() {
	m.t.Helper()
	var was string
	var since time.Time
	m.within(5*time.Minute, "the store comes to rest", func() []string {
		is := fmt.Sprint(m.bytes("subscriptions"), m.bytes("publications"))
		if is != was {
			was, since = is, time.Now()
		}
		if time.Since(since) < 2*time.Second { // longer than what is to be kept is gathered
			return []string{"it is being written to: " + is}
		}
		return nil
	})
}

// bytes gives how much a bucket of the store has been written.
func (m *marathon) bytes(bucket string) (n int64) {
	files, _ := filepath.Glob(filepath.Join(m.site.dir, "store", "jetstream", "*", "streams", "KV_"+bucket, "msgs", "*.blk"))
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return n
}
