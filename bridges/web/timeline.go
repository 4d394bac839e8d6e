package web

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
)

// A timeline is a day of a person as a picture: a band of what was shown, and one of
// each source. What lies after the present is striped.
type timeline struct {
	Height  int
	Hours   []hourMark
	Bands   []band // the first is the result
	Legend  []look
	Ahead   bool     // something is striped
	Now     nowMark  // the moment of the page
	Sources []string // that are left out, for want of room

	begin, end time.Time
}

// An hourMark is a line and its label, which the script writes in the zone of the viewer.
type hourMark struct {
	X, Text, ISO, Anchor string
	Odd                  bool // left out where there is little room
}

// A nowMark moves with the time: From and Until are the edges of the picture.
type nowMark struct{ X, Text, ISO, From, Until string }

// A band is one line of the picture. Y is its upper edge in pixels.
type band struct {
	Name, Icon string
	Result     bool
	Y, H       int
	Spans      []spanMark

	last float64 // where the last stretch begins, in per cents
}

// A spanMark is a stretch of a band, in per cents of its width; Hatch is where in it
// the striped part begins, in per cents of the stretch, if it has one.
type spanMark struct{ S, X, Width, Words, Label, Hatch, Rest string }

// The measures of the picture, in pixels; those of the names beside it are in the style.
const (
	bandsTop   = 24
	resultHigh = 28
	sourceHigh = 20
	bandGap    = 8
	breadth    = 840 // as wide as the picture is taken to be where labels are cut
	letter     = 6
)

// The limits of the picture.
const (
	maxBands     = 10
	maxBandSpans = 300
	leastWidth   = 0.1 // per cent; what is shorter could not be seen
)

// timelineOf draws a day that begins at from. What follows now is not there, or ahead;
// at is the moment of the page.
func timelineOf(d *Day, from, now, at time.Time) *timeline {
	v := &timeline{}
	v.spread(d, from, at)
	v.Now = nowMark{v.x(at), at.Format("15:04"), at.UTC().Format(time.RFC3339), v.begin.UTC().Format(time.RFC3339), v.end.UTC().Format(time.RFC3339)}
	v.result(d, now)
	for i := 0; i < len(d.Said); {
		n := 1
		for i+n < len(d.Said) && d.Said[i+n].Source == d.Said[i].Source {
			n++
		}
		v.source(d.Said[i:i+n], now)
		i += n
	}
	slices.SortStableFunc(v.Bands[1:], func(a, b band) int { return rankOf(a.Icon) - rankOf(b.Icon) })
	for _, b := range v.Bands[min(len(v.Bands), maxBands):] {
		v.Sources = append(v.Sources, b.Name)
	}
	v.Bands = v.Bands[:min(len(v.Bands), maxBands)]
	y := bandsTop
	for i := range v.Bands {
		b := &v.Bands[i]
		b.Y = y
		y += b.H + bandGap
	}
	v.Height = y - bandGap + 4
	v.legend()
	return v
}

// spread finds the hours to show: a working day, and the hours about what changes before and after it.
func (v *timeline) spread(d *Day, from, at time.Time) {
	midnight := from.AddDate(0, 0, 1)
	hour := func(n int) time.Time {
		return time.Date(from.Year(), from.Month(), from.Day(), n, 0, 0, 0, from.Location())
	}
	first, last := 7, 19
	include := func(t time.Time) {
		if t.After(from) && t.Before(midnight) {
			n := t.In(from.Location()).Hour()
			first, last = min(first, max(n-1, 0)), max(last, min(n+2, 24))
		}
	}
	include(at)
	for i := range d.Changes {
		include(d.Changes[i].At)
	}
	for i := range d.Ahead {
		if i > 0 && lookOf(&d.Ahead[i]) != lookOf(&d.Ahead[i-1]) {
			include(d.Ahead[i].Since)
		}
	}
	v.begin, v.end = hour(first), hour(last)
	step := 1
	if last-first > 14 {
		step = 2
	}
	for n := first; n <= last; n += step {
		t := hour(n)
		mark := hourMark{X: v.x(t), Text: t.Format("15:04"), ISO: t.UTC().Format(time.RFC3339), Anchor: "middle", Odd: (n-first)/step%2 == 1}
		switch n {
		case first:
			mark.Anchor = "start"
		case last:
			mark.Anchor = "end"
		}
		switch away := math.Abs(v.share(t) - v.share(at)); { // the moment of the page is written there
		case away < 4:
			mark.Text = ""
		case away < 18:
			mark.Odd = true
		}
		v.Hours = append(v.Hours, mark)
	}
}

