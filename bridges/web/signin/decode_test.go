package signin

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const someHash = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"

// A hash comes back as it was written, fits its password, and no other.
func TestHash(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		password, other := rapid.String().Draw(r, "password"), rapid.String().Draw(r, "other")
		h := newHash(password, cost{memory: 8, time: 1, threads: 1})
		text, _ := h.MarshalText() //nolint:errcheck // never fails
		var got hash
		if err := got.UnmarshalText(text); err != nil {
			r.Fatal(err)
		}
		if !got.fits(password) || other != password && got.fits(other) {
			r.Errorf("%s of %q, %q", text, password, other)
		}
	})
	var h hash
	for name, text := range map[string]string{
		"memory":  strings.Replace(someHash, "m=8", "m=99999999", 1),
		"passes":  strings.Replace(someHash, "t=1", "t=99", 1),
		"none":    strings.Replace(someHash, "t=1", "t=0", 1),
		"threads": strings.Replace(someHash, "p=1", "p=200", 1),
		"kind":    strings.Replace(someHash, "2id", "2i", 1),
		"version": strings.Replace(someHash, "v=19", "v=16", 1),
		"salt":    strings.Replace(someHash, "c29tZXNhbHQ", "c2", 1),
		"sum":     strings.TrimRight(someHash, "A"),
		"form":    someHash + "$",
		"spaces":  strings.Replace(someHash, "m=8", "m= 8", 1),
	} {
		if h.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%s: %s was taken", name, text)
		}
	}
}

// A hash that cost less than new ones is made anew when its password is given.
func TestRehash(t *testing.T) {
	w, c := cost{memory: 8, time: 1, threads: 1}, newCost()
	weak, strong := newHash("x", w), newHash("x", c)
	if !weak.weaker(c) || strong.weaker(c) || strong.weaker(w) {
		t.Error("weaker is not what costs less")
	}
	if decoy := decoyHash(); decoy.cost != c || len(decoy.sum) != hashSize {
		t.Error("the decoy costs something else than a new hash")
	}
}

func FuzzHash(f *testing.F) {
	f.Add(someHash)
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$$")
	f.Fuzz(func(t *testing.T, text string) {
		var h hash
		if h.UnmarshalText([]byte(text)) != nil {
			return
		}
		if again, _ := h.MarshalText(); string(again) != text { //nolint:errcheck // never fails
			t.Errorf("%q is written %q", text, again)
		}
		if h.memory > maxCostMemory || h.time > maxCostTime || h.memory < 8*uint32(h.threads) {
			t.Errorf("%q costs %+v", text, h.cost)
		}
	})
}

// Only what seal wrote opens, and no longer than it lasts.
func TestFlow(t *testing.T) {
	p, q := &provider{mac: newSecret()}, &provider{mac: newSecret()}
	now := time.Now()
	f := flow{State: "s", Nonce: "n", Verifier: "v", Next: "/people/7", Expires: now.Add(flowLife)}
	text := p.seal(f)
	got, ok := p.open(text, now)
	if got.Expires = f.Expires; !ok || got != f {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := p.open(text, now.Add(flowLife)); ok {
		t.Error("it is over")
	}
	if _, ok := q.open(text, now); ok {
		t.Error("another process wrote it")
	}
}

func FuzzFlow(f *testing.F) {
	p := &provider{mac: make([]byte, 32)}
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	sealed := p.seal(flow{State: "s", Next: "/", Expires: now.Add(time.Minute)})
	f.Add(sealed)
	f.Add("e30." + strings.Repeat("A", 43))
	f.Add(".")
	f.Fuzz(func(t *testing.T, text string) {
		if _, ok := p.open(text, now); ok && text[:strings.IndexByte(text, '.')] != sealed[:strings.IndexByte(sealed, '.')] {
			t.Errorf("%q opens", text)
		}
	})
}

// Whatever keys are tried, the table stays within its bounds, and nobody has more
// tries than allowed.
func TestLimiter(t *testing.T) {
	l := newLimiter()
	now := time.Now()
	a := allowance{burst: 3, every: time.Minute, most: time.Hour}
	for i := range 3 * maxTries {
		l.take(now, claim{strings.Repeat("x", i%50) + string(rune('0'+i%maxTries)) + time.Duration(i).String(), a})
		if len(l.now) > maxTries || len(l.old) > maxTries {
			t.Fatalf("%d and %d keys", len(l.now), len(l.old))
		}
	}
	rapid.Check(t, func(r *rapid.T) {
		l, now := newLimiter(), time.Now()
		began, let := now, 0
		for _, step := range rapid.SliceOfN(rapid.IntRange(0, 300), 1, 100).Draw(r, "seconds") {
			now = now.Add(time.Duration(step) * time.Second)
			wait, _ := l.take(now, claim{"x", a})
			if wait == 0 {
				let++
			}
			if most := 3 + now.Sub(began).Minutes(); float64(let) > most+1e-6 {
				r.Fatalf("%d in %s", let, now.Sub(began))
			}
			if wait < 0 || wait > a.most {
				r.Fatalf("a wait of %s", wait)
			}
		}
	})
}
