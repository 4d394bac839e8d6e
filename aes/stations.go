package aes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"presenced/aes/csta"
	"presenced/aggregator/presence"
)

// A station is one extension that is to be covered: how far its monitor has
// come, what is known of its calls, and what was last said of it.
type station struct {
	*model
	subject presence.Subject

	crossRef string // the monitor; empty: none
	gone     bool   // no longer covered
	over     bool   // beyond the capacity

	queued, inflight, again ops
	answered                ops // which features were told since the station is covered

	fresh   bool      // a snapshot was taken since the connection, or the link to the switch, came up
	lost    time.Time // since when events may have been missed; zero: none
	kept    time.Time // until when, after a gap, what was known counts until a snapshot; zero: it does not
	doubted time.Time // since when a snapshot is needed and fails
	lacking bool      // refused for want of a licence: who has a turn is chosen among all
	trying  bool      // has that turn
	refused string    // why there is no monitor, and what to do; empty: not refused
	stopped bool      // the server ended the monitor
	failing int       // failures in a row
	failed  time.Time // the last of them

	retryAt, stuckAt time.Time // its appointments

	changed bool // is on the list of those that have something to say
	last    said // on this connection
}

// Said is what tells one report of a station from the next.
type said struct {
	anything         bool
	known            bool // there were spans, of the model at that version
	version          int
	doubted, expires time.Time
}

// stations is everything that is covered.
type stations struct {
	byExtension map[string]*station
	byCrossRef  map[string]*station
	ring        []*station // the most important first
	changed     []*station
	left        []presence.Subject // of which nothing is known any more
	covered     bool               // the roster is known

	untold map[*station]bool // still to be heard of in this connection
	synced bool              // all were heard of once in this connection

	licenceAt time.Time // when one that lacks a licence is tried again
	extendAt  time.Time // when what was known before a gap is kept, unless a snapshot came before

	agenda  agenda
	orphans []orphan
	leaving map[string]bool // monitors that are being stopped

	leftover []string // monitors to stop if the session is recovered

	pollAt   time.Time // never past while polls are on
	pollNext int
	pushed   bool // the switch tells of its features by itself
	unknown  ops  // the questions that the server does not know
}

// An orphan is an event that came before the answer that names its monitor.
type orphan struct {
	crossRef string
	message  csta.Message
	at       time.Time
}

// suspend keeps what is known, and forgets what was under way. Events may be
// missed from now on.
func (s *stations) suspend(now time.Time) {
	for _, st := range s.ring {
		st.queued, st.inflight, st.again = 0, 0, 0
		st.asking = false
		if st.fresh || st.lost.IsZero() {
			st.lost = now
		}
		st.fresh, st.doubted, st.kept, st.last = false, time.Time{}, time.Time{}, said{}
		st.retryAt, st.stuckAt = time.Time{}, time.Time{}
		st.refused, st.stopped, st.lacking, st.trying = "", false, false, false
	}
	s.licenceAt = time.Time{}
	s.agenda, s.orphans, s.leaving, s.untold = nil, nil, nil, nil
	s.synced, s.extendAt = false, time.Time{}
}

// Cover says which extensions to monitor: all of them, the most important first,
// for whom the capacity is spent first. Monitors of those that are no longer
// among them are given back, because each holds a licence.
func (l *Link) Cover(subjects []presence.Subject, now time.Time) {
	l.now = now
	queue := sweep
	if l.covered {
		queue = first // who is new does not wait for a sweep over all others
	}
	l.covered = true
	wanted := make(map[string]bool, len(subjects))
	var fresh []*station
	l.ring = l.ring[:0]
	room := cmp.Or(l.cfg.Capacity, len(subjects))
	for _, s := range subjects {
		if s.Scheme != "tel" || wanted[s.Value] {
			continue
		}
		wanted[s.Value] = true
		st := l.byExtension[s.Value]
		if st == nil {
			st = &station{model: newModel(s.Value), subject: s}
			l.byExtension[s.Value] = st
			fresh = append(fresh, st)
		}
		l.ring = append(l.ring, st)
		if !extension(s.Value) {
			continue
		}
		over := room <= 0
		room--
		if over == st.over {
			continue
		}
		if st.over = over; over {
			l.giveBack(st)
		} else {
			st.refused = ""
		}
		fresh = append(fresh, st)
	}
	for x, st := range l.byExtension {
		if !wanted[x] {
			l.leave(st)
		}
	}
	for _, st := range fresh {
		if l.phase == inSession {
			l.start(st, queue)
		}
	}
	l.heardOf(nil)
	l.due(now)
}

