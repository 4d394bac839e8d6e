package lps

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// A passwords holds the accounts of a file, and asks another source for those that
// are not in it. The file has lines user:realm:HA1, as htdigest writes them: 32
// hexadecimal digits of MD5 or 64 of SHA-256; a user may have both. Empty lines and
// lines that begin with # count for nothing.
type passwords struct {
	file  string
	other Accounts // nil: there is none
	log   *slog.Logger

	byUser atomic.Pointer[map[account]string]
	seen   os.FileInfo // as it was read
}

type account struct{ user, realm, algorithm string }

const (
	maxAccounts   = 64 << 20 // bytes of the file
	accountsAgain = 10 * time.Second
)

// HA1 implements Accounts.
func (p *passwords) HA1(user, realm, algorithm string) (string, bool) {
	if all := p.byUser.Load(); all != nil {
		if ha1, ok := (*all)[account{user, realm, algorithm}]; ok {
			return ha1, true
		}
	}
	if p.other == nil {
		return "", false
	}
	return p.other.HA1(user, realm, algorithm)
}

// read reads the file, unless it is as it was.
func (p *passwords) read() error {
	if p.file == "" {
		return nil
	}
	f, err := os.Open(p.file)
	if err != nil {
		return fmt.Errorf("accounts: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("accounts: %w", err)
	}
	if p.seen != nil && os.SameFile(info, p.seen) && info.ModTime().Equal(p.seen.ModTime()) && info.Size() == p.seen.Size() {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, maxAccounts+1))
	if err != nil {
		return fmt.Errorf("accounts: %w", err)
	}
	if len(data) > maxAccounts {
		return fmt.Errorf("accounts: %s is larger than %d bytes", p.file, maxAccounts)
	}
	all, err := parseAccounts(string(data))
	if err != nil {
		return fmt.Errorf("accounts: %s: %w", p.file, err)
	}
	p.byUser.Store(&all)
	p.seen = info
	return nil
}

// parseAccounts reads the lines of the file. No error quotes a line.
func parseAccounts(text string) (map[account]string, error) {
	all := map[account]string{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		part := strings.Split(line, ":")
		if len(part) != 3 || part[0] == "" || part[1] == "" {
			return nil, fmt.Errorf("line %d is not user:realm:HA1", n)
		}
		algorithm := map[int]string{32: algorithmMD5, 64: algorithmSHA256}[len(part[2])]
		ha1 := strings.ToLower(part[2])
		if algorithm == "" || strings.Trim(ha1, "0123456789abcdef") != "" {
			return nil, fmt.Errorf("line %d: the HA1 is neither 32 hexadecimal digits (MD5) nor 64 (SHA-256)", n)
		}
		all[account{part[0], part[1], algorithm}] = ha1
	}
	return all, nil
}

// follow reads the file again when it changes, until ctx ends. What cannot be read
// leaves the accounts as they are.
func (p *passwords) follow(ctx context.Context) error {
	tick := time.NewTicker(accountsAgain)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		switch err := p.read(); {
		case err == nil:
			told = ""
		case err.Error() != told:
			told = err.Error()
			p.log.Warn("The accounts cannot be read again; those read before stay", "error", err)
		}
	}
}
