package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// So many look at the board, each of whom is one of the first in the town.
const lookers = 1000

// memory keeps nothing but what it was made with.
type memory map[string][]byte

func (m memory) Load(context.Context) (map[string][]byte, error) { return m, nil }
func (memory) Put(context.Context, string, []byte) error         { return nil }
func (memory) Delete(context.Context, string) error              { return nil }

// A keyring is an account and an API token for each looker, as the store keeps them:
// making a thousand by hand takes a minute for the passwords.
type keyring struct {
	accounts, kept memory
	tokens         []string
}

func newKeyring() *keyring {
	k := &keyring{accounts: memory{}, kept: memory{}}
	now := time.Now()
	for i := range lookers {
		a := signin.Account{
			Via: signin.ViaLocal, User: string(inhabitantID(i)), Name: inhabitant(i).Name, Role: signin.Person,
			Subjects: []presence.Subject{{Scheme: directory.SchemeID, Value: string(inhabitantID(i))}},
		}
		secret := binary.BigEndian.AppendUint64(make([]byte, 24), uint64(i)) //nolint:gosec // no secret, and not negative
		key := sha256.Sum256(secret)
		k.accounts[hex.EncodeToString([]byte(a.ID()))], _ = json.Marshal(a)
		k.kept[hex.EncodeToString(key[:])], _ = json.Marshal(signin.Token{
			Account: a.ID(), Name: "bench", Scopes: signin.ReadStates, Created: now, Expires: now.Add(time.Hour),
		})
		k.tokens = append(k.tokens, "pd_"+strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)))
	}
	return k
}

// crowd is those who look, in a process of their own. Its first line of input is the
// address of the page, the second the cursor that it was loaded at, then come the
// tokens. It says that all are there; then it is told when each pick-up was reported,
// and says after how long it was read.
func crowd(ctx context.Context, in io.Reader, out io.Writer) error {
	debug.SetGCPercent(-1) // as in exchange
	debug.SetMemoryLimit(1 << 30)
	lines := bufio.NewScanner(in)
	next := func() string { lines.Scan(); return lines.Text() }
	address, cursor := next(), next()
	var all []*looker
	var streams, ready errgroup.Group
	ready.SetLimit(20)
	for range lookers {
		l := &looker{there: make(chan struct{}), read: make([]int64, pickUps)}
		all = append(all, l)
		token := next()
		ready.Go(func() error {
			if err := l.open(ctx, address, cursor, token); err != nil {
				return err
			}
			streams.Go(l.follow)
			select {
			case <-l.there:
				return nil
			case <-time.After(waitForBoard):
				return errors.New("a stream does not begin")
			}
		})
	}
	if err := ready.Wait(); err != nil {
		return err
	}
	fmt.Fprintln(out, "there")
	var reported []int64
	for range pickUps {
		reported = append(reported, moment(next()).UnixNano())
	}
	end := time.AfterFunc(waitForBoard/4, func() {
		for _, l := range all {
			_ = l.conn.Close()
		}
	})
	defer end.Stop()
	if err := streams.Wait(); err != nil {
		return err
	}
	late := make([]int64, 0, lookers*pickUps)
	for _, l := range all {
		for i, at := range l.read {
			late = append(late, at-reported[i])
		}
	}
	slices.Sort(late)
	if late[0] < 0 {
		return errors.New("a row came before its change")
	}
	at := func(share float64) float64 { return float64(late[int(share*float64(len(late)-1))]) / 1e6 }
	_, err := fmt.Fprintf(out, "%.1f p50-ms %.1f p99-ms %.1f max-ms\n", at(0.5), at(0.99), at(1))
	return err
}

// A looker is a live page without a browser.
type looker struct {
	conn  net.Conn
	body  io.Reader
	there chan struct{} // closed when nothing is owed any more
	read  []int64       // when the row of each person came, in ns since 1970
}

func (l *looker) open(ctx context.Context, address, cursor, token string) (err error) {
	var d net.Dialer
	if l.conn, err = d.DialContext(ctx, "tcp", address); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(l.conn, "GET /events?since=%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nAccept: text/event-stream\r\n\r\n", cursor, address, token); err != nil {
		return err
	}
	r, err := http.ReadResponse(bufio.NewReader(l.conn), nil) //nolint:bodyclose // the process ends with it
	if err != nil {
		return err
	}
	if l.body = r.Body; r.StatusCode != http.StatusOK {
		return errors.New("a stream: " + r.Status)
	}
	return nil
}

// follow reads until everybody has picked up.
func (l *looker) follow() error {
	events := bufio.NewScanner(l.body)
	events.Buffer(make([]byte, 32<<10), 1<<20)
	events.Split(func(data []byte, _ bool) (int, []byte, error) {
		if i := bytes.Index(data, []byte("\n\n")); i >= 0 {
			return i + 2, data[:i], nil
		}
		return 0, nil, nil
	})
	for left := pickUps; left > 0; {
		if !events.Scan() {
			return errors.Join(fmt.Errorf("a looker did not get %d of %d changes", left, pickUps), events.Err())
		}
		event := events.Bytes()
		switch {
		case bytes.Contains(event[:min(len(event), 64)], []byte("event: row\n")):
			_, row, _ := bytes.Cut(event, []byte(`id="p-u`))
			if i, err := strconv.Atoi(string(row[:min(len(row), 7)])); err != nil || i >= pickUps {
				return fmt.Errorf("a row of nobody: %.200q", event)
			} else if l.read[i] == 0 {
				l.read[i] = time.Now().UnixNano()
				left--
			}
		case bytes.Contains(event[:min(len(event), 64)], []byte("event: ready\n")):
			close(l.there) // it comes once
		}
	}
	return nil
}

// The onlookers are the crowd as the measuring process sees it.
type onlookers struct {
	orders io.WriteCloser
	said   *bufio.Scanner
	cmd    *exec.Cmd
}

func startCrowd(ctx context.Context, address, cursor string, tokens []string) (*onlookers, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	a := &onlookers{cmd: exec.CommandContext(ctx, self, crowding)} //nolint:gosec // this command
	a.cmd.Stderr = os.Stderr
	if a.orders, err = a.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a.said = bufio.NewScanner(out)
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(a.orders, "%s\n%s\n%s\n", address, cursor, strings.Join(tokens, "\n"))
	return a, err
}

// hear gives the next line that the crowd says.
func (a *onlookers) hear() (string, error) {
	if !a.said.Scan() {
		return "", errors.New("those who look are gone")
	}
	return a.said.Text(), nil
}

func (a *onlookers) stop() { _, _ = a.orders.Close(), a.cmd.Wait() }
