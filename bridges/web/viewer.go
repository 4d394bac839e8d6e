package web

import (
	"net/http"

	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// A viewer is who looks at a page, as far as what they see depends on it. It is
// comparable.
type viewer struct {
	watcher presence.Watcher // as whom the gate knows them
	self    presence.ID      // who they are in the directory; empty: nobody there
	all     bool             // sees everybody as they see themselves
}

// schemeAnyone is the scheme of who did not sign in, web:anyone.
const schemeAnyone = "web"

// viewer gives who looks. Somebody in the directory is the watcher of their mail
// address, so that rules for a domain are for them too; who is not is named after the
// account, and who did not sign in is web:anyone.
func (s *Site) viewer(r *http.Request) viewer { return s.viewerOf(signin.From(r.Context())) }

func (s *Site) viewerOf(who signin.Identity) viewer {
	v := viewer{watcher: presence.Watcher{Subject: presence.Subject{Scheme: schemeAnyone, Value: "anyone"}, Via: "web"}, all: who.May(signin.ReadAll)}
	if who.Account == "" {
		return v
	}
	v.watcher.Subject = presence.Subject{Scheme: "account", Value: who.Account}
	p, ok := s.person(who.Person)
	if who.Person == "" || !ok {
		return v
	}
	v.self, v.watcher.Subject = p.ID, presence.Subject{Scheme: directory.SchemeID, Value: string(p.ID)}
	for _, subject := range p.Subjects {
		if subject.Scheme == "mail" {
			v.watcher.Subject = subject
			break
		}
	}
	return v
}

// access gives what v may see of a person.
func (s *Site) access(v viewer, id presence.ID) presence.Access {
	if v.all || v.self != "" && v.self == id {
		own := presence.Everyone()
		own.Own = true
		return own
	}
	return s.gate.Access(v.watcher, id)
}

// see gives what v sees of a person.
func (s *Site) see(v viewer, p presence.Person, st presence.State) member {
	a := s.access(v, p.ID)
	return member{p, a, visible(st, a)}
}

// A gaze is somebody who has the page of a person before them.
type gaze struct {
	watcher presence.Watcher
	of      presence.ID
}

// watch says that v watches a person, until leave is called: they are among who
// watches, and among who asks to where they have to. Who sees everybody asks nobody,
// and who did not sign in is nobody that could be let in.
func (s *Site) watch(v viewer, of presence.ID) (leave func()) {
	if _, known := s.person(of); !known || v.all || v.self == of || v.watcher.Subject.Scheme == schemeAnyone {
		return func() {}
	}
	g := gaze{v.watcher, of}
	s.gazing.Lock()
	defer s.gazing.Unlock()
	s.gazes[g]++
	s.gate.Admit(g.watcher, of)
	return func() {
		s.gazing.Lock()
		defer s.gazing.Unlock()
		if s.gazes[g]--; s.gazes[g] == 0 {
			delete(s.gazes, g)
			s.gate.Dismiss(g.watcher, of)
		}
	}
}
