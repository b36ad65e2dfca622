package macsectest

import (
	"encoding/binary"
	"fmt"
	"math"
	"syscall"

	"github.com/lever-link/lever/macsec"
)

// Receive lets a frame arrive at the parent of a device and returns what the
// device delivers: an Ethernet frame without MACsec. ErrDropped if it delivers
// nothing. Other devices on the parent count what they see of it.
func (k *Kernel) Receive(index int, frame []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[index]
	if d == nil {
		return nil, fmt.Errorf("receive on ifindex %d: %w", index, syscall.ENODEV)
	}
	if len(frame) < etherLen {
		return nil, dropped("frame of %d octets is not Ethernet", len(frame))
	}
	var to *device
	var data []byte
	var err error
	if binary.BigEndian.Uint16(frame[addrsLen:]) == EtherType {
		to, data, err = d.parent.tagged(d, frame)
	} else {
		to, data, err = d.parent.untagged(d, frame)
	}
	switch {
	case err != nil:
		return nil, err
	case to != d:
		return nil, dropped("the frame is for %s", to.Name)
	case !d.Up:
		return nil, dropped("%s is down", d.Name)
	}
	return data, nil
}

// untagged is handle_not_macsec.
func (p *iface) untagged(want *device, frame []byte) (*device, []byte, error) {
	for _, d := range p.devices {
		if d.Validate == macsec.Strict {
			d.stats.InPktsNoTag++
		} else {
			d.stats.InPktsUntagged++
		}
	}
	if want.Validate == macsec.Strict {
		return nil, nil, dropped("%s validates strictly and the frame has no SecTAG", want.Name)
	}
	return want, append([]byte(nil), frame...), nil
}

// secured is a frame taken apart.
type secured struct {
	frame []byte
	tci   byte
	short int
	pn    uint32
	sci   macsec.SCI
	head  int // octets up to the secured data
}

// tagged is macsec_handle_frame.
func (p *iface) tagged(want *device, frame []byte) (*device, []byte, error) {
	f := secured{frame: frame}
	if len(frame) < etherLen+6 {
		return nil, nil, dropped("the SecTAG is cut off")
	}
	f.tci, f.short = frame[etherLen], int(frame[etherLen+1])
	f.pn = binary.BigEndian.Uint32(frame[etherLen+2:])
	if f.tci&(tciC|tciE) == tciE {
		return nil, nil, dropped("E without C is reserved")
	}
	hasSCI := f.tci&tciSC != 0
	f.head = addrsLen + tagLen(hasSCI)
	if len(frame) < f.head {
		return nil, nil, dropped("the SecTAG is cut off")
	}
	switch {
	case hasSCI:
		copy(f.sci[:], frame[f.head-8:])
	case f.tci&tciES == 0 && len(p.devices) == 1:
		// macsec_active_sci: the only peer it can be.
		if d := p.devices[0]; len(d.rx) == 1 && d.rx[0].active {
			f.sci = d.rx[0].sci
		} else {
			return nil, nil, dropped("no SCI, and not exactly one active receive channel")
		}
	default:
		f.sci = macsec.NewSCI(frame[6:12], 1)
	}
	for _, d := range p.devices {
		if c := d.channel(f.sci); c != nil {
			data, err := d.receive(c, f)
			return d, data, err
		}
	}
	return p.unknown(want, f)
}

// unknown is the end of macsec_handle_frame for an SCI that nobody has.
func (p *iface) unknown(want *device, f secured) (*device, []byte, error) {
	var data []byte
	for _, d := range p.devices {
		if f.tci&tciC != 0 || d.Validate == macsec.Strict {
			d.stats.InPktsNoSCI++
			continue
		}
		d.stats.InPktsUnknownSCI++
		if d == want && len(f.frame)-f.head >= macsec.DefaultICVLen {
			data = f.plain(f.frame[f.head : len(f.frame)-macsec.DefaultICVLen])
		}
	}
	if data == nil {
		return nil, nil, dropped("no receive channel has SCI %s", f.sci)
	}
	return want, data, nil
}

// plain puts the addresses in front of user data.
func (f secured) plain(data []byte) []byte {
	return append(append(make([]byte, 0, addrsLen+len(data)), f.frame[:addrsLen]...), data...)
}

// valid is macsec_validate_skb (802.1AE 9.12).
func (f secured) valid(d *device) bool {
	n := len(f.frame) - f.head - int(d.ICVLen)
	switch {
	case f.tci&tciVersion != 0,
		f.tci&(tciES|tciSCB) != 0 && f.tci&tciSC != 0,
		f.short&0xc0 != 0,
		f.pn == 0 && !d.CipherSuite.XPN():
		return false
	case f.short != 0:
		return n == f.short
	}
	return n >= minLong
}

