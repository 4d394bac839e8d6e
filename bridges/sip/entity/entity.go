// Package entity makes the SIP addresses of people out of what the directory says
// of them.
package entity

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"presenced/aggregator/presence"
)

// Of gives the SIP address of a person by the template, such as
// sip:{tel}@example.com, or the empty string where the person has no subject of a
// scheme that the template names. Directory values are not trusted: what may not
// stand in an address is escaped, and what is no address then is an error, so that no
// value can add a header to a request.
func Of(template string, person *presence.Person) (string, error) {
	missing := false
	entity := placeholder.ReplaceAllStringFunc(template, func(name string) string {
		value := person.Address(strings.Trim(name, "{}"))
		missing = missing || value == ""
		return escape(value)
	})
	if missing {
		return "", nil
	}
	return entity, Check(entity)
}

// Sample gives the address of somebody whose every subject is value.
func Sample(template, value string) string { return placeholder.ReplaceAllString(template, value) }

// CheckTemplate tells what is wrong with a template; nil: it makes addresses.
func CheckTemplate(template string) error {
	if !placeholder.MatchString(template) {
		return fmt.Errorf("%q names no subject of a person: want something like sip:{tel}@example.com", template)
	}
	for _, value := range []string{"a", "sip:a@example.com", "a@example.com"} {
		if Check(Sample(template, value)) == nil {
			return nil
		}
	}
	return fmt.Errorf("%q does not make a SIP address: want something like sip:{tel}@example.com", template)
}

var placeholder = regexp.MustCompile(`\{[a-z]+\}`) //nolint:gochecknoglobals // compiled once, never changed

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

// Check tells whether text is a SIP address that can stand in a request.
func Check(text string) error {
	if len(text) > presence.MaxText || !address.MatchString(text) {
		return errors.New("not a SIP address")
	}
	return nil
}
