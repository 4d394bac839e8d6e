package ews

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/internal/zones"
)

func decodeAvailability(text string, n int) ([]MailboxAvailability, error) {
	var a availabilityAnswer
	if err := readAnswer(strings.NewReader(text), "GetUserAvailabilityResponse", "", &a); err != nil {
		return nil, err
	}
	return a.result(n)
}

func decodeTips(text string, mailboxes ...string) ([]Tip, error) {
	var a tipsAnswer
	if err := readAnswer(strings.NewReader(text), "GetMailTipsResponse", "", &a); err != nil {
		return nil, tipsError(err)
	}
	return a.result(mailboxes)
}

func at(hour, minute int) time.Time {
	return morning().Add(time.Duration(hour*60+minute) * time.Minute)
}

func TestAvailability(t *testing.T) {
	berlin := zones.Rules{
		Standard: zones.Transition{Offset: time.Hour, Month: 10, Week: 5, TimeOfDay: 3 * time.Hour},
		Daylight: zones.Transition{Offset: 2 * time.Hour, Month: 3, Week: 5, TimeOfDay: 2 * time.Hour},
	}
	week := Weekdays(0b0111110)
	for name, c := range map[string]struct {
		mailboxes []string
		want      []MailboxAvailability
	}{
		"details, working elsewhere, hours": {
			[]string{shown("Detailed", fmt.Sprintf(berlinHours, "Monday Tuesday Wednesday Thursday Friday"),
				eventXML("2026-11-20T09:00:00", "2026-11-20T10:00:00", "Busy", "<ID>00</ID><Subject>SECRET</Subject><Location>SECRET</Location><IsMeeting>true</IsMeeting><IsPrivate>false</IsPrivate>"),
				eventXML("2026-11-20T13:00:00", "2026-11-20T15:00:00", "WorkingElsewhere", ""),
			)},
			[]MailboxAvailability{{
				Code: CodeOK, View: "Detailed",
				Events: []Event{{Start: at(9, 0), End: at(10, 0), Busy: BusyBusy, Meeting: true}, {Start: at(13, 0), End: at(15, 0), Busy: BusyElsewhere}},
				Hours:  &WorkingHours{berlin, []WorkingPeriod{{week, 8 * time.Hour, 17 * time.Hour}}},
			}},
		},
		"nothing in it, and no day named": {
			[]string{shown("FreeBusy", fmt.Sprintf(berlinHours, ""))},
			[]MailboxAvailability{{Code: CodeOK, View: "FreeBusy", Hours: &WorkingHours{Zone: berlin}}},
		},
		"days by kind": {
			[]string{shown("FreeBusy", fmt.Sprintf(berlinHours, "Weekday Feast"))},
			[]MailboxAvailability{{Code: CodeOK, View: "FreeBusy", Hours: &WorkingHours{berlin, []WorkingPeriod{{week, 8 * time.Hour, 17 * time.Hour}}}}},
		},
		"one unknown of two": {
			[]string{refusedXML("ErrorMailRecipientNotFound", "<ExceptionType>x</ExceptionType>"), free()},
			[]MailboxAvailability{{Code: "ErrorMailRecipientNotFound"}, {Code: CodeOK, View: "FreeBusy"}},
		},
		"times naive, with Z, with offsets, with fractions": {
			[]string{shown("FreeBusy", "",
				eventXML("2026-11-20T09:00:00.1230000", "2026-11-20T10:00:00Z", "OOF", ""),
				eventXML("2026-11-20T10:00:00+01:00", "2026-11-20T04:30:00.5-0530", "Tentative", ""),
				eventXML("2026-11-20T12:00:00", "2026-11-20T11:00:00", "NoData", ""),
			)},
			[]MailboxAvailability{{Code: CodeOK, View: "FreeBusy", Events: []Event{
				{Start: at(9, 0).Add(123 * time.Millisecond), End: at(10, 0), Busy: BusyOutOfOffice},
				{Start: at(9, 0), End: at(10, 0).Add(500 * time.Millisecond), Busy: BusyTentative},
				{Start: at(12, 0), End: at(11, 0), Busy: BusyNoData},
			}}},
		},
		"a type of tomorrow, and a time that is none": {
			[]string{shown("FreeBusy", "", eventXML("2026-11-20T09:00:00", "2026-11-20T10:00:00", "Levitating", ""), eventXML("soon", "later", "Busy", ""))},
			[]MailboxAvailability{{Code: CodeOK, View: "FreeBusy", Events: []Event{{Start: at(9, 0), End: at(10, 0), Busy: BusyBusy}}, Odd: 2}},
		},
		"hours that cannot be": {
			[]string{shown("FreeBusy", strings.Replace(fmt.Sprintf(berlinHours, "Monday"), "<Bias>-60</Bias>", "<Bias>lots</Bias>", 1))},
			[]MailboxAvailability{{Code: CodeOK, View: "FreeBusy", Odd: 1}},
		},
		"characters that XML does not have": {
			[]string{shown("Detailed", "", eventXML("2026-11-20T09:00:00", "2026-11-20T10:00:00", "Busy", "<Subject>a&#x1F;b&#0;&#x000B;&#xFFFE;\x02&amp;&#38;</Subject><IsPrivate>true</IsPrivate>"))},
			[]MailboxAvailability{{Code: CodeOK, View: "Detailed", Events: []Event{{Start: at(9, 0), End: at(10, 0), Busy: BusyBusy, Private: true}}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeAvailability(availabilityXML(c.mailboxes...), len(c.mailboxes))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Servers before 2013 write prefixes, others default namespaces.
func TestPrefixes(t *testing.T) {
	text := availabilityXML(shown("FreeBusy", "", eventXML("2026-11-20T09:00:00", "2026-11-20T10:00:00", "Busy", "")))
	prefixed := strings.NewReplacer("<Calendar", "<t:Calendar", "</Calendar", "</t:Calendar", "<StartTime", "<t:StartTime", "</StartTime", "</t:StartTime",
		"<s:Body>", `<s:Body xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types">`).Replace(text)
	want, err := decodeAvailability(text, 1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeAvailability(prefixed, 1)
	if diff := cmp.Diff(want, got); diff != "" || err != nil || len(got[0].Events) != 1 {
		t.Error(err, diff)
	}
}

func TestThrottledForSome(t *testing.T) {
	text := availabilityXML(free(), refusedXML("ErrorServerBusy", `<Value Name="BackOffMilliseconds">2500</Value>`),
		refusedXML("ErrorInternalServerError", `<Value Name="InnerErrorResponseCode">ErrorServerBusy</Value>`))
	got, err := decodeAvailability(text, 3)
	var busy *Throttled
	if !errors.As(err, &busy) || busy.Wait != time.Minute {
		t.Errorf("%v, want to be throttled for the longer time", err)
	}
	if diff := cmp.Diff([]MailboxAvailability{{Code: CodeOK, View: "FreeBusy"}, {Code: CodeServerBusy}, {Code: CodeServerBusy}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestFaults(t *testing.T) {
	backOff := valueXML("BackOffMilliseconds", "1500")
	other := valueXML("Policy", "EWSFindCountLimit") + valueXML("MaxConcurrencyLimit", "27")
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"back-off first":     {faultXML("ErrorServerBusy", backOff, other), &Throttled{"ErrorServerBusy", 1500 * time.Millisecond}},
		"back-off last":      {faultXML("ErrorServerBusy", other, backOff), &Throttled{"ErrorServerBusy", 1500 * time.Millisecond}},
		"back-off absent":    {faultXML("ErrorServerBusy", other), &Throttled{"ErrorServerBusy", time.Minute}},
		"back-off zero":      {faultXML("ErrorServerBusy", valueXML("BackOffMilliseconds", "0")), &Throttled{"ErrorServerBusy", time.Minute}},
		"back-off huge":      {faultXML("ErrorServerBusy", valueXML("BackOffMilliseconds", "9223372036854775807")), &Throttled{"ErrorServerBusy", time.Hour}},
		"connections":        {faultXML("ErrorExceededConnectionCount"), &Throttled{"ErrorExceededConnectionCount", time.Minute}},
		"password expired":   {faultXML("ErrorPasswordExpired"), &Unauthorized{"the server says ErrorPasswordExpired of the service account"}},
		"something else":     {faultXML("ErrorFreeBusyGenerationFailed"), &Fault{Code: "ErrorFreeBusyGenerationFailed"}},
		"code only at top":   {modern(`<s:Fault><faultcode>a:ErrorSchemaValidation</faultcode></s:Fault>`), &Fault{Code: "ErrorSchemaValidation"}},
		"code is a story":    {faultXML("once upon a time"), &Fault{Code: "ErrorUnnamed"}},
		"another answer":     {modern(`<Hello/>`), &Malformed{"the body is no GetUserAvailabilityResponse"}},
		"empty body":         {modern(``), &Malformed{"an empty Body"}},
		"a page":             {`<html><body>hello</body></html>`, &Malformed{"no SOAP envelope"}},
		"a document type":    {`<!DOCTYPE x [<!ENTITY a "b">]>` + modern(`<Hello/>`), &Malformed{"it has a document type"}},
		"deep":               {modern(strings.Repeat("<a>", 100)), &Malformed{"the body is no GetUserAvailabilityResponse"}},
		"deep inside":        {modern(`<GetUserAvailabilityResponse>` + strings.Repeat("<a>", 100)), &Malformed{"nested deeper than 64"}},
		"not XML":            {modern(`<a b=c></a>`), &Malformed{"no well-formed XML in line 1"}},
		"cut off":            {availabilityXML(free())[:600], io.ErrUnexpectedEOF},
		"cut off at the end": {strings.TrimSuffix(availabilityXML(free()), "</s:Envelope>"), io.ErrUnexpectedEOF},
		"nothing":            {"", io.ErrUnexpectedEOF},
		"two for one":        {availabilityXML(free(), free()), &Malformed{"2 results for 1 mailboxes"}},
		"none for one":       {availabilityXML(), &Malformed{"0 results for 1 mailboxes"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeAvailability(c.text, 1)
			if errors.Is(c.want, io.ErrUnexpectedEOF) && errors.Is(err, io.ErrUnexpectedEOF) {
				return
			}
			if diff := cmp.Diff(c.want, err); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	event := eventXML("2026-11-20T09:00:00", "2026-11-20T10:00:00", "Busy", "")
	got, err := decodeAvailability(availabilityXML(shown("FreeBusy", "", strings.Repeat(event, maxEvents+1)), free()), 2)
	if err != nil || got[0].Code != CodeTooManyHits || got[1].Code != CodeOK {
		t.Errorf("%v, want too many entries in the first", err)
	}
	endless := io.MultiReader(strings.NewReader(strings.TrimSuffix(modern(`<GetUserAvailabilityResponse><a>`), `</s:Body></s:Envelope>`)), controls{})
	var a availabilityAnswer
	if err := readAnswer(endless, "GetUserAvailabilityResponse", "", &a); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("%v, want too long", err)
	}
}

// controls gives characters that XML does not have, without end.
type controls struct{}

func (controls) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 1
	}
	return len(p), nil
}

func TestMailTips(t *testing.T) {
	const period = `<t:Duration><t:StartTime>2026-11-20T08:00:00</t:StartTime><t:EndTime>2026-11-23T07:00:00</t:EndTime></t:Duration>`
	who := []string{"a@example.com", "b@example.com", "c@example.com", "d@example.com", "e@example.com", "f@example.com"}
	text := tipsXML("NoError",
		tipXML("A@Example.com", "", awayXML("SECRET back on Monday", period)),
		tipXML("b@example.com", "", awayXML("", period)),
		tipXML("c@example.com", "MailboxFullStatus OutOfOfficeMessage", ""),
		tipXML("d@example.com", "", awayXML("<b>SECRET</b>", "")),
		`<m:MailTipsResponseMessageType ResponseClass="Error"><m:ResponseCode>ErrorMailRecipientNotFound</m:ResponseCode></m:MailTipsResponseMessageType>`,
		tipXML("f@example.com", "", awayXML(" \n ", "")),
	)
	got, err := decodeTips(text, who...)
	if err != nil {
		t.Fatal(err)
	}
	want := []Tip{
		{Code: CodeOK, On: true, From: at(8, 0), Until: at(79, 0)},
		{Code: CodeOK},
		{Code: CodeOK, Pending: true},
		{Code: CodeOK, On: true},
		{Code: "ErrorMailRecipientNotFound"},
		{Code: CodeOK},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	if _, err := decodeTips(tipsXML("ErrorMailTipsDisabled"), "a@example.com"); !errors.Is(err, ErrTipsDisabled) {
		t.Errorf("%v, want ErrTipsDisabled", err)
	}
	if _, err := decodeTips(faultXML("ErrorMailTipsDisabled"), "a@example.com"); !errors.Is(err, ErrTipsDisabled) {
		t.Errorf("%v, want ErrTipsDisabled", err)
	}
}

// Each answer has to be about the mailbox at its place. Servers answer about an
// alias with the primary address.
func TestWhoseTip(t *testing.T) {
	for _, c := range []struct {
		asked, answered string
		ok              bool
	}{
		{"ann bob", "Ann BOB", true},
		{"ann bob", "bob ann", false},
		{"ann bob", "bob bob", false},
		{"alias bob", "ann bob", true},
		{"alias alias2", "ann ann", true},
		{"alias ann", "ann ann", false}, // cannot be told from a wrong order
		{"ann bob", "ann", false},
		{"ann", "", false}, // an answer about nobody
	} {
		var tips []string
		for name := range strings.SplitSeq(c.answered, " ") {
			tips = append(tips, tipXML(name, "", awayXML("gone", "")))
		}
		mailboxes := strings.Fields(c.asked)
		got, err := decodeTips(tipsXML("NoError", tips...), mailboxes...)
		if _, malformed := errors.AsType[*Malformed](err); malformed == c.ok || c.ok && (len(got) != len(mailboxes) || !got[0].On) {
			t.Errorf("asked about %s, answered about %s: %+v, %v", c.asked, c.answered, got, err)
		}
	}
}

func TestTipLimit(t *testing.T) {
	for _, c := range []struct {
		text string
		want int
		err  error
	}{
		{configurationXML("true", "50"), 50, nil},
		{configurationXML("true", "100000000"), 1000, nil},
		{configurationXML("false", "50"), 0, ErrTipsDisabled},
		{configurationXML("true", "none"), 0, &Malformed{"no limit in the MailTips configuration"}},
	} {
		var a configurationAnswer
		if err := readAnswer(strings.NewReader(c.text), "GetServiceConfigurationResponse", "", &a); err != nil {
			t.Fatal(err)
		}
		got, err := a.limit()
		if got != c.want || fmt.Sprint(err) != fmt.Sprint(c.err) {
			t.Errorf("%d, %v; want %d, %v", got, err, c.want, c.err)
		}
	}
}

func TestStripper(t *testing.T) {
	for in, want := range map[string]string{
		"plain &amp; &lt;":                "plain &amp; &lt;",
		"&#x0;&#x8;&#xB;&#xC;&#xE;&#x1F;": "",
		"&#0;&#11;&#31;&#0031;&#x0001f;":  "",
		"&#9;&#10;&#13;&#xA;&#x20;":       "&#9;&#10;&#13;&#xA;&#x20;",
		"&#xD800;&#xFFFF;&#x110000;":      "",
		"&#X41;&#0065;":                   "&#x41;&#065;",
		"&#x1F":                           "&#x1F",
		"&#;&#x;& &&#1;#":                 "&#;&#x;& &#",
		"&#99999999999999999999;":         "&#99999999999999999999;",
		"a\x00b\x1fc\td":                  "abc\td",
		"grün &#x1F600;":                  "grün &#x1F600;",
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "with EOF": iotest.DataErrReader} {
			got, err := io.ReadAll(iotest.OneByteReader(newStripper(wrap(strings.NewReader(in)))))
			if string(got) != want || err != nil {
				t.Errorf("%s: %q gives %q, %v; want %q", name, in, got, err, want)
			}
		}
	}
}

func FuzzStripper(f *testing.F) {
	for _, seed := range []string{"", "&", "&#", "&#x1", "&#x1F;", "<a>&#0;</a>", "&&&#x0000000000000000000b;;", "a\x01b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err := io.ReadAll(newStripper(bytes.NewReader(in)))
		if err != nil {
			t.Fatal(err)
		}
		split, err := io.ReadAll(newStripper(iotest.OneByteReader(bytes.NewReader(in))))
		if err != nil || !bytes.Equal(whole, split) {
			t.Fatalf("split reads give %q, whole ones %q (%v)", split, whole, err)
		}
		if len(whole) > len(in) {
			t.Fatalf("%q grew to %q", in, whole)
		}
		if bytes.ContainsFunc(whole, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' }) {
			t.Fatalf("a control character is left in %q", whole)
		}
	})
}

func FuzzAvailability(f *testing.F) {
	f.Add([]byte(availabilityXML(free())))
	f.Add([]byte(availabilityXML(shown("Detailed", fmt.Sprintf(berlinHours, "Weekday"), eventXML("2026-11-20T09:00:00", "2026-11-20T10:00:00Z", "Busy", "<Subject>&#x1;</Subject><IsMeeting>true</IsMeeting>")))))
	f.Add([]byte(availabilityXML(refusedXML("ErrorServerBusy", ""))))
	f.Add([]byte(faultXML("ErrorServerBusy", valueXML("BackOffMilliseconds", "5"))))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := decodeAvailability(string(in), 1)
		if err == nil && len(got) != 1 {
			t.Fatalf("%d results", len(got))
		}
		for _, a := range got {
			if a.Hours != nil && a.Hours.Zone.Check() != nil || len(a.Events) > maxEvents {
				t.Fatalf("%+v", a)
			}
		}
	})
}

func FuzzMailTips(f *testing.F) {
	f.Add([]byte(tipsXML("NoError", tipXML("a@example.com", "", awayXML("gone", "")))))
	f.Add([]byte(tipsXML("NoError", tipXML("a@example.com", "OutOfOfficeMessage", ""))))
	f.Add([]byte(tipsXML("ErrorMailTipsDisabled")))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := decodeTips(string(in), "a@example.com")
		if err == nil && len(got) != 1 {
			t.Fatalf("%d results", len(got))
		}
		for _, tip := range got {
			if tip.Pending && tip.On || !tip.Until.IsZero() && !tip.Until.After(tip.From) {
				t.Fatalf("%+v", tip)
			}
		}
	})
}

// An answer about a hundred mailboxes with ten entries each.
func BenchmarkAvailability(b *testing.B) {
	entry := eventXML("2026-11-20T09:00:00", "2026-11-20T10:00:00", "Busy", "<ID>00</ID><Subject>Budget</Subject><Location>4.11</Location><IsMeeting>true</IsMeeting><IsRecurring>true</IsRecurring><IsException>false</IsException><IsReminderSet>true</IsReminderSet><IsPrivate>false</IsPrivate>")
	text := availabilityXML(strings.Repeat(shown("Detailed", fmt.Sprintf(berlinHours, "Weekday"), strings.Repeat(entry, 10)), MaxMailboxes))
	for b.Loop() {
		if _, err := decodeAvailability(text, MaxMailboxes); err != nil {
			b.Fatal(err)
		}
	}
}
