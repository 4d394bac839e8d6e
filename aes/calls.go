package aes

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"presenced/aes/csta"
	"presenced/aggregator/presence"
)

// Bounds of what is kept of one device. A phone has a few calls; more are a
// broken or hostile peer.
const (
	maxCalls = 64
	maxEnded = 200
	maxOther = 64

	keepEnded  = time.Hour     // see presence.Report
	stuckAfter = 4 * time.Hour // a call without any event for so long is doubted
)

// A call is one call at the device, as the device sees it.
type call struct {
	ucid  string
	state csta.LocalState // never null
	// answered says that the device is or was in a conversation, or as near to
	// one as can be told: a trunk was reached, a queue took the call.
	answered bool
	// reached says that answered rests on a trunk or a queue only, so that a
	// busy tone can still follow.
	reached bool
	// others are the device IDs of the other parties; empty strings are those
	// that a snapshot counted. Only the number matters in the end: the names keep
	// one party from being counted twice.
	others []string
	silent []string // parties that only listen, such as recorders
	unsure bool     // a snapshot told that the call is there, and nothing told in which state
	leg    string   // a device ID other than that of the station that stands for it (a mobile leg)
	heard  time.Time
}

// A holding is a fact that is true because of a call, or of the device if call
// is empty.
type holding struct {
	call string
	fact presence.Fact
}

// A past is a fact that was true from one time until another, in nanoseconds of
// Unix time: a busy phone has many of them.
type past struct {
	fact        presence.Fact
	from, until int64
}

func (p *past) over(now time.Time) bool { return now.UnixNano()-p.until >= int64(keepEnded) }

// A model is what is known of one device. It must not be used concurrently.
type model struct {
	extension, device string

	calls        map[string]*call
	known        bool // a snapshot told of all calls
	dnd          csta.Flag
	forward      map[string]bool // the immediate kinds that are on
	outOfService bool
	unregistered bool
	agent        presence.FactSet // what the agent at the device does, if there is one

	holds   map[holding]time.Time // what is true, and since when
	ended   []past
	version int // counts the changes of holds and ended

	// While an answer is outstanding, what events said meanwhile, which wins over it.
	asking                                       bool
	touched                                      map[string]bool
	serviceTold, dndTold, forwardTold, agentTold bool

	verify        bool // the events do not add up: a snapshot is needed
	verifyForward bool // likewise of forwarding
	verifyAgent   bool // and of agents
}

func newModel(extension string) *model {
	return &model{extension: extension, calls: map[string]*call{}, holds: map[holding]time.Time{}}
}

// spans gives all that is true at now, and what ended within the last hour. It
// is nil while the calls are not known.
func (m *model) spans(now time.Time) []presence.Span {
	if !m.known {
		return nil
	}
	contact := "tel:" + m.extension
	out := make([]presence.Span, 0, len(m.holds)+len(m.ended))
	for h, from := range m.holds {
		out = append(out, presence.Span{Fact: h.fact, From: from, Contact: contact})
	}
	for _, p := range m.ended {
		if !p.over(now) {
			out = append(out, presence.Span{Fact: p.fact, From: time.Unix(0, p.from).UTC(), Until: time.Unix(0, p.until).UTC(), Contact: contact})
		}
	}
	presence.SortSpans(out)
	return out
}

// facts gives the facts of one call (section 12 of the mapping: all that are
// true, the policy chooses).
func (c *call) facts() presence.FactSet {
	switch c.state {
	case csta.StateAlerting:
		return presence.Facts(presence.PhoneRinging)
	case csta.StateHold:
		return presence.Facts(presence.PhoneHeld)
	case csta.StateQueued:
		return presence.Facts(presence.PhoneConnected)
	case csta.StateConnected:
		if !c.answered {
			return presence.Facts(presence.PhoneDialing)
		}
		if len(c.others) >= 2 {
			return presence.Facts(presence.PhoneConnected, presence.PhoneConference)
		}
		return presence.Facts(presence.PhoneConnected)
	default: // initiated; fail, until the connection is cleared
		return presence.Facts(presence.PhoneDialing)
	}
}

