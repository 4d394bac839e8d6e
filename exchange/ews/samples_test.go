package ews

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Answers of real servers, as other projects published them.
func TestRealAnswers(t *testing.T) {
	data := os.Getenv("PRESENCED_TESTDATA")
	if data == "" {
		t.Skip("PRESENCED_TESTDATA is unset: answers of real servers are not at hand")
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(data, "exchange", "samples", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, check := range map[string]func([]MailboxAvailability, error) bool{
		"ews-javascript-api.GetUserAvailabilityRequestResponseWithEmptyDayOfWeek.xml": func(got []MailboxAvailability, err error) bool {
			return err == nil && got[0].Code == CodeOK && len(got[0].Events) == 0 && got[0].Hours != nil && len(got[0].Hours.Periods) == 0
		},
		"mhewedy-ews.get_user_availability_test.L103.xml": func(got []MailboxAvailability, err error) bool {
			return err == nil && len(got) > 0 && got[0].Code == "ErrorMailRecipientNotFound"
		},
		"kdepim-runtime.errorserverbusy-maxconcurrency.xml": func(_ []MailboxAvailability, err error) bool {
			busy, ok := errors.AsType[*Throttled](err)
			return ok && busy.Wait == time.Minute
		},
	} {
		text := read(name)
		got, err := decodeAvailability(text, strings.Count(text, "<FreeBusyResponse>"))
		if !check(got, err) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// This one is about something else, and has references that XML does not allow.
	var malformed *Malformed
	if _, err := decodeAvailability(read("viewpoint.dodgy_ews_response.xml"), 1); !errors.As(err, &malformed) || strings.Contains(err.Error(), "well-formed") {
		t.Errorf("%v, want another answer", err)
	}
}
