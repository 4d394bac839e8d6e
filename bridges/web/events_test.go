package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

// A message is one event as a browser takes it from the wire.
type message struct{ id, name, data string }

// readMessage follows the rules of the HTML standard for text/event-stream.
func readMessage(r *bufio.Reader) (message, error) {
	var m message
	var data []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return m, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			m.data = strings.Join(data, "\n")
			return m, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			m.id = value
		case "event":
			m.name = value
		case "data":
			data = append(data, value)
		}
	}
}

// A client is a live page without a browser.
type client struct {
	t    *testing.T
	resp *http.Response
	r    *bufio.Reader
	end  func()
}

func open(t *testing.T, s *Site, query, lastID string) *client {
	t.Helper()
	return openAs(t, s, query, "Last-Event-ID", lastID)
}

func openAs(t *testing.T, s *Site, query, header, value string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // no test waits longer for an event
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr().String()+"/events?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if value != "" {
		req.Header.Set(header, value)
	}
	transport := &http.Transport{}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	c := &client{t: t, resp: resp, r: bufio.NewReader(resp.Body)}
	c.end = func() {
		cancel()
		resp.Body.Close()
		transport.CloseIdleConnections()
	}
	t.Cleanup(c.end)
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("%s %s", resp.Status, got)
	}
	return c
}

// next gives the next event that is not about counts.
func (c *client) next() message {
	c.t.Helper()
	for {
		m, err := readMessage(c.r)
		if err != nil {
			c.t.Fatalf("the stream ended: %v", err)
		}
		if m.name != "counts" {
			return m
		}
	}
}

// line gives an event as one line: its name, and whose row in what state.
func (c *client) line() string {
	c.t.Helper()
	m := c.next()
	switch m.name {
	case "row":
		row := parse(c.t, "<table>"+m.data+"</table>")
		return "row " + row.rows()[0] + " " + text(row.class("state")[0])
	case "gone":
		return "gone " + m.data
	default:
		return m.name
	}
}

