package aes

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"presenced/aes/csta"
	"presenced/aggregator/presence"
)

const (
	answerWithin  = 10 * time.Second // a request that is not answered by then never will be
	orphanLife    = 5 * time.Second  // an event may overtake the answer that names its monitor
	retryRefused  = 5 * time.Minute
	retryLongest  = 5 * time.Minute
	easeAfter     = 10 * time.Second
	slowest       = 16
	maxOrphans    = 1000
	maxNotes      = 100              // of one connection
	patience      = 3                // failures of a station that a first account waits for
	quietAfter    = 30 * time.Second // a server that says nothing for so long is asked for a sign of life
	suspectEvery  = 10 * time.Second
	maxExtension  = 30
	shownProblems = presence.MaxUnmonitored
)

// ErrStopped is the Err of a Link whose session ended because Stop asked for it.
var ErrStopped = errors.New("session stopped")

// A Link is the session with one AES for one switch. It lives across
// connections: what it knows of calls and monitors is checked and taken up
// again after a reconnect. It is sans-I/O and must not be used concurrently.
//
// After each input the owner drains Frames and Reports, looks at Err, and calls
// Tick no later than Next.
type Link struct {
	cfg      Config
	source   string
	password string

	now      time.Time
	phase    phase
	err      error
	frames   []csta.Frame
	notes    []string
	noted    int
	problems map[string]int
	last     error
	lastAt   time.Time

	// The session. A session ID outlives the connection, so that it can be recovered.
	sessionID   string
	version     string // of the protocol, as the server chose it
	recovering  bool   // the login asks for the old session
	recovered   bool   // this is the old session
	granted     time.Duration
	keepAliveAt time.Time
	suspected   time.Time // when an answer last made the session doubtful
	audit       *audit    // nil: none is under way
	registerID  string
	missed      int       // requests unanswered in a row
	heard       time.Time // last frame
	linkDown    time.Time // since when the server has no link to the switch
	waiting     bool      // the server initializes
	partial     bool      // the server says that it is partially disabled

	requests
	stations
}

type phase uint8

const (
	down phase = iota
	loggingIn
	inSession
	stopping
)

// NewLink makes a link that is not connected. Reports carry source.
func NewLink(cfg Config, source string) *Link {
	return &Link{
		cfg: cfg, source: source, problems: map[string]int{},
		requests: requests{pending: map[uint16]*request{}, segments: map[string]*segments{}, slow: 1},
		stations: stations{byExtension: map[string]*station{}, byCrossRef: map[string]*station{}},
	}
}

// SetPassword sets what the next login uses.
func (l *Link) SetPassword(password string) { l.password = password }

// Connected says that a connection is there: the link logs in, and recovers the
// session of the last connection if it can.
func (l *Link) Connected(now time.Time) {
	l.now, l.err, l.missed, l.heard = now, nil, 0, now
	l.frames, l.notes, l.noted = nil, nil, 0
	l.linkDown, l.waiting, l.partial = time.Time{}, false, false
	l.suspected, l.audit = time.Time{}, nil
	l.phase = loggingIn
	l.clearRequests(now)
	l.unknown = 0
	if !l.cfg.Agents {
		l.unknown.add(opAgent)
	}
	l.login(now)
}

// Disconnected says that the connection is gone. What is outstanding fails; the
// calls are kept for comparison.
func (l *Link) Disconnected(now time.Time) {
	l.now = now
	l.suspend(cmp.Or(l.linkDown, now))
	l.phase = down
	l.frames = nil
	l.clearRequests(now)
}

// Receive takes one frame from the server.
func (l *Link) Receive(f csta.Frame, now time.Time) {
	l.now = now
	if l.err != nil || l.phase == down {
		return
	}
	l.heard, l.missed = now, 0
	if f.Version != 0 {
		l.problems["frames of another version"]++
	}
	m, err := csta.Decode(f.XML)
	if err != nil {
		l.malformed(f.InvokeID, err, now)
	} else {
		l.message(f.InvokeID, m, now)
	}
	l.due(now)
}

// malformed copes with a frame that is no message: its request fails at once,
// and a device whose event it was is looked at anew.
func (l *Link) malformed(id uint16, err error, now time.Time) {
	l.problem("messages malformed", err)
	if r := l.pending[id]; r != nil {
		l.settled(id)
		l.unanswered(r, err, now)
	}
	if e := (*csta.DecodeError)(nil); errors.As(err, &e) {
		if st := l.byCrossRef[e.CrossRef]; st != nil {
			l.want(st, opSnapshot, first)
		}
	}
}

