package signin

import (
	"net/netip"
	"sync"
	"time"
)

// An allowance is how often something may be tried: burst times at once, then
// once in each every. Who tries more waits, each time twice as long, at most most.
type allowance struct {
	burst       float64
	every, most time.Duration
}

// The allowances. Most is tried by one address with one name; the bounds of the
// name alone are wide, so that a stranger cannot keep its owner out by failing.
func perPair() allowance {
	return allowance{burst: 5, every: 30 * time.Second, most: 15 * time.Minute}
}

func perName() allowance {
	return allowance{burst: 30, every: 30 * time.Second, most: time.Minute}
}

func perSource() allowance {
	return allowance{burst: 30, every: 10 * time.Second, most: 15 * time.Minute}
}

// tries is what is left of an allowance.
type tries struct {
	left  float64
	at    time.Time // when left was counted
	wait  time.Duration
	until time.Time // refused until then
}

// take uses one try. Where there is none, wait is how long until there is one;
// first says that this refusal begins a wait.
func (t *tries) take(a allowance, now time.Time) (wait time.Duration, first bool) {
	if now.Before(t.until) {
		return t.until.Sub(now), false
	}
	t.left = min(a.burst, t.left+now.Sub(t.at).Seconds()/a.every.Seconds())
	t.at = now
	if t.left >= a.burst {
		t.wait = 0
	}
	if t.left < 1 {
		t.wait = min(max(a.every, 2*t.wait), a.most)
		t.until = now.Add(t.wait)
		return t.wait, true
	}
	t.left--
	return 0, false
}

// maxTries bounds each of the two generations of a limiter.
const maxTries = 10_000

// A limiter counts tries by key. It forgets the keys that were not used for
// longest when there are too many: the two generations of the table are bounded.
type limiter struct {
	mu       sync.Mutex
	now, old map[string]*tries
}

func newLimiter() *limiter { return &limiter{now: map[string]*tries{}} }

// A claim is a key of a limiter with what it is allowed.
type claim struct {
	key string
	allowance
}

// take uses one try of each key in turn, up to the first that has none: then it
// says how long to wait, and whether that wait begins. The keys after that one are
// not charged.
func (l *limiter) take(now time.Time, claims ...claim) (wait time.Duration, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range claims {
		if wait, first = l.of(c, now).take(c.allowance, now); wait > 0 {
			return wait, first
		}
	}
	return 0, false
}

// forget gives a key its allowance back: who tried was right.
func (l *limiter) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.now, key)
	delete(l.old, key)
}

func (l *limiter) of(c claim, now time.Time) *tries {
	t, ok := l.now[c.key]
	if ok {
		return t
	}
	if t, ok = l.old[c.key]; !ok {
		t = &tries{left: c.burst, at: now}
	}
	if len(l.now) >= maxTries {
		l.old, l.now = l.now, map[string]*tries{}
	}
	l.now[c.key] = t
	return t
}

// network is what counts as one source: an IPv4 address, or the 64 bits of IPv6
// within which anybody has as many addresses as they like.
func network(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
