// Package xmltext reads and writes the text of small XML documents that come from
// and go to strangers: presence documents and the lists around them.
//
// Reading is bounded and allocates next to nothing: no document type, no entities
// but the five of XML and numbers, no encoding but UTF-8, names without their
// namespaces.
package xmltext
