package keys_test

import (
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
)

// Every code that a link's keys can have is worded by Fault without a gap.
func TestFindingsAreWorded(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 3, day, 4, 5, 6, 789, time.FixedZone("", 7200)) }
	for _, code := range keys.FindingCodes() {
		f := keys.Finding{
			Code: code, Side: keys.B, Epoch: keys.Epoch{Number: 7}, File: "/keys/b/l1/7.0.key", Where: "/keys/b/l1", WhereOther: "/keys/a/l1",
			Detail: "what was found", HighWater: keys.Epoch{Number: 6}, Began: at(1), Due: at(2), Until: at(3), Expires: at(4),
			Reason: "a flood", Signers: "ann, bob", Since: at(5),
		}.Fault()
		if _, declared := health.Lookup(code); !declared || strings.Contains(f.String(), "(unknown)") || !f.Since.Equal(at(5)) {
			t.Errorf("%s: %s", code, f)
		}
	}
	f := keys.Finding{Code: health.KeyAgeOverridden, Epoch: keys.Epoch{Number: 7}, Until: at(3), Expires: at(4), Reason: "a flood", Signers: "ann, bob"}.Fault()
	if want := "too old since 2026-03-03T02:05:06Z and stays in use until 2026-03-04T02:05:06Z, for a flood (signed by ann, bob)"; !strings.Contains(f.Text, want) {
		t.Errorf("%s: want %s", f, want)
	}
	if f := (keys.Finding{Code: health.CertificateEnding, File: "x.crt"}).Fault(); !strings.Contains(f.Text, "ends on (unknown)") {
		t.Errorf("a date that is not known: %s", f)
	}
}
