package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// quiet is how long nothing may come of a bucket that is being read before it is
// looked at why.
const quiet = time.Second

// Load gives all keys and values, as Each does.
func (b *Bucket) Load(ctx context.Context) (map[string][]byte, error) {
	all := make(map[string][]byte, b.size(ctx))
	err := b.Each(ctx, func(key string, value []byte) error {
		if value == nil {
			delete(all, key)
		} else {
			all[key] = value
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Each calls f with every key and value, in the order of writing. Of a key that
// comes more than once the last value counts; nil means that it was deleted. A
// value that the embedded store cannot read any more, as after damage to its files,
// is left out: the files are copied to the folder "broken", the bucket is made anew
// of what could be read, and Err says so.
func (b *Bucket) Each(ctx context.Context, f func(key string, value []byte) error) error {
	n := 0
	stalled, err := b.read(ctx, b.prefix, func(key string, value []byte) error {
		n++
		return f(strings.TrimPrefix(key, b.prefix), value)
	})
	if err != nil {
		return b.wrap("load", "", err)
	}
	if stalled && (b.prefix != "" || n < b.size(ctx)) { // else all came, only slowly
		b.store.mend(ctx, b.name)
	}
	return nil
}

// size is about how many values a whole bucket has; a part is not counted.
func (b *Bucket) size(ctx context.Context) int {
	if b.prefix != "" || b.store.unreachable() != nil {
		return 0
	}
	kv, err := b.bind(ctx)
	if err != nil {
		return 0
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return 0
	}
	return int(min(status.Values(), 1<<24)) //nolint:gosec // bounded
}

// read calls each with every key that begins with prefix, in the order of writing;
// the last one of a key counts, and a nil value is a key that was deleted. It
// goes on behind what cannot be read; stalled says that there may have been such.
func (b *Bucket) read(ctx context.Context, prefix string, each func(key string, value []byte) error) (stalled bool, err error) {
	if err := b.store.unreachable(); err != nil { // do not wait for the answer of nobody
		return false, err
	}
	kv, err := b.bind(ctx)
	if err != nil {
		return false, err
	}
	var next uint64
	for {
		last, done, err := b.readFrom(ctx, kv, prefix, next, each)
		if err != nil || done {
			return stalled, err
		}
		stalled = true
		if next, err = b.readable(ctx, last+1); err != nil || next == 0 {
			return stalled, err
		}
	}
}

// readFrom reads from a place of the stream on, 0 being its beginning, until the
// end, or until nothing comes for a while; last is the last place that came.
func (b *Bucket) readFrom(ctx context.Context, kv jetstream.KeyValue, prefix string, from uint64, each func(key string, value []byte) error) (last uint64, done bool, err error) {
	// With the whole history the server need not look for the last value of each
	// key first; there is no more than one.
	opts := []jetstream.WatchOpt{jetstream.IncludeHistory()}
	if from > 0 {
		opts = append(opts, jetstream.ResumeFromRevision(from))
		last = from - 1
	}
	w, err := kv.Watch(ctx, prefix+">", opts...)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = w.Stop() }()
	idle := time.NewTimer(quiet)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, false, ctx.Err()
		case <-idle.C:
			return last, false, nil
		case e, open := <-w.Updates():
			if !open {
				return 0, false, errors.New("the store closed the list")
			}
			if e == nil { // the end of what there was
				return last, true, nil
			}
			last = e.Revision()
			value := e.Value()
			switch {
			case e.Operation() != jetstream.KeyValuePut:
				value = nil
			case value == nil:
				value = []byte{}
			}
			if err := each(e.Key(), value); err != nil {
				return 0, false, err
			}
			idle.Reset(quiet)
		}
	}
}

// readable gives the first place from seq on that can be read, 0 if there is none.
func (b *Bucket) readable(ctx context.Context, seq uint64) (uint64, error) {
	js, err := b.store.stream()
	if err != nil {
		return 0, err
	}
	stream, err := js.Stream(ctx, "KV_"+b.name)
	if err != nil {
		return 0, err
	}
	for end := stream.CachedInfo().State.LastSeq; seq <= end; seq++ {
		m, err := stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject("$KV."+b.name+".>"))
		if err == nil {
			return m.Sequence, nil
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return 0, err
		}
	}
	return 0, nil
}

// make opens or makes a bucket in JetStream.
func (s *Store) make(ctx context.Context, js jetstream.JetStream, name string, ttl time.Duration) (jetstream.KeyValue, error) {
	c := jetstream.KeyValueConfig{Bucket: name, History: 1, TTL: ttl, Replicas: s.replicas(), Storage: jetstream.FileStorage}
	ctx, done := s.whole(ctx)
	defer done()
	kv, err := js.CreateOrUpdateKeyValue(ctx, c)
	if err == nil || s.config.URL != "" || transient(err) || full(err) {
		if err == nil {
			s.examine(ctx, js, name)
		}
		return kv, err
	}
	// Files are left that the server can make nothing of.
	folder, moveErr := s.aside(name, os.Rename)
	switch {
	case errors.Is(moveErr, fs.ErrNotExist):
		folder = "nowhere: the server removed them"
	case moveErr != nil:
		return nil, errors.Join(err, moveErr)
	}
	if kv, err = js.CreateOrUpdateKeyValue(ctx, c); err == nil {
		s.damaged(name, fmt.Sprintf("the files of bucket %s could not be read and were moved to %s; the bucket is empty", name, folder))
	}
	return kv, err
}