// leave stops covering a station.
func (l *Link) leave(st *station) {
	st.gone = true
	delete(l.byExtension, st.extension)
	l.left = append(l.left, st.subject)
	l.giveBack(st)
	l.heardOf(st)
}

// giveBack ends the monitor of a station, if there is one.
func (l *Link) giveBack(st *station) {
	if st.crossRef != "" {
		l.unmonitor(st.crossRef)
		if l.phase != inSession && l.sessionID != "" {
			l.leftover = append(l.leftover, st.crossRef)
		}
		l.loseMonitor(st)
	}
	l.release(st.device)
	st.device, st.lacking = "", false
}

func (l *Link) unmonitor(crossRef string) {
	if l.phase != inSession {
		return
	}
	if l.leaving == nil {
		l.leaving = map[string]bool{}
	}
	l.leaving[crossRef] = true
	l.queue[first] = append(l.queue[first], work{op: opUnmonitor, name: crossRef})
}

func (l *Link) release(device string) {
	if device != "" && l.phase == inSession {
		l.queue[first] = append(l.queue[first], work{op: opRelease, name: device})
	}
}

// begin looks at every station: after a login, and when the link to the switch
// is back. Events may have been missed since the time lost.
func (l *Link) begin(lost time.Time) {
	l.synced = false
	l.untold = nil
	l.extendAt = time.Time{}
	for _, st := range l.ring {
		if st.fresh {
			st.lost = lost
		}
		st.fresh = false
		if at := st.lost.Add(l.cfg.Grace - l.cfg.Grace/6); st.known && l.inTime(st) && (l.extendAt.IsZero() || at.Before(l.extendAt)) {
			l.extendAt = at
		}
		l.start(st, sweep)
	}
	l.heardOf(nil)
}

// inTime tells whether a gap is so short that what was said before it still counts.
func (l *Link) inTime(st *station) bool { return l.now.Sub(st.lost) < l.cfg.Grace }

// extend keeps what is known, in doubt, beyond the grace where a gap was shorter
// than that: the snapshots of a large switch take longer, and people must not
// become unknown because of a gap of a second.
func (l *Link) extend(now time.Time) {
	l.extendAt = time.Time{}
	account := time.Duration(4*len(l.ring)) * time.Second / time.Duration(cmp.Or(l.cfg.Rate, 1000)) // of all, with some to spare
	for _, st := range l.ring {
		if st.known && !st.fresh && l.inTime(st) {
			st.kept = now.Add(l.cfg.Grace + account)
			l.mark(st)
		}
	}
}

// start puts a station at the end of a queue.
func (l *Link) start(st *station, queue int) {
	if !l.synced {
		if l.untold == nil {
			l.untold = map[*station]bool{}
		}
		l.untold[st] = true
	}
	st.failing = 0
	if st.over {
		l.refuse(st, fmt.Sprintf("beyond the capacity of %d extensions: raise it, or add a source for the switch", l.cfg.Capacity), time.Time{})
		return
	}
	if !extension(st.extension) {
		l.refuse(st, fmt.Sprintf("not an extension: at most %d of the characters 0 to 9, * and # are one", maxExtension), time.Time{})
		return
	}
	l.proceed(st, queue)
}

func extension(s string) bool {
	return s != "" && len(s) <= maxExtension && strings.Trim(s, "0123456789*#") == ""
}

// proceed queues the next step of a station: device, monitor, snapshot, features.
func (l *Link) proceed(st *station, queue int) {
	switch {
	case st.device == "":
		l.want(st, opDevice, queue)
	case st.crossRef == "":
		l.want(st, opMonitor, queue)
	default:
		l.want(st, opSnapshot, queue)
		l.features(st, queue)
	}
}

// sweepAll looks at all that is monitored again; what is known counts meanwhile.
func (l *Link) sweepAll() {
	for _, st := range l.ring {
		if st.crossRef == "" {
			continue
		}
		l.want(st, opSnapshot, sweep)
		l.features(st, last)
	}
}

// features asks for the features of a station. What was told before can wait,
// and so can agents: nobody is taken for free because of them.
func (l *Link) features(st *station, queue int) {
	for _, o := range []op{opDND, opForward, opAgent} {
		if o == opAgent || st.answered.has(o) {
			queue = last
		}
		l.want(st, o, queue)
	}
}

