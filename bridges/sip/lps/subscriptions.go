package lps

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/presence"
)

// A eventPackage is what a subscription is about.
type eventPackage uint8

// The event packages.
const (
	aboutNothing  eventPackage = iota // that we know
	aboutPresence                     // RFC 3856
	aboutWatchers                     // RFC 3857
	aboutPhone                        // RFC 4235
)

func packageOf(event string) eventPackage {
	switch event {
	case "presence":
		return aboutPresence
	case "presence.winfo":
		return aboutWatchers
	case "dialog":
		return aboutPhone
	}
	return aboutNothing
}

// String gives the name as it stands in Event.
func (p eventPackage) String() string {
	return [...]string{"none", "presence", "presence.winfo", "dialog"}[p]
}

// A Subscribe is a SUBSCRIBE request, as far as the notifier looks at it. The
// watcher is known by a password, a certificate, or as nobody.
type Subscribe struct {
	Watcher presence.Subject
	Admin   bool   // may ask who watches others
	Own     string // the watcher's own address

	Entity    string // the presentity or list of the Request-URI, in canonical form
	Call      string // Call-ID
	Tag       string // of From
	Dialog    string // tag of To; a new subscription has none yet, and gets this
	New       bool   // whether it is one
	CSeq      uint32
	Event, ID string   // package, and id parameter of Event
	Expires   int      // seconds, or -1 where the request does not say
	Accept    []string // media types in lower case without parameters; nil: not said
	Eventlist bool     // Supported: eventlist
	List      []string // addresses of a list that the request itself contains
	Match     string   // Suppress-If-Match (RFC 5839)

	// Least and Often are the times between two NOTIFYs that the subscription asks
	// for by max-rate and min-rate (RFC 6446); zero: it does not ask.
	Least, Often time.Duration

	Route *Route // the way to the watcher; comes back in each Notify
}

// A Subscribed is how a SUBSCRIBE is answered.
type Subscribed struct {
	Code    int
	Expires int    // seconds granted; with 423 the least that would be
	List    bool   // the answer has Require: eventlist
	Matched uint64 // with 204: the entity-tag that matched
}

// A Notify is a NOTIFY to be sent. Its answer goes to Answered.
type Notify struct {
	Dialog   string // our tag of the dialog
	CSeq     uint32
	State    string // value of Subscription-State
	List     bool   // Require: eventlist
	Document Document
	Route    *Route
}

// A Record is what is kept of a subscription over a restart.
type Record struct {
	Dialog  string           `json:"dialog"`
	Call    string           `json:"call"`
	Tag     string           `json:"tag"`
	Watcher presence.Subject `json:"watcher"`
	Entity  string           `json:"entity"`
	Event   string           `json:"event"`
	ID      string           `json:"id,omitempty"`
	InPart  bool             `json:"in_part,omitempty"`
	IsList  bool             `json:"is_list,omitempty"`
	List    []string         `json:"list,omitempty"` // that the request contained
	CSeq    uint32           `json:"cseq"`           // ours, at At
	Theirs  uint32           `json:"theirs"`
	Gap     time.Duration    `json:"gap"`
	Most    time.Duration    `json:"most,omitempty"`
	At      time.Time        `json:"at"`
	Expires time.Time        `json:"expires"`

	Route *Route `json:"-"`
}

// Limits of subscriptions.
type Limits struct {
	Life     Life
	Gap      time.Duration // between two NOTIFYs of a subscription that does not ask for another
	Most     int           // subscriptions and entries of lists in all
	PerPeer  int           // the same of one watcher
	PerList  int           // entries of one list
	StormPer int           // subscriptions in a second from which on expiries are spread; zero: never
}

// Times between NOTIFYs that a subscription may ask for.
const (
	leastGap  = 250 * time.Millisecond
	longGap   = 10 * time.Minute
	oftenGap  = 5 * time.Second
	gather    = 250 * time.Millisecond // how long changes of a list are gathered
	reserve   = 1000                   // see Restore
	restoring = 2 * time.Millisecond   // between two of the first NOTIFYs after a restart
)

