package aggregator

import (
	"hash/maphash"
	"iter"

	"presenced/aggregator/presence"
)

// people holds the records of a core. They stand in pages, where they never move, and
// are found by a table with eight bytes for each place: to find one among millions
// touches little memory that is not in the processor's cache. Both are long lists, which
// the kernel is asked to map by huge pages: what is far apart is looked up twice, in
// memory and in the tables of its pages.
type people struct {
	seed  maphash.Seed
	pages []*[pageSize]record
	made  int       // records in the pages
	free  []*record // those that were released
	index []entry   // open addressing with linear probing; the length is a power of two
	known int       // entries in it

	// The numbers of records are first, first+step, first+2*step...
	first, step uint32
}

// An entry has a half of a person's hash above, and one more than the place of the
// record among all below; zero: it is empty.
type entry uint64

const pageSize = 1024

func newPeople() people {
	return people{seed: maphash.MakeSeed(), index: make([]entry, 8), step: 1}
}

func (p *people) hash(id presence.ID) uint32 {
	return uint32(maphash.String(p.seed, string(id)) >> 32) //nolint:gosec // half of it
}

func (e entry) hash() uint32 { return uint32(e >> 32) } //nolint:gosec // half of it

func (p *people) record(e entry) *record {
	i := uint32(e) - 1 //nolint:gosec // the other half
	return &p.pages[i/pageSize][i%pageSize]
}

// find gives the record of a person and its place in the index; nil and a free
// place for who is not known.
func (p *people) find(id presence.ID, hash uint32) (r *record, at int) {
	mask := len(p.index) - 1
	for at = int(hash) & mask; p.index[at] != 0; at = (at + 1) & mask {
		if p.index[at].hash() == hash {
			if r = p.record(p.index[at]); r.id() == id {
				return r, at
			}
		}
	}
	return nil, at
}

// of gives the record of a person, nil for who is not known.
func (p *people) of(id presence.ID) *record {
	r, _ := p.find(id, p.hash(id))
	return r
}

// enter makes the record of a person who is not known.
func (p *people) enter(id presence.ID) *record {
	if 4*(p.known+1) > 3*len(p.index) {
		p.grow()
	}
	var r *record
	if n := len(p.free); n > 0 {
		r, p.free = p.free[n-1], p.free[:n-1]
	} else {
		if p.made == len(p.pages)*pageSize {
			p.extend()
		}
		r = &p.pages[p.made/pageSize][p.made%pageSize]
		r.number = p.first + p.step*uint32(p.made) //nolint:gosec // there are not as many people
		p.made++
	}
	r.packed, r.place = packedPerson(id), 0
	hash := p.hash(id)
	_, at := p.find(id, hash)
	p.index[at] = entry(hash)<<32 | entry((r.number-p.first)/p.step+1)
	p.known++
	return r
}

// extend adds a quarter of the pages that there are, in one piece.
func (p *people) extend() {
	piece := make([]record, max(1, len(p.pages)/4)*pageSize)
	hugePages(piece)
	for ; len(piece) > 0; piece = piece[pageSize:] {
		p.pages = append(p.pages, (*[pageSize]record)(piece))
	}
}

func (p *people) grow() {
	old := p.index
	p.index = make([]entry, 2*len(old))
	hugePages(p.index)
	mask := len(p.index) - 1
	for _, e := range old {
		if e != 0 {
			at := int(e.hash()) & mask
			for p.index[at] != 0 {
				at = (at + 1) & mask
			}
			p.index[at] = e
		}
	}
}

// leave makes r that of somebody who is gone: it is not found any more, and stays
// until it is released.
func (p *people) leave(r *record) {
	_, hole := p.find(r.id(), p.hash(r.id()))
	r.place = gone
	p.known--
	mask := len(p.index) - 1
	for at := (hole + 1) & mask; p.index[at] != 0; at = (at + 1) & mask { // who was to stand in the hole, or before it, does now
		if home := int(p.index[at].hash()); (at-home)&mask >= (at-hole)&mask {
			p.index[hole], hole = p.index[at], at
		}
	}
	p.index[hole] = 0
}

// release has the record of somebody who is gone used again, for somebody else.
func (p *people) release(r *record) {
	*r = record{place: gone, number: r.number}
	p.free = append(p.free, r)
}

// all gives the records of everybody known, in no order. Who it gave may leave meanwhile.
func (p *people) all() iter.Seq[*record] {
	return func(yield func(*record) bool) {
		for i := range p.made {
			if r := &p.pages[i/pageSize][i%pageSize]; r.place != gone && !yield(r) {
				return
			}
		}
	}
}
