package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/aggregator/store"
	"presenced/bridges/mqtt"
	"presenced/bridges/web"
	"presenced/bridges/web/api"
	"presenced/bridges/webhook"
)

// receivers are the bridges to webhooks and MQTT brokers.
type receivers struct {
	hooks   []*webhook.Hook
	brokers []*mqtt.Publisher
	trail   *audit.Trail
}

// addReceivers has the webhooks and MQTT bridges of the configuration run, each on one
// machine: the receiver is told once.
func addReceivers(v *aggregator.Supervisor, cfg *Config, told *store.Bucket, gate presence.Gate, trail *audit.Trail, log *slog.Logger) *receivers {
	r := &receivers{trail: trail}
	for _, c := range cfg.Webhooks {
		h := webhook.New(c, told.Part(c.Name), gate, log)
		v.AddJob(h)
		r.hooks = append(r.hooks, h)
	}
	for _, c := range cfg.MQTT {
		b := mqtt.New(c, gate, log)
		v.AddJob(b)
		r.brokers = append(r.brokers, b)
	}
	return r
}

// review has everybody looked at again: who is in which group changes no state.
func (r *receivers) review() {
	for _, h := range r.hooks {
		h.Review()
	}
	for _, b := range r.brokers {
		b.Review()
	}
}

// WebhookCommand is about the receivers of webhooks, in a running service.
type WebhookCommand struct {
	Dead  WebhookDeadCommand  `cmd:"" help:"List what was given up: of whom the receiver does not know the newest."`
	Retry WebhookRetryCommand `cmd:"" help:"Try that again, and a receiver that is left alone, or wanted nothing any more, at once."`
}

// WebhookDeadCommand lists dead letters.
type WebhookDeadCommand struct {
	Name  string `arg:"" help:"Name of the webhook."`
	Asked `embed:""`
}

// Run implements the command.
func (c *WebhookDeadCommand) Run(ctx context.Context, term *Terminal) error {
	var dead []api.Letter
	if err := c.ask(ctx, http.MethodGet, "/webhooks/"+url.PathEscape(c.Name)+"/dead", nil, &dead); err != nil {
		return err
	}
	return c.print(term, dead, func(t io.Writer) {
		fmt.Fprintln(t, "PERSON\tSINCE\tGIVEN UP\tTRIES\tWHY")
		for _, l := range dead {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", l.Person, l.Since.Local().Format(time.DateTime), l.At.Local().Format(time.DateTime), l.Tries, l.Why)
		}
	})
}

// WebhookRetryCommand tries dead letters again.
type WebhookRetryCommand struct {
	Name   string `arg:"" help:"Name of the webhook."`
	Person string `help:"Only what is about this person."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *WebhookRetryCommand) Run(ctx context.Context, term *Terminal) error {
	var done api.Retried
	if err := c.ask(ctx, http.MethodPost, "/webhooks/"+url.PathEscape(c.Name)+"/retry?"+given(url.Values{"person": {c.Person}}), nil, &done); err != nil {
		return err
	}
	return c.print(term, done, func(t io.Writer) {
		fmt.Fprintf(t, "%s is tried again; dead letters among that: %d\n", c.Name, done.Letters)
	})
}

// Dead implements api.Webhooks.
func (r *receivers) Dead(name string) ([]api.Letter, error) {
	h, err := r.hook(name)
	if err != nil {
		return nil, err
	}
	dead, err := h.Dead()
	out := make([]api.Letter, 0, len(dead))
	for _, l := range dead {
		out = append(out, api.Letter(l))
	}
	return out, err
}

// Retry implements api.Webhooks.
func (r *receivers) Retry(ctx context.Context, by audit.Actor, name string, person presence.ID) (n int, err error) {
	h, err := r.hook(name)
	if err != nil {
		return 0, err
	}
	line := audit.Line{Who: by.Who, From: by.From, What: "webhook retry", Whom: "webhook:" + name, Detail: string(person)}
	err = r.trail.Change(ctx, line, func(context.Context) error {
		n, err = h.Retry(person)
		return err
	})
	return n, err
}

// hook finds a webhook by its name.
func (r *receivers) hook(name string) (*webhook.Hook, error) {
	for _, h := range r.hooks {
		if h.Name() == name {
			return h, nil
		}
	}
	return nil, &web.Refusal{Code: http.StatusNotFound, Text: fmt.Sprintf("no webhook of the configuration has the name %.100q", name)}
}
