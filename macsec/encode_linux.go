package macsec

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const linkKind = "macsec"

// encodeLinkInfo adds the kind and, unless data is nil, its attributes.
func encodeLinkInfo(ae *netlink.AttributeEncoder, data func(*netlink.AttributeEncoder)) {
	ae.Nested(unix.IFLA_LINKINFO, func(nae *netlink.AttributeEncoder) error {
		nae.String(unix.IFLA_INFO_KIND, linkKind)
		if data != nil {
			nae.Nested(unix.IFLA_INFO_DATA, func(dae *netlink.AttributeEncoder) error {
				data(dae)
				return nil
			})
		}
		return nil
	})
}

// encodeConfig writes every attribute, so that no default of the kernel (encrypt
// off, replay protection off) shines through.
func encodeConfig(ae *netlink.AttributeEncoder, cfg DeviceConfig) {
	suite, icv := cfg.CipherSuite, cfg.ICVLen
	if suite == 0 {
		suite = GCMAES128
	}
	if icv == 0 {
		icv = DefaultICVLen
	}
	switch {
	case [6]byte(cfg.SCI[:6]) != [6]byte{}:
		ae.Bytes(unix.IFLA_MACSEC_SCI, cfg.SCI[:])
	case cfg.SCI.Port() != 0:
		ae.Bytes(unix.IFLA_MACSEC_PORT, cfg.SCI[6:])
	}
	ae.Uint8(unix.IFLA_MACSEC_ICV_LEN, icv)
	ae.Uint64(unix.IFLA_MACSEC_CIPHER_SUITE, uint64(suite))
	ae.Uint32(unix.IFLA_MACSEC_WINDOW, cfg.ReplayWindow)
	ae.Uint8(unix.IFLA_MACSEC_ENCODING_SA, uint8(cfg.EncodingAN))
	ae.Uint8(unix.IFLA_MACSEC_ENCRYPT, octet(cfg.Encrypt))
	ae.Uint8(unix.IFLA_MACSEC_PROTECT, octet(cfg.Protect))
	ae.Uint8(unix.IFLA_MACSEC_INC_SCI, octet(cfg.IncludeSCI))
	ae.Uint8(unix.IFLA_MACSEC_ES, octet(cfg.EndStation))
	ae.Uint8(unix.IFLA_MACSEC_SCB, octet(cfg.SCB))
	ae.Uint8(unix.IFLA_MACSEC_REPLAY_PROTECT, octet(cfg.ReplayProtect))
	ae.Uint8(unix.IFLA_MACSEC_VALIDATION, uint8(cfg.Validate))
	if cfg.Offload != Off {
		ae.Uint8(unix.IFLA_MACSEC_OFFLOAD, uint8(cfg.Offload))
	}
}

func encodeUpdate(ae *netlink.AttributeEncoder, u DeviceUpdate) {
	for _, f := range []struct {
		typ uint16
		v   *bool
	}{
		{unix.IFLA_MACSEC_ENCRYPT, u.Encrypt},
		{unix.IFLA_MACSEC_PROTECT, u.Protect},
		{unix.IFLA_MACSEC_INC_SCI, u.IncludeSCI},
		{unix.IFLA_MACSEC_ES, u.EndStation},
		{unix.IFLA_MACSEC_SCB, u.SCB},
		{unix.IFLA_MACSEC_REPLAY_PROTECT, u.ReplayProtect},
	} {
		if f.v != nil {
			ae.Uint8(f.typ, octet(*f.v))
		}
	}
	if u.Validate != nil {
		ae.Uint8(unix.IFLA_MACSEC_VALIDATION, uint8(*u.Validate))
	}
	if u.ReplayWindow != nil {
		ae.Uint32(unix.IFLA_MACSEC_WINDOW, *u.ReplayWindow)
	}
	if u.EncodingAN != nil {
		ae.Uint8(unix.IFLA_MACSEC_ENCODING_SA, uint8(*u.EncodingAN))
	}
}

func encodeRxSC(ae *netlink.AttributeEncoder, sci SCI, active *bool) {
	ae.Nested(attrRxSCConfig, func(nae *netlink.AttributeEncoder) error {
		nae.Bytes(rxscAttrSCI, sci[:])
		if active != nil {
			nae.Uint8(rxscAttrActive, octet(*active))
		}
		return nil
	})
}

func encodeAN(ae *netlink.AttributeEncoder, an AN) {
	ae.Nested(attrSAConfig, func(nae *netlink.AttributeEncoder) error {
		nae.Uint8(saAttrAN, uint8(an))
		return nil
	})
}

// encodeSA returns the octets in which the key is, which ae refers to: the caller
// erases them when the request is sent.
func encodeSA(ae *netlink.AttributeEncoder, suite CipherSuite, sa SA) (keyed []byte, err error) {
	nae := netlink.NewAttributeEncoder()
	nae.Uint8(saAttrAN, uint8(sa.AN))
	nae.Uint8(saAttrActive, octet(sa.Active))
	nae.Bytes(saAttrKeyID, sa.KeyID[:])
	nae.Bytes(saAttrKey, sa.Key.Bytes())
	if suite.XPN() {
		ssci := binary.BigEndian.AppendUint32(nil, uint32(sa.SSCI))
		nae.Bytes(saAttrSSCI, ssci)
		nae.Bytes(saAttrSalt, sa.Salt[:])
	}
	var pn *uint64
	if sa.NextPN != 0 {
		pn = &sa.NextPN
	}
	return encodeSAConfig(ae, nae, suite, pn)
}

func encodeSAUpdate(ae *netlink.AttributeEncoder, suite CipherSuite, an AN, u SAUpdate) error {
	nae := netlink.NewAttributeEncoder()
	nae.Uint8(saAttrAN, uint8(an))
	if u.Active != nil {
		nae.Uint8(saAttrActive, octet(*u.Active))
	}
	_, err := encodeSAConfig(ae, nae, suite, u.NextPN)
	return err
}

// encodeSAConfig adds the packet number to nae and all of it to ae, and returns
// it.
func encodeSAConfig(ae, nae *netlink.AttributeEncoder, suite CipherSuite, pn *uint64) ([]byte, error) {
	switch {
	case pn == nil:
	case suite.XPN():
		nae.Uint64(saAttrPN, *pn)
	case *pn > math.MaxUint32:
		return nil, fmt.Errorf("packet number %d does not fit the 32 bits of %s: %w", *pn, suite, unix.EINVAL)
	default:
		nae.Uint32(saAttrPN, uint32(*pn))
	}
	b, err := nae.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode association: %w", err)
	}
	ae.Bytes(netlink.Nested|attrSAConfig, b)
	return b, nil
}

func octet(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}
