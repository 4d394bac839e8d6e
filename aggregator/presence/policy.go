package presence

import "time"

// A Rule is one row of a policy: where its conditions hold, it decides the
// availability, unless a rule above it did.
type Rule struct {
	Name  string `json:"name"`  // unique within the policy, stable: it stands in explanations and logs
	Title string `json:"title"` // the rule in words

	Any       FactSet `json:"any,omitempty"`        // at least one of these holds; empty: no condition
	All       FactSet `json:"all,omitempty"`        // all of these hold
	None      FactSet `json:"none,omitempty"`       // none of these holds
	NotRecent FactSet `json:"not_recent,omitempty"` // none of these held within the policy's Recent

	Availability Availability `json:"availability"`
	Class        int          `json:"class,omitempty"` // zero: the class of the availability
}

func (r *Rule) class() int {
	if r.Class != 0 {
		return r.Class
	}
	return r.Availability.Class()
}

// matches tells whether r fires on the facts that hold now and those that held recently.
func (r *Rule) matches(now, recent FactSet) bool {
	return (r.Any == 0 || now&r.Any != 0) && now&r.All == r.All && now&r.None == 0 && recent&r.NotRecent == 0
}

// A Window is a range of classes, both ends included.
type Window struct{ Min, Max int }

// A Shown row says that a fact shows as an activity where the decided class lies
// in one of the windows.
type Shown struct {
	Fact     Fact
	Activity Activity
	Windows  []Window
}

func (s *Shown) fits(class int) bool {
	for _, w := range s.Windows {
		if w.Min <= class && class <= w.Max {
			return true
		}
	}
	return false
}

// A Policy turns facts into states. It is data: rules in order, the windows of
// the activities, and the times that count. Do not change one that is in use;
// make another.
type Policy struct {
	Rules  []Rule
	Shown  []Shown       // in order of preference
	Recent time.Duration // what "recently" means in NotRecent

	// A fact counts only after it has held for Delay, and for Linger after it
	// ended. While it waits for its delay it counts as Meanwhile.
	Delay, Linger [factCount]time.Duration
	Meanwhile     [factCount]FactSet

	// A fact with a Gap goes on after its end until the next span of a fact with
	// a Gap begins, if that is no longer than Gap: entries that follow each other
	// closely are one.
	Gap [factCount]time.Duration

	// A change to an availability that is easier to reach shows only after the
	// state before it was shown for MinDwell, and after fewer than FlapLimit such
	// changes within FlapWindow; FlapLimit zero: however many there were. Decide
	// knows no history: the aggregator core sees to this.
	MinDwell   time.Duration
	FlapLimit  int
	FlapWindow time.Duration
}

// Bounds of the damping: beyond them it would hide more than it calms.
const (
	MaxDwell      = time.Minute
	MaxFlapLimit  = 100
	MaxFlapWindow = time.Hour
)