// whole is for making a bucket or log: an embedded server that is shut down while
// it makes one goes on writing to its files. So the context does not end it, and
// the server waits for done.
func (s *Store) whole(ctx context.Context) (own context.Context, done func()) {
	if s.config.URL != "" {
		return ctx, func() {}
	}
	s.making.RLock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	return ctx, func() {
		cancel()
		s.making.RUnlock()
	}
}

// examine notices that the end of an embedded bucket is missing, which the server
// passes over in silence: every last value of a bucket stays until a newer one.
func (s *Store) examine(ctx context.Context, js jetstream.JetStream, name string) {
	if s.config.URL != "" {
		return
	}
	stream, err := js.Stream(ctx, "KV_"+name)
	if err != nil {
		return
	}
	if last := stream.CachedInfo().State.LastSeq; last > 0 {
		if _, err := stream.GetMsg(ctx, last); errors.Is(err, jetstream.ErrMsgNotFound) {
			s.damaged(name, fmt.Sprintf("a part of bucket %s was lost with damaged files in %s; what was readable is kept", name, s.folder(name)))
		}
	}
}

// folder is where the embedded server keeps a bucket.
func (s *Store) folder(name string) string {
	return filepath.Join(s.config.Directory, "jetstream", "$G", "streams", "KV_"+name)
}

// aside brings the folder of a bucket to one below "broken", by moving or copying.
func (s *Store) aside(name string, bring func(from, to string) error) (folder string, err error) {
	folder = filepath.Join(s.config.Directory, "broken", name+time.Now().UTC().Format("-20060102T150405.000"))
	if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
		return "", fmt.Errorf("move bucket %s aside: %w", name, err)
	}
	if err := bring(s.folder(name), folder); err != nil {
		return "", fmt.Errorf("move bucket %s aside: %w", name, err)
	}
	return folder, nil
}

func (s *Store) damaged(name, what string) {
	s.log.Error("the store is damaged", "bucket", name, "what", what)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damage[name] = what
}

// mend makes an embedded bucket anew of what can be read of it, if something cannot.
// Where that fails the bucket stays as it is: it is read as far as it goes.
func (s *Store) mend(ctx context.Context, name string) {
	s.repair.Lock()
	defer s.repair.Unlock()
	values, lost, err := s.salvage(ctx, name)
	switch {
	case err == nil && lost == 0: // it was only slow, or somebody else mended it
		return
	case err == nil && s.config.URL != "":
		s.damaged(name, fmt.Sprintf("%d values of bucket %s cannot be read at %s", lost, name, s.config.URL))
		return
	}
	var folder string
	if err == nil {
		folder, err = s.aside(name, func(from, to string) error { return os.CopyFS(to, os.DirFS(from)) })
	}
	if err == nil {
		err = s.refill(ctx, name, values)
	}
	if err != nil {
		s.damaged(name, fmt.Sprintf("a part of bucket %s cannot be read, and it cannot be made anew: %v; stop the service and move %s away", name, err, s.folder(name)))
		return
	}
	s.damaged(name, fmt.Sprintf("%d values of bucket %s could not be read and are lost, %d are kept; the damaged files are in %s", lost, name, len(values), folder))
}

// salvage gives what can be read of a bucket, and how many values cannot.
func (s *Store) salvage(ctx context.Context, name string) (values map[string][]byte, lost int, err error) {
	js, err := s.stream()
	if err != nil {
		return nil, 0, err
	}
	stream, err := js.Stream(ctx, "KV_"+name)
	if err != nil {
		return nil, 0, err
	}
	values = map[string][]byte{}
	lost = int(stream.CachedInfo().State.Msgs) //nolint:gosec // fits the disk
	_, err = (&Bucket{store: s, name: name}).read(ctx, "", func(key string, value []byte) error {
		lost--
		if value == nil {
			delete(values, key)
		} else {
			values[key] = value
		}
		return nil
	})
	return values, max(0, lost), err
}

// refill makes a bucket anew with these values.
func (s *Store) refill(ctx context.Context, name string, values map[string][]byte) error {
	js, err := s.stream()
	if err != nil {
		return err
	}
	b := &Bucket{store: s, name: name}
	b.unbind()
	if err := js.DeleteKeyValue(ctx, name); err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) {
		return err
	}
	w, err := s.writer()
	if err != nil {
		return err
	}
	if err := w.make(ctx, name); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := w.put(ctx, entry{Bucket: name, Key: key, Value: values[key]}); err != nil {
			return err
		}
	}
	return w.flush(ctx)
}
