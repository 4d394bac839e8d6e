package lps

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"presenced/bridges/pidf"
	"presenced/bridges/sip/wire"
	"presenced/internal/config"
	"presenced/internal/htdigest"
)

// Config is one entry of the lps: section: one Local Presence Service.
type Config struct {
	Name           string       `yaml:"name" default:"lps" doc:"Name of this bridge, unique among sources and bridges. Subscriptions are kept under it across a restart, and what endpoints publish is from the source NAME/1, NAME/2, ... of their presentity (NAME/1@MACHINE where several machines share a cluster)."`
	Transport      wire.Config  `yaml:"transport" doc:"Where to listen, and how much to bear."`
	Domains        []string     `yaml:"domains" doc:"Domains after the @ of those whose presence is served here, such as example.com. The first one completes the user names of accounts."`
	Realm          string       `yaml:"realm" doc:"Realm of digest authentication; passwords are hashed with it. Empty: the first domain."`
	Algorithms     []string     `yaml:"algorithms" default:"SHA-256,MD5" doc:"Algorithms of digest authentication to offer, the best first: SHA-256, MD5. Many phones look at the first one only; list MD5 first, or alone, for those."`
	AccountsFile   string       `yaml:"accounts_file" doc:"File with a line user:realm:HA1 for each account, as htdigest writes it; 32 digits are MD5, 64 are SHA-256. It is read again when it changes."`
	Publishers     []string     `yaml:"publishers" doc:"Accounts that may publish for everybody. Others may for themselves only."`
	Administrators []string     `yaml:"administrators" doc:"Accounts that may ask who watches others (presence.winfo)."`
	Trusted        []string     `yaml:"trusted" doc:"Addresses or networks of proxies that have authenticated what they forward: From is believed, and nobody is asked for a password. An address by UDP can be forged."`
	Anonymous      bool         `yaml:"anonymous" default:"false" doc:"Whether who shows no password may watch by TCP or TLS, as sip:anonymous@anonymous.invalid. By UDP the source of a message can be forged."`
	Lists          []ListConfig `yaml:"lists" doc:"Lists to subscribe to as a whole. Each group of the directory is one already: group-NAME@ the first domain."`

	MinExpires     time.Duration `yaml:"min_expires" default:"60s" doc:"Shortest subscription to grant; who asks for less gets 423."`
	DefaultExpires time.Duration `yaml:"default_expires" default:"1h" doc:"Subscription to grant to who does not ask for a time."`
	MaxExpires     time.Duration `yaml:"max_expires" default:"2h" doc:"Longest subscription to grant."`
	MinPublish     time.Duration `yaml:"min_publish" default:"60s" doc:"Shortest publication to grant; who asks for less gets 423."`
	DefaultPublish time.Duration `yaml:"default_publish" default:"10m" doc:"Publication to grant to who does not ask for a time."`
	MaxPublish     time.Duration `yaml:"max_publish" default:"1h" doc:"Longest publication to grant."`
	NotifyInterval time.Duration `yaml:"notify_min_interval" default:"1s" doc:"Least time between two NOTIFYs of a subscription that asks for no other rate (RFC 6446)."`
	Storm          int           `yaml:"storm" default:"50" doc:"Subscriptions in one second from which on times are granted that differ by up to a fifth, so that all do not come back at once. 0: never."`

	MaxSubscriptions    int    `yaml:"max_subscriptions" default:"100000" doc:"Subscriptions, and entries of lists, in all; more are answered 503."`
	MaxEach             int    `yaml:"max_subscriptions_each" default:"1000" doc:"The same of one watcher."`
	MaxList             int    `yaml:"max_list" default:"500" doc:"Entries of one list; more are answered 413."`
	MaxPublications     int    `yaml:"max_publications" default:"100000" doc:"Publications in all; more are answered 503."`
	MaxPublicationsEach int    `yaml:"max_publications_each" default:"8" doc:"Publications of one presentity: its devices."`
	MaxBody             int    `yaml:"max_body" default:"32768" doc:"Bytes of a body; more are answered 413."`
	BusyBasic           string `yaml:"busy_basic" default:"open" doc:"Basic status of a person who is busy: open, or closed as Cisco has it."`
}

// ListConfig is one entry of lists.
type ListConfig struct {
	Address string   `yaml:"address" doc:"SIP address of the list, such as sip:sales@example.com."`
	Members []string `yaml:"members" doc:"SIP addresses of those in it."`
}

// DefaultConfig gives a Config with the defaults filled in, but for domains.
func DefaultConfig() Config {
	var c defaults
	if err := config.Parse("", nil, &c); err != nil {
		panic(fmt.Sprintf("lps: the defaults in the tags: %v", err))
	}
	return Config(c)
}

