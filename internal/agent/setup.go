package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// bar keeps an interface down that can have neither fence nor MACsec.
func (t *task) bar(e *notEthernetError) error {
	if t.policy.Mode != inventory.Enforce {
		return e
	}
	if err := t.server.platform.setUp(e.index, false); err != nil {
		return fmt.Errorf("%w; and it cannot be set down: %w", e, err)
	}
	return fmt.Errorf("%w; it is held down, as it must not carry plain frames", e)
}

// setUpLink brings the link to where keys can make it carry traffic.
func (t *task) setUpLink() error {
	p, err := t.server.platform.findParent(t.link.Local.Interface)
	t.found = p
	if isA[*missingError](err) {
		t.fenced() // there is nothing to fence
	}
	if e, ok := errors.AsType[*notEthernetError](err); ok {
		defer t.fenced()
		return t.bar(e)
	}
	if err != nil {
		return err
	}
	t.parent, t.began = p, time.Now()
	old, err := readLinkFile(t.server.opts.RunDir, t.link.ID)
	if err != nil {
		t.log.Warn("negotiating afresh", "error", err)
	}
	if old != nil && old.Index == p.index {
		p.known = old.SCI
	}
	closeIt := t.ensureFence
	if old != nil && old.Index != p.index && old.Index != 0 {
		t.drifted(health.ParentDrift, "interface replaced", fmt.Sprintf("%s is another interface now", p.name), t.began)
	}
	if old != nil && old.Index == p.index && old.fenced(t.fenceOptions()) {
		closeIt = t.checkFence // what an earlier agent left, somebody may have changed
	}
	closed := shut{p.index, t.fenceOptions()}
	if t.shut == closed {
		closeIt = t.checkFence // and what this one has closed before
	}
	err = closeIt()
	t.fenced()
	if err != nil {
		t.shut = shut{}
		return err
	}
	t.shut = closed
	if p.master != 0 {
		return &enslavedError{p.name, t.server.platform.interfaceName(p.master)}
	}
	if err := t.reclaimName(); err != nil {
		return err
	}
	suite := t.suite()
	_, missing := t.server.kernel.Device(t.link.Local.Secure)
	dev, repaired, err := ensureDevice(&t.server.platform, t.server.kernel, p, t.link.Local.Secure, secy.Suite(suite), t.link.MKA.ReplayWindow)
	if err != nil {
		return err
	}
	for _, what := range repaired {
		t.drifted(health.SecYDrift, what, "", t.began)
	}
	t.pns, t.arrivals = secy.PNs{}, map[mka.SCI]secy.Arrivals{}
	t.device, t.secy = dev, secy.SecY{Kernel: t.server.kernel, Index: dev.Index}
	t.unmended, t.uncarried = nil, nil
	t.everUp, t.made = dev.Up, errors.Is(missing, macsec.ErrNotExist)
	t.ensureAddresses()
	if t.staysDown = t.ordered(p, old); !p.up && !t.staysDown {
		if err := t.server.platform.setUp(p.index, true); err != nil {
			return fmt.Errorf("set %s up: %w", p.name, err)
		}
	}
	t.held = false
	t.conn, err = t.server.platform.openMKA(p.index, pae.Options{EtherType: t.link.MKA.EtherType, Groups: [][6]byte{t.link.MKA.Destination}})
	if err != nil {
		return fmt.Errorf("listen for MKA on %s: %w", p.name, err)
	}
	return t.makePort(suite, old)
}

