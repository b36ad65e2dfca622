package agent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// What somebody else changes under a link is put right: at once when the kernel
// tells of it (interfaces, tc filters), and otherwise within driftPeriod, since it
// has no notifications for secure associations.
const (
	driftPeriod = time.Second
	// driftShown is how long a drift stays a fault after it was last put right:
	// long enough to be seen by whoever looks now and then.
	driftShown = 10 * time.Second
)

// drift is what was found of one kind and put right.
type drift struct {
	what        []string // each once, at most maxDrifts
	since, last time.Time
}

const maxDrifts = 8

// driftSet is what was found lately, by the fault that it is.
type driftSet map[health.Code]*drift

// note adds what was found, and says whether that is news.
func (ds *driftSet) note(code health.Code, what string, now time.Time) (d *drift, news bool) {
	if *ds == nil {
		*ds = driftSet{}
	}
	if d = (*ds)[code]; d == nil {
		d = &drift{since: now}
		(*ds)[code] = d
	}
	if d.last = now; slices.Contains(d.what, what) || len(d.what) == maxDrifts {
		return d, false
	}
	d.what = append(d.what, what)
	return d, true
}

// settle forgets what has stayed as it must be, and returns it.
func (ds driftSet) settle(now time.Time) driftSet {
	over := driftSet{}
	for code, d := range ds {
		if now.Sub(d.last) >= driftShown {
			over[code] = d
			delete(ds, code)
		}
	}
	return over
}

// drifted has the status show for a while that something of the link was not as it
// must be. Kind is of a small set.
func (t *task) drifted(code health.Code, kind, detail string, now time.Time) {
	if t.repairs == nil {
		t.repairs = map[string]uint64{}
	}
	t.repairs[kind]++
	text := kind
	if detail != "" {
		text += ": " + detail
	}
	d, news := t.drifts.note(code, text, now)
	if !news {
		return
	}
	t.log.Warn("somebody else changed the link: put right", "fault", string(code), "was", text)
	t.faults.Raise(health.Raise(code, d.since, "interface", t.driftsAt(code), "detail", strings.Join(d.what, "; ")))
	t.news = true
}

// driftsAt is the interface that a drift is about.
func (t *task) driftsAt(code health.Code) string {
	if code == health.SecYDrift {
		return t.link.Local.Secure
	}
	return t.link.Local.Interface
}

// settleDrift ends the faults of what has stayed as it must be.
func (t *task) settleDrift(now time.Time) {
	for code, d := range t.drifts.settle(now) {
		t.faults.Clear(code)
		t.news = true
		t.log.Info("the link has stayed as it must be", "fault", string(code), "was", strings.Join(d.what, "; "), "for", driftShown.String())
	}
}

// checkSecY holds the device against what it must be: its configuration, and the
// SAs that the Port has put there. State may be some moments old: what differs is
// looked at again before anything is done about it.
func (t *task) checkSecY(state *macsec.SecY) error {
	pns := maps.Clone(t.pns)
	if t.judge(state, pns).clean {
		t.pns, t.unmended = pns, nil
		return nil
	}
	state, err := t.server.kernel.SecY(t.device.Index)
	if err != nil {
		return t.unread(err)
	}
	v := t.judge(state, t.pns)
	if v.clean {
		t.unmended = nil
		return nil
	}
	now := time.Now()
	t.putRight(&v, now)
	t.mend(v.differences, now)
	return t.checkDevice(&state.Device, now)
}

// putRight configures the device as it must be. That comes before all else: what goes
// out unencrypted is lost for good.
func (t *task) putRight(v *verdict, now time.Time) {
	last := t.unmended
	t.unmended = nil
	if len(v.wrong) == 0 {
		return
	}
	if err := t.server.kernel.UpdateDevice(t.device.Index, v.update); err != nil {
		t.unmended = fmt.Errorf("put right %s: %w", strings.Join(v.wrong, ", "), err)
		if last == nil || last.Error() != t.unmended.Error() { // it is tried each second
			t.log.Error("device could not be put right", "device", t.device.Name, "was", strings.Join(v.wrong, ", "), "error", err)
		}
		return
	}
	for _, what := range v.wrong {
		t.drifted(health.SecYDrift, what, "", now)
	}
}

func (t *task) mend(ds []secy.Difference, now time.Time) {
	if err := secy.Mend(ds); err != nil {
		t.log.Error("associations could not be put right", "device", t.device.Name, "error", err)
	}
	for _, d := range ds {
		switch {
		case !d.UsedUp:
			t.drifted(health.SecYDrift, d.Kind, d.Detail, now)
		case d.Encoding: // else another SAK is in use already
			t.usedUp(now)
		}
		if d.Lost.Kind == mka.EventSALost {
			t.step(d.Lost)
		}
	}
}

// usedUp says that nothing is sent any more until another SAK is in use.
func (t *task) usedUp(now time.Time) {
	t.log.Error("the packet numbers of the SAK in use are used up; its transmit SA is deleted", "device", t.device.Name)
	t.faults.Raise(health.Raise(health.PNsUsedUp, now, "interface", t.link.Local.Secure))
	t.news = true
}

// checkArrivals looks for a peer all of whose frames are late.
func (t *task) checkArrivals(state *macsec.SecY, now time.Time) {
	st := t.port.Status()
	t.mend(secy.Late(state, st.KI, transmitPNs(&st), t.arrivals, now, t.link.MKA.Life), now)
}

