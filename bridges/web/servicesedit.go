package web

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/internal/config"
)

// maxServiceForm bounds what a form sends: a service with its longest user list.
const maxServiceForm = 1 << 20

// A serviceView is the body of the page of one service, and of the form that adds one.
type serviceView struct {
	ID, Path, Action  string
	New, Fixed        bool
	Locked            string // why it cannot be changed; empty: it can
	Revision, Checker string
	Trouble           string // what stands in the way of the whole form
	Wrong             []problemView
	Groups            []fieldGroup
	Find              string // what was looked for
	Offers            []offer
	More              bool // there are more offers
	Preview           *previewView
	Status            *statusView // nil: it is not there yet
	Trials            []Trial
	Tried             moment
}

// A previewView is what saving, or deleting, does to the data of people.
type previewView struct {
	Plan                          string
	idle                          bool   // nothing is changed at all
	Server, Left                  string // where people are published; and where no more, if that is elsewhere
	Touched                       int
	Count                         string // of them
	Added, Removed, Changed, Stay string
	Rows                          []previewRow
	Shown                         string
	Nowhere                       string // who is named, and has no address
	Unknown                       []string
	MoreUnknown                   int
	Excess                        string // what force allows
	Taken                         moment
	Overwrite, Force              bool   // the boxes are ticked
	Missing                       string // why it was not made
}

type previewRow struct{ Class, Icon, Word, Name, Address string }

type statusView struct {
	At                moment
	S, Phase, Detail  string
	Servers           []serverView // those of the form
	Others            []serverView // that still hold something
	Done, Total       string
	Value, Max        int
	Network           *networkView
	LastError         string
	LastErrorAt, Next moment
	Uncovered         []uncovered
	Revision          string
}

// A networkView is how the subscriptions at a server fare.
type networkView struct{ S, Phase, Detail, Done, Total, LastError string }

func (s *Site) addServicePage(w http.ResponseWriter, r *http.Request) {
	s.showService(w, r, http.StatusOK, begin(nil), &serviceView{})
}

func (s *Site) servicePage(w http.ResponseWriter, r *http.Request) {
	one, ok := s.findService(r.PathValue("id"))
	if !ok {
		s.noService(w, r)
		return
	}
	s.showService(w, r, http.StatusOK, begin(&one), &serviceView{})
}

// showService completes v, which says what came of a form, and shows it.
func (s *Site) showService(w http.ResponseWriter, r *http.Request, code int, d *draft, v *serviceView) {
	title := "Add presence service"
	v.New, v.Action, v.Locked = d.was == nil, pathAddService, lockedText(r)
	v.Checker = pathServices + "/check"
	if d.was != nil {
		v.ID, v.Fixed, v.Revision = d.was.ID, d.was.Revision == 0, revisionText(d.was.Revision)
		v.Path, title = servicePath(v.ID), v.ID
		v.Action = v.Path
		v.Checker += "?" + url.Values{"edit": {v.ID}}.Encode()
		v.Status = s.serviceStatus(d.was)
	}
	if r.PostForm.Has("revision") {
		v.Revision = revisionText(sentRevision(r.PostForm)) // what was looked at, whatever there is now
	}
	v.Groups, v.Wrong = d.groups(v.Locked == ""), d.wrong()
	if v.Locked == "" && !v.Fixed {
		v.Offers, v.More = offers(v.Find, s.desk.People())
	}
	p := s.newPage(r, "services-edit", title, url.Values{"rows": {"none"}})
	p.Body, p.Bad = v, v.Trouble
	s.show(w, r, code, &p)
}

