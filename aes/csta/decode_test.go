package csta

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	attributes = `typeOfNumber="other" mediaClass="notKnown"`
	ucid       = "00001001791428242051"
	link       = `<callLinkageData><globalCallData><globalCallSwitchingSubDomainName>CM1</globalCallSwitchingSubDomainName>` +
		`<globalCallLinkageID><globallyUniqueCallLinkageID>` + ucid + `</globallyUniqueCallLinkageID></globalCallLinkageID></globalCallData></callLinkageData>`
)

func conn(name, call, id string) string {
	return fmt.Sprintf(`<%s><callID>%s</callID><deviceID %s>%s</deviceID></%[1]s>`, name, call, attributes, id)
}

func party(name, id string) string {
	return fmt.Sprintf(`<%s><deviceIdentifier %s>%s</deviceIdentifier></%[1]s>`, name, attributes, id)
}

func in(ns, root, content string) string {
	return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?><%s xmlns="%s">%s</%[1]s>`, root, ns, content)
}

func csta3(root, content string) string { return in(NamespaceCSTA, root, content) }

func private(name, content string) string {
	return fmt.Sprintf(`<extensions><privateData><private><ns1:%[1]s xmlns:ns1="%[2]s" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="ns1:%[1]s">%[3]s</ns1:%[1]s></private></privateData></extensions>`,
		name, NamespaceAvaya, content)
}

func item(call, id string) string {
	return "<connectionListItem>" + conn("newConnection", call, id) + `<endpoint><deviceID ` + attributes + `>` + id + `</deviceID></endpoint></connectionListItem>`
}

func snapshotItem(call string, states ...string) string {
	s := "<snapshotDeviceResponseInfo>" + conn("connectionIdentifier", call, "4750:CM1::0") + "<localCallState><compoundCallState>"
	for _, x := range states {
		s += "<localConnectionState>" + x + "</localConnectionState>"
	}
	return s + "</compoundCallState></localCallState></snapshotDeviceResponseInfo>"
}

const own, far = "4750:CM1::0", "4751:CM1::0"

// messages is one document of each kind, and what it means.
func messages() map[string]struct {
	xml  string
	want Message
} {
	type m = struct {
		xml  string
		want Message
	}
	out := map[string]m{
		"session started": {
			in(NamespaceSession, "StartApplicationSessionPosResponse",
				"<sessionID>A-0</sessionID><actualProtocolVersion>http://x/priv7</actualProtocolVersion><actualSessionDuration>180</actualSessionDuration>"),
			&SessionStarted{"A-0", "http://x/priv7", Seconds(180 * time.Second)},
		},
		"login refused": {
			in(NamespaceSession, "StartApplicationSessionNegResponse", "<errorCode><definedError>invalidApplicationInfo</definedError></errorCode>"),
			&SessionRefused{Defined: "invalidApplicationInfo"},
		},
		"login refused in words": {
			in(NamespaceSession, "StartApplicationSessionNegResponse", "<errorCode><applError>no such user</applError></errorCode>"),
			&SessionRefused{Text: "no such user"},
		},
		"session extended": {
			in(NamespaceSession, "ResetApplicationSessionTimerPosResponse", "<actualSessionDuration>60</actualSessionDuration>"),
			&SessionExtended{Seconds(time.Minute)},
		},
		"keep-alive refused": {
			in(NamespaceSession, "ResetApplicationSessionTimerNegResponse", "<errorCode><definedError>invalidSessionID</definedError></errorCode>"),
			&SessionRefused{Defined: "invalidSessionID"},
		},
		"session terminated": {
			in(NamespaceSession, "ApplicationSessionTerminated",
				"<sessionID>A-0</sessionID><sessionTermReason><definedTermReason>sessionTimerExpired</definedTermReason></sessionTermReason>"),
			&SessionTerminated{SessionID: "A-0", Defined: "sessionTimerExpired"},
		},
		"failure":         {csta3("CSTAErrorCode", "<systemResourceAvailibility>overallMonitorLimitExceeded</systemResourceAvailibility>"), &Failure{"systemResourceAvailibility", "overallMonitorLimitExceeded"}},
		"failure, empty":  {csta3("CSTAErrorCode", "<unspecified/>"), &Failure{Group: "unspecified"}},
		"device":          {in(NamespaceAvaya, "GetThirdPartyDeviceIdResponse", "<device "+attributes+">"+own+"</device>"), &DeviceFound{own}},
		"monitor started": {csta3("MonitorStartResponse", "<monitorCrossRefID>2</monitorCrossRefID><monitorExistingCalls>true</monitorExistingCalls>"), &MonitorStarted{"2"}},
		"monitor stopped": {csta3("MonitorStop", "<monitorCrossRefID>2</monitorCrossRefID>"), &MonitorStopped{"2"}},
		"snapshot": {
			csta3("SnapshotDeviceResponse", "<crossRefIDorSnapshotData><snapshotData>"+snapshotItem("179", "hold", "connected")+snapshotItem("181", "connected", "alerting")+
				"</snapshotData></crossRefIDorSnapshotData>"+private("SnapshotDeviceResponsePrivateData", "<ns1:stationStatus>busy</ns1:stationStatus><ns1:serviceState>inService</ns1:serviceState>")),
			&DeviceSnapshot{Calls: []CallInfo{
				{Connection{CallID: "179", DeviceID: own}, []LocalState{StateHold, StateConnected}, ""},
				{Connection{CallID: "181", DeviceID: own}, []LocalState{StateConnected, StateAlerting}, ""},
			}, StationStatus: "busy", ServiceState: "inService"},
		},
		"snapshot without calls": {csta3("SnapshotDeviceResponse", "<crossRefIDorSnapshotData><snapshotData/></crossRefIDorSnapshotData>"), &DeviceSnapshot{}},
		"snapshot in parts":      {csta3("SnapshotDeviceResponse", "<crossRefIDorSnapshotData><serviceCrossRefID>7</serviceCrossRefID></crossRefIDorSnapshotData>"), &DeviceSnapshot{ServiceCrossRef: "7"}},
		"segment": {
			csta3("SnapshotDeviceData", "<serviceCrossRefID>7</serviceCrossRefID><segmentID>1</segmentID><lastSegment>true</lastSegment><snapshotData><snapshotDeviceResponseInfo>"+
				conn("connectionIdentifier", "5", own)+"<localCallState><simpleCallState>callReceived</simpleCallState></localCallState></snapshotDeviceResponseInfo></snapshotData>"),
			&DeviceSegment{"7", Yes, []CallInfo{{Connection: Connection{CallID: "5", DeviceID: own}, Simple: "callReceived"}}},
		},
		"call snapshot": {
			csta3("SnapshotCallResponse", "<crossRefIDorSnapshotData><snapshotData><snapshotCallResponseInfo>"+party("deviceOnCall", own)+conn("callIdentifier", "179", own)+
				"<localConnectionInfo>connected</localConnectionInfo></snapshotCallResponseInfo></snapshotData></crossRefIDorSnapshotData>"),
			&CallSnapshot{[]CallParty{{own, Connection{CallID: "179", DeviceID: own}, StateConnected}}},
		},
		"do not disturb":       {csta3("GetDoNotDisturbResponse", "<doNotDisturbOn>1</doNotDisturbOn>"), &DoNotDisturb{Yes}},
		"do not disturb event": {csta3("DoNotDisturbEvent", "<monitorCrossRefID>2</monitorCrossRefID>"+party("device", own)+"<doNotDisturbOn>false</doNotDisturbOn>"), &DoNotDisturbEvent{"2", No}},
		"forwardings": {
			csta3("GetForwardingResponse", "<forwardingList><forwardListItem><forwardingType>forwardImmediate</forwardingType><forwardStatus>true</forwardStatus><forwardDN>"+far+"</forwardDN></forwardListItem></forwardingList>"),
			&Forwardings{[]Forwarding{{"forwardImmediate", Yes}}},
		},
		"forwarding event": {
			csta3("ForwardingEvent", "<monitorCrossRefID>2</monitorCrossRefID>"+party("device", own)+"<forwardingType>forwardBusy</forwardingType><forwardStatus>false</forwardStatus>"),
			&ForwardingEvent{"2", Forwarding{"forwardBusy", No}},
		},
		"agents": {
			csta3("GetAgentStateResponse", "<agentStateList><agentStateEntry><agentID>5001</agentID><loggedOnState>true</loggedOnState><agentInfo><agentInfoItem><agentState>agentReady</agentState></agentInfoItem></agentInfo></agentStateEntry></agentStateList>"),
			&AgentStates{[]Agent{{Yes, []AgentState{"agentReady"}}}},
		},
		"agent event": {
			csta3("AgentWorkingAfterCallEvent", "<monitorCrossRefID>2</monitorCrossRefID>"+party("agentDevice", own)+"<agentID>5001</agentID><pendingAgentState>agentReady</pendingAgentState>"),
			&AgentEvent{CrossRef: "2"},
		},
		"monitors of a session": {
			in(NamespaceAvaya, "GetMonitorListEvent", `<sequenceNumber>1</sequenceNumber><sessionID>A-0</sessionID><isFinalResponse>true</isFinalResponse><monitorCrossRefID xmlns="`+NamespaceCSTA+`">9</monitorCrossRefID>`+
				"<monitorObjectDataList><monitorObjectData><monitorObject><deviceObject>"+own+"</deviceObject></monitorObject><monitorType>device</monitorType><MonitorStartResponse><monitorCrossRefID>2</monitorCrossRefID></MonitorStartResponse></monitorObjectData>"+
				"<monitorObjectData><MonitorStartResponse><monitorCrossRefID>3</monitorCrossRefID></MonitorStartResponse></monitorObjectData></monitorObjectDataList>"),
			&MonitorList{"9", Yes, []string{"2", "3"}},
		},
		"registered":    {csta3("SystemRegisterResponse", "<sysStatRegisterID>500046</sysStatRegisterID><actualStatusFilter><normal>true</normal></actualStatusFilter>"), &SystemRegistered{"500046"}},
		"system status": {csta3("SystemStatus", "<sysStatRegisterID>500046</sysStatRegisterID><systemStatus>disabled</systemStatus>"+private("SystemStatusPrivateData", "<ns1:switchTlinkStatus><ns1:switchName>CM1</ns1:switchName><ns1:tlinkStatus>tlinkDown</ns1:tlinkStatus></ns1:switchTlinkStatus>")), &SystemStatus{"disabled", []TlinkInfo{{"CM1", "tlinkDown"}}}},
		"system status asked for": {
			csta3("RequestSystemStatusResponse", "<systemStatus>normal</systemStatus>"+private("RequestSystemStatusResponsePrivateData", "<ns1:switchTlinkStatus><ns1:switchName>CM1</ns1:switchName><ns1:tlinkStatus>tlinkUp</ns1:tlinkStatus></ns1:switchTlinkStatus>")),
			&SystemStatusAnswer{"normal", []TlinkInfo{{"CM1", "tlinkUp"}}},
		},
	}
	call := func(kind CallKind, root, content string, want CallEvent) {
		want.Kind, want.CrossRef = kind, "2"
		out[root] = m{csta3(root, "<monitorCrossRefID>2</monitorCrossRefID>"+content), &want}
	}
	c, o := Connection{CallID: "179", DeviceID: own}, Connection{CallID: "179", DeviceID: far}
	parties := party("callingDevice", own) + party("calledDevice", far)
	call(ServiceInitiated, "ServiceInitiatedEvent", conn("initiatedConnection", "179", own)+party("initiatingDevice", own)+"<localConnectionInfo>initiated</localConnectionInfo><cause>newCall</cause>"+link,
		CallEvent{Connection: c, Device: own, Local: StateInitiated, Cause: "newCall", UCID: ucid})
	call(Originated, "OriginatedEvent", conn("originatedConnection", "179", own)+parties+"<localConnectionInfo>connected</localConnectionInfo>",
		CallEvent{Connection: c, Calling: own, Called: far, Local: StateConnected})
	call(Delivered, "DeliveredEvent", conn("connection", "179", far)+party("alertingDevice", far)+parties+"<lastRedirectionDevice><notKnown/></lastRedirectionDevice><localConnectionInfo>connected</localConnectionInfo>",
		CallEvent{Connection: o, Device: far, Calling: own, Called: far, Local: StateConnected})
	call(Established, "EstablishedEvent", conn("establishedConnection", "179", far)+party("answeringDevice", far)+"<callingDevice><notKnown/></callingDevice><localConnectionInfo>connected</localConnectionInfo>",
		CallEvent{Connection: o, Device: far, Local: StateConnected})
	call(Held, "HeldEvent", conn("heldConnection", "179", own)+party("holdingDevice", own)+"<localConnectionInfo>hold</localConnectionInfo>", CallEvent{Connection: c, Device: own, Local: StateHold})
	call(Retrieved, "RetrievedEvent", conn("retrievedConnection", "179", own)+party("retrievingDevice", own), CallEvent{Connection: c, Device: own})
	call(Conferenced, "ConferencedEvent", conn("primaryOldCall", "179", own)+conn("secondaryOldCall", "181", own)+party("conferencingDevice", own)+party("addedParty", far)+
		"<conferenceConnections>"+item("181", own)+item("181", far)+"</conferenceConnections><localConnectionInfo>connected</localConnectionInfo><cause>conference</cause>"+
		"<callLinkageDataList><newCallLinkageData>"+strings.TrimSuffix(strings.TrimPrefix(link, "<callLinkageData>"), "</callLinkageData>")+"</newCallLinkageData></callLinkageDataList>",
		CallEvent{
			Device: own, Local: StateConnected, Cause: "conference", UCID: ucid, PrimaryOld: c, SecondaryOld: Connection{CallID: "181", DeviceID: own}, Added: far,
			Parties: []Party{{New: Connection{CallID: "181", DeviceID: own}, Endpoint: own}, {New: Connection{CallID: "181", DeviceID: far}, Endpoint: far}},
		})
	call(Transferred, "TransferedEvent", conn("primaryOldCall", "179", own)+party("transferringDevice", own)+party("transferredToDevice", far)+"<transferredConnections>"+item("181", far)+"</transferredConnections><localConnectionInfo>null</localConnectionInfo>",
		CallEvent{Device: own, Local: StateNull, PrimaryOld: c, Added: far, Parties: []Party{{New: Connection{CallID: "181", DeviceID: far}, Endpoint: far}}})
	call(Diverted, "DivertedEvent", conn("connection", "179", own)+party("divertingDevice", own)+party("newDestination", far), CallEvent{Connection: c, Device: own})
	call(Queued, "QueuedEvent", conn("queuedConnection", "179", far)+party("queue", far)+"<numberQueued>1</numberQueued>", CallEvent{Connection: o, Device: far})
	call(NetworkReached, "NetworkReachedEvent", conn("outboundConnection", "179", "T513#2:CM1::0")+party("networkInterfaceUsed", "T513#2:CM1::0"), CallEvent{Connection: Connection{CallID: "179", DeviceID: "T513#2:CM1::0"}, Device: "T513#2:CM1::0"})
	call(Failed, "FailedEvent", conn("failedConnection", "179", far)+party("failingDevice", far), CallEvent{Connection: o, Device: far})
	call(ConnectionCleared, "ConnectionClearedEvent", conn("droppedConnection", "179", own)+party("releasingDevice", own)+"<localConnectionInfo>null</localConnectionInfo>", CallEvent{Connection: c, Device: own, Local: StateNull})
	call(CallCleared, "CallClearedEvent", conn("clearedCall", "179", own), CallEvent{Connection: c})
	return out
}

func ignoreNames() cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".XMLName" }, cmp.Ignore())
}

func decode(t *testing.T, document string) Message {
	t.Helper()
	m, err := Decode([]byte(document))
	if err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	return m
}

// The variants are what real peers were seen to do, or may: none changes the meaning.
func TestDecode(t *testing.T) {
	tag := regexp.MustCompile(`<(/?)([A-Za-z])`)
	namespace := regexp.MustCompile(` xmlns(:\w+)?="[^"]*"`)
	connection := regexp.MustCompile(`(<callID>[^<]*</callID>)(<deviceID [^>]*>[^<]*</deviceID>)`)
	endTag := regexp.MustCompile(`(</[\w:]+>)`)
	variants := map[string]func(string) string{
		"as it is":       func(s string) string { return s },
		"no declaration": func(s string) string { return strings.TrimPrefix(s, `<?xml version="1.0" encoding="UTF-8"?>`) },
		"wrong namespace": func(s string) string {
			return strings.NewReplacer(NamespaceCSTA, "urn:wrong", NamespaceAvaya, NamespaceSession).Replace(s)
		},
		"no namespace":   func(s string) string { return namespace.ReplaceAllString(s, "") },
		"prefixes":       func(s string) string { return tag.ReplaceAllString(strings.ReplaceAll(s, "ns1:", ""), "<${1}p:$2") },
		"deviceID first": func(s string) string { return connection.ReplaceAllString(s, "$2$1") },
		"pretty": func(s string) string {
			return strings.ReplaceAll(strings.ReplaceAll(s, "<", "\n <"), ">", ">\n\t")
		},
		"unknown elements": func(s string) string {
			const alien = `<x:new xmlns:x="urn:x" a="b"><x:deep><callID>1</callID></x:deep></x:new>`
			return strings.TrimSuffix(endTag.ReplaceAllString(s, "$1"+alien), alien)
		},
		"unknown attributes": func(s string) string {
			return strings.ReplaceAll(s, " typeOfNumber=", ` bitRate="constant" later="1" typeOfNumber=`)
		},
	}
	for name, m := range messages() {
		for variant, change := range variants {
			t.Run(name+", "+variant, func(t *testing.T) {
				document := change(m.xml)
				if d := cmp.Diff(m.want, decode(t, document), ignoreNames()); d != "" {
					t.Errorf("%s\n%s", d, document)
				}
			})
		}
	}
}

