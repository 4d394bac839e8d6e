package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"presenced/aes"
	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/fixtures/sim/simaes"
	"presenced/internal/secret"
)

// The switch has so many extensions, each of which is somebody.
const telephones = 10_000

// What the switch is told to do, a line each on its standard input, and answers with a
// line when it is done.
const (
	orderStorm  = "storm"  // call, answer, hold, retrieve and end a call at every extension, and send it all at once
	orderAnswer = "answer" // call and answer at every extension
	orderSteady = "steady" // hold and retrieve in turn, one event each half millisecond; says of each when it was sent
)

const (
	stormEvents  = 5 * telephones
	steadyEvents = 20_000
	steadyGap    = time.Second / 2000
)

// exchange is the simulated switch, in a process of its own so that its work is not
// taken for that of the collector. It collects no garbage while there is memory, which
// would take the processors away.
func exchange(ctx context.Context, orders io.Reader, out io.Writer) error {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	sw := simaes.New(simaes.Config{Switch: "CMSIM", Stations: extensions()})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr())
	nc, err := l.Accept()
	if err != nil {
		return err
	}
	defer nc.Close()
	var mu sync.Mutex // held while events are made and written
	c := sw.Attach(time.Now())
	flush := func() error {
		_, err := nc.Write(c.Output())
		return err
	}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := nc.Read(buf)
			if err != nil {
				return
			}
			mu.Lock()
			c.Input(buf[:n], time.Now())
			err = flush()
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	do := func(format string, args ...any) error {
		return sw.Do(time.Now(), strings.Fields(fmt.Sprintf(format, args...)))
	}
	each := func(f func(i int, ext string) error) error {
		for i, ext := range extensions() {
			if err := f(i, ext); err != nil {
				return err
			}
		}
		return nil
	}
	answer := func(i int, ext string) error {
		return errors.Join(do("call %d 0170 %s", i, ext), do("answer %d %s", i, ext))
	}
	perform := func(order string) error {
		switch order {
		case orderStorm:
			mu.Lock()
			defer mu.Unlock()
			if err := each(answer); err != nil {
				return err
			}
			for _, command := range []string{"hold", "retrieve", "hangup"} {
				if err := each(func(i int, ext string) error { return do("%s %d %s", command, i, ext) }); err != nil {
					return err
				}
			}
			fmt.Fprintln(out, time.Now().UnixNano())
			return flush()
		case orderAnswer:
			mu.Lock()
			defer mu.Unlock()
			return errors.Join(each(answer), flush())
		case orderSteady:
			var said bytes.Buffer // until all is sent, so that nobody reads it meanwhile
			begin := time.Now()
			for n := range steadyEvents {
				time.Sleep(time.Until(begin.Add(time.Duration(n) * steadyGap)))
				command := "hold"
				if n/telephones%2 == 1 {
					command = "retrieve"
				}
				ext := extensionNumber(n % telephones)
				mu.Lock()
				err := do("%s %d %s", command, n%telephones, ext)
				at := time.Now()
				err = errors.Join(err, flush())
				mu.Unlock()
				if err != nil {
					return err
				}
				fmt.Fprintf(&said, "%s %d\n", ext, at.UnixNano())
			}
			_, err := said.WriteTo(out)
			return err
		}
		return fmt.Errorf("no such order: %q", order)
	}
	for s := bufio.NewScanner(orders); ctx.Err() == nil && s.Scan(); {
		if err := perform(s.Text()); err != nil {
			return err
		}
		fmt.Fprintln(out, "done")
	}
	return ctx.Err()
}

func extensionNumber(i int) string { return strconv.Itoa(20_000 + i) }

func extensions() []string {
	all := make([]string, telephones)
	for i := range all {
		all[i] = extensionNumber(i)
	}
	return all
}

// A board is the switch as the measuring process sees it.
type board struct {
	address string
	orders  io.WriteCloser
	said    *bufio.Scanner
	cmd     *exec.Cmd
}

func startExchange(ctx context.Context) (*board, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &board{cmd: exec.CommandContext(ctx, self, switchboard)} //nolint:gosec // this command
	b.cmd.Stderr = os.Stderr
	if b.orders, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b.said = bufio.NewScanner(out)
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	if !b.said.Scan() {
		return nil, errors.Join(errors.New("the switch does not start"), b.cmd.Wait())
	}
	b.address = b.said.Text()
	return b, nil
}

// order gives an order, and what the switch says until it is done.
func (b *board) order(order string, each func(line string)) error {
	if _, err := fmt.Fprintln(b.orders, order); err != nil {
		return err
	}
	for b.said.Scan() {
		if b.said.Text() == "done" {
			return nil
		}
		each(b.said.Text())
	}
	return errors.New("the switch is gone")
}

func (b *board) stop() { _, _ = b.orders.Close(), b.cmd.Wait() }

