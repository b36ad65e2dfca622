//go:build !kernel

package agent

import (
	"encoding/binary"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// lose sends a frame of data that arrives nowhere.
func (n *node) lose() {
	n.t.Helper()
	frame := make([]byte, 60)
	binary.BigEndian.PutUint16(frame[12:], 0x0800)
	if _, err := n.kernel.Transmit(n.device().Index, frame); err != nil {
		n.t.Error(err)
	}
}

// each calls do every so often for a while.
func each(every, during time.Duration, do func()) {
	for until := time.Now().Add(during); time.Now().Before(until); time.Sleep(every) {
		do()
	}
}

func (n *node) noFault() {
	n.t.Helper()
	if st := n.status(); len(st.Faults) != 0 || st.State != StateSecured {
		n.t.Errorf("%s: %+v", n.name, st)
	}
}

// One end's frames do not arrive, and the other sends nothing: the one that should
// receive knows, and both stay secured as far as MKA goes.
func TestTrafficThatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		time.Sleep(10 * time.Minute)
		for _, n := range p.nodes() {
			n.noFault() // nobody has sent anything
		}
		each(time.Second, 62*time.Second, p.r1.lose)
		f := p.r2.awaitFault(0, health.TrafficMissing)
		if !strings.Contains(f.Text, "content with 0200000000010001 but no data arrives from it on eth9-sec: the direction from there to here is dead: it says that it sent") ||
			!strings.Contains(f.Text, "of which 0 arrived and none is valid") || !strings.Contains(f.Next, "agrees on GCM-AES-XPN-256 in MKA") || f.Severity != health.Critical {
			t.Errorf("%s", f)
		}
		p.r1.noFault() // r2 says that it sends nothing
		for _, n := range p.nodes() {
			n.awaitState(0, StateSecured)
		}
		time.Sleep(10 * time.Minute)
		since := p.r2.awaitFault(0, health.TrafficMissing).Since
		if since.After(time.Now().Add(-10 * time.Minute)) {
			t.Errorf("a fault of more than ten minutes is from %v", since)
		}
		if err := p.r1.send(p.r2); err != nil {
			t.Fatal(err)
		}
		p.r2.await(3*time.Second, "without a fault", func(s LinkStatus) bool { return len(s.Faults) == 0 })
	})
}

// Traffic that arrives is none of it: both ways or one, with rekeys, with losses,
// and across a restart.
func TestTrafficThatArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		send := func(from, to *node) func() {
			return func() {
				if err := from.send(to); err != nil {
					t.Error(err)
				}
			}
		}
		both := func() { send(p.r1, p.r2)(); send(p.r2, p.r1)() }
		each(time.Second, 3*time.Minute, both)
		if err := p.r1.ask("rekey"); err != nil {
			t.Fatal(err)
		}
		each(10*time.Second, 3*time.Minute, both)
		p.r2.halt()
		p.r2.start()
		each(time.Second, 3*time.Minute, both)
		each(7*time.Second, 3*time.Minute, func() { p.r1.lose(); both() })
		for _, n := range p.nodes() {
			n.noFault()
		}
		// Now and then a frame is all that is lost.
		each(40*time.Second, 10*time.Minute, p.r1.lose)
		for _, n := range p.nodes() {
			n.noFault()
		}
		// What is sent one way arrives there: that end has nothing to complain of.
		each(time.Second, 2*time.Minute, send(p.r1, p.r2))
		p.r2.noFault()
	})
}

// A finding goes with what MKA says: a link that is not secured has other faults.
func TestMissingTrafficEndsWithTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		each(time.Second, 62*time.Second, p.r1.lose)
		p.r2.awaitFault(0, health.TrafficMissing)
		p.sever(true)
		if st := p.r2.awaitState(10*time.Second, StateNegotiating); !has(st, health.PeerLost) {
			t.Errorf("%+v", st)
		}
		p.r2.await(3*time.Second, "without it", func(s LinkStatus) bool { return !has(s, health.TrafficMissing) })
		p.sever(false)
		p.secured(10 * time.Second)
	})
}

