package web

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"presenced/aggregator/access"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// An accessView is the body of the page of the access rules.
type accessView struct {
	Lead    string
	OptIn   string // how many opted in, where one has to
	Unread  string // why the rules are not known
	Waiting []waitingView
	More    string // of those who wait

	Text  string // what was searched for
	Of    string // the person whose rules alone are shown
	Every bool   // the rules for everybody alone are shown
	Rules []accessRule
	Range string

	One *personAccess

	Form   ruleForm
	Levels []choice

	Test testView
}

type waitingView struct {
	Of, Person, Path string
	Watcher, Name    string // Name: of the watcher, where the directory knows them
	Via              string
	Since            moment
}

type accessRule struct {
	Of, Person, Path string // empty: everybody
	Kind, Name, Who  string // Who: the audience in words
	Level, Sees      string
	Urgent           bool
	By               string
	At               moment
	Edit             string // the address of the page with this rule in the form
	Tag              string // what is wrong with all that was set of this person
	OptedIn          bool
	Calendar         string
	Plain            bool // there is no rule here: the row tells what else was set
}

// personAccess is what was set of one person, and can be.
type personAccess struct {
	ID, Name, Path string
	Everybody      bool
	Calendar       []choice
	OptIn, OptedIn bool
	Broken, Left   bool
	Set            bool // there is something to forget
}

type ruleForm struct {
	Of, Name string
	Kinds    []choice
	Levels   []choice
	Urgent   bool
	Wrong    map[string]string // by field
	Change   bool
}

type testView struct {
	Watcher, Person  string
	WrongWatcher     string
	WrongPerson      string
	Asked            bool
	Sees, Why        string
	Beats            []string
	WatcherIs, OfWho string
}

// Limits of the access page.
const (
	accessRows  = 200
	waitingRows = 50
)

func (s *Site) accessRoutes(mux *http.ServeMux) {
	if s.parts.Access == nil {
		return
	}
	s.offer(place{
		Section: administration, Href: "/access", Icon: "access", Text: "Access", Page: "access", Needs: signin.AdminAccess,
		Count: func() int { return len(s.parts.Access.Pending("")) },
	})
	mux.Handle("GET /access", s.require(signin.AdminAccess, s.accessPage))
	mux.Handle("POST /access/rule", s.require(signin.AdminAccess, s.accessSet))
	mux.Handle("POST /access/rule/remove", s.require(signin.AdminAccess, s.accessClear))
	mux.Handle("POST /access/request", s.require(signin.AdminAccess, s.accessAnswer))
	mux.Handle("POST /access/person", s.require(signin.AdminAccess, s.accessPerson))
}

// levels gives what a rule may let see, with the words that say it.
func levels(chosen presence.Level) []choice {
	var all []choice
	for _, l := range []struct {
		level presence.Level
		words string
	}{
		{presence.LevelFull, "all that is not private"},
		{presence.LevelStatus, "whether they can be reached, and no more"},
		{presence.LevelTelephony, "the phone, and no more"},
		{presence.LevelConfirm, "nothing, until they are let in"},
		{presence.LevelBlock, "nothing"},
	} {
		all = append(all, choice{Value: l.level.String(), Text: l.level.String() + ": " + l.words, Selected: l.level == chosen})
	}
	return all
}

func kinds(chosen access.Kind) []choice {
	var all []choice
	for _, k := range []struct {
		kind  access.Kind
		words string
	}{
		{access.ForWatcher, "one watcher"}, {access.ForGroup, "a group"}, {access.ForDomain, "a domain"}, {access.ForDefault, "everybody else"},
	} {
		all = append(all, choice{Value: k.kind.String(), Text: k.words, Selected: k.kind == chosen})
	}
	return all
}

