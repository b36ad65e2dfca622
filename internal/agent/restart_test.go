//go:build !kernel

package agent

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

// sas says which SAKs a device holds: a restart that resumes changes nothing.
func sas(s *macsec.SecY) (ids []string) {
	for _, sa := range s.TxSC.SAs {
		ids = append(ids, "tx "+sa.KeyID.String())
	}
	for _, sc := range s.RxSCs {
		for _, sa := range sc.SAs {
			ids = append(ids, "rx "+sa.KeyID.String())
		}
	}
	slices.Sort(ids)
	return ids
}

func TestRestartResumesWithTheSameSAK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		if err := p.r1.ask("rekey"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		defer p.stream(t)()
		for _, down := range []time.Duration{0, 100 * time.Millisecond, 3 * time.Second} {
			for _, again := range [][]*node{{p.r1}, {p.r2}, {p.r1, p.r2}} {
				before, had := p.r1.status(), sas(p.r1.device())
				for _, n := range again {
					n.noted()
					n.halt()
				}
				time.Sleep(down)
				for _, n := range again {
					n.start()
				}
				p.secured(3 * time.Second)
				time.Sleep(10 * time.Second)
				after := p.r1.status()
				if *after.AN != *before.AN || after.KN != before.KN || after.CKN != before.CKN || after.KeyServer != before.KeyServer {
					t.Errorf("down for %v: %+v, then %+v", down, before, after)
				}
				if has := sas(p.r1.device()); !slices.Equal(has, had) {
					t.Errorf("down for %v: the device held %v, now %v", down, had, has)
				}
				for _, n := range again {
					for _, did := range n.noted() {
						if strings.HasPrefix(did, "Add") && !strings.HasPrefix(did, "AddRxSC") || strings.HasPrefix(did, "Delete") || strings.HasPrefix(did, "Create") {
							t.Errorf("down for %v: a restart of %s does %s", down, n.name, did)
						}
					}
				}
			}
		}
	})
}

// Without its record an agent is a new member: it negotiates next to the old
// SAs, which carry on meanwhile.
func TestRestartWithoutRecordLosesNothing(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone": os.Remove,
		"torn": func(path string) error {
			return os.WriteFile(path, []byte(`{"version":1,"link":"l1","mka":{"part`), 0o600)
		},
		"other version": func(path string) error { return os.WriteFile(path, []byte(`{"version":9,"link":"l1"}`), 0o600) },
		"other link":    func(path string) error { return os.WriteFile(path, []byte(`{"version":1,"link":"l2"}`), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSecuredPair(t)
				time.Sleep(time.Minute)
				had := sas(p.r2.device())
				defer p.stream(t)()
				for _, n := range []*node{p.r2, p.r1} {
					n.halt()
					if err := spoil(linkPath(n.runDir, "l1")); err != nil {
						t.Fatal(err)
					}
					n.start()
					p.secured(10 * time.Second)
					time.Sleep(20 * time.Second)
				}
				p.secured(time.Second)
				if has := sas(p.r2.device()); slices.Equal(has, had) {
					t.Errorf("the SAK is still %v", has)
				}
			})
		})
	}
}

// Stopping says a last hello and leaves everything standing, also what is half
// done.
func TestStopLeavesEverythingStanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		p.r1.noted()
		p.halt()
		if did := p.r1.noted(); !slices.Equal(did, []string{"MKPDU"}) {
			t.Errorf("stopping does %q, want a last MKPDU and nothing else", did)
		}
		time.Sleep(24 * time.Hour)
		if err := p.r1.send(p.r2); err != nil {
			t.Error(err)
		}
		if !p.r1.now().fenced || errors.Is(p.r2.send(p.r1), macsectest.ErrDropped) {
			t.Error("the encrypted path does not stand")
		}
	})
}
