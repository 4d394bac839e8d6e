// Package pidf writes and reads presence documents: PIDF (RFC 3863) with the
// presence data model (RFC 4479), rich presence (RPID, RFC 4480) and names (CIPID,
// RFC 4482), and writes partial ones (RFC 5262). It says what a state is as a
// document, and what facts the document of a client states.
//
// What is written is deterministic: equal knowledge gives equal bytes, and no
// document says when it was written. What is read is bounded before it is
// looked at, and forgiving about the forms that phones and older servers send.
//
// Every bridge may import it; it does no I/O.
package pidf
