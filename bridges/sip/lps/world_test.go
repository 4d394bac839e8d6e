package lps

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is when tests begin.
func epoch() time.Time { return time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC) }

// fataler is what testing.T and rapid.T share.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// An office is a Directory and a Gate: alice, bob and carol of example.test, what
// they do, and who may see what of them.
type office struct {
	states   map[presence.ID]presence.State
	access   map[string]presence.Access // "watcher person", else everything
	admitted map[string]int
	lists    map[string][]string
}

func newOffice() *office {
	o := &office{states: map[presence.ID]presence.State{}, access: map[string]presence.Access{}, admitted: map[string]int{}, lists: map[string][]string{}}
	for _, id := range []presence.ID{"alice", "bob", "carol"} {
		o.states[id] = stateOf(id, presence.Available, 1)
	}
	return o
}

func stateOf(id presence.ID, a presence.Availability, revision uint64) presence.State {
	return presence.State{Person: id, Availability: a, Class: a.Class(), Revision: revision, Since: epoch()}
}

func (o *office) Find(address string) (presence.ID, bool) {
	id := presence.ID(strings.TrimSuffix(address, "@example.test"))
	_, known := o.states[id]
	return id, known
}

func (o *office) State(id presence.ID) (presence.State, bool) { s, ok := o.states[id]; return s, ok }

func (o *office) Members(list string) ([]string, bool) { m, ok := o.lists[list]; return m, ok }

func (o *office) Access(w presence.Watcher, of presence.ID) presence.Access {
	if a, ok := o.access[w.Subject.Value+" "+string(of)]; ok {
		return a
	}
	return presence.Everyone()
}

func (o *office) Admit(w presence.Watcher, of presence.ID) presence.Access {
	o.admitted[w.Subject.Value+" "+string(of)]++
	return o.Access(w, of)
}

func (o *office) Dismiss(w presence.Watcher, of presence.ID) {
	delete(o.admitted, w.Subject.Value+" "+string(of))
}

// A scribe is an Encoder that writes short texts, and counts them.
type scribe struct{ presences int }

func (c *scribe) Presence(v *presence.State, address string) []byte {
	c.presences++
	text := address + " " + v.Availability.String()
	if v.Activity != presence.NoActivity {
		text += " " + v.Activity.String()
	}
	return []byte(text)
}

func (c *scribe) Partial(was, v *presence.State, address string, version uint32) []byte {
	if was == nil {
		return fmt.Appendf(nil, "%s v%d full %s", address, version, v.Availability)
	}
	return fmt.Appendf(nil, "%s v%d %s to %s", address, version, was.Availability, v.Availability)
}

func (c *scribe) Phone(v *presence.State, address string, version uint32) []byte {
	return fmt.Appendf(nil, "%s v%d %s", address, version, v.Channels[presence.Phone].State)
}

func (c *scribe) Watchers(watching []Watching, address string, version uint32) []byte {
	text := fmt.Sprintf("%s v%d", address, version)
	for _, w := range watching {
		text += " " + w.Watcher.Value
		if w.Pending {
			text += "?"
		}
	}
	return []byte(text)
}

func (c *scribe) List(resources []Listed, address string, version uint32, full bool) ([]byte, string) {
	text := fmt.Sprintf("%s v%d", address, version)
	if full {
		text += " full"
	}
	for _, r := range resources {
		text += " [" + string(r.Body)
		if r.Body == nil {
			text += r.Address + " unknown"
		}
		if r.Pending {
			text += " pending"
		}
		text += "]"
	}
	return []byte(text), typeParts
}

// A desk is a notifier in virtual time. What it sends is answered when the test says so.
type desk struct {
	t fataler
	*office
	*scribe
	*Subscriptions
	now  time.Time
	sent []Notify
	kept map[string]*Record
	next uint32
}

func limits() Limits {
	return Limits{Life: Life{time.Minute, time.Hour, 2 * time.Hour}, Gap: time.Second, Most: 1000, PerPeer: 100, PerList: 10}
}

