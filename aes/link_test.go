package aes

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"presenced/aes/csta"
	"presenced/aggregator/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server answers the requests of a Link as an AES does, without a wire and in
// the time of the test.
type server struct {
	t     rapid.TB
	link  *Link
	now   time.Time
	delay time.Duration // of every answer

	password string
	granted  int                           // seconds
	answer   func(root, ext string) string // overrules the answer: a document, "-" for none, "" for the usual one
	station  func(ext string) string       // what a snapshot says of it
	dnd      map[string]bool
	agents   map[string]string // what the agents do, by extension

	session  string
	sessions int
	monitors map[string]string // extension -> cross reference
	nextRef  int

	later   []laterFrame
	got     []sent
	waiting int // requests without an answer yet
	most    int
	reports []presence.Report
}

type laterFrame struct {
	at time.Time
	f  csta.Frame
}

type sent struct {
	at        time.Time
	root, ext string
	id        uint16
	xml       string
}

func testConfig() Config {
	c := DefaultConfig()
	c.Name, c.Address, c.User, c.PasswordFile, c.Switch = "aes-cm1", "aes.example.com", "cti", "/etc/secret", "CM1"
	c.FeaturePoll, c.Agents = 0, false
	return c
}

func newServer(t rapid.TB, change func(*Config)) *server {
	t.Helper()
	cfg := testConfig()
	if change != nil {
		change(&cfg)
	}
	if ps := cfg.Check(); len(ps) > 0 {
		t.Fatal(ps)
	}
	s := &server{t: t, link: NewLink(cfg, "aes-cm1"), now: at(0), password: "right", granted: 180, dnd: map[string]bool{}, monitors: map[string]string{}, nextRef: 1}
	s.link.SetPassword("right")
	return s
}

func (s *server) cover(extensions ...string) {
	var subjects []presence.Subject
	for _, x := range extensions {
		subjects = append(subjects, presence.Subject{Scheme: "tel", Value: x})
	}
	s.link.Cover(subjects, s.now)
}

func (s *server) connect() { s.link.Connected(s.now); s.run(0) }

func (s *server) disconnect() {
	s.link.Disconnected(s.now)
	s.later, s.waiting = nil, 0
}

// ahead gives the time of the next tick, which no input leaves due: who waits for it
// would wait for nothing, again and again.
func (s *server) ahead() time.Time {
	s.t.Helper()
	next := s.link.Next()
	if !next.IsZero() && !next.After(s.now) {
		s.t.Fatalf("after an input at %s the next tick is due at %s", s.now, next)
	}
	return next
}

// run lets d pass.
func (s *server) run(d time.Duration) {
	s.t.Helper()
	end := s.now.Add(d)
	for range 1_000_000 {
		for _, f := range s.link.Frames() {
			s.request(f)
		}
		s.reports = append(s.reports, s.link.Reports()...)
		next := s.ahead()
		slices.SortStableFunc(s.later, func(a, b laterFrame) int { return a.at.Compare(b.at) })
		if len(s.later) > 0 && (next.IsZero() || !next.Before(s.later[0].at)) {
			if s.later[0].at.After(end) {
				break
			}
			l := s.later[0]
			s.later = s.later[1:]
			s.now = l.at
			s.waiting--
			s.link.Receive(l.f, s.now)
			continue
		}
		if next.IsZero() || next.After(end) {
			s.now = end
			return
		}
		s.now = next
		s.link.Tick(s.now)
	}
	if s.now.Before(end) && len(s.later) > 0 && s.later[0].at.After(end) {
		s.now = end
		return
	}
	if len(s.later) == 0 || !s.later[0].at.After(end) {
		s.t.Fatal("the link never comes to rest")
	}
}

var (
	rootOf   = regexp.MustCompile(`^<\?xml[^>]*\?><(\w+)`)
	deviceOf = regexp.MustCompile(`>([0-9*#]+):CM1::0<`)
	element  = func(name string) *regexp.Regexp { return regexp.MustCompile(`<` + name + `[^>]*>([^<]*)</`) }
)

func text(re *regexp.Regexp, document string) string {
	if m := re.FindStringSubmatch(document); m != nil {
		return m[1]
	}
	return ""
}

func csta3(root, content string) string {
	return "<" + root + ` xmlns="` + csta.NamespaceCSTA + `">` + content + "</" + root + ">"
}

func failure(group, value string) string {
	return csta3("CSTAErrorCode", "<"+group+">"+value+"</"+group+">")
}

// request takes one frame of the link.
func (s *server) request(f csta.Frame) {
	doc := string(f.XML)
	root := text(rootOf, doc)
	ext := text(deviceOf, doc)
	if root == "GetThirdPartyDeviceId" {
		ext = text(element("extension"), doc)
	}
	s.got = append(s.got, sent{s.now, root, ext, f.InvokeID, doc})
	if root == "SystemStatusResponse" {
		return
	}
	out := ""
	if s.answer != nil {
		out = s.answer(root, ext)
	}
	if out == "" {
		out = s.usual(root, ext, doc)
	}
	s.waiting++
	s.most = max(s.most, s.waiting)
	if out != "-" {
		s.later = append(s.later, laterFrame{s.now.Add(s.delay), csta.Frame{InvokeID: f.InvokeID, XML: []byte(out)}})
	}
}

func (s *server) usual(root, ext, doc string) string {
	switch root {
	case "StartApplicationSession":
		old := text(element("sessionID"), doc)
		switch {
		case text(element("password"), doc) != s.password:
			return "<StartApplicationSessionNegResponse><errorCode><definedError>invalidApplicationInfo</definedError></errorCode></StartApplicationSessionNegResponse>"
		case old != "" && old != s.session:
			return "<StartApplicationSessionNegResponse><errorCode><applError>no such session</applError></errorCode></StartApplicationSessionNegResponse>"
		case old == "":
			s.sessions++
			s.session = fmt.Sprintf("SECRET-%d", s.sessions)
			clear(s.monitors)
		}
		return fmt.Sprintf("<StartApplicationSessionPosResponse><sessionID>%s</sessionID><actualProtocolVersion>x</actualProtocolVersion><actualSessionDuration>%d</actualSessionDuration></StartApplicationSessionPosResponse>", s.session, s.granted)
	case "ResetApplicationSessionTimer":
		return fmt.Sprintf("<ResetApplicationSessionTimerPosResponse><actualSessionDuration>%d</actualSessionDuration></ResetApplicationSessionTimerPosResponse>", s.granted)
	case "StopApplicationSession":
		s.session = ""
		return "<StopApplicationSessionPosResponse/>"
	case "SystemRegister":
		return csta3("SystemRegisterResponse", "<sysStatRegisterID>500046</sysStatRegisterID>")
	case "RequestSystemStatus":
		return csta3("RequestSystemStatusResponse", "<systemStatus>normal</systemStatus>")
	case "GetThirdPartyDeviceId":
		return "<GetThirdPartyDeviceIdResponse><device>" + ext + ":CM1::0</device></GetThirdPartyDeviceIdResponse>"
	case "GetMonitorList":
		list := ""
		for _, ref := range s.monitors {
			list += "<monitorObjectData><MonitorStartResponse><monitorCrossRefID>" + ref + "</monitorCrossRefID></MonitorStartResponse></monitorObjectData>"
		}
		s.waiting++
		s.later = append(s.later, laterFrame{s.now.Add(s.delay), csta.Frame{InvokeID: csta.EventID, XML: []byte(
			"<GetMonitorListEvent><isFinalResponse>true</isFinalResponse><monitorCrossRefID>session</monitorCrossRefID><monitorObjectDataList>" + list + "</monitorObjectDataList></GetMonitorListEvent>")}})
		return "<GetMonitorListResponse/>"
	case "MonitorStart":
		if ext == "" {
			return csta3("MonitorStartResponse", "<monitorCrossRefID>session</monitorCrossRefID>")
		}
		s.nextRef++
		s.monitors[ext] = fmt.Sprint(s.nextRef)
		return csta3("MonitorStartResponse", "<monitorCrossRefID>"+s.monitors[ext]+"</monitorCrossRefID>")
	case "SnapshotDevice":
		calls := ""
		if s.station != nil {
			calls = s.station(ext)
		}
		return csta3("SnapshotDeviceResponse", "<crossRefIDorSnapshotData><snapshotData>"+calls+"</snapshotData></crossRefIDorSnapshotData>"+
			"<extensions><privateData><private><a:SnapshotDeviceResponsePrivateData><a:serviceState>inService</a:serviceState></a:SnapshotDeviceResponsePrivateData></private></privateData></extensions>")
	case "GetDoNotDisturb":
		return csta3("GetDoNotDisturbResponse", fmt.Sprintf("<doNotDisturbOn>%t</doNotDisturbOn>", s.dnd[ext]))
	case "GetForwarding":
		return csta3("GetForwardingResponse", "<forwardingList/>")
	case "GetAgentState":
		state := s.agents[ext]
		if state == "" {
			return csta3("GetAgentStateResponse", "<agentStateList/>")
		}
		return csta3("GetAgentStateResponse", "<agentStateList><agentStateEntry><agentID>5001</agentID><loggedOnState>true</loggedOnState><agentInfo><agentInfoItem><agentState>"+state+"</agentState></agentInfoItem></agentInfo></agentStateEntry></agentStateList>")
	case "MonitorStop", "ReleaseDeviceId":
		ref := text(element("monitorCrossRefID"), doc)
		maps.DeleteFunc(s.monitors, func(_, r string) bool { return r == ref })
		return csta3(root+"Response", "")
	}
	s.t.Errorf("the link asks %s", root)
	return "-"
}