// Broken says that what came is no sequence of frames.
func (l *Link) Broken(err error, now time.Time) {
	l.now = now
	l.problem("connections with broken framing", err)
	l.close(err)
}

func (l *Link) message(id uint16, m csta.Message, now time.Time) {
	switch m := m.(type) {
	case *csta.CallEvent:
		l.event(m.CrossRef, m, now)
	case *csta.DoNotDisturbEvent:
		l.pushed = true
		l.event(m.CrossRef, m, now)
	case *csta.ForwardingEvent:
		l.pushed = true
		l.event(m.CrossRef, m, now)
	case *csta.AgentEvent:
		l.event(m.CrossRef, m, now)
	case *csta.ServiceEvent:
		l.event(m.CrossRef, m, now)
	case *csta.RegistrationEvent:
		l.event(m.CrossRef, m, now)
	case *csta.SystemStatus:
		l.send(id, csta.SystemStatusDone{})
		l.systemStatus(m.Status, m.Links, now)
	case *csta.SessionTerminated:
		if m.SessionID == "" || m.SessionID == l.sessionID {
			l.sessionID = ""
			l.close(fmt.Errorf("the server ended the session: %s", words(m.Defined, m.Text)))
		}
	case *csta.MonitorStopped:
		l.monitorStopped(m.CrossRef, now)
	case *csta.DeviceSegment:
		l.segment(m, now)
	case *csta.MonitorList:
		l.listed(m)
	default:
		l.answer(id, m, now)
	}
}

// Tick does what is due.
func (l *Link) Tick(now time.Time) {
	l.now = now
	l.due(now)
}

// due does what is due. Each input ends with it, because it may make something due
// at once, such as what a gap before this connection has put off.
func (l *Link) due(now time.Time) {
	if l.err != nil || l.phase == down {
		return
	}
	l.timeouts(now)
	if l.phase == inSession && l.err == nil {
		if !l.keepAliveAt.IsZero() && !now.Before(l.keepAliveAt) {
			l.keepAlive(now)
		}
		if at := l.quiet(); !at.IsZero() && !now.Before(at) {
			l.askSystem(now)
		}
		if !l.extendAt.IsZero() && !now.Before(l.extendAt) {
			l.extend(now)
		}
		if !l.licenceAt.IsZero() && !now.Before(l.licenceAt) {
			l.licenceAt = time.Time{}
			l.licences(1)
		}
		l.appointments(now)
		l.poll(now)
		if !l.easeAt.IsZero() && !now.Before(l.easeAt) {
			l.ease(now)
		}
	}
	l.expireOrphans(now)
	l.pump(now)
}

// Next tells when Tick is due next, which is after the last input; zero: not before
// the next one.
func (l *Link) Next() time.Time {
	if l.err != nil || l.phase == down {
		return time.Time{}
	}
	var next time.Time
	soon := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	soon(l.deadline())
	if len(l.orphans) > 0 {
		soon(l.orphans[0].at.Add(orphanLife))
	}
	if l.phase == inSession {
		soon(l.keepAliveAt)
		soon(l.quiet())
		soon(l.extendAt)
		soon(l.licenceAt)
		soon(l.easeAt)
		if len(l.agenda) > 0 {
			soon(l.agenda[0].at)
		}
		if l.polls() {
			soon(l.pollAt)
		}
		if l.canSend() && l.work() {
			soon(l.pace)
		}
	}
	return next
}

// Frames drains what is to be written. It holds secrets: never log it.
func (l *Link) Frames() []csta.Frame {
	out := l.frames
	l.frames = nil
	return out
}

// Reports drains what is to be emitted: the newest report of each extension
// that has something new to say, and an empty one of each that is no longer covered.
func (l *Link) Reports() []presence.Report {
	var out []presence.Report
	for _, st := range l.changed {
		st.changed = false
		if st.gone {
			continue
		}
		if r, ok := l.report(st); ok {
			out = append(out, r)
		}
	}
	l.changed = l.changed[:0]
	for _, s := range l.left {
		if l.byExtension[s.Value] == nil {
			out = append(out, presence.Report{Source: l.source, Subject: s, At: l.now, Grace: l.cfg.Grace})
		}
	}
	l.left = nil
	return out
}

