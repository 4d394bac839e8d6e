package signin

import (
	"context"
	"fmt"
	"strings"

	"presenced/aggregator/presence"
)

// A Role is what somebody is to the service. The zero value may nothing.
type Role uint8

// The roles, from least to most.
const (
	Nobody        Role = iota // did not sign in where one has to, or is in no group that may
	Anyone                    // did not sign in where nobody has to
	Person                    // looks, and sets their own presence
	Operator                  // sees everybody and sets anybody's presence; administers nothing
	Administrator             // everything
	roleCount
)

var roleNames = [roleCount]string{"nobody", "anyone", "person", "operator", "administrator"} //nolint:gochecknoglobals // a table, never changed

// String gives nobody, anyone, person, operator or administrator.
func (r Role) String() string { return roleNames[r] }

// MarshalText gives the name.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText accepts the roles that an account may have: person, operator,
// administrator.
func (r *Role) UnmarshalText(text []byte) error {
	for one := Person; one < roleCount; one++ {
		if roleNames[one] == string(text) {
			*r = one
			return nil
		}
	}
	return fmt.Errorf("%.40q is none of person, operator, administrator", text)
}

// Permissions gives what the role may do.
func (r Role) Permissions() Permission {
	switch r {
	case Anyone:
		return ReadStates | ReadHealth
	case Person:
		return ReadStates | ReadHealth | WriteOwn // signing in takes nothing away from Anyone
	case Operator:
		return ReadStates | ReadAll | ReadHealth | WriteOwn | WritePresence
	case Administrator:
		return everything
	default:
		return 0
	}
}

// A Permission is one thing that may be done, or a set of them. The same set is
// that of the scopes of API tokens.
type Permission uint16

// The permissions.
const (
	ReadStates    Permission = 1 << iota // see people, as far as the access rules go
	ReadAll                              // see people as they see themselves, whatever the rules say
	ReadHealth                           // sources, bridges, the store, metrics
	ReadAudit                            // who changed what
	WriteOwn                             // set one's own presence, and who sees it
	WritePresence                        // set anybody's presence
	AdminAccess                          // change who sees whom
	AdminServices                        // add, change and delete presence services
	AdminAccounts                        // accounts, and the sessions and tokens of others
	beyond
	everything = beyond - 1
)

// Permissions gives the name of each permission, in order, such as "read:states".
func Permissions() []string {
	return []string{"read:states", "read:all", "read:health", "read:audit", "write:own", "write:presence", "admin:access", "admin:services", "admin:accounts"}
}

// meanings says for whoever makes a token what each of Permissions is.
func meanings() []string {
	return []string{
		"see people, as far as the access rules go", "see people as they see themselves", "see how sources, bridges and the store fare; metrics", "see who changed what",
		"set your own presence, and who sees it", "set anybody's presence", "change who sees whom", "add, change and delete presence services", "accounts, and the sessions and tokens of others",
	}
}

// String gives the names, with a space between two of them.
func (p Permission) String() string {
	var names []string
	for i, name := range Permissions() {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// MarshalText gives the names.
func (p Permission) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText accepts names with white space between them, and no other words.
func (p *Permission) UnmarshalText(text []byte) error {
	var all Permission
next:
	for word := range strings.FieldsSeq(string(text)) {
		for i, name := range Permissions() {
			if name == word {
				all |= 1 << i
				continue next
			}
		}
		return fmt.Errorf("%.40q is no permission; there are %s", word, everything)
	}
	*p = all
	return nil
}

// An Identity is who makes a request. The zero value is nobody, who may nothing.
type Identity struct {
	Account string      // such as "local:anna", "ldap:anna"; empty: did not sign in
	Name    string      // to show
	Role    Role        // of the account, as it is now
	Person  presence.ID // who they are in the directory; empty: nobody there
	Via     string      // how they signed in: local, ldap, oidc
	Token   string      // the public identifier of the API token that was shown; empty: a session
	Scopes  Permission  // what the token is limited to; without a token it says nothing

	session key // of the session; zero: there is none
}

// May tells whether i may do all of p. A token is limited by its scopes and by the
// role that its account has now.
func (i Identity) May(p Permission) bool {
	have := i.Role.Permissions()
	if i.Token != "" {
		have &= i.Scopes
	}
	return p != 0 && have&p == p
}

// MaySet tells whether i may set the presence of that person.
func (i Identity) MaySet(who presence.ID) bool {
	return i.May(WritePresence) || who != "" && who == i.Person && i.May(WriteOwn)
}

type identityKey struct{}

// From gives who makes the request of ctx: who Guard found, else nobody.
func From(ctx context.Context) Identity {
	i, _ := ctx.Value(identityKey{}).(Identity) //nolint:errcheck // the zero value is nobody
	return i
}

// With puts an identity into ctx, as Guard does.
func With(ctx context.Context, i Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, i)
}
