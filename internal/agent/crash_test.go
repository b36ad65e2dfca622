//go:build !kernel

package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// life is one run of an agent, from its start to its end by a stop or a crash.
// All that it does to the world outside goes through it, one step after the
// other: each operation on the kernel, each call of the platform, each MKPDU, each
// write and each rename of a file. After a crash there is none, whoever of its
// goroutines tries: no farewell, no tidying up. A process that is killed closes its
// sockets, and so does what is left of this one.
type life struct {
	node *node
	book *book
	at   int  // the step at which it crashes; zero: it does not
	done bool // whether that step is still done
	// refuse, if set, may have a step fail: the world outside says no.
	refuse func(what string) error

	mu    sync.Mutex
	steps []string
	dead  bool
	died  chan struct{} // closed by a crash
}

// begin has n's next agent live such a life.
func (b *book) begin(n *node, at int, done bool) *life {
	n.life = &life{node: n, book: b, at: at, done: done, died: make(chan struct{})}
	return n.life
}

// step does something to the world outside, unless the agent is dead or dies of it.
func (l *life) step(do func() error, what string, args ...any) error {
	l.expire(false)
	l.mu.Lock()
	l.steps = append(l.steps, fmt.Sprintf(what, args...))
	last := len(l.steps) == l.at
	l.mu.Unlock()
	l.expire(last && !l.done)
	err := error(nil)
	if l.refuse != nil {
		err = l.refuse(l.steps[len(l.steps)-1])
	}
	if err == nil {
		err = do()
	}
	l.book.hold(l.node, what)
	l.expire(last)
	return err
}

// look reads from the world outside.
func (l *life) look() { l.expire(false) }

// expire ends the goroutine of an agent that is dead, or dies now.
func (l *life) expire(now bool) {
	if l.over(now) {
		runtime.Goexit()
	}
}

// over says whether the agent is dead, or dies now.
func (l *life) over(now bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now && !l.dead {
		l.dead = true
		close(l.died)
	}
	return l.dead
}

// crash ends the agent wherever it is.
func (n *node) crash() {
	n.life.over(true)
	n.halt()
}

// taken is how many steps there were.
func (l *life) taken() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.steps)
}

// around puts the life between an agent and its machine.
func (l *life) around(on platform, k macsec.Kernel) (platform, macsec.Kernel) {
	in := on
	on.findParent = func(name string) (parent, error) { l.look(); return in.findParent(name) }
	on.interfaceName = func(index int) string { l.look(); return in.interfaceName(index) }
	on.setUp = func(index int, up bool) error {
		return l.step(func() error { return in.setUp(index, up) }, "set interface up=%t", up)
	}
	on.ensureAddresses = func(index int, prefixes []netip.Prefix) (added []netip.Prefix, err error) {
		if len(prefixes) == 0 {
			return nil, nil
		}
		err = l.step(func() error { added, err = in.ensureAddresses(index, prefixes); return err }, "addresses")
		return added, err
	}
	on.closeFence = func(index int, o fence.Options) (done []fence.Change, err error) {
		if s, err := in.inspectFence(index, o); err == nil && s.InPlace {
			return in.closeFence(index, o) // a look, and no step
		}
		err = l.step(func() error { done, err = in.closeFence(index, o); return err }, "close fence")
		return done, err
	}
	on.inspectFence = func(index int, o fence.Options) (fence.State, error) {
		l.look()
		return in.inspectFence(index, o)
	}
	on.openFence = func(index int) error { return l.step(func() error { return in.openFence(index) }, "open fence") }
	on.openMKA = func(index int, o pae.Options) (c mkaConn, err error) {
		err = l.step(func() error {
			in, err := in.openMKA(index, o)
			c = &livingConn{in, l}
			return err
		}, "open MKA")
		return c, err
	}
	on.findIndex = func(index int) (parent, error) { l.look(); return in.findIndex(index) }
	on.rename = func(index int, up bool, name string) error {
		return l.step(func() error { return in.rename(index, up, name) }, "rename interface")
	}
	on.setMTU = func(index, mtu int) error {
		return l.step(func() error { return in.setMTU(index, mtu) }, "set MTU")
	}
	on.alias = func(index int) (string, error) { l.look(); return in.alias(index) }
	on.setAlias = func(index int, text string) error {
		return l.step(func() error { return in.setAlias(index, text) }, "alias")
	}
	on.files.write = func(path string, text []byte) error {
		return l.step(func() error { return in.files.write(path, text) }, "write %s", filepath.Base(path))
	}
	on.files.rename = func(from, to string) error {
		return l.step(func() error {
			err := in.files.rename(from, to)
			l.book.file(l.node, to)
			return err
		}, "rename to %s", filepath.Base(to))
	}
	on.files.remove = func(path string) error {
		return l.step(func() error { return in.files.remove(path) }, "remove %s", filepath.Base(path))
	}
	on.files.replace = func(path string, text []byte) error {
		tmp := filepath.Join(filepath.Dir(path), ".state.tmp")
		if err := l.step(func() error { return os.WriteFile(tmp, text, 0o600) }, "write state"); err != nil {
			return err
		}
		return l.step(func() error { return os.Rename(tmp, path) }, "rename state")
	}
	return on, &livingKernel{k, l}
}

