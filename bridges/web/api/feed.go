package api

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"presenced/aggregator/presence"
)

// A feed holds the newest state of every person in the order of change, and is the
// mailbox of all streams at once: a stream remembers how far it has read and takes
// what changed since. One that is slow skips states, never the newest, and costs no
// memory (R4). What a stream has seen is a cursor, good for as long as the process
// lives and nobody is forgotten that it does not know to have left.
type feed struct {
	epoch string // tells cursors of this process from those of another
	view  func(presence.State, presence.Access) presence.State

	mu        sync.Mutex
	seq       uint64
	rows      map[presence.ID]*list.Element // of *row
	order     *list.List                    // the latest change last
	left      []presence.ID                 // people who left, the earliest first
	forgotten uint64                        // the change of the latest one who left and is in no row
	changed   chan struct{}                 // closed at the next change
}

// maxLeft bounds how many people who left are remembered.
const maxLeft = 1000

// A row is the newest that is known of one person. It does not change, but that what
// somebody sees of it is worked out when it is first wanted.
type row struct {
	seq   uint64
	id    presence.ID
	state presence.State
	left  bool

	mu    sync.Mutex
	views map[presence.Access]*view
}

// A view is what those see of a row who have one access: they share its bytes.
type view struct {
	changed uint64 // the change since which they see just that
	frame   func() []byte
}

func newFeed(view func(presence.State, presence.Access) presence.State) *feed {
	return &feed{
		epoch: strconv.FormatInt(time.Now().UnixNano(), 36), view: view, rows: map[presence.ID]*list.Element{},
		order: list.New(), changed: make(chan struct{}),
	}
}

// put takes a state. The same again says that the rules may have changed.
func (f *feed) put(s presence.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.push(&row{id: s.Person, state: s})
}

// remove takes a person away. Their row stays for a while as that of one who left.
func (f *feed) remove(id presence.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.rows[id]; e == nil || rowOf(e).left {
		return
	}
	f.push(&row{id: id, left: true})
	f.left = append(f.left, id)
	if len(f.left) <= maxLeft {
		return
	}
	if e := f.rows[f.left[0]]; e != nil && rowOf(e).left { // else they came back
		f.forgotten = max(f.forgotten, rowOf(e).seq)
		f.order.Remove(e)
		delete(f.rows, f.left[0])
	}
	f.left = slices.Delete(f.left, 0, 1)
}

func rowOf(e *list.Element) *row { return e.Value.(*row) } //nolint:forcetypeassert // the list holds nothing else

func (f *feed) push(r *row) {
	f.seq++
	r.seq = f.seq
	if old, ok := f.rows[r.id]; ok {
		f.order.Remove(old)
		f.carry(rowOf(old), r)
	}
	f.rows[r.id] = f.order.PushBack(r)
	close(f.changed)
	f.changed = make(chan struct{})
}

// since gives the rows that changed after seq, the earliest first, how far that
// reaches, and a channel that is closed at the next change.
func (f *feed) since(seq uint64) ([]*row, uint64, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var rows []*row
	for e := f.order.Back(); e != nil && rowOf(e).seq > seq; e = e.Prev() {
		rows = append(rows, rowOf(e))
	}
	slices.Reverse(rows)
	return rows, f.seq, f.changed
}

func (f *feed) cursor(seq uint64) string { return f.epoch + "-" + strconv.FormatUint(seq, 10) }

// place is the inverse of cursor. It is false for one that says nothing here: of
// another process, of nobody's making, or too old.
func (f *feed) place(cursor string) (seq uint64, ok bool) {
	epoch, text, ok := strings.Cut(cursor, "-")
	if !ok || epoch != f.epoch {
		return 0, false
	}
	seq, err := strconv.ParseUint(text, 10, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || seq > f.seq || seq < f.forgotten {
		return 0, false
	}
	return seq, true
}

// carry takes over since when those who saw old have seen what they see of r. Where
// that is the same it did not change for them: that something did is not theirs to know.
func (f *feed) carry(old, r *row) {
	if old.left || r.left || old.state == r.state {
		return
	}
	old.mu.Lock()
	defer old.mu.Unlock()
	r.views = make(map[presence.Access]*view, len(old.views))
	for a, was := range old.views {
		seen := f.view(r.state, a)
		was := was.changed
		if before := f.view(old.state, a); !same(&before, &seen) {
			was = r.seq
		}
		r.views[a] = f.viewOf(r, seen, was)
	}
}

// same tells whether a watcher sees no difference. The revision counts every change,
// seen or not.
func same(a, b *presence.State) bool {
	x, y := *a, *b
	x.Revision, y.Revision = 0, 0
	return x == y
}

// seen gives what a viewer with that access sees of r.
func (f *feed) seen(r *row, a presence.Access) *view {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.views[a]
	if v == nil {
		if r.views == nil {
			r.views = map[presence.Access]*view{}
		}
		v = f.viewOf(r, f.view(r.state, a), r.seq)
		r.views[a] = v
	}
	return v
}

func (f *feed) viewOf(r *row, seen presence.State, changed uint64) *view {
	return &view{changed, sync.OnceValue(func() []byte {
		data, err := json.Marshal(seen)
		if err != nil {
			panic("api: a state cannot be written: " + err.Error())
		}
		return event("state", f.cursor(r.seq), data)
	})}
}

// Run feeds the streams with what the hub says until ctx ends.
func (a *API) Run(ctx context.Context, hub presence.Hub) error {
	for state := range hub.Watch(ctx) {
		if state.Why.Rule == presence.RuleRemoved {
			a.feed.remove(state.Person)
		} else {
			a.feed.put(state)
		}
	}
	if ctx.Err() == nil {
		return errors.New("the aggregator ended the watch of the API")
	}
	return ctx.Err()
}

// Name gives "api".
func (*API) Name() string { return "api" }

// Status tells how many watch.
func (a *API) Status() presence.Status {
	return presence.Status{Phase: presence.PhaseLive, Detail: strconv.FormatInt(a.streams.Load(), 10) + " programs watch"}
}