// A Directory tells who stands behind an address. The methods may be called from
// any goroutine and do not block.
type Directory interface {
	// Find gives the person of an address in canonical form.
	Find(address string) (presence.ID, bool)

	// State gives the person's state.
	State(id presence.ID) (presence.State, bool)

	// Members gives the addresses that are in a list.
	Members(list string) ([]string, bool)
}

// A Keeper keeps records over a restart; nil means that it goes. It does not block.
type Keeper func(dialog string, r *Record)

// Subscriptions is the notifier of RFC 6665 for the packages presence,
// presence.winfo and dialog, and for lists of presence, sans-I/O. It is for one
// goroutine at a time; the time that is passed in must not go back.
type Subscriptions struct {
	via    string // the name of the bridge, to the gate
	limits Limits
	gate   presence.Gate
	people Directory
	encode Encoder
	keep   Keeper

	seed     maphash.Seed
	dialogs  map[string]*dialog
	targets  map[string]*target      // by address
	persons  map[presence.ID]*target // by who it is, the first of several
	watchers map[presence.Subject]*watcher
	entries  int                 // dialogs, and entries of lists
	counts   [aboutPhone + 1]int // dialogs by package
	agenda   agenda[*dialog]
	storm    struct {
		second instant
		n      int
	}
}

// A dialog is one subscription. There are many: it is to stay small.
type dialog struct {
	course
	about  eventPackage
	glance bool            // one look, that nobody is told of
	inPart bool            // the watcher takes partial documents (RFC 5263)
	access presence.Access // to the person
	tag    string          // ours
	peer   string          // Call-ID, the watcher's tag and the id of Event, see peerOf
	by     *watcher
	route  *Route
	theirs uint32 // the watcher's last CSeq

	of   *target         // whose presence, phone or watchers; nil for a list
	list *list           // nil: no list
	told uint64          // tag of what was told last; zero: nothing
	last *presence.State // the view that was told last, where a change of it may be told

	slot int32 // in the target's dialogs
	at   int32 // in the agenda
}

// peerOf makes one text of what tells dialogs apart beside our tag. None of it can
// hold a line break.
func peerOf(call, tag, id string) string { return call + "\n" + tag + "\n" + id }

func (d *dialog) place() *int32 { return &d.at }

// A list is what a subscription to several persons has beside.
type list struct {
	address string
	asked   bool     // the request contained the list
	members []string // all that are in it
	unknown []string // those whom nobody knows
	entries []*entry // the others
	full    bool     // all of them are to be told
}

// An entry is one resource of a list.
type entry struct {
	in     *dialog
	of     *target
	access presence.Access
	told   uint64
	news   bool
}

// A target is a person by one address: what is told names the address.
type target struct {
	address  string
	person   presence.ID
	next     *target         // the same person by another address
	revision uint64          // of the newest state that was seen
	removed  bool            // from the directory
	state    *presence.State // nil: to be asked for
	views    []viewed        // of the state
	dialogs  []*dialog       // of presence and dialog
	winfo    []*dialog
	entries  []*entry
}

// A viewed is the document of one view.
type viewed struct {
	access presence.Access
	doc    Document
}

// A watcher is somebody who watches, with the persons whom they do.
type watcher struct {
	presence.Subject
	n       int // dialogs, and entries of lists
	persons []watched
}

type watched struct {
	id presence.ID
	n  int // in how many subscriptions and entries
}

// NewSubscriptions makes a notifier without subscriptions. keep may be nil.
func NewSubscriptions(via string, limits Limits, gate presence.Gate, people Directory, encode Encoder, keep Keeper) *Subscriptions {
	if keep == nil {
		keep = func(string, *Record) {}
	}
	return &Subscriptions{
		via: via, limits: limits, gate: gate, people: people, encode: encode, keep: keep, seed: maphash.MakeSeed(),
		dialogs: map[string]*dialog{}, targets: map[string]*target{}, persons: map[presence.ID]*target{}, watchers: map[presence.Subject]*watcher{},
	}
}

// Len gives the number of subscriptions by event package.
func (s *Subscriptions) Len() map[string]int {
	return map[string]int{
		aboutPresence.String(): s.counts[aboutPresence], aboutWatchers.String(): s.counts[aboutWatchers], aboutPhone.String(): s.counts[aboutPhone],
	}
}

