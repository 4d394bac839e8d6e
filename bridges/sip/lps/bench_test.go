package lps

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/sip/wire"
)

// busyTime gives the processor time of the process, or of this thread alone.
func busyTime(who int) time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(who, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A crowd is clients on one UDP socket, in a goroutine whose thread is its own, so
// that their processor time can be told from that of the service.
type crowd struct {
	b       *testing.B
	house   *house
	conn    *net.UDPConn
	packets *ipv4.PacketConn
	local   string
	to      *net.UDPAddr
	out     []ipv4.Message
	in      []ipv4.Message
	tags    []string          // entity-tags, by person
	heard   map[string]string // the CSeq of the last NOTIFY, by Call-ID: one that comes again is not news
	serial  int
}

const (
	window       = 64
	rusageThread = 1
	document     = `<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" entity="sip:p%[1]d@example.test"><tuple id="t1"><status><basic>open</basic></status><contact>sip:p%[1]d@example.test</contact></tuple><dm:person id="p1"><rpid:activities><rpid:%[2]s/></rpid:activities></dm:person></presence>
`
)

// newCrowd makes a service without a store for n people p0, p1, ..., whose proxy is believed.
func newCrowd(b *testing.B, n int) *crowd {
	b.Helper()
	all := make([]presence.Person, n)
	for i := range all {
		name := "p" + strconv.Itoa(i)
		all[i] = presence.Person{ID: presence.ID(name), Name: name, Subjects: []presence.Subject{{Scheme: "sip", Value: name + "@example.test"}}}
	}
	d, _ := directory.New(all)
	hub := aggregator.NewHub(presence.DefaultPolicy(), nil, slog.New(slog.DiscardHandler))
	hub.SetDirectory(d, time.Now())
	h := &house{t: b, hub: hub, gate: &gate{access: map[string]presence.Access{}}}
	c := loose()
	c.Trusted = []string{"127.0.0.1"}
	c.Storm, c.MaxSubscriptions, c.MaxPublications = 0, 1<<20, 1<<20
	c.Transport.Outstanding = 1 << 20
	h.run(c, nil)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadBuffer(8 << 20)
	w := &crowd{b: b, house: h, conn: conn, packets: ipv4.NewPacketConn(conn), local: conn.LocalAddr().String(), tags: make([]string, n), heard: map[string]string{}}
	w.to = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(h.udp))
	w.in = make([]ipv4.Message, 2*window)
	for i := range w.in {
		w.in[i].Buffers = [][]byte{make([]byte, 4096)}
	}
	return w
}

func (w *crowd) queue(message []byte) {
	w.out = append(w.out, ipv4.Message{Buffers: [][]byte{message}, Addr: w.to})
}

func (w *crowd) flush() {
	for ms := w.out; len(ms) > 0; {
		k, err := w.packets.WriteBatch(ms, 0)
		if err != nil {
			w.b.Fatal(err)
		}
		ms = ms[k:]
	}
	w.out = w.out[:0]
}

// drive queues n operations, at most window of them under way, until as many are
// done. took takes what came, and tells how many operations it completed.
func (w *crowd) drive(n int, start func(i int), took func(m []byte) int) {
	w.b.Helper()
	_ = w.conn.SetReadDeadline(time.Now().Add(time.Minute))
	begun := min(n, window)
	for i := range begun {
		start(i)
	}
	w.flush()
	for done := 0; done < n; {
		k, err := w.packets.ReadBatch(w.in, 0)
		if err != nil {
			w.b.Fatalf("%d of %d done: %v; %+v", done, n, err, w.house.endpoint.Status())
		}
		for i := range w.in[:k] {
			for range took(w.in[i].Buffers[0][:w.in[i].N]) {
				done++
				if begun < n {
					start(begun)
					begun++
				}
			}
		}
		w.flush()
	}
}

// measure is drive with the processor time of the service reported.
func (w *crowd) measure(n int, start func(i int), took func(m []byte) int) {
	w.b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	w.b.ReportAllocs()
	w.b.ResetTimer()
	all, own := busyTime(syscall.RUSAGE_SELF), busyTime(rusageThread)
	w.drive(n, start, took)
	spent := busyTime(syscall.RUSAGE_SELF) - all - (busyTime(rusageThread) - own)
	w.b.StopTimer()
	w.b.ReportMetric(float64(spent)/float64(n)/1000, "cpu-µs/op")
}

