package xmpp

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"presenced/aggregator/presence"
)

// A book is the subscription machine: who watches whom, and what each watcher
// was sent last (RFC 6121, sections 3 and 4). It does no I/O and asks no clock:
// what is to be sent is taken out with urgent, nextLive and nextResync, what is
// to be kept with saves.
//
// Nothing is queued per change: a watcher waits once, and gets what is true when
// its turn comes. So no queue is longer than the list of subscriptions, and who
// is slow skips states, never the newest.
//
// What a watcher sees is what the gate gives it. The gate is asked when a watcher
// asks, and again when the person's state is shown, which it is after each change
// of a rule. A request at LevelConfirm is kept, and not answered until that level
// is left; a watcher at LevelBlock is accepted, and sees somebody who is offline.
type book struct {
	host     string
	via      string // the name of the bridge
	gate     presence.Gate
	mapping  mapping
	contacts map[string]*contact // by local part
	urgent   []byte              // answers, complete stanzas
	live     []*watch
	resync   []*watch
	settled  bool              // the first complete account is in, and resync is planned
	dirty    map[*contact]bool // to be kept; true: at once
	pressing bool              // something is to be kept at once
	refused  int               // subscriptions refused for want of room
}

// A contact is an address, whether or not it is somebody's now. One that is not
// keeps its watchers: a directory that fails must not cost subscriptions.
type contact struct {
	local    string
	who      *resident         // nil: the address is nobody's
	views    []view            // of who as it is now, one for each access that was asked for
	watchers map[string]*watch // by bare JID
	welcome  []string          // who is to be welcomed once this is kept
}

// A view is what a contact shows to all watchers with one access.
type view struct {
	access presence.Access
	faces  faces
	hashes [resourceCount]uint64
}

// A watch is one subscription.
type watch struct {
	contact *contact
	jid     string                // bare
	access  presence.Access       // as the gate said last
	sent    [resourceCount]uint64 // hash of what each resource showed last; zero: unavailable
	at      time.Time             // when something was sent last
	durable bool                  // kept, so that it may be acknowledged
	joined  bool                  // acknowledged
	queued  bool                  // in live
	fresh   bool                  // was sent what is true on this stream
	force   bool                  // in resync: send even what should be known
	muted   bool                  // sends errors; wants nothing before it asks
	gone    bool                  // unsubscribed
}

// maxWatchers bounds the record of one contact.
const maxWatchers = 2000

func newBook(host, via string, m mapping, gate presence.Gate) *book {
	return &book{host: host, via: via, gate: gate, mapping: m, contacts: map[string]*contact{}, dirty: map[*contact]bool{}}
}

// A record is a contact as it is kept.
type record struct {
	Local    string            `json:"local"`
	Watchers map[string]*trace `json:"watchers"`
}

// A trace is what a watcher was sent last.
type trace struct {
	Sent map[string]uint64 `json:"sent,omitempty"` // by resource
	At   time.Time         `json:"at,omitzero"`

	Asked bool `json:"asked,omitempty"` // and was not answered yet
}

// recordKey gives the key of a contact: any local part as a word that every store takes.
func recordKey(local string) string {
	sum := sha256.Sum256([]byte(local))
	return hex.EncodeToString(sum[:20])
}

// load takes what was kept, and gives how many records could not be read.
func (b *book) load(kept map[string][]byte) (bad int) {
	for _, value := range kept {
		var r record
		if err := json.Unmarshal(value, &r); err != nil || r.Local == "" {
			bad++
			continue
		}
		c := b.contact(r.Local)
		for jid, t := range r.Watchers {
			if t == nil {
				t = &trace{}
			}
			w := &watch{contact: c, jid: jid, at: t.At, durable: true, joined: !t.Asked}
			for i := range resourceCount {
				w.sent[i] = t.Sent[i.String()]
			}
			c.watchers[jid] = w
		}
	}
	return bad
}

func (b *book) contact(local string) *contact {
	c := b.contacts[local]
	if c == nil {
		c = &contact{local: local, watchers: map[string]*watch{}}
		b.contacts[local] = c
	}
	return c
}

func (c *contact) bare(host string) string { return c.local + "@" + host }

// A save is a contact to be kept; without value it is to be forgotten.
type save struct {
	local   string
	value   []byte
	welcome []string // watchers to welcome when it is durable
}

