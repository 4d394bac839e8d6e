package web

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// The law of a census: however people come, change and leave, and the rules with them,
// it counts what somebody would count who goes through everybody, whenever its stream
// has read the feed to the end.
func TestCensus(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		s := newSite(w)
		v := s.viewerOf(signin.Identity{})
		filters := []filter{{}, {group: "desk"}, {channel: "phone-idle"}, {text: "p1"}, {shown: markOf("p2")}, {state: "busy"}}
		f := rapid.SampledFrom(filters).Draw(t, "filter")
		people, seq := &census{}, uint64(0)
		last := map[presence.ID]member{}
		read := func() {
			rows, next, _ := s.feed.since(seq)
			if s.feed.lacks(seq) {
				people = &census{}
				rows, next, _ = s.feed.since(0)
			}
			s.frames(rows, seq, v, &f, people)
			seq = next
			var want tally
			for _, m := range last {
				if seen := s.see(v, m.person, m.state); f.covers(&seen, searchText(&m.person)) {
					want.add(&seen.state)
				}
			}
			if people.tally != want {
				t.Fatalf("%+v are counted, but there are %+v", people.tally, want)
			}
			all, _, _ := s.feed.since(0)
			again := &census{}
			if sent := s.frames(all, seq, v, &f, again); len(sent) > 0 || again.tally != want {
				t.Fatalf("counted anew, %+v are counted of %+v, and %d rows are sent", again.tally, want, len(sent))
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := presence.ID(fmt.Sprint("p", rapid.IntRange(0, 12).Draw(t, "who")))
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				delete(last, id)
				s.feed.remove(id)
			case 1:
				w.rules[id] = presence.Access{Level: rapid.SampledFrom([]presence.Level{presence.LevelBlock, presence.LevelTelephony, presence.LevelFull}).Draw(t, "level")}
				if m, ok := last[id]; ok {
					s.feed.put(m.person, m.state)
				}
			case 2:
				read()
			case 3: // many leave, so many that the feed forgets them
				for i := range maxLeft + 1 {
					other := presence.ID(fmt.Sprint("other", i))
					s.feed.put(presence.Person{ID: other}, presence.State{Person: other})
				}
				if rapid.Bool().Draw(t, "seen") {
					rows, next, _ := s.feed.since(seq)
					s.frames(rows, seq, v, &f, people)
					seq = next
				}
				for i := range maxLeft + 1 {
					s.feed.remove(presence.ID(fmt.Sprint("other", i)))
				}
			default:
				m := member{person: presence.Person{ID: id, Name: string(id)}, state: presence.State{Person: id, Availability: rapid.SampledFrom([]presence.Availability{presence.Unknown, presence.Busy, presence.Available}).Draw(t, "availability")}}
				m.state.Channels[presence.Phone].State = rapid.SampledFrom([]presence.ChannelState{presence.ChannelUnknown, presence.ChannelIdle, presence.ChannelInUse}).Draw(t, "phone")
				if rapid.Bool().Draw(t, "desk") {
					m.person.Groups = []string{"desk"}
				}
				last[id] = m
				s.feed.put(m.person, m.state)
			}
		}
		read()
	})
}
