package wire

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestTimerE wants a request by UDP again after 0.5, 1, 2, 4, 4... seconds, until
// Timer F (RFC 3261 section 17.1.2.2).
func TestTimerE(t *testing.T) {
	begin := time.Unix(1000, 0)
	for _, test := range []struct {
		name        string
		a           asking
		provisional time.Duration
		want        []string
	}{
		{"by UDP", asking{over: new(udpSocket)}, 0, []string{"again 500ms", "again 1.5s", "again 3.5s", "again 7.5s", "again 11.5s", "late 14s"}},
		{"after a provisional answer", asking{over: new(udpSocket)}, 600 * time.Millisecond, []string{"again 500ms", "again 4.6s", "again 8.6s", "again 12.6s", "late 14s"}},
		{"on a connection", asking{}, 0, []string{"late 14s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newAsked(10, begin)
			a := test.a
			a.id, a.method = 7, "NOTIFY"
			if !s.add(&a, begin, 14*time.Second) {
				t.Fatal("not added")
			}
			var got []string
			for at := time.Duration(0); at < 20*time.Second; at += tick {
				if test.provisional != 0 && at == test.provisional {
					if a, known := s.take(7, []byte("NOTIFY"), 100, begin.Add(at)); a != nil || !known {
						t.Error("a provisional answer ends it")
					}
				}
				s.advance(begin.Add(at), func(*asking) { got = append(got, "again "+at.String()) }, func(*asking) { got = append(got, "late "+at.String()) })
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestOnce is the law of client transactions: each ends exactly once, whatever
// happens when; none ends early by time, or much too late.
func TestOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1000, 0)
		s := newAsked(20, now)
		began, ended := map[*asking]time.Time{}, map[*asking]string{}
		timeouts := map[*asking]time.Duration{}
		var all []*asking
		end := func(a *asking, how string) {
			if was, twice := ended[a]; twice {
				t.Fatalf("%d ended by %s and by %s", a.id, was, how)
			}
			ended[a] = how
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				a := &asking{id: uint64(len(all)) + 1, method: "NOTIFY"}
				if rapid.Bool().Draw(t, "udp") {
					a.over = new(udpSocket)
				}
				timeouts[a] = time.Duration(rapid.IntRange(100, 40000).Draw(t, "timeout")) * time.Millisecond
				open := len(all) - len(ended)
				if taken := s.add(a, now, timeouts[a]); taken != (open < 20) {
					t.Fatalf("taken: %v while %d wait", taken, open)
				} else if taken {
					all = append(all, a)
					began[a] = now
				}
			case 2:
				id := uint64(rapid.IntRange(1, 30).Draw(t, "id"))
				method := rapid.SampledFrom([]string{"NOTIFY", "PUBLISH"}).Draw(t, "method")
				code := rapid.SampledFrom([]int{100, 200, 481}).Draw(t, "code")
				a, known := s.take(id, []byte(method), code, now)
				open := id <= uint64(len(all)) && ended[all[id-1]] == ""
				if known != (open && method == "NOTIFY") || (a != nil) != (known && code >= 200) {
					t.Fatalf("an answer %d to %d, which is open (%v): known %v, ends %v", code, id, open, known, a != nil)
				}
				if a != nil {
					end(a, "answer")
				}
			default:
				last := now
				now = now.Add(time.Duration(rapid.IntRange(0, 12000).Draw(t, "wait")) * time.Millisecond)
				s.advance(now, func(a *asking) {
					if ended[a] != "" || a.over == nil {
						t.Fatalf("%d is sent again, but ended (%q) or went by a connection", a.id, ended[a])
					}
				}, func(a *asking) {
					end(a, "time")
					if took := now.Sub(began[a]); took < timeouts[a] {
						t.Fatalf("%d failed after %v of %v", a.id, took, timeouts[a])
					}
				})
				for _, a := range all {
					if ended[a] == "" && now.Sub(began[a]) > timeouts[a]+2*tick && last != now {
						t.Fatalf("%d waits for %v, longer than %v", a.id, now.Sub(began[a]), timeouts[a])
					}
				}
			}
			if len(s.by) != len(all)-len(ended) {
				t.Fatalf("%d held, %d open", len(s.by), len(all)-len(ended))
			}
		}
		s.fail(func(*asking) bool { return true }, func(a *asking) { end(a, "failure") })
		if len(ended) != len(all) {
			t.Fatalf("%d of %d ended", len(ended), len(all))
		}
		for i, first := range s.wheel {
			if first != nil {
				t.Fatalf("slot %d is not empty", i)
			}
		}
	})
}

// TestServed holds the table of answers against a simple one.
func TestServed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type entry struct {
			answer string
			until  time.Time
			serial int
		}
		most := rapid.IntRange(1, 10).Draw(t, "most")
		s, model := newServed(most), map[key]entry{}
		now, serial := time.Unix(1000, 0), 0
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			k := key{uint64(rapid.IntRange(0, 20).Draw(t, "key")), 1}
			got, ok := s.find(k, now)
			want, known := model[k]
			known = known && want.until.After(now)
			if ok != known || ok && string(got) != want.answer {
				t.Fatalf("found %v, want %v", ok, known)
			}
			if !ok {
				serial++
				answer := fmt.Sprintf("%d%*s", serial, rapid.SampledFrom([]int{1, 400, 60000}).Draw(t, "size"), "")
				s.keep(k, []byte(answer), now)
				for old, e := range model {
					if !e.until.After(now) {
						delete(model, old)
					}
				}
				if len(model) == most {
					oldest := key{}
					for old, e := range model {
						if oldest == (key{}) || e.serial < model[oldest].serial {
							oldest = old
						}
					}
					delete(model, oldest)
				}
				model[k] = entry{answer, now.Add(timerJ), serial}
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "seconds")) * time.Second)
		}
	})
}

// BenchmarkServed tells what a remembered answer of 330 bytes takes, of time and of memory.
func BenchmarkServed(b *testing.B) {
	s := newServed(100000)
	answer := make([]byte, 330)
	now := time.Unix(1000, 0)
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		n++
		k := key{n * 0x9e3779b97f4a7c15, n}
		s.find(k, now)
		s.keep(k, answer, now)
	}
	held := 0
	for _, c := range s.chunks {
		held += cap(c.data)
	}
	b.ReportMetric(float64(held)/float64(len(s.at)), "B/answer")
}