// push sends something unasked.
func (s *server) push(document string) {
	s.link.Receive(csta.Frame{InvokeID: csta.EventID, XML: []byte(document)}, s.now)
	s.run(0)
}

func (s *server) callEvent(root, ext, connection, device, local string) {
	s.push(csta3(root, "<monitorCrossRefID>"+s.monitors[ext]+"</monitorCrossRefID><"+connection+"><callID>1</callID><deviceID>"+ext+":CM1::0</deviceID></"+connection+"><"+
		device+"><deviceIdentifier>"+ext+":CM1::0</deviceIdentifier></"+device+"><localConnectionInfo>"+local+"</localConnectionInfo>"))
}

func (s *server) rings(ext string) {
	s.callEvent("DeliveredEvent", ext, "connection", "alertingDevice", "alerting")
}

func (s *server) answers(ext string) {
	s.callEvent("EstablishedEvent", ext, "establishedConnection", "answeringDevice", "connected")
}

func (s *server) hangsUp(ext string) {
	s.callEvent("ConnectionClearedEvent", ext, "droppedConnection", "releasingDevice", "null")
}

func (s *server) status(status, tlink string) {
	private := ""
	if tlink != "" {
		name, state, _ := strings.Cut(tlink, " ")
		private = "<extensions><privateData><private><SystemStatusPrivateData><switchTlinkStatus><switchName>" + name + "</switchName><tlinkStatus>" + state + "</tlinkStatus></switchTlinkStatus></SystemStatusPrivateData></private></privateData></extensions>"
	}
	s.link.Receive(csta.Frame{InvokeID: 4711, XML: []byte(csta3("SystemStatus", "<systemStatus>"+status+"</systemStatus>"+private))}, s.now)
}

const talking = "<snapshotDeviceResponseInfo><connectionIdentifier><callID>1</callID><deviceID>x</deviceID></connectionIdentifier><localCallState><compoundCallState>" +
	"<localConnectionState>connected</localConnectionState><localConnectionState>connected</localConnectionState></compoundCallState></localCallState></snapshotDeviceResponseInfo>"

// said drains the reports as lines: extension, facts that hold, what is in doubt.
func (s *server) said() []string {
	var out []string
	for _, r := range s.reports {
		out = append(out, describe(r))
		if err := r.Check(); err != nil {
			s.t.Error(err)
		}
	}
	s.reports = nil
	slices.Sort(out)
	return out
}

func describe(r presence.Report) string {
	line := r.Subject.Value + ":"
	var names []string
	for _, sp := range r.Spans {
		if sp.Until.IsZero() {
			names = append(names, strings.TrimPrefix(sp.Fact.String(), "phone-"))
		}
	}
	slices.Sort(names)
	if len(r.Spans) == 0 {
		names = []string{"nothing"}
	}
	line += " " + strings.Join(names, " ")
	if !r.Doubted.IsZero() {
		line += fmt.Sprintf(", doubted %s for %s", r.Doubted.Format("15:04:05"), r.Expires.Sub(r.Doubted))
	}
	return line
}

func (s *server) want(lines ...string) {
	s.t.Helper()
	got := s.said()
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		s.t.Fatalf("said\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(lines, "\n  "))
	}
}

// asked drains the names of the requests, in order.
func (s *server) asked() []string {
	var out []string
	for _, g := range s.got {
		out = append(out, strings.TrimSpace(g.root+" "+g.ext))
	}
	s.got = nil
	return out
}

func (s *server) count(root string) int {
	n := 0
	for _, g := range s.got {
		if g.root == root {
			n++
		}
	}
	return n
}

func (s *server) phase(want presence.Phase) {
	s.t.Helper()
	if st := s.link.Status(); st.Phase != want {
		s.t.Fatalf("phase %s (%s), want %s", st.Phase, st.Detail, want)
	}
}

// live starts a link that covers the extensions, in peace.
func live(t *testing.T, extensions ...string) *server {
	t.Helper()
	s := newServer(t, nil)
	s.cover(extensions...)
	s.connect()
	s.run(5 * time.Second)
	s.phase(presence.PhaseLive)
	s.said()
	s.asked()
	return s
}

func TestLoginAndSweep(t *testing.T) {
	s := newServer(t, nil)
	s.dnd["4751"] = true
	s.station = func(ext string) string {
		if ext == "4750" {
			return talking
		}
		return ""
	}
	s.phase(presence.PhaseConnecting)
	s.connect()
	s.phase(presence.PhaseSyncing) // the roster is not known
	s.cover("4750", "4751")
	s.run(0)
	s.phase(presence.PhaseSyncing)
	s.run(5 * time.Second)
	s.phase(presence.PhaseLive)
	want := []string{
		"StartApplicationSession", "SystemRegister", "RequestSystemStatus",
		"GetThirdPartyDeviceId 4750", "MonitorStart 4750", "SnapshotDevice 4750", "GetDoNotDisturb 4750", "GetForwarding 4750",
		"GetThirdPartyDeviceId 4751", "MonitorStart 4751", "SnapshotDevice 4751", "GetDoNotDisturb 4751", "GetForwarding 4751",
	}
	if got := s.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %q", got)
	}
	// Nobody is shown as free before it is known whether they may be disturbed.
	s.want("4750: connected", "4751: dnd idle")
	s.rings("4751")
	s.want("4751: dnd ringing")
	s.rings("4751") // nothing new
	s.want()
	s.answers("4751")
	s.hangsUp("4751")
	s.want("4751: connected dnd", "4751: dnd idle")
}

func TestReportsCarryWhatTheAggregatorNeeds(t *testing.T) {
	s := newServer(t, nil)
	s.cover("4750")
	s.connect()
	s.run(time.Second)
	r := s.reports[0]
	if r.Source != "aes-cm1" || r.Subject != (presence.Subject{Scheme: "tel", Value: "4750"}) || r.Grace != 30*time.Second || !r.Doubted.IsZero() || !r.Expires.IsZero() || r.Spans[0].Contact != "tel:4750" {
		t.Errorf("%+v", r)
	}
}

func TestKeepAliveAtHalfOfWhatIsGranted(t *testing.T) {
	s := newServer(t, nil)
	s.granted = 60
	s.connect()
	s.run(95 * time.Second)
	var times []time.Duration
	for _, g := range s.got {
		if g.root == "ResetApplicationSessionTimer" {
			times = append(times, g.at.Sub(at(0)))
			if !strings.Contains(g.xml, "SECRET-1") {
				t.Error("keep-alive of another session")
			}
		}
	}
	if !slices.Equal(times, []time.Duration{30 * time.Second, 60 * time.Second, 90 * time.Second}) {
		t.Errorf("signs of life at %v", times)
	}
	s.granted = 20 // the server grants less from now on
	s.got = nil
	s.run(60 * time.Second)
	if n := s.count("ResetApplicationSessionTimer"); n != 4 { // the next one was due half a minute after the last
		t.Errorf("%d signs of life in a minute", n)
	}
}

func TestKeepAliveDoesNotWaitBehindTheSweep(t *testing.T) {
	s := newServer(t, func(c *Config) { c.Rate, c.Outstanding = 1, 2 })
	s.granted, s.delay = 10, 9*time.Second
	s.cover("1", "2", "3", "4", "5", "6", "7", "8", "9")
	s.connect()
	s.run(60 * time.Second)
	if n := s.count("ResetApplicationSessionTimer"); n < 5 || s.link.Err() != nil {
		t.Errorf("%d signs of life, %v", n, s.link.Err())
	}
}

