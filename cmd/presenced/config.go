package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"presenced/aes"
	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/directory"
	"presenced/aggregator/policy"
	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/aggregator/store"
	"presenced/bridges/mqtt"
	"presenced/bridges/sip"
	"presenced/bridges/sip/lps"
	"presenced/bridges/web"
	"presenced/bridges/webhook"
	"presenced/bridges/xmpp"
	"presenced/domino"
	"presenced/exchange"
	"presenced/internal/config"
)

// Config is the whole configuration file.
type Config struct {
	Log       LogConfig         `yaml:"log" doc:"What is written to standard error."`
	Directory directory.Config  `yaml:"directory" doc:"Who the people are."`
	Policy    presence.Setting  `yaml:"policy" doc:"How facts become presence: knobs of the default table, or a file with a table of your own; docs/policy.md has both."`
	Access    access.Config     `yaml:"access" doc:"Who sees what of whom, where no rule says otherwise, and how long it is kept who changed what."`
	Store     store.Config      `yaml:"store" doc:"What survives a restart."`
	AES       []aes.Config      `yaml:"aes" doc:"AES servers: who is on a call."`
	Exchange  []exchange.Config `yaml:"exchange" doc:"Exchange servers: who is in a meeting or out of office."`
	Domino    []domino.Config   `yaml:"domino" doc:"Domino servers: who is in a meeting or out of office."`
	SIP       []sip.Config      `yaml:"sip" doc:"SIP presence servers to publish to."`
	LPS       []lps.Config      `yaml:"lps" doc:"Local Presence Services: SIP endpoints publish here, and SIP watchers subscribe here."`
	XMPP      []xmpp.Config     `yaml:"xmpp" doc:"XMPP servers to serve as a component."`
	Webhooks  []webhook.Config  `yaml:"webhooks" doc:"Programs to tell of each change by a signed POST."`
	MQTT      []mqtt.Config     `yaml:"mqtt" doc:"MQTT 5 brokers to publish to, and Home Assistant through them."`
	Web       web.Config        `yaml:"web" doc:"The page."`
	History   HistoryConfig     `yaml:"history" doc:"What is remembered of the past."`
	Control   ControlConfig     `yaml:"control" doc:"The socket for the command line."`

	PolicyFile string `yaml:"policy.file" doc:"YAML file with a table that takes the place of the default one. It is read again when it changes, and on SIGHUP. No knob may stand beside it."`

	file  string     // where it was read from
	knobs []string   // those of the policy that stand in the file
	table *tableFile // what PolicyFile held when the configuration was loaded; nil: there is none
}

// Read implements config.Reader.
func (c *Config) Read(r config.Reading) {
	for f := range reflect.TypeFor[presence.Setting]().Fields() {
		if knob := f.Tag.Get("yaml"); r.Has("policy." + knob) {
			c.knobs = append(c.knobs, knob)
		}
	}
}

// LogConfig is the log: section.
type LogConfig struct {
	Level  string `yaml:"level" default:"info" doc:"Least level to write: debug, info, warn or error."`
	Format string `yaml:"format" default:"text" doc:"Form of a line: text, or json for a collector."`
}