// settle compares what is true now with what was, and tells whether anything
// changed. A fact that is no longer true ended at the time ended.
func (m *model) settle(now, ended time.Time) bool {
	truth := make(map[holding]bool, len(m.holds)+1)
	for id, c := range m.calls {
		for f := range c.facts().All() {
			truth[holding{id, f}] = true
		}
	}
	out := m.outOfService || m.unregistered && len(m.calls) == 0
	if out {
		truth[holding{"", presence.PhoneOutOfService}] = true
	} else if len(m.calls) == 0 && m.known {
		truth[holding{"", presence.PhoneIdle}] = true
	}
	if m.dnd == csta.Yes {
		truth[holding{"", presence.PhoneDND}] = true
	}
	if len(m.forward) > 0 {
		truth[holding{"", presence.PhoneForwarded}] = true
	}
	for f := range m.agent.All() {
		truth[holding{"", f}] = true
	}

	changed := false
	for h, from := range m.holds {
		if truth[h] {
			continue
		}
		changed = true
		delete(m.holds, h)
		if ended.After(from) {
			m.ended = append(m.ended, past{h.fact, from.UnixNano(), ended.UnixNano()})
		}
	}
	for h := range truth {
		if _, held := m.holds[h]; !held {
			changed = true
			m.holds[h] = now
		}
	}
	if changed {
		m.version++
		m.ended = slices.DeleteFunc(m.ended, func(p past) bool { return p.over(now) })
		if over := len(m.ended) - maxEnded; over > 0 {
			slices.SortFunc(m.ended, func(a, b past) int { return cmp.Compare(a.until, b.until) })
			m.ended = slices.Delete(m.ended, 0, over)
		}
	}
	return changed
}

// same tells whether two device IDs mean one device: IDs are opaque, but their
// parts extension and switch are comparable, without regard to case. The
// interface address and the instance differ between an ID that was asked for
// and one in an event.
func same(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	if strings.EqualFold(a, b) {
		return true
	}
	extA, restA, fullA := strings.Cut(a, ":")
	extB, restB, fullB := strings.Cut(b, ":")
	if !strings.EqualFold(extA, extB) {
		return false
	}
	if !fullA || !fullB {
		return true
	}
	switchA, _, _ := strings.Cut(restA, ":")
	switchB, _, _ := strings.Cut(restB, ":")
	return strings.EqualFold(switchA, switchB)
}

// own tells whether a device ID means this device.
func (m *model) own(id string) bool {
	if m.device != "" {
		return same(id, m.device)
	}
	return same(id, m.extension)
}

// ownLeg is own, or the leg that stands for the device in that call.
func (m *model) ownLeg(c *call, id string) bool {
	return m.own(id) || c != nil && c.leg != "" && same(id, c.leg)
}

// event applies a call event, and tells whether any fact changed.
func (m *model) event(e *csta.CallEvent, now time.Time) bool {
	switch e.Kind {
	case csta.Conferenced, csta.Transferred:
		m.joined(e, now)
	default:
		m.single(e, now)
	}
	return m.settle(now, now)
}

// touch notes that an event told of the call.
func (m *model) touch(id string) {
	if m.asking {
		if m.touched == nil {
			m.touched = map[string]bool{}
		}
		m.touched[id] = true
	}
}

// drop removes a call; what it made true ends in settle.
func (m *model) drop(id string) {
	delete(m.calls, id)
	m.touch(id)
}

