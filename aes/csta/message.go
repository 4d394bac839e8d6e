package csta

import (
	"encoding/xml"
	"strconv"
	"time"
)

// A Message is a pointer to one of the structs of this package.
type Message any

// messageFor gives the struct for a root element that is no call event.
func messageFor(root string) Message {
	switch root {
	case "StartApplicationSessionPosResponse":
		return new(SessionStarted)
	case "ResetApplicationSessionTimerPosResponse":
		return new(SessionExtended)
	case "StartApplicationSessionNegResponse", "ResetApplicationSessionTimerNegResponse", "StopApplicationSessionNegResponse":
		return new(SessionRefused)
	case "ApplicationSessionTerminated":
		return new(SessionTerminated)
	case "CSTAErrorCode":
		return new(Failure)
	case "GetThirdPartyDeviceIdResponse", "GetDeviceIdResponse":
		return new(DeviceFound)
	case "MonitorStartResponse":
		return new(MonitorStarted)
	case "MonitorStop":
		return new(MonitorStopped)
	case "SnapshotDeviceResponse":
		return new(DeviceSnapshot)
	case "SnapshotDeviceData":
		return new(DeviceSegment)
	case "SnapshotCallResponse":
		return new(CallSnapshot)
	case "GetDoNotDisturbResponse":
		return new(DoNotDisturb)
	case "GetForwardingResponse":
		return new(Forwardings)
	case "GetAgentStateResponse":
		return new(AgentStates)
	case "SystemRegisterResponse":
		return new(SystemRegistered)
	case "SystemStatus":
		return new(SystemStatus)
	case "RequestSystemStatusResponse":
		return new(SystemStatusAnswer)
	case "DoNotDisturbEvent":
		return new(DoNotDisturbEvent)
	case "ForwardingEvent":
		return new(ForwardingEvent)
	case "OutOfServiceEvent", "BackInServiceEvent", "PartiallyInServiceEvent":
		return new(ServiceEvent)
	case "AgentBusyEvent", "AgentLoggedOnEvent", "AgentLoggedOffEvent", "AgentNotReadyEvent", "AgentReadyEvent", "AgentWorkingAfterCallEvent":
		return new(AgentEvent)
	case "GetMonitorListEvent":
		return new(MonitorList)
	case "EndpointRegisteredEvent", "EndpointUnregisteredEvent":
		return new(RegistrationEvent)
	}
	return new(Other)
}

// A Flag is a boolean that may be absent, or no boolean at all.
type Flag uint8

// The flags. Unset is the zero value.
const (
	Unset Flag = iota
	No
	Yes
)

// UnmarshalText never fails: what is no boolean is Unset.
func (f *Flag) UnmarshalText(text []byte) error {
	switch string(text) {
	case "true", "1":
		*f = Yes
	case "false", "0":
		*f = No
	default:
		*f = Unset
	}
	return nil
}

// Seconds is a duration that the protocol gives as a decimal number of seconds;
// zero where it is absent or no such number.
type Seconds time.Duration

// UnmarshalText never fails. A day is the most.
func (s *Seconds) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 32)
	if err != nil {
		n = 0
	}
	*s = Seconds(min(time.Duration(n)*time.Second, 24*time.Hour)) //nolint:gosec // 32 bits
	return nil
}

// Other is a message that the collector does not read: an answer without
// content, or an event of no interest.
type Other struct {
	XMLName xml.Name // Local is the name of the root element
}

// SessionStarted is the positive answer to StartApplicationSession. The session
// ID is a secret: who knows it can take the session over.
type SessionStarted struct {
	SessionID string  `xml:"sessionID"`
	Version   string  `xml:"actualProtocolVersion"`
	Duration  Seconds `xml:"actualSessionDuration"`
}

// SessionExtended is the positive answer to ResetApplicationSessionTimer.
type SessionExtended struct {
	Duration Seconds `xml:"actualSessionDuration"`
}

// SessionRefused is the negative answer to any request about the session.
type SessionRefused struct {
	Defined string `xml:"errorCode>definedError"` // such as invalidApplicationInfo
	Text    string `xml:"errorCode>applError"`    // free text
}

// SessionTerminated says that the server ended the session.
type SessionTerminated struct {
	SessionID string `xml:"sessionID"`
	Defined   string `xml:"sessionTermReason>definedTermReason"`
	Text      string `xml:"sessionTermReason>serverTermReason"`
}

// Failure is CSTAErrorCode, the negative answer to any CSTA request: the error
// group and the value within it.
type Failure struct{ Group, Value string }

func (f *Failure) Error() string {
	switch {
	case f.Value == "":
		return "the server refuses: " + f.Group
	case f.Group == "":
		return "the server refuses: " + f.Value
	default:
		return "the server refuses: " + f.Group + " " + f.Value
	}
}

