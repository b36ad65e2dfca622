// Package sim simulates a segment whose members run Lever's MKA: real Ports, a
// driver that does for each what internal/agent does, and a MACsec kernel in
// memory that really seals and opens frames. Time is virtual and all chance comes
// from a seed, so that an hour takes a fraction of a second and every run can be
// had again.
//
// [Sim] and [Member] are the harness, for tests and scenario scripts: what must hold
// at all times is checked in it (see check.go). [Hour] is a run in which everything
// that can go wrong does, and [Seeds] runs many of them.
//
// What belongs here: faults, and what must hold in spite of them. What does not: the
// protocol (mka), the medium (internal/simlink), the kernel (macsec/macsectest), and
// expectations of a single scenario, which are its test's.
package sim
