package pidf

import (
	"slices"
	"time"

	"presenced/aggregator/presence"
)

// Facts gives what the document of a client, received at the given time, states
// about its user, as the spans of a report in canonical order. A document that
// says nothing of its user gives none.
//
//   - Among several tuples the most reachable one decides what the session is:
//     open before closed, in use before idle before away. A document without
//     tuples is open if it says anything of the person.
//   - A closed one is a session that is signed out, whatever else is said; yet a phone
//     that rings or is in use counts, because phones close while they are busy.
//   - Busy and do not disturb, a meeting and an appointment hold beside the session.
//   - Activities that have ended, or begin more than a minute from now, count for
//     nothing; a client says so again when they do. Other times ahead, and those of
//     more than a year ago, are those of a wrong clock, and mean now.
//
// Notes are not taken over: they are free text, written for whom the client
// chose, and the access rules know nothing of it. Nor is a contact that is no
// address.
func Facts(d Document, at time.Time) []presence.Span {
	person := &d.Person
	if over := !person.Until.IsZero() && !person.Until.After(at); over || person.Since.After(at.Add(time.Minute)) {
		person = &Person{Idle: person.Idle, LastInput: person.LastInput, Timestamp: person.Timestamp}
	}
	best, most := Tuple{Basic: Open, Timestamp: person.Timestamp}, unsaid
	if len(d.Tuples) == 0 && (len(person.Activities) > 0 || person.Idle || d.Idle) {
		most = reachOf(&best, person, d.Idle)
	}
	for i := range d.Tuples {
		if r := reachOf(&d.Tuples[i], person, d.Idle); r > most {
			best, most = d.Tuples[i], r
		}
	}
	if most == unsaid {
		return nil
	}
	contact := ""
	if isURI(best.Contact) && len(best.Contact) <= maxContact {
		contact = best.Contact
	}
	var spans []presence.Span
	state := func(f presence.Fact, from, until time.Time) {
		if from.After(at) || from.Before(at.AddDate(-1, 0, 0)) {
			from = at
		}
		spans = append(spans, presence.Span{Fact: f, From: from, Until: until, Contact: contact})
	}
	switch most {
	case signedOut:
		state(presence.SessionOffline, best.Timestamp, time.Time{})
	case away:
		state(presence.SessionAway, either(person.Since, best.Timestamp), time.Time{})
	case idle:
		state(presence.SessionIdle, either(person.LastInput, best.Timestamp), time.Time{})
	default:
		state(presence.SessionActive, best.Timestamp, time.Time{})
	}
	counts := ^presence.FactSet(0)
	if most == signedOut {
		counts = presence.Facts(presence.PhoneConnected, presence.PhoneRinging)
	}
	said := factsOf(person.Activities) & counts
	for f := range said.All() {
		state(f, either(person.Since, person.Timestamp), person.Until)
	}
	for f := range (factsOf(best.Activities) & counts &^ said).All() {
		state(f, best.Timestamp, time.Time{})
	}
	presence.SortSpans(spans)
	return spans
}

// maxContact is how long an address may be that goes to every watcher.
const maxContact = 256

// The reaches, the least first.
type reach uint8

const (
	unsaid reach = iota
	signedOut
	away
	idle
	inUse
)

func reachOf(t *Tuple, p *Person, device bool) reach {
	switch {
	case t.Basic == Closed:
		return signedOut
	case t.Basic != Open:
		return unsaid
	case slices.ContainsFunc(t.Activities, isAway) || slices.ContainsFunc(p.Activities, isAway):
		return away
	case t.Idle || p.Idle || device:
		return idle
	}
	return inUse
}

// isAway tells whether who does that is not at the client.
func isAway(activity string) bool {
	switch activity {
	case "away", "breakfast", "dinner", "holiday", "lunch", "meal", "permanent-absence", "sleeping", "vacation":
		return true
	}
	return false
}

// factsOf gives what activities state beside the session.
func factsOf(activities []string) presence.FactSet {
	var set presence.FactSet
	for _, a := range activities {
		switch a {
		case "on-the-phone":
			set |= presence.Facts(presence.PhoneConnected)
		case "alerting":
			set |= presence.Facts(presence.PhoneRinging)
		case "presentation":
			set |= presence.Facts(presence.Presenting)
		case "busy", "meeting", "appointment":
			set |= presence.Facts(presence.SessionBusy)
		case "dnd":
			set |= presence.Facts(presence.SessionDND)
		}
	}
	return set
}

// either gives a, or b where a is not said.
func either(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}
