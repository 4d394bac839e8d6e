package csta

import (
	"bytes"
	"encoding/xml"
	"strconv"
	"time"
)

// The namespaces of the protocol.
const (
	NamespaceCSTA    = "http://www.ecma-international.org/standards/ecma-323/csta/ed3"
	NamespaceSession = "http://www.ecma-international.org/standards/ecma-354/appl_session"
	NamespaceAvaya   = "http://www.avaya.com/csta"
)

// A Request is something that a client sends. XML gives its document, in the
// element order of the schema.
type Request interface{ XML() []byte }

// StartSession logs in. An empty SessionID asks for a new session, an old one
// to recover that. Times are sent in whole seconds. The document holds the
// password: never log it.
type StartSession struct {
	Application    string
	User, Password string
	CleanupDelay   time.Duration // how long the server keeps monitors after the connection drops
	SessionID      string
	Versions       []string // the preferred one first
	Duration       time.Duration
}

// XML gives StartApplicationSession.
func (r StartSession) XML() []byte {
	w := open("StartApplicationSession", NamespaceSession)
	w.in("applicationInfo", func() {
		w.text("applicationID", r.Application)
		w.in("applicationSpecificInfo", func() {
			w.in("SessionLoginInfo", func() {
				w.text("userName", r.User, "xmlns", "")
				w.text("password", r.Password, "xmlns", "")
				w.text("sessionCleanupDelay", seconds(r.CleanupDelay), "xmlns", "")
				w.text("sessionID", r.SessionID, "xmlns", "")
			}, "xmlns", NamespaceAvaya)
		})
	})
	w.in("requestedProtocolVersions", func() {
		for _, v := range r.Versions {
			w.text("protocolVersion", v)
		}
	})
	w.text("requestedSessionDuration", seconds(r.Duration))
	return w.close()
}

// ExtendSession keeps a session alive.
type ExtendSession struct {
	SessionID string
	Duration  time.Duration
}

// XML gives ResetApplicationSessionTimer.
func (r ExtendSession) XML() []byte {
	w := open("ResetApplicationSessionTimer", NamespaceSession)
	w.text("sessionID", r.SessionID)
	w.text("requestedSessionDuration", seconds(r.Duration))
	return w.close()
}

// StopSession logs out; the server drops all monitors of the session.
type StopSession struct{ SessionID string }

// XML gives StopApplicationSession.
func (r StopSession) XML() []byte {
	w := open("StopApplicationSession", NamespaceSession)
	w.text("sessionID", r.SessionID)
	w.in("sessionEndReason", func() { w.text("definedEndReason", "normal") })
	return w.close()
}

// FindDevice asks for the device ID of an extension, for call control by a
// third party: nothing is registered.
type FindDevice struct{ Switch, Extension string }

// XML gives GetThirdPartyDeviceId.
func (r FindDevice) XML() []byte {
	w := open("GetThirdPartyDeviceId", NamespaceAvaya)
	w.text("switchName", r.Switch)
	w.text("extension", r.Extension)
	w.text("deviceInstance", "0")
	return w.close()
}

// ReleaseDevice gives a device ID back.
type ReleaseDevice struct{ Device string }

// XML gives ReleaseDeviceId.
func (r ReleaseDevice) XML() []byte {
	w := open("ReleaseDeviceId", NamespaceAvaya)
	w.device("device", r.Device)
	return w.close()
}

// StartMonitor asks for the events of a device that presence needs. In CSTA a
// set member of the filter means "do not send"; the private invertFilter turns
// that round, and everything here relies on it.
type StartMonitor struct {
	Device string
	Agents bool // also the events of agents
}

// XML gives MonitorStart.
func (r StartMonitor) XML() []byte {
	w := open("MonitorStart", NamespaceCSTA)
	w.in("monitorObject", func() { w.device("deviceObject", r.Device) })
	w.in("requestedMonitorFilter", func() {
		w.in("callcontrol", func() {
			w.all("conferenced", "connectionCleared", "delivered", "diverted", "established", "failed", "held", "networkReached",
				"originated", "queued", "retrieved", "serviceInitiated", "transferred")
		})
		w.in("logicalDeviceFeature", func() {
			if r.Agents {
				w.all("agentBusy", "agentLoggedOn", "agentLoggedOff", "agentNotReady", "agentReady", "agentWorkingAfterCall")
			}
			w.all("doNotDisturb", "forwarding")
		})
		w.in("maintenance", func() { w.all("backInService", "outOfService") })
	})
	w.text("monitorType", "device")
	w.private("AvayaEvents", func() {
		w.all("invertFilter")
		w.in("endpointRegistrationStateEvents", func() { w.all("registered", "unregistered") })
	})
	return w.close()
}

// StartSessionMonitor asks for the answers of GetMonitorList, which come as events.
type StartSessionMonitor struct{}

// XML gives MonitorStart for the session itself.
func (r StartSessionMonitor) XML() []byte {
	w := open("MonitorStart", NamespaceCSTA)
	w.in("monitorObject", func() { w.text("deviceObject", "", "mediaClass", "notKnown") })
	w.private("AvayaEvents", func() {
		w.all("invertFilter")
		w.in("deviceServices", func() { w.all("getMonitorList") })
	})
	return w.close()
}

