// Package lps is the Local Presence Service: a SIP event state compositor (RFC
// 3903) and presence agent (RFC 3856, 6665). Endpoints PUBLISH here, and are
// sources of the aggregator by that; watchers SUBSCRIBE here and get NOTIFY, each
// what the access rules let them see.
//
// The two machines, Publications and Subscriptions, are sans-I/O: they take
// requests, answers, states and the time, and say what is to be answered and
// sent. Service has the sockets, the timers and the locks.
package lps
