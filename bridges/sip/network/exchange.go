package network

import (
	"errors"
	"fmt"
	"math"
	"mime"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/bridges/sip/digest"
	"presenced/bridges/sip/documents"
	"presenced/bridges/sip/wire"
)

const (
	maxRoutes = 16 // how many proxies a dialog may go through
	usualRate = 50 // SUBSCRIBEs per second, where nothing else is configured
)

// dispatch sends what is due, as far as pace and outstanding requests allow, and gives
// the time until it is to be called again.
func (r *run) dispatch(now time.Time) time.Duration {
	pace := r.pace()
	r.limiter.SetLimitAt(now, pace)
	r.limiter.SetBurstAt(now, int(pace))
	for len(r.queue) > 0 {
		w := r.queue[0]
		if d := w.Due().Sub(now); d > 0 {
			return min(d, time.Hour)
		}
		if r.out >= r.cfg.Outstanding {
			break // an answer comes first
		}
		if tokens := r.limiter.TokensAt(now); tokens < 1 {
			return time.Duration((1-tokens)/float64(pace)*float64(time.Second)) + time.Millisecond
		}
		if req, ok := w.Send(now); ok {
			r.limiter.AllowN(now, 1)
			r.send(w, req, now)
		}
		r.place(w)
	}
	return time.Hour
}

// pace is how many requests a second may be sent.
func (r *run) pace() rate.Limit {
	if r.cfg.Rate > 0 {
		return rate.Limit(r.cfg.Rate)
	}
	return rate.Limit(max(usualRate, math.Ceil(2*float64(len(r.watches))/(0.8*r.cfg.Expires.Seconds()))))
}

// send sends a SUBSCRIBE; the answer comes in a goroutine of the endpoint. It goes to
// the configured server, whatever the target of the dialog: that is our outbound proxy.
func (r *run) send(w *watch, req request, now time.Time) {
	o, err := r.subscribe(w, &req)
	if err == nil {
		err = r.endpoint.Send(r.flow, o, func(a wire.Answer) { r.answered(w, &req, a) })
	}
	if err != nil {
		r.notice("requests not sent")
		w.Fail(now)
		return
	}
	r.out++
}

// subscribe makes the message of a request.
func (r *run) subscribe(w *watch, req *request) (*wire.Outgoing, error) {
	uri, to := w.uri, "<"+w.uri+">"
	if req.remote != "" {
		to += ";tag=" + req.remote
		if req.target != "" {
			uri = req.target
		}
	}
	_, host, _ := strings.Cut(w.uri, "@")
	host, _, _ = strings.Cut(host, ";")
	name := r.cfg.User
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		name = "presenced"
	}
	var lines []byte
	for _, route := range req.routes {
		lines = wire.AppendHeader(lines, "Route", route)
	}
	lines = wire.AppendHeader(lines, "Contact", "<sip:presenced@"+r.contacts[r.target.Transport].String()+";transport="+r.target.Transport+">")
	lines = wire.AppendHeader(lines, "Event", "presence")
	if w.one == nil {
		lines = wire.AppendHeader(lines, "Supported", "eventlist")
		lines = wire.AppendHeader(lines, "Accept", documents.ListType+", application/rlmi+xml, "+pidf.ContentType)
	} else {
		lines = wire.AppendHeader(lines, "Accept", pidf.ContentType)
	}
	t, err := wire.NewTemplate("SUBSCRIBE", uri, req.callID, "<sip:"+name+"@"+host+">;tag="+req.local, to, lines)
	if err != nil {
		return nil, err
	}
	headers := wire.AppendSeconds(nil, "Expires", uint32(req.expires/time.Second)) //nolint:gosec // at most a day
	c := req.answer
	if c == nil {
		c = r.nonce
	}
	if c != nil {
		header, value, err := c.Respond(r.cfg.User, r.password, "SUBSCRIBE", uri)
		if err != nil {
			r.notice("challenges not answered")
			return nil, err
		}
		headers = wire.AppendHeader(headers, header, value)
	}
	return &wire.Outgoing{Template: t, CSeq: req.seq, Headers: headers}, nil
}