// livingConn is the socket of an agent that is alive.
type livingConn struct {
	mkaConn
	life *life
}

// WriteFrame implements mkaConn.
func (c *livingConn) WriteFrame(frame []byte) error {
	return c.life.step(func() error {
		c.life.book.spoken(c.life.node, frame)
		return c.mkaConn.WriteFrame(frame)
	}, "MKPDU")
}

// livingKernel is the kernel for an agent that is alive.
type livingKernel struct {
	macsec.Kernel
	life *life
}

// Device implements macsec.Kernel.
func (k *livingKernel) Device(name string) (*macsec.Device, error) {
	k.life.look()
	return k.Kernel.Device(name)
}

// SecY implements macsec.Kernel.
func (k *livingKernel) SecY(index int) (*macsec.SecY, error) {
	k.life.look()
	return k.Kernel.SecY(index)
}

// CreateDevice implements macsec.Kernel.
func (k *livingKernel) CreateDevice(parent int, name string, cfg macsec.DeviceConfig) (d *macsec.Device, err error) {
	err = k.life.step(func() error { d, err = k.Kernel.CreateDevice(parent, name, cfg); return err }, macsec.OpCreateDevice)
	return d, err
}

// UpdateDevice implements macsec.Kernel.
func (k *livingKernel) UpdateDevice(index int, u macsec.DeviceUpdate) error {
	what := macsec.OpUpdateDevice
	switch {
	case u.EncodingAN != nil:
		what += " encoding"
	case u.Up != nil:
		what += " up"
	}
	return k.life.step(func() error { return k.Kernel.UpdateDevice(index, u) }, "%s", what)
}

// DeleteDevice implements macsec.Kernel.
func (k *livingKernel) DeleteDevice(index int) error {
	return k.life.step(func() error { return k.Kernel.DeleteDevice(index) }, macsec.OpDeleteDevice)
}

// AddRxSC implements macsec.Kernel.
func (k *livingKernel) AddRxSC(index int, sci macsec.SCI, active bool) error {
	return k.life.step(func() error { return k.Kernel.AddRxSC(index, sci, active) }, macsec.OpAddRxSC)
}

// UpdateRxSC implements macsec.Kernel.
func (k *livingKernel) UpdateRxSC(index int, sci macsec.SCI, active bool) error {
	return k.life.step(func() error { return k.Kernel.UpdateRxSC(index, sci, active) }, macsec.OpUpdateRxSC)
}

// DeleteRxSC implements macsec.Kernel.
func (k *livingKernel) DeleteRxSC(index int, sci macsec.SCI) error {
	return k.life.step(func() error { return k.Kernel.DeleteRxSC(index, sci) }, macsec.OpDeleteRxSC)
}

// AddRxSA implements macsec.Kernel.
func (k *livingKernel) AddRxSA(index int, sci macsec.SCI, sa macsec.SA) error {
	return k.life.step(func() error { return k.Kernel.AddRxSA(index, sci, sa) }, macsec.OpAddRxSA)
}

