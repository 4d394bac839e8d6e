package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A Header is the first line of a backup. The lines after it are entries, one JSON
// object each.
type Header struct {
	Format  string         `json:"format"`
	Version int            `json:"version"` // of the format
	Program string         `json:"program"` // that wrote it
	Created time.Time      `json:"created"`
	Counts  map[string]int `json:"counts"` // entries by bucket ("reports") and log ("log:journal")
	SHA256  string         `json:"sha256"` // of all that follows the header's line, in hexadecimal
}

// An entry is one value: of a key in a bucket, or the next one of a log.
type entry struct {
	Bucket string `json:"bucket,omitempty"`
	Log    string `json:"log,omitempty"`
	Key    string `json:"key"`
	Value  []byte `json:"value"` // in base64
}

const (
	backupFormat  = "presenced backup"
	backupVersion = 1
	maxLine       = 16 << 20 // a value is at most a mebibyte, or what a cluster allows
	logPart       = "log:"   // before the name of a log in Header.Counts
)

// The errors of a restore that changed nothing.
var (
	ErrBadBackup = errors.New("this is no complete backup")
	ErrNotEmpty  = errors.New("the store is not empty")
)

var entryKey = regexp.MustCompile(`^[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*$`) //nolint:gochecknoglobals // immutable

// place is the name of where e belongs, as in Header.Counts.
func (e *entry) place() string {
	if e.Log != "" {
		return logPart + e.Log
	}
	return e.Bucket
}

func (e *entry) check() error {
	switch {
	case (e.Bucket == "") == (e.Log == ""):
		return errors.New("an entry belongs to one bucket or one log")
	case !bucketName.MatchString(e.Bucket + e.Log):
		return fmt.Errorf("%.80q is no name for a bucket or log", e.Bucket+e.Log)
	case !entryKey.MatchString(e.Key):
		return fmt.Errorf("%.80q is no key", e.Key)
	}
	return nil
}

// Backup writes all that is durable to w: every bucket and log that the store has.
// Each bucket is read as it is at that moment; a service that writes meanwhile
// may make one newer than another. program is noted in the header.
func (s *Store) Backup(ctx context.Context, w io.Writer, program string) (Header, error) {
	h := Header{Format: backupFormat, Version: backupVersion, Program: program, Created: time.Now().UTC().Truncate(time.Second), Counts: map[string]int{}}
	body, err := os.CreateTemp("", "presenced-backup") // the header, which tells the checksum, stands before it
	if err != nil {
		return h, err
	}
	defer os.Remove(body.Name())
	defer body.Close()
	sum := sha256.New()
	buffered := bufio.NewWriter(io.MultiWriter(body, sum))
	enc := json.NewEncoder(buffered)
	if err := s.all(ctx, h.Counts, func(e entry) error { return enc.Encode(e) }); err != nil {
		return h, fmt.Errorf("backup: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return h, err
	}
	h.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return h, err
	}
	if err := json.NewEncoder(w).Encode(h); err != nil {
		return h, err
	}
	_, err = io.Copy(w, body)
	return h, err
}

// all gives every entry of the store, and counts them.
func (s *Store) all(ctx context.Context, counts map[string]int, each func(entry) error) error {
	names, err := s.names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		var one func() error
		if bucket, ok := strings.CutPrefix(name, "KV_"); ok {
			if s.expires(ctx, bucket) {
				continue
			}
			counts[bucket] = 0
			one = func() error {
				values, err := (&Bucket{store: s, name: bucket}).Load(ctx)
				for key, value := range values {
					if err == nil {
						err = each(entry{Bucket: bucket, Key: key, Value: value})
						counts[bucket]++
					}
				}
				return err
			}
		} else if log, ok := strings.CutPrefix(name, "LOG_"); ok {
			counts[logPart+log] = 0
			one = func() error {
				return s.readLog(ctx, log, func(key string, value []byte) error {
					counts[logPart+log]++
					return each(entry{Log: log, Key: key, Value: value})
				})
			}
		} else {
			continue // not ours
		}
		if err := one(); err != nil {
			return err
		}
	}
	return nil
}

// expires tells whether a bucket was opened by Expiring.
func (s *Store) expires(ctx context.Context, bucket string) bool {
	js, err := s.stream()
	if err != nil {
		return false
	}
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return false
	}
	status, err := kv.Status(ctx)
	return err == nil && status.TTL() > 0
}

// names gives the streams of all buckets and logs.
func (s *Store) names(ctx context.Context) ([]string, error) {
	js, err := s.stream()
	if err != nil {
		return nil, err
	}
	var all []string
	list := js.StreamNames(ctx)
	for name := range list.Name() {
		if strings.HasPrefix(name, "KV_") || strings.HasPrefix(name, "LOG_") {
			all = append(all, name)
		}
	}
	return all, list.Err()
}