// A Setting is a knob of the default policy: Default builds the table from it.
type Setting struct {
	PhoneDND             string        `yaml:"phone_dnd" default:"dnd" doc:"What Send All Calls (the do-not-disturb of Communication Manager) means for the person: dnd, busy, or channel (shown on the phone channel only)."`
	PresentingIsDND      bool          `yaml:"presenting_is_dnd" default:"true" doc:"Whether presenting and focus time are do not disturb; otherwise they are busy."`
	CallOverridesAway    bool          `yaml:"call_overrides_manual_away" default:"false" doc:"Whether a call shows over an absence that was set by hand."`
	DialDelay            time.Duration `yaml:"dial_delay" default:"2s" doc:"How long a phone must be off hook before it counts as in use."`
	HangupLinger         time.Duration `yaml:"hangup_linger" default:"1s" doc:"How long a call counts after it ended."`
	AfterCall            string        `yaml:"after_call" default:"busy" doc:"What after-call work of an agent means: busy, or channel."`
	AutoReplyOutOfOffice bool          `yaml:"oof_autoreply" default:"true" doc:"Whether automatic replies mean out of office."`
	AllDayBusy           string        `yaml:"all_day_busy" default:"ignore" doc:"What an all-day busy entry means: ignore, or busy."`
	Tentative            string        `yaml:"tentative" default:"ignore" doc:"What a tentative entry means: ignore, or busy."`
	Ringing              string        `yaml:"ringing" default:"channel" doc:"What a ringing phone means: channel, or busy."`
	PhoneOnly            string        `yaml:"phone_only" default:"available" doc:"What an idle phone means in working hours when no client is known: available, or unknown."`
	MergeGap             time.Duration `yaml:"merge_gap" default:"1m" doc:"How much time may lie between two entries of a calendar that count as busy or out of office, for the person to stay so in between."`
	CalendarOnly         string        `yaml:"calendar_only" default:"available" doc:"What a free calendar means in working hours when neither phone nor client is known: available, or unknown."`
	Recent               time.Duration `yaml:"recent" default:"15m" doc:"How long use of a phone or a client speaks against being out of office or off work."`
	MinDwell             time.Duration `yaml:"min_dwell" default:"1s" doc:"How long a state is shown at least before the person becomes easier to reach; 0s to 1m. Whoever becomes harder to reach does so at once."`
	FlapLimit            int           `yaml:"flap_limit" default:"3" doc:"How many times within flap_window a person may become easier to reach; further times wait until the first of these is that long ago. 0: there is no limit; at most 100."`
	FlapWindow           time.Duration `yaml:"flap_window" default:"3m" doc:"The time in which flap_limit counts; 0s to 1h."`
}

// DefaultSetting gives the knobs as the default policy has them.
func DefaultSetting() Setting {
	return Setting{
		PhoneDND: "dnd", PresentingIsDND: true, DialDelay: 2 * time.Second, HangupLinger: time.Second, AfterCall: "busy",
		AutoReplyOutOfOffice: true, AllDayBusy: "ignore", Tentative: "ignore", Ringing: "channel", PhoneOnly: "available",
		MergeGap: time.Minute, CalendarOnly: "available", Recent: 15 * time.Minute,
		MinDwell: time.Second, FlapLimit: 3, FlapWindow: 3 * time.Minute,
	}
}

// DefaultPolicy is the policy of a product that nobody configured.
func DefaultPolicy() *Policy { return DefaultSetting().Policy() }

