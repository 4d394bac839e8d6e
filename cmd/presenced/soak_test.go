package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/aes"
	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/fixtures/sim/simaes"
	"presenced/internal/secret"
)

// A soak joins the simulated switch and the collector, which were written apart
// from the same protocol, lets anything happen at the switch, and compares what the
// collector says of each station with what the switch knows of it.
type soak struct {
	t       *rapid.T
	w       *world
	sw      *simaes.Switch
	dialect simaes.Dialect

	linkDown bool
	refused  map[string]bool              // stations about which every request is refused
	limited  bool                         // there may be no licence for every station
	blind    time.Time                    // until then nobody knows that the session is gone
	shaky    map[string]time.Time         // until then a station may be unknown
	lags     map[string]time.Time         // until then a feature that is only polled may not be known
	coarse   map[string]bool              // what its calls are was hidden by the dialect
	hidden   map[string]bool              // whether it is in service was hidden by the dialect
	endpoint map[string]bool              // it is out because its telephone is not registered
	forwards map[string]map[string]bool   // the immediate kinds
	states   map[string]map[string]string // by station and call: what it did at the last command
	crowd    map[string]map[string]bool   // by station and call: there were others already when it answered
	talked   map[string]map[string]bool   // by station and call: somebody was there to talk to
}

const (
	soakRound = time.Minute // FeatureRound
	soakRetry = 5*time.Minute + 10*time.Second
)

func soakStations() []string { return []string{"4750", "4751", "4752", "4753"} }

func newSoak(t *rapid.T, dialect simaes.Dialect) *soak {
	var list []presence.Person
	for _, ext := range soakStations() {
		list = append(list, presence.Person{ID: presence.ID(ext), Name: ext, Subjects: []presence.Subject{{Scheme: "tel", Value: ext}}})
	}
	people, problems := directory.New(list)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	w := &world{
		now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), people: people, core: aggregator.NewCore(presence.DefaultPolicy()),
		shown: map[presence.ID]string{}, changed: map[presence.ID]bool{}, log: quiet(),
	}
	for _, p := range list {
		w.core.Enter(p.ID, w.now)
	}
	cfg := aes.DefaultConfig()
	cfg.Name, cfg.Switch, cfg.Rate, cfg.FeatureRound = phoneSource, simulatedSwitch, 100_000, soakRound
	w.phone = &phoneWorld{
		sw:   simaes.New(simaes.Config{Switch: simulatedSwitch, Stations: soakStations(), Queues: []string{"4790"}, Dialect: dialect}),
		link: aes.NewLink(cfg, phoneSource), retry: w.now,
	}
	w.phone.link.Cover(people.Subjects("tel"), w.now)
	s := &soak{
		t: t, w: w, sw: w.phone.sw, dialect: dialect,
		refused: map[string]bool{}, shaky: map[string]time.Time{}, lags: map[string]time.Time{}, coarse: map[string]bool{}, hidden: map[string]bool{},
		endpoint: map[string]bool{}, forwards: map[string]map[string]bool{}, talked: map[string]map[string]bool{}, crowd: map[string]map[string]bool{},
		states: map[string]map[string]string{},
	}
	for _, ext := range soakStations() {
		s.forwards[ext], s.talked[ext], s.crowd[ext], s.states[ext] = map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]string{}
	}
	return s
}