func (c *client) want(lines ...string) {
	c.t.Helper()
	for _, want := range lines {
		if got := c.line(); got != want {
			c.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// cursorOf gives the cursor that a page loaded now holds, once the feed has all of w.
func cursorOf(t *testing.T, s *Site, w *world) string {
	t.Helper()
	waitFor(t, "the feed to have everyone", func() bool {
		rows, _, _ := s.feed.since(0)
		return len(rows) == len(w.People())
	})
	return s.feed.cursor()
}

func TestEvents(t *testing.T) {
	w := office()
	s := serve(t, w)
	since := "since=" + cursorOf(t, s, w)
	all := open(t, s, since, "")
	finance := open(t, s, since+"&group=Finance", "")
	available := open(t, s, since+"&state=available", "")
	blind := open(t, s, since+"&rows=none", "")
	for _, c := range []*client{all, finance, available, blind} {
		c.want("ready") // nothing happened since the page was made
	}

	w.says("21017", "aes-cm1", span(presence.PhoneConnected, time.Now(), "tel:21017"))
	all.want("row p-21017 Busy")
	finance.want("row p-21017 Busy")
	available.want("gone p-21017")

	w.says("21042", "aes-cm1")
	all.want("row p-21042 Busy") // the meeting goes on
	available.want("gone p-21042")
	w.says("21042", "exchange-hq")
	all.want("row p-21042 Unknown")
	available.want("gone p-21042")

	w.join(person("21500", "Newt Comer", "21500", "Finance"))
	w.says("21500", "xmpp", span(presence.SessionActive, time.Now(), ""))
	all.want("row p-21500 Available")
	finance.want("row p-21500 Available")
	available.want("row p-21500 Available")

	w.set(presence.State{Person: "21500", Why: presence.Reason{Rule: presence.RuleRemoved}})
	for _, c := range []*client{all, finance, available} {
		c.want("gone p-21500")
	}
}

// A page that lost its connection gets what it missed: each person once, the
// newest state, and nothing that did not change.
func TestEventsAfterAGap(t *testing.T) {
	w := office()
	s := serve(t, w)
	before := cursorOf(t, s, w)
	for range 5 {
		w.says("21017", "aes-cm1", span(presence.PhoneConnected, time.Now(), "tel:21017"))
		w.says("21017", "aes-cm1", span(presence.PhoneIdle, time.Now(), "tel:21017"))
	}
	w.says("21099", "xmpp", span(presence.ManualBusy, time.Now(), ""))
	waitFor(t, "the feed to have it", func() bool {
		rows, _, _ := s.feed.since(s.feed.place(before))
		return len(rows) == 2 && rows[1].state.Availability == presence.Busy
	})
	open(t, s, "", before).want("row p-21017 Available", "row p-21099 Busy", "ready")
	open(t, s, "since="+before, s.feed.cursor()).want("ready") // the header is newer than the address
	for _, strange := range []string{"", "rubbish", "x-1", s.feed.cursorAt(1 << 40), "-", s.feed.epoch + "-"} {
		c := open(t, s, "since="+strange, "")
		for range 5 {
			if m := c.next(); m.name != "row" {
				t.Fatalf("cursor %q: %s, want everyone's row", strange, m.name)
			}
		}
		c.want("ready")
		c.end()
	}
}

func TestCounts(t *testing.T) {
	w := office()
	s := serve(t, w)
	c := open(t, s, "group=Finance&since="+cursorOf(t, s, w), "")
	count := func() string {
		for {
			m, err := readMessage(c.r)
			if err != nil {
				t.Fatal(err)
			}
			if m.name == "counts" {
				return attr(parse(t, m.data).class("mix")[0], "aria-label")
			}
		}
	}
	if got := count(); got != "1 available, 1 do not disturb" {
		t.Errorf("at first: %s", got)
	}
	w.says("21017", "aes-cm1", span(presence.PhoneConnected, time.Now(), "tel:21017"))
	if got := count(); got != "1 busy, 1 do not disturb" {
		t.Errorf("then: %s", got)
	}
}

// Two pages share the bytes of a row, which is written once for a state.
func TestRowsAreRenderedOnce(t *testing.T) {
	rendered := 0
	f := newFeed(func(m member) string { rendered++; return "<tr id=" + string(m.person.ID) + ">" })
	f.put(person("a", "Ann Lee", "1"), presence.State{Person: "a", Revision: 1})
	one, seq, _ := f.since(0)
	two, _, _ := f.since(0)
	if seq != 1 || rendered != 0 {
		t.Fatalf("seq %d, rendered %d times before anyone looked", seq, rendered)
	}
	if &one[0].view(presence.Everyone()).shown()[0] != &two[0].view(presence.Everyone()).shown()[0] || rendered != 1 {
		t.Errorf("rendered %d times", rendered)
	}
}

// Whatever happens, reading from any place gives each person who changed after
// it once, in order, as they are now.
func TestFeedProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFeed(func(member) string { return "" })
		var places []uint64
		now := map[presence.ID]uint64{} // revision; 0: gone
		last := map[presence.ID]uint64{}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := presence.ID(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "who"))
			places = append(places, f.seq)
			seq := f.seq
			if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				f.remove(id)
				now[id] = 0
			} else {
				f.put(presence.Person{ID: id}, presence.State{Person: id, Revision: uint64(i + 1)})
				now[id] = uint64(i + 1)
			}
			if f.seq > seq {
				last[id] = f.seq
			}
		}
		from := rapid.SampledFrom(places).Draw(t, "from")
		if f.place(f.cursorAt(from)) != from {
			t.Fatalf("a cursor is not the place it was made of")
		}
		rows, seq, _ := f.since(from)
		want := map[presence.ID]uint64{}
		for id, changed := range last {
			if changed > from {
				want[id] = now[id]
			}
		}
		got, at := map[presence.ID]uint64{}, from
		for _, r := range rows {
			if r.seq <= at || r.left != (r.state.Revision == 0) {
				t.Fatalf("row %d after %d, left %v", r.seq, at, r.left)
			}
			at = r.seq
			got[r.person.ID] = r.state.Revision
		}
		if diff := cmp.Diff(want, got); diff != "" || seq != f.seq {
			t.Fatalf("from %d to %d of %d (-want +got)\n%s", from, seq, f.seq, diff)
		}
	})
}

