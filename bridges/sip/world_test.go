package sip

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"presenced/aggregator/presence"
	"presenced/internal/secret"
)

// The loopback loses no packets, and a busy machine is slow to answer: a request
// that is sent again would only be answered twice, since the test server has no
// transactions.
func TestMain(m *testing.M) {
	if os.Getenv(serveAll) != "" {
		if err := takeAll(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	sip.SetTimers(answerTime, sip.T2, sip.T4)
	if address := os.Getenv(publishAt); address != "" {
		publishUntilKilled(address)
		os.Exit(1) // it is to be killed
	}
	goleak.VerifyTestMain(m)
}

// A testHub knows everybody of whom a state was given, as tel: the id.
type testHub struct {
	mu     sync.Mutex
	people map[presence.ID]presence.Person
	states chan presence.State
	ended  chan struct{}
}

func newHub() *testHub {
	return &testHub{people: map[presence.ID]presence.Person{}, states: make(chan presence.State, 100), ended: make(chan struct{})}
}

func (h *testHub) tell(id presence.ID, availability presence.Availability, activity presence.Activity) {
	h.mu.Lock()
	if _, ok := h.people[id]; !ok {
		h.people[id] = presence.Person{ID: id, Subjects: []presence.Subject{{Scheme: "tel", Value: string(id)}}}
	}
	h.mu.Unlock()
	h.states <- presence.State{Person: id, Availability: availability, Activity: activity, Class: availability.Class(), Since: epoch}
}

func (h *testHub) Watch(ctx context.Context, _ ...presence.ID) iter.Seq[presence.State] {
	return func(yield func(presence.State) bool) {
		for {
			select {
			case s := <-h.states:
				if !yield(s) {
					return
				}
			case <-h.ended:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

func (h *testHub) Person(s presence.Subject) (presence.Person, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, ok := h.people[presence.ID(s.Value)]
	return p, ok && s.Scheme == "id"
}

func (h *testHub) Report(context.Context, presence.Report) error { return nil }

// A testMemory tells of every record that is written; a removal is one without a tag.
type testMemory struct {
	mu      sync.Mutex
	values  map[string][]byte
	written chan record
}

func newMemory() *testMemory {
	return &testMemory{values: map[string][]byte{}, written: make(chan record, 1000)}
}

func (m *testMemory) Load(context.Context) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.values), nil
}

func (m *testMemory) Put(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[key] = value
	pg, err := readPage(key, value)
	if err != nil {
		return err
	}
	for _, r := range pg.Records {
		m.written <- r
	}
	return nil
}

func (m *testMemory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return nil
}

// tag waits until a tag is written other than those seen.
func (m *testMemory) tag(t *testing.T, seen ...string) string {
	t.Helper()
	for {
		select {
		case r := <-m.written:
			if r.Tag != "" && !strings.Contains(" "+strings.Join(seen, " ")+" ", " "+r.Tag+" ") {
				return r.Tag
			}
		case <-time.After(patience):
			t.Fatal("nothing was published")
		}
	}
}

func (m *testMemory) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.values)
}

func testConfig(t *testing.T, address string) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Address, cfg.Entity = address, "sip:{tel}@example.test"
	return cfg
}

func password(t *testing.T, text string) secret.File {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return secret.File(file)
}

// patience is how long a test waits for what takes a moment on an idle machine.
const patience = 30 * time.Second

// newPublisher makes a Publisher for tests: quick to say what is new and to try
// again, patient when it ends, however busy the machine.
func newPublisher(t *testing.T, cfg Config, memory Memory) *Publisher {
	t.Helper()
	p := New(cfg, memory, openGate{}, quiet(t))
	p.pauses.silence, p.pauses.stop = patience/2, patience/2
	for _, srv := range p.servers {
		srv.terms.dwell, srv.terms.pause = 10*time.Millisecond, 100*time.Millisecond
	}
	return p
}

// watchful makes p quick to see which servers are back.
func watchful(p *Publisher) *Publisher {
	p.pauses.probe, p.pauses.comeback = 100*time.Millisecond, 200*time.Millisecond
	return p
}

// A runner is a publisher that runs.
type runner struct {
	*Publisher
	t      *testing.T
	cancel context.CancelFunc
	result chan error
}

func run(t *testing.T, p *Publisher, hub presence.Hub) *runner {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &runner{p, t, cancel, make(chan error, 1)}
	go func() { r.result <- p.Run(ctx, hub) }()
	t.Cleanup(cancel)
	return r
}

// stop ends the Run in the regular way.
func (r *runner) stop() {
	r.t.Helper()
	r.cancel()
	if err := r.wait(); !errors.Is(err, context.Canceled) {
		r.t.Errorf("Run: %v", err)
	}
}

func (r *runner) wait() error {
	r.t.Helper()
	select {
	case err := <-r.result:
		return err
	case <-time.After(patience):
		r.t.Fatal("Run does not end")
		return nil
	}
}

// quiet logs into the test's output, where it is seen when the test fails.
func quiet(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// A message is a request that a server of ours got.
type message struct {
	line   string
	header textproto.MIMEHeader
	body   string
	size   int
}

func (m *message) method() string {
	method, _, _ := strings.Cut(m.line, " ")
	return method
}

func readMessage(r *bufio.Reader) (*message, error) {
	t := textproto.NewReader(r)
	line, err := t.ReadLine()
	if err != nil {
		return nil, err
	}
	h, err := t.ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(h.Get("Content-Length"))
	if err != nil || n > 1<<20 {
		return nil, fmt.Errorf("bad length: %w", err)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return &message{line: line, header: h, body: string(body)}, nil
}

// reply gives an answer with the headers that it repeats.
func (m *message) reply(status string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "SIP/2.0 %s\r\n", status)
	for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		fmt.Fprintf(&b, "%s: %s\r\n", name, m.header.Get(name))
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("Content-Length: 0\r\n\r\n")
	return b.String()
}

// A handler gives what a server of ours sends after a PUBLISH, in order.
type handler func(*message) []string

// packetServer listens by UDP only, answers OPTIONS with 200, and gives its address.
func packetServer(t *testing.T, handle handler) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			m, err := readMessage(bufio.NewReader(bytes.NewReader(buf[:n])))
			if err != nil {
				t.Errorf("request: %v\n%s", err, buf[:n])
				continue
			}
			m.size = n
			for _, answer := range answers(m, handle) {
				_, _ = conn.WriteTo([]byte(answer), from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	return conn.LocalAddr().String()
}

func answers(m *message, handle handler) []string {
	if m.method() == "OPTIONS" {
		return []string{m.reply("200 OK")}
	}
	return handle(m)
}

// hangUp instead of an answer closes the connection.
const hangUp = "hang up"

// listen is packetServer by TCP only.
func listen(t *testing.T, handle handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streamServer(t, l, handle)
	return l.Addr().String()
}

// streamServer does the same on the connections of l.
func streamServer(t *testing.T, l net.Listener, handle handler) {
	t.Helper()
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(t.Context(), func() { _ = conn.Close() })()
				r := bufio.NewReader(conn)
				for {
					m, err := readMessage(r)
					if err != nil {
						return
					}
					for _, answer := range answers(m, handle) {
						if answer == hangUp {
							return
						}
						_, _ = io.WriteString(conn, answer)
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		group.Wait()
	})
}

// openGate shows everything to everybody.
type openGate struct{}

func (openGate) Admit(presence.Watcher, presence.ID) presence.Access { return presence.Everyone() }

func (openGate) Dismiss(presence.Watcher, presence.ID) {}

func (openGate) Access(presence.Watcher, presence.ID) presence.Access { return presence.Everyone() }
