//go:build kernel

package main

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/secret/secrettest"
	"github.com/lever-link/lever/mka"
)

// Forward secrecy: whoever gets hold of a router gets no key of the past. Links
// change their epochs and SAKs, and then all memory of both agents is searched,
// as root, for every key that has been retired, in each form that it may have
// had on its way: material, CAK, KEK, ICK and SAK. That includes the SAK in use,
// which the kernel alone has, and what lies between material and CAK.
func TestRetiredKeysLeaveMemory(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	var wire bytes.Buffer
	s.capture(&wire)
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	const last = 4
	for epoch := 1; ; epoch++ {
		s.onEpoch(fmt.Sprintf("%d.0", epoch))
		for i := range s.routers { // at the key server and at the other
			s.lever(i, "rekey", theLink)
			key = s.securedAnew(key)
		}
		if epoch == last {
			break
		}
		if epoch == 2 { // an epoch that nobody delivers any more
			for i := range s.routers {
				for _, c := range []string{"a", "b"} {
					s.must(os.Remove(s.keyPath(i, c, 1)))
				}
			}
		}
		s.deliver(epoch+1, "ab")
		key = s.securedAnew(key)
	}
	s.settled()
	s.must(s.wire.Stop())
	s.capture(nil)

	var search secrettest.Search
	var retired, current []string
	caks := map[mka.CKN][]byte{}
	for epoch := uint64(1); epoch <= last; epoch++ {
		names := &retired
		if epoch == last {
			names = &current
		}
		add := func(what string, octets []byte) {
			name := fmt.Sprintf("%s of epoch %d", what, epoch)
			search.Add(name, octets)
			*names = append(*names, name)
		}
		a, b := s.secrets[2*(epoch-1)], s.secrets[2*(epoch-1)+1]
		cak, err := s.cakOf(epoch, a, b)
		s.must(err)
		caks[mka.CKN(s.ckn(epoch))] = cak
		add("material of channel a", a)
		add("material of channel b", b)
		add("CAK", cak)
		for what, derive := range map[string]func(mka.Key, mka.CKN) (mka.Key, error){"KEK": mka.DeriveKEK, "ICK": mka.DeriveICK} {
			k, err := derive(secret.Clone(cak), mka.CKN(s.ckn(epoch)))
			s.must(err)
			add(what, k.Bytes())
		}
		// Never needed again, not even in the epoch in use.
		prk := fmt.Sprintf("PRK of epoch %d", epoch)
		search.Add(prk, extract(t, a, b))
		search.AddPadded(prk, extract(t, a, b))
		retired = append(retired, prk)
	}
	saks := distributed(t, wire.Bytes(), caks)
	if len(saks) < 3*last-1 {
		t.Fatalf("%d SAKs are in the capture, want %d at least", len(saks), 3*last-1)
	}
	for ki, sak := range saks {
		name := fmt.Sprintf("SAK %s", ki)
		search.Add(name, sak.Bytes())
		retired = append(retired, name)
	}
	// What is there must be found: a public name, and the CAK in use.
	search.AddOctets("CKN in use", s.ckn(last))
	controls := []string{"CKN in use", fmt.Sprintf("CAK of epoch %d", last)}

	for _, r := range s.routers {
		pid, err := r.PID()
		s.must(err)
		image, err := search.Process(pid)
		s.must(err)
		t.Logf("%s: %d octets in %d regions searched for %d retired keys", r.Name, image.Octets, image.Regions, len(retired))
		for _, name := range controls {
			if !image.Has(name) {
				t.Errorf("%s: %s is not found: the search would not find another key either", r.Name, name)
			}
		}
		for _, name := range current {
			t.Logf("%s, in use: %s, %s", r.Name, name, image.Where(name))
		}
		for _, name := range retired {
			if image.Has(name) {
				t.Errorf("%s still has the %s: %s", r.Name, name, image.Where(name))
			}
		}
	}
}

// settled waits until no kernel has more than the SAs of one SAK.
func (s *site) settled() {
	s.Helper()
	s.must(lab.AwaitAlive(s.ctx(), s.routers, patience, "the old SAs to be retired", func() (bool, string) {
		for _, r := range s.routers {
			v, err := r.SecY(theDevice)
			if err != nil {
				return false, err.Error()
			}
			if n := len(v.TxSC.SAs); n != 1 {
				return false, fmt.Sprintf("%s has %d transmit SAs", r.Name, n)
			}
		}
		return true, ""
	}))
}

// extract is the first half of the derivation, to the octet: see
// internal/keys/testdata/combine.json.
func extract(t *testing.T, a, b []byte) []byte {
	t.Helper()
	var ikm []byte
	for _, part := range [][]byte{[]byte("a"), a, []byte("b"), b} {
		ikm = binary.BigEndian.AppendUint16(ikm, uint16(len(part)))
		ikm = append(ikm, part...)
	}
	salt := sha512.Sum384([]byte("lever-combine/1 extract"))
	prk, err := hkdf.Extract(sha512.New384, ikm, salt[:])
	if err != nil {
		t.Fatal(err)
	}
	return prk
}

// distributed are the SAKs in a capture whose MKPDUs are all under these CAKs.
func distributed(t *testing.T, pcap []byte, caks map[mka.CKN][]byte) map[mka.KI]mka.Key {
	t.Helper()
	const fileHeader, recordHeader = 24, 16
	saks := map[mka.KI]mka.Key{}
	for pcap = pcap[fileHeader:]; len(pcap) >= recordHeader; {
		n := int(binary.LittleEndian.Uint32(pcap[8:]))
		frame := pcap[recordHeader : recordHeader+n]
		pcap = pcap[recordHeader+n:]
		env, err := mka.Open(frame, mka.OpenParams{})
		if err != nil {
			continue // MACsec
		}
		ckn := mka.CKN(env.CKN)
		cak := secret.Clone(caks[ckn])
		icv, err := mka.DeriveICK(cak, ckn)
		if err != nil {
			t.Fatalf("an MKPDU under CKN %s, which is none of the link's: %v", ckn, err)
		}
		ick, err := mka.NewICK(icv)
		if err != nil {
			t.Fatal(err)
		}
		var m mka.MKPDU
		if !env.Verify(ick) {
			t.Fatalf("an MKPDU under CKN %s that another CAK signed", ckn)
		}
		if err := m.Decode(&env); err != nil {
			t.Fatal(err)
		}
		d := &m.DistributedSAK
		if !d.Present {
			continue
		}
		kek, err := mka.DeriveKEK(cak, ckn)
		if err != nil {
			t.Fatal(err)
		}
		if saks[mka.KI{MI: m.Basic.MI, KN: d.KN}], err = mka.UnwrapSAK(kek, d.Wrapped); err != nil {
			t.Fatal(err)
		}
	}
	return saks
}
