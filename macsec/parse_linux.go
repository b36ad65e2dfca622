package macsec

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// parseLink reads an RTM_NEWLINK message. The link is nil if its kind is not
// macsec.
func parseLink(b []byte) (*link, string, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return nil, "", fmt.Errorf("link message of %d octets, at least %d expected: %w", len(b), unix.SizeofIfInfomsg, unix.EPROTO)
	}
	l := &link{Device: Device{
		Index: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Up:    binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0,
	}}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return nil, "", malformed("link", err)
	}
	var kind string
	var data []byte
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			l.Name = ad.String()
		case unix.IFLA_LINK:
			l.Parent = int(int32(ad.Uint32()))
		case unix.IFLA_MTU:
			l.MTU = int(ad.Uint32())
		case unix.IFLA_ADDRESS:
			l.MAC = net.HardwareAddr(ad.Bytes())
		case unix.IFLA_LINKINFO:
			ad.Nested(func(nad *netlink.AttributeDecoder) error {
				for nad.Next() {
					switch nad.Type() {
					case unix.IFLA_INFO_KIND:
						kind = nad.String()
					case unix.IFLA_INFO_DATA:
						data = nad.Bytes()
					}
				}
				return nil
			})
		}
	}
	if err := ad.Err(); err != nil {
		return nil, "", malformed("link", err)
	}
	if kind != linkKind {
		return nil, kind, nil
	}
	if err := l.parseData(data); err != nil {
		return nil, "", malformed("link data", err)
	}
	return l, kind, nil
}

func (l *link) parseData(b []byte) error {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	cfg := &l.DeviceConfig
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_MACSEC_SCI:
			fixed(ad, cfg.SCI[:])
		case unix.IFLA_MACSEC_ICV_LEN:
			cfg.ICVLen = ad.Uint8()
		case unix.IFLA_MACSEC_CIPHER_SUITE:
			cfg.CipherSuite = CipherSuite(ad.Uint64()).canonical()
		case unix.IFLA_MACSEC_WINDOW:
			cfg.ReplayWindow = ad.Uint32()
		case unix.IFLA_MACSEC_ENCODING_SA:
			cfg.EncodingAN = AN(ad.Uint8())
		case unix.IFLA_MACSEC_ENCRYPT:
			cfg.Encrypt = ad.Uint8() != 0
		case unix.IFLA_MACSEC_PROTECT:
			cfg.Protect = ad.Uint8() != 0
		case unix.IFLA_MACSEC_INC_SCI:
			cfg.IncludeSCI = ad.Uint8() != 0
		case unix.IFLA_MACSEC_ES:
			cfg.EndStation = ad.Uint8() != 0
		case unix.IFLA_MACSEC_SCB:
			cfg.SCB = ad.Uint8() != 0
		case unix.IFLA_MACSEC_REPLAY_PROTECT:
			cfg.ReplayProtect = ad.Uint8() != 0
		case unix.IFLA_MACSEC_VALIDATION:
			cfg.Validate = Validate(ad.Uint8())
		case unix.IFLA_MACSEC_OFFLOAD:
			cfg.Offload = Offload(ad.Uint8())
			l.haveOffload = true
		}
	}
	return ad.Err()
}

// parseSecY reads a message of the dump, header included: nil if it is not about
// the device index, unless that is zero.
func parseSecY(b []byte, index int) (*SecY, error) {
	const header = 4 // struct genlmsghdr
	if len(b) < header {
		return nil, fmt.Errorf("generic netlink message of %d octets: %w", len(b), unix.EPROTO)
	}
	ad, err := netlink.NewAttributeDecoder(b[header:])
	if err != nil {
		return nil, malformed("SecY", err)
	}
	s := &SecY{}
	for ad.Next() {
		switch ad.Type() {
		case attrIfindex:
			s.Index = int(int32(ad.Uint32()))
			// The kernel puts it first: do not parse a thousand other devices.
			if index != 0 && s.Index != index {
				return nil, nil
			}
		case attrOffload:
			ad.Nested(func(nad *netlink.AttributeDecoder) error {
				for nad.Next() {
					if nad.Type() == offloadAttrType {
						s.Offload = Offload(nad.Uint8())
					}
				}
				return nil
			})
		case attrSecY:
			ad.Nested(s.parseConfig)
		case attrTxSCStats:
			ad.Nested(s.TxSC.Stats.parse)
		case attrSecYStats:
			ad.Nested(s.Stats.parse)
		case attrTxSAList:
			ad.Nested(func(nad *netlink.AttributeDecoder) (err error) {
				s.TxSC.SAs, err = parseSAs(nad)
				return err
			})
		case attrRxSCList:
			ad.Nested(s.parseRxSCs)
		}
	}
	if err := ad.Err(); err != nil {
		return nil, malformed("SecY", err)
	}
	if s.Index <= 0 {
		return nil, fmt.Errorf("SecY without an interface index: %w", unix.EPROTO)
	}
	return s, nil
}

