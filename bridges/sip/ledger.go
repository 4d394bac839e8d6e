package sip

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"
)

const (
	maxRecords  = 2 * maxUnsaved // of one page
	maxKey      = 1 << 20        // no ledger has so many pages
	fewPages    = 64             // that may hold ever so little
	eachPage    = 4              // publications of a page, at least, where there are more pages
	fewRecords  = 8192           // that may be overtaken
	eachCurrent = 4              // records for each publication, at most, where there are more
)

// A page is a value of Memory: what was written at one time.
type page struct {
	Order   int64    `json:"order"` // among the pages: what a later one says counts
	Records []record `json:"records"`

	key     string
	instead bool // of the oldest page, whose key it takes
	live    int  // records that are the newest of their place
}

// A ledger is the pages that Memory has: a log without I/O, whose beginning is given up
// as it is overtaken. Each page has the newest records of some publications at the time
// when it was written. A publication is where the newest page that names it says, and gone
// where that has no tag.
//
// Memory always has the last so many pages without a gap: only the oldest one is
// overwritten or deleted. So no older record comes back when a newer one goes.
type ledger struct {
	last    int64 // order of the newest page, whether it is known to be durable or not
	pages   []*page
	newest  map[place]*page // where the tag of a publication is
	records int             // in all pages
	free    []string        // keys below next that have no page
	next    int
}

// readPage reads what is kept under a key.
func readPage(key string, value []byte) (*page, error) {
	pg := &page{key: key}
	if err := json.Unmarshal(value, pg); err != nil {
		return nil, err
	}
	if n, err := strconv.Atoi(key); err != nil || n < 0 || n >= maxKey || strconv.Itoa(n) != key || pg.Order <= 0 || len(pg.Records) == 0 {
		return nil, errors.New("not a page")
	}
	return pg, nil
}

// newLedger makes one of the pages that Memory has, in any order.
func newLedger(pages []*page) *ledger {
	l := &ledger{newest: map[place]*page{}}
	slices.SortFunc(pages, func(a, b *page) int { return cmp.Compare(a.Order, b.Order) })
	used := map[int]bool{}
	for _, pg := range pages {
		l.last = pg.Order
		l.add(pg)
		n, _ := strconv.Atoi(pg.key) // was checked
		used[n] = true
		l.next = max(l.next, n+1)
	}
	for n := range l.next {
		if !used[n] {
			l.free = append(l.free, strconv.Itoa(n))
		}
	}
	return l
}

// write gives the page to write next, with as many of the pending records as it takes;
// nil: there are none. Memory has it, or not, until add says that it does.
func (l *ledger) write(pending map[place]record, now time.Time) *page {
	if len(pending) == 0 {
		return nil
	}
	l.last = max(l.last+1, now.UnixMicro()) // above those of who wrote while this one could not read
	pg := &page{Order: l.last}
	switch {
	case len(l.pages) > 0 && (l.pages[0].live == 0 || l.crowded()):
		oldest := l.pages[0]
		pg.key, pg.instead = oldest.key, true
		for _, r := range l.current(oldest) {
			if _, overtaken := pending[r.place()]; !overtaken && r.alive(now) {
				pg.Records = append(pg.Records, r)
			}
		}
	case len(l.free) > 0:
		pg.key = l.free[len(l.free)-1]
	default:
		pg.key = strconv.Itoa(l.next)
	}
	for _, r := range pending {
		if len(pg.Records) >= maxRecords {
			break
		}
		pg.Records = append(pg.Records, r)
	}
	return pg
}

// add says that Memory has pg.
func (l *ledger) add(pg *page) {
	switch n := len(l.free); {
	case pg.instead:
		l.drop()
	case n > 0 && l.free[n-1] == pg.key:
		l.free = l.free[:n-1]
	case pg.key == strconv.Itoa(l.next):
		l.next++
	}
	pg.instead = false
	l.pages = append(l.pages, pg)
	l.records += len(pg.Records)
	for _, r := range pg.Records {
		if old := l.newest[r.place()]; old != nil {
			old.live--
		}
		if r.Tag == "" {
			delete(l.newest, r.place())
		} else {
			l.newest[r.place()] = pg
			pg.live++
		}
	}
}

// drop forgets the oldest page, and what only it has.
func (l *ledger) drop() {
	oldest := l.pages[0]
	l.pages[0] = nil
	l.pages = l.pages[1:]
	l.records -= len(oldest.Records)
	if oldest.live == 0 {
		return
	}
	for _, r := range oldest.Records {
		if l.newest[r.place()] == oldest {
			delete(l.newest, r.place())
		}
	}
}

// crowded tells whether no page is to be added: there would be too many, or too much of
// what they have was overtaken.
func (l *ledger) crowded() bool {
	return len(l.pages) >= fewPages+len(l.newest)/eachPage || l.records > fewRecords+eachCurrent*len(l.newest)
}

// spare gives the key of the oldest page, where Memory can do without it.
func (l *ledger) spare() (key string, ok bool) {
	if len(l.pages) == 0 || l.pages[0].live > 0 || !l.crowded() && len(l.newest) > 0 {
		return "", false
	}
	return l.pages[0].key, true
}

// tear says that the oldest page was deleted.
func (l *ledger) tear() {
	l.free = append(l.free, l.pages[0].key)
	l.drop()
}

// current gives the records of a page that are the newest of their place.
func (l *ledger) current(pg *page) []record {
	found := make([]record, 0, pg.live)
	for _, r := range pg.Records {
		if r.Tag != "" && l.newest[r.place()] == pg {
			found = append(found, r)
		}
	}
	return found
}
