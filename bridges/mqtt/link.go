package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"presenced/aggregator/presence"
	"presenced/bridges/outbox"
)

// The times and limits of a connection.
const (
	dialTime   = 10 * time.Second
	packetTime = 10 * time.Second // for an acknowledgement
	keepAlive  = 30               // seconds
	maxPacket  = 64 << 10         // that the broker may send
	maxUnacked = 64               // messages at the same time, either way
)

// A link is one connection to the broker.
type link struct {
	client *paho.Client
	lost   chan error // why the connection ended
}

// connect dials the broker and signs in; each answer may take patience. What the broker
// retains is given to found, once it is subscribed to; found may block the connection.
// Without found it is a trial, which leaves nothing behind and disturbs no other
// connection.
func connect(ctx context.Context, cfg *Config, patience time.Duration, found func(topic string, payload []byte)) (*link, error) {
	address, host, secure := cfg.broker()
	var password string
	if cfg.PasswordFile != "" {
		var err error
		if password, err = cfg.PasswordFile.Read(); err != nil {
			return nil, presence.Permanent(err)
		}
	}
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if secure {
		settings, err := cfg.TLS.Client(host)
		if err != nil {
			_ = conn.Close()
			return nil, presence.Permanent(err)
		}
		shake, stop := context.WithTimeout(ctx, dialTime)
		encrypted := tls.Client(conn, settings)
		err = encrypted.HandshakeContext(shake)
		stop()
		if err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("TLS with %s: %w", address, err)
		}
		conn = encrypted
	}
	l := &link{lost: make(chan error, 1)}
	ended := func(err error) {
		select {
		case l.lost <- err:
		default:
		}
	}
	l.client = paho.NewClient(paho.ClientConfig{
		Conn: &boundedConn{Conn: conn}, PacketTimeout: patience, AuthHandler: noAuth{},
		OnClientError: func(err error) { ended(fmt.Errorf("the connection ended: %w", err)) },
		OnServerDisconnect: func(d *paho.Disconnect) {
			ended(fmt.Errorf("the broker ended the connection: %s", strings.ToLower((&packets.Disconnect{ReasonCode: d.ReasonCode}).Reason())))
		},
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			if p.Packet.Retain && found != nil {
				found(p.Packet.Topic, p.Packet.Payload)
			}
			return true, nil
		}},
	})
	most, size, no := uint16(maxUnacked), uint32(maxPacket), uint32(0)
	hello := &paho.Connect{
		ClientID: cfg.clientID(), KeepAlive: keepAlive, CleanStart: true,
		Username: cfg.User, UsernameFlag: cfg.User != "", Password: []byte(password), PasswordFlag: password != "",
		Properties: &paho.ConnectProperties{ReceiveMaximum: &most, MaximumPacketSize: &size, SessionExpiryInterval: &no, RequestProblemInfo: true},
	}
	if found == nil {
		hello.ClientID += "-check"
	} else {
		hello.WillMessage = &paho.WillMessage{Topic: cfg.availability(), Payload: []byte(offline), QoS: 1, Retain: true}
		hello.WillProperties = &paho.WillProperties{}
	}
	ack, err := l.client.Connect(ctx, hello)
	switch {
	case err == nil:
		return l, nil
	case ack == nil:
		return nil, fmt.Errorf("%s does not answer as a broker of MQTT 5 does: %w", address, err)
	}
	err = refusal(cfg, address, ack.ReasonCode)
	switch ack.ReasonCode {
	case packets.ConnackUnsupportedProtocolVersion, packets.ConnackInvalidClientID, packets.ConnackBadUsernameOrPassword, packets.ConnackNotAuthorized,
		packets.ConnackBadAuthenticationMethod, packets.ConnackRetainNotSupported, packets.ConnackQoSNotSupported, packets.ConnackTopicNameInvalid, packets.ConnackBanned:
		return nil, presence.Permanent(err)
	}
	return nil, err
}

// Try connects to the broker of cfg and leaves, without publishing anything.
func Try(ctx context.Context, cfg Config) error {
	l, err := connect(ctx, &cfg, packetTime, nil)
	if err != nil {
		return err
	}
	return l.client.Disconnect(&paho.Disconnect{})
}