func TestKeepAliveFails(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		s := live(t)
		s.answer = func(root, _ string) string {
			return map[string]string{"ResetApplicationSessionTimer": "<ResetApplicationSessionTimerNegResponse><errorCode><definedError>invalidSessionID</definedError></errorCode></ResetApplicationSessionTimerNegResponse>"}[root]
		}
		s.run(2 * time.Minute)
		if err := s.link.Err(); err == nil || presence.IsPermanent(err) {
			t.Fatal(err)
		}
		s.answer = nil
		s.disconnect()
		s.got = nil
		s.connect()
		if got := text(element("sessionID"), s.got[0].xml); got != "" {
			t.Error("asks for a session that is gone")
		}
	})
	t.Run("not answered", func(t *testing.T) {
		s := live(t)
		s.answer = func(string, string) string { return "-" }
		s.run(quietAfter + answerWithin) // long before the next sign of life is due
		s.phase(presence.PhaseDegraded)
		if s.link.Err() != nil {
			t.Fatal("gave up after one")
		}
		s.run(answerWithin)
		if err := s.link.Err(); err == nil || presence.IsPermanent(err) {
			t.Fatalf("did not give up after two: %v", err)
		}
	})
}

func TestLoginRefused(t *testing.T) {
	for _, tc := range []struct {
		answer    string
		permanent bool
	}{
		{"", true}, // wrong password
		{"<StartApplicationSessionNegResponse><errorCode><applError>user locked</applError></errorCode></StartApplicationSessionNegResponse>", true},
		{"<StartApplicationSessionNegResponse><errorCode><definedError>requestedProtocolVersionNotSupported</definedError></errorCode></StartApplicationSessionNegResponse>", true},
		{failure("security", "generic"), true},
		{"<StartApplicationSessionNegResponse><errorCode><definedError>maxNumberSessions</definedError></errorCode></StartApplicationSessionNegResponse>", false},
		{failure("systemResourceAvailibility", "resourceBusy"), false},
		{"-", false},
	} {
		s := newServer(t, nil)
		s.password = "another"
		s.answer = func(string, string) string { return tc.answer }
		s.connect()
		s.run(answerWithin)
		err := s.link.Err()
		if err == nil || presence.IsPermanent(err) != tc.permanent {
			t.Errorf("%q: %v, permanent %v", tc.answer, err, presence.IsPermanent(err))
		}
		if strings.Contains(fmt.Sprint(err, s.link.Notes(), s.link.Status()), "right") {
			t.Error("the password shows")
		}
	}
}

func TestRecovery(t *testing.T) {
	t.Run("kept, the call still up", func(t *testing.T) {
		s := live(t, "4750", "4751")
		s.rings("4750")
		s.answers("4750")
		s.said()
		s.disconnect()
		s.phase(presence.PhaseConnecting)
		s.now = s.now.Add(20 * time.Second)
		s.station = func(ext string) string { return map[string]string{"4750": talking}[ext] }
		s.connect()
		s.run(time.Second)
		want := []string{"StartApplicationSession", "RequestSystemStatus", "MonitorStart", "SnapshotDevice 4750", "GetMonitorList", "MonitorStop", "SnapshotDevice 4751", "GetDoNotDisturb 4750", "GetForwarding 4750", "GetDoNotDisturb 4751", "GetForwarding 4751"}
		if v := text(element("protocolVersion"), s.got[0].xml); v != "x" {
			t.Errorf("recovers under version %q, not that of the session", v)
		}
		if got := s.asked(); !slices.Equal(got, want) {
			t.Errorf("asked %q", got)
		}
		for _, r := range s.reports {
			for _, sp := range r.Spans {
				if sp.From.After(at(5)) {
					t.Errorf("%s: %s anew at %s", r.Subject, sp.Fact, sp.From)
				}
			}
		}
		s.want("4750: connected", "4751: idle") // once each, also if unchanged
		s.hangsUp("4750")                       // the monitor lives
		s.want("4750: idle")
	})
	t.Run("kept, the call ended meanwhile", func(t *testing.T) {
		s := live(t, "4750")
		s.rings("4750")
		s.answers("4750")
		s.said()
		s.disconnect()
		lost := s.now
		s.now = s.now.Add(20 * time.Second)
		s.connect()
		s.run(time.Second)
		for _, r := range s.reports {
			for _, sp := range r.Spans {
				if sp.Fact == presence.PhoneConnected && !sp.Until.Equal(lost) {
					t.Errorf("in the call until %s, last heard of at %s", sp.Until, lost)
				}
			}
		}
		s.want("4750: idle")
	})
	t.Run("lost", func(t *testing.T) {
		s := live(t, "4750")
		s.disconnect()
		s.session = "" // the server restarted
		s.connect()
		s.run(time.Second)
		want := []string{"StartApplicationSession", "StartApplicationSession", "SystemRegister", "GetThirdPartyDeviceId 4750", "RequestSystemStatus", "MonitorStart 4750", "SnapshotDevice 4750", "GetDoNotDisturb 4750", "GetForwarding 4750"}
		if got := s.asked(); !slices.Equal(got, want) {
			t.Errorf("asked %q", got)
		}
		s.want("4750: idle")
	})
	t.Run("another session under the name of recovery", func(t *testing.T) {
		s := live(t, "4750")
		s.disconnect()
		s.answer = func(root, _ string) string {
			return map[string]string{"StartApplicationSession": "<StartApplicationSessionPosResponse><sessionID>OTHER</sessionID></StartApplicationSessionPosResponse>"}[root]
		}
		s.connect()
		s.run(time.Second)
		if got := s.asked(); !slices.Contains(got, "MonitorStart 4750") { // in it nothing is monitored
			t.Errorf("asked %q", got)
		}
	})
	t.Run("many left meanwhile", func(t *testing.T) {
		s := newServer(t, func(c *Config) { c.Rate = 2 })
		s.cover("4750", "4751", "4752", "4753")
		s.connect()
		s.run(time.Minute)
		s.disconnect()
		s.cover("4750")
		s.asked()
		s.connect()
		s.run(time.Minute)
		if n := s.count("MonitorStop"); n != 4 || len(s.monitors) != 1 { // three, and that of the session
			t.Errorf("%d monitors are ended, and %v are left", n, s.monitors)
		}
	})
	t.Run("someone left meanwhile", func(t *testing.T) {
		s := live(t, "4750", "4751")
		s.disconnect()
		s.cover("4750")
		s.connect()
		s.run(time.Second)
		if s.count("MonitorStop") != 2 { // and that of the session
			t.Errorf("the monitor of the leaver is kept: %q", s.asked())
		}
	})
	t.Run("someone left meanwhile, of a server that does not list its monitors", func(t *testing.T) {
		s := live(t, "4750", "4751")
		s.disconnect()
		s.cover("4750")
		s.answer = func(root, ext string) string {
			if root == "MonitorStart" && ext == "" {
				return failure("operation", "serviceNotSupported")
			}
			return ""
		}
		s.connect()
		s.run(time.Second)
		if s.count("MonitorStop") != 1 || len(s.monitors) != 1 {
			t.Errorf("the monitor of the leaver is kept: %q", s.asked())
		}
	})
}

// The server is told how long to keep the monitors without a connection: that is the
// time in which the session can be taken up again.
func TestLoginAsksForTheTimesOfTheSession(t *testing.T) {
	s := newServer(t, func(c *Config) { c.CleanupDelay, c.SessionDuration = 90*time.Second, 2*time.Minute })
	for range 2 { // a recovery too
		s.connect()
		login := s.got[0].xml
		if delay, duration := text(element("sessionCleanupDelay"), login), text(element("requestedSessionDuration"), login); delay != "90" || duration != "120" {
			t.Errorf("asks for a clean-up delay of %q, a duration of %q", delay, duration)
		}
		s.disconnect()
		s.asked()
	}
}

func TestStop(t *testing.T) {
	s := live(t, "4750")
	s.link.Stop(s.now)
	s.cover("4750", "4751")
	s.run(5 * time.Minute)
	if got := s.asked(); !slices.Equal(got, []string{"StopApplicationSession"}) || s.link.Err() != ErrStopped { //nolint:errorlint // exactly that
		t.Errorf("asked %q, %v", got, s.link.Err())
	}
	s.disconnect()
	s.connect()
	if got := text(element("sessionID"), s.got[0].xml); got != "" {
		t.Error("asks for a session that was stopped")
	}
}

func TestInvokeIDs(t *testing.T) {
	s := newServer(t, nil)
	s.answer = func(root, _ string) string {
		if root == "SystemRegister" {
			return "-"
		}
		return ""
	}
	s.link.lastID = csta.LastID - 1
	s.cover("4750", "4751")
	s.connect() // login 9998, SystemRegister 1 stays outstanding
	s.run(5 * time.Second)
	if s.got[0].id != csta.LastID || s.got[1].id != csta.FirstID {
		t.Fatalf("%+v", s.got[:2])
	}
	s.link.lastID = csta.LastID
	s.got = nil
	s.cover("4750", "4751", "4752")
	s.run(time.Second)
	if id := s.got[0].id; id != 2 {
		t.Errorf("invoke ID %d, want 2: 1 is outstanding", id)
	}
}

