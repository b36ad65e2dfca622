package mka

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lever-link/lever/internal/secret"
)

func TestDistributedCAKRoundTrip(t *testing.T) {
	w24 := bytes.Repeat([]byte{0x24}, 24)
	h24 := strings.Repeat("24", 24)
	for _, c := range []struct {
		name string
		cak  DistributedCAK
		want string
	}{
		{"shortest", DistributedCAK{Wrapped: w24, CKN: []byte("a")}, "05000019" + h24 + "61000000"},
		{"longest", DistributedCAK{Wrapped: w24, CKN: bytes.Repeat([]byte("z"), 32)}, "05000038" + h24 + strings.Repeat("7a", 32)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := hello()
			m.DistributedCAK = c.cak
			m.DistributedCAK.Present = true
			testRoundTrip(t, m, c.want)
		})
	}
}

// TestDistributedCAKSplit reads bodies that can be read in two ways: as long as
// the CAK that signs the frame, unless that is impossible.
func TestDistributedCAKSplit(t *testing.T) {
	for _, signer := range []int{16, 32} {
		ick, err := NewICK(secret.Clone(make([]byte, signer)))
		if err != nil {
			t.Fatal(err)
		}
		for body := range 80 {
			set := appendSetHeader(nil, SetDistributedCAK, 0, 0, body)
			for i := range body {
				set = append(set, byte(i))
			}
			var m MKPDU
			err := read(&m, signedWith(t, ick, pad(set, 0)), ick)
			want := 0
			switch {
			case body < 25 || body > 72:
			case signer == 32 && body > 40, body > 56:
				want = 40
			default:
				want = 24
			}
			if want == 0 {
				checkLength(t, &m, err, true, "body of %d", body)
				continue
			}
			d := m.DistributedCAK
			if err != nil || len(d.Wrapped) != want || len(d.CKN) != body-want {
				t.Errorf("signer of %d, body of %d: wrapped %d, CKN %d, %v", signer, body, len(d.Wrapped), len(d.CKN), err)
				continue
			}
			other, ok := d.Split(16 + 32 - (want - 8))
			if wantOK := body > 40 && body <= 56; ok != wantOK {
				t.Errorf("body of %d read as the other: %v", body, ok)
			} else if ok {
				if back, _ := other.Split(want - 8); !cmp.Equal(back, d) {
					t.Errorf("body of %d: %+v there, %+v back", body, other, back)
				}
			}
		}
	}
}

func TestDistributedCAKTruncation(t *testing.T) {
	testTruncation(t, unhex(t, "05000038"+strings.Repeat("ab", 56)), func(n int) bool { return n > 24 })
}

func TestDistributedCAKUnfit(t *testing.T) {
	set := func(wrapped, ckn int) func(*MKPDU) {
		return func(m *MKPDU) {
			m.DistributedCAK = DistributedCAK{Present: true, Wrapped: make([]byte, wrapped), CKN: make([]byte, ckn)}
		}
	}
	testUnfit(t, map[string]func(*MKPDU){
		"wrapped": set(32, 16), "nothing wrapped": set(0, 16), "no CKN": set(24, 0), "long CKN": set(40, 33),
	})
}

func FuzzDistributedCAK(f *testing.F) {
	fuzzSet(f, SetDistributedCAK, "05000019"+strings.Repeat("24", 24)+"61000000", "05000048"+strings.Repeat("40", 72))
}