// saves gives what is to be kept since the last call: what is to be kept at once,
// or all. A record holds all watchers of a contact, so all is not to be asked for
// with every stanza.
func (b *book) saves(all bool) []save {
	if !all && !b.pressing {
		return nil
	}
	b.pressing = false
	var out []save
	for c, now := range b.dirty {
		if !now && !all {
			continue
		}
		delete(b.dirty, c)
		s := save{local: c.local, welcome: c.welcome}
		c.welcome = nil
		if len(c.watchers) > 0 {
			s.value = c.record()
		} else if c.who == nil && b.contacts[c.local] == c {
			delete(b.contacts, c.local)
		}
		out = append(out, s)
	}
	return out
}

func (c *contact) record() []byte {
	r := record{Local: c.local, Watchers: make(map[string]*trace, len(c.watchers))}
	for jid, w := range c.watchers {
		t := &trace{At: w.at, Asked: !w.joined}
		for i, hash := range w.sent {
			if hash != 0 {
				if t.Sent == nil {
					t.Sent = map[string]uint64{}
				}
				t.Sent[resource(i).String()] = hash
			}
		}
		r.Watchers[jid] = t
	}
	value, err := json.Marshal(r)
	if err != nil { // strings, numbers and a time of the clock always marshal
		return nil
	}
	return value
}

// keep notes that c is to be kept, at once if a subscription began or ended.
func (b *book) keep(c *contact, now bool) {
	b.dirty[c] = b.dirty[c] || now
	b.pressing = b.pressing || now
}

// show takes what an address shows from now on, and asks the gate anew.
func (b *book) show(s showing) {
	c := b.contacts[s.local]
	if c == nil {
		if s.who == nil {
			return
		}
		c = b.contact(s.local)
	}
	was := c.who
	c.who, c.views = s.who, c.views[:0]
	if _, unsaved := b.dirty[c]; c.who == nil && len(c.watchers) == 0 && !unsaved {
		delete(b.contacts, c.local)
		return
	}
	for _, w := range c.watchers {
		if was != nil && (c.who == nil || c.who.id != was.id) {
			b.gate.Dismiss(asWatcher(w.jid, b.via), was.id)
		}
		b.admit(w)
		b.enqueue(w)
	}
}

// asWatcher gives the user of a bare JID as the gate knows them.
func asWatcher(jid, via string) presence.Watcher {
	return presence.Watcher{Subject: presence.Subject{Scheme: "jid", Value: jid}, Via: via}
}

// admit asks the gate what w may see.
func (b *book) admit(w *watch) {
	if who := w.contact.who; who != nil {
		w.access = b.gate.Admit(asWatcher(w.jid, b.via), who.id)
	}
}

// view gives what w sees, which is made once for all watchers with that access.
func (b *book) view(w *watch) *view {
	c := w.contact
	if c.who == nil {
		return &view{}
	}
	for i := range c.views {
		if c.views[i].access == w.access {
			return &c.views[i]
		}
	}
	v := view{access: w.access, faces: b.mapping.facesOf(presence.View(c.who.state, w.access))}
	for i := range v.faces {
		v.hashes[i] = v.faces[i].hash()
	}
	c.views = append(c.views, v)
	return &c.views[len(c.views)-1]
}

// enqueue lets w wait for its turn if it is owed something.
func (b *book) enqueue(w *watch) {
	if !b.settled || w.queued || w.muted || !b.owed(w) {
		return
	}
	w.queued = true
	b.live = append(b.live, w)
}

// owed tells whether w has not seen what is true, or is to be acknowledged.
func (b *book) owed(w *watch) bool {
	if !w.joined {
		return w.durable && w.contact.who != nil && w.access.Level != presence.LevelConfirm
	}
	return w.sent != b.view(w).hashes
}

// subscribed tells whether the bare JID watches that address, and was told so.
func (b *book) subscribed(local, watcher string) bool {
	c := b.contacts[local]
	return c != nil && c.watchers[watcher] != nil && c.watchers[watcher].joined
}

