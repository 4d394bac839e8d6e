package services

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/presence"
	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// A Service is one presence service: a presence server, the one that stands in
// for it, and who is published there. It holds no secret.
type Service struct {
	ID                string        `yaml:"id" doc:"Identifier, unique among services, sources and bridges: lower-case letters, digits and hyphens. It cannot be changed."`
	Primary           Server        `yaml:"primary" doc:"The server to publish to."`
	Secondary         Server        `yaml:"secondary" doc:"The server to publish to while the primary does not work; without a host there is none."`
	Transport         string        `yaml:"transport" default:"udp" doc:"How to reach the servers: udp, tcp, tls, or auto, where the DNS says which."`
	TLS               trust.Config  `yaml:"tls" doc:"Certificates, where transport is tls or auto."`
	SubscribeInterval time.Duration `yaml:"subscribe_interval" default:"600s" doc:"Life of a subscription to presence at the server, where subscribe is not off."`
	Subscribe         string        `yaml:"subscribe" default:"off" doc:"Whether to ask the server what others publish of the users (network presence): off, single (one subscription for each user), or list (one to list_uri)."`
	ListURI           string        `yaml:"list_uri" doc:"SIP address of the list that the server keeps, such as sip:friends@example.com, where subscribe is list."`
	NotifyAddress     string        `yaml:"notify_address" doc:"IP address of this machine and port where the server sends what is new, such as 192.0.2.1:5070; each service needs its own. Empty: any free port of the address that leads to the server."`
	PublishInterval   time.Duration `yaml:"publish_interval" default:"600s" doc:"Life of a publication to ask for. What is not refreshed within it, the server shows as unavailable."`
	Entity            string        `yaml:"entity" doc:"SIP address of a person, such as sip:{tel}@example.com. A scheme in braces stands for the person's first subject of that scheme; people without one are not published."`
	User              string        `yaml:"user" doc:"User name for digest authentication. Empty: the server does not ask."`
	PasswordFile      secret.File   `yaml:"password_file" doc:"File with the password of user, on the machine of the service; a full path."`
	Users             []string      `yaml:"users" doc:"Who is published: identifiers of people, group:NAME, or everyone. Empty: nobody."`
	MaxRemoved        int           `yaml:"max_removed" default:"20" doc:"Largest share of the people published before, in percent, that one change may remove without being forced."`
	Body              string        `yaml:"body" default:"rich" doc:"What documents hold: rich is all of PIDF, RPID and CIPID, plain the basic status and a note alone (RFC 3863), for servers that take no more."`
	BusyBasic         string        `yaml:"busy_basic" default:"open" doc:"Basic status of a person who is busy: open, or closed as Cisco has it."`
	OutOfOffice       string        `yaml:"out_of_office_basic" default:"open" doc:"Basic status of a person who is out of office: open or closed."`
	DisplayName       bool          `yaml:"display_name" default:"true" doc:"Whether documents have the name of the person."`
	Microsoft         bool          `yaml:"microsoft" default:"false" doc:"Whether documents have the activity also in the form that Microsoft's servers and clients read."`
	Cisco             bool          `yaml:"cisco" default:"false" doc:"Whether documents have the activity also in the form that phones of Cisco read."`
	Rate              int           `yaml:"rate" default:"0" doc:"Requests per second to each server at most. 0: 50, or twice what it takes to refresh everybody in time, whichever is more."`
}

// A Server is one presence server of a service.
type Server struct {
	Name string `yaml:"name" doc:"What people call it."`
	Host string `yaml:"host" doc:"Fully qualified name, or IP address."`
	Port int    `yaml:"port" default:"5060" doc:"Port. 0: the NAPTR and SRV records of host say where the server is (RFC 3263)."`
}

// Address gives host:port, the host alone where the DNS knows the port, and the empty
// string where there is no host.
func (s *Server) Address() string {
	if s.Host == "" || s.Port == 0 {
		return s.Host
	}
	return net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
}

// Words of a user list.
const (
	Everyone    = "everyone"
	GroupPrefix = "group:"
)

// Values of Subscribe.
const (
	SubscribeOff    = "off"
	SubscribeSingle = "single"
	SubscribeList   = "list"
)

// The limits of a service.
const (
	maxName  = 100
	maxUsers = 10000
	// maxForm bounds a service as it is stored: a value of the store takes a megabyte.
	maxForm = 512 << 10

	shortestInterval = 30 * time.Second
	longestInterval  = 24 * time.Hour
)

//nolint:gochecknoglobals // compiled once, never changed
var (
	idForm      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	labelForm   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	placeholder = regexp.MustCompile(`\{[a-z]+\}`)
)

