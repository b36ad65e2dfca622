package keys_test

import (
	"slices"
	"testing"

	"github.com/lever-link/lever/internal/keys"
)

func TestParseEpoch(t *testing.T) {
	for _, good := range []string{"1.0", "42.0", "42.1", "18446744073709551615.4294967295"} {
		if e, err := keys.ParseEpoch(good); err != nil || e.String() != good {
			t.Errorf("%q: %s %v", good, e, err)
		}
	}
	for _, bad := range []string{
		"", ".", "1", "1.", ".1", "0.0", "0.1", "01.0", "1.00", "1.01", "+1.0", "-1.0", "1.-0", "1.0.0", " 1.0", "1.0\n",
		"1e3.0", "0x1.0", "1_0.0", "18446744073709551616.0", "1.4294967296", "١.0",
	} {
		if e, err := keys.ParseEpoch(bad); err == nil {
			t.Errorf("%q was read as %s", bad, e)
		}
	}
}

func FuzzParseEpoch(f *testing.F) {
	f.Add("42.0")
	f.Add("0.0")
	f.Add("18446744073709551615.4294967295")
	f.Fuzz(func(t *testing.T, s string) {
		if e, err := keys.ParseEpoch(s); err == nil && (e.String() != s || e.IsZero()) {
			t.Errorf("%q was read as %s", s, e)
		}
	})
}

func TestEpochOrder(t *testing.T) {
	var got []keys.Epoch
	for _, s := range []string{"10.0", "2.9", "9.4294967295", "2.10", "1.0"} {
		got = append(got, epoch(t, s))
	}
	got = append(got, keys.Epoch{})
	slices.SortFunc(got, keys.Epoch.Compare)
	want := []string{"0.0", "1.0", "2.9", "2.10", "9.4294967295", "10.0"}
	for i := range want {
		if got[i].String() != want[i] {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}