// single applies an event about one call.
func (m *model) single(e *csta.CallEvent, now time.Time) {
	id := e.Connection.CallID
	if id == "" {
		// Which call is meant can be told only if there is one.
		if len(m.calls) != 1 {
			m.verify = true
			return
		}
		for id = range m.calls {
		}
	}
	c := m.calls[id]
	state := e.Local
	other := c != nil && c.ucid != "" && e.UCID != "" && c.ucid != e.UCID
	switch {
	case other && ends(e.Kind):
		// Either the late end of an older call that had this call ID, or a call
		// that was joined and goes by both its names.
		m.verify = true
		return
	case other && (begins(e.Kind) || state == csta.StateAlerting || !state.Known() && m.guess(e, nil) == csta.StateAlerting):
		m.drop(id) // the switch gave the call ID to another call, and the end of this one was lost
		m.settle(now, now)
		c = nil
	case other:
		m.verify = true
	}
	if !state.Known() {
		state = m.guess(e, c)
	}
	if c != nil && c.unsure {
		c.unsure = !e.Local.Known()
		m.verify = m.verify || c.unsure // the guess rests on a guess
	}
	if e.Kind == csta.ConnectionCleared || e.Kind == csta.CallCleared {
		m.cleared(e, id, c, state, now)
		return
	}
	if state == csta.StateNull {
		m.drop(id)
		return
	}
	if state == "" { // about another device: nothing is known of the own part
		if c == nil {
			return
		}
		state = c.state
	}
	if c == nil {
		if e.Kind == csta.Bridged || e.Kind == csta.Offered || len(m.calls) >= maxCalls {
			m.verify = m.verify || len(m.calls) >= maxCalls
			return
		}
		c = &call{}
		c.answered = e.Kind == csta.Retrieved || e.Kind == csta.Held
		m.calls[id] = c
		// A call at a dead phone: the news that it is back was lost. One that begins
		// with an answer: how many are in it was not told.
		m.verify = m.verify || m.outOfService || m.unregistered || e.Kind == csta.Established
	}
	was := c.state
	c.state, c.heard = state, now
	if e.UCID != "" {
		c.ucid = e.UCID
	}
	m.touch(id)

	switch e.Kind {
	case csta.Established:
		m.established(e, c, was)
	case csta.NetworkReached, csta.Queued:
		if !c.answered {
			c.answered, c.reached = true, true
		}
		if e.Kind == csta.NetworkReached && c.state != csta.StateAlerting {
			m.verify = c.add(e.Connection.DeviceID) || m.verify
		}
	case csta.Failed:
		if c.reached {
			c.answered, c.reached = false, false
		}
		if gone := e.Connection.DeviceID; gone != "" {
			c.others = slices.DeleteFunc(c.others, func(o string) bool { return same(o, gone) })
		}
	}
}

// ends tells whether the event only ever ends a call or a part of one.
func ends(k csta.CallKind) bool {
	return k == csta.ConnectionCleared || k == csta.CallCleared || k == csta.Diverted
}

// begins tells whether the event comes first in the life of a call.
func begins(k csta.CallKind) bool { return k == csta.ServiceInitiated || k == csta.Originated }

// established notes who talks to whom.
func (m *model) established(e *csta.CallEvent, c *call, was csta.LocalState) {
	if c.state == csta.StateAlerting { // answered elsewhere, and a bridge goes on ringing here
		return
	}
	c.answered, c.reached = true, false
	other := e.Device
	if was == csta.StateAlerting || m.ownLeg(c, e.Device) || was == "" && m.ownLeg(c, e.Connection.DeviceID) {
		// This device answers. A mobile or dynamic leg stands for the station.
		if !m.own(e.Connection.DeviceID) {
			c.leg = e.Connection.DeviceID
		}
		if len(c.others) == 0 || slices.Contains(c.others, "") { // else those who were there are known, be it by other names
			c.add(e.Calling)
		}
		return
	}
	if e.Connection.DeviceID != "" && !m.own(e.Connection.DeviceID) {
		other = e.Connection.DeviceID
	}
	m.verify = c.add(other) || m.verify
}

// add counts a party, once, and tells whether the number is in doubt now: a party
// that a snapshot counted without a name was taken for it, or it may have come in
// the place of another, which nobody is told.
func (c *call) add(device string) (doubtful bool) {
	for _, o := range c.others {
		if o != "" && (o == device || same(o, device)) {
			return false
		}
	}
	if i := slices.Index(c.others, ""); i >= 0 {
		c.others[i] = device
		return true
	}
	if len(c.others) < maxOther {
		c.others = append(c.others, device)
	}
	return len(c.others) > 1
}