// Notes drains what a log should tell of this connection, without secrets and
// without any content of calls.
func (l *Link) Notes() []string {
	out := l.notes
	l.notes = nil
	return out
}

// Err is not nil once the connection must be closed. It is permanent where
// trying again soon is useless. Connected clears it.
func (l *Link) Err() error { return l.err }

// Working tells whether the calls of the switch can be watched, and whether
// everything that is covered was heard of since that is so.
func (l *Link) Working() (working, complete bool) {
	working = l.phase == inSession && l.err == nil && !l.held()
	return working, working && l.covered && l.synced
}

// Status tells how the link fares.
func (l *Link) Status() presence.Status {
	s := presence.Status{Phase: presence.PhaseConnecting, Detail: "not connected", LastErrorAt: l.lastAt}
	if l.last != nil {
		s.LastError = l.last.Error()
	}
	if len(l.problems) > 0 {
		s.Problems = maps.Clone(l.problems)
	}
	monitored, refused := 0, []string(nil)
	for _, st := range l.byExtension {
		if st.refused != "" {
			refused = append(refused, st.extension)
		}
		if st.crossRef != "" {
			monitored++
		}
	}
	slices.Sort(refused)
	if len(refused) > shownProblems {
		s.Uncovered = len(refused)
	}
	for _, x := range refused[:min(len(refused), shownProblems)] {
		if s.Unmonitored == nil {
			s.Unmonitored = map[string]string{}
		}
		s.Unmonitored[x] = l.byExtension[x].refused
	}
	total := len(l.byExtension)
	switch {
	case l.phase == down:
	case l.phase == loggingIn:
		s.Detail = "logging in"
	case !l.linkDown.IsZero():
		s.Phase, s.Detail = presence.PhaseDegraded, "the server has no link to the switch "+l.cfg.Switch
	case l.waiting:
		s.Phase, s.Detail = presence.PhaseDegraded, "the server is starting"
	case l.missed > 0:
		s.Phase, s.Detail = presence.PhaseDegraded, "a request was not answered"
	case l.overloaded:
		s.Phase, s.Detail = presence.PhaseDegraded, "the server is overloaded, requests are slowed down"
	case l.partial:
		s.Phase, s.Detail = presence.PhaseDegraded, "the server is partially disabled"
	case !l.synced:
		s.Phase, s.Done, s.Total = presence.PhaseSyncing, total-len(l.untold), total
		s.Detail = progress(monitored, total)
	default:
		s.Phase = presence.PhaseLive
		s.Detail = progress(monitored, total)
	}
	return s
}

// progress says how many extensions are monitored: 3,210 of 9,000 monitored.
func progress(monitored, total int) string {
	return thousands(monitored) + " of " + thousands(total) + " monitored"
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// problem counts something that went wrong without ending the link, and notes it.
func (l *Link) problem(kind string, err error) {
	l.problems[kind]++
	l.last, l.lastAt = err, l.now
	if l.noted < maxNotes {
		l.noted++
		l.notes = append(l.notes, kind+": "+err.Error())
	}
}

// close asks for the end of the connection. The first reason counts.
func (l *Link) close(err error) {
	if l.err == nil {
		l.err = err
		if !errors.Is(err, ErrStopped) {
			l.last, l.lastAt = err, l.now
		}
	}
}

// words joins the two forms in which the session services give a reason.
func words(defined, text string) string {
	switch {
	case defined == "" && text == "":
		return "no reason given"
	case text == "":
		return fmt.Sprintf("%.200q", defined)
	default:
		return fmt.Sprintf("%.200q", text)
	}
}

// An appointment is something to do for a station at some time; it is void if
// the station has another one of its kind by then.
type appointment struct {
	at time.Time
	st *station
	op op // opNone: look for stuck calls
}

type agenda []appointment

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)        { *a = append(*a, x.(appointment)) } //nolint:forcetypeassert // heap.Interface
func (a *agenda) Pop() any {
	old := *a
	last := old[len(old)-1]
	old[len(old)-1] = appointment{}
	*a = old[:len(old)-1]
	return last
}

func (a *agenda) add(at time.Time, st *station, o op) { heap.Push(a, appointment{at, st, o}) }

// due takes the next appointment that is due.
func (a *agenda) due(now time.Time) (appointment, bool) {
	if len(*a) == 0 || now.Before((*a)[0].at) {
		return appointment{}, false
	}
	x, ok := heap.Pop(a).(appointment)
	return x, ok
}