// receive takes a presence stanza. allowed is the policy's word on the sender.
func (b *book) receive(st *stanza, allowed bool, now time.Time) {
	local, _, _ := splitJID(st.to)
	from := bareJID(st.from)
	c := b.contacts[local]
	var w *watch
	if c != nil {
		w = c.watchers[from]
	}
	switch st.typ {
	case "subscribe":
		b.subscribe(c, w, st, allowed, now)
	case "probe":
		if w == nil || !allowed {
			b.answer("unsubscribed", bareJID(st.to), from)
			return
		}
		b.tell(w, st.from, now)
	case "":
		// Some servers deliver the probes that came while the component was away
		// as available presence; this is never a reason to answer a stranger.
		if w != nil && allowed {
			b.tell(w, st.from, now)
		}
	case "unsubscribe", "unsubscribed":
		// Removal from a roster comes as the second, also from a full JID.
		if w != nil {
			b.end(w)
		} else if st.typ == "unsubscribe" {
			b.answer("unsubscribed", bareJID(st.to), from)
		}
	case "error":
		if _, _, resource := splitJID(st.from); w != nil && resource == "" {
			w.muted = true
		}
	default: // unavailable, subscribed, and what no RFC names
	}
}

func (b *book) answer(typ, from, to string) {
	b.urgent = appendSubscription(b.urgent, typ, from, to)
}

func (b *book) subscribe(c *contact, w *watch, st *stanza, allowed bool, now time.Time) {
	from := bareJID(st.from)
	switch {
	case c == nil || c.who == nil || !allowed:
		if w != nil {
			b.end(w)
			return
		}
		b.answer("unsubscribed", bareJID(st.to), from)
	case w == nil && len(c.watchers) >= maxWatchers:
		b.refused++
		b.answer("unsubscribed", bareJID(st.to), from)
	case w == nil:
		// Nothing is acknowledged before it is durable: welcome follows.
		w = &watch{contact: c, jid: from}
		b.admit(w)
		c.watchers[from] = w
		c.welcome = append(c.welcome, from)
		b.keep(c, true)
	default:
		b.admit(w)
		if w.joined {
			b.greet(w, now)
		} else {
			b.enqueue(w)
		}
	}
}

// welcome takes that a subscription is durable now, and acknowledges it unless it
// is to be confirmed first.
func (b *book) welcome(local, watcher string, now time.Time) {
	c := b.contacts[local]
	if c == nil || c.watchers[watcher] == nil {
		return
	}
	w := c.watchers[watcher]
	w.durable = true
	if w.joined || b.owed(w) {
		b.greet(w, now)
	}
}

func (b *book) greet(w *watch, now time.Time) {
	w.joined, w.muted = true, false
	b.answer("subscribed", w.contact.bare(b.host), w.jid)
	b.urgent = b.present(b.urgent, w, w.jid, true)
	b.noteSent(w, now)
}

// tell answers a probe.
func (b *book) tell(w *watch, to string, now time.Time) {
	b.admit(w)
	if !w.joined { // it is told when it is acknowledged
		b.enqueue(w)
		return
	}
	w.muted = false
	before := len(b.urgent)
	b.urgent = b.present(b.urgent, w, to, true)
	if len(b.urgent) == before {
		b.answer("unavailable", w.contact.bare(b.host), to)
	}
	if _, _, resource := splitJID(to); resource == "" {
		b.noteSent(w, now)
		return
	}
	b.enqueue(w) // what the watcher's other clients may have missed
}

// present appends the presence of every available resource.
func (b *book) present(dst []byte, w *watch, to string, late bool) []byte {
	v := b.view(w)
	for i := range v.faces {
		if f := &v.faces[i]; f.available {
			dst = appendFace(dst, f, resource(i), w.contact.bare(b.host), to, b.host, late)
		}
	}
	return dst
}

// noteSent notes that w knows all that is true. A resource that w knew and that
// is gone says so, else it stays as a ghost.
func (b *book) noteSent(w *watch, now time.Time) {
	v := b.view(w)
	for i := range w.sent {
		if f := &v.faces[i]; !f.available && w.sent[i] != 0 {
			b.urgent = appendFace(b.urgent, f, resource(i), w.contact.bare(b.host), w.jid, b.host, false)
		}
	}
	w.sent = v.hashes
	w.at, w.fresh = now, true
	b.keep(w.contact, false)
}

// end forgets a subscription and tells the watcher, in the order of RFC 6121.
func (b *book) end(w *watch) {
	c := w.contact
	delete(c.watchers, w.jid)
	w.gone = true
	if c.who != nil {
		b.gate.Dismiss(asWatcher(w.jid, b.via), c.who.id)
	}
	b.answer("unsubscribed", c.bare(b.host), w.jid)
	for i, hash := range w.sent {
		if hash != 0 {
			b.answer("unavailable", c.bare(b.host)+"/"+resource(i).String(), w.jid)
		}
	}
	b.keep(c, true)
}

