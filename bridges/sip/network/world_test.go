package network

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/lookup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what takes a moment on an idle machine.
const patience = 30 * time.Second

// A ledger is the aggregator as a test sees it: every report, and the newest of each
// person.
type ledger struct {
	t       *testing.T
	mu      sync.Mutex
	newest  map[string]presence.Report
	changes chan struct{}
}

func newLedger(t *testing.T) *ledger {
	return &ledger{t: t, newest: map[string]presence.Report{}, changes: make(chan struct{}, 1)}
}

func (l *ledger) emit(r presence.Report) error {
	if err := r.Check(); err != nil {
		l.t.Error(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.At.Before(l.newest[r.Subject.Value].At) {
		l.t.Errorf("an older report of %s", r.Subject)
	}
	l.newest[r.Subject.Value] = r
	select {
	case l.changes <- struct{}{}:
	default:
	}
	return nil
}

// facts gives what is known now of somebody: facts, "expired", "nothing", or "silence"
// where there is no report.
func (l *ledger) facts(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.newest[id]
	switch {
	case !ok:
		return "silence"
	case len(r.Spans) == 0:
		return "nothing"
	case !r.Expires.After(time.Now()):
		return "expired"
	}
	var words []string
	for _, s := range r.Spans {
		words = append(words, s.Fact.String())
	}
	return strings.Join(words, " ")
}

// await waits until that is known of somebody.
func (l *ledger) await(id, want string) {
	l.t.Helper()
	over := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond) // what expires by itself is no change
	defer tick.Stop()
	for {
		got := l.facts(id)
		if got == want {
			return
		}
		select {
		case <-l.changes:
		case <-tick.C:
		case <-over:
			l.t.Fatalf("of %s is known %s, want %s", id, got, want)
		}
	}
}

// crowd gives people whose extension is their identifier.
func crowd(ids ...string) func() []presence.Person {
	var all []presence.Person
	for _, id := range ids {
		all = append(all, presence.Person{ID: presence.ID(id), Subjects: []presence.Subject{{Scheme: "tel", Value: id}}})
	}
	return func() []presence.Person { return all }
}

func testConfig(address string) Config {
	return Config{
		Name: "hq/network", Address: address, Transport: "udp", Entity: "sip:{tel}@example.test", Expires: 10 * time.Minute, Rate: 1000, Outstanding: 20,
	}
}

// A runner is a Subscriber that runs.
type runner struct {
	*Subscriber
	*ledger
	t      *testing.T
	cancel context.CancelFunc
	result chan error
}

// start runs a Subscriber that asks these name servers; none: those of the system.
func start(t *testing.T, cfg Config, people func() []presence.Person, nameServers ...string) *runner {
	t.Helper()
	if ps := cfg.Check(); len(ps) > 0 {
		t.Fatalf("%+v", ps)
	}
	s := New(cfg, people, slog.New(slog.NewTextHandler(t.Output(), nil)))
	s.where = lookup.New(nameServers...)
	s.pause.comeback, s.pause.back = 100*time.Millisecond, 20*time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	r := &runner{s, newLedger(t), t, cancel, make(chan error, 1)}
	go func() { r.result <- s.Run(ctx, nil, r.emit) }()
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

// fares waits until the status is as wanted.
func (r *runner) fares(what string, as func(presence.Status) bool) {
	r.t.Helper()
	for over := time.Now().Add(patience); !as(r.Status()); {
		if time.Now().After(over) {
			r.t.Fatalf("not %s: %+v", what, r.Status())
		}
		<-time.After(5 * time.Millisecond)
	}
}

// A message is a SIP message as a test reads it, with a parser of its own.
type message struct {
	line string
	textproto.MIMEHeader
	body string
}

func parse(data []byte) (*message, error) {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(data)))
	line, err := r.ReadLine()
	if err != nil {
		return nil, err
	}
	head, err := r.ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	_, body, _ := bytes.Cut(data, []byte("\r\n\r\n"))
	return &message{line, head, string(body)}, nil
}