// Check implements config.Checker: it finds all that is wrong without looking
// outside the file.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	var level slog.Level
	if level.UnmarshalText([]byte(c.Log.Level)) != nil {
		ps = append(ps, config.Wrong("log.level", "%q is none of debug, info, warn, error", c.Log.Level))
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		ps = append(ps, config.Wrong("log.format", "%q is neither text nor json", c.Log.Format))
	}
	ps = append(ps, config.Under("directory", c.Directory.Check())...)
	ps = append(ps, config.Under("policy", c.checkPolicy())...)
	ps = append(ps, config.Under("access", c.Access.Check())...)
	ps = append(ps, config.Under("store", c.Store.Check())...)
	ps = append(ps, config.Under("web", c.Web.Check())...)
	ps = append(ps, config.Under("history", c.History.Check())...)
	ps = append(ps, config.Under("control", c.Control.Check())...)
	names := map[string]string{aggregator.SourceManual: "what is set by hand"}
	list := func(section string, i int, name string, problems []config.Problem) {
		at := fmt.Sprintf("%s[%d]", section, i)
		ps = append(ps, config.Under(at, problems)...)
		if other, taken := names[name]; taken && name != "" {
			ps = append(ps, config.Wrong(at+".name", "%q is the name of %s already; names are unique among sources and bridges", name, other))
		}
		names[name] = at
	}
	for i := range c.AES {
		list("aes", i, c.AES[i].Name, c.AES[i].Check())
		j := slices.IndexFunc(c.AES, func(other aes.Config) bool { return strings.EqualFold(other.Switch, c.AES[i].Switch) })
		if !slices.Equal(c.AES[j].Priority, c.AES[i].Priority) {
			ps = append(ps, config.Wrong(fmt.Sprintf("aes[%d].priority", i), "differs from that of aes[%d], which has the same switch: sources of one switch share its extensions by one order", j))
		}
	}
	for i := range c.Exchange {
		list("exchange", i, c.Exchange[i].Name, c.Exchange[i].Check())
	}
	for i := range c.Domino {
		list("domino", i, c.Domino[i].Name, c.Domino[i].Check())
	}
	for i := range c.SIP {
		list("sip", i, c.SIP[i].Name, c.SIP[i].Check())
	}
	for i := range c.LPS {
		list("lps", i, c.LPS[i].Name, c.LPS[i].Check())
	}
	for i := range c.XMPP {
		list("xmpp", i, c.XMPP[i].Name, c.XMPP[i].Check())
	}
	for i := range c.Webhooks {
		list("webhooks", i, c.Webhooks[i].Name, c.Webhooks[i].Check())
	}
	for i := range c.MQTT {
		list("mqtt", i, c.MQTT[i].Name, c.MQTT[i].Check())
	}
	return ps
}

// policy gives the policy in force: the table of the file, or what the knobs make.
func (c *Config) policy() *presence.Policy {
	if c.table != nil {
		return c.table.policy
	}
	return c.Policy.Policy()
}

// checkPolicy tells which knobs have a value that means nothing, or no place.
func (c *Config) checkPolicy() []config.Problem {
	var ps []config.Problem
	if c.PolicyFile != "" {
		for _, knob := range c.knobs {
			ps = append(ps, config.Wrong(knob, "has no effect beside file, whose table takes the place of what the knobs make; leave out one of them"))
		}
		return ps
	}
	k := &c.Policy
	one := func(key, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			ps = append(ps, config.Wrong(key, "%q is none of %s", value, strings.Join(allowed, ", ")))
		}
	}
	one("phone_dnd", k.PhoneDND, "dnd", "busy", "channel")
	one("after_call", k.AfterCall, "busy", "channel")
	one("all_day_busy", k.AllDayBusy, "ignore", "busy")
	one("tentative", k.Tentative, "ignore", "busy")
	one("ringing", k.Ringing, "channel", "busy")
	one("phone_only", k.PhoneOnly, "available", "unknown")
	one("calendar_only", k.CalendarOnly, "available", "unknown")
	return append(ps, policy.CheckDamping(k.MinDwell, k.FlapLimit, k.FlapWindow)...)
}

// loadConfig reads and checks the file, and the table of the policy if it names
// one; the error names every problem of both.
func loadConfig(file string) (*Config, error) {
	c := Config{file: file}
	err := config.Load(file, &c)
	if c.PolicyFile != "" {
		table, wrong := readTable(c.PolicyFile)
		c.table = &table
		err = errors.Join(err, wrong)
	}
	if err != nil {
		return nil, err
	}
	return &c, nil
}

func (c *LogConfig) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // checked with the configuration
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// ConfigCommand is about the configuration.
type ConfigCommand struct {
	Reference ReferenceCommand `cmd:"" help:"Print every key, its default and its meaning, as Markdown."`
}

// ReferenceCommand prints the configuration reference.
type ReferenceCommand struct{}

// Run implements the command.
func (ReferenceCommand) Run(term *Terminal) error {
	_, err := fmt.Fprint(term.Out, reference())
	return err
}

func reference() string {
	return "# Configuration reference\n\nWritten by `make docs` from the code; do not edit it by hand.\n\n" +
		"The file is YAML. Unknown keys, wrong values and missing ones are all reported at once, each with its line.\n" +
		"Secrets stand in files of their own (`*_file`). Durations are written like `30s`, `5m` or `1h30m`.\n" + config.Reference(Config{}) +
		"\n# File of `presenced service`\n\nWhat `add`, `edit -f` and `apply -f` read and `export` writes; it is no part of the configuration.\n" + services.Reference()
}