// Subscribe says how the request is answered, and appends to out the NOTIFYs that
// follow the answer.
func (s *Subscriptions) Subscribe(r *Subscribe, now time.Time, out []Notify) (Subscribed, []Notify) {
	about := packageOf(r.Event)
	if about == aboutNothing {
		return Subscribed{Code: 489}, out
	}
	if r.New {
		return s.begin(r, about, instantOf(now), out)
	}
	return s.again(r, about, instantOf(now), out)
}

// again takes a SUBSCRIBE in a dialog.
func (s *Subscriptions) again(r *Subscribe, about eventPackage, now instant, out []Notify) (Subscribed, []Notify) {
	d := s.dialogs[r.Dialog]
	if d == nil || d.peer != peerOf(r.Call, r.Tag, r.ID) || d.about != about || d.phase >= ending || now >= d.expires && !d.out {
		return Subscribed{Code: 481}, out
	}
	if d.by.Subject != r.Watcher || about == aboutWatchers && !r.Admin && !s.owns(r.Own, d.of.person) {
		return Subscribed{Code: 403}, out
	}
	if r.CSeq <= d.theirs { // RFC 3261 section 12.2.2
		return Subscribed{Code: 500}, out
	}
	if !acceptable(r.Accept, about, d.list != nil) {
		return Subscribed{Code: 406}, out
	}
	life, ok := s.limits.Life.grant(r.Expires)
	if !ok {
		return Subscribed{Code: 423, Expires: int(s.limits.Life.Min / time.Second)}, out
	}
	d.theirs, d.route, d.held, d.wait = r.CSeq, r.Route, false, 0
	a := Subscribed{Code: 200, List: d.list != nil}
	if life == 0 {
		d.finish(timedOut)
		return a, s.move(d, now, out)
	}
	life = s.spread(life, now)
	a.Expires = int(life / time.Second)
	d.pace = s.pace(r, about)
	s.look(d)
	if r.Match != "" && d.told != 0 && d.list == nil && !d.news && (r.Match == "*" || r.Match == EntityTag(d.told)) {
		d.expires = now.add(life)
		a.Code, a.Matched = 204, d.told
		d.of.forgetful()
	} else {
		d.subscribed(now.add(life))
		d.last = nil // in full
		if d.list != nil {
			s.enlistAgain(d)
		}
	}
	s.note(d, now)
	return a, s.move(d, now, out)
}

// begin takes a SUBSCRIBE that makes a dialog.
func (s *Subscriptions) begin(r *Subscribe, about eventPackage, now instant, out []Notify) (Subscribed, []Notify) {
	members, isList := r.List, r.List != nil
	if !isList && about == aboutPresence {
		members, isList = s.people.Members(r.Entity)
	}
	id, known := presence.ID(""), false
	if !isList {
		id, known = s.people.Find(r.Entity)
	}
	life, ok := s.limits.Life.grant(r.Expires)
	switch {
	case !known && !isList:
		return Subscribed{Code: 404}, out
	case isList && about != aboutPresence:
		return Subscribed{Code: 489}, out
	case about == aboutWatchers && !r.Admin && !s.owns(r.Own, id):
		return Subscribed{Code: 403}, out
	case isList && !r.Eventlist:
		return Subscribed{Code: 421}, out
	case !acceptable(r.Accept, about, isList):
		return Subscribed{Code: 406}, out
	case !ok:
		return Subscribed{Code: 423, Expires: int(s.limits.Life.Min / time.Second)}, out
	case len(members) > s.limits.PerList:
		return Subscribed{Code: 413}, out
	case s.entries+1+len(members) > s.limits.Most:
		return Subscribed{Code: 503}, out
	case s.dialogs[r.Dialog] != nil: // the tag is random
		return Subscribed{Code: 500}, out
	}
	by := s.watcher(r.Watcher)
	if by.n+1+len(members) > s.limits.PerPeer {
		return Subscribed{Code: 503}, out
	}
	d := &dialog{
		tag: r.Dialog, peer: peerOf(r.Call, r.Tag, r.ID), about: about, by: by, route: r.Route, theirs: r.CSeq,
		slot: absent, at: absent, glance: life == 0,
	}
	d.inPart = about == aboutPresence && !isList && slices.Contains(r.Accept, typePartial)
	d.pace = s.pace(r, about)
	if life > 0 {
		life = s.spread(life, now)
	}
	d.subscribed(now.add(life))
	s.join(d, r.Entity, id, isList, members, r.List != nil)
	if d.glance {
		d.finish(timedOut)
	} else {
		s.note(d, now)
	}
	return Subscribed{Code: 200, Expires: int(life / time.Second), List: isList}, s.move(d, now, out)
}

