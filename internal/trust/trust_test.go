package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"presenced/internal/trust"
)

// identity writes a certificate for name, valid as its own authority, and its key.
func identity(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(file, kind string, data []byte) string {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", der)
}

// handshake connects a client with these settings to a server that has the
// certificate, and demands one of the client.
func handshake(t *testing.T, c trust.Config, certFile, keyFile string) error {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := c.Client("server.test")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = c.(*tls.Conn).Handshake()
			_ = c.Close()
		}
		served <- err
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), settings)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Join(err, <-served) // in TLS 1.3 the server refuses after the client is content
}

func TestClient(t *testing.T) {
	cert, key := identity(t, "server.test")
	mine, myKey := identity(t, "client.test")
	if err := handshake(t, trust.Config{CAFile: cert, CertFile: mine, KeyFile: myKey}, cert, key); err != nil {
		t.Errorf("with its authority and a client certificate: %v", err)
	}
	if err := handshake(t, trust.Config{CertFile: mine, KeyFile: myKey}, cert, key); err == nil {
		t.Error("an unknown authority was believed")
	}
	if err := handshake(t, trust.Config{CAFile: cert, ServerName: "other.test", CertFile: mine, KeyFile: myKey}, cert, key); err == nil {
		t.Error("a certificate for another name was believed")
	}
	if err := handshake(t, trust.Config{CAFile: cert}, cert, key); err == nil {
		t.Error("the server got no client certificate, and took it")
	}
}

func TestBadFiles(t *testing.T) {
	cert, _ := identity(t, "a")
	_, key := identity(t, "b")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]trust.Config{
		"no such file": {CAFile: "/nowhere.pem"}, "holds no certificate": {CAFile: empty}, "does not match": {CertFile: cert, KeyFile: key},
	} {
		if _, err := c.Client("x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	c := trust.Config{CertFile: "a", MinVersion: "0.9"}
	if ps := c.Check(); len(ps) != 2 || ps[0].Path != "cert_file" || ps[1].Path != "min_version" {
		t.Errorf("%+v", ps)
	}
	if ps := (&trust.Config{MinVersion: "1.0", CertFile: "a", KeyFile: "b"}).Check(); len(ps) != 0 {
		t.Errorf("%+v", ps)
	}
}
