package sip

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"
)

// A Memory keeps the entity-tags of one Publisher over a restart, so that a
// publication is changed instead of made twice. Keys are short decimal numbers, values
// below a megabyte. Put and Delete may block until the change is durable; they
// are never called from the path of a state.
type Memory interface {
	Load(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

const (
	maxUnsaved = 256         // entity-tags that may wait for the memory before nothing more is sent
	stalled    = time.Second // a memory that takes nothing for so long is not waited for; what failed is tried again then
)

// A place is where a publication is.
type place struct{ server, entity string }

// A record is what Memory keeps of a publication; without a tag, that it is gone.
type record struct {
	Server string    `json:"server"`
	Entity string    `json:"entity"`
	Tag    string    `json:"tag"`
	Dies   time.Time `json:"dies"`
}

func (r *record) place() place { return place{r.Server, r.Entity} }

func (r *record) alive(now time.Time) bool { return r.Tag != "" && r.Dies.After(now) }

// A journal has entity-tags written behind the back of the publisher: all that wait in
// one value, which takes no longer than one of them. What is not written yet is known
// by nobody else, so the publisher sends no more when too many wait.
type journal struct {
	memory   Memory
	log      *slog.Logger
	noticed  func(kind string)
	patience time.Duration // with a memory that takes nothing
	wake     chan struct{} // holds a token while something waits
	saved    chan struct{} // gets one when there is room again for who was held

	mu      sync.Mutex
	pending map[place]record // not durable yet
	since   time.Time        // when the memory took something, or the first of pending came
	held    bool             // somebody waits for saved

	ledger *ledger // of who flushes: one at a time
}

func newJournal(memory Memory, log *slog.Logger, noticed func(kind string)) *journal {
	return &journal{
		memory: memory, log: log, noticed: noticed, patience: stalled, pending: map[place]record{},
		wake: make(chan struct{}, 1), saved: make(chan struct{}, 1), ledger: newLedger(nil),
	}
}

// note keeps r for writing.
func (j *journal) note(r *record, now time.Time) {
	j.mu.Lock()
	if len(j.pending) == 0 {
		j.since = now
	}
	j.pending[r.place()] = *r
	j.mu.Unlock()
	poke(j.wake)
}

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// hold tells for how long nothing more is to be sent, so that at most limit tags wait,
// with those that the requests under way will bring; zero: go on. A token of saved ends
// it sooner. A memory that is stalled holds nobody.
func (j *journal) hold(underway, limit int, now time.Time) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case len(j.pending)+underway < limit:
		return 0
	case len(j.pending) == 0:
		return j.patience // an answer comes first
	}
	wait := j.since.Add(j.patience).Sub(now)
	j.held = j.held || wait > 0
	return max(0, wait)
}

// stall gives how many tags wait for a memory that is stalled; zero: it is not.
func (j *journal) stall(now time.Time) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	if now.Sub(j.since) < j.patience {
		return 0
	}
	j.held = j.held || len(j.pending) > 0 // the end of it is to be seen
	return len(j.pending)
}

// run writes until ctx ends.
func (j *journal) run(ctx context.Context) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
		}
		err := j.flush(ctx)
		if err == nil || ctx.Err() != nil {
			failing = false
			continue
		}
		if !failing {
			j.log.Warn("Entity-tags cannot be kept", "error", err)
		}
		failing = true
		j.noticed("entity-tags not kept")
		again := time.NewTimer(j.patience)
		select {
		case <-ctx.Done():
		case <-again.C:
			poke(j.wake)
		}
		again.Stop()
	}
}

// flush writes what is pending, which stays so where that fails.
func (j *journal) flush(ctx context.Context) error {
	for {
		j.mu.Lock()
		pg := j.ledger.write(j.pending, time.Now())
		j.mu.Unlock()
		if pg == nil {
			break
		}
		value, _ := json.Marshal(pg) // strings, numbers and times: cannot fail
		if err := j.memory.Put(ctx, pg.key, value); err != nil {
			return err
		}
		j.ledger.add(pg)
		j.keep(pg)
	}
	for key, ok := j.ledger.spare(); ok; key, ok = j.ledger.spare() {
		if err := j.memory.Delete(ctx, key); err != nil {
			return err
		}
		j.ledger.tear()
	}
	return nil
}

// keep says that what pg has is durable.
func (j *journal) keep(pg *page) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range pg.Records {
		if j.pending[r.place()] == r { // else there is a newer one
			delete(j.pending, r.place())
		}
	}
	j.since = time.Now()
	if j.held {
		j.held = false
		poke(j.saved)
	}
}

// load gives the records of an earlier process, or of another machine, that are still
// good; none where nobody but this journal has written since it was made. It may not
// be called beside run.
func (j *journal) load(ctx context.Context, now time.Time) ([]record, error) {
	stored, err := j.memory.Load(ctx)
	if err != nil {
		return nil, err
	}
	var pages []*page
	for key, value := range stored {
		pg, err := readPage(key, value)
		if err != nil {
			j.noticed("stored entity-tags malformed")
			if err := j.memory.Delete(ctx, key); err != nil {
				return nil, err
			}
			continue
		}
		pages = append(pages, pg)
	}
	read := newLedger(pages)
	if read.last <= j.ledger.last {
		return nil, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ledger = read
	clear(j.pending)
	var good []record
	for _, pg := range read.pages {
		for _, r := range read.current(pg) {
			if r.alive(now) && !r.Dies.After(now.Add(longestLife)) && isTag(r.Tag) {
				good = append(good, r)
			}
		}
	}
	return good, nil
}
