package web

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// Access is who sees what, as a person administers it of themselves, and an administrator
// of everybody; an access.Gate is one, and says what its methods do.
type Access interface {
	Config() access.Config
	Settings() ([]access.Setting, error)
	Setting(of presence.ID) (access.Setting, error)
	Watchers(of presence.ID) []access.Watching
	Pending(of presence.ID) []access.Pending
	Explain(watcher presence.Subject, of presence.ID) access.Explanation

	Set(ctx context.Context, by audit.Actor, rule access.Rule) error
	Clear(ctx context.Context, by audit.Actor, of presence.ID, audience access.Audience) error
	Allow(ctx context.Context, by audit.Actor, of presence.ID, watcher presence.Subject, level presence.Level) error
	Deny(ctx context.Context, by audit.Actor, of presence.ID, watcher presence.Subject) error
	SetCalendar(ctx context.Context, by audit.Actor, of presence.ID, p presence.CalendarPrivacy) error
	OptIn(ctx context.Context, by audit.Actor, of presence.ID, in bool) error
	Forget(ctx context.Context, by audit.Actor, of presence.ID) error
}

func (s *Site) meRoutes(mux *http.ServeMux) {
	if s.parts.SignIn == nil {
		return
	}
	s.offer(place{Section: everyone, Href: "/me", Icon: "me", Text: "My presence", Page: "me", Needs: signin.WriteOwn})
	mux.Handle("GET /me", s.require(signin.WriteOwn, func(w http.ResponseWriter, r *http.Request) { s.showMe(w, r, http.StatusOK, "") }))
	if s.parts.Access != nil {
		mux.Handle("POST /me/rules", s.own(s.setRule))
		mux.Handle("POST /me/privacy", s.own(s.setPrivacy))
		mux.Handle("POST /me/shown", s.own(s.setShown))
	}
}

// own makes a handler of a change that somebody makes of themselves: it gives what was
// done in words.
func (s *Site) own(change func(r *http.Request, self presence.ID) (told string, err error)) http.Handler {
	return s.require(signin.WriteOwn, func(w http.ResponseWriter, r *http.Request) {
		self := signin.From(r.Context()).Person
		if self == "" {
			s.refused(w, r, "Your account is nobody in the directory, so nobody watches you.")
			return
		}
		if !s.readForm(w, r) {
			return
		}
		told, err := change(r, self)
		if err != nil {
			code, text := s.unchanged(r, err)
			s.showMe(w, r, code, text)
			return
		}
		s.done(w, r, "/me", told)
	})
}

// clearRule stands for no rule where a form names a level.
const clearRule = "clear"

func (s *Site) setRule(r *http.Request, self presence.ID) (string, error) {
	by, form := s.actor(r), r.PostForm
	audience := access.Audience{Name: form.Get("name")}
	if err := audience.Kind.UnmarshalText([]byte(form.Get("kind"))); err != nil {
		return "", fmt.Errorf("%w whom the rule is for: %w", errChoice, err)
	}
	if audience.Kind == access.ForDefault {
		audience.Name = ""
	}
	whom := s.nameOf(audience)
	if form.Get("level") == clearRule {
		return "The rule is gone: " + whom + ".", s.parts.Access.Clear(r.Context(), by, self, audience)
	}
	var level presence.Level
	if err := level.UnmarshalText([]byte(form.Get("level"))); err != nil {
		return "", fmt.Errorf("%w what they see: %w", errChoice, err)
	}
	told := whom + " now sees: " + lowered(levelWords(level)) + "."
	if audience.Kind != access.ForWatcher {
		return told, s.parts.Access.Set(r.Context(), by, access.Rule{Of: self, For: audience, Level: level})
	}
	watcher, err := access.ParseWatcher(audience.Name)
	switch {
	case err != nil:
		return "", err
	case level == presence.LevelBlock:
		return told, s.parts.Access.Deny(r.Context(), by, self, watcher)
	case (presence.Access{Level: level}).Shows():
		return told, s.parts.Access.Allow(r.Context(), by, self, watcher, level)
	default:
		return told, s.parts.Access.Set(r.Context(), by, access.Rule{Of: self, For: audience, Level: level})
	}
}

func (s *Site) setPrivacy(r *http.Request, self presence.ID) (string, error) {
	var p presence.CalendarPrivacy
	if err := p.UnmarshalText([]byte(r.PostForm.Get("calendar"))); err != nil {
		return "", fmt.Errorf("%w what others see: %w", errChoice, err)
	}
	return "Your calendar, to others: " + lowered(privacyWords(p)) + ".", s.parts.Access.SetCalendar(r.Context(), s.actor(r), self, p)
}