// GetMonitorList asks which monitors a session has. A MonitorList, or several,
// follow the answer.
type GetMonitorList struct{ SessionID string }

// XML gives GetMonitorList.
func (r GetMonitorList) XML() []byte {
	w := open("GetMonitorList", NamespaceAvaya)
	w.text("sessionID", r.SessionID)
	return w.close()
}

// StopMonitor ends a monitor.
type StopMonitor struct{ CrossRef string }

// XML gives MonitorStop.
func (r StopMonitor) XML() []byte {
	w := open("MonitorStop", NamespaceCSTA)
	w.text("monitorCrossRefID", r.CrossRef)
	return w.close()
}

// SnapshotDevice asks for the calls at a device and whether it is in service.
type SnapshotDevice struct{ Device string }

// XML gives SnapshotDevice with the private getStationStatus.
func (r SnapshotDevice) XML() []byte {
	w := open("SnapshotDevice", NamespaceCSTA)
	w.device("snapshotObject", r.Device)
	w.private("SnapshotDevicePrivateData", func() { w.all("getStationStatus") })
	return w.close()
}

// GetDoNotDisturb asks whether do not disturb is on.
type GetDoNotDisturb struct{ Device string }

// XML gives GetDoNotDisturb.
func (r GetDoNotDisturb) XML() []byte { return query("GetDoNotDisturb", r.Device) }

// GetForwarding asks which kinds of forwarding are on.
type GetForwarding struct{ Device string }

// XML gives GetForwarding.
func (r GetForwarding) XML() []byte { return query("GetForwarding", r.Device) }

// GetAgentState asks which agents are logged on at a device, and what they do.
type GetAgentState struct{ Device string }

// XML gives GetAgentState.
func (r GetAgentState) XML() []byte { return query("GetAgentState", r.Device) }

// RegisterSystem asks to be told of the state of the server and of its link to
// a switch.
type RegisterSystem struct{ Switch string }

// XML gives SystemRegister. A status that is not asked for is not sent, so it
// asks for all.
func (r RegisterSystem) XML() []byte {
	w := open("SystemRegister", NamespaceCSTA)
	w.in("requestTypes", func() { w.all("systemStatus") })
	w.in("requestedStatusFilter", func() {
		w.all("initializing", "enabled", "normal", "messageLost", "disabled", "partiallyDisabled", "overloadImminent", "overloadReached", "overloadRelieved")
	})
	w.private("SystemRegisterPrivateData", func() {
		w.all("invertFilter")
		w.text("switchName", r.Switch)
	})
	return w.close()
}

// RequestSystem asks for the state of the server and of its link to a switch.
type RequestSystem struct{ RegisterID, Switch string }

// XML gives RequestSystemStatus.
func (r RequestSystem) XML() []byte {
	w := open("RequestSystemStatus", NamespaceCSTA)
	w.text("sysStatRegisterID", r.RegisterID)
	w.private("RequestSystemStatusPrivateData", func() {
		w.in("getTlinkStatus", func() { w.text("switchName", r.Switch) })
	})
	return w.close()
}

// SystemStatusDone answers a SystemStatus, under the same invoke ID.
type SystemStatusDone struct{}

// XML gives SystemStatusResponse.
func (SystemStatusDone) XML() []byte { return open("SystemStatusResponse", NamespaceCSTA).close() }

func query(service, device string) []byte {
	w := open(service, NamespaceCSTA)
	w.device("device", device)
	return w.close()
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

// A writer builds one document.
type writer struct {
	root string
	b    bytes.Buffer
}

func open(root, namespace string) *writer {
	w := &writer{root: root}
	w.b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>`)
	w.tag(root, "xmlns", namespace)
	return w
}

func (w *writer) close() []byte {
	w.end(w.root)
	return w.b.Bytes()
}

func (w *writer) tag(name string, attributes ...string) {
	w.b.WriteString("<" + name)
	for i := 0; i+1 < len(attributes); i += 2 {
		w.b.WriteString(" " + attributes[i] + `="`)
		w.escape(attributes[i+1])
		w.b.WriteString(`"`)
	}
	w.b.WriteString(">")
}

func (w *writer) end(name string) { w.b.WriteString("</" + name + ">") }

// escape writes text; what XML cannot hold becomes U+FFFD.
func (w *writer) escape(text string) {
	_ = xml.EscapeText(&w.b, []byte(text)) // a bytes.Buffer does not fail
}

func (w *writer) text(name, value string, attributes ...string) {
	w.tag(name, attributes...)
	w.escape(value)
	w.end(name)
}

func (w *writer) device(name, id string) {
	w.text(name, id, "typeOfNumber", "other", "mediaClass", "notKnown")
}

// all writes members of a filter, each true.
func (w *writer) all(names ...string) {
	for _, n := range names {
		w.text(n, "true")
	}
}

func (w *writer) in(name string, content func(), attributes ...string) {
	w.tag(name, attributes...)
	content()
	w.end(name)
}

func (w *writer) private(name string, content func()) {
	w.in("extensions", func() {
		w.in("privateData", func() {
			w.in("private", func() { w.in(name, content, "xmlns", NamespaceAvaya) })
		})
	})
}
