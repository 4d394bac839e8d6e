package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"presenced/aes"
	"presenced/aes/csta"
	"presenced/fixtures/sim/simaes"
)

// A telephone exchange behind TLS, and a configuration for it.
type telephones struct {
	*site
	sw      *simaes.Switch
	address string
}

func newTelephones(t *testing.T) *telephones {
	s := &telephones{site: &site{t: t, dir: t.TempDir()}}
	certificate := s.certificate()
	s.write("people.yaml", "people:\n- {id: ann, name: Ann, tel: [\"4750\"]}\n- {id: bob, name: Bob, tel: [\"4751\"]}\n")
	s.write("password", "open sesame")
	s.sw = simaes.New(simaes.Config{User: "svc", Password: "open sesame", Switch: simulatedSwitch, Stations: []string{"4750", "4751", "21042"}})
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.sw.Serve(ctx, l) })
	t.Cleanup(func() { cancel(); serving.Wait() })
	return s
}

// config writes a configuration; what is said of a key counts instead of what is right.
func (s *telephones) config(instead map[string]string) string {
	keys := map[string]string{
		"address": s.address, "user": "svc", "password_file": s.dir + "/password", "switch": simulatedSwitch,
		"tls": fmt.Sprintf("{ca_file: %s/ca.pem, server_name: aes.example.test}", s.dir),
	}
	text := fmt.Sprintf("directory: {files: [%[1]s/people.yaml]}\nstore: {directory: %[1]s/store}\nweb: {listen: \"127.0.0.1:0\"}\naes:\n- name: aes-hq\n", s.dir)
	maps.Copy(keys, instead)
	for key, value := range keys {
		text += "  " + key + ": " + value + "\n"
	}
	return s.write("presenced.yaml", text)
}

func (s *telephones) do(commands ...string) {
	s.t.Helper()
	for _, c := range commands {
		if err := s.sw.Do(time.Now(), strings.Fields(c)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Each thing that can be wrong with AES is told apart, and told with what to change.
func TestCheckTellsWhatIsWrongWithAES(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()
	for name, test := range map[string]struct {
		does    []string
		instead map[string]string
		want    []string
	}{
		"nothing": {want: []string{"ok      aes aes-hq: lets the user in, and 2 extensions be monitored", "ok      source aes-hq: answered for 2"}},
		"nobody listens": {
			instead: map[string]string{"address": nobody},
			want:    []string{"failed  aes aes-hq: cannot connect: ", "connection refused", "enable the encrypted DMCC server port", "firewalls"},
		},
		"no TLS there": {
			instead: map[string]string{"address": plainEcho(t)},
			want:    []string{"failed  aes aes-hq: cannot connect: ", "does not speak TLS: use the encrypted DMCC port"},
		},
		"another name": {
			instead: map[string]string{"tls": "{ca_file: DIR/ca.pem}"},
			want:    []string{"failed  aes aes-hq: certificate for another name: ", `"aes.example.test", not for "127.0.0.1"`, "tls.server_name"},
		},
		"an authority that is not believed": {
			instead: map[string]string{"tls": "{server_name: aes.example.test}"},
			want:    []string{"failed  aes aes-hq: certificate not believed: ", "tls.ca_file"},
		},
		"another user": {
			instead: map[string]string{"user": "mallory"},
			want:    []string{"failed  aes aes-hq: login refused: ", `the user "mallory"`, "CT User"},
		},
		"another version": {
			instead: map[string]string{"versions": "[priv99]"},
			want:    []string{"failed  aes aes-hq: version refused: ", "priv99", "privE"},
		},
		"another switch": {
			instead: map[string]string{"switch": "CMOTHER"},
			want:    []string{"failed  aes aes-hq: unknown switch name: ", `"CMOTHER"; it names "CMSIM"`, "Switch Connections"},
		},
		"another switch of a server that does not name its own": {
			does: []string{"dialect no-private on"}, instead: map[string]string{"switch": "CMOTHER"},
			want: []string{"failed  aes aes-hq: unknown switch name: ", "or none of the extensions 4750, 4751"},
		},
		"no link": {
			does: []string{"link down"},
			want: []string{"failed  aes aes-hq: no link to the switch: ", "status aesvcs cti-link"},
		},
		"no permission": {
			does: []string{"refuse 4751 operation privilegeViolationSpecifiedDevice"},
			want: []string{"failed  aes aes-hq: no permission on the device: extension 4751: ", "unrestricted access", "device group"},
		},
		"no licence": {
			does: []string{"limit 1"},
			want: []string{"failed  aes aes-hq: no licence: extension 4751: ", "TSAPI Basic User"},
		},
		"a station out of service": {
			does: []string{"refuse 4751 systemResourceAvailibility deviceOutOfService"},
			want: []string{"failed  aes aes-hq: refused otherwise: extension 4751: ", "status station 4751"},
		},
		"no such station": {
			does: []string{"refuse 4751 operation invalidDeviceID"},
			want: []string{"failed  aes aes-hq: unknown extension: extension 4751: ", "Correct the number in the directory"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTelephones(t)
			s.do(test.does...)
			for key, value := range test.instead {
				test.instead[key] = strings.ReplaceAll(value, "DIR", s.dir)
			}
			code, out, errs := command(t, "check", "--online", "-c", s.config(test.instead))
			for _, w := range test.want {
				if !strings.Contains(out, w) {
					t.Errorf("not told: %s", w)
				}
			}
			if failed := strings.Contains(out, "failed"); failed != (name != "nothing") || (code != 0) != failed || strings.Contains(out+errs, "open sesame") {
				t.Errorf("exit code %d", code)
			}
			if t.Failed() {
				t.Log(out, errs)
			}
		})
	}
}

// A server that ends the handshake, or the connection right after it as TLS 1.3 has it,
// because of what the client shows or speaks: that is no matter of ports.
func TestCheckTellsOfTLSAlerts(t *testing.T) {
	for name, settings := range map[string]*tls.Config{
		"a client certificate is demanded":              {ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12},
		"a client certificate is demanded after it":     {ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13},
		"it speaks only versions that are not let near": {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
	} {
		t.Run(name, func(t *testing.T) {
			s := &telephones{site: &site{t: t, dir: t.TempDir()}}
			settings.Certificates = []tls.Certificate{s.certificate()}
			s.write("people.yaml", "people:\n- {id: ann, name: Ann, tel: [\"4750\"]}\n")
			s.write("password", "open sesame")
			l, err := tls.Listen("tcp", "127.0.0.1:0", settings)
			if err != nil {
				t.Fatal(err)
			}
			s.address = l.Addr().String()
			greet(t, l, nil)
			code, out, errs := command(t, "check", "--online", "-c", s.config(nil))
			if code == 0 || !strings.Contains(out, "failed  aes aes-hq: certificate not believed: ") || strings.Contains(out, "firewalls") || !strings.Contains(out, "tls.cert_file") || !strings.Contains(out, "tls.min_version") {
				t.Errorf("exit code %d\n%s%s", code, out, errs)
			}
		})
	}
}

// plainEcho listens, and says something that is not TLS.
func plainEcho(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	greet(t, l, []byte("220 mail.example.test ESMTP\r\n"))
	return l.Addr().String()
}

// greet says the same to all who come until the test ends, and hangs up.
func greet(t *testing.T, l net.Listener, greeting []byte) {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(greeting)
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
}

// tap runs "presenced aes tap" until it printed that many lines, of what happens once
// it listens.
func (s *telephones) tap(lines int, happens []string, args ...string) (printed []string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, outEnd := io.Pipe()
	errs, errsEnd := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"aes", "tap", "-c", s.config(nil)}, args...), &Terminal{outEnd, errsEnd})
		_, _ = outEnd.Close(), errsEnd.Close()
	}()
	said := bufio.NewScanner(errs)
	for said.Scan() {
		printed = append(printed, said.Text())
		if strings.HasPrefix(said.Text(), "listening to") {
			s.do(happens...)
			break
		}
	}
	for text := bufio.NewScanner(out); lines > 0 && text.Scan(); lines-- {
		printed = append(printed, text.Text())
	}
	_, _ = out.Close(), errs.Close()
	cancel()
	if code := <-ended; code != 0 {
		s.t.Errorf("exit code %d", code)
	}
	return printed
}