func TestPace(t *testing.T) {
	s := newServer(t, nil)
	s.delay = 500 * time.Millisecond
	var all []string
	for i := range 300 {
		all = append(all, fmt.Sprint(4000+i))
	}
	s.cover(all...)
	s.connect()
	s.run(20 * time.Second)
	if s.most > 20 {
		t.Errorf("%d outstanding", s.most)
	}
	s.delay, s.got = time.Millisecond, nil
	s.run(10 * time.Second)
	perSecond := map[int64]int{}
	for _, g := range s.got {
		perSecond[g.at.Unix()]++
	}
	if m := slices.Max(slices.Collect(maps.Values(perSecond))); m > 51 || len(s.got) < 450 {
		t.Errorf("%d in one second, %d in ten", m, len(s.got))
	}
	s.run(30 * time.Second)
	s.phase(presence.PhaseLive)
	if len(s.said()) != 300 {
		t.Error("not everybody was heard of")
	}
}

func TestMonitorLicenceExhausted(t *testing.T) {
	s := newServer(t, nil)
	limit := 50
	s.answer = func(root, _ string) string {
		if root == "MonitorStart" && len(s.monitors) >= limit {
			return failure("systemResourceAvailibility", "overallMonitorLimitExceeded")
		}
		return ""
	}
	var all []string
	for i := range 100 {
		all = append(all, fmt.Sprint(4000+i))
	}
	s.cover(all...)
	s.connect()
	s.run(20 * time.Second)
	s.phase(presence.PhaseLive)
	st := s.link.Status()
	if len(st.Unmonitored) != 50 || !strings.Contains(st.Unmonitored["4050"], "licence") || st.Detail != "50 of 100 monitored" {
		t.Fatalf("%+v", st)
	}
	n := 0
	for _, r := range s.reports {
		if len(r.Spans) == 0 {
			n++
		}
	}
	if n != 50 || len(s.reports) != 100 {
		t.Errorf("%d of %d reports without spans", n, len(s.reports))
	}
	s.said()
	s.got = nil
	s.run(time.Hour)
	if n := s.count("MonitorStart"); n < 11 || n > 13 {
		t.Errorf("tried %d times in an hour, want once in five minutes", n)
	}
	// A place becomes free, and the first one that waits gets it.
	s.got = nil
	s.cover(all[1:]...)
	s.run(2 * time.Second)
	if _, first := s.monitors["4050"]; !first || len(s.monitors) != 50 {
		t.Errorf("monitored after somebody left: %v", s.monitors)
	}
	s.cover(all...)
	s.run(2 * time.Second)
	s.said()
	limit = 100
	s.run(5*time.Minute + 10*time.Second)
	if len(s.link.Status().Unmonitored) != 0 || len(s.said()) != 50 {
		t.Errorf("%+v", s.link.Status())
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		root, group, value string
		said, why          string
		again              time.Duration // when it works
	}{
		{"GetThirdPartyDeviceId", "operation", "invalidDeviceID", "4750: nothing", "does not know", retryRefused},
		{"MonitorStart", "operation", "privilegeViolationSpecifiedDevice", "4750: nothing", "unrestricted access", retryRefused},
		{"MonitorStart", "operation", "invalidMonitorObject", "4750: nothing", "does not know", retryRefused},
		{"MonitorStart", "subscribedResourceAvailability", "objectMonitorLimitExceeded", "4750: nothing", "other applications", retryRefused},
		{"MonitorStart", "operation", "generic", "4750: nothing", "operation generic", retryRefused},
		{"MonitorStart", "systemResourceAvailibility", "deviceOutOfService", "4750: out-of-service", "", time.Minute},
		{"MonitorStart", "systemResourceAvailibility", "resourceBusy", "", "", time.Minute},
		{"SnapshotDevice", "systemResourceAvailibility", "deviceOutOfService", "4750: out-of-service", "", time.Minute},
		{"SnapshotDevice", "operation", "generic", "", "", time.Minute},
		{"SnapshotDevice", "systemResourceAvailibility", "networkBusy", "", "", time.Minute},
	} {
		t.Run(tc.root+" "+tc.value, func(t *testing.T) {
			s := newServer(t, nil)
			refuse := true
			s.answer = func(root, ext string) string {
				if refuse && root == tc.root && ext == "4750" {
					return failure(tc.group, tc.value)
				}
				return ""
			}
			s.cover("4750", "4751")
			s.connect()
			s.run(5 * time.Second)
			s.phase(presence.PhaseLive)
			want := []string{"4751: idle"} // nobody else is harmed
			if tc.said != "" {
				want = append(want, tc.said)
			}
			s.want(want...)
			if why := s.link.Status().Unmonitored["4750"]; !strings.Contains(why, tc.why) || (why == "") != (tc.why == "") {
				t.Errorf("why: %q", why)
			}
			if tc.again == retryRefused { // what a person must put right is not asked for all the time
				s.asked()
				s.run(tc.again - 10*time.Second)
				if got := s.asked(); slices.ContainsFunc(got, func(r string) bool { return strings.HasSuffix(r, " 4750") }) {
					t.Errorf("asked %q", got)
				}
			}
			refuse = false
			s.run(tc.again)
			s.want("4750: idle")
		})
	}
}

func TestFeaturesNotSupported(t *testing.T) {
	s := newServer(t, func(c *Config) { c.FeaturePoll, c.FeatureRound = 100*time.Millisecond, 0 })
	s.answer = func(root, _ string) string {
		if root == "GetDoNotDisturb" {
			return failure("operation", "serviceNotSupported")
		}
		return ""
	}
	s.cover("4750", "4751")
	s.connect()
	s.run(10 * time.Second)
	if n := s.count("GetDoNotDisturb"); n > 2 {
		t.Errorf("asked %d times", n)
	}
	if n := s.count("GetForwarding"); n < 90 {
		t.Errorf("forwarding asked %d times in 10 s", n)
	}
	s.want("4750: idle", "4751: idle")
}

func TestFeaturePoll(t *testing.T) {
	s := newServer(t, func(c *Config) { c.FeaturePoll, c.FeatureRound = 100*time.Millisecond, 0 })
	s.cover("4750", "4751")
	s.connect()
	s.run(time.Second)
	s.said()
	s.dnd["4751"] = true
	s.run(time.Second)
	s.want("4751: dnd idle") // not pushed, only polled
	s.push(csta3("DoNotDisturbEvent", "<monitorCrossRefID>"+s.monitors["4751"]+"</monitorCrossRefID><doNotDisturbOn>false</doNotDisturbOn>"))
	s.dnd["4751"] = false
	s.want("4751: idle")
	s.got = nil
	s.run(10 * time.Second)
	if n := s.count("GetDoNotDisturb"); n < 8 || n > 12 {
		t.Errorf("a switch that pushes is asked %d times in 10 s", n)
	}
}

func (s *server) agentEvent(root, ext string) {
	s.push(csta3(root, "<monitorCrossRefID>"+s.monitors[ext]+"</monitorCrossRefID><agentDevice><deviceIdentifier>"+ext+":CM1::0</deviceIdentifier></agentDevice><agentID>5001</agentID>"))
}

func TestAgents(t *testing.T) {
	s := newServer(t, func(c *Config) { c.Agents, c.FeaturePoll, c.FeatureRound = true, 100*time.Millisecond, 0 })
	s.agents = map[string]string{"4750": "agentReady"}
	s.cover("4750", "4751")
	s.connect()
	s.run(300 * time.Millisecond)
	want := []string{"StartApplicationSession", "SystemRegister", "GetThirdPartyDeviceId 4750"}
	if got := s.asked(); !slices.Equal(got[:3], want) || slices.Index(got, "GetAgentState 4750") < slices.Index(got, "SnapshotDevice 4751") {
		t.Errorf("asked %q: agents before calls", got)
	}
	s.want("4750: agent-ready idle", "4750: idle", "4751: idle")
	// Only polled.
	for _, step := range [][2]string{
		{"agentNotReady", "4750: agent-not-ready idle"}, {"agentWorkingAfterCall", "4750: agent-after-call idle"}, {"", "4750: idle"}, {"agentReady", "4750: agent-ready idle"},
	} {
		s.agents["4750"] = step[0]
		s.run(2 * time.Second)
		s.want(step[1])
	}
	s.agents["4750"] = "agentBusy" // the call says more
	s.run(2 * time.Second)
	s.want("4750: idle")
	// Told by events. A log-on does not tell what the agent does, so it is asked.
	s.link.cfg.FeaturePoll = 0
	s.agents["4751"] = "agentNotReady"
	s.agentEvent("AgentLoggedOnEvent", "4751")
	s.run(time.Second)
	s.want("4751: agent-not-ready idle")
	for _, step := range [][2]string{
		{"AgentReadyEvent", "4751: agent-ready idle"},
		{"AgentBusyEvent", "4751: idle"},
		{"AgentWorkingAfterCallEvent", "4751: agent-after-call idle"},
		{"AgentNotReadyEvent", "4751: agent-not-ready idle"},
		{"AgentLoggedOffEvent", "4751: idle"},
	} {
		s.agentEvent(step[0], "4751")
		s.want(step[1])
	}
}