// cleared applies the end of a connection or of the whole call. The event also
// comes when a line is put on hold, and for every other party, so it ends the
// call here only if it is the own connection that is gone.
func (m *model) cleared(e *csta.CallEvent, id string, c *call, state csta.LocalState, now time.Time) {
	dropped := e.Connection
	own := m.ownLeg(c, dropped.DeviceID) || dropped.DeviceID == ""
	if e.Kind == csta.CallCleared || c == nil && own && (state == csta.StateNull || state == "") {
		m.drop(id)
		return
	}
	if c == nil {
		return
	}
	m.touch(id)
	c.heard = now
	switch {
	case own && state == csta.StateNull:
		m.drop(id)
	case own && state == "":
		// The releasing device tells a hang-up from a hold.
		if c.state == csta.StateHold && !m.ownLeg(c, e.Device) {
			m.verify = true
			return
		}
		m.drop(id)
	case own:
		c.state = state
	case state == csta.StateNull && (dropped.Dynamic || m.ownLeg(c, e.Device)):
		m.drop(id)
	case state == csta.StateNull:
		m.verify = true // another party left, yet the own state is said to be gone
	default:
		if state != "" {
			c.state = state
		}
		if e.Device != "" && !same(e.Device, dropped.DeviceID) && !dropped.Dynamic && !trunk(dropped.DeviceID) {
			m.verify = true // released by another: the party may have gone, or be on hold
			return
		}
		m.left(c, dropped.DeviceID)
	}
}

// left takes a party off the call.
func (m *model) left(c *call, device string) {
	is := func(o string) bool { return o == device || same(o, device) }
	if i := slices.IndexFunc(c.silent, is); i >= 0 {
		c.silent = slices.Delete(c.silent, i, i+1)
		return
	}
	if i := slices.IndexFunc(c.others, is); i >= 0 {
		c.others = slices.Delete(c.others, i, i+1)
		return
	}
	if i := slices.Index(c.others, ""); i >= 0 {
		c.others = slices.Delete(c.others, i, i+1)
		return
	}
	// Someone left who was not counted under that name, or the event came
	// twice. That matters only where it decides between call and conference.
	m.verify = m.verify || len(c.others) >= 2
}

// guess gives the own state after an event without localConnectionInfo; empty:
// the event tells nothing of the own device (table of section 12).
func (m *model) guess(e *csta.CallEvent, c *call) csta.LocalState {
	known := c != nil
	caller := m.own(e.Calling)
	keep := csta.LocalState("")
	if known {
		keep = c.state
	}
	switch e.Kind {
	case csta.ServiceInitiated:
		if e.Device == "" || m.own(e.Device) {
			return csta.StateInitiated
		}
	case csta.Originated:
		if e.Calling == "" || caller || known {
			return csta.StateConnected
		}
	case csta.Delivered:
		switch {
		case m.own(e.Device), e.Device == "" && m.own(e.Connection.DeviceID):
			if known && keep != csta.StateAlerting {
				return keep
			}
			return csta.StateAlerting
		case known && keep == csta.StateInitiated:
			return csta.StateConnected
		case known:
			return keep
		case caller:
			return csta.StateConnected
		}
	case csta.Established:
		switch {
		case known && keep == csta.StateAlerting:
			leg := e.Connection
			elsewhere := leg.DeviceID != "" && !leg.Dynamic && !trunk(leg.DeviceID)
			if e.Device != "" && !trunk(e.Device) { // the leg may be any that stands for who answers
				elsewhere = !m.own(e.Device)
			}
			if !elsewhere || m.own(leg.DeviceID) {
				return csta.StateConnected
			}
			// A bridge or a pick-up answered; or another of the parties that were
			// called, and this one rings on.
			m.verify = true
			return csta.StateNull
		case known && keep == csta.StateHold:
			return keep
		case known, caller, m.own(e.Device), m.own(e.Connection.DeviceID):
			return csta.StateConnected
		}
	case csta.Held:
		if m.own(e.Device) || m.own(e.Connection.DeviceID) {
			return csta.StateHold
		}
		return keep
	case csta.Retrieved:
		if m.own(e.Device) || m.own(e.Connection.DeviceID) {
			return csta.StateConnected
		}
		return keep
	case csta.Diverted:
		if m.own(e.Device) || m.own(e.Connection.DeviceID) {
			return csta.StateNull
		}
		return keep
	case csta.Queued:
		switch {
		case m.own(e.Device):
			return csta.StateQueued
		case known && keep != csta.StateInitiated:
			return keep
		case known, caller:
			return csta.StateConnected
		}
	case csta.NetworkReached:
		switch {
		case known && keep != csta.StateInitiated:
			return keep
		case known, caller:
			return csta.StateConnected
		}
	case csta.Failed:
		switch {
		case m.own(e.Device) || m.own(e.Connection.DeviceID):
			return csta.StateFail
		case known && keep != csta.StateInitiated:
			return keep
		case known, caller:
			return csta.StateConnected
		}
	case csta.ConnectionCleared, csta.CallCleared:
		return "" // cleared tells it apart
	default:
		return keep
	}
	return ""
}