func (s *Site) accessPage(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	form := ruleForm{Of: clipped(q.Get("rule-of")), Name: clipped(q.Get("name")), Urgent: q.Get("urgent") == "yes", Change: q.Has("kind")}
	var kind access.Kind
	level := presence.LevelFull
	_ = kind.UnmarshalText([]byte(q.Get("kind")))   //nolint:errcheck // what is none is the first
	_ = level.UnmarshalText([]byte(q.Get("level"))) //nolint:errcheck // what is none is the first
	form.Kinds, form.Levels = kinds(kind), levels(level)
	s.showAccess(w, r, http.StatusOK, form, "")
}

// showAccess writes the page with a form, and with why something was not done.
func (s *Site) showAccess(w http.ResponseWriter, r *http.Request, code int, form ruleForm, bad string) {
	rules := s.parts.Access
	p := s.newPage(r, "access", "Access", url.Values{"rows": {"none"}})
	p.Bad = bad
	now, q, cfg := time.Now(), r.URL.Query(), rules.Config()
	view := &accessView{Form: form, Levels: levels(presence.LevelFull), Text: clipped(q.Get("q")), Of: clipped(q.Get("of"))}
	view.Every = view.Of == "" && q.Has("everybody")
	view.Lead = "Who may see what of whom. Without a rule a watcher sees: " + cfg.Default + "."
	p.Body = view

	pending := rules.Pending(presence.ID(view.Of))
	for _, one := range pending[:min(len(pending), waitingRows)] {
		v := waitingView{Of: string(one.Of), Watcher: one.Watcher.String(), Via: one.Via, Since: momentOf(one.Since, now, s.zone)}
		v.Person, v.Path = s.named(one.Of)
		if who, ok := s.desk.Person(one.Watcher); ok {
			v.Name = who.Name
		}
		view.Waiting = append(view.Waiting, v)
	}
	if len(pending) > waitingRows {
		view.More = "The first " + number(waitingRows) + " of " + number(len(pending)) + ", who has waited longest first."
	}
	settings, err := rules.Settings()
	if err != nil {
		view.Unread = "The rules cannot be read yet, and nobody is shown to anybody: " + err.Error() + ". Sources says how the store fares."
	}
	if cfg.OptIn {
		in := 0
		for i := range settings {
			if settings[i].OptedIn && !settings[i].Left {
				in++
			}
		}
		view.OptIn = number(in) + " of " + plural(len(s.desk.People()), "person", "people") + " opted in; the others are shown to nobody (access.opt_in)."
	}
	s.listRules(view, settings, now)
	if view.Of != "" || view.Every {
		view.One = s.personAccess(presence.ID(view.Of), settings, cfg)
	}
	s.testAccess(view, q)
	s.show(w, r, code, &p)
}

// named gives the name of a person and the address of their page; of somebody who left,
// the identifier.
func (s *Site) named(id presence.ID) (name, path string) {
	if p, ok := s.person(id); ok {
		return p.Name, personPath(id)
	}
	return string(id), ""
}

// listRules fills in the rules that the search finds.
func (s *Site) listRules(view *accessView, settings []access.Setting, now time.Time) {
	words := strings.Fields(strings.ToLower(view.Text))
	found := 0
	add := func(v accessRule) {
		search := strings.ToLower(strings.Join([]string{v.Of, v.Person, v.Who, v.Name, v.Level, v.By, v.Tag}, " "))
		if slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(search, word) }) {
			return
		}
		if found++; found <= accessRows {
			view.Rules = append(view.Rules, v)
		}
	}
	for i := range settings {
		set := &settings[i]
		if (view.Of != "" || view.Every) && string(set.Of) != view.Of {
			continue
		}
		base := accessRule{Of: string(set.Of), OptedIn: set.OptedIn}
		if set.Of != "" {
			base.Person, base.Path = s.named(set.Of)
		}
		if set.Calendar != nil {
			base.Calendar = set.Calendar.String()
		}
		switch {
		case set.Broken:
			base.Tag = "cannot be read: nobody is shown"
		case set.Left:
			base.Tag = "not in the directory"
		}
		for i := range set.Rules {
			rule := &set.Rules[i]
			v := base
			v.Kind, v.Name, v.Level, v.Sees, v.Urgent = rule.For.Kind.String(), rule.For.Name, rule.Level.String(), rule.Level.String(), rule.Urgent
			v.Who, v.By, v.At = audienceWords(rule.For), rule.By, momentOf(rule.At, now, s.zone)
			if subject, err := access.ParseWatcher(rule.For.Name); err == nil && rule.For.Kind == access.ForWatcher {
				if who, ok := s.desk.Person(subject); ok {
					v.Who = who.Name
				}
			}
			edit := url.Values{"rule-of": {v.Of}, "kind": {v.Kind}, "name": {v.Name}, "level": {v.Level}}
			if v.Urgent {
				edit.Set("urgent", "yes")
			}
			v.Edit = address("/access", edit) + "#rule"
			add(v)
		}
		if len(set.Rules) == 0 && set.Of != "" {
			base.Plain = true
			add(base)
		}
	}
	view.Range = plural(found, "rule", "rules")
	if found > accessRows {
		view.Range = "The first " + number(accessRows) + " of " + number(found) + "; search for others."
	}
}