// Check finds every problem, without I/O.
func (s *Service) Check() []config.Problem {
	var ps []config.Problem
	wrong := func(path, format string, args ...any) {
		ps = append(ps, config.Wrong(path, format, args...))
	}
	if !idForm.MatchString(s.ID) {
		wrong("id", "%.70q is not of 1 to 63 lower-case letters, digits and hyphens, a letter or digit at both ends", s.ID)
	}
	if s.Primary.Host == "" {
		wrong("primary.host", "a host is needed")
	}
	ps = append(ps, config.Under("primary", s.Primary.check())...)
	ps = append(ps, config.Under("secondary", s.Secondary.check())...)
	switch {
	case s.Secondary.Host == "" && s.Secondary.Name != "":
		wrong("secondary.host", "a host is needed where there is a name")
	case s.Secondary.Host != "" && s.Secondary.Address() == s.Primary.Address():
		wrong("secondary", "it is the same server as primary")
	}
	switch s.Transport {
	case "udp", "tcp":
	case "tls", "auto":
		ps = append(ps, config.Under("tls", s.TLS.Check())...)
		for key, file := range map[string]string{"tls.ca_file": s.TLS.CAFile, "tls.cert_file": s.TLS.CertFile, "tls.key_file": s.TLS.KeyFile} {
			if file != "" && !isPath(file) {
				wrong(key, "%.100q is no full path", file)
			}
		}
	default:
		wrong("transport", "%.20q is none of udp, tcp, tls, auto", s.Transport)
	}
	for path, d := range map[string]time.Duration{"subscribe_interval": s.SubscribeInterval, "publish_interval": s.PublishInterval} {
		if d < shortestInterval || d > longestInterval || d%time.Second != 0 {
			wrong(path, "%s is not between %s and %s, in whole seconds", d, shortestInterval, longestInterval)
		}
	}
	if len(s.Entity) > presence.MaxText || !placeholder.MatchString(s.Entity) {
		wrong("entity", "%.100q names no subject of a person: want something like sip:{tel}@example.com", s.Entity)
	}
	if (s.User == "") != (s.PasswordFile == "") {
		wrong("user", "user and password_file go together")
	}
	if !plain(s.User, maxName) {
		wrong("user", "is longer than %d bytes, or has control characters", maxName)
	}
	if s.PasswordFile != "" && !isPath(string(s.PasswordFile)) {
		wrong("password_file", "%.100q is no full path", string(s.PasswordFile))
	}
	ps = append(ps, s.checkUsers()...)
	if s.MaxRemoved < 0 || s.MaxRemoved > 100 {
		wrong("max_removed", "%d is not between 0 and 100 percent", s.MaxRemoved)
	}
	switch s.Subscribe {
	case SubscribeOff, SubscribeSingle:
		if s.ListURI != "" {
			wrong("list_uri", "has no effect unless subscribe is list")
		}
	case SubscribeList:
		if s.ListURI == "" {
			wrong("list_uri", "is needed where subscribe is list")
		}
	default:
		wrong("subscribe", "%.20q is none of off, single, list", s.Subscribe)
	}
	if s.Body != "rich" && s.Body != "plain" {
		wrong("body", "%.20q is neither rich nor plain", s.Body)
	}
	for path, basic := range map[string]string{"busy_basic": s.BusyBasic, "out_of_office_basic": s.OutOfOffice} {
		if basic != "open" && basic != "closed" {
			wrong(path, "%.20q is neither open nor closed", basic)
		}
	}
	if s.Rate < 0 || s.Rate > 10000 {
		wrong("rate", "%d is not between 0 and 10000", s.Rate)
	}
	if len(ps) == 0 && len(Format(*s)) > maxForm {
		wrong("users", "the service has more than %d bytes with them; use groups", maxForm)
	}
	slices.SortFunc(ps, func(a, b config.Problem) int { return strings.Compare(a.Path, b.Path) })
	return ps
}

func (s *Service) checkUsers() []config.Problem {
	if len(s.Users) > maxUsers {
		return []config.Problem{config.Wrong("users", "%d entries are more than %d; use groups, or everyone", len(s.Users), maxUsers)}
	}
	var ps []config.Problem
	seen := make(map[string]bool, len(s.Users))
	for i, u := range s.Users {
		at := "users[" + strconv.Itoa(i) + "]"
		switch {
		case u == "" || u == GroupPrefix || !plain(u, presence.MaxText) || strings.TrimSpace(u) != u:
			ps = append(ps, config.Wrong(at, "%.100q is neither the identifier of a person nor group:NAME nor everyone", u))
		case seen[u]:
			ps = append(ps, config.Wrong(at, "%.100q stands there twice", u))
		case u == Everyone && len(s.Users) > 1:
			ps = append(ps, config.Wrong(at, "nobody else needs to be named beside everyone"))
		}
		seen[u] = true
	}
	return ps
}

func (s *Server) check() []config.Problem {
	var ps []config.Problem
	if !plain(s.Name, maxName) {
		ps = append(ps, config.Wrong("name", "is longer than %d bytes, or has control characters", maxName))
	}
	if s.Host != "" && !isHost(s.Host) {
		ps = append(ps, config.Wrong("host", "%.100q is neither a fully qualified name nor an IP address", s.Host))
	}
	if s.Port < 0 || s.Port > 65535 {
		ps = append(ps, config.Wrong("port", "%d is not between 0 and 65535", s.Port))
	}
	return ps
}

func isPath(file string) bool { return strings.HasPrefix(file, "/") && plain(file, presence.MaxText) }

func isHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Zone() == ""
	}
	labels := strings.Split(host, ".")
	if len(host) > 253 || strings.Trim(labels[len(labels)-1], "0123456789") == "" { // it would be a broken address
		return false
	}
	return !slices.ContainsFunc(labels, func(l string) bool { return !labelForm.MatchString(l) })
}

// plain tells whether text is on one line and of at most so many bytes.
func plain(text string, most int) bool {
	return len(text) <= most && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' })
}

// Covers gives who is named by the user list, as it is now.
func (s *Service) Covers() func(*presence.Person) bool {
	named := make(map[string]bool, len(s.Users))
	for _, u := range s.Users {
		named[u] = true
	}
	return func(p *presence.Person) bool {
		return named[Everyone] || named[string(p.ID)] ||
			slices.ContainsFunc(p.Groups, func(g string) bool { return named[GroupPrefix+g] })
	}
}
