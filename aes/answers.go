package aes

import (
	"fmt"
	"strings"
	"time"

	"presenced/aes/csta"
)

// segments collects a snapshot that comes in parts.
type segments struct {
	st      *station
	service string
	calls   []csta.CallInfo
	began   time.Time
}

// stationAnswer takes the answer to a request about a station.
func (l *Link) stationAnswer(r *request, m csta.Message, now time.Time) {
	st := r.st
	if st == nil { // of one that is no longer covered
		delete(l.leaving, r.name)
		if r.op == opUnmonitor {
			l.licences(1)
		}
		return
	}
	if st.gone || st.over {
		l.tooLate(m)
		return
	}
	if st.again.has(r.op) {
		st.again.remove(r.op)
		defer l.want(st, r.op, first)
	}
	if f, ok := m.(*csta.Failure); ok {
		l.refused(st, r.op, f, now)
		return
	}
	switch m := m.(type) {
	case *csta.DeviceFound:
		if r.op == opDevice && m.Device != "" {
			st.device = m.Device
			l.proceed(st, first)
			return
		}
	case *csta.MonitorStarted:
		if r.op == opMonitor && m.CrossRef != "" {
			l.monitorStarted(st, m.CrossRef, now)
			return
		}
	case *csta.DeviceSnapshot:
		if r.op == opSnapshot && st.crossRef == "" {
			st.asking = false // the monitor ended meanwhile; another snapshot follows the next one
			return
		}
		if r.op == opSnapshot {
			if m.ServiceCrossRef != "" {
				l.segments[m.ServiceCrossRef] = &segments{st: st, service: m.ServiceState, calls: m.Calls, began: now}
				return
			}
			l.snapshot(st, m.Calls, m.ServiceState, now)
			return
		}
	case *csta.DoNotDisturb:
		if r.op == opDND {
			changed := st.dndAnswer(m.On, now)
			l.featureTold(st, opDND, changed)
			return
		}
	case *csta.Forwardings:
		if r.op == opForward {
			changed := st.forwardAnswer(m.List, now)
			l.featureTold(st, opForward, changed)
			return
		}
	case *csta.AgentStates:
		if r.op == opAgent {
			changed := st.agentAnswer(m.Agents, now)
			l.featureTold(st, opAgent, changed)
			return
		}
	}
	err := fmt.Errorf("answered by another message (%T)", m)
	l.problem("answers of another kind", err)
	l.failed(st, r.op, now)
}

// tooLate gives back what was granted for a station that left meanwhile.
func (l *Link) tooLate(m csta.Message) {
	switch m := m.(type) {
	case *csta.DeviceFound:
		l.release(m.Device)
	case *csta.MonitorStarted:
		if m.CrossRef != "" && l.byCrossRef[m.CrossRef] == nil {
			l.unmonitor(m.CrossRef)
		}
	}
}

func (l *Link) monitorStarted(st *station, crossRef string, now time.Time) {
	if other := l.byCrossRef[crossRef]; other != nil && other != st {
		l.loseMonitor(other) // the server gave its reference away
		l.doubt(other, now)
		l.again(other, now)
	}
	st.crossRef = crossRef
	l.byCrossRef[crossRef] = st
	if st.trying {
		st.trying = false
		l.licences(2)
	}
	l.proceed(st, first)
	l.adopt(crossRef, now)
}

// segment takes one part of a snapshot.
func (l *Link) segment(m *csta.DeviceSegment, now time.Time) {
	s := l.segments[m.ServiceCrossRef]
	if s == nil {
		l.problems["answers to nothing"]++
		return
	}
	if len(s.calls) < maxCalls {
		s.calls = append(s.calls, m.Calls...)
	}
	if m.Last == csta.Yes {
		delete(l.segments, m.ServiceCrossRef)
		if !s.st.gone && !s.st.over {
			l.snapshot(s.st, s.calls, s.service, now)
		}
	}
}

// snapshot applies a complete snapshot.
func (l *Link) snapshot(st *station, calls []csta.CallInfo, service string, now time.Time) {
	ended := now
	if !st.lost.IsZero() {
		ended = st.lost // when a call that is gone was last known to be there
	}
	changed, stuck := st.snapshot(calls, service, now, ended)
	if st.verify {
		st.verify = false
		l.want(st, opSnapshot, first)
	}
	if stuck > 0 {
		l.problems["stuck_cleared"] += stuck
	}
	changed = changed || !st.fresh || st.stopped || st.refused != "" || !st.doubted.IsZero()
	st.fresh, st.stopped, st.refused = true, false, ""
	st.lost, st.doubted, st.kept, st.retryAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	l.watchStuck(st, now)
	l.speak(st, changed)
}

