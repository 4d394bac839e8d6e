package presence_test

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestExplanation has everything that an explanation can say: the golden file is what
// the command line and the page print.
func TestExplanation(t *testing.T) {
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	said := func(source, scheme string, at time.Time, spans ...presence.Span) presence.Report {
		return presence.Report{Source: source, Subject: presence.Subject{Scheme: scheme, Value: "ann"}, At: at, Spans: spans}
	}
	phone := said("aes", "tel", ago(10*time.Minute),
		presence.Span{Fact: presence.PhoneIdle, From: ago(10 * time.Minute), Contact: "tel:ann"},
		presence.Span{Fact: presence.PhoneConnected, From: ago(time.Hour), Until: ago(10 * time.Minute), Contact: "tel:ann"})
	phone = phone.Lost(ago(10 * time.Second))
	phone.Expires = noon.Add(20 * time.Second)
	calendar := said("exchange", "mail", ago(5*time.Minute),
		presence.Span{Fact: presence.CalendarOutOfOffice, From: ago(4 * time.Hour), Until: noon.Add(4 * time.Hour)})
	other := said("domino", "notes", ago(25*time.Hour), presence.Span{Fact: presence.CalendarMeeting, From: ago(time.Hour)})
	other.Expires = ago(time.Hour)
	byHand := said("manual", "id", ago(time.Minute),
		presence.Span{Fact: presence.ManualAvailable, From: ago(time.Minute), Until: noon.Add(time.Hour), Note: "local:ops"})
	policy := presence.DefaultPolicy()
	policy.Rules = append([]presence.Rule{{
		Name: "own", Title: "Idle, and not by hand", Any: presence.Facts(presence.PhoneIdle), None: presence.Facts(presence.ManualAvailable, presence.AutoReply), Availability: presence.Away,
	}}, policy.Rules...)

	var out strings.Builder
	for _, c := range []struct {
		about   string
		policy  *presence.Policy
		reports []presence.Report
	}{
		{"nothing was ever said", presence.DefaultPolicy(), nil},
		{"out of office, but seen lately; one source lost, one expired", presence.DefaultPolicy(), []presence.Report{phone, calendar, other}},
		{"set by hand, a rule of one's own stands aside", policy, []presence.Report{phone, byHand}},
	} {
		e := c.policy.Explain("ann", c.reports, noon)
		out.WriteString("== " + c.about + "\n" + e.Text(time.UTC))
	}
	const golden = "testdata/explanation.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Error(diff)
	}
}