// An event that comes after the question wins over its answer.
func TestAgentEventWinsOverTheAnswer(t *testing.T) {
	s := newServer(t, func(c *Config) { c.Agents = true })
	s.agents = map[string]string{"4750": "agentReady"}
	s.cover("4750")
	s.connect()
	s.run(100 * time.Millisecond)
	s.said()
	s.delay = time.Second
	s.status("messagesLost", "")
	s.run(500 * time.Millisecond)
	s.agentEvent("AgentNotReadyEvent", "4750")
	s.run(5 * time.Second)
	s.want("4750: agent-not-ready idle")
}

// A small site is asked in rounds of a minute, not ten times a second.
func TestFeatureRound(t *testing.T) {
	s := newServer(t, func(c *Config) { c.FeaturePoll, c.FeatureRound = 100*time.Millisecond, time.Minute })
	s.cover("4750", "4751")
	s.connect()
	s.run(10 * time.Minute)
	if n := s.count("GetDoNotDisturb"); n < 18 || n > 24 {
		t.Errorf("two stations are asked %d times in ten minutes", n)
	}
}

func TestSwitchLinkDown(t *testing.T) {
	s := live(t, "4750", "4751")
	s.rings("4750")
	s.answers("4750")
	s.said()
	s.now = at(60)
	s.status("disabled", "CM2 tlinkDown") // another switch
	s.run(0)
	s.want()
	s.status("disabled", "CM1 tlinkDown")
	s.run(0)
	s.want("4750: connected, doubted 09:01:00 for 30s", "4751: idle, doubted 09:01:00 for 30s")
	s.phase(presence.PhaseDegraded)
	if got := s.asked(); !slices.Equal(got, []string{"SystemStatusResponse", "SystemStatusResponse"}) {
		t.Errorf("asked %q", got)
	}
	s.status("disabled", "CM1 tlinkDown") // again
	s.run(10 * time.Second)
	s.want()
	s.station = func(ext string) string { return map[string]string{"4750": talking}[ext] }
	s.status("normal", "CM1 tlinkUp")
	s.run(time.Second)
	s.want("4750: connected", "4751: idle")
	s.phase(presence.PhaseLive)

	// The news that the link is up may be lost: then the question tells, if the
	// answer speaks of the link.
	s.status("disabled", "")
	s.run(time.Minute)
	s.phase(presence.PhaseDegraded)
	s.answer = func(root, _ string) string {
		if root == "RequestSystemStatus" {
			return csta3("RequestSystemStatusResponse", "<systemStatus>normal</systemStatus><extensions><privateData><private><RequestSystemStatusResponsePrivateData>"+
				"<switchTlinkStatus><switchName>CM1</switchName><tlinkStatus>tlinkUp</tlinkStatus></switchTlinkStatus></RequestSystemStatusResponsePrivateData></private></privateData></extensions>")
		}
		return ""
	}
	s.run(time.Minute)
	s.phase(presence.PhaseLive)
	s.answer = nil
	s.said()

	// Longer than the grace: the aggregator lets the reports expire; then the truth.
	s.status("disabled", "")
	s.run(time.Hour)
	if n := len(s.said()); n != 2 {
		t.Errorf("%d reports", n)
	}
	s.station = nil
	s.status("normal", "")
	s.run(time.Second)
	s.want("4750: idle", "4751: idle")
	if s.link.Err() != nil {
		t.Error(s.link.Err())
	}
}

// Without its link to the switch a server has no answers about stations, only refusals.
func TestNothingIsAskedWithoutTheLinkToTheSwitch(t *testing.T) {
	s := live(t, "4750")
	s.status("disabled", "CM1 tlinkDown")
	s.run(0)
	s.asked()
	s.cover("4750", "4751")
	s.run(20 * time.Second)
	if got := s.asked(); len(got) != 0 {
		t.Errorf("asked %q", got)
	}
	s.status("normal", "CM1 tlinkUp")
	s.run(time.Second)
	if got := s.asked(); !slices.Contains(got, "MonitorStart 4751") {
		t.Errorf("asked %q", got)
	}
}

func TestSystemStatusIsAcknowledgedUnderItsID(t *testing.T) {
	s := live(t)
	s.status("normal", "")
	s.run(0)
	if len(s.got) != 1 || s.got[0].root != "SystemStatusResponse" || s.got[0].id != 4711 {
		t.Errorf("%+v", s.got)
	}
}

func TestMonitorsEndWithTheServer(t *testing.T) {
	s := live(t, "4750")
	s.status("disabled", "")
	s.run(0)
	s.status("enabled", "")
	s.run(time.Second)
	if s.count("MonitorStart") != 1 {
		t.Errorf("asked %q", s.asked())
	}
	s.want("4750: idle", "4750: idle, doubted 09:00:05 for 30s")
}

func TestMessagesLost(t *testing.T) {
	s := live(t, "4750", "4751")
	s.rings("4750")
	s.said()
	s.got = nil
	s.delay = 100 * time.Millisecond
	s.status("messagesLost", "")
	s.run(0)
	s.want() // states are kept meanwhile
	s.station = func(ext string) string { return map[string]string{"4751": talking}[ext] }
	s.run(time.Second)
	s.want("4750: idle", "4751: connected")
	if s.count("SnapshotDevice") != 2 || s.count("MonitorStart") != 0 {
		t.Errorf("asked %q", s.asked())
	}
}

func TestServerPartiallyDisabled(t *testing.T) {
	s := live(t, "4750", "4751")
	s.status("partiallyDisabled", "")
	s.run(time.Second)
	s.phase(presence.PhaseDegraded)
	if s.count("SnapshotDevice") != 2 {
		t.Errorf("asked %q", s.asked())
	}
	s.status("normal", "")
	s.phase(presence.PhaseLive)
}

func TestServerStopsAMonitor(t *testing.T) {
	s := live(t, "4750", "4751")
	s.rings("4750")
	s.said()
	s.push(csta3("MonitorStop", "<monitorCrossRefID>"+s.monitors["4750"]+"</monitorCrossRefID>"))
	s.want("4750: nothing")
	stopped := s.now
	s.run(2 * time.Second)
	for _, sp := range s.reports[0].Spans { // of the call nothing is known since
		if sp.Fact == presence.PhoneRinging && !sp.Until.Equal(stopped) {
			t.Errorf("it rang until %s, and was heard of until %s", sp.Until, stopped)
		}
	}
	s.want("4750: idle")
	// Again and again: later each time.
	s.got = nil
	for range 600 {
		s.push(csta3("MonitorStop", "<monitorCrossRefID>"+s.monitors["4750"]+"</monitorCrossRefID>"))
		s.run(time.Second)
	}
	if n := s.count("MonitorStart"); n > 12 {
		t.Errorf("monitored %d times in 10 minutes", n)
	}
}

func TestServerEndsTheSession(t *testing.T) {
	s := live(t)
	s.push("<ApplicationSessionTerminated><sessionID>OTHER</sessionID></ApplicationSessionTerminated>")
	if s.link.Err() != nil {
		t.Fatal("ended by the end of another session")
	}
	s.push("<ApplicationSessionTerminated><sessionID>SECRET-1</sessionID><sessionTermReason><definedTermReason>sessionTimerExpired</definedTermReason></sessionTermReason></ApplicationSessionTerminated>")
	err := s.link.Err()
	if err == nil || presence.IsPermanent(err) || !strings.Contains(err.Error(), "sessionTimerExpired") || strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}
	s.disconnect()
	s.asked()
	s.connect()
	if got := text(element("sessionID"), s.got[0].xml); got != "" {
		t.Error("asks for a session that has ended")
	}
}

func TestRosterChanges(t *testing.T) {
	s := live(t, "4750", "4751")
	s.cover("4751", "4752", "not a number")
	s.run(time.Second)
	s.want("4750: nothing", "4752: idle", "not a number: nothing")
	want := []string{"MonitorStop", "ReleaseDeviceId 4750", "GetThirdPartyDeviceId 4752", "MonitorStart 4752", "SnapshotDevice 4752", "GetDoNotDisturb 4752", "GetForwarding 4752"}
	if got := s.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %q", got)
	}
	s.rings("4750") // events may still be under way
	s.want()
	if why := s.link.Status().Unmonitored["not a number"]; !strings.Contains(why, "not an extension") {
		t.Error(why)
	}
}

