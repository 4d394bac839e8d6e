package xmpp

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

// at is the moment of all that happens in traces.
func at() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

// fataler is what testing.T and rapid.T share.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// parse reads one stanza as the server would send it.
func parse(t fataler, text string) *stanza {
	t.Helper()
	r := newReader(strings.NewReader("<stream:stream xmlns='" + nsComponent + "' xmlns:stream='" + nsStream + "'>" + text))
	if _, err := r.header(); err != nil {
		t.Fatal(err)
	}
	st, err := r.element()
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &st
}

// showing of carol, with channels.
func carolShows(change func(*presence.State)) showing {
	s := state(presence.Available, presence.NoActivity)
	if change != nil {
		change(&s)
	}
	return showing{local: "carol", who: &resident{id: "carol", local: "carol", state: s}}
}

func onThePhone(s *presence.State) {
	s.Availability, s.Activity = presence.Busy, presence.ActivityPhone
	s.Channels[presence.Phone] = presence.Channel{State: presence.ChannelInUse}
}

// testBook shows channels.
func testBook(gate presence.Gate) *book {
	return newBook("presence.xmpp.test", "xmpp", mapping{busy: "dnd", channels: true}, gate)
}

// A desk is a book whose memory is immediate.
type desk struct {
	*book
	kept map[string][]byte
}

func newDesk() *desk {
	d := &desk{testBook(newGate()), map[string][]byte{}}
	d.plan(time.Time{}, true, func(int, func(i, j int)) {})
	return d
}

// out takes everything that is to be sent.
func (d *desk) out() string {
	for {
		saves := d.saves(true)
		if len(saves) == 0 {
			break
		}
		for _, s := range saves {
			if s.value == nil {
				delete(d.kept, s.local)
			} else {
				d.kept[s.local] = s.value
			}
			for _, w := range s.welcome {
				d.welcome(s.local, w, at())
			}
		}
	}
	out := d.urgent
	d.urgent = nil
	for n := 1; n > 0; {
		out, n = d.nextLive(out, at())
	}
	for n := 1; n > 0; {
		out, n = d.nextResync(out, at())
	}
	d.saves(true)
	return strings.ReplaceAll(string(out), "><presence", ">\n<presence")
}

func (d *desk) hear(t fataler, text string) string {
	t.Helper()
	d.receive(parse(t, text), true, at())
	return d.out()
}

