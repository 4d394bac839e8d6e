package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/sip/lps"
	"presenced/fixtures/peers"
	"presenced/fixtures/sipload"
)

// The load: presentities, watchers of one of them, how often that one changes, and
// requests outstanding.
const (
	presentities = 10_000
	audience     = 100
	fanOuts      = 200
	outstanding  = 64
	rounds       = 2               // of refreshes and of modifications
	silence      = 2 * time.Second // after which a NOTIFY is taken for lost
	remembered   = 34 * time.Second
)

// serverOf is the variable that makes this test program a server of so many people.
const serverOf = "PRESENCED_BENCH_SERVER_OF"

func TestMain(m *testing.M) {
	if text := os.Getenv(serverOf); text != "" {
		n, err := strconv.Atoi(text)
		if err == nil {
			err = servePresence(n)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// servePresence runs a Local Presence Service for n people that keeps everything in
// memory, prints where it listens, and answers each line of its input with the bytes
// of its heap in use; it ends with its input.
func servePresence(n int) error {
	people := make([]presence.Person, n)
	for i := range people {
		user := sipload.User(i)
		people[i] = presence.Person{ID: presence.ID(user), Name: user, Subjects: []presence.Subject{{Scheme: "sip", Value: user + "@" + sipload.Domain}}}
	}
	d, _ := directory.New(people)
	setting := presence.DefaultSetting()
	setting.MinDwell, setting.FlapLimit = 0, 0 // Kamailio holds nothing back either
	hub := aggregator.NewHub(setting.Policy(), nil, slog.New(slog.DiscardHandler))
	hub.SetDirectory(d, time.Now())
	cfg := lps.DefaultConfig()
	cfg.Domains, cfg.Trusted = []string{sipload.Domain}, []string{"127.0.0.1"} // Kamailio asks nobody for a password either
	cfg.Transport.Listen, cfg.Transport.Rate = []string{"udp:127.0.0.1:0"}, 0
	cfg.NotifyInterval, cfg.Storm = 0, 0
	service := lps.New(cfg, hub, everyone{}, nil, nil, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return hub.Run(ctx) })
	g.Go(func() error {
		defer stop()
		return service.Run(ctx, hub)
	})
	flows, err := service.Ready(ctx)
	if err != nil {
		return err
	}
	fmt.Println(flows[0].Local)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println(m.HeapAlloc)
	}
	stop()
	_ = g.Wait() // the end was asked for
	return nil
}

// everyone is a gate that lets everybody see everything.
type everyone struct{}

func (everyone) Admit(presence.Watcher, presence.ID) presence.Access  { return presence.Everyone() }
func (everyone) Dismiss(presence.Watcher, presence.ID)                {}
func (everyone) Access(presence.Watcher, presence.ID) presence.Access { return presence.Everyone() }

// An own is our server as a process of its own.
type own struct {
	address string
	process sipload.Process
	in      io.WriteCloser
	out     *bufio.Scanner
}

func startOwn(b *testing.B, people int) *own {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), serverOf+"="+strconv.Itoa(people))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	s := &own{process: sipload.Process(cmd.Process.Pid), in: in, out: bufio.NewScanner(out)}
	if !s.out.Scan() {
		b.Fatal("the server did not start")
	}
	s.address = s.out.Text()
	return s
}

