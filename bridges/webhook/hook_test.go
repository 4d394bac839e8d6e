package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
	"presenced/bridges/outbox"
)

// hookTo makes a hook whose network is r.
func hookTo(t *testing.T, r *receiver, n *notes, change func(*Config)) *Hook {
	t.Helper()
	cfg := testConfig(t, "https://crm.example.com/secret-path")
	if change != nil {
		change(&cfg)
	}
	if ps := cfg.Check(); len(ps) != 0 {
		t.Fatal(ps)
	}
	o := New(cfg, n, nil, quiet())
	o.transport = r
	return o
}

func want(t *testing.T, r *receiver, all ...string) {
	t.Helper()
	synctest.Wait()
	wants := map[string]string{}
	for _, text := range all {
		id, state, _ := strings.Cut(text, "=")
		wants[id] = state
	}
	if d := cmp.Diff(wants, r.holds(t)); d != "" {
		t.Errorf("- wanted, + the receiver has\n%s", d)
	}
}

// TestNewestArrives follows people through an outage, and looks at what the receiver
// is asked meanwhile.
func TestNewestArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r := newOffice("ann", "bob"), newReceiver()
		h := hookTo(t, r, newNotes(), nil)
		h.gate = o
		if s := h.Status(); s.Phase != presence.PhaseConnecting {
			t.Errorf("%+v", s)
		}
		run(t, h, o)
		time.Sleep(time.Second)
		want(t, r, "ann=available", "bob=available")
		if s := h.Status(); s.Phase != presence.PhaseLive || s.Detail != "crm.example.com was told of 2 people" {
			t.Errorf("%+v", s)
		}

		o.set("ann", presence.Busy)
		time.Sleep(time.Second)
		want(t, r, "ann=busy", "bob=available")
		told := r.count()
		o.set("ann", presence.Busy)
		time.Sleep(time.Second)
		if r.count() != told {
			t.Error("the receiver is told what it knows")
		}

		r.answers(func(string, int) (int, string) { return 0, "" })
		for i := range 600 {
			o.set("ann", []presence.Availability{presence.Busy, presence.Away}[i%2])
			o.set("bob", []presence.Availability{presence.DoNotDisturb, presence.Available}[i%2])
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := r.count() - told; n > 30 {
			t.Errorf("a receiver that is away for ten minutes was tried %d times", n)
		}
		if s := h.Status(); s.Phase != presence.PhaseDegraded || !strings.Contains(s.Detail, "connection refused; 2 people wait") || strings.Contains(s.Detail+s.LastError, "secret-path") {
			t.Errorf("%+v", s)
		}
		r.answers(nil)
		time.Sleep(longestWait + time.Second)
		want(t, r, "ann=away", "bob=available")
	})
}

// TestWhoIsTold has people leave, be hidden, and change groups.
func TestWhoIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r := newOffice("ann", "bob", "cat", "dan"), newReceiver()
		o.group("ann", "sales")
		o.group("bob", "sales")
		h := hookTo(t, r, newNotes(), func(c *Config) { c.People = []string{"group:sales", "cat"} })
		h.gate = o
		o.hide("cat", true)
		run(t, h, o)
		time.Sleep(time.Second)
		want(t, r, "ann=available", "bob=available")
		o.hide("cat", false)
		o.hide("bob", true)
		time.Sleep(time.Second)
		want(t, r, "ann=available", "cat=available")
		o.remove("cat")
		o.group("ann")
		o.group("dan", "sales")
		h.Review()
		time.Sleep(time.Second)
		want(t, r, "dan=available")
		o.set("dan", presence.Away) // the new watch is the one that counts
		time.Sleep(time.Second)
		want(t, r, "dan=away")
	})
}

