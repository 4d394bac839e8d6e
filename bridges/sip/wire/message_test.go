package wire

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const sample = "PUBLISH sip:4750@example.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:6555;branch=z9hG4bK3;rport\r\nMax-Forwards: 70\r\nFrom: <sip:4750@example.test>;tag=f1\r\nTo: <sip:4750@example.test>\r\nCall-ID: c1\r\nCSeq: 3 PUBLISH\r\nEvent: presence\r\nExpires: 600\r\nContent-Type: application/pidf+xml\r\nContent-Length: 4\r\n\r\nbody"

func TestParseAddress(t *testing.T) {
	for v, want := range map[string]string{ // URI, tag, display name
		`<sip:a@b>;tag=1`:                        "sip:a@b 1 ",
		`sip:a@b;tag=1`:                          "sip:a@b 1 ",
		`sip:a@b`:                                "sip:a@b  ",
		`"A, B" <sip:a@b;x=y>;x="a;tag=2";tag=1`: `sip:a@b;x=y 1 "A, B"`,
		`"a\"<b" <sip:a@b>`:                      `sip:a@b  "a\"<b"`,
		`Anna B<sip:a@b> ; tag = 1`:              "sip:a@b 1 Anna B",
		`<tel:+1-2>`:                             "tel:+1-2  ",
		`<sip:a@b?x=y>`:                          "sip:a@b?x=y  ",
		`sip:a@b?x=y`:                            "",
		`A, B <sip:a@b>`:                         "",
		`"A <sip:a@b>`:                           "",
		`"A" sip:a@b`:                            "",
		`< sip:a@b>`:                             "",
		`<sip:a@b`:                               "",
		`<sip:a@b> x`:                            "",
		`<sip:a@b>;;`:                            "",
		`<a@b>`:                                  "",
		``:                                       "",
	} {
		a, ok := ParseAddress([]byte(v))
		got := ""
		if ok {
			got = string(a.URI) + " " + string(a.Tag()) + " " + string(a.Display)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", v, got, want)
		}
	}
}

// What a parser refuses, beside RFC 4475.
func TestFaults(t *testing.T) {
	for name, test := range map[string]struct {
		from, to string
		want     int
	}{
		"sound":             {"", "", 0},
		"sips, LF only":     {"\r\n", "\n", 0},
		"two Event":         {"Expires", "o: x\r\nExpires", 400},
		"bare CR":           {"Expires: ", "Expires: \r ", 400},
		"no name":           {"Expires: 600", ": 600", 400},
		"no colon":          {"Expires: 600", "Expires 600", 400},
		"no host":           {"sip:4750@example.test SIP", "sip:4750@ SIP", 400},
		"port":              {"127.0.0.1:6555", "127.0.0.1:65555", 400},
		"IPv6":              {"127.0.0.1:6555", "[2001:db8::1]:6555", 0},
		"IPv6 without port": {"127.0.0.1:6555", "[2001:db8::1]", 0},
		"no bracket":        {"127.0.0.1:6555", "[2001:db8::1", 400},
		"short body":        {"Length: 4", "Length: 5", 400},
		"large field":       {"c1", strings.Repeat("c", maxField), 513},
		"folded too often":  {"c1", "c" + strings.Repeat("\r\n "+strings.Repeat("c", 99), maxField/100), 513},
		"many fields":       {"Expires", strings.Repeat("X: y\r\n", maxFields) + "Expires", 513},
		"version":           {"SIP/2.0\r\n", "SIP/3.0\r\n", 505},
		"no version":        {" SIP/2.0\r\n", "\r\n", 400},
		"CSeq too large":    {"CSeq: 3", "CSeq: 2147483648", 400},
		"no Via":            {"Via", "X-Via", 400},
	} {
		var m Message
		if !m.parse([]byte(strings.Replace(sample, test.from, test.to, 1))) || m.fault.code != test.want {
			t.Errorf("%s: %+v, want %d", name, m.fault, test.want)
		}
	}
	for _, none := range []string{"", "\n", "x", "GET / HTTP/1.1", "SIP/2.0 20 OK\r\n\r\n", "SIP/2.0 700 OK\r\n\r\n", "PUB\"LISH x SIP/2.0\r\n\r\n", strings.Repeat("x", 70000)} {
		var m Message
		if m.parse([]byte(none)) {
			t.Errorf("%.20q was taken", none)
		}
	}
}

