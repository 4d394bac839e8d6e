package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"presenced/aes"
	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/fixtures/sim/simaes"
	"presenced/internal/secret"
)

// TestBusyHour lets people telephone at random for a virtual hour, in which the
// server, its link and the network fail in every way that the simulator has, and
// compares what is said of each of them with what the switch knows: after each
// fault is healed, and in the end. PRESENCED_LONG has it do so with 10,000 extensions.
func TestBusyHour(t *testing.T) {
	extensions, length := 500, 30*time.Minute
	if os.Getenv("PRESENCED_LONG") != "" {
		extensions, length = 10_000, time.Hour
	}
	h := newHour(t, numbered(extensions))
	faults := hourFaults()
	for n := 0; h.w.now.Before(h.begin.Add(length)); n++ {
		h.pass(30*time.Second, true)
		f := faults[n%len(faults)]
		h.do(f.does...)
		h.pass(f.lasts, true)
		h.do(f.heals...)
		// What was missed is read again at the configured pace, and what was refused after
		// five minutes.
		h.pass(h.recovery(f.wait), true)
		h.compare(f.name)
	}
	h.pass(6*time.Minute, false)
	h.compare("the end")
	for _, ext := range h.extensions {
		h.decided(ext)
	}
	t.Logf("%d extensions, %s: %d calls, %d comparisons of everybody, %d times somebody in a call; problems %v",
		extensions, length, h.traffic.Calls, h.compared, h.talking, h.w.phone.link.Status().Problems)
}

// TestSimBusyHour runs the same traffic live, much faster than the clock.
func TestSimBusyHour(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	errs, errsEnd := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"sim", "aes", "--extensions", "50", "--speed", "1000", "--listen", "127.0.0.1:0"}, &Terminal{io.Discard, errsEnd})
		_ = errsEnd.Close()
	}()
	line, _ := bufio.NewReader(errs).ReadString('\n')
	_, address, _ := strings.Cut(line, "simulated aes at ")
	address, rest, _ := strings.Cut(address, ", account svc; extensions 20000 to 20049, 6 calls of each in an hour")
	if rest == "" {
		t.Fatalf("said %q", line)
	}
	cfg := aes.DefaultConfig()
	cfg.Name, cfg.Address, cfg.Plain, cfg.User, cfg.Switch, cfg.PasswordFile = "sim", address, true, "svc", simulatedSwitch, secret.File(write(t, "password", "secret"))
	q, err := aes.Inquire(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if wrong := q.Examine(ctx, numbered(50)); wrong != nil {
		t.Error(wrong)
	}
	if h, err := q.Next(ctx); err != nil || h.Extension == "" {
		t.Errorf("%+v, %v", h, err)
	}
	q.Close()
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, wrong := range [][]string{{"exchange", "--extensions", "5"}, {"aes", "--extensions", "1"}, {"aes", "--extensions", "100000"}, {"aes", "--extensions", "5", "--busy-hour", "0"}} {
		if code, _, _ := command(t, append([]string{"sim"}, wrong...)...); code == 0 {
			t.Errorf("%v is fine", wrong)
		}
	}
}

// A fault is what goes wrong and how it is healed.
type fault struct {
	name  string
	does  []string
	lasts time.Duration
	heals []string
	wait  time.Duration // until everything is known again, besides the reading of all extensions
}

func hourFaults() []fault {
	return []fault{
		{name: "the connection is dropped", does: []string{"drop"}, lasts: 20 * time.Second, heals: []string{"accept"}},
		{name: "events come twice", does: []string{"dialect twice on"}, lasts: time.Minute, heals: []string{"dialect twice off"}},
		{name: "the connection is half open", does: []string{"halfopen"}, lasts: 2 * time.Minute},
		{name: "the link to the switch is down", does: []string{"link down"}, lasts: 40 * time.Second, heals: []string{"link up"}},
		{name: "events are lost", does: []string{"silent 20000 on", "silent 20001 on", "silent 20002 on"}, lasts: 3 * time.Minute, heals: []string{"silent 20000 off", "silent 20001 off", "silent 20002 off", "lost"}},
		{name: "answers are slow", does: []string{"delay 2000", "lost"}, lasts: time.Minute, heals: []string{"delay 0"}, wait: 10 * time.Second},
		{name: "the session is lost", does: []string{"terminate"}},
		{name: "the server forgets the session", does: []string{"forget"}, lasts: 2 * time.Minute},
		{name: "malformed messages", does: []string{
			"raw 20003 <DeliveredEvent><monitorCrossRefID>{{xref}}</monitorCrossRefID><connection>", "raw 20004 <DeliveredEvent", "raw 20005 " + strings.Repeat("<a>", 500),
		}, lasts: time.Second},
		{name: "a malformed frame", does: []string{"frame 0000000731323334"}},
		{name: "licences run out", does: []string{"limit 100", "drop", "forget", "accept"}, lasts: 30 * time.Second, heals: []string{"limit off"}, wait: 5 * time.Minute},
		{name: "nothing is answered", does: []string{"mute on"}, lasts: 2 * time.Minute, heals: []string{"mute off"}},
		{name: "the server stops a monitor", does: []string{"stop 20006", "stop 20007"}, wait: 5 * time.Second},
	}
}

