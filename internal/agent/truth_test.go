//go:build !kernel

package agent

import (
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
)

// open is how the kernel in memory is opened.
func (n *node) open() (macsec.Kernel, error) { return n.kernel, nil }

// looked is the link's status with the kernel's side, as lever status has it.
func (n *node) looked() LinkStatus {
	n.t.Helper()
	synctest.Wait()
	on := n.platform()
	return compared(n.t, n.server, &on, n.open)
}

func compared(t testing.TB, s *server, on *platform, open func() (macsec.Kernel, error)) LinkStatus {
	t.Helper()
	st, _ := s.snapshot()
	st.compare(on, open)
	l := st.Links[len(st.Links)-1]
	if l.Kernel == nil || l.Kernel.Agrees != (len(l.Kernel.Differs) == 0) || st.agrees() != l.Kernel.Agrees {
		t.Fatalf("%+v", l.Kernel)
	}
	return l
}

func TestKernelAndAgentAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.start()
		for _, n := range p.nodes() {
			n.awaitState(time.Second, StateWaiting)
			if l := n.looked(); !l.Kernel.Agrees || l.Kernel.AN != nil || l.Kernel.Fence != "closed" {
				t.Errorf("%s: before the first key: %+v", n.name, l.Kernel)
			}
		}
		p.deliver(epoch(t, "1.0"))
		p.secured(time.Second)
		// At every moment of a rekey and of a change of CAKs.
		for _, begin := range []func(){
			func() {
				if err := p.r1.ask("rekey"); err != nil {
					t.Error(err)
				}
			},
			func() { p.deliver(epoch(t, "2.0")) },
		} {
			begin()
			for range 400 {
				for _, n := range p.nodes() {
					if l := n.looked(); !l.Kernel.Agrees {
						t.Fatalf("%s: %q\n%+v", n.name, l.Kernel.Differs, l.Associations)
					}
				}
				time.Sleep(25 * time.Millisecond)
			}
		}
		l, s := p.r1.looked(), p.r1.device()
		k := l.Kernel
		tx := s.TxSC.SA(s.EncodingAN)
		if k.Cipher != "GCM-AES-XPN-256" || !k.Encrypt || *k.AN != *l.AN || k.KI != tx.KeyID.String() || k.KeyNumber() != l.KN || k.TxPN != tx.NextPN ||
			len(k.Rx) != 1 || k.Rx[0].SCI != l.Peers[0].SCI || !k.Rx[0].Active || k.Fence != "closed" {
			t.Errorf("%+v of %+v", k, l)
		}
	})
}