// UpdateRxSA implements macsec.Kernel.
func (k *livingKernel) UpdateRxSA(index int, sci macsec.SCI, an macsec.AN, u macsec.SAUpdate) error {
	return k.life.step(func() error { return k.Kernel.UpdateRxSA(index, sci, an, u) }, macsec.OpUpdateRxSA)
}

// DeleteRxSA implements macsec.Kernel.
func (k *livingKernel) DeleteRxSA(index int, sci macsec.SCI, an macsec.AN) error {
	return k.life.step(func() error { return k.Kernel.DeleteRxSA(index, sci, an) }, macsec.OpDeleteRxSA)
}

// AddTxSA implements macsec.Kernel.
func (k *livingKernel) AddTxSA(index int, sa macsec.SA) error {
	return k.life.step(func() error {
		err := k.Kernel.AddTxSA(index, sa)
		k.life.book.installed(k.life.node, sa, err)
		return err
	}, macsec.OpAddTxSA)
}

// UpdateTxSA implements macsec.Kernel.
func (k *livingKernel) UpdateTxSA(index int, an macsec.AN, u macsec.SAUpdate) error {
	return k.life.step(func() error {
		err := k.Kernel.UpdateTxSA(index, an, u)
		if u.Active != nil && *u.Active && err == nil {
			k.life.book.enabled(k.life.node, an)
		}
		return err
	}, macsec.OpUpdateTxSA)
}

// DeleteTxSA implements macsec.Kernel.
func (k *livingKernel) DeleteTxSA(index int, an macsec.AN) error {
	return k.life.step(func() error { return k.Kernel.DeleteTxSA(index, an) }, macsec.OpDeleteTxSA)
}

// book remembers over all lives of both ends what must not happen twice, and holds
// what must be so after each step:
//
//   - No message number is sent twice under a member identifier.
//   - A KI is distributed as one SAK, and once its transmit SA was enabled there is
//     never another.
//   - A device is up only while it can encrypt, and never without a fence; a fence
//     that was closed stays so.
type book struct {
	t testing.TB

	mu      sync.Mutex
	numbers map[mka.MI]uint32
	wrapped map[mka.KI][sha256.Size]byte
	tx      map[*node]map[macsec.AN]mka.KI
	used    map[*node]map[mka.KI]bool
	fenced  map[*node]bool
	files   map[*node][]string // the records that were there, in their order
}

func newBook(t testing.TB) *book {
	return &book{
		t: t, numbers: map[mka.MI]uint32{}, wrapped: map[mka.KI][sha256.Size]byte{}, tx: map[*node]map[macsec.AN]mka.KI{},
		used: map[*node]map[mka.KI]bool{}, fenced: map[*node]bool{}, files: map[*node][]string{},
	}
}

// Where things are in an MKPDU of ours, from the Ethernet header.
const (
	bookMI   = 18 + 12
	bookMN   = 18 + 24
	bookSets = 18
	bookICV  = 16
)

// spoken is told of each MKPDU before it is on the wire.
func (b *book) spoken(n *node, frame []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	mi, mn := mka.MI(frame[bookMI:bookMN]), binary.BigEndian.Uint32(frame[bookMN:])
	if last := b.numbers[mi]; mn <= last {
		b.t.Errorf("%s: MN %d after %d under MI %v", n.name, mn, last, mi)
	}
	b.numbers[mi] = mn
	for at := bookSets; at+4 <= len(frame)-bookICV; {
		size := int(binary.BigEndian.Uint16(frame[at+2:]) & 0xfff)
		if at > bookSets && frame[at] == byte(mka.SetDistributedSAK) && size >= 28 {
			ki := mka.KI{MI: mi, KN: binary.BigEndian.Uint32(frame[at+4:])}
			sum := sha256.Sum256(frame[at+4 : at+4+size])
			if was, known := b.wrapped[ki]; known && was != sum {
				b.t.Errorf("%s: two SAKs as %v", n.name, ki)
			}
			b.wrapped[ki] = sum
		}
		at += 4 + (size+3)&^3
	}
}

