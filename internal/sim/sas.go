package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// SAs are what a member's device has, as far as its operations tell. It is a copy
// for those who look often; audit compares it with the kernel.
type SAs struct {
	Transmit   [4]mka.KI // by AN; zero: none
	Active     [4]bool
	EncodingAN mka.AN
	channels   []channel // in the order of their making
}

type channel struct {
	sci mka.SCI
	sas [4]mka.KI
}

// Encoding is the SAK that protects what the device sends.
func (a *SAs) Encoding() (mka.KI, bool) {
	ki := a.Transmit[a.EncodingAN]
	return ki, a.Active[a.EncodingAN] && ki != mka.KI{}
}

// Receive is the SAK of a receive SA, zero if there is none.
func (a *SAs) Receive(sci mka.SCI, an mka.AN) mka.KI {
	if c := a.channel(sci); c != nil {
		return c.sas[an]
	}
	return mka.KI{}
}

// TransmitSAs counts the transmit SAs, ReceiveSCs the receive SCs, and ReceiveSAs
// the receive SAs of all of them.
func (a *SAs) TransmitSAs() int { return count(&a.Transmit) }

// ReceiveSCs counts the receive SCs.
func (a *SAs) ReceiveSCs() int { return len(a.channels) }

// ReceiveSAs counts the receive SAs of one SC.
func (a *SAs) ReceiveSAs(sci mka.SCI) int {
	if c := a.channel(sci); c != nil {
		return count(&c.sas)
	}
	return 0
}

func count(kis *[4]mka.KI) int {
	n := 0
	for _, ki := range kis {
		if ki != (mka.KI{}) {
			n++
		}
	}
	return n
}

// KIs yields every SAK that an SA is there of, repeatedly.
func (a *SAs) KIs(yield func(mka.KI) bool) {
	for _, ki := range a.Transmit {
		if ki != (mka.KI{}) && !yield(ki) {
			return
		}
	}
	for i := range a.channels {
		for _, ki := range a.channels[i].sas {
			if ki != (mka.KI{}) && !yield(ki) {
				return
			}
		}
	}
}

func (a *SAs) channel(sci mka.SCI) *channel {
	for i := range a.channels {
		if a.channels[i].sci == sci {
			return &a.channels[i]
		}
	}
	return nil
}

// apply does to the copy what a successful operation did to the device.
func (a *SAs) apply(op mka.Op) {
	switch op.Kind {
	case mka.OpAddReceiveSC:
		if a.channel(op.SCI) == nil {
			a.channels = append(a.channels, channel{sci: op.SCI})
		}
	case mka.OpDeleteReceiveSC:
		a.channels = slices.DeleteFunc(a.channels, func(c channel) bool { return c.sci == op.SCI })
	case mka.OpAddReceiveSA:
		if a.channel(op.SCI) == nil { // secy makes one that is missing
			a.channels = append(a.channels, channel{sci: op.SCI})
		}
		a.channel(op.SCI).sas[op.AN] = op.KI
	case mka.OpDeleteReceiveSA:
		if c := a.channel(op.SCI); c != nil {
			c.sas[op.AN] = mka.KI{}
		}
	case mka.OpAddTransmitSA:
		a.Transmit[op.AN] = op.KI
	case mka.OpEnableTransmitSA:
		a.Active[op.AN], a.EncodingAN = true, op.AN
	case mka.OpDeleteTransmitSA:
		a.Transmit[op.AN], a.Active[op.AN] = mka.KI{}, false
	default: // the others change no SA's being there
	}
}

// sweep forgets the receive SCs without SAs, as secy.SecY.Sweep does.
func (a *SAs) sweep() {
	a.channels = slices.DeleteFunc(a.channels, func(c channel) bool { return c.sas == [4]mka.KI{} })
}

// differs compares the copy with what the kernel says.
func (a *SAs) differs(y *macsec.SecY) error {
	have := SAs{EncodingAN: mka.AN(y.EncodingAN)}
	for _, sa := range y.TxSC.SAs {
		have.Transmit[sa.AN], have.Active[sa.AN] = mka.KIFromBytes(sa.KeyID), sa.Active
	}
	for _, sc := range y.RxSCs {
		c := channel{sci: mka.SCI(sc.SCI)}
		for _, sa := range sc.SAs {
			if sa.Active {
				c.sas[sa.AN] = mka.KIFromBytes(sa.KeyID)
			}
		}
		have.channels = append(have.channels, c)
	}
	same := have.Transmit == a.Transmit && have.Active == a.Active && have.EncodingAN == a.EncodingAN && len(have.channels) == len(a.channels)
	for _, c := range have.channels {
		o := a.channel(c.sci)
		same = same && o != nil && o.sas == c.sas
	}
	if !same {
		return fmt.Errorf("the kernel has %v, and by its operations it should be %v", &have, a)
	}
	return nil
}

// String is everything in one line.
func (a *SAs) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "encodes with AN %d, transmit SAs", a.EncodingAN)
	list := func(kis *[4]mka.KI) {
		for an, ki := range kis {
			if ki != (mka.KI{}) {
				fmt.Fprintf(&b, " %d:%s", an, short(ki))
			}
		}
	}
	list(&a.Transmit)
	for i := range a.channels {
		fmt.Fprintf(&b, ", from %s", a.channels[i].sci)
		list(&a.channels[i].sas)
	}
	return b.String()
}

// short is a KI that people can compare.
func short(ki mka.KI) string { return fmt.Sprintf("%x/%d", ki.MI[:3], ki.KN) }