func TestBook(t *testing.T) {
	t.Parallel()
	const (
		subscribe  = "<presence type='subscribe' from='bob@xmpp.test' to='carol@presence.xmpp.test' xml:lang='en'/>"
		subscribed = "<presence type='subscribed' from='carol@presence.xmpp.test' to='bob@xmpp.test'/>"
		refused    = "<presence type='unsubscribed' from='carol@presence.xmpp.test' to='bob@xmpp.test'/>"
		free       = "<presence from='carol@presence.xmpp.test/presence' to='bob@xmpp.test'><priority>0</priority></presence>"
		freeLate   = "<presence from='carol@presence.xmpp.test/presence' to='bob@xmpp.test'><priority>0</priority><delay xmlns='urn:xmpp:delay' from='presence.xmpp.test' stamp='2026-11-20T10:05:00Z'/></presence>"
		busy       = "<presence from='carol@presence.xmpp.test/presence' to='bob@xmpp.test'><show>dnd</show><status>On the phone</status><priority>0</priority></presence>\n" +
			"<presence from='carol@presence.xmpp.test/phone' to='bob@xmpp.test'><show>dnd</show><status>On the phone</status><priority>-1</priority></presence>"
		gone = "<presence type='unavailable' from='carol@presence.xmpp.test/presence' to='bob@xmpp.test'/>"
	)
	probeAnswer := strings.ReplaceAll(freeLate, "to='bob@xmpp.test'", "to='bob@xmpp.test/r2'")
	type step struct {
		in      string // a stanza, "!" and a stanza of somebody not allowed, or a word below
		want    string
		trouble string // why the row is there, if not plain
	}
	states := map[string]showing{
		"free":    carolShows(nil),
		"busy":    carolShows(onThePhone),
		"refresh": carolShows(func(s *presence.State) { s.Since, s.Revision = s.Since.Add(time.Hour), 7 }),
		"offline": carolShows(func(s *presence.State) { s.Availability = presence.Offline }),
		"removed": {local: "carol"},
	}
	for name, steps := range map[string][]step{
		"subscribe, again, unsubscribe": {
			{in: "free"},
			{in: subscribe, want: subscribed + "\n" + freeLate},
			{in: subscribe, want: subscribed + "\n" + freeLate},
			{in: "<presence type='unsubscribe' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>", want: refused + "\n" + gone},
			{in: "busy"},
			{in: "<presence type='unsubscribe' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>", want: refused},
			{in: subscribe, want: subscribed + "\n" + strings.ReplaceAll(busy, "</presence>", "<delay/></presence>")},
		},
		"subscribe refused": {
			{in: "free"},
			{in: "!" + subscribe, want: refused},
			{in: "busy"},
		},
		"the right is taken away": {
			{in: "free"},
			{in: subscribe, want: subscribed + "\n" + freeLate},
			{in: "!" + subscribe, want: refused + "\n" + gone},
			{in: "busy"},
		},
		"subscribe to nobody": {{in: subscribe, want: refused}},
		"changes": {
			{in: "free"},
			{in: subscribe, want: subscribed + "\n" + freeLate},
			{in: "busy", want: busy},
			{in: "busy"},
			{in: "free", want: free + "\n<presence type='unavailable' from='carol@presence.xmpp.test/phone' to='bob@xmpp.test'/>"},
			{in: "refresh", trouble: "an unchanged refresh sends nothing"},
			{in: "offline", want: "<presence type='unavailable' from='carol@presence.xmpp.test/presence' to='bob@xmpp.test'><status>Offline</status></presence>"},
		},
		"probe from a bare and a full address": {
			{in: "free"},
			{in: subscribe, want: subscribed + "\n" + freeLate},
			{in: "<presence type='probe' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>", want: freeLate},
			{in: "<presence type='probe' from='bob@xmpp.test/r2' to='carol@presence.xmpp.test'/>", want: probeAnswer},
			{in: "<presence from='bob@xmpp.test/r2' to='carol@presence.xmpp.test'><priority>0</priority><x xmlns='vcard-temp:x:update'/></presence>", want: probeAnswer},
		},
		"probe of a stranger, before the subscribe": {
			{in: "free"},
			{in: "<presence type='probe' from='bob@xmpp.test/r1' to='carol@presence.xmpp.test'/>", want: refused},
			{in: "<presence from='bob@xmpp.test/r1' to='carol@presence.xmpp.test'/>"},
			{in: subscribe, want: subscribed + "\n" + freeLate},
		},
		"probe while nothing is available": {
			{in: "offline"},
			{in: subscribe, want: subscribed},
			{in: "<presence type='probe' from='bob@xmpp.test/r2' to='carol@presence.xmpp.test'/>", want: "<presence type='unavailable' from='carol@presence.xmpp.test' to='bob@xmpp.test/r2'/>"},
		},
		"removal from the roster, as Prosody says it": {
			{in: "free"},
			{in: subscribe, want: subscribed + "\n" + freeLate},
			{in: "<presence type='unsubscribed' from='bob@xmpp.test/r1' to='carol@presence.xmpp.test'/>", want: refused + "\n" + gone},
			{in: "<presence type='unsubscribed' from='bob@xmpp.test/r1' to='carol@presence.xmpp.test'/>", trouble: "no ping-pong"},
			{in: "busy"},
		},
		"removal from the roster, as ejabberd says it": {
			{in: "free"},
			{in: subscribe, want: subscribed + "\n" + freeLate},
			{in: "<presence type='unavailable' from='bob@xmpp.test/r1' to='carol@presence.xmpp.test'/>"},
			{in: "<presence type='unsubscribed' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>", want: refused + "\n" + gone},
		},
		"errors mute until a probe": {
			{in: "free"},
			{in: subscribe, want: subscribed + "\n" + freeLate},
			{in: "<presence type='error' from='bob@xmpp.test' to='carol@presence.xmpp.test'><error type='wait'/></presence>"},
			{in: "busy"},
			{in: "free"},
			{in: "<presence type='probe' from='bob@xmpp.test/r2' to='carol@presence.xmpp.test'/>", want: probeAnswer},
			{in: "busy", want: busy},
		},
		"what needs no answer": {
			{in: "free"},
			{in: "<presence type='subscribed' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>"},
			{in: "<presence type='unavailable' from='bob@xmpp.test/r1' to='carol@presence.xmpp.test'/>"},
			{in: "<presence type='error' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>"},
			{in: "<presence type='nonsense' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>"},
		},
		"a person leaves the directory and is back": {
			{in: "free"},
			{in: subscribe, want: subscribed + "\n" + freeLate},
			{in: "removed", want: gone},
			{in: "<presence type='probe' from='bob@xmpp.test/r2' to='carol@presence.xmpp.test'/>", want: "<presence type='unavailable' from='carol@presence.xmpp.test' to='bob@xmpp.test/r2'/>"},
			{in: "free", want: free},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk()
			for i, s := range steps {
				var got string
				if shows, ok := states[s.in]; ok {
					d.show(shows)
					got = d.out()
				} else if in, ok := strings.CutPrefix(s.in, "!"); ok {
					d.receive(parse(t, in), false, at())
					got = d.out()
				} else {
					got = d.hear(t, s.in)
				}
				want := s.want
				if strings.Contains(want, "<delay/>") { // the phone has no time of its own in these states
					want = strings.Replace(want, "<delay/>", "<delay xmlns='urn:xmpp:delay' from='presence.xmpp.test' stamp='2026-11-20T10:05:00Z'/>", 1)
					want = strings.Replace(want, "<delay/>", "", 1)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("step %d, %s %s (-want +got):\n%s", i, s.in, s.trouble, diff)
				}
			}
		})
	}
}