// pass lets d pass.
func (s *soak) pass(d time.Duration) {
	end := s.w.now.Add(d)
	for range 1_000_000 {
		if err := s.w.moment(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
		next := s.w.next()
		if next.IsZero() || next.After(end) {
			s.w.now = end
			return
		}
		if !next.After(s.w.now) {
			s.t.Fatalf("time stands still at %s: link %s switch %s retry %s core %s", s.w.now, s.w.phone.link.Next(), s.sw.Next(), s.w.phone.retry, s.w.core.Next())
		}
		s.w.now = next
	}
	s.t.Fatal("the link never comes to rest")
}

// deaf tells whether what happens at a station now may not be heard of.
func (s *soak) deaf(ext string) bool {
	return s.w.phone.conn == nil || s.linkDown || s.refused[ext] || s.limited || s.w.now.Before(s.blind) || s.w.now.Before(s.shaky[ext])
}

// missed notes that something that happened at the switch was not heard of.
func (s *soak) missed() {
	for _, ext := range soakStations() {
		if s.deaf(ext) {
			s.coarse[ext] = s.coarse[ext] || s.has(simaes.UnknownSnapshot)
			s.hidden[ext] = s.hidden[ext] || s.has(simaes.NoPrivate)
		}
	}
}

func (s *soak) has(d simaes.Dialect) bool { return s.dialect&d != 0 }

// do carries out a command, and tells whether it was possible.
func (s *soak) do(command string) bool {
	words := strings.Fields(command)
	if s.sw.Do(s.w.now, words) != nil {
		return false
	}
	s.t.Logf("%s  %s", s.w.now.Format("15:04:05.000"), command)
	s.note(words)
	return true
}

// note keeps the books of a command that was carried out.
func (s *soak) note(words []string) {
	now := s.w.now
	switch words[0] {
	case "dnd", "forward":
		ext := words[1]
		if words[0] == "forward" {
			kind := "forwardImmediate"
			if len(words) > 3 {
				kind = words[3]
			}
			if strings.HasPrefix(kind, "forwardImm") {
				s.forwards[ext][kind] = words[2] != "off"
			}
		}
		if s.has(simaes.NoPush) || s.deaf(ext) {
			s.lags[ext] = now.Add(soakRound + time.Second)
		}
	case "service", "endpoint":
		ext := words[1]
		s.endpoint[ext] = words[0] == "endpoint" && words[2] == "out"
		s.hidden[ext] = false
	case "conference", "transfer":
		for _, ext := range soakStations() {
			s.talked[ext][words[2]] = words[0] == "conference" || s.talked[ext][words[2]] || s.talked[ext][words[1]]
			s.crowd[ext][words[2]] = s.crowd[ext][words[2]] || s.crowd[ext][words[1]]
		}
	case "answer", "answerbridge":
		// Whether it is answered for those who ring in the call too is in neither.
		for _, ext := range soakStations() {
			if states := s.sw.Legs(ext)[words[1]]; states != nil && states[0] == "alerting" && s.has(simaes.NoLocalInfo) && s.has(simaes.UnknownSnapshot) {
				s.coarse[ext] = true
			}
		}
	case "link":
		s.linkDown = words[1] == "down"
	case "forget":
		s.blind = now.Add(40 * time.Second) // a quiet half minute, and the way back
	case "stop":
		s.shaky[words[1]] = now.Add(soakRetry)
	case "refuse":
		if s.refused[words[1]] = words[2] != "off"; !s.refused[words[1]] {
			s.shaky[words[1]] = now.Add(soakRetry)
			s.lags[words[1]] = now.Add(soakRetry)
		}
	case "limit":
		if s.limited = words[1] != "off"; !s.limited {
			for _, ext := range soakStations() {
				s.shaky[ext] = now.Add(soakRetry)
			}
		}
	}
	for _, ext := range soakStations() {
		legs := s.sw.Legs(ext)
		over := func(id string, _ bool) bool { return legs[id] == nil }
		maps.DeleteFunc(s.talked[ext], over)
		maps.DeleteFunc(s.crowd[ext], over)
		before := s.states[ext]
		s.states[ext] = map[string]string{}
		for id, states := range legs {
			s.states[ext][id] = states[0]
			if was := before[id]; states[0] == "connected" && (was == "" || was == "alerting") && len(states) > 2 {
				s.crowd[ext][id] = true
			}
			if states[0] == "connected" || states[0] == "hold" {
				s.talked[ext][id] = s.talked[ext][id] || slices.ContainsFunc(states[1:], talks) || slices.Contains(states[1:], "queued")
			}
		}
	}
	s.missed()
}

func talks(state string) bool { return state == "connected" || state == "hold" }

// either adds one of several sets to each of those that are allowed.
func either(allowed []presence.FactSet, choices ...presence.FactSet) []presence.FactSet {
	var out []presence.FactSet
	for _, a := range allowed {
		for _, c := range choices {
			out = append(out, a|c)
		}
	}
	return out
}

// A past is what happened in a call before, as far as facts depend on it.
type past struct {
	untold bool // snapshots do not tell the states of a call
	crowd  bool // there were others already when the station answered
	talked bool // somebody was there to talk to
}

// call gives the facts that a call may make true.
func (s *soak) call(ext, id string, states []string) []presence.FactSet {
	return callFacts(states, past{untold: s.has(simaes.UnknownSnapshot), crowd: s.crowd[ext][id], talked: s.talked[ext][id]})
}

// callFacts gives the facts that a call may make true, by section 12 of the protocol's
// notes.
func callFacts(states []string, p past) []presence.FactSet {
	var (
		dialing, ringing   = presence.Facts(presence.PhoneDialing), presence.Facts(presence.PhoneRinging)
		held, connected    = presence.Facts(presence.PhoneHeld), presence.Facts(presence.PhoneConnected)
		conference         = connected | presence.Facts(presence.PhoneConference)
		talking, elsewhere = 0, 0
	)
	switch states[0] {
	case "initiated", "fail":
		return []presence.FactSet{dialing}
	case "alerting":
		return []presence.FactSet{ringing}
	case "hold":
		return []presence.FactSet{held}
	}
	for _, st := range states[1:] {
		switch {
		case talks(st):
			talking++
		case st != "null":
			elsewhere++
		}
	}
	switch {
	case talking > 0 && p.untold, talking >= 2 && p.crowd:
		// Who is called into a conference is told who called, not who else is in it;
		// and not every snapshot tells.
		return []presence.FactSet{conference, connected}
	case talking >= 2:
		return []presence.FactSet{conference}
	case elsewhere > 0 && talking+elsewhere > 1 && p.talked:
		// Events name who is in the conference, a snapshot who talks there.
		return []presence.FactSet{connected, conference, dialing}
	case talking == 1 || slices.Contains(states, "queued"):
		return []presence.FactSet{connected}
	case p.talked:
		// Somebody answered, and handed the call on to one who has not. By the
		// events it is connected, by a snapshot it is being dialled.
		return []presence.FactSet{connected, dialing}
	default:
		return []presence.FactSet{dialing}
	}
}

// allowed gives the sets of facts that are true of a station; more than one where
// the protocol does not tell.
func (s *soak) allowed(ext string) []presence.FactSet {
	_, dnd, _, inService := s.sw.Facts(ext)
	legs := s.sw.Legs(ext)
	allowed := []presence.FactSet{0}
	for id, states := range legs {
		allowed = either(allowed, s.call(ext, id, states)...)
	}
	idle, out := presence.Facts(presence.PhoneIdle), presence.Facts(presence.PhoneOutOfService)
	rest := presence.FactSet(0)
	if len(legs) == 0 {
		rest = idle
	}
	switch {
	case s.hidden[ext]:
		allowed = either(allowed, rest, out)
	case inService:
		allowed = either(allowed, rest)
	case len(legs) > 0 && s.endpoint[ext]:
		allowed = either(allowed, rest, out) // an event says nothing then, a snapshot does
	default:
		allowed = either(allowed, out)
	}
	feature := func(f presence.Fact, on bool) {
		switch {
		case s.w.now.Before(s.lags[ext]):
			allowed = either(allowed, 0, presence.Facts(f))
		case on:
			allowed = either(allowed, presence.Facts(f))
		}
	}
	feature(presence.PhoneDND, dnd)
	forwarded := false
	for _, on := range s.forwards[ext] {
		forwarded = forwarded || on
	}
	feature(presence.PhoneForwarded, forwarded)
	return allowed
}

// said gives what the collector says of a station, and whether it is in doubt.
func (s *soak) said(ext string) (facts presence.FactSet, known, doubted bool) { return said(s.w, ext) }

func said(w *world, ext string) (facts presence.FactSet, known, doubted bool) {
	for _, r := range w.core.Reports(presence.ID(ext)) {
		if !r.Expires.IsZero() && !w.now.Before(r.Expires) {
			continue
		}
		known, doubted = len(r.Spans) > 0, !r.Doubted.IsZero()
		for _, span := range r.Spans {
			if span.Until.IsZero() {
				facts |= presence.Facts(span.Fact)
			}
		}
	}
	return facts, known, doubted
}

// compare compares what the collector says with the truth.
func (s *soak) compare() {
	for _, ext := range soakStations() {
		facts, known, doubted := s.said(ext)
		switch {
		case s.w.phone.conn == nil || s.linkDown:
			if known && !doubted && !s.w.now.Before(s.blind) {
				s.t.Fatalf("%s: %s without a doubt, though nothing is heard", ext, text(facts))
			}
		case s.w.now.Before(s.blind), s.refused[ext]:
		case !known:
			if !s.limited && !s.w.now.Before(s.shaky[ext]) {
				s.t.Fatalf("%s: nothing is known; %+v", ext, s.w.phone.link.Status())
			}
		case doubted && s.w.now.Before(s.shaky[ext]):
		case doubted:
			s.t.Fatalf("%s: in doubt; %+v", ext, s.w.phone.link.Status())
		case facts.Has(presence.PhoneOutOfService) && s.w.now.Before(s.shaky[ext]): // it was said to be, and is asked again in its time
		case s.coarse[ext]:
			calls := presence.Facts(presence.PhoneDialing, presence.PhoneRinging, presence.PhoneConnected, presence.PhoneHeld)
			legs := s.sw.Legs(ext)
			if (facts&calls != 0) != (len(legs) > 0) {
				s.t.Fatalf("%s: %s with the calls %v", ext, text(facts), legs)
			}
			if len(legs) == 0 {
				s.coarse[ext] = false
			}
		default:
			if allowed := s.allowed(ext); !slices.Contains(allowed, facts) {
				var want []string
				for _, a := range allowed {
					want = append(want, text(a))
				}
				s.t.Fatalf("%s (%s) at %s: said %s, want %s; calls %v", ext, s.dialect, s.w.now.Format("15:04:05"), text(facts), strings.Join(want, " or "), s.sw.Legs(ext))
			}
		}
	}
}

func text(facts presence.FactSet) string {
	var names []string
	for f := range facts.All() {
		names = append(names, strings.TrimPrefix(f.String(), "phone-"))
	}
	return "{" + strings.Join(names, " ") + "}"
}

// legs gives the calls of the stations as words: ID EXT.
func (s *soak) legs(states ...string) []string {
	var out []string
	for _, ext := range soakStations() {
		legs := s.sw.Legs(ext)
		for _, id := range slices.Sorted(maps.Keys(legs)) {
			if len(states) == 0 || slices.Contains(states, legs[id][0]) {
				out = append(out, id+" "+ext)
			}
		}
	}
	return out
}

// pairs gives the stations that have a held and an active call: ID1 ID2 EXT.
func (s *soak) pairs() []string {
	var out []string
	for _, held := range s.legs("hold") {
		for _, active := range s.legs("connected") {
			id, ext, _ := strings.Cut(held, " ")
			if other, same := strings.CutSuffix(active, " "+ext); same {
				out = append(out, id+" "+other+" "+ext)
			}
		}
	}
	return out
}

// command draws a command; it may be impossible.
func (s *soak) command() string {
	draw := func(label string, from ...string) string {
		if len(from) == 0 {
			return "none"
		}
		return rapid.SampledFrom(from).Draw(s.t, label)
	}
	words := strings.Fields(draw("command",
		"call ID NUM NUM", "call ID NUM NUM", "call ID EXT NUM", "call ID EXT NUM busy", "offhook ID EXT", "dial ID NUM", "answer ALERTING", "answer ALERTING", "answer ALERTING",
		"answer ID NUM", "hold CONNECTED", "hold CONNECTED", "retrieve HOLD", "retrieve HOLD", "hangup LEG", "hangup ID NUM", "clear ID", "divert ALERTING NUM", "divert ID 4790 NUM", "fail ID",
		"queue ID 4790", "conference PAIR", "conference PAIR", "transfer PAIR", "transfer PAIR", "bridge EXT EXT", "bridge EXT EXT off", "answerbridge ALERTING EXT",
		"dnd EXT on", "dnd EXT off", "forward EXT NUM", "forward EXT off", "forward EXT NUM KIND", "forward EXT off KIND", "service EXT in", "service EXT out", "endpoint EXT in", "endpoint EXT out",
		"link down", "link up", "lost", "drop", "accept", "forget", "terminate", "stop EXT", "raw EXT MALFORMED", "refuse EXT ERROR", "refuse EXT off", "limit 2", "limit off",
		"frame GARBAGE"))
	for i, w := range words {
		switch w {
		case "ID":
			w = draw("id", "1", "2", "3", "4", "5")
		case "NUM":
			w = draw("number", append(soakStations(), "01", "02")...)
		case "EXT":
			w = draw("station", soakStations()...)
		case "LEG":
			w = draw("leg", s.legs()...)
		case "ALERTING", "CONNECTED", "HOLD":
			w = draw("leg", s.legs(strings.ToLower(w))...)
		case "PAIR":
			w = draw("pair", s.pairs()...)
		case "KIND":
			w = draw("kind", "forwardImmInt", "forwardImmExt", "forwardBusy", "forwardNoAns")
		case "MALFORMED":
			w = draw("document", `<DeliveredEvent><monitorCrossRefID>{{xref}}</monitorCrossRefID><connection>`, `<DeliveredEvent`, `<FutureEvent><monitorCrossRefID>{{xref}}</monitorCrossRefID></FutureEvent>`,
				`<HeldEvent><monitorCrossRefID>77777</monitorCrossRefID></HeldEvent>`, strings.Repeat("<a>", 500))
		case "ERROR":
			w = draw("error", "operation privilegeViolationSpecifiedDevice", "operation invalidDeviceID", "systemResourceAvailibility overallMonitorLimitExceeded",
				"systemResourceAvailibility deviceOutOfService", "systemResourceAvailibility resourceBusy", "operation invalidMonitorCrossRefID", "unspecified")
		case "GARBAGE":
			w = draw("bytes", "0000000731323334", "0000000a393939390102", "00000008"+"39393939")
		}
		words[i] = w
	}
	return strings.Join(words, " ")
}

// lose lets the collector miss the events that are under way, and hear of that.
func (s *soak) lose() {
	p := s.w.phone
	if p.conn == nil {
		return
	}
	var kept []byte
	for out := p.conn.Output(); len(out) >= 8; {
		size := int(binary.BigEndian.Uint16(out[2:4]))
		if !bytes.Contains(out[:size], []byte("Event")) {
			kept = append(kept, out[:size]...)
		}
		out = out[size:]
	}
	if err := p.receive(kept, s.w.now); err != nil {
		s.t.Fatal(err)
	}
	s.do("lost")
	for _, ext := range soakStations() {
		s.coarse[ext] = s.coarse[ext] || s.has(simaes.UnknownSnapshot)
		s.hidden[ext] = s.hidden[ext] || s.has(simaes.NoPrivate)
		s.lags[ext] = s.w.now.Add(soakRound)
	}
}

// Whatever happens at the switch, and however it speaks, the collector says what is
// true.
func TestSoak(t *testing.T) {
	words := strings.Split(simaes.Dialect(1<<18-1).String(), ",")
	rapid.Check(t, func(t *rapid.T) {
		dialect, err := simaes.ParseDialect(strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), 0, 4).Draw(t, "dialect"), ","))
		if err != nil {
			t.Fatal(err)
		}
		s := newSoak(t, dialect)
		for range rapid.IntRange(0, 3).Draw(t, "before") {
			s.do(s.command())
		}
		for range rapid.IntRange(1, 40).Draw(t, "length") {
			s.pass(20 * time.Millisecond)
			s.compare()
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				s.pass(rapid.SampledFrom([]time.Duration{time.Second, 6 * time.Second, 31 * time.Second, 70 * time.Second, 6 * time.Minute}).Draw(t, "pause"))
				s.compare()
			case 1:
				if c := s.command(); s.do(c) && !strings.HasPrefix(c, "frame") && rapid.Bool().Draw(t, "lose") {
					s.lose()
				}
			default:
				s.do(s.command())
			}
		}
		// In the end all is well again, and nothing of the past is left.
		s.do("accept")
		s.do("link up")
		s.do("limit off")
		for _, ext := range soakStations() {
			s.do("refuse " + ext + " off")
		}
		for _, id := range []string{"1", "2", "3", "4", "5"} {
			s.do("clear " + id)
		}
		s.pass(11 * time.Minute)
		s.compare()
		if rest := s.w.phone.link.Status(); rest.Phase != presence.PhaseLive {
			t.Fatal(fmt.Sprintf("%+v", rest))
		}
	})
}

