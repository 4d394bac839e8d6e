package web

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/presence"
)

// pageRows is how many people a page of the board holds.
const pageRows = 200

// A boardView is the body of the board.
type boardView struct {
	Lead           string
	Text           string
	State, Order   string
	Groups         []choice
	ChannelChoices []choice
	Summary        summaryView
	Columns        []column
	Rows           []*rowView
	Range          string
	Before, After  string
	Complete       bool // all that the filter shows is on this page
	Nobody         bool
	Everyone       string
}

// A choice is an option of a form.
type choice struct {
	Value, Text string
	Selected    bool
}

// A column is the head of one column; Sorted is for aria-sort.
type column struct {
	Class, Title, Href, Sorted string
}

// A summaryView is the bar and the chips: how many there are of each state.
type summaryView struct {
	Label string
	Mix   []segment
	Chips []chip
}

type segment struct{ S, X, Width string }

type chip struct {
	Href, State, S, Word, Count string
	Current                     bool
}

func (s *Site) boardPage(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	f := parseFilter(query)
	f.id, f.nobody, f.shown = "", false, ""
	order := query.Get("sort")
	watch := f.query(f.state)
	p := s.newPage(r, "board", "Board", watch) // before the states are read, so that its stream misses none
	members := s.members(s.viewer(r))

	var t tally
	var shown []*member
	groups := map[string]bool{}
	for i := range members {
		m := &members[i]
		for _, g := range m.person.Groups {
			groups[g] = true
		}
		search := ""
		if f.text != "" {
			search = searchText(&m.person)
		}
		if !f.covers(m, search) {
			continue
		}
		t.add(&m.state)
		if f.stateFits(&m.state) {
			shown = append(shown, m)
		}
	}
	arrange(shown, order)

	pages := max(1, (len(shown)+pageRows-1)/pageRows)
	nth, err := strconv.Atoi(query.Get("page"))
	if err != nil {
		nth = 1
	}
	nth = min(max(nth, 1), pages)
	from, to := (nth-1)*pageRows, min(nth*pageRows, len(shown))
	at := func(n int) string {
		v := f.query(f.state)
		setUnless(v, "sort", order, "")
		setUnless(v, "page", strconv.Itoa(n), "1")
		return address("/", v)
	}

	view := &boardView{
		Text: f.typed, State: f.state, Order: order, Summary: summaryOf(t, &f), Columns: columnsOf(&f, order), Complete: pages == 1,
		Nobody: len(members) == 0, Everyone: plural(len(members), "person", "people"), ChannelChoices: channelFilters(),
		Range: fmt.Sprintf("%s to %s of %s", number(from+1), number(to), number(len(shown))),
		Lead:  leadOf(&f, len(shown), len(members)),
	}
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		view.Groups = append(view.Groups, choice{Value: g, Selected: g == f.group})
	}
	for i := range view.ChannelChoices {
		view.ChannelChoices[i].Selected = view.ChannelChoices[i].Value == f.channel
	}
	if !view.Complete {
		watch.Set("shown", marksOf(shown[from:to]).String())
		p.Watch = watch.Encode()
	}
	if nth > 1 {
		view.Before = at(nth - 1)
	}
	if nth < pages {
		view.After = at(nth + 1)
	}
	now := time.Now()
	for _, m := range shown[from:to] {
		view.Rows = append(view.Rows, rowOf(*m, now, s.zone))
	}
	p.Body = view
	s.show(w, r, http.StatusOK, &p)
}

// rowHTML writes a row for the streams.
func (s *Site) rowHTML(m member) string {
	return s.looks.html("row", rowOf(m, time.Now(), s.zone))
}

func leadOf(f *filter, shown, all int) string {
	if shown == all {
		return plural(all, "person", "people")
	}
	lead := number(shown) + " of " + plural(all, "person", "people")
	if f.group != "" {
		lead = f.group + ", " + lead
	}
	return lead
}

func columnsOf(f *filter, order string) []column {
	sorted := func(up, down string) (href, dir string) {
		v := f.query(f.state)
		switch {
		case order == up && down != "":
			v.Set("sort", down)
		default:
			setUnless(v, "sort", up, "")
		}
		switch {
		case order == up:
			dir = "ascending"
		case down != "" && order == down:
			dir = "descending"
		}
		return address("/", v), dir
	}
	if !slices.Contains([]string{byNameDown, byState, bySince, byGroup}, order) {
		order = byName
	}
	head := func(class, title, up, down string) column {
		href, dir := sorted(up, down)
		return column{class, title, href, dir}
	}
	return []column{
		head("c-state", "State", byState, ""),
		head("c-name", "Person", byName, byNameDown),
		{Class: "c-act", Title: "Activity"},
		head("c-since", "Since", bySince, ""),
		{Class: "c-until", Title: "Until"},
		{Class: "c-ch", Title: "Phone"},
		{Class: "c-ch", Title: "Calendar"},
		{Class: "c-ch", Title: "Messaging"},
		{Class: "c-why", Title: "Why"},
		head("c-group", "Group", byGroup, ""),
	}
}

// summaryOf writes counts as a bar, as chips, and in words.
func summaryOf(t tally, f *filter) summaryView {
	var v summaryView
	add := func(state, s, word string, n int) {
		v.Chips = append(v.Chips, chip{address("/", f.query(state)), state, s, word, number(n), f.state == state})
	}
	add("", "", "Everyone", t.all)
	for a := range presence.Availabilities() {
		switch a {
		case presence.Unknown, presence.Unavailable, presence.OutOfOrder:
		default:
			add(a.String(), a.String(), a.Words(), t.by[a])
		}
	}
	add(uncertain, presence.Unknown.String(), "Not certain", t.uncertain)

	const gap = 0.25 // per cent of the bar between two states
	x := 0.0
	var words []string
	for a := range presence.Availabilities() {
		n := t.by[a]
		if n == 0 {
			continue
		}
		share := 100 * float64(n) / float64(t.all)
		v.Mix = append(v.Mix, segment{a.String(), perCent(x), perCent(max(share-gap, share/2))})
		x += share
		words = append(words, number(n)+" "+strings.ToLower(a.Words()))
	}
	if v.Label = strings.Join(words, ", "); v.Label == "" {
		v.Label = "nobody"
	}
	return v
}

func setUnless(v url.Values, key, value, not string) {
	if value != not {
		v.Set(key, value)
	}
}

func address(path string, v url.Values) string {
	if q := v.Encode(); q != "" {
		return path + "?" + q
	}
	return path
}
