package lps

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/presence"
)

// Life bounds how long a subscription or a publication lasts.
type Life struct{ Min, Default, Max time.Duration }

// unsaid is the value of Expires where the request does not say.
const unsaid = -1

// grant gives what is granted where so many seconds are asked for; ok is false
// where that is too short.
func (l *Life) grant(seconds int) (granted time.Duration, ok bool) {
	if seconds == unsaid {
		return l.Default, true
	}
	if seconds >= int(l.Max/time.Second) {
		return l.Max, true
	}
	asked := time.Duration(seconds) * time.Second
	return asked, asked == 0 || asked >= l.Min
}

// A Publish is a PUBLISH request, as far as the event state compositor looks at
// it. The requester is known and may publish for the entity.
type Publish struct {
	Entity  string           // the presentity, in canonical form
	Subject presence.Subject // by which the hub knows the presentity
	Event   string           // the event package
	Match   []string         // every entity-tag of SIP-If-Match
	Expires int              // seconds, or -1 where the request does not say
	Type    string           // media type of the body, in lower case, without parameters
	Body    []byte

	read      bool // see Read
	spans     []presence.Span
	malformed error
}

// A Published is what becomes of a PUBLISH. It counts from Commit on.
type Published struct {
	Code    int
	Expires int    // seconds granted; with 423 the least that would be
	Tag     string // the new entity-tag, with 200

	// Report is what the hub is to be told before Commit; nil: nothing.
	Report *presence.Report

	old  *publication
	made publication // what comes to be; without a slot: nothing
}

// A publication is the event state that one endpoint keeps here. The state itself
// is kept by the hub alone.
type publication struct {
	tag     string
	entity  string
	subject presence.Subject
	slot    int // which of the entity's reports it is, from 1
	expires instant
	at      int32 // in the agenda
}

func (p *publication) place() *int32 { return &p.at }

// Publications is the event state compositor of RFC 3903 section 6, sans-I/O. It
// is for one goroutine at a time; the time that is passed in must not go back.
type Publications struct {
	name      string // of the service, before the slash in the source of each report
	life      Life
	most, per int // publications in all, and of one entity
	read      func(body []byte, at time.Time) ([]presence.Span, error)

	boot   string // makes the tags differ from those before a restart
	count  uint64
	n      int                       // publications
	byName map[string][]*publication // by entity
	agenda agenda[*publication]
}

// NewPublications makes a compositor without publications. read gives what a body
// states, or an error where it is no presence document.
func NewPublications(name string, life Life, most, per int, read func(body []byte, at time.Time) ([]presence.Span, error)) *Publications {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // does not fail (crypto/rand)
	return &Publications{
		name: name, life: life, most: most, per: per, read: read, boot: hex.EncodeToString(seed[:]),
		byName: map[string][]*publication{},
	}
}

// Len gives the number of publications.
func (ps *Publications) Len() int { return ps.n }

// isPIDF tells whether a document of that media type is read.
func isPIDF(mediaType string) bool {
	switch mediaType {
	case "application/pidf+xml", "application/cpim-pidf+xml", "text/xml+msrtc.pidf":
		return true
	}
	return false
}

// Read reads the body of r, which is not to be changed from then on, ahead of Publish,
// which else does so itself: any number of goroutines may read at once.
func (ps *Publications) Read(r *Publish, now time.Time) {
	if len(r.Body) > 0 && isPIDF(r.Type) {
		r.spans, r.malformed = ps.read(r.Body, now)
		r.read = true
	}
}

