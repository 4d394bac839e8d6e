// Package network subscribes to the presence of people at a SIP presence server and
// makes facts of what that says: network presence (RFC 6665, 3856, 4662).
//
// subscription.go is the protocol as a state machine without I/O, one for each
// dialog. account.go is what is known of people by it. subscriber.go is the source: it
// owns the socket, the timers and the pace. Only cmd makes one.
package network
