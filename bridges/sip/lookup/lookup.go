// Package lookup finds where SIP servers are: the NAPTR, SRV and address records of
// RFC 3263, in the order of RFC 2782, for as long as they live.
package lookup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxTargets  = 8                // of one server
	shortestTTL = 30 * time.Second // however short the DNS says
	longestTTL  = time.Hour
	usualTTL    = time.Minute     // of addresses, which the resolver gives without one
	lookupTime  = 8 * time.Second // for all queries about one server
)

// Auto is the transport that leaves the choice to the DNS.
const Auto = "auto"

// A Target is where the requests for a server go.
type Target struct {
	Transport string // udp, tcp or tls
	At        netip.AddrPort
}

// A Locator finds the targets of servers (RFC 3263), and remembers them as long as the
// DNS says, between 30 seconds and an hour. It is safe for concurrent use.
type Locator struct {
	names names

	mu    sync.Mutex
	found map[string]located // by transport and address
}

// A located is what is remembered of a server.
type located struct {
	targets []Target
	until   time.Time
}

// New makes a Locator that asks these name servers, each host:port, one after the other;
// none: those of the system, and its hosts file.
func New(servers ...string) *Locator {
	l := &Locator{found: map[string]located{}}
	if len(servers) > 0 {
		l.names = names{servers: servers, hosts: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, servers[0])
		}}}
	}
	return l
}

// Find gives the targets of the server at address, which is as SplitAddress takes it,
// in the order in which they are to be tried: each once, at least one unless there is an
// error, and eight at most. transport may be Auto. It takes eight seconds at most. The
// targets must not be changed.
func (l *Locator) Find(ctx context.Context, address, transport string) ([]Target, error) {
	key := transport + " " + address
	now := time.Now()
	l.mu.Lock()
	known, ok := l.found[key]
	l.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.targets, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	targets, ttl, err := l.names.locate(ctx, address, transport)
	if err != nil {
		return nil, err
	}
	targets = distinct(targets)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found[key] = located{targets, now.Add(min(max(ttl, shortestTTL), longestTTL))}
	return targets, nil
}

// distinct leaves out what came before, and what is too many.
func distinct(targets []Target) []Target {
	var once []Target
	for _, to := range targets {
		if len(once) < maxTargets && !slices.Contains(once, to) {
			once = append(once, to)
		}
	}
	return once
}

// Fresh tells whether Find would give what it gave before. An address with a port is
// always fresh: what works of it is kept, because names of hosts may be given one
// address of many, another each time.
func (l *Locator) Fresh(address, transport string) bool {
	if _, port, err := SplitAddress(address); err != nil || port != 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.found[transport+" "+address].until)
}

// Forget has the server looked up again, because what was found does not answer.
func (l *Locator) Forget(address, transport string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.found, transport+" "+address)
}

// transports gives those that a setting allows, the one that is best first.
func transports(setting string) []string {
	if setting == Auto {
		return []string{"tls", "tcp", "udp"}
	}
	return []string{setting}
}

// usualPort is the port of RFC 3261 section 19.1.2.
func usualPort(transport string) uint16 {
	if transport == "tls" {
		return 5061
	}
	return 5060
}

// locate is RFC 3263 section 4: an IP address or a port means that the address is
// fixed; else NAPTR says by which transport and under which name SRV records stand,
// SRV says which hosts and ports; where there is neither, the host itself is the one.
func (n *names) locate(ctx context.Context, address, transport string) ([]Target, time.Duration, error) {
	host, port, err := SplitAddress(address)
	if err != nil {
		return nil, 0, err
	}
	able := transports(transport)
	plainest := able[len(able)-1] // where nobody says which: UDP, if it is allowed
	if _, err := netip.ParseAddr(host); err == nil || port != 0 {
		if port == 0 {
			port = usualPort(plainest)
		}
		targets, err := n.at(ctx, plainest, host, port)
		return targets, usualTTL, err
	}
	services, ttl, trouble := n.naptr(ctx, host, able)
	if len(services) == 0 {
		for _, t := range able {
			services = append(services, service{transport: t, name: srvName(t, host)})
		}
	}
	for _, s := range services {
		records, life, err := n.srv(ctx, s.name)
		trouble = errors.Join(trouble, err)
		if len(records) == 0 {
			continue
		}
		ttl = least(ttl, life)
		var targets []Target
		for _, r := range ordered(records, rand.IntN) {
			if r.host == "" { // RFC 2782: decidedly not available
				trouble = errors.Join(trouble, fmt.Errorf("%s says that there is no such service", s.name))
				continue
			}
			more, err := n.at(ctx, s.transport, r.host, r.port)
			trouble = errors.Join(trouble, err)
			targets = append(targets, more...)
		}
		if len(targets) == 0 {
			return nil, 0, trouble
		}
		return targets, ttl, nil
	}
	targets, err := n.at(ctx, plainest, host, usualPort(plainest))
	if err != nil {
		return nil, 0, errors.Join(trouble, err)
	}
	return targets, usualTTL, nil
}

// srvName is where RFC 3263 section 4.1 looks without a NAPTR record.
func srvName(transport, host string) string {
	switch transport {
	case "tls":
		return "_sips._tcp." + host
	case "tcp":
		return "_sip._tcp." + host
	default:
		return "_sip._udp." + host
	}
}

// at gives the addresses of host, those of IPv4 first.
func (n *names) at(ctx context.Context, transport, host string, port uint16) ([]Target, error) {
	ips, err := n.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { return cmp.Compare(a.Unmap().BitLen(), b.Unmap().BitLen()) })
	targets := make([]Target, 0, len(ips))
	for _, ip := range ips {
		targets = append(targets, Target{transport, netip.AddrPortFrom(ip.Unmap(), port)})
	}
	return targets, nil
}

// least gives the shorter time of those that are known.
func least(a, b time.Duration) time.Duration {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// ordered gives records as RFC 2782 has them tried: by priority, and among equals at
// random, by weight. pick gives a number in [0, n).
func ordered(records []srvRecord, pick func(n int) int) []srvRecord {
	rest := slices.Clone(records)
	slices.SortStableFunc(rest, func(a, b srvRecord) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.weight, b.weight)) // those without weight first
	})
	for i := range rest {
		peers := rest[i:]
		sum := 0
		for j, r := range peers {
			if r.priority != peers[0].priority {
				peers = peers[:j]
				break
			}
			sum += int(r.weight)
		}
		chosen, at := pick(sum+1), 0
		for sum = int(peers[0].weight); sum < chosen; sum += int(peers[at].weight) {
			at++
		}
		first := peers[at]
		copy(peers[1:at+1], peers[:at])
		peers[0] = first
	}
	return rest
}

// SplitAddress gives the parts of the address of a server: "host", "host:port" or
// "[IPv6]:port"; port zero means that there is none.
func SplitAddress(address string) (host string, port uint16, err error) {
	host = address
	if _, err := netip.ParseAddr(strings.Trim(address, "[]")); err == nil {
		return strings.Trim(address, "[]"), 0, nil
	}
	if strings.Contains(address, ":") {
		name, digits, err := net.SplitHostPort(address)
		if err != nil {
			return "", 0, err
		}
		host = name
		number, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || number == 0 {
			return "", 0, &net.AddrError{Err: "no port", Addr: address}
		}
		port = uint16(number)
	}
	if host == "" || strings.ContainsAny(host, " \t\r\n/@<>;") {
		return "", 0, &net.AddrError{Err: "no host", Addr: address}
	}
	return strings.TrimSuffix(host, "."), port, nil
}
