package directory

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"presenced/aggregator/presence"
	"presenced/internal/config"
	"presenced/internal/htdigest"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// LDAPConfig is one entry of directory.ldap.
type LDAPConfig struct {
	URL          string        `yaml:"url" doc:"Address of the server: ldaps://ldap.example.com, or ldap://ldap.example.com."`
	StartTLS     bool          `yaml:"start_tls" default:"false" doc:"Switch an ldap:// connection to TLS before anything else is sent."`
	TLS          trust.Config  `yaml:"tls" doc:"TLS towards the server."`
	BindDN       string        `yaml:"bind_dn" doc:"Name to sign in with; empty: anonymous."`
	PasswordFile secret.File   `yaml:"password_file" doc:"File with the password of bind_dn."`
	Base         string        `yaml:"base" doc:"Where to search, such as ou=people,dc=example,dc=com."`
	Filter       string        `yaml:"filter" default:"(objectClass=inetOrgPerson)" doc:"Which entries are people."`
	ID           string        `yaml:"id" default:"entryUUID" doc:"Attribute with the identifier, which must never change: entryUUID, objectGUID (Active Directory), dominoUNID, or uid."`
	Name         string        `yaml:"name" default:"cn" doc:"Attribute with the name to show."`
	Group        string        `yaml:"group" default:"ou" doc:"Attribute with the groups."`
	Tel          string        `yaml:"tel" default:"telephoneNumber" doc:"Attribute with the extension on Communication Manager."`
	Mail         string        `yaml:"mail" default:"mail" doc:"Attribute with the primary SMTP address."`
	SIP          string        `yaml:"sip" doc:"Attribute with the SIP address, such as msRTCSIP-PrimaryUserAddress."`
	JID          string        `yaml:"jid" doc:"Attribute with the XMPP address."`
	SIPAccounts  string        `yaml:"sip_accounts" doc:"Attribute with the accounts of a person at the Local Presence Service, each value user:realm:HA1 as htdigest writes it. Let nobody but bind_dn read it. Empty: there are none."`
	MailServer   string        `yaml:"mail_server" default:"mailserver" doc:"Attribute with the Domino server of the mail file."`
	MailFile     string        `yaml:"mail_file" default:"mailfile" doc:"Attribute with the path of the Domino mail file."`
	PageSize     int           `yaml:"page_size" default:"500" doc:"Entries asked for at a time; 0: do not page."`
	Timeout      time.Duration `yaml:"timeout" default:"30s" doc:"How long one answer may take."`
}

// Check tells what is wrong with c.
func (c *LDAPConfig) Check() []config.Problem {
	var ps []config.Problem
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "ldap" && u.Scheme != "ldaps" {
		ps = append(ps, config.Wrong("url", "%q is no address such as ldaps://ldap.example.com", c.URL))
	} else if u.Scheme == "ldaps" && c.StartTLS {
		ps = append(ps, config.Wrong("start_tls", "goes with ldap://, an ldaps:// connection is TLS already"))
	}
	if c.Base == "" {
		ps = append(ps, config.Wrong("base", "is missing"))
	}
	if _, err := ldap.CompileFilter(c.Filter); err != nil {
		ps = append(ps, config.Wrong("filter", "%q is no LDAP filter: %v", c.Filter, err))
	}
	if c.ID == "" || c.Name == "" {
		ps = append(ps, config.Wrong("id", "the attributes of identifier and name are needed"))
	}
	if c.BindDN != "" && c.PasswordFile == "" {
		ps = append(ps, config.Wrong("password_file", "bind_dn needs it"))
	}
	if c.PageSize < 0 {
		ps = append(ps, config.Wrong("page_size", "%d is negative", c.PageSize))
	}
	return append(ps, config.Under("tls", c.TLS.Check())...)
}

// An LDAP reads people from an LDAP server: OpenLDAP, Active Directory, Domino.
type LDAP struct{ Config LDAPConfig }

func (l *LDAP) String() string { return l.Config.URL }

// Limits of what a server may send.
const (
	maxEntries = 1_000_000
	maxValue   = presence.MaxText
)

// Read implements Reader: one search, page by page, on a connection of its own.
// It blocks until all is read or ctx ends. Where the server stops early (size
// limit), what came is given as an incomplete reading.
func (l *LDAP) Read(ctx context.Context) (out Reading, err error) {
	defer func() {
		if r := recover(); r != nil { // the library asserts types of what the server sends
			out, err = Reading{}, fmt.Errorf("ldap %s: the server sent something malformed: %v", l.Config.URL, r)
		}
	}()
	conn, err := l.dial(ctx)
	if err != nil {
		return Reading{}, err
	}
	defer conn.Close()
	// The library takes no context: a connection that is closed ends whatever waits for it.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := l.bind(conn); err != nil {
		return Reading{}, err
	}
	out, err = l.search(conn)
	if ctx.Err() != nil { // a search that was cut off must not look complete
		return Reading{}, fmt.Errorf("ldap %s: %w", l.Config.URL, ctx.Err())
	}
	return out, err
}

