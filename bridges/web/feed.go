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
	forgot  uint64                        // seq of the last of those who left and are not among them any more
	free    []int                         // numbers below len(rows)+len(free) that no row has
}

// maxLeft bounds how many people who left are remembered, for the streams that have yet to hear of it.
const maxLeft = 1000

// A row is one person in the feed. It does not change, but that what somebody sees of
// it is worked out when it is first wanted.
type row struct {
	person presence.Person
	state  presence.State // before any view

	seq    uint64
	number int  // that no other person has who is in the feed: they are counted from 0
	again  bool // nothing changed but, it may be, the rules
	search string
	mark   marks
	left   bool
	render func(member) string
	id     string        // the cursor of seq
	hidden func() []byte // the frame that takes the row away

	mu     sync.Mutex
	before *row // the one in whose place it is, which has none itself
	views  map[presence.Access]*view
}

// A view is what those see of a row who have one access: they share its bytes.
type view struct {
	member

	changed uint64        // the place in the feed since which they see just that
	shown   func() []byte // the frame that shows the row; rendered once, when it is first wanted
}

// view gives what a viewer with that access sees. Where that is what they saw of the
// row before, it did not change for them: that something did change is not theirs to know.
func (r *row) view(a presence.Access) *view {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.views[a]
	if v == nil {
		v = &view{member: member{r.person, a, visible(r.state, a)}, changed: r.seq}
		v.shown = sync.OnceValue(func() []byte { return event("row", r.id, r.render(v.member)) })
		if old := r.before; old != nil && !old.left && !r.again {
			if was := old.view(a); was.equal(v.member) {
				v = was
			}
		}
		r.views[a] = v
	}
	return v
}

func newFeed(render func(member) string) *feed {
	return &feed{
		render: render, epoch: strconv.FormatInt(time.Now().UnixNano(), 36), rows: map[presence.ID]*list.Element{},
		order: list.New(), changed: make(chan struct{}),
	}
}

// put takes a new state of a person, or new particulars. The same again says that the
// rules may have changed: each stream then shows the row anew.
func (f *feed) put(p presence.Person, st presence.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &row{person: p, state: st, search: searchText(&p)}
	if e, ok := f.rows[p.ID]; ok {
		old := e.Value.(*row) //nolint:forcetypeassert // the list holds nothing else
		m := member{person: old.person, state: old.state}
		r.again = !old.left && m.equal(member{person: p, state: st})
	}
	f.push(r)
}

// remove takes a person away. Their row stays in the feed as one that is gone.
func (f *feed) remove(id presence.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.rows[id]
	if !ok || e.Value.(*row).left { //nolint:forcetypeassert // the list holds nothing else
		return
	}
	f.push(&row{person: presence.Person{ID: id}, left: true})
	if f.left = append(f.left, id); len(f.left) > maxLeft {
		if e := f.rows[f.left[0]]; e != nil && e.Value.(*row).left { //nolint:forcetypeassert // the list holds nothing else
			gone := f.order.Remove(e).(*row) //nolint:forcetypeassert // the list holds nothing else
			delete(f.rows, f.left[0])
			f.forgot = max(f.forgot, gone.seq)
			f.free = append(f.free, gone.number)
		}
		f.left = slices.Delete(f.left, 0, 1)
	}
}

func (f *feed) push(r *row) {
	f.seq++
	r.seq = f.seq
	r.id, r.mark, r.render, r.views = f.cursorAt(r.seq), markOf(r.person.ID), f.render, map[presence.Access]*view{}
	r.hidden = sync.OnceValue(func() []byte { return event("gone", r.id, domID(r.person.ID)) })
	if e, ok := f.rows[r.person.ID]; ok {
		old := f.order.Remove(e).(*row) //nolint:forcetypeassert // the list holds nothing else
		r.number = old.number
		if !r.left {
			r.before = old
			for _, a := range old.seen() { // before a third row comes, and what they saw is forgotten
				r.view(a)
			}
		}
	} else if n := len(f.free); n > 0 {
		r.number, f.free = f.free[n-1], f.free[:n-1]
	} else {
		r.number = len(f.rows)
	}
	f.rows[r.person.ID] = f.order.PushBack(r)
	close(f.changed)
	f.changed = make(chan struct{})
}

// seen gives the accesses of those who looked, and forgets what was before.
func (r *row) seen() []presence.Access {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = nil
	return slices.Collect(maps.Keys(r.views))
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

// lacks tells whether somebody left after seq of whom the feed knows nothing any more.
func (f *feed) lacks(seq uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.forgot > seq
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
