package macsectest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"syscall"

	"github.com/lever-link/lever/macsec"
)

// EtherType is that of MACsec.
const EtherType = 0x88e5

// The first octet of the SecTAG, besides the association number.
const (
	tciVersion = 0x80
	tciES      = 0x40
	tciSC      = 0x20
	tciSCB     = 0x10
	tciE       = 0x08
	tciC       = 0x04
	anMask     = 0x03
)

const (
	addrsLen = 12 // both MAC addresses
	etherLen = 14 // the Ethernet header
	minLong  = 48 // shorter user data has its length in the SecTAG
)

// ErrDropped is what a frame that was not sent or not delivered ends in; the
// text of the error says why.
var ErrDropped = errors.New("frame dropped")

func dropped(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDropped, fmt.Errorf(format, args...))
}

// tagLen is macsec_extra_len: EtherType and SecTAG.
func tagLen(sci bool) int {
	if sci {
		return 16
	}
	return 8
}

// Transmit sends an Ethernet frame (destination, source, EtherType, data)
// through a device and returns what leaves the parent; ErrDropped if nothing does.
// A device that does not protect sends in clear, as the kernel's would.
func (k *Kernel) Transmit(index int, frame []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[index]
	if d == nil {
		return nil, fmt.Errorf("transmit on ifindex %d: %w", index, syscall.ENODEV)
	}
	if len(frame) < etherLen {
		return nil, fmt.Errorf("transmit on %s: frame of %d octets, at least %d needed: %w", d.Name, len(frame), etherLen, syscall.EINVAL)
	}
	if !d.Up {
		return nil, dropped("%s is down", d.Name)
	}
	if !d.Protect {
		d.stats.OutPktsUntagged++
		return append([]byte(nil), frame...), nil
	}
	if !d.operational {
		return nil, dropped("%s is not operational", d.Name)
	}
	return k.encrypt(d, frame)
}

// encrypt is macsec_encrypt.
func (k *Kernel) encrypt(d *device, frame []byte) ([]byte, error) {
	sa := d.tx[d.EncodingAN]
	if sa == nil || !sa.Active {
		d.operational = false
		return nil, dropped("%s has no active association %d", d.Name, d.EncodingAN)
	}
	pn := sa.NextPN
	d.advance(sa, 1) // tx_sa_update_pn comes before the look at pn
	if pn == 0 {
		return nil, dropped("%s has used up the packet numbers of association %d", d.Name, sa.AN)
	}
	out := d.tag(frame, pn)
	if len(out)+len(frame)-addrsLen+int(d.ICVLen)-etherLen > d.parent.mtu {
		d.stats.OutPktsTooLong++
		return nil, dropped("frame of %d octets with MACsec exceeds the MTU %d below %s", len(frame), d.parent.mtu, d.Name)
	}
	k.spend(d, sa, pn, 1)
	iv := sa.iv(d.CipherSuite, d.SCI, pn)
	data := frame[addrsLen:]
	if d.Encrypt {
		d.txStats.OutPktsEncrypted++
		d.txStats.OutOctetsEncrypted += uint64(len(data))
		sa.Stats.OutPktsEncrypted++
		return append(out, sa.cipher.seal(nil, iv, data, out)...), nil
	}
	d.txStats.OutPktsProtected++
	d.txStats.OutOctetsProtected += uint64(len(data))
	sa.Stats.OutPktsProtected++
	out = append(out, data...)
	return sa.cipher.seal(out, iv, nil, out), nil
}

// advance is tx_sa_update_pn: when the numbers are used up the association stops.
func (d *device) advance(sa *association, n uint64) {
	sa.NextPN += n
	if !d.CipherSuite.XPN() {
		sa.NextPN &= math.MaxUint32
	}
	if sa.NextPN == 0 {
		sa.Active = false
		if d.Protect {
			d.operational = false
		}
	}
}

// tag is macsec_fill_sectag: the addresses and the SecTAG.
func (d *device) tag(frame []byte, pn uint64) []byte {
	// macsec_send_sci: several peers need it even if not configured.
	active := 0
	for _, c := range d.rx {
		if c.active {
			active++
		}
	}
	sci := d.IncludeSCI || active > 1 && !d.EndStation && !d.SCB
	out := make([]byte, addrsLen, len(frame)+tagLen(true)+16)
	copy(out, frame)
	tci := byte(d.EncodingAN)
	switch {
	case sci:
		tci |= tciSC
	case d.EndStation:
		tci |= tciES
	}
	if !sci && d.SCB {
		tci |= tciSCB
	}
	switch {
	case d.Encrypt:
		tci |= tciE | tciC
	case d.ICVLen != macsec.DefaultICVLen:
		tci |= tciC
	}
	short := byte(0)
	if n := len(frame) - addrsLen; n < minLong {
		short = byte(n)
	}
	out = append(out, EtherType>>8, EtherType&0xff, tci, short)
	out = binary.BigEndian.AppendUint32(out, uint32(pn))
	if sci {
		out = append(out, d.SCI[:]...)
	}
	return out
}

// MoveTx makes a transmit association send n frames without their content: the
// packet number moves and the counters count.
func (k *Kernel) MoveTx(index int, an macsec.AN, n uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[index]
	if d == nil || an >= macsec.NumAN || d.tx[an] == nil {
		return fmt.Errorf("move association %d on ifindex %d: %w", an, index, syscall.ENODEV)
	}
	sa := d.tx[an]
	if n == 0 {
		return nil
	}
	limit := uint64(math.MaxUint32)
	if d.CipherSuite.XPN() {
		limit = math.MaxUint64
	}
	if sa.NextPN == 0 || n-1 > limit-sa.NextPN {
		return fmt.Errorf("move association %d on %s by %d from %d: beyond the last packet number: %w", an, d.Name, n, sa.NextPN, syscall.ERANGE)
	}
	k.spend(d, sa, sa.NextPN, n)
	d.advance(sa, n)
	if d.Encrypt {
		sa.Stats.OutPktsEncrypted += uint32(n)
		d.txStats.OutPktsEncrypted += n
	} else {
		sa.Stats.OutPktsProtected += uint32(n)
		d.txStats.OutPktsProtected += n
	}
	return nil
}
