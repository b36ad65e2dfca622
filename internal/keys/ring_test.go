package keys_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var linkID = keys.Identity{Link: "l1", Nodes: []string{"r1", "r2"}}

func epoch(t testing.TB, s string) keys.Epoch {
	t.Helper()
	e, err := keys.ParseEpoch(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// octets are material that depends on who, so that a test can change it.
func octets(who string) []byte {
	return []byte(strings.Repeat(who+"/", 64)[:64])
}

// bench drives a Ring from a script of words:
//
//	a=1.0,2.0     channel a holds these epochs; a= nothing; 1.0! other material
//	              than before, 1.0~ short, 1.0= the same as b's, 1.0? refused file
//	a-            channel a cannot be read
//	ok=1.0        MKA confirms
//	restart       a new Ring from what was saved
//	+1h           time passes, off=1h while no agent runs
//	clock+1h      the wall clock is set forward, clock-1h back, date=30000000 to a
//	              minute since 1970
//	limits=1h,7h  length of an epoch and the greatest age of a key
//	override=2h   an override, for that long; override= takes it back
type bench struct {
	t     *testing.T
	ring  *keys.Ring
	saved []keys.State
	fail  error
	now   time.Time
	held  map[keys.Epoch]secret.Key
	last  keys.Change
	sides map[byte]string
	// skew is by how much the wall clock is ahead of now.
	skew   time.Duration
	limits [2]time.Duration
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, now: time.Unix(1000, 0), held: make(map[keys.Epoch]secret.Key), sides: make(map[byte]string)}
	b.restart(keys.State{})
	return b
}

func (b *bench) save(s keys.State) error {
	if b.fail != nil {
		return b.fail
	}
	b.saved = append(b.saved, s)
	return nil
}

func (b *bench) restart(s keys.State) {
	b.t.Helper()
	ring, err := keys.NewRing(linkID, s, b.save)
	if err != nil {
		b.t.Fatal(err)
	}
	ring.Wall(func() time.Time { return b.now.Add(b.skew) })
	ring.Limits(b.limits[0], b.limits[1])
	b.ring, b.last = ring, keys.Change{}
	clear(b.held)
}

func (b *bench) snapshot(side byte, words string) keys.Snapshot {
	b.t.Helper()
	s := keys.NewSnapshot("/keys/"+string(side), nil)
	s.Present = make(map[keys.Epoch]bool)
	for w := range strings.SplitSeq(words, ",") {
		if w == "" {
			continue
		}
		name := strings.TrimRight(w, "!~=?")
		e := epoch(b.t, name)
		material := octets(string(side) + name)
		switch strings.TrimPrefix(w, name) {
		case "!":
			material = octets("other" + string(side) + name)
		case "~":
			material = material[:31]
		case "=":
			material = octets("b" + name)
		case "?":
			s.Present[e] = true
			s.Findings = append(s.Findings, keys.Finding{Code: health.KeyFileMalformed, Epoch: e, File: "/keys/" + string(side) + "/" + name + ".key", Detail: "cut short"})
			continue
		}
		s.Keys[e] = keys.Material{KeyID: name, Key: secret.New(material), File: "/keys/" + string(side) + "/" + name + ".key"}
	}
	return s
}

func (b *bench) do(word string) keys.Change {
	b.t.Helper()
	b.now = b.now.Add(time.Second)
	var c keys.Change
	switch {
	case word == "restart" || strings.HasPrefix(word, "off="):
		state := keys.State{}
		if len(b.saved) > 0 {
			s := b.saved[len(b.saved)-1] // as it comes from the disk
			state = keys.State{HighWater: s.HighWater, ConfirmedAt: s.ConfirmedAt, Used: s.Used, Sources: s.Sources, Seen: s.Seen}
		}
		if after, ok := strings.CutPrefix(word, "off="); ok {
			b.now = b.now.Add(b.duration(after))
		}
		b.ring.Close()
		b.restart(state)
		for _, side := range []byte("ab") {
			if words, ok := b.sides[side]; ok {
				c = b.ring.Update(keys.Side(side-'a'), b.snapshot(side, words), b.now)
				b.remember(c)
			}
		}
		return c
	case word == "a-" || word == "b-":
		c = b.ring.Update(keys.Side(word[0]-'a'), keys.Snapshot{
			Where: "/keys/" + word[:1], Unavailable: true,
			Findings: []keys.Finding{{Code: health.ChannelUnreadable, Detail: "input/output error"}},
		}, b.now)
	case word[0] == '+':
		b.now = b.now.Add(b.duration(word[1:]))
		c = b.ring.Tick(b.now)
	case strings.HasPrefix(word, "clock"):
		b.skew += b.duration(word[len("clock"):])
		c = b.ring.Tick(b.now)
	case strings.HasPrefix(word, "date="):
		minutes, err := strconv.ParseInt(word[5:], 10, 64)
		if err != nil {
			b.t.Fatal(err)
		}
		b.skew = time.Unix(minutes*60, 0).Sub(b.now)
		c = b.ring.Tick(b.now)
	case strings.HasPrefix(word, "limits="):
		length, most, _ := strings.Cut(word[7:], ",")
		b.limits = [2]time.Duration{b.duration(length), b.duration(most)}
		b.ring.Limits(b.limits[0], b.limits[1])
		c = b.ring.Tick(b.now)
	case word == "override=":
		b.ring.Override(keys.Override{})
		c = b.ring.Tick(b.now)
	case strings.HasPrefix(word, "override="):
		b.ring.Override(keys.Override{
			Until: b.now.Add(b.skew).Add(b.duration(word[9:])), Reason: "a flood", Signers: []string{"ann", "bob"},
		})
		c = b.ring.Tick(b.now)
	case strings.HasPrefix(word, "ok="):
		c = b.ring.Confirm(epoch(b.t, word[3:]), b.now)
	default:
		side, words, _ := strings.Cut(word, "=")
		b.sides[side[0]] = words
		c = b.ring.Update(keys.Side(side[0]-'a'), b.snapshot(side[0], words), b.now)
	}
	b.remember(c)
	return c
}

func (b *bench) duration(s string) time.Duration {
	b.t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

// remember follows Offers by Added and Withdrawn alone, as the agent does, and
// checks that they agree and that withdrawn keys are erased.
func (b *bench) remember(c keys.Change) {
	b.t.Helper()
	for _, w := range c.Withdrawn {
		key, ok := b.held[w.Epoch]
		if !ok || !key.IsZero() {
			b.t.Errorf("withdrawn %s: was offered %v, is erased %v", w.Epoch, ok, key.IsZero())
		}
		delete(b.held, w.Epoch)
	}
	for _, cak := range c.Offers {
		if slices.Contains(c.Added, cak.Epoch) {
			b.held[cak.Epoch] = cak.Key
		}
		if key, ok := b.held[cak.Epoch]; !ok || !key.Equal(cak.Key) || key.IsZero() {
			b.t.Errorf("offer %s: added %v, the same key %v, erased %v", cak.Epoch, ok, key.Equal(cak.Key), key.IsZero())
		}
	}
	if len(b.held) != len(c.Offers) {
		b.t.Errorf("%d offers, but %d by what was added and withdrawn", len(c.Offers), len(b.held))
	}
	b.last = c
}

func offers(c keys.Change) string {
	var out []string
	for _, o := range c.Offers {
		out = append(out, o.Epoch.String())
	}
	return strings.Join(out, " ")
}

func withdrawn(c keys.Change) string {
	var out []string
	for _, w := range c.Withdrawn {
		out = append(out, w.Epoch.String()+" "+w.Reason.String())
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func findings(c keys.Change) string {
	var out []string
	for _, f := range c.Findings {
		s := string(f.Code)
		if slices.Contains([]health.Code{
			health.ChannelLate, health.KeyRollback, health.KeyChanged, health.KeyMaterialShort, health.KeyFileMalformed, health.KeyFileUnexpected, health.ChannelUnreadable,
		}, f.Code) {
			s += " " + f.Side.String()
		}
		if !f.Epoch.IsZero() {
			s += " " + f.Epoch.String()
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// rule is a script, of whose last word the outcome is compared.
type rule struct {
	name, script        string
	offers, gone, wrong string
}

func (c rule) run(t *testing.T) {
	t.Run(c.name, func(t *testing.T) {
		b := newBench(t)
		var last keys.Change
		for word := range strings.FieldsSeq(c.script) {
			last = b.do(word)
		}
		if got := offers(last); got != c.offers {
			t.Errorf("offers %q, want %q", got, c.offers)
		}
		if got := withdrawn(last); got != c.gone {
			t.Errorf("withdrawn %q, want %q", got, c.gone)
		}
		if got := findings(last); got != c.wrong {
			t.Errorf("findings %q, want %q", got, c.wrong)
		}
		for _, f := range last.Faults() {
			if strings.Contains(f.String(), "(unknown)") {
				t.Errorf("a gap in %s", f)
			}
		}
		b.ring.Close()
		for e, key := range b.held {
			if !key.IsZero() {
				t.Errorf("%s is not erased by Close", e)
			}
		}
	})
}

func TestRingRules(t *testing.T) {
	for _, c := range []rule{
		{"nothing heard yet", "a=", "", "", ""},
		{"no keys at all", "a= b=", "", "", "no-keys"},
		{"one channel alone is not used", "a=1.0 b=", "", "", "channel-late b 1.0"},
		{"nor is the other", "b=1.0 a=", "", "", "channel-late a 1.0"},
		{"both channels", "a=1.0 b=1.0", "1.0", "", ""},
		{"disjoint channels", "a=1.0 b=2.0", "", "", "channel-late a 2.0, channel-late b 1.0"},
		{"the third newest until something is confirmed", "a=1.0,2.0,3.0,4.0 b=1.0,2.0,3.0,4.0", "4.0 3.0 2.0", "", ""},
		{"the two newest, the next and the confirmed", "a=1.0 b=1.0 ok=1.0 a=1.0,2.0,3.0,4.0,5.0 b=1.0,2.0,3.0,4.0,5.0", "5.0 4.0 2.0 1.0", "", ""},
		{"the next when the confirmed is revoked", "a=1.0 b=1.0 ok=1.0 a=2.0,3.0,4.0,5.0 b=2.0,3.0,4.0,5.0", "5.0 4.0 2.0", "", ""},
		{"a later epoch in one channel changes nothing", "a=1.0 b=1.0 ok=1.0 a=1.0,2.0", "1.0", "", "channel-late b 2.0"},
		{"the next late epoch is named, not the last", "a=1.0 b=1.0 ok=1.0 a=1.0,2.0,3.0", "1.0", "", "channel-late b 2.0"},
		{"it goes when it arrives", "a=1.0 b=1.0 ok=1.0 a=1.0,2.0 b=1.0,2.0", "2.0 1.0", "", ""},
		{"a gap behind the newest does not matter", "a=1.0,2.0,3.0 b=1.0,3.0", "3.0 1.0", "", ""},
		{"confirmation withdraws what is older", "a=1.0,2.0 b=1.0,2.0 ok=2.0", "2.0", "1.0 superseded", ""},
		{"and keeps what is newer", "a=1.0,2.0 b=1.0,2.0 ok=1.0", "2.0 1.0", "", ""},
		{"old files that stay are no fault", "a=1.0,2.0 b=1.0,2.0 ok=2.0 a=1.0,2.0", "2.0", "", ""},
		{"confirmation of what is not offered", "a=1.0 b=1.0 ok=7.0", "1.0", "", ""},
		{"confirmation never lowers the mark", "a=1.0,2.0 b=1.0,2.0 ok=2.0 ok=1.0", "2.0", "", ""},
		{"a newer delivery displaces", "a=1.0,2.0,3.0 b=1.0,2.0,3.0 a=1.0,2.0,3.0,4.0 b=1.0,2.0,3.0,4.0", "4.0 3.0 2.0", "1.0 displaced", ""},

		{"revocation by a", "a=1.0,2.0 b=1.0,2.0 ok=2.0 a=1.0", "", "2.0 revoked", "key-rollback a 1.0"},
		{"revocation by b leaves the newer", "a=1.0,2.0 b=1.0,2.0 ok=1.0 b=2.0", "2.0", "1.0 revoked", ""},
		{"revocation by both", "a=1.0 b=1.0 ok=1.0 b= a=", "", "", "no-keys"},
		{"revocation of the newest goes back to the confirmed", "a=1.0,2.0 b=1.0,2.0 ok=1.0 a=1.0", "1.0", "2.0 revoked", "channel-late a 2.0"},
		{"revoked and put back unchanged", "a=1.0 b=1.0 ok=1.0 a= a=1.0", "1.0", "", ""},

		{"a channel that cannot be read revokes nothing", "a=1.0 b=1.0 ok=1.0 a-", "1.0", "", "channel-unreadable a"},
		{"nor do refused files", "a=1.0 b=1.0 ok=1.0 a=1.0?", "1.0", "", "key-file-malformed a 1.0"},
		{"refused from the start is not used, nor late", "a=1.0? b=1.0", "", "", "key-file-malformed a 1.0"},
		{"recovered", "a=1.0 b=1.0 a- a=1.0", "1.0", "", ""},
		{"revocation after recovery", "a=1.0,2.0 b=1.0,2.0 a- a=1.0", "1.0", "2.0 revoked", "channel-late a 2.0"},

		{"generation above", "a=1.0 b=1.0 ok=1.0 a=1.0,1.1 b=1.0,1.1", "1.3 1.2 1.1 1.0", "", ""},
		{"generation confirmed", "a=1.0,1.1 b=1.0,1.1 ok=1.3", "1.3", "1.1 superseded, 1.2 superseded", ""},
		{"lower generation after it", "a=1.0,1.1 b=1.0,1.1 ok=1.3 a=1.0 b=1.0", "", "", "key-rollback a 1.0, key-rollback b 1.0"},
		{"the next number beats every generation", "a=1.9,2.0 b=1.9,2.0 ok=2.0", "2.0", "1.99 superseded", ""},

		{"channel a alone issued again", "a=1.0 b=1.0 ok=1.0 a=1.0,1.1", "1.2 1.0", "", ""},
		{"channel b alone", "a=1.0 b=1.0 ok=1.0 b=1.0,1.1", "1.1 1.0", "", ""},
		{"confirmed, its old generation goes", "a=1.0 b=1.0 ok=1.0 a=1.0,1.1 ok=1.2", "1.2", "1.0 superseded", ""},
		{"the other channel's generation serves both", "a=1.0 b=1.0 ok=1.0 a=1.0,1.1 ok=1.2 b=1.0 restart", "1.2", "", ""},
		{"issued again, the old one revoked", "a=1.0 b=1.0 ok=1.0 a=1.1", "1.2", "1.0 revoked", ""},
		{"then the other", "a=1.0,1.1 b=1.0 ok=1.2 b=1.0,1.1", "1.3 1.2", "", ""},
		{"an older part is not used with a newer one", "a=1.0,1.1 b=1.0 ok=1.2 b=1.0,1.2", "1.5 1.2", "", ""},
		{"nor when it was offered", "a=1.0,1.1 b=1.0,1.2 ok=1.2", "1.5 1.2", "1.4 superseded", ""},
		{"nor over a restart", "a=1.0,1.1 b=1.0,1.2 ok=1.2 restart", "1.5 1.2", "", ""},
		{"a part of one channel is rolled back", "a=1.0,1.1 b=1.0 ok=1.2 a=1.0", "", "1.2 revoked", "key-rollback a 1.0"},
		{"a number is not late in another generation", "a=1.0 b=1.0 ok=1.0 a=1.0,2.3 b=1.0,2.0", "2.12 1.0", "", ""},
		{"late is the number", "a=1.0,1.1 b=1.0 ok=1.2 a=1.1,2.1,2.2", "1.2", "", "channel-late b 2.1"},
		{"the newest generations", "a=1.0,1.1,1.2,1.3,1.4,1.5 b=1.0", "1.30 1.20 1.12", "", ""},
		{"and the confirmed one", "a=1.0 b=1.0 ok=1.0 a=1.0,1.1,1.2,1.3,1.4 restart", "1.20 1.12 1.2 1.0", "", ""},
		{"generations above the last", "a=1.0,1.65536 b=1.0,1.65535", "1.4294836225 1.0", "", "key-file-unexpected a 1.65536"},
		{"changed in one epoch is changed in another", "a=1.0 b=1.0 ok=1.0 a=1.0! b=1.0,1.1", "1.0", "", "key-changed a 1.0"},

		{"rollback of both channels", "a=5.0 b=5.0 ok=5.0 a=3.0,4.0 b=3.0,4.0", "", "", "key-rollback a 4.0, key-rollback b 4.0"},
		{"rollback over a restart", "a=5.0 b=5.0 ok=5.0 a=4.0 b=4.0 restart", "", "", "key-rollback a 4.0, key-rollback b 4.0"},
		{"newer after a rollback", "a=5.0 b=5.0 ok=5.0 a=4.0,6.0 b=4.0,6.0", "6.0", "", ""},

		{"equal materials", "b=1.0 a=1.0=", "", "", "key-material-equal 1.0"},
		{"equal materials beside a good epoch", "b=1.0,2.0 a=1.0,2.0=", "1.0", "", "key-material-equal 2.0"},
		{"short material", "a=1.0~ b=1.0", "", "", "key-material-short a 1.0"},
		{"changed while offered: the old stays", "a=1.0 b=1.0 a=1.0!", "1.0", "", "key-changed a 1.0"},
		{"changed while revoked by the other", "a=1.0 b=1.0 b= a=1.0! b=1.0", "", "", "key-changed a 1.0"},
		{"changed while confirmed", "a=1.0 b=1.0 ok=1.0 b=1.0!", "1.0", "", "key-changed b 1.0"},
		{"changed over a restart", "a=1.0 b=1.0 a=1.0! restart", "", "", "key-changed a 1.0"},
		{"changed after revocation", "a=1.0 b=1.0 b= b=1.0!", "", "", "key-changed b 1.0"},
		{"changed, then put right", "a=1.0 b=1.0 a=1.0! a=1.0", "1.0", "", ""},
		{"changed before it was ever offered is a correction", "a=1.0 b= a=1.0! b=1.0", "1.0", "", ""},
		{"changed, answered by a new generation", "a=1.0 b=1.0 ok=1.0 a=1.0!,1.1 b=1.0,1.1", "1.3 1.2 1.0", "", "key-changed a 1.0"},
		{"changed, answered by a new generation of that channel", "a=1.0 b=1.0 ok=1.0 a=1.0!,1.1", "1.2 1.0", "", "key-changed a 1.0"},
		{"restart keeps what was confirmed", "a=1.0,2.0 b=1.0,2.0 ok=1.0 restart", "2.0 1.0", "", ""},
	} {
		c.run(t)
	}
}

func TestRingPersistsBeforeItOffersAndWhenConfirmed(t *testing.T) {
	b := newBench(t)
	b.do("a=1.0,2.0")
	if len(b.saved) != 0 {
		t.Fatal("saved although nothing is offered")
	}
	b.do("b=1.0,2.0")
	if len(b.saved) != 1 || len(b.saved[0].Seen) != 2 || !b.saved[0].HighWater.IsZero() {
		t.Fatalf("saved %+v", b.saved)
	}
	b.do("b=1.0,2.0")
	if len(b.saved) != 1 {
		t.Fatal("saved again for nothing")
	}
	b.do("ok=2.0")
	if s := b.saved[len(b.saved)-1]; len(b.saved) != 2 || s.HighWater != epoch(t, "2.0") || len(s.Seen) != 1 {
		t.Fatalf("saved %+v", b.saved)
	}
	b.do("ok=2.0")
	if len(b.saved) != 2 {
		t.Fatal("saved again for a repeated confirmation")
	}
	// A full disk does not cost the link, but is said until it is over.
	b.fail = errors.New("no space left on device")
	b.do("a=2.0,3.0")
	b.do("b=2.0,3.0")
	c := b.do("ok=3.0")
	if offers(c) != "3.0" || findings(c) != "state-unwritable" {
		t.Fatalf("offers %q, findings %q", offers(c), findings(c))
	}
	b.fail = nil
	if c := b.ring.Retry(b.now); len(c.Findings) != 0 || !c.FindingsChanged {
		t.Errorf("after a retry: %+v", c.Findings)
	}
	if s := b.saved[len(b.saved)-1]; s.HighWater != epoch(t, "3.0") {
		t.Errorf("saved %+v", s)
	}
}

// Whoever owns a channel does not decide how long a step takes and how long its status is.
func TestFindingsOfOneKindAreFew(t *testing.T) {
	b := newBench(t)
	s := keys.Snapshot{Where: "etcd", Present: make(map[keys.Epoch]bool)}
	for n := uint64(1); n <= 20000; n++ {
		e := keys.Epoch{Number: n}
		s.Present[e] = true
		s.Findings = append(s.Findings, keys.Finding{Code: health.EtcdValueMalformed, Epoch: e, File: e.String(), Detail: "no newline"})
	}
	s.Findings = append(s.Findings, keys.Finding{Code: health.ChannelUnreachable, Detail: "no route"})
	c := b.ring.Update(keys.B, s, b.now)
	var malformed []keys.Finding
	for _, f := range c.Findings {
		if f.Code == health.EtcdValueMalformed {
			malformed = append(malformed, f)
		}
	}
	if len(c.Findings) != 17 || len(malformed) != 16 {
		t.Fatalf("%d findings, %d of them about values", len(c.Findings), len(malformed))
	}
	oldest := malformed[0]
	if oldest.Epoch.Number != 19985 || oldest.Detail != "no newline; 19984 older ones are like it" || malformed[15].Epoch.Number != 20000 {
		t.Errorf("%+v", malformed)
	}
	if c := b.ring.Tick(b.now); c.FindingsChanged {
		t.Error("they change by themselves")
	}
}

// What was offered and never confirmed is not remembered without end.
func TestStateIsBounded(t *testing.T) {
	b := newBench(t)
	a := map[keys.Epoch][]byte{{Number: 1}: octets("b1.0")}
	b.ring.Update(keys.B, keys.NewSnapshot("b", a), b.now)
	for g := range uint32(1200) {
		b.ring.Update(keys.A, keys.NewSnapshot("a", map[keys.Epoch][]byte{{Number: 1, Generation: g}: octets(fmt.Sprint(g))}), b.now)
	}
	last := b.saved[len(b.saved)-1]
	newest, _ := keys.Pair(keys.Epoch{Number: 1, Generation: 1199}, keys.Epoch{Number: 1})
	if _, known := last.Seen[newest]; len(last.Seen) > 1030 || !known {
		t.Errorf("%d epochs are remembered, the newest: %v", len(last.Seen), known)
	}
}

// What was confirmed is not forgotten for it, also while it is revoked: its name never
// stands for another key.
func TestConfirmedIsNotForgotten(t *testing.T) {
	b := newBench(t)
	b.do("a=1.0")
	b.do("b=1.0")
	b.do("ok=1.0")
	number := keys.Epoch{Number: 2}
	b.ring.Update(keys.B, keys.NewSnapshot("/keys/b", map[keys.Epoch][]byte{{Number: 1}: octets("b1.0"), number: octets("b2.0")}), b.now)
	for g := range uint32(1100) {
		b.ring.Update(keys.A, keys.NewSnapshot("/keys/a", map[keys.Epoch][]byte{{Number: 2, Generation: g}: octets(fmt.Sprint(g))}), b.now)
	}
	c := b.ring.Update(keys.A, keys.NewSnapshot("/keys/a", map[keys.Epoch][]byte{{Number: 1}: octets("other")}), b.now)
	if len(c.Offers) != 0 || !slices.ContainsFunc(c.Findings, func(f keys.Finding) bool { return f.Code == health.KeyChanged }) {
		t.Errorf("%d offers, findings %+v", len(c.Offers), c.Findings)
	}
}

func TestFindingsKeepTheirAge(t *testing.T) {
	b := newBench(t)
	b.do("a=1.0,2.0")
	first := b.do("b=1.0")
	again := b.do("b=1.0")
	if len(again.Findings) != 1 || !again.Findings[0].Since.Equal(first.Findings[0].Since) || again.FindingsChanged || !again.Empty() {
		t.Errorf("%+v, then %+v", first, again)
	}
	f := again.Findings[0].Fault()
	if f.Code != health.ChannelLate || !strings.Contains(f.Text, "channel b (/keys/b)") || !strings.Contains(f.Text, "epoch 2.0 has arrived over channel a") {
		t.Errorf("fault %s", f)
	}
}

func TestIdentify(t *testing.T) {
	b := newBench(t)
	b.do("a=1.0,2.0")
	b.do("b=1.0")
	b.do("ok=1.0")
	for _, c := range []struct {
		epoch, missing string
		ok             bool
	}{
		{"1.0", "[]", true},
		{"2.0", "[b]", true},
		{"3.0", "[a b]", true},
		{"2.1", "[b]", true},
		{"2.2", "[a b]", true},
		{"3.3", "[a b]", true},
		{"500.0", "[]", false},
	} {
		ckn, err := keys.CKN(linkID, epoch(t, c.epoch))
		if err != nil {
			t.Fatal(err)
		}
		e, missing, ok := b.ring.Identify(ckn)
		if ok != c.ok || ok && e.String() != c.epoch || fmt.Sprint(missing) != c.missing {
			t.Errorf("%s: %s %v %v", c.epoch, e, missing, ok)
		}
	}
	b = newBench(t)
	for word := range strings.FieldsSeq("date=30000000 limits=24h,168h a=30000000.0 b=30000000.0 ok=30000000.0") {
		b.do(word)
	}
	for name, want := range map[string]bool{"30001440.0": true, "29998560.0": true, "30011520.3": true, "30000001.0": false, "30012960.0": false} {
		ckn, err := keys.CKN(linkID, epoch(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if e, _, ok := b.ring.Identify(ckn); ok != want || ok && e.String() != name {
			t.Errorf("%s: %s %v", name, e, ok)
		}
	}
	if _, _, ok := b.ring.Identify([]byte("abcd")); ok {
		t.Error("a foreign CKN was recognised")
	}
}

func TestRingRefusesBadIdentity(t *testing.T) {
	if _, err := keys.NewRing(keys.Identity{Link: "l", Nodes: []string{"r1", "r1"}}, keys.State{}, nil); !errors.Is(err, keys.ErrIdentity) {
		t.Error(err)
	}
	if _, err := keys.OpenRing(keys.Identity{Link: "../l", Nodes: []string{"r1", "r2"}}, keys.NewStore(t.TempDir())); err == nil {
		t.Error("a link id that leaves the state directory was accepted")
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "lever")
	store := keys.NewStore(stateDir)
	open := func() *bench {
		t.Helper()
		b := newBench(t)
		ring, err := keys.OpenRing(linkID, store)
		if err != nil {
			t.Fatal(err)
		}
		b.ring = ring
		return b
	}
	b := open()
	b.do("a=1.0,2.0")
	b.do("b=1.0,2.0")
	b.do("ok=2.0")
	if s, err := store.Load("l1"); err != nil || s.Sources != [2]string{"/keys/a", "/keys/b"} {
		t.Errorf("%+v, %v", s, err)
	}
	b = open()
	if b.ring.HighWater() != epoch(t, "2.0") {
		t.Fatalf("high water %s", b.ring.HighWater())
	}
	b.do("a=1.0")
	if c := b.do("b=1.0"); offers(c) != "" || findings(c) != "key-rollback a 1.0, key-rollback b 1.0" {
		t.Fatalf("offers %q, findings %q", offers(c), findings(c))
	}
	path := store.Path("l1")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) != 0 {
		t.Errorf("temporary files left: %v %v", left, err)
	}

	// An unusable record: the link goes on, loudly, and the file stays for whoever
	// looks at it until a confirmed epoch replaces it.
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"cut":           func(b []byte) []byte { return b[:len(b)/2] },
		"empty":         func([]byte) []byte { return nil },
		"other link":    func(b []byte) []byte { return bytes.Replace(b, []byte(`"l1"`), []byte(`"l2"`), 1) },
		"other version": func(b []byte) []byte { return bytes.Replace(b, []byte(`"version": 2`), []byte(`"version": 3`), 1) },
		"bad epoch":     func(b []byte) []byte { return bytes.Replace(b, []byte(`"2.0"`), []byte(`"two"`), 1) },
		"more behind":   func(b []byte) []byte { return append(b, "{}"...) },
		"unknown field": func(b []byte) []byte { return bytes.Replace(b, []byte(`"link"`), []byte(`"sink": 1, "link"`), 1) },
	} {
		bad := damage(bytes.Clone(good))
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		b := open()
		b.do("a=1.0")
		c := b.do("b=1.0")
		if offers(c) != "1.0" || findings(c) != "state-unreadable" {
			t.Errorf("%s: offers %q, findings %q", name, offers(c), findings(c))
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, bad) {
			t.Errorf("%s: the evidence was overwritten: %v", name, err)
		}
		if c := b.do("ok=1.0"); findings(c) != "" {
			t.Errorf("%s: after a confirmation: %q", name, findings(c))
		}
		if s, err := store.Load("l1"); err != nil || s.HighWater != epoch(t, "1.0") {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}
}

// A file of version 1 names the generation that both channels had.
func TestStateOfVersion1(t *testing.T) {
	store := keys.NewStore(t.TempDir())
	prints := [2]keys.Fingerprint{{1}, {2}}
	if err := store.Save("l1", keys.State{HighWater: epoch(t, "5.1"), Seen: map[keys.Epoch][2]keys.Fingerprint{epoch(t, "5.1"): prints}}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(store.Path("l1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(store.Path("l1"), bytes.Replace(text, []byte(`"version": 2`), []byte(`"version": 1`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Load("l1")
	if err != nil || s.HighWater != epoch(t, "5.3") || len(s.Seen) != 1 || s.Seen[epoch(t, "5.3")] != prints {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestUnwritableStateIsAFinding(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lever")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := keys.OpenRing(linkID, keys.NewStore(file))
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	b.ring = ring
	b.do("a=1.0")
	if c := b.do("b=1.0"); offers(c) != "1.0" || findings(c) != "state-unreadable" {
		t.Errorf("offers %q, findings %q", offers(c), findings(c))
	}
	if c := b.do("ok=1.0"); offers(c) != "1.0" || findings(c) != "state-unreadable, state-unwritable" {
		t.Errorf("offers %q, findings %q", offers(c), findings(c))
	}
}

// A channel that cannot be read, and one that was not heard, revoke nothing of what an
// earlier agent keyed.
func TestRevokedNeedsAChannelThatWasHeard(t *testing.T) {
	for _, c := range []struct {
		script, ckn string
		want        bool
	}{
		{"", "1.0", false},
		{"a-", "1.0", false},
		{"a- b-", "1.0", false},
		{"a=1.0 b-", "1.0", false},
		{"a=1.0", "1.0", false},
		{"a=", "1.0", true},
		{"a= b-", "1.0", true},
		{"a=2.0 b-", "1.0", true},
		{"a=1.0? b-", "1.0", false},
		{"a=1.0 b=1.0", "1.0", false},
		{"a=1.1 b=1.0", "1.0", true},
		{"a=1.1 b=1.0", "1.2", false},
		{"a=1.1 b=1.0", "1.1", true},
		{"a=1.1 b-", "1.3", false},
		{"a=2.0 b=2.0 ok=2.0", "1.0", false},
	} {
		b := newBench(t)
		b.restart(keys.State{HighWater: epoch(t, "1.0")})
		for word := range strings.FieldsSeq(c.script) {
			b.do(word)
		}
		ckn, err := keys.CKN(linkID, epoch(t, c.ckn))
		if err != nil {
			t.Fatal(err)
		}
		if got := b.ring.Revoked(ckn); got != c.want {
			t.Errorf("%q: %s is revoked: %v, want %v", c.script, c.ckn, got, c.want)
		}
	}
}

// A channel that the inventory moves to another place has revoked nothing that it never
// had there; from when it has had it, it can.
func TestAnotherSourceRevokesNothingAtFirst(t *testing.T) {
	b := newBench(t)
	first, second := epoch(t, "1.0"), epoch(t, "2.0")
	ckn, err := keys.CKN(linkID, first)
	if err != nil {
		t.Fatal(err)
	}
	at := func(where string, epochs ...keys.Epoch) {
		for _, side := range []keys.Side{keys.A, keys.B} {
			material := make(map[keys.Epoch][]byte)
			for _, e := range epochs {
				material[e] = octets(side.String() + e.String())
			}
			b.ring.Update(side, keys.NewSnapshot(where, material), b.now)
		}
	}
	revoked := func(what string, want bool) {
		t.Helper()
		if got := b.ring.Revoked(ckn); got != want {
			t.Errorf("%s: revoked: %v, want %v", what, got, want)
		}
	}
	at("old", first)
	b.ring.Confirm(first, b.now)
	b.do("restart")
	at("old")
	revoked("gone from the old place", true)
	b.do("restart")
	at("new")
	revoked("not at the new place", false)
	at("new", first)
	at("new")
	revoked("gone from the new place", true)
	b.do("restart")
	at("new")
	revoked("gone from the new place, over a restart", true)
	at("third", second)
	b.ring.Confirm(second, b.now)
	revoked("superseded", false)
}

// Whatever is printed, logged, encoded or saved: material and CAKs are not in it.
func TestNothingPrintsMaterial(t *testing.T) {
	b := newBench(t)
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	var raw [][]byte
	for word := range strings.FieldsSeq("a=1.0,2.0,3.0~,4.0 b=1.0,2.0,3.0,5.0 ok=1.0 a=1.0,2.0! b=2.0 a- restart") {
		for _, side := range []byte("ab") {
			if rest, ok := strings.CutPrefix(word, string(side)+"="); ok {
				for _, m := range b.snapshot(side, rest).Keys {
					raw = append(raw, bytes.Clone(m.Key.Bytes()))
					fmt.Fprintf(&out, "%v %+v %#v %x %s\n", m, m, m, m, m)
				}
			}
		}
		c := b.do(word)
		for _, o := range c.Offers {
			raw = append(raw, bytes.Clone(o.Key.Bytes()))
			fmt.Fprintf(&out, "%v %+v %#v %x %s\n", o, o, o, o, o)
		}
		fmt.Fprintf(&out, "%v %+v %#v %x\n%+v %#v\n", c, c, c, c.Offers, b.ring, b.ring)
		for _, f := range c.Faults() {
			fmt.Fprintln(&out, f)
		}
		j, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
		log.Info("change", "change", c, "offers", c.Offers, "findings", c.Findings, "saved", b.saved)
	}
	for _, state := range b.saved {
		if err := keys.NewStore(t.TempDir()).Save("l1", state); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%x %v\n", slices.Collect(maps.Values(state.Seen)), state)
	}
	if len(raw) < 12 || out.Len() < 5000 {
		t.Fatalf("%d secrets, %d octets of output: this test looks at nothing", len(raw), out.Len())
	}
	text := out.String()
	for _, secret := range raw {
		part := secret[:16]
		decimal := strings.Trim(fmt.Sprint(part), "[]")
		for _, leak := range []string{string(part), fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), decimal, strings.ReplaceAll(decimal, " ", ",")} {
			if strings.Contains(text, leak) {
				t.Fatalf("output contains a secret as %.20q…", leak)
			}
		}
	}
}
