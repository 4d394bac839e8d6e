package sip

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"presenced/bridges/sip/digest"
	"presenced/bridges/sip/entity"
	"presenced/bridges/sip/lookup"
)

// A Finding is what the trial of one presence server came to.
type Finding struct {
	Address string `json:"address"`
	Works   bool   `json:"works"`
	Words   string `json:"words"` // what is wrong, and what to do; or how far it was tried
}

// trialTime is how long a trial may take.
const trialTime = 12 * time.Second

// Try connects to the servers of cfg, which must be without problems, and asks each
// whether it takes publications: by OPTIONS, then by refreshing a publication that
// does not exist (RFC 3903 section 6: 412), which needs the credentials and changes
// nothing. It takes twelve seconds at most.
func Try(ctx context.Context, cfg Config, log *slog.Logger) []Finding {
	tameLibrary()
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	w := way{transport: cfg.Transport, tls: cfg.TLS, user: cfg.User}
	var unread error
	if cfg.User != "" {
		w.password, unread = cfg.PasswordFile.Read()
	}
	addresses := []string{cfg.Address}
	if cfg.Secondary != "" {
		addresses = append(addresses, cfg.Secondary)
	}
	found := make([]Finding, len(addresses))
	var group sync.WaitGroup
	for i, address := range addresses {
		group.Go(func() {
			f := Finding{Address: address, Works: true, Words: "answers, and takes publications"}
			err := unread
			if err == nil {
				err = w.try(ctx, address, cfg.Entity, log)
			}
			if err != nil {
				f.Works, f.Words = false, err.Error()
			}
			found[i] = f
		})
	}
	group.Wait()
	return found
}

// try gives what is wrong with the server at address; nil: nothing.
func (w *way) try(ctx context.Context, address, template string, log *slog.Logger) error {
	targets, err := lookup.New().Find(ctx, address, w.transport)
	if err != nil {
		return fmt.Errorf("the name cannot be resolved: %w", err)
	}
	var errs []error
	for _, to := range targets {
		err := w.tryTarget(ctx, address, to, template, log)
		if err == nil {
			return nil
		}
		if len(targets) > 1 {
			err = fmt.Errorf("%s %s: %w", to.Transport, to.At, err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (w *way) tryTarget(ctx context.Context, address string, to lookup.Target, template string, log *slog.Logger) error {
	if err := w.connects(ctx, address, to); err != nil {
		return err
	}
	l, err := w.open(ctx, address, to, log, func(string) {})
	if err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	defer l.close()
	if err := l.options(ctx); err != nil {
		return fmt.Errorf("nothing answers OPTIONS by %s: %w; is a SIP server there, and does it take requests from this machine?", to.Transport, err)
	}
	uri, err := parseURI(entity.Sample(template, "presenced-trial"))
	if err != nil { // the placeholder is the whole address, or its host
		uri = sip.Uri{Scheme: "sip", User: "presenced-trial", Host: l.host()}
	}
	r := request{op: opRefresh, tag: rand.Text(), expires: 10 * time.Minute}
	res, err := l.publish(ctx, uri, r, nil)
	if err == nil && res.challenge != nil && w.user != "" {
		name, value, wrong := res.challenge.Respond(w.user, w.password, "PUBLISH", uri.String())
		if wrong != nil {
			return fmt.Errorf("the challenge of the server cannot be answered: %w", wrong)
		}
		res, err = l.publish(ctx, uri, r, sip.NewHeader(name, value))
	}
	switch {
	case err != nil:
		return fmt.Errorf("it answers OPTIONS, but not PUBLISH: %w", err)
	case res.code == 401 || res.code == 407:
		return errors.New(digest.Denial(w.user, res.challenge))
	case res.code == 405 || res.code == 489 || res.code == 501:
		return fmt.Errorf("it answers PUBLISH with %d: it is no presence server", res.code)
	case res.code == 403:
		return errors.New("it answers PUBLISH with 403: this machine, or the user, may not publish there")
	case res.code > 500: // 500 is what some say instead of 412
		return fmt.Errorf("it answers PUBLISH with %d: it does not work at the moment", res.code)
	}
	return nil // 412, or what else it says of this address
}

// connects makes a connection, where the transport has any, to name what is wrong with it.
func (w *way) connects(ctx context.Context, address string, to lookup.Target) error {
	if to.Transport == "udp" {
		return nil
	}
	host, _, err := lookup.SplitAddress(address)
	if err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", to.At.String())
	if err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	defer conn.Close()
	if to.Transport == "tcp" {
		return nil
	}
	trusted, err := w.tls.Client(host)
	if err != nil {
		return err
	}
	err = tls.Client(conn, trusted).HandshakeContext(ctx)
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Errorf("the certificate is not for %s but for %s: correct the host, or say it in tls.server_name",
			wrong.Host, strings.Join(wrong.Certificate.DNSNames, ", "))
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("nobody known vouches for the certificate (%w): name the authority in tls.ca_file", err)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, io.EOF) {
		return fmt.Errorf("there is no TLS at this port (%w): correct port or transport", err)
	}
	if err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	return nil
}
