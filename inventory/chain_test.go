package inventory_test

import (
	"testing"
	"time"

	"github.com/lever-link/lever/inventory"
)

// at is a moment of June 2026.
func at(day, hour int) time.Time { return time.Date(2026, 6, day, hour, 0, 0, 0, time.UTC) }

// TestPSKValidAt has a key begin at its not_before and end at its not_after.
func TestPSKValidAt(t *testing.T) {
	for _, c := range []struct {
		name string
		key  inventory.PSK
		at   time.Time
		want bool
	}{
		{"without bounds", inventory.PSK{}, at(1, 0), true},
		{"just before it begins", inventory.PSK{NotBefore: at(2, 0)}, at(2, 0).Add(-1), false},
		{"as it begins", inventory.PSK{NotBefore: at(2, 0)}, at(2, 0), true},
		{"just before it ends", inventory.PSK{NotAfter: at(3, 0)}, at(3, 0).Add(-1), true},
		{"as it ends", inventory.PSK{NotAfter: at(3, 0)}, at(3, 0), false},
		{"within", inventory.PSK{NotBefore: at(2, 0), NotAfter: at(3, 0)}, at(2, 5), true},
		{"after", inventory.PSK{NotBefore: at(2, 0), NotAfter: at(3, 0)}, at(4, 0), false},
	} {
		if got := c.key.ValidAt(c.at); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestCoveredUntil(t *testing.T) {
	chain := func(keys ...inventory.PSK) *inventory.Link { return &inventory.Link{PSK: keys} }
	key := func(name string, before, after time.Time) inventory.PSK {
		return inventory.PSK{CKN: []byte(name), NotBefore: before, NotAfter: after}
	}
	var none time.Time
	for _, c := range []struct {
		name string
		link *inventory.Link
		last string // the key that ends it
		ends bool
	}{
		{"no key", chain(), "", true},
		{"for ever", chain(key("a", none, none)), "a", false},
		{"one that ends", chain(key("a", none, at(20, 0))), "a", true},
		{"one after the other", chain(key("a", none, at(20, 0)), key("b", at(19, 0), at(25, 0))), "b", true},
		{"in the other order", chain(key("b", at(19, 0), at(25, 0)), key("a", none, at(20, 0))), "b", true},
		{"and then for ever", chain(key("a", none, at(20, 0)), key("b", at(19, 0), none)), "b", false},
		{"one within the other", chain(key("a", none, at(25, 0)), key("b", none, at(20, 0))), "a", true},
		{"a gap", chain(key("a", none, at(20, 0)), key("b", at(21, 0), none)), "a", true},
		{"ended", chain(key("a", none, at(14, 0))), "", true},
		{"not begun", chain(key("a", at(17, 0), none)), "", true},
	} {
		last, ends := c.link.CoveredUntil(at(15, 12))
		if string(last.CKN) != c.last || ends != c.ends {
			t.Errorf("%s: %q, %t", c.name, last.CKN, ends)
		}
	}
}
