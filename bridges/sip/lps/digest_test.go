package lps

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/icholy/digest"

	"presenced/internal/htdigest"
)

// The accounts of the tests: the password is the name, turned around.
type accounts struct{}

func (accounts) HA1(user, realm, algorithm string) (string, bool) {
	h := md5.New
	if algorithm == htdigest.SHA256 {
		h = sha256.New
	}
	return hashOf(h, user+":"+realm+":"+password(user)), strings.Trim(user, "abcdefghijklmnopqrstuvwxyz0123456789") == "" && user != "mallory"
}

func hashOf(h func() hash.Hash, text string) string {
	x := h()
	x.Write([]byte(text))
	return hex.EncodeToString(x.Sum(nil))
}

func password(user string) string { return user + "'s" }

func newGuard() *Guard {
	return NewGuard("example.test", []string{htdigest.SHA256, htdigest.MD5}, accounts{})
}

// credentialsFor answers a challenge as a client does, by another implementation.
func credentialsFor(t testing.TB, challenge, user, password, method string, count int) string {
	t.Helper()
	c, err := digest.ParseChallenge(challenge)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := digest.Digest(c, digest.Options{Method: method, URI: "sip:alice@example.test", Username: user, Password: password, Count: count, Cnonce: "0a4f113b"})
	if err != nil {
		t.Fatal(err)
	}
	return answer.String()
}

func TestDigest(t *testing.T) {
	source, now := netip.MustParseAddr("192.0.2.1"), epoch()
	g := newGuard()
	for i, algorithm := range []string{htdigest.SHA256, htdigest.MD5} {
		challenge := g.Challenge(source, false, now)[i]
		if !strings.Contains(challenge, "algorithm="+algorithm+",") {
			t.Fatalf("challenge %d: %s", i, challenge)
		}
		good := credentialsFor(t, challenge, "bob", password("bob"), "PUBLISH", 1)
		for name, c := range map[string]struct {
			value, method string
			source        netip.Addr
			at            time.Time
			want          Verdict
		}{
			"another method":  {good, "SUBSCRIBE", source, now, Verdict{}},
			"another source":  {good, "PUBLISH", netip.MustParseAddr("192.0.2.2"), now, Verdict{}},
			"wrong password":  {credentialsFor(t, challenge, "bob", "x", "PUBLISH", 1), "PUBLISH", source, now, Verdict{}},
			"nobody known":    {credentialsFor(t, challenge, "mallory", password("mallory"), "PUBLISH", 1), "PUBLISH", source, now, Verdict{}},
			"too late":        {good, "PUBLISH", source, now.Add(nonceLife + time.Second), Verdict{Stale: true}},
			"of the future":   {good, "PUBLISH", source, now.Add(-time.Second), Verdict{Stale: true}},
			"a long name":     {credentialsFor(t, challenge, strings.Repeat("b", maxUser+1), password(strings.Repeat("b", maxUser+1)), "PUBLISH", 1), "PUBLISH", source, now, Verdict{}},
			"another realm":   {strings.Replace(good, "example.test", "example.org", 1), "PUBLISH", source, now, Verdict{}},
			"another nonce":   {credentialsFor(t, newGuard().Challenge(source, false, now)[i], "bob", password("bob"), "PUBLISH", 1), "PUBLISH", source, now, Verdict{}},
			"no count":        {credentialsFor(t, strings.Replace(challenge, `, qop="auth"`, "", 1), "bob", password("bob"), "PUBLISH", 1), "PUBLISH", source, now, Verdict{}},
			"basic":           {"Basic Ym9iOmJvYg==", "PUBLISH", source, now, Verdict{}},
			"nothing":         {"", "PUBLISH", source, now, Verdict{}},
			"an open quote":   {good[:len(good)/2], "PUBLISH", source, now, Verdict{}},
			"much too much":   {good + strings.Repeat(" ", maxCredentials), "PUBLISH", source, now, Verdict{}},
			"from the mapped": {credentialsFor(t, challenge, "bob", password("bob"), "PUBLISH", 7), "PUBLISH", netip.MustParseAddr("::ffff:192.0.2.1"), now, Verdict{User: "bob"}},
		} {
			if got := newGuardLike(g).Verify([]string{c.value}, c.method, c.source, c.at); got != c.want {
				t.Errorf("%s, %s: %+v, want %+v", algorithm, name, got, c.want)
			}
		}
		c, ok := parseCredentials(good)
		c.user, c.uri = "mallory", "sip:alice@example.test"
		forged := strings.NewReplacer(`"bob"`, `"mallory"`, c.answer, c.response("00000000000000000000000000000000", "PUBLISH")).Replace(good)
		if got := newGuardLike(g).Verify([]string{forged}, "PUBLISH", source, now); !ok || got != (Verdict{}) {
			t.Errorf("%s: nobody known, by what stands for them: %+v", algorithm, got)
		}
		if got := g.Verify([]string{"Basic x", good}, "PUBLISH", source, now); got.User != "bob" {
			t.Errorf("%s: %+v", algorithm, got)
		}
		if got := g.Verify([]string{good}, "PUBLISH", source, now); got != (Verdict{Stale: true}) {
			t.Errorf("%s: sent again: %+v", algorithm, got)
		}
	}
}