func (s *SecY) parseConfig(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case secyAttrSCI:
			fixed(ad, s.SCI[:])
		case secyAttrEncodingSA:
			s.EncodingAN = AN(ad.Uint8())
		case secyAttrWindow:
			s.ReplayWindow = ad.Uint32()
		case secyAttrCipherSuite:
			s.CipherSuite = CipherSuite(ad.Uint64()).canonical()
		case secyAttrICVLen:
			s.ICVLen = ad.Uint8()
		case secyAttrProtect:
			s.Protect = ad.Uint8() != 0
		case secyAttrReplay:
			s.ReplayProtect = ad.Uint8() != 0
		case secyAttrOper:
			s.Operational = ad.Uint8() != 0
		case secyAttrValidate:
			s.Validate = Validate(ad.Uint8())
		case secyAttrEncrypt:
			s.Encrypt = ad.Uint8() != 0
		case secyAttrIncSCI:
			s.IncludeSCI = ad.Uint8() != 0
		case secyAttrES:
			s.EndStation = ad.Uint8() != 0
		case secyAttrSCB:
			s.SCB = ad.Uint8() != 0
		}
	}
	return nil
}

func (s *SecY) parseRxSCs(list *netlink.AttributeDecoder) error {
	for list.Next() {
		var sc RxSC
		list.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				switch ad.Type() {
				case rxscAttrSCI:
					fixed(ad, sc.SCI[:])
				case rxscAttrActive:
					sc.Active = ad.Uint8() != 0
				case rxscAttrStats:
					ad.Nested(sc.Stats.parse)
				case rxscAttrSAList:
					ad.Nested(func(nad *netlink.AttributeDecoder) (err error) {
						sc.SAs, err = parseSAs(nad)
						return err
					})
				}
			}
			return nil
		})
		s.RxSCs = append(s.RxSCs, sc)
	}
	slices.SortFunc(s.RxSCs, func(a, b RxSC) int { return bytes.Compare(a.SCI[:], b.SCI[:]) })
	return nil
}

func parseSAs(list *netlink.AttributeDecoder) ([]SA, error) {
	var sas []SA
	for list.Next() {
		var sa SA
		list.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				switch ad.Type() {
				case saAttrAN:
					sa.AN = AN(ad.Uint8())
				case saAttrActive:
					sa.Active = ad.Uint8() != 0
				case saAttrPN:
					ad.Do(sa.parsePN)
				case saAttrKeyID:
					fixed(ad, sa.KeyID[:])
				case saAttrSSCI:
					var b [4]byte
					fixed(ad, b[:])
					sa.SSCI = SSCI(binary.BigEndian.Uint32(b[:]))
				case saAttrStats:
					ad.Nested(sa.Stats.parse)
				}
			}
			return nil
		})
		if sa.AN >= NumAN {
			return nil, fmt.Errorf("association number %d, at most %d exists", sa.AN, NumAN-1)
		}
		sas = append(sas, sa)
	}
	slices.SortFunc(sas, func(a, b SA) int { return cmp.Compare(a.AN, b.AN) })
	return sas, nil
}

// parsePN reads a packet number, whose length says whether the device is XPN.
func (sa *SA) parsePN(b []byte) error {
	switch len(b) {
	case 4:
		sa.NextPN = uint64(binary.NativeEndian.Uint32(b))
	case 8:
		sa.NextPN = binary.NativeEndian.Uint64(b)
	default:
		return fmt.Errorf("packet number of %d octets, not 4 or 8", len(b))
	}
	return nil
}

// fixed reads an attribute of exactly the length of to.
func fixed(ad *netlink.AttributeDecoder, to []byte) {
	typ := ad.Type()
	ad.Do(func(b []byte) error {
		if len(b) != len(to) {
			return fmt.Errorf("attribute %d has %d octets, not %d", typ, len(b), len(to))
		}
		copy(to, b)
		return nil
	})
}

func malformed(what string, err error) error {
	return fmt.Errorf("malformed %s from the kernel: %w: %w", what, err, unix.EPROTO)
}
