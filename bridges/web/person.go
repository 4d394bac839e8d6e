package web

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// A personView is the body of a person's page.
type personView struct {
	PersonName, Group, GroupHref string
	Look                         look
	Sign                         string // the icon upon the mark, if any
	Say                          string
	Since, Until, Next, At       moment
	Overlays                     []tag
	Groups                       string
	Phone, Mail, Chat            string
	JSON                         string
	Past                         bool   // it is about a moment that is over
	Now                          string // the address of the page about now
	History                      *pastView

	Shown      string // how little is shown; empty: all that is not private
	Rule       string
	HeldBack   *heldBackView
	WasShown   *shownView
	Decider    *factView
	Facts      []factView
	Rules      []ruleView
	Suppressed []ruleView
	Channels   []channelView
	Sources    []heardView

	AllSources bool // who asks may see how the sources fare

	Hand     *handView     // nil: it cannot be set
	Watchers *watchersView // nil: not for who asks
}

// A heldBackView is what the rules decide where something else still shows.
type heldBackView struct {
	Say, Rule, Why string
	Since, Until   moment
}

// A shownView is what was shown in the past, where it was something else than the page says.
type shownView struct {
	Say, Rule string
	Since     moment
}

type tag struct {
	Text, Class string
	At          moment
}

type factView struct {
	Fact, About, Source string
	From, Until, Heard  moment
	Decides             bool
	By                  string // who set it by hand
}

type ruleView struct {
	No, Name, Why string
	Fired         bool
}

type channelView struct {
	Name, Contact string
	Look          channelLook
	Since, Until  moment
}

type heardView struct {
	Name, Subject string
	At            moment
	Live          bool
	Trouble       *tag
}

func (s *Site) personPage(w http.ResponseWriter, r *http.Request) {
	s.showPerson(w, r, http.StatusOK, "")
}

// showPerson shows the page, and above it why nothing has changed, if that is so.
func (s *Site) showPerson(w http.ResponseWriter, r *http.Request, code int, bad string) {
	id := presence.ID(r.PathValue("id"))
	f := filter{id: id}
	p := s.newPage(r, "person", "", f.query("")) // before the state is read, so that its stream misses none
	person, ok := s.person(id)
	if !ok {
		s.missingPage(w, r)
		return
	}
	viewer := s.viewer(r)
	defer s.watch(viewer, id)()
	e, ok := s.explain(viewer, id, time.Time{})
	if !ok {
		s.missingPage(w, r)
		return
	}
	now := time.Now()
	at, wrong := now, ""
	if text := r.URL.Query().Get("at"); text != "" {
		if then, err := parseMoment(text, s.zone); err != nil {
			code, wrong = http.StatusUnprocessableEntity, err.Error()
		} else if was, err := s.explainAt(r.Context(), viewer, id, then); err != nil {
			problem := s.pastProblem(r.Context(), err)
			code, wrong = problem.Code, problem.Text
		} else {
			e, at = was, then
			p.Watch = url.Values{"rows": {"none"}}.Encode() // what was does not change
		}
	}
	v := personOf(&person, &e, now, s.zone)
	p.Title = person.Name + ", " + strings.ToLower(e.State.Availability.Words())
	if v.Past = !at.Equal(now); v.Past {
		p.Title += " at " + v.At.Full
		v.JSON += "?at=" + url.QueryEscape(at.UTC().Format(time.RFC3339Nano))
	}
	v.AllSources = p.Who.May(signin.ReadHealth)
	if p.Bad = bad; !v.Past {
		v.Hand = s.handOf(r, &person, e.Facts, now)
		v.Watchers = s.watchersOf(r, id, now)
	}
	v.History = s.pastOf(r, id, at, now)
	if wrong != "" {
		v.History.Wrong = fullStop(wrong)
	}
	p.Body = v
	s.show(w, r, code, &p)
}

// person gives who has an identifier.
func (s *Site) person(id presence.ID) (presence.Person, bool) {
	p, ok := s.desk.Person(presence.Subject{Scheme: "id", Value: string(id)})
	return p, ok && p.ID == id
}

