package access

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/presence"
)

// Limits of requests; one beyond them is not kept, though its watcher still waits.
const (
	MaxRequests    = 200    // of those who wait for one person
	MaxAllRequests = 20_000 // of all
)

// A watch is one watcher of one person.
type watch struct {
	since  time.Time
	access presence.Access // as given last
}

// Admit implements presence.Gate.
func (g *Gate) Admit(w presence.Watcher, of presence.ID) presence.Access {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.Access(w, of) // under the lock: a change of the rules sees this watch, or is seen here
	seen, ok := g.watches[of][w]
	if !ok {
		if g.watches[of] == nil {
			g.watches[of] = map[presence.Watcher]watch{}
		}
		seen.since = time.Now()
	}
	if seen.access = a; a.Level == presence.LevelConfirm {
		g.ask(w, of)
	}
	g.watches[of][w] = seen
	return a
}

// Dismiss implements presence.Gate.
func (g *Gate) Dismiss(w presence.Watcher, of presence.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if delete(g.watches[of], w); len(g.watches[of]) == 0 {
		delete(g.watches, of)
	}
}

// ask notes that w waits to be let in; g.mu is held. It is written by Run.
func (g *Gate) ask(w presence.Watcher, of presence.ID) {
	subject := canonical(w.Subject)
	if _, asks := g.requests[of][subject]; asks {
		return
	}
	if len(g.requests[of]) >= MaxRequests || g.waiting >= MaxAllRequests || len(w.Via) > MaxName || sound(subject) != nil || !g.known(of) {
		g.refused++
		return
	}
	if g.requests[of] == nil {
		g.requests[of] = map[presence.Subject]Request{}
	}
	g.requests[of][subject] = Request{Watcher: subject, Via: w.Via, Since: time.Now().UTC()}
	g.waiting++
	g.dirty[of] = true
	g.poke()
}

// settle brings what is known of the watchers of a person in line with the rules:
// who is to wait asks, who need not any more does not. It tells whether any of those
// who watch sees something else. g.mu is held.
func (g *Gate) settle(of presence.ID) (differs bool) {
	f := g.held.Load()
	if r := f.people[of]; f.everybody.broken || r != nil && r.broken {
		return false // nothing is decided
	}
	for subject := range g.requests[of] {
		if g.Access(presence.Watcher{Subject: subject}, of).Level != presence.LevelConfirm {
			delete(g.requests[of], subject)
			g.waiting--
			g.dirty[of] = true
		}
	}
	if len(g.requests[of]) == 0 {
		delete(g.requests, of)
	}
	for w, seen := range g.watches[of] {
		a := g.Access(w, of)
		if a != seen.access {
			differs = true
			seen.access = a
			g.watches[of][w] = seen
		}
		if a.Level == presence.LevelConfirm {
			g.ask(w, of)
		}
	}
	return differs
}

// settleAll settles everybody, and gives those whose watchers see something else.
func (g *Gate) settleAll() (differ []presence.ID) {
	for of := range maps.Clone(g.requests) {
		if g.settle(of) {
			differ = append(differ, of)
		}
	}
	for of := range g.watches {
		if g.settle(of) {
			differ = append(differ, of)
		}
	}
	return differ
}

// Follow is to be called when the directory has changed: who is who, and who is in
// which group, may be another. It calls changed with the people of whom somebody
// who was admitted sees something else now.
func (g *Gate) Follow() {
	if g.held.Load() == nil {
		return
	}
	g.mu.Lock()
	differ := g.settleAll()
	g.mu.Unlock()
	g.poke()
	if len(differ) > 0 {
		g.changed(differ...)
	}
}

// Watching is one watcher of a person, as they are now.
type Watching struct {
	Watcher string         `json:"watcher"`
	Via     string         `json:"via"`
	Since   time.Time      `json:"since"`
	Level   presence.Level `json:"level"`
	Urgent  bool           `json:"urgent,omitempty"`
}

// Watchers gives who watches a person now, sorted by watcher and bridge.
func (g *Gate) Watchers(of presence.ID) []Watching {
	g.mu.Lock()
	watches := maps.Clone(g.watches[of])
	g.mu.Unlock()
	all := []Watching{}
	for w, seen := range watches {
		a, name := g.Access(w, of), w.Subject.String()
		if !printable(name) { // what a stranger is called must not act on a terminal
			name = strconv.Quote(name)
		}
		all = append(all, Watching{name, w.Via, seen.since, a.Level, a.Urgent})
	}
	slices.SortFunc(all, func(a, b Watching) int {
		if c := strings.Compare(a.Watcher, b.Watcher); c != 0 {
			return c
		}
		return strings.Compare(a.Via, b.Via)
	})
	return all
}

// Pending is a request that waits for a person.
type Pending struct {
	Of presence.ID `json:"of"`
	Request
}

// Pending gives who waits to be let in by a person (empty: by anybody), who has
// waited longest first.
func (g *Gate) Pending(of presence.ID) []Pending {
	g.mu.Lock()
	all := []Pending{}
	for id, requests := range g.requests {
		for _, r := range requests {
			if of == "" || id == of {
				all = append(all, Pending{id, r})
			}
		}
	}
	g.mu.Unlock()
	slices.SortFunc(all, func(a, b Pending) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(string(a.Of)+" "+a.Watcher.String(), string(b.Of)+" "+b.Watcher.String())
	})
	return all
}

// keepRequests makes the store hold the requests of a person.
func (g *Gate) keepRequests(ctx context.Context, of presence.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, repairWait)
	defer cancel()
	g.mu.Lock()
	a := asked{Of: of, Requests: slices.Collect(maps.Values(g.requests[of]))}
	delete(g.dirty, of)
	g.mu.Unlock()
	slices.SortFunc(a.Requests, func(a, b Request) int { return a.Since.Compare(b.Since) })
	err := func() error {
		if len(a.Requests) == 0 {
			return g.memory.Delete(ctx, askedKey(of))
		}
		data, err := encode(a)
		if err != nil {
			return err
		}
		return g.memory.Put(ctx, askedKey(of), data)
	}()
	g.outcome(err)
	if err != nil {
		g.mu.Lock()
		g.dirty[of] = true
		g.mu.Unlock()
	}
	return err == nil
}
