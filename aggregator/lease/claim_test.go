package lease

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The simulated store: one key, by the clock of the server.
type simStore struct {
	ttl      time.Duration
	owner    int // zero: nobody
	revision uint64
	last     uint64 // revision given last
	written  time.Time
}

func (s *simStore) expire(now time.Time) {
	if s.owner != 0 && now.Sub(s.written) >= s.ttl {
		s.owner = 0
	}
}

// A request is one op under way.
type request struct {
	op       op
	sent     time.Time // by the clock of the node
	revision uint64
	lands    time.Time // by that of the server; zero: never
	answers  time.Time // zero: never, so that it is given up
	landed   bool
	out      outcome
	got      uint64
}

// A simNode drives a claim with a clock of its own.
type simNode struct {
	id      int
	claim   claim
	offset  time.Duration
	rate    float64
	crashed bool
	apart   time.Time // until then nothing arrives, in neither direction
	pending *request
	stray   []*request // given up, and still under way
	running bool
	stopBy  time.Time // when a job that was told to end has ended; zero: it was not told
}

func (n *simNode) clock(now, begin time.Time) time.Time {
	return begin.Add(n.offset + time.Duration(float64(now.Sub(begin))*n.rate))
}

// Whatever is lost, late or out of step: no two nodes run a job at a time; and when
// the store answers and the holder has died, another one runs it within ttl and a renewal.
func TestOneHolder(t *testing.T) {
	const ttl, step = 15 * time.Second, 50 * time.Millisecond
	begin := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		store := &simStore{ttl: ttl}
		var nodes []*simNode
		for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
			nodes = append(nodes, &simNode{
				id: i + 1, claim: claim{ttl: ttl}, rate: rapid.Float64Range(0.99, 1.01).Draw(t, "rate"),
				offset: time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).Draw(t, "offset")),
			})
		}
		// Weather: how likely it is that a request or its answer is lost, and how late they are.
		loss := rapid.SampledFrom([]int{0, 0, 10, 40}).Draw(t, "loss")
		rough := rapid.SampledFrom([]int{300, 1000, 1 << 30}).Draw(t, "partitions") // one in so many steps
		lag := rapid.SampledFrom([]int{1, 20, 100, 400}).Draw(t, "lag")             // steps
		seed := rapid.Uint64().Draw(t, "seed")
		chance := func(n int) int { // quicker than to draw each
			seed ^= seed << 13
			seed ^= seed >> 7
			seed ^= seed << 17
			return int(seed>>33) % n //nolint:gosec // small
		}
		seed |= 1
		var idle, crashes int
		for i := range 3000 {
			now := begin.Add(time.Duration(i) * step)
			store.expire(now)
			running, alive, apart := 0, 0, false
			for _, n := range nodes {
				if chance(rough) == 0 {
					n.apart = now.Add(time.Duration(chance(600)) * step)
				}
				apart = apart || now.Before(n.apart)
				for _, r := range append(n.stray, n.pending) {
					if r != nil && !r.landed && !r.lands.IsZero() && !now.Before(r.lands) {
						r.landed = true
						r.out, r.got = store.land(r, n.id, now)
					}
				}
				if !n.crashed {
					alive++
					n.act(store, now, begin, loss, lag, chance)
				}
				if n.running {
					running++
				}
			}
			if running > 1 {
				t.Fatalf("%d nodes run the job after %s", running, now.Sub(begin))
			}
			// Fairness of the weather: the promise is about a store that answers.
			if running == 0 && loss == 0 && lag <= 20 && !apart {
				if idle++; time.Duration(idle)*step > ttl+ttl/3+3*20*step && alive > 0 {
					t.Fatalf("nobody runs the job for %s", time.Duration(idle)*step)
				}
			} else {
				idle = 0
			}
			if crashes+1 < len(nodes) && chance(600) == 0 {
				for _, n := range nodes {
					if n.running {
						n.crashed, n.running = true, false
						crashes++
						break
					}
				}
			}
		}
	})
}

// land is what the store makes of a request that arrives.
func (s *simStore) land(r *request, node int, now time.Time) (outcome, uint64) {
	s.expire(now)
	switch r.op {
	case opLook:
		if s.owner != node {
			return conflict, 0
		}
		return done, s.revision
	case opCreate:
		if s.owner != 0 {
			return conflict, 0
		}
	case opRenew:
		if s.owner == 0 || s.revision != r.revision {
			return conflict, 0
		}
	default:
		panic(fmt.Sprint("op ", r.op))
	}
	s.last++
	s.owner, s.revision, s.written = node, s.last, now
	return done, s.revision
}

func (n *simNode) act(store *simStore, now, begin time.Time, loss, lag int, chance func(int) int) {
	local := n.clock(now, begin)
	if r := n.pending; r != nil {
		switch {
		case r.landed && !r.answers.IsZero() && !now.Before(r.answers) && !now.Before(n.apart):
			n.pending = nil
			n.claim.answer(r.op, r.sent, local, r.out, r.got)
		case local.Sub(r.sent) > 2500*time.Millisecond:
			n.pending = nil
			n.stray = append(n.stray, r)
			n.claim.answer(r.op, r.sent, local, failed, 0)
		}
	}
	if n.pending == nil {
		free := store.owner == 0
		if loss > 0 && chance(20) == 0 { // what is seen may be wrong
			free = !free
		}
		if o, _ := n.claim.next(local, free, chance(2) == 0); o != opNone {
			r := &request{op: o, sent: local, revision: n.claim.revision}
			if chance(100) >= loss && !now.Before(n.apart) {
				r.lands = now.Add(time.Duration(chance(lag)) * 50 * time.Millisecond)
				if at := r.lands.Add(time.Duration(chance(lag)) * 50 * time.Millisecond); chance(100) >= loss && !at.Before(n.apart) {
					r.answers = at
				}
			}
			n.pending = r
		}
	}
	n.claim.expire(local)
	switch {
	case n.claim.held && !n.running:
		n.running, n.stopBy = true, time.Time{}
	case !n.claim.held && n.running && n.stopBy.IsZero():
		n.stopBy = now.Add(time.Duration(chance(55)) * 50 * time.Millisecond) // a job takes almost the margin to end
	}
	if n.running && !n.stopBy.IsZero() && !now.Before(n.stopBy) {
		n.running, n.stopBy = false, time.Time{}
	}
}
