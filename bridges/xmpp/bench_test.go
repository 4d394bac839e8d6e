package xmpp

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkChange is one change of a person, up to the stanzas to a hundred watchers.
func BenchmarkChange(b *testing.B) {
	d := testBook(newGate())
	d.plan(time.Time{}, true, func(int, func(i, j int)) {})
	c := d.contact("carol")
	for i := range 100 {
		jid := fmt.Sprintf("u%d@xmpp.test", i)
		c.watchers[jid] = &watch{contact: c, jid: jid, joined: true}
	}
	shows := [2]showing{carolShows(nil), carolShows(onThePhone)}
	var out []byte
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		d.show(shows[i%2])
		i++
		out = out[:0]
		for n := 1; n > 0; {
			out, n = d.nextLive(out, at())
		}
	}
}