// refusal says in words why the broker does not let us in.
func refusal(cfg *Config, address string, code byte) error {
	in := fmt.Sprintf("it does not let %q in: compare user and password_file, and what the broker allows that user", cfg.User)
	what := map[byte]string{
		packets.ConnackUnsupportedProtocolVersion: "it does not speak MQTT 5",
		packets.ConnackInvalidClientID:            fmt.Sprintf("it does not take the client identifier %q; set client_id", cfg.clientID()),
		packets.ConnackBadUsernameOrPassword:      in,
		packets.ConnackNotAuthorized:              in,
		packets.ConnackServerUnavailable:          "it is not available",
		packets.ConnackServerBusy:                 "it is busy",
		packets.ConnackRetainNotSupported:         "it takes no retained messages",
	}[code]
	if what == "" {
		what = fmt.Sprintf("reason code 0x%02X", code)
	}
	return fmt.Errorf("%s refuses the connection: %s", address, what)
}

// publish has the broker retain a payload; an empty one takes back what it retains. The
// error is of the connection, or permanent.
func (l *link) publish(ctx context.Context, topic string, payload []byte) (outbox.Outcome, string, error) {
	text := byte(1)
	p := &paho.Publish{Topic: topic, Payload: payload, QoS: 1, Retain: true, Properties: &paho.PublishProperties{}}
	if len(payload) > 0 {
		p.Properties = &paho.PublishProperties{PayloadFormat: &text, ContentType: "application/json"}
	}
	res, err := l.client.Publish(ctx, p)
	switch {
	case res != nil && res.ReasonCode >= packets.PubackUnspecifiedError:
		return outbox.Refused, fmt.Sprintf("the broker does not take %s: %s", topic, reason(res.ReasonCode)), nil
	case errors.Is(err, paho.ErrInvalidArguments):
		return outbox.Failed, "", presence.Permanent(fmt.Errorf("the broker does not retain messages, or not with QoS 1: %w", err))
	case err != nil:
		return outbox.Failed, "", fmt.Errorf("%s is not acknowledged: %w", topic, err)
	}
	return outbox.Accepted, "", nil
}

// reason gives a reason code of an acknowledgement in words.
func reason(code byte) string {
	switch code {
	case packets.PubackNotAuthorized:
		return "not authorized; allow the user to write it"
	case packets.PubackTopicNameInvalid:
		return "the name of the topic is invalid"
	case packets.PubackQuotaExceeded:
		return "a quota is exceeded"
	}
	return fmt.Sprintf("reason code 0x%02X", code)
}

// subscribe asks for what is retained below the prefix.
func (l *link) subscribe(ctx context.Context, filter string) error {
	_, err := l.client.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, NoLocal: true, RetainAsPublished: false}}})
	return err
}

// why gives the reason why the connection ended, where that is what is behind err and
// comes within moments, else err.
func (l *link) why(err error) error {
	if presence.IsPermanent(err) {
		return err
	}
	select {
	case err = <-l.lost:
	case <-time.After(time.Second):
	}
	return err
}

// close ends the connection in order: the broker says offline for us.
func (l *link) close() {
	_ = l.client.Disconnect(&paho.Disconnect{ReasonCode: packets.DisconnectDisconnectWithWillMessage})
}

// noAuth refuses the extended authentication that nobody asked for. Without one the
// library would crash where a broker begins it.
type noAuth struct{}

// Authenticate implements paho.Auther.
func (noAuth) Authenticate(*paho.Auth) *paho.Auth {
	return &paho.Auth{ReasonCode: packets.AuthContinueAuthentication, Properties: &paho.AuthProperties{}}
}

// Authenticated implements paho.Auther.
func (noAuth) Authenticated() {}

// A boundedConn ends where the peer announces a packet of more than maxPacket bytes,
// before anything is reserved for it. As a sync.Locker it keeps packets together.
type boundedConn struct {
	net.Conn
	sync.Mutex

	left   int // of the packet, after its header
	header int // bytes of the header that were read
	length int // as far as the header tells
}

var errTooLarge = fmt.Errorf("the broker sends a packet of more than %d bytes", maxPacket)

// Read implements net.Conn. After an error nothing of what was read counts.
func (c *boundedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		if c.left > 0 {
			skip := min(c.left, len(rest))
			c.left, rest = c.left-skip, rest[skip:]
			continue
		}
		b := rest[0]
		rest = rest[1:]
		if c.header++; c.header == 1 { // the type
			continue
		}
		c.length |= int(b&0x7f) << (7 * (c.header - 2))
		if c.length > maxPacket || c.header > 5 {
			return 0, errTooLarge
		}
		if b&0x80 == 0 {
			c.left, c.header, c.length = c.length, 0, 0
		}
	}
	return n, err
}
