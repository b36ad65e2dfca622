package uml

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// modules are loaded in every guest: there is no modprobe that the kernel
// could call when something first asks for one.
func modules() []string {
	return []string{
		"macsec", "gcm", "ctr", "ghash-generic", // gcm(aes) is made of these
		"veth", "dummy", "bridge", "8021q", "ipv6", "vrf",
		"sch_ingress", "cls_bpf", "cls_matchall", "cls_flower", "cls_fw", "act_gact", // the fence, and foreign filters
		"sch_netem", // loss and delay in tests
	}
}

// guestModules is where a guest, and no other machine, finds the modules of its kernel.
const guestModules = "/dev/lever-guest-modules"

// Guest says whether this process runs in a guest, whose kernel nobody else uses.
func Guest() bool {
	_, err := os.Lstat(guestModules)
	return err == nil
}

// LoadModule loads a module that a test has removed from its guest.
func LoadModule(name string) error { return loadModules(guestModules, []string{name}) }

// parameters keep modules from making devices that nobody asked for.
var parameters = map[string]string{"dummy": "numdummies=0", "bonding": "max_bonds=0"}

// loadModules loads the named modules of the directory that has modules.dep,
// with what they need, each after what it needs.
func loadModules(dir string, names []string) error {
	f, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return fmt.Errorf("load kernel modules: %w", err)
	}
	defer f.Close()
	deps, err := parseModulesDep(f)
	if err != nil {
		return fmt.Errorf("load kernel modules: %s: %w", f.Name(), err)
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return fmt.Errorf("load kernel modules: %w", err)
	}
	for path := range strings.Lines(string(builtin)) {
		if name := moduleName(strings.TrimSpace(path)); deps.path[name] == "" {
			deps.path[name] = "" // known, and nothing to load
		}
	}
	order, err := deps.order(names)
	if err != nil {
		return fmt.Errorf("load kernel modules from %s: %w", dir, err)
	}
	for _, path := range order {
		if err := loadModule(filepath.Join(dir, path)); err != nil {
			return fmt.Errorf("load kernel module %s: %w", path, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), parameters[moduleName(path)], 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// moduleDeps is the content of modules.dep.
type moduleDeps struct {
	path map[string]string   // by name; empty for what is built in
	need map[string][]string // paths by path, the nearest first
}

// parseModulesDep reads lines of the form "path: path path …", of which the
// dependencies are complete and in reverse order of loading (depmod(8)).
func parseModulesDep(r io.Reader) (moduleDeps, error) {
	d := moduleDeps{path: map[string]string{}, need: map[string][]string{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		path, needs, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			return d, fmt.Errorf("line %d has no colon", n)
		}
		d.path[moduleName(path)] = path
		d.need[path] = strings.Fields(needs)
	}
	return d, lines.Err()
}

// order lists the files to load for the named modules, each once and after
// what it needs.
func (d moduleDeps) order(names []string) ([]string, error) {
	var order []string
	done := map[string]bool{"": true}
	add := func(path string) {
		if !done[path] {
			done[path] = true
			order = append(order, path)
		}
	}
	var unknown []string
	for _, name := range names {
		path, ok := d.path[moduleName(name)]
		if !ok {
			unknown = append(unknown, name)
			continue
		}
		for _, need := range slices.Backward(d.need[path]) {
			add(need)
		}
		add(path)
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("this kernel has no module %s", strings.Join(unknown, ", "))
	}
	return order, nil
}

// moduleName is what the kernel calls the module in a file: without directory
// and suffix, and with underscores, which file names often write as dashes.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