func (s *Site) setShown(r *http.Request, self presence.ID) (string, error) {
	in := r.PostForm.Get("shown") == "yes"
	told := "Nobody sees you now."
	if in {
		told = "You are shown, as your rules say."
	}
	return told, s.parts.Access.OptIn(r.Context(), s.actor(r), self, in)
}

// A meView is the body of the page of who signed in.
type meView struct {
	Name, Role string
	Known      bool // they are somebody in the directory
	Say, Who   string
	Look       look
	Since      moment
	Day        string // the address of their own page
	Hand       *handView
	Watchers   *watchersView
	Pending    *watchersView
	Rules      *rulesView
	Mine       template.HTML // sessions and tokens
}

// A watchersView is a list of those who watch, or ask to.
type watchersView struct {
	ID, Title, Count, None, Foot string
	Mine                         bool // who looks may let in and block
	All                          []watcherView
}

type watcherView struct {
	Name, Via, Icon string
	Watcher         string // as a rule names them; empty: none can
	Since           moment
	Sees, Class     string
	Verbs           []verb
}

// A verb is a button; S is its class.
type verb struct{ Value, Short, Text, S string }

// A rulesView is what somebody set of who sees them.
type rulesView struct {
	Rules    []ownRule
	Levels   []choice
	Privacy  []privacyChoice
	OptIn    bool // it takes an opt-in to be shown
	OptedIn  bool
	Problem  string
	Calendar bool // something was chosen
}

type ownRule struct {
	Kind, Name, Whom string // Whom is for people
	Sees, Class      string
	At               moment
}

type privacyChoice struct {
	Value, Title, Text string
	Chosen             bool
}

// showMe shows the page of who signed in, and above it why nothing has changed, if
// that is so.
func (s *Site) showMe(w http.ResponseWriter, r *http.Request, code int, bad string) {
	who, now := signin.From(r.Context()), time.Now()
	watch := url.Values{"rows": {"none"}}
	if who.Person != "" {
		watch = url.Values{"id": {string(who.Person)}}
	}
	p := s.newPage(r, "me", "My presence", watch)
	p.Bad = bad
	v := &meView{Name: who.Name, Role: who.Role.String(), Look: look{S: presence.Unknown.String()}}
	if person, ok := s.person(who.Person); ok && who.Person != "" {
		v.Known, v.Name, v.Day = true, person.Name, personPath(person.ID)
		if e, ok := s.explain(s.viewer(r), person.ID, time.Time{}); ok {
			v.Look, v.Say, v.Since = lookOf(&e.State), sayOf(&e.State), momentOf(e.State.Since, now, s.zone)
			v.Who = strings.Join(person.Groups, ", ")
			if v.Hand = s.handOf(r, &person, e.Facts, now); v.Hand != nil {
				v.Hand.Back = "me"
			}
		}
		v.Watchers = s.watchersOf(r, person.ID, now)
		v.Pending, v.Rules = s.pendingOf(person.ID, now), s.rulesOf(person.ID, now)
	}
	mine, err := s.parts.SignIn.Fragment(r.Context())
	if err != nil {
		s.log.ErrorContext(r.Context(), "sessions and tokens cannot be shown", "error", err)
	}
	v.Mine = mine
	p.Body = v
	s.show(w, r, code, &p)
}

// watchersOf gives who watches a person, to the person, and to who sees everybody; nil:
// that is not for who asks.
func (s *Site) watchersOf(r *http.Request, of presence.ID, now time.Time) *watchersView {
	who := signin.From(r.Context())
	own := who.Person == of && who.May(signin.WriteOwn)
	if s.parts.Access == nil || !own && !who.May(signin.ReadAll) {
		return nil
	}
	v := &watchersView{ID: "watchers", Title: "Who watches", None: "Nobody watches just now.", Mine: own}
	if own {
		v.Title, v.Foot = "Who watches me", "Blocking is polite: they see you offline, without times."
	}
	for _, w := range s.parts.Access.Watchers(of) {
		if own && w.Level == presence.LevelConfirm { // they are among those who wait
			continue
		}
		one := s.watcherOf(w.Watcher, w.Via)
		one.Since = momentOf(w.Since, now, s.zone)
		one.Sees, one.Class = levelTag(w.Level)
		if w.Level != presence.LevelFull {
			one.Verbs = append(one.Verbs, verb{"full", "Full", "Let " + one.Name + " see all that is not private", ""})
		}
		if w.Level != presence.LevelStatus {
			one.Verbs = append(one.Verbs, verb{"status", "State only", "Let " + one.Name + " see the state only", ""})
		}
		if w.Level != presence.LevelBlock {
			one.Verbs = append(one.Verbs, verb{"block", "Block", "Block " + one.Name, "quiet"})
		}
		v.All = append(v.All, one)
	}
	v.Count = number(len(v.All)) + " now"
	return v
}

