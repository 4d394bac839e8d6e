package pidf

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

var (
	operations = regexp.MustCompile(`(?s)<p:(add|replace|remove) sel="([^"]*)"(?: pos="([^"]*)")?(?:/>|>(.*?)</p:(?:add|replace)>)`)
	tuples     = regexp.MustCompile(`(?s)<tuple id="([^"]*)".*?</tuple>`)
	persons    = regexp.MustCompile(`(?s)<dm:person.*?</dm:person>`)
	selected   = regexp.MustCompile(`^\*/tuple\[@id='([^']*)'\]$`)
)

// parts gives the tuples of a document, then its person.
func parts(doc []byte) []string {
	return append(tuples.FindAllString(string(doc), -1), persons.FindAllString(string(doc), -1)...)
}

// apply does to a document what a diff says, as RFC 5261 has it.
func apply(t *rapid.T, doc, diff []byte) []string {
	now := parts(doc)
	for _, op := range operations.FindAllStringSubmatch(string(diff), -1) {
		action, selector, pos, part := op[1], op[2], op[3], op[4]
		at := -1
		switch id := selected.FindStringSubmatch(selector); {
		case selector == "*":
		case selector == "*/dm:person":
			at = slices.IndexFunc(now, persons.MatchString)
		case id != nil:
			at = slices.IndexFunc(now, func(p string) bool { return strings.HasPrefix(p, `<tuple id="`+id[1]+`"`) })
		}
		switch {
		case action == "add" && selector == "*" && pos == "prepend":
			now = slices.Insert(now, 0, part)
		case action == "add" && selector == "*" && pos == "":
			now = append(now, part)
		case at < 0:
			t.Fatalf("%s selects nothing in %q", selector, now)
		case action == "add" && pos == "after":
			now = slices.Insert(now, at+1, part)
		case action == "replace":
			now[at] = part
		case action == "remove":
			now = slices.Delete(now, at, at+1)
		default:
			t.Fatalf("a strange operation: %q", op[0])
		}
	}
	return now
}

func anyState(t *rapid.T, name string) presence.State {
	s := onThePhone()
	s.Availability = presence.Availability(rapid.IntRange(0, int(presence.Available)).Draw(t, name+" availability"))
	s.Activity = presence.Activity(rapid.IntRange(0, int(presence.ActivityRinging)).Draw(t, name+" activity"))
	for i := range s.Channels {
		s.Channels[i].State = presence.ChannelState(rapid.IntRange(0, int(presence.ChannelOutOfOffice)).Draw(t, name+" channel"))
		s.Channels[i].Contact = fmt.Sprintf("im:%d", i)
	}
	return s
}

// A diff applied to the old document gives the new one, and is never longer than it.
func TestDiffProperty(t *testing.T) {
	diffs := 0
	rapid.Check(t, func(t *rapid.T) {
		options := Options{Name: rapid.SampledFrom([]string{"", "Ann"}).Draw(t, "name"), Plain: rapid.IntRange(0, 9).Draw(t, "plain") == 0}
		old := FromState(anyState(t, "old"), entity, options)
		now := FromState(anyState(t, "new"), entity, options)
		full := now.AppendFull(nil, 7)
		got, short := now.AppendDiff([]byte("before"), &old, 7)
		got = got[len("before"):]
		if len(got) > len(full) {
			t.Fatalf("a diff of %d bytes, the document has %d", len(got), len(full))
		}
		if !short {
			if string(got) != string(full) {
				t.Fatalf("neither diff nor document: %s", got)
			}
			return
		}
		diffs++
		if diff := cmp.Diff(parts(now.Append(nil)), apply(t, old.Append(nil), got)); diff != "" {
			t.Fatalf("(-want +patched):\n%s\n%s", diff, got)
		}
	})
	if diffs == 0 {
		t.Error("every diff was longer than its document")
	}
}

// What a selector cannot name, or the operations cannot say, is sent in full.
func TestDiffRefuses(t *testing.T) {
	a, b := Tuple{ID: "a"}, Tuple{ID: "b"}
	old := Document{Entity: entity, Tuples: []Tuple{a, b}}
	for name, now := range map[string]Document{
		"another person": {Entity: "sip:x@y", Tuples: []Tuple{a, b}}, "another order": {Entity: entity, Tuples: []Tuple{b, a}},
		"a note": {Entity: entity, Tuples: []Tuple{a, b}, Notes: []string{"n"}}, "a quote in an id": {Entity: entity, Tuples: []Tuple{a, b, {ID: "'"}}},
		"one id twice": {Entity: entity, Tuples: []Tuple{a, b, b}}, "a longer diff": {Entity: entity, Tuples: []Tuple{{ID: "c"}}},
	} {
		if doc, short := now.AppendDiff(nil, &old, 1); short {
			t.Errorf("%s: %s", name, doc)
		}
	}
}

