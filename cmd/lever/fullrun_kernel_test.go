//go:build kernel

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/mka"
)

// A full run: secured, rekeyed, a new epoch, agents stopped, killed and
// forgetful. Then its capture is read by somebody else's dissector, and
// everything that it has left is searched for secrets.
func TestFullRun(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	capture := filepath.Join(s.dir, "run.pcap")
	f, err := os.Create(capture)
	s.must(err)
	s.capture(f)
	var said bytes.Buffer // by the verbs
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	for i := range s.routers {
		said.WriteString(s.lever(i, "rekey", theLink))
		key = s.securedAnew(key)
	}
	s.deliver(2, "a")
	s.await("both agents to miss channel b", func(l lab.LinkStatus) bool { return len(l.Faults) > 0 })
	said.WriteString(s.lever(0, "status"))
	s.deliver(2, "b")
	s.onEpoch("2.0")
	s.securedAnew(key)
	s.stop(0)
	s.start(0)
	s.secured()
	s.kill(1)
	s.start(1)
	key = s.secured() // on a busy machine not the one of before: see lostPeer
	s.kill(0)
	s.must(os.RemoveAll(s.routers[0].Path(lab.RunDir)))
	s.start(0)
	s.securedAnew(key)
	s.pings(0, 1)
	// What fails must not tell more than what works.
	s.put(0, "a", 3, append(s.material()[:31], 'x'), 0o644)
	s.await("r1 to refuse a file", func(l lab.LinkStatus) bool { return len(l.Faults) > 0 }, 0)
	for i := range s.routers {
		for _, args := range [][]string{{"status"}, {"status", "-o", "json"}} {
			said.WriteString(s.lever(i, args...))
		}
		for _, c := range []string{"a", "b"} {
			out, err := lab.RunLever(s.ctx(), s.routers[i].Binary, "keys", "list", "--channel", c, "--dir", s.routers[i].Path("keys/"+c))
			s.must(err)
			said.Write(out)
		}
	}
	s.onlyEncrypted()
	s.stop()
	s.must(s.wire.Stop())
	s.must(f.Close())
	s.capture(nil)

	t.Run("tshark reads every MKPDU", func(t *testing.T) { readsAll(t, capture) })
	t.Run("no secret is anywhere", func(t *testing.T) { s.noSecret(t, capture, said.Bytes()) })
}

// readsAll expects tshark to take each EAPOL frame for a whole MKPDU that it
// has nothing to say against.
func readsAll(t *testing.T, capture string) {
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "tshark", append([]string{"-n", "-r", capture}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir()) // not somebody's preferences
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("tshark %q: %v: %s", args, err, stderr.String())
		}
		return string(out)
	}
	all := run("-Y", "!macsec", "-T", "fields", "-e", "frame.number", "-e", "eapol.type", "-e", "mka.basic_param_set", "-e", "mka.icv", "-e", "_ws.expert.message", "-e", "_ws.malformed")
	frames, read := 0, 0
	for line := range strings.Lines(all) {
		frames++
		fields := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(fields) != 6 || fields[1] != "5" || fields[3] == "" || fields[4] != "" || fields[5] != "" {
			t.Errorf("tshark on frame %q", fields)
			continue
		}
		read++
	}
	if frames < 20 {
		t.Errorf("tshark found %d MKPDUs: a run has more", frames)
	}
	if out := run("-q", "-z", "expert"); strings.TrimSpace(out) != "" {
		t.Errorf("tshark's experts:\n%s", out)
	}
	t.Logf("%d of %d MKPDUs read without a complaint", read, frames)
}