// newGuardLike gives a guard with the key of another, that saw nothing yet.
func newGuardLike(g *Guard) *Guard {
	n := newGuard()
	n.key = g.key
	return n
}

// TestCounts takes each nonce count once, in any order within the window.
func TestCounts(t *testing.T) {
	u := &uses{}
	for _, c := range []struct {
		count uint32
		want  bool
	}{{0, false}, {1, true}, {1, false}, {3, true}, {2, true}, {2, false}, {70, true}, {7, true}, {6, false}, {7, false}, {1 << 31, true}, {70, false}, {1<<31 - 63, true}} {
		if got := u.take(c.count); got != c.want {
			t.Errorf("count %d: %v", c.count, got)
		}
	}
}

// TestNonceMemory uses more nonces than are remembered: no count of one that was
// forgotten is good again.
func TestNonceMemory(t *testing.T) {
	source, now := netip.MustParseAddr("192.0.2.1"), epoch()
	g := newGuard()
	first := credentialsFor(t, g.Challenge(source, false, now)[1], "bob", password("bob"), "PUBLISH", 1)
	for i := range 4 {
		if i == 0 || i == 3 {
			if got := g.Verify([]string{first}, "PUBLISH", source, now); (got.User == "bob") != (i == 0) {
				t.Fatalf("round %d: %+v", i, got)
			}
		}
		g.mu.Lock() // as if that many had come
		for j := range maxNonces {
			g.young[fmt.Sprint(i, j)] = &uses{}
		}
		g.mu.Unlock()
		now = now.Add(time.Second)
		other := credentialsFor(t, g.Challenge(source, false, now)[1], "bob", password("bob"), "PUBLISH", 1)
		if got := g.Verify([]string{other}, "PUBLISH", source, now); got.User != "bob" {
			t.Fatalf("round %d: a new nonce: %+v", i, got)
		}
	}
}

// TestReplayBetweenGenerations sends a request again just after the nonces were sorted
// into a new generation, when its own is in the old one; and those who ask are bounded.
func TestReplayBetweenGenerations(t *testing.T) {
	source, now := netip.MustParseAddr("192.0.2.1"), epoch()
	g := newGuard()
	take := func(count int, challenge string) Verdict {
		return g.Verify([]string{credentialsFor(t, challenge, "bob", password("bob"), "PUBLISH", count)}, "PUBLISH", source, now)
	}
	challenge := g.Challenge(source, false, now)[0]
	if got := take(1, challenge); got.User != "bob" {
		t.Fatalf("%+v", got)
	}
	for i := range 3 * maxNonces {
		g.fresh(&credentials{nonce: fmt.Sprint(i), count: 1}, now, now)
		if i == maxNonces {
			if got := take(1, challenge); got != (Verdict{Stale: true}) {
				t.Errorf("sent again: %+v", got)
			}
			if got := take(2, challenge); got.User != "bob" {
				t.Errorf("the next count: %+v", got)
			}
		}
	}
	if n := len(g.young) + len(g.old); n > 2*maxNonces {
		t.Errorf("%d nonces are remembered", n)
	}
}

func FuzzCredentials(f *testing.F) {
	f.Add(`Digest username="bob", realm="example.test", nonce="n", uri="sip:a@b", response="x", algorithm=MD5, cnonce="c", qop=auth, nc=00000001`)
	f.Add(`Digest username="b\"ob", realm=example.test,,nc=1`)
	f.Add(`digest `)
	f.Fuzz(func(t *testing.T, value string) {
		g := newGuard()
		if v := g.Verify([]string{value}, "PUBLISH", netip.MustParseAddr("192.0.2.1"), epoch()); v.User != "" {
			t.Errorf("%q proves to be %s", value, v.User)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	source, now := netip.MustParseAddr("192.0.2.1"), epoch()
	for i, algorithm := range []string{htdigest.SHA256, htdigest.MD5} {
		b.Run(algorithm, func(b *testing.B) {
			g := newGuard()
			challenge := g.Challenge(source, false, now)[i]
			value := []string{credentialsFor(b, challenge, "bob", password("bob"), "PUBLISH", 1)}
			b.ReportAllocs()
			for b.Loop() {
				g.Verify(value, "PUBLISH", source, now)
			}
		})
	}
}
