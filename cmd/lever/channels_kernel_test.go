//go:build kernel

package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
)

var (
	rotationFor  = flag.Duration("rotation.for", 70*time.Second, "for how long keys are rotated")
	rotationRate = flag.Int("rotation.rate", besides, "packets a second each way meanwhile")
	quorumFor    = flag.Duration("rotation.quorum", 20*time.Second, "for how long etcd has no quorum")
)

// rotation is a policy with an epoch a minute.
const rotation = "cak_epoch: 1m, max_age: 30m"

// theEpoch is the epoch that routers are in.
func (f *fleet) theEpoch() string {
	all := f.await("both ends to be secured in one epoch", isSecured, 0, 1)
	return all[0].Epoch
}

// Keys come over two channels that have nothing in common, and change every minute
// under traffic; then each channel fails in the ways that it can, and comes back.
func TestTwoChannels(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, rotation)
	var office bytes.Buffer
	talk, err := lab.StartCapture(f.routers[0].Space, officePort, &office)
	f.must(err)
	spy := f.spy(theLink)
	began := time.Now()
	f.start()
	key := f.secured()
	first := time.Since(began)
	var seen []string
	outage := map[string]time.Duration{}
	f.underStream(0, 1, *rotationRate, func() {
		for until := time.Now().Add(*rotationFor); time.Now().Before(until) || len(seen) < 2; {
			if e := f.theEpoch(); !slices.Contains(seen, e) {
				seen = append(seen, e)
				t.Logf("epoch %s", e)
			}
			f.passes(*rotationRate, func(c *lab.WireCount) int { return c.MACsec() })
		}
		key = f.securedAnew(key)

		t.Log("etcd's leader is killed")
		a, err := f.etcd.Do(map[string]any{"do": "leader"})
		f.must(err)
		_, err = f.etcd.Do(map[string]any{"do": "kill", "member": a.Member})
		f.must(err)
		outage["leader lost"] = f.nextEpoch()

		t.Log("quorum is lost")
		other := (a.Member + 1) % 3
		_, err = f.etcd.Do(map[string]any{"do": "kill", "member": other})
		f.must(err)
		since := time.Now()
		for i := range f.routers {
			f.fault(i, health.ChannelUnreachable, "channel b", f.etcd.Endpoints[0])
		}
		for time.Since(since) < *quorumFor {
			f.passes(*rotationRate, func(c *lab.WireCount) int { return c.MACsec() })
		}
		f.await("the link to stay secured", isSecured, 0, 1)
		// An agent that is started now has no key, and leaves alone what carries traffic.
		f.kill(0)
		f.start(0)
		f.await("r1 to wait for channel b", func(l lab.LinkStatus) bool {
			_, unreachable := l.Fault(string(health.ChannelUnreachable))
			return l.State == "waiting-for-keys" && unreachable
		}, 0)
		f.passes(10**rotationRate, func(c *lab.WireCount) int { return c.MACsec() })
		for _, m := range []int{a.Member, other} {
			_, err = f.etcd.Do(map[string]any{"do": "start", "member": m})
			f.must(err)
		}
		back := time.Now()
		for i := range f.routers {
			f.noFault(i, health.ChannelUnreachable)
		}
		outage["quorum back"] = time.Since(back)
		outage["next epoch after that"] = f.nextEpoch()

		t.Log("the source of the bundles is gone")
		f.must(os.Rename(f.source, f.source+".gone"))
		for i := range f.routers {
			f.fault(i, health.ChannelUnreadable, "channel a", f.source)
		}
		f.passes(5**rotationRate, func(c *lab.WireCount) int { return c.MACsec() })
		f.await("the link to stay secured", isSecured, 0, 1)
		f.must(os.Rename(f.source+".gone", f.source))
		for i := range f.routers {
			f.noFault(i, health.ChannelUnreadable)
		}
	})
	f.onlyEncrypted()
	f.must(talk.Stop())
	retired := spy.searchMemory()

	groups := helloGroups(office.Bytes())
	if len(groups) == 0 {
		t.Error("no TLS handshake is in the capture of the way to etcd")
	}
	for g, n := range groups {
		if g != x25519MLKEM768 {
			t.Errorf("%d handshakes with etcd agreed on keys by group %#04x, not by X25519MLKEM768", n, g)
		}
	}
	bundles := 0
	f.must(filepath.WalkDir(f.bundles, func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".bundle" {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && !bytes.Contains(text, []byte("\n-> mlkem768x25519 ")) {
			t.Errorf("%s is not sealed to a hybrid recipient", path)
		}
		bundles++
		return err
	}))
	figureOf(t, "channels", "two channels, an etcd of three members and sealed bundles, an epoch a minute for %v: %d epochs; secured %v after the start\n  after an outage, the next epoch in use (of a minute each): %v\n  %d TLS handshakes with etcd, all by X25519MLKEM768; %d bundles, all sealed by ML-KEM-768 and X25519\n  %s",
		rotationFor.Round(time.Second), len(seen), first.Round(time.Millisecond), round(outage), groups[x25519MLKEM768], bundles, retired)
}

func round(times map[string]time.Duration) map[string]time.Duration {
	for k, d := range times {
		times[k] = d.Round(100 * time.Millisecond)
	}
	return times
}

