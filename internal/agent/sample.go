package agent

import (
	"fmt"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// A session looks at its ground when the kernel tells of a change, and samples what
// the kernel never tells of.

// look compares the interfaces with what the session was made for. It is called
// when the kernel tells that something has changed.
func (t *task) look() error {
	now := time.Now()
	p, err := t.server.platform.findParent(t.link.Local.Interface)
	if isA[*missingError](err) {
		// Renamed, it is still the link's.
		if was, found := t.server.platform.findIndex(t.parent.index); found == nil {
			t.drifted(health.ParentDrift, "interface renamed", fmt.Sprintf("%s is called %s: give it its name back, or correct the inventory", t.link.Local.Interface, was.name), now)
			p, err = was, nil
		}
	}
	if err != nil {
		return err
	}
	if p.index != t.parent.index {
		t.drifted(health.ParentDrift, "interface replaced", fmt.Sprintf("%s is another interface now", p.name), now)
		return errAnew
	}
	if p.master != 0 {
		return &enslavedError{p.name, t.server.platform.interfaceName(p.master)}
	}
	if p.running {
		t.faults.Clear(health.ParentDown)
		if !t.parent.running {
			t.step(mka.Event{Kind: mka.EventLinkUp})
		}
	} else {
		detail := "no carrier"
		if !p.up {
			detail = "set down by an administrator"
		}
		t.faults.Raise(health.Raise(health.ParentDown, now, "interface", p.name, "detail", detail))
	}
	if p.address != t.parent.address {
		// MKPDUs come from the new address; the SCI stays as it was made.
		t.drifted(health.ParentDrift, "address changed", fmt.Sprintf("from %s to %s; the SCI stays %s", macString(t.parent.address), macString(p.address), t.device.SCI), now)
		return errAnew
	}
	if p.mtu != t.parent.mtu {
		t.drifted(health.ParentDrift, "MTU changed", fmt.Sprintf("from %d to %d; the device follows", t.parent.mtu, p.mtu), now)
	}
	t.parent = p
	state, err := t.server.kernel.SecY(t.device.Index)
	if err != nil {
		return t.unread(err)
	}
	t.checkMark(now)
	if err := t.checkSecY(state); err != nil || !t.everUp {
		return err
	}
	for _, p := range t.ensureAddresses() {
		t.drifted(health.SecYDrift, "address removed", p.String(), now)
	}
	return nil
}

// sample looks at what the kernel has no notification for, and reports the
// transmit packet numbers to the Port.
func (t *task) sample() error {
	now := time.Now()
	state, err := get(t.server.lease, "SecYs", func() (*macsec.SecY, error) { return t.server.dumps.secY(t.device.Index) })
	if err != nil {
		return t.unread(err)
	}
	for i := range state.TxSC.SAs {
		sa := &state.TxSC.SAs[i]
		t.step(mka.Event{Kind: mka.EventPN, KI: mka.KIFromBytes(sa.KeyID), NextPN: sa.NextPN})
	}
	if !t.securedAt.IsZero() {
		t.carry() // in case it failed
	}
	t.watchTraffic(state, now)
	t.measure(state)
	t.checkArrivals(state, now)
	t.retryState()
	if t.faults.Has(health.AddressMissing) {
		t.ensureAddresses()
	}
	t.settleDrift(now)
	if t.parent.name != t.link.Local.Interface {
		return t.look() // whether it is still called so
	}
	if err := t.lookAtFence(); err != nil {
		return err
	}
	return t.checkSecY(state)
}

// sampleInterval is how often the SecY is read: as often as the Port wants to
// know its packet numbers, and at least every driftPeriod.
func (t *task) sampleInterval() time.Duration {
	return min(max(t.port.SampleInterval(), mka.BoundedHello), driftPeriod)
}
