package certificate_test

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"presenced/bridges/web/certificate"
)

func open(t *testing.T, cfg certificate.Config, dir string) *certificate.Source {
	t.Helper()
	s, err := certificate.New(cfg, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func leaf(t *testing.T, s *certificate.Source) *x509.Certificate {
	t.Helper()
	c, err := s.TLS().GetCertificate(new(tls.ClientHelloInfo))
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

// The self-signed certificate stays over a restart, is made anew for other names and
// a month before its end, and nobody else can read its key.
func TestSelfSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cfg := certificate.Config{SelfSigned: true, Names: []string{"presence.test", "10.0.0.1"}}
		s := open(t, cfg, dir)
		first := leaf(t, s)
		for _, name := range cfg.Names {
			if err := first.VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
		info, err := os.Stat(filepath.Join(dir, "web-selfsigned.pem"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if !leaf(t, open(t, cfg, dir)).Equal(first) {
			t.Error("a restart made another one")
		}
		time.Sleep(330 * 24 * time.Hour)
		if !leaf(t, s).Equal(first) {
			t.Error("renewed with 35 days left")
		}
		time.Sleep(6 * 24 * time.Hour)
		second := leaf(t, s)
		if second.Equal(first) || second.NotAfter.Sub(first.NotAfter) < 300*24*time.Hour || !s.Expires().Equal(second.NotAfter) {
			t.Error("not renewed with 29 days left")
		}
		cfg.Names = []string{"other.test"}
		if leaf(t, open(t, cfg, dir)).VerifyHostname("other.test") != nil {
			t.Error("the certificate is for the names that were")
		}
	})
}

// A certificate that the administrator replaces is taken over; half of one is not.
func TestReload(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	first := leaf(t, open(t, certificate.Config{SelfSigned: true, Names: []string{"a.test"}}, dir))
	second := leaf(t, open(t, certificate.Config{SelfSigned: true, Names: []string{"longer.b.test"}}, other))
	file := filepath.Join(dir, "web-selfsigned.pem")
	replacement, err := os.ReadFile(filepath.Join(other, "web-selfsigned.pem"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := open(t, certificate.Config{CertFile: file, KeyFile: file}, "")
		if err := os.WriteFile(file, replacement[:100], 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !leaf(t, s).Equal(first) {
			t.Error("half a file took the certificate away")
		}
		if err := os.WriteFile(file, replacement, 0o600); err != nil {
			t.Fatal(err)
		}
		if !leaf(t, s).Equal(first) {
			t.Error("the files are looked at with every handshake")
		}
		time.Sleep(time.Minute)
		if !leaf(t, s).Equal(second) {
			t.Error("the new certificate was not taken over")
		}
	})
	if _, err := certificate.New(certificate.Config{CertFile: "/nowhere", KeyFile: "/nowhere"}, "", nil); err == nil {
		t.Error("no file, and no error")
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		cfg  certificate.Config
		want []string
	}{
		{certificate.Config{}, nil},
		{certificate.Config{CertFile: "a"}, []string{"cert_file"}},
		{certificate.Config{CertFile: "a", KeyFile: "b", SelfSigned: true, Names: []string{"x"}}, []string{"self_signed"}},
		{certificate.Config{SelfSigned: true}, []string{"names"}},
	} {
		var got []string
		for _, p := range c.cfg.Check() {
			got = append(got, p.Path)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.cfg, got, c.want)
		}
	}
}
