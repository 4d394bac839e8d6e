package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// Manual sets presence by hand. Both block until the change and its audit line are
// durable, within some seconds; what fails has changed nothing: aggregator.ErrNobody,
// aggregator.ErrUnfit, else the store did not take it.
type Manual interface {
	// Set takes one of presence.ManualFacts. A zero end is that of presence.ManualLife.
	Set(ctx context.Context, by audit.Actor, id presence.ID, fact presence.Fact, until time.Time) (presence.Report, error)
	// Clear is no error where nothing is set.
	Clear(ctx context.Context, by audit.Actor, id presence.ID) error
}

// A handView is the form that sets somebody's presence.
type handView struct {
	Of, Action string
	Own        bool
	Back       string // where the form leads back to: me, or empty for the person's page
	Set        *factView
	States     []handChoice
	Lives      []handChoice
	SignIn     string // where to sign in, for who may not, yet
}

type handChoice struct {
	Value, S, Text string
	Chosen         bool
}

// handStates are the states in the order of the form.
func handStates() []presence.Fact {
	return []presence.Fact{
		presence.ManualAvailable, presence.ManualBusy, presence.ManualDND, presence.ManualBeRightBack, presence.ManualAway,
		presence.ManualOutOfOffice, presence.ManualOffWork, presence.ManualOffline,
	}
}

// The lives that the form offers, beside those of a fixed length.
const (
	lifeToday = "today" // until midnight, where the viewer is
	lifeOpen  = "open"  // until it is changed, or presence.ManualLife ends it
)

func handLives() []handChoice {
	return []handChoice{
		{Value: "30m", Text: "30 min"},
		{Value: "1h", Text: "1 hour", Chosen: true},
		{Value: "2h", Text: "2 hours"},
		{Value: lifeToday, Text: "Today"},
		{Value: lifeOpen, Text: "Until I change it"},
	}
}

// handOf gives the form for a person; nil: there is nothing to be said of it. The
// facts are those that who asks may see.
func (s *Site) handOf(r *http.Request, p *presence.Person, facts []presence.Held, now time.Time) *handView {
	who := signin.From(r.Context())
	given, _ := splitName(p.Name)
	v := &handView{Of: strings.TrimSpace(given), Action: personPath(p.ID) + "/presence", Own: who.Person == p.ID, Lives: handLives()}
	switch {
	case s.parts.Manual == nil:
		return nil
	case who.Account == "" && s.parts.SignIn != nil:
		v.SignIn = signInPath(r)
		return v
	case !who.MaySet(p.ID):
		return nil
	}
	if v.Of == "" {
		v.Of = p.Name
	}
	chosen := presence.ManualDND
	for _, h := range facts {
		if h.Source == aggregator.SourceManual && presence.ManualFacts.Has(h.Fact) {
			v.Set, chosen = &factView{Fact: wordsByHand(h.Fact), Until: momentOf(h.Until, now, s.zone)}, h.Fact
		}
	}
	for _, fact := range handStates() {
		v.States = append(v.States, handChoice{aggregator.ManualName(fact), aggregator.ManualName(fact), wordsByHand(fact), fact == chosen})
	}
	return v
}

// wordsByHand names a state that is set by hand.
func wordsByHand(fact presence.Fact) string {
	if fact == presence.ManualOffline {
		return "Appear offline"
	}
	return sentence(aggregator.ManualName(fact))
}

// byHand answers the form: 303 to where it came from when the change is durable, else
// the page again, with what is wrong.
func (s *Site) byHand(w http.ResponseWriter, r *http.Request) {
	id, who := presence.ID(r.PathValue("id")), signin.From(r.Context())
	p, known := s.person(id)
	switch {
	case !who.MaySet(id):
		s.refused(w, r, "You may set your own presence only.")
		return
	case !known:
		s.missingPage(w, r)
		return
	}
	if !s.readForm(w, r) {
		return
	}
	back, again := personPath(id), s.showPerson
	if r.PostForm.Get("back") == "me" && who.Person == id {
		back, again = "/me", s.showMe
	}
	told, err := s.setByHand(r, &p)
	if err != nil {
		code, text := s.unchanged(r, err)
		again(w, r, code, text)
		return
	}
	s.done(w, r, back, told)
}