// An hour is a world with a switch and traffic only.
type hour struct {
	t          *testing.T
	w          *world
	traffic    *simaes.Traffic
	extensions []string
	begin      time.Time
	compared   int
	talking    int
}

// hourRate is how many requests are sent in a second.
const hourRate = 1000

func newHour(t *testing.T, extensions []string) *hour {
	var list []presence.Person
	for _, ext := range extensions {
		list = append(list, presence.Person{ID: presence.ID(ext), Name: ext, Subjects: []presence.Subject{{Scheme: "tel", Value: ext}}})
	}
	people, problems := directory.New(list)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	h := &hour{t: t, extensions: extensions, begin: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}
	h.w = &world{
		now: h.begin, people: people, core: aggregator.NewCore(presence.DefaultPolicy()),
		shown: map[presence.ID]string{}, changed: map[presence.ID]bool{}, log: quiet(),
	}
	for _, p := range list {
		h.w.core.Enter(p.ID, h.w.now)
	}
	cfg := aes.DefaultConfig()
	cfg.Name, cfg.Switch, cfg.Rate = phoneSource, simulatedSwitch, hourRate
	sw := simaes.New(simaes.Config{Switch: simulatedSwitch, Stations: extensions})
	h.w.phone = &phoneWorld{sw: sw, link: aes.NewLink(cfg, phoneSource), retry: h.w.now}
	h.w.phone.link.Cover(people.Subjects("tel"), h.w.now)
	var err error
	if h.traffic, err = simaes.NewTraffic(sw, simaes.Load{Extensions: extensions, BusyHour: 6, Seed: 1}, h.begin); err != nil {
		t.Fatal(err)
	}
	return h
}

// pass lets d pass, with calls or without.
func (h *hour) pass(d time.Duration, calls bool) {
	for end := h.w.now.Add(d); ; {
		if calls {
			h.traffic.Step(h.w.now, h.w.now)
		}
		if err := h.w.moment(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
		next := h.w.next()
		if calls && (next.IsZero() || h.traffic.Next().Before(next)) {
			next = h.traffic.Next()
		}
		if next.IsZero() || next.After(end) {
			h.w.now = end
			return
		}
		if !next.After(h.w.now) {
			h.t.Fatalf("time stands still at %s", h.w.now)
		}
		h.w.now = next
	}
}

func (h *hour) do(commands ...string) {
	for _, c := range commands {
		if err := h.w.phone.sw.Do(h.w.now, strings.Fields(c)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// recovery is how long it takes until everything is known again.
func (h *hour) recovery(more time.Duration) time.Duration {
	sweep := time.Duration(5*len(h.extensions)) * time.Second / hourRate // five requests for each
	return 30*time.Second + sweep + more
}

// compare compares what is said of everybody with the truth.
func (h *hour) compare(after string) {
	h.t.Helper()
	h.compared++
	wrong := 0
	for _, ext := range h.extensions {
		facts, known, doubted := said(h.w, ext)
		want := h.truth(ext)
		if known && !doubted && slices.Contains(want, facts) {
			continue
		}
		if wrong++; wrong <= 5 {
			var choices []string
			for _, w := range want {
				choices = append(choices, text(w))
			}
			h.t.Errorf("after %s, at %s, %s: said %s, known %v, doubted %v; want %s; calls %v",
				after, h.w.now.Format("15:04:05"), ext, text(facts), known, doubted, strings.Join(choices, " or "), h.w.phone.sw.Legs(ext))
		}
	}
	if wrong > 0 {
		h.t.Fatalf("after %s: %d of %d are wrong; %+v", after, wrong, len(h.extensions), h.w.phone.link.Status())
	}
}

// truth gives the sets of facts that are true of an extension; more than one where
// events and snapshots tell of a call differently (see callFacts).
func (h *hour) truth(ext string) []presence.FactSet {
	_, dnd, _, _ := h.w.phone.sw.Facts(ext)
	legs := h.w.phone.sw.Legs(ext)
	allowed := []presence.FactSet{0}
	if len(legs) == 0 {
		allowed[0] = presence.Facts(presence.PhoneIdle)
	} else {
		h.talking++
	}
	for _, states := range legs {
		allowed = either(allowed, callFacts(states, past{crowd: true, talked: true})...)
	}
	if dnd {
		allowed = either(allowed, presence.Facts(presence.PhoneDND))
	}
	return allowed
}

// decided compares the presence that watchers see with what the policy makes of the truth.
func (h *hour) decided(ext string) {
	s, _ := h.w.core.State(presence.ID(ext))
	var would []string
	for _, facts := range h.truth(ext) {
		r := presence.Report{Source: phoneSource, Subject: presence.Subject{Scheme: "tel", Value: ext}, At: h.begin}
		for f := range facts.All() {
			r.Spans = append(r.Spans, presence.Span{Fact: f, From: h.begin, Contact: "tel:" + ext})
		}
		d, _ := presence.DefaultPolicy().Decide(s.Person, []presence.Report{r}, h.w.now)
		if s.Availability == d.Availability && s.Activity == d.Activity {
			return
		}
		would = append(would, fmt.Sprint(d.Availability, " ", d.Activity))
	}
	h.t.Errorf("%s: shown %s %s, want %s", ext, s.Availability, s.Activity, strings.Join(would, " or "))
}
