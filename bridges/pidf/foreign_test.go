package pidf_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
)

// A composer puts what we wrote before, behind and between what others wrote: only
// theirs is read.
func TestParseForeign(t *testing.T) {
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	s := presence.State{Person: "ann", Availability: presence.Busy, Activity: presence.ActivityPhone, Class: presence.Busy.Class(), Since: now}
	s.Channels[presence.Phone] = presence.Channel{State: presence.ChannelInUse, Since: now}
	ours := string(pidf.Append(nil, s, "sip:ann@example.com", pidf.Options{}))
	begin, end := strings.Index(ours, "<tuple"), strings.Index(ours, "</presence>")
	head, content := ours[:begin], ours[begin:end]
	theirs := `<tuple id="a1"><status><basic>open</basic></status><note>x</note></tuple>` +
		`<dm:person id="p1"><rpid:activities><rpid:away/></rpid:activities></dm:person>`
	want, err := pidf.Parse([]byte(head + theirs + "</presence>"))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{theirs, content + theirs, theirs + content, content + theirs + content} {
		got, err := pidf.ParseForeign([]byte(head + body + "</presence>"))
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%v\n%s", err, d)
		}
	}
	alone, err := pidf.ParseForeign([]byte(ours))
	if err != nil || len(pidf.Facts(alone, now)) != 0 {
		t.Errorf("of our own document alone: %+v %v", alone, err)
	}
}

// Whatever a server sends, nothing of our own is read, and what is not is read as ever.
func FuzzParseForeign(f *testing.F) {
	for _, s := range []string{
		`<presence><tuple id="presenced-a"><status><basic>open</basic></status></tuple><tuple id="b"/></presence>`,
		`<presence><person id="presenced-person"><activities><away/></activities></person><note>x</note></presence>`,
		`<presence><presenced id="presenced-"><tuple id="a"/></presenced><tuple id="presenced-"/></presence>`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := pidf.ParseForeign(data)
		all, wrong := pidf.Parse(data)
		if (err == nil) != (wrong == nil) {
			t.Fatalf("%v, else %v", err, wrong)
		}
		if strings.HasPrefix(d.Person.ID, "presenced-") {
			t.Error("a person of our own")
		}
		for i := range d.Tuples {
			if strings.HasPrefix(d.Tuples[i].ID, "presenced-") {
				t.Error("a tuple of our own")
			}
		}
		if !strings.Contains(string(data), "presenced-") && !strings.Contains(string(data), "&") && err == nil {
			if diff := cmp.Diff(all, d); diff != "" {
				t.Error(diff)
			}
		}
	})
}
