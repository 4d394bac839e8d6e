package sip

import (
	"bytes"
	"time"

	"presenced/bridges/sip/digest"
)

// Times and counts of RFC 3903 practice; see the state table of the publication.
const (
	dwell        = time.Second            // between two changes of one person
	turn         = 0.8                    // part of its life after which a publication is refreshed
	removalTries = 4                      // how often a removal is sent that does not succeed
	soon         = 60 * time.Second       // a second lost tag within it is no accident
	refusedPause = 5 * time.Minute        // until what was refused is tried again
	shortBackoff = 2 * time.Second        // the first pause after a failure; doubled each time
	longBackoff  = time.Minute            // and the longest one
	unavailable  = 30 * time.Second       // pause after a 503 that names none
	longestPause = time.Hour              // no server makes us wait longer
	longestLife  = 24 * time.Hour         // nor asks for a longer life of a publication
	orphanPause  = 60 * time.Second       // how long an inherited publication waits to be wanted
	shortestTurn = 500 * time.Millisecond // no refresh sooner, however short the life granted
)

// An operation is a row of table 1 of RFC 3903.
type operation uint8

const (
	opInitial operation = iota // body, no tag
	opRefresh                  // tag, no body
	opModify                   // tag and body
	opRemove                   // tag, no body, Expires 0
)

func (o operation) String() string {
	return [...]string{"initial", "refresh", "modify", "remove"}[o]
}

// A request is one PUBLISH to send.
type request struct {
	op      operation
	tag     string // SIP-If-Match; empty: none
	body    []byte
	expires time.Duration
	answer  *digest.Challenge // the challenge to answer; nil: none
}

// A response is the final answer to a request.
type response struct {
	code       int
	tag        string            // SIP-ETag
	expires    time.Duration     // negative: not said
	minExpires time.Duration     // zero: not said
	retryAfter time.Duration     // zero: not said
	challenge  *digest.Challenge // one that can be answered; nil: none
}

// A verdict tells what an answer means beyond the publication.
type verdict uint8

const (
	fine      verdict = iota
	refused           // this publication is not wanted by the server
	malformed         // the answer breaks RFC 3903
	failing           // the server does not work, for long or for who knows how long: try another
	denied            // the credentials are wrong; all others will be denied too
)

// Terms is what the publications of one server share.
type terms struct {
	expires time.Duration // life to ask for; a 423 raises it for all
	granted time.Duration // the last one that the server gave; zero: none yet
	dwell   time.Duration // between two changes of one person
	turn    float64       // part of its life after which a publication is refreshed, within a tenth
	pause   time.Duration // the first one after a failure; doubled each time
}

func usualTerms(expires time.Duration) terms {
	return terms{expires: expires, dwell: dwell, turn: turn, pause: shortBackoff}
}

// A publication is the event state of one person at one server: the client side
// of RFC 3903 as a state machine without I/O. Inputs are the methods with a
// time; Send gives the output. At most one request is out at any time, and the
// newest document wins.
//
// It is none without a tag, published with one, trying while a request is out,
// and waiting (backed off, or refused) while retry is in the future.
type publication struct {
	entity string // Request-URI
	terms  *terms
	spread float64 // in [0, 1): sets this one apart from the others in time

	want   []byte    // newest document; nil: nobody said yet
	sent   []byte    // what the server holds; nil: not known
	resend bool      // it is to be sent again, though it may be out just now
	tag    string    // entity-tag the server gave last; empty: none
	dies   time.Time // when the server forgets it

	out    *request // the one that is out
	outAt  time.Time
	answer *digest.Challenge // to answer in the next request

	at       time.Time // when Send has something to give; zero: not before the next input
	refresh  time.Time // when the publication is to be refreshed
	changed  time.Time // when a document was sent last
	retry    time.Time // not before; zero: no pause
	lost     time.Time // when a tag was lost last
	orphan   time.Time // when nobody wants it, if nobody said before
	failures int       // in a row
	brief    int       // 423 in a row
	answered int       // challenges in a row
	refusal  int       // status code of the refusal; zero: not refused
	stopping bool
	tries    int       // at the removal that are left
	again    time.Time // when the removal is tried again; zero: at once
	gone     bool      // the removal did not succeed, and nothing more is done about it
}

// Inherit takes over what an earlier life of the program, or another machine, published. It is
// removed if nobody wants it within a minute.
func (p *publication) Inherit(tag string, dies, now time.Time) {
	p.tag, p.sent, p.dies, p.refresh = tag, nil, dies, now.Add(dies.Sub(now)/2)
	p.Orphan(now)
}

