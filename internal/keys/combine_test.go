package keys_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

type vectorFile struct {
	Vectors []struct {
		Link       string
		Nodes      []string
		Epoch      uint64
		Generation uint32
		A, B       struct {
			KeyID    string `json:"key_id"`
			Material string
		}
		CAK, CKN string
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCombineVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/combine.json")
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Vectors) < 3 {
		t.Fatalf("%d vectors", len(f.Vectors))
	}
	for _, v := range f.Vectors {
		e := keys.Epoch{Number: v.Epoch, Generation: v.Generation}
		a := keys.Material{KeyID: v.A.KeyID, Key: secret.New(unhex(t, v.A.Material))}
		b := keys.Material{KeyID: v.B.KeyID, Key: secret.New(unhex(t, v.B.Material))}
		reversed := slices.Clone(v.Nodes)
		slices.Reverse(reversed)
		for _, nodes := range [][]string{v.Nodes, reversed} {
			id := keys.Identity{Link: v.Link, Nodes: nodes}
			cak, err := keys.Combine(id, e, a, b)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(cak.Key.Bytes()); got != v.CAK {
				t.Errorf("%s %s: CAK %s, want %s", v.Link, e, got, v.CAK)
			}
			if got := hex.EncodeToString(cak.CKN); got != v.CKN {
				t.Errorf("%s %s: CKN %s, want %s", v.Link, e, got, v.CKN)
			}
			ckn, err := keys.CKN(id, e)
			if err != nil || hex.EncodeToString(ckn) != v.CKN {
				t.Errorf("CKN() = %x, %v", ckn, err)
			}
			// What is a's may not be b's: the sides are not interchangeable.
			swapped, err := keys.Combine(id, e, b, a)
			if err != nil || swapped.Key.Equal(cak.Key) {
				t.Errorf("swapped channels: %v, same key %v", err, swapped.Key.Equal(cak.Key))
			}
		}
		if a.Key.Len() < 32 || hex.EncodeToString(a.Key.Bytes()) != v.A.Material {
			t.Error("Combine changed the caller's material")
		}
	}
}

func TestCombineRefuses(t *testing.T) {
	good := keys.Identity{Link: "l", Nodes: []string{"n1", "n2"}}
	key := func(n int, fill byte) keys.Material {
		return keys.Material{KeyID: "1.0", Key: secret.New([]byte(strings.Repeat(string(rune(fill)), n)))}
	}
	many := make([]string, 256)
	for i := range many {
		many[i] = "n" + strings.Repeat("x", i)
	}
	for _, c := range []struct {
		name string
		id   keys.Identity
		a, b keys.Material
		want error
		says string
	}{
		{"short a", good, key(31, 'a'), key(32, 'b'), keys.ErrMaterialShort, "from channel a (31)"},
		{"short b", good, key(32, 'a'), key(0, 'b'), keys.ErrMaterialShort, "from channel b (0)"},
		{"equal", good, key(32, 'a'), key(32, 'a'), keys.ErrMaterialEqual, "new generation"},
		{"too long", good, key(1<<16, 'a'), key(32, 'b'), keys.ErrMaterialLong, "65535"},
		{"no link", keys.Identity{Nodes: good.Nodes}, key(32, 'a'), key(32, 'b'), keys.ErrIdentity, "no id"},
		{"long link", keys.Identity{Link: strings.Repeat("l", 1<<16), Nodes: good.Nodes}, key(32, 'a'), key(32, 'b'), keys.ErrIdentity, "longer"},
		{"one node", keys.Identity{Link: "l", Nodes: []string{"n"}}, key(32, 'a'), key(32, 'b'), keys.ErrIdentity, "at least two"},
		{"node twice", keys.Identity{Link: "l", Nodes: []string{"n", "m", "n"}}, key(32, 'a'), key(32, 'b'), keys.ErrIdentity, `"n" is listed twice`},
		{"node empty", keys.Identity{Link: "l", Nodes: []string{"n", ""}}, key(32, 'a'), key(32, 'b'), keys.ErrIdentity, "no name"},
		{"nodes many", keys.Identity{Link: "l", Nodes: many}, key(32, 'a'), key(32, 'b'), keys.ErrIdentity, "255"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cak, err := keys.Combine(c.id, keys.Epoch{Number: 1}, c.a, c.b)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v saying %q", err, c.want, c.says)
			}
			if cak.Key.Len() != 0 {
				t.Error("a refused combine yielded a key")
			}
		})
	}
}

// Every public input changes the key, and all but the key ids change its name.
func TestCombineBindsEverything(t *testing.T) {
	base := func() (keys.Identity, keys.Epoch, keys.Material, keys.Material) {
		return keys.Identity{Link: "l", Nodes: []string{"n1", "n2"}}, keys.Epoch{Number: 7},
			keys.Material{KeyID: "x", Key: secret.New([]byte(strings.Repeat("a", 32)))},
			keys.Material{KeyID: "y", Key: secret.New([]byte(strings.Repeat("b", 32)))}
	}
	id, e, a, b := base()
	first, err := keys.Combine(id, e, a, b)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*keys.Identity, *keys.Epoch, *keys.Material, *keys.Material) (sameCKN bool){
		"link":       func(id *keys.Identity, _ *keys.Epoch, _, _ *keys.Material) bool { id.Link = "m"; return false },
		"node":       func(id *keys.Identity, _ *keys.Epoch, _, _ *keys.Material) bool { id.Nodes[1] = "n3"; return false },
		"number":     func(_ *keys.Identity, e *keys.Epoch, _, _ *keys.Material) bool { e.Number++; return false },
		"generation": func(_ *keys.Identity, e *keys.Epoch, _, _ *keys.Material) bool { e.Generation++; return false },
		"key id a":   func(_ *keys.Identity, _ *keys.Epoch, a, _ *keys.Material) bool { a.KeyID = "z"; return true },
		"key id b":   func(_ *keys.Identity, _ *keys.Epoch, _, b *keys.Material) bool { b.KeyID = "z"; return true },
		"material a": func(_ *keys.Identity, _ *keys.Epoch, a, _ *keys.Material) bool { a.Key.Bytes()[31]++; return true },
		"material b": func(_ *keys.Identity, _ *keys.Epoch, _, b *keys.Material) bool { b.Key.Bytes()[0]++; return true },
	} {
		id, e, a, b := base()
		sameCKN := change(&id, &e, &a, &b)
		got, err := keys.Combine(id, e, a, b)
		if err != nil {
			t.Fatal(err)
		}
		if got.Key.Equal(first.Key) {
			t.Errorf("%s does not enter the CAK", name)
		}
		if (string(got.CKN) == string(first.CKN)) != sameCKN {
			t.Errorf("%s: same CKN %v, want %v", name, !sameCKN, sameCKN)
		}
	}
}

func BenchmarkCombine(b *testing.B) {
	id := keys.Identity{Link: "fra1-ams1-017", Nodes: []string{"ams1-r2", "fra1-r1"}}
	ma := keys.Material{KeyID: "42.0", Key: secret.New([]byte(strings.Repeat("a", 32)))}
	mb := keys.Material{KeyID: "42.0", Key: secret.New([]byte(strings.Repeat("b", 32)))}
	b.ReportAllocs()
	for b.Loop() {
		cak, err := keys.Combine(id, keys.Epoch{Number: 42}, ma, mb)
		if err != nil {
			b.Fatal(err)
		}
		cak.Key.Erase()
	}
}
