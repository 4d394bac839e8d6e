package lps

import (
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // the algorithm that most phones know
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"presenced/internal/htdigest"
)

// Accounts knows the passwords of those who may use the service, as HA1 only.
type Accounts interface {
	// HA1 gives H(user:realm:password) in lower-case hexadecimal, for the
	// algorithm MD5 or SHA-256. It may be called from any goroutine and does not
	// block.
	HA1(user, realm, algorithm string) (string, bool)
}

// Bounds of what is looked at before anything is proven.
const (
	maxCredentials = 2048 // bytes of an Authorization header
	maxUser        = 128
	nonceLife      = 5 * time.Minute
	maxNonces      = 1 << 16 // in each of two generations
)

// A Guard authenticates by digest (RFC 7616, RFC 8760), with qop=auth. A challenge
// costs it no memory: a nonce carries its time and a proof that it was given to the
// source address. Only who knew a password is remembered, so that the same
// request does not count twice. All methods may be called from any goroutine.
type Guard struct {
	realm      string
	algorithms []string
	accounts   Accounts
	key        [32]byte
	count      atomic.Uint64 // of nonces

	mu          sync.Mutex
	young, old  map[string]*uses // by nonce: those that were used
	since, last time.Time        // when young began; nonces given before last are stale
}

// uses are the nonce counts of one nonce that were seen: the highest one, and
// which of the 64 below it.
type uses struct {
	highest uint32
	seen    uint64
}

// NewGuard makes a guard that offers the algorithms in this order.
func NewGuard(realm string, algorithms []string, accounts Accounts) *Guard {
	g := &Guard{realm: realm, algorithms: algorithms, accounts: accounts, young: map[string]*uses{}}
	_, _ = rand.Read(g.key[:]) // does not fail (crypto/rand)
	return g
}

// Challenge gives the values of the WWW-Authenticate headers for a request from a
// source. stale says that the password was right, and the nonce is to be renewed.
func (g *Guard) Challenge(source netip.Addr, stale bool, now time.Time) []string {
	nonce := g.nonce(source, now)
	end := ""
	if stale {
		end = ", stale=true"
	}
	values := make([]string, len(g.algorithms))
	for i, a := range g.algorithms {
		values[i] = `Digest realm="` + g.realm + `", nonce="` + nonce + `", algorithm=` + a + `, qop="auth"` + end
	}
	return values
}

// A Verdict is what a guard finds in a request.
type Verdict struct {
	User  string // who it is; empty: to be challenged
	Stale bool   // with no user: the password was right, the nonce is not
}

// Verify looks at the values of the Authorization headers of a request by method
// from source. An answer that is wrong in any way is no answer. The digest-uri
// need not be the Request-URI, which proxies may change (RFC 3261 section 22.4).
func (g *Guard) Verify(authorization []string, method string, source netip.Addr, now time.Time) Verdict {
	for _, value := range authorization[:min(len(authorization), 4)] {
		c, ok := parseCredentials(value)
		if !ok || c.realm != g.realm || !slices.Contains(g.algorithms, c.algorithm) {
			continue
		}
		given, ours := g.given(c.nonce, source)
		if !ours {
			continue
		}
		ha1, known := g.accounts.HA1(c.user, g.realm, c.algorithm)
		if !known { // as long as for somebody known
			ha1 = "00000000000000000000000000000000"
		}
		want := c.response(ha1, method)
		if subtle.ConstantTimeCompare([]byte(want), []byte(c.answer)) != 1 || !known {
			continue
		}
		if !g.fresh(&c, given, now) {
			return Verdict{Stale: true}
		}
		return Verdict{User: c.user}
	}
	return Verdict{}
}

// A nonce is the time, a number that makes it differ from all others, and a proof
// that it was given to a source.
const (
	nonceProof = 16 // where the proof begins
	nonceSize  = 32
)

// nonce gives one that is good for source.
func (g *Guard) nonce(source netip.Addr, now time.Time) string {
	var b [nonceSize]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixNano())) //nolint:gosec // after 1970
	binary.BigEndian.PutUint64(b[8:nonceProof], g.count.Add(1))
	g.prove(b[nonceProof:], b[:nonceProof], source)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (g *Guard) prove(dst, given []byte, source netip.Addr) {
	mac := hmac.New(sha256.New, g.key[:])
	mac.Write(given)
	address := source.Unmap().As16()
	mac.Write(address[:])
	var sum [sha256.Size]byte
	copy(dst, mac.Sum(sum[:0]))
}

// given tells when a nonce was given to source, and whether it was.
func (g *Guard) given(nonce string, source netip.Addr) (at time.Time, ours bool) {
	var b [nonceSize]byte
	if len(nonce) != base64.RawURLEncoding.EncodedLen(len(b)) {
		return time.Time{}, false
	}
	if _, err := base64.RawURLEncoding.Decode(b[:], []byte(nonce)); err != nil {
		return time.Time{}, false
	}
	var want [nonceSize - nonceProof]byte
	g.prove(want[:], b[:nonceProof], source)
	at = time.Unix(0, int64(binary.BigEndian.Uint64(b[:8]))) //nolint:gosec // compared with what was proven
	return at, hmac.Equal(want[:], b[nonceProof:])
}