// Orphan begins anew after a while without a server. Whoever wants the
// publication is to say so again within a minute, else it is removed. Pauses end,
// but for that of a refusal.
func (p *publication) Orphan(now time.Time) {
	p.want, p.answer, p.orphan = nil, nil, now.Add(orphanPause)
	if p.refusal == 0 || p.refusal == 401 || p.refusal == 407 {
		p.refusal, p.retry, p.failures = 0, time.Time{}, 0
	}
	p.plan(now)
}

// Want takes the newest document. It revives a publication that was to stop.
func (p *publication) Want(doc []byte, now time.Time) {
	p.want, p.stopping, p.gone = doc, false, false
	p.plan(now)
}

// Resend has the newest document sent again, whatever the server holds.
func (p *publication) Resend(now time.Time) {
	p.sent, p.resend = nil, true
	p.plan(now)
}

// Doubt has the publication refreshed now: the server may have forgotten it.
func (p *publication) Doubt(now time.Time) {
	if p.tag != "" && p.refresh.After(now) {
		p.refresh = now
		p.plan(now)
	}
}

// Stop asks for the removal, now and so many times: a server that does not answer,
// or cannot do it at the moment, is asked again after a pause. Another Stop begins
// to count anew.
func (p *publication) Stop(now time.Time, tries int) {
	if !p.stopping {
		p.stopping, p.retry, p.answer = true, time.Time{}, nil
	}
	p.tries, p.again = tries, time.Time{}
	p.plan(now)
}

// Due gives the time from which Send has something to give; zero: not before the
// next input.
func (p *publication) Due() time.Time { return p.at }

// Done tells whether a publication that was to stop is gone, or given up. It has
// a tag still if the server may hold it.
func (p *publication) Done() bool { return p.stopping && p.out == nil && (p.tag == "" || p.gone) }

// Settled tells whether the server holds the newest document.
func (p *publication) Settled() bool {
	return p.want != nil && p.tag != "" && p.sent != nil && bytes.Equal(p.want, p.sent)
}

// plan finds out when there is something to do. What is due keeps its place in
// the queue.
func (p *publication) plan(now time.Time) {
	next := p.next(now)
	if next.Equal(now) && !p.at.IsZero() && p.at.Before(now) {
		return
	}
	p.at = next
}

func (p *publication) next(now time.Time) time.Time {
	switch {
	case p.out != nil:
		return time.Time{}
	case p.stopping && (p.tag == "" || p.gone):
		return time.Time{}
	case p.stopping && p.again.After(now):
		return p.again
	case p.stopping || p.answer != nil:
		return now
	case p.want == nil:
		return p.orphan
	}
	next := p.refresh
	switch {
	case p.tag == "":
		next = now
	case !bytes.Equal(p.want, p.sent):
		next = p.changed.Add(p.terms.dwell)
	}
	if next.Before(p.retry) {
		next = p.retry
	}
	if next.Before(now) {
		next = now
	}
	return next
}

// Send gives the request that is due, if any. It is out until Response or Fail.
func (p *publication) Send(now time.Time) (request, bool) {
	if p.at.IsZero() || now.Before(p.at) {
		return request{}, false
	}
	if p.tag != "" && !now.Before(p.dies) {
		p.forget()
	}
	if p.want == nil && !p.stopping { // an orphan whose time is over
		p.stopping, p.tries, p.again = true, removalTries, time.Time{}
	}
	if p.stopping && p.tag == "" {
		p.at = time.Time{}
		return request{}, false
	}
	r := request{tag: p.tag, expires: p.terms.expires, answer: p.answer}
	switch {
	case p.stopping:
		r.op, r.expires = opRemove, 0
	case p.tag == "":
		r.op, r.body = opInitial, p.want
	case !bytes.Equal(p.want, p.sent):
		r.op, r.body = opModify, p.want
	default:
		r.op = opRefresh
	}
	if r.body != nil {
		p.changed, p.resend = now, false
	}
	p.out, p.outAt, p.answer, p.retry = &r, now, nil, time.Time{}
	p.at = time.Time{}
	return r, true
}

func (p *publication) forget() { p.tag, p.sent, p.dies = "", nil, time.Time{} }

// Response takes the final answer to the request that is out.
func (p *publication) Response(r response, now time.Time) verdict {
	if p.out == nil {
		return fine
	}
	out := *p.out
	p.out = nil
	v := p.judge(&out, &r, now)
	p.plan(now)
	return v
}