// trunk tells whether a device ID is that of a trunk member, as in T513#2:CM1::0.
func trunk(id string) bool {
	name, _, _ := strings.Cut(id, ":")
	return strings.HasPrefix(name, "T") && strings.Contains(name, "#")
}

// joined applies a conference or a transfer: two calls become one, and which of
// the two call IDs survives is not certain.
func (m *model) joined(e *csta.CallEvent, now time.Time) {
	primary, secondary := e.PrimaryOld.CallID, e.SecondaryOld.CallID
	var id string // of the new call, the own entry of the list first
	var others []string
	inList := false
	for _, p := range e.Parties {
		device := p.New.DeviceID
		if device == "" {
			device = p.Endpoint
		}
		if m.own(device) || m.own(p.Endpoint) {
			inList = true
			id = p.New.CallID
			continue
		}
		if id == "" && !inList {
			id = p.New.CallID
		}
		if len(others) < maxOther {
			others = append(others, device)
		}
	}
	old := m.calls[primary]
	if c := m.calls[secondary]; c != nil && (old == nil || old.state == csta.StateHold && c.state != csta.StateHold) {
		old = c // the one that is not on hold
	}
	if old == nil {
		old = m.calls[id]
	}
	if old == nil {
		// A call that is not known: a recorder stepped in, or its beginning was
		// lost. It makes no state by itself; where the device is in it, ask.
		m.verify = m.verify || inList && e.Local != csta.StateNull
		return
	}
	old.heard = now

	state := e.Local
	if !state.Known() {
		switch {
		case e.Kind == csta.Transferred && m.own(e.Device):
			state = csta.StateNull
		case old.state == csta.StateAlerting:
			state = csta.StateAlerting // the target of a blind transfer still rings
		case old.state == csta.StateHold && inList && !m.own(e.Device):
			state = csta.StateHold // what others join does not take the call off hold here
		case inList || len(e.Parties) == 0:
			state = csta.StateConnected
		default:
			m.verify = true // others joined calls, and the list is without this device
			return
		}
	}
	if state == csta.StateNull {
		m.drop(primary)
		m.drop(secondary)
		return
	}
	if id == "" {
		m.verify = true
		id = primary
		if m.calls[secondary] == old {
			id = secondary
		}
	}

	joined := &call{state: state, answered: old.answered, silent: old.silent, leg: old.leg, heard: now, ucid: e.UCID, others: others}
	if state == csta.StateConnected && (e.Kind == csta.Conferenced || len(others) > 0) {
		joined.answered = true
	}
	if name := cmp.Or(e.Added, e.Device); secondary == "" && name != "" && listens(e) && len(joined.silent) < maxOther {
		joined.silent = append(joined.silent, name)
	}
	if len(e.Parties) == 0 {
		joined.others = old.others
		m.verify = true
	}
	joined.others = slices.DeleteFunc(joined.others, func(o string) bool {
		return slices.ContainsFunc(joined.silent, func(s string) bool { return same(o, s) })
	})
	m.become(id, joined, primary, secondary)
}

