// Package aes is the telephony collector: it monitors the extensions of an
// Avaya Communication Manager through Application Enablement Services, and
// states what each phone is doing.
//
// Three parts, each testable without the next: the call model of one device
// (calls.go) turns call events and snapshots into spans; Link (link.go and its
// neighbours) is the session machine, which logs in, monitors, asks, and keeps
// alive; Source (source.go) owns the socket and the timers. Model and Link do
// no I/O and know no clock: time is an argument.
//
// Only cmd and tests import it.
package aes