func (p *publication) judge(out *request, r *response, now time.Time) verdict {
	if r.code != 401 && r.code != 407 {
		p.answered = 0
	}
	if r.code != 423 {
		p.brief = 0
	}
	p.refusal = 0
	switch {
	case r.code == 401 || r.code == 407:
		return p.challenged(r, now)
	case out.op == opRemove:
		if passing(r.code) {
			p.unremoved(r, now)
		} else { // whatever it says: there is nothing more to do about it
			p.forget()
		}
		return fine
	case r.code >= 200 && r.code < 300:
		return p.accepted(out, r, now)
	case r.code == 412, r.code == 500 && out.tag != "":
		p.forget()
		again := !p.lost.IsZero() && now.Sub(p.lost) < soon
		p.lost = now
		if again || out.tag == "" {
			p.back(r, now)
		}
		return fine
	case r.code == 423:
		p.brief++
		if p.brief > 2 || r.minExpires <= out.expires || r.minExpires > longestLife {
			p.refuse(r.code, now)
			return malformed
		}
		p.terms.expires = max(p.terms.expires, r.minExpires)
		return fine
	case r.code == 408, r.code == 480, r.code == 429:
		p.back(r, now)
		return fine
	case r.code == 503:
		brief := r.retryAfter > 0 && r.retryAfter <= unavailable
		if r.retryAfter == 0 {
			r.retryAfter = unavailable
		}
		p.back(r, now)
		if brief {
			return fine
		}
		return failing
	case r.code >= 500:
		p.back(r, now)
		return fine
	default: // 489, 415, 404, 403, 405, 420 and all that is no better
		p.refuse(r.code, now)
		return refused
	}
}

// accepted takes a 2xx. The life counts from the sending of the request.
func (p *publication) accepted(out *request, r *response, now time.Time) verdict {
	life := out.expires
	if r.expires >= 0 {
		life = min(life, r.expires)
	}
	if r.tag == "" || life <= 0 {
		p.forget()
		p.back(r, now)
		return malformed
	}
	p.tag, p.dies, p.terms.granted = r.tag, p.outAt.Add(life), life
	if out.body != nil && !p.resend {
		p.sent = out.body
	}
	p.failures = 0
	wait := time.Duration(float64(life) * p.terms.turn * (0.9 + 0.2*p.spread))
	p.refresh = p.outAt.Add(max(wait, shortestTurn))
	return fine
}

// passing tells whether a server that answers code may take the same request later.
func passing(code int) bool {
	return code == 408 || code == 429 || code == 480 || code >= 500 && code < 600
}

// unremoved says that a removal did not succeed, because of r or without an answer.
func (p *publication) unremoved(r *response, now time.Time) {
	p.sent = nil
	p.back(r, now)
	if p.stopping { // not wanted again meanwhile
		p.tries--
		p.gone, p.again = p.tries <= 0, p.retry
	}
}

// challenged answers a challenge once, and once more if the server says that only
// its nonce was too old.
func (p *publication) challenged(r *response, now time.Time) verdict {
	p.answered++
	if r.challenge != nil && (p.answered == 1 || p.answered == 2 && r.challenge.Stale) {
		p.answer = r.challenge
		return fine
	}
	p.answered = 0
	if p.stopping {
		p.forget()
	}
	p.refuse(r.code, now)
	return denied
}

func (p *publication) refuse(code int, now time.Time) {
	p.refusal = code
	p.retry = now.Add(refusedPause + p.jitter(refusedPause/5))
}

// back waits as long as the server asks, else longer each time.
func (p *publication) back(r *response, now time.Time) {
	pause := longBackoff
	if p.failures < 5 {
		pause = p.terms.pause << p.failures
	}
	p.failures++
	if r != nil && r.retryAfter > 0 {
		pause = min(r.retryAfter, longestPause)
	}
	p.retry = now.Add(pause + p.jitter(pause/4))
}

func (p *publication) jitter(of time.Duration) time.Duration {
	return time.Duration(float64(of) * p.spread)
}

// Fail says that the request that is out was not answered in time, or could not
// be sent. Whether the server acted on it is not known.
func (p *publication) Fail(now time.Time) {
	if p.out == nil {
		return
	}
	op := p.out.op
	p.out, p.answered = nil, 0
	switch op {
	case opRemove:
		p.unremoved(nil, now)
	case opRefresh:
		p.back(nil, now)
	case opInitial, opModify:
		p.sent = nil
		p.back(nil, now)
	}
	p.plan(now)
}
