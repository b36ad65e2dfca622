//go:build !kernel

package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec/macsectest"
	"github.com/lever-link/lever/mka"
)

// besideWPA is a link with a wpa_supplicant at its far end, as the simulation knows
// it, whose time runs along with the test's.
type besideWPA struct {
	*pair // of which only r1 is there

	mu   sync.Mutex // of the simulation
	net  *simlink.Net
	wpa  *sim.WPA
	said []string
}

const wpaCKN = "a"

func newBesideWPA(t *testing.T, ours, theirs uint8) *besideWPA {
	t.Helper()
	b := &besideWPA{pair: newPair(t)}
	file := filepath.Join(t.TempDir(), "a.cak")
	if err := os.WriteFile(file, []byte(strings.Repeat("5e", 16)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.change(func(l *inventory.Link) {
		l.External, l.Cipher, l.MKA.Priority = true, inventory.GCMAES128, ours
		l.PSK = []inventory.PSK{{CKN: []byte(wpaCKN), CAKFile: file}}
	})
	b.r1.policy.Cipher = inventory.GCMAES128
	s := sim.New(1)
	s.Fail = func(format string, args ...any) { t.Errorf(format, args...) }
	s.Trace = func(e sim.Entry) {
		if e.Kind == sim.TraceNote {
			b.said = append(b.said, e.Text)
		}
	}
	b.net = s.Net
	b.wpa = s.AddWPA("w", 2, func(c *mka.Config) { c.Priority = theirs })

	// What the wire carries goes onto the segment and the other way round.
	here := newSocket(b.r2.machine, b.r2.port, pae.Options{EtherType: mka.EtherType, Groups: [][6]byte{mka.GroupAddress}})
	if err := here.Focus(pae.Focus{CKNs: []string{wpaCKN}}); err != nil {
		t.Fatal(err)
	}
	b.attach(here)
	station := s.Segment.Attach(func(frame []byte) { b.carry(here, frame) })
	var bridge sync.WaitGroup
	bridge.Go(func() {
		frames := pae.NewBatch(batchFrames)
		for !errors.Is(here.ReadFrames(pae.Known, frames), net.ErrClosed) {
			b.mu.Lock()
			for i := range frames.Len() {
				station.Send(frames.Frame(i))
			}
			b.mu.Unlock()
		}
	})
	done := make(chan struct{})
	bridge.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			b.mu.Lock()
			b.net.Run(time.Millisecond)
			b.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		close(done)
		_ = here.Close()
		bridge.Wait()
	})
	return b
}

// daemon does something with the wpa_supplicant.
func (b *besideWPA) daemon(do func() error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := do(); err != nil {
		b.r1.t.Error(err)
	}
}

// pass sends one frame of data from one kernel to another.
func pass(from *macsectest.Kernel, out int, to *macsectest.Kernel, in int) error {
	frame := make([]byte, 60)
	binary.BigEndian.PutUint16(frame[12:], 0x0800)
	wire, err := from.Transmit(out, frame)
	if err == nil {
		_, err = to.Receive(in, wire)
	}
	return err
}

func (b *besideWPA) flow() *flow {
	ours := func() int {
		if d, err := b.r1.kernel.Device("eth4-sec"); err == nil {
			return d.Index
		}
		return 0
	}
	return newFlow(b.r1.t,
		func() error { return pass(b.r1.kernel, ours(), b.wpa.Kernel, b.wpa.Index) },
		func() error { return pass(b.wpa.Kernel, b.wpa.Index, b.r1.kernel, ours()) })
}

// play secures the link and has the key server make another SAK.
func (b *besideWPA) play(ctx context.Context, server bool) {
	b.r1.start()
	b.daemon(func() error { return b.wpa.Run(sim.CAK{CKN: wpaCKN, Octet: 0x5e, Length: 16}) })
	if !sleep(ctx, 15*time.Second) {
		return
	}
	if server {
		_ = b.r1.server.ask(ctx, command{Verb: "rekey", Link: "l1"})
	} else {
		b.daemon(func() error { b.wpa.Rekey(); return nil })
	}
	sleep(ctx, 15*time.Second)
}

func wpaRun(t *testing.T, server bool, at int, done bool) (steps []string) {
	ours, theirs := uint8(17), uint8(16)
	if server {
		ours, theirs = 16, 255
	}
	b, k := newBesideWPA(t, ours, theirs), newBook(t)
	f := b.flow()
	n := b.r1
	first := k.begin(n, at, done)
	ctx, cancel := context.WithCancel(t.Context())
	var script sync.WaitGroup
	script.Go(func() { b.play(ctx, server); cancel() })
	select {
	case <-first.died:
	case <-ctx.Done():
		synctest.Wait()
		first.over(true)
	}
	cancel()
	script.Wait()
	where := fmt.Sprintf("step %d", at)
	if taken := first.taken(); taken > 0 {
		where += " (" + first.steps[taken-1] + ")"
	}
	f.closely(true)
	n.crash()
	f.mu.Lock()
	carried := f.carried
	f.mu.Unlock()
	// It deletes the old SAK 3 s after it has taken the new one into use, and says so up
	// to 2 s after that: whoever is away for longer than the rest loses frames.
	time.Sleep([]time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond}[at%3])
	k.begin(n, 0, false)
	n.start()
	if !b.wpa.Joined() {
		b.daemon(func() error { return b.wpa.Run(sim.CAK{CKN: wpaCKN, Octet: 0x5e, Length: 16}) })
	}
	n.await(15*time.Second, where+": secured", func(s LinkStatus) bool { return s.State == StateSecured && len(s.Faults) == 0 })
	time.Sleep(15 * time.Second)
	b.mu.Lock()
	if !carried {
		b.said = slices.DeleteFunc(b.said, func(s string) bool { return strings.HasPrefix(s, "drops ") || strings.HasPrefix(s, "loses ") })
	}
	if len(b.said) > 1 || b.said[0] != "starts" {
		t.Errorf("%s: wpa_supplicant says %q", where, b.said)
	}
	b.mu.Unlock()
	f.end()
	if len(f.lost) > 0 || f.sent < 1000 {
		t.Errorf("%s: %d of %d frames lost, the first after %s", where, len(f.lost), f.sent, append(f.lost, "?")[0])
	}
	s := n.device()
	ids := sas(s)
	if want := "rx " + s.TxSC.SAs[0].KeyID.String(); !slices.Contains(ids, want) || len(ids) != 2 {
		t.Errorf("%s: left over: %v", where, ids)
	}
	if st := n.status(); len(st.Faults) != 0 || st.State != StateSecured {
		t.Errorf("%s: %+v", where, st)
	}
	n.halt()
	return first.steps
}

// A wpa_supplicant takes an agent that crashes at any step and comes back for one
// whose hello is late. Only while the first SAK is being made, and nothing flows yet,
// may it drop MKPDUs without SAK Use of somebody who had it in them before, and so lose
// us and make a fresh start.
func TestCrashBesideWPASupplicant(t *testing.T) {
	for _, server := range []bool{true, false} {
		t.Run(map[bool]string{true: "we are key server", false: "it is key server"}[server], func(t *testing.T) {
			var steps []string
			synctest.Test(t, func(t *testing.T) { steps = wpaRun(t, server, 0, false) })
			stride := 23
			if *crashAll {
				stride = 1
			}
			t.Logf("%d steps: %s", len(steps), strings.Join(steps, ", "))
			for k := 0; k < 2*len(steps); k += stride {
				t.Run(fmt.Sprint(k), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { wpaRun(t, server, k/2+1, k%2 == 1) })
				})
			}
		})
	}
}