// pendingOf gives who waits for a person; nil: nobody does.
func (s *Site) pendingOf(of presence.ID, now time.Time) *watchersView {
	if s.parts.Access == nil {
		return nil
	}
	v := &watchersView{ID: "waiting", Title: "Asking to watch me", Mine: true, Foot: "They see you offline until you decide."}
	for _, w := range s.parts.Access.Pending(of) {
		one := s.watcherOf(w.Watcher.String(), w.Via)
		one.Since, one.Sees, one.Class = momentOf(w.Since, now, s.zone), "Waiting", "warn"
		one.Verbs = []verb{
			{"full", "Allow", "Allow " + one.Name, "primary"},
			{"status", "State only", "Let " + one.Name + " see the state only", ""},
			{"block", "Block", "Block " + one.Name, "quiet"},
		}
		v.All = append(v.All, one)
	}
	if len(v.All) == 0 {
		return nil
	}
	v.Count = number(len(v.All)) + " waiting"
	return v
}

// watcherOf names a watcher for people.
func (s *Site) watcherOf(text, via string) watcherView {
	v := watcherView{Name: text, Via: via, Icon: "me"}
	subject, err := access.ParseWatcher(text)
	if err != nil { // a name that no rule can have
		return v
	}
	v.Watcher = subject.String()
	if subject.Scheme == "service" {
		v.Icon = "presence"
	}
	if p, ok := s.desk.Person(subject); ok {
		v.Name = p.Name
		v.Via = bare(v.Watcher) + ", " + via
	}
	return v
}

// nameOf names an audience for people.
func (s *Site) nameOf(a access.Audience) string {
	switch a.Kind {
	case access.ForWatcher:
		return s.watcherOf(a.Name, "").Name
	case access.ForGroup:
		return "The group " + a.Name
	case access.ForDomain:
		return "Everybody at " + a.Name
	default:
		return "Everybody else"
	}
}

func (s *Site) rulesOf(of presence.ID, now time.Time) *rulesView {
	if s.parts.Access == nil {
		return nil
	}
	set, err := s.parts.Access.Setting(of)
	v := &rulesView{OptIn: s.parts.OptIn, OptedIn: set.OptedIn, Calendar: set.Calendar != nil}
	switch {
	case err != nil:
		v.Problem = "The rules cannot be read yet, so nobody sees you. Try again in a minute."
		return v
	case set.Broken:
		v.Problem = "What you set cannot be read, so nobody sees you. An administrator can remove it."
		return v
	}
	for _, rule := range set.Rules {
		one := ownRule{Kind: rule.For.Kind.String(), Name: rule.For.Name, Whom: s.nameOf(rule.For), At: momentOf(rule.At, now, s.zone)}
		if one.Sees, one.Class = levelTag(rule.Level); rule.Level == presence.LevelConfirm {
			one.Sees = "Has to ask"
		}
		v.Rules = append(v.Rules, one)
	}
	for _, l := range []presence.Level{presence.LevelFull, presence.LevelStatus, presence.LevelTelephony, presence.LevelConfirm, presence.LevelBlock} {
		v.Levels = append(v.Levels, choice{Value: l.String(), Text: levelWords(l)})
	}
	for _, p := range []struct {
		presence.CalendarPrivacy

		text string
	}{
		{presence.CalendarOpen, "Private entries never show what they are"},
		{presence.CalendarTimes, "When you are busy, not with what"},
		{presence.CalendarHidden, "You are busy in a meeting, and nothing says why or until when"},
	} {
		v.Privacy = append(v.Privacy, privacyChoice{p.String(), privacyWords(p.CalendarPrivacy), p.text, set.Calendar != nil && *set.Calendar == p.CalendarPrivacy})
	}
	return v
}

// levelWords says what a level shows.
func levelWords(l presence.Level) string {
	switch l {
	case presence.LevelFull:
		return "All that is not private"
	case presence.LevelStatus:
		return "The state only"
	case presence.LevelTelephony:
		return "The phone only"
	case presence.LevelConfirm:
		return "Nothing, until you decide"
	default:
		return "Nothing, and you as offline"
	}
}

// levelTag is a level in a word or two, and the class of the tag.
func levelTag(l presence.Level) (text, class string) {
	switch l {
	case presence.LevelFull:
		return "Full", "ok"
	case presence.LevelStatus:
		return "State only", ""
	case presence.LevelTelephony:
		return "Phone only", ""
	case presence.LevelConfirm:
		return "Waiting", "warn"
	default:
		return "Blocked", "bad"
	}
}

func privacyWords(p presence.CalendarPrivacy) string {
	switch p {
	case presence.CalendarOpen:
		return "Show what kind of entry it is"
	case presence.CalendarTimes:
		return "Show times only"
	default:
		return "Do not show it"
	}
}