// Every element but the root is optional: leaving one out is never an error.
func TestDecodeWithoutEachElement(t *testing.T) {
	leaf := regexp.MustCompile(`<\w+/>|<\w+( [^<>]*)?>[^<>]*</\w+>`)
	for name, m := range messages() {
		for _, at := range leaf.FindAllStringIndex(m.xml, -1) {
			if _, err := Decode([]byte(m.xml[:at[0]] + m.xml[at[1]:])); err != nil {
				t.Errorf("%s without %s: %v", name, m.xml[at[0]:at[1]], err)
			}
		}
	}
}

func TestDecodeNames(t *testing.T) {
	if m, ok := decode(t, csta3("OutOfServiceEvent", "<monitorCrossRefID>2</monitorCrossRefID>")).(*ServiceEvent); !ok || !m.OutOfService() || m.InService() || m.CrossRef != "2" {
		t.Errorf("out of service: %+v", m)
	}
	if m, ok := decode(t, csta3("BackInServiceEvent", "")).(*ServiceEvent); !ok || m.OutOfService() || !m.InService() {
		t.Errorf("back in service: %+v", m)
	}
	unregistered := `<ns1:EndpointUnregisteredEvent xmlns:ns1="` + NamespaceAvaya + `"><monitorCrossRefID xmlns="` + NamespaceCSTA + `">2</monitorCrossRefID><ns1:dependencyMode>MAIN</ns1:dependencyMode></ns1:EndpointUnregisteredEvent>`
	if m, ok := decode(t, unregistered).(*RegistrationEvent); !ok || m.Registered() || m.CrossRef != "2" || m.Dependency != "MAIN" {
		t.Errorf("unregistered: %+v", m)
	}
	if m, ok := decode(t, csta3("PlayMessageResponse", "")).(*Other); !ok || m.XMLName.Local != "PlayMessageResponse" {
		t.Errorf("unknown: %+v", m)
	}
	dynamic := csta3("EstablishedEvent", `<establishedConnection><callID>1</callID><deviceID typeOfNumber="dynamic">7</deviceID></establishedConnection>`)
	if m, ok := decode(t, dynamic).(*CallEvent); !ok || !m.Connection.Dynamic {
		t.Errorf("dynamic: %+v", m)
	}
}

