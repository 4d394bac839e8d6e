package outbox

import (
	"slices"
	"strings"
	"time"

	"presenced/aggregator/presence"
	"presenced/internal/config"
)

// GroupPrefix is what stands before the name of a group in a list of people.
const GroupPrefix = "group:"

// CheckPeople tells what is wrong with a list of identifiers and group:NAME.
func CheckPeople(key string, people []string) []config.Problem {
	for _, p := range people {
		if group, ok := strings.CutPrefix(p, GroupPrefix); strings.TrimSpace(p) == "" || ok && strings.TrimSpace(group) == "" {
			return []config.Problem{config.Wrong(key, "%.100q is neither the identifier of a person nor group:NAME", p)}
		}
	}
	return nil
}

// An Audience says who is given to a receiver, and what of them: those of a list
// whom the gate shows to it.
type Audience struct {
	people   map[string]bool // identifiers, and group:NAME; empty: everybody
	gate     presence.Gate
	watcher  presence.Watcher
	admitted map[presence.ID]bool
}

// NewAudience makes one of a list that passed CheckPeople. The gate is asked about
// the watcher SCHEME:NAME, where name is that of the bridge.
func NewAudience(people []string, gate presence.Gate, scheme, name string) *Audience {
	a := &Audience{
		people: map[string]bool{}, gate: gate, admitted: map[presence.ID]bool{},
		watcher: presence.Watcher{Subject: presence.Subject{Scheme: scheme, Value: name}, Via: name},
	}
	for _, p := range people {
		a.people[p] = true
	}
	return a
}

// Wants tells whether the list has that person.
func (a *Audience) Wants(p *presence.Person) bool {
	return len(a.people) == 0 || a.people[string(p.ID)] ||
		slices.ContainsFunc(p.Groups, func(g string) bool { return a.people[GroupPrefix+g] })
}

// Document gives what the receiver is to know of the person of s, which came from
// hub; nil: nothing, because they left, are not in the list, or are not shown to it.
func (a *Audience) Document(hub presence.Hub, s presence.State) []byte {
	p, known := hub.Person(presence.Subject{Scheme: "id", Value: string(s.Person)})
	if s.Why.Rule == presence.RuleRemoved || !known || !a.Wants(&p) {
		a.dismiss(s.Person)
		return nil
	}
	a.admitted[s.Person] = true
	access := a.gate.Admit(a.watcher, s.Person)
	if !access.Shows() {
		return nil
	}
	seen := presence.View(s, access)
	d := NewDocument(p.Name, &seen)
	return d.JSON()
}

// Withdraw takes back everybody in the box who left, is not in the list, or is not
// shown any more, of whom no state may come.
func (a *Audience) Withdraw(hub presence.Hub, b *Box, now time.Time) {
	for _, id := range b.People() {
		if !a.Has(hub, id) {
			b.Set(id, nil, now)
		}
	}
}

// Has tells whether the person is there, in the list, and shown.
func (a *Audience) Has(hub presence.Hub, id presence.ID) bool {
	p, known := hub.Person(presence.Subject{Scheme: "id", Value: string(id)})
	return known && a.Wants(&p) && a.gate.Access(a.watcher, id).Shows()
}

// Close says that the receiver watches nobody any more.
func (a *Audience) Close() {
	for id := range a.admitted {
		a.gate.Dismiss(a.watcher, id)
	}
	clear(a.admitted)
}

func (a *Audience) dismiss(id presence.ID) {
	if a.admitted[id] {
		a.gate.Dismiss(a.watcher, id)
		delete(a.admitted, id)
	}
}