// share gives where a moment is, in per cents.
func (v *timeline) share(t time.Time) float64 {
	return 100 * float64(t.Sub(v.begin)) / float64(v.end.Sub(v.begin))
}

func (v *timeline) x(t time.Time) string { return perCent(v.share(t)) }

// result draws what was shown up to now, and what will be.
func (v *timeline) result(d *Day, now time.Time) {
	b := band{Name: "Presence", Icon: "presence", Result: true, H: resultHigh}
	for i := range d.Changes {
		c := &d.Changes[i]
		over := now
		if i+1 < len(d.Changes) {
			over = d.Changes[i+1].At
		}
		l, doing := wordsOf(presence.State{Availability: c.Availability, Activity: c.Activity})
		v.draw(&b, l.S, c.At, over, now, l.Word, doing)
	}
	for i := 0; i < len(d.Ahead); {
		l, doing := wordsOf(d.Ahead[i])
		n := 1
		for ; i+n < len(d.Ahead); n++ {
			if other, does := wordsOf(d.Ahead[i+n]); other != l || does != doing {
				break
			}
		}
		over := v.end
		if i+n < len(d.Ahead) {
			over = d.Ahead[i+n].Since
		}
		v.draw(&b, l.S, d.Ahead[i].Since, over, now, l.Word, doing)
		i += n
	}
	v.Bands = append(v.Bands, b)
}

// wordsOf gives how a state looks, whoever doubts it, and what the person does.
func wordsOf(st presence.State) (look, string) {
	st.Overlays = 0
	l := lookOf(&st)
	words, _ := doing(&st)
	return l, words
}

// source draws what one source said.
func (v *timeline) source(said []journal.Saying, now time.Time) {
	b := band{Name: said[0].Source, Icon: "sources", H: sourceHigh}
	for i := range said {
		f := &said[i]
		if icon := iconOf(f.Fact); rankOf(icon) < rankOf(b.Icon) {
			b.Icon = icon
		}
		s := hueOf(f.Fact)
		if s == "" {
			continue
		}
		over := f.Until
		if over.IsZero() {
			over = now
		}
		v.draw(&b, s, f.From, over, now, sayingWords(f), bare(f.Contact))
	}
	v.Bands = append(v.Bands, b)
}

// draw adds a stretch to a band, as much of it as the picture shows.
func (v *timeline) draw(b *band, s string, from, until, now time.Time, words, more string) {
	if from.Before(v.begin) {
		from = v.begin
	}
	if until.After(v.end) {
		until = v.end
	}
	if !until.After(from) {
		return
	}
	width := v.share(until) - v.share(from)
	m := spanMark{S: s, X: v.x(from), Width: perCent(max(width, leastWidth)), Words: words}
	if more != "" {
		m.Words += ", " + lowered(more)
	}
	m.Label = cut(labelOf(b, words, more), width)
	if n := len(b.Spans); n > 0 { // which may go on below this one
		b.Spans[n-1].Label = cut(b.Spans[n-1].Label, v.share(from)-b.last)
	}
	b.last = v.share(from)
	if until.After(now) {
		begins := max(0, float64(now.Sub(from))/float64(until.Sub(from))*100)
		m.Hatch, m.Rest = perCent(begins), perCent(100-begins)
		m.Words += ", known ahead"
		v.Ahead = true
	}
	if b.Spans = append(b.Spans, m); len(b.Spans) > maxBandSpans {
		b.Spans = b.Spans[1:]
	}
}

