package policy_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator/policy"
	"presenced/aggregator/presence"
	"presenced/internal/config"
)

// drawSetting sets every knob there is. Words that mean nothing to a knob count as
// its default, so one list of words does for all.
func drawSetting(t *rapid.T) presence.Setting {
	var k presence.Setting
	v := reflect.ValueOf(&k).Elem()
	for f, field := range v.Fields() {
		switch field.Interface().(type) {
		case string:
			field.SetString(rapid.SampledFrom([]string{"dnd", "busy", "channel", "ignore", "available", "unknown"}).Draw(t, f.Name))
		case bool:
			field.SetBool(rapid.Bool().Draw(t, f.Name))
		case time.Duration:
			field.SetInt(rapid.OneOf(rapid.SampledFrom([]int64{0, 1, int64(time.Second), int64(time.Minute), int64(10 * time.Minute), int64(time.Hour)}), rapid.Int64Range(0, int64(100*time.Hour))).Draw(t, f.Name))
		case int:
			field.SetInt(rapid.Int64Range(0, presence.MaxFlapLimit).Draw(t, f.Name))
		default:
			t.Fatalf("the knob %s is of a kind that this test does not know", f.Name)
		}
	}
	k.MinDwell = min(k.MinDwell, presence.MaxDwell)
	k.FlapWindow = min(k.FlapWindow, presence.MaxFlapWindow)
	return k
}

func roundTrip(t interface{ Fatalf(string, ...any) }, p *presence.Policy) {
	text := policy.Format(p)
	back, err := policy.Parse("policy.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if d := cmp.Diff(p, back); d != "" {
		t.Fatalf("- written, + read:\n%s\n%s", d, text)
	}
}

// Whatever the knobs make, Format writes and Parse reads back.
func TestKnobsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { roundTrip(t, drawSetting(t).Policy()) })
}

// The same for tables that no knob makes: every class, window, time and title.
func TestTablesRoundTrip(t *testing.T) {
	facts := func(t *rapid.T, label string) presence.FactSet {
		return presence.Facts(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) presence.Fact {
			return presence.Fact(rapid.IntRange(0, int(presence.Expired)).Draw(t, "fact"))
		}), 0, 4).Draw(t, label)...)
	}
	words := rapid.OneOf(rapid.SampledFrom([]string{"null", "True", "no", "12", "0x10", "~", "a: b", "a #b", "- x", "'", `"\"`, "&a", "*a", "!t", "%", "<b>", "ünter", "日本", "😀", ".inf", "1.5"}), rapid.StringMatching(`[!-~äß€]{1,20}`))
	rapid.Check(t, func(t *rapid.T) {
		p := &presence.Policy{Recent: time.Duration(rapid.Int64Range(0, 1<<60).Draw(t, "recent"))}
		// No rule covers another: each has a fact of its own in all.
		for i := range rapid.IntRange(0, 5).Draw(t, "rules") {
			own := presence.Facts(presence.Fact(i)) //nolint:gosec // small
			p.Rules = append(p.Rules, presence.Rule{
				Name: fmt.Sprint(i, strings.ReplaceAll(words.Draw(t, "name"), " ", "")), Title: words.Draw(t, "title"),
				All: own, Any: facts(t, "any") | own, NotRecent: facts(t, "not recent"),
				Availability: presence.Availability(rapid.IntRange(0, int(presence.Available)).Draw(t, "availability")), //nolint:gosec // small
				Class:        rapid.IntRange(0, policy.MaxClass).Draw(t, "class"),
			})
		}
		p.Rules = append(p.Rules, presence.Rule{Name: "last", Title: words.Draw(t, "title")})
		for range rapid.IntRange(0, 4).Draw(t, "activities") {
			row := presence.Shown{
				Fact:     presence.Fact(rapid.IntRange(0, int(presence.Expired)).Draw(t, "fact")),                                                //nolint:gosec // small
				Activity: presence.Activity(rapid.IntRange(int(presence.ActivityPresenting), int(presence.ActivityRinging)).Draw(t, "activity")), //nolint:gosec // small
			}
			for range rapid.IntRange(1, 3).Draw(t, "windows") {
				low := rapid.IntRange(0, policy.MaxClass).Draw(t, "min")
				row.Windows = append(row.Windows, presence.Window{Min: low, Max: rapid.IntRange(low, policy.MaxClass).Draw(t, "max")})
			}
			p.Shown = append(p.Shown, row)
		}
		for f := range facts(t, "timed").All() {
			p.Delay[f] = time.Duration(rapid.Int64Range(0, 1<<60).Draw(t, "delay"))
			p.Linger[f] = time.Duration(rapid.Int64Range(0, 1<<60).Draw(t, "linger"))
			p.Meanwhile[f] = facts(t, "meanwhile")
			p.Gap[f] = time.Duration(rapid.Int64Range(0, 1<<60).Draw(t, "gap"))
		}
		roundTrip(t, p)
	})
}