func TestDiffSchema(t *testing.T) {
	busy, free := onThePhone(), state(presence.Available, presence.NoActivity)
	named := Options{Name: "Ann"}
	was, is, then := FromState(busy, entity, named), FromState(free, entity, Options{}), FromState(busy, entity, named)
	then.Tuples[1].Basic = Closed
	documents := map[string][]byte{"full": was.AppendFull(nil, 0)}
	for name, c := range map[string][2]*Document{"removed": {&is, &was}, "added": {&was, &is}, "replaced": {&then, &was}, "the same": {&was, &was}} {
		documents[name], _ = c[0].AppendDiff(nil, c[1], 1)
	}
	validate(t, "pidf-diff.xsd", documents)
	if !strings.Contains(string(documents["replaced"]), `<p:replace sel="*/tuple[@id='presenced-phone']"><tuple id="presenced-phone">`) {
		t.Errorf("%s", documents["replaced"])
	}
}

// A document holds nothing that the view it is of does not: no time, contact,
// channel or activity beyond it.
func TestDocumentHoldsOnlyTheView(t *testing.T) {
	moment := regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:]+Z`)
	rapid.Check(t, func(t *rapid.T) {
		s := anyState(t, "state")
		s.Until = at("13:13:13")
		s.Why = presence.Reason{Rule: "private-rule", Title: "private title", Source: "private-source", Fact: presence.CalendarMeeting.String(), From: at("08:08:08")}
		access := presence.Access{
			Level:    presence.Level(rapid.IntRange(0, int(presence.LevelFull)).Draw(t, "level")),
			Calendar: presence.CalendarPrivacy(rapid.IntRange(0, int(presence.CalendarOpen)).Draw(t, "calendar")),
			Urgent:   rapid.Bool().Draw(t, "urgent"), Unknown: rapid.Bool().Draw(t, "unknown"),
		}
		v := presence.View(s, access)
		doc := string(Append(nil, v, entity, Options{OldActivities: true, Cisco: true}))
		if strings.Contains(doc, "private") {
			t.Fatalf("a reason is told: %s", doc)
		}
		d, err := Parse([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		times := []string{whole(v.Since).Format("2006-01-02T15:04:05Z"), whole(v.Until).Format("2006-01-02T15:04:05Z")}
		contacts, ids := []string{"", entity}, []string{overallID}
		for i, c := range v.Channels {
			if c.State == presence.ChannelUnknown {
				continue
			}
			times, contacts, ids = append(times, c.Since.Format("2006-01-02T15:04:05Z")), append(contacts, c.Contact), append(ids, channelIDs[i])
		}
		for _, m := range moment.FindAllString(doc, -1) {
			if !slices.Contains(times, m) {
				t.Fatalf("at %s it tells the time %s: %s", access.Level, m, doc)
			}
		}
		var notes []string
		for _, tuple := range d.Tuples {
			if !slices.Contains(contacts, tuple.Contact) || !slices.Contains(ids, tuple.ID) {
				t.Fatalf("at %s it tells of %s %s: %s", access.Level, tuple.ID, tuple.Contact, doc)
			}
			if tuple.ID == channelIDs[presence.Calendar] && tuple.Contact != "" {
				t.Fatalf("the place of an entry is told: %s", doc)
			}
			notes = append(notes, tuple.Notes...)
		}
		if text := v.Text(); len(notes) > 1 || len(notes) == 1 && notes[0] != text {
			t.Fatalf("at %s it notes %q, not %q", access.Level, notes, text)
		}
		if access.Level < presence.LevelTelephony && (len(d.Tuples) != 1 || strings.Contains(doc, "2026")) {
			t.Fatalf("a blocked watcher reads %s", doc)
		}
		if access.Level == presence.LevelStatus && strings.Contains(doc, "2026") {
			t.Fatalf("a watcher of the status reads %s", doc)
		}
		calendar := slices.ContainsFunc(d.Tuples, func(t Tuple) bool { return t.ID == channelIDs[presence.Calendar] })
		if calendar && (access.Level != presence.LevelFull || access.Calendar == presence.CalendarHidden) {
			t.Fatalf("the calendar shows at %s, %s", access.Level, access.Calendar)
		}
		told := slices.ContainsFunc(d.Activities(), func(a string) bool { return a == "meeting" || a == "appointment" || a == "vacation" })
		if told && (access.Level != presence.LevelFull || access.Calendar != presence.CalendarOpen) {
			t.Fatalf("%q at %s, %s", d.Activities(), access.Level, access.Calendar)
		}
	})
}