// Nothing is acknowledged before it is durable, and what is not is asked again
// after a crash.
func TestBookKeepsFirst(t *testing.T) {
	t.Parallel()
	b := testBook(newGate())
	b.plan(time.Time{}, true, rand.Shuffle)
	b.show(carolShows(nil))
	b.receive(parse(t, "<presence type='subscribe' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>"), true, at())
	if len(b.urgent) > 0 {
		t.Fatalf("answered before it was kept: %s", b.urgent)
	}
	b.show(carolShows(onThePhone))
	if out, n := b.nextLive(nil, at()); n > 0 {
		t.Fatalf("answered before it was kept: %s", out)
	}
	saves := b.saves(false)
	if len(saves) != 1 || len(saves[0].welcome) != 1 {
		t.Fatalf("saves: %+v", saves)
	}
	after := testBook(newGate())
	if bad := after.load(map[string][]byte{recordKey("carol"): saves[0].value, "x": []byte("{")}); bad != 1 {
		t.Errorf("%d bad records", bad)
	}
	after.show(carolShows(nil))
	after.plan(time.Time{}, false, rand.Shuffle)
	if out, _ := after.nextResync(nil, at()); !strings.HasPrefix(string(out), "<presence type='subscribed'") || !strings.Contains(string(out), "<priority>0") {
		t.Errorf("the unanswered subscription after a restart: %s", out)
	}
}

func TestBookTooManyWatchers(t *testing.T) {
	t.Parallel()
	d := newDesk()
	d.show(carolShows(nil))
	for i := range maxWatchers {
		d.contacts["carol"].watchers[fmt.Sprintf("u%d@xmpp.test", i)] = &watch{contact: d.contacts["carol"], joined: true}
	}
	got := d.hear(t, "<presence type='subscribe' from='bob@xmpp.test' to='carol@presence.xmpp.test'/>")
	if want := "<presence type='unsubscribed' from='carol@presence.xmpp.test' to='bob@xmpp.test'/>"; got != want || d.refused != 1 {
		t.Errorf("got %s", got)
	}
	if size := len(d.contacts["carol"].record()); size > 900<<10 {
		t.Errorf("a full record has %d bytes, more than a store takes", size)
	}
}

