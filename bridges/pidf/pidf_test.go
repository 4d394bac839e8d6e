package pidf

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
	"presenced/fixtures/peers"
)

var update = flag.Bool("update", false, "write the golden files anew")

func at(clock string) time.Time {
	t, err := time.Parse(time.DateTime, "2026-11-20 "+clock)
	if err != nil {
		panic(err)
	}
	return t
}

const entity = "sip:4750@example.test"

func state(a presence.Availability, act presence.Activity) presence.State {
	return presence.State{Person: "ann", Availability: a, Activity: act, Class: a.Class(), Since: at("10:05:00")}
}

// onThePhone is a call during a meeting.
func onThePhone() presence.State {
	s := state(presence.Busy, presence.ActivityPhone)
	s.Channels[presence.Phone] = presence.Channel{State: presence.ChannelInUse, Contact: "tel:4750", Since: at("10:05:00")}
	s.Channels[presence.Calendar] = presence.Channel{State: presence.ChannelMeeting, Contact: "secret place", Since: at("10:00:00"), Until: at("11:00:00")}
	return s
}

func TestGolden(t *testing.T) {
	away := state(presence.Away, presence.NoActivity)
	away.Channels[presence.Messaging] = presence.Channel{State: presence.ChannelAway, Since: at("09:40:12")}
	meeting := state(presence.Busy, presence.ActivityMeeting)
	meeting.Until = at("11:00:00")
	ringing := onThePhone()
	ringing.Channels[presence.Phone].State = presence.ChannelInUseRinging
	hostile := onThePhone()
	hostile.Channels[presence.Phone].Contact = `tel:"><x/>&`
	for name, c := range map[string]struct {
		state   presence.State
		entity  string
		options Options
	}{
		"on-the-phone":        {onThePhone(), entity, Options{}},
		"on-the-phone-closed": {onThePhone(), entity, Options{Busy: Closed, OldActivities: true}},
		"available":           {state(presence.Available, presence.NoActivity), entity, Options{}},
		"away":                {away, entity, Options{}},
		"dnd-presenting":      {state(presence.DoNotDisturb, presence.ActivityPresenting), entity, Options{}},
		"out-of-office":       {state(presence.OutOfOffice, presence.ActivityOutOfOffice), entity, Options{}},
		"off-work":            {state(presence.OffWork, presence.NoActivity), entity, Options{}},
		"unknown":             {presence.State{Person: "ann"}, entity, Options{}},
		"blocked":             {presence.View(onThePhone(), presence.Access{}), entity, Options{}},
		"plain":               {onThePhone(), entity, Options{Plain: true, Cisco: true, OldActivities: true, Name: "Ann Archer"}},
		"cisco":               {state(presence.DoNotDisturb, presence.NoActivity), entity, Options{Cisco: true}},
		"cisco-ringing":       {ringing, entity, Options{Cisco: true}},
		"meeting-until":       {meeting, entity, Options{Name: "Ann <Archer>"}},
		"hostile":             {hostile, "sip:\"><presence>&\x01@example.test", Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Append(nil, c.state, c.entity, c.options)
			file := filepath.Join("testdata", "golden", name+".xml")
			if *update {
				if err := os.WriteFile(file, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("document (-want +got), go test -update writes it anew:\n%s", diff)
			}
			if bytes.Contains(got, []byte("secret")) {
				t.Error("the place of a meeting is in the document")
			}
			ordered(t, got)
		})
	}
}

