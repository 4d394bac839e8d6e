package aggregator

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"presenced/aggregator/journal"
	"presenced/aggregator/lease"
	"presenced/aggregator/presence"
)

// A Watched tells what others write to it; a bucket of the store is one.
type Watched interface {
	// Watch calls f with every key and value there is, then with an empty key,
	// then with every change, until ctx ends. A nil value was deleted. Revisions
	// rise. Everything may come again. f is called by one goroutine.
	Watch(ctx context.Context, f func(key string, value []byte, revision uint64))
}

// A Follower has the hub of this machine know what sources say that run on others:
// it reads what their recorders keep, and decides alone (R2). What a source says
// counts while the machine that said it holds the lease of that source; when the
// lease ends, the source is lost, as it is where it ran. What no lease is about, as
// what a client publishes at one machine, counts until it expires.
type Follower struct {
	hub     *Hub
	jobs    Jobs
	reports Watched
	log     *slog.Logger

	mu       sync.Mutex
	sources  map[string]bool // that run under a lease
	holdings map[string]lease.Holding
	mine     map[string]bool
}

// NewFollower makes a Follower of the sources of these names. reports is the bucket
// of the recorders.
func NewFollower(hub *Hub, jobs Jobs, reports Watched, sources []string, log *slog.Logger) *Follower {
	f := &Follower{hub: hub, jobs: jobs, reports: reports, log: log, sources: map[string]bool{}, holdings: map[string]lease.Holding{}}
	for _, name := range sources {
		f.sources[name] = true
	}
	return f
}

// Run follows until ctx ends. It reads everything again when a source changes hands,
// or the directory changes: what was passed over then may count now.
func (f *Follower) Run(ctx context.Context) error {
	stop := func() {}
	defer func() { stop() }()
	var people *roll
	for {
		all, mine, known, changed := f.jobs.Holdings()
		now := f.hub.people.Load()
		if known && (f.turn(all, mine) || now != people) {
			people = now
			stop()
			stop = f.read(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-now.replaced:
		}
	}
}

// read watches the bucket from the beginning, until stop is called.
func (f *Follower) read(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.reports.Watch(ctx, f.take)
	}()
	return func() { cancel(); <-done }
}

// turn takes who runs what, gives up the sources that another machine runs no more,
// and tells whether one has begun.
func (f *Follower) turn(all map[string]lease.Holding, mine map[string]bool) (begun bool) {
	f.mu.Lock()
	before, ours := f.holdings, f.mine
	f.holdings, f.mine = all, mine
	var lost []string
	for source := range f.sources {
		is, held := all[source]
		was, had := before[source]
		if had && !ours[source] && was != is {
			lost = append(lost, source)
		}
		if held && !mine[source] && was != is {
			begun = true
		}
	}
	f.mu.Unlock()
	for _, source := range lost {
		f.log.Info("a source has ended on the machine that ran it", "source", source, "machine", before[source].Node)
		f.hub.lost(source, all[source].Since, time.Now()) // whoever runs it now may have spoken
	}
	return begun
}

// take takes one value of the bucket.
func (f *Follower) take(key string, value []byte, _ uint64) {
	id, source, subject, ok := parseReportKey(key)
	if !ok || source == SourceManual {
		return
	}
	f.mu.Lock()
	ours, job := f.mine[source], f.sources[source]
	holding, held := f.holdings[source]
	f.mu.Unlock()
	switch {
	case ours: // it was said here
		return
	case value == nil:
		f.hub.unsaid(id, source, subject)
		return
	}
	var r presence.Report
	err := unmarshalReport(value, &r)
	if err == nil {
		err = r.Check()
	}
	if err != nil {
		f.log.Error("a report of another machine cannot be read and is passed over", "key", key, "error", err)
		return
	}
	live := held && !r.At.Before(holding.Since)
	if !job {
		live = !r.Expires.IsZero()
	}
	f.hub.follow(id, r, live, time.Now())
}

func parseReportKey(key string) (id presence.ID, source string, subject string, ok bool) {
	parts := strings.Split(key, ".")
	if len(parts) != 3 {
		return "", "", "", false
	}
	var words [3]string
	for i, part := range parts {
		word, err := keyAlphabet.DecodeString(part)
		if err != nil {
			return "", "", "", false
		}
		words[i] = string(word)
	}
	return presence.ID(words[0]), words[1], words[2], true
}

// follow takes a report that was accepted by another machine, which also keeps it.
// live tells whether its source still runs there. What is no news changes nothing.
func (h *Hub) follow(id presence.ID, r presence.Report, live bool, now time.Time) {
	if owner, ok := h.people.Load().Owner(r.Subject); !ok || owner != id {
		return
	}
	s := h.shard(id)
	s.mu.Lock()
	defer h.unlock(s)
	for _, held := range s.core.Reports(id) {
		if held.Source != r.Source || held.Subject != r.Subject {
			continue
		}
		same := held.At.Equal(r.At)
		if r.At.Before(held.At) || same && (!live || held.Doubted.Equal(r.Doubted) && held.Expires.Equal(r.Expires)) {
			return
		}
	}
	if !live {
		r = r.Lost(now)
	}
	h.told(s, id)(s.core.Accept(id, r, now))
}

// unsaid drops a report that was deleted by another machine.
func (h *Hub) unsaid(id presence.ID, source, subject string) {
	s := h.shard(id)
	s.mu.Lock()
	defer h.unlock(s)
	h.told(s, id)(s.core.Forget(id, source, subject, time.Now()))
}

// told gives what follows a change that another machine records; s.mu is held.
func (h *Hub) told(s *shard, id presence.ID) func(presence.State, bool) {
	return func(_ presence.State, changed bool) {
		if changed {
			s.remind(s.core.people.of(id))
		}
		s.nudge()
	}
}

// Forget drops what a source said about a subject of a person.
func (c *Core) Forget(id presence.ID, source, subject string, now time.Time) (state presence.State, changed bool) {
	r := c.people.of(id)
	if r == nil {
		return presence.State{}, false
	}
	reports := c.unpack(r)
	kept := slices.DeleteFunc(reports, func(held presence.Report) bool {
		if held.Source != source || held.Subject.String() != subject {
			return false
		}
		c.lapsed(id, &held, journal.Expired, now)
		return true
	})
	if len(kept) == len(reports) {
		return presence.State{}, false
	}
	c.pack(r, kept)
	return c.decideAtOnce(r, kept, now)
}