// listens tells whether what was added to a call only listens, as recorders do.
// Such an addition has no second old call; the cause alone would not do.
func listens(e *csta.CallEvent) bool {
	switch e.Cause {
	case "singleStepConference", "silentParticipation", "activeParticipation":
		return e.Kind == csta.Conferenced
	}
	return false
}

// become puts the new call in the place of the old ones. What was true of an old
// call and still is goes on without a break.
func (m *model) become(id string, c *call, old ...string) {
	facts := c.facts()
	for _, o := range old {
		if o == id || o == "" {
			continue
		}
		for f := range facts.All() {
			from, held := m.holds[holding{o, f}]
			if !held {
				continue
			}
			if at, ok := m.holds[holding{id, f}]; !ok || from.Before(at) {
				m.holds[holding{id, f}] = from
				m.version++
			}
			delete(m.holds, holding{o, f})
		}
		m.drop(o)
	}
	m.calls[id] = c
	m.touch(id)
}

// ask is called when a snapshot is requested: events from here on win over its answer.
func (m *model) ask() {
	m.asking, m.serviceTold, m.verify = true, false, false
	clear(m.touched)
}

// snapshot replaces all calls, but for those that an event told of since the
// request. What is gone ended at the time ended. It gives how many calls were
// stuck: gone after stuckAfter without an event.
func (m *model) snapshot(calls []csta.CallInfo, service string, now, ended time.Time) (changed bool, stuck int) {
	fresh := make(map[string]*call, len(calls))
	m.verify = false
	for i := range calls {
		id := calls[i].Connection.CallID
		if id == "" || len(fresh) >= maxCalls {
			continue
		}
		old := m.calls[id]
		c := told(&calls[i], old)
		switch {
		case c == nil:
		case !m.touched[id]:
			c.heard = now
			fresh[id] = c
		case old != nil && c.facts() != old.facts():
			m.verify = true // the event wins; but it may be what gave the reason to ask
		}
	}
	for id, c := range m.calls {
		switch {
		case m.touched[id]:
			fresh[id] = c
		case fresh[id] == nil && now.Sub(c.heard) >= stuckAfter:
			stuck++
		}
	}
	m.calls = fresh
	m.known = true
	m.asking = false
	clear(m.touched)
	if !m.serviceTold {
		switch service {
		case "inService":
			m.outOfService, m.unregistered = false, false
		case "outOfService":
			m.outOfService = true
		}
	}
	return m.settle(now, ended), stuck
}

// told gives a call as a snapshot tells it, with what old knows of it besides; nil
// if the device is not in it. Old is nil if the call is not known.
func told(info *csta.CallInfo, old *call) *call {
	c := &call{}
	states := info.States()
	said := len(states) > 0 && states[0].Known()
	switch {
	case old != nil && !said: // there, but in no known state: as it was
		*c = *old
		return c
	case old != nil:
		c.ucid, c.silent, c.leg, c.others = old.ucid, old.silent, old.leg, old.others
	case !said:
		c.unsure = true
		states = []csta.LocalState{csta.StateConnected, csta.StateConnected}
	}
	c.state = states[0]
	if c.state == csta.StateNull {
		return nil
	}
	talking := 0
	for _, s := range states[1:] {
		switch s {
		case csta.StateConnected, csta.StateHold:
			talking++
		case csta.StateQueued:
			c.answered, c.reached = true, talking == 0
		}
	}
	if talking > 0 {
		c.answered, c.reached = true, false
	}
	talking = max(0, talking-len(c.silent))
	// Keep the names unless there are too many: then it is not known whose.
	if len(c.others) > talking {
		c.others = nil
	}
	c.others = slices.Clone(c.others)
	for len(c.others) < min(talking, maxOther) {
		c.others = append(c.others, "")
	}
	return c
}

// service notes that the device went out of service or came back.
func (m *model) service(out bool, now time.Time) bool {
	m.outOfService, m.serviceTold = out, true
	if !out {
		m.unregistered = false
	}
	return m.settle(now, now)
}

// dead notes that the switch says of the device that it is out of service, and
// nothing else.
func (m *model) dead(now time.Time) bool {
	clear(m.calls)
	m.known, m.outOfService = true, true
	return m.settle(now, now)
}

