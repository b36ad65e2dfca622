//go:build !kernel

package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/mka"
)

// Each condition of a Port has a fault of its own, in words without a gap.
func TestEveryConditionHasItsFault(t *testing.T) {
	p := newPair(t)
	tk := &task{server: newLeased(&server{}, &lease{}), log: slog.New(slog.DiscardHandler), link: p.r1.link, epochs: map[mka.CKN]keys.Epoch{"abcd": {Number: 3}}}
	tk.parent.name = "eth4"
	c := mka.Condition{
		CKN: "abcd", Source: mka.MAC{2, 0, 0, 0, 0, 2}, SCI: farSCI, KI: mka.KI{MI: mka.MI{7}, KN: 5},
		Theirs: mka.GCMAES128, Ours: mka.GCMAESXPN256, Err: errors.New("broken on purpose"), Since: time.Unix(9, 0),
	}
	for kind, want := range map[mka.ConditionKind]struct {
		code health.Code
		text []string
	}{
		mka.ConditionICVMismatch:     {health.ICVMismatch, []string{"02:00:00:00:00:02", "CKN 61626364", "epoch 3.0"}},
		mka.ConditionUnknownCKN:      {health.UnknownCKN, []string{"02:00:00:00:00:02", "CKN 61626364", "the inventory gives this link other CKNs"}},
		mka.ConditionOwnSCI:          {health.OwnSCI, []string{"02:00:00:00:00:02", "eth4"}},
		mka.ConditionNoKeyServer:     {health.KeyServerNone, []string{"eth4"}},
		mka.ConditionSuiteMismatch:   {health.SuiteMismatch, []string{"0200000000020001", "GCM-AES-128", "GCM-AES-XPN-256"}},
		mka.ConditionNotConfidential: {health.NotConfidential, []string{"0200000000020001"}},
		mka.ConditionReplayedKI:      {health.ReplayedKI, []string{"0200000000020001", c.KI.String()}},
		mka.ConditionBadSAK:          {health.BadSAK, []string{"0200000000020001", "broken on purpose"}},
		mka.ConditionInstallFailed:   {health.SAKInstallFailed, []string{"eth4-sec", "broken on purpose"}},
		mka.ConditionBadCAK:          {health.BadCAK, []string{"61626364", "broken on purpose"}},
		99:                           {health.LinkFailed, []string{"eth4"}},
	} {
		c.Kind = kind
		f := tk.word(&c)
		if f.Code != want.code || !f.Since.Equal(c.Since) || strings.Contains(f.String(), "(unknown)") {
			t.Errorf("condition %v: %s", kind, f)
		}
		for _, part := range want.text {
			if !strings.Contains(f.Text, part) {
				t.Errorf("condition %v: %q does not tell %q", kind, f.Text, part)
			}
		}
	}
}

// A key server never hears of another suite than its own, but a peer may have
// announced what it can do.
func TestAnnouncedSuites(t *testing.T) {
	peer := func(live bool, suites ...mka.CipherSuite) *mka.Status {
		return &mka.Status{Suite: mka.GCMAESXPN256, Participants: []mka.ParticipantStatus{{
			Peers: []mka.PeerStatus{{SCI: farSCI, Live: live, Suites: suites}},
		}}}
	}
	secured := peer(true, mka.GCMAES128)
	secured.Secured = true
	for name, c := range map[string]struct {
		st   *mka.Status
		want string
	}{
		"announces nothing":       {peer(true), ""},
		"announces ours":          {peer(true, mka.GCMAESXPN256), ""},
		"ours is among them":      {peer(true, mka.GCMAES128, mka.GCMAESXPN256), ""},
		"is not live":             {peer(false, mka.GCMAES128), ""},
		"is secured all the same": {secured, ""},
		"announces another":       {peer(true, mka.GCMAES128), "peer 0200000000020001 announces that it can do GCM-AES-128, but the device here was made for GCM-AES-XPN-256:"},
		"announces two others":    {peer(true, mka.GCMAES128, mka.GCMAES256), "can do GCM-AES-128 and GCM-AES-256, but the device here was made for GCM-AES-XPN-256:"},
	} {
		f, found := announcedMismatch(c.st, time.Unix(9, 0))
		if found != (c.want != "") || !strings.Contains(f.Text, c.want) || found && f.Code != health.SuiteMismatch {
			t.Errorf("%s: %t, %s", name, found, f)
		}
		// What the key server distributes tells more than what somebody announces.
		p := newPair(t)
		tk := &task{server: newLeased(&server{}, &lease{}), log: slog.New(slog.DiscardHandler), link: p.r1.link, epochs: map[mka.CKN]keys.Epoch{}}
		now := time.Unix(9, 0)
		tk.began = now
		tk.diagnose(c.st, now)
		if tk.faults.Has(health.SuiteMismatch) != (c.want != "") {
			t.Errorf("%s: the faults are %v", name, tk.faults.List())
		}
		c.st.Conditions = []mka.Condition{{Kind: mka.ConditionSuiteMismatch, SCI: farSCI, Ours: mka.GCMAESXPN256, Theirs: mka.GCMAESXPN128, Since: now, Last: now}}
		tk.diagnose(c.st, now)
		for _, f := range tk.faults.List() {
			if f.Code == health.SuiteMismatch && !strings.Contains(f.Text, "distributes a key for GCM-AES-XPN-128, but") {
				t.Errorf("%s: %s", name, f)
			}
		}
	}
}

