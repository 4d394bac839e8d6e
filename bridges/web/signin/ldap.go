package signin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"presenced/aggregator/presence"
)

// ldapBind asks an LDAP server whether a password is right, by binding with it.
type ldapBind struct{ LDAPConfig }

const maxGroups = 1000 // of a person

// find gives what the server says of somebody. The error is errRefused where name
// or password are wrong; an empty password is, and is not sent: a server would take
// it for an anonymous bind and let it in (RFC 4513 section 5.1.2). It blocks for at
// most Timeout.
func (l *ldapBind) find(ctx context.Context, user, password string) (f found, err error) {
	if password == "" {
		return found{}, errRefused
	}
	defer func() {
		if r := recover(); r != nil { // the library asserts types of what the server sends
			f, err = found{}, fmt.Errorf("ldap %s: the server sent something malformed: %v", l.URL, r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	conn, err := l.dial(ctx)
	if err != nil {
		return found{}, err
	}
	defer conn.Close()
	// The library takes no context: a connection that is closed ends whatever waits for it.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	dn := strings.ReplaceAll(l.DN, "{name}", ldap.EscapeDN(user))
	if dn != "" {
		if err := l.bind(conn, dn, password); err != nil {
			return found{}, err
		}
	} else if err := l.bindService(conn); err != nil {
		return found{}, err
	}
	entry, err := l.entry(conn, dn, user)
	if err != nil {
		return found{}, err
	}
	groups, err := l.groups(conn, entry)
	if err != nil {
		return found{}, err
	}
	if dn == "" {
		if err := l.bind(conn, entry.DN, password); err != nil {
			return found{}, err
		}
	}
	f = found{user: strings.ToLower(entry.DN), name: entry.GetEqualFoldAttributeValue(l.Name), role: l.role(groups)}
	for _, s := range []struct{ scheme, attribute string }{{"id", l.ID}, {"mail", l.Mail}} {
		if s.attribute == "" {
			continue
		}
		if v := strings.TrimSpace(entry.GetEqualFoldAttributeValue(s.attribute)); v != "" && len(v) <= presence.MaxText {
			f.subjects = append(f.subjects, presence.Subject{Scheme: s.scheme, Value: v})
		}
	}
	return f, nil
}

func (l *ldapBind) dial(ctx context.Context) (*ldap.Conn, error) {
	u, err := url.Parse(l.URL)
	if err != nil {
		return nil, fmt.Errorf("ldap: %w", err)
	}
	settings, err := l.TLS.Client(u.Hostname())
	if err != nil {
		return nil, fmt.Errorf("ldap: %w", err)
	}
	deadline, _ := ctx.Deadline()
	conn, err := ldap.DialURL(l.URL, ldap.DialWithDialer(&net.Dialer{Deadline: deadline}), ldap.DialWithTLSConfig(settings))
	if err != nil {
		return nil, fmt.Errorf("ldap %s: cannot connect: %w", l.URL, err)
	}
	conn.SetTimeout(l.Timeout)
	if l.StartTLS {
		if err := conn.StartTLS(settings); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("ldap %s: StartTLS: %w", l.URL, err)
		}
	}
	return conn, nil
}

func (l *ldapBind) bindService(conn *ldap.Conn) error {
	if l.BindDN == "" {
		return nil
	}
	password, err := l.PasswordFile.Read()
	if err != nil {
		return err
	}
	if err := conn.Bind(l.BindDN, password); err != nil {
		return fmt.Errorf("ldap %s: cannot sign in as %s to search: %w", l.URL, l.BindDN, err)
	}
	return nil
}

func (l *ldapBind) bind(conn *ldap.Conn, dn, password string) error {
	err := conn.Bind(dn, password)
	if ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInvalidDNSyntax) {
		return errRefused
	}
	if err != nil {
		return fmt.Errorf("ldap %s: cannot try a password: %w", l.URL, err)
	}
	return nil
}

// entry reads the one entry of dn, or of user if that is empty.
func (l *ldapBind) entry(conn *ldap.Conn, dn, user string) (*ldap.Entry, error) {
	base, scope, filter := dn, ldap.ScopeBaseObject, "(objectClass=*)"
	if dn == "" {
		base, scope, filter = l.Base, ldap.ScopeWholeSubtree, strings.ReplaceAll(l.Filter, "{name}", ldap.EscapeFilter(user))
	}
	res, err := l.search(conn, base, scope, 2, filter, l.Name, l.ID, l.Mail, l.Group)
	switch {
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchObject):
		return nil, errRefused
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultSizeLimitExceeded), err == nil && len(res) > 1:
		return nil, fmt.Errorf("ldap %s: more than one entry fits a name; filter has to fit one", l.URL)
	case err != nil:
		return nil, fmt.Errorf("ldap %s: search below %s: %w", l.URL, base, err)
	case len(res) == 0 || res[0].DN == "":
		return nil, errRefused
	}
	return res[0], nil
}

func (l *ldapBind) groups(conn *ldap.Conn, entry *ldap.Entry) ([]string, error) {
	groups := entry.GetEqualFoldAttributeValues(l.Group)
	if l.GroupBase == "" {
		return groups, nil
	}
	filter := strings.ReplaceAll(l.GroupFilter, "{dn}", ldap.EscapeFilter(entry.DN))
	res, err := l.search(conn, l.GroupBase, ldap.ScopeWholeSubtree, maxGroups, filter, "1.1")
	if err != nil && !ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchObject) {
		return nil, fmt.Errorf("ldap %s: search for groups below %s: %w", l.URL, l.GroupBase, err)
	}
	for _, e := range res {
		groups = append(groups, e.DN)
	}
	return groups, nil
}

func (l *ldapBind) search(conn *ldap.Conn, base string, scope, most int, filter string, attributes ...string) ([]*ldap.Entry, error) {
	var wanted []string
	for _, a := range attributes {
		if a != "" {
			wanted = append(wanted, a)
		}
	}
	res, err := conn.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, most, int(l.Timeout/time.Second), false, filter, wanted, nil))
	if err != nil {
		return nil, err
	}
	if res == nil {
		return nil, errors.New("no answer")
	}
	return res.Entries, nil
}
