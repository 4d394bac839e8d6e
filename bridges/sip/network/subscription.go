package network

import (
	"time"

	"presenced/bridges/sip/digest"
)

// Times of a subscription; see the state table in subscription.
const (
	timerN        = 32 * time.Second       // until the first NOTIFY (RFC 6665 section 4.1.2.4)
	turn          = 0.8                    // part of its life after which a subscription is refreshed, within a tenth
	shortestTurn  = 500 * time.Millisecond // no refresh sooner, however short the life granted
	soon          = time.Minute            // a dialog that ends within it is no reason to begin another one at once
	anewSpread    = 2 * time.Second        // within which dialogs begin that ended together
	goodbyeTime   = 2 * time.Second        // for the last NOTIFY
	refusedPause  = 5 * time.Minute        // until what was refused is tried again
	shortBackoff  = 2 * time.Second        // the first pause after a failure; doubled each time
	longBackoff   = time.Minute            // and the longest one
	unavailable   = 30 * time.Second       // pause where the server names none
	longestPause  = time.Hour              // no server makes us wait longer
	longestLife   = 24 * time.Hour         // nor asks for a longer life of a subscription
	maxChallenged = 2                      // answers to challenges in a row, the second one to a stale nonce
	maxBrief      = 2                      // 423 in a row
)

// A dialog is what RFC 3261 section 12 keeps of one.
type dialog struct {
	callID, local string   // empty: there is none
	remote        string   // tag of the notifier; empty: no NOTIFY has made the dialog yet
	target        string   // where requests in the dialog go
	routes        []string // values of Route
}

// A request is one SUBSCRIBE to send.
type request struct {
	dialog
	seq     uint32
	expires time.Duration     // zero: unsubscribes
	answer  *digest.Challenge // the challenge to answer; nil: none
}

// A response is the final answer to a request.
type response struct {
	code       int
	expires    time.Duration     // negative: not said
	minExpires time.Duration     // zero: not said
	retryAfter time.Duration     // zero: not said
	challenge  *digest.Challenge // one that can be answered; nil: none
}

// A notice is a NOTIFY without its body.
type notice struct {
	local, remote string // tags of To and From
	seq           uint32
	state         string        // of Subscription-State, in lower case; empty: not said
	reason        string        // in lower case
	expires       time.Duration // negative: not said
	retryAfter    time.Duration // zero: not said
	target        string        // empty: not said
	routes        []string
}

// A reading is what a NOTIFY comes to: the code of the answer, and what it means
// where that is 200.
type reading struct {
	code    int
	content bool   // the body counts
	asked   bool   // it answers a SUBSCRIBE
	over    string // the server will never say anything more, for this reason
}

// A verdict tells what an answer means beyond the subscription.
type verdict uint8

const (
	fine    verdict = iota
	refused         // this subscription is not wanted by the server
	failing         // the server does not work, and does not say how long: try another
	denied          // the credentials are wrong; all others will be denied too
)

// Terms is what all subscriptions at one server share.
type terms struct {
	expires time.Duration // life to ask for; a 423 raises it for all
	pause   time.Duration // the first one after a failure; doubled each time
	id      func() string // makes Call-IDs and tags, which nobody can guess
}