func TestIdentify(t *testing.T) {
	p := newPair(t)
	tk := &task{link: p.r1.link}
	ring, err := keys.NewRing(tk.identity(), keys.State{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	tk.ring = ring
	e1, e2 := epoch(t, "1.0"), epoch(t, "2.0")
	ring.Update(keys.A, keys.NewSnapshot("a", map[keys.Epoch][]byte{e1: octets(e1, keys.A), e2: octets(e2, keys.A)}), time.Unix(9, 0))
	ring.Update(keys.B, keys.NewSnapshot("b", map[keys.Epoch][]byte{e1: octets(e1, keys.B)}), time.Unix(9, 0))
	for name, want := range map[string]string{
		"1.0": "epoch 1.0 of this link, which this end has, and does not offer",
		"2.0": "epoch 2.0 of this link, which channel b has not delivered here",
		"3.0": "epoch 3.0 of this link, which channel a and channel b has not delivered here",
		"999": "none of this link's epochs near those that this end has",
	} {
		ckn := []byte("somebody else's")
		if name != "999" {
			if ckn, err = keys.CKN(tk.identity(), epoch(t, name)); err != nil {
				t.Fatal(err)
			}
		}
		if got := tk.identify(mka.CKN(ckn)); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestRankFollowsEpochs(t *testing.T) {
	last := uint64(0)
	for _, e := range []keys.Epoch{
		{Number: 1}, {Number: 1, Generation: 1}, {Number: 1, Generation: 1<<32 - 1}, {Number: 2}, {Number: 30000000}, {Number: 30000000, Generation: 3}, {Number: 1<<32 - 1, Generation: 1},
	} {
		if r := rank(e); r <= last {
			t.Errorf("%s ranks %d, not above %d", e, r, last)
		} else {
			last = r
		}
	}
	if rank(keys.Epoch{Number: 1<<64 - 1, Generation: 1<<32 - 1}) < last {
		t.Error("the greatest epoch overflows")
	}
}

// The high-water mark that could not be written is written when it can be.
func TestStateIsWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		n := p.r1
		n.stateDir = filepath.Join(n.stateDir, "lever")
		if err := os.WriteFile(n.stateDir, nil, 0o600); err != nil { // a file where the directory should be
			t.Fatal(err)
		}
		p.deliver(epoch(t, "1.0"))
		p.start()
		n.awaitState(time.Second, StateSecured)
		n.awaitFault(time.Second, health.StateUnwritable)
		if err := os.Remove(n.stateDir); err != nil {
			t.Fatal(err)
		}
		p.secured(3 * time.Second)
		if s, err := keys.NewStore(n.stateDir).Load("l1"); err != nil || s.HighWater != epoch(t, "1.0") {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func TestSuites(t *testing.T) {
	for c, want := range map[inventory.Cipher]mka.CipherSuite{
		inventory.GCMAES128: mka.GCMAES128, inventory.GCMAES256: mka.GCMAES256,
		inventory.GCMAESXPN128: mka.GCMAESXPN128, inventory.GCMAESXPN256: mka.GCMAESXPN256,
	} {
		tk := &task{link: inventory.NodeLink{Link: &inventory.Link{Cipher: c}}}
		if got := tk.suite(); got != want || !strings.EqualFold(secy.Suite(got).String(), c.String()) {
			t.Errorf("%v is %v and %v", c, got, secy.Suite(got))
		}
	}
}
