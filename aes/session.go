package aes

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"presenced/aes/csta"
	"presenced/aggregator/presence"
)

// login asks for a session: the old one if there is one.
func (l *Link) login(now time.Time) {
	l.recovering = l.sessionID != ""
	versions := l.cfg.protocols()
	if l.recovering && l.version != "" {
		versions = []string{l.version} // a session is recovered under its own version
	}
	l.request(opLogin, nil, "", csta.StartSession{
		Application: "presenced", User: l.cfg.User, Password: l.password, CleanupDelay: l.cfg.CleanupDelay,
		SessionID: l.sessionID, Versions: versions, Duration: l.cfg.SessionDuration,
	}, now)
}

// Stop ends the session in good order. After it nothing is asked any more; Err
// is ErrStopped as soon as the server has answered.
func (l *Link) Stop(now time.Time) {
	l.now = now
	if l.err != nil {
		return
	}
	if l.phase != inSession {
		l.close(ErrStopped)
		return
	}
	l.phase = stopping
	l.request(opStop, nil, "", csta.StopSession{SessionID: l.sessionID}, now)
	l.sessionID, l.registerID = "", ""
}

// keepAlive gives the sign of life, at half of what the server granted.
func (l *Link) keepAlive(now time.Time) {
	l.request(opExtend, nil, "", csta.ExtendSession{SessionID: l.sessionID, Duration: l.cfg.SessionDuration}, now)
	l.keepAliveAt = now.Add(l.granted / 2)
}

// askSystem asks how the server and its link to the switch fare.
func (l *Link) askSystem(now time.Time) {
	l.request(opSystem, nil, "", csta.RequestSystem{RegisterID: l.registerID, Switch: l.cfg.Switch}, now)
}

// quiet tells when the server is to be asked for a sign of life of its own: it
// said nothing for a while, and owes no answer. Zero: not now.
func (l *Link) quiet() time.Time {
	if l.phase != inSession || l.registerID == "" || len(l.pending) > 0 || l.unknown.has(opSystem) {
		return time.Time{}
	}
	return l.heard.Add(quietAfter)
}

// suspect asks for the session where an answer says that there may be none: the
// server knows at once what the next sign of life would bring to light.
func (l *Link) suspect(code string, now time.Time) {
	if l.phase != inSession || code != "securityViolation" && code != "invalidSessionID" || now.Before(l.suspected.Add(suspectEvery)) {
		return
	}
	l.suspected = now
	l.keepAlive(now)
}

func (l *Link) grant(d csta.Seconds) {
	l.granted = max(time.Second, time.Duration(d))
	if d == 0 {
		l.granted = max(time.Second, l.cfg.SessionDuration)
	}
}

// answer takes what is no event and no request of the server.
func (l *Link) answer(id uint16, m csta.Message, now time.Time) {
	if other, ok := m.(*csta.Other); ok && strings.HasSuffix(other.XMLName.Local, "Event") {
		l.problems["events of no interest"]++
		return
	}
	r := l.settled(id)
	if r == nil {
		l.problems["answers to nothing"]++
		if started, ok := m.(*csta.MonitorStarted); ok && started.CrossRef != "" && l.byCrossRef[started.CrossRef] == nil {
			l.unmonitor(started.CrossRef) // too late; its events are not wanted
		}
		return
	}
	if r.op < opDevice {
		l.sessionAnswer(r, m, now)
	} else {
		l.stationAnswer(r, m, now)
	}
}

// sessionAnswer takes the answer to a request about the session.
func (l *Link) sessionAnswer(r *request, m csta.Message, now time.Time) {
	switch m := m.(type) {
	case *csta.SessionStarted:
		if r.op == opLogin {
			l.started(m, now)
			return
		}
	case *csta.SessionExtended:
		if r.op == opExtend {
			l.grant(m.Duration)
			l.keepAliveAt = r.sent.Add(l.granted / 2)
			return
		}
	case *csta.SystemRegistered:
		if r.op == opRegister {
			l.registerID = m.ID
			l.askSystem(now)
			return
		}
	case *csta.MonitorStarted:
		if r.op == opAudit && m.CrossRef != "" {
			l.audit = newAudit(m.CrossRef, l.byCrossRef)
			l.request(opList, nil, "", csta.GetMonitorList{SessionID: l.sessionID}, now)
			return
		}
	case *csta.SystemStatusAnswer:
		if r.op == opSystem {
			status := m.Status
			if status == "enabled" { // a state here, and no news
				status = "normal"
			}
			if !l.linkDown.IsZero() && len(m.Links) == 0 {
				return // how the server fares; it told that the link is down
			}
			l.systemStatus(status, m.Links, now)
			return
		}
	case *csta.SessionRefused:
		l.sessionRefused(r, m.Defined, words(m.Defined, m.Text), now)
		return
	case *csta.Failure:
		l.sessionRefused(r, m.Value, m.Error(), now)
		return
	}
	switch r.op {
	case opStop:
		l.close(ErrStopped)
		return
	case opList: // what was asked for comes as an event
		return
	}
	l.unanswered(r, fmt.Errorf("answered by another message (%T)", m), now)
}

