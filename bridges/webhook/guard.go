package webhook

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// errForbidden is why an address is not connected to.
var errForbidden = errors.New("is not posted to")

// A guard says which addresses are connected to, whatever name led there: link-local
// and multicast ones are never what is meant, and clouds give secrets to everybody
// who asks at some of them.
type guard struct {
	allowed []netip.Prefix
	plain   bool // nothing is encrypted, and only this machine may read it
}

// networks reads prefixes and single addresses.
func networks(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			ip, bad := netip.ParseAddr(text)
			if bad != nil {
				return nil, fmt.Errorf("%.60q is no network such as 169.254.10.0/24", text)
			}
			p = netip.PrefixFrom(ip, ip.BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}

// metadata are addresses at which clouds answer, outside the link-local ones.
var metadata = []netip.Addr{ //nolint:gochecknoglobals // a table, never changed
	netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("fd00:ec2::254"),
}

// translated is the prefix of IPv4 addresses behind a translator (RFC 6052).
var translated = netip.MustParsePrefix("64:ff9b::/96") //nolint:gochecknoglobals // a constant

// check is the Control of a dialer: address is that of the connection to be made.
func (g *guard) check(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%.60q %w: it is no address", address, errForbidden)
	}
	ip := to.Addr().Unmap().WithZone("")
	if translated.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	if slices.ContainsFunc(g.allowed, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return nil
	}
	var what string
	switch {
	case ip.IsLinkLocalUnicast():
		what = "a link-local address"
	case ip.IsMulticast() || ip.IsUnspecified() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		what = "not the address of one machine"
	case slices.Contains(metadata, ip):
		what = "where clouds keep metadata"
	case g.plain && !ip.IsLoopback():
		return fmt.Errorf("%s %w: it is not this machine, and http is not encrypted; use https, or set allow_plain", ip, errForbidden)
	default:
		return nil
	}
	return fmt.Errorf("%s %w: it is %s; if it is meant, name it in allow_addresses", ip, errForbidden, what)
}
