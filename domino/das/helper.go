package das

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"
)

// An AutoReply says from when until when somebody is out of office. A zero bound
// is open. Enabled may outlive the period: Domino clears it late.
type AutoReply struct {
	Enabled    bool
	Start, End time.Time
}

// maxAddress is the longest mail address of SMTP, RFC 5321 section 4.5.3.1.
const maxAddress = 254

// AutoReply asks the helper about one person. The error is an *Error, or that of
// the context; NotFound means that the helper does not know the person.
func (h *Helper) AutoReply(ctx context.Context, mail string) (AutoReply, error) {
	if strings.Trim(mail, ".") == "" || len(mail) > maxAddress {
		return AutoReply{}, &Error{Failure: NotFound, Detail: "the mail address is none, or too long"}
	}
	at := strings.ReplaceAll(h.template, MailPlace, escape(mail))
	if u, err := url.Parse(at); err != nil || u.Host != h.base.Host || u.Scheme != h.base.Scheme {
		return AutoReply{}, &Error{Failure: NotFound, Detail: "the mail address leads to another server"}
	}
	a, err := h.get(ctx, at, "application/json")
	if err != nil {
		return AutoReply{}, err
	}
	return decodeAutoReply(a.body)
}

// escape percent-encodes all but letters, digits and -._~, so that the result
// has its place in a path and in a query alike. A dot at the start is no path
// segment of its own: a mail address has an @.
func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

func decodeAutoReply(body []byte) (AutoReply, error) {
	var in struct {
		Enabled *bool  `json:"enabled"`
		Start   string `json:"start"`
		End     string `json:"end"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return AutoReply{}, malformed("the answer of the helper cannot be read")
	}
	if in.Enabled == nil {
		return AutoReply{}, malformed("the answer of the helper lacks enabled")
	}
	if !*in.Enabled {
		return AutoReply{}, nil // the dates of a reply that is off are left-overs
	}
	out := AutoReply{Enabled: true}
	for text, bound := range map[*string]*time.Time{&in.Start: &out.Start, &in.End: &out.End} {
		if *text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, *text)
		if err != nil {
			return AutoReply{}, malformed("a date of the helper cannot be read")
		}
		*bound = clip(t.UTC())
	}
	if !out.Start.IsZero() && !out.End.IsZero() && !out.End.After(out.Start) {
		return AutoReply{}, malformed("the period of the helper ends before it begins")
	}
	return out, nil
}
