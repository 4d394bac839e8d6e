package xmpp

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"presenced/aggregator/presence"
)

func TestAnswers(t *testing.T) {
	t.Parallel()
	const (
		host  = "presence.xmpp.test"
		about = "carol@presence.xmpp.test"
	)
	away := state(presence.Away, presence.NoActivity)
	away.Since = at().Add(-903_500_000_000) // 903.5 s
	for _, c := range []struct {
		to, typ, payload string
		change           func(*inquiry)
		want             string
	}{
		{host, "get", "<ping xmlns='urn:xmpp:ping'/>", nil, "<iq type='result' id='x1' from='presence.xmpp.test' to='bob@xmpp.test/r2'/>"},
		{about, "get", "<ping xmlns='urn:xmpp:ping'/>", nil, "<iq type='result' id='x1' from='carol@presence.xmpp.test' to='bob@xmpp.test/r2'/>"},
		{host, "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", nil, "<identity category='gateway' type='simple' name='Presence'/>"},
		{host, "get", "<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>", nil, "item-not-found"},
		{host, "get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", nil, "<query xmlns='http://jabber.org/protocol/disco#items'/>"},
		{host, "get", "<query xmlns='jabber:iq:last'/>", nil, "<query xmlns='jabber:iq:last' seconds='60'/>"},
		{host, "get", "<query xmlns='jabber:iq:version'/>", nil, "<name>presenced</name><version>1.2.3</version>"},
		{host, "get", "<query xmlns='jabber:iq:register'/>", nil, "<iq type='error' id='x1' from='presence.xmpp.test' to='bob@xmpp.test/r2'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"},
		{host, "set", "<ping xmlns='urn:xmpp:ping'/>", nil, "service-unavailable"},
		{about, "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", nil, "<identity category='account' type='registered' name='Carol &lt;Jones&gt;'/>"},
		{about, "get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", nil, "type='result'"},
		{about, "get", "<vCard xmlns='vcard-temp'/>", nil, "<vCard xmlns='vcard-temp'><FN>Carol &lt;Jones&gt;</FN><TEL><WORK/><VOICE/><NUMBER>4711</NUMBER></TEL><EMAIL><INTERNET/><USERID>carol@example.com</USERID></EMAIL></vCard>"},
		{about, "set", "<vCard xmlns='vcard-temp'/>", nil, "service-unavailable"},
		{about, "get", "<query xmlns='jabber:iq:last'/>", nil, "<error type='auth'><forbidden"},
		{about, "get", "<query xmlns='jabber:iq:last'/>", func(q *inquiry) { q.subscribed = true }, "seconds='0'"},
		{about, "get", "<query xmlns='jabber:iq:last'/>", func(q *inquiry) {
			q.subscribed, q.state = true, away
			q.state.Availability = presence.Offline
		}, "<query xmlns='jabber:iq:last' seconds='903'>Offline</query>"},
		{about, "get", "<query xmlns='jabber:iq:version'/>", nil, "service-unavailable"},
		{about, "get", "<vCard xmlns='vcard-temp'/>", func(q *inquiry) { q.known = false }, "item-not-found"},
		{about, "get", "<vCard xmlns='vcard-temp'/>", func(q *inquiry) { q.allowed = false }, "service-unavailable"},
		{about, "get", "<vCard xmlns='vcard-temp'/>", func(q *inquiry) { q.allowed, q.known = false, false }, "service-unavailable"},
		{about, "get", "<a/><b/>", nil, "bad-request"},
		{about, "", "<a/>", nil, "bad-request"},
		{about, "result", "<a/>", nil, ""},
		{about, "error", "<error type='cancel'/>", nil, ""},
	} {
		st := parse(t, "<iq type='"+c.typ+"' id='x1' from='bob@xmpp.test/r2' to='"+c.to+"'>"+c.payload+"</iq>")
		local, _, _ := splitJID(st.to)
		q := inquiry{
			st: st, local: local, allowed: true, known: true, started: at().Add(-60_000_000_000), version: "1.2.3",
			person: person("carol", "Carol\x01 <Jones>", "tel:4711", "mail:carol@example.com"),
			state:  state(presence.Available, presence.NoActivity),
		}
		q.person.Name = strings.ReplaceAll(q.person.Name, "\x01", "\x00\x01")
		if c.change != nil {
			c.change(&q)
		}
		got := string(q.answer(nil, at()))
		if !strings.Contains(got, c.want) || c.want == "" && got != "" || strings.Count(got, "<iq ") > 1 {
			t.Errorf("%s %s %s\ngot %s\nwant %s", c.typ, c.to, c.payload, got, c.want)
		}
	}
}

// wellFormed tells whether text is a sequence of complete elements.
func wellFormed(text string) error {
	d := xml.NewDecoder(strings.NewReader("<x>" + text + "</x>"))
	for {
		if _, err := d.Token(); err == io.EOF { //nolint:errorlint // Token gives it bare
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Whatever a server sends, the reader ends or gives bounded stanzas, and what the
// bridge answers is well-formed, at most one answer to an iq.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		"<presence type='subscribe' from='bob@xmpp.test' to='carol@presence.xmpp.test' xml:lang='en'/>",
		"<presence type='probe' from='bob@xmpp.test/r2' to='carol@presence.xmpp.test'/>",
		"<presence from='bob@xmpp.test/r2' to='carol@presence.xmpp.test'><priority>0</priority><x xmlns='vcard-temp:x:update'><photo/></x></presence>",
		"<iq type='get' id='x&#x9;&apos;1' from='bob@xmpp.test/r2' to='carol@presence.xmpp.test'><query xmlns='jabber:iq:last'/></iq> \n",
		"<iq type='get' id='v' from='bob@xmpp.test/r2' to='carol@presence.xmpp.test'><vCard xmlns='vcard-temp'/></iq>",
		"<iq type='get' id='d' from='a@b' to='presence.xmpp.test'><query xmlns='http://jabber.org/protocol/disco#info' node='n'/></iq>",
		"<message from='a' to='b'><body>&lt;&#65;</body></message></stream:stream>",
		"<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>x</text></stream:error>",
		"<stream:error><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>" + strings.Repeat("ä", 300),
		"<!-- c --><a>" + strings.Repeat("<a>", 50), "<a></b>", "<presence from='a", "\x00", "<presence xmlns='jabber:client'/><x xmlns='y'/>",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newReader(io.MultiReader(strings.NewReader("<stream:stream xmlns='"+nsComponent+"' xmlns:stream='"+nsStream+"' id='1'>"), strings.NewReader(string(data))))
		if _, err := r.header(); err != nil {
			return // the data continues the header's tag
		}
		d := newDesk()
		d.show(carolShows(onThePhone))
		for {
			st, err := r.element()
			if err != nil {
				if len(err.Error()) > 1000 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
				return
			}
			if st.kind != "presence" && st.kind != "iq" && st.kind != "message" || !valid(st.from) || !valid(st.to) {
				continue
			}
			var out string
			switch st.kind {
			case "presence":
				d.receive(&st, true, at())
				out = d.out()
			case "iq":
				local, _, _ := splitJID(st.to)
				q := inquiry{st: &st, local: local, allowed: true, known: true, subscribed: true}
				out = string(q.answer(nil, at()))
				if strings.Count(out, "<iq ") > 1 || out != "" && (st.typ == "result" || st.typ == "error") {
					t.Errorf("answers to %+v: %s", st, out)
				}
			default:
				out = string(appendError(nil, &st, "cancel", "service-unavailable"))
			}
			if err := wellFormed(out); err != nil {
				t.Errorf("%v: %q", err, out)
			}
		}
	})
}