func audienceWords(a access.Audience) string {
	switch a.Kind {
	case access.ForGroup:
		return "Group " + a.Name
	case access.ForDomain:
		return "Domain " + a.Name
	case access.ForDefault:
		return "Everybody else"
	default:
		return a.Name
	}
}

func (s *Site) personAccess(id presence.ID, settings []access.Setting, cfg access.Config) *personAccess {
	one := &personAccess{ID: string(id), Everybody: id == "", OptIn: cfg.OptIn}
	one.Name, one.Path = s.named(id)
	calendar := cfg.Calendar
	for i := range settings {
		if set := &settings[i]; set.Of == id {
			one.OptedIn, one.Broken, one.Left = set.OptedIn, set.Broken, set.Left
			one.Set = set.Broken || set.OptedIn || set.Calendar != nil || len(set.Rules) > 0
			if set.Calendar != nil {
				calendar = set.Calendar.String()
			}
		}
	}
	for _, c := range []choice{
		{Value: "open", Text: "open: in a meeting, elsewhere, out of office"}, {Value: "times", Text: "times: free or busy, and until when"}, {Value: "hidden", Text: "hidden: nothing"},
	} {
		c.Selected = c.Value == calendar
		one.Calendar = append(one.Calendar, c)
	}
	return one
}

// testAccess answers what a watcher would see of a person, if that was asked.
func (s *Site) testAccess(view *accessView, q url.Values) {
	t := &view.Test
	t.Watcher, t.Person = clipped(q.Get("watcher")), clipped(q.Get("person"))
	if t.Watcher == "" && t.Person == "" {
		return
	}
	watcher, err := access.ParseWatcher(t.Watcher)
	if err != nil {
		t.WrongWatcher = err.Error()
	}
	of, wrong := s.findPerson(t.Person)
	if t.WrongPerson = wrong; err != nil || wrong != "" {
		return
	}
	e := s.parts.Access.Explain(watcher, of.ID)
	t.Asked, t.Why, t.Beats, t.OfWho, t.WatcherIs = true, e.Decides, e.Beats, of.Name, e.Watcher
	if name, _ := s.named(e.Who); e.Who != "" {
		t.WatcherIs = name
	}
	t.Sees = seesWords(&e)
}

// seesWords says what an explanation lets see.
func seesWords(e *access.Explanation) string {
	sees := e.Level.String()
	if e.Level == presence.LevelFull {
		sees += ", calendar " + e.Calendar.String()
	}
	if e.Urgent {
		sees += ", may interrupt"
	}
	return sees
}

