// Package wire carries SIP messages (RFC 3261) for a presence server and its
// subscriptions: sockets, parsing, validation and transactions, in the order in
// which messages come and at little cost. It knows no presence: a handler is
// called with each valid request, once per transaction, and requests are sent
// with one answer each.
//
// Messages with the same key (the Request-URI of a PUBLISH, else the Call-ID) are
// handled one after the other, in order of receipt. Everything is bounded: what
// is too much is refused, dropped or closed, and counted (Status).
package wire
