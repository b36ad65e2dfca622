//go:build kernel

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

// exits runs a program in a router's namespace, as another user if that is not
// nil, and returns what it says and its exit status.
func (s *site) exits(i int, as *syscall.Credential, program string, args ...string) (stdout, stderr string, status int) {
	s.Helper()
	cmd := exec.CommandContext(s.ctx(), program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	s.must(s.routers[i].Space.Do(cmd.Start))
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), said.String(), exit.ExitCode()
	}
	s.must(err)
	return out.String(), said.String(), 0
}

// looks runs lever status on a router and expects an exit status.
func (s *site) looks(i, status int) agent.Status {
	s.Helper()
	out, said, got := s.exits(i, nil, s.routers[i].Binary, "status", "-o", "json", "--run-dir", s.routers[i].Path(lab.RunDir))
	var st agent.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil || len(st.Links) != 1 || st.Links[0].Kernel == nil {
		s.Fatalf("lever status says %q and %q: %v", out, said, err)
	}
	if got != status {
		s.Errorf("lever status exits with %d, want %d: %s", got, status, said)
	}
	return st
}

// signal goes to a router's agent, which has left its number in the lock file.
func (s *site) signal(i int, sig syscall.Signal) {
	s.Helper()
	text, err := os.ReadFile(s.routers[i].Path(lab.RunDir + "/agent.pid"))
	s.must(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	s.must(err)
	s.must(syscall.Kill(pid, sig))
}

// What status shows is the kernel's word next to the agent's: whether the agent
// runs, hangs or is dead, nobody can change the one without the other saying so.
func TestStatusComparesWithTheKernel(t *testing.T) {
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	for i := range s.routers {
		l := s.looks(i, 0).Links[0]
		k := l.Kernel
		if !k.Agrees || l.State != agent.StateSecured || !k.Encrypt || k.AN == nil || *k.AN != *l.AN || k.KI != key.ID.String() || len(k.Rx) != 1 || k.Fence != "closed" {
			t.Errorf("r%d: %+v %+v", i+1, l, k)
		}
	}
	before := s.looks(0, 0).Links[0].Kernel.Dropped
	if n := s.plainPings(0, 1); n != 0 {
		t.Errorf("%d plain pings were answered", n)
	}
	if after := s.looks(0, 0).Links[0].Kernel.Dropped; after.Egress != before.Egress+3 {
		t.Errorf("three plain pings, and the drops went from %+v to %+v", before, after)
	}

	r := s.routers[0]
	k, err := macsec.NewNetNS(int(r.Space.Handle))
	s.must(err)
	defer func() { s.mustNot(k.Close()) }()
	dev, err := k.Device(theDevice)
	s.must(err)
	differs := func(st agent.Status, want ...string) {
		t.Helper()
		for _, w := range want {
			if got := strings.Join(st.Links[0].Kernel.Differs, "; "); !strings.Contains(got, w) {
				t.Errorf("%q does not say %q", got, w)
			}
		}
	}
	// A hung agent accepts connections and notices nothing.
	s.signal(0, syscall.SIGSTOP)
	s.must(k.UpdateDevice(dev.Index, macsec.DeviceUpdate{Validate: new(macsec.Check)}))
	st := s.looks(0, 1)
	differs(st, "validate is check")
	if !strings.Contains(st.Unanswered, "it hangs") || st.Links[0].State != agent.StateUnattended {
		t.Errorf("hung: %+v", st)
	}
	s.must(k.UpdateDevice(dev.Index, macsec.DeviceUpdate{Validate: new(macsec.Strict)}))
	s.signal(0, syscall.SIGCONT)
	s.secured()

	s.kill(0)
	st = s.looks(0, 1)
	if l := st.Links[0]; !l.Kernel.Agrees || l.State != agent.StateUnattended || l.Kernel.AN == nil || !strings.Contains(st.Unanswered, "no agent runs here") {
		t.Errorf("dead: %+v %+v", st, l.Kernel)
	}
	s.must(k.UpdateDevice(dev.Index, macsec.DeviceUpdate{EncodingAN: new(macsec.AN(key.AN+1) % macsec.NumAN)}))
	differs(s.looks(0, 1), "no SA transmits")
	// The far end says what it makes of the silence.
	s.await("the far end to miss its peer", func(l lab.LinkStatus) bool {
		_, lost := l.Fault("peer-lost")
		return lost
	}, 1)
	l := s.looks(1, 0).Links[0]
	if l.Traffic != agent.TrafficProtected || !strings.Contains(l.TrafficDetail, "are kept") || !l.Kernel.Agrees {
		t.Errorf("the far end: %+v %+v", l, l.Kernel)
	}
	s.must(k.UpdateDevice(dev.Index, macsec.DeviceUpdate{EncodingAN: &key.AN}))
	s.start(0)
	s.secured()
	if l := s.looks(0, 0).Links[0]; !l.Kernel.Agrees {
		t.Errorf("back again: %q", l.Kernel.Differs)
	}
}
