package sip

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The law of a ledger: whenever the process is killed, memory says of each publication
// what was durable last, however often a write failed, was made without an answer, or a
// page was given up; and it does not grow.
func TestLedger(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		values := map[string][]byte{}
		l := newLedger(nil)
		pending := map[place]record{}
		good := map[place]map[string]bool{} // what memory may say of a place; "" is nothing
		people := rapid.SampledFrom([]int{3, 100, 200}).Draw(rt, "people")
		now, n := epoch, 0
		check := func() {
			held := tags(t, values)
			for p := range good {
				if !good[p][held[p]] {
					rt.Fatalf("of %s memory says %q, not one of %v", p.entity, held[p], good[p])
				}
			}
			if got, most := len(values), fewPages+people/eachPage+1; got > most {
				rt.Fatalf("%d pages of %d people, most is %d", got, people, most)
			}
		}
		note := func(who int, gone bool) {
			n++
			r := record{"s", fmt.Sprint(who), fmt.Sprintf("t%d", n), epoch.Add(time.Hour)}
			if gone {
				r.Tag = ""
			}
			pending[r.place()] = r
		}
		write := func(written, answered bool) {
			pg := l.write(pending, now)
			if pg == nil {
				return
			}
			if written {
				values[pg.key], _ = json.Marshal(pg)
				if pg.instead {
					for _, r := range l.current(l.pages[0]) { // a tag that is overtaken may be given up
						if _, overtaken := pending[r.place()]; overtaken {
							good[r.place()][""] = true
						}
					}
				}
			}
			for _, r := range pg.Records {
				if good[r.place()] == nil {
					good[r.place()] = map[string]bool{"": true}
				}
				good[r.place()][r.Tag] = true
			}
			if !written || !answered {
				return // it stays pending
			}
			l.add(pg)
			for _, r := range pg.Records {
				if pending[r.place()] == r {
					delete(pending, r.place())
				}
				good[r.place()] = map[string]bool{r.Tag: true}
			}
			for key, ok := l.spare(); ok; key, ok = l.spare() {
				delete(values, key)
				l.tear()
			}
		}
		who := rapid.IntRange(1, people)
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"refresh", "refresh", "lose", "crowd", "begin anew"}).Draw(rt, "step") {
			case "refresh": // one after the other, but for who has no change
				from, to := who.Draw(rt, "from"), who.Draw(rt, "to")
				for i := from; i <= to; i++ {
					note(i, false)
					write(true, true)
				}
			case "crowd":
				for _, i := range rapid.SliceOf(who).Draw(rt, "crowd") {
					note(i, rapid.IntRange(0, 3).Draw(rt, "gone") == 0)
				}
				now = now.Add(rapid.SampledFrom([]time.Duration{-time.Hour, 0, time.Second}).Draw(rt, "clock"))
				write(true, true)
			case "lose":
				note(who.Draw(rt, "who"), rapid.Bool().Draw(rt, "gone"))
				write(rapid.Bool().Draw(rt, "written"), false)
			case "begin anew":
				var pages []*page
				for key, value := range values {
					pg, err := readPage(key, value)
					if err != nil {
						rt.Fatal(err)
					}
					pages = append(pages, pg)
				}
				held := tags(t, values)
				l = newLedger(pages)
				clear(pending)
				for p := range good { // it is known now how it is
					good[p] = map[string]bool{held[p]: true}
				}
			}
			check()
		}
		check()
		if err := consistent(l); err != nil {
			rt.Fatal(err)
		}
	})
}

// consistent tells whether what a ledger counts is so.
func consistent(l *ledger) error {
	records := 0
	keys := map[string]bool{}
	newest := maps.Clone(l.newest)
	for _, pg := range l.pages {
		records += len(pg.Records)
		keys[pg.key] = true
		if current := l.current(pg); len(current) != pg.live {
			return fmt.Errorf("page %s has %d records that count, not %d", pg.key, len(current), pg.live)
		}
		for _, r := range l.current(pg) {
			delete(newest, r.place())
		}
	}
	if records != l.records || len(keys) != len(l.pages) || len(newest) > 0 || len(l.free)+len(keys) != l.next {
		return fmt.Errorf("%d records for %d, %d keys of %d pages, %d nowhere, %d free below %d", records, l.records, len(keys), len(l.pages), len(newest), len(l.free), l.next)
	}
	return nil
}

// What is no page is told apart.
func TestReadPage(t *testing.T) {
	t.Parallel()
	const good = `{"order":1,"records":[{"server":"s","entity":"e","tag":"t","dies":"2026-01-01T00:00:00Z"}]}`
	if _, err := readPage("7", []byte(good)); err != nil {
		t.Error(err)
	}
	for _, bad := range []struct{ key, value string }{
		{"7", ""},
		{"7", "{}"},
		{"7", `{"order":1}`},
		{"07", good},
		{"-1", good},
		{"x", good},
		{"99999999", good},
		{"6162", `{"bridge":"b","server":"s","entity":"e","tag":"t","dies":"2026-01-01T00:00:00Z"}`}, // as it was once
	} {
		if _, err := readPage(bad.key, []byte(bad.value)); err == nil {
			t.Errorf("%s: %s is taken", bad.key, bad.value)
		}
	}
}
