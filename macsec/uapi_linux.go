package macsec

// The generic netlink interface of the kernel, include/uapi/linux/if_macsec.h;
// golang.org/x/sys/unix has the rtnetlink half only.
const (
	genlName    = "macsec"
	genlVersion = 1
)

// enum macsec_nl_commands.
const (
	cmdGetTxSC    = 0
	cmdAddRxSC    = 1
	cmdDelRxSC    = 2
	cmdUpdRxSC    = 3
	cmdAddTxSA    = 4
	cmdDelTxSA    = 5
	cmdUpdTxSA    = 6
	cmdAddRxSA    = 7
	cmdDelRxSA    = 8
	cmdUpdRxSA    = 9
	cmdUpdOffload = 10
)

// enum macsec_attrs.
const (
	attrIfindex    = 1
	attrRxSCConfig = 2
	attrSAConfig   = 3
	attrSecY       = 4
	attrTxSAList   = 5
	attrRxSCList   = 6
	attrTxSCStats  = 7
	attrSecYStats  = 8
	attrOffload    = 9
)

// enum macsec_secy_attrs.
const (
	secyAttrSCI         = 1
	secyAttrEncodingSA  = 2
	secyAttrWindow      = 3
	secyAttrCipherSuite = 4
	secyAttrICVLen      = 5
	secyAttrProtect     = 6
	secyAttrReplay      = 7
	secyAttrOper        = 8
	secyAttrValidate    = 9
	secyAttrEncrypt     = 10
	secyAttrIncSCI      = 11
	secyAttrES          = 12
	secyAttrSCB         = 13
)

// enum macsec_rxsc_attrs.
const (
	rxscAttrSCI    = 1
	rxscAttrActive = 2
	rxscAttrSAList = 3
	rxscAttrStats  = 4
)

// enum macsec_sa_attrs.
const (
	saAttrAN     = 1
	saAttrActive = 2
	saAttrPN     = 3
	saAttrKey    = 4
	saAttrKeyID  = 5
	saAttrStats  = 6
	saAttrSSCI   = 8
	saAttrSalt   = 9
)

// enum macsec_offload_attrs.
const offloadAttrType = 1

// enum macsec_rxsc_stats_attr.
const (
	rxscStatsInOctetsValidated = 1
	rxscStatsInOctetsDecrypted = 2
	rxscStatsInPktsUnchecked   = 3
	rxscStatsInPktsDelayed     = 4
	rxscStatsInPktsOK          = 5
	rxscStatsInPktsInvalid     = 6
	rxscStatsInPktsLate        = 7
	rxscStatsInPktsNotValid    = 8
	rxscStatsInPktsNotUsingSA  = 9
	rxscStatsInPktsUnusedSA    = 10
)

// enum macsec_sa_stats_attr.
const (
	saStatsInPktsOK         = 1
	saStatsInPktsInvalid    = 2
	saStatsInPktsNotValid   = 3
	saStatsInPktsNotUsingSA = 4
	saStatsInPktsUnusedSA   = 5
	saStatsOutPktsProtected = 6
	saStatsOutPktsEncrypted = 7
)

// enum macsec_txsc_stats_attr.
const (
	txscStatsOutPktsProtected   = 1
	txscStatsOutPktsEncrypted   = 2
	txscStatsOutOctetsProtected = 3
	txscStatsOutOctetsEncrypted = 4
)

// enum macsec_secy_stats_attr.
const (
	secyStatsOutPktsUntagged  = 1
	secyStatsInPktsUntagged   = 2
	secyStatsOutPktsTooLong   = 3
	secyStatsInPktsNoTag      = 4
	secyStatsInPktsBadTag     = 5
	secyStatsInPktsUnknownSCI = 6
	secyStatsInPktsNoSCI      = 7
	secyStatsInPktsOverrun    = 8
)
