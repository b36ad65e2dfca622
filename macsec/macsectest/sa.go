package macsectest

import (
	"bytes"
	"math"
	"slices"
	"syscall"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/internal/pnguard"
)

// SecY implements macsec.Kernel.
func (k *Kernel) SecY(index int) (*macsec.SecY, error) {
	var s *macsec.SecY
	err := k.do(Operation{Op: macsec.OpSecY, Index: index}, func() error {
		d := k.devices[index]
		if d == nil {
			return syscall.ENODEV
		}
		s = d.dump()
		return nil
	})
	return s, err
}

// SecYs implements macsec.Kernel.
func (k *Kernel) SecYs() ([]macsec.SecY, error) {
	var all []macsec.SecY
	err := k.do(Operation{Op: macsec.OpSecYs}, func() error {
		for _, d := range k.sorted() {
			all = append(all, *d.dump())
		}
		return nil
	})
	return all, err
}

func (d *device) dump() *macsec.SecY {
	s := &macsec.SecY{
		Device: *d.shown(), Operational: d.operational, Stats: d.stats,
		TxSC: macsec.TxSC{SAs: dumpSAs(d.tx, d.CipherSuite), Stats: d.txStats},
	}
	for _, c := range d.rx {
		s.RxSCs = append(s.RxSCs, macsec.RxSC{
			SCI: c.sci, Active: c.active, SAs: dumpSAs(c.sa, d.CipherSuite), Stats: c.stats,
		})
	}
	slices.SortFunc(s.RxSCs, func(a, b macsec.RxSC) int { return bytes.Compare(a.SCI[:], b.SCI[:]) })
	return s
}

// dumpSAs leaves out what the kernel keeps to itself: key and salt.
func dumpSAs(sas [macsec.NumAN]*association, suite macsec.CipherSuite) []macsec.SA {
	var out []macsec.SA
	for _, sa := range sas {
		if sa == nil {
			continue
		}
		shown := macsec.SA{AN: sa.AN, Active: sa.Active, NextPN: sa.NextPN, KeyID: sa.KeyID, Stats: sa.Stats}
		if suite.XPN() {
			shown.SSCI = sa.SSCI
		}
		out = append(out, shown)
	}
	return out
}

func (d *device) channel(sci macsec.SCI) *channel {
	for _, c := range d.rx {
		if c.sci == sci {
			return c
		}
	}
	return nil
}

// AddRxSC implements macsec.Kernel.
func (k *Kernel) AddRxSC(index int, sci macsec.SCI, active bool) error {
	return k.do(Operation{Op: macsec.OpAddRxSC, Index: index, SCI: &sci, Active: &active}, func() error {
		d := k.devices[index]
		if d == nil {
			return syscall.ENODEV
		}
		// create_rx_sc looks at every device on the same parent.
		for _, o := range d.parent.devices {
			if o.channel(sci) != nil {
				return syscall.EEXIST
			}
		}
		d.rx = append(d.rx, &channel{sci: sci, active: active})
		return nil
	})
}

// UpdateRxSC implements macsec.Kernel.
func (k *Kernel) UpdateRxSC(index int, sci macsec.SCI, active bool) error {
	return k.do(Operation{Op: macsec.OpUpdateRxSC, Index: index, SCI: &sci, Active: &active}, func() error {
		_, c, err := k.find(index, sci)
		if err != nil {
			return err
		}
		c.active = active
		return nil
	})
}

// DeleteRxSC implements macsec.Kernel.
func (k *Kernel) DeleteRxSC(index int, sci macsec.SCI) error {
	return k.do(Operation{Op: macsec.OpDeleteRxSC, Index: index, SCI: &sci}, func() error {
		d, c, err := k.find(index, sci)
		if err != nil {
			return err
		}
		d.rx = slices.DeleteFunc(d.rx, func(o *channel) bool { return o == c })
		return nil
	})
}

func (k *Kernel) find(index int, sci macsec.SCI) (*device, *channel, error) {
	d := k.devices[index]
	if d == nil {
		return nil, nil, syscall.ENODEV
	}
	c := d.channel(sci)
	if c == nil {
		return nil, nil, syscall.ENODEV
	}
	return d, c, nil
}

// fits is the client's test that a packet number can be encoded.
func (d *device) fits(pn uint64) error {
	if !d.CipherSuite.XPN() && pn > math.MaxUint32 {
		return syscall.EINVAL
	}
	return nil
}

// AddRxSA implements macsec.Kernel.
func (k *Kernel) AddRxSA(index int, sci macsec.SCI, sa macsec.SA) error {
	return k.do(Operation{Op: macsec.OpAddRxSA, Index: index, SCI: &sci, AN: &sa.AN, SA: public(sa)}, func() error {
		d := k.devices[index]
		if d == nil {
			return syscall.ENODEV
		}
		if err := d.fits(sa.NextPN); err != nil {
			return err
		}
		if sa.AN >= macsec.NumAN {
			return syscall.EINVAL
		}
		c := d.channel(sci)
		if c == nil {
			return syscall.ENODEV
		}
		if sa.NextPN == 0 {
			sa.NextPN = 1 // init_rx_sa
		}
		return d.install(&c.sa, sa)
	})
}