// Who is new is there within seconds, whatever else is under way.
func TestWhoIsNewDoesNotWaitForTheSweep(t *testing.T) {
	s := newServer(t, func(c *Config) { c.Rate = 2 })
	var all []string
	for i := range 100 {
		all = append(all, fmt.Sprint(4000+i))
	}
	s.cover(all...)
	s.connect()
	s.run(30 * time.Second)
	s.said()
	s.cover(append(all[1:], "4999")...)
	s.run(8 * time.Second)
	if got := s.said(); !slices.Contains(got, "4999: idle") || s.monitors["4000"] != "" {
		t.Errorf("said %q", got)
	}
}

func TestWhoLeavesDuringTheSweepLeavesNoMonitor(t *testing.T) {
	s := newServer(t, nil)
	s.delay = time.Second
	s.cover("4750")
	s.connect()
	s.run(2500 * time.Millisecond) // MonitorStart is under way
	s.cover()
	s.run(5 * time.Second)
	if s.count("MonitorStart") != 1 || s.count("MonitorStop") != 1 {
		t.Errorf("asked %q", s.asked())
	}
	s.want("4750: nothing")
}

func TestProgress(t *testing.T) {
	for want, got := range map[string]string{
		"0 of 999 monitored": progress(0, 999), "3,210 of 9,000 monitored": progress(3210, 9000), "100,001 of 1,000,000 monitored": progress(100_001, 1_000_000),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	s := newServer(t, nil)
	s.delay = time.Second
	s.cover("4750", "4751")
	s.connect()
	s.run(2500 * time.Millisecond)
	if st := s.link.Status(); st.Phase != presence.PhaseSyncing || st.Detail != "0 of 2 monitored" {
		t.Errorf("%+v", st)
	}
	s.run(time.Minute)
	if st := s.link.Status(); st.Phase != presence.PhaseLive || st.Detail != "2 of 2 monitored" {
		t.Errorf("%+v", st)
	}
}

// Who is important is covered first, and a capacity is spent on them.
func TestCapacity(t *testing.T) {
	s := newServer(t, func(c *Config) { c.Capacity = 2 })
	s.cover("4759", "4751", "not a number", "4750")
	s.connect()
	s.run(5 * time.Second)
	s.want("4750: nothing", "4751: idle", "4759: idle", "not a number: nothing")
	if got := s.asked(); got[2] != "GetThirdPartyDeviceId 4759" || slices.Contains(got, "GetThirdPartyDeviceId 4750") {
		t.Errorf("asked %q", got)
	}
	st := s.link.Status()
	if why := st.Unmonitored["4750"]; st.Phase != presence.PhaseLive || !strings.Contains(why, "beyond the capacity of 2") {
		t.Errorf("%+v", st)
	}
	// A place becomes free.
	s.cover("4759", "4750")
	s.run(10 * time.Minute)
	s.want("4750: idle", "4751: nothing", "not a number: nothing")
	if got := s.asked(); slices.Contains(got, "GetThirdPartyDeviceId 4759") {
		t.Errorf("asked %q", got)
	}
	// Somebody more important takes it, while a request about who had it is under way.
	s.delay = time.Second
	s.status("messagesLost", "")
	s.cover("4752", "4759", "4750")
	s.run(10 * time.Minute)
	s.want("4750: nothing", "4752: idle")
	if len(s.link.byCrossRef) != 2 {
		t.Errorf("%d monitors", len(s.link.byCrossRef))
	}

	s = newServer(t, func(c *Config) { c.Capacity = 1 })
	s.delay = time.Second
	s.cover("4750")
	s.connect()
	s.run(2500 * time.Millisecond) // MonitorStart is under way
	s.cover("4751", "4750")
	s.run(10 * time.Second)
	s.want("4750: nothing", "4751: idle")
	if len(s.monitors) != 1 || s.monitors["4751"] == "" {
		t.Errorf("monitors %v", s.monitors)
	}
}

// Of very many who are not covered some are named, and all are counted.
func TestManyAreNotCovered(t *testing.T) {
	s := newServer(t, func(c *Config) { c.Capacity = 1 })
	var all []string
	for i := range presence.MaxUnmonitored + 2 {
		all = append(all, fmt.Sprint(40000+i))
	}
	s.cover(all...)
	s.connect()
	s.run(time.Second)
	st := s.link.Status()
	if st.Uncovered != presence.MaxUnmonitored+1 || len(st.Unmonitored) != presence.MaxUnmonitored {
		t.Errorf("%d not covered, %d named", st.Uncovered, len(st.Unmonitored))
	}
}

// Without a rate only the requests under way are bounded.
func TestUnthrottled(t *testing.T) {
	s := newServer(t, func(c *Config) { c.Rate = 0 })
	s.delay = 50 * time.Millisecond
	var all []string
	for i := range 1000 {
		all = append(all, fmt.Sprint(4000+i))
	}
	s.cover(all...)
	s.connect()
	const least = 5 * 1000 * 50 / 19 // one place is left for the sign of life
	s.run(least * time.Millisecond * 12 / 10)
	s.phase(presence.PhaseLive)
	if s.most > 20 {
		t.Errorf("%d outstanding", s.most)
	}
}

func TestEventBeforeTheAnswerThatNamesItsMonitor(t *testing.T) {
	s := newServer(t, nil)
	s.delay = time.Second
	s.cover("4750")
	s.connect()
	s.run(2500 * time.Millisecond)
	s.rings("4750")
	s.station = func(string) string {
		return strings.NewReplacer("connected</localConnectionState><", "alerting</localConnectionState><").Replace(talking)
	}
	s.run(10 * time.Second)
	s.want("4750: ringing")
	if n := s.link.Status().Problems["events without a monitor"]; n != 0 {
		t.Errorf("%d events lost", n)
	}
	s.push(csta3("DeliveredEvent", "<monitorCrossRefID>999</monitorCrossRefID>"))
	if n := s.link.Status().Problems["events without a monitor"]; n != 1 {
		t.Errorf("%d events counted", n)
	}
}

// An event whose monitor no answer ever names is counted, and forgotten.
func TestEventWithoutAMonitor(t *testing.T) {
	s := newServer(t, nil)
	s.delay = time.Second
	s.cover("4750")
	s.connect()
	s.run(2500 * time.Millisecond)
	s.push(csta3("DeliveredEvent", "<monitorCrossRefID>999</monitorCrossRefID>"))
	if n := s.link.Status().Problems["events without a monitor"]; n != 0 {
		t.Errorf("%d events counted while an answer is on its way", n)
	}
	s.run(orphanLife)
	if n := s.link.Status().Problems["events without a monitor"]; n != 1 || len(s.link.orphans) != 0 {
		t.Errorf("%d events counted, %d kept", n, len(s.link.orphans))
	}
}

// A reference that the server gives to a second monitor is lost to the first one, which
// is started again.
func TestServerGivesAReferenceTwice(t *testing.T) {
	s := newServer(t, nil)
	given := 0
	s.answer = func(root, _ string) string {
		if root == "MonitorStart" {
			given++
			if given <= 2 {
				return csta3("MonitorStartResponse", "<monitorCrossRefID>7</monitorCrossRefID>")
			}
		}
		return ""
	}
	s.cover("4750", "4751")
	s.connect()
	s.run(10 * time.Second)
	if n := s.count("MonitorStart"); n != 3 || len(s.link.byCrossRef) != 2 {
		t.Fatalf("asked %q", s.asked())
	}
	s.said()
	s.rings("4750")
	s.want("4750: ringing")
}

func TestSnapshotInParts(t *testing.T) {
	s := newServer(t, nil)
	s.answer = func(root, _ string) string {
		if root == "SnapshotDevice" {
			return csta3("SnapshotDeviceResponse", "<crossRefIDorSnapshotData><serviceCrossRefID>77</serviceCrossRefID></crossRefIDorSnapshotData>")
		}
		return ""
	}
	s.cover("4750")
	s.connect()
	s.run(time.Second)
	s.want()
	s.push(csta3("SnapshotDeviceData", "<serviceCrossRefID>77</serviceCrossRefID><lastSegment>false</lastSegment><snapshotData>"+talking+"</snapshotData>"))
	s.want()
	s.push(csta3("SnapshotDeviceData", "<serviceCrossRefID>77</serviceCrossRefID><lastSegment>true</lastSegment><snapshotData/>"))
	s.want("4750: connected")
	// One whose parts stay away is asked for again, and what was said is in doubt.
	s.status("messagesLost", "")
	s.run(time.Second)
	s.asked()
	s.run(answerWithin)
	s.want("4750: connected, doubted 09:00:11 for 30s")
	if n := s.count("SnapshotDevice"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestStuckCall(t *testing.T) {
	s := live(t, "4750")
	s.rings("4750")
	s.answers("4750")
	s.said()
	s.run(stuckAfter - time.Minute)
	s.want()
	s.run(2 * time.Minute)
	s.want("4750: idle")
	if n := s.link.Status().Problems["stuck_cleared"]; n != 1 {
		t.Errorf("%d stuck calls", n)
	}
}

// A call is asked about four hours after its last event, not after its first.
func TestCallThatGoesOnIsNotAskedAbout(t *testing.T) {
	s := live(t, "4750")
	s.rings("4750")
	s.answers("4750")
	s.run(2 * time.Hour)
	s.station = func(string) string { return talking }
	s.callEvent("HeldEvent", "4750", "heldConnection", "holdingDevice", "hold")
	s.callEvent("RetrievedEvent", "4750", "retrievedConnection", "retrievingDevice", "connected")
	s.run(stuckAfter - time.Minute)
	if n := s.count("SnapshotDevice"); n != 0 {
		t.Errorf("asked %d times", n)
	}
	s.run(2 * time.Minute)
	if n := s.count("SnapshotDevice"); n != 1 {
		t.Errorf("asked %d times after four hours", n)
	}
	s.said()
	s.run(stuckAfter) // it goes on
	if n := s.count("SnapshotDevice"); n != 2 || len(s.said()) != 0 {
		t.Errorf("asked %d times after eight hours", n)
	}
}

func TestSnapshotFailsWhileItIsNeeded(t *testing.T) {
	s := live(t, "4750")
	s.rings("4750")
	s.said()
	s.now = at(60)
	s.answer = func(root, _ string) string {
		if root == "SnapshotDevice" {
			return failure("operation", "generic")
		}
		return ""
	}
	s.status("messagesLost", "")
	s.run(time.Second)
	s.want("4750: ringing, doubted 09:01:00 for 30s")
	s.run(5 * time.Minute)
	s.want()
	s.answer = nil
	s.run(10 * time.Minute)
	s.want("4750: idle")
}

// However long a snapshot fails, it is tried again every five minutes.
func TestRetriesGoOn(t *testing.T) {
	s := live(t, "4750")
	s.answer = func(root, _ string) string {
		return map[string]string{"SnapshotDevice": failure("operation", "generic")}[root]
	}
	s.status("messagesLost", "")
	s.run(2 * time.Hour)
	s.asked()
	s.run(time.Hour)
	if n := s.count("SnapshotDevice"); n != int(time.Hour/retryLongest) {
		t.Errorf("tried %d times in an hour", n)
	}
}

func TestMalformedMessages(t *testing.T) {
	s := live(t, "4750", "4751")
	s.rings("4750")
	s.said()
	s.got = nil
	s.push("<DeliveredEvent><monitorCrossRefID>" + s.monitors["4750"] + "</monitorCrossRefID><connection>")
	s.run(time.Second)
	if got := s.asked(); !slices.Equal(got, []string{"SnapshotDevice 4750"}) {
		t.Errorf("what the event told is not looked up: asked %q", got)
	}
	s.want("4750: idle")
	for _, doc := range []string{"", "\xff", "<!DOCTYPE a><a/>", strings.Repeat("<a>", 1000)} {
		s.push(doc)
	}
	s.push(csta3("HookswitchEvent", "<monitorCrossRefID>1</monitorCrossRefID>"))
	s.link.Receive(csta.Frame{InvokeID: 1234, XML: []byte(csta3("MonitorStartResponse", "<monitorCrossRefID>555</monitorCrossRefID>"))}, s.now)
	s.run(time.Second)
	p := s.link.Status().Problems
	if p["messages malformed"] != 5 || p["answers to nothing"] != 1 || s.link.Err() != nil || len(s.link.Notes()) == 0 {
		t.Errorf("%v, %v", p, s.link.Err())
	}
	if got := s.asked(); !slices.Equal(got, []string{"MonitorStop"}) {
		t.Errorf("a monitor that nobody waits for is kept: asked %q", got)
	}
	s.rings("4751")
	s.want("4751: ringing")
}

// The first two bytes of a frame are other than zero now and then, and mean nothing.
func TestFrameOfAnotherVersion(t *testing.T) {
	s := live(t, "4750")
	s.link.Receive(csta.Frame{Version: 0x0100, InvokeID: csta.EventID, XML: []byte(csta3("DoNotDisturbEvent",
		"<monitorCrossRefID>"+s.monitors["4750"]+"</monitorCrossRefID><doNotDisturbOn>true</doNotDisturbOn>"))}, s.now)
	s.run(0)
	s.want("4750: dnd idle")
	if err := s.link.Err(); err != nil || s.link.Status().Problems["frames of another version"] != 1 {
		t.Errorf("%v, %v", err, s.link.Status().Problems)
	}
}

func TestMalformedAnswerFailsItsRequestOnly(t *testing.T) {
	s := newServer(t, nil)
	broken := true
	s.answer = func(root, ext string) string {
		if broken && root == "SnapshotDevice" && ext == "4750" {
			broken = false
			return "<SnapshotDeviceResponse>"
		}
		return ""
	}
	s.cover("4750", "4751")
	s.connect()
	s.run(10 * time.Second)
	s.want("4750: idle", "4751: idle")
}

func TestServiceEvents(t *testing.T) {
	s := live(t, "4750")
	about := "<monitorCrossRefID>" + s.monitors["4750"] + "</monitorCrossRefID>"
	s.push(csta3("OutOfServiceEvent", about))
	s.want("4750: out-of-service")
	s.station = func(string) string { return talking } // begun while nothing was told
	s.push(csta3("BackInServiceEvent", about))
	s.run(time.Second)
	if got := s.asked(); !slices.Equal(got, []string{"SnapshotDevice 4750"}) {
		t.Errorf("asked %q", got)
	}
	if said := s.said(); said[0] != "4750: connected" {
		t.Errorf("said %q", said)
	}
	s.hangsUp("4750")
	s.push(csta3("EndpointUnregisteredEvent", about+"<dependencyMode>DEPENDENT</dependencyMode>"))
	s.want("4750: idle")
	s.push(csta3("EndpointUnregisteredEvent", about+"<dependencyMode>MAIN</dependencyMode>"))
	s.want("4750: out-of-service")
	s.push(csta3("EndpointRegisteredEvent", about+"<dependencyMode>MAIN</dependencyMode>"))
	s.want("4750: idle")
	s.push(csta3("ForwardingEvent", about+"<forwardingType>forwardImmediate</forwardingType><forwardStatus>true</forwardStatus>"))
	s.want("4750: forwarded idle")
}

func TestWhoLeavesDuringTheRecoveryLeavesNoMonitor(t *testing.T) {
	s := live(t, "4750", "4751")
	s.disconnect()
	s.link.Connected(s.now)
	s.cover("4750")
	s.run(time.Second)
	if s.count("MonitorStop") != 2 { // and that of the session
		t.Errorf("asked %q", s.asked())
	}
}

// What the server did to the monitors while nobody listened comes to light.
func TestMonitorsThatChangedWhileThereWasNoConnection(t *testing.T) {
	s := live(t, "4750", "4751", "4752")
	s.disconnect()
	delete(s.monitors, "4751")  // ended
	s.monitors["4799"] = "4711" // started for a connection that did not live to hear of it
	s.connect()
	s.run(time.Second)
	got := s.asked()
	if n := s.link.Status().Problems["monitors lost"]; n != 1 || !slices.Contains(got, "MonitorStart 4751") || slices.Contains(got, "MonitorStart 4750") {
		t.Errorf("%d lost; asked %q", n, got)
	}
	if _, kept := s.monitors["4799"]; kept || len(s.monitors) != 3 {
		t.Errorf("monitors %v", s.monitors)
	}
	s.said()
	s.rings("4751")
	s.want("4751: ringing")

	// A list that names nobody is no reason to have two monitors of anybody.
	s.answer = func(root, _ string) string {
		if root == "GetMonitorList" {
			s.waiting++
			s.later = append(s.later, laterFrame{s.now, csta.Frame{InvokeID: csta.EventID, XML: []byte(
				"<GetMonitorListEvent><isFinalResponse>true</isFinalResponse><monitorCrossRefID>session</monitorCrossRefID></GetMonitorListEvent>")}})
			return "<GetMonitorListResponse/>"
		}
		return ""
	}
	s.disconnect()
	s.connect()
	s.asked()
	s.run(time.Minute)
	if n, m := s.count("MonitorStop"), s.count("MonitorStart"); n != 4 || m != 3 || len(s.monitors) != 3 {
		t.Errorf("%d ended, %d started, %v", n, m, s.monitors)
	}
	s.asked()

	// A server without the service is believed.
	s.answer = func(root, _ string) string {
		return map[string]string{"GetMonitorList": failure("operation", "serviceNotSupported")}[root]
	}
	s.disconnect()
	s.connect()
	s.run(time.Minute)
	if s.link.audit != nil || s.count("MonitorStop") != 1 || s.link.Err() != nil {
		t.Errorf("asked %q", s.asked())
	}
}

// A server that does not know the question after its state is asked once.
func TestServerWithoutSystemStatus(t *testing.T) {
	s := newServer(t, nil)
	s.answer = func(root, _ string) string {
		return map[string]string{"RequestSystemStatus": failure("operation", "serviceNotSupported")}[root]
	}
	s.connect()
	s.run(10 * time.Minute)
	if n := s.count("RequestSystemStatus"); n != 1 || s.link.Err() != nil {
		t.Errorf("asked %d times, %v", n, s.link.Err())
	}
}

// A session that is gone is noticed by the first answer that says so, and no
// person becomes unknown because of the others.
func TestSessionIsGone(t *testing.T) {
	s := live(t, "4750", "4751")
	s.answer = func(root, _ string) string {
		if root == "ResetApplicationSessionTimer" {
			return "<ResetApplicationSessionTimerNegResponse><errorCode><definedError>invalidSessionID</definedError></errorCode></ResetApplicationSessionTimerNegResponse>"
		}
		return failure("operation", "securityViolation")
	}
	s.run(quietAfter + time.Second) // also where nothing is asked
	if s.link.Err() == nil || presence.IsPermanent(s.link.Err()) || s.link.sessionID != "" {
		t.Fatalf("%v", s.link.Err())
	}
	s.want()

	// A server that refuses for another reason is not asked again and again.
	s = live(t, "4750")
	s.answer = func(root, _ string) string {
		if root == "SnapshotDevice" {
			return failure("operation", "securityViolation")
		}
		return ""
	}
	s.status("messagesLost", "")
	s.run(30 * time.Second)
	if n := s.count("ResetApplicationSessionTimer"); n < 1 || n > 3 || s.link.Err() != nil {
		t.Errorf("%d signs of life, %v", n, s.link.Err())
	}
	s.want("4750: idle, doubted 09:00:05 for 30s")
}

// A short gap must not make everybody unknown because the sweep of a large
// switch takes longer than the grace; a long one does.
func TestKnowledgeOutlivesAShortGap(t *testing.T) {
	large := func() *server {
		s := newServer(t, func(c *Config) { c.Rate = 1 })
		var all []string
		for i := range 60 {
			all = append(all, fmt.Sprint(4700+i))
		}
		s.cover(all...)
		s.connect()
		s.run(10 * time.Minute)
		s.phase(presence.PhaseLive)
		s.rings("4759")
		s.answers("4759")
		s.said()
		s.asked()
		s.station = func(ext string) string { return map[string]string{"4759": talking}[ext] }
		return s
	}
	for name, gap := range map[string]func(*server, time.Duration){
		"connection": func(s *server, d time.Duration) { s.disconnect(); s.now = s.now.Add(d); s.connect() },
		"link":       func(s *server, d time.Duration) { s.status("disabled", ""); s.run(d); s.said(); s.status("normal", "") },
	} {
		t.Run(name, func(t *testing.T) {
			s := large()
			gap(s, time.Second)
			s.run(20 * time.Second)
			if got := s.said(); len(got) == 0 || strings.Contains(strings.Join(got, ""), "doubted") {
				t.Errorf("said %q: nobody needs to be told more often than that", got)
			}
			s.run(8 * time.Second)
			if got := s.said(); !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, "4759: connected, doubted 09:10:00 for") }) {
				t.Errorf("said %q", got)
			}
			s.run(2 * time.Minute)
			if got := s.said(); !slices.Contains(got, "4759: connected") {
				t.Errorf("said %q", got)
			}
			// A second gap: who was not looked at since the first has waited long enough.
			s = large()
			gap(s, time.Second)
			s.run(30 * time.Second)
			gap(s, time.Second)
			s.said()
			s.run(28 * time.Second)
			late := map[bool]int{}
			for _, line := range s.said() {
				if _, since, doubted := strings.Cut(line, ", doubted "); doubted {
					late[strings.HasPrefix(since, "09:10:0")]++
				}
			}
			if late[false] == 0 || late[true] > 0 {
				t.Errorf("kept since the first gap: %d, since the second: %d", late[true], late[false])
			}

			s = large()
			gap(s, 31*time.Second)
			s.run(25 * time.Second)
			if got := strings.Join(s.said(), ""); strings.Contains(got, "doubted") {
				t.Errorf("said %q after a long gap", got)
			}
		})
	}
}