// answered takes what became of a SUBSCRIBE.
func (r *run) answered(w *watch, req *request, a wire.Answer) {
	defer r.stir()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out--
	now := time.Now()
	if a.Err == nil {
		r.heard, r.fault = now, ""
	}
	if w.out == nil || w.callID != req.callID || w.out.seq != req.seq {
		return // it was given up meanwhile
	}
	defer r.place(w)
	if a.Err != nil {
		r.notice("requests without an answer")
		w.Fail(now)
		if (now.Sub(r.heard) >= answerTime || errors.Is(a.Err, wire.ErrFlow)) && r.elsewhere(now) {
			r.lost(a.Err, now)
		}
		return
	}
	res := r.read(a.Message)
	code := res.code
	switch w.Response(res, now) {
	case denied:
		if !r.stopping {
			r.wrong = presence.Permanent(fmt.Errorf("%s: %s", r.address(r.server), digest.Denial(r.cfg.User, res.challenge)))
		}
	case refused:
		r.notice("subscriptions refused")
		if w.one != nil {
			r.unmonitored(w.one.id, fmt.Sprintf("the server answers %d", code))
		}
	case failing:
		if r.others > 0 && r.elsewhere(now) {
			r.lost(errors.New("503 Service Unavailable"), now)
		}
	case fine:
		if code < 200 || code >= 300 {
			return
		}
		r.hops = 0
		if w.one != nil {
			r.monitored(w.one.id)
		}
	}
}

// elsewhere tells whether another target may be tried: not where all were tried a moment
// ago.
func (r *run) elsewhere(now time.Time) bool {
	return r.hops < r.others || now.Sub(r.turned) >= answerTime
}

// lost says that the server does not answer.
func (r *run) lost(why error, now time.Time) {
	if r.stopping {
		return
	}
	if r.fault == "" {
		r.notice("servers lost")
		r.log.Warn("The presence server does not answer", "server", r.address(r.server), "error", why)
	}
	r.fault, r.switched = why.Error(), true
	r.status.LastError, r.status.LastErrorAt = r.address(r.server)+": "+r.fault, now
}

// read takes from an answer what the subscription needs.
func (r *run) read(m *wire.Message) response {
	res := response{code: m.Code(), expires: seconds(m, wire.Expires, -1), minExpires: seconds(m, wire.MinExpires, 0), retryAfter: seconds(m, wire.RetryAfter, 0)}
	name := wire.WWWAuthenticate
	switch res.code {
	case 407:
		name = wire.ProxyAuthenticate
	case 401:
	default:
		return res
	}
	var values []string
	for v := range m.Headers(name) {
		values = append(values, string(v))
	}
	if r.cfg.User != "" {
		res.challenge = digest.Choose(values, res.code == 407)
		r.nonce = res.challenge
	}
	return res
}

// seconds reads a time; unsaid where there is none.
func seconds(m *wire.Message, n wire.Name, unsaid time.Duration) time.Duration {
	if v, ok := m.Seconds(n); ok {
		return time.Duration(v) * time.Second
	}
	return unsaid
}

// handle answers a request of the server.
func (r *run) handle(in *wire.Request) {
	if in.Method() == "OPTIONS" {
		in.Respond(200, "OK", wire.AppendHeader(nil, "Allow", "NOTIFY, OPTIONS"), nil)
		return
	}
	r.mu.Lock()
	code := r.notified(in, time.Now())
	r.publishStatus()
	r.mu.Unlock()
	in.Respond(code, map[int]string{
		200: "OK", 400: "Bad Request", 415: "Unsupported Media Type", 481: "Subscription Does Not Exist", 489: "Bad Event", 500: "Server Internal Error",
	}[code], nil, nil)
	r.stir()
}

// notified takes a NOTIFY, and gives the code of the answer.
func (r *run) notified(in *wire.Request, now time.Time) int {
	w := r.calls[string(in.CallID())]
	if w == nil {
		r.notice("NOTIFY of no subscription")
		return 481
	}
	if event, _ := in.Event(); !strings.EqualFold(string(event), "presence") {
		return 489
	}
	read := w.Notify(noticeOf(&in.Message), now)
	defer r.place(w)
	switch read.code {
	case 200:
		r.heard, r.fault = now, ""
	case 481:
		r.notice("NOTIFY of no subscription")
		return read.code
	default:
		r.notice("NOTIFY out of order or malformed")
		return read.code
	}
	people := r.of(w)
	if read.over != "" {
		for _, p := range people {
			r.report(p, p.account.retract(), now)
			r.cover(p, false)
			r.unmonitored(p.id, "the server says "+read.over)
		}
		return 200
	}
	if !read.content {
		return 200
	}
	for _, p := range people { // a NOTIFY may shorten what was said
		r.report(p, p.account.last(w.expires), now)
		if w.pending {
			r.unmonitored(p.id, "waits for leave to see them")
		} else if w.one != nil {
			r.monitored(p.id)
		}
	}
	code := 200
	switch body := in.Body(); {
	case len(body) == 0 && !read.asked: // Kamailio sends such ones where a publication was refreshed, or has expired
		w.Look(now, now)
	case len(body) == 0:
		for _, p := range people {
			r.report(p, p.account.forget(now), now)
		}
	case w.one != nil:
		code = r.learn(w, string(in.Header(wire.ContentType)), body, now)
	default:
		code = r.learnList(w, string(in.Header(wire.ContentType)), body, read.asked, now)
	}
	if code != 200 {
		r.notice("documents malformed")
	}
	return code
}

