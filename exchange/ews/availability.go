package ews

import (
	"context"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"time"

	"presenced/internal/zones"
)

// MaxMailboxes is how many mailboxes one Availability request may ask about.
const MaxMailboxes = 100

// A MailboxAvailability is what the server says about the calendar of one mailbox.
type MailboxAvailability struct {
	// Code is CodeOK, or why the server says nothing about this mailbox; all
	// else is then empty.
	Code string

	// View is what the account may see: Detailed, FreeBusy, MergedOnly or None.
	// Only Detailed and FreeBusy have events.
	View string

	Events []Event
	Hours  *WorkingHours // nil: not given, or not to be understood

	// Odd counts values that were not understood: events left out for want of
	// two times, busy types taken for Busy, working hours left out.
	Odd int
}

// A Busy tells how an event shows.
type Busy uint8

// The busy types. BusyNoData means that the server does not know.
const (
	BusyFree Busy = iota
	BusyTentative
	BusyBusy
	BusyOutOfOffice
	BusyElsewhere
	BusyNoData
)

// An Event is one entry of a calendar, an occurrence if it recurs. It has
// neither a subject nor a place: those are never decoded.
type Event struct {
	Start, End time.Time // UTC; End may be before Start
	Busy       Busy
	Meeting    bool // false also where the account may not see it
	Private    bool
}

// WorkingHours are the hours of a week, in a zone given by rules.
type WorkingHours struct {
	Zone    zones.Rules
	Periods []WorkingPeriod // may be empty
}

// A WorkingPeriod is a part of some days, given by times on the wall since
// midnight. An End before Start is on the next day.
type WorkingPeriod struct {
	Days       Weekdays
	Start, End time.Duration
}

// Availability asks about the calendars of at most MaxMailboxes mailboxes (SMTP
// addresses) between two times, which are sent in UTC with whole seconds. It
// gives one result for each mailbox, in their order. Events that lie partly in
// the time come whole, in any order.
//
// Where the server is throttling it may answer for some: the results come
// beside the *Throttled error then, the others with CodeServerBusy.
func (c *Client) Availability(ctx context.Context, mailboxes []string, from, to time.Time) ([]MailboxAvailability, error) {
	if len(mailboxes) == 0 {
		return nil, nil
	}
	if len(mailboxes) > MaxMailboxes {
		return nil, fmt.Errorf("ews: %d mailboxes in one request, at most %d are possible", len(mailboxes), MaxMailboxes)
	}
	answer, err := call[availabilityAnswer](ctx, c, availabilityRequest(mailboxes, from, to), "GetUserAvailabilityResponse")
	if err != nil {
		return nil, err
	}
	return answer.result(len(mailboxes))
}

func availabilityRequest(mailboxes []string, from, to time.Time) string {
	const (
		layout = "2006-01-02T15:04:05"
		never  = `<t:Bias>0</t:Bias><t:Time>02:00:00</t:Time><t:DayOrder>1</t:DayOrder><t:Month>%d</t:Month><t:DayOfWeek>Sunday</t:DayOfWeek>`
	)
	var b strings.Builder
	b.WriteString(`<m:GetUserAvailabilityRequest><t:TimeZone><t:Bias>0</t:Bias>`)
	fmt.Fprintf(&b, `<t:StandardTime>`+never+`</t:StandardTime><t:DaylightTime>`+never+`</t:DaylightTime>`, 3, 10)
	b.WriteString(`</t:TimeZone><m:MailboxDataArray>`)
	for _, mailbox := range mailboxes {
		fmt.Fprintf(&b, `<t:MailboxData><t:Email><t:Address>%s</t:Address></t:Email><t:AttendeeType>Required</t:AttendeeType>`+
			`<t:ExcludeConflicts>false</t:ExcludeConflicts></t:MailboxData>`, escape(mailbox))
	}
	fmt.Fprintf(&b, `</m:MailboxDataArray><t:FreeBusyViewOptions><t:TimeWindow><t:StartTime>%s</t:StartTime><t:EndTime>%s</t:EndTime></t:TimeWindow>`+
		`<t:MergedFreeBusyIntervalInMinutes>30</t:MergedFreeBusyIntervalInMinutes><t:RequestedView>Detailed</t:RequestedView></t:FreeBusyViewOptions>`+
		`</m:GetUserAvailabilityRequest>`, from.UTC().Format(layout), to.UTC().Format(layout))
	return b.String()
}

type availabilityAnswer struct {
	Responses []freeBusyResponse `xml:"FreeBusyResponseArray>FreeBusyResponse"`
}