func (w *crowd) publish(i int, activity string) {
	w.serial++
	body, tag := "", ""
	if activity != "" {
		body = fmt.Sprintf(document, i, activity)
		tag = "Content-Type: application/pidf+xml\r\n"
	}
	if w.tags[i] != "" {
		tag += "SIP-If-Match: " + w.tags[i] + "\r\n"
	}
	w.queue(fmt.Appendf(nil, "PUBLISH sip:p%[1]d@example.test SIP/2.0\r\nVia: SIP/2.0/UDP %[2]s;branch=z9hG4bK%[3]d;rport\r\nMax-Forwards: 70\r\nFrom: <sip:p%[1]d@example.test>;tag=f%[3]d\r\nTo: <sip:p%[1]d@example.test>\r\n"+
		"Call-ID: p-%[1]d\r\nCSeq: %[3]d PUBLISH\r\nEvent: presence\r\nExpires: 600\r\n%[4]sContent-Length: %[5]d\r\n\r\n%[6]s", i, w.local, w.serial, tag, len(body), body))
}

// published takes the answer to a PUBLISH, and its tag.
func (w *crowd) published(m []byte) bool {
	if !bytes.HasPrefix(m, []byte("SIP/2.0 200")) {
		if bytes.HasPrefix(m, []byte("SIP/2.0")) {
			w.b.Fatalf("%s", m)
		}
		return false
	}
	tag := header(m, "SIP-ETag: ")
	if tag == nil {
		return false
	}
	i, _ := strconv.Atoi(string(bytes.TrimPrefix(header(m, "Call-ID: "), []byte("p-"))))
	w.tags[i] = string(tag)
	return true
}

func (w *crowd) subscribe(watcher, i int) {
	w.serial++
	w.queue(fmt.Appendf(nil, "SUBSCRIBE sip:p%[1]d@example.test SIP/2.0\r\nVia: SIP/2.0/UDP %[2]s;branch=z9hG4bK%[3]d;rport\r\nMax-Forwards: 70\r\nFrom: <sip:w%[4]d@example.test>;tag=w%[3]d\r\nTo: <sip:p%[1]d@example.test>\r\n"+
		"Call-ID: s-%[3]d\r\nCSeq: 1 SUBSCRIBE\r\nContact: <sip:w%[4]d@%[2]s>\r\nEvent: presence\r\nAccept: application/pidf+xml\r\nExpires: 3600\r\nContent-Length: 0\r\n\r\n", i, w.local, w.serial, watcher))
}

// notified answers a NOTIFY; it is false where m is none, or was there before.
func (w *crowd) notified(m []byte) bool {
	if !bytes.HasPrefix(m, []byte("NOTIFY ")) {
		return false
	}
	answer := []byte("SIP/2.0 200 OK\r\n")
	for _, name := range []string{"Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: "} {
		answer = append(append(append(append(answer, name...), header(m, name)...), '\r'), '\n')
	}
	w.queue(append(answer, "Content-Length: 0\r\n\r\n"...))
	call, cseq := string(header(m, "Call-ID: ")), string(header(m, "CSeq: "))
	again := w.heard[call] == cseq
	w.heard[call] = cseq
	return !again
}

