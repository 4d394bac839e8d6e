package lps

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"presenced/bridges/sip/wire"
)

// A Route is the way to the watcher of a dialog, and the head of its NOTIFYs. It is
// the flow that the last SUBSCRIBE came over, whatever Contact says: so that NAT is
// crossed, a proxy stays in the way, and nobody can have NOTIFYs sent to a third
// address. Where that was a connection which has ended, another one is made, if
// Contact names the same host.
type Route struct {
	flow  wire.Flow
	again netip.AddrPort // where another connection is made to; zero: nowhere
	head  *wire.Template

	way *way // what it was made of, until it is kept
}

// A way is what is kept of a route.
type way struct {
	Network string         `json:"network"`
	Remote  netip.AddrPort `json:"remote"`
	Again   netip.AddrPort `json:"again,omitzero"`
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
	return &Route{flow: flow, again: w.Again, head: head, way: w}, nil
}

// other gives the route over a new connection, or nil where there is none to try.
func (r *Route) other() *Route {
	if !r.again.IsValid() {
		return nil
	}
	return &Route{flow: wire.FlowTo(wire.TCP, r.again, ""), head: r.head, way: r.way}
}

// hostOf gives the address of a Contact, if its host is the one of a TCP connection.
func hostOf(contact []byte, flow wire.Flow) netip.AddrPort {
	if flow.Network != wire.TCP {
		return netip.AddrPort{}
	}
	_, host, _ := bytes.Cut(contact, []byte{'@'})
	if i := bytes.IndexAny(host, ";?"); i >= 0 {
		host = host[:i]
	}
	at, err := netip.ParseAddrPort(string(host))
	if err != nil {
		alone, err := netip.ParseAddr(strings.Trim(string(host), "[]"))
		if err != nil {
			return netip.AddrPort{}
		}
		at = netip.AddrPortFrom(alone, 5060)
	}
	if at.Port() == 0 || at.Addr().Unmap() != flow.Remote.Addr().Unmap() {
		return netip.AddrPort{}
	}
	return at
}

// flowTo gives the flow of a route that was kept. A connection is lost, but another
// one may be made.
func (w *way) flowTo() (flow wire.Flow, lost bool, err error) {
	if !w.Remote.IsValid() {
		return wire.Flow{}, false, fmt.Errorf("a route without an address")
	}
	switch w.Network {
	case wire.UDP.String():
		return wire.FlowTo(wire.UDP, w.Remote, ""), false, nil
	case wire.TCP.String(), wire.TLS.String():
		if w.Again.IsValid() {
			return wire.FlowTo(wire.TCP, w.Again, ""), false, nil
		}
		return wire.Flow{Network: wire.TCP, Remote: w.Remote}, true, nil
	}
	return wire.Flow{}, false, fmt.Errorf("a route over the network %.10q", w.Network)
}

// lost tells whether the way went with the sockets of an earlier run.
func (r *Route) lost() bool { return r.flow.Network != wire.UDP && !r.again.IsValid() }
