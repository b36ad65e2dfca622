//go:build !kernel

package agent

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// nameless replaces the SAs of a device by those of somebody whose key identifiers
// are none.
func nameless(n *node, s *macsec.SecY) error {
	for _, err := range []error{deleteTx(n, s), deleteRx(n, s)} {
		if err != nil {
			return err
		}
	}
	sa := macsec.SA{AN: 1, Active: true, NextPN: 1, Key: secret.New(make([]byte, 32)), SSCI: 7}
	if err := n.kernel.AddTxSA(s.Index, sa); err != nil {
		return err
	}
	return n.kernel.AddRxSA(s.Index, s.RxSCs[0].SCI, sa)
}

// What a restarted agent may find that TestDriftIsPutRight does not have: it closes
// the parent first, and does not touch what is somebody else's.
func TestFoundAtTheStart(t *testing.T) {
	remake := func(n *node, s *macsec.SecY, change func(*macsec.DeviceConfig)) error {
		if err := n.kernel.DeleteDevice(s.Index); err != nil {
			return err
		}
		cfg := secy.DeviceConfig(s.SCI, s.CipherSuite)
		change(&cfg)
		d, err := n.kernel.CreateDevice(n.port.index, s.Name, cfg)
		if err == nil {
			err = n.kernel.UpdateDevice(d.Index, macsec.DeviceUpdate{Up: new(false)})
		}
		return err
	}
	for name, row := range map[string]struct {
		spoil func(n *node, s *macsec.SecY) error
		says  string // a fault, or the log
	}{
		"nothing":           {func(*node, *macsec.SecY) error { return nil }, "adopted_saks=1"},
		"SAs without names": {nameless, "foreign SA"},
		"wrong cipher": {func(n *node, s *macsec.SecY) error {
			return remake(n, s, func(c *macsec.DeviceConfig) { c.CipherSuite = macsec.GCMAES128 })
		}, "cipher suite"},
		"wrong ICV": {func(n *node, s *macsec.SecY) error {
			return remake(n, s, func(c *macsec.DeviceConfig) { c.ICVLen = 8 })
		}, "cipher suite"},
		"made open": {func(n *node, s *macsec.SecY) error {
			return remake(n, s, func(c *macsec.DeviceConfig) {
				*c = macsec.DeviceConfig{SCI: c.SCI, CipherSuite: c.CipherSuite, IncludeSCI: true}
			})
		}, "encrypt off"},
		"the SAs of nobody's key server": {func(n *node, s *macsec.SecY) error {
			if err := nameless(n, s); err != nil {
				return err
			}
			sa := macsec.SA{AN: 2, Active: true, NextPN: 1, KeyID: macsec.KeyID{9, 15: 1}, Key: secret.New(make([]byte, 32)), SSCI: 7}
			if err := n.kernel.AddTxSA(s.Index, sa); err != nil {
				return err
			}
			return n.kernel.UpdateDevice(s.Index, macsec.DeviceUpdate{EncodingAN: new(macsec.AN(2))})
		}, "foreign SA"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSecuredPair(t)
				time.Sleep(10 * time.Second)
				n := p.r1
				n.halt()
				if err := row.spoil(n, n.device()); err != nil {
					t.Fatal(err)
				}
				n.noted()
				n.start()
				synctest.Wait()
				did := n.noted()
				for i, what := range did {
					if what == "MKPDU" { // and nothing before it that could leak or delete
						did = did[:i]
						break
					}
				}
				if slices.ContainsFunc(did, func(what string) bool { return strings.Contains(what, "Add") || strings.Contains(what, "up=true") }) {
					t.Errorf("before it speaks it does %q", did)
				}
				time.Sleep(2 * time.Second)
				f := p.flow()
				f.closely(true)
				time.Sleep(8 * time.Second)
				f.end()
				if len(f.lost) > 0 || f.sent == 0 {
					t.Errorf("two seconds later %d of %d frames are lost, the first after %s", len(f.lost), f.sent, append(f.lost, "?")[0])
				}
				time.Sleep(10 * time.Second)
				p.secured(time.Second)
				if wrong := p.settled(); len(wrong) > 0 {
					t.Errorf("left over:\n%s", strings.Join(wrong, "\n"))
				}
				if !strings.Contains(p.r1.log.String(), row.says) {
					t.Errorf("nobody says %q", row.says)
				}
			})
		})
	}
}

