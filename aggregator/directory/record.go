package directory

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"

	"presenced/aggregator/presence"
)

// A record is a person in one text: the identifier, the name, the number of groups
// and each by its number among the words, then for each subject the number of its
// scheme and the value. A text stands behind its length. All numbers are uvarints.
type record string

// Words gives numbers to texts that many people have.
type words struct {
	all     []string
	numbers map[string]int
}

func (w *words) number(text string) uint64 {
	n, known := w.numbers[text]
	if !known {
		text = strings.Clone(text)
		n = len(w.all)
		w.all = append(w.all, text)
		w.numbers[text] = n
	}
	return uint64(n) //nolint:gosec // not negative
}

// pack makes a record of p with these subjects instead of its own.
func (w *words) pack(p *presence.Person, subjects []presence.Subject) record {
	var buf [512]byte
	b := appendText(buf[:0], string(p.ID))
	b = appendText(b, p.Name)
	b = binary.AppendUvarint(b, uint64(len(p.Groups)))
	for _, g := range p.Groups {
		b = binary.AppendUvarint(b, w.number(g))
	}
	for _, s := range subjects {
		b = binary.AppendUvarint(b, w.number(s.Scheme))
		b = appendText(b, s.Value)
	}
	return record(b)
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func (r record) id() presence.ID {
	id, _ := r.text()
	return presence.ID(id)
}

func (r record) unpack(words []string) presence.Person {
	id, rest := r.text()
	name, rest := rest.text()
	p := presence.Person{ID: presence.ID(id), Name: name}
	n, rest := rest.number()
	if n > 0 {
		p.Groups = make([]string, n)
	}
	for i := range p.Groups {
		n, rest = rest.number()
		p.Groups[i] = words[n]
	}
	var buf [8]presence.Subject
	subjects := slices.AppendSeq(buf[:0], r.subjects(words))
	p.Subjects = append(p.Subjects, subjects...)
	return p
}

// has tells whether s is a subject of the person, or the identifier.
func (r record) has(s presence.Subject, words []string) bool {
	if s.Scheme == SchemeID {
		return string(r.id()) == s.Value
	}
	for own := range r.subjects(words) {
		if own == s {
			return true
		}
	}
	return false
}

func (r record) subjects(words []string) iter.Seq[presence.Subject] {
	return func(yield func(presence.Subject) bool) {
		_, rest := r.text() // the identifier
		_, rest = rest.text()
		groups, rest := rest.number()
		for range groups {
			_, rest = rest.number()
		}
		for rest != "" {
			var scheme int
			var value string
			scheme, rest = rest.number()
			value, rest = rest.text()
			if !yield(presence.Subject{Scheme: words[scheme], Value: value}) {
				return
			}
		}
	}
}

// text takes the text at the beginning of r.
func (r record) text() (text string, rest record) {
	n, rest := r.number()
	return string(rest[:n]), rest[n:]
}

// number takes the number at the beginning of r.
func (r record) number() (n int, rest record) {
	for shift := 0; ; shift += 7 {
		b := r[0]
		r = r[1:]
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			return n, r
		}
	}
}
