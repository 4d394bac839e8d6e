package presence

import (
	"strings"
	"time"
)

// A finding is what the reports come to at one moment.
type finding struct {
	holds  FactSet   // facts that count now
	recent FactSet   // facts that counted at some time within the policy's Recent
	stale  bool      // a report that is doubted contributes
	next   time.Time // the earliest moment at which anything above may change

	// For each fact in holds, the span that stands for it. What is there for
	// others is left from an earlier moment.
	spans [factCount]evidence
}

// reset makes f that of no reports. The spans are large, and stay: only Expired may
// hold without one.
func (f *finding) reset() {
	f.holds, f.recent, f.stale, f.next = 0, 0, false, time.Time{}
	f.spans[Expired] = evidence{}
}

// Evidence is a span, what it counts as, and the report it is of.
type evidence struct {
	span   *Span
	fact   Fact
	source string
	until  time.Time // when it stops counting; zero: not known
}

// before tells whether e is to stand for a fact rather than f: the newest span does,
// and among equals the choice does not depend on the order of the reports.
func (e *evidence) before(f *evidence) bool {
	if f.span == nil {
		return true
	}
	if c := e.span.From.Compare(f.span.From); c != 0 {
		return c > 0
	}
	if !e.until.Equal(f.until) { // a zero until is the latest of all
		return e.until.IsZero() || !f.until.IsZero() && e.until.After(f.until)
	}
	if c := strings.Compare(e.source, f.source); c != 0 {
		return c < 0
	}
	if e.span.Private != f.span.Private {
		return e.span.Private
	}
	return e.span.Contact < f.span.Contact
}

// soon keeps t if it is later than now and earlier than what is kept.
func (f *finding) soon(now, t time.Time) {
	if !t.IsZero() && t.After(now) && (f.next.IsZero() || t.Before(f.next)) {
		f.next = t
	}
}

// fact gives the fact that a span counts as: a private meeting is no more than
// an appointment, so that the state does not tell who meets.
func (s *Span) fact() Fact {
	if s.Private && s.Fact == CalendarMeeting {
		return CalendarBusy
	}
	return s.Fact
}

// A Decider decides by one policy, again and again: it has ready what every decision
// needs. It is for one goroutine at a time.
type Decider struct {
	policy     *Policy
	remembered FactSet // facts that some rule wants to know of when they are over
	away       FactSet // facts of which some rule makes out of office
	found      finding // kept for its memory
}

// Decider makes a Decider. The policy must not change any more.
func (p *Policy) Decider() *Decider {
	d := Decider{policy: p}
	for i := range p.Rules {
		r := &p.Rules[i]
		d.remembered |= r.NotRecent
		if r.Availability == OutOfOffice {
			d.away |= r.Any
		}
	}
	return &d
}

// Policy gives the policy by which d decides.
func (d *Decider) Policy() *Policy { return d.policy }

// weigh weighs the reports at the moment now; what is back to back is sought in all.
func (d *Decider) weigh(reports, all []Report, now time.Time, f *finding) {
	p := d.policy
	for i := range reports {
		r := &reports[i]
		if r.expired(now) {
			if len(r.Spans) > 0 {
				f.holds |= Facts(Expired)
			}
			continue
		}
		f.soon(now, r.Expires)
		f.soon(now, r.Doubted)
		for j := range r.Spans {
			s := &r.Spans[j]
			fact := s.fact()
			from, until, ok := s.window(p.Delay[fact], p.Linger[fact])
			if waits := p.Meanwhile[fact]; waits != 0 {
				end := from // of the wait
				if !ok {
					end = s.Until
				}
				f.soon(now, s.From)
				f.soon(now, end)
				if !now.Before(s.From) && now.Before(end) {
					for other := range waits.All() {
						f.hold(evidence{s, other, r.Source, end}, r.doubted(now))
					}
				}
			}
			if !ok {
				continue
			}
			if now.Before(from) {
				f.soon(now, from)
				continue
			}
			if d.remembered.Has(fact) {
				if s.Until.IsZero() || now.Before(s.Until.Add(p.Recent)) {
					f.recent |= Facts(fact)
				}
				if !s.Until.IsZero() {
					f.soon(now, s.Until.Add(p.Recent))
				}
			}
			if gap := p.Gap[fact]; gap > 0 && !s.Until.IsZero() && now.Before(s.Until.Add(gap)) {
				if next := p.follower(all, s.Until, gap, now); next.After(until) {
					until = next
				}
			}
			if !until.IsZero() && !now.Before(until) {
				continue
			}
			f.soon(now, until)
			f.hold(evidence{s, fact, r.Source, until}, r.doubted(now))
		}
	}
}

// follower gives when the first entry that is back to back with one that ends at
// end begins to count: after end, at most gap later. Zero: there is none.
func (p *Policy) follower(all []Report, end time.Time, gap time.Duration, now time.Time) time.Time {
	var first time.Time
	latest := end.Add(gap)
	for i := range all {
		r := &all[i]
		if r.expired(now) {
			continue
		}
		for j := range r.Spans {
			s := &r.Spans[j]
			fact := s.fact()
			if p.Gap[fact] == 0 {
				continue
			}
			from, _, ok := s.window(p.Delay[fact], p.Linger[fact])
			if ok && from.After(end) && !from.After(latest) && (first.IsZero() || from.Before(first)) && !r.expired(from) {
				first = from
			}
		}
	}
	return first
}

