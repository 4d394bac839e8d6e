package aes

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"presenced/aggregator/presence"
)

// A fleet is all sources of one switch. Each extension has one of them for its
// home; while that is lost, others that have room cover it too. They learn of
// each other here, and each works out its own share.
type fleet struct {
	mu      sync.Mutex
	members []*member
}

// A member is a source, as the others see it.
type member struct {
	name     string
	numbers  []numbers // empty: every extension
	capacity int       // zero: no limit
	patience time.Duration

	lost  time.Time     // since when it cannot watch the switch; zero: it can
	away  bool          // so long that others do its work, until it has a complete account again
	moved chan struct{} // holds a token when its share may be another
}

// newFleets groups the sources by switch. Who was never heard of is lost since now.
func newFleets(configs []Config, now time.Time) (fleets []*fleet, members []*member) {
	bySwitch := map[string]*fleet{}
	for i := range configs {
		cfg := &configs[i]
		m := &member{name: cfg.Name, capacity: cfg.Capacity, patience: cfg.Grace / 2, lost: now, moved: make(chan struct{}, 1)}
		for _, text := range cfg.Extensions {
			if n, err := parseNumbers(text); err == nil { // else Check said so
				m.numbers = append(m.numbers, n)
			}
		}
		key := strings.ToLower(cfg.Switch)
		if bySwitch[key] == nil {
			bySwitch[key] = &fleet{}
		}
		bySwitch[key].members = append(bySwitch[key].members, m)
		fleets, members = append(fleets, bySwitch[key]), append(members, m)
	}
	return fleets, members
}

// tell notes how a member fares: whether it can watch the switch, and has a
// complete account of its share. It gives the time at which to tell again, zero
// if there is none: somebody else is given up then.
func (f *fleet) tell(m *member, working, complete bool, now time.Time) (next time.Time) {
	if len(f.members) == 1 {
		return time.Time{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := false // the others have to reckon with something else
	switch {
	case !working && m.lost.IsZero():
		m.lost, changed = now, true
	case working:
		m.lost = time.Time{}
	}
	if m.away && working && complete {
		m.away, changed = false, true
	}
	for _, other := range f.members {
		if other.lost.IsZero() || other.away {
			continue
		}
		due := other.lost.Add(other.patience)
		switch {
		case !now.Before(due):
			other.away, changed = true, true
		case next.IsZero() || due.Before(next):
			next = due
		}
	}
	if changed {
		for _, other := range f.members {
			select {
			case other.moved <- struct{}{}:
			default:
			}
		}
	}
	return next
}

// share gives what m is to cover, in the order given; what nobody has room for
// comes last. An extension that comes home is covered there before who stood in
// gives it up, so that nothing is unknown in between.
func (f *fleet) share(m *member, subjects []presence.Subject) []presence.Subject {
	f.mu.Lock()
	defer f.mu.Unlock()
	room := make(map[*member]int, len(f.members))
	for _, other := range f.members {
		room[other] = cmp.Or(other.capacity, maxRoom)
	}
	var own, over, orphaned []presence.Subject
	give := func(s presence.Subject, present func(*member) bool) {
		ranked := f.rank(s.Value, present)
		if len(ranked) == 0 {
			return
		}
		i := slices.IndexFunc(ranked, func(o *member) bool { return room[o] > 0 })
		to := ranked[max(0, i)]
		room[to]--
		switch {
		case to.away && to != m:
			orphaned = append(orphaned, s)
		case to == m && i < 0:
			over = append(over, s)
		case to == m:
			own = append(own, s)
		}
	}
	for _, s := range subjects {
		give(s, func(*member) bool { return true })
	}
	for _, s := range orphaned { // only now: nobody drops what is its own for them
		give(s, func(o *member) bool { return !o.away })
	}
	return append(own, over...)
}

// maxRoom is more than any directory has.
const maxRoom = 1 << 30

// rank gives those present that may cover an extension, in the order in which
// they are to (rendezvous hashing: who comes or goes moves nothing between the others).
func (f *fleet) rank(x string, present func(*member) bool) []*member {
	var out []*member
	for _, m := range f.members {
		if present(m) && (len(m.numbers) == 0 || slices.ContainsFunc(m.numbers, func(n numbers) bool { return n.has(x) })) {
			out = append(out, m)
		}
	}
	if len(out) > 1 {
		slices.SortFunc(out, func(a, b *member) int {
			return cmp.Or(cmp.Compare(weight(b.name, x), weight(a.name, x)), strings.Compare(a.name, b.name))
		})
	}
	return out
}

// weight gives a number that looks random, the same each time.
func weight(name, x string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name + "\x00" + x)) // a hash does not fail
	w := h.Sum64()
	w ^= w >> 33 // FNV alone leaves names that differ little alike
	w *= 0xff51afd7ed558ccd
	w ^= w >> 33
	w *= 0xc4ceb9fe1a85ec53
	return w ^ w>>33
}

// People is what a roster may be besides: it knows who a subject belongs to.
type people interface {
	Person(presence.Subject) (presence.Person, bool)
}

// byPriority puts the people of some groups first, in the order of the groups;
// among equals the order stays.
func byPriority(subjects []presence.Subject, who people, groups []string) []presence.Subject {
	if who == nil || len(groups) == 0 {
		return subjects
	}
	rank := make(map[presence.Subject]int, len(subjects))
	for _, s := range subjects {
		rank[s] = len(groups)
		if p, ok := who.Person(s); ok {
			for _, g := range p.Groups {
				if i := slices.Index(groups, g); i >= 0 {
					rank[s] = min(rank[s], i)
				}
			}
		}
	}
	out := slices.Clone(subjects)
	slices.SortStableFunc(out, func(a, b presence.Subject) int { return cmp.Compare(rank[a], rank[b]) })
	return out
}