// The plan after a loss: ghosts, then differences and what may not have arrived,
// then, if the loss was long, the rest.
func TestBookPlan(t *testing.T) {
	t.Parallel()
	lost := at()
	m := mapping{busy: "dnd", channels: true}
	free := m.facesOf(carolShows(nil).who.state)
	old := free[aggregate].hash()
	now := m.facesOf(carolShows(onThePhone).who.state)
	build := func() *book {
		b := testBook(newGate())
		for name, sent := range map[string]uint64{"same": now[aggregate].hash(), "differs": old, "recent": now[aggregate].hash()} {
			c := b.contact(name)
			c.who = carolShows(onThePhone).who
			w := &watch{contact: c, jid: name + "@xmpp.test", access: presence.Everyone(), joined: true, at: lost.Add(-time.Hour)}
			w.sent[aggregate], w.sent[phone] = sent, now[phone].hash()
			if name == "recent" {
				w.at = lost.Add(-30 * time.Second)
			}
			c.watchers[w.jid] = w
		}
		c := b.contact("ghost")
		w := &watch{contact: c, jid: "ghost@xmpp.test", joined: true, at: lost.Add(-time.Hour)}
		w.sent[aggregate] = old
		c.watchers[w.jid] = w
		return b
	}
	order := func(full bool) (got []string, sent int) {
		b := build()
		b.plan(lost, full, rand.Shuffle)
		for {
			out, n := b.nextResync(nil, at())
			if n == 0 {
				return got, sent
			}
			_, to, _ := strings.Cut(string(out), " to='")
			to, _, _ = strings.Cut(to, "@")
			got = append(got, to)
			sent += n
		}
	}
	for _, c := range []struct {
		full  bool
		first string
		rest  []string
		sent  int
	}{
		{false, "ghost", []string{"differs", "recent"}, 1 + 1 + 2},
		{true, "ghost", []string{"differs", "recent", "same"}, 1 + 2 + 2 + 2},
	} {
		got, sent := order(c.full)
		if len(got) == 0 || got[0] != c.first || sent != c.sent || len(got) != 1+len(c.rest) {
			t.Errorf("full %v: %v, %d stanzas", c.full, got, sent)
			continue
		}
		if c.full && got[3] != "same" {
			t.Errorf("what was known came before differences: %v", got)
		}
	}
}

