// Package directory knows the people: who they are and how each source and
// bridge addresses them. It reads them from a YAML file (File) and from LDAP
// (LDAP), and merges several such readings into one Directory. The aggregator
// and cmd import it.
package directory

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
	"strings"

	"presenced/aggregator/presence"
)

// A Directory is an immutable set of people, indexed by identifier and subject.
// There may be millions: each is packed into one text, and unpacked when asked for.
type Directory struct {
	people []record // sorted by name, then identifier
	words  []string // schemes and groups, which many people have

	// A hash table with open addressing: each subject of a person has an entry, the
	// identifier too.
	table []entry
	seed  maphash.Seed
}

type entry struct {
	hash uint32 // a part of it, which spares a look at most of the others
	who  uint32 // one more than the place in people; zero: nobody
}

// Empty is a directory without people.
func Empty() *Directory { d, _ := New(nil); return d }

// SchemeID is the scheme under which everybody is found by identifier.
const SchemeID = "id"

// New indexes people. A second person with the same identifier, or one with a
// subject that another person has already, is left out as far as that goes, and
// named in the problems: a double extension must not stop the service.
func New(people []presence.Person) (d *Directory, problems []string) {
	subjects := len(people)
	for i := range people {
		subjects += len(people[i].Subjects)
	}
	d = &Directory{people: make([]record, 0, len(people)), table: make([]entry, subjects*4/3+1), seed: maphash.MakeSeed()}
	w := words{numbers: map[string]int{}}
	var own []presence.Subject
	for _, p := range byName(people) {
		self := presence.Subject{Scheme: SchemeID, Value: string(p.ID)}
		if p.ID == "" {
			problems = append(problems, fmt.Sprintf("a person named %q has no identifier", p.Name))
			continue
		}
		if _, taken := d.place(self); taken {
			problems = append(problems, fmt.Sprintf("two people have the identifier %q", p.ID))
			continue
		}
		own = append(own[:0], self)
		for _, s := range p.Subjects {
			s = Canonical(s)
			other, taken := d.place(s)
			switch {
			case slices.Contains(own, s):
			case taken:
				problems = append(problems, fmt.Sprintf("%s belongs to both %s and %s; the first keeps it", s, d.people[other].id(), p.ID))
			case s.Scheme == SchemeID:
				problems = append(problems, fmt.Sprintf("%s is no subject of %s; the scheme is that of identifiers", s, p.ID))
			default:
				own = append(own, s)
			}
		}
		d.people = append(d.people, w.pack(p, own[1:]))
		d.words = w.all
		for _, s := range own {
			d.enter(s)
		}
	}
	return d, problems
}

// byName gives people sorted by name, in whatever case, then identifier.
func byName(people []presence.Person) []*presence.Person {
	type named struct {
		name string
		p    *presence.Person
	}
	list := make([]named, len(people))
	for i := range people {
		list[i] = named{strings.ToLower(people[i].Name), &people[i]}
	}
	slices.SortStableFunc(list, func(a, b named) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.p.ID, b.p.ID))
	})
	sorted := make([]*presence.Person, len(people))
	for i, n := range list {
		sorted[i] = n.p
	}
	return sorted
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

// Len is how many people there are.
func (d *Directory) Len() int { return len(d.people) }

// All gives everybody, sorted by name. The texts of a person share their memory:
// who keeps one of them for long should clone it.
func (d *Directory) All() iter.Seq[presence.Person] {
	return func(yield func(presence.Person) bool) {
		for _, r := range d.people {
			if !yield(r.unpack(d.words)) {
				return
			}
		}
	}
}

// Has tells whether there is somebody with that identifier.
func (d *Directory) Has(id presence.ID) bool {
	_, ok := d.place(presence.Subject{Scheme: SchemeID, Value: string(id)})
	return ok
}

// Person finds somebody by identifier.
func (d *Directory) Person(id presence.ID) (presence.Person, bool) {
	place, ok := d.place(presence.Subject{Scheme: SchemeID, Value: string(id)})
	if !ok {
		return presence.Person{}, false
	}
	return d.people[place].unpack(d.words), true
}

// Find finds somebody by any subject, in any spelling that Canonical folds.
func (d *Directory) Find(s presence.Subject) (presence.Person, bool) {
	place, ok := d.find(s)
	if !ok {
		return presence.Person{}, false
	}
	return d.people[place].unpack(d.words), true
}

// Owner is Find for the identifier only; it does not allocate.
func (d *Directory) Owner(s presence.Subject) (presence.ID, bool) {
	place, ok := d.find(s)
	if !ok {
		return "", false
	}
	return d.people[place].id(), true
}

// Subjects gives all subjects of a scheme, sorted. They are collected at each call.
func (d *Directory) Subjects(scheme string) []presence.Subject {
	var all []presence.Subject
	for _, r := range d.people {
		for s := range r.subjects(d.words) {
			if s.Scheme == scheme {
				all = append(all, s)
			}
		}
	}
	slices.SortFunc(all, func(a, b presence.Subject) int { return strings.Compare(a.Value, b.Value) })
	return all
}

// Equal tells whether d and other say the same.
func (d *Directory) Equal(other *Directory) bool {
	return slices.Equal(d.people, other.people) && slices.Equal(d.words, other.words)
}

func (d *Directory) find(s presence.Subject) (place int, ok bool) {
	if place, ok = d.place(s); !ok {
		place, ok = d.place(Canonical(s))
	}
	return place, ok
}

// place finds a subject in the one spelling.
func (d *Directory) place(s presence.Subject) (place int, ok bool) {
	hash, i := d.slot(s)
	for ; d.table[i].who != 0; i = d.after(i) {
		if place = int(d.table[i].who - 1); d.table[i].hash == hash && d.people[place].has(s, d.words) {
			return place, true
		}
	}
	return 0, false
}

// enter puts a subject of the last person into the table, which has room.
func (d *Directory) enter(s presence.Subject) {
	hash, i := d.slot(s)
	for d.table[i].who != 0 {
		i = d.after(i)
	}
	d.table[i] = entry{hash, uint32(len(d.people))} //nolint:gosec // memory ends before
}

// slot is where the search for a subject begins.
func (d *Directory) slot(s presence.Subject) (hash uint32, i int) {
	h := maphash.Comparable(d.seed, s)
	slot, _ := bits.Mul64(h, uint64(len(d.table)))
	return uint32(h), int(slot) //nolint:gosec // the upper bits make the slot, the lower the hash
}

func (d *Directory) after(slot int) int {
	if slot++; slot < len(d.table) {
		return slot
	}
	return 0
}
