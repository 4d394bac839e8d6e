package ews

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func morning() time.Time { return time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC) }
func evening() time.Time { return morning().AddDate(0, 0, 2) }

// modern puts a body into an envelope as servers since 2013 write it, classic as those before.
func modern(body string) string {
	return `<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header>` +
		`<h:ServerVersionInfo MajorVersion="15" xmlns:h="http://schemas.microsoft.com/exchange/services/2006/types"/></s:Header><s:Body>` +
		body + `</s:Body></s:Envelope>`
}

func availabilityXML(mailboxes ...string) string {
	return modern(`<GetUserAvailabilityResponse xmlns="http://schemas.microsoft.com/exchange/services/2006/messages"><FreeBusyResponseArray>` +
		strings.Join(mailboxes, "") + `</FreeBusyResponseArray></GetUserAvailabilityResponse>`)
}

// shown is a mailbox with such events; without any, the array is absent, as servers have it.
func shown(view, hours string, events ...string) string {
	const types = ` xmlns="http://schemas.microsoft.com/exchange/services/2006/types"`
	array := ""
	if len(events) > 0 {
		array = `<CalendarEventArray` + types + `>` + strings.Join(events, "") + `</CalendarEventArray>`
	}
	if hours != "" {
		hours = `<WorkingHours` + types + `>` + hours + `</WorkingHours>`
	}
	return `<FreeBusyResponse><ResponseMessage ResponseClass="Success"><ResponseCode>NoError</ResponseCode></ResponseMessage><FreeBusyView>` +
		`<FreeBusyViewType` + types + `>` + view + `</FreeBusyViewType>` + array + hours + `</FreeBusyView></FreeBusyResponse>`
}

func free() string { return shown("FreeBusy", "") }

func refusedXML(code, inside string) string {
	return `<FreeBusyResponse><ResponseMessage ResponseClass="Error"><MessageText>it concerns ann</MessageText><ResponseCode>` + code +
		`</ResponseCode><MessageXml>` + inside + `</MessageXml></ResponseMessage><FreeBusyView><FreeBusyViewType>None</FreeBusyViewType></FreeBusyView></FreeBusyResponse>`
}

func eventXML(start, end, busy, details string) string {
	if details != "" {
		details = `<CalendarEventDetails>` + details + `</CalendarEventDetails>`
	}
	return `<CalendarEvent><StartTime>` + start + `</StartTime><EndTime>` + end + `</EndTime><BusyType>` + busy + `</BusyType>` + details + `</CalendarEvent>`
}

const berlinHours = `<TimeZone><Bias>-60</Bias>` +
	`<StandardTime><Bias>0</Bias><Time>03:00:00</Time><DayOrder>5</DayOrder><Month>10</Month><DayOfWeek>Sunday</DayOfWeek></StandardTime>` +
	`<DaylightTime><Bias>-60</Bias><Time>02:00:00</Time><DayOrder>5</DayOrder><Month>3</Month><DayOfWeek>Sunday</DayOfWeek></DaylightTime></TimeZone>` +
	`<WorkingPeriodArray><WorkingPeriod><DayOfWeek>%s</DayOfWeek><StartTimeInMinutes>480</StartTimeInMinutes><EndTimeInMinutes>1020</EndTimeInMinutes></WorkingPeriod></WorkingPeriodArray>`

func faultXML(code string, values ...string) string {
	return `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode xmlns:a="http://schemas.microsoft.com/exchange/services/2006/types">a:` + code +
		`</faultcode><faultstring xml:lang="en-US">in words</faultstring><detail><e:ResponseCode xmlns:e="http://schemas.microsoft.com/exchange/services/2006/errors">` + code +
		`</e:ResponseCode><e:Message xmlns:e="http://schemas.microsoft.com/exchange/services/2006/errors">in words</e:Message><t:MessageXml xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types">` +
		strings.Join(values, "") + `</t:MessageXml></detail></s:Fault></s:Body></s:Envelope>`
}

func valueXML(name, text string) string {
	return fmt.Sprintf(`<t:Value Name="%s">%s</t:Value>`, name, text)
}

func tipsXML(code string, responses ...string) string {
	return modern(`<m:GetMailTipsResponse ResponseClass="Success" xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages" xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types">` +
		`<m:ResponseCode>` + code + `</m:ResponseCode><m:ResponseMessages>` + strings.Join(responses, "") + `</m:ResponseMessages></m:GetMailTipsResponse>`)
}

func tipXML(address, pending, outOfOffice string) string {
	return `<m:MailTipsResponseMessageType ResponseClass="Success"><m:ResponseCode>NoError</m:ResponseCode><m:MailTips><t:RecipientAddress><t:Name/><t:EmailAddress>` + address +
		`</t:EmailAddress><t:RoutingType>SMTP</t:RoutingType></t:RecipientAddress><t:PendingMailTips>` + pending + `</t:PendingMailTips>` + outOfOffice + `</m:MailTips></m:MailTipsResponseMessageType>`
}

func awayXML(text, period string) string {
	return `<t:OutOfOffice><t:ReplyBody><t:Message>` + text + `</t:Message></t:ReplyBody>` + period + `</t:OutOfOffice>`
}

func configurationXML(enabled, limit string) string {
	return modern(`<GetServiceConfigurationResponse ResponseClass="Success" xmlns="http://schemas.microsoft.com/exchange/services/2006/messages"><ResponseCode>NoError</ResponseCode><ResponseMessages>` +
		`<ServiceConfigurationResponseMessageType ResponseClass="Success"><ResponseCode>NoError</ResponseCode><m:MailTipsConfiguration xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages" xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types">` +
		`<t:MailTipsEnabled>` + enabled + `</t:MailTipsEnabled><t:MaxRecipientsPerGetMailTipsRequest>` + limit + `</t:MaxRecipientsPerGetMailTipsRequest></m:MailTipsConfiguration>` +
		`</ServiceConfigurationResponseMessageType></ResponseMessages></GetServiceConfigurationResponse>`)
}

// answer serves one XML text to everybody.
func answer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		_, _ = io.WriteString(w, text)
	}
}

// A transportFunc answers without a network.
type transportFunc func(*http.Request) *http.Response

func (f transportFunc) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	_ = req.Body.Close()
	if err != nil {
		return nil, err
	}
	clone := req.Clone(req.Context())
	clone.Body = io.NopCloser(strings.NewReader(string(body)))
	resp := f(clone)
	if resp == nil {
		return nil, io.ErrUnexpectedEOF
	}
	resp.Request = req
	return resp, nil
}

func response(status int, kind, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {kind}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

func xmlResponse(body string) *http.Response {
	return response(http.StatusOK, "text/xml; charset=utf-8", body)
}

// clientOver makes a client with basic authentication over a transport.
func clientOver(t *testing.T, f transportFunc) *Client {
	t.Helper()
	c, err := New(Options{URL: "https://mail.example.com/EWS/Exchange.asmx", Account: service(), Auth: Basic, Transport: f})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