// Whatever somebody changes, status says it before the agent has noticed.
func TestKernelAndAgentDiffer(t *testing.T) {
	peerOf := func(n *node) macsec.SCI { return n.device().RxSCs[0].SCI }
	for _, tt := range []struct {
		name   string
		change func(n *node) error
		says   []string
	}{
		{"device deleted", func(n *node) error { return n.kernel.DeleteDevice(n.device().Index) }, []string{"there is no device eth4-sec"}},
		{"encrypt off", func(n *node) error {
			return n.kernel.UpdateDevice(n.device().Index, macsec.DeviceUpdate{Encrypt: new(false)})
		}, []string{"encrypt is off"}},
		{"protect off", func(n *node) error {
			return n.kernel.UpdateDevice(n.device().Index, macsec.DeviceUpdate{Protect: new(false)})
		}, []string{"protect is off"}},
		{"validate", func(n *node) error {
			return n.kernel.UpdateDevice(n.device().Index, macsec.DeviceUpdate{Validate: new(macsec.Check)})
		}, []string{"validate is check"}},
		{"replay protection", func(n *node) error {
			return n.kernel.UpdateDevice(n.device().Index, macsec.DeviceUpdate{ReplayProtect: new(false)})
		}, []string{"replay protection is off"}},
		{"device down", func(n *node) error {
			return n.kernel.UpdateDevice(n.device().Index, macsec.DeviceUpdate{Up: new(false)})
		}, []string{"eth4-sec is down"}},
		{"encoding SA", func(n *node) error {
			return n.kernel.UpdateDevice(n.device().Index, macsec.DeviceUpdate{EncodingAN: new(macsec.AN(2))})
		}, []string{"under AN 0 should transmit, and no SA does"}},
		{"foreign transmit SA", func(n *node) error {
			return n.kernel.AddTxSA(n.device().Index, macsec.SA{
				AN: 3, Active: true, NextPN: 1, KeyID: macsec.KeyID{1}, Key: macsec.NewKey(make([]byte, 32)), SSCI: 1, Salt: macsec.Salt{1},
			})
		}, []string{"transmit SA 3 has key 01000000000000000000000000000000, which the agent does not know of"}},
		{"foreign receive SA", func(n *node) error {
			return n.kernel.AddRxSA(n.device().Index, peerOf(n), macsec.SA{
				AN: 3, Active: true, NextPN: 1, KeyID: macsec.KeyID{1}, Key: macsec.NewKey(make([]byte, 32)), SSCI: 1, Salt: macsec.Salt{1},
			})
		}, []string{"receive SA 3 of", "does not know of"}},
		{"receive SC gone", func(n *node) error { return n.kernel.DeleteRxSC(n.device().Index, peerOf(n)) }, []string{"no active receive SA 0 of"}},
		{"fence open", func(n *node) error {
			n.change(n.port, func(p *port) {
				p.fenced = false
			})
			return nil
		}, []string{"the fence on eth4 is not closed: egress priority 1: missing: drop all else"}},
		{"foreign filter", func(n *node) error {
			n.change(n.port, func(p *port) {
				p.foreign = []fence.Finding{{Problem: fence.Foreign, Priority: 1, Text: "matchall", Leak: true}}
			})
			return nil
		}, []string{"not closed: egress priority 1: foreign: matchall"}},
		{"fence unreadable", func(n *node) error { n.failing("inspect fence", errors.New("no answer")); return nil }, []string{"fence on eth4 cannot be read: no answer"}},
		{"parent gone", func(n *node) error { n.unplug(n.port); return nil }, []string{"there is no interface eth4"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSecuredPair(t)
				n := p.r1
				said, _ := n.server.snapshot() // and nothing since: it might be stuck
				p.halt()
				if err := tt.change(n); err != nil {
					t.Fatal(err)
				}
				on := n.platform()
				said.compare(&on, n.open)
				k := said.Links[0].Kernel
				if k.Agrees || len(k.Differs) != 1 {
					t.Fatalf("%q", k.Differs)
				}
				for _, s := range tt.says {
					if !strings.Contains(k.Differs[0], s) {
						t.Errorf("%q does not say %q", k.Differs[0], s)
					}
				}
			})
		})
	}
}

func TestKernelThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		on := p.r1.platform()
		for err, want := range map[error]string{
			macsec.ErrUnsupported:         "there is no device eth4-sec",
			errors.New("no buffer space"): "the MACsec devices cannot be read: no buffer space",
		} {
			l := compared(t, p.r1.server, &on, func() (macsec.Kernel, error) { return nil, err })
			if len(l.Kernel.Differs) != 1 || !strings.Contains(l.Kernel.Differs[0], want) {
				t.Errorf("%v: %q", err, l.Kernel.Differs)
			}
		}
	})
}

// What was taken down, or never set up, has nothing to be held against.
func TestKernelOfLinksThatAreNotSetUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		if err := p.r1.ask("down"); err != nil {
			t.Fatal(err)
		}
		l := p.r1.looked()
		if l.State != StateDown || !l.Kernel.Agrees || l.Kernel.Fence != "open" || l.Traffic != TrafficPlain {
			t.Errorf("taken down: %+v %+v", l, l.Kernel)
		}
		cfg := macsec.Closed(macsec.SCI{2}, macsec.GCMAESXPN256)
		if _, err := p.r1.kernel.CreateDevice(p.r1.port.index, "eth4-sec", cfg); err != nil {
			t.Fatal(err)
		}
		if l := p.r1.looked(); l.Kernel.Agrees || !strings.Contains(l.Kernel.Differs[0], "although the link was taken down") {
			t.Errorf("made anew by somebody: %+v", l.Kernel)
		}
		p.r2.unplug(p.r2.port)
		p.r2.awaitState(time.Second, StateFailed)
		if l := p.r2.looked(); !l.Kernel.Agrees {
			t.Errorf("without its interface: %+v", l.Kernel)
		}
	})
}

// What is left of a link that is no longer in the inventory has neither device nor
// open fence.
func TestKernelOfRemovedLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		p.halt()
		lo := &leftover{file: linkFile{Link: "l1", Interface: "eth4", Secure: "eth4-sec"}, fate: barred, since: time.Now()}
		on := p.r1.platform()
		look := func() *KernelStatus {
			st := Status{Links: []LinkStatus{lo.status()}}
			st.compare(&on, p.r1.open)
			return st.Links[0].Kernel
		}
		if k := look(); len(k.Differs) != 1 || !strings.Contains(k.Differs[0], "is there, although the link is no longer in the inventory") {
			t.Errorf("%q", k.Differs)
		}
		if err := p.r1.kernel.DeleteDevice(p.r1.device().Index); err != nil {
			t.Fatal(err)
		}
		if k := look(); !k.Agrees || k.Fence != "closed" {
			t.Errorf("%+v", k)
		}
		p.r1.change(p.r1.port, func(p *port) { p.fenced = false })
		if k := look(); len(k.Differs) != 1 || !strings.Contains(k.Differs[0], "is not closed") {
			t.Errorf("%q", k.Differs)
		}
	})
}

func TestKernelInModeMonitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.r1.policy.Mode = inventory.Monitor
		p.deliver(epoch(t, "1.0"))
		p.start()
		p.r1.awaitState(time.Second, StateSecured)
		if l := p.r1.looked(); !l.Kernel.Agrees || l.Kernel.Fence != "monitor" {
			t.Errorf("%+v", l.Kernel)
		}
		st, _ := p.r1.server.snapshot()
		p.r1.halt()
		p.r1.port.fenced = true
		on := p.r1.platform()
		st.compare(&on, p.r1.open)
		if l := st.Links[0]; l.Kernel.Agrees || !strings.Contains(l.Kernel.Differs[0], "does not just count") {
			t.Errorf("%+v", l.Kernel)
		}
	})
}

// The far end's agent is away for longer than a life time: what this end does
// about it can be read in its status.
func TestTrafficWhileThePeerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.start()
		if l := p.r1.awaitState(time.Second, StateWaiting); l.Traffic != TrafficStopped || !strings.Contains(l.TrafficDetail, "no key is agreed yet") {
			t.Errorf("before the first key, traffic is %s: %s", l.Traffic, l.TrafficDetail)
		}
		p.deliver(epoch(t, "1.0"))
		p.secured(time.Second)
		if l := p.r1.status(); l.Traffic != TrafficProtected || !strings.Contains(l.TrafficDetail, "every live peer has the key") {
			t.Errorf("secured, traffic is %s: %s", l.Traffic, l.TrafficDetail)
		}
		p.r2.halt()
		f := p.r1.awaitFault(10*time.Second, health.PeerLost)
		l := p.r1.status()
		for _, text := range []string{f.Text, l.TrafficDetail} {
			if !strings.Contains(text, "the SAs that worked are kept: frames leave encrypted") || !strings.Contains(text, "nothing leaves in plain") {
				t.Errorf("%s", text)
			}
		}
		if l.State != StateNegotiating || l.Traffic != TrafficProtected || !p.r1.looked().Kernel.Agrees {
			t.Errorf("%+v", l)
		}
		if err := p.r1.send(p.r2); err != nil {
			t.Errorf("and yet a frame does not arrive: %v", err)
		}
		// The epoch is revoked meanwhile: now traffic does end, and the fault says so.
		p.r1.channels[0].put(epoch(t, "1.0"), nil)
		l = p.r1.await(2*time.Second, "without traffic", func(l LinkStatus) bool { return l.Traffic == TrafficStopped })
		if err := p.r1.send(p.r2); err == nil {
			t.Error("a frame leaves although traffic is stopped")
		}
		for _, f := range l.Faults {
			if f.Code == health.PeerLost && !strings.Contains(f.Text, "frames are dropped, and nothing leaves in plain") {
				t.Errorf("%s", f)
			}
		}
		p.r2.start()
		p.deliver(epoch(t, "2.0"))
		p.secured(10 * time.Second)
		if l := p.r1.status(); l.Traffic != TrafficProtected {
			t.Errorf("back, traffic is %s: %s", l.Traffic, l.TrafficDetail)
		}
	})
}

// looker is a client of an agent's run directory on a machine in memory.
func looker(dir string) *Client {
	return &Client{runDir: dir, patience: 50 * time.Millisecond, every: time.Millisecond}
}

// leaveBehind is a link as a killed agent leaves it, in memory and in a run
// directory.
func leaveBehind(t *testing.T) (m *machine, runDir string) {
	t.Helper()
	runDir = newRunDir(t)
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.r1.runDir = runDir
		p.deliver(epoch(t, "1.0"))
		p.start()
		p.secured(time.Second)
		m = p.r1.machine
	})
	return m, runDir
}

