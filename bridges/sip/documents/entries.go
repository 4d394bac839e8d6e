package documents

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"presenced/internal/xmltext"
)

// EntriesType is the media type of the list that a SUBSCRIBE carries, and
// EntriesDisposition its Content-Disposition.
const (
	EntriesType        = "application/resource-lists+xml"
	EntriesDisposition = "recipient-list"
)

// An Entry is one resource of a list.
type Entry struct {
	URI  string
	Name string // for people; may be empty
}

// AppendEntries appends to dst the resource-lists document (RFC 4826) that a
// subscription to all of these carries (RFC 5367).
func AppendEntries(dst []byte, entries []Entry) []byte {
	x := xmltext.Writer(dst)
	x.Raw(declaration + `<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list>`)
	for _, e := range entries {
		x.Raw("\n<entry")
		x.Attribute("uri", e.URI)
		if e.Name == "" {
			x.Raw("/>")
			continue
		}
		x.Raw(">")
		x.Element("display-name", e.Name)
		x.Raw("</entry>")
	}
	x.Raw("</list></resource-lists>\n")
	return x
}

// ParseEntries reads a resource-lists document (RFC 4826): the entries of all its
// lists, those within lists too, in their order and each URI once. It refuses a
// document with more than MaxEntries, or one that refers to entries elsewhere,
// which only an XCAP server could look up.
func ParseEntries(data []byte) ([]Entry, error) {
	var entries []Entry
	seen := map[string]bool{}
	open := -1 // the entry that is open
	err := read(data, "resource-lists", func(e element) error {
		if e.parent != "list" {
			return nil
		}
		switch e.name {
		case "entry":
			uri := e.attribute("uri")
			switch {
			case uri == "":
				return errors.New("an entry without a uri")
			case seen[uri]:
				return nil
			case len(entries) == MaxEntries:
				return tooMany("entries")
			}
			seen[uri] = true
			open = len(entries)
			entries = append(entries, Entry{URI: uri})
		case "entry-ref", "external":
			return fmt.Errorf("%s refers to a list elsewhere, which is not supported: send its entries", e.name)
		}
		return nil
	}, func(e element) error {
		switch {
		case open >= 0 && e.name == "display-name" && e.parent == "entry":
			entries[open].Name = e.text
		case e.name == "entry":
			open = -1
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// Inflate gives a body whose Content-Encoding is deflate: that of zlib, as the
// name means, or without its envelope, as some send it. It fails where the body is
// damaged, or is more than MaxSize bytes when inflated.
func Inflate(body []byte) ([]byte, error) {
	var r io.ReadCloser
	r, err := zlib.NewReader(bytes.NewReader(body))
	if err != nil {
		r = flate.NewReader(bytes.NewReader(body))
	}
	defer r.Close()
	out, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	switch {
	case err != nil:
		return nil, errors.New("documents: the body is not what its Content-Encoding deflate says")
	case len(out) > MaxSize:
		return nil, fmt.Errorf("documents: the body is more than %d bytes when inflated", MaxSize)
	}
	return out, nil
}
