package aes

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"presenced/aes/csta"
)

// An Inquiry is a session of its own with an AES, for somebody who looks for what
// is wrong there: it asks one thing at a time, and tells each refusal together with
// what to change. It must not be used concurrently. What it cannot do, because AES or the
// way there is set up otherwise than the configuration says, is a *Fault.
type Inquiry struct {
	cfg      Config
	conn     net.Conn
	arrivals chan arrival
	ended    chan struct{} // closed by Close
	id       uint16
	session  string
	granted  time.Duration
	resetAt  time.Time
	monitors map[string]string // extension by cross reference
	waiting  []Heard           // came while something else was waited for
}

type arrival struct {
	frame csta.Frame
	err   error
}

// Heard is something that AES said by itself.
type Heard struct {
	At        time.Time
	Extension string       // whose monitor it is; empty: it is about no device
	Message   csta.Message // nil where Err is not
	Err       error        // why it is no message

	crossRef string
}

// maxWaiting bounds what comes while an answer is waited for; more is dropped.
const maxWaiting = 10_000

// A FaultKind tells the faults apart.
type FaultKind string

// The faults.
const (
	FaultConnect    FaultKind = "cannot connect"
	FaultName       FaultKind = "certificate for another name"
	FaultTrust      FaultKind = "certificate not believed"
	FaultLogin      FaultKind = "login refused"
	FaultVersion    FaultKind = "version refused"
	FaultSwitch     FaultKind = "unknown switch name"
	FaultLink       FaultKind = "no link to the switch"
	FaultPermission FaultKind = "no permission on the device"
	FaultLicence    FaultKind = "no licence"
	FaultExtension  FaultKind = "unknown extension"
	FaultAnswer     FaultKind = "refused otherwise"
)

// A Fault is something at AES, or on the way there, that is not as it should be.
type Fault struct {
	Kind   FaultKind
	What   string // to whom it happened, and what AES said
	Remedy string // what to change
	Err    error  // the cause, if there is one here
}

func (f *Fault) Error() string { return fmt.Sprintf("%s: %s. %s", f.Kind, f.What, f.Remedy) }

func (f *Fault) Unwrap() error { return f.Err }

// Inquire connects, logs in, and asks for the link to the switch. The Config was
// checked. It blocks until that is done or ctx ends; each answer may take ten seconds. The
// caller closes the Inquiry.
func Inquire(ctx context.Context, cfg Config) (*Inquiry, error) {
	password, err := cfg.PasswordFile.Read()
	if err != nil {
		return nil, err
	}
	conn, err := New(cfg, slog.New(slog.DiscardHandler)).connect(ctx)
	if err != nil {
		return nil, unconnected(&cfg, err)
	}
	q := &Inquiry{cfg: cfg, conn: conn, arrivals: make(chan arrival), ended: make(chan struct{}), monitors: map[string]string{}}
	go q.read()
	if err := q.open(ctx, password); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

// unconnected says why there is no connection.
func unconnected(cfg *Config, err error) error {
	f := &Fault{Kind: FaultConnect, What: err.Error(), Err: err}
	host, port, _ := cfg.server(cfg.Address)
	service := "encrypted"
	if cfg.Plain {
		service = "unencrypted"
	}
	f.Remedy = fmt.Sprintf("On AES, enable the %s DMCC server port %s (Networking > Ports) and see that the DMCC service runs; let firewalls pass TCP to %s port %s; or correct address",
		service, port, host, port)
	var (
		name      x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &name):
		f.Kind = FaultName
		f.What = fmt.Sprintf("%s shows a certificate for %s, not for %q", host, names(name.Certificate), name.Host)
		f.Remedy = "On AES, install a server certificate that holds this name (Security > Certificate Management > Server Certificates); or set address or tls.server_name to a name that it holds"
	case errors.As(err, &authority), errors.As(err, &invalid):
		f.Kind = FaultTrust
		f.Remedy = "Put the authority that signed the server certificate of AES (Security > Certificate Management > CA Trusted Certificates) into tls.ca_file; or renew the certificate on AES"
	case errors.As(err, &record):
		f.Remedy = fmt.Sprintf("Port %s of %s does not speak TLS: use the encrypted DMCC port of AES, usually 4722 (Networking > Ports)", port, host)
	case alerted(err):
		f.Kind, f.Remedy = FaultTrust, alertRemedy
	}
	return f
}

const alertRemedy = "AES ended the TLS handshake: enable a TLS version of tls.min_version on AES (Networking > TCP/TLS Settings), and if it demands a client certificate set tls.cert_file and tls.key_file to one that it trusts"