// fresh tells whether the nonce is young enough and the count was not seen, and
// notes that it was.
func (g *Guard) fresh(c *credentials, given, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.since) > nonceLife || len(g.young) >= maxNonces {
		g.last = g.since
		g.old, g.young, g.since = g.young, map[string]*uses{}, now
	}
	if given.Before(g.last) || now.Sub(given) > nonceLife || given.After(now) {
		return false
	}
	u := g.young[c.nonce]
	if u == nil {
		if u = g.old[c.nonce]; u == nil {
			u = &uses{}
		}
		g.young[strings.Clone(c.nonce)] = u
	}
	return u.take(c.count)
}

// take notes a count; false: it was seen, or is too far below the highest one.
func (u *uses) take(count uint32) bool {
	switch {
	case count == 0:
		return false
	case count > u.highest:
		u.seen = u.seen<<(count-u.highest) | 1
		u.highest = count
		return true
	case u.highest-count >= 64:
		return false
	}
	bit := uint64(1) << (u.highest - count)
	if u.seen&bit != 0 {
		return false
	}
	u.seen |= bit
	return true
}

// credentials are what an Authorization header holds.
type credentials struct {
	user, realm, nonce, uri, answer, algorithm, cnonce, nc string
	count                                                  uint32
}

// response gives what answers the challenge by RFC 7616 section 3.4.1.
func (c *credentials) response(ha1, method string) string {
	h := md5.New //nolint:gosec // as above
	if c.algorithm == htdigest.SHA256 {
		h = sha256.New
	}
	ha2 := digestOf(h, method, c.uri)
	return digestOf(h, ha1, c.nonce, c.nc, c.cnonce, "auth", ha2)
}

func digestOf(algorithm func() hash.Hash, parts ...string) string {
	var text [512]byte
	b := text[:0]
	for i, p := range parts {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, p...)
	}
	h := algorithm()
	h.Write(b)
	var sum [sha256.Size]byte
	return hex.EncodeToString(h.Sum(sum[:0]))
}

// parseCredentials reads the value of an Authorization header; ok is false where it
// is not fit for an answer to our challenge.
func parseCredentials(value string) (c credentials, ok bool) {
	if len(value) > maxCredentials {
		return c, false
	}
	scheme, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
	if !strings.EqualFold(scheme, "Digest") {
		return c, false
	}
	qop := ""
	for rest != "" {
		var name, v string
		if name, v, rest, ok = parameter(rest); !ok {
			return c, false
		}
		switch {
		case strings.EqualFold(name, "username"):
			c.user = v
		case strings.EqualFold(name, "realm"):
			c.realm = v
		case strings.EqualFold(name, "nonce"):
			c.nonce = v
		case strings.EqualFold(name, "uri"):
			c.uri = v
		case strings.EqualFold(name, "response"):
			c.answer = strings.ToLower(v)
		case strings.EqualFold(name, "algorithm"):
			c.algorithm = strings.ToUpper(v)
		case strings.EqualFold(name, "cnonce"):
			c.cnonce = v
		case strings.EqualFold(name, "nc"):
			c.nc = v
		case strings.EqualFold(name, "qop"):
			qop = v
		}
	}
	if c.algorithm == "" {
		c.algorithm = htdigest.MD5
	}
	count, err := strconv.ParseUint(c.nc, 16, 32)
	c.count = uint32(count)
	return c, err == nil && len(c.nc) == 8 && strings.EqualFold(qop, "auth") && c.user != "" && len(c.user) <= maxUser && c.cnonce != ""
}

// parameter takes the first name=value off a list with commas; the value may be quoted.
func parameter(list string) (name, value, rest string, ok bool) {
	name, list, ok = strings.Cut(list, "=")
	if !ok {
		return "", "", "", false
	}
	name, list = strings.Trim(name, " \t\r\n,"), strings.TrimLeft(list, " \t")
	if !strings.HasPrefix(list, `"`) {
		value, rest, _ = strings.Cut(list, ",")
		return name, strings.TrimSpace(value), rest, true
	}
	list = list[1:]
	end := strings.IndexAny(list, `"\`)
	if end >= 0 && list[end] == '"' { // as nearly always: nothing is escaped
		return name, list[:end], strings.TrimLeft(list[end+1:], " \t,"), true
	}
	var b strings.Builder
	for i := 0; i < len(list); i++ {
		switch list[i] {
		case '"':
			return name, b.String(), strings.TrimLeft(list[i+1:], " \t,"), true
		case '\\':
			if i++; i < len(list) {
				b.WriteByte(list[i])
			}
		default:
			b.WriteByte(list[i])
		}
	}
	return "", "", "", false
}
