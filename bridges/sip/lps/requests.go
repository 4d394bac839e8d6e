package lps

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/documents"
	"presenced/bridges/sip/wire"
)

// A who is somebody who sent a request.
type who struct {
	address string // in canonical form
	account string // user name; empty: nobody has proven who it is
}

// maxHead is how many bytes of the headers of a SUBSCRIBE a dialog keeps at most.
const maxHead = 4096

// anonymous is who proves nothing and may watch nevertheless.
const anonymous = "anonymous@anonymous.invalid"

// handle takes every request. Nothing is kept of one before its sender is known.
func (s *Service) handle(r *wire.Request) {
	if r.Method() == "OPTIONS" {
		h := wire.AppendHeader(nil, "Allow", "OPTIONS, PUBLISH, SUBSCRIBE")
		h = wire.AppendHeader(h, "Accept", typePresence+", "+documents.EntriesType)
		h = wire.AppendHeader(h, "Supported", "eventlist, recipient-list-subscribe")
		r.Respond(200, "OK", allowEvents(h), nil)
		return
	}
	now := time.Now()
	from, ok := s.identify(r, now)
	if !ok {
		return
	}
	if r.Method() == "PUBLISH" {
		s.publish(r, from, now)
	} else {
		s.subscribe(r, from)
	}
}

func allowEvents(h []byte) []byte {
	return wire.AppendHeader(h, "Allow-Events", "presence, presence.winfo, dialog")
}

// identify finds out who sent r: by a certificate, by a proxy that is believed, or
// by a password. Where that is not known, r is challenged, and ok is false. The
// challenge goes to where r came from, and is answered only by who received it: so
// nobody can have messages sent to somebody else.
func (s *Service) identify(r *wire.Request, now time.Time) (from who, ok bool) {
	for _, name := range r.Peer() {
		if address, ok := Address("sip:" + strings.TrimPrefix(name, "sip:")); ok && s.domains[domainOf(address)] {
			return s.who(address), true
		}
	}
	source := r.Flow().Remote.Addr()
	if s.trusts(source) {
		if address, ok := Address(string(r.From().URI)); ok {
			return s.who(address), true
		}
	}
	v := Verdict{}
	if r.Has(wire.Authorization) {
		var values []string
		for value := range r.Headers(wire.Authorization) {
			values = append(values, string(value))
		}
		v = s.guard.Verify(values, r.Method(), source, now)
	} else if s.cfg.Anonymous && r.Method() == "SUBSCRIBE" && r.Flow().Network != wire.UDP { // where nobody can forge the source
		return who{address: anonymous}, true
	}
	if v.User != "" {
		address := v.User
		if !strings.Contains(address, "@") {
			address += "@" + s.domain()
		}
		if address, ok := Address(URI(address)); ok {
			return who{address: address, account: v.User}, true
		}
		return who{address: anonymous, account: v.User}, true
	}
	var h []byte
	for _, challenge := range s.guard.Challenge(source, v.Stale, now) {
		h = wire.AppendHeader(h, "WWW-Authenticate", challenge)
	}
	r.Respond(401, "Unauthorized", h, nil)
	return who{}, false
}

// who gives who has that address.
func (s *Service) who(address string) who {
	account, domain, _ := strings.Cut(address, "@")
	if domain != s.domain() {
		account = address
	}
	return who{address: address, account: account}
}

// asWatcher gives the subject by which access rules know who has that address. One
// who is in the directory is known by it in any case, so that rules about the
// person and the groups hold.
func (s *Service) asWatcher(address string) presence.Subject {
	person, subject, known := s.find(address)
	if !known {
		return presence.Subject{Scheme: "sip", Value: address}
	}
	if own := person.Address("sip"); own != "" {
		return presence.Subject{Scheme: "sip", Value: own}
	}
	return subject
}

func (s *Service) trusts(source netip.Addr) bool {
	for _, p := range s.trusted {
		if p.Contains(source.Unmap()) {
			return true
		}
	}
	return false
}

