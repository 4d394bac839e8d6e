package aes

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aes/csta"
	"presenced/aggregator/presence"
)

// The station of these tests, and others.
const (
	own     = "4750:CM1::0"
	ann     = "4751:CM1::0"
	bob     = "4752:CM1::0"
	trunkID = "T513#2:CM1::0"
)

func at(seconds int) time.Time {
	return time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC).Add(time.Duration(seconds) * time.Second)
}

// holds gives what is true now, without the prefix of the phone.
func (m *model) holdsText() string {
	var names []string
	for h := range m.holds {
		names = append(names, strings.TrimPrefix(h.fact.String(), "phone-"))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func newKnown() *model {
	m := newModel("4750")
	m.device = own
	m.ask()
	m.snapshot(nil, "inService", at(0), at(0))
	return m
}

// ev is an event: what happened to which connection, by which device; the caller; the own state.
func ev(kind csta.CallKind, call, connection, device, calling string, local csta.LocalState) csta.CallEvent {
	return csta.CallEvent{Kind: kind, Connection: csta.Connection{CallID: call, DeviceID: connection}, Device: device, Calling: calling, Local: local}
}

func join(kind csta.CallKind, primary, secondary, device string, local csta.LocalState, call string, parties ...string) csta.CallEvent {
	e := csta.CallEvent{Kind: kind, Device: device, Local: local, PrimaryOld: csta.Connection{CallID: primary}, SecondaryOld: csta.Connection{CallID: secondary}}
	for _, p := range parties {
		e.Parties = append(e.Parties, csta.Party{New: csta.Connection{CallID: call, DeviceID: p}, Endpoint: p})
	}
	return e
}

func with(e csta.CallEvent, change func(*csta.CallEvent)) csta.CallEvent {
	change(&e)
	return e
}

type step struct {
	e    csta.CallEvent
	want string
}

func scenarios() map[string][]step {
	const (
		null, initiated, alerting, connected, hold, fail = csta.StateNull, csta.StateInitiated, csta.StateAlerting, csta.StateConnected, csta.StateHold, csta.StateFail
	)
	rings := func(id string) step { return step{ev(csta.Delivered, id, own, own, ann, alerting), "ringing"} }
	answers := func(id string) step {
		return step{ev(csta.Established, id, own, own, ann, connected), "connected"}
	}
	offHook := step{ev(csta.ServiceInitiated, "1", own, own, "", initiated), "dialing"}
	dials := step{ev(csta.Originated, "1", own, "", own, connected), "dialing"}
	farRings := step{ev(csta.Delivered, "1", ann, ann, own, connected), "dialing"}
	farAnswers := step{ev(csta.Established, "1", ann, ann, own, connected), "connected"}
	hangsUp := func(id, want string) step {
		return step{ev(csta.ConnectionCleared, id, own, own, "", null), want}
	}
	consult := []step{
		rings("1"), answers("1"),
		{ev(csta.Held, "1", own, own, "", hold), "held"},
		{ev(csta.ServiceInitiated, "2", own, own, "", initiated), "dialing held"},
		{ev(csta.Originated, "2", own, "", own, connected), "dialing held"},
		{ev(csta.Delivered, "2", bob, bob, own, connected), "dialing held"},
		{ev(csta.Established, "2", bob, bob, own, connected), "connected held"},
	}
	return map[string][]step{
		"incoming, answered, the far end hangs up": {
			rings("1"), answers("1"), {ev(csta.ConnectionCleared, "1", ann, ann, "", connected), "connected"}, hangsUp("1", "idle"),
		},
		"incoming, not answered":         {rings("1"), hangsUp("1", "idle")},
		"incoming, ended as a call":      {rings("1"), {ev(csta.CallCleared, "1", own, "", "", ""), "idle"}},
		"outgoing, answered":             {offHook, dials, farRings, farAnswers, hangsUp("1", "idle")},
		"outgoing, busy":                 {offHook, dials, {ev(csta.Failed, "1", ann, ann, own, connected), "dialing"}, hangsUp("1", "idle")},
		"outgoing, reorder tone":         {offHook, {ev(csta.Failed, "1", own, own, own, fail), "dialing"}, hangsUp("1", "idle")},
		"off hook and on hook":           {offHook, hangsUp("1", "idle")},
		"outgoing to a trunk":            {offHook, dials, {ev(csta.NetworkReached, "1", trunkID, trunkID, own, connected), "connected"}, {ev(csta.Established, "1", trunkID, "915550100", own, connected), "connected"}, hangsUp("1", "idle")},
		"outgoing to a trunk, then busy": {offHook, dials, {ev(csta.NetworkReached, "1", trunkID, trunkID, own, connected), "connected"}, {ev(csta.Failed, "1", trunkID, trunkID, own, connected), "dialing"}, hangsUp("1", "idle")},
		"hold and retrieve": {
			rings("1"), answers("1"),
			{ev(csta.Held, "1", own, own, "", hold), "held"},
			{ev(csta.Retrieved, "1", own, own, "", connected), "connected"},
			hangsUp("1", "idle"),
		},
		"a connection is cleared on hold, and the call survives": {
			rings("1"), answers("1"),
			{ev(csta.Held, "1", own, own, "", hold), "held"},
			{ev(csta.ConnectionCleared, "1", own, ann, "", hold), "held"},
			{ev(csta.Retrieved, "1", own, own, "", connected), "connected"},
			hangsUp("1", "idle"),
		},
		"the far end holds": {
			rings("1"), answers("1"), {ev(csta.Held, "1", ann, ann, "", connected), "connected"}, {ev(csta.Retrieved, "1", ann, ann, "", connected), "connected"}, hangsUp("1", "idle"),
		},
		"both ends hold, the far end retrieves": {
			rings("1"), answers("1"),
			{ev(csta.Held, "1", own, own, "", hold), "held"},
			{ev(csta.Held, "1", ann, ann, "", hold), "held"},
			{ev(csta.Retrieved, "1", ann, ann, "", hold), "held"},
			hangsUp("1", "idle"),
		},
		"a second call rings during a call": {
			rings("1"), answers("1"), {ev(csta.Delivered, "2", own, own, bob, alerting), "connected ringing"}, {ev(csta.ConnectionCleared, "2", own, bob, "", null), "connected"}, hangsUp("1", "idle"),
		},
		"one held, one rings": {
			rings("1"), answers("1"),
			{ev(csta.Held, "1", own, own, "", hold), "held"},
			{ev(csta.Delivered, "2", own, own, bob, alerting), "held ringing"},
			hangsUp("2", "held"), hangsUp("1", "idle"),
		},
		"conference, one leaves, the last leaves": append(slices.Clone(consult),
			step{join(csta.Conferenced, "1", "2", own, connected, "2", own, ann, bob), "conference connected"},
			step{ev(csta.ConnectionCleared, "2", ann, ann, "", connected), "connected"},
			step{ev(csta.ConnectionCleared, "2", bob, bob, "", connected), "connected"}, hangsUp("2", "idle")),
		"conference under the other call ID, old ones the other way round": append(slices.Clone(consult),
			step{join(csta.Conferenced, "2", "1", own, connected, "1", ann, own, bob), "conference connected"}, hangsUp("1", "idle")),
		"conference under a third call ID": append(slices.Clone(consult),
			step{join(csta.Conferenced, "1", "2", own, connected, "3", bob, ann, own), "conference connected"}, hangsUp("3", "idle")),
		"made part of a conference by the far end": {
			rings("1"), answers("1"),
			{join(csta.Conferenced, "1", "9", ann, connected, "9", ann, own, bob), "conference connected"},
			{ev(csta.ConnectionCleared, "9", bob, bob, "", connected), "connected"},
			hangsUp("9", "idle"),
		},
		"a fourth party is added, and answers": append(slices.Clone(consult),
			step{join(csta.Conferenced, "1", "2", own, connected, "2", own, ann, bob), "conference connected"},
			step{ev(csta.Established, "2", "4753:CM1::0", "4753:CM1::0", own, connected), "conference connected"},
			step{ev(csta.ConnectionCleared, "2", ann, ann, "", connected), "conference connected"},
			step{ev(csta.ConnectionCleared, "2", bob, bob, "", connected), "connected"}, hangsUp("2", "idle")),
		"transfer, seen by who transfers":              append(slices.Clone(consult), step{join(csta.Transferred, "1", "2", own, null, "2", ann, bob), "idle"}),
		"transfer, seen by who is transferred":         {rings("1"), answers("1"), {join(csta.Transferred, "1", "2", ann, connected, "2", own, bob), "connected"}, hangsUp("2", "idle")},
		"transfer, seen by the target":                 {rings("2"), answers("2"), {join(csta.Transferred, "1", "2", ann, connected, "2", bob, own), "connected"}, hangsUp("2", "idle")},
		"blind transfer, seen by the target":           {rings("2"), {join(csta.Transferred, "1", "2", ann, alerting, "2", bob, own), "ringing"}, {ev(csta.Established, "2", own, own, bob, connected), "connected"}, hangsUp("2", "idle")},
		"picked up, covered or forwarded":              {rings("1"), {ev(csta.Diverted, "1", own, own, ann, null), "idle"}},
		"the called party diverts":                     {offHook, dials, farRings, {ev(csta.Diverted, "1", ann, ann, own, connected), "dialing"}, hangsUp("1", "idle")},
		"a recorder steps into a call":                 {rings("1"), answers("1"), {with(join(csta.Conferenced, "1", "", "4799:CM1::0", connected, "1", own, ann, "4799:CM1::0"), func(e *csta.CallEvent) { e.Cause, e.Added = "singleStepConference", "4799:CM1::0" }), "connected"}, hangsUp("1", "idle")},
		"conferenced for an unknown call":              {{join(csta.Conferenced, "7", "8", ann, connected, "8", own, ann, bob), "idle"}},
		"a bridge rings here and is answered there":    {rings("1"), {ev(csta.Established, "1", bob, bob, ann, null), "idle"}},
		"a bridge rings there only":                    {{ev(csta.Delivered, "1", bob, bob, ann, null), "idle"}, {ev(csta.Established, "1", bob, bob, ann, null), "idle"}},
		"the mobile leg answers":                       {rings("1"), {ev(csta.Established, "1", trunkID, own, ann, connected), "connected"}, {ev(csta.ConnectionCleared, "1", trunkID, own, "", null), "idle"}},
		"the mobile leg answers, the far end hangs up": {rings("1"), {ev(csta.Established, "1", trunkID, trunkID, ann, connected), "connected"}, {ev(csta.ConnectionCleared, "1", trunkID, trunkID, "", null), "idle"}},
		"waits in a queue, an agent answers": {
			offHook, dials,
			{ev(csta.Queued, "1", "4790:CM1::0", "4790:CM1::0", own, connected), "connected"},
			{ev(csta.Delivered, "1", bob, bob, own, connected), "connected"},
			{ev(csta.Established, "1", bob, bob, own, connected), "connected"},
			hangsUp("1", "idle"),
		},
		"waits in a queue, and the switch calls that a state of its own": {
			offHook, dials, {ev(csta.Queued, "1", own, "4790:CM1::0", own, csta.StateQueued), "connected"}, hangsUp("1", "idle"),
		},
		"device IDs in other letters and with an address": {
			{ev(csta.Delivered, "1", "4750:cm1:192.0.2.1:0", "4750:cm1::0", ann, alerting), "ringing"},
			{ev(csta.Established, "1", "4750:CM1:192.0.2.1:1", "4750:CM1::0", ann, connected), "connected"},
			{ev(csta.ConnectionCleared, "1", "4750:cm1:192.0.2.1:1", "4750:cm1:192.0.2.1:1", "", null), "idle"},
		},
		"events come twice": {
			rings("1"), rings("1"), answers("1"), answers("1"), hangsUp("1", "idle"), hangsUp("1", "idle"),
		},
		"an appearance of a call elsewhere is bridged": {
			{ev(csta.Bridged, "1", ann, ann, "", connected), "idle"},
			{ev(csta.Offered, "2", own, own, ann, alerting), "idle"},
			rings("3"),
			{ev(csta.Bridged, "1", bob, bob, "", connected), "ringing"},
			hangsUp("3", "idle"),
		},
		"the beginning was lost": {answers("1"), hangsUp("1", "idle")},
		"the call ID is reused with another UCID": {
			{with(ev(csta.Delivered, "1", own, own, ann, alerting), func(e *csta.CallEvent) { e.UCID = "A" }), "ringing"},
			{with(ev(csta.Established, "1", own, own, ann, connected), func(e *csta.CallEvent) { e.UCID = "A" }), "connected"},
			{with(ev(csta.Delivered, "1", own, own, bob, alerting), func(e *csta.CallEvent) { e.UCID = "B" }), "ringing"},
			{with(ev(csta.ConnectionCleared, "1", own, own, "", null), func(e *csta.CallEvent) { e.UCID = "A" }), "ringing"},
			{with(ev(csta.ConnectionCleared, "1", own, own, "", null), func(e *csta.CallEvent) { e.UCID = "B" }), "idle"},
		},
	}
}

// Every scenario gives the same facts with and without localConnectionInfo, and
// a value that nobody knows counts as none.
func TestScenarios(t *testing.T) {
	for name, steps := range scenarios() {
		for _, dialect := range []csta.LocalState{"as sent", "", "elsewhere"} {
			t.Run(name+"/"+string(dialect), func(t *testing.T) {
				m := newKnown()
				for i, s := range steps {
					e := s.e
					if dialect != "as sent" {
						e.Local = dialect
					}
					m.event(&e, at(i+1))
					if got := m.holdsText(); got != s.want {
						t.Fatalf("step %d (%+v): %q, want %q", i+1, e, got, s.want)
					}
				}
			})
		}
	}
}

func TestSpansTellWhenACallEnteredItsState(t *testing.T) {
	m := newKnown()
	for i, s := range scenarios()["conference, one leaves, the last leaves"] {
		m.event(&s.e, at(10*(i+1)))
	}
	const contact = "tel:4750"
	want := []presence.Span{
		{Fact: presence.PhoneIdle, From: at(0), Until: at(10), Contact: contact},
		{Fact: presence.PhoneRinging, From: at(10), Until: at(20), Contact: contact},
		{Fact: presence.PhoneConnected, From: at(20), Until: at(30), Contact: contact},
		{Fact: presence.PhoneHeld, From: at(30), Until: at(80), Contact: contact},
		{Fact: presence.PhoneDialing, From: at(40), Until: at(70), Contact: contact},
		{Fact: presence.PhoneConnected, From: at(70), Until: at(110), Contact: contact},
		{Fact: presence.PhoneConference, From: at(80), Until: at(90), Contact: contact},
		{Fact: presence.PhoneIdle, From: at(110), Contact: contact},
	}
	if d := cmp.Diff(want, m.spans(at(120))); d != "" {
		t.Error(d)
	}
	// What ended stays for an hour.
	if d := cmp.Diff(want[len(want)-1:], m.spans(at(110+3600))); d != "" {
		t.Error(d)
	}
}

func TestConferenceUnderAnotherIDKeepsTheTime(t *testing.T) {
	m := newKnown()
	steps := scenarios()["conference under a third call ID"]
	for i, s := range steps[:len(steps)-1] {
		m.event(&s.e, at(10*(i+1)))
	}
	if from := m.holds[holding{"3", presence.PhoneConnected}]; !from.Equal(at(70)) {
		t.Errorf("connected since %s, want that of the call that was connected", from)
	}
}

func info(call string, states ...csta.LocalState) csta.CallInfo {
	return csta.CallInfo{Connection: csta.Connection{CallID: call, DeviceID: own}, Compound: states}
}

func TestSnapshotForms(t *testing.T) {
	simple := func(s string) csta.CallInfo {
		return csta.CallInfo{Connection: csta.Connection{CallID: "1"}, Simple: s}
	}
	for _, tc := range []struct {
		call csta.CallInfo
		want string
	}{
		{simple("callPending"), "dialing"},
		{info("1", "initiated", "null"), "dialing"},
		{simple("callOriginated"), "dialing"},
		{info("1", "connected", "null"), "dialing"},
		{info("1", "connected"), "dialing"},
		{simple("callDelivered"), "dialing"},
		{info("1", "connected", "alerting"), "dialing"},
		{simple("callDeliveredHeld"), "held"},
		{simple("callReceived"), "ringing"},
		{simple("callReceivedOnHold"), "ringing"},
		{simple("callEstablished"), "connected"},
		{info("1", "connected", "connected"), "connected"},
		{simple("callEstablishedOnHold"), "connected"},
		{simple("callEstablishedHeld"), "held"},
		{simple("callQueued"), "connected"},
		{simple("callQueuedHeld"), "held"},
		{simple("callFailed"), "dialing"},
		{simple("callFailedHeld"), "held"},
		{simple("callBlocked"), "dialing"},
		{simple("callNull"), "idle"},
		{info("1", "connected", "connected", "connected"), "conference connected"},
		{info("1", "connected", "hold", "connected"), "conference connected"},
		{info("1", "connected", "connected", "alerting"), "connected"},
		{info("1", "hold", "connected", "connected"), "held"},
		{csta.CallInfo{Connection: csta.Connection{CallID: "1"}}, "connected"}, // the form "unknown": there is a call
		{csta.CallInfo{}, "idle"},                                              // without a call ID there is none
	} {
		m := newModel("4750")
		m.ask()
		m.snapshot([]csta.CallInfo{tc.call}, "", at(0), at(0))
		if got := m.holdsText(); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.call, got, tc.want)
		}
	}
}