// join puts d where states come from.
func (s *Subscriptions) join(d *dialog, entity string, id presence.ID, isList bool, members []string, asked bool) {
	s.dialogs[d.tag] = d
	s.watchers[d.by.Subject] = d.by
	s.counts[d.about]++
	s.count(d, 1)
	d.phase = active
	if !isList {
		d.of = s.target(entity, id)
		switch d.about {
		case aboutWatchers:
			d.of.winfo = append(d.of.winfo, d)
		default:
			d.slot = int32(len(d.of.dialogs)) //nolint:gosec // bounded by the limits
			d.of.dialogs = append(d.of.dialogs, d)
			if d.access = s.admit(d, id); d.access.Level == presence.LevelConfirm {
				d.phase = pending
			}
			s.watchersChanged(d, id)
		}
		return
	}
	d.list = &list{address: entity, asked: asked}
	s.enlist(d, members)
}

// count counts n more dialogs or entries of the watcher of d.
func (s *Subscriptions) count(d *dialog, n int) {
	s.entries += n
	d.by.n += n
}

// enlist makes members the resources of the list d, who are to be told in full.
func (s *Subscriptions) enlist(d *dialog, members []string) {
	d.list.members, d.list.full = members, true
	for _, address := range members {
		member, known := s.people.Find(address)
		if !known {
			d.list.unknown = append(d.list.unknown, address)
			continue
		}
		t := s.target(address, member)
		if n := len(t.entries); n > 0 && t.entries[n-1].in == d {
			continue // stands in the list twice
		}
		e := &entry{in: d, of: t, access: s.admit(d, member), news: true}
		t.entries = append(t.entries, e)
		d.list.entries = append(d.list.entries, e)
		s.watchersChanged(d, member)
	}
	s.count(d, len(d.list.entries))
}

// unlist takes that back.
func (s *Subscriptions) unlist(d *dialog) {
	for _, e := range d.list.entries {
		e.of.entries = slices.DeleteFunc(e.of.entries, func(other *entry) bool { return other == e })
		s.dismiss(d, e.of.person)
		s.watchersChanged(d, e.of.person)
		s.leave(e.of)
	}
	s.count(d, -len(d.list.entries))
	d.list.entries, d.list.unknown = nil, nil
}

// enlistAgain has the list d be told in full, as it is now: people come to a group,
// and go.
func (s *Subscriptions) enlistAgain(d *dialog) {
	d.list.full = true
	if d.list.asked {
		return
	}
	members, ok := s.people.Members(d.list.address)
	if ok && len(members) <= s.limits.PerList && !slices.Equal(members, d.list.members) {
		s.unlist(d)
		s.enlist(d, members)
	}
}

// admit tells the gate that the watcher of d watches a person, or only asks for one look.
func (s *Subscriptions) admit(d *dialog, id presence.ID) presence.Access {
	who := presence.Watcher{Subject: d.by.Subject, Via: s.via}
	if d.glance {
		return s.gate.Access(who, id)
	}
	i := slices.IndexFunc(d.by.persons, func(p watched) bool { return p.id == id })
	if i < 0 {
		i = len(d.by.persons)
		d.by.persons = append(d.by.persons, watched{id: id})
	}
	d.by.persons[i].n++
	return s.gate.Admit(who, id)
}

// dismiss takes that back.
func (s *Subscriptions) dismiss(d *dialog, id presence.ID) {
	i := slices.IndexFunc(d.by.persons, func(p watched) bool { return p.id == id })
	if d.glance || i < 0 {
		return
	}
	if d.by.persons[i].n--; d.by.persons[i].n == 0 {
		d.by.persons = slices.Delete(d.by.persons, i, i+1)
		s.gate.Dismiss(presence.Watcher{Subject: d.by.Subject, Via: s.via}, id)
	}
}