// setByHand does what the form says, and gives in words what was done.
func (s *Site) setByHand(r *http.Request, p *presence.Person) (told string, err error) {
	form, now := r.PostForm, time.Now()
	if form.Has("clear") {
		return p.Name + " is automatic again.", s.parts.Manual.Clear(r.Context(), s.actor(r), p.ID)
	}
	fact, err := aggregator.ParseManual(form.Get("state"))
	if err != nil {
		return "", err
	}
	zone := zoneOf(form.Get("zone"), s.zone)
	until, err := parseLife(form.Get("for"), now.In(zone))
	if err != nil {
		return "", err
	}
	report, err := s.parts.Manual.Set(r.Context(), s.actor(r), p.ID, fact, until)
	if err != nil {
		return "", err
	}
	told = p.Name + " is set to " + lowered(wordsByHand(fact))
	if len(report.Spans) > 0 && !report.Spans[0].Until.IsZero() {
		told += ", until " + momentOf(report.Spans[0].Until, now, zone).Text
	}
	return told + ".", nil
}

// maxForm bounds the bytes of a form.
const maxForm = 256 << 10

// readForm reads the form of a request into r.PostForm; false: it was answered.
func (s *Site) readForm(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	err := r.ParseForm()
	if err == nil {
		return true
	}
	code := http.StatusBadRequest
	if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
		code = http.StatusRequestEntityTooLarge
	}
	http.Error(w, fmt.Sprintf("the form cannot be read, or has more than %d bytes; nothing has changed", maxForm), code)
	return false
}

// actor is who makes the request, for the audit trail.
func (s *Site) actor(r *http.Request) audit.Actor {
	if s.parts.SignIn == nil {
		return audit.Actor{Who: cmp.Or(signin.From(r.Context()).Account, "nobody"), From: "page"}
	}
	by := s.parts.SignIn.By(r)
	return audit.Actor{Who: by.Who, From: by.From}
}

// unchanged says why a change was not made: 422 for what cannot be taken, 404 for
// nobody, 503 where the store does not take it.
func (s *Site) unchanged(r *http.Request, err error) (code int, text string) {
	switch {
	case errors.Is(err, aggregator.ErrNobody), errors.Is(err, access.ErrNobody):
		return http.StatusNotFound, "Nothing has changed: the person is not in the directory any more."
	case errors.Is(err, aggregator.ErrUnfit), errors.Is(err, access.ErrUnfit), errors.Is(err, errChoice):
		return http.StatusUnprocessableEntity, "Nothing has changed: " + err.Error() + "."
	default:
		s.log.WarnContext(r.Context(), "a change was refused", "path", r.URL.Path, "error", err)
		return http.StatusServiceUnavailable, "Nothing has changed: the store does not take changes just now. Try again in a minute."
	}
}

// errChoice is wrapped where a form holds something that it does not offer.
var errChoice = errors.New("choose")

// parseLife gives the end of what lasts so long from now, in whose zone days end; zero:
// none is named.
func parseLife(life string, now time.Time) (time.Time, error) {
	switch i := slices.IndexFunc(handLives(), func(c handChoice) bool { return c.Value == life }); {
	case i < 0:
		return time.Time{}, fmt.Errorf("%w for how long", errChoice)
	case life == lifeOpen:
		return time.Time{}, nil
	case life == lifeToday:
		y, m, d := now.Date()
		return time.Date(y, m, d+1, 0, 0, 0, 0, now.Location()), nil
	}
	length, err := time.ParseDuration(life)
	return now.Add(length), err
}

// zoneOf gives the zone of that name, or ours.
func zoneOf(name string, ours *time.Location) *time.Location {
	if name == "" || len(name) > 64 {
		return ours
	}
	if zone, err := time.LoadLocation(name); err == nil {
		return zone
	}
	return ours
}
