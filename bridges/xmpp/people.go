package xmpp

import (
	"presenced/aggregator/presence"
)

// people knows whose address is whose. Where two people come to the same
// address, the one with the smaller ID has it, so that a restart does not show
// watchers somebody else.
type people struct {
	host     string
	template template

	byID    map[presence.ID]*resident
	byLocal map[string]*resident
	without map[presence.ID]string // who has no address, and why
}

// A resident is a person with an address, or one whose address another has.
type resident struct {
	id    presence.ID
	local string
	state presence.State
}

// A showing is whose presence an address shows from now on.
type showing struct {
	local string
	who   *resident // nil: nobody's
}

func newPeople(host string, t template) *people {
	return &people{
		host: host, template: t,
		byID: map[presence.ID]*resident{}, byLocal: map[string]*resident{}, without: map[presence.ID]string{},
	}
}

// accept takes a state of somebody, who is p if known, and tells what addresses
// show another thing now: the person's, and after a move those left and taken.
func (p *people) accept(s presence.State, who presence.Person, known bool) []showing {
	var local string
	delete(p.without, s.Person)
	if known && s.Why.Rule != presence.RuleRemoved {
		var err error
		if local, err = p.template.mint(&who, p.host); err != nil {
			p.without[s.Person] = err.Error()
		}
	}
	var out []showing
	r := p.byID[s.Person]
	if r != nil && r.local != local {
		out = p.leave(r, out)
		r = nil
	}
	if local == "" {
		return out
	}
	if r == nil {
		r = &resident{id: s.Person, local: local}
		p.byID[s.Person] = r
	}
	r.state = s
	holder := p.byLocal[local]
	if holder != nil && holder.id < r.id {
		p.without[r.id] = "somebody else has the same address"
		return out
	}
	if holder != nil && holder != r {
		p.without[holder.id] = "somebody else has the same address"
	}
	p.byLocal[local] = r
	return append(out, showing{local, r})
}

// leave takes r out; who waited for the address gets it.
func (p *people) leave(r *resident, out []showing) []showing {
	delete(p.byID, r.id)
	if p.byLocal[r.local] != r {
		return out
	}
	delete(p.byLocal, r.local)
	var next *resident
	for _, other := range p.byID {
		if other.local == r.local && (next == nil || other.id < next.id) {
			next = other
		}
	}
	if next == nil {
		return append(out, showing{local: r.local})
	}
	delete(p.without, next.id)
	p.byLocal[next.local] = next
	return append(out, showing{next.local, next})
}
