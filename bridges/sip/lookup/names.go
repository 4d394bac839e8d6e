package lookup

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	queryTime   = time.Second // for the answer of one name server
	maxServers  = 3           // as resolv.conf has them
	maxDatagram = 1232        // bytes of an answer by UDP; a longer one comes by TCP
	typeNAPTR   = dnsmessage.Type(35)
)

// names asks the DNS. Addresses come from the system's resolver, which knows the
// hosts file and other ways; NAPTR and SRV records, with their time to live, from the
// name servers themselves. The zero value asks those of the system.
type names struct {
	hosts   *net.Resolver // nil: the system's
	servers []string      // host:port; nil: those of /etc/resolv.conf
}

// A service is a NAPTR record: where the SRV records of a transport stand.
type service struct {
	order, preference uint16
	transport, name   string
}

// A srvRecord is one of RFC 2782; without a host it says that there is no service.
type srvRecord struct {
	priority, weight, port uint16
	host                   string
}

func (n *names) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	r := n.hosts
	if r == nil {
		r = net.DefaultResolver
	}
	ips, err := r.LookupNetIP(ctx, "ip", host)
	if err == nil && len(ips) == 0 {
		err = fmt.Errorf("%s has no address", host)
	}
	return ips, err
}

// naptr gives the services of host that one of the transports serves, the one to
// prefer first (RFC 3263 section 4.1), and how long that holds.
func (n *names) naptr(ctx context.Context, host string, able []string) ([]service, time.Duration, error) {
	answers, ttl, err := n.ask(ctx, host, typeNAPTR)
	var found []service
	for i := range answers {
		body, ok := answers[i].Body.(*dnsmessage.UnknownResource)
		if !ok {
			continue
		}
		if s, ok := parseNAPTR(body.Data); ok && slices.Contains(able, s.transport) {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, func(a, b service) int {
		return (int(a.order)-int(b.order))<<16 + int(a.preference) - int(b.preference)
	})
	return found, ttl, err
}

// parseNAPTR reads the data of a record (RFC 3403 section 4) that leads to SRV.
func parseNAPTR(data []byte) (service, bool) {
	if len(data) < 4 {
		return service{}, false
	}
	s := service{order: binary.BigEndian.Uint16(data), preference: binary.BigEndian.Uint16(data[2:])}
	data = data[4:]
	var texts [3]string // flags, services, regular expression
	for i := range texts {
		if len(data) == 0 || len(data) <= int(data[0]) {
			return service{}, false
		}
		texts[i], data = string(data[1:1+data[0]]), data[1+data[0]:]
	}
	switch strings.ToUpper(texts[1]) {
	case "SIP+D2U":
		s.transport = "udp"
	case "SIP+D2T":
		s.transport = "tcp"
	case "SIPS+D2T":
		s.transport = "tls"
	}
	var labels []string // the replacement is never compressed
	for len(data) > 0 && data[0] > 0 {
		if data[0] > 63 || len(data) <= int(data[0]) {
			return service{}, false
		}
		labels, data = append(labels, string(data[1:1+data[0]])), data[1+data[0]:]
	}
	s.name = strings.Join(labels, ".")
	return s, strings.EqualFold(texts[0], "s") && texts[2] == "" && s.transport != "" && s.name != "" && len(data) == 1
}

func (n *names) srv(ctx context.Context, name string) ([]srvRecord, time.Duration, error) {
	answers, ttl, err := n.ask(ctx, name, dnsmessage.TypeSRV)
	var found []srvRecord
	for i := range answers {
		if r, ok := answers[i].Body.(*dnsmessage.SRVResource); ok {
			found = append(found, srvRecord{r.Priority, r.Weight, r.Port, strings.TrimSuffix(r.Target.String(), ".")})
		}
	}
	return found, ttl, err
}

// ask gives the records of a name, and the shortest time to live among them. That
// there are none is no error.
func (n *names) ask(ctx context.Context, name string, kind dnsmessage.Type) ([]dnsmessage.Resource, time.Duration, error) {
	full, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, err)
	}
	servers := n.servers
	if servers == nil {
		servers = nameServers("/etc/resolv.conf")
	}
	question := dnsmessage.Question{Name: full, Type: kind, Class: dnsmessage.ClassINET}
	var errs []error
	for _, server := range servers {
		answers, err := query(ctx, server, &question)
		if err != nil {
			errs = append(errs, fmt.Errorf("name server %s about %s: %w", server, name, err))
			continue
		}
		answers = slices.DeleteFunc(answers, func(r dnsmessage.Resource) bool { return r.Header.Type != kind })
		var ttl time.Duration
		for i := range answers {
			ttl = least(ttl, max(time.Duration(answers[i].Header.TTL)*time.Second, time.Second))
		}
		return answers, ttl, nil
	}
	return nil, 0, errors.Join(errs...)
}

