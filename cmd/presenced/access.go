package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"presenced/aggregator/access"
	"presenced/aggregator/presence"
	"presenced/bridges/web/api"
)

// AccessCommand is about who sees what of whom, in a running service.
type AccessCommand struct {
	List     AccessListCommand     `cmd:"" help:"List the rules."`
	Set      AccessSetCommand      `cmd:"" help:"Set a rule; answers when it is durable."`
	Clear    AccessClearCommand    `cmd:"" help:"Remove a rule."`
	Watchers AccessWatchersCommand `cmd:"" help:"Say who watches somebody now."`
	Pending  AccessPendingCommand  `cmd:"" help:"Say who waits to be let in."`
	Allow    AccessAllowCommand    `cmd:"" help:"Let a watcher in."`
	Deny     AccessDenyCommand     `cmd:"" help:"Block a watcher."`
	Revoke   AccessRevokeCommand   `cmd:"" help:"Take away what a watcher sees: their own rule goes, or one that blocks them takes its place."`
	Privacy  AccessPrivacyCommand  `cmd:"" help:"Set how much of somebody's calendar others see."`
	OptIn    AccessOptInCommand    `cmd:"" help:"Have somebody shown, where nobody is before they opted in (access.opt_in)."`
	OptOut   AccessOptOutCommand   `cmd:"" help:"The opposite of opt-in."`
	Forget   AccessForgetCommand   `cmd:"" help:"Remove everything that was set of somebody, readable or not."`
	Test     AccessTestCommand     `cmd:"" help:"Say what a watcher sees of somebody, by which rule, and which rules it beats."`
}

// An Of is whom a rule is about.
type Of struct {
	Of       string `xor:"of" required:"" help:"Identifier of the person whom the rule is about."`
	Everyone bool   `xor:"of" required:"" help:"The rule is about everybody."`
}

// person gives the identifier; empty: everybody, which nobody means by an empty text.
func (o *Of) person() (presence.ID, error) {
	if o.Of == "" && !o.Everyone {
		return "", errors.New("--of names nobody; want the identifier of a person, or --everyone")
	}
	return presence.ID(o.Of), nil
}

// An AudienceOf is whom a rule is for.
type AudienceOf struct {
	Watcher string `xor:"for" required:"" help:"One watcher: an address such as jid:bob@example.com, or the identifier of a person, by any address."`
	Group   string `xor:"for" required:"" help:"The members of a group of the directory."`
	Domain  string `xor:"for" required:"" help:"Everybody whose address has this behind the @."`
	Default bool   `xor:"for" required:"" help:"Everybody for whom there is no other rule."`
}

func (a *AudienceOf) audience() (*access.Audience, error) {
	switch {
	case a.Watcher != "":
		s, err := access.ParseWatcher(a.Watcher)
		if err != nil {
			return nil, err
		}
		only := access.Only(s)
		return &only, nil
	case a.Group != "":
		return &access.Audience{Kind: access.ForGroup, Name: a.Group}, nil
	case a.Domain != "":
		return &access.Audience{Kind: access.ForDomain, Name: a.Domain}, nil
	case a.Default:
		return &access.Audience{Kind: access.ForDefault}, nil
	default:
		return nil, errors.New("--watcher, --group and --domain want a name; --default is for everybody else")
	}
}

// rule gives what a command is about.
func (a *AudienceOf) rule(of *Of) (accessChange, error) {
	id, err := of.person()
	if err != nil {
		return accessChange{}, err
	}
	audience, err := a.audience()
	return accessChange{Of: id, For: audience}, err
}

// AccessListCommand lists rules.
type AccessListCommand struct {
	Of    string `help:"Only what was set of this person."`
	Asked `embed:""`
}

