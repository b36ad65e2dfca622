// Package keys turns pre-key material from two distribution channels into the
// CAKs of a link, and keeps track of which of them may be used.
//
// Epochs and generations, the combine construction, the Ring of a link's CAKs,
// the persisted high-water mark, static PSKs for equipment that is not ours and
// the Channel interface belong here. How a channel moves material does not: each
// has a package below this one. What is done with a CAK is the business of mka.
//
// Promise 3 is kept here: a CAK is only ever computed from both channels'
// material, there is no way round Combine but the static PSK of an external
// link, and nothing in this package writes material anywhere.
package keys

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Epoch names one key of a link: a number that counts up from 1, and a
// generation that counts up from 0 each time that number is issued again with
// other material. The zero Epoch is no epoch.
type Epoch struct {
	Number     uint64
	Generation uint32
}

// Start is when the epoch may come into use, if it was issued on a schedule: then
// its number is that time in minutes since 1970. So the issuers of both channels
// arrive at the same numbers without knowing each other, and numbers grow whatever
// becomes of the epochs' length. Numbers that were counted from 1 began long ago.
func (e Epoch) Start() time.Time {
	if e.Number > maxScheduled {
		return time.Unix(maxScheduled*60, 0)
	}
	return time.Unix(int64(e.Number)*60, 0)
}

// firstScheduled is the least number that is taken for a time: it would be in 1989.
// What is counted from 1 does not come so far, and has begun whatever the clock says.
const firstScheduled = 10_000_000

// started says whether the epoch has begun at a time.
func (e Epoch) started(at time.Time) bool {
	return e.Number < firstScheduled || !at.Before(e.Start())
}

// maxScheduled keeps the start of any epoch within what time.Time can say in JSON.
const maxScheduled = 1 << 40

// ScheduledEpoch is the epoch that is current at a time, with epochs of the given
// length, which is whole minutes.
func ScheduledEpoch(at time.Time, length time.Duration) Epoch {
	minutes := max(int64(length/time.Minute), 1)
	return Epoch{Number: uint64(max(at.Unix(), 60) / 60 / minutes * minutes)}
}

// IsZero reports whether e is no epoch.
func (e Epoch) IsZero() bool { return e == Epoch{} }

// Compare orders by number, then by generation; the zero Epoch is before all.
func (e Epoch) Compare(o Epoch) int {
	return cmp.Or(cmp.Compare(e.Number, o.Number), cmp.Compare(e.Generation, o.Generation))
}

// Less reports whether e is older than o.
func (e Epoch) Less(o Epoch) bool { return e.Compare(o) < 0 }

// String is "<number>.<generation>", e.g. "42.0".
func (e Epoch) String() string {
	return strconv.FormatUint(e.Number, 10) + "." + strconv.FormatUint(uint64(e.Generation), 10)
}

// ParseEpoch reads what String writes, and nothing else: one epoch has one
// spelling, because the spelling is the key id that enters the derivation.
func ParseEpoch(s string) (Epoch, error) {
	fail := func(why string) (Epoch, error) {
		return Epoch{}, fmt.Errorf("epoch %q: %s; write it as NUMBER.GENERATION, for example 42.0", s, why)
	}
	number, generation, ok := strings.Cut(s, ".")
	if !ok {
		return fail("there is no dot in it")
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return fail("its number is not a decimal number below 2^64")
	}
	g, err := strconv.ParseUint(generation, 10, 32)
	if err != nil {
		return fail("its generation is not a decimal number below 2^32")
	}
	e := Epoch{n, uint32(g)}
	if e.Number == 0 {
		return fail("epochs count from 1")
	}
	if e.String() != s {
		return fail("it has leading zeros or signs")
	}
	return e, nil
}

// MarshalText implements encoding.TextMarshaler.
func (e Epoch) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; "0.0" reads as no epoch.
func (e *Epoch) UnmarshalText(text []byte) error {
	if string(text) == (Epoch{}).String() {
		*e = Epoch{}
		return nil
	}
	parsed, err := ParseEpoch(string(text))
	if err == nil {
		*e = parsed
	}
	return err
}