// A subscription is the subscriber's side of RFC 6665 as a state machine without I/O.
// Inputs are the methods with a time; Send gives the output. At most one SUBSCRIBE is
// out at any time.
//
// It is idle without a dialog; trying while the first SUBSCRIBE is out; waiting, at
// most Timer N, until a NOTIFY makes the dialog; then active or pending, refreshing
// while a SUBSCRIBE is out. The NOTIFY may come before the 200. Of several notifiers,
// as behind a proxy that forks, the first one is taken (RFC 6665 section 4.4.1 leaves
// that to us), and the others are answered 481.
type subscription struct {
	dialog
	terms  *terms
	spread float64 // in [0, 1): sets this one apart from the others in time

	seq      uint32    // of the last SUBSCRIBE
	heard    uint32    // of the last NOTIFY
	born     time.Time // when the dialog began
	expires  time.Time // when the subscription ends
	said     time.Time // the same by a NOTIFY since the last SUBSCRIBE; zero: none said so
	refresh  time.Time // when it is to be refreshed
	deadline time.Time // of what is waited for: the first NOTIFY, or the last; zero: nothing
	owed     bool      // a SUBSCRIBE was sent since the last NOTIFY
	pending  bool      // nobody has decided yet whether we may see anything

	out    *request // the one that is out
	outAt  time.Time
	answer *digest.Challenge // to answer in the next request

	at       time.Time // when Send has something to give; zero: not before the next input
	retry    time.Time // not before; zero: no pause
	failures int       // in a row
	brief    int       // 423 in a row
	answered int       // challenges in a row
	refusal  int       // status code of the refusal; zero: not refused
	over     string    // why the server says nothing ever; empty: it does
	stopping bool
	stopped  bool
}

// Start begins; a subscription that is over begins anew.
func (s *subscription) Start(now time.Time) {
	s.over, s.stopping, s.stopped = "", false, false
	s.plan(now)
}

// Stop asks for the end: the server is told, once.
func (s *subscription) Stop(now time.Time) {
	if s.stopping {
		return
	}
	s.stopping, s.answer, s.retry, s.deadline = true, nil, time.Time{}, time.Time{}
	s.stopped = s.remote == "" && s.out == nil
	s.plan(now)
}

// Abandon begins anew, as at another server: the dialog is left without a word.
func (s *subscription) Abandon(now time.Time) {
	s.drop()
	s.out, s.answer, s.retry, s.failures, s.refusal = nil, nil, time.Time{}, 0, 0
	s.stopped = s.stopping
	s.plan(now)
}

// Look asks for the full state, by a refresh at a time.
func (s *subscription) Look(at, now time.Time) {
	if s.remote != "" && at.Before(s.refresh) {
		s.refresh = at
	}
	s.plan(now)
}

// Due gives the time from which Send has something to give; zero: not before the next
// input.
func (s *subscription) Due() time.Time { return s.at }

// Done tells whether a subscription that was to stop has.
func (s *subscription) Done() bool { return s.stopped }

// Active tells whether the server says what it knows.
func (s *subscription) Active(now time.Time) bool {
	return s.remote != "" && !s.pending && now.Before(s.expires)
}

// Settled tells whether it is known how the server takes it.
func (s *subscription) Settled() bool {
	return s.remote != "" || s.failures > 0 || s.refusal != 0 || s.over != ""
}

func (s *subscription) drop() {
	s.dialog = dialog{}
	s.seq, s.heard, s.pending, s.owed = 0, 0, false, false
	s.expires, s.said, s.refresh, s.deadline = time.Time{}, time.Time{}, time.Time{}, time.Time{}
}

// plan finds out when there is something to do. What is due keeps its place in the
// queue.
func (s *subscription) plan(now time.Time) {
	next := s.next(now)
	if next.Equal(now) && !s.at.IsZero() && s.at.Before(now) {
		return
	}
	s.at = next
}