func personOf(p *presence.Person, e *Reasoning, now time.Time, zone *time.Location) *personView {
	at := func(t time.Time) moment { return momentOf(t, now, zone) }
	st := &e.State
	v := &personView{
		PersonName: p.Name, Group: firstGroup(p), Groups: strings.Join(p.Groups, ", "), Look: lookOf(st), Say: sayOf(st),
		Since: at(st.Since), Until: at(st.Until), Next: at(e.Next), At: at(e.At),
		Phone: p.Address("tel"), Mail: p.Address("mail"), Chat: p.Address("jid"),
		JSON: "/api" + personPath(p.ID) + "/explain", Now: personPath(p.ID), Rule: st.Why.Title, Shown: e.Shown,
	}
	v.GroupHref = address("/", url.Values{"group": {v.Group}})
	if st.Availability == presence.Busy {
		switch {
		case phoneInUse(st.Channel(presence.Phone).State):
			v.Sign = channelLookOf(presence.Phone, st.Channel(presence.Phone).State).Icon
		case st.Activity == presence.ActivityMeeting || st.Activity == presence.ActivityAppointment:
			v.Sign = "cal-busy"
		}
	}
	if st.Overlays.Has(presence.OverlayOutOfOffice) {
		v.Overlays = append(v.Overlays, tag{Text: "out of office"})
	}
	if st.Overlays.Has(presence.OverlayStale) {
		v.Overlays = append(v.Overlays, tag{Text: "stale: a source cannot be asked just now", Class: "warn"})
	}
	v.reasons(e, at)
	v.channels(st, at)
	v.heard(e, at)
	return v
}

// sayOf gives a state in words.
func sayOf(st *presence.State) string {
	say := st.Availability.Words()
	if text, _ := doing(st); text != "" {
		say += ", " + lowered(text)
	}
	return say
}

// lowered gives words for the middle of a sentence.
func lowered(words string) string { return strings.ToLower(words[:1]) + words[1:] }

// reasons fills in the facts and the rules.
func (v *personView) reasons(e *Reasoning, at func(time.Time) moment) {
	heard := map[string]time.Time{}
	for _, h := range e.Sources {
		if h.At.After(heard[h.Source]) {
			heard[h.Source] = h.At
		}
	}
	for _, h := range e.Facts {
		f := factView{sentence(h.Fact.String()), bare(h.Contact), h.Source, at(h.From), at(h.Until), at(heard[h.Source]), h.Decides, h.By}
		if f.Decides && v.Decider == nil {
			v.Decider = &f
		}
		v.Facts = append(v.Facts, f)
	}
	if e.Shown != "" {
		return
	}
	for i, r := range e.Passed {
		v.Rules = append(v.Rules, ruleView{No: number(i + 1), Name: sentence(r.Rule), Why: r.Why})
	}
	fired := ruleView{
		No: number(len(e.Passed) + 1), Name: sentence(e.State.Why.Rule), Fired: true,
		Why: e.State.Why.Title + ". Decided: " + lowered(v.Say),
	}
	if h := e.HeldBack; h != nil { // the facts and the rules are those of what is held back
		would := presence.State{Availability: h.Availability, Activity: h.Activity}
		v.HeldBack = &heldBackView{lowered(sayOf(&would)), sentence(h.Rule), h.Why, at(h.Since), at(h.Until)}
		fired.Name, fired.Why = v.HeldBack.Rule, "Decided: "+v.HeldBack.Say+"; it is held back"
	}
	v.Rules = append(v.Rules, fired)
	if was := e.WasShown; was != nil {
		v.WasShown = &shownView{lowered(sayOf(was)), was.Why.Title, at(was.Since)}
	}
	for _, a := range e.Suppressed {
		v.Suppressed = append(v.Suppressed, ruleView{Name: a.Activity.Words(), Why: a.Why})
	}
}

func (v *personView) channels(st *presence.State, at func(time.Time) moment) {
	for _, k := range []presence.ChannelKind{presence.Phone, presence.Calendar, presence.Messaging, presence.Video} {
		c := st.Channel(k)
		if c.State == presence.ChannelUnknown && (k == presence.Video || v.Shown != "") {
			continue // no source knows video yet; and what is not shown is not to be called unknown
		}
		name := map[presence.ChannelKind]string{
			presence.Phone: "Phone", presence.Calendar: "Calendar", presence.Messaging: "Messaging", presence.Video: "Video",
		}[k]
		v.Channels = append(v.Channels, channelView{name, bare(c.Contact), channelLookOf(k, c.State), at(c.Since), at(c.Until)})
	}
}

func (v *personView) heard(e *Reasoning, at func(time.Time) moment) {
	for _, h := range e.Sources {
		s := heardView{Name: h.Source, Subject: h.Subject.Value, At: at(h.At), Live: !h.Stale && !h.Expired}
		switch {
		case h.Expired:
			s.Trouble = &tag{"expired", "bad", at(h.Expires)}
		case h.Stale:
			s.Trouble = &tag{"stale, expires", "warn", at(h.Expires)}
			if h.Expires.IsZero() {
				s.Trouble.Text = "stale"
			}
		}
		v.Sources = append(v.Sources, s)
	}
}

// bare takes the scheme off a contact: tel:4711 is 4711.
func bare(contact string) string {
	if scheme, rest, ok := strings.Cut(contact, ":"); ok {
		switch scheme {
		case "tel", "mail", "mailto", "sip", "im", "xmpp", "jid":
			return rest
		default:
		}
	}
	return contact
}
