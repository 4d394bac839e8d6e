package wire

import (
	"net/netip"
	"sync"
	"time"
)

// How many sources are watched at a time; of more, those least lately heard of are forgotten.
const maxSources = 1 << 14

// A verdict is what becomes of a message by its source.
type verdict uint8

const (
	admit  verdict = iota
	refuse         // too many, and it may be told so
	ignore         // too many
)

// limiter has a token bucket for each source: an IPv4 address, or a /64 of IPv6.
type limiter struct {
	rate float64 // per second; 0: no limit

	mu       sync.Mutex
	grumbled time.Time // when any source was last complained about
	current  map[netip.Addr]*bucket
	previous map[netip.Addr]*bucket // those not heard of since current began
}

type bucket struct {
	tokens   float64
	filled   time.Time
	told     time.Time
	grumbled bool
}

func newLimiter(rate int) *limiter {
	return &limiter{rate: float64(rate), current: map[netip.Addr]*bucket{}}
}

// of gives the bucket of a source. The caller holds mu.
func (l *limiter) of(from netip.Addr, now time.Time) *bucket {
	if from.Is6() {
		p, _ := from.WithZone("").Prefix(64) // cannot fail for IPv6
		from = p.Addr()
	}
	b := l.current[from]
	if b != nil {
		return b
	}
	if b = l.previous[from]; b == nil {
		b = &bucket{tokens: 2 * l.rate, filled: now}
	}
	if len(l.current) >= maxSources/2 {
		l.previous, l.current = l.current, map[netip.Addr]*bucket{}
	}
	l.current[from] = b
	return b
}

// judge counts a message; a source may send for two seconds' worth at once, and
// is told that it is too much once a second.
func (l *limiter) judge(from netip.Addr, now time.Time) verdict {
	if l.rate == 0 {
		return admit
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.of(from, now)
	if past := now.Sub(b.filled); past > 0 {
		b.tokens = min(b.tokens+past.Seconds()*l.rate, 2*l.rate)
		b.filled = now
	}
	if b.tokens >= 1 {
		b.tokens--
		return admit
	}
	if now.Sub(b.told) >= time.Second {
		b.told = now
		return refuse
	}
	return ignore
}

// first tells whether this is the first complaint about a source, as far as is
// remembered, and the only one about any within a second.
func (l *limiter) first(from netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.of(from, now)
	if b.grumbled || now.Sub(l.grumbled) < time.Second {
		return false
	}
	b.grumbled, l.grumbled = true, now
	return true
}