// noSecret searches all that a run has left, but the key files themselves, for
// all that was delivered, every CAK that can be made of it, and every SAK that was
// distributed.
func (s *site) noSecret(t *testing.T, capture string, said []byte) {
	places := map[string][]byte{"what the verbs said": said}
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && e.Name() == "keys":
			return fs.SkipDir
		case !e.Type().IsRegular():
			return nil
		}
		places[path], err = os.ReadFile(path)
		return err
	})
	s.must(err)
	for _, want := range []string{capture, s.routers[0].Path(lab.LogFile), s.routers[1].Path(lab.LogFile),
		s.routers[0].Path(lab.RunDir + "/links/" + theLink + ".json")} {
		if len(places[want]) == 0 {
			t.Errorf("%s is not among what is searched", want)
		}
	}
	if len(s.secrets) < 5 {
		t.Fatalf("%d secrets were delivered", len(s.secrets))
	}
	caks := map[mka.CKN][]byte{}
	for e := uint64(1); e <= 2; e++ {
		cak, err := s.cak(e)
		s.must(err)
		s.secrets = append(s.secrets, cak)
		caks[mka.CKN(s.ckn(e))] = cak
		if v := places[s.routers[0].Path(lab.LogFile)]; !bytes.Contains(v, []byte(hex.EncodeToString(s.ckn(e)))) {
			t.Errorf("the CKN of epoch %d is not in the log: the search would not find its CAK either", e)
		}
	}
	saks := distributed(t, places[capture], caks)
	if len(saks) < 4 {
		t.Errorf("%d SAKs are in the capture: a run has more", len(saks))
	}
	for _, sak := range saks {
		s.secrets = append(s.secrets, sak.Bytes())
	}
	for where, content := range places {
		for i, key := range s.secrets {
			if form := discloses(content, key); form != "" {
				t.Errorf("secret %d is in %s, %s", i, where, form)
			}
		}
	}
	// And the search finds what is there.
	file, err := os.ReadFile(s.keyPath(0, "b", 2))
	s.must(err)
	found := 0
	for _, key := range s.secrets {
		if discloses(file, key) != "" {
			found++
		}
	}
	if found != 1 {
		t.Errorf("a key file holds %d of the secrets by this search, want 1", found)
	}
	t.Logf("%d secrets, searched for in %d places", len(s.secrets), len(places))
}

// discloses says in which form half of a key can be read in content.
func discloses(content, key []byte) string {
	for _, part := range [][]byte{key[:16], key[len(key)-16:]} {
		for name, form := range map[string]string{
			"as octets":              string(part),
			"in hexadecimal":         hex.EncodeToString(part),
			"in capital hexadecimal": strings.ToUpper(hex.EncodeToString(part)),
			"as Go prints octets":    strings.Trim(fmt.Sprint(part), "[]"),
			"in base64":              base64.StdEncoding.EncodeToString(part[:15]),
		} {
			if bytes.Contains(content, []byte(form)) {
				return name
			}
		}
	}
	return ""
}

func (s *site) identity() keys.Identity {
	return keys.Identity{Link: theLink, Nodes: []string{"r1", "r2"}}
}

// ckn is the name of an epoch's CAK.
func (s *site) ckn(epoch uint64) []byte {
	ckn, err := keys.CKN(s.identity(), keys.Epoch{Number: epoch})
	s.must(err)
	return ckn
}

// cak is an epoch's CAK, computed from the material of the key files.
func (s *site) cak(epoch uint64) ([]byte, error) {
	read := func(channel string) []byte {
		text, err := os.ReadFile(s.keyPath(0, channel, int(epoch)))
		s.must(err)
		key, err := hex.DecodeString(strings.TrimSpace(string(text)))
		s.must(err)
		return key
	}
	return s.cakOf(epoch, read("a"), read("b"))
}

// cakOf is cak of material that is known.
func (s *site) cakOf(epoch uint64, a, b []byte) ([]byte, error) {
	material := func(key []byte) keys.Material {
		return keys.Material{KeyID: fmt.Sprintf("%d.0", epoch), Key: secret.Clone(key)}
	}
	cak, err := keys.Combine(s.identity(), keys.Epoch{Number: epoch}, material(a), material(b))
	if err != nil {
		return nil, err
	}
	if cak.Key.Len() != 32 {
		return nil, errors.New("a CAK is 32 octets")
	}
	return cak.Key.Bytes(), nil
}
