// Package mka is the MACsec Key Agreement protocol of IEEE 802.1X-2020 as a
// pure library: octets, keys and states in, octets, operations and events out.
//
// What belongs here: the codec of MKPDUs (one file a parameter set), the key
// hierarchy under a CAK (KEK, ICK, SAK, the XPN salt and SSCI), and the state
// machine that a Port runs with its participants.
//
// What does not: anything that touches the world. The package imports nothing
// that does I/O, reads no clock and draws no random numbers; time and
// randomness are inputs, so that the same state and the same input give the
// same output. Frames are sent and received by internal/pae, Secure
// Associations are installed by package macsec, CAKs come from internal/keys.
//
// # Receiving
//
// A frame is read in three steps, because most of it must not be looked at
// before its ICV holds: [Open] checks what can be checked without a key and
// finds the CKN, [Envelope.Verify] authenticates the frame with the ICK that
// belongs to that CKN, and [MKPDU.Decode] reads the parameter sets. Slices in
// the results alias the frame; copy what must outlive it. None of the three
// allocates for a frame of a live peer when the MKPDU is reused.
//
// # Sending
//
// [MKPDU.Append] writes a whole Ethernet frame with its ICV.
package mka