func TestAgentEvents(t *testing.T) {
	for root, want := range map[string]AgentState{
		"AgentLoggedOnEvent": "", "AgentLoggedOffEvent": AgentNull, "AgentNotReadyEvent": AgentNotReady, "AgentReadyEvent": AgentReady,
		"AgentBusyEvent": AgentBusy, "AgentWorkingAfterCallEvent": AgentWorkingAfterCall,
	} {
		e, ok := decode(t, csta3(root, "<monitorCrossRefID>2</monitorCrossRefID>")).(*AgentEvent)
		if !ok || e.State() != want || e.CrossRef != "2" {
			t.Errorf("%s: %+v", root, e)
		}
	}
}

func TestStates(t *testing.T) {
	for simple, want := range map[string][]LocalState{
		"callPending": {StateInitiated, StateNull}, "callEstablishedHeld": {StateHold, StateConnected}, "callQueuedHeld": {StateHold, StateQueued},
		"callBlocked": {StateFail, StateNull}, "callNull": {StateNull}, "callTomorrow": nil, "": nil,
	} {
		if d := cmp.Diff(want, (&CallInfo{Simple: simple}).States()); d != "" {
			t.Errorf("%q: %s", simple, d)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	deep := strings.Repeat("<a>", MaxDepth+1) + strings.Repeat("</a>", MaxDepth+1)
	for name, document := range map[string]string{
		"nothing":                "",
		"text":                   "hello",
		"text before":            "x<a/>",
		"text after":             "<a/>x",
		"two roots":              "<MonitorStop/><MonitorStop/>",
		"not closed":             "<MonitorStop><monitorCrossRefID>2",
		"wrong end":              "<MonitorStop></MonitorStart>",
		"document type":          `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`,
		"unknown entity":         "<MonitorStop>&b;</MonitorStop>",
		"not UTF-8":              "<MonitorStop>\xff</MonitorStop>",
		"too deep":               deep,
		"too deep where ignored": "<DeliveredEvent><x>" + deep + "</x></DeliveredEvent>",
		"too long":               "<a>" + strings.Repeat("x", MaxXML) + "</a>",
		// Call events have a reader of their own.
		"an event after text":                  "x<HeldEvent/>",
		"an event after a declaration":         `<?xml version="1.0"?>x<HeldEvent/>`,
		"an event before text":                 "<HeldEvent></HeldEvent>x",
		"two events":                           "<HeldEvent/><HeldEvent/>",
		"an event not closed":                  "<HeldEvent><monitorCrossRefID>2",
		"an event with a wrong end":            "<HeldEvent><cause></HeldEvent>",
		"an event with a document type":        `<!DOCTYPE a [<!ENTITY b "c">]><HeldEvent><cause>&b;</cause></HeldEvent>`,
		"an event with a document type within": `<HeldEvent><!DOCTYPE a></HeldEvent>`,
		"an event with an unknown entity":      "<HeldEvent><cause>&b;</cause></HeldEvent>",
		"an event that is not UTF-8":           "<HeldEvent><cause>\xff</cause></HeldEvent>",
		"an event too long":                    "<HeldEvent>" + strings.Repeat("x", MaxXML) + "</HeldEvent>",
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Decode([]byte(document))
			if _, ok := errors.AsType[*DecodeError](err); !ok {
				t.Fatalf("gave %+v, %v", m, err)
			}
		})
	}
}

