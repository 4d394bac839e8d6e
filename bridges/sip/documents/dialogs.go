package documents

import (
	"slices"

	"presenced/aggregator/presence"
	"presenced/internal/xmltext"
)

// DialogsType is the media type of a DialogInfo.
const DialogsType = "application/dialog-info+xml"

// A DialogInfo says what the phone of Entity does, for busy lamps: the body of a
// NOTIFY for the package dialog (RFC 4235).
type DialogInfo struct {
	Version uint32 // one more in every NOTIFY of a subscription
	Full    bool   // else it tells only what changed
	Entity  string // the URI of the phone
	Dialogs []Dialog
}

// A Dialog is one call at a phone. State is one of trying, proceeding, early,
// confirmed and terminated; Direction initiator, recipient, or empty where that is
// not known.
type Dialog struct {
	ID        string // unique in the document
	Direction string
	State     string
	Held      bool // nothing is played to the user: the call is on hold
}

// The ids of our dialogs. A phone has at most one call that it takes part in, and
// one that rings, as far as we tell: each keeps its id, and a call that is answered
// goes from one to the other. A lamp shows no difference.
const (
	callID = "presenced-call"
	ringID = "presenced-ring"
)

// Dialogs gives the calls of a phone channel, which is to be that of a view. A
// phone of which nothing is known has none.
func Dialogs(phone presence.Channel) []Dialog {
	ring := Dialog{ID: ringID, Direction: "recipient", State: "early"}
	call := Dialog{ID: callID, State: "confirmed"}
	switch phone.State {
	case presence.ChannelRinging:
		return []Dialog{ring}
	case presence.ChannelDialing:
		call.Direction, call.State = "initiator", "trying"
	case presence.ChannelHeld:
		call.Held = true
	case presence.ChannelInUse, presence.ChannelConference:
	case presence.ChannelInUseRinging:
		return []Dialog{call, ring}
	default:
		return nil
	}
	return []Dialog{call}
}

// DialogChanges gives what a partial document says when a phone channel was one
// and is now another: the dialogs that are new or changed, and those that ended.
func DialogChanges(was, is presence.Channel) []Dialog {
	before, now := Dialogs(was), Dialogs(is)
	var changes []Dialog
	for _, d := range before {
		if !slices.ContainsFunc(now, func(n Dialog) bool { return n.ID == d.ID }) {
			changes = append(changes, Dialog{ID: d.ID, Direction: d.Direction, State: "terminated"})
		}
	}
	for _, d := range now {
		if !slices.Contains(before, d) {
			changes = append(changes, d)
		}
	}
	return changes
}

// Append appends d to dst as a complete XML document.
func (d *DialogInfo) Append(dst []byte) []byte {
	x := xmltext.Writer(dst)
	x.Raw(declaration + `<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info"`)
	x.Attribute("version", decimal(d.Version))
	x.Attribute("state", state(d.Full))
	x.Attribute("entity", d.Entity)
	x.Raw(">")
	for _, c := range d.Dialogs {
		x.Raw("\n<dialog")
		x.Attribute("id", c.ID)
		if c.Direction != "" {
			x.Attribute("direction", c.Direction)
		}
		x.Raw(">")
		x.Element("state", c.State)
		if c.Held {
			x.Raw("<local><target")
			x.Attribute("uri", d.Entity)
			x.Raw(`><param pname="+sip.rendering" pval="no"/></target></local>`)
		}
		x.Raw("</dialog>")
	}
	x.Raw("</dialog-info>\n")
	return x
}

// ParseDialogInfo reads what Append writes, and what other servers do.
func ParseDialogInfo(data []byte) (DialogInfo, error) {
	var info DialogInfo
	var dialog *Dialog
	side := "" // local or remote
	err := read(data, "dialog-info", func(e element) (err error) {
		switch {
		case e.parent == "":
			info.Full, info.Entity = e.attribute("state") == "full", e.attribute("entity")
			info.Version, err = number(e.attribute("version"), "version")
		case e.name == "dialog" && e.parent == "dialog-info":
			if len(info.Dialogs) == MaxEntries {
				return tooMany("dialogs")
			}
			info.Dialogs = append(info.Dialogs, Dialog{ID: e.attribute("id"), Direction: e.attribute("direction")})
			dialog = &info.Dialogs[len(info.Dialogs)-1]
		case e.parent == "dialog":
			side = e.name
		case dialog != nil && side == "local" && e.name == "param" && e.attribute("pname") == "+sip.rendering":
			dialog.Held = e.attribute("pval") == "no"
		}
		return err
	}, func(e element) error {
		switch {
		case dialog != nil && e.name == "state" && e.parent == "dialog":
			dialog.State = e.text
		case e.name == "dialog" && e.parent == "dialog-info":
			dialog = nil
		}
		return nil
	})
	if err != nil {
		return DialogInfo{}, err
	}
	return info, nil
}