// UnmarshalXML takes the first child, whatever its name.
func (f *Failure) UnmarshalXML(d *xml.Decoder, _ xml.StartElement) error {
	return children(d, func(child xml.StartElement) error {
		if f.Group != "" {
			return d.Skip()
		}
		f.Group = child.Name.Local
		return d.DecodeElement(&f.Value, &child)
	})
}

// DeviceFound is the answer to GetThirdPartyDeviceId and GetDeviceId.
type DeviceFound struct {
	Device string `xml:"device"`
}

// MonitorStarted is the answer to MonitorStart.
type MonitorStarted struct {
	CrossRef string `xml:"monitorCrossRefID"`
}

// MonitorStopped is MonitorStop sent by the server: that monitor has ended.
type MonitorStopped struct {
	CrossRef string `xml:"monitorCrossRefID"`
}

// MonitorList is GetMonitorListEvent: some of the monitors of a session.
type MonitorList struct {
	CrossRef string   `xml:"monitorCrossRefID"` // of the session monitor
	Final    Flag     `xml:"isFinalResponse"`   // no more follow
	Monitors []string `xml:"monitorObjectDataList>monitorObjectData>MonitorStartResponse>monitorCrossRefID"`
}

// DeviceSnapshot is the answer to SnapshotDevice. If ServiceCrossRef is set,
// the calls follow as DeviceSegment messages that repeat it.
type DeviceSnapshot struct {
	Calls           []CallInfo `xml:"crossRefIDorSnapshotData>snapshotData>snapshotDeviceResponseInfo"`
	ServiceCrossRef string     `xml:"crossRefIDorSnapshotData>serviceCrossRefID"`
	StationStatus   string     `xml:"extensions>privateData>private>SnapshotDeviceResponsePrivateData>stationStatus"` // busy, idle
	ServiceState    string     `xml:"extensions>privateData>private>SnapshotDeviceResponsePrivateData>serviceState"`  // inService, outOfService, unknown
}

// DeviceSegment is a part of a snapshot that comes in several.
type DeviceSegment struct {
	ServiceCrossRef string     `xml:"serviceCrossRefID"`
	Last            Flag       `xml:"lastSegment"`
	Calls           []CallInfo `xml:"snapshotData>snapshotDeviceResponseInfo"`
}

// CallInfo is one call of a DeviceSnapshot.
type CallInfo struct {
	Connection Connection   `xml:"connectionIdentifier"`
	Compound   []LocalState `xml:"localCallState>compoundCallState>localConnectionState"`
	Simple     string       `xml:"localCallState>simpleCallState"`
}

// States gives the states of the call's connections, that of the device first,
// from whichever form was sent; nil if neither says anything (ECMA-217 6.1.5, table 1).
func (c *CallInfo) States() []LocalState {
	if len(c.Compound) > 0 {
		return c.Compound
	}
	switch c.Simple {
	case "callPending":
		return []LocalState{StateInitiated, StateNull}
	case "callOriginated":
		return []LocalState{StateConnected, StateNull}
	case "callDelivered":
		return []LocalState{StateConnected, StateAlerting}
	case "callDeliveredHeld":
		return []LocalState{StateHold, StateAlerting}
	case "callReceived":
		return []LocalState{StateAlerting, StateConnected}
	case "callReceivedOnHold":
		return []LocalState{StateAlerting, StateHold}
	case "callEstablished":
		return []LocalState{StateConnected, StateConnected}
	case "callEstablishedOnHold":
		return []LocalState{StateConnected, StateHold}
	case "callEstablishedHeld":
		return []LocalState{StateHold, StateConnected}
	case "callQueued":
		return []LocalState{StateConnected, StateQueued}
	case "callQueuedHeld":
		return []LocalState{StateHold, StateQueued}
	case "callFailed":
		return []LocalState{StateConnected, StateFail}
	case "callFailedHeld":
		return []LocalState{StateHold, StateFail}
	case "callBlocked":
		return []LocalState{StateFail, StateNull}
	case "callNull":
		return []LocalState{StateNull}
	default:
		return nil
	}
}

// CallSnapshot is the answer to SnapshotCall.
type CallSnapshot struct {
	Parties []CallParty `xml:"crossRefIDorSnapshotData>snapshotData>snapshotCallResponseInfo"`
}

// CallParty is one device of a CallSnapshot.
type CallParty struct {
	Device     string     `xml:"deviceOnCall>deviceIdentifier"`
	Connection Connection `xml:"callIdentifier"`
	State      LocalState `xml:"localConnectionInfo"`
}

