package sip

import (
	"container/heap"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"time"

	"github.com/emiago/sipgo/sip"
	"golang.org/x/time/rate"

	"presenced/bridges/sip/digest"
	"presenced/bridges/sip/entity"
	"presenced/bridges/sip/lookup"
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
	lanes   [2]queue          // those that have something to do, the first one first
	filled  bool              // the last request was of the lane filling
	limiter *rate.Limiter
	out     int               // requests that wait for an answer
	link    *link             // nil: not in reach
	nonce   *digest.Challenge // to answer before it is asked; nil: not known

	held, settled, troubled int // publications that have a tag; that are in order; that are not answered

	heard   time.Time // when it last answered
	fault   string    // why it did not, if that was later
	missed  int       // probes in a row without an answer
	probing bool
	back    time.Time // from when a server that is not in use will have answered for long enough; zero: it does not

	rest     map[netip.AddrPort]time.Time // until when a target wants to be left alone (Retry-After)
	doubtful bool                         // it was away: what it holds is to be looked at
	doubted  time.Time                    // when that was done last
}

// The lanes of a server: what is there is to be kept and changed while many others are
// published or removed.
const (
	keeping = iota
	filling
)

func newServer(address string, cfg *Config) *server {
	return &server{address: address, terms: usualTerms(cfg.Expires), pubs: map[string]*entry{}, rest: map[netip.AddrPort]time.Time{}, limiter: rate.NewLimiter(usualRate, usualRate)}
}

// An entry is a publication with what the publisher keeps about it.
type entry struct {
	publication
	uri     sip.Uri
	lane    int
	index   int    // in the lane, or -1
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

// open gives a link to a target of the server at address; whether it answers is not
// known yet.
func (w *way) open(ctx context.Context, address string, to lookup.Target, log *slog.Logger, noticed func(kind string)) (*link, error) {
	var trusted *tls.Config
	if to.Transport == "tls" {
		host, _, err := lookup.SplitAddress(address) // the certificate is for this name, whatever the DNS says (RFC 5922 section 4)
		if err != nil {
			return nil, err
		}
		if trusted, err = w.tls.Client(host); err != nil {
			return nil, err
		}
	}
	return openLink(ctx, address, to, trusted, log, noticed)
}

// usualRate is how many requests a second are sent where nothing else is configured,
// and maxRate how many at most.
const (
	usualRate = 50
	maxRate   = 10000
)

// load is how many requests a second it takes to refresh so many publications in time.
func (s *server) load(publications int) int {
	life := s.terms.expires
	if s.terms.granted > 0 {
		life = min(life, s.terms.granted)
	}
	return int(math.Ceil(float64(publications) / (life.Seconds() * s.terms.turn)))
}

// setPace limits the requests to so many a second; 0: as many as it takes.
func (s *server) setPace(configured int) {
	pace := configured
	if pace == 0 {
		pace = min(max(usualRate, 2*s.load(len(s.pubs))), maxRate)
	}
	if s.limiter.Limit() != rate.Limit(pace) {
		s.limiter.SetLimit(rate.Limit(pace))
		s.limiter.SetBurst(pace)
	}
}

// due gives what is to be sent first of what is due; nil: nothing is. The lanes take
// turns, unless what is to be kept would soon end.
func (s *server) due(now time.Time) *entry {
	var first [len(s.lanes)]*entry
	for i, lane := range s.lanes {
		if len(lane) > 0 && !lane[0].Due().After(now) {
			first[i] = lane[0]
		}
	}
	kept, filled := first[keeping], first[filling]
	if kept != nil && (filled == nil || s.filled || kept.dies.Sub(now) < s.terms.expires/10) {
		return kept
	}
	return filled
}

// idle gives how long nothing is due; limit at most.
func (s *server) idle(now time.Time, limit time.Duration) time.Duration {
	for _, lane := range s.lanes {
		if len(lane) > 0 {
			limit = min(limit, lane[0].Due().Sub(now))
		}
	}
	return limit
}

// doubt has everything refreshed at the pace of the server, which may have forgotten it.
func (s *server) doubt(now time.Time) {
	s.doubted, s.doubtful = now, false
	for _, e := range s.pubs {
		e.Doubt(now)
		s.place(e)
	}
}

// revive ends the pauses of all publications; they are to be wanted again.
func (s *server) revive(now time.Time) {
	for _, e := range s.pubs {
		e.Orphan(now)
		s.place(e)
	}
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

// entry gives the publication at address, a new one if there is none.
func (s *server) entry(address string) (*entry, error) {
	if e := s.pubs[address]; e != nil {
		return e, nil
	}
	uri, err := parseURI(address)
	if err != nil {
		return nil, err
	}
	e := &entry{uri: uri, index: -1}
	e.entity, e.terms, e.spread = address, &s.terms, spread(address)
	s.pubs[address] = e
	return e, nil
}

// parseURI gives the address of a person as that of a request.
func parseURI(address string) (sip.Uri, error) {
	var uri sip.Uri
	if err := entity.Check(address); err != nil {
		return uri, err
	}
	if err := sip.ParseUri(address, &uri); err != nil {
		return uri, errors.New("not a SIP address")
	}
	return uri, nil
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
	lane := filling
	if held && !e.stopping {
		lane = keeping
	}
	due := !e.Due().IsZero()
	switch {
	case e.index >= 0 && (!due || lane != e.lane):
		heap.Remove(&s.lanes[e.lane], e.index)
	case e.index >= 0:
		heap.Fix(&s.lanes[lane], e.index)
	}
	if e.lane = lane; due && e.index < 0 {
		heap.Push(&s.lanes[lane], e)
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
