package etcd

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// MaxValue is the most octets that a value may have.
const MaxValue = 1 << 10

// magic begins each value; another format is another number.
const magic = "lever-key/1"

// materialLen is the number of octets of material in a value.
const materialLen = 32

// Refusal is why a value is refused. It never quotes the value.
type Refusal struct {
	// Code is the fault that it is.
	Code health.Code
	// Detail is what was found.
	Detail string
	// otherNodes is a value that is in order, but was issued when the link had other
	// nodes than now.
	otherNodes bool
}

// Error implements error.
func (r *Refusal) Error() string { return "the value is refused: " + r.Detail }

func refuse(code health.Code, format string, args ...any) error {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// value is pre-key material with what it is bound to:
//
//	lever-key/1 <link> <n> <node>… <number>.<generation> <issued> <expires> <64 hex>\n
//
// Nodes are sorted, times are RFC 3339 in UTC with whole seconds, digits are lower
// case, and between two fields is one space: there is one spelling of each value.
type value struct {
	link            string
	nodes           []string
	epoch           keys.Epoch
	issued, expires time.Time
	key             secret.Key
}

// encode writes the text, which the caller erases.
func (v value) encode() ([]byte, error) {
	if v.key.Len() != materialLen {
		return nil, fmt.Errorf("writing the value of epoch %s of link %q: it has %d octets of material, not %d", v.epoch, v.link, v.key.Len(), materialLen)
	}
	// One allocation: append must not leave a copy behind.
	b := make([]byte, 0, 2*MaxValue)
	b = append(append(b, magic...), ' ')
	b = append(append(b, v.link...), ' ')
	b = append(strconv.AppendInt(b, int64(len(v.nodes)), 10), ' ')
	for _, n := range v.nodes {
		if len(b) > MaxValue {
			break // the next check says so
		}
		b = append(append(b, n...), ' ')
	}
	b = append(append(b, v.epoch.String()...), ' ')
	b = append(v.issued.UTC().AppendFormat(b, time.RFC3339), ' ')
	b = append(v.expires.UTC().AppendFormat(b, time.RFC3339), ' ')
	if size := len(b) + 2*materialLen + 1; size > MaxValue {
		return nil, fmt.Errorf("writing the value of epoch %s of link %q: the names of its %d nodes make it longer than %d octets; use shorter ones, or several links", v.epoch, v.link, len(v.nodes), MaxValue)
	}
	b = hex.AppendEncode(b, v.key.Bytes())
	return append(b, '\n'), nil
}

// decode reads what encode writes, and nothing else: what it returns encodes to the
// same octets.
func decode(text []byte) (value, error) {
	if len(text) > MaxValue {
		return value{}, refuse(health.EtcdValueOversized, "it has %d octets, and at most %d are allowed", len(text), MaxValue)
	}
	malformed := func(format string, args ...any) (value, error) {
		return value{}, refuse(health.EtcdValueMalformed, format, args...)
	}
	line, ok := bytes.CutSuffix(text, []byte("\n"))
	if !ok {
		return malformed("there is no newline at the end of its %d octets, so it may not be complete", len(text))
	}
	fields := bytes.Split(line, []byte(" "))
	if string(fields[0]) != magic {
		return malformed("it does not begin with %s", magic)
	}
	const fixed = 7 // fields that are no nodes
	if len(fields) < fixed+2 {
		return malformed("it has %d fields, and at least %d are needed", len(fields), fixed+2)
	}
	n, err := strconv.ParseUint(string(fields[2]), 10, 8)
	if err != nil || int(n) != len(fields)-fixed {
		return malformed("its count of nodes does not agree with its %d fields", len(fields))
	}
	v := value{link: string(fields[1])}
	if validName("link", v.link) != nil {
		return malformed("field 2 is no id of a link")
	}
	for i, f := range fields[3 : 3+n] {
		v.nodes = append(v.nodes, string(f))
		if validName("node", v.nodes[i]) != nil || i > 0 && v.nodes[i-1] >= v.nodes[i] {
			return malformed("field %d is no name of a node, or not in order", 4+i)
		}
	}
	rest := fields[3+n:]
	if v.epoch, err = keys.ParseEpoch(string(rest[0])); err != nil {
		return malformed("field %d is no epoch", 4+n)
	}
	for i, t := range []*time.Time{&v.issued, &v.expires} {
		if *t, err = time.Parse(time.RFC3339, string(rest[1+i])); err != nil {
			return malformed("field %d is no time", 5+int(n)+i)
		}
	}
	digits := rest[3]
	if len(digits) != 2*materialLen {
		return malformed("it has %d digits of material, not %d", len(digits), 2*materialLen)
	}
	octets := make([]byte, materialLen)
	v.key = secret.New(octets)
	if _, err := hex.Decode(octets, digits); err != nil { // which quotes a digit
		v.key.Erase()
		return malformed("its material is not hexadecimal")
	}
	again, err := v.encode()
	same := err == nil && bytes.Equal(again, text)
	clear(again)
	if !same {
		v.key.Erase()
		return malformed("it is not spelt as the issuer spells it")
	}
	return v, nil
}

// open reads a value for a place: it must have been issued for just this link, epoch
// and, unless they are not known, these nodes, which are sorted; and it must not be
// over by now.
func open(text []byte, at place, nodes []string, now time.Time) (value, error) {
	v, err := decode(text)
	if err != nil {
		return value{}, err
	}
	if err := v.check(at, nodes, now); err != nil {
		v.key.Erase()
		return value{}, err
	}
	return v, nil
}

func (v value) check(at place, nodes []string, now time.Time) error {
	swapped := func(format string, args ...any) error {
		return refuse(health.EtcdValueSwapped, format, args...)
	}
	switch {
	case v.link != at.link:
		return swapped("its text is for another link than its name")
	case v.epoch != at.epoch:
		return swapped("its text is for another epoch than its name")
	case at.node != "" && !slices.Contains(v.nodes, at.node):
		return swapped("its text is not for node %s", at.node)
	case nodes != nil && !slices.Equal(v.nodes, nodes):
		return &Refusal{Code: health.EtcdValueSwapped, Detail: "its text is for other nodes than those of link " + at.link + " in the inventory", otherNodes: true}
	case !v.issued.Before(v.expires):
		return refuse(health.EtcdValueStale, "it ends on %s, before it was issued", stamp(v.expires))
	case !now.Before(v.expires):
		return refuse(health.EtcdValueStale, "it ended on %s", stamp(v.expires))
	}
	return nil
}

// forOtherNodes tells a value that was issued when its link had other nodes.
func forOtherNodes(err error) bool {
	refused, ok := errors.AsType[*Refusal](err)
	return ok && refused.otherNodes
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