func TestSnapshotReplacesWhatIsKnown(t *testing.T) {
	m := newKnown()
	for i, s := range scenarios()["one held, one rings"][:4] {
		m.event(&s.e, at(i+1))
	}
	m.ask()
	m.snapshot([]csta.CallInfo{info("1", "hold", "connected"), info("3", "connected", "connected")}, "", at(100), at(50))
	if got := m.holdsText(); got != "connected held" {
		t.Fatal(got)
	}
	if from := m.holds[holding{"1", presence.PhoneHeld}]; !from.Equal(at(3)) {
		t.Errorf("the call that goes on is held since %s", from)
	}
	ended := m.ended[len(m.ended)-1]
	if want := (past{presence.PhoneRinging, at(4).UnixNano(), at(50).UnixNano()}); ended != want {
		t.Errorf("the call that is gone: %+v, want %+v", ended, want)
	}
}

func TestEventBetweenRequestAndSnapshotWins(t *testing.T) {
	e := ev(csta.Delivered, "1", own, own, ann, csta.StateAlerting)
	gone := ev(csta.ConnectionCleared, "2", own, own, "", csta.StateNull)
	far := ev(csta.ConnectionCleared, "3", bob, bob, "", csta.StateConnected)
	m := newModel("4750")
	m.device = own
	m.ask()
	m.event(&e, at(1))
	m.event(&gone, at(1)) // of a call that only the snapshot knows
	m.event(&far, at(1))
	m.snapshot([]csta.CallInfo{info("2", "connected", "connected"), info("3", "connected", "connected")}, "", at(2), at(2))
	if got := m.holdsText(); got != "connected ringing" {
		t.Error(got)
	}
	// An event before the request does not.
	m.ask()
	m.snapshot(nil, "", at(3), at(3))
	if got := m.holdsText(); got != "idle" {
		t.Error(got)
	}
}

