package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"presenced/aes/optim"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

// optim ties a station mapping to people. It prints what is added to whom, and writes
// these people, if that is wanted.
func (c *SyncCommand) optim(people *directory.Directory, term *Terminal) error {
	switch {
	case c.Source != "aes":
		return errors.New("--optim is for aes")
	case !c.DryRun && c.Out == "":
		return errors.New("--optim needs --out FILE, to write the people, or --dry-run, to print only")
	}
	f, err := os.Open(c.OPTIM)
	if err != nil {
		return err
	}
	defer f.Close()
	mappings, unread, err := optim.Read(f)
	if err != nil {
		return fmt.Errorf("%s: %w", c.OPTIM, err)
	}
	ties, untied := optim.Tying(mappings, people.Find, optim.Rules{Domain: c.Domain, Mobiles: c.Mobiles})
	problems := append(nonNil(unread), untied...)
	changed := 0
	for i := range ties {
		if len(ties[i].Add) > 0 {
			changed++
		}
	}
	if c.Format == "json" {
		err = printJSON(term.Out, map[string]any{"ties": nonNil(ties), "problems": problems})
	} else {
		printTies(term, c.OPTIM, ties, problems)
	}
	if err != nil || c.DryRun {
		return err
	}
	if err := writePeople(c.Out, c.OPTIM, ties); err != nil {
		return err
	}
	fmt.Fprintf(term.Err, "%s written: %d people; name it in directory.files before the file that has them now\n", c.Out, changed)
	return nil
}

func printTies(term *Terminal, file string, ties []optim.Tie, problems []string) {
	mappings := 0
	for _, t := range ties {
		mappings += len(t.Mappings)
		for _, m := range t.Mappings {
			number := m.Number
			if m.CountryCode != "" {
				number = "+" + m.CountryCode + " " + number
			}
			fmt.Fprintf(term.Out, "%s  %s: %s %s\n", t.Person.ID, m.Extension, m.Application, number)
		}
		for _, s := range t.Add {
			fmt.Fprintf(term.Out, "%s  add %s\n", t.Person.ID, s)
		}
	}
	for _, p := range problems {
		fmt.Fprintf(term.Err, "%s: %s\n", file, p)
	}
	fmt.Fprintf(term.Err, "%d telephones of %d people, %d problems\n", mappings, len(ties), len(problems))
}

// listed is a person as a directory file has it.
type listed struct {
	ID     presence.ID `yaml:"id"`
	Name   string      `yaml:"name"`
	Groups []string    `yaml:"groups,omitempty"`
	Tel    []string    `yaml:"tel,omitempty"`
	Mail   []string    `yaml:"mail,omitempty"`
	Notes  []string    `yaml:"notes,omitempty"`
	SIP    []string    `yaml:"sip,omitempty"`
	JID    []string    `yaml:"jid,omitempty"`
}

// writePeople writes the people that something is added to, whole: of a person who stands
// in several places the directory takes the first. The file is there whole or not at all.
func writePeople(file, from string, ties []optim.Tie) error {
	var all []listed
	for _, t := range ties {
		if len(t.Add) == 0 {
			continue
		}
		l := listed{ID: t.Person.ID, Name: t.Person.Name, Groups: t.Person.Groups}
		lists := map[string]*[]string{"tel": &l.Tel, "mail": &l.Mail, "notes": &l.Notes, "sip": &l.SIP, "jid": &l.JID}
		for _, s := range slices.Concat(t.Person.Subjects, t.Add) {
			list := lists[s.Scheme]
			if list == nil {
				return fmt.Errorf("%s has the address %s, for which a directory file has no place", t.Person.ID, s)
			}
			*list = append(*list, s.Value)
		}
		all = append(all, l)
	}
	data, err := yaml.Marshal(map[string]any{"people": nonNil(all)})
	if err != nil {
		return err
	}
	head := fmt.Sprintf("# Written by \"presenced sync aes --optim\" from %s. Do not edit it: it is written anew.\n", strings.ToValidUTF8(filepath.Base(from), "?"))
	if _, err := directory.ParseFile(file, append([]byte(head), data...)); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	defer f.Close()
	_, err = f.WriteString(head + string(data))
	if err := errors.Join(err, f.Chmod(0o640), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
