package lps

import "testing"

func TestAddress(t *testing.T) {
	for uri, want := range map[string]string{
		"sip:alice@Example.TEST":                     "alice@example.test",
		"SIPS:Alice@example.test:5061;transport=tls": "Alice@example.test",
		"sip:%61lice:secret@example.test?x=y":        "alice@example.test",
		"sip:4750;phone-context=+49@example.test":    "4750@example.test",
		"sip:alice@[2001:DB8::1]:5060":               "alice@[2001:db8::1]",
		"tel:+4950;ext=7":                            "+4950",
		"sip:example.test":                           "",
		"sip:@example.test":                          "",
		"sip:a%0D%0AX@example.test":                  "",
		"sip:a%3Cb@example.test":                     "",
		"sip:a%4@example.test":                       "",
		"sip:alice@[::1":                             "",
		"sip:alice@exa mple.test":                    "",
		"mailto:alice@example.test":                  "",
		"alice@example.test":                         "",
	} {
		got, ok := Address(uri)
		if got != want && ok || ok != (want != "") {
			t.Errorf("%s: %q, %v; want %q", uri, got, ok, want)
		}
		if !ok {
			continue
		}
		if again, ok := Address(URI(got)); !ok || again != got {
			t.Errorf("%s: %s comes back as %q", uri, URI(got), again)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("sip:alice@example.test")
	f.Add("tel:+49")
	f.Add("sip:a%2541@example.test")
	f.Add("sip:a%3Bb@[::1]:5060")
	f.Fuzz(func(t *testing.T, uri string) {
		address, ok := Address(uri)
		if !ok {
			return
		}
		if again, ok := Address(URI(address)); !ok || again != address {
			t.Errorf("%q: %q comes back as %q", uri, address, again)
		}
		if isPlainURI([]byte("sip:"+address), address) {
			if read, ok := Address("sip:" + address); !ok || read != address {
				t.Errorf("%q: sip:%s is not read, and would be %q", uri, address, read)
			}
		}
	})
}