// asked gives the seconds that r asks for, unsaid where it does not say; ok is
// false where they cannot be read.
func asked(r *wire.Request) (seconds int, ok bool) {
	if !r.Has(wire.Expires) {
		return unsaid, true
	}
	n, ok := r.Seconds(wire.Expires)
	return int(min(n, 1<<31-1)), ok
}

// publish takes a PUBLISH.
func (s *Service) publish(r *wire.Request, from who, now time.Time) {
	address, ok := from.address, isPlainURI(r.URI(), from.address) // who publishes does so for oneself, mostly
	if !ok {
		address, ok = Address(string(r.URI()))
	}
	if !ok {
		r.Respond(404, "Not Found", nil, nil)
		return
	}
	person, subject, ok := s.find(address)
	if !ok {
		r.Respond(404, "Not Found", nil, nil)
		return
	}
	if from.address != address && !s.publishers[from.account] {
		if own, _, known := s.find(from.address); !known || own.ID != person.ID {
			r.Respond(403, "Forbidden", nil, nil)
			return
		}
	}
	event, _ := r.Event()
	p := Publish{Entity: address, Subject: subject, Event: string(event), Type: mediaType(r.Header(wire.ContentType)), Body: r.Body()}
	if p.Expires, ok = asked(r); !ok {
		r.Respond(400, "Malformed Expires", nil, nil)
		return
	}
	if len(p.Body) > s.cfg.MaxBody {
		r.Respond(413, "Request Entity Too Large", nil, nil)
		return
	}
	if r.Has(wire.ContentEncoding) && !strings.EqualFold(string(r.Header(wire.ContentEncoding)), "identity") {
		r.Respond(415, "Unsupported Media Type", wire.AppendHeader(nil, "Accept-Encoding", "identity"), nil)
		return
	}
	for tag := range r.Headers(wire.SIPIfMatch) {
		p.Match = append(p.Match, string(tag))
	}
	s.publications.Read(&p, now)
	s.respondPublished(r, s.accept(&p))
}

// accept has the compositor and the hub take p, or neither.
func (s *Service) accept(p *Publish) Published {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	a := s.publications.Publish(p, time.Now())
	if a.Code != 200 {
		return a
	}
	if a.Report != nil {
		if err := s.hub.Report(context.Background(), *a.Report); err != nil {
			s.problems.add("publications refused by the hub", 1)
			return Published{Code: 500}
		}
	}
	s.publications.Commit(&a)
	s.stir(s.publications.Next())
	return a
}

func (s *Service) respondPublished(r *wire.Request, a Published) {
	switch a.Code {
	case 200:
		var room [128]byte
		h := wire.AppendSeconds(room[:0], "Expires", uint32(a.Expires)) //nolint:gosec // at most a day
		r.Respond(200, "OK", wire.AppendHeader(h, "SIP-ETag", a.Tag), nil)
	case 415:
		r.Respond(415, "Unsupported Media Type", wire.AppendHeader(nil, "Accept", typePresence), nil)
	case 400:
		r.Respond(400, "Bad Publication", nil, nil)
	default:
		s.refuse(r, a.Code, a.Expires)
	}
}

// refuse answers with a code that means the same for each method.
func (s *Service) refuse(r *wire.Request, code, least int) {
	switch code {
	case 403:
		r.Respond(code, "Forbidden", nil, nil)
	case 404:
		r.Respond(code, "Not Found", nil, nil)
	case 406:
		r.Respond(code, "Not Acceptable", nil, nil)
	case 412:
		r.Respond(code, "Conditional Request Failed", nil, nil)
	case 413:
		r.Respond(code, "Request Entity Too Large", nil, nil)
	case 421:
		r.Respond(code, "Extension Required", wire.AppendHeader(nil, "Require", "eventlist"), nil)
	case 423:
		r.Respond(code, "Interval Too Brief", wire.AppendSeconds(nil, "Min-Expires", uint32(least)), nil) //nolint:gosec // at most a day
	case 481:
		r.Respond(code, "Subscription Does Not Exist", nil, nil)
	case 489:
		r.Respond(code, "Bad Event", allowEvents(nil), nil)
	case 503:
		s.problems.add("requests refused because a limit is reached", 1)
		r.Respond(code, "Service Unavailable", wire.AppendSeconds(nil, "Retry-After", 60), nil)
	default:
		r.Respond(500, "Server Internal Error", nil, nil)
	}
}