func (s *subscription) next(now time.Time) time.Time {
	if s.out != nil || s.over != "" || s.stopped {
		return time.Time{}
	}
	next := now
	switch {
	case !s.deadline.IsZero():
		return s.deadline
	case s.stopping || s.answer != nil:
		return now
	case s.remote != "":
		next = later(s.refresh, s.retry)
		if s.expires.Before(next) {
			next = s.expires
		}
		return later(next, now)
	}
	return later(next, s.retry)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Send gives the SUBSCRIBE that is due, if any. It is out until Response or Fail.
func (s *subscription) Send(now time.Time) (request, bool) {
	if s.at.IsZero() || now.Before(s.at) {
		return request{}, false
	}
	switch {
	case s.stopping && (s.remote == "" || !s.deadline.IsZero()): // there is nobody to tell, or the last NOTIFY does not come
		s.drop()
		s.stopped = true
		s.plan(now)
		return request{}, false
	case !s.deadline.IsZero(): // Timer N
		s.drop()
		s.back(0, now)
		s.plan(now)
		return request{}, false
	case s.remote != "" && !now.Before(s.expires):
		s.drop()
	}
	if s.callID == "" {
		s.callID, s.local, s.born = s.terms.id(), s.terms.id(), now
	}
	s.seq++
	r := request{dialog: s.dialog, seq: s.seq, expires: s.terms.expires, answer: s.answer}
	if s.stopping {
		r.expires = 0
	}
	s.out, s.outAt, s.answer, s.owed = &r, now, nil, true
	s.retry, s.at, s.said = time.Time{}, time.Time{}, time.Time{}
	return r, true
}

// Response takes the final answer to the request that is out.
func (s *subscription) Response(r response, now time.Time) verdict {
	if s.out == nil {
		return fine
	}
	out := s.out
	s.out = nil
	v := s.judge(out, &r, now)
	s.plan(now)
	return v
}

func (s *subscription) judge(out *request, r *response, now time.Time) verdict {
	if r.code != 401 && r.code != 407 {
		s.answered = 0
	}
	if r.code != 423 {
		s.brief = 0
	}
	s.refusal = 0
	switch {
	case r.code == 401 || r.code == 407:
		s.answered++
		if r.challenge != nil && (s.answered == 1 || s.answered == maxChallenged && r.challenge.Stale) {
			s.answer = r.challenge
			return fine
		}
		s.answered = 0
		s.refuse(r.code, now)
		return denied
	case s.stopping:
		if s.remote == "" || r.code < 200 || r.code >= 300 {
			s.stopped = true
		} else if out.expires == 0 {
			s.deadline = now.Add(goodbyeTime)
		}
		return fine
	case r.code >= 200 && r.code < 300:
		return s.accepted(out, r, now)
	case r.code == 481 && out.remote != "":
		s.drop()
		s.anew(now)
		return fine
	case r.code == 423:
		s.brief++
		if s.brief > maxBrief || r.minExpires <= out.expires || r.minExpires > longestLife {
			s.refuse(r.code, now)
			return refused
		}
		s.terms.expires = max(s.terms.expires, r.minExpires)
		return fine
	case r.code == 408, r.code == 429, r.code == 480 && out.remote == "", r.code >= 500 && r.code < 600 && r.code != 501:
		s.back(r.retryAfter, now)
		if r.code == 503 && r.retryAfter == 0 {
			return failing
		}
		return fine
	default: // 489, 403, 404, 406, 421 and all that is no better
		s.refuse(r.code, now)
		return refused
	}
}

// accepted takes a 2xx. The life counts from the sending of the request.
func (s *subscription) accepted(out *request, r *response, now time.Time) verdict {
	life := out.expires
	if r.expires >= 0 {
		life = min(life, r.expires)
	}
	if life <= 0 {
		s.drop()
		s.back(0, now)
		return fine
	}
	s.failures = 0
	if s.remote == "" {
		s.deadline = now.Add(timerN)
	}
	end := s.outAt.Add(life)
	if !s.said.IsZero() && s.said.Before(end) { // the NOTIFY came before
		end = s.said
	}
	s.live(end, s.outAt)
	return fine
}

// live makes end the end of the subscription, counted from a time.
func (s *subscription) live(end, from time.Time) {
	s.expires = end
	wait := time.Duration(float64(end.Sub(from)) * turn * (0.9 + 0.2*s.spread))
	s.refresh = from.Add(max(wait, shortestTurn))
}

// anew has the next dialog begin at once, unless this one was short.
func (s *subscription) anew(now time.Time) {
	if now.Sub(s.born) < soon {
		s.back(0, now)
		return
	}
	s.retry = now.Add(s.jitter(anewSpread))
}

// refuse waits before it tries again. What RFC 6665 section 4.1.2.2 does not name as
// the end of a subscription leaves it as it is until it expires.
func (s *subscription) refuse(code int, now time.Time) {
	switch {
	case s.remote == "":
		s.drop()
	case code == 404, code == 405, code == 410, code == 416, code >= 480 && code <= 485, code == 489, code == 501, code == 604:
		s.drop()
	}
	s.stopped = s.stopping
	s.refusal = code
	s.retry = now.Add(refusedPause + s.jitter(refusedPause/5))
}

// back waits as long as the server asks, if it does, else longer each time. A dialog
// that there is stays until it expires.
func (s *subscription) back(asked time.Duration, now time.Time) {
	if s.remote == "" {
		s.drop()
	}
	pause := longBackoff
	if s.failures < 5 {
		pause = min(s.terms.pause<<s.failures, longBackoff)
	}
	s.failures++
	if asked > 0 {
		pause = min(asked, longestPause)
	}
	s.retry = now.Add(pause + s.jitter(pause/4))
}

func (s *subscription) jitter(of time.Duration) time.Duration {
	return time.Duration(float64(of) * s.spread)
}

// Fail says that the request that is out was not answered in time, or could not be
// sent.
func (s *subscription) Fail(now time.Time) {
	if s.out == nil {
		return
	}
	s.out, s.answered = nil, 0
	if s.stopped = s.stopping; !s.stopped {
		s.back(0, now)
	}
	s.plan(now)
}

// Notify takes a NOTIFY with the Call-ID of the dialog. What it says counts once: a
// NOTIFY that is not newer than the last one is answered 500.
func (s *subscription) Notify(n notice, now time.Time) reading {
	switch {
	case s.callID == "" || n.local != s.local || n.remote == "" || s.remote != "" && n.remote != s.remote:
		return reading{code: 481}
	case s.remote != "" && n.seq <= s.heard:
		return reading{code: 500}
	case n.state == "":
		return reading{code: 400}
	}
	if s.remote == "" {
		s.remote, s.routes = n.remote, n.routes
		if !s.stopping {
			s.deadline = time.Time{}
		}
	}
	if n.target != "" {
		s.target = n.target
	}
	s.heard = n.seq
	read := reading{code: 200, asked: s.owed}
	s.owed = false
	if n.state == "terminated" {
		read.over = s.terminated(&n, now)
	} else {
		read.content = !s.stopping
		s.pending = n.state == "pending"
		s.lives(&n, now)
	}
	s.plan(now)
	return read
}

// lives takes from a NOTIFY how long the subscription lives: it may shorten that, and
// while a SUBSCRIBE is out it may come before the 200.
func (s *subscription) lives(n *notice, now time.Time) {
	end := s.expires
	if end.IsZero() || s.out != nil && n.expires >= 0 {
		end = s.outAt.Add(s.terms.expires)
	}
	if n.expires >= 0 {
		s.said = now.Add(n.expires)
		if s.said.Before(end) {
			end = s.said
		}
	}
	if d := s.expires.Sub(end); s.expires.IsZero() || d < 0 || d > time.Second { // a second is lost to rounding
		s.live(end, now)
	}
}

// terminated ends the dialog. It gives the reason where there is to be no other one.
func (s *subscription) terminated(n *notice, now time.Time) (over string) {
	s.drop()
	s.out = nil
	s.stopped = s.stopping
	switch n.reason {
	case "rejected", "noresource", "invariant":
		s.over = n.reason
		return n.reason
	case "probation", "giveup":
		if n.retryAfter == 0 {
			n.retryAfter = unavailable
		}
		s.back(n.retryAfter, now)
	default: // deactivated, timeout
		s.anew(now)
	}
	return ""
}
