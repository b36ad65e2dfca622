// Package secrettest looks for keys in the memory of processes: in that of
// another, as whoever has got hold of a machine would do, and in its own, to test
// that what should erase a key does.
//
// What belongs here: in which forms a key may lie in memory, and where to look.
// What does not: which keys there are and when they must be gone, which is for
// the tests to say.
package secrettest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/lever-link/lever/internal/secret"
)

// piece is how many octets of a key have to lie together to be recognised: no
// more than any code moves at once, and too many to be there by chance.
const piece = 8

// mask keeps what is searched for from being found in the search itself.
const mask = 0x9d3f5ac7e1b86204

// A Search looks for many keys at once. The zero Search looks for nothing.
type Search struct {
	first [1 << 16]bool // what two octets, masked, a form begins with
	by    map[uint64][]form
}

// form is one way in which a piece of a key may lie in memory.
type form struct {
	name, in string
	rest     []byte // masked, after the first piece
}

// Add looks for key by the name given, in each form in which code may leave it:
// as octets, as an expanded AES key begins and the inverse one ends with the key
// itself; as the digits of a file; and as the words that a hash function loads,
// whatever position it had in the message. The caller keeps key.
func (s *Search) Add(name string, key []byte) { s.add(name, key, 0) }

// AddPadded looks for key as HMAC keeps it, combined with one of its pads (RFC
// 2104).
func (s *Search) AddPadded(name string, key []byte) {
	s.add(name, key, 0x36)
	s.add(name, key, 0x5c)
}

// AddOctets looks for something as it is, 8 octets or more: for a control, which
// must be found.
func (s *Search) AddOctets(name string, octets []byte) {
	s.put(name, "octets", slices.Clone(octets))
}

func (s *Search) add(name string, key []byte, pad byte) {
	secret.Do(func() { // the test that asks may search its own memory
		for at := 0; at+piece <= len(key); at++ {
			octets := slices.Clone(key[at : at+piece])
			for i := range octets {
				octets[i] ^= pad
			}
			words, halves := slices.Clone(octets), slices.Clone(octets)
			slices.Reverse(words)
			slices.Reverse(halves[:4])
			slices.Reverse(halves[4:])
			s.put(name, "64-bit words", words)
			s.put(name, "32-bit words", halves)
			if at%piece == 0 {
				digits := make([]byte, 2*piece)
				hex.Encode(digits, octets)
				s.put(name, "digits", slices.Clone(digits))
				for i, d := range digits {
					if d >= 'a' {
						digits[i] = d - 'a' + 'A'
					}
				}
				s.put(name, "digits", digits)
				s.put(name, "octets", octets)
			} else {
				clear(octets)
			}
		}
	})
}

// put takes octets over, and masks them.
func (s *Search) put(name, in string, octets []byte) {
	if s.by == nil {
		s.by = map[uint64][]form{}
	}
	for i := range octets {
		octets[i] ^= byte(uint64(mask) >> (i % piece * 8))
	}
	k := binary.LittleEndian.Uint64(octets)
	s.first[uint16(k)] = true
	s.by[k] = append(s.by[k], form{name, in, octets[piece:]})
}

// longest is the most octets of a form.
const longest = 4 * piece

// in looks at b for forms that begin in its first n octets.
func (s *Search) in(b []byte, n int, found func(form)) {
	for i := 0; i < n && i+piece <= len(b); i++ {
		if !s.first[binary.LittleEndian.Uint16(b[i:])^uint16(mask&0xffff)] {
			continue
		}
		for _, f := range s.by[binary.LittleEndian.Uint64(b[i:])^mask] {
			if f.follows(b[i+piece:]) {
				found(f)
			}
		}
	}
}

// follows says whether b begins with the rest of the form.
func (f *form) follows(b []byte) bool {
	if len(b) < len(f.rest) {
		return false
	}
	for i, x := range f.rest {
		if b[i] != x^byte(uint64(mask)>>(i%piece*8)) {
			return false
		}
	}
	return true
}

// An Image is what a Search has found in a process.
type Image struct {
	Octets  int // that were read
	Regions int
	found   map[string]map[string]int // name, form and place, how often
}

// Has says whether a key was found in any form.
func (i *Image) Has(name string) bool { return len(i.found[name]) > 0 }

// Pieces is how many pieces of a key were found, of 8 octets each.
func (i *Image) Pieces(name string) (n int) {
	for _, times := range i.found[name] {
		n += times
	}
	return n
}

// Where tells in which forms and where a key was found, in pieces of 8 octets.
func (i *Image) Where(name string) string {
	var places []string
	for place, n := range i.found[name] {
		places = append(places, fmt.Sprintf("%d pieces as %s", n, place))
	}
	slices.Sort(places)
	if places == nil {
		return "nowhere"
	}
	return strings.Join(places, ", ")
}
