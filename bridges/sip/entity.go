package sip

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/emiago/sipgo/sip"

	"presenced/aggregator/presence"
)

// entityOf gives the SIP address of a person by the template, or the empty string
// where the person has no subject of a scheme that the template names. Directory
// values are not trusted: what may not stand in an address is escaped, and what
// is no address then is an error, so that no value can add a header to a request.
func entityOf(template string, person *presence.Person) (string, error) {
	missing := false
	entity := placeholder.ReplaceAllStringFunc(template, func(name string) string {
		value := person.Address(strings.Trim(name, "{}"))
		missing = missing || value == ""
		return escape(value)
	})
	if missing {
		return "", nil
	}
	if _, err := parseEntity(entity); err != nil {
		return "", err
	}
	return entity, nil
}

// escape replaces what no part of a SIP address may hold.
func escape(value string) string {
	var b strings.Builder
	for _, c := range []byte(value) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_.!~*'()&=+$,;:@%", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// address is the addr-spec of RFC 3261 section 25 as far as a presentity needs it.
//
//nolint:gochecknoglobals // compiled once, never changed
var address = regexp.MustCompile(`^sips?:([A-Za-z0-9_.!~*'()&=+$,;-]|%[0-9A-Fa-f]{2})+` +
	`@([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(;[A-Za-z0-9_.!~*'()=+$&%-]+)*$`)

// parseEntity gives entity as the address of a request.
func parseEntity(entity string) (sip.Uri, error) {
	var uri sip.Uri
	if len(entity) > presence.MaxText || !address.MatchString(entity) {
		return uri, errors.New("not a SIP address")
	}
	if err := sip.ParseUri(entity, &uri); err != nil {
		return uri, errors.New("not a SIP address")
	}
	return uri, nil
}
