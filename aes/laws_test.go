package aes

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/aes/csta"
	"presenced/aggregator/presence"
)

// A desk is the truth about one station: its calls as the switch has them. Each
// act changes the truth and gives the events that a switch sends for it.
type desk struct {
	calls map[string]*truth
	next  int
}

type truth struct {
	own    csta.LocalState
	others map[string]csta.LocalState
}

func (d *desk) snapshot() []csta.CallInfo {
	var out []csta.CallInfo
	for id, c := range d.calls {
		states := []csta.LocalState{c.own}
		for _, o := range c.others {
			states = append(states, o)
		}
		if len(states) == 1 {
			states = append(states, csta.StateNull)
		}
		out = append(out, info(id, states...))
	}
	return out
}

// in gives the calls whose own state is one of these, in order.
func (d *desk) in(states ...csta.LocalState) []string {
	var ids []string
	for id, c := range d.calls {
		if slices.Contains(states, c.own) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// act does one random thing that is possible.
func (d *desk) act(t *rapid.T) []csta.CallEvent {
	const alerting, connected, hold, null = csta.StateAlerting, csta.StateConnected, csta.StateHold, csta.StateNull
	var can []func() []csta.CallEvent
	do := func(ids []string, f func(id string, c *truth) []csta.CallEvent) {
		for _, id := range ids {
			can = append(can, func() []csta.CallEvent { return f(id, d.calls[id]) })
		}
	}
	other := fmt.Sprintf("%d:CM1::0", 5000+d.next)
	if len(d.calls) < 3 {
		can = append(can, func() []csta.CallEvent { // somebody calls
			d.next++
			id := fmt.Sprint(d.next)
			d.calls[id] = &truth{alerting, map[string]csta.LocalState{other: connected}}
			return []csta.CallEvent{ev(csta.Delivered, id, own, own, other, alerting)}
		})
		if len(d.in(connected, csta.StateInitiated)) == 0 {
			can = append(can, func() []csta.CallEvent { // calls somebody
				d.next++
				id := fmt.Sprint(d.next)
				d.calls[id] = &truth{connected, map[string]csta.LocalState{other: alerting}}
				return []csta.CallEvent{
					ev(csta.ServiceInitiated, id, own, own, "", csta.StateInitiated), ev(csta.Originated, id, own, "", own, connected),
					ev(csta.Delivered, id, other, other, own, connected),
				}
			})
		}
	}
	if len(d.in(connected)) == 0 {
		do(d.in(alerting), func(id string, c *truth) []csta.CallEvent { // answers
			c.own = connected
			for o := range c.others {
				return []csta.CallEvent{ev(csta.Established, id, own, own, o, connected)}
			}
			return nil
		})
		do(d.in(hold), func(id string, c *truth) []csta.CallEvent {
			c.own = connected
			return []csta.CallEvent{ev(csta.Retrieved, id, own, own, "", connected)}
		})
	}
	do(d.in(connected), func(id string, c *truth) []csta.CallEvent {
		c.own = hold
		return []csta.CallEvent{ev(csta.Held, id, own, own, "", hold)}
	})
	do(d.in(connected, hold), func(id string, c *truth) []csta.CallEvent { // the far end answers, holds, retrieves
		var events []csta.CallEvent
		for o, s := range c.others {
			switch s {
			case alerting:
				c.others[o] = connected
				events = append(events, ev(csta.Established, id, o, o, own, c.own))
			case connected:
				c.others[o] = hold
				events = append(events, ev(csta.Held, id, o, o, "", c.own))
			default:
				c.others[o] = connected
				events = append(events, ev(csta.Retrieved, id, o, o, "", c.own))
			}
		}
		return events
	})
	do(d.in(connected, hold), func(id string, c *truth) []csta.CallEvent { // one of several leaves
		if len(c.others) < 2 {
			return nil
		}
		for o := range c.others {
			delete(c.others, o)
			return []csta.CallEvent{ev(csta.ConnectionCleared, id, o, o, "", c.own)}
		}
		return nil
	})
	do(d.in(alerting, connected, hold), func(id string, _ *truth) []csta.CallEvent { // hangs up
		delete(d.calls, id)
		return []csta.CallEvent{ev(csta.ConnectionCleared, id, own, own, "", null)}
	})
	do(d.in(alerting), func(id string, _ *truth) []csta.CallEvent { // picked up by another
		delete(d.calls, id)
		return []csta.CallEvent{ev(csta.Diverted, id, own, own, "", null)}
	})
	do(d.in(connected), func(id string, c *truth) []csta.CallEvent { // joins a held call with this one
		for o := range c.others {
			if c.others[o] == alerting {
				return nil
			}
		}
		if ids := d.in(hold); len(ids) > 0 {
			held := ids[0]
			h := d.calls[held]
			for o, s := range h.others {
				if s == alerting {
					return nil
				}
				c.others[o] = s
			}
			delete(d.calls, held)
			parties := []string{own}
			for o := range c.others {
				parties = append(parties, o)
			}
			return []csta.CallEvent{join(csta.Conferenced, held, id, own, connected, id, parties...)}
		}
		return nil
	})
	return rapid.SampledFrom(can).Draw(t, "act")()
}

// For any script of a switch, the facts after the last event are those of a
// fresh snapshot, with and without localConnectionInfo.
func TestLawEventsAndSnapshotAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &desk{calls: map[string]*truth{}}
		m := newKnown()
		bare := rapid.Bool().Draw(t, "bare")
		for i := range rapid.IntRange(0, 25).Draw(t, "acts") {
			for _, e := range d.act(t) {
				if bare {
					e.Local = ""
				}
				m.event(&e, at(i+1))
			}
			fresh := newModel("4750")
			fresh.ask()
			fresh.snapshot(d.snapshot(), "", at(i+1), at(i+1))
			if got, want := m.holdsText(), fresh.holdsText(); got != want {
				t.Fatalf("act %d: events say %q, a snapshot says %q", i, got, want)
			}
		}
		// And a snapshot changes nothing.
		m.ask()
		if changed, _ := m.snapshot(d.snapshot(), "", at(100), at(100)); changed {
			t.Fatalf("a snapshot changed what was known to %q", m.holdsText())
		}
	})
}

