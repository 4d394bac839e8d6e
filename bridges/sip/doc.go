// Package sip publishes presence to a SIP presence server: one PUBLISH
// publication (RFC 3903) for each person, with a PIDF document, kept alive,
// changed and removed as people change. A second server stands in where the
// first one fails.
//
// publication.go is the protocol as a state machine without I/O. publisher.go
// is the bridge: it owns the sockets, the timers and the pace. Only cmd makes one.
package sip