func TestSilentPartyDoesNotMakeAConferenceOfASnapshot(t *testing.T) {
	m := newKnown()
	steps := scenarios()["a recorder steps into a call"]
	for i, s := range steps[:3] {
		m.event(&s.e, at(i+1))
	}
	m.ask()
	m.snapshot([]csta.CallInfo{info("1", "connected", "connected", "connected")}, "", at(5), at(5))
	if got := m.holdsText(); got != "connected" {
		t.Error(got)
	}
}

func TestFeaturesAndService(t *testing.T) {
	m := newKnown()
	now := at(1)
	for _, s := range []struct {
		what string
		do   func() bool
		want string
	}{
		{"do not disturb on", func() bool { return m.dndEvent(csta.Yes, now) }, "dnd idle"},
		{"asked, an event in between", func() bool { m.askDND(); m.dndEvent(csta.No, now); return m.dndAnswer(csta.Yes, now) }, "idle"},
		{"asked", func() bool { m.askDND(); return m.dndAnswer(csta.Yes, now) }, "dnd idle"},
		{"answer without a value", func() bool { m.askDND(); return m.dndAnswer(csta.Unset, now) }, "dnd idle"},
		{"do not disturb off", func() bool { return m.dndEvent(csta.No, now) }, "idle"},
		{"forwarded when busy", func() bool { return m.forwardEvent(csta.Forwarding{Type: "forwardBusy", On: csta.Yes}, now) }, "idle"},
		{"forwarded", func() bool { return m.forwardEvent(csta.Forwarding{Type: "forwardImmInt", On: csta.Yes}, now) }, "forwarded idle"},
		{"all forwarding off", func() bool {
			return m.forwardEvent(csta.Forwarding{Type: "forwardImmediate", On: csta.No}, now)
		}, "idle"},
		{"forwarding asked", func() bool {
			m.askForward()
			return m.forwardAnswer([]csta.Forwarding{{Type: "forwardBusy", On: csta.Yes}, {Type: "forwardImmediate", On: csta.Yes}}, now)
		}, "forwarded idle"},
		{"forwarding asked, an event in between", func() bool {
			m.askForward()
			m.forwardEvent(csta.Forwarding{Type: "forwardImmediate", On: csta.Yes}, now)
			return m.forwardAnswer(nil, now)
		}, "forwarded idle"},
		{"none", func() bool { m.askForward(); return m.forwardAnswer(nil, now) }, "idle"},
		{"out of service", func() bool { return m.service(true, now) }, "out-of-service"},
		{"back", func() bool { return m.service(false, now) }, "idle"},
		{"unregistered", func() bool { return m.registration(false, now) }, "out-of-service"},
		{"a snapshot does not know", func() bool { m.ask(); c, _ := m.snapshot(nil, "unknown", now, now); return c }, "out-of-service"},
		{"a snapshot knows", func() bool { m.ask(); c, _ := m.snapshot(nil, "inService", now, now); return c }, "idle"},
		{"a snapshot knows otherwise", func() bool { m.ask(); c, _ := m.snapshot(nil, "outOfService", now, now); return c }, "out-of-service"},
		{"registered", func() bool { return m.registration(true, now) }, "idle"},
		{"an agent, ready in one group and in a call of another", func() bool {
			return m.agentAnswer([]csta.Agent{{LoggedOn: csta.Yes, States: []csta.AgentState{csta.AgentReady, csta.AgentBusy}}}, now)
		}, "idle"},
		{"an agent who has logged off", func() bool {
			return m.agentAnswer([]csta.Agent{{LoggedOn: csta.No, States: []csta.AgentState{csta.AgentReady}}}, now)
		}, "idle"},
		{"unregistered in a call", func() bool {
			e := ev(csta.Established, "1", own, own, ann, csta.StateConnected)
			m.event(&e, now)
			return m.registration(false, now)
		}, "connected"},
	} {
		now = now.Add(time.Second)
		s.do()
		if got := m.holdsText(); got != s.want {
			t.Fatalf("%s: %q, want %q", s.what, got, s.want)
		}
	}
}

