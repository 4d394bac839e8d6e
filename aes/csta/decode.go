package csta

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"

	"presenced/internal/xmltext"
)

// MaxDepth is how deeply elements of a message may be nested. The deepest
// message of the schema has about ten levels.
const MaxDepth = xmltext.MaxDepth

// A DecodeError says that a document is no message.
type DecodeError struct {
	Root string // local name of the root element, if it was read that far
	// CrossRef is the monitor that the message was about, if it was read that
	// far: what the message told of that device is lost.
	CrossRef string
	Err      error
}

func (e *DecodeError) Error() string {
	if e.Root == "" {
		return fmt.Sprintf("csta: no message: %v", e.Err)
	}
	return fmt.Sprintf("csta: malformed %.60s: %v", e.Root, e.Err)
}

func (e *DecodeError) Unwrap() error { return e.Err }

// Decode reads one document of at most MaxXML bytes and MaxDepth levels without
// a document type. It gives a pointer to one of the message structs; a message
// that is not known is an *Other and no error. Every error is a *DecodeError.
func Decode(document []byte) (Message, error) {
	g := &guard{in: xml.NewDecoder(bytes.NewReader(document))}
	fail := func(err error) (Message, error) {
		return nil, &DecodeError{Root: g.root, CrossRef: g.crossRef, Err: err}
	}
	if len(document) > MaxXML {
		return fail(fmt.Errorf("%d bytes, the limit is %d", len(document), MaxXML))
	}
	text := string(document)
	if root := rootOf(text); callKinds[root] != 0 {
		return decodeCall(text, callKinds[root], root)
	}
	d := xml.NewTokenDecoder(g)
	var root xml.StartElement
	for root.Name.Local == "" {
		t, err := d.Token()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("no element")
			}
			return fail(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			root = t
		case xml.CharData:
			if len(t) > 0 {
				return fail(errors.New("text before the root element"))
			}
		}
	}
	m := messageFor(root.Name.Local)
	if err := d.DecodeElement(m, &root); err != nil {
		return fail(err)
	}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return fail(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			return fail(errors.New("a second root element"))
		case xml.CharData:
			if len(t) > 0 {
				return fail(errors.New("text after the root element"))
			}
		}
	}
}

// A guard stands below the decoder: it bounds the depth, refuses document
// types, takes the white space off all text, and notes what a message is about
// before it is decoded.
type guard struct {
	in             *xml.Decoder
	depth          int
	root, crossRef string
	inCrossRef     bool
}

// Token gives raw tokens; the decoder above resolves prefixes and matches tags.
func (g *guard) Token() (xml.Token, error) {
	t, err := g.in.RawToken()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case xml.StartElement:
		g.depth++
		if g.depth > MaxDepth {
			return nil, fmt.Errorf("nested more than %d levels", MaxDepth)
		}
		if g.depth == 1 && g.root == "" {
			g.root = t.Name.Local
		}
		g.inCrossRef = g.depth == 2 && g.crossRef == "" && t.Name.Local == "monitorCrossRefID"
	case xml.EndElement:
		g.depth--
		g.inCrossRef = false
	case xml.CharData:
		t = bytes.TrimSpace(t)
		if g.inCrossRef {
			g.crossRef += string(t)
		}
		return t, nil
	case xml.Directive:
		return nil, errors.New("a document type is not allowed")
	}
	return t, nil
}