// plan orders the resynchronisation after a new stream: what is there and exists
// no more, then what changed or may not have arrived before the loss, then, if
// full, all the rest. lost is when the stream before ended; shuffle spreads the
// load over the contacts. Who asked and got no answer gets it, unless the request
// is still to be confirmed.
func (b *book) plan(lost time.Time, full bool, shuffle func(n int, swap func(i, j int))) {
	b.settled = true
	all := make([]*contact, 0, len(b.contacts))
	for _, c := range b.contacts {
		all = append(all, c)
	}
	shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var ghosts, changed, rest []*watch
	for _, c := range all {
		for _, w := range c.watchers {
			if !w.joined && !b.owed(w) {
				continue
			}
			// What was sent before a crash to one that is not acknowledged is not known.
			unsure := !w.joined || !w.at.Before(lost.Add(-unconfirmed))
			w.force = full || unsure
			switch {
			case b.haunted(w):
				ghosts = append(ghosts, w)
			case unsure || b.owed(w):
				changed = append(changed, w)
			case full:
				rest = append(rest, w)
			}
		}
	}
	b.resync = slices.Concat(ghosts, changed, rest)
}

// unconfirmed is how long before a loss a stanza may have been written in vain.
const unconfirmed = time.Minute

// haunted tells whether w sees a resource that is no more.
func (b *book) haunted(w *watch) bool {
	v := b.view(w)
	for i, hash := range w.sent {
		if hash != 0 && v.hashes[i] == 0 {
			return true
		}
	}
	return false
}

// nextLive appends what the next waiting watcher has not seen, and gives how
// many stanzas that are; zero: nobody waits.
func (b *book) nextLive(dst []byte, now time.Time) ([]byte, int) {
	for len(b.live) > 0 {
		w := b.live[0]
		b.live[0], b.live = nil, b.live[1:]
		w.queued = false
		if w.gone || w.muted {
			continue
		}
		var n int
		if dst, n = b.update(dst, w, false, now); n > 0 {
			return dst, n
		}
	}
	b.live = nil
	return dst, 0
}

// nextResync does the same for the resynchronisation. Who was brought up to date
// meanwhile is left out.
func (b *book) nextResync(dst []byte, now time.Time) ([]byte, int) {
	for len(b.resync) > 0 {
		w := b.resync[0]
		b.resync[0], b.resync = nil, b.resync[1:]
		if w.gone || w.fresh || w.muted {
			continue
		}
		var n int
		if dst, n = b.update(dst, w, w.force, now); n > 0 {
			return dst, n
		}
	}
	b.resync = nil
	return dst, 0
}

// update acknowledges w if that is due, and appends the resources that it has not
// seen as they are; with force all of them, and the aggregate even if it is
// unavailable, which is the only certain end of a ghost after a crash.
func (b *book) update(dst []byte, w *watch, force bool, now time.Time) (_ []byte, n int) {
	late := force
	if !w.joined {
		if !b.owed(w) { // to be confirmed again, since it was queued
			return dst, 0
		}
		w.joined, late = true, true
		dst = appendSubscription(dst, "subscribed", w.contact.bare(b.host), w.jid)
		n++
	}
	v := b.view(w)
	for i, hash := range v.hashes {
		if hash == w.sent[i] && (!force || hash == 0 && resource(i) != aggregate) {
			continue
		}
		dst = appendFace(dst, &v.faces[i], resource(i), w.contact.bare(b.host), w.jid, b.host, late)
		n++
	}
	w.sent = v.hashes
	w.fresh = true
	if n > 0 {
		w.at = now
		b.keep(w.contact, false)
	}
	return dst, n
}

// nextFarewell appends unavailable for all that the next watcher sees; zero:
// everybody knows.
func (b *book) nextFarewell(dst []byte, now time.Time) ([]byte, int) {
	for len(b.resync) > 0 {
		w := b.resync[0]
		b.resync = b.resync[1:]
		n := 0
		for i, hash := range w.sent {
			if hash == 0 {
				continue
			}
			dst = appendSubscription(dst, "unavailable", w.contact.bare(b.host)+"/"+resource(i).String(), w.jid)
			w.sent[i] = 0
			n++
		}
		if n > 0 {
			w.at = now
			b.keep(w.contact, false)
			return dst, n
		}
	}
	return dst, 0
}

// leave makes nextFarewell ready: from here on nothing else is to be asked for.
func (b *book) leave() {
	b.live, b.resync = nil, nil
	for _, c := range b.contacts {
		for _, w := range c.watchers {
			b.resync = append(b.resync, w)
		}
	}
}
