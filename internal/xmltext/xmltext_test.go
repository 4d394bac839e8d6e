package xmltext

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// scan tells what a Scanner finds, a line for each piece.
func scan(doc string) ([]string, error) {
	var found []string
	for s := New(doc); ; {
		kind, err := s.Next()
		if err != nil {
			return nil, err
		}
		switch kind {
		case EOF:
			return found, nil
		case Start:
			found = append(found, fmt.Sprintf("<%s id=%q a=%q", s.Name(), s.Attribute("id"), s.Attribute("a")))
		case Text:
			if s.Text() != "" {
				found = append(found, fmt.Sprintf("%q", s.Text()))
			}
		case End:
			found = append(found, fmt.Sprintf("> %s %d", s.Name(), s.Depth()))
		}
	}
}

var errElsewhere = errors.New("xmltext: what encoding/xml reads and a Scanner refuses, or the other way round")

// reference is scan with encoding/xml.
func reference(doc string) ([]string, error) {
	var found []string
	d := xml.NewDecoder(strings.NewReader(doc))
	depth, rooted := 0, false
	for {
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && !rooted:
			return nil, errors.New("no element")
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil && strings.Contains(err.Error(), "invalid XML name"): // by its tables of characters
			return nil, errElsewhere
		case err != nil:
			return nil, err
		}
		switch e := token.(type) {
		case xml.StartElement:
			if depth == MaxDepth || depth == 0 && rooted {
				return nil, errors.New("too deep, or a second document")
			}
			depth++
			rooted = true
			attribute := func(name string) string {
				for _, a := range e.Attr {
					if a.Name.Local == name && a.Name.Space != "xmlns" {
						return a.Value
					}
				}
				return ""
			}
			found = append(found, fmt.Sprintf("<%s id=%q a=%q", e.Name.Local, attribute("id"), attribute("a")))
		case xml.CharData:
			if depth > 0 && len(e) > 0 {
				found = append(found, fmt.Sprintf("%q", e))
			}
		case xml.EndElement:
			depth--
			found = append(found, fmt.Sprintf("> %s %d", e.Name.Local, depth))
		case xml.Directive:
			return nil, errors.New("a document type")
		}
	}
}

var forms = []string{
	"", "text", "<a/>", "<a></a>", "<a></b>", "<p:a></p:a>", "<p:a></a>", "<a><b/></a>", "<a>", "</a>", "<a/><b/>", "<a b/>", "<a b=c/>",
	"<a a='1' id=\"2\"/>", "<a a='1'id='2' a='3'/>", "<a xmlns:id='x' p:id='y'/>", "<a a='<'/>", "<a a='&lt;&#65;&#x4a;\r\n'/>", "<a a=\"'\" id = '\"' ></a >",
	"<a>&amp;&quot;&apos;&gt;</a>", "<a>&nbsp;</a>", "<a>&</a>", "<a>&#0;</a>", "<a>&#xD800;</a>", "<a>&#x110000;</a>", "<a>&#;</a>", "<a>&#X41;</a>",
	"<a>x\r\ny\rz</a>", "<a>]]></a>", "<a>]]&gt;</a>", "<a><![CDATA[<&amp;>\r\n]]>x</a>", "<a><![CDATA[]]]]></a>", "<a><![CDATA[</a>", "<a><![cdata[]]></a>",
	"<!-- a --><a/><!-- b -->", "<a><!-- -- --></a>", "<a><!---></a>", "<a><!----></a>", "<a>x<!-- a -->y</a>", "<a><!->", "<!DOCTYPE a><a/>",
	`<?xml version="1.0" encoding="utf-8"?><a/>`, `<?xml version="1.1"?><a/>`, `<?xml version='1.0' encoding='ISO-8859-1'?><a/>`, "<?pi?><a/>", "<?pi a?b?><a/>", "<??><a/>", "<?1?><a/>",
	"\uFEFF<a/>", "<a>\x00</a>", "<a>\xff</a>", "<a>\uFFFE</a>", "<a>\uFFFD</a>", "<a>ü€😀</a>", "<ü/>", "< a/>", "<a / >", "<1/>", "<:a/>", "<a:/>", "<a:b:c/>", "<:/>",
	strings.Repeat("<a>", MaxDepth) + strings.Repeat("</a>", MaxDepth), strings.Repeat("<a>", MaxDepth+1) + strings.Repeat("</a>", MaxDepth+1),
}

func compare(t *testing.T, doc string) {
	t.Helper()
	want, wantErr := reference(doc)
	if errors.Is(wantErr, errElsewhere) {
		return
	}
	got, err := scan(doc)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%q: %v, encoding/xml says %v", doc, err, wantErr)
	}
	if diff := cmp.Diff(want, got); err == nil && diff != "" {
		t.Fatalf("%q (-encoding/xml +got):\n%s", doc, diff)
	}
}

func TestScan(t *testing.T) {
	for _, doc := range forms {
		compare(t, doc)
	}
}

// A refusal says what to do about it.
func TestRefusals(t *testing.T) {
	for doc, want := range map[string]string{
		"<a>\n<b></a>": "not well-formed in line 2",
		`<?xml version="1.0" encoding="UTF-16"?><a/>`:        "an encoding is declared that is not UTF-8",
		"<!DOCTYPE a [<!ENTITY b 'secret'>]><a>&b;</a>":      "a document type is declared, which is never read",
		strings.Repeat("<a>", MaxDepth+1) + "&private-word;": "deeper than 32 elements",
	} {
		if _, err := scan(doc); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", doc, err, want)
		}
	}
}

// Random documents of pieces that matter are read as encoding/xml reads them.
func TestScanProperty(t *testing.T) {
	piece := rapid.SampledFrom([]string{"<", ">", "/", "a", "b", ":", "=", "'", "\"", " ", "<a>", "</a>", "<b a='1'", "/>", "&", "&lt;", ";", "#", "&#13;", "\r", "\n", "<!--", "-->", "<![CDATA[", "]]>", "]", "?", "<?", "?>", "xml", "ü"})
	rapid.Check(t, func(rt *rapid.T) {
		compare(t, "<a>"+strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(rt, "pieces"), "")+"</a>")
	})
}

func FuzzScan(f *testing.F) {
	for _, doc := range forms {
		f.Add(doc)
	}
	files, _ := filepath.Glob("../../bridges/pidf/testdata/*/*.xml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Fuzz(compare)
}

// What is written is read again, and is escaped as encoding/xml does it.
func TestWriter(t *testing.T) {
	check := func(t *rapid.T, text string) {
		var w Writer
		w.Raw("<a")
		w.Attribute("id", text)
		w.Raw(">")
		w.Text(text)
		w.Raw("</a>")
		var want bytes.Buffer
		if err := xml.EscapeText(&want, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(w, append([]byte(`id="`), append(want.Bytes(), '"')...)) {
			t.Fatalf("%q is written %s, encoding/xml writes %s", text, w, &want)
		}
		s := New(string(w))
		if _, err := s.Next(); err != nil {
			t.Fatalf("%s: %v", w, err)
		}
		if got := s.Attribute("id"); utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !character(r, 1) && r != utf8.RuneError }) && got != text {
			t.Fatalf("%q is read as %q", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text"))
	})
}