func (l *LDAP) dial(ctx context.Context) (*ldap.Conn, error) {
	u, err := url.Parse(l.Config.URL)
	if err != nil {
		return nil, fmt.Errorf("ldap: %w", err)
	}
	settings, err := l.Config.TLS.Client(u.Hostname())
	if err != nil {
		return nil, fmt.Errorf("ldap: %w", err)
	}
	deadline := time.Now().Add(l.Config.Timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	conn, err := ldap.DialURL(l.Config.URL, ldap.DialWithDialer(&net.Dialer{Deadline: deadline}), ldap.DialWithTLSConfig(settings))
	if err != nil {
		return nil, fmt.Errorf("ldap %s: cannot connect: %w", l.Config.URL, err)
	}
	conn.SetTimeout(l.Config.Timeout)
	if l.Config.StartTLS {
		if err := conn.StartTLS(settings); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("ldap %s: StartTLS: %w", l.Config.URL, err)
		}
	}
	return conn, nil
}

func (l *LDAP) bind(conn *ldap.Conn) error {
	if l.Config.BindDN == "" {
		return nil
	}
	password, err := l.Config.PasswordFile.Read()
	if err != nil {
		return err
	}
	if err := conn.Bind(l.Config.BindDN, password); err != nil {
		err = fmt.Errorf("ldap %s: cannot sign in as %s: %w", l.Config.URL, l.Config.BindDN, err)
		if ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
			return presence.Permanent(err)
		}
		return err
	}
	return nil
}

func (l *LDAP) search(conn *ldap.Conn) (Reading, error) {
	c := &l.Config
	var attributes []string
	for _, a := range []string{c.ID, c.Name, c.Group, c.Tel, c.Mail, c.SIP, c.JID, c.SIPAccounts, c.MailServer, c.MailFile} {
		if a != "" {
			attributes = append(attributes, a)
		}
	}
	out := Reading{Accounts: htdigest.Accounts{}}
	var cookie []byte
	for {
		var controls []ldap.Control
		if c.PageSize > 0 {
			paging := ldap.NewControlPaging(uint32(c.PageSize)) //nolint:gosec // checked not to be negative
			paging.SetCookie(cookie)
			controls = append(controls, paging)
		}
		res, err := conn.Search(ldap.NewSearchRequest(c.Base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, int(c.Timeout/time.Second), false, c.Filter, attributes, controls))
		if res != nil { // the library may give entries beside an error
			for _, e := range res.Entries {
				if p, ok := l.person(e); ok {
					out.People = append(out.People, p)
					l.accounts(e, &out)
				} else {
					out.Skipped++
				}
			}
		}
		switch {
		case err != nil && ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded):
			return out, nil
		case err != nil:
			return Reading{}, fmt.Errorf("ldap %s: search below %s: %w", c.URL, c.Base, err)
		case len(out.People) > maxEntries:
			return Reading{}, fmt.Errorf("ldap %s: more than %d entries", c.URL, maxEntries)
		}
		answer, paged := ldap.FindControl(res.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !paged || len(answer.Cookie) == 0 {
			out.Complete = true
			return out, nil
		}
		if c.PageSize == 0 {
			return out, errors.New("ldap: the server pages without being asked to")
		}
		cookie = answer.Cookie
	}
}

// person makes a person of an entry; ok is false for one without identifier or name.
func (l *LDAP) person(e *ldap.Entry) (p presence.Person, ok bool) {
	c := &l.Config
	first := func(attribute string) string {
		if attribute == "" {
			return ""
		}
		v := strings.TrimSpace(e.GetEqualFoldAttributeValue(attribute)) // Domino answers in lower case
		if len(v) > maxValue || !utf8.ValidString(v) {
			return ""
		}
		return v
	}
	id := first(c.ID)
	if strings.EqualFold(c.ID, "objectGUID") {
		id = guid(e.GetEqualFoldRawAttributeValue(c.ID))
	}
	p = presence.Person{ID: presence.ID(id), Name: cmp.Or(first(c.Name), id)}
	if id == "" {
		return p, false
	}
	if c.Group != "" {
		p.Groups = e.GetEqualFoldAttributeValues(c.Group)
	}
	add := func(scheme, value string) {
		if value != "" {
			p.Subjects = append(p.Subjects, presence.Subject{Scheme: scheme, Value: value})
		}
	}
	add("tel", first(c.Tel))
	if m := first(c.Mail); strings.Contains(m, "@") && !strings.Contains(m, "/") { // a Domino mail need not be an SMTP address
		add("mail", m)
	}
	add("sip", strings.TrimPrefix(first(c.SIP), "sip:"))
	add("jid", first(c.JID))
	if server, file := first(c.MailServer), first(c.MailFile); server != "" && file != "" {
		add("notes", server+"!!"+file)
	}
	return p, true
}

// accounts adds those of an entry to what is read.
func (l *LDAP) accounts(e *ldap.Entry, out *Reading) {
	if l.Config.SIPAccounts == "" {
		return
	}
	for _, value := range e.GetEqualFoldAttributeValues(l.Config.SIPAccounts) {
		if len(value) > maxValue || out.Accounts.Add(strings.TrimSpace(value)) != nil {
			out.BadAccounts++
		}
	}
}

// guid writes a binary objectGUID the way Active Directory shows it: the first
// three groups are little-endian.
func guid(b []byte) string {
	if len(b) != 16 {
		return ""
	}
	order := []int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15}
	var sorted [16]byte
	for i, from := range order {
		sorted[i] = b[from]
	}
	h := hex.EncodeToString(sorted[:])
	return h[0:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
