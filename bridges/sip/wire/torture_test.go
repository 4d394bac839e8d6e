package wire_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"presenced/bridges/sip/wire"
)

// torture reads a message of RFC 4475, as the sipgo module has it.
func torture(t *testing.T) map[string]string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/emiago/sipgo").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "sip/testdata/torture/*/*.dat"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	messages := map[string]string{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		messages[strings.TrimSuffix(filepath.Base(f), ".dat")] = string(data)
	}
	return messages
}

// What each message must get; 0: no answer. 200 is the answer of the handler,
// which takes every method but NEWMETHOD.
var verdicts = map[string]int{
	// valid
	"dblreq": 200, "esc01": 200, "esc02": 200, "escnull": 200, "intmeth": 200, "longreq": 200, "lwsdisp": 200, "mpart01": 200,
	"semiuri": 200, "transports": 200, "wsinv": 200, "noreason": 0, "unreason": 0,
	// invalid
	"badaspec": 400, "badbranch": 400, "baddn": 400, "badinv01": 400, "badvers": 505, "bext01": 420, "clerr": 400, "escruri": 400,
	"insuf": 400, "ltgtruri": 400, "lwsruri": 400, "lwsstart": 400, "mcl01": 400, "mismatch01": 400, "mismatch02": 400, "multi01": 400,
	"ncl": 400, "novelsc": 416, "quotbal": 400, "regbadct": 400, "scalar02": 400, "trws": 400, "unkscm": 416, "zeromf": 483,
	"bcast": 0, "bigcode": 0, "scalarlg": 0, "test": 0,
	// invalid for who reads more of them than a transport does
	"baddate": 200, "cparam01": 200, "cparam02": 200, "inv2543": 200, "invut": 200, "regaut01": 200, "regescrt": 200, "sdp01": 200, "unksm2": 200,
}

// The same on a connection, where that differs: there Content-Length is needed, and
// what it announces is waited for, as is the end of the headers.
var streamVerdicts = map[string]int{"baddn": 0, "clerr": 0, "inv2543": 400}

func TestTorture(t *testing.T) {
	messages := torture(t)
	app := wire.App{Handle: ok, Methods: []string{"OPTIONS", "INVITE", "REGISTER", "MESSAGE", "RE%47IST%45R", "!interesting-Method0123456789_*+`.%indeed'~"}}
	cfg := loose()
	cfg.Listen = []string{"udp:127.0.0.1:0", "tcp:127.0.0.1:0"}
	w := start(t, cfg, app)
	const ping = "OPTIONS sip:a@example.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKping;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: ping\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
	host := net.IPv4(127, 44, byte(os.Getpid()>>8), byte(os.Getpid())|1) // of this run alone
	for name, data := range messages {
		want, known := verdicts[name]
		if !known {
			t.Errorf("%s: no verdict", name)
		}
		t.Run("udp/"+name, func(t *testing.T) {
			port := 5060 // where the answer goes without rport
			if name == "quotbal" {
				port = 5050
			}
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: host, Port: port}, net.UDPAddrFromAddrPort(w.udp))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			send(t, c, data)
			if want != 0 {
				if got := receive(t, c); got.code() != want {
					t.Errorf("%s, want %d", got.start, want)
				}
			}
			send(t, c, ping) // in the same order: nothing else came before
			if got := receive(t, c); got.code() != 200 || got.head.Get("Call-Id") != "ping" {
				t.Errorf("after it: %s, Call-ID %s", got.start, got.head.Get("Call-Id"))
			}
		})
		if other, differs := streamVerdicts[name]; differs {
			want = other
		}
		t.Run("tcp/"+name, func(t *testing.T) {
			c := &stream{Conn: dial(t, "tcp", w.tcp)}
			send(t, c, data)
			if want == 0 {
				return
			}
			got := c.receive(t)
			if got.code() != want {
				t.Errorf("%s, want %d", got.start, want)
			}
		})
	}
	if n := w.Status().Problems["panics"]; n != 0 {
		t.Errorf("%d panics", n)
	}
}
