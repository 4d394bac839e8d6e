package sip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"presenced/aggregator/presence"
)

// serveAll is the environment of a process that takes every PUBLISH.
const serveAll = "PRESENCED_TEST_SERVE"

// takeAll is what such a process does until its standard input ends: it prints where
// it listens, by UDP, and answers every request with 200 and a new entity-tag.
func takeAll() error {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	_ = conn.SetReadBuffer(4 << 20)
	fmt.Println(conn.LocalAddr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	buf, answer := make([]byte, 65536), make([]byte, 0, 4096)
	for n := 0; ; n++ {
		size, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		answer = append(answer[:0], "SIP/2.0 200 OK\r\n"...)
		head, _, _ := bytes.Cut(buf[:size], []byte("\r\n\r\n"))
		for line := range bytes.SplitSeq(head, []byte("\r\n")) {
			for _, name := range []string{"Via:", "From:", "To:", "Call-ID:", "CSeq:"} {
				if bytes.HasPrefix(line, []byte(name)) {
					answer = append(append(answer, line...), '\r', '\n')
				}
			}
		}
		answer = fmt.Appendf(answer, "SIP-ETag: t%d\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n", n)
		_, _ = conn.WriteToUDPAddrPort(answer, from)
	}
}

// A town is a hub of many people who are on the phone and stay so.
type town struct{ people int }

func (h town) Watch(ctx context.Context, _ ...presence.ID) iter.Seq[presence.State] {
	return func(yield func(presence.State) bool) {
		for i := range h.people {
			s := presence.State{Person: presence.ID(fmt.Sprint(1000000 + i)), Availability: presence.Busy, Activity: presence.ActivityPhone, Since: epoch}
			s.Channels[presence.Phone] = presence.Channel{State: presence.ChannelInUse, Since: epoch}
			if !yield(s) {
				return
			}
		}
		<-ctx.Done()
	}
}

func (h town) Person(s presence.Subject) (presence.Person, bool) {
	return presence.Person{ID: presence.ID(s.Value), Name: "Ann Example", Subjects: []presence.Subject{{Scheme: "tel", Value: s.Value}}}, true
}

func (h town) Report(context.Context, presence.Report) error { return nil }

// counting is a Memory that keeps nothing, and knows how many tags takeAll has given by
// the newest that it is given.
type counting struct{ tags *atomic.Int64 }

func (c counting) Load(context.Context) (map[string][]byte, error) { return nil, nil }
func (c counting) Delete(context.Context, string) error            { return nil }

func (c counting) Put(_ context.Context, _ string, value []byte) error {
	given := c.tags.Load()
	for i := bytes.Index(value, tagAt); i >= 0; i = bytes.Index(value, tagAt) {
		value = value[i+len(tagAt):]
		n := int64(0)
		for ; len(value) > 0 && value[0] >= '0' && value[0] <= '9'; value = value[1:] {
			n = 10*n + int64(value[0]-'0')
		}
		given = max(given, n)
	}
	c.tags.Store(given)
	return nil
}

//nolint:gochecknoglobals // never changed
var tagAt = []byte(`"tag":"t`)

// BenchmarkKeepAlive keeps 100,000 publications alive at another process, in
// compressed time: each is refreshed every half a minute instead of after 80 percent of
// ten minutes. core-share is the processor time of this process for one refresh, times
// the refreshes of a second at the usual pace, in percent of a core.
func BenchmarkKeepAlive(b *testing.B) {
	const (
		people   = 100000
		often    = 30 * time.Second
		measured = people / 2 // refreshes
	)
	server := exec.CommandContext(b.Context(), os.Args[0]) //nolint:gosec // this test
	server.Env = append(os.Environ(), serveAll+"=1")
	stdin, err := server.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = stdin.Close()
		_ = server.Wait()
	}()
	line := make([]byte, 100)
	n, err := stdout.Read(line)
	if err != nil {
		b.Fatal(err)
	}
	sip.SetTimers(500*time.Millisecond, sip.T2, sip.T4) // as usual: a busy machine loses packets
	defer sip.SetTimers(answerTime, sip.T2, sip.T4)
	cfg := DefaultConfig()
	cfg.Address, cfg.Entity, cfg.Rate, cfg.Outstanding = strings.TrimSpace(string(line[:n])), "sip:{tel}@example.test", 5000, 200
	var tags atomic.Int64
	for b.Loop() {
		tags.Store(0)
		p := New(cfg, counting{&tags}, openGate{}, slog.New(slog.DiscardHandler))
		p.servers[0].terms.turn = often.Seconds() / cfg.Expires.Seconds()
		p.pauses.stop = time.Millisecond
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx, town{people}) }()
		await := func(done func() bool) {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for !done() {
				select {
				case <-tick.C:
				case err := <-ended:
					b.Fatal(err)
				}
			}
		}
		await(func() bool { s := p.Status(); return s.Total == people && s.Done == people })
		before, began, from := tags.Load(), time.Now(), processorTime(b)
		await(func() bool { return tags.Load()-before >= measured })
		each := float64(processorTime(b)-from) / float64(tags.Load()-before)
		rate := people / (cfg.Expires.Seconds() * turn)
		b.ReportMetric(each/1e3, "cpu-us/refresh")
		b.ReportMetric(each/1e9*rate*100, "core-share")
		b.ReportMetric(float64(tags.Load()-before)/time.Since(began).Seconds(), "refreshes/s")
		if s := p.Status(); len(s.Problems) != 0 {
			b.Logf("problems %v", s.Problems)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			b.Fatal(err)
		}
	}
}

// processorTime is that of this process.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