// of gives the people that a watch is about.
func (r *run) of(w *watch) []*person {
	switch {
	case w.stopping: // they have another one, or are not asked about any more
		return nil
	case w.one != nil:
		return []*person{w.one}
	}
	people := make([]*person, 0, len(r.people))
	for _, p := range r.people {
		people = append(people, p)
	}
	return people
}

// learn takes the document about one person, and gives the code of the answer.
func (r *run) learn(w *watch, contentType string, body []byte, now time.Time) int {
	if kind, _, err := mime.ParseMediaType(contentType); err != nil || kind != pidf.ContentType {
		return 415
	}
	c, err := w.one.account.learn([][]byte{body}, w.expires, now)
	if err != nil {
		return 400
	}
	r.report(w.one, c, now)
	return 200
}

// learnList takes the state of a list, or what has changed of it. A document about
// one person that cannot be read leaves that person as they were.
func (r *run) learnList(w *watch, contentType string, body []byte, asked bool, now time.Time) int {
	if kind, _, err := mime.ParseMediaType(contentType); err != nil || kind != documents.ListType {
		return 415
	}
	list, err := documents.ParseList(contentType, body)
	if err != nil {
		return 400
	}
	if err := w.roll.follow(w.callID, &list); err != nil {
		r.notice("lists with a gap")
		if asked { // even the answer is no full state
			w.Look(now.Add(unavailable), now)
		} else {
			w.Look(now, now)
		}
		return 200
	}
	instances := members(&list, map[string][]documents.Instance{})
	for uri, p := range r.owners {
		own, named := instances[uri]
		switch {
		case named:
			r.resource(p, own, list.Full, w.expires, now)
		case list.Full:
			r.report(p, p.account.retract(), now)
			r.cover(p, false)
			r.unmonitored(p.id, "is not in the list of the server")
		}
	}
	return 200
}

// resource takes what a list says of one person.
func (r *run) resource(p *person, instances []documents.Instance, full bool, until, now time.Time) {
	r.monitored(p.id)
	var bodies [][]byte
	active, unchanged := false, false
	for _, n := range instances {
		active = active || n.State == "active"
		kind, _, _ := mime.ParseMediaType(n.ContentType)
		switch {
		case n.State == "terminated":
		case kind == pidf.ContentType && len(n.Body) > 0:
			bodies = append(bodies, n.Body)
		case !full && n.Body == nil: // a list of changes does not repeat what has not changed
			unchanged = unchanged || n.State == "active"
		}
	}
	r.cover(p, active)
	if !active && len(instances) > 0 {
		r.unmonitored(p.id, "the list server says "+instances[0].State+" "+instances[0].Reason)
	}
	switch {
	case len(bodies) > 0:
		c, err := p.account.learn(bodies, until, now)
		if err != nil {
			r.notice("documents malformed")
			return
		}
		r.report(p, c, now)
	case !unchanged:
		r.report(p, p.account.forget(now), now)
	}
}

// noticeOf reads the header of a NOTIFY.
func noticeOf(m *wire.Message) notice {
	state, params := wire.Value(m.Header(wire.SubscriptionState))
	n := notice{
		local: string(m.To().Tag()), remote: string(m.From().Tag()), seq: m.CSeq(),
		state: strings.ToLower(string(state)), expires: parameter(params, "expires", -1), retryAfter: parameter(params, "retry-after", 0),
	}
	if reason, ok := params.Get("reason"); ok {
		n.reason = strings.ToLower(string(reason))
	}
	if a, ok := wire.ParseAddress(m.Header(wire.Contact)); ok {
		n.target = string(a.URI)
	}
	for v := range m.List(wire.RecordRoute) {
		if a, ok := wire.ParseAddress(v); ok && len(n.routes) < maxRoutes {
			n.routes = append(n.routes, "<"+string(a.URI)+">")
		}
	}
	return n
}

// parameter reads a number of seconds; unsaid where there is none.
func parameter(p wire.Params, name string, unsaid time.Duration) time.Duration {
	v, ok := p.Get(name)
	if !ok || len(v) == 0 || len(v) > 9 {
		return unsaid
	}
	n := time.Duration(0)
	for _, c := range v {
		if c < '0' || c > '9' {
			return unsaid
		}
		n = 10*n + time.Duration(c-'0')
	}
	return n * time.Second
}
