package web

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

func crowd(n int) *world {
	people := make([]presence.Person, 0, n)
	for i := range n {
		id := strconv.Itoa(10000 + i)
		people = append(people, person(presence.ID(id), "Person "+id, id, "Group "+strconv.Itoa(i%40)))
	}
	w := newWorld(people...)
	for _, p := range people {
		w.says(p.ID, "aes-cm1", span(presence.PhoneIdle, time.Now(), "tel:"+string(p.ID)))
	}
	return w
}

// BenchmarkBoard is one page of the board of ten thousand people.
func BenchmarkBoard(b *testing.B) {
	w := crowd(10000)
	s := New(DefaultConfig(), w, w, Parts{Past: w}, nil, quiet())
	for b.Loop() {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/?q=person", nil)
		r.Host = "localhost"
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, r)
		if rec.Code != http.StatusOK {
			b.Fatal(rec.Code)
		}
	}
}

// BenchmarkChange is one change of state, up to the bytes that all streams share.
func BenchmarkChange(b *testing.B) {
	w := crowd(10000)
	s := New(DefaultConfig(), w, w, Parts{Past: w}, nil, quiet())
	members := s.members(s.viewerOf(signin.Identity{}))
	for _, m := range members {
		s.feed.put(m.person, m.state)
	}
	_, seq, _ := s.feed.since(0)
	rev := uint64(1_000_000) // beyond all that is there
	for b.Loop() {
		rev++
		m := members[rev%uint64(len(members))]
		m.state.Revision = rev
		s.feed.put(m.person, m.state)
		var rows []*row
		rows, seq, _ = s.feed.since(seq)
		if len(rows) != 1 || len(rows[0].view(presence.Everyone()).shown()) == 0 {
			b.Fatal("no row")
		}
	}
}

// BenchmarkViewers is one change of state as a thousand people with pages of their own
// are sent it, up to the bytes.
func BenchmarkViewers(b *testing.B) {
	w := crowd(10000)
	s := New(DefaultConfig(), w, w, Parts{Past: w}, nil, quiet())
	var viewers []viewer
	for _, p := range w.People()[:1000] {
		viewers = append(viewers, s.viewerOf(signin.Identity{Account: "local:x", Role: signin.Person, Person: p.ID}))
	}
	st := w.States()[0]
	p, _ := s.person(st.Person)
	var f filter
	seq := uint64(0)
	for b.Loop() {
		st.Revision++
		s.feed.put(p, st)
		rows, next, _ := s.feed.since(seq)
		for _, v := range viewers {
			if len(s.frames(rows, seq, v, &f, nil)) != 1 {
				b.Fatal("no frame")
			}
		}
		seq = next
	}
}
