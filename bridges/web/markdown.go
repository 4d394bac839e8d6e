package web

import (
	"html/template"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// markdown writes a document as HTML. It knows what the documents of presenced are
// written with: headings, paragraphs, lists, tables, quotes, code, emphasis and links. All
// text is escaped; a link leads to another document, to a place in one, or nowhere.
func markdown(text string) template.HTML {
	m := mark{lines: strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")}
	m.blocks(0)
	return template.HTML(m.out.String()) //nolint:gosec // made of escaped text and of fixed elements
}

// A mark is a document that is being written.
type mark struct {
	lines []string
	out   strings.Builder
}

// blocks writes all lines that are left.
func (m *mark) blocks(depth int) {
	for len(m.lines) > 0 {
		line := m.lines[0]
		trimmed := strings.TrimSpace(line)
		switch level := headingLevel(trimmed); {
		case trimmed == "":
			m.lines = m.lines[1:]
		case strings.HasPrefix(trimmed, "```"):
			m.code()
		case level > 0:
			m.lines = m.lines[1:]
			title := strings.TrimSpace(trimmed[level:])
			tag := "h" + strconv.Itoa(max(level, 2)) // the first is that of the page
			m.out.WriteString("<" + tag + ` id="` + template.HTMLEscapeString(anchor(title)) + `">` + inline(title) + "</" + tag + ">\n")
		case strings.HasPrefix(trimmed, "|"):
			m.table()
		case strings.HasPrefix(trimmed, ">"):
			m.out.WriteString("<blockquote><p>" + inline(m.while(func(l string) bool { return strings.HasPrefix(l, ">") }, func(l string) string { return strings.TrimPrefix(l, ">") })) + "</p></blockquote>\n")
		case bullet.MatchString(line) && depth < maxMarkDepth:
			m.list(depth)
		default:
			m.out.WriteString("<p>" + inline(m.while(func(l string) bool { return !begins(l) }, nil)) + "</p>\n")
		}
	}
}

const maxMarkDepth = 4 // of lists within one another

var (
	bullet = regexp.MustCompile(`^ {0,3}(?:[*-]|[0-9]{1,3}\.) +`) //nolint:gochecknoglobals // a pattern, never changed
	// One of: code, bold, emphasis, a link.
	spans = regexp.MustCompile("`([^`]+)`" + `|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\(([^)\s]+)\)`) //nolint:gochecknoglobals // a pattern, never changed
)

// begins tells whether a trimmed line ends a paragraph.
func begins(line string) bool {
	return line == "" || headingLevel(line) > 0 || strings.HasPrefix(line, "|") || strings.HasPrefix(line, "```") || strings.HasPrefix(line, ">") || bullet.MatchString(line)
}

func headingLevel(line string) int {
	level := len(line) - len(strings.TrimLeft(line, "#"))
	if level > 6 || level == len(line) || level > 0 && line[level] != ' ' {
		return 0
	}
	return level
}

// while takes the first line, and those after it that fit, as one text.
func (m *mark) while(fits func(string) bool, strip func(string) string) string {
	var parts []string
	for i := 0; len(m.lines) > 0; i++ {
		line := strings.TrimSpace(m.lines[0])
		if i > 0 && !fits(line) {
			break
		}
		if strip != nil {
			line = strings.TrimSpace(strip(line))
		}
		parts = append(parts, line)
		m.lines = m.lines[1:]
	}
	return strings.Join(parts, " ")
}

func (m *mark) code() {
	m.lines = m.lines[1:]
	m.out.WriteString(`<pre tabindex="0"><code>`)
	for len(m.lines) > 0 {
		line := m.lines[0]
		m.lines = m.lines[1:]
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			break
		}
		m.out.WriteString(template.HTMLEscapeString(line) + "\n")
	}
	m.out.WriteString("</code></pre>\n")
}

// list writes one list. What is indented below an item belongs to it.
func (m *mark) list(depth int) {
	tag := "ul"
	if first := strings.TrimSpace(m.lines[0]); unicode.IsDigit(rune(first[0])) {
		tag = "ol"
	}
	m.out.WriteString("<" + tag + ">\n")
	for len(m.lines) > 0 && bullet.MatchString(m.lines[0]) {
		room := len(bullet.FindString(m.lines[0]))
		item := mark{lines: []string{m.lines[0][room:]}}
		for m.lines = m.lines[1:]; len(m.lines) > 0; m.lines = m.lines[1:] {
			line := m.lines[0]
			indent := len(line) - len(strings.TrimLeft(line, " "))
			blank := strings.TrimSpace(line) == ""
			goesOn := indent >= 2 || !blank && indent == 0 && !begins(line)
			if blank && len(m.lines) > 1 {
				goesOn = strings.HasPrefix(m.lines[1], "  ")
			}
			if !goesOn {
				break
			}
			item.lines = append(item.lines, line[min(indent, room):])
		}
		item.blocks(depth + 1)
		body := item.out.String()
		if strings.Count(body, "<p>") == 1 && strings.HasPrefix(body, "<p>") { // one paragraph needs none
			body = strings.Replace(strings.Replace(body, "<p>", "", 1), "</p>", "", 1)
		}
		m.out.WriteString("<li>" + body + "</li>\n")
		for len(m.lines) > 1 && strings.TrimSpace(m.lines[0]) == "" && bullet.MatchString(m.lines[1]) {
			m.lines = m.lines[1:]
		}
	}
	m.out.WriteString("</" + tag + ">\n")
}

func (m *mark) table() {
	var rows [][]string
	for len(m.lines) > 0 && strings.HasPrefix(strings.TrimSpace(m.lines[0]), "|") {
		rows = append(rows, cells(m.lines[0]))
		m.lines = m.lines[1:]
	}
	head, body := rows[0], rows[1:]
	if len(body) > 0 && strings.Trim(strings.Join(body[0], ""), "-: ") == "" {
		body = body[1:]
	}
	m.out.WriteString(`<div class="scroll" tabindex="0"><table class="rows cards top-align"><thead><tr>`)
	for _, cell := range head {
		m.out.WriteString(`<th scope="col">` + inline(cell) + "</th>")
	}
	m.out.WriteString("</tr></thead><tbody>\n")
	for _, row := range body {
		m.out.WriteString("<tr>")
		for i, cell := range row {
			label := ""
			if i < len(head) {
				label = ` data-l="` + template.HTMLEscapeString(head[i]) + `"`
			}
			if i == 0 {
				m.out.WriteString(`<th scope="row">` + inline(cell) + "</th>")
			} else {
				m.out.WriteString("<td" + label + ">" + inline(cell) + "</td>")
			}
		}
		m.out.WriteString("</tr>\n")
	}
	m.out.WriteString("</tbody></table></div>\n")
}

// cells parts a row of a table at the bars that are not escaped.
func cells(line string) []string {
	line = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "|"), "|")
	const bar = "\x00"
	parts := strings.Split(strings.ReplaceAll(line, `\|`, bar), "|")
	for i := range parts {
		parts[i] = strings.TrimSpace(strings.ReplaceAll(parts[i], bar, "|"))
	}
	return parts
}