// makePort makes the link's Port from what the kernel and the run directory
// still know.
func (t *task) makePort(suite mka.CipherSuite, old *linkFile) error {
	state, err := t.server.kernel.SecY(t.device.Index)
	if err != nil {
		return err
	}
	t.recall(old)
	if err := t.keep(); err != nil {
		t.faults.Raise(health.Raise(health.RunDirUnwritable, t.began, "detail", err))
	}
	did, err := t.secy.Sweep(state)
	if err != nil {
		t.log.Warn("what an earlier agent left could not be removed", "device", t.device.Name, "error", err)
	}
	if did.UsedUp {
		t.usedUp(t.began)
	}
	if did.SwitchedOn > 0 {
		t.drifted(health.SecYDrift, "receive SA disabled", "while no agent ran", t.began)
	}
	adopted := secy.Adopt(state)
	t.port, err = mka.NewPort(mka.Config{
		SCI: mka.SCI(t.device.SCI), Address: t.parent.address,
		Destination: t.link.MKA.Destination, EtherType: t.link.MKA.EtherType,
		Priority: t.link.MKA.Priority, Suite: suite,
		Hello: t.link.MKA.Hello, Life: t.link.MKA.Life, SAKRekey: t.policy.SAKRekey,
		DelayProtect: t.link.MKA.DelayProtect, ICVIndicator: t.link.MKA.ICVIndicator,
		External: t.link.External, Rand: rand.Reader, Resume: t.file.MKA, Adopted: adopted,
	})
	if err != nil {
		return err
	}
	for _, k := range adopted {
		if k.Encoding {
			t.ki = k.KI
		}
	}
	t.missed(old, adopted, did.UsedUp)
	t.epochs = map[mka.CKN]keys.Epoch{}
	t.log.Info("link is set up", "interface", t.parent.name, "device", t.device.Name,
		"sci", t.device.SCI.String(), "cipher", suite.String(), "adopted_saks", len(adopted))
	return nil
}

// tearSession forgets a session, with the faults that only a session can see
// the end of. What is in the kernel stays.
func (t *task) tearSession() {
	t.meter.end(t.port, t.conn)
	if t.conn != nil {
		_ = t.conn.Close()
	}
	clear(t.epochs)
	if t.port != nil {
		t.port.Erase()
	}
	for _, done := range t.waiting {
		done <- errors.New("the link was lost")
	}
	t.waiting = nil
	for _, done := range t.leaving {
		done <- errors.New("the link was lost")
	}
	t.leaving, t.traffic, t.lost = nil, trafficWatch{}, nil
	t.conn, t.port, t.ring, t.chain, t.device, t.deadline = nil, nil, nil, nil, nil, time.Time{}
	t.queue, t.ops, t.focused, t.refocusAt = nil, nil, pae.Focus{}, time.Time{}
	t.faults.Replace(slices.Concat(diagnosed, keys.FindingCodes(), chainCodes, []health.Code{health.PeerLost, health.ParentDown, health.TrafficMissing, health.PNsUsedUp, health.AddressMissing}), nil)
}

// carry sets the device up: traffic comes last.
func (t *task) carry() {
	if t.everUp {
		return
	}
	if err := t.server.kernel.UpdateDevice(t.device.Index, macsec.DeviceUpdate{Up: new(true)}); err != nil {
		err = fmt.Errorf("set %s up: %w", t.device.Name, err)
		if t.uncarried == nil || t.uncarried.Error() != err.Error() { // it is tried each second
			t.log.Error("device could not be set up", "device", t.device.Name, "error", err)
		}
		t.uncarried = err
		return
	}
	t.everUp, t.uncarried = true, nil
	t.ensureAddresses()
}

// ensureAddresses adds what addresses the device lacks, and returns them. One that
// cannot be added, such as of IPv6 where that is switched off, is a fault and no reason
// to have no keys: the others are of use, and so is what runs over none.
func (t *task) ensureAddresses() (added []netip.Prefix) {
	added, err := t.server.platform.ensureAddresses(t.device.Index, t.link.Local.Addresses)
	switch {
	case err == nil:
		t.faults.Clear(health.AddressMissing)
	case t.faults.Raise(health.Raise(health.AddressMissing, time.Now(), "interface", t.device.Name, "detail", err)):
		t.log.Error("addresses", "error", err)
	}
	return added
}

func (t *task) suite() mka.CipherSuite {
	switch t.link.Cipher {
	case inventory.GCMAES128:
		return mka.GCMAES128
	case inventory.GCMAES256:
		return mka.GCMAES256
	case inventory.GCMAESXPN128:
		return mka.GCMAESXPN128
	case inventory.GCMAESXPN256:
	}
	return mka.GCMAESXPN256
}

func macString(m mka.MAC) string { return net.HardwareAddr(m[:]).String() }
