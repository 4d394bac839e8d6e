package das

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A MailFile is a mail file on a server of the Client's map, found by Client.Locate.
type MailFile struct {
	Server string // the server's name as the map has it
	URL    string // where it is on the web, such as https://mail1.example.com/mail/jdoe.nsf
}

// Limits of a path that comes from a directory.
const (
	maxSegments = 8
	maxSegment  = 255 // bytes
)

// ServerKey gives the form in which two ways to write one Domino server name are
// equal: CN=Mail1/O=Acme, cn=mail1/o=acme and Mail1/Acme.
func ServerKey(name string) string {
	parts := strings.Split(strings.ToLower(name), "/")
	for i, part := range parts {
		if label, value, ok := strings.Cut(part, "="); ok {
			switch strings.TrimSpace(label) {
			case "cn", "ou", "o", "c":
				part = value
			}
		}
		parts[i] = strings.TrimSpace(part)
	}
	return strings.Join(parts, "/")
}

// SplitSubject takes SERVER!!mailfile apart. The server is in the form of
// ServerKey, the mail file as it was.
func SplitSubject(value string) (server, mailfile string, err error) {
	server, mailfile, ok := strings.Cut(value, "!!")
	if !ok || strings.TrimSpace(server) == "" || strings.TrimSpace(mailfile) == "" {
		return "", "", errors.New("not of the form Server/Organisation!!mailfile")
	}
	return ServerKey(server), mailfile, nil
}

// cleanPath makes the path of a mail file, as a directory has it, into the path
// of a URL, without a leading slash. It refuses everything that could lead
// elsewhere: the text is not trusted.
func cleanPath(mailfile string) (string, error) {
	text := strings.Trim(mailfile, " ")
	switch {
	case text == "":
		return "", errors.New("the mail file has no name")
	case !utf8.ValidString(text):
		return "", errors.New("the name of the mail file is not valid UTF-8")
	case strings.ContainsFunc(text, unicode.IsControl):
		return "", errors.New("the name of the mail file holds a control character")
	case strings.ContainsAny(text, ":?#%;"):
		return "", errors.New("the name of the mail file holds one of : ? # % ;")
	}
	text = strings.ReplaceAll(text, `\`, "/")
	for strings.Contains(text, "//") {
		text = strings.ReplaceAll(text, "//", "/")
	}
	if strings.HasPrefix(text, "/") {
		return "", errors.New("the name of the mail file begins with a slash")
	}
	segments := strings.Split(text, "/")
	if len(segments) > maxSegments {
		return "", fmt.Errorf("the name of the mail file has more than %d parts", maxSegments)
	}
	last := len(segments) - 1
	switch dot := strings.LastIndexByte(segments[last], '.'); {
	case segments[last] == "." || segments[last] == "..": // refused below
	case dot < 0:
		segments[last] += ".nsf"
	case !strings.EqualFold(segments[last][dot:], ".nsf"):
		return "", errors.New("the name of the mail file ends in something other than .nsf")
	}
	for i, s := range segments {
		if err := checkSegment(s, i == last); err != nil {
			return "", err
		}
		segments[i] = url.PathEscape(s)
	}
	if last == 0 {
		switch strings.ToLower(segments[0]) {
		case "names.nsf", "admin4.nsf", "log.nsf":
			return "", errors.New("the file is a database of the server, no mail file")
		}
	}
	return strings.Join(segments, "/"), nil
}

func checkSegment(s string, last bool) error {
	switch {
	case s == "" || s == "." || s == "..":
		return errors.New("the name of the mail file has a part that is empty, a dot or two dots")
	case len(s) > maxSegment:
		return fmt.Errorf("a part of the name of the mail file has more than %d bytes", maxSegment)
	case strings.TrimSpace(s) != s || strings.HasSuffix(s, "."):
		// Windows drops these, so that such a part may come out as "..".
		return errors.New("a part of the name of the mail file begins or ends with a space, or ends with a dot")
	case last && strings.EqualFold(s, ".nsf"):
		return errors.New("the mail file has no name")
	case !last && (strings.HasSuffix(strings.ToLower(s), ".nsf") || strings.HasSuffix(strings.ToLower(s), ".ntf")):
		// Domino would open that database and take the rest for something in it.
		return errors.New("a folder in the name of the mail file is a database")
	}
	return nil
}

// under puts path behind base, and tells whether the result is where base is.
func under(base *url.URL, path string) (string, error) {
	full := strings.TrimRight(base.String(), "/") + "/" + path
	u, err := url.Parse(full)
	if err != nil || u.Scheme != base.Scheme || u.Host != base.Host || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("the name of the mail file leads to another server")
	}
	return full, nil
}
