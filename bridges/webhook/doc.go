// Package webhook tells other programs of presence by HTTP: each change of a person
// is a signed POST, as the Standard Webhooks specification 1.0.0 has it. cmd makes a
// Hook for each entry of the configuration and lets the supervisor run it.
//
// A person waits once, with the newest state. What fails is tried again, given up
// after a while, and kept as a dead letter until it is tried again by hand or
// something newer is to be said. After a start everybody is sent anew, because a
// request under way when the process died may have been taken or not; of the store
// a hook needs only whom the receiver may know of.
package webhook