// TestRestart kills the hook in the middle of an outage.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r, n := newOffice("ann", "bob", "cat"), newReceiver(), newNotes()
		h := hookTo(t, r, n, nil)
		h.gate = o
		stop := run(t, h, o)
		time.Sleep(time.Second)
		want(t, r, "ann=available", "bob=available", "cat=available")
		r.answers(func(string, int) (int, string) { return http.StatusServiceUnavailable, "" })
		o.set("ann", presence.Busy)
		time.Sleep(time.Minute)
		if err := stop(); err == nil || h.Status().Phase != presence.PhaseConnecting {
			t.Error("the hook did not end")
		}
		o.set("bob", presence.Away)
		o.remove("cat") // while nobody looked
		r.answers(nil)

		stranger, _ := json.Marshal(outbox.Record{Person: "eve"})
		n.values[personKey("zoe")] = stranger // is not of zoe
		h = hookTo(t, r, n, nil)
		h.gate = o
		run(t, h, o)
		time.Sleep(time.Second)
		want(t, r, "ann=busy", "bob=away")
		if s := h.Status(); s.Problems["records unreadable"] != 1 {
			t.Errorf("%+v", s)
		}
		if i := slices.IndexFunc(r.bodies, func(b string) bool { return strings.Contains(b, "eve") }); i >= 0 {
			t.Errorf("somebody whom the receiver never knew is taken back: %s", r.bodies[i])
		}
	})
}

// TestGone stops at 410, over a restart too, until somebody tries again.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r, n := newOffice("ann"), newReceiver(), newNotes()
		r.answers(func(string, int) (int, string) { return http.StatusGone, "" })
		h := hookTo(t, r, n, nil)
		h.gate = o
		if _, err := h.Retry(""); !errors.Is(err, ErrNotRunning) {
			t.Error(err)
		}
		stop := run(t, h, o)
		time.Sleep(time.Second)
		_ = stop()
		h = hookTo(t, r, n, nil)
		h.gate = o
		stop = run(t, h, o)
		o.set("ann", presence.Busy)
		time.Sleep(48 * time.Hour)
		if s := h.Status(); r.count() != 1 || s.Phase != presence.PhaseDisabled || s.Detail != "the receiver answers 410 Gone; presenced webhook retry crm tries again" {
			t.Errorf("%d requests, %+v", r.count(), s)
		}
		r.answers(nil)
		if _, err := h.Retry(""); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		want(t, r, "ann=busy")
		_ = stop()
		h = hookTo(t, r, n, nil)
		h.gate = o
		run(t, h, o)
		time.Sleep(time.Second)
		if s := h.Status(); s.Phase != presence.PhaseLive {
			t.Errorf("after it was tried again, and a restart: %+v", s)
		}
	})
}

// TestLetters gives up what the receiver does not take, keeps it, and tries it again.
func TestLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r, n := newOffice("ann", "bob"), newReceiver(), newNotes()
		r.answers(func(person string, _ int) (int, string) {
			if person == "ann" {
				return http.StatusUnprocessableEntity, ""
			}
			return http.StatusOK, ""
		})
		h := hookTo(t, r, n, func(c *Config) { c.GiveUp = 10 * time.Minute })
		h.gate = o
		stop := run(t, h, o)
		time.Sleep(time.Hour)
		want(t, r, "bob=available")
		for i := range len(r.ids) - 1 {
			if person := r.bodies[i]; strings.Contains(person, `"ann"`) && strings.Contains(r.bodies[i+1], `"ann"`) && r.ids[i] != r.ids[i+1] {
				t.Errorf("one message has the identifiers %s and %s", r.ids[i], r.ids[i+1])
			}
		}
		_ = stop()
		h = hookTo(t, r, n, nil)
		h.gate = o
		run(t, h, o)
		time.Sleep(time.Hour)
		dead, err := h.Dead()
		if err != nil || len(dead) != 1 || dead[0].Person != "ann" || dead[0].Why != "the receiver answers 422 Unprocessable Entity" || dead[0].Tries < 5 {
			t.Errorf("%+v, %v", dead, err)
		}
		if s := h.Status(); s.Phase != presence.PhaseDegraded || !strings.Contains(s.Detail, "refuses what is about 1 of 2 people; 1 given up") {
			t.Errorf("%+v", s)
		}
		r.answers(nil)
		if k, err := h.Retry("ann"); k != 1 || err != nil {
			t.Error(k, err)
		}
		time.Sleep(time.Second)
		want(t, r, "ann=available", "bob=available")
	})
}

