package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"presenced/aes"
	"presenced/aes/csta"
	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/domino"
	"presenced/exchange"
	"presenced/fixtures"
	"presenced/fixtures/sim/simaes"
	"presenced/fixtures/sim/simdomino"
	"presenced/fixtures/sim/simexchange"
)

// A world is a scenario in virtual time, in one goroutine: the simulators, the
// real collectors with their real wire formats, and the core, joined without a
// socket. Nothing in it looks at a clock, so that a day takes as long as its
// events take to compute.
type world struct {
	scenario *fixtures.Scenario
	now      time.Time
	people   *directory.Directory
	core     *aggregator.Core
	events   []fixtures.Event
	shown    map[presence.ID]string // the line last printed, without its time
	changed  map[presence.ID]bool   // since the last line was printed
	out      io.Writer
	log      *slog.Logger

	phone   *phoneWorld // nil: the scenario has no telephony
	polls   []*poll
	targets map[string]func([]string) error
}

// newWorld sets a scenario up at its beginning; the timeline of states is written to
// out, what the collectors have to say to log.
func newWorld(s *fixtures.Scenario, out io.Writer, log *slog.Logger) (*world, error) {
	list, err := directory.ParseFile(s.Name+".txtar: people.yaml", s.People)
	if err != nil {
		return nil, err
	}
	people, problems := directory.New(list)
	if len(problems) > 0 {
		return nil, fmt.Errorf("scenario %s: %s", s.Name, strings.Join(problems, "; "))
	}
	w := &world{
		scenario: s, now: s.Begin(), people: people, core: aggregator.NewCore(s.Settings.Policy.Policy()),
		events: s.Timeline, shown: map[presence.ID]string{}, changed: map[presence.ID]bool{}, out: out, log: log,
	}
	w.targets = map[string]func([]string) error{"manual": w.manual, "session": w.session}
	if s.Targets("aes") {
		w.addPhones()
	}
	if s.Targets("exchange") {
		if err := w.addExchange(); err != nil {
			return nil, err
		}
	}
	if s.Targets("domino") {
		if err := w.addDomino(); err != nil {
			return nil, err
		}
	}
	for _, e := range s.Timeline {
		if w.targets[e.Target] == nil {
			return nil, fmt.Errorf("scenario %s: timeline line %d: unknown target %s; known: aes, exchange, domino, manual, session", s.Name, e.Line, e.Target)
		}
	}
	return w, nil
}

// run lives through the scenario.
func (w *world) run(ctx context.Context) error {
	for p := range w.people.All() {
		w.core.Enter(p.ID, w.now)
		w.changed[p.ID] = true
	}
	end := w.scenario.End()
	for !w.now.After(end) && ctx.Err() == nil {
		if err := w.moment(ctx); err != nil {
			return err
		}
		next := w.next()
		// Requests that the collectors pace by microseconds are one moment to a watcher.
		if next.IsZero() || next.Sub(w.now) > time.Millisecond {
			w.print()
		}
		if next.IsZero() {
			break
		}
		if !next.After(w.now) {
			return fmt.Errorf("scenario %s: time stands still at %s", w.scenario.Name, w.now)
		}
		w.now = next
	}
	return ctx.Err()
}

// moment does all that is due now.
func (w *world) moment(ctx context.Context) error {
	for len(w.events) > 0 && !w.events[0].At.After(w.now) {
		e := w.events[0]
		w.events = w.events[1:]
		if err := w.targets[e.Target](e.Words); err != nil {
			return fmt.Errorf("scenario %s: timeline line %d: %w", w.scenario.Name, e.Line, err)
		}
		if w.phone != nil { // between two events of one moment too
			if err := w.phone.exchange(w); err != nil {
				return err
			}
		}
	}
	if w.phone != nil {
		if err := w.phone.tick(w); err != nil {
			return err
		}
	}
	for _, p := range w.polls {
		if !p.next.After(w.now) {
			p.next = w.now.Add(p.every)
			reports, err := p.read(ctx, w.now, p.subjects)
			if err != nil {
				w.log.Warn("lost", "office", w.now, "source", p.source, "error", err)
				w.lost(p.source)
				continue
			}
			for _, r := range reports {
				w.report(r)
			}
		}
	}
	w.note(w.core.Advance(w.now, nil)...)
	return nil
}

