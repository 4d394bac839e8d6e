package lps

import (
	"hash/maphash"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/bridges/sip/documents"
)

// A Document is the body of a NOTIFY. It is shared, and nobody changes it.
type Document struct {
	Type string // media type, with parameters
	Body []byte
	Tag  uint64 // two documents that tell the same have the same
}

// A Listed is one resource in the document of a list.
type Listed struct {
	Address string
	Pending bool
	Body    []byte // its presence document; nil: nobody is known by that address
}

// A Watching is one watcher in the document about the watchers of a person.
type Watching struct {
	ID      string // of the subscription
	Watcher presence.Subject
	Pending bool
}

// An Encoder writes documents. Versions count from zero, and rise by one from
// NOTIFY to NOTIFY of a subscription.
type Encoder interface {
	// Presence gives what a watcher with that view sees of the entity.
	Presence(view *presence.State, address string) []byte

	// Partial gives the same for who takes partial documents (RFC 5262): what
	// changed since the view was, or all of it where that is nil or longer. Its
	// versions are the CSeqs.
	Partial(was, view *presence.State, address string, version uint32) []byte

	// Phone gives the calls in the phone channel of a view (RFC 4235), in full.
	Phone(view *presence.State, address string, version uint32) []byte

	// Watchers gives who watches the entity (RFC 3858), in full.
	Watchers(watching []Watching, address string, version uint32) []byte

	// List gives the state of the resources of a list (RFC 4662), of all of them if
	// full, and the media type with the boundary.
	List(resources []Listed, address string, version uint32, full bool) (body []byte, mediaType string)
}

// Media types of the documents.
const (
	typePresence = pidf.ContentType
	typePartial  = pidf.ContentTypeDiff
	typePhone    = documents.DialogsType
	typeWatchers = documents.WatchersType
	typeParts    = documents.ListType
	typeList     = "application/rlmi+xml"
)

// tagOf gives the tag of a body.
func (s *Subscriptions) tagOf(body []byte) uint64 {
	if tag := maphash.Bytes(s.seed, body); tag != 0 {
		return tag
	}
	return 1 // zero means that nothing was told
}