// TestTrafficWatch has one peer, or two, and a sample every two seconds.
func TestTrafficWatch(t *testing.T) {
	type rates struct{ claimed, valid, spoilt, sent uint64 } // a sample
	const a, b = 0, 1
	near := mka.KI{KN: 1}
	for _, c := range []struct {
		name  string
		peers [2]*rates
		want  string // in what is said of the first peer; empty: nothing
		twice bool   // it is said of the second, too
	}{
		{"nothing at all", [2]*rates{{}}, "", false},
		{"all is well", [2]*rates{{5, 5, 0, 5}}, "", false},
		{"some are lost", [2]*rates{{5, 1, 0, 5}}, "", false},
		{"some are forged", [2]*rates{{0, 1, 9, 0}}, "", false},
		{"it sends and nothing arrives", [2]*rates{{5, 0, 0, 0}}, "it says that it sent", false},
		{"it sends and nothing is valid", [2]*rates{{5, 0, 5, 0}}, "arrived and none is valid", false},
		{"it does not say so", [2]*rates{{0, 0, 5, 0}}, "75 of its frames arrived within 30s and none is valid", false},
		{"we send", [2]*rates{{0, 0, 0, 5}}, "this end sent 75 protected frames within 30s", false},
		{"one of two is dead", [2]*rates{{5, 0, 0, 5}, {5, 5, 0, 0}}, "it says that it sent", false},
		{"one of two is silent", [2]*rates{{0, 0, 0, 5}, {5, 5, 0, 0}}, "", false},
		{"both are silent", [2]*rates{{0, 0, 0, 5}, {}}, "this end sent", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := trafficWatch{foreign: true}
			now := time.Unix(1000, 0)
			st := mka.Status{Secured: true, KI: near, Participants: []mka.ParticipantStatus{{}}}
			state := &macsec.SecY{}
			for i, r := range c.peers {
				if r != nil {
					st.Participants[0].Peers = append(st.Participants[0].Peers, mka.PeerStatus{SCI: mka.SCI{byte(i)}, Live: true, TransmitPN: 1})
					state.RxSCs = append(state.RxSCs, macsec.RxSC{SCI: macsec.SCI{byte(i)}})
				}
			}
			var found []missingTraffic
			for second := 0; second <= 60; second += 2 {
				found = w.look(now.Add(time.Duration(second)*time.Second), &st, state, 12*time.Second)
				if second < 30 && len(found) > 0 {
					t.Fatalf("after %d s: %+v", second, found)
				}
				for i := range state.RxSCs {
					r, sc := c.peers[i], &state.RxSCs[i].Stats
					sc.InPktsOK += r.valid
					sc.InPktsNotValid += r.spoilt / 2
					sc.InPktsNotUsingSA += r.spoilt - r.spoilt/2
					st.Participants[0].Peers[i].TransmitPN += r.claimed
					state.TxSC.Stats.OutPktsEncrypted += r.sent
				}
				if second == 44 { // a rekey
					st.KI.KN++
					for i := range state.RxSCs {
						st.Participants[0].Peers[i].TransmitPN = 1
					}
				}
			}
			want := 0
			if c.want != "" {
				want = 1
			}
			if c.twice {
				want = 2
			}
			if len(found) != want {
				t.Fatalf("%+v", found)
			}
			for i, m := range found {
				if !strings.Contains(m.detail, c.want) || m.peer != (mka.SCI{byte(i)}) {
					t.Errorf("%+v", m)
				}
			}
			if want == 0 {
				return
			}
			state.RxSCs[a].Stats.InPktsOK++
			found = w.look(now.Add(62*time.Second), &st, state, 12*time.Second)
			if n := len(found); n != want-1 {
				t.Errorf("after a valid frame: %+v", found)
			}
			if c.twice && (len(found) != 1 || found[0].peer != (mka.SCI{b})) {
				t.Errorf("of the other peer: %+v", found)
			}
		})
	}
}