// watcher gives the one of that subject, who is known with the first dialog and
// forgotten with the last one.
func (s *Subscriptions) watcher(who presence.Subject) *watcher {
	if w := s.watchers[who]; w != nil {
		return w
	}
	return &watcher{Subject: who}
}

// owns tells whether the address is one of the person.
func (s *Subscriptions) owns(address string, id presence.ID) bool {
	own, known := s.people.Find(address)
	return address != "" && known && own == id
}

// target gives the person by that address.
func (s *Subscriptions) target(address string, id presence.ID) *target {
	t := s.targets[address]
	if t != nil && t.person == id && !t.removed {
		return t
	}
	t = &target{address: address, person: id, next: s.persons[id]}
	s.targets[address], s.persons[id] = t, t
	return t
}

// shared tells whether what is known of t is worth being kept for others.
func (t *target) shared() bool { return len(t.dialogs)+len(t.entries) > 1 }

// current gives the newest state of t.
func (s *Subscriptions) current(t *target) *presence.State {
	if t.state == nil {
		state, _ := s.people.State(t.person)
		state.Person = t.person
		t.state, t.revision = &state, max(state.Revision, t.revision)
	}
	return t.state
}

// forgetful has t keep its state and views only where they are shared.
func (t *target) forgetful() {
	if !t.shared() && !t.removed {
		t.state, t.views = nil, nil
	}
}

// leave forgets a target that nobody watches.
func (s *Subscriptions) leave(t *target) {
	if len(t.dialogs)+len(t.winfo)+len(t.entries) > 0 {
		t.forgetful()
		return
	}
	if s.targets[t.address] == t {
		delete(s.targets, t.address)
	}
	first := s.persons[t.person]
	if first == t {
		first = t.next
	} else {
		for other := first; other != nil; other = other.next {
			if other.next == t {
				other.next = t.next
			}
		}
	}
	if first == nil {
		delete(s.persons, t.person)
		return
	}
	s.persons[t.person] = first
}

// pace gives what the request asks for, within limits. The lamp of a phone hears at
// once (RFC 4235 section 3.10 has about one second; ringing is shorter than that).
func (s *Subscriptions) pace(r *Subscribe, about eventPackage) pace {
	p := pace{gap: s.limits.Gap}
	switch about {
	case aboutPhone:
		p.gap = min(p.gap, leastGap)
	case aboutWatchers: // RFC 3857 section 4.9
		p.gap = max(p.gap, 5*time.Second)
	}
	if r.Least > 0 {
		p.gap = min(max(r.Least, leastGap), longGap)
	}
	if r.Often > 0 {
		p.most = min(max(r.Often, oftenGap), longGap)
	}
	return p
}

// spread shortens life by up to a fifth where many subscribe at once, so that
// they do not refresh at once.
func (s *Subscriptions) spread(life time.Duration, now instant) time.Duration {
	if second := now / instant(time.Second); second != s.storm.second {
		s.storm.second, s.storm.n = second, 0
	}
	if s.storm.n++; s.limits.StormPer == 0 || s.storm.n <= s.limits.StormPer {
		return life
	}
	part := time.Duration(maphash.Comparable(s.seed, s.storm)%1000) * life / 5000 //nolint:gosec // below 1000
	return max(life-part, min(life, s.limits.Life.Min)).Truncate(time.Second)
}

// EntityTag gives a tag as it stands in SIP-ETag.
func EntityTag(tag uint64) string { return strconv.FormatUint(tag, 16) }

