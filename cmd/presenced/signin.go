package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator"
	"presenced/aggregator/audit"
	"presenced/aggregator/store"
	"presenced/bridges/web/api"
	"presenced/bridges/web/certificate"
	"presenced/bridges/web/signin"
)

// newFrontDoor makes what the page shows over TLS, and who signs people in; either is
// nil where the configuration has none of it.
func newFrontDoor(ctx context.Context, cfg *Config, kept *store.Store, hub *aggregator.Hub, trail *audit.Trail, log *slog.Logger) (*certificate.Source, *signin.Desk, error) {
	accounts, err := kept.Bucket(ctx, "accounts")
	if err != nil {
		return nil, nil, err
	}
	part := func(name string) signin.Memory { return accounts.Part(name).Memory(false) }
	return cfg.frontDoor(signin.Deps{
		Accounts: part("accounts"), Sessions: part("sessions"), Tokens: part("tokens"), People: hub,
		Audit: func(ctx context.Context, n signin.Note) error {
			return trail.Write(ctx, audit.Line{Who: n.Who, From: n.From, What: n.What, Whom: n.Whom, Detail: n.Detail})
		},
		Log: log.With("part", "signin"),
	})
}

// frontDoor completes deps by the configuration.
func (c *Config) frontDoor(deps signin.Deps) (shown *certificate.Source, desk *signin.Desk, err error) {
	name := "localhost"
	if c.Web.TLS.Enabled() {
		if shown, err = certificate.New(c.Web.TLS, c.Store.Directory, deps.Log); err != nil {
			return nil, nil, err
		}
		if named := shown.Name(); named != "" {
			name = named
		}
	}
	if !c.Web.SignIn.Offers() {
		return shown, nil, nil
	}
	deps.Mine, deps.Title, deps.Origin, deps.Loopback = "/me", c.Web.Title, c.Web.Origin(name), c.Web.Local()
	desk, err = signin.New(c.Web.SignIn, deps)
	return shown, desk, err
}

// hearAccounts takes what other machines change of accounts, sessions and tokens, until
// ctx ends.
func hearAccounts(ctx context.Context, kept *store.Store, desk *signin.Desk) error {
	if desk == nil {
		return nil
	}
	accounts, err := kept.Bucket(ctx, "accounts")
	if err != nil {
		return err
	}
	return desk.Hear(ctx, accounts.Part("accounts"), accounts.Part("sessions"), accounts.Part("tokens"))
}

// runDesk runs a desk, again and again where the store cannot be read, until ctx ends.
// tell gets the link for the first administrator while there is none.
func runDesk(ctx context.Context, desk *signin.Desk, tell func(link string), log *slog.Logger) error {
	if desk == nil {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-desk.Loaded():
		}
		switch link, err := desk.FirstLink(); {
		case err == nil:
			tell(link)
		case !errors.Is(err, signin.ErrAdministrator) && !errors.Is(err, signin.ErrNoLocal):
			log.ErrorContext(ctx, "there is no link for the first administrator", "error", err)
		}
		return nil
	})
	g.Go(func() error {
		for {
			err := desk.Run(ctx)
			if ctx.Err() != nil {
				return nil
			}
			log.ErrorContext(ctx, "nobody can sign in to the page yet", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(deskPause):
			}
		}
	})
	return g.Wait()
}

// deskPause is how long runDesk waits for the store to be there.
const deskPause = 5 * time.Second

// accounts gives who administers those who sign in, nil where nobody does.
func accounts(desk *signin.Desk) api.Accounts {
	if desk == nil {
		return nil
	}
	return desk
}