func (s *Site) serviceStatus(one *Service) *statusView {
	now := time.Now()
	h := s.serviceHealth(one.ID)
	v := &statusView{
		At: momentOf(now, now, s.zone), S: phaseMark(h.Phase), Phase: sentence(string(h.Phase)), Detail: h.Detail,
		Done: number(h.Done), Total: number(h.Total), Value: h.Done, Max: max(h.Total, 1),
		LastError: h.LastError, LastErrorAt: momentOf(h.LastErrorAt, now, s.zone), Next: momentOf(h.NextTry, now, s.zone),
		Revision: revisionText(one.Revision),
	}
	v.Servers = append(v.Servers, *s.serverView(one, &one.Primary, h, now))
	if one.Secondary.Host != "" {
		v.Servers = append(v.Servers, *s.serverView(one, &one.Secondary, h, now))
	}
	for _, other := range one.Servers {
		if !slices.ContainsFunc(v.Servers, func(known serverView) bool { return known.Address == other.Address }) {
			v.Others = append(v.Others, serverView{S: "offline", Address: other.Address, Words: "Not in the form any more", Held: number(other.Held), Problem: other.Problem})
		}
	}
	if n := one.Network; n != nil {
		v.Network = &networkView{phaseMark(n.Phase), string(n.Phase), n.Detail, number(n.Done), number(n.Total), n.LastError}
	}
	for _, who := range slices.Sorted(maps.Keys(h.Unmonitored)) {
		v.Uncovered = append(v.Uncovered, s.uncoveredOf(who, h.Unmonitored[who]))
	}
	return v
}

// formOf reads the form that a request brings; false: it was answered.
func (s *Site) formOf(w http.ResponseWriter, r *http.Request) (url.Values, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, maxServiceForm)
	if err := r.ParseForm(); err != nil {
		code := http.StatusBadRequest
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			code = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "the form cannot be read; nothing was changed", code)
		return nil, false
	}
	return r.PostForm, true
}

// changeService does what a button of the form says: find people, try the servers,
// preview, or save what was previewed.
func (s *Site) changeService(w http.ResponseWriter, r *http.Request) {
	form, ok := s.formOf(w, r)
	if !ok {
		return
	}
	var was *Service
	if id := r.PathValue("id"); id != "" {
		one, ok := s.findService(id)
		if !ok {
			s.noService(w, r)
			return
		}
		was = &one
	}
	if was != nil && was.Revision == 0 { // there is nothing of it but to try it
		form = url.Values{"do": {form.Get("do")}}
		d := begin(was)
		if form.Get("do") == "test" {
			s.tryService(w, r, d)
			return
		}
		s.showService(w, r, http.StatusUnprocessableEntity, d, &serviceView{Trouble: was.ID + " stands in the configuration file; edit it there."})
		return
	}
	d := filled(was, form)
	switch do := form.Get("do"); {
	case form.Has("add"), do == "find", do == "preview" && form.Get("find") != "":
		d.problems = nil // that comes with the preview
		s.showService(w, r, http.StatusOK, d, &serviceView{Find: clipped(form.Get("find"))})
	case do == "test":
		s.tryService(w, r, d)
	default:
		s.saveService(w, r, d, form)
	}
}

func (s *Site) tryService(w http.ResponseWriter, r *http.Request, d *draft) {
	if len(d.problems) > 0 {
		s.showService(w, r, http.StatusUnprocessableEntity, d, &serviceView{})
		return
	}
	found, err := s.parts.Services.Try(r.Context(), d.form, s.actor(r))
	v, code := &serviceView{Trials: found, Tried: momentOf(time.Now(), time.Now(), s.zone)}, http.StatusOK
	if err != nil {
		code = s.troubled(d, v, err)
	}
	s.showService(w, r, code, d, v)
}