func TestOverload(t *testing.T) {
	s := live(t, "4750")
	s.status("overloadReached", "")
	s.phase(presence.PhaseDegraded)
	if s.link.slow != 2 {
		t.Errorf("not slower: %d", s.link.slow)
	}
	s.status("overloadRelieved", "")
	s.run(easeAfter)
	if s.link.slow != 1 {
		t.Errorf("not as fast as before: %d", s.link.slow)
	}
	s.phase(presence.PhaseLive)
	s.status("overloadImminent", "")
	s.status("normal", "")
	s.run(time.Minute)
	if s.link.slow != 1 {
		t.Errorf("not as fast as before: %d", s.link.slow)
	}
	s.phase(presence.PhaseLive)
}

// A server that is busy says so in its refusals: it is asked less, half as often with
// each, and nobody is refused for it.
func TestBusyServerIsAskedLess(t *testing.T) {
	s := newServer(t, nil)
	s.answer = func(root, _ string) string {
		if root == "GetThirdPartyDeviceId" {
			return failure("systemResourceAvailibility", "resourceBusy")
		}
		return ""
	}
	var all []string
	for i := range 200 {
		all = append(all, fmt.Sprint(4000+i))
	}
	s.cover(all...)
	s.connect()
	s.run(10 * time.Second)
	if n := s.count("GetThirdPartyDeviceId"); n > 100 { // of 500 that the rate allows
		t.Errorf("asked %d times in 10 s", n)
	}
	s.answer = nil
	s.run(10 * time.Minute)
	s.phase(presence.PhaseLive)
	if n := len(s.said()); n != 200 || len(s.link.Status().Unmonitored) != 0 {
		t.Errorf("%d of 200 are known", n)
	}
}

