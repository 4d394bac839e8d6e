package htdigest_test

import (
	"strings"
	"testing"

	"presenced/internal/htdigest"
)

func TestParse(t *testing.T) {
	all, err := htdigest.Parse("# ours\n\ndave:example.test:0123456789ABCDEF0123456789abcdef\n" + "dave:example.test:" + strings.Repeat("a", 64))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := all.HA1("dave", "example.test", htdigest.MD5); !ok || got != "0123456789abcdef0123456789abcdef" {
		t.Error(got, ok)
	}
	if got, ok := all.HA1("dave", "example.test", htdigest.SHA256); !ok || got != strings.Repeat("a", 64) {
		t.Error(got, ok)
	}
	if got, ok := all.HA1("dave", "elsewhere.test", htdigest.MD5); ok {
		t.Error(got)
	}
	for text, want := range map[string]string{
		"a:b":                            "line 1: it is not user:realm:HA1",
		"\na:b:c":                        "line 2: the HA1 is neither 32 hexadecimal digits (MD5) nor 64 (SHA-256)",
		"a:b:" + strings.Repeat("g", 64): "line 1: the HA1 is neither 32 hexadecimal digits (MD5) nor 64 (SHA-256)",
	} {
		if _, err := htdigest.Parse(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}