// The feed does not grow with everyone who ever left.
func TestFeedForgetsWhoLeft(t *testing.T) {
	f := newFeed(func(member) string { return "" })
	for i := range maxLeft * 3 {
		id := presence.ID(number(i))
		f.put(presence.Person{ID: id}, presence.State{Person: id})
		f.remove(id)
	}
	if n := f.order.Len(); n != maxLeft || len(f.rows) != maxLeft || len(f.left) != maxLeft {
		t.Errorf("%d rows of people who left, want %d", n, maxLeft)
	}
}

func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(office())
		ctx, cancel := context.WithTimeout(t.Context(), 31*time.Second)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/events?rows=none", nil)
		r.Host = "localhost"
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, r) // until the context ends
		var names []string
		for in := bufio.NewReader(rec.Body); ; {
			m, err := readMessage(in)
			if err != nil {
				break
			}
			names = append(names, m.name)
		}
		if diff := cmp.Diff([]string{"ready", "beat", "beat"}, names); diff != "" {
			t.Errorf("in 31 s (-want +got)\n%s", diff)
		}
	})
}

// A tape is an answer that remembers what was written to it, call by call.
type tape struct {
	*httptest.ResponseRecorder

	mu     sync.Mutex
	writes []string
}

func (w *tape) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes = append(w.writes, string(b))
	return len(b), nil
}

// told gives the events of each write since the last call, without counts.
func (w *tape) told(t *testing.T) (names [][]string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, text := range w.writes {
		var one []string
		for in := bufio.NewReader(strings.NewReader(text)); ; {
			m, err := readMessage(in)
			if err != nil {
				break
			}
			if m.name != "counts" {
				one = append(one, m.name)
			}
		}
		if len(one) > 0 {
			names = append(names, one)
		}
	}
	w.writes = nil
	return names
}

// After a pause a change is told at once. What changes within the frame after it is
// told when the frame is over: in one write, and of each person the newest only.
func TestFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(office())
		change := func(id presence.ID, revision uint64) {
			s.feed.put(presence.Person{ID: id}, presence.State{Person: id, Revision: revision})
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil)
		r.Host = "localhost"
		w := &tape{ResponseRecorder: httptest.NewRecorder()}
		go s.Handler().ServeHTTP(w, r)
		time.Sleep(time.Second)
		w.told(t)
		want := func(step string, want ...[]string) {
			t.Helper()
			if diff := cmp.Diff(want, w.told(t)); diff != "" {
				t.Fatalf("%s (-want +got)\n%s", step, diff)
			}
		}

		change("21017", 1)
		want("at once", []string{"row"})
		change("21017", 2)
		change("21042", 1)
		change("21042", 2)
		time.Sleep(frameEvery - time.Millisecond)
		want("within the frame")
		time.Sleep(2 * time.Millisecond)
		want("after the frame", []string{"row", "row"})
		change("21017", 3)
		want("within the next frame")
		time.Sleep(frameEvery)
		want("after the next frame", []string{"row"})
		time.Sleep(2 * frameEvery)
		change("21017", 4)
		want("at once again", []string{"row"})
	})
}

// A page with little to say is counted soon, and a thousand do not count at once.
func TestCountsAreSpread(t *testing.T) {
	s := newSite(office())
	s.streams.Store(1)
	for range 100 {
		if wait := s.spread(); wait > countsEvery/10 {
			t.Fatalf("one page waits for %s", wait)
		}
	}
	s.streams.Store(maxStreams)
	within := 0 // a tenth of the time
	for range maxStreams {
		if s.spread() < countsEvery*maxStreams/250/10 {
			within++
		}
	}
	if within > maxStreams/5 {
		t.Errorf("%d of %d pages count within a tenth of the time", within, maxStreams)
	}
}

// A client that does not read is cut off, and holds up nobody.
func TestSlowClient(t *testing.T) {
	w := office()
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	s := New(cfg, w, w, Parts{Past: w}, nil, quiet())
	s.patience = 50 * time.Millisecond
	s.feed.render = func(member) string { return `<tr id="p-x">` + strings.Repeat("x", 1<<20) + "</tr>" }
	runSite(t, s, w)
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	i := 0
	waitFor(t, "the slow client to be cut off", func() bool {
		i++
		w.set(presence.State{Person: "21042", Revision: uint64(1000 + i)}) //nolint:gosec // small
		return s.Status().Problems["streams too slow"] == 1
	})
	waitFor(t, "its stream to end", func() bool { return s.streams.Load() == 0 })
}

