package lps

import (
	"fmt"
	"net/netip"

	"presenced/bridges/sip/wire"
)

// A Route is the way to the watcher of a dialog, and the head of its NOTIFYs. It is
// always the flow that the last SUBSCRIBE came over, whatever Contact says: so that
// NAT is crossed, a proxy stays in the way, and nobody can have NOTIFYs sent to a
// third address.
type Route struct {
	flow wire.Flow
	head *wire.Template

	way *way // what it was made of, until it is kept
}

// A way is what is kept of a route.
type way struct {
	Network string         `json:"network"`
	Remote  netip.AddrPort `json:"remote"`
	URI     string         `json:"uri"` // Contact of the watcher
	From    string         `json:"from"`
	To      string         `json:"to"`
	Lines   string         `json:"lines"`
}

// route makes a route from w over a flow.
func (w *way) route(call string, flow wire.Flow) (*Route, error) {
	head, err := wire.NewTemplate("NOTIFY", w.URI, call, w.From, w.To, []byte(w.Lines))
	if err != nil {
		return nil, err
	}
	return &Route{flow: flow, head: head, way: w}, nil
}

// flowTo gives the flow of a route that was kept. Only by UDP it still leads there.
func (w *way) flowTo() (flow wire.Flow, lost bool, err error) {
	if !w.Remote.IsValid() {
		return wire.Flow{}, false, fmt.Errorf("a route without an address")
	}
	switch w.Network {
	case wire.UDP.String():
		return wire.FlowTo(wire.UDP, w.Remote, ""), false, nil
	case wire.TCP.String(), wire.TLS.String():
		return wire.Flow{Network: wire.TCP, Remote: w.Remote}, true, nil
	}
	return wire.Flow{}, false, fmt.Errorf("a route over the network %.10q", w.Network)
}

// lost tells whether the way went with the sockets of an earlier run.
func (r *Route) lost() bool { return r.flow.Network != wire.UDP }