// alerted tells whether the server ended TLS with an alert, which crypto/tls has no type
// for. By TLS 1.3 a server judges the client when the handshake is over for that: then
// the alert is the answer to the first request.
func alerted(err error) bool {
	op := (*net.OpError)(nil)
	return errors.As(err, &op) && op.Op == "remote error"
}

// names gives those that a certificate is for.
func names(c *x509.Certificate) string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return fmt.Sprintf("no host name (its subject is %.100q)", c.Subject.CommonName)
	}
	for i := range all {
		all[i] = fmt.Sprintf("%.100q", all[i])
	}
	return strings.Join(all[:min(len(all), 5)], ", ")
}

// read gives what comes, until the connection ends or Close.
func (q *Inquiry) read() {
	r := csta.NewReader(bufio.NewReader(q.conn))
	for {
		f, err := r.Read()
		select {
		case q.arrivals <- arrival{f, err}:
		case <-q.ended:
			return
		}
		if err != nil {
			return
		}
	}
}

// Close ends the session in good order, and the connection; monitors end with it. It
// blocks for two seconds at most.
func (q *Inquiry) Close() {
	if q.session != "" {
		id := q.nextID()
		if q.send(id, csta.StopSession{SessionID: q.session}) == nil && q.conn.SetReadDeadline(time.Now().Add(stopWithin)) == nil {
			for a := range q.arrivals {
				if a.err != nil || a.frame.InvokeID == id {
					break
				}
			}
		}
	}
	close(q.ended)
	_ = q.conn.Close() // nothing can be saved if this fails
}

func (q *Inquiry) send(id uint16, r csta.Request) error {
	out, err := csta.Frame{InvokeID: id, XML: r.XML()}.Append(nil)
	if err != nil {
		return err
	}
	if err := q.conn.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return q.lost(err)
	}
	_, err = q.conn.Write(out)
	clear(out) // it may hold the password
	if err != nil {
		q.session = "" // nobody is there to end it
		return q.lost(q.said(err))
	}
	return nil
}

// said gives the alert with which the server ended the connection, if nothing can be
// written any more because of one, else err.
func (q *Inquiry) said(err error) error {
	limit := time.After(stopWithin)
	for {
		select {
		case a := <-q.arrivals:
			switch {
			case alerted(a.err):
				return a.err
			case a.err != nil:
				return err
			}
		case <-limit:
			return err
		}
	}
}

func (q *Inquiry) nextID() uint16 {
	q.id = q.id%csta.LastID + csta.FirstID
	return q.id
}

func (q *Inquiry) lost(err error) error {
	f := &Fault{
		Kind: FaultConnect, What: "the connection was lost: " + err.Error(), Err: err,
		Remedy: "See on AES whether the DMCC service runs and has sessions left (Status > Status and Control > DMCC Service Summary)",
	}
	if alerted(err) {
		f.Kind, f.Remedy = FaultTrust, alertRemedy
	}
	return f
}

