// Package digest answers the challenges of SIP servers (RFC 3261 section 22, RFC
// 8760), for all who send requests to them.
package digest

import (
	"errors"
	"strings"

	"github.com/icholy/digest"
)

// A Challenge is one that can be answered, and how often it was. It is for one
// goroutine at a time.
type Challenge struct {
	digest.Challenge
	proxy bool // of a 407
	used  int
}

// limit of the length of a challenge, and of how many of one answer are looked at.
const (
	maxChallenge  = 4096
	maxChallenges = 8
)

// Choose gives the first challenge of those that we know how to answer: the
// server lists the one it likes best first (RFC 8760 section 2.4). The headers are
// the values of WWW-Authenticate, or of Proxy-Authenticate where proxy is set.
func Choose(headers []string, proxy bool) *Challenge {
	for _, h := range headers[:min(len(headers), maxChallenges)] {
		if len(h) > maxChallenge {
			continue
		}
		c, err := digest.ParseChallenge(h)
		if err != nil || c.Nonce == "" {
			continue
		}
		c.Algorithm = strings.ToUpper(c.Algorithm)
		for i := range c.QOP {
			c.QOP[i] = strings.TrimSpace(c.QOP[i])
		}
		if len(c.QOP) > 0 && !c.SupportsQOP("auth") {
			continue // auth-int protects a body that nobody on the way reads, and few servers check it alike
		}
		if digest.CanDigest(c) {
			return &Challenge{Challenge: *c, proxy: proxy}
		}
	}
	return nil
}

// Respond gives the name and the value of the header that answers c. uri is the
// Request-URI as it stands in the request, with its parameters.
func (c *Challenge) Respond(user, password, method, uri string) (name, value string, err error) {
	if user == "" {
		return "", "", errors.New("the server asks for a password, and no user is configured")
	}
	c.used++
	credentials, err := digest.Digest(&c.Challenge, digest.Options{
		Method: method, URI: uri, Username: user, Password: password, Count: c.used,
	})
	if err != nil {
		return "", "", err
	}
	if c.proxy {
		return "Proxy-Authorization", credentials.String(), nil
	}
	return "Authorization", credentials.String(), nil
}

// Denial says what it means that the server refuses the credentials of user; c is
// the challenge that came with it, nil if there was none that can be answered.
func Denial(user string, c *Challenge) string {
	switch {
	case user == "":
		return "the server asks for a user name and password, and none is configured"
	case c == nil:
		return "the server asks for a kind of authentication that is not supported"
	}
	return "the server does not take the user name and password"
}