// next is the next moment at which anything happens.
func (w *world) next() time.Time {
	var times []time.Time
	if len(w.events) > 0 {
		times = append(times, w.events[0].At)
	}
	if w.phone != nil {
		times = append(times, w.phone.next()...)
	}
	for _, p := range w.polls {
		times = append(times, p.next)
	}
	times = append(times, w.core.Next())
	times = slices.DeleteFunc(times, func(t time.Time) bool { return t.IsZero() })
	if len(times) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(times, time.Time.Compare)
}

func (w *world) report(r presence.Report) {
	if p, ok := w.people.Find(r.Subject); ok {
		if s, changed := w.core.Accept(p.ID, r, w.now); changed {
			w.note(s)
		}
	}
}

func (w *world) lost(source string) { w.note(w.core.Lost(source, w.now)...) }

func (w *world) note(states ...presence.State) {
	for _, s := range states {
		w.changed[s.Person] = true
	}
}

// audienceAccess is the access of an audience that a scenario names.
func audienceAccess(name string) presence.Access {
	a := presence.Everyone()
	switch name {
	case "urgent":
		a.Urgent = true
	case "calendar-hidden":
		a.Calendar = presence.CalendarHidden
	case "calendar-times":
		a.Calendar = presence.CalendarTimes
	case "telephony":
		a.Level = presence.LevelTelephony
	case "status":
		a.Level = presence.LevelStatus
	default:
		a = presence.Access{}
	}
	return a
}

// print writes a line for each person who looks different from the last line. What
// came and went within a moment is not seen, as by a watcher.
func (w *world) print() {
	for p := range w.people.All() {
		if !w.changed[p.ID] {
			continue
		}
		s, _ := w.core.State(p.ID)
		w.printView(string(p.ID), presence.View(s, presence.Everyone()), s.Why.Rule)
		for _, a := range w.scenario.Settings.Audiences {
			w.printView(string(p.ID)+"@"+a, presence.View(s, audienceAccess(a)), "")
		}
	}
	clear(w.changed)
}

func (w *world) printView(who string, s presence.State, rule string) {
	line := stateLine(who, s, rule)
	if w.shown[presence.ID(who)] == line {
		return
	}
	w.shown[presence.ID(who)] = line
	at, begin := w.now.In(w.scenario.Zone()), w.scenario.Begin()
	stamp := at.Format("15:04:05.999")
	if days := int(at.Sub(time.Date(begin.Year(), begin.Month(), begin.Day(), 0, 0, 0, 0, begin.Location())) / (24 * time.Hour)); days > 0 {
		stamp = fmt.Sprintf("%dd%s", days, stamp)
	}
	fmt.Fprintf(w.out, "%s %s\n", stamp, line)
}

// stateLine is one state on one line: person availability/activity +overlays channels by rule.
func stateLine(who string, s presence.State, rule string) string {
	words := []string{who, s.Availability.String()}
	if s.Activity != presence.NoActivity {
		words[1] += "/" + s.Activity.String()
	}
	for _, o := range s.Overlays.Names() {
		words = append(words, "+"+o)
	}
	for k := range presence.ChannelCount {
		kind := presence.ChannelKind(k) //nolint:gosec // a small constant
		if c := s.Channel(kind); c.State != presence.ChannelUnknown {
			words = append(words, kind.String()+"="+c.State.String())
		}
	}
	if rule != "" {
		words = append(words, "by", rule)
	}
	return strings.Join(words, " ")
}

// manual sets what a person says by hand: manual PERSON STATE [until TIME], or
// manual PERSON clear.
func (w *world) manual(words []string) error {
	usage := fmt.Errorf("manual %s: want PERSON available|busy|dnd|brb|away|off-work|out-of-office|offline|clear [until @TIME]", strings.Join(words, " "))
	if len(words) != 2 && (len(words) != 4 || words[2] != "until") {
		return usage
	}
	id := presence.ID(words[0])
	r := presence.Report{Source: "manual", Subject: presence.Subject{Scheme: directory.SchemeID, Value: words[0]}, At: w.now}
	if words[1] != "clear" {
		fact, err := presence.ParseFact("manual-" + words[1])
		if err != nil {
			return usage
		}
		until := presence.ManualLife(fact, w.core.Reports(id), w.now)
		if len(words) == 4 {
			if until, err = time.Parse(time.RFC3339Nano, words[3]); err != nil {
				return usage
			}
		}
		r.Spans = []presence.Span{{Fact: fact, From: w.now, Until: until}}
	}
	return w.stated(id, r)
}

