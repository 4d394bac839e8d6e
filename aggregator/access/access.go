// Package access decides who may see what of whom: it keeps the rules, each
// durable before it counts, knows who watches whom and who waits to be let in, and
// is the presence.Gate that bridges ask. cmd administers it.
package access

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/internal/config"
)

// Config is the access: section.
type Config struct {
	Default       string        `yaml:"default" default:"full" doc:"What a watcher sees for whom no rule was set: block, confirm, telephony, status or full."`
	Calendar      string        `yaml:"calendar" default:"open" doc:"How much of the calendar of a person who chose nothing is seen at level full: hidden, times or open."`
	OptIn         bool          `yaml:"opt_in" doc:"Nobody is shown to anybody before they opted in, whatever the rules say."`
	BlockView     string        `yaml:"block_view" default:"offline" doc:"As what a watcher who may see nothing sees a person: offline or unknown."`
	Unread        string        `yaml:"unread" default:"hide" doc:"What watchers see while the store cannot be read at the start, so that nobody knows the rules: hide (everybody is unknown), or default (what they see without rules)."`
	AuditKeep     time.Duration `yaml:"audit_keep" default:"8760h" doc:"How long the audit trail is kept."`
	AuditMaxBytes int64         `yaml:"audit_max_bytes" default:"67108864" doc:"Largest size of the audit trail in the store, in bytes; beyond it the oldest goes."`
}

// Check tells what is wrong with c.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	if err := new(presence.Level).UnmarshalText([]byte(c.Default)); err != nil {
		ps = append(ps, config.Wrong("default", "%v", err))
	}
	if err := new(presence.CalendarPrivacy).UnmarshalText([]byte(c.Calendar)); err != nil {
		ps = append(ps, config.Wrong("calendar", "%v", err))
	}
	if c.BlockView != "offline" && c.BlockView != "unknown" {
		ps = append(ps, config.Wrong("block_view", "%q is neither offline nor unknown", c.BlockView))
	}
	if c.Unread != "hide" && c.Unread != "default" {
		ps = append(ps, config.Wrong("unread", "%q is neither hide nor default", c.Unread))
	}
	if c.AuditKeep < 24*time.Hour {
		ps = append(ps, config.Wrong("audit_keep", "%s is less than a day (24h)", c.AuditKeep))
	}
	if c.AuditMaxBytes < 1<<20 {
		ps = append(ps, config.Wrong("audit_max_bytes", "%d is less than 1 MiB", c.AuditMaxBytes))
	}
	return ps
}

// terms gives what holds without any rule. c must have no problems; a value that
// means nothing shows nothing.
func (c *Config) terms() terms {
	t := terms{optIn: c.OptIn, unknown: c.BlockView == "unknown", openUnread: c.Unread == "default"}
	_ = t.level.UnmarshalText([]byte(c.Default))
	_ = t.calendar.UnmarshalText([]byte(c.Calendar))
	return t
}

// A Kind is how a rule names the watchers that it is for.
type Kind uint8

// The kinds, the most specific first: a rule of that kind decides before all others.
const (
	ForWatcher Kind = iota // one: an address, or id:... for every address of a person
	ForGroup               // the members of a group of the directory
	ForDomain              // whose address has this behind the @
	ForDefault             // everybody else
	kindCount
)

var kindNames = [kindCount]string{"watcher", "group", "domain", "default"} //nolint:gochecknoglobals // a table, never changed

// String gives watcher, group, domain or default.
func (k Kind) String() string { return kindNames[k] }

// MarshalText gives the name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText accepts what String gives.
func (k *Kind) UnmarshalText(text []byte) error {
	i := slices.Index(kindNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("%.40q is none of watcher, group, domain, default", text)
	}
	*k = Kind(i) //nolint:gosec // bounded by the table
	return nil
}

// An Audience is the watchers that a rule is for. Name is an address with its
// scheme (jid:bob@example.com), a group, a domain, or empty for ForDefault.
type Audience struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name,omitempty"`
}

// Only is the audience of one watcher.
func Only(watcher presence.Subject) Audience {
	return Audience{ForWatcher, canonical(watcher).String()}
}

// String gives the audience in words, such as "group sales".
func (a Audience) String() string { return strings.TrimSpace(a.Kind.String() + " " + a.Name) }