// What cannot be read still tells which monitor it was about, so that what it said can
// be asked for.
func TestMalformedTellsItsMonitor(t *testing.T) {
	for _, root := range []string{"DoNotDisturbEvent", "ForwardingEvent", "BackInServiceEvent", "HeldEvent"} {
		_, err := Decode([]byte("<" + root + "><monitorCrossRefID> 2 </monitorCrossRefID><device>"))
		if e, ok := errors.AsType[*DecodeError](err); !ok || e.CrossRef != "2" || e.Root != root {
			t.Errorf("%s: %+v", root, err)
		}
	}
}

// As many attributes as a frame has room for are read past; names count, whatever
// namespace they claim.
func TestAttributesAndNamespaces(t *testing.T) {
	many := strings.Repeat(` a:b="c"`, (MaxXML-200)/8)
	for _, root := range []string{"HeldEvent", "MonitorStop"} {
		m, err := Decode([]byte("<" + root + ` xmlns="urn:nobody" xmlns:a="urn:a"` + many + "><monitorCrossRefID>2</monitorCrossRefID></" + root + ">"))
		switch m := m.(type) {
		case *CallEvent:
			if m.CrossRef != "2" {
				t.Errorf("%+v", m)
			}
		case *MonitorStopped:
			if m.CrossRef != "2" {
				t.Errorf("%+v", m)
			}
		default:
			t.Errorf("%s: %T, %v", root, m, err)
		}
	}
}

