package secret_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"reflect"
	"runtime"
	"testing"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/secret/secrettest"
)

func init() { secrettest.Undisturbed() }

// Scrub depends on how the standard library lays its objects out. Here it is
// tried on each that we use: with the key in it, the object is found in memory,
// and afterwards nothing is. A version of Go that moves the key elsewhere fails
// this test.
func TestScrubReachesTheWhole(t *testing.T) {
	cases := []struct {
		name   string
		octets int
		make   func(key []byte) any
	}{
		{"AES-128", 16, func(key []byte) any { return newAES(t, key) }},
		{"AES-256", 32, func(key []byte) any { return newAES(t, key) }},
		{"SHA-256", 32, func(key []byte) any { h := sha256.New(); h.Write(key); return h }},
		{"SHA-384", 32, func(key []byte) any { h := sha512.New384(); h.Write(key); return h }},
		{"SHA-512", 32, func(key []byte) any { h := sha512.New(); h.Write(key); return h }},
	}
	var search secrettest.Search
	objects := make([]any, len(cases))
	for i, c := range cases {
		secret.Do(func() {
			key := secret.New(make([]byte, c.octets))
			defer key.Erase()
			_, _ = rand.Read(key.Bytes())
			search.Add(c.name, key.Bytes())
			objects[i] = c.make(key.Bytes())
		})
	}
	for _, there := range []bool{true, false} {
		image, err := search.Self()
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range cases {
			if image.Has(c.name) != there {
				t.Errorf("%s: the key is %s; want it there: %v", c.name, image.Where(c.name), there)
			}
			if r := reference(reflect.TypeOf(objects[i]).Elem()); r != "" {
				t.Errorf("%s: the object has a %s, where Scrub does not follow", c.name, r)
			}
			secret.Scrub(objects[i])
		}
	}
	runtime.KeepAlive(objects)
}

func newAES(t *testing.T, key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// reference is what in a type refers to memory elsewhere, if anything does.
func reference(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct:
		for f := range t.Fields() {
			if r := reference(f.Type); r != "" {
				return r
			}
		}
		return ""
	case reflect.Array:
		return reference(t.Elem())
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return ""
	default:
		return t.String()
	}
}

func TestScrubIsHarmless(t *testing.T) {
	var none *int
	for _, p := range []any{nil, none, 7, "text", []byte{1}} {
		secret.Scrub(p)
	}
	type pair struct{ a, b int }
	p := &pair{1, 2}
	secret.Scrub(p)
	if *p != (pair{}) {
		t.Errorf("%v is left", *p)
	}
}

// work leaves a key on the stack, some kilobytes down, as a hash function does
// that works on a copy of its state.
//
//go:noinline
func work(key []byte, depth int) byte {
	var local [512]byte
	for i := range 8 {
		copy(local[64*i:], key)
	}
	x := local[depth]
	if depth > 0 {
		x ^= work(key, depth-1)
	}
	return x ^ local[len(key)-1]
}

// A goroutine that goes on with something else must have no key below it. The
// search is made by another one, whose stack is its own.
func TestDoLeavesNothingOnTheStack(t *testing.T) {
	var search secrettest.Search
	release, done := make(chan struct{}), make(chan struct{}, 2)
	defer close(release)
	for _, c := range []struct {
		name string
		call func(func())
	}{
		{"kept", func(f func()) { f() }},
		{"cleared", secret.Do},
	} {
		key := make([]byte, 32)
		_, _ = rand.Read(key)
		search.Add(c.name, key)
		go func() {
			c.call(func() { work(key, 8); clear(key) })
			done <- struct{}{}
			<-release
		}()
	}
	<-done
	<-done
	image, err := search.Self()
	if err != nil {
		t.Fatal(err)
	}
	if image.Has("cleared") {
		t.Errorf("after Do the key is %s", image.Where("cleared"))
	}
	if !image.Has("kept") {
		t.Error("without Do the key is gone as well: this test shows nothing")
	}
}

func TestDoAllocatesNothing(t *testing.T) {
	sum := 0
	if n := testing.AllocsPerRun(100, func() { secret.Do(func() { sum++ }) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if sum != 101 {
		t.Errorf("called %d times", sum)
	}
}
