package api_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/bridges/web/api"
	"presenced/bridges/web/signin"
)

// A tape is a client that keeps what it is sent.
type tape struct {
	mu     sync.Mutex
	header http.Header
	buf    bytes.Buffer
	code   int
	ended  chan struct{}
	cancel context.CancelFunc
}

func (t *tape) Header() http.Header  { return t.header }
func (t *tape) WriteHeader(code int) { t.code = code }
func (t *tape) Flush()               {}
func (t *tape) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Write(b)
}

// watch opens a stream; the header is name and value, by turns.
func (w *world) watch(who signin.Identity, query string, header ...string) *tape {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/watch"+query, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	t := &tape{header: http.Header{}, ended: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(t.ended)
		w.as(who).ServeHTTP(t, r)
	}()
	return t
}

// An event is one that a client was sent.
type event struct{ id, name, data string }

// events gives what came since the last call, when all is quiet.
func (t *tape) events() []event {
	synctest.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []event
	for block := range strings.SplitSeq(t.buf.String(), "\n\n") {
		var e event
		for line := range strings.SplitSeq(block, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			switch name {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data = value
			}
		}
		if e.name != "" {
			all = append(all, e)
		}
	}
	t.buf.Reset()
	return all
}

// brief gives events in short, such as "reset state:alder:busy ready".
func brief(all []event) string {
	var words []string
	for _, e := range all {
		word := e.name
		if _, rest, ok := strings.Cut(e.data, `"person":"`); ok {
			word += ":" + rest[:strings.IndexByte(rest, '"')]
		}
		if _, rest, ok := strings.Cut(e.data, `"availability":"`); ok {
			word += ":" + rest[:strings.IndexByte(rest, '"')]
		}
		words = append(words, word)
	}
	if n := slices.Index(words, "ready"); n > 1 && words[0] == "reset" { // a snapshot has no order
		slices.Sort(words[1:n])
	}
	return strings.Join(words, " ")
}

// live runs a test with the feed of a world in a bubble.
func live(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := makeWorld(t, false)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.api.Run(ctx, w.hub) }()
		synctest.Wait()
		test(t, w)
		cancel()
		if err := <-ended; err != context.Canceled { //nolint:errorlint // exactly this one
			t.Errorf("Run: %v", err)
		}
	})
}

func (w *world) saw(t *tape, want string) []event {
	w.t.Helper()
	all := t.events()
	if got := brief(all); got != want {
		w.t.Errorf("saw %q, want %q", got, want)
	}
	return all
}

func TestWatch(t *testing.T) {
	live(t, func(t *testing.T, w *world) {
		w.people(everyone()[:2]...)
		synctest.Wait()
		c := w.watch(administrator(), "?id=alder&id=birch") // those who left are told of as well
		first := w.saw(c, "reset state:alder:unknown state:birch:unknown ready")
		if got := c.header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("content type %q", got)
		}
		w.says("4750", "aes-hq", span(presence.PhoneConnected))
		w.saw(c, "state:alder:busy")
		w.says("4751", "aes-hq", span(presence.PhoneIdle))
		last := w.saw(c, "state:birch:available")
		w.people(everyone()[1:2]...)
		w.saw(c, "gone:alder")
		time.Sleep(api.BeatEvery)
		w.saw(c, "beat")
		c.cancel()
		<-c.ended

		// Who comes back gets what changed since, and no more.
		back := w.watch(administrator(), "?group=sales", "Last-Event-ID", last[0].id)
		w.saw(back, "gone:alder ready")
		back.cancel()
		<-back.ended
		back = w.watch(administrator(), "?id=alder&id=birch&since="+first[1].id) // cut off in the middle of the snapshot
		w.saw(back, "state:birch:available gone:alder ready")
		back.cancel()
		<-back.ended
		back = w.watch(administrator(), "?id=alder&id=birch&since="+first[1].id, "Last-Event-ID", last[0].id) // an address that is used again by a browser
		w.saw(back, "gone:alder ready")
		back.cancel()
		<-back.ended
		for _, stale := range []string{"rubbish", "x-3", strings.TrimSuffix(last[0].id, "3") + "99999", last[0].id + "x"} {
			back = w.watch(administrator(), "", "Last-Event-ID", stale)
			w.saw(back, "reset state:birch:available ready")
			back.cancel()
			<-back.ended
		}
	})
}

// Somebody who left and is forgotten makes old cursors void: the client would never
// hear of it.
func TestWatchForgets(t *testing.T) {
	live(t, func(_ *testing.T, w *world) {
		c := w.watch(administrator(), "?id=alder")
		old := c.events()
		many := everyone()
		for i := range api.MaxLeft + 1 {
			many = append(many, presence.Person{ID: presence.ID(fmt.Sprintf("p%d", i)), Name: "P"})
		}
		w.people(many...)
		synctest.Wait()
		w.people(everyone()...)
		w.says("4750", "aes-hq", span(presence.PhoneConnected))
		w.saw(c, "state:alder:busy")
		c.cancel()
		<-c.ended
		back := w.watch(administrator(), "?id=alder", "Last-Event-ID", old[0].id)
		w.saw(back, "reset state:alder:busy ready")
		back.cancel()
		<-back.ended
	})
}

// A watcher is not told that something changed that they do not see, and is told when
// a rule has it that they see something else.
func TestWatchThroughTheGate(t *testing.T) {
	live(t, func(t *testing.T, w *world) {
		by := audit.Actor{Who: "root", From: "test"}
		set := func(level presence.Level) {
			t.Helper()
			if err := w.gate.Set(t.Context(), by, access.Rule{Of: "alder", For: access.Audience{Kind: access.ForDefault}, Level: level}); err != nil {
				t.Fatal(err)
			}
		}
		set(presence.LevelStatus)
		w.says("4750", "aes-hq", span(presence.PhoneConnected))
		synctest.Wait()
		c := w.watch(anyone(), "?id=alder")
		if all := w.saw(c, "reset state:alder:busy ready"); strings.Contains(all[1].data, "on-the-phone") {
			t.Errorf("told too much: %s", all[1].data)
		}
		full := w.watch(administrator(), "?id=alder")
		w.saw(full, "reset state:alder:busy ready")
		w.says("4750", "aes-hq", span(presence.PhoneHeld)) // which is busy, too
		w.saw(c, "")
		w.says("4750", "aes-hq", span(presence.PhoneDND))
		w.saw(c, "state:alder:dnd")
		set(presence.LevelBlock)
		w.saw(c, "state:alder:offline")
		w.says("4750", "aes-hq", span(presence.PhoneConference))
		w.saw(c, "")
		set(presence.LevelFull)
		w.saw(c, "state:alder:dnd")
		full.cancel()
		close(w.sight.over) // the session
		synctest.Wait()
		select {
		case <-c.ended:
		default:
			t.Error("the stream goes on though the session is over")
		}
		c.cancel()
	})
}

func TestWatchSome(t *testing.T) {
	live(t, func(_ *testing.T, w *world) {
		sales := w.watch(administrator(), "?group=sales")
		w.saw(sales, "reset state:alder:unknown state:birch:unknown ready")
		two := w.watch(administrator(), "?id=ivy&id=birch")
		w.saw(two, "reset state:birch:unknown state:ivy:unknown ready")
		w.says("4752", "aes-hq", span(presence.PhoneConnected))
		w.saw(sales, "")
		w.saw(two, "state:ivy:busy")
		for _, c := range []*tape{sales, two} {
			c.cancel()
			<-c.ended
		}
	})
}
