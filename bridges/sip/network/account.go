package network

import (
	"bytes"
	"errors"
	"strings"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/bridges/sip/documents"
)

// An account is what a server says of one person, as it was reported last.
type account struct {
	spans []presence.Span // nil: nothing is known
	body  []byte          // that it was read from
	until time.Time       // when it ends
	told  bool            // it was reported since the Run began
}

// A change is what is to be reported of a person: nothing, where report is not set.
type change struct {
	report bool
	spans  []presence.Span
	until  time.Time // zero: there is nothing that could end
}

// learn takes a document, or several where the person has several instances, that
// counts until a time. What we wrote ourselves says nothing.
func (a *account) learn(bodies [][]byte, until, now time.Time) (change, error) {
	joined := bytes.Join(bodies, []byte{0})
	spans := a.spans
	if a.spans == nil || !bytes.Equal(joined, a.body) { // a time that the document does not say is when it came first
		spans = nil
		for _, body := range bodies {
			d, err := pidf.ParseForeign(body)
			if err != nil {
				return change{}, err
			}
			spans = append(spans, pidf.Facts(d, now)...)
		}
		presence.SortSpans(spans)
	}
	if len(spans) == 0 {
		return a.forget(now), nil
	}
	a.spans, a.body, a.until, a.told = spans[:min(len(spans), presence.MaxSpans)], bytes.Clone(joined), until, true
	return change{true, a.spans, until}, nil
}

// forget says that the server knows nothing any more: what it said has expired.
func (a *account) forget(now time.Time) change {
	c := change{report: !a.told || a.spans != nil, spans: a.spans}
	if a.spans != nil {
		c.until = now
	}
	*a = account{told: true}
	return c
}

// retract says that the server is nobody to ask about the person.
func (a *account) retract() change {
	c := change{report: a.told}
	*a = account{}
	return c
}

// last shortens the life of what is known.
func (a *account) last(until time.Time) change {
	if a.spans == nil || !until.Before(a.until) {
		return change{}
	}
	a.until = until
	return change{true, a.spans, until}
}

// A roll follows a list through the NOTIFYs of one dialog (RFC 4662 section 5).
type roll struct {
	dialog  string // Call-ID
	version uint32
}

var errGap = errors.New("the list is not the one after the last")

// follow takes the list of a NOTIFY. It fails with errGap where something was missed,
// and the full state is to be asked for.
func (r *roll) follow(dialog string, l *documents.List) error {
	if !l.Full && (r.dialog != dialog || l.Version != r.version+1) {
		return errGap
	}
	r.dialog, r.version = dialog, l.Version
	return nil
}

// members gives the resources of a list and of those within it by their address, with
// the instances of all of them.
func members(l *documents.List, into map[string][]documents.Instance) map[string][]documents.Instance {
	for i := range l.Resources {
		r := &l.Resources[i]
		uri := canonical(r.URI)
		own := into[uri]
		nested := false
		for _, n := range r.Instances {
			if n.List != nil {
				nested = true
				members(n.List, into)
				continue
			}
			own = append(own, n)
		}
		if !nested || len(own) > 0 {
			into[uri] = own
		}
	}
	return into
}

// canonical gives an address so that equal ones are equal texts, as far as presence
// goes: without parameters, the host in lower case (RFC 3261 section 19.1.4).
func canonical(uri string) string {
	uri, _, _ = strings.Cut(uri, "?")
	scheme, rest, _ := strings.Cut(uri, ":")
	user, host, ok := strings.Cut(rest, "@")
	if !ok {
		return strings.ToLower(uri)
	}
	host, _, _ = strings.Cut(host, ";")
	return strings.ToLower(scheme) + ":" + user + "@" + strings.ToLower(host)
}
