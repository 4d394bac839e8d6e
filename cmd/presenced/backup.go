package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"presenced/aggregator/store"
)

// BackupCommand writes all that is durable into one file.
type BackupCommand struct {
	File   string `arg:"" help:"File to write; - is the standard output."`
	Config string `short:"c" required:"" help:"Configuration file." type:"path" placeholder:"FILE"`
}

// Run implements the command.
func (c *BackupCommand) Run(ctx context.Context, term *Terminal) error {
	kept, err := openStore(ctx, c.Config, term, false)
	if err != nil {
		return err
	}
	defer kept.Close()
	if c.File == "-" {
		h, err := kept.Backup(ctx, term.Out, "presenced "+version)
		if err != nil {
			return err
		}
		fmt.Fprintf(term.Err, "written: %s\n", counted(h))
		return nil
	}
	h, err := writeBackup(ctx, kept, c.File)
	if err != nil {
		return err
	}
	fmt.Fprintf(term.Out, "%s written: %s\n", c.File, counted(h))
	return nil
}

// writeBackup makes the file whole or not at all; only its owner may read it.
func writeBackup(ctx context.Context, kept *store.Store, file string) (h store.Header, err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return h, err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	defer f.Close()
	if h, err = kept.Backup(ctx, f, "presenced "+version); err != nil {
		return h, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return h, err
	}
	return h, os.Rename(f.Name(), file)
}

// RestoreCommand makes the store what it was at a backup.
type RestoreCommand struct {
	File   string `arg:"" help:"File that presenced backup wrote; - is the standard input."`
	Config string `short:"c" required:"" help:"Configuration file." type:"path" placeholder:"FILE"`
	Force  bool   `help:"Replace everything in a store that is not empty."`

	in io.Reader // instead of the standard input, for tests
}

// Run implements the command.
func (c *RestoreCommand) Run(ctx context.Context, term *Terminal) error {
	from, err := c.open()
	if err != nil {
		return err
	}
	defer from.Close()
	// A bad file must not even make a store.
	if _, err := store.CheckBackup(from); err != nil {
		return fmt.Errorf("%s: %w; nothing was changed", c.File, err)
	}
	kept, err := openStore(ctx, c.Config, term, true)
	if err != nil {
		return err
	}
	defer kept.Close()
	h, err := kept.Restore(ctx, from, c.Force)
	if errors.Is(err, store.ErrNotEmpty) {
		return fmt.Errorf("%w; --force replaces everything in it", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(term.Out, "restored from %s: %s\n", h.Created.Format("2006-01-02 15:04:05 MST"), counted(h))
	return nil
}

// open gives the file; what comes on the standard input is put into one, as it is read twice.
func (c *RestoreCommand) open() (*os.File, error) {
	if c.File != "-" {
		return os.Open(c.File)
	}
	f, err := os.CreateTemp("", "presenced-restore")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(f.Name()) // it lives as long as it is open
	in := c.in
	if in == nil {
		in = os.Stdin
	}
	if _, err := io.Copy(f, in); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openStore opens the store of a configuration, for a command instead of the service.
func openStore(ctx context.Context, file string, term *Terminal, create bool) (*store.Store, error) {
	cfg, err := loadConfig(file)
	if err != nil {
		return nil, err
	}
	if dir := cfg.Store.Directory; cfg.Store.URL == "" && !create {
		if _, err := os.Stat(filepath.Join(dir, "jetstream")); err != nil {
			return nil, fmt.Errorf("there is no store in %s: %w", dir, err)
		}
	}
	kept, err := store.Open(ctx, cfg.Store, cfg.Log.logger(term.Err).With("part", "store"))
	if errors.Is(err, store.ErrInUse) {
		return nil, fmt.Errorf("%w: stop the service, or copy from a cluster (store.url), which can be read while the service runs", err)
	}
	return kept, err
}

// counted tells how much a backup holds.
func counted(h store.Header) string {
	var parts []string
	total := 0
	for _, place := range slices.Sorted(maps.Keys(h.Counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", place, h.Counts[place]))
		total += h.Counts[place]
	}
	if len(parts) == 0 {
		return "0 values"
	}
	return fmt.Sprintf("%d values (%s)", total, strings.Join(parts, ", "))
}