// install is the common end of macsec_add_rxsa and macsec_add_txsa.
func (d *device) install(slots *[macsec.NumAN]*association, sa macsec.SA) error {
	if sa.Key.Len() != d.CipherSuite.KeyLen() {
		return syscall.EINVAL
	}
	if slots[sa.AN] != nil {
		return syscall.EBUSY
	}
	c, err := newGCM(sa.Key, int(d.ICVLen))
	if err != nil {
		return syscall.EINVAL
	}
	sa.Key, sa.Stats = macsec.Key{}, macsec.SAStats{}
	slots[sa.AN] = &association{SA: sa, cipher: c}
	return nil
}

// UpdateRxSA implements macsec.Kernel.
func (k *Kernel) UpdateRxSA(index int, sci macsec.SCI, an macsec.AN, u macsec.SAUpdate) error {
	return k.do(Operation{Op: macsec.OpUpdateRxSA, Index: index, SCI: &sci, AN: &an, SAUpdate: &u}, func() error {
		d := k.devices[index]
		if d == nil {
			return syscall.ENODEV
		}
		if err := d.validUpdate(an, u); err != nil {
			return err
		}
		c := d.channel(sci)
		if c == nil || c.sa[an] == nil {
			return syscall.ENODEV
		}
		set(&c.sa[an].NextPN, u.NextPN)
		set(&c.sa[an].Active, u.Active)
		return nil
	})
}

// validUpdate is validate_upd_sa, after the client's encoding.
func (d *device) validUpdate(an macsec.AN, u macsec.SAUpdate) error {
	if u.NextPN != nil {
		if err := d.fits(*u.NextPN); err != nil || *u.NextPN == 0 {
			return syscall.EINVAL
		}
	}
	if an >= macsec.NumAN {
		return syscall.EINVAL
	}
	return nil
}

// DeleteRxSA implements macsec.Kernel.
func (k *Kernel) DeleteRxSA(index int, sci macsec.SCI, an macsec.AN) error {
	return k.do(Operation{Op: macsec.OpDeleteRxSA, Index: index, SCI: &sci, AN: &an}, func() error {
		if an >= macsec.NumAN {
			return syscall.EINVAL
		}
		_, c, err := k.find(index, sci)
		if err != nil {
			return err
		}
		return uninstall(&c.sa, an)
	})
}

func uninstall(slots *[macsec.NumAN]*association, an macsec.AN) error {
	switch {
	case slots[an] == nil:
		return syscall.ENODEV
	case slots[an].Active:
		return syscall.EBUSY
	}
	slots[an] = nil
	return nil
}

// AddTxSA implements macsec.Kernel, with the guard of the client.
func (k *Kernel) AddTxSA(index int, sa macsec.SA) error {
	return k.do(Operation{Op: macsec.OpAddTxSA, Index: index, AN: &sa.AN, SA: public(sa)}, func() error {
		d := k.devices[index]
		if d == nil {
			return syscall.ENODEV
		}
		if err := d.fits(sa.NextPN); err != nil {
			return err
		}
		if next := k.spent.Next(d.SCI, sa.KeyID); sa.NextPN < next {
			return &macsec.PNError{AN: sa.AN, Current: next, Requested: sa.NextPN}
		}
		for _, old := range d.tx {
			if old != nil && sa.KeyID != (macsec.KeyID{}) && old.KeyID == sa.KeyID && old.AN != sa.AN {
				return &macsec.PNError{AN: old.AN, Active: old.Active, Current: old.NextPN, Requested: sa.NextPN}
			}
		}
		if sa.AN >= macsec.NumAN || sa.NextPN == 0 {
			return syscall.EINVAL
		}
		if err := d.install(&d.tx, sa); err != nil {
			return err
		}
		if sa.AN == d.EncodingAN && sa.Active {
			d.operational = true
		}
		return nil
	})
}

// UpdateTxSA implements macsec.Kernel, with the guard of the client.
func (k *Kernel) UpdateTxSA(index int, an macsec.AN, u macsec.SAUpdate) error {
	return k.do(Operation{Op: macsec.OpUpdateTxSA, Index: index, AN: &an, SAUpdate: &u}, func() error {
		d := k.devices[index]
		if d == nil {
			return syscall.ENODEV
		}
		if err := d.validUpdate(an, u); err != nil {
			return err
		}
		sa := d.tx[an]
		if sa == nil {
			return syscall.ENODEV
		}
		if u.NextPN != nil {
			if err := macsec.CheckNextPN(sa.SA, *u.NextPN); err != nil {
				return err
			}
		}
		if u.Active != nil && *u.Active {
			if err := macsec.CheckEnable(sa.SA); err != nil {
				return err
			}
		}
		set(&sa.NextPN, u.NextPN)
		set(&sa.Active, u.Active)
		if an == d.EncodingAN {
			d.operational = sa.Active
		}
		return nil
	})
}

// DeleteTxSA implements macsec.Kernel.
func (k *Kernel) DeleteTxSA(index int, an macsec.AN) error {
	return k.do(Operation{Op: macsec.OpDeleteTxSA, Index: index, AN: &an}, func() error {
		d := k.devices[index]
		if d == nil {
			return syscall.ENODEV
		}
		if an >= macsec.NumAN {
			return syscall.EINVAL
		}
		old := d.tx[an]
		if err := uninstall(&d.tx, an); err != nil {
			return err
		}
		next := old.NextPN
		if next == 0 {
			next = pnguard.Exhausted
		}
		k.spent.Retire(d.SCI, old.KeyID, next)
		return nil
	})
}
