package macsec

// SecYStats counts what concerns no channel (IEEE 802.1AE 10.7.9, 10.7.18).
type SecYStats struct {
	OutPktsUntagged  uint64
	InPktsUntagged   uint64
	OutPktsTooLong   uint64
	InPktsNoTag      uint64 // counts EAPOL too
	InPktsBadTag     uint64
	InPktsUnknownSCI uint64
	InPktsNoSCI      uint64
	InPktsOverrun    uint64
}

// TxSCStats counts a transmit channel over all its associations.
type TxSCStats struct {
	OutPktsProtected   uint64
	OutPktsEncrypted   uint64
	OutOctetsProtected uint64
	OutOctetsEncrypted uint64
}

// RxSCStats counts a receive channel over all its associations.
type RxSCStats struct {
	InOctetsValidated uint64
	InOctetsDecrypted uint64
	InPktsUnchecked   uint64
	InPktsDelayed     uint64
	InPktsOK          uint64
	InPktsInvalid     uint64
	InPktsLate        uint64
	InPktsNotValid    uint64
	InPktsNotUsingSA  uint64
	InPktsUnusedSA    uint64
}

// SAStats counts one association: the In counters of a receive association, the
// Out counters of a transmit association. They have 32 bits, wrap, and are lost
// with the association; Accumulator makes totals of them.
type SAStats struct {
	InPktsOK         uint32
	InPktsInvalid    uint32
	InPktsNotValid   uint32
	InPktsNotUsingSA uint32
	InPktsUnusedSA   uint32
	OutPktsProtected uint32
	OutPktsEncrypted uint32
}

func (s *SecYStats) counters() []*uint64 {
	return []*uint64{
		&s.OutPktsUntagged,
		&s.InPktsUntagged,
		&s.OutPktsTooLong,
		&s.InPktsNoTag,
		&s.InPktsBadTag,
		&s.InPktsUnknownSCI,
		&s.InPktsNoSCI,
		&s.InPktsOverrun,
	}
}

func (s *TxSCStats) counters() []*uint64 {
	return []*uint64{
		&s.OutPktsProtected,
		&s.OutPktsEncrypted,
		&s.OutOctetsProtected,
		&s.OutOctetsEncrypted,
	}
}

func (s *RxSCStats) counters() []*uint64 {
	return []*uint64{
		&s.InOctetsValidated,
		&s.InOctetsDecrypted,
		&s.InPktsUnchecked,
		&s.InPktsDelayed,
		&s.InPktsOK,
		&s.InPktsInvalid,
		&s.InPktsLate,
		&s.InPktsNotValid,
		&s.InPktsNotUsingSA,
		&s.InPktsUnusedSA,
	}
}

// SATotals are SAStats with 64 bits, over all associations of a channel.
type SATotals struct {
	InPktsOK         uint64
	InPktsInvalid    uint64
	InPktsNotValid   uint64
	InPktsNotUsingSA uint64
	InPktsUnusedSA   uint64
	OutPktsProtected uint64
	OutPktsEncrypted uint64
}

func (s *SATotals) counters() []*uint64 {
	return []*uint64{
		&s.InPktsOK,
		&s.InPktsInvalid,
		&s.InPktsNotValid,
		&s.InPktsNotUsingSA,
		&s.InPktsUnusedSA,
		&s.OutPktsProtected,
		&s.OutPktsEncrypted,
	}
}

func (s *SAStats) counters() []*uint32 {
	return []*uint32{
		&s.InPktsOK,
		&s.InPktsInvalid,
		&s.InPktsNotValid,
		&s.InPktsNotUsingSA,
		&s.InPktsUnusedSA,
		&s.OutPktsProtected,
		&s.OutPktsEncrypted,
	}
}