// State takes the state of a person, as Hub.Watch gives it, and appends the NOTIFYs
// that follow.
func (s *Subscriptions) State(state presence.State, now time.Time, out []Notify) []Notify {
	removed := state.Why.Rule == presence.RuleRemoved
	var following *target
	for t := s.persons[state.Person]; t != nil; t = following {
		following = t.next // t goes with its last subscription
		if t.removed || state.Revision < t.revision && !removed {
			continue // the target was made after the hub gave this
		}
		if t.state == nil || state.Revision != t.state.Revision || removed {
			held := state // states of people whom nobody watches stay off the heap
			t.state, t.views = &held, nil
		}
		t.revision, t.removed = state.Revision, removed
		for _, list := range [][]*dialog{t.dialogs, t.winfo} {
			for _, d := range slices.Backward(list) { // move may take out the one that is looked at
				if removed {
					d.finish(noResource)
				} else {
					s.look(d)
				}
				out = s.move(d, instantOf(now), out)
			}
		}
		for _, e := range slices.Backward(t.entries) {
			s.lookAt(e)
			if e.news && !e.in.news {
				e.in.wait = max(e.in.wait, instantOf(now).add(gather))
				e.in.changed()
			}
			out = s.move(e.in, instantOf(now), out)
		}
		t.forgetful()
	}
	return out
}

// look finds out whether there is something to tell in d.
func (s *Subscriptions) look(d *dialog) {
	if d.of == nil || d.about == aboutWatchers {
		return
	}
	before := d.access
	d.access = s.gate.Access(presence.Watcher{Subject: d.by.Subject, Via: s.via}, d.of.person)
	if d.phase == pending && d.access.Level != presence.LevelConfirm {
		d.admitted()
		s.watchersChanged(d, d.of.person)
	}
	if !d.news && (before != d.access || d.told == 0 || s.tell(d) != d.told) {
		d.changed()
	}
}

// tell gives the tag of what there is to tell in d.
func (s *Subscriptions) tell(d *dialog) uint64 {
	if d.about == aboutPhone {
		view := presence.View(*s.current(d.of), d.access)
		return s.tagOf(s.encode.Phone(&view, d.of.address, 0))
	}
	return s.view(d.of, d.access).Tag
}

// lookAt is look for an entry of a list.
func (s *Subscriptions) lookAt(e *entry) {
	before := e.access
	e.access = s.gate.Access(presence.Watcher{Subject: e.in.by.Subject, Via: s.via}, e.of.person)
	if (before.Level == presence.LevelConfirm) != (e.access.Level == presence.LevelConfirm) {
		s.watchersChanged(e.in, e.of.person)
	}
	e.news = e.news || before != e.access || s.view(e.of, e.access).Tag != e.told
}

// view gives what a watcher with that access sees of t, encoded once.
func (s *Subscriptions) view(t *target, access presence.Access) Document {
	for i := range t.views {
		if t.views[i].access == access {
			return t.views[i].doc
		}
	}
	view := presence.View(*s.current(t), access)
	body := s.encode.Presence(&view, t.address)
	doc := Document{Type: typePresence, Body: body, Tag: s.tagOf(body)}
	t.views = append(t.views, viewed{access, doc})
	return doc
}

// watchersChanged has those be told who ask who watches a person, as d does.
func (s *Subscriptions) watchersChanged(d *dialog, id presence.ID) {
	if d.glance {
		return
	}
	for t := s.persons[id]; t != nil; t = t.next {
		for _, w := range t.winfo {
			w.changed()
			s.agenda.set(w, w.due())
		}
	}
}

// Answered takes the final answer to the NOTIFY of a dialog: its code, 408 where
// none came in time, 0 where there is no connection to the watcher any more, and
// what Retry-After says, or zero.
func (s *Subscriptions) Answered(dialog string, code int, after time.Duration, now time.Time, out []Notify) []Notify {
	d := s.dialogs[dialog]
	if d == nil || !d.out {
		return out
	}
	d.answered(code, after, instantOf(now))
	return s.move(d, instantOf(now), out)
}

// Next is when Advance may have something to do; zero: not before something happens.
func (s *Subscriptions) Next() time.Time { return s.agenda.next().time() }

// Advance appends the NOTIFYs whose time has come, at most limit of them.
func (s *Subscriptions) Advance(now time.Time, limit int, out []Notify) []Notify {
	for len(out) < limit {
		d, ok := s.agenda.due(instantOf(now))
		if !ok {
			break
		}
		out = s.move(d, instantOf(now), out)
	}
	return out
}

