package bundle

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/signed"
)

const (
	innerMagic = "lever bundle v1\n"
	keyOctets  = 32
)

// inner is what a bundle seals. Its text is, line by line,
//
//	lever bundle v1
//	{"node":…,"epoch":…,"sequence":…}
//	<64 hexadecimal digits> {"link":…,"nodes":[…],"generation":…}
//
// with one such line a key, in the order of links and generations. The digits come
// first, where they are found without looking at them, and JSON never sees them:
// it would make copies that nobody can erase.
type inner struct {
	innerHead
	entries []entry
}

// innerHead repeats what the signed header says: age does not bind its ciphertext
// to anything.
type innerHead struct {
	Node     string `json:"node"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
}

// entry is one key.
type entry struct {
	entryHead
	key secret.Key
}

type entryHead struct {
	Link       string   `json:"link"`
	Nodes      []string `json:"nodes"`
	Generation uint32   `json:"generation"`
}

func (e entryHead) compare(o entryHead) int {
	return cmp.Or(strings.Compare(e.Link, o.Link), cmp.Compare(e.Generation, o.Generation))
}

// erase overwrites all keys.
func (in *inner) erase() {
	for _, e := range in.entries {
		e.key.Erase()
	}
}

// encode is the text; the caller erases it.
func (in *inner) encode() ([]byte, error) {
	head, err := signed.Marshal(in.innerHead)
	if err != nil {
		return nil, err
	}
	lines := make([][]byte, len(in.entries))
	size := len(innerMagic) + len(head) + 1
	for i, e := range in.entries {
		if lines[i], err = signed.Marshal(e.entryHead); err != nil {
			return nil, err
		}
		size += 2*keyOctets + 1 + len(lines[i]) + 1
	}
	// One allocation of the full size: append must not leave a copy behind.
	text := append(make([]byte, 0, size), innerMagic...)
	text = append(append(text, head...), '\n')
	for i, e := range in.entries {
		if e.key.Len() != keyOctets {
			clear(text)
			return nil, fmt.Errorf("the key of link %q is %d octets", e.Link, e.key.Len())
		}
		text = hex.AppendEncode(text, e.key.Bytes())
		text = append(append(append(text, ' '), lines[i]...), '\n')
	}
	return text, nil
}

// decodeInner reads what encode writes, and nothing else. Its errors quote nothing.
func decodeInner(text []byte) (in *inner, err error) {
	in = &inner{}
	defer func() {
		if err != nil {
			in.erase()
			in = nil
		}
	}()
	rest, ok := bytes.CutPrefix(text, []byte(innerMagic))
	if !ok {
		return in, errors.New("what is sealed in it does not begin as it must")
	}
	head, rest, ok := bytes.Cut(rest, []byte("\n"))
	if !ok || signed.Unmarshal(head, &in.innerHead) != nil {
		return in, errors.New("what is sealed in it has no head")
	}
	for n := 1; len(rest) > 0; n++ {
		bad := func(what string) error { return fmt.Errorf("line %d of what is sealed in it %s", n+2, what) }
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok || len(line) <= 2*keyOctets || line[2*keyOctets] != ' ' {
			return in, bad("is not a key and what it is for")
		}
		var e entry
		if signed.Unmarshal(line[2*keyOctets+1:], &e.entryHead) != nil {
			return in, bad("does not say what its key is for")
		}
		if err := e.check(in); err != nil {
			return in, bad(err.Error())
		}
		key := make([]byte, keyOctets)
		if !unhex(key, line[:2*keyOctets]) {
			clear(key)
			return in, bad("has something else than lower-case hexadecimal digits for a key")
		}
		e.key = secret.New(key)
		in.entries = append(in.entries, e)
		rest = after
	}
	return in, nil
}

func (e entryHead) check(in *inner) error {
	switch {
	case keys.ValidLink(e.Link) != nil:
		return errors.New("names no link")
	case len(e.Nodes) < 2 || !slices.IsSorted(e.Nodes) || len(slices.Compact(slices.Clone(e.Nodes))) != len(e.Nodes):
		return errors.New("does not name two nodes or more, in order")
	case e.Generation >= maxGenerations:
		return errors.New("has a generation beyond all reason")
	case len(in.entries) > 0 && in.entries[len(in.entries)-1].compare(e) >= 0:
		return errors.New("is not in order")
	}
	return nil
}

// unhex works digit by digit: encoding/hex would quote an offending one.
func unhex(out, digits []byte) bool {
	for i, c := range digits {
		var v byte
		switch {
		case c >= '0' && c <= '9':
			v = c - '0'
		case c >= 'a' && c <= 'f':
			v = c - 'a' + 10
		default:
			return false
		}
		out[i/2] |= v << (4 * (1 - i%2))
	}
	return true
}

// of are the entries of a link, oldest generation first.
func (in *inner) of(link string) []entry {
	from, _ := slices.BinarySearchFunc(in.entries, entryHead{Link: link}, func(e entry, h entryHead) int { return e.compare(h) })
	to := from
	for to < len(in.entries) && in.entries[to].Link == link {
		to++
	}
	return in.entries[from:to]
}
