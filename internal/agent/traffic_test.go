//go:build !kernel

package agent

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/macsec/macsectest"
)

// send passes one frame of data from n to another end, and says what stopped it.
func (n *node) send(to *node) error {
	frame := make([]byte, 60)
	copy(frame[6:], n.port.address[:])
	binary.BigEndian.PutUint16(frame[12:], 0x0800)
	from, err := n.kernel.Device(n.link.Local.Secure)
	if err != nil {
		return err
	}
	wire, err := n.kernel.Transmit(from.Index, frame)
	if err != nil {
		return err
	}
	if typ := binary.BigEndian.Uint16(wire[12:]); typ != macsectest.EtherType {
		n.t.Errorf("%s: a frame of EtherType %04X is on the wire", n.name, typ)
	}
	dev, err := to.kernel.Device(to.link.Local.Secure)
	if err != nil {
		return err
	}
	_, err = to.kernel.Receive(dev.Index, wire)
	return err
}

// stream sends a frame every two milliseconds both ways until the returned function
// is called, which fails the test for every frame that was lost.
func (p *pair) stream(t *testing.T) (end func()) {
	t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	var sent int
	var lost []string
	began := time.Now()
	wg.Go(func() {
		tick := time.NewTicker(3 * time.Millisecond) // a gap is as long as an MKPDU travels, or longer
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			for _, way := range [][2]*node{{p.r1, p.r2}, {p.r2, p.r1}} {
				sent++
				if err := way[0].send(way[1]); err != nil {
					lost = append(lost, fmt.Sprintf("%v %s: %v", time.Since(began), way[0].name, err))
				}
			}
		}
	})
	return func() {
		t.Helper()
		close(done)
		wg.Wait()
		if len(lost) > 0 || sent < 100 {
			t.Errorf("%d of %d frames were lost, the first after %s", len(lost), sent, append(lost, "?")[0])
		}
	}
}

// checkSecrets looks for material and CAKs in all that anybody can read.
func (p *pair) checkSecrets(t *testing.T) {
	t.Helper()
	var secrets [][]byte
	for _, n := range p.nodes() {
		a, b := n.channels[0].held, n.channels[1].held
		secrets = slices.AppendSeq(slices.AppendSeq(secrets, maps.Values(a)), maps.Values(b))
		sa, sb := keys.NewSnapshot("", a), keys.NewSnapshot("", b)
		for ea := range a {
			for eb := range b {
				e, ok := keys.Pair(ea, eb)
				if !ok {
					continue
				}
				id := keys.Identity{Link: n.link.ID, Nodes: []string{"r1", "r2"}}
				cak, err := keys.Combine(id, e, sa.Keys[ea], sb.Keys[eb])
				if err != nil {
					continue
				}
				secrets = append(secrets, cak.Key.Bytes())
			}
		}
	}
	texts := map[string]string{"the log": p.r1.log.String()}
	for _, n := range p.nodes() {
		if n.server != nil {
			st, _ := n.server.snapshot()
			texts["status of "+n.name] = fmt.Sprintf("%+v", st)
		}
		for _, dir := range []string{n.runDir, n.stateDir} {
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				b, err := os.ReadFile(path)
				texts[path] = string(b)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	for where, text := range texts {
		for _, s := range secrets {
			for _, form := range []string{string(s[:16]), hex.EncodeToString(s[:16]), fmt.Sprint(s[:8])} {
				if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
					t.Errorf("%s holds a secret as %.12q…", where, form)
				}
			}
		}
	}
}