// ask sends a request and gives its answer. What else comes meanwhile waits for Next.
func (q *Inquiry) ask(ctx context.Context, r csta.Request) (csta.Message, error) {
	id := q.nextID()
	if err := q.send(id, r); err != nil {
		return nil, err
	}
	limit := time.NewTimer(answerWithin)
	defer limit.Stop()
	for {
		select {
		case a := <-q.arrivals:
			h, answer, err := q.take(a)
			switch {
			case err != nil:
				return nil, err
			case !answer && len(q.waiting) < maxWaiting:
				q.waiting = append(q.waiting, h)
			case answer && a.frame.InvokeID == id:
				return h.Message, h.Err
			}
		case <-limit.C:
			return nil, &Fault{
				Kind: FaultAnswer, What: "no answer within " + answerWithin.String(), Err: errUnanswered,
				Remedy: "See on AES whether the DMCC and TSAPI services run (Status > Status and Control) and how loaded it is",
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// take reads what came, and answers what AES asks; answer tells whether it answers a request of ours.
func (q *Inquiry) take(a arrival) (h Heard, answer bool, err error) {
	if a.err != nil {
		q.session = "" // nobody is there to end it
		return h, false, q.lost(a.err)
	}
	h = Heard{At: time.Now()}
	h.Message, h.Err = csta.Decode(a.frame.XML)
	switch m := h.Message.(type) {
	case *csta.CallEvent:
		h.crossRef = m.CrossRef
	case *csta.DoNotDisturbEvent:
		h.crossRef = m.CrossRef
	case *csta.ForwardingEvent:
		h.crossRef = m.CrossRef
	case *csta.ServiceEvent:
		h.crossRef = m.CrossRef
	case *csta.RegistrationEvent:
		h.crossRef = m.CrossRef
	case *csta.MonitorStopped:
		h.crossRef = m.CrossRef
	case *csta.SystemStatus:
		return h, false, q.send(a.frame.InvokeID, csta.SystemStatusDone{})
	case *csta.SessionTerminated:
		q.session = ""
		return h, false, q.lost(fmt.Errorf("the server ended the session: %s", words(m.Defined, m.Text)))
	default:
		if e := (*csta.DecodeError)(nil); errors.As(h.Err, &e) {
			h.crossRef = e.CrossRef
		}
		return h, a.frame.InvokeID != csta.EventID, nil
	}
	return h, false, nil
}

// named says whose monitor it was; an event may overtake the answer that tells.
func (q *Inquiry) named(h Heard) Heard {
	h.Extension = q.monitors[h.crossRef]
	return h
}

// open logs in, and asks how the link to the switch is.
func (q *Inquiry) open(ctx context.Context, password string) error {
	answer, err := q.ask(ctx, csta.StartSession{
		Application: "presenced", User: q.cfg.User, Password: password, CleanupDelay: time.Second,
		Versions: q.cfg.protocols(), Duration: q.cfg.SessionDuration,
	})
	if err != nil {
		return err
	}
	switch m := answer.(type) {
	case *csta.SessionStarted:
		q.session = m.SessionID
		q.extended(m.Duration)
	case *csta.SessionRefused:
		return q.noSession(m.Defined, words(m.Defined, m.Text))
	case *csta.Failure:
		return q.noSession(m.Value, m.Error())
	default:
		return q.strange("the login", answer)
	}
	return q.lookAtSwitch(ctx)
}

func (q *Inquiry) extended(d csta.Seconds) {
	q.granted = max(time.Second, cmp.Or(time.Duration(d), q.cfg.SessionDuration))
	q.resetAt = time.Now().Add(q.granted / 2)
}

// noSession says why the login was refused.
func (q *Inquiry) noSession(code, reason string) error {
	f := &Fault{Kind: FaultLogin, What: fmt.Sprintf("AES does not let the user %q in: %s", q.cfg.User, reason)}
	switch {
	case code == "requestedProtocolVersionNotSupported":
		f.Kind = FaultVersion
		f.What = "AES knows none of the protocol versions that were offered: " + strings.Join(q.cfg.Versions, ", ")
		f.Remedy = "Add the version of this AES release to versions (8.1.3 is privE, 7.0 privA, 6.3 priv7, 6.1 priv5, 5.2 priv4); on AES nothing can be changed but the release"
	case transient(code):
		f.Remedy = "AES has no room for another session: end old ones (Status > Status and Control > DMCC Service Summary), or raise their number"
	default:
		f.Remedy = "Correct user and password_file; on AES, see that the user exists and is a CT User (User Management > User Admin > List All Users) and is enabled (Security > Security Database > CTI Users)"
	}
	return f
}

func (q *Inquiry) strange(what string, m csta.Message) error {
	return &Fault{
		Kind: FaultAnswer, What: fmt.Sprintf("%s is answered by another message (%T)", what, m),
		Remedy: "See whether address is a DMCC port of AES",
	}
}

// lookAtSwitch asks for the link to the switch. A server that does not tell is no fault.
func (q *Inquiry) lookAtSwitch(ctx context.Context) error {
	answer, err := q.ask(ctx, csta.RegisterSystem{Switch: q.cfg.Switch})
	if err != nil {
		return err
	}
	registered, ok := answer.(*csta.SystemRegistered)
	if !ok {
		return nil
	}
	if answer, err = q.ask(ctx, csta.RequestSystem{RegisterID: registered.ID, Switch: q.cfg.Switch}); err != nil {
		return err
	}
	status, ok := answer.(*csta.SystemStatusAnswer)
	if !ok || len(status.Links) == 0 {
		return nil
	}
	var others []string
	for _, k := range status.Links {
		if k.Switch == "" || strings.EqualFold(k.Switch, q.cfg.Switch) {
			if k.Status == "tlinkDown" {
				return &Fault{
					Kind: FaultLink, What: fmt.Sprintf("AES has no link to the switch %q", q.cfg.Switch),
					Remedy: "See Status > Status and Control > TSAPI Service Summary and Switch Conn Summary on AES, and the CTI link on Communication Manager (status aesvcs cti-link)",
				}
			}
			return nil
		}
		others = append(others, fmt.Sprintf("%.60q", k.Switch))
	}
	return q.noSwitch("it names " + strings.Join(others[:min(len(others), 5)], ", "))
}

func (q *Inquiry) noSwitch(seen string) error {
	return &Fault{
		Kind: FaultSwitch, What: fmt.Sprintf("AES does not know the switch %q; %s", q.cfg.Switch, seen),
		Remedy: "Set switch to the name of the connection on AES (Communication Manager Interface > Switch Connections), or add the connection there, with a TSAPI link (AE Services > TSAPI > TSAPI Links)",
	}
}

// Monitor starts a monitor of an extension, whose events Next then gives, and takes a
// snapshot: all that the collector needs to be let do.
func (q *Inquiry) Monitor(ctx context.Context, ext string) error {
	answer, err := q.ask(ctx, csta.FindDevice{Switch: q.cfg.Switch, Extension: ext})
	if err != nil {
		return err
	}
	device, ok := answer.(*csta.DeviceFound)
	if !ok {
		return q.noDevice(ext, answer)
	}
	if answer, err = q.ask(ctx, csta.StartMonitor{Device: device.Device}); err != nil {
		return err
	}
	monitor, ok := answer.(*csta.MonitorStarted)
	if !ok {
		return q.noDevice(ext, answer)
	}
	q.monitors[monitor.CrossRef] = ext
	if answer, err = q.ask(ctx, csta.SnapshotDevice{Device: device.Device}); err != nil {
		return err
	}
	if _, ok := answer.(*csta.DeviceSnapshot); !ok {
		return q.noDevice(ext, answer)
	}
	return nil
}

// noDevice says why an extension cannot be monitored.
func (q *Inquiry) noDevice(ext string, answer csta.Message) error {
	refusal, ok := answer.(*csta.Failure)
	if !ok {
		return q.strange("a request about "+ext, answer)
	}
	f := &Fault{Kind: FaultAnswer, What: fmt.Sprintf("extension %s: %s", ext, refusal.Error()), Err: refusal}
	switch reaction(refusal.Value) {
	case notAllowed:
		f.Kind = FaultPermission
		f.Remedy = fmt.Sprintf("On AES, give the CTI user %q unrestricted access, or put the extension into a device group of its call and device monitoring (Security > Security Database > CTI Users, Devices, Device Groups)", q.cfg.User)
	case noLicence:
		f.Kind = FaultLicence
		f.Remedy = "Every monitored extension holds a TSAPI Basic User licence: add licences (Licensing > WebLM Server Access on AES), end monitors of other applications, or cover fewer people"
	case notThere:
		f.Kind = FaultExtension
		f.Remedy = "Correct the number in the directory, or administer the station on Communication Manager"
	case notWorking:
		f.Remedy = "The station is out of service: see status station " + ext + " on Communication Manager"
	case slowDown:
		f.Remedy = "AES is busy; try again, and lower rate if it stays so"
	default:
		f.Remedy = "See the DMCC and TSAPI logs of AES (Status > Logs)"
	}
	return f
}

// Examine does for each extension what Monitor does, and gives what went wrong, nil
// where nothing did. Where AES knows none of several extensions it is the name of the
// switch that is wrong, and that is all it says.
func (q *Inquiry) Examine(ctx context.Context, extensions []string) []error {
	var wrong []error
	unknown := 0
	for _, ext := range extensions {
		err := q.Monitor(ctx, ext)
		if err == nil {
			continue
		}
		wrong = append(wrong, err)
		f := (*Fault)(nil)
		if !errors.As(err, &f) || f.Kind == FaultConnect || f.Kind == FaultTrust {
			return wrong // the others cannot be asked
		}
		if f.Kind == FaultExtension {
			unknown++
		}
	}
	if unknown > 1 && unknown == len(extensions) {
		return []error{q.noSwitch(fmt.Sprintf("or none of the extensions %s", strings.Join(extensions, ", ")))}
	}
	return wrong
}

// Next waits for what AES says by itself, and keeps the session alive meanwhile. It
// ends with ctx.
func (q *Inquiry) Next(ctx context.Context) (Heard, error) {
	for {
		if len(q.waiting) > 0 {
			h := q.waiting[0]
			q.waiting = q.waiting[1:]
			return q.named(h), nil
		}
		alive := time.NewTimer(time.Until(q.resetAt))
		select {
		case a := <-q.arrivals:
			alive.Stop()
			h, answer, err := q.take(a)
			if err != nil || !answer {
				return q.named(h), err
			}
		case <-alive.C:
			answer, err := q.ask(ctx, csta.ExtendSession{SessionID: q.session, Duration: q.cfg.SessionDuration})
			if err != nil {
				return Heard{}, err
			}
			m, ok := answer.(*csta.SessionExtended)
			if !ok {
				q.session = ""
				return Heard{}, q.lost(errors.New("the keep-alive was refused"))
			}
			q.extended(m.Duration)
		case <-ctx.Done():
			alive.Stop()
			return Heard{}, context.Cause(ctx)
		}
	}
}
