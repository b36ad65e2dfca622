//go:build deb

// These need what make test provides: systemd-analyze, dpkg, nfpm, whose path is in
// LEVER_NFPM, and the package of this very version, LEVER_DEB.

package service

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const top = "../.."

// run expects a command to succeed and returns all that it said.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

func TestUnitExposure(t *testing.T) {
	out := run(t, exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "package/lever.service"))
	m := regexp.MustCompile(`Overall exposure level for lever\.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("systemd-analyze names no exposure:\n%s", out)
	}
	exposure, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("systemd-analyze security: exposure %.1f", exposure)
	if exposure >= 2.0 {
		t.Errorf("the unit's exposure is %.1f:\n%s", exposure, out)
	}
}

func TestUnitVerifies(t *testing.T) {
	root := t.TempDir()
	text, err := os.ReadFile("package/lever.service")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "usr/lib/systemd/system/lever.service"), string(text))
	for _, program := range []string{"usr/bin/lever", "bin/sh"} {
		if err := os.Chmod(write(t, filepath.Join(root, program), ""), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("systemd-analyze", "verify", "--man=no", "--root="+root, "lever.service")
	if out := run(t, cmd); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}

// pack builds the package of a version. Its binary is a script that says so.
func pack(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"internal", "examples", "inventory"} {
		abs, err := filepath.Abs(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(abs, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"LICENSE", "README.md"} { // of these nfpm would package the link
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(text))
	}
	write(t, filepath.Join(dir, "bin/lever"), "#!/bin/sh\necho lever version "+version+"\n")
	cmd := exec.Command(os.Getenv("LEVER_NFPM"), "package", "-f", "internal/service/package/nfpm.yaml", "-p", "deb", "-t", dir)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "VERSION="+version, "ARCH="+runtime.GOARCH)
	run(t, cmd)
	debs, err := filepath.Glob(filepath.Join(dir, "lever_"+version+"_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("nfpm made %v (%v)", debs, err)
	}
	return debs[0]
}

func TestPackageContents(t *testing.T) {
	deb := pack(t, "1.0.0")
	var got []string
	for line := range strings.Lines(run(t, exec.Command("dpkg-deb", "-c", deb))) {
		f := strings.Fields(line)
		if name := f[len(f)-1]; !strings.HasSuffix(name, "/") || name == "./etc/lever/" {
			got = append(got, strings.Join([]string{f[0], f[1], name}, " "))
		}
	}
	for _, want := range []string{
		"-rwxr-xr-x root/root ./usr/bin/lever",
		"-rw-r--r-- root/root ./usr/lib/systemd/system/lever.service",
		"-rw-r--r-- root/root ./etc/default/lever",
		"drwx------ root/root ./etc/lever/",
		"-rw-r--r-- root/root ./usr/share/doc/lever/copyright",
		"-rw-r--r-- root/root ./usr/share/doc/lever/README.Debian",
		"-rw-r--r-- root/root ./usr/share/doc/lever/examples/tcp.conf",
		"-rw-r--r-- root/root ./usr/share/doc/lever/examples/tpm.conf",
		"-rw-r--r-- root/root ./usr/share/doc/lever/examples/fleet/policy.yaml",
		"-rw-r--r-- root/root ./usr/share/doc/lever/examples/demo.yaml",
		"-rw-r--r-- root/root ./usr/share/doc/lever/examples/channels.yaml",
		"-rw-r--r-- root/root ./usr/share/doc/lever/schema.json",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("the package has no %s:\n%s", want, strings.Join(got, "\n"))
		}
	}
	for _, g := range got {
		if strings.Contains(g, "/etc/lever/") && !strings.HasSuffix(g, "./etc/lever/") {
			t.Errorf("the package brings %s: the inventory is the operator's", g)
		}
	}
	if out := run(t, exec.Command("dpkg-deb", "-I", deb, "conffiles")); out != "/etc/default/lever\n" {
		t.Errorf("conffiles: %q", out)
	}
	if out := run(t, exec.Command("dpkg-deb", "-f", deb, "Package", "Version", "Architecture", "Maintainer", "Description")); strings.Count(out, "\n") < 5 {
		t.Errorf("control: %s", out)
	}
}

// The binary knows the version of the package that brought it, and needs nothing
// of the system that it is installed on.
func TestPackageOfThisVersion(t *testing.T) {
	deb, root := os.Getenv("LEVER_DEB"), t.TempDir()
	version := strings.TrimSpace(run(t, exec.Command("dpkg-deb", "-f", deb, "Version")))
	run(t, exec.Command("dpkg-deb", "-x", deb, root))
	cmd := exec.Command(filepath.Join(root, "usr/bin/lever"), "--version")
	if out := run(t, cmd); out != "lever version "+version+"\n" {
		t.Errorf("the package is of version %s, its binary says %q", version, out)
	}
	f, err := elf.Open(filepath.Join(root, "usr/bin/lever"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Errorf("the binary needs %v (%v), and the package depends on nothing", libs, err)
	}
}

// A machine is a scratch root with a dpkg of its own and a systemctl that writes
// down what it is asked, for an ordinary user.
type machine struct {
	*testing.T
	root, tools string
}

func newMachine(t *testing.T, systemd bool) *machine {
	t.Helper()
	m := &machine{T: t, root: t.TempDir(), tools: t.TempDir()}
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "usr/sbin", "etc/systemd/system/multi-user.target.wants"} {
		if err := os.MkdirAll(filepath.Join(m.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.write("var/lib/dpkg/status", "", 0o644)
	if systemd {
		if err := os.MkdirAll(filepath.Join(m.root, "run/systemd/system"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// What the binary says while systemctl runs tells whether it is in place.
	m.tool("systemctl", `printf '%s' "$*" | sed "s|$DPKG_ROOT|ROOT|" >>`+m.tools+`/calls
case "$*" in
*enable*) ln -sf /usr/lib/systemd/system/lever.service "$DPKG_ROOT/etc/systemd/system/multi-user.target.wants/lever.service" ;;
*restart*|start*) printf ' with %s' "$(sh "$DPKG_ROOT/usr/bin/lever" --version)" >>`+m.tools+`/calls ;;
*stop*) test -e "$DPKG_ROOT/usr/bin/lever" ;;
esac
status=$?
echo >>`+m.tools+`/calls
case "$*" in *"$FAIL"*) [ -z "$FAIL" ] || exit 1 ;; esac
exit $status
`)
	return m
}

func (m *machine) tool(name, script string) {
	m.Helper()
	if err := os.WriteFile(filepath.Join(m.tools, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) write(name, text string, mode os.FileMode) {
	m.Helper()
	if err := os.Chmod(write(m.T, filepath.Join(m.root, name), text), mode); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) has(name string) bool {
	_, err := os.Lstat(filepath.Join(m.root, name))
	return err == nil
}

// dpkg runs it on the scratch root, and returns what was said and what was asked
// of systemctl.
func (m *machine) dpkg(args ...string) (said string, calls []string) {
	m.Helper()
	out, calls, err := m.try(args...)
	if err != nil {
		m.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out, calls
}

func (m *machine) try(args ...string) (said string, calls []string, err error) {
	m.Helper()
	cmd := exec.Command("dpkg", append([]string{"--root=" + m.root, "--force-not-root", "--force-script-chrootless", "--log=/dev/null"}, args...)...)
	return m.record(cmd)
}

// script runs a maintainer script as it was installed.
func (m *machine) script(name string, args ...string) (said string, calls []string, err error) {
	m.Helper()
	cmd := exec.Command("sh", append([]string{filepath.Join("package", name)}, args...)...)
	cmd.Env = append(cmd.Env, "DPKG_ROOT="+m.root)
	return m.record(cmd)
}

func (m *machine) record(cmd *exec.Cmd) (said string, calls []string, err error) {
	m.Helper()
	file := filepath.Join(m.tools, "calls")
	_ = os.Remove(file)
	cmd.Env = append(cmd.Env, "PATH="+m.tools+":"+os.Getenv("PATH")+":/usr/sbin:/sbin", "FAIL="+os.Getenv("FAIL"), "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	text, readErr := os.ReadFile(file)
	if readErr == nil {
		calls = strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	return out.String(), calls, err
}

func (m *machine) expect(what string, got []string, want ...string) {
	m.Helper()
	if !slices.Equal(got, want) {
		m.Errorf("%s: systemctl was asked\n  %s\nwant\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (m *machine) says(said string, words ...string) {
	m.Helper()
	for _, w := range words {
		if !strings.Contains(strings.Join(strings.Fields(said), " "), w) {
			m.Errorf("nothing says %q:\n%s", w, said)
		}
	}
}

const inventoryFile = "etc/lever/inventory.yaml"

const (
	enable = "--root=ROOT --quiet enable lever.service"
	reread = "--system daemon-reload"
	active = "--quiet is-active lever.service"
)

// The life of a package: installed twice, removed, installed again, purged.
func TestPackageLife(t *testing.T) {
	one, two := pack(t, "1.0.0"), pack(t, "2.0.0")
	m := newMachine(t, true)

	said, calls := m.dpkg("-i", one)
	m.expect("install", calls, enable, reread)
	m.says(said, "there is no /etc/lever/inventory.yaml yet", "systemctl start lever")
	if info, err := os.Stat(filepath.Join(m.root, "etc/lever")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("/etc/lever: %v, %v", info, err)
	}

	m.write(inventoryFile, "apiVersion: lever/v1\n", 0o600)
	m.write("etc/default/lever", "NODE=fra1-r1\n", 0o644)
	m.write("var/lib/lever/l1.json", "{}", 0o600)
	m.write("run/lever/links/l1.json", "{}", 0o600)
	_, calls = m.dpkg("-i", two)
	// No stop: the old agent runs until the new binary is there.
	m.expect("upgrade", calls, reread, "try-restart lever.service with lever version 2.0.0", active)
	if text, err := os.ReadFile(filepath.Join(m.root, "etc/default/lever")); err != nil || string(text) != "NODE=fra1-r1\n" {
		t.Errorf("the settings are %q now (%v)", text, err)
	}

	_, calls = m.dpkg("-i", two)
	m.expect("the same version again", calls, reread, "try-restart lever.service with lever version 2.0.0", active)
	_, calls = m.dpkg("-i", one)
	m.expect("downgrade", calls, reread, "try-restart lever.service with lever version 1.0.0", active)

	said, calls = m.dpkg("--remove", "lever")
	m.expect("removal", calls, "stop lever.service", reread)
	m.says(said, "stay as they are", `run "lever down" before the removal`, "tc qdisc del", "until this machine is booted again")
	for _, name := range []string{inventoryFile, "etc/default/lever", "var/lib/lever/l1.json", "run/lever/links/l1.json"} {
		if !m.has(name) {
			t.Errorf("the removal took %s", name)
		}
	}
	if m.has("usr/bin/lever") {
		t.Error("the binary is still there")
	}

	t.Setenv("FAIL", "is-active") // it was stopped, and try-restart starts nothing
	said, calls = m.dpkg("-i", two)
	t.Setenv("FAIL", "")
	m.expect("install again", calls, reread, "try-restart lever.service with lever version 2.0.0", active)
	m.says(said, "does not run", "systemctl start lever")

	said, calls = m.dpkg("--purge", "lever")
	m.expect("purge", calls, "stop lever.service", reread, reread)
	m.says(said, "inventory and keys in /etc/lever are left")
	for name, want := range map[string]bool{
		inventoryFile: true, "run/lever/links/l1.json": true, "etc/default/lever": false, "var/lib/lever": false,
		"etc/systemd/system/multi-user.target.wants/lever.service": false,
	} {
		if m.has(name) != want {
			t.Errorf("after a purge: %s is there: %v", name, !want)
		}
	}
	if out, _ := m.dpkg("--audit"); strings.TrimSpace(out) != "" {
		t.Errorf("dpkg --audit: %s", out)
	}
}

func TestInstallWithInventoryStarts(t *testing.T) {
	m := newMachine(t, true)
	m.write(inventoryFile, "apiVersion: lever/v1\n", 0o600)
	_, calls := m.dpkg("-i", pack(t, "1.0.0"))
	m.expect("install", calls, enable, reread, "start lever.service with lever version 1.0.0")
}

// In a container or an image that is being built nothing runs, and nothing is
// started.
func TestPackageWithoutSystemd(t *testing.T) {
	m := newMachine(t, false)
	m.write(inventoryFile, "apiVersion: lever/v1\n", 0o600)
	_, calls := m.dpkg("-i", pack(t, "1.0.0"))
	m.expect("install", calls, enable)
	_, calls = m.dpkg("-i", pack(t, "2.0.0"))
	m.expect("upgrade", calls)
	_, calls = m.dpkg("--purge", "lever")
	m.expect("purge", calls)
}

// Whatever systemctl answers, the package is installed and removed, and what
// failed is said.
func TestPackageWhenSystemctlFails(t *testing.T) {
	for _, c := range []struct{ fail, said string }{
		{"enable", "systemctl enable lever"},
		{"daemon-reload", "daemon-reload failed"},
		{"start", "journalctl -u lever"},
		{"try-restart", "the encrypted path stands"},
		{"stop", "end it by hand"},
	} {
		t.Run(c.fail, func(t *testing.T) {
			t.Setenv("FAIL", c.fail)
			m := newMachine(t, true)
			m.write(inventoryFile, "apiVersion: lever/v1\n", 0o600)
			a, _ := m.dpkg("-i", pack(t, "1.0.0"))
			b, _ := m.dpkg("-i", pack(t, "2.0.0"))
			d, _ := m.dpkg("--purge", "lever")
			m.says(a+b+d, c.said)
		})
	}
}

func TestPolicyIsAsked(t *testing.T) {
	m := newMachine(t, true)
	m.write(inventoryFile, "apiVersion: lever/v1\n", 0o600)
	m.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
	said, calls := m.dpkg("-i", pack(t, "1.0.0"))
	m.expect("install", calls, enable, reread)
	m.says(said, "policy-rc.d forbids: start lever")
	_, calls = m.dpkg("-i", pack(t, "2.0.0"))
	m.expect("upgrade", calls, reread)
}

// Nobody has to read what the scripts say.
func TestMaintainerScriptsUnread(t *testing.T) {
	for _, c := range [][]string{{"postinst", "configure", ""}, {"prerm", "remove"}, {"postrm", "purge"}} {
		t.Run(c[0], func(t *testing.T) {
			m := newMachine(t, true)
			m.write(inventoryFile, "apiVersion: lever/v1\n", 0o600)
			m.write("usr/bin/lever", "", 0o755)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			_ = r.Close()
			cmd := exec.Command("sh", append([]string{filepath.Join("package", c[0])}, c[1:]...)...)
			// systemctl fails whatever it is asked, which is said as well.
			cmd.Env = []string{"DPKG_ROOT=" + m.root, "FAIL=e", "PATH=" + m.tools + ":" + os.Getenv("PATH")}
			cmd.Stdout = w
			err = errors.Join(cmd.Run(), w.Close())
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// dpkg calls scripts in more ways than one sees (deb-maint-scripts(5)), and again
// after a failure.
func TestMaintainerScripts(t *testing.T) {
	for _, c := range []struct {
		script string
		args   []string
		calls  int
		fails  bool
	}{
		{"postinst", []string{"configure", ""}, 2, false},
		{"postinst", []string{"configure", "0.9"}, 3, false},
		{"postinst", []string{"abort-upgrade", "2.0.0"}, 0, false},
		{"postinst", []string{"abort-remove"}, 0, false},
		{"postinst", []string{"abort-deconfigure"}, 0, false},
		{"postinst", []string{"triggered"}, 0, true},
		{"prerm", []string{"remove"}, 1, false},
		{"prerm", []string{"upgrade", "2.0.0"}, 0, false},
		{"prerm", []string{"failed-upgrade", "1.0.0"}, 0, false},
		{"prerm", []string{"deconfigure"}, 0, false},
		{"prerm", nil, 0, true},
		{"postrm", []string{"remove"}, 1, false},
		{"postrm", []string{"purge"}, 1, false},
		{"postrm", []string{"upgrade", "2.0.0"}, 0, false},
		{"postrm", []string{"abort-install"}, 0, false},
		{"postrm", nil, 0, true},
	} {
		m := newMachine(t, true)
		m.write("usr/bin/lever", "", 0o755)
		for again := range 2 {
			said, calls, err := m.script(c.script, c.args...)
			what := fmt.Sprintf("%s %v, time %d", c.script, c.args, again+1)
			if (err != nil) != c.fails {
				t.Errorf("%s: %v\n%s", what, err, said)
			}
			if len(calls) != c.calls {
				t.Errorf("%s asked systemctl %q", what, calls)
			}
		}
	}
}