// validate checks documents against a schema with xmllint.
func validate(t *testing.T, schema string, documents map[string][]byte) {
	t.Helper()
	xmllint := peers.Find(t, "xmllint")
	dir := t.TempDir()
	args := []string{"--noout", "--nonet", "--schema", filepath.Join("testdata", "schema", schema)}
	for name, doc := range documents {
		file := filepath.Join(dir, name+".xml")
		if err := os.WriteFile(file, doc, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	if out, err := exec.CommandContext(t.Context(), xmllint, args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%.2000s", err, out)
	}
}

// Every state is a document that the schemas allow.
func TestSchema(t *testing.T) {
	documents := map[string][]byte{}
	for availability := range presence.Availabilities() {
		for activity := presence.NoActivity; activity <= presence.ActivityRinging; activity++ {
			s := onThePhone()
			s.Availability, s.Activity, s.Until = availability, activity, at("12:00:00")
			s.Channels[presence.Messaging] = presence.Channel{State: presence.ChannelInactive, Since: at("09:00:00")}
			o := Options{OldActivities: activity%2 == 0, Cisco: activity%3 == 0, Plain: activity%5 == 1, Name: "Ann"}
			documents[fmt.Sprintf("%s-%d", availability, activity)] = Append(nil, s, entity, o)
		}
	}
	validate(t, "pidf.xsd", documents)
}

// ordered checks the order of elements that RFC 3863 and 4479 demand.
func ordered(t *testing.T, doc []byte) {
	t.Helper()
	rank := map[string][]string{
		"presence": {"tuple", "note", "person"},
		"tuple":    {"status", "activities", "class", "contact", "note", "timestamp"},
		"person":   {"activities", "user-input", "display-name", "note", "timestamp"},
	}
	d := xml.NewDecoder(bytes.NewReader(doc))
	var path []string
	last := map[int]int{}
	for {
		token, err := d.Token()
		if err != nil {
			if len(path) != 0 {
				t.Errorf("not well-formed: %v", err)
			}
			return
		}
		switch e := token.(type) {
		case xml.StartElement:
			if len(path) > 0 {
				if order, ok := rank[path[len(path)-1]]; ok {
					n := slices.Index(order, e.Name.Local)
					if n < last[len(path)] {
						t.Errorf("%s stands at the wrong place in %s", e.Name.Local, path[len(path)-1])
					}
					last[len(path)] = n
				}
			}
			path = append(path, e.Name.Local)
			last[len(path)] = 0
		case xml.EndElement:
			path = path[:len(path)-1]
		}
	}
}

func TestMapping(t *testing.T) {
	for _, c := range []struct {
		availability presence.Availability
		activity     presence.Activity
		basic        Basic
		want         []string
	}{
		{presence.Available, presence.NoActivity, Open, nil},
		{presence.Available, presence.ActivityIdle, Open, nil},
		{presence.Available, presence.ActivityElsewhere, Open, nil},
		{presence.Busy, presence.ActivityPhone, Open, []string{"on-the-phone"}},
		{presence.Busy, presence.ActivityConference, Open, []string{"on-the-phone"}},
		{presence.Busy, presence.ActivityHold, Open, []string{"on-the-phone"}},
		{presence.Busy, presence.ActivityMeeting, Open, []string{"meeting"}},
		{presence.Busy, presence.ActivityAppointment, Open, []string{"appointment"}},
		{presence.Busy, presence.NoActivity, Open, []string{"busy"}},
		{presence.DoNotDisturb, presence.NoActivity, Open, []string{"busy"}},
		{presence.BeRightBack, presence.NoActivity, Open, []string{"away"}},
		{presence.Away, presence.NoActivity, Open, []string{"away"}},
		{presence.OutOfOffice, presence.ActivityVacation, Open, []string{"vacation"}},
		{presence.OffWork, presence.NoActivity, Closed, nil},
		{presence.Offline, presence.NoActivity, Closed, nil},
		{presence.Unavailable, presence.NoActivity, Closed, nil},
		{presence.OutOfOrder, presence.NoActivity, Closed, nil},
		{presence.Unknown, presence.NoActivity, Closed, []string{"unknown"}},
	} {
		d, err := Parse(Append(nil, state(c.availability, c.activity), entity, Options{}))
		if err != nil {
			t.Fatal(err)
		}
		if d.Basic() != c.basic || !slices.Equal(d.Activities(), c.want) {
			t.Errorf("%s %s is %s %q, want %s %q", c.availability, c.activity, d.Basic(), d.Activities(), c.basic, c.want)
		}
	}
}

// Equal knowledge is equal bytes: what the document does not tell does not change it.
func TestDeterministic(t *testing.T) {
	a, b := onThePhone(), onThePhone()
	b.Revision, b.Why.Source = 99, "other"
	b.Since = b.Since.In(time.FixedZone("", 3600)).Add(500 * time.Millisecond)
	b.Overlays = presence.OverlayStale | presence.OverlayPrivate
	if diff := cmp.Diff(string(Append(nil, a, entity, Options{})), string(Append(nil, b, entity, Options{}))); diff != "" {
		t.Errorf("two documents of one state:\n%s", diff)
	}
}

func TestRoundTrip(t *testing.T) {
	text := rapid.Custom(func(t *rapid.T) string {
		return strings.TrimSpace(rapid.StringN(1, 40, 200).Filter(func(s string) bool {
			return strings.TrimSpace(s) == s && strings.IndexFunc(s, func(r rune) bool {
				return r < ' ' || r >= 0xFFFD || r == 0xFEFF || r >= 0xD800 && r < 0xE000
			}) < 0
		}).Draw(t, "text"))
	})
	moments := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "seconds"), 0).UTC()
	})
	activities := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"busy", "away", "meeting", "on-the-phone", "unknown", "fishing"}), 0, 4, rapid.ID)
	tuple := rapid.Custom(func(t *rapid.T) Tuple {
		tuple := Tuple{
			ID: text.Draw(t, "id"), Idle: rapid.Bool().Draw(t, "idle"), Basic: rapid.SampledFrom([]Basic{"", Open, Closed}).Draw(t, "basic"),
			Activities: activities.Draw(t, "activities"), Class: text.Draw(t, "class"),
			Notes: rapid.SliceOfN(text, 0, 3).Draw(t, "notes"), Timestamp: moments.Draw(t, "timestamp"),
		}
		if rapid.Bool().Draw(t, "contact") {
			tuple.Contact, tuple.Priority = text.Draw(t, "contact"), rapid.SampledFrom([]string{"", "0", "0.25", "1"}).Draw(t, "priority")
		}
		return tuple
	})
	rapid.Check(t, func(t *rapid.T) {
		want := Document{
			Entity: text.Draw(t, "entity"), Tuples: rapid.SliceOfN(tuple, 0, 4).Draw(t, "tuples"),
			Notes:  rapid.SliceOfN(text, 0, 3).Draw(t, "notes"),
			Person: Person{ID: text.Draw(t, "person"), Activities: activities.Draw(t, "activities"), Idle: true, LastInput: moments.Draw(t, "input"), Name: text.Draw(t, "name"), Timestamp: moments.Draw(t, "time")},
		}
		if len(want.Person.Activities) > 0 {
			want.Person.Since, want.Person.Until = moments.Draw(t, "since"), moments.Draw(t, "until")
		}
		data := want.Append(nil)
		got, err := Parse(data)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-written +read):\n%s\n%s", diff, data)
		}
	})
}

