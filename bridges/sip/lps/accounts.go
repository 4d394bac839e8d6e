package lps

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"presenced/internal/htdigest"
)

// A passwords holds the accounts of a file, and asks another source for those that
// are not in it.
type passwords struct {
	file  string
	other Accounts // nil: there is none
	log   *slog.Logger

	byUser atomic.Pointer[htdigest.Accounts]
	seen   os.FileInfo // as it was read
}

const (
	maxAccounts   = 64 << 20 // bytes of the file
	accountsAgain = 10 * time.Second
)

// HA1 implements Accounts.
func (p *passwords) HA1(user, realm, algorithm string) (string, bool) {
	if all := p.byUser.Load(); all != nil {
		if ha1, ok := all.HA1(user, realm, algorithm); ok {
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
	all, err := htdigest.Parse(string(data))
	if err != nil {
		return fmt.Errorf("accounts: %s: %w", p.file, err)
	}
	p.byUser.Store(&all)
	p.seen = info
	return nil
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
