package csta

import (
	"encoding/xml"
	"strings"
)

// LocalState is the state of one connection of a call. A value that is none of
// the constants is to be treated like an absent one.
type LocalState string

// The states.
const (
	StateNull      LocalState = "null" // the device is no longer in the call
	StateInitiated LocalState = "initiated"
	StateAlerting  LocalState = "alerting"
	StateConnected LocalState = "connected"
	StateHold      LocalState = "hold"
	StateQueued    LocalState = "queued"
	StateFail      LocalState = "fail"
)

// Known tells whether s is one of the constants.
func (s LocalState) Known() bool {
	switch s {
	case StateNull, StateInitiated, StateAlerting, StateConnected, StateHold, StateQueued, StateFail:
		return true
	}
	return false
}

// A Connection is a device in a call. Each part may be empty. Call IDs are
// reused over time.
type Connection struct {
	CallID   string
	DeviceID string
	// Dynamic says that the device ID was made for this connection, so that it
	// can be compared with that of another event of the call only.
	Dynamic bool
}

// UnmarshalXML takes the parts in either order.
func (c *Connection) UnmarshalXML(d *xml.Decoder, _ xml.StartElement) error {
	return children(d, func(child xml.StartElement) error {
		switch child.Name.Local {
		case "callID":
			return d.DecodeElement(&c.CallID, &child)
		case "deviceID":
			for _, a := range child.Attr {
				if a.Name.Local == "typeOfNumber" {
					c.Dynamic = a.Value == "dynamic"
				}
			}
			return d.DecodeElement(&c.DeviceID, &child)
		default:
			return d.Skip()
		}
	})
}

// CallKind tells the call events apart.
type CallKind uint8

// The call events.
const (
	ServiceInitiated CallKind = iota + 1
	Originated
	DigitsDialed
	Offered
	Delivered
	Established
	Held
	Retrieved
	Conferenced
	Transferred // TransferedEvent on the wire, with one r
	Diverted
	Queued
	NetworkReached
	Failed
	Bridged
	ConnectionCleared
	CallCleared
)

var callKinds = map[string]CallKind{ //nolint:gochecknoglobals // a table, never changed
	"ServiceInitiatedEvent": ServiceInitiated, "OriginatedEvent": Originated, "DigitsDialedEvent": DigitsDialed,
	"OfferedEvent": Offered, "DeliveredEvent": Delivered, "EstablishedEvent": Established, "HeldEvent": Held,
	"RetrievedEvent": Retrieved, "ConferencedEvent": Conferenced, "TransferedEvent": Transferred,
	"TransferredEvent": Transferred, "DivertedEvent": Diverted, "QueuedEvent": Queued, "NetworkReachedEvent": NetworkReached,
	"FailedEvent": Failed, "BridgedEvent": Bridged, "ConnectionClearedEvent": ConnectionCleared, "CallClearedEvent": CallCleared,
}

// A CallEvent is any event about a call at a monitored device. The events
// differ in the names of their elements and little in what these mean, so one
// struct holds all of them. Anything may be empty.
type CallEvent struct {
	Kind     CallKind
	CrossRef string

	// Connection is the one that the event is about, under whichever name:
	// alerting, established, held, dropped, failed...
	Connection Connection
	// Device is the one that acts, or to which it happens: it alerts, answers,
	// holds, releases, fails, diverts, conferences, transfers; the queue of Queued.
	Device string

	Calling, Called string
	Local           LocalState // of the monitored device in this call
	Cause           string
	UCID            string // globallyUniqueCallLinkageID, of the new call if there are several

	// For Conferenced and Transferred.
	PrimaryOld, SecondaryOld Connection
	Added                    string // addedParty, transferredToDevice
	Parties                  []Party
}

// A Party is one device in a call that was made of two.
type Party struct {
	New, Old Connection
	Endpoint string // device ID
}

// String gives the name of the event without the word Event, in the spelling of this package.
func (k CallKind) String() string {
	for name, kind := range callKinds {
		if kind == k && name != "TransferedEvent" {
			return strings.TrimSuffix(name, "Event")
		}
	}
	return "unknown"
}