// session sets what a person's client says: session PERSON active|idle|away|offline|busy|dnd|presenting|focusing.
func (w *world) session(words []string) error {
	usage := fmt.Errorf("session %s: want PERSON active|idle|away|offline|busy|dnd|presenting|focusing", strings.Join(words, " "))
	if len(words) != 2 {
		return usage
	}
	fact, err := presence.ParseFact("session-" + words[1])
	if err != nil {
		if fact, err = presence.ParseFact(words[1]); err != nil {
			return usage
		}
	}
	id := presence.ID(words[0])
	r := presence.Report{Source: "client", Subject: presence.Subject{Scheme: directory.SchemeID, Value: words[0]}, At: w.now}
	for _, held := range w.core.Reports(id) { // what ended lately stays in the report
		if held.Source != r.Source {
			continue
		}
		for _, s := range held.Spans {
			if s.Until.IsZero() {
				s.Until = w.now
			}
			if w.now.Sub(s.Until) < time.Hour {
				r.Spans = append(r.Spans, s)
			}
		}
	}
	r.Spans = append(r.Spans, presence.Span{Fact: fact, From: w.now})
	return w.stated(id, r)
}

func (w *world) stated(id presence.ID, r presence.Report) error {
	if _, ok := w.people.Person(id); !ok {
		return fmt.Errorf("nobody has the identifier %s", id)
	}
	w.report(r)
	return nil
}

// A poll is a source that is asked every so often.
type poll struct {
	source   string
	every    time.Duration
	next     time.Time
	subjects []presence.Subject
	read     func(context.Context, time.Time, []presence.Subject) ([]presence.Report, error)
}

func (w *world) addPoll(source, scheme string, read func(context.Context, time.Time, []presence.Subject) ([]presence.Report, error)) {
	w.polls = append(w.polls, &poll{source, w.scenario.Settings.Poll, w.now, w.people.Subjects(scheme), read})
}

// handlerTransport carries requests to a handler without a socket.
type handlerTransport struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	in := r.Clone(r.Context())
	in.RequestURI = in.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	t.ServeHTTP(recorder, in)
	out := recorder.Result()
	out.Request = r
	return out, nil
}

func (w *world) addExchange() error {
	server := simexchange.New(simexchange.Config{
		User: "svc", Password: "replayed", Auth: "basic", Now: func() time.Time { return w.now }, Mailboxes: values(w.people.Subjects("mail")),
	})
	w.targets["exchange"] = func(words []string) error { return server.Do(w.now, words) }
	cfg := exchange.DefaultConfig()
	cfg.Name, cfg.URL, cfg.Auth, cfg.User, cfg.Mailbox = "exchange", "https://exchange.test"+simexchange.Path, "basic", "svc", "svc@example.com"
	cfg.Interval = w.scenario.Settings.Poll
	calendar, replies, err := exchange.NewWithTransport(cfg, handlerTransport{server}, w.log)
	if err != nil {
		return err
	}
	w.addPoll(calendar.Name(), "mail", calendar.Poll)
	w.addPoll(replies.Name(), "mail", replies.Poll)
	return nil
}

func (w *world) addDomino() error {
	subjects := w.people.Subjects("notes")
	var files []string
	server := ""
	for _, s := range subjects {
		host, file, _ := strings.Cut(s.Value, "!!")
		server = host
		files = append(files, file)
	}
	das := simdomino.New(simdomino.Config{User: "svc", MailFiles: files, Now: func() time.Time { return w.now }})
	w.targets["domino"] = func(words []string) error { return das.Do(w.now, words) }
	cfg := domino.DefaultConfig()
	cfg.Name, cfg.User = "domino", "svc"
	cfg.Interval = w.scenario.Settings.Poll
	cfg.Servers = []domino.Server{{Name: server, URL: "https://domino.test"}}
	cfg.OutOfOffice = domino.OutOfOfficeConfig{Driver: "helper", URL: "https://domino.test" + simdomino.HelperPath + "?mail={mail}"}
	calendar, ooo, err := domino.NewWithTransport(cfg, w.log, handlerTransport{das})
	if err != nil {
		return err
	}
	w.addPoll(calendar.Name(), "notes", calendar.Poll)
	w.addPoll(ooo.Name(), "mail", ooo.Poll)
	return nil
}

