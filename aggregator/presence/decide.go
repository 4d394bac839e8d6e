package presence

import (
	"strings"
	"time"
)

// A finding is what the reports come to at one moment.
type finding struct {
	holds  FactSet             // facts that count now
	recent FactSet             // facts that counted at some time within the policy's Recent
	spans  [factCount]evidence // for each fact in holds, the span that stands for it
	stale  bool                // a report that is doubted contributes
	next   time.Time           // the earliest moment at which anything above may change
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

// find weighs the reports at the moment now.
func (p *Policy) find(reports []Report, now time.Time, f *finding) {
	p.weigh(reports, reports, now, f)
}

// weigh is find for some of the reports; what is back to back is sought in all.
func (p *Policy) weigh(reports, all []Report, now time.Time, f *finding) {
	var remembered FactSet
	for i := range p.Rules {
		remembered |= p.Rules[i].NotRecent
	}
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
			if remembered.Has(fact) {
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
	f.holds |= Facts(e.fact)
	f.stale = f.stale || doubted
	if e.before(&f.spans[e.fact]) {
		f.spans[e.fact] = e
	}
}

// Decide gives the state that the reports come to at the moment now, and the
// earliest later moment at which it may be another one (zero: not before a
// report is replaced). It is pure, and the order of the reports does not
// matter. Since and Revision are left zero.
//
// All reports are to be about one person, at most one for each source and
// subject.
func (p *Policy) Decide(person ID, reports []Report, now time.Time) (State, time.Time) {
	var f finding
	p.find(reports, now, &f)
	return p.decide(person, &f), f.next
}

func (p *Policy) decide(person ID, f *finding) State {
	s := State{Person: person}
	var away FactSet
	decided := false
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Availability == OutOfOffice {
			away |= r.Any
		}
		if decided || !r.matches(f.holds, f.recent) {
			continue
		}
		decided = true
		s.Availability, s.Class = r.Availability, r.class()
		s.Why = Reason{Rule: r.Name, Title: r.Title}
		if e := f.strongest(r.Any); e.span != nil {
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
	if f.holds&away != 0 && s.Availability != OutOfOffice {
		s.Overlays |= OverlayOutOfOffice
	}
	if f.stale {
		s.Overlays |= OverlayStale
	}
	s.Channels = f.channels()
	return s
}

// strongest gives the evidence that stands for a rule: that of the newest fact among any.
func (f *finding) strongest(any FactSet) evidence {
	var best evidence
	for fact := range (any & f.holds).All() {
		if e := f.spans[fact]; e.span != nil && e.before(&best) {
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

func (f *finding) channels() [ChannelCount]Channel {
	phone := f.channel(phoneStates)
	if phone.State > ChannelRinging && f.holds.Has(PhoneRinging) {
		phone.State = ChannelInUseRinging
	}
	return [ChannelCount]Channel{Phone: phone, Calendar: f.channel(calendarStates), Messaging: f.channel(sessionStates)}
}

func (f *finding) channel(rows []channelRow) Channel {
	for _, row := range rows {
		if e := f.spans[row.fact]; e.span != nil {
			return Channel{State: row.state, Contact: e.span.Contact, Since: e.span.From, Until: e.until}
		}
	}
	return Channel{}
}
