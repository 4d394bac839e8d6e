package web

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// A Poller has a part look at once: *aggregator.Supervisor is one.
type Poller interface {
	// PollNow fails with aggregator.ErrNoPart, ErrNotPolled or ErrTooSoon.
	PollNow(name string) error
}

// A sourcesView is the body of the page of sources, bridges and stores.
type sourcesView struct {
	Chips   []chip
	Parts   []partView
	None    bool // there is no part at all
	PollAll bool
}

// A sourceView is the body of the page of one of them.
type sourceView struct {
	Part      partView
	Rows      []labelled // what is known of it beyond the track
	Text      string     // what was searched for
	Uncovered []uncovered
	Reasons   []labelled // how many for which reason
	Count     string     // of those who are not covered
	Range     string
}

type labelled struct{ Label, Value string }

type partView struct {
	DOM, Name, Kind string
	Path            string
	Phase           string
	Off             bool
	Alone           bool // the page is about it
	Since           moment
	Track           []step
	Sync            *progress
	Trouble         *trouble
	Facts           []string
	Success, Failed moment
	Uncovered       string // how many are not covered, and why most are not
	Poll            string // what the button says; empty: there is none
}

type step struct {
	Word, S string
	Current bool
}

type progress struct {
	Done, Total string
	Value, Max  int
}

type trouble struct {
	Bad              bool
	Icon, What, More string
	Next             moment
}

type uncovered struct {
	Subject, Why string
	Path, Person string // of who that is, where the directory knows it
}

// phases gives the phases in the order of the track.
func phases() []presence.Phase {
	return []presence.Phase{
		presence.PhaseDisabled, presence.PhaseStandby, presence.PhaseConnecting, presence.PhaseSyncing, presence.PhaseLive, presence.PhaseDegraded,
		presence.PhaseStale,
	}
}

// urgency orders phases, the one that needs attention most first.
func urgency(p presence.Phase) int {
	return slices.Index([]presence.Phase{
		presence.PhaseStale, presence.PhaseDegraded, presence.PhaseConnecting, presence.PhaseSyncing, presence.PhaseLive, presence.PhaseStandby,
		presence.PhaseDisabled,
	}, p)
}

// phaseMark gives the presence mark that stands for a phase.
func phaseMark(p presence.Phase) string {
	switch p {
	case presence.PhaseLive:
		return "available"
	case presence.PhaseStale:
		return "out-of-order"
	case presence.PhaseDisabled, presence.PhaseStandby:
		return "offline"
	default:
		return "away"
	}
}

func (s *Site) sourcesRoutes(mux *http.ServeMux) {
	s.offer(place{
		Section: administration, Href: "/sources", Icon: "sources", Text: "Sources", Page: "sources", Needs: signin.ReadHealth,
		Count: func() int { return len(s.desk.Health()) },
	})
	mux.Handle("GET /sources", s.require(signin.ReadHealth, s.sourcesPage))
	mux.Handle("GET /sources/{name}", s.require(signin.ReadHealth, s.sourcePage))
	if s.parts.Poller != nil {
		// An operator may: it changes nothing, and helps whoever has just been repaired.
		mux.Handle("POST /sources/poll", s.require(signin.WritePresence, s.pollAll))
		mux.Handle("POST /sources/{name}/poll", s.require(signin.WritePresence, s.pollOne))
	}
}