// Whatever a server sends, a Link neither panics nor spins, and keeps its limits.
func TestLawLinkSurvivesAnyServer(t *testing.T) {
	documents := []string{
		"", "<", csta3("CSTAErrorCode", "<operation>invalidMonitorCrossRefID</operation>"), csta3("CSTAErrorCode", "<x>resourceBusy</x>"), csta3("CSTAErrorCode", ""),
		csta3("MonitorStop", "<monitorCrossRefID>2</monitorCrossRefID>"), csta3("MonitorStartResponse", "<monitorCrossRefID>2</monitorCrossRefID>"), csta3("MonitorStartResponse", ""),
		delivered("2"), delivered("3"), delivered(""), csta3("SnapshotDeviceResponse", ""), csta3("SnapshotDeviceResponse", "<crossRefIDorSnapshotData><serviceCrossRefID>7</serviceCrossRefID></crossRefIDorSnapshotData>"),
		csta3("SnapshotDeviceData", "<serviceCrossRefID>7</serviceCrossRefID><lastSegment>true</lastSegment>"), csta3("GetDoNotDisturbResponse", ""), csta3("GetForwardingResponse", ""),
		csta3("SystemStatus", "<systemStatus>disabled</systemStatus>"), csta3("SystemStatus", "<systemStatus>normal</systemStatus>"), csta3("SystemStatus", "<systemStatus>enabled</systemStatus>"),
		csta3("SystemStatus", "<systemStatus>initializing</systemStatus>"), csta3("SystemStatus", "<systemStatus>overloadReached</systemStatus>"), csta3("SystemStatus", "<systemStatus>messagesLost</systemStatus>"),
		"<GetThirdPartyDeviceIdResponse/>", "<StartApplicationSessionPosResponse><sessionID>X</sessionID></StartApplicationSessionPosResponse>", "<StartApplicationSessionPosResponse/>",
		"<ResetApplicationSessionTimerPosResponse/>", "<ResetApplicationSessionTimerNegResponse/>", "<ApplicationSessionTerminated/>", csta3("OutOfServiceEvent", "<monitorCrossRefID>2</monitorCrossRefID>"),
		csta3("BackInServiceEvent", "<monitorCrossRefID>2</monitorCrossRefID>"), csta3("LinkDownEvent", ""), csta3("LinkUpEvent", ""), csta3("SomethingEvent", ""), csta3("EndpointUnregisteredEvent", "<monitorCrossRefID>3</monitorCrossRefID>"),
		csta3("AgentReadyEvent", "<monitorCrossRefID>2</monitorCrossRefID>"), csta3("AgentLoggedOnEvent", "<monitorCrossRefID>3</monitorCrossRefID>"), csta3("GetAgentStateResponse", "<agentStateList><agentStateEntry/></agentStateList>"),
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := newServer(rt, func(c *Config) { c.FeaturePoll, c.Agents = time.Second, true })
		s.answer = func(string, string) string {
			if rapid.IntRange(0, 3).Draw(rt, "usual") > 0 {
				return ""
			}
			return rapid.SampledFrom(append(documents, "-")).Draw(rt, "answer")
		}
		s.cover("4750", "4751", "4752")
		s.connect()
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				s.run(time.Duration(rapid.IntRange(1, 100).Draw(rt, "seconds")) * time.Second)
			case 1:
				s.cover(rapid.SliceOfN(rapid.SampledFrom([]string{"4750", "4751", "4752", "x"}), 0, 4).Draw(rt, "roster")...)
			case 2:
				s.disconnect()
				s.connect()
			default:
				id := rapid.SampledFrom([]uint16{csta.EventID, 1, 2, 3, 10}).Draw(rt, "id")
				s.link.Receive(csta.Frame{InvokeID: id, XML: []byte(rapid.SampledFrom(documents).Draw(rt, "document"))}, s.now)
				s.run(0)
			}
			if s.link.Err() != nil {
				s.disconnect()
				s.connect()
			}
			if st := s.link.Status(); len(s.link.pending) > 25 || st.Done > st.Total {
				rt.Fatalf("%d outstanding, %+v", len(s.link.pending), st)
			}
			n := 0
			for _, r := range s.link.pending {
				if r.op >= opDevice {
					n++
				}
			}
			if n != s.link.busy {
				rt.Fatalf("%d requests counted, %d outstanding", s.link.busy, n)
			}
		}
		// With a server in its right mind everybody is known again.
		s.answer = nil
		s.disconnect()
		s.cover("4750", "4751")
		s.link.Reports()
		s.reports = nil
		s.connect()
		s.run(time.Minute)
		newest := map[string]string{}
		for _, r := range s.reports {
			newest[r.Subject.Value] = describe(r)
		}
		if want := map[string]string{"4750": "4750: idle", "4751": "4751: idle"}; !maps.Equal(newest, want) {
			rt.Fatalf("in the end: %v; %+v", newest, s.link.Status())
		}
	})
}

