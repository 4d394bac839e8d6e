// Package docs holds the documentation, so that the service can show that of its own
// version.
package docs

import "embed"

//go:embed *.md
var files embed.FS

// Names gives the name of each document, without .md, in an order to be read in.
func Names() []string {
	return []string{"operating", "policy", "configuration", "api", "security", "support", "architecture", "performance"}
}

// Read gives a document as Markdown; ok is false where there is none of this name.
func Read(name string) (text string, ok bool) {
	data, err := files.ReadFile(name + ".md")
	return string(data), err == nil
}