type freeBusyResponse struct {
	Message failure `xml:"ResponseMessage"`
	View    struct {
		Type   string      `xml:"FreeBusyViewType"`
		Events eventArray  `xml:"CalendarEventArray"`
		Hours  *hoursInXML `xml:"WorkingHours"`
	} `xml:"FreeBusyView"`
}

type eventInXML struct {
	Start   string `xml:"StartTime"`
	End     string `xml:"EndTime"`
	Busy    string `xml:"BusyType"`
	Meeting string `xml:"CalendarEventDetails>IsMeeting"`
	Private string `xml:"CalendarEventDetails>IsPrivate"`
}

type hoursInXML struct {
	Zone    *serializableZone `xml:"TimeZone"`
	Periods []struct {
		Days  string `xml:"DayOfWeek"`
		Start number `xml:"StartTimeInMinutes"`
		End   number `xml:"EndTimeInMinutes"`
	} `xml:"WorkingPeriodArray>WorkingPeriod"`
}

// eventArray decodes events one by one, so that their number is bounded before
// they are all in memory.
type eventArray struct {
	events []Event
	odd    int
	tooBig bool
}

// UnmarshalXML implements xml.Unmarshaler.
func (a *eventArray) UnmarshalXML(d *xml.Decoder, _ xml.StartElement) error {
	for {
		t, err := d.Token()
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			if t.Name.Local != "CalendarEvent" || len(a.events) >= maxEvents {
				a.tooBig = a.tooBig || t.Name.Local == "CalendarEvent"
				if err := d.Skip(); err != nil {
					return err
				}
				continue
			}
			var in eventInXML
			if err := d.DecodeElement(&in, &t); err != nil {
				return err
			}
			a.add(&in)
		}
	}
}

func (a *eventArray) add(in *eventInXML) {
	var (
		e        Event
		ok1, ok2 bool
	)
	e.Start, ok1 = parseTime(in.Start)
	e.End, ok2 = parseTime(in.End)
	if !ok1 || !ok2 {
		a.odd++
		return
	}
	switch strings.TrimSpace(in.Busy) {
	case "Free":
		e.Busy = BusyFree
	case "Tentative":
		e.Busy = BusyTentative
	case "Busy":
		e.Busy = BusyBusy
	case "OOF":
		e.Busy = BusyOutOfOffice
	case "WorkingElsewhere":
		e.Busy = BusyElsewhere
	case "NoData":
		e.Busy = BusyNoData
	default: // a type of a later version: something is there
		e.Busy = BusyBusy
		a.odd++
	}
	e.Meeting, e.Private = isTrue(in.Meeting), isTrue(in.Private)
	a.events = append(a.events, e)
}

func (h *hoursInXML) hours() (*WorkingHours, bool) {
	if h == nil || h.Zone == nil {
		return nil, h == nil
	}
	zone, ok := h.Zone.rules()
	if !ok {
		return nil, false
	}
	out := &WorkingHours{Zone: zone}
	for _, p := range h.Periods {
		const day = 24 * 60
		days := weekdays(p.Days)
		if days == 0 || p.Start < 0 || p.Start > day || p.End < 0 || p.End > day || p.Start == p.End {
			continue
		}
		if len(out.Periods) == 50 {
			return out, false
		}
		out.Periods = append(out.Periods, WorkingPeriod{days, time.Duration(p.Start) * time.Minute, time.Duration(p.End) * time.Minute})
	}
	return out, true
}

// result brings the answer about n mailboxes into the form for callers.
func (a *availabilityAnswer) result(n int) ([]MailboxAvailability, error) {
	if len(a.Responses) != n {
		return nil, &Malformed{Reason: fmt.Sprintf("%d results for %d mailboxes", len(a.Responses), n)}
	}
	var busy error
	out := make([]MailboxAvailability, n)
	for i := range a.Responses {
		r := &a.Responses[i]
		r.Message.Code = codeText(r.Message.Code)
		switch {
		case r.Message.Code != CodeOK:
			out[i].Code = r.Message.Code
			if t := r.Message.throttled(); t != nil {
				out[i].Code, busy = CodeServerBusy, longer(busy, t)
			}
		case r.View.Events.tooBig:
			out[i].Code = CodeTooManyHits
		default:
			hours, ok := r.View.Hours.hours()
			out[i] = MailboxAvailability{CodeOK, strings.TrimSpace(r.View.Type), slices.Clip(r.View.Events.events), hours, r.View.Events.odd}
			if !ok {
				out[i].Odd++
			}
		}
	}
	return out, busy
}

// longer gives the one of two throttlings that waits longer; a may be nil.
func longer(a error, b *Throttled) error {
	if t, ok := a.(*Throttled); ok && t.Wait >= b.Wait { //nolint:errorlint // made here
		return a
	}
	return b
}
