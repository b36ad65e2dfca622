package bundle

import (
	"bytes"
	"testing"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/signed"
)

func sample() *inner {
	key := func(b byte) secret.Key { return secret.New(bytes.Repeat([]byte{b}, keyOctets)) }
	return &inner{innerHead: innerHead{"a", 29_804_400, 7}, entries: []entry{
		{entryHead{"ab", []string{"a", "b"}, 0}, key(1)},
		{entryHead{"ab", []string{"a", "b"}, 1}, key(2)},
		{entryHead{"ring <1>", []string{"a", "b", "c"}, 0}, key(3)},
	}}
}

func TestInner(t *testing.T) {
	in := sample()
	text, err := in.encode()
	if err != nil {
		t.Fatal(err)
	}
	if cap(text) != len(text) {
		t.Error("it was not allocated at its size, so that a copy may be left")
	}
	back, err := decodeInner(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := back.of("ab"); len(got) != 2 || got[1].Generation != 1 || !got[1].key.Equal(in.entries[1].key) {
		t.Errorf("%+v", got)
	}
	if len(back.of("a")) != 0 || len(back.of("zz")) != 0 {
		t.Error("there are links that are not there")
	}
	back.erase()
	if !back.entries[0].key.IsZero() || in.entries[0].key.IsZero() {
		t.Error("erasing does not erase exactly that")
	}
	replace := func(from, to string) []byte { return bytes.Replace(text, []byte(from), []byte(to), 1) }
	for name, bad := range map[string][]byte{
		"empty":               nil,
		"no head":             []byte(innerMagic),
		"another version":     replace("v1", "v2"),
		"an unknown field":    replace(`"epoch"`, `"x":1,"epoch"`),
		"capitals":            replace("0202", "AAAA"),
		"no digits":           replace("0202", "02 2"),
		"no newline":          text[:len(text)-1],
		"an empty line":       append(bytes.Clone(text), '\n'),
		"a link twice":        replace(`"generation":1`, `"generation":0`),
		"nodes out of order":  replace(`["a","b"]`, `["b","a"]`),
		"one node":            replace(`["a","b"]`, `["a"]`),
		"a node twice":        replace(`["a","b"]`, `["a","a"]`),
		"a wild generation":   replace(`"generation":1`, `"generation":70000`),
		"a link that is none": replace(`"link":"ab"`, `"link":"../ab"`),
	} {
		if in, err := decodeInner(bad); err == nil || in != nil {
			t.Errorf("%s: accepted", name)
		} else if bytes.Contains([]byte(err.Error()), []byte("0202")) {
			t.Errorf("%s: the error quotes a key: %v", name, err)
		}
	}
}

func FuzzInner(f *testing.F) {
	text, err := sample().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)-1])
	f.Fuzz(func(t *testing.T, text []byte) {
		in, err := decodeInner(text)
		if err != nil {
			return
		}
		again, err := in.encode()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("encoding again yields something else: %v", err)
		}
	})
}

// What is inside the signatures, which a fuzzer does not get past.
func FuzzFields(f *testing.F) {
	x := &Index{Node: "a", Sequence: 9, Bundles: []Listed{{Epoch: 5, Sequence: 7, Generations: 1, SHA256: string(bytes.Repeat([]byte("a"), 64)), Size: 8}}}
	h := &bundleHeader{Node: "a", Epoch: 5, Sequence: 7, Recipients: []string{Fingerprint("x")}, Content: string(bytes.Repeat([]byte("b"), 64))}
	for _, v := range []any{x, h} {
		text, err := signed.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var x Index
		if signed.Unmarshal(text, &x) == nil && x.check() == nil {
			take, _ := x.started(start)
			if len(take) > len(x.Bundles) || x.Sequence == 0 || x.Node == "" {
				t.Errorf("accepted %+v", x)
			}
		}
		var h bundleHeader
		if signed.Unmarshal(text, &h) == nil && h.check() == nil && len(h.Recipients) == 0 {
			t.Errorf("accepted %+v", h)
		}
	})
}

// The files themselves, with all that reads them before a signature is believed.
func FuzzFiles(f *testing.F) {
	fl := newFleet(f)
	fl.issue(nil)
	f.Add(fl.read("a", indexFile))
	f.Add(fl.read("a", fileName(epochAt(0))))
	trust := []signed.PublicKey{fl.opts.Key.Public()}
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _, _ = parseIndex(text, trust, 1)
		_, _, _ = parseBundle(text, trust, 1)
		_, _ = stanzas(text)
	})
}