// TestEveryProblem has one table with every mistake there is, and wants all of
// them, each with line and key, and none that only follows from another.
func TestEveryProblem(t *testing.T) {
	_, err := policy.Parse("p.yaml", []byte(`recent: soon
times:
  phone-dialling: {delay: 2s}
  phone-dialing: {delay: 2s, meanwhile: [phone-busy]}
  phone-dialing: {linger: 1s}
rules:
- rule: typo
  title: A condition with a wrong key is no rule without conditions
  anny: [phone-idle]
  availability: busy
- rule: facts
  title: Facts
  any: [phone-idle, phone-ideal]
  all: calendar-free
  none: [""]
  not_recent: [sesion-active]
  availability: bussy
- title: "  "
  any: [phone-dnd]
  class: 20000
- rule: meeting
  title: In a meeting
  any: [calendar-meeting, calendar-busy]
  availability: busy
- rule: meeting
  title: Twice
  any: [phone-held]
  availability: busy
- rule: covered
  title: In a meeting, too
  any: [calendar-meeting]
  all: [session-idle]
  availability: busy
- rule: removed
  title: "two\nlines"
  any: [fault]
  availability: busy
  class: -1
- rule: against itself
  title: Never
  all: [fault]
  none: [fault]
  availability: busy
- rule: against-itself
  title: Never
  any: [fault, phone-dnd]
  none: [phone-dnd, phone-idle, fault]
  availability: busy
- rule: all
  title: Everybody
  availability: available
- rule: below
  title: Nobody
  not_recent: [phone-idle]
  availability: busy
activities:
- {fact: phone-conected, shows: on-the-phone, classes: ["6500-8999"]}
- {fact: phone-connected, shows: phoning, classes: ["6500", "many-8999", "9000-6500", "6500-20000", "-1-5"]}
- {}
colour: red
`))
	if _, ok := errors.AsType[*config.Error](err); !ok {
		t.Fatalf("%v", err)
	}
	all := "available, busy, dnd, brb, away, out-of-office, off-work, offline, out-of-order, unavailable, unknown"
	want := []string{
		`p.yaml:1: recent: "soon" is no duration such as 30s, 5m or 1h30m`,
		`p.yaml:3: times.phone-dialling: unknown fact "phone-dialling"`,
		`p.yaml:4: times.phone-dialing.meanwhile[0]: unknown fact "phone-busy"`,
		`p.yaml:5: times.phone-dialing: stands twice, first on line 4`,
		`p.yaml:9: rules[0].anny: unknown key; known here: rule, title, any, all, none, not_recent, availability, class`,
		`p.yaml:13: rules[1].any[1]: unknown fact "phone-ideal"`,
		`p.yaml:14: rules[1].all: want a list (lines that begin with -)`,
		`p.yaml:15: rules[1].none[0]: is missing: want the name of a fact`,
		`p.yaml:16: rules[1].not_recent[0]: unknown fact "sesion-active"`,
		`p.yaml:17: rules[1].availability: unknown availability "bussy"; want one of ` + all,
		`p.yaml:18: rules[2].rule: is missing: want a name for the rule`,
		`p.yaml:18: rules[2].title: is missing: want the rule in words`,
		`p.yaml:18: rules[2].availability: is missing: want one of ` + all,
		`p.yaml:20: rules[2].class: 20000 is not between 0 and 19999`,
		`p.yaml:25: rules[4].rule: "meeting" is the name of rules[3] already`,
		`p.yaml:29: rules[5]: can never fire: wherever it fits, rule meeting above it does`,
		`p.yaml:34: rules[6].rule: "removed" is the name of what becomes of people who leave the directory`,
		`p.yaml:35: rules[6].title: want one line of at most 200 bytes`,
		`p.yaml:38: rules[6].class: -1 is not between 0 and 19999`,
		`p.yaml:39: rules[7].rule: want a name without spaces, of at most 64 bytes`,
		`p.yaml:44: rules[8]: can never fire: it wants what it forbids (phone-dnd fault)`,
		`p.yaml:52: rules[10]: can never fire: wherever it fits, rule all above it does`,
		`p.yaml:57: activities[0].fact: unknown fact "phone-conected"`,
		`p.yaml:58: activities[1].shows: unknown activity "phoning"`,
		`p.yaml:58: activities[1].classes[0]: "6500" is no range of classes such as 6500-8999`,
		`p.yaml:58: activities[1].classes[1]: "many-8999" is no range of classes such as 6500-8999`,
		`p.yaml:58: activities[1].classes[2]: "9000-6500" ends before it begins`,
		`p.yaml:58: activities[1].classes[3]: "6500-20000" is not within 0-19999`,
		`p.yaml:58: activities[1].classes[4]: "-1-5" is no range of classes such as 6500-8999`,
		`p.yaml:59: activities[2].fact: is missing: want the name of a fact`,
		`p.yaml:59: activities[2].shows: is missing: want the name of an activity`,
		`p.yaml:59: activities[2].classes: is missing: without classes it is never shown`,
		`p.yaml:60: colour: unknown key; known here: recent, min_dwell, flap_limit, flap_window, times, rules, activities`,
	}
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Error(d)
	}
}