// move appends the NOTIFY of d that is to be sent now, if there is one, and sees to
// what follows from where d then stands.
func (s *Subscriptions) move(d *dialog, now instant, out []Notify) []Notify {
	if d.take(now) {
		out = append(out, s.notify(d, now))
		if d.phase == ending { // whatever the answer
			d.phase = over
		}
	}
	if d.phase == over {
		s.end(d)
		return out
	}
	s.agenda.set(d, d.due())
	return out
}

// end forgets d.
func (s *Subscriptions) end(d *dialog) {
	delete(s.dialogs, d.tag)
	s.agenda.drop(d)
	if !d.glance {
		s.keep(d.tag, nil)
	}
	s.counts[d.about]--
	s.count(d, -1)
	switch {
	case d.list != nil:
		s.unlist(d)
	case d.about == aboutWatchers:
		d.of.winfo = slices.DeleteFunc(slices.Clone(d.of.winfo), func(other *dialog) bool { return other == d })
		s.leave(d.of)
	default:
		last := len(d.of.dialogs) - 1
		moved := d.of.dialogs[last]
		d.of.dialogs[d.slot], moved.slot = moved, d.slot
		d.of.dialogs[last] = nil
		d.of.dialogs = d.of.dialogs[:last]
		s.dismiss(d, d.of.person)
		s.watchersChanged(d, d.of.person)
		s.leave(d.of)
	}
	if d.by.n == 0 {
		delete(s.watchers, d.by.Subject)
	}
}

// notify gives the NOTIFY that take has counted.
func (s *Subscriptions) notify(d *dialog, now instant) Notify {
	n := Notify{Dialog: d.tag, CSeq: d.cseq, Route: d.route, List: d.list != nil}
	switch {
	case d.phase == ending && d.reason == noResource:
		n.State = "terminated;reason=noresource"
	case d.phase == ending:
		n.State = "terminated;reason=timeout"
	case d.phase == pending:
		n.State = "pending;expires=" + strconv.Itoa(d.expires.seconds(now))
	default:
		n.State = "active;expires=" + strconv.Itoa(d.expires.seconds(now))
	}
	version := d.cseq - 1
	switch {
	case d.list != nil:
		n.Document = s.tellList(d, version)
	case d.about == aboutWatchers:
		n.Document = Document{Type: typeWatchers, Body: s.encode.Watchers(s.watching(d.of.person), d.of.address, version)}
		n.Document.Tag = s.tagOf(n.Document.Body)
	case d.about == aboutPhone:
		view := presence.View(*s.current(d.of), d.access)
		n.Document = Document{Type: typePhone, Body: s.encode.Phone(&view, d.of.address, version), Tag: s.tell(d)}
	default:
		n.Document = s.view(d.of, d.access)
		if d.inPart {
			view := presence.View(*s.current(d.of), d.access)
			n.Document.Type, n.Document.Body = typePartial, s.encode.Partial(d.last, &view, d.of.address, d.cseq)
			d.last = &view
		}
	}
	if d.of != nil {
		d.of.forgetful()
	}
	d.told = n.Document.Tag
	return n
}

// tellList gives the document of a list: of what changed, or in full.
func (s *Subscriptions) tellList(d *dialog, version uint32) Document {
	full := d.list.full || d.phase == ending
	var resources []Listed
	for _, e := range d.list.entries {
		if !full && !e.news {
			continue
		}
		doc := s.view(e.of, e.access)
		e.told, e.news = doc.Tag, false
		resources = append(resources, Listed{Address: e.of.address, Pending: e.access.Level == presence.LevelConfirm, Body: doc.Body})
	}
	if full {
		for _, address := range d.list.unknown {
			resources = append(resources, Listed{Address: address})
		}
	}
	d.list.full = false
	body, mediaType := s.encode.List(resources, d.list.address, version, full)
	return Document{Type: mediaType, Body: body, Tag: s.tagOf(body)}
}