// troubled says in a page what an error means, and gives the code to answer with.
func (s *Site) troubled(d *draft, v *serviceView, err error) int {
	unfit, isUnfit := errors.AsType[*services.Unfit](err)
	switch {
	case isUnfit:
		d.problems = unfit.Problems
		return http.StatusUnprocessableEntity
	case errors.Is(err, services.ErrConflict) && d.was == nil:
		d.problems = append(d.problems, config.Wrong("id", "there is a presence service %s already", d.form.ID))
		return http.StatusUnprocessableEntity
	case errors.Is(err, services.ErrConflict):
		v.Trouble = "Somebody else changed " + d.form.ID + " since you opened this page. Load it again to see what it is now; what you typed is still in the form below."
		return http.StatusConflict
	case errors.Is(err, services.ErrNone):
		v.Trouble = d.form.ID + " was deleted meanwhile. Nothing was saved."
		return http.StatusNotFound
	case errors.Is(err, services.ErrFixed), errors.Is(err, services.ErrUnfit), errors.Is(err, services.ErrExcess):
		v.Trouble = err.Error() + "."
		return http.StatusUnprocessableEntity
	default:
		v.Trouble = "Nothing was changed: " + err.Error() + "."
		return http.StatusServiceUnavailable
	}
}

// saveService shows what the form does, or makes it where that was agreed to.
func (s *Site) saveService(w http.ResponseWriter, r *http.Request, d *draft, form url.Values) {
	v := &serviceView{}
	if len(d.problems) > 0 {
		s.showService(w, r, http.StatusUnprocessableEntity, d, v)
		return
	}
	edit := services.Edit{ID: d.form.ID, Service: &d.form, Revision: sentRevision(form)}
	p, err := s.preview(r, edit, d.was)
	switch {
	case err != nil:
		code := s.troubled(d, v, err)
		s.showService(w, r, code, d, v)
		return
	case p.idle:
		s.done(w, r, servicePath(edit.ID), "Nothing was changed, so nothing was saved.")
		return
	}
	v.Preview = p
	if form.Get("do") != "save" {
		s.showService(w, r, http.StatusOK, d, v)
		return
	}
	if code := p.agreed(form); code != http.StatusOK {
		s.showService(w, r, code, d, v)
		return
	}
	edit.Plan = p.Plan
	_, err = s.parts.Services.Apply(r.Context(), s.order(r, edit, p.Force))
	if errors.Is(err, services.ErrConflict) { // since a moment ago
		edit.Plan = ""
		if p, again := s.preview(r, edit, d.was); again == nil {
			v.Preview, p.Missing = p, moved
			s.showService(w, r, http.StatusConflict, d, v)
			return
		}
	}
	if err != nil {
		v.Preview = nil
		code := s.troubled(d, v, err)
		s.showService(w, r, code, d, v)
		return
	}
	told := edit.ID + " is saved, and being synchronised."
	if d.was == nil {
		told = edit.ID + " is added, and its people are being published."
	}
	s.done(w, r, servicePath(edit.ID), told)
}

// moved is said where a preview is not true any more.
const moved = "This does not do what the page said any more: the form, the service or the directory has changed. This is how it is now."

// agreed tells by the code to answer with whether a form agreed to all of the preview.
// Where it did not, p says what is missing.
func (p *previewView) agreed(form url.Values) int {
	if plan := form.Get("plan"); plan != p.Plan {
		if plan != "" {
			p.Missing = moved
		}
		return http.StatusConflict
	}
	p.Overwrite, p.Force = form.Get("overwrite") == "yes", form.Get("force") == "yes"
	switch {
	case p.Touched > 0 && !p.Overwrite:
		p.Missing = "Say that the data of these people are to be overwritten at the server: tick the box below."
	case p.Excess != "" && !p.Force:
		p.Missing = "More people would be removed than the service allows. To do it all the same, tick the box below."
	default:
		return http.StatusOK
	}
	return http.StatusUnprocessableEntity
}

func (s *Site) order(r *http.Request, edit services.Edit, force bool) services.Order {
	by := s.actor(r)
	return services.Order{Edits: []services.Edit{edit}, Force: force, Who: by.Who, From: by.From}
}

func sentRevision(form url.Values) uint64 {
	n, _ := strconv.ParseUint(form.Get("revision"), 10, 64) //nolint:errcheck // zero is never the revision of what is there
	return n
}

