// Package certificate is what a server shows to browsers: a certificate of the
// administrator's, or one that the service signs itself. It is read again when it
// changes, so that a renewal needs no restart.
package certificate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"presenced/internal/config"
)

// Config is the section web.tls of the configuration.
type Config struct {
	CertFile   string   `yaml:"cert_file" doc:"PEM file with the certificate of the page, and those that lead to its authority. It is read again when it changes."`
	KeyFile    string   `yaml:"key_file" doc:"PEM file with the key of cert_file."`
	SelfSigned bool     `yaml:"self_signed" default:"false" doc:"Make a certificate that browsers warn of, and keep it in the folder of the store; it is renewed each year."`
	Names      []string `yaml:"names" default:"localhost" doc:"Host names and addresses that the self-signed certificate is for."`
}

// DefaultConfig gives the section of an installation that nobody configured.
func DefaultConfig() Config { return Config{Names: []string{"localhost"}} }

// Enabled tells whether c asks for TLS.
func (c *Config) Enabled() bool { return c.SelfSigned || c.CertFile != "" || c.KeyFile != "" }

// Check tells what is wrong with c, without opening a file.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	if (c.CertFile == "") != (c.KeyFile == "") {
		ps = append(ps, config.Wrong("cert_file", "cert_file and key_file go together"))
	}
	if c.SelfSigned && c.CertFile != "" {
		ps = append(ps, config.Wrong("self_signed", "has no effect beside cert_file; leave out one of them"))
	}
	if c.SelfSigned && (len(c.Names) == 0 || slices.Contains(c.Names, "")) {
		ps = append(ps, config.Wrong("names", "names the host that browsers ask for, such as presence.example.com"))
	}
	return ps
}

const (
	selfLife  = 365 * 24 * time.Hour
	selfRenew = 30 * 24 * time.Hour // before its end
	selfFile  = "web-selfsigned.pem"
	lookAgain = 10 * time.Second
)

// A Source gives the certificate that is right now. Make one with New.
type Source struct {
	cfg Config
	dir string
	log *slog.Logger

	mu     sync.Mutex
	now    *tls.Certificate
	stamp  []os.FileInfo // of the files that now was read from
	looked time.Time
}

// same tells whether two looks at a file found the same one, unchanged. The identity counts
// too: a file that is replaced within a tick of the clock has the time of the one before.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// New reads the certificate of a configuration that is Enabled and has passed Check,
// or makes one in dir. It fails if there is none that works.
func New(cfg Config, dir string, log *slog.Logger) (*Source, error) {
	s := &Source{cfg: cfg, dir: dir, log: log}
	if err := s.read(time.Now()); err != nil {
		return nil, err
	}
	return s, nil
}

// TLS gives settings for a server. Handshakes look at the files now and then.
func (s *Source) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return s.get(hello.Context()), nil },
	}
}

// Expires says until when the certificate is valid.
func (s *Source) Expires() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.Leaf.NotAfter
}

// Name gives a host name that the certificate is for; empty: it names none.
func (s *Source) Name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch leaf := s.now.Leaf; {
	case len(leaf.DNSNames) > 0:
		return leaf.DNSNames[0]
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String()
	default:
		return ""
	}
}

// get gives the certificate; what cannot be read leaves the one before.
func (s *Source) get(ctx context.Context) *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.looked) >= lookAgain {
		if err := s.read(now); err != nil {
			s.log.ErrorContext(ctx, "the certificate of the page cannot be read again; the one before stays", "until", s.now.Leaf.NotAfter, "error", err)
		}
	}
	return s.now
}

// read takes the certificate over if the files are not those it came from.
func (s *Source) read(now time.Time) error {
	s.looked = now
	if s.cfg.SelfSigned {
		if err := s.renew(now); err != nil {
			return err
		}
	}
	certFile, keyFile := s.files()
	var stamps []os.FileInfo
	for _, file := range []string{certFile, keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			return fmt.Errorf("web.tls: %w", err)
		}
		stamps = append(stamps, info)
	}
	if s.now != nil && slices.EqualFunc(stamps, s.stamp, same) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return fmt.Errorf("web.tls: %w", err)
	}
	if now.After(pair.Leaf.NotAfter) {
		s.log.Warn("the certificate of the page is over", "file", certFile, "since", pair.Leaf.NotAfter) //nolint:sloglint // there is no context
	}
	s.now, s.stamp = &pair, stamps
	return nil
}

func (s *Source) files() (certFile, keyFile string) {
	if s.cfg.SelfSigned {
		file := filepath.Join(s.dir, selfFile)
		return file, file
	}
	return s.cfg.CertFile, s.cfg.KeyFile
}

// renew makes a certificate unless there is one for the names that lasts.
func (s *Source) renew(now time.Time) error {
	file, _ := s.files()
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the self-signed certificate cannot be read, and is made anew", "file", file, "error", err)
	}
	if err == nil && pair.Leaf.NotAfter.Sub(now) > selfRenew && s.fits(pair.Leaf) {
		return nil
	}
	data, err := s.sign(now)
	if err != nil {
		return fmt.Errorf("web.tls: make a certificate: %w", err)
	}
	next := file + ".new"
	if err := errors.Join(os.WriteFile(next, data, 0o600), os.Rename(next, file)); err != nil {
		return fmt.Errorf("web.tls: keep the self-signed certificate: %w", err)
	}
	return nil
}

func (s *Source) fits(leaf *x509.Certificate) bool {
	return !slices.ContainsFunc(s.cfg.Names, func(name string) bool { return leaf.VerifyHostname(name) != nil })
}

// sign makes a key and a certificate for it, as PEM.
func (s *Source) sign(now time.Time) ([]byte, error) {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.cfg.Names[0]},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, name := range s.cfg.Names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, secret.Public(), secret)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = errors.Join(pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	return out.Bytes(), err
}