func TestParseForms(t *testing.T) {
	for name, c := range map[string]struct {
		doc        string
		basic      Basic
		activities []string
	}{
		"Microsoft": {`<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:ep="urn:ietf:params:xml:ns:pidf:status:rpid-status" entity="sip:j@x">
			<tuple id="0"><status><basic>open</basic><ep:activities><ep:activity>on-the-phone</ep:activity></ep:activities></status></tuple>
			</presence>`, Open, []string{"on-the-phone"}},
		"Cisco phone": {`<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"
			xmlns:e="urn:ietf:params:xml:ns:pidf:status:rpid" xmlns:ce="urn:cisco:params:xml:ns:pidf:rpid">
			<dm:person><e:activities><e:on-the-phone/><ce:dnd/></e:activities></dm:person>
			<tuple id="a"><status><basic>closed</basic></status></tuple></presence>`, Closed, []string{"on-the-phone", "dnd"}},
		"Cisco server, out of order": {`<presence xmlns="urn:ietf:params:xml:ns:pidf"><person xmlns="urn:cisco:params:xml:ns:pidf:rpid" id="u">
			<activities><available/></activities></person><tuple id="t"><contact priority="0.6">sip:u@x</contact>
			<user-input>idle</user-input><status><basic>open</basic></status></tuple></presence>`, Open, []string{"available"}},
		"other and note": {`<presence xmlns:r="urn:ietf:params:xml:ns:pidf:rpid"><person><r:activities><r:note>no activity</r:note>
			<r:other>Fishing</r:other><r:busy/></r:activities></person></presence>`, Closed, []string{"fishing", "busy"}},
		"nothing": {`<presence/>`, Closed, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse([]byte(c.doc))
			if err != nil {
				t.Fatal(err)
			}
			if d.Basic() != c.basic || !slices.Equal(d.Activities(), c.activities) {
				t.Errorf("read %s %q, want %s %q", d.Basic(), d.Activities(), c.basic, c.activities)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"empty":           "",
		"text":            "presence",
		"another root":    "<absence/>",
		"cut off":         "<presence><tuple id='a'>",
		"second document": "<presence/><presence/>",
		"entity":          `<!DOCTYPE p [<!ENTITY a "aaaa">]><presence><note>&a;</note></presence>`,
		"too deep":        "<presence>" + strings.Repeat("<a>", MaxDepth) + strings.Repeat("</a>", MaxDepth) + "</presence>",
		"too large":       "<presence>" + strings.Repeat(" ", MaxSize) + "</presence>",
	} {
		if d, err := Parse([]byte(doc)); err == nil {
			t.Errorf("%s: read as %+v", name, d)
		}
	}
	many, err := Parse([]byte("<presence>" + strings.Repeat("<tuple id='a'/><note>n</note>", 500) + "</presence>"))
	if err != nil || len(many.Tuples) != MaxItems || len(many.Notes) != MaxItems {
		t.Errorf("%d tuples and %d notes, %v", len(many.Tuples), len(many.Notes), err)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.xml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`<presence><person><activities from="x"><activity>a</activity></activities></person></presence>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(d.Append(nil))
		if err != nil {
			if len(d.Append(nil)) > MaxSize {
				return // escapes made it longer
			}
			t.Fatalf("what was read cannot be written and read: %v", err)
		}
		if len(again.Tuples) != len(d.Tuples) || again.Basic() != d.Basic() {
			t.Fatalf("read %+v, then %+v", d, again)
		}
		report := presence.Report{Source: "sip", Subject: presence.Subject{Scheme: "sip", Value: "x"}, At: at("10:00:00"), Spans: Facts(d, at("10:00:00"))}
		if err := report.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	s := onThePhone()
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = Append(dst[:0], s, entity, Options{})
	}
}

func BenchmarkParse(b *testing.B) {
	data, err := os.ReadFile("testdata/vendor/linphone.xml")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}