func TestLimits(t *testing.T) {
	rules := func(n int) string {
		var b strings.Builder
		b.WriteString("rules:\n")
		for i := range n - 1 {
			fmt.Fprintf(&b, "- {rule: r%d, title: R, any: [phone-idle], none: [%s], availability: busy}\n", i, distinct(i))
		}
		b.WriteString("- {rule: last, title: L, availability: unknown}\n")
		return b.String()
	}
	if _, err := policy.Parse("p", []byte(rules(policy.MaxRules))); err != nil {
		t.Errorf("as many rules as may be: %v", err)
	}
	for text, want := range map[string]string{
		rules(policy.MaxRules + 1):                                       "p:1: rules: 201 rules, the limit is 200",
		"rules: [{rule: a, title: A, any: [fault], availability: busy}]": "p:1: rules[0]: the last rule must be one without conditions, so that there always is a state",
		"":          "p: rules: is missing: a table needs rules, the last of them without conditions",
		"rules: []": "p:1: rules: is missing: a table needs rules, the last of them without conditions",
		"rules: [{rule: a, title: A, availability: busy}]\nactivities: [" + strings.Repeat("{},", 201) + "]": "p:2: activities: 201 activities, the limit is 200",
	} {
		if _, err := policy.Parse("p", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// distinct gives the i-th pair of facts, so that no set of two is in another.
func distinct(i int) string {
	for a := presence.PhoneRinging; a < presence.Fault; a++ {
		for b := a + 1; b < presence.Fault; b++ {
			if i--; i < 0 {
				return a.String() + ", " + b.String()
			}
		}
	}
	return ""
}

// TestCovered asks "can it ever fire" of pairs of rules, and proves the answer by
// deciding: a rule said to be covered never fires, on any facts.
func TestCovered(t *testing.T) {
	set := func(t *rapid.T, label string) presence.FactSet { // of four facts
		return presence.FactSet(rapid.Uint64Range(0, 15).Draw(t, label))
	}
	rapid.Check(t, func(t *rapid.T) {
		rule := func(name string) presence.Rule {
			return presence.Rule{Name: name, Title: name, Any: set(t, "any"), All: set(t, "all"), None: set(t, "none"), NotRecent: set(t, "not recent"), Availability: presence.Busy}
		}
		p := &presence.Policy{Rules: []presence.Rule{rule("above"), rule("below"), {Name: "last", Title: "last"}}}
		_, err := policy.Parse("p", policy.Format(p))
		if err == nil || !strings.Contains(err.Error(), "rules[1]: can never fire") {
			return
		}
		noon := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
		for holds := range presence.FactSet(16) {
			r := presence.Report{Source: "s", Subject: presence.Subject{Scheme: "tel", Value: "1"}, At: noon}
			for f := range holds.All() {
				r.Spans = append(r.Spans, presence.Span{Fact: f, From: noon.Add(-time.Hour)})
			}
			if s, _ := p.Decide("ann", []presence.Report{r}, noon); s.Why.Rule == "below" {
				t.Fatalf("it fires on %s, although: %v\n%s", holds, err, policy.Format(p))
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(policy.Format(presence.DefaultPolicy()))
	f.Add([]byte("rules: [{rule: a, title: A, availability: busy}]"))
	f.Add([]byte("times: {phone-idle: {delay: 1s, meanwhile: [expired]}}\nrules: 3"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := policy.Parse("p", data); err == nil {
			roundTrip(t, p)
		}
	})
}
