// Package csta is the wire form of Avaya's DMCC protocol: CSTA III XML
// (ECMA-323 edition 3 with the Avaya private data) and application sessions
// (ECMA-354), in the TCP framing without SOAP.
//
// It reads and writes bytes and knows no socket, no clock and no state. The
// telephony collector (package aes) uses it, and so may a simulator.
//
// No complete capture of an AES is public, so Decode is lenient: it matches
// elements by local name in any namespace, in any order, ignores what it does
// not know, takes every element as optional, and leaves an enumeration value
// that it does not know to the reader as text.
package csta
