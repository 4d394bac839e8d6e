package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Why a request has no answer, or was not sent.
var (
	ErrTimeout  = errors.New("no answer in time")
	ErrFlow     = errors.New("there is no connection to the peer")
	ErrClosed   = errors.New("the SIP endpoint does not run")
	ErrBusy     = errors.New("too many requests wait for an answer")
	ErrTooLarge = errors.New("the request is too large to be sent")
)

// A Template is what the requests of a dialog or a publication have in common. It
// is built once, and safe for concurrent use.
type Template struct {
	method string
	start  []byte // request line
	head   []byte // From, To, Call-ID, Max-Forwards and what else never changes
	callID string
}

// NewTemplate makes a template from the method, the Request-URI, the Call-ID, From
// and To with their tags, and further header lines that never change, such as
// Contact, Route and Event (AppendHeader). It fails where a value has a line break.
func NewTemplate(method, uri, callID, from, to string, lines []byte) (*Template, error) {
	for _, s := range [...]string{method, uri, callID, from, to} {
		if s == "" || strings.ContainsAny(s, "\r\n") {
			return nil, fmt.Errorf("a SIP request cannot be made for %s: method, URI, Call-ID, From and To must each be one line that is not empty", method)
		}
	}
	if strings.ContainsAny(method+uri+callID, " \t") {
		return nil, fmt.Errorf("a SIP request cannot be made for %s: method, URI and Call-ID hold no white space", method)
	}
	t := &Template{method: method, callID: callID, start: []byte(method + " " + uri + " SIP/2.0\r\n")}
	t.head = AppendHeader(t.head, "Max-Forwards", "70")
	t.head = AppendHeader(t.head, "From", from)
	t.head = AppendHeader(t.head, "To", to)
	t.head = AppendHeader(t.head, "Call-ID", callID)
	t.head = append(t.head, lines...)
	return t, nil
}

// An Outgoing is one request.
type Outgoing struct {
	Template *Template
	CSeq     uint32
	Headers  []byte        // lines of this request alone, such as Subscription-State; read before Send returns
	Body     []byte        // may be shared by many requests; not to be changed before the answer
	Timeout  time.Duration // zero: that of the configuration
}

// appendHead writes the head of o and tells where Via stands in it.
func (o *Outgoing) appendHead(dst []byte, n Network, sentBy []byte, id uint64) (head []byte, viaAt, viaEnd int) {
	dst = append(dst, o.Template.start...)
	viaAt = len(dst)
	dst = appendVia(dst, n, sentBy, id)
	viaEnd = len(dst)
	dst = append(dst, o.Template.head...)
	dst = append(dst, "CSeq: "...)
	dst = strconv.AppendUint(dst, uint64(o.CSeq), 10)
	dst = append(append(append(dst, ' '), o.Template.method...), '\r', '\n')
	dst = append(dst, o.Headers...)
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(o.Body)), 10)
	return append(dst, "\r\n\r\n"...), viaAt, viaEnd
}

func appendVia(dst []byte, n Network, sentBy []byte, id uint64) []byte {
	dst = append(append(append(dst, "Via: SIP/2.0/"...), n.via()...), ' ')
	dst = append(append(dst, sentBy...), ";rport;branch="+cookie...)
	return append(appendHex(dst, id), '\r', '\n')
}

// An Answer is what became of a request: a final answer or an error.
type Answer struct {
	*Message // nil with an error; it ends with the callback
	Err      error

	worker *worker
}

// Send does what Endpoint.Send does, at less cost, within the callback that got a.
func (a Answer) Send(to Flow, o *Outgoing, done func(Answer)) error {
	_, err := a.worker.running.send(to, o, done)
	return err
}