func (b *book) installed(n *node, sa macsec.SA, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ki := mka.KIFromBytes(sa.KeyID)
	if b.used[n][ki] {
		b.t.Errorf("%s: another transmit SA of %v, whose packet numbers were used (%v)", n.name, ki, err)
	}
	if err != nil {
		return
	}
	if b.tx[n] == nil {
		b.tx[n], b.used[n] = map[macsec.AN]mka.KI{}, map[mka.KI]bool{}
	}
	b.tx[n][sa.AN] = ki
}

func (b *book) enabled(n *node, an macsec.AN) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used[n][b.tx[n][an]] = true
}

// file remembers what a record says by now.
func (b *book) file(n *node, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Errorf("%s: %v", n.name, err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if all := b.files[n]; len(all) == 0 || all[len(all)-1] != string(text) {
		b.files[n] = append(all, string(text))
	}
}

// records are those that n had, the first one first.
func (b *book) records(n *node) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.files[n])
}

// hold holds promise 1 after a step.
func (b *book) hold(n *node, after string) {
	fenced := n.now().fenced
	b.mu.Lock()
	was := b.fenced[n]
	b.fenced[n] = was || fenced
	b.mu.Unlock()
	if was && !fenced {
		b.t.Errorf("%s: after %s the fence is open", n.name, after)
	}
	devices, err := n.kernel.SecYs()
	if err != nil {
		b.t.Error(err)
	}
	for i := range devices {
		s := &devices[i]
		if !fenced {
			b.t.Errorf("%s: after %s there is %s and no fence", n.name, after, s.Name)
		}
		if sa := s.TxSC.SA(s.EncodingAN); s.Up && (sa == nil || !sa.Active || !s.Encrypt || !s.Protect || s.Validate != macsec.Strict) {
			b.t.Errorf("%s: after %s %s is up and cannot encrypt: %+v", n.name, after, s.Name, s)
		}
	}
}

// settled says what is there of a link that must not be, or is not and must be:
// exactly one SAK, the same at both ends, behind one fence, and one record.
func (p *pair) settled() (wrong []string) {
	var keys []macsec.KeyID
	for i, n := range p.nodes() {
		amiss := func(format string, args ...any) {
			wrong = append(wrong, n.name+": "+fmt.Sprintf(format, args...))
		}
		all, err := n.kernel.SecYs()
		if err != nil || len(all) != 1 {
			amiss("%d devices, %v", len(all), err)
			continue
		}
		s := &all[0]
		if !s.Up || len(s.TxSC.SAs) != 1 || s.TxSC.SA(s.EncodingAN) == nil || !s.TxSC.SA(s.EncodingAN).Active {
			amiss("transmit SC, encoding AN %d: %+v", s.EncodingAN, s.TxSC.SAs)
		}
		far := macsec.SCI(mka.NewSCI(p.nodes()[1-i].port.address, 1))
		if len(s.RxSCs) != 1 || s.RxSCs[0].SCI != far || len(s.RxSCs[0].SAs) != 1 || !s.RxSCs[0].SAs[0].Active {
			amiss("receive SCs %+v", s.RxSCs)
		}
		for _, sa := range s.TxSC.SAs {
			keys = append(keys, sa.KeyID)
		}
		for _, sc := range s.RxSCs {
			for _, sa := range sc.SAs {
				keys = append(keys, sa.KeyID)
			}
		}
		if !n.now().fenced {
			amiss("no fence")
		}
		for dir, want := range map[string]string{n.runDir: "l1.json", n.stateDir: "l1.json"} {
			var have []string
			entries, err := os.ReadDir(filepath.Join(dir, "links"))
			for _, e := range entries {
				have = append(have, e.Name())
			}
			if strings.Join(have, " ") != want {
				amiss("%s holds %q, %v", dir, have, err)
			}
		}
	}
	if len(slices.Compact(keys)) != 1 {
		wrong = append(wrong, fmt.Sprintf("the SAs are of several SAKs: %v", keys))
	}
	return wrong
}
