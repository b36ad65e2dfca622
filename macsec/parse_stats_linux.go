package macsec

import "github.com/mdlayher/netlink"

// Attributes that are not here are padding or newer than this table.

func (s *SecYStats) parse(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case secyStatsOutPktsUntagged:
			s.OutPktsUntagged = ad.Uint64()
		case secyStatsInPktsUntagged:
			s.InPktsUntagged = ad.Uint64()
		case secyStatsOutPktsTooLong:
			s.OutPktsTooLong = ad.Uint64()
		case secyStatsInPktsNoTag:
			s.InPktsNoTag = ad.Uint64()
		case secyStatsInPktsBadTag:
			s.InPktsBadTag = ad.Uint64()
		case secyStatsInPktsUnknownSCI:
			s.InPktsUnknownSCI = ad.Uint64()
		case secyStatsInPktsNoSCI:
			s.InPktsNoSCI = ad.Uint64()
		case secyStatsInPktsOverrun:
			s.InPktsOverrun = ad.Uint64()
		}
	}
	return nil
}

func (s *TxSCStats) parse(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case txscStatsOutPktsProtected:
			s.OutPktsProtected = ad.Uint64()
		case txscStatsOutPktsEncrypted:
			s.OutPktsEncrypted = ad.Uint64()
		case txscStatsOutOctetsProtected:
			s.OutOctetsProtected = ad.Uint64()
		case txscStatsOutOctetsEncrypted:
			s.OutOctetsEncrypted = ad.Uint64()
		}
	}
	return nil
}

func (s *RxSCStats) parse(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case rxscStatsInOctetsValidated:
			s.InOctetsValidated = ad.Uint64()
		case rxscStatsInOctetsDecrypted:
			s.InOctetsDecrypted = ad.Uint64()
		case rxscStatsInPktsUnchecked:
			s.InPktsUnchecked = ad.Uint64()
		case rxscStatsInPktsDelayed:
			s.InPktsDelayed = ad.Uint64()
		case rxscStatsInPktsOK:
			s.InPktsOK = ad.Uint64()
		case rxscStatsInPktsInvalid:
			s.InPktsInvalid = ad.Uint64()
		case rxscStatsInPktsLate:
			s.InPktsLate = ad.Uint64()
		case rxscStatsInPktsNotValid:
			s.InPktsNotValid = ad.Uint64()
		case rxscStatsInPktsNotUsingSA:
			s.InPktsNotUsingSA = ad.Uint64()
		case rxscStatsInPktsUnusedSA:
			s.InPktsUnusedSA = ad.Uint64()
		}
	}
	return nil
}

func (s *SAStats) parse(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case saStatsInPktsOK:
			s.InPktsOK = ad.Uint32()
		case saStatsInPktsInvalid:
			s.InPktsInvalid = ad.Uint32()
		case saStatsInPktsNotValid:
			s.InPktsNotValid = ad.Uint32()
		case saStatsInPktsNotUsingSA:
			s.InPktsNotUsingSA = ad.Uint32()
		case saStatsInPktsUnusedSA:
			s.InPktsUnusedSA = ad.Uint32()
		case saStatsOutPktsProtected:
			s.OutPktsProtected = ad.Uint32()
		case saStatsOutPktsEncrypted:
			s.OutPktsEncrypted = ad.Uint32()
		}
	}
	return nil
}