// A notifier is a presence server that says what a test has it say.
type notifier struct {
	t       *testing.T
	conn    *net.UDPConn
	asked   chan *exchange
	answers chan *message
	seq     int
}

// An exchange is a SUBSCRIBE, and the dialog that it begins.
type exchange struct {
	*message
	n    *notifier
	from net.Addr
}

func newNotifier(t *testing.T) *notifier {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	n := &notifier{t: t, conn: conn, asked: make(chan *exchange, 100), answers: make(chan *message, 100)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 65536)
		seen := map[string]bool{}
		for {
			size, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			m, err := parse(bytes.Clone(buffer[:size]))
			if err != nil {
				t.Errorf("%v\n%s", err, buffer[:size])
				return
			}
			switch via := m.Get("Via") + m.line; {
			case strings.HasPrefix(m.line, "SIP/2.0"):
				n.answers <- m
			case !seen[via]: // else it is sent again
				seen[via] = true
				n.asked <- &exchange{m, n, from}
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	return n
}

func (n *notifier) address() string { return n.conn.LocalAddr().String() }

// next gives the next SUBSCRIBE.
func (n *notifier) next() *exchange {
	n.t.Helper()
	select {
	case e := <-n.asked:
		return e
	case <-time.After(patience):
		n.t.Fatal("no SUBSCRIBE")
		return nil
	}
}

// respond answers the SUBSCRIBE.
func (e *exchange) respond(status string, headers ...string) {
	to := e.Get("To")
	if !strings.Contains(to, ";tag=") {
		to += ";tag=n1"
	}
	e.send(fmt.Sprintf("SIP/2.0 %s\r\nVia: %s\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %s\r\n", status, e.Get("Via"), e.Get("From"), to, e.Get("Call-Id"), e.Get("Cseq")), headers, "")
}

func (e *exchange) send(head string, headers []string, body string) {
	for _, h := range headers {
		head += h + "\r\n"
	}
	head += fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body))
	if _, err := e.n.conn.WriteTo([]byte(head+body), e.from); err != nil {
		e.n.t.Error(err)
	}
}

// notify sends a NOTIFY, from the notifier with that tag, and gives the code of the answer.
func (e *exchange) notify(seq int, tag, state, contentType, body string) string {
	e.n.t.Helper()
	to, _, _ := strings.Cut(e.Get("To"), ";tag=")
	target := strings.Trim(strings.Split(e.Get("Contact"), ";")[0], "<>")
	e.n.seq++
	headers := []string{"Subscription-State: " + state, "Contact: <sip:" + e.n.address() + ">"}
	if contentType != "" {
		headers = append(headers, "Content-Type: "+contentType)
	}
	if strings.HasPrefix(contentType, "multipart/") {
		headers = append(headers, "Require: eventlist")
	}
	e.send(fmt.Sprintf("NOTIFY %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bKn%d\r\nMax-Forwards: 70\r\nFrom: %s;tag=%s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d NOTIFY\r\nEvent: presence\r\n",
		target, e.n.address(), e.n.seq, to, tag, e.Get("From"), e.Get("Call-Id"), seq), headers, body)
	select {
	case m := <-e.n.answers:
		return strings.Fields(m.line)[1]
	case <-time.After(patience):
		e.n.t.Fatal("no answer to a NOTIFY")
		return ""
	}
}

// pidf gives a document of another publisher.
func document(basic string, activities ...string) string {
	var said strings.Builder
	for _, a := range activities {
		said.WriteString("<rpid:" + a + "/>")
	}
	return `<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" entity="sip:a@example.test">` +
		`<tuple id="t1"><status><basic>` + basic + `</basic></status></tuple><dm:person id="p1"><rpid:activities>` + said.String() + `</rpid:activities></dm:person></presence>`
}