// Text may be written in more than one way.
func TestDecodeTextOfEvents(t *testing.T) {
	document := "<?xml version='1.0'?>\r\n<!-- x --><HeldEvent><monitorCrossRefID> 2<!-- x -->1 </monitorCrossRefID>" +
		"<heldConnection><callID><![CDATA[1<79]]></callID><deviceID typeOfNumber='dynamic'>T5&#49;3&amp;&lt;x/></deviceID></heldConnection>" +
		"<holdingDevice><notKnown/></holdingDevice><localConnectionInfo>sleeping</localConnectionInfo></HeldEvent> <!-- x -->\n"
	document = strings.Replace(document, "x/></deviceID>", "x</deviceID>", 1)
	want := &CallEvent{Kind: Held, CrossRef: "21", Connection: Connection{CallID: "1<79", DeviceID: "T513&<x", Dynamic: true}, Local: "sleeping"}
	if d := cmp.Diff(want, decode(t, document)); d != "" {
		t.Error(d)
	}
}

// A document of attributes alone is read in the time of its bytes, and says nothing.
func TestDecodeManyAttributes(t *testing.T) {
	var attributes strings.Builder
	for i := 0; attributes.Len() < MaxXML-100; i++ {
		fmt.Fprintf(&attributes, ` a%d="1"`, i)
	}
	for _, root := range []string{"HeldEvent", "MonitorStop", "FutureEvent"} {
		decode(t, "<"+root+attributes.String()+"></"+root+">")
		decode(t, "<"+root+"><deviceID"+attributes.String()+"/></"+root+">")
	}
}