// DoNotDisturb is the answer to GetDoNotDisturb.
type DoNotDisturb struct {
	On Flag `xml:"doNotDisturbOn"`
}

// Forwardings is the answer to GetForwarding.
type Forwardings struct {
	List []Forwarding `xml:"forwardingList>forwardListItem"`
}

// Forwarding is one kind of forwarding, and whether it is on.
type Forwarding struct {
	Type string `xml:"forwardingType"`
	On   Flag   `xml:"forwardStatus"`
}

// AgentStates is the answer to GetAgentState.
type AgentStates struct {
	Agents []Agent `xml:"agentStateList>agentStateEntry"`
}

// Agent is one agent at a device.
type Agent struct {
	LoggedOn Flag         `xml:"loggedOnState"`
	States   []AgentState `xml:"agentInfo>agentInfoItem>agentState"` // one for each group of the agent
}

// AgentState is what an agent does. A value that is none of the constants is to
// be treated like an absent one.
type AgentState string

// The states of an agent.
const (
	AgentNull             AgentState = "agentNull" // not logged on
	AgentNotReady         AgentState = "agentNotReady"
	AgentReady            AgentState = "agentReady"
	AgentBusy             AgentState = "agentBusy" // in a call that was distributed
	AgentWorkingAfterCall AgentState = "agentWorkingAfterCall"
)

// AgentEvent is any event about an agent at a monitored device.
type AgentEvent struct {
	XMLName  xml.Name
	CrossRef string `xml:"monitorCrossRefID"`
}

// State gives what the agent does from now on. It is empty where the agent
// logged on, which does not tell.
func (e *AgentEvent) State() AgentState {
	switch e.XMLName.Local {
	case "AgentLoggedOffEvent":
		return AgentNull
	case "AgentNotReadyEvent":
		return AgentNotReady
	case "AgentReadyEvent":
		return AgentReady
	case "AgentBusyEvent":
		return AgentBusy
	case "AgentWorkingAfterCallEvent":
		return AgentWorkingAfterCall
	}
	return ""
}

// SystemRegistered is the answer to SystemRegister.
type SystemRegistered struct {
	ID string `xml:"sysStatRegisterID"`
}

// SystemStatus is sent by the server, which expects SystemStatusResponse under
// the same invoke ID.
type SystemStatus struct {
	Status string      `xml:"systemStatus"` // disabled, normal, messagesLost, ...
	Links  []TlinkInfo `xml:"extensions>privateData>private>SystemStatusPrivateData>switchTlinkStatus"`
}

// SystemStatusAnswer is the answer to RequestSystemStatus.
type SystemStatusAnswer struct {
	Status string      `xml:"systemStatus"`
	Links  []TlinkInfo `xml:"extensions>privateData>private>RequestSystemStatusResponsePrivateData>switchTlinkStatus"`
}

// TlinkInfo tells whether the link to a switch is up.
type TlinkInfo struct {
	Switch string `xml:"switchName"`
	Status string `xml:"tlinkStatus"` // tlinkUp, tlinkDown, tlinkUnavailable
}

// DoNotDisturbEvent says that do not disturb was switched on or off.
type DoNotDisturbEvent struct {
	CrossRef string `xml:"monitorCrossRefID"`
	On       Flag   `xml:"doNotDisturbOn"`
}

// ForwardingEvent says that one kind of forwarding was switched on or off.
type ForwardingEvent struct {
	CrossRef string `xml:"monitorCrossRefID"`
	Forwarding
}

// ServiceEvent is OutOfServiceEvent, BackInServiceEvent or PartiallyInServiceEvent.
type ServiceEvent struct {
	XMLName  xml.Name
	CrossRef string `xml:"monitorCrossRefID"`
}

// OutOfService tells whether the device stopped working.
func (e *ServiceEvent) OutOfService() bool { return e.XMLName.Local == "OutOfServiceEvent" }

// InService tells whether the device works again. An event that is neither
// speaks of a device that works in part.
func (e *ServiceEvent) InService() bool { return e.XMLName.Local == "BackInServiceEvent" }

// RegistrationEvent is EndpointRegisteredEvent or EndpointUnregisteredEvent.
type RegistrationEvent struct {
	XMLName    xml.Name
	CrossRef   string `xml:"monitorCrossRefID"`
	Dependency string `xml:"dependencyMode"` // MAIN, DEPENDENT, INDEPENDENT
}

// Registered tells which of the two it is.
func (e *RegistrationEvent) Registered() bool { return e.XMLName.Local == "EndpointRegisteredEvent" }

// children calls each for every child element of the one that was just opened,
// and reads up to its end. The function must consume the child.
func children(d *xml.Decoder, each func(xml.StartElement) error) error {
	for {
		t, err := d.Token()
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if err := each(t); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		}
	}
}
