package ews

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Tip is what the server says about the automatic replies of one mailbox.
type Tip struct {
	// Code is CodeOK, or why the server says nothing about this mailbox; all
	// else is then empty.
	Code string

	Pending bool // the server does not know yet; what was known stands
	On      bool // an automatic reply with a text is in effect
	// From and Until bound the time of the replies, in UTC; zero: not bounded.
	From, Until time.Time
}

const (
	codeDisabled = "ErrorMailTipsDisabled"
	outOfOffice  = "OutOfOfficeMessage"
)

// MailTips asks for the automatic replies of mailboxes (SMTP addresses), at most
// TipLimit of them, on behalf of sendingAs. It gives one result for each
// mailbox, in their order; an alias gets that of its mailbox. The text of a reply is not kept: whether there is
// one is all that matters.
//
// Where the server is throttling, the results come as with Availability. Where
// it gives no MailTips at all, the error is ErrTipsDisabled.
func (c *Client) MailTips(ctx context.Context, sendingAs string, mailboxes []string) ([]Tip, error) {
	if len(mailboxes) == 0 {
		return nil, nil
	}
	answer, err := call[tipsAnswer](ctx, c, tipsRequest(sendingAs, mailboxes), "GetMailTipsResponse")
	if err != nil {
		return nil, tipsError(err)
	}
	return answer.result(mailboxes)
}

func tipsRequest(sendingAs string, mailboxes []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<m:GetMailTips><m:SendingAs><t:EmailAddress>%s</t:EmailAddress><t:RoutingType>SMTP</t:RoutingType></m:SendingAs><m:Recipients>`, escape(sendingAs))
	for _, mailbox := range mailboxes {
		fmt.Fprintf(&b, `<t:Mailbox><t:EmailAddress>%s</t:EmailAddress><t:RoutingType>SMTP</t:RoutingType></t:Mailbox>`, escape(mailbox))
	}
	b.WriteString(`</m:Recipients><m:MailTipsRequested>` + outOfOffice + `</m:MailTipsRequested></m:GetMailTips>`)
	return b.String()
}

// tipsError tells the fault that means ErrTipsDisabled from others.
func tipsError(err error) error {
	if fault, ok := errors.AsType[*Fault](err); ok && fault.Code == codeDisabled {
		return ErrTipsDisabled
	}
	return err
}

type tipsAnswer struct {
	failure
	Responses []tipResponse `xml:"ResponseMessages>MailTipsResponseMessageType"`
}

type tipResponse struct {
	failure
	Tips struct {
		Address string   `xml:"RecipientAddress>EmailAddress"`
		Pending string   `xml:"PendingMailTips"`
		Message hasText  `xml:"OutOfOffice>ReplyBody>Message"`
		Period  *periodX `xml:"OutOfOffice>Duration"`
	} `xml:"MailTips"`
}

type periodX struct {
	Start string `xml:"StartTime"`
	End   string `xml:"EndTime"`
}

// hasText is whether an element has a text other than blanks; the text is not kept.
type hasText bool

// UnmarshalXML implements xml.Unmarshaler.
func (h *hasText) UnmarshalXML(d *xml.Decoder, _ xml.StartElement) error {
	for depth := 1; depth > 0; {
		t, err := d.Token()
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		case xml.CharData:
			if len(strings.TrimSpace(string(t))) > 0 {
				*h = true
			}
		}
	}
	return nil
}

func (a *tipsAnswer) result(mailboxes []string) ([]Tip, error) {
	if a.Code = codeText(a.Code); len(a.Responses) == 0 && a.Code != CodeOK {
		if a.Code == codeDisabled {
			return nil, ErrTipsDisabled
		}
		return nil, a.err("")
	}
	if len(a.Responses) != len(mailboxes) {
		return nil, &Malformed{Reason: fmt.Sprintf("%d results for %d mailboxes", len(a.Responses), len(mailboxes))}
	}
	var busy error
	out := make([]Tip, len(mailboxes))
	for i := range a.Responses {
		r := &a.Responses[i]
		out[i].Code = codeText(r.Code)
		if out[i].Code == codeDisabled {
			return nil, ErrTipsDisabled
		}
		if t := r.throttled(); t != nil {
			out[i].Code, busy = CodeServerBusy, longer(busy, t)
		}
		if out[i].Code != CodeOK {
			continue
		}
		// An answer about somebody else must not become somebody's absence.
		if !concerns(strings.TrimSpace(r.Tips.Address), mailboxes, i) {
			return nil, &Malformed{Reason: "the results are in another order than the mailboxes"}
		}
		if strings.Contains(r.Tips.Pending, outOfOffice) || strings.Contains(r.Tips.Pending, "All") {
			out[i].Pending = true
			continue
		}
		out[i].On = bool(r.Tips.Message)
		if p := r.Tips.Period; p != nil && out[i].On {
			from, ok1 := parseTime(p.Start)
			until, ok2 := parseTime(p.End)
			if ok1 && ok2 && until.After(from) {
				out[i].From, out[i].Until = from, until
			}
		}
	}
	return out, busy
}

// concerns tells whether the answer at a place is about the mailbox there. The
// address in it need not be the one that was asked about, which may be an alias;
// but then it is none of the others.
func concerns(address string, mailboxes []string, place int) bool {
	same := func(mailbox string) bool { return strings.EqualFold(mailbox, address) }
	return same(mailboxes[place]) || address != "" && !slices.ContainsFunc(mailboxes, same)
}

// TipLimit asks how many mailboxes one MailTips request may have. Where MailTips
// are switched off, the error is ErrTipsDisabled.
func (c *Client) TipLimit(ctx context.Context) (int, error) {
	answer, err := call[configurationAnswer](ctx, c, configurationRequest, "GetServiceConfigurationResponse")
	if err != nil {
		return 0, tipsError(err)
	}
	return answer.limit()
}

const configurationRequest = `<m:GetServiceConfiguration><m:RequestedConfiguration><m:ConfigurationName>MailTips</m:ConfigurationName></m:RequestedConfiguration></m:GetServiceConfiguration>`

type configurationAnswer struct {
	failure
	Responses []struct {
		failure
		Tips *struct {
			Enabled string `xml:"MailTipsEnabled"`
			Limit   number `xml:"MaxRecipientsPerGetMailTipsRequest"`
		} `xml:"MailTipsConfiguration"`
	} `xml:"ResponseMessages>ServiceConfigurationResponseMessageType"`
}

func (a *configurationAnswer) limit() (int, error) {
	for _, r := range a.Responses {
		switch {
		case r.Tips == nil && r.Code != CodeOK:
			r.Code = codeText(r.Code)
			return 0, tipsError(r.err(""))
		case r.Tips == nil:
		case !isTrue(r.Tips.Enabled):
			return 0, ErrTipsDisabled
		case r.Tips.Limit < 1:
			return 0, &Malformed{Reason: "no limit in the MailTips configuration"}
		default:
			return min(int(r.Tips.Limit), 1000), nil
		}
	}
	if a.Code = codeText(a.Code); a.Code != CodeOK {
		return 0, tipsError(a.err(""))
	}
	return 0, &Malformed{Reason: "no MailTips configuration"}
}