func TestBoundsOfAModel(t *testing.T) {
	m := newKnown()
	for i := range 10 * maxCalls {
		e := ev(csta.Delivered, string(rune('A'+i)), own, own, ann, csta.StateAlerting)
		m.event(&e, at(i))
	}
	if len(m.calls) > maxCalls || !m.verify {
		t.Errorf("%d calls, verify %v", len(m.calls), m.verify)
	}
	for i := range 1000 {
		on := csta.Yes
		if i%2 == 1 {
			on = csta.No
		}
		m.dndEvent(on, at(1000+i))
	}
	r := presence.Report{Source: "a", Subject: presence.Subject{Scheme: "tel", Value: "4750"}, At: at(2000), Spans: m.spans(at(2000))}
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}

// Whatever events come in whatever order: when every call that was ever
// mentioned is cleared, the phone is idle.
func TestLawAllClearedIsIdle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newKnown()
		ids := []string{"1", "2", "3"}
		devices := []string{own, ann, bob, trunkID, "", "4750:cm1:192.0.2.1:1"}
		pick := func(from []string) *rapid.Generator[string] { return rapid.SampledFrom(from) }
		for i := range rapid.IntRange(0, 30).Draw(t, "events") {
			kind := csta.CallKind(rapid.IntRange(int(csta.ServiceInitiated), int(csta.CallCleared)).Draw(t, "kind"))
			local := csta.LocalState(pick([]string{"", "null", "initiated", "alerting", "connected", "hold", "queued", "fail"}).Draw(t, "local"))
			call := pick(ids).Draw(t, "call")
			e := ev(kind, call, pick(devices).Draw(t, "connection"), pick(devices).Draw(t, "device"), pick(devices).Draw(t, "calling"), local)
			if kind == csta.Conferenced || kind == csta.Transferred {
				e = join(kind, call, pick(ids).Draw(t, "second"), e.Device, local, pick(ids).Draw(t, "new"), rapid.SliceOfN(pick(devices), 0, 4).Draw(t, "parties")...)
			}
			e.UCID = pick([]string{"", "A", "B"}).Draw(t, "ucid")
			m.event(&e, at(i+1))
		}
		for _, id := range ids {
			e := ev(csta.ConnectionCleared, id, own, own, "", csta.StateNull)
			m.event(&e, at(100))
		}
		if m.holdsText() != "idle" {
			t.Fatal(m.holdsText())
		}
		for _, s := range m.spans(at(101)) {
			if !s.Until.IsZero() && !s.Until.After(s.From) {
				t.Fatalf("an empty span: %+v", s)
			}
		}
	})
}
