package signin

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Limits of a password.
const (
	minPassword = 10   // characters
	maxPassword = 1024 // bytes
)

// checkPassword tells what is wrong with a new password of that account.
func checkPassword(name, password string) error {
	switch {
	case !utf8.ValidString(password) || len(password) > maxPassword:
		return unfit("the password has to be text of at most %d bytes", maxPassword)
	case utf8.RuneCountInString(password) < minPassword:
		return unfit("the password has to have at least %d characters", minPassword)
	case strings.EqualFold(strings.TrimSpace(password), name):
		return unfit("the password must not be the name")
	}
	return nil
}

// A cost is what it takes to try one password (RFC 9106 section 3.1).
type cost struct {
	memory  uint32 // KiB
	time    uint32 // passes
	threads uint8
}

// The cost of new hashes; that of the OWASP cheat sheet, 25 ms or so. A hash that
// cost less is made anew when its password is next given.
func newCost() cost { return cost{memory: 19 << 10, time: 2, threads: 1} }

const (
	saltSize = 16
	hashSize = 32
)

// A hash is what is kept of a password. It is written in the PHC form,
// $argon2id$v=19$m=19456,t=2,p=1$salt$hash.
type hash struct {
	cost
	salt, sum []byte
}

func newHash(password string, c cost) hash {
	h := hash{cost: c, salt: make([]byte, saltSize)}
	rand.Read(h.salt) //nolint:errcheck // never fails
	h.sum = h.of(password, hashSize)
	return h
}

// decoyHash takes as long to compare as any, and fits no password: the sum is not
// known to come of one.
func decoyHash() hash {
	h := hash{cost: newCost(), salt: make([]byte, saltSize), sum: make([]byte, hashSize)}
	rand.Read(h.sum) //nolint:errcheck // never fails
	return h
}

func (h *hash) of(password string, size int) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, uint32(size)) //nolint:gosec // at most maxHashSize
}

func (h *hash) fits(password string) bool {
	return subtle.ConstantTimeCompare(h.of(password, len(h.sum)), h.sum) == 1
}

// weaker tells whether the hash cost less than new ones in any way.
func (h *hash) weaker(c cost) bool {
	return h.memory < c.memory || h.time < c.time || len(h.salt) < saltSize || len(h.sum) < hashSize
}

// MarshalText gives the PHC form.
func (h hash) MarshalText() ([]byte, error) {
	enc := base64.RawStdEncoding
	return fmt.Appendf(nil, "$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads, enc.EncodeToString(h.salt), enc.EncodeToString(h.sum)), nil
}

// What a hash in the store may cost: one that was tampered with must not take the
// machine's memory.
const (
	maxCostMemory  = 256 << 10 // KiB
	maxCostTime    = 16
	maxCostThreads = 16
	maxHashSize    = 64
)

var errHash = errors.New("not a hash of the form $argon2id$v=19$m=,t=,p=$salt$hash")

// UnmarshalText accepts what MarshalText gives, and nothing that costs too much.
func (h *hash) UnmarshalText(text []byte) error {
	var got hash
	var version int
	parts := strings.Split(string(text), "$")
	if len(text) > 512 || len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return errHash
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return errHash
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &got.memory, &got.time, &got.threads); err != nil {
		return errHash
	}
	var errs [2]error
	got.salt, errs[0] = base64.RawStdEncoding.Strict().DecodeString(parts[4])
	got.sum, errs[1] = base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if errors.Join(errs[:]...) != nil {
		return errHash
	}
	switch {
	case got.time < 1 || got.time > maxCostTime, got.threads < 1 || got.threads > maxCostThreads,
		got.memory < 8*uint32(got.threads) || got.memory > maxCostMemory,
		len(got.salt) < 8 || len(got.salt) > maxHashSize, len(got.sum) < 16 || len(got.sum) > maxHashSize:
		return errHash
	}
	if again, _ := got.MarshalText(); string(again) != string(text) { //nolint:errcheck // never fails; Sscanf takes more than one spelling
		return errHash
	}
	*h = got
	return nil
}
