package macsectest_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"testing"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

type octets []byte

func (o *octets) UnmarshalText(b []byte) (err error) {
	*o, err = hex.DecodeString(string(b))
	return err
}

type vector struct {
	Name, Suite              string
	SAK, DA, SA, SecTAG      octets
	UserData                 octets `json:"user_data"`
	Frame, Salt              octets
	SCI                      macsec.SCI
	SCIOnWire                bool `json:"sci_on_wire"`
	PN32, PN64, SSCI         string
	IV, AAD, SecureData, ICV octets
}

func (v vector) number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return n
}

// TestVectors sends and receives the frames of IEEE 802.1AE annex C.
func TestVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/macsec_frames.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []vector }
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	suites := map[string]macsec.CipherSuite{}
	for _, s := range []macsec.CipherSuite{macsec.GCMAES128, macsec.GCMAES256, macsec.GCMAESXPN128, macsec.GCMAESXPN256} {
		suites[s.String()] = s
	}
	if len(file.Vectors) < 10 {
		t.Fatalf("%d vectors, at least 10 expected", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			tci := v.SecTAG[2]
			sa := macsec.SA{AN: macsec.AN(tci & 3), Active: true, Key: macsec.NewKey(bytes.Clone(v.SAK))}
			suite := suites[v.Suite]
			if suite.XPN() {
				sa.NextPN, sa.SSCI, sa.Salt = v.number(t, v.PN64), macsec.SSCI(v.number(t, v.SSCI)), macsec.Salt(v.Salt)
			} else {
				sa.NextPN = v.number(t, v.PN32)
			}
			cfg := macsec.Closed(v.SCI, suite)
			cfg.Encrypt, cfg.EncodingAN = tci&0x08 != 0, sa.AN
			if !v.SCIOnWire {
				cfg.IncludeSCI, cfg.EndStation = false, true
				cfg.SCI = macsec.NewSCI(nil, v.SCI.Port())
			}
			k := macsectest.New()
			parent := k.AddInterface("eth0", v.SCI.MAC(), 1500)
			d, err := k.CreateDevice(parent, "ms0", cfg)
			if err != nil {
				t.Fatal(err)
			}
			up := true
			for _, err := range []error{
				k.AddTxSA(d.Index, sa), k.AddRxSC(d.Index, v.SCI, true), k.AddRxSA(d.Index, v.SCI, sa),
				k.UpdateDevice(d.Index, macsec.DeviceUpdate{Up: &up}),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			plain := bytes.Join([][]byte{v.DA, v.SA, v.UserData}, nil)
			wire, err := k.Transmit(d.Index, plain)
			if err != nil || !bytes.Equal(wire, v.Frame) {
				t.Errorf("sent\n %x, %v, want\n %x", wire, err, v.Frame)
			}
			got, err := k.Receive(d.Index, v.Frame)
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("received\n %x, %v, want\n %x", got, err, plain)
			}
		})
	}
}