// namesShown is how many people of each kind a preview names.
const namesShown = 10

// preview tells what an edit of was would do.
func (s *Site) preview(r *http.Request, edit services.Edit, was *Service) (*previewView, error) {
	o := s.order(r, edit, false)
	o.DryRun = true
	outcomes, err := s.parts.Services.Apply(r.Context(), o)
	if err != nil {
		return nil, err
	}
	c, now := outcomes[0].Change, time.Now()
	p := &previewView{
		Plan: outcomes[0].Plan, idle: outcomes[0].What == services.None, Taken: momentOf(now, now, s.zone),
		Touched: len(c.Added) + len(c.Removed) + len(c.Changed), Count: plural(len(c.Added)+len(c.Removed)+len(c.Changed), "person", "people"),
		Added: number(len(c.Added)), Removed: number(len(c.Removed)), Changed: number(len(c.Changed)), Stay: number(c.After - len(c.Added) - len(c.Changed)),
	}
	before, after := edit.Service, edit.Service // one of them is not nil
	if was != nil {
		before = &was.Service
		if outcomes[0].Excess != "" {
			p.Excess = number(len(c.Removed)) + " of " + plural(c.Before, "person", "people") + ", more than the " + strconv.Itoa(was.MaxRemoved) + " % that this service allows at once"
		}
	}
	if after == nil {
		after = before
	}
	p.Server = after.Primary.Address()
	if old := before.Primary.Address(); old != p.Server && c.Before > 0 {
		p.Left = old
	}
	people := s.desk.People()
	nowhere := 0
	byID := make(map[presence.ID]*presence.Person, len(people))
	covers := after.Covers()
	for i := range people {
		one := &people[i]
		byID[one.ID] = one
		if edit.Service != nil && covers(one) && after.EntityOf(one) == "" {
			nowhere++
		}
	}
	if nowhere > 0 {
		p.Nowhere = plural(nowhere, "person is named and has", "people are named and have") + " no such address, so presenced cannot publish them."
	}
	rows := func(ids []presence.ID, form *services.Service, class, icon, word string) {
		for _, id := range ids[:min(len(ids), namesShown)] {
			if one := byID[id]; one != nil {
				p.Rows = append(p.Rows, previewRow{class, icon, word, one.Name, form.EntityOf(one)})
			}
		}
	}
	rows(c.Removed, before, "del", "minus", "Removed")
	rows(c.Added, after, "add", "plus", "Added")
	rows(c.Changed, after, "mod", "edit", "Overwritten")
	p.Shown = number(len(p.Rows)) + " of " + number(p.Touched)
	p.Unknown = c.Unknown
	if len(p.Unknown) > namesShown {
		p.Unknown, p.MoreUnknown = p.Unknown[:namesShown], len(p.Unknown)-namesShown
	}
	return p, nil
}

// A checkJSON is what is wrong with a form while it is typed, and what it would do.
type checkJSON struct {
	Problems map[string]string `json:"problems"` // by the name of the field
	Says     string            `json:"says"`
}

// checkService checks a form for the script; nothing is changed.
func (s *Site) checkService(w http.ResponseWriter, r *http.Request) {
	form, ok := s.formOf(w, r)
	if !ok {
		return
	}
	var was *Service
	if id := r.URL.Query().Get("edit"); id != "" {
		one, ok := s.findService(id)
		if !ok {
			s.refuse(w, r, http.StatusNotFound, "there is no such presence service")
			return
		}
		was = &one
	}
	d, v := filled(was, form), &serviceView{}
	if len(d.problems) == 0 {
		p, err := s.preview(r, services.Edit{ID: d.form.ID, Service: &d.form, Revision: sentRevision(form)}, was)
		if err != nil {
			s.troubled(d, v, err)
		} else {
			v.Trouble = p.says()
		}
	}
	s.json(w, r, http.StatusOK, checkJSON{d.byKey(), v.Trouble})
}