// subscribe takes a SUBSCRIBE.
func (s *Service) subscribe(r *wire.Request, from who) {
	q := Subscribe{
		Watcher: s.asWatcher(from.address), Own: from.address, Admin: from.account != "" && s.admins[from.account],
		Call: string(r.CallID()), Tag: string(r.From().Tag()), Dialog: string(r.LocalTag()), New: len(r.To().Tag()) == 0, CSeq: r.CSeq(),
	}
	event, params := r.Event()
	q.Event = string(event)
	if id, ok := params.Get("id"); ok {
		q.ID = string(id)
	}
	q.Least, q.Often = rate(params, "max-rate"), rate(params, "min-rate")
	contact, ok := wire.ParseAddress(r.Header(wire.Contact))
	if !ok || q.Tag == "" || !isSIP(contact.URI) {
		r.Respond(400, "Contact Or Tag Missing", nil, nil)
		return
	}
	if q.Expires, ok = asked(r); !ok {
		r.Respond(400, "Malformed Expires", nil, nil)
		return
	}
	if q.New { // a dialog is known by its tags
		if q.Entity, ok = Address(string(r.URI())); !ok {
			r.Respond(404, "Not Found", nil, nil)
			return
		}
	}
	for v := range r.List(wire.Accept) {
		q.Accept = append(q.Accept, mediaType(v))
	}
	for v := range r.List(wire.Supported) {
		q.Eventlist = q.Eventlist || strings.EqualFold(string(v), "eventlist")
	}
	q.Match = string(r.Header(wire.SuppressIfMatch))
	if len(r.Body()) > 0 && !s.listOf(r, &q) {
		return
	}
	var err error
	if q.Route, err = s.route(r, contact); err != nil {
		r.Respond(400, "Malformed Or Oversized Dialog", nil, nil)
		return
	}
	o := s.outbox()
	s.subMu.Lock()
	var a Subscribed
	a, o.notifies = s.subscriptions.Subscribe(&q, time.Now(), o.notifies)
	next := s.subscriptions.Next()
	s.subMu.Unlock()
	s.respondSubscribed(r, a)
	s.send(o, r.Send)
	s.stir(next)
}

func (s *Service) respondSubscribed(r *wire.Request, a Subscribed) {
	if a.Code != 200 && a.Code != 204 {
		s.refuse(r, a.Code, a.Expires)
		return
	}
	var room [256]byte
	h := wire.AppendSeconds(room[:0], "Expires", uint32(a.Expires)) //nolint:gosec // at most a day
	h = s.appendContact(h, r.Flow())
	if a.List {
		h = wire.AppendHeader(h, "Require", "eventlist")
	}
	if a.Code == 204 {
		r.Respond(204, "No Notification", wire.AppendHeader(h, "SIP-ETag", EntityTag(a.Matched)), nil)
		return
	}
	r.Respond(200, "OK", h, nil)
}