// readLog gives the keys (as they stand in the subject) and values of a log, the oldest first.
func (s *Store) readLog(ctx context.Context, name string, each func(key string, value []byte) error) error {
	js, err := s.stream()
	if err != nil {
		return err
	}
	c, err := js.OrderedConsumer(ctx, "LOG_"+name, jetstream.OrderedConsumerConfig{InactiveThreshold: time.Minute})
	if err != nil {
		return err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	for left := info.NumPending; left > 0; {
		got, err := c.Fetch(int(min(left, pending)), jetstream.FetchMaxWait(quiet)) //nolint:gosec // at most pending
		if err != nil {
			return err
		}
		n := 0
		for m := range got.Messages() {
			n++
			left--
			if err := each(strings.TrimPrefix(m.Subject(), "log."+name+"."), m.Data()); err != nil {
				return err
			}
		}
		switch {
		case got.Error() != nil:
			return got.Error()
		case ctx.Err() != nil:
			return ctx.Err()
		case n == 0: // what was left grew too old meanwhile, or cannot be read
			return nil
		}
	}
	return nil
}

// readBackup gives the header and every entry. An error means that the file is not
// whole, or not a backup; entries were given before it was noticed.
func readBackup(r io.Reader, each func(entry) error) (Header, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrBadBackup, fmt.Sprintf(format, args...))
	}
	in := bufio.NewReaderSize(r, 64<<10)
	var h Header
	first, err := line(in)
	if err != nil {
		return h, bad("it has no header: %v", err)
	}
	if err := strict(first, &h); err != nil || h.Format != backupFormat {
		return h, bad("it does not begin with the header of one")
	}
	if h.Version != backupVersion {
		return h, bad("it has version %d, this program reads version %d", h.Version, backupVersion)
	}
	left := map[string]int{}
	total := 0
	for place, n := range h.Counts {
		if name := strings.TrimPrefix(place, logPart); n < 0 || !bucketName.MatchString(name) {
			return h, bad("its header counts %d in %.80q", n, place)
		}
		left[place] = n
		total += n
	}
	sum := sha256.New()
	for n := 1; ; n++ {
		text, err := line(in)
		if errors.Is(err, io.EOF) && len(text) == 0 {
			break
		}
		if err != nil {
			return h, bad("line %d: %v", n+1, err)
		}
		e, err := decodeEntry(text, sum)
		if err != nil {
			return h, bad("line %d: %v", n+1, err)
		}
		if left[e.place()]--; left[e.place()] < 0 {
			return h, bad("line %d: more of %s than its header counts", n+1, e.place())
		}
		total--
		if err := each(e); err != nil {
			return h, err
		}
	}
	if total != 0 {
		return h, bad("%d values are missing at its end", total)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != h.SHA256 {
		return h, bad("the checksum does not match")
	}
	return h, nil
}

func decodeEntry(text []byte, sum hash.Hash) (e entry, err error) {
	_, _ = sum.Write(text)
	if err := strict(text, &e); err != nil {
		return e, errors.New("it is damaged")
	}
	return e, e.check()
}

// strict decodes one object that has no unknown members.
func strict(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// line gives the next line with its end; the last one must have one too.
func line(in *bufio.Reader) ([]byte, error) {
	var text []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(text)+len(part) > maxLine {
			return nil, fmt.Errorf("longer than %d bytes", maxLine)
		}
		text = append(text, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(text) > 0:
			return nil, errors.New("it is cut off")
		default:
			return text, err
		}
	}
}

// CheckBackup reads the whole of r, and tells what is in it or, with ErrBadBackup,
// what is wrong with it. It leaves r at its beginning.
func CheckBackup(r io.ReadSeeker) (Header, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return Header{}, err
	}
	h, err := readBackup(r, func(entry) error { return nil })
	if err != nil {
		return h, err
	}
	_, err = r.Seek(0, io.SeekStart)
	return h, err
}

// Restore makes the store what it was at a backup. Nothing is written before the
// whole of r was read and found right. A store that is not empty is refused, unless
// force is set: then all that is in it is replaced. When writing fails, the store is
// brought back to what it was, as far as it takes writes at all.
func (s *Store) Restore(ctx context.Context, r io.ReadSeeker, force bool) (Header, error) {
	h, err := CheckBackup(r)
	if err != nil {
		return h, err
	}
	was, err := os.CreateTemp("", "presenced-restore")
	if err != nil {
		return h, err
	}
	defer os.Remove(was.Name())
	defer was.Close()
	if empty, err := s.empty(ctx); err != nil {
		return h, fmt.Errorf("restore: %w", err)
	} else if !empty && !force {
		return h, ErrNotEmpty
	}
	old, err := s.Backup(ctx, was, "")
	if err != nil {
		return h, fmt.Errorf("restore: what is in the store cannot be kept meanwhile, so it is left as it is: %w", err)
	}
	if err := s.replace(ctx, r, h.Counts); err != nil {
		err = fmt.Errorf("restore: %w", err)
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if undo := s.replace(back, was, old.Counts); undo != nil {
			return h, fmt.Errorf("%w; and what was there before could not be brought back: %w", err, undo)
		}
		return h, fmt.Errorf("%w; the store is what it was before", err)
	}
	return h, nil
}

func (s *Store) empty(ctx context.Context) (bool, error) {
	errFound := errors.New("found")
	err := s.all(ctx, map[string]int{}, func(entry) error { return errFound })
	if errors.Is(err, errFound) {
		return false, nil
	}
	return err == nil, err
}

// replace makes the store have exactly what the backup has.
func (s *Store) replace(ctx context.Context, backup io.ReadSeeker, counts map[string]int) error {
	if _, err := backup.Seek(0, io.SeekStart); err != nil {
		return err
	}
	js, err := s.stream()
	if err != nil {
		return err
	}
	names, err := s.names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := js.DeleteStream(ctx, name); err != nil {
			return err
		}
	}
	s.mu.Lock()
	clear(s.bound)
	s.mu.Unlock()
	w, err := s.writer()
	if err != nil {
		return err
	}
	for place := range counts {
		if err := w.make(ctx, place); err != nil {
			return err
		}
	}
	if _, err := readBackup(backup, func(e entry) error { return w.put(ctx, e) }); err != nil {
		return errors.Join(err, w.flush(ctx))
	}
	return w.flush(ctx)
}
