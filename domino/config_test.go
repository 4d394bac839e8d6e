package domino

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func valid() Config {
	c := DefaultConfig()
	c.Servers = []Server{{"Mail1/Acme", "https://mail1.example.com"}}
	c.User, c.PasswordFile = "presence", "/etc/presenced/domino"
	return c
}

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		want   []string // paths
	}{
		"valid":    {func(*Config) {}, nil},
		"helper":   {func(c *Config) { c.OutOfOffice = OutOfOfficeConfig{DriverHelper, "https://h/ooo?m={mail}"} }, nil},
		"defaults": {func(c *Config) { *c = DefaultConfig() }, []string{"servers", "user", "password_file"}},
		"nothing": {
			func(c *Config) { *c = Config{} },
			[]string{"name", "servers", "user", "password_file", "format", "interval", "timezone", "timeout", "out_of_office.driver"},
		},
		"servers": {
			func(c *Config) {
				c.Servers = []Server{{"Mail1/Acme", "https://a"}, {"CN=MAIL1/O=Acme", "https://b"}, {"", "mail1"}}
			},
			[]string{"servers[1].name", "servers[2].name", "servers[2].url"},
		},
		"times": {
			func(c *Config) { c.Interval, c.Lookback, c.Horizon, c.Timeout = time.Second, -1, 8*24*time.Hour, -1 },
			[]string{"interval", "lookback", "horizon", "timeout"},
		},
		"zone of this machine": {func(c *Config) { c.Timezone = "Local" }, []string{"timezone"}},
		"words":                {func(c *Config) { c.Format, c.User = "xml", "a:b" }, []string{"user", "format"}},
		"helper without mail":  {func(c *Config) { c.OutOfOffice = OutOfOfficeConfig{DriverHelper, "https://h/ooo"} }, []string{"out_of_office.url"}},
		"tls":                  {func(c *Config) { c.TLS.MinVersion = "3" }, []string{"tls.min_version"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := valid()
			test.change(&c)
			var got []string
			for _, p := range c.Check() {
				got = append(got, p.Path)
				if p.Text == "" {
					t.Errorf("%s: no text", p.Path)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The configuration reference is made from the tags.
func TestTags(t *testing.T) {
	defaults := DefaultConfig()
	for _, v := range []any{defaults, defaults.OutOfOffice, Server{}} {
		for field := range reflect.ValueOf(v).Type().Fields() {
			if field.Tag.Get("yaml") == "" || !strings.HasSuffix(field.Tag.Get("doc"), ".") {
				t.Errorf("%T.%s lacks yaml or doc", v, field.Name)
			}
			want := field.Tag.Get("default")
			got := reflect.ValueOf(v).FieldByIndex(field.Index)
			switch value := got.Interface().(type) {
			case time.Duration:
				if d, err := time.ParseDuration(want); err != nil || d != value {
					t.Errorf("%s: the tag says %s, DefaultConfig %v", field.Name, want, value)
				}
			case string:
				if value != want {
					t.Errorf("%s: the tag says %q, DefaultConfig %q", field.Name, want, value)
				}
			}
		}
	}
}
