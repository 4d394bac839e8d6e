package aes

import (
	"testing"
	"time"

	"presenced/aes/csta"
)

// Where the events leave it open who is in a call, the model says what is likely
// and asks for a snapshot; what that says counts.
func TestDoubts(t *testing.T) {
	const (
		none, null, alerting, connected, hold = csta.LocalState(""), csta.StateNull, csta.StateAlerting, csta.StateConnected, csta.StateHold
		initiated                             = csta.StateInitiated
		cid                                   = "4753:CM1::0"
	)
	type move struct {
		event    csta.CallEvent
		snapshot []csta.CallInfo // instead of an event
		want     string
		ask      bool
	}
	hears := func(e csta.CallEvent, want string) move { return move{event: e, want: want} }
	doubts := func(e csta.CallEvent, want string) move { return move{event: e, want: want, ask: true} }
	sees := func(want string, calls ...csta.CallInfo) move {
		return move{snapshot: append([]csta.CallInfo{}, calls...), want: want}
	}
	rings := func(local csta.LocalState) move {
		return hears(ev(csta.Delivered, "1", own, own, ann, local), "ringing")
	}
	answers := hears(ev(csta.Established, "1", own, own, ann, connected), "connected")
	dynamic := func(e csta.CallEvent) csta.CallEvent {
		e.Connection.DeviceID, e.Connection.Dynamic = "T514#1:CM1::0", true
		return e
	}
	for name, moves := range map[string][]move{
		"rings at the start, and is answered: the caller is counted once": {
			sees("ringing", info("1", alerting, connected)), answers,
		},
		"a trunk is counted by a snapshot, and answers": {
			hears(ev(csta.Originated, "1", own, "", own, connected), "dialing"),
			sees("connected", info("1", connected, connected)),
			doubts(ev(csta.Established, "1", trunkID, "01", own, connected), "connected"),
		},
		"a trunk is counted when it is reached": {
			hears(ev(csta.Originated, "1", own, "", own, connected), "dialing"),
			hears(ev(csta.NetworkReached, "1", trunkID, trunkID, own, connected), "connected"),
			hears(ev(csta.Established, "1", trunkID, "01", own, connected), "connected"),
		},
		"a trunk is reached from a conference": {
			sees("connected", info("1", connected, connected, alerting)),
			doubts(ev(csta.NetworkReached, "1", trunkID, trunkID, own, connected), "connected"),
			sees("conference connected", info("1", connected, connected, connected)),
			hears(ev(csta.Failed, "1", trunkID, trunkID, own, connected), "connected"),
		},
		"a transfer names the trunk, an answer the number behind it": {
			rings(alerting),
			hears(join(csta.Transferred, "2", "1", ann, alerting, "1", trunkID, own), "ringing"),
			hears(ev(csta.Established, "1", own, own, "01:CM1::0", connected), "connected"),
		},
		"the target of a transfer rings, another answers": {
			rings(alerting), answers,
			hears(join(csta.Transferred, "1", "2", ann, connected, "2", own, bob), "connected"),
			doubts(ev(csta.Established, "2", cid, cid, own, connected), "conference connected"),
			sees("connected", info("2", connected, connected)),
			hears(ev(csta.ConnectionCleared, "2", cid, cid, "", connected), "connected"),
		},
		"the names go where a snapshot counts fewer": {
			rings(alerting), answers,
			hears(join(csta.Conferenced, "1", "2", ann, connected, "2", bob, cid, own), "conference connected"),
			sees("connected", info("2", connected, connected, alerting)),
			doubts(ev(csta.Established, "2", bob, bob, own, connected), "connected"),
			sees("conference connected", info("2", connected, connected, connected)),
		},
		"taken from a bridge, in a call of several": {
			doubts(ev(csta.Established, "1", own, own, ann, connected), "connected"),
			sees("conference connected", info("1", connected, connected, connected)),
		},
		"others join a call that is on hold here": {
			rings(none), answers,
			hears(ev(csta.Held, "1", own, own, "", none), "held"),
			hears(join(csta.Conferenced, "1", "2", ann, none, "2", own, ann, bob), "held"),
		},
		"others transfer a call that is on hold here": {
			rings(none), answers,
			hears(ev(csta.Held, "1", own, own, "", none), "held"),
			hears(join(csta.Transferred, "1", "2", ann, none, "2", own, bob), "held"),
		},
		"a bridge answers on a mobile leg of its own": {
			rings(none), doubts(dynamic(ev(csta.Established, "1", "", bob, ann, none)), "idle"),
		},
		"this station answers on a mobile leg": {
			rings(none), hears(dynamic(ev(csta.Established, "1", "", own, ann, none)), "connected"),
		},
		"somebody answers on a mobile leg, and is not named": {
			rings(none), hears(dynamic(ev(csta.Established, "1", "", "", ann, none)), "connected"),
		},
		"two ring in one call, the other answers": {
			rings(none), doubts(ev(csta.Established, "1", bob, bob, ann, none), "idle"),
			sees("ringing", info("1", alerting, connected, connected)),
		},
		"a call in no known state is answered, perhaps elsewhere": {
			sees("connected", csta.CallInfo{Connection: csta.Connection{CallID: "1"}}),
			doubts(ev(csta.Established, "1", bob, bob, ann, none), "connected"),
			sees("idle"),
		},
		"one of a conference holds, and its connection is said to be cleared": {
			rings(alerting), answers,
			hears(join(csta.Conferenced, "1", "2", ann, connected, "2", ann, bob, own), "conference connected"),
			hears(ev(csta.Held, "2", ann, ann, "", connected), "conference connected"),
			doubts(ev(csta.ConnectionCleared, "2", ann, bob, "", connected), "conference connected"),
			hears(ev(csta.ConnectionCleared, "2", ann, ann, "", connected), "connected"),
		},
		"no call ID, and one call: it is meant": {
			rings(alerting), hears(ev(csta.ConnectionCleared, "", own, own, "", null), "idle"),
		},
		"no call ID, and two calls": {
			rings(alerting), answers,
			hears(ev(csta.Delivered, "2", own, own, bob, alerting), "connected ringing"),
			doubts(ev(csta.ConnectionCleared, "", own, own, "", null), "connected ringing"),
		},
		"on hold here, and cleared by the other, without a state": {
			hears(ev(csta.ServiceInitiated, "1", own, own, "", initiated), "dialing"),
			hears(ev(csta.Originated, "1", own, "", own, none), "dialing"),
			hears(ev(csta.Held, "1", own, own, "", none), "held"),
			doubts(ev(csta.ConnectionCleared, "1", own, ann, "", none), "held"),
			hears(ev(csta.ConnectionCleared, "1", own, own, "", null), "idle"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newKnown()
			for i, v := range moves {
				if m.verify = false; v.snapshot != nil {
					m.ask()
					m.snapshot(v.snapshot, "", at(i+1), at(i+1))
				} else {
					m.event(&v.event, at(i+1))
				}
				if got := m.holdsText(); got != v.want || m.verify != v.ask {
					t.Fatalf("move %d: %q, want %q; asks %v, want %v", i+1, got, v.want, m.verify, v.ask)
				}
			}
		})
	}
}