// verdict is what a look at a device comes to.
type verdict struct {
	update      macsec.DeviceUpdate
	wrong       []string // what it puts right
	differences []secy.Difference
	clean       bool
}

func (t *task) judge(s *macsec.SecY, pns secy.PNs) (v verdict) {
	v.update, v.wrong = wantedUpdate(&s.Device, t.deviceConfig(&s.Device))
	if want, scs, known := t.port.Associations(); known {
		v.differences = t.secy.Compare(s, want, scs, pns)
	}
	v.clean = len(v.wrong) == 0 && len(v.differences) == 0 &&
		s.Name == t.device.Name && (s.Up || !t.everUp) && s.MTU == t.deviceMTU(&s.Device)
	return v
}

// deviceConfig is how the link's device must be; what is fixed at creation, or the
// Port's to choose, is as it is.
func (t *task) deviceConfig(dev *macsec.Device) macsec.DeviceConfig {
	cfg := secy.DeviceConfig(dev.SCI, dev.CipherSuite)
	cfg.ReplayWindow = t.link.MKA.ReplayWindow
	return cfg
}

// checkDevice puts right what an interface has besides MACsec.
func (t *task) checkDevice(dev *macsec.Device, now time.Time) error {
	on := &t.server.platform
	if dev.Name != t.device.Name {
		t.drifted(health.SecYDrift, "device renamed", fmt.Sprintf("to %s", dev.Name), now)
		if err := on.rename(dev.Index, dev.Up, t.device.Name); err != nil {
			return fmt.Errorf("give %s its name %s back: %w", dev.Name, t.device.Name, err)
		}
		dev.Up = false // it may have been set down for it
	}
	if mtu := t.deviceMTU(dev); dev.MTU != mtu {
		t.drifted(health.SecYDrift, "device MTU changed", fmt.Sprintf("%d instead of %d", dev.MTU, mtu), now)
		if err := on.setMTU(dev.Index, mtu); err != nil {
			t.log.Error("MTU", "device", t.device.Name, "error", err)
		}
	}
	if t.everUp && !dev.Up {
		t.everUp = false
		if t.carry(); t.everUp && dev.Name == t.device.Name {
			t.drifted(health.SecYDrift, "device set down", "", now)
		}
	}
	return nil
}

// deviceMTU is what the device's must be: what is left of the parent's by SecTAG
// and ICV (macsec_newlink). The kernel lowers it with the parent's, and never
// raises it again.
func (t *task) deviceMTU(dev *macsec.Device) int {
	const secTAG = 16 // with the SCI, EtherType included
	if t.parent.mtu == 0 {
		return dev.MTU
	}
	return t.parent.mtu - secTAG - int(dev.ICVLen)
}

// missed reports what somebody did to the device's SAs while no agent ran, as far as
// the record tells. The Port puts it right.
func (t *task) missed(old *linkFile, found []mka.AdoptedKey, usedUp bool) {
	gone := func(kind string) { t.drifted(health.SecYDrift, kind, "while no agent ran", t.began) }
	if old == nil || old.Index != t.parent.index || old.MKA == nil || old.MKA.Latest == nil {
		return
	}
	if t.made {
		gone("device deleted") // and with it what vouches for the record
		return
	}
	if old.Up && !t.everUp {
		gone("device set down")
	}
	r := t.file.MKA
	if r == nil {
		return // nothing is certain
	}
	encoding := false
	for _, k := range found {
		members, ours := r.Members(k.KI)
		switch {
		case !ours && r.Knows(k.KI): // given up, and the agent died before it was deleted
		case !ours: // the record is written before an SA is made
			gone("foreign SA")
		case k.Encoding && len(k.Receive) < members:
			gone("receive SA gone")
		}
		encoding = encoding || ours && k.Encoding
	}
	if !encoding && !usedUp && r.Transmits() {
		gone("transmit SA gone")
	}
}

// unread is what it means that the device could not be read.
func (t *task) unread(err error) error {
	if errors.Is(err, macsec.ErrNotExist) {
		t.drifted(health.SecYDrift, "device deleted", "", time.Now())
		return errAnew
	}
	t.log.Warn("device could not be read", "device", t.device.Name, "error", err)
	return nil
}

// errAnew ends a session whose ground has changed: the next one begins at once.
var errAnew = errors.New("the link is set up anew")

// dumps reads all devices at once for all links: the kernel has no way to ask for
// one, and a hundred links would have it list a hundred devices a hundred times a
// second.
type dumps struct {
	kernel macsec.Kernel

	mu    sync.Mutex
	taken time.Time
	secYs map[int]*macsec.SecY
}

// dumpShared is how long a dump is good enough for everybody.
const dumpShared = driftPeriod / 4

// secY returns a device as it was within the last dumpShared.
func (d *dumps) secY(index int) (*macsec.SecY, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.secYs == nil || now.Sub(d.taken) > dumpShared {
		all, err := d.kernel.SecYs()
		if err != nil {
			d.secYs = nil
			return d.kernel.SecY(index) // one that is broken must not blind the others
		}
		d.taken, d.secYs = now, make(map[int]*macsec.SecY, len(all))
		for i := range all {
			d.secYs[all[i].Index] = &all[i]
		}
	}
	if s := d.secYs[index]; s != nil {
		return s, nil
	}
	return d.kernel.SecY(index) // made since, or gone
}
