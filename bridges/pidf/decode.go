package pidf

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/internal/xmltext"
)

// Limits of what Parse accepts. What is more than MaxItems of a kind is left
// out; a text is cut at MaxText bytes.
const (
	MaxSize  = 64 << 10         // bytes of a document; a larger one is refused unread
	MaxDepth = xmltext.MaxDepth // elements within one another; a deeper document is refused
	MaxItems = 64               // tuples, and notes or activities of one part
	MaxText  = 1024
)

// Parse reads a document. It goes by the names of elements and not by their
// order or namespace, because phones disagree with the schema on both, and skips
// what it does not know. These forms of activities are read alike:
//
//	<rpid:activities><rpid:on-the-phone/></rpid:activities>           in a person, RFC 4480
//	<e:activities><e:on-the-phone/><ce:dnd/></e:activities>           in a person, Cisco
//	<ep:activities><ep:activity>busy</ep:activity></ep:activities>    in a status, Microsoft
//
// Beside application/pidf+xml this reads application/cpim-pidf+xml, which differs
// in the namespace, and application/xpidf+xml, an early draft that has atoms for
// tuples. It does not read the forms of presentity that Microsoft had before PIDF.
//
// It fails where the document is too large or too deep, is not well-formed UTF-8,
// declares a document type, or is not a presence document. The error quotes
// nothing of the document. The texts of what is given are parts of one copy of
// data.
func Parse(data []byte) (Document, error) { return parse(data, false) }

// ParseForeign is Parse without the tuples and persons that State wrote, here or in
// another presenced: a presence server gives them back among those of others.
func ParseForeign(data []byte) (Document, error) { return parse(data, true) }

func parse(data []byte, foreign bool) (Document, error) {
	if len(data) > MaxSize {
		return Document{}, fmt.Errorf("pidf: a document of %d bytes, the limit is %d", len(data), MaxSize)
	}
	r := reader{scan: xmltext.New(string(data)), foreign: foreign}
	for {
		kind, err := r.scan.Next()
		switch {
		case err != nil:
			return Document{}, fmt.Errorf("pidf: %w", err)
		case kind == xmltext.EOF:
			return r.doc, nil
		case kind == xmltext.Start:
			if err := r.start(); err != nil {
				return Document{}, err
			}
		case kind == xmltext.Text:
			if room := MaxText - len(r.text); r.wanted && room > 0 {
				text := r.scan.Text()
				r.text += text[:min(room, len(text))]
			}
		case kind == xmltext.End:
			r.end()
		}
	}
}

// A reader keeps the names of the elements that are open, and builds the document.
type reader struct {
	scan   xmltext.Scanner
	doc    Document
	names  [MaxDepth + 1]string // by depth; local, lower case; the root is at 1, so that each has a parent
	text   string               // of the innermost element so far
	wanted bool                 // the text of the innermost element matters
	tuple  *Tuple               // the one that is open

	foreign bool      // what is our own is left out
	kept    *Document // what was read before something of our own that is open; nil: nothing is
}

func (r *reader) start() error {
	name, depth := strings.ToLower(r.scan.Name()), r.scan.Depth()
	if depth == 1 && name != "presence" {
		return errors.New("pidf: the root is not a presence element")
	}
	r.names[depth] = name
	r.text, r.wanted = "", false
	if r.foreign && depth == 2 && strings.HasPrefix(r.attribute("id"), ownID) {
		r.kept, r.doc = new(r.doc), Document{}
	}
	switch parent := r.names[depth-1]; {
	case depth == 1:
		r.doc.Entity = r.attribute("entity")
	case depth == 2 && (name == "tuple" || name == "atom"):
		if len(r.doc.Tuples) < MaxItems {
			r.doc.Tuples = append(r.doc.Tuples, Tuple{ID: r.attribute("id")})
			r.tuple = &r.doc.Tuples[len(r.doc.Tuples)-1]
		} else {
			r.tuple = new(Tuple) // is dropped
		}
	case depth == 2 && name == "person":
		if r.doc.Person.ID == "" {
			r.doc.Person.ID = r.attribute("id")
		}
	case name == "contact" && r.tuple != nil:
		r.wanted = true
		if p := r.attribute("priority"); priority(p) {
			r.tuple.Priority = p
		}
	case name == "activities":
		if p := &r.doc.Person; r.tuple == nil && p.Since.IsZero() && p.Until.IsZero() {
			p.Since, p.Until = moment(r.attribute("from")), moment(r.attribute("until"))
		}
	case parent == "activities":
		r.wanted = true
		r.activity(name)
	default:
		switch name {
		case "presentity", "address", "status", "msnsubstatus":
			r.old(name)
		case "user-input":
			if r.tuple == nil && parent == "person" {
				r.doc.Person.LastInput = moment(r.attribute("last-input"))
			}
			r.wanted = true
		case "basic", "class", "display-name", "note", "timestamp":
			r.wanted = true
		}
	}
	return nil
}

