package mqtt

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

// A canned connection gives these bytes, a few at a time.
type canned struct {
	net.Conn
	io.Reader
}

func (c canned) Read(p []byte) (int, error) { return c.Reader.Read(p) }

// TestBound reads packets up to the bound, in pieces, and none above it.
func TestBound(t *testing.T) {
	packet := func(size int) []byte {
		p := packets.NewControlPacket(packets.PUBLISH)
		p.Content.(*packets.Publish).Topic = "t"
		p.Content.(*packets.Publish).Payload = bytes.Repeat([]byte("x"), size-4) // a topic of three bytes, no properties
		var b bytes.Buffer
		if _, err := p.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, pieces := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, func(r io.Reader) io.Reader { return r }} {
		var stream []byte
		sizes := []int{4, 127, 128, 16383, 16384, maxPacket, 200, maxPacket + 1}
		for _, size := range sizes {
			stream = append(stream, packet(size)...)
		}
		c := &boundedConn{Conn: canned{Reader: pieces(bytes.NewReader(stream))}}
		for _, size := range sizes {
			_, err := packets.ReadPacket(c)
			if (err == nil) != (size <= maxPacket) || err != nil && !errors.Is(err, errTooLarge) {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
	c := &boundedConn{Conn: canned{Reader: bytes.NewReader([]byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x00})}}
	if _, err := packets.ReadPacket(c); err == nil {
		t.Error("a length of five bytes is taken")
	}
}

// broker is a peer that answers a connection with these bytes.
func broker(t *testing.T, answer []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := packets.ReadPacket(c); err != nil {
			return
		}
		_, _ = c.Write(answer)
		_, _ = io.Copy(io.Discard, c)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "mqtt://" + l.Addr().String()
}

// TestHostileBroker connects to peers that do what no broker should: an error, and no
// crash.
func TestHostileBroker(t *testing.T) {
	connack := []byte{0x20, 3, 0, 0, 0}
	for what, c := range map[string]struct {
		answer []byte
		want   string
	}{
		"an authentication nobody asked for": {[]byte{0x20, 7, 0, 0, 4, 0x15, 0, 1, 'x', 0xE0, 2, 0x8B, 0}, ""},
		"AUTH instead of CONNACK":            {[]byte{0xF0, 6, 0x18, 4, 0x15, 0, 1, 'x', 0xE0, 2, 0x8B, 0}, "does not answer"},
		"an answer of MQTT 3.1.1":            {[]byte{0x20, 2, 0, 1}, "does not answer as a broker of MQTT 5 does"},
		"a protocol that it does not speak":  {[]byte{0x20, 3, 0, 0x84, 0}, "does not speak MQTT 5"},
		"something else":                     {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "does not answer"},
		"a packet of 256 MB":                 {append(connack, 0x30, 0xFF, 0xFF, 0xFF, 0x7F), "more than 65536 bytes"},
		"the end of the connection":          {append(connack, 0xE0, 2, 0x8B, 0), "the broker ended the connection: server shutting down"},
		"no retained messages":               {[]byte{0x20, 5, 0, 0, 2, 0x25, 0}, "does not retain messages"},
	} {
		t.Run(what, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.URL, cfg.Name = broker(t, c.answer), "broker"
			p := New(cfg, newOffice(), quiet())
			p.patience = 300 * time.Millisecond
			err := p.Run(t.Context(), newOffice("ann"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// FuzzPacket reads what a broker may send as the library does.
func FuzzPacket(f *testing.F) {
	for _, b := range [][]byte{
		{0x20, 3, 0, 0, 0},
		{0x20, 10, 0, 0, 7, 0x21, 0, 5, 0x27, 0, 0, 1, 0},
		{0x30, 6, 0, 1, 'a', 0, 'x', 'y'},
		{0x40, 2, 0, 1},
		{0x90, 4, 0, 1, 0, 0},
		{0xE0, 2, 0x81, 0},
		{0xF0, 2, 0, 0},
		{0x30, 0xFF, 0xFF, 0xFF, 0x7F},
	} {
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		p, err := packets.ReadPacket(&boundedConn{Conn: canned{Reader: bytes.NewReader(b)}})
		if err != nil {
			return
		}
		switch c := p.Content.(type) {
		case *packets.Publish:
			paho.PublishFromPacketPublish(c)
		case *packets.Connack:
			paho.ConnackFromPacketConnack(c)
		case *packets.Suback:
			paho.SubackFromPacketSuback(c)
		case *packets.Disconnect:
			paho.DisconnectFromPacketDisconnect(c)
		case *packets.Auth:
			paho.AuthFromPacketAuth(c)
		case *packets.Puback:
			paho.PublishResponseFromPuback(c)
		}
	})
}

// FuzzRetained reads what somebody may have retained below the prefix.
func FuzzRetained(f *testing.F) {
	cfg := DefaultConfig()
	f.Add("presence/ann", []byte(`{"version":1,"person":"ann","state":"busy"}`))
	f.Add("presence/a%2Fb", []byte(`{"version":1,"person":"a/b"}`))
	f.Add("presence/other", []byte(`{"version":1,"person":"ann"}`))
	f.Add("presence/kitchen", []byte(`{"motion":true}`))
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		if id, ok := cfg.theirs(topic, payload); ok && cfg.topic(id) != topic {
			t.Errorf("%q is taken for that of %q", topic, id)
		}
	})
}

// TestTopics proves that nobody has the topic of another, and what no topic has.
func TestTopics(t *testing.T) {
	cfg := DefaultConfig()
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ab+#/$%_\x00-\x20é-]{0,5}`), rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 5), func(b []byte) string { return string(b) }))
		one, two := presence.ID(id.Draw(t, "one")), presence.ID(id.Draw(t, "two"))
		for _, topic := range []func(presence.ID) string{cfg.topic, cfg.discovery} {
			if (topic(one) == topic(two)) != (one == two) {
				t.Fatalf("%q and %q have the topics %q and %q", one, two, topic(one), topic(two))
			}
			if topic(one) == cfg.availability() || strings.ContainsAny(topic(one), "+#\x00") || strings.Count(topic(one), "/") != strings.Count(topic("x"), "/") || !sound(topic(one)) {
				t.Fatalf("%q has the topic %q", one, topic(one))
			}
		}
	})
}

func TestCheck(t *testing.T) {
	good := DefaultConfig()
	if ps := good.Check(); len(ps) != 0 {
		t.Error(ps)
	}
	for _, c := range []struct {
		key, want string
		change    func(*Config)
	}{
		{"name", "needed", func(c *Config) { c.Name = "" }},
		{"url", "is no address", func(c *Config) { c.URL = "tcp://broker" }},
		{"url", "is no address", func(c *Config) { c.URL = "mqtts://" }},
		{"url", "is no address", func(c *Config) { c.URL = "mqtts://broker/x" }},
		{"url", "without TLS", func(c *Config) { c.URL = "mqtt://broker" }},
		{"url", "user or a password", func(c *Config) { c.URL = "mqtts://u:hunter2@broker" }},
		{"user", "name the user", func(c *Config) { c.PasswordFile = "/p" }},
		{"client_id", "longer", func(c *Config) { c.ClientID = strings.Repeat("x", 129) }},
		{"client_id", "printable", func(c *Config) { c.ClientID = "a\x00b" }},
		{"prefix", "beginning of a topic", func(c *Config) { c.Prefix = "a/+" }},
		{"prefix", "beginning of a topic", func(c *Config) { c.Prefix = "" }},
		{"prefix", "beginning of a topic", func(c *Config) { c.Prefix = "$SYS" }},
		{"discovery_prefix", "beginning of a topic", func(c *Config) { c.DiscoveryPrefix = "x/" }},
		{"people", "neither", func(c *Config) { c.People = []string{""} }},
		{"tls.min_version", "none of", func(c *Config) { c.TLS.MinVersion = "0.9" }},
		{"rate", "between", func(c *Config) { c.Rate = 0 }},
	} {
		bad := good
		c.change(&bad)
		ps := bad.Check()
		if len(ps) != 1 || ps[0].Path != c.key || !strings.Contains(ps[0].Text, c.want) || strings.Contains(ps[0].Text, "hunter2") {
			t.Errorf("want %s: %s, got %+v", c.key, c.want, ps)
		}
	}
	for url, want := range map[string]string{"mqtts://broker.example.com": "broker.example.com:8883", "mqtt://[::1]": "[::1]:1883", "mqtt://localhost:7": "localhost:7"} {
		c := good
		c.URL = url
		if got, _, _ := c.broker(); got != want || len(c.Check()) != 0 {
			t.Errorf("%s: %s, %v", url, got, c.Check())
		}
	}
}
