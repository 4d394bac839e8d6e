package web

import (
	"container/list"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"presenced/aggregator/presence"
)

// A feed holds the newest row of every person in the order of change, and is
// the mailbox of all streams at once: a stream remembers how far it has read
// and takes what changed since. One that is slow skips states, never the newest,
// and costs no memory (R4). The feed also outlives a lost connection: a page
// that comes back with its cursor gets exactly what it missed.
type feed struct {
	render func(member) string
	epoch  string // tells cursors of this process from those of another

	mu      sync.Mutex
	seq     uint64
	rows    map[presence.ID]*list.Element // of *row
	order   *list.List                    // the latest change last
	changed chan struct{}                 // closed at the next change
	left    []presence.ID                 // people who left, the earliest first

	tallies   map[filter]tally // as of talliesAt
	talliesAt uint64
}

// maxLeft bounds how many people who left are remembered, for the streams that have yet to hear of it.
const maxLeft = 1000

// A row is what a stream sends of one person. It does not change.
type row struct {
	member

	seq    uint64
	search string
	left   bool

	shown  func() []byte // the frame that shows the row; rendered once, when it is first wanted
	hidden func() []byte // the frame that takes it away
}

func newFeed(render func(member) string) *feed {
	return &feed{
		render: render, epoch: strconv.FormatInt(time.Now().UnixNano(), 36), rows: map[presence.ID]*list.Element{},
		order: list.New(), changed: make(chan struct{}), tallies: map[filter]tally{},
	}
}

// put takes a new state of a person, or new particulars.
func (f *feed) put(m member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e, ok := f.rows[m.person.ID]; ok {
		if old := e.Value.(*row); !old.left && old.equal(m) { //nolint:forcetypeassert // the list holds nothing else
			return
		}
	}
	f.push(&row{member: m, search: searchText(&m.person)})
}

// remove takes a person away. Their row stays in the feed as one that is gone.
func (f *feed) remove(id presence.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.rows[id]
	if !ok || e.Value.(*row).left { //nolint:forcetypeassert // the list holds nothing else
		return
	}
	f.push(&row{member: member{person: presence.Person{ID: id}}, left: true})
	if f.left = append(f.left, id); len(f.left) > maxLeft {
		if e := f.rows[f.left[0]]; e != nil && e.Value.(*row).left { //nolint:forcetypeassert // the list holds nothing else
			f.order.Remove(e)
			delete(f.rows, f.left[0])
		}
		f.left = slices.Delete(f.left, 0, 1)
	}
}

func (f *feed) push(r *row) {
	f.seq++
	r.seq = f.seq
	id := f.cursorAt(r.seq)
	r.shown = sync.OnceValue(func() []byte { return event("row", id, f.render(r.member)) })
	r.hidden = sync.OnceValue(func() []byte { return event("gone", id, domID(r.person.ID)) })
	if old, ok := f.rows[r.person.ID]; ok {
		f.order.Remove(old)
	}
	f.rows[r.person.ID] = f.order.PushBack(r)
	close(f.changed)
	f.changed = make(chan struct{})
}

// since gives the rows that changed after seq, the earliest first, how far that
// reaches, and a channel that is closed at the next change.
func (f *feed) since(seq uint64) ([]*row, uint64, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var rows []*row
	for e := f.order.Back(); e != nil; e = e.Prev() {
		r := e.Value.(*row) //nolint:forcetypeassert // the list holds nothing else
		if r.seq <= seq {
			break
		}
		rows = append(rows, r)
	}
	slices.Reverse(rows)
	return rows, f.seq, f.changed
}

// tally counts the people that q covers.
func (f *feed) tally(q *filter) tally {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.talliesAt != f.seq || len(f.tallies) > 100 {
		clear(f.tallies)
		f.talliesAt = f.seq
	}
	key := *q
	key.state = "" // does not bear on the counts
	if t, ok := f.tallies[key]; ok {
		return t
	}
	var t tally
	for e := range maps.Values(f.rows) {
		if r := e.Value.(*row); !r.left && q.covers(&r.member, r.search) { //nolint:forcetypeassert // the list holds nothing else
			t.add(&r.state)
		}
	}
	f.tallies[key] = t
	return t
}

// cursor gives the place in the feed that a page made now has seen.
func (f *feed) cursor() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cursorAt(f.seq)
}

func (f *feed) cursorAt(seq uint64) string { return f.epoch + "-" + strconv.FormatUint(seq, 10) }

// place is the inverse of cursorAt. A cursor that is not of this process, or of
// nobody's making, is one that has seen nothing.
func (f *feed) place(cursor string) uint64 {
	epoch, text, ok := strings.Cut(cursor, "-")
	if !ok || epoch != f.epoch {
		return 0
	}
	seq, err := strconv.ParseUint(text, 10, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || seq > f.seq {
		return 0
	}
	return seq
}