// One station that may not be monitored, one for which there is no licence, and
// malformed events of a third leave all others as they are.
func TestOthersAreUnaffected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSoak(t, 0)
		s.do("refuse 4750 operation privilegeViolationSpecifiedDevice")
		s.do("limit 2") // 4751 and 4752 get the monitors, 4753 none
		s.pass(time.Second)
		for step := range 12 {
			ext := rapid.SampledFrom([]string{"4750", "4751", "4753"}).Draw(t, "ext")
			switch step % 3 {
			case 0:
				s.do("raw 4751 <DeliveredEvent><monitorCrossRefID>{{xref}}</monitorCrossRefID><connection>")
			case 1:
				s.do(fmt.Sprintf("call %d 01 %s", step, ext))
			default:
				s.do(fmt.Sprintf("call %d %s 4752", step, ext))
				s.do(fmt.Sprintf("answer %d 4752", step))
			}
			s.pass(20 * time.Millisecond)
			for _, ext := range []string{"4751", "4752"} {
				if facts, known, doubted := s.said(ext); !known || doubted || !slices.Contains(s.allowed(ext), facts) {
					t.Fatalf("%s: known %v, doubted %v, said %s; calls %v", ext, known, doubted, text(facts), s.sw.Legs(ext))
				}
			}
		}
		for _, ext := range []string{"4750", "4753"} {
			if _, known, _ := s.said(ext); known || s.w.phone.link.Status().Unmonitored[ext] == "" {
				t.Fatalf("%s: known %v, status %+v", ext, known, s.w.phone.link.Status())
			}
		}
	})
}

