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
	"presenced/bridges/outbox"
	"presenced/bridges/webhook"
)

// receivers are the bridges to webhooks and MQTT brokers.
type receivers struct {
	hooks   []*webhook.Hook
	brokers []*mqtt.Publisher
}

// addReceivers has the webhooks and MQTT bridges of the configuration run, each on one
// machine: the receiver is told once.
func addReceivers(v *aggregator.Supervisor, cfg *Config, told *store.Bucket, gate presence.Gate, log *slog.Logger) *receivers {
	r := &receivers{}
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
	var dead []outbox.Letter
	if err := c.past(ctx, http.MethodGet, "/webhooks/"+url.PathEscape(c.Name)+"/dead", nil, &dead); err != nil {
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
	var done retryJSON
	path := "/webhooks/" + url.PathEscape(c.Name) + "/retry?" + url.Values{"person": {c.Person}}.Encode()
	if err := c.past(ctx, http.MethodPost, path, nil, &done); err != nil {
		return err
	}
	return c.print(term, done, func(t io.Writer) {
		fmt.Fprintf(t, "%s is tried again; dead letters among that: %d\n", c.Name, done.Letters)
	})
}

// retryJSON says how many dead letters are tried again.
type retryJSON struct {
	Letters int `json:"letters"`
}

// A webhookDesk administers webhooks over the control socket.
//
//	GET  /webhooks/{name}/dead              what was given up
//	POST /webhooks/{name}/retry?person=P    tries it again; P may be empty
type webhookDesk struct {
	hooks   []*webhook.Hook
	trail   *audit.Trail
	control *control
}

func (d *webhookDesk) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /webhooks/{name}/dead", func(w http.ResponseWriter, r *http.Request) {
		if h, ok := d.hook(w, r); ok {
			dead, err := h.Dead()
			d.answer(w, r, dead, err)
		}
	})
	mux.HandleFunc("POST /webhooks/{name}/retry", func(w http.ResponseWriter, r *http.Request) {
		by, ok := d.control.by(w, r)
		if !ok {
			return
		}
		h, ok := d.hook(w, r)
		if !ok {
			return
		}
		n, person := 0, presence.ID(r.URL.Query().Get("person"))
		line := audit.Line{Who: by.Who, From: by.From, What: "webhook retry", Whom: "webhook:" + h.Name(), Detail: string(person)}
		err := d.trail.Change(r.Context(), line, func(context.Context) error {
			var err error
			n, err = h.Retry(person)
			return err
		})
		d.answer(w, r, retryJSON{n}, err)
	})
}

// hook finds the webhook that a request is about.
func (d *webhookDesk) hook(w http.ResponseWriter, r *http.Request) (*webhook.Hook, bool) {
	name := r.PathValue("name")
	for _, h := range d.hooks {
		if h.Name() == name {
			return h, true
		}
	}
	d.control.answer(w, r, http.StatusNotFound, map[string]string{"error": fmt.Sprintf("no webhook of the configuration has the name %.100q", name)})
	return nil, false
}

func (d *webhookDesk) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		d.control.answer(w, r, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
		return
	}
	d.control.answer(w, r, http.StatusOK, v)
}
