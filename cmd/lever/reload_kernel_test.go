//go:build kernel

package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
)

// inventory replaces the inventory of a router.
func (s *site) inventory(i int, text string) {
	s.Helper()
	s.must(s.routers[i].SetInventory([]byte(text)))
}

// says waits until the status of a router as a whole has all of words, or none.
func (s *site) says(i int, want bool, words ...string) {
	s.Helper()
	for end := time.Now().Add(patience); ; {
		status := s.lever(i, "status", "-o", "json")
		good := true
		for _, w := range words {
			good = good && strings.Contains(status, w) == want
		}
		if good {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("r%d: %q is %v not in its status after %v: %s", i+1, words, want, patience, status)
		}
	}
}

// An inventory changes below a stream, in ways that must not be noticed.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	text := pairInventory("")
	s.underStream(0, 1, besides, func() {
		t.Log("another word for a segment")
		text = strings.Replace(text, "leased-wave}", "leased-wave, ref: circuit/9}", 1)
		for i := range 2 {
			s.inventory(i, text)
		}
		s.await("of the new reason", func(l lab.LinkStatus) bool { return isSecured(l) && strings.Contains(l.Reason, "circuit/9") })

		t.Log("mistakes")
		s.inventory(0, strings.Replace(text, "policy: {}", "policy: {mode: enforced}", 1))
		s.says(0, true, string(health.InventoryInvalid), "lever.yaml:2:16: policy.mode must be one of")
		s.inventory(0, text)
		s.says(0, false, string(health.InventoryInvalid))

		t.Log("mode monitor and back")
		for _, c := range []struct {
			from, to string
			open     bool
		}{{"policy: {}", "policy: {mode: monitor}", true}, {"policy: {mode: monitor}", "policy: {}", false}} {
			text = strings.Replace(text, c.from, c.to, 1)
			for i := range 2 {
				s.inventory(i, text)
				if c.open {
					s.fault(i, health.FenceOpen)
				} else {
					s.noFault(i, health.FenceOpen)
				}
			}
		}
		if now := s.secured(); now != key {
			t.Errorf("%v after %v: words and modes have made another key", now, key)
		}

		t.Log("a session that restarts, by SIGHUP")
		text = strings.Replace(text, "policy: {}", "policy: {sak_rekey: 2h}", 1)
		for i := range 2 {
			s.inventory(i, text)
			s.must(s.routers[i].Signal(syscall.SIGHUP))
		}
		for i, r := range s.routers {
			again := func(l string) bool { return strings.Contains(l, "link is set up") }
			s.await("the session to have begun again", func(l lab.LinkStatus) bool {
				return isSecured(l) && slices.ContainsFunc(after(r.LastLines(1000), "sak_rekey"), again)
			}, i)
		}
		s.must(s.routers[0].Alive())
		if now := s.secured(); now != key && !s.lostPeer(0) && !s.lostPeer(1) {
			t.Errorf("%v after %v: it was not resumed", now, key)
		}
		s.lever(0, "rekey", theLink)
	})
	s.onlyEncrypted()
	t.Log("the link is removed, and plain frames stay barred until lever down")
	for i := range 2 {
		s.inventory(i, inventoryOf("", " []\n"))
		s.fault(i, health.LinkRemoved, "lever down "+theLink)
	}
	if n := s.plainPings(0, 1); n != 0 {
		t.Errorf("%d plain pings were answered", n)
	}
	for i := range 2 {
		s.lever(i, "down", theLink)
	}
}

// after are the lines behind the last one that has a word.
func after(lines []string, word string) []string {
	for i := range slices.Backward(lines) {
		if strings.Contains(lines[i], word) {
			return lines[i+1:]
		}
	}
	return nil
}