// A defaults is a Config that is not right yet, for want of domains.
type defaults Config

// Check implements config.Checker.
func (*defaults) Check() []config.Problem { return nil }

// Check finds every problem, without I/O.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	wrong := func(path, format string, args ...any) {
		ps = append(ps, config.Wrong(path, format, args...))
	}
	if c.Name == "" {
		wrong("name", "a name is needed")
	}
	ps = append(ps, config.Under("transport", c.Transport.Check())...)
	if len(c.Domains) == 0 {
		wrong("domains", "at least one domain is needed, such as example.com")
	}
	for _, d := range c.Domains {
		if a, ok := Address("sip:a@" + d); !ok || a != "a@"+strings.ToLower(d) {
			wrong("domains", "%q is no domain: want something like example.com", d)
		}
	}
	if strings.ContainsAny(c.Realm, "\"\\:\r\n") {
		wrong("realm", "%q: want no quote, backslash or colon", c.Realm)
	}
	if len(c.Algorithms) == 0 {
		wrong("algorithms", "want SHA-256, MD5 or both")
	}
	for _, a := range c.Algorithms {
		if a != htdigest.SHA256 && a != htdigest.MD5 {
			wrong("algorithms", "%q is neither SHA-256 nor MD5", a)
		}
	}
	if _, bad := networks(c.Trusted); bad != "" {
		wrong("trusted", "%q is no address or network: want something like 192.0.2.1 or 192.0.2.0/24", bad)
	}
	for i, l := range c.Lists {
		if _, ok := Address(l.Address); !ok {
			wrong(fmt.Sprintf("lists[%d].address", i), "%q is no SIP address: want something like sip:sales@example.com", l.Address)
		}
		for _, m := range l.Members {
			if _, ok := Address(m); !ok {
				wrong(fmt.Sprintf("lists[%d].members", i), "%q is no SIP address", m)
			}
		}
		if len(l.Members) > c.MaxList {
			wrong(fmt.Sprintf("lists[%d].members", i), "%d are more than max_list, %d", len(l.Members), c.MaxList)
		}
	}
	ordered := func(low, middle, high string, l Life) {
		if l.Min < time.Second || l.Max > 24*time.Hour || l.Default < l.Min || l.Max < l.Default {
			wrong(low, "%s, %s and %s are to rise from at least 1s to at most 24h", low, middle, high)
		}
	}
	ordered("min_expires", "default_expires", "max_expires", c.subscriptions())
	ordered("min_publish", "default_publish", "max_publish", c.publications())
	if c.NotifyInterval < 0 || c.NotifyInterval > time.Minute {
		wrong("notify_min_interval", "%v is not between 0s and 1m", c.NotifyInterval)
	}
	for path, n := range map[string]int{
		"max_subscriptions": c.MaxSubscriptions, "max_subscriptions_each": c.MaxEach, "max_list": c.MaxList, "max_publications": c.MaxPublications,
		"max_publications_each": c.MaxPublicationsEach, "max_body": c.MaxBody,
	} {
		if n < 1 {
			wrong(path, "%d is less than 1", n)
		}
	}
	if c.Storm < 0 {
		wrong("storm", "%d is less than 0", c.Storm)
	}
	if b := pidf.Basic(c.BusyBasic); b != pidf.Open && b != pidf.Closed {
		wrong("busy_basic", "%q is neither open nor closed", c.BusyBasic)
	}
	slices.SortStableFunc(ps, func(a, b config.Problem) int { return strings.Compare(a.Path, b.Path) })
	return ps
}

func (c *Config) subscriptions() Life { return Life{c.MinExpires, c.DefaultExpires, c.MaxExpires} }

func (c *Config) publications() Life { return Life{c.MinPublish, c.DefaultPublish, c.MaxPublish} }

func (c *Config) realm() string {
	if c.Realm != "" || len(c.Domains) == 0 {
		return c.Realm
	}
	return strings.ToLower(c.Domains[0])
}

func (c *Config) limits() Limits {
	return Limits{
		Life: c.subscriptions(), Gap: c.NotifyInterval, Most: c.MaxSubscriptions, PerPeer: c.MaxEach, PerList: c.MaxList, StormPer: c.Storm,
	}
}

// networks reads addresses and networks; bad is the first that is neither.
func networks(texts []string) (all []netip.Prefix, bad string) {
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			all = append(all, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
		} else if p, err := netip.ParsePrefix(t); err == nil {
			all = append(all, p)
		} else {
			return nil, t
		}
	}
	return all, ""
}