// labelOf gives what is written upon a stretch: what the person does rather than that
// they are busy, and of a fact what its band does not say already.
func labelOf(b *band, words, more string) string {
	if b.Result {
		return cmp.Or(more, words)
	}
	for _, kind := range []string{"Phone ", "Calendar ", "Session ", "Manual "} {
		if rest, ok := strings.CutPrefix(words, kind); ok {
			return strings.ToUpper(rest[:1]) + rest[1:]
		}
	}
	return words
}

// cut gives as much of words as there is room for in a width in per cents; nothing
// where that would say little.
func cut(words string, width float64) string {
	letters, room := []rune(words), int((width/100*breadth-16)/letter)
	switch {
	case len(letters) <= room:
		return words
	case room < 6:
		return ""
	default:
		return strings.TrimSpace(string(letters[:room-1])) + "…"
	}
}

// legend says what the marks mean, each once.
func (v *timeline) legend() {
	seen := map[string]bool{}
	for _, b := range v.Bands {
		for _, m := range b.Spans {
			seen[m.S] = true
		}
	}
	for _, l := range []look{
		{S: "available", Word: "Available"},
		{S: "idle", Word: "Idle"},
		{S: "busy", Word: "Busy"},
		{S: "dnd", Word: "Do not disturb"},
		{S: "brb", Word: "Be right back"},
		{S: "away", Word: "Away, ringing"},
		{S: "out-of-office", Word: "Out of office"},
		{S: "off-work", Word: "Off work"},
		{S: "offline", Word: "Offline"},
	} {
		if seen[l.S] {
			v.Legend = append(v.Legend, l)
		}
	}
}

// sayingWords gives a fact in words. Of a private entry nobody learns that it is a meeting.
func sayingWords(s *journal.Saying) string {
	if s.Private && s.Fact == presence.CalendarMeeting {
		return sentence(presence.CalendarBusy.String())
	}
	return sentence(s.Fact.String())
}

// hueOf gives the mark of a fact in the picture; empty: it is the quiet of its source,
// and is not drawn.
func hueOf(f presence.Fact) string {
	switch f {
	case presence.PhoneConnected, presence.PhoneConference, presence.PhoneHeld, presence.PhoneDialing, presence.AgentAfterCall,
		presence.CalendarMeeting, presence.CalendarBusy, presence.SessionBusy, presence.Presenting, presence.ManualBusy:
		return presence.Busy.String()
	case presence.PhoneDND, presence.SessionDND, presence.Focusing, presence.ManualDND:
		return presence.DoNotDisturb.String()
	case presence.PhoneRinging, presence.PhoneForwarded, presence.AgentNotReady, presence.CalendarTentative, presence.CalendarAllDay, presence.CalendarElsewhere,
		presence.SessionAway, presence.ManualAway:
		return presence.Away.String()
	case presence.ManualBeRightBack:
		return presence.BeRightBack.String()
	case presence.SessionActive, presence.ManualAvailable:
		return presence.Available.String()
	case presence.SessionIdle:
		return "idle"
	case presence.CalendarOutOfOffice, presence.AutoReply, presence.ManualOutOfOffice:
		return presence.OutOfOffice.String()
	case presence.OffHours, presence.ManualOffWork:
		return presence.OffWork.String()
	case presence.ManualOffline:
		return presence.Offline.String()
	case presence.PhoneOutOfService, presence.Fault:
		return presence.OutOfOrder.String()
	default:
		return ""
	}
}

// iconOf gives the sign of the kind of source that states a fact.
func iconOf(f presence.Fact) string {
	switch {
	case presence.ManualFacts.Has(f):
		return "hand"
	case f <= presence.AgentAfterCall:
		return "phone-idle"
	case f <= presence.OffHours:
		return "cal-free"
	case f <= presence.Focusing:
		return "im-away"
	default:
		return "sources"
	}
}

// rankOf orders the bands by their signs.
func rankOf(icon string) int {
	return slices.Index([]string{"hand", "phone-idle", "cal-free", "im-away", "sources"}, icon)
}

func perCent(x float64) string { return strconv.FormatFloat(x, 'f', 2, 64) + "%" }