func TestLookWithoutAgent(t *testing.T) {
	m, dir := leaveBehind(t)
	on := m.platform()
	open := func() (macsec.Kernel, error) { return m.kernel, nil }
	look := func() (Status, LinkStatus) {
		t.Helper()
		st, err := looker(dir).look(t.Context(), &on, open)
		if err != nil || len(st.Links) != 1 {
			t.Fatalf("%+v, %v", st, err)
		}
		return st, st.Links[0]
	}
	st, l := look()
	if !strings.Contains(st.Unanswered, "no agent runs here") || l.ID != "l1" || l.State != StateUnattended || l.Verdict != "encrypt" ||
		l.Interface != "eth4" || l.SecureInterface != "eth4-sec" || !l.Kernel.Agrees || l.Kernel.AN == nil || l.Kernel.Fence != "closed" {
		t.Errorf("%+v %+v", st, l.Kernel)
	}
	d, err := m.kernel.Device("eth4-sec")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.kernel.UpdateDevice(d.Index, macsec.DeviceUpdate{EncodingAN: new(macsec.AN(3)), Encrypt: new(false)}); err != nil {
		t.Fatal(err)
	}
	if _, l := look(); !slices.ContainsFunc(l.Kernel.Differs, func(s string) bool { return strings.Contains(s, "no SA transmits") }) ||
		!slices.ContainsFunc(l.Kernel.Differs, func(s string) bool { return strings.Contains(s, "encrypt is off") }) {
		t.Errorf("%q", l.Kernel.Differs)
	}
	b, err := json.Marshal(st)
	if err != nil || !strings.Contains(string(b), `"unanswered":"`) || !strings.Contains(string(b), `"state":"unattended"`) {
		t.Errorf("%s, %v", b, err)
	}
	// Nothing is left anywhere: there is nothing to show.
	empty := newRunDir(t)
	if st, err := looker(empty).look(t.Context(), &on, open); !errors.Is(err, ErrNoAgent) {
		t.Errorf("%+v, %v", st, err)
	}
}

// An agent that hangs accepts connections for as long as there is room.
func TestLookAtAnAgentThatHangs(t *testing.T) {
	m, dir := leaveBehind(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	on := m.platform()
	open := func() (macsec.Kernel, error) { return m.kernel, nil }
	st, err := looker(dir).look(t.Context(), &on, open)
	if err != nil || !strings.Contains(st.Unanswered, "it hangs") || len(st.Links) != 1 || !st.Links[0].Kernel.Agrees {
		t.Errorf("%+v, %v", st, err)
	}
	err = looker(dir).watchLook(t.Context(), &on, open, func(Status) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "it hangs") {
		t.Errorf("a watch: %v", err)
	}
}

// A watch shows what the agent says at once, and what the kernel has when that
// changes, although the agent says nothing.
func TestWatchSeesTheKernel(t *testing.T) {
	s := newServing(t)
	m, _ := leaveBehind(t)
	on := m.platform()
	open := func() (macsec.Kernel, error) { return m.kernel, nil }
	l := LinkStatus{
		ID: "l0", Interface: "eth4", SecureInterface: "eth4-sec", Verdict: "encrypt", State: StateNegotiating, LocalSCI: "0200000000010001",
		Fence: &FenceStatus{Mode: "enforce"},
	}
	s.setStatus(l)
	c := NewClient(s.opts.RunDir)
	c.every = time.Millisecond
	if st, err := c.look(t.Context(), &on, open); err != nil || st.Unanswered != "" || st.Unseen != "" || !st.Links[0].Kernel.Agrees {
		t.Errorf("%+v, %v", st, err)
	}
	d, err := m.kernel.Device("eth4-sec")
	if err != nil {
		t.Fatal(err)
	}
	encrypt := func(on bool) {
		if err := m.kernel.UpdateDevice(d.Index, macsec.DeviceUpdate{Encrypt: &on}); err != nil {
			t.Error(err)
		}
	}
	enough := errors.New("enough")
	var saw []string
	err = c.watchLook(t.Context(), &on, open, func(st Status) error {
		k := st.Links[0].Kernel
		saw = append(saw, strings.Join(k.Differs, "; "))
		switch len(saw) {
		case 1:
			encrypt(false)
		case 2:
			encrypt(true)
		case 3:
			l.Rekeys++
			s.setStatus(l)
		case 4:
			return enough
		}
		return nil
	})
	want := []string{"", "eth4-sec does not encrypt: encrypt is off", "", ""}
	if !errors.Is(err, enough) || !slices.Equal(saw, want) {
		t.Errorf("%q, %v", saw, err)
	}
}

// The kernel of another network namespace is not the agent's.
func TestLookFromAnotherNamespace(t *testing.T) {
	for namespace, want := range map[string]string{"": "", netNamespace(): "", "net:[1]": "another network namespace (net:[1], this is " + netNamespace() + ")"} {
		if got := elsewhere(namespace); got != want && (want == "" || !strings.Contains(got, want)) {
			t.Errorf("%s: %q", namespace, got)
		}
	}
}
