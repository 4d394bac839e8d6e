package access

import (
	"fmt"
	"slices"
	"strings"

	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

// The terms are what holds without any rule.
type terms struct {
	level    presence.Level
	calendar presence.CalendarPrivacy
	optIn    bool
	unknown  bool

	openUnread bool // what was set and cannot be read does not count, instead of hiding everybody
}

// A folk is everything that was set, of everybody and of each person. It never
// changes: a change makes another one. nil: it could not be read yet.
type folk struct {
	everybody *record
	people    map[presence.ID]*record
}

// with gives a copy of f in which r is what was set of a person, or of everybody.
// nil: nothing is.
func (f *folk) with(of presence.ID, r *record) *folk {
	if of == "" {
		if r == nil {
			r = &record{}
		}
		return &folk{r, f.people}
	}
	people := make(map[presence.ID]*record, len(f.people)+1)
	for id, other := range f.people {
		if id != of {
			people[id] = other
		}
	}
	if r != nil {
		people[of] = r
	}
	return &folk{f.everybody, people}
}

// of gives what was set of a person, or of everybody; nil: nothing.
func (f *folk) of(id presence.ID) *record {
	if id == "" {
		return f.everybody
	}
	return f.people[id]
}

// A seeker is a watcher as rules see it.
type seeker struct {
	subject presence.Subject // canonical
	known   bool             // in the directory
	person  presence.Person
}

// rules gives the rules of one kind, of one record, that are for s: the one that
// shows least first. It decides, so that a rule that takes away is never undone by
// another one that happens to name the watcher too.
func (s *seeker) rules(kind Kind, r *record, buf []*Rule) []*Rule {
	if r == nil || r.kinds[kind] == 0 {
		return nil
	}
	buf = buf[:0]
	add := func(name string) {
		if rule := r.rules[Audience{kind, name}]; rule != nil && !slices.Contains(buf, rule) {
			buf = append(buf, rule)
		}
	}
	switch kind {
	case ForWatcher:
		add(s.subject.String())
		if s.known {
			add(directory.SchemeID + ":" + string(s.person.ID))
		}
	case ForGroup:
		for _, g := range s.person.Groups {
			add(fold(g))
		}
	case ForDomain:
		if d := domain(s.subject); d != "" {
			add(d)
		}
	default:
		add("")
	}
	slices.SortFunc(buf, least)
	return buf
}

// decide gives the first rule that is for s; nil: there is none. Where passed is
// not nil it is called with every rule that is for s, the one that decides first.
func (f *folk) decide(s *seeker, of *record, passed func(*Rule)) *Rule {
	var room [8]*Rule
	var first *Rule
	for kind := range kindCount {
		for _, r := range [...]*record{of, f.everybody} {
			rules := s.rules(kind, r, room[:0])
			if len(rules) == 0 {
				continue
			}
			if passed == nil {
				return rules[0]
			}
			if first == nil {
				first = rules[0]
			}
			for _, rule := range rules {
				passed(rule)
			}
		}
	}
	return first
}

// resolve gives what the watcher may see of a person. find gives the person whom
// a subject belongs to.
func (f *folk) resolve(t *terms, find func(presence.Subject) (presence.Person, bool), subject presence.Subject, of presence.ID) presence.Access {
	var own *record
	if f == nil && t.openUnread {
		f = &folk{everybody: &record{}}
	}
	if f != nil {
		own = f.people[of]
		if own == nil && !t.optIn && f.everybody.plain() && t.level == presence.LevelFull && t.calendar == presence.CalendarOpen {
			return presence.Everyone() // to the person, too
		}
	}
	s := seeker{subject: canonical(subject)}
	s.person, s.known = find(s.subject)
	a, _ := f.grant(t, &s, own, of, nil)
	return a
}

// A ground is why an access is what it is, where no rule decided.
type ground string

const (
	groundSelf    ground = "a person sees all of themselves"
	groundUnread  ground = "the rules cannot be read yet, so nobody is shown"
	groundBroken  ground = "what was set cannot be read, so nobody is shown it; \"presenced access forget\" removes it"
	groundOptIn   ground = "the person has not opted in (access.opt_in)"
	groundDefault ground = "no rule is for this watcher (access.default)"
)

// grant gives what s may see of a person, and why; empty: by the rule that decides.
func (f *folk) grant(t *terms, s *seeker, own *record, of presence.ID, passed func(*Rule)) (presence.Access, ground) {
	hidden := presence.Access{Unknown: true} // not as a block: it says that something is wrong
	switch {
	case s.known && s.person.ID == of:
		return presence.Everyone(), groundSelf
	case f == nil:
		return hidden, groundUnread
	case f.everybody.broken || own != nil && own.broken:
		return hidden, groundBroken
	case t.optIn && (own == nil || !own.OptedIn):
		return presence.Access{Unknown: t.unknown}, groundOptIn
	}
	a, why := presence.Access{Level: t.level}, groundDefault
	if rule := f.decide(s, own, passed); rule != nil {
		a.Level, a.Urgent, why = rule.Level, rule.Urgent, ""
	}
	switch {
	case !a.Shows():
		return presence.Access{Level: a.Level, Unknown: t.unknown}, why
	case a.Level == presence.LevelTelephony:
		a.Urgent = false // which shows nothing at this level
	case a.Level == presence.LevelFull:
		a.Calendar = t.calendar
		if own != nil && own.Calendar != nil {
			a.Calendar = *own.Calendar
		}
	}
	return a, why
}

// An Explanation says why a watcher sees what.
type Explanation struct {
	Watcher  string                   `json:"watcher"`
	Person   presence.ID              `json:"person"`
	Who      presence.ID              `json:"who,omitempty"` // the watcher, where the directory knows them
	Level    presence.Level           `json:"level"`
	Calendar presence.CalendarPrivacy `json:"calendar"` // counts at level full
	Urgent   bool                     `json:"urgent,omitempty"`
	Decides  string                   `json:"decides"`
	Beats    []string                 `json:"beats,omitempty"` // rules that are for the watcher too, and do not decide
}

// Text gives the explanation for people, some lines.
func (e *Explanation) Text() string {
	var b strings.Builder
	who := e.Watcher
	if e.Who != "" && who != directory.SchemeID+":"+string(e.Who) {
		who += " (" + string(e.Who) + ")"
	}
	fmt.Fprintf(&b, "%s sees of %s: %s", who, e.Person, e.Level)
	if e.Urgent {
		b.WriteString(", urgent")
	}
	if e.Level == presence.LevelFull {
		fmt.Fprintf(&b, ", calendar %s", e.Calendar)
	}
	fmt.Fprintf(&b, "\n  because %s\n", e.Decides)
	for _, beaten := range e.Beats {
		fmt.Fprintf(&b, "  not by %s\n", beaten)
	}
	return b.String()
}

// explain gives the reasoning of resolve.
func (f *folk) explain(t *terms, find func(presence.Subject) (presence.Person, bool), subject presence.Subject, of presence.ID) Explanation {
	s := seeker{subject: canonical(subject)}
	s.person, s.known = find(s.subject)
	var own *record
	if f != nil {
		own = f.people[of]
	}
	var all []string
	a, why := f.grant(t, &s, own, of, func(r *Rule) { all = append(all, r.String()) })
	e := Explanation{Watcher: s.subject.String(), Person: of, Level: a.Level, Calendar: a.Calendar, Urgent: a.Urgent, Decides: string(why), Beats: all}
	if s.known {
		e.Who = s.person.ID
	}
	if why == "" {
		e.Decides, e.Beats = all[0], all[1:]
	}
	return e
}