func newDesk(t fataler) *desk {
	d := &desk{t: t, office: newOffice(), scribe: &scribe{}, now: epoch(), kept: map[string]*Record{}}
	d.Subscriptions = d.notifier(limits())
	return d
}

func (d *desk) notifier(l Limits) *Subscriptions {
	return NewSubscriptions("lps", l, d.office, d.office, d.scribe, func(dialog string, r *Record) {
		if r == nil {
			delete(d.kept, dialog)
			return
		}
		d.kept[dialog] = r
	})
}

// ask gives a SUBSCRIBE of bob for alice, as change changes it.
func ask(change ...func(*Subscribe)) *Subscribe {
	r := &Subscribe{
		Watcher: presence.Subject{Scheme: "sip", Value: "bob@example.test"}, Own: "bob@example.test", Entity: "alice@example.test",
		Call: "call", Tag: "theirs", CSeq: 1, Event: "presence", Expires: unsaid, New: true, Dialog: rand.Text(),
	}
	for _, c := range change {
		c(r)
	}
	return r
}

func from(watcher string) func(*Subscribe) {
	return func(r *Subscribe) {
		r.Own = watcher + "@example.test"
		r.Watcher.Value, r.Call = r.Own, "call of "+watcher
	}
}

func to(entity string) func(*Subscribe) {
	return func(r *Subscribe) { r.Entity = entity + "@example.test" }
}

func event(name string) func(*Subscribe) { return func(r *Subscribe) { r.Event = name } }

func expires(seconds int) func(*Subscribe) { return func(r *Subscribe) { r.Expires = seconds } }

func accept(types ...string) func(*Subscribe) { return func(r *Subscribe) { r.Accept = types } }

func eventlist(r *Subscribe) { r.Eventlist = true }

// in makes it a SUBSCRIBE in a dialog.
func (d *desk) in(dialog string) func(*Subscribe) {
	d.next++
	return func(r *Subscribe) { r.New, r.Dialog, r.CSeq = false, dialog, 1+d.next }
}

// subscribe takes a SUBSCRIBE and wants that answer; it gives the dialog.
func (d *desk) subscribe(code int, change ...func(*Subscribe)) string {
	d.t.Helper()
	var a Subscribed
	r := ask(change...)
	a, d.sent = d.Subscribe(r, d.now, d.sent)
	if a.Code != code {
		d.t.Fatalf("SUBSCRIBE got %d, want %d", a.Code, code)
	}
	return r.Dialog
}

// tell changes a person's state.
func (d *desk) tell(id presence.ID, a presence.Availability, change ...func(*presence.State)) {
	s := stateOf(id, a, d.states[id].Revision+1)
	for _, c := range change {
		c(&s)
	}
	d.states[id] = s
	d.sent = d.Subscriptions.State(s, d.now, d.sent)
}

// wait lets time pass.
func (d *desk) wait(long time.Duration) {
	end := d.now.Add(long)
	for next := d.Next(); !next.IsZero() && !next.After(end); next = d.Next() {
		if next.After(d.now) {
			d.now = next
		}
		d.sent = d.Advance(d.now, len(d.sent)+1000, d.sent)
	}
	d.now = end
}

// expect wants these NOTIFYs, "CSeq Subscription-State: body", and answers each.
func (d *desk) expect(code int, want ...string) {
	d.t.Helper()
	var got []string
	batch := d.sent
	d.sent = nil
	for _, n := range batch {
		got = append(got, fmt.Sprintf("%d %s: %s", n.CSeq, n.State, n.Document.Body))
	}
	if !slices.Equal(got, want) {
		d.t.Fatalf("sent\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	for _, n := range batch {
		if code != 0 {
			d.sent = d.Answered(n.Dialog, code, 0, d.now, d.sent)
		}
	}
}

// The access levels that the tests give.
func level(l presence.Level) presence.Access {
	return presence.Access{Level: l, Calendar: presence.CalendarOpen}
}
