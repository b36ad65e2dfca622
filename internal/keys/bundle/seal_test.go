package bundle

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/secret/secrettest"
	"github.com/lever-link/lever/internal/signed"
)

func init() { secrettest.Undisturbed() }

// The payload is decrypted as package age does it.
func TestUnsealAsAge(t *testing.T) {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	ids := []age.Identity{other, id}
	for _, size := range []int{0, 1, 100, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 3*chunkSize + 7} {
		plain := make([]byte, size)
		_, _ = rand.Read(plain)
		sealed, err := seal(plain, []age.Recipient{id.Recipient()})
		if err != nil {
			t.Fatal(err)
		}
		got, err := unseal(sealed, ids)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d octets: %v", size, err)
		}
		r, err := age.Decrypt(bytes.NewReader(sealed), id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d octets, by age: %v", size, err)
		}
		var none *age.NoIdentityMatchError
		if _, err := unseal(sealed, ids[:1]); !errors.As(err, &none) {
			t.Errorf("with another's identity: %v", err)
		}
		header, err := age.ExtractHeader(bytes.NewReader(sealed))
		if err != nil {
			t.Fatal(err)
		}
		bad := map[string][]byte{
			"cut off":            sealed[:len(sealed)-1],
			"without payload":    sealed[:len(header)+payloadNonce],
			"without nonce":      sealed[:len(header)+payloadNonce-1],
			"without header":     sealed[len(header):],
			"longer":             append(bytes.Clone(sealed), 0),
			"changed at its end": append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1),
		}
		if size > chunkSize {
			bad["without its last chunk"] = sealed[:len(header)+payloadNonce+chunkSize+16]
		}
		for name, text := range bad {
			if got, err := unseal(text, ids); err == nil || got != nil {
				t.Errorf("%d octets, %s: opened", size, name)
			}
		}
	}
}

// Neither sealing nor opening leaves anything of a key in memory, once what was made
// for a link is erased.
func TestNothingIsLeftInMemory(t *testing.T) {
	f := newFleet(t)
	id := f.ids["a"]
	to, prints, _, err := parseRecipients(f.to["a"], false)
	if err != nil {
		t.Fatal(err)
	}
	var search secrettest.Search
	in := &inner{innerHead: innerHead{"a", epochAt(0), 1}}
	for i := range 1000 { // three chunks
		key := secret.New(make([]byte, keyOctets))
		_, _ = rand.Read(key.Bytes())
		if i%250 == 0 {
			search.Add(fmt.Sprint("key ", i), key.Bytes())
		}
		in.entries = append(in.entries, entry{entryHead{fmt.Sprintf("link-%04d", i), []string{"a", "b"}, 0}, key})
	}
	text, err := in.encode()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := seal(text, to)
	if err != nil {
		t.Fatal(err)
	}
	in.erase()
	clear(text)
	h := &bundleHeader{Node: "a", Epoch: epochAt(0), Sequence: 1, Recipients: prints, Content: Fingerprint("x") + Fingerprint("y")}
	s, err := signed.New(kindBundle, start, start.Add(time.Hour), h, sealed)
	if err != nil {
		t.Fatal(err)
	}
	done, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	go func() { // whose stack stays as it is
		opened, err := open(s, h, id)
		if err != nil {
			t.Error(err)
		} else {
			v := &view{epochs: []viewed{{number: epochAt(0), in: opened, usable: true}}}
			snapshot := v.snapshot("link-0250")
			if len(snapshot.Keys) != 1 || snapshot.Keys[keys.Epoch{Number: epochAt(0)}].Key.IsZero() {
				t.Error("there is no key")
			}
			_ = snapshot.Digest()
			snapshot.Erase()
			v.erase()
		}
		done <- struct{}{}
		<-release
	}()
	<-done
	image, err := search.Self()
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 1000; i += 250 {
		if name := fmt.Sprint("key ", i); image.Has(name) {
			t.Errorf("%s is %s", name, image.Where(name))
		}
	}
}
