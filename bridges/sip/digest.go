package sip

import (
	"errors"
	"strings"

	"github.com/icholy/digest"
)

// A challenge is one of RFC 8760 that can be answered, and how often it was.
// The publisher's loop alone touches it.
type challenge struct {
	digest.Challenge
	proxy bool // of a 407
	used  int
}

// limit of the length of a challenge, and of how many of one answer are looked at.
const (
	maxChallenge  = 4096
	maxChallenges = 8
)

// choose gives the first challenge of those that we know how to answer: the
// server lists the one it likes best first (RFC 8760 section 2.4).
func choose(headers []string, proxy bool) *challenge {
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
			return &challenge{Challenge: *c, proxy: proxy}
		}
	}
	return nil
}

// respond gives the name and the value of the header that answers c. uri is the
// Request-URI as it stands in the request, with its parameters.
func (c *challenge) respond(user, password, method, uri string) (name, value string, err error) {
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