// says gives the preview in a sentence.
func (p *previewView) says() string {
	if p.idle {
		return "Nothing is changed yet."
	}
	text := p.Added + " added, " + p.Removed + " removed, " + p.Changed + " overwritten, " + p.Stay + " stay as they are."
	if p.Nowhere != "" {
		text += " " + p.Nowhere
	}
	if n := len(p.Unknown) + p.MoreUnknown; n > 0 {
		text += " Nobody in the directory is: " + strings.Join(p.Unknown, ", ") + "."
	}
	return text
}

// syncService publishes everybody of a service again.
func (s *Site) syncService(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	one, ok := s.findService(id)
	if !ok {
		s.noService(w, r)
		return
	}
	if err := s.parts.Services.Sync(r.Context(), id, s.actor(r)); err != nil {
		d, v := begin(&one), &serviceView{}
		code := s.troubled(d, v, err)
		s.showService(w, r, code, d, v)
		return
	}
	s.done(w, r, servicePath(id), plural(one.Count(s.desk.People()), "person is", "people are")+" being published again, at the pace of the service.")
}

// A deletionView is the body of the page that asks whether a service is to go.
type deletionView struct {
	ID, Path, Revision string
	Servers            []string
	Trouble, Problem   string
	Preview            *previewView
}

func (s *Site) deleteServicePage(w http.ResponseWriter, r *http.Request) {
	if one, ok := s.findService(r.PathValue("id")); ok {
		s.showDeletion(w, r, http.StatusOK, &one, &deletionView{})
		return
	}
	s.noService(w, r)
}

// showDeletion shows what deleting one does, unless that cannot be told.
func (s *Site) showDeletion(w http.ResponseWriter, r *http.Request, code int, one *Service, v *deletionView) {
	v.ID, v.Path, v.Revision = one.ID, servicePath(one.ID), revisionText(one.Revision)
	for _, server := range []services.Server{one.Primary, one.Secondary} {
		if server.Host != "" {
			v.Servers = append(v.Servers, server.Address())
		}
	}
	if v.Preview == nil && v.Trouble == "" {
		var err error
		if v.Preview, err = s.preview(r, services.Edit{ID: one.ID, Revision: one.Revision}, one); err != nil {
			refused := &serviceView{}
			code = s.troubled(begin(one), refused, err)
			v.Trouble = refused.Trouble
		}
	}
	p := s.newPage(r, "services-delete", "Delete "+one.ID, url.Values{"rows": {"none"}})
	p.Body, p.Bad = v, v.Trouble
	s.show(w, r, code, &p)
}

func (s *Site) deleteService(w http.ResponseWriter, r *http.Request) {
	form, ok := s.formOf(w, r)
	if !ok {
		return
	}
	one, ok := s.findService(r.PathValue("id"))
	if !ok {
		s.noService(w, r)
		return
	}
	v := &deletionView{}
	edit := services.Edit{ID: one.ID, Revision: one.Revision}
	p, err := s.preview(r, edit, &one)
	if err != nil {
		s.showDeletion(w, r, http.StatusOK, &one, v) // says the same, and why
		return
	}
	v.Preview = p
	switch {
	case form.Get("plan") != p.Plan:
		v.Trouble = moved
		s.showDeletion(w, r, http.StatusConflict, &one, v)
		return
	case form.Get("confirm") != one.ID:
		v.Problem = "That is not the identifier: type " + one.ID + "."
		s.showDeletion(w, r, http.StatusUnprocessableEntity, &one, v)
		return
	}
	edit.Plan = p.Plan
	if _, err := s.parts.Services.Apply(r.Context(), s.order(r, edit, true)); err != nil {
		refused := &serviceView{}
		code := s.troubled(begin(&one), refused, err)
		v.Trouble, v.Preview = refused.Trouble, nil
		s.showDeletion(w, r, code, &one, v)
		return
	}
	s.done(w, r, pathServices, one.ID+" is deleted, and its people are being withdrawn.")
}
