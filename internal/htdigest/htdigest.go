// Package htdigest reads accounts for digest authentication in the form that
// Apache's htdigest writes: user:realm:HA1, where HA1 is the hash of
// user:realm:password (RFC 7616 section 3.4.2). Any package may import it.
package htdigest

import (
	"errors"
	"fmt"
	"strings"
)

// The algorithms of a HA1, as they are named in a challenge.
const (
	MD5    = "MD5"
	SHA256 = "SHA-256"
)

// Accounts holds the HA1 of users, immutable once it is shared. A user may have one for each
// algorithm in each realm.
type Accounts map[Key]string

// A Key is what an HA1 is for.
type Key struct{ User, Realm, Algorithm string }

// HA1 gives the hash in lower case; ok is false where there is none.
func (a Accounts) HA1(user, realm, algorithm string) (ha1 string, ok bool) {
	ha1, ok = a[Key{user, realm, algorithm}]
	return ha1, ok
}

// Add reads one line; 32 hexadecimal digits are MD5, 64 are SHA-256. No error quotes it.
func (a Accounts) Add(line string) error {
	part := strings.Split(line, ":")
	if len(part) != 3 || part[0] == "" || part[1] == "" {
		return errors.New("it is not user:realm:HA1")
	}
	algorithm := map[int]string{32: MD5, 64: SHA256}[len(part[2])]
	ha1 := strings.ToLower(part[2])
	if algorithm == "" || strings.Trim(ha1, "0123456789abcdef") != "" {
		return errors.New("the HA1 is neither 32 hexadecimal digits (MD5) nor 64 (SHA-256)")
	}
	a[Key{part[0], part[1], algorithm}] = ha1
	return nil
}

// Parse reads a file of lines. Empty ones and those that begin with # count for
// nothing. No error quotes a line.
func Parse(text string) (Accounts, error) {
	all, n := Accounts{}, 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := all.Add(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return all, nil
}