// forget is for a device that cannot be watched: nothing is known.
func (m *model) forget(now time.Time) {
	clear(m.calls)
	m.known, m.asking, m.outOfService, m.unregistered = false, false, false, false
	m.settle(now, now)
}

// registration notes that the phone registered or unregistered.
func (m *model) registration(registered bool, now time.Time) bool {
	m.unregistered, m.serviceTold = !registered, true
	if registered {
		m.outOfService = false
	}
	return m.settle(now, now)
}

// dndEvent notes a pushed do not disturb, dndAnswer the answer to the question,
// which an event since the question (askDND) overrules.
func (m *model) dndEvent(on csta.Flag, now time.Time) bool {
	if on != csta.Unset {
		m.dnd, m.dndTold = on, true
	}
	return m.settle(now, now)
}

func (m *model) askDND() { m.dndTold = false }

func (m *model) dndAnswer(on csta.Flag, now time.Time) bool {
	if on != csta.Unset && !m.dndTold {
		m.dnd = on
	}
	return m.settle(now, now)
}

// immediate tells whether a kind of forwarding takes all calls.
func immediate(kind string) bool {
	return kind == "forwardImmediate" || kind == "forwardImmInt" || kind == "forwardImmExt"
}

// forwardEvent notes one kind of forwarding, forwardAnswer all of them, as with
// do not disturb.
func (m *model) forwardEvent(f csta.Forwarding, now time.Time) bool {
	if !immediate(f.Type) || f.On == csta.Unset {
		return false
	}
	m.forwardTold = true
	switch {
	case f.On == csta.Yes:
		m.forwards(f.Type)
	case f.Type == "forwardImmediate":
		// It covers calls from inside and from outside. Whether it ends what was set
		// for one of them only is not certain.
		m.verifyForward = m.verifyForward || len(m.forward) > 1 || len(m.forward) == 1 && !m.forward[f.Type]
		clear(m.forward)
	default:
		delete(m.forward, f.Type)
	}
	return m.settle(now, now)
}

func (m *model) forwards(kind string) {
	if m.forward == nil {
		m.forward = map[string]bool{}
	}
	m.forward[kind] = true
}

func (m *model) askForward() { m.forwardTold = false }

func (m *model) forwardAnswer(list []csta.Forwarding, now time.Time) bool {
	if m.forwardTold {
		return false
	}
	m.verifyForward = false
	clear(m.forward)
	for _, f := range list {
		if immediate(f.Type) && f.On == csta.Yes {
			m.forwards(f.Type)
		}
	}
	return m.settle(now, now)
}

// agentEvent notes what an agent does, agentAnswer what all agents at the device
// do, as with do not disturb.
func (m *model) agentEvent(e *csta.AgentEvent, now time.Time) bool {
	state := e.State()
	if state == "" { // logged on: what the agent does is not said
		m.verifyAgent = true
		return false
	}
	m.agentTold = true
	m.agent = agentFacts(state)
	return m.settle(now, now)
}

func (m *model) askAgent() { m.agentTold = false }

func (m *model) agentAnswer(agents []csta.Agent, now time.Time) bool {
	if m.agentTold {
		return false
	}
	m.verifyAgent = false
	var states []csta.AgentState
	for _, a := range agents {
		if a.LoggedOn != csta.No {
			states = append(states, a.States...)
		}
	}
	m.agent = agentFacts(states...)
	return m.settle(now, now)
}

// agentFacts gives the one fact that stands for an agent, who may be in several
// groups. An agent in a call has none: the call says more.
func agentFacts(states ...csta.AgentState) presence.FactSet {
	switch {
	case slices.Contains(states, csta.AgentWorkingAfterCall):
		return presence.Facts(presence.AgentAfterCall)
	case slices.Contains(states, csta.AgentBusy):
		return 0
	case slices.Contains(states, csta.AgentReady):
		return presence.Facts(presence.AgentReady)
	case slices.Contains(states, csta.AgentNotReady):
		return presence.Facts(presence.AgentNotReady)
	}
	return 0
}
