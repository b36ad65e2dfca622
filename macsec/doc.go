// Package macsec controls Linux kernel MACsec (IEEE 802.1AE) over netlink.
//
// What belongs here: MACsec devices (rtnetlink links of kind "macsec"), their
// secure channels and associations (generic netlink family "macsec"), the
// statistics of both, and the types that name them. What does not: key
// agreement, keys' origin, traffic filters, and anything that decides when to
// rekey. The package holds no policy except two rules that protect the cipher:
// Closed returns a configuration that never sends in clear, and no transmit
// packet number is ever lowered.
//
// Client talks to the kernel; package macsectest has an in-memory kernel behind
// the same interface, Kernel, that a shared conformance test holds to the real
// one.
//
// A device made from Closed drops everything until its first secure association
// is active. Bringing up a channel to a peer is, in order:
//
//	dev, err := k.CreateDevice(parent, "eth4-sec", macsec.Closed(sci, macsec.GCMAESXPN256))
//	err = k.AddRxSC(dev.Index, peer, true)
//	err = k.AddRxSA(dev.Index, peer, macsec.SA{AN: 0, Active: true, NextPN: 1, ...})
//	err = k.AddTxSA(dev.Index, macsec.SA{AN: 0, Active: true, NextPN: 1, ...})
//	up := true
//	err = k.UpdateDevice(dev.Index, macsec.DeviceUpdate{Up: &up})
//
// Changing what the kernel does not allow to change (a key, its identifier, SSCI
// or salt) is deleting the association and adding it again; an active one has to
// be deactivated before it can be deleted.
package macsec