// TestTelephonyOverTLS joins the two by real sockets: the switch demands a client
// certificate, drops the connection in a call, and is found again.
func TestTelephonyOverTLS(t *testing.T) {
	site := &site{t: t, dir: t.TempDir()}
	certificate := site.certificate()
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	site.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	clients := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	clients.AddCert(leaf)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	sw := simaes.New(simaes.Config{User: "svc", Password: "open sesame", Switch: simulatedSwitch, Stations: []string{"4750"}})
	cfg := aes.DefaultConfig()
	cfg.Name, cfg.Address, cfg.User, cfg.Switch = phoneSource, listener.Addr().String(), "svc", simulatedSwitch
	cfg.PasswordFile = secret.File(site.write("password", "open sesame"))
	cfg.TLS.CAFile, cfg.TLS.CertFile, cfg.TLS.KeyFile = filepath.Join(site.dir, "ca.pem"), filepath.Join(site.dir, "ca.pem"), filepath.Join(site.dir, "key.pem")
	cfg.TLS.ServerName = "aes.example.test"

	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() { _ = sw.Serve(ctx, listener) })
	source, reports := aes.New(cfg, quiet()), make(chan presence.Report, 100) // more than there are
	run := func() <-chan error {
		ended := make(chan error, 1)
		all.Go(func() {
			ended <- source.Run(ctx, phones{}, func(r presence.Report) error {
				select {
				case reports <- r:
				case <-ctx.Done():
				}
				return nil
			})
		})
		return ended
	}
	await := func(want presence.Fact) {
		t.Helper()
		limit := time.After(20 * time.Second)
		for {
			select {
			case r := <-reports:
				if slices.ContainsFunc(r.Spans, func(s presence.Span) bool { return s.Fact == want && s.Until.IsZero() }) {
					return
				}
			case <-limit:
				t.Fatalf("never %s; %+v", want, source.Status())
			}
		}
	}
	do := func(command string) {
		t.Helper()
		if err := sw.Do(time.Now(), strings.Fields(command)); err != nil {
			t.Fatal(err)
		}
	}
	ended := run()
	await(presence.PhoneIdle)
	do("call 1 01 4750")
	await(presence.PhoneRinging)
	do("answer 1 4750")
	await(presence.PhoneConnected)
	do("drop")
	if err := <-ended; err == nil || ctx.Err() != nil {
		t.Fatalf("after the connection was dropped: %v", err)
	}
	do("accept")
	ended = run()
	await(presence.PhoneConnected)
	do("hangup 1 4750")
	await(presence.PhoneIdle)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("in the end: %v", err)
	}
}

// phones is a roster of one extension that never changes.
type phones struct{}

func (phones) Subjects(ctx context.Context, scheme string) iter.Seq[[]presence.Subject] {
	return func(yield func([]presence.Subject) bool) {
		if yield([]presence.Subject{{Scheme: scheme, Value: "4750"}}) {
			<-ctx.Done()
		}
	}
}
