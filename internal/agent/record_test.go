//go:build !kernel

package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/mka"
)

func sampleRecord() *mka.Record {
	return &mka.Record{
		Participants: []mka.ParticipantRecord{{
			CKN: "abcd", MI: mka.MI{1}, MN: 4711, KN: 9,
			Peers: []mka.PeerRecord{{MI: mka.MI{2}, SCI: farSCI, MN: 12, Priority: 16}},
		}},
		Latest: &mka.KeyRecord{CKN: "abcd", MI: mka.MI{1}, KN: 8, AN: 3, Created: 1767225600000, Members: []mka.MemberRecord{{MI: mka.MI{2}, SCI: farSCI}}},
		Spent:  []mka.SpentRecord{{MI: mka.MI{3}, KN: 1}},
	}
}

func newRunDir(t *testing.T) string {
	t.Helper()
	dir := memoryDir(t)
	if err := os.Mkdir(filepath.Join(dir, linksDir), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRecordRoundTrip(t *testing.T) {
	dir := newRunDir(t)
	if f, err := readLinkFile(dir, "l1"); f != nil || err != nil {
		t.Errorf("none there: %+v, %v", f, err)
	}
	// CKNs are octets, not text.
	for _, ckn := range []mka.CKN{"abcd", "\x00\xff\xfe\x80", mka.CKN(strings.Repeat("\xee", 32))} {
		f := &linkFile{Link: "l1", Interface: "eth4", Secure: "eth4-sec", MKA: sampleRecord()}
		f.MKA.Participants[0].CKN, f.MKA.Latest.CKN = ckn, ckn
		if err := f.write(osFiles, dir); err != nil {
			t.Fatal(err)
		}
		got, err := readLinkFile(dir, "l1")
		if err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("read %+v, %v, want %+v", got, err, f)
		}
	}
	info, err := os.Stat(linkPath(dir, "l1"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, linksDir, "*.new")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUnusableRecords(t *testing.T) {
	dir := newRunDir(t)
	f := &linkFile{Link: "l1", Interface: "eth4", Secure: "eth4-sec", MKA: sampleRecord()}
	if err := f.write(osFiles, dir); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(linkPath(dir, "l1"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(good) - 2 { // all but the newline and the last brace
		if err := os.WriteFile(linkPath(dir, "l1"), good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := readLinkFile(dir, "l1"); err == nil {
			t.Fatalf("cut after %d octets: %+v", n, f)
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"wrong version":  {`{"version":2,"link":"l1"}`, `version 2 of link "l1"`},
		"no version":     {`{"link":"l1"}`, `version 0`},
		"wrong link":     {`{"version":1,"link":"l2"}`, `of link "l2"`},
		"not an object":  {`[1]`, "read the record of link l1"},
		"null":           {`null`, `version 0 of link ""`},
		"MI of one":      {`{"version":1,"link":"l1","mka":{"participants":[{"mi":"00"}]}}`, "read the record of link l1"},
		"numbers beyond": {`{"version":1,"link":"l1","mka":{"participants":[{"mn":4294967296}]}}`, "read the record of link l1"},
	} {
		if err := os.WriteFile(linkPath(dir, "l1"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := readLinkFile(dir, "l1"); err == nil || f != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v, want %q", name, f, err, c.want)
		}
	}
	if err := os.Remove(linkPath(dir, "l1")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(linkPath(dir, "l1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := readLinkFile(dir, "l1"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory in its place: %v", err)
	}
}

// While the record cannot be written the old one must not be there either: an
// agent that resumed from it would repeat message numbers.
func TestUnwritableRecordIsAFaultAndRemovesTheStaleOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		n := p.r1
		path := linkPath(n.runDir, "l1")
		stale, err := readLinkFile(n.runDir, "l1")
		if err != nil || stale == nil || stale.MKA == nil || stale.MKA.Latest == nil {
			t.Fatalf("%+v, %v", stale, err)
		}
		if err := os.Mkdir(path+".new", 0o700); err != nil { // where it is written
			t.Fatal(err)
		}
		defer p.stream(t)()
		if err := n.ask("rekey"); err != nil {
			t.Error(err)
		}
		f := n.awaitFault(time.Second, health.RunDirUnwritable)
		if !strings.Contains(f.Text, "write the record of link l1") {
			t.Errorf("%s", f)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the stale record is still there: %v", err)
		}
		if s := n.status(); s.State != StateSecured {
			t.Errorf("a full run directory costs the link: %+v", s)
		}

		// A restart negotiates afresh, and says still what is wrong.
		n.halt()
		n.start()
		n.awaitFault(time.Second, health.RunDirUnwritable)
		n.awaitState(10*time.Second, StateSecured)
		time.Sleep(10 * time.Second)

		if err := os.Remove(path + ".new"); err != nil {
			t.Fatal(err)
		}
		if err := n.ask("rekey"); err != nil {
			t.Error(err)
		}
		p.secured(10 * time.Second)
		now, err := readLinkFile(n.runDir, "l1")
		if err != nil || now == nil || now.MKA == nil {
			t.Fatalf("%+v, %v", now, err)
		}
	})
}

// The ceilings in the record are above all that was said, at every moment.
func TestRecordIsWrittenAheadOfUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		for range 20 {
			time.Sleep(7 * time.Second)
			for _, n := range p.nodes() {
				f, err := readLinkFile(n.runDir, "l1")
				if err != nil || f == nil || f.MKA == nil || len(f.MKA.Participants) != 1 {
					t.Fatalf("%s: %+v, %v", n.name, f, err)
				}
				if got := f.MKA.Latest; got == nil || got.KN != n.status().KN || got.AN != *n.status().AN {
					t.Errorf("%s: the record has SAK %+v, the status %+v", n.name, got, n.status())
				}
				if f.Interface != n.link.Local.Interface || f.Secure != n.link.Local.Secure {
					t.Errorf("%s: %+v", n.name, f)
				}
				if sent := n.server.tasks["l1"].port.Status().Counters.Sent; uint64(f.MKA.Participants[0].MN) < sent {
					t.Errorf("%s: %d MKPDUs were sent, and the ceiling is %d", n.name, sent, f.MKA.Participants[0].MN)
				}
			}
			if err := p.r1.ask("rekey"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzRecord(f *testing.F) {
	b, err := json.Marshal(linkFile{Version: linkFileVersion, Link: "l1", MKA: sampleRecord()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"link":"l1","mka":{"participants":[null],"latest":{"an":200}}}`))
	dir := f.TempDir()
	if err := os.Mkdir(filepath.Join(dir, linksDir), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(linkPath(dir, "l1"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		rec, err := readLinkFile(dir, "l1")
		if (rec == nil) == (err == nil) {
			t.Fatalf("%+v, %v", rec, err)
		}
	})
}
