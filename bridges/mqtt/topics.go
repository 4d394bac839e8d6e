package mqtt

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"presenced/aggregator/presence"
	"presenced/bridges/outbox"
)

// The payloads of the availability topic.
const (
	online  = "online"
	offline = "offline"
)

// availability is the topic that tells whether presenced is connected. No person has
// it: a $ in an identifier is escaped.
func (c *Config) availability() string { return c.Prefix + "/$availability" }

// topic is where the person is. What has a meaning in topics and filters is written
// as %XX.
func (c *Config) topic(id presence.ID) string {
	return c.Prefix + "/" + escape(string(id), '%', func(r rune) bool {
		return r >= ' ' && r != 0x7f && !strings.ContainsRune("+#/$%", r) && sound(string(r))
	})
}

// discovery is where Home Assistant is told of the person. Its topics take letters,
// digits, hyphens and underscores only; an underscore stands before what is escaped.
func (c *Config) discovery(id presence.ID) string {
	return c.DiscoveryPrefix + "/sensor/" + word(c.clientID()) + "/" + word(string(id)) + "/config"
}

func word(text string) string {
	return escape(text, '_', func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-'
	})
}

// escape writes each byte of what is not kept as mark and two digits, so that no two
// texts come to the same.
func escape(text string, mark byte, keep func(rune) bool) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if keep(r) && (r != utf8.RuneError || size > 1) {
			b.WriteString(text[i : i+size])
		} else {
			for _, c := range []byte(text[i : i+size]) {
				fmt.Fprintf(&b, "%c%02X", mark, c)
			}
		}
		i += size
	}
	return b.String()
}

// theirs reads a retained message below the prefix: whose state it is, if it is one of
// ours. Other programs may have topics there, too.
func (c *Config) theirs(topic string, payload []byte) (presence.ID, bool) {
	var d outbox.Document
	if len(payload) > maxPacket || json.Unmarshal(payload, &d) != nil || d.Version < 1 || d.Person == "" || c.topic(d.Person) != topic {
		return "", false
	}
	return d.Person, true
}

// A sensor is what Home Assistant is told of a person (MQTT discovery, component sensor).
type sensor struct {
	Name         string `json:"name"`
	UniqueID     string `json:"unique_id"`
	State        string `json:"state_topic"`
	Value        string `json:"value_template"`
	Attributes   string `json:"json_attributes_topic"`
	Availability string `json:"availability_topic"`
	Icon         string `json:"icon"`
	QoS          int    `json:"qos"`
	Device       device `json:"device"`
	Origin       origin `json:"origin"`
}

type device struct {
	Identifiers []string `json:"identifiers"`
	Name        string   `json:"name"`
}

type origin struct {
	Name string `json:"name"`
}

// announce gives what Home Assistant is told of a person of that name.
func (c *Config) announce(id presence.ID, name string) []byte {
	if name == "" {
		name = string(id)
	}
	client := word(c.clientID())
	data, err := json.Marshal(sensor{
		Name: name, UniqueID: client + "_" + word(string(id)), State: c.topic(id), Value: "{{ value_json.state }}", Attributes: c.topic(id),
		Availability: c.availability(), Icon: "mdi:account", QoS: 1, Device: device{[]string{client}, "Presence (" + c.Name + ")"}, Origin: origin{"presenced"},
	})
	if err != nil {
		panic(err) // texts and a number
	}
	return data
}
