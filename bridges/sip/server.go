package sip

import (
	"container/heap"
	"time"

	"github.com/emiago/sipgo/sip"
)

// A server is one presence server and what is published there. An entity-tag is
// worth nothing at another server, so each has its own publications. A server
// without a link keeps its tags until they die: they are good again when it is
// back.
type server struct {
	address string
	terms   terms
	pubs    map[string]*entry // by entity
	queue   queue             // those that have something to do, the first one first
	link    *link             // nil: not in reach
	nonce   *challenge        // to answer before it is asked; nil: not known

	settled, troubled int // publications that are in order; that are not answered

	heard   time.Time // when it last answered
	missed  int       // probes in a row without an answer
	probing bool
	back    time.Time // since when a server that is not in use answers; zero: it does not
}

// An entry is a publication with what the publisher keeps about it.
type entry struct {
	publication
	uri     sip.Uri
	index   int    // in the queue, or -1
	stored  string // the tag that the journal has
	settled bool
	trouble bool
}

// entry gives the publication of entity, a new one if there is none.
func (s *server) entry(entity string) (*entry, error) {
	if e := s.pubs[entity]; e != nil {
		return e, nil
	}
	uri, err := parseEntity(entity)
	if err != nil {
		return nil, err
	}
	e := &entry{uri: uri, index: -1}
	e.entity, e.terms, e.spread = entity, &s.terms, spread(entity)
	s.pubs[entity] = e
	return e, nil
}

// spread gives a number in [0, 1) that differs from entity to entity, so that
// what began together does not go on together.
func spread(entity string) float64 {
	h := uint32(2166136261) // FNV-1a
	for _, c := range []byte(entity) {
		h = (h ^ uint32(c)) * 16777619
	}
	return float64(h) / (1 << 32)
}

// place puts e where it belongs after an input, and drops it when it is done.
func (s *server) place(e *entry) {
	settled, trouble := e.Settled(), e.failures > 0
	s.settled += count(settled) - count(e.settled)
	s.troubled += count(trouble) - count(e.trouble)
	e.settled, e.trouble = settled, trouble
	switch due := !e.Due().IsZero(); {
	case due && e.index < 0:
		heap.Push(&s.queue, e)
	case due:
		heap.Fix(&s.queue, e.index)
	case e.index >= 0:
		heap.Remove(&s.queue, e.index)
	}
	if e.Done() {
		s.settled -= count(e.settled)
		s.troubled -= count(e.trouble)
		delete(s.pubs, e.entity)
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A queue is a heap.Interface of what is due, by time.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	e := x.(*entry) //nolint:errcheck // only entries are pushed
	e.index = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	e.index = -1
	return e
}