func (d *device) receive(c *channel, f secured) ([]byte, error) {
	if !f.valid(d) {
		d.stats.InPktsBadTag++
		return nil, dropped("the SecTAG is not valid")
	}
	strict := f.tci&tciC != 0 || d.Validate == macsec.Strict
	end := len(f.frame) - int(d.ICVLen)
	sa := c.sa[f.tci&anMask]
	// The channel's own switch is not looked at, the association's is.
	if sa == nil || !sa.Active {
		if strict {
			c.stats.InPktsNotUsingSA++
			return nil, dropped("association %d of SCI %s is not in use", f.tci&anMask, c.sci)
		}
		c.stats.InPktsUnusedSA++
		return f.plain(f.frame[f.head:end]), nil
	}
	lowest, late := d.replayed(sa, f.pn)
	if d.ReplayProtect && late {
		c.stats.InPktsLate++
		return nil, dropped("packet number %d is below %d", f.pn, lowest)
	}
	data, ok := f.frame[f.head:end], false
	if f.tci&tciC != 0 || d.Validate != macsec.Disabled {
		data, ok = d.decrypt(sa, f)
	}
	d.countOctets(c, f, end-f.head)
	switch {
	case ok:
		if f.pn < lowest {
			c.stats.InPktsDelayed++
		} else {
			c.stats.InPktsOK++
			sa.Stats.InPktsOK++
		}
		d.expect(sa, f.pn)
	case strict:
		c.stats.InPktsNotValid++
		sa.Stats.InPktsNotValid++
		return nil, dropped("the ICV is wrong")
	case d.Validate == macsec.Check:
		c.stats.InPktsInvalid++
		sa.Stats.InPktsInvalid++
	case f.pn < lowest:
		c.stats.InPktsDelayed++
	default:
		c.stats.InPktsUnchecked++
	}
	return f.plain(data), nil
}

func (d *device) countOctets(c *channel, f secured, n int) {
	switch {
	case d.Validate == macsec.Disabled:
	case f.tci&tciE != 0:
		c.stats.InOctetsDecrypted += uint64(n)
	default:
		c.stats.InOctetsValidated += uint64(n)
	}
}

// replayed is the lowest acceptable packet number, in its low 32 bits, and
// whether pn is below it. In XPN only numbers in the same half of the 32 bits
// compare.
func (d *device) replayed(sa *association, pn uint32) (lowest uint32, late bool) {
	next := uint32(sa.NextPN)
	if next >= d.window {
		lowest = next - d.window
	}
	return lowest, pn < lowest && (!d.CipherSuite.XPN() || sameHalf(next, pn))
}

func sameHalf(a, b uint32) bool { return a>>31 == b>>31 }

func (d *device) decrypt(sa *association, f secured) ([]byte, bool) {
	pn := uint64(f.pn)
	if d.CipherSuite.XPN() {
		// Recover the upper half from the next one expected.
		pn |= sa.NextPN &^ math.MaxUint32
		if next := uint32(sa.NextPN); f.pn < next && !sameHalf(f.pn, next) {
			pn += 1 << 32
		}
	}
	iv := sa.iv(d.CipherSuite, f.sci, pn)
	if f.tci&tciE != 0 {
		return sa.cipher.open(iv, f.frame[f.head:], f.frame[:f.head])
	}
	end := len(f.frame) - int(d.ICVLen)
	_, ok := sa.cipher.open(iv, f.frame[end:], f.frame[:end])
	return f.frame[f.head:end], ok
}

// expect moves the next packet number past a valid one (macsec_post_decrypt).
func (d *device) expect(sa *association, pn uint32) {
	upper, next := sa.NextPN&^math.MaxUint32, uint32(sa.NextPN)
	switch {
	case pn+1 > next:
		sa.NextPN = upper | uint64(pn+1)
	case d.CipherSuite.XPN() && (pn+1 == 0 || !sameHalf(pn, next)):
		sa.NextPN = upper + 1<<32 | uint64(pn+1)
	}
}

// MoveRx makes a receive association accept n frames without their content.
func (k *Kernel) MoveRx(index int, sci macsec.SCI, an macsec.AN, n uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, c, err := k.find(index, sci)
	if err != nil || an >= macsec.NumAN || c.sa[an] == nil {
		return fmt.Errorf("move association %d of SCI %s on ifindex %d: %w", an, sci, index, syscall.ENODEV)
	}
	c.sa[an].NextPN += n
	c.sa[an].Stats.InPktsOK += uint32(n)
	c.stats.InPktsOK += n
	return nil
}
