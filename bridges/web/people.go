package web

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"presenced/aggregator/presence"
)

// A member is a person and what a viewer with that access sees of their state: all
// who have it see the same, so a row is rendered once for each member.
type member struct {
	person presence.Person
	access presence.Access
	state  presence.State
}

// visible gives what a viewer with that access sees of a state; no state leaves
// otherwise. The calendar's contact is never part of it: whether it is of a private
// entry cannot be told from a state.
func visible(s presence.State, a presence.Access) presence.State {
	v := presence.View(s, a)
	v.Channels[presence.Calendar].Contact = ""
	if a.Calendar != presence.CalendarOpen {
		v.Revision = 0 // it rises with what is not shown, too
	}
	return v
}

func (m *member) equal(n member) bool {
	return m.state == n.state && m.access == n.access && m.person.Name == n.person.Name &&
		slices.Equal(m.person.Groups, n.person.Groups) && slices.Equal(m.person.Subjects, n.person.Subjects)
}

// members gives everyone as v sees them, sorted by name.
func (s *Site) members(v viewer) []member {
	states := s.desk.States()
	byID := make(map[presence.ID]int, len(states))
	for i := range states {
		byID[states[i].Person] = i
	}
	people := s.desk.People()
	members := make([]member, 0, len(people))
	for _, p := range people {
		st := presence.State{Person: p.ID, Class: presence.Unknown.Class()}
		if i, ok := byID[p.ID]; ok {
			st = states[i]
		}
		members = append(members, s.see(v, p, st))
	}
	return members
}

// explain gives the reasoning as the viewer may see it: now, or at a moment ahead
// by what is known now.
func (s *Site) explain(v viewer, id presence.ID, at time.Time) (Reasoning, bool) {
	e, ok := s.desk.Explain(id, at)
	if !ok {
		return Reasoning{}, false
	}
	if at.IsZero() && e.State.Since.IsZero() { // an explanation is decided anew and knows no history
		for _, st := range s.desk.States() {
			if st.Person == id && st.Availability == e.State.Availability && st.Activity == e.State.Activity {
				e.State.Since = st.Since
			}
		}
	}
	return reasoned(e, s.access(v, id)), true
}

// A filter is what a viewer asked to see. It is comparable, and comes from the
// query of an address.
type filter struct {
	typed   string // words that a name or an address must hold, as the viewer wrote them
	text    string // the same in lower case
	group   string
	state   string // an availability, or uncertain
	channel string // one of channelFilters
	id      presence.ID
	nobody  bool  // no rows at all: a page that only wants to know that the server lives
	shown   marks // of those whose rows are wanted, whatever counts; empty: of all
}

// uncertain is the state filter for all that is not known for sure.
const uncertain = "uncertain"

const maxQuery = 200 // bytes of a filter's text; the rest is ignored

// channelFilters are the filters by channel, as the board offers them.
func channelFilters() []choice {
	return []choice{
		{Value: "phone-idle", Text: "Phone idle"},
		{Value: "phone-in-use", Text: "Phone in use"},
		{Value: "calendar-free", Text: "Calendar free"},
	}
}

func parseFilter(v url.Values) filter {
	clip := func(key string) string { return v.Get(key)[:min(len(v.Get(key)), maxQuery)] }
	f := filter{
		typed: strings.TrimSpace(clip("q")), group: clip("group"),
		id: presence.ID(clip("id")), nobody: v.Get("rows") == "none", shown: parseMarks(v.Get("shown")),
	}
	f.text = strings.ToLower(f.typed)
	var a presence.Availability
	if st := v.Get("state"); st == uncertain || a.UnmarshalText([]byte(st)) == nil {
		f.state = st
	}
	if ch := v.Get("channel"); slices.ContainsFunc(channelFilters(), func(c choice) bool { return c.Value == ch }) {
		f.channel = ch
	}
	return f
}

// query gives f as part of an address, with the state replaced, and without whom a page shows.
func (f *filter) query(state string) url.Values {
	v := url.Values{}
	for key, value := range map[string]string{"q": f.typed, "group": f.group, "channel": f.channel, "id": string(f.id), "state": state} {
		if value != "" {
			v.Set(key, value)
		}
	}
	if f.nobody {
		v.Set("rows", "none")
	}
	return v
}

// concerns tells whether the person is meant, whatever their state.
func (f *filter) concerns(p *presence.Person, search string) bool {
	if f.nobody || f.id != "" && f.id != p.ID || f.group != "" && !slices.Contains(p.Groups, f.group) {
		return false
	}
	for word := range strings.FieldsSeq(f.text) {
		if !strings.Contains(search, word) {
			return false
		}
	}
	return true
}

// covers tells whether the person counts: all but the state is as asked.
func (f *filter) covers(m *member, search string) bool {
	return f.concerns(&m.person, search) && f.channelFits(&m.state)
}

// shows tells whether the person's row is to be seen.
func (f *filter) shows(m *member, search string) bool {
	return f.covers(m, search) && f.stateFits(&m.state)
}

func (f *filter) stateFits(s *presence.State) bool {
	switch f.state {
	case "":
		return true
	case uncertain:
		return isUncertain(s)
	default:
		return s.Availability.String() == f.state
	}
}

func (f *filter) channelFits(s *presence.State) bool {
	switch f.channel {
	case "phone-idle":
		return s.Channel(presence.Phone).State == presence.ChannelIdle
	case "phone-in-use":
		return phoneInUse(s.Channel(presence.Phone).State)
	case "calendar-free":
		return s.Channel(presence.Calendar).State == presence.ChannelFree
	default:
		return true
	}
}

func phoneInUse(c presence.ChannelState) bool {
	switch c {
	case presence.ChannelDialing, presence.ChannelHeld, presence.ChannelInUse, presence.ChannelConference, presence.ChannelInUseRinging:
		return true
	default:
		return false
	}
}

// isUncertain tells whether a state is stale, expired, never known, or broken.
func isUncertain(s *presence.State) bool {
	switch s.Availability {
	case presence.Unknown, presence.Unavailable, presence.OutOfOrder:
		return true
	default:
		return s.Overlays.Has(presence.OverlayStale)
	}
}

// searchText gives what the words of a filter are looked for in.
func searchText(p *presence.Person) string {
	var b strings.Builder
	b.WriteString(p.Name)
	for _, s := range p.Subjects {
		b.WriteByte('\n')
		b.WriteString(s.Value)
	}
	return strings.ToLower(b.String())
}

// Orders of the board; another order than these is by name.
const (
	byName     = "name"
	byNameDown = "-name"
	byState    = "state"
	bySince    = "since"
	byGroup    = "group"
)

// arrange sorts members, which are sorted by name.
func arrange(members []*member, order string) {
	var less func(a, b *member) int
	switch order {
	case byNameDown:
		slices.Reverse(members)
		return
	case byState:
		less = func(a, b *member) int { return cmp.Compare(b.state.Availability, a.state.Availability) }
	case bySince:
		less = func(a, b *member) int { return b.state.Since.Compare(a.state.Since) }
	case byGroup:
		less = func(a, b *member) int { return strings.Compare(firstGroup(&a.person), firstGroup(&b.person)) }
	default:
		return
	}
	slices.SortStableFunc(members, less)
}

func firstGroup(p *presence.Person) string {
	if len(p.Groups) == 0 {
		return ""
	}
	return p.Groups[0]
}
