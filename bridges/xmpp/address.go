package xmpp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mellium.im/xmpp/jid"

	"presenced/aggregator/presence"
)

// splitJID takes an inbound address apart. It is opaque otherwise: other people's
// local parts are never validated, only the domain is folded (RFC 7622, 3.1: the
// resource begins at the first slash, the local part ends at the first @ before it).
func splitJID(text string) (local, domain, resource string) {
	text, resource, _ = strings.Cut(text, "/")
	if l, d, ok := strings.Cut(text, "@"); ok {
		return l, fold(d), resource
	}
	return "", fold(text), resource
}

// bareJID gives the address without its resource.
func bareJID(text string) string {
	local, domain, _ := splitJID(text)
	if local == "" {
		return domain
	}
	return local + "@" + domain
}

// A template makes the local part of a person's address: literal text and
// placeholders in turn.
type template []piece

type piece struct {
	literal string
	field   string // id, tel, mail, mail-local; empty: literal
}

func parseTemplate(text string) (template, error) {
	var t template
	fields := 0
	for text != "" {
		literal, rest, open := strings.Cut(text, "{")
		if literal != "" {
			t = append(t, piece{literal: literal})
		}
		if !open {
			break
		}
		field, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, fmt.Errorf("%q: a { without its }", text)
		}
		if !slices.Contains([]string{"id", "tel", "mail", "mail-local"}, field) {
			return nil, fmt.Errorf("{%s} is none of {id}, {tel}, {mail}, {mail-local}", field)
		}
		t = append(t, piece{field: field})
		fields++
		text = after
	}
	if fields == 0 {
		return nil, errors.New("the address needs one of {id}, {tel}, {mail}, {mail-local}, or all people would share it")
	}
	return t, nil
}

// mint gives the local part of p's address, escaped (XEP-0106) and prepared as
// the server will write it.
func (t template) mint(p *presence.Person, host string) (string, error) {
	var b strings.Builder
	for _, part := range t {
		value := part.literal
		switch part.field {
		case "id":
			value = string(p.ID)
		case "tel":
			value = p.Address("tel")
		case "mail":
			value = p.Address("mail")
		case "mail-local":
			value, _, _ = strings.Cut(p.Address("mail"), "@")
		}
		if value == "" {
			return "", fmt.Errorf("has no %s", part.field)
		}
		b.WriteString(value)
	}
	j, err := jid.New(jid.Escape.String(strings.TrimSpace(b.String())), host, "")
	if err == nil && j.Localpart() == "" {
		err = errors.New("nothing is left of it")
	}
	if err != nil {
		return "", fmt.Errorf("makes no valid address: %w", err)
	}
	return j.Localpart(), nil
}