// heap gives the bytes in use, after a collection.
func (s *own) heap(b *testing.B) float64 {
	b.Helper()
	if _, err := fmt.Fprintln(s.in); err != nil || !s.out.Scan() {
		b.Fatal("the server is gone", err)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(s.out.Text()), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// A cost is processor time per operation, by what was done.
type cost map[string]time.Duration

// A meter puts the same load on a server, and notes what each operation costs it.
type meter struct {
	b       *testing.B
	whose   string
	process sipload.Process
	load    *sipload.Load
	costs   cost
}

// measure runs do, whose requests must all be answered 200 and bring n documents, and
// notes the processor time of the server over per operations.
func (m *meter) measure(what string, per int, n int64, do func() sipload.Result) {
	m.b.Helper()
	before, _ := m.load.Notified()
	began := m.process.CPU()
	r := do()
	if err := r.Failed(); err != nil {
		m.b.Fatalf("%s of %s: %v; %d were sent again", what, m.whose, err, r.Resent)
	}
	if !m.load.Await(before+n, silence) {
		got, _ := m.load.Notified()
		m.b.Fatalf("%s of %s: %d of %d documents came", what, m.whose, got-before, n)
	}
	m.costs[what] = (m.process.CPU() - began) / time.Duration(per)
}

// everything does all of the load once.
func everything(b *testing.B, whose, address string, process sipload.Process) cost {
	b.Helper()
	open := func(n int) *sipload.Load {
		l, err := sipload.Open(address, n, outstanding)
		if err != nil {
			b.Fatal(err)
		}
		return l
	}
	m := &meter{b: b, whose: whose, process: process, load: open(presentities), costs: cost{}}
	m.measure("initial", presentities, 0, m.load.Initial)
	m.measure("refresh", rounds*presentities, 0, func() sipload.Result { return m.load.Refresh(rounds) })
	m.measure("modify", rounds*presentities, 0, func() sipload.Result { return m.load.Modify(rounds, 1) })
	m.measure("subscribe", presentities, presentities, func() sipload.Result {
		return m.load.Subscribe(presentities, func(w int) int { return w })
	})
	m.measure("pair", presentities, presentities, func() sipload.Result { return m.load.Modify(1, 1+rounds) })
	m.measure("remove", presentities, 0, m.load.Remove)
	m.load.Close()

	m.load = open(1)
	m.measure("first", 1, 0, m.load.Initial)
	m.measure("audience", audience, audience, func() sipload.Result {
		return m.load.Subscribe(audience, func(int) int { return 0 })
	})
	m.measure("notify", fanOuts*audience, 0, func() (r sipload.Result) {
		for i := range fanOuts {
			before, _ := m.load.Notified()
			r = m.load.One(i + 1)
			if !m.load.Await(before+audience, silence) {
				m.b.Fatalf("fan-out %d did not reach everybody", i)
			}
		}
		return r
	})
	m.load.Close()
	return m.costs
}

// BenchmarkBesideKamailio puts the same load on Kamailio and on our server, the one
// after the other, and reports what ours costs as a share of that.
func BenchmarkBesideKamailio(b *testing.B) {
	for b.Loop() {
		theirs := func() cost {
			server := peers.Kamailio(b, peers.WithMemory(1024), peers.WithoutTransactions())
			defer server.Stop()
			return everything(b, "Kamailio", server.Address, sipload.Process(server.PID()))
		}()
		server := startOwn(b, presentities)
		ours := everything(b, "ours", server.address, server.process)
		for _, what := range []string{"initial", "refresh", "modify", "subscribe", "pair", "notify"} {
			micros := func(c cost) float64 { return float64(c[what]) / float64(time.Microsecond) }
			b.ReportMetric(micros(ours), what+"-µs")
			b.ReportMetric(micros(theirs), what+"-kamailio-µs")
			b.ReportMetric(micros(ours)/micros(theirs), what+"-ratio")
		}
	}
}

// BenchmarkPresenceMemory reports the heap of our server per publication and per
// subscription, once the answers to their requests are forgotten.
func BenchmarkPresenceMemory(b *testing.B) {
	for b.Loop() {
		server := startOwn(b, presentities)
		l, err := sipload.Open(server.address, presentities, outstanding)
		if err != nil {
			b.Fatal(err)
		}
		m := &meter{b: b, whose: "ours", process: server.process, load: l, costs: cost{}}
		empty := server.heap(b)
		m.measure("initial", presentities, 0, l.Initial)
		time.Sleep(remembered)
		published := server.heap(b)
		m.measure("subscribe", presentities, presentities, func() sipload.Result {
			return l.Subscribe(presentities, func(w int) int { return w })
		})
		time.Sleep(remembered)
		b.ReportMetric((published-empty)/presentities, "B/publication")
		b.ReportMetric((server.heap(b)-published)/presentities, "B/subscription")
		l.Close()
	}
}