// Whatever happens, no input leaves anything due, however long the gaps between
// connections, however late the answers, and however tight the limits are.
func TestLawNoInputLeavesAnythingDue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seconds := func(low, high int, label string) time.Duration {
			return time.Duration(rapid.IntRange(low, high).Draw(rt, label)) * time.Second
		}
		s := newServer(rt, func(c *Config) {
			c.Agents = true
			c.FeaturePoll = seconds(0, 2, "poll")
			c.Grace = seconds(0, 60, "grace")
			c.Rate = rapid.SampledFrom([]int{0, 1, 50, 1000}).Draw(rt, "rate")
			c.Outstanding = rapid.SampledFrom([]int{1, 2, 20}).Draw(rt, "outstanding")
			c.Capacity = rapid.SampledFrom([]int{0, 2}).Draw(rt, "capacity")
		})
		s.granted = rapid.SampledFrom([]int{0, 1, 10, 180}).Draw(rt, "granted")
		roster := func() {
			s.cover(rapid.SliceOfN(rapid.SampledFrom([]string{"4750", "4751", "4752", "x"}), 0, 4).Draw(rt, "roster")...)
		}
		roster()
		s.connect()
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 7).Draw(rt, "step") {
			case 0:
				s.disconnect()
				s.now = s.now.Add(seconds(0, 90, "gap"))
				s.connect()
			case 1:
				s.delay = rapid.SampledFrom([]time.Duration{0, 40 * time.Millisecond, 2 * time.Second, 9 * time.Second}).Draw(rt, "delay")
			case 2:
				roster()
			case 3:
				s.status(rapid.SampledFrom([]string{"normal", "disabled", "enabled", "initializing", "messagesLost", "overloadReached", "overloadRelieved"}).Draw(rt, "status"), "")
			case 4:
				if s.monitors["4750"] != "" {
					s.rings("4750")
				}
			case 5:
				refusal := rapid.SampledFrom([]string{"", "", "resourceBusy", "overallMonitorLimitExceeded", "invalidMonitorCrossRefID", "deviceOutOfService", "serviceNotSupported"}).Draw(rt, "refusal")
				refused := rapid.SampledFrom([]string{"MonitorStart", "SnapshotDevice", "GetDoNotDisturb", "RequestSystemStatus"}).Draw(rt, "refused")
				s.answer = func(root, _ string) string {
					if refusal == "" || root != refused {
						return ""
					}
					return failure("operation", refusal)
				}
			case 6: // the process stood still
				s.now = s.now.Add(seconds(1, 30, "pause"))
				s.link.Tick(s.now)
			default:
				s.run(seconds(0, 100, "time"))
			}
			s.ahead()
			if s.link.Err() != nil {
				s.disconnect()
				s.connect()
			}
		}
	})
}

// The documented defaults are the defaults.
func TestDefaultTags(t *testing.T) {
	v := reflect.ValueOf(DefaultConfig())
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Tag.Get("yaml") == "" || f.Tag.Get("doc") == "" {
			t.Errorf("%s has no key or no documentation", f.Name)
		}
		if f.Type.Kind() == reflect.Struct {
			continue
		}
		got := fmt.Sprint(v.Field(i).Interface())
		switch x := v.Field(i).Interface().(type) {
		case []string:
			got = strings.Join(x, ",")
		case time.Duration:
			want, err := time.ParseDuration(f.Tag.Get("default"))
			if err != nil || x != want {
				t.Errorf("%s: %s, tag %v", f.Name, x, want)
			}
			continue
		}
		if got != f.Tag.Get("default") {
			t.Errorf("%s: %q, tag %q", f.Name, got, f.Tag.Get("default"))
		}
	}
}

var _ interface{ Status() presence.Status } = (*Source)(nil)
