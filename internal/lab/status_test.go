package lab

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lever-link/lever/macsec"
)

func TestParseStatus(t *testing.T) {
	const good = `{"node":"fra1-r1","links":[{"id":"other"},{"id":"fra1-ams1-017","state":"secured","cipher":"GCM-AES-XPN-256",
		"ckn":"00112233445566778899","epoch":"1.0","key_server":"02","local_sci":"02","an":1,"kn":7,
		"secured_since":"2026-01-02T03:04:05.678Z","faults":[{"code":"channel-late","text":"epoch 2"}],"added_later":true}]}`
	tests := []struct{ Name, out, err string }{
		{"good", good, ""},
		{"another node", strings.Replace(good, "fra1-r1", "ams1-r2", 1), `says that it is node "ams1-r2"`},
		{"no such link", strings.Replace(good, "fra1-ams1-017", "x", 1), "does not list link fra1-ams1-017"},
		{"no JSON", "LINK  STATE", "invalid character"},
	}
	for _, tt := range tests {
		t.Run(tt.Name, func(t *testing.T) {
			var s NodeStatus
			err := json.Unmarshal([]byte(tt.out), &s)
			l := LinkStatus{}
			if err == nil {
				l, err = s.Of("fra1-r1", "fra1-ams1-017")
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := "state secured, CKN 001122334455…, KN 7, AN 1; channel-late: epoch 2"; l.String() != want {
				t.Errorf("%q, want %q", l, want)
			}
			if l.Epoch != "1.0" {
				t.Errorf("epoch %q", l.Epoch)
			}
			if l.SecuredSince.Nanosecond() != 678e6 {
				t.Errorf("secured since %v", l.SecuredSince)
			}
			if _, ok := l.Fault("channel-late"); !ok {
				t.Error("the fault was not found")
			}
			if _, ok := l.Fault("peer-lost"); ok {
				t.Error("a fault was found that is not there")
			}
		})
	}
}

func TestInUse(t *testing.T) {
	old, now := macsec.KeyID{15: 1}, macsec.KeyID{15: 2}
	secy := func(an macsec.AN, rx ...macsec.SA) *macsec.SecY {
		s := &macsec.SecY{RxSCs: []macsec.RxSC{{Active: true, SAs: rx}}}
		s.EncodingAN = an
		s.TxSC.SAs = []macsec.SA{{AN: 0, Active: true, KeyID: old}, {AN: 1, Active: true, KeyID: now}, {AN: 2, KeyID: now}}
		return s
	}
	tests := []struct {
		Name string
		s    *macsec.SecY
		key  macsec.KeyID
		both bool
	}{
		{"both ways", secy(1, macsec.SA{AN: 1, Active: true, KeyID: now}), now, true},
		{"received inactive", secy(1, macsec.SA{AN: 1, KeyID: now}), now, false},
		{"received under another key", secy(1, macsec.SA{AN: 1, Active: true, KeyID: old}), now, false},
		{"not received", secy(0), old, false},
		{"encoding SA inactive", secy(2, macsec.SA{AN: 2, Active: true, KeyID: now}), macsec.KeyID{}, false},
		{"no encoding SA", secy(3), macsec.KeyID{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.Name, func(t *testing.T) {
			if key, _, both := KeyInUse(tt.s); key != tt.key || both != tt.both {
				t.Errorf("key %v, both ways %v; want %v, %v", key, both, tt.key, tt.both)
			}
		})
	}
}