// Policy builds the default table with these knobs. Values that are none of
// those named in the documentation count as the default.
func (k Setting) Policy() *Policy {
	inUse := Facts(PhoneDialing, PhoneConnected, PhoneHeld, PhoneConference)
	active := inUse | Facts(SessionActive)
	entries := Facts(CalendarMeeting, CalendarBusy, CalendarOutOfOffice) // of a calendar, that count as busy or out of office
	away := Facts(CalendarOutOfOffice)
	if k.AutoReplyOutOfOffice {
		away |= Facts(AutoReply)
	}
	sharing, sharingClass := DoNotDisturb, 0
	if !k.PresentingIsDND {
		sharing = Busy
	}
	calls := []Rule{
		{Name: "conference", Title: "In a phone conference", Any: Facts(PhoneConference), Availability: Busy, Class: ClassConference},
		{Name: "on-the-phone", Title: "In a call", Any: Facts(PhoneConnected, PhoneDialing), Availability: Busy},
		{Name: "on-hold", Title: "A call is on hold", Any: Facts(PhoneHeld), Availability: Busy},
	}
	absences := []Rule{
		{Name: "manual-away", Title: "Set to away by hand", Any: Facts(ManualAway), Availability: Away},
		{Name: "manual-brb", Title: "Set to be right back by hand", Any: Facts(ManualBeRightBack), Availability: BeRightBack},
		{Name: "manual-off-work", Title: "Set to off work by hand", Any: Facts(ManualOffWork), Availability: OffWork},
		{Name: "manual-out-of-office", Title: "Set to out of office by hand", Any: Facts(ManualOutOfOffice), Availability: OutOfOffice},
	}

	rules := []Rule{
		{Name: "manual-offline", Title: "Set to appear offline by hand", Any: Facts(ManualOffline), Availability: Offline},
		{Name: "manual-dnd", Title: "Set to do not disturb by hand", Any: Facts(ManualDND), Availability: DoNotDisturb},
		{Name: "presenting", Title: "Presenting", Any: Facts(Presenting), Availability: sharing, Class: sharingClass},
		{Name: "focusing", Title: "Focus time", Any: Facts(Focusing), Availability: sharing, Class: sharingClass},
	}
	switch k.PhoneDND {
	case "channel":
	case "busy":
		rules = append(rules, Rule{Name: "phone-dnd", Title: "Send all calls is on", Any: Facts(PhoneDND), Availability: Busy})
	default:
		rules = append(rules, Rule{Name: "phone-dnd", Title: "Send all calls is on", Any: Facts(PhoneDND), Availability: DoNotDisturb})
	}
	rules = append(rules, Rule{Name: "session-dnd", Title: "A client is set to do not disturb", Any: Facts(SessionDND), Availability: DoNotDisturb})
	if k.CallOverridesAway {
		rules = append(append(rules, calls...), absences...)
	} else {
		rules = append(append(rules, absences...), calls...)
	}
	if k.Ringing == "busy" {
		rules = append(rules, Rule{Name: "ringing", Title: "The phone rings", Any: Facts(PhoneRinging), Availability: Busy})
	}
	if k.AfterCall != "channel" {
		rules = append(rules, Rule{Name: "after-call", Title: "After-call work", Any: Facts(AgentAfterCall), Availability: Busy})
	}
	rules = append(rules,
		Rule{Name: "manual-busy", Title: "Set to busy by hand", Any: Facts(ManualBusy), Availability: Busy},
		Rule{Name: "manual-available", Title: "Set to available by hand", Any: Facts(ManualAvailable), Availability: Available},
		Rule{Name: "out-of-office", Title: "Out of office in the calendar or by automatic replies, and not seen lately", Any: away, NotRecent: active, Availability: OutOfOffice},
		Rule{Name: "meeting-idle", Title: "Busy in the calendar, and the client is idle", Any: Facts(CalendarMeeting, CalendarBusy), All: Facts(SessionIdle), None: Facts(SessionActive), Availability: Busy, Class: ClassBusyIdle},
		Rule{Name: "meeting", Title: "In a meeting", Any: Facts(CalendarMeeting), Availability: Busy},
		Rule{Name: "appointment", Title: "Busy in the calendar", Any: Facts(CalendarBusy), Availability: Busy},
	)
	if k.AllDayBusy == "busy" {
		entries |= Facts(CalendarAllDay)
		rules = append(rules, Rule{Name: "all-day", Title: "Busy all day in the calendar", Any: Facts(CalendarAllDay), Availability: Busy})
	}
	if k.Tentative == "busy" {
		entries |= Facts(CalendarTentative)
		rules = append(rules, Rule{Name: "tentative", Title: "A tentative entry in the calendar", Any: Facts(CalendarTentative), Availability: Busy})
	}
	rules = append(rules,
		Rule{Name: "session-busy", Title: "A client is set to busy", Any: Facts(SessionBusy), Availability: Busy},
		Rule{Name: "off-work", Title: "Outside working hours, and not seen lately", Any: Facts(OffHours), NotRecent: active, Availability: OffWork},
		Rule{Name: "session-active", Title: "A client is in use", Any: Facts(SessionActive), Availability: Available},
		Rule{Name: "session-idle", Title: "A client is open, but idle", Any: Facts(SessionIdle), Availability: Available, Class: ClassIdle},
		Rule{Name: "session-away", Title: "A client is open, but nobody is at it", Any: Facts(SessionAway), Availability: Away},
		Rule{Name: "phone-off-hours", Title: "The phone is idle, outside working hours", Any: Facts(PhoneIdle, PhoneRinging), All: Facts(OffHours), Availability: OffWork},
	)
	if k.PhoneOnly != "unknown" {
		rules = append(rules, Rule{Name: "phone-idle", Title: "The phone is in service and idle", Any: Facts(PhoneIdle, PhoneRinging), Availability: Available})
	}
	rules = append(rules,
		Rule{Name: "fault", Title: "The source reports a fault", Any: Facts(Fault), Availability: OutOfOrder},
		Rule{Name: "offline", Title: "Every phone and client is out of service or signed out", Any: Facts(PhoneOutOfService, SessionOffline), Availability: Offline},
		Rule{Name: "calendar-off-hours", Title: "Only the calendar is known, outside working hours", Any: Facts(CalendarFree), All: Facts(OffHours), Availability: OffWork},
	)
	if k.CalendarOnly != "unknown" {
		rules = append(rules, Rule{Name: "calendar-free", Title: "Only the calendar is known, and it is free", Any: Facts(CalendarFree, CalendarTentative, CalendarElsewhere, CalendarAllDay), Availability: Available})
	}
	rules = append(rules,
		Rule{Name: "expired", Title: "All that was known has expired", Any: Facts(Expired), Availability: Unavailable},
		Rule{Name: "unknown", Title: "Nothing is known", Availability: Unknown},
	)

	busy := []Window{{6500, 8999}}
	p := &Policy{Rules: rules, Recent: k.Recent, MinDwell: k.MinDwell, FlapLimit: k.FlapLimit, FlapWindow: k.FlapWindow, Shown: []Shown{
		{Presenting, ActivityPresenting, []Window{{9000, 11999}}},
		{Focusing, ActivityFocusing, []Window{{9000, 11999}}},
		{PhoneConference, ActivityConference, []Window{{ClassConference, 8999}}},
		{PhoneConnected, ActivityPhone, busy},
		{PhoneDialing, ActivityPhone, busy},
		{PhoneHeld, ActivityHold, busy},
		{CalendarMeeting, ActivityMeeting, busy},
		{CalendarBusy, ActivityAppointment, busy},
		{CalendarOutOfOffice, ActivityOutOfOffice, []Window{{12000, 17999}}},
		{ManualOutOfOffice, ActivityOutOfOffice, []Window{{12000, 17999}}},
		{AutoReply, ActivityOutOfOffice, []Window{{12000, 17999}}},
		{SessionIdle, ActivityIdle, []Window{{ClassIdle, 5999}, {ClassBusyIdle, 8999}}},
		{CalendarElsewhere, ActivityElsewhere, []Window{{3000, 8999}}},
	}}
	if !k.PresentingIsDND {
		p.Shown[0].Windows, p.Shown[1].Windows = busy, busy
	}
	if k.AllDayBusy == "busy" {
		p.Shown = append(p.Shown, Shown{CalendarAllDay, ActivityAppointment, busy})
	}
	if k.Tentative == "busy" {
		p.Shown = append(p.Shown, Shown{CalendarTentative, ActivityTentative, busy})
	}
	if k.Ringing == "busy" {
		p.Shown = append(p.Shown, Shown{PhoneRinging, ActivityRinging, busy})
	}
	for f := range inUse.All() {
		p.Linger[f] = k.HangupLinger
	}
	for f := range entries.All() {
		p.Gap[f] = k.MergeGap
	}
	// The phone stays idle until dialing counts, else the person would be
	// unknown for the length of the delay.
	p.Delay[PhoneDialing], p.Meanwhile[PhoneDialing] = k.DialDelay, Facts(PhoneIdle)
	return p
}
