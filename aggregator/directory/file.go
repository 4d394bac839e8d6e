package directory

import (
	"context"
	"fmt"

	"presenced/aggregator/presence"
	"presenced/internal/config"
)

// A File reads people from a YAML file: a key people, with a list of entries.
type File struct{ Path string }

type fileContent struct {
	People []filePerson `yaml:"people" doc:"The people."`
}

type filePerson struct {
	ID     string   `yaml:"id" doc:"Identifier of the person; it never changes."`
	Name   string   `yaml:"name" doc:"Name to show."`
	Groups []string `yaml:"groups" doc:"Groups to filter by."`
	Tel    []string `yaml:"tel" doc:"Extensions on Communication Manager."`
	Mail   []string `yaml:"mail" doc:"Primary SMTP addresses."`
	Notes  []string `yaml:"notes" doc:"Domino mail files, as SERVER!!FILE, such as Mail1/Acme!!mail/jdoe.nsf."`
	SIP    []string `yaml:"sip" doc:"SIP addresses without the scheme."`
	JID    []string `yaml:"jid" doc:"XMPP addresses."`
}

// Check implements config.Checker.
func (c *fileContent) Check() []config.Problem {
	var ps []config.Problem
	seen := map[string]bool{}
	for i, p := range c.People {
		at := fmt.Sprintf("people[%d]", i)
		if p.ID != "" && seen[p.ID] {
			ps = append(ps, config.Wrong(at+".id", "%q stands twice", p.ID))
		}
		seen[p.ID] = true
		if p.ID == "" {
			ps = append(ps, config.Wrong(at+".id", "every person needs an identifier"))
		}
		if p.Name == "" {
			ps = append(ps, config.Wrong(at+".name", "every person needs a name"))
		}
	}
	return ps
}

func (c *fileContent) people() []presence.Person {
	var people []presence.Person
	for _, e := range c.People {
		p := presence.Person{ID: presence.ID(e.ID), Name: e.Name, Groups: e.Groups}
		for _, list := range []struct {
			scheme string
			values []string
		}{{"tel", e.Tel}, {"mail", e.Mail}, {"notes", e.Notes}, {"sip", e.SIP}, {"jid", e.JID}} {
			for _, v := range list.values {
				p.Subjects = append(p.Subjects, presence.Subject{Scheme: list.scheme, Value: v})
			}
		}
		people = append(people, p)
	}
	return people
}

// ParseFile reads people from data; name stands in the errors, which are of
// type *config.Error.
func ParseFile(name string, data []byte) ([]presence.Person, error) {
	var c fileContent
	if err := config.Parse(name, data, &c); err != nil {
		return nil, err
	}
	return c.people(), nil
}

// Read implements Reader.
func (f File) Read(context.Context) (Reading, error) {
	var c fileContent
	if err := config.Load(f.Path, &c); err != nil {
		return Reading{}, err
	}
	return Reading{People: c.people(), Complete: true}, nil
}

func (f File) String() string { return f.Path }