// telephony measures the collector of telephony: a switch in another process, one link,
// a socket, the hub, and a watcher of everybody.
func telephony(ctx context.Context, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	b, err := startExchange(ctx)
	if err != nil {
		return err
	}
	defer b.stop()
	var people []presence.Person
	for _, ext := range extensions() {
		people = append(people, presence.Person{ID: presence.ID(ext), Name: ext, Subjects: []presence.Subject{{Scheme: "tel", Value: ext}}})
	}
	d, problems := directory.New(people)
	if problems != nil {
		return errors.New(problems[0])
	}
	atOnce := presence.DefaultSetting() // what the policy holds back on purpose is not to be measured
	atOnce.HangupLinger, atOnce.MinDwell, atOnce.FlapLimit = 0, 0, 0
	hub := aggregator.NewHub(atOnce.Policy(), nil, slog.New(slog.DiscardHandler))
	hub.SetDirectory(d, time.Now())
	go hub.Run(ctx) //nolint:errcheck // it ends with the process

	folder, err := os.MkdirTemp("", "presenced-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	source, err := newSource(b.address, folder)
	if err != nil {
		return err
	}
	before, err := resident()
	if err != nil {
		return err
	}
	t := &tally{hub: hub, idle: map[presence.Subject]bool{}, complete: make(chan struct{}, 1)}
	began := time.Now()
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { _ = source.Run(ctx, hub, func(r presence.Report) error { return t.take(ctx, r) }) })
	<-t.complete
	started := time.Since(began)
	after, err := resident()
	if err != nil {
		return err
	}

	t.again()
	var stormed time.Time
	if err := b.order(orderStorm, func(line string) { stormed = moment(line) }); err != nil {
		return err
	}
	<-t.complete
	storm := time.Since(stormed)

	late, err := steady(ctx, hub, b)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "BenchmarkTelephony 1 %.0f events/s %.3f p99-ms %.0f B/extension %.2f start-s\n",
		stormEvents/storm.Seconds(), float64(late[len(late)*99/100])/float64(time.Millisecond), float64(after-before)/telephones, started.Seconds())
	return err
}

// moment reads a time that the switch wrote. Both processes have one clock.
func moment(nanos string) time.Time {
	n, _ := strconv.ParseInt(nanos, 10, 64) // a wrong one is seen in the figures
	return time.Unix(0, n)
}

// newSource gives a collector that asks as fast as the server answers. It does not ask
// for agents, which comes after everybody is known: into the middle of what is measured.
func newSource(address, folder string) (*aes.Source, error) {
	password := filepath.Join(folder, "password")
	if err := os.WriteFile(password, []byte("any"), 0o600); err != nil {
		return nil, err
	}
	cfg := aes.DefaultConfig()
	cfg.Name, cfg.Address, cfg.Plain, cfg.User, cfg.Switch = "aes/hq", address, true, "svc", "CMSIM"
	cfg.PasswordFile = secret.File(password)
	cfg.Rate, cfg.Outstanding, cfg.FeaturePoll, cfg.Agents = 100_000, 1000, 0, false
	return aes.New(cfg, slog.New(slog.DiscardHandler)), nil
}

// A tally hands reports to the hub, which decides before it returns, and tells when
// every extension was said to be idle.
type tally struct {
	hub      *aggregator.Hub
	mu       sync.Mutex
	idle     map[presence.Subject]bool
	complete chan struct{}
}

func (t *tally) take(ctx context.Context, r presence.Report) error {
	err := t.hub.Report(ctx, r)
	t.mu.Lock()
	defer t.mu.Unlock()
	idle := slices.ContainsFunc(r.Spans, func(s presence.Span) bool { return s.Fact == presence.PhoneIdle && s.Until.IsZero() })
	if idle && !t.idle[r.Subject] {
		if t.idle[r.Subject] = true; len(t.idle) == telephones {
			t.complete <- struct{}{}
		}
	}
	return err
}

// again has every extension to be said to be idle once more.
func (t *tally) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.idle)
}

// steady gives how long it takes from the moment in which the switch writes an event to
// the moment in which a watcher has the new state, sorted.
func steady(ctx context.Context, hub *aggregator.Hub, b *board) ([]time.Duration, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	seen := map[presence.ID][]time.Time{}
	connected, measured := make(chan struct{}), make(chan struct{})
	go func() {
		talking, held, changes := map[presence.ID]bool{}, map[presence.ID]bool{}, 0
		for s := range hub.Watch(ctx) {
			at := time.Now()
			if s.Availability == presence.Busy && !talking[s.Person] {
				if talking[s.Person] = true; len(talking) == telephones {
					close(connected)
				}
			}
			if hold := s.Activity == presence.ActivityHold; hold != held[s.Person] {
				held[s.Person] = hold
				seen[s.Person] = append(seen[s.Person], at)
				if changes++; changes == steadyEvents {
					close(measured)
				}
			}
		}
	}()
	if err := b.order(orderAnswer, func(string) {}); err != nil {
		return nil, err
	}
	<-connected
	sent := map[presence.ID][]time.Time{}
	err := b.order(orderSteady, func(line string) {
		ext, at, _ := strings.Cut(line, " ")
		sent[presence.ID(ext)] = append(sent[presence.ID(ext)], moment(at))
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-measured:
	case <-time.After(10 * time.Second):
		return nil, errors.New("a watcher did not get every change")
	}
	var late []time.Duration
	for id, times := range sent {
		for i, at := range times {
			late = append(late, seen[id][i].Sub(at))
		}
	}
	slices.Sort(late)
	return late, nil
}
