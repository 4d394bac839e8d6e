package xmpp

import (
	"strconv"
	"time"

	"presenced/aggregator/presence"
)

// An inquiry is an iq and what is needed to answer it.
type inquiry struct {
	st         *stanza
	local      string // whom it is about; empty: the component
	allowed    bool   // the asker may watch
	subscribed bool   // the asker watches
	known      bool   // somebody has the address
	person     presence.Person
	state      presence.State // as the asker may see it
	started    time.Time      // of the component
	version    string         // of the product
}

// answer appends the one answer to a get or set; results and errors get none.
func (q *inquiry) answer(dst []byte, now time.Time) []byte {
	st := q.st
	switch st.typ {
	case "get", "set":
	case "result", "error":
		return dst
	default:
		return appendError(dst, st, "modify", "bad-request")
	}
	if st.id == "" || st.children != 1 || st.deep {
		return appendError(dst, st, "modify", "bad-request")
	}
	// To strangers all addresses look alike: nobody learns who exists.
	if q.local != "" && !q.allowed {
		return appendError(dst, st, "cancel", "service-unavailable")
	}
	if q.local != "" && !q.known {
		return appendError(dst, st, "cancel", "item-not-found")
	}
	if st.typ != "get" {
		return appendError(dst, st, "cancel", "service-unavailable")
	}
	payload := st.space + " " + st.name
	switch payload {
	case nsPing + " ping":
		return q.result(dst, "")
	case nsDiscoInfo + " query", nsDiscoItem + " query":
		if st.node != "" {
			return appendError(dst, st, "cancel", "item-not-found")
		}
	}
	if q.local == "" {
		return q.answerHost(dst, payload, now)
	}
	return q.answerPerson(dst, payload, now)
}

func (q *inquiry) answerHost(dst []byte, payload string, now time.Time) []byte {
	switch payload {
	case nsDiscoInfo + " query":
		return q.result(dst, "<query xmlns='"+nsDiscoInfo+"'><identity category='gateway' type='simple' name='Presence'/>"+
			features(nsDiscoInfo, nsDiscoItem, nsLast, nsVersion, nsPing)+"</query>")
	case nsDiscoItem + " query":
		return q.result(dst, "<query xmlns='"+nsDiscoItem+"'/>") // who is known is not for everybody
	case nsLast + " query":
		return q.result(dst, "<query xmlns='"+nsLast+"' seconds='"+strconv.FormatInt(seconds(q.started, now), 10)+"'/>")
	case nsVersion + " query":
		return q.result(dst, "<query xmlns='"+nsVersion+"'>"+
			string(appendElement(appendElement(nil, "name", "presenced"), "version", q.version))+"</query>")
	}
	return appendError(dst, q.st, "cancel", "service-unavailable")
}

func (q *inquiry) answerPerson(dst []byte, payload string, now time.Time) []byte {
	switch payload {
	case nsDiscoInfo + " query":
		b := append([]byte("<query xmlns='"+nsDiscoInfo+"'>"), "<identity category='account' type='registered'"...)
		b = append(appendAttr(b, "name", q.person.Name), "/>"...)
		return q.result(dst, string(b)+features(nsDiscoInfo, nsDiscoItem, nsLast, nsVCard, nsPing)+"</query>")
	case nsDiscoItem + " query":
		return q.result(dst, "<query xmlns='"+nsDiscoItem+"'/>")
	case nsVCard + " vCard":
		return q.result(dst, q.vcard())
	case nsLast + " query":
		if !q.subscribed {
			return appendError(dst, q.st, "auth", "forbidden")
		}
		return q.result(dst, q.last(now))
	}
	return appendError(dst, q.st, "cancel", "service-unavailable")
}

func (q *inquiry) result(dst []byte, payload string) []byte {
	dst = appendStart(dst, "iq", "result", q.st.id, q.st.to, q.st.from)
	if payload == "" {
		return append(dst, "/>"...)
	}
	return append(append(append(dst, '>'), payload...), "</iq>"...)
}

func features(names ...string) string {
	var out []byte
	for _, name := range names {
		out = append(appendAttr(append(out, "<feature"...), "var", name), "/>"...)
	}
	return string(out)
}

// vcard gives name, telephone and mail (XEP-0054).
func (q *inquiry) vcard() string {
	b := append([]byte(nil), "<vCard xmlns='"+nsVCard+"'>"...)
	b = appendElement(b, "FN", q.person.Name)
	if tel := q.person.Address("tel"); tel != "" {
		b = append(appendElement(append(b, "<TEL><WORK/><VOICE/>"...), "NUMBER", tel), "</TEL>"...)
	}
	if mail := q.person.Address("mail"); mail != "" {
		b = append(appendElement(append(b, "<EMAIL><INTERNET/>"...), "USERID", mail), "</EMAIL>"...)
	}
	return string(append(b, "</vCard>"...))
}

// last gives since when the person is not online (XEP-0012).
func (q *inquiry) last(now time.Time) string {
	s := &q.state
	if s.Availability >= presence.OffWork { // shown as available, with whatever show
		return "<query xmlns='" + nsLast + "' seconds='0'/>"
	}
	b := append([]byte(nil), "<query xmlns='"+nsLast+"' seconds='"...)
	b = strconv.AppendInt(b, seconds(s.Since, now), 10)
	return string(append(appendText(append(b, "'>"...), s.Text()), "</query>"...))
}
