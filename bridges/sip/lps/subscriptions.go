package lps

import (
	"cmp"
	"crypto/rand"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/presence"
)

// The event packages.
const (
	eventPresence = "presence"
	eventWatchers = "presence.winfo"
	eventPhone    = "dialog"
)

// A Subscribe is a SUBSCRIBE request, as far as the notifier looks at it. The
// watcher is known by a password, a certificate, or as nobody.
type Subscribe struct {
	Watcher presence.Subject
	Admin   bool   // may ask who watches others
	Own     string // the watcher's own address

	Entity    string // the presentity or list of the Request-URI, in canonical form
	Call      string // Call-ID
	Tag       string // of From
	Dialog    string // tag of To; empty: a new subscription
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

	Route any // the way to the watcher; comes back in each Notify
}

// A Subscribed is how a SUBSCRIBE is answered.
type Subscribed struct {
	Code    int
	Expires int    // seconds granted; with 423 the least that would be
	Dialog  string // our tag of the dialog, with 200 and 204
	List    bool   // the answer has Require: eventlist
	Matched uint64 // with 204: the entity-tag that matched
}

// A Notify is a NOTIFY to be sent. Its answer goes to Answered.
type Notify struct {
	Dialog    string // our tag of the dialog
	CSeq      uint32
	Event, ID string
	State     string // value of Subscription-State
	List      bool   // Require: eventlist
	Document  Document
	Route     any
}

// A Record is what is kept of a subscription over a restart. CSeq is one that was
// not used yet, and none above it.
type Record struct {
	Dialog, Call, Tag string
	Watcher           presence.Subject
	Admin             bool `json:",omitempty"`
	Entity            string
	Event             string
	ID                string        `json:",omitempty"`
	List              []string      `json:",omitempty"`
	IsList            bool          `json:",omitempty"`
	CSeq, Peer        uint32        // ours, and the watcher's
	Gap, Most         time.Duration `json:",omitempty"`
	Expires           time.Time

	Route any `json:"-"`
}

// Limits of subscriptions.
type Limits struct {
	Life     Life
	Gap      time.Duration // between two NOTIFYs of a subscription that does not ask for another
	Most     int           // subscriptions and entries of lists in all
	PerPeer  int           // of one watcher
	PerList  int           // entries of one list
	StormPer int           // subscriptions in a second from which on expiries are spread; zero: never
}

// Times between NOTIFYs that a subscription may ask for.
const (
	leastGap  = 250 * time.Millisecond
	longGap   = 10 * time.Minute
	oftenGap  = 5 * time.Second
	gather    = 250 * time.Millisecond // how long changes of a list are gathered
	reserve   = 1000                   // by how many the kept CSeq is ahead
	restoring = 10 * time.Second       // over which the first NOTIFYs after a restart are spread
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
	boot     string // makes the tags differ from those before a restart
	count    uint64
	dialogs  map[string]*dialog
	targets  map[string]*target        // by address
	persons  map[presence.ID][]*target // by who it is
	watchers map[presence.Subject]*watcher
	entries  int // dialogs, and entries of lists
	agenda   agenda[*dialog]
	storm    struct {
		second instant
		n      int
	}
}

// A dialog is one subscription.
type dialog struct {
	course
	tag, call, peer string // our tag, Call-ID, the watcher's tag
	event           string
	id              string
	by              *watcher
	admin           bool
	glance          bool // one look, that nobody is told of
	route           any
	theirs          uint32 // the watcher's last CSeq
	reserved        uint32 // the CSeq that is kept

	of     *target         // whose presence, phone or watchers; nil for a list
	access presence.Access // to that person
	told   uint64          // tag of what was told last; zero: nothing
	list   *list           // nil: no list

	slot int32 // in the target's dialogs
	at   int32 // in the agenda
}

func (d *dialog) place() *int32 { return &d.at }

// A list is what a subscription to several persons has beside.
type list struct {
	address string
	asked   []string // where the request contained the list
	entries []*entry
	full    bool // all of them are to be told
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
	address string
	person  presence.ID
	state   presence.State
	dialogs []*dialog // of presence and dialog
	winfo   []*dialog
	entries []*entry
	views   []viewed // of the state
}

// A viewed is the document of one view.
type viewed struct {
	access presence.Access
	doc    Document
}

// A watcher is somebody who watches, with the persons whom they do.
type watcher struct {
	presence.Subject
	dialogs int
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
		via: via, limits: limits, gate: gate, people: people, encode: encode, keep: keep, seed: maphash.MakeSeed(), boot: rand.Text()[:12],
		dialogs: map[string]*dialog{}, targets: map[string]*target{}, persons: map[presence.ID][]*target{}, watchers: map[presence.Subject]*watcher{},
	}
}