// A snapshot that an event overtook is asked for again where the two differ: the
// event may be the second copy of the one that raised the doubt.
func TestOvertakenSnapshotIsAskedForAgain(t *testing.T) {
	joins := ev(csta.Established, "1", bob, bob, own, csta.StateConnected)
	for _, tc := range []struct {
		answer []csta.LocalState
		ask    bool
	}{
		{[]csta.LocalState{"connected", "connected"}, true},
		{[]csta.LocalState{"connected", "connected", "connected"}, false},
		{nil, false}, // the form "unknown"
	} {
		m := newKnown()
		for i, s := range scenarios()["incoming, answered, the far end hangs up"][:2] {
			m.event(&s.e, at(i+1))
		}
		m.event(&joins, at(3))
		m.ask()
		m.event(&joins, at(4))
		m.verify = false
		m.snapshot([]csta.CallInfo{info("1", tc.answer...)}, "", at(5), at(5))
		if got := m.holdsText(); got != "conference connected" || m.verify != tc.ask {
			t.Errorf("%v: %q, asks %v", tc.answer, got, m.verify)
		}
	}
}

// Forwarding of all calls ends. Whether that of calls from inside ends with it is
// asked, also if the news comes twice and the second overtakes the answer.
func TestForwardingOfSomeCallsIsAskedAgain(t *testing.T) {
	s := live(t, "4750")
	event := func(kind, on string) {
		s.push(csta3("ForwardingEvent", "<monitorCrossRefID>"+s.monitors["4750"]+"</monitorCrossRefID><forwardingType>"+kind+"</forwardingType><forwardStatus>"+on+"</forwardStatus>"))
	}
	s.answer = func(root, _ string) string {
		if root == "GetForwarding" {
			return csta3("GetForwardingResponse", "<forwardingList><forwardListItem><forwardingType>forwardImmInt</forwardingType><forwardStatus>true</forwardStatus></forwardListItem></forwardingList>")
		}
		return ""
	}
	event("forwardImmInt", "true")
	s.want("4750: forwarded idle")
	s.delay = time.Second
	event("forwardImmediate", "false")
	event("forwardImmediate", "false")
	s.want("4750: idle")
	s.run(5 * time.Second)
	s.want("4750: forwarded idle")
	if n := s.count("GetForwarding"); n > 3 {
		t.Errorf("asked %d times", n)
	}
}

// A snapshot that is needed and is put off by a busy server, or for which the
// monitor is gone, leaves what was said in doubt, as one that fails in any other way.
func TestRefusedSnapshotLeavesADoubt(t *testing.T) {
	for _, refusal := range []string{
		failure("systemResourceAvailibility", "resourceBusy"), failure("operation", "invalidMonitorCrossRefID"), failure("unspecified", ""),
	} {
		s := live(t, "4750")
		s.answer = func(root, _ string) string {
			if root == "SnapshotDevice" {
				return refusal
			}
			return ""
		}
		s.status("messagesLost", "")
		s.run(time.Second)
		s.reports = s.reports[max(0, len(s.reports)-1):]
		if len(s.reports) != 1 || s.reports[0].Doubted.IsZero() {
			t.Errorf("%s: reports %+v", refusal, s.reports)
			continue
		}
		s.answer = nil
		s.run(10 * time.Second)
		if last := s.reports[len(s.reports)-1]; !last.Doubted.IsZero() || len(last.Spans) == 0 {
			t.Errorf("%s: in the end %+v", refusal, last)
		}
	}
}

// However late a station is told of, the polls that waited for it are not due in the past.
func TestPollsAreNeverDueInThePast(t *testing.T) {
	s := newServer(t, func(c *Config) { c.FeaturePoll = 100 * time.Millisecond })
	s.delay = 5 * time.Second
	s.cover("4750")
	s.connect()
	for range 100 {
		s.run(100 * time.Millisecond)
		for _, l := range s.later {
			s.later = nil
			s.now = l.at
			s.waiting--
			s.link.Receive(l.f, s.now)
			s.ahead()
			break
		}
	}
	s.status("overloadReached", "")
	s.run(time.Minute)
	s.status("overloadRelieved", "")
	s.ahead()
}