func (s *Site) sourcesPage(w http.ResponseWriter, r *http.Request) {
	p := s.newPage(r, "sources", "Sources", url.Values{"rows": {"none"}})
	only := presence.Phase(r.URL.Query().Get("phase"))
	if !slices.Contains(phases(), only) {
		only = ""
	}
	parts := slices.Clone(s.desk.Health())
	kinds := []aggregator.Kind{aggregator.KindSource, aggregator.KindDirectory, aggregator.KindBridge, aggregator.KindPolicy, aggregator.KindStore}
	slices.SortStableFunc(parts, func(a, b aggregator.Health) int {
		return cmp.Or(urgency(a.Phase)-urgency(b.Phase), slices.Index(kinds, a.Kind)-slices.Index(kinds, b.Kind), strings.Compare(a.Name, b.Name))
	})
	view := &sourcesView{None: len(parts) == 0}
	view.Chips = append(view.Chips, chip{Href: "/sources", Word: "All", Count: number(len(parts)), Current: only == ""})
	counts := map[presence.Phase]int{}
	may := s.mayPoll(r)
	for i := range parts {
		h := &parts[i]
		counts[h.Phase]++
		view.PollAll = view.PollAll || may && h.Polls
		if only == "" || only == h.Phase {
			view.Parts = append(view.Parts, s.partOf(h, may))
		}
	}
	for _, ph := range phases() {
		if n := counts[ph]; n > 0 || ph == only {
			view.Chips = append(view.Chips, chip{
				Href: address("/sources", url.Values{"phase": {string(ph)}}), S: phaseMark(ph), Word: sentence(string(ph)), Count: number(n), Current: ph == only,
			})
		}
	}
	p.Body = view
	s.show(w, r, http.StatusOK, &p)
}

// mayPoll tells whether who asks may have a part look at once.
func (s *Site) mayPoll(r *http.Request) bool {
	return s.parts.Poller != nil && signin.From(r.Context()).May(signin.WritePresence)
}

func (s *Site) pollOne(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	path := partPath(name)
	switch err := s.parts.Poller.PollNow(name); {
	case errors.Is(err, aggregator.ErrNoPart):
		s.missingPage(w, r)
	case err != nil:
		s.done(w, r, path, name+" was not asked: "+err.Error()+".")
	default:
		s.done(w, r, path, name+" is asked again. What it answers shows here as it comes.")
	}
}

func (s *Site) pollAll(w http.ResponseWriter, r *http.Request) {
	asked, left := 0, 0
	for _, h := range s.desk.Health() {
		switch {
		case !h.Polls:
		case s.parts.Poller.PollNow(h.Name) == nil:
			asked++
		default:
			left++
		}
	}
	told := plural(asked, "part is", "parts are") + " asked again. What they answer shows here as it comes."
	if left > 0 {
		told += " " + plural(left, "was", "were") + " asked a moment ago."
	}
	s.done(w, r, "/sources", told)
}

// Most of those who are not covered that one page shows.
const maxUncovered = 200

func (s *Site) sourcePage(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	all := s.desk.Health()
	i := slices.IndexFunc(all, func(h aggregator.Health) bool { return h.Name == name })
	if i < 0 {
		s.missingPage(w, r)
		return
	}
	h := &all[i]
	p := s.newPage(r, "source", name, url.Values{"rows": {"none"}})
	view := &sourceView{Part: s.partOf(h, s.mayPoll(r)), Text: clipped(r.URL.Query().Get("q"))}
	view.Part.Alone = true
	add := func(label, value string) {
		if value != "" {
			view.Rows = append(view.Rows, labelled{label, value})
		}
	}
	add("Says", h.Detail)
	if h.Reports > 0 {
		add("Reports", number(int(min(h.Reports, 1<<53)))) //nolint:gosec // bounded here
	}
	if h.Restarts > 0 {
		add("Restarts", number(h.Restarts))
	}
	for _, kind := range slices.Sorted(maps.Keys(h.Problems)) {
		if n := h.Problems[kind]; n > 0 {
			add(sentence(kind), number(n))
		}
	}
	add("Last error", h.LastError)
	named := len(h.Unmonitored)
	view.Count = number(max(named, h.Uncovered))
	view.Reasons = reasons(h)
	words := strings.Fields(strings.ToLower(view.Text))
	found := 0
	for _, subject := range slices.Sorted(maps.Keys(h.Unmonitored)) {
		u := s.uncoveredOf(subject, h.Unmonitored[subject])
		search := strings.ToLower(u.Subject + " " + u.Why + " " + u.Person)
		if slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(search, word) }) {
			continue
		}
		if found++; found <= maxUncovered {
			view.Uncovered = append(view.Uncovered, u)
		}
	}
	switch {
	case found > maxUncovered:
		view.Range = "The first " + number(maxUncovered) + " of " + number(found) + "; search for one."
	case h.Uncovered > named:
		view.Range = "The source names " + number(named) + " of " + view.Count + "."
	}
	p.Body = view
	s.show(w, r, http.StatusOK, &p)
}

