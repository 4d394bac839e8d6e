package pidf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/presence"
)

// told gives spans as text: fact@clock-clock contact.
func told(spans []presence.Span) string {
	var out []string
	for _, s := range spans {
		text := s.Fact.String() + "@" + s.From.Format("15:04:05")
		if !s.Until.IsZero() {
			text += "-" + s.Until.Format("15:04:05")
		}
		if s.Contact != "" {
			text += " " + s.Contact
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// What each vendor sends is read, and becomes the facts that it means.
func TestVendors(t *testing.T) {
	for name, c := range map[string]struct{ entity, name, facts string }{
		"microsoft":    {"sip:ann@lync.test", "Ann Archer", "phone-connected@10:00:00, session-active@10:00:00"},
		"cisco-server": {"sip:ann@cisco.test", "Ann Archer", "session-idle@10:00:00 sip:ann@cisco.test, session-dnd@10:00:00 sip:ann@cisco.test"},
		"cisco-phone":  {"sip:4750@cisco.test", "", "phone-ringing@10:00:00 sip:4750@192.0.2.7:5060, phone-connected@10:00:00 sip:4750@192.0.2.7:5060, session-offline@10:00:00 sip:4750@192.0.2.7:5060"},
		"rpid-tuple":   {"sip:ann@old.test", "", "session-active@10:00:00, session-busy@10:00:00"},
		"baresip":      {"sip:bob@example.test", "", "session-active@10:00:00 sip:bob@example.test"},
		"linphone":     {"sip:bob@example.test", "", "session-active@09:30:00 sip:bob@example.test"},
		"device":       {"sip:ann@example.test", "", "session-idle@10:00:00"},
		"xpidf":        {"sip:ann@old.test", "", "phone-connected@10:00:00 sip:ann@192.0.2.9:5060;user=ip, session-active@10:00:00 sip:ann@192.0.2.9:5060;user=ip"},
	} {
		data, err := os.ReadFile(filepath.Join("testdata", "vendor", name+".xml"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := told(Facts(d, at("10:00:00"))); d.Entity != c.entity || d.Person.Name != c.name || got != c.facts {
			t.Errorf("%s: of %s, %q:\n got %s\nwant %s", name, d.Entity, d.Person.Name, got, c.facts)
		}
	}
}

func TestFacts(t *testing.T) {
	open, closed := Tuple{Basic: Open}, Tuple{Basic: Closed}
	tuple := func(b Basic, change func(*Tuple)) Tuple {
		t := Tuple{Basic: b}
		change(&t)
		return t
	}
	person := func(activities ...string) Person { return Person{Activities: activities} }
	for name, c := range map[string]struct {
		doc  Document
		want string
	}{
		"nothing":                       {Document{}, ""},
		"a tuple that says nothing":     {Document{Tuples: []Tuple{{}}}, ""},
		"open":                          {Document{Tuples: []Tuple{open}}, "session-active@10:00:00"},
		"closed":                        {Document{Tuples: []Tuple{closed}}, "session-offline@10:00:00"},
		"open after closed":             {Document{Tuples: []Tuple{closed, open}}, "session-active@10:00:00"},
		"in use before away":            {Document{Tuples: []Tuple{tuple(Open, func(t *Tuple) { t.Activities = []string{"away"} }), tuple(Open, func(t *Tuple) { t.Contact = "sip:b@x" })}}, "session-active@10:00:00 sip:b@x"},
		"idle before away":              {Document{Tuples: []Tuple{tuple(Open, func(t *Tuple) { t.Activities = []string{"away"} }), tuple(Open, func(t *Tuple) { t.Idle = true })}}, "session-idle@10:00:00"},
		"activities of the other tuple": {Document{Tuples: []Tuple{tuple(Closed, func(t *Tuple) { t.Activities = []string{"busy"} }), open}}, "session-active@10:00:00"},
		"busy":                          {Document{Tuples: []Tuple{open}, Person: person("busy")}, "session-active@10:00:00, session-busy@10:00:00"},
		"do not disturb":                {Document{Tuples: []Tuple{open}, Person: person("busy", "dnd")}, "session-active@10:00:00, session-busy@10:00:00, session-dnd@10:00:00"},
		"presenting":                    {Document{Tuples: []Tuple{open}, Person: person("presentation")}, "session-active@10:00:00, presenting@10:00:00"},
		"at lunch":                      {Document{Tuples: []Tuple{open}, Person: Person{Activities: []string{"lunch"}, Since: at("09:45:00")}}, "session-away@09:45:00"},
		"idle since":                    {Document{Tuples: []Tuple{open}, Person: Person{Idle: true, LastInput: at("09:40:12")}}, "session-idle@09:40:12"},
		"busy, but signed out":          {Document{Tuples: []Tuple{closed}, Person: person("busy", "dnd", "away")}, "session-offline@10:00:00"},
		"on the phone, but closed":      {Document{Tuples: []Tuple{tuple(Closed, func(t *Tuple) { t.Activities = []string{"on-the-phone", "busy"} })}}, "phone-connected@10:00:00, session-offline@10:00:00"},
		"a clock that was never set":    {Document{Tuples: []Tuple{tuple(Open, func(t *Tuple) { t.Timestamp = time.Unix(0, 0) })}}, "session-active@10:00:00"},
		"no tuple, but a person":        {Document{Person: person("busy")}, "session-active@10:00:00, session-busy@10:00:00"},
		"a meeting with an end":         {Document{Tuples: []Tuple{open}, Person: Person{Activities: []string{"meeting"}, Since: at("09:30:00"), Until: at("11:00:00")}}, "session-busy@09:30:00-11:00:00, session-active@10:00:00"},
		"a meeting that is over":        {Document{Tuples: []Tuple{open}, Person: Person{Activities: []string{"meeting"}, Until: at("10:00:00")}}, "session-active@10:00:00"},
		"a meeting to come":             {Document{Tuples: []Tuple{open}, Person: Person{Activities: []string{"meeting"}, Since: at("10:02:00")}}, "session-active@10:00:00"},
		"a fast clock":                  {Document{Tuples: []Tuple{tuple(Open, func(t *Tuple) { t.Timestamp = at("12:00:00") })}, Person: Person{Activities: []string{"busy"}, Since: at("10:00:59")}}, "session-active@10:00:00, session-busy@10:00:00"},
		"a contact that is none":        {Document{Tuples: []Tuple{tuple(Open, func(t *Tuple) { t.Contact = "call me" })}}, "session-active@10:00:00"},
		"a contact without end":         {Document{Tuples: []Tuple{tuple(Open, func(t *Tuple) { t.Contact = "sip:" + strings.Repeat("a", maxContact) })}}, "session-active@10:00:00"},
		"unknown":                       {Document{Tuples: []Tuple{closed}, Person: person("unknown")}, "session-offline@10:00:00"},
		"what nobody knows":             {Document{Tuples: []Tuple{open}, Person: person("fishing", "worship")}, "session-active@10:00:00"},
	} {
		if got := told(Facts(c.doc, at("10:00:00"))); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

// Our own documents, read by another presenced, mean what they meant.
func TestFactsOfOurs(t *testing.T) {
	for want, s := range map[presence.Availability]presence.State{
		presence.Available: state(presence.Available, presence.NoActivity), presence.Busy: onThePhone(), presence.Away: state(presence.Away, presence.NoActivity),
		presence.Offline: state(presence.Offline, presence.NoActivity), presence.DoNotDisturb: state(presence.DoNotDisturb, presence.NoActivity),
	} {
		d, err := Parse(Append(nil, s, entity, Options{Cisco: true}))
		if err != nil {
			t.Fatal(err)
		}
		now := at("10:30:00")
		r := presence.Report{Source: "sip", Subject: presence.Subject{Scheme: "sip", Value: "x"}, At: now, Spans: Facts(d, now)}
		if got, _ := presence.DefaultPolicy().Decide("x", []presence.Report{r}, now.Add(time.Second)); got.Availability != want {
			t.Errorf("%s is read as %s: %s", want, got.Availability, told(r.Spans))
		}
	}
}