// hold counts a fact.
func (f *finding) hold(e evidence, doubted bool) {
	f.stale = f.stale || doubted
	if !f.holds.Has(e.fact) || e.before(&f.spans[e.fact]) {
		f.spans[e.fact] = e
	}
	f.holds |= Facts(e.fact)
}

// Decide gives the state that the reports come to at the moment now, and the
// earliest later moment at which it may be another one (zero: not before a
// report is replaced). It is pure, and the order of the reports does not
// matter. Since and Revision are left zero.
//
// All reports are to be about one person, at most one for each source and
// subject.
func (p *Policy) Decide(person ID, reports []Report, now time.Time) (State, time.Time) {
	return p.Decider().Decide(person, reports, now)
}

// Decide gives what Policy.Decide gives.
func (d *Decider) Decide(person ID, reports []Report, now time.Time) (s State, next time.Time) {
	f := &d.found
	f.reset()
	d.weigh(reports, reports, now, f)
	s.Person = person
	d.decide(&s, f)
	return s, f.next
}

// decide makes s, of which only the person is there, the state that f comes to.
func (d *Decider) decide(s *State, f *finding) {
	p := d.policy
	decided := false
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.matches(f.holds, f.recent) {
			continue
		}
		decided = true
		s.Availability, s.Class = r.Availability, r.class()
		s.Why = Reason{Rule: r.Name, Title: r.Title}
		if e := f.strongest(r.Any); e != nil {
			if e.fact != CalendarFree { // which ends with what was read of the calendar, too
				s.Until = e.until
			}
			s.Why.Source, s.Why.Fact, s.Why.From = e.source, e.fact.String(), e.span.From
			if e.span.Private {
				s.Overlays |= OverlayPrivate
			}
			if ManualFacts.Has(e.span.Fact) && !e.until.IsZero() {
				s.Overlays |= OverlayExpires
			}
		}
		break
	}
	if !decided {
		s.Class = Unknown.Class()
		s.Why = Reason{Rule: "none", Title: "No rule of the policy fits"}
	}
	for i := range p.Shown {
		if row := &p.Shown[i]; f.holds.Has(row.Fact) && row.fits(s.Class) {
			s.Activity = row.Activity
			break
		}
	}
	if f.holds&d.away != 0 && s.Availability != OutOfOffice {
		s.Overlays |= OverlayOutOfOffice
	}
	if f.stale {
		s.Overlays |= OverlayStale
	}
	f.channel(&s.Channels[Phone], phoneStates)
	if phone := &s.Channels[Phone]; phone.State > ChannelRinging && f.holds.Has(PhoneRinging) {
		phone.State = ChannelInUseRinging
	}
	f.channel(&s.Channels[Calendar], calendarStates)
	f.channel(&s.Channels[Messaging], sessionStates)
}

// strongest gives the evidence that stands for a rule: that of the newest fact among
// any; nil if there is none.
func (f *finding) strongest(any FactSet) *evidence {
	var best *evidence
	for fact := range (any & f.holds).All() {
		if e := &f.spans[fact]; e.span != nil && (best == nil || e.before(best)) {
			best = e
		}
	}
	return best
}

// phoneStates, calendarStates and sessionStates are the facts of a channel, the
// one to show first.
//
//nolint:gochecknoglobals // tables, never changed
var (
	phoneStates = []channelRow{
		{PhoneConference, ChannelConference},
		{PhoneConnected, ChannelInUse},
		{PhoneDialing, ChannelDialing},
		{PhoneHeld, ChannelHeld},
		{PhoneRinging, ChannelRinging},
		{PhoneDND, ChannelDND},
		{PhoneForwarded, ChannelForwarded},
		{PhoneIdle, ChannelIdle},
		{PhoneOutOfService, ChannelUnavailable},
	}
	calendarStates = []channelRow{
		{CalendarOutOfOffice, ChannelOutOfOffice},
		{CalendarMeeting, ChannelMeeting},
		{CalendarBusy, ChannelBusy},
		{CalendarElsewhere, ChannelElsewhere},
		{CalendarAllDay, ChannelAllDay},
		{CalendarTentative, ChannelTentative},
		{CalendarFree, ChannelFree},
	}
	sessionStates = []channelRow{
		{SessionDND, ChannelDND},
		{SessionBusy, ChannelBusy},
		{SessionActive, ChannelActive},
		{SessionIdle, ChannelInactive},
		{SessionAway, ChannelAway},
		{SessionOffline, ChannelOffline},
	}
)

type channelRow struct {
	fact  Fact
	state ChannelState
}

// channel makes c what the first of the rows says that holds.
func (f *finding) channel(c *Channel, rows []channelRow) {
	for _, row := range rows {
		if f.holds.Has(row.fact) {
			e := &f.spans[row.fact]
			c.State, c.Contact, c.Since, c.Until = row.state, e.span.Contact, e.span.From, e.until
			return
		}
	}
}
