package csta

import (
	"errors"
	"strings"

	"presenced/internal/xmltext"
)

// A callReader reads a call event. These come thousands a second, and all else
// seldom; so they have a reader of their own, which looks at each byte once.
type callReader struct {
	s   xmltext.Scanner
	err error // the first one; nothing more is read then
}

// decodeCall reads a document whose root is that of a call event. The document is
// within its bounds.
func decodeCall(document string, kind CallKind, root string) (Message, error) {
	e := &CallEvent{Kind: kind}
	r := callReader{s: xmltext.New(document)}
	r.next() // the root
	r.children(func(name string) { r.element(e, name) })
	if r.err == nil && strings.Trim(outside(document), " \t\r\n") != "" {
		r.err = errors.New("text outside the root element")
	}
	for r.err == nil && r.next() != xmltext.EOF {
	}
	if r.err != nil {
		return nil, &DecodeError{Root: root, CrossRef: e.CrossRef, Err: r.err}
	}
	return e, nil
}

// outside gives what may be text before and after the root element; the scanner passes
// over that.
func outside(document string) string {
	before, _, _ := strings.Cut(document, "<")
	if _, rest, found := strings.Cut(document, "?>"); found && strings.HasPrefix(document, "<?") {
		between, _, _ := strings.Cut(rest, "<")
		before += between
	}
	return before + document[strings.LastIndexByte(document, '>')+1:]
}

func (r *callReader) next() xmltext.Kind {
	if r.err != nil {
		return xmltext.EOF
	}
	k, err := r.s.Next()
	r.err = err
	return k
}

// children calls each with the name of every child of the element that was just
// opened, and reads up to its end. The function reads the child to its end.
func (r *callReader) children(each func(name string)) {
	for {
		switch r.next() {
		case xmltext.Start:
			each(r.s.Name())
		case xmltext.End, xmltext.EOF:
			return
		}
	}
}

// raw gives the text of the element that was just opened, as a part of the document, and
// reads up to its end.
func (r *callReader) raw() (text string) {
	for depth := r.s.Depth(); ; {
		switch r.next() {
		case xmltext.Text:
			if r.s.Depth() == depth {
				text += strings.TrimSpace(r.s.Text())
			}
		case xmltext.End:
			if r.s.Depth() < depth {
				return text
			}
		case xmltext.EOF:
			return text
		}
	}
}

// text is raw for what may be kept, which is not to keep the whole document.
func (r *callReader) text() string { return strings.Clone(r.raw()) }

// state gives a state without keeping anything of the document, where it is known.
func (r *callReader) state() LocalState {
	switch raw := LocalState(r.raw()); raw {
	case StateNull:
		return StateNull
	case StateInitiated:
		return StateInitiated
	case StateAlerting:
		return StateAlerting
	case StateConnected:
		return StateConnected
	case StateHold:
		return StateHold
	case StateQueued:
		return StateQueued
	case StateFail:
		return StateFail
	default:
		return LocalState(strings.Clone(string(raw)))
	}
}

// element sorts a child of any call event into the fields.
func (r *callReader) element(e *CallEvent, name string) {
	switch name {
	case "monitorCrossRefID":
		e.CrossRef = r.text()
	case "connection", "initiatedConnection", "originatedConnection", "dialingConnection", "offeredConnection", "establishedConnection",
		"heldConnection", "retrievedConnection", "queuedConnection", "outboundConnection", "failedConnection", "bridgedConnection",
		"droppedConnection", "clearedCall":
		r.connection(&e.Connection)
	case "initiatingDevice", "originatingDevice", "dialingDevice", "offeredDevice", "alertingDevice", "answeringDevice", "holdingDevice",
		"retrievingDevice", "conferencingDevice", "transferringDevice", "divertingDevice", "queue", "networkInterfaceUsed",
		"failingDevice", "bridgedAppearance", "releasingDevice":
		e.Device = r.party()
	case "callingDevice":
		e.Calling = r.party()
	case "calledDevice":
		e.Called = r.party()
	case "addedParty", "transferredToDevice":
		e.Added = r.party()
	case "localConnectionInfo":
		e.Local = r.state()
	case "cause":
		e.Cause = r.text()
	case "callLinkageData":
		e.UCID = r.linkage()
	case "callLinkageDataList":
		r.children(func(name string) {
			if name == "newCallLinkageData" {
				e.UCID = r.linkage()
			} else {
				r.raw()
			}
		})
	case "primaryOldCall":
		r.connection(&e.PrimaryOld)
	case "secondaryOldCall":
		r.connection(&e.SecondaryOld)
	case "conferenceConnections", "transferredConnections":
		r.children(func(name string) {
			if name == "connectionListItem" {
				e.Parties = append(e.Parties, r.item())
			} else {
				r.raw()
			}
		})
	default:
		r.raw()
	}
}

// connection takes the parts in either order.
func (r *callReader) connection(c *Connection) {
	r.children(func(name string) {
		switch name {
		case "callID":
			c.CallID = r.text()
		case "deviceID":
			c.Dynamic = r.s.Attribute("typeOfNumber") == "dynamic"
			c.DeviceID = r.text()
		default:
			r.raw()
		}
	})
}

// party takes the identifier out of a device party; it is empty where the party is
// not known or restricted.
func (r *callReader) party() (id string) {
	dialed := ""
	r.children(func(name string) {
		switch name {
		case "deviceIdentifier":
			id = r.text()
		case "numberDialed":
			dialed = r.text()
		default:
			r.raw()
		}
	})
	if id == "" {
		return dialed
	}
	return id
}

func (r *callReader) item() (p Party) {
	r.children(func(name string) {
		switch name {
		case "newConnection":
			r.connection(&p.New)
		case "oldConnection":
			r.connection(&p.Old)
		case "endpoint":
			r.children(func(name string) {
				if name == "deviceID" {
					p.Endpoint = r.text()
				} else {
					r.raw()
				}
			})
		default:
			r.raw()
		}
	})
	return p
}

// linkage gives the globallyUniqueCallLinkageID of a call.
func (r *callReader) linkage() (ucid string) {
	path := [...]string{"globalCallData", "globalCallLinkageID", "globallyUniqueCallLinkageID"}
	r.children(func(name string) {
		if name != path[0] {
			r.raw()
			return
		}
		r.children(func(name string) {
			if name != path[1] {
				r.raw()
				return
			}
			r.children(func(name string) {
				if name == path[2] {
					ucid = r.text()
				} else {
					r.raw()
				}
			})
		})
	})
	return ucid
}

// rootOf gives the local name of the root element; empty: there is none, or it is not
// well-formed up to there.
func rootOf(document string) string {
	s := xmltext.New(document)
	if k, err := s.Next(); k != xmltext.Start || err != nil {
		return ""
	}
	return s.Name()
}