// What has the device's name is left alone, the parent is closed nevertheless, and
// when it goes the link comes.
func TestDeviceNameTaken(t *testing.T) {
	for name, row := range map[string]struct {
		take func(n *node) (free func(), err error)
		code health.Code
		says string
	}{
		"on another parent": {func(n *node) (func(), error) {
			other := n.plug("eth5", n.port.wire, mka.MAC{2, 0, 0, 0, 5, 5})
			d, err := n.kernel.CreateDevice(other.index, "eth4-sec", macsec.DeviceConfig{IncludeSCI: true})
			return func() { _ = n.kernel.DeleteDevice(d.Index) }, err
		}, health.DeviceForeign, "eth5"},
		"of another kind": {func(n *node) (func(), error) {
			other := n.plug("eth4-sec", n.port.wire, mka.MAC{2, 0, 0, 0, 5, 5})
			return func() { n.unplug(other) }, nil
		}, health.LinkFailed, "eth4-sec"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSecuredPair(t)
				n := p.r1
				n.halt()
				if err := n.kernel.DeleteDevice(n.device().Index); err != nil {
					t.Fatal(err)
				}
				free, err := row.take(n)
				if err != nil {
					t.Fatal(err)
				}
				n.start()
				if f := n.awaitFault(time.Second, row.code); !strings.Contains(f.Text, row.says) {
					t.Errorf("%s", f)
				}
				time.Sleep(time.Minute)
				if s := n.status(); s.State != StateFailed || !n.now().fenced {
					t.Errorf("fenced %t, %+v", n.now().fenced, s)
				}
				free()
				n.awaitState(10*time.Second, StateSecured)
				time.Sleep(20 * time.Second)
				p.secured(time.Second)
				if wrong := p.settled(); len(wrong) > 0 {
					t.Errorf("left over:\n%s", strings.Join(wrong, "\n"))
				}
			})
		})
	}
}

