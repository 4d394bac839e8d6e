package aes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ text, has, not string }{
		{"21042", "21042", "21043 2104 210420"},
		{"*21", "*21", "21 *2"},
		{"21000-21999", "21000 21500 21999", "20999 22000 2150 215000 21*00"},
		{"21xxx", "21000 21999", "22000 21 210000 21#00"},
		{"xxxx", "0000 9999", "999 10000"},
	} {
		n, err := parseNumbers(c.text)
		if err != nil {
			t.Error(err)
		}
		for x := range strings.FieldsSeq(c.has) {
			if !n.has(x) {
				t.Errorf("%s is not in %s", x, c.text)
			}
		}
		for x := range strings.FieldsSeq(c.not) {
			if n.has(x) {
				t.Errorf("%s is in %s", x, c.text)
			}
		}
	}
	for _, bad := range []string{"", "-", "21-", "21999-21000", "21-2100", "x1", "2x1", "21 042", "+4912", "21***-21999", strings.Repeat("1", 31), strings.Repeat("x", 31)} {
		if n, err := parseNumbers(bad); err == nil {
			t.Errorf("%q is %+v", bad, n)
		}
	}
}

// A roster of people is asked who is important.
func TestPriorityOfTheRoster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Priority, cfg.Capacity = []string{"board"}, 1
		b := newBenches(t, cfg)[0]
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		roster := struct {
			fixedRoster
			groups
		}{b.roster, groups{"4751": "board"}}
		b.roster <- tel("4750", "4751")
		go func() { done <- b.Run(ctx, roster, func(presence.Report) error { return nil }) }()
		time.Sleep(time.Second)
		if st := b.Status(); len(st.Unmonitored) != 1 || st.Unmonitored["4750"] == "" {
			t.Errorf("%+v", st)
		}
		cancel()
		ended(t, done)
	})
}

// Nobody is covered twice or forgotten, whatever the capacities and whoever is
// away; and what one has is not moved because another is lost.
func TestLawShares(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var configs []Config
		for i := range rapid.IntRange(1, 4).Draw(rt, "sources") {
			c := Config{Name: fmt.Sprintf("aes-%d", i), Switch: rapid.SampledFrom([]string{"CM1", "cm1"}).Draw(rt, "switch"), Grace: 30 * time.Second}
			c.Capacity = rapid.SampledFrom([]int{0, 5, 20, 60}).Draw(rt, "capacity")
			if rapid.Bool().Draw(rt, "some") {
				c.Extensions = []string{"1xx", "250-299"}
			}
			configs = append(configs, c)
		}
		var roster []presence.Subject
		for i := range 100 {
			roster = append(roster, tel(fmt.Sprint(100+i*2))...)
		}
		fleets, members := newFleets(configs, at(0))
		f := fleets[0]
		shares := func() map[string]string {
			who := map[string]string{}
			for _, m := range members {
				if m.away {
					continue
				}
				for i, s := range f.share(m, roster) {
					if who[s.Value] != "" {
						rt.Fatalf("%s falls to %s and %s", s.Value, who[s.Value], m.name)
					}
					who[s.Value] = m.name
					if m.capacity > 0 && i >= m.capacity {
						who[s.Value] = m.name + " beyond its capacity"
					}
				}
			}
			for _, s := range roster {
				served := slices.ContainsFunc(members, func(m *member) bool {
					return !m.away && (len(m.numbers) == 0 || m.numbers[0].has(s.Value) || m.numbers[1].has(s.Value))
				})
				if served != (who[s.Value] != "") {
					rt.Fatalf("%s falls to %q", s.Value, who[s.Value])
				}
				if strings.Contains(who[s.Value], "beyond") {
					for _, m := range members {
						n := 0
						for _, name := range who {
							if name == m.name {
								n++
							}
						}
						fits := len(m.numbers) == 0 || m.numbers[0].has(s.Value) || m.numbers[1].has(s.Value)
						if !m.away && fits && (m.capacity == 0 || n < m.capacity) {
							rt.Fatalf("%s has no place, and %s has %d of %d", s.Value, m.name, n, m.capacity)
						}
					}
				}
			}
			return who
		}
		before := shares()
		for _, m := range members {
			f.tell(m, true, true, at(0))
		}
		gone := rapid.SampledFrom(members).Draw(rt, "gone")
		f.tell(gone, false, false, at(1))
		f.tell(gone, false, false, at(16))
		if len(members) > 1 && !gone.away {
			rt.Fatal("not given up")
		}
		for x, name := range shares() {
			if was := before[x]; len(members) > 1 && was != name && was != gone.name && !strings.Contains(was, "beyond") {
				rt.Fatalf("%s moves from %s to %s, and %s was lost", x, was, name, gone.name)
			}
		}
		f.tell(gone, true, false, at(20))
		if len(members) > 1 && !gone.away {
			rt.Fatal("back before it has an account")
		}
		f.tell(gone, true, true, at(21))
		if after := shares(); !maps.Equal(before, after) {
			rt.Fatal("another share than before")
		}
	})
}