// findPerson finds who is meant by an identifier, a number, an address, or a name that
// only one has. wrong says why nobody is.
func (s *Site) findPerson(text string) (p presence.Person, wrong string) {
	text = strings.TrimSpace(text)
	if text == "" {
		return p, "Say whom: an identifier, a number, an address or a name."
	}
	candidates := []presence.Subject{{Scheme: "id", Value: text}, {Scheme: "tel", Value: text}, {Scheme: "mail", Value: text}}
	if scheme, value, ok := strings.Cut(text, ":"); ok {
		candidates = append(candidates, presence.Subject{Scheme: scheme, Value: value})
	}
	for _, c := range candidates {
		if found, ok := s.desk.Person(c); ok {
			return found, ""
		}
	}
	var same []presence.Person
	for _, one := range s.desk.People() {
		if strings.EqualFold(one.Name, text) {
			same = append(same, one)
		}
	}
	switch len(same) {
	case 1:
		return same[0], ""
	case 0:
		return p, "Nobody in the directory is “" + text + "”: want an identifier, a number, an address or a whole name."
	default:
		return p, plural(len(same), "person is", "people are") + " called “" + text + "”: want an identifier, a number or an address."
	}
}

// accessSet sets a rule, in place of one for the same audience of the same person.
func (s *Site) accessSet(w http.ResponseWriter, r *http.Request) {
	form := ruleForm{Of: clipped(strings.TrimSpace(r.PostFormValue("of"))), Name: strings.TrimSpace(r.PostFormValue("name")), Urgent: r.PostFormValue("urgent") == "yes", Wrong: map[string]string{}}
	rule := access.Rule{Urgent: form.Urgent}
	if err := rule.For.Kind.UnmarshalText([]byte(r.PostFormValue("kind"))); err != nil {
		form.Wrong["kind"] = err.Error()
	}
	if err := rule.Level.UnmarshalText([]byte(r.PostFormValue("level"))); err != nil {
		form.Wrong["level"] = err.Error()
	}
	form.Kinds, form.Levels = kinds(rule.For.Kind), levels(rule.Level)
	if rule.For.Kind != access.ForDefault {
		rule.For.Name = form.Name
	}
	if len(form.Name) > access.MaxName {
		form.Name, form.Wrong["name"] = clipped(form.Name), "It has more than "+number(access.MaxName)+" bytes."
	}
	if form.Of != "" {
		of, wrong := s.findPerson(form.Of)
		if wrong != "" {
			form.Wrong["of"] = wrong
		}
		rule.Of = of.ID
	}
	if len(form.Wrong) > 0 {
		s.showAccess(w, r, http.StatusUnprocessableEntity, form, "The rule was not set; what is wrong stands beside the fields.")
		return
	}
	err := s.parts.Access.Set(r.Context(), s.actor(r), rule)
	if errors.Is(err, access.ErrUnfit) {
		form.Wrong["name"] = sentenceOf(err)
		s.showAccess(w, r, http.StatusUnprocessableEntity, form, "The rule was not set; what is wrong stands beside the fields.")
		return
	}
	s.changed(w, r, form, err, "Set: "+audienceWords(rule.For)+" sees "+rule.Level.String()+" of "+s.ofWords(rule.Of)+".", rule.Of, rule.For)
}

func (s *Site) accessClear(w http.ResponseWriter, r *http.Request) {
	of := presence.ID(r.PostFormValue("of"))
	audience := access.Audience{Name: r.PostFormValue("name")}
	err := audience.Kind.UnmarshalText([]byte(r.PostFormValue("kind")))
	if err != nil {
		s.showAccess(w, r, http.StatusUnprocessableEntity, emptyRule(), "That is no rule: "+err.Error()+".")
		return
	}
	err = s.parts.Access.Clear(r.Context(), s.actor(r), of, audience)
	s.changed(w, r, emptyRule(), err, "Removed the rule for "+audienceWords(audience)+" of "+s.ofWords(of)+".", of, audience)
}