// heardOf notes that something was learned of a station, be it a refusal.
func (l *Link) heardOf(st *station) {
	delete(l.untold, st)
	if !l.synced && l.phase == inSession && l.covered && len(l.untold) == 0 {
		l.synced = true
		l.pollAt = l.now.Add(l.cfg.FeaturePoll)
	}
}

// mark puts a station on the list of those that have something to say.
func (l *Link) mark(st *station) {
	if !st.changed && !st.gone {
		st.changed = true
		l.changed = append(l.changed, st)
	}
}

// complete tells whether all questions about features were answered once, so
// that a first report does not show a person as free who is not to be disturbed.
func (l *Link) complete(st *station) bool {
	return (l.unknown | st.answered).has(opDND) && (l.unknown | st.answered).has(opForward)
}

// told tells whether anything can be said of the station, be it that nothing is known.
func (l *Link) told(st *station) bool {
	return st.refused != "" || st.stopped || st.fresh && l.complete(st)
}

// report gives what is to be said of a station now, if it differs from what was said.
func (l *Link) report(st *station) (presence.Report, bool) {
	keep := !l.told(st)
	if keep && st.kept.IsZero() {
		return presence.Report{}, false
	}
	r := presence.Report{Source: l.source, Subject: st.subject, At: l.now, Grace: l.cfg.Grace}
	this := said{anything: true}
	if st.refused == "" && !st.stopped {
		this.known, this.version = st.known, st.version
		r.Spans = st.spans(l.now)
		if keep {
			r.Doubted, r.Expires = st.lost, st.kept
		}
		if !l.linkDown.IsZero() {
			r = r.Lost(l.linkDown)
		}
		if !st.doubted.IsZero() {
			r = r.Lost(st.doubted)
		}
	}
	this.doubted, this.expires = r.Doubted, r.Expires
	if this == st.last {
		return presence.Report{}, false
	}
	st.last = this
	return r, true
}

// event applies an event to the station that the monitor belongs to.
func (l *Link) event(crossRef string, m csta.Message, now time.Time) {
	st := l.byCrossRef[crossRef]
	if st == nil {
		l.orphan(crossRef, m, now)
		return
	}
	changed := false
	switch m := m.(type) {
	case *csta.CallEvent:
		changed = st.event(m, now)
		l.watchStuck(st, now)
	case *csta.DoNotDisturbEvent:
		changed = st.dndEvent(m.On, now)
	case *csta.ForwardingEvent:
		changed = st.forwardEvent(m.Forwarding, now)
		if st.verifyForward { // until an answer tells
			l.want(st, opForward, first)
		}
	case *csta.AgentEvent:
		changed = st.agentEvent(m, now)
		if st.verifyAgent {
			l.want(st, opAgent, first)
		}
	case *csta.ServiceEvent:
		switch {
		case m.OutOfService():
			changed = st.service(true, now)
		case m.InService():
			changed = st.service(false, now)
			st.verify = true // what happened meanwhile was not told
		default:
			st.verify = true
		}
	case *csta.RegistrationEvent:
		// A softphone that shares the extension comes and goes; the phone stays.
		if m.Dependency != "DEPENDENT" && m.Dependency != "INDEPENDENT" {
			changed = st.registration(m.Registered(), now)
		}
	}
	if st.verify || !st.fresh && st.retryAt.IsZero() {
		st.verify = false
		l.want(st, opSnapshot, first)
	}
	if changed {
		l.mark(st)
	}
}

// orphan keeps an event whose monitor may be named by an answer that is on its way.
func (l *Link) orphan(crossRef string, m csta.Message, now time.Time) {
	if l.leaving[crossRef] {
		return
	}
	if !l.starting() || len(l.orphans) >= maxOrphans {
		l.problems["events without a monitor"]++
		return
	}
	l.orphans = append(l.orphans, orphan{crossRef, m, now})
}

// adopt applies the orphans of a monitor that is now known.
func (l *Link) adopt(crossRef string, now time.Time) {
	var mine []orphan
	l.orphans = slices.DeleteFunc(l.orphans, func(o orphan) bool {
		if o.crossRef == crossRef {
			mine = append(mine, o)
		}
		return o.crossRef == crossRef
	})
	for _, o := range mine {
		l.event(crossRef, o.message, now)
	}
}

func (l *Link) expireOrphans(now time.Time) {
	n := 0
	for n < len(l.orphans) && !now.Before(l.orphans[n].at.Add(orphanLife)) {
		n++
	}
	if n > 0 {
		l.problems["events without a monitor"] += n
		l.orphans = slices.Delete(l.orphans, 0, n)
	}
}