func TestOverloadStopsThePolls(t *testing.T) {
	s := newServer(t, func(c *Config) { c.FeaturePoll, c.FeatureRound = 100*time.Millisecond, 0 })
	s.cover("4750", "4751")
	s.connect()
	s.run(5 * time.Second)
	s.status("overloadReached", "")
	s.run(time.Second) // what waits already
	s.asked()
	s.run(quietAfter - 2*time.Second) // then it is asked how it fares
	if n := s.count("GetDoNotDisturb"); n != 0 {
		t.Errorf("asked %d times", n)
	}
	s.status("overloadRelieved", "")
	s.run(time.Minute)
	if n := s.count("GetDoNotDisturb"); n < 100 {
		t.Errorf("asked %d times when it was over", n)
	}
}

func TestServerWithoutAnswersToOneService(t *testing.T) {
	s := newServer(t, nil)
	s.answer = func(root, _ string) string {
		if root == "GetForwarding" {
			return "-"
		}
		return ""
	}
	s.cover("4750", "4751")
	s.connect()
	s.run(9 * time.Minute)
	if s.link.Err() != nil {
		t.Fatal(s.link.Err())
	}
	s.want("4750: idle", "4751: idle")
}

func TestFirstEventOfAStationMovesItsSnapshotForward(t *testing.T) {
	s := live(t, "4750", "4751", "4752", "4753")
	s.disconnect()
	s.connect()
	s.asked()
	s.rings("4753")
	s.run(100 * time.Millisecond)
	if got := s.asked(); !slices.Contains(got[:2], "SnapshotDevice 4753") {
		t.Errorf("asked %q", got)
	}
}

// The order of the events of one device is kept, and nothing piles up.
func TestEventStorm(t *testing.T) {
	s := live(t, "4750")
	for range 3000 {
		s.rings("4750")
		s.answers("4750")
		s.hangsUp("4750")
	}
	said := s.said()
	if len(said) != 9000 || len(s.link.byExtension["4750"].ended) > maxEnded || len(s.link.frames) > 0 {
		t.Errorf("%d reports", len(said))
	}
}

func BenchmarkReceive(b *testing.B) {
	l := NewLink(testConfig(), "aes-cm1")
	l.Cover(tel("4750"), at(0))
	st := l.byExtension["4750"]
	st.device, st.crossRef = own, "2"
	l.byCrossRef["2"] = st
	l.phase = inSession
	st.fresh, st.known = true, true
	frames := []csta.Frame{
		{InvokeID: csta.EventID, XML: []byte(delivered("2"))},
		{InvokeID: csta.EventID, XML: []byte(csta3("CallClearedEvent", "<monitorCrossRefID>2</monitorCrossRefID><clearedCall><callID>1</callID></clearedCall>"))},
	}
	for i := 0; b.Loop(); i++ {
		l.Receive(frames[i%2], at(i))
		l.Reports()
		l.Next()
	}
}