func values(subjects []presence.Subject) []string {
	var out []string
	for _, s := range subjects {
		out = append(out, s.Value)
	}
	return out
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A phoneWorld joins the simulated switch and the session machine of the collector
// by bytes.
type phoneWorld struct {
	sw    *simaes.Switch
	link  *aes.Link
	conn  *simaes.Conn // nil: not connected
	retry time.Time    // when to connect again
	in    []byte       // from the switch, not yet a whole frame
}

const phoneSource = "aes"

func (w *world) addPhones() {
	cfg := aes.DefaultConfig()
	cfg.Name, cfg.Address, cfg.User, cfg.Switch = phoneSource, "aes.test:4722", "svc", simulatedSwitch
	cfg.Rate = 100_000 // virtual time must not crawl through the start
	p := &phoneWorld{
		sw:    simaes.New(simaes.Config{User: "svc", Password: "replayed", Switch: simulatedSwitch, Stations: values(w.people.Subjects("tel"))}),
		link:  aes.NewLink(cfg, phoneSource),
		retry: w.now,
	}
	p.link.SetPassword("replayed")
	p.link.Cover(w.people.Subjects("tel"), w.now)
	w.phone = p
	w.targets["aes"] = func(words []string) error { return p.sw.Do(w.now, words) }
}

func (p *phoneWorld) next() []time.Time {
	times := []time.Time{p.sw.Next(), p.retry}
	if p.conn != nil {
		times = append(times, p.link.Next())
	}
	return times
}

func (p *phoneWorld) tick(w *world) error {
	p.sw.Tick(w.now)
	if p.conn == nil && !p.retry.IsZero() && !p.retry.After(w.now) {
		p.retry = time.Time{}
		if p.sw.Refusing() {
			p.retry = w.now.Add(5 * time.Second)
		} else {
			p.conn, p.in = p.sw.Attach(w.now), nil
			p.link.Connected(w.now)
		}
	}
	if p.conn != nil {
		p.link.Tick(w.now)
	}
	return p.exchange(w)
}

// exchange carries bytes both ways until both sides are quiet.
func (p *phoneWorld) exchange(w *world) error {
	for p.conn != nil {
		var out []byte
		for _, f := range p.link.Frames() {
			var err error
			if out, err = f.Append(out); err != nil {
				return err
			}
		}
		if len(out) > 0 {
			p.conn.Input(out, w.now)
		}
		in := p.conn.Output()
		err := p.receive(in, w.now)
		for _, r := range p.link.Reports() {
			w.report(r)
		}
		if err == nil {
			err = p.link.Err()
		}
		if err != nil || p.conn.Closed() {
			w.log.Warn("lost", "office", w.now, "source", phoneSource, "error", err, "closed by the switch", p.conn.Closed())
			p.conn.Hangup(w.now)
			p.link.Disconnected(w.now)
			p.conn, p.retry = nil, w.now.Add(5*time.Second)
			w.lost(phoneSource)
			return nil
		}
		if len(out) == 0 && len(in) == 0 {
			return nil
		}
	}
	return nil
}

// receive hands whole frames on.
func (p *phoneWorld) receive(in []byte, now time.Time) error {
	p.in = append(p.in, in...)
	for len(p.in) >= 8 {
		size := int(binary.BigEndian.Uint16(p.in[2:4]))
		if size > len(p.in) {
			return nil
		}
		f, err := csta.NewReader(bytes.NewReader(p.in)).Read()
		if errors.Is(err, csta.ErrFraming) {
			return err
		}
		p.in = p.in[size:]
		p.link.Receive(f, now)
	}
	return nil
}
