//go:build kernel

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
)

// A key that nobody replaces is warned of, and then closes its link: nothing passes,
// in plain neither. Two people can have it go on for a while, one cannot; and the next
// epoch ends it all.
func TestKeyTooOld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lever := func(args ...string) string {
		program, err := leverFile()
		if err != nil {
			t.Fatal(err)
		}
		out, err := lab.RunLever(t.Context(), program, args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	one, two, statement := filepath.Join(dir, "one.pem"), filepath.Join(dir, "two.pem"), filepath.Join(dir, "age.override")
	text := pairInventory(fmt.Sprintf(`cak_epoch: 1m, max_age: 2m, max_age_override: {file: %s, signers: ["%s", "%s"]}`,
		statement, lever("keys", "init", "--signing-key", one), lever("keys", "init", "--signing-key", two)))
	s := newSite(t, text, text)
	s.deliver(1, "ab")
	s.start()
	s.secured()
	await := func(what string, good func(lab.LinkStatus) bool) {
		t.Helper()
		_, err := lab.AwaitStatus(s.ctx(), s.routers, theLink, 3*time.Minute, what, func(all []lab.LinkStatus) bool { return good(all[0]) && good(all[1]) })
		s.must(err)
	}
	has := func(code health.Code) func(lab.LinkStatus) bool {
		return func(l lab.LinkStatus) bool { _, raised := l.Fault(string(code)); return raised }
	}
	await("a warning", has(health.KeyAging))
	s.carries()
	await("the link to be closed", func(l lab.LinkStatus) bool { return has(health.KeyTooOld)(l) && !isSecured(l) })
	for _, r := range s.routers {
		v, err := r.SecY(theDevice)
		s.must(err)
		if len(v.TxSC.SAs) != 0 {
			t.Errorf("%s still has %d transmit SAs", r.Name, len(v.TxSC.SAs))
		}
	}
	n, err := lab.Ping(s.ctx(), s.routers[0].Space, inner(0), inner(1), 3, refusedPatience)
	s.must(err)
	if n += s.plainPings(0, 1); n != 0 {
		t.Errorf("%d pings answered on a link that is closed", n)
	}

	// Signed by one it counts for nothing.
	lever("keys", "override", "--signing-key", one, "--reason", "ticket 4711", "--until", time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "--out", statement, theLink)
	alone, err := os.ReadFile(statement)
	s.must(err)
	lever("keys", "sign", "--signing-key", two, statement)
	both, err := os.ReadFile(statement)
	s.must(err)
	s.must(os.WriteFile(statement, alone, 0o600))
	for _, r := range s.routers {
		s.must(lab.Await(s.ctx(), 2*time.Minute, r.Name+" to refuse what one has signed", func() (bool, string) {
			lines := strings.Join(r.LastLines(25), "\n")
			return strings.Contains(lines, "override not accepted"), lines
		}))
	}
	s.await("the link to stay closed", func(l lab.LinkStatus) bool { return has(health.KeyTooOld)(l) && !isSecured(l) })
	s.must(os.WriteFile(statement, both, 0o600))
	await("the override", func(l lab.LinkStatus) bool { return has(health.KeyAgeOverridden)(l) && isSecured(l) })
	s.carries()

	s.deliver(2, "ab")
	s.onEpoch("2.0")
	s.secured()
	s.carries()
	await("the faults to end", func(l lab.LinkStatus) bool {
		return !has(health.KeyAgeOverridden)(l) && !has(health.KeyTooOld)(l) && !has(health.KeyAging)(l)
	})
	s.onlyEncrypted()
}
