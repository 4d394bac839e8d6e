package lps

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/presence"
)

// TestTorture sends the messages of RFC 4475 as they are, and as SUBSCRIBE and
// PUBLISH, from an address that is believed, so that all of the service sees them:
// it answers others afterwards, nothing panics, and nobody is told anything.
func TestTorture(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/emiago/sipgo").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "sip/testdata/torture/*/*.dat"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	h := newHouse(t, func(c *Config) {
		c.Trusted = []string{"127.0.0.1"}
		c.Domains = []string{"example.test", "example.com", "example.net"}
	})
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, method := range []string{"", "SUBSCRIBE", "PUBLISH"} {
			text := string(data)
			if method != "" {
				for _, old := range []string{"INVITE", "OPTIONS", "REGISTER", "MESSAGE"} {
					text = strings.ReplaceAll(text, old, method)
				}
				text = strings.Replace(text, "\r\nCSeq", "\r\nEvent: presence\r\nCSeq", 1)
			}
			for _, network := range []string{"udp", "tcp"} {
				p := h.phone("carol", network)
				_, _ = io.WriteString(p.conn, text)
				_ = p.conn.Close()
			}
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		h.phone("carol", network).ask(200, "OPTIONS", "sip:example.test")
	}
	if s := h.Status(); s.Phase != presence.PhaseLive || s.Problems["panics"] > 0 {
		t.Errorf("%+v", s)
	}
}

// TestCertificate believes who has a certificate for an address that is served.
func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := certificate(t, dir, "ca", "", nil, nil)
	certificate(t, dir, "server", "", ca, caKey)
	certificate(t, dir, "alice", "sip:alice@example.test", ca, caKey)
	certificate(t, dir, "other", "sip:alice@example.org", ca, caKey)
	h := newHouse(t, func(c *Config) {
		c.Transport.Listen = []string{"tls:127.0.0.1:0"}
		c.Transport.ClientCertificates = "optional"
		c.Transport.TLS.CAFile, c.Transport.TLS.CertFile, c.Transport.TLS.KeyFile = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	})
	for name, code := range map[string]int{"alice": 200, "other": 401, "": 401} {
		cfg := &tls.Config{InsecureSkipVerify: true}
		if name != "" {
			pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
			if err != nil {
				t.Fatal(err)
			}
			cfg.Certificates = []tls.Certificate{pair}
		}
		c, err := tls.Dial("tcp", h.tcp, cfg)
		if err != nil {
			t.Fatal(err)
		}
		p := &phone{t: t, user: "alice", network: "tls", conn: c, in: bufio.NewReader(c)}
		p.ask(code, "PUBLISH", alice, presenceEvent, pidfBody(openPIDF))
		_ = c.Close()
	}
}

// certificate writes NAME.pem and NAME.key, signed by a CA, or a CA itself.
func certificate(t *testing.T, dir, name, uri string, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: ca == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = []*url.URL{u}
	}
	if ca == nil {
		ca, caKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c, key
}