// featureTold notes that a question about a feature is settled.
func (l *Link) featureTold(st *station, o op, changed bool) {
	changed = changed || !st.answered.has(o)
	st.answered.add(o)
	l.speak(st, changed)
}

func (l *Link) speak(st *station, changed bool) {
	if l.told(st) {
		l.heardOf(st)
	}
	if changed {
		l.mark(st)
	}
}

// A kind of reaction to a refusal (section 11 of the protocol notes).
type kind uint8

const (
	anythingElse kind = iota
	slowDown
	noLicence
	notWorking
	notAllowed
	notThere
	monitorGone
	notSupported
)

func reaction(code string) kind {
	switch code {
	case "resourceBusy", "internalResourceBusy", "networkBusy", "outstandingReqLimitExceeded", "performanceLimitExceeded":
		return slowDown
	case "overallMonitorLimitExceeded", "objectMonitorLimitExceeded":
		return noLicence
	case "deviceOutOfService":
		return notWorking
	case "securityViolation":
		return notAllowed
	case "invalidDeviceID", "objectNotKnown", "invalidMonitorObject":
		return notThere
	case "invalidMonitorCrossRefID":
		return monitorGone
	case "serviceNotSupported":
		return notSupported
	}
	if strings.HasPrefix(code, "privilegeViolation") {
		return notAllowed
	}
	return anythingElse
}

// refused reacts to a negative answer about a station.
func (l *Link) refused(st *station, o op, f *csta.Failure, now time.Time) {
	l.problems["requests refused"]++
	what := reaction(f.Value)
	if what == slowDown {
		l.slower(now)
	}
	l.suspect(f.Value, now)
	if o.feature() {
		if what == notSupported {
			l.unsupported(o)
		}
		l.featureTold(st, o, false)
		return
	}
	st.asking = false
	switch what {
	case slowDown:
		l.failed(st, o, now)
	case notAllowed:
		if st.crossRef != "" { // it was allowed: the session may be gone
			l.problem("snapshots refused", f)
			l.failed(st, o, now)
			return
		}
		l.refuse(st, "the CTI user may not monitor it ("+f.Value+"): give the user unrestricted access, or add the extension to its device group", now.Add(retryRefused))
	case noLicence:
		if f.Value == "overallMonitorLimitExceeded" {
			st.lacking, st.trying = true, false
			l.refuse(st, "no licence for another monitor: add TSAPI Basic User licences, or cover fewer people", time.Time{})
			if l.licenceAt.IsZero() {
				l.licenceAt = now.Add(retryRefused)
			}
			return
		}
		l.refuse(st, "no more monitors of this extension ("+f.Value+"): end those of other applications", now.Add(retryRefused))
	case notThere:
		st.device = ""
		l.refuse(st, "the switch does not know it ("+f.Value+"): correct the number in the directory, or administer the station", now.Add(retryRefused))
	case notWorking:
		changed := st.dead(now) || !st.fresh
		st.fresh, st.stopped, st.refused = true, false, ""
		st.answered.add(opDND)
		st.answered.add(opForward)
		l.speak(st, changed)
		l.again(st, now)
	case monitorGone:
		l.loseMonitor(st)
		l.doubt(st, now)
		l.again(st, now)
	default:
		if o == opSnapshot {
			l.problem("snapshots refused", f)
			l.failed(st, o, now)
			return
		}
		l.refuse(st, "no monitor ("+strings.TrimSpace(f.Group+" "+f.Value)+")", now.Add(retryRefused))
	}
}

// unsupported ends a poll for the whole switch.
func (l *Link) unsupported(o op) {
	l.unknown.add(o)
	for _, st := range l.ring {
		st.queued.remove(o)
		if st.fresh {
			l.speak(st, true)
		}
	}
}

// failed copes with a request that brought nothing: a feature is left to the
// next poll, anything else is tried again, later each time. While a snapshot is
// needed and fails, what was said is in doubt.
func (l *Link) failed(st *station, o op, now time.Time) {
	if st == nil || st.gone || st.over {
		return
	}
	if o.feature() {
		l.featureTold(st, o, false)
		return
	}
	if o == opSnapshot {
		st.asking = false
		l.doubt(st, now)
	}
	l.again(st, now)
}

// doubt notes that what was said of a station may not be true any more, until a
// snapshot says what is.
func (l *Link) doubt(st *station, now time.Time) {
	if st.doubted.IsZero() {
		st.doubted = now
		l.mark(st)
	}
}