// started begins or recovers a session.
func (l *Link) started(m *csta.SessionStarted, now time.Time) {
	if m.SessionID == "" {
		l.close(errors.New("the server gave a session without an ID"))
		return
	}
	// A recovered session keeps its ID; under another one nothing is monitored.
	l.recovered = l.recovering && m.SessionID == l.sessionID
	l.recovering = false
	l.sessionID, l.version = m.SessionID, m.Version
	l.grant(m.Duration)
	l.keepAliveAt = now.Add(l.granted / 2)
	l.phase = inSession
	if l.recovered {
		for _, ref := range l.leftover {
			l.unmonitor(ref)
		}
	}
	l.leftover = nil
	if !l.recovered {
		l.registerID = ""
		l.forgetMonitors()
	}
	if l.registerID == "" {
		l.request(opRegister, nil, "", csta.RegisterSystem{Switch: l.cfg.Switch}, now)
	} else {
		l.askSystem(now)
	}
	if l.recovered {
		l.request(opAudit, nil, "", csta.StartSessionMonitor{}, now)
	}
	l.begin(now)
}

// sessionRefused takes a negative answer; code is its machine-readable form.
func (l *Link) sessionRefused(r *request, code, reason string, now time.Time) {
	switch r.op {
	case opLogin:
		l.sessionID = ""
		if l.recovering { // the old session is gone
			l.login(now)
			return
		}
		err := fmt.Errorf("login refused: %s", reason)
		if !transient(code) {
			// Trying a wrong password again and again locks the account.
			err = presence.Permanent(err)
		}
		l.close(err)
	case opStop:
		l.close(ErrStopped)
	case opExtend:
		if code != "serverCannotResetSessionTimer" {
			l.sessionID = ""
		}
		l.close(fmt.Errorf("keep-alive refused: %s", reason))
	case opRegister:
		l.problem("requests refused", fmt.Errorf("system status: %s", reason))
	case opList:
		l.endAudit()
	case opSystem:
		l.suspect(code, now)
		l.problem("requests refused", fmt.Errorf("system status: %s", reason))
		if code == "serviceNotSupported" {
			l.unknown.add(opSystem)
		} else if l.registerID != "" { // an old registration is gone
			l.registerID = ""
			if l.recovered {
				l.recovered = false
				l.request(opRegister, nil, "", csta.RegisterSystem{Switch: l.cfg.Switch}, now)
			}
		}
	}
}

// transient tells whether a refused login is worth another try soon.
func transient(code string) bool {
	switch code {
	case "serverResourcesBusy", "maxNumberSessions":
		return true
	}
	return reaction(code) == slowDown
}

// unanswered fails a request that got no answer, or none that can be read.
func (l *Link) unanswered(r *request, err error, now time.Time) {
	if errors.Is(err, errUnanswered) {
		l.problem("requests unanswered", err)
	}
	switch r.op {
	case opLogin:
		l.close(fmt.Errorf("login: %w", err))
	case opStop:
		l.close(ErrStopped)
	case opExtend:
		if l.phase == inSession {
			l.keepAlive(now)
		}
	case opUnmonitor:
		delete(l.leaving, r.name)
	case opList:
		l.endAudit()
	case opRegister, opSystem, opAudit, opRelease:
	default:
		l.failed(r.st, r.op, now)
	}
}

// systemStatus applies what the server says of itself and of its links.
func (l *Link) systemStatus(status string, links []csta.TlinkInfo, now time.Time) {
	mine := ""
	for _, k := range links {
		if k.Switch == "" || strings.EqualFold(k.Switch, l.cfg.Switch) {
			mine = k.Status
		}
	}
	if mine == "" && len(links) > 0 {
		return // about other switches
	}
	switch {
	case mine == "tlinkDown", status == "disabled" && mine != "tlinkUp":
		l.linkState(false, now)
		return
	case status == "enabled":
		// There are no monitors any more.
		l.forgetMonitors()
		l.waiting = false
		lost := cmp.Or(l.linkDown, now)
		l.linkDown = time.Time{}
		l.begin(lost)
		return
	case mine == "tlinkUp", status == "normal":
		l.waiting = false
		if l.overloaded && status == "normal" {
			l.relieved(now)
		}
		l.partial = l.partial && status != "normal"
		l.linkState(true, now)
	}
	switch status {
	case "initializing":
		l.waiting = true
	case "partiallyDisabled":
		l.partial = true
		l.sweepAll()
	case "messagesLost":
		l.sweepAll()
	case "overloadImminent", "overloadReached":
		l.overloaded = true
		l.slow = min(l.slow*2, slowest)
	case "overloadRelieved":
		l.relieved(now)
	}
}

// relieved ends an overload; requests become faster step by step.
func (l *Link) relieved(now time.Time) {
	l.overloaded = false
	l.easeAt = now.Add(easeAfter)
	l.pollAt = l.easeAt
}

// linkState notes that the link between server and switch went or came. While
// it is down nothing is known of the calls, and all that was said is in doubt.
func (l *Link) linkState(up bool, now time.Time) {
	switch {
	case !up && l.linkDown.IsZero():
		l.linkDown = now
		for _, st := range l.ring {
			l.mark(st)
		}
	case up && !l.linkDown.IsZero():
		lost := l.linkDown
		l.linkDown = time.Time{}
		l.begin(lost)
	}
}
