package wire

import (
	"fmt"
	"net/netip"
)

// A Network is what SIP goes over.
type Network uint8

// The networks.
const (
	UDP Network = iota + 1
	TCP
	TLS
)

// String gives the name as it stands in the configuration.
func (n Network) String() string {
	switch n {
	case UDP:
		return "udp"
	case TCP:
		return "tcp"
	case TLS:
		return "tls"
	}
	return fmt.Sprintf("network %d", uint8(n))
}

// via gives the name as it stands in Via.
func (n Network) via() string {
	return [...]string{UDP: "UDP", TCP: "TCP", TLS: "TLS"}[n]
}

// A Flow is a way to a peer (RFC 5626): by UDP the pair of addresses, else one
// connection. It is comparable. A flow of a request leads to whoever sent it, and
// stops working when its connection ends.
type Flow struct {
	Network Network
	Local   netip.AddrPort // zero: any, see FlowTo
	Remote  netip.AddrPort
	Name    string // that the certificate of the peer must have, for FlowTo by TLS
}

// FlowTo gives the way to an address without a flow: by UDP from the first socket of
// that family, else on a connection that FlowTo made before, or on a new one. name is
// for TLS: whom the certificate must name; empty: the address, or server_name of
// the configuration.
func FlowTo(n Network, remote netip.AddrPort, name string) Flow {
	return Flow{Network: n, Remote: plain(remote), Name: name}
}

// String gives something like "udp 192.0.2.1:5060".
func (f Flow) String() string { return f.Network.String() + " " + f.Remote.String() }

// plain takes an IPv4 address out of its IPv6 form.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
