// Package documents writes and reads what SIP events carry beside presence
// itself: who watches (RFC 3858), the state of a list of resources (RFC 4662), the
// list that a subscription asks for (RFC 4826, 5367), and the dialogs of a phone
// (RFC 4235).
//
// All of it are functions of bytes. What is written is deterministic; what is read
// is bounded first, goes by the names of elements, and errors quote nothing of it.
package documents
