package lps

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeptInVain starts with records that are worth nothing: they go, and nobody is told.
func TestKeptInVain(t *testing.T) {
	h := newHouse(t)
	h.stop()
	write := func(dialog string, change func(*stored)) []byte {
		s := stored{
			Record: Record{Dialog: dialog, Call: "call", Tag: "theirs", Entity: "alice@example.test", Event: "presence", Expires: time.Now().Add(time.Hour)},
			Way:    way{Network: "udp", Remote: netip.MustParseAddrPort("127.0.0.1:9"), URI: "sip:bob@127.0.0.1:9", From: "<sip:alice@example.test>;tag=a", To: "<sip:bob@example.test>;tag=b"},
		}
		change(&s)
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	kept := &memory{values: map[string][]byte{
		keyOf("garbage"): []byte("{"),
		keyOf("another"): write("other", func(*stored) {}),
		keyOf("over"):    write("over", func(s *stored) { s.Expires = time.Now().Add(-time.Second) }),
		keyOf("nobody"):  write("nobody", func(s *stored) { s.Entity = "zoe@example.test" }),
		keyOf("nowhere"): write("nowhere", func(s *stored) { s.Way.Remote = netip.AddrPort{} }),
		keyOf("strange"): write("strange", func(s *stored) { s.Way.Network = "sctp" }),
		keyOf("good"):    write("good", func(*stored) {}),
	}}
	h.run(h.cfg, kept)
	if n := h.Status().Problems["stored subscriptions malformed"]; n != 2 {
		t.Errorf("%d malformed", n)
	}
	h.stop()
	if got := slices.Collect(maps.Keys(kept.values)); !slices.Equal(got, []string{keyOf("good")}) {
		t.Errorf("left: %q", got)
	}
}

// A balky memory fails until it is told to do better.
type balky struct {
	memory
	fails error
}

func (b *balky) Put(ctx context.Context, key string, value []byte) error {
	if b.fails != nil {
		return b.fails
	}
	return b.memory.Put(ctx, key, value)
}

// TestKeeperTriesAgain writes again what could not be written, but for what something
// newer has replaced, and what is left at the end of all.
func TestKeeperTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &balky{memory: memory{values: map[string][]byte{}}, fails: errors.New("the store is down")}
		k := newKeeper(m, slog.New(slog.DiscardHandler))
		ctx, end := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- k.run(ctx) }()
		keep := func(dialog, call string) {
			k.keep(dialog, &Record{Dialog: dialog, Call: call, Route: &Route{way: &way{}}})
		}
		kept := func() map[string]string {
			time.Sleep(2 * writeWait) // of the bubble
			synctest.Wait()
			got := map[string]string{}
			for _, value := range m.values {
				var s stored
				if err := json.Unmarshal(value, &s); err != nil {
					t.Fatal(err)
				}
				got[s.Dialog] = s.Call
			}
			return got
		}
		keep("a", "old")
		keep("b", "b")
		if got := kept(); len(got) > 0 || k.problems() == 0 {
			t.Errorf("kept %v, %d problems", got, k.problems())
		}
		m.fails = nil
		keep("a", "new")
		k.keep("b", nil)
		if got := kept(); !maps.Equal(got, map[string]string{"a": "new"}) {
			t.Errorf("kept %v", got)
		}
		k.keep("a", nil)
		keep("c", "last")
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := kept(); !maps.Equal(got, map[string]string{"c": "last"}) {
			t.Errorf("kept at the end: %v", got)
		}
	})
}
