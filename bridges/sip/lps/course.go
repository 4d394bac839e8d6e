package lps

import "time"

// A phase is where a subscription stands.
type phase uint8

const (
	pending phase = iota // the person did not decide yet who may watch
	active
	ending // its last NOTIFY is still to be sent
	over   // nothing follows
)

// A reason is why a subscription ended (RFC 6665 section 4.1.3).
type reason uint8

const (
	timedOut   reason = iota // its time is over, or it was given back
	noResource               // the person left the directory
)

// A pace is how often a subscription may be, and must be, sent a NOTIFY (RFC 6446).
type pace struct {
	gap  time.Duration // at least this long after the one before
	most time.Duration // at most this long after the one before, though nothing changed; zero: no matter
}

// Times of a course.
const (
	retryAfter  = 30 * time.Second // where the watcher does not say when to try again
	longestWait = 5 * time.Minute
)

// A course is the state machine of one subscription at the notifier (RFC 6665
// section 4.2), without what is told: when a NOTIFY is to be sent, and in which
// phase. It has no clock. There is at most one NOTIFY without an answer; what
// changes meanwhile is told by the next one, as it is then.
type course struct {
	phase  phase
	reason reason
	out    bool // a NOTIFY waits for its answer
	news   bool // there is something to be told
	prompt bool // and at once, whatever the pace
	held   bool // there is no way to the watcher before the next SUBSCRIBE

	cseq    uint32  // of the last NOTIFY
	expires instant // when the subscription ends
	last    instant // when the last NOTIFY was sent
	wait    instant // the watcher asked for no NOTIFY before
	pace    pace
}

// subscribed takes a SUBSCRIBE that is granted until expires: the state is told at
// once. Whether it can be the last one, finish says.
func (c *course) subscribed(expires instant) {
	c.expires, c.news, c.prompt, c.held, c.wait = expires, true, true, false, 0
}

// changed takes that there is something new to tell.
func (c *course) changed() { c.news = true }

// admitted takes that a pending subscription is pending no more; what there is to
// tell has changed by that.
func (c *course) admitted() {
	if c.phase == pending {
		c.phase = active
	}
}

// finish ends the subscription; one more NOTIFY says so, unless there is no way.
func (c *course) finish(why reason) {
	if c.phase >= ending {
		return
	}
	c.phase, c.reason, c.news, c.prompt = ending, why, true, true
	if c.held {
		c.phase = over
	}
}

// answered takes the final answer to the NOTIFY that is out: 408 where there was
// none in time, 0 where there was no connection to send it on. after is what
// Retry-After says, or zero.
func (c *course) answered(code int, after time.Duration, now instant) {
	c.out = false
	switch {
	case code == 0: // the connection ended; the watcher makes another to refresh the subscription
		if c.held, c.news = true, true; c.phase == ending {
			c.phase = over
		}
	case code < 300:
	case code == 503 || code == 401 || code == 407: // the watcher lives, and heard nothing
		if after <= 0 {
			after = retryAfter
		}
		c.wait, c.news = now.add(min(after, longestWait)), true
	case code == 404 || code == 405 || code == 408 || code == 410 || code == 416 || code >= 480 && code <= 485 ||
		code == 489 || code == 501 || code == 604: // RFC 6665 section 4.2.2
		c.phase = over
	default: // this NOTIFY was not liked; the next one may be
	}
}

// ready gives when a NOTIFY may be sent; zero: not at all, as things are.
func (c *course) ready() instant {
	switch {
	case c.phase == over || c.out || c.held:
		return 0
	case c.phase == ending:
		return max(c.wait, 1)
	case c.prompt:
		return max(c.wait, 1)
	case c.news:
		return max(c.wait, c.last.add(c.pace.gap), 1)
	case c.pace.most > 0:
		return max(c.wait, c.last.add(max(c.pace.most, c.pace.gap)))
	}
	return 0
}

// due gives when take is to be called though there was no input; zero: never.
func (c *course) due() instant {
	at := c.ready()
	if c.phase < ending && !c.out && (at == 0 || c.expires < at) {
		at = c.expires
	}
	return at
}

// take tells whether a NOTIFY is to be sent now, in the phase that c then has,
// and counts it as sent. The one of an ending is the last.
func (c *course) take(now instant) bool {
	if c.phase < ending && !c.out && now >= c.expires {
		c.finish(timedOut)
	}
	if at := c.ready(); at == 0 || now < at {
		return false
	}
	c.cseq++
	c.out, c.news, c.prompt, c.last = true, false, false, now
	return true
}
