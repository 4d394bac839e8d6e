package aggregator_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// However people enter and leave, those are known who entered last, each with what was
// said of them since, and no record is taken twice.
func TestWhoIsKnown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := aggregator.NewCore(presence.DefaultPolicy())
		known := map[presence.ID]presence.Fact{}
		facts := []presence.Fact{presence.PhoneIdle, presence.PhoneConnected, presence.PhoneOutOfService}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			id := presence.ID(fmt.Sprint("p", rapid.IntRange(0, 40).Draw(t, "who")))
			_, was := known[id]
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				if c.Enter(id, eight); !was {
					known[id] = presence.Fault
				}
			case 1:
				if _, left := c.Leave(id, eight); left != was {
					t.Fatalf("%s left: %v", id, left)
				}
				delete(known, id)
			default:
				fact := rapid.SampledFrom(facts).Draw(t, "fact")
				c.Accept(id, phone(eight, presence.Span{Fact: fact, From: eight}), eight)
				if c.Taken() != was {
					t.Fatalf("a report about %s was taken: %v", id, c.Taken())
				}
				if was {
					known[id] = fact
				}
			}
		}
		n := 0
		c.Each(func(s presence.State) {
			n++
			fact, ok := known[s.Person]
			held := c.Reports(s.Person)
			if !ok || (fact == presence.Fault) != (len(held) == 0) || len(held) == 1 && held[0].Spans[0].Fact != fact {
				t.Fatalf("of %s is known %v, not %s", s.Person, held, fact)
			}
		})
		if n != len(known) {
			t.Fatalf("%d are known, not %d", n, len(known))
		}
	})
}

// Of many people, in many pages, each is another one.
func TestManyPeople(t *testing.T) {
	c := aggregator.NewCore(presence.DefaultPolicy())
	const many = 30_000
	for i := range many {
		id := presence.ID(fmt.Sprint("p", i))
		c.Enter(id, eight)
		c.Accept(id, phone(eight.Add(time.Duration(i)), idle(eight)), eight)
	}
	n := 0
	c.Each(func(s presence.State) {
		n++
		var i int
		if _, err := fmt.Sscanf(string(s.Person), "p%d", &i); err != nil || !c.Reports(s.Person)[0].At.Equal(eight.Add(time.Duration(i))) {
			t.Errorf("of %s is known %+v", s.Person, c.Reports(s.Person))
		}
	})
	if n != many {
		t.Errorf("%d are known", n)
	}
}

// Directories that come and go leave nothing behind; a watcher who sleeps through
// them sees in the end who is there and who is not, and learns of each who left last.
func TestDirectoriesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const people = 50
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		crowd := func(letter string) []presence.ID {
			ids := make([]presence.ID, people)
			for i := range ids {
				ids[i] = presence.ID(fmt.Sprint(letter, i))
			}
			return ids
		}
		h.SetDirectory(office(crowd("a")...), time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		wake, done := make(chan struct{}), make(chan struct{})
		last := map[presence.ID]bool{} // whether they are there
		go func() {
			defer close(done)
			for s := range h.Watch(ctx) {
				<-wake
				last[s.Person] = s.Why.Rule != presence.RuleRemoved
			}
		}()
		synctest.Wait()
		for range 3 {
			h.SetDirectory(office(crowd("b")...), time.Now())
			h.SetDirectory(office(crowd("a")...), time.Now())
		}
		if n := h.Records(); n < 3*people {
			t.Errorf("%d records: those that a watcher is to see are used again", n)
		}
		close(wake)
		synctest.Wait()
		for _, id := range crowd("a") {
			if !last[id] {
				t.Errorf("%s is not there", id)
			}
		}
		for _, id := range crowd("b") {
			if there, told := last[id]; there || !told {
				t.Errorf("%s is there: %v, told: %v", id, there, told)
			}
		}
		before := h.Records()
		for range 10 {
			h.SetDirectory(office(crowd("b")...), time.Now())
			synctest.Wait()
			h.SetDirectory(office(crowd("a")...), time.Now())
			synctest.Wait()
		}
		if after := h.Records(); after != before {
			t.Errorf("%d records became %d", before, after)
		}
		cancel()
		<-done
	})
}
