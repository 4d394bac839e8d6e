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
// lease ends, the source is lost, as it is where it ran. What endpoints publish at a
// bridge that runs on every machine counts in the same way while the machine is there.
type Follower struct {
	hub     *Hub
	jobs    Jobs
	reports Watched
	log     *slog.Logger

	mu       sync.Mutex // held until the hub knows: what is lost must not overtake what was said
	holdings map[string]lease.Holding
	mine     map[string]bool
	heard    map[string]bool // the jobs of which something was read; whether some of it did not count
}

// NewFollower makes a Follower. reports is the bucket of the recorders.
func NewFollower(hub *Hub, jobs Jobs, reports Watched, log *slog.Logger) *Follower {
	return &Follower{hub: hub, jobs: jobs, reports: reports, log: log, heard: map[string]bool{}}
}

// Run follows until ctx ends. It reads everything again when a source changes hands of
// which something did not count, or the directory changes: it may count now.
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
			for job := range f.heard {
				f.heard[job] = false
			}
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
// and tells whether one has begun of which something did not count.
func (f *Follower) turn(all map[string]lease.Holding, mine map[string]bool) (again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, ours := f.holdings, f.mine
	f.holdings, f.mine = all, mine
	lost := map[string]bool{}
	for job, was := range before {
		if _, heard := f.heard[job]; heard && !ours[job] && was != all[job] {
			lost[job], f.heard[job] = true, true
			f.log.Info("another machine has ended what it ran", "job", job, "machine", was.Node)
		}
	}
	if len(lost) > 0 {
		f.hub.lost(func(held presence.Report) bool {
			job := jobOf(held.Source)
			is, runs := all[job]
			return lost[job] && (!runs || held.At.Before(is.Since)) // whoever runs it now may have spoken
		}, time.Now())
	}
	for job, is := range all {
		again = again || f.heard[job] && !mine[job] && is != before[job]
	}
	return again
}

// take takes one value of the bucket.
func (f *Follower) take(key string, value []byte, _ uint64) {
	id, source, subject, ok := parseReportKey(key)
	if !ok || source == SourceManual {
		return
	}
	job := jobOf(source)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.mine[job]: // it was said here; or elsewhere, by the next one that runs it
		f.heard[job] = true
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
	holding, held := f.holdings[job]
	live := held && !r.At.Before(holding.Since)
	f.heard[job] = f.heard[job] || !live
	f.hub.follow(id, r, live, time.Now())
}

// endpoints has what endpoints say at a bridge that runs on every machine be from
// sources of one machine, by the name that lease.Machine gave.
type endpoints struct {
	*Hub
	machine string
}

// Report implements presence.Hub.
func (e *endpoints) Report(ctx context.Context, r presence.Report) error {
	r.Source += e.machine
	return e.Hub.Report(ctx, r)
}

// jobOf gives the job under which a source runs: its own, or that of the machine where
// it is an endpoint (NAME/1@MACHINE).
func jobOf(source string) string {
	last := source[strings.LastIndexByte(source, '/')+1:]
	if at := strings.IndexByte(last, '@'); at >= 0 && len(last) < len(source) {
		return last[at:]
	}
	return source
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
		} else {
			s.remindApart(s.core.people.of(id))
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