// Run implements the command.
func (c *AccessListCommand) Run(ctx context.Context, term *Terminal) error {
	var all []access.Setting
	if err := c.ask(ctx, http.MethodGet, "/access?"+given(url.Values{"of": {c.Of}}), nil, &all); err != nil {
		return err
	}
	return c.print(term, all, func(t io.Writer) {
		fmt.Fprintln(t, "OF\tFOR\tSEES\tSET BY\tON")
		for _, s := range all {
			of := "everybody"
			if s.Of != "" {
				of = string(s.Of)
			}
			if s.Left {
				of += " (left the directory)"
			}
			if s.Broken {
				fmt.Fprintf(t, "%s\t\tcannot be read: nobody is shown; \"presenced access forget\" removes it\t\t\n", of)
			}
			for _, r := range s.Rules {
				sees := r.Level.String()
				if r.Urgent {
					sees += ", urgent"
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", of, r.For, sees, r.By, r.At.Local().Format("2006-01-02 15:04:05"))
			}
			if s.Calendar != nil {
				fmt.Fprintf(t, "%s\teverybody\tcalendar %s\t\t\n", of, s.Calendar)
			}
			if s.OptedIn {
				fmt.Fprintf(t, "%s\t\topted in\t\t\n", of)
			}
		}
	})
}

// AccessSetCommand sets a rule.
type AccessSetCommand struct {
	Of         `embed:""`
	AudienceOf `embed:""`
	Level      string `arg:"" enum:"block,confirm,telephony,status,full" help:"block, confirm, telephony, status or full."`
	Urgent     bool   `help:"They may interrupt a do-not-disturb."`
	Asked      `embed:""`
}

// Run implements the command.
func (c *AccessSetCommand) Run(ctx context.Context, term *Terminal) error {
	body, err := c.rule(&c.Of)
	if err != nil {
		return err
	}
	body.Level, body.Urgent = levelOf(c.Level), c.Urgent
	return c.change(ctx, term, "set", body)
}

// levelOf reads a level that the command line has checked.
func levelOf(text string) *presence.Level {
	var l presence.Level
	_ = l.UnmarshalText([]byte(text))
	return &l
}

// AccessClearCommand removes a rule.
type AccessClearCommand struct {
	Of         `embed:""`
	AudienceOf `embed:""`
	Asked      `embed:""`
}

// Run implements the command.
func (c *AccessClearCommand) Run(ctx context.Context, term *Terminal) error {
	body, err := c.rule(&c.Of)
	if err != nil {
		return err
	}
	return c.change(ctx, term, "clear", body)
}

// AccessWatchersCommand lists who watches.
type AccessWatchersCommand struct {
	Person string `arg:"" help:"Identifier of the person."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *AccessWatchersCommand) Run(ctx context.Context, term *Terminal) error {
	var all []access.Watching
	if err := c.ask(ctx, http.MethodGet, "/people/"+url.PathEscape(c.Person)+"/watchers", nil, &all); err != nil {
		return err
	}
	return c.print(term, all, func(t io.Writer) {
		fmt.Fprintln(t, "WATCHER\tVIA\tSINCE\tSEES")
		for _, w := range all {
			sees := w.Level.String()
			if w.Urgent {
				sees += ", urgent"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", w.Watcher, w.Via, w.Since.Local().Format("2006-01-02 15:04:05"), sees)
		}
	})
}

// AccessPendingCommand lists who waits.
type AccessPendingCommand struct {
	Person string `arg:"" optional:"" help:"Identifier of the person; without it, those who wait for anybody."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *AccessPendingCommand) Run(ctx context.Context, term *Terminal) error {
	var all []access.Pending
	if err := c.ask(ctx, http.MethodGet, "/access/pending?"+given(url.Values{"of": {c.Person}}), nil, &all); err != nil {
		return err
	}
	return c.print(term, all, func(t io.Writer) {
		fmt.Fprintln(t, "PERSON\tWATCHER\tVIA\tSINCE")
		for _, p := range all {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Of, p.Watcher, p.Via, p.Since.Local().Format("2006-01-02 15:04:05"))
		}
	})
}

// A WatcherOf is one watcher of one person.
type WatcherOf struct {
	Person  string `arg:"" help:"Identifier of the person."`
	Watcher string `arg:"" help:"An address such as jid:bob@example.com, or the identifier of a person."`
}

func (w *WatcherOf) body() accessChange {
	return accessChange{Of: presence.ID(w.Person), Watcher: w.Watcher}
}

// AccessAllowCommand lets a watcher in.
type AccessAllowCommand struct {
	WatcherOf `embed:""`
	Level     string `enum:"telephony,status,full" default:"full" help:"telephony, status or full."`
	Asked     `embed:""`
}

// Run implements the command.
func (c *AccessAllowCommand) Run(ctx context.Context, term *Terminal) error {
	body := c.body()
	body.Level = levelOf(c.Level)
	return c.change(ctx, term, "allow", body)
}

