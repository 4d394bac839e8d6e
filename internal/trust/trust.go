// Package trust builds TLS client settings from a configuration: which
// authorities to believe, which name to expect, which certificate to show.
// Collectors, bridges and the directory use it alike.
package trust

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"presenced/internal/config"
)

// Config is the tls: section of anything that connects somewhere.
type Config struct {
	CAFile     string `yaml:"ca_file" doc:"PEM file with the certificate authorities to believe instead of the system's."`
	CertFile   string `yaml:"cert_file" doc:"PEM file with the client certificate to show."`
	KeyFile    string `yaml:"key_file" doc:"PEM file with the key of cert_file."`
	ServerName string `yaml:"server_name" doc:"Name to expect in the server's certificate instead of the host name of the address."`
	MinVersion string `yaml:"min_version" default:"1.2" doc:"Oldest TLS version to accept: 1.0, 1.1, 1.2 or 1.3."`
}

var versions = map[string]uint16{"": tls.VersionTLS12, "1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} //nolint:gochecknoglobals // a table, never changed

// Check tells what is wrong without opening a file.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	if (c.CertFile == "") != (c.KeyFile == "") {
		ps = append(ps, config.Wrong("cert_file", "cert_file and key_file go together"))
	}
	if _, ok := versions[c.MinVersion]; !ok {
		ps = append(ps, config.Wrong("min_version", "%q is none of 1.0, 1.1, 1.2, 1.3", c.MinVersion))
	}
	return ps
}

// Client reads the files and gives settings for connections to host, which may
// hold a port no longer.
func (c *Config) Client(host string) (*tls.Config, error) {
	out := &tls.Config{ServerName: host, MinVersion: versions[c.MinVersion]}
	if c.ServerName != "" {
		out.ServerName = c.ServerName
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: %s holds no certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