func TestDecodeErrorNamesTheMonitor(t *testing.T) {
	_, err := Decode([]byte("<DeliveredEvent><monitorCrossRefID> 17 </monitorCrossRefID><connection></conn></DeliveredEvent>"))
	var e *DecodeError
	if !errors.As(err, &e) || e.Root != "DeliveredEvent" || e.CrossRef != "17" {
		t.Errorf("%+v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		f.Add([]byte(m.xml))
	}
	f.Add([]byte("<a><b></a>"))
	f.Fuzz(func(t *testing.T, document []byte) {
		m, err := Decode(document)
		var e *DecodeError
		if (m == nil) == (err == nil) || err != nil && !errors.As(err, &e) {
			t.Fatalf("%v, %v", m, err)
		}
	})
}

// testdata gives the folder with extra samples of this protocol.
func testdata(t *testing.T) string {
	t.Helper()
	root := os.Getenv("PRESENCED_TESTDATA")
	if root == "" {
		t.Skip("extra samples are not here: PRESENCED_TESTDATA is not set")
	}
	return filepath.Join(root, "aes")
}

func TestSamplesDecode(t *testing.T) {
	root, n := testdata(t), 0
	for _, dir := range []string{"constructed-dmcc", "dmcc-requests", "aes-captures", "openscape-csta-ed4"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".xml" {
				return err
			}
			document, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			n++
			m, err := Decode(document)
			if err != nil {
				t.Errorf("%s: %v", filepath.Base(path), err)
			}
			name := strings.TrimPrefix(filepath.Base(path), "event-")
			if _, other := m.(*Other); other && dir == "constructed-dmcc" && name != filepath.Base(path) {
				t.Errorf("%s is an event that is not known", name)
			}
			if e, call := m.(*CallEvent); call && (e.CrossRef == "" || e.Connection == (Connection{}) && e.PrimaryOld == (Connection{})) {
				t.Errorf("%s: %+v says nothing of a call", path, e)
			}
			if r, ok := m.(*SystemRegistered); ok && r.ID == "" {
				t.Errorf("%s: %+v", path, r)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if n == 0 {
		t.Error("no samples")
	}
}

func TestSampleFrames(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testdata(t), "framing", "*.hex.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var stream []byte
		for line := range strings.Lines(string(text)) {
			digits, _, _ := strings.Cut(line, "  ")
			b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(digits), " ", ""))
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			stream = append(stream, b...)
		}
		f, err := NewReader(strings.NewReader(string(stream))).Read()
		if strings.Contains(path, "inconsistent-length") {
			if err == nil && len(f.XML)+headerSize == len(stream) {
				t.Errorf("%s: the length is not inconsistent", path)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if _, err := Decode(f.XML); err != nil || f.InvokeID != EventID {
			t.Errorf("%s: invoke ID %d, %v", path, f.InvokeID, err)
		}
	}
}
