package aes

import (
	"maps"

	"presenced/aes/csta"
)

// An audit compares the monitors that a recovered session has with those that
// are believed to be there. What the server ended while there was no connection
// it told nobody; what it started and could not say any more holds a licence.
type audit struct {
	crossRef string              // the monitor of the session, to which the list is sent
	believed map[string]*station // when the list was asked for
	listed   map[string]bool
}

func newAudit(crossRef string, monitors map[string]*station) *audit {
	return &audit{crossRef: crossRef, believed: maps.Clone(monitors), listed: map[string]bool{}}
}

// maxListed bounds what is kept of a list that has no end.
const maxListed = 1 << 20

// listed takes a part of the list.
func (l *Link) listed(m *csta.MonitorList) {
	a := l.audit
	if a == nil || m.CrossRef != a.crossRef {
		l.problems["answers to nothing"]++
		return
	}
	for _, ref := range m.Monitors {
		if len(a.listed) < maxListed {
			a.listed[ref] = true
		}
	}
	if m.Final != csta.Yes {
		return
	}
	for ref, st := range a.believed {
		if !a.listed[ref] && l.byCrossRef[ref] == st {
			l.problems["monitors lost"]++
			l.loseMonitor(st)
			l.unmonitor(ref) // if the list cannot be trusted, there must not be two
			l.proceed(st, first)
		}
	}
	if !l.starting() {
		for ref := range a.listed {
			if l.byCrossRef[ref] == nil && a.believed[ref] == nil && !l.leaving[ref] && ref != a.crossRef {
				l.unmonitor(ref)
			}
		}
	}
	l.endAudit()
}

// endAudit gives the monitor of the session back.
func (l *Link) endAudit() {
	if l.audit != nil {
		l.unmonitor(l.audit.crossRef)
		l.audit = nil
	}
}

// starting tells whether an answer that names a monitor is on its way.
func (l *Link) starting() bool {
	for _, r := range l.pending {
		if r.op == opMonitor {
			return true
		}
	}
	return false
}
