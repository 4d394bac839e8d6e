// Package directory knows the people: who they are and how each source and
// bridge addresses them. It reads them from a YAML file (File) and from LDAP
// (LDAP), and merges several such readings into one Directory. The aggregator
// and cmd import it.
package directory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"presenced/aggregator/presence"
)

// A Directory is an immutable set of people, indexed by identifier and subject.
type Directory struct {
	people   []presence.Person // sorted by name, then identifier
	byID     map[presence.ID]int
	bySubj   map[presence.Subject]int
	byScheme map[string][]presence.Subject
}

// Empty is a directory without people.
func Empty() *Directory { d, _ := New(nil); return d }

// SchemeID is the scheme under which everybody is found by identifier.
const SchemeID = "id"

// New indexes people. A second person with the same identifier, or one with a
// subject that another person has already, is left out as far as that goes, and
// named in the problems: a double extension must not stop the service.
func New(people []presence.Person) (d *Directory, problems []string) {
	d = &Directory{byID: map[presence.ID]int{}, bySubj: map[presence.Subject]int{}, byScheme: map[string][]presence.Subject{}}
	sorted := slices.Clone(people)
	slices.SortStableFunc(sorted, func(a, b presence.Person) int {
		return cmp.Or(strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), cmp.Compare(a.ID, b.ID))
	})
	for _, p := range sorted {
		if p.ID == "" {
			problems = append(problems, fmt.Sprintf("a person named %q has no identifier", p.Name))
			continue
		}
		if _, taken := d.byID[p.ID]; taken {
			problems = append(problems, fmt.Sprintf("two people have the identifier %q", p.ID))
			continue
		}
		place := len(d.people)
		d.byID[p.ID] = place
		d.bySubj[presence.Subject{Scheme: SchemeID, Value: string(p.ID)}] = place
		var own []presence.Subject
		for _, s := range p.Subjects {
			s = Canonical(s)
			if other, taken := d.bySubj[s]; taken && other != place {
				problems = append(problems, fmt.Sprintf("%s belongs to both %s and %s; the first keeps it", s, d.people[other].ID, p.ID))
				continue
			} else if taken {
				continue
			}
			d.bySubj[s] = place
			d.byScheme[s.Scheme] = append(d.byScheme[s.Scheme], s)
			own = append(own, s)
		}
		p.Subjects = own
		d.people = append(d.people, p)
	}
	for _, subjects := range d.byScheme {
		slices.SortFunc(subjects, func(a, b presence.Subject) int { return strings.Compare(a.Value, b.Value) })
	}
	return d, problems
}

// Canonical gives the one spelling under which a subject is found: blanks around
// it are dropped, and addresses of mail, SIP and XMPP are in
// lower case.
func Canonical(s presence.Subject) presence.Subject {
	s.Scheme = strings.ToLower(strings.TrimSpace(s.Scheme))
	s.Value = strings.TrimSpace(s.Value)
	switch s.Scheme {
	case "mail", "sip", "jid":
		s.Value = strings.ToLower(s.Value)
	}
	return s
}

// People gives everybody, sorted by name; not to be changed.
func (d *Directory) People() []presence.Person { return d.people }

// Person finds somebody by identifier.
func (d *Directory) Person(id presence.ID) (presence.Person, bool) {
	i, ok := d.byID[id]
	if !ok {
		return presence.Person{}, false
	}
	return d.people[i], true
}

// Find finds somebody by any subject, in any spelling that Canonical folds.
func (d *Directory) Find(s presence.Subject) (presence.Person, bool) {
	i, ok := d.bySubj[s]
	if !ok {
		if i, ok = d.bySubj[Canonical(s)]; !ok {
			return presence.Person{}, false
		}
	}
	return d.people[i], true
}

// Subjects gives all subjects of a scheme, sorted; not to be changed.
func (d *Directory) Subjects(scheme string) []presence.Subject { return d.byScheme[scheme] }
