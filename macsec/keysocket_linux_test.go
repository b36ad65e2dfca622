package macsec

import (
	"crypto/rand"
	"errors"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/secret/secrettest"
)

func init() { secrettest.Undisturbed() }

// keyedRequest is a request with a key that any kernel answers with an error: it
// is for a family that does not exist. The kernel returns it with the error unless
// it is told not to.
func keyedRequest(t *testing.T, search *secrettest.Search, name string) netlink.Message {
	t.Helper()
	key := secret.New(make([]byte, 32))
	_, _ = rand.Read(key.Bytes())
	search.Add(name, key.Bytes())
	ae := netlink.NewAttributeEncoder()
	keyed, err := encodeSA(ae, GCMAESXPN256, SA{Key: key, NextPN: 1})
	if err != nil {
		t.Fatal(err)
	}
	b, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	m := netlink.Message{
		Header: netlink.Header{Type: 0x3ff, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(make([]byte, 4, 4+len(b)), b...),
	}
	clear(b)
	clear(keyed)
	key.Erase()
	return m
}

func dialGeneric(t *testing.T) *netlink.Conn {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_GENERIC, &netlink.Config{MessageBufferSize: messageBuffer})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What is sent over a keySocket is nowhere afterwards, and so it is clear that
// the library would leave it.
func TestKeySocketLeavesNothingInMemory(t *testing.T) {
	var search secrettest.Search
	keyed, err := newKeySocket(dialGeneric(t))
	if err != nil {
		t.Fatal(err)
	}
	plain := dialGeneric(t)
	for name, c := range map[string]executor{"key socket": keyed, "library": plain} {
		for range 3 { // each answer is that of its request
			m := keyedRequest(t, &search, name)
			if answers, err := c.Execute(m); !errors.Is(err, unix.ENOENT) {
				t.Errorf("%s: %d answers, %v; want ENOENT", name, len(answers), err)
			}
			clear(m.Data)
		}
	}
	image, err := search.Self()
	if err != nil {
		t.Fatal(err)
	}
	if image.Has("key socket") {
		t.Errorf("over a key socket, the key is %s", image.Where("key socket"))
	}
	if !image.Has("library") {
		t.Error("the library leaves nothing any more either: keySocket is not needed")
	}
	if err := errors.Join(keyed.Close(), plain.Close()); err != nil {
		t.Error(err)
	}
}

// A request that is answered well is, too, and a closed socket says so.
func TestKeySocketAnswers(t *testing.T) {
	k, err := newKeySocket(dialGeneric(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		answers, err := k.Execute(netlink.Message{Header: netlink.Header{Type: netlink.Noop, Flags: netlink.Request | netlink.Acknowledge}})
		if err != nil || len(answers) != 1 || answers[0].Header.Type != netlink.Error {
			t.Errorf("%v, %v; want an acknowledgement", answers, err)
		}
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Execute(netlink.Message{}); err == nil {
		t.Error("a closed socket answers")
	}
}