// TestRetryAfter leaves a receiver alone for as long as it says.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r := newOffice("ann"), newReceiver()
		r.answers(func(_ string, n int) (int, string) {
			if n == 0 {
				return http.StatusTooManyRequests, "600"
			}
			return http.StatusOK, ""
		})
		h := hookTo(t, r, newNotes(), nil)
		h.gate = o
		run(t, h, o)
		time.Sleep(time.Hour)
		want(t, r, "ann=available")
		if len(r.times) != 2 || r.times[1].Sub(r.times[0]) != 10*time.Minute {
			t.Errorf("requests at %s", r.times)
		}
	})
}

// TestPace sends everybody no faster than configured, and not more at once.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []presence.ID
		for i := range 200 {
			ids = append(ids, presence.ID(fmt.Sprintf("p%03d", i)))
		}
		o, r := newOffice(ids...), newReceiver()
		h := hookTo(t, r, newNotes(), func(c *Config) { c.Rate = 20 })
		h.gate = o
		run(t, h, o)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if s := h.Status(); r.count() < 95 || r.count() > 101 || s.Phase != presence.PhaseSyncing || s.Total != 200 {
			t.Errorf("%d requests in five seconds at 20 a second; %+v", r.count(), s)
		}
		time.Sleep(6 * time.Second)
		if s := h.Status(); r.count() != 200 || s.Phase != presence.PhaseLive {
			t.Errorf("%d requests; %+v", r.count(), s)
		}
	})
}

// TestKeptAtTheEnd writes at the end what could not be written until then, and of one
// person the newest only.
func TestKeptAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNotes()
		n.err = errors.New("the store is down")
		k := newKeeper(n, func(error) {})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); k.run(ctx) }()
		k.add("person-a", []byte("old"))
		k.add("person-b", []byte("b"))
		time.Sleep(keepAgain / 2)
		k.add("person-a", []byte("new"))
		k.add("person-b", nil)
		synctest.Wait()
		n.err = nil // before the next round
		cancel()
		<-ended
		if got := fmt.Sprintf("%s", n.values); got != "map[person-a:new]" {
			t.Errorf("kept: %s", got)
		}
	})
}

// A meddler fails to write, and has something newer to be kept meanwhile.
type meddler struct {
	*notes
	meanwhile func()
}

func (m *meddler) Put(ctx context.Context, key string, value []byte) error {
	if m.meanwhile == nil {
		return m.notes.Put(ctx, key, value)
	}
	m.meanwhile()
	m.meanwhile = nil
	return errors.New("the store is down")
}

// TestKeptNewest does not write again what something newer has replaced.
func TestKeptNewest(t *testing.T) {
	m := &meddler{notes: newNotes()}
	k := newKeeper(m, func(error) {})
	m.meanwhile = func() { k.add("person-a", []byte("new")) }
	k.add("person-a", []byte("old"))
	for range 2 {
		k.round(t.Context())
	}
	if got := fmt.Sprintf("%s", m.values); got != "map[person-a:new]" {
		t.Errorf("kept: %s", got)
	}
}

// TestMemoryFails goes on while nothing can be kept, and keeps it later.
func TestMemoryFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r, n := newOffice("ann"), newReceiver(), newNotes()
		h := hookTo(t, r, n, nil)
		h.gate = o
		n.err = errors.New("the store is down")
		if err := h.Run(t.Context(), o); err == nil || presence.IsPermanent(err) {
			t.Errorf("without knowing whom the receiver knows: %v", err)
		}
		n.err = nil
		run(t, h, o)
		synctest.Wait()
		n.mu.Lock()
		n.err = errors.New("the store is down")
		n.mu.Unlock()
		o.mu.Lock()
		o.people["bob"] = presence.Person{ID: "bob"}
		o.mu.Unlock()
		o.set("bob", presence.Away)
		time.Sleep(time.Minute)
		want(t, r, "ann=available", "bob=away")
		n.mu.Lock()
		n.err = nil
		n.mu.Unlock()
		time.Sleep(2 * time.Second)
		n.mu.Lock()
		defer n.mu.Unlock()
		if string(n.values[personKey("bob")]) != `{"person":"bob"}` {
			t.Errorf("kept: %q", n.values)
		}
	})
}