// Laws: when all is sent, what a watcher got last is the state as the gate gives
// it; who is to be confirmed got nothing, not even an answer; a refresh sends nothing; after the unsubscribe nothing comes; a restart from what was kept ends
// in the same picture; nothing is sent that carries an xmlns on a stanza.
func TestBookLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		gate := newGate()
		d := newDesk()
		d.gate = gate
		watching := map[string]bool{}            // by watcher
		joined := map[string]bool{}              // who was told to be subscribed
		screen := map[string]map[string]string{} // watcher -> resource -> what it shows
		look := func(text string) {
			for line := range strings.SplitSeq(text, "\n") {
				if line == "" {
					continue
				}
				st := parse(t, line)
				bob := bareJID(st.to)
				if screen[bob] == nil {
					screen[bob] = map[string]string{}
				}
				_, _, res := splitJID(st.from)
				_, rest, _ := strings.Cut(line, ">")
				rest, _, _ = strings.Cut(rest, "<delay")
				switch {
				case st.typ == "unavailable" && res == "":
					clear(screen[bob])
				case st.typ == "unavailable":
					delete(screen[bob], res)
				case st.typ == "subscribed":
					if !joined[bob] && gate.Access(asWatcher(bob, "xmpp"), "carol").Level == presence.LevelConfirm {
						t.Fatalf("answered before it was confirmed: %s", line)
					}
					joined[bob] = true
				case st.typ == "":
					if !watching[bob] || !joined[bob] {
						t.Fatalf("presence to %s, who does not watch: %s", bob, line)
					}
					screen[bob][res] = strings.TrimSuffix(rest, "</presence>")
				}
			}
		}
		current := carolShows(nil)
		d.show(current)
		want := func(bob string) map[string]string {
			out := map[string]string{}
			access := gate.Access(asWatcher(bob, "xmpp"), "carol")
			if current.who == nil || access.Level == presence.LevelConfirm {
				return out
			}
			shown := d.mapping.facesOf(presence.View(current.who.state, access))
			for i := range shown {
				if f := &shown[i]; f.available {
					text := string(appendFace(nil, f, resource(i), "x", "y", "z", false))
					_, rest, _ := strings.Cut(text, ">")
					out[resource(i).String()] = strings.TrimSuffix(rest, "</presence>")
				}
			}
			return out
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			bob := rapid.SampledFrom([]string{"bob@xmpp.test", "alice@xmpp.test"}).Draw(t, "watcher")
			act := rapid.SampledFrom([]string{"change", "change", "subscribe", "unsubscribe", "unsubscribed", "probe", "probe-full", "remove", "refresh", "restart", "rule", "rule"}).Draw(t, "act")
			hear := func(typ, from string) {
				look(d.hear(t, "<presence type='"+typ+"' from='"+from+"' to='carol@presence.xmpp.test'/>"))
			}
			switch act {
			case "change":
				// Several changes before anybody is ready to send: only the last shows.
				for range rapid.IntRange(1, 3).Draw(t, "changes") {
					s := state(presence.Availability(rapid.IntRange(0, int(presence.Available)).Draw(t, "availability")), presence.NoActivity)     //nolint:gosec // small
					s.Channels[presence.Phone].State = presence.ChannelState(rapid.IntRange(0, int(presence.ChannelOutOfOffice)).Draw(t, "phone")) //nolint:gosec // small
					current = carolShows(func(t *presence.State) { *t = s })
					d.show(current)
				}
				look(d.out())
			case "refresh":
				d.show(current)
				if out := d.out(); out != "" {
					t.Fatalf("a refresh sent %s", out)
				}
			case "remove":
				current = showing{local: "carol"}
				d.show(current)
				look(d.out())
			case "subscribe":
				if current.who != nil {
					watching[bob] = true
				} else {
					delete(watching, bob)
					delete(joined, bob)
				}
				hear("subscribe", bob)
			case "unsubscribe", "unsubscribed":
				hear(act, bob)
				delete(watching, bob)
				delete(joined, bob)
				delete(screen, bob)
			case "rule":
				gate.say(bob, presence.Access{
					Level:    presence.Level(rapid.IntRange(0, int(presence.LevelFull)).Draw(t, "level")),             //nolint:gosec // small
					Calendar: presence.CalendarPrivacy(rapid.IntRange(0, int(presence.CalendarOpen)).Draw(t, "open")), //nolint:gosec // small
					Unknown:  rapid.Bool().Draw(t, "as unknown"),
				})
				d.show(current) // as the hub does after each change of a rule
				look(d.out())
			case "probe":
				hear("probe", bob)
			case "probe-full":
				hear("probe", bob+"/r1")
			case "restart":
				kept := map[string][]byte{}
				d.keep(d.contact("carol"), true)
				for _, s := range d.saves(true) {
					if s.value != nil {
						kept[recordKey(s.local)] = s.value
					}
				}
				clear(gate.admitted)
				fresh := &desk{testBook(gate), map[string][]byte{}}
				if fresh.load(kept) != 0 {
					t.Fatal("unreadable record")
				}
				d = fresh
				d.show(current)
				d.plan(at().Add(time.Hour), rapid.Bool().Draw(t, "full"), rand.Shuffle)
				look(d.out())
			}
			for bob := range watching {
				got := screen[bob]
				if w := want(bob); !maps.Equal(got, w) {
					t.Fatalf("after %s, %s sees %v, the state is %v", act, bob, got, w)
				}
				if d.contacts["carol"].watchers[bob] == nil || d.subscribed("carol", bob) != joined[bob] {
					t.Fatalf("after %s, %s is forgotten", act, bob)
				}
				if level := gate.Access(asWatcher(bob, "xmpp"), "carol").Level; !joined[bob] && current.who != nil && level != presence.LevelConfirm {
					t.Fatalf("after %s, %s waits for an answer at level %s", act, bob, level)
				}
			}
			var admitted []string
			for bob := range watching {
				if current.who != nil {
					admitted = append(admitted, "jid:"+bob+" xmpp carol")
				}
			}
			slices.Sort(admitted)
			if !slices.Equal(admitted, gate.watching()) {
				t.Fatalf("after %s, the gate knows of %q, want %q", act, gate.watching(), admitted)
			}
		}
	})
}