func TestTap(t *testing.T) {
	s := newTelephones(t)
	s.do("refuse 4751 operation privilegeViolationSpecifiedDevice")
	happens := []string{"call 1 21042 4750", "answer 1 4750", "dnd 4750 on", "clear 1"}
	text := s.tap(4, happens)
	for i, want := range []string{
		"no permission on the device: extension 4751: ",
		"listening to 1 extensions of aes-hq",
		"  4750     Delivered          call 1      alerting   from 21xxx to 4750 by 4750 because newCall",
		"  4750     Established        call 1      connected  from 21xxx to 4750 by 4750 because newCall",
		"  4750     DoNotDisturb       call -      on",
		"  4750     ConnectionCleared  call 1      connected  by 21xxx because normalClearing",
	} {
		if i >= len(text) || !strings.Contains(text[i], want) {
			t.Fatalf("want %q in\n%s", want, strings.Join(text, "\n"))
		}
	}
	s.do("dnd 4750 off")
	lines := s.tap(1, []string{"call 2 21042 4750"}, "--numbers", "--extension", "4750", "--format", "json")
	var l tapLine
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &l); err != nil || l.Calling != "21042" || l.Event != "Delivered" || l.Call != "2" || l.Extension != "4750" {
		t.Errorf("%v: %s", err, lines)
	}
}

func TestMasked(t *testing.T) {
	for number, want := range map[string]string{"21042": "21xxx", "4750": "47xx", "112": "1xx", "7": "x", "": ""} {
		if got := masked(number); got != want {
			t.Errorf("%q: %q, want %q", number, got, want)
		}
	}
	if got := clean("a\x1b[2Jb\n"); got != "a?[2Jb?" {
		t.Errorf("%q", got)
	}
}

// No field of an event shows the number of somebody else, unless numbers are asked for.
func TestEveryNumberIsMasked(t *testing.T) {
	h := aes.Heard{Extension: "4750", Message: &csta.CallEvent{
		Kind: csta.Conferenced, Device: "21001:CM1::0", Calling: "21002:CM1::0", Called: "21003:CM1::0",
		Parties: []csta.Party{{New: csta.Connection{CallID: "1", DeviceID: "4750:CM1::0"}}, {New: csta.Connection{DeviceID: "21004:CM1::0"}}, {Endpoint: "21005:CM1::0"}},
	}}
	for _, format := range []string{"text", "json"} {
		masked, _ := (&TapCommand{Format: format}).line(h)
		if strings.Contains(masked, "2100") || strings.Count(masked, "21xxx") != 5 || !strings.Contains(masked, "4750") {
			t.Errorf("masked: %s", masked)
		}
		whole, _ := (&TapCommand{Format: format, Numbers: true}).line(h)
		for _, n := range []string{"21001", "21002", "21003", "21004", "21005"} {
			if !strings.Contains(whole, n) {
				t.Errorf("%s is not shown: %s", n, whole)
			}
		}
	}
	if long := clean(strings.Repeat("x", 1000)); len(long) != 100 {
		t.Errorf("%d bytes of what a server sent", len(long))
	}
}
