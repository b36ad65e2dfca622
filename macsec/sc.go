package macsec

// SA is a secure association: one key under one association number.
type SA struct {
	// AN is the association number.
	AN AN
	// Active: in use. The kernel adds associations inactive by default.
	Active bool
	// NextPN is the packet number of the next frame sent, or the next one
	// expected. Not zero when adding to the transmit channel; zero leaves a
	// receive association at the kernel's default, 1.
	NextPN uint64
	// KeyID names the key.
	KeyID KeyID
	// Key is written only, never read back.
	Key Key
	// SSCI is read and written for the XPN suites only.
	SSCI SSCI
	// Salt is written for the XPN suites only, never read back.
	Salt Salt
	// Stats is read only.
	Stats SAStats
}

// SAUpdate changes what is not nil. Key, key identifier, SSCI and salt cannot
// change: delete the association and add it again.
type SAUpdate struct {
	// Active switches the association on or off.
	Active *bool
	// NextPN moves the packet number. Raising that of a receive association is
	// delay protection. That of a transmit association moves only while the
	// association is inactive, and never down (ErrPNReuse).
	NextPN *uint64
}

// TxSC is the transmit channel of a SecY. Its SCI is the device's.
type TxSC struct {
	// SAs in the order of their AN.
	SAs   []SA
	Stats TxSCStats
}

// RxSC is a receive channel: one peer.
type RxSC struct {
	SCI    SCI
	Active bool
	// SAs in the order of their AN.
	SAs   []SA
	Stats RxSCStats
}

// SecY is everything the kernel says about a MACsec device.
type SecY struct {
	Device
	// Operational: the kernel has an active encoding association, or has not
	// yet noticed that it has none.
	Operational bool
	TxSC        TxSC
	// RxSCs in the order of their SCI.
	RxSCs []RxSC
	Stats SecYStats
}

// SA returns the transmit association of that number, or nil.
func (t *TxSC) SA(an AN) *SA { return findSA(t.SAs, an) }

// SA returns the receive association of that number, or nil.
func (r *RxSC) SA(an AN) *SA { return findSA(r.SAs, an) }

// RxSC returns the receive channel of that peer, or nil.
func (s *SecY) RxSC(sci SCI) *RxSC {
	for i := range s.RxSCs {
		if s.RxSCs[i].SCI == sci {
			return &s.RxSCs[i]
		}
	}
	return nil
}

// CheckNextPN says whether the packet number of the transmit association sa, as
// just read, may be set to next. An active association moves while one looks at
// it, so that no value is surely ahead of it. The error is a *PNError.
func CheckNextPN(sa SA, next uint64) error {
	// A next packet number of zero is one that wrapped: all are used.
	if sa.Active || next < sa.NextPN || sa.NextPN == 0 {
		return &PNError{AN: sa.AN, Active: sa.Active, Current: sa.NextPN, Requested: next}
	}
	return nil
}

// CheckEnable says whether the transmit association sa, as just read, may be switched on.
// One that wrapped may not: the kernel drops a single frame for it and goes on with
// packet number 1 (tx_sa_update_pn advances before macsec_encrypt looks). The error is
// a *PNError.
func CheckEnable(sa SA) error {
	if sa.NextPN == 0 {
		return &PNError{AN: sa.AN, Requested: 1}
	}
	return nil
}

func findSA(sas []SA, an AN) *SA {
	for i := range sas {
		if sas[i].AN == an {
			return &sas[i]
		}
	}
	return nil
}
