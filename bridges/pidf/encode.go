package pidf

import (
	"slices"
	"time"

	"presenced/internal/xmltext"
)

const (
	declaration = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"
	namespace   = ` xmlns="urn:ietf:params:xml:ns:pidf"`
	namespaces  = namespace + ` xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"` + ` xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid"`
)

// Append appends d to dst, as a complete XML document in UTF-8. Elements stand in
// the order that the schemas demand. Characters that XML cannot carry become
// U+FFFD.
func (d *Document) Append(dst []byte) []byte {
	w := writer{dst, d.Plain}
	w.Raw(declaration + "<presence")
	if d.Plain {
		w.Raw(namespace)
	} else {
		w.Raw(namespaces)
	}
	w.Attribute("entity", d.Entity)
	w.Raw(">")
	w.content(d)
	w.Raw("</presence>\n")
	return w.Writer
}

type writer struct {
	xmltext.Writer
	plain bool
}

func (w *writer) content(d *Document) {
	for i := range d.Tuples {
		w.Raw("\n")
		w.tuple(&d.Tuples[i])
	}
	w.notes("note", d.Notes)
	if d.Person.said() && !w.plain {
		w.Raw("\n")
		w.person(&d.Person)
	}
}

func (w *writer) time(name string, t time.Time) {
	if t.IsZero() {
		return
	}
	w.Raw("<")
	w.Raw(name)
	w.Raw(">")
	w.Time(t)
	w.Raw("</")
	w.Raw(name)
	w.Raw(">")
}

func (w *writer) moment(name string, t time.Time) {
	if t.IsZero() {
		return
	}
	w.Raw(" ")
	w.Raw(name)
	w.Raw(`="`)
	w.Time(t)
	w.Raw(`"`)
}

func (w *writer) notes(name string, notes []string) {
	for _, n := range notes {
		w.Raw("<")
		w.Raw(name)
		w.Raw(` xml:lang="en">`)
		w.Text(n)
		w.Raw("</")
		w.Raw(name)
		w.Raw(">")
	}
}

// tuple writes in the order of RFC 3863: status, extensions, contact, notes, timestamp.
func (w *writer) tuple(t *Tuple) {
	w.Raw("<tuple")
	w.Attribute("id", t.ID)
	w.Raw("><status>")
	w.Element("basic", string(t.Basic))
	if len(t.Activities) > 0 && !w.plain {
		w.Raw(`<ep:activities xmlns:ep="urn:ietf:params:xml:ns:pidf:status:rpid-status">`)
		for _, a := range t.Activities {
			w.Element("ep:activity", a)
		}
		w.Raw("</ep:activities>")
	}
	w.Raw("</status>")
	if !w.plain {
		w.Element("rpid:class", t.Class)
		if t.Idle {
			w.Raw("<rpid:user-input>idle</rpid:user-input>")
		}
	}
	if t.Contact != "" {
		w.Raw("<contact")
		if t.Priority != "" {
			w.Attribute("priority", t.Priority)
		}
		w.Raw(">")
		w.Text(t.Contact)
		w.Raw("</contact>")
	}
	w.notes("note", t.Notes)
	w.time("timestamp", t.Timestamp)
	w.Raw("</tuple>")
}

// person writes in the order of RFC 4479: extensions, notes, timestamp.
func (w *writer) person(p *Person) {
	w.Raw("<dm:person")
	w.Attribute("id", p.ID)
	w.Raw(">")
	if len(p.Activities) > 0 {
		w.Raw("<rpid:activities")
		w.moment("from", p.Since)
		w.moment("until", p.Until)
		w.Raw(">")
		for _, a := range p.Activities {
			if known(a) {
				w.Raw("<rpid:")
				w.Raw(a)
				w.Raw("/>")
			} else { // RFC 4480 section 3.2: what has no element of its own
				w.Element("rpid:other", a)
			}
		}
		w.Raw("</rpid:activities>")
	}
	if len(p.Cisco) > 0 {
		w.Raw(`<e:activities xmlns:e="urn:ietf:params:xml:ns:pidf:status:rpid" xmlns:ce="urn:cisco:params:xml:ns:pidf:rpid">`)
		for _, a := range p.Cisco {
			prefix := "<ce:"
			if known(a) {
				prefix = "<e:"
			}
			w.Raw(prefix)
			w.Raw(a)
			w.Raw("/>")
		}
		w.Raw("</e:activities>")
	}
	if p.Idle {
		w.Raw("<rpid:user-input")
		w.moment("last-input", p.LastInput)
		w.Raw(">idle</rpid:user-input>")
	}
	if p.Name != "" {
		w.Raw(`<ci:display-name xmlns:ci="urn:ietf:params:xml:ns:pidf:cipid">`)
		w.Text(p.Name)
		w.Raw("</ci:display-name>")
	}
	w.notes("dm:note", p.Notes)
	w.time("dm:timestamp", p.Timestamp)
	w.Raw("</dm:person>")
}

// known tells whether RPID has an element for the activity.
func known(activity string) bool { return slices.Contains(rpid[:], activity) }

//nolint:gochecknoglobals // a table, never changed
var rpid = [...]string{
	"on-the-phone", "busy", "meeting", "away", "appointment", "unknown", "presentation", "vacation", "breakfast", "dinner", "holiday",
	"in-transit", "looking-for-work", "lunch", "meal", "performance", "permanent-absence", "playing", "shopping", "sleeping", "spectator",
	"steering", "travel", "tv", "working", "worship",
}