func header(m []byte, name string) []byte {
	_, rest, found := bytes.Cut(m, []byte("\r\n"+name))
	if !found {
		return nil
	}
	value, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return value
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// BenchmarkService has the processor time of the service, user and system, for each
// operation through UDP sockets; that of the clients is not in it.
func BenchmarkService(b *testing.B) {
	activities := []string{"away", "on-the-phone"}
	b.Run("initial", func(b *testing.B) {
		w := newCrowd(b, b.N)
		w.measure(b.N, func(i int) { w.publish(i, "away") }, func(m []byte) int { return one(w.published(m)) })
	})
	const people = 1000
	settled := func(b *testing.B) *crowd {
		b.Helper()
		w := newCrowd(b, people)
		w.drive(people, func(i int) { w.publish(i, "away") }, func(m []byte) int { return one(w.published(m)) })
		return w
	}
	b.Run("refresh", func(b *testing.B) {
		w := settled(b)
		w.measure(b.N, func(i int) { w.publish(i%people, "") }, func(m []byte) int { return one(w.published(m)) })
	})
	b.Run("modify", func(b *testing.B) {
		w := settled(b)
		w.measure(b.N, func(i int) { w.publish(i%people, activities[(i/people+1)%2]) }, func(m []byte) int { return one(w.published(m)) })
	})
	b.Run("subscribe", func(b *testing.B) {
		w := settled(b)
		w.measure(b.N, func(i int) { w.subscribe(i, i%people) }, func(m []byte) int { return one(w.notified(m)) })
	})
	b.Run("pair", func(b *testing.B) {
		w := settled(b)
		w.drive(people, func(i int) { w.subscribe(i, i) }, func(m []byte) int { return one(w.notified(m)) })
		half := make([]bool, people) // the answer came, or the NOTIFY, in any order
		w.measure(b.N, func(i int) { w.publish(i%people, activities[(i/people+1)%2]) }, func(m []byte) int {
			if !w.published(m) && !w.notified(m) {
				return 0
			}
			number, _, _ := bytes.Cut(header(m, "From: <sip:p"), []byte{'@'})
			i, _ := strconv.Atoi(string(number))
			half[i] = !half[i]
			return one(!half[i])
		})
	})
	b.Run("fan-out", func(b *testing.B) {
		const watchers = 100
		w := settled(b)
		w.drive(watchers, func(i int) { w.subscribe(i, 0) }, func(m []byte) int { return one(w.notified(m)) })
		rounds, told, answered := 0, watchers, true
		next := func() {
			if told == watchers && answered {
				told, answered = 0, false
				w.publish(0, activities[(rounds+1)%2])
				rounds++
			}
		}
		w.measure(b.N/watchers*watchers+watchers, func(i int) {
			if i == 0 {
				next()
			}
		}, func(m []byte) int {
			if w.published(m) {
				answered = true
				next()
				return 0
			}
			n := one(w.notified(m))
			told += n
			next()
			return n
		})
	})
}

// TestFanOut tells a thousand watchers of one change, by one document.
func TestFanOut(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Trusted = []string{"127.0.0.1"}; c.Storm = 0 })
	h.subMu.Lock()
	counted := &counting{Encoder: h.subscriptions.encode}
	h.subscriptions.encode = counted
	h.subMu.Unlock()
	const watchers = 1000
	p := h.phone("w", "udp")
	_ = p.conn.(*net.UDPConn).SetReadBuffer(8 << 20)
	for i := range watchers {
		p.user = fmt.Sprint("w", i)
		p.ask(200, "SUBSCRIBE", alice, presenceEvent)
		p.shows("closed")
	}
	h.subMu.Lock()
	before := counted.n
	h.subMu.Unlock()
	h.report("4750", presence.PhoneConnected)
	for range watchers {
		p.shows("on-the-phone")
	}
	h.subMu.Lock()
	defer h.subMu.Unlock()
	if before != 2 || counted.n != 3 { // the one of the first watcher was not kept: nobody shared it
		t.Errorf("%d documents at first, %d for the change", before, counted.n-before)
	}
}

// A counting Encoder counts presence documents.
type counting struct {
	Encoder
	n int
}

func (c *counting) Presence(view *presence.State, address string) []byte {
	c.n++
	return c.Encoder.Presence(view, address)
}

// TestMemoryAllTold wants a subscription to be small with its way, too.
func TestMemoryAllTold(t *testing.T) {
	if each := weigh(t, 10_000); each > 1536 {
		t.Errorf("%d bytes, more than 1536", each)
	}
}

// BenchmarkMemory weighs a hundred thousand.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(weigh(b, 100_000)), "bytes/subscription")
	}
}

// weigh gives the bytes that each of n subscriptions takes, each of a watcher of its
// own and to somebody else.
func weigh(t testing.TB, n int) int {
	t.Helper()
	c := loose()
	c.MaxSubscriptions = n
	s := New(c, nil, newOffice(), nil, nil, slog.New(slog.DiscardHandler))
	s.subscriptions.people = town{newOffice()}
	before := heapInUse()
	for i := range n {
		r := ask(from(fmt.Sprint("watcher", i)), to(fmt.Sprint("person", i)))
		r.Call, r.Tag = fmt.Sprintf("0123456789abcdef0123456789abcdef%d", i), fmt.Sprint("0123456789", i)
		w := way{
			URI: fmt.Sprintf("sip:watcher%d@192.0.2.1:5060", i), From: fmt.Sprintf("<sip:person%d@example.test>;tag=0123456789abcdef", i),
			To: fmt.Sprintf("<sip:watcher%d@example.test>;tag=0123456789%d", i, i), Lines: "Contact: <sip:192.0.2.10:5060>\r\nEvent: presence\r\n",
		}
		var err error
		if r.Route, err = w.route(r.Call, wire.FlowTo(wire.UDP, netip.MustParseAddrPort("192.0.2.1:5060"), "")); err != nil {
			t.Fatal(err)
		}
		_, out := s.subscriptions.Subscribe(r, epoch(), nil)
		s.subscriptions.Answered(out[0].Dialog, 200, 0, epoch(), nil)
	}
	each := int((heapInUse() - before) / uint64(n)) //nolint:gosec // small
	runtime.KeepAlive(s)
	return each
}
