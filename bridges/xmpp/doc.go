// Package xmpp republishes presence to the users of an XMPP server, as an
// external component (XEP-0114) with addresses of its own, such as
// ann@presence.example.com. It holds the component stream, the subscription
// machine (RFC 6121), the mapping of states to stanzas, and the answers to
// queries. cmd makes a Component and lets the supervisor run it; nothing else
// imports this package.
//
// No server replays presence for a component. So the bridge keeps who subscribed
// and what was sent in a Memory, and brings every watcher up to date by itself
// after each connection.
package xmpp
