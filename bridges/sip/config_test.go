package sip

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfigCheck(t *testing.T) {
	ok := DefaultConfig()
	ok.Address, ok.Entity = "presence.example.com:5060", "sip:{tel}@example.com"
	for name, c := range map[string]struct {
		change func(*Config)
		want   []string
	}{
		"good":            {func(*Config) {}, nil},
		"sip subject":     {func(c *Config) { c.Entity = "{sip}" }, nil},
		"mail subject":    {func(c *Config) { c.Entity = "sip:{mail}" }, nil},
		"IPv6":            {func(c *Config) { c.Address = "[::1]:5060" }, nil},
		"nothing":         {func(c *Config) { *c = Config{} }, []string{"name", "address", "transport", "entity", "expires", "outstanding", "body", "busy_basic", "out_of_office_basic"}},
		"no port":         {func(c *Config) { c.Address = "presence.example.com:" }, []string{"address"}},
		"name alone":      {func(c *Config) { c.Address, c.Secondary = "presence.example.com", "::1" }, nil},
		"same secondary":  {func(c *Config) { c.Secondary = c.Address }, []string{"secondary"}},
		"bad secondary":   {func(c *Config) { c.Secondary = "x:y" }, []string{"secondary"}},
		"no placeholder":  {func(c *Config) { c.Entity = "sip:4750@example.com" }, []string{"entity"}},
		"no address":      {func(c *Config) { c.Entity = "tel:{tel}" }, []string{"entity"}},
		"line end":        {func(c *Config) { c.Entity = "sip:{tel}@example.com\r\nX: y" }, []string{"entity"}},
		"user only":       {func(c *Config) { c.User = "u" }, []string{"user"}},
		"TLS":             {func(c *Config) { c.Transport, c.TLS.CertFile, c.TLS.MinVersion = "tls", "x", "9" }, []string{"tls.cert_file", "tls.min_version"}},
		"TLS not in use":  {func(c *Config) { c.TLS.MinVersion = "9" }, nil},
		"too short":       {func(c *Config) { c.Expires = time.Millisecond }, []string{"expires"}},
		"unknown choices": {func(c *Config) { c.Transport, c.BusyBasic, c.Body = "sctp", "half", "thin" }, []string{"transport", "body", "busy_basic"}},
		"no rate":         {func(c *Config) { c.Rate = -1 }, []string{"rate"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ok
			c.change(&cfg)
			var got []string
			for _, p := range cfg.Check() {
				got = append(got, p.Path)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("problems at %q, want %q", got, c.want)
			}
		})
	}
}

// The defaults in the documentation are those of DefaultConfig.
func TestConfigTags(t *testing.T) {
	v := reflect.ValueOf(DefaultConfig())
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Tag.Get("yaml") == "" || f.Tag.Get("doc") == "" && f.Name != "TLS" {
			t.Errorf("%s is not documented", f.Name)
		}
		if want := f.Tag.Get("default"); want != "" {
			got := v.Field(i).Interface()
			if d, ok := got.(time.Duration); ok {
				if parsed, err := time.ParseDuration(want); err != nil || parsed != d {
					t.Errorf("%s: the tag says %s, the default is %v", f.Name, want, d)
				}
			} else if s := strings.TrimSpace(reflect.ValueOf(got).String()); v.Field(i).Kind() == reflect.String && s != want {
				t.Errorf("%s: the tag says %s, the default is %s", f.Name, want, s)
			}
		}
	}
}
