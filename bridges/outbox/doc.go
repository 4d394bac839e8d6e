// Package outbox holds what one receiver is to know of each person until the
// receiver has taken it: a webhook, an MQTT broker. It says who is given to the
// receiver (Audience), what is said (Document), and when it is sent (Box), and
// sends nothing itself.
//
// A receiver that is slow or away costs one document a person: the newest takes the
// place of what waits.
package outbox