// nameServers reads those of a resolv.conf; where there is none, the one of this machine.
func nameServers(file string) []string {
	var servers []string
	if f, err := os.Open(file); err == nil { //nolint:gosec // the system's
		defer f.Close()
		for s := bufio.NewScanner(io.LimitReader(f, 1<<16)); s.Scan() && len(servers) < maxServers; {
			if words := strings.Fields(s.Text()); len(words) > 1 && words[0] == "nameserver" {
				servers = append(servers, net.JoinHostPort(words[1], "53"))
			}
		}
	}
	if len(servers) == 0 {
		return []string{"127.0.0.1:53"}
	}
	return servers
}

// query asks one name server, by UDP, and by TCP where the answer is too long for that.
func query(ctx context.Context, server string, q *dnsmessage.Question) ([]dnsmessage.Resource, error) {
	ask := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true}, //nolint:gosec // beside a random port
		Questions: []dnsmessage.Question{*q},
	}
	packed, err := ask.Pack()
	if err != nil {
		return nil, err
	}
	for _, network := range []string{"udp", "tcp"} {
		h, answers, err := exchange(ctx, network, server, packed, ask.ID, q)
		switch {
		case err != nil:
			return nil, err
		case h.Truncated && network == "udp":
			continue
		case h.RCode == dnsmessage.RCodeNameError:
			return nil, nil
		case h.RCode != dnsmessage.RCodeSuccess:
			return nil, fmt.Errorf("it answers %s", strings.TrimPrefix(h.RCode.String(), "RCode"))
		}
		return answers, nil
	}
	return nil, errors.New("the answer is cut off, by TCP too")
}

// exchange sends a query and waits for what answers it; what else comes is ignored.
func exchange(ctx context.Context, network, server string, packed []byte, id uint16, q *dnsmessage.Question) (dnsmessage.Header, []dnsmessage.Resource, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server)
	if err != nil {
		return dnsmessage.Header{}, nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, maxDatagram)
	read := conn.Read
	if network == "tcp" {
		packed = append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...) //nolint:gosec // a question is short
		read = func([]byte) (int, error) {
			var length [2]byte
			if _, err := io.ReadFull(conn, length[:]); err != nil {
				return 0, err
			}
			buf = make([]byte, binary.BigEndian.Uint16(length[:]))
			return io.ReadFull(conn, buf)
		}
	}
	if _, err := conn.Write(packed); err != nil {
		return dnsmessage.Header{}, nil, err
	}
	for {
		n, err := read(buf)
		if err != nil {
			return dnsmessage.Header{}, nil, err
		}
		if h, answers, ok := parseReply(buf[:n], id, q); ok {
			return h, answers, nil
		}
	}
}

// parseReply gives the header and the answers of what a name server sent, if it
// is the answer to the question with this number. What follows a cut is not read.
func parseReply(data []byte, id uint16, q *dnsmessage.Question) (dnsmessage.Header, []dnsmessage.Resource, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(data)
	if err != nil || h.ID != id || !h.Response {
		return h, nil, false
	}
	asked, err := p.Question()
	if err != nil || asked.Type != q.Type || asked.Class != q.Class || !strings.EqualFold(asked.Name.String(), q.Name.String()) {
		return h, nil, false
	}
	if h.Truncated {
		return h, nil, true
	}
	if p.SkipAllQuestions() != nil {
		return h, nil, false
	}
	answers, err := p.AllAnswers()
	return h, answers, err == nil
}
