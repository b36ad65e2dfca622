// Package secy carries the operations that a Port asks of its SecY out on a
// MACsec device, and describes what is in one for a Port to go on with.
//
// What belongs here: the translation between mka and macsec, and how a link's
// device is configured. What does not: when an operation is done and what comes of
// its failure (internal/agent, internal/sim), and the kernel itself (macsec).
package secy

import (
	"errors"
	"math"
	"slices"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// SecY is one MACsec device of a kernel.
type SecY struct {
	Kernel macsec.Kernel
	Index  int
}

// Suite is the same cipher suite by its name in macsec.
func Suite(s mka.CipherSuite) macsec.CipherSuite { return macsec.CipherSuite(s) }

// Do carries out one operation. Deleting what is not there succeeds.
func (y *SecY) Do(op mka.Op) error {
	sci, an := macsec.SCI(op.SCI), macsec.AN(op.AN)
	if (op.Kind == mka.OpAddReceiveSA || op.Kind == mka.OpAddTransmitSA) && op.SAK.IsZero() {
		return errors.New("the SAK was erased before it was installed") // never a key of zeros
	}
	switch op.Kind {
	case mka.OpAddReceiveSC:
		if err := y.Kernel.AddRxSC(y.Index, sci, true); err != nil && !errors.Is(err, macsec.ErrExist) {
			return err
		}
		return y.Kernel.UpdateRxSC(y.Index, sci, true)
	case mka.OpDeleteReceiveSC:
		return gone(y.Kernel.DeleteRxSC(y.Index, sci))
	case mka.OpAddReceiveSA:
		err := y.Kernel.AddRxSA(y.Index, sci, y.sa(op, true))
		if errors.Is(err, macsec.ErrNotExist) && y.Kernel.AddRxSC(y.Index, sci, true) == nil {
			// The SC could not be made when it was asked for, or somebody removed it.
			err = y.Kernel.AddRxSA(y.Index, sci, y.sa(op, true))
		}
		return err
	case mka.OpDeleteReceiveSA:
		if err := y.Kernel.UpdateRxSA(y.Index, sci, an, macsec.SAUpdate{Active: new(false)}); err != nil {
			return gone(err)
		}
		return gone(y.Kernel.DeleteRxSA(y.Index, sci, an))
	case mka.OpAddTransmitSA:
		return y.Kernel.AddTxSA(y.Index, y.sa(op, false))
	case mka.OpEnableTransmitSA:
		if err := y.Kernel.UpdateTxSA(y.Index, an, macsec.SAUpdate{Active: new(true)}); err != nil {
			return err
		}
		return y.Kernel.UpdateDevice(y.Index, macsec.DeviceUpdate{EncodingAN: &an})
	case mka.OpDeleteTransmitSA:
		if err := y.Kernel.UpdateTxSA(y.Index, an, macsec.SAUpdate{Active: new(false)}); err != nil {
			return gone(err)
		}
		return gone(y.Kernel.DeleteTxSA(y.Index, an))
	case mka.OpRaiseReceivePN:
		return gone(y.raise(sci, an, macsec.KeyID(op.KI.Bytes()), op.LowestPN))
	}
	return errors.New("unknown operation " + op.Kind.String())
}

// raise has a receive SA accept no packet number below lowest. Linux accepts
// from next_pn - window on (macsec_post_decrypt), and takes a next_pn that moves
// backwards too. One that a frame has moved beyond ours since we looked loses no
// protection, for ours stands at the floor that was asked for.
func (y *SecY) raise(sci macsec.SCI, an macsec.AN, key macsec.KeyID, lowest uint64) error {
	state, err := y.Kernel.SecY(y.Index)
	if err != nil {
		return err
	}
	sc := state.RxSC(sci)
	if sc == nil {
		return nil
	}
	sa := sc.SA(an)
	if sa == nil || sa.KeyID != key {
		return nil // of another SAK by now
	}
	most := uint64(math.MaxUint32)
	if state.CipherSuite.XPN() {
		most = math.MaxUint64
	}
	next := most
	if lowest <= most-uint64(state.ReplayWindow) {
		next = lowest + uint64(state.ReplayWindow)
	}
	if state.CipherSuite.XPN() {
		// The kernel takes the upper half of a packet number from next_pn, and adds
		// one when the lower half is smaller and in the other half of the 32 bits
		// (macsec_decrypt): beyond the end of lowest's half it would decipher with
		// the wrong one what is to come before that.
		next = min(next, lowest|(1<<31-1))
	}
	if sa.NextPN == 0 || next <= sa.NextPN { // zero: every packet number was used
		return nil
	}
	return y.Kernel.UpdateRxSA(y.Index, sci, an, macsec.SAUpdate{NextPN: &next})
}

func (y *SecY) sa(op mka.Op, active bool) macsec.SA {
	return macsec.SA{
		AN: macsec.AN(op.AN), Active: active, NextPN: 1, KeyID: macsec.KeyID(op.KI.Bytes()),
		Key: secret.Key(op.SAK), SSCI: macsec.SSCI(op.SSCI), Salt: macsec.Salt(op.Salt),
	}
}

// gone makes the absence of what should be deleted a success.
func gone(err error) error {
	if errors.Is(err, macsec.ErrNotExist) {
		return nil
	}
	return err
}

// Adopt describes the SAs that are in the device for a Port to go on with,
// grouped by KI. One whose key identifier is none of MKA's is of no use to it.
func Adopt(y *macsec.SecY) []mka.AdoptedKey {
	var found []mka.AdoptedKey
	at := func(sa *macsec.SA) *mka.AdoptedKey {
		ki := mka.KIFromBytes(sa.KeyID)
		for i := range found {
			if found[i].KI == ki && found[i].AN == mka.AN(sa.AN) {
				return &found[i]
			}
		}
		found = append(found, mka.AdoptedKey{KI: ki, AN: mka.AN(sa.AN), Suite: mka.CipherSuite(y.CipherSuite)})
		return &found[len(found)-1]
	}
	for i := range y.TxSC.SAs {
		sa := &y.TxSC.SAs[i]
		k := at(sa)
		k.Transmit, k.NextPN = true, sa.NextPN
		k.Encoding = sa.Active && sa.AN == y.EncodingAN
	}
	for i := range y.RxSCs {
		sc := &y.RxSCs[i]
		for j := range sc.SAs {
			if sa := &sc.SAs[j]; sa.Active {
				k := at(sa)
				k.Receive = append(k.Receive, mka.SCI(sc.SCI))
				if sa.NextPN != 1 {
					k.Heard = append(k.Heard, mka.SCI(sc.SCI))
				}
			}
		}
	}
	return found
}

// Sweep clears away what a driver leaves that dies in the middle of a deletion, and
// what no Port knows of, for it is in no AdoptedKey: receive SAs that are switched
// off, and receive SCs without SAs. One that belongs to the SAK in use was not being
// deleted, but switched off by somebody else: it is switched on, and counted. A transmit
// SA whose packet numbers are used up goes, too: nobody must ever switch it on. Found
// is what was just read of the device; it is brought up to date.
func (y *SecY) Sweep(found *macsec.SecY) (did Swept, err error) {
	var errs []error
	found.TxSC.SAs = slices.DeleteFunc(found.TxSC.SAs, func(sa macsec.SA) bool {
		if sa.NextPN != 0 {
			return false
		}
		err := gone(y.Kernel.DeleteTxSA(y.Index, sa.AN))
		if err != nil {
			errs = append(errs, err)
			return false
		}
		did.UsedUp = did.UsedUp || sa.AN == found.EncodingAN
		return true
	})
	encoding := found.TxSC.SA(found.EncodingAN)
	for i := range found.RxSCs {
		sc := &found.RxSCs[i]
		sc.SAs = slices.DeleteFunc(sc.SAs, func(sa macsec.SA) bool {
			if sa.Active || encoding != nil && encoding.Active && encoding.KeyID == sa.KeyID {
				return false
			}
			err := gone(y.Kernel.DeleteRxSA(y.Index, sc.SCI, sa.AN))
			if err != nil {
				errs = append(errs, err)
			}
			return err == nil
		})
		for j := range sc.SAs {
			if sa := &sc.SAs[j]; !sa.Active && encoding != nil && encoding.KeyID == sa.KeyID {
				err := y.Kernel.UpdateRxSA(y.Index, sc.SCI, sa.AN, macsec.SAUpdate{Active: new(true)})
				if err != nil {
					errs = append(errs, err)
				}
				if sa.Active = err == nil; sa.Active {
					did.SwitchedOn++
				}
			}
		}
	}
	found.RxSCs = slices.DeleteFunc(found.RxSCs, func(sc macsec.RxSC) bool {
		if len(sc.SAs) > 0 {
			return false
		}
		err := gone(y.Kernel.DeleteRxSC(y.Index, sc.SCI))
		if err != nil {
			errs = append(errs, err)
		}
		return err == nil
	})
	return did, errors.Join(errs...)
}

// Swept is how many SAs were switched on, and whether the one in use was deleted as used up.
type Swept struct {
	SwitchedOn int
	UsedUp     bool
}
