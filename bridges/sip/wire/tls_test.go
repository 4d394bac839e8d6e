package wire_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/sip/wire"
	"presenced/internal/trust"
)

// authority signs certificates for a test.
type authority struct {
	dir, file string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.file, _ = a.issue(t, "ca", nil)
	return a
}

// issue writes a certificate for a DNS name and a SIP domain, and its key.
func (a *authority) issue(t *testing.T, name string, domain *url.URL) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: a.cert == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, DNSNames: []string{name},
	}
	if domain != nil {
		template.URIs = []*url.URL{domain}
	}
	if a.cert == nil {
		a.cert, a.key = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(file, kind string, data []byte) string {
		path := filepath.Join(a.dir, name+file)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write(".pem", "CERTIFICATE", der), write(".key", "PRIVATE KEY", private)
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	certify := func(name, domain string) trust.Config {
		cert, key := ca.issue(t, name, &url.URL{Scheme: "sip", Opaque: domain})
		return trust.Config{CAFile: ca.file, CertFile: cert, KeyFile: key, MinVersion: "1.2"}
	}
	peers := make(chan []string, 2)
	cfg := loose()
	cfg.Listen, cfg.ClientCertificates, cfg.TLS = []string{"tls:127.0.0.1:0"}, "required", certify("server.test", "example.test")
	server := start(t, cfg, wire.App{Handle: func(r *wire.Request) { peers <- r.Peer(); ok(r) }})
	at := server.flows[0].Local
	cfg = loose()
	cfg.TLS = certify("client.test", "other.test")
	client := start(t, cfg, wire.App{Handle: ok})
	if a := ask(t, client, wire.FlowTo(wire.TLS, at, "server.test"), request(t, "NOTIFY", nil)); a.code != 200 {
		t.Fatalf("%+v", a)
	}
	if p := <-peers; strings.Join(p, " ") != "other.test client.test" {
		t.Errorf("the peer is %q", p)
	}
	if a := ask(t, client, wire.FlowTo(wire.TLS, at, "wrong.test"), request(t, "NOTIFY", nil)); !errors.Is(a.err, wire.ErrFlow) {
		t.Errorf("a server of another name: %+v", a)
	}
	// Without a certificate, and with one of another authority, nothing is handled.
	other := newAuthority(t)
	cert, key := other.issue(t, "client.test", nil)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, certificates := range [][]tls.Certificate{nil, {pair}} {
		c, err := tls.Dial("tcp", at.String(), &tls.Config{InsecureSkipVerify: true, Certificates: certificates})
		if err != nil {
			continue
		}
		_, _ = c.Write([]byte(publish("a", 1, "TLS")))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("an answer to a stranger")
		}
		_ = c.Close()
	}
	for server.Status().Problems["TLS handshakes failed"] < 3 {
		runtime.Gosched()
	}
	if len(peers) > 0 {
		t.Errorf("%d requests of strangers", len(peers))
	}
}

func TestRunFails(t *testing.T) {
	t.Parallel()
	w := start(t, loose(), wire.App{Handle: ok})
	cfg := loose()
	cfg.Listen = []string{"udp:127.0.0.1:0", "tcp:" + w.tcp.String()}
	err := wire.New(cfg, wire.App{}, slog.New(slog.DiscardHandler)).Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "cannot listen on tcp:"+w.tcp.String()) || presence.IsPermanent(err) {
		t.Errorf("a port that is taken: %v", err)
	}
	cfg = loose()
	cfg.TLS.CAFile = "/nowhere.pem"
	if err := wire.New(cfg, wire.App{}, slog.New(slog.DiscardHandler)).Run(context.Background()); !presence.IsPermanent(err) {
		t.Errorf("no certificate: %v", err)
	}
}
