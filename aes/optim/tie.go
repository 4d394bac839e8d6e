package optim

import (
	"fmt"
	"slices"
	"strings"

	"presenced/aggregator/presence"
)

// Rules say what a mapping adds to a person.
type Rules struct {
	// Domain makes sip:NUMBER@Domain of the number of an OPS telephone; empty: it is not added.
	Domain string
	// Mobiles has the number of every other telephone added as tel:. A tel: subject is
	// monitored as an extension, so that one with a country code is told as no extension,
	// and one without it must be none of somebody else.
	Mobiles bool
}

// A Tie is what mappings add to a person.
type Tie struct {
	Person   presence.Person
	Mappings []Mapping
	Add      []presence.Subject // those that the person does not have yet
}

// Tying ties mappings to people: to whom the extension of a mapping belongs, found by find. Ties come in the
// order of their first mapping. Problems tell, by line, what is of nobody, stands twice, or would
// give one address to two people.
func Tying(all []Mapping, find func(presence.Subject) (presence.Person, bool), rules Rules) (ties []Tie, problems []string) {
	places := map[presence.ID]int{}
	lines := map[string]int{}                     // by what makes a mapping the same
	givenTo := map[presence.Subject]presence.ID{} // by subject: to whom it was added
	for _, m := range all {
		problem := func(format string, args ...any) {
			problems = append(problems, fmt.Sprintf("line %d: ", m.Line)+fmt.Sprintf(format, args...))
		}
		key := m.Extension + " " + m.Application + " " + m.CountryCode + " " + m.Number
		if before := lines[key]; before > 0 {
			problem("%s of %s to %s stands in line %d already", m.Application, m.Extension, m.Number, before)
			continue
		}
		lines[key] = m.Line
		person, ok := find(presence.Subject{Scheme: "tel", Value: m.Extension})
		if !ok {
			problem("%s of extension %s is of nobody in the directory", m.Application, m.Extension)
			continue
		}
		at, known := places[person.ID]
		if !known {
			at = len(ties)
			places[person.ID] = at
			ties = append(ties, Tie{Person: person})
		}
		t := &ties[at]
		t.Mappings = append(t.Mappings, m)
		s, ok := rules.subject(m)
		if !ok || slices.Contains(t.Add, s) || slices.Contains(person.Subjects, s) {
			continue
		}
		if other, taken := find(s); taken && other.ID != person.ID {
			problem("%s is of %s already, and not added to %s", s, other.ID, person.ID)
			continue
		}
		if other, taken := givenTo[s]; taken && other != person.ID {
			problem("%s is added to %s already, and not to %s", s, other, person.ID)
			continue
		}
		givenTo[s] = person.ID
		t.Add = append(t.Add, s)
	}
	return ties, problems
}

// subject gives the address that a mapping adds.
func (r Rules) subject(m Mapping) (presence.Subject, bool) {
	switch {
	case m.Number == "":
	case m.Application == "OPS":
		if r.Domain != "" && !strings.ContainsAny(m.Number, "*#") {
			return presence.Subject{Scheme: "sip", Value: strings.ToLower(m.Number + "@" + r.Domain)}, true
		}
	case r.Mobiles:
		number := m.Number
		if m.CountryCode != "" {
			number = "+" + m.CountryCode + number
		}
		return presence.Subject{Scheme: "tel", Value: number}, true
	}
	return presence.Subject{}, false
}