func TestStreamsAreBounded(t *testing.T) {
	s := newSite(office())
	s.streams.Store(maxStreams)
	rec := get(t, s, "/events")
	if rec.Code != http.StatusServiceUnavailable || s.streams.Load() != maxStreams {
		t.Errorf("code %d, %d streams", rec.Code, s.streams.Load())
	}
	s.streams.Store(maxAnyone)
	s.open[""] = maxAnyone
	if rec := get(t, s, "/events"); rec.Code != http.StatusTooManyRequests || s.streams.Load() != maxAnyone {
		t.Errorf("anyone takes the place of who signs in: code %d, %d streams", rec.Code, s.streams.Load())
	}
}

func TestRun(t *testing.T) {
	w := office()
	s := serve(t, w)
	if st := s.Status(); st.Phase != presence.PhaseLive || !strings.Contains(st.Detail, s.Addr().String()) {
		t.Errorf("status %+v", st)
	}
	cfg := DefaultConfig()
	cfg.Listen = s.Addr().String()
	second := New(cfg, w, w, Parts{Past: w}, nil, quiet())
	if err := second.Run(t.Context(), w); err == nil || presence.IsPermanent(err) {
		t.Errorf("a taken port gives %v, want an error that may pass", err)
	}
	if st := second.Status(); st.Phase != presence.PhaseConnecting || st.LastError == "" {
		t.Errorf("status %+v", st)
	}
}

// The end of Run ends the streams at once, not after a timeout.
func TestRunEndsStreams(t *testing.T) {
	w := office()
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	s := New(cfg, w, w, Parts{Past: w}, nil, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, w) }()
	waitFor(t, "the site to listen", func() bool { return s.Addr() != nil })
	c := open(t, s, "rows=none", "")
	c.want("ready")
	began := time.Now()
	cancel()
	if err := <-done; err != context.Canceled { //nolint:errorlint // exactly this one
		t.Errorf("Run = %v", err)
	}
	if _, err := io.ReadAll(c.r); err != nil && err != io.ErrUnexpectedEOF { //nolint:errorlint // exactly this one
		t.Errorf("the stream ended with %v", err)
	}
	if took := time.Since(began); took > shutdownTime/2 {
		t.Errorf("it took %s", took)
	}
	if s.Addr() != nil || s.Status().Phase == presence.PhaseLive {
		t.Errorf("it says it serves: %+v", s.Status())
	}
}

// FuzzEvent: whatever the data, a browser reads one event with that data.
func FuzzEvent(f *testing.F) {
	f.Add("<tr>\n<td>x</td>\n</tr>")
	f.Add("a\r\nb\rc\n\nevent: row\ndata: x")
	f.Add("")
	f.Add("\n: comment\rid: 7\n")
	f.Fuzz(func(t *testing.T, data string) {
		in := bufio.NewReader(strings.NewReader(string(event("row", "e-1", data))))
		m, err := readMessage(in)
		want := message{"e-1", "row", strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(data)}
		if err != nil || m != want {
			t.Fatalf("read %+v, %v; want %+v", m, err, want)
		}
		if rest, _ := io.ReadAll(in); len(rest) > 0 {
			t.Fatalf("%q comes after the event", rest)
		}
	})
}

// FuzzQuery: no address makes the board fail or write what the viewer asked as markup.
func FuzzQuery(f *testing.F) {
	f.Add("q=marta&group=Finance&state=busy&sort=since&page=2", "e-7")
	f.Add("q=%00%ff%22%3e%3cscript%3e&group='&page=-9999999999999999999", "9-")
	w := office()
	s := New(DefaultConfig(), w, w, Parts{Past: w}, nil, quiet())
	f.Fuzz(func(t *testing.T, query, cursor string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL.RawQuery, r.Host = query, "localhost"
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, r)
		if rec.Code != http.StatusOK {
			t.Fatalf("code %d", rec.Code)
		}
		if n := strings.Count(rec.Body.String(), "<script"); n != 1 {
			t.Fatalf("%d scripts", n)
		}
		if seq := s.feed.place(cursor); seq > s.feed.seq {
			t.Fatalf("cursor %q reaches %d, beyond all that was", cursor, seq)
		}
	})
}