// TestParseAllocates wants a message that a pool gave to be read without an allocation.
func TestParseAllocates(t *testing.T) {
	var m Message
	raw := []byte(sample)
	m.parse(raw)
	if n := testing.AllocsPerRun(100, func() { m.parse(raw); m.From(); m.Event() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	var m Message
	raw := []byte(sample)
	b.ReportAllocs()
	for b.Loop() {
		m.parse(raw)
	}
}

// FuzzParse wants no panic, and an answer to whatever can be answered that can be read itself.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("OPTIONS sip:a@b SIP/2.0\r\nv: SIP / 2.0 / UDP h ; branch = z9hG4bKx ,\r\n SIP/2.0/TCP i;branch=z9hG4bKy\r\nt: \"a\\\"\" <sip:a@b>\r\nf: x<sip:a@b>;tag=1\r\ni: 1\r\nCSeq: 1\r\n OPTIONS\r\nm: <sip:a,b@c>, *\r\n\r\n"))
	f.Add([]byte("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK0123456789abcdef\r\nCSeq: 1 NOTIFY\r\n\r\n"))
	f.Add([]byte("A b c\n:\n x\n\n"))
	from := netip.MustParseAddrPort("192.0.2.1:5060")
	k := newKeys()
	f.Fuzz(func(t *testing.T, data []byte) {
		var m Message
		if !m.parse(bytes.Clone(data)) {
			return
		}
		m.Event()
		m.From()
		for n := range names {
			for v := range m.List(n) {
				ParseAddress(v)
			}
			m.Seconds(n)
		}
		m.Named("x")
		m.Body()
		m.Reason()
		m.back(from)
		in := Request{Message: m}
		in.flow.Remote = from
		id, scratch := k.of(&m, from.Addr(), nil)
		r := running{app: &App{}}
		_, headers := r.check(&in)
		if m.method == "" || !m.Has(Via) {
			return
		}
		out := appendAnswer(nil, &m, from, k.appendTag(nil, id, m.CallID()), 400, "Bad Request", headers, scratch[:1])
		var again Message
		if !again.parse(bytes.Clone(out)) {
			t.Fatalf("an answer that cannot be read:\n%q\nto\n%q", out, data)
		}
		if m.fault.code == 0 && (again.fault.code != 0 || !bytes.Equal(again.part(again.via.branch), m.part(m.via.branch)) || !bytes.Equal(again.CallID(), m.CallID()) || again.CSeq() != m.CSeq()) {
			t.Fatalf("an answer that does not match: %v\n%q\nto\n%q", again.fault, out, data)
		}
	})
}

// frames feeds a stream in pieces and gives the messages, pings and end.
func frames(data []byte, piece func() int) (messages []string, pings int, end error) {
	var f framer
	for len(data) > 0 {
		n := min(max(piece(), 1), len(data))
		f.write(data[:n])
		data = data[n:]
		for {
			m, err := f.next()
			if err != nil {
				return messages, f.pings, err
			}
			if m == nil {
				break
			}
			messages = append(messages, string(m))
		}
	}
	return messages, f.pings, nil
}

// FuzzFramer wants the same messages however the stream is cut, and those to be parts of it.
func FuzzFramer(f *testing.F) {
	f.Add([]byte("\r\n\r\n"+sample+"\r\n\r\n\r\n"+sample+"x"), uint8(1))
	f.Add([]byte("A\nl: 3\n\nabcB\nContent-Length:\r\n 2\r\n\r\nab"), uint8(3))
	f.Add([]byte("A\r\nl: 99999999\r\n\r\n"), uint8(7))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		whole, pings, end := frames(data, func() int { return len(data) })
		pieces, morePings, otherEnd := frames(data, func() int { return int(size) })
		if strings.Join(whole, "|") != strings.Join(pieces, "|") || pings != morePings || (end == nil) != (otherEnd == nil) {
			t.Fatalf("whole: %q %d %v\npieces of %d: %q %d %v", whole, pings, end, size, pieces, morePings, otherEnd)
		}
		for _, m := range whole {
			if !bytes.Contains(data, []byte(m)) || len(m) > maxMessage {
				t.Fatalf("%q is no part of %q", m, data)
			}
		}
	})
}

func TestFramer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var want []string
		for range rapid.IntRange(1, 5).Draw(t, "messages") {
			for range rapid.IntRange(0, 2).Draw(t, "keep-alives") {
				stream = append(stream, "\r\n\r\n"...)
			}
			m := strings.Replace(sample, "4\r\n\r\nbody", "20000\r\n\r\n"+strings.Repeat("\r\n", 10000), rapid.IntRange(0, 1).Draw(t, "large"))
			stream = append(stream, m...)
			want = append(want, m)
		}
		got, _, err := frames(stream, func() int { return rapid.IntRange(1, 9000).Draw(t, "piece") })
		if err != nil || strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("%v, %d messages, want %d", err, len(got), len(want))
		}
	})
	if _, _, err := frames([]byte("X: "+strings.Repeat("x", maxHead)), func() int { return 1000 }); err == nil {
		t.Error("headers without end were waited for")
	}
}
