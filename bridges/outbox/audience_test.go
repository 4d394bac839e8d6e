package outbox_test

import (
	"context"
	"iter"
	"slices"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/outbox"
)

// office is a hub and a gate.
type office struct {
	people   map[string]presence.Person
	sees     map[presence.ID]presence.Access
	admitted []presence.ID
}

func (*office) Watch(context.Context, ...presence.ID) iter.Seq[presence.State] { return nil }
func (*office) Report(context.Context, presence.Report) error                  { return nil }

func (o *office) Person(s presence.Subject) (presence.Person, bool) {
	p, ok := o.people[s.Value]
	return p, ok && s.Scheme == "id"
}

func (o *office) Admit(w presence.Watcher, of presence.ID) presence.Access {
	if w.Subject.String() != "webhook:crm" || w.Via != "crm" {
		return presence.Access{}
	}
	o.Dismiss(w, of)
	o.admitted = append(o.admitted, of)
	return o.sees[of]
}

func (o *office) Dismiss(_ presence.Watcher, of presence.ID) {
	o.admitted = slices.DeleteFunc(o.admitted, func(id presence.ID) bool { return id == of })
}

func (o *office) Access(_ presence.Watcher, of presence.ID) presence.Access { return o.sees[of] }

func TestAudience(t *testing.T) {
	o := &office{
		people: map[string]presence.Person{
			"ann": {ID: "ann", Name: "Ann", Groups: []string{"sales"}}, "bob": {ID: "bob", Name: "Bob"}, "cat": {ID: "cat"}, "dan": {ID: "dan"},
		},
		sees: map[presence.ID]presence.Access{"ann": presence.Everyone(), "bob": {Level: presence.LevelStatus}, "dan": presence.Everyone()},
	}
	a := outbox.NewAudience([]string{"group:sales", "bob", "cat"}, o, "webhook", "crm")
	since := time.Date(2026, 11, 20, 10, 5, 0, 0, time.FixedZone("CET", 3600))
	state := func(id presence.ID) presence.State {
		s := presence.State{Person: id, Availability: presence.Busy, Activity: presence.ActivityPhone, Class: 6500, Overlays: presence.OverlayPrivate, Since: since}
		s.Channels[presence.Phone] = presence.Channel{State: presence.ChannelInUse, Contact: "tel:21042", Since: since}
		return s
	}
	for id, want := range map[presence.ID]string{
		"ann": `{"version":1,"person":"ann","name":"Ann","state":"busy","activity":"on-the-phone","text":"On the phone","since":"2026-11-20T09:05:00Z",` +
			`"channels":{"phone":{"state":"in-use","contact":"tel:21042","since":"2026-11-20T09:05:00Z"}}}`,
		"bob": `{"version":1,"person":"bob","name":"Bob","state":"busy","text":"Busy"}`,
		"cat": "", "dan": "", "eve": "",
	} {
		if got := string(a.Document(o, state(id))); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", id, got, want)
		}
		if got := a.Has(o, id); got != (want != "") {
			t.Errorf("%s: has %v", id, got)
		}
	}
	slices.Sort(o.admitted)
	if !slices.Equal(o.admitted, []presence.ID{"ann", "bob", "cat"}) {
		t.Errorf("watched: %q", o.admitted)
	}
	left := state("ann")
	left.Why.Rule = presence.RuleRemoved
	if a.Document(o, left) != nil || slices.Contains(o.admitted, "ann") {
		t.Errorf("somebody who left is shown, or watched: %q", o.admitted)
	}
	if a.Close(); len(o.admitted) != 0 {
		t.Errorf("watched after the end: %q", o.admitted)
	}
}

func TestCheckPeople(t *testing.T) {
	for text, wrong := range map[string]bool{"ann": false, "group:sales": false, "group:": true, " ": true} {
		if ps := outbox.CheckPeople("people", []string{text}); (len(ps) > 0) != wrong {
			t.Errorf("%q: %v", text, ps)
		}
	}
}