// AccessDenyCommand blocks a watcher.
type AccessDenyCommand struct {
	WatcherOf `embed:""`
	Asked     `embed:""`
}

// Run implements the command.
func (c *AccessDenyCommand) Run(ctx context.Context, term *Terminal) error {
	return c.change(ctx, term, "deny", c.body())
}

// AccessRevokeCommand takes away what a watcher sees.
type AccessRevokeCommand struct {
	WatcherOf `embed:""`
	Asked     `embed:""`
}

// Run implements the command.
func (c *AccessRevokeCommand) Run(ctx context.Context, term *Terminal) error {
	return c.change(ctx, term, "revoke", c.body())
}

// AccessPrivacyCommand sets calendar privacy.
type AccessPrivacyCommand struct {
	Person string `arg:"" help:"Identifier of the person."`
	Shown  string `arg:"" enum:"hidden,times,open" help:"hidden, times (free or busy, and when) or open (in a meeting, out of office)."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *AccessPrivacyCommand) Run(ctx context.Context, term *Terminal) error {
	var p presence.CalendarPrivacy
	_ = p.UnmarshalText([]byte(c.Shown)) // the command line has checked it
	return c.change(ctx, term, "privacy", accessChange{Of: presence.ID(c.Person), Calendar: &p})
}

// AccessOptInCommand has somebody shown.
type AccessOptInCommand struct {
	Person string `arg:"" help:"Identifier of the person."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *AccessOptInCommand) Run(ctx context.Context, term *Terminal) error {
	return c.change(ctx, term, "opt-in", accessChange{Of: presence.ID(c.Person)})
}

// AccessOptOutCommand has somebody shown no more.
type AccessOptOutCommand struct {
	Person string `arg:"" help:"Identifier of the person."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *AccessOptOutCommand) Run(ctx context.Context, term *Terminal) error {
	return c.change(ctx, term, "opt-out", accessChange{Of: presence.ID(c.Person)})
}

// AccessForgetCommand removes all that was set of a person, or the rules for everybody.
type AccessForgetCommand struct {
	Of    `embed:""`
	Asked `embed:""`
}

// Run implements the command.
func (c *AccessForgetCommand) Run(ctx context.Context, term *Terminal) error {
	of, err := c.person()
	if err != nil {
		return err
	}
	return c.change(ctx, term, "forget", map[string]presence.ID{"of": of}) // also where that is everybody
}

// AccessTestCommand explains what a watcher sees.
type AccessTestCommand struct {
	Watcher string `arg:"" help:"An address such as jid:bob@example.com, or the identifier of a person."`
	Person  string `arg:"" help:"Identifier of the person who is watched."`
	Asked   `embed:""`
}

// Run implements the command.
func (c *AccessTestCommand) Run(ctx context.Context, term *Terminal) error {
	var e access.Explanation
	if err := c.ask(ctx, http.MethodGet, "/access/test?"+url.Values{"watcher": {c.Watcher}, "of": {c.Person}}.Encode(), nil, &e); err != nil {
		return err
	}
	return c.print(term, e, func(t io.Writer) { fmt.Fprint(t, e.Text()) })
}

// An accessChange is the body of a change; what a verb does not need stays empty.
type accessChange struct {
	Of       presence.ID               `json:"of,omitempty"` // empty: everybody
	For      *access.Audience          `json:"for,omitempty"`
	Watcher  string                    `json:"watcher,omitempty"`
	Level    *presence.Level           `json:"level,omitempty"`
	Urgent   bool                      `json:"urgent,omitempty"`
	Calendar *presence.CalendarPrivacy `json:"calendar,omitempty"`
}

// change asks for a change of the access rules, and prints what came of it.
func (a *Asked) change(ctx context.Context, term *Terminal, verb string, body any) error {
	var done api.AccessDone
	if err := a.ask(ctx, http.MethodPost, "/access/"+verb, body, &done); err != nil {
		return err
	}
	return a.print(term, done, func(t io.Writer) {
		fmt.Fprintln(t, done.Done+": done")
		if done.Sees != nil {
			fmt.Fprint(t, done.Sees.Text())
		}
		if done.Note != "" {
			fmt.Fprintln(t, done.Note)
		}
	})
}
