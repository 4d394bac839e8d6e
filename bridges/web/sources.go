package web

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// A sourcesView is the body of the page of sources, bridges and stores.
type sourcesView struct {
	Chips []chip
	Parts []partView
	None  bool // there is no part at all
}

type partView struct {
	DOM, Name, Kind string
	Phase           string
	Off             bool
	Since           moment
	Track           []step
	Sync            *progress
	Trouble         *trouble
	Facts           []string
	Success, Failed moment
	Uncovered       []uncovered
	UncoveredTitle  string
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

type uncovered struct{ Subject, Why string }

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

func (s *Site) sourcesPage(w http.ResponseWriter, r *http.Request) {
	p := s.newPage(r, "sources", "Sources", url.Values{"rows": {"none"}})
	only := presence.Phase(r.URL.Query().Get("phase"))
	if !slices.Contains(phases(), only) {
		only = ""
	}
	parts := slices.Clone(s.desk.Health())
	slices.SortStableFunc(parts, func(a, b aggregator.Health) int {
		return cmp.Or(urgency(a.Phase)-urgency(b.Phase), strings.Compare(string(b.Kind), string(a.Kind)), strings.Compare(a.Name, b.Name))
	})
	view := &sourcesView{None: len(parts) == 0}
	view.Chips = append(view.Chips, chip{Href: "/sources", Word: "All", Count: number(len(parts)), Current: only == ""})
	counts := map[presence.Phase]int{}
	now := time.Now()
	for _, h := range parts {
		counts[h.Phase]++
		if only == "" || only == h.Phase {
			view.Parts = append(view.Parts, partOf(&h, now, s.zone))
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

func partOf(h *aggregator.Health, now time.Time, zone *time.Location) partView {
	at := func(t time.Time) moment { return momentOf(t, now, zone) }
	v := partView{
		DOM: "part-" + url.PathEscape(h.Name), Name: h.Name, Kind: sentence(string(h.Kind)), Phase: string(h.Phase),
		Off: h.Phase == presence.PhaseDisabled || h.Phase == presence.PhaseStandby, Since: at(h.Since),
	}
	for _, ph := range phases() {
		v.Track = append(v.Track, step{string(ph), phaseMark(ph), ph == h.Phase})
	}
	if h.Total > 0 && h.Phase == presence.PhaseSyncing {
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
			v.Facts = append(v.Facts, number(n)+" "+kind)
		}
	}
	if h.Phase != presence.PhaseLive {
		v.Success = at(h.LastSuccess)
	}
	v.Failed = at(h.LastErrorAt)
	for _, subject := range slices.Sorted(maps.Keys(h.Unmonitored)) {
		v.Uncovered = append(v.Uncovered, uncovered{subject, h.Unmonitored[subject]})
	}
	v.UncoveredTitle = number(len(v.Uncovered)) + " cannot be covered"
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
	if t.More == t.What {
		t.More = ""
	}
	if t.More != "" && !strings.HasSuffix(t.More, ".") {
		t.More += "."
	}
	return t
}
