package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"presenced/aes"
	"presenced/aes/csta"
)

// AESCommand is about AES.
type AESCommand struct {
	Tap TapCommand `cmd:"" help:"Print what AES tells of extensions, as it comes."`
}

// TapCommand prints events. It has a session of its own, and does not disturb a
// service that runs.
type TapCommand struct {
	Config    string   `short:"c" required:"" help:"Configuration file." type:"path" placeholder:"FILE"`
	Source    string   `help:"Name of the source in the configuration; without it the first one of aes."`
	Extension []string `help:"Extension to listen to; may be given several times. Without it the first 20 of the directory."`
	Numbers   bool     `help:"Print the numbers of other parties whole."`
	Format    string   `enum:"text,json" default:"text" help:"text, or json: an object in each line."`
}

// tapped is how many extensions of the directory are listened to.
const tapped = 20

// Run implements the command. It ends with ctx, which is no error.
func (c *TapCommand) Run(ctx context.Context, term *Terminal) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	source, err := cfg.aesNamed(c.Source)
	if err != nil {
		return err
	}
	extensions := c.Extension
	if len(extensions) == 0 {
		people, err := readPeople(ctx, cfg, "", term)
		if err != nil {
			return err
		}
		all := values(people.Subjects("tel"))
		if extensions = all[:min(tapped, len(all))]; len(extensions) == 0 {
			return errors.New("nobody in the directory has an extension; name one with --extension")
		}
	}
	q, err := aes.Inquire(ctx, source)
	if err != nil {
		return err
	}
	defer q.Close()
	refused := q.Examine(ctx, extensions)
	for _, err := range refused {
		fmt.Fprintln(term.Err, err)
	}
	if len(refused) >= len(extensions) || ctx.Err() != nil {
		return errors.New("no extension can be listened to")
	}
	fmt.Fprintf(term.Err, "listening to %d extensions of %s\n", len(extensions)-len(refused), source.Name)
	for {
		h, err := q.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if line, ok := c.line(h); ok {
			if _, err := fmt.Fprintln(term.Out, line); err != nil {
				return err
			}
		}
	}
}

// aesNamed gives the configuration of a source.
func (c *Config) aesNamed(name string) (aes.Config, error) {
	var known []string
	for _, s := range c.AES {
		if name == "" || s.Name == name {
			return s, nil
		}
		known = append(known, s.Name)
	}
	if len(known) == 0 {
		return aes.Config{}, errors.New("the configuration names no aes server")
	}
	return aes.Config{}, fmt.Errorf("no aes server is named %q; there are %s", name, strings.Join(known, ", "))
}

// A tapLine is what is printed of an event.
type tapLine struct {
	Time      time.Time `json:"time"`
	Extension string    `json:"extension,omitempty"`
	Event     string    `json:"event"`
	Call      string    `json:"call,omitempty"`
	State     string    `json:"state,omitempty"`   // of the extension in the call; none: AES does not tell
	Device    string    `json:"device,omitempty"`  // who acts, or to whom it happens
	Calling   string    `json:"calling,omitempty"` // numbers are masked unless asked for
	Called    string    `json:"called,omitempty"`
	Parties   []string  `json:"parties,omitempty"`
	Cause     string    `json:"cause,omitempty"`
}

func (c *TapCommand) line(h aes.Heard) (line string, ok bool) {
	l := tapLine{Time: h.At.UTC(), Extension: h.Extension}
	number := func(id string) string { return c.number(id, h.Extension) }
	switch m := h.Message.(type) {
	case *csta.CallEvent:
		l.Event, l.Call, l.State, l.Cause = m.Kind.String(), clean(m.Connection.CallID), clean(string(m.Local)), clean(m.Cause)
		l.Device, l.Calling, l.Called = number(m.Device), number(m.Calling), number(m.Called)
		if l.Call == "" && len(m.Parties) > 0 {
			l.Call = clean(m.Parties[0].New.CallID)
		}
		for _, p := range m.Parties {
			id := p.New.DeviceID
			if id == "" {
				id = p.Endpoint
			}
			l.Parties = append(l.Parties, number(id))
		}
	case *csta.DoNotDisturbEvent:
		l.Event, l.State = "DoNotDisturb", onOff(m.On)
	case *csta.ForwardingEvent:
		l.Event, l.State, l.Cause = "Forwarding", onOff(m.On), clean(m.Type)
	case *csta.ServiceEvent:
		l.Event = clean(strings.TrimSuffix(m.XMLName.Local, "Event"))
	case *csta.RegistrationEvent:
		l.Event, l.Cause = clean(strings.TrimSuffix(m.XMLName.Local, "Event")), clean(m.Dependency)
	case *csta.MonitorStopped:
		l.Event = "MonitorStop"
	case *csta.SystemStatus:
		l.Event, l.State = "SystemStatus", clean(m.Status)
	case *csta.Other:
		l.Event = clean(m.XMLName.Local)
	case nil:
		l.Event = "malformed: " + clean(h.Err.Error())
	default:
		return "", false
	}
	if c.Format == "json" {
		data, err := json.Marshal(l)
		return string(data), err == nil
	}
	return l.text(), true
}

// text gives the line: time, extension, event, call, state, who calls whom, who acts, why.
func (l *tapLine) text() string {
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s  %-8s %-18s call %-6s %-10s", l.Time.Local().Format("15:04:05.000"), or(l.Extension), l.Event, or(l.Call), or(l.State))
	for _, more := range []struct{ word, value string }{
		{"from", l.Calling}, {"to", l.Called}, {"by", l.Device}, {"with", strings.Join(l.Parties, ",")}, {"because", l.Cause},
	} {
		if more.value != "" {
			fmt.Fprintf(&out, " %s %s", more.word, more.value)
		}
	}
	return strings.TrimRight(out.String(), " ")
}

func onOff(f csta.Flag) string { return [...]string{csta.Unset: "", csta.No: "off", csta.Yes: "on"}[f] }

// number gives the number in a device ID: masked, unless numbers were asked for or it
// is the extension that is listened to.
func (c *TapCommand) number(id, own string) string {
	n, _, _ := strings.Cut(id, ":")
	if n = clean(n); n == own || c.Numbers || strings.HasPrefix(n, "T") { // a trunk member is nobody's number
		return n
	}
	return masked(n)
}

// masked gives a number of which two digits are left, or half of a short one.
func masked(n string) string {
	keep := min(2, len(n)/2)
	return n[:keep] + strings.Repeat("x", len(n)-keep)
}

// clean makes printable, and bounds, what a server sent.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 100)]
}