func (s *Site) accessAnswer(w http.ResponseWriter, r *http.Request) {
	of := presence.ID(r.PostFormValue("of"))
	watcher, err := access.ParseWatcher(r.PostFormValue("watcher"))
	if err != nil {
		s.showAccess(w, r, http.StatusUnprocessableEntity, emptyRule(), "Nobody was let in: "+err.Error()+".")
		return
	}
	told := watcher.String() + " is denied."
	switch r.PostFormValue("answer") {
	case "allow":
		var level presence.Level
		if err := level.UnmarshalText([]byte(r.PostFormValue("level"))); err != nil {
			s.showAccess(w, r, http.StatusUnprocessableEntity, emptyRule(), "Nobody was let in: "+err.Error()+".")
			return
		}
		told = watcher.String() + " is let in."
		err = s.parts.Access.Allow(r.Context(), s.actor(r), of, watcher, level)
	case "deny":
		err = s.parts.Access.Deny(r.Context(), s.actor(r), of, watcher)
	default:
		s.showAccess(w, r, http.StatusUnprocessableEntity, emptyRule(), "Say whether to allow or to deny.")
		return
	}
	s.changed(w, r, emptyRule(), err, told, of, access.Only(watcher))
}

// accessPerson sets what is set of a person beside rules.
func (s *Site) accessPerson(w http.ResponseWriter, r *http.Request) {
	of := presence.ID(r.PostFormValue("of"))
	var err error
	var told string
	switch r.PostFormValue("do") {
	case "calendar":
		var privacy presence.CalendarPrivacy
		if err := privacy.UnmarshalText([]byte(r.PostFormValue("calendar"))); err != nil {
			s.showAccess(w, r, http.StatusUnprocessableEntity, emptyRule(), "The calendar was not set: "+err.Error()+".")
			return
		}
		told = "The calendar of " + s.ofWords(of) + " is " + privacy.String() + "."
		err = s.parts.Access.SetCalendar(r.Context(), s.actor(r), of, privacy)
	case "opt-in":
		told = s.ofWords(of) + " opted in."
		err = s.parts.Access.OptIn(r.Context(), s.actor(r), of, true)
	case "opt-out":
		told = s.ofWords(of) + " is out."
		err = s.parts.Access.OptIn(r.Context(), s.actor(r), of, false)
	case "forget":
		if r.PostFormValue("sure") != "yes" {
			s.showAccess(w, r, http.StatusUnprocessableEntity, emptyRule(), "Nothing was forgotten: tick the box that says so.")
			return
		}
		told = "All that was set of " + s.ofWords(of) + " is forgotten."
		err = s.parts.Access.Forget(r.Context(), s.actor(r), of)
	default:
		s.showAccess(w, r, http.StatusUnprocessableEntity, emptyRule(), "Say what to do.")
		return
	}
	s.changed(w, r, emptyRule(), err, told, of, access.Audience{})
}

func emptyRule() ruleForm {
	return ruleForm{Kinds: kinds(access.ForWatcher), Levels: levels(presence.LevelFull)}
}

func (s *Site) ofWords(of presence.ID) string {
	if of == "" {
		return "everybody"
	}
	name, _ := s.named(of)
	return name
}

// changed answers a change: the page anew with what was done, and what its watcher sees
// now; or the page with why nothing was.
func (s *Site) changed(w http.ResponseWriter, r *http.Request, form ruleForm, err error, told string, of presence.ID, audience access.Audience) {
	switch {
	case err == nil:
	case errors.Is(err, access.ErrNobody), errors.Is(err, access.ErrUnfit):
		s.showAccess(w, r, http.StatusUnprocessableEntity, form, sentenceOf(err))
		return
	default:
		s.log.WarnContext(r.Context(), "a change of the access rules was refused", "error", err)
		s.showAccess(w, r, http.StatusServiceUnavailable, form, sentenceOf(err))
		return
	}
	if watcher, err := access.ParseWatcher(audience.Name); err == nil && of != "" && audience.Kind == access.ForWatcher {
		e := s.parts.Access.Explain(watcher, of)
		told += " They see now: " + seesWords(&e) + "."
	}
	back := url.Values{}
	if of != "" {
		back.Set("of", string(of))
	}
	s.done(w, r, address("/access", back), told)
}

// sentenceOf makes the text of an error a sentence.
func sentenceOf(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:min(len(text), 1)]) + text[min(len(text), 1):] + "."
}
