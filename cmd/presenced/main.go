// Command presenced is presence for people whose phones are on Avaya
// Communication Manager: it collects what AES, Exchange and Domino know, decides
// one presence per person, and distributes it by SIP, XMPP and a page. This
// package holds the subcommands and the wiring; it is the only one that imports
// everything.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // mailboxes name their zones, and the machine may have none

	"github.com/alecthomas/kong"

	"presenced/internal/config"
)

// version is set by the linker.
var version = "development" //nolint:gochecknoglobals // the linker needs a variable

// commands is the command line.
type commands struct {
	Serve   ServeCommand   `cmd:"" help:"Run the service."`
	Demo    DemoCommand    `cmd:"" help:"Live through a day of a small office, with simulated systems, in the terminal and on a page."`
	Replay  ReplayCommand  `cmd:"" help:"Run scenarios in virtual time and compare the states with the expected ones."`
	Sync    SyncCommand    `cmd:"" help:"Read one complete account from a source, print it, and exit."`
	Check   CheckCommand   `cmd:"" help:"Check a configuration, and with --online everything it connects to."`
	AES     AESCommand     `cmd:"" name:"aes" help:"About AES."`
	Explain ExplainCommand `cmd:"" help:"Say why a person's presence is what it is."`
	History HistoryCommand `cmd:"" help:"Say what somebody's presence was, and why."`
	Board   BoardCommand   `cmd:"" help:"Say what people are doing."`
	Status  StatusCommand  `cmd:"" help:"Say how the parts of a running service fare."`
	Poll    PollCommand    `cmd:"" help:"Have a source look at once, or run a part again that waits."`
	Backup  BackupCommand  `cmd:"" help:"Write everything durable into one file; the service must not run on the same folder."`
	Restore RestoreCommand `cmd:"" help:"Make the store what it was at a backup."`
	Set     SetCommand     `cmd:"" help:"Set somebody's presence by hand; answers when it is durable."`
	Clear   ClearCommand   `cmd:"" help:"End what was set by hand."`
	Access  AccessCommand  `cmd:"" help:"About who sees what of whom."`
	Account AccountCommand `cmd:"" help:"About who may sign in to the page."`
	Token   TokenCommand   `cmd:"" help:"About API tokens."`
	Audit   AuditCommand   `cmd:"" help:"Say who changed what."`
	Sim     SimCommand     `cmd:"" help:"Run a simulated AES, Exchange or Domino."`
	Config  ConfigCommand  `cmd:"" help:"About the configuration."`
	Policy  PolicyCommand  `cmd:"" help:"About the policy."`
	Service ServiceCommand `cmd:"" help:"About the presence services: the servers that presence is published to."`
	Webhook WebhookCommand `cmd:"" help:"About what receivers of webhooks did not take."`
	Version VersionCommand `cmd:"" help:"Print the version."`
}

// A Terminal is where commands write: results to Out, progress and logs to Err.
type Terminal struct{ Out, Err io.Writer }

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1
	exitInvalid = 2 // the command line or the configuration is wrong
)

func main() {
	// The first signal ends orderly; the second one kills.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], &Terminal{os.Stdout, os.Stderr}))
}

// run is main without a process: it runs one command and gives the exit code.
func run(ctx context.Context, args []string, term *Terminal) int {
	var c commands
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("presenced"),
		kong.Description("Presence for people whose phones are on Avaya Communication Manager."),
		kong.Writers(term.Out, term.Err),
		kong.Exit(func(code int) { exited = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(term),
	)
	if err != nil {
		fmt.Fprintln(term.Err, "presenced:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"} // to list the commands helps more than to name the first few as expected
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // --help
		return exited
	}
	if err != nil {
		fmt.Fprintln(term.Err, "presenced:", err)
		return exitInvalid
	}
	if err = parsed.Run(); err == nil {
		return exitOK
	}
	if invalid := (*config.Error)(nil); errors.As(err, &invalid) {
		fmt.Fprintln(term.Err, err)
		return exitInvalid
	}
	if !errors.Is(err, context.Canceled) {
		fmt.Fprintln(term.Err, "presenced:", err)
	}
	return exitFailed
}

// VersionCommand prints the version.
type VersionCommand struct{}

// Run implements the command.
func (VersionCommand) Run(term *Terminal) error {
	_, err := fmt.Fprintln(term.Out, "presenced", version)
	return err
}