func TestSharesAreEven(t *testing.T) {
	_, members := newFleets([]Config{{Name: "aes-cm1-a", Switch: "CM1"}, {Name: "aes-cm1-b", Switch: "CM1"}, {Name: "other", Switch: "CM2"}}, at(0))
	fleets, _ := newFleets([]Config{{Name: "aes-cm1-a", Switch: "CM1"}, {Name: "aes-cm1-b", Switch: "CM1"}}, at(0))
	f := fleets[0]
	var roster []presence.Subject
	for i := range 10000 {
		roster = append(roster, tel(fmt.Sprint(10000+i))...)
	}
	if n := len(f.share(f.members[0], roster)); n < 4800 || n > 5200 {
		t.Errorf("%d of 10000", n)
	}
	if members[2].lost.IsZero() {
		t.Error("a source that never ran is not lost")
	}
}

type groups map[string]string

func (g groups) Person(s presence.Subject) (presence.Person, bool) {
	name, ok := g[s.Value]
	return presence.Person{Groups: []string{"all", name}}, ok
}

func TestPriority(t *testing.T) {
	got := byPriority(tel("1", "2", "3", "4", "5"), groups{"2": "desk", "4": "board", "5": "desk"}, []string{"board", "desk"})
	if want := tel("4", "2", "5", "1", "3"); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// ended waits for the end of a run.
func ended(t *testing.T, done <-chan error) {
	t.Helper()
	if err := <-done; err == nil {
		t.Error("a run ended without a reason")
	}
}

// Two sources of one switch share it; one takes over from the other while that
// is lost, and gives back what is covered at home again.
func TestTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testConfig(), testConfig()
		a.Name, b.Name, b.Capacity = "a", "b", 9
		benches := newBenches(t, a, b)
		roster := tel("4750", "4751", "4752", "4753", "4754", "4755", "4756", "4757", "4758", "4759")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var done []<-chan error
		for _, x := range benches {
			x.roster <- roster
			done = append(done, x.start(ctx))
		}
		time.Sleep(10 * time.Second)
		first, second := benches[0], benches[1]
		home := strings.Count(first.said(), "idle")
		if there := strings.Count(second.said(), "idle"); home < 2 || there < 2 || home+there != 10 {
			t.Fatalf("%d and %d of 10 are monitored", home, there)
		}

		working := first.dial
		first.dial = func(context.Context) (net.Conn, error) { return nil, errors.New("no route") }
		first.hangUp()
		ended(t, done[0])
		time.Sleep(14 * time.Second)
		if got := second.said(); got != "" {
			t.Fatalf("said %q too early", got)
		}
		time.Sleep(2 * time.Second)
		if got := second.said(); strings.Count(got, "idle") != home-1 || strings.Count(got, "nothing") != 1 {
			t.Fatalf("said %q after the loss of the other", got)
		}
		if n := len(second.Status().Unmonitored); n != 1 {
			t.Errorf("%d are refused", n)
		}

		second.forgetRoots()
		first.dial = working
		first.roster <- roster
		done[0] = first.start(ctx)
		time.Sleep(100 * time.Millisecond) // the account is under way
		if second.has("MonitorStop") {
			t.Error("given up before the other has it")
		}
		time.Sleep(10 * time.Second)
		if got := first.said(); strings.Count(got, "idle") != home {
			t.Errorf("back, and said %q", got)
		}
		if got := second.said(); strings.Count(got, "nothing") != home || !second.has("MonitorStop") {
			t.Errorf("the other came back: said %q", got)
		}
		cancel()
		ended(t, done[0])
		ended(t, done[1])
	})
}