// A Rule says what an audience may see of a person, or of everybody.
type Rule struct {
	Of     presence.ID    `json:"of,omitempty"` // empty: everybody
	For    Audience       `json:"for"`
	Level  presence.Level `json:"level"`
	Urgent bool           `json:"urgent,omitempty"` // may interrupt a do-not-disturb
	By     string         `json:"by"`               // who set it
	At     time.Time      `json:"at"`
}

// what gives what the rule lets see, in words.
func (r *Rule) what() string {
	if r.Urgent {
		return r.Level.String() + ", urgent"
	}
	return r.Level.String()
}

// String gives the rule in words.
func (r *Rule) String() string {
	of := "everybody"
	if r.Of != "" {
		of = string(r.Of)
	}
	return fmt.Sprintf("%s sees of %s: %s (set by %s on %s)", r.For, of, r.what(), r.By, r.At.UTC().Format("2006-01-02 15:04 MST"))
}

// least orders rules: the one that shows least first.
func least(a, b *Rule) int {
	if a.Level != b.Level {
		return int(a.Level) - int(b.Level)
	}
	switch {
	case a.Urgent == b.Urgent:
		return strings.Compare(a.For.Name, b.For.Name)
	case a.Urgent:
		return 1
	default:
		return -1
	}
}

// MaxName is how long the name of an audience, and the address of a watcher, may be.
const MaxName = 512

// ParseWatcher reads an address with its scheme (jid:bob@example.com,
// sip:bob@example.com, service:hq); a text without one is the identifier of a
// person, who is meant by every address.
func ParseWatcher(text string) (presence.Subject, error) {
	scheme, value, found := strings.Cut(text, ":")
	if !found {
		scheme, value = directory.SchemeID, text
	}
	s := canonical(presence.Subject{Scheme: scheme, Value: value})
	if err := sound(s); err != nil {
		return presence.Subject{}, err
	}
	return s, nil
}

// sound tells whether s can name a watcher.
func sound(s presence.Subject) error {
	text := s.String()
	if s.Scheme == "" || s.Value == "" || len(text) > MaxName || !printable(text) {
		return fmt.Errorf("%.60q %w as a watcher; want an address such as jid:bob@example.com, or the identifier of a person, of at most %d bytes", text, ErrUnfit, MaxName)
	}
	return nil
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) })
}

// fit gives the one spelling of a, or says what is wrong with it.
func (a Audience) fit() (Audience, error) {
	a.Name = strings.TrimSpace(a.Name)
	switch a.Kind {
	case ForWatcher:
		s, err := ParseWatcher(a.Name)
		if err != nil {
			return a, err
		}
		return Only(s), nil
	case ForGroup:
		a.Name = fold(a.Name)
	case ForDomain:
		a.Name = strings.TrimSuffix(fold(strings.TrimPrefix(a.Name, "@")), ".")
		if strings.ContainsAny(a.Name, "@/ ") {
			return a, fmt.Errorf("%.60q %w as a domain; want what is behind the @, such as example.com", a.Name, ErrUnfit)
		}
	case ForDefault:
		if a.Name != "" {
			return a, fmt.Errorf("a default %w with a name", ErrUnfit)
		}
		return a, nil
	default:
		return a, fmt.Errorf("kind %d %w", a.Kind, ErrUnfit)
	}
	if a.Name == "" || len(a.Name) > MaxName || !printable(a.Name) {
		return a, fmt.Errorf("%.60q %w as a %s; want a name of at most %d bytes", a.Name, ErrUnfit, a.Kind, MaxName)
	}
	return a, nil
}

func fold(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

// canonical gives the one spelling of a watcher: that of the directory, and of a
// jid without its resource, so that no client of a watcher escapes a rule.
func canonical(s presence.Subject) presence.Subject {
	s = directory.Canonical(s)
	if s.Scheme == "jid" {
		s.Value, _, _ = strings.Cut(s.Value, "/")
	}
	return s
}

// domain gives what is behind the @ of a canonical address, without a port or
// parameters; of a jid without an @ all of it, which is a server. Empty: it has none.
func domain(s presence.Subject) string {
	v := s.Value
	if i := strings.LastIndexByte(v, '@'); i >= 0 {
		v = v[i+1:]
	} else if s.Scheme != "jid" {
		return ""
	}
	if s.Scheme == "sip" || s.Scheme == "sips" {
		if i := strings.IndexAny(v, ";?"); i >= 0 {
			v = v[:i]
		}
		if i := strings.LastIndexByte(v, ':'); i > strings.LastIndexByte(v, ']') {
			v = v[:i]
		}
	}
	return strings.TrimSuffix(fold(v), ".")
}
