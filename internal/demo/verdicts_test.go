package demo

import "testing"

func TestCheckSays(t *testing.T) {
	const table = "LINK            VERDICT  REASON\nfra1-ams1-017   encrypt  segment 2 (leased-wave)\nfra1-r1-r2-001  inside   every segment\n"
	for _, tt := range []struct {
		link, verdict string
		want          bool
	}{
		{"fra1-ams1-017", "encrypt", true}, {"fra1-ams1-017", "inside", false},
		{"fra1-r1-r2-001", "inside", true}, {"fra1", "encrypt", false},
	} {
		if got := checkSays(table, tt.link, tt.verdict); got != tt.want {
			t.Errorf("checkSays(%s, %s) = %v", tt.link, tt.verdict, got)
		}
	}
}
