package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"presenced/bridges/web/api"
)

// AccountCommand is about who may sign in to the page, in a running service.
type AccountCommand struct {
	List     AccountListCommand     `cmd:"" help:"List the accounts, those of LDAP and OIDC as of their last sign-in."`
	Add      AccountAddCommand      `cmd:"" help:"Make an account with a password, which is read from standard input."`
	Role     AccountRoleCommand     `cmd:"" help:"Give an account another role; it counts at once."`
	Person   AccountPersonCommand   `cmd:"" help:"Say who of the directory an account is; it counts at once."`
	Password AccountPasswordCommand `cmd:"" help:"Give an account a new password, which is read from standard input; its sessions end."`
	Remove   AccountRemoveCommand   `cmd:"" help:"Remove an account, with its sessions and tokens."`
	Link     AccountLinkCommand     `cmd:"" help:"Print a link with which its bearer makes the first administrator, while there is none."`
}

// TokenCommand is about API tokens, in a running service.
type TokenCommand struct {
	List   TokenListCommand   `cmd:"" help:"List the tokens of all accounts."`
	Revoke TokenRevokeCommand `cmd:"" help:"End a token at once."`
}

// AccountListCommand lists accounts.
type AccountListCommand struct {
	Asked `embed:""`
}

// Run implements the command.
func (c *AccountListCommand) Run(ctx context.Context, term *Terminal) error {
	var all []api.Account
	if err := c.ask(ctx, http.MethodGet, "/accounts", nil, &all); err != nil {
		return err
	}
	return c.print(term, all, func(t io.Writer) {
		fmt.Fprintln(t, "ACCOUNT\tNAME\tROLE\tPERSON\tLAST SIGN-IN")
		for _, a := range all {
			seen := ""
			if !a.Seen.IsZero() {
				seen = a.Seen.Local().Format("2006-01-02 15:04:05")
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", a.ID, a.Name, a.Role, a.Person, seen)
		}
	})
}

// AccountAddCommand makes an account.
type AccountAddCommand struct {
	User   string `arg:"" help:"Name to sign in with."`
	Role   string `enum:"person,operator,administrator" default:"person" help:"person (their own presence), operator (sees everybody and sets anybody's presence) or administrator."`
	Name   string `help:"Name to show; without it, the one to sign in with."`
	Person string `help:"Identifier of the person in the directory that it is; without it nobody."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *AccountAddCommand) Run(ctx context.Context, term *Terminal) error {
	password, err := readPassword(os.Stdin)
	if err != nil {
		return err
	}
	return c.changeAccount(ctx, term, http.MethodPost, "/accounts", accountChange{User: c.User, Name: c.Name, Role: c.Role, Person: c.Person, Password: password})
}

// AccountRoleCommand gives another role.
type AccountRoleCommand struct {
	User  string `arg:"" help:"Name to sign in with."`
	Role  string `arg:"" enum:"person,operator,administrator" help:"person, operator or administrator."`
	Asked `embed:""`
}

// Run implements the command.
func (c *AccountRoleCommand) Run(ctx context.Context, term *Terminal) error {
	return c.changeAccount(ctx, term, http.MethodPut, accountPath(c.User)+"/role", accountChange{Role: c.Role})
}

// AccountPersonCommand says who somebody is.
type AccountPersonCommand struct {
	User   string `arg:"" help:"Name to sign in with."`
	Person string `arg:"" optional:"" help:"Identifier of the person in the directory; without it nobody."`
	Asked  `embed:""`
}

// Run implements the command.
func (c *AccountPersonCommand) Run(ctx context.Context, term *Terminal) error {
	return c.changeAccount(ctx, term, http.MethodPut, accountPath(c.User)+"/person", map[string]string{"person": c.Person})
}

// AccountPasswordCommand gives a new password.
type AccountPasswordCommand struct {
	User  string `arg:"" help:"Name to sign in with."`
	Asked `embed:""`
}

// Run implements the command.
func (c *AccountPasswordCommand) Run(ctx context.Context, term *Terminal) error {
	password, err := readPassword(os.Stdin)
	if err != nil {
		return err
	}
	return c.changeAccount(ctx, term, http.MethodPut, accountPath(c.User)+"/password", accountChange{Password: password})
}

// AccountRemoveCommand removes an account.
type AccountRemoveCommand struct {
	User  string `arg:"" help:"Name to sign in with."`
	Asked `embed:""`
}

// Run implements the command.
func (c *AccountRemoveCommand) Run(ctx context.Context, term *Terminal) error {
	return c.changeAccount(ctx, term, http.MethodDelete, accountPath(c.User), nil)
}

// AccountLinkCommand prints the link for the first administrator.
type AccountLinkCommand struct {
	Asked `embed:""`
}

// Run implements the command.
func (c *AccountLinkCommand) Run(ctx context.Context, term *Terminal) error {
	return c.changeAccount(ctx, term, http.MethodPost, "/accounts/first-link", nil)
}

// TokenListCommand lists tokens.
type TokenListCommand struct {
	Asked `embed:""`
}

// Run implements the command.
func (c *TokenListCommand) Run(ctx context.Context, term *Terminal) error {
	var all []api.Token
	if err := c.ask(ctx, http.MethodGet, "/tokens", nil, &all); err != nil {
		return err
	}
	return c.print(term, all, func(t io.Writer) {
		fmt.Fprintln(t, "TOKEN\tACCOUNT\tNAME\tMAY\tENDS\tUSED")
		for _, one := range all {
			used := "never"
			if !one.Used.IsZero() {
				used = one.Used.Local().Format("2006-01-02 15:04")
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", one.ID, one.Account, one.Name, one.Scopes, one.Expires.Local().Format("2006-01-02 15:04"), used)
		}
	})
}

// TokenRevokeCommand ends a token.
type TokenRevokeCommand struct {
	Token string `arg:"" help:"Identifier of the token, as \"presenced token list\" says it."`
	Asked `embed:""`
}

// Run implements the command.
func (c *TokenRevokeCommand) Run(ctx context.Context, term *Terminal) error {
	return c.changeAccount(ctx, term, http.MethodDelete, "/tokens/"+url.PathEscape(c.Token), nil)
}

// An accountChange is the body of a change; what it does not need stays empty.
type accountChange struct {
	User     string `json:"user,omitempty"`
	Name     string `json:"name,omitempty"`
	Role     string `json:"role,omitempty"`
	Person   string `json:"person,omitempty"`
	Password string `json:"password,omitempty"`
}

func accountPath(user string) string { return "/accounts/" + url.PathEscape(user) }

// changeAccount asks for a change of accounts or tokens, and prints what was done.
func (a *Asked) changeAccount(ctx context.Context, term *Terminal, method, path string, body any) error {
	var done api.AccountDone
	if err := a.ask(ctx, method, path, body, &done); err != nil {
		return err
	}
	return a.print(term, done, func(t io.Writer) { fmt.Fprintln(t, cmp.Or(done.Link, done.Done)) })
}

const maxPasswordLine = 4 << 10

// readPassword reads the first line of in: a password is never on a command line.
func readPassword(in io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(in, maxPasswordLine)).ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.Join(errors.New("the password is read from standard input, and there is none"), err)
	}
	return line, nil
}