// listOf reads the list that the body of r is (RFC 5367); where it cannot be read, r is
// answered.
func (s *Service) listOf(r *wire.Request, q *Subscribe) bool {
	body := r.Body()
	if len(body) > s.cfg.MaxBody {
		r.Respond(413, "Request Entity Too Large", nil, nil)
		return false
	}
	if mediaType(r.Header(wire.ContentType)) != documents.EntriesType {
		r.Respond(415, "Unsupported Media Type", wire.AppendHeader(nil, "Accept", documents.EntriesType), nil)
		return false
	}
	switch encoding := strings.ToLower(string(r.Header(wire.ContentEncoding))); encoding {
	case "", "identity":
	case "deflate":
		var err error
		if body, err = documents.Inflate(body); err != nil {
			r.Respond(400, "Malformed List", nil, nil)
			return false
		}
	default:
		r.Respond(415, "Unsupported Media Type", wire.AppendHeader(nil, "Accept-Encoding", "deflate"), nil)
		return false
	}
	entries, err := documents.ParseEntries(body)
	if err != nil {
		r.Respond(400, "Malformed List", nil, nil)
		return false
	}
	q.List = []string{}
	for _, e := range entries {
		if address, ok := Address(e.URI); ok {
			q.List = append(q.List, address)
		}
	}
	return true
}

// route gives the way back to who sent r, with a head for its NOTIFYs.
func (s *Service) route(r *wire.Request, contact wire.Address) (*Route, error) {
	flow := r.Flow()
	lines := s.appendContact(make([]byte, 0, 256), flow)
	lines = wire.AppendHeader(lines, "Event", eventOf(r))
	for v := range r.Headers(wire.RecordRoute) {
		lines = wire.AppendHeader(lines, "Route", string(v))
	}
	from := string(r.Header(wire.To))
	if len(r.To().Tag()) == 0 {
		from += ";tag=" + string(r.LocalTag())
	}
	w := &way{
		Network: flow.Network.String(), Remote: flow.Remote, Again: hostOf(contact.URI, flow), URI: string(contact.URI), From: from, To: string(r.Header(wire.From)), Lines: string(lines),
	}
	if len(w.URI)+len(w.From)+len(w.To)+len(w.Lines)+len(r.CallID()) > maxHead {
		return nil, errors.New("the headers of the dialog are too long to be kept")
	}
	return w.route(string(r.CallID()), flow)
}

// eventOf gives Event as it stands in a NOTIFY: the package and the id.
func eventOf(r *wire.Request) string {
	event, params := r.Event()
	if id, ok := params.Get("id"); ok {
		return string(event) + ";id=" + string(id)
	}
	return string(event)
}

// appendContact appends where we are reached on a flow.
func (s *Service) appendContact(h []byte, flow wire.Flow) []byte {
	h = append(h, "Contact: <sip:"...)
	if host := s.cfg.Transport.Host; host != "" {
		h = append(append(h, host...), ':')
		h = strconv.AppendUint(h, uint64(flow.Local.Port()), 10)
	} else {
		h = flow.Local.AppendTo(h)
	}
	if flow.Network != wire.UDP {
		h = append(append(h, ";transport="...), flow.Network.String()...)
	}
	return append(h, ">\r\n"...)
}

// mediaType gives the type of a Content-Type or an element of Accept, in lower case.
func mediaType(value []byte) string {
	kind, _ := wire.Value(value)
	for i, c := range kind {
		if c >= 'A' && c <= 'Z' || c == ' ' || c == '\t' {
			return strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(string(kind), " ", ""), "\t", ""))
		}
		if i > 100 {
			return ""
		}
	}
	switch string(kind) { // as nearly always: no copy
	case typePresence:
		return typePresence
	case typePhone:
		return typePhone
	}
	return string(kind)
}

// isSIP tells whether NOTIFYs can have that Request-URI.
func isSIP(uri []byte) bool {
	scheme, _, _ := strings.Cut(string(uri), ":")
	return strings.EqualFold(scheme, "sip") || strings.EqualFold(scheme, "sips")
}

// rate reads a parameter of RFC 6446, in NOTIFYs per second, as the time between
// two; zero: it is not there, or means nothing.
func rate(params wire.Params, name string) time.Duration {
	value, ok := params.Get(name)
	if !ok {
		return 0
	}
	perSecond, err := strconv.ParseFloat(string(value), 64)
	if err != nil || !(perSecond > 0) || perSecond > 1000 {
		return 0
	}
	return time.Duration(min(float64(time.Second)/perSecond, float64(longGap)))
}
