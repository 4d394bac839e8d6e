package pidf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of what Parse accepts. What is more than MaxItems of a kind is left
// out; a text is cut at MaxText bytes.
const (
	MaxSize  = 64 << 10 // bytes of a document; a larger one is refused unread
	MaxDepth = 32       // elements within one another; a deeper document is refused
	MaxItems = 64       // tuples, and notes or activities of one part
	MaxText  = 1024
)

// Parse reads a document. It goes by the names of elements and not by their
// order or namespace, because phones disagree with the schema on both, and skips
// what it does not know. These forms of activities are read alike:
//
//	<rpid:activities><rpid:on-the-phone/></rpid:activities>           in a person, RFC 4480
//	<e:activities><e:on-the-phone/></e:activities>                    in a person, Cisco
//	<ep:activities><ep:activity>busy</ep:activity></ep:activities>    in a status, Microsoft
//
// It fails where the document is too large or too deep, is not well-formed, or
// is not a presence document. The error quotes nothing of the document.
func Parse(data []byte) (Document, error) {
	if len(data) > MaxSize {
		return Document{}, fmt.Errorf("pidf: a document of %d bytes, the limit is %d", len(data), MaxSize)
	}
	r := reader{decoder: xml.NewDecoder(bytes.NewReader(data))}
	for {
		token, err := r.decoder.Token()
		switch {
		case errors.Is(err, io.EOF):
			if !r.rooted {
				return Document{}, errors.New("pidf: no element")
			}
			return r.doc, nil
		case err != nil:
			return Document{}, fmt.Errorf("pidf: not well-formed in line %d", line(r.decoder))
		}
		switch t := token.(type) {
		case xml.StartElement:
			if err := r.start(&t); err != nil {
				return Document{}, err
			}
		case xml.CharData:
			if room := MaxText - len(r.text); r.wanted && room > 0 {
				r.text = append(r.text, t[:min(room, len(t))]...)
			}
		case xml.EndElement:
			r.end()
		}
	}
}

func line(d *xml.Decoder) int {
	n, _ := d.InputPos()
	return n
}

// A reader keeps the names of the elements that are open, and builds the document.
type reader struct {
	decoder *xml.Decoder
	doc     Document
	path    []string // local names, lower case
	text    []byte   // of the innermost element so far
	wanted  bool     // the text of the innermost element matters
	rooted  bool
	tuple   *Tuple // the one that is open
	dropped Tuple  // stands for a tuple above the limit
}

func (r *reader) start(e *xml.StartElement) error {
	name := strings.ToLower(e.Name.Local)
	switch {
	case len(r.path) >= MaxDepth:
		return fmt.Errorf("pidf: deeper than %d elements", MaxDepth)
	case len(r.path) == 0 && r.rooted:
		return errors.New("pidf: a second document follows the first")
	case len(r.path) == 0 && name != "presence":
		return errors.New("pidf: the root is not a presence element")
	}
	r.path = append(r.path, name)
	r.text, r.wanted = r.text[:0], false
	switch parent := r.parent(); {
	case len(r.path) == 1:
		r.rooted = true
		r.doc.Entity = attribute(e, "entity")
	case len(r.path) == 2 && name == "tuple":
		if len(r.doc.Tuples) < MaxItems {
			r.doc.Tuples = append(r.doc.Tuples, Tuple{ID: attribute(e, "id")})
			r.tuple = &r.doc.Tuples[len(r.doc.Tuples)-1]
		} else {
			r.dropped = Tuple{}
			r.tuple = &r.dropped
		}
	case len(r.path) == 2 && name == "person":
		if r.doc.Person.ID == "" {
			r.doc.Person.ID = attribute(e, "id")
		}
	case name == "contact" && r.tuple != nil:
		r.wanted = true
		if p := attribute(e, "priority"); priority(p) {
			r.tuple.Priority = p
		}
	case name == "activities":
		if t := moment(attribute(e, "from")); r.tuple == nil && r.doc.Person.Since.IsZero() {
			r.doc.Person.Since = t
		}
	case parent == "activities":
		r.wanted = true
		r.activity(name)
	default:
		switch name {
		case "basic", "class", "note", "timestamp", "user-input":
			r.wanted = true
		}
	}
	return nil
}

func (r *reader) end() {
	name := r.path[len(r.path)-1]
	parent := r.parent()
	text := ""
	if r.wanted {
		text = strings.TrimSpace(strings.ToValidUTF8(string(r.text), ""))
	}
	r.path = r.path[:len(r.path)-1]
	r.wanted, r.text = false, r.text[:0] // text after a child is of no element that matters
	switch {
	case name == "tuple" && len(r.path) == 1:
		r.tuple = nil
	case text == "":
	case parent == "activities":
		if name == "activity" || name == "other" {
			r.activity(strings.ToLower(text))
		}
	case r.tuple != nil:
		r.tuple.set(name, text)
	case parent == "person" && len(r.path) == 2:
		r.doc.Person.set(name, text)
	case parent == "presence" && len(r.path) == 1 && name == "note":
		r.doc.Notes = limited(r.doc.Notes, text)
	}
}

func (r *reader) parent() string {
	if len(r.path) < 2 {
		return ""
	}
	return r.path[len(r.path)-2]
}

// activity notes an activity by its name, which is that of an element or a text.
func (r *reader) activity(name string) {
	switch name {
	case "activity", "other", "note": // hold the name as text; a note is no activity
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

func attribute(e *xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space != "xmlns" {
			return strings.ToValidUTF8(a.Value[:min(len(a.Value), MaxText)], "")
		}
	}
	return ""
}

// moment reads a time of RFC 3339; anything else is no time.
func moment(s string) time.Time {
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