// uncoveredOf gives one who is not covered, with the person whom the directory
// knows by it: sources name a whole subject, or its value.
func (s *Site) uncoveredOf(subject, why string) uncovered {
	u := uncovered{Subject: subject, Why: why}
	scheme, value, whole := strings.Cut(subject, ":")
	candidates := []presence.Subject{{Scheme: "tel", Value: subject}, {Scheme: "mail", Value: subject}, {Scheme: "id", Value: subject}}
	if whole {
		candidates = []presence.Subject{{Scheme: scheme, Value: value}}
	}
	for _, c := range candidates {
		if person, ok := s.desk.Person(c); ok {
			u.Person, u.Path = person.Name, personPath(person.ID)
			break
		}
	}
	return u
}

// reasons counts those who are not covered by why they are not, the most frequent first.
func reasons(h *aggregator.Health) []labelled {
	counts := map[string]int{}
	for _, why := range h.Unmonitored {
		counts[why]++
	}
	const most = 6
	var out []labelled
	others := 0
	for _, why := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) }) {
		if len(out) == most {
			others += counts[why]
			continue
		}
		out = append(out, labelled{why, number(counts[why])})
	}
	if others > 0 {
		out = append(out, labelled{"for other reasons", number(others)})
	}
	return out
}

func partPath(name string) string { return "/sources/" + url.PathEscape(name) }

func (s *Site) partOf(h *aggregator.Health, mayPoll bool) partView {
	now := time.Now()
	at := func(t time.Time) moment { return momentOf(t, now, s.zone) }
	v := partView{
		DOM: "part-" + url.PathEscape(h.Name), Name: h.Name, Kind: sentence(string(h.Kind)), Path: partPath(h.Name), Phase: string(h.Phase),
		Off: h.Phase == presence.PhaseDisabled || h.Phase == presence.PhaseStandby, Since: at(h.Since),
	}
	for _, ph := range phases() {
		v.Track = append(v.Track, step{string(ph), phaseMark(ph), ph == h.Phase})
	}
	if h.Total > 0 && h.Done < h.Total {
		v.Sync = &progress{number(h.Done), number(h.Total), h.Done, h.Total}
	}
	switch h.Phase {
	case presence.PhaseDegraded, presence.PhaseStale, presence.PhaseConnecting:
		v.Trouble = troubleOf(h, at)
	default:
		if h.Detail != "" {
			v.Facts = append(v.Facts, h.Detail)
		}
	}
	if h.Reports > 0 {
		v.Facts = append(v.Facts, plural(int(min(h.Reports, 1<<53)), "report", "reports")) //nolint:gosec // bounded here
	}
	if h.Restarts > 0 {
		v.Facts = append(v.Facts, plural(h.Restarts, "restart", "restarts"))
	}
	for _, kind := range slices.Sorted(maps.Keys(h.Problems)) {
		if n := h.Problems[kind]; n > 0 {
			v.Facts = append(v.Facts, kind+": "+number(n))
		}
	}
	if h.Phase != presence.PhaseLive {
		v.Success = at(h.LastSuccess)
	}
	v.Failed = at(h.LastErrorAt)
	if n := max(len(h.Unmonitored), h.Uncovered); n > 0 {
		v.Uncovered = number(n) + " cannot be covered"
	}
	switch waits := !h.NextTry.IsZero(); {
	case !mayPoll:
	case h.Polls:
		v.Poll = "Poll now"
	case waits:
		v.Poll = "Try now"
	}
	return v
}

// troubleOf says what is wrong, in the words of the part where it has any.
func troubleOf(h *aggregator.Health, at func(time.Time) moment) *trouble {
	t := &trouble{Bad: h.Phase == presence.PhaseStale, Icon: "warning", What: h.Detail, More: h.LastError, Next: at(h.NextTry)}
	if t.Bad {
		t.Icon = "error"
	}
	if t.What == "" {
		t.What, t.More = t.More, ""
	}
	if t.What == "" {
		t.What = "Not there yet."
	}
	if strings.Contains(t.What, t.More) {
		t.More = ""
	}
	if t.More != "" && !strings.HasSuffix(t.More, ".") {
		t.More += "."
	}
	return t
}
