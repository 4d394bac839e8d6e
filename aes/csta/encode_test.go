package csta

import (
	"encoding/xml"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// Each request is well-formed, in the right namespace, and as the protocol
// notes have it.
func TestRequests(t *testing.T) {
	const decl, ns3 = `<?xml version="1.0" encoding="UTF-8"?>`, ` xmlns="` + NamespaceCSTA + `"`
	const id = ` typeOfNumber="other" mediaClass="notKnown">`
	for _, tc := range []struct {
		r    Request
		want string
	}{
		{
			StartSession{"presenced", "cti", `p<&"w`, time.Minute, "", []string{"v2", "v1"}, 3 * time.Minute},
			`<StartApplicationSession xmlns="` + NamespaceSession + `"><applicationInfo><applicationID>presenced</applicationID><applicationSpecificInfo><SessionLoginInfo xmlns="` + NamespaceAvaya +
				`"><userName xmlns="">cti</userName><password xmlns="">p&lt;&amp;&#34;w</password><sessionCleanupDelay xmlns="">60</sessionCleanupDelay><sessionID xmlns=""></sessionID></SessionLoginInfo></applicationSpecificInfo></applicationInfo>` +
				`<requestedProtocolVersions><protocolVersion>v2</protocolVersion><protocolVersion>v1</protocolVersion></requestedProtocolVersions><requestedSessionDuration>180</requestedSessionDuration></StartApplicationSession>`,
		},
		{ExtendSession{"S-0", 3 * time.Minute}, `<ResetApplicationSessionTimer xmlns="` + NamespaceSession + `"><sessionID>S-0</sessionID><requestedSessionDuration>180</requestedSessionDuration></ResetApplicationSessionTimer>`},
		{StopSession{"S-0"}, `<StopApplicationSession xmlns="` + NamespaceSession + `"><sessionID>S-0</sessionID><sessionEndReason><definedEndReason>normal</definedEndReason></sessionEndReason></StopApplicationSession>`},
		{FindDevice{"CM1", "4750"}, `<GetThirdPartyDeviceId xmlns="` + NamespaceAvaya + `"><switchName>CM1</switchName><extension>4750</extension><deviceInstance>0</deviceInstance></GetThirdPartyDeviceId>`},
		{ReleaseDevice{own}, `<ReleaseDeviceId xmlns="` + NamespaceAvaya + `"><device` + id + own + `</device></ReleaseDeviceId>`},
		{StartMonitor{own, false}, `<MonitorStart` + ns3 + `><monitorObject><deviceObject` + id + own + `</deviceObject></monitorObject><requestedMonitorFilter><callcontrol><conferenced>true</conferenced>` +
			`<connectionCleared>true</connectionCleared><delivered>true</delivered><diverted>true</diverted><established>true</established><failed>true</failed><held>true</held><networkReached>true</networkReached>` +
			`<originated>true</originated><queued>true</queued><retrieved>true</retrieved><serviceInitiated>true</serviceInitiated><transferred>true</transferred></callcontrol>` +
			`<logicalDeviceFeature><doNotDisturb>true</doNotDisturb><forwarding>true</forwarding></logicalDeviceFeature><maintenance><backInService>true</backInService><outOfService>true</outOfService></maintenance>` +
			`</requestedMonitorFilter><monitorType>device</monitorType><extensions><privateData><private><AvayaEvents xmlns="` + NamespaceAvaya + `"><invertFilter>true</invertFilter>` +
			`<endpointRegistrationStateEvents><registered>true</registered><unregistered>true</unregistered></endpointRegistrationStateEvents></AvayaEvents></private></privateData></extensions></MonitorStart>`},
		{StartSessionMonitor{}, `<MonitorStart` + ns3 + `><monitorObject><deviceObject mediaClass="notKnown"></deviceObject></monitorObject><extensions><privateData><private><AvayaEvents xmlns="` + NamespaceAvaya +
			`"><invertFilter>true</invertFilter><deviceServices><getMonitorList>true</getMonitorList></deviceServices></AvayaEvents></private></privateData></extensions></MonitorStart>`},
		{GetMonitorList{"S-0"}, `<GetMonitorList xmlns="` + NamespaceAvaya + `"><sessionID>S-0</sessionID></GetMonitorList>`},
		{StopMonitor{"2"}, `<MonitorStop` + ns3 + `><monitorCrossRefID>2</monitorCrossRefID></MonitorStop>`},
		{SnapshotDevice{own}, `<SnapshotDevice` + ns3 + `><snapshotObject` + id + own + `</snapshotObject><extensions><privateData><private><SnapshotDevicePrivateData xmlns="` + NamespaceAvaya +
			`"><getStationStatus>true</getStationStatus></SnapshotDevicePrivateData></private></privateData></extensions></SnapshotDevice>`},
		{GetDoNotDisturb{own}, `<GetDoNotDisturb` + ns3 + `><device` + id + own + `</device></GetDoNotDisturb>`},
		{GetForwarding{own}, `<GetForwarding` + ns3 + `><device` + id + own + `</device></GetForwarding>`},
		{GetAgentState{own}, `<GetAgentState` + ns3 + `><device` + id + own + `</device></GetAgentState>`},
		{RegisterSystem{"CM1"}, `<SystemRegister` + ns3 + `><requestTypes><systemStatus>true</systemStatus></requestTypes><requestedStatusFilter><initializing>true</initializing><enabled>true</enabled><normal>true</normal>` +
			`<messageLost>true</messageLost><disabled>true</disabled><partiallyDisabled>true</partiallyDisabled><overloadImminent>true</overloadImminent><overloadReached>true</overloadReached><overloadRelieved>true</overloadRelieved>` +
			`</requestedStatusFilter><extensions><privateData><private><SystemRegisterPrivateData xmlns="` + NamespaceAvaya + `"><invertFilter>true</invertFilter><switchName>CM1</switchName></SystemRegisterPrivateData></private></privateData></extensions></SystemRegister>`},
		{RequestSystem{"500046", "CM1"}, `<RequestSystemStatus` + ns3 + `><sysStatRegisterID>500046</sysStatRegisterID><extensions><privateData><private><RequestSystemStatusPrivateData xmlns="` + NamespaceAvaya +
			`"><getTlinkStatus><switchName>CM1</switchName></getTlinkStatus></RequestSystemStatusPrivateData></private></privateData></extensions></RequestSystemStatus>`},
		{SystemStatusDone{}, `<SystemStatusResponse` + ns3 + `></SystemStatusResponse>`},
	} {
		got := string(tc.r.XML())
		if got != decl+tc.want {
			t.Errorf("%T:\n%s\nwant\n%s", tc.r, got, decl+tc.want)
		}
		if err := xml.Unmarshal([]byte(got), new(struct{ XMLName xml.Name })); err != nil {
			t.Errorf("%T: %v", tc.r, err)
		}
		if _, err := Decode([]byte(got)); err != nil {
			t.Errorf("%T: %v", tc.r, err)
		}
	}
	if got := string(StartMonitor{own, true}.XML()); !strings.Contains(got, `<logicalDeviceFeature><agentBusy>true</agentBusy><agentLoggedOn>true</agentLoggedOn><agentLoggedOff>true</agentLoggedOff><agentNotReady>true</agentNotReady>`+
		`<agentReady>true</agentReady><agentWorkingAfterCall>true</agentWorkingAfterCall><doNotDisturb>`) {
		t.Errorf("no agents: %s", got)
	}
	if got := string(FindDevice{"CM\x00\xff", "4"}.XML()); strings.Contains(got, "\x00") || !utf8.ValidString(got) {
		t.Errorf("not fit for XML: %q", got)
	}
}
