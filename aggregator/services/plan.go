package services

import (
	"fmt"
	"slices"
	"strings"

	"presenced/aggregator/presence"
)

// A Change is what becomes of the data of people at the server of a service.
// The lists are sorted; nobody stands in two of them.
type Change struct {
	Before  int           `json:"before"` // how many are published there
	After   int           `json:"after"`
	Added   []presence.ID `json:"added,omitempty"`
	Removed []presence.ID `json:"removed,omitempty"`
	Changed []presence.ID `json:"changed,omitempty"` // stay, and their data are overwritten

	// Unknown is what the user list names and nobody in the directory is.
	Unknown []string `json:"unknown,omitempty"`
}

// Plan tells what becomes of people when a service is edited; nil means that there
// is none, before (it is added) or after (it is deleted). It is pure. Whether the
// access rules show anything of a person is not looked at.
func Plan(before, after *Service, people []presence.Person) Change {
	var c Change
	was, is := entities(before, people), entities(after, people)
	c.Before, c.After = len(was), len(is)
	overwritten := before != nil && after != nil && (before.Primary.Address() != after.Primary.Address() ||
		before.User != after.User || before.PasswordFile != after.PasswordFile || before.words() != after.words())
	for id, entity := range is {
		switch old, there := was[id]; {
		case !there:
			c.Added = append(c.Added, id)
		case overwritten || old != entity:
			c.Changed = append(c.Changed, id)
		}
	}
	for id := range was {
		if _, stays := is[id]; !stays {
			c.Removed = append(c.Removed, id)
		}
	}
	slices.Sort(c.Added)
	slices.Sort(c.Removed)
	slices.Sort(c.Changed)
	c.Unknown = unknown(after, people)
	return c
}

// words gives what changes every document.
func (s *Service) words() [6]any {
	return [...]any{s.Body, s.BusyBasic, s.OutOfOffice, s.DisplayName, s.Microsoft, s.Cisco}
}

// entities gives the address of everybody who is published, by identifier.
func entities(s *Service, people []presence.Person) map[presence.ID]string {
	out := map[presence.ID]string{}
	if s == nil {
		return out
	}
	covers := s.Covers()
	for i := range people {
		if p := &people[i]; covers(p) {
			if entity := s.EntityOf(p); entity != "" {
				out[p.ID] = entity
			}
		}
	}
	return out
}

// Count gives how many of people are published.
func (s *Service) Count(people []presence.Person) int {
	n, covers, schemes := 0, s.Covers(), placeholder.FindAllString(s.Entity, -1)
	for i := range people {
		p := &people[i]
		if covers(p) && !slices.ContainsFunc(schemes, func(name string) bool { return p.Address(strings.Trim(name, "{}")) == "" }) {
			n++
		}
	}
	return n
}

// EntityOf gives the address under which a person is published; empty: they are not,
// because a subject is missing. Whether the user list names them is not looked at.
func (s *Service) EntityOf(p *presence.Person) string {
	missing := false
	entity := placeholder.ReplaceAllStringFunc(s.Entity, func(name string) string {
		value := p.Address(strings.Trim(name, "{}"))
		missing = missing || value == ""
		return value
	})
	if missing {
		return ""
	}
	return entity
}

func unknown(s *Service, people []presence.Person) []string {
	if s == nil || slices.Contains(s.Users, Everyone) {
		return nil
	}
	known := map[string]bool{}
	for _, p := range people {
		known[string(p.ID)] = true
		for _, g := range p.Groups {
			known[GroupPrefix+g] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(s.Users), func(u string) bool { return known[u] })
}

// Excess tells why c is not to be made without being forced: it removes more than
// share percent of those who were published before. Empty: it does not.
func (c *Change) Excess(share int) string {
	if len(c.Removed)*100 <= share*c.Before {
		return ""
	}
	return fmt.Sprintf("%d of %d people would be removed, more than max_removed (%d percent) allows; --force does it all the same",
		len(c.Removed), c.Before, share)
}

// String gives the numbers.
func (c *Change) String() string {
	return fmt.Sprintf("%d people published before, %d after: %d added, %d removed, %d changed", c.Before, c.After, len(c.Added), len(c.Removed), len(c.Changed))
}