// watching gives who watches the person, sorted.
func (s *Subscriptions) watching(id presence.ID) []Watching {
	var all []Watching
	for t := s.persons[id]; t != nil; t = t.next {
		for _, d := range t.dialogs {
			if d.about == aboutPresence && d.phase < ending {
				all = append(all, Watching{d.tag, d.by.Subject, d.phase == pending})
			}
		}
		for _, e := range t.entries {
			if e.in.phase < ending {
				all = append(all, Watching{e.in.tag, e.in.by.Subject, e.access.Level == presence.LevelConfirm})
			}
		}
	}
	slices.SortFunc(all, func(a, b Watching) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// note has d be kept.
func (s *Subscriptions) note(d *dialog, now instant) {
	peer := strings.Split(d.peer, "\n")
	r := &Record{
		Dialog: d.tag, Call: peer[0], Tag: peer[1], ID: peer[2], Watcher: d.by.Subject, Event: d.about.String(),
		InPart: d.inPart, CSeq: d.cseq, Theirs: d.theirs, Gap: d.pace.gap, Most: d.pace.most, At: now.time(), Expires: d.expires.time(), Route: d.route,
	}
	if d.list != nil {
		r.Entity, r.IsList = d.list.address, true
		if d.list.asked {
			r.List = d.list.members
		}
	} else {
		r.Entity = d.of.address
	}
	s.keep(d.tag, r)
}

// Restore puts back a subscription that was kept. Its watcher is told the state
// soon, one after the other; where the way there went with the restart (held), after the
// next SUBSCRIBE. false means that it is worth nothing any more.
//
// The CSeq goes on above every one that can have been used: a record is written at
// each SUBSCRIBE, and between two of them the pace bounds how many NOTIFYs were
// sent. So nothing is written when a NOTIFY is.
func (s *Subscriptions) Restore(r *Record, held bool, now time.Time) bool {
	about := packageOf(r.Event)
	if about == aboutNothing || !r.Expires.After(now) || r.Expires.After(now.Add(s.limits.Life.Max)) || s.dialogs[r.Dialog] != nil || r.Dialog == "" {
		return false
	}
	members, isList := r.List, r.IsList
	if isList && members == nil {
		if members, isList = s.people.Members(r.Entity); !isList {
			return false
		}
	}
	var id presence.ID
	if !isList {
		var known bool
		if id, known = s.people.Find(r.Entity); !known {
			return false
		}
	}
	d := &dialog{
		tag: r.Dialog, peer: peerOf(r.Call, r.Tag, r.ID), about: about, by: s.watcher(r.Watcher), route: r.Route, theirs: r.Theirs, inPart: r.InPart,
		slot: absent, at: absent,
	}
	used := max(now.Sub(r.At), 0) / leastGap
	d.cseq = r.CSeq + reserve + uint32(min(used, 1<<20)) //nolint:gosec // bounded
	d.expires, d.held, d.news = instantOf(r.Expires), held, true
	d.pace = pace{max(r.Gap, leastGap), r.Most}
	d.wait = instantOf(now).add(time.Duration(len(s.dialogs)) * restoring)
	s.join(d, r.Entity, id, isList, members, r.List != nil)
	s.note(d, instantOf(now))
	s.agenda.set(d, d.due())
	return true
}

// Reroute has the NOTIFYs of a dialog take another way, where that of before is
// still the one that failed.
func (s *Subscriptions) Reroute(dialog string, failed, other *Route) {
	if d := s.dialogs[dialog]; d != nil && d.route == failed {
		d.route = other
	}
}

// Hold says that there is no way any more to the watchers whose routes are lost,
// until they subscribe again.
func (s *Subscriptions) Hold(lost func(*Route) bool) {
	for _, d := range s.dialogs {
		if lost(d.route) {
			d.held = true
			s.agenda.set(d, d.due())
		}
	}
}

// acceptable tells whether the subscriber reads what would be sent (RFC 6665
// section 3.1.3). Who does not say reads the default of the package.
func acceptable(accept []string, about eventPackage, isList bool) bool {
	if accept == nil && !isList {
		return true
	}
	has := func(mediaType string) bool {
		major, _, _ := strings.Cut(mediaType, "/")
		return slices.Contains(accept, mediaType) || slices.Contains(accept, "*/*") || slices.Contains(accept, major+"/*")
	}
	switch {
	case isList: // who supports lists reads them, whatever is said (RFC 4662 section 4.4)
		return accept == nil || has(typeList) || has(typeParts)
	case about == aboutPhone:
		return has(typePhone)
	case about == aboutWatchers:
		return has(typeWatchers)
	}
	return has(typePresence) || has(typePartial)
}