// watchStuck makes an appointment to look for calls that no event ended.
func (l *Link) watchStuck(st *station, now time.Time) {
	if st.stuckAt.IsZero() && len(st.calls) > 0 {
		st.stuckAt = now.Add(stuckAfter)
		l.agenda.add(st.stuckAt, st, opNone)
	}
}

// appointments keeps those that are due.
func (l *Link) appointments(now time.Time) {
	for {
		a, ok := l.agenda.due(now)
		if !ok {
			return
		}
		st := a.st
		switch {
		case st.gone:
		case a.op == opNone && st.stuckAt.Equal(a.at):
			st.stuckAt = time.Time{}
			oldest := now
			for _, c := range st.calls {
				if c.heard.Before(oldest) {
					oldest = c.heard
				}
			}
			switch {
			case len(st.calls) == 0:
			case now.Sub(oldest) >= stuckAfter:
				l.want(st, opSnapshot, first)
			default:
				st.stuckAt = oldest.Add(stuckAfter)
				l.agenda.add(st.stuckAt, st, opNone)
			}
		case a.op != opNone && st.retryAt.Equal(a.at):
			st.retryAt = time.Time{}
			l.proceed(st, sweep)
		}
	}
}

// polls tells whether features are asked round and round.
func (l *Link) polls() bool {
	return l.cfg.FeaturePoll > 0 && l.phase == inSession && l.synced && len(l.ring) > 0 && !l.held() && !l.overloaded && (!l.unknown.has(opDND) || !l.unknown.has(opForward) || !l.unknown.has(opAgent))
}

// poll asks the next station for its features. A switch that tells of them by
// itself is asked ten times less.
func (l *Link) poll(now time.Time) {
	if !l.polls() || now.Before(l.pollAt) {
		return
	}
	pause := max(l.cfg.FeaturePoll, l.cfg.FeatureRound/time.Duration(len(l.ring)))
	if l.pushed {
		pause *= 10
	}
	l.pollAt = now.Add(pause)
	if len(l.queue[last]) > 0 {
		return // behind already
	}
	l.pollNext %= len(l.ring)
	st := l.ring[l.pollNext]
	l.pollNext++
	if st.crossRef != "" {
		l.features(st, last)
	}
}

// forgetMonitors is for a server that has none any more.
func (l *Link) forgetMonitors() {
	clear(l.byCrossRef)
	l.orphans = nil
	for _, st := range l.ring {
		st.crossRef, st.device = "", ""
	}
}

// monitorStopped copes with a monitor that the server ended: nothing is known
// of the person until it is there again.
func (l *Link) monitorStopped(crossRef string, now time.Time) {
	st := l.byCrossRef[crossRef]
	if st == nil {
		return
	}
	l.problems["monitors stopped by the server"]++
	l.loseMonitor(st)
	st.forget(now)
	st.stopped, st.fresh = true, false
	l.heardOf(st)
	l.mark(st)
	l.again(st, now)
}

func (l *Link) loseMonitor(st *station) {
	delete(l.byCrossRef, st.crossRef)
	st.crossRef = ""
	st.queued = 0
}

// again makes an appointment for the next try, later each time.
func (l *Link) again(st *station, now time.Time) {
	if now.Sub(st.failed) > 2*retryLongest {
		st.failing = 0
	}
	wait := min(time.Second<<min(st.failing, 16), retryLongest)
	st.failing++
	st.failed = now
	if st.failing >= patience {
		l.heardOf(st) // the account is as complete as it gets for now
	}
	l.retry(st, now.Add(wait))
}

func (l *Link) retry(st *station, at time.Time) {
	st.retryAt = at
	l.agenda.add(at, st, opDevice)
}

// licences tries the n most important stations that lack a licence. Each that
// gets one lets two more try: so thousands without a licence cost one request in
// five minutes, and new licences are soon in use.
func (l *Link) licences(n int) {
	for _, st := range l.ring {
		if n == 0 {
			return
		}
		if st.lacking {
			n--
			st.lacking, st.trying = false, true
			l.proceed(st, sweep)
		}
	}
}

// refuse notes that a station cannot be covered, and why. It is tried again at
// the given time; zero: never.
func (l *Link) refuse(st *station, why string, at time.Time) {
	st.forget(l.now)
	st.refused, st.fresh = why, false
	l.heardOf(st)
	l.mark(st)
	if !at.IsZero() {
		l.retry(st, at)
	}
}