// contradictions are records that a device vouches for and that are not true of it.
var contradictions = map[string]func(*linkFile){
	"no Port":            func(f *linkFile) { f.MKA = nil },
	"far ahead":          func(f *linkFile) { f.Generation = math.MaxUint64 },
	"no participants":    func(f *linkFile) { f.MKA.Participants = nil },
	"other CKN":          func(f *linkFile) { f.MKA.Participants[0].CKN = "nobody's" },
	"other MI":           func(f *linkFile) { f.MKA.Participants[0].MI = mka.MI{1} },
	"no MI":              func(f *linkFile) { f.MKA.Participants[0].MI = mka.MI{} },
	"the last MN":        func(f *linkFile) { f.MKA.Participants[0].MN = math.MaxUint32 },
	"the last KN":        func(f *linkFile) { f.MKA.Participants[0].KN = math.MaxUint32 },
	"no peers":           func(f *linkFile) { f.MKA.Participants[0].Peers = nil },
	"other peer":         func(f *linkFile) { f.MKA.Participants[0].Peers[0].MI = mka.MI{1} },
	"other peer's SCI":   func(f *linkFile) { f.MKA.Participants[0].Peers[0].SCI = mka.SCI{1} },
	"peer's own MI":      func(f *linkFile) { f.MKA.Participants[0].Peers[0].MI = f.MKA.Participants[0].MI },
	"peer's last MN":     func(f *linkFile) { f.MKA.Participants[0].Peers[0].MN = math.MaxUint32 },
	"peer's first MN":    func(f *linkFile) { f.MKA.Participants[0].Peers[0].MN = 0 },
	"peer's priority":    func(f *linkFile) { f.MKA.Participants[0].Peers[0].Priority = 1 },
	"twice":              func(f *linkFile) { f.MKA.Participants = append(f.MKA.Participants, f.MKA.Participants[0]) },
	"no SAK":             func(f *linkFile) { f.MKA.Latest = nil },
	"SAK of no CAK":      func(f *linkFile) { f.MKA.Latest.CKN = "" },
	"SAK of another CAK": func(f *linkFile) { f.MKA.Latest.CKN = "nobody's" },
	"other SAK":          func(f *linkFile) { f.MKA.Latest.MI = mka.MI{1} },
	"SAK before":         func(f *linkFile) { f.MKA.Latest.KN-- },
	"SAK after":          func(f *linkFile) { f.MKA.Latest.KN++ },
	"SAK long after":     func(f *linkFile) { f.MKA.Latest.KN = math.MaxUint32 },
	"other AN":           func(f *linkFile) { f.MKA.Latest.AN = 3 },
	"AN of no kind":      func(f *linkFile) { f.MKA.Latest.AN = 200 },
	"not in use":         func(f *linkFile) { f.MKA.Latest.Tx = false },
	"made in the future": func(f *linkFile) { f.MKA.Latest.Created += 1 << 40 },
	"made before time":   func(f *linkFile) { f.MKA.Latest.Created = math.MinInt64 },
	"no members":         func(f *linkFile) { f.MKA.Latest.Members = nil },
	"other member":       func(f *linkFile) { f.MKA.Latest.Members[0] = mka.MemberRecord{MI: mka.MI{1}, SCI: mka.SCI{1}} },
	"more members": func(f *linkFile) {
		f.MKA.Latest.Members = append(f.MKA.Latest.Members, mka.MemberRecord{MI: mka.MI{1}, SCI: mka.SCI{1}})
	},
	"itself as the old":   func(f *linkFile) { f.MKA.Olds = []*mka.KeyRecord{f.MKA.Latest} },
	"an old of nothing":   func(f *linkFile) { f.MKA.Olds = []*mka.KeyRecord{nil} },
	"old and latest":      func(f *linkFile) { f.MKA.Olds, f.MKA.Latest = []*mka.KeyRecord{f.MKA.Latest}, nil },
	"all that was spent":  func(f *linkFile) { f.MKA.Spent = nil },
	"spent by a stranger": func(f *linkFile) { f.MKA.Spent = []mka.SpentRecord{{MI: mka.MI{1}, KN: math.MaxUint32}} },
}

func TestRecordThatContradictsTheKernel(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(contradictions)) {
		t.Run(name, func(t *testing.T) {
			for end := range 2 {
				synctest.Test(t, func(t *testing.T) {
					p, b := newBookedPair(t)
					n := p.nodes()[end]
					if err := n.ask("rekey"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Second)
					f := p.flow()
					f.closely(true)
					had, err := readLinkFile(n.runDir, "l1")
					if err != nil || had == nil {
						t.Fatalf("%+v, %v", had, err)
					}
					contradictions[name](had)
					text, err := json.Marshal(had)
					if err != nil {
						t.Fatal(err)
					}
					b.again(n, string(text))
					n.awaitState(resecured, StateSecured)
					time.Sleep(time.Second)
					f.closely(false)
					time.Sleep(14 * time.Second) // what is taken for somebody else's doing is a fault for ten
					p.secured(0)
					if wrong := p.settled(); len(wrong) > 0 {
						t.Errorf("left over:\n%s", strings.Join(wrong, "\n"))
					}
					if err := n.ask("rekey"); err != nil {
						t.Errorf("rekey: %v", err)
					}
					time.Sleep(5 * time.Second)
					if wrong := p.settled(); len(wrong) > 0 {
						t.Errorf("left over after a rekey:\n%s", strings.Join(wrong, "\n"))
					}
					f.end()
					if len(f.lost) > 0 {
						t.Errorf("%d of %d frames lost, the first after %s", len(f.lost), f.sent, f.lost[0])
					}
				})
			}
		})
	}
}