// Publish says what becomes of the request, by the steps of RFC 3903 section 6 in
// their order. Nothing counts before Commit, so that what fails leaves nothing.
func (ps *Publications) Publish(r *Publish, now time.Time) Published {
	if r.Event != "presence" {
		return Published{Code: 489}
	}
	var old *publication
	if r.Match != nil {
		if len(r.Match) != 1 || r.Match[0] == "" || strings.ContainsAny(r.Match[0], ", \t") {
			return Published{Code: 400}
		}
		if old = ps.find(r.Entity, r.Match[0]); old == nil || old.expires <= instantOf(now) {
			return Published{Code: 412}
		}
	}
	life, ok := ps.life.grant(r.Expires)
	switch {
	case !ok:
		return Published{Code: 423, Expires: int(ps.life.Min / time.Second)}
	case len(r.Body) > 0 && !isPIDF(r.Type):
		return Published{Code: 415}
	case len(r.Body) == 0 && old == nil:
		return Published{Code: 400}
	}
	p := Published{Code: 200, Expires: int(life / time.Second), Tag: ps.tag(), old: old}
	slot := 0
	if old != nil {
		slot = old.slot
	}
	switch {
	case life == 0:
		if old != nil {
			p.Report = ps.report(old, nil, 0, now)
		}
		return p
	case old == nil:
		if slot = ps.freeSlot(r.Entity); slot == 0 || ps.n >= ps.most {
			return Published{Code: 503}
		}
	}
	p.made = publication{tag: p.Tag, entity: r.Entity, subject: r.Subject, slot: slot, expires: instantOf(now.Add(life)), at: absent}
	if len(r.Body) > 0 {
		if !r.read {
			ps.Read(r, now)
		}
		if r.malformed != nil {
			return Published{Code: 400}
		}
		p.Report = ps.report(&p.made, r.spans, life, now)
	}
	return p
}

// Commit makes p count: what Publish gave just before, with the code 200.
func (ps *Publications) Commit(p *Published) {
	m := p.old
	switch made := &p.made; {
	case made.slot == 0 && m == nil:
		return
	case made.slot == 0:
		ps.drop(m)
		return
	case m == nil:
		m = new(publication)
		*m = *made
		ps.byName[m.entity] = append(ps.byName[m.entity], m)
		ps.n++
	default:
		m.tag, m.subject, m.expires = made.tag, made.subject, made.expires
	}
	ps.agenda.set(m, m.expires)
}

// Next is when Expire may have something to do; zero: not before something is published.
func (ps *Publications) Next() time.Time { return ps.agenda.next().time() }

// Expire drops the publications whose time is over, and appends to out what the hub
// is to be told of them.
func (ps *Publications) Expire(now time.Time, out []*presence.Report) []*presence.Report {
	for {
		p, ok := ps.agenda.due(instantOf(now))
		if !ok {
			return out
		}
		if p.expires > instantOf(now) { // it was refreshed
			ps.agenda.set(p, p.expires)
			continue
		}
		ps.drop(p)
		over := ps.report(p, []presence.Span{{Fact: presence.SessionOffline, From: now}}, 0, now)
		over.Expires = now // it was not taken back: something was known, and that is over
		out = append(out, over)
	}
}

func (ps *Publications) drop(p *publication) {
	ps.n--
	ps.agenda.drop(p)
	rest := slices.DeleteFunc(ps.byName[p.entity], func(other *publication) bool { return other == p })
	if len(rest) == 0 {
		delete(ps.byName, p.entity)
		return
	}
	ps.byName[p.entity] = rest
}

// find gives the publication of an entity that has the tag; nil: there is none.
func (ps *Publications) find(entity, tag string) *publication {
	for _, p := range ps.byName[entity] {
		if p.tag == tag {
			return p
		}
	}
	return nil
}

// freeSlot gives the least slot that no publication of the entity has; zero: there
// are too many.
func (ps *Publications) freeSlot(entity string) int {
	for slot := 1; slot <= ps.per; slot++ {
		if !slices.ContainsFunc(ps.byName[entity], func(p *publication) bool { return p.slot == slot }) {
			return slot
		}
	}
	return 0
}

// tag gives an entity-tag that was never given before.
func (ps *Publications) tag() string {
	ps.count++
	return ps.boot + "." + strconv.FormatUint(ps.count, 36)
}

// report says what p states; no spans: nothing. It lasts until it is replaced: the
// publication expires here, and a refresh need not be told to the hub. Grace is
// how long it outlives a restart, which forgets the tags.
func (ps *Publications) report(p *publication, spans []presence.Span, grace time.Duration, now time.Time) *presence.Report {
	return &presence.Report{Source: ps.name + "/" + strconv.Itoa(p.slot), Subject: p.subject, At: now, Grace: grace, Spans: spans}
}