// old reads what the draft before PIDF has in attributes.
func (r *reader) old(name string) {
	switch {
	case name == "presentity" && r.doc.Entity == "":
		r.doc.Entity, _, _ = strings.Cut(r.attribute("uri"), ";")
	case r.tuple == nil:
	case name == "address":
		r.tuple.Contact = r.attribute("uri")
		if p := r.attribute("priority"); priority(p) {
			r.tuple.Priority = p
		}
	case name == "status":
		r.tuple.set("basic", r.attribute("status"))
	case name == "msnsubstatus":
		switch r.attribute("substatus") {
		case "away", "berightback", "outtolunch":
			r.activity("away")
		case "busy":
			r.activity("busy")
		case "onthephone":
			r.activity("on-the-phone")
		}
	}
}

func (r *reader) end() {
	depth := r.scan.Depth() // of the parent
	name, parent := r.names[depth+1], r.names[depth]
	text := ""
	if r.wanted {
		text = strings.TrimSpace(strings.ToValidUTF8(r.text, ""))
	}
	r.wanted, r.text = false, "" // text after a child is of no element that matters
	switch {
	case depth == 1 && (name == "tuple" || name == "atom"):
		r.tuple = nil
	case text == "":
	case parent == "activities":
		if name == "activity" || name == "other" {
			r.activity(strings.ToLower(text))
		}
	case name == "display-name" && depth <= 2: // in the document, a person or a tuple
		r.doc.Person.Name = text
	case r.tuple != nil:
		r.tuple.set(name, text)
	case parent == "person" && depth == 2:
		r.doc.Person.set(name, text)
	case parent == "device" && depth == 2 && name == "user-input":
		r.doc.Idle = r.doc.Idle || strings.EqualFold(text, "idle")
	case parent == "presence" && depth == 1 && name == "note":
		r.doc.Notes = limited(r.doc.Notes, text)
	}
	if r.kept != nil && depth == 1 {
		r.doc, r.kept = *r.kept, nil
	}
}

// activity notes an activity by its name, which is that of an element or a text.
func (r *reader) activity(name string) {
	switch name {
	case "activity", "other", // hold the name as text
		"note", "phone-status", "im-status": // say something else
		return
	}
	if r.tuple != nil {
		r.tuple.Activities = add(r.tuple.Activities, name)
		return
	}
	r.doc.Person.Activities = add(r.doc.Person.Activities, name)
}

func (t *Tuple) set(name, text string) {
	switch name {
	case "basic":
		if b := Basic(strings.ToLower(text)); b == Open || b == Closed {
			t.Basic = b
		}
	case "class":
		t.Class = text
	case "contact":
		t.Contact = text
	case "user-input":
		t.Idle = strings.EqualFold(text, "idle")
	case "note":
		t.Notes = limited(t.Notes, text)
	case "timestamp":
		t.Timestamp = moment(text)
	}
}

func (p *Person) set(name, text string) {
	switch name {
	case "user-input":
		p.Idle = strings.EqualFold(text, "idle")
	case "note":
		p.Notes = limited(p.Notes, text)
	case "timestamp":
		p.Timestamp = moment(text)
	}
}

// add appends s unless it is there, or there is no room.
func add(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return limited(list, s)
}

func limited(list []string, s string) []string {
	if len(list) >= MaxItems {
		return list
	}
	return append(list, s)
}

func (r *reader) attribute(name string) string {
	value := r.scan.Attribute(name)
	if len(value) > MaxText { // which may cut a character
		value = strings.ToValidUTF8(value[:MaxText], "")
	}
	return value
}

// moment reads a time of RFC 3339; anything else is no time.
func moment(s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return whole(t)
}

// priority tells whether s is a qvalue, 0 to 1 with at most three digits.
func priority(s string) bool {
	if len(s) == 0 || len(s) > 5 || strings.Trim(s, "0123456789.") != "" {
		return false
	}
	v, err := strconv.ParseFloat(s, 64)
	return err == nil && v <= 1
}