// Len gives the number of subscriptions by event package.
func (s *Subscriptions) Len() map[string]int {
	n := map[string]int{}
	for _, d := range s.dialogs {
		n[d.event]++
	}
	return n
}

// Subscribe says how the request is answered, and appends to out the NOTIFYs that
// follow the answer.
func (s *Subscriptions) Subscribe(r *Subscribe, now time.Time, out []Notify) (Subscribed, []Notify) {
	switch r.Event {
	case eventPresence, eventWatchers, eventPhone:
	default:
		return Subscribed{Code: 489}, out
	}
	if r.Dialog != "" {
		return s.again(r, instantOf(now), out)
	}
	return s.begin(r, instantOf(now), out)
}

// again takes a SUBSCRIBE in a dialog.
func (s *Subscriptions) again(r *Subscribe, now instant, out []Notify) (Subscribed, []Notify) {
	d := s.dialogs[r.Dialog]
	if d == nil || d.call != r.Call || d.peer != r.Tag || d.event != r.Event || d.id != r.ID || d.phase >= ending || now >= d.expires && !d.out {
		return Subscribed{Code: 481}, out
	}
	if d.by.Subject != r.Watcher {
		return Subscribed{Code: 403}, out
	}
	if r.CSeq <= d.theirs { // RFC 3261 section 12.2.2
		return Subscribed{Code: 500}, out
	}
	if !acceptable(r.Accept, d.event, d.list != nil) {
		return Subscribed{Code: 406}, out
	}
	life, ok := s.limits.Life.grant(r.Expires)
	if !ok {
		return Subscribed{Code: 423, Expires: int(s.limits.Life.Min / time.Second)}, out
	}
	d.theirs, d.route = r.CSeq, r.Route
	a := Subscribed{Code: 200, Dialog: d.tag, List: d.list != nil}
	if life == 0 {
		d.finish(timedOut)
		return a, s.move(d, now, out)
	}
	life = s.spread(life, now)
	a.Expires = int(life / time.Second)
	d.pace = s.pace(r, d.event)
	s.look(d)
	if r.Match != "" && d.told != 0 && d.list == nil && !d.news && (r.Match == "*" || r.Match == EntityTag(d.told)) {
		d.expires, d.held, d.wait = now.add(life), false, 0
		a.Code, a.Matched = 204, d.told
	} else {
		d.subscribed(now.add(life))
		if d.list != nil {
			d.list.full = true
		}
	}
	s.note(d)
	return a, s.move(d, now, out)
}

// begin takes a SUBSCRIBE that makes a dialog.
func (s *Subscriptions) begin(r *Subscribe, now instant, out []Notify) (Subscribed, []Notify) {
	members, isList := r.List, r.List != nil
	if !isList && r.Event == eventPresence {
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
	case isList && r.Event != eventPresence:
		return Subscribed{Code: 489}, out
	case r.Event == eventWatchers && !r.Admin && !s.owns(r.Own, id):
		return Subscribed{Code: 403}, out
	case isList && !r.Eventlist:
		return Subscribed{Code: 421}, out
	case !acceptable(r.Accept, r.Event, isList):
		return Subscribed{Code: 406}, out
	case !ok:
		return Subscribed{Code: 423, Expires: int(s.limits.Life.Min / time.Second)}, out
	case len(members) > s.limits.PerList:
		return Subscribed{Code: 413}, out
	case s.entries+1+len(members) > s.limits.Most:
		return Subscribed{Code: 503}, out
	}
	by := s.watcher(r.Watcher)
	if by.dialogs >= s.limits.PerPeer {
		return Subscribed{Code: 503}, out
	}
	s.count++
	d := &dialog{
		tag: s.boot + strconv.FormatUint(s.count, 36), call: r.Call, peer: r.Tag, event: r.Event, id: r.ID,
		by: by, admin: r.Admin, route: r.Route, theirs: r.CSeq, slot: absent, at: absent, glance: life == 0,
	}
	d.pace = s.pace(r, d.event)
	if life > 0 {
		life = s.spread(life, now)
	}
	d.subscribed(now.add(life))
	s.join(d, r.Entity, id, isList, members, r.List != nil)
	if d.glance {
		d.finish(timedOut)
	} else {
		s.note(d)
	}
	return Subscribed{Code: 200, Expires: int(life / time.Second), Dialog: d.tag, List: isList}, s.move(d, now, out)
}