// inline writes the text of a block.
func inline(text string) string {
	var b strings.Builder
	for text != "" {
		at := spans.FindStringSubmatchIndex(text)
		if at == nil {
			break
		}
		b.WriteString(template.HTMLEscapeString(text[:at[0]]))
		group := func(n int) string { return text[at[2*n]:at[2*n+1]] }
		switch {
		case at[2] >= 0:
			b.WriteString("<code>" + template.HTMLEscapeString(group(1)) + "</code>")
		case at[4] >= 0:
			b.WriteString("<b>" + inline(group(2)) + "</b>")
		case at[6] >= 0:
			b.WriteString("<em>" + inline(group(3)) + "</em>")
		default:
			if to := documentLink(group(5)); to != "" {
				b.WriteString(`<a href="` + template.HTMLEscapeString(to) + `">` + inline(group(4)) + "</a>")
			} else {
				b.WriteString(inline(group(4)))
			}
		}
		text = text[at[1]:]
	}
	b.WriteString(template.HTMLEscapeString(text))
	return b.String()
}

// documentLink gives where a link of a document leads on this page; empty: nowhere.
func documentLink(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || u.RawQuery != "" {
		return ""
	}
	place := ""
	if u.Fragment != "" {
		place = "#" + url.PathEscape(u.Fragment)
	}
	if u.Path == "" {
		return place
	}
	name, isDocument := strings.CutSuffix(u.Path, ".md")
	if !isDocument || strings.ContainsAny(name, "/\\.") {
		return ""
	}
	return "/docs/" + url.PathEscape(name) + place
}

// anchor gives the id of a heading, as links to it name it.
func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, title)
}
