package aes

import (
	"testing"

	"presenced/aes/csta"
	"presenced/aggregator/presence"
)

// FuzzModel lets any events and snapshots come in any order: the model stays within its
// bounds, and what it says is a report that counts.
func FuzzModel(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 5, 1, 0, 1, 6, 1, 0, 2, 7, 1, 0, 3, 16, 1, 0, 0})
	f.Add([]byte{5, 1, 1, 2, 6, 2, 1, 3, 9, 1, 2, 3, 200, 1, 2, 3, 10, 2, 1, 0})
	f.Add([]byte{201, 0, 0, 0, 203, 9, 9, 9, 202, 1, 1, 1, 204, 2, 0, 0})
	states := []csta.LocalState{"", csta.StateNull, csta.StateInitiated, csta.StateAlerting, csta.StateConnected, csta.StateHold, csta.StateQueued, csta.StateFail, "other"}
	devices := []string{own, ann, bob, "T513#2:CM1::0", "", "::::"}
	f.Fuzz(func(t *testing.T, script []byte) {
		m := newKnown()
		for i := 0; i+4 <= len(script) && i < 4000; i += 4 {
			what, call, who, how := script[i], string(rune('A'+script[i+1])), devices[int(script[i+2])%len(devices)], states[int(script[i+3])%len(states)]
			now := at(i)
			c := csta.Connection{CallID: call, DeviceID: who, Dynamic: script[i+3]&0x80 != 0}
			switch {
			case what < 200:
				e := csta.CallEvent{
					Kind: csta.CallKind(what % 18), Connection: c, Device: devices[int(script[i+3]>>4)%len(devices)], Calling: devices[int(script[i+1])%len(devices)], Local: how,
					PrimaryOld: c, SecondaryOld: csta.Connection{CallID: string(rune('A' + script[i+2]))}, Added: who,
				}
				for range int(script[i+2]) % 5 {
					e.Parties = append(e.Parties, csta.Party{New: c, Endpoint: who})
				}
				m.event(&e, now)
			case what < 220:
				m.ask()
				m.snapshot([]csta.CallInfo{{Connection: c, Compound: []csta.LocalState{how, csta.StateConnected}}}, []string{"inService", "outOfService", "unknown", ""}[what%4], now, now)
			case what < 230:
				m.service(what%2 == 0, now)
			case what < 240:
				m.dndEvent(csta.Flag(what%3), now)
			default:
				m.registration(what%2 == 0, now)
			}
			r := presence.Report{Source: "a", Subject: presence.Subject{Scheme: "tel", Value: "4750"}, At: now, Spans: m.spans(now)}
			if err := r.Check(); err != nil || len(m.calls) > maxCalls || len(m.ended) > maxEnded {
				t.Fatalf("%v: %d calls, %d ended", err, len(m.calls), len(m.ended))
			}
		}
	})
}
