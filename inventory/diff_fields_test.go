package inventory

import "testing"

// TestEveryFieldIsDecided wants a word on each field of the inventory: what its
// change means for a session that runs.
func TestEveryFieldIsDecided(t *testing.T) {
	decided := func(name string) {
		if _, ok := lasting[name]; !ok {
			t.Errorf("lasting does not say what a change of %s means: it restarts every session until it does", name)
		}
	}
	for name := range exported(&Link{}, &Link{}) {
		if name != "id" && name != "verdict" && name != "ends" {
			decided(name)
		}
	}
	for name := range exported(&Policy{}, &Policy{}) {
		decided("policy." + name)
	}
	for name := range exported(&Channels{}, &Channels{}) {
		decided("channels." + name)
	}
}
