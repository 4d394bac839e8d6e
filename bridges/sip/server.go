package sip

import (
	"container/heap"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/emiago/sipgo/sip"

	"presenced/internal/trust"
)

// A server is one presence server and what is published there. An entity-tag is
// worth nothing at another server, so each has its own publications. A server
// without a link keeps its tags until they die: they are good again when it is
// back.
type server struct {
	address string
	way     way
	terms   terms
	pubs    map[string]*entry // by entity
	queue   queue             // those that have something to do, the first one first
	link    *link             // nil: not in reach
	nonce   *challenge        // to answer before it is asked; nil: not known

	held, settled, troubled int // publications that have a tag; that are in order; that are not answered

	heard   time.Time // when it last answered
	fault   string    // why it did not, if that was later
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
	held    bool
	settled bool
	trouble bool
}

// A way is how a server is reached.
type way struct {
	transport string
	tls       trust.Config
	user      string
	password  string // read when a Run begins
}

// open gives a link to the server at address; whether it answers is not known yet.
func (w *way) open(ctx context.Context, address string, log *slog.Logger, noticed func(kind string)) (*link, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var trusted *tls.Config
	if w.transport == "tls" {
		if trusted, err = w.tls.Client(host); err != nil {
			return nil, err
		}
	}
	return openLink(ctx, w.transport, address, trusted, log, noticed)
}

// answers says that the server did, just now.
func (s *server) answers(now time.Time) { s.heard, s.fault = now, "" }

// dead tells whether the server holds nothing any more, as far as can be known.
func (s *server) dead(now time.Time) bool {
	for _, e := range s.pubs {
		if e.out != nil || e.dies.After(now) {
			return false
		}
	}
	return true
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
	held, settled, trouble := e.tag != "", e.Settled(), e.failures > 0
	s.held += count(held) - count(e.held)
	s.settled += count(settled) - count(e.settled)
	s.troubled += count(trouble) - count(e.trouble)
	e.held, e.settled, e.trouble = held, settled, trouble
	switch due := !e.Due().IsZero(); {
	case due && e.index < 0:
		heap.Push(&s.queue, e)
	case due:
		heap.Fix(&s.queue, e.index)
	case e.index >= 0:
		heap.Remove(&s.queue, e.index)
	}
	if e.Done() {
		s.held -= count(e.held)
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
