package pidf

import (
	"bytes"
	"encoding/xml"
	"time"
	"unicode/utf8"
)

// Append appends d to dst, as a complete XML document in UTF-8. Elements stand in
// the order that the schemas demand. Characters that XML cannot carry become
// U+FFFD.
func (d *Document) Append(dst []byte) []byte {
	w := writer{dst}
	w.raw(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<presence xmlns="urn:ietf:params:xml:ns:pidf"` +
		` xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"` +
		` xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid"`)
	w.attribute("entity", d.Entity)
	w.raw(">")
	for i := range d.Tuples {
		w.tuple(&d.Tuples[i])
	}
	w.notes("note", d.Notes)
	if d.Person.said() {
		w.person(&d.Person)
	}
	w.raw("</presence>\n")
	return w.b
}

type writer struct{ b []byte }

func (w *writer) raw(s string) { w.b = append(w.b, s...) }

func (w *writer) text(s string) {
	if !utf8.ValidString(s) || needsEscape(s) {
		var buf bytes.Buffer
		_ = xml.EscapeText(&buf, []byte(s)) // a bytes.Buffer does not fail
		w.b = append(w.b, buf.Bytes()...)
		return
	}
	w.raw(s)
}

func needsEscape(s string) bool {
	for _, r := range s {
		if r < ' ' || r == '<' || r == '>' || r == '&' || r == '"' || r == '\'' || r >= 0xD800 {
			return true
		}
	}
	return false
}

func (w *writer) attribute(name, value string) {
	w.raw(" " + name + `="`)
	w.text(value)
	w.raw(`"`)
}

func (w *writer) element(name, value string) {
	if value == "" {
		return
	}
	w.raw("<" + name + ">")
	w.text(value)
	w.raw("</" + name + ">")
}

func (w *writer) time(name string, t time.Time) {
	if !t.IsZero() {
		w.element(name, t.UTC().Format(time.RFC3339))
	}
}

func (w *writer) notes(name string, notes []string) {
	for _, n := range notes {
		w.raw("<" + name + ` xml:lang="en">`)
		w.text(n)
		w.raw("</" + name + ">")
	}
}

// tuple writes in the order of RFC 3863: status, extensions, contact, notes, timestamp.
func (w *writer) tuple(t *Tuple) {
	w.raw("\n<tuple")
	w.attribute("id", t.ID)
	w.raw("><status>")
	w.element("basic", string(t.Basic))
	if len(t.Activities) > 0 {
		w.raw(`<ep:activities xmlns:ep="urn:ietf:params:xml:ns:pidf:status:rpid-status">`)
		for _, a := range t.Activities {
			w.element("ep:activity", a)
		}
		w.raw("</ep:activities>")
	}
	w.raw("</status>")
	w.element("rpid:class", t.Class)
	if t.Contact != "" {
		w.raw("<contact")
		if t.Priority != "" {
			w.attribute("priority", t.Priority)
		}
		w.raw(">")
		w.text(t.Contact)
		w.raw("</contact>")
	}
	w.notes("note", t.Notes)
	w.time("timestamp", t.Timestamp)
	w.raw("</tuple>")
}

// person writes in the order of RFC 4479: extensions, notes, timestamp.
func (w *writer) person(p *Person) {
	w.raw("\n<dm:person")
	w.attribute("id", p.ID)
	w.raw(">")
	if len(p.Activities) > 0 {
		w.raw("<rpid:activities")
		if !p.Since.IsZero() {
			w.attribute("from", p.Since.UTC().Format(time.RFC3339))
		}
		w.raw(">")
		for _, a := range p.Activities {
			if known(a) {
				w.raw("<rpid:" + a + "/>")
			} else { // RFC 4480 section 3.2: what has no element of its own
				w.element("rpid:other", a)
			}
		}
		w.raw("</rpid:activities>")
	}
	if p.Idle {
		w.raw("<rpid:user-input>idle</rpid:user-input>")
	}
	w.notes("dm:note", p.Notes)
	w.time("dm:timestamp", p.Timestamp)
	w.raw("</dm:person>")
}

// known tells whether RPID has an element for the activity.
func known(activity string) bool {
	switch activity {
	case "appointment", "away", "breakfast", "busy", "dinner", "holiday", "in-transit", "looking-for-work", "lunch",
		"meal", "meeting", "on-the-phone", "performance", "permanent-absence", "playing", "presentation",
		"shopping", "sleeping", "spectator", "steering", "travel", "tv", "unknown", "vacation", "working", "worship":
		return true
	}
	return false
}
