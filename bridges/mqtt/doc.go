// Package mqtt publishes presence to an MQTT 5 broker: one retained topic a person,
// an availability topic that the broker sets when presenced is gone, and, where
// configured, the discovery of Home Assistant. cmd makes a Publisher for each entry
// of the configuration and lets the supervisor run it.
//
// What the broker retains is what is to be remembered, so nothing is kept here. After
// each connection everybody is published again, and what the broker still has of
// people who left is taken back.
package mqtt
