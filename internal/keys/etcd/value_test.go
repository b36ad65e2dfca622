package etcd

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

const digits = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// good is the value that the tests change.
const good = "lever-key/1 fra1-ams1 2 ams1-r2 fra1-r1 29000000.3 2026-01-02T03:04:05Z 2026-02-02T03:04:05Z " + digits + "\n"

var (
	goodAt  = place{node: "fra1-r1", link: "fra1-ams1", epoch: keys.Epoch{Number: 29000000, Generation: 3}}
	goodNow = time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)
)

func TestValueRoundTrip(t *testing.T) {
	material := make([]byte, 32)
	for i := range material {
		material[i] = byte(i)
	}
	v := value{
		link: goodAt.link, nodes: []string{"ams1-r2", "fra1-r1"}, epoch: goodAt.epoch,
		issued: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), expires: time.Date(2026, 2, 2, 3, 4, 5, 0, time.UTC), key: secret.New(material),
	}
	text, err := v.encode()
	if err != nil || string(text) != good {
		t.Fatalf("%q, %v", text, err)
	}
	got, err := open(text, goodAt, v.nodes, goodNow)
	if err != nil {
		t.Fatal(err)
	}
	if !got.key.Equal(v.key) || got.link != v.link || got.epoch != v.epoch || !slices.Equal(got.nodes, v.nodes) || !got.issued.Equal(v.issued) || !got.expires.Equal(v.expires) {
		t.Errorf("%+v", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	nodes := []string{"ams1-r2", "fra1-r1"}
	change := func(from, to string) string { return strings.Replace(good, from, to, 1) }
	for _, c := range []struct {
		name, text string
		at         place
		nodes      []string
		now        time.Time
		want       health.Code
	}{
		{"empty", "", goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"a newline", "\n", goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"no newline", strings.TrimSuffix(good, "\n"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"two newlines", good + "\n", goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"two lines", good + good, goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"another version", change("key/1", "key/2"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"two spaces", change(" 2 ", "  2 "), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"a tab", change(" 2 ", "\t2 "), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"a space at the end", change("\n", " \n"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"carriage return", change("\n", "\r\n"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"count 02", change(" 2 ", " 02 "), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"count 3", change(" 2 ", " 3 "), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"count +2", change(" 2 ", " +2 "), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"nodes in another order", change("ams1-r2 fra1-r1", "fra1-r1 ams1-r2"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"a node twice", change("ams1-r2", "fra1-r1"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"a node with a slash", change("ams1-r2", "ams1/r2"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"a hidden link", change("fra1-ams1", ".fra1-ams1"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"epoch with a zero", change("29000000.3", "29000000.03"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"fraction of a second", change("05Z", "05.0Z"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"another zone", change("05Z", "05+00:00"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"no time", change("2026-01-02", "2026-13-02"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"upper case", change("0a0b", "0A0B"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"no digit", change("0a0b", "0a0g"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"too few digits", change("1e1f", "1e"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"too many digits", change("1e1f", "1e1f20"), goodAt, nodes, goodNow, health.EtcdValueMalformed},
		{"oversized", good + strings.Repeat("x", MaxValue), goodAt, nodes, goodNow, health.EtcdValueOversized},
		{"another link", good, place{"fra1-r1", "fra1-ams2", goodAt.epoch}, nodes, goodNow, health.EtcdValueSwapped},
		{"another epoch", good, place{"fra1-r1", "fra1-ams1", keys.Epoch{Number: 29000001, Generation: 3}}, nodes, goodNow, health.EtcdValueSwapped},
		{"another generation", good, place{"fra1-r1", "fra1-ams1", keys.Epoch{Number: 29000000}}, nodes, goodNow, health.EtcdValueSwapped},
		{"another node", good, place{"fra1-r2", "fra1-ams1", goodAt.epoch}, nil, goodNow, health.EtcdValueSwapped},
		{"other nodes", good, goodAt, []string{"ams1-r3", "fra1-r1"}, goodNow, health.EtcdValueSwapped},
		{"more nodes", good, goodAt, []string{"ams1-r2", "fra1-r1", "x"}, goodNow, health.EtcdValueSwapped},
		{"over", good, goodAt, nodes, time.Date(2026, 2, 2, 3, 4, 5, 0, time.UTC), health.EtcdValueStale},
		{"ends before it begins", change("2026-02-02", "2026-01-01"), goodAt, nodes, goodNow, health.EtcdValueStale},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := open([]byte(c.text), c.at, c.nodes, c.now)
			var refused *Refusal
			if !errors.As(err, &refused) || refused.Code != c.want {
				t.Fatalf("%v, want %s", err, c.want)
			}
			for _, part := range []string{"0a0b", "0A0B", "0a0g", "ams1-r2"} {
				if strings.Contains(err.Error(), part) {
					t.Errorf("%q quotes the value", err)
				}
			}
		})
	}
}

// A link with more nodes than a value has room for is refused when it is issued.
func TestTooManyNodes(t *testing.T) {
	v := value{link: "l", epoch: keys.Epoch{Number: 1}, issued: goodNow, expires: goodNow.Add(time.Hour), key: secret.New(make([]byte, 32))}
	for len(v.nodes) < 255 {
		v.nodes = append(v.nodes, strings.Repeat("n", 100)+string(rune('a'+len(v.nodes)%26)))
	}
	if text, err := v.encode(); err == nil {
		t.Errorf("%d octets", len(text))
	}
	v.nodes = v.nodes[:8]
	if text, err := v.encode(); err != nil || len(text) > MaxValue {
		t.Errorf("%d octets, %v", len(text), err)
	}
}

func TestNames(t *testing.T) {
	n, err := newNames("")
	if err != nil {
		t.Fatal(err)
	}
	name := n.key("r1", "l.1", keys.Epoch{Number: 42, Generation: 1})
	if name != "lever/nodes/r1/links/l.1/42.1" {
		t.Error(name)
	}
	if p, err := n.parse(name); err != nil || p != (place{"r1", "l.1", keys.Epoch{Number: 42, Generation: 1}}) {
		t.Errorf("%+v, %v", p, err)
	}
	if link, e, ok := n.parseMark(n.mark("l.1", keys.Epoch{Number: 42})); !ok || link != "l.1" || e.Number != 42 {
		t.Error(link, e, ok)
	}
	for _, bad := range []string{
		"", "lever", "lever/nodes/", "lever/nodes/r1", "lever/nodes/r1/links/l", "lever/nodes/r1/links/l/", "lever/nodes/r1/links/l/1.0/",
		"lever/nodes/r1/links/l/1", "lever/nodes/r1/links/l/01.0", "lever/nodes/r1/links//1.0", "lever/nodes//links/l/1.0",
		"lever/nodes/r1/other/l/1.0", "lever/nodes/../links/l/1.0", "lever2/nodes/r1/links/l/1.0", "/lever/nodes/r1/links/l/1.0",
	} {
		if p, err := n.parse(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, p)
		}
	}
	for _, bad := range []string{"a/", "a b", "ä", strings.Repeat("a", 257)} {
		if _, err := newNames(bad); err == nil {
			t.Errorf("prefix %q was taken", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(strings.Replace(good, " 2 ams1-r2", " 3 ams1-r1 ams1-r2", 1)))
	f.Add([]byte(good[:len(good)-2]))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := decode(text)
		if err != nil {
			if _, ok := errors.AsType[*Refusal](err); !ok {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		again, err := v.encode()
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("%q was read, and written as %q, %v", text, again, err)
		}
		at := place{node: v.nodes[0], link: v.link, epoch: v.epoch}
		if err := v.check(at, v.nodes, v.expires.Add(-time.Second)); err != nil && v.issued.Before(v.expires) {
			t.Error(err)
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add("lever/nodes/r1/links/l/1.0")
	f.Add("lever/revoked/l/1.0")
	f.Fuzz(func(t *testing.T, name string) {
		n := names{DefaultPrefix}
		if p, err := n.parse(name); err == nil && n.key(p.node, p.link, p.epoch) != name {
			t.Errorf("%q was read as %+v", name, p)
		}
		if link, e, ok := n.parseMark(name); ok && n.mark(link, e) != name {
			t.Errorf("%q was read as the mark of %s of %s", name, e, link)
		}
	})
}