// nextEpoch waits until both ends use another epoch than now, and says how long that
// took.
func (f *fleet) nextEpoch() time.Duration {
	f.Helper()
	began, was := time.Now(), f.theEpoch()
	_, err := lab.AwaitStatus(f.ctx(), f.routers[:2], theLink, 3*time.Minute, "the next epoch", func(all []lab.LinkStatus) bool {
		return isSecured(all[0]) && isSecured(all[1]) && all[0].Epoch == all[1].Epoch && all[0].Epoch != was
	})
	f.must(err)
	return time.Since(began)
}

// x25519MLKEM768 is the number of TLS' supported group (RFC 8446 4.2.7, and IANA's
// registry).
const x25519MLKEM768 = 0x11ec

// helloGroups counts by which group the ServerHellos of a capture agree on keys. One
// begins a segment, for it is the first that a server says.
func helloGroups(pcap []byte) map[uint16]int {
	groups := map[uint16]int{}
	for at := 0; ; {
		// A record: 22, version, length; in it a handshake message: 2, length of 24 bits,
		// version, random, session id, suite, compression, extensions.
		i := bytes.Index(pcap[at:], []byte{22, 3, 3})
		if i < 0 {
			return groups
		}
		at += i + 3
		rest := pcap[at:]
		if len(rest) < 44 || rest[2] != 2 || rest[3] != 0 || !bytes.Equal(rest[6:8], []byte{3, 3}) {
			continue
		}
		rest = rest[8+32:]
		if rest = skip(rest, 1+int(rest[0])+2+1); len(rest) < 2 {
			continue
		}
		extensions := rest[2:min(len(rest), 2+int(binary.BigEndian.Uint16(rest)))]
		for len(extensions) >= 4 {
			kind, size := binary.BigEndian.Uint16(extensions), int(binary.BigEndian.Uint16(extensions[2:]))
			if kind == 51 && len(extensions) >= 6 { // key_share
				groups[binary.BigEndian.Uint16(extensions[4:])]++
			}
			extensions = skip(extensions, 4+size)
		}
	}
}

func skip(b []byte, n int) []byte { return b[min(n, len(b)):] }

// A node that is revoked loses its links at the far ends at once, and nobody else
// loses anything; what it had opens nothing any more.
func TestRevokedNode(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, "")
	spy := f.spy("link-2")
	f.start()
	f.theEpoch()
	second := func(what string, good func(lab.LinkStatus) bool) {
		t.Helper()
		_, err := lab.AwaitStatus(f.ctx(), f.routers[:1], "link-2", patience, what, func(all []lab.LinkStatus) bool { return good(all[0]) })
		f.must(err)
	}
	second("r1's link to r3", isSecured)
	before := f.theEpoch()
	var took, command time.Duration
	f.underStream(0, 1, besides, func() {
		began := time.Now()
		ended := make(chan error, 1)
		go func() {
			out, err := lab.RunLeverIn(f.ctx(), f.office, f.routers[0].Binary, slices.Concat([]string{"keys", "revoke"}, f.rootArgs, []string{"r3"})...)
			command = time.Since(began)
			t.Logf("%s", out)
			ended <- err
		}()
		second("r1 to have closed its link to r3", func(l lab.LinkStatus) bool { return !isSecured(l) })
		took = time.Since(began)
		f.must(<-ended)
		v, err := f.routers[0].SecY("up1-sec")
		f.must(err)
		if len(v.TxSC.SAs) != 0 {
			t.Errorf("r1 still sends to r3, with %d SAs", len(v.TxSC.SAs))
		}
		f.passes(3*besides, func(c *lab.WireCount) int { return c.MACsec() })
		_, err = lab.AwaitStatus(f.ctx(), f.routers[2:], "link-2", patience, "r3 to be told that it may not", func(all []lab.LinkStatus) bool {
			_, denied := all[0].Fault(string(health.ChannelDenied))
			return denied || all[0].State == "waiting-for-keys"
		})
		f.must(err)
		// What r3 has kept on its disk, and what it can fetch, is of no use to it.
		f.must(f.routers[2].Kill())
		f.must(f.routers[2].Start())
		f.passes(5*besides, func(c *lab.WireCount) int { return c.MACsec() })
		second("r1's link to r3 to stay closed", func(l lab.LinkStatus) bool { return !isSecured(l) })
		// Nor are the keys themselves: here it has both halves of each.
		f.must(f.routers[2].Kill())
		spy.betray(f.routers[2])
		f.must(f.routers[2].Start())
		second("r1 to hear of a key that was revoked", func(l lab.LinkStatus) bool {
			_, heard := l.Fault(string(health.UnknownCKN))
			return heard
		})
		f.passes(5*besides, func(c *lab.WireCount) int { return c.MACsec() })
		second("r1's link to r3 to stay closed", func(l lab.LinkStatus) bool { return !isSecured(l) })
		v, err = f.routers[0].SecY("up1-sec")
		f.must(err)
		if len(v.TxSC.SAs) != 0 {
			t.Errorf("r1 sends to r3 again, with %d SAs", len(v.TxSC.SAs))
		}
	})
	if now := f.theEpoch(); now != before && !strings.HasPrefix(now, before) {
		t.Logf("the other link has gone from epoch %s to %s meanwhile", before, now)
	}
	f.onlyEncrypted()
	figureOf(t, "revoked-node", "a node revoked in etcd: its link is closed at the far end %v after lever keys revoke was started, which took %v in all; no packet lost on the other link",
		took.Round(time.Millisecond), command.Round(time.Millisecond))
}
