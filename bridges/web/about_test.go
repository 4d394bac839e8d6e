package web

import (
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"presenced/bridges/web/signin"
	"presenced/docs"
)

func TestAbout(t *testing.T) {
	e := newEstate(t, office(), nil)
	e.unwell(0)
	page := parse(t, get(t, e.site(admin), "/about").Body.String())
	main := text(page.id(t, "main").Node)
	for _, want := range []string{"Version 1.2.3", "Go go1.", "Running 0 s , since", "store every write is on disk", "Part Verified against Not verified", "LDAP real OpenLDAP (slapd 2.5)"} {
		if !strings.Contains(main, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for _, n := range page.find(func(n *html.Node) bool { return n.Data == "a" && strings.HasPrefix(attr(n, "href"), "/docs/") }) {
		if rec := get(t, e.site(admin), attr(n, "href")); rec.Code != http.StatusOK {
			t.Errorf("%s: %d", attr(n, "href"), rec.Code)
		}
	}
	if page := get(t, e.site(signin.Identity{Account: "local:marta", Role: signin.Person, Token: "t", Scopes: signin.ReadStates}), "/about").Body.String(); strings.Contains(page, "every write is on disk") {
		t.Error("how the store fares is told to who may not see it")
	}
	for _, name := range []string{"nobody", "..%2fREADME", "docs.go", "%3Cscript%3E"} {
		if rec := get(t, e.site(admin), "/docs/"+name); rec.Code != http.StatusNotFound {
			t.Errorf("%s: %d", name, rec.Code)
		}
	}
}

// Every document is written without a leftover of Markdown, and each link leads somewhere.
func TestDocuments(t *testing.T) {
	s := newEstate(t, office(), nil).site(admin)
	for _, name := range docs.Names() {
		page := parse(t, get(t, s, "/docs/"+name).Body.String())
		prose := doc{page.class("prose")[0]}
		for _, n := range prose.find(func(n *html.Node) bool { return n.Data == "a" }) {
			href := attr(n, "href")
			path, place, _ := strings.Cut(href, "#")
			target := page
			if path != "" {
				rec := get(t, s, path)
				if rec.Code != http.StatusOK {
					t.Errorf("%s: the link %s leads nowhere", name, href)
				}
				target = parse(t, rec.Body.String())
			}
			if place != "" {
				target.id(t, place)
			}
		}
		for _, n := range prose.find(func(n *html.Node) bool { return n.Data == "p" || n.Data == "td" || n.Data == "li" }) {
			var plain string
			for c := range n.Descendants() {
				if c.Type == html.TextNode && c.Parent.Data != "code" {
					plain += c.Data + " "
				}
			}
			for _, left := range []string{"**", "](", "```", "| ---"} {
				if strings.Contains(plain, left) {
					t.Errorf("%s: %q is left in %.80q", name, left, plain)
				}
			}
		}
	}
}

func TestMarkdown(t *testing.T) {
	for text, want := range map[string]string{
		"# A *b*\n\ntext\nof two lines\n": "<h2 id=\"a-b\">A <em>b</em></h2>\n<p>text of two lines</p>\n",
		"- a\n- b `c|d`\n  more\n":        "<ul>\n<li>a\n</li>\n<li>b <code>c|d</code> more\n</li>\n</ul>\n",
		"1. a\n\n   b\n2. c\n":            "<ol>\n<li><p>a</p>\n<p>b</p>\n</li>\n<li>c\n</li>\n</ol>\n",
		"```\n<a>\n# b\n```\nc\n":         "<pre tabindex=\"0\"><code>&lt;a&gt;\n# b\n</code></pre>\n<p>c</p>\n",
		"[x](policy.md#the-rules) [y](https://example.com/) [z](javascript:alert) [w](../secret.md)": "<p><a href=\"/docs/policy#the-rules\">x</a> y z w</p>\n",
		"<script>`<b>`**<i>**": "<p>&lt;script&gt;<code>&lt;b&gt;</code><b>&lt;i&gt;</b></p>\n",
		"```\nnever closed":    "<pre tabindex=\"0\"><code>never closed\n</code></pre>\n",
		"":                     "",
		"####### seven":        "<p>####### seven</p>\n",
		"#":                    "<p>#</p>\n",
		"| a | b |\n| --- | --- |\n| `x\\|y` | z |": "<div class=\"scroll\" tabindex=\"0\"><table class=\"rows cards top-align\"><thead><tr><th scope=\"col\">a</th><th scope=\"col\">b</th></tr></thead><tbody>\n" +
			"<tr><th scope=\"row\"><code>x|y</code></th><td data-l=\"b\">z</td></tr>\n</tbody></table></div>\n",
	} {
		if got := string(markdown(text)); got != want {
			t.Errorf("%q\ngives %q\nwant  %q", text, got, want)
		}
	}
}

// Whatever a document holds, what is written has no element but those that markdown
// makes, and no address but those of documents.
func FuzzMarkdown(f *testing.F) {
	f.Add("# a\n- [x](y.md)\n  - b\n\n| a | b |\n|--|\n```\nc")
	f.Add("<script>[a](javascript:1)\n>**<img src=x onerror=1>**\n1. `<`")
	f.Add("- \n- - - - - - -\n\t\n#\x00\n[a](\x1b)\n[\"onclick=](\"onclick=.md)")
	made := "html head body h2 h3 h4 h5 h6 p ul ol li blockquote pre code b em a div table thead tbody tr th td"
	f.Fuzz(func(t *testing.T, text string) {
		written := markdown(text)
		page := parse(t, string(written))
		for _, n := range page.find(func(*html.Node) bool { return true }) {
			if !strings.Contains(" "+made+" ", " "+n.Data+" ") {
				t.Errorf("<%s> in %q", n.Data, written)
			}
			for _, a := range n.Attr {
				switch {
				case a.Key == "href" && (strings.HasPrefix(a.Val, "/docs/") || strings.HasPrefix(a.Val, "#") || a.Val == ""):
				case strings.Contains(" id class scope tabindex data-l ", " "+a.Key+" "):
				default:
					t.Errorf("%s=%q in %q", a.Key, a.Val, written)
				}
			}
		}
	})
}