// join puts d where states come from.
func (s *Subscriptions) join(d *dialog, entity string, id presence.ID, isList bool, members []string, asked bool) {
	s.dialogs[d.tag] = d
	s.watchers[d.by.Subject] = d.by
	d.by.dialogs++
	s.entries++
	d.phase = active
	if !isList {
		d.of = s.target(entity, id)
		switch d.event {
		case eventWatchers:
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
	d.list = &list{address: entity, full: true}
	if asked {
		d.list.asked = members
	}
	for _, address := range members {
		member, known := s.people.Find(address)
		if !known {
			continue
		}
		t := s.target(address, member)
		if n := len(t.entries); n > 0 && t.entries[n-1].in == d {
			continue // stands in the list twice
		}
		e := &entry{in: d, of: t, access: s.admit(d, member), news: true}
		t.entries = append(t.entries, e)
		d.list.entries = append(d.list.entries, e)
		s.entries++
		s.watchersChanged(d, member)
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

// target gives the person by that address, with the state.
func (s *Subscriptions) target(address string, id presence.ID) *target {
	t := s.targets[address]
	if t != nil && t.person == id && t.state.Why.Rule != presence.RuleRemoved {
		return t
	}
	t = &target{address: address, person: id}
	t.state, _ = s.people.State(id)
	t.state.Person = id
	s.targets[address] = t
	s.persons[id] = append(s.persons[id], t)
	return t
}

// leave forgets a target that nobody watches.
func (s *Subscriptions) leave(t *target) {
	if len(t.dialogs)+len(t.winfo)+len(t.entries) > 0 {
		return
	}
	if s.targets[t.address] == t {
		delete(s.targets, t.address)
	}
	rest := slices.DeleteFunc(s.persons[t.person], func(other *target) bool { return other == t })
	if len(rest) == 0 {
		delete(s.persons, t.person)
		return
	}
	s.persons[t.person] = rest
}

// pace gives what the request asks for, within limits. The lamp of a phone hears at
// once (RFC 4235 section 3.10 has about one second; ringing is shorter than that).
func (s *Subscriptions) pace(r *Subscribe, event string) pace {
	p := pace{gap: s.limits.Gap}
	switch event {
	case eventPhone:
		p.gap = min(p.gap, leastGap)
	case eventWatchers: // RFC 3857 section 4.9
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
	part := time.Duration(maphash.Comparable(s.seed, s.count+uint64(s.storm.n))%1000) * life / 5000 //nolint:gosec // a count; below 1000
	return max(life-part, min(life, s.limits.Life.Min)).Truncate(time.Second)
}

// EntityTag gives a tag as it stands in SIP-ETag.
func EntityTag(tag uint64) string { return strconv.FormatUint(tag, 16) }

// State takes the state of a person, as Hub.Watch gives it, and appends the NOTIFYs
// that follow.
func (s *Subscriptions) State(state presence.State, now time.Time, out []Notify) []Notify {
	removed := state.Why.Rule == presence.RuleRemoved
	for _, t := range slices.Clone(s.persons[state.Person]) {
		if state.Revision < t.state.Revision && !removed && t.state.Why.Rule != presence.RuleRemoved {
			continue // the target was made after the hub gave this
		}
		if state.Revision != t.state.Revision || removed {
			t.state, t.views = state, nil
		}
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
		if len(t.dialogs)+len(t.entries) < 2 {
			t.views = nil
		}
	}
	return out
}

// look finds out whether there is something to tell in d.
func (s *Subscriptions) look(d *dialog) {
	if d.of == nil || d.event == eventWatchers {
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
	if d.event == eventPhone {
		view := presence.View(d.of.state, d.access)
		return s.tagOf(s.encode.Phone(&view, d.of.address, 0))
	}
	return s.view(d.of, d.access).Tag
}

// lookAt is look for an entry of a list.
func (s *Subscriptions) lookAt(e *entry) {
	before := e.access
	e.access = s.gate.Access(presence.Watcher{Subject: e.in.by.Subject, Via: s.via}, e.of.person)
	e.news = e.news || before != e.access || s.view(e.of, e.access).Tag != e.told
}

// view gives what a watcher with that access sees of t, encoded once.
func (s *Subscriptions) view(t *target, access presence.Access) Document {
	for i := range t.views {
		if t.views[i].access == access {
			return t.views[i].doc
		}
	}
	view := presence.View(t.state, access)
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
	for _, t := range s.persons[id] {
		for _, w := range t.winfo {
			w.changed()
			s.agenda.set(w, w.due())
		}
	}
}

// Answered takes the final answer to the NOTIFY of a dialog: its code, 408 where
// none came or it could not be sent, and what Retry-After says, or zero.
func (s *Subscriptions) Answered(dialog string, code int, after time.Duration, now time.Time, out []Notify) []Notify {
	d := s.dialogs[dialog]
	if d == nil || !d.out {
		return out
	}
	d.answered(code, after, instantOf(now))
	return s.move(d, instantOf(now), out)
}

// Next is when Advance is due; zero: not before something happens.
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
		if d.phase < ending && d.cseq+reserve/2 > d.reserved {
			s.note(d)
		}
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
	s.agenda.set(d, 0)
	if !d.glance {
		s.keep(d.tag, nil)
	}
	s.entries--
	d.by.dialogs--
	switch {
	case d.list != nil:
		for _, e := range d.list.entries {
			e.of.entries = slices.DeleteFunc(e.of.entries, func(other *entry) bool { return other == e })
			s.dismiss(d, e.of.person)
			s.watchersChanged(d, e.of.person)
			s.leave(e.of)
			s.entries--
		}
	case d.event == eventWatchers:
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
	if d.by.dialogs == 0 {
		delete(s.watchers, d.by.Subject)
	}
}

// notify gives the NOTIFY that take has counted.
func (s *Subscriptions) notify(d *dialog, now instant) Notify {
	n := Notify{Dialog: d.tag, CSeq: d.cseq, Event: d.event, ID: d.id, Route: d.route, List: d.list != nil}
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
	case d.event == eventWatchers:
		n.Document = Document{Type: typeWatchers, Body: s.encode.Watchers(s.watching(d.of.person), d.of.address, version)}
		n.Document.Tag = s.tagOf(n.Document.Body)
	case d.event == eventPhone:
		view := presence.View(d.of.state, d.access)
		n.Document = Document{Type: typePhone, Body: s.encode.Phone(&view, d.of.address, version), Tag: s.tell(d)}
	default:
		n.Document = s.view(d.of, d.access)
		if len(d.of.dialogs)+len(d.of.entries) < 2 {
			d.of.views = nil // nobody shares it
		}
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
	d.list.full = false
	body, mediaType := s.encode.List(resources, d.list.address, version, full)
	return Document{Type: mediaType, Body: body, Tag: s.tagOf(body)}
}

// watching gives who watches the person, sorted.
func (s *Subscriptions) watching(id presence.ID) []Watching {
	var all []Watching
	for _, t := range s.persons[id] {
		for _, d := range t.dialogs {
			if d.event == eventPresence && d.phase < ending {
				all = append(all, watchingOf(d, d.phase == pending))
			}
		}
		for _, e := range t.entries {
			if e.in.phase < ending {
				all = append(all, watchingOf(e.in, e.access.Level == presence.LevelConfirm))
			}
		}
	}
	slices.SortFunc(all, func(a, b Watching) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func watchingOf(d *dialog, pends bool) Watching {
	w := Watching{ID: d.tag, Watcher: d.by.Subject, Pending: pends, Event: "approved"}
	if pends {
		w.Event = "subscribe"
	}
	return w
}

// note has d be kept.
func (s *Subscriptions) note(d *dialog) {
	d.reserved = d.cseq + reserve
	s.keep(d.tag, d.record())
}

func (d *dialog) record() *Record {
	r := &Record{
		Dialog: d.tag, Call: d.call, Tag: d.peer, Watcher: d.by.Subject, Admin: d.admin, Event: d.event, ID: d.id,
		CSeq: d.reserved, Peer: d.theirs, Gap: d.pace.gap, Most: d.pace.most, Expires: d.expires.time(), Route: d.route,
	}
	if d.list != nil {
		r.Entity, r.List, r.IsList = d.list.address, d.list.asked, true
	} else {
		r.Entity = d.of.address
	}
	return r
}

// Restore puts back a subscription that was kept. Its watcher is told the state
// within some seconds; where the way there went with the restart (held), after the
// next SUBSCRIBE. false means that it is worth nothing any more.
func (s *Subscriptions) Restore(r *Record, held bool, now time.Time) bool {
	if !r.Expires.After(now) || r.Expires.After(now.Add(s.limits.Life.Max)) || s.dialogs[r.Dialog] != nil || r.Dialog == "" {
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
		tag: r.Dialog, call: r.Call, peer: r.Tag, event: r.Event, id: r.ID, by: s.watcher(r.Watcher), admin: r.Admin,
		route: r.Route, theirs: r.Peer, slot: absent, at: absent,
	}
	d.cseq, d.expires, d.held, d.news = r.CSeq, instantOf(r.Expires), held, true
	d.pace = pace{r.Gap, r.Most}
	d.wait = instantOf(now).add(time.Duration(maphash.String(s.seed, d.tag) % uint64(restoring))) //nolint:gosec // below ten seconds
	s.join(d, r.Entity, id, isList, members, r.List != nil)
	s.note(d)
	s.agenda.set(d, d.due())
	return true
}

// acceptable tells whether the subscriber reads what would be sent (RFC 6665
// section 3.1.3). Who does not say reads the default of the package.
func acceptable(accept []string, event string, isList bool) bool {
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
	case event == eventPhone:
		return has(typePhone)
	case event == eventWatchers:
		return has(typeWatchers)
	}
	return has(typePresence)
}
