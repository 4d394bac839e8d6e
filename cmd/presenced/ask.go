package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"presenced/internal/secret"
	"presenced/internal/trust"
)

// A Server is the running service that a command asks: over its control socket on
// this machine, or at the address of its API with a token.
type Server struct {
	Socket    string `default:"/run/presenced/control.sock" help:"Control socket of the running service, on this machine." type:"path"`
	URL       string `name:"url" env:"PRESENCED_URL" help:"Address of the page of the running service, such as https://presence.example.com; it is asked instead of the control socket."`
	TokenFile string `env:"PRESENCED_TOKEN_FILE" help:"File with an API token, for --url; without it, what anyone may is asked for." type:"path" placeholder:"FILE"`
	CAFile    string `name:"ca-file" env:"PRESENCED_CA_FILE" help:"PEM file with the certificate to believe for --url, instead of the authorities of the system." type:"path" placeholder:"FILE"`
}

// The longest answer that is read.
const maxAnswer = 64 << 20

// How long a command waits for the service.
const (
	askTime  = 20 * time.Second // longer than a change, or a trial of servers, may take
	pastTime = 5 * time.Minute  // for questions that read all that is remembered
)

// ask sends one request to the API and reads the answer into what into points to.
// body is sent as JSON, unless it is text.
func (s *Server) ask(ctx context.Context, method, path string, body, into any) error {
	return s.askFor(ctx, askTime, method, path, body, into)
}

// askFor is ask with the time that it may take.
func (s *Server) askFor(ctx context.Context, limit time.Duration, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	content, kind := []byte(nil), "application/json"
	switch body := body.(type) {
	case nil:
	case []byte:
		content, kind = body, "application/yaml"
	default:
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	base, transport, err := s.way()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, base+"/api"+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	if content != nil {
		req.Header.Set("Content-Type", kind)
	}
	if s.URL != "" && s.TokenFile != "" {
		token, err := secret.File(s.TokenFile).Read()
		if err != nil {
			return fmt.Errorf("--token-file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := transport.RoundTrip(req) // follows nothing: the token is for this server
	if err != nil {
		return s.unasked(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return s.unasked(err)
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		return s.refused(res, data)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s gives something else than an answer: %w", s.name(), err)
	}
	return nil
}

func (s *Server) name() string { return cmp.Or(s.URL, s.Socket) }

// way gives where the API is, and how to get there.
func (s *Server) way() (base string, transport *http.Transport, err error) {
	var dialer net.Dialer
	if s.URL == "" {
		return "http://presenced", &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", s.Socket)
		}}, nil
	}
	u, err := url.Parse(s.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", nil, fmt.Errorf("--url %s: want something like https://presence.example.com", s.URL)
	case u.Scheme == "http" && s.TokenFile != "" && !here(u.Hostname()):
		return "", nil, fmt.Errorf("--url %s: the token would cross the network in clear; want https", s.URL)
	}
	transport = &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext}
	if s.CAFile != "" {
		believe := trust.Config{CAFile: s.CAFile, MinVersion: "1.2"}
		if transport.TLSClientConfig, err = believe.Client(u.Hostname()); err != nil {
			return "", nil, fmt.Errorf("--ca-file: %w", err)
		}
	}
	return strings.TrimRight(s.URL, "/"), transport, nil
}

// here tells whether a host is this machine.
func here(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// refused makes an error of an answer that is none.
func (s *Server) refused(res *http.Response, data []byte) error {
	var problem struct {
		Detail string
		Errors []struct{ Message, Location string }
	}
	if json.Unmarshal(data, &problem) != nil || problem.Detail == "" {
		return fmt.Errorf("%s answers %s", s.name(), res.Status)
	}
	text := problem.Detail
	if len(problem.Errors) > 0 && text == "validation failed" { // they say it themselves
		text = ""
	}
	for _, e := range problem.Errors {
		if !strings.Contains(text, e.Message) {
			text = strings.TrimPrefix(text+"\n"+strings.TrimSpace(e.Location+" "+e.Message), "\n")
		}
	}
	if res.StatusCode == http.StatusUnauthorized && s.TokenFile == "" {
		text += ` (--token-file names a file with a token)`
	}
	return errors.New(text)
}

// unasked says what a failed request means: nothing, where there was no
// connection; else it may have been done.
func (s *Server) unasked(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		switch {
		case s.URL != "":
			return fmt.Errorf("is presenced running at %s? %w", s.URL, err)
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
			return fmt.Errorf("is presenced running, with control.socket %s? %w", s.Socket, err)
		case errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("only root and the group of %s may do this; others ask with --url: %w", s.Socket, err)
		}
		return err
	}
	return fmt.Errorf("there was no answer, so it is not certain whether it was done; see \"presenced explain\": %w", err)
}

// Asked is what questions to the service have.
type Asked struct {
	Format string `enum:"text,json" default:"text" help:"text or json."`
	Server `embed:""`
}

// print writes an answer as JSON, or as text, whose columns are aligned.
func (a *Asked) print(term *Terminal, answer any, text func(io.Writer)) error {
	if a.Format == "json" {
		return printJSON(term.Out, answer)
	}
	t := tabwriter.NewWriter(term.Out, 0, 0, 2, ' ', 0)
	text(t)
	return t.Flush()
}
